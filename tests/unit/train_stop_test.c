/* train_stop_test.c - runs that end early: numbers that are none, cancelling, callbacks; and how they go on. */
#include "base/system.h"
#include "train_kit.h"

TEST(train_stops_at_a_nan_in_the_base) {
    train_kit k;
    train_spec s = {0};
    CHECK_OK(train_begin(&k, &s));
    peft__real *before = train_copy(&k);
    for (int32_t i = 0; i < API_VOCAB; i++) {
        ((float *)(void *)((struct peft_model *)k.m)->owned)[i * API_HIDDEN] = NAN;
    }
    CHECK_STATUS(peft_trainer_run(k.t), PEFT_E_NUMERIC);
    CHECK_ERROR_HAS("the loss of adapter \"x\" at step 1 is not a finite number");
    CHECK_INT(k.log.n, 0);
    CHECK_INT(k.t->step, 0);
    CHECK_INT(peft__trainer_member(k.t, train_the_job(&k), 0)->optim.step, 0);
    CHECK_MEM(train_values(&k), before, train_bytes(&k));
    for (size_t i = 0; i < train_bytes(&k) / sizeof(peft__real); i++) {
        CHECK(peft__trainer_member(k.t, train_the_job(&k), 0)->optim.state[0][i] == 0);
    }
    free(before);
    train_end(&k);
    CHECK_INT(k.host.now, 0);
}

/* The step that fails leaves nothing: the run is then where one of so many steps ends. */
TEST(train_stops_at_an_absurd_rate) {
    train_kit k;
    peft__real *good = NULL;
    char trainer[64];
    train_spec s = {.method = "full",
                    .trainer = "{'max_steps':60,'batch_size':4}",
                    .optimizer =
                        "{'optimizer':'sgd','learning_rate':1e6,'max_grad_norm':0,'lr_scheduler_type':'constant'}"};
    CHECK_OK(train_begin(&k, &s));
    CHECK_STATUS(peft_trainer_run(k.t), PEFT_E_NUMERIC);
    CHECK_ERROR_HAS("not a finite number");
    CHECK(k.log.n > 0 && k.log.n < 60);
    CHECK_INT(k.t->step, k.log.n);
    (void)snprintf(trainer, sizeof trainer, "{'max_steps':%d,'batch_size':4}", (int)k.log.n);
    s.trainer = trainer;
    CHECK_OK(train_whole(&s, &good, NULL));
    CHECK_MEM(train_values(&k), good, train_bytes(&k));
    CHECK_STATUS(peft_trainer_run(k.t), PEFT_E_NUMERIC); /* at the same rows again */
    CHECK_MEM(train_values(&k), good, train_bytes(&k));
    free(good);
    train_end(&k);
}

TEST(train_drops_gradients_that_are_no_numbers) {
    train_kit k;
    train_spec s = {0};
    const int32_t ids[] = {1, 2, 3};
    const int64_t three = 3, offsets[] = {0, 3};
    float weights[] = {1, 1, 1};
    double loss = 0;
    peft_batch *b = NULL;
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(api_batch(k.ctx, ids, &three, 1, &b));
    CHECK_OK(peft_trainer_accumulate(k.t, b, &loss));
    weights[1] = NAN;
    peft_status set = peft_batch_set_f32(b, "loss_weights", weights, offsets, 1);
    CHECK(set == PEFT_OK || set == PEFT_E_INVALID);
    if (set == PEFT_OK) {
        CHECK_STATUS(peft_trainer_accumulate(k.t, b, &loss), PEFT_E_NUMERIC);
        CHECK_STATUS(peft_trainer_apply(k.t), PEFT_E_INVALID);
    }
    peft_batch_free(b);
    train_end(&k);
}

/* The first `want` of a run's records, in two runs. */
static bool stop_same_log(const train_log *a, const train_log *b, int64_t want) {
    return a->n == want && b->n == want && memcmp(a->loss, b->loss, (size_t)want * sizeof *a->loss) == 0 &&
           memcmp(a->rate, b->rate, (size_t)want * sizeof *a->rate) == 0;
}

TEST(train_cancel_and_go_on) {
    train_kit k;
    peft__real *whole = NULL;
    train_log log;
    train_spec s = {.trainer = "{'max_steps':9,'batch_size':5}", .adapter = "{'lora_dropout':0.2}"};
    CHECK_OK(train_whole(&s, &whole, &log));
    CHECK_OK(train_begin(&k, &s));
    for (int64_t at = 2; at <= 8; at += 3) {
        k.log.cancel = k.t;
        k.log.cancel_at = at;
        CHECK_STATUS(peft_trainer_run(k.t), PEFT_E_CANCELLED);
        CHECK_ERROR_HAS("cancelled after step");
        CHECK_INT(k.t->step, at);
    }
    CHECK_OK(peft_trainer_run(k.t));
    CHECK(stop_same_log(&k.log, &log, 9));
    CHECK_MEM(train_values(&k), whole, train_bytes(&k));
    free(whole);
    train_end(&k);
}

