/* Bottleneck adapters over a base that is nothing but places: the golden vectors of AdapterHub's modules, what each option
 * changes, what a fusion gets, what is dropped in training. */
#include <math.h>

#include "bottleneck_kit.h"

enum { BN_WIDTH = 8, BN_TOKENS = 7, BN_VOCAB = 5, BN_SIZE = BN_TOKENS * BN_WIDTH };

/* ---- a run over two batch rows of 3 and 4 tokens, or of a golden vector's two tokens ------------------------------------- */

typedef struct bn_run {
    fake_base *b;
    const peft__adapter *a;
    bool training, one_row; /* one_row: a batch of one row of 2 tokens, through the first layer's last place alone */
    int32_t skip;
    uint64_t step;
    const float *h, *x;     /* [tokens, width] */
    double loss;            /* training: of the head */
    peft__real out[BN_SIZE]; /* otherwise: what the model goes on with */
} bn_run;

static peft__val bn_table(bn_run *r, peft__tape *t, const float *data, int64_t rows, int64_t width) {
    peft__weight *w = peft__arena_alloc(&r->b->arena, sizeof *w);
    *w = (peft__weight){.name = "t", .data = (const uint8_t *)data, .dtype = PEFT_DTYPE_F32, .rows = rows, .cols = width,
                        .row_bytes = width * 4};
    return peft__op_embed(t, w, PEFT__NONE, 1);
}

static const peft__attachment *bn_at(const peft__adapter *a, int32_t site) {
    for (size_t i = 0; i < a->attachments.len; i++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, i);
        if (at->site == site) { return at; }
    }
    return NULL;
}

/* Each place adds to the stream what the one before it left, halved, with the adapter in between. */
static peft__val bn_record(bn_run *r, peft__tape *t, int64_t tokens, int64_t width) {
    peft__val h = bn_table(r, t, r->h, tokens, width), x = bn_table(r, t, r->x, tokens, width);
    for (size_t i = 0; i < r->b->info.n_sites; i++) {
        const peft__site *s = &r->b->sites[i];
        const peft__attachment *at = s->kind == PEFT__SITE_STREAM ? bn_at(r->a, s->id) : NULL;
        if (s->kind != PEFT__SITE_STREAM || (r->one_row && (s->layer > 0 || at == NULL))) { continue; }
        peft__val y = at != NULL ? r->a->method->stream(r->a, at, t, s, h, x) : h;
        x = peft__op_add(t, x, y);
        if (r->one_row) { break; }
        h = peft__op_scale_all(t, x, 0.5, PEFT__NONE);
    }
    return x;
}

static peft_status bn_execute(bn_run *r, peft__tape *t, peft__val out, int64_t tokens, int64_t width) {
    static const int32_t ids[BN_TOKENS] = {0, 1, 2, 3, 4, 5, 6}, labels[BN_TOKENS] = {1, 2, -100, 3, 4, 0, 1};
    static const int64_t two[3] = {0, 3, 7}, one[2] = {0, 2};
    peft_status st = PEFT_OK;
    peft__plan plan = {0};
    peft__exec exec = {0};
    peft__frame f = {0};
    peft__pool *pool = NULL;
    peft__caps caps = {.max_rows = 2, .max_tokens = BN_TOKENS, .max_length = BN_TOKENS};
    TRY(peft__tape_finish(t));
    for (size_t i = 0; i < t->params.len; i++) {
        peft__param *p = peft__tape_param_at(t, (int32_t)i);
        p->grad = peft__arena_alloc(&r->b->arena, (size_t)(p->rows * p->cols) * sizeof *p->grad);
    }
    TRY(peft__pool_create(r->b->mem, 1, &pool));
    TRY(peft__plan_make(&plan, r->b->mem, t, &caps, 0, &peft__kernels_generic, 1, 4));
    TRY(peft__exec_create(&exec, r->b->mem, t, &plan, &peft__kernels_generic, pool));
    f.n_rows = f.count[PEFT__SPACE_ROWS] = r->one_row ? 1 : 2;
    f.count[PEFT__SPACE_INPUT] = f.count[PEFT__SPACE_TOKENS] = tokens;
    f.offsets[PEFT__SPACE_INPUT] = f.offsets[PEFT__SPACE_TOKENS] = r->one_row ? one : two;
    f.ids = f.positions = ids;
    f.labels = labels;
    f.loss_scale = 1;
    f.seed = 11;
    f.step = r->step;
    f.skip_layers[0] = r->skip;
    TRY(peft__exec_run(&exec, &f, r->training));
    r->loss = f.loss_sum;
    if (!r->training) { memcpy(r->out, peft__exec_data(&exec, out), (size_t)(tokens * width) * sizeof *r->out); }
out:
    peft__exec_free(&exec);
    peft__plan_free(&plan);
    peft__pool_free(pool);
    return st;
}

