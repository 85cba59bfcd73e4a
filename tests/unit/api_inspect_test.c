/* api_inspect_test.c - what a path holds, by looking. */
#include "api_kit.h"

static peft_status inspect_into(peft_context *ctx, const char *path, char *text, size_t cap) {
    return peft_inspect_json(ctx, path, text, cap, NULL);
}

TEST(api_inspect_kinds) {
    api_host h = {0};
    peft_context *ctx = NULL;
    peft_model *m = NULL;
    peft_adapters *a = NULL;
    static char text[16384];
    size_t needed = 0;
    peft__mem *mem = runner_mem();
    const char *dir = runner_tmpdir(), *model = runner_path(dir, "model"), *gguf = runner_path(dir, "m.gguf");
    const char *adapter = runner_path(dir, "adapter"), *data = runner_path(dir, "rows.jsonl"), *words = runner_tmpdir();
    static const char rows[] = "{\"text\":\"a\"}\n\n{\"prompt\":\"a\",\"completion\":\"b\"}\r\n{\"messages\":[]}\n"
                               "{\"input_ids\":[1]}\n{\"input_ids\":[2]}\n{\"mr\":\"x\"}";
    CHECK_OK(api_context(&h, &ctx));
    CHECK_OK(api_model(ctx, API_LLAMA, &m));
    CHECK_OK(peft_adapters_create(m, &a));
    CHECK_OK(peft_adapters_add(a, "x", "lora", NULL, 1));
    CHECK_OK(peft_adapters_merge(a, NULL, model, NULL));
    CHECK_OK(peft_adapters_merge(a, NULL, gguf, NULL));
    CHECK_OK(peft_adapters_save(a, "x", adapter, NULL));
    CHECK_OK(inspect_into(ctx, model, text, sizeof text));
    CHECK(strstr(text, "\"kind\":\"model\",\"architecture\":\"llama\"") != NULL);
    CHECK_OK(inspect_into(ctx, gguf, text, sizeof text));
    CHECK(strstr(text, "\"kind\":\"model\",\"architecture\":\"llama\"") != NULL);
    CHECK_OK(inspect_into(ctx, adapter, text, sizeof text));
    CHECK(strstr(text, "\"kind\":\"adapter\"") != NULL);
    CHECK_OK(text_write(mem, words, "tokenizer.json", TEXT_BYTES));
    CHECK_OK(inspect_into(ctx, words, text, sizeof text));
    CHECK(strstr(text, "{\"kind\":\"tokenizer\",\"tokenizer\":{") != NULL && strstr(text, "\"size\":14") != NULL);
    CHECK_OK(peft__save_text(mem, data, rows, sizeof rows - 1));
    CHECK_OK(peft_inspect_json(ctx, data, text, sizeof text, &needed));
    char expected[256];
    (void)snprintf(expected, sizeof expected,
                   "{\"kind\":\"data\",\"rows\":6,\"bytes\":%zu,\"text\":1,\"prompt_completion\":1,"
                   "\"messages\":1,\"input_ids\":2,\"other\":1}",
                   sizeof rows - 1);
    CHECK_STR(text, expected);
    CHECK_INT(needed, strlen(expected) + 1);
    CHECK_STATUS(peft_inspect_json(ctx, data, text, needed - 1, NULL), PEFT_E_BUFFER);
    peft_adapters_free(a);
    peft_model_free(m);
    peft_context_free(ctx);
    CHECK_INT(h.now, 0);
}

TEST(api_inspect_names_the_path) {
    peft_context *ctx = NULL;
    char text[256];
    peft__mem *mem = runner_mem();
    const char *dir = runner_tmpdir(), *bad = runner_path(dir, "bad.gguf"), *rows = runner_path(dir, "rows.jsonl");
    CHECK_OK(peft_context_create(NULL, &ctx));
    CHECK_STATUS(inspect_into(ctx, "/no/such/path", text, sizeof text), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("/no/such/path");
    CHECK_STATUS(inspect_into(ctx, dir, text, sizeof text), PEFT_E_FORMAT);
    CHECK_ERROR_HAS(dir);
    CHECK_OK(peft__save_text(mem, bad, "no model", 8));
    CHECK_STATUS(inspect_into(ctx, bad, text, sizeof text), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("bad.gguf");
    CHECK_OK(peft__save_text(mem, bad, "GGUF", 4));
    CHECK(inspect_into(ctx, bad, text, sizeof text) != PEFT_OK);
    CHECK_ERROR_HAS("bad.gguf");
    CHECK_OK(peft__save_text(mem, rows, "{\"a\":1}\n[1]\n", 12));
    CHECK_STATUS(inspect_into(ctx, rows, text, sizeof text), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("rows.jsonl line 2");
    CHECK_OK(peft__save_text(mem, rows, "\n \n", 3));
    CHECK_STATUS(inspect_into(ctx, rows, text, sizeof text), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("rows.jsonl");
    CHECK_STATUS(peft_inspect_json(NULL, rows, text, sizeof text, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_inspect_json(ctx, NULL, text, sizeof text, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_inspect_json(ctx, rows, NULL, 5, NULL), PEFT_E_INVALID);
    peft_context_free(ctx);
}
