/* attend.h - a tape of one attention op for tests: queries, keys, values, prefix, gates and the table of biases are parameters,
 * the loss is the sum of the output times fixed numbers; and the same loss by plain loops in double. */
#ifndef PEFT_TESTS_ATTEND_H
#define PEFT_TESTS_ATTEND_H

#include <math.h>

#include "autograd/autograd.h"
#include "autograd/relative.h"

enum { ATTEND_ROWS = 4, ATTEND_PARAMS = 7, ATTEND_MOST = 4096 };
enum { ATTEND_Q = 0, ATTEND_K = 1, ATTEND_V = 2, ATTEND_PK = 3, ATTEND_PV = 4, ATTEND_GATES = 5, ATTEND_TABLE = 6 };

typedef struct attend_shape {
    int64_t heads, kv_heads, dim, n_rows;
    int64_t n[ATTEND_ROWS], k_n[ATTEND_ROWS];       /* queries and, with cross, keys of each row */
    bool causal, cross, encoder;                    /* encoder: queries are of the encoder's space */
    int64_t window, prefix, gates;                  /* gates: columns, 0 or 1 or 2 */
    int64_t buckets, max_distance;                  /* buckets 0: no bias */
    double softcap;                                 /* for what the tape refuses; not in attend_plain */
    bool bidirectional, unplaced, frozen;           /* frozen: the table is a weight */
} attend_shape;

typedef struct attend {
    attend_shape s;
    peft__mem *mem;
    peft__arena arena;
    peft__tape tape;
    peft__plan plan;
    peft__exec exec;
    peft__pool *pool;
    peft__frame frame;
    peft__param params[ATTEND_PARAMS];              /* value NULL: not there */
    peft__weight table;
    peft__real *weights, *out;                      /* [tokens, heads dim]: of the loss, and what came out last; arena's */
    int64_t q_offsets[ATTEND_ROWS + 1], k_offsets[ATTEND_ROWS + 1];
} attend;

/* ---- the ops at the ends --------------------------------------------------------------------------------------------------- */

static void attend_given_forward(peft__exec *x, const peft__op *op) {
    int64_t n = peft__exec_rows(x, op->out[0]) * peft__tape_value(x->tape, op->out[0])->cols;
    memcpy(peft__exec_data(x, op->out[0]), peft__exec_param(x, op->param[0]), (size_t)n * sizeof(peft__real));
}

static void attend_given_backward(peft__exec *x, const peft__op *op) {
    int64_t n = peft__exec_rows(x, op->out[0]) * peft__tape_value(x->tape, op->out[0])->cols;
    peft__real *g = peft__exec_param_grad(x, op->param[0]);
    const peft__real *d = peft__exec_grad(x, op->out[0]);
    for (int64_t i = 0; g != NULL && i < n; i++) { g[i] += d[i]; }
}

static void attend_loss_forward(peft__exec *x, const peft__op *op) {
    const attend *a = op->aux;
    int64_t n = peft__exec_rows(x, op->in[0]) * a->s.heads * a->s.dim;
    const peft__real *o = peft__exec_data(x, op->in[0]);
    memcpy(a->out, o, (size_t)n * sizeof *o);
    for (int64_t i = 0; i < n; i++) { x->frame->loss_sum += (double)o[i] * (double)a->weights[i]; }
}

static void attend_loss_backward(peft__exec *x, const peft__op *op) {
    const attend *a = op->aux;
    bool add = false;
    peft__real *g = peft__exec_grad_out(x, op->in[0], &add);
    attend_loss_forward(x, op);
    memcpy(g, a->weights, (size_t)(peft__exec_rows(x, op->in[0]) * a->s.heads * a->s.dim) * sizeof *g);
}

static uint32_t attend_reads(const peft__tape *t, const peft__op *op) {
    (void)t;
    return (uint32_t)op->n_in;
}

static const peft__op_kind attend_given_kind = {"given", 0, attend_reads, attend_given_forward, attend_given_backward, NULL, NULL};
static const peft__op_kind attend_loss_kind = {"weighed", PEFT__OPF_LOSS, attend_reads, attend_loss_forward, attend_loss_backward, NULL,
                                               NULL};

/* ---- recording --------------------------------------------------------------------------------------------------------------- */

static peft__real *attend_noise(attend *a, int64_t n, uint64_t seed, double size, double centre) {
    peft__rng rng = {seed, 0};
    peft__real *v = peft__arena_alloc(&a->arena, (size_t)n * sizeof *v);
    for (int64_t i = 0; v != NULL && i < n; i++) { v[i] = PEFT__R(centre + size * peft__rng_normal(&rng)); }
    return v;
}

