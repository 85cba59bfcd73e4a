/* table_neon.c - the NEON table, and the same over a BLAS. */
#include "kernels/arm/arm.h"
#include "kernels/blas.h"
#include "kernels/generic/generic.h"

#ifdef PEFT__NEON

/* What a table of this set has; the last are not in a minimal build. */
#ifdef PEFT_MINIMAL
#define TABLE_NEON_FULL
#else
#define TABLE_NEON_FULL .narrow = peft__neon_narrow, .round_bf16 = peft__neon_round_bf16,
#endif
#define TABLE_NEON_ENTRIES                                                                                      \
    TABLE_NEON_FULL .mr = 6, .nr = 16, .lane = 4, .tile = peft__neon_tile, .pack_rows = peft__neon_pack_rows,   \
    .pack_stored = peft__neon_pack_stored, .dequant = peft__neon_dequant, .add = peft__neon_add,                \
    .axpy = peft__neon_axpy, .scale = peft__neon_scale, .mul = peft__neon_mul, .mul_add = peft__neon_mul_add,   \
    .dot = peft__neon_dot, .sum = peft__neon_sum, .max = peft__neon_max, .sum_sq = peft__neon_sum_sq,           \
    .finite = peft__neon_finite, .exp_sum = peft__neon_exp_sum, .rms_norm = peft__neon_rms_norm,                \
    .rms_norm_back = peft__neon_rms_norm_back, .layer_norm = peft__neon_layer_norm,                             \
    .layer_norm_back = peft__neon_layer_norm_back, .act = peft__neon_act, .act_back = peft__neon_act_back,      \
    .glu = peft__neon_glu, .glu_back = peft__neon_glu_back, .rope = peft__neon_rope, .adamw = peft__neon_adamw, \
    .lion = peft__neon_lion

const peft__kernels peft__kernels_neon = {.name = "neon", .needs = PEFT__CPU_NEON, TABLE_NEON_ENTRIES};

#ifdef PEFT__BLAS
const peft__kernels peft__kernels_blas = {.name = "blas", .needs = PEFT__CPU_NEON, .blas = true, TABLE_NEON_ENTRIES};
#endif

#undef TABLE_NEON_ENTRIES
#undef TABLE_NEON_FULL

#endif
