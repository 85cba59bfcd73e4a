/* batch.c - whether a caller's batch has what a task's loss needs, within what the model knows.
 *
 *   causal_lm, masked_lm            ids in the vocabulary; "labels" of tokens in it too, which masked_lm must have
 *   token_classification            "labels" of tokens, below the number of labels
 *   sequence_classification         "row_labels" below it, or "targets": as many numbers a row as the model gives (0 or 1 of several
 *                                   labels); a row whose label is -100 has none of them
 *   question_answering              "spans": first and last token of the answer, within their row
 *   seq2seq_lm                      "source_ids" of every row in the vocabulary; "labels" say what comes at each place
 *   embedding                       "row_labels" are parts: 0 an anchor, 1 its positive, which follows it, 2 a negative
 *
 * Left out: sizes, which the plan knows (frame.c). */
#include "train/train.h"

static int64_t batch_row(const struct peft_batch *b, size_t r) { return PEFT__VEC_AT(&b->offsets, int64_t, r); }

static peft_status batch_ids(const struct peft_batch *b, const peft__config *c, int64_t vocab) {
    const int32_t *ids = b->ids.data, *types = b->types.data;
    for (size_t r = 0; r + 1 < b->offsets.len; r++) {
        for (int64_t i = batch_row(b, r); i < batch_row(b, r + 1); i++) {
            bool odd = b->types.len > 0 && c->type_vocab > 0 && types[i] >= c->type_vocab;
            if (ids[i] < 0 || ids[i] >= vocab) {
                return peft__fail(PEFT_E_SHAPE, "row %zu has token id %d, and the vocabulary %lld", r, (int)ids[i], (long long)vocab);
            }
            if (odd) {
                return peft__fail(PEFT_E_SHAPE, "row %zu has token type %d, and the model has %lld", r, (int)types[i],
                                  (long long)c->type_vocab);
            }
        }
    }
    return PEFT_OK;
}

static peft_status batch_needs(const peft__vec *v, const char *key, const peft__task *t) {
    if (v->len > 0) { return PEFT_OK; }
    return peft__fail(PEFT_E_INVALID, "the batch has no \"%s\", which a loss of %s needs", key, peft__task_name(t->kind));
}

/* Labels of tokens, below `most`. */
static peft_status batch_token_labels(const struct peft_batch *b, int64_t most, bool vocabulary) {
    const int32_t *labels = b->labels.data;
    for (size_t r = 0; b->labels.len > 0 && r + 1 < b->offsets.len; r++) {
        for (int64_t i = batch_row(b, r); i < batch_row(b, r + 1); i++) {
            if (labels[i] < most) { continue; }
            return peft__fail(PEFT_E_SHAPE, "row %zu has label %d, and %s %lld", r, (int)labels[i],
                              vocabulary ? "the vocabulary" : "the model's labels are", (long long)most);
        }
    }
    return PEFT_OK;
}

static peft_status batch_row_labels(const struct peft_batch *b, const peft__task *t) {
    peft_status st = PEFT_OK;
    size_t rows = b->offsets.len - 1;
    if (t->problem == PEFT__PROBLEM_SINGLE) {
        TRY(batch_needs(&b->row_labels, "row_labels", t));
        for (size_t r = 0; r < rows; r++) {
            int32_t label = PEFT__VEC_AT(&b->row_labels, int32_t, r);
            if (label < t->labels) { continue; }
            FAIL(PEFT_E_SHAPE, "row %zu has label %d, and the model's labels are %lld", r, (int)label, (long long)t->labels);
        }
        goto out;
    }
    TRY(batch_needs(&b->targets, "targets", t));
    if (b->targets.len != rows * (size_t)t->labels) {
        FAIL(PEFT_E_SHAPE, "\"targets\" has %zu numbers a row, and the model gives %lld", b->targets.len / rows, (long long)t->labels);
    }
out:
    return st;
}

