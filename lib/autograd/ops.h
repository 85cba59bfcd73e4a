/* ops.h - what the op files share. */
#ifndef PEFT_OPS_H
#define PEFT_OPS_H

#include "autograd/autograd.h"

/* d in[j] += d out[0], or nothing where both are the same memory. */
void peft__op_pass_grad(peft__exec *x, const peft__op *op, int32_t j);
/* dW[n, k] += scale * dy[m, n]' in[m, k] */
void peft__op_outer(const peft__exec *x, peft__real *dw, const peft__real *dy, int64_t ld_dy, const peft__real *in,
                    int64_t ld_in, int64_t m, int64_t n, int64_t k, peft__real scale);
/* db[cols] += scale * sum over rows of dy, rows in order */
void peft__op_column_sums(const peft__exec *x, peft__real *db, const peft__real *dy, int64_t ld, int64_t rows, int64_t cols,
                          peft__real scale);
/* A parameter that the tape's backward pass adds gradients to. */
bool peft__op_trained(const peft__tape *t, int32_t param);
enum {
    PEFT__OP_GRAIN = 1 << 14,    /* elements of one piece of an element-wise loop */
    PEFT__OP_MAX_WORKERS = 1024, /* as peft_context_set_threads allows */
    PEFT__OP_HEAD_ROWS = 256     /* labelled tokens of one chunk of logits, at most */
};
/* The host's loss of a part of the batch into the sums. */
void peft__op_host_loss(peft__frame *f, const peft__loss_part *p);
int64_t peft__op_grain(int64_t cols); /* rows of such a piece */

#endif
