/* kernels_bf16_test.c - products in bfloat16 of every table that this CPU runs (with tests/simde the table of pairs as well).
 *
 * The reference rounds both operands by frexp and rint and sums in double: products of two bfloat16 are exact in floats, so only
 * the sums differ, by the tolerance of kernels_gemm_test.c. B in stored types is read through peft__generic_dequant. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/gemm.h"
#include "kernels/generic/generic.h"
#include "runner.h"

enum { BF16_TEST_GUARD = 7777, BF16_TEST_LD = 3 };

static const peft__kernels *bf16_test_table(size_t i, bool *more) {
    const peft__kernels *k = peft__kernels_at(i), *usable = NULL;
    *more = k != NULL;
    return k != NULL && peft__kernels_find(k->name, &usable) == PEFT_OK ? usable : NULL;
}

static double bf16_test_round(double x) {
    int e = 0;
    const double m = frexp(x, &e); /* 0.5 .. 1: eight bits of it stay */
    return ldexp(rint(m * 256), e - 8);
}

static double bf16_test_low(peft__real word) {
    const float v = (float)word;
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    bits <<= 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return (double)f;
}

static double bf16_test_high(peft__real word) {
    const float v = (float)word;
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    bits &= 0xffff0000;
    float f;
    memcpy(&f, &bits, sizeof f);
    return (double)f;
}

static void bf16_test_fill(peft__rng *r, peft__real *v, int64_t n) {
    for (int64_t i = 0; i < n; i++) { v[i] = (peft__real)(2 * peft__rng_uniform(r) - 1); }
}

/* ---- the table's parts ----------------------------------------------------------------------------------------------------- */

TEST(kernels_bf16_rounds_to_nearest_even) {
    static const double ties[][2] = {{1 + 0x1p-8, 1}, {1 + 0x3p-8, 1 + 0x1p-6}, {-1 - 0x1p-8, -1}, {1 + 0x1.8p-8, 1 + 0x1p-7},
                                     {1 - 0x1p-9, 1}, {0, 0}, {3.5, 3.5}, {0x1.ffp127, HUGE_VAL}, {-HUGE_VAL, -HUGE_VAL}};
    enum { N = 77 };
    peft__real x[N + 1], y[N + 1];
    peft__rng r = {.key = 3};
    bool more = true;
    for (size_t i = 0; more; i++) {
        const peft__kernels *k = bf16_test_table(i, &more);
        for (int64_t n = 0; k != NULL && n <= N; n++) {
            bf16_test_fill(&r, x, N + 1);
            x[n] = y[n] = BF16_TEST_GUARD;
            k->round_bf16(y, x, n);
            CHECK_NEAR(y[n], BF16_TEST_GUARD, 0);
            for (int64_t j = 0; j < n; j++) { CHECK_NEAR(y[j], bf16_test_round((double)(float)x[j]), 0); }
            k->round_bf16(x, x, n);
            CHECK_MEM(x, y, (size_t)(n + 1) * sizeof *x);
        }
        for (size_t j = 0; k != NULL && j < PEFT__COUNT(ties); j++) {
            for (int32_t at = 0; at < 19; at++) { x[at] = (peft__real)ties[j][0]; }
            k->round_bf16(y, x, 19);
            CHECK(y[0] == (peft__real)ties[j][1] && y[18] == (peft__real)ties[j][1]);
        }
        if (k == NULL) { continue; }
        uint32_t nan = 0x7fffffff; /* rounding its bits would make a zero of it */
        float f;
        memcpy(&f, &nan, sizeof f);
        for (int32_t at = 0; at < 19; at++) { x[at] = (peft__real)f; }
        k->round_bf16(y, x, 19);
        CHECK(y[0] != y[0] && y[18] != y[18]);
    }
}

