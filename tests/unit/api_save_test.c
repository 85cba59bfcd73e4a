/* api_save_test.c - adapters in other formats: LoRA files of llama.cpp there and back, what a format cannot hold, other methods
 * that are the same; and combinations through the public functions. */
#include "api_kit.h"

static const int32_t save_ids[] = {3, 1, 4, 1, 5, 9, 2, 6, 0, 11};
enum { SAVE_IDS = 10, SAVE_LOGITS = SAVE_IDS * API_VOCAB };

typedef struct save_world {
    api_host h;
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
} save_world;

static peft_status save_begin(save_world *w, const char *config) {
    memset(w, 0, sizeof *w);
    peft_status st = api_context(&w->h, &w->ctx);
    if (st == PEFT_OK) { st = api_model(w->ctx, config, &w->m); }
    return st == PEFT_OK ? peft_adapters_create(w->m, &w->a) : st;
}

static void save_end(save_world *w) {
    peft_adapters_free(w->a);
    peft_model_free(w->m);
    peft_context_free(w->ctx);
}

/* A shaken adapter. */
static peft_status save_add(save_world *w, const char *name, const char *method, const char *json) {
    peft_options *o = NULL;
    char schema[40];
    (void)snprintf(schema, sizeof schema, "method:%s", method);
    peft_status st = api_options(w->ctx, schema, json, &o);
    if (st == PEFT_OK) { st = peft_adapters_add(w->a, name, method, o, 2); }
    peft_options_free(o);
    return st == PEFT_OK ? api_shake(w->a, name, 0.2F) : st;
}

static peft_status save_as(save_world *w, const char *name, const char *path, const char *json) {
    peft_options *o = NULL;
    peft_status st = api_options(w->ctx, "save", json, &o);
    if (st == PEFT_OK) { st = peft_adapters_save(w->a, name, path, o); }
    peft_options_free(o);
    return st;
}

static peft_status save_logits(save_world *w, const char *name, float *out) {
    peft_session *s = NULL;
    peft_batch *b = NULL;
    int64_t len = SAVE_IDS;
    peft_status st = peft_session_create(w->m, w->a, name, NULL, &s);
    if (st == PEFT_OK) { st = api_batch(w->ctx, save_ids, &len, 1, &b); }
    if (st == PEFT_OK) { st = peft_session_logits(s, b, out, SAVE_LOGITS, NULL); }
    peft_batch_free(b);
    peft_session_free(s);
    return st;
}

/* Saves "x", loads it as "y" and compares: the largest difference, and what the adapter does at all. */
static peft_status save_round(save_world *w, const char *path, const char *json, double *apart, double *change) {
    peft_status st = PEFT_OK;
    float base[SAVE_LOGITS], live[SAVE_LOGITS], again[SAVE_LOGITS];
    TRY(save_as(w, "x", path, json));
    TRY(peft_adapters_load(w->a, "y", path, NULL));
    TRY(save_logits(w, NULL, base));
    TRY(save_logits(w, "x", live));
    TRY(save_logits(w, "y", again));
    *apart = api_distance(live, again, SAVE_LOGITS);
    *change = api_distance(live, base, SAVE_LOGITS);
out:
    return st;
}

TEST(save_gguf_round_trips) {
    static const struct {
        const char *config, *method, *options;
    } cases[] = {
        {API_LLAMA, "lora", "{'r':4,'lora_alpha':6,'target_modules':'all-linear'}"},
        {API_LLAMA, "lora", "{'r':3,'lora_alpha':6,'target_modules':['q_proj','lm_head'],'use_rslora':true}"},
        {API_LLAMA, "lora",
         "{'r':4,'lora_alpha':16,'target_modules':['q_proj','k_proj','up_proj'],'rank_pattern':{'k_proj':2},"
         "'alpha_pattern':{'up_proj':3},'use_rslora':true}"},
        {API_LLAMA_TIED("true"), "lora", "{'r':2,'target_modules':['k_proj','down_proj'],'layers_to_transform':[1]}"},
        {API_LLAMA, "lora", "{'r':2,'lora_alpha':4,'target_modules':['q_proj'],'init_lora_weights':'pissa'}"},
        {API_LLAMA, "lora_fa", "{'r':2,'target_modules':['v_proj']}"},
        {API_LLAMA, "vera", "{'r':5}"},
        {API_GPT2, "lora", "{'r':4,'lora_alpha':16,'target_modules':['c_attn','c_fc','mlp.c_proj']}"},
    };
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        save_world w;
        double apart = 1, change = 0;
        CHECK_OK(save_begin(&w, cases[i].config));
        CHECK_OK(save_add(&w, "x", cases[i].method, cases[i].options));
        CHECK_OK(save_round(&w, runner_path(runner_tmpdir(), "x.gguf"), "{}", &apart, &change));
        CHECK(change > 5e-4);
        CHECK_NEAR(apart, 0, 2e-6);
        save_end(&w);
        CHECK_INT(w.h.now, 0);
    }
}

