/* vec.c - the vector entries of the generic table.
 *
 * Sums run in eight lanes that are folded pairwise at the end: element i belongs to lane i % 8. The order depends on the
 * length alone, the rounding error grows with n / 8, and compilers can map the lanes to whatever vectors they have.
 *
 * Left out: speed beyond what a compiler makes of plain loops; the x86 folder has that. */
#include "kernels/generic/generic.h"

enum { GENERIC_LANES = 8 };

static peft__real generic_fold(const peft__real lane[GENERIC_LANES]) {
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

void peft__generic_add(peft__real *z, const peft__real *x, const peft__real *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) { z[i] = x[i] + y[i]; }
}

void peft__generic_axpy(peft__real *y, peft__real a, const peft__real *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) { y[i] += a * x[i]; }
}

void peft__generic_scale(peft__real *y, peft__real a, const peft__real *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) { y[i] = a * x[i]; }
}

void peft__generic_mul(peft__real *z, const peft__real *x, const peft__real *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) { z[i] = x[i] * y[i]; }
}

void peft__generic_mul_add(peft__real *z, const peft__real *x, const peft__real *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) { z[i] += x[i] * y[i]; }
}

#ifndef PEFT_MINIMAL
void peft__generic_round_bf16(peft__real *y, const peft__real *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float v = (float)x[i];
        uint32_t bits;
        memcpy(&bits, &v, sizeof bits);
        bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
        if (v == v) { memcpy(&v, &bits, sizeof v); }
        y[i] = (peft__real)v;
    }
}
#endif

peft__real peft__generic_dot(const peft__real *x, const peft__real *y, int64_t n) {
    peft__real lane[GENERIC_LANES] = {0};
    int64_t i = 0;
    for (; i + GENERIC_LANES <= n; i += GENERIC_LANES) {
        for (int64_t j = 0; j < GENERIC_LANES; j++) { lane[j] += x[i + j] * y[i + j]; }
    }
    for (int64_t j = 0; i + j < n; j++) { lane[j] += x[i + j] * y[i + j]; }
    return generic_fold(lane);
}

peft__real peft__generic_sum(const peft__real *x, int64_t n) {
    peft__real lane[GENERIC_LANES] = {0};
    int64_t i = 0;
    for (; i + GENERIC_LANES <= n; i += GENERIC_LANES) {
        for (int64_t j = 0; j < GENERIC_LANES; j++) { lane[j] += x[i + j]; }
    }
    for (int64_t j = 0; i + j < n; j++) { lane[j] += x[i + j]; }
    return generic_fold(lane);
}

peft__real peft__generic_max(const peft__real *x, int64_t n) {
    peft__real m = x[0];
    for (int64_t i = 1; i < n; i++) { m = x[i] > m ? x[i] : m; }
    return m;
}

double peft__generic_sum_sq(const peft__real *x, int64_t n) {
    double lane[4] = {0};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        for (int64_t j = 0; j < 4; j++) { lane[j] += (double)x[i + j] * (double)x[i + j]; }
    }
    for (int64_t j = 0; i + j < n; j++) { lane[j] += (double)x[i + j] * (double)x[i + j]; }
    return (lane[0] + lane[2]) + (lane[1] + lane[3]);
}

bool peft__generic_finite(const peft__real *x, int64_t n) {
    bool ok = true;
    for (int64_t i = 0; i < n; i++) { ok &= x[i] - x[i] == 0; /* inf - inf and NaN are NaN */ }
    return ok;
}

peft__real peft__generic_exp_sum(peft__real *y, const peft__real *x, peft__real a, peft__real m, int64_t n) {
    for (int64_t i = 0; i < n; i++) { y[i] = peft__exp(a * x[i] - m); }
    return peft__generic_sum(y, n);
}

void peft__generic_rope(peft__real *y, const peft__real *x, const peft__real *cos, const peft__real *sin, int64_t half,
                        peft__real sign) {
    for (int64_t i = 0; i < half; i++) {
        peft__real x0 = x[i], x1 = x[i + half], c = cos[i], s = sign * sin[i];
        y[i] = x0 * c - x1 * s;
        y[i + half] = x1 * c + x0 * s;
    }
}
