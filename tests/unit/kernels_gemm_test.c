/* kernels_gemm_test.c - tiles, packing and whole products of every table that this CPU runs, against sums in double.
 *
 * A sum of k products in floats may be off by some eps * sqrt(k) of the sum of their sizes; the tolerance is that, so a
 * wrong index cannot hide. B in stored types is read through peft__generic_dequant, which kernels_dequant_test.c checks. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/blas.h"
#include "kernels/gemm.h"
#include "kernels/generic/generic.h"
#include "kernels/scratch.h"
#include "runner.h"

#ifdef PEFT_DOUBLE
#define GEMM_TEST_EPS 1.2e-16
#else
#define GEMM_TEST_EPS 6.0e-8
#endif

enum { GEMM_TEST_GUARD = 7777, GEMM_TEST_LD = 3 };

static double gemm_test_tolerance(int64_t k, double size) {
    return GEMM_TEST_EPS * (6 + 3 * sqrt((double)k)) * size + 1e-30;
}

/* The i-th table if this CPU runs it; NULL with *more false at the end of the list. */
static const peft__kernels *gemm_test_table(size_t i, bool *more) {
    const peft__kernels *k = peft__kernels_at(i), *usable = NULL;
    *more = k != NULL;
    return k != NULL && peft__kernels_find(k->name, &usable) == PEFT_OK ? usable : NULL;
}

static void gemm_test_fill(peft__rng *r, peft__real *v, int64_t n) {
    for (int64_t i = 0; i < n; i++) { v[i] = (peft__real)(2 * peft__rng_uniform(r) - 1); }
}

/* ---- cases ----------------------------------------------------------------------------------------------------------- */

typedef struct gemm_case {
    int64_t m, n, k;
    bool a_trans, trans;
    int32_t dtype;
    int64_t first; /* elements before the used ones in a stored row */
    int32_t interleave;
    double alpha;
    bool accumulate, bias;
} gemm_case;

/* Operands of one case. Sizes are in elements; everything starts one element off its alignment. */
typedef struct gemm_data {
    peft__gemm_args args;
    peft__real *a, *c, *bias, *old; /* old: C before the call */
    int64_t a_size, c_size;
    uint8_t *b;
    size_t b_size;
    double *want, *size; /* [m, n]: the sum, and the sum of sizes */
} gemm_data;

/* Random blocks whose halves are of moderate size. */
static void gemm_test_blocks(peft__rng *r, int32_t dtype, uint8_t *b, size_t size) {
    const peft__dtype_block block = peft__dtype_block_of(dtype);
    if (dtype == PEFT__DTYPE_REAL || dtype == PEFT_DTYPE_F32) {
        for (size_t i = 0; i < size; i += (size_t)block.bytes) {
            const double v = 2 * peft__rng_uniform(r) - 1;
            const float f = (float)v;
            memcpy(b + i, block.bytes == 4 ? (const void *)&f : (const void *)&v, (size_t)block.bytes);
        }
        return;
    }
    for (size_t i = 0; i < size; i++) { b[i] = (uint8_t)peft__rng_u32(r); }
    for (size_t i = 0; i < size; i += (size_t)block.bytes) {
        const size_t d =
            dtype == PEFT_DTYPE_Q6_K ? i + 208 : i; /* where the halves are; the high byte has the exponent */
        const bool two = dtype == PEFT_DTYPE_Q4_1 || dtype == PEFT_DTYPE_Q5_1 || dtype == PEFT_DTYPE_Q4_K ||
                         dtype == PEFT_DTYPE_Q5_K;
        const uint8_t exponent = dtype == PEFT_DTYPE_BF16 ? 0x3c : 0x20;
        b[d + 1] = (uint8_t)((b[d + 1] & 0x83) | exponent);
        if (two) { b[d + 3] = (uint8_t)((b[d + 3] & 0x83) | exponent); }
    }
}

