/* The vector entries of every table, and the scalar functions, against plain double arithmetic over awkward lengths. */
#include "runner.h"

#include <math.h>

#include "kernels/kernels.h"

enum { CAP = 160, EDGE = 8 }; /* the longest vector, and guard elements on either side of it */

static const int64_t lengths[] = {0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 100, 129};

/* A vector at an odd address with guards around it. */
typedef struct guarded {
    float raw[CAP + 2 * EDGE];
} guarded;

static float *fill(guarded *g, int64_t n, uint64_t seed, float size) {
    peft__rng rng = {seed, 0};
    for (int64_t i = 0; i < CAP + 2 * EDGE; i++) { g->raw[i] = 1e30f; }
    for (int64_t i = 0; i < n; i++) { g->raw[EDGE + 1 + i] = size * (float)peft__rng_normal(&rng); }
    return g->raw + EDGE + 1;
}

static bool guards_hold(const guarded *g, int64_t n) {
    for (int64_t i = 0; i < CAP + 2 * EDGE; i++) {
        if ((i < EDGE + 1 || i >= EDGE + 1 + n) && !(g->raw[i] >= 1e30f && g->raw[i] <= 1e30f)) { return false; }
    }
    return true;
}

/* The next table that this CPU runs, from *index on. */
static const peft__kernels *next_table(size_t *index) {
    const peft__kernels *k;
    while ((k = peft__kernels_at((*index)++)) != NULL) {
        if ((k->needs & ~peft__cpu_features()) == 0) { return k; }
    }
    return NULL;
}

#define EACH_TABLE(k)       \
    const peft__kernels *k; \
    for (size_t at_ = 0; (k = next_table(&at_)) != NULL;)
#define EACH_LENGTH(n)                                   \
    for (size_t l_ = 0; l_ < PEFT__COUNT(lengths); l_++) \
        for (int64_t n = lengths[l_], o_ = 1; o_; o_ = 0)

TEST(kernels_vec_arithmetic) {
    EACH_TABLE(k) {
        EACH_LENGTH(n) {
            guarded gx, gy, gz, gw;
            const float *x = fill(&gx, n, 1, 1), *y = fill(&gy, n, 2, 1);
            float *z = fill(&gz, n, 3, 1), *w = fill(&gw, n, 3, 1);
            k->add(z, x, y, n);
            for (int64_t i = 0; i < n; i++) { CHECK(z[i] - (x[i] + y[i]) == 0); }
            k->mul(z, x, y, n);
            for (int64_t i = 0; i < n; i++) { CHECK(z[i] - x[i] * y[i] == 0); }
            k->scale(z, -2.5f, x, n);
            for (int64_t i = 0; i < n; i++) { CHECK(z[i] - -2.5f * x[i] == 0); }
            memcpy(z, w, (size_t)n * sizeof *z);
            k->axpy(z, 0.75f, x, n);
            for (int64_t i = 0; i < n; i++) { CHECK_NEAR(z[i], (double)w[i] + 0.75 * (double)x[i], 1e-6); }
            memcpy(z, w, (size_t)n * sizeof *z);
            k->mul_add(z, x, y, n);
            for (int64_t i = 0; i < n; i++) { CHECK_NEAR(z[i], (double)w[i] + (double)x[i] * (double)y[i], 1e-6); }
            k->mul(z, z, z, n); /* all three the same */
            for (int64_t i = 0; i < n; i++) { CHECK(z[i] >= 0); }
            CHECK(guards_hold(&gz, n));
        }
    }
}

