/* model_load_test.c - random models, folders and GGUF files of them: names, sites, views and numbers are the same. */
#include <math.h>

#include "model_kit.h"

static const char *const load_llama =
    "{\"model_type\":\"llama\",\"hidden_size\":64,\"num_hidden_layers\":2,\"num_attention_heads\":4,"
    "\"num_key_value_heads\":2,\"intermediate_size\":96,\"vocab_size\":40,\"attention_bias\":true,\"mlp_bias\":true,"
    "\"rope_theta\":500000.0,\"max_position_embeddings\":128,\"rms_norm_eps\":1e-5,"
    "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
    "\"original_max_position_embeddings\":8192}}";
static const char *const load_gpt2 =
    "{\"model_type\":\"gpt2\",\"n_embd\":64,\"n_layer\":2,\"n_head\":4,\"n_positions\":32,\"vocab_size\":40,\"n_inner\":96}";

static const int32_t load_ids[6] = {3, 17, 0, 39, 5, 21};
enum { LOAD_VOCAB = 40, LOAD_LOGITS = 6 * LOAD_VOCAB };

static peft_status load_random(peft_context *ctx, const char *config, struct peft_model **out) {
    return peft__model_random(ctx, config, strlen(config), 11, 0.1, out);
}

TEST(model_random_depends_on_the_seed_only) {
    peft_context ctx;
    struct peft_model *a = NULL, *b = NULL, *c = NULL;
    float x[64], y[64], z[64];
    kit_context(&ctx);
    CHECK_OK(load_random(&ctx, load_llama, &a));
    CHECK_OK(load_random(&ctx, load_llama, &b));
    CHECK_OK(peft__model_random(&ctx, load_llama, strlen(load_llama), 12, 0, &c));
    int64_t norm = peft__map_get(&a->index, "model.norm.weight", 17);
    CHECK(norm > 0);
    peft__model_read(a, (size_t)norm, x);
    peft__model_read(b, (size_t)norm, y);
    peft__model_read(c, (size_t)norm, z);
    CHECK_MEM(x, y, sizeof x);
    CHECK(x[0] < 1 || x[0] > 1);
    for (int32_t i = 0; i < 64; i++) { CHECK_NEAR(z[i], 1, 0); }
    const peft__model_tensor *e = peft__model_find(a, "model.embed_tokens.weight");
    double sum = 0;
    for (int32_t r = 0; r < LOAD_VOCAB; r++) {
        peft__real row[64];
        peft__weight_row(ctx.kernels, &e->w, r, row);
        for (int32_t i = 0; i < 64; i++) { sum += (double)row[i] * (double)row[i]; }
    }
    CHECK_NEAR(sqrt(sum / (LOAD_VOCAB * 64)), 0.02, 0.001);
    peft__model_release(a);
    peft__model_release(b);
    peft__model_release(c);
    CHECK_INT(kit_outstanding(&ctx), 0);
}

