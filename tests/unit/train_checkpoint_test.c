/* train_checkpoint_test.c - the state of a run in a file: it goes on bit for bit, or says what does not fit and changes nothing. */
#include <errno.h>

#include "io/io.h"
#include "train_kit.h"

/* Stops after step `at`, saves, and loads into another trainer that goes on: as if nothing had been. */
static void checkpoint_goes_on(const train_spec *s, int64_t at) {
    train_kit k;
    peft__real *whole = NULL;
    train_log log;
    const char *dir = runner_path(runner_tmpdir(), "deep/state");
    CHECK_OK(train_whole(s, &whole, &log));
    CHECK_OK(train_begin(&k, s));
    k.log.answer_at = at;
    CHECK_STATUS(peft_trainer_run(k.t), PEFT_E_CALLBACK);
    CHECK_OK(peft_trainer_checkpoint_save(k.t, dir));
    peft__real *middle = train_copy(&k);
    train_end(&k);
    CHECK_OK(train_begin(&k, s));
    CHECK_OK(peft_trainer_checkpoint_load(k.t, dir));
    CHECK_INT(k.t->step, at);
    CHECK_MEM(train_values(&k), middle, train_bytes(&k));
    CHECK_OK(peft_trainer_run(k.t));
    CHECK_INT(k.log.n, log.n - at);
    CHECK_MEM(k.log.loss, log.loss + at, (size_t)k.log.n * sizeof *log.loss);
    CHECK_MEM(k.log.rate, log.rate + at, (size_t)k.log.n * sizeof *log.rate);
    CHECK_MEM(k.log.epoch, log.epoch + at, (size_t)k.log.n * sizeof *log.epoch);
    CHECK_MEM(train_values(&k), whole, train_bytes(&k));
    free(middle);
    free(whole);
    train_end(&k);
    CHECK_INT(k.host.now, 0);
}

/* 12 rows in batches of 5: step 4 is the first of the second epoch, step 5 in its middle. */
TEST(train_checkpoint_goes_on_lora) {
    train_spec s = {.trainer = "{'max_steps':8,'batch_size':5}",
                    .adapter = "{'lora_dropout':0.3}",
                    .optimizer = "{'learning_rate':0.01,'lr_scheduler_type':'cosine','warmup_steps':3}"};
    for (int64_t at = 1; at <= 7; at++) { checkpoint_goes_on(&s, at); }
}
TEST(train_checkpoint_goes_on_full) {
    train_spec s = {.config = API_GPT2,
                    .method = "full",
                    .trainer = "{'num_train_epochs':3,'batch_size':2,'gradient_accumulation_steps':4}",
                    .optimizer = "{'optimizer':'sgd','momentum':0.9,'learning_rate':0.1}"};
    checkpoint_goes_on(&s, 3);
}
TEST(train_checkpoint_goes_on_lion) {
    train_spec s = {.trainer = "{'max_steps':9,'batch_size':3,'group_by_length':true}",
                    .optimizer = "{'optimizer':'lion','learning_rate':1e-3}"};
    checkpoint_goes_on(&s, 5);
}
TEST(train_checkpoint_goes_on_without_order) {
    train_spec s = {.trainer = "{'max_steps':9,'batch_size':7,'shuffle':false}", .threads = 2};
    checkpoint_goes_on(&s, 6);
}

/* The best adapter so far is part of the state: it may lie before the break. */
TEST(train_checkpoint_keeps_the_best) {
    train_kit k;
    peft__real *whole = NULL;
    train_log log;
    const char *dir = runner_tmpdir();
    train_spec s = {.trainer = "{'max_steps':14,'batch_size':4,'eval_steps':1,'load_best_model_at_end':true}",
                    .optimizer = "{'learning_rate':0.05,'lr_scheduler_type':'constant'}",
                    .method = "full",
                    .eval = true};
    CHECK_OK(train_whole(&s, &whole, &log));
    int64_t best = 0;
    for (int64_t i = 1; i < 14; i++) { best = log.eval[i] < log.eval[best] ? i : best; }
    CHECK(best < 12);
    CHECK_OK(train_begin(&k, &s));
    k.log.answer_at = best + 2;
    CHECK_STATUS(peft_trainer_run(k.t), PEFT_E_CALLBACK);
    CHECK_OK(peft_trainer_checkpoint_save(k.t, dir));
    train_end(&k);
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(peft_trainer_checkpoint_load(k.t, dir));
    CHECK(train_the_job(&k)->best_loss == log.eval[best]);
    CHECK_OK(peft_trainer_run(k.t));
    CHECK_MEM(train_values(&k), whole, train_bytes(&k));
    free(whole);
    train_end(&k);
}

