/* merge.c - base plus adapters as a model of its own: what each tensor becomes is peft/'s to say, how it is written model/'s;
 * here they meet, and the tokenizer goes along where the formats differ.
 *
 * A head that is tied to the embedding gets a tensor of its own where only one of the two changes. */
#include "api/api.h"

typedef struct merge_job {
    struct peft_model *m;
    peft__adapter *adapters[PEFT__EXPRESSION_MAX]; /* pinned by the caller's expression */
    double factors[PEFT__EXPRESSION_MAX];
    size_t n;
    bool *changed;         /* owned, [n_tensors] */
    const char *head_name; /* tensor of the head; NULL: there is no head site */
    bool untie, head;      /* write a head of its own; it is what changed, not the embedding */
    int64_t new_tokens;    /* that the adapters add */
    peft__run run;         /* owned pool and scratch */
} merge_job;

static bool merge_changed(void *user, size_t index) {
    const merge_job *j = user;
    return j->changed[index];
}

static bool merge_head(void *user) {
    return ((const merge_job *)user)->head;
}

/* Logical [out, in] order to that of the file. */
static void merge_order(const peft__model_tensor *t, int64_t rows, const peft__real *from, float *out) {
    int64_t cols = t->w.cols;
    for (int64_t i = 0; i < rows * cols; i++) {
        out[i] = (float)(t->conv1d ? from[i % rows * cols + i / rows] : from[i]);
    }
}

static peft_status merge_value(void *user, size_t index, float *out) {
    peft_status st = PEFT_OK;
    merge_job *j = user;
    const peft__model_tensor *t = &j->m->tensors[index];
    const char *name = index == 0 && j->head ? j->head_name : t->w.name;
#ifndef PEFT_DOUBLE
    if (!t->conv1d) { return peft__merge_value(j->adapters, j->n, j->factors, name, &t->w, &j->run, out); }
#endif
    int64_t rows = t->w.rows + peft__model_more_rows(j->m, index, j->new_tokens);
    size_t bytes = (size_t)(rows * t->w.cols) * sizeof(peft__real);
    peft__real *values = peft__alloc(&j->m->ctx->mem, bytes);
    if (values == NULL) { return PEFT_E_NOMEM; }
    TRY(peft__merge_value(j->adapters, j->n, j->factors, name, &t->w, &j->run, values));
    merge_order(t, rows, values, out);
out:
    peft__free(&j->m->ctx->mem, values, bytes);
    return st;
}

static peft_status merge_look(merge_job *j, peft__arena *a) {
    peft_status st = PEFT_OK;
    bool head = false;
    for (size_t i = 0; i < j->m->n_tensors; i++) {
        TRY(peft__merge_changes(j->adapters, j->n, j->m->tensors[i].w.name, &j->changed[i]));
    }
    j->untie = j->m->config.tie_embeddings && peft__merge_unties(j->adapters, j->n);
    if (!j->untie) { return PEFT_OK; }
    for (size_t i = 0; i < j->m->n_sites; i++) {
        if (j->m->sites[i].kind != PEFT__SITE_HEAD) { continue; }
        j->head_name = peft__arena_printf(a, "%s.weight", j->m->sites[i].path);
        if (j->head_name == NULL) { return PEFT_E_NOMEM; }
    }
    if (j->head_name != NULL) { TRY(peft__merge_changes(j->adapters, j->n, j->head_name, &head)); }
    if (head && j->changed[0]) {
        FAIL(PEFT_E_UNSUPPORTED, "the embedding and the head that is tied to it both change, each in its own way");
    }
    j->head = head;
    j->changed[0] = j->changed[0] || head;
out:
    return st;
}

/* The adapters in order, each with the factors above it. */
static void merge_leaves(merge_job *j, const peft__node *n, double factor) {
    factor *= n->factor;
    if (n->leaf >= 0 && factor != 0) {
        j->adapters[j->n] = n->adapter;
        j->factors[j->n++] = factor;
    }
    for (size_t i = 0; i < n->n; i++) { merge_leaves(j, n->child[i], factor); }
}

static peft_status merge_new_tokens(merge_job *j) {
    peft_status st = PEFT_OK;
    const char *owner = NULL;
    for (size_t i = 0; i < j->n; i++) {
        const peft__adapter *a = j->adapters[i];
        if (a->new_tokens == 0) { continue; }
        if (owner != NULL) {
            FAIL(PEFT_E_UNSUPPORTED, "adapters \"%s\" and \"%s\" both add tokens to the vocabulary", owner, a->name);
        }
        if (j->factors[i] != 1) {
            FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\" adds tokens to the vocabulary, which has no factor", a->name);
        }
        owner = a->name;
        j->new_tokens = a->new_tokens;
    }