/* Logical element rows of B as doubles: [stored rows][across]. */
static void gemm_test_expand(const gemm_case *t, const gemm_data *d, int64_t stored, int64_t across, double *out) {
    const peft__dtype_block block = peft__dtype_block_of(t->dtype);
    const int64_t n = (t->first + across + block.elems - 1) / block.elems * block.elems;
    peft__real *row = malloc((size_t)(n + 1) * sizeof *row);
    for (int64_t i = 0; i < stored; i++) {
        int64_t at = i;
        if (t->interleave > 0) {
            const int64_t half = t->interleave / 2, h = i / t->interleave, j = i % t->interleave / half, in = i % half;
            at = h * t->interleave + 2 * in + j;
        }
        const uint8_t *src = (const uint8_t *)d->args.b.data + at * d->args.b.row_bytes;
        if (t->dtype == PEFT__DTYPE_REAL) {
            memcpy(row, src, (size_t)n * sizeof *row);
        } else {
            peft__generic_dequant(t->dtype, src, n, row);
        }
        for (int64_t j = 0; j < across; j++) { out[i * across + j] = (double)row[t->first + j]; }
    }
    free(row);
}

static void gemm_test_reference(const gemm_case *t, gemm_data *d) {
    const int64_t stored = t->trans ? t->n : t->k, across = t->trans ? t->k : t->n;
    double *b = malloc((size_t)(stored * across + 1) * sizeof *b);
    gemm_test_expand(t, d, stored, across, b);
    for (int64_t i = 0; i < t->m; i++) {
        for (int64_t j = 0; j < t->n; j++) {
            double sum = 0, size = 0;
            for (int64_t k = 0; k < t->k; k++) {
                const double x = (double)d->args.a[t->a_trans ? k * d->args.lda + i : i * d->args.lda + k];
                const double y = t->trans ? b[j * across + k] : b[k * across + j];
                sum += x * y;
                size += fabs(x * y);
            }
            const double old = t->accumulate ? (double)d->old[i * d->args.ldc + j] : 0;
            const double bias = t->bias ? (double)d->args.bias[j] : 0;
            d->want[i * t->n + j] = t->alpha * sum + old + bias;
            d->size[i * t->n + j] = fabs(t->alpha) * size + fabs(old) + fabs(bias);
        }
    }
    free(b);
}

static void gemm_test_make(const gemm_case *t, gemm_data *d) {
    peft__rng r = {.key = (uint64_t)(t->m * 1000003 + t->n * 1009 + t->k), .pos = 0};
    const peft__dtype_block block = peft__dtype_block_of(t->dtype);
    const int64_t stored = t->trans ? t->n : t->k, across = t->trans ? t->k : t->n;
    const int64_t row_bytes = (t->first + across + block.elems - 1) / block.elems * block.bytes + block.bytes;
    const int64_t lda = (t->a_trans ? t->m : t->k) + GEMM_TEST_LD, ldc = t->n + GEMM_TEST_LD;
    memset(d, 0, sizeof *d);
    d->a_size = (t->a_trans ? t->k : t->m) * lda + 1;
    d->c_size = t->m * ldc + 1;
    d->b_size = (size_t)(stored * row_bytes);
    d->a = malloc((size_t)d->a_size * sizeof *d->a);
    d->c = malloc((size_t)d->c_size * sizeof *d->c);
    d->old = malloc((size_t)d->c_size * sizeof *d->old);
    d->bias = malloc((size_t)(t->n + 1) * sizeof *d->bias);
    d->b = malloc(d->b_size + 1);
    d->want = malloc((size_t)(t->m * t->n + 1) * sizeof *d->want);
    d->size = malloc((size_t)(t->m * t->n + 1) * sizeof *d->size);
    gemm_test_fill(&r, d->a, d->a_size);
    gemm_test_fill(&r, d->bias, t->n + 1);
    gemm_test_blocks(&r, t->dtype, d->b, d->b_size);
    for (int64_t i = 0; i < d->c_size; i++) { d->old[i] = (peft__real)GEMM_TEST_GUARD; }
    for (int64_t i = 0; i < t->m; i++) { gemm_test_fill(&r, d->old + 1 + i * ldc, t->n); }
    d->args = (peft__gemm_args){.m = t->m,
                                .n = t->n,
                                .k = t->k,
                                .a = d->a + 1,
                                .lda = lda,
                                .a_trans = t->a_trans,
                                .c = d->c + 1,
                                .ldc = ldc,
                                .alpha = (peft__real)t->alpha,
                                .accumulate = t->accumulate,
                                .bias = t->bias ? d->bias + 1 : NULL};
    d->args.b = (peft__operand){.data = d->b,
                                .dtype = t->dtype,
                                .row_bytes = row_bytes,
                                .trans = t->trans,
                                .interleave = t->interleave,
                                .first = t->first};
    peft__real *old = d->old;
    d->old = old + 1;
    gemm_test_reference(t, d);
    d->old = old;
}

