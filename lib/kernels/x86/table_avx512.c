/* table_avx512.c - the AVX-512 table. */
#include "kernels/generic/generic.h"
#include "kernels/x86/x86.h"

#ifdef PEFT__X86

#ifdef PEFT_SIMDE /* a test build: emulated on AVX2 */
#define TABLE_AVX512_NEEDS PEFT__CPU_AVX2
#else
#define TABLE_AVX512_NEEDS PEFT__CPU_AVX512
#endif

const peft__kernels peft__kernels_avx512 = {
    .name = "avx512",
    .needs = TABLE_AVX512_NEEDS,
    .mr = 6,
    .nr = 64,
    .lane = 16,
    .tile = peft__avx512_tile,
    .pack_rows = peft__avx512_pack_rows,
    .dequant = peft__avx512_dequant,
    .add = peft__generic_add,
    .axpy = peft__generic_axpy,
    .scale = peft__generic_scale,
    .mul = peft__generic_mul,
    .mul_add = peft__generic_mul_add,
    .dot = peft__generic_dot,
    .sum = peft__generic_sum,
    .max = peft__generic_max,
    .sum_sq = peft__generic_sum_sq,
    .finite = peft__generic_finite,
    .exp_sum = peft__generic_exp_sum,
    .rms_norm = peft__generic_rms_norm,
    .rms_norm_back = peft__generic_rms_norm_back,
    .layer_norm = peft__generic_layer_norm,
    .layer_norm_back = peft__generic_layer_norm_back,
    .act = peft__generic_act,
    .act_back = peft__generic_act_back,
    .glu = peft__generic_glu,
    .glu_back = peft__generic_glu_back,
    .rope = peft__generic_rope,
    .adamw = peft__generic_adamw,
    .lion = peft__generic_lion,
};

#undef TABLE_AVX512_NEEDS

#endif