/* A run writes its state by itself: after every second step and after the last. */
TEST(train_checkpoint_by_the_run) {
    train_kit k;
    peft_options *o = NULL;
    const char *dir = runner_path(runner_tmpdir(), "state");
    train_spec s = {0};
    CHECK_OK(train_prepare(&k, &s));
    CHECK_OK(api_options(k.ctx, "trainer", "{'max_steps':5,'batch_size':4,'save_steps':2}", &o));
    CHECK_OK(peft_options_set_str(o, "checkpoint_dir", dir));
    for (int round = 0; round < 2; round++) {
        CHECK_OK(peft_trainer_create(k.a, o, &k.t));
        CHECK_OK(peft_trainer_add_job(k.t, "x", k.train, NULL, NULL));
        CHECK_OK(peft_trainer_set_progress(k.t, train_note, &k.log));
        if (round == 0) {
            k.log.answer_at = 3;
            CHECK_STATUS(peft_trainer_run(k.t), PEFT_E_CALLBACK);
            CHECK_INT(k.t->step, 3);
        } else {
            CHECK_OK(peft_trainer_checkpoint_load(k.t, dir));
            CHECK_INT(k.t->step, 2);
            k.log.answer_at = 0;
            CHECK_OK(peft_trainer_run(k.t));
            CHECK_OK(peft_trainer_checkpoint_load(k.t, dir));
            CHECK_INT(k.t->step, 5);
        }
        peft_trainer_free(k.t);
        k.t = NULL;
    }
    peft_options_free(o);
    train_end(&k);
}

/* Gradients that wait for their update are part of the state. */
TEST(train_checkpoint_between_accumulate_and_apply) {
    train_kit k;
    train_spec s = {.trainer = "{'max_steps':4,'batch_size':2}"};
    const char *dir = runner_tmpdir();
    const int32_t ids[] = {1, 2, 3, 4, 5, 6};
    const int64_t lens[] = {3, 3};
    peft_batch *b = NULL;
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(api_batch(k.ctx, ids, lens, 2, &b));
    CHECK_OK(peft_trainer_accumulate(k.t, b, NULL));
    CHECK_OK(peft_trainer_checkpoint_save(k.t, dir));
    CHECK_OK(peft_trainer_accumulate(k.t, b, NULL));
    CHECK_OK(peft_trainer_apply(k.t));
    peft__real *whole = train_copy(&k);
    CHECK_STATUS(peft_trainer_apply(k.t), PEFT_E_INVALID);
    CHECK_OK(peft_trainer_checkpoint_load(k.t, dir)); /* back to before the second batch */
    CHECK_OK(peft_trainer_accumulate(k.t, b, NULL));
    CHECK_OK(peft_trainer_apply(k.t));
    CHECK_MEM(train_values(&k), whole, train_bytes(&k));
    free(whole);
    peft_batch_free(b);
    train_end(&k);
}

/* ---- what does not fit ------------------------------------------------------------------------------------------ */

typedef struct checkpoint_other { /* a trainer that is no match for the state of the plain one */
    train_spec spec;
    const char *says;
} checkpoint_other;

static const checkpoint_other checkpoint_others[] = {
    {{.adapter = "{'r':4}"}, "is of a \"lora\" with"},
    {{.method = "full"}, "is a \"full\" with"},
    {{.adapter = "{'lora_alpha':32}"}, "is of another adapter than \"x\""},
    {{.adapter = "{'lora_dropout':0.5}"}, "is of another adapter than \"x\""},
    {{.adapter = "{'target_modules':['o_proj','q_proj']}", .config = NULL}, ""},
    {{.rows = 13}, "data of 12 rows and"},
    {{.data = 5}, "data"},
    {{.trainer = "{'max_steps':6,'batch_size':3,'seed':43}"}, "seed 42, and the trainer has 43"},
    {{.trainer = "{'max_steps':6,'batch_size':3,'shuffle':false}"}, "data order"},
    {{.trainer = "{'max_steps':6,'batch_size':3,'group_by_length':true}"}, "data order"},
    {{.optimizer = "{'optimizer':'lion'}"}, "made with optimizer \"adamw\", and the job has \"lion\""},
};

