/* factor.c - the leading factors of a matrix, in double: what PiSSA and OLoRA start from.
 *
 *   peft__factor_svd   U_r S_r V_r' of W [rows, cols]: orthogonal iteration on W'W with a block of 2 r + 16 columns (Golub and Van
 *                      Loan, Matrix Computations, 8.2.4), then Rayleigh and Ritz by Jacobi rotations of the small matrix
 *   peft__factor_qr    the first r columns of Q and rows of R: Gram and Schmidt, each column twice
 *
 * Factors are those of an exact decomposition up to signs, and up to rotations among equal singular values.
 * Left out: singular values below about 1e-7 of the largest, which come out as 0. */
#include "peft/factor.h"

#include <math.h>

enum { FACTOR_ROUNDS = 400, FACTOR_SWEEPS = 60 };

/* y[m, b] = W x, W [m, n], x [n, b] */
static void factor_times(const double *w, int64_t m, int64_t n, const double *x, int64_t b, double *y) {
    for (int64_t i = 0; i < m; i++) {
        double *row = y + i * b;
        memset(row, 0, (size_t)b * sizeof *row);
        for (int64_t j = 0; j < n; j++) {
            double v = w[i * n + j];
            for (int64_t c = 0; c < b; c++) { row[c] += v * x[j * b + c]; }
        }
    }
}

/* x[n, b] = W' y */
static void factor_back(const double *w, int64_t m, int64_t n, const double *y, int64_t b, double *x) {
    memset(x, 0, (size_t)(n * b) * sizeof *x);
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            double v = w[i * n + j];
            for (int64_t c = 0; c < b; c++) { x[j * b + c] += v * y[i * b + c]; }
        }
    }
}

/* Makes the columns of x[n, b] orthonormal, in order; size[b]: what was left of each. One that is a sum of those before, but for
 * rounding, becomes 0. */
static void factor_orthonormal(double *x, int64_t n, int64_t b, double *size) {
    for (int64_t c = 0; c < b; c++) {
        double whole = 0;
        for (int64_t j = 0; j < n; j++) { whole += x[j * b + c] * x[j * b + c]; }
        for (int pass = 0; pass < 2; pass++) {
            for (int64_t p = 0; p < c; p++) {
                double dot = 0;
                for (int64_t j = 0; j < n; j++) { dot += x[j * b + p] * x[j * b + c]; }
                for (int64_t j = 0; j < n; j++) { x[j * b + c] -= dot * x[j * b + p]; }
            }
            double sum = 0;
            for (int64_t j = 0; j < n; j++) { sum += x[j * b + c] * x[j * b + c]; }
            double length = sqrt(sum);
            bool none = pass == 0 && length <= 1e-13 * sqrt(whole);
            if (pass == 0) { size[c] = none ? 0 : length; }
            for (int64_t j = 0; j < n; j++) { x[j * b + c] = none || length == 0 ? 0 : x[j * b + c] / length; }
        }
    }
}

/* Eigenvectors of the symmetric g[b, b] as columns of e; the diagonal of g becomes the eigenvalues. */
static void factor_eigen(double *g, int64_t b, double *e) {
    for (int64_t i = 0; i < b * b; i++) { e[i] = i % (b + 1) == 0 ? 1 : 0; }
    for (int sweep = 0; sweep < FACTOR_SWEEPS; sweep++) {
        double off = 0, all = 0;
        for (int64_t i = 0; i < b * b; i++) {
            all += g[i] * g[i];
            off += i % (b + 1) != 0 ? g[i] * g[i] : 0;
        }
        if (off <= 1e-30 * all) { break; }
        for (int64_t p = 0; p < b; p++) {
            for (int64_t q = p + 1; q < b; q++) {
                if (g[p * b + q] == 0) { continue; }
                double theta = (g[q * b + q] - g[p * b + p]) / (2 * g[p * b + q]);
                double t = (theta >= 0 ? 1 : -1) / (fabs(theta) + sqrt(theta * theta + 1)), c = 1 / sqrt(t * t + 1), s = t * c;
                for (int64_t k = 0; k < b; k++) {
                    double gp = g[k * b + p], gq = g[k * b + q];
                    g[k * b + p] = c * gp - s * gq;
                    g[k * b + q] = s * gp + c * gq;
                }
                for (int64_t k = 0; k < b; k++) {
                    double gp = g[p * b + k], gq = g[q * b + k], ep = e[k * b + p], eq = e[k * b + q];
                    g[p * b + k] = c * gp - s * gq;
                    g[q * b + k] = s * gp + c * gq;
                    e[k * b + p] = c * ep - s * eq;
                    e[k * b + q] = s * ep + c * eq;
                }
            }
        }
    }
}

