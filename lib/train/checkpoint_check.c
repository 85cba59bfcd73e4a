/* checkpoint_check.c - looks for what is wrong in a checkpoint without its trainer: keys and versions of the state, the checksum,
 * vectors that are missing, of other lengths, not known, or hold values that are no numbers.
 *
 * Loading one compares it with the trainer's jobs besides (checkpoint.c): adapters, data, order and seed.
 *
 * Left out: what the values of an optimiser's state can be, but that the squares of Adam are not negative. */
#include <math.h>
#include <stdio.h>

#include "train/loop.h"

typedef struct checkpoint_check {
    peft__mem *mem;
    peft__findings *f;
    const peft__safetensors *file;
    const char *path;
    peft__arena arena;
    const peft__json *state;     /* the whole */
    peft__checkpoint_read jobs[PEFT__GROUPS];
    size_t n;                    /* jobs */
    bool several;                /* vectors have their adapter's name before theirs */
} checkpoint_check;

bool peft__checkpoint_probe(peft__mem *mem, const char *path) {
    char name[4096];
    peft__safetensors file;
    if (peft__path_is_dir(path)) {
        int n = snprintf(name, sizeof name, "%s/%s", path, PEFT__CHECKPOINT_FILE);
        return n > 0 && (size_t)n < sizeof name && peft__path_exists(name);
    }
    if (strcmp(peft__path_name(path), PEFT__CHECKPOINT_FILE) == 0) { return peft__path_exists(path); }
    bool found = peft__safetensors_open(mem, path, false, &file) == PEFT_OK &&
                 peft__json_is(peft__json_find(file.metadata, "format"), "libpeft-checkpoint");
    peft__safetensors_close(&file);
    return found;
}

/* ---- the state -------------------------------------------------------------------------------------------------------------- */

static void checkpoint_check_job(checkpoint_check *c, const peft__checkpoint_read *r) {
    if (peft__optim_find(r->optimizer) == NULL) {
        peft__finding_error(c->f, PEFT_E_UNSUPPORTED, c->path, "key \"optimizer\"", "there is no optimizer \"%s\"", r->optimizer);
    }
    if (r->parameters == 0) { peft__finding_error(c->f, PEFT_E_FORMAT, c->path, "key \"parameters\"", "it is 0: nothing is trained"); }
    if (r->rows > 0 && r->position > r->rows) {
        peft__finding_error(c->f, PEFT_E_FORMAT, c->path, "key \"position\"", "it is %lld, and the data has %lld rows",
                            (long long)r->position,
                            (long long)r->rows);
    }
    if (r->optimizer_step > r->step) {
        peft__finding_error(c->f, PEFT_E_FORMAT, c->path, "key \"optimizer_step\"", "it is %lld, more than the %lld steps that were made",
                            (long long)r->optimizer_step, (long long)r->step);
    }
    if (isnan(r->best_loss) || !isfinite(r->accumulated) || !isfinite(r->accumulated_loss)) {
        peft__finding_error(c->f, PEFT_E_NUMERIC, c->path, "state", "one of its losses is no finite number");
    }
}

static peft_status checkpoint_check_state(checkpoint_check *c) {
    peft_status st = PEFT_OK;
    const peft__json *text = peft__json_find(c->file->metadata, "state"), *list = NULL;
    if (text == NULL || text->kind != PEFT__JSON_STRING) { FAIL(PEFT_E_FORMAT, "%s: it is no checkpoint: it has no state", c->path); }
    TRY(peft__json_parse(&c->arena, text->str, text->len, c->path, &c->state));
    TRY(peft__checkpoint_version(c->state, c->path));
    list = peft__json_find(c->state, "jobs");
    c->several = list != NULL;
    if (list != NULL && (list->kind != PEFT__JSON_ARRAY || list->len == 0 || list->len > PEFT__GROUPS)) {
        FAIL(PEFT_E_FORMAT, "%s: key \"jobs\" is no list of 1 to %d jobs", c->path, PEFT__GROUPS);
    }
    size_t n = list == NULL ? 1 : list->len;
    for (size_t i = 0; i < n; i++) {
        TRY(peft__checkpoint_parse(list == NULL ? c->state : &list->items[i], c->path, &c->jobs[i]));
        c->n = i + 1;
        checkpoint_check_job(c, &c->jobs[i]);
    }
    if (peft__json_find(c->file->metadata, "checksum") == NULL) {
        peft__finding_warn(c->f, c->path, "", "it has no checksum: damage to its values cannot be told");
    }
    TRY(peft__checkpoint_checksum(c->file, text->str, c->path));
out:
    return st;
}

