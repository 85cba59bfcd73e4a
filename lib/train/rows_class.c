/* rows_class.c - rows of sequence_classification and token_classification.
 *
 *   {"text"[, "text_pair"], "label"}                     [CLS] a [SEP] b [SEP], as the tokenizer's template has it
 *   {"input_ids"[, "token_type_ids"], "label"}           as they are
 *   {"tokens": ["EU", ...], "labels": ["B-ORG", ...]}    each word encoded by itself; its first token has the label
 *   {"input_ids", "labels"}                              as they are (token_classification)
 *
 * A label is a number, the name of a class, or a list of these. Words are encoded and labelled as Hugging Face's example of token
 * classification does it (is_split_into_words; tokens of a word but the first, and those of the template, have -100).
 * Left out: labels for the other tokens of a word (label_all_tokens). */
#include <math.h>

#include "train/rows.h"

enum { CLASS_NONE = -100 };

/* ---- the label of a row -------------------------------------------------------------------------------------------------------- */

static peft_status class_list(struct peft_dataset *d, const char *key, const peft__json *list, peft__row *row) {
    peft_status st = PEFT_OK;
    row->list = true;
    row->n_targets = (int64_t)list->len;
    if (list->len == 0) { return PEFT_OK; } /* of no class */
    row->named = list->items[0].kind == PEFT__JSON_STRING;
    for (size_t i = 0; i < list->len; i++) {
        const peft__json *x = &list->items[i];
        int32_t number = 0;
        if (x->kind != (row->named ? PEFT__JSON_STRING : PEFT__JSON_NUMBER)) {
            FAIL(PEFT_E_FORMAT, "\"%s\"[%zu] is %s, expected %s", key, i, peft__rows_what(x),
                 i == 0 ? "a number or a name" : row->named ? "a name, as before it" : "a number, as before it");
        }
        if (i == 0) { TRY(peft__rows_form(d, row->named ? PEFT__LABEL_NAMES : PEFT__LABEL_NUMBERS)); }
        if (row->named) {
            TRY(peft__rows_name(d, x->str, x->len, &number));
            float f = (float)number;
            TRY(peft__vec_push(&d->targets, &f));
        } else {
            TRY(peft__rows_number(d, key, x));
        }
    }
out:
    return st;
}

static peft_status class_name(struct peft_dataset *d, const char *name, size_t len, peft__row *row) {
    peft_status st = PEFT_OK;
    row->named = true;
    TRY(peft__rows_form(d, PEFT__LABEL_NAME));
    TRY(peft__rows_name(d, name, len, &row->label));
out:
    return st;
}

static peft_status class_label(struct peft_dataset *d, const peft__row_in *in, peft__row *row) {
    peft_status st = PEFT_OK;
    static const char *const none[] = {NULL};
    peft__text_in made;
    row->target = (int64_t)d->targets.len;
    TRY(peft__rows_field(d, in, "completion_template", none, &made));
    if (made.text != NULL) { return class_name(d, made.text, made.len, row); }
    const char *key = peft__json_find(in->json, "label") != NULL ? "label" : "labels";
    const peft__json *x = peft__json_find(in->json, key);
    if (x == NULL || (x->kind == PEFT__JSON_NUMBER && x->is_int && x->i == CLASS_NONE)) { return PEFT_OK; }
    if (x->kind == PEFT__JSON_ARRAY) {
        TRY(class_list(d, key, x, row));
    } else if (x->kind == PEFT__JSON_STRING) {
        TRY(class_name(d, x->str, x->len, row));
    } else if (x->kind == PEFT__JSON_NUMBER) {
        bool whole = x->num >= 0 && x->num <= INT32_MAX && x->num == floor(x->num);
        TRY(peft__rows_form(d, PEFT__LABEL_NUMBER));
        TRY(peft__rows_number(d, key, x));
        row->label = whole ? (int32_t)x->num : CLASS_NONE;
        row->n_targets = 1;
    } else {
        FAIL(PEFT_E_FORMAT, "\"%s\" is %s, expected a number, the name of a class, or a list of either", key, peft__rows_what(x));
    }
out:
    return st;
}

/* ---- sequence_classification ----------------------------------------------------------------------------------------------------- */

