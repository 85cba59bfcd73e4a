/* api_bad_adapters_test.c - whatever is wrong with an adapter or what is asked of it: the status, what the message names, and that
 * the set stays as it was: its count, its names, and the logits of the adapters in it to the bit.
 *
 * The list is of kinds of mistakes, one or two examples each. More examples of a kind: configs and tensors of PEFT in
 * peft_format_test.c, of AdapterHub in peft_compacter_test.c, of unions and fusions in api_compose_test.c, of GGUF in
 * api_save_test.c, sizes in peft_oft_test.c and peft_compacter_test.c, expressions in api_compose_test.c; for every method
 * EXISTS, NOT_FOUND, BUSY and the merge of what cannot be merged in peft_properties_test.c. */

#include "api/api.h"
#include "api_kit.h"
#include "peft/method.h"

#define BAD_CONFIG                                                                                           \
    "{\"model_type\":\"llama\",\"hidden_size\":16,\"intermediate_size\":24,\"num_hidden_layers\":2,"         \
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"vocab_size\":14,\"max_position_embeddings\":48,"  \
    "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"attention_bias\":true,\"tie_word_embeddings\":false,"   \
    "\"bos_token_id\":null,\"eos_token_id\":12}"
enum { BAD_IDS = 7, BAD_LOGITS = BAD_IDS * API_VOCAB, BAD_WORDS = 3, BAD_KEPT = 6 };

/* What is in the set: name, method, options. */
static const char *const bad_kept[BAD_KEPT][3] = {
    {"l", "lora", "{'r':2}"}, {"s", "ia3", "{}"}, {"p", "prompt", "{'num_virtual_tokens':3}"},
     {"b", "pfeiffer", "{'reduction_factor':2}"},
    {"f", "fusion", "{'adapters':['b']}"}, {"u", "union", "{'parts':['l','p']}"}};

typedef struct bad_world {
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    const char *dir;
    float before[BAD_KEPT][BAD_LOGITS], after[BAD_LOGITS];
} bad_world;

static peft_status bad_add(bad_world *w, const char *name, const char *method, const char *options) {
    const char *const what[2] = {method, options};
    return api_adapter(w->ctx, w->a, name, what, 5, 0);
}

static peft_status bad_logits(bad_world *w, const char *name, float *out) {
    static const int32_t ids[BAD_IDS] = {3, 1, 4, 1, 5, 9, 2};
    static const int64_t lens[] = {BAD_IDS};
    peft_status st = PEFT_OK;
    peft_session *s = NULL;
    peft_batch *b = NULL;
    TRY(peft_session_create(w->m, w->a, name, NULL, &s));
    TRY(api_batch(w->ctx, ids, lens, 1, &b));
    TRY(peft_session_logits(s, b, out, BAD_LOGITS, NULL));
out:
    peft_batch_free(b);
    peft_session_free(s);
    return st;
}

static peft_status bad_open(bad_world *w) {
    peft_status st = PEFT_OK;
    memset(w, 0, sizeof *w);
    w->dir = runner_tmpdir();
    TRY(peft_context_create(NULL, &w->ctx));
    TRY(peft__model_random(w->ctx, BAD_CONFIG, strlen(BAD_CONFIG), 3, 0.2, &w->m));
    TRY(peft_adapters_create(w->m, &w->a));
    for (size_t i = 0; i < BAD_KEPT; i++) {
        TRY(bad_add(w, bad_kept[i][0], bad_kept[i][1], bad_kept[i][2]));
        if (i < 4) { TRY(api_shake(w->a, bad_kept[i][0], 0.2F)); }
    }
    for (size_t i = 0; i < BAD_KEPT; i++) { TRY(bad_logits(w, bad_kept[i][0], w->before[i])); }
out:
    return st;
}

static void bad_close(bad_world *w) {
    peft_adapters_free(w->a);
    peft_model_free(w->m);
    peft_context_free(w->ctx);
}

