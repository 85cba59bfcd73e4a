/* train_memory_test.c - the plan's figure against what a run takes, the limit, and steps that allocate nothing. */
#include "train_kit.h"

#define MEMORY_LLAMA                                                                                                   \
    "{\"model_type\":\"llama\",\"hidden_size\":32,\"intermediate_size\":64,\"num_hidden_layers\":6,"                   \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":14,\"max_position_embeddings\":48,"            \
    "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"bos_token_id\":null,\"eos_token_id\":12,\"tie_word_embeddings\":" \
    "false}"
#define MEMORY_GPT2                                                                                           \
    "{\"model_type\":\"gpt2\",\"n_embd\":32,\"n_layer\":5,\"n_head\":4,\"n_positions\":48,\"vocab_size\":14," \
    "\"layer_norm_epsilon\":1e-5,\"activation_function\":\"gelu_new\",\"bos_token_id\":12,\"eos_token_id\":12}"

typedef struct memory_seen { /* one run */
    double plan_peak, recomputed;
    size_t allocated, peak; /* the allocator's largest, and what the callback saw */
    peft__real *values;
    train_log log;
} memory_seen;

/* Rows that fill the positions: activations are most of the memory. */
static peft_status memory_data(train_kit *k) {
    peft_status st = PEFT_OK;
    for (int r = 0; r < 24; r++) {
        char text[512];
        int at = snprintf(text, sizeof text, "{\"input_ids\":[1");
        for (int i = 1; i < 40 + r % 7; i++) {
            at += snprintf(text + at, sizeof text - (size_t)at, ",%d", (r * i * i + i) % 14);
        }
        at += snprintf(text + at, sizeof text - (size_t)at, "]}");
        TRY(peft_dataset_add_json(k->train, text, (size_t)at));
    }
out:
    return st;
}

/* A trainer over the model of `path`, opened with the option `load`; NULL: the random one. */
static peft_status memory_begin(train_kit *k, const train_spec *s, size_t limit, const char *path, const char *load) {
    peft_status st = PEFT_OK;
    char trainer[160];
    peft_options *o = NULL;
    train_spec mine = *s;
    mine.no_train = true;
    TRY(train_prepare(k, &mine));
    if (path != NULL) {
        peft_adapters_free(k->a);
        peft_model_free(k->m);
        k->a = NULL;
        k->m = NULL;
        TRY(api_options(k->ctx, "model", load, &o));
        TRY(peft_model_open(k->ctx, path, o, &k->m));
        TRY(peft_adapters_create(k->m, &k->a));
        TRY(peft_adapters_add(k->a, "x", s->method != NULL ? s->method : "lora", NULL, 5));
    }
    TRY(peft_dataset_create(k->ctx, NULL, NULL, &k->train));
    TRY(memory_data(k));
    peft_context_memory_reset_peak(k->ctx);
    (void)snprintf(trainer, sizeof trainer, "{'max_steps':4,'batch_size':8,'memory_limit':%zu}", limit);
    mine.trainer = trainer;
    TRY(train_job(k, &mine));
out:
    peft_options_free(o);
    return st;
}

static peft_status memory_run(const train_spec *s, size_t limit, const char *path, const char *load,
                              memory_seen *seen) {
    peft_status st = PEFT_OK;
    train_kit k;
    char text[8192];
    memset(seen, 0, sizeof *seen);
    TRY(memory_begin(&k, s, limit, path, load));
    TRY(peft_trainer_plan_json(k.t, text, sizeof text, NULL));
    seen->plan_peak = train_number(text, "peak_bytes");
    seen->recomputed = train_number(text, "recomputed_segments");
    TRY(peft_trainer_run(k.t));
    peft_context_memory(k.ctx, NULL, &seen->allocated);
    seen->peak = k.log.peak;
    seen->values = train_copy(&k);
    seen->log = k.log;
out:
    train_end(&k);
    return st;
}

/* What an error says that the run needs. */
static size_t memory_least(void) {
    const char *at = strstr(peft_last_error(), "needs at least ");
    return at != NULL ? (size_t)strtoull(at + strlen("needs at least "), NULL, 10) : 0;
}

