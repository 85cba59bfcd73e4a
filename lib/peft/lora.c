/* lora.c - LoRA: y = W x + b + s B A drop(x), with A [r, in] and B [out, r].
 *
 * s = alpha / r, or alpha / sqrt(r) with use_rslora (Hu et al. 2021, arXiv 2106.09685; Kalajdzievski 2023, arXiv 2312.03732).
 * A starts as U(-1/sqrt(in), 1/sqrt(in)) (Kaiming's with a = sqrt 5) or N(0, 1/r), B as 0, so that the adapter changes nothing
 * at first; init_lora_weights=false draws B from U(-1/sqrt(r), 1/sqrt(r)) too. Options are those of Hugging Face PEFT, r and
 * alpha by module through rank_pattern and alpha_pattern; bias and modules_to_save add trained copies of base tensors.
 *
 * Left out: embeddings as targets, DoRA, lora_bias, initial values made from the base (PiSSA, OLoRA, LoftQ, EVA, ...). */
#include "peft/method.h"

#include <math.h>

enum { LORA_A = 0, LORA_B = 1, LORA_BIAS = 2, LORA_COPY = 3 };

static const peft__option lora_options[] = {
    {"r", PEFT__OPT_INT, "8", 1, 1 << 20, NULL, "rank: columns of B"},
    {"lora_alpha", PEFT__OPT_FLOAT, "8", 1, 0, NULL, "the product is scaled by lora_alpha / r"},
    {"lora_dropout", PEFT__OPT_FLOAT, "0.0", 0, 0.999, NULL, "part of the adapter's input that is dropped in training"},
    {"target_modules", PEFT__OPT_LIST, "", 1, 0, NULL,
     "names that end a module's path, or a pattern for the whole path, or all-linear; unset: usual ones of the model type"},
    {"exclude_modules", PEFT__OPT_LIST, "", 1, 0, NULL, "names or a pattern of modules that are no targets"},
    {"layers_to_transform", PEFT__OPT_LIST, "", 1, 0, NULL, "numbers of the layers that have targets; unset: all"},
    {"layers_pattern", PEFT__OPT_LIST, "", 1, 0, NULL, "name of the list of layers in a path, such as layers"},
    {"rank_pattern", PEFT__OPT_MAP, "", 1, 0, NULL, "rank by pattern of the path's end"},
    {"alpha_pattern", PEFT__OPT_MAP, "", 1, 0, NULL, "alpha by pattern of the path's end"},
    {"bias", PEFT__OPT_STR, "none", 1, 0, "none|all|lora_only", "which biases of the base are trained"},
    {"modules_to_save", PEFT__OPT_LIST, "", 1, 0, NULL, "names of modules that are trained and saved whole"},
    {"init_lora_weights", PEFT__OPT_STR, "true", 1, 0, "true|gaussian|false", "initial values; false: also B is random"},
    {"use_rslora", PEFT__OPT_BOOL, "false", 1, 0, NULL, "scale by lora_alpha / sqrt(r)"},
    {"fan_in_fan_out", PEFT__OPT_BOOL, "false", 1, 0, NULL, "set by the library: the base keeps its weights as [in, out]"},
    {"task_type", PEFT__OPT_STR, "CAUSAL_LM", 1, 0, NULL, "task_type of adapter_config.json"},
    {"base_model_name_or_path", PEFT__OPT_STR, "", 1, 0, NULL, "as written to adapter_config.json; unset: the model's path"},
};
static const peft__schema lora_schema = {"method:lora", lora_options, PEFT__COUNT(lora_options)};