static int32_t attend_param(attend *a, int32_t i, int64_t rows, int64_t cols, double size, double centre) {
    peft__param *p = &a->params[i];
    p->name = "p";
    p->rows = rows;
    p->cols = cols;
    p->value = attend_noise(a, rows * cols, 10 + (uint64_t)i, size, centre);
    p->grad = attend_noise(a, rows * cols, 0, 0, 0);
    return peft__tape_param(&a->tape, p);
}

/* Parameter i as a value. */
static peft__val attend_given(attend *a, int32_t i, int32_t space, int64_t rows, int64_t cols) {
    int32_t p = attend_param(a, i, rows, cols, i == ATTEND_GATES ? 0.3 : 1, i == ATTEND_GATES ? 1 : 0);
    peft__op *op = peft__tape_push(&a->tape, &attend_given_kind, 0, NULL);
    if (op == NULL) { return PEFT__NONE; }
    op->param[0] = p;
    return peft__tape_out(&a->tape, op, space, rows, cols);
}

static void attend_bias(attend *a, peft__bias *b) {
    const attend_shape *s = &a->s;
    memset(b, 0, sizeof *b);
    b->buckets = s->buckets;
    b->max_distance = s->max_distance;
    b->bidirectional = s->bidirectional;
    b->param = attend_param(a, ATTEND_TABLE, s->buckets, s->heads, 1, 0);
    if (!s->frozen) { return; }
    float *data = peft__arena_alloc(&a->arena, (size_t)(s->buckets * s->heads) * sizeof *data);
    for (int64_t i = 0; i < s->buckets * s->heads; i++) { data[i] = (float)a->params[ATTEND_TABLE].value[i]; }
    a->table = (peft__weight){.name = "table", .data = (const uint8_t *)data, .dtype = PEFT_DTYPE_F32, .rows = s->buckets,
                              .cols = s->heads, .row_bytes = s->heads * (int64_t)sizeof *data};
    b->table = &a->table;
    b->param = PEFT__NONE;
}

static void attend_record(attend *a) {
    const attend_shape *s = &a->s;
    int32_t queries = s->encoder ? PEFT__SPACE_ENCODER : PEFT__SPACE_TOKENS, keys = s->cross ? PEFT__SPACE_ENCODER : queries;
    int64_t tokens = a->q_offsets[s->n_rows], key_tokens = s->cross ? a->k_offsets[s->n_rows] : tokens, width = s->kv_heads * s->dim;
    peft__attn_spec spec = {.heads = s->heads, .kv_heads = s->kv_heads, .head_dim = s->dim, .scale = 0.6, .causal = s->causal,
                            .window = s->window, .cross = s->cross, .softcap = s->softcap};
    peft__past past = {.k = PEFT__NONE, .v = PEFT__NONE, .gates = PEFT__NONE, .unplaced = s->unplaced};
    peft__bias bias;
    peft__val q = attend_given(a, ATTEND_Q, queries, tokens, s->heads * s->dim);
    peft__val k = attend_given(a, ATTEND_K, keys, key_tokens, width), v = attend_given(a, ATTEND_V, keys, key_tokens, width);
    if (s->prefix > 0) {
        past.k = attend_given(a, ATTEND_PK, PEFT__SPACE_FIXED, s->prefix, width);
        past.v = attend_given(a, ATTEND_PV, PEFT__SPACE_FIXED, s->prefix, width);
        a->tape.prefix_tokens = s->prefix;
    }
    if (s->gates > 0) { past.gates = attend_given(a, ATTEND_GATES, PEFT__SPACE_ROWS, s->n_rows, s->gates); }
    if (s->buckets > 0) {
        attend_bias(a, &bias);
        spec.bias = &bias;
    }
    peft__val o = peft__op_attention(&a->tape, q, k, v, &past, &spec);
    peft__op *loss = peft__tape_push(&a->tape, &attend_loss_kind, 1, &o);
    if (loss != NULL) { loss->aux = a; }
}

static void attend_frame(attend *a) {
    const attend_shape *s = &a->s;
    peft__frame *f = &a->frame;
    int32_t queries = s->encoder ? PEFT__SPACE_ENCODER : PEFT__SPACE_TOKENS;
    f->n_rows = f->count[PEFT__SPACE_ROWS] = s->n_rows;
    f->offsets[PEFT__SPACE_TOKENS] = a->q_offsets;
    f->offsets[queries] = a->q_offsets;
    f->count[queries] = a->q_offsets[s->n_rows];
    if (s->cross) {
        f->offsets[PEFT__SPACE_ENCODER] = a->k_offsets;
        f->count[PEFT__SPACE_ENCODER] = a->k_offsets[s->n_rows];
    }
}

