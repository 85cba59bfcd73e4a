/* op_phm.c - parameterised hypercomplex multiplication: a product with a sum of Kronecker products (Zhang et al. 2021, arXiv
 * 2102.08597, eq. 2; with low-rank W_i: Compacter, Mahabadi et al. 2021, 2106.04647, eq. 5).
 *
 *   y = x H + b,  H [in, out] = sum over i of R_i (x) W_i,  R_i [n, n],  W_i [in / n, out / n],  i < n
 *   H[a P + p, b Q + q] = sum over i of R_i[a, b] W_i[p, q],  P = in / n, Q = out / n
 *
 * R_i may be given as a column times a row, W_i as [P, r] times [r, Q]. With G = x' dy, which lies in the op's scratch as H does:
 *   dR_i[a, b] = sum over p, q of G[a P + p, b Q + q] W_i[p, q],  dW_i[p, q] = sum over a, b of R_i[a, b] G[a P + p, b Q + q] */
#include "autograd/ops.h"

enum { PHM_RULE = 0, PHM_RULE_RIGHT = 1, PHM_W = 2, PHM_W_RIGHT = 3, PHM_BIAS = 4 };

typedef struct phm_args {
    const peft__kernels *k;
    int64_t n, in, out, rank, p, q;  /* rank 0: W is whole */
    const peft__real *given[5];      /* parameters by PHM_* */
    peft__real *grad[5];
    peft__real *h, *w, *rule;        /* [in, out], [n P, Q], [n, n, n] */
    peft__real *g, *dw, *drule;      /* their gradients */
} phm_args;

/* ---- H ----------------------------------------------------------------------------------------------------------------- */

/* Rows of W, row i P + p, if it is given by factors. */
static void phm_form_w(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const phm_args *a = arg;
    (void)worker;
    for (int64_t row = begin; row < end; row++) {
        const peft__real *left = a->given[PHM_W] + row * a->rank;
        const peft__real *right = a->given[PHM_W_RIGHT] + row / a->p * a->rank * a->q;
        a->k->scale(a->w + row * a->q, left[0], right, a->q);
        for (int64_t r = 1; r < a->rank; r++) { a->k->axpy(a->w + row * a->q, left[r], right + r * a->q, a->q); }
    }
}

/* Rows of H, row a P + p. */
static void phm_form_h(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const phm_args *a = arg;
    int64_t n = a->n;
    (void)worker;
    for (int64_t row = begin; row < end; row++) {
        for (int64_t b = 0; b < n; b++) {
            peft__real *h = a->h + row * a->out + b * a->q;
            for (int64_t i = 0; i < n; i++) {
                peft__real f = a->rule[(i * n + row / a->p) * n + b];
                const peft__real *w = a->w + (i * a->p + row % a->p) * a->q;
                if (i == 0) { a->k->scale(h, f, w, a->q); } else { a->k->axpy(h, f, w, a->q); }
            }
        }
    }
}

static void phm_form_rule(phm_args *a) {
    int64_t n = a->n;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t r = 0; r < n; r++) {
            a->k->scale(a->rule + (i * n + r) * n, a->given[PHM_RULE][i * n + r], a->given[PHM_RULE_RIGHT] + i * n, n);
        }
    }
}

static size_t phm_scratch_reals(const int64_t *i) {
    int64_t n = i[0], in = i[1], out = i[2];
    return (size_t)(2 * (in * out + in * (out / n) + n * n * n));
}

