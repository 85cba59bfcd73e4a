/* tiny.h - a transformer of two small layers on a tape, for tests of the tape, the plan and every macro-op.
 *
 * Two shapes: TINY_LLAMA (RMSNorm, rope, grouped heads, SwiGLU) and TINY_GPT (LayerNorm, learned positions, fused q k v by
 * columns, GELU). What is trained: TINY_LORA (low-rank terms on frozen weights, dropout), TINY_FULL (everything). */
#ifndef PEFT_TESTS_TINY_H
#define PEFT_TESTS_TINY_H

#include <stdio.h>
#include <stdlib.h>

#include "autograd/autograd.h"

enum { TINY_LLAMA = 0, TINY_GPT = 1, TINY_LORA = 0, TINY_FULL = 1 };
enum { TINY_V = 13, TINY_C = 8, TINY_D = 4, TINY_KV = 4, TINY_F = 12, TINY_R = 2, TINY_ROWS = 3, TINY_TOKENS = 11, TINY_LAYERS = 2,
       TINY_PARAMS = 128 };

typedef struct tiny {
    peft__mem *mem;
    peft__tape tape;
    peft__plan plan;
    peft__exec exec;
    peft__frame frame;
    peft__pool *pool;
    peft__arena arena;
    peft__param params[TINY_PARAMS]; /* value and grad owned by the arena */
    int32_t n_params;
    int shape, train;
    double dropout;
    peft__rng rng;
    double inv_freq[TINY_D / 2];
    peft__rope rope;
} tiny;

static const int64_t tiny_offsets[TINY_ROWS + 1] = {0, 6, 10, 11};
static const int32_t tiny_ids[TINY_TOKENS] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 12, 0};
static const int32_t tiny_positions[TINY_TOKENS] = {0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 0};
static const int32_t tiny_labels[TINY_TOKENS] = {1, 4, -100, 5, 9, -100, 6, 5, 12, -100, 7};

static peft__real *tiny_noise(tiny *m, int64_t n, double scale, double centre) {
    peft__real *p = peft__arena_alloc(&m->arena, (size_t)n * sizeof *p);
    for (int64_t i = 0; i < n; i++) { p[i] = PEFT__R(centre + scale * peft__rng_normal(&m->rng)); }
    return p;
}

static int32_t tiny_param(tiny *m, int64_t rows, int64_t cols, double scale, double centre) {
    peft__param *p = &m->params[m->n_params++];
    memset(p, 0, sizeof *p);
    p->name = "p";
    p->rows = rows;
    p->cols = cols;
    p->value = tiny_noise(m, rows * cols, scale, centre);
    p->grad = peft__arena_alloc(&m->arena, (size_t)(rows * cols) * sizeof *p->grad);
    return peft__tape_param(&m->tape, p);
}

static const peft__weight *tiny_frozen(tiny *m, int64_t rows, int64_t cols, double scale) {
    peft__weight *w = peft__arena_alloc(&m->arena, sizeof *w);
    float *data = peft__arena_alloc(&m->arena, (size_t)(rows * cols) * sizeof *data);
    for (int64_t i = 0; i < rows * cols; i++) { data[i] = (float)(scale * peft__rng_normal(&m->rng)); }
    w->name = "w";
    w->data = (const uint8_t *)data;
    w->dtype = PEFT_DTYPE_F32;
    w->rows = rows;
    w->cols = cols;
    w->row_bytes = cols * (int64_t)sizeof *data;
    return w;
}

