/* train_numbers_test.c - numbers stay numbers (docs/reliability.md, "Numbers"): what is none ends the run with step, adapter and first
 * tensor; steps of any size are bounded; denormals are kept; large logits do not overflow; rows without labels and of one token.
 *
 * Beside it: train_stop_test.c (what is left after such a step), train_jobs_test.c (of several jobs one ends), train_refuse_test.c and
 * train_evaluate_test.c (batches and data without labels), api_generate_test.c (a session's logits), peft_format_test.c (files). */
#include "train_kit.h"

/* Writes x to one element of the adapter's tensor `index`, which is named *name. */
static peft_status numbers_poke(train_kit *k, size_t index, size_t element, float x, const char **name) {
    peft_status st = PEFT_OK;
    float values[512];
    size_t n = 0;
    TRY(peft_adapters_tensor_info(k->a, "x", index, name, NULL, NULL));
    TRY(peft_adapters_tensor_read(k->a, "x", *name, values, PEFT__COUNT(values), &n));
    values[element] = x;
    TRY(peft_adapters_tensor_write(k->a, "x", *name, values, n));
out:
    return st;
}

/* ---- what is none -------------------------------------------------------------------------------------------------------------- */

TEST(numbers_an_adapter_that_has_none_is_named_with_its_tensor) {
    const float odd[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < PEFT__COUNT(odd); i++) {
        train_kit k;
        train_spec s = {0};
        const char *name = NULL;
        char want[256];
        CHECK_OK(train_begin(&k, &s));
        CHECK(peft_adapters_tensor_count(k.a, "x") > 3);
        CHECK_OK(numbers_poke(&k, 3, 5, odd[i], &name));
        CHECK_STATUS(peft_trainer_run(k.t), PEFT_E_NUMERIC);
        (void)snprintf(want, sizeof want,
            "the loss of adapter \"x\" at step 1 is not a finite number: tensor \"%s\" has a NaN or an infinite value",
                       name);
        CHECK_STR(peft_last_error(), want);
        CHECK_INT(k.log.n, 0);
        train_end(&k);
    }
}

TEST(numbers_a_base_that_has_none_is_named_by_its_tensor) {
    train_kit k;
    train_spec s = {0};
    CHECK_OK(train_begin(&k, &s));
    const peft__model_tensor *t = peft__model_find((struct peft_model *)k.m, "model.layers.1.mlp.up_proj.weight");
    CHECK(t != NULL);
    ((float *)(void *)(((struct peft_model *)k.m)->owned + (t->w.data - ((struct peft_model *)k.m)->owned)))[7] = NAN;
    CHECK_STATUS(peft_trainer_run(k.t), PEFT_E_NUMERIC);
    CHECK_STR(peft_last_error(),
        "the loss of adapter \"x\" at step 1 is not a finite number: tensor \"model.layers.1.mlp.up_proj.weight\" has a "
                                 "NaN or an infinite value");
    train_end(&k);
    CHECK_INT(k.host.now, 0);
}

/* The loss is one; a gradient, by a matrix of values at the end of float's range, is not. */
TEST(numbers_a_gradient_that_is_none_is_named_with_its_tensor) {
    train_kit k;
    train_spec s = {.method = "houlsby", .adapter = "{'reduction_factor':4,'non_linearity':'relu'}"};
    const char *tensor = NULL;
    float values[64];
    size_t n = 0;
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(peft_adapters_tensor_info(k.a, "x", 2, &tensor, NULL, NULL));
    CHECK_OK(peft_adapters_tensor_read(k.a, "x", tensor, values, PEFT__COUNT(values), &n));
    for (size_t i = 0; i < n; i++) { values[i] = i % 2 == 0 ? 3e38F : -3e38F; }
    CHECK_OK(peft_adapters_tensor_write(k.a, "x", tensor, values, n));
    CHECK_STATUS(peft_trainer_run(k.t), PEFT_E_NUMERIC);
    CHECK_ERROR_HAS("of adapter \"x\" at step ");
    CHECK_ERROR_HAS("is not a finite number");
    bool gradient = strstr(peft_last_error(), "a gradient") != NULL, named = false;
    for (size_t i = 0; i < peft_adapters_tensor_count(k.a, "x"); i++) {
        char want[256];
        CHECK_OK(peft_adapters_tensor_info(k.a, "x", i, &tensor, NULL, NULL));
        (void)snprintf(want, sizeof want, "is not a finite number: tensor \"%s\"", tensor);
        named = named || strstr(peft_last_error(), want) != NULL;
    }
    CHECK(gradient && named);
    train_end(&k);
}

/* ---- steps of any size ----------------------------------------------------------------------------------------------------------- */

