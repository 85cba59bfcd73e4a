/* norm.c - RMSNorm (Zhang and Sennrich 2019) and LayerNorm (Ba, Kiros and Hinton 2016) of one row, with gradients.
 *
 *   RMS:    y = x r w,           r = 1 / sqrt(mean(x^2) + eps);     dx = r g - x r^3 mean(g x),                g = dy w
 *   Layer:  y = (x - mu) r w + b, r = 1 / sqrt(var + eps);          dx = r (g - mean(g) - h mean(g h)),        h = (x - mu) r
 *
 * The variance is that of the differences from the mean, in a second pass: E[x^2] - mu^2 cancels.
 *
 * Left out: gradients of w and b, which are column sums over many rows (autograd/). */
#include <math.h>

#include "kernels/generic/generic.h"

static peft__real generic_rsqrt(peft__real x) {
    return 1 / (peft__real)sqrt((double)x);
}

peft__real peft__generic_rms_norm(peft__real *y, const peft__real *x, const peft__real *w, int64_t n, peft__real eps) {
    peft__real rstd = generic_rsqrt(peft__generic_dot(x, x, n) / (peft__real)n + eps);
    for (int64_t i = 0; i < n; i++) { y[i] = x[i] * rstd * (w ? w[i] : 1); }
    return rstd;
}

void peft__generic_rms_norm_back(peft__real *dx, const peft__real *dy, const peft__real *x, const peft__real *w,
                                 int64_t n, peft__real rstd, bool add) {
    peft__real s = 0;
    for (int64_t i = 0; i < n; i++) { s += dy[i] * (w ? w[i] : 1) * x[i]; }
    s = s / (peft__real)n * rstd * rstd;
    for (int64_t i = 0; i < n; i++) {
        peft__real d = rstd * (dy[i] * (w ? w[i] : 1) - x[i] * s);
        dx[i] = add ? dx[i] + d : d;
    }
}

peft__real peft__generic_layer_norm(peft__real *y, const peft__real *x, const peft__real *w, const peft__real *b,
                                    int64_t n, peft__real eps, peft__real *mean) {
    peft__real mu = peft__generic_sum(x, n) / (peft__real)n, var = 0;
    for (int64_t i = 0; i < n; i++) {
        peft__real d = x[i] - mu;
        var += d * d;
    }
    peft__real rstd = generic_rsqrt(var / (peft__real)n + eps);
    for (int64_t i = 0; i < n; i++) { y[i] = (x[i] - mu) * rstd * (w ? w[i] : 1) + (b ? b[i] : 0); }
    *mean = mu;
    return rstd;
}

void peft__generic_layer_norm_back(peft__real *dx, const peft__real *dy, const peft__real *x, const peft__real *w,
                                   int64_t n, peft__real mean, peft__real rstd, bool add) {
    peft__real sg = 0, sgh = 0;
    for (int64_t i = 0; i < n; i++) {
        peft__real g = dy[i] * (w ? w[i] : 1);
        sg += g;
        sgh += g * ((x[i] - mean) * rstd);
    }
    sg /= (peft__real)n;
    sgh /= (peft__real)n;
    for (int64_t i = 0; i < n; i++) {
        peft__real d = rstd * ((dy[i] * (w ? w[i] : 1) - sg) - (x[i] - mean) * rstd * sgh);
        dx[i] = add ? dx[i] + d : d;
    }
}
