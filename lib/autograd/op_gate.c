/* op_gate.c - factors that a row of the batch has as a whole: gates (UniPELT, Mao et al. 2022, arXiv 2110.07577) and stochastic
 * depth (Huang et al. 2016, arXiv 1603.09382).
 *
 *   mean_gate  g[row, j] = mean over the row's tokens of sigmoid(w[j] x + b[j])
 *   keep       g[row, 0] = 1 / (1 - p), or 0 with probability p, drawn from (seed, step, row's id, site); 1 outside training
 *   row_scale  out = y * g[row]; with several columns in g, y's columns are as many equal stretches, one factor each
 *
 * The mean is over the tokens that are computed together, virtual ones included. Nothing is padded here, so that there is no
 * padding in it; a session that goes on with a row has only the new tokens. */
#include "autograd/ops.h"
#include "autograd/plan.h"

typedef struct gate_args {
    const peft__exec *x;
    const int64_t *offsets;
    const peft__real *in, *w, *b, *g, *d;
    peft__real *out, *dz;
    int64_t cols, gates, ld_in, ld_out, ld_gate;
    bool add, add_gate;
} gate_args;

static uint64_t gate_row_key(const peft__frame *f, int64_t row) { return f->row_keys != NULL ? f->row_keys[row] : (uint64_t)row; }

/* ---- mean_gate --------------------------------------------------------------------------------------------------------- */

static peft__real gate_at(const gate_args *a, int64_t token, int64_t j) {
    peft__real z = a->x->run.k->dot(a->in + token * a->ld_in, a->w + j * a->cols, a->cols);
    return 1 / (1 + peft__exp(-(z + (a->b != NULL ? a->b[j] : 0))));
}

static void gate_mean_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const gate_args *a = arg;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        int64_t first = a->offsets[r], n = a->offsets[r + 1] - first;
        for (int64_t j = 0; j < a->gates; j++) {
            peft__real sum = 0;
            for (int64_t t = first; t < first + n; t++) { sum += gate_at(a, t, j); }
            a->out[r * a->gates + j] = sum / (peft__real)PEFT__MAX(n, 1);
        }
    }
}

/* dz of each token, and dx (+)= dz w. */
static void gate_back_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const gate_args *a = arg;
    const peft__kernels *k = a->x->run.k;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        peft__real n = (peft__real)PEFT__MAX(a->offsets[r + 1] - a->offsets[r], 1);
        for (int64_t t = a->offsets[r]; t < a->offsets[r + 1]; t++) {
            peft__real *dx = a->out != NULL ? a->out + t * a->ld_out : NULL;
            for (int64_t j = 0; j < a->gates; j++) {
                peft__real s = gate_at(a, t, j), dz = a->d[r * a->gates + j] / n * s * (1 - s);
                a->dz[t * a->gates + j] = dz;
                if (dx == NULL) { continue; }
                if (a->add || j > 0) { k->axpy(dx, dz, a->w + j * a->cols, a->cols); } else { k->scale(dx, dz, a->w, a->cols); }
            }
        }
    }
}

static gate_args gate_gather(peft__exec *x, const peft__op *op) {
    gate_args a;
    const peft__value *in = peft__tape_value(x->tape, op->in[0]);
    memset(&a, 0, sizeof a);
    a.x = x;
    a.offsets = x->frame->offsets[in->space];
    a.in = peft__exec_data(x, op->in[0]);
    a.w = peft__exec_param(x, op->param[0]);
    a.b = peft__exec_param(x, op->param[1]);
    a.cols = in->cols;
    a.gates = peft__tape_value(x->tape, op->out[0])->cols;
    a.ld_in = peft__exec_ld(x, op->in[0]);
    return a;
}

static void gate_mean_forward(peft__exec *x, const peft__op *op) {
    gate_args a = gate_gather(x, op);
    a.out = peft__exec_data(x, op->out[0]);
    peft__rows(&x->run, x->frame->n_rows, 1, gate_mean_rows, &a);
}

