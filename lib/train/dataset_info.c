/* dataset_info.c - what a data set says of itself, and whether its rows fit a model.
 *
 * The numbers are counted anew each time: rows never change what they are, and a set is asked rarely.
 * Left out: whether classes and outputs agree, which is the trainer's to see, because outputs may be numbers as well. */
#include "train/train.h"

static const peft__row *info_row(const struct peft_dataset *d, size_t i) { return &PEFT__VEC_AT(&d->rows, peft__row, i); }

/* Tokens of the rows that have a label. Candidates are the same rows once more. */
static int64_t info_labelled_tokens(const struct peft_dataset *d) {
    int64_t n = 0;
    for (size_t r = 0; r < d->rows.len; r++) {
        const int32_t *labels = (const int32_t *)d->labels.data + info_row(d, r)->first;
        for (int64_t i = 0; i < info_row(d, r)->n; i++) { n += labels[i] >= 0; }
    }
    return n;
}

static bool info_row_labelled(const struct peft_dataset *d, const peft__row *r) {
    if (d->kind == PEFT__TASK_SPAN) { return r->begin >= 0; }
    return r->label >= 0 || r->n_targets > 0 || r->list;
}

static int64_t info_labelled_rows(const struct peft_dataset *d) {
    int64_t n = 0;
    for (size_t r = 0; r < d->rows.len; r++) { n += info_row_labelled(d, info_row(d, r)); }
    return n;
}

/* 1 + the largest class number; -1: some label is no class number. */
static int64_t info_classes(const struct peft_dataset *d) {
    int64_t n = 0;
    for (size_t r = 0; r < d->rows.len; r++) {
        const peft__row *row = info_row(d, r);
        if (d->kind == PEFT__TASK_TOKENS) {
            const int32_t *labels = (const int32_t *)d->labels.data + row->first;
            for (int64_t i = 0; i < row->n; i++) { n = PEFT__MAX(n, (int64_t)labels[i] + 1); }
        } else if (row->list || (row->n_targets > 0 && row->label < 0)) {
            return -1;
        } else {
            n = PEFT__MAX(n, (int64_t)row->label + 1);
        }
    }
    return n;
}

static void info_put(peft__json_out *j, const char *key, int64_t n) {
    peft__json_key(j, key);
    peft__json_put_int(j, n);
}

/* Names, or how many classes their numbers tell of, or null: numbers that are no classes. */
static void info_put_labels(const struct peft_dataset *d, peft__json_out *j) {
    int64_t classes = d->names.len > 0 ? 0 : info_classes(d);
    peft__json_key(j, "labels");
    if (d->names.len > 0) {
        peft__json_array(j);
        for (size_t i = 0; i < d->names.len; i++) { peft__json_put_text(j, PEFT__VEC_AT(&d->names, const char *, i)); }
        peft__json_array_end(j);
    } else if (classes < 0) {
        peft__json_put_null(j);
    } else {
        peft__json_put_int(j, classes);
    }
}

static int64_t info_longest_source(const struct peft_dataset *d) {
    int64_t n = 0;
    for (size_t r = 0; r < d->rows.len; r++) { n = PEFT__MAX(n, info_row(d, r)->n_source); }
    return n;
}

peft_status peft__dataset_info(const struct peft_dataset *d, peft__str *out) {
    peft__json_out j;
    int64_t tokens = 0;
    for (size_t r = 0; r < d->rows.len; r++) { tokens += info_row(d, r)->n; }
    peft__json_begin(&j, out, 0);
    peft__json_object(&j);
    info_put(&j, "rows", (int64_t)peft__dataset_size(d));
    info_put(&j, "tokens", tokens);
    info_put(&j, "labelled_tokens", info_labelled_tokens(d));
    info_put(&j, "max_length", peft__dataset_longest(d));
    info_put(&j, "truncated", d->truncated);
    peft__json_key(&j, "task");
    peft__json_put_text(&j, d->kind >= 0 ? peft__task_name(d->kind) : NULL);
    if (d->kind == PEFT__TASK_SEQUENCE || d->kind == PEFT__TASK_SPAN) { info_put(&j, "labelled_rows", info_labelled_rows(d)); }
    if (d->kind == PEFT__TASK_SEQUENCE || d->kind == PEFT__TASK_TOKENS || d->word_ends.len > 0) { info_put_labels(d, &j); }
    if (d->kind == PEFT__TASK_SPAN) { info_put(&j, "questions", (int64_t)d->examples.len); }
    if (d->kind == PEFT__TASK_SEQ2SEQ_LM) {
        info_put(&j, "source_tokens", (int64_t)d->sources.len);
        info_put(&j, "max_source_length", info_longest_source(d));
    }
    peft__json_object_end(&j);
    return peft__str_status(out);
}

peft_status peft__dataset_labelled(const struct peft_dataset *d, const char *what) {
    if (d->kind == PEFT__TASK_EMBEDDING) { return PEFT_OK; }
    if (d->kind == PEFT__TASK_SEQUENCE || d->kind == PEFT__TASK_SPAN) {
        if (info_labelled_rows(d) > 0) { return PEFT_OK; }
        return peft__fail(PEFT_E_INVALID, "no row of the %s data has %s", what,
                          d->kind == PEFT__TASK_SPAN ? "\"answers\"" : "a \"label\"");
    }
    if (info_labelled_tokens(d) > 0) { return PEFT_OK; }
    return peft__fail(PEFT_E_INVALID, "no token of the %s data has a label: %s", what,
                      d->kind == PEFT__TASK_TOKENS ? "do all rows lack \"labels\"?"
                                                   : "are its completions empty, or does max_length cut them off?");
}

peft_status peft__dataset_check(const struct peft_dataset *d, const peft__config *config, int64_t new_tokens, const char *what) {
    int64_t rows = peft__dataset_longest(d), longest = PEFT__MAX(rows, info_longest_source(d));
    if (peft__dataset_size(d) == 0) { return peft__fail(PEFT_E_INVALID, "the %s data has no rows", what); }
    if (d->max_id >= config->vocab_size + new_tokens) {
        return peft__fail(PEFT_E_SHAPE, "the %s data has token id %d, and the model's vocabulary %lld: is it the model's tokenizer?",
                          what, (int)d->max_id, (long long)(config->vocab_size + new_tokens));
    }
    if (config->max_positions > 0 && longest > config->max_positions) {
        return peft__fail(PEFT_E_SHAPE, "a row of the %s data has %lld tokens, more than the model's %lld positions: lower %s", what,
                          (long long)longest, (long long)config->max_positions,
                          longest == rows ? "max_length" : "max_source_length");
    }
    if (config->type_vocab > 0 && d->max_type >= config->type_vocab) {
        return peft__fail(PEFT_E_SHAPE, "the %s data has token type %d, and the model's types are 0 to %lld", what, (int)d->max_type,
                          (long long)config->type_vocab - 1);
    }
    return PEFT_OK;
}

peft_status peft__dataset_check_tasks(const struct peft_dataset *d, const peft__tape *t, const char *what) {
    if (d == NULL || t->tasks == 0 || d->max_task < t->tasks) { return PEFT_OK; }
    return peft__fail(PEFT_E_SHAPE, "a row of the %s data has task_id %d, and the adapter's num_tasks is %lld", what, (int)d->max_task,
                      (long long)t->tasks);
}
