/* peft_invertible_test.c - invertible adapters: the bijection and its inverse, shapes, what each option changes, files, errors. */
#include "api/api.h"
#include "api_kit.h"
#include "peft/expression.h"
#include "peft/invertible.h"

static const int32_t inv_ids[] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8};
enum { INV_IDS = 12, INV_LOGITS = INV_IDS * API_VOCAB };

/* A width that has no equal halves. */
#define INV_ODD                                                                                             \
    "{\"model_type\":\"llama\",\"hidden_size\":15,\"intermediate_size\":24,\"num_hidden_layers\":2,"        \
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_dim\":4,\"vocab_size\":14,"                 \
    "\"max_position_embeddings\":48,\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\"}"

typedef struct inv_world {
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    float base[INV_LOGITS], logits[INV_LOGITS], other[INV_LOGITS];
} inv_world;

static peft_status inv_open(inv_world *w, const char *config, int32_t threads) {
    peft_status st = PEFT_OK;
    memset(w, 0, sizeof *w);
    TRY(peft_context_create(NULL, &w->ctx));
    TRY(peft_context_set_threads(w->ctx, threads));
    TRY(api_model(w->ctx, config, &w->m));
    TRY(peft_adapters_create(w->m, &w->a));
out:
    return st;
}

static void inv_close(inv_world *w) {
    peft_adapters_free(w->a);
    peft_model_free(w->m);
    peft_context_free(w->ctx);
}

static peft_status inv_add(inv_world *w, const char *name, const char *method, const char *options) {
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    char schema[64];
    (void)snprintf(schema, sizeof schema, "method:%s", method);
    TRY(api_options(w->ctx, schema, options, &o));
    TRY(peft_adapters_add(w->a, name, method, o, 5));
out:
    peft_options_free(o);
    return st;
}

/* name NULL: the base. */
static peft_status inv_logits(inv_world *w, const char *name, float *out) {
    peft_status st = PEFT_OK;
    peft_session *s = NULL;
    peft_batch *b = NULL;
    const int64_t rows[] = {7, 5};
    TRY(peft_session_create(w->m, name != NULL ? w->a : NULL, name, NULL, &s));
    TRY(api_batch(w->ctx, inv_ids, rows, 2, &b));
    TRY(peft_session_logits(s, b, out, INV_LOGITS, NULL));
out:
    peft_batch_free(b);
    peft_session_free(s);
    return st;
}

static bool inv_has(const inv_world *w, const char *name, const char *tensor, int64_t d0, int64_t d1) {
    for (size_t i = 0; i < peft_adapters_tensor_count(w->a, name); i++) {
        int32_t ndim = 0;
        int64_t dims[8] = {0};
        const char *found = NULL;
        if (peft_adapters_tensor_info(w->a, name, i, &found, &ndim, dims) != PEFT_OK || strcmp(found, tensor) != 0) { continue; }
        return ndim == (d1 > 0 ? 2 : 1) && dims[0] == d0 && (d1 == 0 || dims[1] == d1);
    }
    return false;
}

static size_t inv_count(const inv_world *w, const char *name) {
    size_t n = 0;
    for (size_t i = 0; i < peft_adapters_tensor_count(w->a, name); i++) {
        const char *found = NULL;
        n += peft_adapters_tensor_info(w->a, name, i, &found, NULL, NULL) == PEFT_OK &&
             strstr(found, "invertible_adapters.") != NULL;
    }
    return n;
}

/* ---- the bijection ----------------------------------------------------------------------------------------------- */

/* What the hooks of an expression make of x at the input, and of that at the head. */
static peft__val inv_through(inv_world *w, const peft__expression *e, peft__tape *t, peft__val x, bool both) {
    const peft__base_info *base = &w->a->base;
    peft__head_spec spec;
    memset(&spec, 0, sizeof spec);
    if (peft__compose(t, base, e) != PEFT_OK) { return PEFT__NONE; }
    for (size_t i = 0; i < base->n_sites; i++) {
        const peft__site *s = &base->sites[i];
        if (s->kind == PEFT__SITE_INPUT) { x = peft__site_input(t, s, x); }
        if (s->kind == PEFT__SITE_HEAD && both) { x = t->hooks->head(t->hooks->user, t, s, x, &spec); }
    }
    return x;
}