/* PEFT's TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING, by model_type of config.json. */
static const char *const lora_defaults[][2] = {
    {"t5", "[\"q\",\"v\"]"},
    {"mt5", "[\"q\",\"v\"]"},
    {"bart", "[\"q_proj\",\"v_proj\"]"},
    {"opt", "[\"q_proj\",\"v_proj\"]"},
    {"gptj", "[\"q_proj\",\"v_proj\"]"},
    {"gpt_neo", "[\"q_proj\",\"v_proj\"]"},
    {"llama", "[\"q_proj\",\"v_proj\"]"},
    {"llama4", "[\"q_proj\",\"v_proj\"]"},
    {"mistral", "[\"q_proj\",\"v_proj\"]"},
    {"mixtral", "[\"q_proj\",\"v_proj\"]"},
    {"stablelm", "[\"q_proj\",\"v_proj\"]"},
    {"gemma", "[\"q_proj\",\"v_proj\"]"},
    {"gemma2", "[\"q_proj\",\"v_proj\"]"},
    {"gemma3_text", "[\"q_proj\",\"v_proj\"]"},
    {"qwen2", "[\"q_proj\",\"v_proj\"]"},
    {"qwen3", "[\"q_proj\",\"v_proj\"]"},
    {"gpt2", "[\"c_attn\"]"},
    {"gpt_bigcode", "[\"c_attn\"]"},
    {"bloom", "[\"query_key_value\"]"},
    {"gpt_neox", "[\"query_key_value\"]"},
    {"chatglm", "[\"query_key_value\"]"},
    {"falcon", "[\"query_key_value\"]"},
    {"RefinedWeb", "[\"query_key_value\"]"},
    {"RefinedWebModel", "[\"query_key_value\"]"},
    {"bert", "[\"query\",\"value\"]"},
    {"roberta", "[\"query\",\"value\"]"},
    {"xlm-roberta", "[\"query\",\"value\"]"},
    {"electra", "[\"query\",\"value\"]"},
    {"layoutlm", "[\"query\",\"value\"]"},
    {"deberta", "[\"in_proj\"]"},
    {"deberta-v2", "[\"query_proj\",\"value_proj\"]"},
    {"mpt", "[\"Wqkv\"]"},
    {"btlm", "[\"c_proj\",\"c_attn\"]"},
    {"codegen", "[\"qkv_proj\"]"},
    {"phi", "[\"q_proj\",\"v_proj\",\"fc1\",\"fc2\"]"},
};

static const char *lora_default_targets(const char *model_type) {
    for (size_t i = 0; model_type != NULL && i < PEFT__COUNT(lora_defaults); i++) {
        if (strcmp(lora_defaults[i][0], model_type) == 0) { return lora_defaults[i][1]; }
    }
    return "";
}

/* ---- building ------------------------------------------------------------------------------------------------ */

static peft_status lora_add_pair(peft__adapter *a, peft__attachment *at, const peft__site *s) {
    peft_status st = PEFT_OK;
    double r = 0, alpha = 0;
    TRY(peft__target_pattern(a->mem, peft__opt_str(&a->opts, "rank_pattern"), s->path, (double)peft__opt_int(&a->opts, "r"), &r));
    TRY(peft__target_pattern(a->mem, peft__opt_str(&a->opts, "alpha_pattern"), s->path, peft__opt_float(&a->opts, "lora_alpha"),
                             &alpha));
    if (!(r >= 1 && r <= 1 << 20) || r != floor(r)) {
        FAIL(PEFT_E_KEY, "rank_pattern: the rank of \"%s\" is no whole number from 1 to %d", s->path, 1 << 20);
    }
    at->rank = (int64_t)r;
    at->scale = alpha / (peft__opt_bool(&a->opts, "use_rslora") ? sqrt(r) : r);
    at->dropout = peft__opt_float(&a->opts, "lora_dropout");
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.lora_A.weight", s->path), LORA_A, at->rank, s->in, 2,
                                false, false));
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.lora_B.weight", s->path), LORA_B, s->out, at->rank, 2,
                                false, false));
out:
    return st;
}

/* PEFT wraps a target, so that its bias lies one level deeper than those of other modules. */
static peft_status lora_add_bias(peft__adapter *a, peft__attachment *at, const peft__site *s, bool target) {
    const char *key = NULL;
    if (target) {
        key = peft__arena_printf(&a->arena, "%s.base_layer.bias", s->path);
        if (key == NULL) { return PEFT_E_NOMEM; }
    }
    return peft__adapter_copy_bias(a, at, s, key, LORA_BIAS);
}