static peft_status class_text(struct peft_dataset *d, peft__row_in *in) {
    static const char *const texts[] = {"text", "sentence1", NULL}, *const pairs[] = {"text_pair", "sentence2", NULL};
    peft_status st = PEFT_OK;
    peft__text_in text, pair = {0};
    const peft__json *second = NULL;
    peft__vec all;
    peft__vec_init(&all, &d->ctx->mem, sizeof(peft__encoded));
    TRY(peft__rows_field(d, in, "prompt_template", texts, &text));
    if (text.text == NULL) {
        st = peft__rows_lacks(d, "\"text\"");
        goto out;
    }
    for (size_t i = 0; second == NULL && pairs[i] != NULL; i++) { TRY(peft__rows_text(in->json, pairs[i], &second)); }
    if (second != NULL) { pair = (peft__text_in){.text = second->str, .len = second->len}; }
    TRY(peft__rows_pair(d, in, &text, second != NULL ? &pair : NULL, "max_length", &all));
    TRY(peft__rows_put_all(d, &all));
out:
    peft__vec_free(&all);
    return st;
}

peft_status peft__rows_sequence(struct peft_dataset *d, peft__row_in *in) {
    peft_status st = PEFT_OK;
    peft__row row = peft__row_begin(d, in->task);
    const peft__json *ids = peft__json_find(in->json, "input_ids");
    if (ids != NULL && !peft__rows_templates(d)) {
        TRY(peft__rows_put_ids(d, in, ids, true));
        TRY(peft__row_cut(d, &row, &in->cut));
    } else {
        TRY(class_text(d, in));
    }
    TRY(class_label(d, in, &row));
    TRY(peft__row_end(d, &row, &d->rows));
out:
    return st;
}

/* ---- token_classification -------------------------------------------------------------------------------------------------------- */

/* One label of a list: a class, a name's number, or -100. */
static peft_status class_tag(struct peft_dataset *d, const char *key, const peft__json *list, size_t i, bool named, int32_t *label) {
    peft_status st = PEFT_OK;
    const peft__json *x = &list->items[i];
    bool number = x->kind == PEFT__JSON_NUMBER && x->is_int && x->i <= INT32_MAX;
    *label = CLASS_NONE;
    if (x->kind == PEFT__JSON_NULL || (number && x->i == CLASS_NONE)) { return PEFT_OK; }
    if (x->kind == PEFT__JSON_STRING && named) {
        TRY(peft__rows_name(d, x->str, x->len, label));
    } else if (number && !named && x->i >= 0) {
        *label = (int32_t)x->i;
    } else {
        FAIL(PEFT_E_FORMAT, "\"%s\"[%zu] is %s, expected %s, as others of the list are", key, i, peft__rows_what(x),
             named ? "the name of a class" : "a class number from 0, or -100");
    }
out:
    return st;
}

/* The labels of n words or tokens, all -100 for a row that has none. */
static peft_status class_tags(struct peft_dataset *d, const peft__json *json, size_t n, peft__row *row, peft__vec *out) {
    static const char *const keys[] = {"labels", "ner_tags", "tags"};
    peft_status st = PEFT_OK;
    const peft__json *list = NULL;
    const char *key = NULL;
    bool any = false;
    for (size_t i = 0; list == NULL && i < PEFT__COUNT(keys); i++) { list = peft__json_find(json, key = keys[i]); }
    if (list != NULL && list->kind != PEFT__JSON_ARRAY) { FAIL(PEFT_E_FORMAT, "\"%s\" is no array", key); }
    if (list != NULL && list->len != n) {
        FAIL(PEFT_E_FORMAT, "\"%s\" has %zu elements, and \"%s\" %zu", key, list->len,
             peft__json_find(json, "tokens") != NULL ? "tokens" : "input_ids", n);
    }
    for (size_t i = 0; list != NULL && i < n; i++) { row->named = row->named || list->items[i].kind == PEFT__JSON_STRING; }
    for (size_t i = 0; i < n; i++) {
        int32_t label = CLASS_NONE;
        if (list != NULL) { TRY(class_tag(d, key, list, i, row->named, &label)); }
        any = any || label != CLASS_NONE;
        TRY(peft__vec_push(out, &label));
    }
    if (any) { TRY(peft__rows_form(d, row->named ? PEFT__LABEL_NAMES : PEFT__LABEL_NUMBERS)); }
out:
    return st;
}

