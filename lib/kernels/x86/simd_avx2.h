/* simd_avx2.h - the vector vocabulary of the templates in kernels/simd, spelled in AVX2 + FMA + F16C: 8 floats, 16 registers.
 *
 * A template (kernels/simd) is written once with the names below and included after this header, after simd_avx512.h, which
 * defines the same names over 16 floats, or after arm/simd_neon.h, over 4; simd/end.h takes them away again, so that all can
 * live in one translation unit.
 * There is no include guard around the names for that reason.
 *
 *   V, VI, VM, VD       floats, 32-bit integers, a mask of lanes, doubles (V_LANES / 2 of them);   VB: 16 bytes
 *   V_NAME(f)           the table's function peft__<isa>_f;   V_STATIC(f): a file-local one, unique in the library
 *   V_TARGET            attribute of every function that uses any of this;   V_INLINE: the same for a helper
 *   V_EACH(X)           X(i) for each lane number, unrolled by the preprocessor
 *   loads and stores are unaligned; *_PART touch only the first n lanes (0 <= n <= V_LANES), the others load as 0
 *   V_FMA(a, b, c) = a b + c, V_FNMA(a, b, c) = c - a b, each rounded once; V_ANDNOT(a, b) = ~a & b
 *   V_MAX, V_MIN        the second operand when either is NaN
 *   V_ROUND             to the nearest integer, ties to even;   V_POW2N(n): 2^n for whole n, -126 <= n <= 127
 *   V_SELECT(m, a, b)   a where m, else b
 *   V_HSUM, V_HMAX      of all lanes in a fixed tree: halves are folded onto each other until one lane is left
 *   V_FIRST             lane 0
 *   V_BITS, V_FROM_BITS reinterpret; V_TO_I32 rounds to nearest even; V_FROM_I32 is exact below 2^24
 *   V_LO_D, V_HI_D      the lower and the upper half of the lanes as doubles
 *   VI_FROM_I8, _U8     the first V_LANES bytes of a VB as integers
 *   VI_IOTA, VI_SRLV     0, 1, 2 ...; shift right by a count per lane
 *   V_TRANSPOSE(r)      r[0 .. V_LANES) as the rows of a square matrix: transposed in place
 *   V_LOAD_COLUMNS(r, rows, k): r[i] = the elements k + i of rows[0 .. V_LANES)
 *   V_LOAD_WORDS(r, rows, at): r[i], i < 4 = the 32-bit words at bytes at + 4 i of rows[0 .. V_LANES)
 *   VI_SHUFFLE(a, m)    the bytes of each 128 bits in the order of the VB m, 0 where m's top bit is set;   VB_WORDS(a, b, c, d):
 *                       a VB of four words
 *   V_HALF(h)           a half, given as its bits, as a float
 *   V_LOAD_F16 / _BF16 / _I8: V_LANES stored elements as floats;  VI_LOAD_U8: V_LANES bytes as integers
 *
 * Left out: gathers (slow on all targets here), any operation that only one of the sets has. */
#include <immintrin.h>

#define V_NAME(f)   peft__avx2_##f
#define V_STATIC(f) avx2_##f
#define V_TARGET    __attribute__((target("avx2,fma,f16c")))
#define V_INLINE    static inline __attribute__((always_inline, unused, target("avx2,fma,f16c")))

#define V         __m256
#define VI        __m256i
#define VB        __m128i
#define VM        __m256
#define VD        __m256d
#define V_LANES   8
#define V_EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)

#define V_LOAD(p)             _mm256_loadu_ps(p)
#define V_STORE(p, v)         _mm256_storeu_ps((p), (v))
#define V_LOAD_PART(p, n)     _mm256_maskload_ps((p), simd_avx2_first((int)(n)))
#define V_STORE_PART(p, v, n) _mm256_maskstore_ps((p), simd_avx2_first((int)(n)), (v))
#define V_SET1(x)             _mm256_set1_ps(x)
#define V_ZERO()              _mm256_setzero_ps()

#define V_ADD(a, b)     _mm256_add_ps((a), (b))
#define V_SUB(a, b)     _mm256_sub_ps((a), (b))
#define V_MUL(a, b)     _mm256_mul_ps((a), (b))
#define V_DIV(a, b)     _mm256_div_ps((a), (b))
#define V_FMA(a, b, c)  _mm256_fmadd_ps((a), (b), (c))
#define V_FNMA(a, b, c) _mm256_fnmadd_ps((a), (b), (c))
#define V_MAX(a, b)     _mm256_max_ps((a), (b))
#define V_MIN(a, b)     _mm256_min_ps((a), (b))
#define V_SQRT(a)       _mm256_sqrt_ps(a)
#define V_ROUND(a)      _mm256_round_ps((a), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define V_AND(a, b)     _mm256_and_ps((a), (b))
#define V_OR(a, b)      _mm256_or_ps((a), (b))
#define V_XOR(a, b)     _mm256_xor_ps((a), (b))
#define V_ANDNOT(a, b)  _mm256_andnot_ps((a), (b))

