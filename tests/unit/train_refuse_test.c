/* train_refuse_test.c - what a trainer does not take: data, adapters, batches and options that do not fit. */
#include "train_kit.h"

static peft_status refuse_job(train_kit *k, const char *trainer, peft_dataset *train, peft_dataset *eval) {
    peft_options *o = NULL;
    peft_status st = api_options(k->ctx, "trainer", trainer, &o);
    peft_trainer_free(k->t);
    k->t = NULL;
    if (st == PEFT_OK) { st = peft_trainer_create(k->a, o, &k->t); }
    if (st == PEFT_OK) { st = peft_trainer_add_job(k->t, "x", train, eval, NULL); }
    peft_options_free(o);
    return st;
}

static peft_status refuse_data(train_kit *k, int64_t n, int32_t id, peft_dataset **out) {
    char text[1024];
    int at = snprintf(text, sizeof text, "{\"input_ids\":[%d", (int)id);
    for (int64_t i = 1; i < n; i++) { at += snprintf(text + at, sizeof text - (size_t)at, ",1"); }
    at += snprintf(text + at, sizeof text - (size_t)at, "]}");
    peft_status st = peft_dataset_create(k->ctx, NULL, NULL, out);
    return st == PEFT_OK ? peft_dataset_add_json(*out, text, (size_t)at) : st;
}

