/* dataset.c - peft_dataset: rows from files, JSON texts and batches. */
#include "api/api.h"

peft_status peft_dataset_create(peft_context *ctx, const peft_tokenizer *tokenizer, const peft_options *options,
                                peft_dataset **out) {
    peft_status st = PEFT_OK;
    peft__optset own = {0};
    const peft__optset *o = NULL;
    TRY(peft__check_arg(out, "out"));
    *out = NULL;
    TRY(peft__check_handle(ctx, PEFT__MAGIC_CONTEXT, "ctx"));
    if (tokenizer != NULL) { TRY(peft__check_handle(tokenizer, PEFT__MAGIC_TOKENIZER, "tokenizer")); }
    TRY(peft__pick_options(options, &ctx->mem, &peft__schema_dataset, &own, &o));
    /* Only its count of references changes. */
    TRY(peft__dataset_create(ctx, (struct peft_tokenizer *)(uintptr_t)tokenizer, o, out));
out:
    peft__optset_free(&own);
    return st;
}

void peft_dataset_free(peft_dataset *d) {
    if (peft__is_handle(d, PEFT__MAGIC_DATASET)) { peft__dataset_release(d); }
}

peft_status peft_dataset_load_jsonl(peft_dataset *d, const char *path) {
    peft_status st = PEFT_OK;
    TRY(peft__check_handle(d, PEFT__MAGIC_DATASET, "dataset"));
    TRY(peft__check_text(path, "path"));
    TRY(peft__dataset_load(d, path));
out:
    return st;
}

peft_status peft_dataset_add_json(peft_dataset *d, const char *json, size_t len) {
    peft_status st = PEFT_OK;
    TRY(peft__check_handle(d, PEFT__MAGIC_DATASET, "dataset"));
    TRY(peft__check_bytes(json, len, "json"));
    TRY(peft__dataset_add_json(d, json != NULL ? json : "", len, "row"));
out:
    return st;
}

peft_status peft_dataset_add(peft_dataset *d, const peft_batch *rows) {
    peft_status st = PEFT_OK;
    TRY(peft__check_handle(d, PEFT__MAGIC_DATASET, "dataset"));
    TRY(peft__check_handle(rows, PEFT__MAGIC_BATCH, "rows"));
    TRY(peft__dataset_add_batch(d, rows));
out:
    return st;
}

size_t peft_dataset_size(const peft_dataset *d) {
    return peft__is_handle(d, PEFT__MAGIC_DATASET) ? peft__dataset_size(d) : 0;
}

peft_status peft_dataset_row(const peft_dataset *d, size_t index, int32_t *ids, int32_t *labels, size_t cap, size_t *needed) {
    peft_status st = PEFT_OK;
    TRY(peft__check_buffer(ids, cap, needed));
    TRY(peft__check_handle(d, PEFT__MAGIC_DATASET, "dataset"));
    if (index >= peft__dataset_size(d)) {
        FAIL(PEFT_E_NOT_FOUND, "there is no row %zu: the data set has %zu", index, peft__dataset_size(d));
    }
    const peft__row *row = peft__dataset_row(d, index);
    size_t n = (size_t)row->n, first = (size_t)row->first;
    TRY(peft__copy_elements((const int32_t *)d->ids.data + first, n, sizeof *ids, ids, cap, needed));
    if (labels != NULL) { memcpy(labels, (const int32_t *)d->labels.data + first, n * sizeof *labels); }
out:
    return st;
}

peft_status peft_dataset_info_json(const peft_dataset *d, char *buf, size_t cap, size_t *needed) {
    peft_status st = PEFT_OK;
    peft__str text;
    TRY(peft__check_buffer(buf, cap, needed));
    TRY(peft__check_handle(d, PEFT__MAGIC_DATASET, "dataset"));
    peft__str_init(&text, &d->ctx->mem);
    return peft__finish_text(peft__dataset_info(d, &text), &text, buf, cap, needed);
out:
    return st;
}
