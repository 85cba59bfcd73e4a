/* model_gguf_test.c - GGUF files with one thing wrong, and those that carry what converters do differently. */
#include "model_kit.h"

static const char *const ggufs_config =
    "{\"model_type\":\"llama\",\"hidden_size\":8,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
    "\"intermediate_size\":8,\"vocab_size\":6}";

static void ggufs_adapter(peft__gguf_out *w) { peft__gguf_put_text(w, "general.type", "adapter", 7); }
static void ggufs_other(peft__gguf_out *w) { peft__gguf_put_text(w, "general.architecture", "rwkv", 4); }
static void ggufs_heads(peft__gguf_out *w) { peft__gguf_put_u32(w, "llama.attention.head_count", 3); }
static void ggufs_vocab(peft__gguf_out *w) { peft__gguf_put_u32(w, "llama.vocab_size", 7); }
static void ggufs_text(peft__gguf_out *w) { peft__gguf_put_text(w, "llama.block_count", "1", 1); }
static void ggufs_scaling(peft__gguf_out *w) { peft__gguf_put_text(w, "llama.rope.scaling.type", "ntk", 3); }
static void ggufs_experts(peft__gguf_out *w) { peft__gguf_put_u32(w, "llama.expert_count", 8); }
static void ggufs_split(peft__gguf_out *w) { peft__gguf_put_u32(w, "split.count", 2); }
static void ggufs_rotary(peft__gguf_out *w) { peft__gguf_put_u32(w, "llama.rope.dimension_count", 2); }
static void ggufs_tokens(peft__gguf_out *w) {
    peft__gguf_begin_str_array(w, "tokenizer.ggml.tokens", 2);
    peft__gguf_array_str(w, "a", 1);
    peft__gguf_array_str(w, "b", 1);
}

TEST(model_gguf_errors_name_key_or_tensor) {
    static const struct {
        kit_edit edit;
        peft_status code;
        const char *part;
    } cases[] = {
        {{"general.type", NULL, ggufs_adapter}, PEFT_E_FORMAT, "\"adapter\""},
        {{"general.architecture", NULL, ggufs_other}, PEFT_E_UNSUPPORTED, "\"rwkv\" is not supported, expected one of"},
        {{"general.architecture", NULL, NULL}, PEFT_E_FORMAT, "general.architecture"},
        {{"llama.attention.head_count", NULL, ggufs_heads}, PEFT_E_FORMAT, "3 attention heads"},
        {{"llama.vocab_size", NULL, ggufs_vocab}, PEFT_E_SHAPE, "\"llama.vocab_size\" is 7"},
        {{"llama.block_count", NULL, ggufs_text}, PEFT_E_FORMAT, "\"llama.block_count\" has type string"},
        {{"llama.embedding_length", NULL, NULL}, PEFT_E_FORMAT, "\"llama.embedding_length\" is missing"},
        {{NULL, NULL, ggufs_scaling}, PEFT_E_UNSUPPORTED, "llama.rope.scaling.type"},
        {{NULL, NULL, ggufs_experts}, PEFT_E_UNSUPPORTED, "llama.expert_count"},
        {{NULL, NULL, ggufs_split}, PEFT_E_UNSUPPORTED, "split.count"},
        {{"llama.rope.dimension_count", NULL, ggufs_rotary}, PEFT_E_UNSUPPORTED, "\"llama.rope.dimension_count\" is 2"},
        {{NULL, NULL, ggufs_tokens}, PEFT_E_SHAPE, "2 tokens"},
        {{NULL, "blk.0.ffn_up.weight", NULL}, PEFT_E_NOT_FOUND, "\"blk.0.ffn_up.weight\" is missing"},
        {{NULL, "token_embd.weight", NULL}, PEFT_E_NOT_FOUND, "token_embd.weight"},
    };
    peft_context ctx;
    struct peft_model *m = NULL;
    const char *dir = runner_tmpdir(), *good = runner_path(dir, "good.gguf"), *bad = runner_path(dir, "bad.gguf");
    kit_context(&ctx);
    CHECK_OK(peft__model_random(&ctx, ggufs_config, strlen(ggufs_config), 1, 0, &m));
    CHECK_OK(peft__model_write_gguf(m, NULL, -1, NULL, good));
    peft__model_release(m);
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        m = NULL;
        CHECK_OK(kit_rewrite(&ctx, good, bad, &cases[i].edit));
        CHECK_STATUS(peft__model_open(&ctx, bad, false, NULL, &m), cases[i].code);
        CHECK_ERROR_HAS(cases[i].part);
        CHECK_ERROR_HAS("bad.gguf");
    }
    CHECK(!peft__model_probe(bad)); /* the last one has no embedding */
    CHECK(peft__model_probe(good));
    CHECK_INT(kit_outstanding(&ctx), 0);
}

TEST(model_gguf_without_output_is_tied) {
    static const kit_edit edit = {NULL, "output.weight", NULL};
    peft_context ctx;
    struct peft_model *m = NULL;
    const char *dir = runner_tmpdir(), *good = runner_path(dir, "good.gguf"), *tied = runner_path(dir, "tied.gguf");
    kit_context(&ctx);
    CHECK_OK(peft__model_random(&ctx, ggufs_config, strlen(ggufs_config), 1, 0, &m));
    CHECK_OK(peft__model_write_gguf(m, NULL, -1, NULL, good));
    peft__model_release(m);
    CHECK_OK(kit_rewrite(&ctx, good, tied, &edit));
    CHECK_OK(peft__model_open(&ctx, tied, false, NULL, &m));
    CHECK(m->config.tie_embeddings);
    CHECK_INT(peft__model_site(m, "lm_head")->tied_to, 0);
    CHECK(strstr(m->config_json, "\"tie_word_embeddings\": true") != NULL);
    peft__model_release(m);
    CHECK_OK(peft__model_open(&ctx, good, false, NULL, &m));
    CHECK_INT(peft__model_site(m, "lm_head")->tied_to, -1);
    peft__model_release(m);
    CHECK_INT(kit_outstanding(&ctx), 0);
}
