/* Randomness: published known answers, streams by position, and the moments of each distribution. */
#include "runner.h"

#include <math.h>

TEST(base_philox_known_answers) {
    /* Random123's kat_vectors, philox4x32 with 10 rounds. */
    const struct {
        uint64_t key, hi, lo;
        uint32_t out[4];
    } cases[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        uint32_t out[4];
        peft__philox(cases[i].key, cases[i].hi, cases[i].lo, out);
        CHECK_MEM(out, cases[i].out, sizeof out);
    }
}

TEST(base_mix64_is_splitmix64) {
    /* splitmix64 seeded with 0: the published first outputs. */
    CHECK(peft__mix64(0x9E3779B97F4A7C15U) == 0xE220A8397B1DCDAFU);
    CHECK(peft__mix64(2 * 0x9E3779B97F4A7C15U) == 0x6E789E6AA1B965F4U);
    CHECK(peft__mix64(3 * 0x9E3779B97F4A7C15U) == 0x06C45D188009454FU);
    CHECK(peft__mix64(0) == 0);
}

TEST(base_hash_depends_on_every_byte_length_and_seed) {
    char text[40];
    memset(text, 0, sizeof text);
    uint64_t seen[400];
    size_t n = 0;
    for (size_t len = 0; len <= 40; len++) { seen[n++] = peft__hash_str(1, text, len); } /* NULs only: the length counts */
    for (size_t i = 0; i < 40; i++) {
        for (char bit = 1; bit <= 4; bit = (char)(bit * 2)) {
            text[i] = bit;
            seen[n++] = peft__hash_str(1, text, 40);
            text[i] = 0;
        }
    }
    seen[n++] = peft__hash_str(2, text, 40);
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < i; k++) { CHECK(seen[i] != seen[k]); }
    }
    CHECK(peft__hash_str(1, "abcdefghi", 9) == peft__hash_str(1, "abcdefghi", 9));
}

TEST(base_rng_words_are_the_counter_in_order) {
    peft__rng r = {42, 0}, later = {42, 6};
    uint32_t words[8], block[4];
    for (int i = 0; i < 8; i++) { words[i] = peft__rng_u32(&r); }
    CHECK_INT(r.pos, 8);
    peft__philox(42, 0, 0, block);
    CHECK_MEM(words, block, 16);
    peft__philox(42, 0, 1, block);
    CHECK_MEM(words + 4, block, 16);
    CHECK_INT(peft__rng_u32(&later), words[6]);
    peft__rng other = {43, 0};
    CHECK(peft__rng_u32(&other) != words[0]);
}

TEST(base_rng_below_is_in_range_and_even) {
    peft__rng r = {7, 1};
    CHECK_INT(peft__rng_below(&r, 0), 0);
    CHECK_INT(peft__rng_below(&r, 1), 0);
    int64_t count[7] = {0};
    for (int i = 0; i < 70000; i++) {
        uint64_t x = peft__rng_below(&r, 7);
        CHECK(x < 7);
        count[x]++;
    }
    for (int i = 0; i < 7; i++) { CHECK_NEAR((double)count[i], 10000, 400); } /* 4 standard deviations */
    uint64_t n = ((uint64_t)3 << 62) + 1; /* a quarter of all words is rejected: the mean shows a bias */
    double sum = 0;
    for (int i = 0; i < 20000; i++) {
        uint64_t x = peft__rng_below(&r, n);
        CHECK(x < n);
        sum += (double)x / (double)n;
    }
    CHECK_NEAR(sum / 20000, 0.5, 0.009);
}

TEST(base_rng_uniform_moments) {
    peft__rng r = {1234, 0};
    double sum = 0, square = 0, low = 1, high = 0;
    int n = 200000;
    for (int i = 0; i < n; i++) {
        double u = peft__rng_uniform(&r);
        CHECK(u >= 0 && u < 1);
        sum += u;
        square += u * u;
        low = u < low ? u : low;
        high = u > high ? u : high;
    }
    CHECK_NEAR(sum / n, 0.5, 0.003);
    CHECK_NEAR(square / n, 1.0 / 3, 0.003);
    CHECK(low < 1e-4 && high > 1 - 1e-4);
}

TEST(base_rng_normal_moments_and_tails) {
    peft__rng r = {99, 3};
    double m[5] = {0};
    int n = 200000, beyond2 = 0;
    for (int i = 0; i < n; i++) {
        double x = peft__rng_normal(&r);
        CHECK(isfinite(x));
        double p = 1;
        for (int k = 1; k <= 4; k++) { m[k] += p *= x; }
        beyond2 += fabs(x) > 2;
    }
    CHECK_NEAR(m[1] / n, 0, 0.01);
    CHECK_NEAR(m[2] / n, 1, 0.015);
    CHECK_NEAR(m[3] / n, 0, 0.03);
    CHECK_NEAR(m[4] / n, 3, 0.1);
    CHECK_NEAR((double)beyond2 / n, 0.0455, 0.002);
}

TEST(base_rng_normal_equals_the_formula_of_its_words) {
    for (uint64_t i = 0; i < 20000; i++) {
        peft__rng r = {i, i * 4};
        uint32_t w[4];
        peft__philox(i, 0, i, w);
        double u = ((double)(((uint64_t)w[0] << 32 | w[1]) >> 11) + 1) * 0x1p-53;
        double v = (double)(((uint64_t)w[2] << 32 | w[3]) >> 11) * 0x1p-53;
        double expected = sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
        CHECK_NEAR(peft__rng_normal(&r), expected, 1e-14); /* the argument 2 pi v itself is off by 4e-16 */
        CHECK_INT(r.pos, i * 4 + 4);
    }
}

TEST(base_rng_normal_has_fixed_bits) {
    /* Written down once; the same from gcc and clang, on any libm. */
    peft__rng r = {2024, 0};
    uint64_t h = 0;
    for (int i = 0; i < 1000; i++) {
        double x = peft__rng_normal(&r);
        uint64_t bits;
        memcpy(&bits, &x, sizeof bits);
        h = peft__mix64(h ^ bits);
    }
    CHECK(h == 0xBA4C37F603CB33D1U);
}
