/* op_head.c - the output projection with what comes of it, chunk by chunk: full logits never exist.
 *
 *   logits = scale * (x W' + b) + s (x A') B',  softly capped: c tanh(logits / c)
 *   loss_t = lse(logits_t) - (1 - e) logits_t[label_t] - e mean(logits_t)          (e: label smoothing, Szegedy et al. 2016)
 *   d logits_t = g (softmax(logits_t) - (1 - e) onehot - e / V),  g = loss_scale * weight_t
 *
 * rows_param holds rows that stand in for some of W's, or go on after its last: logits_j = scale * x . rows_i + ... for j =
 * row_ids[i]. W's own columns there count for nothing.
 *
 * An op with a group has the tokens of that group's rows alone: branches of adapters may have heads of their own.
 *
 * Tokens without a label are never projected. In training, loss and gradient are computed in one go at the start of the
 * backward pass (the idea of "fused linear cross-entropy"). For sessions the same op writes logits of chosen tokens. */
#include <math.h>

#include "autograd/ops.h"

enum { HEAD_W = 0, HEAD_B = 1, HEAD_A2 = 2, HEAD_B2 = 3, HEAD_ROWS = 4 };
enum { HEAD_BLOCK = 512 }; /* capped logits at a time */

/* One chunk: up to PEFT__OP_HEAD_ROWS gathered tokens. Places in the op's scratch. */
typedef struct head_chunk {
    peft__exec *x;
    const peft__op *op;
    const peft__head_spec *spec;
    int64_t rows, cols, vocab, rank;         /* vocab: with the new ones */
    peft__real *in, *logits, *d_in, *h, *dh; /* [rows, cols], [rows, vocab], [rows, cols], [rows, rank] x 2 */
    peft__real *own;                         /* [rows, n_rows]: logits of rows_param, or their gradients */
    double *loss, *nll;                      /* [rows] */
    int64_t *token;                          /* [rows]: index in the batch */
    int64_t *place;                          /* [rows]: which of the wanted logits it is; for the host's loss: its token in its row */
    int64_t *row;                            /* [rows]: the batch's, for the host's loss */
    int32_t *label;                          /* [rows]: the same */
    bool *correct;                           /* [rows] */
    bool gradient;
} head_chunk;

static int64_t head_rows(const peft__caps *caps, int64_t vocab) {
    int64_t by_bytes = ((int64_t)64 << 20) / ((int64_t)sizeof(peft__real) * vocab); /* logits of a chunk: at most 64 MiB */
    int64_t rows = PEFT__MAX(PEFT__MIN(by_bytes, PEFT__OP_HEAD_ROWS), 16);
    return PEFT__MAX(PEFT__MIN(rows, caps->max_tokens), 1);
}

static int64_t head_rank(const peft__tape *t, const peft__op *op) {
    return op->param[HEAD_A2] == PEFT__NONE ? 0 : peft__tape_param_at(t, op->param[HEAD_A2])->rows;
}

static void *head_take(uint8_t **at, size_t bytes) {
    void *p = *at;
    *at += (bytes + 63) & ~(size_t)63;
    return p;
}

static size_t head_scratch(const peft__tape *t, const peft__op *op, const peft__caps *caps) {
    const peft__head_spec *s = op->aux;
    size_t rows = (size_t)head_rows(caps, s->vocab + s->extra), cols = (size_t)peft__tape_value(t, op->in[0])->cols;
    size_t reals = 2 * cols + (size_t)(s->vocab + s->extra + s->n_rows) + 2 * (size_t)head_rank(t, op);
    return rows * (reals * sizeof(peft__real) + 2 * sizeof(double) + 3 * sizeof(int64_t) + sizeof(int32_t) + sizeof(bool)) + 13 * 64;
}

