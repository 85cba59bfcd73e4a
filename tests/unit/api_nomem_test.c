/* api_nomem_test.c - every allocation of a whole way through the library fails once: a status comes back, nothing leaks, and
 * the handles go on as if the failed call had not been made. */
#include "api_kit.h"

typedef struct nomem_world {
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    peft_options *o;
    peft_batch *b;
    peft_dataset *d;
    peft_trainer *t;
    peft_session *s;
    peft_tokenizer *words;
} nomem_world;

static void nomem_free(nomem_world *w) {
    peft_session_free(w->s);
    peft_trainer_free(w->t);
    peft_dataset_free(w->d);
    peft_batch_free(w->b);
    peft_options_free(w->o);
    peft_tokenizer_free(w->words);
    peft_adapters_free(w->a);
    peft_model_free(w->m);
    peft_context_free(w->ctx);
}

static const char *nomem_dir, *nomem_words; /* where files go, and where a tokenizer is */

static peft_status nomem_open(nomem_world *w, api_host *h) {
    peft_status st = PEFT_OK;
    static const int32_t ids[] = {1, 2, 3, 4};
    const int64_t len = 4;
    TRY(api_context(h, &w->ctx));
    TRY(api_model(w->ctx, API_LLAMA, &w->m));
    TRY(peft_adapters_create(w->m, &w->a));
    TRY(api_options(w->ctx, "method:lora", "{'r':2,'target_modules':['q_proj','down_proj']}", &w->o));
    TRY(peft_adapters_add(w->a, "x", "lora", w->o, 1));
    TRY(api_batch(w->ctx, ids, &len, 1, &w->b));
    TRY(peft_dataset_create(w->ctx, NULL, NULL, &w->d));
    TRY(peft_dataset_add(w->d, w->b));
    TRY(peft_tokenizer_open(w->ctx, nomem_words, &w->words));
out:
    return st;
}

static peft_status nomem_files(nomem_world *w) {
    peft_status st = PEFT_OK;
    char text[4096];
    const char *adapter = runner_path(nomem_dir, "adapter"), *model = runner_path(nomem_dir, "model");
    TRY(peft_adapters_save(w->a, "x", adapter, NULL));
    TRY(peft_adapters_load(w->a, "y", adapter, NULL));
    TRY(peft_adapters_remove(w->a, "y"));
    TRY(peft_adapters_merge(w->a, "x", model, NULL));
    TRY(peft_adapters_merge(w->a, "x", runner_path(nomem_dir, "m.gguf"), NULL));
    TRY(peft_inspect_json(w->ctx, adapter, text, sizeof text, NULL));
    TRY(peft_adapters_info_json(w->a, "x", text, sizeof text, NULL));
out:
    return st;
}

static peft_status nomem_use(nomem_world *w) {
    peft_status st = PEFT_OK;
    float logits[4 * API_VOCAB];
    char text[256];
    TRY(peft_session_create(w->m, w->a, "x", NULL, &w->s));
    TRY(peft_session_logits(w->s, w->b, logits, PEFT__COUNT(logits), NULL));
    TRY(peft_session_generate_text(w->s, w->words, "ab c", 4, NULL, NULL, NULL, text, sizeof text, NULL));
    TRY(peft_session_evaluate(w->s, w->d, text, sizeof text, NULL));
    peft_session_free(w->s);
    w->s = NULL;
    TRY(peft_trainer_create(w->a, NULL, &w->t));
    TRY(peft_trainer_add_job(w->t, "x", w->d, w->d, NULL));
    TRY(peft_trainer_run(w->t));
    TRY(peft_trainer_checkpoint_save(w->t, runner_path(nomem_dir, "state")));
    TRY(peft_trainer_checkpoint_load(w->t, runner_path(nomem_dir, "state")));
out:
    return st;
}

static peft_status nomem_all(nomem_world *w, api_host *h) {
    peft_status st = nomem_open(w, h);
    if (st == PEFT_OK) { st = nomem_use(w); }
    return st == PEFT_OK ? nomem_files(w) : st;
}

TEST(api_nomem_whole_way) {
    api_host h = {0};
    nomem_world w = {0};
    nomem_dir = runner_tmpdir();
    nomem_words = runner_tmpdir();
    CHECK_OK(text_write(runner_mem(), nomem_words, "tokenizer.json", TEXT_BYTES));
    CHECK_OK(nomem_all(&w, &h));
    nomem_free(&w);
    CHECK_INT(h.now, 0);
    size_t all = h.calls;
    CHECK(all > 200);
    for (size_t at = 1; at <= all; at += (at < 400 ? 1U : 7U) * (runner_few() ? 3U : 1U)) {
        h = (api_host){.fail_at = at};
        w = (nomem_world){0};
        peft_status st = nomem_all(&w, &h);
        nomem_free(&w);
        if (h.now != 0) { printf("allocation %zu of %zu\n", at, all); }
        CHECK_INT(h.now, 0);
        if (st != PEFT_OK) { CHECK_STATUS(st, PEFT_E_NOMEM); }
    }
}

/* The same objects, used again after each failure. */
TEST(api_nomem_handles_go_on) {
    api_host h = {0};
    nomem_world w = {0};
    nomem_dir = runner_tmpdir();
    nomem_words = runner_tmpdir();
    CHECK_OK(text_write(runner_mem(), nomem_words, "tokenizer.json", TEXT_BYTES));
    CHECK_OK(nomem_open(&w, &h));
    CHECK_OK(peft_session_create(w.m, w.a, "x", NULL, &w.s));
    float first[4 * API_VOCAB], again[4 * API_VOCAB];
    char text[256];
    CHECK_OK(peft_session_logits(w.s, w.b, first, PEFT__COUNT(first), NULL));
    CHECK_OK(peft_options_set_int(w.o, "r", 3));
    for (size_t at = 1; at < 60; at++) {
        h.calls = 0;
        h.fail_at = at;
        peft_session *s = NULL;
        static const char json[] = "{\"r\":7,\"target_modules\":[\"o_proj\"]}";
        peft_status st = peft_session_create(w.m, w.a, "x", NULL, &s);
        if (st == PEFT_OK) { st = peft_session_logits(s, w.b, again, PEFT__COUNT(again), NULL); }
        if (st == PEFT_OK) { CHECK_MEM(again, first, sizeof first); }
        if (st == PEFT_OK) {
            st = peft_session_generate_text(s, w.words, "ab c", 4, NULL, NULL, NULL, text, sizeof text, NULL);
        }
        if (st == PEFT_E_NOMEM && s != NULL) {
            h.fail_at = 0;
            CHECK_OK(peft_session_generate_text(s, w.words, "ab c", 4, NULL, NULL, NULL, text, sizeof text, NULL));
            CHECK_OK(peft_session_logits(s, w.b, again, PEFT__COUNT(again), NULL));
            CHECK_MEM(again, first, sizeof first);
        }
        peft_session_free(s);
        h.calls = 0;
        h.fail_at = at;
        st = peft_options_set_json(w.o, json, sizeof json - 1);
        h.fail_at = 0;
        CHECK_OK(peft_options_get_json(w.o, text, 0, NULL) == PEFT_E_BUFFER ? PEFT_OK : PEFT_E_INTERNAL);
        char all[2048];
        CHECK_OK(peft_options_get_json(w.o, all, sizeof all, NULL));
        CHECK(strstr(all, st == PEFT_OK ? "\"r\":7" : "\"r\":3") != NULL);
        CHECK_OK(peft_options_set_int(w.o, "r", 3));
    }
    nomem_free(&w);
    CHECK_INT(h.now, 0);
}
