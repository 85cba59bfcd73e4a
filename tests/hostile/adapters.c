/* adapters.c - adapters that mean harm: adapter_config.json of each kind that PEFT has, key by key; the tensors beside it; AdapterHub's
 * config; llama.cpp's LoRA files; pickles; numbers that are none; and unusual ones that are right. */
#include "hostile.h"

/* What it makes of four tokens. */
static peft_status adapter_open(hostile *h, uint64_t *print) {
    static const int32_t ids[4] = {1, 5, 9, 2};
    static const int64_t four = 4;
    peft_status st = PEFT_OK;
    peft_adapters *a = NULL;
    peft_session *s = NULL;
    peft_batch *b = NULL;
    float logits[4 * API_VOCAB];
    size_t n = 0;
    TRY(peft_adapters_create(h->base, &a));
    TRY(peft_adapters_load(a, "x", h->what, NULL));
    if (print == NULL) { goto out; }
    TRY(api_batch(h->ctx, ids, &four, 1, &b));
    TRY(peft_session_create(h->base, a, "x", NULL, &s));
    TRY(peft_session_logits(s, b, logits, PEFT__COUNT(logits), &n));
    *print = hostile_hash(1, logits, n * sizeof *logits);
out:
    peft_session_free(s);
    peft_batch_free(b);
    peft_adapters_free(a);
    return st;
}

static bool adapter_begin(hostile *h, const char *const method[2], const char *name) {
    peft_adapters *a = NULL;
    char path[700];
    if (!hostile_begin(h, method[0], adapter_open)) { return false; }
    (void)snprintf(path, sizeof path, "%s%s%s", h->dir, name[0] != '\0' ? "/" : "", name);
    bool good = api_model(h->ctx, API_LLAMA, &h->base) == PEFT_OK && peft_adapters_create(h->base, &a) == PEFT_OK &&
                api_adapter(h->ctx, a, "x", method, 3, 0.1F) == PEFT_OK && peft_adapters_save(a, "x", path, NULL) == PEFT_OK;
    if (!good) { (void)fprintf(stderr, "%s: %s\n", method[0], peft_last_error()); }
    hostile_holds(h, "an adapter is saved", good);
    peft_adapters_free(a);
    return good;
}

/* ---- configs ------------------------------------------------------------------------------------------------------- */

typedef enum adapter_kind { ADAPTER_SIZE, ADAPTER_NUMBER, ADAPTER_SWITCH, ADAPTER_NAME, ADAPTER_LIST, ADAPTER_OBJECT,
    ADAPTER_KINDS } adapter_kind;

static const hostile_value adapter_sizes[] = {{"-1", PEFT_E_FORMAT}, {"0", PEFT_E_FORMAT}, {"1.5", PEFT_E_FORMAT},
    {"\"8\"", PEFT_E_FORMAT}, {"[8]", PEFT_E_FORMAT}, {"{}", PEFT_E_FORMAT},
                                              {"true", PEFT_E_FORMAT}, {"1e30", PEFT_E_FORMAT}, {"9223372036854775807", PEFT_E_FORMAT},
                                              {"9223372036854775808", PEFT_E_FORMAT}};
static const hostile_value adapter_numbers[] = {{"\"x\"", PEFT_E_FORMAT}, {"[]", PEFT_E_FORMAT}, {"{}", PEFT_E_FORMAT},
    {"true", PEFT_E_FORMAT}};
static const hostile_value adapter_switches[] = {{"5", PEFT_E_FORMAT}, {"\"yes\"", PEFT_E_FORMAT}, {"[]", PEFT_E_FORMAT},
    {"{}", PEFT_E_FORMAT}};
static const hostile_value adapter_names[] = {{"5", PEFT_E_FORMAT}, {"\"nobody's\"", PEFT_E_FORMAT}, {"[]", PEFT_E_FORMAT},
    {"{}", PEFT_E_FORMAT}, {"true", PEFT_E_FORMAT}, {"\"a\\u0000b\"", PEFT_E_FORMAT}};