static head_chunk head_layout(peft__exec *x, const peft__op *op) {
    head_chunk c;
    uint8_t *at = x->op_scratch;
    memset(&c, 0, sizeof c);
    c.x = x;
    c.op = op;
    c.spec = op->aux;
    c.cols = peft__tape_value(x->tape, op->in[0])->cols;
    c.vocab = c.spec->vocab + c.spec->extra;
    c.rank = head_rank(x->tape, op);
    size_t n = (size_t)head_rows(&x->plan->caps, c.vocab);
    c.in = head_take(&at, n * (size_t)c.cols * sizeof(peft__real));
    c.d_in = head_take(&at, n * (size_t)c.cols * sizeof(peft__real));
    c.logits = head_take(&at, n * (size_t)c.vocab * sizeof(peft__real));
    c.h = head_take(&at, n * (size_t)c.rank * sizeof(peft__real));
    c.dh = head_take(&at, n * (size_t)c.rank * sizeof(peft__real));
    c.own = head_take(&at, n * (size_t)c.spec->n_rows * sizeof(peft__real));
    c.loss = head_take(&at, n * sizeof(double));
    c.nll = head_take(&at, n * sizeof(double));
    c.token = head_take(&at, n * sizeof(int64_t));
    c.place = head_take(&at, n * sizeof(int64_t));
    c.row = head_take(&at, n * sizeof(int64_t));
    c.label = head_take(&at, n * sizeof(int32_t));
    c.correct = head_take(&at, n * sizeof(bool));
    return c;
}

/* out[rows, n of ldc] (+)= alpha a[rows, k of lda] b */
static void head_product(const head_chunk *c, peft__real *out, int64_t n, int64_t ldc, const peft__real *a, int64_t k,
                         int64_t lda, peft__operand b, peft__real alpha, bool add) {
    peft__gemm_args g;
    memset(&g, 0, sizeof g);
    g.m = c->rows;
    g.n = n;
    g.k = k;
    g.a = a;
    g.lda = lda;
    g.b = b;
    g.c = out;
    g.ldc = ldc;
    g.alpha = alpha;
    g.accumulate = add;
    peft__gemm(&c->x->run, &g);
}

static void head_cap_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const head_chunk *c = arg;
    peft__real cap = PEFT__R(c->spec->softcap);
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        peft__real *l = c->logits + r * c->vocab;
        c->x->run.k->scale(l, 1 / cap, l, c->vocab);
        c->x->run.k->act(PEFT__ACT_TANH, l, l, c->vocab);
        c->x->run.k->scale(l, cap, l, c->vocab);
    }
}

static void head_bias_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const head_chunk *c = arg;
    const peft__real *trained = peft__exec_param(c->x, c->op->param[HEAD_B]);
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        peft__real *l = c->logits + r * c->vocab;
        c->x->run.k->axpy(l, PEFT__R(c->spec->scale), trained != NULL ? trained : c->spec->bias, c->spec->vocab);
    }
}

/* Columns of logits that are those of rows_param: into `own`, with zeros left in their places, or from there. */
static void head_take_own(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const head_chunk *c = arg;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        for (int64_t i = 0; i < c->spec->n_rows; i++) {
            peft__real *l = c->logits + r * c->vocab + c->spec->row_ids[i];
            c->own[r * c->spec->n_rows + i] = *l;
            *l = 0;
        }
    }
}

static void head_put_own(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const head_chunk *c = arg;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        for (int64_t i = 0; i < c->spec->n_rows; i++) {
            c->logits[r * c->vocab + c->spec->row_ids[i]] = c->own[r * c->spec->n_rows + i];
        }
    }
}

static void head_own_logits(head_chunk *c) {
    const peft__real *own = peft__exec_param(c->x, c->op->param[HEAD_ROWS]);
    int64_t n = c->spec->n_rows;
    head_product(c, c->own, n, n, c->in, c->cols, c->cols, peft__real_forward(own, c->cols), PEFT__R(c->spec->scale), false);
    peft__rows(&c->x->run, c->rows, 1, head_put_own, c);
}