/* A row of which nothing is likely makes a gradient far above the others': plain steps are then of max_grad_norm times the rate. */
TEST(numbers_a_loss_that_jumps_moves_by_the_clipped_gradient) {
    train_kit k;
    train_spec s = {.trainer = "{'max_steps':1,'batch_size':3}",
                    .optimizer = "{'optimizer':'sgd','learning_rate':0.5,'max_grad_norm':0.01,'lr_scheduler_type':'constant'}"};
    double sum = 0;
    CHECK_OK(train_begin(&k, &s));
    peft__real *before = train_copy(&k);
    CHECK_OK(peft_trainer_run(k.t));
    CHECK_INT(k.log.n, 1);
    CHECK(k.log.norm[0] > 0.05); /* it was clipped, and the log has what it was before */
    for (size_t i = 0; i < train_bytes(&k) / sizeof(peft__real); i++) {
        double by = (double)train_values(&k)[i] - (double)before[i];
        sum += by * by;
    }
    CHECK_NEAR(sqrt(sum), 0.5 * 0.01, 1e-6);
    free(before);
    train_end(&k);
}

/* Adapters that are as good as nothing learn by steps that are denormal, and keep them: nothing is flushed to zero. */
TEST(numbers_denormals_are_kept) {
    train_kit k;
    train_spec s = {.trainer = "{'max_steps':1,'batch_size':3}",
                    .optimizer = "{'optimizer':'sgd','learning_rate':1e-38,'max_grad_norm':0,'lr_scheduler_type':'constant'}"};
    const char *name = NULL;
    float values[512], zeros[512] = {0};
    size_t n = 0, denormal = 0;
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(peft_adapters_tensor_info(k.a, "x", 1, &name, NULL, NULL)); /* lora_B */
    CHECK_OK(peft_adapters_tensor_read(k.a, "x", name, values, PEFT__COUNT(values), &n));
    CHECK_OK(peft_adapters_tensor_write(k.a, "x", name, zeros, n));
    CHECK_OK(peft_trainer_run(k.t));
    CHECK_OK(peft_adapters_tensor_read(k.a, "x", name, values, PEFT__COUNT(values), &n));
    for (size_t i = 0; i < n; i++) {
        double v = fabs((double)values[i]);
        CHECK(isfinite(values[i]));
        denormal += v > 0 && v < 1.17549435e-38;
    }
    CHECK(denormal > 0);
    CHECK_OK(peft_trainer_evaluate(k.t, k.train, (char[256]){0}, 256, NULL));
    train_end(&k);
}

/* ---- large logits ---------------------------------------------------------------------------------------------------------------- */

/* After token t comes t + 1 with a logit of 1e30, and the row says t + 2: the loss is the difference, and no exponential of it. */
TEST(numbers_large_logits_have_their_loss) {
    const float sizes[] = {1e2F, 1e4F, 1e30F};
    for (size_t i = 0; i < PEFT__COUNT(sizes); i++) {
        train_kit k;
        train_spec s = {.method = "full", .no_train = true, .trainer = "{'max_steps':1,'batch_size':1,'max_length':8}"};
        static const int32_t ids[] = {1, 3, 5, 7};
        int32_t next[API_VOCAB];
        const int64_t four = 4;
        float head[API_VOCAB * API_HIDDEN];
        double loss = 0;
        size_t n = 0;
        peft_batch *b = NULL;
        for (int32_t t = 0; t < API_VOCAB; t++) { next[t] = (t + 1) % API_VOCAB; }
        CHECK_OK(train_begin(&k, &s));
        CHECK_OK(api_add_table(k.a, "t", next));
        CHECK_OK(peft_adapters_tensor_read(k.a, "t", "lm_head.weight", head, PEFT__COUNT(head), &n));
        for (size_t e = 0; e < n; e++) { head[e] *= sizes[i] / 10; }
        CHECK_OK(peft_adapters_tensor_write(k.a, "t", "lm_head.weight", head, n));
        peft_trainer_free(k.t);
        k.t = NULL;
        peft_options *o = NULL;
        CHECK_OK(api_options(k.ctx, "trainer", s.trainer, &o));
        CHECK_OK(peft_trainer_create(k.a, o, &k.t));
        peft_options_free(o);
        CHECK_OK(peft_trainer_add_job(k.t, "t", NULL, NULL, NULL));
        CHECK_OK(api_batch(k.ctx, ids, &four, 1, &b));
        CHECK_OK(peft_trainer_accumulate(k.t, b, &loss));
        CHECK(isfinite(loss));
        CHECK_NEAR(loss / ((double)sizes[i] * 4), 1, 0.01); /* a unit vector's norm brings it to 4 */
        peft_batch_free(b);
        train_end(&k);
    }
}

/* ---- rows of which nothing is to be learnt ------------------------------------------------------------------------------------------ */

static peft_status numbers_batch(train_kit *k, bool more, double *loss) {
    static const int32_t ids[] = {1, 2, 3, 4, 9, 8, 7, 5}, labels[] = {-100, 2, 3, 4, -100, -100, -100, -100};
    static const int64_t offsets[] = {0, 4, 7, 8}; /* the second has no label, the third one token */
    peft_status st = PEFT_OK;
    peft_batch *b = NULL;
    TRY(peft_batch_create(k->ctx, &b));
    TRY(peft_batch_set_i32(b, "input_ids", ids, offsets, more ? 3 : 1));
    TRY(peft_batch_set_i32(b, "labels", labels, offsets, more ? 3 : 1));
    TRY(peft_trainer_accumulate(k->t, b, loss));
out:
    peft_batch_free(b);
    return st;
}