#define V_CMP_LT(a, b)    _mm256_cmp_ps((a), (b), _CMP_LT_OQ)
#define V_CMP_LE(a, b)    _mm256_cmp_ps((a), (b), _CMP_LE_OQ)
#define V_CMP_GT(a, b)    _mm256_cmp_ps((a), (b), _CMP_GT_OQ)
#define V_CMP_GE(a, b)    _mm256_cmp_ps((a), (b), _CMP_GE_OQ)
#define V_CMP_EQ(a, b)    _mm256_cmp_ps((a), (b), _CMP_EQ_OQ)
#define V_SELECT(m, a, b) _mm256_blendv_ps((b), (a), (m))
#define V_MASK_AND(m, o)  _mm256_and_ps((m), (o))
#define V_MASK_OR(m, o)   _mm256_or_ps((m), (o))
#define V_MASK_ALL(m)     (_mm256_movemask_ps(m) == 0xff)
#define V_MASK_ANY(m)     (_mm256_movemask_ps(m) != 0)

#define V_BITS(v)      _mm256_castps_si256(v)
#define V_FROM_BITS(i) _mm256_castsi256_ps(i)
#define V_TO_I32(v)    _mm256_cvtps_epi32(v)
#define V_FROM_I32(i)  _mm256_cvtepi32_ps(i)
#define VI_SET1(x)     _mm256_set1_epi32(x)
#define VI_ADD(a, b)   _mm256_add_epi32((a), (b))
#define VI_SUB(a, b)   _mm256_sub_epi32((a), (b))
#define VI_SUB_8(a, b) _mm256_sub_epi8((a), (b))
#define VI_AND(a, b)   _mm256_and_si256((a), (b))
#define VI_OR(a, b)    _mm256_or_si256((a), (b))
#define VI_SLL(a, n)   _mm256_slli_epi32((a), (n))
#define VI_SRL(a, n)   _mm256_srli_epi32((a), (n))
#define V_POW2N(n)     V_FROM_BITS(VI_SLL(VI_ADD(V_TO_I32(n), VI_SET1(127)), 23))

#define V_FIRST(v) _mm_cvtss_f32(_mm256_castps256_ps128(v))
#define V_HSUM(v)  simd_avx2_hsum(v)
#define V_HMAX(v)  simd_avx2_hmax(v)

#define VD_ZERO()       _mm256_setzero_pd()
#define VD_SET1(x)      _mm256_set1_pd(x)
#define VD_ADD(a, b)    _mm256_add_pd((a), (b))
#define VD_MUL(a, b)    _mm256_mul_pd((a), (b))
#define VD_FMA(a, b, c) _mm256_fmadd_pd((a), (b), (c))
#define VD_HSUM(v)      simd_avx2_hsum_d(v)
#define V_LO_D(v)       _mm256_cvtps_pd(_mm256_castps256_ps128(v))
#define V_HI_D(v)       _mm256_cvtps_pd(_mm256_extractf128_ps((v), 1))

#define V_LOAD_F16(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define V_LOAD_BF16(p) \
    V_FROM_BITS(VI_SLL(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p))), 16))
#define V_HALF(h)                  _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h)))
#define VB_WORDS(a, b, c, d)       _mm_setr_epi32((a), (b), (c), (d))
#define VI_FROM_I8(x)              _mm256_cvtepi8_epi32(x)
#define VI_FROM_U8(x)              _mm256_cvtepu8_epi32(x)
#define V_LOAD_I8(p)               V_FROM_I32(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(p))))
#define VI_LOAD_U8(p)              _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(p)))
#define VI_SRLV(a, n)              _mm256_srlv_epi32((a), (n))
#define VI_IOTA()                  _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)
#define V_TRANSPOSE(r)             simd_avx2_transpose(r)
#define V_LOAD_COLUMNS(r, rows, k) simd_avx2_columns((r), (rows), (k))
#define V_LOAD_WORDS(r, rows, at)  simd_avx2_words((r), (rows), (at))
#define VI_SHUFFLE(a, m)           _mm256_shuffle_epi8((a), _mm256_broadcastsi128_si256(m))
#define V_PREFETCH(p)              _mm_prefetch((const char *)(const void *)(p), _MM_HINT_T0)

#ifndef PEFT_SIMD_AVX2_H
#define PEFT_SIMD_AVX2_H

/* All bits set in the first n lanes. */
V_INLINE __m256i simd_avx2_first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