/* Is the set as it was? */
static bool bad_same(bad_world *w) {
    bool same = peft_adapters_count(w->a) == BAD_KEPT;
    for (size_t i = 0; i < BAD_KEPT && same; i++) {
        same = strcmp(peft_adapters_name(w->a, i), bad_kept[i][0]) == 0 && bad_logits(w, bad_kept[i][0], w->after) == PEFT_OK &&
               memcmp(w->before[i], w->after, sizeof w->after) == 0;
    }
    return same;
}

/* Did it fail as it should, and leave the set alone? */
static bool bad_is(bad_world *w, const char *what, peft_status st, peft_status code, const char *const *words) {
    char text[2048];
    (void)snprintf(text, sizeof text, "%s", peft_last_error());
    bool ok = st == code;
    for (size_t i = 0; i < BAD_WORDS && words[i] != NULL; i++) { ok = ok && strstr(text, words[i]) != NULL; }
    bool same = bad_same(w);
    if (!ok || !same) {
        printf("  %s: status %d, expected %d%s: %s\n", what, (int)st, (int)code, same ? "" : ", the set changed", text);
    }
    return ok && same;
}

/* ---- adding --------------------------------------------------------------------------------------------------------------- */

typedef struct bad_addition {
    const char *name, *method, *options;
    peft_status code;
    const char *words[BAD_WORDS];
} bad_addition;

static const bad_addition bad_additions[] = {
    {"l", "lora", NULL, PEFT_E_EXISTS, {"there is an adapter \"l\" already"}},
    {"x", "lorra", NULL, PEFT_E_UNSUPPORTED, {"there is no method \"lorra\"", "did you mean \"lora\"?"}},
    {"x", "qqqqqqqq", NULL, PEFT_E_UNSUPPORTED, {"there is no method \"qqqqqqqq\"; known: lora, "}},
    /* an option of no method, of another one; a value out of its range, of no choice, of another type */
    {"x", "lora", "{'lora_alhpa':3}", PEFT_E_KEY, {"\"lora_alhpa\"", "did you mean \"lora_alpha\""}},
    {"x", "ia3", "{'lora_alpha':3}", PEFT_E_KEY, {"unknown key \"lora_alpha\"", "known: ", "feedforward_modules"}},
    {"x", "lora", "{'r':0}", PEFT_E_KEY, {"\"r\" is 0, expected 1 to"}},
    {"x", "lora", "{'bias':'some'}", PEFT_E_KEY, {"\"bias\" is \"some\"", "lora_only"}},
    {"x", "lora", "{'r':'many'}", PEFT_E_KEY, {"\"r\""}},
    /* more rank than the matrix has; k_proj and v_proj are 8 x 16 */
    {"x", "lora", "{'r':17,'target_modules':['q_proj']}", PEFT_E_SHAPE,
     {"rank 17 of \"model.layers.0.self_attn.q_proj\" is more than its 16 x 16 weight has", "at most 16"}},
    {"x", "lora", "{'r':9}", PEFT_E_SHAPE, {"rank 9 of \"model.layers.0.self_attn.v_proj\"", "8 x 16", "at most 8"}},
    {"x", "dora", "{'r':4,'rank_pattern':{'v_proj':12}}", PEFT_E_SHAPE,
     {"rank 12 of \"model.layers.0.self_attn.v_proj\"", "8 x 16"}},
    {"x", "lora_fa", "{'r':100}", PEFT_E_SHAPE, {"rank 100", "16 x 16"}},
    {"x", "loha", "{'r':17}", PEFT_E_SHAPE, {"rank 17", "16 x 16"}},
    /* groups that do not divide */
    {"x", "oft", "{'oft_block_size':5}", PEFT_E_SHAPE,
     {"oft_block_size is 5", "16 columns of \"model.layers.0.self_attn.q_proj\""}},
    {"x", "oft", "{'r':3}", PEFT_E_SHAPE, {"r is 3, which does not divide the 16 columns"}},
    {"x", "boft", "{'boft_block_size':5}", PEFT_E_SHAPE, {"boft_block_size is 5", "16 columns"}},
    {"x", "boft", "{'boft_block_size':0,'boft_block_num':3}", PEFT_E_SHAPE, {"boft_block_num is 3", "16 columns"}},
    {"x", "compacter", "{'reduction_factor':2,'phm_dim':3}", PEFT_E_KEY, {"phm_dim 3 does not divide the hidden size 16"}},
    {"x", "compacter++", "{'reduction_factor':8}", PEFT_E_KEY, {"phm_dim 4 does not divide the bottleneck's width 2"}},
    /* nothing to hang on */
    {"x", "lora", "{'target_modules':['q_porj']}", PEFT_E_NOT_FOUND, {"q_porj", "did you mean \"q_proj\""}},
    {"x", "loha", "{'layers_to_transform':[7]}", PEFT_E_NOT_FOUND, {"7"}},
    /* made of others */
    {"x", "fusion", "{'adapters':['b','zebra']}", PEFT_E_NOT_FOUND,
     {"there is no adapter \"zebra\"; there are: l, s, p, b, f, u"}},
    {"x", "fusion", "{'adapters':['b','l']}", PEFT_E_UNSUPPORTED,
     {"adapter \"l\" is a \"lora\", and a fusion takes bottleneck adapters"}},
    {"x", "fusion", "{'adapters':['f']}", PEFT_E_UNSUPPORTED, {"adapter \"f\" is a \"fusion\""}},
    {"x", "fusion", NULL, PEFT_E_KEY, {"option \"adapters\" of fusion \"x\" names 0 adapters"}},
    {"x", "union", "{'parts':['l','zebra']}", PEFT_E_NOT_FOUND,
     {"there is no adapter \"zebra\"; there are: l, s, p, b, f, u"}},
    {"x", "union", NULL, PEFT_E_KEY, {"option \"parts\" of union \"x\" names no adapters"}},
    {"x", "prompt", "{'init_from':'/no/such/folder'}", PEFT_E_NOT_FOUND, {"/no/such/folder"}},
};

