/* checkpoint.c - everything that a run needs to go on bit for bit, in one file that is replaced atomically:
 *
 *   DIR/state.safetensors
 *     params, <optimiser's states>, best, grads, method    flat vectors, F32; grads where a step is half accumulated; method:
 *                                           what it keeps between steps. Of a job's second adapter "params.1" and so on
 *     __metadata__ "state"                  JSON: version, adapter, method, step, position in the data order, best loss
 *
 * The data order and the dropout masks follow from the seed, the epoch and the step, so no random state is stored. */
#include <math.h>
#include <stdio.h>

#include "train/loop.h"

enum { CHECKPOINT_VERSION = 1, CHECKPOINT_TENSORS = 6 * PEFT__EXPRESSION_MAX };
#define CHECKPOINT_FILE "state.safetensors"

/* What the vectors mean: names, shapes and factors of the adapter's parts. Positive, so that JSON holds it as an integer. */
static uint64_t checkpoint_layout_of(uint64_t h, const peft__adapter *a) {
    for (size_t i = 0; i < peft__adapter_param_count(a); i++) {
        const peft__adapter_param *p = peft__adapter_param_at(a, i);
        h = peft__hash_str(peft__mix64(h ^ (uint64_t)p->p.rows) ^ (uint64_t)p->p.cols, p->p.name, strlen(p->p.name));
    }
    for (size_t i = 0; i < a->attachments.len; i++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, i);
        double factors[2] = {at->scale, at->dropout};
        h = peft__hash_str(h, (const char *)factors, sizeof factors);
    }
    return h;
}

static int64_t checkpoint_layout(const peft__job *job) {
    uint64_t h = 0;
    for (size_t i = 0; i < job->members.len; i++) { h = checkpoint_layout_of(h, peft__trainer_member(job, i)->adapter); }
    return (int64_t)(h >> 2);
}

/* "lora", or "lora, prompt" of several. */
static void checkpoint_methods(const peft__job *job, char *out, size_t cap) {
    out[0] = '\0';
    for (size_t i = 0; i < job->members.len; i++) {
        size_t len = strlen(out);
        (void)snprintf(out + len, cap - len, "%s%s", i > 0 ? ", " : "", peft__trainer_member(job, i)->adapter->method->name);
    }
}

static int64_t checkpoint_data(const struct peft_dataset *d) {
    if (d == NULL) { return 0; }
    uint64_t h = peft__hash_str(peft__dataset_size(d), d->ids.data, d->ids.len * sizeof(int32_t));
    for (size_t i = 0; d->max_task > 0 && i < peft__dataset_size(d); i++) { h = peft__mix64(h ^ (uint64_t)peft__dataset_row(d, i)->task); }
    return (int64_t)(peft__hash_str(h, d->labels.data, d->labels.len * sizeof(int32_t)) >> 2);
}

/* How rows are ordered: 0 as they are, 1 shuffled, 2 and 3 the same in groups of like length, which depend on batch_size. */
static int64_t checkpoint_order(const struct peft_trainer *t) {
    int64_t grouped = peft__opt_bool(&t->opts, "group_by_length"), batch = peft__opt_int(&t->opts, "batch_size");
    return (int64_t)peft__opt_bool(&t->opts, "shuffle") + grouped * (2 + 4 * batch);
}