static peft_status lora_add_site(peft__adapter *a, const peft__site *s, bool target, bool saved) {
    peft_status st = PEFT_OK;
    const char *bias = peft__opt_str(&a->opts, "bias");
    bool trains_bias = s->bias != NULL && !saved && (strcmp(bias, "all") == 0 || (target && strcmp(bias, "lora_only") == 0));
    peft__attachment *at = NULL;
    if (!target && !saved && !trains_bias) { return PEFT_OK; }
    TRY(peft__adapter_attach(a, s, &at));
    if (saved && s->weight != NULL) {
        TRY(peft__adapter_copy_weight(a, at, s, LORA_COPY));
        if (s->bias != NULL) { TRY(peft__adapter_copy_bias(a, at, s, NULL, LORA_BIAS)); }
    }
    if (target) {
        TRY(lora_add_pair(a, at, s));
        if (s->conv1d) { TRY(peft__opt_set_bool(&a->opts, "fan_in_fan_out", true)); }
    }
    if (trains_bias) { TRY(lora_add_bias(a, at, s, target)); }
out:
    return st;
}

/* Is the ending `leaf` that of targets only? */
static bool lora_leaf_is_safe(const peft__base_info *base, const bool *matched, const char *leaf) {
    for (size_t i = 0; i < base->n_sites; i++) {
        if (!matched[i] && strcmp(peft__path_leaf(base->sites[i].path), leaf) == 0) { return false; }
    }
    return true;
}

/* "all-linear" as names, for programs that read adapter_config.json and know lists only. */
static peft_status lora_name_targets(peft__adapter *a, const bool *matched) {
    peft_status st = PEFT_OK;
    const peft__base_info *base = a->base;
    peft__str list;
    peft__json_out j;
    peft__str_init(&list, a->mem);
    peft__json_begin(&j, &list, 0);
    peft__json_array(&j);
    for (size_t i = 0; i < base->n_sites; i++) {
        if (!matched[i]) { continue; }
        const char *name = peft__path_leaf(base->sites[i].path);
        bool said = false;
        if (!lora_leaf_is_safe(base, matched, name)) { name = base->sites[i].path; }
        for (size_t k = 0; k < i && !said; k++) {
            said = matched[k] && name != base->sites[i].path && strcmp(peft__path_leaf(base->sites[k].path), name) == 0;
        }
        if (!said) { peft__json_put_text(&j, name); }
    }
    peft__json_array_end(&j);
    TRY(peft__str_status(&list));
    TRY(peft__opt_set_raw(&a->opts, "target_modules", peft__str_c(&list)));
out:
    peft__str_free(&list);
    return st;
}

static peft_status lora_build(peft__adapter *a) {
    enum { KINDS = 1 << PEFT__SITE_LINEAR | 1 << PEFT__SITE_HEAD };
    peft_status st = PEFT_OK;
    const peft__base_info *base = a->base;
    const char *defaults = lora_default_targets(base->model_type);
    size_t bytes = 2 * base->n_sites * sizeof(bool);
    bool *matched = peft__alloc_zero(a->mem, bytes), *saved = matched + base->n_sites;
    if (matched == NULL) { return PEFT_E_NOMEM; }
    peft__target target = {.modules = peft__opt_str(&a->opts, "target_modules"),
                           .exclude = peft__opt_str(&a->opts, "exclude_modules"),
                           .layers = peft__opt_str(&a->opts, "layers_to_transform"),
                           .layers_pattern = peft__opt_str(&a->opts, "layers_pattern"),
                           .modules_to_save = peft__opt_str(&a->opts, "modules_to_save"),
                           .defaults = defaults,
                           .lenient = a->from_file};
    TRY(peft__target_saved(a->mem, base, target.modules_to_save, a->from_file, saved));
    TRY(peft__target_match(a->mem, base, &target, KINDS, matched));
    TRY(peft__opt_set_bool(&a->opts, "fan_in_fan_out", false));
    for (size_t i = 0; i < base->n_sites; i++) { TRY(lora_add_site(a, &base->sites[i], matched[i], saved[i])); }
    if (target.modules[0] == '\0') { TRY(peft__opt_set_raw(&a->opts, "target_modules", defaults)); }
    if (strcmp(peft__opt_str(&a->opts, "target_modules"), "\"all-linear\"") == 0) { TRY(lora_name_targets(a, matched)); }
out:
    peft__free(a->mem, matched, bytes);
    return st;
}

