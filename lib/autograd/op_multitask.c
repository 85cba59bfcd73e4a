/* op_multitask.c - the virtual tokens of several tasks out of one shared table (Wang et al. 2023, arXiv 2303.02861, section 3.1).
 *
 *   y_t = E o (U_t V_t)          E [P, C] shared; U_t [P, r] and V_t [r, C] of task t; y [tasks P, C], task after task
 *   dE += sum over t of dy_t o (U_t V_t);   dU_t += (dy_t o E) V_t';   dV_t += U_t' (dy_t o E)
 *
 * Tables are small beside a model: one thread, tasks and rows in order. */
#include "autograd/ops.h"

enum { MULTITASK_E = 0, MULTITASK_U = 1, MULTITASK_V = 2 };

typedef struct multitask_sizes {
    int64_t tasks, p, r, c;
} multitask_sizes;

static multitask_sizes multitask_sizes_of(const peft__tape *t, const peft__op *op) {
    const peft__param *e = peft__tape_param_at(t, op->param[MULTITASK_E]), *u = peft__tape_param_at(t, op->param[MULTITASK_U]);
    return (multitask_sizes){op->i[0], e->rows, u->cols, e->cols};
}

/* out[C] = row `row` of task t's U V. */
static void multitask_factor(const peft__exec *x, const peft__op *op, const multitask_sizes *s, int64_t t, int64_t row,
                             peft__real *out) {
    const peft__real *u = peft__exec_param(x, op->param[MULTITASK_U]) + (t * s->p + row) * s->r;
    const peft__real *v = peft__exec_param(x, op->param[MULTITASK_V]) + t * s->r * s->c;
    x->run.k->scale(out, u[0], v, s->c);
    for (int64_t j = 1; j < s->r; j++) { x->run.k->axpy(out, u[j], v + j * s->c, s->c); }
}

static void multitask_forward(peft__exec *x, const peft__op *op) {
    multitask_sizes s = multitask_sizes_of(x->tape, op);
    const peft__real *e = peft__exec_param(x, op->param[MULTITASK_E]);
    peft__real *y = peft__exec_data(x, op->out[0]);
    for (int64_t t = 0; t < s.tasks; t++) {
        for (int64_t i = 0; i < s.p; i++, y += s.c) {
            multitask_factor(x, op, &s, t, i, y);
            x->run.k->mul(y, y, e + i * s.c, s.c);
        }
    }
}

/* What row i of task t's table adds to the gradients. work: [2 C]. */
static void multitask_row_back(const peft__exec *x, const peft__op *op, const multitask_sizes *s, int64_t t, int64_t i,
                               const peft__real *dy, peft__real *work) {
    const peft__kernels *k = x->run.k;
    peft__real *de = peft__exec_param_grad(x, op->param[MULTITASK_E]), *du = peft__exec_param_grad(x, op->param[MULTITASK_U]);
    peft__real *dv = peft__exec_param_grad(x, op->param[MULTITASK_V]);
    const peft__real *u = peft__exec_param(x, op->param[MULTITASK_U]), *v = peft__exec_param(x, op->param[MULTITASK_V]);
    peft__real *g = work + s->c;
    if (de != NULL) {
        multitask_factor(x, op, s, t, i, work);
        k->mul_add(de + i * s->c, dy, work, s->c);
    }
    k->mul(g, dy, peft__exec_param(x, op->param[MULTITASK_E]) + i * s->c, s->c);
    for (int64_t j = 0; j < s->r; j++) {
        int64_t at = (t * s->p + i) * s->r + j, of = (t * s->r + j) * s->c;
        if (du != NULL) { du[at] += k->dot(g, v + of, s->c); }
        if (dv != NULL) { k->axpy(dv + of, u[at], g, s->c); }
    }
}

/* Tasks that the batch has no row of get no gradient. */
static bool multitask_absent(const peft__frame *f, int64_t task) {
    for (int64_t r = 0; r < f->n_rows; r++) {
        if ((f->row_tasks != NULL ? f->row_tasks[r] : 0) == task) { return false; }
    }
    return true;
}

static void multitask_backward(peft__exec *x, const peft__op *op) {
    multitask_sizes s = multitask_sizes_of(x->tape, op);
    const peft__real *dy = peft__exec_grad(x, op->out[0]);
    for (int64_t t = 0; t < s.tasks; t++) {
        if (multitask_absent(x->frame, t)) { continue; }
        for (int64_t i = 0; i < s.p; i++) {
            multitask_row_back(x, op, &s, t, i, dy + (t * s.p + i) * s.c, (peft__real *)(void *)x->op_scratch);
        }
    }
}

static size_t multitask_scratch(const peft__tape *t, const peft__op *op, const peft__caps *caps) {
    (void)caps;
    return 2 * (size_t)multitask_sizes_of(t, op).c * sizeof(peft__real);
}

static const peft__op_kind multitask_kind = {"multitask",        0,    NULL, multitask_forward,
                                             multitask_backward, NULL, multitask_scratch};

peft__val peft__op_multitask(peft__tape *t, const int32_t params[3], int64_t tasks) {
    peft__op *op = peft__tape_push(t, &multitask_kind, 0, NULL);
    if (op == NULL) { return PEFT__NONE; }
    for (int i = 0; i < 3; i++) { op->param[i] = params[i]; }
    op->i[0] = tasks;
    t->tasks = t->tasks == 0 ? tasks : PEFT__MIN(t->tasks, tasks);
    multitask_sizes s = multitask_sizes_of(t, op);
    return peft__tape_out(t, op, PEFT__SPACE_FIXED, tasks * s.p, s.c);
}