static peft_status bn_go(bn_run *r) {
    peft__tape t;
    int64_t width = r->b->sites[1].out, tokens = r->one_row ? 2 : BN_TOKENS;
    peft__tape_init(&t, r->b->mem, r->training);
    t.segments = 1;
    peft__val x = bn_record(r, &t, tokens, width);
    if (r->training) {
        peft__head_spec head = {.weight = r->b->sites[r->b->info.n_sites - 1].weight, .vocab = 10, .scale = 1};
        head.w_param = head.b_param = head.lora_a = head.lora_b = PEFT__NONE;
        peft__op_head(&t, x, &head);
    }
    peft_status st = bn_execute(r, &t, x, tokens, width);
    peft__tape_free(&t);
    return st;
}

static void bn_inputs(float h[BN_SIZE], float x[BN_SIZE]) {
    peft__rng rng = {5, 0};
    for (int i = 0; i < BN_SIZE; i++) { h[i] = (float)peft__rng_normal(&rng), x[i] = (float)peft__rng_normal(&rng); }
}

/* ---- golden vectors -------------------------------------------------------------------------------------------------------- */

static double bn_fill(int64_t i, int64_t seed) { return (double)((i * 37 + seed * 17) % 101 - 50) / 100; }

typedef struct bn_golden {
    const char *method;
    const char *const *settings;
    const char *keys[8];         /* in the order of the seeds from 20 on */
    double y[8];
} bn_golden;

#define BN_KEYS "adapter_down.0.weight", "adapter_down.0.bias", "adapter_up.weight", "adapter_up.bias"
static const bn_golden bn_goldens[] = {
    {"pfeiffer", FAKE("reduction_factor=2"), {BN_KEYS},
     {0.009993, -0.504181, 0.461396, 0.416973, 0.221147, 0.278349, -0.798376, 0.6446469}},
    {"houlsby", FAKE("reduction_factor=2", "mh_adapter=false"), {BN_KEYS},
     {-0.0165387, -0.4902327, 0.4814576, 0.3859129, 0.1530794, 0.29763, -0.6908455, 0.5112093}},
    {"parallel", FAKE("reduction_factor=2"), {BN_KEYS},
     {1.164484, -1.2946279, 0.790048, 1.864724, 0.973236, -0.179404, -0.576968, 2.0158761}},
    {"pfeiffer", FAKE("reduction_factor=2", "use_gating=true"), {BN_KEYS, "gate.weight", "gate.bias"},
     {-0.0754645, -0.450522, 0.3865341, 0.2135902, -0.0244959, 0.4217253, -0.7708141, 0.2716666}},
    {"compacter", FAKE("reduction_factor=1", "phm_dim=2", "shared_phm_rule=false", "mh_adapter=false"),
     {"adapter_down.0.phm_rule", "adapter_down.0.W_left", "adapter_down.0.W_right", "adapter_down.0.b", "adapter_up.phm_rule",
      "adapter_up.W_left", "adapter_up.W_right", "adapter_up.b"},
     {-0.0995339, 0.0194848, 0.0929165, 0.2097247, -0.1687124, 0.9595647, -0.9883696, 0.1401213}},
};

TEST(bottleneck_golden) {
    float h[8], x[8];
    for (int i = 0; i < 8; i++) { h[i] = (float)bn_fill(i, 5), x[i] = (float)bn_fill(i, 6); }
    for (size_t g = 0; g < PEFT__COUNT(bn_goldens); g++) {
        fake_base b;
        peft_status st;
        bn_base(&b, 4);
        peft__adapter *a = fake_adapter(&b, bn_goldens[g].method, bn_goldens[g].settings, 1, &st);
        CHECK_OK(st);
        for (int64_t k = 0; k < 8 && bn_goldens[g].keys[k] != NULL; k++) {
            char key[96];
            (void)snprintf(key, sizeof key, "model.layers.0.output_adapters.%s", bn_goldens[g].keys[k]);
            const peft__adapter_param *p = peft__adapter_find(a, key, NULL);
            CHECK_STR(p != NULL ? key : "missing", key);
            for (int64_t e = 0; e < p->p.rows * p->p.cols; e++) { p->p.value[e] = PEFT__R(bn_fill(e, 20 + k)); }
        }
        bn_run r = {.b = &b, .a = a, .one_row = true, .h = h, .x = x};
        CHECK_OK(bn_go(&r));
        for (int i = 0; i < 8; i++) { CHECK_NEAR(r.out[i], bn_goldens[g].y[i], 1e-6); }
        peft__adapter_release(a);
        fake_end(&b);
    }
}

