/* train_jobs_test.c - several jobs in one trainer: each adapter learns as it would alone, whatever stands beside it. */
#include "methods_kit.h"
#include "train_kit.h"

enum { JOBS_STEPS = 3, JOBS_VALUES = 1 << 14, JOBS_MOST = 8 };

typedef struct jobs_world { /* a model and adapters "m0", "m1", ... with data of their own */
    api_host host;
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    peft_dataset *data[JOBS_MOST];
    peft_trainer *t;
    int32_t calls;          /* of the progress callback */
    char order[256];        /* first letters of the jobs it was called for */
} jobs_world;

static int32_t jobs_note(void *user, const peft_step_info *info) {
    jobs_world *w = user;
    w->calls++;
    size_t n = strlen(w->order);
    if (n + 3 < sizeof w->order) { (void)snprintf(w->order + n, sizeof w->order - n, "%s ", info->job); }
    return 0;
}

static peft_status jobs_open(jobs_world *w, const char *config, int32_t threads) {
    peft_status st = PEFT_OK;
    memset(w, 0, sizeof *w);
    TRY(api_context(&w->host, &w->ctx));
    TRY(peft_context_set_threads(w->ctx, threads));
    TRY(api_model(w->ctx, config, &w->m));
    train_stir(w->m);
    TRY(peft_adapters_create(w->m, &w->a));
    for (size_t i = 0; i < JOBS_MOST; i++) { TRY(train_open(w->ctx, 40 + i, 5 + (int64_t)i, &w->data[i])); }
out:
    return st;
}

static void jobs_close(jobs_world *w) {
    peft_trainer_free(w->t);
    for (size_t i = 0; i < JOBS_MOST; i++) { peft_dataset_free(w->data[i]); }
    peft_adapters_free(w->a);
    peft_model_free(w->m);
    peft_context_free(w->ctx);
}

static peft_status jobs_adapter(jobs_world *w, const char *name, const char *const method[2], uint64_t seed) {
    bool shaken = strcmp(method[0], "full") != 0 && strcmp(method[0], "head") != 0;
    return api_adapter(w->ctx, w->a, name, method, seed, shaken ? 0.05F : 0);
}

static peft_status jobs_trainer(jobs_world *w, const char *options) {
    peft_options *o = NULL;
    peft_trainer_free(w->t);
    w->t = NULL;
    peft_status st = api_options(w->ctx, "trainer", options, &o);
    if (st == PEFT_OK) { st = peft_trainer_create(w->a, o, &w->t); }
    if (st == PEFT_OK) { st = peft_trainer_set_progress(w->t, jobs_note, w); }
    peft_options_free(o);
    return st;
}

static peft_status jobs_add(jobs_world *w, const char *job, size_t data, size_t eval, const char *options) {
    peft_options *o = NULL;
    peft_status st = api_options(w->ctx, "optimizer", options, &o);
    if (st == PEFT_OK) {
        st = peft_trainer_add_job(w->t, job, data < JOBS_MOST ? w->data[data] : NULL, eval < JOBS_MOST ? w->data[eval] : NULL, o);
    }
    peft_options_free(o);
    return st;
}

/* All values of an adapter, one tensor after the other. */
static size_t jobs_values(const jobs_world *w, const char *name, float *out) {
    size_t n = 0;
    for (size_t i = 0; i < peft_adapters_tensor_count(w->a, name); i++) {
        const char *tensor = NULL;
        size_t count = 0;
        if (peft_adapters_tensor_info(w->a, name, i, &tensor, NULL, NULL) != PEFT_OK ||
            peft_adapters_tensor_read(w->a, name, tensor, out + n, JOBS_VALUES - n, &count) != PEFT_OK) {
            return 0;
        }
        n += count;
    }
    return n;
}

/* Adam divides gradients that are zero but for rounding (a key's bias) by themselves: epsilon keeps that out of the comparison. */
#define JOBS_RATE "{'learning_rate':0.01,'weight_decay':0.01,'adam_epsilon':1e-3}"

