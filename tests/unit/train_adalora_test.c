/* train_adalora_test.c - AdaLoRA in the trainer: the schedule ends with the ranks asked for, its state survives a checkpoint bit
 * for bit, steps allocate nothing, the loss has the orthonormal term, and every option changes the run. */
#include "peft/adalora.h"
#include "train_kit.h"

#define ADALORA_SET "{'init_r':4,'target_r':2,'tinit':2,'tfinal':3,'deltaT':2,'target_modules':['q_proj','v_proj']"
#define ADALORA_TRAINER "{'max_steps':14,'batch_size':5}"

static const peft__adapter *adalora_of(const train_kit *k) { return peft__trainer_member(k->t, train_the_job(k), 0)->adapter; }

/* Triplets with an E that is not 0, of all modules, or of one. */
static int64_t adalora_left(const peft__adapter *a, int64_t module) {
    int64_t n = 0;
    for (size_t j = 0; j < a->attachments.len; j++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, j);
        for (int64_t i = 0; i < at->rank && (module < 0 || module == (int64_t)j); i++) {
            n += peft__adalora_values(a, at, PEFT__ADALORA_E)[i] != 0;
        }
    }
    return n;
}

TEST(train_adalora_ends_with_its_ranks) {
    train_kit k;
    train_spec s = {.method = "adalora", .adapter = ADALORA_SET "}", .trainer = ADALORA_TRAINER};
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(peft_trainer_run(k.t));
    CHECK_INT(adalora_left(adalora_of(&k), -1), 4 * 2);
    for (int64_t i = 4; i < k.log.n; i++) { CHECK_INT(k.log.calls[i], k.log.calls[3]); } /* steps allocate nothing */
    const char *dir = runner_path(runner_tmpdir(), "left");
    CHECK_OK(peft_adapters_save(k.a, "x", dir, NULL));
    CHECK_OK(peft_adapters_load(k.a, "y", dir, NULL));
    peft_batch *b = NULL;
    const int32_t ids[5] = {3, 1, 4, 1, 5};
    const int64_t lens[1] = {5};
    float logits[2][5 * API_VOCAB];
    CHECK_OK(api_batch(k.ctx, ids, lens, 1, &b));
    for (int i = 0; i < 2; i++) {
        peft_session *session = NULL;
        CHECK_OK(peft_session_create(k.m, k.a, i == 0 ? "x" : "y", NULL, &session));
        CHECK_OK(peft_session_logits(session, b, logits[i], PEFT__COUNT(logits[i]), NULL));
        peft_session_free(session);
    }
    CHECK_NEAR(api_distance(logits[0], logits[1], 5 * API_VOCAB), 0, 1e-6);
    peft_batch_free(b);
    train_end(&k);
    CHECK_INT(k.host.now, 0);
}

/* Broken off after each step, saved, and taken up by another trainer over a fresh adapter. */
TEST(train_adalora_goes_on_from_a_checkpoint) {
    train_spec s = {.method = "adalora", .adapter = ADALORA_SET ",'lora_dropout':0.2}", .trainer = ADALORA_TRAINER};
    peft__real *whole = NULL;
    train_log log;
    CHECK_OK(train_whole(&s, &whole, &log));
    for (int64_t at = 1; at < 14; at++) {
        train_kit k;
        const char *dir = runner_path(runner_tmpdir(), "state");
        CHECK_OK(train_begin(&k, &s));
        k.log.answer_at = at;
        CHECK_STATUS(peft_trainer_run(k.t), PEFT_E_CALLBACK);
        CHECK_OK(peft_trainer_checkpoint_save(k.t, dir));
        train_end(&k);
        CHECK_OK(train_begin(&k, &s));
        CHECK_OK(peft_trainer_checkpoint_load(k.t, dir));
        CHECK_OK(peft_trainer_run(k.t));
        CHECK_MEM(k.log.loss, log.loss + at, (size_t)k.log.n * sizeof *log.loss);
        CHECK_MEM(train_values(&k), whole, train_bytes(&k));
        train_end(&k);
    }
    free(whole);
}

/* The first step's loss, with what the methods adds to it. */
static double adalora_first_loss(const char *weight) {
    char adapter[256];
    peft__real *values = NULL;
    train_log log;
    (void)snprintf(adapter, sizeof adapter, "{'init_r':4,'target_r':2,'orth_reg_weight':%s}", weight);
    train_spec s = {.method = "adalora", .adapter = adapter, .trainer = "{'max_steps':2,'batch_size':4,'gradient_accumulation_steps':3}"};
    peft_status st = train_whole(&s, &values, &log);
    free(values);
    return st == PEFT_OK ? log.loss[0] : (double)NAN;
}

TEST(train_adalora_loss_has_the_term) {
    double none = adalora_first_loss("0"), one = adalora_first_loss("1"), two = adalora_first_loss("2");
    CHECK_NEAR(two - one, one - none, 1e-9);
    CHECK_NEAR(one - none, 2, 0.02); /* A and B are small: each norm is nearly that of I, the root of 4 */
}

/* The betas change scores, and hence choices where scores are near: see adalora_takes_what_the_model_takes. */
TEST(train_adalora_options_change_the_run) {
    static const char *const others[] = {"'init_r':5", "'target_r':3", "'tinit':5", "'tfinal':6", "'deltaT':5",
                                         "'orth_reg_weight':0.1", "'total_step':10", "'lora_alpha':3",
                                         "'lora_dropout':0.3", "'init_lora_weights':false"};
    train_spec s = {.method = "adalora", .adapter = "{'init_r':4,'target_r':2,'tinit':2,'tfinal':3,'deltaT':2}",
                    .trainer = ADALORA_TRAINER};
    peft__real *usual = NULL, *other = NULL;
    train_log log, changed;
    CHECK_OK(train_whole(&s, &usual, &log));
    for (size_t i = 0; i < PEFT__COUNT(others); i++) {
        char adapter[256];
        static const char *const keys[] = {"init_r", "target_r", "tinit", "tfinal", "deltaT"};
        static const char *const values[] = {"4", "2", "2", "3", "2"};
        int n = snprintf(adapter, sizeof adapter, "{%s", others[i]);
        for (size_t j = 0; j < PEFT__COUNT(keys); j++) {
            if (strncmp(others[i] + 1, keys[j], strlen(keys[j])) == 0) { continue; }
            n += snprintf(adapter + n, sizeof adapter - (size_t)n, ",'%s':%s", keys[j], values[j]);
        }
        (void)snprintf(adapter + n, sizeof adapter - (size_t)n, "}");
        s.adapter = adapter;
        CHECK_OK(train_whole(&s, &other, &changed));
        if (memcmp(changed.loss, log.loss, sizeof log.loss) == 0) { printf("no effect: %s\n", others[i]); }
        CHECK(memcmp(changed.loss, log.loss, sizeof log.loss) != 0);
        free(other);
    }
    free(usual);
}

/* A run that is too short for its schedule is refused, and so is one whose length nobody says. */
TEST(train_adalora_refuses_runs_without_pruning) {
    train_kit k;
    train_spec s = {.method = "adalora", .adapter = "{'tinit':4,'tfinal':2}", .trainer = "{'max_steps':6}"};
    CHECK_OK(train_begin(&k, &s));
    CHECK_STATUS(peft_trainer_run(k.t), PEFT_E_INVALID);
    CHECK_ERROR_HAS("adapter \"x\": of 6 steps of the run, tinit 4 and tfinal 2 leave none to prune in");
    train_end(&k);
}
