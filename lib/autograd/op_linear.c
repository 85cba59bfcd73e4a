/* op_linear.c - y = x W' + b over a frozen or trained matrix, and y + s (x A') B' (LoRA, Hu et al. 2021, eq. 3).
 *
 *   linear       dx = dy W;  dW += dy' x, db += sum dy (trained only: a frozen weight never gets a dW, nor is x kept for it)
 *   add_product  y + s h B' in place on y;  dh = s dy B, dB += s dy' h, dy passes on to y
 *   low_rank     both: h = x A' by linear, then add_product */
#include "autograd/ops.h"

enum { LINEAR_W = 0, LINEAR_B = 1 };

void peft__op_outer(const peft__exec *x, peft__real *dw, const peft__real *dy, int64_t ld_dy, const peft__real *in,
                    int64_t ld_in, int64_t m, int64_t n, int64_t k, peft__real scale) {
    peft__gemm_args g;
    memset(&g, 0, sizeof g);
    g.m = n;
    g.n = k;
    g.k = m;
    g.a = dy;
    g.lda = ld_dy;
    g.a_trans = true;
    g.b = peft__real_backward(in, ld_in);
    g.c = dw;
    g.ldc = k;
    g.alpha = scale;
    g.accumulate = true;
    peft__gemm(&x->run, &g);
}

typedef struct linear_sums {
    const peft__real *dy;
    peft__real *db;
    int64_t ld, rows;
    peft__real scale;
} linear_sums;

static void linear_sum_columns(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const linear_sums *s = arg;
    (void)worker;
    for (int64_t r = 0; r < s->rows; r++) { /* rows in order: the sum does not depend on who does it */
        const peft__real *dy = s->dy + r * s->ld;
        for (int64_t c = begin; c < end; c++) { s->db[c] += s->scale * dy[c]; }
    }
}

void peft__op_column_sums(const peft__exec *x, peft__real *db, const peft__real *dy, int64_t ld, int64_t rows, int64_t cols,
                          peft__real scale) {
    linear_sums s = {dy, db, ld, rows, scale};
    peft__rows(&x->run, cols, 64, linear_sum_columns, &s);
}

static uint32_t linear_reads(const peft__tape *t, const peft__op *op) { return peft__op_trained(t, op->param[LINEAR_W]) ? 1u : 0; }

/* Rows of other groups, which the product leaves out: what follows may compute with them, and no NaN may lie there. */
static void linear_zero(const peft__exec *x, const peft__op *op, int64_t begin, int64_t end) {
    peft__real *out = peft__exec_data(x, op->out[0]);
    int64_t ld = peft__exec_ld(x, op->out[0]);
    for (int64_t r = begin; r < end; r++) { memset(out + r * ld, 0, (size_t)op->i[0] * sizeof *out); }
}

static void linear_forward(peft__exec *x, const peft__op *op) {
    const peft__value *in = peft__tape_value(x->tape, op->in[0]);
    const peft__real *w = peft__exec_param(x, op->param[LINEAR_W]), *b = peft__exec_param(x, op->param[LINEAR_B]);
    peft__gemm_args g;
    memset(&g, 0, sizeof g);
    g.n = op->i[0];
    g.k = in->cols;
    g.lda = peft__exec_ld(x, op->in[0]);
    g.b = w != NULL ? peft__real_forward(w, in->cols) : peft__weight_forward(op->weight);
    g.ldc = peft__exec_ld(x, op->out[0]);
    g.alpha = 1;
    g.bias = b != NULL ? b : op->vec;
    int64_t done = 0;
    for (int64_t row = 0, begin, end; peft__exec_next(x, op, op->in[0], &row, &begin, &end); done = end) {
        linear_zero(x, op, done, begin);
        g.m = end - begin;
        g.a = peft__exec_data(x, op->in[0]) + begin * g.lda;
        g.c = peft__exec_data(x, op->out[0]) + begin * g.ldc;
        peft__gemm(&x->run, &g);
    }
    linear_zero(x, op, done, peft__exec_rows(x, op->out[0]));
}

/* Of n rows of in, dx and dy; add: dx has something. */
static void linear_backward_rows(const peft__exec *x, const peft__op *op, const peft__real *in, peft__real *dx, const peft__real *dy,
                                 int64_t n, bool add) {
    const int64_t cols = peft__tape_value(x->tape, op->in[0])->cols, ld = peft__exec_ld(x, op->in[0]), ld_dy = peft__exec_ld(x, op->out[0]);
    const peft__real *w = peft__exec_param(x, op->param[LINEAR_W]);
    peft__real *dw = peft__exec_param_grad(x, op->param[LINEAR_W]), *db = peft__exec_param_grad(x, op->param[LINEAR_B]);
    if (dx != NULL) {
        peft__gemm_args g;
        memset(&g, 0, sizeof g);
        g.m = n;
        g.n = cols;
        g.k = op->i[0];
        g.a = dy;
        g.lda = ld_dy;
        g.b = w != NULL ? peft__real_backward(w, cols) : peft__weight_backward(op->weight);
        g.c = dx;
        g.ldc = ld;
        g.alpha = 1;
        g.accumulate = add;
        peft__gemm(&x->run, &g);
    }
    if (dw != NULL) { peft__op_outer(x, dw, dy, ld_dy, in, ld, n, op->i[0], cols, 1); }
    if (db != NULL) { peft__op_column_sums(x, db, dy, ld_dy, n, op->i[0], 1); }
}