static peft__val tiny_linear(tiny *m, peft__val x, int64_t in, int64_t out) {
    peft__tape *t = &m->tape;
    if (m->train == TINY_FULL) {
        int32_t w = tiny_param(m, out, in, 0.4, 0), b = tiny_param(m, 1, out, 0.2, 0);
        return peft__op_linear(t, x, NULL, NULL, w, b, out);
    }
    const peft__weight *w = tiny_frozen(m, out, in, 0.4);
    peft__val y = peft__op_linear(t, x, w, tiny_noise(m, out, 0.2, 0), PEFT__NONE, PEFT__NONE, out);
    int32_t a = tiny_param(m, TINY_R, in, 0.5, 0), b = tiny_param(m, out, TINY_R, 0.5, 0);
    return peft__op_low_rank(t, y, peft__op_dropout(t, x, m->dropout, (uint64_t)a), a, b, 1.5);
}

static peft__val tiny_norm(tiny *m, peft__val x) {
    bool full = m->train == TINY_FULL;
    int32_t w = full ? tiny_param(m, 1, TINY_C, 0.1, 1) : PEFT__NONE;
    const peft__real *v = full ? NULL : tiny_noise(m, TINY_C, 0.1, 1);
    if (m->shape == TINY_LLAMA) { return peft__op_rms_norm(&m->tape, x, v, w, 1e-5); }
    int32_t b = full ? tiny_param(m, 1, TINY_C, 0.1, 0) : PEFT__NONE;
    return peft__op_layer_norm(&m->tape, x, v, full ? NULL : tiny_noise(m, TINY_C, 0.1, 0), w, b, 1e-5);
}

static peft__val tiny_attention(tiny *m, peft__val n) {
    peft__tape *t = &m->tape;
    peft__attn_spec spec = {.heads = TINY_C / TINY_D, .kv_heads = 1, .head_dim = TINY_D, .scale = 0.5, .causal = true};
    const peft__past past = {.k = PEFT__NONE, .v = PEFT__NONE, .gates = PEFT__NONE};
    if (m->shape == TINY_GPT) {
        spec.kv_heads = 2;
        peft__val qkv = tiny_linear(m, n, TINY_C, 3 * TINY_C);
        peft__val q = peft__tape_view(t, qkv, 0, TINY_C), k = peft__tape_view(t, qkv, TINY_C, TINY_C);
        peft__val v = peft__tape_view(t, qkv, 2 * TINY_C, TINY_C);
        return tiny_linear(m, peft__op_attention(t, q, k, v, &past, &spec), TINY_C, TINY_C);
    }
    peft__val q = peft__op_rope(t, tiny_linear(m, n, TINY_C, TINY_C), TINY_D, &m->rope);
    peft__val k = peft__op_rope(t, tiny_linear(m, n, TINY_C, TINY_KV), TINY_D, &m->rope);
    peft__val v = tiny_linear(m, n, TINY_C, TINY_KV);
    return tiny_linear(m, peft__op_attention(t, q, k, v, &past, &spec), TINY_C, TINY_C);
}

static peft__val tiny_layer(tiny *m, peft__val x) {
    peft__tape *t = &m->tape;
    x = peft__op_add(t, x, tiny_attention(m, tiny_norm(m, x)));
    peft__val n = tiny_norm(m, x), f;
    if (m->shape == TINY_LLAMA) {
        peft__val gate = tiny_linear(m, n, TINY_C, TINY_F), up = tiny_linear(m, n, TINY_C, TINY_F);
        f = peft__op_glu(t, PEFT__ACT_SILU, gate, up);
    } else {
        f = peft__op_act(t, PEFT__ACT_GELU_TANH, tiny_linear(m, n, TINY_C, TINY_F));
    }
    return peft__op_add(t, x, tiny_linear(m, f, TINY_F, TINY_C));
}

