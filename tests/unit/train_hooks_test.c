/* train_hooks_test.c - what the host adds to a trainer's steps: a loss of its own, and sums over several processes. */
#include "train_kit.h"

#define HOOKS_BERT                                                                                                              \
    "{\"model_type\":\"bert\",\"architectures\":[\"BertForSequenceClassification\"],\"hidden_size\":16,\"num_hidden_layers\":1," \
    "\"num_attention_heads\":2,\"intermediate_size\":24,\"vocab_size\":14,\"max_position_embeddings\":48,\"type_vocab_size\":2," \
    "\"hidden_act\":\"gelu\",\"layer_norm_eps\":1e-12,\"pad_token_id\":0,\"id2label\":{\"0\":\"a\",\"1\":\"b\",\"2\":\"c\"}}"

/* ---- a loss of the host's ------------------------------------------------------------------------------------------------------- */

typedef struct hooks_seen { /* what the callback was given */
    int64_t rows, calls, columns, last_row;
    uint64_t keys;           /* bit i: a row of key i */
    int32_t answer;
    char job[32];
} hooks_seen;

/* Cross-entropy, as the task itself has it. */
static int32_t hooks_entropy(void *user, const peft_loss_chunk *c, double *loss, double *weight) {
    hooks_seen *seen = user;
    double sum = 0, labelled = 0;
    seen->calls++;
    seen->rows += c->rows;
    seen->columns = c->columns;
    (void)snprintf(seen->job, sizeof seen->job, "%s", c->job);
    for (int64_t r = 0; r < c->rows; r++) {
        float *v = c->values + r * c->columns;
        double top = -HUGE_VAL, all = 0;
        seen->keys |= c->data_rows[r] < 64 ? 1ULL << c->data_rows[r] : 0;
        seen->last_row = c->batch_rows[r];
        for (int64_t j = 0; j < c->columns; j++) { top = fmax(top, (double)v[j]); }
        for (int64_t j = 0; j < c->columns; j++) { all += exp((double)v[j] - top); }
        double lse = top + log(all);
        if (c->labels[r] >= 0) {
            sum += lse - (double)v[c->labels[r]];
            labelled++;
        }
        for (int64_t j = 0; j < c->columns; j++) {
            v[j] = c->labels[r] < 0 ? 0 : (float)(exp((double)v[j] - lse) - (j == c->labels[r] ? 1 : 0));
        }
    }
    *loss = sum;
    *weight = labelled;
    return seen->answer;
}

/* Rows of a classification in place of a language model's. */
static peft_status hooks_classes(train_kit *k) {
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    peft_dataset_free(k->train);
    k->train = NULL;
    TRY(api_options(k->ctx, "dataset", "{'task':'sequence_classification'}", &o));
    TRY(peft_dataset_create(k->ctx, NULL, o, &k->train));
    for (int i = 0; i < 7; i++) {
        char row[96];
        (void)snprintf(row, sizeof row, "{\"input_ids\":[%d,%d,%d],\"label\":%d}", i, 13 - i, 2 * i % 14, i % 3);
        TRY(peft_dataset_add_json(k->train, row, strlen(row)));
    }
out:
    peft_options_free(o);
    return st;
}

static peft_status hooks_run(train_kit *k, bool classes, hooks_seen *seen) {
    train_spec s = {.config = classes ? HOOKS_BERT : NULL, .trainer = "{'max_steps':4,'batch_size':3}"};
    peft_status st = PEFT_OK;
    TRY(train_prepare(k, &s));
    if (classes) { TRY(hooks_classes(k)); }
    TRY(train_job(k, &s));
    if (seen != NULL) { TRY(peft_trainer_set_loss(k->t, hooks_entropy, seen)); }
    st = peft_trainer_run(k->t);
out:
    return st;
}

