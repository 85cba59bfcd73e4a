/* sentencepiece.c - tokenizer.model: a SentencePiece model, a protocol buffer, read by hand.
 *
 * Message and field numbers: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
 * ModelProto 1 pieces (1 text, 2 score, 3 type), 2 trainer_spec (3 model_type, 24 spaces as suffix, 40-43 ids of
 * unk, bos, eos, pad), 3 normalizer_spec (2 character map, 3 dummy prefix, 4 squeeze spaces, 5 escape spaces).
 * What is done is what SentencePiece does. Left out: word and character models, spaces at the end of pieces. */
#include "text/parts.h"

typedef struct peft__spm_field { /* one field of a message */
    uint64_t number;
    uint32_t wire;       /* 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes */
    uint64_t value;      /* of wire 0, 1, 5 */
    const uint8_t *data; /* wire 2 */
    size_t len;
} peft__spm_field;

typedef struct peft__spm_model {
    const char *what;   /* the path, for errors */
    int64_t model_type; /* 1 unigram, 2 BPE, 3 word, 4 character */
    int64_t unk, bos, eos, pad;
    bool suffix, dummy_prefix, squeeze, escape;
    const uint8_t *map; /* the normalisation's character map */
    size_t map_len;
    size_t pieces;
} peft__spm_model;

static bool spm_varint(const uint8_t **at, const uint8_t *end, uint64_t *out) {
    uint64_t v = 0;
    for (uint32_t shift = 0; shift < 64 && *at < end; shift += 7) {
        uint8_t b = *(*at)++;
        v |= (uint64_t)(b & 0x7F) << shift;
        if (b < 0x80) {
            *out = v;
            return true;
        }
    }
    return false;
}

/* Reads the next field; *more is false at the end of the message. */
static peft_status spm_next(const uint8_t **at, const uint8_t *end, const char *what, peft__spm_field *f, bool *more) {
    uint64_t tag = 0, len = 0;
    *f = (peft__spm_field){0};
    *more = *at < end;
    if (!*more) { return PEFT_OK; }
    if (!spm_varint(at, end, &tag)) { return peft__fail(PEFT_E_FORMAT, "%s: a field's tag is cut off", what); }
    f->number = tag >> 3;
    f->wire = (uint32_t)(tag & 7);
    size_t left = (size_t)(end - *at), fixed = f->wire == 1 ? 8 : 4;
    if (f->wire == 0) {
        if (!spm_varint(at, end, &f->value)) { return peft__fail(PEFT_E_FORMAT, "%s: a number is cut off", what); }
    } else if (f->wire == 1 || f->wire == 5) {
        if (left < fixed) { return peft__fail(PEFT_E_FORMAT, "%s: a number is cut off", what); }
        for (size_t i = 0; i < fixed; i++) { f->value |= (uint64_t)(*at)[i] << (8 * i); }
        *at += fixed;
    } else if (f->wire == 2) {
        if (!spm_varint(at, end, &len) || len > (uint64_t)(end - *at)) {
            return peft__fail(PEFT_E_FORMAT, "%s: field %llu is longer than the message", what,
                              (unsigned long long)f->number);
        }
        f->data = *at;
        f->len = (size_t)len;
        *at += f->len;
    } else {
        return peft__fail(PEFT_E_FORMAT, "%s: wire type %u, expected 0, 1, 2 or 5: not a SentencePiece model", what,
                          f->wire);
    }
    return PEFT_OK;
}

static int64_t spm_int(const peft__spm_field *f) {
    return (int64_t)(int32_t)(uint32_t)f->value;
}

