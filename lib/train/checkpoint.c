/* checkpoint.c - everything that a run needs to go on bit for bit, in one file that is replaced atomically:
 *
 *   DIR/state.safetensors
 *     params, <optimiser's states>, best, grads    flat vectors, F32; grads where a step is half accumulated
 *     __metadata__ "state"                  JSON: version, adapter, method, step, position in the data order, best loss
 *
 * The data order and the dropout masks follow from the seed, the epoch and the step, so no random state is stored. */
#include <math.h>

#include "train/loop.h"

enum { CHECKPOINT_VERSION = 1, CHECKPOINT_TENSORS = 5 };
#define CHECKPOINT_FILE "state.safetensors"

/* What the vectors mean: names, shapes and factors of the adapter's parts. Positive, so that JSON holds it as an integer. */
static int64_t checkpoint_layout(const peft__adapter *a) {
    uint64_t h = 0;
    for (size_t i = 0; i < peft__adapter_param_count(a); i++) {
        const peft__adapter_param *p = peft__adapter_param_at(a, i);
        h = peft__hash_str(peft__mix64(h ^ (uint64_t)p->p.rows) ^ (uint64_t)p->p.cols, p->p.name, strlen(p->p.name));
    }
    for (size_t i = 0; i < a->attachments.len; i++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, i);
        double factors[2] = {at->scale, at->dropout};
        h = peft__hash_str(h, (const char *)factors, sizeof factors);
    }
    return (int64_t)(h >> 2);
}

static int64_t checkpoint_data(const struct peft_dataset *d) {
    if (d == NULL) { return 0; }
    uint64_t h = peft__hash_str(peft__dataset_size(d), d->ids.data, d->ids.len * sizeof(int32_t));
    return (int64_t)(peft__hash_str(h, d->labels.data, d->labels.len * sizeof(int32_t)) >> 2);
}

/* How rows are ordered: 0 as they are, 1 shuffled, 2 and 3 the same in groups of like length, which depend on batch_size. */
static int64_t checkpoint_order(const struct peft_trainer *t) {
    int64_t grouped = peft__opt_bool(&t->opts, "group_by_length"), batch = peft__opt_int(&t->opts, "batch_size");
    return (int64_t)peft__opt_bool(&t->opts, "shuffle") + grouped * (2 + 4 * batch);
}

static void checkpoint_state(const struct peft_trainer *t, const peft__job *job, peft__str *out) {
    peft__json_out j;
    peft__json_begin(&j, out, 0);
    peft__json_object(&j);
    peft__json_key(&j, "version");
    peft__json_put_int(&j, CHECKPOINT_VERSION);
    peft__json_key(&j, "adapter");
    peft__json_put_text(&j, job->adapter->name);
    peft__json_key(&j, "method");
    peft__json_put_text(&j, job->adapter->method->name);
    peft__json_key(&j, "optimizer");
    peft__json_put_text(&j, job->optim.kind->name);
    struct { const char *key; int64_t value; } ints[] = {
        {"parameters", job->adapter->n_trainable}, {"rows", job->train != NULL ? (int64_t)peft__dataset_size(job->train) : 0},
        {"tokens", job->train != NULL ? (int64_t)job->train->ids.len : 0}, {"seed", (int64_t)t->seed}, {"step", t->step},
        {"optimizer_step", job->optim.step}, {"epoch", job->epoch}, {"position", job->position},
        {"layout", checkpoint_layout(job->adapter)}, {"data", checkpoint_data(job->train)}, {"order", checkpoint_order(t)},
        {"accumulated", t->accumulated}, {"accumulated_rows", t->accumulated_rows},
    };
    for (size_t i = 0; i < PEFT__COUNT(ints); i++) {
        peft__json_key(&j, ints[i].key);
        peft__json_put_int(&j, ints[i].value);
    }
    peft__json_key(&j, "best_loss");
    peft__json_put_double(&j, job->best_loss);
    peft__json_key(&j, "accumulated_loss");
    peft__json_put_double(&j, t->accumulated_loss);
    peft__json_object_end(&j);
}

