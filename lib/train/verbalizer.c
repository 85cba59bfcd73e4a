/* verbalizer.c - classification by a language model that goes on with a word for the class (Schick and Schuetze 2021, arXiv
 * 2001.07676: pattern and verbalizer; here for causal_lm).
 *
 *   {"text" or "prompt", "label"} with verbalizer positive=" good",negative=" bad"
 *
 * The row that is trained is the prompt and the words of its class, with a loss on the words. Beside it the set has the prompt with
 * the words of each class: the likeliest is the model's answer. Words are never cut, and all classes see the same of the prompt.
 * Left out: several words for a class, verbalizers of masked_lm. */
#include "train/rows.h"

/* ---- the option ------------------------------------------------------------------------------------------------------------------ */

static peft_status verbalizer_class(struct peft_dataset *d, const peft__json *name, const peft__json *words) {
    peft_status st = PEFT_OK;
    size_t before = d->words.len;
    int32_t number = 0;
    if (words->kind != PEFT__JSON_STRING || words->len == 0) {
        FAIL(PEFT_E_KEY, "option \"verbalizer\": class \"%s\" is %s, expected a text that is not empty", name->str,
             words->kind == PEFT__JSON_STRING ? "empty" : peft__rows_what(words));
    }
    TRY(peft__rows_name(d, name->str, name->len, &number));
    TRY(peft__tokenizer_encode(d->tokenizer->inner, words->str, words->len, PEFT__TOKENIZE_INSIDE, &d->words));
    if (d->words.len == before) { FAIL(PEFT_E_KEY, "option \"verbalizer\": the words of class \"%s\" have no tokens", name->str); }
    TRY(peft__vec_push(&d->word_ends, &d->words.len));
out:
    return st;
}

peft_status peft__verbalizer_read(struct peft_dataset *d) {
    peft_status st = PEFT_OK;
    const char *text = peft__opt_str(&d->opts, "verbalizer"), *task = peft__opt_str(&d->opts, "task");
    const peft__json *root = NULL;
    peft__arena arena;
    peft__arena_init(&arena, &d->ctx->mem);
    if (text[0] == '\0') { goto out; }
    if (task[0] != '\0' && strcmp(task, peft__task_name(PEFT__TASK_CAUSAL_LM)) != 0) {
        FAIL(PEFT_E_KEY, "option \"verbalizer\" is for rows of causal_lm, and \"task\" is %s", task);
    }
    if (peft__opt_bool(&d->opts, "packing")) { FAIL(PEFT_E_KEY, "option \"verbalizer\" goes with no \"packing\""); }
    if (d->tokenizer == NULL) { FAIL(PEFT_E_INVALID, "option \"verbalizer\" has texts, and there is no tokenizer"); }
    TRY(peft__json_parse(&arena, text, strlen(text), "option \"verbalizer\"", &root));
    if (root->len < 2) { FAIL(PEFT_E_KEY, "option \"verbalizer\" has %zu classes, expected two or more", root->len); }
    for (size_t i = 0; i < root->len; i++) { TRY(verbalizer_class(d, &root->keys[i], &root->items[i])); }
    d->answers = (int64_t)root->len;
out:
    peft__arena_free(&arena);
    return st;
}

/* ---- rows ------------------------------------------------------------------------------------------------------------------------- */

static size_t verbalizer_begin(const struct peft_dataset *d, size_t class) {
    return class == 0 ? 0 : PEFT__VEC_AT(&d->word_ends, size_t, class - 1);
}

/* The words of a class, labelled. */
static peft_status verbalizer_put(struct peft_dataset *d, size_t class) {
    peft_status st = PEFT_OK;
    for (size_t i = verbalizer_begin(d, class); i < PEFT__VEC_AT(&d->word_ends, size_t, class); i++) {
        int32_t id = PEFT__VEC_AT(&d->words, int32_t, i);
        TRY(peft__rows_put(d, id, id, 0));
    }
out:
    return st;
}

static int32_t verbalizer_find(const struct peft_dataset *d, const char *name, size_t len) {
    for (size_t i = 0; i < d->names.len; i++) {
        const char *known = PEFT__VEC_AT(&d->names, const char *, i);
        if (strlen(known) == len && memcmp(known, name, len) == 0) { return (int32_t)i; }
    }
    return -1;
}