static const hostile_value adapter_lists[] = {{"5.5", PEFT_E_FORMAT}, {"true", PEFT_E_FORMAT}, {"{}", PEFT_E_FORMAT},
    {"[null]", PEFT_E_FORMAT}, {"[[\"a\"]]", PEFT_E_FORMAT}};
static const hostile_value adapter_objects[] = {{"5.5", PEFT_E_FORMAT}, {"true", PEFT_E_FORMAT}, {"[1]", PEFT_E_FORMAT}};
static const struct {
    const hostile_value *values;
    size_t n;
} adapter_values[ADAPTER_KINDS] = {
    [ADAPTER_SIZE] = {adapter_sizes, PEFT__COUNT(adapter_sizes)},       [ADAPTER_NUMBER] = {adapter_numbers, PEFT__COUNT(adapter_numbers)},
    [ADAPTER_SWITCH] = {adapter_switches, PEFT__COUNT(adapter_switches)}, [ADAPTER_NAME] = {adapter_names, PEFT__COUNT(adapter_names)},
    [ADAPTER_LIST] = {adapter_lists, PEFT__COUNT(adapter_lists)},       [ADAPTER_OBJECT] = {adapter_objects, PEFT__COUNT(adapter_objects)},
};

static const struct {
    const char *method[2]; /* as api_adapter takes it */
    struct {
        const char *key;
        adapter_kind kind;
    } keys[9]; /* up to the first NULL */
} adapter_methods[] = {
    {{"lora", "{'r':4,'target_modules':['q_proj','v_proj']}"},
     {{"r", ADAPTER_SIZE}, {"lora_alpha", ADAPTER_NUMBER}, {"lora_dropout", ADAPTER_NUMBER}, {"bias", ADAPTER_NAME},
     {"use_rslora", ADAPTER_SWITCH},
      {"target_modules", ADAPTER_LIST}, {"modules_to_save", ADAPTER_LIST}, {"rank_pattern", ADAPTER_OBJECT},
      {"alpha_pattern", ADAPTER_OBJECT}}},
    {{"ia3", NULL}, {{"target_modules", ADAPTER_LIST}, {"feedforward_modules", ADAPTER_LIST}}},
    {{"prompt", "{'num_virtual_tokens':3}"}, {{"num_virtual_tokens", ADAPTER_SIZE}}},
    {{"prefix", "{'num_virtual_tokens':3}"}, {{"num_virtual_tokens", ADAPTER_SIZE}, {"prefix_projection", ADAPTER_SWITCH}}},
    {{"ptuning", "{'num_virtual_tokens':3}"}, {{"num_virtual_tokens", ADAPTER_SIZE}, {"encoder_reparameterization_type", ADAPTER_NAME}}},
    {{"adalora", NULL}, {{"init_r", ADAPTER_SIZE}, {"target_r", ADAPTER_SIZE}, {"lora_alpha", ADAPTER_NUMBER}}},
    {{"loha", "{'r':4}"}, {{"r", ADAPTER_SIZE}, {"alpha", ADAPTER_NUMBER}, {"target_modules", ADAPTER_LIST}}},
    {{"lokr", "{'r':4}"}, {{"r", ADAPTER_SIZE}, {"alpha", ADAPTER_NUMBER}, {"decompose_both", ADAPTER_SWITCH}}},
    {{"vera", "{'r':4}"}, {{"r", ADAPTER_SIZE}, {"d_initial", ADAPTER_NUMBER}, {"projection_prng_key", ADAPTER_NUMBER}}},
    {{"oft", "{'oft_block_size':4}"}, {{"coft", ADAPTER_SWITCH}, {"block_share", ADAPTER_SWITCH}, {"target_modules", ADAPTER_LIST}}},
    {{"boft", "{'boft_block_size':4}"}, {{"boft_n_butterfly_factor", ADAPTER_SIZE}, {"target_modules", ADAPTER_LIST}}},
    {{"ln_tuning", NULL}, {{"target_modules", ADAPTER_LIST}}},
};

