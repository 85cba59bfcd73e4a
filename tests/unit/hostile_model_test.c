/* hostile_model_test.c - model folders that mean harm: config.json, model.safetensors, the index of shards. */
#include "hostile_tensors.h"

static peft_status model_opens(hostile *h) {
    peft_model *m = NULL;
    peft_status st = peft_model_open(h->ctx, h->dir, NULL, &m);
    peft_model_free(m);
    return st;
}

static peft_status model_folder(hostile *h, const char *config) {
    peft_status st = PEFT_OK;
    peft_model *m = NULL;
    peft_adapters *a = NULL;
    TRY(hostile_begin(h));
    TRY(api_model(h->ctx, config, &m));
    TRY(peft_adapters_create(m, &a));
    TRY(peft_adapters_merge(a, "", h->dir, NULL));
    h->open = model_opens;
out:
    peft_adapters_free(a);
    peft_model_free(m);
    return st;
}

static const char *const model_sizes[] = {"hidden_size",         "intermediate_size",   "num_hidden_layers", "num_attention_heads",
                                          "num_key_value_heads", "vocab_size",          "max_position_embeddings"};

TEST(hostile_model_config) {
    static const char *const bad[] = {"-1", "0", "1.5", "\"16\"", "[16]", "{}", "1e30", "2147483648", "99999999999999999999", "true"};
    static const char *const eps[] = {"\"x\"", "[]", "{}", "true"};
    static const char *const act[] = {"5", "\"swoosh\"", "[]", "{}", "\"\""};
    static const char *const type[] = {"5", "\"\"", "\"llama-9\"", "null", "[\"llama\"]"};
    hostile h;
    CHECK_OK(model_folder(&h, API_LLAMA));
    CHECK(hostile_take(&h, "config.json"));
    bool good = true;
    for (size_t i = 0; i < PEFT__COUNT(model_sizes); i++) { good = hostile_values(&h, model_sizes[i], bad, PEFT__COUNT(bad)) && good; }
    good = hostile_values(&h, "rms_norm_eps", eps, PEFT__COUNT(eps)) && good;
    size_t len = 0;
    const char *at = hostile_json_value(h.whole, "rms_norm_eps", &len);
    good = hostile_spliced(&h, (size_t)(at - h.whole), len, "-1", 2, "rms_norm_eps: -1", "epsilon") && good;
    good = hostile_values(&h, "hidden_act", act, PEFT__COUNT(act)) && good;
    good = hostile_values(&h, "model_type", type, PEFT__COUNT(type)) && good;
    good = hostile_broken_json(&h, 24) && good;
    CHECK(good);
    CHECK(hostile_as_it_was(&h));
    CHECK(h.cases >= 120);
    hostile_end(&h);
}

TEST(hostile_model_tensors) {
    hostile h;
    CHECK_OK(model_folder(&h, API_LLAMA));
    CHECK(hostile_take(&h, "model.safetensors"));
    bool good = hostile_safetensors(&h, 5);
    CHECK(good);
    CHECK(hostile_as_it_was(&h));
    CHECK(h.cases >= 150);
    hostile_end(&h);
}

/* An index leads to files beside it and nowhere else; a pickle is not even looked into. */
TEST(hostile_model_index) {
    static const char *const places[] = {"\"../model-1.safetensors\"", "\"/etc/passwd\"",   "\"sub/model-1.safetensors\"",
            "\"..\"", "\"\"",
                                         "\"C:\\\\x.safetensors\"",    "\"a\\\\b\"",        "5",                           "null",
                                         "[\"model-1.safetensors\"]", "\".\""};
    static const char *const maps[] = {"[]", "5", "null", "{}", "\"x\""};
    hostile h;
    char text[4096];
    CHECK_OK(model_folder(&h, API_LLAMA));
    CHECK(hostile_take(&h, "model.safetensors"));
    CHECK(hostile_write(runner_path(h.dir, "model-1.safetensors"), h.whole, h.len));
    size_t at = (size_t)snprintf(text, sizeof text, "{\"metadata\":{\"total_size\":1},\"weight_map\":{");
    for (const char *p = strstr(h.whole + 8, "\":{\"dtype\""); p != NULL; p = strstr(p + 1, "\":{\"dtype\"")) {
        const char *name = p - 1;
        while (*name != '"') { name--; }
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%.*s:\"model-1.safetensors\"", text[at - 1] == '{' ? "" : ",",
                               (int)(p + 1 - name), name);
    }
    at += (size_t)snprintf(text + at, sizeof text - at, "}}");
    CHECK(remove(h.path) == 0);
    CHECK(hostile_write(runner_path(h.dir, "model.safetensors.index.json"), text, at));
    CHECK(hostile_take(&h, "model.safetensors.index.json"));
    bool good = hostile_values(&h, "model.norm.weight", places, PEFT__COUNT(places));
    good = hostile_values(&h, "weight_map", maps, PEFT__COUNT(maps)) && good;
    good = hostile_broken_json(&h, 10) && good;
    CHECK(good);
    CHECK(hostile_as_it_was(&h));
    CHECK(remove(runner_path(h.dir, "model-1.safetensors")) == 0);
    CHECK_STATUS(h.open(&h), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("model-1.safetensors");
    CHECK(h.cases >= 38);
    hostile_end(&h);
}

