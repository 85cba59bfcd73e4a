/* quantise.c - floats to the types that merged models are written in: F32, F16, BF16, Q8_0, Q4_0, Q4_1.
 *
 * The rules are those of ggml's reference quantisers (quantize_row_*_ref in ggml-quants.c), so that the bytes are the ones
 * that llama.cpp's own tools would write:
 *   F16, BF16  round to nearest even
 *   Q8_0       d = max|x| / 127;  q = x / d rounded half away from zero
 *   Q4_0       d = m / -8 with m the x of largest size (the first such, with its sign);  q = min(15, floor(x / d + 8.5))
 *   Q4_1       d = (max - min) / 15;  q = min(15, floor((x - min) / d + 0.5))
 * d and min are stored as halves, but q is computed with the unrounded ones; divisions are products with 1 / d, in float.
 * All words are little-endian. A quantity that is not a number is written as level 0.
 *
 * Left out: K-quants and the 5-bit types, which nobody needs to write exactly in order to merge. */
#include <math.h>

#include "tensor/tensor.h"

enum { QUANT_BLOCK = 32 };

static uint32_t quant_bits(float v) {
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    return u;
}

static float quant_float(uint32_t u) {
    float v;
    memcpy(&v, &u, sizeof v);
    return v;
}

uint16_t peft__f32_to_f16(float v) {
    uint32_t u = quant_bits(v);
    uint32_t sign = u >> 16 & 0x8000u;
    uint32_t mant = u & 0x7fffffu;
    int32_t exp = (int32_t)(u >> 23 & 0xffu) - 127;
    if (exp == 128) { /* infinity, or a NaN made quiet */
        return (uint16_t)(sign | 0x7c00u | (mant != 0 ? 0x200u | mant >> 13 : 0));
    }
    if (exp > 15) { return (uint16_t)(sign | 0x7c00u); }
    if (exp < -25) { return (uint16_t)sign; }
    uint32_t shift = 13, base;
    if (exp >= -14) {
        base = (uint32_t)(exp + 15) << 10;
    } else { /* subnormal: the leading one becomes part of the fraction */
        base = 0;
        mant |= 0x800000u;
        shift += (uint32_t)(-14 - exp);
    }
    uint32_t rest = mant & ((1u << shift) - 1), half = 1u << (shift - 1);
    uint32_t h = base + (mant >> shift);
    h += rest > half || (rest == half && (h & 1u) != 0); /* a carry runs into the exponent, as far as infinity */
    return (uint16_t)(sign | h);
}

float peft__f16_to_f32(uint16_t v) {
    uint32_t sign = (uint32_t)(v & 0x8000u) << 16, exp = v >> 10 & 0x1fu, mant = v & 0x3ffu;
    if (exp == 0x1f) { return quant_float(sign | 0x7f800000u | mant << 13); }
    if (exp != 0) { return quant_float(sign | (exp + 112) << 23 | mant << 13); }
    float tiny = (float)mant * 0x1p-24f; /* exact */
    return sign != 0 ? -tiny : tiny;
}

static void quant_put16(uint8_t *dst, uint16_t v) {
    dst[0] = (uint8_t)v;
    dst[1] = (uint8_t)(v >> 8);
}

/* The level of a non-negative quantity, cut off at 15. */
static uint8_t quant_level(float v) {
    if (!(v > 0)) { return 0; }
    return v >= 15 ? 15 : (uint8_t)v;
}

static float quant_inverse(float d) { return d != 0 ? 1.0f / d : 0.0f; }

static void quant_q8_0(const float *x, uint8_t *dst) {
    float largest = 0;
    for (int32_t i = 0; i < QUANT_BLOCK; i++) { largest = PEFT__MAX(largest, fabsf(x[i])); }
    float d = largest / 127.0f, id = quant_inverse(d);
    quant_put16(dst, peft__f32_to_f16(d));
    for (int32_t i = 0; i < QUANT_BLOCK; i++) {
        float q = roundf(x[i] * id);
        q = q > 127 ? 127 : q > -128 ? q : q <= -128 ? -128 : 0; /* the last case is a NaN's */
        dst[2 + i] = (uint8_t)(int8_t)q;
    }
}