/* Gathers the chunk's tokens and computes their logits. */
static void head_logits(head_chunk *c) {
    peft__exec *x = c->x;
    int64_t vocab = c->spec->vocab; /* of the matrix */
    const peft__real *data = peft__exec_data(x, c->op->in[0]), *w = peft__exec_param(x, c->op->param[HEAD_W]);
    int64_t ld = peft__exec_ld(x, c->op->in[0]);
    for (int64_t r = 0; r < c->rows; r++) {
        memcpy(c->in + r * c->cols, data + c->token[r] * ld, (size_t)c->cols * sizeof *data);
    }
    peft__operand b = w != NULL ? peft__real_forward(w, c->cols) : peft__weight_forward(c->spec->weight);
    head_product(c, c->logits, vocab, c->vocab, c->in, c->cols, c->cols, b, PEFT__R(c->spec->scale), false);
    if (c->spec->n_rows > 0) { head_own_logits(c); }
    if (c->rank > 0) {
        const peft__real *a2 = peft__exec_param(x, c->op->param[HEAD_A2]), *b2 = peft__exec_param(x, c->op->param[HEAD_B2]);
        head_product(c, c->h, c->rank, c->rank, c->in, c->cols, c->cols, peft__real_forward(a2, c->cols), 1, false);
        head_product(c, c->logits, vocab, c->vocab, c->h, c->rank, c->rank, peft__real_forward(b2, c->rank),
                     PEFT__R(c->spec->lora_scale * c->spec->scale), true);
    }
    if (c->spec->bias != NULL || c->op->param[HEAD_B] != PEFT__NONE) {
        peft__rows(&x->run, c->rows, 1, head_bias_rows, c);
    }
    if (c->spec->softcap > 0) { peft__rows(&x->run, c->rows, 1, head_cap_rows, c); }
}

/* Sum of exp(l - top) over n capped logits, which stay as they are. */
static peft__real head_capped_sum(const peft__kernels *k, const peft__real *l, int64_t n, peft__real top) {
    peft__real p[HEAD_BLOCK], sum = 0;
    for (int64_t at = 0; at < n; at += HEAD_BLOCK) { sum += k->exp_sum(p, l + at, 1, top, PEFT__MIN(n - at, HEAD_BLOCK)); }
    return sum;
}

/* n capped logits l = cap tanh(x / cap) become g (p - even) (1 - (l / cap)^2), p = exp(l - top) / sum: d x but for the label. */
static void head_capped_gradient(const peft__kernels *k, peft__real *l, int64_t n, peft__real top, peft__real sum, peft__real g,
                                 peft__real even, peft__real cap) {
    peft__real p[HEAD_BLOCK], square[HEAD_BLOCK];
    for (int64_t at = 0; at < n; at += HEAD_BLOCK, l += HEAD_BLOCK) {
        const int64_t m = PEFT__MIN(n - at, HEAD_BLOCK);
        (void)k->exp_sum(p, l, 1, top, m);
        k->scale(p, g / sum, p, m);
        for (int64_t j = 0; even > 0 && j < m; j++) { p[j] -= g * even; }
        k->mul(square, l, l, m);
        k->mul(square, square, p, m);
        memcpy(l, p, (size_t)m * sizeof *l);
        k->axpy(l, -1 / (cap * cap), square, m);
    }
}

