/* lora_base.c - LoRA that starts from the base's own weights, and its way into files.
 *
 *   pissa   A = sqrt(S_r / s) V_r', B = U_r sqrt(S_r / s) of the singular value decomposition (Meng et al. 2024, arXiv 2404.02948)
 *   olora   A = R[:r], B = Q[:, :r] of W = Q R (Büyükakyüz 2024, arXiv 2406.01775)
 *
 * Both take what they start with off the base: y = (W - s B0 A0) x + b + s B A x. The base is not touched: A0 and B0 are kept as
 * frozen parameters and their product is subtracted. In a file stands the plain LoRA of twice the rank that this is,
 * A' = [A; A0], B' = [B, -B0], alpha doubled (times sqrt 2 with use_rslora), as PEFT's conversion writes it. */
#include "peft/lora.h"

#include <math.h>

#include "peft/factor.h"

static const peft__param *lora_base_param(const peft__adapter *a, const peft__attachment *at, int32_t slot) {
    for (int32_t i = at->first; i < at->first + at->count; i++) {
        const peft__adapter_param *p = peft__adapter_param_at(a, (size_t)i);
        if (p->slot == slot) { return &p->p; }
    }
    return NULL;
}

/* Fills A, B and their frozen copies at one site. */
static peft_status lora_base_fill(const peft__adapter *a, const peft__attachment *at, const peft__kernels *k) {
    peft_status st = PEFT_OK;
    const peft__site *s = &a->base->sites[at->site];
    const peft__param *pa = lora_base_param(a, at, PEFT__LORA_A), *pb = lora_base_param(a, at, PEFT__LORA_B);
    int64_t r = at->rank, n = s->out * s->in;
    size_t bytes = (size_t)n * sizeof(peft__real) + (size_t)(n + r * (s->out + s->in + 1)) * sizeof(double);
    double *w = peft__alloc(a->mem, bytes);
    if (w == NULL) { return PEFT_E_NOMEM; }
    double *u = w + n, *v = u + s->out * r, *sigma = v + s->in * r;
    peft__real *read = (peft__real *)(void *)(sigma + r);
    peft__weight_read(k, s->weight, read);
    for (int64_t e = 0; e < n; e++) { w[e] = (double)read[e]; }
    if (strcmp(peft__opt_str(&a->opts, "init_lora_weights"), "pissa") == 0) {
        TRY(peft__factor_svd(a->mem, w, s->out, s->in, r, u, sigma, v));
        for (int64_t e = 0; e < s->out * r; e++) { pb->value[e] = PEFT__R(u[e] * sqrt(sigma[e % r] / at->scale)); }
        for (int64_t e = 0; e < r * s->in; e++) {
            pa->value[e] = PEFT__R(v[e % s->in * r + e / s->in] * sqrt(sigma[e / s->in] / at->scale));
        }
    } else {
        TRY(peft__factor_qr(a->mem, w, s->out, s->in, r, u, v)); /* v: [r, in] */
        for (int64_t e = 0; e < s->out * r; e++) { pb->value[e] = PEFT__R(u[e]); }
        for (int64_t e = 0; e < r * s->in; e++) { pa->value[e] = PEFT__R(v[e]); }
    }
    memcpy(lora_base_param(a, at, PEFT__LORA_A0)->value, pa->value, (size_t)(r * s->in) * sizeof *pa->value);
    memcpy(lora_base_param(a, at, PEFT__LORA_B0)->value, pb->value, (size_t)(s->out * r) * sizeof *pb->value);
out:
    peft__free(a->mem, w, bytes);
    return st;
}

bool peft__lora_from_base(const peft__adapter *a) {
    const char *how = peft__opt_str(&a->opts, "init_lora_weights");
    return !a->from_file && (strcmp(how, "pissa") == 0 || strcmp(how, "olora") == 0);
}

peft_status peft__lora_add_base(peft__adapter *a, peft__attachment *at, const peft__site *s) {
    peft_status st = PEFT_OK;
    const char *how = peft__opt_str(&a->opts, "init_lora_weights");
    if (s->kind == PEFT__SITE_HEAD || peft__opt_bool(&a->opts, "use_dora") || a->method == &peft__method_lora_fa) {
        FAIL(PEFT_E_UNSUPPORTED, "init_lora_weights=%s goes neither with the head as a target, nor with use_dora, nor with lora_fa",
             how);
    }
    if (at->rank > PEFT__MIN(s->in, s->out)) {
        FAIL(PEFT_E_SHAPE, "init_lora_weights=%s: rank %lld of \"%s\" is more than its %lld x %lld weight has", how,
             (long long)at->rank, s->path, (long long)s->out, (long long)s->in);
    }
    for (int32_t slot = PEFT__LORA_A0; slot <= PEFT__LORA_B0; slot++) {
        bool left = slot == PEFT__LORA_B0;
        TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.%s", s->path, left ? "lora_B0" : "lora_A0"), slot,
                                    left ? s->out : at->rank, left ? at->rank : s->in, 2, false, true));
        PEFT__VEC_AT(&a->params, peft__adapter_param, a->params.len - 1).unsaved = true;
    }
