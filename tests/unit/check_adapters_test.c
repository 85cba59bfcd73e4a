/* check_adapters_test.c - peft_check_json of adapters and checkpoints: good ones of every form, and broken ones by their culprits. */
#include "check_kit.h"

/* ---- adapters ------------------------------------------------------------------------------------------------------------------ */

/* Adds a method's adapter and saves it; NULL options: defaults. */
static peft_status check_save(check_kit *k, const char *name, const char *method, const char *options, const char *path) {
    const char *const what[2] = {method, options};
    peft_status st = api_adapter(k->ctx, k->a, name, what, 1, 0.1F);
    return st == PEFT_OK ? peft_adapters_save(k->a, name, path, NULL) : st;
}

TEST(check_adapters_good) {
    check_kit k;
    static const char *const methods[] = {"lora",     "dora",   "adalora", "ia3",          "vera",    "loha",        "lokr",    "oft",
                                          "boft",
                                          "ln_tuning", "prompt", "ptuning", "prefix",       "mam",     "pfeiffer",    "houlsby", "parallel",
                                          "head",     "unipelt", "trainable_tokens"};
    CHECK_OK(check_begin(&k));
    for (size_t i = 0; i < PEFT__COUNT(methods); i++) {
        const char *path = runner_path(k.dir, methods[i]);
        bool tokens = strcmp(methods[i], "trainable_tokens") == 0;
        CHECK_OK(check_save(&k, methods[i], methods[i], tokens ? "{'token_indices':[1,2]}" : NULL, path));
        CHECK_OK(check_run(k.ctx, path, NULL));
        CHECK(check_is_good("adapter"));
        CHECK_OK(check_run(k.ctx, path, k.m));
        CHECK(check_is_good("adapter"));
        CHECK(strstr(check_report, "\"forward\":true") != NULL);
    }
    CHECK_OK(peft_adapters_save(k.a, "lora", runner_path(k.dir, "lora.gguf"), NULL));
    CHECK_OK(check_run(k.ctx, runner_path(k.dir, "lora.gguf"), k.m));
    CHECK(check_is_good("adapter"));
    check_end(&k);
    CHECK_INT(k.host.now, 0);
}

