/* Gradients of what decoders after Llama have, in double, against central differences: norms of each head by itself and with gains
 * above 1, a matrix of q, k and v by heads, a part of each head that turns, positions beyond those of training, capped scores in a
 * window, norms behind attention and layers in parallel. */
#include <math.h>

#include "runner.h"
#include "support/tiny.h"

typedef struct decoder_shape {
    bool trained;                /* gains, and the fused matrix */
    bool behind, parallel;       /* norms behind each part; attention and FFN side by side */
    int64_t rotary, beyond;
    bool stretched;              /* beyond by theta (dynamic), else by other frequencies (longrope) */
    double plus, softcap, rope_scale;
    int64_t window;
} decoder_shape;

static const decoder_shape decoder_shapes[] = {
    {.trained = true, .rotary = 4, .rope_scale = 1},
    {.trained = true, .rotary = 4, .plus = 1, .softcap = 1.5, .window = 3, .behind = true, .rope_scale = 1},
    {.trained = true, .rotary = 2, .parallel = true, .beyond = 3, .rope_scale = 1.2},
    {.rotary = 4, .plus = 1, .beyond = 4, .stretched = true, .rope_scale = 1},
    {.rotary = 2, .beyond = 1, .behind = true, .parallel = true, .window = 2, .rope_scale = 0.8},
};
enum { DECODER_HEADS = TINY_C / TINY_D };

static const double decoder_freq[TINY_D / 2] = {1, 0.3}, decoder_far[TINY_D / 2] = {0.4, 0.05};

/* head_dim 0: of the row. A gain is `plus` and what is trained or frozen. */
static peft__val decoder_norm(tiny *m, const decoder_shape *s, peft__val x, int64_t head_dim) {
    int64_t n = head_dim > 0 ? head_dim : TINY_C;
    int32_t w = s->trained ? tiny_param(m, 1, n, 0.2, 1 - s->plus) : PEFT__NONE;
    return peft__op_rms_norm_heads(&m->tape, x, s->trained ? NULL : tiny_noise(m, n, 0.2, 1), w, 1e-5, head_dim, s->plus);
}

static peft__val decoder_attention(tiny *m, const decoder_shape *s, peft__val x) {
    peft__tape *t = &m->tape;
    peft__attn_spec spec = {.heads = DECODER_HEADS, .kv_heads = DECODER_HEADS, .head_dim = TINY_D, .scale = 0.5, .causal = true,
                            .window = s->window, .softcap = s->softcap};
    const peft__past past = {.k = PEFT__NONE, .v = PEFT__NONE, .gates = PEFT__NONE};
    peft__val qkv = peft__op_regroup(t, tiny_linear(m, x, TINY_C, 3 * TINY_C), DECODER_HEADS, 3);
    peft__val q = decoder_norm(m, s, peft__tape_view(t, qkv, 0, TINY_C), TINY_D);
    peft__val k = decoder_norm(m, s, peft__tape_view(t, qkv, TINY_C, TINY_C), TINY_D);
    q = peft__op_rope(t, q, TINY_D, &m->rope);
    k = peft__op_rope(t, k, TINY_D, &m->rope);
    peft__val v = peft__tape_view(t, qkv, 2 * TINY_C, TINY_C);
    return tiny_linear(m, peft__op_attention(t, q, k, v, &past, &spec), TINY_C, TINY_C);
}

static peft__val decoder_ffn(tiny *m, peft__val x) {
    peft__val both = tiny_linear(m, x, TINY_C, 2 * TINY_F);
    peft__val gate = peft__tape_view(&m->tape, both, 0, TINY_F), up = peft__tape_view(&m->tape, both, TINY_F, TINY_F);
    return tiny_linear(m, peft__op_glu(&m->tape, PEFT__ACT_GELU_TANH, gate, up), TINY_F, TINY_C);
}

static peft__val decoder_layer(tiny *m, const decoder_shape *s, peft__val x) {
    peft__tape *t = &m->tape;
    peft__val a = decoder_attention(m, s, s->behind ? x : decoder_norm(m, s, x, 0));
    if (s->behind) { a = decoder_norm(m, s, a, 0); }
    peft__val y = s->parallel ? x : peft__op_add(t, x, a);
    peft__val f = decoder_ffn(m, s->behind ? y : decoder_norm(m, s, y, 0));
    if (s->behind) { f = decoder_norm(m, s, f, 0); }
    return s->parallel ? peft__op_add(t, x, peft__op_add(t, a, f)) : peft__op_add(t, y, f);
}

static void decoder_record(tiny *m, const decoder_shape *s) {
    peft__tape *t = &m->tape;
    peft__head_spec head;
    t->segments = TINY_LAYERS + 2;
    peft__val x = peft__op_embed(t, tiny_frozen(m, TINY_V, TINY_C, 0.7), PEFT__NONE, 1);
    x = peft__op_scale_all(t, x, 1.7, PEFT__NONE);
    for (int32_t l = 0; l < TINY_LAYERS; l++) {
        t->segment = 1 + l;
        x = decoder_layer(m, s, x);
    }
    t->segment = TINY_LAYERS + 1;
    memset(&head, 0, sizeof head);
    head.weight = tiny_frozen(m, TINY_V, TINY_C, 0.7);
    head.w_param = head.b_param = head.lora_a = head.lora_b = head.rows_param = PEFT__NONE;
    head.vocab = TINY_V;
    head.scale = 1;
    head.softcap = s->softcap;
    peft__op_head(t, decoder_norm(m, s, x, 0), &head);
}