/* The words; with a space in front where the tokenizer tells words by it and puts none there. */
static peft_status class_words(const struct peft_dataset *d, const peft__row_in *in, const peft__json *list, peft__text_in *out) {
    peft_status st = peft__rows_tokenizer(d);
    if (st != PEFT_OK) { return st; }
    bool space = peft__tokenizer_words_need_space(d->tokenizer->inner);
    const char **words = peft__arena_alloc(in->scratch, (list->len + 1) * sizeof *words);
    size_t *lens = peft__arena_alloc(in->scratch, (list->len + 1) * sizeof *lens);
    if (words == NULL || lens == NULL) { return PEFT_E_NOMEM; }
    for (size_t i = 0; i < list->len; i++) {
        const peft__json *x = &list->items[i];
        if (x->kind != PEFT__JSON_STRING) {
            FAIL(PEFT_E_FORMAT, "\"tokens\"[%zu] is %s, expected a text", i, peft__rows_what(x));
        }
        words[i] = x->str;
        lens[i] = x->len;
        if (space && x->len > 0 && x->str[0] != ' ') {
            char *spaced = peft__arena_alloc(in->scratch, x->len + 2);
            if (spaced == NULL) { return PEFT_E_NOMEM; }
            spaced[0] = ' ';
            memcpy(spaced + 1, x->str, x->len);
            words[i] = spaced;
            lens[i] = x->len + 1;
        }
    }
    *out = (peft__text_in){.words = words, .word_lens = lens, .n_words = list->len};
out:
    return st;
}

static peft_status class_put_words(struct peft_dataset *d, peft__row_in *in, const peft__json *list, peft__row *row) {
    peft_status st = PEFT_OK;
    peft__text_in words;
    peft__vec all, tags;
    int32_t word = -1;
    peft__vec_init(&all, &d->ctx->mem, sizeof(peft__encoded));
    peft__vec_init(&tags, &d->ctx->mem, sizeof(int32_t));
    if (list->kind != PEFT__JSON_ARRAY) { FAIL(PEFT_E_FORMAT, "\"tokens\" is %s, expected a list of words", peft__rows_what(list)); }
    TRY(class_words(d, in, list, &words));
    TRY(class_tags(d, in->json, list->len, row, &tags));
    TRY(peft__rows_pair(d, in, &words, NULL, "max_length", &all));
    for (size_t i = 0; i < all.len; i++) {
        const peft__encoded *x = &PEFT__VEC_AT(&all, peft__encoded, i);
        bool first = x->part == 0 && x->word >= 0 && x->word != word;
        TRY(peft__rows_put(d, x->id, first ? PEFT__VEC_AT(&tags, int32_t, x->word) : CLASS_NONE, x->type));
        word = x->word;
    }
out:
    peft__vec_free(&all);
    peft__vec_free(&tags);
    return st;
}

static peft_status class_put_ids(struct peft_dataset *d, peft__row_in *in, const peft__json *ids, peft__row *row) {
    peft_status st = PEFT_OK;
    size_t start = d->ids.len;
    peft__vec tags;
    peft__vec_init(&tags, &d->ctx->mem, sizeof(int32_t));
    TRY(peft__rows_put_ids(d, in, ids, true));
    TRY(class_tags(d, in->json, d->ids.len - start, row, &tags));
    for (size_t i = 0; i < tags.len; i++) { PEFT__VEC_AT(&d->labels, int32_t, start + i) = PEFT__VEC_AT(&tags, int32_t, i); }
    TRY(peft__row_cut(d, row, &in->cut));
out:
    peft__vec_free(&tags);
    return st;
}

peft_status peft__rows_tokens(struct peft_dataset *d, peft__row_in *in) {
    peft_status st = PEFT_OK;
    peft__row row = peft__row_begin(d, in->task);
    const peft__json *words = peft__json_find(in->json, "tokens"), *ids = peft__json_find(in->json, "input_ids");
    if (words != NULL) {
        TRY(class_put_words(d, in, words, &row));
    } else if (ids != NULL) {
        TRY(class_put_ids(d, in, ids, &row));
    } else {
        TRY(peft__rows_lacks(d, "\"tokens\""));
    }
    TRY(peft__row_end(d, &row, &d->rows));
out:
    return st;
}
