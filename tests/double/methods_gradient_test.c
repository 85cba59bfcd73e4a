/* Every method on every architecture, in double: the gradient of each trained parameter against central differences of the
 * loss, from non-zero random values, over rows of several lengths. A new method or architecture is covered by being
 * registered; options that a method needs are in `method_options`. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/api.h"
#include "runner.h"
#include "train/loop.h"

/* Parameters of one adapter that are looked at, at most: others in each case. All of them with PEFT_TEST_ALL=1 (make torture). */
enum { GRADIENT_SOME = 120, GRADIENT_FEW = 10 };

static int64_t gradient_step(int64_t n) {
    int64_t some = runner_few() ? GRADIENT_FEW : GRADIENT_SOME;
    return getenv("PEFT_TEST_ALL") != NULL ? 1 : (n + some - 1) / some;
}

static const char *const gradient_configs[][2] = {
    {"llama", "{\"model_type\":\"llama\",\"hidden_size\":8,\"num_hidden_layers\":3,\"num_attention_heads\":2,"
              "\"num_key_value_heads\":1,\"intermediate_size\":12,\"vocab_size\":13,\"max_position_embeddings\":32,"
              "\"rms_norm_eps\":1e-5,\"rope_theta\":100.0,\"hidden_act\":\"silu\",\"tie_word_embeddings\":true,"
              "\"attention_bias\":true}"},
    {"mistral", "{\"model_type\":\"mistral\",\"hidden_size\":8,\"num_hidden_layers\":3,\"num_attention_heads\":2,"
                "\"num_key_value_heads\":2,\"intermediate_size\":12,\"vocab_size\":13,\"max_position_embeddings\":32,"
                "\"rms_norm_eps\":1e-5,\"rope_theta\":100.0,\"hidden_act\":\"silu\",\"sliding_window\":3,"
                "\"tie_word_embeddings\":false}"},
    {"gpt2", "{\"model_type\":\"gpt2\",\"n_embd\":8,\"n_layer\":3,\"n_head\":2,\"n_positions\":32,\"n_ctx\":32,"
             "\"vocab_size\":13,\"layer_norm_epsilon\":1e-5,\"activation_function\":\"gelu_new\"}"},
};

