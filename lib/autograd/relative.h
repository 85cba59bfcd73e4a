/* relative.h - biases of attention by relative position: the buckets of distances and the vectors that the kernels read. */
#ifndef PEFT_RELATIVE_H
#define PEFT_RELATIVE_H

#include "autograd/autograd.h"

/* The bucket of distance d = key position - query position. */
int64_t peft__relative_bucket(const peft__bias *b, int64_t d);

/* What an op keeps of a table. */
typedef struct peft__relative {
    peft__bias bias;         /* as it was described */
    int64_t heads;           /* columns of the table */
    int64_t ld;              /* distances that the kernels have at hand, see peft__attn_bias */
    const int32_t *bucket;   /* [ld]: of each of them; in the tape's arena */
} peft__relative;

/* Fails on the tape with PEFT_E_SHAPE or PEFT_E_INVALID where the table or its buckets are not as they say; NULL then. */
const peft__relative *peft__relative_make(peft__tape *t, const peft__bias *b, int64_t heads);
/* Scratch in reals; tokens, rows: at most so many queries in so many rows have a gradient (0: none has). */
size_t peft__relative_scratch(const peft__relative *r, int64_t tokens, int64_t rows);
/* Fills scratch and *out for a pass; d_table: where the table's gradient is added to, NULL: it is not wanted. Returns what is
 * behind the scratch of no gradients or, with d_table, of so many tokens and rows. */
peft__real *peft__relative_expand(const peft__relative *r, const peft__kernels *k, const peft__real *param, peft__real *d_table,
                                  int64_t tokens, int64_t rows, peft__real *scratch, peft__attn_bias *out);

#endif
