/* op_regroup.c - columns in another order: what a fused projection makes head by head, [heads][parts][d], part by part:
 * [parts][heads][d], so that queries, keys and values are stretches of columns (GPT-NeoX). dx is dy in the order of x. */
#include "autograd/ops.h"

typedef struct regroup_args {
    const peft__exec *x;
    const peft__real *in;
    peft__real *out;
    int64_t heads, parts, d, ld_in, ld_out;
    bool back, add; /* back: from parts to heads */
} regroup_args;

static void regroup_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const regroup_args *a = arg;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        const peft__real *in = a->in + r * a->ld_in;
        peft__real *out = a->out + r * a->ld_out;
        for (int64_t i = 0; i < a->heads * a->parts; i++) {
            int64_t h = i / a->parts, p = i % a->parts, by_part = (p * a->heads + h) * a->d, by_head = i * a->d;
            const peft__real *from = in + (a->back ? by_part : by_head);
            peft__real *to = out + (a->back ? by_head : by_part);
            if (a->add) {
                a->x->run.k->add(to, to, from, a->d);
            } else {
                memcpy(to, from, (size_t)a->d * sizeof *to);
            }
        }
    }
}

static void regroup_move(peft__exec *x, const peft__op *op, regroup_args *a) {
    int64_t cols = peft__tape_value(x->tape, op->out[0])->cols;
    a->x = x;
    a->heads = op->i[0];
    a->parts = op->i[1];
    a->d = cols / (a->heads * a->parts);
    peft__rows(&x->run, peft__exec_rows(x, op->out[0]), peft__op_grain(cols), regroup_rows, a);
}

static void regroup_forward(peft__exec *x, const peft__op *op) {
    regroup_args a = {.in = peft__exec_data(x, op->in[0]), .ld_in = peft__exec_ld(x, op->in[0])};
    a.out = peft__exec_data(x, op->out[0]);
    a.ld_out = peft__exec_ld(x, op->out[0]);
    regroup_move(x, op, &a);
}

static void regroup_backward(peft__exec *x, const peft__op *op) {
    regroup_args a = {.in = peft__exec_grad(x, op->out[0]), .ld_in = peft__exec_ld(x, op->out[0]), .back = true};
    a.out = peft__exec_grad_out(x, op->in[0], &a.add);
    if (a.out == NULL) { return; }
    a.ld_out = peft__exec_ld(x, op->in[0]);
    regroup_move(x, op, &a);
}

static const peft__op_kind regroup_kind = {"regroup", PEFT__OPF_CHEAP, NULL, regroup_forward, regroup_backward, NULL, NULL};

peft__val peft__op_regroup(peft__tape *t, peft__val x, int64_t heads, int64_t parts) {
    peft__op *op = peft__tape_push(t, &regroup_kind, 1, &x);
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, x);
    op->i[0] = heads;
    op->i[1] = parts;
    return peft__tape_out(t, op, v.space, v.fixed, v.cols);
}
