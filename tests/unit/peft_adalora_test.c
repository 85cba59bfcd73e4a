/* AdaLoRA: golden vectors of HF PEFT, parameters, the schedule by its formula, which triplets go and when, options, errors, and
 * files that hold what is left. */
#include <math.h>

#include "peft/adalora.h"
#include "peft_fake.h"

/* ---- golden vectors: the numbers that PEFT 0.21 gives for these -------------------------------------------------- */

/* (((i 37 + seed 17) mod 101) - 50) / 100 */
static void ada_fill(peft__real *out, int64_t n, int64_t seed) {
    for (int64_t i = 0; i < n; i++) { out[i] = PEFT__R((double)((i * 37 + seed * 17) % 101 - 50) / 100); }
}

typedef struct ada_probe { /* takes a value and gives it a gradient */
    peft__real y[6], g[6];
} ada_probe;

static void ada_probe_forward(peft__exec *x, const peft__op *op) {
    ada_probe *p = (ada_probe *)(uintptr_t)op->aux;
    memcpy(p->y, peft__exec_data(x, op->in[0]), sizeof p->y);
}

static void ada_probe_backward(peft__exec *x, const peft__op *op) {
    const ada_probe *p = op->aux;
    bool add = false;
    ada_probe_forward(x, op);
    memcpy(peft__exec_grad_out(x, op->in[0], &add), p->g, sizeof p->g);
}

static double ada_probe_flops(const peft__tape *t, const peft__op *op, const peft__caps *caps, bool backward) {
    (void)t;
    (void)op;
    (void)caps;
    (void)backward;
    return 0;
}

static const peft__op_kind ada_probe_kind = {"probe", PEFT__OPF_LOSS, NULL, ada_probe_forward, ada_probe_backward,
                                             ada_probe_flops, NULL};

/* One projection of 4 to 3 with a bias, and an AdaLoRA of rank 2 with known values on it. */
static peft__adapter *ada_golden(fake_base *b, const char *const *settings, peft_status *st) {
    fake_start(b, "llama");
    peft__site *s = fake_site(b, PEFT__SITE_LINEAR, PEFT__ROLE_Q, 0, "q_proj", 4, 3, true, false);
    float *w = (float *)(uintptr_t)s->weight->data;
    peft__real fill[12], *bias = (peft__real *)(uintptr_t)s->bias_data;
    ada_fill(fill, 12, 1);
    for (int i = 0; i < 12; i++) { w[i] = (float)fill[i]; }
    ada_fill(bias, 3, 2);
    peft__adapter *a = fake_adapter(b, "adalora", settings, 1, st);
    if (a == NULL) { return NULL; }
    const peft__attachment *at = a->attachments.data;
    ada_fill(peft__adalora_values(a, at, PEFT__ADALORA_A), 8, 3);
    ada_fill(peft__adalora_values(a, at, PEFT__ADALORA_B), 6, 4);
    peft__real *e = peft__adalora_values(a, at, PEFT__ADALORA_E);
    e[0] = PEFT__R(0.3);
    e[1] = PEFT__R(-0.2);
    return a;
}

#define ADA_GOLDEN FAKE("init_r=2", "target_r=1", "lora_alpha=4", "target_modules=q_proj")

static void ada_golden_check(const peft__real *actual, const double *expected, int64_t n) {
    for (int64_t i = 0; i < n; i++) { CHECK_NEAR(actual[i], expected[i], 2e-7); }
}

