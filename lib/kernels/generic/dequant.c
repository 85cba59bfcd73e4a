/* dequant.c - stored types to reals in plain C: the meaning of each type, and the reference for the other tables.
 *
 * Blocks are GGUF's (ggml-quants; h is an IEEE half, all little-endian, arrays in file order, low and high are nibbles):
 *
 *   F16, BF16  half; upper half of a float
 *   Q8_0   34 B,  32 elements: h d, i8 q[32]                      d q
 *   Q4_0   18 B,  32: h d, u8 q[16]                               d (low - 8) for 0-15, d (high - 8) for 16-31
 *   Q4_1   20 B,  32: h d, h m, u8 q[16]                          d low + m, d high + m
 *   Q5_0   22 B,  32: h d, u32 b, u8 q[16]                        as Q4_0 with bit j of b over quant j as 16, less 16
 *   Q5_1   24 B,  32: h d, h m, u32 b, u8 q[16]                   the same, not less 16, plus m
 *   Q4_K  144 B, 256: h d, h dmin, u8 s[12], u8 q[128]            (d scale) q - dmin min, sub-blocks of 32
 *   Q5_K  176 B, 256: h d, h dmin, u8 s[12], u8 b[32], u8 q[128]  the same; bit s of b[l] over element l of sub-block s
 *   Q6_K  210 B, 256: u8 low[128], u8 two[64], i8 s[16], h d      (d s) (q - 32), a scale for every 16
 *
 * Left out: the other K types and the IQ types. Products and sums are rounded one by one. */
#include "kernels/generic/generic.h"

peft__dtype_block peft__dtype_block_of(int32_t dtype) {
    switch (dtype) {
        case PEFT_DTYPE_F32: return (peft__dtype_block){4, 1};
        case PEFT_DTYPE_F16: return (peft__dtype_block){2, 1};
        case PEFT_DTYPE_BF16: return (peft__dtype_block){2, 1};
        case PEFT_DTYPE_Q8_0: return (peft__dtype_block){34, 32};
        case PEFT_DTYPE_Q4_0: return (peft__dtype_block){18, 32};
        case PEFT_DTYPE_Q4_1: return (peft__dtype_block){20, 32};
        case PEFT_DTYPE_Q5_0: return (peft__dtype_block){22, 32};
        case PEFT_DTYPE_Q5_1: return (peft__dtype_block){24, 32};
        case PEFT_DTYPE_Q4_K: return (peft__dtype_block){144, 256};
        case PEFT_DTYPE_Q5_K: return (peft__dtype_block){176, 256};
        case PEFT_DTYPE_Q6_K: return (peft__dtype_block){210, 256};
#ifdef PEFT_DOUBLE
        case PEFT__DTYPE_REAL: return (peft__dtype_block){8, 1};
#endif
        default: return (peft__dtype_block){0, 0};
    }
}

