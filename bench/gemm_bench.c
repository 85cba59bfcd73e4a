/* gemm_bench.c - matrix products as a share of the FMA peak, for every kernel table that this CPU can run.
 *
 *     gemm_bench [seconds for each table, default 10 [name of the only table]]
 *
 * Wall time lies on shared hosts: virtual CPUs lose slices of milliseconds. One thread is therefore measured in its own CPU
 * time, and the peak (independent FMAs on registers) is measured again between all shapes, so that both see the same clock.
 * Two threads have only wall time. Neighbours only take speed away, so a figure is the 90th percentile of one thread's calls
 * and the best of two threads', in GFLOP/s and as a share of the median peak. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "kernels/arm/arm.h"
#include "kernels/generic/generic.h"
#include "kernels/scratch.h"
#include "kernels/x86/x86.h"

enum { BENCH_REPEATS = 400, BENCH_PEAKS = 4096 };

typedef struct bench_shape {
    const char *name;
    int64_t m, n, k;
    bool a_trans, trans; /* as in peft__gemm_args */
    int32_t dtype;
} bench_shape;

static const bench_shape bench_shapes[] = {
    {"linear  f32", 512, 192, 576, false, true, PEFT_DTYPE_F32},
    {"linear  f32", 512, 576, 576, false, true, PEFT_DTYPE_F32},
    {"linear  f32", 512, 1536, 576, false, true, PEFT_DTYPE_F32},
    {"linear  f32", 512, 576, 1536, false, true, PEFT_DTYPE_F32},
    {"linear  f32", 512, 3072, 768, false, true, PEFT_DTYPE_F32},
    {"dx      f32", 512, 576, 192, false, false, PEFT_DTYPE_F32},
    {"dx      f32", 512, 576, 576, false, false, PEFT_DTYPE_F32},
    {"dx      f32", 512, 576, 1536, false, false, PEFT_DTYPE_F32},
    {"dx      f32", 512, 1536, 576, false, false, PEFT_DTYPE_F32},
    {"dx      f32", 512, 768, 3072, false, false, PEFT_DTYPE_F32},
    {"dw      f32", 576, 576, 512, true, false, PEFT_DTYPE_F32},
    {"linear bf16", 512, 1536, 576, false, true, PEFT_DTYPE_BF16},
    {"linear q8_0", 512, 576, 576, false, true, PEFT_DTYPE_Q8_0},
    {"linear q8_0", 512, 1536, 576, false, true, PEFT_DTYPE_Q8_0},
    {"linear q8_0", 512, 576, 1536, false, true, PEFT_DTYPE_Q8_0},
    {"dx     q8_0", 512, 576, 1536, false, false, PEFT_DTYPE_Q8_0},
    {"dx     q8_0", 512, 768, 3072, false, false, PEFT_DTYPE_Q8_0},
    {"linear q4_1", 512, 576, 576, false, true, PEFT_DTYPE_Q4_1},
    {"linear q4_1", 512, 3072, 768, false, true, PEFT_DTYPE_Q4_1},
    {"dx     q4_1", 512, 576, 1536, false, false, PEFT_DTYPE_Q4_1},
    {"linear q4_k", 512, 1536, 768, false, true, PEFT_DTYPE_Q4_K},
    {"dx     q4_k", 512, 768, 1536, false, false, PEFT_DTYPE_Q4_K},
    {"linear q6_k", 512, 1536, 768, false, true, PEFT_DTYPE_Q6_K},
    {"linear  f32", 64, 576, 576, false, true, PEFT_DTYPE_F32},
    {"linear q8_0", 64, 576, 576, false, true, PEFT_DTYPE_Q8_0},
    {"lora XA r8 ", 512, 8, 576, false, true, PEFT_DTYPE_F32},
    {"lora XA r16", 512, 16, 576, false, true, PEFT_DTYPE_F32},
    {"lora HB r8 ", 512, 576, 8, false, true, PEFT_DTYPE_F32},
    {"lora HB r16", 512, 576, 16, false, true, PEFT_DTYPE_F32},
    {"lora dA r8 ", 8, 576, 512, true, false, PEFT_DTYPE_F32},
    {"lora dA r16", 16, 576, 512, true, false, PEFT_DTYPE_F32},
    {"lora dB r16", 576, 16, 512, true, false, PEFT_DTYPE_F32},
    {"lora dH r16", 512, 16, 576, false, false, PEFT_DTYPE_F32},
    {"decode  f32", 1, 1536, 576, false, true, PEFT_DTYPE_F32},
    {"decode q8_0", 1, 1536, 576, false, true, PEFT_DTYPE_Q8_0},
    {"decode  f32", 4, 1536, 576, false, true, PEFT_DTYPE_F32},
};

enum { BENCH_SHAPES = sizeof bench_shapes / sizeof bench_shapes[0] };

static double bench_now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- the peak: FMAs (or products and sums) that wait for nothing ------------------------------------------------------- */

