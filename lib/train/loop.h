/* loop.h - what trainer.c, trainer_plan.c, jobs.c, loop.c, order.c and checkpoint.c share. */
#ifndef PEFT_LOOP_H
#define PEFT_LOOP_H

#include "train/train.h"

static inline peft__job *peft__trainer_job(const struct peft_trainer *t, size_t i) { return &PEFT__VEC_AT(&t->jobs, peft__job, i); }

static inline peft__member *peft__trainer_member(const struct peft_trainer *t, const peft__job *job, size_t i) {
    return &PEFT__VEC_AT(&t->members, peft__member, PEFT__VEC_AT(&job->members, size_t, i));
}

/* Fills order for an epoch: the same for a seed and an epoch, whatever came before. */
void peft__order_epoch(const struct peft_trainer *t, peft__job *job, int64_t epoch);
#ifdef PEFT_MINIMAL
#define peft__trainer_profile_free(t) ((void)0)
#else
void peft__trainer_profile_free(struct peft_trainer *t);
#endif

/* ---- hooks.c: what the host adds to a step ------------------------------------------------------------------------------------- */

bool peft__hooks_loss(void *trainer, peft__loss_part *part); /* of a frame */
/* Gradients and sums of the active jobs become those of all processes: PEFT_E_CALLBACK. */
peft_status peft__hooks_reduce(struct peft_trainer *t);

/* ---- jobs.c: several at a time ------------------------------------------------------------------------------------------------ */

/* A second job beside those that there are: PEFT_E_UNSUPPORTED, PEFT_E_EXISTS, PEFT_E_BUSY where it cannot be. */
peft_status peft__jobs_check(const struct peft_trainer *t, const peft__job *job);
/* Rows of a pass for each job. */
peft_status peft__jobs_share(struct peft_trainer *t);
/* Which of the jobs the tape is for, and their expression. */
peft_status peft__jobs_activate(struct peft_trainer *t);
/* Puts a job among n that are in the order of their texts. */
void peft__jobs_insert(peft__job **list, size_t n, peft__job *job);
/* What the tape is recorded with. */
const peft__expression *peft__jobs_expression(const struct peft_trainer *t);
/* `group` of the room for rows of an active job. */
int32_t peft__jobs_group(const struct peft_trainer *t, const peft__job *job);
/* The tape is made for this one. */
peft_status peft__jobs_only(struct peft_trainer *t, peft__job *job);
void peft__jobs_end(struct peft_trainer *t, peft__job *job, int32_t state, const char *error);
/* PEFT_E_NUMERIC: says what of a job's step is no finite number, its loss or a gradient, and the first tensor that has such. */
peft_status peft__jobs_fail(const struct peft_trainer *t, const peft__job *job);
/* Every row of the batch is of a job that the tape is for: PEFT_E_INVALID otherwise. */
peft_status peft__jobs_batch(const struct peft_trainer *t, const struct peft_batch *b);
peft__job *peft__jobs_of(const struct peft_trainer *t, const struct peft_batch *b, size_t row);
int64_t peft__jobs_before(const struct peft_batch *b, size_t row); /* rows of its job that come before it */
/* JSON array: how each job stands. */
void peft__jobs_json(const struct peft_trainer *t, peft__json_out *j);

/* ---- checkpoint.c ------------------------------------------------------------------------------------------------------------- */

#define PEFT__CHECKPOINT_FILE "state.safetensors"
typedef struct peft__checkpoint_read { /* what the state says */
    int64_t parameters, rows, tokens, seed, step, optimizer_step, epoch, position;
    int64_t layout, data, order, accumulated_rows, state, worse;
    const char *adapter, *method, *optimizer;
    double best_loss, accumulated, accumulated_loss;
} peft__checkpoint_read;
/* PEFT_E_VERSION for the state of a newer library, of one job or of several. */
peft_status peft__checkpoint_version(const peft__json *s, const char *path);
peft_status peft__checkpoint_parse(const peft__json *s, const char *path, peft__checkpoint_read *r);
/* PEFT_E_FORMAT where the file's checksum is not that of what it holds. A file without one is as good as any. */
peft_status peft__checkpoint_checksum(const peft__safetensors *file, const char *state, const char *path);

#endif
