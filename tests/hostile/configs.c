/* configs.c - config.json of model folders that mean harm: every size, number, switch and name of six families; rope scaling, labels,
 * layer types; and the files beside it: the index of shards, which leads to files of the folder only, generation_config.json, pickles. */
#include <unistd.h>

#include "hostile.h"

typedef enum config_kind { CONFIG_SIZE, CONFIG_NUMBER, CONFIG_SWITCH, CONFIG_TEXT, CONFIG_ID, CONFIG_KINDS } config_kind;

typedef struct config_key {
    const char *key;
    config_kind kind;
} config_key;

/* For the value of a key that the config has. */
static const hostile_value config_sizes[] = {
    {"-1", PEFT_E_FORMAT}, {"0", PEFT_E_FORMAT}, {"1.5", PEFT_E_FORMAT}, {"\"16\"", PEFT_E_FORMAT}, {"[16]", PEFT_E_FORMAT},
    {"{}", PEFT_E_FORMAT},
    {"true", PEFT_E_FORMAT}, {"1e30", PEFT_E_FORMAT}, {"2147483648", PEFT_E_FORMAT}, {"9223372036854775807", PEFT_E_FORMAT},
    {"9223372036854775808", PEFT_E_FORMAT}, {"99999999999999999999", PEFT_E_FORMAT}, {"\"\"", PEFT_E_FORMAT},
};
static const hostile_value config_numbers[] = {
    {"\"x\"", PEFT_E_FORMAT}, {"[]", PEFT_E_FORMAT}, {"{}", PEFT_E_FORMAT}, {"true", PEFT_E_FORMAT}};
static const hostile_value config_switches[] = {{"5", PEFT_E_FORMAT}, {"\"yes\"", PEFT_E_FORMAT}, {"[]", PEFT_E_FORMAT},
    {"{}", PEFT_E_FORMAT}, {"1", PEFT_E_FORMAT}};
static const hostile_value config_texts[] = {
    {"5", PEFT_E_FORMAT}, {"[]", PEFT_E_FORMAT}, {"{}", PEFT_E_FORMAT}, {"true", PEFT_E_FORMAT}, {"\"a\\u0000b\"", PEFT_E_FORMAT},
    {"\"swoosh\"", PEFT_E_UNSUPPORTED}, {"\"\"", PEFT_E_UNSUPPORTED}};
static const hostile_value config_id_values[] = {
    {"-2", PEFT_E_FORMAT}, {"1.5", PEFT_E_FORMAT}, {"\"2\"", PEFT_E_FORMAT}, {"{}", PEFT_E_FORMAT}, {"true", PEFT_E_FORMAT},
    {"[]", PEFT_E_FORMAT},
    {"[-1]", PEFT_E_FORMAT}, {"[\"a\"]", PEFT_E_FORMAT}, {"2147483648", PEFT_E_FORMAT}};
static const struct {
    const hostile_value *values;
    size_t n;
} config_values[CONFIG_KINDS] = {
    [CONFIG_SIZE] = {config_sizes, PEFT__COUNT(config_sizes)},        [CONFIG_NUMBER] = {config_numbers, PEFT__COUNT(config_numbers)},
    [CONFIG_SWITCH] = {config_switches, PEFT__COUNT(config_switches)}, [CONFIG_TEXT] = {config_texts, PEFT__COUNT(config_texts)},
    [CONFIG_ID] = {config_id_values, PEFT__COUNT(config_id_values)},
};

static const char config_gpt2[] = API_GPT2;
static const char config_bert[] =
    "{\"model_type\":\"bert\",\"vocab_size\":14,\"hidden_size\":16,\"num_hidden_layers\":2,\"num_attention_heads\":2,"
    "\"intermediate_size\":24,"
    "\"max_position_embeddings\":16,\"type_vocab_size\":2,\"layer_norm_eps\":1e-12,\"hidden_act\":\"gelu\",\"tie_word_embeddings\":true}";
static const char config_t5[] =
    "{\"model_type\":\"t5\",\"vocab_size\":14,\"d_model\":16,\"d_kv\":6,\"d_ff\":20,\"num_layers\":2,\"num_decoder_layers\":3,"
    "\"num_heads\":2,"
    "\"relative_attention_num_buckets\":8,\"relative_attention_max_distance\":16,\"layer_norm_epsilon\":1e-6,\"tie_word_embeddings\":true,"
    "\"decoder_start_token_id\":0,\"eos_token_id\":1}";
