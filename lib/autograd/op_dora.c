/* op_dora.c - a product whose rows are given new lengths (DoRA, Liu et al. 2024, arXiv 2402.09353, eq. 5 and 11).
 *
 *   V = W + s B A,  n_i = |V_i|,  c = m / n:   y' = y + (c - 1) o z
 *   dm = sum over rows of dy o z / n,   dz = (c - 1) o dy,   dy passes on
 *
 * z is the product without its bias: a value of its own, or y - b. n counts as a constant in the backward pass, as in section 4.3
 * of the paper. It is computed without forming V, at the cost of a product of r rows, and again only when A or B has changed:
 *   n_i^2 = |W_i|^2 + 2 s B_i (A W_i) + s^2 B_i (A A') B_i'
 * |W_i|^2 is computed when the op is recorded. */
#include <math.h>

#include "autograd/ops.h"

enum { DORA_M = 0, DORA_A = 1, DORA_B = 2, DORA_BIAS = 3 };

/* What the op keeps between passes, in the tape's arena. */
typedef struct dora_kept {
    const double *squares;          /* [out] |W_i|^2 */
    peft__real *n, *a, *b;          /* norms [out], and the A and B that they are of */
    bool *valid;                    /* is there such a pair yet */
} dora_kept;

typedef struct dora_args {
    const peft__exec *x;
    const peft__op *op;
    const dora_kept *kept;
    const peft__real *a, *b, *m, *bias; /* bias [out], or NULL: none or not wanted */
    peft__real *n, *c, *aw, *aa;    /* [out], [out] m / n, [r, out] A W', [r, r] A A' */
    int64_t out, in, r, rows;
    double scale;
    const peft__real *y, *z, *dy;   /* z NULL: y - bias */
    peft__real *to, *dm;
    bool add;
} dora_args;

static void dora_norm_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const dora_args *d = arg;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        const peft__real *b = d->b + i * d->r;
        double sum = d->kept->squares[i];
        for (int64_t p = 0; p < d->r; p++) {
            double cross = 2 * (double)d->aw[p * d->out + i];
            for (int64_t q = 0; q < d->r; q++) { cross += d->scale * (double)d->aa[p * d->r + q] * (double)b[q]; }
            sum += d->scale * (double)b[p] * cross;
        }
        d->n[i] = PEFT__R(sqrt(fmax(sum, 1e-30)));
    }
}

static void dora_norms(dora_args *d) {
    size_t a_bytes = (size_t)(d->r * d->in) * sizeof *d->a, b_bytes = (size_t)(d->out * d->r) * sizeof *d->b;
    const dora_kept *kept = d->kept;
    if (*kept->valid && memcmp(kept->a, d->a, a_bytes) == 0 && memcmp(kept->b, d->b, b_bytes) == 0) { return; }
    peft__gemm_args g;
    memset(&g, 0, sizeof g);
    g.m = d->r;
    g.n = d->out;
    g.k = d->in;
    g.a = d->a;
    g.lda = d->in;
    g.b = peft__weight_forward(d->op->weight);
    g.b.frozen = false; /* norms are exact whatever the products are */
    g.c = d->aw;
    g.ldc = d->out;
    g.alpha = 1;
    peft__gemm(&d->x->run, &g);
    g.n = d->r;
    g.b = peft__real_forward(d->a, d->in);
    g.c = d->aa;
    g.ldc = d->r;
    peft__gemm(&d->x->run, &g);
    peft__rows(&d->x->run, d->out, 64, dora_norm_rows, d);
    memcpy(kept->a, d->a, a_bytes);
    memcpy(kept->b, d->b, b_bytes);
    *kept->valid = true;
}

