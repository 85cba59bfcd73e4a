/* Tiled attention against a plain one in double: every table, every option, several rows, any number of threads. */
#include "runner.h"

#include <math.h>

#include "kernels/kernels.h"

enum { MAX_ROWS = 4 };

/* A problem: geometry, and `stride_pad` elements between the rows of every matrix. */
typedef struct problem {
    int64_t heads, kv_heads, dim, n_rows, n[MAX_ROWS], n_past[MAX_ROWS], window, n_visible;
    bool causal, share_past, cross;
    int64_t k_n[MAX_ROWS]; /* with cross: keys of each row */
    double softcap, scale; /* scale 0: 1 / sqrt(dim) */
    int64_t reach, shift;  /* of biases; reach 0: none */
} problem;

/* All arrays, one block of memory. */
typedef struct arrays {
    problem p;
    int64_t tokens, key_tokens, ldq, ldk, buckets, ld_bias;
    float *q, *k, *v, *o, *lse, *delta, *d_o, *dq, *dk, *dv;
    float *table, *d_table, *values, *partial, *bucket; /* of biases; bucket: of int32_t */
    float *past_k[MAX_ROWS], *past_v[MAX_ROWS], *past_dk[MAX_ROWS], *past_dv[MAX_ROWS];
    size_t count;
    float *memory;
} arrays;

static float *take(arrays *a, int64_t n, uint64_t seed, float size) {
    float *at = a->memory ? a->memory + a->count : NULL;
    a->count += (size_t)n;
    if (at && size > 0) {
        peft__rng rng = {seed, 0};
        for (int64_t i = 0; i < n; i++) { at[i] = size * (float)peft__rng_normal(&rng); }
    }
    return at;
}

static void lay_out(arrays *a) {
    const problem *p = &a->p;
    const int64_t t = a->tokens, q = t * a->ldq, k = a->key_tokens * a->ldk;
    a->count = 0;
    a->q = take(a, q, 1, 1);
    a->k = take(a, k, 2, 1);
    a->v = take(a, k, 3, 1);
    a->d_o = take(a, q, 4, 1);
    a->o = take(a, q, 5, 1);
    a->dq = take(a, q, 6, 1);
    a->dk = take(a, k, 7, 1);
    a->dv = take(a, k, 8, 1);
    a->lse = take(a, p->heads * t, 0, 0);
    a->delta = take(a, p->heads * t, 0, 0);
    for (int64_t r = 0; r < p->n_rows; r++) {
        const bool again = p->share_past && r > 0;
        const int64_t n = p->n_past[r] * a->ldk;
        a->past_k[r] = again ? a->past_k[0] : take(a, n, 100 + (uint64_t)r, 1);
        a->past_v[r] = again ? a->past_v[0] : take(a, n, 200 + (uint64_t)r, 1);
        a->past_dk[r] = again ? a->past_dk[0] : take(a, n, 0, 0);
        a->past_dv[r] = again ? a->past_dv[0] : take(a, n, 0, 0);
    }
    a->table = take(a, a->buckets * p->heads, 9, 2);
    a->d_table = take(a, a->buckets * p->heads, 0, 0);
    a->values = take(a, a->ld_bias * p->heads, 0, 0);
    a->partial = take(a, peft__attn_bias_partials(t, p->n_rows, p->heads, a->buckets), 0, 0);
    a->bucket = take(a, a->ld_bias, 0, 0);
}

/* Two distances share a row of the table. */
static int64_t bucket_of(const problem *p, int64_t d) {
    return (PEFT__MAX(PEFT__MIN(d, p->reach), -p->reach) + p->reach) / 2;
}

