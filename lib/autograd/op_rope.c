/* op_rope.c - rotary positions (Su et al. 2021), Hugging Face's layout: within the first `rotary` columns of each head, the
 * pair (x[i], x[i + rotary/2]) is turned by position * inv_freq[i].
 *
 * Cosines and sines are a value of their own, computed once a run and shared by all layers: [TOKENS, rotary], cosines first. */
#include "autograd/ops.h"

typedef struct rope_table_spec {
    const double *inv_freq; /* [half], of the model */
    int64_t half;
    double scale;
} rope_table_spec;

typedef struct rope_args {
    const peft__exec *x;
    const rope_table_spec *spec;
    const peft__real *in, *table;
    peft__real *y;
    int64_t cols, ld_in, ld_out, head_dim, rotary;
    peft__real sign;
    bool add;
} rope_args;

static void rope_table_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const rope_args *a = arg;
    const rope_table_spec *s = a->spec;
    (void)worker;
    for (int64_t t = begin; t < end; t++) {
        peft__real *row = a->y + t * 2 * s->half;
        for (int64_t i = 0; i < s->half; i++) {
            double sine, cosine;
            peft__sin_cos((double)a->x->frame->positions[t] * s->inv_freq[i], &sine, &cosine);
            row[i] = PEFT__R(cosine * s->scale);
            row[s->half + i] = PEFT__R(sine * s->scale);
        }
    }
}

static void rope_table_forward(peft__exec *x, const peft__op *op) {
    rope_args a;
    memset(&a, 0, sizeof a);
    a.x = x;
    a.spec = op->aux;
    a.y = peft__exec_data(x, op->out[0]);
    peft__rows(&x->run, peft__exec_rows(x, op->out[0]), 16, rope_table_rows, &a);
}

static const peft__op_kind rope_table_kind = {"rope_table", 0, NULL, rope_table_forward, NULL, NULL, NULL};

/* The table of these frequencies, recorded once. */
static peft__val rope_table(peft__tape *t, const double *inv_freq, int64_t rotary, double scale) {
    for (size_t i = 0; i < t->ops.len; i++) {
        const peft__op *op = peft__tape_op(t, (int32_t)i);
        const rope_table_spec *s = op->aux;
        if (op->kind == &rope_table_kind && s->inv_freq == inv_freq && s->half == rotary / 2 &&
            s->scale == scale) { return op->out[0]; }
    }
    rope_table_spec *s = t->status == PEFT_OK ? peft__arena_alloc(&t->arena, sizeof *s) : NULL;
    if (s == NULL) {
        peft__tape_fail(t, PEFT_E_NOMEM, "%s", peft__fail_text());
        return PEFT__NONE;
    }
    s->inv_freq = inv_freq;
    s->half = rotary / 2;
    s->scale = scale;
    int32_t segment = t->segment, group = t->group;
    t->segment = 0;
    t->group = -1;
    peft__op *op = peft__tape_push(t, &rope_table_kind, 0, NULL);
    t->segment = segment;
    t->group = group;
    if (op == NULL) { return PEFT__NONE; }
    op->aux = s;
    return peft__tape_out(t, op, PEFT__SPACE_TOKENS, 0, rotary);
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
    peft__real *dx = peft__exec_grad_out(x, op, op->in[0], &add);
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

peft__val peft__op_rope(peft__tape *t, peft__val x, int64_t head_dim, int64_t rotary, const double *inv_freq, double scale) {
    peft__val in[2] = {x, rope_table(t, inv_freq, rotary, scale)};
    peft__op *op = peft__tape_push(t, &rope_kind, 2, in);
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, x);
    op->i[0] = head_dim;
    op->i[1] = rotary;
    return peft__tape_out(t, op, v.space, v.fixed, v.cols);
}
