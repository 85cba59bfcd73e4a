/* train_trainer_test.c - what a step computes: loss, accumulation, smoothing, the same bits on all threads, evaluation between. */
#include "train_kit.h"

TEST(train_loss_is_that_before_the_step) {
    train_kit k;
    train_spec s = {.trainer = "{'max_steps':3,'batch_size':12}", .method = "full"};
    char text[256];
    double before[3];
    for (int64_t i = 0; i < 3; i++) { /* the loss of the data after i steps */
        char trainer[64];
        train_spec part = {
            .trainer = trainer, .method = "full", .optimizer = "{'learning_rate':0.01,'lr_scheduler_type':'constant'}"};
        (void)snprintf(trainer, sizeof trainer, "{'max_steps':%d,'batch_size':12}", (int)PEFT__MAX(i, 1));
        CHECK_OK(train_begin(&k, &part));
        if (i > 0) { CHECK_OK(peft_trainer_run(k.t)); }
        CHECK_OK(peft_trainer_evaluate(k.t, k.train, text, sizeof text, NULL));
        before[i] = train_number(text, "loss");
        train_end(&k);
    }
    s.optimizer = "{'learning_rate':0.01,'lr_scheduler_type':'constant'}";
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(peft_trainer_run(k.t));
    for (int i = 0; i < 3; i++) { CHECK_NEAR(k.log.loss[i], before[i], 2e-6 * before[i]); }
    CHECK(before[2] < before[0]);
    train_end(&k);
    CHECK_INT(k.host.now, 0);
}

/* Three batches of four rows make the step of one batch of twelve; the mean is over tokens, not over batches. */
TEST(train_accumulation_is_one_large_batch) {
    train_kit k;
    peft__real *once = NULL, *thrice = NULL;
    train_log a, b;
    train_spec s = {.trainer = "{'max_steps':4,'batch_size':12,'shuffle':false}",
                    .optimizer = "{'optimizer':'sgd','learning_rate':0.5}"};
    CHECK_OK(train_whole(&s, &once, &a));
    s.trainer = "{'max_steps':4,'batch_size':4,'gradient_accumulation_steps':3,'shuffle':false}";
    CHECK_OK(train_whole(&s, &thrice, &b));
    CHECK_INT(b.n, 4);
    for (int i = 0; i < 4; i++) {
        CHECK_NEAR(b.loss[i], a.loss[i], 1e-6 * a.loss[i]);
        CHECK_NEAR(b.norm[i], a.norm[i], 1e-5 * a.norm[i]);
        CHECK_INT(b.tokens[i], a.tokens[i]);
    }
    CHECK_OK(train_begin(&k, &s));
    int64_t n = peft__trainer_member(k.t, train_the_job(&k), 0)->adapter->n_trainable;
    for (int64_t i = 0; i < n; i++) { CHECK_NEAR(thrice[i], once[i], 1e-5); }
    free(once);
    free(thrice);
    train_end(&k);
}

/* Feeds rows [first, first + n) of the training data. */
static peft_status trainer_feed(train_kit *k, size_t first, size_t n, double *loss) {
    int64_t offsets[32] = {0};
    peft_batch *b = NULL;
    const peft__row *row = peft__dataset_row(k->train, first);
    for (size_t i = 0; i < n; i++) { offsets[i + 1] = offsets[i] + peft__dataset_row(k->train, first + i)->n; }
    peft_status st = peft_batch_create(k->ctx, &b);
    const int32_t *ids = (const int32_t *)k->train->ids.data + row->first,
                  *labels = (const int32_t *)k->train->labels.data + row->first;
    if (st == PEFT_OK) { st = peft_batch_set_i32(b, "input_ids", ids, offsets, n); }
    if (st == PEFT_OK) { st = peft_batch_set_i32(b, "labels", labels, offsets, n); }
    if (st == PEFT_OK) { st = peft_trainer_accumulate(k->t, b, loss); }
    peft_batch_free(b);
    return st;
}

