/* simde_avx512.h - AVX-512 without the CPU: SIMDe's portable intrinsics under their native names, and the few that
 * release 0.7.4 lacks, written over AVX2 halves. For the test build with -DPEFT_SIMDE only; see tests/simde/run.sh. */
#ifndef SIMDE_AVX512_FILL_H
#define SIMDE_AVX512_FILL_H

#include <stdint.h>
#include <string.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"
#include <simde/x86/avx512.h>
#pragma GCC diagnostic pop

static inline __m512 fill_join(__m256 lo, __m256 hi) {
    __m512 v;
    memcpy(&v, &lo, sizeof lo);
    memcpy((char *)&v + sizeof lo, &hi, sizeof hi);
    return v;
}

static inline __m512i fill_join_i(__m256i lo, __m256i hi) {
    __m512i v;
    memcpy(&v, &lo, sizeof lo);
    memcpy((char *)&v + sizeof lo, &hi, sizeof hi);
    return v;
}

static inline __m256 fill_half(__m512 v, int which) {
    __m256 h;
    memcpy(&h, (const char *)&v + (size_t)which * sizeof h, sizeof h);
    return h;
}

static inline __m256i fill_half_i(__m512i v, int which) {
    __m256i h;
    memcpy(&h, (const char *)&v + (size_t)which * sizeof h, sizeof h);
    return h;
}

static inline __m512 fill_maskz_loadu(uint16_t m, const float *p) {
    float t[16];
    __m512 v;
    for (int i = 0; i < 16; i++) { t[i] = (m >> i & 1) != 0 ? p[i] : 0.0f; }
    memcpy(&v, t, sizeof t);
    return v;
}

static inline void fill_mask_storeu(float *p, uint16_t m, __m512 v) {
    float t[16];
    memcpy(t, &v, sizeof t);
    for (int i = 0; i < 16; i++) {
        if ((m >> i & 1) != 0) { p[i] = t[i]; }
    }
}

static inline __m512d fill_cvtps_pd(__m256 x) {
    const __m256d lo = _mm256_cvtps_pd(_mm256_castps256_ps128(x)), hi = _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
    __m512d v;
    memcpy(&v, &lo, sizeof lo);
    memcpy((char *)&v + sizeof lo, &hi, sizeof hi);
    return v;
}

static inline __m256i fill_cvtepi32_epi16(__m512i x) {
    int32_t from[16];
    int16_t to[16];
    __m256i v;
    memcpy(from, &x, sizeof from);
    for (int i = 0; i < 16; i++) { to[i] = (int16_t)from[i]; }
    memcpy(&v, to, sizeof v);
    return v;
}

static inline __m512i fill_inserti32x4(__m512i a, __m128i b, int at) {
    memcpy((char *)&a + 16 * at, &b, sizeof b);
    return a;
}

/* Thirty-two floats as bfloat16, those of lo first: to nearest even, NaN quiet. */
static inline __m512bh fill_cvtne2ps_pbh(__m512 hi, __m512 lo) {
    uint32_t from[32];
    uint16_t to[32];
    __m512bh v;
    memcpy(from, &lo, sizeof lo);
    memcpy(from + 16, &hi, sizeof hi);
    for (int i = 0; i < 32; i++) {
        const int nan = (from[i] & 0x7fffffff) > 0x7f800000;
        to[i] = (uint16_t)(nan ? from[i] >> 16 | 0x40 : (from[i] + 0x7fff + (from[i] >> 16 & 1)) >> 16);
    }
    memcpy(&v, to, sizeof v);
    return v;
}

static inline __m512i fill_permutexvar_epi16(__m512i at, __m512i a) {
    uint16_t from[32], which[32], to[32];
    __m512i v;
    memcpy(from, &a, sizeof from);
    memcpy(which, &at, sizeof which);
    for (int i = 0; i < 32; i++) { to[i] = from[which[i] & 31]; }
    memcpy(&v, to, sizeof v);
    return v;
}

