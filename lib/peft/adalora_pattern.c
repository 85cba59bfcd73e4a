/* adalora_pattern.c - AdaLoRA in files: what is left without the rest, and the pattern that says what it was.
 *
 *   rank_pattern   {"model.layers.0.self_attn.q_proj.lora_E": [true, false, ...], ...}: for each of init_r triplets, is it there
 *   tensors        rows of A and E and columns of B of those that are; [0, in], [out, 0] and [0, 1] where none is
 *
 * A triplet whose E is 0 adds nothing. It is left out as soon as some E of the adapter is not 0: a fresh adapter is saved whole. So
 * a file computes what the adapter does, also in between two choices, where E has grown again. (There PEFT trims the file by the
 * last choice, and it computes something else than the model that it was saved from.)
 *
 * An unset total_step stands in the file as the steps of the last run, because PEFT reads no file without it.
 *
 * As a plain LoRA the adapter has the ranks that are left, A' = A and B' = s E o B, scaled by 1. */
#include "peft/adalora.h"
#include "peft/lora.h"

/* ---- reading ------------------------------------------------------------------------------------------------- */

/* A key's module: the path before ".lora_E"; 0: it has another form. */
static size_t pattern_key_path(const peft__json *key) {
    static const char tail[] = ".lora_E";
    size_t n = key->len, m = sizeof tail - 1;
    return n > m && strcmp(key->str + (n - m), tail) == 0 ? n - m : 0;
}

/* The kept triplets of a module by the pattern: all of init_r where it does not speak of it. */
peft_status peft__adalora_rank(const peft__adapter *a, const char *path, const peft__json *pattern, int64_t *out) {
    peft_status st = PEFT_OK;
    int64_t init = peft__opt_int(&a->opts, "init_r");
    *out = init;
    for (size_t i = 0; pattern != NULL && i < pattern->len; i++) {
        const peft__json *v = &pattern->items[i];
        size_t n = pattern_key_path(&pattern->keys[i]);
        if (n != strlen(path) || strncmp(path, pattern->keys[i].str, n) != 0) { continue; }
        if (v->kind != PEFT__JSON_ARRAY || (int64_t)v->len != init) {
            FAIL(PEFT_E_KEY, "rank_pattern: \"%s\" is no list of init_r = %lld truth values", pattern->keys[i].str,
                 (long long)init);
        }
        *out = 0;
        for (size_t k = 0; k < v->len; k++) {
            if (v->items[k].kind != PEFT__JSON_BOOL) {
                FAIL(PEFT_E_KEY, "rank_pattern: item %zu of \"%s\" is neither true nor false", k, pattern->keys[i].str);
            }
            *out += v->items[k].truth;
        }
    }
out:
    return st;
}

/* NULL: there is none. */
peft_status peft__adalora_pattern(const peft__adapter *a, peft__arena *arena, const peft__json **out) {
    peft_status st = PEFT_OK;
    const char *text = peft__opt_str(&a->opts, "rank_pattern");
    *out = NULL;
    if (text[0] == '\0') { return PEFT_OK; }
    TRY(peft__json_parse(arena, text, strlen(text), "rank_pattern", out));
    if ((*out)->kind != PEFT__JSON_OBJECT) { FAIL(PEFT_E_KEY, "rank_pattern is no object"); }
out:
    return st;
}

/* Every key must be that of a target. */
peft_status peft__adalora_check_pattern(const peft__adapter *a, const peft__json *pattern) {
    for (size_t i = 0; pattern != NULL && i < pattern->len; i++) {
        size_t n = pattern_key_path(&pattern->keys[i]);
        bool known = false;
        for (size_t j = 0; j < a->attachments.len && n > 0 && !known; j++) {
            const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, j);
            const char *path = a->base->sites[at->site].path;
            known = at->product && strlen(path) == n && strncmp(path, pattern->keys[i].str, n) == 0;
        }
        if (!known) { return peft__fail(PEFT_E_KEY, "rank_pattern: \"%s\" is the E of no target", pattern->keys[i].str); }
    }
    return PEFT_OK;
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

static void pattern_put(const peft__adapter *a, peft__str *out) {
    peft__json_out j;
    peft__json_begin(&j, out, 0);
    peft__json_object(&j);
    for (size_t i = 0; i < a->attachments.len; i++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, i);
        if (!at->product) { continue; }
        const peft__real *e = peft__adalora_values(a, at, PEFT__ADALORA_E);
        peft__json_key(&j, peft__adapter_param_at(a, (size_t)(at->first + PEFT__ADALORA_E))->p.name);
        peft__json_array(&j);
        for (int64_t r = 0; r < at->rank; r++) { peft__json_put_bool(&j, e[r] != 0); }
        peft__json_array_end(&j);
    }
    peft__json_object_end(&j);
}

/* How many E are 0, and how many are not. */
static void pattern_tally(const peft__adapter *a, int64_t *zero, int64_t *other) {
    *zero = *other = 0;
    for (size_t i = 0; i < a->attachments.len; i++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, i);
        for (int64_t r = 0; at->product && r < at->rank; r++) {
            bool none = peft__adalora_values(a, at, PEFT__ADALORA_E)[r] == 0;
            *zero += none;
            *other += !none;
        }
    }
}