static void hooks_same(bool classes, int64_t columns) {
    train_kit own, host;
    hooks_seen seen = {0};
    CHECK_OK(hooks_run(&own, classes, NULL));
    CHECK_OK(hooks_run(&host, classes, &seen));
    CHECK_INT(seen.columns, columns);
    CHECK_STR(seen.job, "x");
    CHECK(seen.calls >= 4 && seen.rows >= 10 && seen.keys != 0 && seen.last_row < 3);
    for (int64_t i = 0; i < 4; i++) { CHECK_NEAR(host.log.loss[i], own.log.loss[i], 1e-6); }
    const peft__real *a = train_values(&own), *b = train_values(&host);
    double most = 0;
    for (size_t i = 0; i < train_bytes(&own) / sizeof *a; i++) { most = fmax(most, fabs((double)a[i] - (double)b[i])); }
    CHECK_NEAR(most, 0, 2e-5);
    train_end(&own);
    train_end(&host);
    CHECK_INT(host.host.now, 0);
}

TEST(train_hooks_loss_of_tokens) { hooks_same(false, API_VOCAB); }
TEST(train_hooks_loss_of_rows) { hooks_same(true, 3); }

TEST(train_hooks_loss_fails) {
    train_kit k;
    hooks_seen seen = {.answer = 1};
    CHECK_STATUS(hooks_run(&k, false, &seen), PEFT_E_CALLBACK);
    CHECK_ERROR_HAS("the loss callback ended step 1");
    CHECK_INT(k.t->step, 0);
    seen.answer = 0;
    CHECK_OK(peft_trainer_run(k.t));
    CHECK_INT(k.t->step, 4);
    train_end(&k);
    CHECK_INT(k.host.now, 0);
}

/* ---- several processes ------------------------------------------------------------------------------------------------------- */

TEST(train_hooks_ranks_refused) {
    train_kit k;
    train_spec s = {0};
    CHECK_OK(train_begin(&k, &s));
    CHECK_STATUS(peft_trainer_set_all_reduce(k.t, 2, 2, NULL, NULL), PEFT_E_INVALID);
    CHECK_ERROR_HAS("process 2 of 2");
    CHECK_STATUS(peft_trainer_set_all_reduce(k.t, 0, 2, NULL, NULL), PEFT_E_INVALID);
    CHECK_ERROR_HAS("fn is NULL");
    CHECK_OK(peft_trainer_set_all_reduce(k.t, 0, 1, NULL, NULL));
    CHECK_OK(peft_trainer_run(k.t));
    CHECK_STATUS(peft_trainer_set_all_reduce(k.t, 0, 1, NULL, NULL), PEFT_E_BUSY);
    train_end(&k);
    CHECK_INT(k.host.now, 0);
}

#if !defined(PEFT_NO_THREADS)

enum { HOOKS_RANKS = 4, HOOKS_ROOM = 1 << 14 };

typedef struct hooks_world { /* threads that stand in for processes */
    int32_t size;
    atomic_int arrived, round;
    float *given[HOOKS_RANKS], sum[HOOKS_ROOM];
    int32_t fail_at;         /* this call fails in all; 0: none */
} hooks_world;

typedef struct hooks_rank {
    hooks_world *w;
    int32_t rank, calls;
    const train_spec *spec;
    peft_status status;
    train_kit k;
} hooks_rank;

/* Returns when all are here; the last to come does the work. */
static void hooks_meet(hooks_world *w, size_t n) {
    int round = atomic_load(&w->round);
    if (atomic_fetch_add(&w->arrived, 1) + 1 == w->size) {
        for (size_t i = 0; i < n; i++) {
            float sum = 0;
            for (int32_t r = 0; r < w->size; r++) { sum += w->given[r][i]; }
            w->sum[i] = sum;
        }
        atomic_store(&w->arrived, 0);
        atomic_store(&w->round, round + 1);
    }
    while (atomic_load(&w->round) == round) { peft__sys_yield(); }
}

static int32_t hooks_reduce(void *user, float *values, size_t n) {
    hooks_rank *r = user;
    if (++r->calls == r->w->fail_at || n > HOOKS_ROOM) { return 1; }
    r->w->given[r->rank] = values;
    hooks_meet(r->w, n);
    memcpy(values, r->w->sum, n * sizeof *values);
    hooks_meet(r->w, 0); /* nobody gives anew before all have taken */
    return 0;
}

