/* rows_span.c - rows of question_answering: a question, and a context in which the answer is a stretch of text.
 *
 *   {"question", "context", "answers": {"text": ["..."], "answer_start": [12]}}    SQuAD's fields (Rajpurkar et al. 2016)
 *   ... "answers": [{"text", "answer_start"}], or ["..."]: where the text stands first; []: the context has no answer
 *
 * Only the context is cut: what does not fit goes on in further rows, each sharing doc_stride tokens with the one before it, as in
 * Hugging Face's example of question answering. A row that does not hold the whole answer points at its first token ([CLS]), and
 * so does one whose question has no answer. The first answer is trained; all are kept for evaluation.
 * Left out: the id of a question, which nothing here needs; contexts before questions (padding_side=left). */
#include "train/rows.h"

typedef struct peft__span_answer {
    const peft__json *text;   /* STRING */
    int64_t start;            /* character of the context, as SQuAD counts; -1: not given */
} peft__span_answer;

typedef struct peft__span_row { /* a question while its rows are made */
    const peft__vec *all;     /* of peft__encoded: template, question and the whole context */
    size_t at, n;             /* the context's tokens: all[at, at + n) */
    bool known, has;          /* answers are given; there is one */
    size_t begin, end;        /* of the answer, bytes of the context */
} peft__span_row;

/* ---- answers ------------------------------------------------------------------------------------------------------------------- */

static peft_status span_add(peft__vec *out, size_t i, const peft__json *text, const peft__json *start) {
    peft_status st = PEFT_OK;
    if (text == NULL || text->kind != PEFT__JSON_STRING || text->len == 0) {
        FAIL(PEFT_E_FORMAT, "\"answers\": the text of answer %zu is %s, expected a text that is not empty", i,
             text == NULL ? "missing" : text->kind == PEFT__JSON_STRING ? "empty" : peft__rows_what(text));
    }
    if (memchr(text->str, '\0', text->len) != NULL) { FAIL(PEFT_E_FORMAT, "\"answers\": answer %zu has a NUL character", i); }
    if (start != NULL && (start->kind != PEFT__JSON_NUMBER || !start->is_int || start->i < 0)) {
        FAIL(PEFT_E_FORMAT, "\"answers\": the answer_start of answer %zu is no whole number from 0", i);
    }
    peft__span_answer a = {text, start != NULL ? start->i : -1};
    TRY(peft__vec_push(out, &a));
out:
    return st;
}

/* {"text": [...], "answer_start": [...]} */
static peft_status span_columns(const peft__json *answers, peft__vec *out) {
    peft_status st = PEFT_OK;
    const peft__json *texts = peft__json_find(answers, "text"), *starts = peft__json_find(answers, "answer_start");
    if (texts == NULL || texts->kind != PEFT__JSON_ARRAY || (starts != NULL && starts->kind != PEFT__JSON_ARRAY)) {
        FAIL(PEFT_E_FORMAT, "\"answers\" has no lists \"text\" and \"answer_start\"");
    }
    if (starts != NULL && starts->len != texts->len) {
        FAIL(PEFT_E_FORMAT, "\"answers\": \"answer_start\" has %zu elements, and \"text\" %zu", starts->len, texts->len);
    }
    for (size_t i = 0; i < texts->len; i++) { TRY(span_add(out, i, &texts->items[i], starts != NULL ? &starts->items[i] : NULL)); }
out:
    return st;
}

static peft_status span_answers(const peft__json *answers, peft__vec *out) {
    peft_status st = PEFT_OK;
    if (answers->kind == PEFT__JSON_OBJECT) { return span_columns(answers, out); }
    if (answers->kind != PEFT__JSON_ARRAY) {
        FAIL(PEFT_E_FORMAT, "\"answers\" is %s, expected a list of answers or {\"text\": [...], \"answer_start\": [...]}",
             peft__rows_what(answers));
    }
    for (size_t i = 0; i < answers->len; i++) {
        const peft__json *x = &answers->items[i];
        bool object = x->kind == PEFT__JSON_OBJECT;
        TRY(span_add(out, i, object ? peft__json_find(x, "text") : x, object ? peft__json_find(x, "answer_start") : NULL));
    }
out:
    return st;
}

