/* table_avx2.c - the AVX2 table. */
#include "kernels/generic/generic.h"
#include "kernels/x86/x86.h"

#ifdef PEFT__X86

const peft__kernels peft__kernels_avx2 = {
    .name = "avx2",
    .needs = PEFT__CPU_AVX2,
    .mr = 6,
    .nr = 16,
    .lane = 8,
    .tile = peft__avx2_tile,
    .pack_rows = peft__avx2_pack_rows,
    .dequant = peft__avx2_dequant,
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

#endif