/* ---- options ----------------------------------------------------------------------------------------------------------------- */

typedef struct bn_change {
    const char *method;
    const char *const *settings;
    const char *option;
} bn_change;

#define BN_SMALL "reduction_factor=2"
static const bn_change bn_changes[] = {
    {"houlsby", FAKE(BN_SMALL), "reduction_factor=4"},
    {"houlsby", FAKE(BN_SMALL), "reduction_factors={\"1\":4}"},
    {"houlsby", FAKE(BN_SMALL), "non_linearity=relu"},
    {"houlsby", FAKE(BN_SMALL), "non_linearity=gelu_pytorch_tanh"},
    {"houlsby", FAKE(BN_SMALL), "non_linearity=linear"},
    {"houlsby", FAKE(BN_SMALL), "scaling=0.5"},
    {"houlsby", FAKE(BN_SMALL), "scaling=learned"},
    {"houlsby", FAKE(BN_SMALL), "scaling=channel"},
    {"houlsby", FAKE(BN_SMALL, "scaling=learned"), "scaling=channel"},
    {"houlsby", FAKE(BN_SMALL), "use_gating=true"},
    {"houlsby", FAKE(BN_SMALL), "mh_adapter=false"},
    {"houlsby", FAKE(BN_SMALL), "output_adapter=false"},
    {"pfeiffer", FAKE(BN_SMALL), "mh_adapter=true"},
    {"parallel", FAKE(BN_SMALL), "mh_adapter=true"},
    {"houlsby", FAKE(BN_SMALL), "leave_out=0"},
    {"houlsby", FAKE(BN_SMALL), "original_ln_before=true"},
    {"houlsby", FAKE(BN_SMALL), "original_ln_after=false"},
    {"parallel", FAKE(BN_SMALL), "original_ln_after=false"},
    {"pfeiffer", FAKE(BN_SMALL), "residual_before_ln=false"},
    {"houlsby", FAKE(BN_SMALL), "ln_before=true"},
    {"houlsby", FAKE(BN_SMALL), "ln_after=true"},
    {"houlsby", FAKE(BN_SMALL, "ln_after=true"), "adapter_residual_before_ln=true"},
    {"houlsby", FAKE(BN_SMALL), "phm_layer=true"},
    {"compacter", FAKE(BN_SMALL), "phm_dim=2"},
    {"compacter", FAKE(BN_SMALL), "phm_rank=2"},
    {"compacter", FAKE(BN_SMALL), "factorized_phm_W=false"},
    {"compacter", FAKE(BN_SMALL), "shared_W_phm=true"},
    {"compacter", FAKE(BN_SMALL), "shared_phm_rule=false"},
    {"compacter", FAKE(BN_SMALL), "factorized_phm_rule=true"},
    {"compacter", FAKE(BN_SMALL), "phm_bias=false"},
};

/* How far apart the outputs are with the option and without. */
static double bn_outputs_differ(const bn_change *c) {
    static float h[BN_SIZE], x[BN_SIZE];
    peft__real out[2][BN_SIZE];
    bool ok = true;
    double most = 0;
    bn_inputs(h, x);
    for (int k = 0; k < 2; k++) {
        fake_base b;
        peft_status st;
        const char *all[8] = {NULL};
        size_t n = 0;
        for (; c->settings[n] != NULL; n++) { all[n] = c->settings[n]; }
        if (k == 1) { all[n] = c->option; }
        bn_base(&b, BN_WIDTH);
        peft__adapter *a = fake_adapter(&b, c->method, all, 1, &st);
        bn_run r = {.b = &b, .a = a, .h = h, .x = x};
        if (a != NULL) { bn_shake(a); }
        ok = ok && a != NULL && bn_go(&r) == PEFT_OK;
        memcpy(out[k], r.out, sizeof r.out);
        peft__adapter_release(a);
        fake_end(&b);
    }
    for (int i = 0; i < BN_SIZE; i++) { most = fmax(most, fabs((double)(out[0][i] - out[1][i]))); }
    return ok ? most : (double)NAN;
}

TEST(bottleneck_options_change_the_output) {
    int bad = 0;
    for (size_t i = 0; i < PEFT__COUNT(bn_changes); i++) {
        double apart = bn_outputs_differ(&bn_changes[i]);
        if (apart > 1e-3) { continue; }
        printf("%s, %s: differs by %g %s\n", bn_changes[i].method, bn_changes[i].option, apart, peft_last_error());
        bad++;
    }
    CHECK_INT(bad, 0);
}