/* method, options as JSON: one line a case; every registered method must have at least one. */
static const char *const method_options[][2] = {
    {"lora", "r=2;lora_alpha=3;target_modules=all-linear;lora_dropout=0.2;bias=all"},
    {"lora", "r=3;use_rslora=true;modules_to_save=lm_head"},
    {"full", ""},
    {"lora", "r=2;use_dora=true;target_modules=all-linear;bias=all;loraplus_lr_ratio=4"},
    {"dora", "r=2;lora_dropout=0.3"},
    {"lora", "r=2;init_lora_weights=pissa;lora_dropout=0.3"},
    {"lora", "r=2;init_lora_weights=olora;lora_alpha=5;target_modules=all-linear"},
    {"lora_fa", "r=2;lora_alpha=5"},
    {"adalora", "init_r=3;target_r=2;lora_alpha=5;lora_dropout=0.2"},
    {"adalora", "init_r=3;target_r=2;target_modules=all-linear;lora_alpha=0"},
    {"vera", "r=3;target_modules=all-linear;vera_dropout=0.2"},
    {"loha", "r=2;alpha=3"},
    {"loha", "r=2;rank_dropout=0.3;module_dropout=0.3;init_weights=false;target_modules=all-linear"},
    {"lokr", "r=1;decompose_both=true"},
    {"lokr", "r=1;alpha=3;decompose_factor=2;rank_dropout=0.3;rank_dropout_scale=true;target_modules=all-linear"},
    {"oft", "oft_block_size=4;use_cayley_neumann=false;target_modules=all-linear"},
    {"oft", "r=2;module_dropout=0.5;num_cayley_neumann_terms=5"},
    {"oft", "oft_block_size=4;num_cayley_neumann_terms=6;block_share=true;target_modules=all-linear;coft=true;eps=1e9"},
    {"oft", "r=1;num_cayley_neumann_terms=2;init_weights=false"},
    {"oft", "r=1;num_cayley_neumann_terms=3"},
    {"boft", "boft_block_size=2;target_modules=all-linear;init_weights=false"},
    {"boft", "boft_block_num=4;boft_n_butterfly_factor=3;boft_dropout=0.6"},
    {"boft", "boft_block_size=2;boft_n_butterfly_factor=2;target_modules=all-linear"},
    {"trainable_tokens", "token_indices=5,1,12"},
    {"trainable_tokens", "token_indices=1;num_new_tokens=3"},
    {"trainable_tokens", "token_indices=1,9;target_modules=lm_head"},
    {"lora", "r=2;trainable_token_indices=5,1;num_new_tokens=2;target_modules=.*(lm_head|q_proj|c_attn);lora_alpha=5"},
    {"lora", "r=2;trainable_token_indices={\"lm_head\":[7,3]};lora_dropout=0.2"},
    {"ia3", "feedforward_modules=.*(down_proj|mlp.c_proj);target_modules=.*(k_proj|down_proj|c_attn|mlp.c_proj)"},
    {"ln_tuning", ""},
    {"bitfit", ""},
    {"head", ""},
    {"prompt", "num_virtual_tokens=3"},
    {"prompt", "num_virtual_tokens=1;prompt_tuning_init=RANDOM"},
    {"multitask_prompt", "num_virtual_tokens=2;num_tasks=3;num_ranks=2"},
    {"multitask_prompt", "num_virtual_tokens=1;task_init=random"},
    {"ptuning", "num_virtual_tokens=3;encoder_hidden_size=5"},
    {"ptuning", "num_virtual_tokens=4;encoder_hidden_size=3;encoder_reparameterization_type=LSTM;encoder_dropout=0.3"},
    {"ptuning", "num_virtual_tokens=1;encoder_hidden_size=3;encoder_reparameterization_type=LSTM;encoder_num_layers=1"},
    {"ptuning", "num_virtual_tokens=2;baked=true"},
    {"prefix", "num_virtual_tokens=4"},
    {"prefix", "num_virtual_tokens=2;prefix_projection=true;encoder_hidden_size=5"},
    {"union", "parts=x,y,z"},
    {"fusion", "adapters=y,p"},
    {"fusion", "adapters=p,y;residual_before=true;temperature=true;key=false"},
    {"fusion", "adapters=y,p;query=false;value=false"},
    {"ptuning_v2", "num_virtual_tokens=3;modules_to_save=lm_head"},
    {"prefix_tuning", "prefix_length=3;bottleneck_size=5"},
    {"prefix_tuning", "prefix_length=2;bottleneck_size=4;use_gating=true;non_linearity=gelu;leave_out=1"},
    {"prefix_tuning", "prefix_length=3;flat=true;use_gating=true;shared_gating=false;dropout=0.3"},
    {"lora_hub", "r=2;alpha=3;dropout=0.2;attn_matrices=q,k,v;intermediate_lora=true;output_lora=true"},
    {"lora_hub", "r=2;use_gating=true;attn_matrices=k,v;output_lora=true;dropout=0.2"},
    {"mam", "prefix_length=2;bottleneck_size=4;reduction_factor=4;non_linearity=gelu"},
    {"unipelt", "prefix_length=2;bottleneck_size=3;reduction_factor=4;r=2;non_linearity=gelu"},
    {"houlsby", "reduction_factor=2;dropout=0.2"},
    {"houlsby", "reduction_factor=4;ln_before=true;ln_after=true;scaling=learned;non_linearity=gelu"},
    {"pfeiffer", "reduction_factor=3;non_linearity=tanh"},
    {"pfeiffer", "reduction_factor=3;residual_before_ln=false;ln_after=true;adapter_residual_before_ln=true;non_linearity=gelu"},
    {"parallel", "reduction_factor=2;non_linearity=gelu_new"},
    {"parallel", "reduction_factor=2;scaling=learned;non_linearity=swish"},
    {"houlsby", "reduction_factor=4;use_gating=true;scaling=channel;stochastic_depth=0.3;non_linearity=gelu"},
    {"pfeiffer", "reduction_factor=4;use_gating=true;ln_before=true;original_ln_after=false;adapter_drop=2;non_linearity=tanh"},
    {"parallel", "reduction_factor=4;use_gating=true;mh_adapter=true;ln_after=true;dropout=0.2;non_linearity=gelu"},
    {"compacter", "reduction_factor=2;phm_dim=2"},
    {"compacter", "reduction_factor=2;phm_dim=2;phm_rank=2;factorized_phm_rule=true;shared_W_phm=true;use_gating=true"},
    {"compacter++", "reduction_factor=4;phm_dim=2;factorized_phm_W=false;shared_phm_rule=false;phm_bias=false"},
    {"compacter++", "reduction_factor=2;learn_phm=false;shared_phm_rule=false;factorized_phm_rule=true;ln_before=true"},
    {"parallel", "reduction_factor=2;phm_layer=true;phm_dim=2;shared_W_phm=true;factorized_phm_W=false;non_linearity=gelu"},
    {"pfeiffer_inv", "reduction_factor=3;non_linearity=gelu;inv_adapter_reduction_factor=1.5"},
    {"houlsby_inv", "reduction_factor=4;inv_head=false"},
    {"parallel", "reduction_factor=4;inv_adapter=glow;inv_adapter_reduction_factor=1;non_linearity=tanh"},
    {"houlsby", "leave_out=0,1,2;inv_adapter=glow;inv_head=false;non_linearity=gelu"},
};

