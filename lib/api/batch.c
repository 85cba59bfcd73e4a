/* batch.c - peft_batch: rows packed end to end. */
#include "api/api.h"

peft_status peft_batch_create(peft_context *ctx, peft_batch **out) {
    peft_status st = PEFT_OK;
    TRY(peft__check_arg(out, "out"));
    *out = NULL;
    TRY(peft__check_handle(ctx, PEFT__MAGIC_CONTEXT, "ctx"));
    peft_batch *b = peft__alloc_zero(&ctx->mem, sizeof *b);
    if (b == NULL) { return PEFT_E_NOMEM; }
    b->magic = PEFT__MAGIC_BATCH;
    b->ctx = ctx;
    peft__ctx_retain(ctx);
    peft__vec_init(&b->ids, &ctx->mem, sizeof(int32_t));
    peft__vec_init(&b->labels, &ctx->mem, sizeof(int32_t));
    peft__vec_init(&b->weights, &ctx->mem, sizeof(float));
    peft__vec_init(&b->tasks, &ctx->mem, sizeof(int32_t));
    peft__vec_init(&b->jobs, &ctx->mem, sizeof(int32_t));
    peft__vec_init(&b->types, &ctx->mem, sizeof(int32_t));
    peft__vec_init(&b->row_labels, &ctx->mem, sizeof(int32_t));
    peft__vec_init(&b->spans, &ctx->mem, sizeof(int32_t));
    peft__vec_init(&b->targets, &ctx->mem, sizeof(float));
    peft__vec_init(&b->offsets, &ctx->mem, sizeof(int64_t));
    peft__vec_init(&b->source_ids, &ctx->mem, sizeof(int32_t));
    peft__vec_init(&b->source_offsets, &ctx->mem, sizeof(int64_t));
    *out = b;
out:
    return st;
}

void peft_batch_free(peft_batch *b) {
    if (!peft__is_handle(b, PEFT__MAGIC_BATCH)) { return; }
    peft_context *ctx = b->ctx;
    peft__vec_free(&b->ids);
    peft__vec_free(&b->labels);
    peft__vec_free(&b->weights);
    peft__vec_free(&b->tasks);
    peft__vec_free(&b->jobs);
    peft__vec_free(&b->types);
    peft__vec_free(&b->row_labels);
    peft__vec_free(&b->spans);
    peft__vec_free(&b->targets);
    peft__vec_free(&b->offsets);
    peft__vec_free(&b->source_ids);
    peft__vec_free(&b->source_offsets);
    b->magic = PEFT__MAGIC_FREED;
    peft__free(&ctx->mem, b, sizeof *b);
    peft__ctx_release(ctx);
}

/* What belongs to other rows. */
static void batch_forget(peft_batch *b) {
    b->labels.len = b->weights.len = b->tasks.len = b->types.len = b->row_labels.len = b->spans.len = b->targets.len = 0;
    b->source_ids.len = b->source_offsets.len = b->jobs.len = 0;
}

void peft_batch_clear(peft_batch *b) {
    if (!peft__is_handle(b, PEFT__MAGIC_BATCH)) { return; }
    b->ids.len = b->offsets.len = 0;
    batch_forget(b);
}

size_t peft_batch_rows(const peft_batch *b) {
    return peft__is_handle(b, PEFT__MAGIC_BATCH) && b->offsets.len > 0 ? b->offsets.len - 1 : 0;
}

/* Offsets run up from 0; no row is empty. */
static peft_status batch_check_offsets(const int64_t *offsets, size_t n_rows) {
    if (offsets[0] != 0) {
        return peft__fail(PEFT_E_INVALID, "row_offsets begin with %lld, expected 0", (long long)offsets[0]);
    }
    for (size_t r = 0; r < n_rows; r++) {
        if (offsets[r + 1] < offsets[r]) {
            return peft__fail(PEFT_E_INVALID, "row_offsets go down after row %zu: %lld, then %lld", r,
                              (long long)offsets[r], (long long)offsets[r + 1]);
        }
        if (offsets[r + 1] == offsets[r]) { return peft__fail(PEFT_E_INVALID, "row %zu is empty", r); }
    }
    return PEFT_OK;
}

/* What belongs to the tokens must have their rows. */
static peft_status batch_check_same(const peft_batch *b, const char *key, const int64_t *offsets, size_t n_rows) {
    if (b->offsets.len == 0) { return peft__fail(PEFT_E_INVALID, "\"input_ids\" come before \"%s\"", key); }
    if (n_rows + 1 != b->offsets.len) {
        return peft__fail(PEFT_E_SHAPE, "\"%s\" have %zu rows, \"input_ids\" have %zu", key, n_rows,
                          b->offsets.len - 1);
    }
    for (size_t r = 0; r < n_rows; r++) {
        int64_t mine = offsets[r + 1] - offsets[r];
        int64_t theirs = PEFT__VEC_AT(&b->offsets, int64_t, r + 1) - PEFT__VEC_AT(&b->offsets, int64_t, r);
        if (mine != theirs) {
            return peft__fail(PEFT_E_SHAPE, "row %zu of \"%s\" has %lld values, of \"input_ids\" %lld", r, key,
                              (long long)mine, (long long)theirs);
        }
    }
    return PEFT_OK;
}