/* Methods a and b with seeds of their own, each in 2 rows a step: alone (only = "a" or "b") or together. */
static peft_status jobs_pair(const char *config, size_t a, size_t b, const char *only, float *out[2], size_t n[2]) {
    peft_status st = PEFT_OK;
    jobs_world w;
    TRY(jobs_open(&w, config, 1));
    bool both = only == NULL;
    TRY(jobs_adapter(&w, "a", methods_all[a], 5));
    TRY(jobs_adapter(&w, "b", methods_all[b], 6));
    TRY(jobs_trainer(&w, both ? "{'max_steps':3,'batch_size':4}" : "{'max_steps':3,'batch_size':2}"));
    if (both || only[0] == 'b') { TRY(jobs_add(&w, "b", 1, JOBS_MOST, JOBS_RATE)); }
    if (both || only[0] == 'a') { TRY(jobs_add(&w, "a", 0, JOBS_MOST, JOBS_RATE)); }
    TRY(peft_trainer_run(w.t));
    n[0] = jobs_values(&w, "a", out[0]);
    n[1] = jobs_values(&w, "b", out[1]);
out:
    jobs_close(&w);
    return st;
}

/* Largest difference, of values that are as large as the largest of them at most. */
static double jobs_away(const float *x, const float *y, size_t n) {
    double most = 0, size = 1e-3;
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, fabs((double)x[i] - (double)y[i]));
        size = fmax(size, fabs((double)x[i]));
    }
    return n > 0 ? most / size : 1;
}

static void jobs_all_pairs(const char *config, size_t from, size_t by) {
    enum { N = PEFT__COUNT(methods_all) };
    static float alone[N][2][JOBS_VALUES], together[2][JOBS_VALUES], unused[JOBS_VALUES];
    static size_t count[N][2];
    int bad = 0;
    for (size_t i = 0; i < N; i++) {
        float *first[2] = {alone[i][0], unused}, *second[2] = {unused, alone[i][1]};
        size_t n[2];
        CHECK_OK(jobs_pair(config, i, 0, "a", first, n));
        count[i][0] = n[0];
        CHECK_OK(jobs_pair(config, 0, i, "b", second, n));
        count[i][1] = n[1];
    }
    for (size_t p = from; p < N * N; p += by) {
        size_t a = p / N, b = p % N, n[2] = {0, 0};
        float *out[2] = {together[0], together[1]};
        peft_status st = jobs_pair(config, a, b, NULL, out, n);
        double away = fmax(jobs_away(alone[a][0], out[0], n[0]), jobs_away(alone[b][1], out[1], n[1]));
        if (st == PEFT_OK && away < 1e-5 && n[0] == count[a][0] && n[1] == count[b][1]) { continue; }
        fprintf(stderr, "%s and %s: %.3g %s\n", methods_all[a][0], methods_all[b][0], away,
                st == PEFT_OK ? "" : peft_last_error());
        bad++;
    }
    CHECK_INT(bad, 0);
}

TEST(train_jobs_of_all_pairs) { jobs_all_pairs(API_GPT2, 0, 1); }

/* Rows with classes, and a pooled state that each adapter's own head reads. */
static peft_status jobs_classes(jobs_world *w, const char *only, float *out[2], size_t n[2]) {
    peft_status st = PEFT_OK;
    static const char *const methods[2][2] = {{"lora", "{'r':2}"}, {"pfeiffer", "{'reduction_factor':4}"}};
    peft_options *o = NULL;
    TRY(jobs_open(w, API_BERT, 1));
    TRY(api_options(w->ctx, "dataset", "{'task':'sequence_classification'}", &o));
    for (size_t d = 0; d < 2; d++) {
        peft_dataset_free(w->data[d]);
        w->data[d] = NULL;
        TRY(peft_dataset_create(w->ctx, NULL, o, &w->data[d]));
        for (size_t i = 0; i < 5 + d; i++) {
            char row[96];
            (void)snprintf(row, sizeof row, "{\"input_ids\":[%zu,%zu,%zu],\"label\":%zu}", i + d, 13 - i, 2 * i + d, (i + d) % 3);
            TRY(peft_dataset_add_json(w->data[d], row, strlen(row)));
        }
        TRY(jobs_adapter(w, d == 0 ? "a" : "b", methods[d], 5 + d));
    }
    TRY(jobs_trainer(w, only == NULL ? "{'max_steps':4,'batch_size':4}" : "{'max_steps':4,'batch_size':2}"));
    if (only == NULL || only[0] == 'a') { TRY(jobs_add(w, "a", 0, 0, JOBS_RATE)); }
    if (only == NULL || only[0] == 'b') { TRY(jobs_add(w, "b", 1, 1, JOBS_RATE)); }
    TRY(peft_trainer_run(w->t));
    n[0] = jobs_values(w, "a", out[0]);
    n[1] = jobs_values(w, "b", out[1]);
out:
    peft_options_free(o);
    jobs_close(w);
    return st;
}

