/* model_families_test.c - every family after Llama and GPT-2 in its forms: a random model is the same as a folder and as a GGUF file,
 * or the refusal of a GGUF says why; and configs that are wrong, by the key that is. */
#include <math.h>
#include <stdio.h>

#include "model_kit.h"

static const int32_t family_ids[7] = {3, 17, 0, 39, 5, 21, 3};
enum { FAMILY_VOCAB = 40, FAMILY_TOKENS = 7, FAMILY_LOGITS = FAMILY_TOKENS * FAMILY_VOCAB };

#define SIZES "\"hidden_size\":32,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"vocab_size\":40"
#define FAMILY(type, rest) "{\"model_type\":\"" type "\"," SIZES rest "}"
#define GROUPED(type, rest) FAMILY(type, ",\"num_key_value_heads\":2,\"intermediate_size\":48" rest)
#define GEMMA(type, rest) GROUPED(type, ",\"head_dim\":16,\"query_pre_attn_scalar\":16,\"sliding_window\":3" rest)

typedef struct family_case {
    const char *config;
    const char *refused;         /* part of what writing a GGUF says; NULL: it is written */
} family_case;

static const family_case family_cases[] = {
    {GROUPED("qwen2", ""), NULL},
    {GROUPED("qwen2", ",\"tie_word_embeddings\":true,\"use_sliding_window\":true,\"sliding_window\":3,\"max_window_layers\":1"),
     "windows for qwen2"},
    {GROUPED("qwen3", ",\"head_dim\":16"), NULL},
    {GROUPED("qwen3", ",\"head_dim\":16,\"attention_bias\":true"), "biases for qwen3"},
    {GEMMA("gemma2", ""), NULL},
    {GEMMA("gemma2", ",\"attn_logit_softcapping\":null,\"layer_types\":[\"full_attention\",\"sliding_attention\"]"), "GGUF"},
    {GEMMA("gemma3_text", ""), NULL},
    {GEMMA("gemma3_text", ",\"final_logit_softcapping\":2,\"layer_types\":[\"full_attention\",\"sliding_attention\"]"), "GGUF"},
    {GROUPED("phi3", ""), NULL},
    {GROUPED("phi3", ",\"partial_rotary_factor\":0.5,\"sliding_window\":3,\"tie_word_embeddings\":true"), NULL},
    {GROUPED("phi3", ",\"original_max_position_embeddings\":4,\"max_position_embeddings\":64,\"rope_scaling\":{\"type\":\"longrope\","
                     "\"short_factor\":[1,1.5,2,3],\"long_factor\":[1,2,4,8]}"), NULL},
    {GROUPED("olmo2", ""), NULL},
    {GROUPED("olmo2", ",\"attention_bias\":true"), "biases for olmo2"},
    {FAMILY("gpt_neox", ",\"intermediate_size\":48"), NULL},
    {FAMILY("gpt_neox", ",\"intermediate_size\":48,\"use_parallel_residual\":false,\"rotary_pct\":1.0"), NULL},
    {FAMILY("gpt_neox", ",\"intermediate_size\":48,\"attention_bias\":false"), "gptneox models without biases"},
    {GROUPED("stablelm", ""), NULL},
    {GROUPED("stablelm", ",\"use_qkv_bias\":true,\"partial_rotary_factor\":0.5,\"tie_word_embeddings\":true"), NULL},
    {GROUPED("stablelm", ",\"hidden_act\":\"gelu\""), "stablelm"},
    {FAMILY("opt", ",\"ffn_dim\":48,\"max_position_embeddings\":16"), "opt"},
    {FAMILY("opt", ",\"ffn_dim\":48,\"max_position_embeddings\":16,\"do_layer_norm_before\":false,\"word_embed_proj_dim\":24"), "opt"},
    {GROUPED("llama", ",\"max_position_embeddings\":4,\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":2.0}"), "dynamic"},
    {GROUPED("llama", ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":64}"), NULL},
};

/* The file at `path` is the model m: the same architecture, tensors and logits. */
static void family_same(peft_context *ctx, const struct peft_model *m, const char *path, const float *logits, bool exact) {
    static float again[FAMILY_LOGITS], x[64 * 96], y[64 * 96];
    struct peft_model *n = NULL;
    CHECK_OK(peft__model_open(ctx, path, false, NULL, &n));
    CHECK_STR(n->model_type, m->model_type);
    CHECK_INT(n->n_tensors, m->n_tensors);
    CHECK_INT(n->n_sites, m->n_sites);
    CHECK_INT(n->parameters, m->parameters);
    for (size_t i = 0; i < m->n_tensors; i++) {
        const peft__model_tensor *t = &m->tensors[i];
        const peft__model_tensor *u = peft__model_find(n, t->w.name);
        CHECK(u != NULL && t->w.rows * t->w.cols <= 64 * 96);
        CHECK_INT(u->dims[0], t->dims[0]);
        peft__model_read(m, i, x);
        peft__model_read(n, (size_t)(u - n->tensors), y);
        for (int64_t k = 0; k < t->w.rows * t->w.cols; k++) { CHECK_NEAR(y[k], x[k], exact ? 0 : 1e-6); } /* 1 + w as float */
    }
    CHECK_OK(kit_forward(n, family_ids, FAMILY_TOKENS, again, NULL));
    for (int32_t i = 0; i < FAMILY_LOGITS; i++) { CHECK_NEAR(again[i], logits[i], exact ? 0 : 1e-5); }
    peft__model_release(n);
}

static void family_round(const family_case *c) {
    static float logits[FAMILY_LOGITS];
    peft_context ctx;
    struct peft_model *m = NULL, *n = NULL;
    const char *dir = runner_tmpdir();
    const char *folder = runner_path(dir, "hf"), *gguf = runner_path(dir, "m.gguf"), *back = runner_path(dir, "back");
    double most = 0;
    kit_context(&ctx);
    CHECK_OK(peft__model_random(&ctx, c->config, strlen(c->config), 11, 0.1, &m));
    CHECK_OK(kit_forward(m, family_ids, FAMILY_TOKENS, logits, NULL));
    for (int32_t i = 0; i < FAMILY_LOGITS; i++) { CHECK(isfinite(logits[i])); }
    for (int32_t i = 0; i < FAMILY_VOCAB; i++) { /* positions and the tokens before matter: the last token is the first one too */
        most = fmax(most, fabs((double)logits[i] - (double)logits[(FAMILY_TOKENS - 1) * FAMILY_VOCAB + i]));
    }
    CHECK(most > 1e-5);
    CHECK_OK(peft__model_write_hf(m, NULL, -1, folder));
    family_same(&ctx, m, folder, logits, true);
    if (c->refused != NULL) {
        CHECK_STATUS(peft__model_write_gguf(m, NULL, -1, NULL, gguf), PEFT_E_UNSUPPORTED);
        CHECK_ERROR_HAS(c->refused);
        CHECK(fopen(gguf, "rb") == NULL);
    } else {
        bool exact = strstr(c->config, "gemma") == NULL;
        CHECK_OK(peft__model_write_gguf(m, NULL, -1, NULL, gguf));
        family_same(&ctx, m, gguf, logits, exact);
        CHECK_OK(peft__model_open(&ctx, gguf, false, NULL, &n));
        CHECK_OK(peft__model_write_hf(n, NULL, -1, back));
        peft__model_release(n);
        family_same(&ctx, m, back, logits, exact);
    }
    peft__model_release(m);
    CHECK_INT(kit_outstanding(&ctx), 0);
}

TEST(model_families_are_the_same_in_every_format) {
    for (size_t i = 0; i < PEFT__COUNT(family_cases); i++) { family_round(&family_cases[i]); }
}

/* Calls a tensor of a GGUF file otherwise, by a name as long. */
static void family_rename(const char *path, const char *from, const char *to) {
    static char bytes[1 << 14]; /* names come first */
    FILE *f = fopen(path, "r+b");
    CHECK(f != NULL);
    size_t n = fread(bytes, 1, sizeof bytes, f), at = 0, len = strlen(from);
    while (at + len <= n && memcmp(bytes + at, from, len) != 0) { at++; }
    CHECK(at + len <= n && strlen(to) == len);
    CHECK_INT(fseek(f, (long)at, SEEK_SET), 0);
    CHECK_INT(fwrite(to, 1, len, f), len);
    CHECK_INT(fclose(f), 0);
}

static void family_parallel(peft__gguf_out *w) { peft__gguf_put_bool(w, "stablelm.use_parallel_residual", true); }

/* What a StableLM file is, its tensors say and not its key. llama.cpp wants a head in it, tied or not. */
TEST(model_stablelm_gguf_is_what_its_tensors_say) {
    static const char config[] = GROUPED("stablelm", ",\"tie_word_embeddings\":true");
    static const kit_edit as_if = {"stablelm.use_parallel_residual", NULL, family_parallel}, foreign = {"peft.tied_head", NULL, NULL},
                          tied = {"peft.tied_head", "output.weight", NULL}, parallel = {NULL, "blk.0.ffn_norm.weight", NULL};
    static float logits[FAMILY_LOGITS];
    peft_context ctx;
    struct peft_model *m = NULL, *n = NULL;
    const char *dir = runner_tmpdir(), *good = runner_path(dir, "m.gguf"), *other = runner_path(dir, "other.gguf");
    kit_context(&ctx);
    CHECK_OK(peft__model_random(&ctx, config, strlen(config), 11, 0.1, &m));
    CHECK_OK(kit_forward(m, family_ids, FAMILY_TOKENS, logits, NULL));
    CHECK_OK(peft__model_write_gguf(m, NULL, -1, NULL, good));
    CHECK_OK(kit_rewrite(&ctx, good, other, &as_if));
    family_same(&ctx, m, other, logits, true);
    CHECK_OK(kit_rewrite(&ctx, good, other, &tied));
    family_same(&ctx, m, other, logits, true);
    CHECK_OK(kit_rewrite(&ctx, good, other, &foreign)); /* a head of its own that is the table */
    CHECK_OK(peft__model_open(&ctx, other, false, NULL, &n));
    CHECK_INT(n->n_tensors, m->n_tensors + 1);
    peft__model_release(n);
    n = NULL;
    CHECK_OK(kit_rewrite(&ctx, good, other, &parallel));
    CHECK_STATUS(peft__model_open(&ctx, other, false, NULL, &n), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("blk.0.ffn_norm.weight");
    family_rename(good, "blk.0.attn_output.weight", "blk.0.attn_q_norm.weight");
    CHECK_STATUS(peft__model_open(&ctx, good, false, NULL, &n), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("blk.0.attn_q_norm.weight");
    CHECK(n == NULL);
    peft__model_release(m);
    CHECK_INT(kit_outstanding(&ctx), 0);
}

/* The same positions, said in two ways. *//* The same positions, said in two ways. */
TEST(model_gemma3_rope_parameters) {
    static const char *const configs[] = {
        GEMMA("gemma3_text", ",\"rope_theta\":5000,\"rope_local_base_freq\":300,\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":8}"),
        GEMMA("gemma3_text", ",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"linear\",\"factor\":8,\"rope_theta\":5000},"
                             "\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":300}}"),
    };
    peft_context ctx;
    peft__config c[2];
    kit_context(&ctx);
    for (size_t i = 0; i < PEFT__COUNT(configs); i++) {
        struct peft_model *m = NULL;
        CHECK_OK(peft__model_random(&ctx, configs[i], strlen(configs[i]), 1, 0, &m));
        c[i] = m->config;
        peft__model_release(m);
    }
    CHECK_NEAR(c[0].rope_theta, 5000, 0);
    CHECK_NEAR(c[1].rope_theta, 5000, 0);
    CHECK_NEAR(c[0].rope_local_theta, 300, 0);
    CHECK_NEAR(c[1].rope_local_theta, 300, 0);
    CHECK_INT(c[1].rope_scaling, PEFT__ROPE_LINEAR);
    CHECK_NEAR(c[1].rope_factor, 8, 0);
}

/* ---- configs that are wrong ---------------------------------------------------------------------------------------------- */

TEST(model_families_config_errors_name_the_key) {
    static const struct {
        const char *config;
        peft_status code;
        const char *part;
    } cases[] = {
#define QWEN(rest) GROUPED("qwen3", ",\"head_dim\":16" rest)
#define MISSING(type, have, key) {"{\"model_type\":\"" type "\"" have "}", PEFT_E_FORMAT, "key \"" key "\" is missing"}
        MISSING("qwen2", "", "hidden_size"),
        MISSING("qwen3", ",\"hidden_size\":32", "num_hidden_layers"),
        MISSING("gemma2", ",\"hidden_size\":32,\"num_hidden_layers\":2", "num_attention_heads"),
        MISSING("gemma3_text", "," SIZES, "intermediate_size"),
        MISSING("phi3", ",\"hidden_size\":32,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"intermediate_size\":8", "vocab_size"),
        MISSING("olmo2", ",\"num_hidden_layers\":2", "hidden_size"),
        MISSING("gpt_neox", "," SIZES, "intermediate_size"),
        MISSING("stablelm", "," SIZES, "intermediate_size"),
        MISSING("opt", ",\"hidden_size\":32,\"num_hidden_layers\":2,\"num_attention_heads\":4", "vocab_size"),
        {QWEN(",\"max_position_embeddings\":\"many\""), PEFT_E_FORMAT, "\"max_position_embeddings\" is \"many\""},
        {QWEN(",\"rms_norm_eps\":[]"), PEFT_E_FORMAT, "\"rms_norm_eps\""},
        {QWEN(",\"attention_bias\":1"), PEFT_E_FORMAT, "\"attention_bias\""},
        {QWEN(",\"hidden_act\":\"mish\""), PEFT_E_UNSUPPORTED, "\"hidden_act\" is \"mish\""},
        {QWEN(",\"layer_types\":[\"full_attention\"]"), PEFT_E_FORMAT, "\"layer_types\" is no list of 2"},
        {QWEN(",\"layer_types\":[\"full_attention\",\"linear_attention\"]"), PEFT_E_UNSUPPORTED, "entry 1 of \"layer_types\""},
        {QWEN(",\"use_sliding_window\":true,\"sliding_window\":0"), PEFT_E_FORMAT, "\"sliding_window\" is 0"},
        {QWEN(",\"rope_scaling\":{\"rope_type\":\"spiral\"}"), PEFT_E_UNSUPPORTED, "\"spiral\""},
        {QWEN(",\"rope_scaling\":{\"rope_type\":\"yarn\"}"), PEFT_E_FORMAT, "\"factor\""},
        {QWEN(",\"num_key_value_heads\":3"), PEFT_E_FORMAT, "num_key_value_heads"},
        {FAMILY("qwen2", ",\"num_key_value_heads\":3,\"intermediate_size\":8"), PEFT_E_FORMAT, "4 attention heads are no multiple of 3"},
        {GEMMA("gemma2", ",\"hidden_activation\":\"mish\""), PEFT_E_UNSUPPORTED, "\"hidden_activation\""},
        {GEMMA("gemma2", ",\"final_logit_softcapping\":\"high\""), PEFT_E_FORMAT, "\"final_logit_softcapping\""},
        {GROUPED("gemma2", ",\"query_pre_attn_scalar\":0"), PEFT_E_FORMAT, "\"query_pre_attn_scalar\""},
        {GEMMA("gemma3_text", ",\"rope_local_base_freq\":-1"), PEFT_E_FORMAT, "\"rope_local_base_freq\""},
        {GEMMA("gemma3_text", ",\"rope_parameters\":{\"sliding_attention\":{\"rope_type\":\"yarn\"}}"), PEFT_E_UNSUPPORTED, "\"yarn\""},
        {QWEN(",\"rope_parameters\":{\"full_attention\":{}}"), PEFT_E_UNSUPPORTED, "\"rope_parameters\""},
        {GEMMA("gemma3_text", ",\"use_bidirectional_attention\":true"), PEFT_E_UNSUPPORTED, "\"use_bidirectional_attention\""},
        {GROUPED("phi3", ",\"partial_rotary_factor\":1.5"), PEFT_E_FORMAT, "\"partial_rotary_factor\""},
        {GROUPED("phi3", ",\"partial_rotary_factor\":0.01"), PEFT_E_FORMAT, "\"partial_rotary_factor\""},
        {GROUPED("phi3", ",\"partial_rotary_factor\":0.4"), PEFT_E_FORMAT, "3 columns of a head"},
        {GROUPED("phi3", ",\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,1,1],\"long_factor\":[1,1,1,1]}"),
         PEFT_E_FORMAT, "\"short_factor\" of the rope scaling is no list of 4"},
        {GROUPED("phi3", ",\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,1,1,1],\"long_factor\":[1,0,1,1]}"),
         PEFT_E_FORMAT, "\"long_factor\""},
        {GROUPED("phi3", ",\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,1,1,1],\"long_factor\":[1,1,1,1]}"),
         PEFT_E_FORMAT, "\"original_max_position_embeddings\""},
        {FAMILY("gpt_neox", ",\"intermediate_size\":8,\"num_key_value_heads\":2"), PEFT_E_UNSUPPORTED, "\"num_key_value_heads\" is 2"},
        {"{\"model_type\":\"gpt_neox\",\"hidden_size\":30,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"vocab_size\":40,"
         "\"intermediate_size\":8}", PEFT_E_FORMAT, "hidden_size 30 is no multiple of 4"},
        {GROUPED("stablelm", ",\"qk_layernorm\":true"), PEFT_E_UNSUPPORTED, "\"qk_layernorm\" is true"},
        {GROUPED("stablelm", ",\"use_parallel_residual\":true"), PEFT_E_UNSUPPORTED, "\"use_parallel_residual\" is true"},
        {GROUPED("stablelm", ",\"use_qkv_bias\":1"), PEFT_E_FORMAT, "\"use_qkv_bias\""},
        {GROUPED("stablelm", ",\"head_dim\":16"), PEFT_E_UNSUPPORTED, "\"head_dim\" is 16"},
        {GROUPED("stablelm", ",\"partial_rotary_factor\":0"), PEFT_E_FORMAT, "\"partial_rotary_factor\""},
        {FAMILY("opt", ",\"activation_function\":\"mish\""), PEFT_E_UNSUPPORTED, "\"activation_function\""},
        {FAMILY("opt", ",\"enable_bias\":false"), PEFT_E_UNSUPPORTED, "\"enable_bias\""},
        {FAMILY("opt", ",\"word_embed_proj_dim\":\"x\""), PEFT_E_FORMAT, "\"word_embed_proj_dim\""},
#undef MISSING
#undef QWEN
    };
    peft_context ctx;
    kit_context(&ctx);
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        struct peft_model *m = NULL;
        CHECK_STATUS(peft__model_random(&ctx, cases[i].config, strlen(cases[i].config), 1, 0, &m), cases[i].code);
        CHECK_ERROR_HAS(cases[i].part);
        CHECK_ERROR_HAS("config.json");
        CHECK(m == NULL);
    }
    CHECK_INT(kit_outstanding(&ctx), 0);
}
