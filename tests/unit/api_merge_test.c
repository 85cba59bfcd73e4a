/* api_merge_test.c - a merged model, opened again, says what base and adapter say together. */
#include "api_kit.h"

static const int32_t merge_ids[] = {3, 1, 4, 1, 5, 9, 2, 6, 0, 11};
enum { MERGE_IDS = 10, MERGE_LOGITS = MERGE_IDS * API_VOCAB };

static peft_status merge_logits(peft_context *ctx, peft_model *m, peft_adapters *a, const char *name, float *out) {
    peft_status st = PEFT_OK;
    peft_session *s = NULL;
    peft_batch *b = NULL;
    int64_t len = MERGE_IDS;
    TRY(peft_session_create(m, a, name, NULL, &s));
    TRY(api_batch(ctx, merge_ids, &len, 1, &b));
    TRY(peft_session_logits(s, b, out, MERGE_LOGITS, NULL));
out:
    peft_batch_free(b);
    peft_session_free(s);
    return st;
}

/* Merges a shaken adapter and compares; `apart`: largest difference allowed; `change`: the least that the adapter does. */
static peft_status merge_round(const char *config, const char *method, const char *json, const char *file,
                               const char *dtype, double *apart, double *change) {
    peft_status st = PEFT_OK;
    api_host h = {0};
    peft_context *ctx = NULL;
    peft_model *m = NULL, *merged = NULL;
    peft_adapters *a = NULL;
    peft_options *o = NULL, *how = NULL;
    char schema[32];
    float base[MERGE_LOGITS], live[MERGE_LOGITS], again[MERGE_LOGITS];
    const char *path = runner_path(runner_tmpdir(), file);
    (void)snprintf(schema, sizeof schema, "method:%s", method);
    TRY(api_context(&h, &ctx));
    TRY(api_model(ctx, config, &m));
    TRY(peft_adapters_create(m, &a));
    TRY(api_options(ctx, schema, json, &o));
    TRY(peft_options_create(ctx, "merge", &how));
    TRY(peft_options_set_str(how, "dtype", dtype));
    TRY(peft_adapters_add(a, "x", method, o, 2));
    TRY(api_shake(a, "x", 0.2F));
    TRY(merge_logits(ctx, m, NULL, NULL, base));
    TRY(merge_logits(ctx, m, a, "x", live));
    TRY(peft_adapters_merge(a, "x", path, how));
    TRY(peft_model_open(ctx, path, NULL, &merged));
    TRY(merge_logits(ctx, merged, NULL, NULL, again));
    *apart = api_distance(live, again, MERGE_LOGITS);
    *change = api_distance(live, base, MERGE_LOGITS);
out:
    peft_options_free(o);
    peft_options_free(how);
    peft_adapters_free(a);
    peft_model_free(m);
    peft_model_free(merged);
    peft_context_free(ctx);
    if (h.now != 0 && st == PEFT_OK) { st = peft__fail(PEFT_E_INTERNAL, "%zu bytes leaked", h.now); }
    return st;
}

static const char *const merge_lora = "{'r':4,'lora_alpha':16,'target_modules':'all-linear'}";

TEST(api_merge_lora_folder) {
    double apart = 1, change = 0;
    CHECK_OK(merge_round(API_LLAMA, "lora", merge_lora, "folder", "", &apart, &change));
    CHECK(change > 0.05);
    CHECK_NEAR(apart, 0, 2e-5);
    CHECK_OK(merge_round(API_GPT2, "lora", merge_lora, "folder", "", &apart, &change));
    CHECK(change > 0.05);
    CHECK_NEAR(apart, 0, 2e-5);
}

TEST(api_merge_lora_gguf) {
    double apart = 1, change = 0;
    CHECK_OK(merge_round(API_LLAMA, "lora", merge_lora, "m.gguf", "", &apart, &change));
    CHECK(change > 0.05);
    CHECK_NEAR(apart, 0, 2e-5);
    CHECK_OK(merge_round(API_GPT2, "lora", merge_lora, "m.gguf", "float32", &apart, &change));
    CHECK(change > 0.05);
    CHECK_NEAR(apart, 0, 2e-5);
}

TEST(api_merge_lora_dtypes) {
    double apart = 1, change = 0;
    CHECK_OK(merge_round(API_LLAMA, "lora", merge_lora, "folder", "bfloat16", &apart, &change));
    CHECK(apart > 0 && apart < 0.1 * change);
    CHECK_OK(merge_round(API_LLAMA, "lora", merge_lora, "m.gguf", "float16", &apart, &change));
    CHECK(apart > 0 && apart < 0.01 * change);
    CHECK_STATUS(merge_round(API_LLAMA, "lora", merge_lora, "folder", "q8_0", &apart, &change), PEFT_E_UNSUPPORTED);
}

TEST(api_merge_full) {
    double apart = 1, change = 0;
    CHECK_OK(merge_round(API_LLAMA, "full", "{}", "folder", "", &apart, &change));
    CHECK(change > 0.05);
    CHECK_NEAR(apart, 0, 2e-5);
    CHECK_OK(merge_round(API_GPT2, "full", "{}", "folder", "", &apart, &change));
    CHECK_NEAR(apart, 0, 2e-5);
    CHECK_OK(merge_round(API_GPT2, "full", "{}", "m.gguf", "", &apart, &change));
    CHECK_NEAR(apart, 0, 2e-5);
    CHECK_OK(merge_round(API_LLAMA_TIED("true"), "full", "{}", "m.gguf", "", &apart, &change));
    CHECK_NEAR(apart, 0, 2e-5);
}