static peft_status batch_check_i32(const char *key, const int32_t *data, size_t n, bool labels) {
    for (size_t i = 0; i < n; i++) {
        if (data[i] >= 0 || (labels && data[i] == -100)) { continue; }
        return peft__fail(PEFT_E_INVALID, "value %zu of \"%s\" is %d, expected an id%s", i, key, (int)data[i],
                          labels ? " or -100" : "");
    }
    return PEFT_OK;
}

static peft_status batch_check_key(const peft_batch *b, const char *key) {
    peft_status st = PEFT_OK;
    TRY(peft__check_handle(b, PEFT__MAGIC_BATCH, "batch"));
    TRY(peft__check_text(key, "key"));
out:
    return st;
}

static peft_status batch_check(const void *data, const int64_t *offsets, size_t n_rows) {
    peft_status st = PEFT_OK;
    TRY(peft__check_bytes(data, n_rows, "data"));
    TRY(peft__check_arg(offsets, "row_offsets"));
    TRY(batch_check_offsets(offsets, n_rows));
out:
    return st;
}

/* Room is there: nothing can fail any more. */
static void batch_fill(peft__vec *v, const void *data, size_t n) {
    if (n > 0) { memcpy(v->data, data, n * v->elem); }
    v->len = n;
}

/* What the encoder reads: as many rows, of lengths of their own. */
static peft_status batch_set_source(peft_batch *b, const int32_t *data, const int64_t *offsets, size_t n_rows) {
    peft_status st = PEFT_OK;
    TRY(batch_check(data, offsets, n_rows));
    if (b->offsets.len == 0) { FAIL(PEFT_E_INVALID, "\"input_ids\" come before \"source_ids\""); }
    if (n_rows + 1 != b->offsets.len) {
        FAIL(PEFT_E_SHAPE, "\"source_ids\" have %zu rows, \"input_ids\" have %zu", n_rows, b->offsets.len - 1);
    }
    size_t n = (size_t)offsets[n_rows];
    TRY(batch_check_i32("source_ids", data, n, false));
    TRY(peft__vec_reserve(&b->source_ids, n));
    TRY(peft__vec_reserve(&b->source_offsets, n_rows + 1));
    batch_fill(&b->source_ids, data, n);
    batch_fill(&b->source_offsets, offsets, n_rows + 1);
out:
    return st;
}

/* What rows have as wholes. */
typedef struct batch_key {
    const char *key;
    int64_t each;    /* values of a row */
    int32_t none;    /* the negative value that is allowed; 0: none is */
    const char *expected;
    size_t vec;           /* where in a batch its peft__vec lies */
} batch_key;

static const batch_key batch_row_keys[] = {
    {"task_id", 1, 0, "one from 0", offsetof(peft_batch, tasks)},
    {"jobs", 1, 0, "one from 0", offsetof(peft_batch, jobs)},
    {"row_labels", 1, -100, "a label from 0, or -100", offsetof(peft_batch, row_labels)},
    {"spans", 2, -1, "a token of the row, or -1", offsetof(peft_batch, spans)},
};
static const char batch_ints[] = "input_ids, token_type_ids, labels, source_ids, task_id, jobs, row_labels, spans";

static peft_status batch_check_rows(const peft_batch *b, const char *key, const void *data, const int64_t *offsets, size_t n_rows,
                                    int64_t each) {
    peft_status st = PEFT_OK;
    TRY(peft__check_bytes(data, n_rows, "data"));
    if (b->offsets.len == 0) { FAIL(PEFT_E_INVALID, "\"input_ids\" come before \"%s\"", key); }
    if (n_rows + 1 != b->offsets.len) {
        FAIL(PEFT_E_SHAPE, "\"%s\" has %zu values, \"input_ids\" have %zu rows", key, n_rows, b->offsets.len - 1);
    }
    for (size_t r = 0; offsets != NULL && r < n_rows; r++) {
        if (offsets[r] == (int64_t)r * each && offsets[r + 1] == (int64_t)(r + 1) * each) { continue; }
        FAIL(PEFT_E_SHAPE, "row %zu has another number of values of \"%s\" than %lld", r, key, (long long)each);
    }
out:
    return st;
}