static void quant_q4_0(const float *x, uint8_t *dst) {
    float largest = 0, m = x[0];
    for (int32_t i = 0; i < QUANT_BLOCK; i++) {
        if (fabsf(x[i]) > largest) {
            largest = fabsf(x[i]);
            m = x[i];
        }
    }
    float d = m / -8.0f, id = quant_inverse(d);
    quant_put16(dst, peft__f32_to_f16(d));
    for (int32_t i = 0; i < QUANT_BLOCK / 2; i++) {
        uint8_t low = quant_level(x[i] * id + 8.5f), high = quant_level(x[i + QUANT_BLOCK / 2] * id + 8.5f);
        dst[2 + i] = (uint8_t)(low | high << 4);
    }
}

static void quant_q4_1(const float *x, uint8_t *dst) {
    float min = x[0], max = x[0];
    for (int32_t i = 1; i < QUANT_BLOCK; i++) {
        min = x[i] < min ? x[i] : min;
        max = x[i] > max ? x[i] : max;
    }
    float d = (max - min) / 15.0f, id = quant_inverse(d);
    quant_put16(dst, peft__f32_to_f16(d));
    quant_put16(dst + 2, peft__f32_to_f16(min));
    for (int32_t i = 0; i < QUANT_BLOCK / 2; i++) {
        uint8_t low = quant_level((x[i] - min) * id + 0.5f);
        uint8_t high = quant_level((x[i + QUANT_BLOCK / 2] - min) * id + 0.5f);
        dst[4 + i] = (uint8_t)(low | high << 4);
    }
}

static void quant_plain(int32_t dtype, const float *src, int64_t n, uint8_t *dst) {
    for (int64_t i = 0; i < n; i++) {
        if (dtype == PEFT_DTYPE_F32) {
            uint32_t u = quant_bits(src[i]);
            quant_put16(dst + 4 * i, (uint16_t)u);
            quant_put16(dst + 4 * i + 2, (uint16_t)(u >> 16));
        } else {
            quant_put16(dst + 2 * i, dtype == PEFT_DTYPE_F16 ? peft__f32_to_f16(src[i]) : peft__f32_to_bf16(src[i]));
        }
    }
}

bool peft__can_quantise(int32_t dtype) {
    return dtype == PEFT_DTYPE_F32 || dtype == PEFT_DTYPE_F16 || dtype == PEFT_DTYPE_BF16 || dtype == PEFT_DTYPE_Q8_0 ||
           dtype == PEFT_DTYPE_Q4_0 || dtype == PEFT_DTYPE_Q4_1;
}

peft_status peft__quantise(int32_t dtype, const float *src, int64_t n, void *dst) {
    if (!peft__can_quantise(dtype)) {
        return peft__fail(PEFT_E_UNSUPPORTED, "cannot write the type %s, only F32, F16, BF16, Q8_0, Q4_0 and Q4_1",
                          peft__dtype_name(dtype));
    }
    uint8_t *out = dst;
    int64_t block = peft__dtype_elems(dtype);
    if (n % block != 0) {
        return peft__fail(PEFT_E_SHAPE, "%lld numbers are no whole blocks of %s, which has %lld in each", (long long)n,
                          peft__dtype_name(dtype), (long long)block);
    }
    if (block == 1) {
        quant_plain(dtype, src, n, out);
        return PEFT_OK;
    }
    size_t bytes = peft__dtype_block_bytes(dtype);
    for (int64_t b = 0; b < n / block; b++) {
        const float *x = src + b * block;
        uint8_t *to = out + (size_t)b * bytes;
        switch (dtype) {
        case PEFT_DTYPE_Q8_0: quant_q8_0(x, to); break;
        case PEFT_DTYPE_Q4_0: quant_q4_0(x, to); break;
        default: quant_q4_1(x, to); break;
        }
    }
    return PEFT_OK;
}
