/* dataset.c - rows in memory: loading JSON Lines, truncation, packing.
 *
 * All rows stand end to end in two vectors, ids and labels. Packing (packing=true) joins consecutive rows to rows of at most
 * max_length tokens that see each other, for language modelling on short texts, never rows of different tasks; without it rows
 * never see each other and nothing is padded either, as batches are packed by the frame. */
#include <stdio.h>

#include "train/rows.h"

static const peft__option dataset_options[] = {
    {"max_length", PEFT__OPT_INT, "1024", 1, 1 << 24, NULL, "longest row in tokens; longer ones are cut"},
    {"truncation", PEFT__OPT_STR, "right", 1, 0, "right|left|error", "which end of a longer row is cut, or an error"},
    {"packing", PEFT__OPT_BOOL, "false", 1, 0, NULL, "join rows to rows of max_length"},
    {"prompt_template", PEFT__OPT_STR, "", 1, 0, NULL, "text of a row with its fields in braces: 'Record: {mr}\\nSentence:'"},
    {"completion_template", PEFT__OPT_STR, "", 1, 0, NULL, "what the model must answer, the same way: ' {refs.0}'"},
    {"loss_on", PEFT__OPT_STR, "completion", 1, 0, "completion|all", "tokens that have a loss in rows with a prompt"},
    {"append_eos", PEFT__OPT_BOOL, "true", 1, 0, NULL, "end texts and completions with the end-of-text token"},
    {"max_rows", PEFT__OPT_INT, "0", 0, 1e15, NULL, "read no more than this many rows of a file; 0: all"},
    {"task_id", PEFT__OPT_INT, "0", 0, INT32_MAX, NULL, "task of rows that name none, for multitask_prompt"},
};
const peft__schema peft__schema_dataset = {"dataset", dataset_options, PEFT__COUNT(dataset_options)};

peft_status peft__dataset_create(peft_context *ctx, struct peft_tokenizer *t, const peft__optset *opts, struct peft_dataset **out) {
    peft_status st = PEFT_OK;
    struct peft_dataset *d = peft__alloc_zero(&ctx->mem, sizeof *d);
    if (d == NULL) { return PEFT_E_NOMEM; }
    d->magic = PEFT__MAGIC_DATASET;
    atomic_init(&d->refs, 1);
    d->ctx = ctx;
    peft__ctx_retain(ctx);
    d->tokenizer = t;
    if (t != NULL) { peft__tokenizer_retain(t); }
    peft__vec_init(&d->ids, &ctx->mem, sizeof(int32_t));
    peft__vec_init(&d->labels, &ctx->mem, sizeof(int32_t));
    peft__vec_init(&d->rows, &ctx->mem, sizeof(peft__row));
    peft__vec_init(&d->packed, &ctx->mem, sizeof(peft__row));
    TRY(opts != NULL ? peft__optset_copy(&d->opts, &ctx->mem, opts)
                     : peft__optset_init(&d->opts, &ctx->mem, &peft__schema_dataset));
out:
    if (st != PEFT_OK) {
        peft__dataset_release(d);
        d = NULL;
    }
    *out = d;
    return st;
}

void peft__dataset_retain(struct peft_dataset *d) { atomic_fetch_add(&d->refs, 1); }

void peft__dataset_release(struct peft_dataset *d) {
    if (d == NULL || atomic_fetch_sub(&d->refs, 1) != 1) { return; }
    peft_context *ctx = d->ctx;
    if (d->tokenizer != NULL) { peft__tokenizer_release(d->tokenizer); }
    peft__optset_free(&d->opts);
    peft__vec_free(&d->ids);
    peft__vec_free(&d->labels);
    peft__vec_free(&d->rows);
    peft__vec_free(&d->packed);
    d->magic = PEFT__MAGIC_FREED;
    peft__free(&ctx->mem, d, sizeof *d);
    peft__ctx_release(ctx);
}

typedef struct dataset_mark { /* what to go back to when a load fails */
    size_t ids, rows;
    int64_t truncated;
    int32_t max_id, max_task;
} dataset_mark;

static dataset_mark dataset_where(const struct peft_dataset *d) {
    dataset_mark m = {d->ids.len, d->rows.len, d->truncated, d->max_id, d->max_task};
    return m;
}

/* Trainers have made room for the rows that they saw. */
static peft_status dataset_unused(const struct peft_dataset *d) {
    if (atomic_load(&d->refs) == 1) { return PEFT_OK; }
    return peft__fail(PEFT_E_BUSY, "a trainer uses the data set: no rows can be added");
}

static void dataset_back(struct peft_dataset *d, dataset_mark m) {
    d->ids.len = d->labels.len = m.ids;
    d->rows.len = m.rows;
    d->truncated = m.truncated;
    d->max_id = m.max_id;
    d->max_task = m.max_task;
}

