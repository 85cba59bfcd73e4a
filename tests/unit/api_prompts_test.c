/* api_prompts_test.c - the methods that put trained rows before a text, over a Llama and a GPT-2: parameters by formula, what is
 * in their files, values read back to the bit, generation as the whole row at once would have it, starts from a text, and what
 * is refused. */
#include "api_kit.h"

static const int32_t prompts_ids[] = {3, 1, 4, 1, 5, 9, 2, 6};
enum { PROMPTS_IDS = 8, PROMPTS_NEW = 6, PROMPTS_MOST = PROMPTS_IDS + PROMPTS_NEW };

/* 2 layers, width 16; keys 8 wide in the Llama, 16 in the GPT-2. */
typedef struct prompts_case {
    const char *method, *options; /* ' for " */
    int64_t llama, gpt2;          /* parameters */
    const char *keys;             /* names in the file, those of the encoder by its first */
} prompts_case;

static const prompts_case prompts_cases[] = {
    {"prompt", "{}", 20 * 16, 20 * 16, "prompt_embeddings"},
    {"prompt", "{'num_virtual_tokens':3,'prompt_tuning_init':'RANDOM'}", 3 * 16, 3 * 16, "prompt_embeddings"},
    {"ptuning", "{'num_virtual_tokens':3,'encoder_hidden_size':5}", 3 * 16 + 5 * 17 + 5 * 6 + 16 * 6,
     3 * 16 + 5 * 17 + 5 * 6 + 16 * 6, "prompt_encoder.mlp_head.4.weight"},
    {"ptuning", "{'num_virtual_tokens':3,'encoder_hidden_size':4,'encoder_reparameterization_type':'LSTM'}",
     3 * 16 + 2 * 16 * (16 + 4 + 2) + 2 * 16 * (8 + 4 + 2) + 8 * 9 + 16 * 9,
     3 * 16 + 2 * 16 * (16 + 4 + 2) + 2 * 16 * (8 + 4 + 2) + 8 * 9 + 16 * 9, "prompt_encoder.lstm_head.weight_hh_l1_reverse"},
    {"ptuning", "{'num_virtual_tokens':2,'baked':true}", 2 * 16, 2 * 16, "prompt_embeddings"},
    {"prefix", "{}", 20 * 2 * 2 * 8, 20 * 2 * 2 * 16, "prompt_embeddings"},
    {"prefix", "{'num_virtual_tokens':3,'init':'zero'}", 3 * 2 * 2 * 8, 3 * 2 * 2 * 16, "prompt_embeddings"},
    {"prefix", "{'num_virtual_tokens':3,'prefix_projection':true,'encoder_hidden_size':5}", 3 * 8 + 5 * 9 + 32 * 6,
     3 * 16 + 5 * 17 + 64 * 6, "prompt_encoder.transform.2.bias"},
    {"ptuning_v2", "{'num_virtual_tokens':2,'modules_to_save':['lm_head']}", 2 * 2 * 2 * 8 + 14 * 16, 2 * 2 * 2 * 16 + 14 * 16,
     "base_model.lm_head.weight"},
};

typedef struct prompts_world {
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    bool done;
} prompts_world;

static peft_status prompts_open(prompts_world *w, const char *config) {
    peft_status st = PEFT_OK;
    memset(w, 0, sizeof *w);
    TRY(peft_context_create(NULL, &w->ctx));
    TRY(api_model(w->ctx, config, &w->m));
    TRY(peft_adapters_create(w->m, &w->a));
out:
    return st;
}

static void prompts_close(prompts_world *w) {
    peft_adapters_free(w->a);
    peft_model_free(w->m);
    peft_context_free(w->ctx);
}