TEST(kernels_bf16_words_hold_pairs) {
    enum { N = 71, ROWS = 9, LD = 75 };
    static peft__real x[ROWS * LD], words[ROWS * LD];
    peft__rng r = {.key = 4};
    bool more = true;
    bf16_test_fill(&r, x, ROWS * LD);
    for (size_t i = 0; more; i++) {
        const peft__kernels *k = bf16_test_table(i, &more);
        if (k == NULL) { continue; }
        const bool pairs = strcmp(k->name, "avx512bf16") == 0; /* "blas" has what the table has that it is made from */
        CHECK((k->tile_bf16 != NULL) == pairs || strcmp(k->name, "blas") == 0);
        CHECK((k->pair_row != NULL) == (k->tile_bf16 != NULL) && (k->pair_rows != NULL) == (k->tile_bf16 != NULL));
        for (int64_t n = 1; k->pair_row != NULL && n <= N; n++) {
            words[(n + 1) / 2] = BF16_TEST_GUARD;
            k->pair_row(words, x, n);
            CHECK_NEAR(words[(n + 1) / 2], BF16_TEST_GUARD, 0);
            for (int64_t j = 0; j < n; j++) {
                const double got = j % 2 == 0 ? bf16_test_low(words[j / 2]) : bf16_test_high(words[j / 2]);
                CHECK_NEAR(got, bf16_test_round((double)x[j]), 0);
            }
            if (n % 2 == 1) { CHECK_NEAR(bf16_test_high(words[n / 2]), 0, 0); }
            for (int64_t rows = 1; rows <= ROWS; rows += 1 + n % 2) {
                for (int64_t j = 0; j < ROWS * LD; j++) { words[j] = BF16_TEST_GUARD; }
                k->pair_rows(words, LD, x, LD, rows, n);
                for (int64_t row = 0; row < (rows + 1) / 2; row++) {
                    for (int64_t j = 0; j < n; j++) {
                        const double below = 2 * row + 1 < rows ? (double)x[(2 * row + 1) * LD + j] : 0;
                        CHECK_NEAR(bf16_test_low(words[row * LD + j]), bf16_test_round((double)x[2 * row * LD + j]), 0);
                        CHECK_NEAR(bf16_test_high(words[row * LD + j]), bf16_test_round(below), 0);
                    }
                    CHECK_NEAR(words[row * LD + n], BF16_TEST_GUARD, 0);
                }
            }
        }
    }
}

TEST(kernels_bf16_tile_every_shape) {
    enum { LDC = 70, K = 21, LDA = 40, W = (K + 1) / 2 };
    static peft__real x[PEFT__TILE_ROWS * K], y[K * PEFT__TILE_COLS], a[PEFT__TILE_ROWS * LDA], b[W * PEFT__TILE_COLS],
        c[PEFT__TILE_ROWS * LDC], old[PEFT__TILE_ROWS * LDC];
    peft__rng r = {.key = 5};
    bool more = true;
    bf16_test_fill(&r, x, (int64_t)PEFT__COUNT(x));
    bf16_test_fill(&r, old, (int64_t)PEFT__COUNT(old));
    for (size_t i = 0; more; i++) {
        const peft__kernels *k = bf16_test_table(i, &more);
        if (k == NULL || k->tile_bf16 == NULL) { continue; }
        bf16_test_fill(&r, y, K * k->nr);
        for (int32_t row = 0; row < k->mr; row++) { k->pair_row(a + row * LDA, x + row * K, K); }
        k->pair_rows(b, k->nr, y, k->nr, K, k->nr);
        for (int32_t cols = 1; cols <= k->nr; cols++) {
            for (int32_t rows = 1; rows <= k->mr; rows++) {
                const bool first = (rows + cols) % 2 == 0;
                memcpy(c, old, sizeof c);
                k->tile_bf16(rows, cols, W, a, LDA, 1, b, k->nr, c, LDC, first);
                for (int32_t m = 0; m < rows; m++) {
                    for (int32_t n = 0; n < LDC; n++) {
                        double want = first && n < cols ? 0 : (double)old[m * LDC + n];
                        for (int32_t z = 0; n < cols && z < K; z++) {
                            want += bf16_test_round((double)x[m * K + z]) * bf16_test_round((double)y[z * k->nr + n]);
                        }
                        CHECK_NEAR(c[m * LDC + n], want, n < cols ? 2e-5 : 0);
                    }
                }
            }
        }
    }
}