TEST(model_llama_sites_in_order) {
    static const char *const layer[] = {"input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                        "self_attn", "self_attn.o_proj", "self_attn", "post_attention_layernorm",
                                        "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "mlp"};
    static const int32_t kinds[] = {4, 0, 0, 0, 2, 0, 1, 4, 0, 0, 0, 1};
    peft_context ctx;
    struct peft_model *m = NULL;
    kit_context(&ctx);
    CHECK_OK(load_random(&ctx, load_llama, &m));
    CHECK_INT(m->n_sites, 4 + 2 * 12);
    CHECK_STR(m->sites[0].path, "model.embed_tokens");
    CHECK_INT(m->sites[0].in, 40);
    CHECK_STR(m->sites[1].path, "");
    for (size_t i = 0; i < 12; i++) {
        const peft__site *s = &m->sites[2 + 12 + i];
        CHECK(strncmp(s->path, "model.layers.1.", 15) == 0);
        CHECK_STR(s->path + 15, layer[i]);
        CHECK_INT(s->kind, kinds[i]);
        CHECK_INT(s->layer, 1);
        CHECK_INT(s->id, 14 + i);
    }
    const peft__site *k = peft__model_site(m, "model.layers.0.self_attn.k_proj");
    CHECK(k != NULL && k->bias_data != NULL && k->bias != NULL);
    CHECK_INT(k->in, 64);
    CHECK_INT(k->out, 32);
    CHECK_INT(k->role, PEFT__ROLE_K);
    CHECK_INT(peft__model_site(m, "model.layers.0.self_attn")->kind, PEFT__SITE_KV);
    CHECK_INT(peft__model_site(m, "lm_head")->tied_to, -1);
    CHECK_INT(peft__model_site(m, "model.norm")->rms, 1);
    CHECK(peft__model_site(m, "model.layers.2.mlp") == NULL);
    peft__model_release(m);
}

TEST(model_gpt2_sites_and_conv1d) {
    peft_context ctx;
    struct peft_model *m = NULL;
    kit_context(&ctx);
    CHECK_OK(load_random(&ctx, load_gpt2, &m));
    const peft__site *qkv = peft__model_site(m, "transformer.h.1.attn.c_attn");
    const peft__model_tensor *t = peft__model_find(m, "transformer.h.1.attn.c_attn.weight");
    CHECK(qkv != NULL && t != NULL && qkv->weight == &t->w);
    CHECK(qkv->conv1d && t->w.transposed);
    CHECK_INT(qkv->out, 192);
    CHECK_INT(t->dims[0], 64);
    CHECK_INT(t->dims[1], 192);
    const peft__site *head = peft__model_site(m, "lm_head");
    CHECK_INT(head->tied_to, 0);
    CHECK_INT(head->out, 40);
    CHECK(head->weight == m->sites[0].weight);
    CHECK_STR(m->sites[2].path, "transformer.wpe");
    CHECK_INT(peft__model_site(m, "transformer.ln_f")->rms, 0);
    CHECK(peft__model_find(m, "lm_head.weight") == NULL);
    CHECK_INT(m->parameters, 40 * 64 + 32 * 64 + 2 * (4 * 64 + 192 * 64 + 192 + 64 * 64 + 64 + 2 * 96 * 64 + 96 + 64) + 128);
    peft__model_release(m);
}

/* A model, itself as a folder, as a GGUF and as a folder from that: the same logits, bit for bit, and tensors. */
static void load_round(const char *config) {
    static float first[LOAD_LOGITS], again[LOAD_LOGITS], x[96 * 64], y[96 * 64];
    peft_context ctx;
    struct peft_model *m = NULL, *n = NULL;
    const char *dir = runner_tmpdir();
    const char *paths[3] = {runner_path(dir, "hf"), runner_path(dir, "m.gguf"), runner_path(dir, "back")};
    kit_context(&ctx);
    CHECK_OK(load_random(&ctx, config, &m));
    CHECK_OK(kit_forward(m, load_ids, 6, first, NULL));
    for (int32_t i = 0; i < LOAD_LOGITS; i++) { CHECK(isfinite(first[i])); }
    CHECK_OK(peft__model_write_hf(m, NULL, -1, paths[0]));
    CHECK_OK(peft__model_write_gguf(m, NULL, -1, NULL, paths[1]));
    CHECK_OK(peft__model_open(&ctx, paths[1], false, NULL, &n));
    CHECK_OK(peft__model_write_hf(n, NULL, -1, paths[2]));
    peft__model_release(n);
    for (int32_t k = 0; k < 3; k++) {
        CHECK(peft__model_probe(paths[k]));
        CHECK_OK(peft__model_open(&ctx, paths[k], k == 1, NULL, &n));
        CHECK_STR(n->model_type, m->model_type);
        CHECK_INT(n->n_tensors, m->n_tensors);
        CHECK_INT(n->parameters, m->parameters);
        CHECK_INT(peft__model_resident(n) > 0, k != 1); /* a copy is in the allocator's account */
        for (size_t i = 0; i < m->n_tensors; i++) {
            const peft__model_tensor *t = &m->tensors[i];
            CHECK_STR(n->tensors[i].w.name, t->w.name);
            CHECK_INT(n->tensors[i].dims[0], t->dims[0]);
            if (t->w.rows * t->w.cols > 96 * 64) { continue; }
            peft__model_read(m, i, x);
            peft__model_read(n, i, y);
            CHECK_MEM(y, x, (size_t)(t->w.rows * t->w.cols) * sizeof *x);
        }
        CHECK_OK(kit_forward(n, load_ids, 6, again, NULL));
        CHECK_MEM(again, first, sizeof first);
        peft__model_release(n);
    }
    peft__model_release(m);
    CHECK_INT(kit_outstanding(&ctx), 0);
}

TEST(model_llama_is_the_same_in_every_format) { load_round(load_llama); }
TEST(model_gpt2_is_the_same_in_every_format) { load_round(load_gpt2); }
TEST(model_mistral_is_the_same_in_every_format) {
    load_round("{\"model_type\":\"mistral\",\"hidden_size\":64,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
               "\"head_dim\":16,\"intermediate_size\":32,\"vocab_size\":40,\"sliding_window\":3,"
               "\"tie_word_embeddings\":true}");
}

TEST(model_gguf_config_says_what_the_metadata_say) {
    peft_context ctx;
    struct peft_model *m = NULL, *n = NULL;
    const char *path = runner_path(runner_tmpdir(), "m.gguf");
    kit_context(&ctx);
    CHECK_OK(load_random(&ctx, load_llama, &m));
    CHECK_OK(peft__model_write_gguf(m, NULL, -1, NULL, path));
    CHECK_OK(peft__model_open(&ctx, path, false, NULL, &n));
    CHECK(n->config.rope_factors != NULL);
    CHECK_INT(n->config.rope_scaling, PEFT__ROPE_LLAMA3);
    CHECK_INT(n->config.rope_original_positions, 8192);
    CHECK_NEAR(n->config.rope_factor, 8, 0);
    CHECK_NEAR(n->config.norm_eps, 1e-5, 0); /* not 9.99999975e-06 */
    CHECK(strstr(n->config_json, "\"rope_type\": \"llama3\"") != NULL);
    CHECK(strstr(n->config_json, "\"LlamaForCausalLM\"") != NULL);
    CHECK(n->config.attention_bias && n->config.mlp_bias && !n->config.tie_embeddings);
    const peft__model_tensor *q = peft__model_find(n, "model.layers.0.self_attn.q_proj.weight");
    CHECK_INT(q->w.interleave, 16);
    peft__model_release(m);
    peft__model_release(n);
}

TEST(model_window_of_mistral) {
    static const struct {
        const char *key;
        int64_t window;
    } cases[] = {{"", 4096}, {",\"sliding_window\":null", 0}, {",\"sliding_window\":7", 7}};
    peft_context ctx;
    kit_context(&ctx);
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        struct peft_model *m = NULL;
        peft__str s;
        peft__str_init(&s, &ctx.mem);
        peft__str_putf(&s, "{\"model_type\":\"mistral\",\"hidden_size\":8,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
                           "\"intermediate_size\":8,\"vocab_size\":9,\"eos_token_id\":[4,5],\"bos_token_id\":null%s}",
                       cases[i].key);
        CHECK_OK(peft__model_random(&ctx, s.data, s.len, 1, 0, &m));
        CHECK_INT(m->config.window, cases[i].window);
        CHECK_INT(m->config.eos_id, 4);
        CHECK_INT(m->config.bos_id, -1);
        peft__model_release(m);
        peft__str_free(&s);
    }
}