/* Beside others they change neither loss nor gradients. */
TEST(numbers_rows_without_labels_change_nothing) {
    train_kit k;
    train_spec s = {.no_train = true, .trainer = "{'batch_size':3,'max_length':4}"};
    static float alone[4096], beside[4096];
    double one = 0, three = 0;
    size_t n = 0;
    const char *name = NULL;
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(numbers_batch(&k, false, &one));
    CHECK_OK(peft_adapters_tensor_info(k.a, "x", 0, &name, NULL, NULL));
    CHECK_OK(peft_trainer_gradient_read(k.t, "x", name, alone, PEFT__COUNT(alone), &n));
    CHECK_OK(peft_trainer_apply(k.t));
    train_end(&k);
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(numbers_batch(&k, true, &three));
    CHECK_OK(peft_adapters_tensor_info(k.a, "x", 0, &name, NULL, NULL));
    CHECK_OK(peft_trainer_gradient_read(k.t, "x", name, beside, PEFT__COUNT(beside), &n));
    CHECK(one > 0 && isfinite(one));
    CHECK_NEAR(three, one, 1e-6);
    CHECK(n > 0 && api_distance(alone, beside, n) < 1e-6);
    train_end(&k);
}

/* A run of nothing but such rows would learn nothing: it is refused by name before its first step. */
TEST(numbers_data_without_any_label_is_refused) {
    static const char *const rows[] = {"{\"input_ids\":[1,2,3],\"labels\":[-100,-100,-100]}", "{\"input_ids\":[5]}",
                                       "{\"input_ids\":[5],\"labels\":[5]}"};
    for (size_t i = 0; i < PEFT__COUNT(rows); i++) {
        train_kit k;
        train_spec s = {.no_train = true};
        CHECK_OK(train_prepare(&k, &s));
        CHECK_OK(peft_dataset_create(k.ctx, NULL, NULL, &k.train));
        for (int r = 0; r < 3; r++) { CHECK_OK(peft_dataset_add_json(k.train, rows[i], strlen(rows[i]))); }
        peft_status st = train_job(&k, &s);
        if (st == PEFT_OK) { st = peft_trainer_run(k.t); }
        CHECK_STATUS(st, PEFT_E_INVALID);
        CHECK_ERROR_HAS("no token of the training data has a label");
        CHECK_INT(k.log.n, 0);
        train_end(&k);
        CHECK_INT(k.host.now, 0);
    }
}

/* Rows of one token do have something to learn where rows are classified. */
TEST(numbers_rows_of_one_token_are_classified) {
    static const char config[] =
        "{\"model_type\":\"bert\",\"vocab_size\":14,\"hidden_size\":16,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
        "\"intermediate_size\":24,\"max_position_embeddings\":16}";
    static const char *const rows[] = {"{\"input_ids\":[5],\"label\":0}", "{\"input_ids\":[7],\"label\":1}"};
    train_kit k = {.log = {0}};
    peft_options *o = NULL;
    api_host host = {0};
    CHECK_OK(api_context(&host, &k.ctx));
    k.log.ctx = k.ctx;
    CHECK_OK(peft_context_set_threads(k.ctx, 1));
    CHECK_OK(api_options(k.ctx, "model", "{'task':'sequence_classification','num_labels':2}", &o));
    const char *dir = runner_tmpdir();
    peft_model *plain = NULL;
    peft_adapters *none = NULL;
    CHECK_OK(api_model(k.ctx, config, &plain));
    CHECK_OK(peft_adapters_create(plain, &none));
    CHECK_OK(peft_adapters_merge(none, "", dir, NULL));
    CHECK_OK(peft_model_open(k.ctx, dir, o, &k.m));
    peft_adapters_free(none);
    peft_model_free(plain);
    peft_options_free(o);
    CHECK_OK(peft_adapters_create(k.m, &k.a));
    CHECK_OK(peft_adapters_add(k.a, "x", "lora", NULL, 5));
    CHECK_OK(peft_dataset_create(k.ctx, NULL, NULL, &k.train));
    for (size_t i = 0; i < 2; i++) { CHECK_OK(peft_dataset_add_json(k.train, rows[i], strlen(rows[i]))); }
    train_spec s = {.trainer = "{'max_steps':30,'batch_size':2}", .optimizer = "{'learning_rate':0.05,'lr_scheduler_type':'constant'}"};
    CHECK_OK(train_job(&k, &s));
    CHECK_OK(peft_trainer_run(k.t));
    CHECK_INT(k.log.n, 30);
    CHECK_NEAR(k.log.loss[0], 0.6931, 0.05);
    CHECK(k.log.loss[29] < 0.5 * k.log.loss[0]); /* two texts of one token are told apart */
    train_end(&k);
    CHECK_INT(host.now, 0);
}