/* Largest |x - f(x)| over the embeddings of some tokens, f the bijections of an expression over a Llama, and after them their
 * inverses if `both`; and the largest |x|. Through the tape, as a session runs it. */
static peft_status inv_gap(inv_world *w, const char *expression, bool both, double *gap, double *size) {
    static const int64_t offsets[] = {0, 7, 12};
    static const int32_t positions[] = {0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4};
    peft_status st = PEFT_OK;
    peft__caps caps = {.max_rows = 2, .max_tokens = INV_IDS, .max_length = 7};
    peft__expression e;
    peft__tape t;
    peft__plan plan;
    peft__exec x;
    peft__pool *pool = NULL;
    peft__frame f;
    memset(&e, 0, sizeof e);
    memset(&plan, 0, sizeof plan);
    memset(&x, 0, sizeof x);
    memset(&f, 0, sizeof f);
    peft__tape_init(&t, &w->ctx->mem, false);
    TRY(peft__expression_parse(&e, &w->ctx->mem, w->a, expression));
    const peft__site *table = &w->a->base.sites[0];
    t.segments = 1;
    peft__val in = peft__op_embed(&t, table->weight, PEFT__NONE, 1);
    peft__val y = inv_through(w, &e, &t, in, both);
    peft__val d = peft__op_add(&t, in, peft__op_scale_all(&t, y, -1, PEFT__NONE));
    peft__val kept = peft__op_add(&t, in, in); /* so that x is there at the end */
    peft__val both_values = peft__op_join(&t, d, kept);
    TRY(peft__tape_finish(&t));
    TRY(peft__pool_create(&w->ctx->mem, 2, &pool));
    TRY(peft__plan_make(&plan, &w->ctx->mem, &t, &caps, 0, w->ctx->kernels, 2, 4));
    TRY(peft__exec_create(&x, &w->ctx->mem, &t, &plan, w->ctx->kernels, pool));
    f.n_rows = 2;
    f.count[PEFT__SPACE_TOKENS] = f.count[PEFT__SPACE_INPUT] = INV_IDS;
    f.count[PEFT__SPACE_ROWS] = 2;
    f.offsets[PEFT__SPACE_TOKENS] = f.offsets[PEFT__SPACE_INPUT] = offsets;
    f.ids = inv_ids;
    f.positions = positions;
    TRY(peft__exec_run(&x, &f, false));
    const peft__real *v = peft__exec_data(&x, both_values);
    int64_t c = table->out;
    *gap = *size = 0;
    for (int64_t i = 0; i < INV_IDS * 2 * c; i++) {
        double *most = i % (2 * c) < c ? gap : size;
        *most = fmax(*most, fabs((double)v[i]) * (i % (2 * c) < c ? 1 : 0.5));
    }
out:
    peft__exec_free(&x);
    peft__plan_free(&plan);
    peft__pool_free(pool);
    peft__tape_free(&t);
    peft__expression_free(&e);
    return st;
}

TEST(invertible_undoes_itself) {
    static const char *const configs[] = {API_LLAMA, INV_ODD};
    static const char *const kinds[] = {"{'inv_adapter':'nice'}", "{'inv_adapter':'glow','inv_adapter_reduction_factor':1.5}"};
    for (int i = 0; i < 4; i++) {
        inv_world w;
        double gap = 0, size = 0;
        CHECK_OK(inv_open(&w, configs[i / 2], 2));
        CHECK_OK(inv_add(&w, "a", "pfeiffer", kinds[i % 2]));
        CHECK_OK(api_shake(w.a, "a", 0.7F));
        CHECK_OK(inv_gap(&w, "a", false, &gap, &size));
        CHECK(gap > 0.1 && size > 0.01);
        CHECK_OK(inv_gap(&w, "a", true, &gap, &size));
        CHECK_NEAR(gap, 0, 1e-6 * (1 + size));
        inv_close(&w);
    }
}