static void lora_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    const char *how = peft__opt_str(&a->opts, "init_lora_weights");
    int64_t n = p->p.rows * p->p.cols;
    if (p->whole) {
        peft__adapter_init_copy(a, i, k);
    } else if (p->slot == LORA_A && strcmp(how, "gaussian") == 0) {
        double deviation = 1 / (double)p->p.rows;
        for (int64_t e = 0; e < n; e++) { p->p.value[e] = PEFT__R(deviation * peft__rng_normal(rng)); }
    } else if (p->slot == LORA_A || strcmp(how, "false") == 0) {
        double bound = 1 / sqrt((double)p->p.cols);
        for (int64_t e = 0; e < n; e++) { p->p.value[e] = PEFT__R(bound * (2 * peft__rng_uniform(rng) - 1)); }
    } else {
        memset(p->p.value, 0, (size_t)n * sizeof *p->p.value);
    }
}

/* ---- emitters ------------------------------------------------------------------------------------------------ */

static peft__val lora_after(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val x,
                            peft__val y) {
    (void)s;
    if (at->rank == 0) { return y; } /* only a trained bias or copy */
    int32_t pa = peft__adapter_tape_param(a, at, LORA_A, t), pb = peft__adapter_tape_param(a, at, LORA_B, t);
    if (at->dropout > 0) { x = peft__op_dropout(t, x, at->dropout, at->key); }
    return peft__op_low_rank(t, y, x, pa, pb, at->scale);
}

static void lora_head(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val x,
                      peft__head_spec *spec) {
    (void)x;
    if (at->rank == 0) { return; }
    if (spec->lora_a != PEFT__NONE) {
        peft__tape_fail(t, PEFT_E_UNSUPPORTED, "two adapters add to \"%s\", and the head takes one", s->path);
        return;
    }
    if (t->training && at->dropout > 0) {
        peft__tape_fail(t, PEFT_E_UNSUPPORTED,
                        "lora_dropout is set, and \"%s\" is trained without dropout only; set it to 0 or take the head out of "
                        "target_modules", s->path);
        return;
    }
    spec->lora_a = peft__adapter_tape_param(a, at, LORA_A, t);
    spec->lora_b = peft__adapter_tape_param(a, at, LORA_B, t);
    spec->lora_scale = at->scale;
}

/* weight += s B A */
static peft_status lora_merge(const peft__adapter *a, const peft__attachment *at, const peft__site *s, const peft__run *run,
                              peft__real *weight) {
    if (at->rank == 0) { return PEFT_OK; }
    const peft__real *pa = peft__adapter_param_at(a, (size_t)at->first)->p.value;
    const peft__real *pb = peft__adapter_param_at(a, (size_t)at->first + 1)->p.value;
    peft__gemm_args args = {.m = s->out,
                            .n = s->in,
                            .k = at->rank,
                            .a = pb,
                            .lda = at->rank,
                            .b = peft__real_backward(pa, s->in),
                            .c = weight,
                            .ldc = s->in,
                            .alpha = PEFT__R(at->scale),
                            .accumulate = true};
    peft__gemm(run, &args);
    return PEFT_OK;
}

/* ---- adapter_config.json ------------------------------------------------------------------------------------- */

