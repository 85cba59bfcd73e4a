/* ln_tuning.c - LN-tuning: trained copies of the norms' gains and shifts (Zhao et al. 2023, arXiv 2312.11420).
 *
 *   y = x / sqrt(mean(x^2) + eps) o w'    or    (x - mean) / sqrt(var + eps) o w' + b'
 *
 * Copies start as the base has them. Options and keys are those of Hugging Face PEFT: "<path>.ln_tuning_layers.weight", ".bias".
 * Merging writes the copies in place of the base's.
 *
 * Left out: other modules than norms as targets. */
#include "peft/method.h"

enum { LN_WEIGHT = 0, LN_BIAS = 1 };

static const peft__option ln_options[] = {PEFT__TARGET_OPTIONS};
static const peft__schema ln_schema = {"method:ln_tuning", ln_options, PEFT__COUNT(ln_options)};

/* PEFT's TRANSFORMERS_MODELS_TO_LNTUNING_TARGET_MODULES_MAPPING; of Qwen2 and Qwen3 that has the second norm only. */
static const char *const ln_targets[][2] = {
    {"llama", "[\"input_layernorm\",\"post_attention_layernorm\",\"norm\"]"},
    {"mistral", "[\"input_layernorm\",\"post_attention_layernorm\",\"norm\"]"},
    {"gemma", "[\"input_layernorm\",\"post_attention_layernorm\",\"norm\"]"},
    {"gemma2", "[\"input_layernorm\",\"post_attention_layernorm\",\"pre_feedforward_layernorm\",\"post_feedforward_layernorm\",\"norm\"]"},
    {"gemma3_text",
     "[\"input_layernorm\",\"post_attention_layernorm\",\"pre_feedforward_layernorm\",\"post_feedforward_layernorm\",\"norm\"]"},
    {"qwen2", "[\"post_attention_layernorm\"]"},
    {"qwen3", "[\"post_attention_layernorm\"]"},
    {"gpt2", "[\"ln_1\",\"ln_2\",\"ln_f\"]"},
    {"gptj", "[\"ln_1\",\"ln_f\"]"},
    {"bloom", "[\"input_layernorm\",\"post_attention_layernorm\",\"ln_f\"]"},
    {"falcon", "[\"input_layernorm\",\"post_attention_layernorm\",\"ln_f\"]"},
    {"phi", "[\"input_layernorm\",\"final_layernorm\"]"},
    {"t5", "[\"layer_norm\",\"final_layer_norm\"]"},
    {"mt5", "[\"layer_norm\",\"final_layer_norm\"]"},
    {"bart", "[\"self_attn_layer_norm\",\"encoder_attn_layer_norm\",\"final_layer_norm\"]"},
};

static peft_status ln_add_site(peft__adapter *a, const peft__site *s, bool target, bool saved) {
    peft_status st = PEFT_OK;
    peft__attachment *at = NULL;
    if (saved) { return peft__adapter_save_site(a, s); }
    if (!target) { return PEFT_OK; }
    TRY(peft__adapter_attach(a, s, &at));
    at->weight_param = (int32_t)peft__adapter_param_count(a);
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.ln_tuning_layers.weight", s->path), LN_WEIGHT, 1,
                                s->weight->cols, 1, true, false));
    if (s->bias != NULL) {
        const char *key = peft__arena_printf(&a->arena, "%s.ln_tuning_layers.bias", s->path);
        if (key == NULL) { return PEFT_E_NOMEM; }
        TRY(peft__adapter_copy_bias(a, at, s, key, LN_BIAS));
    }
out:
    return st;
}

/* All norms of a base that PEFT has no targets for, as the option's text. */
static peft_status ln_all_norms(const peft__adapter *a, peft__str *out) {
    const peft__base_info *base = a->base;
    bool *norms = peft__alloc_zero(a->mem, base->n_sites * sizeof *norms);
    if (norms == NULL) { return PEFT_E_NOMEM; }
    for (size_t i = 0; i < base->n_sites; i++) { norms[i] = base->sites[i].kind == PEFT__SITE_NORM; }
    peft_status st = peft__target_names(base, norms, out);
    peft__free(a->mem, norms, base->n_sites * sizeof *norms);
    return st;
}

static peft_status ln_build(peft__adapter *a) {
    peft_status st = PEFT_OK;
    const char *usual = peft__model_type_find(ln_targets, PEFT__COUNT(ln_targets), a->base->model_type);
    peft__str all;
    peft__str_init(&all, a->mem);
    if (usual[0] == '\0') { TRY(ln_all_norms(a, &all)); }
    TRY(peft__adapter_targets(a, 1 << PEFT__SITE_NORM, usual[0] != '\0' ? usual : peft__str_c(&all), ln_add_site));
out:
    peft__str_free(&all);
    return st;
}

static void ln_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    (void)rng;
    peft__adapter_init_copy(a, i, k);
}

static void ln_config_out(const peft__adapter *a, peft__json_out *j) { peft__config_put_targets(&a->opts, j); }

const peft__method peft__method_ln_tuning = {
    .name = "ln_tuning",
    .hf_type = "LN_TUNING",
    .schema = &ln_schema,
    .build = ln_build,
    .init = ln_init,
    .config_out = ln_config_out,
    .config_in = peft__config_get_targets,
    .learning_rate = 1e-3,
};
