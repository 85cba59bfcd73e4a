/* model_write_test.c - merged models: which tensors change, in which type, untied heads, tokenizers beside, sweeps. */
#include "model_kit.h"

static const char *const write_llama =
    "{\"model_type\":\"llama\",\"hidden_size\":32,\"num_hidden_layers\":1,\"num_attention_heads\":4,"
    "\"num_key_value_heads\":2,\"intermediate_size\":48,\"vocab_size\":10,\"tie_word_embeddings\":true,"
    "\"torch_dtype\":\"float32\",\"attention_bias\":true}";
static const char *const write_gpt2 =
    "{\"model_type\":\"gpt2\",\"n_embd\":32,\"n_layer\":1,\"n_head\":2,\"n_positions\":4,\"vocab_size\":6}";

/* Every changed tensor is the base's doubled. */
typedef struct write_double {
    const struct peft_model *m;
    const char *only; /* part of the names that change */
    bool head;
} write_double;

static bool write_changed(void *user, size_t index) {
    const write_double *d = user;
    return strstr(d->m->tensors[index].w.name, d->only) != NULL;
}

static peft_status write_value(void *user, size_t index, float *out) {
    const write_double *d = user;
    const peft__weight *w = &d->m->tensors[index].w;
    peft__model_read(d->m, index, out);
    for (int64_t i = 0; i < w->rows * w->cols; i++) { out[i] *= 2; }
    return PEFT_OK;
}

static bool write_head(void *user) { return ((const write_double *)user)->head; }

static bool write_equal(const struct peft_model *a, const char *name, const struct peft_model *b, const char *other,
                        float times) {
    static float x[64 * 64], y[64 * 64];
    int64_t i = peft__map_get(&a->index, name, strlen(name)), k = peft__map_get(&b->index, other, strlen(other));
    if (i < 0 || k < 0) { return false; }
    int64_t n = a->tensors[i].w.rows * a->tensors[i].w.cols;
    if (n != b->tensors[k].w.rows * b->tensors[k].w.cols) { return false; }
    peft__model_read(a, (size_t)i, x);
    peft__model_read(b, (size_t)k, y);
    for (int64_t e = 0; e < n; e++) {
        if (y[e] < x[e] * times || y[e] > x[e] * times) { return false; }
    }
    return true;
}

/* Changes tensors whose name has `only` in it, in both formats, from a base in either. */
static void write_changes(const char *config, const char *only, const char *name, const char *same) {
    peft_context ctx;
    struct peft_model *base = NULL, *n = NULL;
    const char *dir = runner_tmpdir();
    const char *from[2] = {runner_path(dir, "base"), runner_path(dir, "base.gguf")};
    const char *to[2] = {runner_path(dir, "out"), runner_path(dir, "out.gguf")};
    kit_context(&ctx);
    CHECK_OK(peft__model_random(&ctx, config, strlen(config), 3, 0.1, &base));
    CHECK_OK(peft__model_write_hf(base, NULL, -1, from[0]));
    CHECK_OK(peft__model_write_gguf(base, NULL, -1, NULL, from[1]));
    peft__model_release(base);
    for (int32_t k = 0; k < 4; k++) {
        write_double d = {NULL, only, false};
        peft__model_change c = {&d, write_changed, write_value, false, write_head, 0};
        CHECK_OK(peft__model_open(&ctx, from[k / 2], false, NULL, &base));
        d.m = base;
        if (k % 2 == 0) {
            CHECK_OK(peft__model_write_hf(base, &c, -1, to[0]));
        } else {
            CHECK_OK(peft__model_write_gguf(base, &c, -1, NULL, to[1]));
        }
        CHECK_OK(peft__model_open(&ctx, to[k % 2], false, NULL, &n));
        CHECK(write_equal(base, name, n, name, 2));
        CHECK(write_equal(base, same, n, same, 1));
        peft__model_release(n);
        peft__model_release(base);
    }
    CHECK_INT(kit_outstanding(&ctx), 0);
}

TEST(model_write_changes_q) {
    write_changes(write_llama, "q_proj.weight", "model.layers.0.self_attn.q_proj.weight",
                  "model.layers.0.self_attn.k_proj.weight");
}
TEST(model_write_changes_q_bias) {
    write_changes(write_llama, "q_proj.bias", "model.layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.q_proj.weight");
}
TEST(model_write_changes_conv1d) {
    write_changes(write_gpt2, "c_attn.weight", "transformer.h.0.attn.c_attn.weight", "transformer.h.0.mlp.c_fc.weight");
}
TEST(model_write_changes_norm) { write_changes(write_gpt2, "ln_1.weight", "transformer.h.0.ln_1.weight", "transformer.wpe.weight"); }

