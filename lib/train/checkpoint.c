/* checkpoint.c - everything that a run needs to go on bit for bit, in one file that is replaced atomically:
 *
 *   DIR/state.safetensors
 *     params, <optimiser's states>, best    flat vectors, F32
 *     __metadata__ "state"                  JSON: version, adapter, method, step, position in the data order, best loss
 *
 * The data order and the dropout masks follow from the seed, the epoch and the step, so no random state is stored. */
#include <math.h>

#include "train/loop.h"

enum { CHECKPOINT_VERSION = 1, CHECKPOINT_TENSORS = 4 };
#define CHECKPOINT_FILE "state.safetensors"

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
    };
    for (size_t i = 0; i < PEFT__COUNT(ints); i++) {
        peft__json_key(&j, ints[i].key);
        peft__json_put_int(&j, ints[i].value);
    }
    peft__json_key(&j, "best_loss");
    peft__json_put_double(&j, job->best_loss);
    peft__json_object_end(&j);
}

/* The vectors of a job, by name. */
static size_t checkpoint_vectors(peft__job *job, const char **names, peft__real **data) {
    size_t n = 0;
    names[n] = "params";
    data[n++] = job->adapter->values;
    for (int32_t i = 0; i < job->optim.kind->states; i++) {
        names[n] = job->optim.kind->state_names[i];
        data[n++] = job->optim.state[i];
    }
    if (job->best != NULL && isfinite(job->best_loss)) {
        names[n] = "best";
        data[n++] = job->best;
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
    size_t n = checkpoint_vectors(job, names, data);
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
    const char *adapter, *method, *optimizer;
    double best_loss;
} checkpoint_read;

static peft_status checkpoint_parse(const peft__json *s, const char *path, checkpoint_read *r) {
    peft_status st = PEFT_OK;
    int64_t max = INT64_MAX;
    TRY(peft__json_int(s, path, "version", 0, 1, max, &r->version));
    if (r->version > CHECKPOINT_VERSION) {
        FAIL(PEFT_E_VERSION, "%s: version %lld is newer than this library's %d", path, (long long)r->version, CHECKPOINT_VERSION);
    }
    TRY(peft__json_int(s, path, "parameters", 0, 0, max, &r->parameters));
    TRY(peft__json_int(s, path, "rows", 0, 0, max, &r->rows));
    TRY(peft__json_int(s, path, "tokens", 0, 0, max, &r->tokens));
    TRY(peft__json_int(s, path, "seed", 0, 0, max, &r->seed));
    TRY(peft__json_int(s, path, "step", 0, 0, max, &r->step));
    TRY(peft__json_int(s, path, "optimizer_step", 0, 0, max, &r->optimizer_step));
    TRY(peft__json_int(s, path, "epoch", -1, -1, max, &r->epoch));
    TRY(peft__json_int(s, path, "position", 0, 0, max, &r->position));
    TRY(peft__json_str(s, path, "adapter", "", &r->adapter));
    TRY(peft__json_str(s, path, "method", "", &r->method));
    TRY(peft__json_str(s, path, "optimizer", "", &r->optimizer));
    TRY(peft__json_float(s, path, "best_loss", HUGE_VAL, &r->best_loss));
out:
    return st;
}

static peft_status checkpoint_match(const struct peft_trainer *t, const peft__job *job, const checkpoint_read *r, const char *path) {
    int64_t rows = job->train != NULL ? (int64_t)peft__dataset_size(job->train) : 0;
    int64_t tokens = job->train != NULL ? (int64_t)job->train->ids.len : 0;
    if (strcmp(r->method, job->adapter->method->name) != 0 || r->parameters != job->adapter->n_trainable) {
        return peft__fail(PEFT_E_SHAPE, "%s is of a \"%s\" with %lld parameters, and adapter \"%s\" is a \"%s\" with %lld", path,
                          r->method, (long long)r->parameters, job->adapter->name, job->adapter->method->name,
                          (long long)job->adapter->n_trainable);
    }
    if (strcmp(r->optimizer, job->optim.kind->name) != 0) {
        return peft__fail(PEFT_E_SHAPE, "%s was made with optimizer \"%s\", and the job has \"%s\"", path, r->optimizer,
                          job->optim.kind->name);
    }
    if (r->rows != rows || r->tokens != tokens || r->position > rows) {
        return peft__fail(PEFT_E_SHAPE, "%s was made with data of %lld rows and %lld tokens, and the job has %lld and %lld", path,
                          (long long)r->rows, (long long)r->tokens, (long long)rows, (long long)tokens);
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
    double best = job->best_loss;
    job->best_loss = r.best_loss;
    size_t n = checkpoint_vectors(job, names, data);
    job->best_loss = best;
    for (size_t i = 0; i < n; i++) { TRY(checkpoint_vector(&file, path, names[i], job->adapter->n_trainable, &found[i])); }
    for (size_t i = 0; i < n; i++) { /* nothing can fail any more */
        for (int64_t k = 0; k < job->adapter->n_trainable; k++) {
            float v;
            memcpy(&v, found[i]->data + (size_t)k * sizeof v, sizeof v);
            data[i][k] = (peft__real)v;
        }
    }
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
