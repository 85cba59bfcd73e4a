/* vocab.c - building a tokenizer: tokens and merges go in one by one, then the tables that encoding needs are made.
 *
 * Byte-level BPE spells bytes in GPT-2's alphabet: printable Latin-1 characters stand for themselves, the other 68 bytes
 * for U+0100 and up. A SentencePiece vocabulary spells spaces as U+2581 and single bytes as <0x41>.
 * Left out: what the files look like (one reader each). */
#include "text/parts.h"

uint32_t peft__tok_byte_char(uint32_t byte) {
    if ((byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174) { return byte; }
    if (byte <= 32) { return 256 + byte; }
    if (byte <= 160) { return 256 + 33 + (byte - 127); }
    return 256 + 67; /* 173, the soft hyphen */
}

int32_t peft__tok_char_byte(uint32_t cp) {
    if (cp < 256) { return peft__tok_byte_char(cp) == cp ? (int32_t)cp : -1; }
    if (cp <= 256 + 32) { return (int32_t)(cp - 256); }
    if (cp <= 256 + 66) { return (int32_t)(cp - 256 - 33 + 127); }
    return cp == 256 + 67 ? 173 : -1;
}

peft_status peft__tok_create(peft__mem *mem, int32_t kind, const char *source, peft__tokenizer **out) {
    peft__tokenizer *t = peft__alloc_zero(mem, sizeof *t);
    if (t == NULL) { return PEFT_E_NOMEM; }
    t->mem = mem;
    t->kind = kind;
    t->source = source;
    t->bos = t->eos = t->pad = t->unk = t->mask = -1;
    t->joint = "";
    t->chat_format = -1;
    peft__arena_init(&t->arena, mem);
    peft__map_init(&t->index, mem);
    peft__vec_init(&t->merges, mem, sizeof(peft__merge));
    peft__vec_init(&t->eog, mem, sizeof(int32_t));
    peft__vec_init(&t->steps, mem, sizeof(peft__norm_step));
    peft__vec_init(&t->added.items, mem, sizeof(peft__added));
    peft__vec_init(&t->added_late.items, mem, sizeof(peft__added));
    *out = t;
    return PEFT_OK;
}

void peft__tokenizer_free(peft__tokenizer *t) {
    if (t == NULL) { return; }
    peft__mem *mem = t->mem;
    peft__map_free(&t->index);
    peft__vec_free(&t->merges);
    peft__vec_free(&t->eog);
    peft__vec_free(&t->steps);
    peft__vec_free(&t->added.items);
    peft__vec_free(&t->added_late.items);
    peft__trie_free(&t->trie);
    peft__free(mem, t->scores, t->count * sizeof *t->scores);
    peft__free(mem, t->tokens, t->count * sizeof *t->tokens);
    peft__free(mem, t->pairs, t->pair_cap * sizeof *t->pairs);
    peft__arena_free(&t->arena);
    if (t->from_gguf) { peft__gguf_close(&t->gguf); }
    peft__free(mem, t, sizeof *t);
}

peft_status peft__tok_reserve(peft__tokenizer *t, size_t count, const char *what) {
    if (count <= t->count) { return PEFT_OK; }
    if (count > PEFT__TOK_MAX) {
        return peft__fail(PEFT_E_FORMAT, "%s: a vocabulary of %zu tokens, at most %d are possible", what, count,
                          PEFT__TOK_MAX);
    }
    peft__token *tokens = peft__realloc(t->mem, t->tokens, t->count * sizeof *tokens, count * sizeof *tokens);
    if (tokens == NULL) { return PEFT_E_NOMEM; }
    memset(tokens + t->count, 0, (count - t->count) * sizeof *tokens);
    t->tokens = tokens;
    t->count = count;
    return PEFT_OK;
}

peft_status peft__tok_set(peft__tokenizer *t, size_t id, const char *text, size_t len, int32_t type, float score) {
    if (id >= t->count || len > UINT32_MAX) {
        return peft__fail(PEFT_E_FORMAT, "token id %zu, expected less than %zu", id, t->count);
    }
    peft__token *k = &t->tokens[id];
    k->text = text;
    k->len = (uint32_t)len;
    k->type = (uint8_t)type;
    k->score = score;
    if (peft__map_get(&t->index, text, len) >= 0) { return PEFT_OK; }
    return peft__map_put(&t->index, text, len, (int64_t)id);
}

peft_status peft__tok_merge(peft__tokenizer *t, const char *left, size_t left_len, const char *right, size_t right_len,
                            const char *what) {
    char small[128];
    size_t len = left_len + right_len;
    int64_t l = peft__map_get(&t->index, left, left_len), r = peft__map_get(&t->index, right, right_len), joined = -1;
    if (len <= sizeof small) {
        memcpy(small, left, left_len);
        memcpy(small + left_len, right, right_len);
        joined = peft__map_get(&t->index, small, len);
    } else {
        peft__str s;
        peft__str_init(&s, t->mem);
        peft__str_put(&s, left, left_len);
        peft__str_put(&s, right, right_len);
        peft_status st = peft__str_status(&s);
        if (st == PEFT_OK) { joined = peft__map_get(&t->index, s.data, s.len); }
        peft__str_free(&s);
        if (st != PEFT_OK) { return st; }
    }
    if (l < 0 || r < 0 || joined < 0) {
        const char *lost = l < 0 ? "its left part" : r < 0 ? "its right part" : "what it makes";
        return peft__fail(PEFT_E_FORMAT, "%s: merge %zu \"%.*s %.*s\": %s is not in the vocabulary", what,
                          t->merges.len, (int)PEFT__MIN(left_len, 80), left, (int)PEFT__MIN(right_len, 80), right,
                          lost);
    }
    peft__merge m = {(int32_t)l, (int32_t)r, (int32_t)joined, (int32_t)t->merges.len};
    return peft__vec_push(&t->merges, &m);
}

peft_status peft__tok_merge_line(peft__tokenizer *t, const char *line, size_t len, const char *what) {
    const char *gap = len > 1 ? memchr(line + 1, ' ', len - 1) : NULL; /* a token may be a space itself, hence + 1 */
    if (gap == NULL || gap + 1 == line + len) {
        return peft__fail(PEFT_E_FORMAT, "%s: merge %zu is \"%.*s\", expected two tokens with a space between", what,
                          t->merges.len, (int)PEFT__MIN(len, 80), line);
    }
    size_t left = (size_t)(gap - line);
    return peft__tok_merge(t, line, left, gap + 1, len - left - 1, what);
}

peft_status peft__tok_add_eog(peft__tokenizer *t, int32_t id) {
    if (id < 0 || peft__tokenizer_is_eog(t, id)) { return PEFT_OK; }
    return peft__vec_push(&t->eog, &id);
}

/* ---- finishing ---- */

/* Value of <0x41>; -1: the text is no byte token. */
static int32_t vocab_byte_value(const peft__token *k) {
    if (k->len != 6 || memcmp(k->text, "<0x", 3) != 0 || k->text[5] != '>') { return -1; }
    int32_t v = 0;
    for (size_t i = 3; i < 5; i++) {
        char c = k->text[i];
        int32_t digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) { return -1; }
        v = v * 16 + digit;
    }
    return v;
}

