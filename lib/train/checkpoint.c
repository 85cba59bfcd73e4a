/* checkpoint.c - everything that a run needs to go on bit for bit, in one file that is replaced atomically:
 *
 *   DIR/state.safetensors
 *     params, <optimiser's states>, best, grads, method    flat vectors, F32; grads where a step is half accumulated; method:
 *                                           what it keeps between steps. Of the second adapter "params.1" and so on
 *     __metadata__ "state"                  JSON: version, adapter, method, step, position in the data order, best loss
 *     __metadata__ "checksum"               hash of the state and of all vectors (files of release 0.1 have none)
 *
 * Of several jobs (version 2) the state is {"version", "step", "jobs": [a state each, by text], "optimizer_steps": one an adapter}.
 *
 * The data order and the dropout masks follow from the seed, the epoch and the step, so no random state is stored. */
#include <math.h>
#include <stdio.h>

#include "train/loop.h"

enum { CHECKPOINT_VERSION = 2, CHECKPOINT_KINDS = 6, CHECKPOINT_PIECE = 1024 };
#define CHECKPOINT_FILE PEFT__CHECKPOINT_FILE
#define CHECKPOINT_MOST ((int64_t)1 << 50) /* of what is counted up: the options allow 1e15 steps */

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

static int64_t checkpoint_layout(const struct peft_trainer *t, const peft__job *job) {
    uint64_t h = 0;
    for (size_t i = 0; i < job->members.len; i++) { h = checkpoint_layout_of(h, peft__trainer_member(t, job, i)->adapter); }
    return (int64_t)(h >> 2);
}

/* "lora", or "lora, prompt" of several. */
static void checkpoint_methods(const struct peft_trainer *t, const peft__job *job, char *out, size_t cap) {
    out[0] = '\0';
    for (size_t i = 0; i < job->members.len; i++) {
        size_t len = strlen(out);
        (void)snprintf(out + len, cap - len, "%s%s", i > 0 ? ", " : "", peft__trainer_member(t, job, i)->adapter->method->name);
    }
}

static int64_t checkpoint_data(const struct peft_dataset *d) {
    if (d == NULL) { return 0; }
    uint64_t h = peft__hash_str(peft__dataset_size(d), d->ids.data, d->ids.len * sizeof(int32_t));
    for (size_t i = 0; d->max_task > 0 && i < peft__dataset_size(d); i++) { h = peft__mix64(h ^ (uint64_t)peft__dataset_row(d, i)->task); }
    return (int64_t)(peft__hash_str(h, d->labels.data, d->labels.len * sizeof(int32_t)) >> 2);
}

/* How rows are ordered: 0 as they are, 1 shuffled, 2 and 3 the same in groups of like length, which depend on batch_size. */
static int64_t checkpoint_order(const struct peft_trainer *t, const peft__job *job) {
    int64_t grouped = peft__opt_bool(&t->opts, "group_by_length"), batch = job->rows;
    return (int64_t)peft__opt_bool(&t->opts, "shuffle") + grouped * (2 + 4 * batch);
}