static void gemm_test_drop(gemm_data *d) {
    free(d->a);
    free(d->c);
    free(d->old);
    free(d->bias);
    free(d->b);
    free(d->want);
    free(d->size);
}

/* ---- running them ------------------------------------------------------------------------------------------------------ */

static void gemm_test_run(peft__mem *mem, const peft__kernels *k, int32_t workers, const peft__gemm_args *args) {
    peft__run run = {.k = k, .workers = workers, .scratch_size = peft__gemm_scratch(k)};
    run.scratch = peft__alloc(mem, run.scratch_size * (size_t)workers);
    if (peft__pool_create(mem, workers, &run.pool) == PEFT_OK) {
        memset(run.scratch, 0xff, run.scratch_size * (size_t)workers); /* NaN: what is not written is seen */
        peft__gemm(&run, args);
        peft__pool_free(run.pool);
    }
    peft__free(mem, run.scratch, run.scratch_size * (size_t)workers);
}

/* Says whether C is what it should be, bit for bit where it should not have been touched. */
static bool gemm_test_right(const gemm_case *t, const gemm_data *d, const char *table) {
    if (d->c[0] != (peft__real)GEMM_TEST_GUARD) { return runner_true(__FILE__, __LINE__, false, "guard before C"); }
    for (int64_t i = 0; i < t->m; i++) {
        const peft__real *row = d->c + 1 + i * d->args.ldc;
        for (int64_t j = 0; j < d->args.ldc; j++) {
            if (j >= t->n) {
                if (row[j] != (peft__real)GEMM_TEST_GUARD) {
                    return runner_true(__FILE__, __LINE__, false, "guard after a row");
                }
                continue;
            }
            const double want = d->want[i * t->n + j], off = fabs((double)row[j] - want);
            if (!(off <= gemm_test_tolerance(t->k, d->size[i * t->n + j]))) {
                char text[256];
                snprintf(text, sizeof text, "%s m %d n %d k %d type %d at %d trans %d, C[%d, %d]", table, (int)t->m,
                         (int)t->n, (int)t->k, (int)t->dtype, t->a_trans, t->trans, (int)i, (int)j);
                return runner_near(__FILE__, __LINE__, text, (double)row[j], want, 0);
            }
        }
    }
    return true;
}

/* The case on every table, with 1, 2 and 4 workers, which must agree in every bit. */
static bool gemm_test_case(peft__mem *mem, const gemm_case *t) {
    gemm_data d;
    bool ok = true, more = true;
    gemm_test_make(t, &d);
    peft__real *one = malloc((size_t)d.c_size * sizeof *one);
    for (size_t i = 0; ok && more; i++) {
        const peft__kernels *k = gemm_test_table(i, &more);
        for (int32_t workers = 1; ok && k != NULL && workers <= 4; workers *= 2) {
            memcpy(d.c, d.old, (size_t)d.c_size * sizeof *d.c);
            gemm_test_run(mem, k, workers, &d.args);
            if (workers == 1) {
                memcpy(one, d.c, (size_t)d.c_size * sizeof *one);
                ok = gemm_test_right(t, &d, k->name);
            } else {
                ok = runner_same(__FILE__, __LINE__, "C of several workers", d.c, one, (size_t)d.c_size * sizeof *one);
            }
        }
    }
    free(one);
    gemm_test_drop(&d);
    return ok;
}

static int64_t gemm_test_pick(peft__rng *r, const int64_t *from, size_t n) {
    return from[peft__rng_below(r, n)];
}

static const int64_t gemm_test_m[] = {0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 13, 17, 24, 25, 49, 97, 150};
static const int64_t gemm_test_n[] = {0, 1, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 31, 33, 48, 63, 64, 65, 130, 300};
static const int64_t gemm_test_k[] = {0, 1, 2, 3, 7, 8, 9, 16, 31, 32, 65, 96, 257, 288, 512, 513, 700, 1100};

