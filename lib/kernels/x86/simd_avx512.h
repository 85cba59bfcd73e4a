/* simd_avx512.h - the vector vocabulary of simd_avx2.h in AVX-512 F + BW + VL + DQ: 16 floats, 32 registers, real masks.
 *
 * The meaning of each name is described there; a template must not notice which of the two headers came before it.
 * With PEFT_SIMDE the intrinsics are the portable ones of a test header, so that the logic can run on a CPU that lacks the
 * instructions; the attributes then ask for AVX2 only. */
#ifdef PEFT_SIMDE
#include "simde_avx512.h"
#define V_TARGET __attribute__((target("avx2,fma,f16c")))
#define V_INLINE static inline __attribute__((always_inline, unused, target("avx2,fma,f16c")))
#else
#include <immintrin.h>
#define V_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
#define V_INLINE \
    static inline __attribute__((always_inline, unused, target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
#endif

#define V_NAME(f)   peft__avx512_##f
#define V_STATIC(f) avx512_##f

#define V         __m512
#define VI        __m512i
#define VB        __m128i
#define VM        __mmask16
#define VD        __m512d
#define V_LANES   16
#define V_EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)

#define V_LOAD(p)             _mm512_loadu_ps(p)
#define V_STORE(p, v)         _mm512_storeu_ps((p), (v))
#define V_LOAD_PART(p, n)     _mm512_maskz_loadu_ps(simd_avx512_first((int)(n)), (p))
#define V_STORE_PART(p, v, n) _mm512_mask_storeu_ps((p), simd_avx512_first((int)(n)), (v))
#define V_SET1(x)             _mm512_set1_ps(x)
#define V_ZERO()              _mm512_setzero_ps()

#define V_ADD(a, b)     _mm512_add_ps((a), (b))
#define V_SUB(a, b)     _mm512_sub_ps((a), (b))
#define V_MUL(a, b)     _mm512_mul_ps((a), (b))
#define V_DIV(a, b)     _mm512_div_ps((a), (b))
#define V_FMA(a, b, c)  _mm512_fmadd_ps((a), (b), (c))
#define V_FNMA(a, b, c) _mm512_fnmadd_ps((a), (b), (c))
#define V_MAX(a, b)     _mm512_max_ps((a), (b))
#define V_MIN(a, b)     _mm512_min_ps((a), (b))
#define V_SQRT(a)       _mm512_sqrt_ps(a)
#define V_ROUND(a)      _mm512_roundscale_ps((a), 0)
#define V_AND(a, b)     _mm512_and_ps((a), (b))
#define V_OR(a, b)      _mm512_or_ps((a), (b))
#define V_XOR(a, b)     _mm512_xor_ps((a), (b))
#define V_ANDNOT(a, b)  _mm512_andnot_ps((a), (b))

#define V_CMP_LT(a, b)    _mm512_cmp_ps_mask((a), (b), _CMP_LT_OQ)
#define V_CMP_LE(a, b)    _mm512_cmp_ps_mask((a), (b), _CMP_LE_OQ)
#define V_CMP_GT(a, b)    _mm512_cmp_ps_mask((a), (b), _CMP_GT_OQ)
#define V_CMP_GE(a, b)    _mm512_cmp_ps_mask((a), (b), _CMP_GE_OQ)
#define V_CMP_EQ(a, b)    _mm512_cmp_ps_mask((a), (b), _CMP_EQ_OQ)
#define V_SELECT(m, a, b) _mm512_mask_blend_ps((m), (b), (a))
#define V_MASK_AND(m, o)  ((__mmask16)((m) & (o)))
#define V_MASK_OR(m, o)   ((__mmask16)((m) | (o)))
#define V_MASK_ALL(m)     ((m) == 0xffff)
#define V_MASK_ANY(m)     ((m) != 0)

#define V_BITS(v)      _mm512_castps_si512(v)
#define V_FROM_BITS(i) _mm512_castsi512_ps(i)
#define V_TO_I32(v)    _mm512_cvtps_epi32(v)
#define V_FROM_I32(i)  _mm512_cvtepi32_ps(i)
#define VI_SET1(x)     _mm512_set1_epi32(x)
#define VI_ADD(a, b)   _mm512_add_epi32((a), (b))
#define VI_SUB(a, b)   _mm512_sub_epi32((a), (b))
#define VI_SUB_8(a, b) _mm512_sub_epi8((a), (b))
#define VI_AND(a, b)   _mm512_and_si512((a), (b))
#define VI_OR(a, b)    _mm512_or_si512((a), (b))
#define VI_SLL(a, n)   _mm512_slli_epi32((a), (n))
#define VI_SRL(a, n)   _mm512_srli_epi32((a), (n))
#define V_POW2N(n)     V_FROM_BITS(VI_SLL(VI_ADD(V_TO_I32(n), VI_SET1(127)), 23))

#define V_FIRST(v) _mm_cvtss_f32(_mm512_castps512_ps128(v))
#define V_HSUM(v)  simd_avx512_hsum(v)
#define V_HMAX(v)  simd_avx512_hmax(v)

#define VD_ZERO()       _mm512_setzero_pd()
#define VD_SET1(x)      _mm512_set1_pd(x)
#define VD_ADD(a, b)    _mm512_add_pd((a), (b))
#define VD_MUL(a, b)    _mm512_mul_pd((a), (b))
#define VD_FMA(a, b, c) _mm512_fmadd_pd((a), (b), (c))
#define VD_HSUM(v)      simd_avx512_hsum_d(v)
#define V_LO_D(v)       _mm512_cvtps_pd(_mm512_castps512_ps256(v))
#define V_HI_D(v)       _mm512_cvtps_pd(simd_avx512_upper(v))

#define V_LOAD_F16(p) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define V_LOAD_BF16(p) \
    V_FROM_BITS(VI_SLL(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(p))), 16))
