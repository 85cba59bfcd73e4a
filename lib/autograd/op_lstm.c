/* op_lstm.c - one direction of an LSTM layer (Hochreiter and Schmidhuber 1997) over a fixed number of rows.
 *
 *   lstm    z_t = W_ih x_t + b_ih + W_hh h_(t-1) + b_hh;  i, f, o = sigmoid, g = tanh of their quarters of z (order i f g o);
 *           c_t = f c_(t-1) + i g;  h_t = o tanh(c_t);  c_0 = h_0 = 0
 *
 * The gates and c are kept for the backward pass. Rows depend on each other, so that only the products are spread over threads.
 *
 * Left out: projections, batches (the encoder of a prompt has one sequence). */
#include "autograd/ops.h"

enum { LSTM_W_IH = 0, LSTM_W_HH = 1, LSTM_B_IH = 2, LSTM_B_HH = 3 };

typedef struct lstm_run { /* sizes and pointers of one pass; state: [rows, 5h], i f g o c */
    peft__exec *x;
    int64_t rows, h, in, ldx;
    const peft__real *xs, *w_hh;
    peft__real *y, *state;
    bool reverse;
} lstm_run;

static lstm_run lstm_gather(peft__exec *x, const peft__op *op) {
    lstm_run r;
    memset(&r, 0, sizeof r);
    r.x = x;
    r.rows = peft__exec_rows(x, op->in[0]);
    r.h = peft__tape_value(x->tape, op->out[0])->cols;
    r.in = peft__tape_value(x->tape, op->in[0])->cols;
    r.ldx = peft__exec_ld(x, op->in[0]);
    r.xs = peft__exec_data(x, op->in[0]);
    r.w_hh = peft__exec_param(x, op->param[LSTM_W_HH]);
    r.y = peft__exec_data(x, op->out[0]);
    r.state = peft__exec_data(x, op->out[1]);
    r.reverse = op->i[0] != 0;
    return r;
}

/* Row number s in the order of time, and the one before it (-1: none). */
static int64_t lstm_row(const lstm_run *r, int64_t s) { return r->reverse ? r->rows - 1 - s : s; }
static int64_t lstm_before(const lstm_run *r, int64_t s) { return s == 0 ? -1 : lstm_row(r, s - 1); }

static void lstm_product(const peft__run *run, int64_t m, int64_t n, int64_t k, const peft__real *a, int64_t lda, peft__operand b,
                         peft__real *c, int64_t ldc, const peft__real *bias, bool accumulate) {
    peft__gemm_args g;
    memset(&g, 0, sizeof g);
    g.m = m;
    g.n = n;
    g.k = k;
    g.a = a;
    g.lda = lda;
    g.b = b;
    g.c = c;
    g.ldc = ldc;
    g.alpha = 1;
    g.bias = bias;
    g.accumulate = accumulate;
    peft__gemm(run, &g);
}

static void lstm_forward(peft__exec *x, const peft__op *op) {
    lstm_run r = lstm_gather(x, op);
    const peft__kernels *k = x->run.k;
    const peft__real *b_hh = peft__exec_param(x, op->param[LSTM_B_HH]);
    int64_t h = r.h, ld = 5 * h;
    lstm_product(&x->run, r.rows, 4 * h, r.in, r.xs, r.ldx, peft__real_forward(peft__exec_param(x, op->param[LSTM_W_IH]), r.in),
                 r.state, ld, peft__exec_param(x, op->param[LSTM_B_IH]), false);
    for (int64_t s = 0; s < r.rows; s++) {
        int64_t t = lstm_row(&r, s), before = lstm_before(&r, s);
        peft__real *z = r.state + t * ld, *c = z + 4 * h, *y = r.y + t * h;
        k->add(z, z, b_hh, 4 * h);
        if (before >= 0) {
            lstm_product(&x->run, 1, 4 * h, h, r.y + before * h, h, peft__real_forward(r.w_hh, h), z, ld, NULL, true);
        }
        k->act(PEFT__ACT_SIGMOID, z, z, 2 * h);
        k->act(PEFT__ACT_TANH, z + 2 * h, z + 2 * h, h);
        k->act(PEFT__ACT_SIGMOID, z + 3 * h, z + 3 * h, h);
        k->mul(c, z, z + 2 * h, h);
        if (before >= 0) { k->mul_add(c, z + h, r.state + before * ld + 4 * h, h); }
        k->act(PEFT__ACT_TANH, y, c, h);
        k->mul(y, y, z + 3 * h, h);
    }
}

