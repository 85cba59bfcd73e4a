/* model_config_test.c - configs as architectures write them: they read as the same model, with every key that is not as usual; and what
 * says part of a config from elsewhere: ModernBERT's rope_parameters, generation_config.json of encoder-decoder models. */
#include <stdio.h>

#include "api_kit.h"
#include "model/parts.h"
#include "model_kit.h"

#define CONFIG_SIZES "\"hidden_size\":16,\"num_hidden_layers\":3,\"num_attention_heads\":2,\"vocab_size\":14"
#define CONFIG(type, rest) "{\"model_type\":\"" type "\"," CONFIG_SIZES rest "}"
#define CONFIG_BERT(type, class, rest)                                  \
    CONFIG(type, ",\"architectures\":[\"" class "ForMaskedLM\"],\"intermediate_size\":24,\"max_position_embeddings\":16" rest)
#define CONFIG_DISTIL(rest) "{\"model_type\":\"distilbert\",\"architectures\":[\"DistilBertForMaskedLM\"],\"vocab_size\":14,\"dim\":16," \
                            "\"n_layers\":2,\"n_heads\":2,\"hidden_dim\":24" rest "}"
#define CONFIG_BART(rest) "{\"model_type\":\"bart\",\"vocab_size\":14,\"d_model\":16,\"encoder_layers\":2,\"decoder_layers\":3,"     \
                          "\"encoder_attention_heads\":2,\"decoder_attention_heads\":4,\"encoder_ffn_dim\":20,"                     \
                          "\"decoder_ffn_dim\":24,\"max_position_embeddings\":40" rest "}"
#define CONFIG_T5(rest) "{\"model_type\":\"t5\",\"vocab_size\":14,\"d_model\":16,\"d_kv\":6,\"d_ff\":20,\"num_layers\":2," \
                        "\"num_heads\":2" rest "}"

static const struct {
    const char *config;
    const char *says[5]; /* in what is written */
} config_cases[] = {
    {CONFIG_BERT("bert", "Bert", ",\"hidden_act\":\"gelu_new\",\"type_vocab_size\":3,\"layer_norm_eps\":1e-6"),
     {"\"hidden_act\": \"gelu_new\"", "\"type_vocab_size\": 3", "\"layer_norm_eps\": 1e-06", "\"max_position_embeddings\": 16"}},
    {CONFIG_BERT("roberta", "Roberta", ",\"type_vocab_size\":1,\"pad_token_id\":2"), {"\"pad_token_id\": 2", "\"type_vocab_size\": 1"}},
    {CONFIG_DISTIL(",\"activation\":\"relu\",\"max_position_embeddings\":20"),
     {"\"dim\": 16", "\"n_layers\": 2", "\"n_heads\": 2", "\"activation\": \"relu\"", "\"max_position_embeddings\": 20"}},
    {CONFIG_BERT("modernbert", "ModernBert", ",\"global_attn_every_n_layers\":2,\"local_attention\":6,\"local_rope_theta\":500,"
                 "\"global_rope_theta\":900"),
     {"\"global_attn_every_n_layers\": 2", "\"local_attention\": 6", "\"local_rope_theta\": 500", "\"global_rope_theta\": 900"}},
    {CONFIG_BERT("modernbert", "ModernBert",
                 ",\"layer_types\":[\"sliding_attention\",\"full_attention\",\"full_attention\"],\"norm_bias\":true,"
                 "\"attention_bias\":true,\"mlp_bias\":true,\"norm_eps\":1e-6,\"hidden_activation\":\"silu\""),
     {"\"sliding_attention\",\n    \"full_attention\",\n    \"full_attention\"", "\"norm_bias\": true", "\"attention_bias\": true",
      "\"mlp_bias\": true", "\"hidden_activation\": \"silu\""}},
    {CONFIG_BERT("modernbert", "ModernBert", ",\"classifier_pooling\":\"mean\",\"classifier_activation\":\"relu\",\"classifier_bias\":true,"
                 "\"decoder_bias\":false,\"tie_word_embeddings\":false"),
     {"\"classifier_pooling\": \"mean\"", "\"classifier_activation\": \"relu\"", "\"classifier_bias\": true", "\"decoder_bias\": false",
      "\"tie_word_embeddings\": false"}},
    {CONFIG("opt", ",\"ffn_dim\":48,\"max_position_embeddings\":16,\"do_layer_norm_before\":false,\"word_embed_proj_dim\":8,"
            "\"activation_function\":\"gelu\""),
     {"\"ffn_dim\": 48", "\"do_layer_norm_before\": false", "\"word_embed_proj_dim\": 8", "\"activation_function\": \"gelu\""}},
    {CONFIG_BART(",\"scale_embedding\":true,\"activation_function\":\"relu\",\"forced_eos_token_id\":3,\"decoder_start_token_id\":5"),
     {"\"scale_embedding\": true", "\"activation_function\": \"relu\"", "\"forced_eos_token_id\": 3", "\"decoder_start_token_id\": 5",
      "\"decoder_layers\": 3"}},
    {CONFIG_T5(",\"feed_forward_proj\":\"gated-gelu\",\"tie_word_embeddings\":false,\"num_decoder_layers\":3,"
               "\"relative_attention_num_buckets\":8,\"relative_attention_max_distance\":20"),
     {"\"feed_forward_proj\": \"gated-gelu\"", "\"num_decoder_layers\": 3", "\"relative_attention_num_buckets\": 8",
      "\"relative_attention_max_distance\": 20", "\"tie_word_embeddings\": false"}},
    {CONFIG("gpt_neox", ",\"intermediate_size\":24,\"use_parallel_residual\":false,\"rotary_pct\":0.5"),
     {"\"use_parallel_residual\": false", "\"rotary_pct\": 0.5"}},
    {API_GPT2, {"\"n_embd\": 16", "\"n_positions\": 48", "\"eos_token_id\": 12"}},
};

