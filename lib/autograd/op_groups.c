/* op_groups.c - products that go to stretches of a value's columns: LoRA on some of the queries, keys and values that one matrix
 * makes (as in AdapterHub's library and in Hu et al.'s own), each with a pair of its own.
 *
 *   add_groups   out = y, and for g < n: out[:, first_g : first_g + w] += s h[:, g r : (g + 1) r] B[g w : (g + 1) w, :]'
 *                dh_g = s dy_g B_g;  dB_g += s dy_g' h_g;  dy passes on to y
 *
 * h [rows, n r] is x A' with the A of all groups stacked; factors of a row's groups (gates) are put on h, where they are cheap. */
#include "autograd/ops.h"

enum { GROUPS_MAX = 4 };

typedef struct groups_args {
    int64_t n, r, w, ld, ld_h, rows; /* r columns of h and w of y for each group */
    const int64_t *first;
} groups_args;

static groups_args groups_gather(const peft__exec *x, const peft__op *op) {
    const peft__param *b = peft__tape_param_at(x->tape, op->param[0]);
    groups_args a = {.n = op->i[0], .r = b->cols, .w = b->rows / op->i[0], .first = &op->i[1]};
    a.rows = peft__exec_rows(x, op->in[0]);
    a.ld = peft__tape_value(x->tape, op->in[0])->cols;
    a.ld_h = peft__exec_ld(x, op->in[1]);
    return a;
}

static void groups_forward(peft__exec *x, const peft__op *op) {
    groups_args a = groups_gather(x, op);
    const peft__real *y0 = peft__exec_data(x, op->in[0]), *b = peft__exec_param(x, op->param[0]);
    peft__real *y = peft__exec_data(x, op->out[0]);
    if (y != y0) { memcpy(y, y0, (size_t)(peft__exec_rows(x, op->in[0]) * a.ld) * sizeof *y); }
    for (int64_t g = 0; g < a.n; g++) {
        peft__gemm_args m;
        memset(&m, 0, sizeof m);
        m.m = a.rows;
        m.n = a.w;
        m.k = a.r;
        m.a = peft__exec_data(x, op->in[1]) + g * a.r;
        m.lda = a.ld_h;
        m.b = peft__real_forward(b + g * a.w * a.r, a.r);
        m.c = y + a.first[g];
        m.ldc = a.ld;
        m.alpha = op->f[0];
        m.accumulate = true;
        peft__gemm(&x->run, &m);
    }
}

static void groups_backward(peft__exec *x, const peft__op *op) {
    groups_args a = groups_gather(x, op);
    bool add = false;
    const peft__real *dy = peft__exec_grad(x, op->out[0]), *b = peft__exec_param(x, op->param[0]);
    peft__real *db = peft__exec_param_grad(x, op->param[0]), *dh = peft__exec_grad_out(x, op->in[1], &add);
    for (int64_t g = 0; g < a.n; g++) {
        const peft__real *dy_g = dy + a.first[g];
        if (db != NULL) {
            const peft__real *h = peft__exec_data(x, op->in[1]) + g * a.r;
            peft__op_outer(x, db + g * a.w * a.r, dy_g, a.ld, h, a.ld_h, a.rows, a.w, a.r, op->f[0]);
        }
        if (dh == NULL) { continue; }
        peft__gemm_args m;
        memset(&m, 0, sizeof m);
        m.m = a.rows;
        m.n = a.r;
        m.k = a.w;
        m.a = dy_g;
        m.lda = a.ld;
        m.b = peft__real_backward(b + g * a.w * a.r, a.r);
        m.c = dh + g * a.r;
        m.ldc = a.ld_h;
        m.alpha = op->f[0];
        m.accumulate = add;
        peft__gemm(&x->run, &m);
    }
    peft__op_pass_grad(x, op, 0);
}

static uint32_t groups_reads(const peft__tape *t, const peft__op *op) { return peft__op_trained(t, op->param[0]) ? 2u : 0; }

static double groups_flops(const peft__tape *t, const peft__op *op, const peft__caps *caps, bool backward) {
    const peft__param *b = peft__tape_param_at(t, op->param[0]);
    (void)caps;
    return (backward ? 4.0 : 2.0) * (double)b->rows * (double)b->cols;
}

static const peft__op_kind groups_kind = {"add_groups", PEFT__OPF_INPLACE0 | PEFT__OPF_PASS0, groups_reads, groups_forward,
                                          groups_backward, groups_flops, NULL};

peft__val peft__op_add_groups(peft__tape *t, peft__val y, peft__val h, int32_t b_param, double scale, const int64_t *first,
                              int64_t n) {
    peft__val in[2] = {y, h};
    if (n > GROUPS_MAX) { peft__tape_fail(t, PEFT_E_UNSUPPORTED, "more than %d groups of columns", (int)GROUPS_MAX); }
    peft__op *op = peft__tape_push(t, &groups_kind, 2, in);
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, y);
    op->param[0] = b_param;
    op->f[0] = PEFT__R(scale);
    op->i[0] = n;
    memcpy(&op->i[1], first, (size_t)n * sizeof *first);
    return peft__tape_out(t, op, v.space, v.fixed, v.cols);
}