/* Ends the row that began at `start`: cuts it and enters it. */
static peft_status dataset_close_row(struct peft_dataset *d, size_t start, int32_t task) {
    peft_status st = PEFT_OK;
    size_t n = d->ids.len - start, max = (size_t)peft__opt_int(&d->opts, "max_length");
    const char *how = peft__opt_str(&d->opts, "truncation");
    if (n > max) {
        if (strcmp(how, "error") == 0) { FAIL(PEFT_E_FORMAT, "the row has %zu tokens, more than max_length %zu", n, max); }
        if (strcmp(how, "left") == 0) {
            int32_t *ids = &PEFT__VEC_AT(&d->ids, int32_t, start), *labels = &PEFT__VEC_AT(&d->labels, int32_t, start);
            memmove(ids, ids + (n - max), max * sizeof *ids);
            memmove(labels, labels + (n - max), max * sizeof *labels);
            labels[0] = -100;
        }
        d->ids.len = d->labels.len = start + max;
        d->truncated++;
    }
    for (size_t i = start; i < d->ids.len; i++) {
        d->max_id = PEFT__MAX(d->max_id, PEFT__VEC_AT(&d->ids, int32_t, i));
        d->max_id = PEFT__MAX(d->max_id, PEFT__VEC_AT(&d->labels, int32_t, i));
    }
    d->max_task = PEFT__MAX(d->max_task, task);
    peft__row row = {(int64_t)start, (int64_t)(d->ids.len - start), d->rows.len, task};
    TRY(peft__vec_push(&d->rows, &row));
out:
    return st;
}

/* Joins consecutive rows of one task while they fit. Fails before it changes anything. */
static peft_status dataset_pack(struct peft_dataset *d) {
    peft_status st = PEFT_OK;
    if (!peft__opt_bool(&d->opts, "packing")) { return PEFT_OK; }
    TRY(peft__vec_reserve(&d->packed, d->rows.len));
    d->packed.len = 0;
    int64_t max = peft__opt_int(&d->opts, "max_length");
    peft__row open = {0, 0, 0, 0};
    for (size_t i = 0; i < d->rows.len; i++) {
        const peft__row *r = &PEFT__VEC_AT(&d->rows, peft__row, i);
        if (open.n > 0 && (open.n + r->n > max || open.task != r->task)) {
            TRY(peft__vec_push(&d->packed, &open));
            open.n = 0;
        }
        if (open.n == 0) { open = *r; } else { open.n += r->n; }
    }
    if (open.n > 0) { TRY(peft__vec_push(&d->packed, &open)); }
out:
    return st;
}

static peft_status dataset_one(struct peft_dataset *d, const char *json, size_t len, const char *what) {
    peft_status st = PEFT_OK;
    peft__arena arena;
    const peft__json *row = NULL;
    size_t start = d->ids.len;
    int32_t task = 0;
    peft__arena_init(&arena, &d->ctx->mem);
    TRY(peft__json_parse(&arena, json, len, what, &row));
    st = peft__row_parse(d, row, &task);
    if (st == PEFT_OK) { st = dataset_close_row(d, start, task); }
    if (st != PEFT_OK && st != PEFT_E_NOMEM) { peft__fail_prefix("%s", what); }
out:
    peft__arena_free(&arena);
    return st;
}

peft_status peft__dataset_add_json(struct peft_dataset *d, const char *json, size_t len, const char *what) {
    peft_status st = PEFT_OK;
    dataset_mark mark = dataset_where(d);
    TRY(dataset_unused(d));
    TRY(dataset_one(d, json, len, what));
    TRY(dataset_pack(d));
out:
    if (st != PEFT_OK) { dataset_back(d, mark); }
    return st;
}

static bool dataset_blank(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (s[i] != ' ' && s[i] != '\t' && s[i] != '\r') { return false; }
    }
    return true;
}

peft_status peft__dataset_load(struct peft_dataset *d, const char *path) {
    peft_status st = PEFT_OK;
    dataset_mark mark = dataset_where(d);
    peft__file file;
    int64_t line = 0, limit = peft__opt_int(&d->opts, "max_rows");
    memset(&file, 0, sizeof file);
    TRY(dataset_unused(d));
    TRY(peft__file_open(&d->ctx->mem, path, false, &file));
    const char *text = (const char *)file.data;
    size_t at = file.size >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    while (at < file.size && (limit == 0 || (int64_t)(d->rows.len - mark.rows) < limit)) {
        const char *end = memchr(text + at, '\n', file.size - at);
        size_t n = end != NULL ? (size_t)(end - text) - at : file.size - at;
        line++;
        if (!dataset_blank(text + at, n)) {
            char what[512];
            size_t len = strlen(path);
            const char *tail = len > 400 ? path + len - 400 : path;
            (void)snprintf(what, sizeof what, "%s line %lld", tail, (long long)line);
            TRY(dataset_one(d, text + at, n, what));
        }
        at += n + 1;
    }
    if (d->rows.len == mark.rows) { FAIL(PEFT_E_FORMAT, "%s: there is no row in it", path); }
    TRY(dataset_pack(d));
out:
    if (st != PEFT_OK) { dataset_back(d, mark); }
    peft__file_close(&file);
    return st;
}

