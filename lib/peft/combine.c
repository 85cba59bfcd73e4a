/* combine.c - one adapter out of several, each with a weight: "a:0.6, b:-0.4".
 *
 *   average   sum of w_i v_i over every tensor, w divided by their sum: AdapterSoup (Chronopoulou et al. 2023, arXiv 2302.07027),
 *             average_adapter of AdapterHub's library. Any method; the adapters must have the same tensors and options
 *   others    what the method makes of them: combine_lora.c, ia3.c
 *
 * The sources are taken as files hold them (`plain`), VeRA and others that are LoRA in disguise as LoRA (`simplify`), and stay as
 * they are; the new adapter has its own values.
 * Left out: averages of unions. */
#include "peft/combine.h"

#include <math.h>

static const peft__option combine_options[] = {
    {"type", PEFT__OPT_STR, "", 1, 0,
     "cat|linear|svd|ties|ties_svd|dare_linear|dare_linear_svd|dare_ties|dare_ties_svd|magnitude_prune|magnitude_prune_svd|average",
     "how; unset: what is exact, cat for LoRA and linear for IA3"},
    {"svd_rank", PEFT__OPT_INT, "0", 0, 1 << 20, NULL, "svd types: rank of the result; 0: the largest of the adapters"},
    {"svd_clamp", PEFT__OPT_FLOAT, "1", 0.5, 1, NULL,
     "svd types: factors are cut off at this quantile of their values and of the negated ones; 1: not"},
    {"density", PEFT__OPT_FLOAT, "0.5", 0, 1, NULL, "ties, dare and magnitude_prune: share of each tensor that is kept"},
    {"majority_sign_method", PEFT__OPT_STR, "total", 1, 0, "total|frequency", "ties: the sign of the sum, or of most values"},
    {"seed", PEFT__OPT_INT, "0", 0, 0x1p53, NULL, "dare: seed of what is dropped"},
    {"normalize_weights", PEFT__OPT_BOOL, "true", 1, 0, NULL, "average: divide the weights by their sum"},
    {"compat", PEFT__OPT_BOOL, "false", 1, 0, NULL,
     "as releases of PEFT did: svd types apply lora_alpha / r twice, a missing IA3 vector counts as 0"},
};
const peft__schema peft__schema_combine = {"combine", combine_options, PEFT__COUNT(combine_options)};

/* ---- the expression ------------------------------------------------------------------------------------------ */

typedef struct combine_term {
    const char *name; /* NUL-terminated, in the arena */
    double weight;
} combine_term;

static bool combine_is_space(char c) { return c == ' ' || c == '\t'; }

/* One "name:weight" or "name" of len bytes. */
static peft_status combine_term_read(peft__arena *arena, const char *text, size_t len, combine_term *out) {
    peft_status st = PEFT_OK;
    while (len > 0 && combine_is_space(text[0])) { text++, len--; }
    while (len > 0 && combine_is_space(text[len - 1])) { len--; }
    const char *colon = memchr(text, ':', len);
    size_t name = colon != NULL ? (size_t)(colon - text) : len, at = name + 1;
    out->weight = 1;
    if (colon != NULL) {
        while (at < len && combine_is_space(text[at])) { at++; }
        if (!peft__parse_f64(text + at, len - at, &out->weight) || !isfinite(out->weight)) {
            FAIL(PEFT_E_INVALID, "\"%.*s\": the weight is no number; expected name:weight, such as a:0.6", (int)PEFT__MIN(len, 100), text);
        }
    }
    while (name > 0 && combine_is_space(text[name - 1])) { name--; }
    if (name == 0) { FAIL(PEFT_E_INVALID, "a term of the combination has no name; expected name:weight, name:weight, ..."); }
    out->name = peft__arena_strdup(arena, text, name);
    if (out->name == NULL) { st = PEFT_E_NOMEM; }
out:
    return st;
}

static peft_status combine_read(peft__arena *arena, const char *expression, combine_term *terms, size_t *n) {
    peft_status st = PEFT_OK;
    *n = 0;
    for (const char *at = expression;; at++) {
        size_t len = strcspn(at, ",");
        if (*n == PEFT__COMBINE_MAX) { FAIL(PEFT_E_UNSUPPORTED, "a combination has at most %d adapters", PEFT__COMBINE_MAX); }
        TRY(combine_term_read(arena, at, len, &terms[*n]));
        for (size_t i = 0; i < *n; i++) {
            if (strcmp(terms[i].name, terms[*n].name) == 0) {
                FAIL(PEFT_E_INVALID, "the combination has adapter \"%s\" twice; add its weights up", terms[i].name);
            }
        }
        (*n)++;
        at += len;
        if (*at == '\0') { break; }
    }
out:
    return st;
}