/* Decoded bytes of one token, written at `to`; returns where the next may go.. */
static char *vocab_decode(const peft__tokenizer *t, peft__token *k, char *to) {
    char *at = to;
    k->bytes = k->text;
    k->n_bytes = k->len;
    if (k->type == PEFT__TOKEN_CONTROL || k->type == PEFT__TOKEN_USER || k->type == PEFT__TOKEN_UNKNOWN) { return to; }
    if (k->type == PEFT__TOKEN_BYTE) {
        *at++ = (char)(unsigned char)vocab_byte_value(k);
    } else if (t->kind == PEFT__TOK_WORDPIECE) {
        return to; /* decoding looks at the text */
    } else if (t->kind != PEFT__TOK_BYTES) {
        if ((t->no_marks && t->kind == PEFT__TOK_SPM) || memchr(k->text, '\xE2', k->len) == NULL) { return to; }
        for (size_t i = 0; i < k->len;) {
            bool mark = k->len - i >= 3 && memcmp(k->text + i, "\xE2\x96\x81", 3) == 0;
            *at++ = mark ? ' ' : k->text[i];
            i += mark ? 3 : 1;
        }
    } else {
        for (size_t i = 0; i < k->len;) {
            uint32_t cp = 0;
            size_t n = peft__utf8_read(k->text + i, k->len - i, &cp);
            int32_t byte = n == 0 ? -1 : peft__tok_char_byte(cp);
            if (byte < 0) { return to; } /* not in the alphabet: an added token, written as it is */
            *at++ = (char)(unsigned char)byte;
            i += n;
        }
    }
    k->bytes = to;
    k->n_bytes = (uint32_t)(at - to);
    return at;
}

static peft_status vocab_decode_all(peft__tokenizer *t) {
    size_t total = 1;
    for (size_t i = 0; i < t->count; i++) {
        peft__token *k = &t->tokens[i];
        if (k->type == PEFT__TOKEN_BYTE && vocab_byte_value(k) < 0) { k->type = PEFT__TOKEN_NORMAL; }
        total += k->len;
    }
    char *to = peft__arena_alloc(&t->arena, total);
    if (to == NULL) { return PEFT_E_NOMEM; }
    for (size_t i = 0; i < t->count; i++) {
        if (t->tokens[i].text == NULL) { t->tokens[i].text = ""; }
        to = vocab_decode(t, &t->tokens[i], to);
    }
    return PEFT_OK;
}

