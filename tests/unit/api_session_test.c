/* api_session_test.c - logits and generation: the cache against whole rows, greedy against the largest logit, ends and stops. */
#include "api_kit.h"

typedef struct session_fixture {
    api_host host;
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    peft_tokenizer *t;
} session_fixture;

static peft_status session_begin(session_fixture *f, const char *config) {
    peft_status st = PEFT_OK;
    memset(f, 0, sizeof *f);
    TRY(api_context(&f->host, &f->ctx));
    TRY(api_model(f->ctx, config, &f->m));
    TRY(peft_adapters_create(f->m, &f->a));
    TRY(peft_adapters_add(f->a, "x", "lora", NULL, 1));
    TRY(api_shake(f->a, "x", 0.3F));
    TRY(api_tokenizer(f->ctx, TEXT_BYTES, &f->t));
out:
    return st;
}

static void session_end(session_fixture *f) {
    peft_tokenizer_free(f->t);
    peft_adapters_free(f->a);
    peft_model_free(f->m);
    peft_context_free(f->ctx);
}

static peft_status session_open(session_fixture *f, const char *name, const char *json, peft_session **out) {
    peft_options *o = NULL;
    peft_status st = api_options(f->ctx, "session", json, &o);
    if (st == PEFT_OK) { st = peft_session_create(f->m, name != NULL ? f->a : NULL, name, o, out); }
    peft_options_free(o);
    return st;
}

static const int32_t session_ids[40] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4,
                                        6, 2, 6, 4, 3, 3, 8, 3, 2, 7, 9, 5, 0, 2, 8, 8, 4, 1, 9, 7};

/* Logits of session_ids as rows of these lengths. */
static peft_status session_logits(session_fixture *f, const char *name, const char *json, const int64_t *lens,
                                  size_t rows, float *out) {
    peft_session *s = NULL;
    peft_batch *b = NULL;
    size_t needed = 0;
    peft_status st = session_open(f, name, json, &s);
    if (st == PEFT_OK) { st = api_batch(f->ctx, session_ids, lens, rows, &b); }
    if (st == PEFT_OK) { st = peft_session_logits(s, b, out, 40 * API_VOCAB, &needed); }
    peft_batch_free(b);
    peft_session_free(s);
    return st;
}

TEST(api_session_pieces_equal_the_whole) {
    static const char *const configs[] = {API_LLAMA, API_GPT2};
    static float whole[40 * API_VOCAB], pieces[40 * API_VOCAB], base[40 * API_VOCAB];
    const int64_t one[] = {40};
    for (size_t i = 0; i < 2; i++) {
        session_fixture f;
        CHECK_OK(session_begin(&f, configs[i]));
        CHECK_OK(session_logits(&f, "x", "{}", one, 1, whole));
        CHECK_OK(session_logits(&f, NULL, "{}", one, 1, base));
        CHECK(api_distance(whole, base, PEFT__COUNT(whole)) > 0.01);
        CHECK_OK(session_logits(&f, "x", "{'chunk':7}", one, 1, pieces));
        CHECK_NEAR(api_distance(whole, pieces, PEFT__COUNT(whole)), 0, 1e-6);
        CHECK_OK(session_logits(&f, "x", "{'chunk':1}", one, 1, pieces));
        CHECK_NEAR(api_distance(whole, pieces, PEFT__COUNT(whole)), 0, 1e-6);
        session_end(&f);
        CHECK_INT(f.host.now, 0);
    }
}

TEST(api_session_rows_do_not_see_each_other) {
    session_fixture f;
    static float together[40 * API_VOCAB], apart[40 * API_VOCAB];
    const int64_t rows[] = {3, 1, 20, 9, 7};
    CHECK_OK(session_begin(&f, API_LLAMA));
    CHECK_OK(session_logits(&f, "x", "{'chunk':12}", rows, 5, together)); /* two short, one long, one and one short */
    CHECK_OK(session_logits(&f, "x", "{}", rows, 5, apart));
    CHECK_NEAR(api_distance(together, apart, PEFT__COUNT(apart)), 0, 1e-6);
    CHECK_OK(session_logits(&f, "x", "{}", rows, 1, together));
    CHECK_MEM(together, apart, 3 * API_VOCAB * sizeof(float)); /* the same bits without the neighbours */
    session_end(&f);
}