static void adapter_configs(void) {
    hostile h;
    for (size_t m = 0; m < PEFT__COUNT(adapter_methods); m++) {
        if (adapter_begin(&h, adapter_methods[m].method, "") && hostile_take(&h, "adapter_config.json", false)) {
            for (size_t k = 0; k < 9 && adapter_methods[m].keys[k].key != NULL; k++) {
                hostile_values(&h, adapter_methods[m].keys[k].key, adapter_values[adapter_methods[m].keys[k].kind].values,
                               adapter_values[adapter_methods[m].keys[k].kind].n);
            }
            static const hostile_value types[] = {{"5", PEFT_E_FORMAT}, {"[]", PEFT_E_FORMAT}, {"{}", PEFT_E_FORMAT},
                {"\"\"", PEFT_E_UNSUPPORTED}, {"\"LORA9\"", PEFT_E_UNSUPPORTED},
                                                  {"\"lora\"", PEFT_E_UNSUPPORTED}, {"true", PEFT_E_FORMAT}, {"null", PEFT_E_FORMAT}};
            if (m == 0) { hostile_values(&h, "peft_type", types, PEFT__COUNT(types)); }
        }
        hostile_end(&h);
    }
}

/* ---- what does not fit, and what is unusual, of a LoRA ---------------------------------------------------------------- */

static const hostile_swap adapter_lora_swaps[] = {
    {NULL, "\"r\": 4", "\"r\": 5", PEFT_E_SHAPE, "lora_A"}, {NULL, "\"r\": 4", "\"r\": 2", PEFT_E_SHAPE, "lora_A"},
    {"memory for what the file has not", "\"r\": 4", "\"r\": 1000", PEFT_E_SHAPE, "no room"},
    {"the same", "\"r\": 4", "\"r\": 65536", PEFT_E_SHAPE, "no room"},
    {NULL, "\"target_modules\": [", "\"target_modules\": [\"k_proj\", ", PEFT_E_NOT_FOUND, "k_proj"},
    {NULL, "\"target_modules\": [", "\"target_modules\": \"(((\", \"was\": [", PEFT_E_INVALID, "pattern \"(((\""},
    {NULL, "\"peft_type\"", "\"poft_type\"", PEFT_E_FORMAT, "peft_type"},
    {NULL, "\"r\": 4", "\"r\": 4, \"rank_pattern\": {\"q_proj\": \"x\"}", PEFT_E_FORMAT, "pattern \"q_proj\""},
    {NULL, "\"r\": 4", "\"r\": 4, \"alpha_pattern\": {\"q_proj\": {}}", PEFT_E_FORMAT, "pattern \"q_proj\""},
    {NULL, "\"r\": 4", "\"r\": 4, \"rank_pattern\": {\"q_proj\": 0}", PEFT_E_FORMAT, "q_proj"},
    {NULL, "\"r\": 4", "\"r\": 4, \"rank_pattern\": {\"q_proj\": 3}", PEFT_E_SHAPE, "lora_A"},
    {NULL, "\"r\": 4", "\"r\": 4, \"rank_pattern\": {\"(\": 3}", PEFT_E_INVALID, "is not closed"},
};

