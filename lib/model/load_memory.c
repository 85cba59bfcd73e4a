/* load_memory.c - a model of named tensors in the caller's memory: the state dict of another library, weights that a
 * program carries inside itself.
 *
 * The tensors take the place of a shard of a Hugging Face folder (load_hf.c): the same names, with or without the prefix
 * "model." or "transformer.", the same shapes. Nothing is copied unless asked for; the caller's memory then stays in use until the
 * model's last reference goes, which `release` tells.
 *
 * Left out: tensors in GGUF's names and row order. */
#include "model/parts.h"

static peft_status memory_tensor(const peft__model_memory *in, size_t i, peft__arena *a, peft__io_tensor *out) {
    peft_status st = PEFT_OK;
    const char *name = in->names[i];
    size_t elements = 1;
    if (name == NULL || !peft__utf8_valid(name, strlen(name))) {
        FAIL(PEFT_E_INVALID, "the name of tensor %zu is %s", i, name == NULL ? "NULL" : "no valid UTF-8");
    }
    int64_t block = peft__dtype_elems(in->dtypes[i]);
    if (block == 0) { FAIL(PEFT_E_UNSUPPORTED, "tensor \"%s\" has the unknown element type %d", name, (int)in->dtypes[i]); }
    out->ndim = in->ndims[i];
    if (out->ndim < 1 || out->ndim > PEFT__IO_MAX_DIMS) {
        FAIL(PEFT_E_SHAPE, "tensor \"%s\" has %d dimensions, expected 1 to %d", name, (int)out->ndim, PEFT__IO_MAX_DIMS);
    }
    for (int32_t d = 0; d < out->ndim; d++) {
        out->dims[d] = in->dims[i * PEFT__IO_MAX_DIMS + (size_t)d];
        uint64_t size = (uint64_t)out->dims[d];
        if (out->dims[d] < 0 || size > SIZE_MAX || !peft__mul(elements, (size_t)size, &elements) || elements > SIZE_MAX / 8) {
            FAIL(PEFT_E_SHAPE, "tensor \"%s\" has a size of %lld in dimension %d", name, (long long)out->dims[d], (int)d);
        }
    }
    if (out->dims[out->ndim - 1] % block != 0) {
        FAIL(PEFT_E_SHAPE, "tensor \"%s\" has rows of %lld elements, which are no whole blocks of %s", name,
             (long long)out->dims[out->ndim - 1], peft__dtype_name(in->dtypes[i]));
    }
    if (in->data[i] == NULL && elements > 0) { FAIL(PEFT_E_INVALID, "the data of tensor \"%s\" is NULL", name); }
    out->name = peft__arena_strdup(a, name, strlen(name));
    if (out->name == NULL) { return PEFT_E_NOMEM; }
    out->dtype = in->dtypes[i];
    out->dtype_name = peft__dtype_name(out->dtype);
    out->data = in->data[i];
    out->size = peft__dtype_bytes(out->dtype, (int64_t)elements);
out:
    return st;
}

/* The tensors as a shard that has no file. */
static peft_status memory_shard(struct peft_model *m, const peft__model_memory *in) {
    peft_status st = PEFT_OK;
    size_t bytes;
    m->shards = peft__arena_alloc(&m->arena, sizeof *m->shards);
    if (m->shards == NULL || !peft__mul(in->n, sizeof(peft__io_tensor), &bytes)) { return PEFT_E_NOMEM; }
    peft__safetensors *s = m->shards;
    memset(s, 0, sizeof *s);
    peft__arena_init(&s->arena, m->arena.mem);
    peft__map_init(&s->index, m->arena.mem);
    m->n_shards = 1;
    s->tensors = peft__arena_alloc(&s->arena, bytes);
    if (s->tensors == NULL) { return PEFT_E_NOMEM; }
    memset(s->tensors, 0, bytes);
    for (size_t i = 0; i < in->n; i++) {
        peft__io_tensor *t = &s->tensors[i];
        TRY(memory_tensor(in, i, &s->arena, t));
        if (peft__map_get(&s->index, t->name, strlen(t->name)) >= 0) {
            FAIL(PEFT_E_EXISTS, "there are two tensors \"%s\"", t->name);
        }
        TRY(peft__map_put(&s->index, t->name, strlen(t->name), (int64_t)i));
    }
    s->count = in->n;
out:
    return st;
}

/* Takes the bytes over into one block of the model's. */
static peft_status memory_copy(struct peft_model *m) {
    peft__safetensors *s = &m->shards[0];
    size_t total = 0;
    for (size_t i = 0; i < s->count; i++) {
        size_t room = s->tensors[i].size + 63; /* each on a line of its own */
        if (room < s->tensors[i].size || total > SIZE_MAX - room) {
            return peft__fail(PEFT_E_NOMEM, "the tensors are larger than the address space");
        }
        total += room / 64 * 64;
    }
    m->owned = peft__alloc(m->arena.mem, total);
    if (m->owned == NULL) { return PEFT_E_NOMEM; }
    m->owned_bytes = total;
    for (size_t i = 0, at = 0; i < s->count; i++) {
        peft__io_tensor *t = &s->tensors[i];
        if (t->size > 0) { memcpy(m->owned + at, t->data, t->size); }
        t->data = m->owned + at;
        at += (t->size + 63) / 64 * 64;
    }
    return PEFT_OK;
}

peft_status peft__model_of_memory(peft_context *ctx, const char *config_json, size_t len, const peft__model_memory *in, bool copy,
                                  const peft__task_ask *ask, struct peft_model **out) {
    peft_status st = PEFT_OK;
    struct peft_model *m = NULL;
    TRY(peft__model_new(ctx, "", &m));
    if (ask != NULL) { m->ask = *ask; }
    TRY(peft__model_set_config(m, config_json, len));
    TRY(memory_shard(m, in));
    if (copy) { TRY(memory_copy(m)); }
    TRY(peft__model_bind(m, "the tensors", peft__model_source_hf, NULL));
    m->release = copy ? NULL : in->release;
    m->release_user = in->user;
    *out = m;
    m = NULL;
out:
    peft__model_release(m);
    if ((copy || st != PEFT_OK) && in->release != NULL) { in->release(in->user); }
    return st;
}
