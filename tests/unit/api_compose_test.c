/* api_compose_test.c - expressions: blocks against runs by hand, factors, unions, what is refused; training of several. */
#include "api_kit.h"

enum { COMPOSE_TOKENS = 11, COMPOSE_ROWS = 3, COMPOSE_LOGITS = COMPOSE_TOKENS * API_VOCAB };

typedef struct compose_world {
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    peft_batch *batch;
} compose_world;

static const int32_t compose_ids[COMPOSE_TOKENS] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 11, 0};
static const int64_t compose_lens[COMPOSE_ROWS] = {6, 4, 1};
static const int64_t compose_offsets[COMPOSE_ROWS + 1] = {0, 6, 10, 11};

static peft_status compose_add(compose_world *w, const char *name, const char *method, const char *json) {
    char schema[64];
    peft_options *o = NULL;
    peft_status st = PEFT_OK;
    (void)snprintf(schema, sizeof schema, "method:%s", method);
    st = api_options(w->ctx, schema, json, &o);
    if (st == PEFT_OK) { st = peft_adapters_add(w->a, name, method, o, 5); }
    peft_options_free(o);
    if (st == PEFT_OK && strcmp(method, "union") != 0) { st = api_shake(w->a, name, 0.3F); }
    return st;
}

static peft_status compose_open(compose_world *w, const char *config) {
    static const char *const adapters[][3] = {
        {"l", "lora", "{'r':2,'target_modules':'all-linear'}"}, {"m", "lora", "{'r':3}"},
        {"b", "pfeiffer", "{'reduction_factor':4}"},            {"c", "pfeiffer", "{'reduction_factor':2}"},
        {"h", "houlsby", "{'reduction_factor':4}"},             {"p", "prompt", "{'num_virtual_tokens':3}"},
        {"q", "prompt", "{'num_virtual_tokens':2}"},            {"k", "prefix", "{'num_virtual_tokens':2}"},
        {"n", "ln_tuning", "{}"},                               {"j", "prefix_tuning", "{'prefix_length':3,'flat':true}"},
        {"g", "prefix_tuning", "{'prefix_length':2,'flat':true,'use_gating':true}"},
    };
    peft_status st = PEFT_OK;
    memset(w, 0, sizeof *w);
    TRY(peft_context_create(NULL, &w->ctx));
    TRY(api_model(w->ctx, config, &w->m));
    TRY(peft_adapters_create(w->m, &w->a));
    for (size_t i = 0; i < sizeof adapters / sizeof *adapters; i++) {
        TRY(compose_add(w, adapters[i][0], adapters[i][1], adapters[i][2]));
    }
    TRY(api_batch(w->ctx, compose_ids, compose_lens, COMPOSE_ROWS, &w->batch));
out:
    return st;
}

static void compose_close(compose_world *w) {
    peft_batch_free(w->batch);
    peft_adapters_free(w->a);
    peft_model_free(w->m);
    peft_context_free(w->ctx);
}

static peft_status compose_logits(compose_world *w, const char *expression, float *out, size_t cap) {
    peft_session *s = NULL;
    peft_status st = peft_session_create(w->m, w->a, expression, NULL, &s);
    if (st == PEFT_OK) { st = peft_session_logits(s, w->batch, out, cap, NULL); }
    peft_session_free(s);
    return st;
}

static bool compose_write(const char *path, const char *text, size_t len) {
    FILE *f = fopen(path, "wb");
    bool ok = f != NULL && fwrite(text, 1, len, f) == len;
    return f != NULL && fclose(f) == 0 && ok;
}

static double compose_gap(const float *x, const float *y, size_t n) {
    double gap = 0;
    for (size_t i = 0; i < n; i++) { gap = fmax(gap, fabs((double)x[i] - (double)y[i])); }
    return gap;
}