/* ---- whole products -------------------------------------------------------------------------------------------------------- */

typedef struct bf16_case {
    int64_t m, n, k;
    bool trans;
    int32_t dtype;
    int64_t first;      /* elements before the used ones in a stored row */
    int32_t interleave;
    double alpha;
    bool accumulate, bias;
} bf16_case;

typedef struct bf16_data {
    peft__gemm_args args;
    peft__real *a, *c, *old, *bias;
    size_t c_size;      /* bytes */
    uint8_t *b;
    double *want, *size; /* [m, n]: the sum, and the sum of sizes */
} bf16_data;

/* Stored blocks of moderate size: any bytes but for the exponents. */
static void bf16_test_blocks(peft__rng *r, int32_t dtype, uint8_t *b, int64_t size) {
    const peft__dtype_block block = peft__dtype_block_of(dtype);
    const bool two = dtype == PEFT_DTYPE_Q4_1 || dtype == PEFT_DTYPE_Q4_K;
    for (int64_t i = 0; i < size; i++) { b[i] = (uint8_t)peft__rng_u32(r); }
    for (int64_t i = 0; i < size; i += block.bytes) {
        const int64_t d = dtype == PEFT_DTYPE_Q6_K ? i + 208 : i;
        if (dtype == PEFT_DTYPE_F32) {
            const float f = (float)(2 * peft__rng_uniform(r) - 1);
            memcpy(b + i, &f, sizeof f);
            continue;
        }
        b[d + 1] = (uint8_t)((b[d + 1] & 0x83) | (dtype == PEFT_DTYPE_BF16 ? 0x3c : 0x20));
        if (two) { b[d + 3] = (uint8_t)((b[d + 3] & 0x83) | 0x20); }
    }
}

/* Rounded logical B as [stored rows][across]. */
static double *bf16_test_expand(const bf16_case *t, const bf16_data *d) {
    const int64_t stored = t->trans ? t->n : t->k, across = t->trans ? t->k : t->n, elems = peft__dtype_block_of(t->dtype).elems;
    const int64_t n = (t->first + across + elems - 1) / elems * elems;
    peft__real *row = malloc((size_t)n * sizeof *row);
    double *out = malloc((size_t)(stored * across) * sizeof *out);
    for (int64_t i = 0; i < stored; i++) {
        peft__generic_dequant(t->dtype, peft__gemm_stored_row(&d->args.b, i), n, row);
        for (int64_t j = 0; j < across; j++) { out[i * across + j] = bf16_test_round((double)row[t->first + j]); }
    }
    free(row);
    return out;
}

static void bf16_test_reference(const bf16_case *t, bf16_data *d) {
    double *b = bf16_test_expand(t, d), *a = malloc((size_t)t->k * sizeof *a);
    const peft__gemm_args *g = &d->args;
    for (int64_t i = 0; i < t->m; i++) {
        for (int64_t k = 0; k < t->k; k++) { a[k] = bf16_test_round((double)(float)(g->a[i * g->lda + k] * g->alpha)); }
        for (int64_t j = 0; j < t->n; j++) {
            double sum = 0, size = 0;
            for (int64_t k = 0; k < t->k; k++) {
                const double p = a[k] * (t->trans ? b[j * t->k + k] : b[k * t->n + j]);
                sum += p;
                size += fabs(p);
            }
            const double old = t->accumulate ? (double)d->old[1 + i * g->ldc + j] : 0, bias = t->bias ? (double)d->bias[j] : 0;
            d->want[i * t->n + j] = sum + old + bias;
            d->size[i * t->n + j] = size + fabs(old) + fabs(bias);
        }
    }
    free(a);
    free(b);
}