TEST(adalora_golden_forward_and_gradients) {
    static const double y[6] = {-0.3592872, 0.5015896, -0.6524029, -0.2717039, 0.1420099, -0.5261474};
    static const double da[8] = {0.008694, -0.006777, -0.005886, 0.0140939, -0.007532, 0.005514, 0.0116919, -0.0146519};
    static const double db[6] = {0.0117503, 0.0082376, 0.0335506, 0.0289871, -0.004158, -0.006904};
    static const double de[2] = {0.0019746, -0.0212903};
    static const double dx[8] = {0.1296311, -0.1671221, -0.1448159, 0.1846309, 0.0737331, -0.2233661, -0.0771759, 0.1509249};
    fake_base b;
    peft_status st;
    peft__tape t;
    peft__plan plan = {0};
    peft__exec exec = {0};
    peft__frame frame = {0};
    peft__pool *pool = NULL;
    peft__caps caps = {.max_rows = 1, .max_tokens = 2, .max_length = 2};
    peft__real x[8], grads[16 + 8] = {0};
    ada_probe probe = {0};
    peft__adapter *a = ada_golden(&b, ADA_GOLDEN, &st);
    CHECK_OK(st);
    const peft__attachment *at = a->attachments.data;
    ada_fill(x, 8, 5);
    ada_fill(probe.g, 6, 9);
    peft__param in = {.name = "x", .value = x, .rows = 2, .cols = 4};
    peft__tape_init(&t, b.mem, true);
    t.segments = 1;
    peft__val v = peft__op_param(&t, peft__tape_param(&t, &in));
    peft__val out = peft__base_linear(&t, &b.sites[0], v, PEFT__NONE, PEFT__NONE);
    out = a->method->after(a, at, &t, &b.sites[0], v, out);
    peft__tape_push(&t, &ada_probe_kind, 1, &out)->aux = &probe;
    CHECK_OK(peft__tape_finish(&t));
    for (size_t i = 0; i < t.params.len; i++) {
        peft__param *p = peft__tape_param_at(&t, (int32_t)i);
        p->grad = p->value == x ? grads + 16 : grads + (p->value - a->values);
    }
    CHECK_OK(peft__pool_create(b.mem, 1, &pool));
    CHECK_OK(peft__plan_make(&plan, b.mem, &t, &caps, 0, &peft__kernels_generic, 1, 4));
    CHECK_OK(peft__exec_create(&exec, b.mem, &t, &plan, &peft__kernels_generic, pool));
    frame.loss_scale = 1;
    CHECK_OK(peft__exec_run(&exec, &frame, true));
    ada_golden_check(probe.y, y, 6);
    ada_golden_check(grads, da, 8);
    ada_golden_check(grads + 8, db, 6);
    ada_golden_check(grads + 14, de, 2);
    ada_golden_check(grads + 16, dx, 8);
    double loss = 0;
    CHECK_OK(a->method->regularise(a, &exec.run, 1, grads, &loss));
    CHECK_NEAR(loss, 0.5152569, 1e-6);
    peft__exec_free(&exec);
    peft__plan_free(&plan);
    peft__pool_free(pool);
    peft__tape_free(&t);
    peft__adapter_release(a);
    fake_end(&b);
}

/* A run for calls outside of an execution. */
typedef struct ada_run {
    peft__run run;
    peft__pool *pool;
    uint8_t *scratch;
    peft__mem *mem;
} ada_run;

static peft_status ada_run_open(ada_run *r, peft__mem *mem) {
    size_t bytes = peft__scratch_size(&peft__kernels_generic, 4, 1);
    r->mem = mem;
    r->scratch = peft__alloc(mem, bytes);
    r->pool = NULL;
    if (r->scratch == NULL) { return PEFT_E_NOMEM; }
    peft_status st = peft__pool_create(mem, 1, &r->pool);
    r->run = (peft__run){.k = &peft__kernels_generic, .pool = r->pool, .workers = 1, .scratch = r->scratch, .scratch_size = bytes};
    return st;
}

static void ada_run_close(ada_run *r) {
    peft__pool_free(r->pool);
    peft__free(r->mem, r->scratch, r->run.scratch_size);
}

TEST(adalora_golden_merged_weight) {
    static const double merged[12] = {-0.2406005, 0.0515999, 0.4205599, -0.2972397, 0.0857003, -0.5026,
                                      -0.13948, 0.2822198, -0.40408, -0.1114396, 0.3953197, -0.3220399};
    fake_base b;
    peft_status st;
    ada_run r;
    peft__real w[12];
    peft__adapter *a = ada_golden(&b, ADA_GOLDEN, &st);
    CHECK_OK(st);
    CHECK(a->method->proportional);
    CHECK_OK(ada_run_open(&r, b.mem));
    peft__attachment at = PEFT__VEC_AT(&a->attachments, peft__attachment, 0);
    ada_fill(w, 12, 1);
    CHECK_OK(a->method->merge(a, &at, &b.sites[0], &r.run, w));
    ada_golden_check(w, merged, 12);
    at.scale = -at.scale; /* out again */
    CHECK_OK(a->method->merge(a, &at, &b.sites[0], &r.run, w));
    for (int i = 0; i < 12; i++) { CHECK_NEAR(w[i], (i * 37 + 17) % 101 * 0.01 - 0.5, 1e-7); }
    ada_run_close(&r);
    peft__adapter_release(a);
    fake_end(&b);
}

/* ---- parameters ---------------------------------------------------------------------------------------------- */

