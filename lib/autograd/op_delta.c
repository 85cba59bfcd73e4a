/* op_delta.c - y + x D', with D [out, in] formed from parameters by a function of the method (LoHa, LoKr).
 *
 *   dx = dy D;  G = dy' x, which the method's other function turns into gradients of its parameters
 *
 * D and G lie in the op's scratch, one site at a time. In training whole rows of D may be dropped, or D as a whole; both draw
 * from (seed, step, site), so that the backward pass drops the same. */
#include "autograd/ops.h"

typedef struct delta_args {
    const peft__delta *d;
    const peft__real *p[PEFT__OP_PARAMS];
    peft__real *dp[PEFT__OP_PARAMS];
    peft__real *w, *g, *work;    /* D, G, room of the method */
    peft__real *keep;            /* [out] factor of each row, or NULL: nothing is dropped */
    bool skip;                   /* D is dropped as a whole */
} delta_args;

static void delta_draw(const peft__exec *x, delta_args *a) {
    const peft__delta *d = a->d;
    if (!x->training || (d->row_dropout <= 0 && d->module_dropout <= 0)) { return; }
    uint64_t place[2] = {x->frame->seed, x->frame->step};
    peft__rng rng = {peft__hash_str(d->key, (const char *)place, sizeof place), 0};
    a->skip = peft__rng_uniform(&rng) < d->module_dropout;
    if (d->row_dropout <= 0) { return; }
    a->keep = a->work + d->work;
    int64_t kept = 0;
    for (int64_t i = 0; i < d->out; i++) {
        bool keep = peft__rng_uniform(&rng) >= d->row_dropout;
        a->keep[i] = keep ? 1 : 0;
        kept += keep;
    }
    if (d->rescale && kept > 0) {
        peft__real factor = (peft__real)d->out / (peft__real)kept;
        for (int64_t i = 0; i < d->out; i++) { a->keep[i] *= factor; }
    }
}

static void delta_mask(const peft__exec *x, const delta_args *a, peft__real *w) {
    for (int64_t i = 0; a->keep != NULL && i < a->d->out; i++) {
        x->run.k->scale(w + i * a->d->in, a->keep[i], w + i * a->d->in, a->d->in);
    }
}

static delta_args delta_gather(peft__exec *x, const peft__op *op) {
    delta_args a;
    memset(&a, 0, sizeof a);
    a.d = op->aux;
    for (int32_t i = 0; i < PEFT__OP_PARAMS; i++) {
        a.p[i] = peft__exec_param(x, op->param[i]);
        a.dp[i] = peft__exec_param_grad(x, op->param[i]);
    }
    a.w = (peft__real *)(void *)x->op_scratch;
    a.g = a.w + a.d->out * a.d->in;
    a.work = a.g + a.d->out * a.d->in;
    delta_draw(x, &a);
    if (!a.skip) {
        a.d->form(a.d, &x->run, a.p, a.w, a.work);
        delta_mask(x, &a, a.w);
    }
    return a;
}

static void delta_forward(peft__exec *x, const peft__op *op) {
    const peft__real *y0 = peft__exec_data(x, op->in[0]);
    peft__real *y = peft__exec_data(x, op->out[0]);
    delta_args a = delta_gather(x, op);
    int64_t rows = peft__exec_rows(x, op->in[0]), out = a.d->out;
    if (y != y0) { memcpy(y, y0, (size_t)(rows * out) * sizeof *y); }
    if (a.skip) { return; }
    peft__gemm_args g;
    memset(&g, 0, sizeof g);
    g.m = rows;
    g.n = out;
    g.k = a.d->in;
    g.lda = peft__exec_ld(x, op->in[1]);
    g.a = peft__exec_data(x, op->in[1]);
    g.b = peft__real_forward(a.w, a.d->in);
    g.c = y;
    g.ldc = out;
    g.alpha = 1;
    g.accumulate = true;
    peft__gemm(&x->run, &g);
}

static void delta_backward(peft__exec *x, const peft__op *op) {
    delta_args a = delta_gather(x, op);
    int64_t rows = peft__exec_rows(x, op->in[1]), out = a.d->out, in = a.d->in, ld = peft__exec_ld(x, op->in[1]);
    bool add = false;
    const peft__real *dy = peft__exec_grad(x, op->out[0]);
    peft__real *dx = peft__exec_grad_out(x, op->in[1], &add);
    if (dx != NULL && a.skip && !add) {
        for (int64_t t = 0; t < rows; t++) { memset(dx + t * ld, 0, (size_t)in * sizeof *dx); }
    }
    if (dx != NULL && !a.skip) {
        peft__gemm_args g;
        memset(&g, 0, sizeof g);
        g.m = rows;
        g.n = in;
        g.k = out;
        g.a = dy;
        g.lda = out;
        g.b = peft__real_backward(a.w, in);
        g.c = dx;
        g.ldc = ld;
        g.alpha = 1;
        g.accumulate = add;
        peft__gemm(&x->run, &g);
    }
    if (!a.skip) {
        memset(a.g, 0, (size_t)(out * in) * sizeof *a.g);
        peft__op_outer(x, a.g, dy, out, peft__exec_data(x, op->in[1]), ld, rows, out, in, 1);
        delta_mask(x, &a, a.g);
        a.d->back(a.d, &x->run, a.p, a.g, a.dp, a.work);
    }
    peft__op_pass_grad(x, op, 0);
}

static uint32_t delta_reads(const peft__tape *t, const peft__op *op) {
    (void)t;
    (void)op;
    return 2u;
}

static double delta_flops(const peft__tape *t, const peft__op *op, const peft__caps *caps, bool backward) {
    const peft__delta *d = op->aux;
    (void)t;
    (void)caps;
    return (backward ? 4.0 : 2.0) * (double)d->out * (double)d->in;
}

static size_t delta_scratch(const peft__tape *t, const peft__op *op, const peft__caps *caps) {
    const peft__delta *d = op->aux;
    (void)t;
    (void)caps;
    return (size_t)(2 * d->out * d->in + d->work + d->out) * sizeof(peft__real);
}

static const peft__op_kind delta_kind = {"delta", PEFT__OPF_INPLACE0 | PEFT__OPF_PASS0, delta_reads, delta_forward,
                                         delta_backward, delta_flops, delta_scratch};

peft__val peft__op_delta(peft__tape *t, peft__val y, peft__val x, const int32_t params[4], const peft__delta *delta) {
    peft__val in[2] = {y, x};
    peft__delta *d = t->status == PEFT_OK ? peft__arena_alloc(&t->arena, sizeof *d) : NULL;
    if (d == NULL) {
        peft__tape_fail(t, PEFT_E_NOMEM, "%s", peft__fail_text());
        return PEFT__NONE;
    }
    *d = *delta;
    peft__op *op = peft__tape_push(t, &delta_kind, 2, in);
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, y);
    op->aux = d;
    for (int32_t i = 0; i < 4; i++) { op->param[i] = params[i]; }
    return peft__tape_out(t, op, v.space, v.fixed, v.cols);
}