out:
    return st;
}

static peft_status merge_begin(merge_job *j, peft__arena *a, struct peft_model *m, const peft__expression *e) {
    peft_status st = PEFT_OK;
    peft_context *ctx = m->ctx;
    memset(j, 0, sizeof *j);
    j->m = m;
    TRY(peft__expression_flat(e, "merging"));
    if (e->root != NULL) { merge_leaves(j, e->root, 1); }
    j->changed = peft__arena_alloc(a, m->n_tensors * sizeof *j->changed);
    if (j->changed == NULL) { return PEFT_E_NOMEM; }
    TRY(merge_new_tokens(j));
    TRY(merge_look(j, a));
    TRY(peft__pool_create(&ctx->mem, ctx->threads, &j->run.pool));
    peft__pool_set_host(j->run.pool, ctx->parallel_for, ctx->parallel_user);
    j->run.k = ctx->kernels;
    j->run.workers = peft__pool_size(j->run.pool);
    j->run.scratch_size = peft__scratch_size(j->run.k, m->config.head_dim, 1);
    j->run.scratch = peft__alloc(&ctx->mem, j->run.scratch_size * (size_t)j->run.workers);
    if (j->run.scratch == NULL) { st = PEFT_E_NOMEM; }
out:
    return st;
}

static void merge_end(merge_job *j) {
    peft__free(&j->m->ctx->mem, j->run.scratch, j->run.scratch_size * (size_t)j->run.workers);
    peft__pool_free(j->run.pool);
}

/* The base's tokenizer where the written model needs it in another format; NULL: it has none, or none is needed. */
static peft_status merge_tokenizer(const struct peft_model *m, bool to_gguf, peft__tokenizer **out) {
    *out = NULL;
    if (m->path[0] == '\0' || (m->gguf != NULL) == to_gguf) { return PEFT_OK; }
    peft_status st = peft__tokenizer_open(&m->ctx->mem, m->path, out);
    return st == PEFT_E_NOT_FOUND ? PEFT_OK : st;
}

peft_status peft__merge_write(struct peft_model *m, const peft__expression *e, int32_t dtype, bool to_gguf, const char *path) {
    peft_status st = PEFT_OK;
    merge_job j;
    peft__arena a;
    peft__gguf_out meta;
    peft__tokenizer *tokenizer = NULL;
    peft__arena_init(&a, &m->ctx->mem);
    peft__gguf_out_init(&meta, &m->ctx->mem);
    TRY(merge_begin(&j, &a, m, e));
    TRY(merge_tokenizer(m, to_gguf, &tokenizer));
    peft__model_change change = {&j, merge_changed, merge_value, j.untie, merge_head, j.new_tokens};
    if (to_gguf && j.new_tokens > 0) {
        FAIL(PEFT_E_UNSUPPORTED, "the adapter adds %lld tokens to the vocabulary, whose texts a GGUF file would have to name: merge "
             "into a Hugging Face folder", (long long)j.new_tokens);
    }
    if (to_gguf) {
        if (tokenizer != NULL) { TRY(peft__tokenizer_to_gguf(tokenizer, (size_t)m->config.vocab_size, &meta)); }
        TRY(peft__model_write_gguf(m, &change, dtype, tokenizer != NULL ? &meta : NULL, path));
    } else {
        TRY(peft__model_write_hf(m, &change, dtype, path));
        if (tokenizer != NULL) { TRY(peft__tokenizer_to_hf(tokenizer, path)); }
    }
out:
    peft__tokenizer_free(tokenizer);
    peft__gguf_out_free(&meta);
    merge_end(&j);
    peft__arena_free(&a);
    return st;
}

peft_status peft_adapters_merge(const peft_adapters *a, const char *expression, const char *path,
                                const peft_options *options) {
    peft_status st = PEFT_OK;
    peft__optset own = {0};
    const peft__optset *o = NULL;
    peft__expression e = {0};
    int32_t dtype = -1;
    TRY(peft__check_handle(a, PEFT__MAGIC_ADAPTERS, "adapters"));
    if (expression != NULL) { TRY(peft__check_text(expression, "expression")); }
    TRY(peft__check_text(path, "path"));
    TRY(peft__pick_options(options, &a->ctx->mem, &peft__schema_merge, &own, &o));
    TRY(peft__dtype_option(o, &dtype));
    TRY(peft__expression_parse(&e, &a->ctx->mem, (peft_adapters *)(uintptr_t)a, expression));
    size_t len = strlen(path);
    TRY(peft__merge_write(a->base.owner, &e, dtype, len > 5 && strcmp(path + len - 5, ".gguf") == 0, path));
out:
    peft__expression_free(&e);
    peft__optset_free(&own);
    return st;
}
