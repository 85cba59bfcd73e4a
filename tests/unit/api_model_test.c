/* api_model_test.c - peft_model and peft_tokenizer through the public functions. */
#include "api_kit.h"

TEST(api_model_random_and_its_texts) {
    api_host h = {0};
    peft_context *ctx = NULL;
    peft_model *m = NULL;
    char text[8192];
    size_t needed = 0;
    CHECK_OK(api_context(&h, &ctx));
    CHECK_OK(api_model(ctx, API_LLAMA, &m));
    CHECK_STR(peft_model_arch(m), "llama");
    CHECK_OK(peft_model_config_json(m, text, sizeof text, &needed));
    CHECK_INT(needed, strlen(text) + 1);
    CHECK(strstr(text, "\"hidden_size\"") != NULL);
    CHECK_OK(peft_model_info_json(m, text, sizeof text, &needed));
    CHECK(strstr(text, "\"kind\":\"model\"") != NULL);
    CHECK(strstr(text, "\"path\":\"model.layers.1.self_attn.q_proj\"") != NULL);
    CHECK_STATUS(peft_model_info_json(m, text, needed - 1, NULL), PEFT_E_BUFFER);
    peft_context_free(ctx); /* the model keeps it */
    CHECK_STR(peft_model_arch(m), "llama");
    peft_model_free(m);
    CHECK_INT(h.now, 0);
}