/* The file as llama.cpp reads it: metadata, names, shapes, pair order of q's B and nothing else's, alpha in one place. */
TEST(save_gguf_file) {
    save_world w;
    peft__gguf g;
    const char *path = runner_path(runner_tmpdir(), "plain"), *text = NULL;
    double alpha = 0;
    peft__arena arena;
    CHECK_OK(save_begin(&w, API_LLAMA));
    CHECK_OK(save_add(&w, "x", "lora",
                      "{'r':2,'lora_alpha':6,'target_modules':['q_proj','v_proj'],'alpha_pattern':{'v_proj':3}}"));
    CHECK_OK(save_as(&w, "x", path, "{'format':'gguf'}"));
    CHECK_OK(peft__gguf_open(runner_mem(), path, false, &g));
    peft__arena_init(&arena, runner_mem());
    CHECK_OK(peft__gguf_text(&g, "general.type", &arena, "", &text));
    CHECK_STR(text, "adapter");
    CHECK_OK(peft__gguf_text(&g, "general.architecture", &arena, "", &text));
    CHECK_STR(text, "llama");
    CHECK_OK(peft__gguf_text(&g, "adapter.type", &arena, "", &text));
    CHECK_STR(text, "lora");
    CHECK_OK(peft__gguf_float(&g, "adapter.lora.alpha", 0, &alpha));
    CHECK_NEAR(alpha, 6, 0);
    CHECK_INT(g.count, 8);
    static const char *const names[2][2] = {{"blk.1.attn_q.weight.lora_b", "model.layers.1.self_attn.q_proj.lora_B.weight"},
                                            {"blk.0.attn_v.weight.lora_b", "model.layers.0.self_attn.v_proj.lora_B.weight"}};
    for (int i = 0; i < 2; i++) {
        float b[32];
        size_t n = 0;
        const peft__io_tensor *t = peft__gguf_find(&g, names[i][0]);
        CHECK(t != NULL);
        CHECK_OK(peft_adapters_tensor_read(w.a, "x", names[i][1], b, 32, &n));
        CHECK_INT(t->dims[0], i == 0 ? 16 : 8);
        CHECK_INT(t->dims[1], 2);
        for (size_t e = 0; e < n; e++) {
            uint32_t bits = peft__get_u32(t->data + 4 * e);
            float v;
            memcpy(&v, &bits, sizeof v);
            /* head of 8: file row 2 i + j is row 4 j + i */
            size_t row = e / 2, in = row % 8, from = row - in + in % 2 * 4 + in / 2;
            CHECK_NEAR(v, i == 0 ? b[from * 2 + e % 2] : 0.5F * b[e], 0);
        }
    }
    const peft__io_tensor *a = peft__gguf_find(&g, "blk.1.attn_q.weight.lora_a");
    CHECK(a != NULL && a->dims[0] == 2 && a->dims[1] == 16);
    peft__gguf_close(&g);
    peft__arena_free(&arena);
    static char json[8192];
    CHECK_OK(peft_inspect_json(w.ctx, path, json, sizeof json, NULL));
    CHECK(strstr(json, "{\"kind\":\"adapter\",\"method\":\"lora\",\"architecture\":\"llama\",\"parameters\":224") != NULL);
    CHECK(strstr(json, "\"adapter.lora.alpha\":6") != NULL);
    CHECK(strstr(json, "\"sites\":[\"blk.0.attn_q.weight\"") != NULL);
    CHECK(strstr(json, "{\"name\":\"blk.1.attn_q.weight.lora_b\",\"dtype\":\"F32\",\"shape\":[16,2]}") != NULL);
    save_end(&w);
}