static void trainer_in_pieces(const char *trainer, const char *adapter, size_t batch, size_t passes) {
    train_kit k;
    peft__real *whole = NULL;
    train_log log;
    train_spec s = {.trainer = trainer, .adapter = adapter, .method = "lora"};
    CHECK_OK(train_whole(&s, &whole, &log));
    CHECK_OK(train_begin(&k, &s));
    size_t at = 0;
    for (int64_t step = 0; step < log.n; step++) {
        double loss = 0;
        for (size_t p = 0; p < passes; p++, at += batch) { CHECK_OK(trainer_feed(&k, at % 12, batch, &loss)); }
        if (passes == 1) { CHECK(loss == log.loss[step]); }
        CHECK_OK(peft_trainer_apply(k.t));
    }
    CHECK_MEM(train_values(&k), whole, train_bytes(&k));
    CHECK_STATUS(peft_trainer_apply(k.t), PEFT_E_INVALID); /* nothing more to apply */
    CHECK_ERROR_HAS("no gradients to apply");
    CHECK_MEM(train_values(&k), whole, train_bytes(&k));
    train_end(&k);
    free(whole);
}

TEST(train_pieces_are_a_run) {
    trainer_in_pieces("{'max_steps':5,'batch_size':3,'shuffle':false}", NULL, 3, 1);
}
TEST(train_pieces_with_accumulation) {
    trainer_in_pieces("{'max_steps':3,'batch_size':3,'gradient_accumulation_steps':2,'shuffle':false}", NULL, 3, 2);
}
/* Masks follow from a row's place in the step, which is here its place in the file too. */
TEST(train_pieces_with_dropout) {
    trainer_in_pieces("{'max_steps':2,'batch_size':4,'gradient_accumulation_steps':3,'shuffle':false}",
                      "{'lora_dropout':0.4}", 4, 3);
}

static void trainer_is_deterministic(const train_spec *spec) {
    peft__real *first = NULL, *other = NULL;
    train_log a, b;
    train_kit k;
    train_spec s = *spec;
    s.threads = 1;
    CHECK_OK(train_whole(&s, &first, &a));
    CHECK_OK(train_begin(&k, &s));
    size_t bytes = train_bytes(&k);
    train_end(&k);
    for (int32_t i = 0; i < 4; i++) {
        s.threads = (const int32_t[]){1, 2, 4, 7}[i];
        CHECK_OK(train_whole(&s, &other, &b));
        CHECK_MEM(other, first, bytes);
        CHECK_MEM(b.loss, a.loss, sizeof a.loss);
        CHECK_MEM(b.norm, a.norm, sizeof a.norm);
        free(other);
    }
    free(first);
}

TEST(train_deterministic_lora) {
    train_spec s = {.trainer = "{'max_steps':8,'batch_size':5}",
                    .adapter = "{'lora_dropout':0.3,'target_modules':'all-linear'}"};
    trainer_is_deterministic(&s);
}
TEST(train_deterministic_full_gpt2) {
    train_spec s = {.config = API_GPT2,
                    .method = "full",
                    .trainer = "{'max_steps':6,'batch_size':4,'gradient_accumulation_steps':2}"};
    trainer_is_deterministic(&s);
}
TEST(train_deterministic_generic) {
    train_spec s = {.method = "full", .isa = "generic", .trainer = "{'max_steps':6,'batch_size':7}"};
    trainer_is_deterministic(&s);
}

/* The seed orders the rows and draws the masks: each alone shows it. */
TEST(train_seed_matters) {
    static const char *const trainers[][2] = {
        {"{'max_steps':2,'batch_size':5,'seed':1}", "{'max_steps':2,'batch_size':5,'seed':2}"},
        {"{'max_steps':2,'batch_size':12,'seed':1,'shuffle':false}",
         "{'max_steps':2,'batch_size':12,'seed':2,'shuffle':false}"}};
    for (int i = 0; i < 2; i++) {
        peft__real *a = NULL, *b = NULL;
        train_log x, y;
        train_spec s = {.adapter = i == 1 ? "{'lora_dropout':0.5}" : NULL};
        s.trainer = trainers[i][0];
        CHECK_OK(train_whole(&s, &a, &x));
        s.trainer = trainers[i][1];
        CHECK_OK(train_whole(&s, &b, &y));
        CHECK(x.loss[0] != y.loss[0]);
        free(a);
        free(b);
    }
}

