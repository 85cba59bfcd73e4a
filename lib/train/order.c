/* order.c - the order of the rows in an epoch: a permutation that (seed, epoch) fixes, so that a run can go on anywhere.
 *
 * group_by_length sorts stretches of 50 batches of the shuffled rows by length (as transformers' LengthGroupedSampler does)
 * and then shuffles the batches. */
#include "train/loop.h"

static void order_shuffle(peft__rng *rng, int64_t *a, int64_t n, int64_t unit) {
    for (int64_t i = n / unit - 1; i > 0; i--) { /* whole units only: a short one stays last */
        int64_t j = (int64_t)peft__rng_below(rng, (uint64_t)i + 1);
        for (int64_t k = 0; k < unit; k++) {
            int64_t x = a[i * unit + k];
            a[i * unit + k] = a[j * unit + k];
            a[j * unit + k] = x;
        }
    }
}

/* Longest first; equal lengths keep their order. Shell's sort on (length, place) needs no room. */
static void order_sort(const struct peft_dataset *d, int64_t *a, int64_t n) {
    for (int64_t gap = n / 2; gap > 0; gap /= 2) {
        for (int64_t i = gap; i < n; i++) {
            int64_t x = a[i], len = peft__dataset_row(d, (size_t)x)->n, j = i;
            for (; j >= gap; j -= gap) {
                int64_t y = a[j - gap], other = peft__dataset_row(d, (size_t)y)->n;
                if (other > len || (other == len && y < x)) { break; }
                a[j] = y;
            }
            a[j] = x;
        }
    }
}

void peft__order_epoch(const struct peft_trainer *t, peft__job *job, int64_t epoch) {
    int64_t n = (int64_t)peft__dataset_size(job->train), batch = job->rows;
    peft__rng rng = {peft__mix64(t->seed ^ peft__mix64((uint64_t)epoch + 0x6f72646572U)), 0};
    for (int64_t i = 0; i < n; i++) { job->order[i] = i; }
    if (peft__opt_bool(&t->opts, "shuffle")) { order_shuffle(&rng, job->order, n, 1); }
    if (peft__opt_bool(&t->opts, "group_by_length")) {
        int64_t stretch = 50 * batch;
        for (int64_t i = 0; i < n; i += stretch) { order_sort(job->train, job->order + i, PEFT__MIN(stretch, n - i)); }
        if (peft__opt_bool(&t->opts, "shuffle")) { order_shuffle(&rng, job->order, n, batch); }
    }
    job->epoch = epoch;
    job->position = 0;
}
