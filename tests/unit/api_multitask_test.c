/* api_multitask_test.c - multitask_prompt through the public functions: files, task ids of batches, data and sessions, starts,
 * options that each change something, starts from another saved prompt, and what is refused. */
#include "api_kit.h"
#include "peft/method.h"
#include "train/train.h"

enum { MULTITASK_N = 3, MULTITASK_IDS = 8, MULTITASK_LOGITS = 3 * MULTITASK_IDS * API_VOCAB };
#define MULTITASK_TWO "{'num_virtual_tokens':3,'num_tasks':2,'num_ranks':2}"

static const int32_t multitask_ids[3 * MULTITASK_IDS] = {3, 1, 4, 1, 5, 9, 2, 6, 3, 1, 4, 1, 5, 9, 2, 6, 3, 1, 4, 1, 5, 9, 2, 6};
static const int64_t multitask_lens[3] = {MULTITASK_IDS, MULTITASK_IDS, MULTITASK_IDS};

typedef struct multitask_world {
    api_host h;
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
} multitask_world;

static peft_status multitask_begin(multitask_world *w, const char *config) {
    peft_status st = PEFT_OK;
    memset(w, 0, sizeof *w);
    TRY(api_context(&w->h, &w->ctx));
    TRY(api_model(w->ctx, config, &w->m));
    TRY(peft_adapters_create(w->m, &w->a));
out:
    return st;
}

static void multitask_end(multitask_world *w) {
    peft_adapters_free(w->a);
    peft_model_free(w->m);
    peft_context_free(w->ctx);
}