static uint32_t dequant_u16(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t dequant_u32(const uint8_t *p) {
    return dequant_u16(p) | dequant_u16(p + 2) << 16;
}

static peft__real dequant_float(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return (peft__real)f;
}

/* A half is sign, 5 bits of exponent (bias 15), 10 of fraction. */
static peft__real dequant_half(const uint8_t *p) {
    const uint32_t h = dequant_u16(p), sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31u, fraction = h & 0x3ffu;
    if (exponent == 31) {
        /* infinity, or a NaN made quiet as the hardware does */
        return dequant_float(sign | 0x7f800000u | fraction << 13 | (fraction != 0 ? 0x400000u : 0u));
    }
    if (exponent == 0) { /* zero or subnormal: fraction * 2^-24, exact */
        const peft__real v = (peft__real)fraction * PEFT__R(5.9604644775390625e-8);
        return sign != 0 ? -v : v;
    }
    return dequant_float(sign | (exponent + 112u) << 23 | fraction << 13);
}

/* Scales 0-3 and mins 0-3 are the low six bits of bytes 0-3 and 4-7; the others have their low four bits in bytes 8-11 and
 * their upper two in the top of bytes 0-3 and 4-7. */
void peft__dequant_k_scales(const uint8_t *packed, uint8_t scale[8], uint8_t least[8]) {
    for (int32_t s = 0; s < 4; s++) {
        scale[s] = packed[s] & 63u;
        least[s] = packed[s + 4] & 63u;
        scale[s + 4] = (uint8_t)((packed[s + 8] & 15u) | (uint32_t)packed[s] >> 6 << 4);
        least[s + 4] = (uint8_t)((uint32_t)packed[s + 8] >> 4 | (uint32_t)packed[s + 4] >> 6 << 4);
    }
}

static void dequant_f32(const uint8_t *src, int64_t n, peft__real *dst) {
    for (int64_t i = 0; i < n; i++) { dst[i] = dequant_float(dequant_u32(src + 4 * i)); }
}

static void dequant_f16(const uint8_t *src, int64_t n, peft__real *dst) {
    for (int64_t i = 0; i < n; i++) { dst[i] = dequant_half(src + 2 * i); }
}

static void dequant_bf16(const uint8_t *src, int64_t n, peft__real *dst) {
    for (int64_t i = 0; i < n; i++) { dst[i] = dequant_float(dequant_u16(src + 2 * i) << 16); }
}

static void dequant_q8_0(const uint8_t *src, int64_t n, peft__real *dst) {
    for (; n > 0; n -= 32, src += 34, dst += 32) {
        const peft__real d = dequant_half(src);
        for (int32_t j = 0; j < 32; j++) { dst[j] = d * (peft__real)(int8_t)src[2 + j]; }
    }
}

/* 32 elements of four bits, and a fifth from `high` (0: none), less `off`, times d, plus m (only where there is one: adding
 * a zero would turn -0 into 0). */
static void dequant_block(peft__real *dst, const uint8_t *q, uint32_t high, int32_t off, peft__real d,
                          const peft__real *m) {
    for (int32_t j = 0; j < 16; j++) {
        const int32_t lo = (int32_t)((q[j] & 15u) | (high >> j & 1u) << 4);
        const int32_t hi = (int32_t)((uint32_t)(q[j] >> 4) | (high >> (j + 16) & 1u) << 4);
        const peft__real x = d * (peft__real)(lo - off), y = d * (peft__real)(hi - off);
        dst[j] = m != NULL ? x + *m : x;
        dst[j + 16] = m != NULL ? y + *m : y;
    }
}

static void dequant_q45(int32_t dtype, const uint8_t *src, int64_t n, peft__real *dst) {
    const bool five = dtype == PEFT_DTYPE_Q5_0 || dtype == PEFT_DTYPE_Q5_1;
    const bool has_min = dtype == PEFT_DTYPE_Q4_1 || dtype == PEFT_DTYPE_Q5_1;
    const int32_t off = has_min ? 0 : five ? 16 : 8;
    for (; n > 0; n -= 32, dst += 32) {
        peft__real m = 0;
        const peft__real d = dequant_half(src);
        src += 2;
        if (has_min) {
            m = dequant_half(src);
            src += 2;
        }
        const uint32_t high = five ? dequant_u32(src) : 0;
        src += five ? 4 : 0;
        dequant_block(dst, src, high, off, d, has_min ? &m : NULL);
        src += 16;
    }
}

static void dequant_k45(const uint8_t *src, bool five, peft__real *dst) {
    const peft__real d = dequant_half(src), dmin = dequant_half(src + 2);
    const uint8_t *high = src + 16, *q = src + (five ? 48 : 16);
    uint8_t scale[8], least[8];
    peft__dequant_k_scales(src + 4, scale, least);
    for (int32_t s = 0; s < 8; s++) {
        const peft__real ds = d * (peft__real)scale[s], ms = dmin * (peft__real)least[s];
        for (int32_t l = 0; l < 32; l++) {
            const uint32_t both = q[32 * (s / 2) + l], low = (s & 1) != 0 ? both >> 4 : both & 15u;
            const uint32_t fifth = five ? ((uint32_t)high[l] >> s & 1u) << 4 : 0u;
            dst[32 * s + l] = ds * (peft__real)(low | fifth) - ms;
        }
    }
}

static void dequant_q6_k(const uint8_t *src, peft__real *dst) {
    const peft__real d = dequant_half(src + 208);
    for (int32_t e = 0; e < 256; e++) {
        const int32_t part = e / 128, plane = e / 32 % 4, at = e % 32;
        const uint32_t byte = src[64 * part + 32 * (plane & 1) + at];
        const uint32_t low = plane < 2 ? byte & 15u : byte >> 4;
        const uint32_t top = (uint32_t)src[128 + 32 * part + at] >> (2 * plane) & 3u;
        const peft__real ds = d * (peft__real)(int8_t)src[192 + e / 16];
        dst[e] = ds * (peft__real)((int32_t)(low | top << 4) - 32);
    }
}

static void dequant_k(int32_t dtype, const uint8_t *src, int64_t n, peft__real *dst) {
    const int32_t bytes = peft__dtype_block_of(dtype).bytes;
    for (; n > 0; n -= 256, src += bytes, dst += 256) {
        if (dtype == PEFT_DTYPE_Q6_K) {
            dequant_q6_k(src, dst);
        } else {
            dequant_k45(src, dtype == PEFT_DTYPE_Q5_K, dst);
        }
    }
}

void peft__generic_dequant(int32_t dtype, const void *src, int64_t n, peft__real *dst) {
    switch (dtype) {
        case PEFT_DTYPE_F32: dequant_f32(src, n, dst); return;
        case PEFT_DTYPE_F16: dequant_f16(src, n, dst); return;
        case PEFT_DTYPE_BF16: dequant_bf16(src, n, dst); return;
        case PEFT_DTYPE_Q8_0: dequant_q8_0(src, n, dst); return;
        case PEFT_DTYPE_Q4_0:
        case PEFT_DTYPE_Q4_1:
        case PEFT_DTYPE_Q5_0:
        case PEFT_DTYPE_Q5_1: dequant_q45(dtype, src, n, dst); return;
        case PEFT_DTYPE_Q4_K:
        case PEFT_DTYPE_Q5_K:
        case PEFT_DTYPE_Q6_K: dequant_k(dtype, src, n, dst); return;
#ifdef PEFT_DOUBLE
        case PEFT__DTYPE_REAL: memcpy(dst, src, (size_t)n * sizeof *dst); return;
#endif
        default: memset(dst, 0, (size_t)n * sizeof *dst); return; /* unknown types are refused when a model is loaded */
    }
}
