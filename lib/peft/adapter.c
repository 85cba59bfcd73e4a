/* adapter.c - an adapter: where its method acts, and the parameters that it has there in one flat vector.
 *
 * A method's build lists attachments and parameters; then all values get their places, trainable ones first, and are filled
 * from a stream of random numbers of their own, keyed by seed and name: another set of targets does not change the initial
 * values of a module that both have.
 *
 * Left out: what a method computes (its own file), sets of adapters (set.c), files (format_hf.c). */
#include "peft/method.h"

/* ---- building ------------------------------------------------------------------------------------------------ */

peft_status peft__adapter_attach(peft__adapter *a, const peft__site *s, peft__attachment **out) {
    peft__attachment *all = a->attachments.data;
    for (size_t i = 0; i < a->attachments.len; i++) {
        if (all[i].site == s->id) {
            *out = &all[i];
            return PEFT_OK;
        }
    }
    peft__attachment at = {.site = s->id,
                           .scale = 1,
                           .strength = 1,
                           .key = peft__hash_str(0, s->path, strlen(s->path)),
                           .weight_param = -1,
                           .bias_param = -1,
                           .rows_param = -1};
    peft_status st = peft__vec_push(&a->attachments, &at);
    if (st == PEFT_OK) { *out = &PEFT__VEC_AT(&a->attachments, peft__attachment, a->attachments.len - 1); }
    return st;
}

peft_status peft__adapter_add_param(peft__adapter *a, peft__attachment *at, const char *key, int32_t slot, int64_t rows,
                                    int64_t cols, int32_t ndim, bool whole, bool frozen) {
    peft_status st = PEFT_OK;
    size_t n;
    if (key == NULL) { return PEFT_E_NOMEM; } /* the arena's printf had no memory, and said so */
    if (rows <= 0 || cols <= 0 || !peft__mul((size_t)rows, (size_t)cols, &n) || n > (size_t)INT64_MAX / sizeof(double)) {
        FAIL(PEFT_E_SHAPE, "parameter \"%s\" of %lld x %lld is too large", key, (long long)rows, (long long)cols);
    }
    int32_t index = (int32_t)a->params.len;
    if (at->count == 0) { at->first = index; }
    if (at->first + at->count != index) { FAIL(PEFT_E_INTERNAL, "the parameters of \"%s\" do not lie together", key); }
    peft__adapter_param p = {.p = {.name = key, .rows = rows, .cols = cols, .frozen = frozen},
                             .site = at->site,
                             .slot = slot,
                             .ndim = ndim,
                             .dims = {ndim == 1 ? cols : rows, cols},
                             .whole = whole,
                             .frozen = frozen};
    TRY(peft__vec_push(&a->params, &p));
    at->count++;
out:
    return st;
}

void peft__adapter_shape(peft__adapter *a, int32_t ndim, const int64_t *dims) {
    peft__adapter_param *p = &PEFT__VEC_AT(&a->params, peft__adapter_param, a->params.len - 1);
    p->ndim = ndim;
    memcpy(p->dims, dims, (size_t)ndim * sizeof *dims);
}

peft_status peft__adapter_copy_weight(peft__adapter *a, peft__attachment *at, const peft__site *s, int32_t slot) {
    int32_t ndim = s->kind == PEFT__SITE_NORM ? 1 : 2;
    char *key = peft__arena_printf(&a->arena, "%s.weight", s->path);
    peft_status st = peft__adapter_add_param(a, at, key, slot, s->weight->rows, s->weight->cols, ndim, true, false);
    if (st == PEFT_OK) { at->weight_param = (int32_t)a->params.len - 1; }
    return st;
}

peft_status peft__adapter_copy_bias(peft__adapter *a, peft__attachment *at, const peft__site *s, const char *key, int32_t slot) {
    if (key == NULL) { key = peft__arena_printf(&a->arena, "%s.bias", s->path); }
    peft_status st = peft__adapter_add_param(a, at, key, slot, 1, s->bias->cols, 1, true, false);
    if (st == PEFT_OK) { at->bias_param = (int32_t)a->params.len - 1; }
    return st;
}

/* The attachment whose trained copy of a weight or bias parameter i is; the first, which owns it, of tied ones. */
static const peft__attachment *adapter_copy_owner(const peft__adapter *a, size_t i) {
    const peft__attachment *all = a->attachments.data;
    for (size_t j = 0; j < a->attachments.len; j++) {
        if (all[j].weight_param == (int32_t)i || all[j].bias_param == (int32_t)i) { return &all[j]; }
    }
    return NULL;
}

void peft__adapter_init_copy(const peft__adapter *a, size_t i, const peft__kernels *k) {
    const peft__attachment *at = adapter_copy_owner(a, i);
    if (at == NULL) { return; }
    const peft__site *s = &a->base->sites[at->site];
    peft__weight_read(k, at->weight_param == (int32_t)i ? s->weight : s->bias, peft__adapter_param_at(a, i)->p.value);
}