static const char config_bart[] =
    "{\"model_type\":\"bart\",\"vocab_size\":14,\"d_model\":16,\"encoder_layers\":2,\"decoder_layers\":3,\"encoder_attention_heads\":2,"
    "\"decoder_attention_heads\":4,\"encoder_ffn_dim\":20,\"decoder_ffn_dim\":24,\"max_position_embeddings\":20,\"scale_embedding\":true,"
    "\"activation_function\":\"gelu\",\"tie_word_embeddings\":true,\"decoder_start_token_id\":2,\"eos_token_id\":2,\"bos_token_id\":0}";
static const char config_gemma2[] =
    "{\"model_type\":\"gemma2\",\"vocab_size\":14,\"hidden_size\":16,\"intermediate_size\":24,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_dim\":8,\"max_position_embeddings\":48,\"sliding_window\":8,"
    "\"query_pre_attn_scalar\":16,"
    "\"rms_norm_eps\":1e-6,\"attn_logit_softcapping\":50.0,\"final_logit_softcapping\":30.0,\"hidden_activation\":\"gelu_pytorch_tanh\"}";
static const char config_llama[] = API_LLAMA;

static const config_key config_llama_keys[] = {
    {"hidden_size", CONFIG_SIZE}, {"intermediate_size", CONFIG_SIZE}, {"num_hidden_layers", CONFIG_SIZE},
    {"num_attention_heads", CONFIG_SIZE},
    {"num_key_value_heads", CONFIG_SIZE}, {"vocab_size", CONFIG_SIZE}, {"max_position_embeddings", CONFIG_SIZE},
    {"rms_norm_eps", CONFIG_NUMBER},
    {"hidden_act", CONFIG_TEXT}, {"model_type", CONFIG_TEXT}, {"tie_word_embeddings", CONFIG_SWITCH}, {"bos_token_id", CONFIG_ID},
    {"eos_token_id", CONFIG_ID}};
static const config_key config_gpt2_keys[] = {
    {"n_embd", CONFIG_SIZE}, {"n_layer", CONFIG_SIZE}, {"n_head", CONFIG_SIZE}, {"n_positions", CONFIG_SIZE}, {"vocab_size", CONFIG_SIZE},
    {"layer_norm_epsilon", CONFIG_NUMBER}, {"activation_function", CONFIG_TEXT}, {"eos_token_id", CONFIG_ID}};
static const config_key config_bert_keys[] = {
    {"hidden_size", CONFIG_SIZE}, {"num_hidden_layers", CONFIG_SIZE}, {"num_attention_heads", CONFIG_SIZE},
    {"intermediate_size", CONFIG_SIZE},
    {"vocab_size", CONFIG_SIZE}, {"max_position_embeddings", CONFIG_SIZE}, {"layer_norm_eps", CONFIG_NUMBER}, {"hidden_act", CONFIG_TEXT},
    {"tie_word_embeddings", CONFIG_SWITCH}};
static const config_key config_t5_keys[] = {
    {"d_model", CONFIG_SIZE}, {"d_kv", CONFIG_SIZE}, {"d_ff", CONFIG_SIZE}, {"num_layers", CONFIG_SIZE},
    {"num_decoder_layers", CONFIG_SIZE},
    {"num_heads", CONFIG_SIZE}, {"vocab_size", CONFIG_SIZE}, {"relative_attention_num_buckets", CONFIG_SIZE},
    {"layer_norm_epsilon", CONFIG_NUMBER},
    {"tie_word_embeddings", CONFIG_SWITCH}};
static const config_key config_bart_keys[] = {
    {"d_model", CONFIG_SIZE}, {"encoder_layers", CONFIG_SIZE}, {"decoder_layers", CONFIG_SIZE}, {"encoder_attention_heads", CONFIG_SIZE},
    {"decoder_attention_heads", CONFIG_SIZE}, {"encoder_ffn_dim", CONFIG_SIZE}, {"decoder_ffn_dim", CONFIG_SIZE},
    {"vocab_size", CONFIG_SIZE},
    {"max_position_embeddings", CONFIG_SIZE}, {"scale_embedding", CONFIG_SWITCH}, {"activation_function", CONFIG_TEXT}};