TEST(bad_adapters_added) {
    static bad_world w;
    int bad = 0;
    CHECK_OK(bad_open(&w));
    for (size_t i = 0; i < PEFT__COUNT(bad_additions); i++) {
        const bad_addition *c = &bad_additions[i];
        char what[256];
        (void)snprintf(what, sizeof what, "%s %s", c->method, c->options != NULL ? c->options : "");
        bad += !bad_is(&w, what, bad_add(&w, c->name, c->method, c->options), c->code, c->words);
    }
    bad_close(&w);
    CHECK_INT(bad, 0);
}

/* Each method that there is is in the list of known ones. */
TEST(bad_adapters_known_methods_are_all_named) {
    static bad_world w;
    char text[2048], name[80];
    CHECK_OK(bad_open(&w));
    CHECK_STATUS(peft_adapters_add(w.a, "x", "zebra", NULL, 1), PEFT_E_UNSUPPORTED);
    (void)snprintf(text, sizeof text, "%s,", peft_last_error());
    for (size_t i = 0; peft_method_name(i) != NULL; i++) {
        (void)snprintf(name, sizeof name, " %s,", peft_method_name(i));
        CHECK_STR(strstr(text, name) != NULL ? name : text, name);
    }
    bad_close(&w);
}

/* ---- reading -------------------------------------------------------------------------------------------------------------- */

static bool bad_write(const char *dir, const char *name, const void *data, size_t n) {
    FILE *f = fopen(runner_path(dir, name), "wb");
    bool ok = f != NULL && fwrite(data, 1, n, f) == n;
    return f != NULL && fclose(f) == 0 && ok;
}

/* A safetensors file: its header with ' for ", and `floats` values, the one number `nan` of which is none; -1: all are. */
static bool bad_tensors(const char *dir, const char *name, const char *header, int floats, int nan, size_t cut) {
    static unsigned char file[4096];
    size_t n = strlen(header), at = 8;
    for (size_t i = 0; i < 8; i++) { file[i] = (unsigned char)((uint64_t)n >> (8 * i)); }
    for (size_t i = 0; i < n; i++) { file[at++] = header[i] == '\'' ? '"' : (unsigned char)header[i]; }
    for (int i = 0; i < floats; i++) {
        float v = i == nan ? NAN : 0.01F * (float)(i % 7 - 3);
        memcpy(file + at, &v, sizeof v);
        at += sizeof v;
    }
    return bad_write(dir, name, file, at - cut);
}