TEST(model_rope_frequencies) {
    peft__arena a;
    peft__config c;
    peft__mem *mem = runner_mem();
    peft__arena_init(&a, mem);
    memset(&c, 0, sizeof c);
    c.rope_theta = 10000;
    peft__rope r;
    CHECK(peft__rope_make(&c, 8, &a, &r));
    CHECK_NEAR(r.freq[0], 1, 0);
    CHECK_NEAR(r.freq[1], 0.1, 1e-8);
    CHECK_NEAR(r.freq[3], 0.001, 1e-10);
    CHECK_NEAR(r.scale, 1, 0);
    c.rope_scaling = PEFT__ROPE_LINEAR;
    c.rope_factor = 4;
    CHECK(peft__rope_make(&c, 8, &a, &r));
    CHECK_NEAR(r.freq[1], 0.025, 1e-9);
    c.rope_scaling = PEFT__ROPE_DYNAMIC;
    c.max_positions = 64;
    CHECK(peft__rope_make(&c, 8, &a, &r));
    CHECK_NEAR(r.freq[1], 0.1, 1e-8);
    CHECK_INT(r.beyond, 64);
    c.rope_scaling = PEFT__ROPE_YARN; /* 100 positions; the ramp goes from index 0 to 2 */
    c.rope_original_positions = 100;
    c.rope_beta_fast = 8;
    c.rope_beta_slow = 0.5;
    c.rope_truncate = true;
    CHECK(peft__rope_make(&c, 8, &a, &r));
    CHECK_NEAR(r.freq[0], 1, 1e-7);
    CHECK_NEAR(r.freq[1], 0.1 / 4 * 0.5 + 0.1 * 0.5, 1e-8);
    CHECK_NEAR(r.freq[2], 0.01 / 4, 1e-9);
    CHECK_NEAR(r.scale, 0.1 * log(4) + 1, 1e-12);
    static const double near[4] = {1, 1, 2, 2}, far[4] = {4, 4, 8, 8};
    c.rope_scaling = PEFT__ROPE_LONGROPE;
    c.rope_short = near;
    c.rope_long = far;
    c.rope_original_positions = 16;
    CHECK(peft__rope_make(&c, 8, &a, &r));
    CHECK_NEAR(r.freq[2], 0.005, 1e-9);
    CHECK_NEAR(r.far[1], 0.025, 1e-9);
    CHECK_INT(r.beyond, 16);
    CHECK_NEAR(r.scale, sqrt(1.5), 1e-12); /* 4 times as many positions: ln 4 / ln 16 */
    c.rope_scaling = PEFT__ROPE_LLAMA3;
    c.rope_low_freq = 1;
    c.rope_high_freq = 4;
    c.rope_original_positions = 100;
    /* turns in 100 positions: 15.9 (kept), 1.59 (between), 0.159 (divided) */
    CHECK_NEAR(peft__rope_factor(&c, 8, 0), 1, 0);
    double s = (100 * 0.1 / 6.283185307179586 - 1) / 3;
    CHECK_NEAR(peft__rope_factor(&c, 8, 1), 1 / ((1 - s) / 4 + s), 1e-6);
    CHECK_NEAR(peft__rope_factor(&c, 8, 2), 4, 0);
    peft__arena_free(&a);
}

