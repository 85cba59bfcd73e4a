/* scratch.h - what each driver of kernels.h wants of a worker's scratch; peft__scratch_size is the largest of them. */
#ifndef PEFT_KERNELS_SCRATCH_H
#define PEFT_KERNELS_SCRATCH_H

#include "kernels/kernels.h"

size_t peft__gemm_scratch(const peft__kernels *k); /* bytes, a multiple of 64 */
size_t peft__bf16_scratch(void);
size_t peft__attn_forward_scratch(const peft__kernels *k, int64_t head_dim);
size_t peft__attn_backward_scratch(const peft__kernels *k, int64_t head_dim);

#endif