#define BAD_LORA "{'peft_type':'LORA','r':2,'target_modules':['q_proj'],'layers_to_transform':[0]}"
#define BAD_Q "base_model.model.model.layers.0.self_attn.q_proj."
#define BAD_A BAD_A_OF("F32", "2,16")
#define BAD_B ",'" BAD_Q "lora_B.weight':{'dtype':'F32','shape':[16,2],'data_offsets':[128,256]}"
#define BAD_A_OF(dtype, shape) "'" BAD_Q "lora_A.weight':{'dtype':'" dtype "','shape':[" shape "],'data_offsets':[0,128]}"
#define BAD_MADE(base) "'__metadata__':{'libpeft.base':'" base "'},"

typedef struct bad_folder {
    const char *config, *header; /* ' for "; header NULL: no file of tensors */
    int floats, nan;             /* values in it; -1: all are numbers */
    size_t cut;                  /* bytes that are missing at its end */
    peft_status code;
    const char *words[BAD_WORDS];
} bad_folder;

static const bad_folder bad_folders[] = {
    {BAD_LORA, "{" BAD_A BAD_B "}", 64, -1, 0, PEFT_OK, {NULL}}, /* as it should be */
    /* configs */
    {"[1]", "{" BAD_A BAD_B "}", 64, -1, 0, PEFT_E_FORMAT, {"adapter_config.json", "not a JSON object"}},
    {"3", "{" BAD_A BAD_B "}", 64, -1, 0, PEFT_E_FORMAT, {"adapter_config.json", "not a JSON object"}},
    {"{'peft_type':'LORA',", "{" BAD_A BAD_B "}", 64, -1, 0, PEFT_E_FORMAT, {"adapter_config.json"}},
    {"", "{" BAD_A BAD_B "}", 64, -1, 0, PEFT_E_FORMAT, {"adapter_config.json"}},
    {"{'r':2}", "{" BAD_A BAD_B "}", 64, -1, 0, PEFT_E_FORMAT, {"there is no key \"peft_type\""}},
    {"{'peft_type':7}", "{" BAD_A BAD_B "}", 64, -1, 0, PEFT_E_FORMAT, {"key \"peft_type\" is 7, expected a string"}},
    {"{'peft_type':'POLY'}", "{" BAD_A BAD_B "}", 64, -1, 0, PEFT_E_UNSUPPORTED,
     {"peft_type is \"POLY\"; this version reads: ", "LORA", "IA3"}},
    {"{'peft_type':'LORA','r':'2'}", "{" BAD_A BAD_B "}", 64, -1, 0, PEFT_E_FORMAT,
     {"key \"r\" is \"2\", expected an integer"}},
    {"{'peft_type':'LORA','r':2.5}", "{" BAD_A BAD_B "}", 64, -1, 0, PEFT_E_FORMAT,
     {"key \"r\" is 2.5, expected an integer"}},
    {"{'peft_type':'LORA','r':-1}", "{" BAD_A BAD_B "}", 64, -1, 0, PEFT_E_FORMAT, {"key \"r\" is -1, expected 1 to"}},
    {"{'peft_type':'LORA','lora_alpha':true}", "{" BAD_A BAD_B "}", 64, -1, 0, PEFT_E_FORMAT,
     {"key \"lora_alpha\" is true"}},
    {"{'peft_type':'LORA','target_modules':7.5}", "{" BAD_A BAD_B "}", 64, -1, 0, PEFT_E_FORMAT, {"\"target_modules\""}},
    {"{'peft_type':'LORA','use_rslora':'yes'}", "{" BAD_A BAD_B "}", 64, -1, 0, PEFT_E_FORMAT,
     {"key \"use_rslora\" is \"yes\""}},
    {"{'peft_type':'LORA','r':2,'target_modules':['zebra']}", "{" BAD_A BAD_B "}", 64, -1, 0, PEFT_E_NOT_FOUND,
     {"\"zebra\""}},
    /* tensors */
    {BAD_LORA, NULL, 0, -1, 0, PEFT_E_NOT_FOUND, {"adapter_model.safetensors"}},
    {BAD_LORA, "{" BAD_A "}", 32, -1, 0, PEFT_E_NOT_FOUND, {"there is no tensor \"" BAD_Q "lora_B.weight\""}},
    {BAD_LORA, "{" BAD_A BAD_B ",'" BAD_Q "zebra':{'dtype':'F32','shape':[1],'data_offsets':[256,260]}}", 65, -1, 0, PEFT_E_FORMAT,
     {"tensor \"" BAD_Q "zebra\" has no place in this adapter of 2 tensors"}},
    {BAD_LORA, "{" BAD_A_OF("F32", "16,2") BAD_B "}", 64, -1, 0, PEFT_E_SHAPE,
     {"tensor \"" BAD_Q "lora_A.weight\" is [16, 2], expected [2, 16]"}},
    {BAD_LORA, "{" BAD_A_OF("I32", "2,16") BAD_B "}", 64, -1, 0, PEFT_E_UNSUPPORTED,
     {"tensor \"" BAD_Q "lora_A.weight\" is I32, expected F32, F16 or BF16"}},
    {BAD_LORA, "{" BAD_A_OF("F99", "2,16") BAD_B "}", 64, -1, 0, PEFT_E_UNSUPPORTED,
     {"tensor \"" BAD_Q "lora_A.weight\": unknown dtype \"F99\""}},
    {BAD_LORA, "{" BAD_A BAD_B "}", 64, 40, 0, PEFT_E_NUMERIC, {"tensor \"" BAD_Q "lora_B.weight\" has a NaN"}},
    {BAD_LORA, "{" BAD_A BAD_B "}", 64, -1, 3, PEFT_E_FORMAT, {"adapter_model.safetensors", "lora_B.weight"}},
    {BAD_LORA, "{" BAD_A BAD_B "}", 0, -1, 100, PEFT_E_FORMAT, {"adapter_model.safetensors"}},
    {BAD_LORA, "{" BAD_A, 64, -1, 0, PEFT_E_FORMAT, {"adapter_model.safetensors"}},
    /* of another base: by its record, and by its shapes alone */
    {BAD_LORA,
     "{" BAD_MADE("{\\'architecture\\':\\'llama\\',\\'hidden_size\\':64,\\'layers\\':3,\\'vocab\\':14}") BAD_A BAD_B "}",
     64, -1, 0, PEFT_E_SHAPE,
     {"the adapter was made for llama of hidden size 64, 3 layers", "this base is llama of hidden size 16, 2 layers"}},
    {BAD_LORA, "{'" BAD_Q "lora_A.weight':{'dtype':'F32','shape':[2,8],'data_offsets':[0,64]},'" BAD_Q
     "lora_B.weight':{'dtype':'F32','shape':[16,2],'data_offsets':[64,192]}}", 48, -1, 0, PEFT_E_SHAPE,
     {"is [2, 8], expected [2, 16]"}},
    {"{'config':{'mh_adapter':false,'output_adapter':true,'reduction_factor':2,'non_linearity':'relu'},'hidden_size':64,'name':'n'}",
     "{}", 0, -1, 0, PEFT_E_SHAPE, {"the adapter was made for hidden size 64; this base has 16"}},
};

