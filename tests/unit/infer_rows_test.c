/* infer_rows_test.c - rows that are continued together: each gets the tokens and the very logits that it gets alone. */
#include "methods_kit.h"
#include "api_kit.h"

enum { ROWS_MOST = 40, ROWS_TOKENS = 24, ROWS_WIDE = 20 }; /* ROWS_WIDE: logits of a row at most */

/* Beside methods_all: another length, new tokens, several tasks. */
static const char *const rows_methods[][2] = {
    {"prefix", "{'num_virtual_tokens':5}"}, {"trainable_tokens", "{'token_indices':[2],'num_new_tokens':2}"},
    {"multitask_prompt", "{'num_virtual_tokens':2,'num_tasks':2,'num_ranks':1}"},
};

typedef struct rows_seen { /* what a row got */
    int64_t row;
    int32_t ids[ROWS_TOKENS];
    float logits[ROWS_TOKENS][ROWS_WIDE];
    char text[128];
    size_t n, wide;
    int32_t ended, status;
} rows_seen;

typedef struct rows_world {
    api_host host;
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    peft_session *s;
    rows_seen seen[ROWS_MOST];
    size_t n;
    int64_t stop_row;       /* the callback ends this row at its first token; 0: none */
} rows_world;

static int32_t rows_note(void *user, const peft_row_info *info) {
    rows_world *w = user;
    for (size_t i = 0; i < w->n; i++) {
        rows_seen *r = &w->seen[i];
        if (r->row != info->row) { continue; }
        r->ended += info->ended;
        r->status = info->status;
        if (info->text != NULL) { strncat(r->text, info->text, info->text_len); }
        if (info->id < 0 || r->n == ROWS_TOKENS) { continue; }
        r->wide = info->n_logits;
        memcpy(r->logits[r->n], info->logits, PEFT__MIN(info->n_logits, (size_t)ROWS_WIDE) * sizeof(float));
        r->ids[r->n++] = info->id;
    }
    return info->row == w->stop_row;
}

static peft_status rows_open(rows_world *w, const char *config, const char *session, int32_t threads) {
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    memset(w, 0, sizeof *w);
    TRY(api_context(&w->host, &w->ctx));
    TRY(peft_context_set_threads(w->ctx, threads));
    TRY(api_model(w->ctx, config, &w->m));
    TRY(peft_adapters_create(w->m, &w->a));
    TRY(api_options(w->ctx, "session", session, &o));
    TRY(peft_session_create(w->m, w->a, NULL, o, &w->s));
out:
    peft_options_free(o);
    return st;
}

static void rows_close(rows_world *w) {
    peft_session_free(w->s);
    peft_adapters_free(w->a);
    peft_model_free(w->m);
    peft_context_free(w->ctx);
    CHECK_INT(w->host.now, 0);
}

/* A prompt of n ids, which begins with `common` ids that all have. */
static void rows_prompt(uint64_t seed, int64_t common, int64_t n, int32_t *ids) {
    peft__rng rng = {seed + 5, 0};
    for (int64_t i = 0; i < n; i++) { ids[i] = i < common ? (int32_t)(i * 5 % API_END) : (int32_t)peft__rng_below(&rng, API_END); }
}

static peft_status rows_add(rows_world *w, const char *expression, const int32_t *ids, size_t n, const char *options) {
    peft_options *o = NULL;
    rows_seen *r = &w->seen[w->n];
    memset(r, 0, sizeof *r);
    peft_status st = api_options(w->ctx, "generate", options, &o);
    if (st == PEFT_OK) { st = peft_session_row_add(w->s, expression, NULL, ids, n, o, &r->row); }
    if (st == PEFT_OK) { w->n++; }
    peft_options_free(o);
    return st;
}

static peft_status rows_run(rows_world *w) {
    size_t left = 1;
    for (int32_t i = 0; i < 500 && left > 0; i++) {
        peft_status st = peft_session_rows_next(w->s, rows_note, w, &left);
        if (st != PEFT_OK) { return st; }
    }
    return left == 0 ? PEFT_OK : PEFT_E_INTERNAL;
}

