/* rotate.h - what OFT and BOFT share. */
#ifndef PEFT_ROTATE_H
#define PEFT_ROTATE_H

#include "peft/method.h"

/* Each row w of weight [rows, block count] becomes w R', R of the values of a level; undo: w again. PEFT_E_NUMERIC where a
 * series has no inverse. */
peft_status peft__rotate_weight(peft__mem *mem, const peft__run *run, const peft__rotation *r, const peft__real *values,
                                bool undo, int64_t rows, peft__real *weight);
/* PEFT_E_UNSUPPORTED unless strength is 1 or -1: a part of a rotation is none. */
peft_status peft__rotate_check_strength(const peft__adapter *a, const peft__attachment *at);
/* The option `count` is given: `size`, whose default is another way to say the same, is off, unless it was given too. */
peft_status peft__rotate_choose(peft__adapter *a, const char *count, const char *size);

#endif
