/* verify_model.c - looks for what is wrong in a model: config, shards, tensors and their values, the tokenizer beside it, and what one
 * pass gives.
 *
 * Structure and shapes are those that opening checks. What is looked at besides: positions and rotations that cannot be, ids beyond
 * the vocabulary, what the index of shards says, values that are no numbers, matrices of zeros.
 *
 * Left out: whether the weights are trained ones; heads that the model's task does not use, but for their values. */
#include <math.h>
#include <stdio.h>

#include "api/verify.h"

enum { VERIFY_TOKENS = 8 }; /* of the row that a pass reads */

/* ---- config ----------------------------------------------------------------------------------------------------------------- */

static void verify_model_rope(peft__verify *v, const struct peft_model *m) {
    const peft__config *c = &m->config;
    bool scaled = c->rope_scaling != PEFT__ROPE_NONE;
    if (!(c->rope_theta > 0)) { return; } /* no rotations */
    if (scaled && c->rope_scaling != PEFT__ROPE_LONGROPE && c->rope_factor < 1) {
        peft__finding_error(&v->f, PEFT_E_FORMAT, m->path, "rope scaling", "its factor is %g, expected 1 or more: a scaling makes rows "
                            "longer, not shorter", c->rope_factor);
    }
    if (scaled && c->rope_original_positions > c->max_positions) {
        peft__finding_error(&v->f, PEFT_E_FORMAT, m->path, "rope scaling", "it starts from %lld positions, and the model has %lld in all",
                            (long long)c->rope_original_positions, (long long)c->max_positions);
    }
}

/* What model.safetensors.index.json says of its shards that opening them does not need. */
static peft_status verify_model_index(peft__verify *v, const struct peft_model *m) {
    peft_status st = PEFT_OK;
    peft__arena a;
    char *path = NULL;
    const peft__json *index = NULL;
    int64_t said = 0, bytes = 0, listed = 0;
    peft__arena_init(&a, &v->ctx->mem);
    TRY(peft__path_join(&a, m->path, "model.safetensors.index.json", &path));
    if (m->n_shards < 2 || !peft__path_exists(path)) { goto out; }
    TRY(peft__json_read(&a, path, &index));
    const peft__json *map = peft__json_find(index, "weight_map"), *meta = peft__json_find(index, "metadata");
    for (size_t s = 0; s < m->n_shards; s++) {
        for (size_t i = 0; i < m->shards[s].count; i++) {
            const peft__io_tensor *t = &m->shards[s].tensors[i];
            bytes += (int64_t)t->size;
            if (peft__json_get(map, t->name) != NULL) {
                listed++;
            } else {
                peft__finding_warn(&v->f, path, "key \"weight_map\"", "tensor \"%.200s\" of a shard is not in it", t->name);
            }
        }
    }
    st = peft__json_int(meta, path, "total_size", bytes, 0, INT64_MAX, &said);
    TRY(peft__finding_failed(&v->f, st, path, ""));
    if (st == PEFT_OK && said != bytes) {
        peft__finding_warn(&v->f, path, "key \"total_size\"", "it is %lld, and the tensors of the shards have %lld bytes", (long long)said,
                           (long long)bytes);
    }
out:
    st = peft__finding_failed(&v->f, st, path != NULL ? path : m->path, "");
    peft__arena_free(&a);
    return st;
}

/* ---- values ------------------------------------------------------------------------------------------------------------------- */

/* Does the model read these bytes? Vectors of a GGUF may be copies. */
static bool verify_model_uses(const struct peft_model *m, const peft__io_tensor *t) {
    if (m->gguf != NULL) { return true; }
    for (size_t i = 0; i < m->n_tensors; i++) {
        if (m->tensors[i].w.data == t->data) { return true; }
    }
    return false;
}

static void verify_model_tensor(peft__verify *v, const struct peft_model *m, const char *file, const peft__io_tensor *t) {
    char where[PEFT__SCAN_NAME];
    int64_t n = 0;
    peft__scan_result r;
    v->tensors++;
    if (t->dtype == PEFT__IO_DTYPE_OTHER || peft__dtype_elems(t->dtype) == 0 || t->size == 0) { return; }
    if (peft__io_elements(t->ndim, t->dims, 0, &n) != PEFT_OK) { return; }
    v->values += n;
    bool used = verify_model_uses(m, t);
    peft__scan(v->ctx->kernels, t->dtype, t->data, n, &r);
    if (peft__scan_report(&r, t->ndim, t->dims, file, t->name, used, &v->f)) { return; }
    if (!used || !r.zeros || t->ndim < 2 || t->dims[0] < 2 || n < 64) { return; }
    (void)snprintf(where, sizeof where, "tensor \"%.1000s\"", t->name);
    peft__finding_warn(&v->f, file, where, "all of its %lld values are 0: was the file copied whole?", (long long)n);
}