static void fill_bias(arrays *a, peft__attn_bias *b) {
    const problem *p = &a->p;
    int32_t *bucket = (int32_t *)(void *)a->bucket;
    const int64_t zero = p->reach + PEFT__ATTN_KEYS;
    for (int64_t x = 0; x < a->ld_bias; x++) {
        bucket[x] = (int32_t)bucket_of(p, x - zero);
        for (int64_t h = 0; h < p->heads; h++) { a->values[h * a->ld_bias + x] = a->table[bucket[x] * p->heads + h]; }
    }
    *b = (peft__attn_bias){p->reach, a->ld_bias, a->values, bucket, a->buckets, a->d_table, a->partial};
}

static bool arrays_init(arrays *a, peft__mem *mem, const problem *p) {
    memset(a, 0, sizeof *a);
    a->p = *p;
    for (int64_t r = 0; r < p->n_rows; r++) {
        a->tokens += p->n[r];
        a->key_tokens += p->cross ? p->k_n[r] : p->n[r];
    }
    a->buckets = p->reach > 0 ? p->reach + 1 : 0;
    a->ld_bias = p->reach > 0 ? 2 * (p->reach + PEFT__ATTN_KEYS) + 1 : 0;
    a->ldq = p->heads * p->dim + 3;
    a->ldk = p->kv_heads * p->dim;
    lay_out(a);
    a->memory = (float *)peft__alloc_zero(mem, a->count * sizeof(float));
    if (!a->memory) { return false; }
    lay_out(a);
    return true;
}

static double scale_of(const problem *p) {
    return p->scale > 0 ? p->scale : (double)(1 / sqrtf((float)p->dim));
}

static void arrays_free(arrays *a, peft__mem *mem) {
    peft__free(mem, a->memory, a->count * sizeof(float));
}

/* Runs forward and backward over rows [from, to). */
static peft_status compute(arrays *a, peft__mem *mem, const peft__kernels *k, int32_t threads, int64_t from,
                           int64_t to) {
    const problem *p = &a->p;
    peft__attn_row rows[MAX_ROWS];
    peft__attn_bias bias;
    int64_t first = 0, k_first = 0;
    for (int64_t r = 0; r < p->n_rows; r++) {
        rows[r] = (peft__attn_row){first,  p->n[r],      a->past_k[r], a->past_v[r], a->past_dk[r], a->past_dv[r],
                                   a->ldk, p->n_past[r], p->n_visible, k_first,      p->k_n[r],     p->shift};
        first += p->n[r];
        k_first += p->k_n[r];
    }
    if (p->reach > 0) { fill_bias(a, &bias); }
    peft__attn_args args = {.heads = p->heads,
                            .kv_heads = p->kv_heads,
                            .head_dim = p->dim,
                            .scale = (float)scale_of(p),
                            .causal = p->causal,
                            .cross = p->cross,
                            .bias = p->reach > 0 ? &bias : NULL,
                            .window = p->window,
                            .softcap = (float)p->softcap,
                            .rows = rows + from,
                            .n_rows = to - from,
                            .n_tokens = a->tokens,
                            .q = a->q,
                            .k = a->k,
                            .v = a->v,
                            .ldq = a->ldq,
                            .ldk = a->ldk,
                            .ldv = a->ldk,
                            .o = a->o,
                            .ldo = a->ldq,
                            .lse = a->lse,
                            .d_o = a->d_o,
                            .delta = a->delta,
                            .dq = a->dq,
                            .dk = a->dk,
                            .dv = a->dv};
    peft_status st = PEFT_OK;
    peft__run run = {.k = k, .workers = threads, .scratch_size = peft__scratch_size(k, p->dim, 1000)};
    const size_t size = run.scratch_size * (size_t)threads;
    TRY(peft__pool_create(mem, threads, &run.pool));
    run.scratch = (uint8_t *)peft__alloc(mem, size);
    if (!run.scratch) { FAIL(PEFT_E_NOMEM, "no scratch"); }
    memset(run.scratch, 0xff, size); /* NaN wherever something undefined is used */
    peft__attn_forward(&run, &args);
    peft__attn_backward(&run, &args);
out:
    peft__free(mem, run.scratch, size);
    if (run.pool) { peft__pool_free(run.pool); }
    return st;
}

