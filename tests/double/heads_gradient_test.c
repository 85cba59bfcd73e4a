/* Gradients of what heads are made of, in double, against central differences: every loss of op_loss.c, one state for a row by its
 * first, last and mean token, rows of length 1, class weights, label smoothing, anchors with one and two other texts, and virtual
 * tokens before the rows, which a mean leaves out. The losses themselves against their formulas written plainly. */
#include <math.h>

#include "autograd/task.h"
#include "runner.h"
#include "support/tiny.h"

enum { HEADS_ROWS = 6, HEADS_TOKENS = 17, HEADS_LABELS = 3, HEADS_VIRTUAL = 2, HEADS_STREAM = HEADS_TOKENS + HEADS_ROWS * HEADS_VIRTUAL };

typedef struct heads_shape {
    peft__task task;
    int32_t pool;
    bool unit, weights, virtual_tokens;
    double smoothing;
    int32_t texts; /* of a contrast's rows: 2 or 3 */
} heads_shape;

#define SEQUENCE(p) {.kind = PEFT__TASK_SEQUENCE, .problem = PEFT__PROBLEM_##p, .labels = HEADS_LABELS}
#define OTHER(k) {.kind = PEFT__TASK_##k, .labels = HEADS_LABELS}

static const heads_shape heads_shapes[] = {
    {.task = SEQUENCE(SINGLE), .pool = PEFT__POOL_FIRST},
    {.task = SEQUENCE(SINGLE), .pool = PEFT__POOL_LAST, .weights = true, .virtual_tokens = true},
    {.task = SEQUENCE(SINGLE), .pool = PEFT__POOL_MEAN, .weights = true, .smoothing = 0.2, .virtual_tokens = true},
    {.task = SEQUENCE(SINGLE), .pool = PEFT__POOL_FIRST, .smoothing = 0.3, .virtual_tokens = true},
    {.task = SEQUENCE(MULTI), .pool = PEFT__POOL_MEAN},
    {.task = SEQUENCE(MULTI), .pool = PEFT__POOL_FIRST, .virtual_tokens = true},
    {.task = SEQUENCE(REGRESSION), .pool = PEFT__POOL_LAST},
    {.task = OTHER(TOKENS), .weights = true, .smoothing = 0.1},
    {.task = OTHER(TOKENS), .virtual_tokens = true},
    {.task = OTHER(SPAN)},
    {.task = OTHER(SPAN), .virtual_tokens = true},
    {.task = OTHER(EMBEDDING), .pool = PEFT__POOL_MEAN, .unit = true, .texts = 2},
    {.task = OTHER(EMBEDDING), .pool = PEFT__POOL_MEAN, .texts = 3, .virtual_tokens = true},
    {.task = OTHER(EMBEDDING), .pool = PEFT__POOL_LAST, .unit = true, .texts = 3},
};

static const int64_t heads_offsets[HEADS_ROWS + 1] = {0, 4, 6, 7, 10, 15, 17};
static const int32_t heads_ids[HEADS_TOKENS] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 12, 0, 11, 7, 8, 3, 10, 1};
static const int32_t heads_row_labels[HEADS_ROWS] = {2, 0, -100, 1, 2, 1};
static const int32_t heads_parts[2][HEADS_ROWS] = {{0, 1, 0, 1, 0, 1}, {0, 1, 2, 0, 1, 2}};
static const float heads_weights[HEADS_LABELS] = {0.5F, 1.75F, 0.25F};
static const float heads_targets[HEADS_ROWS * HEADS_LABELS] = {1, 0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0};
static const int32_t heads_spans[2 * HEADS_ROWS] = {1, 3, 0, 1, -1, -1, 2, 2, 0, 4, 1, 1};

typedef struct heads_arrays { /* of a frame with virtual tokens */
    int64_t offsets[HEADS_ROWS + 1];
    int32_t labels[HEADS_STREAM], spans[2 * HEADS_ROWS], positions[HEADS_STREAM];
} heads_arrays;