static peft_status multitask_add(multitask_world *w, const char *name, const char *method, const char *options) {
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

/* Logits of `rows` equal rows; tasks NULL: none are named. */
static peft_status multitask_logits(multitask_world *w, const char *name, const char *session, const int32_t *tasks, size_t rows,
                                    float *out) {
    peft_status st = PEFT_OK;
    peft_session *s = NULL;
    peft_options *o = NULL;
    peft_batch *b = NULL;
    TRY(api_options(w->ctx, "session", session, &o));
    TRY(peft_session_create(w->m, w->a, name, o, &s));
    TRY(api_batch(w->ctx, multitask_ids, multitask_lens, rows, &b));
    if (tasks != NULL) { TRY(peft_batch_set_i32(b, "task_id", tasks, NULL, rows)); }
    TRY(peft_session_logits(s, b, out, MULTITASK_LOGITS, NULL));
out:
    peft_options_free(o);
    peft_batch_free(b);
    peft_session_free(s);
    return st;
}

static float multitask_a[MULTITASK_LOGITS], multitask_b[MULTITASK_LOGITS], multitask_c[MULTITASK_LOGITS];
enum { MULTITASK_ROW = MULTITASK_IDS * API_VOCAB };

static double multitask_gap(const float *x, const float *y) { return api_distance(x, y, MULTITASK_ROW); }

static const char *multitask_path(const char *name) { return runner_path(runner_tmpdir(), name); }

/* ---- files ---------------------------------------------------------------------------------------------------------- */

TEST(api_multitask_files) {
    static const char *const configs[] = {API_LLAMA, API_GPT2};
    static char text[1 << 15];
    for (size_t i = 0; i < 2; i++) {
        multitask_world w;
        const char *dir = multitask_path("saved");
        const char *tensor = NULL;
        int32_t ndim = 0;
        int64_t dims[8];
        static const int32_t tasks[] = {0, 1};
        CHECK_OK(multitask_begin(&w, configs[i]));
        CHECK_OK(multitask_add(&w, "x", "multitask_prompt", MULTITASK_TWO));
        CHECK_INT((int64_t)peft_adapters_tensor_count(w.a, "x"), 3);
        CHECK_OK(peft_adapters_tensor_info(w.a, "x", 1, &tensor, &ndim, dims));
        CHECK_STR(tensor, "prefix_task_cols");
        CHECK(ndim == 3 && dims[0] == 2 && dims[1] == 3 && dims[2] == 2);
        CHECK_OK(peft_adapters_tensor_info(w.a, "x", 2, &tensor, &ndim, dims));
        CHECK_STR(tensor, "prefix_task_rows");
        CHECK(ndim == 3 && dims[0] == 2 && dims[1] == 2 && dims[2] == API_HIDDEN);
        CHECK_OK(api_shake(w.a, "x", 0.3F));
        CHECK_OK(peft_adapters_save(w.a, "x", dir, NULL));
        CHECK_OK(peft_inspect_json(w.ctx, dir, text, sizeof text, NULL));
        CHECK(strstr(text, "\"prefix_task_cols\",\"dtype\":\"F32\",\"shape\":[2,3,2]") != NULL);
        CHECK(strstr(text, "\"prefix_task_rows\",\"dtype\":\"F32\",\"shape\":[2,2,16]") != NULL);
        CHECK(strstr(text, "\"prompt_embeddings\",\"dtype\":\"F32\",\"shape\":[3,16]") != NULL);
        CHECK(strstr(text, "\"peft_type\":\"MULTITASK_PROMPT_TUNING\"") != NULL);
        CHECK(strstr(text, "\"num_tasks\":2") != NULL && strstr(text, "\"num_ranks\":2") != NULL);
        CHECK_OK(peft_adapters_load(w.a, "y", dir, NULL));
        CHECK_OK(multitask_logits(&w, "x", "{}", tasks, 2, multitask_a));
        CHECK_OK(multitask_logits(&w, "y", "{}", tasks, 2, multitask_b));
        CHECK_NEAR(api_distance(multitask_a, multitask_b, 2 * MULTITASK_ROW), 0, 0);
        CHECK_STATUS(peft_adapters_merge(w.a, "x", multitask_path("merged"), NULL), PEFT_E_UNSUPPORTED);
        CHECK_ERROR_HAS("cannot be merged");
        multitask_end(&w);
        CHECK_INT((int64_t)w.h.now, 0);
    }
}

/* ---- starts and options --------------------------------------------------------------------------------------------- */

/* All tasks begin as the prompt of the same seed does, whatever the rank; from random matrices they do not. */
TEST(api_multitask_starts_as_a_prompt) {
    static const int32_t tasks[] = {0, 1};
    multitask_world w;
    CHECK_OK(multitask_begin(&w, API_LLAMA));
    CHECK_OK(multitask_add(&w, "p", "prompt", "{'num_virtual_tokens':3}"));
    CHECK_OK(multitask_add(&w, "x", "multitask_prompt", MULTITASK_TWO));
    CHECK_OK(multitask_add(&w, "r", "multitask_prompt", "{'num_virtual_tokens':3,'num_tasks':2,'num_ranks':2,'task_init':'random'}"));
    CHECK_OK(multitask_logits(&w, "p", "{}", NULL, 1, multitask_a));
    CHECK_OK(multitask_logits(&w, "x", "{}", tasks, 2, multitask_b));
    CHECK_NEAR(multitask_gap(multitask_a, multitask_b), 0, 0);
    CHECK_NEAR(multitask_gap(multitask_a, multitask_b + MULTITASK_ROW), 0, 0);
    CHECK_OK(multitask_logits(&w, "r", "{}", tasks, 2, multitask_b));
    CHECK(multitask_gap(multitask_a, multitask_b) > 1e-5);
    CHECK(multitask_gap(multitask_b, multitask_b + MULTITASK_ROW) > 0);
    multitask_end(&w);
}

/* PEFT's start has matrices of N(0, 0.02); the shared one is random beyond the first rank only, and there only in the columns. */
TEST(api_multitask_task_init) {
    static float u[256], v[512];
    multitask_world w;
    size_t n = 0;
    double sum = 0;
    CHECK_OK(multitask_begin(&w, API_LLAMA));
    CHECK_OK(multitask_add(&w, "x", "multitask_prompt", MULTITASK_TWO));
    CHECK_OK(peft_adapters_tensor_read(w.a, "x", "prefix_task_cols", u, 256, &n));
    for (size_t i = 0; i < n; i++) { CHECK(i % 2 == 0 ? u[i] == 1 : u[i] != 0); }
    CHECK_OK(peft_adapters_tensor_read(w.a, "x", "prefix_task_rows", v, 512, &n));
    for (size_t i = 0; i < n; i++) { CHECK_NEAR(v[i], i / API_HIDDEN % 2 == 0, 0); }
    CHECK_OK(multitask_add(&w, "r", "multitask_prompt", "{'num_tasks':8,'num_ranks':4,'task_init':'random'}"));
    CHECK_OK(peft_adapters_tensor_read(w.a, "r", "prefix_task_rows", v, 512, &n));
    for (size_t i = 0; i < n; i++) { sum += (double)v[i] * (double)v[i]; }
    CHECK_INT((int64_t)n, 512);
    CHECK_NEAR(sqrt(sum / 512), 0.02, 0.002);
    multitask_end(&w);
}

TEST(api_multitask_starts_from_text_or_noise) {
    static float values[2][3 * API_HIDDEN];
    static char text[1 << 15];
    static const int32_t ids[] = {7, 11};
    multitask_world w;
    double power[2] = {0, 0};
    CHECK_OK(multitask_begin(&w, API_LLAMA));
    CHECK_OK(multitask_add(&w, "p", "prompt", "{'num_virtual_tokens':3,'prompt_tuning_init':'TEXT'}"));
    CHECK_OK(multitask_add(&w, "t", "multitask_prompt",
                           "{'num_virtual_tokens':3,'prompt_tuning_init':'TEXT','prompt_tuning_init_text':'Say it',"
                           "'tokenizer_name_or_path':'of it'}"));
    CHECK_OK(peft_adapters_info_json(w.a, "t", text, sizeof text, NULL));
    CHECK(strstr(text, "\"init_text\":\"Say it\"") != NULL);
    CHECK_OK(peft_adapters_init(w.a, "p", ids, 2));
    CHECK_OK(peft_adapters_init(w.a, "t", ids, 2));
    CHECK_OK(peft_adapters_tensor_read(w.a, "p", "prompt_embeddings", values[0], 48, NULL));
    CHECK_OK(peft_adapters_tensor_read(w.a, "t", "prompt_embeddings", values[1], 48, NULL));
    CHECK_MEM(values[0], values[1], sizeof values[0]);
    const char *dir = multitask_path("text");
    CHECK_OK(peft_adapters_save(w.a, "t", dir, NULL)); /* PEFT wants a tokenizer's name with TEXT */
    CHECK_OK(peft_inspect_json(w.ctx, dir, text, sizeof text, NULL));
    CHECK(strstr(text, "\"prompt_tuning_init_text\":\"Say it\"") != NULL);
    CHECK(strstr(text, "\"tokenizer_name_or_path\":\"of it\"") != NULL);
    CHECK_OK(multitask_add(&w, "n", "multitask_prompt", "{'num_virtual_tokens':3,'prompt_tuning_init':'RANDOM'}"));
    CHECK_OK(multitask_add(&w, "s", "multitask_prompt", "{'num_virtual_tokens':3}"));
    CHECK_OK(peft_adapters_tensor_read(w.a, "n", "prompt_embeddings", values[0], 48, NULL));
    CHECK_OK(peft_adapters_tensor_read(w.a, "s", "prompt_embeddings", values[1], 48, NULL));
    for (size_t k = 0; k < 2; k++) {
        for (size_t e = 0; e < 48; e++) { power[k] += (double)values[k][e] * (double)values[k][e]; }
    }
    CHECK(power[0] > 100 * power[1]);
    multitask_end(&w);
}

/* ---- task ids -------------------------------------------------------------------------------------------------------- */

/* A batch's rows each have the prompt of their task; the session's option is for batches that name none, and for generation. */
TEST(api_multitask_tasks_of_a_session) {
    static const int32_t tasks[] = {1, 0, 1}, wrong[] = {0, 2, 0};
    multitask_world w;
    int32_t made[2][4];
    CHECK_OK(multitask_begin(&w, API_LLAMA));
    CHECK_OK(multitask_add(&w, "x", "multitask_prompt", MULTITASK_TWO));
    CHECK_OK(api_shake(w.a, "x", 2));
    CHECK_OK(multitask_logits(&w, "x", "{}", NULL, 1, multitask_a));
    CHECK_OK(multitask_logits(&w, "x", "{'task_id':1}", NULL, 1, multitask_b));
    CHECK(multitask_gap(multitask_a, multitask_b) > 1e-3);
    for (int chunk = 1; chunk <= 9; chunk += 4) { /* rows in pieces, one in two passes, all at once */
        char session[64];
        (void)snprintf(session, sizeof session, "{'chunk':%d}", chunk == 9 ? 64 : chunk);
        CHECK_OK(multitask_logits(&w, "x", session, tasks, 3, multitask_c));
        CHECK_NEAR(multitask_gap(multitask_b, multitask_c), 0, 1e-5);
        CHECK_NEAR(multitask_gap(multitask_a, multitask_c + MULTITASK_ROW), 0, 1e-5);
        CHECK_NEAR(multitask_gap(multitask_b, multitask_c + 2 * MULTITASK_ROW), 0, 1e-5);
    }
    for (int k = 0; k < 2; k++) {
        peft_session *s = NULL;
        peft_options *o = NULL, *g = NULL;
        size_t n = 0;
        CHECK_OK(api_options(w.ctx, "session", k == 0 ? "{}" : "{'task_id':1}", &o));
        CHECK_OK(api_options(w.ctx, "generate", "{'max_new_tokens':1}", &g));
        CHECK_OK(peft_session_create(w.m, w.a, "x", o, &s));
        CHECK_OK(peft_session_generate(s, NULL, multitask_ids, MULTITASK_IDS, g, NULL, NULL, made[k], 4, &n));
        const float *last = (k == 0 ? multitask_a : multitask_b) + (MULTITASK_IDS - 1) * API_VOCAB;
        for (int v = 0; v < API_VOCAB; v++) { CHECK(last[v] <= last[made[k][0]]); }
        peft_session_free(s);
        peft_options_free(o);
        peft_options_free(g);
    }
    CHECK_STATUS(multitask_logits(&w, "x", "{'task_id':2}", NULL, 1, multitask_c), PEFT_E_KEY);
    CHECK_ERROR_HAS("\"task_id\" is 2, but the adapter's num_tasks is 2");
    CHECK_STATUS(multitask_logits(&w, "x", "{}", wrong, 3, multitask_c), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("row 1 has task_id 2, and the adapter's num_tasks is 2");
    CHECK_OK(multitask_add(&w, "p", "prompt", "{}")); /* other methods do not ask */
    CHECK_OK(multitask_logits(&w, "p", "{'task_id':9}", wrong, 3, multitask_c));
    multitask_end(&w);
}

TEST(api_multitask_batches) {
    static const int32_t ids[] = {1, 2, 3}, tasks[] = {4, 0}, bad[] = {0, -1};
    static const int64_t offsets[] = {0, 2, 3}, one[] = {0, 1, 2};
    multitask_world w;
    peft_batch *b = NULL;
    peft_dataset *d = NULL;
    CHECK_OK(multitask_begin(&w, API_LLAMA));
    CHECK_OK(peft_batch_create(w.ctx, &b));
    CHECK_STATUS(peft_batch_set_i32(b, "task_id", tasks, NULL, 2), PEFT_E_INVALID);
    CHECK_ERROR_HAS("\"input_ids\" come before \"task_id\"");
    CHECK_OK(peft_batch_set_i32(b, "input_ids", ids, offsets, 2));
    CHECK_STATUS(peft_batch_set_i32(b, "task_id", tasks, NULL, 1), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("\"task_id\" has 1 values, \"input_ids\" have 2 rows");
    CHECK_STATUS(peft_batch_set_i32(b, "task_id", tasks, offsets, 2), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("row 0");
    CHECK_STATUS(peft_batch_set_i32(b, "task_id", bad, NULL, 2), PEFT_E_INVALID);
    CHECK_ERROR_HAS("value 1 of \"task_id\" is -1");
    CHECK_STATUS(peft_batch_set_i32(b, "task_id", NULL, NULL, 2), PEFT_E_INVALID);
    CHECK_STATUS(peft_batch_set_i32(NULL, "task_id", tasks, NULL, 2), PEFT_E_INVALID);
    CHECK_OK(peft_batch_set_i32(b, "task_id", tasks, one, 2));
    CHECK_OK(peft_dataset_create(w.ctx, NULL, NULL, &d));
    CHECK_OK(peft_dataset_add(d, b));
    CHECK_INT(peft__dataset_row(d, 0)->task, 4);
    CHECK_INT(peft__dataset_row(d, 1)->task, 0);
    CHECK_INT(d->max_task, 4);
    CHECK_OK(peft_batch_set_i32(b, "input_ids", ids, offsets, 2)); /* other rows: their tasks are not named */
    CHECK_INT((int64_t)b->tasks.len, 0);
    peft_batch_free(b);
    peft_dataset_free(d);
    multitask_end(&w);
    CHECK_INT((int64_t)w.h.now, 0);
}

static peft_status multitask_row(peft_dataset *d, const char *json) { return peft_dataset_add_json(d, json, strlen(json)); }

/* Rows keep their task; rows of different tasks are not joined. */
TEST(api_multitask_data) {
    multitask_world w;
    peft_options *o = NULL;
    peft_dataset *d = NULL;
    CHECK_OK(multitask_begin(&w, API_LLAMA));
    CHECK_OK(api_options(w.ctx, "dataset", "{'packing':true,'max_length':8,'task_id':2}", &o));
    CHECK_OK(peft_dataset_create(w.ctx, NULL, o, &d));
    CHECK_OK(multitask_row(d, "{\"input_ids\":[1,2]}"));
    CHECK_OK(multitask_row(d, "{\"input_ids\":[3],\"task_id\":2}"));
    CHECK_OK(multitask_row(d, "{\"input_ids\":[4,5],\"task_id\":0}"));
    CHECK_OK(multitask_row(d, "{\"input_ids\":[6],\"task_id\":0}"));
    CHECK_OK(multitask_row(d, "{\"input_ids\":[7],\"task_id\":null}"));
    CHECK_INT((int64_t)peft_dataset_size(d), 3);
    CHECK(peft__dataset_row(d, 0)->n == 3 && peft__dataset_row(d, 0)->task == 2);
    CHECK(peft__dataset_row(d, 1)->n == 3 && peft__dataset_row(d, 1)->task == 0);
    CHECK(peft__dataset_row(d, 2)->n == 1 && peft__dataset_row(d, 2)->task == 2);
    CHECK_INT(d->max_task, 2);
    static const char *const bad[] = {"-1", "\"a\"", "1.5", "99999999999", "[0]"};
    for (size_t i = 0; i < PEFT__COUNT(bad); i++) {
        char json[128];
        (void)snprintf(json, sizeof json, "{\"input_ids\":[1],\"task_id\":%s}", bad[i]);
        CHECK_STATUS(multitask_row(d, json), PEFT_E_FORMAT);
        CHECK_ERROR_HAS("\"task_id\" is no whole number from 0");
    }
    CHECK_INT(d->max_task, 2);
    CHECK_INT((int64_t)peft_dataset_size(d), 3);
    peft_options_free(o);
    peft_dataset_free(d);
    multitask_end(&w);
}

static peft_status multitask_train(multitask_world *w, const char *adapter, peft_dataset *d, const char *options, double *loss,
                                   char *metrics, size_t cap) {
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    peft_trainer *t = NULL;
    peft_batch *b = NULL;
    static const int32_t tasks[] = {0, 1};
    TRY(api_options(w->ctx, "trainer", options, &o));
    TRY(peft_trainer_create(w->a, o, &t));
    TRY(peft_trainer_add_job(t, adapter, d, NULL, NULL));
    if (loss != NULL) {
        TRY(api_batch(w->ctx, multitask_ids, multitask_lens, 2, &b));
        TRY(peft_batch_set_i32(b, "task_id", tasks, NULL, 2));
        TRY(peft_trainer_accumulate(t, b, loss));
    } else {
        TRY(peft_trainer_run(t));
    }
    if (metrics != NULL) { TRY(peft_trainer_evaluate(t, d, metrics, cap, NULL)); }
out:
    peft_options_free(o);
    peft_batch_free(b);
    peft_trainer_free(t);
    return st;
}

/* Training moves the matrices of the tasks that the data has, and no others; one that there is not is refused at once. */
TEST(api_multitask_training) {
    static float before[2][3 * 3], after[2][3 * 3];
    static char trained[512], fresh[512];
    multitask_world w;
    peft_dataset *d = NULL, *wrong = NULL;
    peft_session *s = NULL;
    CHECK_OK(multitask_begin(&w, API_LLAMA));
    CHECK_OK(multitask_add(&w, "x", "multitask_prompt", "{'num_virtual_tokens':3,'num_tasks':3}"));
    CHECK_OK(peft_dataset_create(w.ctx, NULL, NULL, &d));
    CHECK_OK(multitask_row(d, "{\"input_ids\":[3,1,4,1,5],\"task_id\":0}"));
    CHECK_OK(multitask_row(d, "{\"input_ids\":[3,9,2,6,5],\"task_id\":2}"));
    CHECK_OK(peft_adapters_tensor_read(w.a, "x", "prefix_task_cols", before[0], 9, NULL));
    CHECK_OK(multitask_train(&w, "x", d, "{'max_steps':4,'batch_size':2}", NULL, trained, sizeof trained));
    CHECK_OK(peft_adapters_tensor_read(w.a, "x", "prefix_task_cols", after[0], 9, NULL));
    for (size_t t = 0; t < 3; t++) { CHECK((memcmp(before[0] + 3 * t, after[0] + 3 * t, 12) == 0) == (t == 1)); }
    CHECK_OK(peft_session_create(w.m, w.a, "x", NULL, &s)); /* a session's evaluation goes by the rows' tasks too */
    CHECK_OK(peft_session_evaluate(s, d, fresh, sizeof fresh, NULL));
    CHECK_STR(fresh, trained);
    peft_session_free(s);
    CHECK_OK(peft_dataset_create(w.ctx, NULL, NULL, &wrong));
    CHECK_OK(multitask_row(wrong, "{\"input_ids\":[3,1,4],\"task_id\":3}"));
    CHECK_STATUS(multitask_train(&w, "x", wrong, "{'max_steps':1}", NULL, NULL, 0), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("the training data has task_id 3, and the adapter's num_tasks is 3");
    CHECK_OK(peft_session_create(w.m, w.a, "x", NULL, &s));
    CHECK_STATUS(peft_session_evaluate(s, wrong, fresh, sizeof fresh, NULL), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("the evaluation data has task_id 3");
    peft_session_free(s);
    CHECK_OK(multitask_add(&w, "l", "lora", "{}")); /* other methods do not ask */
    CHECK_OK(multitask_train(&w, "l", wrong, "{'max_steps':1}", NULL, NULL, 0));
    peft_dataset_free(d);
    peft_dataset_free(wrong);
    multitask_end(&w);
}

/* The caller's own batches: their tasks reach the loss. */
TEST(api_multitask_accumulate) {
    multitask_world w;
    double both = 0, alone[2] = {0, 0};
    CHECK_OK(multitask_begin(&w, API_LLAMA));
    CHECK_OK(multitask_add(&w, "x", "multitask_prompt", MULTITASK_TWO));
    CHECK_OK(api_shake(w.a, "x", 2));
    CHECK_OK(multitask_train(&w, "x", NULL, "{'max_steps':1,'batch_size':2,'max_length':8}", &both, NULL, 0));
    for (int k = 0; k < 2; k++) {
        CHECK_OK(multitask_logits(&w, "x", k == 0 ? "{}" : "{'task_id':1}", NULL, 1, multitask_a));
        for (int i = 0; i + 1 < MULTITASK_IDS; i++) {
            const float *z = multitask_a + i * API_VOCAB;
            double sum = 0;
            for (int v = 0; v < API_VOCAB; v++) { sum += exp((double)z[v]); }
            alone[k] += log(sum) - (double)z[multitask_ids[i + 1]];
        }
    }
    CHECK(fabs(alone[0] - alone[1]) > 1e-3);
    CHECK_NEAR(both, (alone[0] + alone[1]) / (2 * (MULTITASK_IDS - 1)), 1e-5);
    multitask_end(&w);
}

/* ---- from a source of several tasks ---------------------------------------------------------------------------------- */

static peft_status multitask_source(multitask_world *w, const char *dir) {
    peft_status st = PEFT_OK;
    TRY(multitask_add(w, "source", "multitask_prompt", "{'num_virtual_tokens':3,'num_tasks':3,'num_ranks':2}"));
    TRY(api_shake(w->a, "source", 1));
    TRY(peft_adapters_save(w->a, "source", dir, NULL));
out:
    return st;
}

/* Adds an adapter that starts from a source. */
static peft_status multitask_from(multitask_world *w, const char *name, const char *method, const char *options, const char *key,
                                  const char *path) {
    char text[2048];
    (void)snprintf(text, sizeof text, "{%s%s'%s':'%s'}", options, options[0] != '\0' ? "," : "", key, path);
    return multitask_add(w, name, method, text);
}

#define MULTITASK_STATE "prompt_tuning_init_state_dict_path"

TEST(api_multitask_state_starts) {
    static float s[48], x[48], u[18], v[96], mean[48];
    static char text[1 << 15];
    multitask_world w;
    const char *dir = multitask_path("source");
    char file[1100];
    CHECK_OK(multitask_begin(&w, API_LLAMA));
    CHECK_OK(multitask_source(&w, dir));
    (void)snprintf(file, sizeof file, "%s/adapter_model.safetensors", dir);
    CHECK_OK(peft_adapters_tensor_read(w.a, "source", "prompt_embeddings", s, 48, NULL));
    CHECK_OK(peft_adapters_tensor_read(w.a, "source", "prefix_task_cols", u, 18, NULL));
    CHECK_OK(peft_adapters_tensor_read(w.a, "source", "prefix_task_rows", v, 96, NULL));
    /* one task, for both of the new ones */
    CHECK_OK(multitask_from(&w, "e", "multitask_prompt",
                            "'num_virtual_tokens':3,'num_tasks':2,'num_ranks':2,'prompt_tuning_init':'EXACT_SOURCE_TASK',"
                            "'prompt_tuning_init_task':2",
                            MULTITASK_STATE, dir));
    CHECK_OK(peft_adapters_tensor_read(w.a, "e", "prompt_embeddings", x, 48, NULL));
    CHECK_MEM(x, s, sizeof s);
    CHECK_OK(peft_adapters_tensor_read(w.a, "e", "prefix_task_cols", x, 12, NULL));
    CHECK_MEM(x, u + 12, 6 * sizeof *x);
    CHECK_MEM(x + 6, u + 12, 6 * sizeof *x);
    CHECK_OK(multitask_logits(&w, "source", "{'task_id':2}", NULL, 1, multitask_a));
    CHECK_OK(multitask_logits(&w, "e", "{'task_id':1}", NULL, 1, multitask_b));
    CHECK_NEAR(multitask_gap(multitask_a, multitask_b), 0, 0);
    /* the mean of all; a file is as good as its folder */
    CHECK_OK(multitask_from(&w, "m", "multitask_prompt", "'num_virtual_tokens':3,'num_ranks':2,'prompt_tuning_init':'AVERAGE_SOURCE_TASKS'",
                            MULTITASK_STATE, file));
    CHECK_OK(peft_adapters_tensor_read(w.a, "m", "prefix_task_rows", mean, 48, NULL));
    for (size_t i = 0; i < 32; i++) { CHECK_NEAR(mean[i], (v[i] + v[32 + i] + v[64 + i]) / 3, 1e-6); }
    /* the shared part alone, of whatever ranks */
    CHECK_OK(multitask_from(&w, "o", "multitask_prompt",
                            "'num_virtual_tokens':3,'num_tasks':2,'num_ranks':3,'prompt_tuning_init':'ONLY_SOURCE_SHARED'",
                            MULTITASK_STATE, dir));
    CHECK_OK(peft_adapters_tensor_read(w.a, "o", "prompt_embeddings", x, 48, NULL));
    CHECK_MEM(x, s, sizeof s);
    CHECK_OK(peft_adapters_tensor_read(w.a, "o", "prefix_task_cols", x, 48, NULL));
    CHECK_NEAR(x[0], 1, 0);
    /* PEFT would open the source again: it is not in the saved config */
    const char *again = multitask_path("again");
    CHECK_OK(peft_adapters_save(w.a, "m", again, NULL));
    CHECK_OK(peft_inspect_json(w.ctx, again, text, sizeof text, NULL));
    CHECK(strstr(text, "\"prompt_tuning_init\":\"RANDOM\"") != NULL);
    CHECK(strstr(text, "SOURCE") == NULL && strstr(text, "state_dict") == NULL);
    multitask_end(&w);
}

static peft_status multitask_write(const char *path, const void *data, size_t n) {
    FILE *f = fopen(path, "wb");
    bool ok = f != NULL && fwrite(data, 1, n, f) == n;
    if (f != NULL) { ok = fclose(f) == 0 && ok; }
    return ok ? PEFT_OK : PEFT_E_IO;
}

TEST(api_multitask_refuses_sources) {
    static const struct {
        const char *options;
        int32_t path; /* 0 none, 1 the source, 2 a zip archive, 3 a pickle, 4 a prompt's folder, 5 nothing, 6 a pickle's folder */
        peft_status code;
        const char *words;
    } cases[] = {
        {"'prompt_tuning_init':'EXACT_SOURCE_TASK'", 0, PEFT_E_KEY, "EXACT_SOURCE_TASK wants prompt_tuning_init_state_dict_path"},
        {"'num_virtual_tokens':3", 1, PEFT_E_KEY, "prompt_tuning_init is SAMPLE_VOCAB, which does not read it"},
        {"'num_virtual_tokens':3,'num_ranks':2,'prompt_tuning_init':'EXACT_SOURCE_TASK','prompt_tuning_init_task':3", 1, PEFT_E_KEY,
         "prompt_tuning_init_task is 3, and the source has 3 tasks"},
        {"'num_virtual_tokens':3,'prompt_tuning_init':'AVERAGE_SOURCE_TASKS'", 1, PEFT_E_SHAPE,
         "\"prefix_task_cols\" ends in [3, 2], expected [3, 1]"},
        {"'num_virtual_tokens':4,'prompt_tuning_init':'ONLY_SOURCE_SHARED'", 1, PEFT_E_SHAPE,
         "\"prompt_embeddings\" ends in [3, 16], expected [4, 16]"},
        {"'num_virtual_tokens':3,'prompt_tuning_init':'ONLY_SOURCE_SHARED'", 2, PEFT_E_UNSUPPORTED,
         "is a Python pickle, which runs code"},
        {"'num_virtual_tokens':3,'prompt_tuning_init':'ONLY_SOURCE_SHARED'", 3, PEFT_E_UNSUPPORTED,
         "convert it once: safetensors.torch.save_file("},
        {"'num_virtual_tokens':3,'prompt_tuning_init':'EXACT_SOURCE_TASK'", 4, PEFT_E_NOT_FOUND,
         "there is no tensor \"prefix_task_cols\""},
        {"'num_virtual_tokens':3,'prompt_tuning_init':'EXACT_SOURCE_TASK'", 5, PEFT_E_NOT_FOUND,
         "gone"},
        {"'num_virtual_tokens':3,'prompt_tuning_init':'EXACT_SOURCE_TASK'", 6, PEFT_E_UNSUPPORTED,
         "adapter_model.bin is a Python pickle"},
        {"'prompt_tuning_init_task':1", 0, PEFT_E_KEY, "nothing to take a task from"},
    };
    static const uint8_t zip[] = {'P', 'K', 3, 4, 20, 0}, pickle[] = {0x80, 2, '}', 'q'};
    multitask_world w;
    const char *top = runner_tmpdir();
    const char *paths[7] = {NULL,
                            runner_path(top, "source"),
                            runner_path(top, "m.bin"),
                            runner_path(top, "m.pt"),
                            runner_path(top, "prompt"),
                            runner_path(top, "gone"),
                            runner_path(top, "pickled")};
    CHECK_OK(multitask_begin(&w, API_LLAMA));
    CHECK_OK(multitask_source(&w, paths[1]));
    CHECK_OK(multitask_write(paths[2], zip, sizeof zip));
    CHECK_OK(multitask_write(paths[3], pickle, sizeof pickle));
    CHECK_OK(multitask_add(&w, "p", "prompt", "{'num_virtual_tokens':3}"));
    CHECK_OK(peft_adapters_save(w.a, "p", paths[4], NULL));
    CHECK_OK(peft__dir_make(paths[6]));
    CHECK_OK(multitask_write(runner_path(paths[6], "adapter_model.bin"), pickle, sizeof pickle));
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        char text[1024];
        (void)snprintf(text, sizeof text, "{%s}", cases[i].options);
        const char *path = paths[cases[i].path];
        peft_status st = path == NULL
                             ? multitask_add(&w, "x", "multitask_prompt", text)
                             : multitask_from(&w, "x", "multitask_prompt", cases[i].options, MULTITASK_STATE, path);
        CHECK_STATUS(st, cases[i].code);
        CHECK_ERROR_HAS(cases[i].words);
    }
    CHECK_INT((int64_t)peft_adapters_count(w.a), 2);
    multitask_end(&w);
    CHECK_INT((int64_t)w.h.now, 0);
}
