/* api_families_test.c - every registered method over every family: an adapter acts, comes back from its folder, merges into a folder
 * that says the same, and continues a text by the cache as it does by whole rows. Numbers against other libraries are
 * tests/peers/test_conformance.py; this needs nothing but the library, and finds what reads where it should not. */
#include "api/api.h"
#include "api_kit.h"
#include "peft/method.h"

typedef struct families_family {
    const char *title, *config;
    const char *projections, *norms; /* target_modules where there is no default; NULL: there is one */
    bool biases;
} families_family;

#define SIZES "'hidden_size':16,'num_hidden_layers':2,'num_attention_heads':2,'vocab_size':14,'max_position_embeddings':48," \
              "'bos_token_id':null,'eos_token_id':12,"
#define GROUPS "'num_key_value_heads':1,'intermediate_size':24,"
#define GEMMA GROUPS "'head_dim':16,'query_pre_attn_scalar':12,'sliding_window':4,'layer_types':['sliding_attention','full_attention']"

static const families_family families_all[] = {
    {"Qwen2", "{" SIZES GROUPS "'model_type':'qwen2','tie_word_embeddings':true}", NULL, NULL, true},
    {"Qwen3", "{" SIZES GROUPS "'model_type':'qwen3','head_dim':16}", NULL, NULL, false},
    {"Gemma 2", "{" SIZES GEMMA ",'model_type':'gemma2'}", NULL, NULL, false},
    {"Gemma 3", "{" SIZES GEMMA ",'model_type':'gemma3_text'}", NULL, NULL, false},
    {"Phi-3", "{" SIZES "'model_type':'phi3','intermediate_size':24,'sliding_window':4,'partial_rotary_factor':0.5}",
     "['qkv_proj','down_proj']",
     "['input_layernorm','norm']", false},
    {"Phi-3, longrope", "{" SIZES "'model_type':'phi3','intermediate_size':24,'original_max_position_embeddings':8,'rope_scaling':{'type':"
     "'longrope','short_factor':[1,1,2,2],'long_factor':[2,3,4,5]}}", "['qkv_proj','gate_up_proj']", "['norm']", false},
    {"OLMo 2", "{" SIZES GROUPS "'model_type':'olmo2'}", "['q_proj','v_proj']", "['q_norm','post_feedforward_layernorm']", false},
    {"GPT-NeoX", "{" SIZES "'model_type':'gpt_neox','intermediate_size':24,'rotary_pct':0.5}", NULL,
     "['input_layernorm','final_layer_norm']",
     true},
    {"StableLM", "{" SIZES GROUPS "'model_type':'stablelm','use_qkv_bias':true}", "['q_proj','v_proj']",
     "['input_layernorm','norm']", true},
    {"OPT", "{" SIZES "'model_type':'opt','ffn_dim':24}", NULL, "['final_layer_norm']", true},
    {"OPT, as 350m", "{" SIZES "'model_type':'opt','ffn_dim':24,'do_layer_norm_before':false,'word_embed_proj_dim':8}", NULL,
     "['self_attn_layer_norm']", true},
};

/* Options that a method cannot do without, or is too large without. */
static const char *const families_options[][2] = {
    {"trainable_tokens", "{'token_indices':[1,4,5]}"},
    {"union", "{'parts':['p','q']}"},
    {"prompt", "{'num_virtual_tokens':3}"},
    {"multitask_prompt", "{'num_virtual_tokens':3,'num_tasks':1}"},
    {"ptuning", "{'num_virtual_tokens':3}"},
    {"prefix", "{'num_virtual_tokens':3}"},
    {"ptuning_v2", "{'num_virtual_tokens':3}"},
    {"prefix_tuning", "{'prefix_length':3,'bottleneck_size':8}"},
    {"mam", "{'prefix_length':3,'bottleneck_size':8,'reduction_factor':4}"},
    {"unipelt", "{'prefix_length':3,'bottleneck_size':8,'reduction_factor':4}"},
    {"adalora", "{'init_r':3,'target_r':2}"},
    {"fusion", "{'adapters':['p','q']}"},
    {"houlsby", "{'reduction_factor':2}"},
    {"pfeiffer", "{'reduction_factor':2}"},
    {"parallel", "{'reduction_factor':2}"},
    {"houlsby_inv", "{'reduction_factor':2}"},
    {"pfeiffer_inv", "{'reduction_factor':2}"},
    {"compacter", "{'reduction_factor':2}"},
    {"compacter++", "{'reduction_factor':2}"},
};
/* Gates are means over the tokens of a pass: one by one they are others than in a row. */
static const char *const families_gated[] = {"unipelt"};

static const int32_t families_ids[] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 7, 0};
enum { FAMILIES_IDS = 11, FAMILIES_NEW = 5, FAMILIES_LOGITS = (FAMILIES_IDS + FAMILIES_NEW) * API_VOCAB };