TEST(kernels_vec_sums) {
    EACH_TABLE(k) {
        EACH_LENGTH(n) {
            guarded gx, gy;
            float *x = fill(&gx, n, 1, 3), *y = fill(&gy, n, 2, 3);
            double dot = 0, sum = 0, sq = 0, top = -HUGE_VAL;
            for (int64_t i = 0; i < n; i++) {
                dot += (double)x[i] * (double)y[i];
                sum += (double)x[i];
                sq += (double)x[i] * (double)x[i];
                top = fmax(top, (double)x[i]);
            }
            CHECK_NEAR(k->dot(x, y, n), dot, 1e-5 * (1 + fabs(dot)));
            CHECK_NEAR(k->sum(x, n), sum, 1e-5 * (1 + fabs(sum)));
            CHECK_NEAR(k->sum_sq(x, n), sq, 1e-13 * sq);
            if (n > 0) {
                CHECK_NEAR(k->max(x, n), top, 0);
                for (int64_t i = 0; i < n; i++) { x[i] = -1e20f - (float)i; }
                CHECK_NEAR(k->max(x, n), (double)-1e20f, 0);
            }
            for (int64_t i = 0; i < n; i++) { x[i] = 1e20f; /* squares beyond float */ }
            CHECK_NEAR(k->sum_sq(x, n), (double)n * 1e40, 1e-6 * (double)n * 1e40);
        }
    }
}

TEST(kernels_vec_finite) {
    const float bad[] = {INFINITY, -INFINITY, NAN};
    EACH_TABLE(k) {
        EACH_LENGTH(n) {
            guarded gx;
            float *x = fill(&gx, n, 1, 1e38f);
            for (int64_t i = 0; i < n; i++) { x[i] = i % 2 ? 3.4e38f : 1e-45f; }
            CHECK(k->finite(x, n));
            for (int64_t i = 0; i < n; i++) {
                const float was = x[i];
                for (size_t b = 0; b < PEFT__COUNT(bad); b++) {
                    x[i] = bad[b];
                    CHECK(!k->finite(x, n));
                }
                x[i] = was;
            }
        }
    }
}

TEST(kernels_vec_exp_sum) {
    EACH_TABLE(k) {
        EACH_LENGTH(n) {
            guarded gx, gy;
            const float *x = fill(&gx, n, 1, 20);
            float *y = fill(&gy, n, 2, 1);
            double sum = 0;
            const float got = k->exp_sum(y, x, 0.5f, 3, n);
            for (int64_t i = 0; i < n; i++) {
                const double want = exp(0.5 * (double)x[i] - 3);
                CHECK_NEAR(y[i], want, 2.5e-6 * want + 1e-38); /* half of it from rounding the argument */
                sum += want;
            }
            CHECK_NEAR(got, sum, 3e-6 * sum);
            CHECK(guards_hold(&gy, n));
            CHECK(n == 0 || isinf(k->exp_sum(y, x, 0, -90, 1)));
        }
        float e[24] = {0,        -0.0f,  1,   -1,   88.7f, 88.3f,     88.8f, 1000,
                       INFINITY, -87.3f, -88, -104, -1000, -INFINITY, NAN,   1e-8f};
        (void)k->exp_sum(e, e, 1, 0, 24);
        CHECK(e[0] >= 1 && e[0] <= 1 && e[1] >= 1 && e[1] <= 1);
        CHECK_NEAR(e[2], exp(1), 3e-7);
        CHECK_NEAR(e[3], exp(-1), 1e-7);
        CHECK_NEAR(e[4] / (float)exp((double)88.7f), 1, 1e-5); /* the last half power of two is less exact */
        CHECK_NEAR(e[5] / (float)exp((double)88.3f), 1, 1e-6);
        for (int32_t i = 6; i < 9; i++) { CHECK(isinf(e[i]) && e[i] > 0); }
        CHECK_NEAR(e[9] / (float)exp((double)-87.3f), 1, 1e-6);
        CHECK(e[10] >= 0 && e[10] < 1e-37f && e[11] >= 0 && e[11] < 1e-37f);
        CHECK(e[12] <= 0 && e[13] <= 0 && e[12] >= 0 && e[13] >= 0);
        CHECK(e[14] != e[14]);
        CHECK_NEAR(e[15], 1, 1e-7);
        CHECK_NEAR(e[16], 1, 0);
    }
}