static void checkpoint_state(const struct peft_trainer *t, const peft__job *job, peft__str *out) {
    peft__json_out j;
    char methods[512];
    const peft__optim *optim = &peft__trainer_member(job, 0)->optim;
    checkpoint_methods(job, methods, sizeof methods);
    peft__json_begin(&j, out, 0);
    peft__json_object(&j);
    peft__json_key(&j, "version");
    peft__json_put_int(&j, CHECKPOINT_VERSION);
    peft__json_key(&j, "adapter");
    peft__json_put_text(&j, job->expression.text);
    peft__json_key(&j, "method");
    peft__json_put_text(&j, methods);
    peft__json_key(&j, "optimizer");
    peft__json_put_text(&j, optim->kind->name);
    struct { const char *key; int64_t value; } ints[] = {
        {"parameters", job->n_trainable}, {"rows", job->train != NULL ? (int64_t)peft__dataset_size(job->train) : 0},
        {"tokens", job->train != NULL ? (int64_t)job->train->ids.len : 0}, {"seed", (int64_t)t->seed}, {"step", t->step},
        {"optimizer_step", optim->step}, {"epoch", job->epoch}, {"position", job->position},
        {"layout", checkpoint_layout(job)}, {"data", checkpoint_data(job->train)}, {"order", checkpoint_order(t)},
        {"accumulated_rows", t->accumulated_rows},
    };
    for (size_t i = 0; i < PEFT__COUNT(ints); i++) {
        peft__json_key(&j, ints[i].key);
        peft__json_put_int(&j, ints[i].value);
    }
    peft__json_key(&j, "best_loss");
    peft__json_put_double(&j, job->best_loss);
    peft__json_key(&j, "accumulated");
    peft__json_put_double(&j, t->accumulated);
    peft__json_key(&j, "accumulated_loss");
    peft__json_put_double(&j, t->accumulated_loss);
    peft__json_object_end(&j);
}

typedef struct checkpoint_tensor { /* a flat vector of a job */
    const char *name;
    peft__real *data;
    int64_t n;
} checkpoint_tensor;

/* The vectors of a job, by name; count in *n. */
static peft_status checkpoint_vectors(peft__job *job, bool best, bool grads, peft__arena *arena, checkpoint_tensor *out, size_t *n) {
    *n = 0;
    for (size_t i = 0; i < job->members.len; i++) {
        peft__member *m = peft__trainer_member(job, i);
        const struct { const char *name; peft__real *data; int64_t n; } all[] = {
            {"params", m->adapter->values, m->adapter->n_trainable},
            {m->optim.kind->state_names[0], m->optim.state[0], m->optim.kind->states > 0 ? m->optim.n : 0},
            {m->optim.kind->state_names[1], m->optim.state[1], m->optim.kind->states > 1 ? m->optim.n : 0},
            {"best", m->best, best ? m->adapter->n_trainable : 0},
            {"grads", m->grads, grads ? m->adapter->n_trainable : 0},
            {"method", m->state, m->n_state},
        };
        for (size_t k = 0; k < PEFT__COUNT(all); k++) {
            if (all[k].n == 0) { continue; }
            char *name = i == 0 ? peft__arena_printf(arena, "%s", all[k].name) : peft__arena_printf(arena, "%s.%zu", all[k].name, i);
            if (name == NULL) { return PEFT_E_NOMEM; }
            out[(*n)++] = (checkpoint_tensor){name, all[k].data, all[k].n};
        }
    }
    return PEFT_OK;
}

static peft_status checkpoint_floats(void *user, void *out, size_t offset, size_t size) {
    const peft__real *data = user;
    float *f = out;
    for (size_t i = 0; i < size / sizeof(float); i++) { f[i] = (float)data[offset / sizeof(float) + i]; }
    return PEFT_OK;
}

peft_status peft__checkpoint_save(struct peft_trainer *t, const char *dir) {
    peft_status st = PEFT_OK;
    peft__mem *mem = &t->ctx->mem;
    peft__arena arena;
    peft__str state;
    checkpoint_tensor vectors[CHECKPOINT_TENSORS];
    peft__io_source tensors[CHECKPOINT_TENSORS];
    char *path = NULL;
    size_t n = 0;
    peft__arena_init(&arena, mem);
    peft__str_init(&state, mem);
    TRY(peft__trainer_plan(t));
    peft__job *job = peft__trainer_job(t);
    bool best = peft__trainer_member(job, 0)->best != NULL && isfinite(job->best_loss);
    TRY(checkpoint_vectors(job, best, t->accumulated_rows > 0, &arena, vectors, &n));
    memset(tensors, 0, sizeof tensors);
    for (size_t i = 0; i < n; i++) {
        tensors[i].name = vectors[i].name;
        tensors[i].dtype = PEFT_DTYPE_F32;
        tensors[i].ndim = 1;
        tensors[i].dims[0] = vectors[i].n;
        tensors[i].produce = checkpoint_floats;
        tensors[i].user = vectors[i].data;
    }
    checkpoint_state(t, job, &state);
    TRY(peft__str_status(&state));
    const char *metadata[] = {"format", "libpeft-checkpoint", "state", peft__str_c(&state), NULL};
    TRY(peft__dir_make(dir));
    TRY(peft__path_join(&arena, dir, CHECKPOINT_FILE, &path));
    TRY(peft__safetensors_write(mem, path, tensors, n, metadata));
out:
    peft__str_free(&state);
    peft__arena_free(&arena);
    return st;
}

