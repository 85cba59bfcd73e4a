/* api_beam_test.c - beam search: a likelier text than the greedy one, what it refuses, and no memory. That the texts are those of
 * transformers is in tests/peers/test_generate.py. */
#include "api_kit.h"

enum { BEAM_NEW = 8 };

typedef struct beam_world {
    api_host host;
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    peft_session *s;
} beam_world;

static const int32_t beam_prompt[3] = {1, 5, 2};

static peft_status beam_open(beam_world *w, const char *session) {
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    memset(w, 0, sizeof *w);
    TRY(api_context(&w->host, &w->ctx));
    TRY(api_model(w->ctx, API_LLAMA, &w->m));
    TRY(peft_adapters_create(w->m, &w->a));
    TRY(peft_adapters_add(w->a, "x", "full", NULL, 0));
    TRY(api_shake(w->a, "x", 0.4F)); /* some tokens are much likelier than others */
    TRY(api_options(w->ctx, "session", session, &o));
    TRY(peft_session_create(w->m, w->a, "x", o, &w->s));
out:
    peft_options_free(o);
    return st;
}

static void beam_close(beam_world *w) {
    peft_session_free(w->s);
    peft_adapters_free(w->a);
    peft_model_free(w->m);
    peft_context_free(w->ctx);
    CHECK_INT(w->host.now, 0);
}

static peft_status beam_generate(beam_world *w, const char *json, int32_t ids[BEAM_NEW], size_t *n) {
    peft_options *o = NULL;
    peft_status st = api_options(w->ctx, "generate", json, &o);
    if (st == PEFT_OK) { st = peft_session_generate(w->s, NULL, beam_prompt, 3, o, NULL, NULL, ids, BEAM_NEW, n); }
    peft_options_free(o);
    return st;
}

/* Log-probability of a continuation. */
static double beam_likelihood(beam_world *w, const int32_t *ids, size_t n) {
    int32_t all[3 + BEAM_NEW];
    static float logits[(3 + BEAM_NEW) * API_VOCAB];
    peft_batch *b = NULL;
    double sum = 0;
    memcpy(all, beam_prompt, sizeof beam_prompt);
    memcpy(all + 3, ids, n * sizeof *ids);
    peft_status st = api_batch(w->ctx, all, (const int64_t[]){(int64_t)(3 + n)}, 1, &b);
    if (st == PEFT_OK) { st = peft_session_logits(w->s, b, logits, PEFT__COUNT(logits), NULL); }
    peft_batch_free(b);
    if (st != PEFT_OK) { return (double)NAN; }
    for (size_t i = 0; i < n; i++) {
        const float *x = logits + (2 + i) * API_VOCAB;
        double all_of = 0;
        for (int32_t t = 0; t < API_VOCAB; t++) { all_of += exp((double)x[t]); }
        sum += (double)x[ids[i]] - log(all_of);
    }
    return sum;
}

/* With as many beams as there are tokens the best text of two is found for certain. */
TEST(api_beam_finds_the_likeliest) {
    beam_world w;
    int32_t ids[BEAM_NEW], greedy[BEAM_NEW];
    size_t n = 0;
    double best = -1e9;
    CHECK_OK(beam_open(&w, "{}"));
    CHECK_OK(beam_generate(&w, "{'num_beams':14,'max_new_tokens':2,'ignore_eos':true}", ids, &n));
    CHECK_INT(n, 2);
    double found = beam_likelihood(&w, ids, 2);
    for (int32_t i = 0; i < API_VOCAB * API_VOCAB; i++) {
        best = fmax(best, beam_likelihood(&w, (const int32_t[]){i / API_VOCAB, i % API_VOCAB}, 2));
    }
    CHECK_NEAR(found, best, 1e-6);
    CHECK_OK(beam_generate(&w, "{'num_beams':14,'max_new_tokens':8,'ignore_eos':true}", ids, &n));
    CHECK_INT(n, BEAM_NEW);
    CHECK_OK(beam_generate(&w, "{'max_new_tokens':8,'ignore_eos':true}", greedy, &n));
    CHECK(beam_likelihood(&w, ids, BEAM_NEW) > beam_likelihood(&w, greedy, BEAM_NEW) + 1e-4);
    beam_close(&w);
}