TEST(model_write_unties) {
    static const char *const embed = "model.embed_tokens.weight";
    peft_context ctx;
    struct peft_model *base = NULL, *n = NULL;
    const char *dir = runner_tmpdir();
    const char *to[2] = {runner_path(dir, "out"), runner_path(dir, "out.gguf")};
    kit_context(&ctx);
    CHECK_OK(peft__model_random(&ctx, write_llama, strlen(write_llama), 3, 0.1, &base));
    for (int32_t head = 0; head < 2; head++) {
        write_double d = {base, embed, head != 0};
        peft__model_change c = {&d, write_changed, write_value, true, write_head, 0};
        CHECK_OK(peft__model_write_hf(base, &c, -1, to[0]));
        CHECK_OK(peft__model_write_gguf(base, &c, -1, NULL, to[1]));
        for (int32_t k = 0; k < 2; k++) {
            CHECK_OK(peft__model_open(&ctx, to[k], false, NULL, &n));
            CHECK(!n->config.tie_embeddings);
            CHECK(write_equal(base, embed, n, embed, head ? 1 : 2));
            CHECK(write_equal(base, embed, n, "lm_head.weight", head ? 2 : 1));
            peft__model_release(n);
        }
    }
    peft__model_release(base);
    CHECK_INT(kit_outstanding(&ctx), 0);
}