TEST(train_jobs_of_classes) {
    static float together[2][JOBS_VALUES], alone[2][JOBS_VALUES], unused[JOBS_VALUES];
    float *both[2] = {together[0], together[1]}, *first[2] = {alone[0], unused}, *second[2] = {unused, alone[1]};
    size_t n[2] = {0, 0}, m[2] = {0, 0};
    jobs_world w;
    CHECK_OK(jobs_classes(&w, NULL, both, n));
    CHECK_OK(jobs_classes(&w, "a", first, m));
    CHECK_OK(jobs_classes(&w, "b", second, m));
    CHECK(n[0] == m[0] && n[1] == m[1] && n[0] > 50);
    CHECK(jobs_away(alone[0], together[0], n[0]) < 1e-5);
    CHECK(jobs_away(alone[1], together[1], n[1]) < 1e-5);
    CHECK_INT(w.host.now, 0);
}

/* ---- the set as a whole -------------------------------------------------------------------------------------------------------- */

static const char *const jobs_five[5][2] = {{"lora", "{'r':2}"},
                                            {"houlsby", "{'reduction_factor':4}"},
                                            {"prompt", "{'num_virtual_tokens':3}"},
                                            {"head", "{}"},
                                            {"lora", "{'r':4,'target_modules':'all-linear'}"}};
static const char *const jobs_names[5] = {"e", "d", "c", "b", "a"};

/* Five adapters with shares of their own; `turn`: which job is added first. Values of all, one after the other. */
static peft_status jobs_of_five(size_t turn, int32_t threads, const char *trainer, float *out, size_t *n) {
    peft_status st = PEFT_OK;
    jobs_world w;
    TRY(jobs_open(&w, API_LLAMA, threads));
    for (size_t i = 0; i < 5; i++) { TRY(jobs_adapter(&w, jobs_names[i], jobs_five[i], 3 + i)); }
    TRY(jobs_trainer(&w, trainer));
    for (size_t k = 0; k < 5; k++) {
        size_t i = (k + turn) % 5;
        TRY(jobs_add(&w, jobs_names[i], i, JOBS_MOST, i == 0 ? "{'learning_rate':0.01,'share':3}" : "{'learning_rate':0.01}"));
    }
    TRY(peft_trainer_run(w.t));
    *n = 0;
    for (size_t i = 0; i < 5; i++) { *n += jobs_values(&w, jobs_names[i], out + *n); }
    st = strcmp(w.order, "a b c d e a b c d e a b c d e a b c d e ") == 0 ? PEFT_OK : PEFT_E_INTERNAL;
out:
    jobs_close(&w);
    return st;
}

TEST(train_jobs_do_not_depend_on_their_order) {
    static float first[JOBS_VALUES], other[JOBS_VALUES];
    const char *trainer = "{'max_steps':4,'batch_size':9,'gradient_accumulation_steps':2}";
    size_t n = 0, m = 0;
    CHECK_OK(jobs_of_five(0, 1, trainer, first, &n));
    CHECK(n > 100);
    for (size_t turn = 1; turn < 5; turn++) {
        CHECK_OK(jobs_of_five(turn, turn == 1 ? 1 : (int32_t)turn, trainer, other, &m));
        CHECK(m == n);
        CHECK_MEM(other, first, n * sizeof *first);
    }
    CHECK_OK(jobs_of_five(0, 2, "{'max_steps':4,'batch_size':9,'gradient_accumulation_steps':2,'memory_limit':2250000}", other, &m));
    CHECK_MEM(other, first, n * sizeof *first); /* recomputed activations are the same */
}

static int64_t jobs_number(const char *json, const char *job, const char *key) {
    char name[64];
    (void)snprintf(name, sizeof name, "\"adapter\":\"%s\"", job);
    const char *at = strstr(json, name);
    (void)snprintf(name, sizeof name, "\"%s\":", key);
    at = at != NULL ? strstr(at, name) : NULL;
    return at != NULL ? strtoll(at + strlen(name), NULL, 10) : -1;
}