TEST(api_compose_factors) {
    static const char *const configs[] = {API_LLAMA, API_GPT2};
    static float base[COMPOSE_LOGITS], one[COMPOSE_LOGITS], two[COMPOSE_LOGITS], other[COMPOSE_LOGITS];
    for (size_t c = 0; c < 2; c++) {
        compose_world w;
        CHECK_OK(compose_open(&w, configs[c]));
        CHECK_OK(compose_logits(&w, "", base, COMPOSE_LOGITS));
        CHECK_OK(compose_logits(&w, "l:0,0*b,m:0", one, COMPOSE_LOGITS));
        CHECK_MEM(one, base, sizeof base); /* off is off, bit for bit */
        CHECK_OK(compose_logits(&w, "l", one, COMPOSE_LOGITS));
        CHECK_OK(compose_logits(&w, "1*l:1", two, COMPOSE_LOGITS));
        CHECK_MEM(one, two, sizeof one);
        CHECK(compose_gap(one, base, COMPOSE_LOGITS) > 1e-2);
        CHECK_OK(compose_logits(&w, "0.5*l", two, COMPOSE_LOGITS));
        CHECK(compose_gap(one, two, COMPOSE_LOGITS) > 1e-3 && compose_gap(base, two, COMPOSE_LOGITS) > 1e-3);
        CHECK_OK(compose_logits(&w, "stack(0.25*l:2)", other, COMPOSE_LOGITS));
        CHECK_MEM(two, other, sizeof two);
        CHECK_OK(compose_logits(&w, "average(l:1, n:0)", other, COMPOSE_LOGITS));
        CHECK(compose_gap(one, other, COMPOSE_LOGITS) < 1e-5);
        CHECK_OK(compose_logits(&w, "0.5*b", other, COMPOSE_LOGITS));
        CHECK_OK(compose_logits(&w, "b", two, COMPOSE_LOGITS));
        CHECK(compose_gap(two, other, COMPOSE_LOGITS) > 1e-3);
        compose_close(&w);
    }
}

TEST(api_compose_order_and_average) {
    static float one[COMPOSE_LOGITS], two[COMPOSE_LOGITS], three[COMPOSE_LOGITS];
    compose_world w;
    CHECK_OK(compose_open(&w, API_LLAMA));
    CHECK_OK(compose_logits(&w, "l,m", one, COMPOSE_LOGITS));
    CHECK_OK(compose_logits(&w, "m,l", two, COMPOSE_LOGITS));
    CHECK(compose_gap(one, two, COMPOSE_LOGITS) < 1e-5); /* sums */
    CHECK_OK(compose_logits(&w, "b,c", one, COMPOSE_LOGITS));
    CHECK_OK(compose_logits(&w, "c,b", two, COMPOSE_LOGITS));
    CHECK(compose_gap(one, two, COMPOSE_LOGITS) > 1e-4); /* one reads the other */
    CHECK_OK(compose_logits(&w, "p,q", one, COMPOSE_LOGITS));
    CHECK_OK(compose_logits(&w, "q,p", two, COMPOSE_LOGITS));
    CHECK(compose_gap(one, two, COMPOSE_LOGITS) > 1e-4);
    CHECK_OK(compose_logits(&w, "average(l:3,m:1)", one, COMPOSE_LOGITS));
    CHECK_OK(compose_logits(&w, "0.75*l,0.25*m", two, COMPOSE_LOGITS));
    CHECK(compose_gap(one, two, COMPOSE_LOGITS) < 1e-5);
    CHECK_OK(compose_logits(&w, "average(b,c)", one, COMPOSE_LOGITS));
    CHECK_OK(compose_logits(&w, "average(c:2,b:2)", two, COMPOSE_LOGITS));
    CHECK_OK(compose_logits(&w, "b,c", three, COMPOSE_LOGITS));
    CHECK(compose_gap(one, two, COMPOSE_LOGITS) < 1e-5);
    CHECK(compose_gap(one, three, COMPOSE_LOGITS) > 1e-4);
    compose_close(&w);
}

/* Logits of rows [first, last) in `all` and `own`. */
static double compose_rows(const float *all, const float *own, int first, int last) {
    size_t from = (size_t)compose_offsets[first] * API_VOCAB, to = (size_t)compose_offsets[last] * API_VOCAB;
    return compose_gap(all + from, own + from, to - from);
}

