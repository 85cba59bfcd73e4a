/* api_trainer_test.c - peft_trainer through the public functions: a run, its pieces, evaluation, checkpoint, callbacks. */
#include "api_kit.h"

typedef struct trainer_fixture {
    api_host host;
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    peft_dataset *d;
    peft_trainer *t;
} trainer_fixture;

static peft_status trainer_begin(trainer_fixture *f, const char *config, const char *method, const char *json) {
    peft_status st = PEFT_OK;
    peft_options *o = NULL, *how = NULL;
    static const char *const rows[] = {"{\"input_ids\":[1,2,3,4,5,6]}", "{\"input_ids\":[2,3,4,5]}",
                                       "{\"input_ids\":[6,5,4,3,2]}"};
    memset(f, 0, sizeof *f);
    TRY(api_context(&f->host, &f->ctx));
    TRY(api_model(f->ctx, config, &f->m));
    TRY(peft_adapters_create(f->m, &f->a));
    TRY(peft_adapters_add(f->a, "x", method, NULL, 1));
    TRY(peft_dataset_create(f->ctx, NULL, NULL, &f->d));
    for (size_t i = 0; i < PEFT__COUNT(rows); i++) { TRY(peft_dataset_add_json(f->d, rows[i], strlen(rows[i]))); }
    TRY(api_options(f->ctx, "trainer", json, &o));
    TRY(peft_trainer_create(f->a, o, &f->t));
    TRY(api_options(f->ctx, "optimizer", "{'learning_rate':0.05,'lr_scheduler_type':'constant'}", &how));
    TRY(peft_trainer_add_job(f->t, "x", f->d, f->d, how));
out:
    peft_options_free(o);
    peft_options_free(how);
    return st;
}

static void trainer_end(trainer_fixture *f) {
    peft_context_free(f->ctx);
    peft_model_free(f->m);
    peft_adapters_free(f->a);
    peft_dataset_free(f->d);
    peft_trainer_free(f->t);
}

typedef struct trainer_log {
    int64_t steps;
    double first, last, eval;
    int32_t answer;
    peft_trainer *cancel, *again;
    peft_status again_status;
} trainer_log;

static int32_t trainer_note(void *user, const peft_step_info *info) {
    trainer_log *l = user;
    if (l->steps++ == 0) { l->first = info->loss; }
    l->last = info->loss;
    if (info->eval_loss == info->eval_loss) { l->eval = info->eval_loss; }
    if (l->cancel != NULL) { peft_trainer_cancel(l->cancel); }
    if (l->again != NULL) { l->again_status = peft_trainer_run(l->again); }
    return info->struct_size == sizeof *info ? l->answer : -1;
}

TEST(api_trainer_learns) {
    trainer_fixture f;
    trainer_log log = {0};
    char text[256];
    CHECK_OK(trainer_begin(&f, API_LLAMA, "full", "{'max_steps':40,'batch_size':3}"));
    CHECK_OK(peft_trainer_set_progress(f.t, trainer_note, &log));
    CHECK_OK(peft_trainer_run(f.t));
    CHECK_INT(log.steps, 40);
    CHECK(log.last < 0.9 * log.first);
    CHECK(log.eval > 0 && log.eval < log.first);
    CHECK_OK(peft_trainer_evaluate(f.t, f.d, text, sizeof text, NULL));
    CHECK(strstr(text, "\"tokens\":12,\"rows\":3}") != NULL);
    CHECK_NEAR(atof(text + strlen("{\"loss\":")), log.eval, 1e-6);
    CHECK_STATUS(peft_trainer_evaluate(f.t, f.d, text, 9, NULL), PEFT_E_BUFFER);
    trainer_end(&f);
    CHECK_INT(f.host.now, 0);
}

TEST(api_trainer_callbacks) {
    trainer_fixture f;
    CHECK_OK(trainer_begin(&f, API_LLAMA, "lora", "{'max_steps':5,'batch_size':3}"));
    trainer_log log = {.answer = 1};
    CHECK_OK(peft_trainer_set_progress(f.t, trainer_note, &log));
    CHECK_STATUS(peft_trainer_run(f.t), PEFT_E_CALLBACK);
    CHECK_INT(log.steps, 1);
    log = (trainer_log){.cancel = f.t, .again = f.t};
    CHECK_STATUS(peft_trainer_run(f.t), PEFT_E_CANCELLED);
    CHECK_INT(log.steps, 1);
    CHECK_INT(log.again_status, PEFT_E_BUSY);
    log = (trainer_log){0};
    CHECK_OK(peft_trainer_run(f.t)); /* steps 3, 4 and 5 */
    CHECK_INT(log.steps, 3);
    trainer_end(&f);
}