/* ---- the plain reference ------------------------------------------------------------------------------------------------ */

typedef struct plain { /* double twins of o, lse, dq, dk, dv, d_table and the past gradients */
    double *o, *lse, *dq, *dk, *dv, *d_table, *past_dk[MAX_ROWS], *past_dv[MAX_ROWS];
    double *memory;
    size_t bytes;
} plain;

static bool plain_init(plain *x, peft__mem *mem, const arrays *a) {
    const size_t q = (size_t)(a->tokens * a->ldq), k = (size_t)(a->key_tokens * a->ldk),
                 l = (size_t)(a->tokens * a->p.heads), table = (size_t)(a->buckets * a->p.heads);
    size_t past = 0;
    for (int64_t r = 0; r < a->p.n_rows; r++) { past += (size_t)(a->p.n_past[r] * a->ldk); }
    x->bytes = (2 * q + 2 * k + l + table + 2 * past) * sizeof(double);
    x->memory = (double *)peft__alloc_zero(mem, x->bytes);
    if (!x->memory) { return false; }
    x->o = x->memory;
    x->dq = x->o + q;
    x->dk = x->dq + q;
    x->dv = x->dk + k;
    x->lse = x->dv + k;
    x->d_table = x->lse + l;
    double *at = x->d_table + table;
    for (int64_t r = 0; r < a->p.n_rows; r++) {
        const size_t n = (size_t)(a->p.n_past[r] * a->ldk);
        const bool again = a->p.share_past && r > 0;
        x->past_dk[r] = again ? x->past_dk[0] : at;
        x->past_dv[r] = again ? x->past_dv[0] : at + n;
        at += 2 * n;
    }
    return true;
}

static bool sees(const problem *p, int64_t past, int64_t query, int64_t key) {
    const int64_t at = past + query;
    if (p->cross || p->window <= 0 || (key < past && key < p->n_visible)) { return !p->causal || key <= at; }
    return p->causal ? key <= at && key > at - p->window : key >= at - p->window && key <= at + p->window;
}

/* One query of one head. first, own: of the row's queries and of its keys in their arrays. */
static void plain_query(plain *x, const arrays *a, int64_t r, int64_t first, int64_t own_first, int64_t h, int64_t i) {
    const problem *p = &a->p;
    const int64_t past = p->n_past[r], keys = past + (p->cross ? p->k_n[r] : p->n[r]), g = h / (p->heads / p->kv_heads);
    const int64_t row = (first + i) * a->ldq + h * p->dim, col = g * p->dim;
    static double prob[2048], slope[2048];
    double top = -HUGE_VAL, sum = 0, delta = 0;
    for (int64_t j = 0; j < keys; j++) {
        const float *k = j < past ? a->past_k[r] + j * a->ldk + col : a->k + (own_first + j - past) * a->ldk + col;
        double s = 0;
        for (int64_t d = 0; d < p->dim; d++) { s += (double)a->q[row + d] * (double)k[d]; }
        s *= scale_of(p);
        slope[j] = 1;
        if (p->reach > 0) { s += (double)a->table[bucket_of(p, j - past - i + p->shift) * p->heads + h]; }
        if (p->softcap > 0) {
            const double t = tanh(s / p->softcap);
            s = p->softcap * t;
            slope[j] = 1 - t * t;
        }
        prob[j] = sees(p, past, i, j) ? s : -HUGE_VAL;
        top = fmax(top, prob[j]);
    }
    for (int64_t j = 0; j < keys; j++) {
        prob[j] = exp(prob[j] - top);
        sum += prob[j];
    }
    x->lse[h * a->tokens + first + i] = top + log(sum);
    for (int64_t j = 0; j < keys; j++) {
        const float *v = j < past ? a->past_v[r] + j * a->ldk + col : a->v + (own_first + j - past) * a->ldk + col;
        prob[j] /= sum;
        for (int64_t d = 0; d < p->dim; d++) { x->o[row + d] += prob[j] * (double)v[d]; }
    }
    for (int64_t d = 0; d < p->dim; d++) { delta += x->o[row + d] * (double)a->d_o[row + d]; }
    for (int64_t j = 0; j < keys; j++) {
        const bool own = j >= past;
        const int64_t at = (own ? own_first + j - past : j) * a->ldk + col;
        const float *k = (own ? a->k : a->past_k[r]) + at, *v = (own ? a->v : a->past_v[r]) + at;
        double *dk = (own ? x->dk : x->past_dk[r]) + at, *dv = (own ? x->dv : x->past_dv[r]) + at, dp = 0;
        for (int64_t d = 0; d < p->dim; d++) {
            dp += (double)a->d_o[row + d] * (double)v[d];
            dv[d] += prob[j] * (double)a->d_o[row + d];
        }
        const double raw = prob[j] * (dp - delta) * slope[j], ds = raw * scale_of(p);
        if (p->reach > 0) { x->d_table[bucket_of(p, j - past - i + p->shift) * p->heads + h] += raw; }
        for (int64_t d = 0; d < p->dim; d++) {
            x->dq[row + d] += ds * (double)k[d];
            dk[d] += ds * (double)a->q[row + d];
        }
    }
}