TEST(api_model_tensors) {
    peft_context *ctx = NULL;
    peft_model *m = NULL;
    const char *name = NULL;
    int32_t dtype = -1, ndim = 0;
    int64_t dims[8] = {0};
    float values[API_VOCAB * API_HIDDEN];
    size_t needed = 0;
    CHECK_OK(peft_context_create(NULL, &ctx));
    CHECK_OK(api_model(ctx, API_LLAMA, &m));
    CHECK_INT(peft_model_tensor_count(m), 3 + 2 * 9);
    CHECK_OK(peft_model_tensor_info(m, 0, &name, &dtype, &ndim, dims));
    CHECK_STR(name, "model.embed_tokens.weight");
    CHECK_INT(dtype, PEFT_DTYPE_F32);
    CHECK_INT(ndim, 2);
    CHECK_INT(dims[0], API_VOCAB);
    CHECK_INT(dims[1], API_HIDDEN);
    CHECK_OK(peft_model_tensor_info(m, 0, NULL, NULL, NULL, NULL));
    CHECK_STATUS(peft_model_tensor_info(m, 21, &name, NULL, NULL, NULL), PEFT_E_NOT_FOUND);
    CHECK_STATUS(peft_model_tensor_read(m, name, NULL, 0, &needed), PEFT_E_BUFFER);
    CHECK_INT(needed, PEFT__COUNT(values));
    CHECK_STATUS(peft_model_tensor_read(m, name, values, needed - 1, NULL), PEFT_E_BUFFER);
    CHECK_OK(peft_model_tensor_read(m, name, values, needed, NULL));
    CHECK(values[0] != 0 && fabsf(values[0]) < 0.2F);
    CHECK_OK(peft_model_tensor_read(m, "model.norm.weight", values, needed, &needed));
    CHECK_INT(needed, API_HIDDEN);
    CHECK_NEAR(values[3], 1, 0);
    CHECK_STATUS(peft_model_tensor_read(m, "model.norm.weigth", values, needed, NULL), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("did you mean \"model.norm.weight\"");
    CHECK_STATUS(peft_model_tensor_read(m, "x", values, needed, NULL), PEFT_E_NOT_FOUND);
    peft_model_free(m);
    peft_context_free(ctx);
}

TEST(api_model_arguments) {
    peft_context *ctx = NULL;
    peft_model *m = NULL;
    char text[8];
    CHECK_OK(peft_context_create(NULL, &ctx));
    CHECK_STATUS(peft_model_open(NULL, "x", NULL, &m), PEFT_E_INVALID);
    CHECK_STATUS(peft_model_open(ctx, NULL, NULL, &m), PEFT_E_INVALID);
    CHECK_ERROR_HAS("path is NULL");
    CHECK_STATUS(peft_model_open(ctx, "x", NULL, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_model_open(ctx, "/no/such/model", NULL, &m), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("/no/such/model");
    CHECK_STATUS(peft_model_open(ctx, "bad\xFF", NULL, &m), PEFT_E_INVALID);
    CHECK_ERROR_HAS("UTF-8");
    CHECK_STATUS(peft_model_create_random(ctx, "{", 1, 0, &m), PEFT_E_FORMAT);
    CHECK_STATUS(peft_model_create_random(ctx, NULL, 1, 0, &m), PEFT_E_INVALID);
    CHECK(m == NULL);
    CHECK_STATUS(peft_model_info_json(NULL, text, sizeof text, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_model_config_json(NULL, text, sizeof text, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_model_tensor_info(NULL, 0, NULL, NULL, NULL, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_model_tensor_read(NULL, "x", NULL, 0, NULL), PEFT_E_INVALID);
    CHECK(peft_model_arch(NULL) == NULL);
    CHECK(peft_model_arch((peft_model *)(void *)ctx) == NULL);
    CHECK_INT(peft_model_tensor_count(NULL), 0);
    peft_model_free(NULL);
    peft_context_free(ctx);
}

TEST(api_tokenizer_both_ways) {
    api_host h = {0};
    peft_context *ctx = NULL;
    peft_tokenizer *t = NULL;
    int32_t ids[16];
    char text[64];
    size_t needed = 0;
    CHECK_OK(api_context(&h, &ctx));
    CHECK_OK(api_tokenizer(ctx, TEXT_BYTES, &t));
    peft_context_free(ctx);
    CHECK_INT(peft_tokenizer_size(t), 14);
    CHECK_INT(peft_tokenizer_eos_id(t), 12);
    CHECK_INT(peft_tokenizer_bos_id(t), -1);
    CHECK_INT(peft_tokenizer_token_id(t, "abc"), 9);
    CHECK_INT(peft_tokenizer_token_id(t, "zzz"), -1);
    CHECK_OK(peft_tokenizer_encode(t, "abc ab", 6, 0, ids, 16, &needed));
    CHECK_INT(needed, 2);
    CHECK_INT(ids[0], 9);
    CHECK_INT(ids[1], 11);
    CHECK_STATUS(peft_tokenizer_encode(t, "abc ab", 6, 0, ids, 1, &needed), PEFT_E_BUFFER);
    CHECK_INT(needed, 2);
    CHECK_OK(peft_tokenizer_encode(t, NULL, 0, 0, NULL, 0, &needed));
    CHECK_INT(needed, 0);
    CHECK_OK(peft_tokenizer_decode(t, ids, 2, 0, text, sizeof text, &needed));
    CHECK_INT(needed, 6);
    CHECK_MEM(text, "abc ab", 6);
    CHECK_STATUS(peft_tokenizer_decode(t, ids, 2, 0, text, 5, &needed), PEFT_E_BUFFER);
    ids[0] = 99;
    CHECK_STATUS(peft_tokenizer_decode(t, ids, 1, 0, text, 5, &needed), PEFT_E_INVALID);
    CHECK_ERROR_HAS("99");
    CHECK_OK(peft_tokenizer_info_json(t, text, 0, &needed) == PEFT_E_BUFFER ? PEFT_OK : PEFT_E_INTERNAL);
    CHECK(needed > 20);
    peft_tokenizer_free(t);
    CHECK_INT(h.now, 0);
}

TEST(api_tokenizer_chat) {
    peft_context *ctx = NULL;
    peft_tokenizer *t = NULL;
    char text[256];
    const char *dir = runner_tmpdir();
    peft__mem *mem = runner_mem();
    CHECK_OK(peft_context_create(NULL, &ctx));
    CHECK_OK(api_tokenizer(ctx, TEXT_BYTES, &t));
    static const char one[] = "[{\"role\":\"user\",\"content\":\"a\"}]";
    CHECK_STATUS(peft_tokenizer_chat(t, one, sizeof one - 1, 1, text, sizeof text, NULL), PEFT_E_UNSUPPORTED);
    CHECK_STATUS(peft_tokenizer_chat(t, "{}", 2, 1, text, sizeof text, NULL), PEFT_E_FORMAT);
    CHECK_STATUS(peft_tokenizer_chat(t, "[{\"role\":\"user\"}]", 17, 1, text, sizeof text, NULL), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("message 0");
    peft_tokenizer_free(t);
    CHECK_OK(text_write(mem, dir, "tokenizer.json", TEXT_BYTES));
    CHECK_OK(
        text_write(mem, dir, "tokenizer_config.json",
                   "{\"chat_template\":\"{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "
                   "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}\"}"));
    CHECK_OK(peft_tokenizer_open(ctx, dir, &t));
    CHECK_OK(peft_tokenizer_chat(t, one, sizeof one - 1, 1, text, sizeof text, NULL));
    CHECK_STR(text, "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n");
    peft_tokenizer_free(t);
    peft_context_free(ctx);
}

TEST(api_tokenizer_arguments) {
    peft_context *ctx = NULL;
    peft_tokenizer *t = NULL;
    CHECK_OK(peft_context_create(NULL, &ctx));
    const char *empty = runner_tmpdir();
    CHECK_STATUS(peft_tokenizer_open(ctx, empty, &t), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS(empty);
    CHECK_STATUS(peft_tokenizer_open(ctx, "/no/such", &t), PEFT_E_NOT_FOUND);
    CHECK_STATUS(peft_tokenizer_open(ctx, NULL, &t), PEFT_E_INVALID);
    CHECK_STATUS(peft_tokenizer_open(NULL, "x", &t), PEFT_E_INVALID);
    CHECK_STATUS(peft_tokenizer_open(ctx, "x", NULL), PEFT_E_INVALID);
    CHECK(t == NULL);
    CHECK_STATUS(peft_tokenizer_encode(NULL, "a", 1, 0, NULL, 0, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_tokenizer_decode(NULL, NULL, 0, 0, NULL, 0, NULL), PEFT_E_INVALID);
    CHECK_OK(api_tokenizer(ctx, TEXT_BYTES, &t));
    CHECK_STATUS(peft_tokenizer_encode(t, "a", 1, 8, NULL, 0, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_tokenizer_encode(t, NULL, 1, 0, NULL, 0, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_tokenizer_encode(t, "a", 1, 0, NULL, 4, NULL), PEFT_E_INVALID);
    CHECK_INT(peft_tokenizer_size(NULL), 0);
    CHECK_INT(peft_tokenizer_eos_id(NULL), -1);
    CHECK_INT(peft_tokenizer_bos_id(NULL), -1);
    CHECK_INT(peft_tokenizer_token_id(NULL, "a"), -1);
    CHECK_INT(peft_tokenizer_token_id(t, NULL), -1);
    peft_tokenizer_free(NULL);
    peft_tokenizer_free(t);
    peft_context_free(ctx);
}