TEST(api_trainer_pieces) {
    trainer_fixture f;
    peft_batch *b = NULL;
    double first = 0, second = 0;
    float g[256];
    size_t n = 0;
    static const int32_t ids[] = {1, 2, 3, 4, 5, 6, 2, 3};
    static const char lora_b[] = "model.layers.0.self_attn.q_proj.lora_B.weight";
    const int64_t lens[] = {6, 2}, large[] = {8};
    CHECK_OK(trainer_begin(&f, API_LLAMA, "lora", "{'max_steps':4,'batch_size':2}"));
    CHECK_OK(api_batch(f.ctx, ids, lens, 2, &b));
    CHECK_OK(peft_trainer_accumulate(f.t, b, &first));
    CHECK_NEAR(first, log(API_VOCAB), 1);
    CHECK_STATUS(peft_trainer_gradient_read(f.t, "x", lora_b, NULL, 0, &n), PEFT_E_BUFFER);
    CHECK_INT(n, 16 * 8);
    CHECK_OK(peft_trainer_gradient_read(f.t, "x", lora_b, g, 256, NULL));
    CHECK(g[0] != 0);
    CHECK_OK(peft_trainer_apply(f.t));
    CHECK_OK(peft_trainer_gradient_read(f.t, "x", lora_b, g, 256, NULL));
    CHECK_NEAR(g[0], 0, 0);
    CHECK_OK(peft_trainer_accumulate(f.t, b, &second));
    CHECK(second < first);
    CHECK_STATUS(peft_trainer_gradient_read(f.t, "y", lora_b, g, 256, NULL), PEFT_E_NOT_FOUND);
    CHECK_STATUS(peft_trainer_gradient_read(f.t, "x", "zz", g, 256, NULL), PEFT_E_NOT_FOUND);
    peft_batch_free(b);
    CHECK_OK(api_batch(f.ctx, ids, large, 1, &b));
    CHECK_STATUS(peft_trainer_accumulate(f.t, b, NULL), PEFT_E_SHAPE);
    peft_batch_free(b);
    trainer_end(&f);
}

/* A trained copy of a Conv1D: its gradient has the order of the file, as its values have. */
TEST(api_trainer_gradient_of_conv1d) {
    trainer_fixture f;
    peft_batch *b = NULL;
    static const int32_t ids[] = {1, 2, 3, 4, 5, 6};
    static const char name[] = "transformer.h.0.mlp.c_fc.weight";
    enum { COLS = 64, N = API_HIDDEN * COLS };
    static float values[N], g[N];
    const int64_t len = 6;
    double low = 0, high = 0;
    CHECK_OK(trainer_begin(&f, API_GPT2, "full", "{'max_steps':4,'batch_size':1}"));
    CHECK_OK(api_batch(f.ctx, ids, &len, 1, &b));
    CHECK_OK(peft_trainer_accumulate(f.t, b, NULL));
    CHECK_OK(peft_trainer_gradient_read(f.t, "x", name, g, N, NULL));
    CHECK_OK(peft_adapters_tensor_read(f.a, "x", name, values, N, NULL));
    size_t at = 0;
    for (size_t i = 0; i < N; i++) { at = fabsf(g[i]) > fabsf(g[at]) ? i : at; }
    const float step = 0.05F, was = values[at];
    values[at] = was + step;
    CHECK_OK(peft_adapters_tensor_write(f.a, "x", name, values, N));
    CHECK_OK(peft_trainer_accumulate(f.t, b, &high));
    values[at] = was - step;
    CHECK_OK(peft_adapters_tensor_write(f.a, "x", name, values, N));
    CHECK_OK(peft_trainer_accumulate(f.t, b, &low));
    CHECK_NEAR((high - low) / (2 * (double)step) / (double)g[at], 1, 0.05);
    peft_batch_free(b);
    trainer_end(&f);
}

static peft_status trainer_values(trainer_fixture *f, float *out, size_t cap, size_t *n) {
    peft_status st = PEFT_OK;
    *n = 0;
    for (size_t i = 0; i < peft_adapters_tensor_count(f->a, "x"); i++) {
        const char *tensor = NULL;
        size_t k = 0;
        TRY(peft_adapters_tensor_info(f->a, "x", i, &tensor, NULL, NULL));
        TRY(peft_adapters_tensor_read(f->a, "x", tensor, out + *n, cap - *n, &k));
        *n += k;
    }
out:
    return st;
}