TEST(model_info_is_json_with_its_sizes) {
    peft_context ctx;
    struct peft_model *m = NULL;
    peft__str s;
    peft__arena a;
    const peft__json *j = NULL;
    int64_t v = 0;
    kit_context(&ctx);
    peft__str_init(&s, &ctx.mem);
    peft__arena_init(&a, &ctx.mem);
    CHECK_OK(load_random(&ctx, load_gpt2, &m));
    CHECK_OK(peft__model_info(m, &s));
    CHECK_OK(peft__json_parse(&a, s.data, s.len, "info", &j));
    CHECK(peft__json_is(peft__json_get(j, "kind"), "model"));
    CHECK(peft__json_is(peft__json_get(j, "architecture"), "gpt2"));
    CHECK_OK(peft__json_int(j, "info", "parameters", 0, 0, INT64_MAX, &v));
    CHECK_INT(v, m->parameters);
    CHECK_OK(peft__json_int(j, "info", "head_dim", 0, 0, INT64_MAX, &v));
    CHECK_INT(v, 16);
    CHECK_OK(peft__json_int(peft__json_get(j, "dtypes"), "info", "F32", 0, 0, INT64_MAX, &v));
    CHECK_INT(v, m->n_tensors);
    const peft__json *sites = peft__json_get(j, "sites");
    CHECK_INT(sites->len, m->n_sites);
    CHECK(peft__json_is(peft__json_get(&sites->items[0], "kind"), "embed"));
    CHECK(peft__json_is(peft__json_get(&sites->items[4], "path"), "transformer.h.0.attn.c_attn"));
    peft__str_free(&s);
    peft__arena_free(&a);
    peft__model_release(m);
    CHECK_INT(kit_outstanding(&ctx), 0);
}