TEST(train_jobs_divide_a_batch) {
    static const struct { const char *trainer; int64_t rows[3]; } cases[] = { /* data of 5, 6 and 12 rows; shares 1, 2 and 1 */
        {"{'batch_size':8}", {2, 4, 2}},
        {"{'batch_size':3}", {1, 1, 1}},
        {"{'batch_size':9}", {2, 5, 2}},
        {"{'batch_size':29,'job_sampling':'proportional'}", {5, 12, 12}},
        {"{'batch_size':20,'job_sampling':'temperature'}", {4, 9, 7}},
        {"{'batch_size':8,'job_sampling':'temperature','sampling_temperature':1000}", {2, 4, 2}},
    };
    static const char *const lora[2] = {"lora", "{'r':2}"};
    char json[16384];
    jobs_world w;
    CHECK_OK(jobs_open(&w, API_LLAMA, 1));
    CHECK_OK(train_rows(w.data[7], 9, 0));
    for (size_t i = 0; i < 3; i++) { CHECK_OK(jobs_adapter(&w, jobs_names[4 - i], lora, i)); }
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        CHECK_OK(jobs_trainer(&w, cases[i].trainer));
        CHECK_OK(jobs_add(&w, "a", 0, JOBS_MOST, "{}"));
        CHECK_OK(jobs_add(&w, "b", 1, JOBS_MOST, "{'share':2}"));
        CHECK_OK(jobs_add(&w, "c", 7, JOBS_MOST, "{}"));
        CHECK_OK(peft_trainer_plan_json(w.t, json, sizeof json, NULL));
        CHECK_INT(jobs_number(json, "a", "rows"), cases[i].rows[0]);
        CHECK_INT(jobs_number(json, "b", "rows"), cases[i].rows[1]);
        CHECK_INT(jobs_number(json, "c", "rows"), cases[i].rows[2]);
    }
    jobs_close(&w);
    CHECK_INT(w.host.now, 0);
}

TEST(train_jobs_end_each_at_its_time) {
    static const char *const lora[2] = {"lora", "{'r':2}"};
    static float all[JOBS_VALUES], alone[JOBS_VALUES];
    char json[16384];
    jobs_world w;
    CHECK_OK(jobs_open(&w, API_LLAMA, 1));
    for (size_t i = 0; i < 3; i++) { CHECK_OK(jobs_adapter(&w, jobs_names[4 - i], lora, i)); }
    CHECK_OK(jobs_trainer(&w, "{'batch_size':6,'max_steps':5,'eval_steps':1}"));
    CHECK_OK(jobs_add(&w, "a", 0, JOBS_MOST, "{'max_steps':2,'learning_rate':0.01}"));
    CHECK_OK(jobs_add(&w, "b", 1, JOBS_MOST, "{'num_train_epochs':3,'learning_rate':0.01}")); /* 6 rows, 2 a step */
    CHECK_OK(jobs_add(&w, "c", 2, 3, "{'learning_rate':0,'weight_decay':0,'early_stopping_patience':2,'early_stopping_threshold':10}"));
    CHECK_OK(peft_trainer_run(w.t));
    CHECK_STR(w.order, "a b c a b c b c b b b b b b ");
    CHECK_OK(peft_trainer_plan_json(w.t, json, sizeof json, NULL));
    CHECK(strstr(json, "\"adapter\":\"c\"") != NULL && strstr(strstr(json, "\"adapter\":\"c\""), "\"state\":\"stopped early\"") != NULL);
    CHECK(strstr(strstr(json, "\"adapter\":\"a\""), "\"state\":\"done\"") != NULL);
    size_t n = jobs_values(&w, "b", all);
    jobs_close(&w);
    CHECK_OK(jobs_open(&w, API_LLAMA, 1)); /* b as if it had been alone */
    CHECK_OK(jobs_adapter(&w, "b", lora, 1));
    CHECK_OK(jobs_trainer(&w, "{'batch_size':2}"));
    CHECK_OK(jobs_add(&w, "b", 1, JOBS_MOST, "{'num_train_epochs':3,'learning_rate':0.01}"));
    CHECK_OK(peft_trainer_run(w.t));
    CHECK(jobs_values(&w, "b", alone) == n);
    CHECK(jobs_away(alone, all, n) < 1e-5);
    jobs_close(&w);
    CHECK_INT(w.host.now, 0);
}

/* ---- what goes wrong in one ------------------------------------------------------------------------------------------------------- */

