/* hooks.c - what the host adds to a step: a loss of its own, and the sums over several processes.
 *
 *   all processes   g = sum over ranks of g_rank, and so of losses, labelled tokens and rows: then each makes the same update
 *
 * Row i of a pass is of process i mod size. A step adds up the sums first and then the gradients of each adapter. A cancel of one
 * process becomes one of all.
 *
 * Left out: transports (MPI, sockets), which are the host's; reducing while the backward pass still runs. */
#include <math.h>

#include "train/loop.h"

static peft__job *hooks_job(const struct peft_trainer *t, int32_t group) { return t->active[t->n_active > 1 ? group : 0]; }

bool peft__hooks_loss(void *trainer, peft__loss_part *part) {
    const struct peft_trainer *t = trainer;
    size_t n = (size_t)(part->rows * part->cols), rows = (size_t)part->rows;
    uint64_t *keys = peft__alloc(&t->ctx->mem, rows * sizeof *keys);
    float *values = sizeof(peft__real) == sizeof(float) ? (float *)(void *)part->values : peft__alloc(&t->ctx->mem, n * sizeof *values);
    bool good = keys != NULL && values != NULL, copied = (void *)values != (void *)part->values;
    peft_loss_chunk chunk = {.struct_size = sizeof chunk, .job = hooks_job(t, part->group)->expression.text, .rows = part->rows,
                             .columns = part->cols, .values = values, .batch_rows = part->batch_rows, .data_rows = keys,
                             .tokens = part->tokens, .labels = part->labels};
    part->weight = (double)part->rows;
    for (size_t r = 0; r < rows && good; r++) { keys[r] = t->room.frame.row_keys[part->batch_rows[r]]; }
    for (size_t i = 0; i < n && good && copied; i++) { values[i] = (float)part->values[i]; }
    good = good && t->loss(t->loss_user, &chunk, &part->loss, &part->weight) == 0;
    for (size_t i = 0; i < n && good && copied; i++) { part->values[i] = (peft__real)values[i]; }
    if (copied) { peft__free(&t->ctx->mem, values, n * sizeof *values); }
    peft__free(&t->ctx->mem, keys, rows * sizeof *keys);
    return good;
}

/* ---- several processes ------------------------------------------------------------------------------------------------------- */

enum { HOOKS_SUMS = 4 }; /* of a job: divisor, loss, rows, tokens */

static peft_status hooks_add_up(const struct peft_trainer *t, float *values, size_t n) {
    if (t->reduce(t->reduce_user, values, n) == 0) { return PEFT_OK; }
    return peft__fail(PEFT_E_CALLBACK, "the all-reduce callback ended step %lld", (long long)t->step + 1);
}

static peft_status hooks_sums(struct peft_trainer *t) {
    peft_status st = PEFT_OK;
    float sums[PEFT__GROUPS * HOOKS_SUMS + 1];
    size_t n = 0;
    for (size_t i = 0; i < t->n_active; i++, n += HOOKS_SUMS) {
        const peft__job *job = t->active[i];
        sums[n] = (float)job->accumulated;
        sums[n + 1] = (float)job->accumulated_loss;
        sums[n + 2] = (float)job->accumulated_rows;
        sums[n + 3] = (float)job->tokens;
    }
    sums[n] = atomic_load(&t->cancel) ? 1 : 0;
    TRY(hooks_add_up(t, sums, n + 1));
    if (sums[n] > 0) { atomic_store(&t->cancel, true); }
    for (size_t i = 0; i < t->n_active; i++) {
        peft__job *job = t->active[i];
        const float *own = sums + i * HOOKS_SUMS;
        job->accumulated = (double)own[0];
        job->accumulated_loss = (double)own[1];
        job->accumulated_rows = (int64_t)own[2];
        job->tokens = (int64_t)own[3];
        job->bad = !isfinite(job->accumulated_loss);
    }
out:
    return st;
}

static peft_status hooks_gradients(struct peft_trainer *t, peft__real *grads, size_t n) {
#ifdef PEFT_DOUBLE
    for (size_t i = 0; i < n; i++) { /* one at a time: this build is for tests */
        float v = (float)grads[i];
        peft_status st = hooks_add_up(t, &v, 1);
        if (st != PEFT_OK) { return st; }
        grads[i] = v;
    }
    return PEFT_OK;
#else
    return hooks_add_up(t, grads, n);
#endif
}

peft_status peft__hooks_reduce(struct peft_trainer *t) {
    peft_status st = PEFT_OK;
    if (t->reduce == NULL) { return PEFT_OK; }
    TRY(hooks_sums(t));
    for (size_t i = 0; i < t->members.len; i++) {
        peft__member *m = &PEFT__VEC_AT(&t->members, peft__member, i);
        TRY(hooks_gradients(t, m->grads, (size_t)m->adapter->n_trainable));
    }
out:
    return st;
}