TEST(api_compose_divides_rows) {
    static const char *const configs[] = {API_LLAMA, API_GPT2};
    static float each[3][COMPOSE_LOGITS], all[3 * COMPOSE_LOGITS];
    for (size_t c = 0; c < 2; c++) {
        compose_world w;
        CHECK_OK(compose_open(&w, configs[c]));
        CHECK_OK(compose_logits(&w, "l,b", each[0], COMPOSE_LOGITS));
        CHECK_OK(compose_logits(&w, "p", each[1], COMPOSE_LOGITS));
        CHECK_OK(compose_logits(&w, "n,q", each[2], COMPOSE_LOGITS));
        CHECK_OK(compose_logits(&w, "batch_split(stack(l,b):1, p:1, stack(n,q):1)", all, COMPOSE_LOGITS));
        for (int r = 0; r < 3; r++) { CHECK(compose_rows(all, each[r], r, r + 1) < 1e-5); }
        CHECK_OK(compose_logits(&w, "parallel(stack(l,b), p, stack(n,q))", all, 3 * COMPOSE_LOGITS));
        for (int b = 0; b < 3; b++) { CHECK(compose_gap(all + b * COMPOSE_LOGITS, each[b], COMPOSE_LOGITS) < 1e-5); }
        CHECK_OK(compose_logits(&w, "k", each[0], COMPOSE_LOGITS)); /* prefixes of several lengths and kinds */
        CHECK_OK(compose_logits(&w, "j,p", each[1], COMPOSE_LOGITS));
        CHECK_OK(compose_logits(&w, "b", each[2], COMPOSE_LOGITS));
        CHECK_OK(compose_logits(&w, "batch_split(k:1, stack(j,p):1, b:1)", all, COMPOSE_LOGITS));
        for (int r = 0; r < 3; r++) { CHECK(compose_rows(all, each[r], r, r + 1) < 1e-5); }
        CHECK_OK(compose_logits(&w, "parallel(k, stack(j,p), b)", all, 3 * COMPOSE_LOGITS));
        for (int b = 0; b < 3; b++) { CHECK(compose_gap(all + b * COMPOSE_LOGITS, each[b], COMPOSE_LOGITS) < 1e-5); }
        CHECK_OK(compose_logits(&w, "j,k", each[0], COMPOSE_LOGITS));
        CHECK_OK(compose_logits(&w, "j", each[1], COMPOSE_LOGITS));
        CHECK_OK(compose_logits(&w, "j,parallel(k,n:0)", all, 2 * COMPOSE_LOGITS));
        for (int b = 0; b < 2; b++) { CHECK(compose_gap(all + b * COMPOSE_LOGITS, each[b], COMPOSE_LOGITS) < 1e-5); }
        CHECK_STATUS(compose_logits(&w, "parallel(l,b)", all, COMPOSE_LOGITS), PEFT_E_BUFFER);
        CHECK_STATUS(compose_logits(&w, "batch_split(l:1,b:1)", all, COMPOSE_LOGITS), PEFT_E_SHAPE);
        CHECK_ERROR_HAS("3 rows, and batch_split divides 2");
        compose_close(&w);
    }
}

TEST(api_compose_splits_tokens) {
    static float one[COMPOSE_LOGITS], two[COMPOSE_LOGITS], base[COMPOSE_LOGITS];
    compose_world w;
    CHECK_OK(compose_open(&w, API_LLAMA));
    CHECK_OK(compose_logits(&w, "", base, COMPOSE_LOGITS));
    CHECK_OK(compose_logits(&w, "b", one, COMPOSE_LOGITS));
    CHECK_OK(compose_logits(&w, "split(b:3,c)", two, COMPOSE_LOGITS));
    CHECK(compose_gap(one, two, 3 * API_VOCAB) < 1e-5); /* a decoder's first tokens know nothing of the later */
    CHECK(compose_gap(one + 3 * API_VOCAB, two + 3 * API_VOCAB, API_VOCAB) > 1e-4);
    CHECK_OK(compose_logits(&w, "split(b:100)", two, COMPOSE_LOGITS));
    CHECK(compose_gap(one, two, COMPOSE_LOGITS) < 1e-5);
    CHECK_OK(compose_logits(&w, "split(b:2,l:2)", two, COMPOSE_LOGITS));
    CHECK_OK(compose_logits(&w, "split(l:2,b:2)", one, COMPOSE_LOGITS));
    CHECK(compose_gap(one, two, COMPOSE_LOGITS) > 1e-4);
    compose_close(&w);
}

