/* cache.c - keys and values of a session's rows: [layers] -> [rows, capacity, kv_dim] for keys, the same for values, in one block.
 *
 * A row has, in this order, its adapters' prefix, virtual tokens and its own tokens; `length` counts all of them and `prefix` the
 * first. Both grow by need, rows and capacity, and what is filled is kept.
 *
 * Left out: pages that rows have in common (a shared beginning is computed once, and copied). */
#include "infer/parts.h"

enum { CACHE_STEP = 64 };

static size_t cache_reals(const struct peft_session *s) {
    return 2 * (size_t)s->model->config.layers * (size_t)(s->cache.rows * s->cache.capacity) * (size_t)s->cache.kv_dim;
}

void peft__session_cache_free(struct peft_session *s) {
    peft__mem *mem = &s->ctx->mem;
    size_t layers = (size_t)s->model->config.layers;
    if (s->cache.k != NULL) {
        peft__free(mem, s->cache.k[0], cache_reals(s) * sizeof(peft__real));
        peft__free(mem, s->cache.k, 2 * layers * sizeof *s->cache.k);
    }
    peft__free(mem, s->cache.length, 2 * (size_t)s->cache.rows * sizeof *s->cache.length);
    s->cache.k = s->cache.v = NULL;
    s->cache.length = s->cache.prefix = NULL;
    s->cache.rows = s->cache.capacity = 0;
}

/* Copies what is filled of the rows of `from` into blocks of the new capacity. */
static void cache_move(const peft__kv_cache *from, peft__kv_cache *to, peft__real *block, size_t layers) {
    size_t stride = (size_t)(to->capacity * to->kv_dim), before = (size_t)(from->capacity * from->kv_dim);
    for (size_t i = 0; i < 2 * layers; i++) {
        peft__real *own = block + i * (size_t)to->rows * stride;
        for (int64_t r = 0; r < from->rows; r++) {
            size_t filled = (size_t)(from->length[r] * to->kv_dim);
            if (filled > 0) { memcpy(own + (size_t)r * stride, from->k[i] + (size_t)r * before, filled * sizeof *own); }
        }
        to->k[i] = own;
    }
    for (int64_t r = 0; r < from->rows; r++) {
        to->length[r] = from->length[r];
        to->prefix[r] = from->prefix[r];
    }
}

peft_status peft__session_cache_grow(struct peft_session *s, int64_t rows, int64_t need) {
    peft__kv_cache *c = &s->cache, old = *c;
    peft__mem *mem = &s->ctx->mem;
    size_t layers = (size_t)s->model->config.layers;
    if (c->k != NULL && need <= c->capacity && rows <= c->rows) { return PEFT_OK; }
    c->kv_dim = s->model->config.kv_heads * s->model->config.head_dim;
    c->rows = PEFT__MAX(rows, old.rows);
    if (need > old.capacity) {
        int64_t most = s->max_length + s->tape.virtual_tokens + s->tape.prefix_tokens;
        c->capacity = PEFT__MAX(2 * old.capacity, (need + CACHE_STEP - 1) / CACHE_STEP * CACHE_STEP);
        c->capacity = PEFT__MAX(PEFT__MIN(c->capacity, most), need);
    }
    size_t bytes = cache_reals(s) * sizeof(peft__real);
    peft__real *block = peft__alloc(mem, bytes);
    c->k = peft__alloc_zero(mem, 2 * layers * sizeof *c->k);
    c->length = peft__alloc_zero(mem, 2 * (size_t)c->rows * sizeof *c->length);
    if (block == NULL || c->k == NULL || c->length == NULL) {
        peft__free(mem, block, bytes);
        peft__free(mem, c->k, 2 * layers * sizeof *c->k);
        peft__free(mem, c->length, 2 * (size_t)c->rows * sizeof *c->length);
        *c = old;
        return PEFT_E_NOMEM;
    }
    c->prefix = c->length + c->rows;
    cache_move(&old, c, block, layers);
    c->v = c->k + layers;
    peft__kv_cache made = *c;
    *c = old;
    peft__session_cache_free(s);
    *c = made;
    return PEFT_OK;
}

peft_status peft__session_cache_rows(struct peft_session *s, int64_t rows) {
    peft_status st = peft__session_cache_grow(s, rows, s->cache.capacity);
    return st == PEFT_OK ? peft__session_cross_grow(s, rows, 0) : st;
}

void peft__session_cache_share(struct peft_session *s, int32_t from, int32_t to, int64_t n) {
    peft__kv_cache *c = &s->cache;
    size_t stride = (size_t)(c->capacity * c->kv_dim), filled = (size_t)(n * c->kv_dim);
    for (size_t i = 0; i < 2 * (size_t)s->model->config.layers; i++) {
        memcpy(c->k[i] + (size_t)to * stride, c->k[i] + (size_t)from * stride, filled * sizeof **c->k);
    }
    c->length[to] = n;
    c->prefix[to] = c->prefix[from];
}

void peft__session_cache_copy(struct peft_session *s, int32_t from, int32_t to) {
    peft__session_cache_share(s, from, to, s->cache.length[from]);
    peft__session_cross_copy(s, from, to);
}

void peft__session_rewind(struct peft_session *s) {
    for (int64_t r = 0; r < s->cache.rows; r++) { s->cache.length[r] = 0; }
    peft__session_cross_rewind(s);
}