out:
    return st;
}

peft_status peft__lora_fill_base(const peft__adapter *a, const peft__kernels *k) {
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < a->attachments.len; i++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, i);
        if (at->rank > 0) { TRY(lora_base_fill(a, at, k)); }
    }
out:
    return st;
}

/* ---- as a plain LoRA ----------------------------------------------------------------------------------------- */

/* A map's numbers times a factor. */
static peft_status lora_base_map(peft__optset *opts, const char *key, double factor) {
    peft_status st = PEFT_OK;
    const char *text = peft__opt_str(opts, key);
    const peft__json *map = NULL;
    peft__arena arena;
    peft__str out;
    peft__json_out j;
    if (text[0] == '\0') { return PEFT_OK; }
    peft__arena_init(&arena, opts->mem);
    peft__str_init(&out, opts->mem);
    TRY(peft__json_parse(&arena, text, strlen(text), key, &map));
    peft__json_begin(&j, &out, 0);
    peft__json_object(&j);
    for (size_t i = 0; i < map->len; i++) {
        const peft__json *v = &map->items[i];
        double scaled = factor * (v->is_int ? (double)v->i : v->num);
        peft__json_key(&j, map->keys[i].str);
        if (scaled == floor(scaled)) { peft__json_put_int(&j, (int64_t)scaled); } else { peft__json_put_double(&j, scaled); }
    }
    peft__json_object_end(&j);
    TRY(peft__str_status(&out));
    TRY(peft__opt_set_raw(opts, key, peft__str_c(&out)));
out:
    peft__str_free(&out);
    peft__arena_free(&arena);
    return st;
}

/* Parameters of one site: A' and B' from A, B, A0, B0; others as they are. */
static void lora_base_join(const peft__adapter *a, const peft__attachment *at, const peft__adapter *to) {
    for (int32_t i = at->first; i < at->first + at->count; i++) {
        const peft__adapter_param *p = peft__adapter_param_at(a, (size_t)i);
        const peft__adapter_param *q = peft__adapter_find(to, p->p.name, NULL);
        if (q == NULL) { continue; } /* A0, B0 */
        int64_t r = at->rank, rows = p->p.rows;
        memcpy(q->p.value, p->p.value, (size_t)(rows * p->p.cols) * sizeof *p->p.value);
        if (p->slot == PEFT__LORA_A && !p->whole) {
            memcpy(q->p.value + r * p->p.cols, lora_base_param(a, at, PEFT__LORA_A0)->value,
                   (size_t)(r * p->p.cols) * sizeof *p->p.value);
        } else if (p->slot == PEFT__LORA_B && !p->whole) {
            const peft__real *start = lora_base_param(a, at, PEFT__LORA_B0)->value;
            for (int64_t o = 0; o < rows; o++) {
                for (int64_t c = 0; c < r; c++) {
                    q->p.value[o * 2 * r + c] = p->p.value[o * r + c];
                    q->p.value[o * 2 * r + r + c] = -start[o * r + c];
                }
            }
        }
    }
}

peft_status peft__lora_plain(const peft__adapter *a, peft__adapter **out) {
    peft_status st = PEFT_OK;
    peft__optset opts = {0};
    double factor = peft__opt_bool(&a->opts, "use_rslora") ? sqrt(2.0) : 2;
    *out = NULL;
    if (!peft__lora_from_base(a)) { return PEFT_OK; }
    TRY(peft__optset_copy(&opts, a->mem, &a->opts));
    TRY(peft__opt_set_int(&opts, "r", 2 * peft__opt_int(&opts, "r")));
    TRY(peft__opt_set_float(&opts, "lora_alpha", factor * peft__opt_float(&opts, "lora_alpha")));
    TRY(lora_base_map(&opts, "rank_pattern", 2));
    TRY(lora_base_map(&opts, "alpha_pattern", factor));
    TRY(peft__opt_set_str(&opts, "init_lora_weights", "true"));
    TRY(peft__adapter_create_empty(a->mem, a->base, a->name, a->method, &opts, out));
    for (size_t i = 0; i < a->attachments.len; i++) {
        lora_base_join(a, &PEFT__VEC_AT(&a->attachments, peft__attachment, i), *out);
    }
out:
    peft__optset_free(&opts);
    return st;
}
