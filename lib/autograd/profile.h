/* profile.h - where an execution's time goes, by kind of op and phase. An exec with a profile counts into it; without, which is the
 * rule, it costs one comparison a step. Not in a minimal build. */
#ifndef PEFT_AUTOGRAD_PROFILE_H
#define PEFT_AUTOGRAD_PROFILE_H

#include "autograd/autograd.h"

#ifndef PEFT_MINIMAL

enum { PEFT__PROFILE_LINES = 128 }; /* kinds x phases of one tape; those beyond have no line */

typedef struct peft__profile_line {
    const peft__op_kind *kind;
    int32_t phase;         /* PEFT__PHASE_* */
    int64_t calls;         /* steps of the plan */
    double seconds;        /* wall time of them */
    double flops;          /* 2 x multiply-adds, by the kind's own account; 0 for those that have none */
    double bytes;          /* the least that must be moved: what is read and written, each once */
} peft__profile_line;

typedef struct peft__profile {
    int64_t runs;          /* of the tape */
    double seconds;        /* of them, all steps together */
    int32_t n;
    peft__profile_line line[PEFT__PROFILE_LINES]; /* as they came first */
} peft__profile;

/* The step has run in x and took so long. */
void peft__profile_add(peft__profile *p, const peft__exec *x, const peft__plan_step *s, double seconds);
const char *peft__profile_phase(int32_t phase); /* "forward" */

#endif
#endif
