/* x86.h - the AVX2 and AVX-512 tables: entries peft__avx2_<entry> and peft__avx512_<entry>, float only. */
#ifndef PEFT_KERNELS_X86_H
#define PEFT_KERNELS_X86_H

#include "kernels/entries.h"

#ifdef PEFT__X86
extern const peft__kernels peft__kernels_avx2;
extern const peft__kernels peft__kernels_avx512;
extern const peft__kernels peft__kernels_avx512bf16;
#endif

#endif