TEST(save_gguf_refuses) {
    static const struct {
        const char *config, *method, *options, *says;
    } cases[] = {
        {API_LLAMA, "dora", "{'r':2}", "DoRA"},
        {API_LLAMA, "lora", "{'r':2,'modules_to_save':['lm_head']}", "lm_head.weight"},
        {API_GPT2, "lora", "{'r':2,'bias':'lora_only'}", "bias"},
        {API_LLAMA_TIED("true"), "lora", "{'r':2,'target_modules':['q_proj','lm_head']}", "embedding's tensor"},
        {API_LLAMA, "ia3", "{}", "\"ia3\""},
        {API_LLAMA, "houlsby", "{}", "\"houlsby\""},
        {API_LLAMA, "prompt", "{}", "\"prompt\""},
        {API_LLAMA, "ptuning", "{}", "\"ptuning\""},
        {API_LLAMA, "vera", "{'r':2,'modules_to_save':['lm_head']}", "lm_head"},
    };
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        save_world w;
        const char *path = runner_path(runner_tmpdir(), "x.gguf");
        CHECK_OK(save_begin(&w, cases[i].config));
        CHECK_OK(save_add(&w, "x", cases[i].method, cases[i].options));
        CHECK_STATUS(save_as(&w, "x", path, "{}"), PEFT_E_UNSUPPORTED);
        CHECK_ERROR_HAS(cases[i].says);
        CHECK(!peft__path_exists(path));
        save_end(&w);
        CHECK_INT(w.h.now, 0);
    }
}

/* ---- damaged and foreign files ------------------------------------------------------------------------------------- */

typedef struct save_tensor {
    const char *name;
    int64_t rows, cols;
} save_tensor;

enum { SAVE_ALORA = 1, SAVE_NAN = 2, SAVE_NO_ALPHA = 4 };

/* A hand-made file of tensors of 0.25. */
static peft_status save_write(const char *path, const char *kind, const char *architecture, const char *type, int flags,
                              const save_tensor *tensors, size_t n) {
    static float values[4096];
    peft__io_source sources[8] = {{0}};
    peft__gguf_out out;
    peft__gguf_out_init(&out, runner_mem());
    for (size_t i = 0; i < PEFT__COUNT(values); i++) { values[i] = flags & SAVE_NAN ? (float)NAN : 0.25F; }
    for (size_t i = 0; i < n; i++) {
        sources[i] = (peft__io_source){.name = tensors[i].name, .dtype = PEFT_DTYPE_F32, .ndim = 2,
                                       .dims = {tensors[i].rows, tensors[i].cols}, .data = values};
    }
    peft__gguf_put_text(&out, "general.type", kind, strlen(kind));
    peft__gguf_put_text(&out, "general.architecture", architecture, strlen(architecture));
    peft__gguf_put_text(&out, "adapter.type", type, strlen(type));
    if (!(flags & SAVE_NO_ALPHA)) { peft__gguf_put_f32(&out, "adapter.lora.alpha", 8); }
    if (flags & SAVE_ALORA) {
        static const uint8_t token[4] = {1, 0, 0, 0};
        peft__gguf_put_array(&out, "adapter.alora.invocation_tokens", PEFT__GGUF_U32, 1, token, sizeof token);
    }
    peft_status st = peft__gguf_write(&out, runner_mem(), path, sources, n);
    peft__gguf_out_free(&out);
    return st;
}

#define SAVE_Q "blk.0.attn_q.weight"