/* What row i got, beside what it gets alone: from a session of its own by peft_session_generate, and as the only row. */
static void rows_check_alone(rows_world *w, size_t i, const char *expression, const int32_t *ids, size_t n, const char *session,
                             const char *options) {
    const rows_seen *r = &w->seen[i];
    static rows_world one;
    peft_options *o = NULL, *g = NULL;
    int32_t made[ROWS_TOKENS];
    size_t got = 0;
    one = (rows_world){.ctx = w->ctx};
    CHECK_OK(api_options(w->ctx, "session", session, &o));
    CHECK_OK(api_options(w->ctx, "generate", options, &g));
    CHECK_OK(peft_session_create(w->m, w->a, expression, o, &one.s));
    CHECK_OK(peft_session_generate(one.s, NULL, ids, n, g, NULL, NULL, made, ROWS_TOKENS, &got));
    CHECK_INT(got, r->n);
    CHECK_MEM(made, r->ids, got * sizeof *made);
    CHECK_OK(rows_add(&one, NULL, ids, n, options));
    CHECK_OK(rows_run(&one));
    CHECK_INT(one.seen[0].wide, r->wide);
    for (size_t t = 0; t < got; t++) { CHECK_MEM(r->logits[t], one.seen[0].logits[t], r->wide * sizeof(float)); }
    peft_session_free(one.s);
    peft_options_free(o);
    peft_options_free(g);
}

/* Rows with these expressions beside each other, prompts of 1 to 12 ids; then nobody holds an adapter. */
static void rows_beside(rows_world *w, const char *const *expressions, size_t n) {
    int32_t ids[ROWS_MOST][16];
    size_t lens[ROWS_MOST];
    w->n = 0;
    for (size_t i = 0; i < n; i++) {
        lens[i] = 1 + i * 5 % 12;
        rows_prompt(i, 0, (int64_t)lens[i], ids[i]);
        CHECK_OK(rows_add(w, expressions[i], ids[i], lens[i], "{'max_new_tokens':6,'ignore_eos':true}"));
    }
    CHECK_OK(rows_run(w));
    for (size_t i = 0; i < n; i++) {
        CHECK_INT(w->seen[i].ended, 1);
        CHECK_INT(w->seen[i].status, PEFT_OK);
        CHECK_INT(w->seen[i].n, 6);
        rows_check_alone(w, i, expressions[i], ids[i], lens[i], "{'chunk':64}", "{'max_new_tokens':6,'ignore_eos':true}");
    }
}

/* A row for each method, then rows with compositions of them. */
static void rows_all_methods(const char *config, int32_t threads) {
    static const char *const more[] = {
        "", "m6", "stack(m6, m0)", "stack(m0, m6)", "0.5 * m0", "0.5 * m0, m6", "0.5 * m6, m0", "average(m0, m4)", "average(m0, m6)",
        "average(m6:3, m0)", "average(m0, m1), m6", "m0, m11", "average(m11, m12)", "m16, m18", "m18", "m18, m0", "m19, m18",
        "split(m0:3, m11)", "m7, m6, m0", "m27"};
    enum { COMMON = PEFT__COUNT(methods_all), METHODS = COMMON + PEFT__COUNT(rows_methods) };
    rows_world w;
    char names[ROWS_MOST][32];
    const char *expressions[ROWS_MOST];
    size_t n = 0;
    CHECK_OK(rows_open(&w, config, "{'chunk':64}", threads));
    for (size_t i = 0; i < METHODS; i++) {
        (void)snprintf(names[i], sizeof names[i], "m%zu", i);
        peft_status st = api_adapter(w.ctx, w.a, names[i], i < COMMON ? methods_all[i] : rows_methods[i - COMMON], 5 + i, 0.2F);
        if (st != PEFT_E_UNSUPPORTED && st != PEFT_E_NOT_FOUND) { CHECK_OK(st); }
        if (st == PEFT_OK) { expressions[n++] = names[i]; }
    }
    CHECK(n >= METHODS - 1); /* bitfit: a model without biases has none to train */
    rows_beside(&w, expressions, n);
    rows_beside(&w, more, PEFT__COUNT(more));
    for (size_t i = 0; i < METHODS; i++) {
        if (peft_adapters_tensor_count(w.a, names[i]) > 0) { CHECK_OK(peft_adapters_remove(w.a, names[i])); }
    }
    rows_close(&w);
}