/* A parallel adapter has no inner residual that could go before its norm: nothing changes. */
TEST(bottleneck_parallel_has_no_inner_residual) {
    static float h[BN_SIZE], x[BN_SIZE];
    bn_run r[2];
    bn_inputs(h, x);
    for (int k = 0; k < 2; k++) {
        fake_base b;
        peft_status st;
        bn_base(&b, BN_WIDTH);
        peft__adapter *a = fake_adapter(&b, "parallel", FAKE("ln_after=true", k == 0 ? NULL : "adapter_residual_before_ln=true"), 1, &st);
        CHECK_OK(st);
        bn_shake(a);
        r[k] = (bn_run){.b = &b, .a = a, .h = h, .x = x};
        CHECK_OK(bn_go(&r[k]));
        peft__adapter_release(a);
        fake_end(&b);
    }
    CHECK_MEM(r[0].out, r[1].out, sizeof r[0].out);
}

/* What a fusion gets: stream(h) is up and the inner residual, and the query is what the network reads. */
static peft_status bn_up_parts(fake_base *b, const peft__adapter *a, const float *h, const float *x, peft__real *sum,
                               peft__real *query) {
    peft_status st = PEFT_OK;
    const peft__site *s = &b->sites[2];
    for (int k = 0; k < 2; k++) {
        bn_run r = {.b = b, .a = a, .h = h, .x = x};
        peft__tape t;
        peft__val q = PEFT__NONE, inner = PEFT__NONE;
        peft__tape_init(&t, b->mem, false);
        t.segments = 1;
        peft__val vh = bn_table(&r, &t, h, BN_TOKENS, BN_WIDTH), vx = bn_table(&r, &t, x, BN_TOKENS, BN_WIDTH);
        peft__val up = a->method->up(a, bn_at(a, s->id), &t, s, vh, vx, &q, &inner);
        peft__val out = k == 0 ? peft__op_add(&t, inner, up) : peft__op_scale_all(&t, q, 1, PEFT__NONE);
        st = bn_execute(&r, &t, out, BN_TOKENS, BN_WIDTH);
        memcpy(k == 0 ? sum : query, r.out, sizeof r.out);
        peft__tape_free(&t);
        if (st != PEFT_OK) { return st; }
    }
    return st;
}

TEST(bottleneck_up_query_and_inner) {
    static const struct { const char *method; const char *option; int reads; } cases[] = {
        {"houlsby", NULL, 0}, {"pfeiffer", NULL, 2}, {"parallel", NULL, 1}, {"pfeiffer", "residual_before_ln=false", 2},
        {"pfeiffer", "original_ln_after=false", 2}, {"compacter", "reduction_factor=2", 0}, {"parallel", "scaling=channel", 1}};
    static float h[BN_SIZE], x[BN_SIZE];
    bn_inputs(h, x);
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        fake_base b;
        peft_status st;
        peft__real sum[BN_SIZE], query[BN_SIZE];
        bn_base(&b, BN_WIDTH);
        peft__adapter *a = fake_adapter(&b, cases[i].method, FAKE("leave_out=1", cases[i].option), 1, &st);
        CHECK_OK(st);
        bn_shake(a);
        CHECK_OK(bn_up_parts(&b, a, h, x, sum, query));
        bn_run r = {.b = &b, .a = a, .h = h, .x = x};
        peft__tape t;
        peft__tape_init(&t, b.mem, false);
        t.segments = 1;
        peft__val vh = bn_table(&r, &t, h, BN_TOKENS, BN_WIDTH), vx = bn_table(&r, &t, x, BN_TOKENS, BN_WIDTH);
        peft__val out = a->method->stream(a, bn_at(a, 2), &t, &b.sites[2], vh, vx);
        CHECK_OK(bn_execute(&r, &t, out, BN_TOKENS, BN_WIDTH));
        peft__tape_free(&t);
        for (int e = 0; e < BN_SIZE; e++) {
            CHECK_NEAR(sum[e], r.out[e], 1e-5);
            CHECK_NEAR(query[e], cases[i].reads == 0 ? h[e] : cases[i].reads == 1 ? x[e] : h[e] + x[e], 1e-6);
        }
        peft__adapter_release(a);
        fake_end(&b);
    }
}

/* ---- training ----------------------------------------------------------------------------------------------------------------- */