static phm_args phm_gather(peft__exec *x, const peft__op *op) {
    phm_args a;
    memset(&a, 0, sizeof a);
    a.k = x->run.k;
    a.n = op->i[0];
    a.in = op->i[1];
    a.out = op->i[2];
    a.rank = op->i[3];
    a.p = a.in / a.n;
    a.q = a.out / a.n;
    for (int32_t j = 0; j < 5; j++) {
        a.given[j] = peft__exec_param(x, op->param[j]);
        a.grad[j] = peft__exec_param_grad(x, op->param[j]);
    }
    a.h = (peft__real *)(void *)x->op_scratch;
    a.g = a.h + a.in * a.out;
    a.w = a.g + a.in * a.out;
    a.dw = a.w + a.in * a.q;
    a.rule = a.dw + a.in * a.q;
    a.drule = a.rule + a.n * a.n * a.n;
    if (a.rank > 0) {
        peft__rows(&x->run, a.in, peft__op_grain(a.q * a.rank), phm_form_w, &a);
    } else {
        memcpy(a.w, a.given[PHM_W], (size_t)(a.in * a.q) * sizeof *a.w);
    }
    if (a.given[PHM_RULE_RIGHT] != NULL) {
        phm_form_rule(&a);
    } else {
        memcpy(a.rule, a.given[PHM_RULE], (size_t)(a.n * a.n * a.n) * sizeof *a.rule);
    }
    peft__rows(&x->run, a.in, peft__op_grain(a.out * a.n), phm_form_h, &a);
    return a;
}

/* ---- its gradients ------------------------------------------------------------------------------------------------------- */

/* Rows of dW, row i P + p; and those of the left factor, which the same row of dW makes. */
static void phm_back_w(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const phm_args *a = arg;
    int64_t n = a->n;
    (void)worker;
    for (int64_t row = begin; row < end; row++) {
        int64_t i = row / a->p, p = row % a->p;
        peft__real *dw = a->dw + row * a->q;
        memset(dw, 0, (size_t)a->q * sizeof *dw);
        for (int64_t r = 0; r < n * n; r++) {
            a->k->axpy(dw, a->rule[i * n * n + r], a->g + (r / n * a->p + p) * a->out + r % n * a->q, a->q);
        }
        if (a->rank == 0) {
            if (a->grad[PHM_W] != NULL) { a->k->add(a->grad[PHM_W] + row * a->q, a->grad[PHM_W] + row * a->q, dw, a->q); }
            continue;
        }
        const peft__real *right = a->given[PHM_W_RIGHT] + i * a->rank * a->q;
        for (int64_t r = 0; r < a->rank && a->grad[PHM_W] != NULL; r++) {
            a->grad[PHM_W][row * a->rank + r] += a->k->dot(dw, right + r * a->q, a->q);
        }
    }
}

/* Rows of the right factor's gradient, row i r + c. */
static void phm_back_w_right(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const phm_args *a = arg;
    (void)worker;
    for (int64_t row = begin; row < end; row++) {
        int64_t i = row / a->rank, c = row % a->rank;
        for (int64_t p = i * a->p; p < (i + 1) * a->p; p++) {
            a->k->axpy(a->grad[PHM_W_RIGHT] + row * a->q, a->given[PHM_W][p * a->rank + c], a->dw + p * a->q, a->q);
        }
    }
}

/* Elements of dR, i n n + a n + b. */
static void phm_back_rule(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const phm_args *a = arg;
    int64_t n = a->n;
    (void)worker;
    for (int64_t e = begin; e < end; e++) {
        int64_t i = e / (n * n), r = e / n % n, b = e % n;
        peft__real sum = 0;
        for (int64_t p = 0; p < a->p; p++) {
            sum += a->k->dot(a->g + (r * a->p + p) * a->out + b * a->q, a->w + (i * a->p + p) * a->q, a->q);
        }
        a->drule[e] = sum;
    }
}

static void phm_give_rule(const phm_args *a) {
    int64_t n = a->n;
    if (a->given[PHM_RULE_RIGHT] == NULL) {
        a->k->add(a->grad[PHM_RULE], a->grad[PHM_RULE], a->drule, n * n * n);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        const peft__real *right = a->given[PHM_RULE_RIGHT] + i * n;
        for (int64_t r = 0; r < n; r++) {
            const peft__real *d = a->drule + (i * n + r) * n;
            a->grad[PHM_RULE][i * n + r] += a->k->dot(d, right, n);
            a->k->axpy(a->grad[PHM_RULE_RIGHT] + i * n, a->given[PHM_RULE][i * n + r], d, n);
        }
    }
}