/* Adapters a, b, c; b has a value that is not a number from the start, or a gradient that is not one ("huge"). */
static peft_status jobs_with_bad(jobs_world *w, const char *bad, float *out, size_t *n) {
    peft_status st = PEFT_OK;
    static const char *const lora[2] = {"lora", "{'r':2}"};
    static const char *const bottleneck[2] = {"houlsby", "{'reduction_factor':4,'non_linearity':'relu'}"};
    float values[64];
    size_t count = 0;
    const char *tensor = NULL;
    TRY(jobs_open(w, API_LLAMA, 1));
    TRY(jobs_adapter(w, "a", lora, 1));
    TRY(jobs_adapter(w, "b", bottleneck, 2));
    TRY(jobs_adapter(w, "c", bottleneck, 3));
    if (bad != NULL) {
        TRY(peft_adapters_tensor_info(w->a, "b", strcmp(bad, "nan") == 0 ? 0 : 2, &tensor, NULL, NULL));
        TRY(peft_adapters_tensor_read(w->a, "b", tensor, values, PEFT__COUNT(values), &count));
        for (size_t i = 0; i < count; i++) { values[i] = strcmp(bad, "nan") == 0 ? NAN : i % 2 == 0 ? 3e38F : -3e38F; }
        TRY(peft_adapters_tensor_write(w->a, "b", tensor, values, count));
    }
    TRY(jobs_trainer(w, "{'batch_size':6,'max_steps':4}"));
    TRY(jobs_add(w, "a", 0, JOBS_MOST, JOBS_RATE));
    TRY(jobs_add(w, "b", 1, JOBS_MOST, JOBS_RATE));
    TRY(jobs_add(w, "c", 2, JOBS_MOST, JOBS_RATE));
    st = peft_trainer_run(w->t);
    *n = jobs_values(w, "a", out);
    *n += jobs_values(w, "c", out + *n);
out:
    return st;
}

TEST(train_jobs_one_fails_alone) {
    static float good[JOBS_VALUES], left[JOBS_VALUES];
    char json[16384];
    static const char *const bad[] = {"nan", "huge"};
    jobs_world w;
    size_t n = 0, m = 0;
    CHECK_OK(jobs_with_bad(&w, NULL, good, &n));
    jobs_close(&w);
    for (size_t i = 0; i < PEFT__COUNT(bad); i++) {
        CHECK_STATUS(jobs_with_bad(&w, bad[i], left, &m), PEFT_E_NUMERIC);
        CHECK_ERROR_HAS("1 of 3 jobs failed and the others are done; \"b\": ");
        CHECK_ERROR_HAS(i == 0 ? "the loss of adapter \"b\" at step 1 is not a finite number" : "a gradient of adapter \"b\" at step ");
        CHECK_STR(w.order, i == 0 ? "a c a c a c a c " : "a b c a b c a c a c ");
        CHECK(m == n);
        CHECK(jobs_away(good, left, n) < 1e-5);
        CHECK_OK(peft_trainer_plan_json(w.t, json, sizeof json, NULL));
        CHECK(strstr(json, "\"state\":\"failed\",\"error\":\"") != NULL);
        CHECK_STATUS(peft_trainer_run(w.t), PEFT_E_NUMERIC); /* nothing is left to do, and it is not forgotten */
        jobs_close(&w);
        CHECK_INT(w.host.now, 0);
    }
}