static void gate_mean_backward(peft__exec *x, const peft__op *op) {
    gate_args a = gate_gather(x, op);
    int64_t tokens = peft__exec_rows(x, op->in[0]);
    peft__real *dw = peft__exec_param_grad(x, op->param[0]), *db = peft__exec_param_grad(x, op->param[1]);
    a.d = peft__exec_grad(x, op->out[0]);
    a.out = peft__exec_grad_out(x, op->in[0], &a.add);
    a.ld_out = a.ld_in;
    a.dz = (peft__real *)(void *)x->op_scratch;
    peft__rows(&x->run, x->frame->n_rows, 1, gate_back_rows, &a);
    if (dw != NULL) { peft__op_outer(x, dw, a.dz, a.gates, a.in, a.ld_in, tokens, a.gates, a.cols, 1); }
    if (db != NULL) { peft__op_column_sums(x, db, a.dz, a.gates, tokens, a.gates, 1); }
}

static uint32_t gate_mean_reads(const peft__tape *t, const peft__op *op) {
    (void)t;
    (void)op;
    return 1u;
}

static size_t gate_mean_scratch(const peft__tape *t, const peft__op *op, const peft__caps *caps) {
    const peft__value *in = peft__tape_value(t, op->in[0]);
    return (size_t)(peft__plan_rows(t, caps, in->space, in->fixed) * peft__tape_value(t, op->out[0])->cols) * sizeof(peft__real);
}

static const peft__op_kind gate_mean_kind = {"mean_gate", 0, gate_mean_reads, gate_mean_forward, gate_mean_backward, NULL,
                                             gate_mean_scratch};

peft__val peft__op_row_mean_gate(peft__tape *t, peft__val x, int32_t w_param, int32_t b_param) {
    peft__op *op = peft__tape_push(t, &gate_mean_kind, 1, &x);
    if (op == NULL) { return PEFT__NONE; }
    op->param[0] = w_param;
    op->param[1] = b_param;
    t->means = true;
    return peft__tape_out(t, op, PEFT__SPACE_ROWS, 0, peft__tape_param_at(t, w_param)->rows);
}

/* ---- keep -------------------------------------------------------------------------------------------------------------- */

static void gate_keep_forward(peft__exec *x, const peft__op *op) {
    const peft__frame *f = x->frame;
    const uint64_t *site = op->aux;
    peft__real *out = peft__exec_data(x, op->out[0]);
    double p = (double)op->f[0];
    for (int64_t r = 0; r < f->n_rows; r++) {
        uint64_t place[3] = {f->seed, f->step, gate_row_key(f, r)};
        peft__rng rng = {peft__hash_str(*site, (const char *)place, sizeof place), 0};
        out[r] = !x->training ? 1 : peft__rng_uniform(&rng) < p ? 0 : PEFT__R(1 / (1 - p));
    }
}

static void gate_keep_backward(peft__exec *x, const peft__op *op) {
    (void)x; /* depends on nothing that is trained */
    (void)op;
}

static const peft__op_kind gate_keep_kind = {"keep", 0, NULL, gate_keep_forward, gate_keep_backward, NULL, NULL};

peft__val peft__op_row_keep(peft__tape *t, double p, uint64_t site_key) {
    uint64_t *key = t->status == PEFT_OK ? peft__arena_alloc(&t->arena, sizeof *key) : NULL;
    if (key == NULL) {
        peft__tape_fail(t, PEFT_E_NOMEM, "%s", peft__fail_text());
        return PEFT__NONE;
    }
    peft__op *op = peft__tape_push(t, &gate_keep_kind, 0, NULL);
    if (op == NULL) { return PEFT__NONE; }
    *key = site_key;
    op->aux = key;
    op->f[0] = PEFT__R(p);
    return peft__tape_out(t, op, PEFT__SPACE_ROWS, 0, 1);
}