static void bf16_test_make(const bf16_case *t, bf16_data *d) {
    peft__rng r = {.key = (uint64_t)(t->m * 1000003 + t->n * 1009 + t->k)};
    const peft__dtype_block block = peft__dtype_block_of(t->dtype);
    const int64_t stored = t->trans ? t->n : t->k, across = t->trans ? t->k : t->n, lda = t->k + BF16_TEST_LD, ldc = t->n + BF16_TEST_LD;
    const int64_t row_bytes = (t->first + across + block.elems - 1) / block.elems * block.bytes + block.bytes;
    d->c_size = (size_t)(t->m * ldc + 1) * sizeof *d->c;
    d->a = malloc((size_t)(t->m * lda + 1) * sizeof *d->a);
    d->c = malloc(d->c_size);
    d->old = malloc(d->c_size);
    d->bias = malloc((size_t)t->n * sizeof *d->bias);
    d->b = malloc((size_t)(stored * row_bytes));
    d->want = malloc((size_t)(t->m * t->n) * sizeof *d->want);
    d->size = malloc((size_t)(t->m * t->n) * sizeof *d->size);
    bf16_test_fill(&r, d->a, t->m * lda + 1);
    bf16_test_fill(&r, d->bias, t->n);
    bf16_test_blocks(&r, t->dtype, d->b, stored * row_bytes);
    for (int64_t i = 0; i < t->m * ldc + 1; i++) { d->old[i] = BF16_TEST_GUARD; }
    for (int64_t i = 0; i < t->m; i++) { bf16_test_fill(&r, d->old + 1 + i * ldc, t->n); }
    d->args = (peft__gemm_args){.m = t->m, .n = t->n, .k = t->k, .a = d->a + 1, .lda = lda, .c = d->c + 1, .ldc = ldc,
                                .alpha = (peft__real)t->alpha, .accumulate = t->accumulate, .bias = t->bias ? d->bias : NULL};
    d->args.b = (peft__operand){.data = d->b, .dtype = t->dtype, .row_bytes = row_bytes, .trans = t->trans, .first = t->first,
                                .interleave = t->interleave, .frozen = true};
    bf16_test_reference(t, d);
}

static void bf16_test_drop(bf16_data *d) {
    free(d->a);
    free(d->c);
    free(d->old);
    free(d->bias);
    free(d->b);
    free(d->want);
    free(d->size);
}

static void bf16_test_run(peft__mem *mem, const peft__kernels *k, int32_t workers, bool bf16, const peft__gemm_args *args) {
    peft__run run = {.k = k, .workers = workers, .scratch_size = peft__scratch_size(k, 64, 64)};
    const size_t bytes = run.scratch_size * (size_t)workers + PEFT__ROUNDED_BYTES;
    run.scratch = peft__alloc(mem, bytes);
    memset(run.scratch, 0xff, bytes); /* NaN: what is not written is seen */
    if (bf16) { run.rounded = run.scratch + run.scratch_size * (size_t)workers; }
    if (peft__pool_create(mem, workers, &run.pool) == PEFT_OK) {
        peft__gemm(&run, args);
        peft__pool_free(run.pool);
    }
    peft__free(mem, run.scratch, bytes);
}

static bool bf16_test_right(const bf16_case *t, const bf16_data *d, const char *table) {
    const double eps = 6e-8 * (6 + 3 * sqrt((double)t->k));
    bool ok = d->c[0] == BF16_TEST_GUARD;
    for (int64_t i = 0; ok && i < t->m; i++) {
        const peft__real *row = d->c + 1 + i * d->args.ldc;
        for (int64_t j = t->n; j < d->args.ldc; j++) { ok = ok && row[j] == BF16_TEST_GUARD; }
        for (int64_t j = 0; ok && j < t->n; j++) {
            const double want = d->want[i * t->n + j];
            if (!(fabs((double)row[j] - want) <= eps * d->size[i * t->n + j] + 1e-30)) {
                char text[200];
                snprintf(text, sizeof text, "%s m %d n %d k %d type %d trans %d, C[%d, %d]", table, (int)t->m, (int)t->n, (int)t->k,
                         (int)t->dtype, t->trans, (int)i, (int)j);
                return runner_near(__FILE__, __LINE__, text, (double)row[j], want, 0);
            }
        }
    }
    return runner_true(__FILE__, __LINE__, ok, "nothing is written beside C");
}

