/* train_bits_test.c - what a run's bits do not depend on: a host's threads, in whatever order they come; and counters that outgrow
 * 32 bits. Threads of the library's own are train_trainer_test.c's, recomputation is train_memory_test.c's. */
#include "train_kit.h"

/* All bodies on the calling thread, the last first, for workers that take turns. */
static void bits_backwards(void *user, int64_t n, int32_t workers, void (*body)(void *arg, int64_t i, int32_t worker), void *arg) {
    *(int64_t *)user += n;
    for (int64_t i = n - 1; i >= 0; i--) { body(arg, i, (int32_t)(i % workers)); }
}

#if !defined(PEFT_NO_THREADS)
typedef struct bits_share {
    void (*body)(void *arg, int64_t i, int32_t worker);
    void *arg;
    int64_t n;
    int32_t worker, workers;
} bits_share;

static void bits_work(void *p) {
    const bits_share *s = p;
    for (int64_t i = s->worker; i < s->n; i += s->workers) { s->body(s->arg, i, s->worker); }
}

/* A thread a worker, made anew for each loop. */
static void bits_threads(void *user, int64_t n, int32_t workers, void (*body)(void *arg, int64_t i, int32_t worker), void *arg) {
    bits_share shares[8];
    peft__sys_thread threads[8];
    *(int64_t *)user += n;
    for (int32_t w = 1; w < workers; w++) {
        shares[w] = (bits_share){body, arg, n, w, workers};
        CHECK(peft__sys_thread_start(&threads[w], (size_t)256 << 10, bits_work, &shares[w]));
    }
    shares[0] = (bits_share){body, arg, n, 0, workers};
    bits_work(&shares[0]);
    for (int32_t w = 1; w < workers; w++) { peft__sys_thread_join(&threads[w]); }
}

#else
#define bits_threads bits_backwards
#endif

static void bits_on_host(peft_parallel_for_fn fn, const train_spec *spec) {
    train_kit k;
    peft__real *own = NULL;
    train_log log;
    int64_t bodies = 0;
    CHECK_OK(train_whole(spec, &own, &log));
    CHECK_OK(train_prepare(&k, spec));
    CHECK_OK(peft_context_set_parallel_for(k.ctx, fn, &bodies));
    CHECK_OK(train_job(&k, spec));
    CHECK_OK(peft_trainer_run(k.t));
    CHECK(bodies > 100);
    CHECK_MEM(train_values(&k), own, train_bytes(&k));
    CHECK_MEM(k.log.loss, log.loss, sizeof log.loss);
    free(own);
    train_end(&k);
}

TEST(train_bits_on_a_hosts_threads) {
    train_spec s = {.threads = 3, .trainer = "{'max_steps':4,'batch_size':4}", .adapter = "{'target_modules':'all-linear'}"};
    train_spec whole = {.threads = 7, .config = API_GPT2, .method = "full", .trainer = "{'max_steps':3,'batch_size':4}"};
    bits_on_host(bits_backwards, &s);
    bits_on_host(bits_threads, &s);
    bits_on_host(bits_backwards, &whole);
    bits_on_host(bits_threads, &whole);
}

#define BITS_STEP ((int64_t)1 << 31)

TEST(train_steps_beyond_two_to_the_31) {
    static const char how[] = "{'max_steps':2147483652,'batch_size':4}";
    train_spec s = {.trainer = how, .optimizer = "{'learning_rate':0.01,'lr_scheduler_type':'cosine','lr_min_ratio':0.5}"};
    train_kit k;
    peft__real *ends = NULL;
    const char *dir = runner_tmpdir();
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(peft__trainer_plan(k.t));
    k.t->step = peft__trainer_member(k.t, train_the_job(&k), 0)->optim.step = BITS_STEP - 2;
    int32_t more = 0;
    for (int i = 0; i < 3; i++) { CHECK_OK(peft_trainer_step(k.t, &more)); }
    CHECK_INT(k.t->step, BITS_STEP + 1);
    CHECK_INT(more, 1);
    CHECK_OK(peft_trainer_checkpoint_save(k.t, dir));
    CHECK_OK(peft_trainer_run(k.t));
    CHECK_INT(k.t->step, BITS_STEP + 4);
    CHECK_INT(k.log.n, 6);
    for (int64_t i = 0; i < k.log.n; i++) {
        CHECK(isfinite(k.log.loss[i]) && k.log.loss[i] > 0);
        CHECK_NEAR(k.log.rate[i], 0.005, 1e-9); /* all but the end of a cosine */
    }
    ends = train_copy(&k);
    peft_trainer_free(k.t);
    k.t = NULL;
    CHECK_OK(train_job(&k, &s));
    CHECK_OK(peft_trainer_checkpoint_load(k.t, dir));
    CHECK_OK(peft_trainer_run(k.t));
    CHECK_INT(k.t->step, BITS_STEP + 4);
    CHECK_MEM(train_values(&k), ends, train_bytes(&k));
    free(ends);
    train_end(&k);
}