/* What is replaced in a file of an adapter's folder, and what is found, without the base or with it. */
static const struct {
    const char *method, *options, *file, *from, *to;
    bool base;
    peft_status code;
    const char *where, *says;
} check_adapters[] = {
    {"lora", NULL, "adapter_config.json", "\"r\": 8", "\"r\": 4", false, PEFT_E_SHAPE, "q_proj.lora_A.weight",
     "its rank is 8, and the config says 4"},
    {"lora", NULL, "adapter_config.json", "\"r\": 8", "\"r\": 4", true, PEFT_E_SHAPE, "q_proj.lora_A.weight", "expected [4, 16]"},
    {"lora", NULL, "adapter_config.json", "\"r\": 8", "\"r\": 0", false, PEFT_E_FORMAT, "adapter", "\\\"r\\\""},
    {"lora", NULL, "adapter_config.json", "\"q_proj\"", "\"q_proj\", \"nope\"", false, PEFT_E_NOT_FOUND, "target_modules",
     "it names \\\"nope\\\""},
    {"lora", NULL, "adapter_config.json", "\"q_proj\"", "\"k_proj\"", false, PEFT_E_FORMAT, "q_proj.lora_A.weight",
     "do not mean its module"},
    {"lora", NULL, "adapter_config.json", "\"LORA\"", "\"LORO\"", false, PEFT_E_UNSUPPORTED, "adapter_config.json", "LORO"},
    {"lora", NULL, "adapter_config.json", "\"peft_type\"", "\"peft_tipe\"", false, PEFT_E_FORMAT, "peft_type", "peft_type"},
    {"lora", NULL, "adapter_config.json", "\"lora_alpha\": ", "\"lora_alpha\": \"x\", \"other\": ", false, PEFT_E_FORMAT, "lora_alpha",
     "expected a number"},
    {"lora", NULL, "adapter_config.json", "{", "[", false, PEFT_E_FORMAT, "adapter_config.json", "line 2"},
    {"lora", NULL, "adapter_model.safetensors", "layers.1.self_attn.q_proj.lora_B", "layers.1.self_attn.q_proj.lora_X", false,
     PEFT_E_NOT_FOUND,
     "layers.1.self_attn.q_proj.lora_A.weight", "its counterpart"},
    {"lora", NULL, "adapter_model.safetensors", "layers.1.self_attn.q_proj.lora_B", "layers.1.self_attn.q_proj.lora_X", true,
     PEFT_E_NOT_FOUND,
     "tensor", "layers.1.self_attn.q_proj.lora_B.weight"},
    {"lora", NULL, "adapter_model.safetensors", "layers.1.self_attn.q_proj.lora_A", "layers.7.self_attn.q_proj.lora_A", true,
     PEFT_E_NOT_FOUND,
     "tensor", "layers.1.self_attn.q_proj.lora_A.weight"},
    {"lora", NULL, "adapter_model.safetensors", "\"shape\":[8,16]", "\"shape\":[8,15]", false, PEFT_E_FORMAT, "tensor", "bytes"},
    {"lora", NULL, "adapter_model.safetensors", "\"dtype\":\"F32\"", "\"dtype\":\"I32\"", false, PEFT_E_UNSUPPORTED, "tensor", "I32"},
    {"lora", NULL, "adapter_model.safetensors", "\\\"hidden_size\\\":16", "\\\"hidden_size\\\":64", true, PEFT_E_SHAPE, "adapter",
     "hidden size 64"},
    {"prompt", "{'num_virtual_tokens':4}", "adapter_config.json", "\"num_virtual_tokens\": 4", "\"num_virtual_tokens\": 5", false,
     PEFT_E_SHAPE,
     "prompt_embeddings", "it has 4 rows, and num_virtual_tokens is 5"},
    {"prompt", "{'num_virtual_tokens':4}", "adapter_config.json", "\"token_dim\": 16", "\"token_dim\": 17", false, PEFT_E_SHAPE,
     "prompt_embeddings", "its rows have 16 numbers, and token_dim is 17"},
    {"ia3", NULL, "adapter_config.json", "\"IA3\"", "7", false, PEFT_E_FORMAT, "peft_type", "a string"},
    {"pfeiffer", NULL, "adapter_config.json", "\"hidden_size\": 16", "\"hidden_size\": 32", false, PEFT_E_SHAPE, "adapter_up.weight",
     "expected [32, n]"},
    {"pfeiffer", NULL, "adapter.safetensors", "adapter_down.0.weight", "adapter_dawn.0.weight", false, PEFT_E_NOT_FOUND,
     "adapter_up.weight",
     "way down is missing"},
};

TEST(check_adapters_broken) {
    check_kit k;
    CHECK_OK(check_begin(&k));
    for (size_t i = 0; i < PEFT__COUNT(check_adapters); i++) {
        const char *dir = runner_tmpdir(), *path = runner_path(dir, "x"), *file = runner_path(path, check_adapters[i].file);
        CHECK_OK(check_save(&k, "x", check_adapters[i].method, check_adapters[i].options, path));
        CHECK_OK(peft_adapters_remove(k.a, "x"));
        CHECK_OK(check_run(k.ctx, path, NULL));
        CHECK(check_is_good("adapter"));
        CHECK_OK(check_rewrite(file, file, check_adapters[i].from, check_adapters[i].to, SIZE_MAX));
        CHECK_OK(check_run(k.ctx, path, check_adapters[i].base ? k.m : NULL));
        CHECK(check_has(check_adapters[i].code, check_adapters[i].where, check_adapters[i].says));
    }
    check_end(&k);
    CHECK_INT(k.host.now, 0);
}

