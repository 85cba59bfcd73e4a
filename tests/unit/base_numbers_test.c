/* Numbers: JSON's grammar, known hard cases, and agreement with the C library's exact strtod and printf. */
#include "runner.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t num_bits_of(double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static double num_from_bits(uint64_t bits) {
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static bool num_parse(const char *s, double *out) {
    return peft__parse_f64(s, strlen(s), out);
}

TEST(base_parse_i64_limits_and_grammar) {
    int64_t v = 7;
    CHECK(peft__parse_i64("0", 1, &v) && v == 0);
    CHECK(peft__parse_i64("-0", 2, &v) && v == 0);
    CHECK(peft__parse_i64("123456", 3, &v) && v == 123);
    CHECK(peft__parse_i64("9223372036854775807", 19, &v) && v == INT64_MAX);
    CHECK(peft__parse_i64("-9223372036854775808", 20, &v) && v == INT64_MIN);
    CHECK(peft__parse_i64("-9223372036854775807", 20, &v) && v == -INT64_MAX);
    v = 7;
    const char *bad[] = {"", "-", "+1", " 1", "1 ", "1.0", "1e3", "0x10", "--1", "a", "9223372036854775808",
                         "-9223372036854775809", "18446744073709551616", "99999999999999999999999"};
    for (size_t i = 0; i < PEFT__COUNT(bad); i++) { CHECK(!peft__parse_i64(bad[i], strlen(bad[i]), &v)); }
    CHECK_INT(v, 7);
}

TEST(base_parse_f64_grammar) {
    double v = 7;
    const char *bad[] = {"",    "-",    "+1",  ".5",   "1.",   "-.5", "01",  "-01", "1e",       "1e+",  "1.e3", "0x1p3",
                         "inf", "-inf", "nan", "1,5",  " 1",   "1 ",  "1e5 ", "e5",  "Infinity", "1_0",  "1e1.5", "--1"};
    for (size_t i = 0; i < PEFT__COUNT(bad); i++) { CHECK(!num_parse(bad[i], &v)); }
    CHECK(v == 7.0);
    const char *good[] = {"0", "-0", "0.0", "0e5", "1", "-1.5", "1E5", "1e+5", "1e-5", "0.000", "10.010e-01", "123456789"};
    for (size_t i = 0; i < PEFT__COUNT(good); i++) {
        CHECK(num_parse(good[i], &v));
        CHECK_INT(num_bits_of(v), num_bits_of(strtod(good[i], NULL)));
    }
    CHECK(peft__parse_f64("1.5xyz", 3, &v) && v == 1.5);
}

TEST(base_parse_f64_hard_cases) {
    const struct {
        const char *text;
        uint64_t bits;
    } cases[] = {
        {"2.2250738585072011e-308", 0x000FFFFFFFFFFFFF},  /* the largest subnormal */
        {"2.2250738585072012e-308", 0x0010000000000000},  /* halfway cases around the smallest normal */
        {"2.2250738585072014e-308", 0x0010000000000000},
        {"4.9406564584124654e-324", 1},
        {"2.4703282292062327e-324", 0},                    /* just below half of the smallest */
        {"2.4703282292062328e-324", 1},                    /* just above */
        {"1e-400", 0},
        {"1e-99999999999", 0},
        {"0e99999999999", 0},
        {"1.7976931348623157e308", 0x7FEFFFFFFFFFFFFF},
        {"1.7976931348623158e308", 0x7FEFFFFFFFFFFFFF},
        {"9007199254740993", 0x4340000000000000},          /* 2^53 + 1: tie to even */
        {"9007199254740995", 0x4340000000000002},
        {"9007199254740993.00000000000000000000000000000000000000001", 0x4340000000000001},
        {"0.1", 0x3FB999999999999A},
        {"1e23", 0x44B52D02C7E14AF6},
        {"8.41e21", 0x447C7E83209E90B2},
        {"6929495644600919.5", 0x43389E56EE5E7A58},
    };
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        double v = -1;
        CHECK(num_parse(cases[i].text, &v));
        /* The libc first: it says whether the expectation itself is right. */
        CHECK_INT(num_bits_of(strtod(cases[i].text, NULL)), cases[i].bits);
        CHECK_INT(num_bits_of(v), cases[i].bits);
    }
    double v = 7;
    CHECK(!num_parse("1.7976931348623159e308", &v)); /* rounds to infinity */
    CHECK(!num_parse("1e309", &v));
    CHECK(!num_parse("-1e99999999999", &v));
    CHECK(v == 7.0);
}

TEST(base_parse_f64_long_texts) {
    char text[2048], longer[4096];
    double v = 0;
    /* The smallest number and a large subnormal, written in full. */
    CHECK_INT(snprintf(text, sizeof text, "%.1075f", 0x1p-1074), 1077);
    CHECK(num_parse(text, &v));
    CHECK_INT(num_bits_of(v), 1);
    CHECK_INT(snprintf(text, sizeof text, "%.1074f", 0x1.ffffffffffffcp-1023 / 2), 1076);
    CHECK(num_parse(text, &v));
    CHECK_INT(num_bits_of(v), num_bits_of(0x1.ffffffffffffcp-1023 / 2));
    /* A tie, and a tie with a digit 1 far beyond the digits that are kept. */
    (void)snprintf(longer, sizeof longer, "9007199254740993.%01500d1", 0);
    CHECK(num_parse(longer, &v));
    CHECK_INT(num_bits_of(v), 0x4340000000000001);
    (void)snprintf(longer, sizeof longer, "9007199254740993.%01500d", 0);
    CHECK(num_parse(longer, &v));
    CHECK_INT(num_bits_of(v), 0x4340000000000000);
    (void)snprintf(longer, sizeof longer, "1%0800de-800", 0);
    CHECK(num_parse(longer, &v));
    CHECK_NEAR(v, 1, 0);
    (void)snprintf(longer, sizeof longer, "0.%0800d1e801", 0);
    CHECK(num_parse(longer, &v));
    CHECK_NEAR(v, 1, 0);
}

