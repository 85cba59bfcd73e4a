/* op_norm.c - RMSNorm (Zhang and Sennrich 2019) and LayerNorm (Ba et al. 2016) over the columns of each row, or of each head.
 *
 *   rms    y = x * rstd * w,               rstd = 1 / sqrt(mean(x^2) + eps)
 *   layer  y = (x - mean) * rstd * w + b,  rstd = 1 / sqrt(var(x) + eps)
 *
 * A gain may be kept as what it is above 1 (Gemma): then w is 1 + the parameter. rstd (and mean) are kept, two numbers for what
 * is normed together; y is rebuilt in the backward pass when somebody wants it. */
#include "autograd/ops.h"

enum { NORM_W = 0, NORM_B = 1 };

typedef struct norm_args {
    const peft__exec *x;
    const peft__real *in, *w, *b, *dy;
    peft__real *y, *dx, *stats; /* stats: [rows, heads, 2]: rstd, mean */
    peft__real *dw, *db;
    int64_t cols, ld, rows;     /* cols: of a head; a row has `heads` of them */
    int64_t heads, width;       /* width: heads * cols */
    peft__real eps;
    bool layer, add;
} norm_args;

/* A trained gain, with what is kept apart from it. */
static const peft__real *norm_gain(peft__exec *x, const peft__op *op, const peft__real *w, int64_t cols) {
    if (op->f[1] == 0) { return w; }
    peft__real *gain = (peft__real *)(void *)x->op_scratch;
    for (int64_t c = 0; c < cols; c++) { gain[c] = w[c] + op->f[1]; }
    return gain;
}

static norm_args norm_gather(peft__exec *x, const peft__op *op) {
    norm_args n;
    const peft__real *w = peft__exec_param(x, op->param[NORM_W]), *b = peft__exec_param(x, op->param[NORM_B]);
    memset(&n, 0, sizeof n);
    n.x = x;
    n.in = peft__exec_data(x, op->in[0]);
    n.ld = peft__exec_ld(x, op->in[0]);
    n.stats = peft__exec_data(x, op->out[1]);
    n.width = peft__tape_value(x->tape, op->out[0])->cols;
    n.cols = op->i[1] > 0 ? op->i[1] : n.width;
    n.heads = n.width / n.cols;
    n.w = w != NULL ? norm_gain(x, op, w, n.cols) : op->vec;
    n.b = b != NULL ? b : op->vec2;
    n.rows = peft__exec_rows(x, op->out[0]);
    n.eps = op->f[0];
    n.layer = op->i[0] != 0;
    return n;
}

static void norm_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const norm_args *n = arg;
    const peft__kernels *k = n->x->run.k;
    (void)worker;
    for (int64_t i = begin * n->heads; i < end * n->heads; i++) {
        int64_t r = i / n->heads, c = i % n->heads * n->cols;
        peft__real *s = n->stats + 2 * i, *y = n->y + r * n->width + c;
        const peft__real *in = n->in + r * n->ld + c;
        s[1] = 0;
        s[0] = n->layer ? k->layer_norm(y, in, n->w, n->b, n->cols, n->eps, &s[1]) : k->rms_norm(y, in, n->w, n->cols, n->eps);
    }
}

static void norm_back_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const norm_args *n = arg;
    const peft__kernels *k = n->x->run.k;
    (void)worker;
    for (int64_t i = begin * n->heads; i < end * n->heads; i++) {
        int64_t r = i / n->heads, c = i % n->heads * n->cols;
        const peft__real *s = n->stats + 2 * i, *dy = n->dy + r * n->width + c, *in = n->in + r * n->ld + c;
        peft__real *dx = n->dx + r * n->ld + c;
        if (n->layer) {
            k->layer_norm_back(dx, dy, in, n->w, n->cols, s[1], s[0], n->add);
        } else {
            k->rms_norm_back(dx, dy, in, n->w, n->cols, s[0], n->add);
        }
    }
}