static void heads_fill(tiny *m, const heads_shape *s, heads_arrays *a) {
    int64_t v = s->virtual_tokens ? HEADS_VIRTUAL : 0;
    peft__frame *f = &m->frame;
    for (int64_t r = 0; r <= HEADS_ROWS; r++) { a->offsets[r] = heads_offsets[r] + r * v; }
    for (int64_t r = 0; r < HEADS_ROWS; r++) {
        for (int64_t t = a->offsets[r]; t < a->offsets[r + 1]; t++) {
            int64_t own = t - a->offsets[r] - v;
            a->labels[t] = own < 0 || own % 3 == 2 ? -100 : (int32_t)((own + r) % HEADS_LABELS);
            a->positions[t] = 0;
        }
        for (int64_t j = 0; j < 2; j++) {
            int32_t at = heads_spans[2 * r + j];
            a->spans[2 * r + j] = at < 0 ? -1 : at + (int32_t)v;
        }
    }
    f->n_rows = f->count[PEFT__SPACE_ROWS] = HEADS_ROWS;
    f->count[PEFT__SPACE_INPUT] = HEADS_TOKENS;
    f->count[PEFT__SPACE_TOKENS] = HEADS_TOKENS + HEADS_ROWS * v;
    f->offsets[PEFT__SPACE_INPUT] = heads_offsets;
    f->offsets[PEFT__SPACE_TOKENS] = a->offsets;
    f->ids = heads_ids;
    f->positions = a->positions;
    f->labels = a->labels;
    f->spans = a->spans;
    f->row_labels = heads_row_labels;
    f->targets = s->task.problem == PEFT__PROBLEM_SINGLE ? NULL : heads_targets;
    f->parts = s->texts > 0 ? heads_parts[s->texts - 2] : NULL;
    f->class_weights[0] = s->weights ? heads_weights : NULL;
    f->similarity_scale = 5;
    f->loss_scale = 1;
    f->label_smoothing = s->smoothing;
}

static peft_status heads_create(tiny *m, const heads_shape *s, heads_arrays *a) {
    peft_status st = PEFT_OK;
    peft__tape *t = &m->tape;
    peft__caps caps = {.max_rows = HEADS_ROWS, .max_tokens = HEADS_TOKENS, .max_length = 8,
                       .virtual_tokens = s->virtual_tokens ? HEADS_VIRTUAL : 0};
    memset(m, 0, sizeof *m);
    m->mem = runner_mem();
    m->train = TINY_FULL;
    m->rng.key = 991;
    peft__arena_init(&m->arena, m->mem);
    peft__tape_init(t, m->mem, true);
    t->segments = 2;
    peft__val x = peft__op_embed(t, tiny_frozen(m, TINY_V, TINY_C, 0.7), tiny_param(m, TINY_V, TINY_C, 0.7, 0), 1);
    if (s->virtual_tokens) {
        peft__prepend p = {.rows = peft__op_param(t, tiny_param(m, HEADS_VIRTUAL, TINY_C, 0.7, 0)), .n = HEADS_VIRTUAL, .tasks = 1,
                           .groups = UINT32_MAX};
        t->virtual_tokens = HEADS_VIRTUAL;
        x = peft__op_prepend(t, x, &p, 1);
    }
    t->segment = 1;
    x = peft__op_act(t, PEFT__ACT_TANH, tiny_linear(m, x, TINY_C, TINY_C));
    if (s->pool != PEFT__POOL_NONE) { x = peft__op_pool(t, x, s->pool); }
    if (s->task.kind != PEFT__TASK_EMBEDDING) { x = tiny_linear(m, x, TINY_C, s->task.kind == PEFT__TASK_SPAN ? 2 : HEADS_LABELS); }
    if (s->unit) { x = peft__op_unit_rows(t, x); }
    peft__op_loss(t, x, &s->task);
    TRY(peft__tape_finish(t));
    for (size_t i = 0; i < t->params.len; i++) { peft__tape_param_at(t, (int32_t)i)->grad = m->params[i].grad; }
    TRY(peft__pool_create(m->mem, 2, &m->pool));
    TRY(peft__plan_make(&m->plan, m->mem, t, &caps, 0, &peft__kernels_generic, 2, TINY_D));
    TRY(peft__exec_create(&m->exec, m->mem, t, &m->plan, &peft__kernels_generic, m->pool));
    heads_fill(m, s, a);
out:
    return st;
}