/* Lays out the scratch and fills n and c. */
static dora_args dora_gather(peft__exec *x, const peft__op *op) {
    dora_args d;
    memset(&d, 0, sizeof d);
    d.x = x;
    d.op = op;
    d.kept = op->aux;
    d.m = peft__exec_param(x, op->param[DORA_M]);
    d.a = peft__exec_param(x, op->param[DORA_A]);
    d.b = peft__exec_param(x, op->param[DORA_B]);
    d.bias = op->param[DORA_BIAS] != PEFT__NONE ? peft__exec_param(x, op->param[DORA_BIAS]) : op->vec;
    d.out = op->weight->rows;
    d.in = op->weight->cols;
    d.r = peft__tape_param_at(x->tape, op->param[DORA_A])->rows;
    d.rows = peft__exec_rows(x, op->in[0]);
    d.scale = (double)op->f[0];
    d.n = d.kept->n;
    d.c = (peft__real *)(void *)x->op_scratch;
    d.aw = d.c + d.out;
    d.aa = d.aw + d.r * d.out;
    dora_norms(&d);
    for (int64_t i = 0; i < d.out; i++) { d.c[i] = d.m[i] / d.n[i]; }
    return d;
}

static void dora_forward_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const dora_args *d = arg;
    (void)worker;
    for (int64_t t = begin; t < end; t++) {
        const peft__real *y = d->y + t * d->out, *z = d->z != NULL ? d->z + t * d->out : NULL;
        peft__real *to = d->to + t * d->out;
        for (int64_t i = 0; i < d->out; i++) {
            peft__real plain = z != NULL ? z[i] : d->bias != NULL ? y[i] - d->bias[i] : y[i];
            to[i] = y[i] + (d->c[i] - 1) * plain;
        }
    }
}

static void dora_forward(peft__exec *x, const peft__op *op) {
    dora_args d = dora_gather(x, op);
    d.y = peft__exec_data(x, op->in[0]);
    d.z = op->n_in > 1 ? peft__exec_data(x, op->in[1]) : NULL;
    d.to = peft__exec_data(x, op->out[0]);
    peft__rows(&x->run, d.rows, peft__op_grain(d.out), dora_forward_rows, &d);
}

static void dora_back_columns(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const dora_args *d = arg;
    (void)worker;
    for (int64_t t = 0; t < d->rows; t++) { /* rows in order: the sum does not depend on who does it */
        const peft__real *dy = d->dy + t * d->out, *from = (d->z != NULL ? d->z : d->y) + t * d->out;
        for (int64_t i = begin; i < end; i++) {
            peft__real plain = d->z == NULL && d->bias != NULL ? from[i] - d->bias[i] : from[i];
            d->dm[i] += dy[i] * plain / d->n[i];
        }
    }
}

/* to (+)= dy o (c - 1), or dy o c where z is y itself */
static void dora_back_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const dora_args *d = arg;
    (void)worker;
    for (int64_t t = begin; t < end; t++) {
        const peft__real *dy = d->dy + t * d->out;
        peft__real *to = d->to + t * d->out;
        for (int64_t i = 0; i < d->out; i++) {
            peft__real v = dy[i] * (d->z != NULL ? d->c[i] - 1 : d->c[i]);
            to[i] = d->add ? to[i] + v : v;
        }
    }
}

static void dora_bias_columns(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const dora_args *d = arg;
    (void)worker;
    for (int64_t t = 0; t < d->rows; t++) {
        for (int64_t i = begin; i < end; i++) { d->dm[i] += d->dy[t * d->out + i] * (1 - d->c[i]); }
    }
}

static void dora_backward(peft__exec *x, const peft__op *op) {
    dora_args d = dora_gather(x, op);
    bool apart = op->n_in > 1;
    d.dy = peft__exec_grad(x, op->out[0]);
    d.y = apart ? NULL : peft__exec_data(x, op->in[0]);
    d.z = apart ? peft__exec_data(x, op->in[1]) : NULL;
    d.dm = peft__exec_param_grad(x, op->param[DORA_M]);
    if (d.dm != NULL) { peft__rows(&x->run, d.out, 64, dora_back_columns, &d); }
    d.dm = apart ? NULL : peft__exec_param_grad(x, op->param[DORA_BIAS]);
    if (d.dm != NULL) { peft__rows(&x->run, d.out, 64, dora_bias_columns, &d); }
    d.to = peft__exec_grad_out(x, op->in[apart ? 1 : 0], &d.add);
    if (d.to != NULL) { peft__rows(&x->run, d.rows, peft__op_grain(d.out), dora_back_rows, &d); }
    if (apart) { peft__op_pass_grad(x, op, 0); }
}

