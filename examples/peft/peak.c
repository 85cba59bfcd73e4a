/* peak.c - the two limits of a roofline, measured: multiply-adds that wait for nothing, and a memory read from end to end.
 *
 * Twelve sums in registers, each a multiply-add that does not need the others' results, keep two units with a latency of four or
 * five cycles busy; sixteen for AVX-512, whose registers are twice as many. A call is short, because on a shared machine a figure
 * is worth something only beside one of the same moment: whoever calls takes the mean of many.
 *
 * Left out: units for bfloat16, which go beyond this peak; NUMA. */
#include "peak.h"

#include "system.h"
#include "tool.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define PEAK_X86 1
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__ARM_NEON)
#define PEAK_NEON 1
#include <arm_neon.h>
#endif

enum { PEAK_ROUNDS = 20000 };

/* Runs the loop for so many rounds; returns the FLOPs of a round. *sink: so that it is not left out. */
typedef double (*peak_loop)(long rounds, float *sink);

/* Written out: at -O2 the loop over them would stay one, and the sums in memory. */
#define PEAK_12(x) x(0) x(1) x(2) x(3) x(4) x(5) x(6) x(7) x(8) x(9) x(10) x(11)
#define PEAK_16(x) PEAK_12(x) x(12) x(13) x(14) x(15)

#ifdef PEAK_X86
__attribute__((target("avx2,fma"))) static double peak_avx2(long rounds, float *sink) {
    const __m256 x = _mm256_set1_ps(0.999f);
    __m256 s[12]; /* all different, or the compiler computes one of them */
    float out[8];
    for (int j = 0; j < 12; j++) { s[j] = _mm256_set1_ps((float)j); }
#define PEAK_STEP(j) s[j] = _mm256_fmadd_ps(s[j], x, x);
    for (long i = 0; i < rounds; i++) { PEAK_12(PEAK_STEP) }
#undef PEAK_STEP
    for (int j = 1; j < 12; j++) { s[0] = _mm256_add_ps(s[0], s[j]); }
    _mm256_storeu_ps(out, s[0]);
    *sink = out[0];
    return 12.0 * 8 * 2;
}

__attribute__((target("avx512f"))) static double peak_avx512(long rounds, float *sink) {
    const __m512 x = _mm512_set1_ps(0.999f);
    __m512 s[16];
    float out[16];
    for (int j = 0; j < 16; j++) { s[j] = _mm512_set1_ps((float)j); }
#define PEAK_STEP(j) s[j] = _mm512_fmadd_ps(s[j], x, x);
    for (long i = 0; i < rounds; i++) { PEAK_16(PEAK_STEP) }
#undef PEAK_STEP
    for (int j = 1; j < 16; j++) { s[0] = _mm512_add_ps(s[0], s[j]); }
    _mm512_storeu_ps(out, s[0]);
    *sink = out[0];
    return 16.0 * 16 * 2;
}
#endif

#ifdef PEAK_NEON
static double peak_neon(long rounds, float *sink) {
    const float32x4_t x = vdupq_n_f32(0.999f);
    float32x4_t s[16];
    for (int j = 0; j < 16; j++) { s[j] = vdupq_n_f32((float)j); }
#define PEAK_STEP(j) s[j] = vfmaq_f32(s[j], s[j], x);
    for (long i = 0; i < rounds; i++) { PEAK_16(PEAK_STEP) }
#undef PEAK_STEP
    for (int j = 1; j < 16; j++) { s[0] = vaddq_f32(s[0], s[j]); }
    *sink = vgetq_lane_f32(s[0], 0);
    return 16.0 * 4 * 2;
}
#endif

/* Products and sums as the compiler makes them. */
static double peak_plain(long rounds, float *sink) {
    float s[32];
    for (int j = 0; j < 32; j++) { s[j] = (float)j; }
    for (long i = 0; i < rounds; i++) {
        for (int j = 0; j < 32; j++) { s[j] = s[j] * 0.999f + 0.999f; }
    }
    for (int j = 1; j < 32; j++) { s[0] += s[j]; }
    *sink = s[0];
    return 32.0 * 2;
}

static peak_loop peak_choose(const char *isa) {
    bool any = strcmp(isa, "blas") == 0; /* it chooses by itself */
#if defined(PEAK_X86)
    if (strncmp(isa, "avx512", 6) == 0 || (any && __builtin_cpu_supports("avx512f"))) { return peak_avx512; }
    if (strcmp(isa, "avx2") == 0 || (any && __builtin_cpu_supports("avx2"))) { return peak_avx2; }
#elif defined(PEAK_NEON)
    if (strcmp(isa, "neon") == 0 || any) { return peak_neon; }
#else
    (void)any;
#endif
    return peak_plain;
}

/* ---- threads -------------------------------------------------------------------------------------------------------------- */

typedef struct peak_part {
    peak_loop loop;            /* NULL: read */
    const char *from;          /* of this thread */
    size_t bytes;
    double work, seconds;      /* results: FLOPs or bytes, and the time that they took */
    float sink;
} peak_part;

/* Four streams, whose lines are asked for ahead: one alone is held up at each page. */
static void peak_read_part(peak_part *p) {
    enum { STREAMS = 4, LINE = 64, AHEAD = 1024 };
    const size_t each = p->bytes / STREAMS / LINE * LINE;
    uint64_t sum = 0, line[LINE / sizeof(uint64_t)];
    for (size_t i = 0; i < each; i += LINE) {
        for (size_t s = 0; s < STREAMS; s++) {
            const char *from = p->from + s * each + i;
#if defined(__GNUC__)
            __builtin_prefetch((const void *)((uintptr_t)from + AHEAD)); /* which may be past the end */
#endif
            memcpy(line, from, sizeof line);
            sum += line[0] ^ line[1] ^ line[2] ^ line[3] ^ line[4] ^ line[5] ^ line[6] ^ line[7];
        }
    }
    p->sink = (float)sum;
    p->work = (double)(each * STREAMS);
}

static void peak_run_part(void *arg) {
    peak_part *p = arg;
    double begun = system_clock();
    if (p->loop != NULL) {
        do { p->work += p->loop(PEAK_ROUNDS, &p->sink) * PEAK_ROUNDS; } while (system_clock() - begun < 0.01);
    } else {
        peak_read_part(p);
    }
    p->seconds = system_clock() - begun;
}

/* Work a second of all parts together. */
static double peak_run(peak_part *parts, int n) {
    double sum = 0.0;
    bool good = system_parallel(n, peak_run_part, parts, sizeof *parts);
    for (int i = 0; good && i < n; i++) { sum += parts[i].work / fmax(parts[i].seconds, 1e-9); }
    return sum;
}

double peak_flops(const char *isa, int threads) {
    peak_part *parts = tool_alloc((size_t)threads * sizeof *parts);
    for (int i = 0; i < threads; i++) { parts[i].loop = peak_choose(isa); }
    double speed = peak_run(parts, threads);
    free(parts);
    return speed;
}

double peak_read(const char *memory, long turn, int threads) {
    peak_part *parts = tool_alloc((size_t)threads * sizeof *parts);
    size_t each = (size_t)PEAK_WINDOW / (size_t)threads;
    memory += (size_t)turn % (PEAK_BYTES / PEAK_WINDOW) * PEAK_WINDOW;
    for (int i = 0; i < threads; i++) {
        parts[i].from = memory + (size_t)i * each;
        parts[i].bytes = each;
    }
    double speed = peak_run(parts, threads);
    free(parts);
    return speed;
}