TEST(kernels_gemm_awkward_sizes) {
    peft__mem *mem = runner_mem();
    peft__rng r = {.key = 11};
    for (int32_t i = 0; i < 400; i++) {
        gemm_case t = {.dtype = i % 5 == 4 ? PEFT_DTYPE_F32 : PEFT__DTYPE_REAL, .alpha = i % 3 == 0 ? 0.25 : 1};
        t.m = gemm_test_pick(&r, gemm_test_m, PEFT__COUNT(gemm_test_m));
        t.n = gemm_test_pick(&r, gemm_test_n, PEFT__COUNT(gemm_test_n));
        t.k = gemm_test_pick(&r, gemm_test_k, PEFT__COUNT(gemm_test_k));
        t.a_trans = peft__rng_below(&r, 2) == 1;
        t.trans = peft__rng_below(&r, 2) == 1;
        t.accumulate = peft__rng_below(&r, 2) == 1;
        t.bias = peft__rng_below(&r, 2) == 1;
        t.first = peft__rng_below(&r, 4) == 0 ? 5 : 0;
        CHECK(gemm_test_case(mem, &t));
    }
}

TEST(kernels_gemm_stored_types) {
    static const int32_t types[] = {PEFT_DTYPE_F32,  PEFT_DTYPE_F16,  PEFT_DTYPE_BF16, PEFT_DTYPE_Q8_0,
                                    PEFT_DTYPE_Q4_0, PEFT_DTYPE_Q4_1, PEFT_DTYPE_Q5_0, PEFT_DTYPE_Q5_1,
                                    PEFT_DTYPE_Q4_K, PEFT_DTYPE_Q5_K, PEFT_DTYPE_Q6_K};
    peft__mem *mem = runner_mem();
    for (size_t i = 0; i < PEFT__COUNT(types); i++) {
        const int64_t e = peft__dtype_block_of(types[i]).elems, unit = PEFT__MAX(e, 3);
        const gemm_case forward = {.m = 13, .n = 37, .k = 3 * unit, .trans = true, .dtype = types[i], .alpha = 1};
        const gemm_case long_k = {
            .m = 7, .n = 19, .k = e == 1 ? 1031 : 1280, .trans = true, .dtype = types[i], .alpha = 1};
        const gemm_case back = {.m = 14, .n = 5 * unit, .k = 41, .dtype = types[i], .alpha = 0.5, .accumulate = true};
        const gemm_case range = {.m = 3, .n = 2 * unit, .k = 550, .dtype = types[i], .first = 2 * unit, .alpha = 1};
        const gemm_case part = {
            .m = 3, .n = e + 1, .k = 9, .dtype = types[i], .alpha = 1, .bias = true}; /* half a block */
        const gemm_case turned = {.m = 21,
                                  .n = 24,
                                  .k = 2 * unit,
                                  .a_trans = true,
                                  .trans = true,
                                  .dtype = types[i],
                                  .first = unit,
                                  .interleave = 8,
                                  .alpha = 1};
        CHECK(gemm_test_case(mem, &forward));
        CHECK(gemm_test_case(mem, &long_k));
        CHECK(gemm_test_case(mem, &back));
        CHECK(gemm_test_case(mem, &range));
        CHECK(gemm_test_case(mem, &part));
        CHECK(gemm_test_case(mem, &turned));
    }
}

TEST(kernels_gemm_interleaved_rows) {
    peft__mem *mem = runner_mem();
    const gemm_case forward = {
        .m = 9, .n = 192, .k = 70, .trans = true, .dtype = PEFT__DTYPE_REAL, .interleave = 64, .alpha = 1};
    const gemm_case back = {.m = 9, .n = 70, .k = 192, .dtype = PEFT__DTYPE_REAL, .interleave = 64, .alpha = 1};
    const gemm_case few = {.m = 1, .n = 70, .k = 192, .dtype = PEFT__DTYPE_REAL, .interleave = 48, .alpha = 1};
    CHECK(gemm_test_case(mem, &forward));
    CHECK(gemm_test_case(mem, &back));
    CHECK(gemm_test_case(mem, &few));
}

