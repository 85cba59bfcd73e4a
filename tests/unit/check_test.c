/* check_test.c - peft_check_json: good files of every kind have no errors; each broken one has the error that names its culprit. */
#include "check_kit.h"

/* ---- models ------------------------------------------------------------------------------------------------------------------ */

static const struct {
    const char *from, *to;
    peft_status code;
    const char *where, *says;
} check_configs[] = {
    {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 0", PEFT_E_FORMAT, "num_hidden_layers", "is 0"},
    {"\"num_attention_heads\": 2", "\"num_attention_heads\": 5", PEFT_E_FORMAT, "config.json", "no multiple of 5 attention heads"},
    {"\"vocab_size\": 14", "\"vocab_size\": 15", PEFT_E_SHAPE, "model.embed_tokens.weight", "expected [15, 16]"},
    {"\"vocab_size\": 14", "\"vocab_size\": \"14\"", PEFT_E_FORMAT, "vocab_size", "expected an integer"},
    {"\"intermediate_size\": 24", "\"intermediate_size\": 25", PEFT_E_SHAPE, "mlp.gate_proj.weight", "expected [25, 16]"},
    {"\"silu\"", "\"nope\"", PEFT_E_UNSUPPORTED, "hidden_act", "is \\\"nope\\\""},
    {"\"vocab_size\"", "\"rope_theta\": -1, \"vocab_size\"", PEFT_E_FORMAT, "rope_theta", "not above 0"},
    {"\"vocab_size\"", "\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 0.5}, \"vocab_size\"", PEFT_E_FORMAT, "rope scaling",
     "factor is 0.5"},
    {"\"vocab_size\"", "\"rope_scaling\": {\"rope_type\": \"magic\"}, \"vocab_size\"", PEFT_E_UNSUPPORTED, "rope scaling", "magic"},
    {"\"vocab_size\"",
     "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 2, \"low_freq_factor\": 1, \"high_freq_factor\": 4, "
     "\"original_max_position_embeddings\": 4096}, \"vocab_size\"",
     PEFT_E_FORMAT, "rope scaling", "starts from 4096 positions, and the model has 48"},
    {"\"max_position_embeddings\": 48", "\"max_position_embeddings\": 0", PEFT_E_FORMAT, "max_position_embeddings", "is 0"},
    {"\"eos_token_id\": 12", "\"eos_token_id\": 99", PEFT_E_FORMAT, "eos_token_id", "99 is out of range"},
    {"\"model_type\": \"llama\"", "\"model_type\": \"llamma\"", PEFT_E_UNSUPPORTED, "model_type", "llamma"},
    {"\"model_type\": \"llama\"", "\"model_type\" \"llama\"", PEFT_E_FORMAT, "config.json", "line 2"},
    {"\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 2", PEFT_E_FORMAT, "config.json", "epsilon"},
};

TEST(check_models) {
    check_kit k;
    peft__mem *mem = runner_mem();
    CHECK_OK(check_begin(&k));
    const char *saved = runner_path(k.dir, "config.saved");
    CHECK_OK(check_run(k.ctx, k.model, NULL));
    CHECK(check_is_good("model"));
    CHECK(strstr(check_report, "\"forward\":true") != NULL && strstr(check_report, "\"tokenizer\":{\"kind\":\"byte-level-bpe\"") != NULL);
    CHECK_OK(check_run_with(k.ctx, k.model, NULL, "{'forward':false,'weights':false}"));
    CHECK(check_is_good("model"));
    CHECK(strstr(check_report, "\"tensors\":0,\"values\":0,\"rows\":0,\"tokens\":0,\"forward\":false") != NULL);
    CHECK_OK(check_run(k.ctx, k.gguf, NULL));
    CHECK(check_is_good("model"));
    CHECK(check_warns("m.gguf", "no tokenizer"));
    CHECK_OK(check_rewrite(k.config, saved, NULL, NULL, SIZE_MAX));
    for (size_t i = 0; i < PEFT__COUNT(check_configs); i++) {
        CHECK_OK(check_rewrite(saved, k.config, check_configs[i].from, check_configs[i].to, SIZE_MAX));
        CHECK_OK(check_run(k.ctx, k.model, NULL));
        CHECK(check_has(check_configs[i].code, check_configs[i].where, check_configs[i].says));
    }
    CHECK_OK(check_rewrite(saved, k.config, NULL, NULL, SIZE_MAX));
    CHECK_OK(text_write(mem, k.model, "generation_config.json", "{\"eos_token_id\":[1,14],\"pad_token_id\":\"x\"}"));
    CHECK_OK(check_run(k.ctx, k.model, NULL));
    CHECK(check_has(PEFT_E_FORMAT, "generation_config.json\",\"where\":\"key \\\"eos_token_id\\\"", "the id 14 is out of range"));
    CHECK(check_has(PEFT_E_FORMAT, "pad_token_id", "no id"));
    CHECK(strstr(check_report, "\"error_count\":2") != NULL);
    check_end(&k);
    CHECK_INT(k.host.now, 0);
}

TEST(check_model_values) {
    check_kit k;
    CHECK_OK(check_begin(&k));
    const char *whole = runner_path(k.dir, "whole");
    CHECK_OK(check_rewrite(k.weights, whole, NULL, NULL, SIZE_MAX));
    CHECK_OK(check_poke(whole, k.weights, "model.layers.1.mlp.up_proj.weight", 16 + 2, 2, NAN));
    CHECK_OK(check_run(k.ctx, k.model, NULL));
    CHECK(check_has(PEFT_E_NUMERIC, "model.layers.1.mlp.up_proj.weight", "2 NaN values of 384, the first at [1, 2]"));
    CHECK(check_has(PEFT_E_NUMERIC, "forward pass", "NaN or infinite"));
    CHECK_OK(check_poke(whole, k.weights, "model.norm.weight", 3, 1, INFINITY));
    CHECK_OK(check_run(k.ctx, k.model, NULL));
    CHECK(check_has(PEFT_E_NUMERIC, "model.norm.weight", "1 infinite value of 16, the first at [3]"));
    CHECK_OK(check_poke(whole, k.weights, "model.layers.0.self_attn.q_proj.weight", 0, 0, 0));
    CHECK_OK(check_run(k.ctx, k.model, NULL));
    CHECK(check_is_good("model"));
    CHECK(check_warns("model.layers.0.self_attn.q_proj.weight", "all of its 256 values are 0"));
    CHECK_OK(check_poke(k.gguf, k.gguf, "blk.1.attn_norm.weight", 5, 1, NAN));
    CHECK_OK(check_run(k.ctx, k.gguf, NULL));
    CHECK(check_has(PEFT_E_NUMERIC, "blk.1.attn_norm.weight", "1 NaN value of 16, the first at [5]"));
    check_end(&k);
    CHECK_INT(k.host.now, 0);
}

TEST(check_model_structure) {
    check_kit k;
    CHECK_OK(check_begin(&k));
    const char *whole = runner_path(k.dir, "whole");
    CHECK_OK(check_rewrite(k.weights, whole, NULL, NULL, SIZE_MAX));
    CHECK_OK(check_rewrite(whole, k.weights, "model.norm.weight", "model.nurm.weight", SIZE_MAX));
    CHECK_OK(check_run(k.ctx, k.model, NULL));
    CHECK(check_has(PEFT_E_NOT_FOUND, "model.norm.weight", "missing"));
    CHECK_OK(check_rewrite(whole, k.weights, NULL, NULL, 4000));
    CHECK_OK(check_run(k.ctx, k.model, NULL));
    CHECK(check_has(PEFT_E_FORMAT, "model.safetensors", "outside"));
    CHECK_OK(check_rewrite(whole, k.weights, "model.layers.1.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight", SIZE_MAX));
    CHECK_OK(check_run(k.ctx, k.model, NULL));
    CHECK(check_has(PEFT_E_FORMAT, "model.safetensors", "model.layers.0.mlp.up_proj.weight"));
    CHECK_OK(check_rewrite(k.gguf, k.gguf, NULL, NULL, 900));
    CHECK_OK(check_run(k.ctx, k.gguf, NULL));
    CHECK(check_has(PEFT_E_FORMAT, "m.gguf", "21 tensors are claimed"));
    check_end(&k);
    CHECK_INT(k.host.now, 0);
}

static const struct {
    const char *index;
    peft_status code;
    const char *says;
} check_shards[] = {
    {"{\"weight_map\":{\"model.norm.weight\":\"a.safetensors\",\"lm_head.weight\":\"b.safetensors\"}}", PEFT_E_EXISTS,
     "is in two of its files"},
    {"{\"weight_map\":{\"model.norm.weight\":\"a.safetensors\",\"nope\":\"a.safetensors\"}}", PEFT_E_NOT_FOUND,
     "\\\"nope\\\" is not in a.safetensors"},
    {"{\"weight_map\":{\"model.norm.weight\":\"../a.safetensors\"}}", PEFT_E_FORMAT, "no name of a file in the same folder"},
    {"{\"weight_map\":[]}", PEFT_E_FORMAT, "weight_map"},
};

TEST(check_model_shards) {
    check_kit k;
    peft__mem *mem = runner_mem();
    CHECK_OK(check_begin(&k));
    CHECK_OK(check_rewrite(k.weights, runner_path(k.model, "a.safetensors"), NULL, NULL, SIZE_MAX));
    CHECK_OK(check_rewrite(k.weights, runner_path(k.model, "b.safetensors"), NULL, NULL, SIZE_MAX));
    CHECK_INT(remove(k.weights), 0);
    for (size_t i = 0; i < PEFT__COUNT(check_shards); i++) {
        CHECK_OK(text_write(mem, k.model, "model.safetensors.index.json", check_shards[i].index));
        CHECK_OK(check_run(k.ctx, k.model, NULL));
        CHECK(check_has(check_shards[i].code, "model.safetensors.index.json", check_shards[i].says));
        peft_model *m = NULL; /* an open is as strict */
        CHECK_STATUS(peft_model_open(k.ctx, k.model, NULL, &m), check_shards[i].code);
    }
    CHECK_INT(remove(runner_path(k.model, "model.safetensors.index.json")), 0);
    CHECK_OK(check_run(k.ctx, k.model, NULL));
    CHECK(check_is_good("tokenizer"));
    CHECK_INT(remove(k.words), 0);
    CHECK_OK(check_run(k.ctx, k.model, NULL));
    CHECK(check_has(PEFT_E_NOT_FOUND, "model", "neither model.safetensors nor"));
    check_end(&k);
    CHECK_INT(k.host.now, 0);
}

/* ---- tokenizers -------------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *from, *to;
    peft_status code;
    const char *where, *says;
} check_words[] = {
    {"{\"id\":13", "{\"id\":15", PEFT_E_FORMAT, "token 13", "hole"},
    {"\"content\":\"<x>\"", "\"content\":\"ab\"", PEFT_E_EXISTS, "token 13", "\\\"ab\\\" is the text of token 8 already"},
    {"[\"a b\",", "[\"a z\",", PEFT_E_FORMAT, "tokenizer.json", "merge 0 \\\"a z\\\": its right part is not in the vocabulary"},
    {"[\"a b\",", "[\"a b\",\"a b\",", PEFT_E_EXISTS, "merge 1", "\\\"a b\\\" is merge 0 already"},
    {"\"b\":1", "\"b\":0", PEFT_E_FORMAT, "tokenizer.json", "id 0 is given to two tokens"},
    {"\"b\":1", "\"a\":1", PEFT_E_FORMAT, "tokenizer.json", "\\\"a\\\""},
    {"\"b\":1", "\"b\":900000000", PEFT_E_FORMAT, "tokenizer.json", "the id of \\\"b\\\""},
    {"\"b\":1", "\"b\":-1", PEFT_E_FORMAT, "tokenizer.json", "the id of \\\"b\\\""},
    {"\"type\":\"BPE\"", "\"type\":\"WordLevel\"", PEFT_E_UNSUPPORTED, "tokenizer.json", "WordLevel"},
    {"\"id\":12,\"content\":\"<|end|>\"", "\"id\":11,\"content\":\"<|end|>\"", PEFT_E_FORMAT, "tokenizer.json", "added token"},
};

TEST(check_tokenizers) {
    api_host h = {0};
    peft_context *ctx = NULL;
    peft_model *m = NULL;
    peft__mem *mem = runner_mem();
    const char *dir = runner_tmpdir(), *path = runner_path(dir, "tokenizer.json"), *good = runner_path(dir, "good");
    CHECK_OK(api_context(&h, &ctx));
    CHECK_OK(text_write(mem, dir, "good", TEXT_BYTES));
    CHECK_OK(text_write(mem, dir, "tokenizer.json", TEXT_BYTES));
    CHECK_OK(check_run(ctx, dir, NULL));
    CHECK(check_is_good("tokenizer"));
    CHECK(check_warns("tok", "bytes have no token"));
    CHECK_OK(check_run(ctx, path, NULL));
    CHECK(check_is_good("tokenizer"));
    for (size_t i = 0; i < PEFT__COUNT(check_words); i++) {
        CHECK_OK(check_rewrite(good, path, check_words[i].from, check_words[i].to, SIZE_MAX));
        CHECK_OK(check_run(ctx, dir, NULL));
        CHECK(check_has(check_words[i].code, check_words[i].where, check_words[i].says));
    }
    CHECK_OK(text_write(mem, dir, "tokenizer.json", TEXT_SPM));
    CHECK_OK(text_write(mem, dir, "tokenizer_config.json", "{\"pad_token\":\"<nope>\"}"));
    CHECK_OK(text_write(mem, dir, "generation_config.json", "{\"bos_token_id\":11}"));
    CHECK_OK(check_run(ctx, dir, NULL));
    CHECK(check_has(PEFT_E_FORMAT, "bos_token_id", "the id 11 is out of range: expected one below 11"));
    CHECK(check_warns("pad_token", "<nope>"));
    CHECK_OK(api_model(ctx, "{\"model_type\":\"llama\",\"hidden_size\":16,\"intermediate_size\":24,\"num_hidden_layers\":1,"
                            "\"num_attention_heads\":2,\"vocab_size\":9,\"max_position_embeddings\":48}", &m));
    CHECK_OK(check_run(ctx, dir, m));
    CHECK(check_has(PEFT_E_SHAPE, "tokenizer", "11 tokens, and the model's embedding 9 rows"));
    peft_model_free(m);
    peft_context_free(ctx);
    CHECK_INT(h.now, 0);
}

/* ---- data ---------------------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *rows;
    const char *where, *says;
} check_rows[] = {
    {"{\"input_ids\":[1,2]}\n{\"input_ids\":[1,-2]}\n", "line 2", "\\\"input_ids\\\"[1] is no token id"},
    {"{\"input_ids\":[1,2]}\n\n{\"input_ids\":3}\n", "line 3", "no array"},
    {"{\"input_ids\":[]}\n", "line 1", "empty"},
    {"{\"input_ids\":[1,2],\"labels\":[1]}\n", "line 1", "labels"},
    {"{\"text\":\"a\"}\n{\"text\":\"a\"\n", "line 2", "column"},
    {"{\"text\":\"a\"}\r\n[1]\n", "line 2", "no JSON object"},
    {"{\"text\":\"a\",\"text\":\"b\"}\n", "line 1", "text"},
    {"{\"text\":5}\n", "line 1", "\\\"text\\\" is no text"},
    {"{\"text\":\"\xFF\"}\n", "line 1", "UTF-8"},
    {"{\"text\":\"a\"}\n{\"txt\":\"a\"}\n", "line 2", "the row has no"},
    {"{\"prompt\":\"a\",\"completion\":7}\n", "line 1", "completion"},
    {"{\"messages\":[{\"role\":\"user\"}]}\n", "line 1", "content"},
    {"{\"messages\":\"hello\"}\n", "line 1", "messages"},
    {"{\"text\":\"a\",\"label\":\"x\"}\n{\"text\":\"a\",\"label\":1.5}\n", "line 2", "label"},
    {"{\"question\":\"q\",\"context\":\"abc\",\"answers\":{\"text\":[\"zz\"],\"answer_start\":[9]}}\n", "line 1", "answer"},
    {"{\"tokens\":[\"a\",\"b\"],\"labels\":[\"O\"]}\n", "line 1", "label"},
    {"{\"mr\":\"a\",\"refs\":[\"b\"]}\n{\"mr\":1,\"refs\":[\"b\"]}\n", "line 2", "key \\\"mr\\\" is a number, and in the first row a text"},
};

TEST(check_data) {
    api_host h = {0};
    peft_context *ctx = NULL;
    peft_model *m = NULL;
    peft__mem *mem = runner_mem();
    const char *dir = runner_tmpdir(), *path = runner_path(dir, "rows.jsonl");
    static const char *const good[] = {
        "\xEF\xBB\xBF{\"text\":\"a\"}\n\n{\"prompt\":\"a\",\"completion\":\"b\"}\r\n{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},"
        "{\"role\":\"assistant\",\"content\":\"y\"}]}\n{\"input_ids\":[1]}",
        "{\"text\":\"a\",\"label\":\"x\"}\n{\"text\":\"b\",\"label\":\"y\"}\n", "{\"tokens\":[\"a\",\"b\"],\"labels\":[\"O\",\"B\"]}\n",
        "{\"question\":\"q\",\"context\":\"abc\",\"answers\":{\"text\":[\"bc\"],\"answer_start\":[1]}}\n",
        "{\"anchor\":\"a\",\"positive\":\"b\"}\n", "{\"mr\":\"a\",\"refs\":[\"b\"]}\n{\"mr\":\"c\",\"refs\":[]}\n"};
    CHECK_OK(api_context(&h, &ctx));
    for (size_t i = 0; i < PEFT__COUNT(good); i++) {
        CHECK_OK(text_write(mem, dir, "rows.jsonl", good[i]));
        CHECK_OK(check_run(ctx, path, NULL));
        CHECK(check_is_good("data"));
    }
    CHECK(check_warns("rows.jsonl", "prompt_template"));
    CHECK_OK(check_run_with(ctx, path, NULL, "{'prompt_template':'{mr}','completion_template':'{refs.0}'}"));
    CHECK(check_has(PEFT_E_FORMAT, "line 2", "refs.0"));
    for (size_t i = 0; i < PEFT__COUNT(check_rows); i++) {
        CHECK_OK(text_write(mem, dir, "rows.jsonl", check_rows[i].rows));
        CHECK_OK(check_run(ctx, path, NULL));
        CHECK(check_has(PEFT_E_FORMAT, check_rows[i].where, check_rows[i].says));
        CHECK(strstr(check_report, "\"error_count\":1,") != NULL);
    }
    CHECK_OK(text_write(mem, dir, "rows.jsonl", "\n \n"));
    CHECK_OK(check_run(ctx, path, NULL));
    CHECK(check_has(PEFT_E_FORMAT, "rows.jsonl", "no row"));
    /* all errors, up to a limit; what a model knows */
    CHECK_OK(text_write(mem, dir, "rows.jsonl", "x\n{\"text\":1}\n{\"text\":2}\n{\"text\":\"good\"}\n{\"text\":3}\n"));
    CHECK_OK(check_run_with(ctx, path, NULL, "{'max_errors':2}"));
    CHECK(check_has(PEFT_E_FORMAT, "line 1", "expected a value") && check_has(PEFT_E_FORMAT, "line 2", "no text"));
    CHECK(strstr(check_report, "\"error_count\":4,") != NULL && strstr(check_report, "line 3") == NULL);
    CHECK(strstr(check_report, "\"rows\":1,") != NULL);
    CHECK_OK(api_model(ctx, API_LLAMA, &m));
    CHECK_OK(text_write(mem, dir, "rows.jsonl", "{\"input_ids\":[1,13]}\n{\"input_ids\":[2,14]}\n{\"input_ids\":[2]}\n"));
    CHECK_OK(check_run(ctx, path, m));
    CHECK(check_has(PEFT_E_SHAPE, "line 2", "token id 14 is beyond the model's vocabulary of 14"));
    CHECK(strstr(check_report, "\"error_count\":1,") != NULL);
    peft_model_free(m);
    peft_context_free(ctx);
    CHECK_INT(h.now, 0);
}