/* The vectors of a job, by name. */
static size_t checkpoint_vectors(peft__job *job, bool best, bool grads, const char **names, peft__real **data) {
    size_t n = 0;
    names[n] = "params";
    data[n++] = job->adapter->values;
    for (int32_t i = 0; i < job->optim.kind->states; i++) {
        names[n] = job->optim.kind->state_names[i];
        data[n++] = job->optim.state[i];
    }
    if (best) {
        names[n] = "best";
        data[n++] = job->best;
    }
    if (grads) {
        names[n] = "grads";
        data[n++] = job->grads;
    }
    return n;
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
    const char *names[CHECKPOINT_TENSORS];
    peft__real *data[CHECKPOINT_TENSORS];
    peft__io_source tensors[CHECKPOINT_TENSORS];
    char *path = NULL;
    peft__arena_init(&arena, mem);
    peft__str_init(&state, mem);
    TRY(peft__trainer_plan(t));
    peft__job *job = peft__trainer_job(t);
    bool best = job->best != NULL && isfinite(job->best_loss);
    size_t n = checkpoint_vectors(job, best, t->accumulated_rows > 0, names, data);
    memset(tensors, 0, sizeof tensors);
    for (size_t i = 0; i < n; i++) {
        tensors[i].name = names[i];
        tensors[i].dtype = PEFT_DTYPE_F32;
        tensors[i].ndim = 1;
        tensors[i].dims[0] = job->adapter->n_trainable;
        tensors[i].produce = checkpoint_floats;
        tensors[i].user = data[i];
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
    int64_t layout, data, order, accumulated, accumulated_rows;
    const char *method, *optimizer;
    double best_loss, accumulated_loss;
} checkpoint_read;

static peft_status checkpoint_parse(const peft__json *s, const char *path, checkpoint_read *r) {
    peft_status st = PEFT_OK;
    struct { const char *key; int64_t min; int64_t *out; } ints[] = {
        {"version", 1, &r->version}, {"parameters", 0, &r->parameters}, {"rows", 0, &r->rows}, {"tokens", 0, &r->tokens},
        {"seed", 0, &r->seed}, {"step", 0, &r->step}, {"optimizer_step", 0, &r->optimizer_step}, {"epoch", -1, &r->epoch},
        {"position", 0, &r->position}, {"layout", 0, &r->layout}, {"data", 0, &r->data}, {"order", 0, &r->order},
        {"accumulated", 0, &r->accumulated}, {"accumulated_rows", 0, &r->accumulated_rows},
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
    TRY(peft__json_float(s, path, "accumulated_loss", 0, &r->accumulated_loss));
out:
    return st;
}

static peft_status checkpoint_match(const struct peft_trainer *t, const peft__job *job, const checkpoint_read *r,
                                    const char *path) {
    int64_t rows = job->train != NULL ? (int64_t)peft__dataset_size(job->train) : 0;
    int64_t tokens = job->train != NULL ? (int64_t)job->train->ids.len : 0;
    if (strcmp(r->method, job->adapter->method->name) != 0 || r->parameters != job->adapter->n_trainable) {
        return peft__fail(PEFT_E_SHAPE, "%s is of a \"%s\" with %lld parameters, and adapter \"%s\" is a \"%s\" with %lld", path,
                          r->method, (long long)r->parameters, job->adapter->name, job->adapter->method->name,
                          (long long)job->adapter->n_trainable);
    }
    if (r->layout != checkpoint_layout(job->adapter)) {
        return peft__fail(PEFT_E_SHAPE, "%s is of another adapter than \"%s\": targets, ranks, scale or dropout differ", path,
                          job->adapter->name);
    }
    if (strcmp(r->optimizer, job->optim.kind->name) != 0) {
        return peft__fail(PEFT_E_SHAPE, "%s was made with optimizer \"%s\", and the job has \"%s\"", path, r->optimizer,
                          job->optim.kind->name);
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
    const char *names[CHECKPOINT_TENSORS];
    peft__real *data[CHECKPOINT_TENSORS];
    const peft__io_tensor *found[CHECKPOINT_TENSORS];
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
    bool best = job->best != NULL && isfinite(r.best_loss);
    size_t n = checkpoint_vectors(job, best, r.accumulated_rows > 0, names, data);
    for (size_t i = 0; i < n; i++) { TRY(checkpoint_vector(&file, path, names[i], job->adapter->n_trainable, &found[i])); }
    memset(job->grads, 0, (size_t)job->adapter->n_trainable * sizeof *job->grads); /* nothing can fail any more */
    for (size_t i = 0; i < n; i++) {
        for (int64_t k = 0; k < job->adapter->n_trainable; k++) {
            float v;
            memcpy(&v, found[i]->data + (size_t)k * sizeof v, sizeof v);
            data[i][k] = (peft__real)v;
        }
    }
    t->accumulated = r.accumulated;
    t->accumulated_rows = r.accumulated_rows;
    t->accumulated_loss = r.accumulated_loss;
    job->best_loss = r.best_loss;
    job->optim.step = r.optimizer_step;
    t->step = r.step;
    job->epoch = -1;
    if (r.epoch >= 0 && job->train != NULL) { peft__order_epoch(t, job, r.epoch); }
    job->position = r.position;
out:
    peft__safetensors_close(&file);
    peft__arena_free(&arena);
    return st;
}