TEST(model_write_types) {
    peft_context ctx;
    struct peft_model *base = NULL, *n = NULL;
    const char *dir = runner_tmpdir(), *hf = runner_path(dir, "hf"), *gguf = runner_path(dir, "m.gguf");
    int64_t type = -1;
    kit_context(&ctx);
    CHECK_OK(peft__model_random(&ctx, write_llama, strlen(write_llama), 3, 0.1, &base));
    CHECK_STATUS(peft__model_write_hf(base, NULL, PEFT_DTYPE_Q8_0, hf), PEFT_E_UNSUPPORTED);
    CHECK_STATUS(peft__model_write_gguf(base, NULL, PEFT_DTYPE_Q6_K, NULL, gguf), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("Q6_K");
    CHECK_OK(peft__model_write_hf(base, NULL, PEFT_DTYPE_BF16, hf));
    CHECK_OK(peft__model_open(&ctx, hf, false, NULL, &n));
    CHECK_INT(peft__model_find(n, "model.norm.weight")->w.dtype, PEFT_DTYPE_BF16);
    CHECK(strstr(n->config_json, "\"torch_dtype\": \"bfloat16\"") != NULL);
    peft__model_release(n);
    CHECK_OK(peft__model_write_gguf(base, NULL, PEFT_DTYPE_Q8_0, NULL, gguf));
    peft__model_release(base);
    CHECK_OK(peft__model_open(&ctx, gguf, false, NULL, &base));
    CHECK_INT(peft__model_find(base, "model.layers.0.self_attn.q_proj.weight")->w.dtype, PEFT_DTYPE_Q8_0);
    CHECK_INT(peft__model_find(base, "model.layers.0.mlp.down_proj.weight")->w.dtype, PEFT_DTYPE_F32); /* rows of 48 */
    CHECK_INT(peft__model_find(base, "model.norm.weight")->w.dtype, PEFT_DTYPE_F32);
    CHECK_OK(peft__gguf_int(base->gguf, "general.file_type", -1, -1, 99, &type));
    CHECK_INT(type, 7);
    CHECK_OK(peft__gguf_int(base->gguf, "general.quantization_version", -1, -1, 99, &type));
    CHECK_INT(type, 2);
    /* from quantised to a folder: F32; the same numbers */
    CHECK_OK(peft__model_write_hf(base, NULL, -1, hf));
    CHECK_OK(peft__model_open(&ctx, hf, false, NULL, &n));
    CHECK_INT(peft__model_find(n, "model.layers.0.self_attn.q_proj.weight")->w.dtype, PEFT_DTYPE_F32);
    CHECK(write_equal(base, "model.layers.0.self_attn.q_proj.weight", n, "model.layers.0.self_attn.q_proj.weight", 1));
    peft__model_release(n);
    peft__model_release(base);
    CHECK_INT(kit_outstanding(&ctx), 0);
}

TEST(model_write_takes_the_tokenizer_along) {
    peft_context ctx;
    struct peft_model *m = NULL;
    peft__file f;
    const char *dir = runner_tmpdir(), *from = runner_path(dir, "from"), *to = runner_path(dir, "to");
    kit_context(&ctx);
    CHECK_OK(peft__model_random(&ctx, write_llama, strlen(write_llama), 3, 0.1, &m));
    CHECK_OK(peft__model_write_hf(m, NULL, -1, from));
    peft__model_release(m);
    CHECK_OK(kit_save(&ctx, from, "tokenizer.json", "{\"a\":1}"));
    CHECK_OK(kit_save(&ctx, from, "notes.txt", "mine"));
    CHECK_OK(peft__model_open(&ctx, from, false, NULL, &m));
    CHECK_OK(peft__model_write_hf(m, NULL, -1, to));
    peft__model_release(m);
    CHECK_OK(peft__file_open(&ctx.mem, runner_path(to, "tokenizer.json"), true, &f));
    CHECK_INT(f.size, 7);
    CHECK_MEM(f.data, "{\"a\":1}", 7);
    peft__file_close(&f);
    CHECK(!peft__path_exists(runner_path(to, "notes.txt")));
    CHECK_OK(peft__file_open(&ctx.mem, runner_path(to, "config.json"), true, &f));
    CHECK_INT(f.size, strlen(write_llama)); /* nothing to change: the text as it was */
    peft__file_close(&f);
    CHECK_INT(kit_outstanding(&ctx), 0);
}

TEST(model_write_refuses_what_gguf_cannot_say) {
    static const char *const config = "{\"model_type\":\"llama\",\"hidden_size\":8,\"num_hidden_layers\":1,"
                                      "\"num_attention_heads\":2,\"intermediate_size\":8,\"vocab_size\":6,"
                                      "\"hidden_act\":\"gelu\"}";
    peft_context ctx;
    struct peft_model *m = NULL;
    const char *path = runner_path(runner_tmpdir(), "m.gguf");
    kit_context(&ctx);
    CHECK_OK(peft__model_random(&ctx, config, strlen(config), 3, 0.1, &m));
    CHECK_STATUS(peft__model_write_gguf(m, NULL, -1, NULL, path), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("gelu");
    CHECK(!peft__path_exists(path));
    peft__model_release(m);
    CHECK_INT(kit_outstanding(&ctx), 0);
}

/* ---- every allocation of each path fails once ------------------------------------------------------------------------- */

typedef peft_status (*write_step)(peft_context *ctx, const char *dir);

static peft_status write_open_hf(peft_context *ctx, const char *dir) {
    struct peft_model *m = NULL;
    peft_status st = peft__model_open(ctx, runner_path(dir, "base"), false, NULL, &m);
    peft__model_release(m);
    return st;
}

static peft_status write_merge(peft_context *ctx, const char *dir) {
    struct peft_model *m = NULL;
    peft_status st = peft__model_open(ctx, runner_path(dir, "base.gguf"), false, NULL, &m);
    if (st != PEFT_OK) { return st; }
    write_double d = {m, "q_proj", false};
    peft__model_change c = {&d, write_changed, write_value, false, write_head, 0};
    st = peft__model_write_hf(m, &c, PEFT_DTYPE_F16, runner_path(dir, "out"));
    if (st == PEFT_OK) { st = peft__model_write_gguf(m, &c, PEFT_DTYPE_F16, NULL, runner_path(dir, "out.gguf")); }
    peft__model_release(m);
    return st;
}

static peft_status write_random(peft_context *ctx, const char *dir) {
    struct peft_model *m = NULL;
    peft__str s;
    (void)dir;
    peft_status st = peft__model_random(ctx, write_llama, strlen(write_llama), 3, 0.1, &m);
    if (st != PEFT_OK) { return st; }
    peft__str_init(&s, &ctx->mem);
    st = peft__model_info(m, &s);
    peft__str_free(&s);
    peft__model_release(m);
    return st;
}

TEST(model_survives_failing_allocations) {
    static const write_step steps[] = {write_random, write_open_hf, write_merge};
    peft_context ctx;
    struct peft_model *m = NULL;
    const char *dir = runner_tmpdir();
    kit_context(&ctx);
    CHECK_OK(peft__model_random(&ctx, write_llama, strlen(write_llama), 3, 0.1, &m));
    CHECK_OK(peft__model_write_hf(m, NULL, -1, runner_path(dir, "base")));
    CHECK_OK(peft__model_write_gguf(m, NULL, -1, NULL, runner_path(dir, "base.gguf")));
    peft__model_release(m);
    for (size_t k = 0; k < PEFT__COUNT(steps); k++) {
        peft_status st = PEFT_E_NOMEM;
        for (size_t n = 1; st != PEFT_OK; n++) {
            CHECK(n < 10000);
            peft__mem_fail_after(&ctx.mem, n, n % 2 == 0);
            st = steps[k](&ctx, dir);
            peft__mem_fail_after(&ctx.mem, 0, false);
            CHECK(st == PEFT_OK || st == PEFT_E_NOMEM);
            CHECK_INT(kit_outstanding(&ctx), 0);
        }
    }
}