/* Of several, the last to change the embeddings is the first to be undone. */
TEST(invertible_stack_is_undone_in_reverse) {
    inv_world w;
    double gap = 0, size = 0;
    CHECK_OK(inv_open(&w, API_LLAMA, 2));
    CHECK_OK(inv_add(&w, "a", "pfeiffer_inv", "{}"));
    CHECK_OK(inv_add(&w, "b", "houlsby", "{'inv_adapter':'glow','non_linearity':'tanh'}"));
    CHECK_OK(api_shake(w.a, "a", 0.7F));
    CHECK_OK(api_shake(w.a, "b", 0.5F));
    CHECK_OK(inv_gap(&w, "stack(a, b)", false, &gap, &size));
    CHECK(gap > 0.1);
    CHECK_OK(inv_gap(&w, "stack(a, b)", true, &gap, &size));
    CHECK_NEAR(gap, 0, 1e-6 * (1 + size));
    inv_close(&w);
}

/* Hand-made networks over a Llama's embeddings: F(x2) = f0, G(y1) = g0 whatever they read. */
TEST(invertible_nice_by_hand) {
    inv_world w;
    float f[8], g[8];
    CHECK_OK(inv_open(&w, API_LLAMA, 1));
    CHECK_OK(inv_add(&w, "a", "pfeiffer_inv", "{'leave_out':[0,1],'inv_head':false}"));
    CHECK_OK(inv_logits(&w, NULL, w.base));
    CHECK_OK(api_fill(w.a, "a", "model.invertible_adapters.F.2.weight", 8 * 4, NULL));
    CHECK_OK(api_fill(w.a, "a", "model.invertible_adapters.G.2.weight", 8 * 4, NULL));
    CHECK_OK(inv_logits(&w, "a", w.logits));
    CHECK_INT(memcmp(w.base, w.logits, sizeof w.base), 0); /* x + 0 */
    for (int i = 0; i < 8; i++) {
        f[i] = 0.25F * (float)i - 1;
        g[i] = -f[i];
    }
    CHECK_OK(api_fill(w.a, "a", "model.invertible_adapters.F.2.bias", 8, f));
    CHECK_OK(api_fill(w.a, "a", "model.invertible_adapters.G.2.bias", 8, g));
    double gap = 0, size = 0;
    CHECK_OK(inv_gap(&w, "a", false, &gap, &size));
    CHECK_NEAR(gap, 1, 1e-6);
    inv_close(&w);
}

/* ---- options ------------------------------------------------------------------------------------------------------- */

