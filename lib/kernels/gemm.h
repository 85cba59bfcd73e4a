/* gemm.h - what gemm.c, gemm_bf16.c, narrow.c and tall.c share. */
#ifndef PEFT_KERNELS_GEMM_H
#define PEFT_KERNELS_GEMM_H

#include "kernels/kernels.h"

enum {
    PEFT__GEMM_KC = 640,            /* most of K in one block */
    PEFT__GEMM_B_BYTES = 672 << 10, /* of a worker's scratch, for B's block: 256 columns of PEFT__GEMM_KC floats, and the padding */
    PEFT__GEMM_PAD = 16,            /* numbers between panels, and slivers: off each other's L1 sets */
    PEFT__GEMM_AHEAD = 8            /* stored rows asked for before they are copied: each is another page */
};

/* Where logical row `row` of the stored matrix lies. */
const uint8_t *peft__gemm_stored_row(const peft__operand *b, int64_t row);
/* Is B stored as reals that can be read in place? */
bool peft__gemm_plain(const peft__operand *b);
/* And these as [k][n], row after row? */
bool peft__gemm_rowwise(const peft__operand *b);
/* Rows of the next sliver of at most mr: the last two share what is left, for 4 + 3 is faster than 6 + 1. */
static inline int32_t peft__gemm_sliver(int32_t mr, int64_t left) {
    return (int32_t)(left <= mr ? left : left < 2 * mr ? (left + 1) / 2 : mr);
}
/* n numbers side by side into a row of panels: nr at dst, the next nr `panel` numbers further, zeros after the last. */
void peft__gemm_spread(peft__real *dst, const peft__real *src, int64_t n, int32_t nr, int64_t panel);
/* Tasks that a product should be cut into; 1: not worth waking a thread. */
int64_t peft__gemm_tasks(const peft__run *run, const peft__gemm_args *g);

/* Asks for the cache lines of `bytes` from p + ahead on, which may lie past the end of anything. */
static inline void peft__gemm_fetch(const uint8_t *p, int64_t ahead, int64_t bytes) {
#if defined(__GNUC__)
    const uintptr_t from = (uintptr_t)p + (uintptr_t)ahead;
    for (uintptr_t i = 0; i < (uintptr_t)bytes; i += 64) { __builtin_prefetch((const void *)(from + i)); }
#else
    (void)p;
    (void)ahead;
    (void)bytes;
#endif
}

/* Are rows so many bytes apart in so few sets of the caches that hundreds of them push each other out? */
static inline bool peft__gemm_aliased(int64_t row_bytes) {
    return row_bytes % 2048 == 0;
}

/* narrow.c: C of peft__gemm, in the same bits; k is cut into the same blocks of kc. */
bool peft__narrow_fits(const peft__run *run, const peft__gemm_args *g);
void peft__narrow(const peft__run *run, const peft__gemm_args *g, int64_t kc);

/* tall.c: likewise. */
bool peft__tall_fits(const peft__gemm_args *g);
void peft__tall(const peft__run *run, const peft__gemm_args *g, int64_t kc);

/* gemm_bf16.c: C of peft__gemm with both operands rounded to bfloat16, where the run and B let it. */
bool peft__bf16_fits(const peft__run *run, const peft__gemm_args *g);
void peft__gemm_bf16(const peft__run *run, const peft__gemm_args *g);

#endif