peft_status peft__dataset_add_batch(struct peft_dataset *d, const struct peft_batch *b) {
    peft_status st = PEFT_OK;
    dataset_mark mark = dataset_where(d);
    const int32_t *ids = b->ids.data, *labels = b->labels.len > 0 ? b->labels.data : b->ids.data;
    if (b->weights.len > 0) {
        return peft__fail(PEFT_E_UNSUPPORTED, "a data set keeps no \"loss_weights\": give the batch to a trainer");
    }
    TRY(dataset_unused(d));
    for (size_t r = 0; r + 1 < b->offsets.len; r++) {
        int64_t first = PEFT__VEC_AT(&b->offsets, int64_t, r), end = PEFT__VEC_AT(&b->offsets, int64_t, r + 1);
        size_t start = d->ids.len;
        if (end == first) { FAIL(PEFT_E_INVALID, "row %zu of the batch is empty", r); }
        for (int64_t i = first; i < end; i++) {
            int32_t label = i == first ? -100 : labels[i];
            TRY(peft__vec_push(&d->ids, &ids[i]));
            TRY(peft__vec_push(&d->labels, &label));
        }
        int32_t task = b->tasks.len > 0 ? PEFT__VEC_AT(&b->tasks, int32_t, r) : (int32_t)peft__opt_int(&d->opts, "task_id");
        TRY(dataset_close_row(d, start, task));
    }
    TRY(dataset_pack(d));
out:
    if (st != PEFT_OK) { dataset_back(d, mark); }
    return st;
}

static const peft__vec *dataset_list(const struct peft_dataset *d) { return d->packed.len > 0 ? &d->packed : &d->rows; }

size_t peft__dataset_size(const struct peft_dataset *d) { return dataset_list(d)->len; }

const peft__row *peft__dataset_row(const struct peft_dataset *d, size_t i) {
    return &PEFT__VEC_AT(dataset_list(d), peft__row, i);
}

int64_t peft__dataset_longest(const struct peft_dataset *d) {
    int64_t n = 0;
    for (size_t i = 0; i < peft__dataset_size(d); i++) { n = PEFT__MAX(n, peft__dataset_row(d, i)->n); }
    return n;
}

peft_status peft__dataset_info(const struct peft_dataset *d, peft__str *out) {
    peft__json_out j;
    int64_t labelled = 0;
    for (size_t i = 0; i < d->labels.len; i++) { labelled += PEFT__VEC_AT(&d->labels, int32_t, i) >= 0; }
    peft__json_begin(&j, out, 0);
    peft__json_object(&j);
    peft__json_key(&j, "rows");
    peft__json_put_int(&j, (int64_t)peft__dataset_size(d));
    peft__json_key(&j, "tokens");
    peft__json_put_int(&j, (int64_t)d->ids.len);
    peft__json_key(&j, "labelled_tokens");
    peft__json_put_int(&j, labelled);
    peft__json_key(&j, "max_length");
    peft__json_put_int(&j, peft__dataset_longest(d));
    peft__json_key(&j, "truncated");
    peft__json_put_int(&j, d->truncated);
    peft__json_object_end(&j);
    return peft__str_status(out);
}

peft_status peft__dataset_check(const struct peft_dataset *d, const peft__config *config, int64_t new_tokens, const char *what) {
    bool labelled = false;
    for (size_t i = 0; i < d->labels.len && !labelled; i++) { labelled = PEFT__VEC_AT(&d->labels, int32_t, i) >= 0; }
    if (peft__dataset_size(d) == 0) { return peft__fail(PEFT_E_INVALID, "the %s data has no rows", what); }
    if (d->max_id >= config->vocab_size + new_tokens) {
        return peft__fail(PEFT_E_SHAPE, "the %s data has token id %d, and the model's vocabulary %lld: is it the model's tokenizer?",
                          what, (int)d->max_id, (long long)(config->vocab_size + new_tokens));
    }
    if (config->max_positions > 0 && peft__dataset_longest(d) > config->max_positions) {
        return peft__fail(PEFT_E_SHAPE, "a row of the %s data has %lld tokens, more than the model's %lld positions: lower max_length",
                          what, (long long)peft__dataset_longest(d), (long long)config->max_positions);
    }
    if (!labelled) {
        return peft__fail(PEFT_E_INVALID, "no token of the %s data has a label: does max_length cut off all completions?",
                          what);
    }
    return PEFT_OK;
}

peft_status peft__dataset_check_tasks(const struct peft_dataset *d, const peft__tape *t, const char *what) {
    if (d == NULL || t->tasks == 0 || d->max_task < t->tasks) { return PEFT_OK; }
    return peft__fail(PEFT_E_SHAPE, "a row of the %s data has task_id %d, and the adapter's num_tasks is %lld", what, (int)d->max_task,
                      (long long)t->tasks);
}
