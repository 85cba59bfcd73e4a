/* train_kit.h - what tests of train/ share: a tiny model with a trainer on random rows, its log, its parameters. */
#ifndef TRAIN_KIT_H
#define TRAIN_KIT_H


#include "api_kit.h"
#include "train/loop.h"

enum { TRAIN_LOG = 64 };

typedef struct train_log { /* what the progress callback saw */
    int64_t n;
    double loss[TRAIN_LOG], rate[TRAIN_LOG], norm[TRAIN_LOG], eval[TRAIN_LOG], epoch[TRAIN_LOG];
    int64_t tokens[TRAIN_LOG];
    size_t calls[TRAIN_LOG]; /* allocations of the context until then */
    size_t peak;
    peft_context *ctx;
    peft_trainer *cancel;         /* cancelled after step cancel_at; NULL: never */
    int64_t cancel_at, answer_at; /* answer_at: the step at which the callback returns 1; 0: never */
} train_log;

typedef struct train_spec {                                      /* zeros: llama, lora, defaults, 1 thread, 12 rows */
    const char *config, *method, *adapter, *trainer, *optimizer; /* adapter, trainer, optimizer: options with ' for " */
    int32_t threads;
    int64_t rows;
    uint64_t data; /* seed of the rows */
    bool eval;     /* with 5 rows for evaluation */
    bool no_train; /* no training data: the test feeds batches */
    const char *isa;
} train_spec;

typedef struct train_kit {
    api_host host;
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    peft_dataset *train, *eval;
    peft_trainer *t;
    train_log log;
} train_kit;

static int32_t train_note(void *user, const peft_step_info *info) {
    train_log *l = user;
    if (l->n < TRAIN_LOG) {
        l->loss[l->n] = info->loss;
        l->rate[l->n] = info->learning_rate;
        l->norm[l->n] = info->grad_norm;
        l->eval[l->n] = info->eval_loss;
        l->epoch[l->n] = info->epoch;
        l->tokens[l->n] = info->tokens;
        l->calls[l->n] = atomic_load(&l->ctx->mem.calls);
        l->n++;
    }
    l->peak = info->peak_bytes;
    if (l->cancel != NULL && info->step == l->cancel_at) { peft_trainer_cancel(l->cancel); }
    return info->step == l->answer_at;
}

/* Random weights are small; ten times as large they give losses and gradients worth comparing. */
static inline void train_stir(peft_model *model) {
    struct peft_model *m = model;
    for (size_t i = 0; i < m->n_tensors; i++) {
        const peft__model_tensor *t = &m->tensors[i];
        float *data = (float *)(void *)(m->owned + (t->w.data - m->owned));
        for (int64_t k = 0; t->ndim == 2 && k < t->w.rows * t->w.cols; k++) { data[k] *= 10; }
    }
}

/* Rows of 2 to 11 ids; every third token has no label. */
static inline peft_status train_rows(peft_dataset *d, uint64_t seed, int64_t rows) {
    peft_status st = PEFT_OK;
    peft__rng rng = {seed + 77, 0};
    for (int64_t r = 0; r < rows; r++) {
        char text[512];
        int64_t n = 2 + (int64_t)peft__rng_below(&rng, 10), ids[12];
        int at = snprintf(text, sizeof text, "{\"input_ids\":[");
        for (int64_t i = 0; i < n; i++) {
            ids[i] = (int64_t)peft__rng_below(&rng, API_VOCAB);
            at += snprintf(text + at, sizeof text - (size_t)at, "%s%d", i > 0 ? "," : "", (int)ids[i]);
        }
        at += snprintf(text + at, sizeof text - (size_t)at, "],\"labels\":[");
        for (int64_t i = 0; i < n; i++) {
            at += snprintf(text + at, sizeof text - (size_t)at, "%s%d", i > 0 ? "," : "",
                           i % 3 == 2 ? -100 : (int)ids[i]);
        }
        at += snprintf(text + at, sizeof text - (size_t)at, "]}");
        TRY(peft_dataset_add_json(d, text, (size_t)at));
    }
out:
    return st;
}

static inline peft_status train_open(peft_context *ctx, uint64_t seed, int64_t rows, peft_dataset **out) {
    peft_status st = peft_dataset_create(ctx, NULL, NULL, out);
    return st == PEFT_OK ? train_rows(*out, seed, rows) : st;
}

