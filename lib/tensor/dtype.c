/* dtype.c - the element types of weights: bytes and elements of a block, and names.
 *
 * Block sizes are those of ggml (ggml-common.h). The table is apart from io/'s, which this layer may not include and which
 * also lists types that only need to be skipped in a file. */
#include "tensor/tensor.h"

typedef struct dtype_info {
    int32_t id;
    uint16_t bytes, elems; /* of a block, in a block */
    const char *name;
} dtype_info;

static const dtype_info dtype_table[] = {
    {PEFT_DTYPE_F32, 4, 1, "F32"},      {PEFT_DTYPE_F16, 2, 1, "F16"},      {PEFT_DTYPE_BF16, 2, 1, "BF16"},
    {PEFT_DTYPE_Q4_0, 18, 32, "Q4_0"},  {PEFT_DTYPE_Q4_1, 20, 32, "Q4_1"},  {PEFT_DTYPE_Q5_0, 22, 32, "Q5_0"},
    {PEFT_DTYPE_Q5_1, 24, 32, "Q5_1"},  {PEFT_DTYPE_Q8_0, 34, 32, "Q8_0"},  {PEFT_DTYPE_Q4_K, 144, 256, "Q4_K"},
    {PEFT_DTYPE_Q5_K, 176, 256, "Q5_K"}, {PEFT_DTYPE_Q6_K, 210, 256, "Q6_K"},
#ifdef PEFT_DOUBLE
    {PEFT__DTYPE_REAL, (uint16_t)sizeof(peft__real), 1, "REAL"},
#endif
};

static const dtype_info *dtype_find(int32_t dtype) {
    for (size_t i = 0; i < PEFT__COUNT(dtype_table); i++) {
        if (dtype_table[i].id == dtype) { return &dtype_table[i]; }
    }
    return NULL;
}

size_t peft__dtype_block_bytes(int32_t dtype) {
    const dtype_info *d = dtype_find(dtype);
    return d != NULL ? d->bytes : 0;
}

int64_t peft__dtype_elems(int32_t dtype) {
    const dtype_info *d = dtype_find(dtype);
    return d != NULL ? d->elems : 0;
}

const char *peft__dtype_name(int32_t dtype) {
    const dtype_info *d = dtype_find(dtype);
    return d != NULL ? d->name : "?";
}

size_t peft__dtype_bytes(int32_t dtype, int64_t n) {
    const dtype_info *d = dtype_find(dtype);
    return d != NULL ? (size_t)(n / d->elems) * d->bytes : 0;
}