TEST(adalora_parameters) {
    fake_base b;
    peft_status st;
    double squares[3] = {0, 0, 0}, counts[3] = {0, 0, 0};
    fake_llama(&b);
    peft__adapter *a = fake_adapter(&b, "adalora", NULL, 1, &st);
    CHECK_OK(st);
    CHECK_INT(a->n_trainable, 2 * 12 * (8 + 8 + 1 + 8 + 4 + 1)); /* layers, rank, (in + out + 1) of q and v */
    const peft__adapter_param *e = peft__adapter_find(a, "model.layers.1.self_attn.v_proj.lora_E", NULL);
    CHECK(e != NULL && e->ndim == 2 && e->dims[0] == 12 && e->dims[1] == 1);
    const peft__adapter_param *pb = peft__adapter_find(a, "model.layers.1.self_attn.v_proj.lora_B", NULL);
    CHECK(pb != NULL && pb->dims[0] == 4 && pb->dims[1] == 12 && pb->p.rows == 4 && pb->p.cols == 12);
    CHECK(peft__adapter_find(a, "model.layers.0.self_attn.q_proj.lora_A", NULL)->dims[1] == 8);
    const peft__attachment *at = a->attachments.data;
    CHECK_NEAR(at->scale, 8 / 12.00001, 1e-12); /* not lora_alpha / target_r */
    CHECK_INT(at->rank, 12);
    CHECK_STR(peft__opt_str(&a->opts, "target_modules"), "[\"q_proj\",\"v_proj\"]");
    for (size_t i = 0; i < peft__adapter_param_count(a); i++) {
        const peft__adapter_param *p = peft__adapter_param_at(a, i);
        for (int64_t k = 0; k < p->p.rows * p->p.cols; k++) { squares[p->slot] += (double)(p->p.value[k] * p->p.value[k]); }
        counts[p->slot] += (double)(p->p.rows * p->p.cols);
    }
    CHECK_NEAR(sqrt(squares[PEFT__ADALORA_A] / counts[PEFT__ADALORA_A]), 0.02, 0.002);
    CHECK_NEAR(sqrt(squares[PEFT__ADALORA_B] / counts[PEFT__ADALORA_B]), 0.02, 0.002);
    CHECK_NEAR(squares[PEFT__ADALORA_E], 0, 0);
    peft__adapter_release(a);
    a = fake_adapter(&b, "adalora", FAKE("init_r=64", "init_lora_weights=false", "lora_alpha=0", "lora_dropout=0.25"), 1, &st);
    CHECK_OK(st);
    at = a->attachments.data;
    double sum = 0;
    for (int64_t k = 0; k < a->n_trainable; k++) { sum += (double)(a->values[k] * a->values[k]); }
    CHECK_NEAR(sqrt(sum / (double)a->n_trainable), 1, 0.05);
    CHECK(peft__adalora_values(a, at, PEFT__ADALORA_E)[5] != 0);
    CHECK_NEAR(at->scale, 64 / 64.00001, 1e-12);
    CHECK_NEAR(at->dropout, 0.25, 0);
    peft__adapter_release(a);
    b.info.model_type = "opt"; /* has targets of its own, of which this base lacks some */
    CHECK(fake_adapter(&b, "adalora", NULL, 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("\"out_proj\"");
    fake_end(&b);
}

/* ---- the schedule -------------------------------------------------------------------------------------------- */

TEST(adalora_schedule_by_formula) {
    const peft__adalora_plan p = {.init = 48, .target = 20, .tinit = 3, .tfinal = 4, .every = 5, .total = 30};
    for (int64_t t = 0; t < 34; t++) {
        double left = 1 - (double)(t - 3) / 23;
        int64_t budget = t <= 3 ? 48 : t > 26 ? 20 : (int64_t)(28 * left * left * left + 20);
        CHECK_INT(peft__adalora_budget(&p, t), budget);
        CHECK_INT(peft__adalora_masks(&p, t), t == 5 || t == 10 || t == 15 || t == 20 || t == 25 || t == 26);
    }
    CHECK_INT(peft__adalora_budget(&p, 4), 44);  /* 20 + 28 (22 / 23)^3 = 44.5 */
    CHECK_INT(peft__adalora_budget(&p, 15), 23); /* 20 + 28 (11 / 23)^3 = 23.06 */
    CHECK_INT(peft__adalora_budget(&p, 26), 20);
}

/* What PEFT's allocator does, in double and with lists, for two modules q [8, 8] and v [4, 8] of one layer each. */
typedef struct ada_model {
    double s[4096], u[4096];
    bool out[96];
} ada_model;

static void ada_model_smooth(ada_model *m, const peft__adapter *a, const peft__real *g, double scale, double b1, double b2) {
    for (int64_t e = 0; e < a->n_trainable; e++) {
        double i = fabs((double)a->values[e] * (double)g[e] * scale);
        m->s[e] = b1 * m->s[e] + (1 - b1) * i;
        m->u[e] = b2 * m->u[e] + (1 - b2) * fabs(i - m->s[e]);
    }
}

static int64_t ada_model_scores(const ada_model *m, const peft__adapter *a, double *scores) {
    int64_t n = 0;
    for (size_t j = 0; j < a->attachments.len; j++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, j);
        const peft__site *s = &a->base->sites[at->site];
        int64_t pa = peft__adalora_values(a, at, PEFT__ADALORA_A) - a->values;
        int64_t pb = peft__adalora_values(a, at, PEFT__ADALORA_B) - a->values;
        int64_t pe = peft__adalora_values(a, at, PEFT__ADALORA_E) - a->values;
        for (int64_t i = 0; i < at->rank; i++, n++) {
            double row = 0, column = 0;
            for (int64_t c = 0; c < s->in; c++) { row += m->s[pa + i * s->in + c] * m->u[pa + i * s->in + c]; }
            for (int64_t o = 0; o < s->out; o++) { column += m->s[pb + o * at->rank + i] * m->u[pb + o * at->rank + i]; }
            scores[n] = m->s[pe + i] * m->u[pe + i] + row / (double)s->in + column / (double)s->out;
        }
    }
    return n;
}

/* out[i]: fewer than `budget` scores are higher. */
static void ada_model_choose(ada_model *m, const peft__adapter *a, int64_t budget) {
    double scores[96];
    int64_t n = ada_model_scores(m, a, scores);
    for (int64_t i = 0; i < n; i++) {
        int64_t higher = 0;
        for (int64_t k = 0; k < n; k++) { higher += scores[k] > scores[i]; }
        m->out[i] = higher >= budget;
    }
}

static peft__real *ada_e(const peft__adapter *a, int64_t i) {
    int64_t rank = PEFT__VEC_AT(&a->attachments, peft__attachment, 0).rank;
    return peft__adalora_values(a, &PEFT__VEC_AT(&a->attachments, peft__attachment, (size_t)(i / rank)), PEFT__ADALORA_E) + i % rank;
}

static void ada_noise(peft__real *out, int64_t n, uint64_t seed) {
    peft__rng rng = {seed, 0};
    for (int64_t i = 0; i < n; i++) { out[i] = PEFT__R(peft__rng_normal(&rng)); }
}

/* 20 steps with tinit 3, tfinal 4, deltaT 4: choices after steps (from 0) 4, 8, 12 and, for good, 16. */
static void ada_follow(const char *const *settings, double b1, double b2, int64_t total_given) {
    fake_base b;
    peft_status st;
    static ada_model m;
    static peft__real state[8192], grads[4096];
    memset(&m, 0, sizeof m);
    memset(state, 0, sizeof state);
    fake_llama(&b);
    peft__adapter *a = fake_adapter(&b, "adalora", settings, 1, &st);
    CHECK_OK(st);
    const int64_t n = 4 * 6; /* modules x init_r */
    CHECK_INT(a->method->state_count(a), 2 * a->n_trainable + 3 * n);
    CHECK(a->method->state_count(a) <= 8192 && a->n_trainable <= 4096);
    const peft__adalora_plan p = {.init = n, .target = 4 * 2, .tinit = 3, .tfinal = 4, .every = 4, .total = 20};
    for (int64_t t = 0; t < 20; t++) {
        ada_noise(a->values, a->n_trainable, 100 + (uint64_t)t); /* as if an optimiser had been there; E is not 0 */
        ada_noise(grads, a->n_trainable, 500 + (uint64_t)t);
        if (t < 16) { ada_model_smooth(&m, a, grads, 0.125, b1, b2); }
        bool chosen = t == 4 || t == 8 || t == 12 || t == 16;
        if (chosen) { ada_model_choose(&m, a, peft__adalora_budget(&p, t)); }
        CHECK_OK(a->method->after_step(a, grads, 0.125, t + 1, total_given, state));
        int64_t kept = 0;
        for (int64_t i = 0; i < n; i++) {
            bool zero = *ada_e(a, i) == 0;
            CHECK_INT(zero, (chosen || t > 16) && m.out[i]);
            kept += !zero;
        }
        CHECK_INT(kept, chosen || t > 16 ? peft__adalora_budget(&p, t) : n);
    }
    peft__adapter_release(a);
    fake_end(&b);
}

TEST(adalora_takes_what_the_model_takes) {
    ada_follow(FAKE("init_r=6", "target_r=2", "tinit=3", "tfinal=4", "deltaT=4"), 0.85, 0.85, 20);
    ada_follow(FAKE("init_r=6", "target_r=2", "tinit=3", "tfinal=4", "deltaT=4", "beta1=0.2"), 0.2, 0.85, 20);
    ada_follow(FAKE("init_r=6", "target_r=2", "tinit=3", "tfinal=4", "deltaT=4", "beta2=0.05"), 0.85, 0.05, 20);
    /* total_step, not the run's, says when it ends */
    ada_follow(FAKE("init_r=6", "target_r=2", "tinit=3", "tfinal=4", "deltaT=4", "total_step=20"), 0.85, 0.85, 50);
}

/* All E alike in score but two: those tied with the highest of what has to go, go as well. */
TEST(adalora_ties_all_go) {
    fake_base b;
    peft_status st;
    static peft__real state[8192], grads[4096];
    memset(state, 0, sizeof state);
    memset(grads, 0, sizeof grads);
    fake_llama(&b);
    peft__adapter *a = fake_adapter(&b, "adalora", FAKE("init_r=6", "target_r=5", "tinit=0"), 1, &st);
    CHECK_OK(st);
    for (int64_t i = 0; i < 24; i++) {
        *ada_e(a, i) = 1;
        grads[ada_e(a, i) - a->values] = i == 7 || i == 20 ? PEFT__R(2) : PEFT__R(1);
    }
    CHECK_OK(a->method->after_step(a, grads, 1, 1, 10, state)); /* step 0: no choice yet */
    for (int64_t i = 0; i < 24; i++) { CHECK_NEAR(*ada_e(a, i), 1, 0); }
    CHECK_OK(a->method->after_step(a, grads, 1, 2, 10, state)); /* one has to go: 22 do */
    for (int64_t i = 0; i < 24; i++) { CHECK_NEAR(*ada_e(a, i), i == 7 || i == 20 ? 1 : 0, 0); }
    peft__adapter_release(a);
    /* nothing has to go where the rank stays as it is */
    memset(state, 0, sizeof state);
    a = fake_adapter(&b, "adalora", FAKE("init_r=6", "target_r=6"), 1, &st);
    CHECK_OK(st);
    for (int64_t i = 0; i < 24; i++) { *ada_e(a, i) = 1; }
    for (int64_t t = 1; t <= 10; t++) { CHECK_OK(a->method->after_step(a, grads, 1, t, 10, state)); }
    for (int64_t i = 0; i < 24; i++) { CHECK_NEAR(*ada_e(a, i), 1, 0); }
    peft__adapter_release(a);
    fake_end(&b);
}

/* The last choice holds at the end of a run, also where no step for a choice is the last. */
TEST(adalora_last_choice_holds_at_the_end) {
    fake_base b;
    peft_status st;
    static peft__real state[8192], grads[4096];
    bool gone[24];
    memset(state, 0, sizeof state);
    fake_llama(&b);
    peft__adapter *a = fake_adapter(&b, "adalora", FAKE("init_r=6", "target_r=2", "deltaT=4"), 1, &st);
    CHECK_OK(st);
    for (int64_t t = 1; t <= 12; t++) {
        ada_noise(a->values, a->n_trainable, (uint64_t)t);
        ada_noise(grads, a->n_trainable, 50 + (uint64_t)t);
        CHECK_OK(a->method->after_step(a, grads, 1, t, 12, state));
        for (int64_t i = 0; i < 24 && t == 9; i++) { gone[i] = *ada_e(a, i) == 0; } /* step 8 from 0 */
        for (int64_t i = 0; i < 24 && t == 11; i++) { CHECK(*ada_e(a, i) != 0); }
    }
    for (int64_t i = 0; i < 24; i++) { CHECK_INT(*ada_e(a, i) == 0, gone[i]); }
    peft__adapter_release(a);
    fake_end(&b);
}

TEST(adalora_term_follows_its_weight) {
    fake_base b;
    peft_status st;
    ada_run r;
    peft__real one[16] = {0}, two[16] = {0}, none[16] = {0};
    double loss = 1, twice = 0, off = 0;
    peft__adapter *a = ada_golden(&b, ADA_GOLDEN, &st);
    CHECK_OK(st);
    CHECK_OK(ada_run_open(&r, b.mem));
    CHECK_OK(a->method->regularise(a, &r.run, 1, one, &loss));
    CHECK_NEAR(loss, 1.5152569, 1e-6); /* added */
    CHECK_OK(a->method->regularise(a, &r.run, 8, two, &twice));
    CHECK_NEAR(twice, 0.5152569, 1e-6); /* the weight is of the gradient alone */
    for (int i = 0; i < 14; i++) { CHECK_NEAR(two[i], 8 * one[i], 1e-6); }
    CHECK(one[0] != 0 && one[8] != 0 && one[14] == 0 && one[15] == 0);
    CHECK_OK(peft__opt_set_float(&a->opts, "orth_reg_weight", 0));
    CHECK_OK(a->method->regularise(a, &r.run, 1, none, &off));
    CHECK_NEAR(off, 0, 0);
    for (int i = 0; i < 16; i++) { CHECK_NEAR(none[i], 0, 0); }
    ada_run_close(&r);
    peft__adapter_release(a);
    fake_end(&b);
}

/* ---- errors -------------------------------------------------------------------------------------------------- */

static void ada_refused(fake_base *b, const char *const *settings, peft_status code, const char *words) {
    peft_status st;
    CHECK(fake_adapter(b, "adalora", settings, 1, &st) == NULL);
    CHECK_INT(st, code);
    CHECK_ERROR_HAS(words);
}

TEST(adalora_errors) {
    fake_base b;
    peft_status st;
    static peft__real state[8192], grads[4096];
    fake_llama(&b);
    ada_refused(&b, FAKE("init_r=4"), PEFT_E_INVALID, "target_r is 8, more than init_r 4");
    ada_refused(&b, FAKE("tinit=6", "tfinal=4", "total_step=10"), PEFT_E_INVALID,
                "of 10 steps (total_step), tinit 6 and tfinal 4 leave none to prune in");
    ada_refused(&b, FAKE("beta1=1"), PEFT_E_INVALID, "beta1 is 1; it must lie between 0 and 1");
    ada_refused(&b, FAKE("beta2=0"), PEFT_E_INVALID, "beta2 is 0; it must lie between 0 and 1");
    ada_refused(&b, FAKE("init_r=0"), PEFT_E_KEY, "init_r");
    ada_refused(&b, FAKE("orth_reg_weight=-1"), PEFT_E_KEY, "orth_reg_weight");
    ada_refused(&b, FAKE("target_modules=lm_head"), PEFT_E_UNSUPPORTED, "lm_head");
    ada_refused(&b, FAKE("init_r=8", "rank_pattern={\"model.layers.0.self_attn.q_proj.lora_E\":[true,false]}"), PEFT_E_KEY,
                "\"model.layers.0.self_attn.q_proj.lora_E\" is no list of init_r = 8 truth values");
    ada_refused(&b, FAKE("init_r=8", "rank_pattern={\"model.layers.0.self_attn.q_proj.lora_E\":[1,1,1,1,1,1,1,1]}"), PEFT_E_KEY,
                "item 0 of \"model.layers.0.self_attn.q_proj.lora_E\" is neither true nor false");
    ada_refused(&b, FAKE("init_r=8", "rank_pattern={\"model.layers.0.self_attn.k_proj.lora_E\":[]}"), PEFT_E_KEY,
                "\"model.layers.0.self_attn.k_proj.lora_E\" is the E of no target");
    ada_refused(&b, FAKE("init_r=8", "rank_pattern={\"q_proj\":4}"), PEFT_E_KEY, "\"q_proj\" is the E of no target");
    peft__adapter *a = fake_adapter(&b, "adalora", FAKE("tinit=5", "tfinal=5"), 1, &st);
    CHECK_OK(st); /* the run is not known yet */
    CHECK_STATUS(a->method->after_step(a, grads, 1, 1, 10, state), PEFT_E_INVALID);
    CHECK_ERROR_HAS("adapter \"a\": of 10 steps of the run, tinit 5 and tfinal 5 leave none");
    CHECK_STATUS(a->method->after_step(a, grads, 1, 1, 0, state), PEFT_E_INVALID);
    CHECK_ERROR_HAS("total_step is not set");
    CHECK_OK(a->method->after_step(a, grads, 1, 1, 11, state));
    peft__adapter_release(a);
    fake_end(&b);
}

/* ---- files --------------------------------------------------------------------------------------------------- */

static peft_status ada_reload(fake_base *b, const peft__adapter *a, const char *dir, peft__adapter **out) {
    peft_status st = peft__adapter_save_hf(a, dir);
    return st != PEFT_OK ? st : peft__adapter_load_hf(b->mem, &peft__kernels_generic, &b->info, "b", dir, false, out);
}

static bool ada_config_has(fake_base *b, const char *dir, const char *key, const char *json) {
    const peft__json *config = NULL;
    peft__arena arena;
    peft__str text;
    peft__json_out j;
    bool same = false;
    peft__arena_init(&arena, b->mem);
    peft__str_init(&text, b->mem);
    if (peft__json_read(&arena, runner_path(dir, "adapter_config.json"), &config) == PEFT_OK &&
        peft__json_get(config, key) != NULL) {
        peft__json_begin(&j, &text, 0);
        peft__json_put_node(&j, peft__json_get(config, key));
        same = strcmp(peft__str_c(&text), json) == 0;
        if (!same) { printf("%s: %s\n", key, peft__str_c(&text)); }
    }
    peft__str_free(&text);
    peft__arena_free(&arena);
    return same;
}

#define ADA_SMALL "init_r=3", "target_r=2", "target_modules=q_proj"

/* The weight of module j with the adapter, less that without it. */
static peft_status ada_change(const fake_base *b, const ada_run *r, const peft__adapter *a, size_t j, peft__real change[64]) {
    const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, j);
    memset(change, 0, 64 * sizeof *change);
    return a->method->merge(a, at, &b->sites[at->site], &r->run, change);
}