/* Two batches of one step do not share their masks. */
TEST(train_dropout_differs_between_batches) {
    train_kit k;
    train_spec s = {.adapter = "{'lora_dropout':0.5}", .trainer = "{'max_steps':2,'batch_size':4}"};
    double first = 0, second = 0, again = 0;
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(trainer_feed(&k, 0, 4, &first));
    CHECK_OK(trainer_feed(&k, 0, 4, &second));
    CHECK(first != second);
    CHECK_OK(peft_trainer_apply(k.t));
    train_end(&k);
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(trainer_feed(&k, 0, 4, &again));
    CHECK(again == first);
    train_end(&k);
}

/* Cross entropy against (1 - e) onehot + e / V, from the logits of a session. */
TEST(train_label_smoothing) {
    train_kit k;
    train_spec s = {.trainer = "{'max_steps':1,'batch_size':6,'label_smoothing':0.2}", .rows = 6, .eval = true};
    double sum = 0, plain = 0;
    int64_t tokens = 0;
    char text[256];
    peft_session *session = NULL;
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(peft_session_create(k.m, k.a, "x", NULL, &session));
    for (size_t r = 0; r < 6; r++) {
        const peft__row *row = peft__dataset_row(k.train, r);
        const int32_t *labels = (const int32_t *)k.train->labels.data + row->first;
        float logits[16 * API_VOCAB];
        peft_batch *b = NULL;
        CHECK_OK(api_batch(k.ctx, (const int32_t *)k.train->ids.data + row->first, &row->n, 1, &b));
        CHECK_OK(peft_session_logits(session, b, logits, PEFT__COUNT(logits), NULL));
        peft_batch_free(b);
        for (int64_t t = 0; t + 1 < row->n; t++) {
            double total = 0, mean = 0;
            if (labels[t + 1] < 0) { continue; }
            for (int v = 0; v < API_VOCAB; v++) {
                total += exp((double)logits[t * API_VOCAB + v]);
                mean += (double)logits[t * API_VOCAB + v] / API_VOCAB;
            }
            double nll = log(total) - (double)logits[t * API_VOCAB + labels[t + 1]];
            sum += 0.8 * nll + 0.2 * (log(total) - mean);
            plain += nll;
            tokens++;
        }
    }
    peft_session_free(session);
    CHECK_OK(peft_trainer_evaluate(k.t, k.train, text, sizeof text, NULL));
    CHECK_OK(peft_trainer_run(k.t));
    CHECK_NEAR(k.log.loss[0], sum / (double)tokens, 1e-5);
    CHECK_NEAR(train_number(text, "loss"), plain / (double)tokens, 1e-5); /* evaluation knows no smoothing */
    CHECK(fabs(sum - plain) > 0.1);
    train_end(&k);
}

/* The gradient is in the order of the file: SGD at rate 1 moves a tensor by just that. */
static void trainer_gradient_agrees(const char *config, const char *method, const char *tensor) {
    train_kit k;
    train_spec s = {.config = config,
                    .method = method,
                    .trainer = "{'max_steps':1,'batch_size':12}",
                    .optimizer = "{'optimizer':'sgd','learning_rate':1,'max_grad_norm':0}"};
    float before[4096], after[4096], g[4096];
    size_t n = 0;
    double most = 0;
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(peft_trainer_gradient_read(k.t, "x", tensor, g, PEFT__COUNT(g), &n));
    for (size_t i = 0; i < n; i++) { CHECK(g[i] == 0); } /* nothing was accumulated */
    CHECK_OK(peft_adapters_tensor_read(k.a, "x", tensor, before, PEFT__COUNT(before), NULL));
    CHECK_OK(trainer_feed(&k, 0, 12, NULL));
    CHECK_OK(peft_trainer_gradient_read(k.t, "x", tensor, g, PEFT__COUNT(g), NULL));
    CHECK_OK(peft_trainer_apply(k.t));
    CHECK_OK(peft_adapters_tensor_read(k.a, "x", tensor, after, PEFT__COUNT(after), NULL));
    for (size_t i = 0; i < n; i++) {
        CHECK_NEAR(before[i] - after[i], g[i], 1e-6);
        most = fmax(most, fabs((double)g[i]));
    }
    CHECK(most > 1e-3);
    train_end(&k);
}

