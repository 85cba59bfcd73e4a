/* api_methods_test.c - what holds for every method that is built in: a session in pieces says what it says at once, training
 * lowers the loss, a saved adapter is loaded as it was. */
#include "api_kit.h"

/* Llama's projections have no biases, which are all that bitfit trains. */
static bool methods_skip(const char *method, size_t model) {
    return strcmp(method, "bitfit") == 0 && model == 0;
}

/* Adds "x" with the method's defaults, or what such small models want instead. */
static peft_status methods_add(peft_context *ctx, peft_adapters *a, const char *method) {
    static const char *const wanted[][2] = {{"compacter", "{'reduction_factor':4}"}, {"compacter++", "{'reduction_factor':4}"},
                                              {"trainable_tokens", "{'token_indices':[5,1,8]}"},
                                              {"union", "{'parts':['b','c']}"}, {"fusion", "{'adapters':['b','c']}"}};
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    char schema[64];
    (void)snprintf(schema, sizeof schema, "method:%s", method);
    for (int i = 0; i < 2; i++) { /* for those that are made of others */
        TRY(peft_adapters_add(a, i == 0 ? "b" : "c", "pfeiffer", NULL, (uint64_t)i));
        TRY(api_shake(a, i == 0 ? "b" : "c", 0.2F));
    }
    for (size_t i = 0; i < PEFT__COUNT(wanted); i++) {
        if (strcmp(method, wanted[i][0]) == 0) { TRY(api_options(ctx, schema, wanted[i][1], &o)); }
    }
    TRY(peft_adapters_add(a, "x", method, o, 1));
out:
    peft_options_free(o);
    return st;
}

static const int32_t methods_ids[] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4};
enum { METHODS_IDS = 20, METHODS_LOGITS = METHODS_IDS * API_VOCAB };

static peft_status methods_logits(peft_context *ctx, peft_model *m, peft_adapters *a, const char *name, int64_t chunk,
                                  float *out) {
    peft_status st = PEFT_OK;
    peft_session *s = NULL;
    peft_options *o = NULL;
    peft_batch *b = NULL;
    const int64_t rows[] = {14, 6};
    TRY(peft_options_create(ctx, "session", &o));
    TRY(peft_options_set_int(o, "chunk", chunk));
    TRY(peft_session_create(m, a, name, o, &s));
    TRY(api_batch(ctx, methods_ids, rows, 2, &b));
    TRY(peft_session_logits(s, b, out, METHODS_LOGITS, NULL));
out:
    peft_batch_free(b);
    peft_options_free(o);
    peft_session_free(s);
    return st;
}

static peft_status methods_session(const char *config, const char *method, double *pieces, double *loaded) {
    peft_status st = PEFT_OK;
    peft_context *ctx = NULL;
    peft_model *m = NULL, *saved = NULL;
    peft_adapters *a = NULL;
    static float whole[METHODS_LOGITS], cut[METHODS_LOGITS];
    const char *dir = runner_path(runner_tmpdir(), "saved");
    TRY(peft_context_create(NULL, &ctx));
    TRY(api_model(ctx, config, &m));
    TRY(peft_adapters_create(m, &a));
    TRY(methods_add(ctx, a, method));
    TRY(api_shake(a, "x", 0.2F));
    TRY(methods_logits(ctx, m, a, "x", 512, whole));
    *pieces = 0;
    bool whole_rows = strcmp(method, "unipelt") == 0; /* gates: rows are not cut */
    for (int64_t chunk = 1; chunk < 12 && !whole_rows; chunk += 5) {
        TRY(methods_logits(ctx, m, a, "x", chunk, cut));
        *pieces = fmax(*pieces, api_distance(whole, cut, METHODS_LOGITS));
    }
    TRY(peft_adapters_save(a, "x", dir, NULL));
    if (strcmp(method, "full") == 0) {
        TRY(peft_model_open(ctx, dir, NULL, &saved));
        TRY(methods_logits(ctx, saved, NULL, NULL, 512, cut));
    } else {
        TRY(peft_adapters_load(a, "y", dir, NULL));
        TRY(methods_logits(ctx, m, a, "y", 512, cut));
    }
    *loaded = api_distance(whole, cut, METHODS_LOGITS);
out:
    peft_adapters_free(a);
    peft_model_free(m);
    peft_model_free(saved);
    peft_context_free(ctx);
    return st;
}

