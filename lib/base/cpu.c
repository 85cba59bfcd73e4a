/* cpu.c - what this processor can. How many of them there are, and the clock, are the system's (system_*.c).
 *
 * x86: CPUID leaves 1 and 7, and XGETBV for whether the system saves the wide registers (Intel SDM volume 1, 13.3 and
 * 14.3; volume 2A, CPUID). AArch64 always has NEON.
 *
 * Left out: cache sizes. */
#include "base/base.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

#if defined(__x86_64__) || defined(__i386__)

/* XCR0: which register sets the system saves on a switch. */
static uint32_t cpu_saved(void) {
    uint32_t lo, hi;
    __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(lo), "=d"(hi) : "c"(0)); /* xgetbv, without its target flag */
    return lo;
}

static bool cpu_has(uint32_t word, uint32_t mask) {
    return (word & mask) == mask;
}

uint32_t peft__cpu_features(void) {
    uint32_t a, b, c, d, features = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !cpu_has(c, 1U << 27 | 1U << 28)) { return 0; } /* OSXSAVE, AVX */
    bool fma = cpu_has(c, 1U << 12 | 1U << 29); /* FMA, F16C */
    uint32_t saved = cpu_saved();
    if (!cpu_has(saved, 0x6) || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) { return 0; } /* SSE and AVX state */
    if (!fma || !cpu_has(b, 1U << 5)) { return 0; }
    features |= PEFT__CPU_AVX2;
    uint32_t f_dq_bw_vl = 1U << 16 | 1U << 17 | 1U << 30 | 1U << 31;
    if (!cpu_has(saved, 0xE6) || !cpu_has(b, f_dq_bw_vl)) { return features; } /* and opmask, ZMM state */
    features |= PEFT__CPU_AVX512;
    if (cpu_has(c, 1U << 11)) { features |= PEFT__CPU_AVX512_VNNI; }
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && cpu_has(a, 1U << 5)) { features |= PEFT__CPU_AVX512_BF16; }
    return features;
}

#elif defined(__aarch64__) || defined(__ARM_NEON)

uint32_t peft__cpu_features(void) {
    return PEFT__CPU_NEON;
}

#else

uint32_t peft__cpu_features(void) {
    return 0;
}

#endif
