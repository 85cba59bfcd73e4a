/* HF PEFT's two files: exact bytes of the config, exact values back, and errors that name what is wrong. */
#include <math.h>
#include <stdio.h>

#include "peft_fake.h"

/* ---- helpers ------------------------------------------------------------------------------------------------- */

static void format_put(const char *dir, const char *name, const char *text) {
    FILE *f = fopen(runner_path(dir, name), "wb");
    if (f != NULL) {
        (void)fwrite(text, 1, strlen(text), f);
        (void)fclose(f);
    }
}

static peft_status format_load(fake_base *b, const char *dir, bool allow_nan, peft__adapter **out) {
    *out = NULL;
    return peft__adapter_load_hf(b->mem, &peft__kernels_generic, &b->info, "a", dir, allow_nan, out);
}

enum { FORMAT_MOST = 6 };
typedef struct format_file { /* the tensors of one layer's q_proj, r = 2, to be damaged */
    peft__io_source t[FORMAT_MOST];
    size_t n;
    float data[FORMAT_MOST][64];
    uint16_t half[2][16];
} format_file;

#define FORMAT_Q "base_model.model.model.layers.0.self_attn.q_proj."

static void format_start(format_file *f) {
    memset(f, 0, sizeof *f);
    for (int i = 0; i < FORMAT_MOST; i++) {
        for (int e = 0; e < 64; e++) { f->data[i][e] = (float)(i * 64 + e) / 8; }
        f->t[i] = (peft__io_source){.name = "extra", .dtype = PEFT_DTYPE_F32, .ndim = 2, .dims = {2, 8}, .data = f->data[i]};
    }
    f->t[0].name = FORMAT_Q "lora_A.weight";
    f->t[1].name = FORMAT_Q "lora_B.weight";
    f->t[1].dims[0] = 8;
    f->t[1].dims[1] = 2;
    f->n = 2;
}

static peft_status format_load_file(fake_base *b, const char *dir, format_file *f, const char *const *metadata,
                                    peft__adapter **out) {
    *out = NULL;
    peft_status st = peft__safetensors_write(b->mem, runner_path(dir, "adapter_model.safetensors"), f->t, f->n, metadata);
    return st == PEFT_OK ? format_load(b, dir, false, out) : st;
}

static const char *const format_small = "{\"peft_type\": \"LORA\", \"r\": 2, \"target_modules\": [\"q_proj\"], "
                                        "\"layers_to_transform\": 0}";

/* ---- writing ------------------------------------------------------------------------------------------------- */

TEST(format_config_bytes) {
    fake_base b;
    peft_status st;
    peft__file file;
    fake_llama(&b);
    const char *dir = runner_path(runner_tmpdir(), "made/here");
    peft__adapter *a = fake_adapter(&b, "lora",
                                    FAKE("r=4", "lora_alpha=16", "lora_dropout=0.05", "rank_pattern={\"v_proj\":2}",
                                         "use_rslora=true", "modules_to_save=lm_head"),
                                    1, &st);
    CHECK_OK(st);
    CHECK_OK(peft__adapter_save_hf(a, dir));
    CHECK_OK(peft__file_open(b.mem, runner_path(dir, "adapter_config.json"), true, &file));
    const char *expected = "{\n"
                           "  \"auto_mapping\": null,\n"
                           "  \"base_model_name_or_path\": \"models/tiny\",\n"
                           "  \"bias\": \"none\",\n"
                           "  \"fan_in_fan_out\": false,\n"
                           "  \"inference_mode\": true,\n"
                           "  \"init_lora_weights\": true,\n"
                           "  \"layers_pattern\": null,\n"
                           "  \"layers_to_transform\": null,\n"
                           "  \"lora_alpha\": 16,\n"
                           "  \"lora_dropout\": 0.05,\n"
                           "  \"modules_to_save\": [\n"
                           "    \"lm_head\"\n"
                           "  ],\n"
                           "  \"peft_type\": \"LORA\",\n"
                           "  \"peft_version\": \"0.21.2\",\n"
                           "  \"r\": 4,\n"
                           "  \"rank_pattern\": {\n"
                           "    \"v_proj\": 2\n"
                           "  },\n"
                           "  \"revision\": null,\n"
                           "  \"target_modules\": [\n"
                           "    \"q_proj\",\n"
                           "    \"v_proj\"\n"
                           "  ],\n"
                           "  \"task_type\": \"CAUSAL_LM\",\n"
                           "  \"use_rslora\": true\n"
                           "}";
    CHECK_INT(file.size, strlen(expected));
    CHECK_MEM(file.data, expected, file.size);
    peft__file_close(&file);
    peft__adapter_release(a);
    fake_end(&b);
}

