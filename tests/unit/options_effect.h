/* options_effect.h - what each option of each registered method changes, one line an option; see peft_options_effect_test.c. */
#ifndef OPTIONS_EFFECT_H
#define OPTIONS_EFFECT_H

#include <stddef.h>

enum {
    EFFECT_SHAPES,  /* the parameters' names, shapes, or which of them are trained */
    EFFECT_VALUES,  /* initial values of the same parameters */
    EFFECT_LOGITS,  /* the logits, from the same values */
    EFFECT_TRAIN,   /* the values after some steps from the same values with the same seed */
    EFFECT_FILE,    /* the saved config: it has "key": two, and without the option has not */
    EFFECT_BASE,    /* set by the library: the saved config has "key": one for the Llama, "key": two for the GPT-2 */
    EFFECT_TEXT,    /* the text that it wants to start from is two */
    EFFECT_REFUSED  /* with two there is nothing that the adapter could change: PEFT_E_NOT_FOUND */
};

typedef struct effect_line {
    const char *methods;   /* words; NULL: all that have the option and are named by no line above */
    const char *key;
    int what;
    const char *one, *two; /* JSON values with ' for "; one NULL: unset */
    const char *with;      /* options of both, in braces; NULL: none */
    int steps;             /* TRAIN; 0: 2 */
} effect_line;

#define LORAS "lora dora lora_fa"
#define SOFTS "prompt multitask_prompt ptuning prefix ptuning_v2"
#define PREFIXES "prefix ptuning_v2"
#define HUB_SOFT "prefix_tuning mam unipelt"
#define PARTS "mam unipelt"
#define SERIAL "houlsby pfeiffer houlsby_inv pfeiffer_inv compacter compacter++"
#define BOTTLENECKS SERIAL " parallel"
#define PHM "'phm_layer':true,'phm_dim':2,'non_linearity':'gelu'"
#define ADALORA "'init_r':4,'target_r':2,'tinit':2,'tfinal':3,'deltaT':2"

/* Options without which a method is too large for the bases here, or is not at all. */
static const char *const effect_usual[][2] = {
    {"trainable_tokens", "{'token_indices':[1,4,5]}"},
    {"vera", "{'r':8}"},
    {"oft", "{'oft_block_size':4}"},
    {"union", "{'parts':['p','q']}"},
    {"fusion", "{'adapters':['f','g']}"},
    {"prompt", "{'num_virtual_tokens':3}"},
    {"multitask_prompt", "{'num_virtual_tokens':3,'num_tasks':2}"},
    {"ptuning", "{'num_virtual_tokens':3,'encoder_hidden_size':6}"},
    {"prefix", "{'num_virtual_tokens':3}"},
    {"ptuning_v2", "{'num_virtual_tokens':3}"},
    {"prefix_tuning", "{'prefix_length':3,'bottleneck_size':5}"},
    {"mam", "{'prefix_length':3,'bottleneck_size':5,'reduction_factor':2}"},
    {"unipelt", "{'prefix_length':3,'bottleneck_size':5,'reduction_factor':2,'r':2}"},
    {"houlsby", "{'reduction_factor':2}"},
    {"pfeiffer", "{'reduction_factor':2}"},
    {"houlsby_inv", "{'reduction_factor':2}"},
    {"pfeiffer_inv", "{'reduction_factor':2}"},
    {"compacter", "{'reduction_factor':2}"},
    {"compacter++", "{'reduction_factor':2}"},
};

