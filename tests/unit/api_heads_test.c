/* api_heads_test.c - adapters of a classification that act together: each has a copy of the head, and the last one's counts. */
#include "api_kit.h"

enum { HEADS_ROWS = 2, HEADS_LABELS = 3, HEADS_LOGITS = HEADS_ROWS * HEADS_LABELS, HEADS_HEAD = 16 * HEADS_LABELS };

typedef struct heads_world { /* "fresh", which changes nothing but has a head of its own, and "trained" */
    api_host host;
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    peft_batch *batch;
} heads_world;

static peft_status heads_open(heads_world *w) {
    peft_status st = PEFT_OK;
    static const int32_t ids[] = {3, 7, 1, 5, 2};
    static const int64_t lens[] = {3, 2};
    static const char *const fresh[2] = {"lora", "{'r':2}"}, *const trained[2] = {"lora", "{'r':3}"};
    memset(w, 0, sizeof *w);
    TRY(api_context(&w->host, &w->ctx));
    TRY(api_model(w->ctx, API_BERT, &w->m));
    TRY(peft_adapters_create(w->m, &w->a));
    TRY(api_adapter(w->ctx, w->a, "fresh", fresh, 1, 0));
    TRY(api_adapter(w->ctx, w->a, "trained", trained, 2, 0.3F));
    TRY(api_batch(w->ctx, ids, lens, HEADS_ROWS, &w->batch));
out:
    return st;
}

static void heads_close(heads_world *w) {
    peft_batch_free(w->batch);
    peft_adapters_free(w->a);
    peft_model_free(w->m);
    peft_context_free(w->ctx);
    CHECK_INT(w->host.now, 0);
}

static peft_status heads_logits(heads_world *w, const char *expression, float out[HEADS_LOGITS]) {
    peft_session *s = NULL;
    peft_status st = peft_session_create(w->m, w->a, expression, NULL, &s);
    if (st == PEFT_OK) { st = peft_session_logits(s, w->batch, out, HEADS_LOGITS, NULL); }
    peft_session_free(s);
    return st;
}

static peft_status heads_read(heads_world *w, const char *name, float out[HEADS_HEAD]) {
    return peft_adapters_tensor_read(w->a, name, "classifier.weight", out, HEADS_HEAD, NULL);
}

TEST(api_heads_last_counts) {
    heads_world w;
    float base[HEADS_LOGITS], alone[HEADS_LOGITS], last[HEADS_LOGITS], first[HEADS_LOGITS], fused[HEADS_LOGITS];
    CHECK_OK(heads_open(&w));
    CHECK_OK(heads_logits(&w, NULL, base));
    CHECK_OK(heads_logits(&w, "trained", alone));
    CHECK_OK(heads_logits(&w, "fresh, trained", last));
    CHECK_OK(heads_logits(&w, "trained, fresh", first));
    CHECK_MEM(last, alone, sizeof alone);
    CHECK(api_distance(first, alone, HEADS_LOGITS) > 1e-2);
    CHECK(api_distance(first, base, HEADS_LOGITS) > 1e-5); /* the base's head over the trained adapter's states */
    CHECK_OK(heads_logits(&w, "batch_split(fresh:1, trained:1)", fused)); /* rows have the heads of their own */
    CHECK(api_distance(fused, base, HEADS_LABELS) < 1e-6 && api_distance(fused + HEADS_LABELS, alone + HEADS_LABELS, HEADS_LABELS) < 1e-6);
    heads_close(&w);
}

/* Two steps with the adapters of an expression: does only the head of `owner` change? */
static void heads_train(heads_world *w, const char *expression, const char *const names[], size_t n, const char *owner) {
    peft_trainer *t = NULL;
    peft_dataset *d = NULL;
    peft_options *rows = NULL, *steps = NULL;
    float before[3][HEADS_HEAD], after[3][HEADS_HEAD];
    static const char row[] = "{\"input_ids\":[3,7,1],\"label\":2}";
    CHECK_OK(api_options(w->ctx, "dataset", "{'task':'sequence_classification'}", &rows));
    CHECK_OK(peft_dataset_create(w->ctx, NULL, rows, &d));
    CHECK_OK(peft_dataset_add_json(d, row, sizeof row - 1));
    CHECK_OK(api_options(w->ctx, "trainer", "{'max_steps':2,'batch_size':1}", &steps));
    CHECK_OK(peft_trainer_create(w->a, steps, &t));
    CHECK_OK(peft_trainer_add_job(t, expression, d, NULL, NULL));
    for (size_t i = 0; i < n; i++) { CHECK_OK(heads_read(w, names[i], before[i])); }
    CHECK_OK(peft_trainer_run(t));
    for (size_t i = 0; i < n; i++) {
        CHECK_OK(heads_read(w, names[i], after[i]));
        CHECK_INT(memcmp(before[i], after[i], sizeof after[i]) != 0, strcmp(names[i], owner) == 0);
    }
    peft_options_free(rows);
    peft_options_free(steps);
    peft_trainer_free(t);
    peft_dataset_free(d);
}

