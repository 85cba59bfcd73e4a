/* rows_kind.c - which task a row is for, and what rows of each task look like.
 *
 * The option "task" says it, or templates and a verbalizer do (causal_lm), or the fields of the first row:
 *
 *   question, context, answers                     question_answering
 *   tokens with labels, ner_tags or tags           token_classification
 *   anchor, positive; or sentence1, sentence2      embedding
 *   text, input_ids or sentence1, with a label     sequence_classification
 *   anything else                                  causal_lm
 *
 * masked_lm and seq2seq_lm have fields in common with causal_lm, so that only the option can say them.
 * Left out: sets of several tasks. */
#include "train/rows.h"

static const char *const kind_shapes[PEFT__TASK_COUNT] = {
    [PEFT__TASK_CAUSAL_LM] = "{\"text\"}, {\"prompt\", \"completion\"}, {\"messages\"} or {\"input_ids\"[, \"labels\"]}",
    [PEFT__TASK_MASKED_LM] = "{\"text\"} or {\"input_ids\"[, \"labels\"]}",
    [PEFT__TASK_SEQ2SEQ_LM] = "{\"source\", \"target\"} or {\"input_ids\", \"labels\"}",
    [PEFT__TASK_SEQUENCE] = "{\"text\"[, \"text_pair\"], \"label\"} or {\"input_ids\"[, \"token_type_ids\"], \"label\"}",
    [PEFT__TASK_TOKENS] = "{\"tokens\", \"labels\"} or {\"input_ids\", \"labels\"}",
    [PEFT__TASK_SPAN] = "{\"question\", \"context\", \"answers\": {\"text\": [...], \"answer_start\": [...]}}",
    [PEFT__TASK_EMBEDDING] = "{\"anchor\", \"positive\"[, \"negative\"][, \"score\"]}",
};

static bool kind_has(const peft__json *row, const char *key) { return peft__json_get(row, key) != NULL; }

/* PEFT__TASK_*; -1: nothing that any task knows. */
static int32_t kind_by_fields(const peft__json *row) {
    bool labels = kind_has(row, "labels"), label = kind_has(row, "label");
    bool tagged = labels || kind_has(row, "ner_tags") || kind_has(row, "tags");
    bool sentences = kind_has(row, "sentence1") && kind_has(row, "sentence2");
    if (kind_has(row, "messages") || (kind_has(row, "prompt") && kind_has(row, "completion"))) { return PEFT__TASK_CAUSAL_LM; }
    if (kind_has(row, "question") && kind_has(row, "context") && kind_has(row, "answers")) { return PEFT__TASK_SPAN; }
    if (kind_has(row, "tokens") && tagged) { return PEFT__TASK_TOKENS; }
    if ((kind_has(row, "anchor") && kind_has(row, "positive")) || (sentences && !label)) { return PEFT__TASK_EMBEDDING; }
    if (kind_has(row, "input_ids")) { return label && !labels ? PEFT__TASK_SEQUENCE : PEFT__TASK_CAUSAL_LM; }
    if (kind_has(row, "text")) { return label || labels ? PEFT__TASK_SEQUENCE : PEFT__TASK_CAUSAL_LM; }
    return sentences ? PEFT__TASK_SEQUENCE : -1;
}

bool peft__rows_known(const peft__json *row) { return kind_by_fields(row) >= 0; }

bool peft__rows_templates(const struct peft_dataset *d) {
    return peft__opt_str(&d->opts, "prompt_template")[0] != '\0' || peft__opt_str(&d->opts, "completion_template")[0] != '\0';
}

peft_status peft__rows_kind(const struct peft_dataset *d, const peft__json *row, int32_t *kind) {
    peft_status st = PEFT_OK;
    const char *asked = peft__opt_str(&d->opts, "task");
    int32_t found = PEFT__TASK_CAUSAL_LM;
    if (asked[0] != '\0') {
        found = peft__task_find(asked);
    } else if (!peft__rows_templates(d) && d->word_ends.len == 0) {
        found = kind_by_fields(row);
        if (found < 0) { found = PEFT__MAX(d->kind, PEFT__TASK_CAUSAL_LM); }
        bool plain = !kind_has(row, "labels") && (kind_has(row, "text") || kind_has(row, "input_ids"));
        if (d->kind == PEFT__TASK_SEQUENCE && found == PEFT__TASK_CAUSAL_LM && plain) { found = d->kind; } /* without a label */
    }
    if (d->kind >= 0 && found != d->kind) {
        FAIL(PEFT_E_FORMAT, "the row is of %s by its fields, and those before it are of %s: give the option \"task\"",
             peft__task_name(found), peft__task_name(d->kind));
    }
    *kind = found;
out:
    return st;
}

peft_status peft__rows_lacks(const struct peft_dataset *d, const char *what) {
    const char *shape = d->word_ends.len > 0 ? "{\"text\" or \"prompt\", \"label\"}" : kind_shapes[d->kind];
    return peft__fail(PEFT_E_FORMAT, "the row has no %s; rows of %s%s are %s", what, peft__task_name(d->kind),
                      d->word_ends.len > 0 ? " with a verbalizer" : "", shape);
}

peft_status peft__rows_batch_kind(const struct peft_dataset *d, int32_t *kind) {
    const char *asked = peft__opt_str(&d->opts, "task");
    int32_t found = d->kind >= 0 ? d->kind : asked[0] != '\0' ? peft__task_find(asked) : PEFT__TASK_CAUSAL_LM;
    if (d->word_ends.len > 0 ||
        (found != PEFT__TASK_CAUSAL_LM && found != PEFT__TASK_MASKED_LM && found != PEFT__TASK_TOKENS)) {
        return peft__fail(PEFT_E_UNSUPPORTED, "a batch has ids and labels of tokens: rows of causal_lm, masked_lm or "
                          "token_classification, and the set's are of %s%s", peft__task_name(found),
                          d->word_ends.len > 0 ? " with a verbalizer" : "");
    }
    *kind = found;
    return PEFT_OK;
}