static void plain_compute(plain *x, const arrays *a) {
    int64_t first = 0, own = 0;
    for (int64_t r = 0; r < a->p.n_rows; r++) {
        for (int64_t h = 0; h < a->p.heads; h++) {
            for (int64_t i = 0; i < a->p.n[r]; i++) { plain_query(x, a, r, first, own, h, i); }
        }
        first += a->p.n[r];
        own += a->p.cross ? a->p.k_n[r] : a->p.n[r];
    }
}

/* Largest difference over the first `cols` of each row, over the largest value or 1: some gradients are 0 in theory. */
static double off(const float *got, const double *want, int64_t rows, int64_t cols, int64_t ld) {
    double most = 1, diff = 0;
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < cols; j++) {
            const double e = fabs((double)got[i * ld + j] - want[i * ld + j]);
            most = fmax(most, fabs(want[i * ld + j]));
            diff = e <= diff ? diff : e; /* a NaN stays */
        }
    }
    return diff / most;
}

static void check_problem(const problem *p, const peft__kernels *k) {
    peft__mem *mem = runner_mem();
    arrays a;
    plain x = {0};
    const double tol = 3e-6;
    CHECK(arrays_init(&a, mem, p));
    CHECK(plain_init(&x, mem, &a));
    plain_compute(&x, &a);
    CHECK_OK(compute(&a, mem, k, 2, 0, p->n_rows));
    const int64_t q = p->heads * p->dim;
    CHECK_NEAR(off(a.o, x.o, a.tokens, q, a.ldq), 0, tol);
    CHECK_NEAR(off(a.lse, x.lse, p->heads, a.tokens, a.tokens), 0, tol);
    CHECK_NEAR(off(a.dq, x.dq, a.tokens, q, a.ldq), 0, tol);
    CHECK_NEAR(off(a.dk, x.dk, a.key_tokens, a.ldk, a.ldk), 0, tol);
    CHECK_NEAR(off(a.dv, x.dv, a.key_tokens, a.ldk, a.ldk), 0, tol);
    /* sums of as many terms as there are pairs, which cancel */
    CHECK_NEAR(off(a.d_table, x.d_table, a.buckets, p->heads, p->heads), 0, 5 * tol);
    for (int64_t r = 0; r < p->n_rows; r++) {
        CHECK_NEAR(off(a.past_dk[r], x.past_dk[r], p->n_past[r], a.ldk, a.ldk), 0, tol);
        CHECK_NEAR(off(a.past_dv[r], x.past_dv[r], p->n_past[r], a.ldk, a.ldk), 0, tol);
    }
    arrays_free(&a, mem);
    peft__free(mem, x.memory, x.bytes);
}

