/* dataset.c - rows in memory: loading JSON Lines, truncation, packing.
 *
 * All rows stand end to end in two vectors, ids and labels; what only some tasks have lies in vectors of its own (train.h).
 * Packing (packing=true) joins consecutive rows to rows of at most max_length tokens that see each other, for language modelling
 * on short texts, never rows of different prompt tasks; without it rows never see each other and nothing is padded either, as
 * batches are packed by the frame. A load that fails leaves the set as it was.
 * Left out: streaming of files that do not fit into memory. */
#include <stdio.h>

#include "train/rows.h"

static const peft__option dataset_options[] = {
    {"task", PEFT__OPT_STR, "", 1, 0,
     "causal_lm|masked_lm|seq2seq_lm|sequence_classification|token_classification|question_answering|embedding",
     "what the rows are for; unset: as the fields of the first row say"},
    {"max_length", PEFT__OPT_INT, "1024", 1, 1 << 24, NULL, "longest row in tokens; longer ones are cut"},
#ifndef PEFT_MINIMAL
    {"max_source_length", PEFT__OPT_INT, "1024", 1, 1 << 24, NULL, "seq2seq_lm: most tokens of what the encoder reads"},
    {"doc_stride", PEFT__OPT_INT, "128", 0, 1 << 24, NULL,
     "question_answering: tokens of the context that a row shares with the one before it"},
    {"mlm_probability", PEFT__OPT_FLOAT, "0.15", 0, 1, NULL, "masked_lm: share of a text's tokens that are masked"},
#endif
    {"truncation", PEFT__OPT_STR, "right", 1, 0, "right|left|error", "which end of a longer row is cut, or an error"},
    {"packing", PEFT__OPT_BOOL, "false", 1, 0, NULL, "join rows to rows of max_length"},
    {"prompt_template", PEFT__OPT_STR, "", 1, 0, NULL, "text of a row with its fields in braces: 'Record: {mr}\\nSentence:'"},
    {"completion_template", PEFT__OPT_STR, "", 1, 0, NULL, "what the model must answer, the same way: ' {refs.0}'"},
    {"loss_on", PEFT__OPT_STR, "completion", 1, 0, "completion|all", "tokens that have a loss in rows with a prompt"},
    {"append_eos", PEFT__OPT_BOOL, "true", 1, 0, NULL, "end texts and completions with the end-of-text token"},
#ifndef PEFT_MINIMAL
    {"verbalizer", PEFT__OPT_PAIRS, "", 1, 0, NULL, "classes and what the model says for them: positive=\" good\",negative=\" bad\""},
#endif
    {"max_rows", PEFT__OPT_INT, "0", 0, 1e15, NULL, "read no more than this many rows of a file; 0: all"},
    {"task_id", PEFT__OPT_INT, "0", 0, INT32_MAX, NULL, "task of rows that name none, for multitask_prompt"},
};
const peft__schema peft__schema_dataset = {"dataset", dataset_options, PEFT__COUNT(dataset_options)};

static void dataset_vecs_init(struct peft_dataset *d) {
    peft__mem *mem = &d->ctx->mem;
    peft__vec_init(&d->ids, mem, sizeof(int32_t));
    peft__vec_init(&d->labels, mem, sizeof(int32_t));
    peft__vec_init(&d->rows, mem, sizeof(peft__row));
    peft__vec_init(&d->packed, mem, sizeof(peft__row));
    peft__vec_init(&d->types, mem, sizeof(int32_t));
    peft__vec_init(&d->targets, mem, sizeof(float));
    peft__vec_init(&d->sources, mem, sizeof(int32_t));
    peft__vec_init(&d->names, mem, sizeof(const char *));
    peft__vec_init(&d->examples, mem, sizeof(peft__example));
    peft__vec_init(&d->offsets, mem, sizeof(int32_t));
    peft__vec_init(&d->candidates, mem, sizeof(peft__row));
    peft__vec_init(&d->words, mem, sizeof(int32_t));
    peft__vec_init(&d->word_ends, mem, sizeof(size_t));
}