static void checkpoint_job(const struct peft_trainer *t, const peft__job *job, peft__json_out *j) {
    char methods[512];
    const peft__optim *optim = &peft__trainer_member(t, job, 0)->optim;
    checkpoint_methods(t, job, methods, sizeof methods);
    peft__json_object(j);
    peft__json_key(j, "version");
    peft__json_put_int(j, 1);
    peft__json_key(j, "adapter");
    peft__json_put_text(j, job->expression.text);
    peft__json_key(j, "method");
    peft__json_put_text(j, methods);
    peft__json_key(j, "optimizer");
    peft__json_put_text(j, optim->kind->name);
    struct { const char *key; int64_t value; } ints[] = {
        {"parameters", job->n_trainable}, {"rows", job->train != NULL ? (int64_t)peft__dataset_size(job->train) : 0},
        {"tokens", job->train != NULL ? (int64_t)job->train->ids.len : 0}, {"seed", (int64_t)t->seed}, {"step", t->step},
        {"optimizer_step", optim->step}, {"epoch", job->epoch}, {"position", job->position},
        {"layout", checkpoint_layout(t, job)}, {"data", checkpoint_data(job->train)}, {"order", checkpoint_order(t, job)},
        {"accumulated_rows", job->accumulated_rows},
        {"state", job->state == PEFT__JOB_RUNS && job->stop ? PEFT__JOB_EARLY : job->state}, {"worse", job->worse},
    };
    for (size_t i = 0; i < PEFT__COUNT(ints); i++) {
        peft__json_key(j, ints[i].key);
        peft__json_put_int(j, ints[i].value);
    }
    peft__json_key(j, "best_loss");
    peft__json_put_double(j, job->best_loss);
    peft__json_key(j, "accumulated");
    peft__json_put_double(j, job->accumulated);
    peft__json_key(j, "accumulated_loss");
    peft__json_put_double(j, job->accumulated_loss);
    peft__json_object_end(j);
}

static void checkpoint_state(const struct peft_trainer *t, peft__job *const *jobs, peft__str *out) {
    peft__json_out j;
    peft__json_begin(&j, out, 0);
    if (t->jobs.len == 1) {
        checkpoint_job(t, jobs[0], &j);
        return;
    }
    peft__json_object(&j);
    peft__json_key(&j, "version");
    peft__json_put_int(&j, CHECKPOINT_VERSION);
    peft__json_key(&j, "step");
    peft__json_put_int(&j, t->step);
    peft__json_key(&j, "jobs");
    peft__json_array(&j);
    for (size_t i = 0; i < t->jobs.len; i++) { checkpoint_job(t, jobs[i], &j); }
    peft__json_array_end(&j);
    peft__json_key(&j, "optimizer_steps");
    peft__json_object(&j);
    for (size_t i = 0; i < t->members.len; i++) {
        const peft__member *m = &PEFT__VEC_AT(&t->members, peft__member, i);
        peft__json_key(&j, m->adapter->name);
        peft__json_put_int(&j, m->optim.step);
    }
    peft__json_object_end(&j);
    peft__json_object_end(&j);
}

/* Jobs by their text: the same checkpoint in whatever order they were added. */
static void checkpoint_sort(const struct peft_trainer *t, peft__job **out /* [PEFT__GROUPS] */) {
    for (size_t i = 0; i < t->jobs.len; i++) { peft__jobs_insert(out, i, peft__trainer_job(t, i)); }
}

typedef struct checkpoint_tensor { /* a flat vector of a job */
    const char *name;
    peft__real *data;
    int64_t n;
} checkpoint_tensor;

typedef struct checkpoint_vectors {
    checkpoint_tensor *list; /* in the arena: of all members */
    size_t n;
} checkpoint_vectors;

/* Of several jobs an adapter's vectors have its name before theirs; of one the second's have ".1" behind it. */
static char *checkpoint_name(const struct peft_trainer *t, peft__arena *arena, size_t i, const char *vector) {
    if (t->jobs.len > 1) {
        return peft__arena_printf(arena, "%s/%s", PEFT__VEC_AT(&t->members, peft__member, i).adapter->name, vector);
    }
    return i == 0 ? peft__arena_printf(arena, "%s", vector) : peft__arena_printf(arena, "%s.%zu", vector, i);
}

