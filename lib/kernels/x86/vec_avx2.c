/* vec_avx2.c - the vector half of the AVX2 table: sums, exp, norms, activations, optimiser steps.
 *
 * The code is in the templates, over the vocabulary of simd_avx2.h. */
#include <math.h>

#include "kernels/x86/x86.h"

#ifdef PEFT__X86

#include "kernels/x86/simd_avx2.h"

#include "kernels/x86/math.inc"

#include "kernels/x86/vec.inc"

#include "kernels/x86/norm.inc"

#include "kernels/x86/act.inc"

#include "kernels/x86/update.inc"

#undef VEC_AT
#undef VEC_EACH
#undef VEC_PUT

#include "kernels/x86/simd_end.h"

#endif
