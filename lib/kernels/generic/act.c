/* act.c - activation functions, their derivatives and the gated pairs of them, element by element.
 *
 *   silu   x s(x), s(x) = 1 / (1 + exp(-x));                        s + x s (1 - s)
 *   gelu   x Phi(x), Phi(x) = (1 + erf(x / sqrt 2)) / 2;            Phi + x exp(-x^2 / 2) / sqrt(2 pi)
 *   gelu, tanh  x (1 + t) / 2, t = tanh(sqrt(2 / pi) (x + 0.044715 x^3))  (Hendrycks and Gimpel 2016)
 *   quick gelu  x s(1.702 x)
 *
 * The kind is looked at for each element: this is the table for correctness. */
#include "kernels/generic/generic.h"

#define GENERIC_SQRT_HALF PEFT__R(0.70710678118654752440)
#define GENERIC_SQRT_2_PI PEFT__R(0.79788456080286535588) /* sqrt(2 / pi) */
#define GENERIC_RSQRT_2PI PEFT__R(0.39894228040143267794) /* 1 / sqrt(2 pi) */
#define GENERIC_CUBIC     PEFT__R(0.044715)
#define GENERIC_QUICK     PEFT__R(1.702)

static peft__real generic_sigmoid(peft__real x) {
    return 1 / (1 + peft__exp(-x));
}

/* The value of an activation; *slope its derivative. */
static peft__real generic_act_eval(int32_t kind, peft__real x, peft__real *slope) {
    peft__real s;
    switch (kind) {
        case PEFT__ACT_SILU:
            s = generic_sigmoid(x);
            *slope = s + x * s * (1 - s);
            return x * s;
        case PEFT__ACT_GELU:
            s = PEFT__R(0.5) * (1 + peft__erf(x * GENERIC_SQRT_HALF));
            *slope = s + x * GENERIC_RSQRT_2PI * peft__exp(PEFT__R(-0.5) * x * x);
            return x * s;
        case PEFT__ACT_GELU_TANH:
            s = peft__tanh(GENERIC_SQRT_2_PI * (x + GENERIC_CUBIC * x * x * x));
            *slope = PEFT__R(0.5) * (1 + s) +
                     PEFT__R(0.5) * x * (1 - s * s) * (GENERIC_SQRT_2_PI * (1 + 3 * GENERIC_CUBIC * x * x));
            return PEFT__R(0.5) * x * (1 + s);
        case PEFT__ACT_RELU: *slope = x > 0 ? 1 : 0; return x < 0 ? 0 : x; /* NaN stays NaN */
        case PEFT__ACT_TANH:
            s = peft__tanh(x);
            *slope = 1 - s * s;
            return s;
        case PEFT__ACT_SIGMOID:
            s = generic_sigmoid(x);
            *slope = s * (1 - s);
            return s;
        case PEFT__ACT_QUICK_GELU:
            s = generic_sigmoid(GENERIC_QUICK * x);
            *slope = s + GENERIC_QUICK * x * s * (1 - s);
            return x * s;
        default: *slope = 1; return x;
    }
}

void peft__generic_act(int32_t kind, peft__real *y, const peft__real *x, int64_t n) {
    peft__real slope;
    for (int64_t i = 0; i < n; i++) { y[i] = generic_act_eval(kind, x[i], &slope); }
}

void peft__generic_act_back(int32_t kind, peft__real *dx, const peft__real *dy, const peft__real *x, int64_t n,
                            bool add) {
    peft__real slope;
    for (int64_t i = 0; i < n; i++) {
        (void)generic_act_eval(kind, x[i], &slope);
        dx[i] = add ? dx[i] + dy[i] * slope : dy[i] * slope;
    }
}

void peft__generic_glu(int32_t kind, peft__real *y, const peft__real *g, const peft__real *u, int64_t n) {
    peft__real slope;
    for (int64_t i = 0; i < n; i++) { y[i] = generic_act_eval(kind, g[i], &slope) * u[i]; }
}

void peft__generic_glu_back(int32_t kind, peft__real *dg, peft__real *du, const peft__real *dy, const peft__real *g,
                            const peft__real *u, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        peft__real slope, d = dy[i], value = generic_act_eval(kind, g[i], &slope), ui = u[i];
        if (dg) { dg[i] = d * ui * slope; }
        if (du) { du[i] = d * value; }
    }
}

#undef GENERIC_SQRT_HALF
#undef GENERIC_SQRT_2_PI
#undef GENERIC_RSQRT_2PI
#undef GENERIC_CUBIC
#undef GENERIC_QUICK
