/* encode.c - text to ids: added tokens are cut out, the rest is normalised, split into words and encoded by the model.
 *
 * Where a token comes from is worked out only if it is asked for; it is what Hugging Face's fast tokenizers answer: the
 * bytes of the text that its characters were made from, whole characters.
 * Left out: padding, and dropout of merges. */
#include "text/parts.h"

typedef struct peft__view { /* text that is being encoded, and where it stands */
    const char *s;
    size_t len;
    const peft__place *places; /* one a byte; NULL: as given, from byte `base` on */
    size_t base;
} peft__view;

typedef struct peft__encode { /* one call */
    const peft__tokenizer *t; /* borrowed */
    peft__vec *out;           /* borrowed; int32_t ids */
    peft__vec *spans;         /* borrowed; peft__encoded; NULL: not wanted */
    peft__bpe_work work;
    peft__aligned a, b;   /* the segment, normalised */
    peft__aligned marked; /* with the space in front, spaces as U+2581 */
    int32_t given;        /* the word that the text is, where it came in words; else -1 */
    int32_t word;         /* the next word's number */
    bool special;
    bool first;  /* nothing was cut or encoded before */
    bool inside; /* the segment goes on with text that was encoded in an earlier call */
} peft__encode;

/* Bytes of the text as given that v->s[from..to) was made from. */
static peft__place encode_place(const peft__view *v, size_t from, size_t to) {
    if (from >= to) { return (peft__place){0, 0}; }
    if (v->places != NULL) { return (peft__place){v->places[from].from, v->places[to - 1].to}; }
    while (from > 0 && ((unsigned char)v->s[from] & 0xC0u) == 0x80u) { from--; }
    while (to < v->len && ((unsigned char)v->s[to] & 0xC0u) == 0x80u) { to++; }
    return (peft__place){(uint32_t)(v->base + from), (uint32_t)(v->base + to)};
}

/* A token that is v->s[from..to). */
static peft_status encode_push(peft__encode *e, const peft__view *v, int32_t id, size_t from, size_t to) {
    peft_status st = peft__vec_push(e->out, &id);
    if (st != PEFT_OK || e->spans == NULL) { return st; }
    peft__place place = encode_place(v, from, to);
    peft__encoded x = {.id = id, .word = e->given >= 0 ? e->given : e->word, .start = place.from, .end = place.to};
    return peft__vec_push(e->spans, &x);
}

/* A character that is no token: its bytes, where all of them are tokens, or the unknown token. */
static bool encode_has_bytes(const peft__tokenizer *t, const char *s, size_t len) {
    bool bytes = true;
    for (size_t i = 0; i < len; i++) { bytes = bytes && t->byte_ids[(unsigned char)s[i]] >= 0; }
    return bytes;
}