TEST(api_compose_refuses) {
    static const struct { const char *text; peft_status st; const char *words; } bad[] = {
        {"l,", PEFT_E_INVALID, "expected the name"},
        {"stack(l", PEFT_E_INVALID, "expected \",\" or \")\""},
        {"l)", PEFT_E_INVALID, "expected \",\" or the end"},
        {"pile(l,b)", PEFT_E_INVALID, "no block \"pile\": known are stack"},
        {"l,l", PEFT_E_INVALID, "has adapter \"l\" twice"},
        {"stack(l,zebra)", PEFT_E_NOT_FOUND, "there is no adapter \"zebra\"; there are: l, m"},
        {"l:x", PEFT_E_INVALID, "expected a number"},
        {"average(l:0,b:0)", PEFT_E_INVALID, "add up to 0"},
        {"average(l:-1,b)", PEFT_E_INVALID, "negative"},
        {"split(b,c:2)", PEFT_E_INVALID, "item 1 of split(...) has no number of tokens"},
        {"batch_split(b:1,c)", PEFT_E_INVALID, "item 2 of batch_split(...) has no number of rows"},
        {"parallel(l,batch_split(b:1,c:2))", PEFT_E_UNSUPPORTED, "one parallel(...) or batch_split(...)"},
        {"fuse(b,c)", PEFT_E_NOT_FOUND, "there is no fusion of b, c"},
        {"fuse(stack(b),c)", PEFT_E_UNSUPPORTED, "fuse(...) takes names"},
        {"0.5*p", PEFT_E_UNSUPPORTED, "\"p\" puts virtual tokens before the rows"},
        {"0.5*k", PEFT_E_UNSUPPORTED, "\"k\" puts a prefix before the rows"},
        {"split(p:2,b)", PEFT_E_UNSUPPORTED, "no part of the tokens"},
        {"split(split(b:1,c:1):3,h)", PEFT_E_UNSUPPORTED, "inside of another"},
        {"batch_split(g:1,b:2)", PEFT_E_UNSUPPORTED, "\"g\" puts a prefix with gates beside another, or before some of the rows only"},
        {"g,k", PEFT_E_UNSUPPORTED, "prefix with gates beside another"},
    };
    peft_session *s = NULL;
    compose_world w;
    CHECK_OK(compose_open(&w, API_LLAMA));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_STATUS(peft_session_create(w.m, w.a, bad[i].text, NULL, &s), bad[i].st);
        CHECK_ERROR_HAS(bad[i].words);
        CHECK(s == NULL);
    }
    CHECK_STATUS(peft_adapters_merge(w.a, "average(l,m)", runner_tmpdir(), NULL), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("merging takes adapters that act one after the other");
    for (size_t i = 0; i < peft_adapters_count(w.a); i++) { /* nothing is still held */
        CHECK_OK(peft_session_create(w.m, w.a, peft_adapters_name(w.a, i), NULL, &s));
        peft_session_free(s);
    }
    while (peft_adapters_count(w.a) > 0) { CHECK_OK(peft_adapters_remove(w.a, peft_adapters_name(w.a, 0))); }
    compose_close(&w);
}

TEST(api_compose_generates_what_it_computes) {
    static float logits[COMPOSE_LOGITS];
    int32_t out[1];
    peft_session *s = NULL;
    compose_world w;
    CHECK_OK(compose_open(&w, API_LLAMA));
    CHECK_OK(compose_logits(&w, "split(b:4,c),0.5*l,p,k", logits, COMPOSE_LOGITS));
    CHECK_OK(peft_session_create(w.m, w.a, "split(b:4,c),0.5*l,p,k", NULL, &s));
    peft_options *o = NULL;
    CHECK_OK(api_options(w.ctx, "generate", "{'max_new_tokens':1,'temperature':0}", &o));
    size_t n = 0, best = 0;
    CHECK_OK(peft_session_generate(s, NULL, compose_ids, 6, o, NULL, NULL, out, 1, &n));
    for (size_t v = 1; v < API_VOCAB; v++) { best = logits[5 * API_VOCAB + v] > logits[5 * API_VOCAB + best] ? v : best; }
    CHECK_INT(out[0], (int32_t)best);
    peft_session_free(s);
    CHECK_OK(peft_session_create(w.m, w.a, "parallel(b,c)", NULL, &s));
    CHECK_STATUS(peft_session_generate(s, NULL, compose_ids, 6, o, NULL, NULL, out, 1, &n), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("name one branch");
    peft_session_free(s);
    peft_options_free(o);
    compose_close(&w);
}

TEST(api_compose_pieces_equal_the_whole) {
    static const char *const texts[] = {"split(b:4,c),0.5*l,p,k", "split(l:3,m:2),n", "batch_split(stack(k,split(b:2,c)):1,p:1,l:1)",
                                        "parallel(stack(j,b),split(c:5,h))"};
    static float whole[2 * COMPOSE_LOGITS], pieces[2 * COMPOSE_LOGITS];
    compose_world w;
    CHECK_OK(compose_open(&w, API_LLAMA));
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        size_t n = i == 3 ? 2 * COMPOSE_LOGITS : COMPOSE_LOGITS;
        CHECK_OK(compose_logits(&w, texts[i], whole, n));
        for (int chunk = 1; chunk < 6; chunk += 2) {
            peft_options *o = NULL;
            peft_session *s = NULL;
            CHECK_OK(peft_options_create(w.ctx, "session", &o));
            CHECK_OK(peft_options_set_int(o, "chunk", chunk));
            CHECK_OK(peft_session_create(w.m, w.a, texts[i], o, &s));
            CHECK_OK(peft_session_logits(s, w.batch, pieces, n, NULL));
            CHECK(compose_gap(whole, pieces, n) < 2e-5);
            peft_session_free(s);
            peft_options_free(o);
        }
    }
    compose_close(&w);
}