/* ---- the vectors -------------------------------------------------------------------------------------------------------------- */

/* Kind of a vector by its name: "params", "params.1", "NAME/params". *owner: what tells its adapter. */
static const char *checkpoint_check_kind(const checkpoint_check *c, const char *name, const char **owner, size_t *len) {
    static const char *const kinds[] = {"params", "best", "grads", "method"};
    const char *slash = c->several ? strrchr(name, '/') : NULL, *tail = slash != NULL ? slash + 1 : name;
    const char *dot = c->several ? NULL : strrchr(tail, '.');
    size_t n = dot != NULL ? (size_t)(dot - tail) : strlen(tail);
    *owner = c->several ? name : dot != NULL ? dot : "";
    *len = c->several ? (slash != NULL ? (size_t)(slash - name) : 0) : strlen(*owner);
    for (size_t i = 0; i < PEFT__COUNT(kinds); i++) {
        if (strlen(kinds[i]) == n && memcmp(kinds[i], tail, n) == 0) { return kinds[i]; }
    }
    for (size_t j = 0; j < c->n; j++) {
        const peft__optim_kind *kind = peft__optim_find(c->jobs[j].optimizer);
        for (int32_t s = 0; kind != NULL && s < kind->states; s++) {
            if (strlen(kind->state_names[s]) == n && memcmp(kind->state_names[s], tail, n) == 0) { return kind->state_names[s]; }
        }
    }
    return NULL;
}

/* The vector of that kind of the same adapter. */
static const peft__io_tensor *checkpoint_check_find(checkpoint_check *c, const char *kind, const char *owner, size_t len) {
    const char *name = c->several ? peft__arena_printf(&c->arena, "%.*s/%s", (int)len, owner, kind)
                                  : peft__arena_printf(&c->arena, "%s%.*s", kind, (int)len, owner);
    if (name == NULL) {
        c->f->st = PEFT_E_NOMEM;
        return NULL;
    }
    return peft__safetensors_find(c->file, name);
}

/* Squares are not negative, and everything is finite. */
static void checkpoint_check_values(checkpoint_check *c, const peft__kernels *k, const peft__io_tensor *t, const char *kind) {
    peft__scan_result r;
    char where[PEFT__SCAN_NAME];
    peft__scan(k, t->dtype, t->data, t->dims[0], &r);
    if (peft__scan_report(&r, t->ndim, t->dims, c->path, t->name, true, c->f) || strcmp(kind, "v") != 0) { return; }
    for (int64_t i = 0; i < t->dims[0]; i++) {
        float x;
        memcpy(&x, t->data + (size_t)i * sizeof x, sizeof x);
        if (x >= 0) { continue; }
        (void)snprintf(where, sizeof where, "tensor \"%.1000s\"", t->name);
        peft__finding_error(c->f, PEFT_E_NUMERIC, c->path, where, "element %lld, a mean of squares, is negative", (long long)i);
        return;
    }
}

static void checkpoint_check_vector(checkpoint_check *c, const peft__kernels *k, bool values, const peft__io_tensor *t,
                                    int64_t *parameters) {
    const char *owner = "", *where = peft__arena_printf(&c->arena, "tensor \"%s\"", t->name);
    size_t len = 0;
    const char *kind = checkpoint_check_kind(c, t->name, &owner, &len);
    if (where == NULL) {
        c->f->st = PEFT_E_NOMEM;
        return;
    }
    if (t->dtype != PEFT_DTYPE_F32 || t->ndim != 1) {
        peft__finding_error(c->f, PEFT_E_FORMAT, c->path, where, "it is %s with %d dimensions, expected F32 with one", t->dtype_name,
                            (int)t->ndim);
        return;
    }
    if (kind == NULL) {
        peft__finding_error(c->f, PEFT_E_FORMAT, c->path, where, "nothing in a checkpoint has this name");
        return;
    }
    const peft__io_tensor *params = checkpoint_check_find(c, "params", owner, len);
    if (strcmp(kind, "params") == 0) {
        *parameters += t->dims[0];
        for (size_t j = 0; j < (c->several ? 0 : c->n); j++) {
            const peft__optim_kind *o = peft__optim_find(c->jobs[j].optimizer);
            for (int32_t s = 0; o != NULL && s < o->states; s++) {
                if (checkpoint_check_find(c, o->state_names[s], owner, len) != NULL) { continue; }
                peft__finding_error(c->f, PEFT_E_NOT_FOUND, c->path, where, "the optimizer's \"%s\" of it is missing", o->state_names[s]);
            }
        }
    } else if (strcmp(kind, "method") != 0) {
        if (params == NULL) {
            peft__finding_error(c->f, PEFT_E_NOT_FOUND, c->path, where, "the parameters that it is of are missing");
        } else if (params->ndim == 1 && params->dims[0] != t->dims[0]) {
            peft__finding_error(c->f, PEFT_E_SHAPE, c->path, where, "it has %lld elements, and there are %lld parameters",
                                (long long)t->dims[0], (long long)params->dims[0]);
        }
    }
    if (values) { checkpoint_check_values(c, k, t, kind); }
}