typedef struct gradient_case {
    peft_context *ctx;
    peft_model *model;
    peft_adapters *set;
    struct peft_trainer *trainer;
    peft_batch *batch;
    peft__adapter *adapter; /* of the job's member that is looked at; borrowed */
    int64_t sample;         /* which of the parameters are looked at, where there are many */
} gradient_case;

static peft_status gradient_options(peft_options *o, const char *text) {
    peft_status st = PEFT_OK;
    char key[64], value[128];
    while (*text != '\0' && st == PEFT_OK) {
        int used = 0;
        if (sscanf(text, "%63[^=]=%127[^;]%n", key, value, &used) != 2) { return PEFT_E_INVALID; }
        st = peft_options_set_text(o, key, value);
        text += used;
        text += *text == ';';
    }
    return st;
}

/* Adapters that cases of several refer to. */
static const char *const gradient_others[][3] = {
    {"x", "lora", "r=2;target_modules=all-linear"}, {"y", "pfeiffer", "reduction_factor=4;non_linearity=gelu"},
    {"p", "pfeiffer", "reduction_factor=3;non_linearity=tanh"}, {"z", "prompt", "num_virtual_tokens=2"},
    {"i", "ia3", "feedforward_modules=.*(down_proj|mlp.c_proj);target_modules=.*(k_proj|down_proj|c_attn|mlp.c_proj)"},
    {"n", "ln_tuning", ""}, {"t", "trainable_tokens", "token_indices=1,6;num_new_tokens=1"}, {"k", "prefix", "num_virtual_tokens=2"},
    {"w", "prompt", "num_virtual_tokens=1"}, {"v", "prefix_tuning", "prefix_length=3;flat=true"},
};

static peft_status gradient_add(gradient_case *c, const char *name, const char *method, const char *options) {
    char schema[64];
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    (void)snprintf(schema, sizeof schema, "method:%s", method);
    TRY(peft_options_create(c->ctx, schema, &o));
    TRY(gradient_options(o, options));
    TRY(peft_adapters_add(c->set, name, method, o, 3));
out:
    peft_options_free(o);
    return st;
}

/* method NULL: only the others. */
static peft_status gradient_open(gradient_case *c, const char *config, const char *method, const char *options, bool others,
                                 const char *expression) {
    int32_t ids[11] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 12, 0}, labels[11] = {-100, 1, 4, 1, -100, 9, -100, 6, 5, 12, 7};
    static const int64_t offsets[4] = {0, 6, 10, 11};
    static const int32_t tasks[3] = {2, 0, 2};
    peft_status st = PEFT_OK;
    memset(c, 0, sizeof *c);
    TRY(peft_context_create(NULL, &c->ctx));
    TRY(peft_context_set_threads(c->ctx, 1));
    TRY(peft__model_random(c->ctx, config, strlen(config), 7, 0.2, &c->model));
    TRY(peft_adapters_create(c->model, &c->set));
    for (size_t i = 0; others && i < PEFT__COUNT(gradient_others); i++) {
        TRY(gradient_add(c, gradient_others[i][0], gradient_others[i][1], gradient_others[i][2]));
    }
    if (method != NULL) { TRY(gradient_add(c, "a", method, options)); }
    TRY(peft_trainer_create(c->set, NULL, &c->trainer));
    TRY(peft_trainer_add_job(c->trainer, expression, NULL, NULL, NULL));
    TRY(peft_batch_create(c->ctx, &c->batch));
    if (peft__expression_new_tokens(&peft__trainer_job(c->trainer, 0)->expression) > 0) { ids[4] = labels[8] = ids[8] = 13; }
    TRY(peft_batch_set_i32(c->batch, "input_ids", ids, offsets, 3));
    TRY(peft_batch_set_i32(c->batch, "labels", labels, offsets, 3));
    if (options != NULL && strstr(options, "num_tasks=3") != NULL) { TRY(peft_batch_set_i32(c->batch, "task_id", tasks, NULL, 3)); }
    peft__rng rng = {99, 0};
    const peft__expression *e = &peft__trainer_job(c->trainer, 0)->expression;
    for (size_t l = 0; l < e->n_leaves; l++) {
        peft__adapter *x = e->leaves[l]->adapter;
        for (int64_t i = 0; i < x->n_values; i++) { x->values[i] += 0.3 * peft__rng_normal(&rng); }
    }
