/* emit.c - tokens on their way to the caller.
 *
 * Text comes in whole UTF-8 characters. What may be the beginning of a stop string is held back until it is clear whether it
 * is one; text is cut before the first stop string.
 *
 * Left out: which token ends the sequence (generate.c). */
#include "infer/emit.h"

peft_status peft__emit_stops(peft__arena *a, const peft__optset *opts, const peft__json **out) {
    peft_status st = PEFT_OK;
    const char *text = peft__opt_str(opts, "stop");
    const peft__json *list = NULL;
    *out = NULL;
    if (text[0] == '\0') { return PEFT_OK; }
    TRY(peft__json_parse(a, text, strlen(text), "stop", &list));
    if (list->kind == PEFT__JSON_STRING) {
        peft__json *one = peft__arena_alloc(a, sizeof *one);
        if (one == NULL) { return PEFT_E_NOMEM; }
        one->kind = PEFT__JSON_ARRAY;
        one->len = 1;
        one->items = list;
        list = one;
    }
    for (size_t i = 0; i < list->len; i++) {
        if (list->items[i].kind != PEFT__JSON_STRING || list->items[i].len == 0) {
            FAIL(PEFT_E_KEY, "key \"stop\" is %s, expected a list of texts that are not empty", text);
        }
    }
    *out = list->len > 0 ? list : NULL;
out:
    return st;
}

/* Is a stop string at `at`: the whole of it, or (part) only its beginning, with which the text ends? */
static bool emit_match(const peft__emit *e, size_t at, bool part) {
    size_t left = e->text->len - at;
    for (size_t i = 0; i < e->stops->len; i++) {
        const peft__json *stop = &e->stops->items[i];
        bool long_enough = part ? left < stop->len : left >= stop->len;
        if (long_enough && memcmp(e->text->data + at, stop->str, PEFT__MIN(left, stop->len)) == 0) { return true; }
    }
    return false;
}

/* Cuts the text before the first stop string, or says up to where it can be no part of one. */
static size_t emit_look(peft__emit *e, bool last) {
    size_t at = e->sent;
    while (at < e->text->len && !emit_match(e, at, false)) { at++; }
    if (at < e->text->len) {
        e->stopped = true;
        e->text->len = at;
        e->text->data[at] = '\0';
        return at;
    }
    if (last) { return at; }
    for (at = e->sent; at < e->text->len && !emit_match(e, at, true);) { at++; }
    return at;
}

static peft_status emit_text(peft__emit *e, int32_t id, bool silent, bool last, size_t *ready) {
    peft_status st = PEFT_OK;
    bool known = id < peft__tokenizer_size(e->detok.t); /* vocabularies are often padded beyond the tokenizer's */
    if (!silent && known) { TRY(peft__detok_put(&e->detok, id, e->text)); }
    if (last) { TRY(peft__detok_end(&e->detok, e->text)); }
    *ready = e->stops != NULL ? emit_look(e, last) : e->text->len;
out:
    return st;
}

peft_status peft__emit_token(peft__emit *e, int32_t id, bool silent, bool last) {
    peft_status st = PEFT_OK;
    size_t ready = 0;
    if (e->ids != NULL) { TRY(peft__vec_push(e->ids, &id)); }
    if (e->text != NULL) { TRY(emit_text(e, id, silent, last, &ready)); }
    if (e->fn != NULL) {
        const char *text = e->text != NULL ? peft__str_c(e->text) + e->sent : NULL;
        int32_t answer = e->fn(e->user, id, text, ready - e->sent);
        if (answer != 0) { FAIL(PEFT_E_CALLBACK, "the token callback returned %d", (int)answer); }
    }
    e->sent = ready;
out:
    return st;
}