typedef struct checkpoint_read { /* what the state says */
    int64_t version, parameters, rows, tokens, seed, step, optimizer_step, epoch, position;
    int64_t layout, data, order, accumulated_rows;
    const char *method, *optimizer;
    double best_loss, accumulated, accumulated_loss;
} checkpoint_read;

static peft_status checkpoint_parse(const peft__json *s, const char *path, checkpoint_read *r) {
    peft_status st = PEFT_OK;
    struct { const char *key; int64_t min; int64_t *out; } ints[] = {
        {"version", 1, &r->version}, {"parameters", 0, &r->parameters}, {"rows", 0, &r->rows}, {"tokens", 0, &r->tokens},
        {"seed", 0, &r->seed}, {"step", 0, &r->step}, {"optimizer_step", 0, &r->optimizer_step}, {"epoch", -1, &r->epoch},
        {"position", 0, &r->position}, {"layout", 0, &r->layout}, {"data", 0, &r->data}, {"order", 0, &r->order},
        {"accumulated_rows", 0, &r->accumulated_rows},
    };
    for (size_t i = 0; i < PEFT__COUNT(ints); i++) {
        if (peft__json_find(s, ints[i].key) == NULL) { FAIL(PEFT_E_FORMAT, "%s: key \"%s\" is missing", path, ints[i].key); }
        TRY(peft__json_int(s, path, ints[i].key, 0, ints[i].min, INT64_MAX, ints[i].out));
        if (r->version > CHECKPOINT_VERSION) { /* the first: another version may have other keys */
            FAIL(PEFT_E_VERSION, "%s: version %lld is newer than this library's %d", path, (long long)r->version,
                 CHECKPOINT_VERSION);
        }
    }
    TRY(peft__json_str(s, path, "method", "", &r->method));
    TRY(peft__json_str(s, path, "optimizer", "", &r->optimizer));
    TRY(peft__json_float(s, path, "best_loss", HUGE_VAL, &r->best_loss));
    TRY(peft__json_float(s, path, "accumulated", 0, &r->accumulated));
    TRY(peft__json_float(s, path, "accumulated_loss", 0, &r->accumulated_loss));
out:
    return st;
}

static peft_status checkpoint_match(const struct peft_trainer *t, const peft__job *job, const checkpoint_read *r,
                                    const char *path) {
    int64_t rows = job->train != NULL ? (int64_t)peft__dataset_size(job->train) : 0;
    int64_t tokens = job->train != NULL ? (int64_t)job->train->ids.len : 0;
    char methods[512];
    const peft__optim *optim = &peft__trainer_member(job, 0)->optim;
    checkpoint_methods(job, methods, sizeof methods);
    if (strcmp(r->method, methods) != 0 || r->parameters != job->n_trainable) {
        return peft__fail(PEFT_E_SHAPE, "%s is of a \"%s\" with %lld parameters, and adapter \"%s\" is a \"%s\" with %lld", path,
                          r->method, (long long)r->parameters, job->expression.text, methods, (long long)job->n_trainable);
    }
    if (r->layout != checkpoint_layout(job)) {
        return peft__fail(PEFT_E_SHAPE, "%s is of another adapter than \"%s\": targets, ranks, scale or dropout differ", path,
                          job->expression.text);
    }
    if (strcmp(r->optimizer, optim->kind->name) != 0) {
        return peft__fail(PEFT_E_SHAPE, "%s was made with optimizer \"%s\", and the job has \"%s\"", path, r->optimizer,
                          optim->kind->name);
    }
    if (r->rows != rows || r->tokens != tokens || r->position > rows) {
        return peft__fail(PEFT_E_SHAPE, "%s was made with data of %lld rows and %lld tokens, and the job has %lld and %lld", path,
                          (long long)r->rows, (long long)r->tokens, (long long)rows, (long long)tokens);
    }
    if (r->data != checkpoint_data(job->train)) {
        return peft__fail(PEFT_E_SHAPE, "%s was made with other data than the job's: the token ids or labels differ", path);
    }
    if (r->order != checkpoint_order(t)) {
        return peft__fail(PEFT_E_SHAPE, "%s was made with other data order: shuffle, group_by_length or, with groups, batch_size "
                          "differs", path);
    }
    if (r->seed != (int64_t)t->seed) {
        return peft__fail(PEFT_E_SHAPE, "%s was made with seed %lld, and the trainer has %lld", path, (long long)r->seed,
                          (long long)t->seed);
    }
    return PEFT_OK;
}