/* ---- averages ------------------------------------------------------------------------------------------------ */

/* Options that matter at the start or in training only, and those that the tensors show. */
static bool combine_is_harmless(const peft__option *opt) {
    static const char *const keys[] = {"base_model_name_or_path", "task_type", "tokenizer_name_or_path", "loraplus_lr_ratio",
                                       "r", "lora_alpha", "alpha", "rank_pattern", "alpha_pattern", "target_modules",
                                       "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern",
                                       "feedforward_modules", "leave_out", "reduction_factor", "reduction_factors"};
    bool harmless = strstr(opt->key, "init") != NULL || strstr(opt->key, "dropout") != NULL;
    for (size_t i = 0; i < PEFT__COUNT(keys); i++) { harmless = harmless || strcmp(opt->key, keys[i]) == 0; }
    return harmless;
}

static peft_status combine_same_options(const peft__adapter *a, const peft__adapter *b) {
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < a->opts.schema->count; i++) {
        const peft__option *opt = &a->opts.schema->options[i];
        const peft__opt_value *x = &a->opts.values[i], *y = &b->opts.values[i];
        bool number = opt->type == PEFT__OPT_FLOAT;
        bool text = !number && opt->type != PEFT__OPT_INT && opt->type != PEFT__OPT_BOOL && opt->type != PEFT__OPT_SIZE;
        bool same = text ? strcmp(peft__opt_str(&a->opts, opt->key), peft__opt_str(&b->opts, opt->key)) == 0
                         : number ? x->f == y->f : x->i == y->i;
        if (!same && !combine_is_harmless(opt)) {
            FAIL(PEFT_E_SHAPE, "adapters \"%s\" and \"%s\" differ in %s, and an average needs the same structure", a->name, b->name,
                 opt->key);
        }
    }
out:
    return st;
}

static peft_status combine_same(const peft__adapter *a, const peft__adapter *b) {
    peft_status st = PEFT_OK;
    if (a->method != b->method) {
        FAIL(PEFT_E_SHAPE, "adapter \"%s\" is of method \"%s\" and \"%s\" of \"%s\": an average needs the same structure", a->name,
             a->method->name, b->name, b->method->name);
    }
    TRY(combine_same_options(a, b));
    for (size_t i = 0; i < PEFT__MAX(a->params.len, b->params.len); i++) {
        const peft__adapter_param *p = i < a->params.len ? peft__adapter_param_at(a, i) : NULL;
        const peft__adapter_param *q = i < b->params.len ? peft__adapter_param_at(b, i) : NULL;
        bool same = p != NULL && q != NULL && strcmp(p->p.name, q->p.name) == 0;
        if (!same || p->p.rows != q->p.rows || p->p.cols != q->p.cols) {
            FAIL(PEFT_E_SHAPE, "adapters \"%s\" and \"%s\" differ in tensor \"%s\", and an average needs the same structure", a->name,
                 b->name, p != NULL ? p->p.name : q->p.name);
        }
    }
    for (size_t i = 0; i < a->attachments.len; i++) {
        const peft__attachment *x = &PEFT__VEC_AT(&a->attachments, peft__attachment, i);
        const peft__attachment *y = &PEFT__VEC_AT(&b->attachments, peft__attachment, i);
        if (x->scale != y->scale) {
            FAIL(PEFT_E_SHAPE, "adapters \"%s\" and \"%s\" scale \"%s\" differently, and an average needs the same structure", a->name,
                 b->name, a->base->sites[x->site].path);
        }
        size_t rows = x->rows_param >= 0 ? (size_t)peft__adapter_param_at(a, (size_t)x->rows_param)->p.rows : 0;
        if (rows > 0 && memcmp(x->tokens, y->tokens, rows * sizeof *x->tokens) != 0) {
            FAIL(PEFT_E_SHAPE, "adapters \"%s\" and \"%s\" replace rows of other tokens in \"%s\", and an average needs the same structure",
                 a->name, b->name, a->base->sites[x->site].path);
        }
    }
out:
    return st;
}

