/* vera.c - VeRA: one pair of frozen random matrices for all targets, and two trained vectors a target (Kopiczko et al. 2024, arXiv
 * 2310.11454, eq. 2).
 *
 *   y = W x + b + lb o (B[:out] (ld o (A[:, :in] drop(x))))      A [r, max in], B [max out, r], ld [r], lb [out]
 *
 * A and B are U(-sqrt(6 / fan_in), sqrt(6 / fan_in)), fan_in the number of columns, drawn as PyTorch does on a CPU from the seed
 * projection_prng_key (Mersenne Twister, Matsumoto and Nishimura 1998; 24 bits a value), A first: the same values as in Hugging
 * Face PEFT, so that files without them (save_projection=false) can be exchanged. ld starts as d_initial, lb as 0.
 *
 * Left out: several adapters that share one pair, trained biases. */
#include "peft/lora.h"

#include <math.h>

enum { VERA_LB = 0, VERA_LD = 1, VERA_A = 2, VERA_B = 3 };

static const peft__option vera_options[] = {
    {"r", PEFT__OPT_INT, "256", 1, 1 << 20, NULL, "rank: rows of A and columns of B"},
    {"vera_dropout", PEFT__OPT_FLOAT, "0.0", 0, 0.999, NULL, "part of the adapter's input that is dropped in training"},
    {"d_initial", PEFT__OPT_FLOAT, "0.1", 1, 0, NULL, "initial value of the vector of r"},
    {"projection_prng_key", PEFT__OPT_INT, "0", 0, 4294967295.0, NULL, "seed of A and B"},
    {"save_projection", PEFT__OPT_BOOL, "true", 1, 0, NULL, "A and B are in the file; else its reader draws them again"},
    PEFT__TARGET_OPTIONS,
    PEFT__LAYER_OPTIONS,
    {"fan_in_fan_out", PEFT__OPT_BOOL, "false", 1, 0, NULL, "set by the library: the base keeps its weights as [in, out]"},
};
static const peft__schema vera_schema = {"method:vera", vera_options, PEFT__COUNT(vera_options)};

/* ---- the generator ------------------------------------------------------------------------------------------- */

enum { VERA_MT = 624, VERA_MT_MID = 397 };

typedef struct vera_mt {
    uint32_t state[VERA_MT];
    int32_t next;
} vera_mt;

static void vera_mt_seed(vera_mt *g, uint32_t seed) {
    g->state[0] = seed;
    for (uint32_t i = 1; i < VERA_MT; i++) {
        g->state[i] = 1812433253U * (g->state[i - 1] ^ (g->state[i - 1] >> 30)) + i;
    }
    g->next = VERA_MT;
}

static uint32_t vera_mt_u32(vera_mt *g) {
    if (g->next == VERA_MT) {
        for (int32_t i = 0; i < VERA_MT; i++) {
            uint32_t y = (g->state[i] & 0x80000000U) | (g->state[(i + 1) % VERA_MT] & 0x7fffffffU);
            g->state[i] = g->state[(i + VERA_MT_MID) % VERA_MT] ^ (y >> 1) ^ ((y & 1U) != 0 ? 0x9908b0dfU : 0);
        }
        g->next = 0;
    }
    uint32_t y = g->state[g->next++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680U;
    y ^= (y << 15) & 0xefc60000U;
    return y ^ (y >> 18);
}

static void vera_draw(const peft__adapter *a, const peft__adapter_param *p) {
    vera_mt g;
    vera_mt_seed(&g, (uint32_t)peft__opt_int(&a->opts, "projection_prng_key"));
    if (p->slot == VERA_B) { /* after A */
        const peft__adapter_param *first = peft__adapter_find(a, "vera_A", NULL);
        for (int64_t e = 0; first != NULL && e < first->p.rows * first->p.cols; e++) { (void)vera_mt_u32(&g); }
    }
    float bound = (float)sqrt(6.0 / (double)p->p.cols), width = bound - -bound;
    for (int64_t e = 0; e < p->p.rows * p->p.cols; e++) {
        float u = (float)(vera_mt_u32(&g) & 0xffffffU) * 0x1p-24F;
        p->p.value[e] = PEFT__R(u * width + -bound);
    }
}

/* ---- building ------------------------------------------------------------------------------------------------ */

static peft_status vera_add_site(peft__adapter *a, const peft__site *s, bool target, bool saved) {
    peft_status st = PEFT_OK;
    peft__attachment *at = NULL;
    if (saved) { return peft__adapter_save_site(a, s); }
    if (!target) { return PEFT_OK; }
    TRY(peft__adapter_attach(a, s, &at));
    at->product = true;
    at->rank = peft__opt_int(&a->opts, "r");
    at->dropout = peft__opt_float(&a->opts, "vera_dropout");
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.vera_lambda_b", s->path), VERA_LB, 1, s->out, 1, false,
                                false));
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.vera_lambda_d", s->path), VERA_LD, 1, at->rank, 1, false,
                                false));