TEST(train_gradient_lora) {
    trainer_gradient_agrees(API_LLAMA, "lora", "model.layers.1.self_attn.v_proj.lora_A.weight");
}
TEST(train_gradient_conv1d) {
    trainer_gradient_agrees(API_GPT2, "full", "transformer.h.0.attn.c_attn.weight");
}
TEST(train_gradient_lora_conv1d) {
    trainer_gradient_agrees(API_GPT2, "lora", "transformer.h.0.attn.c_attn.lora_B.weight");
}

TEST(train_evaluates_between_steps) {
    train_kit k;
    train_spec s = {.trainer = "{'max_steps':7,'batch_size':3,'eval_steps':3}", .eval = true};
    char text[256];
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(peft_trainer_run(k.t));
    for (int i = 0; i < 7; i++) { CHECK_INT(!isnan(k.log.eval[i]), i == 2 || i == 5 || i == 6); }
    CHECK_OK(peft_trainer_evaluate(k.t, k.eval, text, sizeof text, NULL));
    CHECK_NEAR(train_number(text, "loss"), k.log.eval[6], 1e-8 * k.log.eval[6]);
    train_end(&k);
    s.trainer = "{'max_steps':3,'batch_size':3}";
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(peft_trainer_run(k.t));
    for (int i = 0; i < 3; i++) { CHECK_INT(!isnan(k.log.eval[i]), i == 2); }
    train_end(&k);
}

/* Steps so large that the held-out loss rises again: the run ends with the best adapter, not the last. */
TEST(train_loads_the_best_at_the_end) {
    train_kit k;
    train_spec s = {.trainer = "{'max_steps':30,'batch_size':4,'eval_steps':1,'load_best_model_at_end':true}",
                    .optimizer = "{'learning_rate':0.05,'lr_scheduler_type':'constant'}",
                    .method = "full",
                    .eval = true};
    char text[256];
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(peft_trainer_run(k.t));
    double best = HUGE_VAL;
    for (int i = 0; i < 30; i++) { best = fmin(best, k.log.eval[i]); }
    CHECK(best < k.log.eval[29]);
    CHECK_OK(peft_trainer_evaluate(k.t, k.eval, text, sizeof text, NULL));
    CHECK_NEAR(train_number(text, "loss"), best, 1e-8 * best);
    train_end(&k);
}

TEST(train_learning_rates_of_a_run) {
    train_kit k;
    train_spec s = {.trainer = "{'max_steps':6,'batch_size':3}", .optimizer = "{'learning_rate':0.1,'warmup_steps':2}"};
    static const double rates[] = {0, 0.05, 0.1, 0.075, 0.05, 0.025};
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(peft_trainer_run(k.t));
    for (int i = 0; i < 6; i++) { CHECK_NEAR(k.log.rate[i], rates[i], 1e-15); }
    CHECK(k.log.loss[5] < k.log.loss[0]);
    train_end(&k);
    s.optimizer = "{}";
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(peft__trainer_plan(k.t));
    CHECK_NEAR(peft__trainer_member(k.t, train_the_job(&k), 0)->optim.learning_rate, 5e-4, 0);
    train_end(&k);
}

/* A run that is over goes on only if asked for more: nothing changes. */
TEST(train_run_again_is_nothing) {
    train_kit k;
    train_spec s = {0};
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(peft_trainer_run(k.t));
    peft__real *end = train_copy(&k);
    CHECK_OK(peft_trainer_run(k.t));
    CHECK_INT(k.log.n, 6);
    CHECK_MEM(train_values(&k), end, train_bytes(&k));
    free(end);
    train_end(&k);
}
