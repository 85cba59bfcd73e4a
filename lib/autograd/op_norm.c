/* op_norm.c - RMSNorm (Zhang and Sennrich 2019) and LayerNorm (Ba et al. 2016) over the columns of each row.
 *
 *   rms    y = x * rstd * w,               rstd = 1 / sqrt(mean(x^2) + eps)
 *   layer  y = (x - mean) * rstd * w + b,  rstd = 1 / sqrt(var(x) + eps)
 *
 * rstd (and mean) are kept, two numbers a row; y is rebuilt in the backward pass when somebody wants it. */
#include "autograd/ops.h"

enum { NORM_W = 0, NORM_B = 1 };

typedef struct norm_args {
    const peft__exec *x;
    const peft__real *in, *w, *b, *dy;
    peft__real *y, *dx, *stats; /* stats: [rows, 2]: rstd, mean */
    peft__real *dw, *db;
    int64_t cols, ld, rows;
    peft__real eps;
    bool layer, add;
} norm_args;

static norm_args norm_gather(peft__exec *x, const peft__op *op) {
    norm_args n;
    const peft__real *w = peft__exec_param(x, op->param[NORM_W]), *b = peft__exec_param(x, op->param[NORM_B]);
    memset(&n, 0, sizeof n);
    n.x = x;
    n.in = peft__exec_data(x, op->in[0]);
    n.ld = peft__exec_ld(x, op->in[0]);
    n.stats = peft__exec_data(x, op->out[1]);
    n.w = w != NULL ? w : op->vec;
    n.b = b != NULL ? b : op->vec2;
    n.cols = peft__tape_value(x->tape, op->out[0])->cols;
    n.rows = peft__exec_rows(x, op->out[0]);
    n.eps = op->f[0];
    n.layer = op->i[0] != 0;
    return n;
}

static void norm_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const norm_args *n = arg;
    const peft__kernels *k = n->x->run.k;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        peft__real *s = n->stats + 2 * r;
        s[1] = 0;
        if (n->layer) {
            s[0] = k->layer_norm(n->y + r * n->cols, n->in + r * n->ld, n->w, n->b, n->cols, n->eps, &s[1]);
        } else {
            s[0] = k->rms_norm(n->y + r * n->cols, n->in + r * n->ld, n->w, n->cols, n->eps);
        }
    }
}

static void norm_back_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const norm_args *n = arg;
    const peft__kernels *k = n->x->run.k;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        const peft__real *s = n->stats + 2 * r, *dy = n->dy + r * n->cols, *in = n->in + r * n->ld;
        if (n->layer) {
            k->layer_norm_back(n->dx + r * n->ld, dy, in, n->w, n->cols, s[1], s[0], n->add);
        } else {
            k->rms_norm_back(n->dx + r * n->ld, dy, in, n->w, n->cols, s[0], n->add);
        }
    }
}

/* dw += sum over rows of dy * (x - mean) * rstd, rows in order; a task has a range of columns. */
static void norm_back_gain(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const norm_args *n = arg;
    (void)worker;
    for (int64_t r = 0; r < n->rows; r++) {
        peft__real rstd = n->stats[2 * r], mean = n->stats[2 * r + 1];
        const peft__real *dy = n->dy + r * n->cols, *in = n->in + r * n->ld;
        for (int64_t c = begin; c < end; c++) { n->dw[c] += dy[c] * ((in[c] - mean) * rstd); }
    }
}

static void norm_forward(peft__exec *x, const peft__op *op) {
    norm_args n = norm_gather(x, op);
    n.y = peft__exec_data(x, op->out[0]);
    peft__rows(&x->run, n.rows, peft__op_grain(n.cols), norm_rows, &n);
}

static void norm_backward(peft__exec *x, const peft__op *op) {
    norm_args n = norm_gather(x, op);
    n.dy = peft__exec_grad(x, op->out[0]);
    n.dw = peft__exec_param_grad(x, op->param[NORM_W]);
    n.db = peft__exec_param_grad(x, op->param[NORM_B]);
    if (n.dw != NULL) { peft__rows(&x->run, n.cols, 64, norm_back_gain, &n); }
    if (n.db != NULL) { peft__op_column_sums(x, n.db, n.dy, n.cols, n.rows, n.cols, 1); }
    n.dx = peft__exec_grad_out(x, op, op->in[0], &n.add);
    if (n.dx != NULL) { peft__rows(&x->run, n.rows, peft__op_grain(n.cols), norm_back_rows, &n); }
}

static uint32_t norm_reads(const peft__tape *t, const peft__op *op) {
    (void)t;
    (void)op;
    return 1u | 1u << (PEFT__READS_OUT + 1);
}

static const peft__op_kind norm_kind = {"norm", PEFT__OPF_CHEAP, norm_reads, norm_forward, norm_backward, NULL, NULL};

static peft__val norm_push(peft__tape *t, peft__val x, const peft__real *w, const peft__real *b, int32_t w_param,
                           int32_t b_param, double eps, bool layer) {
    peft__op *op = peft__tape_push(t, &norm_kind, 1, &x);
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, x);
    op->vec = w;
    op->vec2 = b;
    op->param[NORM_W] = w_param;
    op->param[NORM_B] = b_param;
    op->f[0] = PEFT__R(eps);
    op->i[0] = layer;
    peft__val y = peft__tape_out(t, op, v.space, v.fixed, v.cols);
    (void)peft__tape_out(t, op, v.space, v.fixed, 2);
    return y;
}

peft__val peft__op_rms_norm(peft__tape *t, peft__val x, const peft__real *w, int32_t w_param, double eps) {
    return norm_push(t, x, w, NULL, w_param, PEFT__NONE, eps, false);
}

peft__val peft__op_layer_norm(peft__tape *t, peft__val x, const peft__real *w, const peft__real *b, int32_t w_param,
                              int32_t b_param, double eps) {
    return norm_push(t, x, w, b, w_param, b_param, eps, true);
}
