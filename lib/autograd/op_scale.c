/* op_scale.c - products with trained vectors and scalars.
 *
 *   scale_columns  y = x * l, l [1, C] (IA3, Liu et al. 2022);  dl += sum over rows of dy * x, rows in order;  dx = dy * l
 *   scale_about    y = b + (x - b) * l, b frozen (BOFT);  the same with x - b in place of x
 *   scale_all      y = a x, a a constant times a trained scalar [1, 1], or a constant alone;  da += sum dy * x */
#include "autograd/ops.h"

typedef struct scale_args {
    const peft__exec *x;
    const peft__real *in, *dy, *l, *about; /* about: what is scaled is the distance from it; NULL: from 0 */
    peft__real *y, *dl;
    int64_t cols, ld_in, ld_out, rows;
    peft__real factor; /* constant part */
    bool add, all;     /* all: l is one scalar */
} scale_args;

static scale_args scale_gather(peft__exec *x, const peft__op *op) {
    scale_args s;
    memset(&s, 0, sizeof s);
    s.x = x;
    s.in = peft__exec_data(x, op->in[0]);
    s.ld_in = peft__exec_ld(x, op->in[0]);
    s.l = peft__exec_param(x, op->param[0]);
    s.about = op->vec;
    s.cols = peft__tape_value(x->tape, op->out[0])->cols;
    s.rows = peft__exec_rows(x, op->out[0]);
    s.factor = op->f[0];
    s.all = op->i[0] != 0;
    return s;
}

/* y (+)= v * l over rows; forward with v = x, backward with v = dy. */
static void scale_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const scale_args *s = arg;
    const peft__kernels *k = s->x->run.k;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        const peft__real *v = s->dy != NULL ? s->dy + r * s->cols : s->in + r * s->ld_in;
        peft__real *y = s->y + r * s->ld_out;
        if (s->all) {
            peft__real a = s->l != NULL ? s->factor * s->l[0] : s->factor;
            if (s->add) { k->axpy(y, a, v, s->cols); } else { k->scale(y, a, v, s->cols); }
        } else if (s->about != NULL && s->dy == NULL) {
            for (int64_t c = 0; c < s->cols; c++) { y[c] = s->about[c] + (v[c] - s->about[c]) * s->l[c]; }
        } else if (s->add) {
            k->mul_add(y, v, s->l, s->cols);
        } else {
            k->mul(y, v, s->l, s->cols);
        }
    }
}

static void scale_back_columns(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const scale_args *s = arg;
    (void)worker;
    for (int64_t r = 0; r < s->rows; r++) {
        const peft__real *dy = s->dy + r * s->cols, *in = s->in + r * s->ld_in;
        for (int64_t c = begin; c < end; c++) { s->dl[c] += dy[c] * (s->about != NULL ? in[c] - s->about[c] : in[c]); }
    }
}

static void scale_forward(peft__exec *x, const peft__op *op) {
    scale_args s = scale_gather(x, op);
    s.y = peft__exec_data(x, op->out[0]);
    s.ld_out = s.cols;
    peft__rows(&x->run, s.rows, peft__op_grain(s.cols), scale_rows, &s);
}

static void scale_backward(peft__exec *x, const peft__op *op) {
    scale_args s = scale_gather(x, op);
    s.dy = peft__exec_grad(x, op->out[0]);
    s.dl = peft__exec_param_grad(x, op->param[0]);
    if (s.dl != NULL && s.all) {
        for (int64_t r = 0; r < s.rows; r++) { s.dl[0] += s.factor * x->run.k->dot(s.dy + r * s.cols, s.in + r * s.ld_in, s.cols); }
    } else if (s.dl != NULL) {
        peft__rows(&x->run, s.cols, 64, scale_back_columns, &s);
    }
    s.y = peft__exec_grad_out(x, op->in[0], &s.add);
    s.ld_out = s.ld_in;
    if (s.y != NULL) { peft__rows(&x->run, s.rows, peft__op_grain(s.cols), scale_rows, &s); }
}

static uint32_t scale_reads(const peft__tape *t, const peft__op *op) { return peft__op_trained(t, op->param[0]) ? 1u : 0; }

static const peft__op_kind scale_kind = {"scale", PEFT__OPF_CHEAP, scale_reads, scale_forward, scale_backward, NULL, NULL};

static peft__val scale_push(peft__tape *t, peft__val x, const peft__real *about, int32_t param, double factor, bool all) {
    peft__op *op = peft__tape_push(t, &scale_kind, 1, &x);
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, x);
    op->vec = about;
    op->param[0] = param;
    op->f[0] = PEFT__R(factor);
    op->i[0] = all;
    return peft__tape_out(t, op, v.space, v.fixed, v.cols);
}

peft__val peft__op_scale_columns(peft__tape *t, peft__val x, int32_t param) { return scale_push(t, x, NULL, param, 1, false); }

peft__val peft__op_scale_about(peft__tape *t, peft__val y, const peft__real *b, int32_t param) {
    return scale_push(t, y, b, param, 1, false);
}

peft__val peft__op_scale_all(peft__tape *t, peft__val x, double factor, int32_t param) {
    return scale_push(t, x, NULL, param, factor, true);
}
