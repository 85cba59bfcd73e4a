/* op_elementwise.c - add, activation, gated product (GLU, Shazeer 2020) and dropout, and what op files share.
 *
 *   add      y = a + b: both gradients are dy, most often in the same memory
 *   act      y = f(x)
 *   glu      y = f(gate) * up
 *   dropout  y = x * keep / (1 - p), keep drawn from (seed, step, row's id, token in its row, site, column): the place in the
 *            batch does not matter, and the backward pass draws the same again */
#include "autograd/ops.h"

bool peft__op_trained(const peft__tape *t, int32_t param) {
    return t->training && param != PEFT__NONE && !peft__tape_param_at(t, param)->frozen;
}

int64_t peft__op_grain(int64_t cols) { return PEFT__MAX(1, PEFT__OP_GRAIN / PEFT__MAX(cols, 1)); }

typedef struct element_args { /* one loop over rows: pointers to row 0 and strides */
    const peft__exec *x;
    const peft__op *op;
    const peft__real *a, *b, *dy;
    peft__real *y, *y2;
    int64_t cols, lda, ldb, ldy, begin;
    bool add;
    int32_t act;
} element_args;

static void element_copy(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const element_args *e = arg;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        peft__real *y = e->y + r * e->ldy;
        const peft__real *dy = e->dy + r * e->cols;
        if (e->add) { e->x->run.k->add(y, y, dy, e->cols); } else { memcpy(y, dy, (size_t)e->cols * sizeof *y); }
    }
}

void peft__op_pass_grad(peft__exec *x, const peft__op *op, int32_t j) {
    element_args e;
    memset(&e, 0, sizeof e);
    e.y = peft__exec_grad_out(x, op->in[j], &e.add);
    e.dy = peft__exec_grad(x, op->out[0]);
    if (e.y == NULL || e.y == e.dy) { return; }
    e.x = x;
    e.cols = peft__tape_value(x->tape, op->out[0])->cols;
    e.ldy = peft__exec_ld(x, op->in[j]);
    peft__rows(&x->run, peft__exec_rows(x, op->out[0]), peft__op_grain(e.cols), element_copy, &e);
}

/* ---- add ------------------------------------------------------------------------------------------------------------- */

static uint32_t element_reads_none(const peft__tape *t, const peft__op *op) {
    (void)t;
    (void)op;
    return 0;
}

static void add_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const element_args *e = arg;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        e->x->run.k->add(e->y + r * e->ldy, e->a + r * e->lda, e->b + r * e->ldb, e->cols);
    }
}

static void add_forward(peft__exec *x, const peft__op *op) {
    element_args e;
    memset(&e, 0, sizeof e);
    e.x = x;
    e.a = peft__exec_data(x, op->in[0]);
    e.b = peft__exec_data(x, op->in[1]);
    e.y = peft__exec_data(x, op->out[0]);
    e.lda = peft__exec_ld(x, op->in[0]);
    e.ldb = peft__exec_ld(x, op->in[1]);
    e.ldy = e.cols = peft__tape_value(x->tape, op->out[0])->cols;
    peft__rows(&x->run, peft__exec_rows(x, op->out[0]), peft__op_grain(e.cols), add_rows, &e);
}

static void add_backward(peft__exec *x, const peft__op *op) {
    peft__op_pass_grad(x, op, 0);
    peft__op_pass_grad(x, op, 1);
}

static const peft__op_kind add_kind = {"add", PEFT__OPF_INPLACE1 | PEFT__OPF_PASS0 | PEFT__OPF_PASS1, element_reads_none,
                                       add_forward, add_backward, NULL, NULL};

peft__val peft__op_add(peft__tape *t, peft__val x, peft__val y) {
    peft__val in[2] = {x, y};
    peft__op *op = peft__tape_push(t, &add_kind, 2, in);
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, y);
    return peft__tape_out(t, op, v.space, v.fixed, v.cols);
}

/* ---- act --------------------------------------------------------------------------------------------------------------- */

static uint32_t act_reads(const peft__tape *t, const peft__op *op) {
    (void)t;
    (void)op;
    return 1u;
}

static void act_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const element_args *e = arg;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        const peft__real *a = e->a + r * e->lda;
        if (e->dy == NULL) {
            e->x->run.k->act(e->act, e->y + r * e->ldy, a, e->cols);
        } else {
            e->x->run.k->act_back(e->act, e->y + r * e->ldy, e->dy + r * e->cols, a, e->cols, e->add);
        }
    }
}

