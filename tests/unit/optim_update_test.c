/* optim_update_test.c - AdamW, SGD and Lion against their formulas in plain double, clipping, and the same bits on all threads. */
#include <math.h>
#include <stdlib.h>

#include "optim/optim.h"
#include "runner.h"

enum { OPTIM_STEPS = 20 };

typedef struct optim_kit {
    peft__mem *mem;
    peft__pool *pool;
    peft__run run;
    peft__optset opts;
    peft__optim o;
    peft__real *params, *grads; /* [n] */
    int64_t n;
} optim_kit;

/* options: key, value, key, value, NULL. */
static peft_status optim_begin(optim_kit *k, const char *isa, int32_t threads, int64_t n, const char *const *options,
                               int64_t total) {
    peft_status st = PEFT_OK;
    peft__rng rng = {99, 0};
    memset(k, 0, sizeof *k);
    k->mem = runner_mem();
    k->n = n;
    TRY(peft__kernels_find(isa, &k->run.k));
    TRY(peft__pool_create(k->mem, threads, &k->pool));
    k->run.pool = k->pool;
    k->run.workers = threads;
    k->run.scratch_size = 4096;
    k->run.scratch = peft__alloc(k->mem, 4096 * (size_t)threads);
    k->params = peft__alloc(k->mem, (size_t)n * sizeof(peft__real));
    k->grads = peft__alloc(k->mem, (size_t)n * sizeof(peft__real));
    for (int64_t i = 0; i < n; i++) { k->params[i] = PEFT__R(peft__rng_normal(&rng)); }
    TRY(peft__optset_init(&k->opts, k->mem, &peft__schema_optimizer));
    for (; options[0] != NULL; options += 2) { TRY(peft__opt_set_text(&k->opts, options[0], options[1])); }
    TRY(peft__optim_create(&k->o, k->mem, &k->opts, 2e-4, k->params, k->grads, n, total));
out:
    return st;
}

static void optim_end(optim_kit *k) {
    peft__optim_free(&k->o);
    peft__optset_free(&k->opts);
    peft__free(k->mem, k->params, (size_t)k->n * sizeof(peft__real));
    peft__free(k->mem, k->grads, (size_t)k->n * sizeof(peft__real));
    peft__free(k->mem, k->run.scratch, 4096 * (size_t)k->run.workers);
    peft__pool_free(k->pool);
}

static void optim_gradient(optim_kit *k, int64_t step) {
    peft__rng rng = {1234 + (uint64_t)step, 0};
    for (int64_t i = 0; i < k->n; i++) { k->grads[i] = PEFT__R(0.5 * peft__rng_normal(&rng)); }
}

typedef struct optim_plain { /* one parameter in double */
    double p, m, v;
} optim_plain;

static void optim_plain_step(const optim_kit *k, const char *kind, optim_plain *x, double g, int64_t t, double lr) {
    const peft__optim *o = &k->o;
    if (strcmp(kind, "adamw") == 0) {
        x->p -= lr * o->weight_decay * x->p;
        x->m = o->beta1 * x->m + (1 - o->beta1) * g;
        x->v = o->beta2 * x->v + (1 - o->beta2) * g * g;
        double m = x->m / (1 - pow(o->beta1, (double)t)), v = x->v / (1 - pow(o->beta2, (double)t));
        x->p -= lr * m / (sqrt(v) + o->epsilon);
    } else if (strcmp(kind, "sgd") == 0) {
        x->p -= lr * o->weight_decay * x->p;
        x->m = o->momentum * x->m + g;
        x->p -= lr * x->m;
    } else {
        double u = o->beta1 * x->m + (1 - o->beta1) * g;
        x->p -= lr * ((u > 0) - (u < 0) + o->weight_decay * x->p);
        x->m = o->beta2 * x->m + (1 - o->beta2) * g;
    }
}

