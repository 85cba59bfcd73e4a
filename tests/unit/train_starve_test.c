/* train_starve_test.c - each allocation of a trainer's life fails once: the call says so, and the same call then works. */
#include "train_kit.h"

typedef struct starve_life { /* the calls of a trainer's life, in order */
    train_kit *k;
    const char *dir;
    peft_options *trainer, *optimizer;
} starve_life;

enum { STARVE_CALLS = 8 };

static peft_status starve_call(starve_life *l, int which) {
    char text[8192];
    train_kit *k = l->k;
    switch (which) {
        case 0: return peft_trainer_create(k->a, l->trainer, &k->t);
        case 1: return peft_trainer_add_job(k->t, "x", k->train, k->eval, l->optimizer);
        case 2: return peft_trainer_plan_json(k->t, text, sizeof text, NULL);
        case 3: return peft_trainer_run(k->t);
        case 4: return peft_trainer_evaluate(k->t, k->train, text, sizeof text, NULL);
        case 5: return peft_trainer_checkpoint_save(k->t, l->dir);
        case 6: return peft_trainer_checkpoint_load(k->t, l->dir);
        default: return peft_adapters_save(k->a, "x", l->dir, NULL);
    }
}

/* One life in which allocation n fails (0: none): false at the first thing that is not as it should be. *calls: how many
 * allocations it took. */
static bool starve_once(const train_spec *s, const char *dir, size_t n, peft__real **values, size_t *calls, bool *met) {
    train_kit k;
    starve_life l = {&k, dir, NULL, NULL};
    bool ok = train_prepare(&k, s) == PEFT_OK && api_options(k.ctx, "trainer", s->trainer, &l.trainer) == PEFT_OK &&
              api_options(k.ctx, "optimizer", "{'learning_rate':0.01}", &l.optimizer) == PEFT_OK;
    *met = false;
    peft__mem_fail_after(&k.ctx->mem, n, false);
    for (int i = 0; ok && i < STARVE_CALLS; i++) {
        peft_status st = starve_call(&l, i);
        if (st == PEFT_E_NOMEM && n > 0 && !*met) {
            *met = true; /* the one that fails has failed: once more */
            ok = i != 0 || k.t == NULL;
            st = ok ? starve_call(&l, i) : st;
        }
        ok = ok && st == PEFT_OK;
        if (!ok) { printf("  call %d, allocation %zu: status %d, \"%s\"\n", i, n, (int)st, peft_last_error()); }
    }
    *calls = atomic_load(&k.ctx->mem.calls);
    if (ok && *values == NULL) { *values = train_copy(&k); }
    if (ok && memcmp(train_values(&k), *values, train_bytes(&k)) != 0) {
        printf("  allocation %zu: other values\n", n);
        ok = false;
    }
    peft_options_free(l.trainer);
    peft_options_free(l.optimizer);
    train_end(&k);
    if (ok && k.host.now != 0) {
        printf("  allocation %zu: %zu bytes were not freed\n", n, k.host.now);
        ok = false;
    }
    return ok;
}

static void starve_all(const train_spec *s) {
    peft__real *values = NULL;
    const char *dir = runner_tmpdir();
    size_t calls = 0, again = 0, unmet = 0;
    bool met = false;
    CHECK(starve_once(s, dir, 0, &values, &calls, &met));
    CHECK(calls > 50);
    for (size_t n = 1; n <= calls; n++) {
        CHECK(starve_once(s, dir, n, &values, &again, &met));
        unmet += !met;
    }
    CHECK(unmet <= calls / 20); /* a few allocations are no loss: what they were for has another way */
    free(values);
}

TEST(train_starve_lora) {
    train_spec s = {.trainer = "{'max_steps':3,'batch_size':4,'eval_steps':1,'load_best_model_at_end':true}",
                    .eval = true};
    starve_all(&s);
}
TEST(train_starve_full_gpt2) {
    train_spec s = {.config = API_GPT2, .method = "full", .trainer = "{'max_steps':2,'batch_size':4}", .threads = 2};
    starve_all(&s);
}