TEST(adalora_files_hold_what_is_left) {
    static const bool left[2][3] = {{true, false, true}, {false, false, false}};
    fake_base b;
    peft_status st;
    ada_run r;
    peft__adapter *back = NULL, *again = NULL;
    peft__real before[64], after[64];
    const char *dir = runner_path(runner_tmpdir(), "left");
    fake_llama(&b);
    CHECK_OK(ada_run_open(&r, b.mem));
    peft__adapter *a = fake_adapter(&b, "adalora", FAKE(ADA_SMALL, "lora_alpha=5", "modules_to_save=lm_head", "total_step=9"), 1, &st);
    CHECK_OK(st);
    ada_noise(a->values, a->n_trainable, 3);
    for (int64_t i = 0; i < 6; i++) {
        if (!left[i / 3][i % 3]) { *ada_e(a, i) = 0; }
    }
    CHECK_OK(ada_reload(&b, a, dir, &back));
    CHECK(ada_config_has(&b, dir, "rank_pattern", "{\"model.layers.0.self_attn.q_proj.lora_E\":[true,false,true],"
                                                  "\"model.layers.1.self_attn.q_proj.lora_E\":[false,false,false]}"));
    CHECK(ada_config_has(&b, dir, "total_step", "9"));
    CHECK(ada_config_has(&b, dir, "init_r", "3"));
    const peft__adapter_param *pb = peft__adapter_find(back, "model.layers.0.self_attn.q_proj.lora_B", NULL);
    CHECK(pb->dims[0] == 8 && pb->dims[1] == 2);
    const peft__adapter_param *none = peft__adapter_find(back, "model.layers.1.self_attn.q_proj.lora_A", NULL);
    CHECK(none->dims[0] == 0 && none->dims[1] == 8 && none->p.rows == 0);
    CHECK_INT(back->n_trainable, 2 * (8 + 8 + 1) + 10 * 8);
    for (size_t j = 0; j < 2; j++) {
        CHECK_OK(ada_change(&b, &r, a, j, before));
        CHECK_OK(ada_change(&b, &r, back, j, after));
        for (int i = 0; i < 64; i++) { CHECK_NEAR(after[i], before[i], 1e-6); }
        CHECK(j == 1 ? before[5] == 0 : before[5] != 0);
    }
    CHECK_NEAR(PEFT__VEC_AT(&back->attachments, peft__attachment, 0).scale, 5 / 3.00001, 1e-12); /* of init_r still */
    CHECK_MEM(peft__adapter_find(back, "lm_head.weight", NULL)->p.value, peft__adapter_find(a, "lm_head.weight", NULL)->p.value,
              80 * sizeof(peft__real));
    CHECK_INT(back->method->state_count(back), 0); /* what is left stays */
    CHECK_OK(back->method->after_step(back, back->values, 1, 1, 10, NULL));
    CHECK_OK(ada_reload(&b, back, runner_path(runner_tmpdir(), "again"), &again));
    CHECK_INT(again->n_trainable, back->n_trainable);
    CHECK_MEM(again->values, back->values, (size_t)back->n_values * sizeof *back->values);
    peft__adapter_release(again);
    peft__adapter_release(back);
    peft__adapter_release(a);
    ada_run_close(&r);
    fake_end(&b);
}