static peft_status batch_set_rows(peft_batch *b, const batch_key *k, const int32_t *data, const int64_t *offsets, size_t n_rows) {
    peft_status st = PEFT_OK;
    TRY(batch_check_rows(b, k->key, data, offsets, n_rows, k->each));
    size_t n = n_rows * (size_t)k->each;
    for (size_t i = 0; i < n; i++) {
        if (data[i] >= 0 || (data[i] == k->none && k->none < 0)) { continue; }
        FAIL(PEFT_E_INVALID, "value %zu of \"%s\" is %d, expected %s", i, k->key, (int)data[i], k->expected);
    }
    peft__vec *v = (peft__vec *)(void *)((char *)b + k->vec);
    TRY(peft__vec_reserve(v, n));
    batch_fill(v, data, n);
out:
    return st;
}

peft_status peft_batch_set_i32(peft_batch *b, const char *key, const int32_t *data, const int64_t *row_offsets,
                               size_t n_rows) {
    peft_status st = PEFT_OK;
    TRY(batch_check_key(b, key));
    for (size_t i = 0; i < PEFT__COUNT(batch_row_keys); i++) {
        if (strcmp(key, batch_row_keys[i].key) == 0) { return batch_set_rows(b, &batch_row_keys[i], data, row_offsets, n_rows); }
    }
    if (strcmp(key, "source_ids") == 0) { return batch_set_source(b, data, row_offsets, n_rows); }
    bool labels = strcmp(key, "labels") == 0, types = strcmp(key, "token_type_ids") == 0;
    if (!labels && !types && strcmp(key, "input_ids") != 0) {
        bool floats = strcmp(key, "loss_weights") == 0 || strcmp(key, "targets") == 0;
        return peft__fail(PEFT_E_KEY, "unknown key \"%s\" of a batch; known: %s%s", key, batch_ints,
                          floats ? " (loss_weights and targets are floats)" : "");
    }
    TRY(batch_check(data, row_offsets, n_rows));
    size_t n = (size_t)row_offsets[n_rows];
    TRY(batch_check_i32(key, data, n, labels));
    if (labels || types) { TRY(batch_check_same(b, key, row_offsets, n_rows)); }
    peft__vec *v = labels ? &b->labels : types ? &b->types : &b->ids;
    TRY(peft__vec_reserve(v, n));
    if (v == &b->ids) {
        TRY(peft__vec_reserve(&b->offsets, n_rows + 1));
        batch_fill(&b->offsets, row_offsets, n_rows + 1);
        batch_forget(b);
    }
    batch_fill(v, data, n);
out:
    return st;
}

/* As many numbers of every row. */
static peft_status batch_set_targets(peft_batch *b, const float *data, const int64_t *offsets, size_t n_rows) {
    peft_status st = PEFT_OK;
    int64_t each = offsets != NULL && n_rows > 0 ? offsets[1] - offsets[0] : 1;
    if (each < 1) { FAIL(PEFT_E_SHAPE, "row 0 has no value of \"targets\""); }
    TRY(batch_check_rows(b, "targets", data, offsets, n_rows, each));
    size_t n = n_rows * (size_t)each;
    for (size_t i = 0; i < n; i++) {
        if (data[i] - data[i] != 0) { FAIL(PEFT_E_INVALID, "value %zu of \"targets\" is no finite number", i); }
    }
    TRY(peft__vec_reserve(&b->targets, n));
    batch_fill(&b->targets, data, n);
out:
    return st;
}

peft_status peft_batch_set_f32(peft_batch *b, const char *key, const float *data, const int64_t *row_offsets,
                               size_t n_rows) {
    peft_status st = PEFT_OK;
    TRY(batch_check_key(b, key));
    if (strcmp(key, "targets") == 0) { return batch_set_targets(b, data, row_offsets, n_rows); }
    if (strcmp(key, "loss_weights") != 0) {
        bool whole = strcmp(key, "input_ids") == 0 || strcmp(key, "labels") == 0;
        return peft__fail(PEFT_E_KEY, "unknown key \"%s\" of a batch; known: loss_weights, targets%s", key,
                          whole ? " (input_ids and labels are integers)" : "");
    }
    TRY(batch_check(data, row_offsets, n_rows));
    size_t n = (size_t)row_offsets[n_rows];
    for (size_t i = 0; i < n; i++) {
        if (!(data[i] >= 0) || data[i] - data[i] != 0) {
            FAIL(PEFT_E_INVALID, "value %zu of \"loss_weights\" is no finite number from 0", i);
        }
    }
    TRY(batch_check_same(b, key, row_offsets, n_rows));
    TRY(peft__vec_reserve(&b->weights, n));
    batch_fill(&b->weights, data, n);
out:
    return st;
}