/* 20 steps of random gradients, gscale 1/3 and the linear schedule. */
static void optim_agrees(const char *kind, const char *isa, const char *const *options) {
    enum { N = 1003 };
    optim_kit k;
    optim_plain plain[N];
    CHECK_OK(optim_begin(&k, isa, 1, N, options, 30));
    CHECK_STR(k.o.kind->name, kind);
    for (int i = 0; i < N; i++) { plain[i] = (optim_plain){(double)k.params[i], 0, 0}; }
    for (int64_t step = 0; step < OPTIM_STEPS; step++) {
        optim_gradient(&k, step);
        double lr = k.o.learning_rate * (1 - (double)step / 30), norm = peft__optim_grad_norm(&k.o, &k.run, 1.0 / 3),
               sum = 0;
        for (int i = 0; i < N; i++) { sum += (double)k.grads[i] * (double)k.grads[i]; }
        CHECK_NEAR(norm, sqrt(sum) / 3, 1e-9 * norm);
        double scale = k.o.max_grad_norm > 0 ? fmin(1, k.o.max_grad_norm / (norm + 1e-6)) / 3 : 1.0 / 3;
        for (int i = 0; i < N; i++) { optim_plain_step(&k, kind, &plain[i], scale * (double)k.grads[i], step + 1, lr); }
        peft__optim_step(&k.o, &k.run, 1.0 / 3, norm);
        CHECK_INT(k.o.step, step + 1);
    }
    double worst = 0;
    int64_t off = 0;
    for (int i = 0; i < N; i++) {
        double gap = fabs((double)k.params[i] - plain[i].p);
        worst = fmax(worst, gap);
        off += gap > 1e-4;
    }
    if (strcmp(kind, "lion") == 0) { /* a sum near 0 may have the other sign in float: a step of another direction */
        CHECK(off <= N / 200);
    } else {
        CHECK_NEAR(worst, 0, 5e-6);
    }
    optim_end(&k);
}

#define OPTIM_EACH_ISA(kind, ...)                                                    \
    do {                                                                             \
        static const char *const options[] = {"optimizer", kind, __VA_ARGS__, NULL}; \
        const peft__kernels *table;                                                  \
        const char *const isas[] = {"generic", "neon", "avx2", "avx512"};            \
        for (size_t isa = 0; isa < PEFT__COUNT(isas); isa++) {                       \
            if (peft__kernels_find(isas[isa], &table) != PEFT_OK) { continue; }      \
            optim_agrees(kind, isas[isa], options);                                  \
        }                                                                            \
    } while (0)

TEST(optim_adamw) {
    OPTIM_EACH_ISA("adamw", "learning_rate", "0.01", "weight_decay", "0.1", "max_grad_norm", "0");
}
TEST(optim_adamw_clipped) {
    OPTIM_EACH_ISA("adamw", "learning_rate", "0.02", "adam_beta1", "0.8", "adam_beta2", "0.95", "adam_epsilon", "1e-4");
}
TEST(optim_sgd) {
    OPTIM_EACH_ISA("sgd", "learning_rate", "0.05", "max_grad_norm", "0");
}
TEST(optim_sgd_momentum) {
    OPTIM_EACH_ISA("sgd", "learning_rate", "0.05", "momentum", "0.9", "weight_decay", "0.2", "max_grad_norm", "0.7");
}
TEST(optim_lion) {
    OPTIM_EACH_ISA("lion", "learning_rate", "0.003", "weight_decay", "0.5", "adam_beta2", "0.99");
}

/* The first AdamW step is lr * sign(g), whatever the gradient's size. */
TEST(optim_adamw_first_step) {
    static const char *const options[] = {"learning_rate", "0.125", "max_grad_norm", "0", "lr_scheduler_type",
                                          "constant",      NULL};
    optim_kit k;
    CHECK_OK(optim_begin(&k, "generic", 1, 4, options, 10));
    const peft__real g[4] = {PEFT__R(1e-3), PEFT__R(-50), 0, PEFT__R(2)};
    memcpy(k.grads, g, sizeof g);
    memset(k.params, 0, sizeof g);
    peft__optim_step(&k.o, &k.run, 1, peft__optim_grad_norm(&k.o, &k.run, 1));
    CHECK_NEAR(k.params[0], -0.125, 1e-5);
    CHECK_NEAR(k.params[1], 0.125, 1e-6);
    CHECK(k.params[2] == 0);
    CHECK_NEAR(k.params[3], -0.125, 1e-6);
    optim_end(&k);
}