TEST(adalora_as_a_lora) {
    fake_base b;
    peft_status st;
    ada_run r;
    peft__adapter *lora = NULL;
    peft__real before[64], after[64] = {0};
    fake_llama(&b);
    CHECK_OK(ada_run_open(&r, b.mem));
    peft__adapter *a = fake_adapter(&b, "adalora", FAKE(ADA_SMALL, "lora_alpha=5"), 1, &st);
    CHECK_OK(st);
    CHECK_OK(a->method->simplify(a, &lora)); /* fresh: B is 0, the rank that of all triplets */
    CHECK_INT(lora->attachments.len, 2);
    CHECK_INT(PEFT__VEC_AT(&lora->attachments, peft__attachment, 0).rank, 3);
    peft__adapter_release(lora);
    ada_noise(a->values, a->n_trainable, 3);
    *ada_e(a, 1) = *ada_e(a, 3) = *ada_e(a, 4) = *ada_e(a, 5) = 0;
    CHECK_OK(a->method->simplify(a, &lora));
    CHECK_STR(lora->method->name, "lora");
    CHECK_INT(lora->attachments.len, 1); /* of the second nothing is left */
    const peft__attachment *at = &PEFT__VEC_AT(&lora->attachments, peft__attachment, 0);
    CHECK_INT(at->rank, 2);
    CHECK_OK(ada_change(&b, &r, a, 0, before));
    CHECK_OK(lora->method->merge(lora, at, &b.sites[at->site], &r.run, after));
    for (int i = 0; i < 64; i++) { CHECK_NEAR(after[i], before[i], 1e-6); }
    peft__adapter_release(lora);
    peft__adapter_release(a);
    a = fake_adapter(&b, "adalora", FAKE(ADA_SMALL, "modules_to_save=lm_head"), 1, &st);
    CHECK_OK(st);
    CHECK_STATUS(a->method->simplify(a, &lora), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("as a LoRA it cannot keep \"lm_head\"");
    peft__adapter_release(a);
    ada_run_close(&r);
    fake_end(&b);
}

/* A fresh adapter has no E yet, and one between two choices has all of them again: both are saved whole. */
TEST(adalora_files_of_whole_adapters) {
    fake_base b;
    peft_status st;
    peft__adapter *back = NULL;
    static peft__real state[4096], grads[1024];
    const char *dir = runner_tmpdir();
    fake_llama(&b);
    peft__adapter *a = fake_adapter(&b, "adalora", FAKE(ADA_SMALL, "tinit=2", "tfinal=3"), 1, &st);
    CHECK_OK(st);
    CHECK_OK(ada_reload(&b, a, runner_path(dir, "fresh"), &back));
    CHECK(ada_config_has(&b, runner_path(dir, "fresh"), "rank_pattern", "null"));
    CHECK(ada_config_has(&b, runner_path(dir, "fresh"), "total_step", "null"));
    CHECK_INT(back->n_trainable, a->n_trainable);
    CHECK_MEM(back->values, a->values, (size_t)a->n_values * sizeof *a->values);
    CHECK_INT(peft__opt_int(&back->opts, "total_step"), 0);
    peft__adapter_release(back);
    ada_noise(a->values, a->n_trainable, 3);
    CHECK_OK(ada_reload(&b, a, runner_path(dir, "whole"), &back)); /* no run yet: the shortest schedule, which PEFT reads */
    CHECK(ada_config_has(&b, runner_path(dir, "whole"), "total_step", "6"));
    peft__adapter_release(back);
    CHECK_OK(a->method->after_step(a, grads, 1, 1, 40, state));
    CHECK_OK(ada_reload(&b, a, runner_path(dir, "run"), &back));
    CHECK(ada_config_has(&b, runner_path(dir, "run"), "total_step", "40"));
    CHECK(ada_config_has(&b, runner_path(dir, "run"), "rank_pattern", "null"));
    CHECK_INT(peft__opt_int(&a->opts, "total_step"), 0); /* the next run has its own */
    CHECK_MEM(back->values, a->values, (size_t)a->n_values * sizeof *a->values);
    peft__adapter_release(back);
    peft__adapter_release(a);
    fake_end(&b);
}

/* Every option but those of the tests above comes back as it was; what PEFT has and this has not is refused. */
TEST(adalora_config_comes_back) {
    fake_base b;
    peft_status st;
    peft__adapter *back = NULL;
    peft__str text;
    const char *dir = runner_path(runner_tmpdir(), "options");
    static const char *const keys[] = {"init_r", "target_r", "tinit", "tfinal", "deltaT", "total_step"};
    fake_llama(&b);
    peft__adapter *a = fake_adapter(&b, "adalora", FAKE("init_r=7", "target_r=3", "tinit=11", "tfinal=13", "deltaT=5", "beta1=0.7",
                                                         "beta2=0.6", "orth_reg_weight=0.25", "total_step=99", "lora_alpha=3.5",
                                                         "lora_dropout=0.125", "init_lora_weights=false",
                                                         "layers_to_transform=1", "exclude_modules=k_proj",
                                                         "target_modules=q_proj,k_proj"), 1, &st);
    CHECK_OK(st);
    CHECK_OK(ada_reload(&b, a, dir, &back));
    for (size_t i = 0; i < PEFT__COUNT(keys); i++) {
        CHECK_INT(peft__opt_int(&back->opts, keys[i]), peft__opt_int(&a->opts, keys[i]));
    }
    CHECK_NEAR(peft__opt_float(&back->opts, "beta1"), 0.7, 0);
    CHECK_NEAR(peft__opt_float(&back->opts, "beta2"), 0.6, 0);
    CHECK_NEAR(peft__opt_float(&back->opts, "orth_reg_weight"), 0.25, 0);
    CHECK_NEAR(peft__opt_float(&back->opts, "lora_alpha"), 3.5, 0);
    CHECK_NEAR(peft__opt_float(&back->opts, "lora_dropout"), 0.125, 0);
    CHECK(!peft__opt_bool(&back->opts, "init_lora_weights"));
    CHECK_INT(back->attachments.len, 1);
    peft__adapter_release(back);
    peft__adapter_release(a);
    peft__str_init(&text, b.mem);
    peft__str_puts(&text, "{\"peft_type\":\"ADALORA\",\"total_step\":null,\"target_modules\":[\"q_proj\"],\"bias\":\"all\"}");
    CHECK_OK(peft__save_text(b.mem, runner_path(dir, "adapter_config.json"), text.data, text.len));
    CHECK_STATUS(peft__adapter_load_hf(b.mem, &peft__kernels_generic, &b.info, "b", dir, false, &back), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("bias is set");
    peft__str_free(&text);
    fake_end(&b);
}

/* Fails each allocation of making and saving in turn: an error, and no byte is lost (the runner looks). */
TEST(adalora_starved) {
    fake_base b;
    peft_status st = PEFT_E_NOMEM;
    const char *dir = runner_path(runner_tmpdir(), "starved");
    fake_llama(&b);
    for (size_t n = 1; st == PEFT_E_NOMEM && n < 1000; n++) {
        peft__mem_fail_after(b.mem, n, true);
        peft__adapter *a = fake_adapter(&b, "adalora", FAKE(ADA_SMALL), 1, &st);
        peft__mem_fail_after(b.mem, 0, false);
        peft__adapter_release(a);
    }
    CHECK_OK(st);
    peft__adapter *a = fake_adapter(&b, "adalora", FAKE(ADA_SMALL), 1, &st);
    CHECK_OK(st);
    ada_noise(a->values, a->n_trainable, 3);
    *ada_e(a, 1) = 0;
    st = PEFT_E_NOMEM;
    for (size_t n = 1; st == PEFT_E_NOMEM && n < 1000; n++) {
        peft__mem_fail_after(b.mem, n, true);
        st = peft__adapter_save_hf(a, dir);
        peft__mem_fail_after(b.mem, 0, false);
    }
    CHECK_OK(st);
    peft__adapter_release(a);
    fake_end(&b);
}