#ifdef PEFT__X86
#include "kernels/x86/simd_avx2.h"
V_TARGET static float bench_fma_avx2(int64_t n) {
    const V x = V_SET1(0.999f);
    V s[12]; /* all different, or the compiler computes one of them */
    for (int32_t j = 0; j < 12; j++) { s[j] = V_SET1((float)j); }
    for (int64_t i = 0; i < n; i++) {
#define BENCH_STEP(j) s[j] = V_FMA(s[j], x, x);
        V_EACH(BENCH_STEP) BENCH_STEP(8) BENCH_STEP(9) BENCH_STEP(10) BENCH_STEP(11)
#undef BENCH_STEP
    }
    V sum = s[0];
    for (int32_t j = 1; j < 12; j++) { sum = V_ADD(sum, s[j]); }
    return V_HSUM(sum);
}
#include "kernels/simd/end.h"

#include "kernels/x86/simd_avx512.h"
V_TARGET static float bench_fma_avx512(int64_t n) {
    const V x = V_SET1(0.999f);
    V s[16]; /* all different, or the compiler computes one of them */
    for (int32_t j = 0; j < 16; j++) { s[j] = V_SET1((float)j); }
    for (int64_t i = 0; i < n; i++) {
#define BENCH_STEP(j) s[j] = V_FMA(s[j], x, x);
        V_EACH(BENCH_STEP)
#undef BENCH_STEP
    }
    V sum = s[0];
    for (int32_t j = 1; j < 16; j++) { sum = V_ADD(sum, s[j]); }
    return V_HSUM(sum);
}
#include "kernels/simd/end.h"
#endif

#ifdef PEFT__NEON
#include "kernels/arm/simd_neon.h"
static float bench_fma_neon(int64_t n) {
    const V x = V_SET1(0.999f);
    V s[16]; /* all different, or the compiler computes one of them */
    for (int32_t j = 0; j < 16; j++) { s[j] = V_SET1((float)j); }
    for (int64_t i = 0; i < n; i++) {
#define BENCH_STEP(j) s[j] = V_FMA(s[j], x, x);
#define BENCH_FOUR(j) BENCH_STEP(j) BENCH_STEP((j) + 4) BENCH_STEP((j) + 8) BENCH_STEP((j) + 12)
        V_EACH(BENCH_FOUR)
#undef BENCH_FOUR
#undef BENCH_STEP
    }
    V sum = s[0];
    for (int32_t j = 1; j < 16; j++) { sum = V_ADD(sum, s[j]); }
    return V_HSUM(sum);
}
#include "kernels/simd/end.h"
#endif

static volatile float bench_sink;

/* GFLOP/s of one thread; 0 for the generic table, which promises no speed. */
static double bench_peak(const peft__kernels *k) {
    const int64_t n = 20000;
    double flops = 0;
    const double t = bench_now(CLOCK_THREAD_CPUTIME_ID);
#ifdef PEFT__X86
    if (k == &peft__kernels_avx2) {
        bench_sink = bench_fma_avx2(n);
        flops = (double)n * 12 * 8 * 2;
    } else if (k == &peft__kernels_avx512 || k == &peft__kernels_avx512bf16) {
        bench_sink = bench_fma_avx512(n);
        flops = (double)n * 16 * 16 * 2;
    }
#elif defined(PEFT__NEON)
    if (k == &peft__kernels_neon) {
        bench_sink = bench_fma_neon(n);
        flops = (double)n * 16 * 4 * 2;
    }
#else
    (void)k;
#endif
    return flops / (bench_now(CLOCK_THREAD_CPUTIME_ID) - t) * 1e-9;
}

/* ---- the products -------------------------------------------------------------------------------------------------------- */

typedef struct bench_case {
    peft__gemm_args args;
    double speed[2][BENCH_REPEATS]; /* GFLOP/s of each call, by number of threads - 1 */
    int32_t calls;
} bench_case;

static void *bench_alloc(peft__mem *mem, size_t size) {
    void *p = peft__alloc_zero(mem, size);
    if (p == NULL) {
        fprintf(stderr, "gemm_bench: %s\n", peft__fail_text());
        exit(1);
    }
    return p;
}

static void bench_prepare(peft__mem *mem, const bench_shape *s, bench_case *c) {
    const peft__dtype_block block = peft__dtype_block_of(s->dtype);
    const int64_t stored = s->trans ? s->n : s->k, across = s->trans ? s->k : s->n;
    const int64_t row_bytes = across / block.elems * block.bytes;
    uint8_t *b = bench_alloc(mem, (size_t)(stored * row_bytes));
    peft__real *a = bench_alloc(mem, (size_t)(s->m * s->k) * sizeof *a);
    if (s->dtype != PEFT_DTYPE_F32) { /* small scales: any byte is a fine quant, but not a fine half */
        memset(b, 1, (size_t)(stored * row_bytes));
    }
    c->args = (peft__gemm_args){.m = s->m,
                                .n = s->n,
                                .k = s->k,
                                .a = a,
                                .lda = s->a_trans ? s->m : s->k,
                                .a_trans = s->a_trans,
                                .ldc = s->n,
                                .alpha = 1};
    c->args.b = (peft__operand){.data = b, .dtype = s->dtype, .row_bytes = row_bytes, .trans = s->trans,
                                .frozen = s->name[1] != 'o' && s->name[1] != 'w'}; /* not lora, not dw */
    c->args.c = bench_alloc(mem, (size_t)(s->m * s->n) * sizeof(peft__real));
}