typedef struct families_world {
    const families_family *family;
    const char *method;
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    int passed;                  /* checks that came to their ends */
    float one[FAMILIES_LOGITS], two[FAMILIES_LOGITS];
} families_world;

static const char *families_targets(const families_world *w, const char *method) {
    const peft__method *known = peft__method_find(method);
    bool tokens = strcmp(method, "trainable_tokens") == 0; /* whose target is the table of tokens */
    if (tokens || peft__schema_find(known->schema, "target_modules") == NULL) { return NULL; }
    return strcmp(method, "ln_tuning") == 0 ? w->family->norms : w->family->projections;
}

static peft_status families_put(const families_world *w, const char *name, const char *method) {
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    char schema[64], targets[128];
    const char *options = "{}", *list = families_targets(w, method);
    for (size_t i = 0; i < PEFT__COUNT(families_options); i++) {
        if (strcmp(families_options[i][0], method) == 0) { options = families_options[i][1]; }
    }
    (void)snprintf(schema, sizeof schema, "method:%s", method);
    TRY(api_options(w->ctx, schema, options, &o));
    if (list != NULL) {
        (void)snprintf(targets, sizeof targets, "%s", list);
        for (char *c = targets; *c != '\0'; c++) { *c = *c == '\'' ? '"' : *c; }
        TRY(peft_options_set_text(o, "target_modules", targets));
        if (strcmp(method, "ia3") == 0) { TRY(peft_options_set_text(o, "feedforward_modules", "[]")); }
    }
    TRY(peft_adapters_add(w->a, name, method, o, 5));
out:
    peft_options_free(o);
    return st;
}

/* "x" of the world's method, and what it is made of; shaken. */
static peft_status families_add(const families_world *w) {
    peft_status st = PEFT_OK;
    bool fusion = strcmp(w->method, "fusion") == 0;
    if (fusion || strcmp(w->method, "union") == 0) {
        TRY(families_put(w, "p", fusion ? "pfeiffer" : "lora"));
        TRY(families_put(w, "q", fusion ? "pfeiffer" : "ia3"));
    }
    TRY(families_put(w, "x", w->method));
    if (fusion) { TRY(api_shake(w->a, "p", 0.3F)); }
    TRY(api_shake(w->a, "x", 0.2F));
out:
    return st;
}

static peft_status families_logits(const families_world *w, peft_model *m, peft_adapters *a, const int32_t *ids, int64_t n, float *out) {
    peft_status st = PEFT_OK;
    peft_session *s = NULL;
    peft_batch *b = NULL;
    TRY(peft_session_create(m, a, a != NULL ? "x" : NULL, NULL, &s));
    TRY(api_batch(w->ctx, ids, &n, 1, &b));
    TRY(peft_session_logits(s, b, out, FAMILIES_LOGITS, NULL));
out:
    peft_batch_free(b);
    peft_session_free(s);
    return st;
}

/* How far the second logits are from the first, as a share of the largest. */
static double families_gap(const families_world *w) {
    double most = 0;
    for (int i = 0; i < FAMILIES_IDS * API_VOCAB; i++) { most = fmax(most, fabs((double)w->one[i])); }
    return api_distance(w->one, w->two, FAMILIES_IDS * API_VOCAB) / most;
}

/* Its folder, in another set. */
static void families_folder(families_world *w) {
    const char *dir = runner_path(runner_tmpdir(), "adapter");
    peft_adapters *again = NULL;
    CHECK_OK(peft_adapters_save(w->a, "x", dir, NULL));
    if (strcmp(w->method, "fusion") == 0 || strcmp(w->method, "full") == 0) { /* it needs its parts; it is a model */
        w->passed++;
        return;
    }
    CHECK_OK(peft_adapters_create(w->m, &again));
    peft_status st = peft_adapters_load(again, "x", dir, NULL);
    if (st == PEFT_OK) { st = families_logits(w, w->m, again, families_ids, FAMILIES_IDS, w->two); }
    peft_adapters_free(again);
    CHECK_OK(st);
    CHECK_NEAR(families_gap(w), 0, strcmp(w->method, "lora_hub") == 0 ? 2e-6 : 0); /* that comes back as lora */
    w->passed++;
}