static peft_status combine_average(const peft__mix *m, peft__adapter **out) {
    peft_status st = PEFT_OK;
    const peft__adapter *first = m->sources[0];
    double total = 0, by = 1;
    peft__adapter *made = NULL;
    for (size_t i = 0; i < m->n; i++) {
        total += m->weights[i];
        TRY(combine_same(first, m->sources[i]));
    }
    if (first->parts.len > 0 || first->method->whole_model) {
        FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\": averages of method \"%s\" are not supported", first->name, first->method->name);
    }
    if (peft__opt_bool(m->opts, "normalize_weights")) { by = total; }
    if (fabs(by) < 1e-12) {
        FAIL(PEFT_E_INVALID, "the weights add up to 0, and an average divides by that; normalize_weights=false takes them as they are");
    }
    TRY(peft__adapter_create_empty(m->mem, m->base, m->name, first->method, &first->opts, &made));
    for (size_t i = 0; i < made->params.len; i++) {
        const peft__param *p = &peft__adapter_param_at(made, i)->p;
        for (int64_t e = 0; e < p->rows * p->cols; e++) {
            double sum = 0;
            for (size_t s = 0; s < m->n; s++) {
                sum += m->weights[s] / by * (double)peft__adapter_param_at(m->sources[s], i)->p.value[e];
            }
            p->value[e] = PEFT__R(sum);
        }
    }
    *out = made;
out:
    return st;
}

/* ---- sources ------------------------------------------------------------------------------------------------- */

/* A source as it is taken: `held` gets what is owned of it, [3]. */
static peft_status combine_source(struct peft_adapters *set, const char *name, bool average, peft__adapter **held,
                                  peft__adapter **out) {
    peft_status st = PEFT_OK;
    TRY(peft__set_pin(set, name, &held[0]));
    *out = held[0];
    if ((*out)->method->plain != NULL) { TRY((*out)->method->plain(*out, &held[1])); }
    if (held[1] != NULL) { *out = held[1]; }
    if (average || (*out)->method->mix != NULL || (*out)->method->simplify == NULL) { goto out; }
    TRY((*out)->method->simplify(*out, &held[2]));
    if (held[2] != NULL && held[2]->method->mix != NULL) { *out = held[2]; }
out:
    return st;
}

/* ---- all of it ----------------------------------------------------------------------------------------------- */

static peft_status combine_dispatch(const peft__mix *m, peft__adapter **out) {
    peft_status st = PEFT_OK;
    const peft__adapter *first = m->sources[0];
    if (strcmp(m->type, "average") == 0) { return combine_average(m, out); }
    for (size_t i = 0; i < m->n; i++) {
        const peft__adapter *a = m->sources[i];
        if (a->method->mix == NULL) {
            FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\": adapters of method \"%s\" combine as type=average only", a->name,
                 a->method->name);
        }
        if (a->method->mix != first->method->mix) {
            FAIL(PEFT_E_SHAPE, "adapter \"%s\" is of method \"%s\" and \"%s\" of \"%s\", which do not combine", first->name,
                 first->method->name, a->name, a->method->name);
        }
    }
    TRY(first->method->mix(m, out));
out:
    return st;
}

peft_status peft__combine(struct peft_adapters *set, const char *name, const char *expression, const peft__optset *opts,
                          peft__adapter **out) {
    peft_status st = PEFT_OK;
    combine_term terms[PEFT__COMBINE_MAX];
    peft__adapter *held[3 * PEFT__COMBINE_MAX] = {NULL}, *sources[PEFT__COMBINE_MAX] = {NULL}, *made = NULL;
    double weights[PEFT__COMBINE_MAX];
    size_t n = 0;
    peft__arena arena;
    peft__arena_init(&arena, &set->ctx->mem);
    TRY(combine_read(&arena, expression, terms, &n));
    for (size_t i = 0; i < n; i++) {
        TRY(combine_source(set, terms[i].name, strcmp(peft__opt_str(opts, "type"), "average") == 0, &held[3 * i], &sources[i]));
        weights[i] = terms[i].weight;
    }
    peft__mix mix = {.mem = &set->ctx->mem,
                     .base = &set->base,
                     .name = name,
                     .opts = opts,
                     .type = peft__opt_str(opts, "type"),
                     .sources = sources,
                     .weights = weights,
                     .n = n};
    TRY(combine_dispatch(&mix, &made));
    if (!set->ctx->kernels->finite(made->values, made->n_values)) {
        FAIL(PEFT_E_NUMERIC, "the combination \"%s\" has a NaN or an infinite value", name);
    }
    *out = made;
    made = NULL;
out:
    peft__adapter_release(made);
    for (size_t i = 0; i < PEFT__COUNT(held); i++) { peft__adapter_release(held[i]); }
    peft__arena_free(&arena);
    return st;
}
