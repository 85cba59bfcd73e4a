/* text_build.h - small tokenizers for the tests of lib/text: files written into a folder of the test's own, and ids as text. */
#ifndef TEXT_BUILD_H
#define TEXT_BUILD_H

#include <stdio.h>

#include "runner.h"

#include "text/parts.h"

/* A byte-level BPE: the printable characters of ASCII it needs, U+0120 for a space, U+010A for a line end. ids: a 0, b 1,
 * c 2, space 3, line end 4, 1 5, bytes C3 and A9 6 and 7, ab 8, abc 9, space+a 10, space+ab 11; then <|end|> 12, <x> 13. */
#define TEXT_BYTES_VOCAB                                                                                               \
    "{\"a\":0,\"b\":1,\"c\":2,\"\xC4\xA0\":3,\"\xC4\x8A\":4,\"1\":5,\"\xC3\x83\":6,\"\xC2\xA9\":7,\"ab\":8,\"abc\":9," \
    "\"\xC4\xA0"                                                                                                       \
    "a\":10,\"\xC4\xA0"                                                                                                \
    "ab\":11}"
#define TEXT_BYTES_MERGES "[\"a b\",[\"ab\",\"c\"],\"\xC4\xA0 a\",[\"\xC4\xA0\",\"ab\"]]"
#define TEXT_BYTES_ADDED                                                     \
    "[{\"id\":12,\"content\":\"<|end|>\",\"special\":true,\"rstrip\":true}," \
    "{\"id\":13,\"content\":\"<x>\",\"special\":false,\"lstrip\":true}]"
#define TEXT_BYTES_PRE "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}"
#define TEXT_JSON(added, normalizer, pre, post, decoder, model)                                            \
    "{\"version\":\"1.0\",\"added_tokens\":" added ",\"normalizer\":" normalizer ",\"pre_tokenizer\":" pre \
    ",\"post_processor\":" post ",\"decoder\":" decoder ",\"model\":" model "}"
#define TEXT_BPE(vocab, merges, more) "{\"type\":\"BPE\",\"vocab\":" vocab ",\"merges\":" merges more "}"
#define TEXT_BYTES                                                                          \
    TEXT_JSON(TEXT_BYTES_ADDED, "null", TEXT_BYTES_PRE, "null", "{\"type\":\"ByteLevel\"}", \
              TEXT_BPE(TEXT_BYTES_VOCAB, TEXT_BYTES_MERGES, ""))

/* SentencePiece BPE: <unk> 0, <s> 1, </s> 2, byte C3 3, byte A9 4, U+2581 5, a 6, b 7, U+2581 a 8, ab 9, U+2581 ab 10. */
#define TEXT_MARK "\xE2\x96\x81"
#define TEXT_SPM_VOCAB                                                                                             \
    "{\"<unk>\":0,\"<s>\":1,\"</s>\":2,\"<0xC3>\":3,\"<0xA9>\":4,\"" TEXT_MARK "\":5,\"a\":6,\"b\":7,\"" TEXT_MARK \
    "a\":8,\"ab\":9,\"" TEXT_MARK "ab\":10}"
#define TEXT_SPM_MERGES "[\"a b\",\"" TEXT_MARK " a\",\"" TEXT_MARK " ab\"]"
#define TEXT_SPM_ADDED                                                                                    \
    "[{\"id\":0,\"content\":\"<unk>\",\"special\":true},{\"id\":1,\"content\":\"<s>\",\"special\":true}," \
    "{\"id\":2,\"content\":\"</s>\",\"special\":true}]"
#define TEXT_SPM_NORMALIZER                                                                         \
    "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"" TEXT_MARK "\"}," \
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" TEXT_MARK "\"}]}"
#define TEXT_SPM_POST                                                                                 \
    "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}}," \
    "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[1]}}}"
#define TEXT_SPM_DECODER                                                                                            \
    "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"" TEXT_MARK               \
    "\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \"," \
    "\"start\":1,\"stop\":0}]}"
#define TEXT_SPM                                                                            \
    TEXT_JSON(TEXT_SPM_ADDED, TEXT_SPM_NORMALIZER, "null", TEXT_SPM_POST, TEXT_SPM_DECODER, \
              TEXT_BPE(TEXT_SPM_VOCAB, TEXT_SPM_MERGES,                                     \
                       ",\"unk_token\":\"<unk>\",\"byte_fallback\":true,\"fuse_unk\":true"))

