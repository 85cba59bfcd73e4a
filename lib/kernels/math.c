/* math.c - exp, ln, tanh, erf, sin and cos from +, -, *, / alone: the same bits from every compiler and C library.
 *
 * Everything is computed in double and rounded once to peft__real, so that the float functions err by little more than half
 * a unit in the last place and the double ones by about 1e-15 (relative; absolute for sin and cos).
 *   exp   Cody and Waite's reduction x = n ln 2 + r, then the Taylor series to r^13 (Muller, Elementary Functions)
 *   ln    x = 2^n m, ln m = 2 atanh((m - 1) / (m + 1)) as its series
 *   tanh  expm1(2x) / (expm1(2x) + 2)
 *   erf   x P(x^2) below 1; 1 - exp(-x^2) P(1 / (1 + x/2)) above, both P interpolated at Chebyshev points
 *   sin, cos   reduction by multiples of pi/2 held in 106 bits, then Taylor series
 *
 * Left out: errno, floating-point exceptions, erfc's tail, angles of 2^40 and more. Needs -ffp-contract=off. */
#include <math.h>

#include "kernels/kernels.h"

static double math_from_bits(uint64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint64_t math_to_bits(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* 2^n for -1022 <= n <= 1023 */
static double math_pow2(int32_t n) {
    return math_from_bits((uint64_t)(n + 1023) << 52);
}

/* The whole number nearest to x, for |x| < 2^51: adding 1.5 * 2^52 leaves no room for a fraction. */
static double math_round(double x) {
    const double big = 0x1.8p52;
    return (x + big) - big;
}

static double math_poly(double x, const double *c, int32_t n) {
    double y = c[n - 1];
    for (int32_t i = n - 2; i >= 0; i--) { y = y * x + c[i]; }
    return y;
}

/* 1/2!, 1/3! ... 1/13! */
static const double math_exp_c[12] = {0.5,           1.0 / 6,        1.0 / 24,        1.0 / 120,
                                      1.0 / 720,     1.0 / 5040,     1.0 / 40320,     1.0 / 362880,
                                      1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0};

/* exp(r) - 1 for |r| <= 0.36 */
static double math_expm1_small(double r) {
    return r + r * r * math_poly(r, math_exp_c, 12);
}

static double math_exp(double x) {
    if (x != x) { return x; }
    if (x > 709.79) { return (double)INFINITY; }
    if (x < -745.2) { return 0; }
    double n = math_round(x * 0x1.71547652b82fep0);
    double r = (x - n * 0x1.62e42feep-1) - n * 0x1.a39ef35793c76p-33; /* ln 2, its first 32 bits and the rest */
    double y = 1 + math_expm1_small(r);
    int32_t k = (int32_t)n, half = k / 2;
    return y * math_pow2(half) * math_pow2(k - half); /* two factors: the result may be subnormal or near the top */
}

static double math_ln(double x) {
    /* 2/3, 2/5 ... 2/23 */
    static const double c[11] = {2.0 / 3,  2.0 / 5,  2.0 / 7,  2.0 / 9,  2.0 / 11, 2.0 / 13,
                                 2.0 / 15, 2.0 / 17, 2.0 / 19, 2.0 / 21, 2.0 / 23};
    if (!(x > 0)) { return x == 0 ? -(double)INFINITY : (double)NAN; }
    if (x > 0x1.fffffffffffffp1023) { return x; }
    int32_t n = 0;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        n = -54;
    }
    uint64_t bits = math_to_bits(x);
    n += (int32_t)(bits >> 52) - 1023;
    double m = math_from_bits((bits & 0xfffffffffffffu) | ((uint64_t)1023 << 52));
    if (m > 0x1.6a09e667f3bcdp0) { /* sqrt(2): keeps m - 1 small on both sides of a power of two */
        m *= 0.5;
        n++;
    }
    double f = m - 1, s = f / (2 + f), s2 = s * s;
    /* 2s = f - s f: the leading term is exact */
    double tail = s * (s2 * math_poly(s2, c, 11) - f);
    return n * 0x1.62e42feep-1 + (f + (tail + n * 0x1.a39ef35793c76p-33));
}

static double math_tanh(double x) {
    double a = fabs(x);
    if (x != x || x == 0) { /* minus zero stays one */
        return x;
    }
    if (a > 20) { return x > 0 ? 1 : -1; }
    double e = 2 * a <= 0.35 ? math_expm1_small(2 * a) : math_exp(2 * a) - 1;
    double t = e / (e + 2);
    return x < 0 ? -t : t;
}

static double math_erf(double x) {
    static const double small[12] = {1.1283791670955126,      -0.37612638903183543,    0.11283791670945006,
                                     -0.02686617064323777,    0.0052239776071164225,   -0.00085483259753896918,
                                     0.00012055294904839707,  -1.4924736907419661e-05, 1.6447424703317362e-06,
                                     -1.6208483801871705e-07, 1.3720064546777686e-08,  -7.7958988270021425e-10};
    static const double large[17] = {0.2214295402299318,      0.16189356804102495,     0.038560570425182426,
                                     0.0055888162818414026,   0.00019713917772795885,  -8.0792204287966299e-05,
                                     -7.3405179382879979e-06, 1.9795619759276001e-06,  1.6349937383405805e-07,
                                     -7.0053717937367918e-08, -5.8860532992216011e-10, 2.625007492297143e-09,
                                     -2.6869851834855798e-10, -7.4687118180506843e-11, 2.2135736614933752e-11,
                                     4.7757761107821881e-13,  -9.3694560328695933e-13};
    double a = fabs(x);
    if (a <= 1) { return x * math_poly(a * a, small, 12); }
    if (x != x) { return x; }
    double y = 1;
    if (a < 6) {
        double t = 1 / (1 + 0.5 * a);
        double u = (t - 0.45833333333333333) * 4.8; /* t of [1, 6] mapped to [-1, 1] */
        y = 1 - math_exp(-a * a) * math_poly(u, large, 17);
    }
    return x < 0 ? -y : y;
}

/* a * b = hi + lo exactly (Dekker 1971). */
static double math_two_prod(double a, double b, double *lo) {
    double hi = a * b, ca = 134217729 * a, cb = 134217729 * b;
    double ah = ca - (ca - a), al = a - ah, bh = cb - (cb - b), bl = b - bh;
    *lo = ((ah * bh - hi) + ah * bl + al * bh) + al * bl;
    return hi;
}

void peft__sin_cos(double x, double *sin_x, double *cos_x) {
    /* (-1)^k / (2k+1)! and (-1)^k / (2k)!, from k = 1 */
    static const double sc[8] = {-1.0 / 6,
                                 1.0 / 120,
                                 -1.0 / 5040,
                                 1.0 / 362880,
                                 -1.0 / 39916800.0,
                                 1.0 / 6227020800.0,
                                 -1.0 / 1307674368000.0,
                                 1.0 / 355687428096000.0};
    static const double cc[8] = {-0.5,           1.0 / 24,          -1.0 / 720,           1.0 / 40320,
                                 -1.0 / 3628800, 1.0 / 479001600.0, -1.0 / 87178291200.0, 1.0 / 20922789888000.0};
    double n = math_round(x * 0x1.45f306dc9c883p-1), lo;
    double hi = math_two_prod(n, 0x1.921fb54442d18p0, &lo);
    double r = ((x - hi) - lo) - n * 0x1.1a62633145c07p-54;
    double r2 = r * r, s = r + r * r2 * math_poly(r2, sc, 8), c = 1 + r2 * math_poly(r2, cc, 8);
    switch ((int64_t)n & 3) {
        case 0: *sin_x = s, *cos_x = c; break;
        case 1: *sin_x = c, *cos_x = -s; break;
        case 2: *sin_x = -s, *cos_x = -c; break;
        default: *sin_x = -c, *cos_x = s; break;
    }
}

peft__real peft__exp(peft__real x) {
    return (peft__real)math_exp((double)x);
}

peft__real peft__ln(peft__real x) {
    return (peft__real)math_ln((double)x);
}

peft__real peft__tanh(peft__real x) {
    return (peft__real)math_tanh((double)x);
}

peft__real peft__erf(peft__real x) {
    return (peft__real)math_erf((double)x);
}