TEST(api_compose_session_changes_its_adapters) {
    static float one[COMPOSE_LOGITS], two[COMPOSE_LOGITS];
    peft_session *s = NULL;
    compose_world w;
    CHECK_OK(compose_open(&w, API_LLAMA));
    CHECK_OK(peft_session_create(w.m, w.a, "l,p", NULL, &s));
    CHECK_OK(peft_session_logits(s, w.batch, one, COMPOSE_LOGITS, NULL));
    CHECK_OK(peft_session_set_adapters(s, "0.5*l,b"));
    CHECK_OK(peft_session_logits(s, w.batch, one, COMPOSE_LOGITS, NULL));
    CHECK_OK(compose_logits(&w, "0.5*l,b", two, COMPOSE_LOGITS));
    CHECK_MEM(one, two, sizeof one);
    CHECK_STATUS(peft_session_set_adapters(s, "zebra"), PEFT_E_NOT_FOUND);
    CHECK_OK(peft_session_logits(s, w.batch, two, COMPOSE_LOGITS, NULL)); /* as before */
    CHECK_MEM(one, two, sizeof one);
    CHECK_OK(peft_adapters_remove(w.a, "p")); /* no longer held */
    CHECK_STATUS(peft_adapters_remove(w.a, "b"), PEFT_E_BUSY);
    CHECK_OK(peft_session_set_adapters(s, NULL));
    CHECK_OK(peft_session_logits(s, w.batch, one, COMPOSE_LOGITS, NULL));
    CHECK_OK(compose_logits(&w, NULL, two, COMPOSE_LOGITS));
    CHECK_MEM(one, two, sizeof one);
    peft_session_free(s);
    compose_close(&w);
}

/* ---- unions ---------------------------------------------------------------------------------------------------------- */

TEST(api_compose_union_acts_and_is_saved) {
    static float one[COMPOSE_LOGITS], two[COMPOSE_LOGITS];
    static char info[8192];
    const char *dir = runner_path(runner_tmpdir(), "union");
    static const char head[] = "{\"kind\":\"adapter\",\"method\":\"union\",\"parts\":[{\"name\":\"l\",\"adapter\":{\"kind\":\"adapter\"";
    static char text[16384];
    compose_world w;
    CHECK_OK(compose_open(&w, API_LLAMA));
    CHECK_OK(compose_add(&w, "u", "union", "{'parts':['l','b','p']}"));
    CHECK_OK(compose_logits(&w, "u", one, COMPOSE_LOGITS));
    CHECK_OK(compose_logits(&w, "l,b,p", two, COMPOSE_LOGITS));
    CHECK_MEM(one, two, sizeof one);
    CHECK_STATUS(peft_adapters_remove(w.a, "b"), PEFT_E_BUSY);
    CHECK_INT(peft_adapters_tensor_count(w.a, "u"),
               peft_adapters_tensor_count(w.a, "l") + peft_adapters_tensor_count(w.a, "b") + peft_adapters_tensor_count(w.a, "p"));
    CHECK_OK(peft_adapters_info_json(w.a, "u", info, sizeof info, NULL));
    CHECK(strstr(info, "\"parts\":[{\"name\":\"l\",\"method\":\"lora\"") != NULL);
    CHECK_OK(peft_adapters_save(w.a, "u", dir, NULL));
    CHECK_OK(peft_inspect_json(w.ctx, dir, text, sizeof text, NULL));
    CHECK(strncmp(text, head, sizeof head - 1) == 0 && strstr(text, "{\"name\":\"p\",\"adapter\":{\"kind\":\"adapter\"") != NULL);
    CHECK_OK(peft_adapters_load(w.a, "v", dir, NULL));
    CHECK_OK(compose_logits(&w, "v", two, COMPOSE_LOGITS));
    CHECK_MEM(one, two, sizeof one);
    CHECK_OK(peft_adapters_load(w.a, "w", runner_path(dir, "pfeiffer"), NULL)); /* a part alone */
    CHECK_OK(compose_logits(&w, "w", one, COMPOSE_LOGITS));
    CHECK_OK(compose_logits(&w, "b", two, COMPOSE_LOGITS));
    CHECK_MEM(one, two, sizeof one);
    CHECK_STATUS(compose_add(&w, "x", "union", "{'parts':['l','zebra']}"), PEFT_E_NOT_FOUND);
    CHECK_STATUS(compose_add(&w, "x", "union", "{}"), PEFT_E_KEY);
    CHECK_STATUS(compose_logits(&w, "u,l", one, COMPOSE_LOGITS), PEFT_E_INVALID);
    CHECK_ERROR_HAS("\"l\" twice");
    compose_close(&w);
}

