/* tile.c - the matrix micro-kernel and packing in plain C.
 *
 *              b[k][0..8)            4 x 8 sums. Sixteen SSE registers hold only half of them, so the tile is two halves
 *   a[0..4)[k] c[0..4)[0..4) | [4..8) of 4 x 4: 4 accumulators + 1 of b + 1 broadcast each, with room for the compiler.
 *
 * Products and sums are rounded separately (no FMA), one chain for each element over k from zero; the old C is added last.
 * Written for any compiler and any real; speed here is a courtesy. */
#include "kernels/generic/generic.h"

enum { GENERIC_MR = 4, GENERIC_NR = 8, GENERIC_HALF = 4 };

/* Four columns of up to four rows. Missing rows repeat row 0 and are not stored. */
static void generic_quarter(int32_t rows, int32_t cols, int64_t k, const peft__real *a, int64_t a_row, int64_t a_col,
                            const peft__real *b, int64_t ldb, peft__real *c, int64_t ldc, bool first) {
    peft__real sum[GENERIC_MR][GENERIC_HALF] = {{0}};
    const peft__real *a0 = a, *a1 = a + (rows > 1 ? a_row : 0);
    const peft__real *a2 = a + (rows > 2 ? 2 * a_row : 0), *a3 = a + (rows > 3 ? 3 * a_row : 0);
    for (int64_t p = 0; p < k; p++, b += ldb) {
        const int64_t at = p * a_col;
        const peft__real x0 = a0[at], x1 = a1[at], x2 = a2[at], x3 = a3[at];
        for (int32_t j = 0; j < GENERIC_HALF; j++) {
            sum[0][j] += x0 * b[j];
            sum[1][j] += x1 * b[j];
            sum[2][j] += x2 * b[j];
            sum[3][j] += x3 * b[j];
        }
    }
    for (int32_t i = 0; i < rows; i++) {
        for (int32_t j = 0; j < cols; j++) { c[i * ldc + j] = first ? sum[i][j] : c[i * ldc + j] + sum[i][j]; }
    }
}

void peft__generic_tile(int32_t rows, int32_t cols, int64_t k, const peft__real *a, int64_t a_row, int64_t a_col,
                        const peft__real *b, int64_t ldb, peft__real *c, int64_t ldc, bool first) {
    for (int32_t i = 0; i < rows; i += GENERIC_MR) { /* twice for a tall tile */
        const int32_t here = PEFT__MIN(rows - i, GENERIC_MR);
        for (int32_t j = 0; j < cols; j += GENERIC_HALF) {
            generic_quarter(here, PEFT__MIN(cols - j, GENERIC_HALF), k, a + i * a_row, a_row, a_col, b + j, ldb,
                            c + i * ldc + j, ldc, first);
        }
    }
}

void peft__generic_pack_rows(peft__real *dst, const peft__real *const *rows, int32_t cols, int64_t kc) {
    for (int64_t k = 0; k < kc; k++, dst += GENERIC_NR) {
        for (int32_t j = 0; j < GENERIC_NR; j++) { dst[j] = j < cols ? rows[j][k] : 0; }
    }
}
