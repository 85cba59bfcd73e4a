/* api_tokens_test.c - trained rows of tokens and new tokens through the public API: what options change, what is refused, that all
 * who ask for the vocabulary know the new tokens, folders as PEFT writes them, and models with a larger vocabulary. */
#include "api_kit.h"
#include "io/io.h"

enum { TOKENS_NEW = 2, TOKENS_IDS = 7, TOKENS_MOST = TOKENS_IDS * (API_VOCAB + TOKENS_NEW) };
static const int32_t tokens_plain[TOKENS_IDS] = {3, 1, 4, 1, 5, 9, 2};
static const int32_t tokens_fresh[TOKENS_IDS] = {3, 14, 4, 1, 15, 14, 2}; /* 14 and 15 are new */

typedef struct tokens_world {
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
} tokens_world;

static peft_status tokens_open(tokens_world *w, const char *config) {
    peft_status st = PEFT_OK;
    memset(w, 0, sizeof *w);
    TRY(peft_context_create(NULL, &w->ctx));
    TRY(api_model(w->ctx, config, &w->m));
    TRY(peft_adapters_create(w->m, &w->a));
out:
    return st;
}

static void tokens_close(tokens_world *w) {
    peft_adapters_free(w->a);
    peft_model_free(w->m);
    peft_context_free(w->ctx);
}