TEST(api_compose_union_files_that_lie) {
    static const struct { const char *text; peft_status st; const char *words; } bad[] = {
        {"{\"format\": \"libpeft-union\", \"version\": 1, \"parts\": [{\"name\": \"a\", \"folder\": \"../a\"}]}", PEFT_E_FORMAT,
         "\"folder\" is \"../a\""},
        {"{\"format\": \"libpeft-union\", \"version\": 1, \"parts\": [{\"name\": \"a\", \"folder\": \"a/b\"}]}", PEFT_E_FORMAT, "folder"},
        {"{\"format\": \"libpeft-union\", \"version\": 9, \"parts\": [{}]}", PEFT_E_VERSION, "newer"},
        {"{\"format\": \"other\", \"version\": 1, \"parts\": [{}]}", PEFT_E_FORMAT, "expected \"format\""},
        {"{\"format\": \"libpeft-union\", \"version\": 1, \"parts\": []}", PEFT_E_FORMAT, "list of \"parts\""},
        {"{\"format\": \"libpeft-union\", \"version\": 1, \"parts\": [3]}", PEFT_E_FORMAT, "no object"},
        {"[]", PEFT_E_FORMAT, "not a JSON object"},
        {"{", PEFT_E_FORMAT, "libpeft_union.json"},
        {"{\"format\": \"libpeft-union\", \"version\": 1}", PEFT_E_FORMAT, "list of \"parts\""},
        {"{\"format\": \"libpeft-union\", \"version\": 1, \"parts\": {}}", PEFT_E_FORMAT, "list of \"parts\""},
        {"{\"format\": 3, \"version\": 1, \"parts\": [{}]}", PEFT_E_FORMAT, "key \"format\" is 3"},
        {"{\"format\": \"libpeft-union\", \"version\": \"1\", \"parts\": [{}]}", PEFT_E_FORMAT, "key \"version\" is \"1\""},
        {"{\"format\": \"libpeft-union\", \"version\": 1, \"parts\": [{\"name\": \"a\"}]}", PEFT_E_FORMAT, "\"folder\" is \"\""},
        {"{\"format\": \"libpeft-union\", \"version\": 1, \"parts\": [{\"folder\": \".\"}]}", PEFT_E_FORMAT, "\"folder\" is \".\""},
        {"{\"format\": \"libpeft-union\", \"version\": 1, \"parts\": [{\"folder\": 3}]}", PEFT_E_FORMAT, "key \"folder\" is 3"},
        {"{\"format\": \"libpeft-union\", \"version\": 1, \"parts\": [{\"name\": 3, \"folder\": \"a\"}]}", PEFT_E_FORMAT, "key \"name\""},
        {"{\"format\": \"libpeft-union\", \"version\": 1, \"parts\": [0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}", PEFT_E_FORMAT,
         "17 parts at depth 0, at most 16 and 4"},
    };
    const char *dir = runner_tmpdir();
    char text[64];
    compose_world w;
    CHECK_OK(compose_open(&w, API_LLAMA));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(compose_write(runner_path(dir, "libpeft_union.json"), bad[i].text, strlen(bad[i].text)));
        CHECK_STATUS(peft_adapters_load(w.a, "x", dir, NULL), bad[i].st);
        CHECK_ERROR_HAS(bad[i].words);
        CHECK_STATUS(peft_inspect_json(w.ctx, dir, text, sizeof text, NULL), bad[i].st);
        CHECK_ERROR_HAS(bad[i].words);
    }
    CHECK_INT(peft_adapters_count(w.a), 11);
    compose_close(&w);
}