/* Everything but the job. */
static inline peft_status train_prepare(train_kit *k, const train_spec *s) {
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    const char *method = s->method != NULL ? s->method : "lora";
    char schema[64];
    memset(k, 0, sizeof *k);
    TRY(api_context(&k->host, &k->ctx));
    k->log.ctx = k->ctx;
    TRY(peft_context_set_threads(k->ctx, s->threads > 0 ? s->threads : 1));
    if (s->isa != NULL) { TRY(peft_context_set_isa(k->ctx, s->isa)); }
    TRY(api_model(k->ctx, s->config != NULL ? s->config : API_LLAMA, &k->m));
    train_stir(k->m);
    TRY(peft_adapters_create(k->m, &k->a));
    (void)snprintf(schema, sizeof schema, "method:%s", method);
    if (s->adapter != NULL) { TRY(api_options(k->ctx, schema, s->adapter, &o)); }
    TRY(peft_adapters_add(k->a, "x", method, o, 5));
    if (strcmp(method, "lora") == 0) { TRY(api_shake(k->a, "x", 0.1F)); }
    if (!s->no_train) { TRY(train_open(k->ctx, s->data, s->rows > 0 ? s->rows : 12, &k->train)); }
    if (s->eval) { TRY(train_open(k->ctx, 1000, 5, &k->eval)); }
out:
    peft_options_free(o);
    return st;
}

/* A trainer with its job; k->t must be NULL or freed. */
static inline peft_status train_job(train_kit *k, const train_spec *s) {
    peft_status st = PEFT_OK;
    peft_options *o = NULL, *how = NULL;
    TRY(api_options(k->ctx, "trainer", s->trainer != NULL ? s->trainer : "{'max_steps':6,'batch_size':3}", &o));
    TRY(api_options(k->ctx, "optimizer", s->optimizer != NULL ? s->optimizer : "{'learning_rate':0.01}", &how));
    TRY(peft_trainer_create(k->a, o, &k->t));
    TRY(peft_trainer_add_job(k->t, "x", k->train, k->eval, how));
    TRY(peft_trainer_set_progress(k->t, train_note, &k->log));
out:
    peft_options_free(o);
    peft_options_free(how);
    return st;
}

static inline peft_status train_begin(train_kit *k, const train_spec *s) {
    peft_status st = train_prepare(k, s);
    return st == PEFT_OK ? train_job(k, s) : st;
}

static inline void train_end(train_kit *k) {
    peft_trainer_free(k->t);
    peft_dataset_free(k->train);
    peft_dataset_free(k->eval);
    peft_adapters_free(k->a);
    peft_model_free(k->m);
    peft_context_free(k->ctx);
}

static inline peft__job *train_the_job(const train_kit *k) {
    return peft__trainer_job(k->t, 0);
}
static inline peft__real *train_values(const train_kit *k) {
    return peft__trainer_member(k->t, train_the_job(k), 0)->adapter->values;
}
static inline size_t train_bytes(const train_kit *k) {
    return (size_t)peft__trainer_member(k->t, train_the_job(k), 0)->adapter->n_trainable * sizeof(peft__real);
}

/* A copy of the adapter's values, for the caller to free. */
static inline peft__real *train_copy(const train_kit *k) {
    peft__real *p = malloc(train_bytes(k));
    if (p != NULL) { memcpy(p, train_values(k), train_bytes(k)); }
    return p;
}

/* Runs a spec from its start to its end: values (for the caller to free) and log. */
static inline peft_status train_whole(const train_spec *s, peft__real **values, train_log *log) {
    train_kit k;
    peft_status st = train_begin(&k, s);
    if (st == PEFT_OK) { st = peft_trainer_run(k.t); }
    *values = st == PEFT_OK ? train_copy(&k) : NULL;
    if (log != NULL) { *log = k.log; }
    train_end(&k);
    return st;
}

/* Number behind "key": in a JSON text; NAN: not there. */
static inline double train_number(const char *json, const char *key) {
    char name[64];
    (void)snprintf(name, sizeof name, "\"%s\":", key);
    const char *at = strstr(json, name);
    return at != NULL ? strtod(at + strlen(name), NULL) : (double)NAN;
}

#endif
