/* The attention op of encoders and encoder-decoders: sessions that go on token by token against whole rows, tables of biases, what
 * the tape refuses, and the same bits with any number of threads. */
#include "runner.h"
#include "support/attend.h"

/* ---- a session ------------------------------------------------------------------------------------------------------------- */

typedef struct cached {
    peft__kv_cache c;
    peft__real *blocks[4];                  /* k, v, cross_k, cross_v of one layer */
    int64_t length[ATTEND_ROWS], prefix[ATTEND_ROWS], cross_length[ATTEND_ROWS], offsets[ATTEND_ROWS + 1];
    int32_t slots[ATTEND_ROWS];
    peft__real *q, *k, *v;                  /* of the pass */
    int64_t done[ATTEND_ROWS];              /* tokens of each row that earlier passes had */
} cached;

static void cached_init(cached *x, attend *a) {
    const attend_shape *s = &a->s;
    int64_t most = 0, keys = 0, tokens = a->q_offsets[s->n_rows];
    memset(x, 0, sizeof *x);
    for (int64_t r = 0; r < s->n_rows; r++) {
        most = PEFT__MAX(most, s->n[r]);
        keys = PEFT__MAX(keys, s->k_n[r]);
        x->slots[r] = (int32_t)(s->n_rows - 1 - r);
        x->cross_length[x->slots[r]] = s->k_n[r];
        x->prefix[r] = s->prefix;
    }
    x->c.rows = s->n_rows;
    x->c.kv_dim = s->kv_heads * s->dim;
    x->c.capacity = s->prefix + most;
    x->c.cross_capacity = s->prefix + keys;
    x->c.length = x->length;
    x->c.prefix = x->prefix;
    x->c.cross_length = x->cross_length;
    for (int32_t i = 0; i < 4; i++) {
        x->blocks[i] = attend_noise(a, x->c.rows * PEFT__MAX(x->c.capacity, x->c.cross_capacity) * x->c.kv_dim, 0, 0, (double)NAN);
    }
    x->c.k = &x->blocks[0];
    x->c.v = &x->blocks[1];
    x->c.cross_k = &x->blocks[2];
    x->c.cross_v = &x->blocks[3];
    x->q = attend_noise(a, tokens * s->heads * s->dim, 0, 0, 0);
    x->k = attend_noise(a, tokens * x->c.kv_dim, 0, 0, 0);
    x->v = attend_noise(a, tokens * x->c.kv_dim, 0, 0, 0);
}

static void cached_rows(peft__real *to, const peft__real *from, int64_t first, int64_t at, int64_t n, int64_t cols) {
    memcpy(to + at * cols, from + first * cols, (size_t)(n * cols) * sizeof *to);
}

/* The next `n` tokens of every row, of which each must have as many left. What they give goes to its place in `all`. */
static void cached_pass(cached *x, attend *a, int64_t n, peft__real *all) {
    const attend_shape *s = &a->s;
    const peft__real *whole[3] = {a->params[ATTEND_Q].value, a->params[ATTEND_K].value, a->params[ATTEND_V].value};
    peft__real *piece[3] = {x->q, x->k, x->v};
    int64_t cols[3] = {s->heads * s->dim, x->c.kv_dim, x->c.kv_dim};
    peft__frame f = a->frame;
    bool begun = x->done[0] > 0;
    for (int64_t r = 0; r < s->n_rows; r++) {
        x->offsets[r + 1] = x->offsets[r] + n;
        for (int32_t j = 0; j < (s->cross ? 1 : 3); j++) {
            cached_rows(piece[j], whole[j], a->q_offsets[r] + x->done[r], x->offsets[r], n, cols[j]);
        }
    }
    for (int32_t j = 0; j < 3; j++) { /* parameters 0, 1 and 2 of the tape */
        if (j == 0 || !s->cross) { peft__tape_param_at(&a->tape, j)->value = piece[j]; }
    }
    memset(a->exec.block, 0xff, a->plan.block_bytes); /* nothing of an earlier pass is left */
    f.offsets[PEFT__SPACE_TOKENS] = x->offsets;
    f.count[PEFT__SPACE_TOKENS] = x->offsets[s->n_rows];
    f.offsets[PEFT__SPACE_ENCODER] = begun ? NULL : f.offsets[PEFT__SPACE_ENCODER];
    f.count[PEFT__SPACE_ENCODER] = begun ? 0 : f.count[PEFT__SPACE_ENCODER];
    f.cache = &x->c;
    f.cache_rows = x->slots;
    CHECK_OK(peft__exec_run(&a->exec, &f, false));
    for (int64_t r = 0; r < s->n_rows; r++) {
        cached_rows(all + (a->q_offsets[r] + x->done[r]) * cols[0], a->out, x->offsets[r], 0, n, cols[0]);
        x->done[r] += n;
        x->length[x->slots[r]] = s->prefix + x->done[r];
    }
}