static double bn_loss(const char *method, const char *const *settings, int32_t skip, uint64_t step) {
    static float h[BN_SIZE], x[BN_SIZE];
    fake_base b;
    peft_status st;
    bn_inputs(h, x);
    bn_base(&b, BN_WIDTH);
    peft__adapter *a = fake_adapter(&b, method, settings, 1, &st);
    bn_run r = {.b = &b, .a = a, .training = true, .skip = skip, .step = step, .h = h, .x = x};
    if (a != NULL) { bn_shake(a); }
    if (a == NULL || bn_go(&r) != PEFT_OK) { r.loss = (double)NAN; }
    peft__adapter_release(a);
    fake_end(&b);
    return r.loss;
}

TEST(bottleneck_adapter_drop_leaves_first_layers_out) {
    double whole = bn_loss("houlsby", FAKE(BN_SMALL), 0, 1), without = bn_loss("houlsby", FAKE(BN_SMALL, "leave_out=0"), 0, 1);
    CHECK(fabs(whole - without) > 1e-3);
    CHECK_NEAR(bn_loss("houlsby", FAKE(BN_SMALL, "adapter_drop=2"), 0, 1), whole, 0);
    CHECK_NEAR(bn_loss("houlsby", FAKE(BN_SMALL, "adapter_drop=2"), 1, 1), without, 0);
    CHECK_NEAR(bn_loss("houlsby", FAKE(BN_SMALL, "adapter_drop=1"), 2, 1), without, 0); /* no other layer asks */
    CHECK_NEAR(bn_loss("houlsby", FAKE(BN_SMALL), 2, 1), whole, 0);
}

TEST(bottleneck_adapter_drop_draws_any_number) {
    fake_base b;
    peft_status st;
    int64_t counts[4] = {0};
    bn_base(&b, BN_WIDTH);
    peft__adapter *a = fake_adapter(&b, "pfeiffer", FAKE("adapter_drop=3"), 1, &st);
    CHECK_OK(st);
    for (uint64_t step = 1; step <= 4000; step++) {
        int32_t n = a->method->skip_layers(a, 7, step);
        CHECK(n >= 0 && n <= 3);
        CHECK_INT(a->method->skip_layers(a, 7, step), n);
        counts[n]++;
    }
    for (int n = 0; n < 4; n++) { CHECK(counts[n] > 850 && counts[n] < 1150); }
    int differ = 0;
    for (uint64_t step = 1; step <= 100; step++) { differ += a->method->skip_layers(a, 7, step) != a->method->skip_layers(a, 8, step); }
    CHECK(differ > 50);
    peft__adapter_release(a);
    a = fake_adapter(&b, "pfeiffer", NULL, 1, &st);
    CHECK_INT(a->method->skip_layers(a, 7, 1), 0);
    peft__adapter_release(a);
    fake_end(&b);
}

TEST(bottleneck_dropout_and_depth_are_of_training) {
    double whole = bn_loss("houlsby", FAKE(BN_SMALL), 0, 1);
    static const char *const options[] = {"dropout=0.4", "stochastic_depth=0.5"};
    for (size_t i = 0; i < 2; i++) {
        const char *const settings[] = {BN_SMALL, options[i], NULL};
        int differ = 0;
        for (uint64_t step = 1; step <= 10; step++) {
            double loss = bn_loss("houlsby", settings, 0, step);
            CHECK_NEAR(bn_loss("houlsby", settings, 0, step), loss, 0);
            differ += fabs(loss - whole) > 1e-4;
        }
        CHECK(differ >= 8);
        bn_change same = {"houlsby", FAKE(BN_SMALL), options[i]};
        CHECK_NEAR(bn_outputs_differ(&same), 0, 0); /* not in inference */
    }
}

/* A row that skips an adapter goes on as if there were none; another is scaled by 1 / (1 - p). */
TEST(bottleneck_stochastic_depth_skips_whole_rows) {
    double none = bn_loss("pfeiffer", FAKE(BN_SMALL, "scaling=0"), 0, 1), all = bn_loss("pfeiffer", FAKE(BN_SMALL, "scaling=2"), 0, 1);
    int dropped = 0, kept = 0;
    for (uint64_t step = 1; step <= 400; step++) {
        double loss = bn_loss("pfeiffer", FAKE(BN_SMALL, "stochastic_depth=0.5"), 0, step);
        dropped += fabs(loss - none) < 1e-5;
        kept += fabs(loss - all) < 1e-5;
    }
    CHECK(dropped > 8 && dropped < 50); /* two places and two rows: one in 16 */
    CHECK(kept > 8 && kept < 50);
}
