/* loop.h - what trainer.c, loop.c, order.c and checkpoint.c share. */
#ifndef PEFT_LOOP_H
#define PEFT_LOOP_H

#include "train/train.h"

static inline peft__job *peft__trainer_job(const struct peft_trainer *t) { return &PEFT__VEC_AT(&t->jobs, peft__job, 0); }

static inline peft__member *peft__trainer_member(const peft__job *job, size_t i) {
    return &PEFT__VEC_AT(&job->members, peft__member, i);
}

/* Rows of a batch: batch_size, or what batch_split divides. */
static inline int64_t peft__trainer_batch(const struct peft_trainer *t, const peft__job *job) {
    int64_t divided = peft__expression_rows(&job->expression);
    return divided > 0 ? divided : peft__opt_int(&t->opts, "batch_size");
}

/* Fills order for an epoch: the same for a seed and an epoch, whatever came before. */
void peft__order_epoch(const struct peft_trainer *t, peft__job *job, int64_t epoch);

#endif