/* dz of row t from d h_t and the d c_t that comes from later; carry becomes d c of the row before. */
static void lstm_back_row(const lstm_run *r, int64_t t, int64_t before, const peft__real *dh, peft__real *carry, peft__real *dz) {
    int64_t h = r->h, ld = 5 * h;
    const peft__real *z = r->state + t * ld, *c = z + 4 * h;
    const peft__real *c0 = before >= 0 ? r->state + before * ld + 4 * h : NULL;
    for (int64_t j = 0; j < h; j++) {
        peft__real i = z[j], f = z[h + j], g = z[2 * h + j], o = z[3 * h + j], tc = peft__tanh(c[j]);
        peft__real dc = dh[j] * o * (1 - tc * tc) + carry[j];
        dz[j] = dc * g * i * (1 - i);
        dz[h + j] = c0 != NULL ? dc * c0[j] * f * (1 - f) : 0;
        dz[2 * h + j] = dc * i * (1 - g * g);
        dz[3 * h + j] = dh[j] * tc * o * (1 - o);
        carry[j] = dc * f;
    }
}

static void lstm_back_params(peft__exec *x, const peft__op *op, const lstm_run *r, const peft__real *dz) {
    int64_t h = r->h, n = r->rows - 1;
    peft__real *dw_ih = peft__exec_param_grad(x, op->param[LSTM_W_IH]), *dw_hh = peft__exec_param_grad(x, op->param[LSTM_W_HH]);
    if (dw_ih != NULL) { peft__op_outer(x, dw_ih, dz, 4 * h, r->xs, r->ldx, r->rows, 4 * h, r->in, 1); }
    if (dw_hh != NULL && n > 0) { /* each row's gates with the output of the row before it */
        const peft__real *gates = r->reverse ? dz : dz + 4 * h, *outputs = r->reverse ? r->y + h : r->y;
        peft__op_outer(x, dw_hh, gates, 4 * h, outputs, h, n, 4 * h, h, 1);
    }
    for (int32_t b = LSTM_B_IH; b <= LSTM_B_HH; b++) {
        peft__real *db = peft__exec_param_grad(x, op->param[b]);
        if (db != NULL) { peft__op_column_sums(x, db, dz, 4 * h, r->rows, 4 * h, 1); }
    }
}

static void lstm_backward(peft__exec *x, const peft__op *op) {
    lstm_run r = lstm_gather(x, op);
    const peft__kernels *k = x->run.k;
    const peft__real *dy = peft__exec_grad(x, op->out[0]);
    int64_t h = r.h;
    bool add = false;
    peft__real *dz = (peft__real *)(void *)x->op_scratch, *dh = dz + r.rows * 4 * h, *carry = dh + h;
    memset(dh, 0, (size_t)(2 * h) * sizeof *dh);
    for (int64_t s = r.rows - 1; s >= 0; s--) {
        int64_t t = lstm_row(&r, s), before = lstm_before(&r, s);
        k->add(dh, dh, dy + t * h, h);
        lstm_back_row(&r, t, before, dh, carry, dz + t * 4 * h);
        lstm_product(&x->run, 1, h, 4 * h, dz + t * 4 * h, 4 * h, peft__real_backward(r.w_hh, h), dh, h, NULL, false);
    }
    lstm_back_params(x, op, &r, dz);
    peft__real *dx = peft__exec_grad_out(x, op->in[0], &add);
    if (dx != NULL) {
        lstm_product(&x->run, r.rows, r.in, 4 * h, dz, 4 * h,
                     peft__real_backward(peft__exec_param(x, op->param[LSTM_W_IH]), r.in), dx, r.ldx, NULL, add);
    }
}

static uint32_t lstm_reads(const peft__tape *t, const peft__op *op) {
    (void)t;
    (void)op;
    return 1u | 3u << PEFT__READS_OUT;
}

static size_t lstm_scratch(const peft__tape *t, const peft__op *op, const peft__caps *caps) {
    const peft__value *y = peft__tape_value(t, op->out[0]);
    (void)caps;
    return op->needs_grad ? (size_t)((4 * y->fixed + 2) * y->cols) * sizeof(peft__real) : 0;
}

static const peft__op_kind lstm_kind = {"lstm", 0, lstm_reads, lstm_forward, lstm_backward, NULL, lstm_scratch};

peft__val peft__op_lstm(peft__tape *t, peft__val x, const int32_t params[4], bool reverse) {
    peft__op *op = peft__tape_push(t, &lstm_kind, 1, &x);
    if (op == NULL) { return PEFT__NONE; }
    int64_t rows = peft__tape_value(t, x)->fixed, h = peft__tape_param_at(t, params[LSTM_W_HH])->cols;
    for (int32_t i = 0; i < 4; i++) { op->param[i] = params[i]; }
    op->i[0] = reverse;
    peft__val y = peft__tape_out(t, op, PEFT__SPACE_FIXED, rows, h);
    (void)peft__tape_out(t, op, PEFT__SPACE_FIXED, rows, 5 * h);
    return y;
}