static void checkpoint_check_vectors(checkpoint_check *c, const peft__kernels *k, bool values) {
    int64_t parameters = 0, said = 0;
    for (size_t i = 0; i < c->n; i++) { said += c->jobs[i].parameters; }
    for (size_t i = 0; i < c->file->count; i++) { checkpoint_check_vector(c, k, values, &c->file->tensors[i], &parameters); }
    if (parameters != said && !(c->several && parameters < said)) { /* an adapter may be of several jobs */
        peft__finding_error(c->f, PEFT_E_SHAPE, c->path, "key \"parameters\"", "the state says %lld, and the file has %lld",
                            (long long)said, (long long)parameters);
    }
}

/* ---- */

static void checkpoint_check_about(const checkpoint_check *c, peft__str *out) {
    peft__json_out j;
    peft__json_begin(&j, out, 0);
    peft__json_object(&j);
    peft__json_key(&j, "jobs");
    peft__json_array(&j);
    for (size_t i = 0; i < c->n; i++) {
        const peft__checkpoint_read *r = &c->jobs[i];
        const struct { const char *key; const char *text; int64_t n; } members[] = {
            {"adapter", r->adapter, 0}, {"method", r->method, 0}, {"optimizer", r->optimizer, 0}, {"parameters", NULL, r->parameters},
            {"step", NULL, r->step}, {"epoch", NULL, r->epoch}, {"position", NULL, r->position}, {"rows", NULL, r->rows}};
        peft__json_object(&j);
        for (size_t k = 0; k < PEFT__COUNT(members); k++) {
            peft__json_key(&j, members[k].key);
            if (members[k].text != NULL) { peft__json_put_text(&j, members[k].text); } else { peft__json_put_int(&j, members[k].n); }
        }
        peft__json_object_end(&j);
    }
    peft__json_array_end(&j);
    peft__json_object_end(&j);
}

peft_status peft__checkpoint_check(peft__mem *mem, const peft__kernels *k, const char *path, bool values, peft__findings *f,
                                   peft__str *about, int64_t *tensors, int64_t *numbers) {
    peft_status st = PEFT_OK;
    peft__safetensors file;
    checkpoint_check c = {.mem = mem, .f = f, .path = path};
    char *inside = NULL;
    memset(&file, 0, sizeof file);
    peft__arena_init(&c.arena, mem);
    if (peft__path_is_dir(path)) {
        TRY(peft__path_join(&c.arena, path, PEFT__CHECKPOINT_FILE, &inside));
        c.path = inside;
    }
    TRY(peft__safetensors_open(mem, c.path, false, &file));
    c.file = &file;
    *tensors += (int64_t)file.count;
    for (size_t i = 0; i < file.count; i++) { *numbers += file.tensors[i].ndim == 1 ? file.tensors[i].dims[0] : 0; }
    st = checkpoint_check_state(&c);
    TRY(peft__finding_failed(f, st, c.path, ""));
    if (c.n > 0) { checkpoint_check_vectors(&c, k, values); }
    checkpoint_check_about(&c, about);
    TRY(peft__str_status(about));
out:
    st = peft__finding_failed(f, st, c.path, "");
    peft__safetensors_close(&file);
    peft__arena_free(&c.arena);
    return st;
}
