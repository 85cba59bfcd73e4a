/* api_pieces_test.c - what the public functions do in one call, done in pieces: steps of a run, tokens of a generation, rows
 * of a data set, tensors of a model that lies in the caller's memory. Both ways give the same bits. */
#include "api_kit.h"

enum { PIECES_STEPS = 7, PIECES_TENSORS = 64 };

typedef struct pieces_world {
    api_host host;
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    peft_dataset *d;
} pieces_world;

static peft_status pieces_open(pieces_world *w) {
    peft_status st = PEFT_OK;
    static const char *const rows[] = {"{\"input_ids\":[1,2,3,4,5,6]}", "{\"input_ids\":[2,3,4,5],\"labels\":[-100,3,4,5]}",
                                       "{\"input_ids\":[6,5,4,3,2]}"};
    memset(w, 0, sizeof *w);
    TRY(api_context(&w->host, &w->ctx));
    TRY(api_model(w->ctx, API_LLAMA, &w->m));
    TRY(peft_adapters_create(w->m, &w->a));
    TRY(peft_dataset_create(w->ctx, NULL, NULL, &w->d));
    for (size_t i = 0; i < PEFT__COUNT(rows); i++) { TRY(peft_dataset_add_json(w->d, rows[i], strlen(rows[i]))); }
out:
    return st;
}

static void pieces_close(pieces_world *w) {
    peft_dataset_free(w->d);
    peft_adapters_free(w->a);
    peft_model_free(w->m);
    peft_context_free(w->ctx);
    CHECK_INT(w->host.now, 0);
}

static peft_status pieces_trainer(pieces_world *w, const char *name, peft_trainer **out) {
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    *out = NULL;
    TRY(peft_adapters_add(w->a, name, "lora", NULL, 5));
    TRY(api_options(w->ctx, "trainer", "{'max_steps':7,'batch_size':2,'seed':3,'eval_steps':2,'load_best_model_at_end':true}", &o));
    TRY(peft_trainer_create(w->a, o, out));
    TRY(peft_trainer_add_job(*out, name, w->d, w->d, NULL));
out:
    peft_options_free(o);
    return st;
}

/* Are two adapters' tensors the same bits? */
static bool pieces_equal(const peft_adapters *a, const char *x, const char *y) {
    static float vx[4096], vy[4096];
    for (size_t i = 0; i < peft_adapters_tensor_count(a, x); i++) {
        const char *tensor = NULL;
        size_t n = 0;
        if (peft_adapters_tensor_info(a, x, i, &tensor, NULL, NULL) != PEFT_OK) { return false; }
        if (peft_adapters_tensor_read(a, x, tensor, vx, PEFT__COUNT(vx), &n) != PEFT_OK) { return false; }
        if (peft_adapters_tensor_read(a, y, tensor, vy, PEFT__COUNT(vy), &n) != PEFT_OK) { return false; }
        if (memcmp(vx, vy, n * sizeof *vx) != 0) { return false; }
    }
    return peft_adapters_tensor_count(a, x) > 0;
}

TEST(api_pieces_steps_are_the_run) {
    pieces_world w;
    peft_trainer *whole = NULL, *steps = NULL;
    int32_t more = 1, n = 0;
    CHECK_OK(pieces_open(&w));
    CHECK_OK(pieces_trainer(&w, "whole", &whole));
    CHECK_OK(peft_trainer_run(whole));
    CHECK_OK(pieces_trainer(&w, "steps", &steps));
    while (more == 1 && n < 100) {
        CHECK_OK(peft_trainer_step(steps, &more));
        n++;
        if (n == 1) { CHECK(!pieces_equal(w.a, "whole", "steps")); }
    }
    CHECK_INT(n, PIECES_STEPS);
    CHECK(pieces_equal(w.a, "whole", "steps"));
    CHECK_OK(peft_trainer_step(steps, &more)); /* nothing is left to do */
    CHECK_INT(more, 0);
    CHECK(pieces_equal(w.a, "whole", "steps"));
    peft_trainer_free(whole);
    peft_trainer_free(steps);
    pieces_close(&w);
}

