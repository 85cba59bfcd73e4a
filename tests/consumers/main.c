/* main.c - the smallest program of others: the library that runs is the one compiled against, and it works. C and C++. */
#include <peft.h>
#include <stdio.h>
#include <string.h>

int main(void) {
    static const char config[] =
        "{\"model_type\":\"llama\",\"hidden_size\":16,\"intermediate_size\":32,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
        "\"num_key_value_heads\":1,\"vocab_size\":32,\"max_position_embeddings\":32}";
    peft_context *ctx = NULL;
    peft_model *model = NULL;
    const uint32_t header = PEFT_VERSION_MAJOR << 16 | PEFT_VERSION_MINOR << 8 | PEFT_VERSION_PATCH;
    int ok = peft_version() == header && peft_context_create(NULL, &ctx) == PEFT_OK &&
             peft_model_create_random(ctx, config, strlen(config), 1, &model) == PEFT_OK && peft_model_tensor_count(model) > 8;
    printf("libpeft %s: %s\n", peft_version_string(), ok ? "works" : peft_last_error());
    peft_model_free(model);
    peft_context_free(ctx);
    return !ok;
}
