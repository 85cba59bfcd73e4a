/* table_avx2.c - the AVX2 table, and the same over a BLAS. */
#include "kernels/blas.h"
#include "kernels/generic/generic.h"
#include "kernels/x86/x86.h"

#ifdef PEFT__X86

/* What a table of this set has; the last are not in a minimal build. */
#ifdef PEFT_MINIMAL
#define TABLE_AVX2_FULL
#else
#define TABLE_AVX2_FULL .narrow = peft__avx2_narrow, .round_bf16 = peft__avx2_round_bf16,
#endif
#define TABLE_AVX2_ENTRIES                                                                                      \
    TABLE_AVX2_FULL .mr = 6, .nr = 16, .lane = 8, .tile = peft__avx2_tile, .pack_rows = peft__avx2_pack_rows,   \
    .pack_stored = peft__avx2_pack_stored, .dequant = peft__avx2_dequant, .add = peft__avx2_add,                \
    .axpy = peft__avx2_axpy, .scale = peft__avx2_scale, .mul = peft__avx2_mul, .mul_add = peft__avx2_mul_add,   \
    .dot = peft__avx2_dot, .sum = peft__avx2_sum, .max = peft__avx2_max, .sum_sq = peft__avx2_sum_sq,           \
    .finite = peft__avx2_finite, .exp_sum = peft__avx2_exp_sum, .rms_norm = peft__avx2_rms_norm,                \
    .rms_norm_back = peft__avx2_rms_norm_back, .layer_norm = peft__avx2_layer_norm,                             \
    .layer_norm_back = peft__avx2_layer_norm_back, .act = peft__avx2_act, .act_back = peft__avx2_act_back,      \
    .glu = peft__avx2_glu, .glu_back = peft__avx2_glu_back, .rope = peft__avx2_rope, .adamw = peft__avx2_adamw, \
    .lion = peft__avx2_lion

const peft__kernels peft__kernels_avx2 = {.name = "avx2", .needs = PEFT__CPU_AVX2, TABLE_AVX2_ENTRIES};

#ifdef PEFT__BLAS
const peft__kernels peft__kernels_blas = {.name = "blas", .needs = PEFT__CPU_AVX2, .blas = true, TABLE_AVX2_ENTRIES};
#endif

#undef TABLE_AVX2_ENTRIES
#undef TABLE_AVX2_FULL

#endif
