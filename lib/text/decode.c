/* decode.c - ids to text, all at once or one by one.
 *
 * Bytes that are no UTF-8 come out as they are, so that decode(encode(text)) is the text for byte-level BPE. Control
 * tokens are written only on request.
 * Left out: Hugging Face's "clean_up_tokenization_spaces", which changes the text, and its U+FFFD for broken bytes. */
#include "text/parts.h"

/* A piece of WordPiece: a space before it, unless it goes on with the word; none before a full stop and the like. */
static peft_status decode_joined(const peft__tokenizer *t, const peft__token *k, bool *started, peft__str *out) {
    static const char *const close[] = {".", "?", "!", ",", "n't", "'m", "'s", "'ve", "'re"};
    size_t joint = strlen(t->joint), len = k->len;
    bool inside = *started && joint <= len && memcmp(k->text, t->joint, joint) == 0;
    const char *text = k->text + (inside ? joint : 0);
    len -= inside ? joint : 0;
    bool space = *started && !inside;
    for (size_t i = 0; space && t->cleans && i < PEFT__COUNT(close); i++) {
        size_t n = strlen(close[i]);
        space = !(len >= n && memcmp(text, close[i], n) == 0); /* as in Hugging Face: also where more follows */
    }
    if (space) { peft__str_putc(out, ' '); }
    peft__str_put(out, text, len);
    *started = true;
    return peft__str_status(out);
}

/* The first piece as the Metaspace decoder writes it: without any U+2581. */
static void decode_unmarked(const peft__token *k, peft__str *out) {
    for (size_t i = 0; i < k->n_bytes && k->bytes != k->text; i++) {
        if (k->bytes[i] != ' ') { peft__str_putc(out, k->bytes[i]); }
    }
    if (k->bytes == k->text) { peft__str_put(out, k->text, k->len); }
}

/* Appends what an id decodes to. *started: text was written before. */
static peft_status decode_piece(const peft__tokenizer *t, int32_t id, int32_t flags, bool *started, peft__str *out) {
    if (id < 0 || (size_t)id >= t->count) {
        return peft__fail(PEFT_E_INVALID, "token id %d, expected 0 to %zu", (int)id, t->count - 1);
    }
    const peft__token *k = &t->tokens[id];
    bool control = k->type == PEFT__TOKEN_CONTROL || k->type == PEFT__TOKEN_UNKNOWN;
    if (control && !(flags & PEFT_TOKENIZE_SPECIAL)) { return PEFT_OK; }
    const char *bytes = k->bytes;
    size_t len = k->n_bytes;
    if (t->joins) { return decode_joined(t, k, started, out); }
    if (!*started && t->strip_marks) {
        decode_unmarked(k, out);
        *started = true;
        return peft__str_status(out);
    }
    if (!*started && t->strip_first && len > 0 && !control && bytes[0] == ' ') {
        bytes++;
        len--;
    }
    *started = *started || (t->squeeze ? len : k->n_bytes) > 0; /* where spaces are squeezed, none stands in front */
    peft__str_put(out, bytes, len);
    return peft__str_status(out);
}

peft_status peft__tokenizer_decode(const peft__tokenizer *t, const int32_t *ids, size_t n, int32_t flags,
                                   peft__str *out) {
    bool started = false;
    for (size_t i = 0; i < n; i++) {
        peft_status st = decode_piece(t, ids[i], flags, &started, out);
        if (st != PEFT_OK) { return st; }
    }
    return peft__str_status(out);
}

void peft__detok_init(peft__detok *d, const peft__tokenizer *t, int32_t flags) {
    *d = (peft__detok){.t = t, .flags = flags};
}

/* Bytes at the end of s that may be the beginning of a character. */
static size_t decode_unfinished(const char *s, size_t len) {
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        unsigned char c = (unsigned char)s[len - back];
        if ((c & 0xC0u) == 0x80u) { continue; }
        size_t need = c >= 0xF0 && c <= 0xF4 ? 4 : c >= 0xE0 ? 3 : c >= 0xC2 ? 2 : 1;
        return c < 0xF5 && need > back ? back : 0;
    }
    return 0;
}

peft_status peft__detok_put(peft__detok *d, int32_t id, peft__str *out) {
    size_t from = out->len;
    peft__str_put(out, d->held, d->held_len);
    peft_status st = decode_piece(d->t, id, d->flags, &d->started, out);
    if (st != PEFT_OK) { /* nothing happened: what was held is held still */
        if (!out->failed && out->len > from) {
            out->len = from;
            out->data[from] = '\0';
        }
        return st;
    }
    d->held_len = out->len > from ? decode_unfinished(out->data + from, out->len - from) : 0;
    if (d->held_len > 0) {
        memcpy(d->held, out->data + out->len - d->held_len, d->held_len);
        out->len -= d->held_len;
        out->data[out->len] = '\0';
    }
    return PEFT_OK;
}

peft_status peft__detok_end(peft__detok *d, peft__str *out) {
    peft__str_put(out, d->held, d->held_len);
    d->held_len = 0;
    return peft__str_status(out);
}