TEST(invertible_shapes_and_options) {
    inv_world w;
    CHECK_OK(inv_open(&w, API_GPT2, 1));
    CHECK_OK(inv_add(&w, "plain", "pfeiffer", "{}"));
    CHECK_INT(inv_count(&w, "plain"), 0);
    CHECK_OK(inv_add(&w, "nice", "pfeiffer", "{'inv_adapter':'nice'}"));
    CHECK_INT(inv_count(&w, "nice"), 8);
    CHECK(inv_has(&w, "nice", "transformer.invertible_adapters.F.0.weight", 4, 8));
    CHECK(inv_has(&w, "nice", "transformer.invertible_adapters.F.0.bias", 4, 0));
    CHECK(inv_has(&w, "nice", "transformer.invertible_adapters.G.2.weight", 8, 4));
    CHECK(inv_has(&w, "nice", "transformer.invertible_adapters.G.2.bias", 8, 0));
    CHECK_OK(inv_add(&w, "glow", "houlsby", "{'inv_adapter':'glow','inv_adapter_reduction_factor':3}"));
    CHECK_INT(inv_count(&w, "glow"), 8);
    CHECK(inv_has(&w, "glow", "transformer.invertible_adapters.s1.0.weight", 2, 8)); /* floor(8 / 3) */
    CHECK(inv_has(&w, "glow", "transformer.invertible_adapters.s2.2.weight", 16, 2));
    CHECK(inv_has(&w, "glow", "transformer.invertible_adapters.s2.2.bias", 16, 0));
    CHECK_OK(inv_add(&w, "p", "pfeiffer_inv", "{}"));
    CHECK_OK(inv_add(&w, "h", "houlsby_inv", "{}"));
    CHECK_INT(inv_count(&w, "p"), 8);
    CHECK_INT(peft_adapters_tensor_count(w.a, "h"), 8 + 2 * 2 * 4);
    CHECK_INT(peft_adapters_tensor_count(w.a, "p"), 8 + 2 * 4);
    inv_close(&w);
    CHECK_OK(inv_open(&w, INV_ODD, 1));
    CHECK_OK(inv_add(&w, "odd", "pfeiffer", "{'inv_adapter':'nice'}"));
    CHECK(inv_has(&w, "odd", "model.invertible_adapters.F.0.weight", 4, 8)); /* reads the second half of 8, gives 7 */
    CHECK(inv_has(&w, "odd", "model.invertible_adapters.F.2.weight", 7, 4));
    CHECK(inv_has(&w, "odd", "model.invertible_adapters.G.0.weight", 3, 7));
    CHECK(inv_has(&w, "odd", "model.invertible_adapters.G.2.weight", 8, 3));
    inv_close(&w);
}

/* Alone in the model, so that what changes is theirs. */
TEST(invertible_options_change_the_model) {
    static const char *const options[] = {
        "{'leave_out':[0,1]}",
        "{'leave_out':[0,1],'inv_adapter':'glow'}",
        "{'leave_out':[0,1],'inv_head':false}",
        "{'leave_out':[0,1],'non_linearity':'tanh'}",
        "{'leave_out':[0,1],'inv_adapter_reduction_factor':1}",
    };
    static float logits[PEFT__COUNT(options)][INV_LOGITS];
    static const char *const configs[] = {API_LLAMA, API_GPT2};
    for (int m = 0; m < 2; m++) {
        inv_world w;
        CHECK_OK(inv_open(&w, configs[m], 2));
        CHECK_OK(inv_logits(&w, NULL, w.base));
        for (size_t i = 0; i < PEFT__COUNT(options); i++) {
            char name[8];
            (void)snprintf(name, sizeof name, "a%zu", i);
            CHECK_OK(inv_add(&w, name, "pfeiffer_inv", options[i]));
            CHECK_OK(api_shake(w.a, name, 0.5F));
            CHECK_OK(inv_logits(&w, name, logits[i]));
            CHECK(api_distance(logits[i], w.base, INV_LOGITS) > 1e-3);
            for (size_t k = 0; k < i; k++) { CHECK(api_distance(logits[i], logits[k], INV_LOGITS) > 1e-3); }
        }
        inv_close(&w);
    }
}

/* N(0, 0.02) and zero biases: no identity, whatever init_weights says of the bottlenecks. */
TEST(invertible_starts_near_the_identity) {
    inv_world w;
    float v[8 * 8];
    double sum = 0;
    CHECK_OK(inv_open(&w, API_LLAMA, 1));
    CHECK_OK(inv_add(&w, "a", "parallel", "{'inv_adapter':'nice','inv_adapter_reduction_factor':1}"));
    CHECK_OK(peft_adapters_tensor_read(w.a, "a", "model.invertible_adapters.F.2.weight", v, 64, NULL));
    for (int i = 0; i < 64; i++) { sum += (double)v[i] * (double)v[i]; }
    CHECK(sqrt(sum / 64) > 0.014 && sqrt(sum / 64) < 0.026);
    CHECK_OK(peft_adapters_tensor_read(w.a, "a", "model.invertible_adapters.G.0.bias", v, 8, NULL));
    for (int i = 0; i < 8; i++) { CHECK_NEAR(v[i], 0, 0); }
    CHECK_OK(inv_logits(&w, NULL, w.base));
    CHECK_OK(inv_logits(&w, "a", w.logits));
    double gap = api_distance(w.base, w.logits, INV_LOGITS);
    CHECK(gap > 0 && gap < 0.05);
    inv_close(&w);
}