static peft_status spm_trainer(peft__spm_model *m, const uint8_t *at, size_t len) {
    const uint8_t *end = at + len;
    for (bool more = true; more;) {
        peft__spm_field f;
        peft_status st = spm_next(&at, end, m->what, &f, &more);
        if (st != PEFT_OK) { return st; }
        switch (f.wire == 0 ? f.number : 0) {
            case 3: m->model_type = spm_int(&f); break;
            case 24: m->suffix = f.value != 0; break;
            case 40: m->unk = spm_int(&f); break;
            case 41: m->bos = spm_int(&f); break;
            case 42: m->eos = spm_int(&f); break;
            case 43: m->pad = spm_int(&f); break;
            default: break;
        }
    }
    return PEFT_OK;
}

static peft_status spm_normalizer(peft__spm_model *m, const uint8_t *at, size_t len) {
    const uint8_t *end = at + len;
    for (bool more = true; more;) {
        peft__spm_field f;
        peft_status st = spm_next(&at, end, m->what, &f, &more);
        if (st != PEFT_OK) { return st; }
        if (f.number == 2 && f.wire == 2) { m->map = f.data, m->map_len = f.len; }
        if (f.number == 3 && f.wire == 0) { m->dummy_prefix = f.value != 0; }
        if (f.number == 4 && f.wire == 0) { m->squeeze = f.value != 0; }
        if (f.number == 5 && f.wire == 0) { m->escape = f.value != 0; }
    }
    return PEFT_OK;
}

/* First pass: the specs, and how many pieces there are. */
static peft_status spm_specs(peft__spm_model *m, const uint8_t *at, size_t len) {
    peft_status st = PEFT_OK;
    const uint8_t *end = at + len;
    static const char *const kinds[] = {"unknown", "unigram", "BPE", "word", "character"};
    for (bool more = true; more;) {
        peft__spm_field f;
        TRY(spm_next(&at, end, m->what, &f, &more));
        if (!more || f.wire != 2) { continue; }
        if (f.number == 1) { m->pieces++; }
        if (f.number == 2) { TRY(spm_trainer(m, f.data, f.len)); }
        if (f.number == 3) { TRY(spm_normalizer(m, f.data, f.len)); }
    }
    if (m->pieces == 0) { FAIL(PEFT_E_FORMAT, "%s: no pieces: not a SentencePiece model", m->what); }
    if (m->model_type != 1 && m->model_type != 2) {
        FAIL(PEFT_E_UNSUPPORTED, "%s: a SentencePiece model of kind %s, supported are unigram and BPE", m->what,
             kinds[m->model_type >= 1 && m->model_type <= 4 ? m->model_type : 0]);
    }
    if (m->suffix) { FAIL(PEFT_E_UNSUPPORTED, "%s: spaces at the end of pieces are not supported", m->what); }
out:
    return st;
}

static peft_status spm_piece(peft__tokenizer *t, const char *what, size_t id, const uint8_t *at, size_t len) {
    peft_status st = PEFT_OK;
    const uint8_t *end = at + len;
    peft__spm_field text = {0};
    int64_t type = PEFT__TOKEN_NORMAL;
    float score = 0;
    for (bool more = true; more;) {
        peft__spm_field f;
        TRY(spm_next(&at, end, what, &f, &more));
        if (f.number == 1 && f.wire == 2) { text = f; }
        if (f.number == 2 && f.wire == 5) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&score, &bits, sizeof score);
        }
        if (f.number == 3 && f.wire == 0) { type = spm_int(&f); }
    }
    if (text.data == NULL || !peft__utf8_valid((const char *)text.data, text.len)) {
        FAIL(PEFT_E_FORMAT, "%s: piece %zu has no text in UTF-8", what, id);
    }
    if (type < PEFT__TOKEN_NORMAL || type > PEFT__TOKEN_BYTE || score != score) {
        FAIL(PEFT_E_FORMAT, "%s: piece %zu is of type %lld with a score that may be NaN, expected 1 to 6", what, id,
             (long long)type);
    }
    char *copy = peft__arena_alloc(&t->arena, text.len + 1);
    if (copy == NULL) { return PEFT_E_NOMEM; }
    size_t n = 0;
    for (size_t i = 0; i < text.len; i++) { /* the user's own pieces are looked for in the text as given */
        bool mark = type == PEFT__TOKEN_USER && text.len - i >= 3 && memcmp(text.data + i, "\xE2\x96\x81", 3) == 0;
        copy[n++] = mark ? ' ' : (char)text.data[i];
        i += mark ? 2 : 0;
    }
    TRY(peft__tok_set(t, id, copy, n, (int32_t)type, score));