/* Clipping as torch.nn.utils.clip_grad_norm_: SGD with rate 1 shows the gradient that was used. */
TEST(optim_clips_like_torch) {
    static const char *const limit[] = {"optimizer", "sgd", "learning_rate", "1", "max_grad_norm", "2", NULL};
    static const char *const never[] = {"optimizer", "sgd", "learning_rate", "1", "max_grad_norm", "0", NULL};
    const peft__real g[2] = {6, 8};
    for (int i = 0; i < 3; i++) {
        optim_kit k;
        CHECK_OK(optim_begin(&k, "generic", 1, 2, i == 2 ? never : limit, 0));
        memset(k.params, 0, sizeof g);
        memcpy(k.grads, g, sizeof g);
        double gscale = i == 1 ? 0.1 : 1, norm = peft__optim_grad_norm(&k.o, &k.run, gscale);
        CHECK_NEAR(norm, 10 * gscale, 1e-12);
        peft__optim_step(&k.o, &k.run, gscale, norm);
        double factor = i == 0 ? 2 / (10 + 1e-6) : gscale; /* a norm of 1 is below the limit */
        CHECK_NEAR(k.params[0], -6 * factor, 1e-6);
        CHECK_NEAR(k.params[1], -8 * factor, 1e-6);
        optim_end(&k);
    }
}

/* More pieces than the loop's 32768 elements, and more than a worker's scratch has sums for. */
TEST(optim_threads_make_the_same_bits) {
    enum { N = (1 << 15) * 5 + 17 };
    static const char *const kinds[] = {"adamw", "sgd", "lion"};
    for (size_t kind = 0; kind < PEFT__COUNT(kinds); kind++) {
        const char *const options[] = {"optimizer", kinds[kind], "learning_rate", "0.01", "momentum", "0.5", NULL};
        peft__real *first = NULL;
        double norms[3];
        for (int i = 0; i < 3; i++) {
            optim_kit k;
            CHECK_OK(optim_begin(&k, "auto", 1 << i, N, options, 10));
            for (int64_t step = 0; step < 3; step++) {
                optim_gradient(&k, step);
                norms[i] = peft__optim_grad_norm(&k.o, &k.run, 1);
                peft__optim_step(&k.o, &k.run, 1, norms[i]);
            }
            size_t whole = k.run.scratch_size;
            k.run.scratch_size = 8; /* room for one sum only: the same number all the same */
            CHECK(peft__optim_grad_norm(&k.o, &k.run, 1) == norms[i]);
            k.run.scratch_size = whole;
            if (i == 0) {
                first = malloc(N * sizeof *first);
                CHECK(first != NULL);
                memcpy(first, k.params, N * sizeof *first);
            }
            CHECK_MEM(k.params, first, N * sizeof *first);
            CHECK(norms[i] == norms[0]);
            optim_end(&k);
        }
        free(first);
    }
}

TEST(optim_registry) {
    CHECK_STR(peft__optim_at(0)->name, "adamw");
    CHECK_STR(peft__optim_at(1)->name, "sgd");
    CHECK_STR(peft__optim_at(2)->name, "lion");
    CHECK(peft__optim_at(3) == NULL);
    CHECK_INT(peft__optim_bytes(peft__optim_at(0), 100), 2 * 100 * sizeof(peft__real));
    CHECK_INT(peft__optim_bytes(peft__optim_at(2), 100), 100 * sizeof(peft__real));
}

/* Values that would divide by zero are out of range. */
TEST(optim_option_ranges) {
    peft__mem *mem = runner_mem();
    peft__optset o;
    CHECK_OK(peft__optset_init(&o, mem, &peft__schema_optimizer));
    CHECK_STATUS(peft__opt_set_float(&o, "adam_beta1", 1), PEFT_E_KEY);
    CHECK_STATUS(peft__opt_set_float(&o, "adam_beta2", 1), PEFT_E_KEY);
    CHECK_STATUS(peft__opt_set_float(&o, "adam_epsilon", 0), PEFT_E_KEY);
    CHECK_ERROR_HAS("adam_epsilon");
    CHECK_STATUS(peft__opt_set_float(&o, "learning_rate", -1), PEFT_E_KEY);
    CHECK_STATUS(peft__opt_set_str(&o, "optimizer", "adam"), PEFT_E_KEY);
    CHECK_ERROR_HAS("adamw");
    peft__optset_free(&o);
}

TEST(optim_without_memory) {
    peft__mem *mem = runner_mem();
    peft__optset o;
    peft__optim x;
    peft__real p[8] = {0}, g[8] = {0};
    CHECK_OK(peft__optset_init(&o, mem, &peft__schema_optimizer));
    size_t before = atomic_load(&mem->now);
    for (size_t n = 1; n <= 2; n++) {
        peft__mem_fail_after(mem, n, false);
        CHECK_STATUS(peft__optim_create(&x, mem, &o, 1e-3, p, g, 8, 10), PEFT_E_NOMEM);
        CHECK_INT(atomic_load(&mem->now), before);
    }
    peft__mem_fail_after(mem, 0, false);
    peft__optset_free(&o);
}