out:
    return st;
}

static peft_status vera_add_shared(peft__adapter *a, const char *key, int32_t slot, int64_t rows, int64_t cols) {
    peft__attachment none = {.site = -1};
    peft_status st = peft__adapter_add_param(a, &none, key, slot, rows, cols, 2, false, true);
    if (st != PEFT_OK) { return st; }
    peft__adapter_param *p = &PEFT__VEC_AT(&a->params, peft__adapter_param, a->params.len - 1);
    p->outer = true;
    p->unsaved = !peft__opt_bool(&a->opts, "save_projection");
    return PEFT_OK;
}

static peft_status vera_build(peft__adapter *a) {
    peft_status st = PEFT_OK;
    int64_t in = 0, out = 0, r = peft__opt_int(&a->opts, "r");
    TRY(peft__adapter_targets(a, 1 << PEFT__SITE_LINEAR, peft__usual_projections(a->base), vera_add_site));
    for (size_t i = 0; i < a->attachments.len; i++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, i);
        if (!at->product) { continue; }
        in = PEFT__MAX(in, a->base->sites[at->site].in);
        out = PEFT__MAX(out, a->base->sites[at->site].out);
    }
    TRY(vera_add_shared(a, "vera_A", VERA_A, r, in));
    TRY(vera_add_shared(a, "vera_B", VERA_B, out, r));
out:
    return st;
}

static void vera_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    peft__real value = p->slot == VERA_LD ? PEFT__R(peft__opt_float(&a->opts, "d_initial")) : 0;
    (void)rng;
    if (p->whole) {
        peft__adapter_init_copy(a, i, k);
    } else if (p->frozen) {
        vera_draw(a, p);
    } else {
        for (int64_t e = 0; e < p->p.cols; e++) { p->p.value[e] = value; }
    }
}

/* ---- acting -------------------------------------------------------------------------------------------------- */

static int32_t vera_shared(const peft__adapter *a, const char *key, peft__tape *t) {
    size_t index = 0;
    return peft__adapter_find(a, key, &index) != NULL ? peft__adapter_tape_copy(a, (int32_t)index, t) : PEFT__NONE;
}

static peft__val vera_after(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val x,
                            peft__val y) {
    if (at->rank == 0) { return y; } /* saved whole */
    peft__val h = peft__op_dropout(t, x, at->dropout, at->key);
    h = peft__op_slice(t, h, vera_shared(a, "vera_A", t), at->rank);
    h = peft__op_scale_columns(t, h, peft__adapter_tape_param(a, at, VERA_LD, t));
    h = peft__op_slice(t, h, vera_shared(a, "vera_B", t), s->out);
    h = peft__op_scale_columns(t, h, peft__adapter_tape_param(a, at, VERA_LB, t));
    if (at->scale != 1) { h = peft__op_scale_all(t, h, at->scale, PEFT__NONE); }
    return peft__op_add(t, y, h);
}

/* weight += (lb o B[:out] o ld) A[:, :in] */
static peft_status vera_merge(const peft__adapter *a, const peft__attachment *at, const peft__site *s, const peft__run *run,
                              peft__real *weight) {
    const peft__param *pa = &peft__adapter_find(a, "vera_A", NULL)->p, *pb = &peft__adapter_find(a, "vera_B", NULL)->p;
    const peft__real *lb = peft__adapter_param_at(a, (size_t)at->first)->p.value;
    const peft__real *ld = peft__adapter_param_at(a, (size_t)at->first + 1)->p.value;
    int64_t r = at->rank;
    size_t bytes = (size_t)(s->out * r) * sizeof(peft__real);
    peft__real *scaled = peft__alloc(a->mem, bytes);
    if (scaled == NULL) { return PEFT_E_NOMEM; }
    for (int64_t o = 0; o < s->out; o++) {
        run->k->mul(scaled + o * r, pb->value + o * r, ld, r);
        run->k->scale(scaled + o * r, lb[o], scaled + o * r, r);
    }
    peft__gemm_args args = {.m = s->out,
                            .n = s->in,
                            .k = r,
                            .a = scaled,
                            .lda = r,
                            .b = peft__real_backward(pa->value, pa->cols),
                            .c = weight,
                            .ldc = s->in,
                            .alpha = PEFT__R(at->scale),
                            .accumulate = true};
    peft__gemm(run, &args);
    peft__free(a->mem, scaled, bytes);
    return PEFT_OK;
}

