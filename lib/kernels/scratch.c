/* scratch.c - the scratch memory of one worker: the most that any driver of kernels.h asks for. */
#include "kernels/scratch.h"

size_t peft__scratch_size(const peft__kernels *k, int64_t head_dim, int64_t max_keys) {
    const size_t gemm = peft__gemm_scratch(k), forward = peft__attn_forward_scratch(k, head_dim);
#ifdef PEFT_MINIMAL
    const size_t bf16 = 0;
#else
    const size_t bf16 = peft__bf16_scratch();
#endif
    const size_t backward = peft__attn_backward_scratch(k, head_dim);
    (void)max_keys; /* attention works by blocks of a fixed number of keys */
    return PEFT__MAX(PEFT__MAX(gemm, bf16), PEFT__MAX(forward, backward));
}
