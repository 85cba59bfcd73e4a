/* loop.h - what trainer.c, loop.c, order.c and checkpoint.c share. */
#ifndef PEFT_LOOP_H
#define PEFT_LOOP_H

#include "train/train.h"

static inline peft__job *peft__trainer_job(const struct peft_trainer *t) { return &PEFT__VEC_AT(&t->jobs, peft__job, 0); }

/* Fills order for an epoch: the same for a seed and an epoch, whatever came before. */
void peft__order_epoch(const struct peft_trainer *t, peft__job *job, int64_t epoch);

#endif
