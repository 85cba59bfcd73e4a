/* write.c - tensors of a model on their way into a file, for both formats: bytes as they are where nothing changes, else rows
 * of floats in the written type.
 *
 * A changed tensor is asked for once, as a whole, and is dropped when the next one comes; an unchanged one whose type or
 * layout differs goes row by row. So a merge needs the memory of the largest changed tensor, not of the model.
 *
 * A tied head whose logits the model scales (T5) is written apart only with that factor: no reader scales those of an untied one,
 * and llama.cpp those of none, so that a GGUF always has it apart (write_gguf.c).
 *
 * Rows as written: in a Hugging Face folder those of its own form ([in][out] of a Conv1D); in a GGUF always [out][in], q and
 * k in pair order. */
#include "model/parts.h"

static bool write_is_plain_type(int32_t dtype) {
    return dtype == PEFT_DTYPE_F32 || dtype == PEFT_DTYPE_F16 || dtype == PEFT_DTYPE_BF16;
}

static const peft__model_tensor *write_tensor(const peft__write_item *it) { return &it->job->m->tensors[it->index]; }

int64_t peft__model_more_rows(const struct peft_model *m, size_t index, int64_t new_tokens) {
    for (size_t i = 0; i < m->n_sites; i++) {
        const peft__site *s = &m->sites[i];
        bool vocab = s->kind == PEFT__SITE_HEAD || (s->kind == PEFT__SITE_EMBED && s->role == PEFT__ROLE_TOKENS);
        if (vocab && s->weight == &m->tensors[index].w) { return new_tokens; }
    }
    return 0;
}

static int64_t write_more_rows(const peft__write_job *job, size_t index) {
    return job->change != NULL && job->change->new_tokens > 0 ? peft__model_more_rows(job->m, index, job->change->new_tokens) : 0;
}

/* The whole tensor in Hugging Face's order, into job->whole. */
static peft_status write_fetch(peft__write_item *it) {
    peft__write_job *job = it->job;
    const peft__weight *w = &write_tensor(it)->w;
    if (job->whole_of == it) { return PEFT_OK; }
    peft__free(job->mem, job->whole, job->whole_size);
    job->whole_of = NULL;
    job->whole_size = (size_t)((w->rows + write_more_rows(job, it->index)) * w->cols) * sizeof *job->whole;
    job->whole = peft__alloc(job->mem, job->whole_size);
    if (job->whole == NULL) { return PEFT_E_NOMEM; }
    if (it->changed) {
        peft_status st = job->change->value(job->change->user, it->index, job->whole);
        if (st != PEFT_OK) { return st; }
    } else {
        peft__model_read(job->m, it->index, job->whole);
    }
    job->whole_of = it;
    return PEFT_OK;
}

/* Where written row r is among the rows of the logical [out, in] matrix. */
static int64_t write_logical_row(const peft__write_item *it, int64_t r) {
    const peft__config *c = &it->job->m->config;
    if (!it->gguf) { return r; }
    if (write_tensor(it)->fused) { return peft__unfused_row(c->heads, c->head_dim, r); }
    return write_tensor(it)->interleaved ? peft__unpair_row(c->head_dim, r) : r;
}

/* Row r as written, into job->row. A vector is one row, whose elements may have to change places. */
static peft_status write_row(peft__write_item *it, int64_t r) {
    peft__write_job *job = it->job;
    const peft__model_tensor *t = write_tensor(it);
    peft_status st = PEFT_OK;
    if (job->row_of == it && job->row_at == r) { return PEFT_OK; }
    bool across = it->gguf && t->conv1d; /* rows of the one are columns of the other */
    if (it->changed || t->ndim == 1 || (t->conv1d && !it->gguf && !t->w.transposed)) {
        TRY(write_fetch(it));
        int64_t from = t->ndim == 1 ? 0 : write_logical_row(it, r);
        for (int64_t i = 0; i < it->cols; i++) {
            int64_t e = t->ndim == 1 ? write_logical_row(it, i) : across ? i * it->rows + from : from * it->cols + i;
            job->row[i] = job->whole[e] + (it->gguf && t->ndim == 1 ? (float)t->gguf_plus : 0);
        }
    } else {
        peft__weight w = t->w;
        if (t->conv1d && !it->gguf) { /* stored as written: its rows are plain ones */
            w.transposed = false;
            w.rows = it->rows;
            w.cols = it->cols;
        }
        peft__weight_row(job->m->ctx->kernels, &w, write_logical_row(it, r), job->real);
        for (int64_t i = 0; i < it->cols; i++) { job->row[i] = (float)job->real[i]; }
    }
    for (int64_t i = 0; it->times > 0 && i < it->cols; i++) { job->row[i] = (float)((double)job->row[i] * it->times); }
    job->row_of = it;
    job->row_at = r;
out:
    return st;
}

static peft_status write_produce(void *user, void *out, size_t offset, size_t size) {
    peft__write_item *it = user;
    uint8_t *dst = out;
    peft_status st = PEFT_OK;
    int64_t block = peft__dtype_elems(it->dtype);
    size_t block_bytes = peft__dtype_block_bytes(it->dtype);
    int64_t at = (int64_t)(offset / block_bytes) * block, end = at + (int64_t)(size / block_bytes) * block;
    while (at < end) {
        int64_t r = at / it->cols, c = at % it->cols, n = PEFT__MIN(it->cols - c, end - at);
        TRY(write_row(it, r));
        TRY(peft__quantise(it->dtype, it->job->row + c, n, dst));
        dst += peft__dtype_bytes(it->dtype, n);
        at += n;
    }
out:
    return st;
}

