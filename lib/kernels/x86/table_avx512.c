/* table_avx512.c - the AVX-512 table, and the same with products in bfloat16 where the CPU has them. */
#include "kernels/generic/generic.h"
#include "kernels/x86/x86.h"

#ifdef PEFT__X86

#ifdef PEFT_SIMDE /* a test build: emulated on AVX2 */
#define TABLE_AVX512_NEEDS PEFT__CPU_AVX2
#else
#define TABLE_AVX512_NEEDS PEFT__CPU_AVX512
#endif

/* What both tables have. */
#define TABLE_AVX512_ENTRIES                                                                                                       \
    .mr = 6, .nr = 64, .lane = 16, .tile = peft__avx512_tile, .pack_rows = peft__avx512_pack_rows,                                 \
    .pack_stored = peft__avx512_pack_stored, .narrow = peft__avx512_narrow, .round_bf16 = peft__avx512_round_bf16,                 \
    .dequant = peft__avx512_dequant, .add = peft__avx512_add, .axpy = peft__avx512_axpy, .scale = peft__avx512_scale,              \
    .mul = peft__avx512_mul, .mul_add = peft__avx512_mul_add, .dot = peft__avx512_dot, .sum = peft__avx512_sum,                    \
    .max = peft__avx512_max, .sum_sq = peft__avx512_sum_sq, .finite = peft__avx512_finite, .exp_sum = peft__avx512_exp_sum,        \
    .rms_norm = peft__avx512_rms_norm, .rms_norm_back = peft__avx512_rms_norm_back, .layer_norm = peft__avx512_layer_norm,         \
    .layer_norm_back = peft__avx512_layer_norm_back, .act = peft__avx512_act, .act_back = peft__avx512_act_back,                   \
    .glu = peft__avx512_glu, .glu_back = peft__avx512_glu_back, .rope = peft__avx512_rope, .adamw = peft__avx512_adamw,            \
    .lion = peft__avx512_lion

const peft__kernels peft__kernels_avx512 = {.name = "avx512", .needs = TABLE_AVX512_NEEDS, TABLE_AVX512_ENTRIES};

#ifdef PEFT_SIMDE
#define TABLE_AVX512_BF16_NEEDS TABLE_AVX512_NEEDS
#else
#define TABLE_AVX512_BF16_NEEDS (PEFT__CPU_AVX512 | PEFT__CPU_AVX512_BF16)
#endif

const peft__kernels peft__kernels_avx512bf16 = {
    .name = "avx512bf16",
    .needs = TABLE_AVX512_BF16_NEEDS,
    TABLE_AVX512_ENTRIES,
    .tile_bf16 = peft__avx512_tile_bf16,
    .pair_row = peft__avx512_pair_row,
    .pair_rows = peft__avx512_pair_rows,
};

#undef TABLE_AVX512_ENTRIES
#undef TABLE_AVX512_BF16_NEEDS
#undef TABLE_AVX512_NEEDS

#endif