/* Merged, where it can be. */
static void families_merge(families_world *w) {
    const char *dir = runner_path(runner_tmpdir(), "merged");
    peft_model *m = NULL;
    peft_status st = peft_adapters_merge(w->a, "x", dir, NULL);
    if (st == PEFT_E_UNSUPPORTED) {
        CHECK_ERROR_HAS("\"x\"");
        CHECK(strcmp(w->method, "lora") != 0 && strcmp(w->method, "lora_hub") != 0 && strcmp(w->method, "full") != 0);
        w->passed++;
        return;
    }
    CHECK_OK(st);
    CHECK_OK(peft_model_open(w->ctx, dir, NULL, &m));
    st = families_logits(w, m, NULL, families_ids, FAMILIES_IDS, w->two);
    peft_model_free(m);
    CHECK_OK(st);
    CHECK_NEAR(families_gap(w), 0, 2e-5);
    w->passed++;
}

/* Tokens that are chosen by the cache are those that whole rows choose. */
static void families_generate(families_world *w) {
    int32_t ids[FAMILIES_IDS + FAMILIES_NEW];
    peft_session *s = NULL;
    peft_options *o = NULL;
    size_t n = 0;
    memcpy(ids, families_ids, sizeof families_ids);
    CHECK_OK(peft_session_create(w->m, w->a, "x", NULL, &s));
    CHECK_OK(api_options(w->ctx, "generate", "{'max_new_tokens':5,'temperature':0,'ignore_eos':true}", &o));
    peft_status st = peft_session_generate(s, NULL, families_ids, FAMILIES_IDS, o, NULL, NULL, ids + FAMILIES_IDS, FAMILIES_NEW, &n);
    peft_options_free(o);
    peft_session_free(s);
    CHECK_OK(st);
    CHECK(n >= 1);
    CHECK_OK(families_logits(w, w->m, w->a, ids, FAMILIES_IDS + (int64_t)n - 1, w->two));
    for (size_t i = 0; i < n; i++) {
        const float *row = w->two + (FAMILIES_IDS + i - 1) * API_VOCAB;
        float most = row[0];
        for (int k = 1; k < API_VOCAB; k++) { most = fmaxf(most, row[k]); }
        CHECK_NEAR(row[ids[FAMILIES_IDS + i]], most, 1e-5);
    }
    w->passed++;
}

static bool families_is_gated(const char *method) {
    bool gated = false;
    for (size_t i = 0; i < PEFT__COUNT(families_gated); i++) { gated = gated || strcmp(families_gated[i], method) == 0; }
    return gated;
}

static void families_method(families_world *w) {
    if (strcmp(w->method, "bitfit") == 0 && !w->family->biases) {
        CHECK_STATUS(families_add(w), PEFT_E_NOT_FOUND);
        CHECK_ERROR_HAS("there is no bias to train");
        w->passed = 4;
        return;
    }
    CHECK_OK(families_add(w));
    CHECK_OK(families_logits(w, w->m, NULL, families_ids, FAMILIES_IDS, w->two));
    CHECK_OK(families_logits(w, w->m, w->a, families_ids, FAMILIES_IDS, w->one));
    CHECK(families_gap(w) > 1e-4);
    w->passed++;
    families_folder(w);
    families_merge(w);
    if (families_is_gated(w->method)) {
        w->passed++;
    } else {
        families_generate(w);
    }
}

static peft_status families_open(families_world *w) {
    char config[1024];
    (void)snprintf(config, sizeof config, "%s", w->family->config);
    for (char *c = config; *c != '\0'; c++) { *c = *c == '\'' ? '"' : *c; }
    peft_status st = peft_context_create(NULL, &w->ctx);
    if (st == PEFT_OK) { st = peft__model_random(w->ctx, config, strlen(config), 3, 0.2, &w->m); }
    return st == PEFT_OK ? peft_adapters_create(w->m, &w->a) : st;
}

TEST(families_take_every_method) {
    static families_world w;
    for (size_t f = 0; f < PEFT__COUNT(families_all); f++) {
        for (size_t i = 0; peft__method_at(i) != NULL; i++) {
            memset(&w, 0, sizeof w);
            w.family = &families_all[f];
            w.method = peft__method_at(i)->name;
            peft_status st = families_open(&w);
            if (st == PEFT_OK) { families_method(&w); }
            if (w.passed != 4) { printf("%s, %s: %d of 4 checks\n", w.family->title, w.method, w.passed); }
            peft_adapters_free(w.a);
            peft_model_free(w.m);
            peft_context_free(w.ctx);
            CHECK_OK(st);
        }
    }
}

/* Parts of q, k and v that are not of one size. */
TEST(families_lora_of_thirds_is_refused_with_groups) {
    families_family grouped = {"", "{" SIZES GROUPS "'model_type':'phi3'}", "['qkv_proj']", "['norm']", false};
    families_world w = {.family = &grouped, .method = "lora_hub"};
    CHECK_OK(families_open(&w));
    CHECK_STATUS(families_add(&w), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("three equal parts");
    w.method = "lora";
    CHECK_OK(families_add(&w));
    peft_adapters_free(w.a);
    peft_model_free(w.m);
    peft_context_free(w.ctx);
}