TEST(infer_rows_every_method_llama) { rows_all_methods(API_LLAMA, 1); }
TEST(infer_rows_every_method_gpt2) { rows_all_methods(API_GPT2, 2); }

/* The adapter is on the tape once, and before the rows of both. */
TEST(infer_rows_prefix_of_two_branches) {
    static const char *const lora[] = {"lora", "{'r':2}"}, *const prefix[] = {"prefix", "{'num_virtual_tokens':4}"};
    static const char *const texts[] = {"p", "p, x", "", "x, p"};
    static const char options[] = "{'max_new_tokens':6,'ignore_eos':true}";
    rows_world w;
    int32_t ids[4][8];
    CHECK_OK(rows_open(&w, API_LLAMA, "{'chunk':64}", 1));
    CHECK_OK(api_adapter(w.ctx, w.a, "x", lora, 1, 0.2F));
    CHECK_OK(api_adapter(w.ctx, w.a, "p", prefix, 2, 0.2F));
    for (size_t i = 0; i < 4; i++) {
        rows_prompt(i, 0, 3 + (int64_t)i, ids[i]);
        CHECK_OK(rows_add(&w, texts[i], ids[i], 3 + i, options));
    }
    CHECK_OK(rows_run(&w));
    for (size_t i = 0; i < 4; i++) { rows_check_alone(&w, i, texts[i], ids[i], 3 + i, "{'chunk':64}", options); }
    rows_close(&w);
}

/* ---- joining and leaving ------------------------------------------------------------------------------------------------------- */

TEST(infer_rows_join_and_leave) {
    static const char *const lora[] = {"lora", "{'r':2,'target_modules':'all-linear'}"};
    static const char *const prefix[] = {"prefix", "{'num_virtual_tokens':4}"};
    static const char *const texts[] = {"x", "y", "p", ""};
    rows_world w;
    int32_t ids[ROWS_MOST][32];
    size_t lens[ROWS_MOST], left = 0, at[ROWS_MOST];
    CHECK_OK(rows_open(&w, API_LLAMA, "{'chunk':7}", 2));
    CHECK_OK(api_adapter(w.ctx, w.a, "x", lora, 1, 0.2F));
    CHECK_OK(api_adapter(w.ctx, w.a, "y", lora, 2, 0.2F));
    CHECK_OK(api_adapter(w.ctx, w.a, "p", prefix, 3, 0.2F));
    for (size_t i = 0; i < 20; i++) { at[i] = i / 3 * 2; }
    for (size_t call = 0; call < 60; call++) { /* chunk 7: at most 7 rows; longer prompts come in parts */
        while (w.n < 20 && at[w.n] <= call) {
            size_t i = w.n;
            lens[i] = 1 + i * 7 % 23;
            rows_prompt(i, 0, (int64_t)lens[i], ids[i]);
            peft_status st = rows_add(&w, texts[i % 4], ids[i], lens[i], "{'max_new_tokens':5,'ignore_eos':true}");
            if (st == PEFT_E_BUSY) {
                CHECK_ERROR_HAS("7 rows");
                break;
            }
            CHECK_OK(st);
        }
        CHECK_OK(peft_session_rows_next(w.s, rows_note, &w, &left));
    }
    CHECK_INT(w.n, 20);
    CHECK_INT(left, 0);
    for (size_t i = 0; i < w.n; i++) {
        CHECK_INT(w.seen[i].row, (int64_t)i + 1);
        rows_check_alone(&w, i, texts[i % 4], ids[i], lens[i], "{'chunk':7}", "{'max_new_tokens':5,'ignore_eos':true}");
    }
    rows_close(&w);
}