/* What the model's architecture writes of its config. */
static peft_status config_text(const struct peft_model *m, peft__str *out) {
    size_t type = 0;
    while (m->arch->model_types[type] != NULL && strcmp(m->arch->model_types[type], m->model_type) != 0) { type++; }
    return peft__config_text(m->arch, type, &m->config, out);
}

TEST(model_configs_are_written_as_they_are_read) {
    for (size_t i = 0; i < PEFT__COUNT(config_cases); i++) {
        api_host h = {0};
        peft_context *ctx = NULL;
        peft_model *m = NULL, *n = NULL;
        peft__str first, again;
        CHECK_OK(api_context(&h, &ctx));
        peft__str_init(&first, &ctx->mem);
        peft__str_init(&again, &ctx->mem);
        CHECK_OK(api_model(ctx, config_cases[i].config, &m));
        CHECK_OK(config_text(m, &first));
        for (size_t k = 0; k < 5 && config_cases[i].says[k] != NULL; k++) {
            bool said = strstr(peft__str_c(&first), config_cases[i].says[k]) != NULL;
            if (!said) { printf("  %s in\n%s", config_cases[i].says[k], peft__str_c(&first)); }
            CHECK(said);
        }
        CHECK_OK(api_model(ctx, peft__str_c(&first), &n));
        CHECK_OK(config_text(n, &again));
        CHECK_STR(peft__str_c(&again), peft__str_c(&first));
        CHECK_INT(n->n_tensors, m->n_tensors);
        for (size_t t = 0; t < m->n_tensors; t++) {
            CHECK_STR(n->tensors[t].w.name, m->tensors[t].w.name);
            CHECK_INT(n->tensors[t].w.rows, m->tensors[t].w.rows);
            CHECK_INT(n->tensors[t].w.cols, m->tensors[t].w.cols);
        }
        peft__str_free(&first);
        peft__str_free(&again);
        peft_model_free(m);
        peft_model_free(n);
        peft_context_free(ctx);
        CHECK_INT(h.now, 0);
    }
}

/* ---- ModernBERT's bases of rotary positions ----------------------------------------------------------------------------- */

TEST(model_modernbert_rope_parameters) {
#define CONFIG_ROPE(rest) CONFIG_BERT("modernbert", "ModernBert", rest)
#define CONFIG_ROPES(full, sliding) CONFIG_ROPE(",\"rope_parameters\":{\"full_attention\":{" full "},\"sliding_attention\":{" sliding "}}")
    static const struct {
        const char *config;
        double full, sliding;
        peft_status st;
        const char *says;
    } cases[] = {
        {CONFIG_ROPE(""), 160000, 10000, PEFT_OK, NULL},
        {CONFIG_ROPE(",\"global_rope_theta\":90,\"local_rope_theta\":80"), 90, 80, PEFT_OK, NULL},
        {CONFIG_ROPE(",\"global_rope_theta\":90,\"local_rope_theta\":null"), 90, 90, PEFT_OK, NULL},
        {CONFIG_ROPES("\"rope_theta\":70", "\"rope_theta\":60,\"rope_type\":\"default\""), 70, 60, PEFT_OK, NULL},
        {CONFIG_ROPES("", "\"rope_theta\":60"), 160000, 60, PEFT_OK, NULL},
        {CONFIG_ROPE(",\"rope_scaling\":null,\"rope_parameters\":{}"), 160000, 10000, PEFT_OK, NULL},
        {CONFIG_ROPES("\"rope_theta\":70,\"rope_type\":\"linear\"", ""), 0, 0, PEFT_E_UNSUPPORTED,
         "\"full_attention\" has the rope scaling \"linear\", only default is supported"},
        {CONFIG_ROPES("", "\"rope_type\":\"yarn\""), 0, 0, PEFT_E_UNSUPPORTED, "\"sliding_attention\" has the rope scaling \"yarn\""},
        {CONFIG_ROPES("\"rope_theta\":0", ""), 0, 0, PEFT_E_FORMAT, "key \"global_rope_theta\" is not above 0"},
        {CONFIG_ROPES("\"rope_theta\":\"x\"", ""), 0, 0, PEFT_E_FORMAT, "key \"rope_theta\" is \"x\""},
        {CONFIG_ROPES("\"rope_type\":7", ""), 0, 0, PEFT_E_FORMAT, "key \"rope_type\" is 7"},
        {CONFIG_ROPE(",\"local_rope_theta\":\"x\""), 0, 0, PEFT_E_FORMAT, "key \"local_rope_theta\" is \"x\""},
        {CONFIG_ROPE(",\"local_attention\":1"), 0, 0, PEFT_E_FORMAT, "key \"local_attention\" is 1"},
        {CONFIG_ROPE(",\"global_attn_every_n_layers\":0"), 0, 0, PEFT_E_FORMAT, "key \"global_attn_every_n_layers\" is 0"},
        {CONFIG_ROPE(",\"classifier_bias\":3"), 0, 0, PEFT_E_FORMAT, "key \"classifier_bias\" is 3"},
        {CONFIG_ROPE(",\"classifier_activation\":\"mish\""), 0, 0, PEFT_E_UNSUPPORTED, "key \"classifier_activation\" is \"mish\""},
    };
    peft_context *ctx = NULL;
    CHECK_OK(peft_context_create(NULL, &ctx));
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        peft_model *m = NULL;
        CHECK_STATUS(api_model(ctx, cases[i].config, &m), cases[i].st);
        if (cases[i].st != PEFT_OK) {
            CHECK_ERROR_HAS(cases[i].says);
            continue;
        }
        CHECK_NEAR(m->config.rope_theta, cases[i].full, 0);
        CHECK_NEAR(m->config.rope_local_theta, cases[i].sliding, 0);
        peft_model_free(m);
    }
    peft_context_free(ctx);
}