#define V_HALF(h)                  _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h)))
#define VB_WORDS(a, b, c, d)       _mm_setr_epi32((a), (b), (c), (d))
#define VI_FROM_I8(x)              _mm512_cvtepi8_epi32(x)
#define VI_FROM_U8(x)              _mm512_cvtepu8_epi32(x)
#define V_LOAD_I8(p)               V_FROM_I32(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p))))
#define VI_LOAD_U8(p)              _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define VI_SRLV(a, n)              _mm512_srlv_epi32((a), (n))
#define VI_IOTA()                  _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
#define V_TRANSPOSE(r)             simd_avx512_transpose(r)
#define V_LOAD_COLUMNS(r, rows, k) simd_avx512_columns((r), (rows), (k))
#define V_LOAD_WORDS(r, rows, at)  simd_avx512_words((r), (rows), (at))
#define VI_SHUFFLE(a, m)           _mm512_shuffle_epi8((a), _mm512_broadcast_i32x4(m))
#define V_PREFETCH(p)              _mm_prefetch((const char *)(const void *)(p), _MM_HINT_T0)

#ifndef PEFT_SIMD_AVX512_H
#define PEFT_SIMD_AVX512_H

/* A mask of the first n lanes. */
V_INLINE __mmask16 simd_avx512_first(int n) {
    return (__mmask16)((1u << (uint32_t)n) - 1u);
}

V_INLINE __m256 simd_avx512_upper(__m512 v) {
    return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1));
}

V_INLINE float simd_avx512_hsum(__m512 v) {
    const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(v), simd_avx512_upper(v));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