/* The triplets of one module that `to` has. */
static void pattern_copy(const peft__adapter *a, const peft__attachment *at, const peft__adapter *to, const peft__attachment *into) {
    const peft__site *s = &a->base->sites[at->site];
    const peft__real *pa = peft__adalora_values(a, at, PEFT__ADALORA_A), *pb = peft__adalora_values(a, at, PEFT__ADALORA_B);
    const peft__real *pe = peft__adalora_values(a, at, PEFT__ADALORA_E);
    peft__real *qa = peft__adalora_values(to, into, PEFT__ADALORA_A), *qb = peft__adalora_values(to, into, PEFT__ADALORA_B);
    peft__real *qe = peft__adalora_values(to, into, PEFT__ADALORA_E);
    int64_t n = 0;
    for (int64_t r = 0; r < at->rank; r++) {
        if (into->rank < at->rank && pe[r] == 0) { continue; }
        memcpy(qa + n * s->in, pa + r * s->in, (size_t)s->in * sizeof *qa);
        for (int64_t o = 0; o < s->out; o++) { qb[o * into->rank + n] = pb[o * at->rank + r]; }
        qe[n++] = pe[r];
    }
}

static void pattern_copy_all(const peft__adapter *a, const peft__adapter *to) {
    for (size_t i = 0; i < a->attachments.len; i++) { /* the same sites in the same order */
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, i);
        if (at->product) {
            pattern_copy(a, at, to, &PEFT__VEC_AT(&to->attachments, peft__attachment, i));
            continue;
        }
        for (int32_t p = at->first; p < at->first + at->count; p++) { /* saved whole */
            const peft__param *from = &peft__adapter_param_at(a, (size_t)p)->p;
            memcpy(peft__adapter_param_at(to, (size_t)p)->p.value, from->value,
                   (size_t)(from->rows * from->cols) * sizeof *from->value);
        }
    }
}

peft_status peft__adalora_plain(const peft__adapter *a, peft__adapter **out) {
    peft_status st = PEFT_OK;
    peft__optset opts = {0};
    peft__str pattern;
    int64_t zero, other, least = peft__opt_int(&a->opts, "tinit") + peft__opt_int(&a->opts, "tfinal") + 1;
    peft__str_init(&pattern, a->mem);
    *out = NULL;
    pattern_tally(a, &zero, &other);
    bool trims = zero > 0 && other > 0 && peft__opt_str(&a->opts, "rank_pattern")[0] == '\0';
    bool names = other > 0 && peft__opt_int(&a->opts, "total_step") == 0;
    if (!trims && !names) { goto out; }
    TRY(peft__optset_copy(&opts, a->mem, &a->opts));
    if (names) { TRY(peft__opt_set_int(&opts, "total_step", PEFT__MAX((int64_t)a->shared[0], least))); }
    if (trims) {
        pattern_put(a, &pattern);
        TRY(peft__str_status(&pattern));
        TRY(peft__opt_set_raw(&opts, "rank_pattern", peft__str_c(&pattern)));
    }
    TRY(peft__adapter_create_empty(a->mem, a->base, a->name, a->method, &opts, out));
    pattern_copy_all(a, *out);
out:
    peft__str_free(&pattern);
    peft__optset_free(&opts);
    return st;
}

/* ---- as a LoRA ----------------------------------------------------------------------------------------------- */

static void pattern_factors(const peft__adapter *a, const peft__attachment *at, bool all, const peft__param *to_a,
                            const peft__param *to_b) {
    const peft__real *pa = peft__adalora_values(a, at, PEFT__ADALORA_A), *pb = peft__adalora_values(a, at, PEFT__ADALORA_B);
    const peft__real *pe = peft__adalora_values(a, at, PEFT__ADALORA_E);
    int64_t n = 0;
    for (int64_t r = 0; r < at->rank; r++) {
        if (!all && pe[r] == 0) { continue; }
        memcpy(to_a->value + n * to_a->cols, pa + r * to_a->cols, (size_t)to_a->cols * sizeof *pa);
        for (int64_t o = 0; o < to_b->rows; o++) {
            to_b->value[o * to_b->cols + n] = PEFT__R(at->scale) * pe[r] * pb[o * at->rank + r];
        }
        n++;
    }
}

peft_status peft__adalora_simplify(const peft__adapter *a, peft__adapter **out) {
    peft_status st = PEFT_OK;
    int64_t zero, other;
    size_t bytes = a->base->n_sites * sizeof(int64_t);
    int64_t *ranks = peft__alloc_zero(a->mem, bytes);
    if (ranks == NULL) { return PEFT_E_NOMEM; }
    pattern_tally(a, &zero, &other);
    for (size_t i = 0; i < a->attachments.len; i++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, i);
        if (!at->product) {
            FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\": as a LoRA it cannot keep \"%s\", which is saved whole", a->name,
                 a->base->sites[at->site].path);
        }
        for (int64_t r = 0; r < at->rank; r++) {
            ranks[at->site] += other == 0 || peft__adalora_values(a, at, PEFT__ADALORA_E)[r] != 0;
        }
    }
    TRY(peft__lora_make(a->mem, a->base, a->name, ranks, 0, &a->opts, out));
    for (size_t i = 0; i < (*out)->attachments.len; i++) {
        const peft__attachment *to = &PEFT__VEC_AT(&(*out)->attachments, peft__attachment, i);
        for (size_t k = 0; k < a->attachments.len; k++) {
            const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, k);
            if (to->site != at->site) { continue; }
            pattern_factors(a, at, other == 0, peft__lora_param(*out, to, PEFT__LORA_A), peft__lora_param(*out, to, PEFT__LORA_B));
        }
    }
out:
    peft__free(a->mem, ranks, bytes);
    return st;
}
