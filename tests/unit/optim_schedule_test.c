/* optim_schedule_test.c - learning rates against the closed formulas of transformers.get_scheduler. */
#include <math.h>

#include "optim/optim.h"
#include "runner.h"

static peft_status schedule_begin(peft__mem *mem, peft__optset *o, peft__optim *x, const char *const *options,
                                  int64_t total) {
    static peft__real p[1], g[1];
    peft_status st = PEFT_OK;
    TRY(peft__optset_init(o, mem, &peft__schema_optimizer));
    for (; options[0] != NULL; options += 2) { TRY(peft__opt_set_text(o, options[0], options[1])); }
    TRY(peft__optim_create(x, mem, o, 2e-4, p, g, 1, total));
out:
    return st;
}

static void schedule_end(peft__optset *o, peft__optim *x) {
    peft__optim_free(x);
    peft__optset_free(o);
}

static double schedule_formula(const char *type, double step, double warm, double total) {
    double pi = 3.14159265358979323846;
    if (step < warm) { return step / fmax(1, warm); }
    if (strcmp(type, "linear") == 0) { return fmax(0, (total - step) / fmax(1, total - warm)); }
    if (strcmp(type, "cosine") == 0) { return fmax(0, 0.5 * (1 + cos(pi * (step - warm) / fmax(1, total - warm)))); }
    return 1;
}

static void schedule_agrees(const char *type, const char *warmup, double warm) {
    peft__mem *mem = runner_mem();
    peft__optset o;
    peft__optim x;
    const char *const options[] = {"learning_rate", "0.5", "lr_scheduler_type", type, "warmup_steps", warmup, NULL};
    CHECK_OK(schedule_begin(mem, &o, &x, options, 100));
    for (int64_t step = 0; step <= 100; step++) {
        CHECK_NEAR(peft__optim_rate(&x, step), 0.5 * schedule_formula(type, (double)step, warm, 100), 1e-14);
    }
    schedule_end(&o, &x);
}

TEST(optim_schedule_linear) {
    schedule_agrees("linear", "0", 0);
}
TEST(optim_schedule_linear_warmup) {
    schedule_agrees("linear", "10", 10);
}
TEST(optim_schedule_cosine) {
    schedule_agrees("cosine", "0", 0);
}
TEST(optim_schedule_cosine_warmup) {
    schedule_agrees("cosine", "25", 25);
}
TEST(optim_schedule_constant) {
    schedule_agrees("constant", "0", 0);
}
TEST(optim_schedule_constant_with_warmup) {
    schedule_agrees("constant_with_warmup", "7", 7);
}
TEST(optim_schedule_all_warmup) {
    schedule_agrees("linear", "100", 100);
}

/* get_polynomial_decay_schedule_with_warmup: (lr - end) (1 - progress)^power + end; its end of 1e-7 is lr_min_ratio = end / lr. */
TEST(optim_schedule_polynomial) {
    peft__mem *mem = runner_mem();
    peft__optset o;
    peft__optim x;
    const char *const options[] = {"learning_rate",
                                   "0.5",
                                   "lr_scheduler_type",
                                   "polynomial",
                                   "warmup_steps",
                                   "20",
                                   "lr_power",
                                   "2",
                                   "lr_min_ratio",
                                   "2e-7",
                                   NULL};
    CHECK_OK(schedule_begin(mem, &o, &x, options, 100));
    for (int64_t step = 0; step <= 120; step++) {
        double end = 1e-7, left = 1 - ((double)step - 20) / 80, wanted = (0.5 - end) * left * left + end;
        if (step < 20) { wanted = 0.5 * (double)step / 20; }
        if (step > 100) { wanted = end; }
        CHECK_NEAR(peft__optim_rate(&x, step), wanted, 1e-14);
    }
    schedule_end(&o, &x);
}

TEST(optim_schedule_warmup_ratio) {
    peft__mem *mem = runner_mem();
    peft__optset o;
    peft__optim x;
    const char *const ratio[] = {"learning_rate", "1", "warmup_ratio", "0.25", NULL};
    CHECK_OK(schedule_begin(mem, &o, &x, ratio, 10)); /* ceil(2.5) */
    CHECK_INT(x.warmup_steps, 3);
    CHECK_NEAR(peft__optim_rate(&x, 2), 2.0 / 3, 1e-15);
    CHECK_NEAR(peft__optim_rate(&x, 3), 1, 1e-15);
    schedule_end(&o, &x);
    const char *const both[] = {"learning_rate", "1", "warmup_ratio", "0.25", "warmup_steps", "5", NULL};
    CHECK_OK(schedule_begin(mem, &o, &x, both, 10));
    CHECK_INT(x.warmup_steps, 5);
    schedule_end(&o, &x);
}

/* 0 is the method's own default. Without a known end the rate stays where warm-up leaves it. */
TEST(optim_schedule_defaults) {
    peft__mem *mem = runner_mem();
    peft__optset o;
    peft__optim x;
    const char *const none[] = {"warmup_steps", "4", NULL};
    CHECK_OK(schedule_begin(mem, &o, &x, none, 0));
    CHECK_NEAR(x.learning_rate, 2e-4, 0);
    CHECK_NEAR(peft__optim_rate(&x, 1), 5e-5, 1e-18);
    CHECK_NEAR(peft__optim_rate(&x, 4), 2e-4, 0);
    CHECK_NEAR(peft__optim_rate(&x, 100000), 2e-4, 0);
    schedule_end(&o, &x);
}
