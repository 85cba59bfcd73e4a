/* encode.c - text to ids: special and added tokens are cut out, the rest is normalised, split and merged.
 *
 * Of tokens that match at one place the longest is taken; matching goes from left to right, as in Hugging Face's
 * tokenizers (AddedVocabulary). Control tokens are looked for only on request, the user's own always.
 * Left out: added tokens that match after normalisation ("normalized": true): all are looked for in the text as given. */
#include "text/parts.h"

typedef struct peft__encode { /* one call */
    const peft__tokenizer *t; /* borrowed */
    peft__vec *out;           /* borrowed; int32_t ids */
    peft__bpe_work work;
    peft__str text, nfc; /* the segment as it is encoded */
    bool first;          /* nothing was cut or encoded before */
    bool inside;         /* the segment goes on with text that was encoded in an earlier call */
} peft__encode;

static bool encode_is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Part of a word for "single_word": letters, numbers and the underscore. */
static bool encode_is_word(uint32_t cp) {
    int32_t cls = peft__unicode_class(cp);
    return cls == PEFT__UNI_LETTER || cls == PEFT__UNI_NUMBER || cp == '_';
}

static bool encode_alone(const char *text, size_t len, size_t start, size_t end) {
    uint32_t cp = 0;
    size_t back = start;
    while (back > 0 && start - back < 4 && (back == start || ((unsigned char)text[back] & 0xC0u) == 0x80u)) { back--; }
    if (back < start && peft__utf8_read(text + back, start - back, &cp) > 0 && encode_is_word(cp)) { return false; }
    return !(end < len && peft__utf8_read(text + end, len - end, &cp) > 0 && encode_is_word(cp));
}

/* The first added token in text[from..len): its id, or -1; *start and *end are its span. */
static int32_t encode_find_added(const peft__tokenizer *t, const char *text, size_t len, size_t from, bool special,
                                 size_t *start, size_t *end) {
    if (t->added.len == 0) { return -1; }
    const int32_t *ids = t->added.data;
    for (size_t i = from; i < len; i++) {
        uint32_t b = (unsigned char)text[i];
        for (uint32_t k = t->added_at[b]; k < t->added_at[b + 1]; k++) {
            const peft__token *tok = &t->tokens[ids[k]];
            if (tok->type != PEFT__TOKEN_USER && !special) { continue; }
            if (tok->len > len - i || memcmp(text + i, tok->text, tok->len) != 0) { continue; }
            if ((tok->match & PEFT__TOKEN_WHOLE) && !encode_alone(text, len, i, i + tok->len)) { continue; }
            *start = i;
            *end = i + tok->len;
            return ids[k];
        }
    }
    return -1;
}

/* A character that is no token: its bytes, where all of them are tokens, or the unknown token. */
static peft_status encode_unknown(const peft__tokenizer *t, peft__bpe_work *w, const char *s, size_t len, bool *unk) {
    bool bytes = true;
    for (size_t i = 0; i < len; i++) { bytes = bytes && t->byte_ids[(unsigned char)s[i]] >= 0; }
    peft_status st = peft__bpe_reserve(w, w->n + len);
    if (st != PEFT_OK) { return st; }
    if (bytes) {
        for (size_t i = 0; i < len; i++) { w->ids[w->n++] = t->byte_ids[(unsigned char)s[i]]; }
        *unk = false;
    } else {
        if (t->unk >= 0 && !(*unk && t->fuse_unk)) { w->ids[w->n++] = t->unk; }
        *unk = true;
    }
    return PEFT_OK;
}

static peft_status encode_spm_symbols(const peft__tokenizer *t, peft__bpe_work *w, const char *s, size_t len) {
    peft_status st = PEFT_OK;
    bool unk = false;
    w->n = 0;
    TRY(peft__bpe_reserve(w, len));
    for (size_t i = 0, n; i < len; i += n) {
        uint32_t cp = 0;
        unsigned char c = (unsigned char)s[i];
        n = c < 128 ? 1 : peft__utf8_read(s + i, len - i, &cp);
        int32_t id = c < 128 ? t->ascii_ids[c] : n > 0 ? (int32_t)peft__map_get(&t->index, s + i, n) : -1;
        n = n == 0 ? 1 : n;
        if (id >= 0) {
            w->ids[w->n++] = id;
            unk = false;
        } else {
            TRY(encode_unknown(t, w, s + i, n, &unk));
        }
    }
out:
    return st;
}

static peft_status encode_byte_symbols(const peft__tokenizer *t, peft__bpe_work *w, const char *s, size_t len) {
    peft_status st = peft__bpe_reserve(w, len);
    if (st != PEFT_OK) { return st; }
    w->n = 0;
    for (size_t i = 0; i < len; i++) {
        int32_t id = t->byte_ids[(unsigned char)s[i]];
        if (id < 0) { id = t->unk; }
        if (id >= 0) { w->ids[w->n++] = id; }
    }
    return PEFT_OK;
}

/* The token that a whole word is; -1: none. For byte-level BPE the word is first spelled in the alphabet. */
static int32_t encode_whole(const peft__tokenizer *t, const char *s, size_t len) {
    char spelled[256];
    if (t->kind == PEFT__TOK_SPM) { return (int32_t)peft__map_get(&t->index, s, len); }
    if (len > sizeof spelled / 2) { return -1; }
    size_t n = 0;
    for (size_t i = 0; i < len; i++) { n += peft__utf8_write(peft__tok_byte_char((unsigned char)s[i]), spelled + n); }
    return (int32_t)peft__map_get(&t->index, spelled, n);
}

