/* tensor.h - layer 2: frozen weights as views of the model's file.
 *
 * A weight is never copied: products read it through a peft__operand, packed or dequantised by tile. Fused, transposed and
 * row-permuted storage is part of the view, so everything above sees Hugging Face's shapes and row order. */
#ifndef PEFT_TENSOR_H
#define PEFT_TENSOR_H

#include "base/base.h"
#include "base/findings.h"
#include "kernels/kernels.h"

typedef struct peft__weight {
    const char *name;      /* Hugging Face name, owned by the model */
    const uint8_t *data;   /* into the mapping (or owned by the model); first stored row of the view */
    int32_t dtype;         /* PEFT_DTYPE_* */
    int64_t rows, cols;    /* logical [out, in]; a vector is [1, n] */
    bool transposed;       /* stored [in][out]: GPT-2's Conv1D */
    int32_t interleave;    /* head_dim when q, k rows are stored in GGUF's pair order, else 0 */
    int32_t heads;         /* heads whose queries, keys and values are rows of a fused matrix, stored part by part (GGUF), else 0 */
    int64_t row_bytes;     /* between stored rows */
    int64_t first;         /* element offset within each stored row */
} peft__weight;

size_t peft__dtype_block_bytes(int32_t dtype);   /* 0: unknown */
int64_t peft__dtype_elems(int32_t dtype);        /* elements of a block; 0: unknown */
const char *peft__dtype_name(int32_t dtype);     /* "F32"; "?" */
/* Bytes of n elements (n a multiple of the block). */
size_t peft__dtype_bytes(int32_t dtype, int64_t n);

/* Where row r of heads of d rows (d even) stands in GGUF's pair order, and what stands at r there. */
int64_t peft__pair_row(int64_t d, int64_t r);
int64_t peft__unpair_row(int64_t d, int64_t r);
/* Where row (h*3 + p)*d + i of a fused matrix of heads of d rows stands when it is stored part by part; and the way back. */
int64_t peft__fused_row(int64_t heads, int64_t d, int64_t r);
int64_t peft__unfused_row(int64_t heads, int64_t d, int64_t r);
int64_t peft__weight_stored_row(const peft__weight *w, int64_t r); /* where logical row r stands among the stored ones */

/* x W' of a Linear: k = cols, n = rows; and dy W of its backward pass: k = rows, n = cols. */
peft__operand peft__weight_forward(const peft__weight *w);
peft__operand peft__weight_backward(const peft__weight *w);
/* A dense [rows, cols] matrix of reals as an operand: forward (x W') and backward (dy W). */
peft__operand peft__real_forward(const peft__real *w, int64_t cols);
peft__operand peft__real_backward(const peft__real *w, int64_t cols);

/* Logical row r, dequantised: out[cols]. Not for transposed weights with a quantised type. */
void peft__weight_row(const peft__kernels *k, const peft__weight *w, int64_t r, peft__real *out);
/* The whole logical matrix, dequantised: out[rows * cols]. */
void peft__weight_read(const peft__kernels *k, const peft__weight *w, peft__real *out);

/* float <-> half and bfloat16, round to nearest even. */
uint16_t peft__f32_to_f16(float v);
static inline uint16_t peft__f32_to_bf16(float v) { /* here, for loops that become vectors */
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? u >> 16 | 64u /* a quiet NaN stays one */ : (u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}
float peft__f16_to_f32(uint16_t v);

/* quantise.c: rows of floats to a stored type (F32, F16, BF16, Q8_0, Q4_0, Q4_1), for merged models. n a multiple of the
 * block. PEFT_E_UNSUPPORTED for other types. */
bool peft__can_quantise(int32_t dtype);
peft_status peft__quantise(int32_t dtype, const float *src, int64_t n, void *dst);

/* scan.c: values that are no numbers. */
typedef struct peft__scan_result {
    int64_t values;        /* all */
    int64_t nans, infinities;
    int64_t first;         /* position of the first of them; -1: none */
    bool zeros;            /* every value is 0 */
} peft__scan_result;
enum { PEFT__SCAN_NAME = 1024 }; /* bytes of 'tensor "NAME"' */
void peft__scan(const peft__kernels *k, int32_t dtype, const uint8_t *data, int64_t n, peft__scan_result *out);
/* Adds what it found, if anything, as an error or a warning; dims: slowest first. */
bool peft__scan_report(const peft__scan_result *r, int32_t ndim, const int64_t *dims, const char *file, const char *name, bool error,
                       peft__findings *f);

#endif