static const config_key config_gemma2_keys[] = {
    {"head_dim", CONFIG_SIZE}, {"sliding_window", CONFIG_SIZE}, {"query_pre_attn_scalar", CONFIG_NUMBER},
    {"attn_logit_softcapping", CONFIG_NUMBER},
    {"final_logit_softcapping", CONFIG_NUMBER}, {"hidden_activation", CONFIG_TEXT}};

#define CONFIG_FAMILY(name) {#name, config_##name, config_##name##_keys, PEFT__COUNT(config_##name##_keys)}
static const struct {
    const char *name, *config;
    const config_key *keys;
    size_t n;
} config_families[] = {CONFIG_FAMILY(llama), CONFIG_FAMILY(gpt2), CONFIG_FAMILY(bert), CONFIG_FAMILY(t5), CONFIG_FAMILY(bart),
    CONFIG_FAMILY(gemma2)};

/* What fits no tensor, or no other key. */
static const hostile_swap config_llama_swaps[] = {
    {NULL, "\"hidden_size\": 16", "\"hidden_size\": 20", PEFT_E_SHAPE, "embed_tokens"},
    {NULL, "\"hidden_size\": 16", "\"hidden_size\": 18", PEFT_E_FORMAT, "columns of a head"},
    {NULL, "\"hidden_size\": 16", "\"hidden_size\": 15", PEFT_E_FORMAT, "hidden_size"},
    {NULL, "\"intermediate_size\": 24", "\"intermediate_size\": 25", PEFT_E_SHAPE, "mlp."},
    {NULL, "\"vocab_size\": 14", "\"vocab_size\": 15", PEFT_E_SHAPE, "embed_tokens"},
    {NULL, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", PEFT_E_NOT_FOUND, "layers.2"},
    {NULL, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 4096", PEFT_E_NOT_FOUND, "layers.2"},
    {NULL, "\"num_attention_heads\": 2", "\"num_attention_heads\": 3", PEFT_E_FORMAT, "heads"},
    {NULL, "\"num_key_value_heads\": 1", "\"num_key_value_heads\": 2", PEFT_E_SHAPE, "k_proj"},
    {NULL, "\"num_key_value_heads\": 1", "\"num_key_value_heads\": 3", PEFT_E_FORMAT, "heads"},
    {NULL, "\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": -1", PEFT_E_FORMAT, "epsilon"},
    {NULL, "\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 1", PEFT_E_FORMAT, "epsilon"},
    {NULL, "\"hidden_act\"", "\"head_dim\": 7, \"hidden_act\"", PEFT_E_FORMAT, "7"},
    {NULL, "\"hidden_act\"", "\"head_dim\": 4, \"hidden_act\"", PEFT_E_SHAPE, "q_proj"},
    {NULL, "\"hidden_act\"", "\"attention_bias\": true, \"hidden_act\"", PEFT_E_NOT_FOUND, "q_proj.bias"},
    {NULL, "\"hidden_act\"", "\"rope_theta\": 0, \"hidden_act\"", PEFT_E_FORMAT, "rope"},
    {NULL, "\"hidden_act\"", "\"rope_theta\": -1, \"hidden_act\"", PEFT_E_FORMAT, "rope"},
    {NULL, "\"hidden_act\"", "\"rope_theta\": \"x\", \"hidden_act\"", PEFT_E_FORMAT, "rope_theta"},
    {NULL, "\"hidden_act\"", "\"rope_scaling\": 5, \"hidden_act\"", PEFT_E_FORMAT, "rope_scaling"},
    {NULL, "\"hidden_act\"", "\"rope_scaling\": [], \"hidden_act\"", PEFT_E_FORMAT, "rope_scaling"},
    {NULL, "\"hidden_act\"", "\"rope_scaling\": {\"type\": \"spiral\"}, \"hidden_act\"", PEFT_E_UNSUPPORTED, "spiral"},
    {NULL, "\"hidden_act\"", "\"rope_scaling\": {\"rope_type\": 5}, \"hidden_act\"", PEFT_E_FORMAT, "rope_type"},
    {NULL, "\"hidden_act\"", "\"rope_scaling\": {\"type\": \"linear\"}, \"hidden_act\"", PEFT_E_FORMAT, "factor"},
    {NULL, "\"hidden_act\"", "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 0}, \"hidden_act\"", PEFT_E_FORMAT, "factor"},
    {NULL, "\"hidden_act\"", "\"rope_scaling\": {\"type\": \"linear\", \"factor\": -2}, \"hidden_act\"", PEFT_E_FORMAT, "factor"},
    {NULL, "\"hidden_act\"", "\"rope_scaling\": {\"type\": \"linear\", \"factor\": \"2\"}, \"hidden_act\"", PEFT_E_FORMAT, "factor"},
    {NULL, "\"hidden_act\"", "\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8}, \"hidden_act\"", PEFT_E_FORMAT, "low_freq_factor"},
    {NULL, "\"hidden_act\"", "\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, \"high_freq_factor\": 4, "
     "\"original_max_position_embeddings\": 8}, \"hidden_act\"", PEFT_E_FORMAT, "freq_factor"},
    {NULL, "\"hidden_act\"", "\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": 4, "
     "\"original_max_position_embeddings\": 0}, \"hidden_act\"", PEFT_E_FORMAT, "original_max_position_embeddings"},
    {NULL, "\"hidden_act\"",
     "\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1], \"long_factor\": [1,1,1,1]}, \"hidden_act\"", PEFT_E_FORMAT,
         "short_factor"},
    {NULL, "\"hidden_act\"",
     "\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1,1,1,\"x\"], \"long_factor\": [1,1,1,1]}, \"hidden_act\"",
         PEFT_E_FORMAT, "short_factor"},
    {NULL, "\"model_type\": \"llama\"", "\"model_type\": \"gpt2\"", PEFT_E_FORMAT, "n_embd"},
    {NULL, "\"model_type\": \"llama\"", "\"model_type\": \"llama-9\"", PEFT_E_UNSUPPORTED, "llama-9"},
    {NULL, "\"model_type\": \"llama\"", "\"architectures\": [\"MadeUp\"]", PEFT_E_FORMAT, "model_type"},
    {NULL, "\"model_type\": \"llama\",", "", PEFT_E_FORMAT, "model_type"},
    {NULL, "\"hidden_act\"", "\"quantization_config\": {\"quant_method\": \"gptq\"}, \"hidden_act\"", PEFT_E_UNSUPPORTED, NULL},
};

static void config_family(size_t f) {
    hostile h;
    if (hostile_begin(&h, config_families[f].name, hostile_open_model) && hostile_save_model(&h, config_families[f].config,
        "") == PEFT_OK &&
        hostile_take(&h, "config.json", false)) {
        for (size_t i = 0; i < config_families[f].n; i++) {
            const config_key *k = &config_families[f].keys[i];
            hostile_values(&h, k->key, config_values[k->kind].values, config_values[k->kind].n);
        }
        if (f == 0) { hostile_swaps(&h, config_llama_swaps, PEFT__COUNT(config_llama_swaps)); }
    }
    hostile_end(&h);
}

/* ---- the index of shards ------------------------------------------------------------------------------------------ */

static bool config_index(hostile *h) {
    char text[8192];
    size_t at = (size_t)snprintf(text, sizeof text, "{\"metadata\":{\"total_size\":1},\"weight_map\":{");
    if (!hostile_take(h, "model.safetensors", false) || !hostile_write(h->dir, "model-1.safetensors", h->good, h->len)) { return false; }
    for (const char *p = strstr(h->good + 8, "\":{\"dtype\""); p != NULL; p = strstr(p + 1, "\":{\"dtype\"")) {
        const char *name = p - 1;
        while (*name != '"') { name--; }
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%.*s:\"model-1.safetensors\"", text[at - 1] == '{' ? "" : ",",
            (int)(p + 1 - name), name);
    }
    at += (size_t)snprintf(text + at, sizeof text - at, "}}");
    hostile_remove(h, "model.safetensors");
    return hostile_write(h->dir, "model.safetensors.index.json", text, at) && hostile_take(h, "model.safetensors.index.json", false);
}

#if !defined(_WIN32)
/* Of a shard that is a link: to the file beside it, out of the folder, to another link, to nothing, to itself. */
static void config_links(hostile *h) {
    char from[700], to[700];
    (void)snprintf(from, sizeof from, "%s/model-1.safetensors", h->dir);
    (void)snprintf(to, sizeof to, "%s/blob", h->dir);
    hostile_holds(h, "a link", peft__sys_rename(from, to) == 0 && symlink("blob", from) == 0);
    hostile_taken(h, "a shard that is a link", h->good, h->len);
    static const char *const outside[] = {"/etc/hostname", "../blob", "..", "sub/blob", "./blob", "../../blobs/../blob", "../../blobs/"
                                          "sub/blob", "../../blobs/.."};
    for (size_t i = 0; i < PEFT__COUNT(outside); i++) {
        hostile_remove(h, "model-1.safetensors");
        hostile_holds(h, "a link out of the folder", symlink(outside[i], from) == 0 && h->open(h, NULL) == PEFT_E_FORMAT &&
            strstr(peft_last_error(), "model-1.safetensors: a link that leads out of its folder") != NULL);
    }
    hostile_remove(h, "model-1.safetensors");
    hostile_holds(h, "a link to a link", symlink("second", from) == 0);
    (void)snprintf(from, sizeof from, "%s/second", h->dir);
    hostile_holds(h, "which leads out", symlink("/etc/hostname", from) == 0 && h->open(h, NULL) == PEFT_E_FORMAT);
    hostile_remove(h, "second");
    hostile_holds(h, "or in", symlink("blob", from) == 0 && h->open(h, NULL) == PEFT_E_FORMAT);
    hostile_remove(h, "second");
    hostile_remove(h, "model-1.safetensors");
    (void)snprintf(from, sizeof from, "%s/model-1.safetensors", h->dir);
    hostile_holds(h, "a link again", symlink("blob", from) == 0);
    hostile_remove(h, "blob");
    hostile_holds(h, "a link to nothing", h->open(h, NULL) == PEFT_E_NOT_FOUND && strstr(peft_last_error(),
        "model-1.safetensors") != NULL);
    hostile_remove(h, "model-1.safetensors");
    hostile_holds(h, "a link to itself", symlink("model-1.safetensors", from) == 0 && h->open(h, NULL) == PEFT_E_FORMAT &&
                                             strstr(peft_last_error(), "model-1.safetensors") != NULL);
    hostile_remove(h, "model-1.safetensors");
}
#endif

static void config_shards(void) {
    static const hostile_value places[] = {
        {"\"../model-1.safetensors\"", PEFT_E_FORMAT}, {"\"../../../etc/passwd\"", PEFT_E_FORMAT}, {"\"/etc/passwd\"", PEFT_E_FORMAT},
        {"\"/dev/zero\"", PEFT_E_FORMAT},
        {"\"sub/model-1.safetensors\"", PEFT_E_FORMAT}, {"\"./model-1.safetensors\"", PEFT_E_FORMAT},
        {"\"link/model-1.safetensors\"", PEFT_E_FORMAT}, {"\"..\"", PEFT_E_FORMAT},
        {"\".\"", PEFT_E_FORMAT}, {"\"\"", PEFT_E_FORMAT}, {"\"C:\\\\x.safetensors\"", PEFT_E_FORMAT},
        {"\"C:x.safetensors\"", PEFT_E_FORMAT}, {"\"..\\\\x.safetensors\"", PEFT_E_FORMAT},
        {"\"\\\\\\\\host\\\\share\\\\x\"", PEFT_E_FORMAT}, {"\"file:///etc/passwd\"", PEFT_E_FORMAT},
        {"\"http://localhost/x\"", PEFT_E_FORMAT},
        {"\"a\\u0000b\"", PEFT_E_FORMAT}, {"5", PEFT_E_FORMAT}, {"null", PEFT_E_FORMAT}, {"[\"model-1.safetensors\"]", PEFT_E_FORMAT},
        {"{}", PEFT_E_FORMAT}, {"true", PEFT_E_FORMAT},
    };
    static const hostile_value maps[] = {{"[]", PEFT_E_FORMAT}, {"5", PEFT_E_FORMAT}, {"null", PEFT_E_FORMAT}, {"{}", PEFT_E_FORMAT},
        {"\"x\"", PEFT_E_FORMAT}};
    hostile h;
    if (hostile_begin(&h, "shards", hostile_open_model) && hostile_save_model(&h, API_LLAMA, "") == PEFT_OK && config_index(&h)) {
        hostile_values(&h, "model.norm.weight", places, PEFT__COUNT(places));
        hostile_values(&h, "weight_map", maps, PEFT__COUNT(maps));
        static const hostile_swap swaps[] = {
            {"a tensor that is in no file", "\"model.norm.weight\"", "\"model.norm.wait\"", PEFT_E_NOT_FOUND, "model.norm.wait"},
            {"a tensor twice", "\"model.norm.weight\":", "\"lm_head.weight\":\"model-1.safetensors\",\"model.norm.weight\":",
             PEFT_E_FORMAT, "lm_head.weight"},
            {"another key", "\"weight_map\"", "\"weight_mop\"", PEFT_E_FORMAT, "weight_map"},
        };
        hostile_swaps(&h, swaps, PEFT__COUNT(swaps));
        hostile_cuts(&h, h.len - 2, 10, PEFT_E_FORMAT);
        static const hostile_value none[] = {{"\"model-2.safetensors\"", PEFT_E_NOT_FOUND}};
        size_t len = 0;
        const char *at = hostile_find(h.good, "model.norm.weight", &len);
        char *data = malloc(h.len + 64);
        if (data != NULL) { /* the file that is missing is the one that is named */
            int n = snprintf(data, h.len + 64, "%.*s%s%s", (int)(at - h.good), h.good, none[0].text, at + len);
            hostile_holds(&h, "written", hostile_write(h.dir, h.name, data, (size_t)n));
            hostile_holds(&h, "a file that is not there", h.open(&h, NULL) == PEFT_E_NOT_FOUND && strstr(peft_last_error(),
                "model-2.safetensors") != NULL);
            hostile_holds(&h, "written", hostile_write(h.dir, h.name, h.good, h.len));
        }
        free(data);
#if !defined(_WIN32)
        config_links(&h);
#endif
    }
    hostile_end(&h);
}

/* ---- files beside the config -------------------------------------------------------------------------------------- */

static void config_beside(void) {
    static const char *const bad[] = {"", "5", "[]", "{", "{\"decoder_start_token_id\":\"x\"}", "{\"decoder_start_token_id\":1.5}",
        "{\"decoder_start_token_id\":-5}",
                                      "{\"decoder_start_token_id\":[0]}", "{\"decoder_start_token_id\":9999999999}"};
    static const char more[] = "{\"decoder_start_token_id\":0,\"max_length\":20,\"x\":null}";
    hostile h;
    if (hostile_begin(&h, "generation config", hostile_open_model) && hostile_save_model(&h, config_t5, "") == PEFT_OK &&
        hostile_write(h.dir, "generation_config.json", "{\"decoder_start_token_id\":0}", 28) && hostile_take(&h,
            "generation_config.json", false)) {
        for (size_t i = 0; i < PEFT__COUNT(bad); i++) { hostile_refused(&h, bad[i], bad[i], strlen(bad[i]), PEFT_E_FORMAT, NULL); }
        hostile_taken(&h, "unknown keys", more, sizeof more - 1);
    }
    hostile_end(&h);
    if (hostile_begin(&h, "pickle", hostile_open_model) && hostile_save_model(&h, API_LLAMA, "") == PEFT_OK) {
        static const char pickle[] = "\x80\x02" "cposix\nsystem\nq\x01X\x04\x00\x00\x00trueq\x02\x85q\x03Rq\x04.";
        (void)snprintf(h.what, sizeof h.what, "%s", h.dir);
        hostile_remove(&h, "model.safetensors");
        hostile_holds(&h, "no weights", h.open(&h, NULL) == PEFT_E_NOT_FOUND && strstr(peft_last_error(), "model.safetensors") != NULL);
        hostile_holds(&h, "written", hostile_write(h.dir, "pytorch_model.bin", pickle, sizeof pickle - 1));
        hostile_holds(&h, "a pickle is named and not read", h.open(&h, NULL) == PEFT_E_UNSUPPORTED && strstr(peft_last_error(),
            "pytorch_model.bin") != NULL);
    }
    hostile_end(&h);
}

void hostile_configs(void) {
    for (size_t i = 0; i < PEFT__COUNT(config_families); i++) { config_family(i); }
    config_shards();
    config_beside();
}