/* What there is of each member: best where its job has one, gradients in the middle of a step. */
static peft_status checkpoint_list(struct peft_trainer *t, const bool *best, bool grads, peft__arena *arena, checkpoint_vectors *out) {
    out->list = peft__arena_alloc(arena, t->members.len * CHECKPOINT_KINDS * sizeof *out->list);
    if (out->list == NULL) { return PEFT_E_NOMEM; }
    for (size_t i = 0; i < t->members.len; i++) {
        peft__member *m = &PEFT__VEC_AT(&t->members, peft__member, i);
        const checkpoint_tensor all[CHECKPOINT_KINDS] = {
            {"params", m->adapter->values, m->adapter->n_trainable},
            {m->optim.kind->state_names[0], m->optim.state[0], m->optim.kind->states > 0 ? m->optim.n : 0},
            {m->optim.kind->state_names[1], m->optim.state[1], m->optim.kind->states > 1 ? m->optim.n : 0},
            {"best", m->best, m->best != NULL && best[m->job] ? m->adapter->n_trainable : 0},
            {"grads", m->grads, grads ? m->adapter->n_trainable : 0},
            {"method", m->state, m->n_state},
        };
        for (size_t k = 0; k < CHECKPOINT_KINDS; k++) {
            if (all[k].n == 0) { continue; }
            char *name = checkpoint_name(t, arena, i, all[k].name);
            if (name == NULL) { return PEFT_E_NOMEM; }
            out->list[out->n++] = (checkpoint_tensor){name, all[k].data, all[k].n};
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

/* ---- checksum: names and bytes in pieces, in the order of the file --------------------------------------------------------- */

static uint64_t checkpoint_sum_name(uint64_t h, const char *name) { return peft__hash_str(h, name, strlen(name)); }

static uint64_t checkpoint_sum_list(const checkpoint_vectors *v, const char *state) {
    uint64_t h = checkpoint_sum_name(0, state);
    float piece[CHECKPOINT_PIECE / sizeof(float)];
    for (size_t i = 0; i < v->n; i++) {
        size_t size = (size_t)v->list[i].n * sizeof(float);
        h = checkpoint_sum_name(h, v->list[i].name);
        for (size_t at = 0; at < size; at += sizeof piece) {
            size_t n = PEFT__MIN(sizeof piece, size - at);
            (void)checkpoint_floats(v->list[i].data, piece, at, n);
            h = peft__hash_str(h, (const char *)piece, n);
        }
    }
    return h;
}

static uint64_t checkpoint_sum_file(const peft__safetensors *file, const char *state) {
    uint64_t h = checkpoint_sum_name(0, state);
    for (size_t i = 0; i < file->count; i++) {
        const peft__io_tensor *x = &file->tensors[i];
        h = checkpoint_sum_name(h, x->name);
        for (size_t at = 0; at < x->size; at += CHECKPOINT_PIECE) {
            h = peft__hash_str(h, (const char *)x->data + at, PEFT__MIN((size_t)CHECKPOINT_PIECE, x->size - at));
        }
    }
    return h;
}

static void checkpoint_sum_text(uint64_t h, char out[20]) { (void)snprintf(out, 20, "%016llx", (unsigned long long)h); }

peft_status peft__checkpoint_checksum(const peft__safetensors *file, const char *state, const char *path) {
    char text[20];
    const peft__json *sum = peft__json_find(file->metadata, "checksum");
    if (sum == NULL) { return PEFT_OK; }
    checkpoint_sum_text(checkpoint_sum_file(file, state), text);
    if (peft__json_is(sum, text)) { return PEFT_OK; }
    return peft__fail(PEFT_E_FORMAT, "%s: its checksum is %s, and the file says %.40s: it was changed or damaged", path, text,
                      sum->kind == PEFT__JSON_STRING ? sum->str : "something else");
}

peft_status peft__checkpoint_save(struct peft_trainer *t, const char *dir) {
    peft_status st = PEFT_OK;
    peft__mem *mem = &t->ctx->mem;
    peft__arena arena;
    peft__str state;
    peft__job *jobs[PEFT__GROUPS];
    checkpoint_vectors v = {NULL, 0};
    bool best[PEFT__GROUPS], grads = false;
    char *path = NULL;
    peft__arena_init(&arena, mem);
    peft__str_init(&state, mem);
    TRY(peft__trainer_plan(t));
    for (size_t i = 0; i < t->jobs.len; i++) {
        best[i] = isfinite(peft__trainer_job(t, i)->best_loss);
        grads = grads || peft__trainer_job(t, i)->accumulated_rows > 0;
    }
    TRY(checkpoint_list(t, best, grads, &arena, &v));
    peft__io_source *tensors = peft__arena_alloc(&arena, v.n * sizeof *tensors);
    if (tensors == NULL) { st = PEFT_E_NOMEM; goto out; }
    memset(tensors, 0, v.n * sizeof *tensors);
    for (size_t i = 0; i < v.n; i++) {
        tensors[i].name = v.list[i].name;
        tensors[i].dtype = PEFT_DTYPE_F32;
        tensors[i].ndim = 1;
        tensors[i].dims[0] = v.list[i].n;
        tensors[i].produce = checkpoint_floats;
        tensors[i].user = v.list[i].data;
    }
    checkpoint_sort(t, jobs);
    checkpoint_state(t, jobs, &state);
    TRY(peft__str_status(&state));
    char sum[20];
    checkpoint_sum_text(checkpoint_sum_list(&v, peft__str_c(&state)), sum);
    const char *metadata[] = {"format", "libpeft-checkpoint", "state", peft__str_c(&state), "checksum", sum, NULL};
    TRY(peft__dir_make(dir));
    TRY(peft__path_join(&arena, dir, CHECKPOINT_FILE, &path));
    TRY(peft__safetensors_write(mem, path, tensors, v.n, metadata));
out:
    peft__str_free(&state);
    peft__arena_free(&arena);
    return st;
}

peft_status peft__checkpoint_version(const peft__json *s, const char *path) {
    int64_t version = 0;
    if (peft__json_find(s, "version") == NULL) { return peft__fail(PEFT_E_FORMAT, "%s: key \"version\" is missing", path); }
    peft_status st = peft__json_int(s, path, "version", 0, 1, INT64_MAX, &version);
    if (version <= CHECKPOINT_VERSION) { return st; }
    return peft__fail(PEFT_E_VERSION, "%s: version %lld is newer than this library's %d", path, (long long)version, CHECKPOINT_VERSION);
}

peft_status peft__checkpoint_parse(const peft__json *s, const char *path, peft__checkpoint_read *r) {
    peft_status st = PEFT_OK;
    struct { const char *key; int64_t min; int64_t *out; bool counts; } ints[] = {
        {"parameters", 0, &r->parameters, true}, {"rows", 0, &r->rows, true},
        {"tokens", 0, &r->tokens, true}, {"seed", 0, &r->seed, false}, {"step", 0, &r->step, true},
        {"optimizer_step", 0, &r->optimizer_step, true}, {"epoch", -1, &r->epoch, true}, {"position", 0, &r->position, true},
        {"layout", 0, &r->layout, false}, {"data", 0, &r->data, false}, {"order", 0, &r->order, false},
        {"accumulated_rows", 0, &r->accumulated_rows, true},
    };
    TRY(peft__checkpoint_version(s, path)); /* first: another version may have other keys */
    for (size_t i = 0; i < PEFT__COUNT(ints); i++) {
        if (peft__json_find(s, ints[i].key) == NULL) { FAIL(PEFT_E_FORMAT, "%s: key \"%s\" is missing", path, ints[i].key); }
        TRY(peft__json_int(s, path, ints[i].key, 0, ints[i].min, ints[i].counts ? CHECKPOINT_MOST : INT64_MAX, ints[i].out));
    }
    TRY(peft__json_int(s, path, "state", PEFT__JOB_RUNS, PEFT__JOB_RUNS, PEFT__JOB_FAILED, &r->state));
    TRY(peft__json_int(s, path, "worse", 0, 0, CHECKPOINT_MOST, &r->worse));
    TRY(peft__json_str(s, path, "adapter", "", &r->adapter));
    TRY(peft__json_str(s, path, "method", "", &r->method));
    TRY(peft__json_str(s, path, "optimizer", "", &r->optimizer));
    TRY(peft__json_float(s, path, "best_loss", HUGE_VAL, &r->best_loss));
    TRY(peft__json_float(s, path, "accumulated", 0, &r->accumulated));
    TRY(peft__json_float(s, path, "accumulated_loss", 0, &r->accumulated_loss));
out:
    return st;
}

static peft_status checkpoint_match(const struct peft_trainer *t, const peft__job *job, const peft__checkpoint_read *r,
                                    const char *path) {
    int64_t rows = job->train != NULL ? (int64_t)peft__dataset_size(job->train) : 0;
    int64_t tokens = job->train != NULL ? (int64_t)job->train->ids.len : 0;
    char methods[512];
    const peft__optim *optim = &peft__trainer_member(t, job, 0)->optim;
    checkpoint_methods(t, job, methods, sizeof methods);
    if (strcmp(r->method, methods) != 0 || r->parameters != job->n_trainable) {
        return peft__fail(PEFT_E_SHAPE, "%s is of a \"%s\" with %lld parameters, and adapter \"%s\" is a \"%s\" with %lld", path,
                          r->method, (long long)r->parameters, job->expression.text, methods, (long long)job->n_trainable);
    }
    if (r->layout != checkpoint_layout(t, job)) {
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
    if (r->order != checkpoint_order(t, job)) {
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

/* One state, or those of several jobs, each checked against its job. */
static peft_status checkpoint_read_jobs(const struct peft_trainer *t, peft__job *const *jobs, const peft__json *state, const char *path,
                                        peft__checkpoint_read *r) {
    peft_status st = PEFT_OK;
    const peft__json *list = peft__json_find(state, "jobs");
    size_t n = list == NULL ? 1 : list->kind == PEFT__JSON_ARRAY ? list->len : 0;
    TRY(peft__checkpoint_version(state, path));
    if (n != t->jobs.len) {
        FAIL(PEFT_E_SHAPE, "%s is of %zu job%s, and the trainer has %zu", path, n, n == 1 ? "" : "s", t->jobs.len);
    }
    for (size_t i = 0; i < n; i++) {
        TRY(peft__checkpoint_parse(list == NULL ? state : &list->items[i], path, &r[i]));
        if (list != NULL && strcmp(r[i].adapter, jobs[i]->expression.text) != 0) {
            FAIL(PEFT_E_SHAPE, "%s is of a job \"%s\", and the trainer has \"%s\"", path, r[i].adapter, jobs[i]->expression.text);
        }
        TRY(checkpoint_match(t, jobs[i], &r[i], path));
    }
out:
    return st;
}

/* Steps that each member's optimiser made. */
static peft_status checkpoint_steps(const struct peft_trainer *t, const peft__json *state, const char *path,
                                    const peft__checkpoint_read *r, int64_t *steps /* [members] */) {
    peft_status st = PEFT_OK;
    const peft__json *list = peft__json_find(state, "optimizer_steps");
    for (size_t i = 0; i < t->members.len; i++) {
        steps[i] = r[0].optimizer_step;
        if (t->jobs.len == 1) { continue; }
        const char *name = PEFT__VEC_AT(&t->members, peft__member, i).adapter->name;
        if (list == NULL) { FAIL(PEFT_E_FORMAT, "%s: key \"optimizer_steps\" is missing", path); }
        TRY(peft__json_int(list, path, name, 0, 0, CHECKPOINT_MOST, &steps[i]));
    }
out:
    return st;
}

/* Nothing can fail any more. */
static void checkpoint_take(struct peft_trainer *t, peft__job *const *jobs, const peft__checkpoint_read *r, const int64_t *steps,
                            const checkpoint_vectors *v, const peft__io_tensor *const *found) {
    for (size_t i = 0; i < t->members.len; i++) {
        peft__member *m = &PEFT__VEC_AT(&t->members, peft__member, i);
        memset(m->grads, 0, (size_t)m->adapter->n_trainable * sizeof *m->grads);
        m->optim.step = steps[i];
    }
    for (size_t i = 0; i < v->n; i++) {
        for (int64_t k = 0; k < v->list[i].n; k++) {
            float x;
            memcpy(&x, found[i]->data + (size_t)k * sizeof x, sizeof x);
            v->list[i].data[k] = (peft__real)x;
        }
    }
    t->step = 0;
    for (size_t i = 0; i < t->jobs.len; i++) {
        peft__job *job = jobs[i];
        job->accumulated = r[i].accumulated;
        job->accumulated_rows = r[i].accumulated_rows;
        job->accumulated_loss = r[i].accumulated_loss;
        job->best_loss = r[i].best_loss;
        job->worse = r[i].worse;
        job->stop = r[i].state == PEFT__JOB_EARLY;
        job->state = t->jobs.len > 1 && r[i].state == PEFT__JOB_FAILED ? PEFT__JOB_FAILED : PEFT__JOB_RUNS;
        if (job->state == PEFT__JOB_FAILED && job->error.len == 0) { peft__str_puts(&job->error, "so the checkpoint says"); }
        t->step = PEFT__MAX(t->step, r[i].step);
        job->epoch = -1;
        if (r[i].epoch >= 0 && job->train != NULL) { peft__order_epoch(t, job, r[i].epoch); }
        job->position = r[i].position;
    }
}

peft_status peft__checkpoint_load(struct peft_trainer *t, const char *dir) {
    peft_status st = PEFT_OK;
    peft__arena arena;
    peft__safetensors file;
    peft__job *jobs[PEFT__GROUPS];
    peft__checkpoint_read r[PEFT__GROUPS];
    checkpoint_vectors v = {NULL, 0};
    bool best[PEFT__GROUPS], grads = false;
    const peft__json *state = NULL;
    char *path = NULL;
    memset(&file, 0, sizeof file);
    memset(r, 0, sizeof r);
    peft__arena_init(&arena, &t->ctx->mem);
    TRY(peft__trainer_plan(t));
    checkpoint_sort(t, jobs);
    TRY(peft__path_join(&arena, dir, CHECKPOINT_FILE, &path));
    TRY(peft__safetensors_open(&t->ctx->mem, path, true, &file));
    const peft__json *text = peft__json_find(file.metadata, "state");
    if (text == NULL || text->kind != PEFT__JSON_STRING) { FAIL(PEFT_E_FORMAT, "%s is no checkpoint: it has no state", path); }
    TRY(peft__json_parse(&arena, text->str, text->len, path, &state));
    TRY(checkpoint_read_jobs(t, jobs, state, path, r));
    int64_t *steps = peft__arena_alloc(&arena, t->members.len * sizeof *steps);
    if (steps == NULL) { st = PEFT_E_NOMEM; goto out; }
    TRY(checkpoint_steps(t, state, path, r, steps));
    for (size_t i = 0; i < t->jobs.len; i++) {
        best[jobs[i] - peft__trainer_job(t, 0)] = isfinite(r[i].best_loss);
        grads = grads || r[i].accumulated_rows > 0;
    }
    TRY(checkpoint_list(t, best, grads, &arena, &v));
    const peft__io_tensor **found = peft__arena_alloc(&arena, v.n * sizeof *found);
    if (found == NULL) { st = PEFT_E_NOMEM; goto out; }
    for (size_t i = 0; i < v.n; i++) { TRY(checkpoint_vector(&file, path, v.list[i].name, v.list[i].n, &found[i])); }
    TRY(peft__checkpoint_checksum(&file, text->str, path)); /* last: what is wrong has a better name where it has one */
    checkpoint_take(t, jobs, r, steps, &v, found);
    if (t->jobs.len > 1) { peft__trainer_unplan(t); } /* others may be left than before */
out:
    peft__safetensors_close(&file);
    peft__arena_free(&arena);
    return st;
}