TEST(kernels_vec_rope) {
    EACH_TABLE(k) {
        const int64_t halves[] = {0, 1, 4, 8, 13, 32, 40, 64};
        for (size_t h = 0; h < PEFT__COUNT(halves); h++) {
            const int64_t half = halves[h];
            guarded gx, gy, gc, gs;
            const float *x = fill(&gx, 2 * half, 1, 1);
            float *y = fill(&gy, 2 * half, 2, 1), *c = fill(&gc, half, 3, 1), *s = fill(&gs, half, 4, 1);
            for (int64_t i = 0; i < half; i++) {
                double sn, cs;
                peft__sin_cos((double)c[i] * 10, &sn, &cs);
                c[i] = (float)cs;
                s[i] = (float)sn;
            }
            k->rope(y, x, c, s, half, 1);
            for (int64_t i = 0; i < half; i++) {
                CHECK_NEAR(y[i], (double)x[i] * (double)c[i] - (double)x[i + half] * (double)s[i], 5e-7);
                CHECK_NEAR(y[i + half], (double)x[i + half] * (double)c[i] + (double)x[i] * (double)s[i], 5e-7);
            }
            k->rope(y, y, c, s, half, -1); /* back, in place */
            for (int64_t i = 0; i < 2 * half; i++) { CHECK_NEAR(y[i], x[i], 1e-6); }
            CHECK(guards_hold(&gy, 2 * half));
        }
    }
}

/* ---- norms ---------------------------------------------------------------------------------------------------------- */

typedef struct moments {
    double mean, rstd;
} moments;

static moments norm_reference(const float *x, const float *w, const float *b, int64_t n, double eps, bool centred,
                              double *y) {
    moments m = {0, 0};
    double var = 0;
    for (int64_t i = 0; centred && i < n; i++) { m.mean += (double)x[i] / (double)n; }
    for (int64_t i = 0; i < n; i++) { var += ((double)x[i] - m.mean) * ((double)x[i] - m.mean) / (double)n; }
    m.rstd = 1 / sqrt(var + eps);
    for (int64_t i = 0; i < n; i++) {
        y[i] = ((double)x[i] - m.mean) * m.rstd * (w ? (double)w[i] : 1) + (b ? (double)b[i] : 0);
    }
    return m;
}

static void norm_back_reference(double *dx, const float *dy, const float *x, const float *w, int64_t n, moments m,
                                bool centred) {
    double sg = 0, sgh = 0;
    for (int64_t i = 0; i < n; i++) {
        const double g = (double)dy[i] * (w ? (double)w[i] : 1);
        sg += centred ? g / (double)n : 0;
        sgh += g * ((double)x[i] - m.mean) * m.rstd / (double)n;
    }
    for (int64_t i = 0; i < n; i++) {
        const double g = (double)dy[i] * (w ? (double)w[i] : 1);
        dx[i] = m.rstd * (g - sg - ((double)x[i] - m.mean) * m.rstd * sgh);
    }
}

static void check_norm(const peft__kernels *k, int64_t n, bool weighted, bool centred, float shift) {
    guarded gx, gy, gw, gb, gd, gdx;
    float *x = fill(&gx, n, 1, 2), *y = fill(&gy, n, 2, 1), *dx = fill(&gdx, n, 6, 1);
    const float *w = weighted ? fill(&gw, n, 3, 1) : NULL, *b = weighted ? fill(&gb, n, 4, 1) : NULL,
                *dy = fill(&gd, n, 5, 1);
    double want[CAP];
    float mean = 0, rstd;
    for (int64_t i = 0; i < n; i++) { x[i] += shift; }
    const moments m = norm_reference(x, w, centred ? b : NULL, n, 1e-5, centred, want);
    rstd = centred ? k->layer_norm(y, x, w, b, n, 1e-5f, &mean) : k->rms_norm(y, x, w, n, 1e-5f);
    CHECK_NEAR(rstd, m.rstd, 2e-6 * m.rstd);
    CHECK_NEAR(mean, m.mean, 1e-6 * (1 + fabs(m.mean)));
    for (int64_t i = 0; i < n; i++) {
        CHECK_NEAR(y[i], want[i], 4e-6 * (1 + fabs(want[i])) * (1 + (double)fabsf(shift)));
    }
    CHECK(guards_hold(&gy, n));
    norm_back_reference(want, dy, x, w, n, m, centred);
    for (int32_t add = 0; add < 2; add++) {
        const float was = add ? 3 : 0;
        for (int64_t i = 0; i < n; i++) { dx[i] = add ? was : NAN; }
        if (centred) {
            k->layer_norm_back(dx, dy, x, w, n, mean, rstd, add != 0);
        } else {
            k->rms_norm_back(dx, dy, x, w, n, rstd, add != 0);
        }
        for (int64_t i = 0; i < n; i++) {
            CHECK_NEAR(dx[i], want[i] + (double)was, 1e-5 * (1 + m.rstd) * (1 + (double)fabsf(shift)));
        }
        CHECK(guards_hold(&gdx, n));
    }
}