static peft_status checkpoint_vector(const peft__safetensors *file, const char *path, const char *name, int64_t n,
                                     const peft__io_tensor **out) {
    const peft__io_tensor *x = peft__safetensors_find(file, name);
    if (x == NULL || x->dtype != PEFT_DTYPE_F32 || x->ndim != 1 || x->dims[0] != n) {
        return peft__fail(PEFT_E_FORMAT, "%s: tensor \"%s\" is %s, expected F32 [%lld]", path, name,
                          x == NULL ? "missing" : "of another type or shape", (long long)n);
    }
    *out = x;
    return PEFT_OK;
}

peft_status peft__checkpoint_load(struct peft_trainer *t, const char *dir) {
    peft_status st = PEFT_OK;
    peft__arena arena;
    peft__safetensors file;
    checkpoint_read r;
    checkpoint_tensor vectors[CHECKPOINT_TENSORS];
    const peft__io_tensor *found[CHECKPOINT_TENSORS];
    size_t n = 0;
    const peft__json *state = NULL;
    char *path = NULL;
    memset(&file, 0, sizeof file);
    memset(&r, 0, sizeof r);
    peft__arena_init(&arena, &t->ctx->mem);
    TRY(peft__trainer_plan(t));
    peft__job *job = peft__trainer_job(t);
    TRY(peft__path_join(&arena, dir, CHECKPOINT_FILE, &path));
    TRY(peft__safetensors_open(&t->ctx->mem, path, true, &file));
    const peft__json *text = peft__json_find(file.metadata, "state");
    if (text == NULL || text->kind != PEFT__JSON_STRING) { FAIL(PEFT_E_FORMAT, "%s is no checkpoint: it has no state", path); }
    TRY(peft__json_parse(&arena, text->str, text->len, path, &state));
    TRY(checkpoint_parse(state, path, &r));
    TRY(checkpoint_match(t, job, &r, path));
    bool best = peft__trainer_member(job, 0)->best != NULL && isfinite(r.best_loss);
    TRY(checkpoint_vectors(job, best, r.accumulated_rows > 0, &arena, vectors, &n));
    for (size_t i = 0; i < n; i++) { TRY(checkpoint_vector(&file, path, vectors[i].name, vectors[i].n, &found[i])); }
    for (size_t i = 0; i < job->members.len; i++) { /* nothing can fail any more */
        peft__member *m = peft__trainer_member(job, i);
        memset(m->grads, 0, (size_t)m->adapter->n_trainable * sizeof *m->grads);
        m->optim.step = r.optimizer_step;
    }
    for (size_t i = 0; i < n; i++) {
        for (int64_t k = 0; k < vectors[i].n; k++) {
            float v;
            memcpy(&v, found[i]->data + (size_t)k * sizeof v, sizeof v);
            vectors[i].data[k] = (peft__real)v;
        }
    }
    t->accumulated = r.accumulated;
    t->accumulated_rows = r.accumulated_rows;
    t->accumulated_loss = r.accumulated_loss;
    job->best_loss = r.best_loss;
    t->step = r.step;
    job->epoch = -1;
    if (r.epoch >= 0 && job->train != NULL) { peft__order_epoch(t, job, r.epoch); }
    job->position = r.position;
out:
    peft__safetensors_close(&file);
    peft__arena_free(&arena);
    return st;
}
