/* op_columns.c - columns of a value as a value of their own, and values side by side.
 *
 *   columns  y = x[:, col : col + n], copied: x may have other uses, and the copies may overlap, which views may not;
 *            dx = dy in those columns, 0 in the others
 *   join     y = [a | b], of any space; da = the first columns of dy, db = the rest */
#include "autograd/ops.h"

typedef struct columns_args { /* y[r, 0 : n] (+)= x[r, 0 : n]; then, with a width, the rest of y's row becomes 0 */
    const peft__exec *x;
    const peft__real *in;
    peft__real *out;          /* first column that is written */
    int64_t n, ld_in, ld_out;
    int64_t before, after;    /* columns of out's row before and after these, set to 0; 0: left alone */
    bool add;
} columns_args;

static void columns_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const columns_args *c = arg;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        const peft__real *in = c->in + r * c->ld_in;
        peft__real *out = c->out + r * c->ld_out;
        if (c->add) {
            c->x->run.k->add(out, out, in, c->n);
            continue;
        }
        memcpy(out, in, (size_t)c->n * sizeof *out);
        if (c->before > 0) { memset(out - c->before, 0, (size_t)c->before * sizeof *out); }
        if (c->after > 0) { memset(out + c->n, 0, (size_t)c->after * sizeof *out); }
    }
}

static void columns_move(peft__exec *x, peft__val v, columns_args *c) {
    c->x = x;
    peft__rows(&x->run, peft__exec_rows(x, v), peft__op_grain(c->n), columns_rows, c);
}

static int64_t columns_of(const peft__exec *x, peft__val v) { return peft__tape_value(x->tape, v)->cols; }

/* ---- columns --------------------------------------------------------------------------------------------------- */

static void columns_forward(peft__exec *x, const peft__op *op) {
    columns_args c = {.in = peft__exec_data(x, op->in[0]) + op->i[0], .ld_in = peft__exec_ld(x, op->in[0])};
    c.out = peft__exec_data(x, op->out[0]);
    c.n = c.ld_out = columns_of(x, op->out[0]);
    columns_move(x, op->out[0], &c);
}

static void columns_backward(peft__exec *x, const peft__op *op) {
    columns_args c = {.in = peft__exec_grad(x, op->out[0]), .ld_out = peft__exec_ld(x, op->in[0])};
    peft__real *dx = peft__exec_grad_out(x, op->in[0], &c.add);
    if (dx == NULL) { return; }
    c.n = c.ld_in = columns_of(x, op->out[0]);
    c.out = dx + op->i[0];
    c.before = op->i[0];
    c.after = columns_of(x, op->in[0]) - op->i[0] - c.n;
    columns_move(x, op->out[0], &c);
}

static const peft__op_kind columns_kind = {"columns", PEFT__OPF_CHEAP, NULL, columns_forward, columns_backward, NULL, NULL};

peft__val peft__op_columns(peft__tape *t, peft__val x, int64_t col, int64_t n) {
    peft__op *op = peft__tape_push(t, &columns_kind, 1, &x);
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, x);
    op->i[0] = col;
    return peft__tape_out(t, op, v.space, v.fixed, n);
}

/* ---- join ------------------------------------------------------------------------------------------------------ */

static void join_forward(peft__exec *x, const peft__op *op) {
    int64_t at = 0;
    for (int32_t j = 0; j < 2; j++) {
        columns_args c = {.in = peft__exec_data(x, op->in[j]), .ld_in = peft__exec_ld(x, op->in[j])};
        c.n = columns_of(x, op->in[j]);
        c.out = peft__exec_data(x, op->out[0]) + at;
        c.ld_out = columns_of(x, op->out[0]);
        columns_move(x, op->out[0], &c);
        at += c.n;
    }
}

static void join_backward(peft__exec *x, const peft__op *op) {
    int64_t at = 0;
    for (int32_t j = 0; j < 2; j++) {
        columns_args c = {.in = peft__exec_grad(x, op->out[0]) + at, .ld_in = columns_of(x, op->out[0])};
        c.n = columns_of(x, op->in[j]);
        c.out = peft__exec_grad_out(x, op->in[j], &c.add);
        c.ld_out = peft__exec_ld(x, op->in[j]);
        if (c.out != NULL) { columns_move(x, op->out[0], &c); }
        at += c.n;
    }
}

static const peft__op_kind join_kind = {"join", PEFT__OPF_CHEAP, NULL, join_forward, join_backward, NULL, NULL};

peft__val peft__op_join(peft__tape *t, peft__val a, peft__val b) {
    peft__val in[2] = {a, b};
    peft__op *op = peft__tape_push(t, &join_kind, 2, in);
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, a);
    return peft__tape_out(t, op, v.space, v.fixed, v.cols + peft__tape_value(t, b)->cols);
}