TEST(check_adapters_values) {
    check_kit k;
    static const char a[] = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
    CHECK_OK(check_begin(&k));
    const char *path = runner_path(k.dir, "x"), *file = runner_path(path, "adapter_model.safetensors"), *gguf = runner_path(k.dir,
                                                                                                                            "x.gguf");
    CHECK_OK(check_save(&k, "x", "lora", NULL, path));
    CHECK_OK(peft_adapters_save(k.a, "x", gguf, NULL));
    CHECK_OK(check_poke(file, file, a, 17, 3, NAN));
    CHECK_OK(check_run(k.ctx, path, NULL));
    CHECK(check_has(PEFT_E_NUMERIC, a, "3 NaN values of 128, the first at [1, 1]"));
    CHECK_OK(check_run(k.ctx, path, k.m));
    CHECK(check_has(PEFT_E_NUMERIC, "forward pass", "NaN or infinite"));
    CHECK_OK(check_run_with(k.ctx, path, NULL, "{'weights':false}"));
    CHECK(check_is_good("adapter"));
    CHECK_OK(check_poke(gguf, gguf, "blk.1.attn_v.weight.lora_b", 0, 1, -INFINITY));
    CHECK_OK(check_run(k.ctx, gguf, NULL));
    CHECK(check_has(PEFT_E_NUMERIC, "blk.1.attn_v.weight.lora_b", "1 infinite value of 64, the first at [0, 0]"));
    CHECK_OK(check_rewrite(gguf, gguf, "blk.1.attn_q.weight.lora_b", "blk.9.attn_q.weight.lora_b", SIZE_MAX));
    CHECK_OK(check_run(k.ctx, gguf, NULL));
    CHECK(check_has(PEFT_E_NOT_FOUND, "blk.1.attn_q.weight.lora_a", "its counterpart"));
    CHECK_OK(check_run(k.ctx, gguf, k.m));
    CHECK(check_has(PEFT_E_NOT_FOUND, "blk.9.attn_q.weight.lora_b", "the base has no matrix"));
    CHECK_INT(remove(file), 0);
    CHECK_OK(check_run(k.ctx, path, NULL));
    CHECK(check_has(PEFT_E_NOT_FOUND, "x", "adapter_model.safetensors"));
    check_end(&k);
    CHECK_INT(k.host.now, 0);
}

/* ---- checkpoints ------------------------------------------------------------------------------------------------------------------- */

/* A checkpoint of two steps of a LoRA, and of a second job if there are two. */
static peft_status check_train(check_kit *k, const char *dir, bool two) {
    static const char *const rows[] = {"{\"input_ids\":[1,2,3,4,5,6]}", "{\"input_ids\":[2,3,4,5]}"};
    peft_status st = PEFT_OK;
    peft_dataset *d = NULL;
    peft_options *o = NULL;
    peft_trainer *t = NULL;
    TRY(peft_adapters_add(k->a, "one", "lora", NULL, 1));
    TRY(peft_adapters_add(k->a, "two", "lora", NULL, 2));
    TRY(peft_dataset_create(k->ctx, NULL, NULL, &d));
    for (size_t i = 0; i < PEFT__COUNT(rows); i++) { TRY(peft_dataset_add_json(d, rows[i], strlen(rows[i]))); }
    TRY(api_options(k->ctx, "trainer", "{'max_steps':2,'batch_size':2}", &o));
    TRY(peft_trainer_create(k->a, o, &t));
    TRY(peft_trainer_add_job(t, "one", d, NULL, NULL));
    if (two) { TRY(peft_trainer_add_job(t, "two", d, NULL, NULL)); }
    TRY(peft_trainer_run(t));
    TRY(peft_trainer_checkpoint_save(t, dir));
out:
    peft_trainer_free(t);
    peft_options_free(o);
    peft_dataset_free(d);
    return st;
}