/* Large enough for several tasks, row blocks and column blocks. */
TEST(kernels_gemm_many_blocks) {
    peft__mem *mem = runner_mem();
    const gemm_case wide = {
        .m = 70, .n = 900, .k = 530, .trans = true, .dtype = PEFT__DTYPE_REAL, .alpha = 1, .bias = true};
    const gemm_case tall = {.m = 900, .n = 10, .k = 600, .dtype = PEFT__DTYPE_REAL, .alpha = 1};
    const gemm_case thin = {.m = 700, .n = 8, .k = 300, .a_trans = true, .dtype = PEFT__DTYPE_REAL, .alpha = 1};
    const gemm_case flat = {
        .m = 300, .n = 3000, .k = 4, .trans = true, .dtype = PEFT__DTYPE_REAL, .alpha = 2, .accumulate = true};
    const gemm_case k_quant = {.m = 30, .n = 1024, .k = 600, .dtype = PEFT_DTYPE_Q4_K, .alpha = 1};
    const gemm_case gradient = {.m = 300, .n = 70, .k = 700, .a_trans = true, .dtype = PEFT__DTYPE_REAL, .alpha = 1};
    CHECK(gemm_test_case(mem, &wide));
    CHECK(gemm_test_case(mem, &tall));
    CHECK(gemm_test_case(mem, &thin));
    CHECK(gemm_test_case(mem, &flat));
    CHECK(gemm_test_case(mem, &k_quant));
    CHECK(gemm_test_case(mem, &gradient));
}

/* Each row of a product has the same bits when it is computed alone. */
static bool gemm_test_rows_alone(peft__mem *mem, const gemm_case *t) {
    gemm_data d;
    bool ok = true, more = true;
    gemm_test_make(t, &d);
    peft__real *one = malloc((size_t)(t->n + 1) * sizeof *one);
    for (size_t i = 0; ok && more; i++) {
        const peft__kernels *k = gemm_test_table(i, &more);
        if (k == NULL || k->blas) { continue; } /* a BLAS promises no order of its sums */
        memcpy(d.c, d.old, (size_t)d.c_size * sizeof *d.c);
        gemm_test_run(mem, k, 2, &d.args);
        for (int64_t row = 0; ok && row < t->m; row++) {
            peft__gemm_args args = d.args;
            args.m = 1;
            args.a += t->a_trans ? row : row * args.lda;
            args.c = one;
            memcpy(one, d.old + 1 + row * args.ldc, (size_t)t->n * sizeof *one);
            gemm_test_run(mem, k, 1, &args);
            ok = runner_same(__FILE__, __LINE__, "a row alone", one, d.c + 1 + row * args.ldc,
                             (size_t)t->n * sizeof *one);
        }
    }
    free(one);
    gemm_test_drop(&d);
    return ok;
}

TEST(kernels_gemm_row_alone_has_the_same_bits) {
    static const int64_t widths[] = {3, 8, 9, 16, 40, 64, 100, 257};
    static const int64_t depths[] = {5, 64, 576, 1540};
    peft__mem *mem = runner_mem();
    for (size_t i = 0; i < PEFT__COUNT(widths); i++) {
        for (size_t j = 0; j < PEFT__COUNT(depths); j++) {
            gemm_case t = {
                .m = 17, .n = widths[i], .k = depths[j], .dtype = PEFT__DTYPE_REAL, .alpha = 1, .bias = true};
            CHECK(gemm_test_rows_alone(mem, &t));
            t.trans = true;
            t.accumulate = true;
            t.alpha = 0.3;
            CHECK(gemm_test_rows_alone(mem, &t));
        }
    }
    const gemm_case q8 = {.m = 31, .n = 70, .k = 576, .trans = true, .dtype = PEFT_DTYPE_Q8_0, .alpha = 1};
    const gemm_case q4 = {.m = 17, .n = 576, .k = 70, .dtype = PEFT_DTYPE_Q4_1, .alpha = 1};
    const gemm_case turned = {
        .m = 67, .n = 70, .k = 576, .a_trans = true, .trans = true, .dtype = PEFT__DTYPE_REAL, .alpha = 1};
    CHECK(gemm_test_rows_alone(mem, &q8));
    CHECK(gemm_test_rows_alone(mem, &q4));
    CHECK(gemm_test_rows_alone(mem, &turned));
}