static const attend_shape session_shapes[] = {
    {.heads = 2, .kv_heads = 1, .dim = 8, .n_rows = 3, .n = {9, 9, 9}, .causal = true, .prefix = 3},
    {.heads = 2, .kv_heads = 2, .dim = 8, .n_rows = 3, .n = {9, 9, 9}, .causal = true, .buckets = 6, .max_distance = 5},
    {.heads = 2, .kv_heads = 1, .dim = 8, .n_rows = 2, .n = {9, 9}, .causal = true, .buckets = 6, .max_distance = 7, .prefix = 4},
    {.heads = 2, .kv_heads = 1, .dim = 8, .n_rows = 2, .n = {9, 9}, .causal = true, .buckets = 6, .max_distance = 7, .prefix = 4,
     .unplaced = true, .frozen = true},
    {.heads = 4, .kv_heads = 2, .dim = 8, .n_rows = 3, .n = {9, 9, 9}, .k_n = {20, 1, 300}, .cross = true},
    {.heads = 4, .kv_heads = 2, .dim = 8, .n_rows = 3, .n = {9, 9, 9}, .k_n = {20, 1, 7}, .cross = true, .prefix = 5},
    {.heads = 2, .kv_heads = 2, .dim = 8, .n_rows = 3, .n = {9, 9, 9}, .k_n = {2, 1, 7}, .cross = true, .prefix = 5, .gates = 2},
};

TEST(autograd_attention_goes_on_in_a_session) {
    static peft__real whole[4 * 9 * 64], parts[4 * 9 * 64];
    for (size_t i = 0; i < PEFT__COUNT(session_shapes); i++) {
        attend a;
        cached x;
        CHECK_OK(attend_create(&a, runner_mem(), &session_shapes[i], false, &peft__kernels_generic, 2));
        int64_t n = a.q_offsets[a.s.n_rows] * a.s.heads * a.s.dim;
        CHECK_OK(peft__exec_run(&a.exec, &a.frame, false));
        CHECK_NEAR(a.frame.loss_sum, attend_plain(&a), 2e-5 * sqrt((double)n));
        memcpy(whole, a.out, (size_t)n * sizeof *whole);
        memset(parts, 0xff, sizeof parts);
        cached_init(&x, &a);
        cached_pass(&x, &a, 2, parts);
        while (x.done[0] < 5) { cached_pass(&x, &a, 1, parts); }
        cached_pass(&x, &a, 4, parts);
        for (int64_t j = 0; j < n; j++) { CHECK_NEAR(parts[j], whole[j], 2e-6); }
        attend_free(&a);
    }
}

/* ---- tables ------------------------------------------------------------------------------------------------------------------ */

/* What transformers 4.57 gives for 32 buckets up to 128. */
TEST(autograd_attention_buckets) {
    static const struct {
        int64_t d, both, behind;
    } cases[] = {
        {-1000, 15, 31}, {-128, 15, 31}, {-127, 15, 31}, {-120, 15, 31}, {-91, 15, 29}, {-90, 14, 29},
        {-64, 14, 26}, {-63, 13, 26}, {-33, 12, 21}, {-32, 12, 21}, {-31, 11, 21}, {-16, 10, 16},
        {-15, 9, 15}, {-8, 8, 8}, {-7, 7, 7}, {-1, 1, 1}, {0, 0, 0}, {1, 17, 0},
        {7, 23, 0}, {8, 24, 0}, {11, 24, 0}, {12, 25, 0}, {15, 25, 0}, {16, 26, 0},
        {22, 26, 0}, {23, 27, 0}, {31, 27, 0}, {32, 28, 0}, {45, 28, 0}, {46, 29, 0},
        {64, 30, 0}, {91, 31, 0}, {128, 31, 0}, {5000, 31, 0},
    };
    peft__bias b = {.buckets = 32, .max_distance = 128, .bidirectional = true}, c = {.buckets = 32, .max_distance = 128};
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        CHECK_INT(peft__relative_bucket(&b, cases[i].d), cases[i].both);
        CHECK_INT(peft__relative_bucket(&c, cases[i].d), cases[i].behind);
    }
}

TEST(autograd_attention_frozen_table_is_as_the_parameter) {
    attend_shape s = {.heads = 3, .kv_heads = 1, .dim = 8, .n_rows = 2, .n = {300, 2}, .buckets = 8, .max_distance = 40,
                      .bidirectional = true};
    attend a, b;
    CHECK_OK(attend_create(&a, runner_mem(), &s, false, &peft__kernels_generic, 1));
    s.frozen = true;
    CHECK_OK(attend_create(&b, runner_mem(), &s, false, &peft__kernels_generic, 1));
    CHECK_OK(peft__exec_run(&a.exec, &a.frame, false));
    CHECK_OK(peft__exec_run(&b.exec, &b.frame, false));
    CHECK_MEM(b.out, a.out, (size_t)(302 * 24) * sizeof *a.out);
    CHECK_NEAR(a.frame.loss_sum, attend_plain(&a), 1e-3);
    attend_free(&a);
    attend_free(&b);
}

