/* cpu.c - what this processor can, how many of them there are, and a clock.
 *
 * x86: CPUID leaves 1 and 7, and XGETBV for whether the system saves the wide registers (Intel SDM volume 1, 13.3 and
 * 14.3; volume 2A, CPUID). AArch64 always has NEON.
 *
 * Left out: cache sizes, CPU quotas of control groups. */
#include "base/base.h"

#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif
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

int32_t peft__cpu_count(void) {
#if defined(__linux__) && defined(SYS_sched_getaffinity)
    unsigned long mask[1024 / sizeof(unsigned long)] = {0}; /* 8192 CPUs */
    long bytes = syscall(SYS_sched_getaffinity, 0, sizeof mask, mask);
    int32_t n = 0;
    for (size_t i = 0; bytes > 0 && i < (size_t)bytes / sizeof mask[0]; i++) {
        for (unsigned long word = mask[i]; word; word &= word - 1) { n++; }
    }
    if (n > 0) { return n; }
#endif
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 && online < 1 << 20 ? (int32_t)online : 1;
}

double peft__clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
