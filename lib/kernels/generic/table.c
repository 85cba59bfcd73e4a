/* table.c - the table that every CPU can run, and that the others take what they lack from. */
#include "kernels/generic/generic.h"

const peft__kernels peft__kernels_generic = {
    .name = "generic",
    .needs = 0,
    .mr = 4,
    .nr = 8,
    .lane = 4,
    .tile = peft__generic_tile,
    .pack_rows = peft__generic_pack_rows,
#ifndef PEFT_MINIMAL
    .round_bf16 = peft__generic_round_bf16,
#endif
    .dequant = peft__generic_dequant,
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