/* The type in which an item is written. */
static int32_t write_choose(const peft__write_item *it) {
    const peft__model_tensor *t = write_tensor(it);
    int32_t stored = t->w.dtype, dtype = stored, asked = it->job->dtype;
    if (it->gguf && (t->ndim == 1 || t->gguf_f32)) { return PEFT_DTYPE_F32; }
    if (asked >= 0) { dtype = asked; }
    bool copied = !it->changed && dtype == stored;
    bool possible = it->gguf ? copied || peft__can_quantise(dtype) : write_is_plain_type(dtype);
    return possible && it->cols % peft__dtype_elems(dtype) == 0 ? dtype : PEFT_DTYPE_F32;
}

/* Whether the stored bytes are what is to be written. */
static bool write_is_copy(const peft__write_item *it) {
    const peft__model_tensor *t = write_tensor(it);
    if (it->changed || it->times > 0 || it->dtype != t->w.dtype) { return false; }
    if (it->gguf && t->gguf_plus > 0) { return false; }
    if (t->fused && it->gguf != (t->w.heads > 0)) { return false; }
    if (!it->gguf) { return t->w.interleave == 0 && t->conv1d == t->w.transposed; }
    bool paired = t->ndim == 2 && t->w.interleave > 0;
    return !t->w.transposed && paired == t->interleaved;
}

static void write_add(peft__write_job *job, size_t index, bool changed, bool gguf, const char *name, double times) {
    const peft__model_tensor *t = &job->m->tensors[index];
    peft__write_item *it = &job->items[job->count];
    peft__io_source *s = &job->sources[job->count++];
    it->job = job;
    it->index = index;
    it->changed = changed;
    it->gguf = gguf;
    it->name = name;
    it->times = times;
    it->rows = t->ndim == 1 ? 1 : (gguf ? t->w.rows : t->dims[0]) + write_more_rows(job, index);
    it->cols = t->ndim == 1 ? t->dims[0] : gguf ? t->w.cols : t->dims[1];
    it->dtype = write_choose(it);
    it->plain = write_is_copy(it);
    s->name = name;
    s->dtype = it->dtype;
    s->ndim = t->ndim;
    s->dims[0] = t->ndim == 1 ? it->cols : it->rows;
    s->dims[1] = it->cols;
    s->data = it->plain ? t->w.data : NULL;
    s->produce = write_produce;
    s->user = it;
    job->row_cap = PEFT__MAX(job->row_cap, it->cols);
}

bool peft__write_derives_head(const peft__write_job *job) {
    const peft__config *c = &job->m->config;
    return c->tie_embeddings && c->head_scale > 0 && (job->change == NULL || !job->change->untie);
}

static peft_status write_check_dtype(int32_t dtype, bool gguf) {
    if (dtype < 0 || (gguf ? peft__can_quantise(dtype) : write_is_plain_type(dtype))) { return PEFT_OK; }
    return peft__fail(PEFT_E_UNSUPPORTED, "cannot write a %s with type %s, expected %s", gguf ? "GGUF" : "safetensors file",
                      peft__dtype_name(dtype), gguf ? "F32, F16, BF16, Q8_0, Q4_0 or Q4_1" : "F32, F16 or BF16");
}

peft_status peft__write_begin(peft__write_job *job, const struct peft_model *m, const peft__model_change *change,
                              int32_t dtype, bool gguf) {
    peft_status st = PEFT_OK;
    memset(job, 0, sizeof *job);
    job->m = m;
    job->change = change;
    job->dtype = dtype;
    job->mem = m->arena.mem;
    peft__arena_init(&job->arena, job->mem);
    TRY(write_check_dtype(dtype, gguf));
    size_t most = m->n_tensors + 3; /* an untied head, GGUF's rope_freqs or the two lists of longrope */
    job->items = peft__arena_alloc(&job->arena, most * sizeof *job->items);
    job->sources = peft__arena_alloc(&job->arena, most * sizeof *job->sources);
    if (job->items == NULL || job->sources == NULL) { return PEFT_E_NOMEM; }
    bool untie = change != NULL && change->untie && m->config.tie_embeddings;
    bool head = untie && change->head != NULL && change->head(change->user);
    for (size_t i = 0; i < m->n_tensors; i++) {
        const peft__model_tensor *t = &m->tensors[i];
        bool changed = change != NULL && change->changed(change->user, i);
        if (i == 0 && head) { changed = false; } /* tensor 0 is the embedding, whose matrix the head shares */
        write_add(job, i, changed, gguf, gguf ? t->gguf_name : t->w.name, 0);
    }
    if (untie || (gguf && peft__write_derives_head(job))) {
        bool changed = change != NULL && (head || !untie) && change->changed(change->user, 0);
        write_add(job, 0, changed, gguf, gguf ? "output.weight" : "lm_head.weight", m->config.head_scale);
    }
    job->row = peft__alloc(job->mem, (size_t)job->row_cap * sizeof *job->row);
    job->real = peft__alloc(job->mem, (size_t)job->row_cap * sizeof *job->real);
    if (job->row == NULL || job->real == NULL) { st = PEFT_E_NOMEM; }
out:
    return st;
}

void peft__write_end(peft__write_job *job) {
    peft__free(job->mem, job->whole, job->whole_size);
    peft__free(job->mem, job->row, (size_t)job->row_cap * sizeof *job->row);
    peft__free(job->mem, job->real, (size_t)job->row_cap * sizeof *job->real);
    peft__arena_free(&job->arena);
}
