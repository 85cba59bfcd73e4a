/* generic.h - the plain C table: every entry of peft__kernels as peft__generic_<entry>, for float and double; and what the
 * other tables share with it. */
#ifndef PEFT_KERNELS_GENERIC_H
#define PEFT_KERNELS_GENERIC_H

#include "kernels/entries.h"

/* Bytes and elements of one block of a stored type: {2, 1} for F16, {18, 32} for Q4_0, {144, 256} for Q4_K; {0, 0} for a
 * type that dequant does not know. */
typedef struct peft__dtype_block {
    int32_t bytes, elems;
} peft__dtype_block;
peft__dtype_block peft__dtype_block_of(int32_t dtype);

/* The 12 bytes of a Q4_K or Q5_K block as eight 6-bit scales and eight 6-bit mins. */
void peft__dequant_k_scales(const uint8_t *packed, uint8_t scale[8], uint8_t least[8]);

#endif
