/* vec_avx2.c - the vector half of the AVX2 table: sums, exp, norms, activations, optimiser steps.
 *
 * The code is in the templates, over the vocabulary of simd_avx2.h. */
#include <math.h>

#include "kernels/x86/x86.h"

#ifdef PEFT__X86

#include "kernels/x86/simd_avx2.h"

#include "kernels/simd/math.inc"

#include "kernels/simd/vec.inc"

#include "kernels/simd/norm.inc"

#include "kernels/simd/act.inc"

#include "kernels/simd/update.inc"

#undef VEC_AT
#undef VEC_EACH
#undef VEC_PUT

#include "kernels/simd/end.h"

#endif