static bool can_run(const peft__kernels *k) {
    return (k->needs & ~peft__cpu_features()) == 0;
}

static void check_everywhere(const problem *p) {
    const peft__kernels *k;
    for (size_t i = 0; (k = peft__kernels_at(i)) != NULL; i++) {
        if (can_run(k)) { check_problem(p, k); }
    }
}

TEST(kernels_attention_causal_grouped) {
    const int64_t dims[] = {8, 64, 80, 128, 5};
    for (size_t i = 0; i < PEFT__COUNT(dims); i++) {
        check_everywhere(
            &(problem){.heads = 6, .kv_heads = 2, .dim = dims[i], .n_rows = 3, .n = {130, 1, 67}, .causal = true});
    }
}

TEST(kernels_attention_lengths) {
    const int64_t n[] = {1, 2, 3, 4, 5, 63, 64, 65, 128, 129, 257, 300};
    for (size_t i = 0; i < PEFT__COUNT(n); i++) {
        check_everywhere(&(problem){.heads = 2, .kv_heads = 2, .dim = 16, .n_rows = 1, .n = {n[i]}, .causal = true});
        check_everywhere(&(problem){.heads = 2, .kv_heads = 1, .dim = 24, .n_rows = 1, .n = {n[i]}});
    }
}

TEST(kernels_attention_many_heads_of_one_kv_head) {
    check_everywhere(&(problem){.heads = 37, .kv_heads = 1, .dim = 8, .n_rows = 2, .n = {70, 2}, .causal = true});
}

TEST(kernels_attention_past) {
    check_everywhere(&(problem){.heads = 4,
                                .kv_heads = 2,
                                .dim = 16,
                                .n_rows = 4,
                                .n = {20, 1, 130, 3},
                                .n_past = {0, 300, 7, 513},
                                .causal = true});
    check_everywhere(&(problem){.heads = 3, .kv_heads = 1, .dim = 64, .n_rows = 2, .n = {40, 90}, .n_past = {200, 9}});
}

TEST(kernels_attention_shared_prefix) {
    check_everywhere(&(problem){.heads = 4,
                                .kv_heads = 2,
                                .dim = 16,
                                .n_rows = 4,
                                .n = {20, 1, 130, 3},
                                .n_past = {150, 150, 150, 150},
                                .causal = true,
                                .share_past = true});
}

TEST(kernels_attention_window) {
    const int64_t windows[] = {1, 2, 17, 64, 200}, visible[] = {1000, 5, 260};
    for (size_t i = 0; i < PEFT__COUNT(windows); i += runner_few() ? 3 : 1) {
        problem p = {.heads = 2,
                     .kv_heads = 1,
                     .dim = 16,
                     .n_rows = 3,
                     .n = {400, 50, 1},
                     .n_past = {0, 30, 290},
                     .window = windows[i],
                     .causal = true};
        check_everywhere(&p);
        for (size_t j = 0; j < PEFT__COUNT(visible); j++) {
            p.n_visible = visible[j];
            p.causal = true;
            check_everywhere(&p);
            p.causal = false;
            check_everywhere(&p);
        }
    }
}

/* A query sees keys at most `window` away, and those of a prefix that no window hides. */
TEST(kernels_attention_window_both_ways) {
    const int64_t windows[] = {1, 2, 17, 64, 200};
    for (size_t i = 0; i < PEFT__COUNT(windows); i++) {
        problem p = {.heads = 4, .kv_heads = 2, .dim = 16, .n_rows = 4, .n = {230, 50, 1, 3}, .window = windows[i]};
        check_everywhere(&p);
        p.n_past[1] = 30;
        p.n_past[2] = 290;
        check_everywhere(&p);
    }
}