/* ---- where the answer is -------------------------------------------------------------------------------------------------------- */

/* Byte of character `at`; false: the text is shorter. */
static bool span_byte(const peft__json *text, int64_t at, size_t *out) {
    size_t i = 0;
    uint32_t cp = 0;
    for (; at > 0 && i < text->len; at--) { i += PEFT__MAX(peft__utf8_read(text->str + i, text->len - i, &cp), (size_t)1); }
    *out = i;
    return at == 0;
}

static bool span_stands(const peft__json *context, size_t at, const peft__json *text) {
    return at <= context->len && text->len <= context->len - at && memcmp(context->str + at, text->str, text->len) == 0;
}

static bool span_search(const peft__json *context, const peft__json *text, size_t *begin) {
    for (size_t i = 0; text->len <= context->len && i <= context->len - text->len; i++) {
        if (span_stands(context, i, text)) {
            *begin = i;
            return true;
        }
    }
    return false;
}

/* Of the first answer, or where it is not said of the first one that the context has. */
static peft_status span_locate(const peft__json *context, const peft__vec *answers, peft__span_row *s) {
    peft_status st = PEFT_OK;
    const peft__span_answer *a = answers->data;
    bool found = false;
    s->has = answers->len > 0;
    if (!s->has) { return PEFT_OK; }
    if (a->start >= 0) {
        if (!span_byte(context, a->start, &s->begin) || !span_stands(context, s->begin, a->text)) {
            FAIL(PEFT_E_FORMAT, "\"answers\": the context does not have \"%.*s\" at character %lld, as \"answer_start\" says",
                 (int)PEFT__MIN(a->text->len, (size_t)60), a->text->str, (long long)a->start);
        }
        found = true;
    }
    for (size_t i = 0; i < answers->len && !found; i++) {
        a = &PEFT__VEC_AT(answers, peft__span_answer, i);
        found = span_search(context, a->text, &s->begin);
    }
    if (!found) {
        a = answers->data;
        FAIL(PEFT_E_FORMAT, "\"answers\": the context does not have the text \"%.*s\"", (int)PEFT__MIN(a->text->len, (size_t)60),
             a->text->str);
    }
    s->end = s->begin + a->text->len;
out:
    return st;
}

/* ---- rows ----------------------------------------------------------------------------------------------------------------------- */

/* First and last token of the answer among the row's n context tokens x, the first of which is token `at` of the row. */
static void span_mark(const peft__span_row *s, const peft__encoded *x, size_t n, size_t at, peft__row *row) {
    size_t first = 0, last = n;
    if (!s->known) { return; }
    row->begin = row->end = 0;
    if (!s->has || n == 0 || x[0].start > s->begin || x[n - 1].end < s->end) { return; }
    while (first < n && x[first].start <= s->begin) { first++; }
    while (last > 0 && x[last - 1].end >= s->end) { last--; }
    size_t begin = first - 1, end = last;
    /* Tokens that are bytes of one character all are that character: the other way round they are the whole of it. */
    row->begin = (int32_t)(at + PEFT__MIN(begin, end));
    row->end = (int32_t)(at + PEFT__MAX(begin, end));
}

/* The row with the context's tokens [from, from + n). */
static peft_status span_put(struct peft_dataset *d, const peft__row_in *in, const peft__span_row *s, size_t from, size_t n) {
    peft_status st = PEFT_OK;
    peft__row row = peft__row_begin(d, in->task);
    row.example = (int64_t)d->examples.len - 1;
    for (size_t i = 0; i < s->all->len; i++) {
        const peft__encoded *x = &PEFT__VEC_AT(s->all, peft__encoded, i);
        if (x->part == 1 && (i < s->at + from || i >= s->at + from + n)) { continue; }
        int32_t begin = x->part == 1 ? (int32_t)x->start : -1, end = x->part == 1 ? (int32_t)x->end : -1;
        TRY(peft__rows_put(d, x->id, -100, x->type));
        TRY(peft__vec_push(&d->offsets, &begin));
        TRY(peft__vec_push(&d->offsets, &end));
    }
    span_mark(s, (const peft__encoded *)s->all->data + s->at + from, n, s->at, &row);
    TRY(peft__row_end(d, &row, &d->rows));
out:
    return st;
}

