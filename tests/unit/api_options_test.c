/* api_options_test.c - option sets by key, as JSON, and the JSON of schemas. */
#include "api_kit.h"

/* Keys that a minimal library has not. */
#ifdef PEFT_MINIMAL
#define OPTIONS_MORE           ""
#define OPTIONS_REPLACE        ""
#define OPTIONS_REPLACE_SCHEMA ""
#else
#define OPTIONS_MORE \
    "\"num_beams\":1,\"length_penalty\":1.0,\"early_stopping\":\"false\",\"task_id\":-1,\"hold\":false,"
#define OPTIONS_REPLACE ",\"replace\":false"
#define OPTIONS_REPLACE_SCHEMA                                                                                    \
    ",{\"key\":\"replace\",\"type\":\"bool\",\"default\":false,\"min\":null,\"max\":null,\"choices\":null,"            \
    "\"help\":\"take the place of an adapter of the same name; who uses that one goes on with it\"}"
#endif

static peft_context *options_ctx(void) {
    peft_context *ctx = NULL;
    return peft_context_create(NULL, &ctx) == PEFT_OK ? ctx : NULL;
}

static const char *options_json(const peft_options *o) {
    static char text[4096];
    return peft_options_get_json(o, text, sizeof text, NULL) == PEFT_OK ? text : "failed";
}

TEST(api_options_schema_must_be_known) {
    peft_context *ctx = options_ctx();
    peft_options *o = NULL;
    CHECK_STATUS(peft_options_create(ctx, "trainr", &o), PEFT_E_KEY);
    CHECK_ERROR_HAS("did you mean \"trainer\"");
    CHECK_STATUS(peft_options_create(ctx, "zzz", &o), PEFT_E_KEY);
    CHECK_ERROR_HAS("method:lora");
    CHECK_STATUS(peft_options_create(NULL, "trainer", &o), PEFT_E_INVALID);
    CHECK_STATUS(peft_options_create(ctx, NULL, &o), PEFT_E_INVALID);
    CHECK_STATUS(peft_options_create(ctx, "trainer", NULL), PEFT_E_INVALID);
    CHECK(o == NULL);
    peft_options_free(NULL);
    peft_context_free(ctx);
}

