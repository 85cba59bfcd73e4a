/* api_unions_test.c - AdapterHub's prefix-tuning, LoRA and unions of them: counts, files, gates, options, sessions, conversions and
 * what is refused. The peer itself is in tests/peers/test_unions.py. */
#include "api_kit.h"

#define UNIONS_MISTRAL                                                                                        \
    "{\"model_type\":\"mistral\",\"hidden_size\":16,\"intermediate_size\":24,\"num_hidden_layers\":2,"        \
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"vocab_size\":14,\"max_position_embeddings\":48,"   \
    "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"bos_token_id\":null,\"eos_token_id\":12,\"sliding_"       \
    "window\":3,\"tie_word_embeddings\":false}"

static const int32_t unions_ids[] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8};
enum { UNIONS_IDS = 12, UNIONS_LOGITS = UNIONS_IDS * API_VOCAB };

typedef struct unions_world {
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    float x[UNIONS_LOGITS], y[UNIONS_LOGITS];
} unions_world;

static peft_status unions_open(unions_world *w, const char *config) {
    peft_status st = PEFT_OK;
    memset(w, 0, sizeof *w);
    TRY(peft_context_create(NULL, &w->ctx));
    TRY(api_model(w->ctx, config, &w->m));
    TRY(peft_adapters_create(w->m, &w->a));
out:
    return st;
}

static void unions_close(unions_world *w) {
    peft_adapters_free(w->a);
    peft_model_free(w->m);
    peft_context_free(w->ctx);
}

static peft_status unions_add(unions_world *w, const char *name, const char *method, const char *options) {
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    char schema[64];
    (void)snprintf(schema, sizeof schema, "method:%s", method);
    TRY(api_options(w->ctx, schema, options, &o));
    TRY(peft_adapters_add(w->a, name, method, o, 5));
out:
    peft_options_free(o);
    return st;
}

/* Logits of the ids as rows of lens; session: its options, or NULL. */
static peft_status unions_logits(unions_world *w, const char *name, const char *session, const int64_t *lens, size_t rows, float *out) {
    peft_status st = PEFT_OK;
    peft_session *s = NULL;
    peft_options *o = NULL;
    peft_batch *b = NULL;
    if (session != NULL) { TRY(api_options(w->ctx, "session", session, &o)); }
    TRY(peft_session_create(w->m, w->a, name, o, &s));
    TRY(api_batch(w->ctx, unions_ids, lens, rows, &b));
    TRY(peft_session_logits(s, b, out, UNIONS_LOGITS, NULL));
out:
    peft_batch_free(b);
    peft_options_free(o);
    peft_session_free(s);
    return st;
}

static peft_status unions_row(unions_world *w, const char *name, float *out) {
    const int64_t lens[] = {UNIONS_IDS};
    return unions_logits(w, name, NULL, lens, 1, out);
}

static int64_t unions_count(const unions_world *w, const char *name) {
    int64_t n = 0;
    for (size_t i = 0; i < peft_adapters_tensor_count(w->a, name); i++) {
        int32_t ndim = 0;
        int64_t dims[8] = {0}, product = 1;
        const char *tensor = NULL;
        if (peft_adapters_tensor_info(w->a, name, i, &tensor, &ndim, dims) != PEFT_OK) { return -1; }
        for (int32_t d = 0; d < ndim; d++) { product *= dims[d]; }
        n += product;
    }
    return n;
}

static peft_status unions_fill(unions_world *w, const char *name, const char *part, float value) {
    peft_status st = PEFT_OK;
    static float values[1 << 14];
    for (size_t i = 0; i < peft_adapters_tensor_count(w->a, name); i++) {
        const char *tensor = NULL;
        size_t n = 0;
        TRY(peft_adapters_tensor_info(w->a, name, i, &tensor, NULL, NULL));
        if (strstr(tensor, part) == NULL) { continue; }
        TRY(peft_adapters_tensor_read(w->a, name, tensor, values, PEFT__COUNT(values), &n));
        for (size_t k = 0; k < n; k++) { values[k] = value; }
        TRY(peft_adapters_tensor_write(w->a, name, tensor, values, n));
    }
out:
    return st;
}

static peft_status unions_text(const char *dir, const char *file, char *out, size_t cap) {
    FILE *f = fopen(runner_path(dir, file), "rb");
    if (f == NULL) { return PEFT_E_IO; }
    size_t n = fread(out, 1, cap - 1, f);
    (void)fclose(f);
    out[n] = '\0';
    return PEFT_OK;
}