static void act_run(peft__exec *x, const peft__op *op, peft__real *y, const peft__real *dy, bool add) {
    element_args e;
    memset(&e, 0, sizeof e);
    e.x = x;
    e.act = (int32_t)op->i[0];
    e.a = peft__exec_data(x, op->in[0]);
    e.lda = peft__exec_ld(x, op->in[0]);
    e.cols = peft__tape_value(x->tape, op->out[0])->cols;
    e.y = y;
    e.dy = dy;
    e.add = add;
    e.ldy = dy == NULL ? e.cols : e.lda;
    peft__rows(&x->run, peft__exec_rows(x, op->out[0]), peft__op_grain(e.cols), act_rows, &e);
}

static void act_forward(peft__exec *x, const peft__op *op) { act_run(x, op, peft__exec_data(x, op->out[0]), NULL, false); }

static void act_backward(peft__exec *x, const peft__op *op) {
    bool add = false;
    peft__real *dx = peft__exec_grad_out(x, op->in[0], &add);
    if (dx != NULL) { act_run(x, op, dx, peft__exec_grad(x, op->out[0]), add); }
}

static const peft__op_kind act_kind = {"act", PEFT__OPF_CHEAP, act_reads, act_forward, act_backward, NULL, NULL};

peft__val peft__op_act(peft__tape *t, int32_t act, peft__val x) {
    peft__op *op = peft__tape_push(t, &act_kind, 1, &x);
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, x);
    op->i[0] = act;
    return peft__tape_out(t, op, v.space, v.fixed, v.cols);
}

/* ---- glu ----------------------------------------------------------------------------------------------------------------- */

static uint32_t glu_reads(const peft__tape *t, const peft__op *op) {
    (void)t;
    (void)op;
    return 3u;
}

static void glu_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const element_args *e = arg;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        const peft__real *g = e->a + r * e->lda, *u = e->b + r * e->ldb;
        if (e->dy == NULL) {
            e->x->run.k->glu(e->act, e->y + r * e->ldy, g, u, e->cols);
        } else {
            e->x->run.k->glu_back(e->act, e->y == NULL ? NULL : e->y + r * e->lda, e->y2 == NULL ? NULL : e->y2 + r * e->ldb,
                                  e->dy + r * e->cols, g, u, e->cols);
        }
    }
}

static element_args glu_args(peft__exec *x, const peft__op *op) {
    element_args e;
    memset(&e, 0, sizeof e);
    e.x = x;
    e.act = (int32_t)op->i[0];
    e.a = peft__exec_data(x, op->in[0]);
    e.b = peft__exec_data(x, op->in[1]);
    e.lda = peft__exec_ld(x, op->in[0]);
    e.ldb = peft__exec_ld(x, op->in[1]);
    e.ldy = e.cols = peft__tape_value(x->tape, op->out[0])->cols;
    return e;
}

static void glu_forward(peft__exec *x, const peft__op *op) {
    element_args e = glu_args(x, op);
    e.y = peft__exec_data(x, op->out[0]);
    peft__rows(&x->run, peft__exec_rows(x, op->out[0]), peft__op_grain(e.cols), glu_rows, &e);
}

static void glu_backward(peft__exec *x, const peft__op *op) {
    element_args e = glu_args(x, op);
    bool add = false; /* sole consumer: never */
    e.y = peft__exec_grad_out(x, op->in[0], &add);
    e.y2 = peft__exec_grad_out(x, op->in[1], &add);
    e.dy = peft__exec_grad(x, op->out[0]);
    peft__rows(&x->run, peft__exec_rows(x, op->out[0]), peft__op_grain(e.cols), glu_rows, &e);
}

static const peft__op_kind glu_kind = {"glu", PEFT__OPF_CHEAP | PEFT__OPF_SOLE, glu_reads, glu_forward, glu_backward, NULL,
                                       NULL};

peft__val peft__op_glu(peft__tape *t, int32_t act, peft__val gate, peft__val up) {
    peft__val in[2] = {gate, up};
    peft__op *op = peft__tape_push(t, &glu_kind, 2, in);
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, gate);
    op->i[0] = act;
    return peft__tape_out(t, op, v.space, v.fixed, v.cols);
}

/* ---- dropout --------------------------------------------------------------------------------------------------------------- */

