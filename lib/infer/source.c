/* source.c - the encoder's side of a session: tokens that it reads in a pass, and the cache of its keys and values.
 *
 * An encoder reads a row as a whole, in the first pass of the row's decoder; later passes have no encoder, as what cross
 * attention wants of it is in the cache, row by row: [layers] -> [rows, cross_capacity, kv_dim], a prefix first. Beams of one
 * prompt have the same rows there. The plan is made for the most tokens that a pass has had to read so far.
 *
 * Left out: sources that are cut into passes. */
#include "infer/parts.h"

enum { SOURCE_STEP = 64 };

bool peft__session_has_source(const struct peft_session *s) { return s->model->config.encoder_layers > 0; }

static size_t source_places(const struct peft_session *s) {
    return (size_t)(s->source.room + PEFT__SESSION_ROWS * s->tape.source_virtual);
}

peft_status peft__session_source_need(struct peft_session *s, int64_t tokens) {
    peft__mem *mem = &s->ctx->mem;
    peft__session_source *own = &s->source;
    if (tokens <= own->room) { return PEFT_OK; }
    peft__session_source_free(s);
    own->room = (PEFT__MAX(tokens, s->chunk) + SOURCE_STEP - 1) / SOURCE_STEP * SOURCE_STEP;
    own->positions = peft__alloc(mem, source_places(s) * sizeof *own->positions);
    if (own->positions != NULL) { return PEFT_OK; }
    own->room = 0;
    return PEFT_E_NOMEM;
}

void peft__session_source_free(struct peft_session *s) {
    peft__free(&s->ctx->mem, s->source.positions, source_places(s) * sizeof *s->source.positions);
    s->source.positions = NULL;
    s->source.room = 0;
    peft__session_unplan(s); /* it was made for the room that there was */
}

peft_status peft__session_check_source(const struct peft_session *s, int64_t row, int64_t n) {
    int64_t most = s->model->config.max_positions > 0 ? s->model->config.max_positions - s->tape.source_virtual : s->max_length;
    if (n <= most) { return PEFT_OK; }
    return peft__fail(PEFT_E_SHAPE, "row %lld has %lld tokens for the encoder, more than %s %lld", (long long)row, (long long)n,
                      most == s->max_length ? "the session's max_length of" : "the model's positions,", (long long)most);
}

void peft__session_source_rows(struct peft_session *s, peft__frame *f, const int32_t *ids, const int64_t *offsets,
                               const int32_t *groups) {
    peft__session_source *own = &s->source;
    own->in[0] = own->out[0] = 0;
    for (int64_t r = 0; r < f->n_rows; r++) {
        own->in[r + 1] = offsets[r + 1] - offsets[0];
        own->out[r + 1] = own->out[r] + offsets[r + 1] - offsets[r] + s->tape.group_source[groups[r]];
        for (int64_t t = own->out[r]; t < own->out[r + 1]; t++) { own->positions[t] = (int32_t)(t - own->out[r]); }
    }
    f->source_ids = ids;
    f->source_positions = own->positions;
    f->count[PEFT__SPACE_SOURCE] = own->in[f->n_rows];
    f->count[PEFT__SPACE_ENCODER] = own->out[f->n_rows];
    f->offsets[PEFT__SPACE_SOURCE] = own->in;
    f->offsets[PEFT__SPACE_ENCODER] = own->out;
}

peft_status peft__session_source_prepare(struct peft_session *s, const peft__session_rows *rows) {
    peft_status st = PEFT_OK;
    int64_t most = 0;
    if (!peft__session_has_source(s)) {
        if (rows->source_ids != NULL) {
            FAIL(PEFT_E_INVALID, "the batch has \"source_ids\", and the model has no encoder beside its decoder");
        }
        return PEFT_OK;
    }
    if (rows->source_ids == NULL) { FAIL(PEFT_E_INVALID, "the batch has no \"source_ids\", which the encoder of this model reads"); }
    for (size_t r = 0; r < rows->n; r++) {
        int64_t n = rows->source_offsets[r + 1] - rows->source_offsets[r];
        TRY(peft__session_check_source(s, (int64_t)r, n));
        most = PEFT__MAX(most, n);
    }
    TRY(peft__session_check_ids(rows->source_ids, (size_t)rows->source_offsets[rows->n], s->vocab));
    TRY(peft__session_source_need(s, most));
out:
    return st;
}

bool peft__session_source_fits(const struct peft_session *s, size_t first, size_t end) {
    const int64_t *offsets = s->rows->source_offsets;
    return s->rows->source_ids == NULL || offsets[end] - offsets[first] <= s->source.room;
}