TEST(train_cancel_before_and_after_a_run) {
    train_kit k;
    train_spec s = {0};
    char text[256];
    CHECK_OK(train_begin(&k, &s));
    peft_trainer_cancel(k.t);
    CHECK_STATUS(peft_trainer_run(k.t), PEFT_E_CANCELLED);
    CHECK_INT(k.log.n, 0);
    k.log.cancel = k.t;
    k.log.cancel_at = 6; /* the last step: the run is complete, and the wish goes with it */
    CHECK_OK(peft_trainer_run(k.t));
    CHECK_INT(k.log.n, 6);
    CHECK_OK(peft_trainer_evaluate(k.t, k.train, text, sizeof text, NULL));
    train_end(&k);
}

static void stop_thread(void *arg) {
    runner_sleep(0.003);
    peft_trainer_cancel(arg);
}

TEST(train_cancel_from_another_thread) {
    train_kit k;
    peft__sys_thread thread;
    peft__real *whole = NULL;
    train_log log;
    char trainer[64];
    train_spec s = {.trainer = "{'max_steps':1000000,'batch_size':4}",
                    .optimizer = "{'learning_rate':1e-3,'lr_scheduler_type':'constant'}"};
    CHECK_OK(train_begin(&k, &s));
    CHECK(peft__sys_thread_start(&thread, 1 << 18, stop_thread, k.t));
    CHECK_STATUS(peft_trainer_run(k.t), PEFT_E_CANCELLED);
    peft__sys_thread_join(&thread);
    CHECK(k.t->step < 1000000);
    (void)snprintf(trainer, sizeof trainer, "{'max_steps':%lld,'batch_size':4}", (long long)PEFT__MAX(k.t->step, 1));
    s.trainer = trainer;
    CHECK_OK(train_whole(&s, &whole, &log));
    if (k.t->step > 0) { CHECK_MEM(train_values(&k), whole, train_bytes(&k)); }
    free(whole);
    train_end(&k);
}

TEST(train_callback_ends_the_run) {
    train_kit k;
    peft__real *whole = NULL;
    train_log log;
    train_spec s = {.trainer = "{'max_steps':6,'batch_size':5}"};
    CHECK_OK(train_whole(&s, &whole, &log));
    CHECK_OK(train_begin(&k, &s));
    k.log.answer_at = 3;
    CHECK_STATUS(peft_trainer_run(k.t), PEFT_E_CALLBACK);
    CHECK_ERROR_HAS("the progress callback ended the run after step 3");
    CHECK_INT(k.log.n, 3);
    k.log.answer_at = 6; /* after the last step */
    CHECK_STATUS(peft_trainer_run(k.t), PEFT_E_CALLBACK);
    CHECK_OK(peft_trainer_run(k.t));
    CHECK(stop_same_log(&k.log, &log, 6));
    CHECK_MEM(train_values(&k), whole, train_bytes(&k));
    free(whole);
    train_end(&k);
}

typedef struct stop_again { /* what a callback tried */
    train_kit *k;
    peft_status run, plan, apply, load, save, add, set;
} stop_again;

static int32_t stop_reenter(void *user, const peft_step_info *info) {
    stop_again *a = user;
    char text[16];
    (void)info;
    a->run = peft_trainer_run(a->k->t);
    a->plan = peft_trainer_plan_json(a->k->t, text, sizeof text, NULL);
    a->apply = peft_trainer_apply(a->k->t);
    a->load = peft_trainer_checkpoint_load(a->k->t, "/no/such");
    a->save = peft_trainer_checkpoint_save(a->k->t, "/no/such");
    a->add = peft_trainer_add_job(a->k->t, "x", NULL, NULL, NULL);
    a->set = peft_trainer_set_progress(a->k->t, NULL, NULL);
    peft_trainer_free(a->k->t); /* refused: the run goes on */
    return 0;
}

TEST(train_callback_may_not_re_enter) {
    train_kit k;
    train_spec s = {.trainer = "{'max_steps':2,'batch_size':5}"};
    stop_again a = {.k = &k};
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(peft_trainer_set_progress(k.t, stop_reenter, &a));
    CHECK_OK(peft_trainer_run(k.t));
    CHECK_INT(a.run, PEFT_E_BUSY);
    CHECK_INT(a.plan, PEFT_E_BUSY);
    CHECK_INT(a.apply, PEFT_E_BUSY);
    CHECK_INT(a.load, PEFT_E_BUSY);
    CHECK_INT(a.save, PEFT_E_BUSY);
    CHECK_INT(a.add, PEFT_E_BUSY);
    CHECK_INT(a.set, PEFT_E_BUSY);
    CHECK_INT(k.t->step, 2);
    train_end(&k);
    CHECK_INT(k.host.now, 0);
}