typedef struct dropout_spec {
    uint64_t site_key;
    uint32_t drop;      /* a draw below it drops the element: p * 2^32 */
    peft__real keep;    /* 1 / (1 - p) */
} dropout_spec;

static void dropout_row(const element_args *e, const dropout_spec *d, uint64_t row_key, int64_t token, const peft__real *in,
                        peft__real *out) {
    const peft__frame *f = e->x->frame;
    uint64_t key = peft__mix64(f->seed ^ peft__mix64(d->site_key));
    uint64_t hi = peft__mix64(row_key ^ peft__mix64(f->step));
    for (int64_t c = 0; c < e->cols; c += 4) {
        uint32_t u[4];
        peft__philox(key, hi, ((uint64_t)token << 24) | (uint64_t)(c / 4), u);
        for (int64_t j = 0; j < 4 && c + j < e->cols; j++) {
            peft__real v = u[j] < d->drop ? 0 : in[c + j] * d->keep;
            out[c + j] = e->add ? out[c + j] + v : v;
        }
    }
}

static void dropout_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const element_args *e = arg;
    const peft__frame *f = e->x->frame;
    const dropout_spec *d = e->op->aux;
    (void)worker;
    if (!e->x->training) {
        memcpy(e->y + begin * e->cols, e->a + begin * e->cols, (size_t)((end - begin) * e->cols) * sizeof *e->y);
        return;
    }
    int32_t space = peft__tape_value(e->x->tape, e->op->out[0])->space;
    const int64_t *offsets = f->offsets[space];
    int64_t row = 0;
    if (space == PEFT__SPACE_ROWS) { /* a row is its own only token */
        for (int64_t t = begin; t < end; t++) {
            dropout_row(e, d, f->row_keys != NULL ? f->row_keys[t] : (uint64_t)t, 0, e->a + t * e->lda, e->y + t * e->ldy);
        }
        return;
    }
    if (space == PEFT__SPACE_FIXED) { /* of no row of the batch */
        for (int64_t t = begin; t < end; t++) { dropout_row(e, d, 0, t, e->a + t * e->lda, e->y + t * e->ldy); }
        return;
    }
    for (int64_t t = begin; t < end; t++) {
        while (row + 1 < f->n_rows && offsets[row + 1] <= t) { row++; }
        dropout_row(e, d, f->row_keys != NULL ? f->row_keys[row] : (uint64_t)row, t - offsets[row], e->a + t * e->lda,
                    e->y + t * e->ldy);
    }
}

static void dropout_run(peft__exec *x, const peft__op *op, const peft__real *in, peft__real *out, bool add) {
    element_args e;
    memset(&e, 0, sizeof e);
    e.x = x;
    e.op = op;
    e.a = in;
    e.y = out;
    e.add = add;
    e.lda = e.ldy = e.cols = peft__tape_value(x->tape, op->out[0])->cols;
    peft__rows(&x->run, peft__exec_rows(x, op->out[0]), peft__op_grain(e.cols), dropout_rows, &e);
}

static void dropout_forward(peft__exec *x, const peft__op *op) {
    dropout_run(x, op, peft__exec_data(x, op->in[0]), peft__exec_data(x, op->out[0]), false);
}

static void dropout_backward(peft__exec *x, const peft__op *op) {
    bool add = false;
    peft__real *dx = peft__exec_grad_out(x, op->in[0], &add);
    if (dx != NULL) { dropout_run(x, op, peft__exec_grad(x, op->out[0]), dx, add); }
}

static const peft__op_kind dropout_kind = {"dropout", PEFT__OPF_CHEAP, element_reads_none, dropout_forward, dropout_backward,
                                           NULL, NULL};

peft__val peft__op_dropout(peft__tape *t, peft__val x, double p, uint64_t site_key) {
    if (!t->training || p <= 0 || t->status != PEFT_OK) { return x; }
    dropout_spec *d = peft__arena_alloc(&t->arena, sizeof *d);
    if (d == NULL) {
        peft__tape_fail(t, PEFT_E_NOMEM, "%s", peft__fail_text());
        return PEFT__NONE;
    }
    d->site_key = site_key;
    d->drop = (uint32_t)(p * 4294967296.0);
    d->keep = PEFT__R(1.0 / (1.0 - p));
    peft__op *op = peft__tape_push(t, &dropout_kind, 1, &x);
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, x);
    op->aux = d;
    return peft__tape_out(t, op, v.space, v.fixed, v.cols);
}