TEST(format_tensors_as_hf_names_them) {
    fake_base b;
    peft_status st;
    peft__safetensors f;
    fake_gpt2(&b);
    const char *dir = runner_tmpdir();
    peft__adapter *a = fake_adapter(&b, "lora",
                                    FAKE("r=2", "layers_to_transform=0", "bias=lora_only", "modules_to_save=h.1.mlp.c_proj,ln_f",
                                         "init_lora_weights=gaussian"),
                                    1, &st);
    CHECK_OK(st);
    CHECK_OK(peft__adapter_save_hf(a, dir));
    CHECK_OK(peft__safetensors_open(b.mem, runner_path(dir, "adapter_model.safetensors"), false, &f));
    static const struct { const char *name; int32_t ndim; int64_t d0, d1; } rows[] = {
        {"base_model.model.transformer.h.0.attn.c_attn.base_layer.bias", 1, 24, 0},
        {"base_model.model.transformer.h.0.attn.c_attn.lora_A.weight", 2, 2, 8},
        {"base_model.model.transformer.h.0.attn.c_attn.lora_B.weight", 2, 24, 2},
        {"base_model.model.transformer.h.1.mlp.c_proj.bias", 1, 8, 0},
        {"base_model.model.transformer.h.1.mlp.c_proj.weight", 2, 32, 8}, /* Conv1D: [in, out] */
        {"base_model.model.transformer.ln_f.bias", 1, 8, 0},
        {"base_model.model.transformer.ln_f.weight", 1, 8, 0},
    };
    CHECK_INT(f.count, PEFT__COUNT(rows));
    for (size_t i = 0; i < f.count; i++) {
        CHECK_STR(f.tensors[i].name, rows[i].name);
        CHECK_INT(f.tensors[i].dtype, PEFT_DTYPE_F32);
        CHECK_INT(f.tensors[i].ndim, rows[i].ndim);
        CHECK_INT(f.tensors[i].dims[0], rows[i].d0);
        if (rows[i].ndim == 2) { CHECK_INT(f.tensors[i].dims[1], rows[i].d1); }
    }
    /* the copy's element [out 3][in 7] stands at [7][3] */
    float v;
    memcpy(&v, f.tensors[4].data + 4 * (7 * 8 + 3), sizeof v);
    CHECK_NEAR(v, fake_value(fake_find(&b, "transformer.h.1.mlp.c_proj"), 3 * 32 + 7), 0);
    CHECK(peft__json_is(peft__json_get(f.metadata, "format"), "pt"));
    CHECK(peft__json_is(peft__json_get(f.metadata, "libpeft.base"),
                        "{\"architecture\":\"gpt2\",\"hidden_size\":8,\"layers\":2,\"vocab\":10}"));
    peft__safetensors_close(&f);

    peft__file file;
    CHECK_OK(peft__file_open(b.mem, runner_path(dir, "adapter_config.json"), true, &file));
    peft__str config;
    peft__str_init(&config, b.mem);
    peft__str_put(&config, (const char *)file.data, file.size);
    CHECK(strstr(peft__str_c(&config), "\"fan_in_fan_out\": true") != NULL);
    CHECK(strstr(peft__str_c(&config), "\"init_lora_weights\": \"gaussian\"") != NULL);
    CHECK(strstr(peft__str_c(&config), "\"layers_to_transform\": [\n    0\n  ]") != NULL);
    peft__str_free(&config);
    peft__file_close(&file);
    peft__adapter_release(a);
    fake_end(&b);
}

/* ---- there and back ------------------------------------------------------------------------------------------ */