static void hooks_main(void *arg) {
    hooks_rank *r = arg;
    r->status = train_begin(&r->k, r->spec);
    if (r->status == PEFT_OK) { r->status = peft_trainer_set_all_reduce(r->k.t, r->rank, r->w->size, hooks_reduce, r); }
    if (r->status == PEFT_OK) { r->status = peft_trainer_run(r->k.t); }
}

static void hooks_all(hooks_world *w, hooks_rank *ranks, const train_spec *spec, int32_t size, int32_t fail_at) {
    peft__sys_thread threads[HOOKS_RANKS];
    memset(w, 0, sizeof *w);
    w->size = size;
    w->fail_at = fail_at;
    for (int32_t i = 0; i < size; i++) {
        memset(&ranks[i], 0, sizeof ranks[i]);
        ranks[i].w = w;
        ranks[i].rank = i;
        ranks[i].spec = spec;
        CHECK(peft__sys_thread_start(&threads[i], (size_t)1 << 20, hooks_main, &ranks[i]));
    }
    for (int32_t i = 0; i < size; i++) { peft__sys_thread_join(&threads[i]); }
}

TEST(train_hooks_processes_are_one) {
    static hooks_world w;
    static hooks_rank ranks[HOOKS_RANKS];
    static const char *const trainers[] = {
        "{'max_steps':7,'batch_size':5}", /* 12 rows: an epoch's last batch has fewer than four */
        "{'max_steps':5,'batch_size':2,'gradient_accumulation_steps':3}",
    };
    for (size_t c = 0; c < 2 * PEFT__COUNT(trainers); c++) {
        const train_spec s = {.method = c % 2 == 0 ? "lora" : "adalora", .trainer = trainers[c / 2],
                              .adapter = c % 2 == 0 ? "{'r':2,'lora_dropout':0.1}" : "{'init_r':3,'target_r':2,'tfinal':1}"};
        train_kit one;
        CHECK_OK(train_begin(&one, &s));
        CHECK_OK(peft_trainer_run(one.t));
        for (int32_t size = 2; size <= HOOKS_RANKS; size += 2) {
            hooks_all(&w, ranks, &s, size, 0);
            for (int32_t i = 0; i < size; i++) {
                CHECK_OK(ranks[i].status);
                CHECK_MEM(train_values(&ranks[i].k), train_values(&ranks[0].k), train_bytes(&one));
                CHECK_NEAR(ranks[i].k.log.loss[3], one.log.loss[3], 1e-5);
                CHECK_INT(ranks[i].k.log.tokens[3], one.log.tokens[3]);
            }
            const peft__real *a = train_values(&one), *b = train_values(&ranks[0].k);
            double most = 0;
            for (size_t i = 0; i < train_bytes(&one) / sizeof *a; i++) { most = fmax(most, fabs((double)a[i] - (double)b[i])); }
            CHECK_NEAR(most, 0, 1e-5);
            for (int32_t i = 0; i < size; i++) { train_end(&ranks[i].k); }
        }
        train_end(&one);
    }
}

TEST(train_hooks_all_reduce_fails) {
    static hooks_world w;
    static hooks_rank ranks[HOOKS_RANKS];
    const train_spec s = {0};
    hooks_all(&w, ranks, &s, 2, 4); /* the second call of step 2 */
    for (int32_t i = 0; i < 2; i++) {
        CHECK_STATUS(ranks[i].status, PEFT_E_CALLBACK);
        CHECK_INT(ranks[i].k.t->step, 1);
        CHECK_MEM(train_values(&ranks[i].k), train_values(&ranks[0].k), train_bytes(&ranks[0].k));
    }
    for (int32_t i = 0; i < 2; i++) {
        train_end(&ranks[i].k);
        CHECK_INT(ranks[i].k.host.now, 0);
    }
}

#endif