/* Loss of each row; with a gradient, its logits become d logits. */
static void head_loss_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    head_chunk *c = arg;
    const peft__frame *f = c->x->frame;
    const peft__kernels *k = c->x->run.k;
    peft__real e = PEFT__R(f->label_smoothing), cap = PEFT__R(c->spec->softcap), n = (peft__real)c->vocab;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        peft__real *l = c->logits + r * c->vocab;
        int32_t label = f->labels[c->token[r]];
        peft__real top = k->max(l, c->vocab), at_label = l[label], weight = 1;
        peft__real mean = e > 0 ? k->sum(l, c->vocab) / n : 0;
        if (f->weights != NULL) { weight = (peft__real)f->weights[c->token[r]]; }
        c->correct[r] = at_label >= top;
        peft__real sum = cap > 0 ? head_capped_sum(k, l, c->vocab, top) : k->exp_sum(l, l, 1, top, c->vocab);
        double lse = (double)top + (double)peft__ln(sum);
        c->nll[r] = (lse - (double)at_label) * (double)weight;
        c->loss[r] = (lse - (1 - (double)e) * (double)at_label - (double)e * (double)mean) * (double)weight;
        if (!c->gradient) { continue; }
        peft__real g = PEFT__R(f->loss_scale) * weight;
        if (cap > 0) {
            head_capped_gradient(k, l, c->vocab, top, sum, g, e / n, cap);
            l[label] -= g * (1 - e) * (1 - at_label * at_label / (cap * cap));
            continue;
        }
        k->scale(l, g / sum, l, c->vocab);
        if (e > 0) {
            for (int64_t j = 0; j < c->vocab; j++) { l[j] -= g * e / n; }
        }
        l[label] -= g * (1 - e);
    }
}

static void head_scatter(head_chunk *c, peft__real *dx, int64_t ld) {
    for (int64_t r = 0; r < c->rows; r++) {
        memcpy(dx + c->token[r] * ld, c->d_in + r * c->cols, (size_t)c->cols * sizeof *dx);
    }
}

/* What rows_param takes of the gradient; its columns of d logits are in `own`. */
static void head_own_gradient(head_chunk *c, bool dx) {
    peft__exec *x = c->x;
    int64_t n = c->spec->n_rows;
    peft__real scale = PEFT__R(c->spec->scale), *down = peft__exec_param_grad(x, c->op->param[HEAD_ROWS]);
    if (down != NULL) { peft__op_outer(x, down, c->own, n, c->in, c->cols, c->rows, n, c->cols, scale); }
    if (!dx) { return; }
    const peft__real *own = peft__exec_param(x, c->op->param[HEAD_ROWS]);
    head_product(c, c->d_in, c->cols, c->cols, c->own, n, n, peft__real_backward(own, c->cols), scale, true);
}

static void head_low_gradient(head_chunk *c, bool dx) {
    peft__exec *x = c->x;
    int64_t vocab = c->spec->vocab, r = c->rank;
    peft__real low = PEFT__R(c->spec->lora_scale * c->spec->scale);
    const peft__real *a2 = peft__exec_param(x, c->op->param[HEAD_A2]), *b2 = peft__exec_param(x, c->op->param[HEAD_B2]);
    peft__real *da2 = peft__exec_param_grad(x, c->op->param[HEAD_A2]), *db2 = peft__exec_param_grad(x, c->op->param[HEAD_B2]);
    if (db2 != NULL) { peft__op_outer(x, db2, c->logits, c->vocab, c->h, r, c->rows, vocab, r, low); }
    head_product(c, c->dh, r, r, c->logits, vocab, c->vocab, peft__real_backward(b2, r), low, false);
    if (da2 != NULL) { peft__op_outer(x, da2, c->dh, r, c->in, c->cols, c->rows, r, c->cols, 1); }
    if (dx) { head_product(c, c->d_in, c->cols, c->cols, c->dh, r, r, peft__real_backward(a2, c->cols), 1, true); }
}

static void head_gradient(head_chunk *c, peft__real *dx, int64_t ld) {
    peft__exec *x = c->x;
    int64_t vocab = c->spec->vocab;
    peft__real scale = PEFT__R(c->spec->scale);
    const peft__real *w = peft__exec_param(x, c->op->param[HEAD_W]);
    peft__real *dw = peft__exec_param_grad(x, c->op->param[HEAD_W]), *db = peft__exec_param_grad(x, c->op->param[HEAD_B]);
    if (db != NULL) { peft__op_column_sums(x, db, c->logits, c->vocab, c->rows, vocab, scale); }
    if (c->spec->n_rows > 0) { peft__rows(&x->run, c->rows, 1, head_take_own, c); }
    if (dw != NULL) { peft__op_outer(x, dw, c->logits, c->vocab, c->in, c->cols, c->rows, vocab, c->cols, scale); }
    if (dx != NULL) {
        peft__operand b = w != NULL ? peft__real_backward(w, c->cols) : peft__weight_backward(c->spec->weight);
        head_product(c, c->d_in, c->cols, c->cols, c->logits, vocab, c->vocab, b, scale, false);
    }
    if (c->spec->n_rows > 0) {
        head_own_gradient(c, dx != NULL);
        if (c->rank > 0) { peft__rows(&x->run, c->rows, 1, head_put_own, c); }
    }
    if (c->rank > 0) { head_low_gradient(c, dx != NULL); }
    if (dx != NULL) { head_scatter(c, dx, ld); }
}