static void tiny_record(tiny *m, bool head_low_rank, double softcap) {
    peft__tape *t = &m->tape;
    bool full = m->train == TINY_FULL;
    peft__head_spec head;
    t->segments = TINY_LAYERS + 2;
    int32_t table = full ? tiny_param(m, TINY_V, TINY_C, 0.7, 0) : PEFT__NONE;
    const peft__weight *frozen = tiny_frozen(m, TINY_V, TINY_C, 0.7);
    peft__val x = peft__op_embed(t, frozen, table, PEFT__R(1.25));
    if (m->shape == TINY_GPT) {
        int32_t pos = full ? tiny_param(m, 16, TINY_C, 0.3, 0) : PEFT__NONE;
        x = peft__op_add_pos(t, x, tiny_frozen(m, 16, TINY_C, 0.3), pos, 2);
    }
    for (int32_t l = 0; l < TINY_LAYERS; l++) {
        t->segment = 1 + l;
        x = tiny_layer(m, x);
    }
    t->segment = TINY_LAYERS + 1;
    memset(&head, 0, sizeof head);
    head.weight = frozen;
    head.w_param = table; /* tied */
    head.b_param = full ? tiny_param(m, 1, TINY_V, 0.2, 0) : PEFT__NONE;
    head.vocab = TINY_V;
    head.scale = 0.9;
    head.softcap = softcap;
    head.lora_a = head_low_rank ? tiny_param(m, TINY_R, TINY_C, 0.5, 0) : PEFT__NONE;
    head.lora_b = head_low_rank ? tiny_param(m, TINY_V, TINY_R, 0.5, 0) : PEFT__NONE;
    head.lora_scale = 0.7;
    peft__op_head(t, tiny_norm(m, x), &head);
}

/* limit: of the plan; 0 none. Returns the plan's status. */
static inline peft_status tiny_create(tiny *m, peft__mem *mem, int shape, int train, double dropout, const peft__kernels *k,
                               int32_t threads, size_t limit, double softcap) {
    peft_status st = PEFT_OK;
    peft__caps caps = {.max_rows = TINY_ROWS, .max_tokens = TINY_TOKENS, .max_length = 8};
    memset(m, 0, sizeof *m);
    m->mem = mem;
    m->shape = shape;
    m->train = train;
    m->dropout = dropout;
    m->rng.key = 1234;
    m->inv_freq[0] = 1;
    m->inv_freq[1] = 0.1;
    m->rope = (peft__rope){.rotary = TINY_D, .freq = m->inv_freq, .scale = 1};
    peft__arena_init(&m->arena, mem);
    peft__tape_init(&m->tape, mem, true);
    tiny_record(m, train == TINY_LORA, softcap);
    TRY(peft__tape_finish(&m->tape));
    for (size_t i = 0; i < m->tape.params.len; i++) { peft__tape_param_at(&m->tape, (int32_t)i)->grad = m->params[i].grad; }
    TRY(peft__pool_create(mem, threads, &m->pool));
    TRY(peft__plan_make(&m->plan, mem, &m->tape, &caps, limit, k, threads, TINY_D));
    TRY(peft__exec_create(&m->exec, mem, &m->tape, &m->plan, k, m->pool));
    m->frame.n_rows = TINY_ROWS;
    m->frame.count[PEFT__SPACE_TOKENS] = m->frame.count[PEFT__SPACE_INPUT] = TINY_TOKENS;
    m->frame.count[PEFT__SPACE_ROWS] = TINY_ROWS;
    m->frame.offsets[PEFT__SPACE_TOKENS] = m->frame.offsets[PEFT__SPACE_INPUT] = tiny_offsets;
    m->frame.ids = tiny_ids;
    m->frame.positions = tiny_positions;
    m->frame.labels = tiny_labels;
    m->frame.loss_scale = 1;
    m->frame.seed = 5;
    m->frame.step = 9;
out:
    return st;
}

static void tiny_free(tiny *m) {
    peft__exec_free(&m->exec);
    peft__plan_free(&m->plan);
    peft__pool_free(m->pool);
    peft__tape_free(&m->tape);
    peft__arena_free(&m->arena);
}

static inline void tiny_clear(tiny *m) {
    for (int32_t i = 0; i < m->n_params; i++) {
        memset(m->params[i].grad, 0, (size_t)(m->params[i].rows * m->params[i].cols) * sizeof(peft__real));
    }
}

#endif