TEST(train_jobs_refused) {
    static const char *const lora[2] = {"lora", "{'r':2}"};
    jobs_world w;
    char name[8], json[8192];
    CHECK_OK(jobs_open(&w, API_LLAMA, 1));
    for (size_t i = 0; i < 34; i++) {
        (void)snprintf(name, sizeof name, "n%zu", i);
        CHECK_OK(jobs_adapter(&w, name, lora, i));
    }
    CHECK_OK(jobs_trainer(&w, "{'batch_size':2,'max_steps':1}"));
    CHECK_OK(jobs_add(&w, "n0", 0, JOBS_MOST, "{}"));
    CHECK_STATUS(jobs_add(&w, "n0", 0, JOBS_MOST, "{}"), PEFT_E_EXISTS);
    CHECK_STATUS(jobs_add(&w, "n99", 0, JOBS_MOST, "{}"), PEFT_E_NOT_FOUND);
    CHECK_STATUS(jobs_add(&w, "batch_split(n1:1,n2:1)", 0, JOBS_MOST, "{}"), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("\"batch_split(n1:1,n2:1)\" divides the rows of a batch");
    CHECK_STATUS(jobs_add(&w, "n1", 0, JOBS_MOST, "{'share':0}"), PEFT_E_KEY);
    CHECK_STATUS(jobs_add(&w, "n1", 0, JOBS_MOST, "{'share':-1}"), PEFT_E_KEY);
    CHECK_OK(jobs_add(&w, "n1", 0, JOBS_MOST, "{}"));
    CHECK_OK(jobs_add(&w, "n2", 0, JOBS_MOST, "{}"));
    CHECK_STATUS(peft_trainer_run(w.t), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("batch_size is 2, and the 3 jobs need at least a row each");
    CHECK_STATUS(peft_adapters_remove(w.a, "n2"), PEFT_E_BUSY);
    CHECK_ERROR_HAS("in use by 1 job of a trainer");
    for (size_t i = 3; i < 32; i++) {
        (void)snprintf(name, sizeof name, "n%zu", i);
        CHECK_OK(jobs_add(&w, name, 0, JOBS_MOST, "{}"));
    }
    CHECK_STATUS(jobs_add(&w, "n32", 0, JOBS_MOST, "{}"), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("32 jobs, which is as many");
    CHECK_OK(jobs_trainer(&w, "{'batch_size':2,'max_steps':1}"));
    CHECK_OK(jobs_add(&w, "n1", 0, JOBS_MOST, "{}"));
    CHECK_OK(peft_trainer_run(w.t));
    CHECK_STATUS(jobs_add(&w, "n2", 0, JOBS_MOST, "{}"), PEFT_E_BUSY);
    CHECK_OK(jobs_trainer(&w, "{'batch_size':2,'max_steps':1}"));
    CHECK_OK(jobs_add(&w, "n1", 0, JOBS_MOST, "{}"));
    CHECK_OK(jobs_add(&w, "n2", 0, JOBS_MOST, "{}"));
    CHECK_STATUS(peft_trainer_evaluate(w.t, w.data[0], json, sizeof json, NULL), PEFT_E_INVALID);
    CHECK_ERROR_HAS("the trainer has 2 jobs");
    jobs_close(&w);
    CHECK_INT(w.host.now, 0);
}

/* ---- shared adapters, checkpoints, a caller's loop ---------------------------------------------------------------------------------- */

/* Rows 0 to 3 of two sets, two of one and two of the other in turn. */
static peft_status jobs_mix(jobs_world *w, peft_dataset *out) {
    peft_status st = PEFT_OK;
    peft_batch *b = NULL;
    TRY(peft_batch_create(w->ctx, &b));
    for (size_t i = 0; i < 8; i++) {
        const struct peft_dataset *d = w->data[i / 2 % 2];
        const peft__row *row = peft__dataset_row(d, i / 4 * 2 + i % 2);
        const int64_t offsets[2] = {0, row->n};
        TRY(peft_batch_set_i32(b, "input_ids", (const int32_t *)d->ids.data + row->first, offsets, 1));
        TRY(peft_batch_set_i32(b, "labels", (const int32_t *)d->labels.data + row->first, offsets, 1));
        TRY(peft_dataset_add(out, b));
    }
out:
    peft_batch_free(b);
    return st;
}

/* "s" in two jobs, beside adapters that are held and do nothing: as if it were trained on the rows of both. */
TEST(train_jobs_share_an_adapter) {
    static const char *const lora[2] = {"lora", "{'r':2}"};
    static float before[JOBS_VALUES], shared[JOBS_VALUES], alone[JOBS_VALUES];
    const char *trainer = "{'batch_size':4,'max_steps':2,'shuffle':false}", *rate = "{'learning_rate':0.01,'adam_epsilon':1e-3}";
    jobs_world w;
    peft_dataset *mixed = NULL;
    size_t n = 0;
    for (int both = 0; both < 2; both++) {
        CHECK_OK(jobs_open(&w, API_LLAMA, 1));
        CHECK_OK(jobs_adapter(&w, "s", lora, 1));
        CHECK_OK(peft_adapters_add(w.a, "x", "lora", NULL, 2));
        CHECK_OK(peft_adapters_add(w.a, "y", "lora", NULL, 3));
        n = jobs_values(&w, "s", before);
        CHECK_OK(jobs_trainer(&w, trainer));
        if (both == 1) {
            CHECK_OK(jobs_add(&w, "s,freeze(y)", 1, JOBS_MOST, rate));
            CHECK_OK(jobs_add(&w, "s, freeze(x)", 0, JOBS_MOST, rate));
        } else {
            CHECK_OK(peft_dataset_create(w.ctx, NULL, NULL, &mixed));
            CHECK_OK(jobs_mix(&w, mixed));
            peft_dataset_free(w.data[7]);
            w.data[7] = mixed;
            CHECK_OK(jobs_add(&w, "s", 7, JOBS_MOST, rate));
        }
        CHECK_OK(peft_trainer_run(w.t));
        CHECK(jobs_values(&w, "s", both == 1 ? shared : alone) == n);
        jobs_close(&w);
        CHECK_INT(w.host.now, 0);
    }
    CHECK(jobs_away(before, shared, n) > 1e-3);
    CHECK(jobs_away(alone, shared, n) < 1e-5);
}

/* A fusion learns while the adapters that it weighs learn in jobs of their own. */
TEST(train_jobs_with_a_fusion) {
    static float before[4][JOBS_VALUES], after[JOBS_VALUES];
    static const char *const names[] = {"x", "y", "f"};
    jobs_world w;
    peft_options *o = NULL;
    CHECK_OK(jobs_open(&w, API_LLAMA, 1));
    CHECK_OK(jobs_adapter(&w, "x", jobs_five[1], 2));
    CHECK_OK(jobs_adapter(&w, "y", jobs_five[1], 3));
    CHECK_OK(api_options(w.ctx, "method:fusion", "{'adapters':['x','y']}", &o));
    CHECK_OK(peft_adapters_add(w.a, "f", "fusion", o, 4));
    peft_options_free(o);
    for (int i = 0; i < 3; i++) { CHECK(jobs_values(&w, names[i], before[i]) > 0); }
    CHECK_OK(jobs_trainer(&w, "{'batch_size':6,'max_steps':3}"));
    CHECK_OK(jobs_add(&w, "x", 0, JOBS_MOST, "{}"));
    CHECK_OK(jobs_add(&w, "fuse(x,y)", 2, JOBS_MOST, "{}"));
    CHECK_OK(jobs_add(&w, "y", 1, JOBS_MOST, "{}"));
    CHECK_OK(peft_trainer_run(w.t));
    for (int i = 0; i < 3; i++) {
        size_t n = jobs_values(&w, names[i], after);
        CHECK(jobs_away(before[i], after, n) > 1e-4);
    }
    jobs_close(&w);
    CHECK_INT(w.host.now, 0);
}

static peft_status jobs_resumable(jobs_world *w, bool reversed, const char *dir) {
    peft_status st = PEFT_OK;
    char trainer[256];
    (void)snprintf(trainer, sizeof trainer, "{'batch_size':6,'max_steps':8,'eval_steps':2,'load_best_model_at_end':true%s}", dir);
    TRY(jobs_open(w, API_LLAMA, 1));
    for (size_t i = 0; i < 3; i++) { TRY(jobs_adapter(w, jobs_names[i], jobs_five[i], 3 + i)); }
    TRY(jobs_trainer(w, trainer));
    for (size_t k = 0; k < 3; k++) {
        size_t i = reversed ? 2 - k : k;
        TRY(jobs_add(w, jobs_names[i], i, 5, i == 1 ? "{'learning_rate':0.01,'max_steps':3}" : "{'learning_rate':0.02}"));
    }
out:
    return st;
}

TEST(train_jobs_go_on_from_a_checkpoint) {
    static float whole[JOBS_VALUES], again[JOBS_VALUES];
    const char *dir = runner_tmpdir();
    jobs_world w;
    size_t n = 0, m;
    int32_t more = 0;
    CHECK_OK(jobs_resumable(&w, false, ""));
    CHECK_OK(peft_trainer_run(w.t));
    for (size_t i = 0; i < 3; i++) { n += jobs_values(&w, jobs_names[i], whole + n); }
    jobs_close(&w);
    for (int stop = 0; stop < 8; stop++) {
        CHECK_OK(jobs_resumable(&w, false, ""));
        for (int s = 0; s < stop; s++) { CHECK_OK(peft_trainer_step(w.t, &more)); }
        CHECK_OK(peft_trainer_checkpoint_save(w.t, dir));
        jobs_close(&w);
        CHECK_OK(jobs_resumable(&w, stop % 2 == 1, ""));
        CHECK_OK(peft_trainer_checkpoint_load(w.t, dir));
        CHECK_OK(peft_trainer_run(w.t));
        m = 0;
        for (size_t i = 0; i < 3; i++) { m += jobs_values(&w, jobs_names[i], again + m); }
        CHECK(m == n);
        CHECK_MEM(again, whole, n * sizeof *whole);
        jobs_close(&w);
        CHECK_INT(w.host.now, 0);
    }
    CHECK_OK(jobs_open(&w, API_LLAMA, 1)); /* of other jobs */
    for (size_t i = 0; i < 4; i++) { CHECK_OK(jobs_adapter(&w, jobs_names[i], jobs_five[i], 3 + i)); }
    CHECK_OK(jobs_trainer(&w, "{'batch_size':6,'max_steps':8}"));
    CHECK_OK(jobs_add(&w, "e", 0, JOBS_MOST, "{}"));
    CHECK_STATUS(peft_trainer_checkpoint_load(w.t, dir), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("is of 3 jobs, and the trainer has 1");
    CHECK_OK(jobs_add(&w, "d", 1, JOBS_MOST, "{}"));
    CHECK_OK(jobs_add(&w, "b", 3, JOBS_MOST, "{}"));
    CHECK_STATUS(peft_trainer_checkpoint_load(w.t, dir), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("is of a job \"c\", and the trainer has \"b\"");
    jobs_close(&w);
}

TEST(train_jobs_in_a_callers_loop) {
    static const char *const lora[2] = {"lora", "{'r':2}"};
    static const int32_t ids[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 3, 2, 1}, whose[] = {1, 0, 1}, wrong[] = {1, 2, 0};
    static const int64_t lens[] = {4, 3, 5};
    static float both[2][JOBS_VALUES], alone[JOBS_VALUES];
    jobs_world w;
    peft_batch *b = NULL;
    double loss = 0;
    CHECK_OK(jobs_open(&w, API_LLAMA, 1));
    CHECK_OK(jobs_adapter(&w, "a", lora, 1));
    CHECK_OK(jobs_adapter(&w, "b", lora, 2));
    CHECK_OK(jobs_trainer(&w, "{'batch_size':4}"));
    CHECK_OK(jobs_add(&w, "b", JOBS_MOST, JOBS_MOST, "{'lr_scheduler_type':'constant'}"));
    CHECK_OK(jobs_add(&w, "a", JOBS_MOST, JOBS_MOST, "{'lr_scheduler_type':'constant'}"));
    CHECK_OK(api_batch(w.ctx, ids, lens, 3, &b));
    CHECK_STATUS(peft_trainer_accumulate(w.t, b, &loss), PEFT_E_INVALID);
    CHECK_ERROR_HAS("the batch has no \"jobs\"");
    CHECK_OK(peft_batch_set_i32(b, "jobs", wrong, NULL, 3));
    CHECK_STATUS(peft_trainer_accumulate(w.t, b, &loss), PEFT_E_INVALID);
    CHECK_ERROR_HAS("row 1 is of job 2, and the trainer has 2");
    CHECK_OK(peft_batch_set_i32(b, "jobs", whose, NULL, 3));
    CHECK_OK(peft_trainer_accumulate(w.t, b, &loss));
    CHECK(loss > 0);
    CHECK_OK(peft_trainer_apply(w.t));
    size_t n = jobs_values(&w, "a", both[0]);
    CHECK(jobs_values(&w, "b", both[1]) == n);
    peft_batch_free(b);
    jobs_close(&w);
    for (int j = 0; j < 2; j++) { /* a had rows 0 and 2, b row 1 */
        static const int32_t own[2][9] = {{1, 2, 3, 4, 8, 9, 3, 2, 1}, {5, 6, 7}};
        static const int64_t own_lens[2][2] = {{4, 5}, {3, 0}};
        CHECK_OK(jobs_open(&w, API_LLAMA, 1));
        CHECK_OK(jobs_adapter(&w, j == 0 ? "a" : "b", lora, (uint64_t)j + 1));
        CHECK_OK(jobs_trainer(&w, "{'batch_size':4}"));
        CHECK_OK(jobs_add(&w, j == 0 ? "a" : "b", JOBS_MOST, JOBS_MOST, "{'lr_scheduler_type':'constant'}"));
        CHECK_OK(api_batch(w.ctx, own[j], own_lens[j], j == 0 ? 2 : 1, &b));
        CHECK_OK(peft_trainer_accumulate(w.t, b, &loss));
        CHECK_OK(peft_trainer_apply(w.t));
        CHECK(jobs_values(&w, j == 0 ? "a" : "b", alone) == n);
        CHECK(jobs_away(alone, both[j], n) < 1e-5);
        peft_batch_free(b);
        jobs_close(&w);
    }
}