static void head_account(const head_chunk *c) {
    peft__frame *f = c->x->frame;
    const int64_t *offsets = f->offsets[PEFT__SPACE_TOKENS];
    for (int64_t r = 0, row = 0; r < c->rows; r++) { /* in order: the sum does not depend on the threads */
        while (c->token[r] >= offsets[row + 1]) { row++; }
        int32_t group = f->row_groups != NULL ? f->row_groups[row] : 0;
        if (f->row_nll != NULL) { f->row_nll[row] += c->nll[r]; }
        f->group_loss[group] += c->loss[r];
        f->group_divisor[group] += 1;
        f->loss_sum += c->loss[r];
        f->nll_sum += c->nll[r];
        f->weight_sum += f->weights != NULL ? (double)f->weights[c->token[r]] : 1.0;
        f->correct += c->correct[r];
        f->divisor += 1;
        f->labelled++;
    }
}

/* Is the token of a row that this head is for? */
static bool head_has(const peft__exec *x, const peft__op *op, int64_t token) {
    const peft__frame *f = x->frame;
    const int64_t *offsets = f->offsets[PEFT__SPACE_TOKENS];
    int64_t row = 0;
    if (op->group < 0 || f->row_groups == NULL) { return op->group <= 0; }
    while (token >= offsets[row + 1]) { row++; }
    return f->row_groups[row] == op->group;
}

/* Chunks of the host's loss are of one group of rows. */
static int64_t head_stretch(const head_chunk *c) {
    const peft__frame *f = c->x->frame;
    const int64_t *offsets = f->offsets[PEFT__SPACE_TOKENS];
    for (int64_t r = 0, row = 0; r < c->rows; r++) {
        while (c->token[r] >= offsets[row + 1]) { row++; }
        if (f->row_groups != NULL && f->row_groups[row] != f->row_groups[r == 0 ? row : c->row[0]]) { return r; }
        c->row[r] = row;
        c->place[r] = c->token[r] - offsets[row];
        c->label[r] = f->labels[c->token[r]];
    }
    return c->rows;
}

void peft__op_host_loss(peft__frame *f, const peft__loss_part *p) {
    f->group_loss[p->group] += p->loss;
    f->group_divisor[p->group] += p->weight;
    f->loss_sum += p->loss;
    f->divisor += p->weight;
    f->labelled += p->rows;
}

/* The host's loss of the chunk's logits, which become their gradient. */
static void head_host(const head_chunk *c) {
    peft__frame *f = c->x->frame;
    peft__loss_part p = {.group = f->row_groups != NULL ? f->row_groups[c->row[0]] : 0, .rows = c->rows, .cols = c->vocab,
                         .values = c->logits, .batch_rows = c->row, .tokens = c->place, .labels = c->label};
    f->loss_failed = f->loss_failed || !f->loss(f->loss_user, &p);
    peft__op_host_loss(f, &p);
}

