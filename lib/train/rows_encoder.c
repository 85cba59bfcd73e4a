/* rows_encoder.c - rows of masked_lm, embedding and seq2seq_lm.
 *
 *   masked_lm    {"text"}                          the template's tokens without a label, all others labelled: any may be masked
 *                {"input_ids"[, "labels"]}         masked already, labels say what stood there
 *   embedding    {"anchor", "positive"[, "negative"]}, {"sentence1", "sentence2"[, "score"]}, {"text"} to be embedded alone
 *                                                  each encoded by itself; a row has them end to end. The score is how alike the
 *                                                  first two are, for evaluation
 *   seq2seq_lm   {"source", "target"}              the encoder's tokens and the decoder's, both with the template of the tokenizer
 *                {"input_ids", "labels"}           the same as ids
 *
 * Labels of these rows stand at their token: nothing is shifted here. What the decoder reads is made of its target's ids by the
 * model (start token, then all but the last; Raffel et al. 2020, arXiv 1910.10683).
 * Left out: spans of masks (T5's pre-training), several negatives of a row. */
#include "train/rows.h"

/* ---- masked_lm ------------------------------------------------------------------------------------------------------------------- */

static bool encoder_special(const struct peft_dataset *d, int32_t id) {
    const peft__tokenizer *t = d->tokenizer != NULL ? d->tokenizer->inner : NULL;
    return t != NULL && (id == peft__tokenizer_bos(t) || id == peft__tokenizer_eos(t) || id == peft__tokenizer_pad(t) ||
                         id == peft__tokenizer_mask(t));
}

static peft_status encoder_masked_text(struct peft_dataset *d, peft__row_in *in) {
    static const char *const keys[] = {"text", NULL};
    peft_status st = PEFT_OK;
    peft__text_in text;
    peft__vec all;
    peft__vec_init(&all, &d->ctx->mem, sizeof(peft__encoded));
    TRY(peft__rows_field(d, in, "prompt_template", keys, &text));
    if (text.text == NULL) { TRY(peft__rows_lacks(d, "\"text\"")); }
    TRY(peft__rows_pair(d, in, &text, NULL, "max_length", &all));
    for (size_t i = 0; i < all.len; i++) {
        const peft__encoded *x = &PEFT__VEC_AT(&all, peft__encoded, i);
        bool special = x->part < 0 || encoder_special(d, x->id);
        TRY(peft__rows_put(d, x->id, special ? -100 : x->id, x->type));
    }
out:
    peft__vec_free(&all);
    return st;
}

static peft_status encoder_masked_ids(struct peft_dataset *d, peft__row_in *in, const peft__json *ids, peft__row *row) {
    peft_status st = PEFT_OK;
    const peft__json *labels = peft__json_find(in->json, "labels");
    peft__vec given;
    size_t start = d->ids.len;
    peft__vec_init(&given, &d->ctx->mem, sizeof(int32_t));
    row->maskable = labels == NULL;
    TRY(peft__rows_put_ids(d, in, ids, true));
    if (labels != NULL) {
        TRY(peft__rows_ints(labels, "labels", true, &given));
        if (given.len != d->ids.len - start) {
            FAIL(PEFT_E_FORMAT, "\"labels\" has %zu elements, and \"input_ids\" %zu", given.len, d->ids.len - start);
        }
    }
    for (size_t i = start; i < d->ids.len; i++) {
        int32_t id = PEFT__VEC_AT(&d->ids, int32_t, i);
        PEFT__VEC_AT(&d->labels, int32_t, i) =
            labels != NULL ? PEFT__VEC_AT(&given, int32_t, i - start) : encoder_special(d, id) ? -100 : id;
    }
    TRY(peft__row_cut(d, row, &in->cut));
out:
    peft__vec_free(&given);
    return st;
}

peft_status peft__rows_masked(struct peft_dataset *d, peft__row_in *in) {
    peft_status st = PEFT_OK;
    peft__row row = peft__row_begin(d, in->task);
    const peft__json *ids = peft__json_find(in->json, "input_ids");
    row.maskable = true;
    if (ids != NULL && !peft__rows_templates(d)) {
        TRY(encoder_masked_ids(d, in, ids, &row));
    } else {
        TRY(encoder_masked_text(d, in));
    }
    TRY(peft__row_end(d, &row, &d->rows));
out:
    return st;
}

/* ---- embedding -------------------------------------------------------------------------------------------------------------------- */

static peft_status encoder_score(struct peft_dataset *d, const peft__row_in *in, peft__row *row) {
    peft_status st = PEFT_OK;
    const char *key = peft__json_find(in->json, "score") != NULL ? "score" : "label";
    const peft__json *x = peft__json_find(in->json, key);
    if (x == NULL) { return PEFT_OK; }
    if (x->kind != PEFT__JSON_NUMBER) { FAIL(PEFT_E_FORMAT, "\"%s\" is %s, expected a number", key, peft__rows_what(x)); }
    row->target = (int64_t)d->targets.len;
    row->n_targets = 1;
    TRY(peft__rows_number(d, key, x));
out:
    return st;
}