static void dataset_vecs_free(struct peft_dataset *d) {
    peft__vec *const all[] = {&d->ids,   &d->labels,   &d->rows,    &d->packed,     &d->types, &d->targets,  &d->sources,
                              &d->names, &d->examples, &d->offsets, &d->candidates, &d->words, &d->word_ends};
    for (size_t i = 0; i < PEFT__COUNT(all); i++) { peft__vec_free(all[i]); }
}

peft_status peft__dataset_create(peft_context *ctx, struct peft_tokenizer *t, const peft__optset *opts, struct peft_dataset **out) {
    peft_status st = PEFT_OK;
    struct peft_dataset *d = peft__alloc_zero(&ctx->mem, sizeof *d);
    if (d == NULL) { return PEFT_E_NOMEM; }
    d->magic = PEFT__MAGIC_DATASET;
    d->kind = -1;
    atomic_init(&d->refs, 1);
    d->ctx = ctx;
    peft__ctx_retain(ctx);
    d->tokenizer = t;
    if (t != NULL) { peft__tokenizer_retain(t); }
    dataset_vecs_init(d);
    peft__arena_init(&d->arena, &ctx->mem);
    TRY(opts != NULL ? peft__optset_copy(&d->opts, &ctx->mem, opts)
                     : peft__optset_init(&d->opts, &ctx->mem, &peft__schema_dataset));
    const char *task = peft__opt_str(&d->opts, "task");
    if (peft__opt_bool(&d->opts, "packing") && task[0] != '\0' && strcmp(task, peft__task_name(PEFT__TASK_CAUSAL_LM)) != 0) {
        FAIL(PEFT_E_KEY, "option \"packing\" is for rows of causal_lm, and \"task\" is %s", task);
    }
    TRY(peft__verbalizer_read(d));
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
    dataset_vecs_free(d);
    peft__arena_free(&d->arena);
    d->magic = PEFT__MAGIC_FREED;
    peft__free(&ctx->mem, d, sizeof *d);
    peft__ctx_release(ctx);
}

/* ---- what to go back to when a load fails -------------------------------------------------------------------------------- */

typedef struct dataset_mark {
    size_t ids, rows, types, targets, sources, names, examples, offsets, candidates; /* elements */
    int64_t truncated;
    int32_t max_id, max_task, max_type, kind, label_form;
} dataset_mark;

static dataset_mark dataset_where(const struct peft_dataset *d) {
    return (dataset_mark){.ids = d->ids.len,
                          .rows = d->rows.len,
                          .types = d->types.len,
                          .targets = d->targets.len,
                          .sources = d->sources.len,
                          .names = d->names.len,
                          .examples = d->examples.len,
                          .offsets = d->offsets.len,
                          .candidates = d->candidates.len,
                          .truncated = d->truncated,
                          .max_id = d->max_id,
                          .max_task = d->max_task,
                          .max_type = d->max_type,
                          .kind = d->kind,
                          .label_form = d->label_form};
}

/* Texts of the arena stay until the set is freed. */
static void dataset_back(struct peft_dataset *d, dataset_mark m) {
    d->ids.len = d->labels.len = m.ids;
    d->rows.len = m.rows;
    d->types.len = m.types;
    d->targets.len = m.targets;
    d->sources.len = m.sources;
    d->names.len = m.names;
    d->examples.len = m.examples;
    d->offsets.len = m.offsets;
    d->candidates.len = m.candidates;
    d->truncated = m.truncated;
    d->max_id = m.max_id;
    d->max_task = m.max_task;
    d->max_type = m.max_type;
    d->kind = m.kind;
    d->label_form = m.label_form;
}

