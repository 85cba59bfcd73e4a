/* kinds.h - the optimisers there are: one file each. */
#ifndef PEFT_OPTIM_KINDS_H
#define PEFT_OPTIM_KINDS_H

#include "optim/optim.h"

extern const peft__optim_kind peft__optim_adamw, peft__optim_sgd, peft__optim_lion;

#endif