out:
    return st;
}

static void gradient_close(gradient_case *c) {
    peft_batch_free(c->batch);
    peft_trainer_free(c->trainer);
    peft_adapters_free(c->set);
    peft_model_free(c->model);
    peft_context_free(c->ctx);
}

static double gradient_loss(gradient_case *c) {
    double loss = (double)NAN;
    peft__job *job = peft__trainer_job(c->trainer, 0);
    for (size_t i = 0; i < job->members.len; i++) {
        peft__member *m = peft__trainer_member(c->trainer, job, i);
        memset(m->grads, 0, (size_t)m->adapter->n_trainable * sizeof(peft__real));
    }
    job->accumulated = 0;
    job->accumulated_rows = 0; /* the same dropout again */
    return peft_trainer_accumulate(c->trainer, c->batch, &loss) == PEFT_OK ? loss * (double)job->accumulated : (double)NAN;
}

/* DoRA's norms count as constants: a changed A or B takes the length along, by its magnitude, so that m / n stays what it was.
 * Here: the lengths of the rows of W + s B A. */
static void gradient_lengths(const gradient_case *c, const peft__attachment *at, double *n) {
    const peft__site *s = &c->adapter->base->sites[at->site];
    const peft__real *a = peft__adapter_param_at(c->adapter, (size_t)at->first)->p.value;
    const peft__real *b = peft__adapter_param_at(c->adapter, (size_t)at->first + 1)->p.value;
    peft__real row[64];
    for (int64_t i = 0; i < s->out; i++) {
        peft__weight_row(&peft__kernels_generic, s->weight, i, row);
        for (int64_t p = 0; p < at->rank; p++) {
            for (int64_t j = 0; j < s->in; j++) { row[j] += at->scale * b[i * at->rank + p] * a[p * s->in + j]; }
        }
        n[i] = sqrt(peft__kernels_generic.sum_sq(row, s->in));
    }
}

/* The loss with element e of the adapter at v, DoRA's factors held. */
static double gradient_loss_at(gradient_case *c, int64_t e, double v) {
    double before[64], after[64];
    peft__real v0 = c->adapter->values[e], *m = NULL;
    const peft__attachment *all = c->adapter->attachments.data, *at = NULL;
    for (size_t j = 0; j < c->adapter->attachments.len; j++) {
        const peft__adapter_param *last = peft__adapter_param_at(c->adapter, (size_t)all[j].first + 2);
        if (all[j].count < 3 || strstr(last->p.name, "lora_magnitude_vector") == NULL) { continue; }
        const peft__adapter_param *first = peft__adapter_param_at(c->adapter, (size_t)all[j].first);
        if (c->adapter->values + e < first->p.value || c->adapter->values + e >= last->p.value) { continue; }
        at = &all[j];
        m = last->p.value;
    }
    int64_t out = at != NULL ? c->adapter->base->sites[at->site].out : 0;
    if (at != NULL) { gradient_lengths(c, at, before); }
    c->adapter->values[e] = v;
    if (at != NULL) { gradient_lengths(c, at, after); }
    for (int64_t i = 0; i < out; i++) { m[i] *= after[i] / before[i]; }
    double loss = gradient_loss(c);
    for (int64_t i = 0; i < out; i++) { m[i] *= before[i] / after[i]; }
    c->adapter->values[e] = v0;
    return loss;
}

/* Slope of the loss along one value by the five-point rule: an error of h^4, and of rounding / h. */
static double gradient_slope(gradient_case *c, peft__real *v, double h) {
    static const double at[4] = {-2, -1, 1, 2};
    double f[4];
    for (int k = 0; k < 4; k++) { f[k] = gradient_loss_at(c, v - c->adapter->values, *v + at[k] * h); }
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h);
}

static double gradient_worst_of(gradient_case *c, const peft__real *grads, double top) {
    double worst = 0;
    int64_t n = c->adapter->n_trainable, step = gradient_step(n);
    for (int64_t i = c->sample % step; i < n; i += step) {
        double size = fmax(fmax(fabs(grads[i]), 0.1 * top), 1e-3); /* the loss is about 20: its rounding shows in less */
        double error = fabs(gradient_slope(c, &c->adapter->values[i], 2e-5) - grads[i]) / size;
        if (!(error < 2e-8)) { error = fmin(error, fabs(gradient_slope(c, &c->adapter->values[i], 2e-4) - grads[i]) / size); }
        worst = fmax(worst, error);
    }
    return worst;
}