static uint32_t dora_reads(const peft__tape *t, const peft__op *op) {
    (void)t;
    return op->n_in > 1 ? 2u : 1u;
}

static double dora_flops(const peft__tape *t, const peft__op *op, const peft__caps *caps, bool backward) {
    double r = (double)peft__tape_param_at(t, op->param[DORA_A])->rows;
    double once = 2 * r * (double)op->weight->rows * (double)op->weight->cols;
    (void)backward;
    return once / (double)PEFT__MAX(caps->max_tokens, 1);
}

static size_t dora_scratch(const peft__tape *t, const peft__op *op, const peft__caps *caps) {
    size_t r = (size_t)peft__tape_param_at(t, op->param[DORA_A])->rows, out = (size_t)op->weight->rows;
    (void)caps;
    return (out + r * out + r * r) * sizeof(peft__real);
}

static const peft__op_kind dora_kind = {"dora", 0, dora_reads, dora_forward, dora_backward, dora_flops, dora_scratch};

/* [rows] squares of the rows of W; NULL after an error. */
static const double *dora_squares(peft__tape *t, const peft__weight *w) {
    double *squares = peft__arena_alloc(&t->arena, (size_t)w->rows * sizeof *squares);
    peft__real *row = peft__alloc(t->mem, (size_t)w->cols * sizeof *row);
    if (squares == NULL || row == NULL) {
        peft__tape_fail(t, PEFT_E_NOMEM, "%s", peft__fail_text());
        squares = NULL;
        goto out;
    }
    for (int64_t i = 0; i < w->rows; i++) { /* with the generic kernels: the same number whatever the CPU */
        peft__weight_row(&peft__kernels_generic, w, i, row);
        squares[i] = peft__kernels_generic.sum_sq(row, w->cols);
    }
out:
    if (row != NULL) { peft__free(t->mem, row, (size_t)w->cols * sizeof *row); }
    return squares;
}

/* NULL after an error. */
static const dora_kept *dora_keep(peft__tape *t, const peft__weight *w, int64_t r) {
    dora_kept *kept = peft__arena_alloc(&t->arena, sizeof *kept);
    peft__real *room = peft__arena_alloc(&t->arena, (size_t)(w->rows + r * (w->rows + w->cols)) * sizeof *room);
    bool *valid = peft__arena_alloc(&t->arena, sizeof *valid);
    if (kept == NULL || room == NULL || valid == NULL) {
        peft__tape_fail(t, PEFT_E_NOMEM, "%s", peft__fail_text());
        return NULL;
    }
    *valid = false;
    *kept = (dora_kept){dora_squares(t, w), room, room + w->rows, room + w->rows + r * w->cols, valid};
    return kept->squares != NULL ? kept : NULL;
}

peft__val peft__op_dora(peft__tape *t, peft__val y, peft__val z, const peft__weight *w, const peft__real *b, int32_t b_param,
                        const int32_t params[3], double scale) {
    peft__val in[2] = {y, z};
    const dora_kept *kept = t->status == PEFT_OK ? dora_keep(t, w, peft__tape_param_at(t, params[1])->rows) : NULL;
    if (kept == NULL) { return PEFT__NONE; }
    peft__op *op = peft__tape_push(t, &dora_kind, z != PEFT__NONE ? 2 : 1, in);
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, y);
    op->weight = w;
    op->vec = b;
    op->aux = kept;
    op->f[0] = PEFT__R(scale);
    op->param[DORA_M] = params[0];
    op->param[DORA_A] = params[1];
    op->param[DORA_B] = params[2];
    op->param[DORA_BIAS] = b_param;
    return peft__tape_out(t, op, v.space, v.fixed, v.cols);
}