TEST(kernels_vec_norms) {
    EACH_TABLE(k) {
        EACH_LENGTH(n) {
            for (int32_t weighted = 0; n > 0 && weighted < 2; weighted++) {
                check_norm(k, n, weighted, false, 0);
                if (n > 1) {
                    check_norm(k, n, weighted, true, 0);
                    check_norm(k, n, weighted, true, 100);
                }
            }
        }
        float zeros[40] = {0}, y[40]; /* eps alone */
        CHECK_NEAR(k->rms_norm(y, zeros, NULL, 40, 1e-6f), 1000, 1e-3);
        CHECK(y[0] <= 0 && y[39] <= 0);
    }
}

/* ---- activations ------------------------------------------------------------------------------------------------------- */

/* Value and derivative in double. */
static double act_reference(int32_t kind, double x, double *slope) {
    const double s = 1 / (1 + exp(-x)), q = 1 / (1 + exp(-1.702 * x)), phi = 0.5 * erfc(-x * 0.70710678118654752);
    const double c = 0.79788456080286536, t = tanh(c * (x + 0.044715 * x * x * x));
    switch (kind) {
        case PEFT__ACT_SILU: *slope = s + x * s * (1 - s); return x * s;
        case PEFT__ACT_GELU: *slope = phi + x * exp(-0.5 * x * x) * 0.39894228040143268; return x * phi;
        case PEFT__ACT_GELU_TANH:
            *slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x);
            return 0.5 * x * (1 + t);
        case PEFT__ACT_RELU: *slope = x > 0; return x > 0 ? x : 0;
        case PEFT__ACT_TANH: *slope = 1 - tanh(x) * tanh(x); return tanh(x);
        case PEFT__ACT_SIGMOID: *slope = s * (1 - s); return s;
        case PEFT__ACT_QUICK_GELU: *slope = q + 1.702 * x * q * (1 - q); return x * q;
        default: *slope = 1; return x;
    }
}

static void check_act(const peft__kernels *k, int32_t kind, int64_t n, float size) {
    guarded gx, gu, gd, gy, gz;
    const float *x = fill(&gx, n, 7, size), *u = fill(&gu, n, 8, 1), *d = fill(&gd, n, 9, 1);
    float *y = fill(&gy, n, 1, 1), *z = fill(&gz, n, 1, 1);
    double slope;
    k->act(kind, y, x, n);
    for (int64_t i = 0; i < n; i++) {
        const double want = act_reference(kind, (double)x[i], &slope);
        CHECK_NEAR(y[i], want, 2.5e-7 * fmax(1, fabs((double)x[i])));
    }
    CHECK(guards_hold(&gy, n));
    k->act_back(kind, y, d, x, n, false);
    for (int64_t i = 0; i < n; i++) {
        (void)act_reference(kind, (double)x[i], &slope);
        CHECK_NEAR(y[i], slope * (double)d[i], 6e-7 * fmax(1, fabs((double)x[i])) * fmax(1, fabs((double)d[i])));
        z[i] = 1;
    }
    k->act_back(kind, z, d, x, n, true);
    for (int64_t i = 0; i < n; i++) { CHECK_NEAR(z[i], 1 + (double)y[i], 5e-7 * (1 + fabs((double)y[i]))); }
    k->glu(kind, y, x, u, n);
    for (int64_t i = 0; i < n; i++) {
        const double want = act_reference(kind, (double)x[i], &slope) * (double)u[i];
        CHECK_NEAR(y[i], want, 4e-7 * fmax(1, fabs((double)x[i])) * fmax(1, fabs((double)u[i])));
    }
    k->glu_back(kind, y, z, d, x, u, n);
    for (int64_t i = 0; i < n; i++) {
        const double value = act_reference(kind, (double)x[i], &slope), big = fmax(1, fabs((double)x[i])) * 8;
        CHECK_NEAR(y[i], (double)d[i] * (double)u[i] * slope, 6e-7 * big);
        CHECK_NEAR(z[i], (double)d[i] * value, 4e-7 * big);
    }
    k->glu_back(kind, y, NULL, d, x, u, n);
    k->glu_back(kind, NULL, z, d, x, u, n);
    CHECK(guards_hold(&gy, n) && guards_hold(&gz, n));
}

