/* cayley.c - the Cayley transform of skew matrices (Qiu et al. 2023, arXiv 2306.07280, section 3.2), and its gradient.
 *
 *   exact      R = (I - Q)(I + Q)^-1 = 2 (I + Q)^-1 - I
 *              dQ = -1/2 (R + I)' dR (R + I)'
 *   series     R = I + 2 Q + 2 Q^2 + .. + 2 Q^(m-1) + Q^m, the beginning of (I + Q)(I - Q)^-1: the inverse of the exact one
 *              (Qiu et al. 2025, arXiv 2506.19847). Hugging Face PEFT (0.18 and later) counts terms thus: 2: I + 2 Q; 3 and 4:
 *              m = 3; n from 5 on: m = n - 1
 *              H_m = c_m I, H_k = H_(k+1) Q + c_k I, R = H_0;  D_m = H_m' dR, D_k = D_(k+1) Q' + H_k' dR, dQ = D_1
 *
 * Left out: matrices that are not skew, projections (constrained OFT: op_rotate.c). */
#include "autograd/cayley.h"

#include <math.h>

peft__run peft__run_alone(const peft__run *run, int32_t worker) {
    peft__run one = *run;
    one.workers = 1;
    one.scratch = run->scratch + (size_t)worker * run->scratch_size;
    one.rounded = NULL; /* is all workers' */
    return one;
}

void peft__block_gemm(const peft__run *run, const peft__gemm_args *args) {
    if (run->workers > 1) {
        peft__gemm(run, args);
        return;
    }
    for (int64_t j = 0; j < args->n; j += PEFT__TILE_COLS) {
        peft__gemm_args piece = *args;
        piece.n = PEFT__MIN(args->n - j, (int64_t)PEFT__TILE_COLS);
        piece.c += j;
        if (piece.b.trans) {
            piece.b.data = (const uint8_t *)args->b.data + j * args->b.row_bytes;
        } else {
            piece.b.first += j;
        }
        peft__gemm(run, &piece);
    }
}

/* c [b, b] = x y, or x' y, or x y'; or that is added */
static void cayley_product(const peft__run *run, int64_t b, const peft__real *x, bool x_trans, const peft__real *y,
                           bool y_trans, peft__real *c, bool add) {
    peft__gemm_args g = {.m = b, .n = b, .k = b, .a = x, .lda = b, .a_trans = x_trans,
                         .b = y_trans ? peft__real_forward(y, b) : peft__real_backward(y, b), .c = c, .ldc = b, .alpha = 1,
                         .accumulate = add};
    peft__block_gemm(run, &g);
}

static void cayley_add_diagonal(int64_t b, peft__real *m, peft__real v) {
    for (int64_t i = 0; i < b; i++) { m[i * b + i] += v; }
}

static void cayley_scalar(int64_t b, peft__real *m, peft__real v) {
    memset(m, 0, (size_t)(b * b) * sizeof *m);
    cayley_add_diagonal(b, m, v);
}

/* ---- exact ------------------------------------------------------------------------------------------------------------ */

static void cayley_exchange(int64_t b, peft__real *m, int64_t i, int64_t j) {
    for (int64_t c = 0; c < b; c++) {
        peft__real v = m[i * b + c];
        m[i * b + c] = m[j * b + c];
        m[j * b + c] = v;
    }
}

/* Gauss and Jordan with exchanges of rows. */
bool peft__cayley_invert(const peft__kernels *k, int64_t b, peft__real *m, peft__real *out) {
    cayley_scalar(b, out, 1);
    for (int64_t c = 0; c < b; c++) {
        int64_t top = c;
        for (int64_t i = c + 1; i < b; i++) {
            if (fabs((double)m[i * b + c]) > fabs((double)m[top * b + c])) { top = i; }
        }
        peft__real pivot = m[top * b + c];
        if (!(fabs((double)pivot) > 0)) { return false; }
        if (top != c) {
            cayley_exchange(b, m, top, c);
            cayley_exchange(b, out, top, c);
        }
        k->scale(m + c * b, 1 / pivot, m + c * b, b);
        k->scale(out + c * b, 1 / pivot, out + c * b, b);
        for (int64_t i = 0; i < b; i++) {
            peft__real v = m[i * b + c];
            if (i == c || v == 0) { continue; }
            k->axpy(m + i * b + c, -v, m + c * b + c, b - c);
            k->axpy(out + i * b, -v, out + c * b, b);
        }
    }
    return true;
}