/* Largest error relative to the parameter's gradient, or to a tenth of the largest one where that is more. No one step suits
 * flat and steep directions: the better of two counts. */
static double gradient_worst(gradient_case *c) {
    double worst = 0, top = 0;
    peft__mem *mem = &c->ctx->mem;
    peft__job *job = peft__trainer_job(c->trainer, 0);
    if (peft__trainer_plan(c->trainer) != PEFT_OK || isnan(gradient_loss(c))) { return (double)NAN; }
    peft__real *grads = peft__alloc(mem, (size_t)job->n_trainable * sizeof *grads), *at = grads;
    for (size_t m = 0; m < job->members.len; m++) {
        const peft__member *x = peft__trainer_member(c->trainer, job, m);
        memcpy(at, x->grads, (size_t)x->adapter->n_trainable * sizeof *at);
        at += x->adapter->n_trainable;
    }
    for (int64_t i = 0; i < job->n_trainable; i++) { top = fmax(top, fabs(grads[i])); }
    at = grads;
    for (size_t m = 0; m < job->members.len; m++) {
        c->adapter = peft__trainer_member(c->trainer, job, m)->adapter;
        worst = fmax(worst, gradient_worst_of(c, at, top));
        at += c->adapter->n_trainable;
    }
    peft__free(mem, grads, (size_t)job->n_trainable * sizeof *grads);
    return top > 0 ? worst : (double)NAN;
}

TEST(methods_gradient_of_every_method_and_architecture) {
    for (size_t m = 0; m < PEFT__COUNT(method_options); m++) {
        for (size_t a = 0; a < PEFT__COUNT(gradient_configs); a++) {
            gradient_case c;
            bool others = strcmp(method_options[m][0], "union") == 0 || strcmp(method_options[m][0], "fusion") == 0;
            peft_status st = gradient_open(&c, gradient_configs[a][1], method_options[m][0], method_options[m][1], others, "a");
            if (st == PEFT_E_NOT_FOUND && strcmp(method_options[m][0], "bitfit") == 0) { /* no biases in this model */
                gradient_close(&c);
                continue;
            }
            c.sample = (int64_t)(3 * m + a);
            double worst = st == PEFT_OK ? gradient_worst(&c) : (double)NAN;
            gradient_close(&c);
            if (!(worst < 1e-7)) {
                fprintf(stderr, "%s [%s] on %s: %.3g %s\n", method_options[m][0], method_options[m][1],
                        gradient_configs[a][0], worst, peft_last_error());
            }
            CHECK_OK(st);
            CHECK_NEAR(worst, 0, 1e-7);
        }
    }
}

/* Blocks, factors and frozen members, with fewer parameters than a union has. */
static const char *const gradient_expressions[] = {
    "x,y,z", "0.5*x,y", "average(x:0.3,y,p)", "average(y,p:3)", "split(y:2,p)", "split(x:2,y:1,p)", "batch_split(y:1,x:2)",
    "batch_split(z:1,w:1,x:1)", "parallel(y,p)", "parallel(stack(x,z),w)", "freeze(x),y", "0.7*i", "average(i,n)", "split(i:3,n)",
    "k,z", "z,w,k", "parallel(k,v)", "batch_split(stack(k,z):1,v:1,y:1)", "v,batch_split(k:2,y:1)", "stack(0.5*y,p),0.25*x", "t,x",
};

TEST(methods_gradient_of_expressions) {
    for (size_t e = 0; e < PEFT__COUNT(gradient_expressions); e++) {
        for (size_t a = 0; a < PEFT__COUNT(gradient_configs); a++) {
            gradient_case c;
            peft_status st = gradient_open(&c, gradient_configs[a][1], NULL, NULL, true, gradient_expressions[e]);
            c.sample = (int64_t)(3 * e + a);
            double worst = st == PEFT_OK ? gradient_worst(&c) : (double)NAN;
            gradient_close(&c);
            if (!(worst < 1e-7)) {
                fprintf(stderr, "%s on %s: %.3g %s\n", gradient_expressions[e], gradient_configs[a][0], worst, peft_last_error());
            }
            CHECK_OK(st);
            CHECK_NEAR(worst, 0, 1e-7);
        }
    }
}

TEST(methods_gradient_test_knows_every_method) {
    for (size_t i = 0; peft_method_name(i) != NULL; i++) {
        bool known = false;
        for (size_t m = 0; m < PEFT__COUNT(method_options); m++) {
            known = known || strcmp(method_options[m][0], peft_method_name(i)) == 0;
        }
        CHECK_STR(known ? peft_method_name(i) : "a case in method_options", peft_method_name(i));
    }
}