static peft_status encode_word(peft__encode *e, const char *s, size_t len) {
    peft_status st = PEFT_OK;
    const peft__tokenizer *t = e->t;
    int32_t whole = t->ignore_merges ? encode_whole(t, s, len) : -1;
    if (whole >= 0) { return peft__vec_push(e->out, &whole); }
    TRY(t->kind == PEFT__TOK_SPM ? encode_spm_symbols(t, &e->work, s, len) : encode_byte_symbols(t, &e->work, s, len));
    TRY(peft__bpe_run(t, &e->work));
    for (size_t i = 0; i < e->work.n; i++) { TRY(peft__vec_push(e->out, &e->work.ids[i])); }
out:
    return st;
}

/* SentencePiece's normalisation of spaces: one in front, perhaps squeezed, written as U+2581. */
static void encode_spaces(peft__encode *e, const char *s, size_t len, bool prefix) {
    const peft__tokenizer *t = e->t;
    const char *mark = t->no_marks ? " " : "\xE2\x96\x81";
    size_t mark_len = t->no_marks ? 1 : 3;
    if (t->squeeze) {
        while (len > 0 && s[0] == ' ') { s++, len--; }
        while (len > 0 && s[len - 1] == ' ') { len--; }
    }
    if (len == 0) { return; }
    if (prefix) { peft__str_put(&e->text, mark, mark_len); }
    size_t from = 0;
    for (size_t i = 0; i < len; i++) {
        if (s[i] != ' ') { continue; }
        peft__str_put(&e->text, s + from, i - from);
        if (!(t->squeeze && s[i - 1] == ' ')) { peft__str_put(&e->text, mark, mark_len); }
        from = i + 1;
    }
    peft__str_put(&e->text, s + from, len - from);
}

static bool encode_has_prefix(const peft__encode *e, const char *s, size_t len) {
    const peft__tokenizer *t = e->t;
    if (e->inside || t->prefix == PEFT__PREFIX_NEVER || (t->prefix == PEFT__PREFIX_FIRST && !e->first)) { return false; }
    if (!t->prefix_once) { return true; }
    return !(s[0] == ' ' || (t->kind == PEFT__TOK_SPM && len >= 3 && memcmp(s, "\xE2\x96\x81", 3) == 0));
}

/* A stretch of text without added tokens. */
static peft_status encode_segment(peft__encode *e, const char *s, size_t len) {
    peft_status st = PEFT_OK;
    const peft__tokenizer *t = e->t;
    if (len == 0) { return st; }
    if (t->nfc && !peft__nfc_quick(s, len)) {
        peft__str_clear(&e->nfc);
        TRY(peft__nfc(t->mem, s, len, &e->nfc));
        s = e->nfc.data;
        len = e->nfc.len;
    }
    bool prefix = encode_has_prefix(e, s, len);
    if (t->kind == PEFT__TOK_SPM || prefix) {
        peft__str_clear(&e->text);
        if (t->kind == PEFT__TOK_SPM) {
            encode_spaces(e, s, len, prefix);
        } else {
            peft__str_putc(&e->text, ' ');
            peft__str_put(&e->text, s, len);
        }
        TRY(peft__str_status(&e->text));
        s = e->text.data;
        len = e->text.len;
    }
    e->first = e->inside = false;
    peft__pretok_walk walk;
    const char *word = NULL;
    size_t n = 0;
    for (peft__pretok_begin(&walk, &t->pretok, s, len); peft__pretok_next(&walk, &word, &n);) {
        TRY(encode_word(e, word, n));
    }
out:
    return st;
}

peft_status peft__tokenizer_encode(const peft__tokenizer *t, const char *text, size_t len, int32_t flags,
                                   peft__vec *out) {
    peft_status st = PEFT_OK;
    bool inside = (flags & PEFT__TOKENIZE_INSIDE) != 0;
    peft__encode e = {.t = t, .out = out, .first = !inside, .inside = inside};
    bool special = (flags & PEFT_TOKENIZE_SPECIAL) != 0, ends = (flags & PEFT_TOKENIZE_BOS_EOS) != 0;
    peft__bpe_init(&e.work, t->mem);
    peft__str_init(&e.text, t->mem);
    peft__str_init(&e.nfc, t->mem);
    for (size_t i = 0; ends && i < t->n_lead; i++) { TRY(peft__vec_push(out, &t->lead[i])); }
    for (size_t pos = 0; pos < len;) {
        size_t start = len, end = len;
        int32_t id = encode_find_added(t, text, len, pos, special, &start, &end);
        size_t stop = start;
        if (id >= 0 && (t->tokens[id].match & PEFT__TOKEN_LSTRIP)) {
            while (stop > pos && encode_is_space(text[stop - 1])) { stop--; }
        }
        TRY(encode_segment(&e, text + pos, stop - pos));
        if (id >= 0) {
            TRY(peft__vec_push(out, &id));
            e.first = e.inside = false;
            if (t->tokens[id].match & PEFT__TOKEN_RSTRIP) {
                while (end < len && encode_is_space(text[end])) { end++; }
            }
        }
        pos = end;
    }
    for (size_t i = 0; ends && i < t->n_trail; i++) { TRY(peft__vec_push(out, &t->trail[i])); }
out:
    peft__bpe_free(&e.work);
    peft__str_free(&e.text);
    peft__str_free(&e.nfc);
    return st;
}