/* ---- refusals ---------------------------------------------------------------------------------------------------------------- */

static void refuse(const attend_shape *s, peft_status code, const char *text) {
    attend a;
    CHECK_STATUS(attend_create(&a, runner_mem(), s, false, &peft__kernels_generic, 1), code);
    CHECK_ERROR_HAS(text);
    attend_free(&a);
}

TEST(autograd_attention_refuses) {
    const attend_shape plain = {.heads = 2, .kv_heads = 2, .dim = 4, .n_rows = 1, .n = {3}, .k_n = {3}, .buckets = 8, .max_distance = 9,
                                .bidirectional = true};
    attend_shape s = plain;
    s.softcap = 30;
    refuse(&s, PEFT_E_UNSUPPORTED, "a cap of 30 on its scores");
    s = plain;
    s.cross = true;
    refuse(&s, PEFT_E_UNSUPPORTED, "cross attention");
    s.buckets = 0;
    s.causal = true;
    refuse(&s, PEFT_E_UNSUPPORTED, "cross attention");
    s.causal = false;
    s.window = 2;
    refuse(&s, PEFT_E_UNSUPPORTED, "cross attention");
    s = plain;
    s.max_distance = 2;
    refuse(&s, PEFT_E_INVALID, "8 buckets of relative positions up to 2, expected 4 buckets or more, and a distance above 2");
    s = plain;
    s.buckets = 3;
    refuse(&s, PEFT_E_INVALID, "3 buckets of relative positions up to 9, expected 4 buckets or more");
    s.bidirectional = false;
    s.buckets = 1;
    refuse(&s, PEFT_E_INVALID, "expected 2 buckets or more");
}

TEST(autograd_attention_refuses_a_table_of_another_shape) {
    peft__tape t;
    const peft__weight w = {.name = "w", .rows = 8, .cols = 3};
    const peft__bias b = {.table = &w, .param = PEFT__NONE, .buckets = 8, .max_distance = 20};
    peft__tape_init(&t, runner_mem(), false);
    CHECK(peft__relative_make(&t, &b, 4) == NULL);
    CHECK_STATUS(peft__tape_finish(&t), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("is [8, 3], expected [8, 4]");
    peft__tape_free(&t);
}

/* ---- threads ------------------------------------------------------------------------------------------------------------------ */

static const attend_shape thread_shapes[] = {
    {.heads = 4, .kv_heads = 2, .dim = 8, .n_rows = 4, .n = {300, 1, 140, 33}, .causal = true, .prefix = 5, .buckets = 6,
     .max_distance = 50},
    {.heads = 4, .kv_heads = 4, .dim = 8, .n_rows = 3, .n = {260, 7, 140}, .encoder = true, .buckets = 8, .max_distance = 50,
     .bidirectional = true, .window = 60},
    {.heads = 4, .kv_heads = 2, .dim = 8, .n_rows = 3, .n = {140, 1, 33}, .k_n = {3, 300, 1}, .cross = true, .prefix = 4, .gates = 2},
};

TEST(autograd_attention_same_bits_with_any_threads) {
    for (size_t i = 0; i < PEFT__COUNT(thread_shapes); i++) {
        attend one, many;
        CHECK_OK(attend_create(&one, runner_mem(), &thread_shapes[i], true, &peft__kernels_generic, 1));
        CHECK_OK(peft__exec_run(&one.exec, &one.frame, true));
        CHECK_NEAR(one.frame.loss_sum, attend_plain(&one), 2e-3);
        for (int32_t threads = 2; threads <= 4; threads += 2) {
            CHECK_OK(attend_create(&many, runner_mem(), &thread_shapes[i], true, &peft__kernels_generic, threads));
            CHECK_OK(peft__exec_run(&many.exec, &many.frame, true));
            CHECK(many.frame.loss_sum == one.frame.loss_sum);
            for (int32_t p = 0; p < ATTEND_PARAMS; p++) {
                const peft__param *x = &one.params[p];
                if (x->grad == NULL) { continue; }
                CHECK_MEM(many.params[p].grad, x->grad, (size_t)(x->rows * x->cols) * sizeof(peft__real));
                CHECK(x->grad[0] < 0 || x->grad[0] > 0);
            }
            attend_free(&many);
        }
        attend_free(&one);
    }
}