bool peft__adapter_flipped(const peft__adapter *a, size_t i) {
    const peft__attachment *at = peft__adapter_param_at(a, i)->whole ? adapter_copy_owner(a, i) : NULL;
    return at != NULL && at->weight_param == (int32_t)i && a->base->sites[at->site].conv1d;
}

bool peft__adapter_proportional(const peft__adapter *a) {
    bool copies = false;
    for (size_t i = 0; i < a->attachments.len; i++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, i);
        copies = copies || at->weight_param >= 0 || at->bias_param >= 0;
    }
    return a->method->proportional && !a->bent && !copies;
}

char *peft__adapter_file_key(peft__arena *arena, const peft__adapter *a, size_t i) {
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    if (a->method->hub) { return peft__hub_key(arena, a, p->p.name); }
    const char *prefix = p->outer ? "base_model." : !a->method->prompt_keys ? "base_model.model." : p->whole ? "base_model." : "";
    return peft__arena_printf(arena, "%s%s", prefix, p->p.name);
}

/* ---- making -------------------------------------------------------------------------------------------------- */

static peft_status adapter_place(peft__adapter *a, size_t most) {
    peft_status st = PEFT_OK;
    peft__adapter_param *params = a->params.data;
    size_t at = 0, saved = 0, bytes;
    for (int pass = 0; pass < 2; pass++) { /* trainable, then frozen */
        for (size_t i = 0; i < a->params.len; i++) {
            if (params[i].frozen != (pass == 1)) { continue; }
            if (!peft__add(at, (size_t)(params[i].p.rows * params[i].p.cols), &at)) {
                FAIL(PEFT_E_SHAPE, "adapter \"%s\" is too large", a->name);
            }
            if (!params[i].unsaved) { saved += (size_t)(params[i].p.rows * params[i].p.cols); } /* at most `at` */
        }
        if (pass == 0) { a->n_trainable = (int64_t)at; }
    }
    if (saved > most) { FAIL(PEFT_E_SHAPE, "an adapter of %zu values, and the file has no room for half as many", saved); }
    if (!peft__mul(at, sizeof *a->values, &bytes) || bytes > (size_t)PTRDIFF_MAX) {
        FAIL(PEFT_E_NOMEM, "adapter \"%s\" of %zu values passes the address space", a->name, at);
    }
    a->values = peft__alloc_zero(a->mem, PEFT__MAX(bytes, sizeof *a->values));
    if (a->values == NULL) { return PEFT_E_NOMEM; }
    a->n_values = (int64_t)at;
    peft__real *next = a->values;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < a->params.len; i++) {
            if (params[i].frozen != (pass == 1)) { continue; }
            params[i].p.value = next;
            next += params[i].p.rows * params[i].p.cols;
        }
    }
out:
    return st;
}

static void adapter_free(peft__adapter *a) {
    peft__mem *mem = a->mem;
    if (a->values != NULL) { peft__free(mem, a->values, PEFT__MAX((size_t)a->n_values, 1) * sizeof *a->values); }
    peft__vec_free(&a->params);
    peft__vec_free(&a->attachments);
    for (size_t i = 0; i < a->parts.len; i++) { peft__adapter_release(PEFT__VEC_AT(&a->parts, peft__adapter *, i)); }
    peft__vec_free(&a->parts);
    peft__optset_free(&a->opts);
    peft__arena_free(&a->arena);
    peft__free(mem, a, sizeof *a);
}