TEST(invertible_errors) {
    inv_world w;
    CHECK_OK(inv_open(&w, API_LLAMA, 1));
    CHECK_INT(inv_add(&w, "a", "pfeiffer", "{'inv_adapter':'real'}"), PEFT_E_KEY);
    CHECK_ERROR_HAS("none|nice|glow");
    CHECK_INT(inv_add(&w, "a", "pfeiffer", "{'inv_adapter':'nice','inv_adapter_reduction_factor':9}"), PEFT_E_KEY);
    CHECK_ERROR_HAS("inv_adapter_reduction_factor 9 leaves nothing of the 8 columns that network F reads");
    CHECK_INT(inv_add(&w, "a", "pfeiffer", "{'inv_adapter':'nice','inv_adapter_reduction_factor':0}"), PEFT_E_KEY);
    CHECK_INT(inv_add(&w, "a", "pfeiffer", "{'leave_out':[0,1]}"), PEFT_E_NOT_FOUND);
    CHECK_OK(inv_add(&w, "a", "pfeiffer_inv", "{'leave_out':[0,1]}"));
    CHECK_INT(peft_adapters_merge(w.a, "a", runner_path(runner_tmpdir(), "merged"), NULL), PEFT_E_UNSUPPORTED);
    inv_close(&w);
}

/* ---- files --------------------------------------------------------------------------------------------------------- */

TEST(invertible_files) {
    static const char *const configs[] = {API_LLAMA, API_GPT2};
    static const char *const options[] = {"{'inv_adapter':'nice'}", "{'inv_adapter':'glow','inv_adapter_reduction_factor':3}",
                                          "{'inv_adapter':'nice','inv_head':false}"};
    static const char *const classes[][2] = {{"\"LlamaAdapterModel\"", "\"LlamaForCausalLM\""},
                                             {"\"GPT2AdapterModel\"", "\"GPT2LMHeadModel\""}};
    static const char *const tensors[][2] = {
        {"model.invertible_adapters.first.F.0.weight", "model.invertible_adapters.first.s1.0.weight"},
        {"transformer.invertible_adapters.first.G.2.bias", "transformer.invertible_adapters.first.s2.2.bias"}};
    for (int i = 0; i < 6; i++) {
        inv_world w;
        char info[8192];
        const char *dir = runner_path(runner_tmpdir(), i < 3 ? "llama" : "gpt2");
        CHECK_OK(inv_open(&w, configs[i / 3], 1));
        CHECK_OK(inv_add(&w, "first", "houlsby", options[i % 3]));
        CHECK_OK(api_shake(w.a, "first", 0.3F));
        CHECK_OK(inv_logits(&w, "first", w.logits));
        CHECK_OK(peft_adapters_save(w.a, "first", dir, NULL));
        CHECK_OK(peft_inspect_json(w.ctx, dir, info, sizeof info, NULL));
        CHECK(strstr(info, tensors[i / 3][i % 3 == 1]) != NULL);
        CHECK(strstr(info, classes[i / 3][i % 3 == 2]) != NULL);
        CHECK_OK(peft_adapters_load(w.a, "second", dir, NULL));
        CHECK_OK(inv_logits(&w, "second", w.other));
        CHECK_INT(memcmp(w.logits, w.other, sizeof w.logits), 0);
        CHECK_INT(inv_count(&w, "second"), 8);
        inv_close(&w);
    }
}