/* Unusual, and right. */
TEST(hostile_model_unusual_files_are_taken) {
    static const char *const heads[] = {"  ", "\n\t", "\"nothing\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},"};
    hostile h;
    CHECK_OK(model_folder(&h, API_LLAMA));
    CHECK(hostile_take(&h, "config.json"));
    char text[2048];
    bool good = true;
    (void)snprintf(text, sizeof text, "\xef\xbb\xbf%s", h.whole);
    good = hostile_taken(&h, text, strlen(text), "a byte order mark") && good;
    size_t n = 0;
    for (size_t i = 0; i < h.len && n + 2 < sizeof text; i++) {
        if (h.whole[i] == '\n') { text[n++] = '\r'; }
        text[n++] = h.whole[i];
    }
    good = hostile_taken(&h, text, n, "CRLF") && good;
    (void)snprintf(text, sizeof text, "{\"unknown\":{\"deep\":[1,[2,{\"x\":null}]]},%s", strchr(h.whole, '{') + 1);
    good = hostile_taken(&h, text, strlen(text), "an unknown key") && good;
    CHECK(hostile_as_it_was(&h));
    CHECK(hostile_take(&h, "model.safetensors"));
    for (size_t i = 0; i < PEFT__COUNT(heads); i++) {
        size_t more = strlen(heads[i]);
        char *data = malloc(h.len + more);
        CHECK(data != NULL);
        memcpy(data, h.whole, 9);
        memcpy(data + 9, heads[i], more);
        memcpy(data + 9 + more, h.whole + 9, h.len - 9);
        peft__set_u64((uint8_t *)data, peft__get_u64((const uint8_t *)h.whole) + more);
        good = hostile_taken(&h, data, h.len + more, heads[i]) && good;
        free(data);
    }
    CHECK(good);
    CHECK(hostile_as_it_was(&h));
    hostile_end(&h);
}

/* Storage that can't be trusted: a model that was copied does not notice that its file is gone. */
TEST(hostile_file_shrinks_under_a_copied_model) {
    static const int32_t ids[4] = {1, 5, 9, 2};
    static const int64_t lens[1] = {4};
    hostile h;
    float before[4 * API_VOCAB], after[4 * API_VOCAB];
    peft_options *o = NULL;
    peft_model *m = NULL;
    peft_session *s = NULL;
    peft_batch *b = NULL;
    size_t n = 0;
    CHECK_OK(model_folder(&h, API_LLAMA));
    CHECK(hostile_take(&h, "model.safetensors"));
    CHECK_OK(api_options(h.ctx, "model", "{'load':'copy'}", &o));
    CHECK_OK(peft_model_open(h.ctx, h.dir, o, &m));
    CHECK_OK(api_batch(h.ctx, ids, lens, 1, &b));
    CHECK_OK(peft_session_create(m, NULL, NULL, NULL, &s));
    CHECK_OK(peft_session_logits(s, b, before, PEFT__COUNT(before), &n));
    CHECK_INT(n, PEFT__COUNT(before));
    peft_session_free(s);
    CHECK(hostile_write(h.path, "", 0)); /* the same file, not another in its place */
    CHECK(hostile_is_refusal(h.open(&h)));
    CHECK_OK(peft_session_create(m, NULL, NULL, NULL, &s));
    CHECK_OK(peft_session_logits(s, b, after, PEFT__COUNT(after), &n));
    CHECK_MEM(after, before, sizeof before);
    peft_session_free(s);
    peft_batch_free(b);
    peft_model_free(m);
    peft_options_free(o);
    hostile_end(&h);
}