static peft_status encode_unknown(const peft__tokenizer *t, peft__bpe_work *w, const char *s, size_t len, bool *unk) {
    bool bytes = encode_has_bytes(t, s, len);
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

/* The token of the character at the front of s; -1: none. *n: its bytes. */
static int32_t encode_char(const peft__tokenizer *t, const char *s, size_t len, size_t *n) {
    uint32_t cp = 0;
    unsigned char c = (unsigned char)s[0];
    *n = c < 128 ? 1 : peft__utf8_read(s, len, &cp);
    int32_t id = c < 128 ? t->ascii_ids[c] : *n > 0 ? (int32_t)peft__map_get(&t->index, s, *n) : -1;
    *n = *n == 0 ? 1 : *n;
    return id;
}

static peft_status encode_spm_symbols(const peft__tokenizer *t, peft__bpe_work *w, const char *s, size_t len) {
    peft_status st = PEFT_OK;
    bool unk = false;
    w->n = 0;
    TRY(peft__bpe_reserve(w, len));
    for (size_t i = 0, n; i < len; i += n) {
        int32_t id = encode_char(t, s + i, len - i, &n);
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

/* Bytes of s that token `id` of byte pair encoding stands for at its front. */
static size_t encode_width(const peft__tokenizer *t, int32_t id, const char *s, size_t len) {
    const peft__token *k = &t->tokens[id];
    size_t all = 0, n = 0;
    if (t->kind == PEFT__TOK_BYTES) {
        return id == t->unk ? PEFT__MIN(len, (size_t)1) : PEFT__MIN(len, (size_t)k->n_bytes);
    }
    if (k->type == PEFT__TOKEN_BYTE) { return PEFT__MIN(len, (size_t)1); }
    if (id != t->unk) { return PEFT__MIN(len, (size_t)k->len); }
    while (all < len && encode_char(t, s + all, len - all, &n) < 0 && !encode_has_bytes(t, s + all, n)) {
        all += n;
        if (!t->fuse_unk) { break; }
    }
    return all;
}

/* The word v->s[from..to). */
static peft_status encode_word(peft__encode *e, const peft__view *v, size_t from, size_t to) {
    peft_status st = PEFT_OK;
    const peft__tokenizer *t = e->t;
    peft__bpe_work *w = &e->work;
    const char *s = v->s + from;
    size_t len = to - from;
    bool merged = t->kind == PEFT__TOK_BYTES || t->kind == PEFT__TOK_SPM;
    int32_t whole = t->ignore_merges && merged ? encode_whole(t, s, len) : -1;
    if (whole >= 0) {
        TRY(encode_push(e, v, whole, from, to));
        goto out;
    }
    switch (t->kind) {
        case PEFT__TOK_WORDPIECE: TRY(peft__wordpiece_run(t, w, s, len)); break;
        case PEFT__TOK_UNIGRAM: TRY(peft__unigram_run(t, w, s, len)); break;
        case PEFT__TOK_SPM: TRY(encode_spm_symbols(t, w, s, len)); break;
        default: TRY(encode_byte_symbols(t, w, s, len)); break;
    }
    if (merged) { TRY(peft__bpe_run(t, w)); }
    for (size_t i = 0, at = 0; i < w->n; i++) {
        size_t width = merged && e->spans != NULL ? encode_width(t, w->ids[i], s + at, len - at) : 0;
        size_t begin = merged ? at : w->spans[i].from, end = merged ? at + width : w->spans[i].to;
        TRY(encode_push(e, v, w->ids[i], from + begin, from + end));
        at = end;
    }
out:
    e->word++;
    return st;
}

/* ---- spaces ---- */

static peft_status encode_put(peft__encode *e, const peft__view *v, const char *s, size_t len, size_t from) {
    peft_status st = PEFT_OK;
    peft__place none = {0, 0};
    if (!e->marked.placed) { return peft__aligned_put(&e->marked, s, len, none); }
    for (size_t i = 0; i < len; i++) {
        TRY(peft__aligned_put(&e->marked, s + i, 1, encode_place(v, from + i, from + i + 1)));
    }
out:
    return st;
}

/* One character in the place of v->s[from..to). */
static peft_status encode_put_one(peft__encode *e, const peft__view *v, const char *s, size_t len, size_t from,
                                  size_t to) {
    return peft__aligned_put(&e->marked, s, len, e->marked.placed ? encode_place(v, from, to) : (peft__place){0, 0});
}

static size_t encode_mark_at_end(const peft__tokenizer *t, const char *s, size_t len) {
    if (len > 0 && s[len - 1] == ' ') { return 1; }
    return !t->no_marks && len >= 3 && memcmp(s + len - 3, "\xE2\x96\x81", 3) == 0 ? 3 : 0;
}

/* SentencePiece's normalisation of spaces: one in front, perhaps squeezed, written as U+2581. */
static peft_status encode_spaces(peft__encode *e, const peft__view *v, size_t from, size_t to, bool prefix) {
    peft_status st = PEFT_OK;
    const peft__tokenizer *t = e->t;
    const char *mark = t->no_marks ? " " : "\xE2\x96\x81", *s = v->s;
    size_t mark_len = t->no_marks ? 1 : 3;
    if (t->squeeze) {
        while (from < to && s[from] == ' ') { from++; }
        for (size_t n; from < to && (n = encode_mark_at_end(t, s + from, to - from)) > 0;) { to -= n; }
    }
    if (from == to) { goto out; }
    if (prefix) { TRY(encode_put_one(e, v, mark, mark_len, from, from + 1)); }
    size_t done = from;
    for (size_t i = from; i < to; i++) {
        if (s[i] != ' ') { continue; }
        TRY(encode_put(e, v, s + done, i - done, done));
        if (!(t->squeeze && s[i - 1] == ' ')) { TRY(encode_put_one(e, v, mark, mark_len, i, i + 1)); }
        done = i + 1;
    }
    TRY(encode_put(e, v, s + done, to - done, done));
out:
    return st;
}

static bool encode_has_prefix(const peft__encode *e, const char *s, size_t len, bool begins) {
    const peft__tokenizer *t = e->t;
    if (e->inside || t->prefix == PEFT__PREFIX_NEVER) { return false; }
    if (t->prefix == PEFT__PREFIX_FIRST && !(e->first && begins)) { return false; }
    if (!t->prefix_once) { return true; }
    return !(s[0] == ' ' || (t->kind != PEFT__TOK_BYTES && len >= 3 && memcmp(s, "\xE2\x96\x81", 3) == 0));
}

/* A piece of the segment to which spaces are put, then its words. */
static peft_status encode_piece(peft__encode *e, const peft__view *v, size_t from, size_t to, bool begins) {
    peft_status st = PEFT_OK;
    const peft__tokenizer *t = e->t;
    bool spaced = t->kind == PEFT__TOK_SPM || t->kind == PEFT__TOK_UNIGRAM;
    bool prefix = encode_has_prefix(e, v->s + from, to - from, begins);
    peft__view marked = *v;
    if (spaced || prefix) {
        peft__aligned_clear(&e->marked);
        if (spaced) {
            TRY(encode_spaces(e, v, from, to, prefix));
        } else {
            TRY(encode_put_one(e, v, " ", 1, from, from + 1));
            TRY(encode_put(e, v, v->s + from, to - from, from));
        }
        marked = (peft__view){e->marked.text.data, e->marked.text.len, e->marked.places.data, 0};
        from = 0;
        to = marked.len;
    }
    peft__pretok_walk walk;
    const char *word = NULL;
    size_t n = 0;
    peft__pretok_begin(&walk, &t->pretok, marked.s == NULL ? "" : marked.s + from, to - from);
    walk.from = t->late;
    while (peft__pretok_next(&walk, &word, &n)) {
        size_t at = (size_t)(word - marked.s);
        TRY(encode_word(e, &marked, at, at + n));
    }
out:
    return st;
}

/* A stretch of normalised text without added tokens. */
static peft_status encode_stretch(peft__encode *e, const peft__view *v, size_t from, size_t to) {
    peft_status st = PEFT_OK;
    const peft__tokenizer *t = e->t;
    if (from == to) { return st; }
    peft__view part = {v->s + from, to - from, v->places == NULL ? NULL : v->places + from, v->base + from};
    if (t->late == 0) {
        TRY(encode_piece(e, &part, 0, part.len, true));
    } else {
        peft__pretok_walk walk;
        const char *piece = NULL;
        size_t n = 0;
        peft__pretok_begin(&walk, &t->pretok, part.s, part.len);
        walk.to = t->late;
        while (peft__pretok_next(&walk, &piece, &n)) {
            size_t at = (size_t)(piece - part.s);
            TRY(encode_piece(e, &part, at, at + n, at == 0));
        }
    }
    e->first = e->inside = false;
out:
    return st;
}

static peft_status encode_added(peft__encode *e, const peft__view *v, int32_t id, size_t from, size_t to) {
    peft_status st = encode_push(e, v, id, from, to);
    e->word++;
    e->first = e->inside = false;
    return st;
}

/* The steps would leave the text as it is: they are form C alone, and it is in form C. */
static bool encode_is_normal(const peft__tokenizer *t, const char *s, size_t len) {
    for (size_t i = 0; i < t->steps.len; i++) {
        const peft__norm_step *step = &PEFT__VEC_AT(&t->steps, peft__norm_step, i);
        if (step->op != PEFT__NORM_FORM || step->flags != 2) { return false; }
    }
    bool raw = t->kind == PEFT__TOK_BYTES || t->kind == PEFT__TOK_SPM;
    return raw && (t->steps.len == 0 || peft__nfc_quick(s, len));
}

/* The text s[0..len) at byte `base` of the text as given, in which no token is left that is looked for there. */
static peft_status encode_segment(peft__encode *e, const char *s, size_t len, size_t base) {
    peft_status st = PEFT_OK;
    const peft__tokenizer *t = e->t;
    peft__view v = {s, len, NULL, base};
    if (len == 0) { return st; }
    if (!encode_is_normal(t, s, len)) {
        const peft__aligned *done = NULL;
        TRY(peft__normalise(t, s, len, base, &e->a, &e->b, &done));
        v = (peft__view){done->text.data, done->text.len, done->placed ? done->places.data : NULL, 0};
    }
    if (v.len == 0 && t->users_inside && !t->squeeze && encode_has_prefix(e, "", 0, true)) { /* as SentencePiece does */
        peft__place all = {(uint32_t)base, (uint32_t)(base + len)}, places[3] = {all, all, all};
        peft__view mark = {"\xE2\x96\x81", 3, places, 0};
        TRY(encode_word(e, &mark, 0, 3));
    }
    for (size_t pos = 0; pos < v.len;) {
        size_t start = v.len, end = v.len;
        int32_t id = peft__added_find(t, &t->added_late, v.s, v.len, pos, e->special, &start, &end);
        TRY(encode_stretch(e, &v, pos, start));
        if (id >= 0) { TRY(encode_added(e, &v, id, start, end)); }
        pos = end;
    }
out:
    return st;
}

peft_status peft__encode_text(const peft__tokenizer *t, const char *text, size_t len, int32_t flags, int32_t word,
                              peft__vec *out, peft__vec *spans) {
    peft_status st = PEFT_OK;
    bool inside = (flags & PEFT__TOKENIZE_INSIDE) != 0, placed = spans != NULL;
    peft__encode e = {.t = t, .out = out, .spans = spans, .given = word, .first = !inside, .inside = inside};
    peft__view whole = {text, len, NULL, 0};
    e.special = (flags & PEFT_TOKENIZE_SPECIAL) != 0;
    peft__bpe_init(&e.work, t->mem);
    peft__aligned_init(&e.a, t->mem, placed);
    peft__aligned_init(&e.b, t->mem, placed);
    peft__aligned_init(&e.marked, t->mem, placed);
    if (placed && len > UINT32_MAX) { FAIL(PEFT_E_UNSUPPORTED, "a text of %zu bytes is too long for places", len); }
    for (size_t pos = 0; pos < len;) {
        size_t start = len, end = len;
        int32_t id = peft__added_find(t, &t->added, text, len, pos, e.special, &start, &end);
        TRY(encode_segment(&e, text + pos, start - pos, pos));
        if (id >= 0) { TRY(encode_added(&e, &whole, id, start, end)); }
        pos = end;
    }
out:
    peft__bpe_free(&e.work);
    peft__aligned_free(&e.a);
    peft__aligned_free(&e.b);
    peft__aligned_free(&e.marked);
    return st;
}

peft_status peft__tokenizer_encode(const peft__tokenizer *t, const char *text, size_t len, int32_t flags,
                                   peft__vec *out) {
    peft_status st = PEFT_OK;
    bool ends = (flags & PEFT_TOKENIZE_BOS_EOS) != 0;
    for (size_t i = 0; ends && i < t->n_lead; i++) { TRY(peft__vec_push(out, &t->lead[i])); }
    TRY(peft__encode_text(t, text, len, flags, -1, out, NULL));
    for (size_t i = 0; ends && i < t->n_trail; i++) { TRY(peft__vec_push(out, &t->trail[i])); }
out:
    return st;
}
