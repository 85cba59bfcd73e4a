/* vec_neon.c - the vector half of the NEON table: sums, exp, norms, activations, optimiser steps.
 *
 * The code is in the templates, over the vocabulary of simd_neon.h. */
#include <math.h>

#include "kernels/arm/arm.h"

#ifdef PEFT__NEON

#include "kernels/arm/simd_neon.h"

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