/* ---- threads, sessions --------------------------------------------------------------------------------------------- */

static peft_status inv_gradient(inv_world *w, float *out, size_t cap, size_t *n) {
    peft_status st = PEFT_OK;
    peft_trainer *t = NULL;
    peft_batch *b = NULL;
    double loss = 0;
    const int64_t rows[] = {7, 5};
    *n = 0;
    TRY(peft_trainer_create(w->a, NULL, &t));
    TRY(peft_trainer_add_job(t, "a", NULL, NULL, NULL));
    TRY(api_batch(w->ctx, inv_ids, rows, 2, &b));
    TRY(peft_trainer_accumulate(t, b, &loss));
    for (size_t i = 0; i < peft_adapters_tensor_count(w->a, "a"); i++) {
        const char *name = NULL;
        size_t got = 0;
        TRY(peft_adapters_tensor_info(w->a, "a", i, &name, NULL, NULL));
        TRY(peft_trainer_gradient_read(t, "a", name, out + *n, cap - *n, &got));
        *n += got;
    }
out:
    peft_batch_free(b);
    peft_trainer_free(t);
    return st;
}

TEST(invertible_threads_same_bits) {
    static const char *const kinds[] = {"{}", "{'inv_adapter':'glow'}"};
    static float grads[2][8192];
    for (int i = 0; i < 2; i++) {
        size_t n[2] = {0, 0};
        for (int k = 0; k < 2; k++) {
            inv_world w;
            CHECK_OK(inv_open(&w, API_GPT2, k == 0 ? 1 : 4));
            CHECK_OK(inv_add(&w, "a", "houlsby_inv", kinds[i]));
            CHECK_OK(api_shake(w.a, "a", 0.3F));
            CHECK_OK(inv_gradient(&w, grads[k], 8192, &n[k]));
            inv_close(&w);
        }
        CHECK(n[0] == n[1] && n[0] > 100);
        CHECK_INT(memcmp(grads[0], grads[1], n[0] * sizeof(float)), 0);
    }
}

/* A session reads new tokens only, after its cache: the continuation is what whole rows say. */
TEST(invertible_sessions_go_on) {
    static const char *const configs[] = {API_LLAMA, API_GPT2};
    for (int m = 0; m < 2; m++) {
        inv_world w;
        peft_session *s = NULL;
        peft_options *o = NULL;
        peft_batch *b = NULL;
        int32_t ids[16] = {3, 1, 4, 1, 5}, made[8];
        static float all[16 * API_VOCAB];
        size_t n = 0;
        CHECK_OK(inv_open(&w, configs[m], 1));
        CHECK_OK(inv_add(&w, "a", "pfeiffer_inv", "{}"));
        CHECK_OK(api_shake(w.a, "a", 0.5F));
        CHECK_OK(peft_session_create(w.m, w.a, "a", NULL, &s));
        CHECK_OK(api_options(w.ctx, "generate", "{'max_new_tokens':8,'temperature':0,'ignore_eos':true}", &o));
        CHECK_OK(peft_session_generate(s, NULL, ids, 5, o, NULL, NULL, made, 8, &n));
        CHECK_INT(n, 8);
        memcpy(ids + 5, made, sizeof made);
        CHECK_OK(api_batch(w.ctx, ids, (const int64_t[]){13}, 1, &b));
        CHECK_OK(peft_session_logits(s, b, all, PEFT__COUNT(all), NULL));
        for (size_t t = 4; t < 12; t++) {
            size_t best = 0;
            for (size_t v = 1; v < API_VOCAB; v++) { best = all[t * API_VOCAB + v] > all[t * API_VOCAB + best] ? v : best; }
            CHECK_INT(best, ids[t + 1]);
        }
        peft_batch_free(b);
        peft_options_free(o);
        peft_session_free(s);
        inv_close(&w);
    }
}
