/* simd_neon.h - the vector vocabulary of x86/simd_avx2.h in AArch64's NEON: 4 floats, 32 registers, masks as vectors.
 *
 * The meaning of each name is described there. Every AArch64 processor has these instructions, so that functions need no
 * target attribute. V_MAX and V_MIN compare and select, for NEON's own prefer NaN on either side. The number of lanes of a
 * part is known only when it runs and there are no masked loads, so a part is read as a pair and a single.
 *
 * Left out: 32-bit ARM (no division, roots and doubles in vectors), BF16 and dot product instructions (not on every CPU). */
#include <arm_neon.h>

#define V_NAME(f)   peft__neon_##f
#define V_STATIC(f) neon_##f
#define V_TARGET
#define V_INLINE static inline __attribute__((always_inline, unused))

#define V         float32x4_t
#define VI        int32x4_t
#define VB        uint8x16_t
#define VM        uint32x4_t
#define VD        float64x2_t
#define V_LANES   4
#define V_EACH(X) X(0) X(1) X(2) X(3)

#define V_LOAD(p)             vld1q_f32(p)
#define V_STORE(p, v)         vst1q_f32((p), (v))
#define V_LOAD_PART(p, n)     simd_neon_load_part((p), (n))
#define V_STORE_PART(p, v, n) simd_neon_store_part((p), (v), (n))
#define V_SET1(x)             vdupq_n_f32(x)
#define V_ZERO()              vdupq_n_f32(0.0f)

#define V_ADD(a, b)     vaddq_f32((a), (b))
#define V_SUB(a, b)     vsubq_f32((a), (b))
#define V_MUL(a, b)     vmulq_f32((a), (b))
#define V_DIV(a, b)     vdivq_f32((a), (b))
#define V_FMA(a, b, c)  vfmaq_f32((c), (a), (b))
#define V_FNMA(a, b, c) vfmsq_f32((c), (a), (b))
#define V_MAX(a, b)     simd_neon_max((a), (b))
#define V_MIN(a, b)     simd_neon_min((a), (b))
#define V_SQRT(a)       vsqrtq_f32(a)
#define V_ROUND(a)      vrndnq_f32(a)
#define V_AND(a, b)     V_FROM_BITS(vandq_s32(V_BITS(a), V_BITS(b)))
#define V_OR(a, b)      V_FROM_BITS(vorrq_s32(V_BITS(a), V_BITS(b)))
#define V_XOR(a, b)     V_FROM_BITS(veorq_s32(V_BITS(a), V_BITS(b)))
#define V_ANDNOT(a, b)  V_FROM_BITS(vbicq_s32(V_BITS(b), V_BITS(a)))

#define V_CMP_LT(a, b)    vcltq_f32((a), (b))
#define V_CMP_LE(a, b)    vcleq_f32((a), (b))
#define V_CMP_GT(a, b)    vcgtq_f32((a), (b))
#define V_CMP_GE(a, b)    vcgeq_f32((a), (b))
#define V_CMP_EQ(a, b)    vceqq_f32((a), (b))
#define V_SELECT(m, a, b) vbslq_f32((m), (a), (b))
#define V_MASK_AND(m, o)  vandq_u32((m), (o))
#define V_MASK_OR(m, o)   vorrq_u32((m), (o))
#define V_MASK_ALL(m)     (vminvq_u32(m) != 0)
#define V_MASK_ANY(m)     (vmaxvq_u32(m) != 0)

#define V_BITS(v)      vreinterpretq_s32_f32(v)
#define V_FROM_BITS(i) vreinterpretq_f32_s32(i)
#define V_TO_I32(v)    vcvtnq_s32_f32(v)
#define V_FROM_I32(i)  vcvtq_f32_s32(i)
#define VI_SET1(x)     vdupq_n_s32(x)
#define VI_ADD(a, b)   vaddq_s32((a), (b))
#define VI_SUB(a, b)   vsubq_s32((a), (b))
#define VI_SUB_8(a, b) vreinterpretq_s32_s8(vsubq_s8(vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b)))
#define VI_AND(a, b)   vandq_s32((a), (b))
#define VI_OR(a, b)    vorrq_s32((a), (b))
#define VI_SLL(a, n)   vshlq_n_s32((a), (n))
#define VI_SRL(a, n)   vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a), (n)))
#define V_POW2N(n)     V_FROM_BITS(VI_SLL(VI_ADD(V_TO_I32(n), VI_SET1(127)), 23))

#define V_FIRST(v) vgetq_lane_f32((v), 0)
#define V_HSUM(v)  simd_neon_hsum(v)
#define V_HMAX(v)  simd_neon_hmax(v)

#define VD_ZERO()       vdupq_n_f64(0.0)
#define VD_SET1(x)      vdupq_n_f64(x)
#define VD_ADD(a, b)    vaddq_f64((a), (b))
#define VD_MUL(a, b)    vmulq_f64((a), (b))
#define VD_FMA(a, b, c) vfmaq_f64((c), (a), (b))
#define VD_HSUM(v)      (vgetq_lane_f64((v), 0) + vgetq_lane_f64((v), 1))
#define V_LO_D(v)       vcvt_f64_f32(vget_low_f32(v))
#define V_HI_D(v)       vcvt_high_f64_f32(v)

