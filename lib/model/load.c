/* load.c - a model's life: opening, binding of tensors to what the architecture asks for, references, look-ups.
 *
 * load_hf.c and load_gguf.c read the config and say where each tensor is; from then on all names, shapes and row orders are
 * Hugging Face's. Nothing is copied but small vectors (sites.c). */
#include "model/parts.h"

peft_status peft__model_new(peft_context *ctx, const char *path, struct peft_model **out) {
    peft_status st = PEFT_OK;
    struct peft_model *m = peft__alloc_zero(&ctx->mem, sizeof *m);
    if (m == NULL) { return PEFT_E_NOMEM; }
    m->magic = PEFT__MAGIC_MODEL;
    m->ask = (peft__task_ask){.kind = -1, .problem = -1, .pool = -1, .normalize = -1};
    atomic_init(&m->refs, 1);
    m->ctx = ctx;
    peft__ctx_retain(ctx);
    peft__arena_init(&m->arena, &ctx->mem);
    peft__map_init(&m->index, &ctx->mem);
    m->path = peft__arena_strdup(&m->arena, path, strlen(path));
    if (m->path == NULL) {
        peft__model_release(m);
        return PEFT_E_NOMEM;
    }
    *out = m;
    return st;
}

void peft__model_retain(struct peft_model *m) { atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed); }

void peft__model_release(struct peft_model *m) {
    if (m == NULL || atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1) { return; }
    peft_context *ctx = m->ctx;
    for (size_t i = 0; i < m->n_shards; i++) { peft__safetensors_close(&m->shards[i]); }
    if (m->gguf != NULL) { peft__gguf_close(m->gguf); }
    peft__free(&ctx->mem, m->owned, m->owned_bytes);
    peft__map_free(&m->index);
    peft__arena_free(&m->arena);
    if (m->release != NULL) { m->release(m->release_user); }
    m->magic = PEFT__MAGIC_FREED;
    peft__free(&ctx->mem, m, sizeof *m);
    peft__ctx_release(ctx);
}

peft_status peft__model_open(peft_context *ctx, const char *path, bool copy, const peft__task_ask *ask, struct peft_model **out) {
    peft_status st = PEFT_OK;
    struct peft_model *m = NULL;
    bool dir = peft__path_is_dir(path);
    if (!dir && !peft__path_exists(path)) { FAIL(PEFT_E_NOT_FOUND, "%s: no such file or folder", path); }
    if (!dir && !peft__gguf_probe(path)) {
        TRY(peft__path_no_lfs_pointer(path));
        FAIL(PEFT_E_FORMAT, "%s: neither a folder with config.json nor a GGUF file", path);
    }
    TRY(peft__model_new(ctx, path, &m));
    if (ask != NULL) { m->ask = *ask; }
    TRY(dir ? peft__model_load_hf(m, copy) : peft__model_load_gguf(m, copy));
    *out = m;
    m = NULL;
out:
    peft__model_release(m);
    return st;
}

/* A GGUF that has an embedding is a model; adapters and bare vocabularies have none. */
static bool model_probe_gguf(const char *path) {
    peft__mem mem;
    peft__gguf g;
    memset(&g, 0, sizeof g);
    peft__mem_init(&mem, NULL);
    bool found = peft__gguf_open(&mem, path, false, &g) == PEFT_OK && peft__gguf_find(&g, "token_embd.weight") != NULL;
    peft__gguf_close(&g);
    return found;
}