static void verify_model_values(peft__verify *v, const struct peft_model *m) {
    for (size_t i = 0; m->gguf != NULL && i < m->gguf->count; i++) { verify_model_tensor(v, m, m->path, &m->gguf->tensors[i]); }
    for (size_t s = 0; s < m->n_shards; s++) {
        for (size_t i = 0; i < m->shards[s].count; i++) { verify_model_tensor(v, m, m->path, &m->shards[s].tensors[i]); }
    }
}

/* ---- a pass ------------------------------------------------------------------------------------------------------------------- */

static peft_status verify_forward_run(peft__verify *v, struct peft_session *s, const char *path) {
    peft_status st = PEFT_OK;
    peft__mem *mem = &v->ctx->mem;
    const peft__config *c = &s->model->config;
    int32_t ids[VERIFY_TOKENS];
    size_t n = (size_t)PEFT__MIN((int64_t)VERIFY_TOKENS, s->max_length), count = 0, bytes = 0;
    float *out = NULL;
    for (size_t i = 0; i < n; i++) { ids[i] = (int32_t)((int64_t)i * (c->vocab_size - 1) / (VERIFY_TOKENS - 1)); }
    const int64_t offsets[2] = {0, (int64_t)n};
    peft__session_rows rows = {.ids = ids, .offsets = offsets, .n = 1};
    if (c->encoder_layers > 0) {
        rows.source_ids = ids;
        rows.source_offsets = offsets;
    }
    if (!peft__session_output_size(s, n, 1, &count) || !peft__mul(count, sizeof *out, &bytes)) { return PEFT_OK; }
    out = peft__alloc(mem, bytes);
    if (out == NULL) { return PEFT_E_NOMEM; }
    TRY(peft__session_logits(s, &rows, out));
    v->passed = true;
    for (size_t i = 0; i < count; i++) {
        if (isfinite(out[i])) { continue; }
        peft__finding_error(&v->f, PEFT_E_NUMERIC, path, "forward pass", "output %zu of %zu over %zu tokens is NaN or infinite", i, count,
                            n);
        break;
    }
out:
    peft__free(mem, out, bytes);
    return st;
}

peft_status peft__verify_forward(peft__verify *v, const char *path, struct peft_model *m, struct peft_adapters *set,
                                 const char *expression) {
    peft_status st = PEFT_OK;
    peft__optset own = {0};
    struct peft_session *s = NULL;
    if (!v->forward) { return PEFT_OK; }
    TRY(peft__optset_init(&own, &v->ctx->mem, &peft__schema_session));
    TRY(peft__opt_set_int(&own, "chunk", 2 * VERIFY_TOKENS));
    TRY(peft__session_create(m, set, expression, &own, &s));
    TRY(verify_forward_run(v, s, path));
out:
    st = peft__finding_failed(&v->f, st, path, "forward pass");
    peft__session_free(s);
    peft__optset_free(&own);
    return st;
}

/* ---- tokenizers ---------------------------------------------------------------------------------------------------------------- */

/* The folder that a tokenizer's settings are in; *out NULL: they are in the GGUF file. */
static peft_status verify_tokenizer_folder(peft__arena *a, const char *path, const char **out) {
    const char *name = peft__path_name(path);
    *out = NULL;
    if (!peft__path_is_dir(path) && peft__gguf_probe(path)) { return PEFT_OK; }
    *out = peft__path_is_dir(path) ? path : name == path ? "." : NULL;
    if (*out != NULL) { return PEFT_OK; }
    *out = peft__arena_strdup(a, path, (size_t)(name - path) - (name - path > 1 ? 1 : 0));
    return *out != NULL ? PEFT_OK : PEFT_E_NOMEM;
}

