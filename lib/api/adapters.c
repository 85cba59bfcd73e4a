/* adapters.c - peft_adapters: adding, loading, combining, tensors; saving is in save.c. */
#include "api/api.h"

/* ---- the base, as adapters see it ------------------------------------------------------------------------------------ */

static void adapters_retain_model(void *owner) {
    peft__model_retain(owner);
}
static void adapters_release_model(void *owner) {
    peft__model_release(owner);
}

static const char *adapters_gguf_name(void *owner, size_t index, int32_t *interleave) {
    const struct peft_model *m = owner;
    *interleave = m->tensors[index].interleaved ? (int32_t)m->config.head_dim : 0;
    return m->tensors[index].gguf_name;
}

static const peft__weight *adapters_base_tensor(void *owner, size_t index, int32_t *ndim) {
    const struct peft_model *m = owner;
    *ndim = m->tensors[index].ndim;
    return &m->tensors[index].w;
}

peft__base_info peft__base_of_model(struct peft_model *m) {
    return (peft__base_info){
        .sites = m->sites,
        .n_sites = m->n_sites,
        .architecture = m->arch->name,
        .model_type = m->model_type,
        .path = m->path,
        .config_json = m->config_json,
        .task = &m->config.task,
        .model_class = m->class_name,
        .parameters = m->parameters,
        .retain = adapters_retain_model,
        .release = adapters_release_model,
        .owner = m,
        .n_tensors = m->n_tensors,
        .tensor = adapters_base_tensor,
        .gguf_name = adapters_gguf_name,
        .gguf_architecture = peft__arch_gguf_name(m->arch, &m->config),
    };
}

peft_status peft_adapters_create(peft_model *m, peft_adapters **out) {
    peft_status st = PEFT_OK;
    TRY(peft__check_arg(out, "out"));
    *out = NULL;
    TRY(peft__check_handle(m, PEFT__MAGIC_MODEL, "model"));
    peft__base_info base = peft__base_of_model(m);
    TRY(peft__set_create(m->ctx, &base, out));
out:
    return st;
}

void peft_adapters_free(peft_adapters *a) {
    if (peft__is_handle(a, PEFT__MAGIC_ADAPTERS)) { peft__set_release(a); }
}

/* ---- adding, loading, saving ------------------------------------------------------------------------------------------- */

static peft_status adapters_check(const peft_adapters *a, const char *name) {
    peft_status st = peft__check_handle(a, PEFT__MAGIC_ADAPTERS, "adapters");
    return st == PEFT_OK ? peft__check_text(name, "name") : st;
}

/* A name is also a word of expressions. */
static peft_status adapters_check_new(const peft_adapters *a, const char *name) {
    peft_status st = PEFT_OK;
    TRY(adapters_check(a, name));
    if (name[0] == '\0' || strlen(name) > 200) {
        FAIL(PEFT_E_INVALID, "an adapter's name has 1 to 200 bytes, not %zu", strlen(name));
    }
    for (const char *c = name; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || strchr(",()[]|:*+", *c) != NULL) {
            FAIL(PEFT_E_INVALID, "the adapter's name \"%s\" has a character that expressions need: one of ,()[]|:*+",
                 name);
        }
    }
out:
    return st;
}

static peft_status adapters_fail_method(const char *method) {
    const char *names[64];
    char known[448] = "";
    size_t n = 0, len = 0;
    for (; n < PEFT__COUNT(names) && peft__method_at(n) != NULL; n++) {
        names[n] = peft__method_at(n)->name;
        size_t more = strlen(names[n]);
        if (len + more + 3 > sizeof known) { continue; }
        if (len > 0) {
            memcpy(known + len, ", ", 2);
            len += 2;
        }
        memcpy(known + len, names[n], more + 1);
        len += more;
    }
    const char *near = peft__nearest(method, names, n);
    if (near != NULL) {
        return peft__fail(PEFT_E_UNSUPPORTED, "there is no method \"%s\"" PEFT__OF_BUILD "; did you mean \"%s\"? known: %s", method,
                          near, known);
    }
    return peft__fail(PEFT_E_UNSUPPORTED, "there is no method \"%s\"" PEFT__OF_BUILD "; known: %s", method, known);
}

/* Puts a new adapter into the set, or frees it. */
static peft_status adapters_put(peft_adapters *a, peft__adapter *made, bool replace) {
    peft_status st = peft__set_add(a, made, replace);
    if (st != PEFT_OK) { peft__adapter_release(made); }
    return st;
}

peft_status peft_adapters_add(peft_adapters *a, const char *name, const char *method, const peft_options *options,
                              uint64_t seed) {
    peft_status st = PEFT_OK;
    peft__optset own = {0};
    const peft__optset *o = NULL;
    peft__adapter *made = NULL;
    TRY(adapters_check_new(a, name));
    TRY(peft__check_text(method, "method"));
    const peft__method *found = peft__method_find(method);
    if (found == NULL) { return adapters_fail_method(method); }
    TRY(peft__pick_options(options, &a->ctx->mem, found->schema, &own, &o));
    TRY(peft__adapter_create_headed(&a->ctx->mem, a->ctx->kernels, &a->base, name, found, o, seed, &made));
    st = peft__adapters_start(a, made);
    if (st != PEFT_OK) {
        peft__adapter_release(made);
        goto out;
    }
    TRY(adapters_put(a, made, false));
out:
    peft__optset_free(&own);
    return st;
}