static bool bad_text(const char *dir, const char *name, const char *text) {
    char copy[1024];
    (void)snprintf(copy, sizeof copy, "%s", text);
    for (char *c = copy; *c != '\0'; c++) {
        if (*c == '\'') { *c = '"'; }
    }
    return bad_write(dir, name, copy, strlen(copy));
}

TEST(bad_adapters_read) {
    static bad_world w;
    int bad = 0;
    CHECK_OK(bad_open(&w));
    for (size_t i = 0; i < PEFT__COUNT(bad_folders); i++) {
        const bad_folder *c = &bad_folders[i];
        char name[32];
        (void)snprintf(name, sizeof name, "f%zu", i);
        const char *dir = runner_path(w.dir, name);
        const char *tensors = strstr(c->config, "'config'") != NULL ? "adapter.safetensors" : "adapter_model.safetensors";
        bool put = peft__dir_make(dir) == PEFT_OK && bad_text(dir, "adapter_config.json", c->config) &&
                   (c->header == NULL || bad_tensors(dir, tensors, c->header, c->floats, c->nan, c->cut));
        CHECK(put);
        peft_status st = peft_adapters_load(w.a, "x", dir, NULL);
        if (st == PEFT_OK && c->code == PEFT_OK) { st = peft_adapters_remove(w.a, "x"); }
        bad += !bad_is(&w, name, st, c->code, c->words);
    }
    bad_close(&w);
    CHECK_INT(bad, 0);
}

