/* model_kit.h - what tests of models share: a context without api/, files in a folder, GGUF files with one thing changed,
 * logits through the tape. */
#ifndef MODEL_KIT_H
#define MODEL_KIT_H

#include "model/model.h"
#include "runner.h"

/* A context that lives on the stack: its references never reach 0. */
static inline void kit_context(peft_context *ctx) {
    memset(ctx, 0, sizeof *ctx);
    ctx->magic = PEFT__MAGIC_CONTEXT;
    atomic_init(&ctx->refs, 1 << 20);
    peft__mem_init(&ctx->mem, NULL);
    ctx->threads = 1;
    ctx->kernels = &peft__kernels_generic;
}

static inline size_t kit_outstanding(peft_context *ctx) { return atomic_load(&ctx->mem.now); }

static inline peft_status kit_save(peft_context *ctx, const char *dir, const char *name, const char *text) {
    return peft__save_text(&ctx->mem, runner_path(dir, name), text, strlen(text));
}

/* Copies a GGUF file's metadata and tensors, changing or leaving out by name. */
typedef struct kit_edit {
    const char *drop_key, *drop_tensor;
    void (*add)(peft__gguf_out *w);
} kit_edit;

static inline peft_status kit_rewrite(peft_context *ctx, const char *from, const char *to, const kit_edit *e) {
    static peft__io_source s[96];
    peft__gguf g;
    peft__gguf_out w;
    size_t n = 0;
    memset(s, 0, sizeof s);
    peft_status st = peft__gguf_open(&ctx->mem, from, false, &g);
    if (st != PEFT_OK) { return st; }
    peft__gguf_out_init(&w, &ctx->mem);
    for (size_t i = 0; i < g.kv_count; i++) {
        if (e->drop_key == NULL || strcmp(g.kvs[i].key, e->drop_key) != 0) { peft__gguf_put_kv(&w, &g.kvs[i]); }
    }
    if (e->add != NULL) { e->add(&w); }
    for (size_t i = 0; i < g.count; i++) {
        const peft__io_tensor *t = &g.tensors[i];
        if (e->drop_tensor != NULL && strcmp(t->name, e->drop_tensor) == 0) { continue; }
        s[n].name = t->name;
        s[n].dtype = t->dtype;
        s[n].ndim = t->ndim;
        memcpy(s[n].dims, t->dims, sizeof t->dims);
        s[n++].data = t->data;
    }
    st = peft__gguf_write(&w, &ctx->mem, to, s, n);
    peft__gguf_out_free(&w);
    peft__gguf_close(&g);
    return st;
}

/* Logits [n, vocab] of one row, and its negative log-likelihood in all where nll is given. */
static inline peft_status kit_forward(const struct peft_model *m, const int32_t *ids, int64_t n, float *logits, double *nll) {
    peft_status st = PEFT_OK;
    peft__mem *mem = &m->ctx->mem;
    peft__tape t;
    peft__plan plan;
    peft__exec x;
    peft__pool *pool = NULL;
    peft__frame f;
    peft__caps caps = {.max_rows = 1, .max_tokens = n, .max_length = n};
    int64_t offsets[2] = {0, n}, wanted[512];
    int32_t positions[512], labels[512];
    uint64_t key = 7;
    memset(&plan, 0, sizeof plan);
    memset(&x, 0, sizeof x);
    memset(&f, 0, sizeof f);
    peft__tape_init(&t, mem, false);
    if (n > 512) { FAIL(PEFT_E_SHAPE, "at most 512 tokens"); }
    for (int64_t i = 0; i < n; i++) {
        wanted[i] = i;
        positions[i] = (int32_t)i;
        labels[i] = i + 1 < n ? ids[i + 1] : -100;
    }
    m->arch->record(m, &t);
    TRY(peft__tape_finish(&t));
    TRY(peft__pool_create(mem, 1, &pool));
    TRY(peft__plan_make(&plan, mem, &t, &caps, 0, m->ctx->kernels, 1, m->config.head_dim));
    TRY(peft__exec_create(&x, mem, &t, &plan, m->ctx->kernels, pool));
    f.n_rows = 1;
    f.count[PEFT__SPACE_TOKENS] = f.count[PEFT__SPACE_INPUT] = n;
    f.count[PEFT__SPACE_ROWS] = 1;
    f.offsets[PEFT__SPACE_TOKENS] = f.offsets[PEFT__SPACE_INPUT] = offsets;
    f.ids = ids;
    f.positions = positions;
    f.labels = labels;
    f.row_keys = &key;
    f.loss_scale = 1;
    if (nll != NULL) {
        TRY(peft__exec_run(&x, &f, false));
        *nll = f.nll_sum;
    }
    if (logits != NULL) {
        f.logits = logits;
        f.logit_tokens = wanted;
        f.n_logits = n;
        TRY(peft__exec_run(&x, &f, false));
    }
out:
    peft__exec_free(&x);
    peft__plan_free(&plan);
    peft__pool_free(pool);
    peft__tape_free(&t);
    return st;
}

#endif
