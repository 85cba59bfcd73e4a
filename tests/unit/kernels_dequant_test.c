/* kernels_dequant_test.c - stored types against values worked out from the format's description, element by element, and
 * every table against the generic one in all bits.
 *
 * The blocks here are built by writing each quant where the format says it is, which is the other way round from the code
 * under test; so an error would have to be made twice. */
#include <math.h>

#include "kernels/generic/generic.h"
#include "runner.h"

static const int32_t dequant_test_types[] = {PEFT_DTYPE_F32,  PEFT_DTYPE_F16,  PEFT_DTYPE_BF16, PEFT_DTYPE_Q8_0,
                                             PEFT_DTYPE_Q4_0, PEFT_DTYPE_Q4_1, PEFT_DTYPE_Q5_0, PEFT_DTYPE_Q5_1,
                                             PEFT_DTYPE_Q4_K, PEFT_DTYPE_Q5_K, PEFT_DTYPE_Q6_K};

/* Halves: 0x3400 is 0.25, 0xb800 is -0.5, 0x2e66 is 1638 / 2^14. */
enum { HALF_QUARTER = 0x3400, HALF_MINUS_HALF = 0xb800, HALF_ODD = 0x2e66 };
static const double dequant_test_odd = 1638.0 / 16384;

static void dequant_test_half(uint8_t *p, int32_t h) {
    p[0] = (uint8_t)(h & 0xff);
    p[1] = (uint8_t)(h >> 8);
}

static const peft__kernels *dequant_test_table(size_t i, bool *more) {
    const peft__kernels *k = peft__kernels_at(i), *usable = NULL;
    *more = k != NULL;
    return k != NULL && peft__kernels_find(k->name, &usable) == PEFT_OK ? usable : NULL;
}

/* Every table gives `want` for the block. All numbers here have few enough bits to be exact. */
static bool dequant_test_exact(int32_t dtype, const uint8_t *src, int32_t n, const double *want) {
    peft__real out[256];
    bool more = true;
    for (size_t t = 0; more; t++) {
        const peft__kernels *k = dequant_test_table(t, &more);
        if (k == NULL) { continue; }
        k->dequant(dtype, src, n, out);
        for (int32_t i = 0; i < n; i++) {
            if ((double)out[i] != want[i]) {
                return runner_near(__FILE__, __LINE__, k->name, (double)out[i], want[i], 0);
            }
        }
    }
    return true;
}

TEST(kernels_dequant_block_sizes) {
    static const int32_t bytes[] = {4, 2, 2, 34, 18, 20, 22, 24, 144, 176, 210};
    static const int32_t elems[] = {1, 1, 1, 32, 32, 32, 32, 32, 256, 256, 256};
    for (size_t i = 0; i < PEFT__COUNT(dequant_test_types); i++) {
        CHECK_INT(peft__dtype_block_of(dequant_test_types[i]).bytes, bytes[i]);
        CHECK_INT(peft__dtype_block_of(dequant_test_types[i]).elems, elems[i]);
    }
    CHECK_INT(peft__dtype_block_of(99).bytes, 0);
    CHECK_INT(peft__dtype_block_of(PEFT__DTYPE_REAL).bytes, sizeof(peft__real));
}

/* Every half: its value by the definition, on every table. */
TEST(kernels_dequant_all_halves) {
    static uint8_t src[2 * 65536];
    static peft__real out[65536];
    bool more = true;
    for (int32_t h = 0; h < 65536; h++) { dequant_test_half(src + 2 * h, h); }
    for (size_t t = 0; more; t++) {
        const peft__kernels *k = dequant_test_table(t, &more);
        if (k == NULL) { continue; }
        k->dequant(PEFT_DTYPE_F16, src, 65536, out);
        for (int32_t h = 0; h < 65536; h++) {
            const int32_t exponent = h >> 10 & 31, fraction = h & 1023;
            const double sign = h >= 32768 ? -1 : 1;
            if (exponent == 31) {
                CHECK(fraction == 0 ? (double)out[h] == sign * (double)INFINITY : isnan(out[h]));
            } else {
                const double size = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
                CHECK((double)out[h] == sign * size);
                CHECK((signbit(out[h]) != 0) == (h >= 32768)); /* of zero too */
            }
        }
    }
}

TEST(kernels_dequant_plain_types) {
    const uint8_t bf16[] = {0x80, 0x3f, 0x20, 0xc1, 0x00, 0x00, 0x00, 0x80, 0x01, 0x00}; /* 1, -10, 0, -0, 2^-133 */
    const double want[] = {1, -10, 0, 0, ldexp(1, -133)};
    const float f32[] = {1.5f, -3.25e-30f, 7.0f};
    const double same[] = {(double)1.5f, (double)-3.25e-30f, 7};
    uint8_t odd[sizeof f32 + 1]; /* at an odd address, as a tensor in a file may be */
    memcpy(odd + 1, f32, sizeof f32);
    CHECK(dequant_test_exact(PEFT_DTYPE_BF16, bf16, 5, want));
    CHECK(dequant_test_exact(PEFT_DTYPE_F32, odd + 1, 3, same));
}

TEST(kernels_dequant_q8_0) {
    uint8_t b[34];
    double want[32];
    dequant_test_half(b, HALF_ODD);
    for (int32_t i = 0; i < 32; i++) {
        const int32_t q = i == 0 ? -128 : i == 1 ? 127 : i * 7 - 100;
        b[2 + i] = (uint8_t)(int8_t)q;
        want[i] = dequant_test_odd * q;
    }
    CHECK(dequant_test_exact(PEFT_DTYPE_Q8_0, b, 32, want));
}