/* ---- the op -------------------------------------------------------------------------------------------------------------- */

static void phm_forward(peft__exec *x, const peft__op *op) {
    phm_args a = phm_gather(x, op);
    peft__gemm_args g;
    memset(&g, 0, sizeof g);
    g.m = peft__exec_rows(x, op->in[0]);
    g.n = a.out;
    g.k = a.in;
    g.a = peft__exec_data(x, op->in[0]);
    g.lda = peft__exec_ld(x, op->in[0]);
    g.b = peft__real_backward(a.h, a.out); /* H is stored as [in][out] */
    g.c = peft__exec_data(x, op->out[0]);
    g.ldc = a.out;
    g.alpha = 1;
    g.bias = a.given[PHM_BIAS];
    peft__gemm(&x->run, &g);
}

static void phm_backward(peft__exec *x, const peft__op *op) {
    phm_args a = phm_gather(x, op);
    int64_t rows = peft__exec_rows(x, op->in[0]), ld = peft__exec_ld(x, op->in[0]);
    const peft__real *in = peft__exec_data(x, op->in[0]), *dy = peft__exec_grad(x, op->out[0]);
    bool add = false;
    peft__real *dx = peft__exec_grad_out(x, op->in[0], &add);
    if (dx != NULL) {
        peft__gemm_args g;
        memset(&g, 0, sizeof g);
        g.m = rows;
        g.n = a.in;
        g.k = a.out;
        g.a = dy;
        g.lda = a.out;
        g.b = peft__real_forward(a.h, a.out);
        g.c = dx;
        g.ldc = ld;
        g.alpha = 1;
        g.accumulate = add;
        peft__gemm(&x->run, &g);
    }
    if (a.grad[PHM_BIAS] != NULL) { peft__op_column_sums(x, a.grad[PHM_BIAS], dy, a.out, rows, a.out, 1); }
    if (a.grad[PHM_RULE] == NULL && a.grad[PHM_W] == NULL) { return; }
    memset(a.g, 0, (size_t)(a.in * a.out) * sizeof *a.g);
    peft__op_outer(x, a.g, in, ld, dy, a.out, rows, a.in, a.out, 1);
    peft__rows(&x->run, a.in, peft__op_grain(a.q * a.n * a.n), phm_back_w, &a);
    if (a.rank > 0 && a.grad[PHM_W_RIGHT] != NULL) { peft__rows(&x->run, a.n * a.rank, 1, phm_back_w_right, &a); }
    if (a.grad[PHM_RULE] != NULL) {
        peft__rows(&x->run, a.n * a.n * a.n, 1, phm_back_rule, &a);
        phm_give_rule(&a);
    }
}

static uint32_t phm_reads(const peft__tape *t, const peft__op *op) {
    (void)t;
    (void)op;
    return 1u;
}

static double phm_flops(const peft__tape *t, const peft__op *op, const peft__caps *caps, bool backward) {
    (void)t;
    (void)caps;
    return (backward ? 4.0 : 2.0) * (double)op->i[1] * (double)op->i[2];
}

static size_t phm_scratch(const peft__tape *t, const peft__op *op, const peft__caps *caps) {
    (void)t;
    (void)caps;
    return phm_scratch_reals(op->i) * sizeof(peft__real);
}

static const peft__op_kind phm_kind = {"phm", 0, phm_reads, phm_forward, phm_backward, phm_flops, phm_scratch};

peft__val peft__op_phm(peft__tape *t, peft__val x, const int32_t params[5], int64_t n, int64_t out) {
    peft__op *op = peft__tape_push(t, &phm_kind, 1, &x);
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, x);
    for (int32_t j = 0; j < 5; j++) { op->param[j] = params[j]; }
    op->i[0] = n;
    op->i[1] = v.cols;
    op->i[2] = out;
    op->i[3] = params[PHM_W_RIGHT] != PEFT__NONE ? peft__tape_param_at(t, params[PHM_W])->cols : 0;
    return peft__tape_out(t, op, v.space, v.fixed, out);
}