/* rows: of the embedding; 0: there is no model. */
static peft_status verify_tokenizer_in(peft__verify *v, const char *path, int64_t rows, peft__json_out *j) {
    peft_status st = PEFT_OK;
    peft__tokenizer *t = NULL;
    const peft__json *info = NULL;
    peft__str text;
    peft__arena a;
    peft__arena_init(&a, &v->ctx->mem);
    peft__str_init(&text, &v->ctx->mem);
    const char *folder = NULL;
    TRY(verify_tokenizer_folder(&a, path, &folder));
    st = peft__tokenizer_open(&v->ctx->mem, path, &t);
    TRY(peft__finding_failed(&v->f, st, path, ""));
    if (t != NULL) {
        TRY(peft__tokenizer_verify(t, path, rows, &v->f));
        TRY(peft__tokenizer_info(t, &text));
        TRY(peft__json_parse(&a, peft__str_c(&text), text.len, "tokenizer", &info));
        static const char *const keys[] = {"kind", "source", "size", "merges", "chat_format"};
        peft__json_object(j);
        for (size_t i = 0; i < PEFT__COUNT(keys); i++) {
            peft__json_key(j, keys[i]);
            peft__json_put_node(j, peft__json_get(info, keys[i]));
        }
        peft__json_object_end(j);
    } else {
        peft__json_put_null(j);
    }
    int64_t limit = rows > 0 ? rows : t != NULL ? peft__tokenizer_size(t) : INT32_MAX;
    if (folder != NULL) { TRY(peft__tokenizer_verify_folder(t, folder, limit, &v->ctx->mem, &v->f)); }
out:
    peft__tokenizer_free(t);
    peft__str_free(&text);
    peft__arena_free(&a);
    return st;
}

peft_status peft__verify_tokenizer(peft__verify *v, const char *path) {
    peft__json_out j;
    v->kind = "tokenizer";
    peft__json_begin(&j, &v->about, 0);
    return verify_tokenizer_in(v, path, v->base != NULL ? v->base->config.vocab_size : 0, &j);
}

/* ---- a model ------------------------------------------------------------------------------------------------------------------- */

static void verify_model_about(const struct peft_model *m, peft__json_out *j) {
    const peft__config *c = &m->config;
    const struct { const char *key; const char *text; int64_t n; } members[] = {
        {"architecture", m->arch->name, 0}, {"model_type", m->model_type, 0}, {"task", peft__task_name(c->task.kind), 0},
        {"parameters", NULL, m->parameters}, {"bytes", NULL, (int64_t)m->bytes}, {"num_hidden_layers", NULL, c->layers},
        {"hidden_size", NULL, c->hidden_size}, {"vocab_size", NULL, c->vocab_size}, {"max_position_embeddings", NULL, c->max_positions}};
    for (size_t i = 0; i < PEFT__COUNT(members); i++) {
        peft__json_key(j, members[i].key);
        if (members[i].text != NULL) { peft__json_put_text(j, members[i].text); } else { peft__json_put_int(j, members[i].n); }
    }
}

/* Some writers say "none" where there are no words. */
static bool verify_model_has_words(const struct peft_model *m, const char *path) {
    if (!peft__gguf_probe(path)) { return peft__tokenizer_probe(path); }
    const peft__gguf_kv *kv = m != NULL ? peft__gguf_get(m->gguf, "tokenizer.ggml.model") : NULL;
    if (kv == NULL || kv->type != PEFT__GGUF_STRING) { return kv != NULL; }
    return !(kv->str.len == 4 && memcmp(kv->str.data, "none", 4) == 0) && !(kv->str.len == 8 && memcmp(kv->str.data, "no_vocab", 8) == 0);
}

peft_status peft__verify_model(peft__verify *v, const char *path) {
    peft_status st = PEFT_OK;
    struct peft_model *m = NULL;
    peft__json_out j;
    v->kind = "model";
    peft__json_begin(&j, &v->about, 0);
    peft__json_object(&j);
    st = peft__model_open(v->ctx, path, false, NULL, &m);
    TRY(peft__finding_failed(&v->f, st, path, ""));
    if (m != NULL) {
        verify_model_about(m, &j);
        verify_model_rope(v, m);
        if (m->gguf == NULL) { TRY(verify_model_index(v, m)); }
        if (v->weights) { verify_model_values(v, m); }
        if (m->new_head) {
            peft__finding_warn(&v->f, path, "head", "the model's files have none for the task %s: it is made at random",
                               peft__task_name(m->config.task.kind));
        }
    }
    peft__json_key(&j, "tokenizer");
    if (verify_model_has_words(m, path)) {
        TRY(verify_tokenizer_in(v, path, m != NULL ? m->config.vocab_size : 0, &j));
    } else {
        peft__json_put_null(&j);
        if (m != NULL && m->gguf == NULL) {
            TRY(peft__tokenizer_verify_folder(NULL, path, m->config.vocab_size, &v->ctx->mem, &v->f));
        }
        peft__finding_warn(&v->f, path, "", "there is no tokenizer with it: rows and prompts must be token ids");
    }
    peft__json_object_end(&j);
    if (m != NULL) { TRY(peft__verify_forward(v, path, m, NULL, NULL)); }
out:
    peft__model_release(m);
    return st;
}
