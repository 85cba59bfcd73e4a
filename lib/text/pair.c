/* pair.c - one text or two as an encoder reads them: the model's template, token types, truncation, windows, words.
 *
 * Truncation is that of Hugging Face's fast tokenizers (tokenizers, truncate_encodings): "longest first" shortens the longer
 * text to the length of the other, then both alike. Windows are its overflowing tokens with a stride.
 * Left out: cutting on the left. */
#include "text/parts.h"

static void pair_put(peft__tokenizer *t, int32_t id, int32_t type) {
    t->pair[t->n_pair++] = (peft__template_item){id, type};
}

void peft__tok_pair_template(peft__tokenizer *t) {
    if (t->n_pair > 0) { return; }
    t->pair_made = true;
    for (int32_t type = 0; type < 2; type++) {
        for (size_t i = 0; i < t->n_lead; i++) { pair_put(t, t->lead[i], type); }
        pair_put(t, type == 0 ? PEFT__PART_FIRST : PEFT__PART_SECOND, type);
        for (size_t i = 0; i < t->n_trail; i++) { pair_put(t, t->trail[i], type); }
    }
}

/* Bytes of the character at the front of s, or at its end; 0: none that is UTF-8. */
static size_t pair_end_char(const char *s, size_t len, bool front, uint32_t *cp) {
    if (front) { return peft__utf8_read(s, len, cp); }
    for (size_t k = 1; k <= 4 && k <= len; k++) {
        if (peft__utf8_read(s + len - k, k, cp) == k) { return k; }
    }
    return 0;
}

/* White space at the front of s, or at its end, in characters: of byte-level tokens blanks alone, of added ones any. */
static size_t pair_spaces(const char *s, size_t len, bool bytes, bool front) {
    size_t count = 0, n;
    uint32_t cp = 0;
    while (len > 0 && (n = pair_end_char(s, len, front, &cp)) > 0) {
        if (bytes ? cp != ' ' : peft__unicode_class(cp) != PEFT__UNI_SPACE) { break; }
        s += front ? n : 0;
        len -= n;
        count++;
    }
    return count;
}

static bool pair_inside(const char *text, size_t len, size_t at) {
    return at > 0 && at < len && ((unsigned char)text[at] & 0xC0u) == 0x80u;
}

/* The ends of tokens that are spaces of byte-level BPE, as its post-processor trims them: by characters of the text, be
 * they spaces there or not. */
static void pair_trim(const peft__tokenizer *t, peft__encoded *x, bool first, const char *text, size_t len) {
    const peft__token *k = &t->tokens[x->id];
    bool plain = k->type == PEFT__TOKEN_NORMAL || k->type == PEFT__TOKEN_BYTE;
    const char *s = plain ? k->bytes : k->text;
    size_t n = plain ? k->n_bytes : k->len;
    size_t lead = pair_spaces(s, n, plain, true), trail = pair_spaces(s, n, plain, false);
    if (lead > 0 && t->trim_prefix && (first || x->start == 0)) { lead--; }
    for (; lead > 0 && x->start < x->end; lead--) {
        do { x->start++; } while (pair_inside(text, len, x->start));
    }
    for (; trail > 0 && x->end > x->start; trail--) {
        do { x->end--; } while (pair_inside(text, len, x->end));
    }
}

/* All tokens of one text. */
static peft_status pair_encode(const peft__tokenizer *t, const peft__text_in *in, int32_t flags, int32_t part,
                               peft__vec *out) {
    peft_status st = PEFT_OK;
    peft__vec ids;
    size_t n = in->words != NULL ? in->n_words : 1;
    peft__vec_init(&ids, t->mem, sizeof(int32_t));
    if (n > INT32_MAX) { FAIL(PEFT_E_UNSUPPORTED, "a text of %zu words is too long", n); }
    for (size_t i = 0; i < n; i++) {
        const char *text = in->words != NULL ? in->words[i] : in->text;
        size_t len = in->words != NULL ? in->word_lens[i] : in->len;
        size_t from = out->len;
        TRY(peft__encode_text(t, text, len, flags, in->words != NULL ? (int32_t)i : -1, &ids, out));
        ids.len = 0;
        for (size_t k = from; k < out->len; k++) {
            peft__encoded *x = &PEFT__VEC_AT(out, peft__encoded, k);
            x->part = part;
            if (t->trim) { pair_trim(t, x, k == 0, text, len); }
        }
    }
out:
    peft__vec_free(&ids);
    return st;
}

/* ---- truncation ---- */

typedef struct peft__pair_cut { /* what of each text stays */
    size_t from[2], len[2];
} peft__pair_cut;

/* Both together at most `room`. */
static void pair_longest(size_t a, size_t b, size_t room, peft__pair_cut *cut) {
    size_t less = PEFT__MIN(a, b), more = PEFT__MAX(a, b);
    if (a + b <= room) { return; }
    more = less > room ? less : PEFT__MIN(more, PEFT__MAX(less, room - less));
    if (less + more > room) {
        less = room / 2;
        more = less + room % 2;
    }
    cut->len[0] = PEFT__MIN(a > b ? more : less, a);
    cut->len[1] = PEFT__MIN(a > b ? less : more, b);
}