static void lora_config_out(const peft__adapter *a, peft__json_out *j) {
    static const char *const core[] = {"r", "lora_alpha", "lora_dropout", "target_modules", "layers_to_transform",
                                       "layers_pattern", "bias", "modules_to_save", "fan_in_fan_out"};
    static const char *const others[] = {"exclude_modules", "rank_pattern", "alpha_pattern"};
    for (size_t i = 0; i < PEFT__COUNT(core); i++) { peft__config_put(&a->opts, core[i], j); }
    for (size_t i = 0; i < PEFT__COUNT(others); i++) {
        if (peft__opt_str(&a->opts, others[i])[0] != '\0') { peft__config_put(&a->opts, others[i], j); }
    }
    if (peft__opt_bool(&a->opts, "use_rslora")) { peft__config_put(&a->opts, "use_rslora", j); }
    const char *how = peft__opt_str(&a->opts, "init_lora_weights");
    peft__json_key(j, "init_lora_weights");
    if (strcmp(how, "gaussian") == 0) {
        peft__json_put_text(j, how);
    } else {
        peft__json_put_bool(j, strcmp(how, "true") == 0);
    }
}

/* Schemes that only choose initial values are as good as "true" once there are values; those that change the base are not. */
static peft_status lora_config_init(peft__optset *opts, const peft__json *config, const char *what) {
    static const char *const harmless[] = {"eva", "orthogonal", "mica"};
    const peft__json *node = peft__json_find(config, "init_lora_weights");
    if (node == NULL) { return PEFT_OK; }
    if (node->kind == PEFT__JSON_BOOL) { return peft__opt_set_bool(opts, "init_lora_weights", node->truth); }
    for (size_t i = 0; i < PEFT__COUNT(harmless); i++) {
        if (peft__json_is(node, harmless[i])) { return peft__opt_set_str(opts, "init_lora_weights", "true"); }
    }
    if (peft__json_is(node, "gaussian")) { return peft__opt_set_str(opts, "init_lora_weights", "gaussian"); }
    return peft__fail(PEFT_E_UNSUPPORTED,
                      "%s: init_lora_weights is \"%s\", which may change the base weights; convert the adapter to plain LoRA first "
                      "(PEFT: save_pretrained with path_initial_model_for_weight_conversion)",
                      what, node->kind == PEFT__JSON_STRING ? node->str : "?");
}

/* null, false, and empty containers are how PEFT writes that something is not used. */
static bool lora_config_unused(const peft__json *node) {
    if (node == NULL) { return true; }
    if (node->kind == PEFT__JSON_BOOL) { return !node->truth; }
    return (node->kind == PEFT__JSON_ARRAY || node->kind == PEFT__JSON_OBJECT) && node->len == 0;
}

static peft_status lora_config_in(peft__optset *opts, const peft__json *config, const char *what) {
    static const char *const plain[] = {"r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules",
                                        "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "bias",
                                        "modules_to_save", "use_rslora", "fan_in_fan_out"};
    /* Ignoring these would give another model than the one that was trained. */
    static const char *const refused[] = {"use_dora", "lora_bias", "layer_replication", "target_parameters",
                                          "trainable_token_indices", "alora_invocation_tokens", "arrow_config", "use_qalora",
                                          "use_bdlora", "velora_config", "monteclora_config", "kasa_config", "enable_lora"};
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < PEFT__COUNT(refused); i++) {
        if (!lora_config_unused(peft__json_find(config, refused[i]))) {
            FAIL(PEFT_E_UNSUPPORTED, "%s: %s is set; this version reads plain LoRA", what, refused[i]);
        }
    }
    for (size_t i = 0; i < PEFT__COUNT(plain); i++) { TRY(peft__config_get(opts, config, what, plain[i])); }
    TRY(lora_config_init(opts, config, what));
out:
    return st;
}

const peft__method peft__method_lora = {
    .name = "lora",
    .hf_type = "LORA",
    .schema = &lora_schema,
    .build = lora_build,
    .init = lora_init,
    .after = lora_after,
    .head = lora_head,
    .merge = lora_merge,
    .config_out = lora_config_out,
    .config_in = lora_config_in,
};
