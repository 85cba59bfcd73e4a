/* gemm_avx512bf16.c - products in bfloat16 of the AVX-512 table: a 6 x 64 tile over words, and words made of floats.
 *
 *   word (kernels.h)       high half: element 2i + 1 along k | low half: element 2i
 *   VDPBF16PS acc, a, b    acc += a.high b.high, acc += a.low b.low: without exceptions, denormals are zero (Intel SDM 2, VDPBF16PS)
 *
 * The tile is tile.inc's with that instruction for the FMA. It always computes four vectors: columns past the last are a panel's
 * zeros, and such a part goes through a block of its own. Panels of words stored as they are come from pack_rows, a word being as
 * wide as a float.
 *
 * Left out: tiles of fewer columns (frozen matrices rarely end within 64); tall ones. */
#include "kernels/generic/generic.h"
#include "kernels/x86/x86.h"

#ifdef PEFT__X86

#include "kernels/x86/simd_avx512.h"

#ifndef PEFT_SIMDE
#undef V_TARGET
#define V_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c")))
#endif
#undef V_FMA
#define V_FMA(a, b, c) _mm512_dpbf16_ps((c), (__m512bh)(a), (__m512bh)(b))

#define TILE_MACROS_ONLY

#include "kernels/simd/tile.inc"

#undef TILE_MACROS_ONLY

#define BF16_SET(i, j)     V_STORE(c + (i) * ldc + (j) * V_LANES, c##i##_##j);
#define BF16_ADD(i, j)     V_STORE(c + (i) * ldc + (j) * V_LANES, V_ADD(V_LOAD(c + (i) * ldc + (j) * V_LANES), c##i##_##j));
#define BF16_ROW_SET(i, W) TILE_VECS_##W(BF16_SET, i)
#define BF16_ROW_ADD(i, W) TILE_VECS_##W(BF16_ADD, i)
#define BF16_FUNCTION(R)                                                                                                \
    V_TARGET static void avx512_bf16_##R(int64_t k, const float *a0, int64_t a_row, int64_t a_col, const float *b,      \
                                         int64_t ldb, float *c, int64_t ldc, bool first)                                \
    {                                                                                                                   \
        const float *a3 = a0 + ((R) > 3 ? 3 * a_row : 0), *a6 = a0, *a9 = a0;                                           \
        TILE_ROWS_##R(TILE_ROW_FETCH, 4)                                                                                \
        TILE_ROWS_##R(TILE_ROW_ZERO, 4)                                                                                 \
        for (; k > 0; k--) {                                                                                            \
            TILE_STEP(R, 4)                                                                                             \
        }                                                                                                               \
        if (first) {                                                                                                    \
            TILE_ROWS_##R(BF16_ROW_SET, 4)                                                                              \
        } else {                                                                                                        \
            TILE_ROWS_##R(BF16_ROW_ADD, 4)                                                                              \
        }                                                                                                               \
    }

BF16_FUNCTION(1)
BF16_FUNCTION(2)
BF16_FUNCTION(3)
BF16_FUNCTION(4)
BF16_FUNCTION(5)
BF16_FUNCTION(6)

enum { BF16_ROWS = 6, BF16_COLS = 64 };

V_TARGET void peft__avx512_tile_bf16(int32_t rows, int32_t cols, int64_t k, const float *a, int64_t a_row, int64_t a_col,
                                     const float *b, int64_t ldb, float *c, int64_t ldc, bool first) {
    static void (*const tiles[BF16_ROWS])(int64_t k, const float *a, int64_t a_row, int64_t a_col, const float *b, int64_t ldb,
                                          float *c, int64_t ldc, bool first) = {avx512_bf16_1, avx512_bf16_2, avx512_bf16_3,
                                                                                avx512_bf16_4, avx512_bf16_5, avx512_bf16_6};
    float part[BF16_ROWS * BF16_COLS];
    if (cols == BF16_COLS) {
        tiles[rows - 1](k, a, a_row, a_col, b, ldb, c, ldc, first);
        return;
    }
    tiles[rows - 1](k, a, a_row, a_col, b, ldb, part, BF16_COLS, true);
    for (int32_t i = 0; i < rows; i++) {
        for (int32_t j = 0; j < cols; j++) {
            const float sum = part[i * BF16_COLS + j];
            c[i * ldc + j] = first ? sum : c[i * ldc + j] + sum;
        }
    }
}

V_TARGET void peft__avx512_pair_row(float *words, const float *x, int64_t n) {
    for (; n >= 2 * V_LANES; n -= 2 * V_LANES, x += 2 * V_LANES, words += V_LANES) {
        V_STORE(words, (V)_mm512_cvtne2ps_pbh(V_LOAD(x + V_LANES), V_LOAD(x)));
    }
    if (n > 0) {
        const V low = V_LOAD_PART(x, PEFT__MIN(n, (int64_t)V_LANES));
        const V high = n > V_LANES ? V_LOAD_PART(x + V_LANES, n - V_LANES) : V_ZERO();
        V_STORE_PART(words, (V)_mm512_cvtne2ps_pbh(high, low), (n + 1) / 2);
    }
}

/* Sixteen words: of each the low half from the lower sixteen halves, the high one from the upper. */
V_TARGET void peft__avx512_pair_rows(float *words, int64_t ldw, const float *x, int64_t lds, int64_t rows, int64_t n) {
    const VI step = VI_ADD(VI_IOTA(), VI_SLL(VI_ADD(VI_IOTA(), VI_SET1(16)), 16));
    for (; rows > 0; rows -= 2, words += ldw, x += 2 * lds) {
        for (int64_t j = 0; j < n; j += V_LANES) {
            const int64_t here = PEFT__MIN(n - j, (int64_t)V_LANES);
            const V low = V_LOAD_PART(x + j, here), high = rows > 1 ? V_LOAD_PART(x + lds + j, here) : V_ZERO();
            const VI halves = (VI)_mm512_cvtne2ps_pbh(high, low);
            V_STORE_PART(words + j, V_FROM_BITS(_mm512_permutexvar_epi16(step, halves)), here);
        }
    }
}

#undef BF16_ADD
#undef BF16_FUNCTION
#undef BF16_ROW_ADD
#undef BF16_ROW_SET
#undef BF16_SET

#include "kernels/simd/end.h"

#endif