/* Not numbers: refused by name unless the caller wants them. */
TEST(bad_adapters_nan_is_let_in_on_demand) {
    static bad_world w;
    peft_options *o = NULL;
    float values[32];
    size_t n = 0;
    CHECK_OK(bad_open(&w));
    CHECK(bad_text(w.dir, "adapter_config.json", BAD_LORA));
    CHECK(bad_tensors(w.dir, "adapter_model.safetensors", "{" BAD_A BAD_B "}", 64, 40, 0));
    CHECK_STATUS(peft_adapters_load(w.a, "x", w.dir, NULL), PEFT_E_NUMERIC);
    CHECK(bad_same(&w));
    CHECK_OK(api_options(w.ctx, "load", "{'allow_nan':true}", &o));
    CHECK_OK(peft_adapters_load(w.a, "x", w.dir, o));
    peft_options_free(o);
    CHECK_OK(peft_adapters_tensor_read(w.a, "x", "model.layers.0.self_attn.q_proj.lora_B.weight", values, 32, &n));
    CHECK(isnan(values[8]) && !isnan(values[7]));
    CHECK_OK(peft_adapters_remove(w.a, "x"));
    CHECK(bad_same(&w));
    bad_close(&w);
}

TEST(bad_adapters_pickles_say_how_to_convert) {
    static bad_world w;
    static const char pickle[] = "\x80\x02}q\x00.";
    static const char *const words[BAD_WORDS] = {"adapter_model.bin is a Python pickle, which runs code when it is read",
                                                 "safe_serialization=True"};
    static const char *const others[BAD_WORDS] = {"pytorch_adapter.bin is a Python pickle, which runs code when it is read",
                                                  "use_safetensors=True"};
    CHECK_OK(bad_open(&w));
    const char *dir = runner_path(w.dir, "peft");
    CHECK(peft__dir_make(dir) == PEFT_OK && bad_write(dir, "adapter_model.bin", pickle, 6));
    CHECK(bad_text(dir, "adapter_config.json", BAD_LORA));
    CHECK(bad_is(&w, "a pickle of PEFT", peft_adapters_load(w.a, "x", dir, NULL), PEFT_E_UNSUPPORTED, words));
    dir = runner_path(w.dir, "hub");
    CHECK(peft__dir_make(dir) == PEFT_OK && bad_write(dir, "pytorch_adapter.bin", pickle, 6));
    CHECK(bad_text(dir, "adapter_config.json", "{'config':{'mh_adapter':false},'hidden_size':16,'name':'n'}"));
    CHECK(bad_is(&w, "a pickle of AdapterHub", peft_adapters_load(w.a, "x", dir, NULL), PEFT_E_UNSUPPORTED, others));
    bad_close(&w);
}

/* Each peft_type that is read is named. */
TEST(bad_adapters_known_types_are_all_named) {
    static bad_world w;
    char text[2048];
    CHECK_OK(bad_open(&w));
    CHECK(bad_text(w.dir, "adapter_config.json", "{'peft_type':'POLY'}"));
    CHECK(bad_tensors(w.dir, "adapter_model.safetensors", "{}", 0, -1, 0));
    CHECK_STATUS(peft_adapters_load(w.a, "x", w.dir, NULL), PEFT_E_UNSUPPORTED);
    (void)snprintf(text, sizeof text, "%s", peft_last_error());
    for (size_t i = 0; peft__method_at(i) != NULL; i++) {
        const char *type = peft__method_at(i)->hf_type;
        if (type != NULL) { CHECK_STR(strstr(text, type) != NULL ? type : text, type); }
    }
    bad_close(&w);
}

/* ---- removing, merging ------------------------------------------------------------------------------------------------------ */