/* The case on every table with 1, 2 and 4 workers, which must agree in every bit; and the last rows alone. */
static bool bf16_test_case(peft__mem *mem, const bf16_case *t) {
    bf16_data d;
    bool ok = true, more = true;
    bf16_test_make(t, &d);
    peft__real *one = malloc(d.c_size);
    for (size_t i = 0; ok && more; i++) {
        const peft__kernels *k = bf16_test_table(i, &more);
        for (int32_t workers = 1; ok && k != NULL && workers <= 4; workers *= 2) {
            memcpy(d.c, d.old, d.c_size);
            bf16_test_run(mem, k, workers, true, &d.args);
            ok = workers > 1 ? runner_same(__FILE__, __LINE__, "C of several workers", d.c, one, d.c_size)
                             : bf16_test_right(t, &d, k->name);
            memcpy(one, d.c, d.c_size);
        }
        if (!ok || k == NULL || t->m < 7) { continue; }
        peft__gemm_args tail = d.args; /* four rows and more: one or two may be made in floats */
        tail.m = 4;
        tail.a += (t->m - 4) * tail.lda;
        tail.c += (t->m - 4) * tail.ldc;
        memcpy(d.c, d.old, d.c_size);
        bf16_test_run(mem, k, 1, true, &tail);
        ok = runner_same(__FILE__, __LINE__, "four rows alone", tail.c, one + (tail.c - d.c), (size_t)(4 * tail.ldc) * sizeof *one);
    }
    free(one);
    bf16_test_drop(&d);
    return ok;
}

TEST(kernels_bf16_gemm_awkward_sizes) {
    static const int64_t m[] = {3, 4, 5, 6, 7, 11, 13, 25, 97}, n[] = {1, 3, 8, 15, 17, 31, 63, 64, 65, 130, 300};
    static const int64_t k[] = {1, 2, 3, 7, 8, 9, 31, 32, 65, 257, 512, 513, 641, 1281, 1400};
    static const int32_t types[] = {PEFT_DTYPE_F32, PEFT_DTYPE_BF16, PEFT_DTYPE_F16};
    peft__mem *mem = runner_mem();
    peft__rng r = {.key = 11};
    for (int32_t i = 0; i < (runner_few() ? 60 : 200); i++) {
        bf16_case t = {.alpha = i % 3 == 0 ? 0.3 : 1, .dtype = types[peft__rng_below(&r, 3)]};
        t.m = m[peft__rng_below(&r, PEFT__COUNT(m))];
        t.n = n[peft__rng_below(&r, PEFT__COUNT(n))];
        t.k = k[peft__rng_below(&r, PEFT__COUNT(k))];
        t.trans = peft__rng_below(&r, 2) == 1;
        t.accumulate = peft__rng_below(&r, 2) == 1;
        t.bias = peft__rng_below(&r, 2) == 1;
        t.first = peft__rng_below(&r, 4) == 0 ? 5 : 0;
        CHECK(bf16_test_case(mem, &t));
    }
}

TEST(kernels_bf16_gemm_stored_types) {
    static const int32_t types[] = {PEFT_DTYPE_Q8_0, PEFT_DTYPE_Q4_0, PEFT_DTYPE_Q4_1, PEFT_DTYPE_Q4_K, PEFT_DTYPE_Q6_K, PEFT_DTYPE_BF16};
    peft__mem *mem = runner_mem();
    for (size_t i = 0; i < PEFT__COUNT(types); i++) {
        const int64_t e = PEFT__MAX(peft__dtype_block_of(types[i]).elems, 16);
        const bf16_case forward = {.m = 13, .n = 70, .k = 6 * e, .trans = true, .dtype = types[i], .first = e, .alpha = 1, .bias = true};
        const bf16_case back = {.m = 14, .n = 3 * e, .k = 75, .dtype = types[i], .first = e, .alpha = 0.7, .accumulate = true};
        const bf16_case turned = {.m = 9, .n = 64, .k = 2 * e, .trans = true, .dtype = types[i], .interleave = 16, .alpha = 1};
        const bf16_case turned_back = {.m = 9, .n = 2 * e, .k = 64, .dtype = types[i], .interleave = 16, .alpha = 1};
        CHECK(bf16_test_case(mem, &forward));
        CHECK(bf16_test_case(mem, &back));
        CHECK(bf16_test_case(mem, &turned));
        CHECK(bf16_test_case(mem, &turned_back));
    }
}