TEST(api_trainer_goes_on_from_a_checkpoint) {
    trainer_fixture f;
    static float whole[2048], again[2048];
    size_t n = 0, k = 0;
    static const char json[] = "{'max_steps':6,'batch_size':2}";
    const char *dir = runner_path(runner_tmpdir(), "state");
    CHECK_OK(trainer_begin(&f, API_LLAMA, "lora", json));
    CHECK_OK(peft_trainer_run(f.t));
    CHECK_OK(trainer_values(&f, whole, 2048, &n));
    trainer_end(&f);
    trainer_log log = {0};
    CHECK_OK(trainer_begin(&f, API_LLAMA, "lora", json));
    CHECK_OK(peft_trainer_set_progress(f.t, trainer_note, &log));
    log.cancel = f.t;
    CHECK_STATUS(peft_trainer_run(f.t), PEFT_E_CANCELLED);
    CHECK_OK(peft_trainer_checkpoint_save(f.t, dir));
    trainer_end(&f);
    CHECK_OK(trainer_begin(&f, API_LLAMA, "lora", json));
    CHECK_OK(peft_trainer_checkpoint_load(f.t, dir));
    CHECK_OK(peft_trainer_run(f.t));
    CHECK_OK(trainer_values(&f, again, 2048, &k));
    CHECK_INT(k, n);
    CHECK_MEM(again, whole, n * sizeof *whole);
    CHECK_STATUS(peft_trainer_checkpoint_load(f.t, "/no/such"), PEFT_E_NOT_FOUND);
    CHECK_STATUS(peft_trainer_checkpoint_load(f.t, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_trainer_checkpoint_save(f.t, NULL), PEFT_E_INVALID);
    trainer_end(&f);
}

TEST(api_trainer_plan) {
    trainer_fixture f;
    char text[8192];
    size_t needed = 0;
    CHECK_OK(trainer_begin(&f, API_LLAMA, "lora", "{}"));
    CHECK_OK(peft_trainer_plan_json(f.t, text, sizeof text, &needed));
    static const char *const keys[] = {"\"peak_bytes\":", "\"activation_bytes\":", "\"trainable_parameters\":",
                                       "\"flops_per_step\":", "\"segments\":["};
    for (size_t i = 0; i < PEFT__COUNT(keys); i++) { CHECK(strstr(text, keys[i]) != NULL); }
    CHECK_STATUS(peft_trainer_plan_json(f.t, text, needed - 1, NULL), PEFT_E_BUFFER);
    trainer_end(&f);
}

TEST(api_trainer_arguments) {
    trainer_fixture f;
    peft_trainer *t = NULL;
    CHECK_OK(trainer_begin(&f, API_LLAMA, "lora", "{}"));
    CHECK_STATUS(peft_trainer_create(NULL, NULL, &t), PEFT_E_INVALID);
    CHECK_STATUS(peft_trainer_create(f.a, NULL, NULL), PEFT_E_INVALID);
    CHECK_OK(peft_trainer_create(f.a, NULL, &t));
    CHECK_STATUS(peft_trainer_run(t), PEFT_E_INVALID);
    CHECK_ERROR_HAS("no job");
    CHECK_STATUS(peft_trainer_apply(t), PEFT_E_INVALID);
    CHECK_STATUS(peft_trainer_plan_json(t, NULL, 0, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_trainer_add_job(t, NULL, f.d, NULL, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_trainer_add_job(t, "y", f.d, NULL, NULL), PEFT_E_NOT_FOUND);
    CHECK_STATUS(peft_trainer_add_job(t, "x", (peft_dataset *)(void *)f.m, NULL, NULL), PEFT_E_INVALID);
    CHECK_ERROR_HAS("train is a model, expected a dataset");
    CHECK_OK(peft_trainer_add_job(t, "x", f.d, NULL, NULL));
    CHECK_STATUS(peft_adapters_remove(f.a, "x"), PEFT_E_BUSY);
    CHECK_STATUS(peft_trainer_accumulate(t, NULL, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_trainer_evaluate(t, NULL, NULL, 0, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_trainer_run(NULL), PEFT_E_INVALID);
    CHECK_ERROR_HAS("trainer is NULL");
    CHECK_STATUS(peft_trainer_set_progress(NULL, NULL, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_trainer_accumulate(NULL, NULL, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_trainer_gradient_read(NULL, "x", "y", NULL, 0, NULL), PEFT_E_INVALID);
    peft_trainer_cancel(NULL);
    peft_trainer_free(NULL);
    peft_trainer_free(t);
    trainer_end(&f);
    CHECK_INT(f.host.now, 0);
}