static void format_round_trip(fake_base *b, const char *const *settings) {
    peft_status st;
    peft__adapter *back = NULL;
    const char *dir = runner_tmpdir();
    peft__adapter *a = fake_adapter(b, "lora", settings, 5, &st);
    CHECK_OK(st);
    for (int64_t i = 0; i < a->n_values; i++) { a->values[i] = PEFT__R((float)(0.1 * (double)(i + 1))); }
    CHECK_OK(peft__adapter_save_hf(a, dir));
    CHECK(peft__adapter_probe(dir) && !peft__adapter_probe(runner_path(dir, "x")));
    CHECK_OK(format_load(b, dir, false, &back));
    CHECK(back->from_file);
    CHECK_INT(back->n_values, a->n_values);
    CHECK_MEM(back->values, a->values, (size_t)a->n_values * sizeof *a->values);
    CHECK_INT(back->attachments.len, a->attachments.len);
    for (size_t i = 0; i < a->attachments.len; i++) {
        const peft__attachment *x = &PEFT__VEC_AT(&a->attachments, peft__attachment, i);
        const peft__attachment *y = &PEFT__VEC_AT(&back->attachments, peft__attachment, i);
        CHECK(x->site == y->site && x->rank == y->rank && x->scale == y->scale && x->dropout == y->dropout && x->key == y->key);
    }
    for (size_t i = 0; i < a->opts.schema->count; i++) {
        const char *key = a->opts.schema->options[i].key;
        if (strcmp(key, "base_model_name_or_path") != 0) { CHECK_STR(peft__opt_str(&back->opts, key), peft__opt_str(&a->opts, key)); }
    }
    peft__adapter_release(back);
    peft__adapter_release(a);
}

TEST(format_save_load_is_exact) {
    fake_base b;
    fake_llama(&b);
    format_round_trip(&b, FAKE("r=3", "lora_alpha=7", "lora_dropout=0.1"));
    format_round_trip(&b, FAKE("target_modules=all-linear", "rank_pattern={\"k_proj\":2,\".*mlp.*\":1}",
                               "alpha_pattern={\"q_proj\":2.5}", "use_rslora=true"));
    format_round_trip(&b, FAKE("target_modules=.*\\.(q|k)_proj", "modules_to_save=embed_tokens,lm_head,norm"));
    format_round_trip(&b, FAKE("target_modules=q_proj,lm_head", "task_type=", "exclude_modules=layers.1.self_attn.q_proj"));
    fake_end(&b);
    fake_gpt2(&b);
    format_round_trip(&b, FAKE("bias=all", "layers_to_transform=0,1", "layers_pattern=h"));
    format_round_trip(&b, FAKE("bias=lora_only", "target_modules=c_proj", "modules_to_save=c_attn,wpe", "init_lora_weights=false"));
    fake_end(&b);
}