TEST(api_heads_last_is_trained) {
    static const char *const names[] = {"fresh", "trained"};
    heads_world w;
    CHECK_OK(heads_open(&w));
    heads_train(&w, "fresh, trained", names, 2, "trained");
    heads_train(&w, "trained, fresh", names, 2, "fresh");
    heads_close(&w);
}

/* By a union's name, a tensor that each part has one of is the last part's: its values, and its gradient. */
TEST(api_heads_of_a_union) {
    static const char *const both[2] = {"union", "{'parts':['trained','fresh']}"};
    heads_world w;
    peft_trainer *t = NULL;
    float fresh[HEADS_HEAD], trained[HEADS_HEAD], out[HEADS_HEAD], twos[HEADS_HEAD];
    CHECK_OK(heads_open(&w));
    peft_options *o = NULL;
    CHECK_OK(api_options(w.ctx, "method:union", both[1], &o));
    CHECK_OK(peft_adapters_add(w.a, "both", both[0], o, 0));
    CHECK_OK(heads_read(&w, "fresh", fresh));
    CHECK_OK(heads_read(&w, "trained", trained));
    CHECK_OK(heads_read(&w, "both", out));
    CHECK_MEM(out, fresh, sizeof fresh);
    for (size_t i = 0; i < HEADS_HEAD; i++) { twos[i] = 2; }
    CHECK_OK(peft_adapters_tensor_write(w.a, "both", "classifier.weight", twos, HEADS_HEAD));
    CHECK_OK(heads_read(&w, "fresh", out));
    CHECK_MEM(out, twos, sizeof twos);
    CHECK_OK(heads_read(&w, "trained", out));
    CHECK_MEM(out, trained, sizeof trained);
    static const int32_t labels[HEADS_ROWS] = {2, 0};
    CHECK_OK(peft_batch_set_i32(w.batch, "row_labels", labels, NULL, HEADS_ROWS));
    CHECK_OK(peft_trainer_create(w.a, NULL, &t));
    CHECK_OK(peft_trainer_add_job(t, "both", NULL, NULL, NULL));
    CHECK_OK(peft_trainer_accumulate(t, w.batch, NULL));
    CHECK_OK(peft_trainer_gradient_read(t, "both", "classifier.weight", out, HEADS_HEAD, NULL));
    CHECK_OK(peft_trainer_gradient_read(t, "fresh", "classifier.weight", twos, HEADS_HEAD, NULL));
    CHECK_MEM(out, twos, sizeof twos);
    float most = 0;
    for (size_t i = 0; i < HEADS_HEAD; i++) { most = out[i] > most ? out[i] : most; }
    CHECK(most > 1e-4F);
    peft_options_free(o);
    peft_trainer_free(t);
    heads_close(&w);
}

/* A fusion has a head of its own, which is not its members'. */
TEST(api_heads_of_a_fusion) {
    static const char *const names[] = {"one", "two", "fused"};
    static const char *const bottleneck[2] = {"pfeiffer", "{'reduction_factor':4}"};
    static const char *const fusion[2] = {"fusion", "{'adapters':['one','two']}"};
    heads_world w;
    CHECK_OK(heads_open(&w));
    CHECK_OK(api_adapter(w.ctx, w.a, "one", bottleneck, 3, 0.1F));
    CHECK_OK(api_adapter(w.ctx, w.a, "two", bottleneck, 4, 0.1F));
    CHECK_OK(api_adapter(w.ctx, w.a, "fused", fusion, 5, 0));
    heads_train(&w, "fused", names, 3, "fused");
    heads_close(&w);
}

TEST(api_heads_merge_last) {
    heads_world w;
    peft_model *merged = NULL;
    peft_options *o = NULL;
    float alone[HEADS_LOGITS], out[HEADS_LOGITS];
    char path[512];
    (void)snprintf(path, sizeof path, "%s/heads-merged", runner_tmpdir());
    CHECK_OK(heads_open(&w));
    CHECK_OK(heads_logits(&w, "trained", alone));
    CHECK_OK(peft_adapters_merge(w.a, "fresh, trained", path, NULL));
    CHECK_OK(api_options(w.ctx, "model", "{'task':'sequence_classification'}", &o));
    CHECK_OK(peft_model_open(w.ctx, path, o, &merged));
    peft_session *s = NULL;
    CHECK_OK(peft_session_create(merged, NULL, NULL, NULL, &s));
    CHECK_OK(peft_session_logits(s, w.batch, out, HEADS_LOGITS, NULL));
    CHECK(api_distance(out, alone, HEADS_LOGITS) < 1e-5);
    peft_session_free(s);
    peft_model_free(merged);
    peft_options_free(o);
    heads_close(&w);
}