static void adapter_lora(void) {
    static const char *const lora[2] = {"lora", "{'r':4,'target_modules':['q_proj','v_proj']}"};
    static const struct { const char *what, *from, *to; } unusual[] = {
        {"a byte order mark", "{", "\xEF\xBB\xBF{"}, {"unknown keys", "{", "{\"corda_config\":null,\"note\":{\"a\":[1]},"},
        {"a key of another version", "{", "{\"velora_config\":null,"},
        {"a number otherwise written", "\"lora_dropout\": 0.0", "\"lora_dropout\": -0.0e-5"}, {"spaces", "{", " \r\n\t{ "},
        {"a name that no module has, among others", "\"target_modules\": [", "\"target_modules\": [\"nothing_here\","},
    };
    hostile h;
    if (adapter_begin(&h, lora, "") && hostile_take(&h, "adapter_config.json", false)) {
        static const hostile_value layers[] = {{"[99]", PEFT_E_NOT_FOUND}, {"[-1]", PEFT_E_FORMAT}, {"[\"a\"]", PEFT_E_FORMAT},
            {"true", PEFT_E_FORMAT}, {"1.5", PEFT_E_FORMAT}};
        static const hostile_value dropouts[] = {{"-0.5", PEFT_E_FORMAT}, {"1.5", PEFT_E_FORMAT}, {"1e300", PEFT_E_FORMAT}};
        static const hostile_value targets[] = {{"[5]", PEFT_E_NOT_FOUND}, {"[\"nothing_here\"]", PEFT_E_NOT_FOUND},
            {"\"nothing_here\"", PEFT_E_NOT_FOUND}};
        hostile_values(&h, "layers_to_transform", layers, PEFT__COUNT(layers));
        hostile_values(&h, "lora_dropout", dropouts, PEFT__COUNT(dropouts));
        hostile_values(&h, "target_modules", targets, PEFT__COUNT(targets));
        hostile_swaps(&h, adapter_lora_swaps, PEFT__COUNT(adapter_lora_swaps));
        hostile_cuts(&h, h.len - 2, 20, PEFT_E_FORMAT);
        for (size_t i = 0; i < PEFT__COUNT(unusual); i++) {
            char *text = malloc(h.len + 200);
            const char *at = strstr(h.good, unusual[i].from);
            int n = text == NULL || at == NULL ? 0 : snprintf(text, h.len + 200, "%.*s%s%s", (int)(at - h.good), h.good, unusual[i].to,
                at + strlen(unusual[i].from));
            if (n > 0) { hostile_taken(&h, unusual[i].what, text, (size_t)n); } else { hostile_holds(&h, unusual[i].what, false); }
            free(text);
        }
        if (hostile_take(&h, "adapter_model.safetensors", false)) {
            static const uint32_t odd[] = {0x7fc00000, 0x7f800000, 0xff800000, 0x7f800001};
            hostile_header(&h, 3);
            for (size_t i = 0; i < PEFT__COUNT(odd); i++) {
                uint8_t word[4];
                peft__set_u32(word, odd[i]);
                hostile_spliced(&h, "a number that is none", h.len - 4, 4, word, 4, PEFT_E_NUMERIC, "lora_");
            }
        }
        static const char pickle[] = "\x80\x02" "cposix\nsystem\nq\x01X\x04\x00\x00\x00trueq\x02\x85q\x03Rq\x04.";
        hostile_remove(&h, "adapter_model.safetensors");
        hostile_holds(&h, "no tensors", h.open(&h, NULL) == PEFT_E_NOT_FOUND && strstr(peft_last_error(),
            "adapter_model.safetensors") != NULL);
        hostile_holds(&h, "written", hostile_write(h.dir, "adapter_model.bin", pickle, sizeof pickle - 1));
        hostile_holds(&h, "a pickle is named and not read", h.open(&h, NULL) == PEFT_E_UNSUPPORTED && strstr(peft_last_error(),
            "adapter_model.bin") != NULL);
    }
    hostile_end(&h);
}

/* ---- AdapterHub's folders, llama.cpp's files ------------------------------------------------------------------------- */