TEST(kernels_vec_activations) {
    EACH_TABLE(k) {
        for (int32_t kind = 0; kind < PEFT__ACT_COUNT; kind++) {
            EACH_LENGTH(n) {
                check_act(k, kind, n, 0.3f);
                check_act(k, kind, n, 3);
                check_act(k, kind, n, 40);
            }
        }
    }
}

TEST(kernels_vec_activations_special) {
    EACH_TABLE(k) {
        for (int32_t kind = 0; kind < PEFT__ACT_COUNT; kind++) {
            float x[19] = {0}, y[19];
            x[3] = NAN;
            x[18] = NAN;
            k->act(kind, y, x, 19);
            CHECK(y[3] != y[3] && y[18] != y[18]);
            CHECK(y[2] == y[2] && y[4] == y[4]);
        }
        float x[4] = {200, -200, 1e-20f, -1e-20f}, y[4];
        k->act(PEFT__ACT_TANH, y, x, 4);
        CHECK_NEAR(y[0], 1, 0);
        CHECK_NEAR(y[1], -1, 0);
        CHECK_NEAR(y[2], (double)1e-20f, 1e-26);
        k->act(PEFT__ACT_SILU, y, x, 4);
        CHECK_NEAR(y[0], 200, 0);
        CHECK_NEAR(y[1], 0, 0);
        k->act(PEFT__ACT_GELU, y, x, 4);
        CHECK_NEAR(y[0], 200, 0);
        CHECK_NEAR(y[1], 0, 0);
    }
}

/* ---- optimisers ----------------------------------------------------------------------------------------------------------- */

TEST(kernels_vec_adamw) {
    EACH_TABLE(k) {
        EACH_LENGTH(n) {
            guarded gp, gg, gm, gv;
            float *p = fill(&gp, n, 1, 1), *g = fill(&gg, n, 2, 1), *m = fill(&gm, n, 3, 0.1f),
                  *v = fill(&gv, n, 4, 0.1f);
            double wp[CAP], wm[CAP], wv[CAP];
            for (int64_t i = 0; i < n; i++) {
                v[i] = v[i] * v[i];
                const double d = (double)g[i] * 0.5;
                wm[i] = (double)0.9f * (double)m[i] + (1 - (double)0.9f) * d;
                wv[i] = (double)0.999f * (double)v[i] + (1 - (double)0.999f) * d * d;
                wp[i] = (double)p[i] * (1 - 0.01) - 1e-2 * wm[i] / (sqrt(wv[i]) * 1.5 + 1e-8);
            }
            k->adamw(p, g, m, v, n, 0.5f, 0.9f, 0.999f, 1e-2f, 1.5f, 1e-8f, 0.01f);
            for (int64_t i = 0; i < n; i++) {
                CHECK_NEAR(m[i], wm[i], 1e-7);
                CHECK_NEAR(v[i], wv[i], 1e-7 * (1e-2 + wv[i]));
                CHECK_NEAR(p[i], wp[i], 1e-6);
            }
            CHECK(guards_hold(&gp, n) && guards_hold(&gm, n) && guards_hold(&gv, n));
        }
    }
}