static void cayley_exact(const peft__run *run, int64_t b, const peft__real *q, peft__real *r, peft__real *work) {
    memcpy(work, q, (size_t)(b * b) * sizeof *q);
    cayley_add_diagonal(b, work, 1);
    if (!peft__cayley_invert(run->k, b, work, r)) { /* not a number: I + Q has an inverse for every skew Q */
        cayley_scalar(b, r, PEFT__R(NAN));
        return;
    }
    run->k->scale(r, 2, r, b * b);
    cayley_add_diagonal(b, r, -1);
}

static void cayley_exact_back(const peft__run *run, int64_t b, const peft__real *r, peft__real *g, peft__real *work) {
    peft__real *e = work, *half = work + b * b;
    memcpy(e, r, (size_t)(b * b) * sizeof *r);
    cayley_add_diagonal(b, e, 1);
    cayley_product(run, b, e, true, g, false, half, false);
    cayley_product(run, b, half, false, e, true, g, false);
    run->k->scale(g, PEFT__R(-0.5), g, b * b);
}

/* ---- series ----------------------------------------------------------------------------------------------------------- */

static int32_t cayley_degree(int32_t terms) { return terms < 3 ? 1 : terms < 5 ? 3 : terms - 1; }

static peft__real cayley_coefficient(int32_t terms, int32_t k) {
    return k == 0 || (k == cayley_degree(terms) && terms > 2) ? 1 : 2;
}

static void cayley_series(const peft__run *run, int64_t b, int32_t terms, const peft__real *q, peft__real *r,
                          peft__real *work) {
    int32_t m = cayley_degree(terms);
    peft__real *h = m % 2 == 0 ? r : work, *next = m % 2 == 0 ? work : r;
    cayley_scalar(b, h, cayley_coefficient(terms, m));
    for (int32_t k = m - 1; k >= 0; k--) {
        cayley_product(run, b, h, false, q, false, next, false);
        cayley_add_diagonal(b, next, cayley_coefficient(terms, k));
        peft__real *t = h;
        h = next;
        next = t;
    }
}

static void cayley_series_back(const peft__run *run, int64_t b, int32_t terms, const peft__real *q, peft__real *g,
                               peft__real *work) {
    int32_t m = cayley_degree(terms);
    peft__real *h = work, *h_next = h + b * b, *d = h_next + b * b, *d_next = d + b * b;
    cayley_scalar(b, h, cayley_coefficient(terms, m));
    run->k->scale(d, cayley_coefficient(terms, m), g, b * b);
    for (int32_t k = m - 1; k >= 1; k--) {
        peft__real *h_old = h, *d_old = d;
        cayley_product(run, b, h, false, q, false, h_next, false);
        cayley_add_diagonal(b, h_next, cayley_coefficient(terms, k));
        cayley_product(run, b, d, false, q, true, d_next, false);
        cayley_product(run, b, h_next, true, g, false, d_next, true);
        h = h_next;
        h_next = h_old;
        d = d_next;
        d_next = d_old;
    }
    memcpy(g, d, (size_t)(b * b) * sizeof *g);
}

void peft__cayley(const peft__run *run, int64_t b, int32_t terms, const peft__real *q, peft__real *r, peft__real *work) {
    if (terms > 0) {
        cayley_series(run, b, terms, q, r, work);
    } else {
        cayley_exact(run, b, q, r, work);
    }
}

void peft__cayley_back(const peft__run *run, int64_t b, int32_t terms, const peft__real *q, const peft__real *r, peft__real *g,
                       peft__real *work) {
    if (terms > 0) {
        cayley_series_back(run, b, terms, q, g, work);
    } else {
        cayley_exact_back(run, b, r, g, work);
    }
}