TEST(load_gguf_errors) {
    static const struct {
        const char *kind, *architecture, *type;
        int flags;
        save_tensor tensors[2];
        peft_status st;
        const char *says;
    } cases[] = {
        {"model", "llama", "lora", 0, {{SAVE_Q ".lora_a", 2, 16}, {SAVE_Q ".lora_b", 16, 2}}, PEFT_E_FORMAT, "general.type"},
        {"adapter", "gpt2", "lora", 0, {{SAVE_Q ".lora_a", 2, 16}, {SAVE_Q ".lora_b", 16, 2}}, PEFT_E_SHAPE, "\"gpt2\""},
        {"adapter", "llama", "ia3", 0, {{SAVE_Q ".lora_a", 2, 16}, {SAVE_Q ".lora_b", 16, 2}}, PEFT_E_UNSUPPORTED, "\"ia3\""},
        {"adapter", "llama", "lora", SAVE_ALORA, {{SAVE_Q ".lora_a", 2, 16}, {SAVE_Q ".lora_b", 16, 2}}, PEFT_E_UNSUPPORTED, "aLoRA"},
        {"adapter", "llama", "lora", SAVE_NAN, {{SAVE_Q ".lora_a", 2, 16}, {SAVE_Q ".lora_b", 16, 2}}, PEFT_E_NUMERIC, "attn_q"},
        {"adapter", "llama", "lora", 0, {{SAVE_Q ".lora_a", 2, 16}, {"blk.0.attn_k.weight.lora_b", 8, 2}}, PEFT_E_NOT_FOUND, ".lora_b"},
        {"adapter", "llama", "lora", 0, {{SAVE_Q ".lora_a", 2, 15}, {SAVE_Q ".lora_b", 16, 2}}, PEFT_E_SHAPE, "[2, 15]"},
        {"adapter", "llama", "lora", 0, {{SAVE_Q ".lora_a", 2, 16}, {SAVE_Q ".lora_b", 16, 3}}, PEFT_E_SHAPE, "[16, 3]"},
        {"adapter", "llama", "lora", 0, {{SAVE_Q ".lora_a", 2, 16}, {SAVE_Q, 16, 2}}, PEFT_E_FORMAT, "neither"},
        {"adapter", "llama", "lora", 0, {{"blk.9.attn_q.weight.lora_a", 2, 16}, {"blk.9.attn_q.weight.lora_b", 16, 2}}, PEFT_E_NOT_FOUND,
         "blk.9.attn_q"},
        {"adapter", "llama", "lora", 0, {{"token_embd.weight.lora_a", 14, 2}, {"token_embd.weight.lora_b", 16, 2}}, PEFT_E_UNSUPPORTED,
         "embedding"},
        {"adapter", "llama", "lora", 0, {{"blk.0.attn_norm.weight", 1, 16}, {"output_norm.weight", 1, 16}}, PEFT_E_NOT_FOUND, "LoRA"},
    };
    save_world w;
    const char *path = runner_path(runner_tmpdir(), "bad.gguf");
    CHECK_OK(save_begin(&w, API_LLAMA));
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        CHECK_OK(save_write(path, cases[i].kind, cases[i].architecture, cases[i].type, cases[i].flags, cases[i].tensors, 2));
        CHECK_STATUS(peft_adapters_load(w.a, "x", path, NULL), cases[i].st);
        CHECK_ERROR_HAS(cases[i].says);
        CHECK_INT(peft_adapters_count(w.a), 0);
    }
    /* NaN may be asked for; without alpha the factor is 1; norms are passed over, as llama.cpp does */
    static const save_tensor good[3] = {{SAVE_Q ".lora_a", 2, 16}, {SAVE_Q ".lora_b", 16, 2}, {"blk.0.attn_norm.weight", 1, 16}};
    peft_options *o = NULL;
    static char json[8192];
    CHECK_OK(save_write(path, "adapter", "llama", "lora", SAVE_NAN, good, 2));
    CHECK_OK(api_options(w.ctx, "load", "{'allow_nan':true}", &o));
    CHECK_OK(peft_adapters_load(w.a, "nan", path, o));
    peft_options_free(o);
    CHECK_OK(save_write(path, "adapter", "llama", "lora", SAVE_NO_ALPHA, good, 3));
    CHECK_OK(peft_adapters_load(w.a, "one", path, NULL));
    CHECK_OK(peft_adapters_info_json(w.a, "one", json, sizeof json, NULL));
    CHECK(strstr(json, "\"rank\":2,\"scale\":1.0}") != NULL);
    CHECK_OK(save_write(path, "adapter", "llama", "lora", 0, good, 2));
    CHECK_OK(peft_adapters_load(w.a, "four", path, NULL));
    CHECK_OK(peft_adapters_info_json(w.a, "four", json, sizeof json, NULL));
    CHECK(strstr(json, "\"rank\":2,\"scale\":4.0}") != NULL);
    CHECK_STATUS(peft_model_open(w.ctx, path, NULL, &(peft_model *){NULL}), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("\"adapter\"");
    save_end(&w);
    CHECK_INT(w.h.now, 0);
}

/* ---- formats and methods ------------------------------------------------------------------------------------------- */

