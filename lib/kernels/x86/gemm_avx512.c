/* gemm_avx512.c - the matrix half of the AVX-512 table: a 6 x 64 tile, packing and dequantisation.
 *
 * Tiling and register budget are drawn in tile.inc, block layouts in generic/dequant.c. */
#include "kernels/generic/generic.h"
#include "kernels/x86/x86.h"

#ifdef PEFT__X86

#include "kernels/x86/simd_avx512.h"

#define TILE_VECS 4

#include "kernels/simd/tile.inc"

#include "kernels/simd/dequant.inc"

#include "kernels/x86/pack_lanes.inc"

#include "kernels/simd/pack.inc"

#include "kernels/simd/narrow.inc"

#undef TILE_VECS

#include "kernels/simd/end.h"

#endif
