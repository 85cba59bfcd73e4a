/* gemm_neon.c - the matrix half of the NEON table: a 6 x 16 tile, packing, dequantisation and products of single rows.
 *
 *   b: one step of a panel          [ b0 ][ b1 ][ b2 ][ b3 ]     4 registers, 4 columns each
 *   a[0 .. 6), k: two at a time     x x                          2: a scalar, or the same in every lane
 *   c[0 .. 6): 6 rows of 16         c0_0 c0_1 c0_2 c0_3 ...      24: 30 of 32 registers
 *
 * A step is 10 loads (8 where two of them are a pair) for 24 FMAs, which are independent: 4 FMA units of latency 4 want 16 of
 * them at a time. Tiles of 8 x 12 have as many sums, but want slivers of 8 rows side by side, which A has only where it is packed.
 * The tiling is tile.inc's, block layouts are in generic/dequant.c. */
#include "kernels/arm/arm.h"
#include "kernels/generic/generic.h"

#ifdef PEFT__NEON

#include "kernels/arm/simd_neon.h"

#define TILE_VECS 4

#include "kernels/simd/tile.inc"

#include "kernels/simd/dequant.inc"

#include "kernels/arm/pack_lanes.inc"

#include "kernels/simd/pack.inc"

#ifndef PEFT_MINIMAL
#include "kernels/simd/narrow.inc"
#endif

#undef TILE_VECS

#include "kernels/simd/end.h"

#endif