/* Trainers have made room for the rows that they saw. */
static peft_status dataset_unused(const struct peft_dataset *d) {
    if (atomic_load(&d->refs) == 1) { return PEFT_OK; }
    return peft__fail(PEFT_E_BUSY, "a trainer uses the data set: no rows can be added");
}

/* ---- rows ------------------------------------------------------------------------------------------------------------------- */

peft__row peft__row_begin(const struct peft_dataset *d, int32_t task) {
    return (peft__row){.first = (int64_t)d->ids.len, .key = d->rows.len, .task = task, .label = -100, .begin = -1, .end = -1};
}

static void dataset_shift(peft__vec *v, size_t start, size_t n, size_t max) {
    int32_t *x = &PEFT__VEC_AT(v, int32_t, start);
    memmove(x, x + (n - max), max * sizeof *x);
}

peft_status peft__row_cut(struct peft_dataset *d, const peft__row *row, bool *cut) {
    peft_status st = PEFT_OK;
    size_t start = (size_t)row->first, n = d->ids.len - start, max = (size_t)peft__opt_int(&d->opts, "max_length");
    const char *how = peft__opt_str(&d->opts, "truncation");
    bool types = d->types.len > start;
    if (n <= max) { return PEFT_OK; }
    if (strcmp(how, "error") == 0) { FAIL(PEFT_E_FORMAT, "the row has %zu tokens, more than max_length %zu", n, max); }
    while (types && d->types.len < d->ids.len) { TRY(peft__vec_push(&d->types, &(int32_t){0})); }
    if (strcmp(how, "left") == 0) {
        dataset_shift(&d->ids, start, n, max);
        dataset_shift(&d->labels, start, n, max);
        if (types) { dataset_shift(&d->types, start, n, max); }
    }
    d->ids.len = d->labels.len = start + max;
    if (types) { d->types.len = start + max; }
    *cut = true;
out:
    return st;
}

peft_status peft__row_end(struct peft_dataset *d, peft__row *row, peft__vec *list) {
    peft_status st = PEFT_OK;
    size_t start = (size_t)row->first;
    if (d->ids.len == start) { FAIL(PEFT_E_FORMAT, "the row is empty"); }
    if (d->kind == PEFT__TASK_CAUSAL_LM) { PEFT__VEC_AT(&d->labels, int32_t, start) = -100; } /* nothing comes before it */
    while (d->types.len > 0 && d->types.len < d->ids.len) { TRY(peft__vec_push(&d->types, &(int32_t){0})); }
    for (size_t i = start; i < d->ids.len; i++) {
        d->max_id = PEFT__MAX(d->max_id, PEFT__VEC_AT(&d->ids, int32_t, i));
        if (d->kind <= PEFT__TASK_SEQ2SEQ_LM) { d->max_id = PEFT__MAX(d->max_id, PEFT__VEC_AT(&d->labels, int32_t, i)); }
        if (d->types.len > 0) { d->max_type = PEFT__MAX(d->max_type, PEFT__VEC_AT(&d->types, int32_t, i)); }
    }
    for (int64_t i = 0; i < row->n_source; i++) {
        d->max_id = PEFT__MAX(d->max_id, PEFT__VEC_AT(&d->sources, int32_t, row->source + i));
    }
    d->max_task = PEFT__MAX(d->max_task, row->task);
    row->n = (int64_t)(d->ids.len - start);
    TRY(peft__vec_push(list, row));
out:
    return st;
}