/* Four 128-bit lanes picked by two-bit numbers: two from a, then two from b. */
static inline __m512 fill_shuffle(__m512 a, __m512 b, int how) {
    __m512 v;
    for (int i = 0; i < 4; i++) {
        memcpy((char *)&v + 16 * i, (const char *)(i < 2 ? &a : &b) + 16 * (how >> 2 * i & 3), 16);
    }
    return v;
}

#define FILL_LO(x) _mm256_castsi256_si128(x)
#define FILL_HI(x) _mm256_extracti128_si256((x), 1)
#undef _mm512_maskz_loadu_ps
#undef _mm512_mask_storeu_ps
#undef _mm512_cvtps_epi32
#undef _mm512_cvtepi32_ps
#undef _mm512_cvtps_pd
#undef _mm512_cvtph_ps
#undef _mm512_cvtepu16_epi32
#undef _mm512_cvtepi8_epi32
#undef _mm512_cvtepi32_epi16
#undef _mm512_inserti32x4
#undef _mm512_shuffle_epi8
#undef _mm512_broadcast_i32x4
#undef _mm512_castsi128_si512
#undef _mm512_cvtepu8_epi32
#undef _mm512_shuffle_f32x4
#undef _mm512_permutexvar_epi16
#define _mm512_permutexvar_epi16(at, a) fill_permutexvar_epi16((at), (a))
#define _mm512_cvtne2ps_pbh(hi, lo)     fill_cvtne2ps_pbh((hi), (lo))
#define _mm512_maskz_loadu_ps(m, p)    fill_maskz_loadu((m), (p))
#define _mm512_mask_storeu_ps(p, m, v) fill_mask_storeu((p), (m), (v))
#define _mm512_cvtps_epi32(v)          fill_join_i(_mm256_cvtps_epi32(fill_half((v), 0)), _mm256_cvtps_epi32(fill_half((v), 1)))
#define _mm512_cvtepi32_ps(v) \
    fill_join(_mm256_cvtepi32_ps(fill_half_i((v), 0)), _mm256_cvtepi32_ps(fill_half_i((v), 1)))
#define _mm512_cvtps_pd(x)              fill_cvtps_pd(x)
#define _mm512_cvtph_ps(x)              fill_join(_mm256_cvtph_ps(FILL_LO(x)), _mm256_cvtph_ps(FILL_HI(x)))
#define _mm512_cvtepu16_epi32(x)        fill_join_i(_mm256_cvtepu16_epi32(FILL_LO(x)), _mm256_cvtepu16_epi32(FILL_HI(x)))
#define _mm512_cvtepi8_epi32(x)         fill_join_i(_mm256_cvtepi8_epi32(x), _mm256_cvtepi8_epi32(_mm_srli_si128((x), 8)))
#define _mm512_cvtepi32_epi16(x)        fill_cvtepi32_epi16(x)
#define _mm512_castsi128_si512(x)       fill_inserti32x4(_mm512_setzero_si512(), (x), 0)
#define _mm512_inserti32x4(a, b, at)    fill_inserti32x4((a), (b), (at))
#define _mm512_broadcast_i32x4(x)       fill_join_i(_mm256_broadcastsi128_si256(x), _mm256_broadcastsi128_si256(x))
#define _mm512_shuffle_epi8(a, m) \
    fill_join_i(_mm256_shuffle_epi8(fill_half_i((a), 0), fill_half_i((m), 0)), \
                _mm256_shuffle_epi8(fill_half_i((a), 1), fill_half_i((m), 1)))
#define _mm512_cvtepu8_epi32(x)         fill_join_i(_mm256_cvtepu8_epi32(x), _mm256_cvtepu8_epi32(_mm_srli_si128((x), 8)))
#define _mm512_shuffle_f32x4(a, b, how) fill_shuffle((a), (b), (how))

#endif