TEST(api_session_threads_give_the_same_bits) {
    session_fixture f;
    static float one[40 * API_VOCAB], three[40 * API_VOCAB];
    const int64_t rows[] = {33, 7};
    CHECK_OK(session_begin(&f, API_LLAMA));
    CHECK_OK(peft_context_set_threads(f.ctx, 1));
    CHECK_OK(session_logits(&f, "x", "{}", rows, 2, one));
    CHECK_OK(peft_context_set_threads(f.ctx, 3));
    CHECK_OK(session_logits(&f, "x", "{}", rows, 2, three));
    CHECK_MEM(one, three, sizeof one);
    session_end(&f);
}

TEST(api_session_greedy_is_the_largest_logit) {
    session_fixture f;
    peft_session *s = NULL;
    peft_options *o = NULL;
    int32_t made[12], row[20];
    float logits[20 * API_VOCAB];
    size_t n = 0, needed = 0;
    CHECK_OK(session_begin(&f, API_GPT2));
    CHECK_OK(session_open(&f, "x", "{'chunk':3}", &s));
    CHECK_OK(api_options(f.ctx, "generate", "{'max_new_tokens':12,'ignore_eos':true}", &o));
    CHECK_OK(peft_session_generate(s, NULL, session_ids, 8, o, NULL, NULL, made, 12, &n));
    CHECK_INT(n, 12);
    memcpy(row, session_ids, 8 * sizeof *row);
    for (int64_t k = 8; k < 20; k++) {
        peft_batch *b = NULL;
        int64_t best = 0;
        CHECK_OK(api_batch(f.ctx, row, &k, 1, &b));
        CHECK_OK(peft_session_logits(s, b, logits, PEFT__COUNT(logits), &needed));
        CHECK_INT(needed, k * API_VOCAB);
        peft_batch_free(b);
        const float *last = logits + (k - 1) * API_VOCAB;
        for (int64_t v = 1; v < API_VOCAB; v++) { best = last[v] > last[best] ? v : best; }
        CHECK_INT(made[k - 8], best);
        row[k] = made[k - 8];
    }
    peft_options_free(o);
    peft_session_free(s);
    session_end(&f);
}

TEST(api_session_seed_fixes_the_choice) {
    session_fixture f;
    peft_session *s = NULL;
    peft_options *o = NULL;
    int32_t a[20], b[20], c[20];
    size_t n = 0;
    CHECK_OK(session_begin(&f, API_LLAMA));
    CHECK_OK(session_open(&f, "x", "{}", &s));
    CHECK_OK(api_options(f.ctx, "generate",
                         "{'max_new_tokens':20,'temperature':1.5,'seed':4,'ignore_eos':true,'top_p':0.95}", &o));
    CHECK_OK(peft_session_generate(s, NULL, session_ids, 4, o, NULL, NULL, a, 20, &n));
    CHECK_INT(n, 20);
    CHECK_OK(peft_session_generate(s, NULL, session_ids, 4, o, NULL, NULL, b, 20, &n));
    CHECK_MEM(a, b, sizeof a);
    CHECK_OK(peft_options_set_int(o, "seed", 5));
    CHECK_OK(peft_session_generate(s, NULL, session_ids, 4, o, NULL, NULL, c, 20, &n));
    CHECK(memcmp(a, c, sizeof a) != 0);
    peft_options_free(o);
    peft_session_free(s);
    session_end(&f);
}