/* ---- row_scale --------------------------------------------------------------------------------------------------------- */

/* v * g over rows, v = y forward and dy backward; the sums of dy * y are g's gradients. */
static void gate_scale_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const gate_args *a = arg;
    const peft__kernels *k = a->x->run.k;
    int64_t width = a->cols / a->gates;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        for (int64_t j = 0; j < a->gates; j++) {
            peft__real g = a->g[r * a->ld_gate + j], sum = 0;
            for (int64_t t = a->offsets[r]; t < a->offsets[r + 1]; t++) {
                const peft__real *v = (a->d != NULL ? a->d + t * a->cols : a->in + t * a->ld_in) + j * width;
                peft__real *out = a->out != NULL ? a->out + t * a->ld_out + j * width : NULL;
                if (a->dz != NULL) { sum += k->dot(v, a->in + t * a->ld_in + j * width, width); }
                if (out == NULL) { continue; }
                if (a->add) { k->axpy(out, g, v, width); } else { k->scale(out, g, v, width); }
            }
            if (a->dz != NULL) { a->dz[r * a->ld_gate + j] = a->add_gate ? a->dz[r * a->ld_gate + j] + sum : sum; }
        }
    }
}

static gate_args gate_scale_gather(peft__exec *x, const peft__op *op) {
    gate_args a;
    const peft__value *y = peft__tape_value(x->tape, op->in[0]);
    memset(&a, 0, sizeof a);
    a.x = x;
    a.offsets = x->frame->offsets[y->space];
    a.in = peft__exec_data(x, op->in[0]);
    a.g = peft__exec_data(x, op->in[1]);
    a.cols = y->cols;
    a.gates = peft__tape_value(x->tape, op->in[1])->cols;
    a.ld_in = peft__exec_ld(x, op->in[0]);
    a.ld_gate = peft__exec_ld(x, op->in[1]);
    return a;
}

static void gate_scale_forward(peft__exec *x, const peft__op *op) {
    gate_args a = gate_scale_gather(x, op);
    a.out = peft__exec_data(x, op->out[0]);
    a.ld_out = a.cols;
    peft__rows(&x->run, x->frame->n_rows, 1, gate_scale_rows, &a);
}

static void gate_scale_backward(peft__exec *x, const peft__op *op) {
    gate_args a = gate_scale_gather(x, op);
    a.d = peft__exec_grad(x, op->out[0]);
    a.dz = peft__exec_grad_out(x, op->in[1], &a.add_gate);
    a.out = peft__exec_grad_out(x, op->in[0], &a.add);
    a.ld_out = a.ld_in;
    peft__rows(&x->run, x->frame->n_rows, 1, gate_scale_rows, &a);
}

static uint32_t gate_scale_reads(const peft__tape *t, const peft__op *op) {
    return (peft__tape_value(t, op->in[1])->needs_grad ? 1u : 0) | 2u;
}

static const peft__op_kind gate_scale_kind = {"row_scale", 0, gate_scale_reads, gate_scale_forward, gate_scale_backward, NULL,
                                              NULL};

peft__val peft__op_row_scale(peft__tape *t, peft__val y, peft__val g) {
    peft__val in[2] = {y, g};
    peft__op *op = peft__tape_push(t, &gate_scale_kind, 2, in);
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, y);
    if (v.cols % peft__tape_value(t, g)->cols != 0) {
        peft__tape_fail(t, PEFT_E_SHAPE, "%lld columns are no %lld equal stretches", (long long)v.cols,
                        (long long)peft__tape_value(t, g)->cols);
        return PEFT__NONE;
    }
    return peft__tape_out(t, op, v.space, v.fixed, v.cols);
}

peft__val peft__op_row_gate(peft__tape *t, peft__val y, peft__val x, int32_t w_param, int32_t b_param) {
    return peft__op_row_scale(t, y, peft__op_row_mean_gate(t, x, w_param, b_param));
}