/* LoRA of rank r: A = ld o A[:, :in], B = lb o B[:out]. */
static void vera_factors(const peft__adapter *a, const peft__attachment *at, const peft__param *to_a, const peft__param *to_b) {
    const peft__param *pa = &peft__adapter_find(a, "vera_A", NULL)->p, *pb = &peft__adapter_find(a, "vera_B", NULL)->p;
    const peft__real *lb = peft__adapter_param_at(a, (size_t)at->first)->p.value;
    const peft__real *ld = peft__adapter_param_at(a, (size_t)at->first + 1)->p.value;
    for (int64_t e = 0; e < to_a->rows * to_a->cols; e++) {
        int64_t r = e / to_a->cols;
        to_a->value[e] = ld[r] * pa->value[r * pa->cols + e % to_a->cols];
    }
    for (int64_t e = 0; e < to_b->rows * to_b->cols; e++) { to_b->value[e] = lb[e / to_b->cols] * pb->value[e]; }
}

static peft_status vera_simplify(const peft__adapter *a, peft__adapter **out) {
    peft_status st = PEFT_OK;
    size_t bytes = a->base->n_sites * sizeof(int64_t);
    int64_t *ranks = peft__alloc_zero(a->mem, bytes);
    if (ranks == NULL) { return PEFT_E_NOMEM; }
    for (size_t i = 0; i < a->attachments.len; i++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, i);
        if (at->rank == 0) {
            FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\": as a LoRA it cannot keep \"%s\", which is saved whole", a->name,
                 a->base->sites[at->site].path);
        }
        ranks[at->site] = at->rank;
    }
    TRY(peft__lora_make(a->mem, a->base, a->name, ranks, 0, &a->opts, out));
    for (size_t i = 0; i < a->attachments.len; i++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, i);
        for (size_t k = 0; k < (*out)->attachments.len; k++) {
            const peft__attachment *to = &PEFT__VEC_AT(&(*out)->attachments, peft__attachment, k);
            if (to->site != at->site) { continue; }
            vera_factors(a, at, peft__lora_param(*out, to, PEFT__LORA_A), peft__lora_param(*out, to, PEFT__LORA_B));
        }
    }
out:
    peft__free(a->mem, ranks, bytes);
    return st;
}

static const char *const vera_keys[] = {"r", "vera_dropout", "d_initial", "projection_prng_key", "save_projection"};

static void vera_config_out(const peft__adapter *a, peft__json_out *j) {
    peft__config_put_targets(&a->opts, j);
    for (size_t i = 0; i < PEFT__COUNT(vera_keys); i++) { peft__config_put(&a->opts, vera_keys[i], j); }
    peft__json_key(j, "bias");
    peft__json_put_text(j, "none");
}

static peft_status vera_config_in(peft__optset *opts, const peft__json *config, const char *what) {
    static const char *const refused[] = {"bias"};
    peft_status st = PEFT_OK;
    TRY(peft__config_refuse(config, what, refused, PEFT__COUNT(refused)));
    TRY(peft__config_get_targets(opts, config, what));
    for (size_t i = 0; i < PEFT__COUNT(vera_keys); i++) { TRY(peft__config_get(opts, config, what, vera_keys[i])); }
out:
    return st;
}

const peft__method peft__method_vera = {
    .name = "vera",
    .hf_type = "VERA",
    .schema = &vera_schema,
    .build = vera_build,
    .init = vera_init,
    .after = vera_after,
    .merge = vera_merge,
    .proportional = true,
    .simplify = vera_simplify,
    .config_out = vera_config_out,
    .config_in = vera_config_in,
    .learning_rate = 4e-3,
};