static peft_status prompts_add(prompts_world *w, const char *name, const char *method, const char *options) {
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

static peft_status prompts_logits(prompts_world *w, const char *name, const int32_t *ids, int64_t n, float *out) {
    peft_status st = PEFT_OK;
    peft_session *s = NULL;
    peft_batch *b = NULL;
    TRY(peft_session_create(w->m, name != NULL ? w->a : NULL, name, NULL, &s));
    TRY(api_batch(w->ctx, ids, &n, 1, &b));
    TRY(peft_session_logits(s, b, out, (size_t)(n * API_VOCAB), NULL));
out:
    peft_batch_free(b);
    peft_session_free(s);
    return st;
}

static int64_t prompts_count(const prompts_world *w, const char *name) {
    int64_t n = 0;
    for (size_t i = 0; i < peft_adapters_tensor_count(w->a, name); i++) {
        int32_t ndim = 0;
        int64_t dims[8] = {0};
        const char *tensor = NULL;
        if (peft_adapters_tensor_info(w->a, name, i, &tensor, &ndim, dims) != PEFT_OK) { return -1; }
        n += ndim == 2 ? dims[0] * dims[1] : dims[0];
    }
    return n;
}

/* Every tensor of two adapters, to the bit. */
static bool prompts_same(const prompts_world *w, const char *x, const char *y) {
    static float values[2][4096];
    size_t count = peft_adapters_tensor_count(w->a, x);
    if (count == 0 || count != peft_adapters_tensor_count(w->a, y)) { return false; }
    for (size_t i = 0; i < count; i++) {
        const char *tensor = NULL;
        size_t n = 0, other = 0;
        if (peft_adapters_tensor_info(w->a, x, i, &tensor, NULL, NULL) != PEFT_OK ||
            peft_adapters_tensor_read(w->a, x, tensor, values[0], 4096, &n) != PEFT_OK ||
            peft_adapters_tensor_read(w->a, y, tensor, values[1], 4096, &other) != PEFT_OK || n != other ||
            memcmp(values[0], values[1], n * sizeof(float)) != 0) {
            return false;
        }
    }
    return true;
}

/* Greedy tokens by the cache, and whether each is what the whole row so far would have chosen. */
static peft_status prompts_generate(prompts_world *w, const char *name, bool *same) {
    static float logits[PROMPTS_MOST * API_VOCAB];
    peft_status st = PEFT_OK;
    peft_session *s = NULL;
    peft_options *o = NULL, *chunks = NULL;
    int32_t row[PROMPTS_MOST];
    size_t made = 0;
    memcpy(row, prompts_ids, sizeof prompts_ids);
    TRY(api_options(w->ctx, "session", "{'chunk':3}", &chunks));
    TRY(api_options(w->ctx, "generate", "{'max_new_tokens':6,'temperature':0}", &o));
    TRY(peft_session_create(w->m, w->a, name, chunks, &s));
    TRY(peft_session_generate(s, NULL, row, PROMPTS_IDS, o, NULL, NULL, row + PROMPTS_IDS, PROMPTS_NEW, &made));
    TRY(prompts_logits(w, name, row, (int64_t)(PROMPTS_IDS + made), logits));
    *same = made > 0;
    for (size_t i = 0; i < made; i++) {
        const float *at = logits + (PROMPTS_IDS - 1 + i) * API_VOCAB;
        for (int32_t v = 0; v < API_VOCAB; v++) { *same = *same && at[v] <= at[row[PROMPTS_IDS + i]]; }
    }
out:
    peft_options_free(o);
    peft_options_free(chunks);
    peft_session_free(s);
    return st;
}

static void prompts_check(prompts_world *w, const prompts_case *c, int64_t count) {
    static float base[PROMPTS_IDS * API_VOCAB], mine[PROMPTS_IDS * API_VOCAB], other[PROMPTS_IDS * API_VOCAB];
    static char text[1 << 15];
    const char *dir = runner_path(runner_tmpdir(), "saved");
    char key[128];
    bool same = false;
    CHECK_OK(prompts_add(w, "x", c->method, c->options));
    CHECK_INT(prompts_count(w, "x"), count);
    CHECK_OK(api_shake(w->a, "x", 0.3F));
    CHECK_OK(prompts_logits(w, NULL, prompts_ids, PROMPTS_IDS, base));
    CHECK_OK(prompts_logits(w, "x", prompts_ids, PROMPTS_IDS, mine));
    CHECK(api_distance(base, mine, PROMPTS_IDS * API_VOCAB) > 1e-3);
    CHECK_OK(prompts_generate(w, "x", &same));
    CHECK(same);
    CHECK_OK(peft_adapters_save(w->a, "x", dir, NULL));
    CHECK_OK(peft_inspect_json(w->ctx, dir, text, sizeof text, NULL));
    (void)snprintf(key, sizeof key, "\"name\":\"%s\"", c->keys);
    CHECK(strstr(text, key) != NULL);
    CHECK(strstr(text, "\"name\":\"prompt_embeddings\"") != NULL);
    CHECK_OK(peft_adapters_load(w->a, "y", dir, NULL));
    CHECK(prompts_same(w, "x", "y"));
    CHECK_OK(prompts_logits(w, "y", prompts_ids, PROMPTS_IDS, other));
    CHECK_NEAR(api_distance(mine, other, PROMPTS_IDS * API_VOCAB), 0, 0);
    CHECK_STATUS(peft_adapters_merge(w->a, "x", runner_path(runner_tmpdir(), "merged"), NULL), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("cannot be merged");
    w->done = true;
}

TEST(api_prompts_counts_files_and_generation) {
    static const char *const configs[] = {API_LLAMA, API_GPT2};
    for (size_t i = 0; i < PEFT__COUNT(prompts_cases); i++) {
        for (size_t k = 0; k < 2; k++) {
            prompts_world w;
            CHECK_OK(prompts_open(&w, configs[k]));
            prompts_check(&w, &prompts_cases[i], k == 0 ? prompts_cases[i].llama : prompts_cases[i].gpt2);
            if (!w.done) { printf("%s %s, model %zu\n", prompts_cases[i].method, prompts_cases[i].options, k); }
            prompts_close(&w);
        }
    }
}

/* ---- starts --------------------------------------------------------------------------------------------------------- */

/* Rows after virtual tokens that start as a text go on as after the text itself. */
TEST(api_prompts_start_as_their_text) {
    static const struct {
        const char *method, *options;
        double tolerance;
    } cases[] = {
        {"prompt", "{'num_virtual_tokens':4,'prompt_tuning_init':'TEXT'}", 1e-5},
        {"ptuning", "{'num_virtual_tokens':4,'init':'text'}", 1e-3},
        {"ptuning", "{'num_virtual_tokens':4,'init':'text','encoder_reparameterization_type':'LSTM','encoder_num_layers':1}", 1e-3},
        {"ptuning", "{'num_virtual_tokens':4,'init':'text','baked':true}", 1e-5},
        {"prefix", "{'num_virtual_tokens':4}", 1e-5},
        {"prefix", "{'num_virtual_tokens':4,'prefix_projection':true}", 1e-3},
        {"ptuning_v2", "{'num_virtual_tokens':4}", 1e-5},
    };
    static const char *const configs[] = {API_LLAMA, API_GPT2};
    static const int32_t text[] = {7, 11}, after[] = {7, 11, 7, 11, 3, 1, 4, 1, 5, 9, 2, 6};
    static float whole[12 * API_VOCAB], mine[PROMPTS_IDS * API_VOCAB];
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        for (size_t k = 0; k < 2; k++) {
            prompts_world w;
            CHECK_OK(prompts_open(&w, configs[k]));
            CHECK_OK(prompts_add(&w, "x", cases[i].method, cases[i].options));
            CHECK_OK(peft_adapters_init(w.a, "x", text, 2)); /* repeated to four */
            CHECK_OK(prompts_logits(&w, NULL, after, 12, whole));
            CHECK_OK(prompts_logits(&w, "x", prompts_ids, PROMPTS_IDS, mine));
            CHECK_NEAR(api_distance(whole + 4 * API_VOCAB, mine, PROMPTS_IDS * API_VOCAB), 0, cases[i].tolerance);
            prompts_close(&w);
        }
    }
}

/* The seed draws other tokens; "RANDOM" is of another size; the text to start from is told. */
TEST(api_prompts_starts_differ) {
    static float values[3][4 * API_HIDDEN];
    static char text[4096];
    prompts_world w;
    double power[3] = {0, 0, 0};
    CHECK_OK(prompts_open(&w, API_LLAMA));
    CHECK_OK(prompts_add(&w, "vocabulary", "prompt", "{'num_virtual_tokens':4}"));
    CHECK_OK(prompts_add(&w, "random", "prompt", "{'num_virtual_tokens':4,'prompt_tuning_init':'RANDOM'}"));
    CHECK_OK(prompts_add(&w, "text", "prompt", "{'num_virtual_tokens':4,'prompt_tuning_init':'TEXT','prompt_tuning_init_text':'Say it'}"));
    static const char *const names[] = {"vocabulary", "random", "text"};
    for (size_t i = 0; i < 3; i++) {
        CHECK_OK(peft_adapters_tensor_read(w.a, names[i], "prompt_embeddings", values[i], 4 * API_HIDDEN, NULL));
        for (size_t e = 0; e < 4 * API_HIDDEN; e++) { power[i] += (double)values[i][e] * (double)values[i][e]; }
    }
    CHECK(power[1] > 100 * power[0]);
    CHECK_OK(peft_adapters_info_json(w.a, "text", text, sizeof text, NULL));
    CHECK(strstr(text, "\"init_text\":\"Say it\"") != NULL);
    CHECK_OK(peft_adapters_info_json(w.a, "vocabulary", text, sizeof text, NULL));
    CHECK(strstr(text, "\"init_text\"") == NULL);
    CHECK_OK(peft_adapters_add(w.a, "other", "prompt", NULL, 6));
    CHECK(!prompts_same(&w, "vocabulary", "other"));
    prompts_close(&w);
}

/* ---- bad input ------------------------------------------------------------------------------------------------------ */

TEST(api_prompts_refuse) {
    static const int32_t ids[] = {1, 14};
    prompts_world w;
    CHECK_OK(prompts_open(&w, API_LLAMA));
    CHECK_STATUS(prompts_add(&w, "x", "prompt", "{'num_virtual_tokens':0}"), PEFT_E_KEY);
    CHECK_ERROR_HAS("num_virtual_tokens");
    CHECK_STATUS(prompts_add(&w, "x", "prompt", "{'prompt_tuning_init':'TEXT','prompt_tuning_init_text':''}"), PEFT_E_KEY);
    CHECK_ERROR_HAS("prompt_tuning_init_text is empty");
    CHECK_STATUS(prompts_add(&w, "x", "prefix", "{'init_text':''}"), PEFT_E_KEY);
    CHECK_STATUS(prompts_add(&w, "x", "prefix", "{'token_dim':5}"), PEFT_E_KEY);
    CHECK_ERROR_HAS("token_dim is 5, and this base has 8");
    CHECK_INT((int64_t)peft_adapters_count(w.a), 0);
    CHECK_OK(prompts_add(&w, "plain", "prompt", "{}"));
    CHECK_STATUS(peft_adapters_init(w.a, "plain", ids, 1), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("does not start from a text");
    CHECK_OK(prompts_add(&w, "text", "prompt", "{'prompt_tuning_init':'TEXT'}"));
    CHECK_STATUS(peft_adapters_init(w.a, "text", NULL, 0), PEFT_E_INVALID);
    CHECK_ERROR_HAS("has 0 tokens");
    CHECK_STATUS(peft_adapters_init(w.a, "text", ids, 2), PEFT_E_INVALID);
    CHECK_ERROR_HAS("has id 14, expected 0 to 13");
    CHECK_STATUS(peft_adapters_init(w.a, "gone", ids, 1), PEFT_E_NOT_FOUND);
    CHECK_OK(prompts_add(&w, "prefix", "prefix", "{}"));
    CHECK_STATUS(peft_adapters_init(w.a, "prefix", ids, 2), PEFT_E_INVALID);
    prompts_close(&w);
}

/* A prefix of one base in another: both sizes are named. Two adapters with virtual tokens do not act together. */
TEST(api_prompts_of_another_base_and_two_at_once) {
    const char *dir = runner_path(runner_tmpdir(), "saved");
    prompts_world w, other;
    peft_session *s = NULL;
    CHECK_OK(prompts_open(&w, API_LLAMA));
    CHECK_OK(prompts_open(&other, API_GPT2));
    CHECK_OK(prompts_add(&w, "x", "prefix", "{}"));
    CHECK_OK(peft_adapters_save(w.a, "x", dir, NULL));
    CHECK_STATUS(peft_adapters_load(other.a, "x", dir, NULL), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("this base");
    CHECK_OK(prompts_add(&w, "p", "prompt", "{}"));
    CHECK_OK(prompts_add(&w, "q", "ptuning", "{}"));
    CHECK_OK(prompts_add(&w, "y", "ptuning_v2", "{}"));
    static const char *const together[] = {"p,q", "x,y", "x,p"}; /* they stand one after the other */
    for (size_t i = 0; i < 3; i++) {
        CHECK_OK(peft_session_create(w.m, w.a, together[i], NULL, &s));
        peft_session_free(s);
    }
    prompts_close(&w);
    prompts_close(&other);
}

/* ---- no memory ------------------------------------------------------------------------------------------------------ */

static peft_status prompts_whole_way(prompts_world *w, const char *method, const char *options, const char *dir) {
    static const int32_t ids[] = {1, 2, 3};
    peft_status st = PEFT_OK;
    TRY(prompts_add(w, "x", method, options));
    TRY(peft_adapters_init(w->a, "x", ids, 3));
    TRY(peft_adapters_save(w->a, "x", dir, NULL));
    TRY(peft_adapters_load(w->a, "y", dir, NULL));
out:
    return st;
}

TEST(api_prompts_every_allocation_fails_once) {
    static const char *const cases[][2] = {
        {"ptuning", "{'num_virtual_tokens':2,'encoder_hidden_size':2,'encoder_reparameterization_type':'LSTM','init':'text'}"},
        {"prefix", "{'num_virtual_tokens':2,'prefix_projection':true,'encoder_hidden_size':2}"},
    };
    for (size_t c = 0; c < 2; c++) {
        const char *dir = runner_path(runner_tmpdir(), "saved");
        bool through = false;
        for (size_t k = 1; !through && k < 4000; k += k < 60 ? 1 : 7) {
            api_host h = {0};
            prompts_world w = {0};
            CHECK_OK(api_context(&h, &w.ctx));
            CHECK_OK(api_model(w.ctx, API_LLAMA, &w.m));
            CHECK_OK(peft_adapters_create(w.m, &w.a));
            h.fail_at = h.calls + k;
            peft_status st = prompts_whole_way(&w, cases[c][0], cases[c][1], dir);
            through = h.calls < h.fail_at;
            if (through) { CHECK_OK(st); } else { CHECK_INT(st, PEFT_E_NOMEM); }
            prompts_close(&w);
            CHECK_INT((int64_t)h.now, 0);
        }
        CHECK(through);
    }
}