TEST(train_refuses_data) {
    train_kit k;
    train_spec s = {0};
    peft_dataset *d = NULL;
    CHECK_OK(train_prepare(&k, &s));
    CHECK_OK(peft_dataset_create(k.ctx, NULL, NULL, &d));
    CHECK_STATUS(refuse_job(&k, "{}", d, NULL), PEFT_E_INVALID);
    CHECK_ERROR_HAS("the training data has no rows");
    CHECK_STATUS(refuse_job(&k, "{}", k.train, d), PEFT_E_INVALID);
    CHECK_ERROR_HAS("the evaluation data has no rows");
    peft_dataset_free(d);
    CHECK_OK(refuse_data(&k, 3, 14, &d));
    CHECK_STATUS(refuse_job(&k, "{}", d, NULL), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("token id 14, and the model's vocabulary 14");
    peft_dataset_free(d);
    CHECK_OK(refuse_data(&k, 49, 1, &d));
    CHECK_STATUS(refuse_job(&k, "{}", k.train, d), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("a row of the evaluation data has 49 tokens, more than the model's 48 positions");
    peft_dataset_free(d);
    CHECK_OK(refuse_data(&k, 1, 1, &d));
    CHECK_STATUS(refuse_job(&k, "{}", d, NULL), PEFT_E_INVALID);
    CHECK_ERROR_HAS("no token of the training data has a label");
    peft_dataset_free(d);
    CHECK_OK(refuse_data(&k, 48, 1, &d));
    CHECK_OK(refuse_job(&k, "{'max_steps':1}", d, NULL));
    CHECK_OK(peft_trainer_run(k.t));
    CHECK_OK(refuse_job(&k, "{'max_length':47}", d, NULL));
    CHECK_STATUS(peft_trainer_run(k.t), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("a row of the data has 48 tokens, more than the trainer's max_length 47");
    peft_dataset_free(d);
    train_end(&k);
    CHECK_INT(k.host.now, 0);
}

TEST(train_refuses_jobs) {
    train_kit k;
    train_spec s = {0};
    CHECK_OK(train_begin(&k, &s));
    CHECK_STATUS(peft_trainer_add_job(k.t, "x", k.train, NULL, NULL), PEFT_E_EXISTS);
    CHECK_ERROR_HAS("has a job \"x\" already");
    CHECK_STATUS(peft_adapters_remove(k.a, "x"), PEFT_E_BUSY);
    peft_trainer_free(k.t);
    k.t = NULL;
    CHECK_OK(peft_trainer_create(k.a, NULL, &k.t));
    CHECK_STATUS(peft_trainer_run(k.t), PEFT_E_INVALID);
    CHECK_ERROR_HAS("the trainer has no job");
    CHECK_STATUS(peft_trainer_add_job(k.t, "y", k.train, NULL, NULL), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("\"y\"");
    CHECK_OK(peft_trainer_add_job(k.t, "x", NULL, NULL, NULL));
    CHECK_STATUS(peft_trainer_run(k.t), PEFT_E_INVALID);
    CHECK_ERROR_HAS("job \"x\" has no training data");
    CHECK_OK(peft_dataset_add_json(k.train, "{\"input_ids\":[1,2]}", 19));
    train_end(&k);
    CHECK_INT(k.host.now, 0);
}

/* Rows that were added behind a trainer's back would be beyond its order and its caps. */
TEST(train_data_in_use_takes_no_rows) {
    train_kit k;
    train_spec s = {0};
    peft_batch *b = NULL;
    const int32_t ids[] = {1, 2};
    const int64_t len = 2;
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(api_batch(k.ctx, ids, &len, 1, &b));
    CHECK_STATUS(peft_dataset_add_json(k.train, "{\"input_ids\":[1,2]}", 19), PEFT_E_BUSY);
    CHECK_ERROR_HAS("a trainer uses the data set");
    CHECK_STATUS(peft_dataset_load_jsonl(k.train, "/no/such/file"), PEFT_E_BUSY);
    CHECK_STATUS(peft_dataset_add(k.train, b), PEFT_E_BUSY);
    CHECK_INT(peft_dataset_size(k.train), 12);
    peft_trainer_free(k.t);
    k.t = NULL;
    CHECK_OK(peft_dataset_add(k.train, b));
    peft_batch_free(b);
    train_end(&k);
}

static peft_status refuse_batch(train_kit *k, const int32_t *ids, const int32_t *labels, const int64_t *lens,
                                size_t rows) {
    peft_batch *b = NULL;
    int64_t offsets[8] = {0};
    for (size_t r = 0; r < rows; r++) { offsets[r + 1] = offsets[r] + lens[r]; }
    peft_status st = peft_batch_create(k->ctx, &b);
    if (st == PEFT_OK && rows > 0) { st = peft_batch_set_i32(b, "input_ids", ids, offsets, rows); }
    if (st == PEFT_OK && labels != NULL) { st = peft_batch_set_i32(b, "labels", labels, offsets, rows); }
    if (st == PEFT_OK) { st = peft_trainer_accumulate(k->t, b, NULL); }
    peft_batch_free(b);
    return st;
}

TEST(train_refuses_batches) {
    train_kit k;
    train_spec s = {.no_train = true, .trainer = "{'batch_size':2,'max_length':4}"};
    const int32_t ids[] = {1, 2, 3, 4, 5, 6, 7}, wrong[] = {1, 14, 3}, labels[] = {1, 2, 20},
                  none[] = {-100, -100, -100};
    const int64_t three = 3, five = 5, many[] = {2, 2, 2};
    CHECK_OK(train_begin(&k, &s));
    CHECK_STATUS(refuse_batch(&k, NULL, NULL, NULL, 0), PEFT_E_INVALID);
    CHECK_ERROR_HAS("no rows");
    CHECK_STATUS(refuse_batch(&k, wrong, NULL, &three, 1), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("row 0 has token id 14, and the vocabulary 14");
    CHECK_STATUS(refuse_batch(&k, ids, labels, &three, 1), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("label 20");
    CHECK_STATUS(refuse_batch(&k, ids, NULL, &five, 1), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("the plan's 2 rows, 8 tokens and 4 tokens a row");
    CHECK_STATUS(refuse_batch(&k, ids, NULL, many, 3), PEFT_E_SHAPE);
    CHECK_STATUS(peft_trainer_apply(k.t), PEFT_E_INVALID); /* none of them counted */
    CHECK_OK(refuse_batch(&k, ids, NULL, many, 2));
    CHECK_OK(peft_trainer_apply(k.t));
    CHECK(k.t->step == 1);
    CHECK_OK(refuse_batch(&k, ids, none, &three, 1)); /* no labels: no gradient, and no division by 0 */
    CHECK_OK(peft_trainer_apply(k.t));
    for (size_t i = 0; i < train_bytes(&k) / sizeof(peft__real); i++) { CHECK(isfinite((double)train_values(&k)[i])); }
    train_end(&k);
}

/* Without data the rate of the default schedule does not fall to 0 at once: its end is not known. */
TEST(train_own_loop_learns) {
    train_kit k;
    train_spec s = {.no_train = true,
                    .trainer = "{'batch_size':2,'max_length':8}",
                    .method = "full",
                    .optimizer = "{'learning_rate':0.02}"};
    const int32_t ids[] = {1, 2, 3, 4, 5, 6, 7, 8};
    const int64_t len = 8;
    double first = 0, last = 0;
    peft_batch *b = NULL;
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(api_batch(k.ctx, ids, &len, 1, &b));
    for (int i = 0; i < 30; i++) {
        CHECK_OK(peft_trainer_accumulate(k.t, b, i == 0 ? &first : &last));
        CHECK_OK(peft_trainer_apply(k.t));
    }
    CHECK(last < 0.2 * first);
    peft_batch_free(b);
    train_end(&k);
}

/* Learned positions end with their table. */
TEST(train_refuses_more_than_the_positions) {
    train_kit k;
    train_spec s = {.config = API_GPT2, .no_train = true, .trainer = "{'batch_size':1,'max_length':49}"};
    const int32_t ids[] = {1, 2, 3};
    const int64_t three = 3;
    CHECK_OK(train_begin(&k, &s));
    CHECK_STATUS(refuse_batch(&k, ids, NULL, &three, 1), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("rows of 49 tokens are more than the model's 48 positions");
    train_end(&k);
    s.trainer = "{'batch_size':1}"; /* as many as there are */
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(refuse_batch(&k, ids, NULL, &three, 1));
    CHECK_INT(k.t->plan.caps.max_length, 48);
    train_end(&k);
    s.trainer = "{'batch_size':1048576,'max_length':16777216}";
    s.config = NULL;
    CHECK_OK(train_begin(&k, &s));
    CHECK_STATUS(refuse_batch(&k, ids, NULL, &three, 1), PEFT_E_SHAPE);
    train_end(&k);
    CHECK_INT(k.host.now, 0);
}
