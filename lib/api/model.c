/* model.c - peft_model: opening, looking inside, reading tensors. */
#include "api/api.h"

static peft__task_ask model_ask(const peft__optset *o) {
    peft__task_ask ask = {.kind = peft__task_find(peft__opt_str(o, "task")), .problem = -1, .pool = -1, .normalize = -1};
#ifndef PEFT_MINIMAL
    static const char *const pools[] = {"none", "cls", "last", "mean"}; /* as PEFT__POOL_* counts */
    for (int32_t i = 0; i < PEFT__PROBLEM_COUNT; i++) {
        if (strcmp(peft__opt_str(o, "problem_type"), peft__problem_name(i)) == 0) { ask.problem = i; }
    }
    for (int32_t i = 0; i < (int32_t)PEFT__COUNT(pools); i++) {
        if (strcmp(peft__opt_str(o, "pooling"), pools[i]) == 0) { ask.pool = i; }
    }
    if (peft__opt_is_set(o, "normalize")) { ask.normalize = peft__opt_bool(o, "normalize"); }
    ask.labels = peft__opt_int(o, "num_labels");
    ask.names = peft__opt_str(o, "labels");
    ask.seed = (uint64_t)peft__opt_int(o, "head_seed");
#endif
    return ask;
}

peft_status peft_model_open(peft_context *ctx, const char *path, const peft_options *options, peft_model **out) {
    peft_status st = PEFT_OK;
    peft__optset own = {0};
    const peft__optset *o = NULL;
    TRY(peft__check_arg(out, "out"));
    *out = NULL;
    TRY(peft__check_handle(ctx, PEFT__MAGIC_CONTEXT, "ctx"));
    TRY(peft__check_text(path, "path"));
    TRY(peft__pick_options(options, &ctx->mem, &peft__schema_model, &own, &o));
    const peft__task_ask ask = model_ask(o);
    TRY(peft__model_open(ctx, path, strcmp(peft__opt_str(o, "load"), "copy") == 0, &ask, out));
out:
    peft__optset_free(&own);
    return st;
}

peft_status peft_model_create_random(peft_context *ctx, const char *config_json, size_t len, uint64_t seed,
                                     peft_model **out) {
    peft_status st = PEFT_OK;
    TRY(peft__check_arg(out, "out"));
    *out = NULL;
    TRY(peft__check_handle(ctx, PEFT__MAGIC_CONTEXT, "ctx"));
    TRY(peft__check_bytes(config_json, len, "config_json"));
    TRY(peft__model_random(ctx, config_json, len, seed, 0, out));
out:
    return st;
}

static peft_status model_check_memory(const peft_context *ctx, const char *config_json, size_t len, const peft__model_memory *in) {
    peft_status st = PEFT_OK;
    TRY(peft__check_handle(ctx, PEFT__MAGIC_CONTEXT, "ctx"));
    TRY(peft__check_bytes(config_json, len, "config_json"));
    TRY(peft__check_bytes(in->names, in->n, "names"));
    TRY(peft__check_bytes(in->dtypes, in->n, "dtypes"));
    TRY(peft__check_bytes(in->ndims, in->n, "ndims"));
    TRY(peft__check_bytes(in->dims, in->n, "dims"));
    TRY(peft__check_bytes(in->data, in->n, "data"));
out:
    return st;
}

peft_status peft_model_create_from_tensors(peft_context *ctx, const char *config_json, size_t len, const char *const *names,
                                           const int32_t *dtypes, const int32_t *ndims, const int64_t *dims,
                                           const void *const *data, size_t n, const peft_options *options,
                                           peft_release_fn release, void *user, peft_model **out) {
    peft_status st = PEFT_OK;
    peft__optset own = {0};
    const peft__optset *o = NULL;
    peft__model_memory in = {names, dtypes, ndims, dims, data, n, release, user};
    bool taken = false; /* peft__model_of_memory tells release */
    TRY(peft__check_arg(out, "out"));
    *out = NULL;
    TRY(model_check_memory(ctx, config_json, len, &in));
    TRY(peft__pick_options(options, &ctx->mem, &peft__schema_model, &own, &o));
    const peft__task_ask ask = model_ask(o);
    taken = true;
    TRY(peft__model_of_memory(ctx, config_json, len, &in, strcmp(peft__opt_str(o, "load"), "copy") == 0, &ask, out));
out:
    if (!taken && release != NULL) { release(user); }
    peft__optset_free(&own);
    return st;
}

