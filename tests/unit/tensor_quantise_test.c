/* tensor_quantise_test.c - the bytes of each written type against those of the gguf Python package (0.19). */
#include <math.h>

#include "runner.h"
#include "tensor/tensor.h"

static void quantise_input(float x[64]) {
    for (int32_t i = 0; i < 64; i++) { x[i] = (float)((i * 37 + 11) % 97 - 48) / 32.0f * 0.3f; }
}

TEST(tensor_quantise_q8_0_bytes) {
    static const uint8_t expected[] = {
        0x1b, 0x1b, 0x9c, 0x00, 0x64, 0xc2, 0x26, 0x84, 0xe8, 0x4c, 0xaa, 0x0e, 0x71, 0xcf, 0x33, 0x91, 0xf5,
        0x59, 0xb7, 0x1b, 0x7f, 0xdd, 0x41, 0x9f, 0x03, 0x67, 0xc5, 0x29, 0x86, 0xea, 0x4e, 0xac, 0x10, 0x74,
        0x42, 0x1b, 0xd3, 0x35, 0x96, 0xf8, 0x5a, 0xbb, 0x1d, 0x7f, 0xe0, 0x42, 0xa3, 0x05, 0x67, 0xc8, 0x2a,
        0x8c, 0xed, 0x4f, 0xb1, 0x13, 0x74, 0xd6, 0x38, 0x99, 0xfb, 0x5d, 0xbe, 0x20, 0x81, 0xe3, 0x45, 0xa6};
    float x[64];
    uint8_t out[sizeof expected];
    quantise_input(x);
    CHECK_OK(peft__quantise(PEFT_DTYPE_Q8_0, x, 64, out));
    CHECK_MEM(out, expected, sizeof expected);
}

TEST(tensor_quantise_q4_0_bytes) {
    static const uint8_t expected[] = {0x0d, 0xab, 0xde, 0x68, 0x02, 0xac, 0x46, 0xef, 0x8a, 0x23, 0xcd, 0x57,
                                       0xf1, 0x9b, 0x35, 0xdf, 0x79, 0x12, 0x33, 0xab, 0x9b, 0x35, 0xdf, 0x79,
                                       0x12, 0xbc, 0x56, 0xf0, 0x8a, 0x24, 0xce, 0x68, 0xf2, 0xac, 0x45, 0xef};
    float x[64];
    uint8_t out[sizeof expected];
    quantise_input(x);
    CHECK_OK(peft__quantise(PEFT_DTYPE_Q4_0, x, 64, out));
    CHECK_MEM(out, expected, sizeof expected);
}

TEST(tensor_quantise_q4_1_bytes) {
    static const uint8_t expected[] = {0x71, 0x2b, 0xe6, 0xb6, 0x31, 0x97, 0xfd, 0x54, 0xba, 0x20, 0x86, 0xec, 0x42, 0xa8,
                                       0x0e, 0x65, 0xca, 0x21, 0x87, 0xed, 0xae, 0x2b, 0x33, 0xb7, 0x65, 0xcb, 0x31, 0x97,
                                       0xed, 0x53, 0xb9, 0x1f, 0x76, 0xdb, 0x42, 0x98, 0x0e, 0x64, 0xca, 0x21};
    float x[64];
    uint8_t out[sizeof expected];
    quantise_input(x);
    CHECK_OK(peft__quantise(PEFT_DTYPE_Q4_1, x, 64, out));
    CHECK_MEM(out, expected, sizeof expected);
}

TEST(tensor_halves_round_to_even) {
    static const struct {
        float v;
        uint16_t half, brain;
    } cases[] = {{1.0f, 0x3c00, 0x3f80},      {-2.5f, 0xc100, 0xc020},     {65519.0f, 0x7bff, 0x4780},
                 {65520.0f, 0x7c00, 0x4780},  {0x1p-24f, 0x0001, 0x3380},  {0x1p-25f, 0x0000, 0x3300},
                 {0x1.000002p-25f, 0x0001, 0x3300}, {6.1e-5f, 0x03ff, 0x3880}, {0.33325195f, 0x3555, 0x3eab},
                 {1e-9f, 0x0000, 0x3089},     {3.14159265f, 0x4248, 0x4049}};
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        CHECK_INT(peft__f32_to_f16(cases[i].v), cases[i].half);
        CHECK_INT(peft__f32_to_bf16(cases[i].v), cases[i].brain);
    }
    CHECK_INT(peft__f32_to_f16(-INFINITY), 0xfc00);
    CHECK(isnan(peft__f16_to_f32(peft__f32_to_f16(NAN))));
    CHECK_INT(peft__f32_to_bf16(NAN) & 0x7fc0, 0x7fc0);
}

TEST(tensor_every_half_survives) {
    for (uint32_t h = 0; h < 0x10000; h++) {
        if ((h & 0x7c00) == 0x7c00 && (h & 0x3ff) != 0) { continue; } /* NaN */
        CHECK_INT(peft__f32_to_f16(peft__f16_to_f32((uint16_t)h)), h);
    }
}

TEST(tensor_quantise_edges) {
    float x[32] = {0};
    uint8_t out[34], zero[34] = {0};
    CHECK_OK(peft__quantise(PEFT_DTYPE_Q8_0, x, 32, out));
    CHECK_MEM(out, zero, 34);
    x[3] = NAN;
    x[4] = INFINITY;
    CHECK_OK(peft__quantise(PEFT_DTYPE_Q8_0, x, 32, out)); /* whatever it is, nothing undefined happens */
    CHECK_OK(peft__quantise(PEFT_DTYPE_Q4_0, x, 32, out));
    CHECK_OK(peft__quantise(PEFT_DTYPE_Q4_1, x, 32, out));
    CHECK_STATUS(peft__quantise(PEFT_DTYPE_Q8_0, x, 31, out), PEFT_E_SHAPE);
    CHECK_STATUS(peft__quantise(PEFT_DTYPE_Q6_K, x, 32, out), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("Q6_K");
}
