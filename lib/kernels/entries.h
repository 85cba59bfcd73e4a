/* entries.h - the prototypes of one table's functions, for each instruction set.
 *
 * peft__kernels names its entries; the function behind entry `f` of table `isa` is peft__<isa>_f. The list is written
 * once here, so that a table and its functions cannot drift apart. A set that lacks an entry declares it and never
 * defines it: its table then takes the generic one. */
#ifndef PEFT_KERNELS_ENTRIES_H
#define PEFT_KERNELS_ENTRIES_H

#include "kernels/kernels.h"

/* The x86 tables exist for x86-64 and compilers with per-function targets; the double build has the generic table only.
 * GCC for Windows keeps the stack aligned to 16 bytes and yet spills wide registers by moves that want 32 (its bug 54412):
 * there the assembler must turn these into unaligned ones, -Wa,-muse-unaligned-vector-move, and PEFT_UNALIGNED_MOVES says
 * that it does. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(PEFT_DOUBLE)
#if !defined(_WIN32) || defined(__clang__) || defined(PEFT_UNALIGNED_MOVES)
#define PEFT__X86 1
#ifndef PEFT_MINIMAL
#define PEFT__AVX512 1
#endif
#endif
#endif

/* NEON is part of AArch64: what the compiler builds for has it. */
#if defined(__aarch64__) && defined(__ARM_NEON) && defined(__GNUC__) && !defined(__AARCH64EB__) && !defined(PEFT_DOUBLE)
#define PEFT__NEON 1
#endif

#define PEFT__KERNELS_DECLARE_(isa)                                                                                    \
    void isa##_tile(int32_t rows, int32_t cols, int64_t k, const peft__real *a, int64_t a_row, int64_t a_col,          \
                    const peft__real *b, int64_t ldb, peft__real *c, int64_t ldc, bool first);                         \
    void isa##_round_bf16(peft__real *y, const peft__real *x, int64_t n);                                              \
    void isa##_tile_bf16(int32_t rows, int32_t cols, int64_t k, const peft__real *a, int64_t a_row, int64_t a_col,     \
                         const peft__real *b, int64_t ldb, peft__real *c, int64_t ldc, bool first);                    \
    void isa##_pair_row(peft__real *words, const peft__real *x, int64_t n);                                            \
    void isa##_pair_rows(peft__real *words, int64_t ldw, const peft__real *x, int64_t lds, int64_t rows, int64_t n);   \
    void isa##_pack_rows(peft__real *dst, const peft__real *const *rows, int32_t cols, int64_t kc);                    \
    bool isa##_pack_stored(int32_t dtype, peft__real *dst, const uint8_t *const *rows, int64_t kc);                    \
    bool isa##_narrow(int32_t dtype, const peft__real *a, int64_t lda, int64_t m, const uint8_t *const *rows,          \
                      int64_t n, const uint8_t *next, peft__real *sums);                                               \
    void isa##_dequant(int32_t dtype, const void *src, int64_t n, peft__real *dst);                                    \
    void isa##_add(peft__real *z, const peft__real *x, const peft__real *y, int64_t n);                                \
    void isa##_axpy(peft__real *y, peft__real a, const peft__real *x, int64_t n);                                      \
    void isa##_scale(peft__real *y, peft__real a, const peft__real *x, int64_t n);                                     \
    void isa##_mul(peft__real *z, const peft__real *x, const peft__real *y, int64_t n);                                \
    void isa##_mul_add(peft__real *z, const peft__real *x, const peft__real *y, int64_t n);                            \
    peft__real isa##_dot(const peft__real *x, const peft__real *y, int64_t n);                                         \
    peft__real isa##_sum(const peft__real *x, int64_t n);                                                              \
    peft__real isa##_max(const peft__real *x, int64_t n);                                                              \
    double isa##_sum_sq(const peft__real *x, int64_t n);                                                               \
    bool isa##_finite(const peft__real *x, int64_t n);                                                                 \
    peft__real isa##_exp_sum(peft__real *y, const peft__real *x, peft__real a, peft__real m, int64_t n);               \
    peft__real isa##_rms_norm(peft__real *y, const peft__real *x, const peft__real *w, int64_t n, peft__real eps);     \
    void isa##_rms_norm_back(peft__real *dx, const peft__real *dy, const peft__real *x, const peft__real *w,           \
                             int64_t n, peft__real rstd, bool add);                                                    \
    peft__real isa##_layer_norm(peft__real *y, const peft__real *x, const peft__real *w, const peft__real *b,          \
                                int64_t n, peft__real eps, peft__real *mean);                                          \
    void isa##_layer_norm_back(peft__real *dx, const peft__real *dy, const peft__real *x, const peft__real *w,         \
                               int64_t n, peft__real mean, peft__real rstd, bool add);                                 \
    void isa##_act(int32_t kind, peft__real *y, const peft__real *x, int64_t n);                                       \
    void isa##_act_back(int32_t kind, peft__real *dx, const peft__real *dy, const peft__real *x, int64_t n, bool add); \
    void isa##_glu(int32_t kind, peft__real *y, const peft__real *g, const peft__real *u, int64_t n);                  \
    void isa##_glu_back(int32_t kind, peft__real *dg, peft__real *du, const peft__real *dy, const peft__real *g,       \
                        const peft__real *u, int64_t n);                                                               \
    void isa##_rope(peft__real *y, const peft__real *x, const peft__real *cos, const peft__real *sin, int64_t half,    \
                    peft__real sign);                                                                                  \
    void isa##_adamw(peft__real *p, const peft__real *g, peft__real *m, peft__real *v, int64_t n, peft__real gscale,   \
                     peft__real b1, peft__real b2, peft__real step, peft__real vscale, peft__real eps,                 \
                     peft__real decay);                                                                                \
    void isa##_lion(peft__real *p, const peft__real *g, peft__real *m, int64_t n, peft__real gscale, peft__real b1,    \
                    peft__real b2, peft__real step, peft__real decay)

PEFT__KERNELS_DECLARE_(peft__generic);
#if defined(PEFT__X86)
PEFT__KERNELS_DECLARE_(peft__avx2);
PEFT__KERNELS_DECLARE_(peft__avx512);
#endif
#if defined(PEFT__NEON)
PEFT__KERNELS_DECLARE_(peft__neon);
#endif

#undef PEFT__KERNELS_DECLARE_

#endif
