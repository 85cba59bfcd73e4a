/* rows.c - a loop over rows in pieces, spread over the pool's workers.
 *
 * The pieces depend on n and the grain alone, so that a function that sums within a piece gives the same bits with any
 * number of threads. Left out: anything that combines pieces. */
#include "kernels/kernels.h"

typedef struct peft__rows_job {
    peft__rows_fn fn;
    void *arg;     /* of fn */
    int64_t n;     /* rows */
    int64_t grain; /* rows of a piece, the last may be shorter */
} peft__rows_job;

static void kernels_rows_task(void *arg, int64_t task, int32_t worker) {
    const peft__rows_job *job = (const peft__rows_job *)arg;
    int64_t begin = task * job->grain, end = PEFT__MIN(begin + job->grain, job->n);
    job->fn(job->arg, begin, end, worker);
}

void peft__rows(const peft__run *run, int64_t n, int64_t grain, peft__rows_fn fn, void *arg) {
    peft__rows_job job = {fn, arg, n, grain < 1 ? 1 : grain};
    if (n > 0) { peft__pool_run(run->pool, kernels_rows_task, &job, (n + job.grain - 1) / job.grain); }
}