static peft_status verbalizer_label(struct peft_dataset *d, const peft__row_in *in, int32_t *class) {
    static const char *const none[] = {NULL};
    peft_status st = PEFT_OK;
    peft__text_in name;
    const peft__json *x = peft__json_find(in->json, "label");
    TRY(peft__rows_field(d, in, "completion_template", none, &name));
    if (name.text == NULL && x == NULL) { TRY(peft__rows_lacks(d, "\"label\"")); }
    if (name.text == NULL && x->kind == PEFT__JSON_STRING) { name = (peft__text_in){.text = x->str, .len = x->len}; }
    if (name.text != NULL) {
        *class = verbalizer_find(d, name.text, name.len);
        if (*class < 0) {
            FAIL(PEFT_E_FORMAT, "the label \"%.*s\" is no class of the verbalizer, whose first is \"%s\"",
                 (int)PEFT__MIN(name.len, (size_t)60), name.text, PEFT__VEC_AT(&d->names, const char *, 0));
        }
    } else {
        if (x->kind != PEFT__JSON_NUMBER || !x->is_int || x->i < 0 || x->i >= d->answers) {
            FAIL(PEFT_E_FORMAT, "\"label\" is %s, expected the name of a class of the verbalizer, or its number from 0 to %lld",
                 x->kind == PEFT__JSON_NUMBER ? "another number" : peft__rows_what(x), (long long)d->answers - 1);
        }
        *class = (int32_t)x->i;
    }
out:
    return st;
}

/* BOS? prompt, short enough for the longest words and `more` tokens. */
static peft_status verbalizer_prompt(struct peft_dataset *d, peft__row_in *in, size_t more) {
    static const char *const keys[] = {"text", "prompt", NULL};
    peft_status st = PEFT_OK;
    const char *how = peft__opt_str(&d->opts, "truncation");
    size_t start = d->ids.len, max = (size_t)peft__opt_int(&d->opts, "max_length"), longest = 0;
    bool all = strcmp(peft__opt_str(&d->opts, "loss_on"), "all") == 0;
    peft__text_in text;
    TRY(peft__rows_field(d, in, "prompt_template", keys, &text));
    if (text.text == NULL) { TRY(peft__rows_lacks(d, "\"text\"")); }
    TRY(peft__rows_bos(d));
    TRY(peft__rows_encode(d, text.text, text.len, PEFT_TOKENIZE_SPECIAL, all));
    if (d->ids.len == start) { FAIL(PEFT_E_FORMAT, "the prompt has no tokens: nothing comes before the class's words"); }
    for (size_t i = 0; i < d->word_ends.len; i++) {
        longest = PEFT__MAX(longest, PEFT__VEC_AT(&d->word_ends, size_t, i) - verbalizer_begin(d, i));
    }
    size_t n = d->ids.len - start;
    if (n + longest + more <= max) { return PEFT_OK; }
    if (longest + more >= max) {
        FAIL(PEFT_E_FORMAT, "the longest words of the verbalizer have %zu tokens, which leaves none of max_length %zu for the prompt",
             longest + more, max);
    }
    if (strcmp(how, "error") == 0) {
        FAIL(PEFT_E_FORMAT, "the row has %zu tokens with the longest words, more than max_length %zu", n + longest + more, max);
    }
    size_t keep = max - longest - more;
    if (strcmp(how, "left") == 0) {
        int32_t *ids = &PEFT__VEC_AT(&d->ids, int32_t, start), *labels = &PEFT__VEC_AT(&d->labels, int32_t, start);
        memmove(ids, ids + (n - keep), keep * sizeof *ids);
        memmove(labels, labels + (n - keep), keep * sizeof *labels);
    }
    d->ids.len = d->labels.len = start + keep;
    in->cut = true;
out:
    return st;
}

peft_status peft__rows_verbalized(struct peft_dataset *d, peft__row_in *in) {
    peft_status st = PEFT_OK;
    peft__row row = peft__row_begin(d, in->task);
    int32_t eos = peft__tokenizer_eos(d->tokenizer->inner);
    bool ends = eos >= 0 && peft__opt_is_set(&d->opts, "append_eos") && peft__opt_bool(&d->opts, "append_eos");
    row.named = true;
    TRY(verbalizer_label(d, in, &row.label));
    TRY(verbalizer_prompt(d, in, ends ? 1 : 0));
    size_t prompt = d->ids.len - (size_t)row.first;
    peft__row each = row;
    TRY(verbalizer_put(d, (size_t)row.label));
    if (ends) { TRY(peft__rows_put(d, eos, eos, 0)); }
    TRY(peft__row_end(d, &row, &d->rows));
    for (size_t class = 0; class < d->word_ends.len; class++) {
        each.first = (int64_t)d->ids.len;
        for (size_t i = 0; i < prompt; i++) { TRY(peft__rows_put(d, PEFT__VEC_AT(&d->ids, int32_t, (size_t)row.first + i), -100, 0)); }
        TRY(verbalizer_put(d, class));
        TRY(peft__row_end(d, &each, &d->candidates));
    }
out:
    return st;
}