out:
    return st;
}

static int32_t spm_id(const peft__spm_model *m, int64_t id) {
    return id >= 0 && (uint64_t)id < m->pieces ? (int32_t)id : -1;
}

/* The pieces, and room for tokens that the configuration beside the file adds. */
static peft_status spm_pieces(peft__tokenizer *t, const peft__spm_model *m, const peft__file *file, const char *dir) {
    peft_status st = PEFT_OK;
    peft__arena a;
    const uint8_t *at = file->data, *end = file->data + file->size;
    size_t id = 0, added = 0;
    peft__arena_init(&a, t->mem);
    TRY(peft__tok_companion_room(&a, dir, m->pieces, t->kind == PEFT__TOK_UNIGRAM, &added));
    TRY(peft__tok_reserve(t, PEFT__MAX(m->pieces, added), m->what));
    for (bool more = true; more;) {
        peft__spm_field f;
        TRY(spm_next(&at, end, m->what, &f, &more));
        if (more && f.number == 1 && f.wire == 2) { TRY(spm_piece(t, m->what, id++, f.data, f.len)); }
    }
out:
    peft__arena_free(&a);
    return st;
}

static peft_status spm_rules(peft__tokenizer *t, const peft__spm_model *m) {
    peft_status st = PEFT_OK;
    t->prefix = m->dummy_prefix ? PEFT__PREFIX_ALWAYS : PEFT__PREFIX_NEVER;
    t->strip_first = m->dummy_prefix;
    t->squeeze = m->squeeze;
    t->no_marks = !m->escape;
    t->fuse_unk = true;
    t->unk = spm_id(m, m->unk);
    t->bos = spm_id(m, m->bos);
    t->eos = spm_id(m, m->eos);
    t->pad = spm_id(m, m->pad);
    t->add_bos = t->bos >= 0;
    t->users_inside = t->kind == PEFT__TOK_UNIGRAM;
    if (m->map_len > 0) {
        uint8_t *map = peft__arena_alloc(&t->arena, m->map_len);
        if (map == NULL) { return PEFT_E_NOMEM; }
        memcpy(map, m->map, m->map_len);
        TRY(peft__charsmap_read(map, m->map_len, m->what, &t->charsmap));
        TRY(peft__normalise_add(t, PEFT__NORM_CHARSMAP, 1));
    }
out:
    return st;
}

peft_status peft__tokenizer_open_spm(peft__mem *mem, const char *path, const char *dir, peft__tokenizer **out) {
    peft_status st = PEFT_OK;
    peft__file file = {0};
    peft__tokenizer *t = NULL;
    peft__spm_model m = {.what = path,
                         .model_type = 1,
                         .unk = 0,
                         .bos = 1,
                         .eos = 2,
                         .pad = -1,
                         .dummy_prefix = true,
                         .squeeze = true,
                         .escape = true};
    TRY(peft__file_open(mem, path, false, &file));
    TRY(spm_specs(&m, file.data, file.size));
    TRY(peft__tok_create(mem, m.model_type == 1 ? PEFT__TOK_UNIGRAM : PEFT__TOK_SPM, "tokenizer.model", &t));
    TRY(spm_pieces(t, &m, &file, dir));
    TRY(spm_rules(t, &m));
    if (t->kind == PEFT__TOK_SPM) { TRY(peft__bpe_merges_from_scores(t)); }
    TRY(peft__tok_companions(t, dir, true));
    TRY(peft__tok_finish(t, path));
    *out = t;
    t = NULL;
out:
    peft__tokenizer_free(t);
    peft__file_close(&file);
    return st;
}