TEST(format_reads_what_hf_writes) {
    fake_base b;
    format_file f;
    peft__adapter *a;
    fake_llama(&b);
    const char *dir = runner_tmpdir();
    format_put(dir, "adapter_config.json",
               "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":[\"q_proj\",\"not_there\"],\"layers_to_transform\":[0],"
               "\"layers_pattern\":null,\"bias\":\"none\",\"loftq_config\":{},\"use_dora\":false,\"megatron_core\":"
               "\"megatron.core\",\"task_type\":null,\"some_new_key\":{\"a\":[1]},\"modules_to_save\":[],\"rank_pattern\":{},"
               "\"init_lora_weights\":\"eva\",\"exclude_modules\":null}");
    format_start(&f);
    for (int e = 0; e < 16; e++) {
        f.half[0][e] = (uint16_t)(0x3c00 + e); /* F16: 1 + e / 1024 */
        f.half[1][e] = (uint16_t)(0x3f80 + e); /* BF16: 1 + e / 128 */
    }
    f.t[0].dtype = PEFT_DTYPE_F16;
    f.t[0].data = f.half[0];
    f.t[1].dtype = PEFT_DTYPE_BF16;
    f.t[1].data = f.half[1];
    CHECK_OK(format_load_file(&b, dir, &f, NULL, &a));
    CHECK_NEAR(a->values[3], 1 + 3.0 / 1024, 0);
    CHECK_NEAR(a->values[16 + 3], 1 + 3.0 / 128, 0);
    const peft__attachment *at = a->attachments.data;
    CHECK_NEAR(at->scale, 8.0 / 2, 0); /* a missing lora_alpha is 8 */
    CHECK_STR(peft__opt_str(&a->opts, "task_type"), "");
    peft__adapter_release(a);
    format_put(dir, "adapter_config.json", "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":\"model.layers.0.*q_proj\"}");
    CHECK_OK(format_load(&b, dir, false, &a));
    peft__adapter_release(a);
    fake_end(&b);
}

TEST(format_saved_modules_by_bare_suffix) {
    fake_base b;
    format_file f;
    peft__adapter *a;
    fake_llama(&b);
    const char *dir = runner_tmpdir();
    format_put(dir, "adapter_config.json", "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":[\"q_proj\"],"
                                           "\"layers_to_transform\":[0],\"modules_to_save\":[\"norm\"]}");
    format_start(&f);
    f.t[2].name = "base_model.model.model.norm.weight";
    f.t[3].name = "base_model.model.model.layers.1.input_layernorm.weight"; /* HF wraps it too: it ends in "norm" */
    f.t[2].ndim = f.t[3].ndim = 1;
    f.t[2].dims[0] = f.t[3].dims[0] = 8;
    f.n = 4;
    CHECK_OK(format_load_file(&b, dir, &f, NULL, &a));
    const peft__adapter_param *p = peft__adapter_find(a, "model.layers.1.input_layernorm.weight", NULL);
    CHECK(p != NULL);
    CHECK_NEAR(p->p.value[2], f.data[3][2], 0);
    CHECK_STR(peft__opt_str(&a->opts, "modules_to_save"), "[\"norm\",\"model.layers.1.input_layernorm\"]");
    peft__adapter_release(a);
    fake_end(&b);
}

TEST(format_base_copy_of_an_adapted_head) {
    fake_base b;
    format_file f;
    float head[80];
    peft__adapter *a;
    fake_llama(&b);
    const char *dir = runner_tmpdir();
    format_put(dir, "adapter_config.json", "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":[\"lm_head\"]}");
    format_start(&f);
    f.t[0].name = "base_model.model.lm_head.lora_A.weight";
    f.t[1].name = "base_model.model.lm_head.lora_B.weight";
    f.t[1].dims[0] = 10;
    f.t[2].name = "base_model.model.lm_head.base_layer.weight"; /* PEFT writes it beside the adapter */
    f.t[2].data = head;
    f.t[2].dims[0] = 10;
    for (int e = 0; e < 80; e++) { head[e] = fake_value(fake_find(&b, "lm_head"), e) * 1.001f; }
    f.n = 3;
    CHECK_OK(format_load_file(&b, dir, &f, NULL, &a));
    CHECK_INT(peft__adapter_param_count(a), 2);
    peft__adapter_release(a);
    head[77] += 1;
    CHECK_STATUS(format_load_file(&b, dir, &f, NULL, &a), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("tensor \"base_model.model.lm_head.base_layer.weight\" is not this base's: row 9 differs");
    f.t[2].dims[0] = 5;
    CHECK_STATUS(format_load_file(&b, dir, &f, NULL, &a), PEFT_E_SHAPE);
    fake_end(&b);
}

/* ---- damage -------------------------------------------------------------------------------------------------- */

TEST(format_malformed_tensors) {
    fake_base b;
    format_file f;
    peft__adapter *a;
    fake_llama(&b);
    const char *dir = runner_tmpdir();
    format_put(dir, "adapter_config.json", format_small);
    format_start(&f);
    CHECK_OK(format_load_file(&b, dir, &f, NULL, &a));
    peft__adapter_release(a);

    f.n = 1;
    CHECK_STATUS(format_load_file(&b, dir, &f, NULL, &a), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("adapter_model.safetensors: there is no tensor \"" FORMAT_Q "lora_B.weight\"");
    f.n = 3;
    f.t[2].name = FORMAT_Q "lora_magnitude_vector";
    CHECK_STATUS(format_load_file(&b, dir, &f, NULL, &a), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("tensor \"" FORMAT_Q "lora_magnitude_vector\" has no place");
    format_start(&f);
    f.t[0].dims[0] = 3;
    CHECK_STATUS(format_load_file(&b, dir, &f, NULL, &a), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("tensor \"" FORMAT_Q "lora_A.weight\" is [3, 8], expected [2, 8]");
    f.t[0].ndim = 1;
    CHECK_STATUS(format_load_file(&b, dir, &f, NULL, &a), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("is [3], expected [2, 8]");
    format_start(&f);
    f.data[1][5] = (float)NAN;
    CHECK_STATUS(format_load_file(&b, dir, &f, NULL, &a), PEFT_E_NUMERIC);
    CHECK_ERROR_HAS("tensor \"" FORMAT_Q "lora_B.weight\" has a NaN");
    CHECK(a == NULL);
    CHECK_OK(format_load(&b, dir, true, &a));
    peft__adapter_release(a);
    fake_end(&b);
}

TEST(format_other_base) {
    fake_base b;
    format_file f;
    peft__adapter *a;
    fake_llama(&b);
    const char *dir = runner_tmpdir();
    format_put(dir, "adapter_config.json", format_small);
    format_start(&f);
    const char *metadata[] = {"libpeft.base", "{\"architecture\":\"llama\",\"hidden_size\":16,\"layers\":2,\"vocab\":10}", NULL};
    CHECK_STATUS(format_load_file(&b, dir, &f, metadata, &a), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("the adapter was made for llama of hidden size 16, 2 layers, vocabulary 10; this base is llama of hidden size "
                    "8, 2 layers, vocabulary 10");
    metadata[1] = "{\"architecture\":\"llama\",\"hidden_size\":8,\"layers\":2,\"vocab\":10}";
    CHECK_OK(format_load_file(&b, dir, &f, metadata, &a));
    peft__adapter_release(a);
    metadata[1] = "{\"architecture\":3}";
    CHECK_STATUS(format_load_file(&b, dir, &f, metadata, &a), PEFT_E_FORMAT);
    fake_end(&b);
}

TEST(format_bad_configs) {
    static const struct { const char *config; peft_status code; const char *has; } rows[] = {
        {"{\"peft_type\":\"XLORA\"}", PEFT_E_UNSUPPORTED, "peft_type is \"XLORA\"; this version reads: LORA"},
        {"{\"r\":2}", PEFT_E_FORMAT, "there is no key \"peft_type\""},
        {"[1]", PEFT_E_FORMAT, "not a JSON object"},
        {"{\"peft_type\":\"LORA\"", PEFT_E_FORMAT, "adapter_config.json"},
        {"{\"peft_type\":\"LORA\",\"r\":\"2\"}", PEFT_E_FORMAT, "key \"r\" is \"2\""},
        {"{\"peft_type\":\"LORA\",\"r\":0}", PEFT_E_FORMAT, "key \"r\" is 0, expected 1 to"},
        {"{\"peft_type\":\"LORA\",\"bias\":\"many\"}", PEFT_E_FORMAT, "key \"bias\" is \"many\""},
        {"{\"peft_type\":\"LORA\",\"target_modules\":true}", PEFT_E_FORMAT, "key \"target_modules\""},
        {"{\"peft_type\":\"LORA\",\"target_modules\":[\"nothing\"]}", PEFT_E_NOT_FOUND, "matches \"nothing\""},
        {"{\"peft_type\":\"LORA\",\"rank_pattern\":{\"q_proj\":1.5}}", PEFT_E_FORMAT, "rank_pattern"},
        {"{\"peft_type\":\"LORA\",\"use_qalora\":true}", PEFT_E_UNSUPPORTED, "use_qalora is set"},
        {"{\"peft_type\":\"VERA\",\"bias\":\"vera_only\"}", PEFT_E_UNSUPPORTED, "bias is set"},
        {"{\"peft_type\":\"IA3\",\"feedforward_modules\":true}", PEFT_E_FORMAT, "feedforward_modules"},
        {"{\"peft_type\":\"LOHA\",\"rank_dropout\":2}", PEFT_E_FORMAT, "key \"rank_dropout\" is 2"},
        {"{\"peft_type\":\"LOKR\",\"init_weights\":\"maybe\"}", PEFT_E_FORMAT, "key \"init_weights\" is \"maybe\""},
        {"{\"peft_type\":\"LORA\",\"lora_bias\":true}", PEFT_E_UNSUPPORTED, "lora_bias is set"},
        {"{\"peft_type\":\"LORA\",\"trainable_token_indices\":[\"a\"]}", PEFT_E_FORMAT, "no token id"},
        {"{\"peft_type\":\"LORA\",\"trainable_token_indices\":[1]}", PEFT_E_NOT_FOUND, "token_adapter.trainable_tokens_delta"},
        {"{\"peft_type\":\"LORA\",\"init_lora_weights\":\"pissa\"}", PEFT_E_UNSUPPORTED, "init_lora_weights is \"pissa\""},
        {"{\"peft_type\":\"LORA\",\"target_modules\":[\"embed_tokens\"]}", PEFT_E_UNSUPPORTED, "a table of embeddings"},
    };
    fake_base b;
    format_file f;
    peft__adapter *a;
    fake_llama(&b);
    const char *dir = runner_tmpdir();
    for (size_t i = 0; i < PEFT__COUNT(rows); i++) {
        format_put(dir, "adapter_config.json", rows[i].config);
        format_start(&f);
        CHECK_STATUS(format_load_file(&b, dir, &f, NULL, &a), rows[i].code);
        CHECK_ERROR_HAS(rows[i].has);
        CHECK(a == NULL);
    }
    fake_end(&b);
}

TEST(format_missing_files_and_pickles) {
    fake_base b;
    peft__adapter *a;
    fake_llama(&b);
    const char *dir = runner_tmpdir();
    CHECK_STATUS(format_load(&b, dir, false, &a), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("adapter_config.json");
    format_put(dir, "adapter_config.json", format_small);
    CHECK_STATUS(format_load(&b, dir, false, &a), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("adapter_model.safetensors");
    format_put(dir, "adapter_model.bin", "\x80\x02");
    CHECK_STATUS(format_load(&b, dir, false, &a), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("adapter_model.bin is a Python pickle");
    CHECK_ERROR_HAS("safe_serialization=True");
    fake_end(&b);
}

TEST(format_inspect) {
    fake_base b;
    format_file f;
    peft__str out;
    fake_llama(&b);
    peft__str_init(&out, b.mem);
    const char *dir = runner_tmpdir();
    format_put(dir, "adapter_config.json", "{\"peft_type\":\"XLORA\",\"r\":2}");
    format_start(&f);
    CHECK_OK(peft__safetensors_write(b.mem, runner_path(dir, "adapter_model.safetensors"), f.t, 1, NULL));
    CHECK_OK(peft__adapter_inspect(b.mem, dir, &out));
    CHECK_STR(peft__str_c(&out), "{\"kind\":\"adapter\",\"method\":\"XLORA\",\"architecture\":null,\"parameters\":16,"
                                 "\"bytes\":64,\"config\":{\"peft_type\":\"XLORA\",\"r\":2},\"metadata\":{\"format\":\"pt\"},"
                                 "\"sites\":[\"model.layers.0.self_attn.q_proj\"],\"tensors\":[{\"name\":\"" FORMAT_Q
                                 "lora_A.weight\",\"dtype\":\"F32\",\"shape\":[2,8]}]}");
    peft__str_free(&out);
    fake_end(&b);
}

TEST(format_every_allocation_may_fail) {
    fake_base b;
    peft_status st;
    fake_gpt2(&b);
    const char *dir = runner_tmpdir();
    peft__adapter *a = fake_adapter(&b, "lora", FAKE("bias=all", "modules_to_save=wte", "rank_pattern={\"c_attn\":2}"), 1, &st);
    CHECK_OK(st);
    size_t before = atomic_load(&b.mem->now), n = 1;
    for (st = PEFT_E_NOMEM; n < 3000 && st != PEFT_OK; n++) {
        peft__mem_fail_after(b.mem, n, true);
        st = peft__adapter_save_hf(a, dir);
        peft__mem_fail_after(b.mem, 0, false);
        CHECK(st == PEFT_OK || st == PEFT_E_NOMEM);
        CHECK_INT(atomic_load(&b.mem->now), before);
    }
    CHECK_OK(st);
    for (st = PEFT_E_NOMEM, n = 1; n < 3000 && st != PEFT_OK; n++) {
        peft__adapter *back = NULL;
        peft__mem_fail_after(b.mem, n, true);
        st = format_load(&b, dir, false, &back);
        peft__mem_fail_after(b.mem, 0, false);
        CHECK(st == PEFT_OK || st == PEFT_E_NOMEM);
        peft__adapter_release(back);
        CHECK_INT(atomic_load(&b.mem->now), before);
    }
    CHECK_OK(st);
    CHECK(n > 30);
    peft__adapter_release(a);
    fake_end(&b);
}