/* k NULL: values stay 0. most: values that are saved. */
static peft_status adapter_make(peft__mem *mem, const peft__kernels *k, const peft__base_info *base, const char *name,
                                const peft__method *method, const peft__optset *opts, uint64_t seed, bool heads, size_t most,
                                peft__adapter **out) {
    peft_status st = PEFT_OK;
    peft__adapter *a = peft__alloc_zero(mem, sizeof *a);
    if (a == NULL) { return PEFT_E_NOMEM; }
    atomic_init(&a->refs, 1);
    a->mem = mem;
    a->method = method;
    a->base = base;
    a->seed = seed;
    a->from_file = k == NULL;
    a->heads = heads && base->task != NULL && !method->whole_model;
    a->kernels = k;
    peft__arena_init(&a->arena, mem);
    peft__vec_init(&a->attachments, mem, sizeof(peft__attachment));
    peft__vec_init(&a->params, mem, sizeof(peft__adapter_param));
    peft__vec_init(&a->parts, mem, sizeof(peft__adapter *));
    a->name = peft__arena_strdup(&a->arena, name, strlen(name));
    if (a->name == NULL) {
        st = PEFT_E_NOMEM;
        goto out;
    }
    if (opts != NULL) {
        TRY(peft__optset_copy(&a->opts, mem, opts));
    } else {
        TRY(peft__optset_init(&a->opts, mem, method->schema));
    }
    if (method->refer != NULL && base->set == NULL) { FAIL(PEFT_E_UNSUPPORTED, "method \"%s\" needs a set of adapters", method->name); }
    if (method->refer != NULL) { TRY(method->refer(a, base->set)); }
    if (a->heads) { TRY(peft__heads_list(a)); }
    TRY(method->build(a));
    if (a->heads) { TRY(peft__heads_copy(a)); }
    if (a->params.len == 0 && a->parts.len == 0 && method->combine != PEFT__COMBINE_STACK) {
        FAIL(PEFT_E_NOT_FOUND, "adapter \"%s\" has no parameters", name);
    }
    TRY(adapter_place(a, most));
    for (size_t i = 0; i < a->params.len; i++) {
        if (k == NULL && !peft__adapter_param_at(a, i)->unsaved) { continue; } /* the file has it */
        const char *key = peft__adapter_param_at(a, i)->p.name;
        peft__rng rng = {peft__hash_str(seed, key, strlen(key)), 0};
        int32_t slot = peft__adapter_param_at(a, i)->slot;
        if (slot == PEFT__SLOT_COPY || slot == PEFT__SLOT_COPY + 1) {
            if (k != NULL) { peft__adapter_init_copy(a, i, k); }
        } else {
            method->init(a, i, &rng, k);
        }
    }
    if (k != NULL && method->settle != NULL) { TRY(method->settle(a, k)); }
    a->kernels = NULL;
    *out = a;
    a = NULL;
out:
    if (a != NULL) { adapter_free(a); }
    return st;
}

peft_status peft__adapter_create(peft__mem *mem, const peft__kernels *k, const peft__base_info *base, const char *name,
                                 const peft__method *method, const peft__optset *opts, uint64_t seed, peft__adapter **out) {
    return adapter_make(mem, k, base, name, method, opts, seed, false, SIZE_MAX, out);
}

peft_status peft__adapter_create_empty(peft__mem *mem, const peft__base_info *base, const char *name,
                                       const peft__method *method, const peft__optset *opts, peft__adapter **out) {
    return adapter_make(mem, NULL, base, name, method, opts, 0, false, SIZE_MAX, out);
}

peft_status peft__adapter_create_headed(peft__mem *mem, const peft__kernels *k, const peft__base_info *base, const char *name,
                                        const peft__method *method, const peft__optset *opts, uint64_t seed, peft__adapter **out) {
    return adapter_make(mem, k, base, name, method, opts, seed, true, SIZE_MAX, out);
}

peft_status peft__adapter_create_empty_headed(peft__mem *mem, const peft__base_info *base, const char *name,
                                              const peft__method *method, const peft__optset *opts, peft__adapter **out) {
    return adapter_make(mem, NULL, base, name, method, opts, 0, true, SIZE_MAX, out);
}

peft_status peft__adapter_create_for_file(peft__mem *mem, const peft__base_info *base, const char *name, const peft__method *method,
                                          const peft__optset *opts, bool heads, size_t most, peft__adapter **out) {
    return adapter_make(mem, NULL, base, name, method, opts, 0, heads, most, out);
}

void peft__adapter_retain(peft__adapter *a) {
    atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
}

void peft__adapter_release(peft__adapter *a) {
    if (a != NULL && atomic_fetch_sub_explicit(&a->refs, 1, memory_order_acq_rel) == 1) { adapter_free(a); }
}

/* ---- reading ------------------------------------------------------------------------------------------------- */

const peft__adapter_param *peft__adapter_param_at(const peft__adapter *a, size_t i) {
    return &PEFT__VEC_AT(&a->params, peft__adapter_param, i);
}

size_t peft__adapter_param_count(const peft__adapter *a) { return a->params.len; }

const peft__adapter_param *peft__adapter_find(const peft__adapter *a, const char *key, size_t *index) {
    for (size_t i = 0; i < a->params.len; i++) {
        const peft__adapter_param *p = peft__adapter_param_at(a, i);
        if (strcmp(p->p.name, key) != 0) { continue; }
        if (index != NULL) { *index = i; }
        return p;
    }
    return NULL;
}

int32_t peft__adapter_tape_copy(const peft__adapter *a, int32_t param, peft__tape *t) {
    return param >= 0 ? peft__tape_param(t, &peft__adapter_param_at(a, (size_t)param)->p) : PEFT__NONE;
}

int32_t peft__adapter_tape_param(const peft__adapter *a, const peft__attachment *at, int32_t slot, peft__tape *t) {
    for (int32_t i = at->first; i < at->first + at->count; i++) {
        if (peft__adapter_param_at(a, (size_t)i)->slot == slot) { return peft__adapter_tape_copy(a, i, t); }
    }
    return PEFT__NONE;
}