static int32_t pieces_cancel(void *user, const peft_step_info *info) {
    (void)info;
    peft_trainer_cancel(user);
    return 0;
}

TEST(api_pieces_steps_can_be_cancelled) {
    pieces_world w;
    peft_trainer *t = NULL;
    int32_t more = 0;
    CHECK_OK(pieces_open(&w));
    CHECK_OK(pieces_trainer(&w, "x", &t));
    CHECK_OK(peft_trainer_step(t, &more));
    peft_trainer_cancel(t);
    CHECK_STATUS(peft_trainer_step(t, &more), PEFT_E_CANCELLED);
    CHECK_ERROR_HAS("after step 1");
    CHECK_OK(peft_trainer_set_progress(t, pieces_cancel, t)); /* from within a step: the next one answers */
    CHECK_OK(peft_trainer_step(t, &more));
    CHECK_INT(more, 1);
    CHECK_OK(peft_trainer_set_progress(t, NULL, NULL));
    CHECK_STATUS(peft_trainer_step(t, &more), PEFT_E_CANCELLED);
    CHECK_OK(peft_trainer_step(t, &more));
    CHECK_STATUS(peft_trainer_step(t, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_trainer_step(NULL, &more), PEFT_E_INVALID);
    peft_trainer_free(t);
    pieces_close(&w);
}

TEST(api_pieces_rows_of_a_dataset) {
    pieces_world w;
    int32_t ids[8] = {0}, labels[8] = {0};
    size_t n = 0;
    CHECK_OK(pieces_open(&w));
    CHECK_OK(peft_dataset_row(w.d, 1, ids, labels, PEFT__COUNT(ids), &n));
    CHECK_INT(n, 4);
    CHECK_INT(ids[0], 2);
    CHECK_INT(ids[3], 5);
    CHECK_INT(labels[0], -100);
    CHECK_INT(labels[3], 5);
    CHECK_OK(peft_dataset_row(w.d, 0, ids, NULL, 6, NULL));
    CHECK_INT(ids[5], 6);
    CHECK_STATUS(peft_dataset_row(w.d, 0, ids, labels, 5, &n), PEFT_E_BUFFER);
    CHECK_INT(n, 6);
    CHECK_STATUS(peft_dataset_row(w.d, 3, ids, labels, 8, &n), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("the data set has 3");
    pieces_close(&w);
}

/* ---- a token at a time ----------------------------------------------------------------------------------------------- */

TEST(api_pieces_tokens_are_the_generation) {
    pieces_world w;
    peft_tokenizer *t = NULL;
    peft_session *s = NULL;
    peft_options *o = NULL;
    char whole[256], text[256] = "", piece[64];
    int32_t ids[32], id = 0;
    size_t n = 0, needed = 0, made = 0;
    CHECK_OK(pieces_open(&w));
    CHECK_OK(api_tokenizer(w.ctx, TEXT_BYTES, &t));
    CHECK_OK(peft_session_create(w.m, NULL, NULL, NULL, &s));
    CHECK_OK(api_options(w.ctx, "generate", "{'max_new_tokens':20,'temperature':1.5,'seed':4,'ignore_eos':true}", &o));
    CHECK_OK(peft_session_generate_text(s, t, "ab", 2, o, NULL, NULL, whole, sizeof whole, NULL));
    CHECK_OK(peft_session_generate(s, t, (const int32_t[]){8}, 1, o, NULL, NULL, ids, PEFT__COUNT(ids), &n));
    CHECK_OK(peft_session_start_text(s, t, "ab", 2, o));
    peft_tokenizer_free(t); /* the session keeps it */
    for (;;) {
        CHECK_STATUS(peft_session_next(s, &id, NULL, 0, &needed), PEFT_E_BUFFER); /* has room for no NUL */
        CHECK_OK(peft_session_next(s, &id, piece, sizeof piece, &n));
        CHECK_INT(n, needed);
        if (id < 0 || made >= 20) { break; }
        CHECK_INT(id, ids[made]);
        made++;
        (void)strncat(text, piece, sizeof text - strlen(text) - 1);
    }
    CHECK_INT(made, 20);
    CHECK_STR(text, whole);
    CHECK_STR(piece, "");
    CHECK_OK(peft_session_next(s, &id, piece, sizeof piece, NULL)); /* still over */
    CHECK_INT(id, -1);
    peft_options_free(o);
    peft_session_free(s);
    pieces_close(&w);
}

TEST(api_pieces_tokens_end_with_other_use) {
    pieces_world w;
    peft_session *s = NULL;
    char piece[8];
    int32_t id = 0;
    float logits[2 * API_VOCAB];
    peft_batch *b = NULL;
    CHECK_OK(pieces_open(&w));
    CHECK_OK(peft_session_create(w.m, w.a, NULL, NULL, &s));
    CHECK_STATUS(peft_session_next(s, &id, piece, sizeof piece, NULL), PEFT_E_INVALID);
    CHECK_ERROR_HAS("no generation is under way");
    CHECK_OK(peft_session_start(s, NULL, (const int32_t[]){1, 2}, 2, NULL));
    CHECK_OK(peft_session_next(s, &id, piece, sizeof piece, NULL));
    CHECK(id >= 0 && id < API_VOCAB);
    CHECK_STR(piece, ""); /* no tokenizer, no text */
    peft_session_cancel(s);
    CHECK_STATUS(peft_session_next(s, &id, piece, sizeof piece, NULL), PEFT_E_CANCELLED);
    CHECK_OK(peft_session_next(s, &id, piece, sizeof piece, NULL));
    CHECK_OK(api_batch(w.ctx, (const int32_t[]){1, 2}, (const int64_t[]){2}, 1, &b));
    CHECK_OK(peft_session_logits(s, b, logits, PEFT__COUNT(logits), NULL));
    CHECK_STATUS(peft_session_next(s, &id, piece, sizeof piece, NULL), PEFT_E_INVALID);
    CHECK_OK(peft_session_start(s, NULL, (const int32_t[]){1, 2}, 2, NULL));
    CHECK_OK(peft_session_set_adapters(s, NULL));
    CHECK_STATUS(peft_session_next(s, &id, piece, sizeof piece, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_session_start(s, NULL, (const int32_t[]){1, 99}, 2, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_session_start_text(s, NULL, "a", 1, NULL), PEFT_E_INVALID);
    CHECK_OK(peft_session_start(s, NULL, (const int32_t[]){1, 2}, 2, NULL)); /* freed with the session */
    peft_batch_free(b);
    peft_session_free(s);
    pieces_close(&w);
}

/* ---- tensors in memory ----------------------------------------------------------------------------------------------- */

typedef struct pieces_tensors {
    const char *names[PIECES_TENSORS];
    int32_t dtypes[PIECES_TENSORS], ndims[PIECES_TENSORS];
    int64_t dims[PIECES_TENSORS * 8];
    const void *data[PIECES_TENSORS];
    size_t n;
    int32_t released;
} pieces_tensors;

static void pieces_release(void *user) { ((pieces_tensors *)user)->released++; }

/* The tensors of m, without the prefix "model." of every second one that has it. */
static peft_status pieces_read(const peft_model *m, pieces_tensors *t) {
    peft_status st = PEFT_OK;
    memset(t, 0, sizeof *t);
    for (t->n = 0; t->n < peft_model_tensor_count(m); t->n++) {
        size_t i = t->n, count = 0;
        TRY(peft_model_tensor_info(m, i, &t->names[i], &t->dtypes[i], &t->ndims[i], &t->dims[8 * i]));
        (void)peft_model_tensor_read(m, t->names[i], NULL, 0, &count);
        float *values = malloc(count * sizeof *values);
        TRY(peft_model_tensor_read(m, t->names[i], values, count, NULL));
        t->data[i] = values;
        if (i % 2 == 0 && strncmp(t->names[i], "model.", 6) == 0) { t->names[i] += 6; }
    }
out:
    return st;
}

static peft_status pieces_make(peft_context *ctx, pieces_tensors *t, const peft_options *o, peft_model **out) {
    return peft_model_create_from_tensors(ctx, API_LLAMA, strlen(API_LLAMA), t->names, t->dtypes, t->ndims, t->dims, t->data, t->n,
                                          o, pieces_release, t, out);
}

static peft_status pieces_logits(peft_context *ctx, peft_model *m, float *out) {
    peft_status st = PEFT_OK;
    peft_session *s = NULL;
    peft_batch *b = NULL;
    TRY(peft_session_create(m, NULL, NULL, NULL, &s));
    TRY(api_batch(ctx, (const int32_t[]){1, 2, 3}, (const int64_t[]){3}, 1, &b));
    TRY(peft_session_logits(s, b, out, 3 * API_VOCAB, NULL));
out:
    peft_batch_free(b);
    peft_session_free(s);
    return st;
}

TEST(api_pieces_model_of_tensors) {
    pieces_world w;
    static pieces_tensors t;
    peft_model *m = NULL, *copy = NULL;
    peft_adapters *a = NULL;
    peft_options *o = NULL;
    float want[3 * API_VOCAB], have[3 * API_VOCAB];
    CHECK_OK(pieces_open(&w));
    CHECK_OK(pieces_read(w.m, &t));
    CHECK_OK(pieces_logits(w.ctx, w.m, want));
    CHECK_OK(pieces_make(w.ctx, &t, NULL, &m));
    CHECK_OK(pieces_logits(w.ctx, m, have));
    CHECK_INT(memcmp(want, have, sizeof want), 0);
    CHECK_OK(peft_adapters_create(m, &a));
    peft_model_free(m);
    CHECK_INT(t.released, 0); /* the set keeps the model */
    peft_adapters_free(a);
    CHECK_INT(t.released, 1);
    CHECK_OK(api_options(w.ctx, "model", "{'load':'copy'}", &o));
    CHECK_OK(pieces_make(w.ctx, &t, o, &copy));
    CHECK_INT(t.released, 2);
    for (size_t i = 0; i < t.n; i++) { free((void *)(uintptr_t)t.data[i]); }
    CHECK_OK(pieces_logits(w.ctx, copy, have));
    CHECK_INT(memcmp(want, have, sizeof want), 0);
    peft_model_free(copy);
    CHECK_INT(t.released, 2);
    peft_options_free(o);
    pieces_close(&w);
}

TEST(api_pieces_bad_tensors) {
    pieces_world w;
    static pieces_tensors t;
    peft_model *m = NULL;
    CHECK_OK(pieces_open(&w));
    CHECK_OK(pieces_read(w.m, &t));
    const void *data = t.data[1];
    struct { peft_status st; const char *text; } cases[12] = {
        {PEFT_E_NOT_FOUND, "is missing"}, {PEFT_E_UNSUPPORTED, "element type 77"}, {PEFT_E_SHAPE, "has 9 dimensions"},
        {PEFT_E_SHAPE, "has shape"},      {PEFT_E_INVALID, "is NULL"},             {PEFT_E_EXISTS, "two tensors"},
        {PEFT_E_SHAPE, "no whole blocks of Q8_0"}, {PEFT_E_INVALID, "the name of tensor 1 is NULL"},
        {PEFT_E_INVALID, "the name of tensor 1 is no valid UTF-8"}, {PEFT_E_SHAPE, "has 0 dimensions, expected 1 to 8"},
        {PEFT_E_SHAPE, "has a size of -1 in dimension 0"}, {PEFT_E_SHAPE, "has a size of 4611686018427387904 in dimension 0"},
    };
    for (size_t c = 0; c < PEFT__COUNT(cases); c++) {
        pieces_tensors bad = t;
        bad.released = 0;
        if (c == 0) { bad.names[1] = "other"; }
        if (c == 1) { bad.dtypes[1] = 77; }
        if (c == 2) { bad.ndims[1] = 9; }
        if (c == 3) { bad.dims[8]++; }
        if (c == 4) { bad.data[1] = NULL; }
        if (c == 5) { bad.names[2] = bad.names[1]; }
        if (c == 6) { bad.dtypes[1] = PEFT_DTYPE_Q8_0; bad.dims[8 + bad.ndims[1] - 1] = 33; }
        if (c == 7) { bad.names[1] = NULL; }
        if (c == 8) { bad.names[1] = "a\xFF"; }
        if (c == 9) { bad.ndims[1] = 0; }
        if (c == 10) { bad.dims[8] = -1; }
        if (c == 11) { bad.dims[8] = (int64_t)1 << 62; }
        CHECK_STATUS(pieces_make(w.ctx, &bad, NULL, &m), cases[c].st);
        CHECK_ERROR_HAS(cases[c].text);
        CHECK(m == NULL);
        CHECK_INT(bad.released, 1);
    }
    t.data[1] = data;
    CHECK_STATUS(peft_model_create_from_tensors(w.ctx, API_LLAMA, strlen(API_LLAMA), NULL, NULL, NULL, NULL, NULL, 1, NULL,
                                                pieces_release, &t, &m), PEFT_E_INVALID);
    CHECK_INT(t.released, 1);
    CHECK_STATUS(peft_model_create_from_tensors(w.ctx, API_LLAMA, strlen(API_LLAMA), NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL,
                                                NULL, &m), PEFT_E_NOT_FOUND);
    for (size_t i = 0; i < t.n; i++) { free((void *)(uintptr_t)t.data[i]); }
    pieces_close(&w);
}

/* Frequencies that depend on a row's length are those of the whole row, however it is read. */
static peft_status pieces_row(peft_context *ctx, peft_model *m, const char *json, float *out) {
    peft_status st = PEFT_OK;
    peft_session *s = NULL;
    peft_options *o = NULL;
    peft_batch *b = NULL;
    int32_t ids[20];
    for (int32_t i = 0; i < 20; i++) { ids[i] = i * 5 % API_VOCAB; }
    TRY(api_options(ctx, "session", json, &o));
    TRY(peft_session_create(m, NULL, NULL, o, &s));
    TRY(api_batch(ctx, ids, (const int64_t[]){20}, 1, &b));
    TRY(peft_session_logits(s, b, out, 20 * API_VOCAB, NULL));
out:
    peft_batch_free(b);
    peft_options_free(o);
    peft_session_free(s);
    return st;
}

TEST(api_pieces_long_rows_turn_as_a_whole) {
    static const char *const scalings[3] = {"\"type\":\"dynamic\",\"factor\":4",
                                            "\"type\":\"longrope\",\"factor\":1,\"short_factor\":[1,1,1,1],\"long_factor\":[3,4,5,6]",
                                            "\"type\":\"yarn\",\"factor\":4"};
    pieces_world w;
    static float whole[20 * API_VOCAB], parts[20 * API_VOCAB], plain[20 * API_VOCAB];
    CHECK_OK(pieces_open(&w));
    CHECK_OK(pieces_row(w.ctx, w.m, "{}", plain));
    for (size_t i = 0; i < 3; i++) {
        char config[640];
        peft_model *m = NULL;
        int64_t positions = i == 1 ? 48 : 8;
        (void)snprintf(config, sizeof config, "{\"model_type\":\"llama\",\"hidden_size\":16,\"intermediate_size\":24,"
                       "\"num_hidden_layers\":2,\"num_attention_heads\":2,\"num_key_value_heads\":1,\"vocab_size\":14,"
                       "\"max_position_embeddings\":%d,\"original_max_position_embeddings\":8,\"rope_scaling\":{%s}}",
                       (int)positions, scalings[i]);
        CHECK_OK(api_model(w.ctx, config, &m));
        CHECK_OK(pieces_row(w.ctx, m, "{}", whole));
        CHECK_OK(pieces_row(w.ctx, m, "{'chunk':3}", parts));
        CHECK(api_distance(whole, parts, 20 * API_VOCAB) < 1e-5);
        CHECK(api_distance(whole, plain, 20 * API_VOCAB) > 1e-5);
        peft_model_free(m);
    }
    pieces_close(&w);
}

TEST(api_pieces_build_info) {
    char want[64];
    (void)snprintf(want, sizeof want, "version=%s isa=generic", peft_version_string());
    CHECK(strstr(peft_build_info(), want) != NULL);
    CHECK(strstr(peft_build_info(), " threads=") != NULL);
}
