/* Gradients of the ops that act on rows of the batch as a whole, in double, against central differences: gates with one and two
 * factors, over shared and separate inputs, under stochastic depth. */
#include <math.h>

#include "runner.h"
#include "support/tiny.h"

enum { GATE_ONE = 0, GATE_TWO = 1, GATE_SELF = 2, GATE_KEEP = 3, GATE_SHARED = 4, GATE_SHAPES = 5 };

static peft__val gate_layer(tiny *m, peft__val x, int shape) {
    peft__tape *t = &m->tape;
    int32_t n = shape == GATE_TWO ? 2 : 1;
    peft__val y = shape == GATE_SELF ? x : tiny_linear(m, x, TINY_C, TINY_C);
    int32_t w = tiny_param(m, n, TINY_C, 0.8, 0), b = tiny_param(m, 1, n, 0.5, 0);
    if (shape == GATE_SHARED) { /* one gate scales two values */
        peft__val g = peft__op_row_mean_gate(t, x, w, b), z = tiny_linear(m, x, TINY_C, TINY_C);
        y = peft__op_act(t, PEFT__ACT_TANH, peft__op_add(t, peft__op_row_scale(t, y, g), peft__op_row_scale(t, z, g)));
    } else {
        y = peft__op_row_gate(t, y, x, w, b);
    }
    if (shape == GATE_KEEP) { y = peft__op_row_scale(t, y, peft__op_row_keep(t, 0.4, (uint64_t)w)); }
    return peft__op_add(t, x, y);
}

static peft_status gate_create(tiny *m, int shape, size_t limit) {
    peft_status st = PEFT_OK;
    peft__caps caps = {.max_rows = TINY_ROWS, .max_tokens = TINY_TOKENS, .max_length = 8};
    peft__head_spec head;
    memset(m, 0, sizeof *m);
    memset(&head, 0, sizeof head);
    m->mem = runner_mem();
    m->train = TINY_FULL;
    m->rng.key = 77;
    peft__arena_init(&m->arena, m->mem);
    peft__tape_init(&m->tape, m->mem, true);
    m->tape.segments = 4;
    peft__val x = peft__op_embed(&m->tape, tiny_frozen(m, TINY_V, TINY_C, 0.7), tiny_param(m, TINY_V, TINY_C, 0.7, 0), 1);
    for (int32_t l = 0; l < 2; l++) {
        m->tape.segment = 1 + l;
        x = gate_layer(m, x, shape);
    }
    m->tape.segment = 3;
    head.weight = tiny_frozen(m, TINY_V, TINY_C, 0.7);
    head.w_param = head.b_param = head.lora_a = head.lora_b = PEFT__NONE;
    head.vocab = TINY_V;
    head.scale = 1;
    peft__op_head(&m->tape, x, &head);
    TRY(peft__tape_finish(&m->tape));
    for (size_t i = 0; i < m->tape.params.len; i++) { peft__tape_param_at(&m->tape, (int32_t)i)->grad = m->params[i].grad; }
    TRY(peft__pool_create(m->mem, 2, &m->pool));
    TRY(peft__plan_make(&m->plan, m->mem, &m->tape, &caps, limit, &peft__kernels_generic, 2, TINY_D));
    TRY(peft__exec_create(&m->exec, m->mem, &m->tape, &m->plan, &peft__kernels_generic, m->pool));
    m->frame.n_rows = m->frame.count[PEFT__SPACE_ROWS] = TINY_ROWS;
    m->frame.count[PEFT__SPACE_TOKENS] = m->frame.count[PEFT__SPACE_INPUT] = TINY_TOKENS;
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

static double gate_loss(tiny *m) {
    return peft__exec_run(&m->exec, &m->frame, true) == PEFT_OK ? m->frame.loss_sum : (double)NAN;
}

/* The slope of the loss along one value. */
static double gate_slope(tiny *m, peft__real *v, double h) {
    double v0 = *v, f[4];
    static const double at[4] = {-2, -1, 1, 2};
    for (int k = 0; k < 4; k++) {
        *v = v0 + at[k] * h;
        f[k] = gate_loss(m);
    }
    *v = v0;
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h);
}

static double gate_error(tiny *m) {
    double worst = 0, scale = 0;
    static peft__real grads[TINY_PARAMS][TINY_V * TINY_C];
    tiny_clear(m);
    if (isnan(gate_loss(m))) { return (double)NAN; }
    for (int32_t i = 0; i < m->n_params; i++) {
        size_t n = (size_t)(m->params[i].rows * m->params[i].cols);
        memcpy(grads[i], m->params[i].grad, n * sizeof(peft__real));
        for (size_t k = 0; k < n; k++) { scale = fmax(scale, fabs(grads[i][k])); }
    }
    for (int32_t i = 0; i < m->n_params; i++) {
        for (int64_t k = 0; k < m->params[i].rows * m->params[i].cols; k++) {
            double error = fabs(gate_slope(m, &m->params[i].value[k], 1e-4) - grads[i][k]);
            worst = fmax(worst, error / fmax(fabs(grads[i][k]), 0.1 * scale));
        }
    }
    return worst;
}

TEST(gate_gradients) {
    for (int shape = 0; shape < GATE_SHAPES; shape++) {
        tiny m;
        CHECK_OK(gate_create(&m, shape, 0));
        CHECK_NEAR(gate_error(&m), 0, 1e-7);
        tiny_free(&m);
    }
}

/* With every layer rebuilt in the backward pass. */
TEST(gate_gradients_rebuilt) {
    for (int shape = 0; shape < GATE_SHAPES; shape++) {
        tiny m;
        CHECK_OK(gate_create(&m, shape, 0));
        size_t bytes = peft__plan_bytes(&m.plan) - 1;
        tiny_free(&m);
        CHECK_OK(gate_create(&m, shape, bytes));
        CHECK(m.plan.recomputed > 0);
        CHECK_NEAR(gate_error(&m), 0, 1e-7);
        tiny_free(&m);
    }
}

/* Rows that are dropped have no gradient, and others more: the mask is one of the seed and the step. */
TEST(gate_keep_draws_by_step) {
    tiny m;
    int kept = 0;
    CHECK_OK(gate_create(&m, GATE_KEEP, 0));
    double first = gate_loss(&m);
    CHECK(gate_loss(&m) == first);
    for (uint64_t step = 0; step < 20; step++) {
        m.frame.step = step;
        kept += gate_loss(&m) != first;
    }
    CHECK(kept > 5);
    tiny_free(&m);
}