static void memory_is_bounded(const train_spec *s) {
    memory_seen all, seen;
    CHECK_OK(memory_run(s, 0, NULL, NULL, &all));
    CHECK(all.recomputed == 0);
    CHECK_STATUS(memory_run(s, 4096, NULL, NULL, &seen), PEFT_E_NOMEM);
    CHECK_ERROR_HAS("memory_limit is 4096 bytes");
    size_t least = memory_least(), most = all.allocated;
    CHECK(least > 4096 && least < most);
    for (int i = 0; i <= 4; i++) { /* from the least to what it takes without a limit */
        size_t limit = least + (most - least) / 4 * (size_t)i;
        CHECK_OK(memory_run(s, limit, NULL, NULL, &seen));
        CHECK(seen.allocated <= limit);
        CHECK(i == 4 || seen.recomputed > 0);
        CHECK_MEM(seen.log.loss, all.log.loss, sizeof all.log.loss);
        train_kit k;
        CHECK_OK(memory_begin(&k, s, 0, NULL, NULL));
        CHECK_MEM(seen.values, all.values, train_bytes(&k));
        train_end(&k);
        free(seen.values);
    }
    CHECK_STATUS(memory_run(s, least - 1, NULL, NULL, &seen), PEFT_E_NOMEM);
    CHECK_INT(memory_least(), least);
    free(all.values);
}

TEST(train_memory_limit_lora) {
    train_spec s = {.config = MEMORY_LLAMA, .adapter = "{'target_modules':'all-linear','lora_dropout':0.2}"};
    memory_is_bounded(&s);
}
TEST(train_memory_limit_full) {
    train_spec s = {.config = MEMORY_LLAMA, .method = "full"};
    memory_is_bounded(&s);
}
TEST(train_memory_limit_gpt2) {
    train_spec s = {.config = MEMORY_GPT2, .threads = 2};
    memory_is_bounded(&s);
}

/* A plan that fails leaves a trainer that still says why, and frees. */
TEST(train_memory_limit_too_small) {
    train_kit k;
    train_spec s = {.config = MEMORY_LLAMA};
    char text[64];
    CHECK_OK(memory_begin(&k, &s, 1000, NULL, NULL));
    for (int i = 0; i < 3; i++) {
        CHECK_STATUS(peft_trainer_plan_json(k.t, text, sizeof text, NULL), PEFT_E_NOMEM);
        CHECK_STATUS(peft_trainer_run(k.t), PEFT_E_NOMEM);
        CHECK_ERROR_HAS("memory_limit is 1000 bytes");
    }
    CHECK_INT(k.log.n, 0);
    train_end(&k);
    CHECK_INT(k.host.now, 0);
}

/* The plan says beforehand what the last step sees: random weights, and a folder that is mapped or copied. */
static void memory_plan_holds(const char *config, const char *method) {
    train_kit k;
    train_spec s = {.config = config, .method = method};
    const char *dir = runner_path(runner_tmpdir(), "model");
    memory_seen seen;
    CHECK_OK(train_prepare(&k, &s));
    CHECK_OK(peft_adapters_merge(k.a, "x", dir, NULL));
    size_t base = ((struct peft_model *)k.m)->bytes;
    train_end(&k);
    for (int i = 0; i < 3; i++) {
        const char *path = i == 0 ? NULL : dir;
        CHECK_OK(memory_run(&s, 0, path, i == 1 ? "{}" : "{'load':'copy'}", &seen));
        CHECK_NEAR(seen.plan_peak, seen.peak, 0.05 * (double)seen.peak);
        if (i == 1) { CHECK_NEAR(seen.peak, seen.allocated + base, 0.02 * (double)seen.peak + 16384); }
        if (i != 1) { CHECK_INT(seen.peak, seen.allocated); }
        free(seen.values);
    }
}

TEST(train_memory_plan_lora) {
    memory_plan_holds(MEMORY_LLAMA, "lora");
}
TEST(train_memory_plan_full) {
    memory_plan_holds(MEMORY_LLAMA, "full");
}
TEST(train_memory_plan_gpt2) {
    memory_plan_holds(MEMORY_GPT2, "lora");
}