TEST(api_methods_in_sessions_and_files) {
    static const char *const configs[] = {API_LLAMA, API_GPT2};
    int bad = 0;
    for (size_t i = 0; peft_method_name(i) != NULL; i++) {
        for (size_t k = 0; k < 2; k++) {
            if (methods_skip(peft_method_name(i), k)) { continue; }
            double pieces = 1, loaded = 1;
            peft_status st = methods_session(configs[k], peft_method_name(i), &pieces, &loaded);
            if (st == PEFT_OK && pieces <= 2e-6 && loaded <= 2e-5) { continue; }
            printf("  %s, model %zu: %s, in pieces %g, loaded %g apart\n", peft_method_name(i), k,
                   st == PEFT_OK ? "" : peft_last_error(), pieces, loaded);
            bad++;
        }
    }
    CHECK_INT(bad, 0);
}

typedef struct methods_loss {
    double first, last;
} methods_loss;

static int32_t methods_note(void *user, const peft_step_info *info) {
    methods_loss *l = user;
    if (info->step == 1) { l->first = info->loss; }
    l->last = info->loss;
    return 0;
}

static peft_status methods_train(const char *config, const char *method, methods_loss *loss) {
    peft_status st = PEFT_OK;
    peft_context *ctx = NULL;
    peft_model *m = NULL;
    peft_adapters *a = NULL;
    peft_dataset *d = NULL;
    peft_options *o = NULL, *how = NULL;
    peft_trainer *t = NULL;
    static const char row[] = "{\"input_ids\":[1,2,3,4,5,6,7,8]}";
    TRY(peft_context_create(NULL, &ctx));
    TRY(api_model(ctx, config, &m));
    TRY(peft_adapters_create(m, &a));
    TRY(methods_add(ctx, a, method));
    TRY(peft_dataset_create(ctx, NULL, NULL, &d));
    TRY(peft_dataset_add_json(d, row, sizeof row - 1));
    TRY(api_options(ctx, "trainer", "{'max_steps':60}", &o));
    TRY(api_options(ctx, "optimizer", "{'learning_rate':0.05}", &how));
    TRY(peft_trainer_create(a, o, &t));
    TRY(peft_trainer_add_job(t, "x", d, NULL, how));
    TRY(peft_trainer_set_progress(t, methods_note, loss));
    TRY(peft_trainer_run(t));
out:
    peft_trainer_free(t);
    peft_options_free(o);
    peft_options_free(how);
    peft_dataset_free(d);
    peft_adapters_free(a);
    peft_model_free(m);
    peft_context_free(ctx);
    return st;
}

TEST(api_methods_learn) {
    static const char *const configs[] = {API_LLAMA, API_GPT2};
    int bad = 0;
    for (size_t i = 0; peft_method_name(i) != NULL; i++) {
        for (size_t k = 0; k < 2; k++) {
            if (methods_skip(peft_method_name(i), k)) { continue; }
            methods_loss loss = {0, 0};
            peft_status st = methods_train(configs[k], peft_method_name(i), &loss);
            if (st == PEFT_OK && loss.last < 0.998 * loss.first) { continue; }
            printf("  %s, model %zu: %s, loss from %g to %g\n", peft_method_name(i), k,
                   st == PEFT_OK ? "" : peft_last_error(), loss.first, loss.last);
            bad++;
        }
    }
    CHECK_INT(bad, 0);
}