static const struct {
    const char *from, *to;
    peft_status code;
    const char *where, *says;
} check_states[] = {
    {"\\\"version\\\":1", "\\\"version\\\":9", PEFT_E_VERSION, "state.safetensors", "version 9 is newer"},
    {"\\\"version\\\":1", "\\\"varsion\\\":1", PEFT_E_FORMAT, "version", "missing"},
    {"\\\"optimizer\\\":\\\"adamw\\\"", "\\\"optimizer\\\":\\\"adamx\\\"", PEFT_E_UNSUPPORTED, "optimizer", "adamx"},
    {"\\\"position\\\":", "\\\"position\\\":9", PEFT_E_FORMAT, "position", "the data has 2 rows"},
    {"\\\"parameters\\\":", "\\\"parameters\\\":1", PEFT_E_SHAPE, "parameters", "the state says"},
    {"\\\"optimizer_step\\\":2", "\\\"optimizer_step\\\":3", PEFT_E_FORMAT, "optimizer_step", "it is 3, more than the 2 steps"},
    {"\\\"seed\\\":42", "\\\"seed\\\":43", PEFT_E_FORMAT, "state.safetensors", "checksum"},
    {"\"v\":{\"dtype\":\"F32\"", "\"w\":{\"dtype\":\"F32\"", PEFT_E_FORMAT, "tensor \\\"w\\\"", "nothing in a checkpoint has this name"},
    {"\"v\":{\"dtype\":\"F32\"", "\"w\":{\"dtype\":\"F32\"", PEFT_E_NOT_FOUND, "tensor \\\"params\\\"",
     "the optimizer's \\\"v\\\" of it is missing"},
    {"\"params\":{", "\"porams\":{", PEFT_E_NOT_FOUND, "tensor \\\"m\\\"", "the parameters that it is of are missing"},
    {"\"state\":\"{", "\"state\":\"[", PEFT_E_FORMAT, "state.safetensors", "column"},
    {"\"state\":", "\"stote\":", PEFT_E_FORMAT, "state.safetensors", "no state"},
};

TEST(check_checkpoints) {
    check_kit k;
    CHECK_OK(check_begin(&k));
    const char *dir = runner_path(k.dir, "trainer"), *file = runner_path(dir, "state.safetensors"), *good = runner_path(k.dir, "good");
    CHECK_OK(check_train(&k, dir, false));
    CHECK_OK(check_run(k.ctx, dir, NULL));
    CHECK(check_is_good("checkpoint"));
    CHECK(strstr(check_report, "\"warning_count\":0") != NULL);
    CHECK(strstr(check_report, "\"jobs\":[{\"adapter\":\"one\",\"method\":\"lora\",\"optimizer\":\"adamw\",") != NULL);
    CHECK_OK(check_run(k.ctx, file, NULL));
    CHECK(check_is_good("checkpoint"));
    CHECK_OK(check_rewrite(file, good, NULL, NULL, SIZE_MAX));
    for (size_t i = 0; i < PEFT__COUNT(check_states); i++) {
        CHECK_OK(check_rewrite(good, file, check_states[i].from, check_states[i].to, SIZE_MAX));
        CHECK_OK(check_run(k.ctx, dir, NULL));
        CHECK(check_has(check_states[i].code, check_states[i].where, check_states[i].says));
    }
    CHECK_OK(check_poke(good, file, "m", 5, 2, NAN));
    CHECK_OK(check_run(k.ctx, dir, NULL));
    CHECK(check_has(PEFT_E_NUMERIC, "tensor \\\"m\\\"", "2 NaN values"));
    CHECK_OK(check_poke(good, file, "v", 5, 1, -1));
    CHECK_OK(check_run(k.ctx, dir, NULL));
    CHECK(check_has(PEFT_E_NUMERIC, "tensor \\\"v\\\"", "element 5, a mean of squares, is negative"));
    CHECK(check_has(PEFT_E_FORMAT, "state.safetensors", "checksum"));
    CHECK_OK(check_rewrite(good, file, NULL, NULL, 3000));
    CHECK_OK(check_run(k.ctx, dir, NULL));
    CHECK(check_has(PEFT_E_FORMAT, "state.safetensors", "outside"));
    CHECK_OK(check_rewrite(good, file, "\"checksum\":\"", "\"chocksum\":\"", SIZE_MAX));
    CHECK_OK(check_run(k.ctx, dir, NULL));
    CHECK(check_is_good("checkpoint")); /* as those of the first release */
    CHECK(check_warns("state.safetensors", "no checksum"));
    check_end(&k);
    CHECK_INT(k.host.now, 0);
}

TEST(check_checkpoint_of_two_jobs) {
    check_kit k;
    CHECK_OK(check_begin(&k));
    const char *dir = runner_path(k.dir, "trainer"), *file = runner_path(dir, "state.safetensors");
    CHECK_OK(check_train(&k, dir, true));
    CHECK_OK(check_run(k.ctx, dir, NULL));
    CHECK(check_is_good("checkpoint"));
    CHECK(strstr(check_report, "\"adapter\":\"two\"") != NULL);
    CHECK_OK(check_rewrite(file, file, "\"two/params\":{", "\"tow/params\":{", SIZE_MAX));
    CHECK_OK(check_run(k.ctx, dir, NULL));
    CHECK(check_has(PEFT_E_NOT_FOUND, "two/m", "the parameters that it is of are missing"));
    check_end(&k);
    CHECK_INT(k.host.now, 0);
}