TEST(train_checkpoint_of_another_run) {
    train_kit k;
    train_spec s = {0};
    const char *dir = runner_tmpdir();
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(peft_trainer_run(k.t));
    CHECK_OK(peft_trainer_checkpoint_save(k.t, dir));
    train_end(&k);
    for (size_t i = 0; i < PEFT__COUNT(checkpoint_others); i++) {
        CHECK_OK(train_begin(&k, &checkpoint_others[i].spec));
        peft__real *before = train_copy(&k);
        CHECK_STATUS(peft_trainer_checkpoint_load(k.t, dir), PEFT_E_SHAPE);
        CHECK_ERROR_HAS("state.safetensors");
        CHECK_ERROR_HAS(checkpoint_others[i].says);
        CHECK_MEM(train_values(&k), before, train_bytes(&k));
        CHECK_INT(k.t->step, 0);
        CHECK_OK(peft_trainer_run(k.t)); /* it can still do its own work */
        free(before);
        train_end(&k);
    }
}

/* The same data in the same number of rows, but one label: not the same data. */
TEST(train_checkpoint_of_other_labels) {
    train_kit k;
    train_spec s = {0};
    const char *dir = runner_tmpdir();
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(peft_trainer_checkpoint_save(k.t, dir));
    PEFT__VEC_AT(&k.train->labels, int32_t, 1) = 3 - PEFT__VEC_AT(&k.train->labels, int32_t, 1) % 2;
    CHECK_STATUS(peft_trainer_checkpoint_load(k.t, dir), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("other data");
    train_end(&k);
}

/* ---- damaged files ------------------------------------------------------------------------------------------------ */

/* Writes a state with another text for its metadata, or with its data cut. */
static peft_status checkpoint_rewrite(peft__mem *mem, const char *path, const char *from, const char *to, size_t keep) {
    peft_status st = PEFT_OK;
    peft__file file;
    peft__str s;
    memset(&file, 0, sizeof file);
    peft__str_init(&s, mem);
    TRY(peft__file_open(mem, path, true, &file));
    const char *text = (const char *)file.data, *at = NULL;
    size_t size = keep < file.size ? keep : file.size, n = from != NULL ? strlen(from) : 0;
    for (size_t i = 0; from != NULL && i + n <= size && at == NULL; i++) {
        at = memcmp(text + i, from, n) == 0 ? text + i : NULL;
    }
    if (from != NULL && at == NULL) { FAIL(PEFT_E_NOT_FOUND, "%s is not in the file", from); }
    size_t head = at != NULL ? (size_t)(at - text) : size;
    peft__str_put(&s, text, head);
    if (at != NULL) {
        peft__str_put(&s, to, n); /* as long as what it replaces */
        peft__str_put(&s, at + n, size - head - n);
    }
    TRY(peft__save_text(mem, path, s.data, s.len));
out:
    peft__file_close(&file);
    peft__str_free(&s);
    return st;
}

static const struct {
    const char *from, *to;
    peft_status status;
    const char *says;
} checkpoint_damage[] = {
    {"\\\"version\\\":1", "\\\"version\\\":3", PEFT_E_VERSION, "version 3 is newer than this library's 2"},
    {"\\\"version\\\":1", "\\\"varsion\\\":1", PEFT_E_FORMAT, "key \"version\" is missing"},
    {"\\\"version\\\":1", "\\\"version\\\":0", PEFT_E_FORMAT, "key \"version\" is 0"},
    {"\\\"position\\\":", "\\\"pasition\\\":", PEFT_E_FORMAT, "key \"position\" is missing"},
    {"\\\"seed\\\":42", "\\\"seed\\\":-2", PEFT_E_FORMAT, "key \"seed\" is -2"},
    {"\\\"method\\\":\\\"lora\\\",\\\"optimizer\\\":\\\"adamw\\\",\\\"parameters\\\":",
     "\\\"parameters\\\":9223372036854775807,\\\"other\\\":              ", PEFT_E_FORMAT,
     "key \"parameters\" is 9223372036854775807"},
    {"\"state\":", "\"stale\":", PEFT_E_FORMAT, "it has no state"},
    {"\"state\":\"{", "\"state\":\"[", PEFT_E_FORMAT, "state.safetensors"},
    {"\"params\":{", "\"porams\":{", PEFT_E_FORMAT, "tensor \"params\" is missing"},
    {"\"v\":{\"dtype\":\"F32\"", "\"w\":{\"dtype\":\"F32\"", PEFT_E_FORMAT, "tensor \"v\" is missing"},
};

TEST(train_checkpoint_damaged) {
    train_kit k;
    train_spec s = {0};
    const char *dir = runner_tmpdir(), *path = runner_path(dir, "state.safetensors");
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(peft_trainer_run(k.t));
    peft__real *before = train_copy(&k);
    CHECK_STATUS(peft_trainer_checkpoint_load(k.t, dir), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS(path);
    for (size_t i = 0; i < PEFT__COUNT(checkpoint_damage); i++) {
        CHECK_OK(peft_trainer_checkpoint_save(k.t, dir));
        CHECK_OK(checkpoint_rewrite(&k.ctx->mem, path, checkpoint_damage[i].from, checkpoint_damage[i].to, SIZE_MAX));
        CHECK_STATUS(peft_trainer_checkpoint_load(k.t, dir), checkpoint_damage[i].status);
        CHECK_ERROR_HAS(path);
        CHECK_ERROR_HAS(checkpoint_damage[i].says);
        CHECK_MEM(train_values(&k), before, train_bytes(&k));
        CHECK_INT(k.t->step, 6);
    }
    static const size_t cuts[] = {0, 5, 8, 100, 900, 3000, 4000};
    for (size_t i = 0; i < PEFT__COUNT(cuts); i++) {
        CHECK_OK(peft_trainer_checkpoint_save(k.t, dir));
        CHECK_OK(checkpoint_rewrite(&k.ctx->mem, path, NULL, NULL, cuts[i]));
        CHECK_STATUS(peft_trainer_checkpoint_load(k.t, dir), PEFT_E_FORMAT);
        CHECK_ERROR_HAS(path);
        CHECK_MEM(train_values(&k), before, train_bytes(&k));
    }
    CHECK_OK(peft_trainer_checkpoint_save(k.t, dir));
    CHECK_OK(peft_trainer_checkpoint_load(k.t, dir));
    free(before);
    train_end(&k);
    CHECK_INT(k.host.now, 0);
}

/* ---- a failing disk ------------------------------------------------------------------------------------------------- */

static int checkpoint_left; /* calls that still succeed */

static int64_t checkpoint_write(int fd, const void *data, size_t size) {
    if (checkpoint_left-- > 0) { return peft__sys_write(fd, data, size); }
    errno = ENOSPC;
    return -1;
}

static int checkpoint_sync(int fd) {
    (void)fd;
    if (checkpoint_left-- > 0) { return 0; }
    errno = EIO;
    return -1;
}

static int checkpoint_rename(const char *from, const char *to) {
    if (checkpoint_left-- > 0) { return peft__sys_rename(from, to); }
    errno = EACCES;
    return -1;
}

/* Each write, sync and rename of a save fails once. The old state is whole until the new one is. */
TEST(train_checkpoint_on_a_failing_disk) {
    static const peft__file_ops ops = {peft__sys_read, checkpoint_write, checkpoint_sync, checkpoint_rename};
    train_kit k;
    train_spec s = {0};
    const char *dir = runner_tmpdir(), *path = runner_path(dir, "state.safetensors");
    peft__file before = {0}, after = {0};
    CHECK_OK(train_begin(&k, &s));
    k.log.answer_at = 2;
    CHECK_STATUS(peft_trainer_run(k.t), PEFT_E_CALLBACK);
    CHECK_OK(peft_trainer_checkpoint_save(k.t, dir));
    CHECK_OK(peft__file_open(&k.ctx->mem, path, true, &before));
    CHECK_OK(peft_trainer_run(k.t));
    int failed = 0;
    peft_status st = PEFT_E_IO;
    for (int n = 0; st != PEFT_OK && n < 50; n++) {
        checkpoint_left = n;
        peft__file_set_ops(&ops);
        st = peft_trainer_checkpoint_save(k.t, dir);
        peft__file_set_ops(NULL);
        if (st == PEFT_OK) { break; }
        failed++;
        CHECK_STATUS(st, PEFT_E_IO);
        CHECK_ERROR_HAS("state.safetensors");
        CHECK_OK(peft__file_open(&k.ctx->mem, path, true, &after));
        bool same = after.size == before.size && memcmp(after.data, before.data, before.size) == 0;
        bool durable = strstr(peft_last_error(), "make durable") != NULL; /* in place, but its folder's sync failed */
        peft__file_close(&after);
        CHECK(same || durable);
    }
    CHECK_OK(st);
    CHECK(failed >= 5);
    CHECK_OK(peft_trainer_checkpoint_load(k.t, dir));
    CHECK_INT(k.t->step, 6);
    peft__file_close(&before);
    train_end(&k);
}

TEST(train_checkpoint_where_no_folder_can_be) {
    train_kit k;
    train_spec s = {0};
    const char *dir = runner_tmpdir();
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(text_write(&k.ctx->mem, dir, "file", "x"));
    CHECK_STATUS(peft_trainer_checkpoint_save(k.t, runner_path(dir, "file/state")), PEFT_E_IO);
    CHECK_ERROR_HAS("file");
    train_end(&k);
}