/* More of A than its room holds: rounds over K, and over rows; many tasks of columns and of rows. */
TEST(kernels_bf16_gemm_in_rounds) {
    peft__mem *mem = runner_mem();
    const bf16_case deep = {.m = 61, .n = 9, .k = 20011, .dtype = PEFT_DTYPE_F32, .alpha = 1, .bias = true};
    const bf16_case tall = {.m = 1700, .n = 5, .k = 640, .trans = true, .dtype = PEFT_DTYPE_BF16, .alpha = 1, .accumulate = true};
    const bf16_case both = {.m = 1000, .n = 3, .k = 2560, .dtype = PEFT_DTYPE_BF16, .alpha = 0.5};
    const bf16_case wide = {.m = 40, .n = 1500, .k = 320, .trans = true, .dtype = PEFT_DTYPE_Q8_0, .alpha = 1};
    const bf16_case broad = {.m = 130, .n = 1500, .k = 64, .dtype = PEFT_DTYPE_F32, .alpha = 1};
    CHECK(bf16_test_case(mem, &deep));
    CHECK(bf16_test_case(mem, &tall));
    CHECK(bf16_test_case(mem, &both));
    CHECK(bf16_test_case(mem, &wide));
    CHECK(bf16_test_case(mem, &broad));
}

/* What is not a frozen matrix, a stored transposed A, and a run without room keep to reals, bit for bit. */
TEST(kernels_bf16_only_where_it_is_meant) {
    peft__mem *mem = runner_mem();
    bool more = true;
    const bf16_case t = {.m = 12, .n = 12, .k = 12, .trans = true, .dtype = PEFT_DTYPE_F32, .alpha = 1};
    bf16_data d;
    bf16_test_make(&t, &d);
    peft__real *plain = malloc(d.c_size);
    for (size_t i = 0; more; i++) {
        const peft__kernels *k = bf16_test_table(i, &more);
        for (int32_t how = 0; k != NULL && how < 3; how++) {
            peft__gemm_args g = d.args;
            g.b.frozen = how != 1;
            g.a_trans = how == 2;
            memcpy(d.c, d.old, d.c_size);
            bf16_test_run(mem, k, 1, false, &g);
            memcpy(plain, d.c, d.c_size);
            memcpy(d.c, d.old, d.c_size);
            bf16_test_run(mem, k, 1, true, &g);
            CHECK((memcmp(plain, d.c, d.c_size) == 0) == (how != 0));
        }
    }
    free(plain);
    bf16_test_drop(&d);
}

TEST(kernels_bf16_gemm_keeps_nan) {
    peft__mem *mem = runner_mem();
    bool more = true;
    const bf16_case t = {.m = 8, .n = 20, .k = 33, .dtype = PEFT_DTYPE_F32, .alpha = 1};
    bf16_data d;
    bf16_test_make(&t, &d);
    d.a[1 + 2 * d.args.lda + 32] = (peft__real)NAN; /* row 2, last of an odd k */
    for (size_t i = 0; more; i++) {
        const peft__kernels *k = bf16_test_table(i, &more);
        if (k == NULL) { continue; }
        bf16_test_run(mem, k, 2, true, &d.args);
        for (int64_t r = 0; r < t.m; r++) {
            for (int64_t j = 0; j < t.n; j++) { CHECK((d.args.c[r * d.args.ldc + j] != d.args.c[r * d.args.ldc + j]) == (r == 2)); }
        }
    }
    bf16_test_drop(&d);
}