static double heads_loss(tiny *m) { return peft__exec_run(&m->exec, &m->frame, true) == PEFT_OK ? m->frame.loss_sum : (double)NAN; }

static double heads_slope(tiny *m, peft__real *v, double h) {
    static const double at[4] = {-2, -1, 1, 2};
    double v0 = *v, f[4];
    for (int k = 0; k < 4; k++) {
        *v = v0 + at[k] * h;
        f[k] = heads_loss(m);
    }
    *v = v0;
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h);
}

/* The largest error over all parameters, as a share; *largest: of the gradient. */
static double heads_error(tiny *m, double *largest) {
    static peft__real grads[TINY_PARAMS][TINY_V * TINY_C];
    double worst = 0;
    *largest = 0;
    tiny_clear(m);
    if (isnan(heads_loss(m))) { return (double)NAN; }
    for (int32_t i = 0; i < m->n_params; i++) {
        size_t n = (size_t)(m->params[i].rows * m->params[i].cols);
        memcpy(grads[i], m->params[i].grad, n * sizeof(peft__real));
        for (size_t k = 0; k < n; k++) { *largest = fmax(*largest, fabs(grads[i][k])); }
    }
    for (int32_t i = 0; i < m->n_params; i++) {
        for (int64_t k = 0; k < m->params[i].rows * m->params[i].cols; k++) {
            double error = fabs(heads_slope(m, &m->params[i].value[k], 1e-3) - grads[i][k]);
            worst = fmax(worst, error / fmax(fabs(grads[i][k]), 0.1 * *largest));
        }
    }
    return worst;
}

TEST(heads_gradients) {
    for (size_t s = 0; s < PEFT__COUNT(heads_shapes); s++) {
        tiny m;
        heads_arrays a;
        double largest = 0;
        CHECK_OK(heads_create(&m, &heads_shapes[s], &a));
        double worst = heads_error(&m, &largest);
        if (!(worst < 1e-7)) { printf("  shape %zu\n", s); }
        CHECK_NEAR(worst, 0, 1e-7);
        CHECK(largest > 1e-3);
        tiny_free(&m);
    }
}

/* Sums of a frame of outputs that were asked for, by the formulas. */
static double heads_plain_single(const float *x, const heads_shape *s, double *divisor) {
    double sum = 0;
    *divisor = 0;
    for (int32_t r = 0; r < HEADS_ROWS; r++) {
        const float *v = x + r * HEADS_LABELS;
        int32_t y = heads_row_labels[r];
        double all = 0, mean = 0, w = y >= 0 && s->weights ? (double)heads_weights[y] : 1;
        if (y < 0) { continue; }
        for (int32_t j = 0; j < HEADS_LABELS; j++) { all += exp((double)v[j]); }
        for (int32_t j = 0; j < HEADS_LABELS; j++) { mean += (log(all) - (double)v[j]) / HEADS_LABELS; }
        sum += w * ((1 - s->smoothing) * (log(all) - (double)v[y]) + s->smoothing * mean);
        *divisor += w;
    }
    return sum;
}

TEST(heads_loss_of_classes_is_the_formula) {
    float outputs[HEADS_ROWS * HEADS_LABELS];
    for (size_t s = 0; s < 4; s++) {
        tiny m;
        heads_arrays a;
        double divisor = 0;
        CHECK_OK(heads_create(&m, &heads_shapes[s], &a));
        m.frame.logits = outputs;
        CHECK_OK(peft__exec_run(&m.exec, &m.frame, false));
        double plain = heads_plain_single(outputs, &heads_shapes[s], &divisor);
        CHECK_NEAR(m.frame.loss_sum, plain, 1e-5); /* outputs are floats */
        CHECK_NEAR(m.frame.divisor, divisor, 1e-6);
        CHECK_INT(m.frame.labelled, 5);
        tiny_free(&m);
    }
}