TEST(api_options_setters_check_key_type_and_range) {
    peft_context *ctx = options_ctx();
    peft_options *o = NULL;
    CHECK_OK(peft_options_create(ctx, "generate", &o));
    CHECK_OK(peft_options_set_int(o, "max_new_tokens", 5));
    CHECK_OK(peft_options_set_float(o, "temperature", 0.5));
    CHECK_OK(peft_options_set_bool(o, "ignore_eos", 7));
    CHECK_OK(peft_options_set_text(o, "top_k", "40"));
    CHECK_OK(peft_options_set_str(o, "stop", "[\"\\n\", \"User:\"]"));
    CHECK_STR(options_json(o),
              "{\"max_new_tokens\":5,\"temperature\":0.5,\"top_k\":40,\"top_p\":1.0,\"min_p\":0.0,"
              "\"repetition_penalty\":1.0,\"seed\":0,\"stop\":[\"\\n\",\"User:\"]," OPTIONS_MORE
              "\"ignore_eos\":true}");
    CHECK_STATUS(peft_options_set_int(o, "max_new_token", 5), PEFT_E_KEY);
    CHECK_ERROR_HAS("did you mean \"max_new_tokens\"");
    CHECK_STATUS(peft_options_set_float(o, "temperature", -1), PEFT_E_KEY);
    CHECK_ERROR_HAS("temperature");
    CHECK_STATUS(peft_options_set_str(o, "temperature", "warm"), PEFT_E_KEY);
    CHECK_STATUS(peft_options_set_text(o, "top_k", "many"), PEFT_E_KEY);
    CHECK_STATUS(peft_options_set_bool(o, "top_k", 1), PEFT_E_KEY);
    CHECK_STATUS(peft_options_set_int(NULL, "top_k", 1), PEFT_E_INVALID);
    CHECK_ERROR_HAS("options is NULL");
    CHECK_STATUS(peft_options_set_int(o, NULL, 1), PEFT_E_INVALID);
    CHECK_ERROR_HAS("key is NULL");
    CHECK_STATUS(peft_options_set_str(o, "stop", NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_options_set_text((peft_options *)(void *)ctx, "top_k", "1"), PEFT_E_INVALID);
    CHECK_ERROR_HAS("options is a context, expected an options object");
    peft_options_free(o);
    peft_context_free(ctx);
}

TEST(api_options_json_is_all_or_nothing) {
    peft_context *ctx = options_ctx();
    peft_options *o = NULL;
    CHECK_OK(api_options(ctx, "method:lora",
                         "{'r':4,'lora_alpha':2.5,'target_modules':['q_proj'],'rank_pattern':{'k_proj':2}}", &o));
    const char *bad = "{\"r\":16,\"lora_alpha\":3,\"lora_dropot\":0.1}";
    char before[4096];
    (void)snprintf(before, sizeof before, "%s", options_json(o));
    CHECK_STATUS(peft_options_set_json(o, bad, strlen(bad)), PEFT_E_KEY);
    CHECK_ERROR_HAS("lora_dropout");
    CHECK_STR(options_json(o), before);
    CHECK_STATUS(peft_options_set_json(o, "[1]", 3), PEFT_E_FORMAT);
    CHECK_STATUS(peft_options_set_json(o, "{\"r\":", 5), PEFT_E_FORMAT);
    CHECK_STATUS(peft_options_set_json(o, NULL, 5), PEFT_E_INVALID);
    CHECK_STATUS(peft_options_set_json(NULL, "{}", 2), PEFT_E_INVALID);
    CHECK_STATUS(peft_options_set_json(o, "{\"r\":1.5}", 9), PEFT_E_KEY);
    CHECK_STATUS(peft_options_set_json(o, "{\"r\":\"4\"}", 9), PEFT_E_KEY);
    CHECK_STATUS(peft_options_set_json(o, "{\"r\":[4]}", 9), PEFT_E_KEY);
    CHECK_STR(options_json(o), before);
    peft_options_free(o);
    peft_context_free(ctx);
}

TEST(api_options_json_round_trip) {
    peft_context *ctx = options_ctx();
    for (size_t i = 0; peft_schema_name(i) != NULL; i++) {
        peft_options *a = NULL, *b = NULL;
        char text[4096];
        CHECK_OK(peft_options_create(ctx, peft_schema_name(i), &a));
        CHECK_OK(peft_options_create(ctx, peft_schema_name(i), &b));
        if (strcmp(peft_schema_name(i), "method:lora") == 0) {
            CHECK_OK(peft_options_set_text(a, "target_modules", ".*q_proj"));
            CHECK_OK(peft_options_set_text(a, "layers_to_transform", "0,1"));
            CHECK_OK(peft_options_set_text(a, "rank_pattern", "{\"k_proj\": 4}"));
        }
        if (strcmp(peft_schema_name(i), "trainer") == 0) { CHECK_OK(peft_options_set_text(a, "memory_limit", "1GiB")); }
        (void)snprintf(text, sizeof text, "%s", options_json(a));
        CHECK_OK(peft_options_set_json(b, text, strlen(text)));
        CHECK_STR(options_json(b), text);
        peft_options_free(a);
        peft_options_free(b);
    }
    peft_context_free(ctx);
}

/* A key that a list or map has twice, in whichever way it is written, would be said by the set and taken by none. */
TEST(api_options_repeated_keys_are_refused) {
    static const struct { const char *schema, *key, *good, *bad; } cases[] = {
#ifndef PEFT_MINIMAL /* which has no verbalizers */
        {"dataset", "verbalizer", "a=x,b=\"y z\"", "a=x,a=\"y z\""},
        {"dataset", "verbalizer", "{\"a\":\"x\"}", "{\"a\":\"x\",\"\\u0061\":\"y\"}"},
#endif
        {"method:lora", "rank_pattern", "{\"q\":2,\"v\":4}", "{\"q\":2,\"q\":4}"},
    };
    peft_context *ctx = NULL;
    CHECK_OK(peft_context_create(NULL, &ctx));
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        peft_options *o = NULL, *again = NULL;
        char before[8192], after[8192];
        CHECK_OK(peft_options_create(ctx, cases[i].schema, &o));
        CHECK_OK(peft_options_set_text(o, cases[i].key, cases[i].good));
        CHECK_OK(peft_options_get_json(o, before, sizeof before, NULL));
        CHECK_STATUS(peft_options_set_text(o, cases[i].key, cases[i].bad), PEFT_E_KEY);
        CHECK_ERROR_HAS("appears twice in one object");
        CHECK_STATUS(peft_options_set_str(o, cases[i].key, cases[i].bad), PEFT_E_KEY);
        CHECK_OK(peft_options_get_json(o, after, sizeof after, NULL)); /* it is as it was */
        CHECK_STR(after, before);
        CHECK_OK(peft_options_create(ctx, cases[i].schema, &again));
        CHECK_OK(peft_options_set_json(again, before, strlen(before)));
        peft_options_free(o);
        peft_options_free(again);
    }
    peft_context_free(ctx);
}