bool peft__model_probe(const char *path) {
    static const char *const weights[] = {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"};
    if (!peft__path_is_dir(path)) { return peft__gguf_probe(path) && model_probe_gguf(path); }
    peft__mem mem;
    peft__arena a;
    char *file = NULL;
    bool found = false;
    peft__mem_init(&mem, NULL);
    peft__arena_init(&a, &mem);
    if (peft__path_join(&a, path, "config.json", &file) == PEFT_OK && peft__path_exists(file)) {
        for (size_t i = 0; i < PEFT__COUNT(weights) && !found; i++) {
            found = peft__path_join(&a, path, weights[i], &file) == PEFT_OK && peft__path_exists(file);
        }
    }
    peft__arena_free(&a);
    return found;
}

/* ---- config -------------------------------------------------------------------------------------------------------------- */

peft_status peft__model_set_config(struct peft_model *m, const char *text, size_t len) {
    peft_status st = PEFT_OK;
    peft__arena a;
    const peft__json *config = NULL;
    size_t type = 0;
    const char *what = "config.json";
    peft__arena_init(&a, m->arena.mem);
    TRY(peft__json_parse(&a, text, len, what, &config));
    TRY(peft__arch_of_config(config, what, &m->arch, &type));
    TRY(m->arch->read_config(config, what, &m->arena, &m->config));
    TRY(peft__heads_choose(m, config, what));
    m->model_type = m->arch->model_types[type];
    m->config_json = peft__arena_strdup(&m->arena, text, len);
    if (m->config_json == NULL) { st = PEFT_E_NOMEM; }
    m->config_json_len = len;
out:
    peft__arena_free(&a);
    return st;
}

/* ---- tensors ------------------------------------------------------------------------------------------------------------- */

/* "[3, 4]", cut off where it is long. */
static void model_dims(int32_t ndim, const int64_t *dims, char out[96]) {
    size_t len = 0;
    out[len++] = '[';
    for (int32_t i = 0; i < ndim && len < 70; i++) {
        char digits[20];
        int n = 0;
        if (i > 0) {
            out[len++] = ',';
            out[len++] = ' ';
        }
        for (int64_t v = dims[i]; n == 0 || v > 0; v /= 10) { digits[n++] = (char)('0' + v % 10); }
        while (n > 0) { out[len++] = digits[--n]; }
    }
    out[len++] = ']';
    out[len] = '\0';
}

peft_status peft__model_accept(const char *file, const peft__io_tensor *t, const struct peft__tensor_spec *spec, bool conv1d,
                               peft__model_tensor *out) {
    int64_t want[2] = {spec->rows, spec->cols};
    int32_t ndim = spec->ndim;
    if (ndim == 1) { want[0] = spec->cols; }
    if (conv1d) {
        want[0] = spec->cols;
        want[1] = spec->rows;
    }
    if (t->ndim != ndim || t->dims[0] != want[0] || (ndim == 2 && t->dims[1] != want[1])) {
        char have[96], expected[96];
        model_dims(t->ndim, t->dims, have);
        model_dims(ndim, want, expected);
        return peft__fail(PEFT_E_SHAPE, "%s: tensor \"%s\" has shape %s, expected %s", file, t->name, have, expected);
    }
    int64_t block = peft__dtype_elems(t->dtype);
    if (block == 0) {
        return peft__fail(PEFT_E_UNSUPPORTED,
                          "%s: tensor \"%s\" has type %s, expected F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K "
                          "or Q6_K", file, t->name, t->dtype_name);
    }
    out->w.data = t->data;
    out->w.dtype = t->dtype;
    out->w.transposed = conv1d;
    out->w.row_bytes = (int64_t)peft__dtype_bytes(t->dtype, t->dims[t->ndim - 1]);
    return PEFT_OK;
}

static void model_describe(const struct peft__tensor_spec *spec, peft__model_tensor *t) {
    memset(t, 0, sizeof *t);
    t->w.name = spec->hf_name;
    t->w.rows = spec->rows;
    t->w.cols = spec->cols;
    t->ndim = spec->ndim;
    t->dims[0] = spec->ndim == 1 || spec->conv1d ? spec->cols : spec->rows;
    t->dims[1] = spec->ndim == 1 ? 1 : spec->conv1d ? spec->rows : spec->cols;
    t->gguf_name = spec->gguf_name;
    t->conv1d = spec->conv1d;
    t->interleaved = spec->interleaved;
    t->gguf_plus = spec->gguf_plus;
    t->gguf_f32 = spec->gguf_f32;
    t->fused = spec->fused;
}

/* A head that is stored although the config ties it: a copy of the embedding is dropped, another one unties. */
static bool model_head_is_copy(struct peft_model *m, const peft__model_tensor *embed, const peft__model_tensor *head) {
    size_t size = peft__dtype_bytes(head->w.dtype, head->w.rows * head->w.cols);
    if (embed->w.dtype == head->w.dtype && memcmp(embed->w.data, head->w.data, size) == 0) { return true; }
    peft__log(m->ctx, PEFT_LOG_WARN, "%s: the head is stored apart and differs from the embedding, although "
              "tie_word_embeddings is true: it is used as it is stored", m->path);
    m->config.tie_embeddings = false;
    return false;
}

static peft_status model_collect(struct peft_model *m, const char *file, peft__model_source source, void *user,
                                 peft__vec *list) {
    peft_status st = PEFT_OK;
    struct peft__tensor_spec spec;
    for (size_t i = 0;; i++) {
        peft__model_tensor t;
        bool found = false;
        memset(&spec, 0, sizeof spec);
        if (!peft__model_spec(m, &m->arena, i, &spec)) { break; }
        if (spec.hf_name == NULL || spec.gguf_name == NULL) { return PEFT_E_NOMEM; }
        if (spec.unused) { continue; }
        model_describe(&spec, &t);
        TRY(source(m, user, &spec, &t, &found));
        if (!found && spec.optional) { continue; }
        if (!found && spec.fresh) {
            TRY(peft__heads_make(m, &spec, &t));
            found = true;
        }
        if (!found) {
            FAIL(PEFT_E_NOT_FOUND, "%s: tensor \"%s\" is missing", file, m->gguf != NULL ? spec.gguf_name : spec.hf_name);
        }
        bool head = spec.optional && !spec.fresh && list->len > 0 && t.w.rows == PEFT__VEC_AT(list, peft__model_tensor, 0).w.rows;
        if (head && m->config.tie_embeddings &&
            model_head_is_copy(m, &PEFT__VEC_AT(list, peft__model_tensor, 0), &t)) { continue; }
        TRY(peft__vec_push(list, &t));
    }
out:
    return st;
}

peft_status peft__model_bind(struct peft_model *m, const char *file, peft__model_source source, void *user) {
    peft_status st = PEFT_OK;
    peft__vec list;
    peft__vec_init(&list, m->arena.mem, sizeof(peft__model_tensor));
    TRY(model_collect(m, file, source, user, &list));
    m->tensors = peft__arena_alloc(&m->arena, list.len * sizeof *m->tensors);
    if (m->tensors == NULL) {
        st = PEFT_E_NOMEM;
        goto out;
    }
    memcpy(m->tensors, list.data, list.len * sizeof *m->tensors);
    m->n_tensors = list.len;
    for (size_t i = 0; i < m->n_tensors; i++) {
        const peft__weight *w = &m->tensors[i].w;
        TRY(peft__map_put(&m->index, w->name, strlen(w->name), (int64_t)i));
        m->parameters += w->rows * w->cols;
        m->bytes += peft__dtype_bytes(w->dtype, w->rows * w->cols);
    }
    TRY(m->arch->sites(m));
    TRY(peft__heads_sites(m));
    m->class_name = peft__heads_class(m, &m->arena);
    if (m->class_name == NULL) { st = PEFT_E_NOMEM; }
out:
    peft__vec_free(&list);
    return st;
}

const peft__model_tensor *peft__model_find(const struct peft_model *m, const char *hf_name) {
    int64_t i = peft__map_get(&m->index, hf_name, strlen(hf_name));
    return i >= 0 ? &m->tensors[i] : NULL;
}

const peft__site *peft__model_site(const struct peft_model *m, const char *path) {
    for (size_t i = 0; i < m->n_sites; i++) {
        if (strcmp(m->sites[i].path, path) == 0) { return &m->sites[i]; }
    }
    return NULL;
}

size_t peft__model_resident(const struct peft_model *m) {
    size_t bytes = 0;
    for (size_t i = 0; i < m->n_shards; i++) { bytes += peft__file_resident(&m->shards[i].file); }
    if (m->gguf != NULL) { bytes += peft__file_resident(&m->gguf->file); }
    return bytes;
}

void peft__model_read(const struct peft_model *m, size_t index, float *out) {
    enum { PIECE = 256 }; /* whole blocks of every type */
    const peft__model_tensor *t = &m->tensors[index];
    peft__real piece[PIECE];
    int64_t rows = t->w.transposed ? t->w.cols : t->w.rows, cols = t->w.transposed ? t->w.rows : t->w.cols;
    bool across = t->conv1d != t->w.transposed; /* GGUF keeps [out][in] where Hugging Face has [in][out] */
    for (int64_t r = 0; r < rows; r++) {
        int64_t stored = t->w.transposed ? r : peft__weight_stored_row(&t->w, r);
        const uint8_t *src = t->w.data + stored * t->w.row_bytes;
        for (int64_t c = 0; c < cols; c += PIECE) {
            int64_t n = PEFT__MIN((int64_t)PIECE, cols - c);
            m->ctx->kernels->dequant(t->w.dtype, src + peft__dtype_bytes(t->w.dtype, c), n, piece);
            for (int64_t i = 0; i < n; i++) { out[across ? (c + i) * rows + r : r * cols + c + i] = (float)piece[i]; }
        }
    }
}
