/* gemm_avx2.c - the matrix half of the AVX2 table: a 6 x 16 tile, packing and dequantisation.
 *
 * Tiling and register budget are drawn in tile.inc, the tile's best case in tile_avx2.inc, block layouts in generic/dequant.c. */
#include "kernels/generic/generic.h"
#include "kernels/x86/x86.h"

#ifdef PEFT__X86

#include "kernels/x86/simd_avx2.h"

#define TILE_VECS 2
#ifndef PEFT_MINIMAL /* it takes a kilobyte */
#define TILE_6X2
#endif

#include "kernels/simd/tile.inc"

#ifdef TILE_6X2
#include "kernels/x86/tile_avx2.inc"
#endif

#include "kernels/simd/dequant.inc"

#include "kernels/x86/pack_lanes.inc"

#include "kernels/simd/pack.inc"

#ifndef PEFT_MINIMAL
#include "kernels/simd/narrow.inc"
#endif

#undef TILE_VECS
#undef TILE_6X2

#include "kernels/simd/end.h"

#endif