TEST(kernels_vec_lion) {
    EACH_TABLE(k) {
        EACH_LENGTH(n) {
            guarded gp, gg, gm;
            float *p = fill(&gp, n, 1, 1), *g = fill(&gg, n, 2, 1), *m = fill(&gm, n, 3, 1);
            double wp[CAP], wm[CAP];
            if (n > 1) { g[1] = m[1] = 0; /* no direction: decay only */ }
            for (int64_t i = 0; i < n; i++) {
                const double d = (double)g[i] * 2, u = 0.9 * (double)m[i] + 0.1 * d;
                wp[i] = (double)p[i] * (1 - 1e-3) - 1e-2 * (u > 0 ? 1 : u < 0 ? -1 : 0);
                wm[i] = 0.99 * (double)m[i] + 0.01 * d;
            }
            k->lion(p, g, m, n, 2, 0.9f, 0.99f, 1e-2f, 1e-3f);
            for (int64_t i = 0; i < n; i++) {
                CHECK_NEAR(m[i], wm[i], 5e-7);
                CHECK_NEAR(p[i], wp[i], 5e-7);
            }
            CHECK(guards_hold(&gp, n) && guards_hold(&gm, n));
        }
    }
}

/* ---- scalars and rows -------------------------------------------------------------------------------------------------- */

TEST(kernels_math_scalars) {
#if defined(_WIN32) /* its own sin has a pi of 66 bits, too few to compare with at great angles */
    const double far_out = 1e3;
#else
    const double far_out = 1e9;
#endif
    for (int32_t i = -2000; i <= 2000; i++) {
        const float x = (float)i * 0.0131f;
        CHECK_NEAR(peft__exp(x), exp((double)x), 6.1e-8 * exp((double)x));
        CHECK_NEAR(peft__tanh(x), tanh((double)x), 6.1e-8 * fabs(tanh((double)x)));
        CHECK_NEAR(peft__erf(x), erf((double)x), 6.1e-8 * fabs(erf((double)x)));
        const float y = (float)exp((double)x);
        CHECK_NEAR(peft__ln(y), log((double)y), 6.1e-8 * fabs(log((double)y)));
        double s, c;
        peft__sin_cos((double)x * far_out, &s, &c);
        CHECK_NEAR(s, sin((double)x * far_out), 1e-15);
        CHECK_NEAR(c, cos((double)x * far_out), 1e-15);
    }
    CHECK(peft__exp(89) > 3.5e37f && peft__exp(89) - peft__exp(89) != 0);
    CHECK_NEAR(peft__exp(-110), 0, 0);
    CHECK(isinf(peft__ln(0)) && peft__ln(0) < 0);
    CHECK(peft__ln(-1) != peft__ln(-1));
    CHECK(peft__exp(NAN) != peft__exp(NAN) && peft__tanh(NAN) != peft__tanh(NAN) && peft__erf(NAN) != peft__erf(NAN));
}

static void count_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    int32_t *seen = (int32_t *)arg;
    for (int64_t i = begin; i < end; i++) { seen[i] += end - begin <= 7 ? 1 : 100; }
    (void)worker;
}

TEST(kernels_rows_cover_each_row_once) {
    peft__mem *mem = runner_mem();
    for (int32_t threads = 1; threads <= 3; threads++) {
        int32_t seen[50] = {0};
        peft__run run = {.k = peft__kernels_at(0), .workers = threads};
        CHECK_OK(peft__pool_create(mem, threads, &run.pool));
        peft__rows(&run, 0, 7, count_rows, seen);
        peft__rows(&run, 50, 7, count_rows, seen);
        peft__pool_free(run.pool);
        for (int32_t i = 0; i < 50; i++) { CHECK_INT(seen[i], 1); }
    }
}