void peft__session_source_is(struct peft_session *s, size_t r) {
    const int64_t *offsets = s->rows->source_offsets;
    if (s->rows->source_ids == NULL) { return; }
    s->source.ids = s->rows->source_ids + offsets[r];
    s->source.n = offsets[r + 1] - offsets[r];
}

/* ---- the cache --------------------------------------------------------------------------------------------------------------- */

static size_t source_cache_reals(const struct peft_session *s) {
    const peft__kv_cache *c = &s->cache;
    return 2 * (size_t)s->model->config.layers * (size_t)(s->source.rows * c->cross_capacity * c->kv_dim);
}

void peft__session_cross_free(struct peft_session *s) {
    peft__mem *mem = &s->ctx->mem;
    peft__kv_cache *c = &s->cache;
    if (c->cross_k != NULL) {
        peft__free(mem, c->cross_k[0], source_cache_reals(s) * sizeof(peft__real));
        peft__free(mem, c->cross_k, 2 * (size_t)s->model->config.layers * sizeof *c->cross_k);
    }
    peft__free(mem, c->cross_length, (size_t)s->source.rows * sizeof *c->cross_length);
    c->cross_k = c->cross_v = NULL;
    c->cross_length = NULL;
    c->cross_capacity = s->source.rows = 0;
}

peft_status peft__session_cross_grow(struct peft_session *s, int64_t rows, int64_t tokens) {
    peft__kv_cache *c = &s->cache, old = *c;
    peft__mem *mem = &s->ctx->mem;
    size_t layers = (size_t)s->model->config.layers;
    int64_t need = tokens > 0 ? tokens + s->tape.cross_prefix : c->cross_capacity, before = s->source.rows;
    int64_t capacity = PEFT__MAX((need + SOURCE_STEP - 1) / SOURCE_STEP * SOURCE_STEP, old.cross_capacity);
    if (!peft__session_has_source(s) || (rows <= before && need <= old.cross_capacity)) { return PEFT_OK; }
    rows = PEFT__MAX(rows, before);
    size_t stride = (size_t)(capacity * c->kv_dim), from = (size_t)(old.cross_capacity * c->kv_dim);
    size_t bytes = 2 * layers * (size_t)rows * stride * sizeof(peft__real);
    peft__real *block = peft__alloc(mem, bytes), **table = peft__alloc_zero(mem, 2 * layers * sizeof *table);
    int64_t *length = peft__alloc_zero(mem, (size_t)rows * sizeof *length);
    if (block == NULL || table == NULL || length == NULL) {
        peft__free(mem, block, bytes);
        peft__free(mem, table, 2 * layers * sizeof *table);
        peft__free(mem, length, (size_t)rows * sizeof *length);
        return PEFT_E_NOMEM;
    }
    for (size_t i = 0; i < 2 * layers; i++) {
        table[i] = block + i * (size_t)rows * stride;
        for (int64_t r = 0; r < before; r++) {
            memcpy(table[i] + (size_t)r * stride, old.cross_k[i] + (size_t)r * from, from * sizeof *block);
        }
    }
    for (int64_t r = 0; r < before; r++) { length[r] = old.cross_length[r]; }
    peft__session_cross_free(s);
    c->cross_k = table;
    c->cross_v = table + layers;
    c->cross_length = length;
    c->cross_capacity = capacity;
    s->source.rows = rows;
    return PEFT_OK;
}

void peft__session_cross_copy(struct peft_session *s, int32_t from, int32_t to) {
    peft__kv_cache *c = &s->cache;
    if (c->cross_k == NULL || c->cross_length[to] == c->cross_length[from]) { return; } /* beams of one prompt have the same */
    size_t stride = (size_t)(c->cross_capacity * c->kv_dim);
    for (size_t i = 0; i < 2 * (size_t)s->model->config.layers; i++) {
        memcpy(c->cross_k[i] + (size_t)to * stride, c->cross_k[i] + (size_t)from * stride, stride * sizeof **c->cross_k);
    }
    c->cross_length[to] = c->cross_length[from];
}

void peft__session_cross_rewind(struct peft_session *s) {
    for (int64_t r = 0; r < s->source.rows; r++) { s->cache.cross_length[r] = 0; }
}

peft_status peft__session_source_begins(struct peft_session *s, peft__frame *f, int32_t slot) {
    peft_status st = PEFT_OK;
    const int64_t offsets[2] = {0, s->source.n};
    if (!peft__session_has_source(s)) { return PEFT_OK; }
    int32_t group = f->row_groups[0];
    TRY(peft__session_cross_grow(s, s->cache.rows, s->source.n + s->tape.group_source[group]));
    peft__session_source_rows(s, f, s->source.ids, offsets, f->row_groups);
    s->cache.cross_length[slot] = f->count[PEFT__SPACE_ENCODER];
out:
    return st;
}
