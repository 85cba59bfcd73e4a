/* added.c - special and added tokens: they are cut out of a text before it is encoded.
 *
 * Of tokens that match at one place the longest is taken; matching goes from left to right, as in Hugging Face's tokenizers
 * (AddedVocabulary): first the tokens that are looked for in the text as given, then, in what lies between them, those that
 * are looked for in the normalised text, where they are normalised too. Control tokens count only on request. */
#include <stdlib.h>

#include "text/parts.h"

static int added_order(const void *a, const void *b) {
    const peft__added *x = a, *y = b;
    unsigned char cx = (unsigned char)x->text[0], cy = (unsigned char)y->text[0];
    if (cx != cy) { return cx < cy ? -1 : 1; }
    if (x->len != y->len) { return x->len > y->len ? -1 : 1; }
    return x->id < y->id ? -1 : x->id > y->id;
}

static void added_index(peft__added_index *index) {
    size_t at = 0;
    if (index->items.len > 1) { qsort(index->items.data, index->items.len, sizeof(peft__added), added_order); }
    for (uint32_t b = 0; b < 256; b++) {
        index->at[b] = (uint32_t)at;
        while (at < index->items.len && (unsigned char)PEFT__VEC_AT(&index->items, peft__added, at).text[0] == b) {
            at++;
        }
    }
    index->at[256] = (uint32_t)at;
}

static peft_status added_normalised(peft__tokenizer *t, peft__added *a, peft__aligned *x, peft__aligned *y) {
    const peft__aligned *done = NULL;
    peft_status st = peft__normalise(t, a->text, a->len, 0, x, y, &done);
    if (st != PEFT_OK) { return st; }
    a->text = peft__arena_strdup(&t->arena, peft__str_c(&done->text), done->text.len);
    a->len = (uint32_t)done->text.len;
    return a->text == NULL ? PEFT_E_NOMEM : PEFT_OK;
}

peft_status peft__added_build(peft__tokenizer *t) {
    peft_status st = PEFT_OK;
    peft__aligned x, y;
    peft__aligned_init(&x, t->mem, false);
    peft__aligned_init(&y, t->mem, false);
    for (size_t i = 0; i < t->count; i++) {
        const peft__token *k = &t->tokens[i];
        bool cut = k->type == PEFT__TOKEN_CONTROL || k->type == PEFT__TOKEN_USER || k->type == PEFT__TOKEN_UNKNOWN;
        bool late = (k->match & PEFT__TOKEN_LATE) != 0 && t->steps.len > 0;
        if (!cut || k->len == 0) { continue; }
        peft__added a = {k->text, k->len, (int32_t)i};
        if (late) { TRY(added_normalised(t, &a, &x, &y)); }
        if (a.len > 0) { TRY(peft__vec_push(late ? &t->added_late.items : &t->added.items, &a)); }
    }
    added_index(&t->added);
    added_index(&t->added_late);
out:
    peft__aligned_free(&x);
    peft__aligned_free(&y);
    return st;
}

/* The character that ends before text[at]; 0 bytes: none. */
static size_t added_before(const char *text, size_t at, uint32_t *cp) {
    size_t back = at;
    while (back > 0 && at - back < 4 && (back == at || ((unsigned char)text[back] & 0xC0u) == 0x80u)) { back--; }
    return back < at && peft__utf8_read(text + back, at - back, cp) == at - back ? at - back : 0;
}

static bool added_alone(const char *text, size_t len, size_t start, size_t end) {
    uint32_t cp = 0;
    if (added_before(text, start, &cp) > 0 && peft__unicode_is_word(cp)) { return false; }
    return !(end < len && peft__utf8_read(text + end, len - end, &cp) > 0 && peft__unicode_is_word(cp));
}

/* The token at text[i], longest first; NULL: none. */
static const peft__added *added_at(const peft__tokenizer *t, const peft__added_index *index, const char *text,
                                   size_t len, size_t i, bool special) {
    uint32_t b = (unsigned char)text[i];
    for (uint32_t k = index->at[b]; k < index->at[b + 1]; k++) {
        const peft__added *a = &PEFT__VEC_AT(&index->items, peft__added, k);
        bool user = t->tokens[a->id].type == PEFT__TOKEN_USER;
        if (user ? t->users_inside : !special) { continue; }
        if (a->len <= len - i && memcmp(text + i, a->text, a->len) == 0) { return a; }
    }
    return NULL;
}

int32_t peft__added_find(const peft__tokenizer *t, const peft__added_index *index, const char *text, size_t len,
                         size_t from, bool special, size_t *start, size_t *end) {
    uint32_t cp = 0;
    if (index->items.len == 0) { return -1; }
    for (size_t i = from; i < len; i++) {
        const peft__added *a = added_at(t, index, text, len, i, special);
        if (a == NULL) { continue; }
        uint8_t match = t->tokens[a->id].match;
        if ((match & PEFT__TOKEN_WHOLE) && !added_alone(text, len, i, i + a->len)) {
            i += a->len - 1; /* what is inside it is not looked for any more */
            continue;
        }
        *start = i;
        *end = i + a->len;
        for (size_t n; (match & PEFT__TOKEN_LSTRIP) && *start > from; *start -= n) {
            n = added_before(text, *start, &cp);
            if (n == 0 || n > *start - from || peft__unicode_class(cp) != PEFT__UNI_SPACE) { break; }
        }
        for (size_t n; (match & PEFT__TOKEN_RSTRIP) && *end < len; *end += n) {
            n = peft__utf8_read(text + *end, len - *end, &cp);
            if (n == 0 || peft__unicode_class(cp) != PEFT__UNI_SPACE) { break; }
        }
        return a->id;
    }
    return -1;
}

size_t peft__added_user(const peft__tokenizer *t, const char *s, size_t len) {
    uint32_t b = (unsigned char)s[0];
    for (uint32_t k = t->added.at[b]; k < t->added.at[b + 1]; k++) {
        const peft__added *a = &PEFT__VEC_AT(&t->added.items, peft__added, k);
        bool user = t->tokens[a->id].type == PEFT__TOKEN_USER;
        if (user && a->len <= len && memcmp(s, a->text, a->len) == 0) { return a->len; }
    }
    return 0;
}