/* A tall C of few columns is made of C' (tall.c): rows of A that lie 2 KiB apart and not, columns that fill no tile, blocks of K. */
TEST(kernels_gemm_tall_has_the_same_bits) {
    static const int64_t rows[] = {128, 150, 512 - GEMM_TEST_LD}, cols[] = {1, 8, 13, 64};
    peft__mem *mem = runner_mem();
    for (size_t i = 0; i < PEFT__COUNT(rows); i++) {
        for (size_t j = 0; j < PEFT__COUNT(cols); j++) {
            gemm_case t = {.m = rows[i], .n = cols[j], .k = j % 2 == 0 ? 700 : 61, .a_trans = true, .dtype = PEFT__DTYPE_REAL, .alpha = 1};
            CHECK(peft__tall_fits(&(peft__gemm_args){.m = t.m, .n = t.n, .k = t.k, .a_trans = true, .b = {.dtype = PEFT__DTYPE_REAL}}));
            CHECK(gemm_test_case(mem, &t));
            t.first = (int64_t)j;
            t.accumulate = true;
            t.alpha = 0.3;
            CHECK(gemm_test_case(mem, &t));
        }
    }
    const gemm_case blocks = {.m = 137, .n = 13, .k = 1283, .a_trans = true, .dtype = PEFT__DTYPE_REAL, .alpha = 0.3, .accumulate = true};
    const gemm_case plain = {.m = 129, .n = 7, .k = 700, .a_trans = true, .dtype = PEFT__DTYPE_REAL, .alpha = 1};
    CHECK(gemm_test_rows_alone(mem, &blocks));
    CHECK(gemm_test_rows_alone(mem, &plain));
}

/* One row and two go past the panels (narrow.c): every type, columns that fill no vector, blocks of K that are not the first. */
TEST(kernels_gemm_narrow_has_the_same_bits) {
    static const int32_t types[] = {PEFT__DTYPE_REAL, PEFT_DTYPE_F16,  PEFT_DTYPE_BF16, PEFT_DTYPE_Q8_0, PEFT_DTYPE_Q4_0, PEFT_DTYPE_Q4_1,
                                    PEFT_DTYPE_Q5_0,  PEFT_DTYPE_Q5_1, PEFT_DTYPE_Q4_K, PEFT_DTYPE_Q5_K, PEFT_DTYPE_Q6_K};
    static const int64_t widths[] = {1, 31, 64, 130};
    peft__mem *mem = runner_mem();
    for (size_t i = 0; i < PEFT__COUNT(types); i++) {
        const int64_t e = peft__dtype_block_of(types[i]).elems;
        for (size_t j = 0; j < PEFT__COUNT(widths); j++) {
            gemm_case t = {.m = 5, .n = widths[j], .k = e == 1 ? 1283 : 1280, .trans = true, .dtype = types[i], .alpha = 1};
            CHECK(gemm_test_rows_alone(mem, &t));
            t.accumulate = t.bias = true;
            t.first = e == 1 ? 3 : e;
            CHECK(gemm_test_rows_alone(mem, &t));
            t.m = 2;
            CHECK(gemm_test_case(mem, &t));
        }
    }
    const gemm_case turned = {.m = 3, .n = 96, .k = 64, .trans = true, .dtype = PEFT_DTYPE_Q4_1, .interleave = 32, .alpha = 1};
    CHECK(gemm_test_rows_alone(mem, &turned));
}

/* ---- the table's parts -------------------------------------------------------------------------------------------------- */

TEST(kernels_tile_every_shape) {
    enum { LDC = 70, K = 21 };
    static peft__real a[PEFT__TILE_ROWS * 2 * 40], b[K * PEFT__TILE_COLS], c[2 * PEFT__TILE_ROWS * LDC],
        old[2 * PEFT__TILE_ROWS * LDC];
    peft__rng r = {.key = 5};
    bool more = true;
    gemm_test_fill(&r, a, (int64_t)PEFT__COUNT(a));
    gemm_test_fill(&r, b, (int64_t)PEFT__COUNT(b));
    gemm_test_fill(&r, old, (int64_t)PEFT__COUNT(old));
    for (size_t i = 0; more; i++) {
        const peft__kernels *k = gemm_test_table(i, &more);
        if (k == NULL) { continue; }
        CHECK(k->mr <= PEFT__TILE_ROWS && k->nr <= PEFT__TILE_COLS && k->nr % k->lane == 0);
        for (int32_t cols = 1; cols <= k->nr; cols++) {
            const int32_t most = cols <= k->lane ? 2 * k->mr : k->mr;
            for (int32_t rows = 1; rows <= most; rows++) {
                const bool first = (rows + cols) % 2 == 0, turned = cols % 3 == 0;
                const int64_t a_row = turned ? 1 : 40, a_col = turned ? 16 : 1;
                memcpy(c, old, sizeof c);
                k->tile(rows, cols, K, a, a_row, a_col, b, k->nr, c, LDC, first);
                for (int32_t x = 0; x < rows; x++) {
                    for (int32_t y = 0; y < LDC; y++) {
                        double want = first && y < cols ? 0 : (double)old[x * LDC + y];
                        for (int32_t z = 0; y < cols && z < K; z++) {
                            want += (double)a[x * a_row + z * a_col] * (double)b[z * k->nr + y];
                        }
                        CHECK_NEAR(c[x * LDC + y], want, y < cols ? 200 * GEMM_TEST_EPS : 0);
                    }
                }
            }
        }
    }
}

