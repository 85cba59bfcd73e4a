/* blas.c - the large products of floats by a BLAS: cblas_sgemm, in builds that were asked for one (make BLAS=openblas).
 *
 *   C = alpha op(A) op(B) + beta C     row-major; A, B and C as they lie (Basic Linear Algebra Subprograms Technical Forum
 *                                      Standard, 2001, appendix B: the C interface)
 *
 * The table "blas" is the CPU's own with these products replaced; it is taken by that name only, never by "auto", for which of
 * the two is faster depends on the CPU, the BLAS and the shapes (bench/gemm_bench.c tells). Products that are small or thin, and
 * those of stored types, stay what they are.
 *
 * C is cut into blocks whose sizes depend on M and N alone; each is one call, by one worker. The BLAS itself must not use
 * threads: those that have a switch for it, OpenBLAS, MKL and BLIS, are told so when the table is taken, for the whole process.
 * Then an element has the same bits on any number of threads, but unlike our own products not for any number of rows: a BLAS
 * promises no order of its sums.
 *
 * Left out: cblas.h, which lies elsewhere in each distribution (what is called is declared here); libraries with integers of 64
 * bits, whose names end in 64_; doubles. */
#include "kernels/blas.h"
#include "kernels/gemm.h"

#ifdef PEFT__BLAS

#include <limits.h>

enum {
    BLAS_ROW_MAJOR = 101, /* values of CBLAS_ORDER and CBLAS_TRANSPOSE */
    BLAS_NO_TRANS = 111,
    BLAS_TRANS = 112,
    BLAS_LEAST = 1 << 20, /* products below which packing twice costs more than it saves */
    BLAS_THIN = 32,       /* and the smallest side */
    BLAS_ROWS = 256,      /* most of C in a block */
    BLAS_COLS = 768,
};

void cblas_sgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda, const float *b,
                 int ldb, float beta, float *c, int ldc);

/* Each is there in one of the libraries. */
__attribute__((weak)) void openblas_set_num_threads(int n);
__attribute__((weak)) void MKL_Set_Num_Threads(int n);
__attribute__((weak)) void bli_thread_set_num_threads(int64_t n);

void peft__blas_prepare(void) {
    if (openblas_set_num_threads != NULL) { openblas_set_num_threads(1); }
    if (MKL_Set_Num_Threads != NULL) { MKL_Set_Num_Threads(1); }
    if (bli_thread_set_num_threads != NULL) { bli_thread_set_num_threads(1); }
}

/* One call, cut up. */
typedef struct blas_plan {
    const peft__run *run;
    const peft__gemm_args *args;
    int64_t mc, nc;     /* rows and columns of a block */
    int64_t row_blocks; /* task = column block * row_blocks + row block */
    int64_t ldb;        /* reals from one stored row of B to the next */
} blas_plan;

static int64_t blas_even(int64_t n, int64_t most) {
    const int64_t blocks = (n + most - 1) / most, each = (n + blocks - 1) / blocks;
    return (each + 15) / 16 * 16;
}

static void blas_task(void *arg, int64_t task, int32_t worker) {
    const blas_plan *p = arg;
    const peft__gemm_args *g = p->args;
    const int64_t i0 = task % p->row_blocks * p->mc, m = PEFT__MIN(g->m - i0, p->mc);
    const int64_t j0 = task / p->row_blocks * p->nc, n = PEFT__MIN(g->n - j0, p->nc);
    const float *a = g->a + (g->a_trans ? i0 : i0 * g->lda);
    const float *b = (const float *)(const void *)g->b.data + g->b.first + (g->b.trans ? j0 * p->ldb : j0);
    float *c = g->c + i0 * g->ldc + j0;
    (void)worker;
    cblas_sgemm(BLAS_ROW_MAJOR, g->a_trans ? BLAS_TRANS : BLAS_NO_TRANS, g->b.trans ? BLAS_TRANS : BLAS_NO_TRANS, (int)m, (int)n,
                (int)g->k, g->alpha, a, (int)g->lda, b, (int)p->ldb, g->accumulate ? 1.0f : 0.0f, c, (int)g->ldc);
    for (int64_t i = 0; g->bias != NULL && i < m; i++) { p->run->k->add(c + i * g->ldc, c + i * g->ldc, g->bias + j0, n); }
}

bool peft__blas_fits(const peft__run *run, const peft__gemm_args *g) {
    const int64_t ldb = g->b.row_bytes / (int64_t)sizeof(float), most = INT_MAX;
    if (!run->k->blas || !peft__gemm_plain(&g->b) || g->b.interleave > 0 || g->b.heads > 0) { return false; }
    if (PEFT__MIN(PEFT__MIN(g->m, g->n), g->k) < BLAS_THIN || g->m * g->n < BLAS_LEAST / g->k) { return false; }
    return g->k <= most && g->lda <= most && ldb <= most && g->ldc <= most;
}

void peft__blas(const peft__run *run, const peft__gemm_args *g) {
    blas_plan p = {.run = run, .args = g, .mc = blas_even(g->m, BLAS_ROWS), .nc = blas_even(g->n, BLAS_COLS)};
    p.row_blocks = (g->m + p.mc - 1) / p.mc;
    p.ldb = g->b.row_bytes / (int64_t)sizeof(float);
    peft__pool_run(run->pool, blas_task, &p, (g->n + p.nc - 1) / p.nc * p.row_blocks);
}

#endif
