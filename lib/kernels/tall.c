/* tall.c - C = alpha A' B + beta C for a tall C of few columns, A stored [k][m] and B [k][n] as reals: dB = s dy' h of a low rank.
 *
 *          m: panels of nr columns                 A tile has rows for each column of B, and columns where A lies side by side, so
 *         +----+----+----+                         that C' = B' A needs no packing at all. As rows of C, those of A would be copied
 *      k  | A  |    |    |   +--+  one sliver      six by six, for products with few columns only. C' is made of C in the scratch,
 *         |    |    |    |   |B |  of mr columns   summed there in the order of gemm.c, and turned back: the same bits.
 *         +----+----+----+   +--+  at a time
 *     C'  |    |    |    |
 *         +----+----+----+
 *
 * Left out: more columns than TALL_COLS, a bias; types that are not reals. */
#include "kernels/gemm.h"

enum {
    TALL_COLS = 64, /* most columns of C */
    TALL_ROWS = 128 /* rows of a task, at most, and of C, at least */
};

typedef struct tall_job {
    const peft__run *run;
    const peft__gemm_args *args;
    const peft__real *b; /* [k,n], stride ldb */
    int64_t ldb;
    int64_t kc;   /* most of K in a block */
    int64_t cols; /* columns of C' in a task, a multiple of nr */
    bool copies;  /* panels of A are copied: as they lie they would push each other out of the cache */
} tall_job;

/* A worker's scratch, in the room of gemm.c's. */
typedef struct tall_space {
    peft__real *stage;  /* C' [n, cols] */
    peft__real *panels; /* [cols / nr][kc][nr] of A, PEFT__GEMM_PAD between them */
    peft__real *b;      /* [kc, n], times alpha */
} tall_space;

_Static_assert((TALL_COLS * TALL_ROWS + TALL_ROWS * (PEFT__GEMM_KC + PEFT__GEMM_PAD) + TALL_COLS * PEFT__GEMM_KC) * 4 <= PEFT__GEMM_B_BYTES,
               "a tall product fits the room for B's block");

bool peft__tall_fits(const peft__gemm_args *g) {
    return peft__gemm_rowwise(&g->b) && g->a_trans && g->bias == NULL && g->n <= TALL_COLS && g->m >= TALL_ROWS;
}

/* Rows [j0, j0 + cols) of C to the stage, or back. */
static void tall_turn(const tall_job *job, peft__real *stage, int64_t j0, int64_t cols, bool back) {
    const peft__gemm_args *g = job->args;
    for (int64_t j = 0; j < cols; j++) {
        peft__real *c = g->c + (j0 + j) * g->ldc, *staged = stage + j;
        for (int64_t i = 0; i < g->n; i++, staged += job->cols) {
            if (back) {
                c[i] = *staged;
            } else {
                *staged = c[i];
            }
        }
    }
}

/* Columns [j, j + n) of the block of A at `from` as panels from the j-th column's on. */
static void tall_copy(const tall_job *job, const tall_space *s, const peft__real *from, int64_t kc, int64_t j, int64_t n) {
    const int64_t nr = job->run->k->nr, lda = job->args->lda, size = kc * nr + PEFT__GEMM_PAD;
    for (int64_t i = 0; i < kc; i++, from += lda) {
        peft__gemm_fetch((const uint8_t *)(from + j), PEFT__GEMM_AHEAD * lda * (int64_t)sizeof *from, n * (int64_t)sizeof *from);
        peft__gemm_spread(s->panels + j / nr * size + i * nr, from + j, n, (int32_t)nr, size);
    }
}

/* One block of k: adds to columns [j0, j0 + cols) of C', in the stage. */
static void tall_block(const tall_job *job, const tall_space *s, int64_t k0, int64_t kc, int64_t j0, int64_t cols) {
    const peft__kernels *k = job->run->k;
    const peft__gemm_args *g = job->args;
    const peft__real *a = g->a + k0 * g->lda + j0, *b = job->b + k0 * job->ldb;
    const int64_t copied = job->copies ? 0 : cols / k->nr * k->nr; /* columns before it are read where they lie */
    int64_t ldb = job->ldb;
    if (copied < cols) { tall_copy(job, s, a, kc, copied, cols - copied); }
    if (g->alpha != 1) {
        for (int64_t i = 0; i < kc; i++) { k->scale(s->b + i * g->n, g->alpha, b + i * ldb, g->n); }
        b = s->b;
        ldb = g->n;
    }
    for (int64_t j = 0; j < cols; j += k->nr) {
        const peft__real *panel = j < copied ? a + j : s->panels + j / k->nr * (kc * k->nr + PEFT__GEMM_PAD);
        for (int32_t i = 0, rows; i < g->n; i += rows) {
            rows = peft__gemm_sliver(k->mr, g->n - i);
            k->tile(rows, (int32_t)PEFT__MIN(cols - j, k->nr), kc, b + i, 1, ldb, panel, j < copied ? g->lda : k->nr,
                    s->stage + i * job->cols + j, job->cols, k0 == 0 && !g->accumulate);
        }
    }
}

static void tall_task(void *arg, int64_t task, int32_t worker) {
    const tall_job *job = arg;
    const peft__gemm_args *g = job->args;
    const int64_t nr = job->run->k->nr, j0 = task * job->cols, cols = PEFT__MIN(g->m - j0, job->cols);
    tall_space s;
    s.stage = (peft__real *)(void *)(job->run->scratch + (size_t)worker * job->run->scratch_size);
    s.panels = s.stage + TALL_COLS * job->cols;
    s.b = s.panels + job->cols / nr * (job->kc * nr + PEFT__GEMM_PAD);
    if (g->accumulate) { tall_turn(job, s.stage, j0, cols, false); }
    for (int64_t k0 = 0; k0 < g->k; k0 += job->kc) { tall_block(job, &s, k0, PEFT__MIN(g->k - k0, job->kc), j0, cols); }
    tall_turn(job, s.stage, j0, cols, true);
}

void peft__tall(const peft__run *run, const peft__gemm_args *g, int64_t kc) {
    const int64_t nr = run->k->nr, panels = (g->m + nr - 1) / nr, tasks = peft__gemm_tasks(run, g);
    tall_job job = {.run = run, .args = g, .kc = kc};
    job.b = (const peft__real *)g->b.data + g->b.first;
    job.ldb = g->b.row_bytes / (int64_t)sizeof(peft__real);
    job.copies = peft__gemm_aliased(g->lda * (int64_t)sizeof(peft__real));
    job.cols = PEFT__MIN((panels + tasks - 1) / tasks, TALL_ROWS / nr) * nr;
    peft__pool_run(run->pool, tall_task, &job, (g->m + job.cols - 1) / job.cols);
}
