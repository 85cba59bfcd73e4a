/* op_fuse.c - attention over what several adapters make of one token (AdapterFusion, Pfeiffer et al. 2021, arXiv 2005.00247):
 *
 *   p = softmax over i of (q . k_i / T),  out = sum of p_i u_i                    q, k_i, u_i: [TOKENS, C], p: [TOKENS, n]
 *
 *   d u_i = p_i dy,  d s_i = p_i (dy . u_i - sum of p_j dy . u_j),  d q = sum of d s_i k_i / T,  d k_i = d s_i q / T
 *
 * T is 1, or falls from 50 by 0.05 a training step to 1 ("temperature"). Left out: dropout of the scores. */
#include <math.h>

#include "autograd/ops.h"

enum { FUSE_MOST = (PEFT__OP_IN - 1) / 2 };

typedef struct fuse_args {
    const peft__exec *x;
    const peft__real *q, *k[FUSE_MOST], *u[FUSE_MOST], *dy;
    peft__real *out, *p;        /* p: [rows, n] */
    peft__real *dq, *dk[FUSE_MOST], *du[FUSE_MOST];
    int64_t cols, n, rows;
    peft__real inv_t;
} fuse_args;

static fuse_args fuse_gather(peft__exec *x, const peft__op *op) {
    fuse_args a;
    memset(&a, 0, sizeof a);
    a.x = x;
    a.n = op->i[0];
    a.cols = peft__tape_value(x->tape, op->out[0])->cols;
    a.rows = peft__exec_rows(x, op->out[0]);
    a.q = peft__exec_data(x, op->in[0]);
    for (int64_t i = 0; i < a.n; i++) {
        a.k[i] = peft__exec_data(x, op->in[1 + i]);
        a.u[i] = peft__exec_data(x, op->in[1 + a.n + i]);
    }
    a.p = peft__exec_data(x, op->out[1]);
    double t = op->i[1] != 0 && x->training ? fmax(1, 50 - 0.05 * (double)x->frame->step) : 1;
    a.inv_t = PEFT__R(1 / t);
    return a;
}

static void fuse_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const fuse_args *a = arg;
    const peft__kernels *k = a->x->run.k;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        peft__real *p = a->p + r * a->n, *out = a->out + r * a->cols, top = 0, sum = 0;
        for (int64_t i = 0; i < a->n; i++) {
            p[i] = k->dot(a->q + r * a->cols, a->k[i] + r * a->cols, a->cols) * a->inv_t;
            top = i == 0 ? p[i] : PEFT__MAX(top, p[i]);
        }
        for (int64_t i = 0; i < a->n; i++) {
            p[i] = PEFT__R(exp((double)(p[i] - top)));
            sum += p[i];
        }
        for (int64_t i = 0; i < a->n; i++) {
            p[i] /= sum;
            const peft__real *u = a->u[i] + r * a->cols;
            if (i == 0) { k->scale(out, p[i], u, a->cols); } else { k->axpy(out, p[i], u, a->cols); }
        }
    }
}

static void fuse_add(const fuse_args *a, peft__real *g, int64_t r, peft__real f, const peft__real *v) {
    if (g != NULL) { a->x->run.k->axpy(g + r * a->cols, f, v + r * a->cols, a->cols); }
}

static void fuse_back_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const fuse_args *a = arg;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        const peft__real *p = a->p + r * a->n;
        peft__real along[FUSE_MOST], mean = 0;
        for (int64_t i = 0; i < a->n; i++) {
            along[i] = a->x->run.k->dot(a->dy + r * a->cols, a->u[i] + r * a->cols, a->cols);
            mean += p[i] * along[i];
        }
        for (int64_t i = 0; i < a->n; i++) {
            peft__real ds = p[i] * (along[i] - mean) * a->inv_t;
            fuse_add(a, a->du[i], r, p[i], a->dy);
            fuse_add(a, a->dk[i], r, ds, a->q);
            fuse_add(a, a->dq, r, ds, a->k[i]);
        }
    }
}

static void fuse_forward(peft__exec *x, const peft__op *op) {
    fuse_args a = fuse_gather(x, op);
    a.out = peft__exec_data(x, op->out[0]);
    peft__rows(&x->run, a.rows, peft__op_grain(a.cols), fuse_rows, &a);
}

/* Where a gradient is added to: 0 before where this op is the first to write. One value may stand in several places. */
static peft__real *fuse_grad(peft__exec *x, const peft__op *op, int64_t j, const fuse_args *a) {
    bool add = false;
    peft__real *g = peft__exec_grad_out(x, op->in[j], &add);
    if (g != NULL && !add) { memset(g, 0, (size_t)(a->rows * a->cols) * sizeof *g); }
    return g;
}

static void fuse_backward(peft__exec *x, const peft__op *op) {
    fuse_args a = fuse_gather(x, op);
    a.dy = peft__exec_grad(x, op->out[0]);
    a.dq = fuse_grad(x, op, 0, &a);
    for (int64_t i = 0; i < a.n; i++) {
        a.dk[i] = fuse_grad(x, op, 1 + i, &a);
        a.du[i] = fuse_grad(x, op, 1 + a.n + i, &a);
    }
    peft__rows(&x->run, a.rows, peft__op_grain(a.cols), fuse_back_rows, &a);
}

static uint32_t fuse_reads(const peft__tape *t, const peft__op *op) {
    (void)t;
    return ((1U << op->n_in) - 1) | 2U << PEFT__READS_OUT;
}

static const peft__op_kind fuse_kind = {"fuse", 0, fuse_reads, fuse_forward, fuse_backward, NULL, NULL};

peft__val peft__op_fuse(peft__tape *t, peft__val q, const peft__val *k, const peft__val *u, size_t n, bool temperature) {
    peft__val in[PEFT__OP_IN];
    if (n < 1 || n > FUSE_MOST) {
        peft__tape_fail(t, PEFT_E_UNSUPPORTED, "a fusion of %zu adapters, at most %d", n, (int)FUSE_MOST);
        return PEFT__NONE;
    }
    in[0] = q;
    memcpy(in + 1, k, n * sizeof *in);
    memcpy(in + 1 + n, u, n * sizeof *in);
    peft__op *op = peft__tape_push(t, &fuse_kind, (int32_t)(2 * n + 1), in);
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, q);
    op->i[0] = (int64_t)n;
    op->i[1] = temperature;
    peft__val out = peft__tape_out(t, op, v.space, v.fixed, v.cols);
    (void)peft__tape_out(t, op, v.space, v.fixed, (int64_t)n);
    return out;
}