/* dw += sum over rows of dy * (x - mean) * rstd, rows in order; a task has a range of columns. */
static void norm_back_gain(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const norm_args *n = arg;
    (void)worker;
    for (int64_t i = 0; i < n->rows * n->heads; i++) {
        int64_t r = i / n->heads, head = i % n->heads * n->cols;
        peft__real rstd = n->stats[2 * i], mean = n->stats[2 * i + 1];
        const peft__real *dy = n->dy + r * n->width + head, *in = n->in + r * n->ld + head;
        for (int64_t c = begin; c < end; c++) { n->dw[c] += dy[c] * ((in[c] - mean) * rstd); }
    }
}

static void norm_forward(peft__exec *x, const peft__op *op) {
    norm_args n = norm_gather(x, op);
    n.y = peft__exec_data(x, op->out[0]);
    peft__rows(&x->run, n.rows, peft__op_grain(n.width), norm_rows, &n);
}

static void norm_backward(peft__exec *x, const peft__op *op) {
    norm_args n = norm_gather(x, op);
    n.dy = peft__exec_grad(x, op->out[0]);
    n.dw = peft__exec_param_grad(x, op->param[NORM_W]);
    n.db = peft__exec_param_grad(x, op->param[NORM_B]);
    if (n.dw != NULL) { peft__rows(&x->run, n.cols, 64, norm_back_gain, &n); }
    if (n.db != NULL) { peft__op_column_sums(x, n.db, n.dy, n.cols, n.rows, n.cols, 1); }
    n.dx = peft__exec_grad_out(x, op->in[0], &n.add);
    if (n.dx != NULL) { peft__rows(&x->run, n.rows, peft__op_grain(n.width), norm_back_rows, &n); }
}

static uint32_t norm_reads(const peft__tape *t, const peft__op *op) {
    (void)t;
    (void)op;
    return 1u | 1u << (PEFT__READS_OUT + 1);
}

static size_t norm_scratch(const peft__tape *t, const peft__op *op, const peft__caps *caps) {
    (void)caps;
    return op->f[1] != 0 ? (size_t)peft__tape_value(t, op->out[0])->cols * sizeof(peft__real) : 0;
}

static const peft__op_kind norm_kind = {"norm",        PEFT__OPF_CHEAP, norm_reads, norm_forward,
                                        norm_backward, NULL,            norm_scratch};

static peft__op *norm_push(peft__tape *t, peft__val x, const peft__real *w, const peft__real *b, int32_t w_param,
                           int32_t b_param, double eps, int64_t heads) {
    peft__op *op = peft__tape_push(t, &norm_kind, 1, &x);
    if (op == NULL) { return NULL; }
    peft__value v = *peft__tape_value(t, x);
    op->vec = w;
    op->vec2 = b;
    op->param[NORM_W] = w_param;
    op->param[NORM_B] = b_param;
    op->f[0] = PEFT__R(eps);
    (void)peft__tape_out(t, op, v.space, v.fixed, v.cols);
    (void)peft__tape_out(t, op, v.space, v.fixed, 2 * heads);
    return op;
}

peft__val peft__op_rms_norm(peft__tape *t, peft__val x, const peft__real *w, int32_t w_param, double eps) {
    return peft__op_rms_norm_heads(t, x, w, w_param, eps, 0, 0);
}

peft__val peft__op_rms_norm_heads(peft__tape *t, peft__val x, const peft__real *w, int32_t w_param, double eps, int64_t head_dim,
                                  double plus) {
    int64_t cols = x != PEFT__NONE && t->status == PEFT_OK ? peft__tape_value(t, x)->cols : 0;
    peft__op *op = norm_push(t, x, w, NULL, w_param, PEFT__NONE, eps, head_dim > 0 ? cols / head_dim : 1);
    if (op == NULL) { return PEFT__NONE; }
    op->i[1] = head_dim;
    op->f[1] = PEFT__R(plus);
    return op->out[0];
}

peft__val peft__op_layer_norm(peft__tape *t, peft__val x, const peft__real *w, const peft__real *b, int32_t w_param,
                              int32_t b_param, double eps) {
    peft__op *op = norm_push(t, x, w, b, w_param, b_param, eps, 1);
    if (op == NULL) { return PEFT__NONE; }
    op->i[0] = 1;
    return op->out[0];
}
