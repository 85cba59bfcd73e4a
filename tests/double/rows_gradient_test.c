/* Gradients of rows that stand in for those of an embedding and of a head, in double, against central differences: tied and apart,
 * with new tokens, over a trained table, a trained head, a low-rank term, a bias, a soft cap and label smoothing. */
#include <math.h>

#include "runner.h"
#include "support/tiny.h"

typedef struct rows_shape {
    bool tied, extra, trained, low_rank, twice; /* twice: rows over rows */
    double softcap, smoothing, scale;
} rows_shape;

static const rows_shape rows_shapes[] = {
    {.tied = true, .scale = 1},
    {.tied = true, .extra = true, .scale = 2.5},
    {.extra = true, .trained = true, .scale = 1.25, .softcap = 2},
    {.tied = true, .extra = true, .trained = true, .low_rank = true, .scale = 1, .smoothing = 0.2},
    {.extra = true, .low_rank = true, .twice = true, .scale = 1, .softcap = 3, .smoothing = 0.1},
    {.trained = true, .twice = true, .scale = 0.5},
};

/* TINY_V is the first new id. */
static const int32_t rows_ids[TINY_TOKENS] = {3, 1, 4, 1, 5, 9, TINY_V, 6, 5, TINY_V + 1, 1};
static const int32_t rows_labels[TINY_TOKENS] = {1, 4, -100, 5, 9, -100, 6, TINY_V, 12, -100, 1};

static void rows_head(tiny *m, const rows_shape *s, peft__val x, int32_t table, int32_t rows, const int32_t *ids, int64_t n) {
    peft__head_spec head;
    memset(&head, 0, sizeof head);
    head.weight = tiny_frozen(m, TINY_V, TINY_C, 0.7);
    head.w_param = s->trained && s->tied ? table : s->trained ? tiny_param(m, TINY_V, TINY_C, 0.7, 0) : PEFT__NONE;
    head.b_param = s->low_rank ? tiny_param(m, 1, TINY_V, 0.3, 0) : PEFT__NONE;
    head.lora_a = s->low_rank ? tiny_param(m, TINY_R, TINY_C, 0.5, 0) : PEFT__NONE;
    head.lora_b = s->low_rank ? tiny_param(m, TINY_V, TINY_R, 0.5, 0) : PEFT__NONE;
    head.lora_scale = 0.7;
    head.vocab = TINY_V;
    head.scale = 0.9;
    head.softcap = s->softcap;
    head.rows_param = rows;
    head.row_ids = ids;
    head.n_rows = n;
    head.extra = s->extra ? 2 : 0;
    peft__op_head(&m->tape, x, &head);
}

static peft_status rows_create(tiny *m, const rows_shape *s, size_t limit) {
    static const int32_t plain[3] = {9, 1, 5}, with_new[4] = {TINY_V + 1, 5, TINY_V, 1}, others[2] = {6, 3};
    peft_status st = PEFT_OK;
    peft__caps caps = {.max_rows = TINY_ROWS, .max_tokens = TINY_TOKENS, .max_length = 8};
    const int32_t *ids = s->extra ? with_new : plain;
    int64_t n = s->extra ? 4 : 3;
    memset(m, 0, sizeof *m);
    m->mem = runner_mem();
    m->train = TINY_FULL;
    m->rng.key = 77;
    peft__arena_init(&m->arena, m->mem);
    peft__tape_init(&m->tape, m->mem, true);
    m->tape.segments = 5;
    int32_t table = s->trained ? tiny_param(m, TINY_V, TINY_C, 0.7, 0) : PEFT__NONE, rows = tiny_param(m, n, TINY_C, 0.7, 0);
    peft__val x = peft__op_embed(&m->tape, tiny_frozen(m, TINY_V, TINY_C, 0.7), table, PEFT__R(s->scale));
    if (s->twice) { x = peft__op_embed_rows(&m->tape, x, others, 2, tiny_param(m, 2, TINY_C, 0.7, 0), s->scale); }
    x = peft__op_embed_rows(&m->tape, x, ids, n, rows, s->scale);
    for (m->tape.segment = 1; m->tape.segment < 4; m->tape.segment++) {
        x = peft__op_add(&m->tape, x, peft__op_act(&m->tape, PEFT__ACT_TANH, tiny_linear(m, x, TINY_C, TINY_C)));
    }
    rows_head(m, s, x, table, s->tied ? rows : tiny_param(m, n, TINY_C, 0.7, 0), ids, n);
    TRY(peft__tape_finish(&m->tape));
    for (size_t i = 0; i < m->tape.params.len; i++) { peft__tape_param_at(&m->tape, (int32_t)i)->grad = m->params[i].grad; }
    TRY(peft__pool_create(m->mem, 2, &m->pool));
    TRY(peft__plan_make(&m->plan, m->mem, &m->tape, &caps, limit, &peft__kernels_generic, 2, TINY_D));
    TRY(peft__exec_create(&m->exec, m->mem, &m->tape, &m->plan, &peft__kernels_generic, m->pool));
    m->frame.n_rows = m->frame.count[PEFT__SPACE_ROWS] = TINY_ROWS;
    m->frame.count[PEFT__SPACE_TOKENS] = m->frame.count[PEFT__SPACE_INPUT] = TINY_TOKENS;
    m->frame.offsets[PEFT__SPACE_TOKENS] = m->frame.offsets[PEFT__SPACE_INPUT] = tiny_offsets;
    m->frame.ids = s->extra ? rows_ids : tiny_ids;
    m->frame.labels = s->extra ? rows_labels : tiny_labels;
    m->frame.positions = tiny_positions;
    m->frame.loss_scale = 1;
    m->frame.label_smoothing = s->smoothing;
out:
    return st;
}