peft_status peft__adapters_read(const peft_adapters *a, const char *name, const char *path, bool allow_nan, peft__adapter **out) {
    peft__mem *mem = &a->ctx->mem;
    const peft__kernels *k = a->ctx->kernels;
    if (peft__gguf_probe(path)) { return peft__adapter_load_gguf(mem, k, &a->base, name, path, allow_nan, out); }
    if (peft__union_probe(path)) { return peft__union_load(mem, k, &a->base, name, path, allow_nan, out); }
    return peft__adapter_load_hf(mem, k, &a->base, name, path, allow_nan, out);
}

peft_status peft_adapters_load(peft_adapters *a, const char *name, const char *path, const peft_options *options) {
    peft_status st = PEFT_OK;
    peft__optset own = {0};
    const peft__optset *o = NULL;
    peft__adapter *made = NULL;
    TRY(adapters_check_new(a, name));
    TRY(peft__check_text(path, "path"));
    TRY(peft__pick_options(options, &a->ctx->mem, &peft__schema_load, &own, &o));
    TRY(peft__adapters_read(a, name, path, peft__opt_bool(o, "allow_nan"), &made));
    TRY(adapters_put(a, made, !PEFT__MINIMAL && peft__opt_bool(o, "replace")));
out:
    peft__optset_free(&own);
    return st;
}

peft_status peft_adapters_combine(peft_adapters *a, const char *name, const char *expression, const peft_options *options) {
    peft_status st = PEFT_OK;
    peft__optset own = {0};
    const peft__optset *o = NULL;
    peft__adapter *made = NULL;
    TRY(adapters_check_new(a, name));
    TRY(peft__check_text(expression, "expression"));
    TRY(peft__pick_options(options, &a->ctx->mem, &peft__schema_combine, &own, &o));
    TRY(peft__combine(a, name, expression, o, &made));
    TRY(adapters_put(a, made, false));
out:
    peft__optset_free(&own);
    return st;
}

/* The set changes nothing of itself by a look-up: its lock and the adapter's count are all that moves. */
static peft_adapters *adapters_mutable(const peft_adapters *a) {
    return (peft_adapters *)(uintptr_t)a;
}

static peft_status adapters_pin(const peft_adapters *a, const char *name, peft__adapter **out) {
    peft_status st = adapters_check(a, name);
    return st == PEFT_OK ? peft__set_pin(adapters_mutable(a), name, out) : st;
}

peft_status peft_adapters_remove(peft_adapters *a, const char *name) {
    peft_status st = adapters_check(a, name);
    return st == PEFT_OK ? peft__set_remove(a, name) : st;
}

size_t peft_adapters_count(const peft_adapters *a) {
    return peft__is_handle(a, PEFT__MAGIC_ADAPTERS) ? peft__set_count(a) : 0;
}

const char *peft_adapters_name(const peft_adapters *a, size_t index) {
    return peft__is_handle(a, PEFT__MAGIC_ADAPTERS) ? peft__set_name(a, index) : NULL;
}

peft_status peft_adapters_info_json(const peft_adapters *a, const char *name, char *buf, size_t cap, size_t *needed) {
    peft_status st = PEFT_OK;
    peft__str text;
    peft__adapter *pinned = NULL;
    TRY(peft__check_buffer(buf, cap, needed));
    TRY(adapters_pin(a, name, &pinned));
    peft__str_init(&text, &a->ctx->mem);
    st = peft__finish_text(peft__adapter_info(pinned, &text), &text, buf, cap, needed);
out:
    peft__adapter_release(pinned);
    return st;
}

/* ---- tensors: those of an adapter, or of all parts of one that is made of others --------------------------------------- */

typedef struct adapters_tensor {
    const peft__adapter *a;
    size_t index;
} adapters_tensor;

/* Trainable tensor number *left, counted down; false: there are fewer. */
static bool adapters_trainable(const peft__adapter *a, size_t *left, adapters_tensor *out) {
    for (size_t i = 0; i < peft__adapter_own_parts(a); i++) {
        if (adapters_trainable(PEFT__VEC_AT(&a->parts, peft__adapter *, i), left, out)) { return true; }
    }
    for (size_t i = 0; i < peft__adapter_param_count(a); i++) {
        if (peft__adapter_param_at(a, i)->frozen || (*left)-- > 0) { continue; }
        *out = (adapters_tensor){a, i};
        return true;
    }
    return false;
}

/* Of parts that have one of this name each, that of the last, whose head counts. */
static bool adapters_named(const peft__adapter *a, const char *tensor, adapters_tensor *out) {
    for (size_t i = peft__adapter_own_parts(a); i > 0; i--) {
        if (adapters_named(PEFT__VEC_AT(&a->parts, peft__adapter *, i - 1), tensor, out)) { return true; }
    }
    out->a = a;
    return peft__adapter_find(a, tensor, &out->index) != NULL;
}