/* Rows with the beginning of a held row: read in two parts, so beside a row that is held and followed in the same way. */
TEST(infer_rows_share_a_beginning) {
    static const char *const prompt[] = {"prompt", "{'num_virtual_tokens':3}"};
    static rows_world w, one;
    int32_t ids[6][32];
    size_t left = 0;
    CHECK_OK(rows_open(&w, API_LLAMA, "{}", 1));
    CHECK_OK(api_adapter(w.ctx, w.a, "p", prompt, 3, 0.2F));
    rows_prompt(0, 20, 20, ids[0]);
    CHECK_OK(rows_add(&w, "p", ids[0], 20, "{'max_new_tokens':0,'hold':true}"));
    for (size_t i = 1; i < 6; i++) { /* one begins otherwise, two are without the adapter: they are read at once */
        rows_prompt(i, i == 2 ? 7 : 20, 20 + (int64_t)i, ids[i]);
        CHECK_OK(rows_add(&w, i < 4 ? "p" : "", ids[i], 20 + i, "{'max_new_tokens':4,'ignore_eos':true}"));
    }
    CHECK_OK(peft_session_rows_next(w.s, rows_note, &w, &left));
    for (size_t i = 1; i < 6; i++) { CHECK_INT(w.seen[i].n, i == 2); } /* a pass has 48 tokens */
    CHECK_INT(w.seen[0].ended, 1);
    CHECK_INT(w.seen[0].n, 0);
    CHECK_OK(rows_run(&w));
    CHECK_INT(w.seen[0].ended, 1);
    for (size_t i = 1; i < 6; i++) {
        if (i == 2 || i > 3) {
            rows_check_alone(&w, i, i < 4 ? "p" : "", ids[i], 20 + i, "{}", "{'max_new_tokens':4,'ignore_eos':true}");
            continue;
        }
        one = (rows_world){.ctx = w.ctx};
        CHECK_OK(peft_session_create(w.m, w.a, "p", NULL, &one.s));
        CHECK_OK(rows_add(&one, NULL, ids[0], 20, "{'max_new_tokens':0,'hold':true}"));
        CHECK_OK(rows_add(&one, NULL, ids[i], 20 + i, "{'max_new_tokens':4,'ignore_eos':true}"));
        CHECK_OK(rows_run(&one));
        CHECK_MEM(one.seen[1].ids, w.seen[i].ids, 4 * sizeof(int32_t));
        for (size_t t = 0; t < 4; t++) { CHECK_MEM(one.seen[1].logits[t], w.seen[i].logits[t], API_VOCAB * sizeof(float)); }
        peft_session_free(one.s);
    }
    CHECK_STATUS(peft_adapters_remove(w.a, "p"), PEFT_E_BUSY);
    CHECK_OK(peft_session_row_remove(w.s, w.seen[0].row));
    CHECK_STATUS(peft_session_row_remove(w.s, w.seen[0].row), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("no row 1");
    CHECK_OK(peft_adapters_remove(w.a, "p"));
    rows_close(&w);
}

/* ---- sampling, text, endings ------------------------------------------------------------------------------------------------------ */

TEST(infer_rows_options_of_their_own) {
    static const char *const options[] = {
        "{'max_new_tokens':9,'temperature':1.5,'seed':3}", "{'max_new_tokens':9,'temperature':0.7,'top_k':4,'seed':8}",
        "{'max_new_tokens':3,'repetition_penalty':1.3}", "{'max_new_tokens':9,'ignore_eos':true,'min_p':0.1,'temperature':1}"};
    rows_world w;
    int32_t ids[4][8], made[ROWS_TOKENS];
    CHECK_OK(rows_open(&w, API_GPT2, "{}", 1));
    for (size_t i = 0; i < 4; i++) {
        rows_prompt(i, 0, 3, ids[i]);
        CHECK_OK(rows_add(&w, NULL, ids[i], 3, options[i]));
    }
    CHECK_OK(rows_run(&w));
    for (size_t i = 0; i < 4; i++) {
        peft_options *o = NULL;
        size_t n = 0;
        CHECK_OK(api_options(w.ctx, "generate", options[i], &o));
        CHECK_OK(peft_session_generate(w.s, NULL, ids[i], 3, o, NULL, NULL, made, ROWS_TOKENS, &n));
        CHECK_INT(w.seen[i].n, n);
        CHECK_MEM(w.seen[i].ids, made, n * sizeof *made);
        peft_options_free(o);
    }
    rows_close(&w);
}

TEST(infer_rows_the_callback_ends_one) {
    rows_world w;
    int32_t ids[3] = {1, 2, 3};
    size_t left = 0;
    CHECK_OK(rows_open(&w, API_LLAMA, "{}", 1));
    for (size_t i = 0; i < 3; i++) { CHECK_OK(rows_add(&w, NULL, ids, 1 + i, "{'max_new_tokens':4,'ignore_eos':true}")); }
    w.stop_row = 2;
    CHECK_OK(peft_session_rows_next(w.s, rows_note, &w, &left));
    CHECK_INT(left, 2);
    CHECK_OK(rows_run(&w));
    CHECK_INT(w.seen[0].n, 4);
    CHECK_INT(w.seen[1].n, 1);
    CHECK_INT(w.seen[2].n, 4);
    peft_session_cancel(w.s);
    CHECK_STATUS(peft_session_rows_next(w.s, NULL, NULL, NULL), PEFT_E_CANCELLED);
    CHECK_OK(peft_session_rows_next(w.s, NULL, NULL, NULL));
    rows_close(&w);
}

TEST(infer_rows_a_nan_ends_its_row) {
    static const char *const lora[] = {"lora", "{'r':2}"};
    rows_world w;
    int32_t ids[3] = {4, 2, 3};
    float bad[API_HIDDEN * 2];
    CHECK_OK(rows_open(&w, API_LLAMA, "{}", 1));
    CHECK_OK(api_adapter(w.ctx, w.a, "x", lora, 1, 0.2F));
    CHECK_OK(api_adapter(w.ctx, w.a, "y", lora, 2, 0.2F));
    for (size_t i = 0; i < PEFT__COUNT(bad); i++) { bad[i] = NAN; }
    CHECK_OK(peft_adapters_tensor_write(w.a, "y", "model.layers.1.self_attn.q_proj.lora_A.weight", bad, PEFT__COUNT(bad)));
    CHECK_OK(rows_add(&w, "x", ids, 3, "{'max_new_tokens':4,'ignore_eos':true}"));
    CHECK_OK(rows_add(&w, "y", ids, 3, "{'max_new_tokens':4,'ignore_eos':true}"));
    CHECK_OK(rows_run(&w));
    CHECK_INT(w.seen[1].status, PEFT_E_NUMERIC);
    CHECK_INT(w.seen[1].ended, 1);
    CHECK_INT(w.seen[1].n, 0);
    rows_check_alone(&w, 0, "x", ids, 3, "{}", "{'max_new_tokens':4,'ignore_eos':true}");
    rows_close(&w);
}

/* ---- adapters that change meanwhile, errors ------------------------------------------------------------------------------------------ */

TEST(infer_rows_go_on_with_what_was_replaced) {
    static const char *const lora[] = {"lora", "{'r':2}"};
    rows_world w;
    int32_t ids[5] = {4, 2, 3, 9, 1};
    const char *folder = runner_tmpdir();
    peft_options *o = NULL;
    size_t left = 0;
    CHECK_OK(rows_open(&w, API_LLAMA, "{}", 1));
    CHECK_OK(api_adapter(w.ctx, w.a, "x", lora, 1, 0.2F));
    CHECK_OK(api_adapter(w.ctx, w.a, "y", lora, 2, 0.2F));
    CHECK_OK(peft_adapters_save(w.a, "y", folder, NULL));
    CHECK_STATUS(peft_adapters_load(w.a, "x", folder, NULL), PEFT_E_EXISTS);
    CHECK_OK(rows_add(&w, "x", ids, 5, "{'max_new_tokens':6,'ignore_eos':true}"));
    CHECK_OK(peft_session_rows_next(w.s, rows_note, &w, &left));
    peft_session *old = NULL;
    CHECK_OK(peft_session_create(w.m, w.a, "x", NULL, &old));
    CHECK_OK(api_options(w.ctx, "load", "{'replace':true}", &o));
    CHECK_OK(peft_adapters_load(w.a, "x", folder, o));
    CHECK_INT(peft_adapters_count(w.a), 2);
    CHECK_OK(rows_add(&w, "x", ids, 5, "{'max_new_tokens':6,'ignore_eos':true}"));
    CHECK_OK(rows_run(&w));
    rows_check_alone(&w, 1, "y", ids, 5, "{}", "{'max_new_tokens':6,'ignore_eos':true}"); /* x is y's copy now */
    int32_t made[ROWS_TOKENS];
    size_t n = 0;
    peft_options *g = NULL;
    CHECK_OK(api_options(w.ctx, "generate", "{'max_new_tokens':6,'ignore_eos':true}", &g));
    CHECK_OK(peft_session_generate(old, NULL, ids, 5, g, NULL, NULL, made, ROWS_TOKENS, &n));
    CHECK_MEM(w.seen[0].ids, made, n * sizeof *made);
    CHECK(memcmp(w.seen[0].logits, w.seen[1].logits, sizeof w.seen[0].logits[0]) != 0);
    peft_session_free(old);
    peft_options_free(o);
    peft_options_free(g);
    rows_close(&w);
}

TEST(infer_rows_refused) {
    static const char *const lora[] = {"lora", "{'r':2}"};
    static const char *const tokens[] = {"trainable_tokens", "{'token_indices':[2],'num_new_tokens':2}"};
    rows_world w;
    int32_t ids[3] = {4, 2, 3}, beyond[2] = {1, API_VOCAB};
    CHECK_OK(rows_open(&w, API_LLAMA, "{'max_length':9}", 1));
    CHECK_OK(api_adapter(w.ctx, w.a, "x", lora, 1, 0.2F));
    CHECK_OK(api_adapter(w.ctx, w.a, "t", tokens, 1, 0.2F));
    CHECK_OK(rows_add(&w, "x", ids, 3, "{'max_new_tokens':4,'ignore_eos':true}"));
    CHECK_STATUS(rows_add(&w, "z", ids, 3, "{}"), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("no adapter \"z\"");
    CHECK_STATUS(rows_add(&w, "batch_split(x:1,t:1)", ids, 3, "{}"), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("one row is added");
    CHECK_STATUS(rows_add(&w, "x", ids, 0, "{}"), PEFT_E_INVALID);
    CHECK_STATUS(rows_add(&w, "x", beyond, 2, "{}"), PEFT_E_INVALID);
    CHECK_ERROR_HAS("token 1 has id 14, expected 0 to 13");
    CHECK_OK(rows_add(&w, "t", beyond, 2, "{'max_new_tokens':4,'ignore_eos':true}"));
    CHECK_STATUS(rows_add(&w, "", beyond, 2, "{}"), PEFT_E_INVALID);
    CHECK_STATUS(rows_add(&w, "x", ids, 3, "{'num_beams':3}"), PEFT_E_UNSUPPORTED);
    CHECK_STATUS(peft_session_row_remove(w.s, 99), PEFT_E_NOT_FOUND);
    CHECK_STATUS(peft_adapters_remove(w.a, "x"), PEFT_E_BUSY);
    CHECK_ERROR_HAS("in use by 1 branch of a session's rows");
    CHECK_OK(rows_run(&w));
    rows_check_alone(&w, 0, "x", ids, 3, "{'max_length':9}", "{'max_new_tokens':4,'ignore_eos':true}");
    rows_check_alone(&w, 1, "t", beyond, 2, "{'max_length':9}", "{'max_new_tokens':4,'ignore_eos':true}");
    rows_close(&w);
}

/* Allocations fail one after the other: nothing leaks, and rows that were there get what they would have. */
TEST(infer_rows_no_memory) {
    static const char *const lora[] = {"lora", "{'r':2}"}, *const prefix[] = {"prefix", "{'num_virtual_tokens':2}"};
    int32_t ids[4] = {4, 2, 3, 7};
    for (size_t at = 1, done = 0; done == 0; at += runner_few() ? 5 : 1) {
        rows_world w;
        size_t failed = 0;
        CHECK_OK(rows_open(&w, API_LLAMA, "{}", 1));
        CHECK_OK(api_adapter(w.ctx, w.a, "x", lora, 1, 0.2F));
        CHECK_OK(api_adapter(w.ctx, w.a, "p", prefix, 1, 0.2F));
        w.host.fail_at = w.host.calls + at;
        for (size_t i = 0; i < 3; i++) {
            const char *e = i == 0 ? "x" : i == 1 ? "p" : "";
            peft_status st = rows_add(&w, e, ids, 2 + i, "{'max_new_tokens':3,'ignore_eos':true}");
            if (st == PEFT_E_NOMEM && ++failed < 3) { i--; continue; }
            CHECK_OK(st);
            st = peft_session_rows_next(w.s, rows_note, &w, NULL);
            if (st == PEFT_E_NOMEM) { failed++; } else { CHECK_OK(st); }
        }
        done = w.host.calls < w.host.fail_at;
        CHECK(failed == !done || w.seen[0].n > 0);
        CHECK_OK(rows_run(&w));
        w.host.fail_at = 0;
        for (size_t i = 0; i < 3; i++) {
            CHECK_INT(w.seen[i].n, 3);
            rows_check_alone(&w, i, i == 0 ? "x" : i == 1 ? "p" : "", ids, 2 + i, "{}", "{'max_new_tokens':3,'ignore_eos':true}");
        }
        rows_close(&w);
    }
}

/* Many adapters take what their values take, and little more; a thousand on a real model: bench/serving.py. */
TEST(infer_rows_many_adapters) {
    static const char config[] = "{\"model_type\":\"llama\",\"hidden_size\":1024,\"intermediate_size\":64,\"num_hidden_layers\":4,"
                                 "\"num_attention_heads\":4,\"num_key_value_heads\":4,\"vocab_size\":14,\"max_position_embeddings\":48,"
                                 "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"eos_token_id\":12,\"tie_word_embeddings\":true}";
    const int32_t adapters = runner_few() ? 30 : 100;
    enum { VALUES = 4 * 2 * 8 * (1024 + 1024) }; /* layers, q and v, r, both sides of A and B */
    rows_world w;
    peft_options *o = NULL;
    int32_t ids[3] = {4, 2, 3};
    CHECK_OK(rows_open(&w, config, "{}", 1));
    CHECK_OK(api_options(w.ctx, "method:lora", "{'r':8,'target_modules':['q_proj','v_proj']}", &o));
    size_t before = w.host.now;
    for (int32_t i = 0; i < adapters; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "a%d", (int)i);
        CHECK_OK(peft_adapters_add(w.a, name, "lora", o, (uint64_t)i));
    }
    double share = (double)(w.host.now - before) / ((double)adapters * VALUES * sizeof(float));
    CHECK(share > 1 && share < 1.05);
    for (size_t i = 0; i < 20; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "a%d", (int)(i * (size_t)adapters / 20));
        CHECK_OK(rows_add(&w, name, ids, 3, "{'max_new_tokens':2,'ignore_eos':true}"));
    }
    CHECK_OK(rows_run(&w));
    for (size_t i = 0; i < 20; i++) { CHECK_INT(w.seen[i].n, 2); }
    peft_options_free(o);
    rows_close(&w);
}