void peft_model_free(peft_model *m) {
    if (peft__is_handle(m, PEFT__MAGIC_MODEL)) { peft__model_release(m); }
}

const char *peft_model_arch(const peft_model *m) {
    return peft__is_handle(m, PEFT__MAGIC_MODEL) ? m->arch->name : NULL;
}

peft_status peft_model_info_json(const peft_model *m, char *buf, size_t cap, size_t *needed) {
    peft_status st = PEFT_OK;
    peft__str text;
    TRY(peft__check_buffer(buf, cap, needed));
    TRY(peft__check_handle(m, PEFT__MAGIC_MODEL, "model"));
    peft__str_init(&text, &m->ctx->mem);
    return peft__finish_text(peft__model_info(m, &text), &text, buf, cap, needed);
out:
    return st;
}

peft_status peft_model_config_json(const peft_model *m, char *buf, size_t cap, size_t *needed) {
    peft_status st = PEFT_OK;
    TRY(peft__check_buffer(buf, cap, needed));
    TRY(peft__check_handle(m, PEFT__MAGIC_MODEL, "model"));
    TRY(peft__copy_out(m->config_json, m->config_json_len, buf, cap, needed));
out:
    return st;
}

size_t peft_model_tensor_count(const peft_model *m) {
    return peft__is_handle(m, PEFT__MAGIC_MODEL) ? m->n_tensors : 0;
}

peft_status peft_model_tensor_info(const peft_model *m, size_t index, const char **name, int32_t *dtype, int32_t *ndim,
                                   int64_t dims[8]) {
    peft_status st = PEFT_OK;
    TRY(peft__check_handle(m, PEFT__MAGIC_MODEL, "model"));
    if (index >= m->n_tensors) {
        FAIL(PEFT_E_NOT_FOUND, "there is no tensor %zu; the model has %zu", index, m->n_tensors);
    }
    const peft__model_tensor *t = &m->tensors[index];
    if (name != NULL) { *name = t->w.name; }
    if (dtype != NULL) { *dtype = t->w.dtype; }
    if (ndim != NULL) { *ndim = t->ndim; }
    for (int32_t i = 0; i < t->ndim && dims != NULL; i++) { dims[i] = t->dims[i]; }
out:
    return st;
}

/* The file has no tensor of this name; which of the names is nearest helps with a slip. */
static peft_status model_fail_tensor(const peft_model *m, const char *name) {
    const char *stem = strrchr(name, '.');
    for (size_t i = 0; i < m->n_tensors; i++) {
        const char *near = peft__nearest(name, &m->tensors[i].w.name, 1);
        if (near != NULL) {
            return peft__fail(PEFT_E_NOT_FOUND, "there is no tensor \"%s\"; did you mean \"%s\"?", name, near);
        }
    }
    return peft__fail(PEFT_E_NOT_FOUND, "there is no tensor \"%s\"%s", name,
                      stem == NULL ? "; names are those of Hugging Face, such as \"model.norm.weight\"" : "");
}

peft_status peft_model_tensor_read(const peft_model *m, const char *name, float *buf, size_t cap, size_t *needed) {
    peft_status st = PEFT_OK;
    TRY(peft__check_buffer(buf, cap, needed));
    TRY(peft__check_handle(m, PEFT__MAGIC_MODEL, "model"));
    TRY(peft__check_text(name, "name"));
    int64_t at = peft__map_get(&m->index, name, strlen(name));
    if (at < 0) { return model_fail_tensor(m, name); }
    const peft__model_tensor *t = &m->tensors[at];
    size_t n = (size_t)(t->w.rows * t->w.cols);
    if (needed != NULL) { *needed = n; }
    if (cap < n) { FAIL(PEFT_E_BUFFER, "the buffer has room for %zu floats, tensor \"%s\" has %zu", cap, name, n); }
    peft__model_read(m, (size_t)at, buf);
out:
    return st;
}