static double rows_loss(tiny *m) {
    return peft__exec_run(&m->exec, &m->frame, true) == PEFT_OK ? m->frame.loss_sum : (double)NAN;
}

static double rows_slope(tiny *m, peft__real *v, double h) {
    static const double at[4] = {-2, -1, 1, 2};
    double v0 = *v, f[4];
    for (int k = 0; k < 4; k++) {
        *v = v0 + at[k] * h;
        f[k] = rows_loss(m);
    }
    *v = v0;
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h);
}

static double rows_error(tiny *m) {
    double worst = 0, scale = 0;
    static peft__real grads[TINY_PARAMS][(TINY_V + 2) * TINY_C];
    tiny_clear(m);
    if (isnan(rows_loss(m))) { return (double)NAN; }
    for (int32_t i = 0; i < m->n_params; i++) {
        size_t n = (size_t)(m->params[i].rows * m->params[i].cols);
        memcpy(grads[i], m->params[i].grad, n * sizeof(peft__real));
        for (size_t k = 0; k < n; k++) { scale = fmax(scale, fabs(grads[i][k])); }
    }
    for (int32_t i = 0; i < m->n_params; i++) {
        for (int64_t k = 0; k < m->params[i].rows * m->params[i].cols; k++) {
            double error = fabs(rows_slope(m, &m->params[i].value[k], 1e-4) - grads[i][k]);
            worst = fmax(worst, error / fmax(fabs(grads[i][k]), 0.1 * scale));
        }
    }
    return worst;
}

TEST(rows_gradients) {
    for (size_t s = 0; s < PEFT__COUNT(rows_shapes); s++) {
        tiny m;
        CHECK_OK(rows_create(&m, &rows_shapes[s], 0));
        CHECK_NEAR(rows_error(&m), 0, 1e-7);
        tiny_free(&m);
    }
}

TEST(rows_gradients_rebuilt) {
    for (size_t s = 0; s < PEFT__COUNT(rows_shapes); s++) {
        tiny m;
        CHECK_OK(rows_create(&m, &rows_shapes[s], 0));
        size_t bytes = peft__plan_bytes(&m.plan) - 1;
        tiny_free(&m);
        CHECK_OK(rows_create(&m, &rows_shapes[s], bytes));
        CHECK(m.plan.recomputed > 0);
        CHECK_NEAR(rows_error(&m), 0, 1e-7);
        tiny_free(&m);
    }
}

/* Rows that hold what the table and the head hold change nothing, and what is below them has no gradient. */
TEST(rows_in_place_of_equal_ones) {
    rows_shape s = {.tied = true, .trained = true, .scale = 1};
    tiny m;
    CHECK_OK(rows_create(&m, &s, 0));
    static const int32_t ids[3] = {9, 1, 5};
    peft__param *table = &m.params[0], *rows = &m.params[1];
    for (int i = 0; i < 3; i++) {
        memcpy(rows->value + i * TINY_C, table->value + ids[i] * TINY_C, TINY_C * sizeof(peft__real));
    }
    double loss = rows_loss(&m);
    for (int i = 0; i < 3; i++) {
        for (int c = 0; c < TINY_C; c++) { table->value[ids[i] * TINY_C + c] = 99; } /* read by nobody */
    }
    tiny_clear(&m);
    CHECK_NEAR(rows_loss(&m), loss, 1e-13 * loss);
    for (int i = 0; i < 3; i++) {
        for (int c = 0; c < TINY_C; c++) { CHECK_NEAR(table->grad[ids[i] * TINY_C + c], 0, 0); }
    }
    CHECK(fabs(table->grad[3 * TINY_C]) > 1e-6);
    tiny_free(&m);
}