/* A field of a SentencePiece model that has a length. */
static inline void text_spm_put(peft__str *s, uint8_t tag, const char *data, size_t len) {
    peft__str_putc(s, (char)tag);
    peft__str_putc(s, (char)(unsigned char)len);
    peft__str_put(s, data, len);
}

/* One of its pieces; type 1 normal, 2 unknown, 3 control, 4 of the user. */
static inline void text_spm_piece(peft__str *s, const char *text, float score, char type) {
    char piece[64], bits[4];
    size_t n = strlen(text);
    memcpy(bits, &score, 4); /* the tests run on little-endian machines, as do the files */
    piece[0] = 0x0A;
    piece[1] = (char)n;
    memcpy(piece + 2, text, n);
    piece[n + 2] = 0x15;
    memcpy(piece + n + 3, bits, 4);
    piece[n + 7] = 0x18;
    piece[n + 8] = type;
    text_spm_put(s, 0x0A, piece, n + 9);
}

static inline peft_status text_write(peft__mem *mem, const char *dir, const char *name, const char *text) {
    return peft__save_text(mem, runner_path(dir, name), text, strlen(text));
}

/* Writes tokenizer.json, and tokenizer_config.json if there is one, into a fresh folder and opens it. */
static inline peft_status text_open(peft__mem *mem, const char *json, const char *config, peft__tokenizer **out) {
    const char *dir = runner_tmpdir();
    *out = NULL;
    peft_status st = text_write(mem, dir, "tokenizer.json", json);
    if (st == PEFT_OK && config != NULL) { st = text_write(mem, dir, "tokenizer_config.json", config); }
    return st != PEFT_OK ? st : peft__tokenizer_open(mem, dir, out);
}

/* "1 2 3", or "failed"; valid until the next call. */
static inline const char *text_ids_of(const peft__tokenizer *t, const char *text, size_t len, int32_t flags) {
    static char out[4096];
    peft__vec ids;
    size_t at = 0;
    peft__vec_init(&ids, t->mem, sizeof(int32_t));
    peft_status st = peft__tokenizer_encode(t, text, len, flags, &ids);
    out[0] = '\0';
    for (size_t i = 0; i < ids.len && at + 16 < sizeof out; i++) {
        at += (size_t)snprintf(out + at, 16, "%s%d", i > 0 ? " " : "", (int)PEFT__VEC_AT(&ids, int32_t, i));
    }
    peft__vec_free(&ids);
    return st == PEFT_OK ? out : "failed";
}

static inline const char *text_ids(const peft__tokenizer *t, const char *text, int32_t flags) {
    return text_ids_of(t, text, strlen(text), flags);
}

/* The text of n ids, or "failed"; valid until the next call. */
static inline const char *text_of(const peft__tokenizer *t, const int32_t *ids, size_t n, int32_t flags) {
    static char out[1024];
    peft__str s;
    peft__str_init(&s, t->mem);
    peft_status st = peft__tokenizer_decode(t, ids, n, flags, &s);
    (void)snprintf(out, sizeof out, "%s", peft__str_c(&s));
    peft__str_free(&s);
    return st == PEFT_OK ? out : "failed";
}

/* ids with the model's template of a text and, unless NULL, a second; each "id" or, of token type 1, "id'". */
static inline const char *text_pair(const peft__tokenizer *t, const char *first, const char *second) {
    static char out[512];
    peft__vec v;
    size_t at = 0;
    peft__text_in a = {.text = first, .len = strlen(first)}, b = {.text = second, .len = second != NULL ? strlen(second) : 0};
    peft__pair_rule rule = {.flags = PEFT_TOKENIZE_BOS_EOS | PEFT_TOKENIZE_SPECIAL};
    peft__vec_init(&v, t->mem, sizeof(peft__encoded));
    peft_status st = peft__tokenizer_encode_pair(t, &a, second != NULL ? &b : NULL, &rule, &v, NULL);
    out[0] = '\0';
    for (size_t i = 0; i < v.len && at + 16 < sizeof out; i++) {
        const peft__encoded *x = &PEFT__VEC_AT(&v, peft__encoded, i);
        at += (size_t)snprintf(out + at, 16, "%s%d%s", i > 0 ? " " : "", (int)x->id, x->type == 1 ? "'" : "");
    }
    peft__vec_free(&v);
    return st == PEFT_OK ? out : "failed";
}