/* The r largest of the b eigenpairs, to s (roots), u = Y e / s and v = X e. */
static void factor_ritz(const double *g, const double *e, int64_t b, const double *y, int64_t m, const double *x, int64_t n,
                        int64_t r, bool *used, double *u, double *s, double *v) {
    memset(used, 0, (size_t)b * sizeof *used);
    for (int64_t k = 0; k < r; k++) {
        int64_t top = -1;
        for (int64_t c = 0; c < b; c++) {
            if (!used[c] && (top < 0 || g[c * b + c] > g[top * b + top])) { top = c; }
        }
        used[top] = true;
        s[k] = sqrt(fmax(g[top * b + top], 0));
        for (int64_t i = 0; i < m; i++) {
            double sum = 0;
            for (int64_t c = 0; c < b; c++) { sum += y[i * b + c] * e[c * b + top]; }
            u[i * r + k] = s[k] > 0 ? sum / s[k] : 0;
        }
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t c = 0; c < b; c++) { sum += x[j * b + c] * e[c * b + top]; }
            v[j * r + k] = sum;
        }
    }
}

peft_status peft__factor_svd(peft__mem *mem, const double *w, int64_t rows, int64_t cols, int64_t r, double *u, double *s,
                             double *v) {
    int64_t b = PEFT__MIN(2 * r + 16, PEFT__MIN(rows, cols));
    size_t bytes = (size_t)(b * (rows + cols + 2 * b + 3)) * sizeof(double);
    double *x = peft__alloc_zero(mem, bytes);
    if (x == NULL) { return PEFT_E_NOMEM; }
    double *y = x + cols * b, *g = y + rows * b, *e = g + b * b, *size = e + b * b;
    double *last = size + b;
    bool *used = (bool *)(void *)(last + b);
    peft__rng rng = {0x5eed, 0}; /* where the iteration starts, not where it ends */
    for (int64_t i = 0; i < cols * b; i++) { x[i] = peft__rng_normal(&rng); }
    factor_orthonormal(x, cols, b, size);
    for (int round = 0; round < FACTOR_ROUNDS; round++) {
        double change = 0;
        factor_times(w, rows, cols, x, b, y);
        factor_back(w, rows, cols, y, b, x);
        memcpy(last, size, (size_t)b * sizeof *last);
        factor_orthonormal(x, cols, b, size);
        for (int64_t c = 0; c < r; c++) { change = fmax(change, fabs(size[c] - last[c]) / fmax(size[c], 1e-300)); }
        if (change < 1e-14) { break; }
    }
    factor_times(w, rows, cols, x, b, y);
    factor_back(y, rows, b, y, b, g); /* g = y' y */
    factor_eigen(g, b, e);
    factor_ritz(g, e, b, y, rows, x, cols, r, used, u, s, v);
    peft__free(mem, x, bytes);
    return PEFT_OK;
}

peft_status peft__factor_qr(peft__mem *mem, const double *w, int64_t rows, int64_t cols, int64_t r, double *q, double *upper) {
    double *size = peft__alloc(mem, (size_t)r * sizeof *size);
    if (size == NULL) { return PEFT_E_NOMEM; }
    for (int64_t i = 0; i < rows; i++) { memcpy(q + i * r, w + i * cols, (size_t)r * sizeof *q); }
    factor_orthonormal(q, rows, r, size);
    memset(upper, 0, (size_t)(r * cols) * sizeof *upper);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t k = 0; k < r; k++) {
            for (int64_t j = 0; j < cols; j++) { upper[k * cols + j] += q[i * r + k] * w[i * cols + j]; }
        }
    }
    peft__free(mem, size, (size_t)r * sizeof *size);
    return PEFT_OK;
}