/* Bits of every size of exponent, subnormals among them. */
static double num_any(uint64_t i) {
    uint64_t bits = peft__mix64(i * 7919 + 1);
    if (i % 16 == 0) { bits &= 0x800FFFFFFFFFFFFF; }
    if (i % 16 == 1) { bits &= 0xFFF0000000000000; } /* powers of two: the gap below is half of the one above */
    double v = num_from_bits(bits);
    return isfinite(v) ? v : num_from_bits(bits & 0xBFFFFFFFFFFFFFFF);
}

TEST(base_format_f64_shortest_round_trips) {
    for (uint64_t i = 0; i < 60000; i += runner_few() ? 7 : 1) {
        double v = num_any(i), back = 0;
        char text[40], libc[64];
        size_t n = peft__format_f64(v, 17, text);
        CHECK_INT(n, strlen(text));
        CHECK(n < 40);
        CHECK(num_parse(text, &back));
        CHECK_INT(num_bits_of(back), num_bits_of(v));
        CHECK_INT(num_bits_of(strtod(text, NULL)), num_bits_of(v));
#if defined(_WIN32)
        if (i % 16 == 1) { continue; } /* MinGW's strtod reads some numbers just below a power of two as that power */
#endif
        int p = 1; /* the shortest by the C library */
        for (; p < 17; p++) {
            (void)snprintf(libc, sizeof libc, "%.*g", p, v);
            if (num_bits_of(strtod(libc, NULL)) == num_bits_of(v)) { break; }
        }
        (void)snprintf(libc, sizeof libc, "%.*e", p - 1, v);
        CHECK_INT(num_bits_of(strtod(libc, NULL)), num_bits_of(v));
        char mine[64];
        (void)snprintf(mine, sizeof mine, "%.*e", p - 1, back);
        CHECK_STR(mine, libc);
        size_t digits = 0, zeros = 0; /* significant digits that were written, zeros at the end apart */
        for (const char *c = text; *c && *c != 'e'; c++) {
            if (*c < '0' || *c > '9' || (digits == 0 && *c == '0')) { continue; }
            zeros = *c == '0' ? zeros + 1 : 0;
            digits++;
        }
        CHECK(digits - zeros <= (size_t)p);
    }
}

TEST(base_format_f64_equals_printf) {
    char text[40], libc[64];
    for (uint64_t i = 0; i < 30000; i++) {
        double v = num_any(i);
        int digits = (int)(i % 16) + 1;
        peft__format_f64(v, digits, text);
        (void)snprintf(libc, sizeof libc, "%.*g", digits, v);
        CHECK_STR(text, libc);
        v = (double)(int64_t)(i * 37 % 20001 - 10000) / 64; /* exact ties occur among these */
        digits = (int)(i % 5) + 1;
        peft__format_f64(v, digits, text);
        (void)snprintf(libc, sizeof libc, "%.*g", digits, v);
        CHECK_STR(text, libc);
    }
}

TEST(base_format_f64_known_texts) {
    const struct {
        double v;
        int32_t digits;
        const char *text;
    } cases[] = {
        {0, 17, "0"}, {-0.0, 17, "-0"}, {1, 17, "1"}, {-1.5, 17, "-1.5"}, {0.1, 17, "0.1"}, {0.3, 17, "0.3"},
        {0.1 + 0.2, 17, "0.30000000000000004"}, {1e16, 17, "10000000000000000"}, {1e17, 17, "1e+17"}, {1e22, 17, "1e+22"},
        {1e-4, 17, "0.0001"}, {1e-5, 17, "1e-05"}, {5e-324, 17, "5e-324"}, {DBL_MAX, 17, "1.7976931348623157e+308"},
        {-2.2250738585072014e-308, 17, "-2.2250738585072014e-308"}, {123456, 3, "1.23e+05"}, {999.9, 3, "1e+03"},
        {99.95, 3, "100"}, {9.5, 1, "1e+01"}, {0.00099999, 2, "0.001"}, {2.5, 1, "2"}, {3.5, 1, "4"}, {1.0 / 3, 6, "0.333333"},
        {2e-5, 6, "2e-05"}, {5, 0, "5"}, {1.0 / 3, 99, "0.3333333333333333"}, {1, -4, "1"},
    };
    char text[40];
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        CHECK_INT(peft__format_f64(cases[i].v, cases[i].digits, text), strlen(cases[i].text));
        CHECK_STR(text, cases[i].text);
    }
    CHECK_INT(peft__format_f64((double)INFINITY, 6, text), 3);
    CHECK_STR(text, "inf");
    CHECK_INT(peft__format_f64(-(double)INFINITY, 17, text), 4);
    CHECK_STR(text, "-inf");
    CHECK_INT(peft__format_f64((double)NAN, 6, text), 3);
    CHECK_STR(text, "nan");
}
