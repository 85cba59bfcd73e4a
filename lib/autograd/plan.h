/* plan.h - what plan.c (order of steps) and place.c (places in memory) share. */
#ifndef PEFT_PLAN_H
#define PEFT_PLAN_H

#include "autograd/autograd.h"

/* Memory that several values share: out[0] of an in-place op has its input's, d in[0] of an add has d out's. */
typedef struct peft__aliases {
    int32_t *data, *grad; /* [values]: the value whose memory it is */
} peft__aliases;

/* Bytes of a value for the largest batch, a multiple of 64. */
size_t peft__plan_value_bytes(const peft__tape *t, const peft__caps *caps, peft__val v);
/* Rows of a space for the largest batch. */
int64_t peft__plan_rows(const peft__tape *t, const peft__caps *caps, int32_t space, int64_t fixed);
void peft__plan_alias(const peft__tape *t, peft__aliases *al);
#ifdef PEFT_MINIMAL
#define peft__plan_packs(p, v) false
#else
#define peft__plan_packs(p, v) ((p)->packed != NULL && (p)->packed[v] >= 0)
/* pack.c: decides which memory is packed, from what is dropped; its bytes; the steps themselves. */
void peft__pack_choose(const peft__tape *t, peft__plan *p, const peft__aliases *al);
size_t peft__pack_bytes(const peft__tape *t, const peft__caps *caps, peft__val v);
void peft__pack_step(peft__exec *x, const peft__plan_step *s);
/* together.c: marks the steps that groups may run beside each other; runs those that begin with s so, false: not these. */
void peft__plan_together(peft__plan *p, const peft__tape *t, const peft__aliases *al);
bool peft__exec_together(peft__exec *x, const peft__plan_step *s);
#endif
/* Fills place, rebuilt_place, grad_place and block_bytes from steps and dropped. */
peft_status peft__plan_place(peft__plan *p, const peft__tape *t, const peft__aliases *al);

#endif