/* Quants i * 11 mod 16 (or 32) in the four types of 32. */
static bool dequant_test_q45(int32_t dtype, bool five, bool has_min) {
    uint8_t b[24] = {0};
    double want[32];
    const int32_t levels = five ? 32 : 16, head = has_min ? 4 : 2;
    dequant_test_half(b, HALF_ODD);
    if (has_min) { dequant_test_half(b + 2, HALF_MINUS_HALF); }
    uint8_t *nibbles = b + head + (five ? 4 : 0);
    for (int32_t i = 0; i < 32; i++) {
        const int32_t q = i * 11 % levels;
        uint8_t *byte = nibbles + i % 16;
        *byte = (uint8_t)(*byte | (i < 16 ? q & 15 : (q & 15) << 4));
        if (q >= 16) { b[head + i / 8] = (uint8_t)(b[head + i / 8] | 1 << i % 8); }
        want[i] = has_min ? dequant_test_odd * q - 0.5 : dequant_test_odd * (q - levels / 2);
    }
    return dequant_test_exact(dtype, b, 32, want);
}

TEST(kernels_dequant_four_and_five_bits) {
    CHECK(dequant_test_q45(PEFT_DTYPE_Q4_0, false, false));
    CHECK(dequant_test_q45(PEFT_DTYPE_Q4_1, false, true));
    CHECK(dequant_test_q45(PEFT_DTYPE_Q5_0, true, false));
    CHECK(dequant_test_q45(PEFT_DTYPE_Q5_1, true, true));
}

/* Six-bit scale and min of sub-block s into the 12 bytes. */
static void dequant_test_put_scale(uint8_t *p, int32_t s, int32_t scale, int32_t least) {
    if (s < 4) {
        p[s] = (uint8_t)(p[s] | scale);
        p[s + 4] = (uint8_t)(p[s + 4] | least);
    } else {
        p[s + 4] = (uint8_t)((scale & 15) | (least & 15) << 4);
        p[s - 4] = (uint8_t)(p[s - 4] | (scale >> 4) << 6);
        p[s] = (uint8_t)(p[s] | (least >> 4) << 6);
    }
}

static bool dequant_test_k45(int32_t dtype, bool five) {
    uint8_t b[176] = {0};
    double want[256];
    dequant_test_half(b, HALF_QUARTER);
    dequant_test_half(b + 2, HALF_MINUS_HALF);
    uint8_t *nibbles = b + (five ? 48 : 16);
    for (int32_t s = 0; s < 8; s++) {
        const int32_t scale = (s * 23 + 9) % 64, least = (s * 37 + 50) % 64;
        dequant_test_put_scale(b + 4, s, scale, least);
        for (int32_t l = 0; l < 32; l++) {
            const int32_t q = (s * 5 + l * 3) % (five ? 32 : 16);
            uint8_t *byte = nibbles + s / 2 * 32 + l;
            *byte = (uint8_t)(*byte | (s % 2 == 0 ? q & 15 : (q & 15) << 4));
            if (q >= 16) { b[16 + l] = (uint8_t)(b[16 + l] | 1 << s); }
            want[32 * s + l] = 0.25 * scale * q + 0.5 * least;
        }
    }
    return dequant_test_exact(dtype, b, 256, want);
}

TEST(kernels_dequant_k_types) {
    uint8_t b[210] = {0};
    double want[256];
    CHECK(dequant_test_k45(PEFT_DTYPE_Q4_K, false));
    CHECK(dequant_test_k45(PEFT_DTYPE_Q5_K, true));
    dequant_test_half(b + 208, HALF_QUARTER);
    for (int32_t e = 0; e < 256; e++) {
        const int32_t half = e / 128, plane = e % 128 / 32, l = e % 32, q = e * 13 % 64, scale = e / 16 * 17 - 128;
        uint8_t *low = b + 64 * half + (plane % 2 == 1 ? 32 : 0) + l, *two = b + 128 + 32 * half + l;
        *low = (uint8_t)(*low | (plane < 2 ? q & 15 : (q & 15) << 4));
        *two = (uint8_t)(*two | (q >> 4) << (2 * plane));
        b[192 + e / 16] = (uint8_t)(int8_t)scale;
        want[e] = 0.25 * scale * (q - 32);
    }
    CHECK(dequant_test_exact(PEFT_DTYPE_Q6_K, b, 256, want));
}

/* Random bytes, whatever they mean (infinities and NaN too), and lengths that are no multiple of a vector. */
TEST(kernels_dequant_tables_agree_in_all_bits) {
    enum { N = 1024 };
    static uint8_t src[4 * N + 1];
    static peft__real want[N + 1], got[N + 1];
    peft__rng r = {.key = 3};
    for (size_t i = 0; i < PEFT__COUNT(dequant_test_types); i++) {
        const int32_t dtype = dequant_test_types[i], e = peft__dtype_block_of(dtype).elems;
        for (int32_t round = 0; round < 40; round++) {
            bool more = true;
            const int64_t n = e == 1 ? round : (int64_t)peft__rng_below(&r, (uint64_t)(N / e + 1)) * e;
            for (size_t j = 0; j < sizeof src; j++) { src[j] = (uint8_t)peft__rng_u32(&r); }
            memset(want, 0xff, sizeof want);
            peft__generic_dequant(dtype, src + 1, n, want);
            for (size_t t = 1; more; t++) {
                const peft__kernels *k = dequant_test_table(t, &more);
                if (k == NULL) { continue; }
                memset(got, 0xff, sizeof got);
                k->dequant(dtype, src + 1, n, got);
                for (int64_t j = 0; j <= n; j++) { /* NaN payloads are the hardware's affair */
                    CHECK((isnan(want[j]) && isnan(got[j])) || memcmp(got + j, want + j, sizeof *got) == 0);
                }
            }
        }
    }
}
