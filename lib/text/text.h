/* text.h - layer 1: text to token ids and back, and chat formats.
 *
 * A tokenizer is: special and added tokens are cut out of the text, the rest is normalised, split into words by the
 * pre-tokenizer and encoded by the model (byte-level BPE, SentencePiece BPE, WordPiece or unigram). It is immutable once
 * opened.
 *
 * text/ reads its files through io/ (tokenizer.json, GGUF metadata) and knows nothing of tensors or models. */
#ifndef PEFT_TEXT_H
#define PEFT_TEXT_H

#include "base/base.h"
#include "base/findings.h"
#include "io/io.h"

typedef struct peft__tokenizer peft__tokenizer;

/* The files that `path` may name are those of peft_tokenizer_open in the public header. */
peft_status peft__tokenizer_open(peft__mem *mem, const char *path, peft__tokenizer **out);
void peft__tokenizer_free(peft__tokenizer *t); /* NULL is fine */
bool peft__tokenizer_probe(const char *path);  /* a path that peft__tokenizer_open would take for a tokenizer */

int32_t peft__tokenizer_size(const peft__tokenizer *t);     /* ids are below this */
int32_t peft__tokenizer_bos(const peft__tokenizer *t);      /* -1: none */
int32_t peft__tokenizer_eos(const peft__tokenizer *t);      /* -1: none */
int32_t peft__tokenizer_pad(const peft__tokenizer *t);      /* -1: none */
int32_t peft__tokenizer_mask(const peft__tokenizer *t);     /* -1: none */
bool peft__tokenizer_is_eog(const peft__tokenizer *t, int32_t id); /* ends generation: EOS, end-of-turn */
int32_t peft__tokenizer_id(const peft__tokenizer *t, const char *token, size_t len); /* -1: absent */

enum { PEFT__TOKENIZE_INSIDE = 1 << 16 }; /* encode: the text goes on with other text: no space is put before it */
/* Appends ids to out (elements int32_t). flags: PEFT_TOKENIZE_*, PEFT__TOKENIZE_INSIDE. */
peft_status peft__tokenizer_encode(const peft__tokenizer *t, const char *text, size_t len, int32_t flags, peft__vec *out);
/* Appends text to out. */
peft_status peft__tokenizer_decode(const peft__tokenizer *t, const int32_t *ids, size_t n, int32_t flags, peft__str *out);

/* ---- pair.c: what encoders read: two texts, token types, places and words ---------------------------------------- */

typedef struct peft__encoded { /* a token and where it comes from */
    int32_t id;
    int32_t type;      /* token type, as the tokenizer numbers its segments: 0 or 1 */
    int32_t part;      /* 0: of the first text, 1: of the second, -1: put there by the tokenizer */
    int32_t word;      /* the pre-tokenizer's word that it is in, or the given one; -1: none */
    size_t start, end; /* bytes of the text, or of the given word; 0 and 0 for part -1 */
} peft__encoded;

typedef struct peft__text_in { /* a text, or its words where it comes in words (Hugging Face's is_split_into_words) */
    const char *text;          /* borrowed; UTF-8 */
    size_t len;
    const char *const *words; /* [n_words], borrowed; NULL: `text` counts */
    const size_t *word_lens;  /* bytes of each */
    size_t n_words;
} peft__text_in;

enum { /* which text loses tokens at its end */
       PEFT__TRUNCATE_LONGEST = 0,
       PEFT__TRUNCATE_FIRST = 1,
       PEFT__TRUNCATE_SECOND = 2
};

typedef struct peft__pair_rule {
    int32_t flags;    /* PEFT_TOKENIZE_*: SPECIAL; BOS_EOS: with the tokens of the model's template */
    size_t max;       /* tokens in all; 0: any number */
    int32_t truncate; /* PEFT__TRUNCATE_* */
    /* TRUNCATE_FIRST and _SECOND: a text that is too long gives several windows. */
    size_t stride; /* tokens that a window shares with the one before it */
    size_t window; /* which one is wanted */
} peft__pair_rule;

/* Appends a text, or two, to out (elements peft__encoded), truncated as Hugging Face's fast tokenizers do; rule NULL: all
 * zeros. *windows (may be NULL): how many there are, 1 where nothing is cut off or only the first is to be had. A text that
 * has fewer tokens than have to go, and a window past the last one: PEFT_E_INVALID. */
peft_status peft__tokenizer_encode_pair(const peft__tokenizer *t, const peft__text_in *first,
                                        const peft__text_in *second /* NULL: one text */, const peft__pair_rule *rule,
                                        peft__vec *out, size_t *windows);