static peft_status decoder_create(tiny *m, const decoder_shape *s, int32_t threads, size_t limit) {
    peft_status st = PEFT_OK;
    peft__caps caps = {.max_rows = TINY_ROWS, .max_tokens = TINY_TOKENS, .max_length = 8};
    memset(m, 0, sizeof *m);
    m->mem = runner_mem();
    m->train = s->trained ? TINY_FULL : TINY_LORA;
    m->rng.key = 99;
    m->rope = (peft__rope){.rotary = s->rotary, .freq = decoder_freq, .scale = s->rope_scale, .beyond = s->beyond,
                           .far = s->stretched ? NULL : decoder_far, .theta = 50, .factor = 3};
    peft__arena_init(&m->arena, m->mem);
    peft__tape_init(&m->tape, m->mem, true);
    decoder_record(m, s);
    TRY(peft__tape_finish(&m->tape));
    for (size_t i = 0; i < m->tape.params.len; i++) { peft__tape_param_at(&m->tape, (int32_t)i)->grad = m->params[i].grad; }
    TRY(peft__pool_create(m->mem, threads, &m->pool));
    TRY(peft__plan_make(&m->plan, m->mem, &m->tape, &caps, limit, &peft__kernels_generic, threads, TINY_D));
    TRY(peft__exec_create(&m->exec, m->mem, &m->tape, &m->plan, &peft__kernels_generic, m->pool));
    m->frame.n_rows = m->frame.count[PEFT__SPACE_ROWS] = TINY_ROWS;
    m->frame.count[PEFT__SPACE_TOKENS] = m->frame.count[PEFT__SPACE_INPUT] = TINY_TOKENS;
    m->frame.offsets[PEFT__SPACE_TOKENS] = m->frame.offsets[PEFT__SPACE_INPUT] = tiny_offsets;
    m->frame.ids = tiny_ids;
    m->frame.positions = tiny_positions;
    m->frame.labels = tiny_labels;
    m->frame.loss_scale = 1;
out:
    return st;
}

static double decoder_loss(tiny *m) {
    return peft__exec_run(&m->exec, &m->frame, true) == PEFT_OK ? m->frame.loss_sum : (double)NAN;
}

static double decoder_slope(tiny *m, peft__real *v, double h) {
    static const double at[4] = {-2, -1, 1, 2};
    double v0 = *v, f[4];
    for (int k = 0; k < 4; k++) {
        *v = v0 + at[k] * h;
        f[k] = decoder_loss(m);
    }
    *v = v0;
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h);
}

/* The largest relative error of every third element of every parameter. */
static double decoder_error(tiny *m) {
    double worst = 0, scale = 0;
    peft__real *grads[TINY_PARAMS];
    tiny_clear(m);
    if (isnan(decoder_loss(m))) { return (double)NAN; }
    for (int32_t i = 0; i < m->n_params; i++) {
        size_t n = (size_t)(m->params[i].rows * m->params[i].cols);
        grads[i] = peft__arena_alloc(&m->arena, n * sizeof(peft__real));
        memcpy(grads[i], m->params[i].grad, n * sizeof(peft__real));
        for (size_t k = 0; k < n; k++) { scale = fmax(scale, fabs(grads[i][k])); }
    }
    for (int32_t i = 0; i < m->n_params; i++) {
        for (int64_t k = i % 3; k < m->params[i].rows * m->params[i].cols; k += 3) {
            double error = fabs(decoder_slope(m, &m->params[i].value[k], 1e-4) - grads[i][k]);
            worst = fmax(worst, error / fmax(fabs(grads[i][k]), 0.1 * scale));
        }
    }
    return worst;
}

TEST(decoder_gradients) {
    for (size_t s = 0; s < PEFT__COUNT(decoder_shapes); s++) {
        tiny m;
        CHECK_OK(decoder_create(&m, &decoder_shapes[s], 1, 0));
        CHECK_NEAR(decoder_error(&m), 0, 1e-7);
        tiny_free(&m);
    }
}

TEST(decoder_gradients_rebuilt_by_two_threads) {
    for (size_t s = 0; s < PEFT__COUNT(decoder_shapes); s++) {
        tiny m;
        CHECK_OK(decoder_create(&m, &decoder_shapes[s], 2, 0));
        size_t bytes = peft__plan_bytes(&m.plan) - 1;
        tiny_free(&m);
        CHECK_OK(decoder_create(&m, &decoder_shapes[s], 2, bytes));
        CHECK(m.plan.recomputed > 0);
        CHECK_NEAR(decoder_error(&m), 0, 1e-7);
        tiny_free(&m);
    }
}

/* Each of these is in the loss: without it the loss is another. */
TEST(decoder_parts_all_matter) {
    const decoder_shape plain = decoder_shapes[1];
    decoder_shape others[4];
    double with;
    tiny m;
    CHECK_OK(decoder_create(&m, &plain, 1, 0));
    with = decoder_loss(&m);
    tiny_free(&m);
    for (size_t i = 0; i < PEFT__COUNT(others); i++) { others[i] = plain; }
    others[0].softcap = 0;
    others[1].window = 0;
    others[2].rotary = 2;
    others[3].beyond = 3; /* the longest row has 6 tokens */
    for (size_t i = 0; i < PEFT__COUNT(others); i++) {
        CHECK_OK(decoder_create(&m, &others[i], 1, 0));
        CHECK(fabs(decoder_loss(&m) - with) > 1e-6 * with);
        tiny_free(&m);
    }
}