TEST(kernels_pack_rows_pads_with_zero) {
    enum { LD = 45 };
    static peft__real src[PEFT__TILE_COLS * LD], dst[LD * PEFT__TILE_COLS + 1];
    const peft__real *rows[PEFT__TILE_COLS];
    peft__rng r = {.key = 6};
    bool more = true;
    gemm_test_fill(&r, src, (int64_t)PEFT__COUNT(src));
    for (int32_t j = 0; j < PEFT__TILE_COLS; j++) { rows[j] = src + (j * 7 % PEFT__TILE_COLS) * LD; }
    for (size_t i = 0; more; i++) {
        const peft__kernels *k = gemm_test_table(i, &more);
        for (int64_t kc = 0; k != NULL && kc <= LD; kc++) {
            for (int32_t cols = 1; cols <= k->nr; cols += 3) {
                memset(dst, 0xff, sizeof dst);
                dst[kc * k->nr] = (peft__real)GEMM_TEST_GUARD;
                k->pack_rows(dst, rows, cols, kc);
                for (int64_t at = 0; at < kc * k->nr; at++) {
                    const int64_t j = at % k->nr;
                    CHECK_NEAR(dst[at], j < cols ? (double)rows[j][at / k->nr] : 0.0, 0);
                }
                CHECK_NEAR(dst[kc * k->nr], GEMM_TEST_GUARD, 0);
            }
        }
    }
}

TEST(kernels_pack_stored_equals_dequant_and_pack) {
    static const int32_t types[] = {PEFT_DTYPE_F16,  PEFT_DTYPE_BF16, PEFT_DTYPE_Q8_0, PEFT_DTYPE_Q4_0, PEFT_DTYPE_Q4_1,
                                    PEFT_DTYPE_Q5_0, PEFT_DTYPE_Q5_1, PEFT_DTYPE_Q4_K, PEFT_DTYPE_F32};
    enum { K = 256, BYTES = K * 4 + 1 };
    static uint8_t src[PEFT__TILE_COLS * BYTES];
    static peft__real flat[PEFT__TILE_COLS * K], want[K * PEFT__TILE_COLS], got[K * PEFT__TILE_COLS];
    const uint8_t *stored[PEFT__TILE_COLS];
    const peft__real *rows[PEFT__TILE_COLS];
    peft__rng r = {.key = 8};
    bool more = true;
    for (size_t i = 0; i < sizeof src; i++) { src[i] = (uint8_t)(peft__rng_u32(&r) & 0xbf); } /* no half is infinite */
    for (size_t i = 0; more; i++) {
        const peft__kernels *k = gemm_test_table(i, &more);
        for (size_t t = 0; k != NULL && k->pack_stored != NULL && t < PEFT__COUNT(types); t++) {
            const int32_t e = peft__dtype_block_of(types[t]).elems;
            for (int64_t kc = e == 1 ? 1 : e; kc <= K; kc += e == 1 ? 13 : e) {
                for (int32_t j = 0; j < k->nr; j++) {
                    stored[j] = src + (j * 5 % k->nr) * BYTES;
                    rows[j] = flat + j * K;
                    k->dequant(types[t], stored[j], kc, flat + j * K);
                }
                k->pack_rows(want, rows, k->nr, kc);
                memset(got, 0xff, sizeof got);
                if (k->pack_stored(types[t], got, stored, kc)) {
                    CHECK_MEM(got, want, (size_t)(kc * k->nr) * sizeof *got);
                } else {
                    CHECK(types[t] == PEFT_DTYPE_Q4_K || types[t] == PEFT_DTYPE_F32);
                }
            }
        }
    }
}