TEST(api_session_ends_with_its_length) {
    session_fixture f;
    peft_session *s = NULL;
    peft_options *o = NULL;
    int32_t made[64];
    size_t n = 0;
    CHECK_OK(session_begin(&f, API_LLAMA));
    CHECK_OK(session_open(&f, NULL, "{'max_length':10}", &s));
    CHECK_OK(api_options(f.ctx, "generate", "{'ignore_eos':true}", &o));
    CHECK_OK(peft_session_generate(s, NULL, session_ids, 7, o, NULL, NULL, made, 64, &n));
    CHECK_INT(n, 3);
    CHECK_STATUS(peft_session_generate(s, NULL, session_ids, 10, o, NULL, NULL, made, 64, &n), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("max_length of 10");
    CHECK_INT(n, 0);
    CHECK_OK(peft_options_set_int(o, "max_new_tokens", 0));
    CHECK_OK(peft_session_generate(s, NULL, session_ids, 7, o, NULL, NULL, NULL, 0, &n));
    CHECK_INT(n, 0);
    peft_session_free(s);
    CHECK_STATUS(session_open(&f, NULL, "{'max_length':49}", &s), PEFT_E_KEY);
    CHECK_ERROR_HAS("48 positions");
    peft_options_free(o);
    session_end(&f);
}

TEST(api_session_arguments) {
    session_fixture f;
    peft_session *s = NULL;
    peft_batch *b = NULL;
    peft_model *other = NULL;
    float logits[8 * API_VOCAB];
    const int64_t eight[] = {8};
    static const int32_t strange[] = {1, 14};
    const int64_t two[] = {2};
    size_t n = 0;
    CHECK_OK(session_begin(&f, API_LLAMA));
    CHECK_STATUS(peft_session_create(NULL, NULL, NULL, NULL, &s), PEFT_E_INVALID);
    CHECK_STATUS(peft_session_create(f.m, NULL, NULL, NULL, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_session_create(f.m, NULL, "x", NULL, &s), PEFT_E_INVALID);
    CHECK_ERROR_HAS("\"x\"");
    CHECK_STATUS(peft_session_create(f.m, f.a, "y", NULL, &s), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("there is no adapter \"y\"");
    CHECK_STATUS(peft_session_create(f.m, f.a, "x,x", NULL, &s), PEFT_E_INVALID);
    CHECK_STATUS(peft_session_create(f.m, f.a, "x,", NULL, &s), PEFT_E_INVALID);
    CHECK_OK(api_model(f.ctx, API_GPT2, &other));
    CHECK_STATUS(peft_session_create(other, f.a, "x", NULL, &s), PEFT_E_INVALID);
    CHECK_ERROR_HAS("another model");
    peft_model_free(other);
    CHECK(s == NULL);
    CHECK_OK(peft_adapters_remove(f.a, "x")); /* no failed session holds it */
    CHECK_OK(peft_session_create(f.m, f.a, NULL, NULL, &s));
    CHECK_OK(api_batch(f.ctx, session_ids, eight, 1, &b));
    CHECK_STATUS(peft_session_logits(NULL, b, logits, 8, &n), PEFT_E_INVALID);
    CHECK_STATUS(peft_session_logits(s, NULL, logits, 8, &n), PEFT_E_INVALID);
    CHECK_STATUS(peft_session_logits(s, b, NULL, 0, &n), PEFT_E_BUFFER);
    CHECK_INT(n, 8 * API_VOCAB);
    CHECK_STATUS(peft_session_logits(s, b, logits, n - 1, NULL), PEFT_E_BUFFER);
    CHECK_OK(peft_session_logits(s, b, logits, n, NULL));
    peft_batch_clear(b);
    CHECK_OK(peft_session_logits(s, b, NULL, 0, &n));
    CHECK_INT(n, 0);
    peft_batch_free(b);
    CHECK_OK(api_batch(f.ctx, strange, two, 1, &b));
    CHECK_STATUS(peft_session_logits(s, b, logits, 8 * API_VOCAB, &n), PEFT_E_INVALID);
    CHECK_ERROR_HAS("token 1 has id 14, expected 0 to 13");
    peft_batch_free(b);
    CHECK_STATUS(peft_session_generate(s, NULL, strange, 2, NULL, NULL, NULL, NULL, 0, &n), PEFT_E_INVALID);
    CHECK_STATUS(peft_session_generate(s, NULL, NULL, 0, NULL, NULL, NULL, NULL, 0, &n), PEFT_E_INVALID);
    CHECK_ERROR_HAS("no tokens");
    CHECK_STATUS(peft_session_generate(s, NULL, NULL, 3, NULL, NULL, NULL, NULL, 0, &n), PEFT_E_INVALID);
    CHECK_STATUS(peft_session_generate_text(s, NULL, "a", 1, NULL, NULL, NULL, NULL, 0, &n), PEFT_E_INVALID);
    CHECK_ERROR_HAS("tokenizer is NULL");
    CHECK_STATUS(peft_session_evaluate(s, NULL, NULL, 0, NULL), PEFT_E_INVALID);
    peft_session_cancel(NULL);
    peft_session_free(NULL);
    peft_session_free(s);
    session_end(&f);
}

TEST(api_session_evaluate) {
    session_fixture f;
    peft_session *s = NULL;
    peft_dataset *d = NULL;
    char text[256];
    CHECK_OK(session_begin(&f, API_LLAMA));
    CHECK_OK(session_open(&f, "x", "{}", &s));
    CHECK_OK(peft_dataset_create(f.ctx, NULL, NULL, &d));
    CHECK_STATUS(peft_session_evaluate(s, d, text, sizeof text, NULL), PEFT_E_INVALID);
    CHECK_OK(peft_dataset_add_json(d, "{\"input_ids\":[1,2,3,4]}", 23));
    CHECK_OK(peft_session_evaluate(s, d, text, sizeof text, NULL));
    CHECK(strstr(text, "\"tokens\":3,\"rows\":1}") != NULL);
    CHECK_NEAR(atof(text + strlen("{\"loss\":")), log(API_VOCAB), 1);
    peft_session_cancel(s); /* the next call ends at once, and only that one */
    CHECK_STATUS(peft_session_evaluate(s, d, text, sizeof text, NULL), PEFT_E_CANCELLED);
    CHECK_OK(peft_session_evaluate(s, d, text, sizeof text, NULL));
    peft_dataset_free(d);
    peft_session_free(s);
    session_end(&f);
}

TEST(api_session_frees_in_any_order) {
    session_fixture f;
    peft_session *s = NULL;
    int32_t made[4];
    size_t n = 0;
    CHECK_OK(session_begin(&f, API_LLAMA));
    CHECK_OK(session_open(&f, "x", "{}", &s));
    session_end(&f);
    peft_options *o = NULL;
    CHECK_STATUS(peft_session_generate(s, NULL, session_ids, 4, o, NULL, NULL, made, 0, &n), PEFT_E_BUFFER);
    CHECK(n > 0);
    peft_session_free(s);
    CHECK_INT(f.host.now, 0);
}

/* A host's pool: all bodies on this thread. */
static void session_serial(void *user, int64_t n, int32_t workers, void (*body)(void *arg, int64_t i, int32_t worker),
                           void *arg) {
    (void)workers;
    *(int64_t *)user += n;
    for (int64_t i = 0; i < n; i++) { body(arg, i, 0); }
}

TEST(api_session_uses_the_hosts_pool) {
    session_fixture f;
    int64_t bodies = 0;
    static float own[40 * API_VOCAB], host[40 * API_VOCAB];
    const int64_t one[] = {40};
    CHECK_OK(session_begin(&f, API_LLAMA));
    CHECK_OK(session_logits(&f, "x", "{}", one, 1, own));
    CHECK_OK(peft_context_set_parallel_for(f.ctx, session_serial, &bodies));
    CHECK_OK(session_logits(&f, "x", "{}", one, 1, host));
    CHECK_MEM(own, host, sizeof own);
    CHECK(bodies > 0);
    session_end(&f);
}