/* Replaces the first `from` of the folder's config. */
static peft_status unions_edit(const char *dir, const char *from, const char *to) {
    static char text[1 << 14], out[1 << 14];
    peft_status st = unions_text(dir, "adapter_config.json", text, sizeof text);
    char *at = st == PEFT_OK ? strstr(text, from) : NULL;
    if (at == NULL) { return PEFT_E_NOT_FOUND; }
    (void)snprintf(out, sizeof out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    return text_write(runner_mem(), dir, "adapter_config.json", out);
}

/* ---- counts and files ------------------------------------------------------------------------------------------------ */

typedef struct unions_case {
    const char *method, *options;
    int64_t llama, gpt2;
} unions_case;

/* 2 layers, width 16, keys 8 wide (GPT-2: 16). A prefix of n through m: n 16 + m (16 + 1) + 2 2 kv (m + 1). */
static const unions_case unions_cases[] = {
    {"prefix_tuning", "{'prefix_length':3,'bottleneck_size':5}", 3 * 16 + 5 * 17 + 32 * 6, 3 * 16 + 5 * 17 + 64 * 6},
    {"prefix_tuning", "{'prefix_length':3,'flat':true}", 3 * 32, 3 * 64},
    {"prefix_tuning", "{'prefix_length':3,'flat':true,'leave_out':[0],'use_gating':true}", 3 * 16 + 17, 3 * 32 + 17},
    {"prefix_tuning", "{'prefix_length':2,'flat':true,'use_gating':true,'shared_gating':false}", 2 * 32 + 2 * 34, 2 * 64 + 2 * 34},
    {"lora_hub", "{'use_gating':true,'r':3}", 2 * (3 * (16 + 16) + 17 + 3 * (16 + 8) + 17), 2 * (2 * 3 * 16 + 32 * 3 + 2 * 17)},
    {"lora_hub", "{'r':2,'attn_matrices':['k'],'output_lora':true,'leave_out':[1],'use_gating':true}",
     2 * (16 + 8) + 17 + 2 * (16 + 24) + 17, 2 * 16 + 16 * 2 + 17 + 2 * (64 + 16) + 65},
    {"mam", "{'prefix_length':3,'bottleneck_size':5}", 3 * 16 + 5 * 17 + 32 * 6 + 2 * (2 * 8 * 16 + 8 + 16),
     3 * 16 + 5 * 17 + 64 * 6 + 2 * (2 * 8 * 16 + 8 + 16)},
    {"unipelt", "{'prefix_length':3,'bottleneck_size':5,'reduction_factor':4,'r':2}",
     3 * 16 + 5 * 17 + 32 * 6 + 2 * 17 + 2 * (2 * 4 * 16 + 4 + 16 + 17) + 2 * (2 * (16 + 16) + 17 + 2 * (16 + 8) + 17),
     3 * 16 + 5 * 17 + 64 * 6 + 2 * 17 + 2 * (2 * 4 * 16 + 4 + 16 + 17) + 2 * (2 * 2 * 16 + 32 * 2 + 2 * 17)},
};

static void unions_check(const unions_case *c, const char *config, int64_t count) {
    static unions_world w;
    const char *dir = runner_path(runner_tmpdir(), "saved");
    const int64_t lens[] = {7, 4, 1};
    CHECK_OK(unions_open(&w, config));
    CHECK_OK(unions_add(&w, "x", c->method, c->options));
    CHECK_INT(unions_count(&w, "x"), count);
    CHECK_OK(api_shake(w.a, "x", 0.3F));
    CHECK_OK(unions_logits(&w, "x", NULL, lens, 3, w.x));
    CHECK_OK(unions_logits(&w, NULL, NULL, lens, 3, w.y));
    CHECK(api_distance(w.x, w.y, UNIONS_LOGITS) > 1e-3);
    CHECK_OK(peft_adapters_save(w.a, "x", dir, NULL));
    CHECK_OK(peft_adapters_load(w.a, "y", dir, NULL));
    CHECK_OK(unions_logits(&w, "y", NULL, lens, 3, w.y));
    CHECK_NEAR(api_distance(w.x, w.y, UNIONS_LOGITS), 0, 0);
    CHECK_STATUS(peft_adapters_merge(w.a, "x", runner_path(runner_tmpdir(), "merged"), NULL), PEFT_E_UNSUPPORTED);
    unions_close(&w);
}

TEST(api_unions_counts_and_files) {
    for (size_t i = 0; i < PEFT__COUNT(unions_cases); i++) {
        unions_check(&unions_cases[i], API_LLAMA, unions_cases[i].llama);
        unions_check(&unions_cases[i], API_GPT2, unions_cases[i].gpt2);
    }
}

TEST(api_unions_names_in_files_and_tensors_by_name) {
    static unions_world w;
    static char text[1 << 14];
    const char *dir = runner_path(runner_tmpdir(), "saved");
    float v[16];
    size_t n = 0;
    CHECK_OK(unions_open(&w, API_LLAMA));
    CHECK_OK(unions_add(&w, "x", "unipelt", "{'prefix_length':2,'bottleneck_size':3,'r':1}"));
    CHECK_OK(peft_adapters_save(w.a, "x", dir, NULL));
    CHECK_OK(unions_text(dir, "adapter_config.json", text, sizeof text));
    CHECK(strstr(text, "\"architecture\": \"union\"") != NULL && strstr(text, "\"architecture\": \"prefix_tuning\"") != NULL);
    CHECK(strstr(text, "\"alpha\": 2") != NULL && strstr(text, "\"use_gating\": true") != NULL);
    CHECK(strstr(text, "\"version\": \"adapters.1.3.0\"") != NULL && strstr(text, "\"name\": \"x\"") != NULL);
    CHECK_OK(unions_text(dir, "adapter.safetensors", text, sizeof text));
    FILE *f = fopen(runner_path(dir, "adapter.safetensors"), "rb");
    CHECK(f != NULL);
    CHECK(fseek(f, 8, SEEK_SET) == 0 && fread(text, 1, sizeof text - 1, f) > 0);
    (void)fclose(f);
    CHECK(strstr(text, "\"model.prefix_tuning.prefix_tunings.x.self_prefix.control_trans.2.bias\"") != NULL);
    CHECK(strstr(text, "\"model.layers.1.self_attn.prefix_tuning.prefix_gates.x.weight\"") != NULL);
    CHECK(strstr(text, "\"model.layers.0.self_attn.q_proj.loras.x.gate.bias\"") != NULL);
    CHECK(strstr(text, "\"model.layers.0.output_adapters.adapters.x.adapter_up.weight\"") != NULL);
    CHECK_OK(peft_adapters_tensor_read(w.a, "x", "model.layers.0.self_attn.v_proj.loras.lora_B", v, 16, &n));
    CHECK_INT(n, 8);
    unions_close(&w);
}

/* ---- what they compute ----------------------------------------------------------------------------------------------- */

/* With weights 0 a gate is a number, sigmoid(b). */
TEST(api_unions_gates_that_are_constant) {
    static unions_world w;
    float table[3 * 64];
    size_t n = 0;
    CHECK_OK(unions_open(&w, API_GPT2));
    CHECK_OK(unions_add(&w, "gated", "prefix_tuning", "{'prefix_length':3,'flat':true,'use_gating':true,'shared_gating':false}"));
    CHECK_OK(unions_add(&w, "plain", "prefix_tuning", "{'prefix_length':3,'flat':true}"));
    CHECK_OK(api_shake(w.a, "gated", 0.5F));
    CHECK_OK(unions_fill(&w, "gated", "gates.weight", 0));
    CHECK_OK(unions_fill(&w, "gated", "gates.bias", 0.4F));
    const char *name = "transformer.prefix_tuning.prefix_tunings.self_prefix.control_trans";
    CHECK_OK(peft_adapters_tensor_read(w.a, "gated", name, table, PEFT__COUNT(table), &n));
    CHECK_INT(n, 3 * 64);
    for (size_t i = 0; i < n; i++) { table[i] *= 1 / (1 + expf(-0.4F)); }
    CHECK_OK(peft_adapters_tensor_write(w.a, "plain", name, table, n));
    CHECK_OK(unions_row(&w, "gated", w.x));
    CHECK_OK(unions_row(&w, "plain", w.y));
    CHECK_NEAR(api_distance(w.x, w.y, UNIONS_LOGITS), 0, 2e-6);
    /* keys and values have a gate each: one of them alone is another number */
    const float bias[] = {0.4F, -3};
    CHECK_OK(peft_adapters_tensor_write(w.a, "gated", "transformer.h.0.attn.prefix_tuning.prefix_gates.bias", bias, 2));
    CHECK_OK(unions_row(&w, "gated", w.x));
    CHECK(api_distance(w.x, w.y, UNIONS_LOGITS) > 1e-3);

    CHECK_OK(unions_add(&w, "lora", "lora_hub", "{'r':2,'alpha':1000,'use_gating':true}"));
    CHECK_OK(unions_add(&w, "scaled", "lora_hub", "{'r':2,'alpha':1.1973753202249042}")); /* 2 sigmoid(0.4) */
    CHECK_OK(api_shake(w.a, "lora", 0.5F));
    CHECK_OK(unions_fill(&w, "lora", "gate.weight", 0));
    CHECK_OK(unions_fill(&w, "lora", "gate.bias", 0.4F));
    for (size_t i = 0; i < peft_adapters_tensor_count(w.a, "scaled"); i++) {
        float values[1024];
        const char *tensor = NULL;
        CHECK_OK(peft_adapters_tensor_info(w.a, "scaled", i, &tensor, NULL, NULL));
        CHECK_OK(peft_adapters_tensor_read(w.a, "lora", tensor, values, PEFT__COUNT(values), &n));
        CHECK_OK(peft_adapters_tensor_write(w.a, "scaled", tensor, values, n));
    }
    CHECK_OK(unions_row(&w, "lora", w.x));
    CHECK_OK(unions_row(&w, "scaled", w.y));
    CHECK_NEAR(api_distance(w.x, w.y, UNIONS_LOGITS), 0, 5e-6);
    unions_close(&w);
}

/* A row's gates are its own: what stands beside it in a batch changes nothing. */
TEST(api_unions_rows_have_their_own_gates) {
    static unions_world w;
    const int64_t several[] = {7, 4, 1}, one[] = {7};
    CHECK_OK(unions_open(&w, API_LLAMA));
    CHECK_OK(unions_add(&w, "x", "unipelt", "{'prefix_length':3,'bottleneck_size':5,'r':2}"));
    CHECK_OK(api_shake(w.a, "x", 0.5F));
    CHECK_OK(unions_logits(&w, "x", NULL, several, 3, w.x));
    CHECK_OK(unions_logits(&w, "x", NULL, one, 1, w.y));
    CHECK_NEAR(api_distance(w.x, w.y, 7 * API_VOCAB), 0, 1e-6);
    unions_close(&w);
}

/* A prefix is seen from everywhere, in one pass and through the cache, whatever the window; a row with gates is not cut. */
TEST(api_unions_sessions_in_pieces) {
    static unions_world w;
    const int64_t lens[] = {UNIONS_IDS};
    static const char *const prefixes[] = {"{'prefix_length':5,'flat':true}", "{'prefix_length':5,'flat':true,'leave_out':[0]}"};
    for (size_t i = 0; i < 2; i++) {
        CHECK_OK(unions_open(&w, UNIONS_MISTRAL));
        CHECK_OK(unions_add(&w, "x", "prefix_tuning", prefixes[i]));
        CHECK_OK(api_shake(w.a, "x", 1));
        CHECK_OK(unions_logits(&w, "x", NULL, lens, 1, w.x));
        CHECK_OK(unions_logits(&w, "x", "{'chunk':1}", lens, 1, w.y));
        CHECK_NEAR(api_distance(w.x, w.y, UNIONS_LOGITS), 0, 2e-6);
        CHECK_OK(unions_logits(&w, "x", "{'chunk':5}", lens, 1, w.y));
        CHECK_NEAR(api_distance(w.x, w.y, UNIONS_LOGITS), 0, 2e-6);
        CHECK_OK(unions_logits(&w, NULL, NULL, lens, 1, w.y));
        CHECK(api_distance(w.x + 9 * API_VOCAB, w.y + 9 * API_VOCAB, 3 * API_VOCAB) > 1e-2); /* beyond the window of 3 */
        unions_close(&w);
    }
    CHECK_OK(unions_open(&w, API_LLAMA));
    CHECK_OK(unions_add(&w, "x", "unipelt", "{'prefix_length':3,'bottleneck_size':5,'r':2}"));
    CHECK_STATUS(unions_logits(&w, "x", "{'chunk':5}", lens, 1, w.y), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("a row of 12 tokens takes several passes of 5");
    CHECK_ERROR_HAS("chunk to 12 or more");
    CHECK_OK(unions_logits(&w, "x", "{'chunk':12}", lens, 1, w.y));
    unions_close(&w);
}

/* Each option, from non-zero values: another number of parameters, other logits, or another loss in training. */
TEST(api_unions_every_option_changes_something) {
    static const char *const cases[][3] = {
        {"prefix_tuning", "", "'prefix_length':4"}, {"prefix_tuning", "", "'bottleneck_size':6"},
        {"prefix_tuning", "", "'non_linearity':'relu'"}, {"prefix_tuning", "", "'flat':true"}, {"prefix_tuning", "", "'dropout':0.5"},
        {"prefix_tuning", "", "'leave_out':[1]"}, {"prefix_tuning", "", "'use_gating':true"},
        {"prefix_tuning", "'use_gating':true,", "'shared_gating':false"},
        {"lora_hub", "", "'r':3"}, {"lora_hub", "", "'alpha':3"}, {"lora_hub", "", "'dropout':0.5"},
        {"lora_hub", "", "'attn_matrices':['q']"}, {"lora_hub", "'intermediate_lora':true,", "'selfattn_lora':false"},
        {"lora_hub", "", "'intermediate_lora':true"}, {"lora_hub", "", "'output_lora':true"}, {"lora_hub", "", "'leave_out':[0]"},
        {"lora_hub", "", "'init_weights':'bert'"}, {"lora_hub", "", "'use_gating':true"},
        {"mam", "", "'prefix_length':4"}, {"mam", "", "'bottleneck_size':6"}, {"mam", "", "'flat':true"},
        {"mam", "", "'prefix_non_linearity':'gelu'"}, {"mam", "", "'prefix_dropout':0.5"}, {"mam", "", "'reduction_factor':4"},
        {"mam", "", "'non_linearity':'gelu'"}, {"mam", "", "'scaling':'1.5'"}, {"mam", "", "'scaling':'learned'"},
        {"mam", "", "'dropout':0.5"}, {"mam", "", "'init_weights':'bert'"}, {"mam", "", "'use_gating':true"},
        {"mam", "'use_gating':true,", "'shared_gating':false"}, {"mam", "", "'leave_out':[1]"},
        {"unipelt", "", "'r':3"}, {"unipelt", "'use_gating':false,", "'alpha':3"}, {"unipelt", "", "'lora_dropout':0.5"},
        {"unipelt", "", "'attn_matrices':['v']"}, {"unipelt", "", "'use_gating':false"}, {"unipelt", "", "'reduction_factor':4"},
        {"unipelt", "", "'prefix_length':4"},
    };
    static unions_world w;
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        double loss[2] = {0, 0};
        float *logits[2] = {w.x, w.y};
        bool prefix = strcmp(cases[i][0], "lora_hub") != 0;
        CHECK_OK(unions_open(&w, API_LLAMA));
        for (int k = 0; k < 2; k++) {
            char options[256];
            const int64_t lens[] = {UNIONS_IDS};
            peft_trainer *t = NULL;
            peft_batch *b = NULL;
            bool sized = k == 1 && strstr(cases[i][2], "bottleneck_size") != NULL;
            (void)snprintf(options, sizeof options, "{%s'base_model_name_or_path':'z'%s%s%s%s}", cases[i][1],
                           prefix ? ",'init':'random'" : "",
                           prefix && !sized ? ",'bottleneck_size':5" : "", k == 1 ? "," : "", k == 1 ? cases[i][2] : "");
            CHECK_OK(unions_add(&w, k == 0 ? "x" : "y", cases[i][0], options));
            if (strstr(cases[i][2], "init_weights") == NULL) { CHECK_OK(api_shake(w.a, k == 0 ? "x" : "y", 0.3F)); }
            CHECK_OK(unions_row(&w, k == 0 ? "x" : "y", logits[k]));
            CHECK_OK(peft_trainer_create(w.a, NULL, &t));
            CHECK_OK(peft_trainer_add_job(t, k == 0 ? "x" : "y", NULL, NULL, NULL));
            CHECK_OK(api_batch(w.ctx, unions_ids, lens, 1, &b));
            CHECK_OK(peft_trainer_accumulate(t, b, &loss[k]));
            peft_batch_free(b);
            peft_trainer_free(t);
        }
        bool changed = unions_count(&w, "x") != unions_count(&w, "y") || api_distance(w.x, w.y, UNIONS_LOGITS) > 1e-5 ||
                       fabs(loss[0] - loss[1]) > 1e-6;
        CHECK_STR(changed ? cases[i][2] : "no change", cases[i][2]);
        unions_close(&w);
    }
}

TEST(api_unions_starts) {
    static unions_world w;
    char info[8192];
    size_t n = 0;
    const int32_t text[] = {1, 2, 3};
    float before[16], after[16];
    const char *bias = "model.prefix_tuning.prefix_tunings.self_prefix.control_trans.2.bias";
    CHECK_OK(unions_open(&w, API_LLAMA));
    CHECK_OK(unions_add(&w, "x", "mam", "{'prefix_length':3,'bottleneck_size':5,'leave_out':[1]}"));
    CHECK_OK(peft_adapters_info_json(w.a, "x", info, sizeof info, &n));
    CHECK(strstr(info, "\"init_text\":\"Below is a request.") != NULL);
    CHECK_OK(peft_adapters_tensor_read(w.a, "x", bias, before, 16, &n));
    CHECK_OK(peft_adapters_init(w.a, "x", text, 3));
    CHECK_OK(peft_adapters_tensor_read(w.a, "x", bias, after, 16, &n));
    CHECK(api_distance(before, after, 16) > 1e-4);
    CHECK_OK(unions_add(&w, "z", "prefix_tuning", "{'prefix_length':3,'flat':true,'init':'zero'}"));
    CHECK_OK(peft_adapters_tensor_read(w.a, "z", "model.prefix_tuning.prefix_tunings.self_prefix.control_trans", w.x, UNIONS_LOGITS, &n));
    CHECK_INT(n, 96);
    memset(w.y, 0, sizeof w.y);
    CHECK_NEAR(api_distance(w.x, w.y, n), 0, 0);
    CHECK_STATUS(unions_add(&w, "e", "prefix_tuning", "{'init_text':''}"), PEFT_E_KEY);
    CHECK_ERROR_HAS("init_text is empty");
    unions_close(&w);
}

/* ---- conversions ----------------------------------------------------------------------------------------------------- */

static void unions_convert(const char *config, const char *method, const char *options, const char *save, const char *loaded) {
    static unions_world w;
    static char info[8192];
    peft_options *o = NULL;
    size_t n = 0;
    const char *dir = runner_path(runner_tmpdir(), "converted");
    CHECK_OK(unions_open(&w, config));
    CHECK_OK(unions_add(&w, "x", method, options));
    CHECK_OK(api_shake(w.a, "x", 0.3F));
    CHECK_OK(api_options(w.ctx, "save", save, &o));
    CHECK_OK(peft_adapters_save(w.a, "x", dir, o));
    CHECK_OK(peft_adapters_load(w.a, "y", dir, NULL));
    CHECK_OK(peft_adapters_info_json(w.a, "y", info, sizeof info, &n));
    CHECK(strstr(info, loaded) != NULL);
    CHECK_OK(unions_row(&w, "x", w.x));
    CHECK_OK(unions_row(&w, "y", w.y));
    CHECK_NEAR(api_distance(w.x, w.y, UNIONS_LOGITS), 0, 2e-6);
    CHECK_OK(unions_row(&w, NULL, w.y));
    CHECK(api_distance(w.x, w.y, UNIONS_LOGITS) > 1e-3);
    peft_options_free(o);
    unions_close(&w);
}

TEST(api_unions_lora_between_the_libraries) {
    unions_convert(API_LLAMA, "lora", "{'r':3,'lora_alpha':5}", "{'format':'adapterhub'}", "\"method\":\"lora\"");
    unions_convert(API_LLAMA, "lora",
                   "{'r':2,'use_rslora':true,'target_modules':['k_proj','up_proj','down_proj'],'layers_to_transform':[1]}",
                   "{'format':'adapterhub'}", "\"method\":\"lora\"");
    unions_convert(API_LLAMA, "lora", "{'r':2,'init_lora_weights':'pissa'}", "{'format':'adapterhub'}", "\"method\":\"lora\"");
    unions_convert(API_GPT2, "lora", "{'r':3,'lora_alpha':5}", "{'format':'adapterhub'}", "\"method\":\"lora_hub\"");
    unions_convert(API_LLAMA, "lora_fa", "{'r':2}", "{'format':'adapterhub'}", "\"method\":\"lora\"");
    unions_convert(API_GPT2, "lora", "{'r':2,'target_modules':['c_fc']}", "{'format':'adapterhub'}", "\"method\":\"lora\"");
    unions_convert(API_GPT2, "lora_hub", "{'r':2,'alpha':3}", "{'method':'lora'}", "\"r\":4,\"lora_alpha\":6");
    unions_convert(API_GPT2, "lora_hub", "{'r':2,'alpha':3,'attn_matrices':['v'],'output_lora':true}", "{'method':'lora'}",
                   "\"r\":2,\"lora_alpha\":3");
    unions_convert(API_GPT2, "lora_hub", "{'r':2,'alpha':3,'attn_matrices':['k','v'],'output_lora':true}", "{'method':'lora'}",
                   "\"method\":\"lora\"");
    unions_convert(API_LLAMA, "lora_hub", "{'intermediate_lora':true}", "{}", "\"target_modules\":[\"q_proj\",\"v_proj\",\"down_proj\"]");
}

TEST(api_unions_lora_that_adapterhub_has_not) {
    static const char *const cases[][2] = {
        {"{'target_modules':['q_proj','o_proj']}", "\"model.layers.0.self_attn.o_proj\", where AdapterHub's library has none"},
        {"{'rank_pattern':{'v_proj':2}}", "rank 2 and factor 4 at \"model.layers.0.self_attn.v_proj\""},
        {"{'target_modules':['layers.0.self_attn.q_proj','v_proj']}", "no LoRA at \"model.layers.1.self_attn.q_proj\""},
        {"{'modules_to_save':['lm_head']}", "\"lm_head.weight\", a trained copy"},
        {"{'use_dora':true}", "DoRA's magnitudes"},
    };
    static unions_world w;
    peft_options *o = NULL;
    CHECK_OK(unions_open(&w, API_LLAMA));
    CHECK_OK(api_options(w.ctx, "save", "{'format':'adapterhub'}", &o));
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        char name[8];
        (void)snprintf(name, sizeof name, "x%zu", i);
        CHECK_OK(unions_add(&w, name, "lora", cases[i][0]));
        CHECK_STATUS(peft_adapters_save(w.a, name, runner_path(runner_tmpdir(), "no"), o), PEFT_E_UNSUPPORTED);
        CHECK_ERROR_HAS(cases[i][1]);
    }
    peft_options_free(o);
    o = NULL;
    CHECK_OK(unions_add(&w, "gated", "lora_hub", "{'use_gating':true}"));
    CHECK_OK(api_options(w.ctx, "save", "{'method':'lora'}", &o));
    CHECK_STATUS(peft_adapters_save(w.a, "gated", runner_path(runner_tmpdir(), "no"), o), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("has gates (use_gating)");
    CHECK_STATUS(peft_adapters_merge(w.a, "gated", runner_path(runner_tmpdir(), "no"), NULL), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("gates (use_gating), which depend on the row");
    peft_options_free(o);
    unions_close(&w);
}

/* ---- folders that are read ------------------------------------------------------------------------------------------- */

typedef struct unions_edit_case {
    const char *method, *options, *from, *to;
    peft_status status;
    const char *says; /* of the error, or of the options */
} unions_edit_case;

TEST(api_unions_folders_of_others) {
    static const unions_edit_case cases[] = {
        {"lora_hub", "{'r':4,'alpha':8}", "adapters.1.3.0", "adapters.1.0.1", PEFT_OK, "\"lora_alpha\":4"},
        {"lora_hub", "{'r':4,'alpha':8}", "adapters.1.3.0", "adapters.1.1.0", PEFT_OK, "\"lora_alpha\":8"},
        {"lora_hub", "{'r':4,'alpha':8}", "adapters.1.3.0", "0.2.0", PEFT_OK, "\"lora_alpha\":8"},
        {"lora_hub", "{}", "\"composition_mode\": \"add\"", "\"composition_mode\": \"scale\"", PEFT_E_UNSUPPORTED,
         "composition_mode is \"scale\""},
        {"lora_hub", "{}", "\"use_dora\": false", "\"use_dora\": true", PEFT_E_UNSUPPORTED, "use_dora is set"},
        {"lora_hub", "{}", "\"vera_d\": null", "\"vera_d\": 0.1", PEFT_E_UNSUPPORTED, "vera_d is set"},
        {"lora_hub", "{}", "\"r\": 8", "\"r\": 4", PEFT_E_SHAPE, "lora_A\" is [8, 16], expected [4, 16]"},
        {"lora_hub", "{}", "[\"q\", \"v\"]", "[\"q\", \"x\"]", PEFT_E_NOT_FOUND, "config"},
        {"lora_hub", "{}", "\"architecture\": \"lora\"", "\"architecture\": \"reft\"", PEFT_E_UNSUPPORTED, "architecture"},
        {"prefix_tuning", "{'prefix_length':3,'bottleneck_size':5}", "\"prefix_length\": 3", "\"prefix_length\": 0",
         PEFT_E_FORMAT, "prefix_length"},
        {"prefix_tuning", "{'prefix_length':3,'bottleneck_size':5}", "\"flat\": false", "\"flat\": true", PEFT_E_NOT_FOUND,
         "no tensor \"model.prefix_tuning.prefix_tunings.x.self_prefix.control_trans\""},
        {"mam", "{'prefix_length':3,'bottleneck_size':5}", "\"ln_after\": false", "\"ln_after\": true", PEFT_E_UNSUPPORTED,
         "the config of parallel has {\"ln_after\":true}, and method \"mam\" has {\"ln_after\":false} there"},
        {"mam", "{'prefix_length':3,'bottleneck_size':5}", "\"is_parallel\": true", "\"is_parallel\": false", PEFT_E_UNSUPPORTED,
         "a union of prefix_tuning, pfeiffer; this version reads"},
        {"unipelt", "{'prefix_length':3,'bottleneck_size':5}", "\"use_gating\": true", "\"use_gating\": false", PEFT_E_UNSUPPORTED,
         "{\"use_gating\":true}"},
        {"mam", "{'prefix_length':3,'bottleneck_size':5}", "\"hidden_size\": 16", "\"hidden_size\": 32", PEFT_E_SHAPE, "hidden size 32"},
    };
    static unions_world w;
    static char info[8192];
    const char *dir = runner_path(runner_tmpdir(), "edited");
    CHECK_OK(unions_open(&w, API_LLAMA));
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        const unions_edit_case *c = &cases[i];
        size_t n = 0;
        CHECK_OK(unions_add(&w, "x", c->method, c->options));
        CHECK_OK(peft_adapters_save(w.a, "x", dir, NULL));
        if (strstr(c->from, "[") != NULL) {
            peft_status st = unions_edit(dir, "\"q\"", "\"x\"");
            CHECK_OK(st);
            CHECK_STATUS(peft_adapters_load(w.a, "y", dir, NULL), PEFT_E_FORMAT);
            CHECK_ERROR_HAS("\"attn_matrices\" has \"x\", expected q, k or v");
        } else {
            CHECK_OK(unions_edit(dir, c->from, c->to));
            CHECK_STATUS(peft_adapters_load(w.a, "y", dir, NULL), c->status);
            if (c->status != PEFT_OK) { CHECK_ERROR_HAS(c->says); }
        }
        if (c->status == PEFT_OK) {
            CHECK_OK(peft_adapters_info_json(w.a, "y", info, sizeof info, &n));
            CHECK(strstr(info, c->says) != NULL);
            CHECK_OK(peft_adapters_remove(w.a, "y"));
        }
        CHECK_OK(peft_adapters_remove(w.a, "x"));
    }
    unions_close(&w);
}

TEST(api_unions_options_that_are_refused) {
    static unions_world w;
    CHECK_OK(unions_open(&w, API_LLAMA));
    CHECK_STATUS(unions_add(&w, "x", "lora_hub", "{'attn_matrices':['q','o']}"), PEFT_E_KEY);
    CHECK_ERROR_HAS("\"attn_matrices\" has \"o\", expected q, k or v");
    CHECK_STATUS(unions_add(&w, "x", "lora_hub", "{'selfattn_lora':false}"), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("leave no place for a LoRA");
    CHECK_STATUS(unions_add(&w, "x", "prefix_tuning", "{'leave_out':[0,1]}"), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("\"leave_out\" leaves no layer for a prefix");
    CHECK_STATUS(unions_add(&w, "x", "mam", "{'prefix_length':0}"), PEFT_E_KEY);
    CHECK_OK(unions_add(&w, "p", "prefix_tuning", "{'prefix_length':2,'flat':true,'use_gating':true}"));
    CHECK_OK(unions_add(&w, "q", "prefix_tuning", "{'prefix_length':2,'flat':true}"));
    CHECK_STATUS(unions_row(&w, "p, q", w.x), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("puts a prefix with gates beside another, or before some of the rows only");
    unions_close(&w);
}

/* Whatever allocation fails while a union is made, saved or read, it is said, and nothing stays behind. */
TEST(api_unions_without_memory) {
    api_host h = {0, 0, 0};
    peft_context *ctx = NULL;
    peft_model *m = NULL;
    peft_adapters *a = NULL;
    peft_options *o = NULL;
    const char *dir = runner_path(runner_tmpdir(), "saved");
    CHECK_OK(api_context(&h, &ctx));
    CHECK_OK(api_model(ctx, API_GPT2, &m));
    CHECK_OK(peft_adapters_create(m, &a));
    CHECK_OK(api_options(ctx, "method:unipelt", "{'prefix_length':2,'bottleneck_size':3,'leave_out':[1]}", &o));
    for (int what = 0; what < 3; what++) {
        bool done = false;
        for (size_t i = 1; !done; i++) {
            h.calls = 0;
            h.fail_at = i;
            peft_status st = what == 0   ? peft_adapters_add(a, "x", "unipelt", o, 1)
                             : what == 1 ? peft_adapters_save(a, "x", dir, NULL)
                                         : peft_adapters_load(a, "y", dir, NULL);
            h.fail_at = 0;
            done = st == PEFT_OK;
            if (!done) { CHECK_INT(st, PEFT_E_NOMEM); }
            CHECK(i < 5000);
        }
    }
    peft_options_free(o);
    peft_adapters_free(a);
    peft_model_free(m);
    peft_context_free(ctx);
    CHECK_INT(h.now, 0);
}
