/* narrow.c - C = A B' + beta C + bias for a row or two of A, straight from B as it is stored: what decoding consists of.
 *
 *            n: columns of four vectors = rows of stored B       Such columns at a time: their rows of B pass by once, a chunk of K
 *       +--+ +-----+-----+-----+                                 after the other, while the same chunk of the next columns' rows is
 *    m  |A | |     |     |     |   k                             asked for. B is read once and never written anywhere: the memory
 *       +--+ +-----+-----+-----+                                 that holds it should be the limit.
 *
 * The kernel adds each column's products in order of k from zero for each block of K, and blocks are added in order, as in gemm.c:
 * the same bits. Types for which it has no code are dequantised first, a chunk at a time, which stays in L1.
 *
 * Left out: alpha other than 1, B stored [k][n]; three rows and more, for which packing pays. */
#include "kernels/gemm.h"
#include "kernels/generic/generic.h"

enum { NARROW_ROWS = 2, NARROW_VECS = 4 };

typedef struct narrow_job {
    const peft__run *run;
    const peft__gemm_args *args;
    int64_t kc, width;       /* most of K in a block; columns at a time */
    int64_t cols;            /* columns of a task, a multiple of width */
    peft__dtype_block block; /* of B's type */
    bool direct;             /* the kernel reads this type */
} narrow_job;

bool peft__narrow_fits(const peft__run *run, const peft__gemm_args *g) {
    const bool aligned = g->b.dtype != PEFT__DTYPE_REAL ||
                         ((uintptr_t)g->b.data % sizeof(peft__real) == 0 && g->b.row_bytes % (int64_t)sizeof(peft__real) == 0);
    return g->m <= NARROW_ROWS && run->k->narrow != NULL && g->b.trans && !g->a_trans && g->alpha == 1 && aligned;
}

/* n elements of `width` rows as reals in `stage`, whose rows are PEFT__GEMM_CHUNK apart. */
static void narrow_stage(const narrow_job *job, const uint8_t *const *stored, int64_t n, peft__real *stage, const uint8_t **rows) {
    for (int64_t j = 0; j < job->width; j++) {
        if (j > 0 && stored[j] == stored[j - 1]) { /* past the last column */
            rows[j] = rows[j - 1];
            continue;
        }
        peft__real *to = stage + j * PEFT__GEMM_CHUNK;
        job->run->k->dequant(job->args->b.dtype, stored[j], n, to);
        rows[j] = (const uint8_t *)to;
    }
}

/* n elements from element k on of the rows of B, of which there are `width` pointers to it, for each row of A. */
static void narrow_chunk(const narrow_job *job, const uint8_t *const *stored, int64_t k, int64_t n, const uint8_t *next,
                         peft__real *stage, peft__real (*sums)[PEFT__TILE_COLS]) {
    const peft__gemm_args *g = job->args;
    const uint8_t *staged[PEFT__TILE_COLS], *const *rows = stored;
    if (!job->direct) {
        peft__gemm_fetch(next, 0, job->width * n / job->block.elems * job->block.bytes);
        narrow_stage(job, stored, n, stage, staged);
        rows = staged;
        next = (const uint8_t *)stage; /* the kernel would ask for the bytes of reals */
    }
    for (int64_t i = 0; i < g->m; i++) {
        job->run->k->narrow(job->direct ? g->b.dtype : PEFT__DTYPE_REAL, g->a + i * g->lda + k, rows, n, next, sums[i]);
    }
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
static void narrow_columns(const narrow_job *job, int64_t j0, int64_t cols, peft__real *stage) {
    const peft__gemm_args *g = job->args;
    const uint8_t *rows[PEFT__TILE_COLS];
    peft__real sums[NARROW_ROWS][PEFT__TILE_COLS];
    const int64_t at = g->b.first / job->block.elems * job->block.bytes, chunk = job->direct ? job->kc : PEFT__GEMM_CHUNK;
    const uint8_t *next = peft__gemm_stored_row(&g->b, PEFT__MIN(j0 + job->width, g->n - 1)) + at; /* of the columns that follow */
    for (int64_t j = 0; j < job->width; j++) {
        rows[j] = j < cols ? peft__gemm_stored_row(&g->b, j0 + j) + at : rows[j - 1];
    }
    for (int64_t k0 = 0; k0 < g->k; k0 += job->kc) {
        const int64_t end = PEFT__MIN(k0 + job->kc, g->k);
        memset(sums, 0, sizeof sums);
        for (int64_t k = k0; k < end; k += chunk) {
            const int64_t n = PEFT__MIN(end - k, chunk), bytes = n / job->block.elems * job->block.bytes;
            narrow_chunk(job, rows, k, n, next, stage, sums);
            next += job->width * bytes;
            for (int64_t j = 0; k + n < g->k && j < job->width; j++) { rows[j] += bytes; }
        }
        narrow_put(job, j0, cols, sums, k0 == 0, end == g->k);
    }
}

static void narrow_task(void *arg, int64_t task, int32_t worker) {
    const narrow_job *job = arg;
    const int64_t end = PEFT__MIN((task + 1) * job->cols, job->args->n);
    peft__real *stage = (peft__real *)(void *)(job->run->scratch + (size_t)worker * job->run->scratch_size);
    for (int64_t j = task * job->cols; j < end; j += job->width) {
        narrow_columns(job, j, PEFT__MIN(end - j, job->width), stage);
    }
}

void peft__narrow(const peft__run *run, const peft__gemm_args *g, int64_t kc) {
    narrow_job job = {.run = run, .args = g, .kc = kc, .width = (int64_t)NARROW_VECS * run->k->lane,
                      .block = peft__dtype_block_of(g->b.dtype)};
    const int64_t groups = (g->n + job.width - 1) / job.width, tasks = peft__gemm_tasks(run, g);
    peft__real none[PEFT__TILE_COLS];
    job.direct = run->k->narrow(g->b.dtype, g->a, NULL, 0, NULL, none);
    job.cols = (groups + tasks - 1) / tasks * job.width;
    peft__pool_run(run->pool, narrow_task, &job, (g->n + job.cols - 1) / job.cols);
}