static double bench_call(const peft__run *run, const bench_case *c) {
    const clockid_t clock = run->workers == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
    const double flops = 2.0 * (double)c->args.m * (double)c->args.n * (double)c->args.k;
    const int32_t times = flops < 4e6 ? 8 : 1; /* above the clock's own cost */
    const double t = bench_now(clock);
    for (int32_t i = 0; i < times; i++) { peft__gemm(run, &c->args); }
    return flops * times / (bench_now(clock) - t) * 1e-9;
}

static int bench_order(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double bench_quantile(double *v, int32_t n, double q) {
    qsort(v, (size_t)n, sizeof *v, bench_order);
    return n == 0 ? 0 : v[(int32_t)(q * (n - 1))];
}

static void bench_table(peft__mem *mem, const peft__kernels *k, bench_case *cases, double seconds) {
    static double peaks[BENCH_PEAKS];
    peft__run run[2];
    int32_t n_peaks = 0;
    const bool bf16 = k->tile_bf16 != NULL;
    for (int32_t t = 0; t < 2; t++) {
        run[t] = (peft__run){.k = k, .workers = t + 1, .scratch_size = PEFT__MAX(peft__gemm_scratch(k), peft__bf16_scratch())};
        run[t].scratch = bench_alloc(mem, run[t].scratch_size * (size_t)run[t].workers);
        if (bf16) { run[t].rounded = bench_alloc(mem, PEFT__ROUNDED_BYTES); }
        if (peft__pool_create(mem, t + 1, &run[t].pool) != PEFT_OK) { exit(1); }
    }
    const double end = bench_now(CLOCK_MONOTONIC) + seconds;
    for (int32_t r = 0; r < BENCH_REPEATS && bench_now(CLOCK_MONOTONIC) < end; r++) {
        for (int32_t i = 0; i < BENCH_SHAPES; i++) {
            if (n_peaks < BENCH_PEAKS) { peaks[n_peaks++] = bench_peak(k); }
            cases[i].speed[0][r] = bench_call(&run[0], &cases[i]);
            cases[i].speed[1][r] = bench_call(&run[1], &cases[i]);
            cases[i].calls = r + 1;
        }
    }
    const double peak = bench_quantile(peaks, n_peaks, 0.5);
    printf("%s: FMA peak %.1f GFLOP/s a thread, %" PRId32 " rounds%s\n", k->name, peak, cases[0].calls,
           bf16 ? "; linear and dx in bfloat16, whose peak is 200 %" : "");
    for (int32_t i = 0; i < BENCH_SHAPES; i++) {
        const bench_shape *s = &bench_shapes[i];
        const double one = bench_quantile(cases[i].speed[0], cases[i].calls, 0.9);
        const double two = bench_quantile(cases[i].speed[1], cases[i].calls, 1.0);
        printf("  %s %4" PRId64 " x %4" PRId64 " x %4" PRId64 "   1 thread %6.1f", s->name, s->m, s->n, s->k, one);
        if (peak > 0) { printf(" %5.1f %%", 100 * one / peak); }
        printf("   2 threads %6.1f", two);
        if (peak > 0) { printf(" %5.1f %%", 50 * two / peak); }
        printf("\n");
    }
    for (int32_t t = 0; t < 2; t++) {
        peft__pool_free(run[t].pool);
        peft__free(mem, run[t].scratch, run[t].scratch_size * (size_t)run[t].workers);
        peft__free(mem, run[t].rounded, PEFT__ROUNDED_BYTES);
    }
}

int main(int argc, char **argv) {
    static bench_case cases[BENCH_SHAPES];
    const double seconds = argc > 1 ? strtod(argv[1], NULL) : 10;
    peft__mem mem;
    peft__mem_init(&mem, NULL);
    for (int32_t i = 0; i < BENCH_SHAPES; i++) { bench_prepare(&mem, &bench_shapes[i], &cases[i]); }
    for (size_t i = 0; peft__kernels_at(i) != NULL; i++) {
        const peft__kernels *k;
        const bool wanted = argc < 3 || strcmp(argv[2], peft__kernels_at(i)->name) == 0;
        if (wanted && peft__kernels_find(peft__kernels_at(i)->name, &k) == PEFT_OK) {
            bench_table(&mem, k, cases, seconds);
        }
    }
    return 0; /* the matrices live until the end */
}