static void adapter_hub(void) {
    static const char *const hub[2] = {"houlsby", "{'reduction_factor':4}"};
    static const hostile_value factors[] = {{"\"x\"", PEFT_E_FORMAT}, {"[]", PEFT_E_FORMAT}, {"true", PEFT_E_FORMAT},
        {"0", PEFT_E_FORMAT}, {"-1", PEFT_E_FORMAT}};
    static const hostile_value shapes[] = {{"\"x\"", PEFT_E_FORMAT}, {"[]", PEFT_E_FORMAT}};
    static const hostile_value acts[] = {{"5", PEFT_E_FORMAT}, {"[]", PEFT_E_FORMAT}};
    hostile h;
    if (adapter_begin(&h, hub, "") && hostile_take(&h, "adapter_config.json", false)) {
        hostile_values(&h, "reduction_factor", factors, PEFT__COUNT(factors));
        hostile_values(&h, "hidden_size", shapes, PEFT__COUNT(shapes));
        static const hostile_swap other[] = {{NULL, "\"hidden_size\": 16", "\"hidden_size\": 32", PEFT_E_SHAPE, "hidden size 32"}};
        hostile_swaps(&h, other, 1);
        hostile_values(&h, "non_linearity", acts, PEFT__COUNT(acts));
        hostile_values(&h, "mh_adapter", adapter_switches, PEFT__COUNT(adapter_switches));
        hostile_cuts(&h, h.len - 2, 10, PEFT_E_FORMAT);
        if (hostile_take(&h, "adapter.safetensors", false)) { hostile_header(&h, 6); }
    }
    hostile_end(&h);
}

static void adapter_gguf(void) {
    static const char *const lora[2] = {"lora", "{'r':4,'target_modules':['q_proj','v_proj']}"};
    static const hostile_swap swaps[] = {
        {"an architecture", "llama", "lloma", PEFT_E_SHAPE, "lloma"}, {"a type", "general.type", "general.tape", PEFT_E_FORMAT, NULL},
        {"a kind", "adapter.type", "adapter.tape", PEFT_E_UNSUPPORTED, "adapter.type"},
        {"a tensor of no module", "blk.0.attn_q", "blk.0.attn_z", PEFT_E_NOT_FOUND, "attn_z"},
        {"a layer that is not there", "blk.1.attn_q", "blk.9.attn_q", PEFT_E_NOT_FOUND, "blk.9"},
        {"a tensor of no half", "weight.lora_a", "weight.lora_c", PEFT_E_FORMAT, "lora_c"},
        {"a magic", "GGUF", "GGJT", PEFT_E_NOT_FOUND, NULL}, /* then it is no file of adapters, and a folder it is not */
    };
    hostile h;
    if (adapter_begin(&h, lora, "x.gguf") && hostile_take(&h, "x.gguf", true)) {
        uint8_t word[8];
        hostile_swaps(&h, swaps, PEFT__COUNT(swaps));
        hostile_refused(&h, "nothing", "", 0, PEFT_E_NOT_FOUND, NULL);
        char what[64];
        for (size_t len = 4; len < h.len; len += 1 + h.len / 40) {
            (void)snprintf(what, sizeof what, "cut at %zu", len);
            hostile_refused(&h, what, h.good, len, PEFT_E_FORMAT, NULL);
        }
        for (size_t i = 0; i < 2; i++) {
            static const uint64_t counts[] = {1 << 24, (uint64_t)1 << 40, UINT64_MAX};
            for (size_t c = 0; c < PEFT__COUNT(counts); c++) {
                peft__set_u64(word, counts[c]);
                hostile_spliced(&h, "a count", 8 + 8 * i, 8, word, 8, PEFT_E_FORMAT, "claimed");
            }
        }
        peft__set_u32(word, 0x7fc00000);
        hostile_spliced(&h, "a number that is none", h.len - 4, 4, word, 4, PEFT_E_NUMERIC, "attn_");
    }
    hostile_end(&h);
}

void hostile_adapters(void) {
    adapter_configs();
    adapter_lora();
    adapter_hub();
    adapter_gguf();
}