peft_status peft__rows_embedding(struct peft_dataset *d, peft__row_in *in) {
    static const char *const keys[3][3] = {
        {"anchor", "sentence1", "text"}, {"positive", "sentence2", "positive"}, {"negative", "negative", "negative"}};
    static const char *const lacks[2] = {"\"anchor\"", "\"positive\""};
    peft_status st = PEFT_OK;
    peft__row row = peft__row_begin(d, in->task);
    peft__vec all;
    peft__vec_init(&all, &d->ctx->mem, sizeof(peft__encoded));
    for (size_t i = 0; i < 3; i++) {
        const peft__json *node = NULL;
        const char *key = NULL;
        for (size_t k = 0; node == NULL && k < 3; k++) { TRY(peft__rows_text(in->json, key = keys[i][k], &node)); }
        if (node == NULL && (i == 2 || (i == 1 && peft__json_find(in->json, "text") != NULL))) { break; }
        if (node == NULL) { TRY(peft__rows_lacks(d, lacks[i])); }
        peft__text_in text = {.text = node->str, .len = node->len};
        all.len = 0;
        TRY(peft__rows_pair(d, in, &text, NULL, "max_length", &all));
        if (all.len == 0) { FAIL(PEFT_E_FORMAT, "\"%s\" has no tokens", key); }
        TRY(peft__rows_put_all(d, &all));
        if (i < 2) { row.part[i] = (int64_t)all.len; }
    }
    TRY(encoder_score(d, in, &row));
    TRY(peft__row_end(d, &row, &d->rows));
out:
    peft__vec_free(&all);
    return st;
}

/* ---- seq2seq_lm ---------------------------------------------------------------------------------------------------------------------- */

/* Cuts v[from..] to `limit`. */
static peft_status encoder_cut(const struct peft_dataset *d, const char *limit, peft__vec *v, size_t from, bool *cut) {
    const char *how = peft__opt_str(&d->opts, "truncation");
    size_t n = v->len - from, max = (size_t)peft__opt_int(&d->opts, limit);
    if (n <= max) { return PEFT_OK; }
    if (strcmp(how, "error") == 0) {
        return peft__fail(PEFT_E_FORMAT, "the row's \"input_ids\" are %zu tokens, more than %s %zu", n, limit, max);
    }
    int32_t *x = &PEFT__VEC_AT(v, int32_t, from);
    if (strcmp(how, "left") == 0) { memmove(x, x + (n - max), max * sizeof *x); }
    v->len = from + max;
    *cut = true;
    return PEFT_OK;
}

static peft_status encoder_seq2seq_ids(struct peft_dataset *d, peft__row_in *in, const peft__json *ids, peft__row *row) {
    peft_status st = PEFT_OK;
    const peft__json *labels = peft__json_find(in->json, "labels");
    int32_t pad = d->tokenizer != NULL ? PEFT__MAX(peft__tokenizer_pad(d->tokenizer->inner), 0) : 0;
    peft__vec target;
    peft__vec_init(&target, &d->ctx->mem, sizeof(int32_t));
    if (labels == NULL) { TRY(peft__rows_lacks(d, "\"labels\"")); }
    TRY(peft__rows_ints(ids, "input_ids", false, &d->sources));
    TRY(encoder_cut(d, "max_source_length", &d->sources, (size_t)row->source, &in->cut));
    TRY(peft__rows_ints(labels, "labels", true, &target));
    for (size_t i = 0; i < target.len; i++) {
        int32_t id = PEFT__VEC_AT(&target, int32_t, i);
        TRY(peft__rows_put(d, id >= 0 ? id : pad, id, 0));
    }
    TRY(peft__row_cut(d, row, &in->cut));
out:
    peft__vec_free(&target);
    return st;
}

static peft_status encoder_seq2seq_text(struct peft_dataset *d, peft__row_in *in) {
    static const char *const sources[] = {"source", "text", "input_text", "prompt", "document", NULL};
    static const char *const targets[] = {"target", "completion", "summary", NULL};
    peft_status st = PEFT_OK;
    peft__text_in text;
    peft__vec all;
    peft__vec_init(&all, &d->ctx->mem, sizeof(peft__encoded));
    TRY(peft__rows_field(d, in, "prompt_template", sources, &text));
    if (text.text == NULL) { TRY(peft__rows_lacks(d, "\"source\"")); }
    TRY(peft__rows_pair(d, in, &text, NULL, "max_source_length", &all));
    for (size_t i = 0; i < all.len; i++) { TRY(peft__vec_push(&d->sources, &PEFT__VEC_AT(&all, peft__encoded, i).id)); }
    TRY(peft__rows_field(d, in, "completion_template", targets, &text));
    if (text.text == NULL) { TRY(peft__rows_lacks(d, "\"target\"")); }
    all.len = 0;
    TRY(peft__rows_pair(d, in, &text, NULL, "max_length", &all));
    for (size_t i = 0; i < all.len; i++) {
        int32_t id = PEFT__VEC_AT(&all, peft__encoded, i).id;
        TRY(peft__rows_put(d, id, id, 0));
    }
out:
    peft__vec_free(&all);
    return st;
}

peft_status peft__rows_seq2seq(struct peft_dataset *d, peft__row_in *in) {
    peft_status st = PEFT_OK;
    peft__row row = peft__row_begin(d, in->task);
    const peft__json *ids = peft__json_find(in->json, "input_ids");
    row.source = (int64_t)d->sources.len;
    if (ids != NULL && !peft__rows_templates(d)) {
        TRY(encoder_seq2seq_ids(d, in, ids, &row));
    } else {
        TRY(encoder_seq2seq_text(d, in));
    }
    row.n_source = (int64_t)d->sources.len - row.source;
    if (row.n_source == 0) { FAIL(PEFT_E_FORMAT, "the row has no tokens for the encoder"); }
    TRY(peft__row_end(d, &row, &d->rows));
out:
    return st;
}