/* The window of text `which`, of which `room` tokens fit. */
static peft_status pair_window(const peft__pair_rule *rule, size_t which, size_t n, size_t room, peft__pair_cut *cut,
                               size_t *windows) {
    peft_status st = PEFT_OK;
    if (n <= room) {
        *windows = 1;
    } else {
        if (rule->stride >= room) {
            FAIL(PEFT_E_INVALID, "windows of %zu tokens that share %zu with the one before them do not move on", room,
                 rule->stride);
        }
        size_t step = room - rule->stride;
        *windows = 1 + (n - room + step - 1) / step;
        cut->from[which] = PEFT__MIN(rule->window, *windows) * step;
        cut->len[which] = PEFT__MIN(room, n - PEFT__MIN(cut->from[which], n));
    }
out:
    return st;
}

static peft_status pair_cut(const peft__pair_rule *rule, size_t a, size_t b, size_t added, peft__pair_cut *cut,
                            size_t *windows) {
    peft_status st = PEFT_OK;
    *cut = (peft__pair_cut){{0, 0}, {a, b}};
    *windows = 1;
    if (rule->max > 0 && a + b + added > rule->max) {
        if (added > rule->max) {
            FAIL(PEFT_E_INVALID, "%zu tokens at most, and the tokenizer adds %zu by itself", rule->max, added);
        }
        size_t room = rule->max - added;
        size_t which = rule->truncate == PEFT__TRUNCATE_SECOND ? 1 : 0, n = which == 1 ? b : a,
               other = which == 1 ? a : b;
        if (rule->truncate == PEFT__TRUNCATE_LONGEST) {
            pair_longest(a, b, room, cut);
        } else if (other >= room) {
            FAIL(PEFT_E_INVALID, "%zu tokens have to go, and the %s text has %zu", a + b - room,
                 which == 1 ? "second" : "first", n);
        } else {
            TRY(pair_window(rule, which, n, room - other, cut, windows));
        }
    }
    if (rule->window >= *windows) {
        FAIL(PEFT_E_INVALID, "window %zu, and there are only %zu", rule->window, *windows);
    }
out:
    return st;
}

/* ---- the template ---- */

static peft_status pair_put_part(const peft__vec *part, size_t from, size_t len, int32_t type, peft__vec *out) {
    for (size_t i = from; i < from + len; i++) {
        peft__encoded x = PEFT__VEC_AT(part, peft__encoded, i);
        x.type = type;
        peft_status st = peft__vec_push(out, &x);
        if (st != PEFT_OK) { return st; }
    }
    return PEFT_OK;
}

/* The template of one text or of two; without the model's tokens only the texts. */
static size_t pair_template(const peft__tokenizer *t, bool two, bool ends, peft__template_item *items) {
    size_t n = 0;
    if (!two) {
        for (size_t i = 0; ends && i < t->n_lead; i++) { items[n++] = (peft__template_item){t->lead[i], 0}; }
        items[n++] = (peft__template_item){PEFT__PART_FIRST, 0};
        for (size_t i = 0; ends && i < t->n_trail; i++) { items[n++] = (peft__template_item){t->trail[i], 0}; }
        return n;
    }
    for (size_t i = 0; ends && i < t->n_pair; i++) { items[n++] = t->pair[i]; }
    if (!ends) {
        items[n++] = (peft__template_item){PEFT__PART_FIRST, 0};
        items[n++] = (peft__template_item){PEFT__PART_SECOND, 1};
    }
    return n;
}

peft_status peft__tokenizer_encode_pair(const peft__tokenizer *t, const peft__text_in *first,
                                        const peft__text_in *second, const peft__pair_rule *rule, peft__vec *out,
                                        size_t *windows) {
    static const peft__pair_rule none = {0};
    peft_status st = PEFT_OK;
    peft__vec parts[2];
    peft__template_item items[PEFT__TOK_PAIR];
    peft__pair_cut cut;
    size_t added = 0, count = 1;
    rule = rule == NULL ? &none : rule;
    int32_t flags = rule->flags & PEFT_TOKENIZE_SPECIAL;
    size_t n = pair_template(t, second != NULL, (rule->flags & PEFT_TOKENIZE_BOS_EOS) != 0, items);
    for (size_t i = 0; i < n; i++) { added += items[i].id >= 0; }
    for (size_t i = 0; i < 2; i++) { peft__vec_init(&parts[i], t->mem, sizeof(peft__encoded)); }
    TRY(pair_encode(t, first, flags, 0, &parts[0]));
    if (second != NULL) { TRY(pair_encode(t, second, flags, 1, &parts[1])); }
    TRY(pair_cut(rule, parts[0].len, parts[1].len, added, &cut, &count));
    for (size_t i = 0; i < n; i++) {
        if (items[i].id < 0) {
            size_t which = items[i].id == PEFT__PART_SECOND ? 1 : 0;
            TRY(pair_put_part(&parts[which], cut.from[which], cut.len[which], items[i].type, out));
        } else {
            peft__encoded x = {.id = items[i].id, .type = items[i].type, .part = -1, .word = -1};
            TRY(peft__vec_push(out, &x));
        }
    }
    if (windows != NULL) { *windows = count; }
out:
    for (size_t i = 0; i < 2; i++) { peft__vec_free(&parts[i]); }
    return st;
}

bool peft__tokenizer_words_need_space(const peft__tokenizer *t) {
    return t->kind == PEFT__TOK_BYTES && t->prefix == PEFT__PREFIX_NEVER;
}
