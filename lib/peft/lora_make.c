/* lora_make.c - LoRA adapters of which sites, ranks and values are known and options are not: what combinations, conversions and
 * GGUF files give. The options are found that say the same, so that files of the adapter do. */
#include "peft/lora.h"

const peft__param *peft__lora_param(const peft__adapter *a, const peft__attachment *at, int32_t slot) {
    for (int32_t i = at->first; i < at->first + at->count; i++) {
        const peft__adapter_param *p = peft__adapter_param_at(a, (size_t)i);
        if (p->slot == slot && !p->whole) { return &p->p; }
    }
    return NULL;
}

peft_status peft__lora_only(const peft__adapter *a, const char *what) {
    peft_status st = PEFT_OK;
    if (peft__schema_find(a->opts.schema, "use_dora") != NULL && peft__opt_bool(&a->opts, "use_dora")) {
        FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\": %s cannot hold DoRA's magnitudes (use_dora)", a->name, what);
    }
    for (size_t i = 0; i < peft__adapter_param_count(a); i++) {
        const peft__adapter_param *p = peft__adapter_param_at(a, i);
        if (p->whole) {
            FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\": %s cannot hold \"%s\", a trained copy of what the base has (bias, modules_to_save)",
                 a->name, what, p->p.name);
        }
        if (p->slot != PEFT__LORA_A && p->slot != PEFT__LORA_B) {
            FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\": %s cannot hold \"%s\"", a->name, what, p->p.name);
        }
    }
    for (size_t i = 0; i < a->attachments.len; i++) {
        const peft__site *s = &a->base->sites[PEFT__VEC_AT(&a->attachments, peft__attachment, i).site];
        if (s->kind != PEFT__SITE_LINEAR && s->kind != PEFT__SITE_HEAD) {
            FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\": %s cannot hold what it has at \"%s\"", a->name, what, s->path);
        }
    }
out:
    return st;
}

/* Have all sites with this ending that have a rank the same? */
static bool make_is_uniform(const peft__base_info *base, const int64_t *ranks, const char *leaf, int64_t rank) {
    for (size_t i = 0; i < base->n_sites; i++) {
        if (ranks[i] > 0 && ranks[i] != rank && peft__path_ends(base->sites[i].path, leaf)) { return false; }
    }
    return true;
}

/* {"k_proj": 4, ...} of what is not `usual`. */
static peft_status make_pattern(const peft__base_info *base, const int64_t *ranks, int64_t usual, peft__str *out) {
    peft__json_out j;
    peft__json_begin(&j, out, 0);
    peft__json_object(&j);
    for (size_t i = 0; i < base->n_sites; i++) {
        if (ranks[i] == 0 || ranks[i] == usual) { continue; }
        const char *leaf = peft__path_leaf(base->sites[i].path);
        bool uniform = make_is_uniform(base, ranks, leaf, ranks[i]), said = false;
        for (size_t k = 0; k < i && uniform && !said; k++) {
            said = ranks[k] > 0 && peft__path_ends(base->sites[k].path, leaf);
        }
        if (said) { continue; }
        peft__json_key(&j, uniform ? leaf : base->sites[i].path);
        peft__json_put_int(&j, ranks[i]);
    }
    peft__json_object_end(&j);
    return peft__str_status(out);
}

static peft_status make_copy(const peft__optset *from, const char *key, peft__optset *to) {
    const peft__option *opt = peft__schema_find(from->schema, key);
    if (opt == NULL || peft__schema_find(to->schema, key) == NULL) { return PEFT_OK; }
    return opt->type == PEFT__OPT_FLOAT ? peft__opt_set_float(to, key, peft__opt_float(from, key))
                                        : peft__opt_set_str(to, key, peft__opt_str(from, key));
}

static peft_status make_options(const peft__base_info *base, const int64_t *ranks, double alpha, const peft__optset *like,
                                peft__optset *opts, peft__str *text, bool *chosen) {
    static const char *const kept[] = {"lora_dropout", "task_type", "base_model_name_or_path"};
    peft_status st = PEFT_OK;
    int64_t usual = 0;
    bool several = false;
    for (size_t i = 0; i < base->n_sites; i++) {
        chosen[i] = ranks[i] > 0;
        if (usual == 0) { usual = ranks[i]; }
        several = several || (ranks[i] > 0 && ranks[i] != usual);
    }
    if (usual == 0) { FAIL(PEFT_E_NOT_FOUND, "there is no module that has a LoRA"); }
    for (size_t i = 0; like != NULL && i < PEFT__COUNT(kept); i++) { TRY(make_copy(like, kept[i], opts)); }
    TRY(peft__opt_set_int(opts, "r", usual));
    TRY(peft__opt_set_float(opts, "lora_alpha", alpha > 0 ? alpha : (double)usual));
    TRY(peft__target_names(base, chosen, text));
    TRY(peft__opt_set_raw(opts, "target_modules", peft__str_c(text)));
    if (!several) { goto out; }
    peft__str_clear(text);
    TRY(make_pattern(base, ranks, usual, text));
    TRY(peft__opt_set_raw(opts, "rank_pattern", peft__str_c(text)));
    if (!(alpha > 0)) { TRY(peft__opt_set_raw(opts, "alpha_pattern", peft__str_c(text))); }
out:
    return st;
}

peft_status peft__lora_make(peft__mem *mem, const peft__base_info *base, const char *name, const int64_t *ranks, double alpha,
                            const peft__optset *like, peft__adapter **out) {
    peft_status st = PEFT_OK;
    peft__optset opts = {0};
    peft__adapter *made = NULL;
    peft__str text;
    bool *chosen = peft__alloc_zero(mem, base->n_sites * sizeof *chosen);
    peft__str_init(&text, mem);
    if (chosen == NULL) { return PEFT_E_NOMEM; }
    TRY(peft__optset_init(&opts, mem, peft__method_lora.schema));
    TRY(make_options(base, ranks, alpha, like, &opts, &text, chosen));
    TRY(peft__adapter_create_empty(mem, base, name, &peft__method_lora, &opts, &made));
    for (size_t i = 0; i < made->attachments.len; i++) {
        const peft__attachment *at = &PEFT__VEC_AT(&made->attachments, peft__attachment, i);
        if (at->rank != ranks[at->site]) {
            FAIL(PEFT_E_INTERNAL, "\"%s\" has rank %lld, expected %lld", base->sites[at->site].path, (long long)at->rank,
                 (long long)ranks[at->site]);
        }
    }
    *out = made;
    made = NULL;
out:
    peft__adapter_release(made);
    peft__optset_free(&opts);
    peft__str_free(&text);
    peft__free(mem, chosen, base->n_sites * sizeof *chosen);
    return st;
}