/* ---- a BLAS (blas.c) ------------------------------------------------------------------------------------------------------ */

#ifdef PEFT__BLAS
/* What goes to the BLAS: large dense products of floats, and nothing else; every block of them in its place. */
TEST(kernels_blas_products) {
    peft__mem *mem = runner_mem();
    const gemm_case wide = {.m = 270, .n = 1600, .k = 70, .trans = true, .dtype = PEFT__DTYPE_REAL, .alpha = 1, .bias = true};
    const gemm_case back = {.m = 530, .n = 90, .k = 140, .dtype = PEFT__DTYPE_REAL, .first = 5, .alpha = 0.5, .accumulate = true};
    const gemm_case outer = {.m = 300, .n = 800, .k = 64, .a_trans = true, .dtype = PEFT__DTYPE_REAL, .alpha = 2, .accumulate = true};
    const gemm_case both = {.m = 257, .n = 100, .k = 300, .a_trans = true, .trans = true, .dtype = PEFT__DTYPE_REAL, .alpha = 1};
    const gemm_case thin = {.m = 600, .n = 16, .k = 600, .dtype = PEFT__DTYPE_REAL, .alpha = 1};
    const gemm_case small = {.m = 40, .n = 40, .k = 40, .dtype = PEFT__DTYPE_REAL, .alpha = 1};
    const gemm_case turned = {.m = 100, .n = 192, .k = 100, .trans = true, .dtype = PEFT__DTYPE_REAL, .interleave = 64, .alpha = 1};
    const gemm_case stored = {.m = 100, .n = 192, .k = 128, .trans = true, .dtype = PEFT_DTYPE_Q8_0, .alpha = 1};
    const struct { const gemm_case *t; bool fits; } cases[] = {{&wide, true},  {&back, true},   {&outer, true},   {&both, true},
                                                               {&thin, false}, {&small, false}, {&turned, false}, {&stored, false}};
    const peft__run blas = {.k = &peft__kernels_blas}, own = {.k = peft__kernels_at(1)};
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        gemm_data d;
        gemm_test_make(cases[i].t, &d);
        CHECK(peft__blas_fits(&blas, &d.args) == cases[i].fits);
        CHECK(!peft__blas_fits(&own, &d.args));
        gemm_test_drop(&d);
        CHECK(gemm_test_case(mem, cases[i].t));
    }
}

TEST(kernels_blas_only_by_name) {
    const peft__kernels *k = NULL;
    CHECK_OK(peft__kernels_find("auto", &k));
    CHECK(!k->blas);
    CHECK_OK(peft__kernels_find("blas", &k));
    CHECK(k == &peft__kernels_blas && k->blas);
}
#else
TEST(kernels_blas_is_not_built) {
    const peft__kernels *k = NULL;
    CHECK_STATUS(peft__kernels_find("blas", &k), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("\"blas\": expected auto or one of generic");
    for (size_t i = 0; peft__kernels_at(i) != NULL; i++) { CHECK(!peft__kernels_at(i)->blas); }
}
#endif

TEST(kernels_find_by_name) {
    const peft__kernels *k = NULL;
    CHECK_OK(peft__kernels_find("generic", &k));
    CHECK_STR(k->name, "generic");
    CHECK(k == peft__kernels_at(0));
    CHECK_OK(peft__kernels_find("auto", &k));
    CHECK((k->needs & ~peft__cpu_features()) == 0);
#ifdef PEFT__NEON
    CHECK_STR(k->name, "neon");
    CHECK(k->tile != peft__kernels_generic.tile && k->dot != peft__kernels_generic.dot && k->pack_stored != NULL);
#endif
    CHECK_STATUS(peft__kernels_find("sse9", &k), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("\"sse9\"");
    CHECK_ERROR_HAS("generic");
    for (size_t i = 0; peft__kernels_at(i) != NULL; i++) {
        const peft__kernels *t = peft__kernels_at(i);
        if ((t->needs & ~peft__cpu_features()) != 0) {
            CHECK_STATUS(peft__kernels_find(t->name, &k), PEFT_E_UNSUPPORTED);
            CHECK_ERROR_HAS(t->name);
        } else {
            CHECK_OK(peft__kernels_find(t->name, &k));
            CHECK(k == t);
        }
    }
}