TEST(bad_adapters_removed_while_used) {
    static bad_world w;
    static const char *const fusion[BAD_WORDS] = {"adapter \"b\" is in use: adapter \"f\" is made of it"};
    static const char *const of_union[BAD_WORDS] = {"adapter \"l\" is in use: adapter \"u\" is made of it"};
    static const char *const session[BAD_WORDS] = {"adapter \"s\" is in use by 1 session"};
    static const char *const job[BAD_WORDS] = {"adapter \"s\" is in use by 1 job of a trainer"};
    static const char *const none[BAD_WORDS] = {"there is no adapter \"zebra\"; there are: l, s, p, b, f, u"};
    peft_session *s = NULL;
    peft_trainer *t = NULL;
    CHECK_OK(bad_open(&w));
    CHECK(bad_is(&w, "of a fusion", peft_adapters_remove(w.a, "b"), PEFT_E_BUSY, fusion));
    CHECK(bad_is(&w, "of a union", peft_adapters_remove(w.a, "l"), PEFT_E_BUSY, of_union));
    CHECK(bad_is(&w, "of nobody", peft_adapters_remove(w.a, "zebra"), PEFT_E_NOT_FOUND, none));
    CHECK_OK(peft_session_create(w.m, w.a, "s", NULL, &s));
    CHECK(bad_is(&w, "of a session", peft_adapters_remove(w.a, "s"), PEFT_E_BUSY, session));
    peft_session_free(s);
    CHECK_OK(peft_trainer_create(w.a, NULL, &t));
    CHECK_OK(peft_trainer_add_job(t, "s", NULL, NULL, NULL));
    CHECK(bad_is(&w, "of a trainer", peft_adapters_remove(w.a, "s"), PEFT_E_BUSY, job));
    peft_trainer_free(t);
    CHECK_OK(peft_adapters_remove(w.a, "u"));
    CHECK_OK(peft_adapters_remove(w.a, "l"));
    bad_close(&w);
}

typedef struct bad_merge {
    const char *expression, *method, *options; /* method NULL: of what is there; else "x" is added */
    peft_status code;
    const char *words[BAD_WORDS];
} bad_merge;