/* A trainer refuses a damaged checkpoint, too. */
TEST(check_checkpoint_refused) {
    check_kit k;
    peft_dataset *d = NULL;
    peft_trainer *t = NULL;
    CHECK_OK(check_begin(&k));
    const char *dir = runner_path(k.dir, "trainer"), *file = runner_path(dir, "state.safetensors");
    static const char row[] = "{\"input_ids\":[1,2,3,4]}";
    CHECK_OK(peft_adapters_add(k.a, "one", "lora", NULL, 1));
    CHECK_OK(peft_dataset_create(k.ctx, NULL, NULL, &d));
    CHECK_OK(peft_dataset_add_json(d, row, strlen(row)));
    CHECK_OK(peft_trainer_create(k.a, NULL, &t));
    CHECK_OK(peft_trainer_add_job(t, "one", d, NULL, NULL));
    CHECK_OK(peft_trainer_checkpoint_save(t, dir));
    CHECK_OK(peft_trainer_checkpoint_load(t, dir));
    CHECK_OK(check_poke(file, file, "params", 7, 1, 0.5F));
    CHECK_STATUS(peft_trainer_checkpoint_load(t, dir), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("its checksum is");
    peft_trainer_free(t);
    peft_dataset_free(d);
    check_end(&k);
    CHECK_INT(k.host.now, 0);
}

/* ---- memory ---------------------------------------------------------------------------------------------------------------------- */

/* Every allocation fails once: the check says so, and nothing is lost. What fits is the whole report. */
static void check_starve(check_kit *k, const char *path, const peft_model *base, const char *kind) {
    enum { MOST = 200000 };
    CHECK_OK(check_run(k->ctx, path, base));
    CHECK(check_is_good(kind));
    size_t now = k->host.now, step = 1, failed = 0;
    for (size_t n = 1; n < MOST; n += step) {
        k->host.calls = 0;
        k->host.fail_at = n;
        peft_status st = check_run(k->ctx, path, base);
        bool reached = k->host.calls >= n;
        k->host.fail_at = 0;
        CHECK_INT(k->host.now, now);
        if (!reached) { break; }
        if (st != PEFT_E_NOMEM) { (void)fprintf(stderr, "%s: allocation %zu of a %s: %.400s\n", path, n, kind, check_report); }
        CHECK_STATUS(st, PEFT_E_NOMEM);
        failed++;
        if (n > 60) { step = 7; }
    }
    CHECK(failed > 20);
    CHECK_OK(check_run(k->ctx, path, base));
    CHECK(check_is_good(kind));
}

TEST(check_without_memory) {
    check_kit k;
    CHECK_OK(check_begin(&k));
    const char *lora = runner_path(k.dir, "lora"), *gguf = runner_path(k.dir, "lora.gguf"), *trainer = runner_path(k.dir, "trainer");
    const char *rows = runner_path(k.dir, "rows.jsonl");
    CHECK_OK(check_save(&k, "lora", "lora", NULL, lora));
    CHECK_OK(peft_adapters_save(k.a, "lora", gguf, NULL));
    CHECK_OK(check_train(&k, trainer, true));
    CHECK_OK(text_write(runner_mem(), k.dir, "rows.jsonl", "{\"text\":\"a\"}\n{\"prompt\":\"a\",\"completion\":\"b\"}\n"));
    check_starve(&k, k.model, NULL, "model");
    check_starve(&k, k.gguf, NULL, "model");
    check_starve(&k, k.words, NULL, "tokenizer");
    check_starve(&k, lora, k.m, "adapter");
    check_starve(&k, gguf, k.m, "adapter");
    check_starve(&k, trainer, NULL, "checkpoint");
    check_starve(&k, rows, k.m, "data");
    check_end(&k);
    CHECK_INT(k.host.now, 0);
}
