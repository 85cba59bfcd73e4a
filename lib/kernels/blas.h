/* blas.h - the table "blas" and its products (blas.c). PEFT__BLAS: the build has them. */
#ifndef PEFT_KERNELS_BLAS_H
#define PEFT_KERNELS_BLAS_H

#include "kernels/entries.h"

#if defined(PEFT_BLAS) && !defined(PEFT_DOUBLE) && !defined(PEFT_MINIMAL)
#if defined(PEFT__X86) || defined(PEFT__NEON)
#define PEFT__BLAS 1
#else
#error "PEFT_BLAS is for x86-64 and AArch64: its table is the CPU's own with other products"
#endif
#endif

#ifdef PEFT__BLAS
extern const peft__kernels peft__kernels_blas; /* next to the table that it is made from */
void peft__blas_prepare(void);                 /* before its first product */
/* C of peft__gemm, up to the order of sums. */
bool peft__blas_fits(const peft__run *run, const peft__gemm_args *g);
void peft__blas(const peft__run *run, const peft__gemm_args *g);
#endif

#endif