TEST(check_data_against_a_model) {
    check_kit k;
    peft_model *m = NULL;
    peft__str s;
    peft__mem *mem = runner_mem();
    CHECK_OK(check_begin(&k));
    peft__str_init(&s, mem);
    const char *path = runner_path(k.dir, "rows.jsonl");
    peft__str_puts(&s, "{\"text\":\"ab\"}\n{\"text\":\"");
    for (int i = 0; i < 60; i++) { peft__str_puts(&s, "1"); }
    peft__str_puts(&s, "\"}\n");
    CHECK_OK(peft__save_text(mem, path, s.data, s.len));
    peft__str_free(&s);
    CHECK_OK(peft_model_open(k.ctx, k.model, NULL, &m));
    CHECK_OK(check_run(k.ctx, path, m));
    CHECK(check_is_good("data"));
    CHECK(check_warns("rows.jsonl",
                      "1 rows are longer than the model's 48 positions and will be cut; the longest, in line 2, has 61 tokens"));
    peft_model_free(m);
    check_end(&k);
    CHECK_INT(k.host.now, 0);
}

/* ---- arguments ------------------------------------------------------------------------------------------------------------------ */

TEST(check_arguments) {
    peft_context *ctx = NULL;
    peft_options *o = NULL;
    size_t needed = 0;
    const char *dir = runner_tmpdir(), *rows = runner_path(dir, "rows.jsonl");
    peft__mem *mem = runner_mem();
    CHECK_OK(peft_context_create(NULL, &ctx));
    CHECK_STATUS(check_run(ctx, "/no/such/path", NULL), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("/no/such/path");
    CHECK_STATUS(check_run(ctx, dir, NULL), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("neither a model");
    CHECK_STATUS(check_run(NULL, dir, NULL), PEFT_E_INVALID);
    CHECK_STATUS(check_run(ctx, NULL, NULL), PEFT_E_INVALID);
    CHECK_STATUS(check_run(ctx, dir, (peft_model *)(void *)ctx), PEFT_E_INVALID);
    CHECK_ERROR_HAS("base is a context");
    CHECK_OK(peft_options_create(ctx, "load", &o));
    CHECK_STATUS(peft_check_json(ctx, dir, NULL, o, NULL, 0, NULL), PEFT_E_INVALID);
    CHECK_ERROR_HAS("schema \"check\"");
    peft_options_free(o);
    CHECK_OK(text_write(mem, dir, "rows.jsonl", "{\"text\":\"a\"}\n"));
    CHECK_STATUS(peft_check_json(ctx, rows, NULL, NULL, NULL, 0, &needed), PEFT_E_BUFFER);
    CHECK_OK(check_run(ctx, rows, NULL));
    CHECK_INT(needed, strlen(check_report) + 1);
    peft_context_free(ctx);
}