/* With a limit the mapped base counts too. */
TEST(train_memory_limit_counts_a_mapped_base) {
    train_kit k;
    train_spec s = {.config = MEMORY_LLAMA};
    const char *dir = runner_path(runner_tmpdir(), "model");
    memory_seen seen;
    CHECK_OK(train_prepare(&k, &s));
    CHECK_OK(peft_adapters_merge(k.a, "x", dir, NULL));
    train_end(&k);
    CHECK_STATUS(memory_run(&s, 4096, dir, "{}", &seen), PEFT_E_NOMEM);
    size_t least = memory_least();
    CHECK_OK(memory_run(&s, least, dir, "{}", &seen));
    CHECK(seen.peak <= least);
    CHECK(seen.peak * 10 > least * 9); /* the limit is used */
    free(seen.values);
}

/* Writing the state takes a piece of a file for a moment: the plan knows it. */
TEST(train_memory_plan_with_checkpoints) {
    train_kit k;
    char trainer[4300], text[8192];
    train_spec s = {.trainer = trainer};
    (void)snprintf(trainer, sizeof trainer, "{'max_steps':3,'batch_size':4,'save_steps':1,'checkpoint_dir':'%s'}",
                   runner_tmpdir());
    CHECK_OK(train_prepare(&k, &s));
    peft_options *o = NULL;
    CHECK_OK(peft_options_create(k.ctx, "trainer", &o));
    CHECK_OK(peft_options_set_int(o, "max_steps", 3));
    CHECK_OK(peft_options_set_int(o, "save_steps", 1));
    CHECK_OK(peft_options_set_str(o, "checkpoint_dir", runner_tmpdir()));
    CHECK_OK(peft_trainer_create(k.a, o, &k.t));
    CHECK_OK(peft_trainer_add_job(k.t, "x", k.train, NULL, NULL));
    CHECK_OK(peft_trainer_set_progress(k.t, train_note, &k.log));
    CHECK_OK(peft_trainer_plan_json(k.t, text, sizeof text, NULL));
    CHECK_OK(peft_trainer_run(k.t));
    CHECK_NEAR(train_number(text, "peak_bytes"), k.log.peak, 0.05 * (double)k.log.peak);
    peft_options_free(o);
    train_end(&k);
}

static void memory_steps_are_still(const train_spec *s) {
    train_kit k;
    CHECK_OK(train_begin(&k, s));
    CHECK_OK(peft_trainer_run(k.t));
    CHECK(k.log.n > 8);
    for (int64_t i = 1; i < k.log.n; i++) { CHECK_INT(k.log.calls[i], k.log.calls[0]); }
    train_end(&k);
}

TEST(train_memory_steps_allocate_nothing) {
    train_spec lora = {
        .trainer =
            "{'max_steps':20,'batch_size':3,'gradient_accumulation_steps':2,'eval_steps':2,'group_by_length':true,"
            "'load_best_model_at_end':true}",
        .adapter = "{'lora_dropout':0.1}",
        .eval = true,
        .threads = 2};
    train_spec full = {.config = API_GPT2, .method = "full", .trainer = "{'max_steps':12,'batch_size':5}"};
    memory_steps_are_still(&lora);
    memory_steps_are_still(&full);
}

TEST(train_memory_plan_text) {
    train_kit k;
    train_spec s = {.trainer = "{'num_train_epochs':2,'batch_size':5,'gradient_accumulation_steps':2}"};
    char text[8192];
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(peft_trainer_plan_json(k.t, text, sizeof text, NULL));
    CHECK_NEAR(train_number(text, "trainable_parameters"), 2 * (8 * 16 + 16 * 8 + 8 * 16 + 8 * 8), 0);
    CHECK_NEAR(train_number(text, "optimizer_bytes"), 2 * train_number(text, "adapter_bytes"), 0);
    CHECK_NEAR(train_number(text, "gradient_bytes"), train_number(text, "adapter_bytes"), 0);
    CHECK_NEAR(train_number(text, "max_rows"), 5, 0);
    CHECK_NEAR(train_number(text, "max_steps"), 4, 0);
    CHECK(train_number(text, "flops_per_step") > 0);
    CHECK(train_number(text, "max_tokens") <= 5 * train_number(text, "max_length"));
    CHECK(strstr(text, "\"segments\":[{\"name\":\"embeddings\",\"recomputed\":false,") != NULL);
    CHECK(strstr(text, "{\"name\":\"layer 1\"") != NULL);
    CHECK(strstr(text, "{\"name\":\"head\"") != NULL);
    CHECK(strstr(text, "layer 2") == NULL);
    train_end(&k);
}
