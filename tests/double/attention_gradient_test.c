/* Attention of encoders and encoder-decoders in double: the loss against plain loops, and the gradients of queries, keys, values,
 * prefixes, gates and the table of biases by relative position against central differences. */
#include "runner.h"
#include "support/attend.h"

static const attend_shape gradient_shapes[] = {
    {.heads = 2, .kv_heads = 2, .dim = 3, .n_rows = 3, .n = {5, 1, 9}},
    {.heads = 4, .kv_heads = 2, .dim = 2, .n_rows = 4, .n = {9, 1, 3, 6}, .window = 2, .encoder = true},
    {.heads = 2, .kv_heads = 1, .dim = 3, .n_rows = 3, .n = {6, 1, 9}, .window = 3, .prefix = 4},
    {.heads = 2, .kv_heads = 2, .dim = 3, .n_rows = 3, .n = {6, 1, 4}, .prefix = 3, .gates = 2},
    {.heads = 4, .kv_heads = 2, .dim = 2, .n_rows = 4, .n = {4, 1, 6, 1}, .k_n = {7, 1, 1, 12}, .cross = true},
    {.heads = 2, .kv_heads = 1, .dim = 3, .n_rows = 3, .n = {1, 5, 2}, .k_n = {9, 1, 4}, .cross = true, .prefix = 3},
    {.heads = 2, .kv_heads = 2, .dim = 2, .n_rows = 3, .n = {6, 1, 2}, .k_n = {1, 8, 4}, .cross = true, .prefix = 2, .gates = 1},
    {.heads = 4, .kv_heads = 2, .dim = 2, .n_rows = 3, .n = {9, 1, 5}, .causal = true, .buckets = 6, .max_distance = 7},
    {.heads = 2, .kv_heads = 2, .dim = 3, .n_rows = 3, .n = {7, 1, 3}, .causal = true, .prefix = 4, .buckets = 4, .max_distance = 9},
    {.heads = 2, .kv_heads = 1, .dim = 3, .n_rows = 3, .n = {9, 1, 4}, .encoder = true, .buckets = 8, .max_distance = 5,
     .bidirectional = true},
    {.heads = 2, .kv_heads = 2, .dim = 2, .n_rows = 2, .n = {9, 2}, .window = 3, .prefix = 2, .gates = 2, .buckets = 8, .max_distance = 4,
     .bidirectional = true, .unplaced = true},
    {.heads = 2, .kv_heads = 2, .dim = 2, .n_rows = 2, .n = {3, 7}, .causal = true, .prefix = 3, .buckets = 6, .max_distance = 5,
     .unplaced = true},
};

static double gradient_of(attend *a) {
    return peft__exec_run(&a->exec, &a->frame, true) == PEFT_OK ? a->frame.loss_sum : (double)NAN;
}

static double gradient_slope(attend *a, peft__real *v) {
    static const double at[4] = {-2, -1, 1, 2};
    const double h = 1e-4;
    double v0 = *v, f[4];
    for (int k = 0; k < 4; k++) {
        *v = v0 + at[k] * h;
        f[k] = gradient_of(a);
    }
    *v = v0;
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h);
}

/* The largest relative error over every second element of every parameter. */
static double gradient_worst(attend *a) {
    static double grads[ATTEND_PARAMS][ATTEND_MOST];
    double worst = 0, most = 0;
    if (isnan(gradient_of(a))) { return (double)NAN; }
    for (int32_t i = 0; i < ATTEND_PARAMS; i++) {
        const peft__param *p = &a->params[i];
        for (int64_t k = 0; k < p->rows * p->cols; k++) {
            grads[i][k] = p->grad[k];
            most = fmax(most, fabs(p->grad[k]));
        }
    }
    for (int32_t i = 0; i < ATTEND_PARAMS; i++) {
        for (int64_t k = i % 2; k < a->params[i].rows * a->params[i].cols; k += 2) {
            double error = fabs(gradient_slope(a, &a->params[i].value[k]) - grads[i][k]);
            worst = fmax(worst, error / fmax(fabs(grads[i][k]), 0.1 * most));
        }
    }
    return worst;
}

TEST(attention_gradients) {
    for (size_t s = 0; s < PEFT__COUNT(gradient_shapes); s++) {
        attend a;
        CHECK_OK(attend_create(&a, runner_mem(), &gradient_shapes[s], true, &peft__kernels_generic, 2));
        double loss = attend_plain(&a);
        CHECK_NEAR(gradient_of(&a), loss, 1e-13 * fmax(fabs(loss), 1));
        for (int32_t i = 0; i < ATTEND_PARAMS; i++) {
            if (a.params[i].grad != NULL) {
                memset(a.params[i].grad, 0, (size_t)(a.params[i].rows * a.params[i].cols) * sizeof(peft__real));
            }
        }
        CHECK_NEAR(gradient_worst(&a), 0, 1e-7);
        attend_free(&a);
    }
}

/* Layers share a table, and each adds to its gradient. */
TEST(attention_gradient_of_a_table_is_added_to) {
    attend a;
    peft__real once[64];
    CHECK_OK(attend_create(&a, runner_mem(), &gradient_shapes[9], true, &peft__kernels_generic, 1));
    const peft__param *table = &a.params[ATTEND_TABLE];
    size_t n = (size_t)(table->rows * table->cols);
    (void)gradient_of(&a);
    memcpy(once, table->grad, n * sizeof *once);
    (void)gradient_of(&a);
    for (size_t i = 0; i < n; i++) { CHECK_NEAR(table->grad[i], 2 * once[i], 1e-12); }
    CHECK(fabs(once[0]) > 1e-3);
    attend_free(&a);
}