static peft_status span_windows(struct peft_dataset *d, const peft__row_in *in, const peft__span_row *s) {
    peft_status st = PEFT_OK;
    size_t max = (size_t)peft__opt_int(&d->opts, "max_length"), stride = (size_t)peft__opt_int(&d->opts, "doc_stride");
    size_t fixed = s->all->len - s->n, room = max > fixed ? max - fixed : 0;
    if (s->all->len <= max) { return span_put(d, in, s, 0, s->n); }
    if (strcmp(peft__opt_str(&d->opts, "truncation"), "error") == 0) {
        FAIL(PEFT_E_FORMAT, "the row has %zu tokens, more than max_length %zu", s->all->len, max);
    }
    if (room <= stride) {
        FAIL(PEFT_E_FORMAT, "question and template have %zu tokens, which leaves %zu of max_length %zu for the context: expected more "
             "than doc_stride %zu", fixed, room, max, stride);
    }
    for (size_t from = 0;; from += room - stride) {
        size_t n = PEFT__MIN(room, s->n - from);
        TRY(span_put(d, in, s, from, n));
        if (from + n == s->n) { break; }
    }
out:
    return st;
}

static peft_status span_example(struct peft_dataset *d, const peft__json *context, const peft__vec *answers) {
    peft_status st = PEFT_OK;
    peft__example e = {.context = peft__arena_strdup(&d->arena, context->str, context->len), .n_answers = answers->len};
    const char **texts = peft__arena_alloc(&d->arena, (answers->len + 1) * sizeof *texts);
    if (e.context == NULL || texts == NULL) { return PEFT_E_NOMEM; }
    for (size_t i = 0; i < answers->len; i++) {
        const peft__json *text = PEFT__VEC_AT(answers, peft__span_answer, i).text;
        texts[i] = peft__arena_strdup(&d->arena, text->str, text->len);
        if (texts[i] == NULL) { return PEFT_E_NOMEM; }
    }
    e.answers = texts;
    TRY(peft__vec_push(&d->examples, &e));
out:
    return st;
}

peft_status peft__rows_span(struct peft_dataset *d, peft__row_in *in) {
    peft_status st = PEFT_OK;
    const peft__json *question, *context, *given = peft__json_find(in->json, "answers");
    peft__pair_rule rule = {.flags = PEFT_TOKENIZE_SPECIAL | PEFT_TOKENIZE_BOS_EOS};
    peft__vec answers, all;
    peft__vec_init(&answers, &d->ctx->mem, sizeof(peft__span_answer));
    peft__vec_init(&all, &d->ctx->mem, sizeof(peft__encoded));
    peft__span_row s = {.all = &all, .known = given != NULL};
    TRY(peft__rows_text(in->json, "question", &question));
    TRY(peft__rows_text(in->json, "context", &context));
    if (question == NULL || context == NULL) { TRY(peft__rows_lacks(d, question == NULL ? "\"question\"" : "\"context\"")); }
    if (context->len > INT32_MAX || memchr(context->str, '\0', context->len) != NULL) {
        FAIL(PEFT_E_FORMAT, "\"context\" has a NUL character, or more than %d bytes", INT32_MAX);
    }
    TRY(peft__rows_tokenizer(d));
    if (given != NULL) { TRY(span_answers(given, &answers)); }
    TRY(span_locate(context, &answers, &s));
    TRY(span_example(d, context, &answers));
    peft__text_in a = {.text = question->str, .len = question->len}, b = {.text = context->str, .len = context->len};
    TRY(peft__tokenizer_encode_pair(d->tokenizer->inner, &a, &b, &rule, &all, NULL));
    for (s.at = 0; s.at < all.len && PEFT__VEC_AT(&all, peft__encoded, s.at).part != 1; s.at++) {}
    while (s.at + s.n < all.len && PEFT__VEC_AT(&all, peft__encoded, s.at + s.n).part == 1) { s.n++; }
    TRY(span_windows(d, in, &s));
out:
    peft__vec_free(&answers);
    peft__vec_free(&all);
    return st;
}