V_INLINE float simd_avx512_hmax(__m512 v) {
    const __m256 h = _mm256_max_ps(_mm512_castps512_ps256(v), simd_avx512_upper(v));
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

V_INLINE double simd_avx512_hsum_d(__m512d v) {
    const __m256d h = _mm256_add_pd(_mm512_castpd512_pd256(v), _mm512_extractf64x4_pd(v, 1));
    const __m128d s = _mm_add_pd(_mm256_castpd256_pd128(h), _mm256_extractf128_pd(h, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}

/* 16 x 16: pairs, then pairs of pairs within the 128-bit quarters, then the quarters in two steps. */
V_INLINE void simd_avx512_transpose(__m512 r[16]) {
/* Rows 4g .. 4g+3 become q<g>_0 .. q<g>_3: element 4L + c of q<g>_c's quarter L is row 4g + c's, column 4L + c. */
#define SIMD_QUAD(g)                                                                                     \
    const __m512 l##g##a = _mm512_unpacklo_ps(r[4 * g], r[4 * g + 1]),                                   \
                 h##g##a = _mm512_unpackhi_ps(r[4 * g], r[4 * g + 1]);                                   \
    const __m512 l##g##b = _mm512_unpacklo_ps(r[4 * g + 2], r[4 * g + 3]),                               \
                 h##g##b = _mm512_unpackhi_ps(r[4 * g + 2], r[4 * g + 3]);                               \
    const __m512 q##g##_0 = SIMD_PAIR(lo, l##g##a, l##g##b), q##g##_1 = SIMD_PAIR(hi, l##g##a, l##g##b); \
    const __m512 q##g##_2 = SIMD_PAIR(lo, h##g##a, h##g##b), q##g##_3 = SIMD_PAIR(hi, h##g##a, h##g##b);
#define SIMD_PAIR(which, a, b) _mm512_castpd_ps(_mm512_unpack##which##_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)))
#define SIMD_LANES(c)                                                                                                \
    {                                                                                                                \
        const __m512 x = _mm512_shuffle_f32x4(q0_##c, q1_##c, 0x88), y = _mm512_shuffle_f32x4(q0_##c, q1_##c, 0xdd); \
        const __m512 z = _mm512_shuffle_f32x4(q2_##c, q3_##c, 0x88), w = _mm512_shuffle_f32x4(q2_##c, q3_##c, 0xdd); \
        r[c] = _mm512_shuffle_f32x4(x, z, 0x88);                                                                     \
        r[8 + c] = _mm512_shuffle_f32x4(x, z, 0xdd);                                                                 \
        r[4 + c] = _mm512_shuffle_f32x4(y, w, 0x88);                                                                 \
        r[12 + c] = _mm512_shuffle_f32x4(y, w, 0xdd);                                                                \
    }
    SIMD_QUAD(0)
    SIMD_QUAD(1)
    SIMD_QUAD(2)
    SIMD_QUAD(3)
    SIMD_LANES(0)
    SIMD_LANES(1)
    SIMD_LANES(2)
    SIMD_LANES(3)
#undef SIMD_QUAD
#undef SIMD_PAIR
#undef SIMD_LANES
}

V_INLINE void simd_avx512_columns(__m512 r[16], const float *const *rows, int64_t k) {
#define SIMD_LOAD(i) r[i] = _mm512_loadu_ps(rows[i] + k);
    V_EACH(SIMD_LOAD)
#undef SIMD_LOAD
    simd_avx512_transpose(r);
}

/* Four rows joined in each vector; a quarter of the result has four of them. */
V_INLINE void simd_avx512_words(__m512i r[4], const uint8_t *const *rows, int64_t at) {
#define SIMD_WORDS(i)      _mm_loadu_si128((const __m128i *)(const void *)(rows[i] + at))
#define SIMD_PUT(x, i, at) _mm512_inserti32x4((x), SIMD_WORDS(i), (at))
#define SIMD_JOIN(i)       SIMD_PUT(SIMD_PUT(SIMD_PUT(_mm512_castsi128_si512(SIMD_WORDS(i)), (i) + 4, 1), (i) + 8, 2), (i) + 12, 3)
    const __m512i a = SIMD_JOIN(0), b = SIMD_JOIN(1), c = SIMD_JOIN(2), d = SIMD_JOIN(3);
    const __m512i ab = _mm512_unpacklo_epi32(a, b), cd = _mm512_unpacklo_epi32(c, d);
    const __m512i AB = _mm512_unpackhi_epi32(a, b), CD = _mm512_unpackhi_epi32(c, d);
    r[0] = _mm512_unpacklo_epi64(ab, cd);
    r[1] = _mm512_unpackhi_epi64(ab, cd);
    r[2] = _mm512_unpacklo_epi64(AB, CD);
    r[3] = _mm512_unpackhi_epi64(AB, CD);
#undef SIMD_WORDS
#undef SIMD_PUT
#undef SIMD_JOIN
}

#endif