static inline peft_status attend_create(attend *a, peft__mem *mem, const attend_shape *s, bool training, const peft__kernels *k,
                                        int32_t threads) {
    peft_status st = PEFT_OK;
    peft__caps caps;
    memset(a, 0, sizeof *a);
    memset(&caps, 0, sizeof caps);
    a->mem = mem;
    a->s = *s;
    for (int64_t r = 0; r < s->n_rows; r++) {
        a->q_offsets[r + 1] = a->q_offsets[r] + s->n[r];
        a->k_offsets[r + 1] = a->k_offsets[r] + s->k_n[r];
        caps.max_length = PEFT__MAX(caps.max_length, s->n[r]);
        caps.max_source_length = PEFT__MAX(caps.max_source_length, PEFT__MAX(s->n[r], s->k_n[r]));
    }
    caps.max_rows = s->n_rows;
    caps.max_tokens = a->q_offsets[s->n_rows];
    caps.max_source = PEFT__MAX(caps.max_tokens, a->k_offsets[s->n_rows]);
    peft__arena_init(&a->arena, mem);
    peft__tape_init(&a->tape, mem, training);
    int64_t wide = caps.max_tokens * s->heads * s->dim;
    a->weights = attend_noise(a, wide, 3, 1, 0);
    a->out = attend_noise(a, wide, 3, 0, 0);
    attend_record(a);
    TRY(peft__tape_finish(&a->tape));
    TRY(peft__pool_create(mem, threads, &a->pool));
    TRY(peft__plan_make(&a->plan, mem, &a->tape, &caps, 0, k, threads, s->dim));
    TRY(peft__exec_create(&a->exec, mem, &a->tape, &a->plan, k, a->pool));
    attend_frame(a);
out:
    return st;
}

static inline void attend_free(attend *a) {
    peft__exec_free(&a->exec);
    peft__plan_free(&a->plan);
    if (a->pool != NULL) { peft__pool_free(a->pool); }
    peft__tape_free(&a->tape);
    peft__arena_free(&a->arena);
}

/* ---- by plain loops ------------------------------------------------------------------------------------------------------------ */

static inline bool attend_sees(const attend_shape *s, int64_t query, int64_t key) { /* both from the row's first own token */
    if (s->cross || key < 0) { return true; }
    int64_t behind = query - key;
    if (s->causal) { return behind >= 0 && (s->window == 0 || behind < s->window); }
    return s->window == 0 || (behind <= s->window && behind >= -s->window);
}

/* Adds what head h gives for query i of row r: key j < 0 is of the prefix. */
static inline double attend_plain_query(const attend *a, int64_t r, int64_t h, int64_t i) {
    const attend_shape *s = &a->s;
    int64_t width = s->kv_heads * s->dim, col = h / (s->heads / s->kv_heads) * s->dim;
    int64_t token = a->q_offsets[r] + i, at = token * s->heads * s->dim + h * s->dim;
    int64_t own = s->cross ? s->k_n[r] : s->n[r], first = s->cross ? a->k_offsets[r] : a->q_offsets[r];
    const peft__bias b = {.buckets = s->buckets, .max_distance = s->max_distance, .bidirectional = s->bidirectional};
    double sum = 0, loss = 0;
    for (int64_t j = -s->prefix; j < own; j++) {
        if (!attend_sees(s, i, j)) { continue; }
        int64_t from = (j < 0 ? j + s->prefix : first + j) * width + col;
        const peft__real *k = a->params[j < 0 ? ATTEND_PK : ATTEND_K].value + from;
        const peft__real *v = a->params[j < 0 ? ATTEND_PV : ATTEND_V].value + from;
        const peft__real *g = j < 0 && s->gates > 0 ? a->params[ATTEND_GATES].value + r * s->gates : NULL;
        double gk = g != NULL ? (double)g[0] : 1, gv = g != NULL ? (double)g[s->gates - 1] : 1, score = 0, w = 0;
        for (int64_t d = 0; d < s->dim; d++) {
            score += gk * (double)a->params[ATTEND_Q].value[at + d] * (double)k[d];
            w += gv * (double)v[d] * (double)a->weights[at + d];
        }
        score *= 0.6;
        if (s->buckets > 0) {
            int64_t bucket = peft__relative_bucket(&b, j - i + (s->unplaced ? s->prefix : 0));
            score += (double)a->params[ATTEND_TABLE].value[bucket * s->heads + h];
        }
        sum += exp(score);
        loss += exp(score) * w;
    }
    return loss / sum;
}

static inline double attend_plain(const attend *a) {
    double loss = 0;
    for (int64_t r = 0; r < a->s.n_rows; r++) {
        for (int64_t h = 0; h < a->s.heads; h++) {
            for (int64_t i = 0; i < a->s.n[r]; i++) { loss += attend_plain_query(a, r, h, i); }
        }
    }
    return loss;
}

#endif