/* ---- generation_config.json --------------------------------------------------------------------------------------------- */

TEST(model_generation_config_says_how_a_decoder_begins) {
    static const struct {
        const char *text;
        int32_t start, bos, eos;
        peft_status st;
        const char *says;
    } cases[] = {
        {NULL, 5, -1, 3, PEFT_OK, NULL}, /* config.json alone */
        {"{}", 5, -1, -1, PEFT_OK, NULL},
        {"{\"decoder_start_token_id\":7,\"forced_bos_token_id\":1,\"forced_eos_token_id\":2}", 7, 1, 2, PEFT_OK, NULL},
        {"{\"forced_bos_token_id\":null,\"forced_eos_token_id\":13}", 5, -1, 13, PEFT_OK, NULL},
        {"[]", 0, 0, 0, PEFT_E_FORMAT, "no object"},
        {"{", 0, 0, 0, PEFT_E_FORMAT, "generation_config.json"},
        {"{\"decoder_start_token_id\":null}", 0, 0, 0, PEFT_E_FORMAT, "key \"decoder_start_token_id\" is null"},
        {"{\"decoder_start_token_id\":14}", 0, 0, 0, PEFT_E_FORMAT,
         "key \"decoder_start_token_id\" is 14, and the vocabulary has 14 tokens"},
        {"{\"forced_bos_token_id\":15}", 0, 0, 0, PEFT_E_FORMAT, "key \"forced_bos_token_id\" is 15, and"},
        {"{\"forced_eos_token_id\":16}", 0, 0, 0, PEFT_E_FORMAT, "key \"forced_eos_token_id\" is 16, and"},
        {"{\"forced_eos_token_id\":\"2\"}", 0, 0, 0, PEFT_E_FORMAT, "key \"forced_eos_token_id\" is \"2\""},
        {"{\"forced_bos_token_id\":[1]}", 0, 0, 0, PEFT_E_FORMAT, "key \"forced_bos_token_id\""},
        {"{\"decoder_start_token_id\":-2}", 0, 0, 0, PEFT_E_FORMAT, "key \"decoder_start_token_id\" is -2"},
    };
    peft_context *ctx = NULL;
    peft_model *m = NULL;
    const char *dir = runner_path(runner_tmpdir(), "model");
    CHECK_OK(peft_context_create(NULL, &ctx));
    CHECK_OK(api_model(ctx, CONFIG_BART(",\"forced_eos_token_id\":3,\"decoder_start_token_id\":5"), &m));
    CHECK_OK(peft__model_write_hf(m, NULL, -1, dir));
    peft_model_free(m);
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        if (cases[i].text != NULL) { CHECK_OK(text_write(&ctx->mem, dir, "generation_config.json", cases[i].text)); }
        CHECK_STATUS(peft_model_open(ctx, dir, NULL, &m), cases[i].st);
        if (cases[i].st != PEFT_OK) {
            CHECK_ERROR_HAS("generation_config.json");
            CHECK_ERROR_HAS(cases[i].says);
            continue;
        }
        CHECK_INT(m->config.decoder_start_id, cases[i].start);
        CHECK_INT(m->config.forced_bos_id, cases[i].bos);
        CHECK_INT(m->config.forced_eos_id, cases[i].eos);
        peft_model_free(m);
    }
    peft_context_free(ctx);
}