/* Joins consecutive rows of one task while they fit. Fails before it changes anything. */
static peft_status dataset_pack(struct peft_dataset *d) {
    peft_status st = PEFT_OK;
    if (!peft__opt_bool(&d->opts, "packing")) { return PEFT_OK; }
    if (d->kind > PEFT__TASK_CAUSAL_LM) {
        FAIL(PEFT_E_UNSUPPORTED, "option \"packing\" is for rows of causal_lm, and these are of %s", peft__task_name(d->kind));
    }
    TRY(peft__vec_reserve(&d->packed, d->rows.len));
    d->packed.len = 0;
    int64_t max = peft__opt_int(&d->opts, "max_length");
    peft__row open = peft__row_begin(d, 0);
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
    peft__arena_init(&arena, &d->ctx->mem);
    TRY(peft__json_parse(&arena, json, len, what, &row));
    st = peft__row_parse(d, row, &arena);
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
    int64_t line = 0, read = 0, limit = peft__opt_int(&d->opts, "max_rows");
    memset(&file, 0, sizeof file);
    TRY(dataset_unused(d));
    TRY(peft__file_open(&d->ctx->mem, path, false, &file));
    const char *text = (const char *)file.data;
    size_t at = file.size >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    while (at < file.size && (limit == 0 || read < limit)) {
        const char *end = memchr(text + at, '\n', file.size - at);
        size_t n = end != NULL ? (size_t)(end - text) - at : file.size - at;
        line++;
        if (!dataset_blank(text + at, n)) {
            char what[512];
            size_t len = strlen(path);
            const char *tail = len > 400 ? path + len - 400 : path;
            (void)snprintf(what, sizeof what, "%s line %lld", tail, (long long)line);
            TRY(dataset_one(d, text + at, n, what));
            read++;
        }
        at += n + 1;
    }
    if (read == 0) { FAIL(PEFT_E_FORMAT, "%s: there is no row in it", path); }
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
    const struct { const char *key; size_t n; } others[] = {{"loss_weights", b->weights.len}, {"token_type_ids", b->types.len},
                                                            {"row_labels", b->row_labels.len}, {"spans", b->spans.len},
                                                            {"targets", b->targets.len}, {"source_ids", b->source_ids.len}};
    for (size_t i = 0; i < PEFT__COUNT(others); i++) {
        if (others[i].n == 0) { continue; }
        return peft__fail(PEFT_E_UNSUPPORTED, "a data set keeps no \"%s\" of a batch: give the batch to a trainer", others[i].key);
    }
    TRY(dataset_unused(d));
    for (size_t r = 0; r + 1 < b->offsets.len; r++) {
        int64_t first = PEFT__VEC_AT(&b->offsets, int64_t, r), end = PEFT__VEC_AT(&b->offsets, int64_t, r + 1);
        peft__row row = peft__row_begin(d, (int32_t)peft__opt_int(&d->opts, "task_id"));
        bool cut = false;
        if (end == first) { FAIL(PEFT_E_INVALID, "row %zu of the batch is empty", r); }
        TRY(peft__rows_batch_kind(d, &d->kind));
        for (int64_t i = first; i < end; i++) {
            TRY(peft__vec_push(&d->ids, &ids[i]));
            TRY(peft__vec_push(&d->labels, &labels[i]));
        }
        if (b->tasks.len > 0) { row.task = PEFT__VEC_AT(&b->tasks, int32_t, r); }
        row.maskable = d->kind == PEFT__TASK_MASKED_LM && b->labels.len == 0;
        TRY(peft__row_cut(d, &row, &cut));
        d->truncated += cut;
        TRY(peft__row_end(d, &row, &d->rows));
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

int64_t peft__dataset_longest_source(const struct peft_dataset *d) {
    int64_t most = 0;
    for (size_t i = 0; i < peft__dataset_size(d); i++) { most = PEFT__MAX(most, peft__dataset_row(d, i)->n_source); }
    return most;
}

int64_t peft__dataset_longest(const struct peft_dataset *d) {
    int64_t n = 0;
    for (size_t i = 0; i < peft__dataset_size(d); i++) { n = PEFT__MAX(n, peft__row_length(peft__dataset_row(d, i))); }
    for (size_t i = 0; i < d->candidates.len; i++) { n = PEFT__MAX(n, PEFT__VEC_AT(&d->candidates, peft__row, i).n); }
    return n;
}