static void head_losses(peft__exec *x, const peft__op *op, bool gradient) {
    const peft__frame *f = x->frame;
    head_chunk c = head_layout(x, op);
    int64_t cap = head_rows(&x->plan->caps, c.vocab), tokens = peft__exec_rows(x, op->in[0]);
    int64_t ld = peft__exec_ld(x, op->in[0]);
    bool add = false;
    peft__real *dx = gradient ? peft__exec_grad_out(x, op->in[0], &add) : NULL;
    if (dx != NULL && !add) { memset(dx, 0, (size_t)(tokens * ld) * sizeof *dx); } /* else other tokens' are there */
    bool host = !PEFT__MINIMAL && f->loss != NULL;
    c.gradient = gradient;
    for (int64_t t = 0; t < tokens;) {
        for (c.rows = 0; t < tokens && c.rows < cap; t++) {
            if (f->labels[t] >= 0 && head_has(x, op, t)) { c.token[c.rows++] = t; }
        }
        if (c.rows == 0) { break; }
        if (host) {
            c.rows = head_stretch(&c);
            t = c.token[c.rows - 1] + 1;
        }
        head_logits(&c);
        if (host) { head_host(&c); } else { peft__rows(&x->run, c.rows, 1, head_loss_rows, &c); }
        if (gradient) { head_gradient(&c, dx, ld); }
        if (!host) { head_account(&c); }
    }
}

/* Logits of the chunk to where they are wanted. Ids that only other heads know are impossible. */
static void head_write(head_chunk *c, int64_t stride) {
    head_logits(c);
    for (int64_t r = 0; r < c->rows; r++) {
        float *out = c->x->frame->logits + c->place[r] * stride;
        for (int64_t j = 0; j < c->vocab; j++) { out[j] = (float)c->logits[r * c->vocab + j]; }
        for (int64_t j = c->vocab; j < stride; j++) { out[j] = -HUGE_VALF; }
    }
}

static void head_forward(peft__exec *x, const peft__op *op) {
    peft__frame *f = x->frame;
    if (f->logits == NULL) {
        if (f->labels != NULL) { head_losses(x, op, false); }
        return;
    }
    head_chunk c = head_layout(x, op);
    int64_t cap = head_rows(&x->plan->caps, c.vocab), stride = c.spec->vocab + x->tape->vocab_extra;
    for (int64_t i = 0; i < f->n_logits;) {
        for (c.rows = 0; i < f->n_logits && c.rows < cap; i++) {
            if (!head_has(x, op, f->logit_tokens[i])) { continue; }
            c.token[c.rows] = f->logit_tokens[i];
            c.place[c.rows++] = i;
        }
        if (c.rows > 0) { head_write(&c, stride); }
    }
}

static void head_backward(peft__exec *x, const peft__op *op) { head_losses(x, op, true); }

static uint32_t head_reads(const peft__tape *t, const peft__op *op) {
    (void)t;
    (void)op;
    return 1u;
}

static double head_flops(const peft__tape *t, const peft__op *op, const peft__caps *caps, bool backward) {
    const peft__head_spec *s = op->aux;
    double f = 2.0 * (double)peft__tape_value(t, op->in[0])->cols * (double)(s->vocab + s->n_rows);
    (void)caps;
    if (!backward) { return f; }
    return 2 * f + (peft__op_trained(t, op->param[HEAD_W]) ? f : 0); /* logits are computed here too */
}

static const peft__op_kind head_kind = {"head", PEFT__OPF_LOSS, head_reads, head_forward, head_backward, head_flops,
                                        head_scratch};

void peft__op_head(peft__tape *t, peft__val x, const peft__head_spec *spec) {
    peft__head_spec *s = t->status == PEFT_OK ? peft__arena_alloc(&t->arena, sizeof *s) : NULL;
    if (s == NULL) {
        peft__tape_fail(t, PEFT_E_NOMEM, "%s", peft__fail_text());
        return;
    }
    *s = *spec;
    peft__op *op = peft__tape_push(t, &head_kind, 1, &x);
    if (op == NULL) { return; }
    op->aux = s;
    op->weight = spec->weight;
    op->param[HEAD_W] = spec->w_param;
    op->param[HEAD_B] = spec->b_param;
    op->param[HEAD_A2] = spec->lora_a;
    op->param[HEAD_B2] = spec->lora_b;
    op->param[HEAD_ROWS] = spec->n_rows > 0 ? spec->rows_param : PEFT__NONE;
}
