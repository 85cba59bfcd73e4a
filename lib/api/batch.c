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
    peft__vec_init(&b->offsets, &ctx->mem, sizeof(int64_t));
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
    peft__vec_free(&b->offsets);
    b->magic = PEFT__MAGIC_FREED;
    peft__free(&ctx->mem, b, sizeof *b);
    peft__ctx_release(ctx);
}

void peft_batch_clear(peft_batch *b) {
    if (peft__is_handle(b, PEFT__MAGIC_BATCH)) { b->ids.len = b->labels.len = b->weights.len = b->tasks.len = b->offsets.len = 0; }
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

static peft_status batch_check(const peft_batch *b, const char *key, const void *data, const int64_t *offsets,
                               size_t n_rows) {
    peft_status st = PEFT_OK;
    TRY(peft__check_handle(b, PEFT__MAGIC_BATCH, "batch"));
    TRY(peft__check_text(key, "key"));
    TRY(peft__check_bytes(data, n_rows, "data"));
    TRY(peft__check_arg(offsets, "row_offsets"));
    TRY(batch_check_offsets(offsets, n_rows));
out:
    return st;
}

static peft_status batch_fail_key(const char *key, const char *known) {
    return peft__fail(PEFT_E_KEY, "unknown key \"%s\" of a batch; known: %s", key, known);
}

/* Room is there: nothing can fail any more. */
static void batch_fill(peft__vec *v, const void *data, size_t n) {
    if (n > 0) { memcpy(v->data, data, n * v->elem); }
    v->len = n;
}

/* One value a row: offsets, if any, count rows. */
static peft_status batch_set_tasks(peft_batch *b, const int32_t *data, const int64_t *offsets, size_t n_rows) {
    peft_status st = PEFT_OK;
    TRY(peft__check_handle(b, PEFT__MAGIC_BATCH, "batch"));
    TRY(peft__check_bytes(data, n_rows, "data"));
    if (b->offsets.len == 0) { FAIL(PEFT_E_INVALID, "\"input_ids\" come before \"task_id\""); }
    if (n_rows + 1 != b->offsets.len) {
        FAIL(PEFT_E_SHAPE, "\"task_id\" has %zu values, \"input_ids\" have %zu rows", n_rows, b->offsets.len - 1);
    }
    for (size_t r = 0; r < n_rows; r++) {
        if (offsets != NULL && (offsets[r] != (int64_t)r || offsets[r + 1] != (int64_t)r + 1)) {
            FAIL(PEFT_E_SHAPE, "row %zu has another number of values of \"task_id\" than one", r);
        }
        if (data[r] < 0) { FAIL(PEFT_E_INVALID, "value %zu of \"task_id\" is %d, expected one from 0", r, (int)data[r]); }
    }
    TRY(peft__vec_reserve(&b->tasks, n_rows));
    batch_fill(&b->tasks, data, n_rows);
out:
    return st;
}

peft_status peft_batch_set_i32(peft_batch *b, const char *key, const int32_t *data, const int64_t *row_offsets,
                               size_t n_rows) {
    peft_status st = PEFT_OK;
    if (key != NULL && strcmp(key, "task_id") == 0) { return batch_set_tasks(b, data, row_offsets, n_rows); }
    TRY(batch_check(b, key, data, row_offsets, n_rows));
    size_t n = (size_t)row_offsets[n_rows];
    bool labels = strcmp(key, "labels") == 0;
    if (!labels && strcmp(key, "input_ids") != 0) {
        return batch_fail_key(key, strcmp(key, "loss_weights") == 0 ? "input_ids, labels, task_id (loss_weights are floats)"
                                                                    : "input_ids, labels, task_id");
    }
    TRY(batch_check_i32(key, data, n, labels));
    if (labels) { TRY(batch_check_same(b, key, row_offsets, n_rows)); }
    peft__vec *v = labels ? &b->labels : &b->ids;
    TRY(peft__vec_reserve(v, n));
    if (!labels) {
        TRY(peft__vec_reserve(&b->offsets, n_rows + 1));
        batch_fill(&b->offsets, row_offsets, n_rows + 1);
        b->labels.len = b->weights.len = b->tasks.len = 0; /* those of other rows */
    }
    batch_fill(v, data, n);
out:
    return st;
}

peft_status peft_batch_set_f32(peft_batch *b, const char *key, const float *data, const int64_t *row_offsets,
                               size_t n_rows) {
    peft_status st = PEFT_OK;
    TRY(batch_check(b, key, data, row_offsets, n_rows));
    size_t n = (size_t)row_offsets[n_rows];
    if (strcmp(key, "loss_weights") != 0) {
        bool whole = strcmp(key, "input_ids") == 0 || strcmp(key, "labels") == 0;
        return batch_fail_key(key, whole ? "loss_weights (input_ids and labels are integers)" : "loss_weights");
    }
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