static peft_status tokens_add(const tokens_world *w, const char *name, const char *method, const char *options) {
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

static peft_status tokens_logits(const tokens_world *w, peft_model *m, const char *expression, const int32_t *ids, float *out,
                                 size_t *needed) {
    peft_status st = PEFT_OK;
    const int64_t n = TOKENS_IDS;
    peft_session *s = NULL;
    peft_batch *b = NULL;
    TRY(peft_session_create(m, expression != NULL ? w->a : NULL, expression, NULL, &s));
    TRY(api_batch(w->ctx, ids, &n, 1, &b));
    TRY(peft_session_logits(s, b, out, TOKENS_MOST, needed));
out:
    peft_batch_free(b);
    peft_session_free(s);
    return st;
}

/* ---- options ------------------------------------------------------------------------------------------------------------- */

typedef struct tokens_mistake {
    const char *method, *options;
    peft_status code;
    const char *words[2];
} tokens_mistake;

static const tokens_mistake tokens_mistakes[] = {
    {"trainable_tokens", "{}", PEFT_E_KEY, {"token_indices", "num_new_tokens"}},
    {"trainable_tokens", "{'token_indices':[]}", PEFT_E_KEY, {"token_indices", "empty list"}},
    {"trainable_tokens", "{'token_indices':[3,14]}", PEFT_E_SHAPE, {"token id 14", "vocabulary of 14"}},
    {"trainable_tokens", "{'token_indices':[3,16],'num_new_tokens':2}", PEFT_E_SHAPE, {"token id 16", "vocabulary of 16, new tokens"}},
    {"trainable_tokens", "{'token_indices':[3,5,3]}", PEFT_E_KEY, {"token id 3", "twice"}},
    {"trainable_tokens", "{'token_indices':[-1]}", PEFT_E_SHAPE, {"token id -1", "vocabulary"}},
    {"trainable_tokens", "{'token_indices':[1,'x']}", PEFT_E_KEY, {"item 1", "no token id"}},
    {"trainable_tokens", "{'token_indices':[1.5]}", PEFT_E_KEY, {"item 0", "no token id"}},
    {"trainable_tokens", "{'token_indices':'x+'}", PEFT_E_KEY, {"token_indices", "a list of token ids"}},
    {"trainable_tokens", "{'token_indices':[1],'target_modules':['q_proj']}", PEFT_E_UNSUPPORTED, {"q_proj", "is a projection"}},
    {"trainable_tokens", "{'token_indices':[1],'target_modules':['embeddings']}", PEFT_E_NOT_FOUND, {"embeddings", "embed_tokens"}},
    {"trainable_tokens", "{'token_indices':[1],'num_new_tokens':-1}", PEFT_E_KEY, {"num_new_tokens", "-1"}},
    {"lora", "{'trainable_token_indices':[]}", PEFT_E_KEY, {"trainable_token_indices", "empty list"}},
    {"lora", "{'trainable_token_indices':[99]}", PEFT_E_SHAPE, {"token id 99", "vocabulary of 14"}},
    {"lora", "{'trainable_token_indices':{'wte':[1]}}", PEFT_E_NOT_FOUND, {"\"wte\"", "model.embed_tokens"}},
    {"lora", "{'trainable_token_indices':{'embed_tokens':[1],'model.embed_tokens':[2]}}", PEFT_E_KEY, {"model.embed_tokens", "twice"}},
    {"lora", "{'trainable_token_indices':{'embed_tokens':3}}", PEFT_E_KEY, {"trainable_token_indices", "a list of token ids"}},
    {"lora", "{'trainable_token_indices':[1],'modules_to_save':['embed_tokens']}", PEFT_E_UNSUPPORTED,
     {"model.embed_tokens", "modules_to_save"}},
};

TEST(api_tokens_mistakes_are_named) {
    tokens_world w;
    CHECK_OK(tokens_open(&w, API_LLAMA));
    for (size_t i = 0; i < PEFT__COUNT(tokens_mistakes); i++) {
        const tokens_mistake *k = &tokens_mistakes[i];
        CHECK_STATUS(tokens_add(&w, "x", k->method, k->options), k->code);
        for (int j = 0; j < 2; j++) { CHECK_ERROR_HAS(k->words[j]); }
    }
    CHECK_INT((int64_t)peft_adapters_count(w.a), 0);
    tokens_close(&w);
    CHECK_OK(tokens_open(&w, API_GPT2));
    CHECK_STATUS(tokens_add(&w, "x", "trainable_tokens", "{'token_indices':[1],'target_modules':['wpe']}"), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("transformer.wpe");
    tokens_close(&w);
}

/* Only the listed tokens are other ones; with an untied head only as inputs. */
TEST(api_tokens_only_the_listed_rows_change) {
    tokens_world w;
    float base[TOKENS_MOST], with[TOKENS_MOST];
    for (int tied = 0; tied < 2; tied++) {
        CHECK_OK(tokens_open(&w, tied ? API_LLAMA_TIED("true") : API_LLAMA));
        CHECK_OK(tokens_add(&w, "x", "trainable_tokens", "{'token_indices':[9,13]}"));
        CHECK_OK(api_shake(w.a, "x", 0.5F));
        CHECK_OK(tokens_logits(&w, w.m, NULL, tokens_plain, base, NULL));
        CHECK_OK(tokens_logits(&w, w.m, "x", tokens_plain, with, NULL));
        for (int t = 0; t < TOKENS_IDS; t++) { /* token 5 is id 9 */
            for (int v = 0; v < API_VOCAB; v++) {
                bool same = base[t * API_VOCAB + v] == with[t * API_VOCAB + v];
                CHECK(same == (t < 5 && (tied == 0 || (v != 9 && v != 13))));
            }
        }
        tokens_close(&w);
    }
}

TEST(api_tokens_options_change_what_they_say) {
    tokens_world w;
    float rows[4 * API_HIDDEN], table[API_VOCAB * API_HIDDEN], base[TOKENS_MOST], with[TOKENS_MOST];
    size_t n = 0;
    CHECK_OK(tokens_open(&w, API_LLAMA));
    CHECK_OK(peft_model_tensor_read(w.m, "model.embed_tokens.weight", table, PEFT__COUNT(table), NULL));
    CHECK_OK(tokens_add(&w, "order", "trainable_tokens", "{'token_indices':[5,1]}")); /* rows in the list's order */
    CHECK_OK(peft_adapters_tensor_read(w.a, "order", "model.embed_tokens.trainable_tokens_delta", rows, PEFT__COUNT(rows), &n));
    CHECK_INT((int64_t)n, 2 * API_HIDDEN);
    CHECK_MEM(rows, table + 5 * API_HIDDEN, API_HIDDEN * sizeof *rows);
    CHECK_MEM(rows + API_HIDDEN, table + API_HIDDEN, API_HIDDEN * sizeof *rows);
    CHECK_OK(tokens_add(&w, "noise", "trainable_tokens", "{'token_indices':[5,1],'init_weights':false}"));
    CHECK_OK(peft_adapters_tensor_read(w.a, "noise", "model.embed_tokens.trainable_tokens_delta", rows, PEFT__COUNT(rows), &n));
    double sum = 0;
    for (size_t i = 0; i < n; i++) { sum += (double)rows[i] * (double)rows[i]; }
    CHECK(sum > 15 && sum < 60); /* 32 values of N(0, 1) */
    CHECK_OK(tokens_add(&w, "both", "trainable_tokens", "{'token_indices':[5],'target_modules':['embed_tokens','lm_head']}"));
    CHECK_INT((int64_t)peft_adapters_tensor_count(w.a, "both"), 2);
    CHECK_OK(tokens_add(&w, "lora", "lora", "{'trainable_token_indices':{'lm_head':[9,5]}}"));
    CHECK_OK(tokens_logits(&w, w.m, NULL, tokens_plain, base, NULL));
    CHECK_OK(peft_adapters_tensor_read(w.a, "lora", "lm_head.token_adapter.trainable_tokens_delta", rows, PEFT__COUNT(rows), &n));
    for (size_t i = 0; i < n; i++) { rows[i] *= 3; }
    CHECK_OK(peft_adapters_tensor_write(w.a, "lora", "lm_head.token_adapter.trainable_tokens_delta", rows, n));
    CHECK_OK(tokens_logits(&w, w.m, "lora", tokens_plain, with, NULL));
    for (int i = 0; i < TOKENS_IDS * API_VOCAB; i++) {
        bool listed = i % API_VOCAB == 9 || i % API_VOCAB == 5;
        CHECK_NEAR(with[i], listed ? 3 * base[i] : base[i], 1e-6);
    }
    tokens_close(&w);
}

/* ---- new tokens ---------------------------------------------------------------------------------------------------------- */

static const char *const tokens_bases[] = {API_LLAMA, API_LLAMA_TIED("true"), API_GPT2};
static const char *const tokens_tables[] = {"model.embed_tokens", "model.embed_tokens", "transformer.wte"};

TEST(api_tokens_new_ones_start_as_the_mean) {
    tokens_world w;
    float rows[3 * API_HIDDEN], matrix[API_VOCAB * API_HIDDEN];
    char tensor[128];
    for (int b = 0; b < 3; b++) {
        CHECK_OK(tokens_open(&w, tokens_bases[b]));
        CHECK_OK(tokens_add(&w, "x", "trainable_tokens", "{'token_indices':[5],'num_new_tokens':2}"));
        CHECK_INT((int64_t)peft_adapters_tensor_count(w.a, "x"), b == 0 ? 2 : 1); /* an untied head has its own */
        for (int head = 0; head < (b == 0 ? 2 : 1); head++) {
            (void)snprintf(tensor, sizeof tensor, "%s.weight", head ? "lm_head" : tokens_tables[b]);
            CHECK_OK(peft_model_tensor_read(w.m, tensor, matrix, PEFT__COUNT(matrix), NULL));
            (void)snprintf(tensor, sizeof tensor, "%s.trainable_tokens_delta", head ? "lm_head" : tokens_tables[b]);
            CHECK_OK(peft_adapters_tensor_read(w.a, "x", tensor, rows, PEFT__COUNT(rows), NULL));
            CHECK_MEM(rows, matrix + 5 * API_HIDDEN, API_HIDDEN * sizeof *rows);
            for (int c = 0; c < API_HIDDEN; c++) {
                double mean = 0;
                for (int v = 0; v < API_VOCAB; v++) { mean += (double)matrix[v * API_HIDDEN + c] / API_VOCAB; }
                CHECK_NEAR(rows[API_HIDDEN + c], mean, 1e-8);
                CHECK_NEAR(rows[2 * API_HIDDEN + c], mean, 1e-8);
            }
        }
        tokens_close(&w);
    }
}

/* Logits of the old tokens are the base's as long as no new one is read, and the new ones' are their mean. */
TEST(api_tokens_new_ones_have_logits) {
    tokens_world w;
    float base[TOKENS_MOST], with[TOKENS_MOST];
    size_t needed = 0;
    for (int b = 0; b < 3; b++) {
        CHECK_OK(tokens_open(&w, tokens_bases[b]));
        CHECK_OK(tokens_add(&w, "x", "trainable_tokens", "{'num_new_tokens':2}"));
        CHECK_OK(tokens_logits(&w, w.m, NULL, tokens_plain, base, &needed));
        CHECK_INT((int64_t)needed, TOKENS_IDS * API_VOCAB);
        CHECK_OK(tokens_logits(&w, w.m, "x", tokens_plain, with, &needed));
        CHECK_INT((int64_t)needed, TOKENS_MOST);
        for (int t = 0; t < TOKENS_IDS; t++) {
            double mean = 0;
            for (int v = 0; v < API_VOCAB; v++) {
                mean += (double)base[t * API_VOCAB + v] / API_VOCAB;
                CHECK_NEAR(with[t * (API_VOCAB + 2) + v], base[t * API_VOCAB + v], 1e-7);
            }
            CHECK_NEAR(with[t * (API_VOCAB + 2) + API_VOCAB], mean, 1e-6);
            CHECK_NEAR(with[t * (API_VOCAB + 2) + API_VOCAB + 1], mean, 1e-6);
        }
        CHECK_OK(tokens_logits(&w, w.m, "x", tokens_fresh, with, NULL));
        CHECK_STATUS(tokens_logits(&w, w.m, NULL, tokens_fresh, base, NULL), PEFT_E_INVALID);
        CHECK_ERROR_HAS("id 14, expected 0 to 13");
        tokens_close(&w);
    }
}

/* One after the other, through the cache, and many tokens at once say the same of new ones. */
TEST(api_tokens_new_ones_are_generated) {
    tokens_world w;
    peft_session *s = NULL;
    peft_options *o = NULL;
    float rows[2 * API_HIDDEN];
    int32_t out[8];
    size_t n = 0, seen = 0;
    CHECK_OK(tokens_open(&w, API_LLAMA));
    CHECK_OK(tokens_add(&w, "x", "trainable_tokens", "{'num_new_tokens':2}"));
    for (size_t i = 0; i < PEFT__COUNT(rows); i++) { rows[i] = i % 3 == 0 ? 4.0F : -3.0F; }
    CHECK_OK(peft_adapters_tensor_write(w.a, "x", "lm_head.trainable_tokens_delta", rows, PEFT__COUNT(rows)));
    CHECK_OK(api_shake(w.a, "x", 1.0F));
    CHECK_OK(peft_session_create(w.m, w.a, "x", NULL, &s));
    CHECK_OK(api_options(w.ctx, "generate", "{'max_new_tokens':8,'ignore_eos':true}", &o));
    CHECK_OK(peft_session_generate(s, NULL, tokens_fresh, TOKENS_IDS, o, NULL, NULL, out, PEFT__COUNT(out), &n));
    CHECK_INT((int64_t)n, 8);
    for (size_t i = 0; i < n; i++) {
        CHECK(out[i] >= 0 && out[i] < API_VOCAB + TOKENS_NEW);
        seen += out[i] >= API_VOCAB;
    }
    CHECK(seen > 0);
    peft_options_free(o);
    CHECK_OK(api_options(w.ctx, "generate", "{'max_new_tokens':8,'temperature':5,'top_k':16,'repetition_penalty':1.2}", &o));
    CHECK_OK(peft_session_generate(s, NULL, tokens_fresh, TOKENS_IDS, o, NULL, NULL, out, PEFT__COUNT(out), &n));
    const int32_t past = API_VOCAB + TOKENS_NEW;
    CHECK_STATUS(peft_session_generate(s, NULL, &past, 1, o, NULL, NULL, out, PEFT__COUNT(out), &n), PEFT_E_INVALID);
    CHECK_ERROR_HAS("expected 0 to 15");
    peft_options_free(o);
    peft_session_free(s);
    tokens_close(&w);
}

static peft_status tokens_data(const tokens_world *w, const int32_t *ids, peft_dataset **out) {
    const int64_t n = TOKENS_IDS;
    peft_batch *b = NULL;
    peft_status st = PEFT_OK;
    TRY(peft_dataset_create(w->ctx, NULL, NULL, out));
    TRY(api_batch(w->ctx, ids, &n, 1, &b));
    TRY(peft_dataset_add(*out, b));
out:
    peft_batch_free(b);
    return st;
}

static peft_status tokens_job(const tokens_world *w, const char *name, peft_dataset *d, peft_dataset *eval, peft_trainer **out) {
    peft_options *o = NULL;
    peft_status st = PEFT_OK;
    TRY(api_options(w->ctx, "trainer", "{'max_steps':5,'batch_size':1}", &o));
    TRY(peft_trainer_create(w->a, o, out));
    TRY(peft_trainer_add_job(*out, name, d, eval, NULL));
out:
    peft_options_free(o);
    return st;
}

TEST(api_tokens_new_ones_are_trained_and_evaluated) {
    tokens_world w;
    peft_dataset *d = NULL, *beyond = NULL;
    peft_trainer *t = NULL;
    peft_session *s = NULL;
    peft_batch *b = NULL;
    const int64_t n = TOKENS_IDS;
    int32_t ids[TOKENS_IDS];
    char before[512], after[512];
    double loss = 0, first = 0, last = 0;
    memcpy(ids, tokens_fresh, sizeof ids);
    ids[2] = API_VOCAB + TOKENS_NEW;
    CHECK_OK(tokens_open(&w, API_LLAMA));
    CHECK_OK(tokens_add(&w, "x", "lora", "{'r':2,'num_new_tokens':2}"));
    CHECK_OK(tokens_add(&w, "plain", "lora", "{'r':2}"));
    CHECK_OK(tokens_data(&w, tokens_fresh, &d));
    CHECK_OK(tokens_data(&w, ids, &beyond));
    CHECK_STATUS(tokens_job(&w, "plain", d, NULL, &t), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("token id 15, and the model's vocabulary 14");
    peft_trainer_free(t);
    CHECK_STATUS(tokens_job(&w, "x", beyond, NULL, &t), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("token id 16, and the model's vocabulary 16");
    peft_trainer_free(t);
    CHECK_OK(tokens_job(&w, "x", d, d, &t));
    CHECK_OK(api_batch(w.ctx, ids, &n, 1, &b));
    CHECK_STATUS(peft_trainer_accumulate(t, b, &loss), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("token id 16, and the vocabulary 16");
    CHECK_OK(peft_session_create(w.m, w.a, "x", NULL, &s));
    CHECK_OK(peft_session_evaluate(s, d, before, sizeof before, NULL));
    CHECK_STATUS(peft_session_evaluate(s, beyond, after, sizeof after, NULL), PEFT_E_SHAPE);
    CHECK_OK(peft_trainer_run(t));
    CHECK_OK(peft_trainer_evaluate(t, d, after, sizeof after, NULL));
    CHECK(sscanf(before, "{\"loss\":%lf", &first) == 1 && sscanf(after, "{\"loss\":%lf", &last) == 1);
    CHECK_NEAR(first, log(API_VOCAB + TOKENS_NEW), 0.2); /* a random model says anything */
    CHECK(last < first - 0.005);
    peft_batch_free(b);
    peft_session_free(s);
    peft_trainer_free(t);
    peft_dataset_free(d);
    peft_dataset_free(beyond);
    tokens_close(&w);
}

/* ---- together with others ------------------------------------------------------------------------------------------------ */

TEST(api_tokens_of_two_adapters) {
    tokens_world w;
    float out[TOKENS_MOST], alone[TOKENS_MOST];
    CHECK_OK(tokens_open(&w, API_LLAMA_TIED("true")));
    CHECK_OK(tokens_add(&w, "a", "trainable_tokens", "{'token_indices':[1]}"));
    CHECK_OK(tokens_add(&w, "b", "trainable_tokens", "{'token_indices':[4]}"));
    CHECK_OK(tokens_add(&w, "l", "lora", "{'r':2}"));
    CHECK_OK(api_shake(w.a, "a", 0.3F));
    CHECK_STATUS(tokens_logits(&w, w.m, "a,b", tokens_plain, out, NULL), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("lm_head");
    CHECK_STATUS(tokens_logits(&w, w.m, "0.5*a", tokens_plain, out, NULL), PEFT_E_UNSUPPORTED);
    CHECK_OK(tokens_logits(&w, w.m, "a", tokens_plain, alone, NULL));
    CHECK_OK(tokens_logits(&w, w.m, "a,l", tokens_plain, out, NULL)); /* a fresh LoRA adds nothing */
    CHECK_NEAR(api_distance(alone, out, TOKENS_IDS * API_VOCAB), 0, 1e-6);
    tokens_close(&w);
    CHECK_OK(tokens_open(&w, API_LLAMA)); /* an untied head stays out of it */
    CHECK_OK(tokens_add(&w, "a", "trainable_tokens", "{'token_indices':[1]}"));
    CHECK_OK(tokens_add(&w, "b", "trainable_tokens", "{'token_indices':[4,9]}"));
    CHECK_OK(tokens_add(&w, "c", "trainable_tokens", "{'token_indices':[9]}"));
    CHECK_OK(tokens_logits(&w, w.m, "a,b", tokens_plain, out, NULL));
    CHECK_STATUS(tokens_logits(&w, w.m, "a,b,c", tokens_plain, out, NULL), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("token 9");
    tokens_close(&w);
}

/* ---- merging ------------------------------------------------------------------------------------------------------------- */

TEST(api_tokens_new_ones_are_merged) {
    tokens_world w;
    float with[TOKENS_MOST], merged_logits[TOKENS_MOST];
    char info[8192];
    for (int b = 0; b < 3; b++) {
        const char *dir = runner_path(runner_tmpdir(), "merged");
        peft_model *merged = NULL;
        size_t needed = 0;
        CHECK_OK(tokens_open(&w, tokens_bases[b]));
        CHECK_OK(tokens_add(&w, "x", "lora", "{'r':2,'trainable_token_indices':[5],'num_new_tokens':2}"));
        CHECK_OK(tokens_add(&w, "y", "trainable_tokens", "{'num_new_tokens':1}"));
        CHECK_OK(api_shake(w.a, "x", 0.3F));
        CHECK_OK(tokens_logits(&w, w.m, "x", tokens_fresh, with, NULL));
        CHECK_OK(peft_adapters_merge(w.a, "x", dir, NULL));
        CHECK_OK(peft_model_open(w.ctx, dir, NULL, &merged));
        CHECK_OK(peft_model_info_json(merged, info, sizeof info, NULL));
        CHECK(strstr(info, "\"vocab_size\":16") != NULL);
        CHECK_OK(tokens_logits(&w, merged, NULL, tokens_fresh, merged_logits, &needed));
        CHECK_INT((int64_t)needed, TOKENS_MOST);
        CHECK_NEAR(api_distance(with, merged_logits, TOKENS_MOST), 0, 1e-5);
        peft_model_free(merged);
        CHECK_STATUS(peft_adapters_merge(w.a, "x", runner_path(runner_tmpdir(), "m.gguf"), NULL), PEFT_E_UNSUPPORTED);
        CHECK_ERROR_HAS("2 tokens");
        CHECK_STATUS(peft_adapters_merge(w.a, "x,y", dir, NULL), PEFT_E_UNSUPPORTED);
        CHECK_ERROR_HAS("both add tokens");
        tokens_close(&w);
    }
}

/* ---- folders ------------------------------------------------------------------------------------------------------------- */

/* A folder with one or two tensors of n rows, as PEFT writes them. */
static peft_status tokens_folder(const char *dir, const char *config, const char *const *names, const float *const *data, int64_t n,
                                 size_t count) {
    peft_status st = PEFT_OK;
    peft__mem *mem = runner_mem();
    peft__io_source sources[2] = {{0}};
    TRY(peft__dir_make(dir));
    for (size_t i = 0; i < count; i++) {
        sources[i] = (peft__io_source){.name = names[i], .dtype = PEFT_DTYPE_F32, .ndim = 2, .dims = {n, API_HIDDEN}, .data = data[i]};
    }
    TRY(peft__safetensors_write(mem, runner_path(dir, "adapter_model.safetensors"), sources, count, NULL));
    TRY(text_write(mem, dir, "adapter_config.json", config));
out:
    return st;
}

#define TOKENS_CONFIG(ids) "{\"peft_type\":\"TRAINABLE_TOKENS\",\"target_modules\":\"model.embed_tokens\",\"token_indices\":" ids "}"

TEST(api_tokens_folders) {
    static const char *const names[] = {"base_model.model.model.embed_tokens.trainable_tokens_delta",
                                        "base_model.model.lm_head.trainable_tokens_delta"};
    float rows[3 * API_HIDDEN], other[3 * API_HIDDEN], read[3 * API_HIDDEN], logits[TOKENS_MOST];
    const float *data[2] = {rows, rows};
    const char *dir = runner_path(runner_tmpdir(), "folder");
    size_t n = 0;
    tokens_world w;
    for (size_t i = 0; i < PEFT__COUNT(rows); i++) { rows[i] = (float)i / 16, other[i] = (float)i / 16 + (i == 40); }
    CHECK_OK(tokens_open(&w, API_LLAMA_TIED("true")));
    CHECK_OK(tokens_folder(dir, TOKENS_CONFIG("[5,1]"), names, data, 2, 2)); /* the head's once more */
    CHECK_OK(peft_adapters_load(w.a, "a", dir, NULL));
    CHECK_OK(peft_adapters_tensor_read(w.a, "a", "model.embed_tokens.trainable_tokens_delta", read, PEFT__COUNT(read), &n));
    CHECK_INT((int64_t)n, 2 * API_HIDDEN);
    CHECK_MEM(read, rows, n * sizeof *read);
    CHECK_OK(tokens_folder(dir, TOKENS_CONFIG("[5,1]"), names, data, 2, 1));
    CHECK_OK(peft_adapters_load(w.a, "b", dir, NULL));
    data[1] = other;
    CHECK_OK(tokens_folder(dir, TOKENS_CONFIG("[5,1,2]"), names, data, 3, 2));
    CHECK_STATUS(peft_adapters_load(w.a, "c", dir, NULL), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("another row 2 than that of the embedding");
    CHECK_OK(tokens_folder(dir, TOKENS_CONFIG("[5,1,2]"), names, data, 2, 1));
    CHECK_STATUS(peft_adapters_load(w.a, "c", dir, NULL), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("[2, 16], expected [3, 16]");
    CHECK_OK(tokens_folder(dir, TOKENS_CONFIG("[14,1,15]"), names, data, 3, 1)); /* of a resized base */
    CHECK_OK(peft_adapters_load(w.a, "c", dir, NULL));
    CHECK_OK(tokens_logits(&w, w.m, "c", tokens_fresh, logits, &n));
    CHECK_INT((int64_t)n, TOKENS_MOST);
    CHECK_OK(tokens_folder(dir, TOKENS_CONFIG("[16,1,15]"), names, data, 3, 1));
    CHECK_STATUS(peft_adapters_load(w.a, "d", dir, NULL), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("token id 16, and the vocabulary 14: 1 of the tokens");
    CHECK_OK(tokens_folder(dir, TOKENS_CONFIG("[5,1,5]"), names, data, 3, 1));
    CHECK_STATUS(peft_adapters_load(w.a, "d", dir, NULL), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("token id 5 twice");
    tokens_close(&w);
    CHECK_OK(tokens_open(&w, API_LLAMA));
    CHECK_OK(tokens_folder(dir, TOKENS_CONFIG("[14,1,15]"), names, data, 3, 1));
    CHECK_STATUS(peft_adapters_load(w.a, "d", dir, NULL), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("untied head");
    tokens_close(&w);
}

/* The list in the config names new tokens, and what was written is read back to the bit. */
TEST(api_tokens_new_ones_in_a_folder) {
    tokens_world w;
    float with[TOKENS_MOST], back[TOKENS_MOST];
    for (int b = 0; b < 3; b++) {
        const char *dir = runner_path(runner_tmpdir(), "new");
        peft__file file;
        CHECK_OK(tokens_open(&w, tokens_bases[b]));
        CHECK_OK(tokens_add(&w, "x", "lora", "{'r':2,'trainable_token_indices':[7],'num_new_tokens':2}"));
        CHECK_OK(api_shake(w.a, "x", 0.3F));
        CHECK_OK(peft_adapters_save(w.a, "x", dir, NULL));
        CHECK_OK(peft__file_open(runner_mem(), runner_path(dir, "adapter_config.json"), true, &file));
        const char *list = strstr((const char *)file.data, "\"trainable_token_indices\": ");
        CHECK(list != NULL);
        if (list == NULL) { return; }
        CHECK(strncmp(list + 27, b == 0 ? "{\n    \"embed_tokens\": [\n      7,\n      14,\n      15\n    ],\n    \"lm_head\": [\n      14,"
                                        : "[\n    7,\n    14,\n    15\n  ]", b == 0 ? 70 : 26) == 0);
        peft__file_close(&file);
        CHECK_OK(peft_adapters_load(w.a, "y", dir, NULL));
        CHECK_OK(tokens_logits(&w, w.m, "x", tokens_fresh, with, NULL));
        CHECK_OK(tokens_logits(&w, w.m, "y", tokens_fresh, back, NULL));
        CHECK_NEAR(api_distance(with, back, TOKENS_MOST), 0, 0);
        tokens_close(&w);
    }
}

/* Wherever memory ends, an adapter with tokens is there or not at all. */
TEST(api_tokens_without_memory) {
    static const char *const cases[][2] = {{"trainable_tokens", "{'token_indices':[5,3],'num_new_tokens':2}"},
                                           {"lora", "{'r':2,'trainable_token_indices':{'lm_head':[5]},'num_new_tokens':1}"}};
    for (size_t c = 0; c < PEFT__COUNT(cases); c++) {
        api_host h = {0};
        tokens_world w = {0};
        peft_options *o = NULL;
        char schema[64];
        peft_status st = PEFT_E_NOMEM;
        (void)snprintf(schema, sizeof schema, "method:%s", cases[c][0]);
        CHECK_OK(api_context(&h, &w.ctx));
        CHECK_OK(api_model(w.ctx, API_LLAMA, &w.m));
        CHECK_OK(peft_adapters_create(w.m, &w.a));
        CHECK_OK(api_options(w.ctx, schema, cases[c][1], &o));
        size_t before = h.now, failures = 0;
        for (size_t i = 1; i < 1000 && st != PEFT_OK; i++) {
            h.fail_at = h.calls + i;
            st = peft_adapters_add(w.a, "x", cases[c][0], o, 5);
            if (st == PEFT_OK) { break; }
            failures++;
            CHECK_INT(st, PEFT_E_NOMEM);
            CHECK_INT((int64_t)h.now, (int64_t)before);
        }
        CHECK_OK(st);
        CHECK(failures > 10);
        before = h.now;
        st = PEFT_E_NOMEM;
        for (size_t i = 1; i < 1000 && st != PEFT_OK; i++) {
            peft_session *s = NULL;
            h.fail_at = h.calls + i;
            st = peft_session_create(w.m, w.a, "x", NULL, &s);
            peft_session_free(s);
            CHECK(st == PEFT_OK || st == PEFT_E_NOMEM);
            CHECK_INT((int64_t)h.now, (int64_t)before);
        }
        CHECK_OK(st);
        h.fail_at = 0;
        peft_options_free(o);
        tokens_close(&w);
        CHECK_INT((int64_t)h.now, 0);
    }
}