V_INLINE float simd_avx2_hsum(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

V_INLINE float simd_avx2_hmax(__m256 v) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

V_INLINE double simd_avx2_hsum_d(__m256d v) {
    __m128d s = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}

/* 8 x 8: pairs, then pairs of pairs within the 128-bit halves, then the halves. */
V_INLINE void simd_avx2_transpose(__m256 r[8]) {
#define SIMD_UNPACK(i) \
    const __m256 lo##i = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]), hi##i = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    SIMD_UNPACK(0)
    SIMD_UNPACK(1)
    SIMD_UNPACK(2)
    SIMD_UNPACK(3)
    const __m256 a0 = _mm256_shuffle_ps(lo0, lo1, 0x44), a1 = _mm256_shuffle_ps(lo0, lo1, 0xee);
    const __m256 a2 = _mm256_shuffle_ps(hi0, hi1, 0x44), a3 = _mm256_shuffle_ps(hi0, hi1, 0xee);
    const __m256 b0 = _mm256_shuffle_ps(lo2, lo3, 0x44), b1 = _mm256_shuffle_ps(lo2, lo3, 0xee);
    const __m256 b2 = _mm256_shuffle_ps(hi2, hi3, 0x44), b3 = _mm256_shuffle_ps(hi2, hi3, 0xee);
    r[0] = _mm256_permute2f128_ps(a0, b0, 0x20);
    r[1] = _mm256_permute2f128_ps(a1, b1, 0x20);
    r[2] = _mm256_permute2f128_ps(a2, b2, 0x20);
    r[3] = _mm256_permute2f128_ps(a3, b3, 0x20);
    r[4] = _mm256_permute2f128_ps(a0, b0, 0x31);
    r[5] = _mm256_permute2f128_ps(a1, b1, 0x31);
    r[6] = _mm256_permute2f128_ps(a2, b2, 0x31);
    r[7] = _mm256_permute2f128_ps(a3, b3, 0x31);
#undef SIMD_UNPACK
}

/* As below, of 4 words that lie anywhere. */
V_INLINE void simd_avx2_words(__m256i r[4], const uint8_t *const *rows, int64_t at) {
#define SIMD_WORDS(i) _mm_loadu_ps((const float *)(const void *)(rows[i] + at))
#define SIMD_JOIN(i)  _mm256_insertf128_ps(_mm256_castps128_ps256(SIMD_WORDS(i)), SIMD_WORDS((i) + 4), 1)
    const __m256 a = SIMD_JOIN(0), b = SIMD_JOIN(1), c = SIMD_JOIN(2), d = SIMD_JOIN(3);
    const __m256 ab = _mm256_unpacklo_ps(a, b), cd = _mm256_unpacklo_ps(c, d);
    const __m256 AB = _mm256_unpackhi_ps(a, b), CD = _mm256_unpackhi_ps(c, d);
    r[0] = V_BITS(_mm256_shuffle_ps(ab, cd, 0x44));
    r[1] = V_BITS(_mm256_shuffle_ps(ab, cd, 0xee));
    r[2] = V_BITS(_mm256_shuffle_ps(AB, CD, 0x44));
    r[3] = V_BITS(_mm256_shuffle_ps(AB, CD, 0xee));
#undef SIMD_WORDS
#undef SIMD_JOIN
}

/* Two 4 x 8 blocks, whose halves are joined while loading: that costs load slots, which are free, instead of shuffles. */
V_INLINE void simd_avx2_columns(__m256 r[8], const float *const *rows, int64_t k) {
#define SIMD_JOIN(i, at)                                                           \
    _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(rows[i] + k + (at))), \
                         _mm_loadu_ps(rows[(i) + 4] + k + (at)), 1)
#define SIMD_QUAD(at)                                                                                        \
    {                                                                                                        \
        const __m256 a = SIMD_JOIN(0, at), b = SIMD_JOIN(1, at), c = SIMD_JOIN(2, at), d = SIMD_JOIN(3, at); \
        const __m256 ab = _mm256_unpacklo_ps(a, b), cd = _mm256_unpacklo_ps(c, d);                           \
        const __m256 AB = _mm256_unpackhi_ps(a, b), CD = _mm256_unpackhi_ps(c, d);                           \
        r[(at) + 0] = _mm256_shuffle_ps(ab, cd, 0x44);                                                       \
        r[(at) + 1] = _mm256_shuffle_ps(ab, cd, 0xee);                                                       \
        r[(at) + 2] = _mm256_shuffle_ps(AB, CD, 0x44);                                                       \
        r[(at) + 3] = _mm256_shuffle_ps(AB, CD, 0xee);                                                       \
    }
    SIMD_QUAD(0)
    SIMD_QUAD(4)
#undef SIMD_QUAD
#undef SIMD_JOIN
}

#endif