static peft_status batch_sources(const struct peft_batch *b, const peft__task *t, int64_t vocab) {
    peft_status st = PEFT_OK;
    if (t->kind != PEFT__TASK_SEQ2SEQ_LM && b->source_ids.len > 0) {
        FAIL(PEFT_E_INVALID, "the batch has \"source_ids\", and the model has no encoder beside its decoder");
    }
    if (t->kind == PEFT__TASK_SEQ2SEQ_LM && b->source_ids.len == 0) {
        FAIL(PEFT_E_INVALID, "the batch has no \"source_ids\", which the encoder of this model reads");
    }
    for (size_t i = 0; i < b->source_ids.len; i++) {
        int32_t id = PEFT__VEC_AT(&b->source_ids, int32_t, i);
        if (id >= 0 && id < vocab) { continue; }
        FAIL(PEFT_E_SHAPE, "value %zu of \"source_ids\" is %d, and the vocabulary %lld", i, (int)id, (long long)vocab);
    }
out:
    return st;
}

static peft_status batch_spans(const struct peft_batch *b, const peft__task *t) {
    peft_status st = PEFT_OK;
    TRY(batch_needs(&b->spans, "spans", t));
    for (size_t i = 0; i < b->spans.len; i++) {
        int64_t n = batch_row(b, i / 2 + 1) - batch_row(b, i / 2);
        int32_t at = PEFT__VEC_AT(&b->spans, int32_t, i);
        if (at >= n) { FAIL(PEFT_E_SHAPE, "the span of row %zu has token %d, and the row %lld tokens", i / 2, (int)at, (long long)n); }
    }
out:
    return st;
}

static peft_status batch_parts(const struct peft_batch *b, const peft__task *t) {
    peft_status st = PEFT_OK;
    TRY(batch_needs(&b->row_labels, "row_labels", t));
    for (size_t r = 0; r < b->row_labels.len; r++) {
        int32_t part = PEFT__VEC_AT(&b->row_labels, int32_t, r), before = r > 0 ? PEFT__VEC_AT(&b->row_labels, int32_t, r - 1) : 2;
        bool last = r + 1 == b->row_labels.len;
        bool good = part == 0 ? before != 0 && !last : part == 1 ? before == 0 : part == 2 && before == 1;
        if (good) { continue; }
        FAIL(PEFT_E_INVALID, "row %zu is part %d of an embedding's rows, expected anchor (0), positive (1) and perhaps negative (2)", r,
             (int)part);
    }
out:
    return st;
}

peft_status peft__batch_check(const struct peft_batch *b, const peft__config *c, int64_t vocab) {
    peft_status st = PEFT_OK;
    const peft__task *t = &c->task;
    if (b->offsets.len < 2) { FAIL(PEFT_E_INVALID, "the batch has no rows"); }
    TRY(batch_ids(b, c, vocab));
    TRY(batch_sources(b, t, vocab));
    if (b->weights.len > 0 && !peft__task_is_lm(t)) {
        FAIL(PEFT_E_UNSUPPORTED, "\"loss_weights\" are of tokens of the vocabulary, and the task is %s", peft__task_name(t->kind));
    }
    if (t->kind == PEFT__TASK_MASKED_LM || t->kind == PEFT__TASK_TOKENS) { TRY(batch_needs(&b->labels, "labels", t)); }
    if (peft__task_is_lm(t)) { TRY(batch_token_labels(b, vocab, true)); }
    if (t->kind == PEFT__TASK_TOKENS) { TRY(batch_token_labels(b, t->labels, false)); }
    if (t->kind == PEFT__TASK_SEQUENCE) { TRY(batch_row_labels(b, t)); }
    if (t->kind == PEFT__TASK_SPAN) { TRY(batch_spans(b, t)); }
    if (t->kind == PEFT__TASK_EMBEDDING) { TRY(batch_parts(b, t)); }
out:
    return st;
}