/* A unigram model of a piece for each character of ASCII, with '?' for the rest, and of "[xU]", a piece of the user, under a normalizer
 * and a pre_tokenizer. */
static inline peft_status text_ascii(peft__mem *mem, const char *normalizer, const char *pre, peft__tokenizer **out) {
    peft__str json;
    peft__str_init(&json, mem);
    peft__str_putf(&json, "{\"added_tokens\":[{\"id\":97,\"content\":\"[xU]\",\"special\":false,\"normalized\":false}],\"normalizer\":%s,"
                          "\"pre_tokenizer\":%s,\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"?\",-9],[\"" TEXT_MARK "\",-1]",
                   normalizer, pre);
    for (char c = ' '; c <= '~'; c++) {
        if (c != '?') { peft__str_putf(&json, ",[\"%s%c\",-1]", c == '"' || c == '\\' ? "\\" : "", c); }
    }
    peft__str_puts(&json, ",[\"[xU]\",-1]]}}");
    peft_status st = text_open(mem, peft__str_c(&json), NULL, out);
    peft__str_free(&json);
    return st;
}

/* The pieces that a text became, one after the other, or "failed"; valid until the next call. */
static inline const char *text_pieces(const peft__tokenizer *t, const char *text) {
    static char out[256];
    peft__vec ids;
    size_t at = 0;
    peft__vec_init(&ids, t->mem, sizeof(int32_t));
    peft_status st = peft__tokenizer_encode(t, text, strlen(text), 0, &ids);
    for (size_t i = 0; i < ids.len && at + 8 < sizeof out; i++) {
        const peft__token *k = &t->tokens[PEFT__VEC_AT(&ids, int32_t, i)];
        memcpy(out + at, k->text, k->len);
        at += k->len;
    }
    out[at] = '\0';
    peft__vec_free(&ids);
    return st == PEFT_OK ? out : "failed";
}

/* Writes a GGUF file that has a tokenizer of so many rows, 0 as many as tokens, and no tensors. */
static inline peft_status text_to_gguf(const peft__tokenizer *t, size_t rows, const char *path) {
    peft__gguf_out w;
    peft__gguf_out_init(&w, t->mem);
    peft_status st = peft__tokenizer_to_gguf(t, rows, &w);
    if (st == PEFT_OK) { st = peft__gguf_write(&w, t->mem, path, NULL, 0); }
    peft__gguf_out_free(&w);
    return st;
}

static inline void text_charsmap_unit(uint8_t *at, uint32_t label, uint32_t offset, bool leaf) {
    uint32_t v = label | offset << 10 | (leaf ? 1u << 8 : 0);
    for (int i = 0; i < 4; i++) { at[i] = (uint8_t)(v >> (8 * i)); }
}

/* A character map in which "x" becomes "ab" and "xy" becomes "c": a double array of 512 units by hand, and the texts. Returns its
 * bytes, of which there is room for 4096. */
static inline size_t text_charsmap(uint8_t *blob) {
    uint8_t *u = blob + 4;
    memset(blob, 0, 4 + 512 * 4 + 8);
    blob[1] = 8;                                                           /* 2048 bytes */
    text_charsmap_unit(u, 0, 256, false);                                  /* root: children at 256 ^ byte */
    text_charsmap_unit(u + 4 * (256 ^ 'x'), 'x', (256 ^ 'x') ^ 128, true); /* its children at 128 ^ byte, its value at 128 */
    u[4 * 128 + 3] = 0x80;                                                 /* value 0: "ab" */
    text_charsmap_unit(u + 4 * (128 ^ 'y'), 'y', (128 ^ 'y') ^ 64, true);
    u[4 * 64] = 3; /* value 3: "c" */
    u[4 * 64 + 3] = 0x80;
    memcpy(u + 2048, "ab\0c", 5);
    return 4 + 2048 + 5;
}

#endif