static void linear_backward(peft__exec *x, const peft__op *op) {
    int64_t ld_dy = peft__exec_ld(x, op->out[0]), ld = peft__exec_ld(x, op->in[0]);
    bool add = false, trains = peft__op_trained(x->tape, op->param[LINEAR_W]);
    peft__real *dx = peft__exec_grad_rows(x, op, op->in[0], &add);
    for (int64_t row = 0, begin, end; peft__exec_next(x, op, op->in[0], &row, &begin, &end);) {
        linear_backward_rows(x, op, trains ? peft__exec_data(x, op->in[0]) + begin * ld : NULL, dx != NULL ? dx + begin * ld : NULL,
                             peft__exec_grad(x, op->out[0]) + begin * ld_dy, end - begin, add);
    }
}

static double linear_flops(const peft__tape *t, const peft__op *op, const peft__caps *caps, bool backward) {
    (void)caps;
    const peft__value *in = peft__tape_value(t, op->in[0]);
    double f = 2.0 * (double)in->cols * (double)op->i[0];
    if (!backward) { return f; }
    return (in->needs_grad ? f : 0) + (peft__op_trained(t, op->param[LINEAR_W]) ? f : 0);
}

static const peft__op_kind linear_kind = {"linear", PEFT__OPF_APART, linear_reads, linear_forward, linear_backward, linear_flops, NULL};

peft__val peft__op_linear(peft__tape *t, peft__val x, const peft__weight *w, const peft__real *b, int32_t w_param,
                          int32_t b_param, int64_t out) {
    peft__op *op = peft__tape_push(t, &linear_kind, 1, &x);
    if (op == NULL) { return PEFT__NONE; }
    const peft__value *in = peft__tape_value(t, x);
    op->weight = w;
    op->vec = b;
    op->param[LINEAR_W] = w_param;
    op->param[LINEAR_B] = b_param;
    op->i[0] = out;
    return peft__tape_out(t, op, in->space, in->fixed, out);
}

/* ---- add_product: in[0] y, in[1] h; out[0] = y + s h B' --------------------------------------------------------------- */

static uint32_t product_reads(const peft__tape *t, const peft__op *op) { return peft__op_trained(t, op->param[0]) ? 2u : 0; }

static void product_forward(peft__exec *x, const peft__op *op) {
    int64_t out = peft__tape_value(x->tape, op->in[0])->cols, r = peft__tape_value(x->tape, op->in[1])->cols;
    const peft__real *y0 = peft__exec_data(x, op->in[0]);
    peft__real *y = peft__exec_data(x, op->out[0]);
    peft__gemm_args g;
    if (y != y0) { memcpy(y, y0, (size_t)(peft__exec_rows(x, op->in[0]) * out) * sizeof *y); }
    memset(&g, 0, sizeof g);
    g.n = out;
    g.k = r;
    g.lda = r;
    g.b = peft__real_forward(peft__exec_param(x, op->param[0]), r);
    g.ldc = out;
    g.alpha = op->f[0];
    g.accumulate = true;
    for (int64_t row = 0, begin, end; peft__exec_next(x, op, op->in[0], &row, &begin, &end);) {
        g.m = end - begin;
        g.a = peft__exec_data(x, op->in[1]) + begin * r;
        g.c = y + begin * out;
        peft__gemm(&x->run, &g);
    }
}

static void product_backward(peft__exec *x, const peft__op *op) {
    int64_t out = peft__tape_value(x->tape, op->in[0])->cols, r = peft__tape_value(x->tape, op->in[1])->cols;
    bool add = false;
    peft__real *db = peft__exec_param_grad(x, op->param[0]), *dh = peft__exec_grad_rows(x, op, op->in[1], &add);
    peft__gemm_args g;
    memset(&g, 0, sizeof g);
    g.n = r;
    g.k = out;
    g.lda = out;
    g.b = peft__real_backward(peft__exec_param(x, op->param[0]), r);
    g.ldc = r;
    g.alpha = op->f[0];
    g.accumulate = add;
    for (int64_t row = 0, begin, end; peft__exec_next(x, op, op->in[0], &row, &begin, &end);) {
        const peft__real *dy = peft__exec_grad(x, op->out[0]) + begin * out;
        if (db != NULL) {
            peft__op_outer(x, db, dy, out, peft__exec_data(x, op->in[1]) + begin * r, r, end - begin, out, r, op->f[0]);
        }
        if (dh == NULL) { continue; }
        g.m = end - begin;
        g.a = dy;
        g.c = dh + begin * r;
        peft__gemm(&x->run, &g);
    }
    peft__op_pass_grad(x, op, 0);
}

static double product_flops(const peft__tape *t, const peft__op *op, const peft__caps *caps, bool backward) {
    double f = 2.0 * (double)peft__tape_value(t, op->in[0])->cols * (double)peft__tape_value(t, op->in[1])->cols;
    (void)caps;
    return backward ? 2 * f : f;
}

static const peft__op_kind product_kind = {"add_product", PEFT__OPF_INPLACE0 | PEFT__OPF_PASS0 | PEFT__OPF_APART, product_reads,
                                           product_forward, product_backward, product_flops, NULL};

peft__val peft__op_add_product(peft__tape *t, peft__val y, peft__val h, int32_t b_param, double scale) {
    peft__val in[2] = {y, h};
    peft__op *op = peft__tape_push(t, &product_kind, 2, in);
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, y);
    op->param[0] = b_param;
    op->f[0] = PEFT__R(scale);
    return peft__tape_out(t, op, v.space, v.fixed, v.cols);
}

peft__val peft__op_low_rank(peft__tape *t, peft__val y, peft__val x, int32_t a_param, int32_t b_param, double scale) {
    if (t->status != PEFT_OK) { return PEFT__NONE; }
    peft__val h = peft__op_linear(t, x, NULL, NULL, a_param, PEFT__NONE, peft__tape_param_at(t, a_param)->rows);
    return peft__op_add_product(t, y, h, b_param, scale);
}