/* Unions in unions: five of them, one in the other, are read, and a sixth is not. */
TEST(api_compose_unions_in_unions) {
    static const char index[] = "{\"format\":\"libpeft-union\",\"version\":1,\"parts\":[{\"folder\":\"in\"}]}";
    float one[COMPOSE_LOGITS], two[COMPOSE_LOGITS];
    static char text[16384];
    compose_world w;
    CHECK_OK(compose_open(&w, API_LLAMA));
    CHECK_OK(compose_logits(&w, "l", one, COMPOSE_LOGITS));
    for (int deep = 5; deep <= 6; deep++) {
        const char *dir = runner_tmpdir(), *at = dir, *says = "1 parts at depth 5, at most 16 and 4";
        for (int i = 0; i < deep; i++) {
            CHECK_OK(peft__dir_make(at));
            CHECK(compose_write(runner_path(at, "libpeft_union.json"), index, sizeof index - 1));
            at = runner_path(at, "in");
        }
        CHECK_OK(peft_adapters_save(w.a, "l", at, NULL));
        peft_status st = deep == 5 ? PEFT_OK : PEFT_E_FORMAT;
        CHECK_STATUS(peft_adapters_load(w.a, "deep", dir, NULL), st);
        if (deep == 5) {
            CHECK_OK(compose_logits(&w, "deep", two, COMPOSE_LOGITS));
            CHECK_MEM(two, one, sizeof one);
            CHECK_OK(peft_adapters_remove(w.a, "deep"));
        } else {
            CHECK_ERROR_HAS(says);
        }
        CHECK_STATUS(peft_inspect_json(w.ctx, dir, text, sizeof text, NULL), st);
        CHECK_OK(peft_check_json(w.ctx, dir, w.m, NULL, text, sizeof text, NULL));
        CHECK_INT(strstr(text, "\"ok\":true") != NULL, deep == 5);
        CHECK_INT(strstr(text, says) != NULL, deep == 6);
    }
    compose_close(&w);
}

