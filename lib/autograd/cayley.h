/* cayley.h - rotations made of skew matrices, and how gradients come back from them. What op_rotate.c and merging share. */
#ifndef PEFT_CAYLEY_H
#define PEFT_CAYLEY_H

#include "autograd/autograd.h"

enum { PEFT__CAYLEY_WORK = 5 }; /* matrices [b, b] of scratch that either function below wants */

/* R of a skew q [b, b]; terms: of PEFT's Neumann series, 0: exact. work may not be q. */
void peft__cayley(const peft__run *run, int64_t b, int32_t terms, const peft__real *q, peft__real *r, peft__real *work);
/* g, the gradient of R, becomes that of all elements of q. */
void peft__cayley_back(const peft__run *run, int64_t b, int32_t terms, const peft__real *q, const peft__real *r, peft__real *g,
                       peft__real *work);
/* out = m^-1, m [b, b] is lost; false: m has none, and out is undefined. */
bool peft__cayley_invert(const peft__kernels *k, int64_t b, peft__real *m, peft__real *out);
/* peft__gemm for a task of the pool, whose run has one worker: no piece of it is wide enough to be cut into tasks. */
void peft__block_gemm(const peft__run *run, const peft__gemm_args *args);
/* The run of one worker of another. */
peft__run peft__run_alone(const peft__run *run, int32_t worker);

#endif
