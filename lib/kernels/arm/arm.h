/* arm.h - the NEON table of AArch64: entries peft__neon_<entry>, float only. */
#ifndef PEFT_KERNELS_ARM_H
#define PEFT_KERNELS_ARM_H

#include "kernels/entries.h"

#ifdef PEFT__NEON
extern const peft__kernels peft__kernels_neon;
#endif

#endif