TEST(api_compose_unions_that_cannot_be) {
    compose_world w;
    char many[256] = "{'parts':[";
    CHECK_OK(compose_open(&w, API_LLAMA));
    for (int i = 0; i < 17; i++) {
        size_t n = strlen(many);
        (void)snprintf(many + n, sizeof many - n, "%s'a%d'", i > 0 ? "," : "", i);
    }
    (void)snprintf(many + strlen(many), sizeof many - strlen(many), "]}");
    CHECK_STATUS(compose_add(&w, "x", "union", many), PEFT_E_KEY);
    CHECK_ERROR_HAS("option \"parts\" of union \"x\" names 17 adapters, at most 16");
    CHECK_OK(compose_add(&w, "whole", "full", "{}"));
    CHECK_STATUS(compose_add(&w, "x", "union", "{'parts':['l','whole']}"), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("adapter \"whole\" is a whole model, which is no part of a union");
    CHECK_OK(peft_adapters_remove(w.a, "whole")); /* nothing holds it */
    compose_close(&w);
}

/* ---- training -------------------------------------------------------------------------------------------------------- */

static const char *const compose_data =
    "{'input_ids':[3,1,4,1,5],'labels':[3,1,4,1,5]}\n{'input_ids':[9,2,6,5],'labels':[9,2,6,5]}\n"
    "{'input_ids':[11,0,7],'labels':[11,0,7]}\n";

static peft_status compose_train(compose_world *w, const char *expression, int64_t steps) {
    char text[256];
    peft_status st = PEFT_OK;
    peft_dataset *d = NULL;
    peft_options *o = NULL, *optimizer = NULL;
    peft_trainer *t = NULL;
    const char *path = runner_path(runner_tmpdir(), "data.jsonl");
    (void)snprintf(text, sizeof text, "%s", compose_data);
    for (char *c = text; *c != '\0'; c++) {
        if (*c == '\'') { *c = '"'; }
    }
    if (!compose_write(path, text, strlen(text))) { return PEFT_E_IO; }
    TRY(peft_dataset_create(w->ctx, NULL, NULL, &d));
    TRY(peft_dataset_load_jsonl(d, path));
    (void)snprintf(text, sizeof text, "{'max_steps':%d,'batch_size':3,'shuffle':false}", (int)steps);
    TRY(api_options(w->ctx, "trainer", text, &o));
    TRY(peft_trainer_create(w->a, o, &t));
    TRY(api_options(w->ctx, "optimizer", "{'max_grad_norm':0}", &optimizer)); /* of all gradients together */
    TRY(peft_trainer_add_job(t, expression, d, NULL, optimizer));
    TRY(peft_trainer_run(t));
out:
    peft_trainer_free(t);
    peft_options_free(optimizer);
    peft_options_free(o);
    peft_dataset_free(d);
    return st;
}

TEST(api_compose_trains_what_is_not_frozen) {
    static float l0[COMPOSE_LOGITS], l1[COMPOSE_LOGITS], b0[COMPOSE_LOGITS], b1[COMPOSE_LOGITS];
    compose_world w;
    CHECK_OK(compose_open(&w, API_LLAMA));
    CHECK_OK(compose_logits(&w, "l", l0, COMPOSE_LOGITS));
    CHECK_OK(compose_logits(&w, "b", b0, COMPOSE_LOGITS));
    CHECK_OK(compose_train(&w, "freeze(l),b", 2));
    CHECK_OK(compose_logits(&w, "l", l1, COMPOSE_LOGITS));
    CHECK_OK(compose_logits(&w, "b", b1, COMPOSE_LOGITS));
    CHECK_MEM(l0, l1, sizeof l0);
    CHECK(compose_gap(b0, b1, COMPOSE_LOGITS) > 1e-5);
    CHECK_STATUS(compose_train(&w, "freeze(l,b)", 2), PEFT_E_INVALID);
    CHECK_ERROR_HAS("nothing to train");
    compose_close(&w);
}

/* Two LoRAs, which compute their own rows alone, and a bottleneck adapter, which is chosen from all. */
TEST(api_compose_parallel_training_is_single_training) {
    static const char *const names[] = {"l", "m", "b"};
    static float alone[3][COMPOSE_LOGITS], both[3][COMPOSE_LOGITS];
    for (int together = 0; together < 2; together++) {
        compose_world w;
        CHECK_OK(compose_open(&w, API_LLAMA));
        if (together == 1) { CHECK_OK(compose_train(&w, "parallel(l,m,b)", 3)); }
        for (int i = 0; i < 3; i++) {
            if (together == 0) { CHECK_OK(compose_train(&w, names[i], 3)); }
            CHECK_OK(compose_logits(&w, names[i], together == 1 ? both[i] : alone[i], COMPOSE_LOGITS));
        }
        compose_close(&w);
    }
    for (int i = 0; i < 3; i++) { CHECK(compose_gap(alone[i], both[i], COMPOSE_LOGITS) < 1e-4); }
}

TEST(api_compose_trains_a_union_and_resumes) {
    const char *dir = runner_path(runner_tmpdir(), "run");
    static float one[COMPOSE_LOGITS], two[COMPOSE_LOGITS];
    compose_world w;
    peft_trainer *t = NULL;
    CHECK_OK(compose_open(&w, API_LLAMA));
    CHECK_OK(compose_add(&w, "u", "union", "{'parts':['l','b','p']}"));
    CHECK_OK(peft_trainer_create(w.a, NULL, &t));
    CHECK_OK(peft_trainer_add_job(t, "u", NULL, NULL, NULL));
    CHECK_OK(peft_trainer_accumulate(t, w.batch, NULL));
    CHECK_OK(peft_trainer_apply(t));
    CHECK_OK(peft_trainer_checkpoint_save(t, dir));
    CHECK_OK(peft_trainer_accumulate(t, w.batch, NULL));
    CHECK_OK(peft_trainer_apply(t));
    CHECK_OK(compose_logits(&w, "u", one, COMPOSE_LOGITS));
    CHECK_OK(peft_trainer_checkpoint_load(t, dir)); /* back to the first step, and again */
    CHECK_OK(peft_trainer_accumulate(t, w.batch, NULL));
    CHECK_OK(peft_trainer_apply(t));
    CHECK_OK(compose_logits(&w, "u", two, COMPOSE_LOGITS));
    CHECK_MEM(one, two, sizeof one);
    float g[64];
    size_t n = 0;
    CHECK_STATUS(peft_trainer_gradient_read(t, "u", "prompt_embeddings", g, 64, &n), PEFT_OK);
    CHECK_INT(n, 3 * API_HIDDEN);
    CHECK_STATUS(peft_trainer_gradient_read(t, "u", "zebra", g, 64, &n), PEFT_E_NOT_FOUND);
    CHECK_STATUS(peft_trainer_gradient_read(t, "c", "zebra", g, 64, &n), PEFT_E_NOT_FOUND);
    peft_trainer_free(t);
    compose_close(&w);
}