static void vocab_symbols(peft__tokenizer *t) {
    for (uint32_t b = 0; b < 256; b++) {
        char text[8];
        t->byte_ids[b] = -1;
        if (t->kind == PEFT__TOK_BYTES) {
            size_t n = peft__utf8_write(peft__tok_byte_char(b), text);
            t->byte_ids[b] = (int32_t)peft__map_get(&t->index, text, n);
        }
        if (b < 128) {
            text[0] = (char)b;
            t->ascii_ids[b] = (int32_t)peft__map_get(&t->index, text, 1);
        }
    }
    if (t->kind != PEFT__TOK_SPM && t->kind != PEFT__TOK_UNIGRAM) { return; }
    t->cut_at_marks = !t->no_marks;
    for (size_t i = 0; i < t->count; i++) {
        const peft__token *k = &t->tokens[i];
        if (k->type == PEFT__TOKEN_BYTE) { t->byte_ids[vocab_byte_value(k)] = (int32_t)i; }
        bool other = false;
        for (size_t p = 0; p < k->len; p++) {
            bool mark = k->len - p >= 3 && memcmp(k->text + p, "\xE2\x96\x81", 3) == 0;
            if (mark && other) { t->cut_at_marks = false; }
            other = other || !mark;
            p += mark ? 2 : 0;
        }
    }
}

/* Names of the marks that end a turn or a text in the common model families. */
static peft_status vocab_eog(peft__tokenizer *t) {
    static const char *const names[] = {"<|im_end|>",    "<|eot_id|>",      "<|eom_id|>", "<|end|>", "<end_of_turn>",
                                        "<|endoftext|>", "<|end_of_text|>", "<|eot|>",    "<EOT>",   "<|return|>"};
    peft_status st = PEFT_OK;
    TRY(peft__tok_add_eog(t, t->eos));
    for (size_t i = 0; i < PEFT__COUNT(names); i++) {
        int32_t id = peft__tokenizer_id(t, names[i], strlen(names[i]));
        if (id < 0) { continue; }
        uint8_t type = t->tokens[id].type;
        if (type == PEFT__TOKEN_CONTROL || type == PEFT__TOKEN_USER) { TRY(peft__tok_add_eog(t, id)); }
    }
out:
    return st;
}

static peft_status vocab_check_id(const peft__tokenizer *t, int32_t id, const char *name, const char *what) {
    if (id < -1 || (id >= 0 && (size_t)id >= t->count)) {
        return peft__fail(PEFT_E_FORMAT, "%s: the %s token is %d, expected an id below %zu", what, name, (int)id,
                          t->count);
    }
    return PEFT_OK;
}

peft_status peft__tok_finish(peft__tokenizer *t, const char *what) {
    peft_status st = PEFT_OK;
    if (t->count == 0) { FAIL(PEFT_E_FORMAT, "%s: the vocabulary is empty", what); }
    TRY(vocab_check_id(t, t->bos, "BOS", what));
    TRY(vocab_check_id(t, t->eos, "EOS", what));
    TRY(vocab_check_id(t, t->pad, "padding", what));
    TRY(vocab_check_id(t, t->unk, "unknown", what));
    TRY(vocab_check_id(t, t->mask, "mask", what));
    TRY(vocab_decode_all(t));
    vocab_symbols(t);
    TRY(peft__bpe_index(t));
    TRY(peft__added_build(t));
    if (t->kind == PEFT__TOK_WORDPIECE) { TRY(peft__wordpiece_finish(t, what)); }
    if (t->kind == PEFT__TOK_UNIGRAM) { TRY(peft__unigram_finish(t)); }
    TRY(vocab_eog(t));
    peft__tok_pair_template(t);
    if (t->pre_name == NULL) { t->pre_name = peft__pretok_name(&t->pretok); }
    if (t->kind == PEFT__TOK_SPM && t->cut_at_marks && t->pretok.count == 0) {
        TRY(peft__pretok_add(&t->pretok, PEFT__SPLIT_MARKS, 0, what)); /* no merge crosses there: it only saves time */
    }
    peft__chat_recognise(t);
    TRY(peft__chat_default_system(t));
out:
    return st;
}

/* ---- questions ---- */

int32_t peft__tokenizer_size(const peft__tokenizer *t) {
    return (int32_t)t->count;
}
int32_t peft__tokenizer_bos(const peft__tokenizer *t) {
    return t->bos;
}
int32_t peft__tokenizer_eos(const peft__tokenizer *t) {
    return t->eos;
}
int32_t peft__tokenizer_pad(const peft__tokenizer *t) {
    return t->pad;
}
int32_t peft__tokenizer_mask(const peft__tokenizer *t) {
    return t->mask;
}

bool peft__tokenizer_is_eog(const peft__tokenizer *t, int32_t id) {
    for (size_t i = 0; i < t->eog.len; i++) {
        if (PEFT__VEC_AT(&t->eog, int32_t, i) == id) { return true; }
    }
    return false;
}

int32_t peft__tokenizer_id(const peft__tokenizer *t, const char *token, size_t len) {
    return (int32_t)peft__map_get(&t->index, token, len);
}