#define V_LOAD_F16(p)              vcvt_f32_f16(vreinterpret_f16_u8(SIMD_NEON_8(p)))
#define V_LOAD_BF16(p)             V_FROM_BITS(vreinterpretq_s32_u32(vshll_n_u16(vreinterpret_u16_u8(SIMD_NEON_8(p)), 16)))
#define V_HALF(h)                  V_FIRST(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))))
#define VB_WORDS(a, b, c, d)       simd_neon_words_of((a), (b), (c), (d))
#define VI_FROM_I8(x)              simd_neon_from_i8(vget_low_u8(x))
#define VI_FROM_U8(x)              simd_neon_from_u8(vget_low_u8(x))
#define V_LOAD_I8(p)               V_FROM_I32(simd_neon_from_i8(simd_neon_four(p)))
#define VI_LOAD_U8(p)              simd_neon_from_u8(simd_neon_four(p))
#define VI_SRLV(a, n)              vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vnegq_s32(n)))
#define VI_IOTA()                  vreinterpretq_s32_u8(VB_WORDS(0, 1, 2, 3))
#define V_TRANSPOSE(r)             simd_neon_transpose(r)
#define V_LOAD_COLUMNS(r, rows, k) simd_neon_columns((r), (rows), (k))
#define V_LOAD_WORDS(r, rows, at)  simd_neon_words((r), (rows), (at))
#define VI_SHUFFLE(a, m)           vreinterpretq_s32_u8(vqtbl1q_u8(vreinterpretq_u8_s32(a), (m)))
#define V_PREFETCH(p)              __builtin_prefetch((const void *)(p))

/* Eight bytes at p, whatever they are there: loads of bytes want no alignment. */
#define SIMD_NEON_8(p) vld1_u8((const uint8_t *)(const void *)(p))

#ifndef PEFT_SIMD_NEON_H
#define PEFT_SIMD_NEON_H

V_INLINE float32x4_t simd_neon_load_part(const float *p, int64_t n) {
    float32x2_t lo = vdup_n_f32(0.0f), hi = lo;
    if (n >= 4) { return vld1q_f32(p); }
    if (n >= 2) {
        lo = vld1_f32(p);
        if (n == 3) { hi = vld1_lane_f32(p + 2, hi, 0); }
    } else if (n == 1) {
        lo = vld1_lane_f32(p, lo, 0);
    }
    return vcombine_f32(lo, hi);
}

V_INLINE void simd_neon_store_part(float *p, float32x4_t v, int64_t n) {
    if (n >= 4) {
        vst1q_f32(p, v);
    } else if (n >= 2) {
        vst1_f32(p, vget_low_f32(v));
        if (n == 3) { vst1q_lane_f32(p + 2, v, 2); }
    } else if (n == 1) {
        vst1q_lane_f32(p, v, 0);
    }
}

V_INLINE float32x4_t simd_neon_max(float32x4_t a, float32x4_t b) {
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}

V_INLINE float32x4_t simd_neon_min(float32x4_t a, float32x4_t b) {
    return vbslq_f32(vcltq_f32(a, b), a, b);
}

V_INLINE float simd_neon_hsum(float32x4_t v) {
    const float32x2_t s = vadd_f32(vget_low_f32(v), vget_high_f32(v));
    return vget_lane_f32(s, 0) + vget_lane_f32(s, 1);
}

V_INLINE float simd_neon_hmax(float32x4_t v) {
    const float32x2_t a = vget_low_f32(v), b = vget_high_f32(v), s = vbsl_f32(vcgt_f32(a, b), a, b);
    const float x = vget_lane_f32(s, 0), y = vget_lane_f32(s, 1);
    return x > y ? x : y;
}

V_INLINE uint8x16_t simd_neon_words_of(int32_t a, int32_t b, int32_t c, int32_t d) {
    const int32x4_t v = {a, b, c, d};
    return vreinterpretq_u8_s32(v);
}

/* Four bytes, and four zeros or whatever. */
V_INLINE uint8x8_t simd_neon_four(const uint8_t *p) {
    uint32_t w;
    memcpy(&w, p, sizeof w);
    return vreinterpret_u8_u32(vdup_n_u32(w));
}

V_INLINE int32x4_t simd_neon_from_u8(uint8x8_t x) {
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(x))));
}

V_INLINE int32x4_t simd_neon_from_i8(uint8x8_t x) {
    return vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(x))));
}

/* 4 x 4: pairs of rows are zipped, then pairs of pairs. */
V_INLINE void simd_neon_transpose(float32x4_t r[4]) {
    const float32x4_t a = vzip1q_f32(r[0], r[2]), b = vzip2q_f32(r[0], r[2]);
    const float32x4_t c = vzip1q_f32(r[1], r[3]), d = vzip2q_f32(r[1], r[3]);
    r[0] = vzip1q_f32(a, c);
    r[1] = vzip2q_f32(a, c);
    r[2] = vzip1q_f32(b, d);
    r[3] = vzip2q_f32(b, d);
}

V_INLINE void simd_neon_columns(float32x4_t r[4], const float *const *rows, int64_t k) {
#define SIMD_LOAD(i) r[i] = vld1q_f32(rows[i] + k);
    V_EACH(SIMD_LOAD)
#undef SIMD_LOAD
    simd_neon_transpose(r);
}

V_INLINE void simd_neon_words(int32x4_t r[4], const uint8_t *const *rows, int64_t at) {
    float32x4_t w[4]; /* moved, never computed with */
#define SIMD_LOAD(i) w[i] = vreinterpretq_f32_u8(vld1q_u8(rows[i] + at));
    V_EACH(SIMD_LOAD)
#undef SIMD_LOAD
    simd_neon_transpose(w);
#define SIMD_STORE(i) r[i] = V_BITS(w[i]);
    V_EACH(SIMD_STORE)
#undef SIMD_STORE
}

#endif