static const effect_line effect_lines[] = {
    /* modules and files, of all that have them */
    {"ln_tuning", "target_modules", EFFECT_SHAPES, NULL, "['input_layernorm']", NULL, 0},
    {"trainable_tokens", "target_modules", EFFECT_SHAPES, NULL, "['lm_head']", NULL, 0},
    {"ia3", "feedforward_modules", EFFECT_SHAPES, NULL, "[]", "{'target_modules':['down_proj']}", 0},
    {"ia3", "target_modules", EFFECT_SHAPES, NULL, "['q_proj','down_proj']", NULL, 0},
    {NULL, "target_modules", EFFECT_SHAPES, NULL, "['o_proj']", NULL, 0},
    {"ln_tuning", "exclude_modules", EFFECT_SHAPES, NULL, "['input_layernorm']", NULL, 0},
    {NULL, "exclude_modules", EFFECT_SHAPES, NULL, "['v_proj']", NULL, 0},
    {NULL, "modules_to_save", EFFECT_SHAPES, NULL, "['lm_head']", NULL, 0},
    {"bitfit", "layers_to_transform", EFFECT_SHAPES, NULL, "[1]", "{'target_modules':['q_proj','v_proj']}", 0},
    {NULL, "layers_to_transform", EFFECT_SHAPES, NULL, "[1]", NULL, 0},
    {"bitfit", "layers_pattern", EFFECT_REFUSED, "['layers']", "['blocks']",
     "{'target_modules':['q_proj'],'layers_to_transform':[1]}", 0},
    {NULL, "layers_pattern", EFFECT_REFUSED, "['layers']", "['blocks']", "{'layers_to_transform':[1]}", 0},
    {NULL, "task_type", EFFECT_FILE, NULL, "'SEQ_CLS'", NULL, 0},
    {BOTTLENECKS " " HUB_SOFT " lora_hub fusion", "base_model_name_or_path", EFFECT_FILE, NULL,
     "@'model_name': 'some/base'", NULL, 0},
    {NULL, "base_model_name_or_path", EFFECT_FILE, NULL, "'some/base'", NULL, 0},
    {NULL, "fan_in_fan_out", EFFECT_BASE, "false", "true", NULL, 0},

    {LORAS " vera loha", "r", EFFECT_SHAPES, NULL, "3", NULL, 0},
    {"lokr", "r", EFFECT_SHAPES, "2", "1", NULL, 0},
    {LORAS, "lora_alpha", EFFECT_LOGITS, NULL, "3", NULL, 0},
    {LORAS " adalora", "lora_dropout", EFFECT_TRAIN, NULL, "0.5", NULL, 0},
    {LORAS " loha", "rank_pattern", EFFECT_SHAPES, NULL, "{'q_proj':3}", NULL, 0},
    {"lokr", "rank_pattern", EFFECT_SHAPES, NULL, "{'q_proj':1}", NULL, 0},
    {LORAS " loha", "alpha_pattern", EFFECT_LOGITS, NULL, "{'v_proj':3}", NULL, 0},
    {"lokr", "alpha_pattern", EFFECT_LOGITS, NULL, "{'v_proj':3}", "{'r':1}", 0},
    {LORAS, "bias", EFFECT_SHAPES, NULL, "'lora_only'", NULL, 0},
    {LORAS, "init_lora_weights", EFFECT_VALUES, NULL, "'gaussian'", NULL, 0},
    {LORAS, "use_rslora", EFFECT_LOGITS, NULL, "true", NULL, 0},
    {"dora", "use_dora", EFFECT_SHAPES, NULL, "false", NULL, 0},
    {"lora lora_fa", "use_dora", EFFECT_SHAPES, NULL, "true", NULL, 0},
    {LORAS, "trainable_token_indices", EFFECT_SHAPES, NULL, "[3,5]", NULL, 0},
    {LORAS, "num_new_tokens", EFFECT_SHAPES, NULL, "2", "{'trainable_token_indices':[3]}", 0},
    {LORAS, "loraplus_lr_ratio", EFFECT_TRAIN, NULL, "8", NULL, 0},

    {"trainable_tokens", "token_indices", EFFECT_SHAPES, NULL, "[1,4]", NULL, 0},
    {"trainable_tokens", "num_new_tokens", EFFECT_SHAPES, NULL, "2", NULL, 0},
    {"trainable_tokens", "init_weights", EFFECT_VALUES, NULL, "false", NULL, 0},

    {"adalora", "init_r", EFFECT_SHAPES, NULL, "9", NULL, 0},
    {"adalora", "target_r", EFFECT_TRAIN, NULL, "3", "{" ADALORA "}", 10},
    {"adalora", "tinit", EFFECT_TRAIN, NULL, "5", "{" ADALORA "}", 10},
    {"adalora", "tfinal", EFFECT_TRAIN, NULL, "6", "{" ADALORA "}", 10},
    {"adalora", "deltaT", EFFECT_TRAIN, NULL, "5", "{" ADALORA "}", 10},
    {"adalora", "beta1", EFFECT_TRAIN, "0.9", "0.05", "{" ADALORA "}", 10},
    {"adalora", "beta2", EFFECT_TRAIN, "0.9", "0.05", "{" ADALORA "}", 10},
    {"adalora", "orth_reg_weight", EFFECT_TRAIN, NULL, "0.1", NULL, 0},
    {"adalora", "total_step", EFFECT_TRAIN, NULL, "20", "{" ADALORA "}", 10},
    {"adalora", "lora_alpha", EFFECT_LOGITS, NULL, "3", NULL, 0},
    {"adalora", "init_lora_weights", EFFECT_VALUES, NULL, "false", NULL, 0},
    {"adalora", "rank_pattern", EFFECT_SHAPES, NULL,
     "{'model.layers.0.self_attn.q_proj.lora_E':[true,false],'model.layers.1.self_attn.q_proj.lora_E':[false,true],"
     "'model.layers.0.self_attn.v_proj.lora_E':[true,true],'model.layers.1.self_attn.v_proj.lora_E':[true,true]}",
     "{'init_r':2,'target_r':2}", 0},

    {"vera", "vera_dropout", EFFECT_TRAIN, NULL, "0.5", NULL, 0},
    {"vera", "d_initial", EFFECT_VALUES, NULL, "0.3", NULL, 0},
    {"vera", "projection_prng_key", EFFECT_VALUES, NULL, "7", NULL, 0},
    {"vera", "save_projection", EFFECT_FILE, NULL, "false", NULL, 0},
    {"loha", "alpha", EFFECT_LOGITS, NULL, "3", NULL, 0},
    {"lokr", "alpha", EFFECT_LOGITS, NULL, "3", "{'r':1}", 0},
    {"loha lokr", "rank_dropout", EFFECT_TRAIN, NULL, "0.5", NULL, 0},
    {"loha lokr oft", "module_dropout", EFFECT_TRAIN, NULL, "0.6", NULL, 0},
    {"loha", "init_weights", EFFECT_VALUES, NULL, "false", NULL, 0},
    {"lokr", "rank_dropout_scale", EFFECT_TRAIN, NULL, "true", "{'rank_dropout':0.5}", 0},
    {"lokr", "decompose_both", EFFECT_SHAPES, NULL, "true", "{'r':1}", 0},
    {"lokr", "decompose_factor", EFFECT_SHAPES, NULL, "2", NULL, 0},
    {"lokr", "init_weights", EFFECT_VALUES, NULL, "'lycoris'", NULL, 0},
    {"oft", "r", EFFECT_SHAPES, NULL, "2", "{'oft_block_size':0,'r':4}", 0},
    {"oft", "oft_block_size", EFFECT_SHAPES, NULL, "8", NULL, 0},
    {"oft", "coft", EFFECT_LOGITS, NULL, "true", NULL, 0},
    {"oft", "eps", EFFECT_LOGITS, NULL, "0.1", "{'coft':true}", 0},
    {"oft", "block_share", EFFECT_SHAPES, NULL, "true", NULL, 0},
    {"oft", "use_cayley_neumann", EFFECT_LOGITS, NULL, "false", NULL, 0},
    {"oft", "num_cayley_neumann_terms", EFFECT_LOGITS, NULL, "3", NULL, 0},
    {"oft boft", "init_weights", EFFECT_VALUES, NULL, "false", NULL, 0},
    {"boft", "boft_block_size", EFFECT_SHAPES, NULL, "8", NULL, 0},
    {"boft", "boft_block_num", EFFECT_SHAPES, "4", "2", "{'boft_block_size':0}", 0},
    {"boft", "boft_n_butterfly_factor", EFFECT_SHAPES, NULL, "2", NULL, 0},
    {"boft", "boft_dropout", EFFECT_TRAIN, NULL, "0.9", NULL, 0},
    {"ia3", "init_ia3_weights", EFFECT_VALUES, NULL, "false", NULL, 0},

    {"pfeiffer pfeiffer_inv compacter++ parallel", "mh_adapter", EFFECT_SHAPES, NULL, "true", NULL, 0},
    {"houlsby houlsby_inv compacter", "mh_adapter", EFFECT_SHAPES, NULL, "false", NULL, 0},
    {BOTTLENECKS, "output_adapter", EFFECT_SHAPES, NULL, "false", "{'mh_adapter':true}", 0},
    {BOTTLENECKS, "cross_adapter", EFFECT_FILE, NULL, "true", NULL, 0}, /* these two bases have no encoder: model_seq2seq_test.c */
    {"prefix_tuning", "encoder_prefix", EFFECT_FILE, NULL, "false", NULL, 0},
    {"prefix_tuning", "cross_prefix", EFFECT_FILE, NULL, "false", NULL, 0},
    {"compacter compacter++", "reduction_factor", EFFECT_SHAPES, NULL, "4", NULL, 0},
    {BOTTLENECKS " " PARTS, "reduction_factor", EFFECT_SHAPES, NULL, "4", NULL, 0},
    {BOTTLENECKS, "reduction_factors", EFFECT_SHAPES, NULL, "{'1':4}", NULL, 0},
    {BOTTLENECKS " " HUB_SOFT, "non_linearity", EFFECT_LOGITS, NULL, "'sigmoid'", NULL, 0},
    {BOTTLENECKS " " PARTS, "scaling", EFFECT_LOGITS, NULL, "'0.5'", NULL, 0},
    {"unipelt", "use_gating", EFFECT_SHAPES, NULL, "false", NULL, 0},
    {NULL, "use_gating", EFFECT_SHAPES, NULL, "true", NULL, 0},
    {BOTTLENECKS " " HUB_SOFT " lora_hub", "dropout", EFFECT_TRAIN, NULL, "0.5", NULL, 0},
    {BOTTLENECKS, "stochastic_depth", EFFECT_TRAIN, NULL, "0.7", NULL, 0},
    {BOTTLENECKS, "adapter_drop", EFFECT_TRAIN, NULL, "2", NULL, 8},
    {BOTTLENECKS " " HUB_SOFT " lora_hub", "leave_out", EFFECT_SHAPES, NULL, "[1]", NULL, 0},
    {"parallel", "original_ln_before", EFFECT_FILE, NULL, "true", NULL, 0}, /* it reads what the sub-layer reads */
    {"pfeiffer pfeiffer_inv compacter++", "original_ln_before", EFFECT_LOGITS, NULL, "false", NULL, 0},
    {BOTTLENECKS, "original_ln_before", EFFECT_LOGITS, NULL, "true", NULL, 0},
    {BOTTLENECKS, "original_ln_after", EFFECT_LOGITS, NULL, "false", NULL, 0},
    {"parallel", "residual_before_ln", EFFECT_FILE, NULL, "false", NULL, 0},
    {BOTTLENECKS, "residual_before_ln", EFFECT_LOGITS, NULL, "false", "{'original_ln_before':true}", 0},
    {BOTTLENECKS, "ln_before", EFFECT_SHAPES, NULL, "true", NULL, 0},
    {BOTTLENECKS, "ln_after", EFFECT_SHAPES, NULL, "true", NULL, 0},
    {"parallel", "adapter_residual_before_ln", EFFECT_FILE, NULL, "true", "{'ln_after':true}", 0},
    {BOTTLENECKS, "adapter_residual_before_ln", EFFECT_LOGITS, NULL, "true", "{'ln_after':true}", 0},
    {"parallel mam", "init_weights", EFFECT_VALUES, NULL, "'bert'", NULL, 0},
    {"compacter compacter++", "init_weights", EFFECT_VALUES, NULL, "'houlsby'", "{'phm_layer':false}", 0},
    {BOTTLENECKS " unipelt", "init_weights", EFFECT_VALUES, NULL, "'mam_adapter'", "{'non_linearity':'relu'}", 0},
    {BOTTLENECKS, "init_weights_seed", EFFECT_VALUES, NULL, "9", NULL, 0},
    {"compacter compacter++", "phm_layer", EFFECT_SHAPES, NULL, "false", NULL, 0},
    {BOTTLENECKS, "phm_layer", EFFECT_SHAPES, NULL, "true", NULL, 0},
    {BOTTLENECKS, "phm_dim", EFFECT_SHAPES, NULL, "4", "{" PHM "}", 0},
    {BOTTLENECKS, "phm_rank", EFFECT_SHAPES, NULL, "2", "{" PHM "}", 0},
    {BOTTLENECKS, "factorized_phm_W", EFFECT_SHAPES, NULL, "false", "{" PHM "}", 0},
    {BOTTLENECKS, "shared_W_phm", EFFECT_SHAPES, NULL, "true", "{" PHM "}", 0},
    {BOTTLENECKS, "shared_phm_rule", EFFECT_SHAPES, NULL, "false", "{" PHM "}", 0},
    {BOTTLENECKS, "factorized_phm_rule", EFFECT_SHAPES, NULL, "true", "{" PHM "}", 0},
    {BOTTLENECKS, "learn_phm", EFFECT_SHAPES, NULL, "false", "{" PHM "}", 0},
    {BOTTLENECKS, "phm_bias", EFFECT_SHAPES, NULL, "false", "{" PHM "}", 0},
    {BOTTLENECKS, "phm_c_init", EFFECT_VALUES, NULL, "'uniform'", "{" PHM "}", 0},
    {BOTTLENECKS, "phm_init_range", EFFECT_VALUES, NULL, "0.5", "{" PHM "}", 0},
    {BOTTLENECKS, "hypercomplex_nonlinearity", EFFECT_VALUES, NULL, "'normal'", "{" PHM "}", 0},
    {"houlsby_inv pfeiffer_inv", "inv_adapter", EFFECT_SHAPES, NULL, "'none'", NULL, 0},
    {BOTTLENECKS, "inv_adapter", EFFECT_SHAPES, NULL, "'glow'", NULL, 0},
    {BOTTLENECKS, "inv_adapter_reduction_factor", EFFECT_SHAPES, NULL, "4", "{'inv_adapter':'nice'}", 0},
    {BOTTLENECKS, "inv_head", EFFECT_LOGITS, NULL, "false", "{'inv_adapter':'nice'}", 0},

    {SOFTS, "num_virtual_tokens", EFFECT_SHAPES, NULL, "4", NULL, 0},
    {PREFIXES, "token_dim", EFFECT_BASE, "8", "24", NULL, 0},
    {SOFTS, "token_dim", EFFECT_BASE, "16", "24", NULL, 0},
    {SOFTS, "num_layers", EFFECT_BASE, "2", "3", NULL, 0},
    {PREFIXES, "num_attention_heads", EFFECT_BASE, "1", "4", NULL, 0},
    {SOFTS, "num_attention_heads", EFFECT_BASE, "2", "4", NULL, 0},
    {SOFTS, "num_transformer_submodules", EFFECT_BASE, "1", "1", NULL, 0},
    {"prompt multitask_prompt", "prompt_tuning_init", EFFECT_VALUES, NULL, "'RANDOM'", NULL, 0},
    {"prompt multitask_prompt", "prompt_tuning_init_text", EFFECT_TEXT, NULL, "'say it'",
     "{'prompt_tuning_init':'TEXT'}", 0},
    {"prompt", "tokenizer_name_or_path", EFFECT_FILE, NULL, "'some/words'", "{'prompt_tuning_init':'TEXT'}", 0},
    {"multitask_prompt", "tokenizer_name_or_path", EFFECT_FILE, NULL, "'some/words'", "{'prompt_tuning_init':'TEXT'}", 0},
    {"prompt multitask_prompt ptuning", "init_from", EFFECT_VALUES, NULL, "'$prompt'", NULL, 0},
    {"prompt multitask_prompt ptuning", "prompt_tuning_init_task", EFFECT_VALUES, "0", "1", "{'init_from':'$tasks'}", 0},
    {"multitask_prompt", "num_tasks", EFFECT_SHAPES, NULL, "3", NULL, 0},
    {"multitask_prompt", "num_ranks", EFFECT_SHAPES, NULL, "2", NULL, 0},
    {"multitask_prompt", "prompt_tuning_init_state_dict_path", EFFECT_VALUES, "'$tasks'", "'$others'",
     "{'prompt_tuning_init':'AVERAGE_SOURCE_TASKS'}", 0},
    {"multitask_prompt", "task_init", EFFECT_VALUES, NULL, "'random'", NULL, 0},
    {"ptuning", "encoder_reparameterization_type", EFFECT_SHAPES, NULL, "'LSTM'", NULL, 0},
    {"ptuning", "encoder_hidden_size", EFFECT_SHAPES, NULL, "4", NULL, 0},
    {PREFIXES, "encoder_hidden_size", EFFECT_SHAPES, NULL, "4", "{'prefix_projection':true}", 0},
    {"ptuning", "encoder_num_layers", EFFECT_SHAPES, NULL, "3", "{'encoder_reparameterization_type':'LSTM'}", 0},
    {"ptuning", "encoder_dropout", EFFECT_TRAIN, NULL, "0.5", "{'encoder_reparameterization_type':'LSTM'}", 0},
    {"ptuning " PREFIXES " " HUB_SOFT, "init", EFFECT_VALUES, NULL, "'random'", NULL, 0},
    {"ptuning", "init_text", EFFECT_TEXT, NULL, "'say it'", "{'init':'text'}", 0},
    {PREFIXES " " HUB_SOFT, "init_text", EFFECT_TEXT, NULL, "'say it'", NULL, 0},
    {PREFIXES, "init_from", EFFECT_VALUES, NULL, "'$prefix'", NULL, 0},
    {"ptuning", "baked", EFFECT_SHAPES, NULL, "true", NULL, 0},
    {PREFIXES, "baked", EFFECT_SHAPES, NULL, "true", "{'prefix_projection':true}", 0},
    {PREFIXES, "prefix_projection", EFFECT_SHAPES, NULL, "true", NULL, 0},

    {HUB_SOFT, "prefix_length", EFFECT_SHAPES, NULL, "4", NULL, 0},
    {HUB_SOFT, "bottleneck_size", EFFECT_SHAPES, NULL, "6", NULL, 0},
    {HUB_SOFT, "flat", EFFECT_SHAPES, NULL, "true", NULL, 0},
    {HUB_SOFT, "shared_gating", EFFECT_SHAPES, NULL, "false", "{'use_gating':true}", 0},
    {PARTS, "prefix_non_linearity", EFFECT_LOGITS, NULL, "'sigmoid'", NULL, 0},
    {PARTS, "prefix_dropout", EFFECT_TRAIN, NULL, "0.5", NULL, 0},
    {"lora_hub", "r", EFFECT_SHAPES, NULL, "3", NULL, 0},
    {"lora_hub", "alpha", EFFECT_LOGITS, NULL, "3", NULL, 0},
    {"lora_hub", "attn_matrices", EFFECT_SHAPES, NULL, "['q']", NULL, 0},
    {"lora_hub", "selfattn_lora", EFFECT_SHAPES, NULL, "false", "{'output_lora':true}", 0},
    {"lora_hub", "intermediate_lora", EFFECT_SHAPES, NULL, "true", NULL, 0},
    {"lora_hub", "output_lora", EFFECT_SHAPES, NULL, "true", NULL, 0},
    {"lora_hub", "init_weights", EFFECT_VALUES, NULL, "'bert'", NULL, 0},
    {"unipelt", "r", EFFECT_SHAPES, NULL, "3", NULL, 0},
    {"unipelt", "alpha", EFFECT_LOGITS, NULL, "5", "{'use_gating':false}", 0},
    {"unipelt", "lora_dropout", EFFECT_TRAIN, NULL, "0.5", NULL, 0},
    {"unipelt", "attn_matrices", EFFECT_SHAPES, NULL, "['v']", NULL, 0},

    {"union", "parts", EFFECT_SHAPES, NULL, "['p']", NULL, 0},
    {"fusion", "adapters", EFFECT_LOGITS, "['f','g']", "['f','h']", NULL, 0},
    {"fusion", "query", EFFECT_SHAPES, NULL, "false", NULL, 0},
    {"fusion", "key", EFFECT_SHAPES, NULL, "false", NULL, 0},
    {"fusion", "value", EFFECT_SHAPES, NULL, "false", NULL, 0},
    {"fusion", "value_initialized", EFFECT_VALUES, NULL, "false", NULL, 0},
    {"fusion", "value_before_softmax", EFFECT_FILE, NULL, "false", NULL, 0},
    {"fusion", "query_before_ln", EFFECT_LOGITS, NULL, "true", NULL, 0},
    {"fusion", "residual_before", EFFECT_LOGITS, NULL, "true", NULL, 0},
    {"fusion", "regularization", EFFECT_TRAIN, NULL, "false", NULL, 0},
    {"fusion", "temperature", EFFECT_TRAIN, NULL, "true", NULL, 0},
};

#endif