size_t peft_adapters_tensor_count(const peft_adapters *a, const char *name) {
    peft__adapter *pinned = NULL;
    adapters_tensor t;
    size_t left = SIZE_MAX;
    if (adapters_pin(a, name, &pinned) != PEFT_OK) { return 0; }
    (void)adapters_trainable(pinned, &left, &t);
    peft__adapter_release(pinned);
    return SIZE_MAX - left;
}

peft_status peft_adapters_tensor_info(const peft_adapters *a, const char *name, size_t index, const char **tensor,
                                      int32_t *ndim, int64_t dims[8]) {
    peft_status st = PEFT_OK;
    peft__adapter *pinned = NULL;
    adapters_tensor t;
    size_t left = index;
    TRY(adapters_pin(a, name, &pinned));
    if (!adapters_trainable(pinned, &left, &t)) {
        FAIL(PEFT_E_NOT_FOUND, "adapter \"%s\" has no trainable tensor %zu", name, index);
    }
    const peft__adapter_param *p = peft__adapter_param_at(t.a, t.index);
    bool flipped = peft__adapter_flipped(t.a, t.index);
    if (tensor != NULL) { *tensor = p->p.name; }
    if (ndim != NULL) { *ndim = p->ndim; }
    if (dims != NULL) {
        memcpy(dims, p->dims, (size_t)p->ndim * sizeof *dims);
        if (flipped) { dims[0] = p->p.cols, dims[1] = p->p.rows; }
    }
out:
    peft__adapter_release(pinned);
    return st;
}

static peft_status adapters_find(const peft__adapter *a, const char *tensor, adapters_tensor *out) {
    adapters_tensor t;
    if (adapters_named(a, tensor, out)) { return PEFT_OK; }
    for (size_t i = 0, left = 0; left = i, adapters_trainable(a, &left, &t); i++) {
        const char *known = peft__adapter_param_at(t.a, t.index)->p.name, *near = peft__nearest(tensor, &known, 1);
        if (near == NULL) { continue; }
        return peft__fail(PEFT_E_NOT_FOUND, "adapter \"%s\" has no tensor \"%s\"; did you mean \"%s\"?", a->name,
                          tensor, near);
    }
    return peft__fail(PEFT_E_NOT_FOUND, "adapter \"%s\" has no tensor \"%s\"", a->name, tensor);
}

/* Where element i of the file's order is in the adapter's values. */
static int64_t adapters_place(const peft__adapter_param *p, bool flipped, int64_t i) {
    return flipped ? i % p->p.rows * p->p.cols + i / p->p.rows : i;
}

peft_status peft_adapters_tensor_read(const peft_adapters *a, const char *name, const char *tensor, float *buf,
                                      size_t cap, size_t *needed) {
    peft_status st = PEFT_OK;
    peft__adapter *pinned = NULL;
    adapters_tensor t;
    TRY(peft__check_buffer(buf, cap, needed));
    TRY(peft__check_text(tensor, "tensor"));
    TRY(adapters_pin(a, name, &pinned));
    TRY(adapters_find(pinned, tensor, &t));
    const peft__adapter_param *p = peft__adapter_param_at(t.a, t.index);
    int64_t n = p->p.rows * p->p.cols;
    if (needed != NULL) { *needed = (size_t)n; }
    if (cap < (size_t)n) {
        FAIL(PEFT_E_BUFFER, "the buffer has room for %zu floats, tensor \"%s\" has %lld", cap, tensor, (long long)n);
    }
    bool flipped = peft__adapter_flipped(t.a, t.index);
    for (int64_t i = 0; i < n; i++) { buf[i] = (float)p->p.value[adapters_place(p, flipped, i)]; }
out:
    peft__adapter_release(pinned);
    return st;
}

peft_status peft_adapters_tensor_write(peft_adapters *a, const char *name, const char *tensor, const float *buf,
                                       size_t n) {
    peft_status st = PEFT_OK;
    peft__adapter *pinned = NULL;
    adapters_tensor t;
    TRY(peft__check_text(tensor, "tensor"));
    TRY(peft__check_bytes(buf, n, "buf"));
    TRY(adapters_pin(a, name, &pinned));
    TRY(adapters_find(pinned, tensor, &t));
    const peft__adapter_param *p = peft__adapter_param_at(t.a, t.index);
    int64_t have = p->p.rows * p->p.cols;
    if ((size_t)have != n) {
        FAIL(PEFT_E_SHAPE, "tensor \"%s\" has %lld values, and %zu are given", tensor, (long long)have, n);
    }
    bool flipped = peft__adapter_flipped(t.a, t.index);
    for (int64_t i = 0; i < have; i++) { p->p.value[adapters_place(p, flipped, i)] = (peft__real)buf[i]; }
out:
    peft__adapter_release(pinned);
    return st;
}
