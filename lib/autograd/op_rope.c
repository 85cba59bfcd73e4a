/* op_rope.c - rotary positions (Su et al. 2021), Hugging Face's layout: within the first `rotary` columns of each head, the
 * pair (x[i], x[i + rotary/2]) is turned by position * freq[i].
 *
 * Rows of more positions than the model was made for may turn by other frequencies: those of longrope (Ding et al. 2024), or
 * dynamic ones, freq[i] = t ^ (-2i / rotary) with t = theta (factor n / beyond - factor + 1) ^ (rotary / (rotary - 2)) for a row
 * of n positions, as transformers has them. Each row by its own length, whatever stands beside it.
 *
 * Cosines and sines are a value of their own, computed once a run and shared by all layers: [TOKENS, rotary], cosines first. */
#include <math.h>

#include "autograd/ops.h"

typedef struct rope_args {
    const peft__exec *x;
    const peft__rope *rope;
    const peft__real *in, *table;
    peft__real *y;
    int64_t cols, ld_in, ld_out, head_dim, rotary;
    peft__real sign;
    bool add;
} rope_args;

/* Positions of row r when it is whole. */
static int64_t rope_length(const peft__frame *f, int64_t r) {
    const int64_t *offsets = f->offsets[PEFT__SPACE_TOKENS];
    if (f->lengths != NULL) { return f->lengths[r]; }
    return offsets[r + 1] > offsets[r] ? f->positions[offsets[r + 1] - 1] + 1 : 0;
}

/* theta of a row whose frequencies stretch with its length; 0: it has those of the table. */
static double rope_theta(const peft__rope *p, int64_t length) {
    if (p->beyond == 0 || p->far != NULL || length <= p->beyond) { return 0; }
    double n = p->factor * (double)length / (double)p->beyond - (p->factor - 1);
    return p->theta * pow(n, (double)p->rotary / (double)(p->rotary - 2));
}

static void rope_table_row(const peft__rope *p, const double *freq, double theta, int32_t position, peft__real *row) {
    int64_t half = p->rotary / 2;
    for (int64_t i = 0; i < half; i++) {
        double sine, cosine, f = freq[i];
        if (theta > 0) { f = (double)(1.0f / (float)pow(theta, (double)(float)(2 * i) / (double)p->rotary)); }
        peft__sin_cos((double)position * f, &sine, &cosine);
        row[i] = PEFT__R(cosine * p->scale);
        row[half + i] = PEFT__R(sine * p->scale);
    }
}

static void rope_table_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const rope_args *a = arg;
    const peft__rope *p = a->rope;
    const peft__frame *f = a->x->frame;
    const int64_t *offsets = f->offsets[PEFT__SPACE_TOKENS];
    int64_t r = 0;
    (void)worker;
    for (int64_t t = begin; t < end; t++) {
        while (t >= offsets[r + 1]) { r++; }
        int64_t length = p->beyond > 0 ? rope_length(f, r) : 0;
        const double *freq = p->far != NULL && length > p->beyond ? p->far : p->freq;
        rope_table_row(p, freq, rope_theta(p, length), f->positions[t], a->y + t * p->rotary);
    }
}

static void rope_table_forward(peft__exec *x, const peft__op *op) {
    rope_args a;
    memset(&a, 0, sizeof a);
    a.x = x;
    a.rope = op->aux;
    a.y = peft__exec_data(x, op->out[0]);
    peft__rows(&x->run, peft__exec_rows(x, op->out[0]), 16, rope_table_rows, &a);
}

static const peft__op_kind rope_table_kind = {"rope_table", 0, NULL, rope_table_forward, NULL, NULL, NULL};

/* The table of these frequencies, recorded once. */
static peft__val rope_table(peft__tape *t, const peft__rope *rope) {
    for (size_t i = 0; i < t->ops.len; i++) {
        const peft__op *op = peft__tape_op(t, (int32_t)i);
        if (op->kind == &rope_table_kind && op->aux == rope) { return op->out[0]; }
    }
    int32_t segment = t->segment, group = t->group;
    t->segment = 0;
    t->group = -1;
    peft__op *op = peft__tape_push(t, &rope_table_kind, 0, NULL);
    t->segment = segment;
    t->group = group;
    if (op == NULL) { return PEFT__NONE; }
    op->aux = rope;
    return peft__tape_out(t, op, PEFT__SPACE_TOKENS, 0, rope->rotary);
}

static void rope_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const rope_args *a = arg;
    const peft__kernels *k = a->x->run.k;
    int64_t half = a->rotary / 2, rest = a->head_dim - a->rotary;
    (void)worker;
    for (int64_t t = begin; t < end; t++) {
        const peft__real *table = a->table + t * a->rotary;
        for (int64_t c = 0; c < a->cols; c += a->head_dim) {
            const peft__real *in = a->in + t * a->ld_in + c;
            peft__real *y = a->y + t * a->ld_out + c;
            k->rope(y, in, table, table + half, half, a->sign);
            if (rest > 0 && y != in) { memcpy(y + a->rotary, in + a->rotary, (size_t)rest * sizeof *y); }
        }
    }
}

static void rope_run(peft__exec *x, const peft__op *op, const peft__real *in, int64_t ld_in, peft__real *y, int64_t ld_out,
                     peft__real sign) {
    rope_args a;
    memset(&a, 0, sizeof a);
    a.x = x;
    a.in = in;
    a.y = y;
    a.ld_in = ld_in;
    a.ld_out = ld_out;
    a.table = peft__exec_data(x, op->in[1]);
    a.cols = peft__tape_value(x->tape, op->out[0])->cols;
    a.head_dim = op->i[0];
    a.rotary = op->i[1];
    a.sign = sign;
    peft__rows(&x->run, peft__exec_rows(x, op->out[0]), peft__op_grain(a.cols), rope_rows, &a);
}

static void rope_forward(peft__exec *x, const peft__op *op) {
    rope_run(x, op, peft__exec_data(x, op->in[0]), peft__exec_ld(x, op->in[0]), peft__exec_data(x, op->out[0]),
             peft__exec_ld(x, op->out[0]), 1);
}

static void rope_backward(peft__exec *x, const peft__op *op) {
    bool add = false; /* sole consumer: never */
    peft__real *dx = peft__exec_grad_out(x, op->in[0], &add);
    if (dx == NULL) { return; }
    rope_run(x, op, peft__exec_grad(x, op->out[0]), peft__exec_ld(x, op->out[0]), dx, peft__exec_ld(x, op->in[0]), -1);
}

static uint32_t rope_reads(const peft__tape *t, const peft__op *op) {
    (void)t;
    (void)op;
    return 2u; /* the table */
}

static const peft__op_kind rope_kind = {"rope", PEFT__OPF_INPLACE0 | PEFT__OPF_PASS0, rope_reads, rope_forward,
                                        rope_backward, NULL, NULL};

peft__val peft__op_rope(peft__tape *t, peft__val x, int64_t head_dim, const peft__rope *rope) {
    peft__val in[2] = {x, rope_table(t, rope)};
    peft__op *op = peft__tape_push(t, &rope_kind, 2, in);
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, x);
    op->i[0] = head_dim;
    op->i[1] = rope->rotary;
    return peft__tape_out(t, op, v.space, v.fixed, v.cols);
}
