/* narrow.c - C = A B' + beta C + bias for a few rows of A, straight from B as it is stored: what decoding consists of.
 *
 *            n: columns of four vectors = rows of stored B       Such columns at a time: their rows of B pass by once, while
 *       +--+ +-----+-----+-----+                                 those of the next columns are asked for. B is read once and never
 *    m  |A | |     |     |     |   k                             written anywhere: the memory that holds it should be the limit.
 *       +--+ +-----+-----+-----+
 *
 * The kernel adds each column's products in order of k from zero for each block of K, and blocks are added in order, as in gemm.c:
 * the same bits.
 *
 * Left out: types that the table's kernel does not read, alpha other than 1, B stored [k][n]; more than 16 rows (of quants, than two),
 * for which packing pays. */
#include "kernels/gemm.h"
#include "kernels/generic/generic.h"

enum { NARROW_VECS = 4 };

typedef struct narrow_job {
    const peft__run *run;
    const peft__gemm_args *args;
    int64_t kc, width;       /* most of K in a block; columns at a time */
    int64_t cols;            /* columns of a task, a multiple of width */
    peft__dtype_block block; /* of B's type */
} narrow_job;

bool peft__narrow_fits(const peft__run *run, const peft__gemm_args *g) {
    peft__real none[PEFT__TILE_COLS];
    return g->m <= PEFT__NARROW_ROWS && run->k->narrow != NULL && g->b.trans && !g->a_trans && g->alpha == 1 &&
           (g->b.dtype != PEFT__DTYPE_REAL || peft__gemm_plain(&g->b)) &&
           run->k->narrow(g->b.dtype, g->a, g->lda, g->m, NULL, 0, NULL, none);
}

/* Columns [j0, j0 + cols) of C with the sums of one block of K: the first, the last? */
static void narrow_put(const narrow_job *job, int64_t j0, int64_t cols, peft__real (*sums)[PEFT__TILE_COLS], bool first, bool last) {
    const peft__gemm_args *g = job->args;
    for (int64_t i = 0; i < g->m; i++) {
        peft__real *c = g->c + i * g->ldc + j0;
        if (first && !g->accumulate) {
            memcpy(c, sums[i], (size_t)cols * sizeof *c);
        } else {
            job->run->k->add(c, c, sums[i], cols);
        }
        if (last && g->bias != NULL) { job->run->k->add(c, c, g->bias + j0, cols); }
    }
}

/* Columns [j0, j0 + cols) of C, cols <= width. */
static void narrow_columns(const narrow_job *job, int64_t j0, int64_t cols) {
    const peft__gemm_args *g = job->args;
    const uint8_t *rows[PEFT__TILE_COLS];
    peft__real sums[PEFT__NARROW_ROWS][PEFT__TILE_COLS];
    const int64_t at = g->b.first / job->block.elems * job->block.bytes;
    const uint8_t *next = peft__gemm_stored_row(&g->b, PEFT__MIN(j0 + job->width, g->n - 1)) + at; /* of the columns that follow */
    for (int64_t j = 0; j < job->width; j++) {
        rows[j] = j < cols ? peft__gemm_stored_row(&g->b, j0 + j) + at : rows[j - 1]; /* past the last, it again */
    }
    for (int64_t k = 0; k < g->k; k += job->kc) {
        const int64_t n = PEFT__MIN(g->k - k, job->kc), bytes = n / job->block.elems * job->block.bytes;
        memset(sums, 0, (size_t)g->m * sizeof sums[0]);
        job->run->k->narrow(g->b.dtype, g->a + k, g->lda, g->m, rows, n, next, sums[0]);
        narrow_put(job, j0, cols, sums, k == 0, k + n == g->k);
        next += job->width * bytes;
        for (int64_t j = 0; k + n < g->k && j < job->width; j++) { rows[j] += bytes; }
    }
}

static void narrow_task(void *arg, int64_t task, int32_t worker) {
    const narrow_job *job = arg;
    const int64_t end = PEFT__MIN((task + 1) * job->cols, job->args->n);
    (void)worker;
    for (int64_t j = task * job->cols; j < end; j += job->width) { narrow_columns(job, j, PEFT__MIN(end - j, job->width)); }
}

void peft__narrow(const peft__run *run, const peft__gemm_args *g, int64_t kc) {
    narrow_job job = {.run = run, .args = g, .kc = kc, .width = (int64_t)NARROW_VECS * run->k->lane,
                      .block = peft__dtype_block_of(g->b.dtype)};
    const int64_t groups = (g->n + job.width - 1) / job.width, tasks = peft__gemm_tasks(run, g);
    job.cols = (groups + tasks - 1) / tasks * job.width;
    peft__pool_run(run->pool, narrow_task, &job, (g->n + job.cols - 1) / job.cols);
}