/* Only one of a tied pair changes: the written model has two tensors. */
TEST(api_merge_unties) {
    double apart = 1, change = 0;
    static const char *const head = "{'r':4,'target_modules':['q_proj'],'modules_to_save':['lm_head']}";
    static const char *const table = "{'r':4,'target_modules':['q_proj'],'modules_to_save':['embed_tokens']}";
    for (int i = 0; i < 2; i++) {
        CHECK_OK(merge_round(API_LLAMA_TIED("true"), "lora", i ? head : table, "folder", "", &apart, &change));
        CHECK(change > 0.05);
        CHECK_NEAR(apart, 0, 2e-5);
        CHECK_OK(merge_round(API_LLAMA_TIED("true"), "lora", i ? head : table, "m.gguf", "", &apart, &change));
        CHECK_NEAR(apart, 0, 2e-5);
    }
    CHECK_STATUS(merge_round(API_LLAMA_TIED("true"), "lora",
                             "{'r':4,'target_modules':['q_proj'],'modules_to_save':['lm_head','embed_tokens']}",
                             "folder", "", &apart, &change),
                 PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("tied");
}

TEST(api_merge_full_is_saved_as_a_model) {
    peft_context *ctx = NULL;
    peft_model *m = NULL, *saved = NULL;
    peft_adapters *a = NULL;
    float live[MERGE_LOGITS], again[MERGE_LOGITS];
    const char *dir = runner_path(runner_tmpdir(), "model");
    CHECK_OK(peft_context_create(NULL, &ctx));
    CHECK_OK(api_model(ctx, API_GPT2, &m));
    CHECK_OK(peft_adapters_create(m, &a));
    CHECK_OK(peft_adapters_add(a, "x", "full", NULL, 2));
    CHECK_OK(api_shake(a, "x", 0.2F));
    CHECK_OK(peft_adapters_save(a, "x", dir, NULL));
    CHECK_OK(peft_model_open(ctx, dir, NULL, &saved));
    CHECK_OK(merge_logits(ctx, m, a, "x", live));
    CHECK_OK(merge_logits(ctx, saved, NULL, NULL, again));
    CHECK_NEAR(api_distance(live, again, MERGE_LOGITS), 0, 2e-5);
    peft_adapters_free(a);
    peft_model_free(m);
    peft_model_free(saved);
    peft_context_free(ctx);
}

/* The tokenizer goes along when the format changes, both ways; two adapters add up; nothing at all is a conversion. */
TEST(api_merge_crosses_formats) {
    peft_context *ctx = NULL;
    peft_model *m = NULL, *hf = NULL, *gguf = NULL;
    peft_adapters *a = NULL, *b = NULL;
    peft_tokenizer *t = NULL;
    float live[MERGE_LOGITS], again[MERGE_LOGITS];
    const char *dir = runner_tmpdir(), *first = runner_path(dir, "hf"), *second = runner_path(dir, "m.gguf");
    const char *third = runner_path(dir, "back");
    int32_t ids[4];
    size_t n = 0;
    CHECK_OK(peft_context_create(NULL, &ctx));
    CHECK_OK(api_model(ctx, API_LLAMA, &m));
    CHECK_OK(peft_adapters_create(m, &a));
    CHECK_OK(peft_adapters_add(a, "x", "lora", NULL, 2));
    CHECK_OK(peft_adapters_add(a, "y", "lora", NULL, 3));
    CHECK_OK(api_shake(a, "x", 0.2F));
    CHECK_OK(api_shake(a, "y", 0.3F));
    CHECK_OK(merge_logits(ctx, m, a, "x,y", live));
    CHECK_OK(peft_adapters_merge(a, "x,y", first, NULL));
    CHECK_OK(text_write(runner_mem(), first, "tokenizer.json", TEXT_BYTES));
    CHECK_OK(peft_model_open(ctx, first, NULL, &hf));
    CHECK_OK(peft_adapters_create(hf, &b));
    CHECK_OK(peft_adapters_merge(b, NULL, second, NULL));
    peft_adapters_free(b);
    CHECK_OK(peft_tokenizer_open(ctx, second, &t));
    CHECK_OK(peft_tokenizer_encode(t, "abc ab", 6, 0, ids, 4, &n));
    CHECK_INT(n, 2);
    CHECK_INT(ids[0] * 100 + ids[1], 911);
    peft_tokenizer_free(t);
    CHECK_OK(peft_model_open(ctx, second, NULL, &gguf));
    CHECK_OK(merge_logits(ctx, gguf, NULL, NULL, again));
    CHECK_NEAR(api_distance(live, again, MERGE_LOGITS), 0, 2e-5);
    CHECK_OK(peft_adapters_create(gguf, &b));
    CHECK_OK(peft_adapters_merge(b, "", third, NULL));
    CHECK_OK(peft_tokenizer_open(ctx, third, &t));
    CHECK_INT(peft_tokenizer_token_id(t, "abc"), 9);
    peft_tokenizer_free(t);
    peft_adapters_free(a);
    peft_adapters_free(b);
    peft_model_free(m);
    peft_model_free(hf);
    peft_model_free(gguf);
    peft_context_free(ctx);
}