/* ---- unicode.c --------------------------------------------------------------------------------------------------- */

enum { /* classes that the splitting rules tell apart; each code point has one */
       PEFT__UNI_OTHER = 0,
       PEFT__UNI_LETTER = 1,
       PEFT__UNI_NUMBER = 2,
       PEFT__UNI_SPACE = 3,
       PEFT__UNI_PUNCT = 4
};
int32_t peft__unicode_class(uint32_t cp);            /* \p{L}, \p{N}, \s, \p{P} or none of these */
bool peft__unicode_is_accent(uint32_t cp, bool all); /* what BERT strips; all: what StripAccents does */
uint32_t peft__unicode_lower(uint32_t cp);           /* one character; U+0130 stays as it is */

/* Words that come one by one need a space in front: the tokenizer tells words by it, and puts none there itself. (Hugging Face
 * asks for add_prefix_space then.) */
bool peft__tokenizer_words_need_space(const peft__tokenizer *t);

/* ---- decode.c ---------------------------------------------------------------------------------------------------- */

/* Streaming decode: ids go in one by one, whole UTF-8 characters come out; the concatenation equals the decode of all. */
typedef struct peft__detok {
    const peft__tokenizer *t; /* borrowed */
    int32_t flags;
    bool started;             /* the first piece loses its leading space where the tokenizer adds one */
    char held[8];             /* bytes of an unfinished character */
    size_t held_len;
} peft__detok;
void peft__detok_init(peft__detok *d, const peft__tokenizer *t, int32_t flags);
peft_status peft__detok_put(peft__detok *d, int32_t id, peft__str *out); /* appends; perhaps nothing */
peft_status peft__detok_end(peft__detok *d, peft__str *out);             /* what is held, as it is */

/* ---- chat.c: the common chat formats, recognised from the template's text ---------------------------------------- */

typedef struct peft__chat_message {
    const char *role, *content; /* borrowed; UTF-8 */
    size_t role_len, content_len;
} peft__chat_message;

/* Name of the recognised format: "chatml", "llama2", "llama3", "mistral", "gemma", "phi3", "zephyr"; NULL for none. */
const char *peft__chat_format(const peft__tokenizer *t);
/* Appends the messages as the model's format writes them. spans (NULL, or a vec of size_t, two a turn): the byte ranges of `out`
 * that are an assistant's turn including its end-of-turn mark: what the loss of {"messages"} rows is taken on. Unknown
 * template: PEFT_E_UNSUPPORTED, with a text that says how to give a plain prompt format. */
peft_status peft__chat_render(const peft__tokenizer *t, const peft__chat_message *messages, size_t count,
                              bool add_generation_prompt, peft__str *out, peft__vec *spans);

/* The inside of peft_tokenizer: made and counted by api/, kept by data sets and sessions. */
struct peft_tokenizer {
    uint32_t magic;          /* PEFT__MAGIC_TOKENIZER; poisoned on free */
    atomic_int refs;
    peft_context *ctx;       /* retained */
    peft__tokenizer *inner;  /* owned */
};
enum { PEFT__MAGIC_TOKENIZER = 0x54464550 };
void peft__tokenizer_retain(struct peft_tokenizer *t);
void peft__tokenizer_release(struct peft_tokenizer *t);

/* verify.c: what is wrong in a tokenizer that opens. rows: of the model's embedding; 0: there is none. */
peft_status peft__tokenizer_verify(const peft__tokenizer *t, const char *path, int64_t rows, peft__findings *f);
/* The same of config.json, generation_config.json and, where t is not NULL, the tokenizer's settings: ids are below limit. */
peft_status peft__tokenizer_verify_folder(const peft__tokenizer *t, const char *dir, int64_t limit, peft__mem *mem, peft__findings *f);
/* A token for each byte, a mask and an end, chats as ChatML: to look at rows of data where there is no tokenizer. */
peft_status peft__tokenizer_of_bytes(peft__mem *mem, peft__tokenizer **out);

/* The object of peft_tokenizer_info_json. */
peft_status peft__tokenizer_info(const peft__tokenizer *t, peft__str *out);

/* What a merged GGUF needs: writes all tokenizer.ggml.* keys (from a GGUF's own metadata, which go as they are, or from another file).
 * rows: those of the model's embedding, each of which must have a token; 0: as many as there are tokens. */
peft_status peft__tokenizer_to_gguf(const peft__tokenizer *t, size_t rows, peft__gguf_out *w);
/* What a merged HF folder needs when the base was a GGUF: tokenizer.json and tokenizer_config.json in `dir`. */
peft_status peft__tokenizer_to_hf(const peft__tokenizer *t, const char *dir);

#endif