TEST(api_options_null_is_the_default) {
    peft_context *ctx = options_ctx();
    peft_options *o = NULL, *fresh = NULL;
    CHECK_OK(peft_options_create(ctx, "method:lora", &fresh));
    CHECK_OK(api_options(ctx, "method:lora",
                         "{'r':4,'lora_alpha':2,'target_modules':'all-linear','bias':'all','use_rslora':true}", &o));
    static const char nulls[] =
        "{\"r\":null,\"lora_alpha\":null,\"target_modules\":null,\"bias\":null,\"use_rslora\":null}";
    CHECK_OK(peft_options_set_json(o, nulls, sizeof nulls - 1));
    char text[4096];
    (void)snprintf(text, sizeof text, "%s", options_json(fresh));
    CHECK_STR(options_json(o), text);
    peft_options_free(o);
    peft_options_free(fresh);
    peft_context_free(ctx);
}

TEST(api_options_get_json_buffer_rule) {
    peft_context *ctx = options_ctx();
    peft_options *o = NULL;
    char text[64];
    size_t needed = 0;
    CHECK_OK(peft_options_create(ctx, "load", &o));
    CHECK_STATUS(peft_options_get_json(o, NULL, 0, &needed), PEFT_E_BUFFER);
    CHECK_INT(needed, sizeof "{\"allow_nan\":false" OPTIONS_REPLACE "}");
    CHECK_STATUS(peft_options_get_json(o, text, needed - 1, NULL), PEFT_E_BUFFER);
    CHECK_OK(peft_options_get_json(o, text, needed, NULL));
    CHECK_STR(text, "{\"allow_nan\":false" OPTIONS_REPLACE "}");
    CHECK_STATUS(peft_options_get_json(o, NULL, 9, &needed), PEFT_E_INVALID);
    CHECK_INT(needed, 0);
    CHECK_STATUS(peft_options_get_json(NULL, text, sizeof text, &needed), PEFT_E_INVALID);
    peft_options_free(o);
    peft_context_free(ctx);
}

TEST(api_options_of_another_schema_are_refused) {
    peft_context *ctx = options_ctx();
    peft_options *o = NULL;
    peft_model *m = NULL;
    CHECK_OK(peft_options_create(ctx, "trainer", &o));
    CHECK_STATUS(peft_model_open(ctx, "/nowhere", o, &m), PEFT_E_INVALID);
    CHECK_ERROR_HAS("schema \"trainer\", expected schema \"model\"");
    peft_options_free(o);
    peft_context_free(ctx);
}

TEST(api_options_outlive_the_context) {
    api_host h = {0};
    peft_context *ctx = NULL;
    peft_options *o = NULL;
    CHECK_OK(api_context(&h, &ctx));
    CHECK_OK(peft_options_create(ctx, "generate", &o));
    peft_context_free(ctx);
    CHECK_OK(peft_options_set_int(o, "seed", 1));
    peft_options_free(o);
    CHECK_INT(h.now, 0);
}

TEST(api_schema_json) {
    char text[16384];
    size_t needed = 0;
    CHECK_OK(peft_schema_json("load", text, sizeof text, NULL));
    CHECK_STR(text,
              "[{\"key\":\"allow_nan\",\"type\":\"bool\",\"default\":false,\"min\":null,\"max\":null,\"choices\":null,"
              "\"help\":\"accept weights that are NaN or infinite\"}" OPTIONS_REPLACE_SCHEMA "]");
    CHECK_OK(peft_schema_json("model", text, sizeof text, NULL));
    CHECK(strstr(text, "\"default\":\"mmap\",\"min\":null,\"max\":null,\"choices\":[\"mmap\",\"copy\"]") != NULL);
    CHECK_OK(peft_schema_json("generate", text, sizeof text, NULL));
    CHECK(
        strstr(text, "\"key\":\"top_p\",\"type\":\"float\",\"default\":1.0,\"min\":0.0,\"max\":1.0,\"choices\":null") !=
        NULL);
    CHECK(strstr(text, "\"key\":\"stop\",\"type\":\"list\",\"default\":null,\"min\":null") != NULL);
    CHECK_STATUS(peft_schema_json("generat", text, sizeof text, NULL), PEFT_E_KEY);
    CHECK_STATUS(peft_schema_json(NULL, text, sizeof text, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_schema_json("load", NULL, 0, &needed), PEFT_E_BUFFER);
    CHECK(needed > 100);
    peft__mem *mem = runner_mem();
    for (size_t i = 0; peft_schema_name(i) != NULL; i++) { /* all of them are JSON */
        const peft__json *root = NULL;
        peft__arena a;
        peft__arena_init(&a, mem);
        CHECK_OK(peft_schema_json(peft_schema_name(i), text, sizeof text, &needed));
        CHECK_OK(peft__json_parse(&a, text, needed - 1, "schema", &root));
        CHECK_INT(root->kind, PEFT__JSON_ARRAY);
        peft__arena_free(&a);
    }
}
