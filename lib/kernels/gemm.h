/* gemm.h - what gemm.c and narrow.c share. */
#ifndef PEFT_KERNELS_GEMM_H
#define PEFT_KERNELS_GEMM_H

#include "kernels/kernels.h"

enum { PEFT__GEMM_CHUNK = 256 }; /* elements of a stored row that are dequantised at a time: whole blocks of every type */

/* Where logical row `row` of the stored matrix lies. */
const uint8_t *peft__gemm_stored_row(const peft__operand *b, int64_t row);
/* Asks for the cache lines of `bytes` from p + ahead on, which may lie past the end of anything. */
void peft__gemm_fetch(const uint8_t *p, int64_t ahead, int64_t bytes);
/* Tasks that a product should be cut into; 1: not worth waking a thread. */
int64_t peft__gemm_tasks(const peft__run *run, const peft__gemm_args *g);

/* narrow.c: C of peft__gemm, in the same bits; k is cut into the same blocks of kc. */
bool peft__narrow_fits(const peft__run *run, const peft__gemm_args *g);
void peft__narrow(const peft__run *run, const peft__gemm_args *g, int64_t kc);

#endif