static const bad_merge bad_merges[] = {
    {"p", NULL, NULL, PEFT_E_UNSUPPORTED, {"adapter \"p\": method \"prompt\" cannot be merged"}},
    {"b", NULL, NULL, PEFT_E_UNSUPPORTED, {"adapter \"b\": method \"pfeiffer\" cannot be merged"}},
    {"f", NULL, NULL, PEFT_E_UNSUPPORTED, {"not blocks"}},
    {"u", NULL, NULL, PEFT_E_UNSUPPORTED, {"adapter \"p\": method \"prompt\" cannot be merged"}}, /* its part */
    {"l,p", NULL, NULL, PEFT_E_UNSUPPORTED, {"adapter \"p\": method \"prompt\" cannot be merged"}},
    {"x", "multitask_prompt", "{'num_virtual_tokens':3}", PEFT_E_UNSUPPORTED,
     {"method \"multitask_prompt\" cannot be merged"}},
    {"x", "ptuning", "{'num_virtual_tokens':3}", PEFT_E_UNSUPPORTED, {"method \"ptuning\" cannot be merged"}},
    {"x", "prefix", "{'num_virtual_tokens':3}", PEFT_E_UNSUPPORTED, {"method \"prefix\" cannot be merged"}},
    {"x", "ptuning_v2", "{'num_virtual_tokens':3}", PEFT_E_UNSUPPORTED, {"method \"ptuning_v2\" cannot be merged"}},
    {"x", "prefix_tuning", "{'prefix_length':3}", PEFT_E_UNSUPPORTED, {"method \"prefix_tuning\" cannot be merged"}},
    {"x", "mam", "{'prefix_length':3}", PEFT_E_UNSUPPORTED, {"cannot be merged"}},
    {"x", "unipelt", "{'prefix_length':3}", PEFT_E_UNSUPPORTED, {"cannot be merged"}},
    {"x", "houlsby", NULL, PEFT_E_UNSUPPORTED, {"method \"houlsby\" cannot be merged"}},
    {"x", "parallel", NULL, PEFT_E_UNSUPPORTED, {"method \"parallel\" cannot be merged"}},
    {"x", "houlsby_inv", NULL, PEFT_E_UNSUPPORTED, {"method \"houlsby_inv\" cannot be merged"}},
    {"x", "pfeiffer_inv", NULL, PEFT_E_UNSUPPORTED, {"method \"pfeiffer_inv\" cannot be merged"}},
    {"x", "compacter", "{'reduction_factor':2}", PEFT_E_UNSUPPORTED, {"method \"compacter\" cannot be merged"}},
    {"x", "compacter++", "{'reduction_factor':2}", PEFT_E_UNSUPPORTED, {"method \"compacter++\" cannot be merged"}},
    {"x", "lora_hub", "{'use_gating':true}", PEFT_E_UNSUPPORTED, {"\"x\"", "gat"}},
    /* factors where the change has none */
    {"s:0.5", NULL, NULL, PEFT_E_UNSUPPORTED,
     {"adapter \"s\": method \"ia3\" cannot be merged with factor 0.5, only with 1 or -1"}},
    {"x:0.5", "oft", "{'oft_block_size':4}", PEFT_E_UNSUPPORTED,
     {"method \"oft\" cannot be merged with factor 0.5, only with 1 or -1"}},
    {"x:2", "boft", NULL, PEFT_E_UNSUPPORTED, {"method \"boft\" cannot be merged with factor 2, only with 1 or -1"}},
    {"x:0.5", "dora", NULL, PEFT_E_UNSUPPORTED, {"method \"dora\" cannot be merged with factor 0.5"}},
    {"x:0.5", "lora", "{'modules_to_save':['lm_head']}", PEFT_E_UNSUPPORTED,
     {"adapter \"x\" replaces \"lm_head.weight\", which has no factor"}},
    {"x:0.5", "full", NULL, PEFT_E_UNSUPPORTED, {"\"x\"", "has no factor"}},
    {"x:0.5", "ln_tuning", NULL, PEFT_E_UNSUPPORTED, {"\"x\"", "has no factor"}},
    {"x:0.5", "trainable_tokens", "{'token_indices':[3]}", PEFT_E_UNSUPPORTED,
     {"\"trainable_tokens\" cannot be merged with factor 0.5"}},
    {"x:2", "trainable_tokens", "{'num_new_tokens':2}", PEFT_E_UNSUPPORTED, {"\"x\" adds tokens", "has no factor"}},
    /* blocks, and who is not there */
    {"average(l,s)", NULL, NULL, PEFT_E_UNSUPPORTED, {"merging takes adapters that act one after the other"}},
    {"l,zebra", NULL, NULL, PEFT_E_NOT_FOUND, {"there is no adapter \"zebra\""}},
    {"l,l", NULL, NULL, PEFT_E_INVALID, {"has adapter \"l\" twice"}},
    {"x,y", "full", NULL, PEFT_E_NOT_FOUND, {"there is no adapter \"y\""}},
};

TEST(bad_adapters_merged) {
    static bad_world w;
    int bad = 0;
    CHECK_OK(bad_open(&w));
    for (size_t i = 0; i < PEFT__COUNT(bad_merges); i++) {
        const bad_merge *c = &bad_merges[i];
        char name[32];
        (void)snprintf(name, sizeof name, "m%zu", i);
        const char *dir = runner_path(w.dir, name);
        if (c->method != NULL) { CHECK_OK(bad_add(&w, "x", c->method, c->options)); }
        peft_status st = peft_adapters_merge(w.a, c->expression, dir, NULL);
        char text[1024];
        (void)snprintf(text, sizeof text, "%s", peft_last_error());
        if (c->method != NULL) { CHECK_OK(peft_adapters_remove(w.a, "x")); }
        (void)peft__fail(st, "%s", text);
        bool silent = !peft__path_exists(runner_path(dir, "config.json")); /* nothing was written */
        if (!silent) { printf("  %s has been written\n", c->expression); }
        bad += !bad_is(&w, c->method != NULL ? c->method : c->expression, st, c->code, c->words) || !silent;
    }
    bad_close(&w);
    CHECK_INT(bad, 0);
}