TEST(save_formats) {
    save_world w;
    const char *top = runner_tmpdir(), *dir = runner_path(top, "dir");
    CHECK_OK(save_begin(&w, API_LLAMA));
    CHECK_OK(save_add(&w, "lora", "lora", "{'r':2}"));
    CHECK_OK(save_add(&w, "houlsby", "houlsby", "{}"));
    CHECK_OK(save_add(&w, "loha", "loha", "{}"));
    CHECK_OK(save_add(&w, "full", "full", "{}"));
    CHECK_OK(save_as(&w, "lora", dir, "{'format':'hf'}"));
    CHECK(peft__path_exists(runner_path(dir, "adapter_model.safetensors")));
    CHECK_STATUS(save_as(&w, "houlsby", dir, "{'format':'hf'}"), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("PEFT has no adapters of method \"houlsby\"");
    CHECK_OK(save_as(&w, "houlsby", dir, "{'format':'adapterhub'}"));
    CHECK(peft__path_exists(runner_path(dir, "adapter.safetensors")));
    CHECK_STATUS(save_as(&w, "loha", dir, "{'format':'adapterhub'}"), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("AdapterHub");
    CHECK_STATUS(save_as(&w, "full", dir, "{'format':'adapterhub'}"), PEFT_E_UNSUPPORTED);
    CHECK_STATUS(save_as(&w, "lora", dir, "{'format':'zip'}"), PEFT_E_KEY);
    CHECK_STATUS(save_as(&w, "full", dir, "{'method':'lora'}"), PEFT_E_UNSUPPORTED);
    /* the whole model goes into a GGUF file where the path says so */
    const char *file = runner_path(top, "m.gguf");
    peft_model *m = NULL;
    CHECK_OK(save_as(&w, "full", file, "{}"));
    CHECK_OK(peft_model_open(w.ctx, file, NULL, &m));
    peft_model_free(m);
    save_end(&w);
}

TEST(save_as_another_method) {
    static const struct {
        const char *from, *options, *to, *shown;
    } cases[] = {
        {"vera", "{'r':6,'target_modules':'all-linear'}", "lora", "\"method\":\"lora\""},
        {"lora_fa", "{'r':2}", "lora", "\"method\":\"lora\""},
        {"lora", "{'r':2}", "lora", "\"method\":\"lora\""},
        {"ptuning", "{'num_virtual_tokens':4}", "prompt", "\"method\":\"prompt\""},
        {"ptuning", "{'num_virtual_tokens':4,'baked':true}", "prompt", "\"method\":\"prompt\""},
    };
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        save_world w;
        double apart = 1, change = 0;
        char json[64];
        static char text[16384];
        CHECK_OK(save_begin(&w, API_LLAMA));
        CHECK_OK(save_add(&w, "x", cases[i].from, cases[i].options));
        (void)snprintf(json, sizeof json, "{'method':'%s'}", cases[i].to);
        CHECK_OK(save_round(&w, runner_path(runner_tmpdir(), "x"), json, &apart, &change));
        CHECK(change > 0.01);
        CHECK_NEAR(apart, 0, 2e-6);
        CHECK_OK(peft_adapters_info_json(w.a, "y", text, sizeof text, NULL));
        CHECK(strstr(text, cases[i].shown) != NULL);
        save_end(&w);
        CHECK_INT(w.h.now, 0);
    }
    save_world w;
    CHECK_OK(save_begin(&w, API_LLAMA));
    CHECK_OK(save_add(&w, "loha", "loha", "{}"));
    CHECK_OK(save_add(&w, "vera", "vera", "{}"));
    CHECK_STATUS(save_as(&w, "loha", runner_path(runner_tmpdir(), "x"), "{'method':'lora'}"), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("\"loha\" is not exactly one of method \"lora\"");
    CHECK_STATUS(save_as(&w, "vera", runner_path(runner_tmpdir(), "x"), "{'method':'prompt'}"), PEFT_E_UNSUPPORTED);
    save_end(&w);
    CHECK_INT(w.h.now, 0);
}

/* ---- combinations -------------------------------------------------------------------------------------------------- */

/* A combination adds up what its sources do to each matrix, and its file says the same. */
TEST(api_combine) {
    save_world w;
    double apart = 1, change = 0;
    float one[SAVE_LOGITS], two[SAVE_LOGITS];
    peft_options *o = NULL;
    CHECK_OK(save_begin(&w, API_LLAMA));
    CHECK_OK(save_add(&w, "a", "lora", "{'r':2,'target_modules':['q_proj','lm_head'],'lora_alpha':3}"));
    CHECK_OK(save_add(&w, "b", "lora", "{'r':3,'target_modules':['q_proj','down_proj'],'rank_pattern':{'down_proj':1}}"));
    CHECK_OK(peft_adapters_combine(w.a, "x", "a:0.5,b:-1.5", NULL));
    CHECK_OK(save_round(&w, runner_path(runner_tmpdir(), "x"), "{}", &apart, &change));
    CHECK(change > 0.01);
    CHECK_NEAR(apart, 0, 2e-6);
    CHECK_OK(peft_adapters_combine(w.a, "same", "a", NULL));
    CHECK_OK(save_logits(&w, "a", one));
    CHECK_OK(save_logits(&w, "same", two));
    CHECK_NEAR(api_distance(one, two, SAVE_LOGITS), 0, 2e-6);
    CHECK_OK(save_add(&w, "v", "vera", "{'r':4,'target_modules':['q_proj']}"));
    CHECK_OK(peft_adapters_combine(w.a, "v1", "v", NULL)); /* VeRA counts as the LoRA that it is */
    CHECK_OK(save_logits(&w, "v", one));
    CHECK_OK(save_logits(&w, "v1", two));
    CHECK_NEAR(api_distance(one, two, SAVE_LOGITS), 0, 2e-6);
    CHECK_OK(peft_adapters_combine(w.a, "v2", "v:0.5,a", NULL));
    CHECK_STATUS(peft_adapters_combine(w.a, "a", "a,b", NULL), PEFT_E_EXISTS);
    CHECK_STATUS(peft_adapters_combine(w.a, "a:b", "a,b", NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_adapters_combine(w.a, "z", NULL, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_adapters_combine(NULL, "z", "a", NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_adapters_combine(w.a, "z", "a,c", NULL), PEFT_E_NOT_FOUND);
    CHECK_OK(api_options(w.ctx, "save", "{}", &o));
    CHECK_STATUS(peft_adapters_combine(w.a, "z", "a", o), PEFT_E_INVALID);
    peft_options_free(o);
    CHECK_STATUS(api_options(w.ctx, "combine", "{'type':'sum'}", &o), PEFT_E_KEY);
    CHECK_STATUS(api_options(w.ctx, "combine", "{'density':1.5}", &o), PEFT_E_KEY);
    save_end(&w);
    CHECK_INT(w.h.now, 0);
}

/* Without memory at any point: a status, the set as it was, nothing lost. */
TEST(api_combine_without_memory) {
    static const char *const types[] = {"{}", "{'type':'svd','svd_rank':2}", "{'type':'ties_svd'}", "{'type':'average'}"};
    for (size_t t = 0; t < PEFT__COUNT(types); t++) {
        save_world w;
        peft_options *o = NULL;
        const char *path = runner_path(runner_tmpdir(), "x.gguf");
        CHECK_OK(save_begin(&w, API_LLAMA));
        CHECK_OK(save_add(&w, "a", "lora", "{'r':2,'target_modules':['q_proj']}"));
        CHECK_OK(save_add(&w, "b", "lora", "{'r':2,'target_modules':['q_proj']}"));
        CHECK_OK(api_options(w.ctx, "combine", types[t], &o));
        size_t now = w.h.now, failures = 0;
        for (size_t n = 1;; n++) {
            w.h.fail_at = w.h.calls + n;
            peft_status st = peft_adapters_combine(w.a, "x", "a,b", o);
            w.h.fail_at = 0;
            if (st == PEFT_OK) { break; }
            CHECK_INT(st, PEFT_E_NOMEM);
            CHECK_INT(w.h.now, now);
            CHECK_INT(peft_adapters_count(w.a), 2);
            failures++;
        }
        CHECK(failures > 10);
        now = w.h.now;
        for (size_t n = 1;; n++) {
            w.h.fail_at = w.h.calls + n;
            peft_status st = peft_adapters_save(w.a, "x", path, NULL);
            if (st == PEFT_OK) { st = peft_adapters_load(w.a, "y", path, NULL); }
            w.h.fail_at = 0;
            if (st == PEFT_OK) { break; }
            CHECK_INT(st, PEFT_E_NOMEM);
            CHECK_INT(w.h.now, now);
        }
        peft_options_free(o);
        save_end(&w);
        CHECK_INT(w.h.now, 0);
    }
}