TEST(kernels_attention_cross) {
    problem p = {.heads = 6,
                 .kv_heads = 2,
                 .dim = 16,
                 .n_rows = 4,
                 .n = {130, 1, 67, 5},
                 .cross = true,
                 .k_n = {9, 300, 1, 513}};
    check_everywhere(&p);
    for (int64_t r = 0; r < 4; r++) { p.n_past[r] = 20 * r; }
    check_everywhere(&p);
    p = (problem){.heads = 2, .kv_heads = 2, .dim = 24, .n_rows = 2, .n = {3, 70}, .cross = true, .k_n = {600, 1}};
    check_everywhere(&p);
    p.k_n[0] = 0; /* all keys are past: a cache */
    p.n_past[0] = p.n_past[1] = 40;
    p.share_past = true;
    check_everywhere(&p);
}

TEST(kernels_attention_bias) {
    const int64_t reach[] = {1, 12, 400};
    for (size_t i = 0; i < PEFT__COUNT(reach); i++) {
        problem p = {.heads = 4, .kv_heads = 4, .dim = 8, .n_rows = 4, .n = {140, 1, 67, 3}, .reach = reach[i], .scale = 0.3};
        check_everywhere(&p);
        p.causal = true;
        check_everywhere(&p);
        for (int64_t r = 0; r < 4; r++) { p.n_past[r] = 100 * r; }
        check_everywhere(&p);
        p.shift = 30;
        p.kv_heads = 2;
        check_everywhere(&p);
        p.window = 90;
        check_everywhere(&p);
        p.causal = false;
        check_everywhere(&p);
    }
}

TEST(kernels_attention_bias_over_a_shared_prefix) {
    check_everywhere(&(problem){.heads = 4,
                                .kv_heads = 2,
                                .dim = 16,
                                .n_rows = 4,
                                .n = {20, 1, 130, 3},
                                .n_past = {150, 150, 150, 150},
                                .share_past = true,
                                .reach = 100});
}

TEST(kernels_attention_softcap) {
    check_everywhere(&(problem){.heads = 4,
                                .kv_heads = 2,
                                .dim = 32,
                                .n_rows = 3,
                                .n = {150, 1, 9},
                                .n_past = {0, 20, 3},
                                .causal = true,
                                .softcap = 1.5});
}

static void check_bits(const problem *p) {
    const peft__kernels *k;
    for (size_t i = 0; (k = peft__kernels_at(i)) != NULL; i++) {
        if (!can_run(k)) { continue; }
        peft__mem *mem = runner_mem();
        arrays one, many;
        CHECK(arrays_init(&one, mem, p));
        CHECK_OK(compute(&one, mem, k, 1, 0, p->n_rows));
        const size_t bytes = (size_t)(one.partial - one.memory) * sizeof(float); /* what is before the room for sums */
        for (int32_t threads = 2; threads <= 4; threads += 2) {
            CHECK(arrays_init(&many, mem, p));
            CHECK_OK(compute(&many, mem, k, threads, 0, p->n_rows));
            CHECK_MEM(many.memory, one.memory, bytes);
            arrays_free(&many, mem);
        }
        CHECK(arrays_init(&many, mem, p)); /* each row alone */
        for (int64_t r = 0; r < p->n_rows; r++) { CHECK_OK(compute(&many, mem, k, 2, r, r + 1)); }
        CHECK_MEM(many.memory, one.memory, bytes);
        arrays_free(&many, mem);
        arrays_free(&one, mem);
    }
}

TEST(kernels_attention_same_bits_with_any_threads) {
    problem p = {.heads = 6,
                 .kv_heads = 2,
                 .dim = 16,
                 .n_rows = 4,
                 .n = {200, 1, 333, 64},
                 .n_past = {0, 100, 5, 0},
                 .causal = true};
    check_bits(&p);
    if (runner_few()) { return; }
    p.reach = 50;
    check_bits(&p);
    p.causal = false;
    p.window = 40;
    check_bits(&p);
    p = (problem){.heads = 6, .kv_heads = 2, .dim = 16, .n_rows = 3, .n = {200, 1, 333}, .cross = true, .k_n = {90, 310, 400}};
    check_bits(&p);
}
