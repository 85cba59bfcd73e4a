/* op_pool.c - one state for a whole row of the batch, and rows of length 1.
 *
 *   first, last   y[row] = x[first or last token of the row]            dx[that token] += dy[row]
 *   mean          y[row] = mean of x over the row's own tokens, without virtual ones; tokens in order
 *   unit_rows     y = x / max(|x|, 1e-12)                               dx += (dy - y (y . dy)) / max(|x|, 1e-12)
 *
 * BERT's classifier reads the first token (Devlin et al. 2019), those of decoders the last, sentence embeddings the mean (Reimers
 * and Gurevych 2019, arXiv 1908.10084). Nothing is padded, so that there is no padding in a mean.
 *
 * Left out: attention pooling, maxima. */
#include <math.h>

#include "autograd/ops.h"
#include "autograd/task.h"

/* Tokens [*begin, *end) of the stream that a row's state is made of. */
static void pool_tokens(const peft__exec *x, const peft__op *op, int64_t row, int64_t *begin, int64_t *end) {
    const int64_t *stream = x->frame->offsets[PEFT__SPACE_TOKENS], *own = x->frame->offsets[PEFT__SPACE_INPUT];
    *begin = stream[row];
    *end = stream[row + 1];
    if (op->i[0] == PEFT__POOL_FIRST) { *end = *begin + 1; }
    if (op->i[0] == PEFT__POOL_LAST) { *begin = *end - 1; }
    if (op->i[0] == PEFT__POOL_MEAN) { *begin = *end - (own[row + 1] - own[row]); }
}

static void pool_forward(peft__exec *x, const peft__op *op) {
    const peft__kernels *k = x->run.k;
    const peft__real *in = peft__exec_data(x, op->in[0]);
    peft__real *out = peft__exec_data(x, op->out[0]);
    int64_t ld = peft__exec_ld(x, op->in[0]), cols = peft__tape_value(x->tape, op->out[0])->cols;
    for (int64_t r = 0; r < x->frame->n_rows; r++) {
        int64_t begin, end;
        pool_tokens(x, op, r, &begin, &end);
        memset(out + r * cols, 0, (size_t)cols * sizeof *out);
        for (int64_t t = begin; t < end; t++) { k->add(out + r * cols, out + r * cols, in + t * ld, cols); }
        k->scale(out + r * cols, 1 / (peft__real)PEFT__MAX(end - begin, 1), out + r * cols, cols);
    }
}

static void pool_backward(peft__exec *x, const peft__op *op) {
    bool add = false;
    const peft__real *dy = peft__exec_grad(x, op->out[0]);
    peft__real *dx = peft__exec_grad_out(x, op->in[0], &add);
    if (dx == NULL) { return; }
    int64_t ld = peft__exec_ld(x, op->in[0]), cols = peft__tape_value(x->tape, op->out[0])->cols;
    int64_t tokens = peft__exec_rows(x, op->in[0]);
    for (int64_t t = 0; t < tokens && !add; t++) { memset(dx + t * ld, 0, (size_t)cols * sizeof *dx); }
    for (int64_t r = 0; r < x->frame->n_rows; r++) {
        int64_t begin, end;
        pool_tokens(x, op, r, &begin, &end);
        for (int64_t t = begin; t < end; t++) {
            x->run.k->axpy(dx + t * ld, 1 / (peft__real)(end - begin), dy + r * cols, cols);
        }
    }
}

static uint32_t pool_reads(const peft__tape *t, const peft__op *op) {
    (void)t;
    (void)op;
    return 0;
}

static const peft__op_kind pool_kind = {"pool", 0, pool_reads, pool_forward, pool_backward, NULL, NULL};

peft__val peft__op_pool(peft__tape *t, peft__val x, int32_t how) {
    peft__op *op = peft__tape_push(t, &pool_kind, 1, &x);
    if (op == NULL) { return PEFT__NONE; }
    op->i[0] = how;
    return peft__tape_out(t, op, PEFT__SPACE_ROWS, 0, peft__tape_value(t, x)->cols);
}

/* ---- length 1 -------------------------------------------------------------------------------------------------------------- */

static peft__real unit_length(const peft__kernels *k, const peft__real *x, int64_t n) {
    return PEFT__MAX((peft__real)sqrt((double)k->dot(x, x, n)), PEFT__R(1e-12));
}

static void unit_forward(peft__exec *x, const peft__op *op) {
    const peft__real *in = peft__exec_data(x, op->in[0]);
    peft__real *out = peft__exec_data(x, op->out[0]);
    int64_t ld = peft__exec_ld(x, op->in[0]), cols = peft__tape_value(x->tape, op->out[0])->cols;
    for (int64_t r = 0; r < peft__exec_rows(x, op->out[0]); r++) {
        const peft__real *row = in + r * ld;
        x->run.k->scale(out + r * cols, 1 / unit_length(x->run.k, row, cols), row, cols);
    }
}

static void unit_backward(peft__exec *x, const peft__op *op) {
    const peft__kernels *k = x->run.k;
    bool add = false;
    const peft__real *dy = peft__exec_grad(x, op->out[0]), *in = peft__exec_data(x, op->in[0]);
    peft__real *dx = peft__exec_grad_out(x, op->in[0], &add);
    if (dx == NULL) { return; }
    int64_t ld = peft__exec_ld(x, op->in[0]), cols = peft__tape_value(x->tape, op->out[0])->cols;
    for (int64_t r = 0; r < peft__exec_rows(x, op->out[0]); r++) {
        const peft__real *row = in + r * ld, *d = dy + r * cols;
        peft__real n = unit_length(k, row, cols), along = k->dot(row, d, cols) / (n * n * n);
        for (int64_t c = 0; c < cols; c++) {
            peft__real v = d[c] / n - row[c] * along;
            dx[r * ld + c] = add ? dx[r * ld + c] + v : v;
        }
    }
}

static uint32_t unit_reads(const peft__tape *t, const peft__op *op) {
    (void)t;
    (void)op;
    return 1u;
}

static const peft__op_kind unit_kind = {"unit_rows", 0, unit_reads, unit_forward, unit_backward, NULL, NULL};

peft__val peft__op_unit_rows(peft__tape *t, peft__val x) {
    peft__op *op = peft__tape_push(t, &unit_kind, 1, &x);
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, x);
    return peft__tape_out(t, op, v.space, v.fixed, v.cols);
}
