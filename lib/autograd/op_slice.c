/* op_slice.c - y = x P[:out, :in]' with the upper left corner of a frozen matrix (VeRA's shared projections);  dx = dy P[:out, :in]. */
#include "autograd/ops.h"

static peft__operand slice_operand(const peft__exec *x, const peft__op *op, bool forward) {
    const peft__param *p = peft__tape_param_at(x->tape, op->param[0]);
    return forward ? peft__real_forward(p->value, p->cols) : peft__real_backward(p->value, p->cols);
}

static void slice_forward(peft__exec *x, const peft__op *op) {
    peft__gemm_args g;
    memset(&g, 0, sizeof g);
    g.m = peft__exec_rows(x, op->in[0]);
    g.n = op->i[0];
    g.k = peft__tape_value(x->tape, op->in[0])->cols;
    g.a = peft__exec_data(x, op->in[0]);
    g.lda = peft__exec_ld(x, op->in[0]);
    g.b = slice_operand(x, op, true);
    g.c = peft__exec_data(x, op->out[0]);
    g.ldc = g.n;
    g.alpha = 1;
    peft__gemm(&x->run, &g);
}

static void slice_backward(peft__exec *x, const peft__op *op) {
    bool add = false;
    peft__real *dx = peft__exec_grad_out(x, op->in[0], &add);
    if (dx == NULL) { return; }
    peft__gemm_args g;
    memset(&g, 0, sizeof g);
    g.m = peft__exec_rows(x, op->in[0]);
    g.n = peft__tape_value(x->tape, op->in[0])->cols;
    g.k = op->i[0];
    g.a = peft__exec_grad(x, op->out[0]);
    g.lda = g.k;
    g.b = slice_operand(x, op, false);
    g.c = dx;
    g.ldc = peft__exec_ld(x, op->in[0]);
    g.alpha = 1;
    g.accumulate = add;
    peft__gemm(&x->run, &g);
}

static uint32_t slice_reads(const peft__tape *t, const peft__op *op) {
    (void)t;
    (void)op;
    return 0;
}

static double slice_flops(const peft__tape *t, const peft__op *op, const peft__caps *caps, bool backward) {
    const peft__value *in = peft__tape_value(t, op->in[0]);
    (void)caps;
    return backward && !in->needs_grad ? 0 : 2.0 * (double)in->cols * (double)op->i[0];
}

static const peft__op_kind slice_kind = {"slice", 0, slice_reads, slice_forward, slice_backward, slice_flops, NULL};

peft__val peft__op_slice(peft__tape *t, peft__val x, int32_t param, int64_t out) {
    peft__op *op = peft__tape_push(t, &slice_kind, 1, &x);
    if (op == NULL) { return PEFT__NONE; }
    const peft__value *in = peft__tape_value(t, x);
    op->param[0] = param;
    op->i[0] = out;
    return peft__tape_out(t, op, in->space, in->fixed, out);
}
