/* sites.c - what methods share: which sites their usual options mean, and those options in adapter_config.json.
 *
 * A method whose parameters hang on modules calls peft__adapter_targets with a function that adds one site. target_modules,
 * exclude_modules, layers_to_transform, layers_pattern and modules_to_save are read where its schema has them; what was meant
 * by an unset target_modules or by all-linear is written back, so that files name it.
 *
 * Left out: the rules of matching (target.c). */
#include "peft/method.h"

#include <math.h>

/* PEFT's TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING, by model_type of config.json. */
static const char *const sites_projections[][2] = {
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

const char *peft__model_type_find(const char *const (*table)[2], size_t n, const char *model_type) {
    for (size_t i = 0; model_type != NULL && i < n; i++) {
        if (strcmp(table[i][0], model_type) == 0) { return table[i][1]; }
    }
    return "";
}

const char *peft__usual_projections(const peft__base_info *base) {
    return peft__model_type_find(sites_projections, PEFT__COUNT(sites_projections), base->model_type);
}

/* ---- building ------------------------------------------------------------------------------------------------ */

static const char *sites_text(const peft__adapter *a, const char *key) {
    return peft__schema_find(a->opts.schema, key) != NULL ? peft__opt_str(&a->opts, key) : "";
}

/* Is the ending `leaf` that of targets only? */
static bool sites_leaf_is_safe(const peft__base_info *base, const bool *matched, const char *leaf) {
    for (size_t i = 0; i < base->n_sites; i++) {
        if (!matched[i] && strcmp(peft__path_leaf(base->sites[i].path), leaf) == 0) { return false; }
    }
    return true;
}

peft_status peft__target_names(const peft__base_info *base, const bool *matched, peft__str *list) {
    peft__json_out j;
    peft__json_begin(&j, list, 0);
    peft__json_array(&j);
    for (size_t i = 0; i < base->n_sites; i++) {
        if (!matched[i]) { continue; }
        const char *name = peft__path_leaf(base->sites[i].path);
        bool said = false;
        if (!sites_leaf_is_safe(base, matched, name)) { name = base->sites[i].path; }
        for (size_t k = 0; k < i && !said; k++) {
            said = matched[k] && name != base->sites[i].path && strcmp(peft__path_leaf(base->sites[k].path), name) == 0;
        }
        if (!said) { peft__json_put_text(&j, name); }
    }
    peft__json_array_end(&j);
    return peft__str_status(list);
}

/* "all-linear" as names, for programs that read adapter_config.json and know lists only. */
static peft_status sites_name_targets(peft__adapter *a, const bool *matched) {
    peft_status st = PEFT_OK;
    peft__str list;
    peft__str_init(&list, a->mem);
    TRY(peft__target_names(a->base, matched, &list));
    TRY(peft__opt_set_raw(&a->opts, "target_modules", peft__str_c(&list)));
out:
    peft__str_free(&list);
    return st;
}

peft_status peft__adapter_targets(peft__adapter *a, uint32_t kinds, const char *defaults, peft__site_fn add) {
    peft_status st = PEFT_OK;
    const peft__base_info *base = a->base;
    size_t bytes = 2 * base->n_sites * sizeof(bool);
    bool *matched = peft__alloc_zero(a->mem, bytes), transposed = false;
    if (matched == NULL) { return PEFT_E_NOMEM; }
    bool *saved = matched + base->n_sites;
    peft__target target = {.modules = sites_text(a, "target_modules"),
                           .exclude = sites_text(a, "exclude_modules"),
                           .layers = sites_text(a, "layers_to_transform"),
                           .layers_pattern = sites_text(a, "layers_pattern"),
                           .modules_to_save = sites_text(a, "modules_to_save"),
                           .defaults = defaults,
                           .lenient = a->from_file};
    TRY(peft__target_saved(a->mem, base, target.modules_to_save, a->from_file, saved));
    TRY(peft__target_match(a->mem, base, &target, kinds, matched));
    for (size_t i = 0; i < base->n_sites; i++) {
        TRY(add(a, &base->sites[i], matched[i], saved[i]));
        transposed = transposed || (matched[i] && base->sites[i].conv1d);
    }
    if (peft__schema_find(a->opts.schema, "fan_in_fan_out") != NULL) {
        TRY(peft__opt_set_bool(&a->opts, "fan_in_fan_out", transposed));
    }
    if (target.modules[0] == '\0') { TRY(peft__opt_set_raw(&a->opts, "target_modules", defaults)); }
    if (strcmp(sites_text(a, "target_modules"), "\"all-linear\"") == 0) { TRY(sites_name_targets(a, matched)); }
out:
    peft__free(a->mem, matched, bytes);
    return st;
}

peft_status peft__adapter_save_site(peft__adapter *a, const peft__site *s) {
    peft_status st = PEFT_OK;
    peft__attachment *at = NULL;
    if (s->weight == NULL) { return PEFT_OK; }
    TRY(peft__adapter_attach(a, s, &at));
    TRY(peft__adapter_copy_weight(a, at, s, PEFT__SLOT_COPY));
    if (s->bias != NULL) { TRY(peft__adapter_copy_bias(a, at, s, NULL, PEFT__SLOT_COPY + 1)); }
out:
    return st;
}

peft_status peft__adapter_rank(peft__adapter *a, peft__attachment *at, const peft__site *s, const char *alpha) {
    peft_status st = PEFT_OK;
    double r = 0, value = 0;
    TRY(peft__target_pattern(a->mem, sites_text(a, "rank_pattern"), s->path, (double)peft__opt_int(&a->opts, "r"), &r));
    TRY(peft__target_pattern(a->mem, sites_text(a, "alpha_pattern"), s->path, peft__opt_float(&a->opts, alpha), &value));
    if (!(r >= 1 && r <= 1 << 20) || r != floor(r)) {
        FAIL(PEFT_E_KEY, "rank_pattern: the rank of \"%s\" is no whole number from 1 to %d", s->path, 1 << 20);
    }
    at->rank = (int64_t)r;
    at->scale = value / r;
out:
    return st;
}

peft_status peft__adapter_check_rank(const peft__adapter *a, const peft__site *s, int64_t rank) {
    int64_t most = PEFT__MIN(s->in, s->out);
    bool asked = peft__opt_is_set(&a->opts, "r") || rank != peft__opt_int(&a->opts, "r");
    if (a->from_file || !asked || rank <= most) { return PEFT_OK; }
    return peft__fail(PEFT_E_SHAPE, "rank %lld of \"%s\" is more than its %lld x %lld weight has: at most %lld", (long long)rank,
                      s->path, (long long)s->out, (long long)s->in, (long long)most);
}

/* ---- changes of a weight that are formed as a whole ---------------------------------------------------------- */

peft__val peft__adapter_delta(const peft__adapter *a, const peft__attachment *at, peft__tape *t, peft__val x, peft__val y,
                              const peft__delta *d) {
    int32_t params[4];
    for (int32_t i = 0; i < 4; i++) { params[i] = peft__adapter_tape_param(a, at, i, t); }
    return peft__op_delta(t, y, x, params, d);
}

peft_status peft__adapter_merge_delta(const peft__adapter *a, const peft__attachment *at, const peft__run *run,
                                      const peft__delta *d, peft__real *weight) {
    const peft__real *p[4] = {NULL, NULL, NULL, NULL};
    size_t bytes = (size_t)(d->out * d->in + d->work) * sizeof(peft__real);
    peft__real *out = peft__alloc(a->mem, bytes);
    if (out == NULL) { return PEFT_E_NOMEM; }
    for (int32_t i = at->first; i < at->first + at->count; i++) {
        const peft__adapter_param *q = peft__adapter_param_at(a, (size_t)i);
        if (q->slot < 4) { p[q->slot] = q->p.value; }
    }
    d->form(d, run, p, out, out + d->out * d->in);
    run->k->add(weight, weight, out, d->out * d->in);
    peft__free(a->mem, out, bytes);
    return PEFT_OK;
}

/* ---- adapter_config.json ------------------------------------------------------------------------------------- */

static const char *const sites_keys[] = {"target_modules", "modules_to_save", "fan_in_fan_out", "layers_to_transform",
                                         "layers_pattern", "exclude_modules"};

void peft__config_put_targets(const peft__optset *opts, peft__json_out *j) {
    for (size_t i = 0; i < PEFT__COUNT(sites_keys); i++) {
        if (peft__schema_find(opts->schema, sites_keys[i]) == NULL) { continue; }
        bool newer = strcmp(sites_keys[i], "exclude_modules") == 0; /* not known to older releases of PEFT */
        if (!newer || peft__opt_str(opts, sites_keys[i])[0] != '\0') { peft__config_put(opts, sites_keys[i], j); }
    }
}

peft_status peft__config_get_targets(peft__optset *opts, const peft__json *config, const char *what) {
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < PEFT__COUNT(sites_keys); i++) { TRY(peft__config_get(opts, config, what, sites_keys[i])); }
out:
    return st;
}

bool peft__config_unused(const peft__json *node) {
    if (node == NULL || node->kind == PEFT__JSON_NULL) { return true; }
    if (node->kind == PEFT__JSON_BOOL) { return !node->truth; }
    if (node->kind == PEFT__JSON_STRING) { return strcmp(node->str, "none") == 0; }
    return (node->kind == PEFT__JSON_ARRAY || node->kind == PEFT__JSON_OBJECT) && node->len == 0;
}

peft_status peft__config_refuse(const peft__json *config, const char *what, const char *const *keys, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!peft__config_unused(peft__json_find(config, keys[i]))) {
            return peft__fail(PEFT_E_UNSUPPORTED, "%s: %s is set, which this version does not read", what, keys[i]);
        }
    }
    return PEFT_OK;
}