TEST(api_beam_a_token_at_a_time) {
    beam_world w;
    peft_options *o = NULL;
    int32_t ids[BEAM_NEW], id = 0;
    char text[8];
    size_t n = 0;
    CHECK_OK(beam_open(&w, "{}"));
    CHECK_OK(beam_generate(&w, "{'num_beams':3,'max_new_tokens':8,'repetition_penalty':1.5}", ids, &n));
    CHECK(n > 0);
    CHECK_OK(api_options(w.ctx, "generate", "{'num_beams':3,'max_new_tokens':8,'repetition_penalty':1.5}", &o));
    CHECK_OK(peft_session_start(w.s, NULL, beam_prompt, 3, o));
    for (size_t i = 0; i < n; i++) {
        CHECK_OK(peft_session_next(w.s, &id, text, sizeof text, NULL));
        CHECK_INT(id, ids[i]);
    }
    CHECK_OK(peft_session_next(w.s, &id, text, sizeof text, NULL));
    CHECK_INT(id, -1);
    peft_session_cancel(w.s);
    CHECK_STATUS(peft_session_start(w.s, NULL, beam_prompt, 3, o), PEFT_E_CANCELLED);
    peft_options_free(o);
    beam_close(&w);
}

TEST(api_beam_refuses) {
    beam_world w;
    peft_tokenizer *t = NULL;
    peft_options *o = NULL;
    int32_t ids[BEAM_NEW];
    size_t n = 0;
    CHECK_OK(beam_open(&w, "{'chunk':4}"));
    CHECK_STATUS(beam_generate(&w, "{'num_beams':2,'temperature':1}", ids, &n), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("temperature");
    CHECK_STATUS(beam_generate(&w, "{'num_beams':5}", ids, &n), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("the 4 tokens of the session's chunk");
    CHECK_STATUS(beam_generate(&w, "{'num_beams':0}", ids, &n), PEFT_E_KEY);
    CHECK_STATUS(beam_generate(&w, "{'early_stopping':'soon'}", ids, &n), PEFT_E_KEY);
    CHECK_OK(api_tokenizer(w.ctx, TEXT_BYTES, &t));
    CHECK_OK(api_options(w.ctx, "generate", "{'num_beams':2,'stop':'a'}", &o));
    CHECK_STATUS(peft_session_generate(w.s, t, beam_prompt, 3, o, NULL, NULL, ids, BEAM_NEW, &n), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("stop strings");
    peft_options_free(o);
    peft_tokenizer_free(t);
    beam_close(&w);
}

/* Every allocation of a search fails once; the session goes on. */
TEST(api_beam_without_memory) {
    beam_world w;
    int32_t ids[BEAM_NEW], again[BEAM_NEW];
    size_t n = 0, failures = 0;
    static const char *const how = "{'num_beams':4,'max_new_tokens':8,'ignore_eos':true,'repetition_penalty':1.2}";
    for (size_t k = 1;; k++) {
        CHECK_OK(beam_open(&w, "{}"));
        w.host.fail_at = w.host.calls + k;
        peft_status st = beam_generate(&w, how, ids, &n);
        w.host.fail_at = 0;
        CHECK(st == PEFT_OK || st == PEFT_E_NOMEM);
        CHECK_OK(beam_generate(&w, how, again, &n));
        if (st == PEFT_OK) { CHECK_INT(memcmp(ids, again, sizeof ids), 0); }
        failures += st == PEFT_E_NOMEM;
        beam_close(&w);
        if (st == PEFT_OK || k > 1000) { break; }
    }
    CHECK(failures > 5);
}
