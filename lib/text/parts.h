/* parts.h - what the files of text/ share: the inside of a tokenizer, Unicode classes, the pre-tokenizer, merging.
 *
 * Nobody outside text/ includes this header. */
#ifndef PEFT_TEXT_PARTS_H
#define PEFT_TEXT_PARTS_H

#include "text/text.h"

/* ---- unicode.c, nfc.c --------------------------------------------------------------------------------------- */

enum { /* classes that the splitting rules tell apart; each code point has one */
       PEFT__UNI_OTHER = 0,
       PEFT__UNI_LETTER = 1,
       PEFT__UNI_NUMBER = 2,
       PEFT__UNI_SPACE = 3,
       PEFT__UNI_PUNCT = 4
};
int32_t peft__unicode_class(uint32_t cp); /* \p{L}, \p{N}, \s, \p{P} or none of these */
/* Normal form C (Unicode Standard Annex 15). Bytes that are no UTF-8 pass as they are. */
bool peft__nfc_quick(const char *text, size_t len); /* true: certainly unchanged by peft__nfc */
peft_status peft__nfc(peft__mem *mem, const char *text, size_t len, peft__str *out);

/* ---- pretok.c: splitting into words -------------------------------------------------------------------------- */

enum { /* one rule; `max` of the stage is the longest run of DIGITS (0: any) */
       PEFT__SPLIT_GPT2 = 1,
       PEFT__SPLIT_LLAMA3 = 2, /* `max`: digits in a number */
       PEFT__SPLIT_DIGITS = 3,
       PEFT__SPLIT_PUNCT = 4,  /* `max` 1: the grave accent is punctuation too */
       PEFT__SPLIT_TRIPLE = 5, /* every three ASCII digits */
       PEFT__SPLIT_MARK = 6,   /* before each U+2581 */
       PEFT__SPLIT_MARKS = 7   /* before each run of U+2581 */
};
enum { PEFT__SPLIT_STAGES = 4 };

typedef struct peft__split_stage {
    int32_t rule; /* PEFT__SPLIT_* */
    int32_t max;
} peft__split_stage;

/* Each stage splits the pieces of the one before it. No stage: the text is one word. */
typedef struct peft__pretok {
    peft__split_stage stages[PEFT__SPLIT_STAGES];
    size_t count;
} peft__pretok;

typedef struct peft__pretok_walk {
    const peft__pretok *rules; /* borrowed */
    const char *text;          /* borrowed */
    size_t len, pos;
    size_t ends[PEFT__SPLIT_STAGES]; /* where the present piece of each stage ends */
} peft__pretok_walk;

void peft__pretok_begin(peft__pretok_walk *w, const peft__pretok *rules, const char *text, size_t len);
bool peft__pretok_next(peft__pretok_walk *w, const char **word, size_t *len); /* false at the end */

/* The stages of a GGUF's tokenizer.ggml.pre; false for an unknown name. ignore_merges, add_bos: what goes with it. */
bool peft__pretok_by_name(const char *name, peft__pretok *out, bool *ignore_merges, bool *add_bos);
const char *peft__pretok_name(const peft__pretok *rules); /* the first GGUF name of these stages; NULL: none */
bool peft__pretok_by_regex(const char *regex, peft__split_stage *out); /* false: not among the known ones */
const char *peft__pretok_regex(const peft__split_stage *stage);        /* NULL: the stage is no regex */
peft_status peft__pretok_add(peft__pretok *p, int32_t rule, int32_t max, const char *what);

/* ---- the tokenizer ------------------------------------------------------------------------------------------- */

enum { PEFT__TOK_BYTES = 0, PEFT__TOK_SPM = 1 }; /* byte-level BPE; SentencePiece BPE over characters */
enum {                                           /* kinds of token, numbered as in GGUF */
       PEFT__TOKEN_NORMAL = 1,
       PEFT__TOKEN_UNKNOWN = 2,
       PEFT__TOKEN_CONTROL = 3,
       PEFT__TOKEN_USER = 4,
       PEFT__TOKEN_UNUSED = 5,
       PEFT__TOKEN_BYTE = 6
};
enum { PEFT__TOKEN_LSTRIP = 1, PEFT__TOKEN_RSTRIP = 2, PEFT__TOKEN_WHOLE = 4 };   /* how an added token matches */
enum { PEFT__PREFIX_NEVER = 0, PEFT__PREFIX_FIRST = 1, PEFT__PREFIX_ALWAYS = 2 }; /* which segments get a space */
enum { PEFT__TOK_AFFIXES = 4, PEFT__TOK_MAX = 1 << 24 };

typedef struct peft__token {
    const char *text;  /* as the vocabulary spells it, no NUL; in the tokenizer's arena or the GGUF mapping */
    const char *bytes; /* what it decodes to; as text */
    uint32_t len;      /* bytes of text */
    uint32_t n_bytes;  /* bytes of bytes */
    float score;       /* SentencePiece: log probability, larger merges first */
    uint8_t type;      /* PEFT__TOKEN_*; 0: no such id */
    uint8_t match;     /* PEFT__TOKEN_LSTRIP ... */
} peft__token;

typedef struct peft__merge {
    int32_t left, right, result; /* ids */
    int32_t rank;                /* smaller merges first; equal ranks from left to right */
} peft__merge;

typedef struct peft__pair { /* slot of the open-addressed table of merges */
    uint64_t key;           /* left << 32 | right; UINT64_MAX: free */
    int32_t rank, result;
} peft__pair;

struct peft__tokenizer {
    peft__mem *mem;    /* borrowed */
    peft__arena arena; /* owns texts */
    peft__gguf gguf;   /* the file it came from, kept open for its texts and for to_gguf */
    bool from_gguf;
    const char *source; /* "gguf", "tokenizer.json", "tokenizer.model" or "vocab.json"; static */
    int32_t kind;       /* PEFT__TOK_* */

    peft__token *tokens; /* [count], owned */
    size_t count;
    peft__map index;   /* text -> id */
    peft__vec merges;  /* peft__merge in order of rank */
    peft__pair *pairs; /* [pair_cap], owned; pair_cap a power of two */
    size_t pair_cap;
    int32_t byte_ids[256];  /* token of each byte; -1: none */
    int32_t ascii_ids[128]; /* SPM: token of each ASCII character; -1: none */
    bool cut_at_marks;      /* SPM: no token has U+2581 after another character */

    peft__pretok pretok;
    const char *pre_name; /* GGUF name of the rules; NULL: none known */
    int32_t prefix;       /* PEFT__PREFIX_* */
    bool prefix_once;     /* no prefix where the text begins with a space already */
    bool strip_first;     /* decoding drops one space at the very start */
    bool nfc;             /* normalise to NFC first */
    bool squeeze;         /* SPM: drop spaces at both ends, one for each run inside */
    bool no_marks;        /* SPM: spaces stay spaces (escape_whitespaces off) */
    bool ignore_merges;   /* a word that is a token is taken whole */
    bool fuse_unk;        /* neighbouring unknown characters give one token */

    int32_t bos, eos, pad, unk;                                /* -1: none */
    bool add_bos, add_eos;                                     /* as the file says; lead and trail are what counts */
    int32_t lead[PEFT__TOK_AFFIXES], trail[PEFT__TOK_AFFIXES]; /* ids put around a text on request */
    size_t n_lead, n_trail;
    peft__vec eog;          /* int32_t ids that end generation */
    peft__vec added;        /* int32_t ids cut out of the text: by first byte, then longest first */
    uint32_t added_at[257]; /* added[added_at[b] .. added_at[b+1]) begin with byte b */

    const char *chat_template; /* NULL: none; NUL-terminated, in the arena */
    int32_t chat_format;       /* chat.c's number; -1: not recognised */
    const char *chat_system;   /* system prompt that the template inserts by itself; NULL: none */
};

/* vocab.c: building one */
peft_status peft__tok_create(peft__mem *mem, int32_t kind, const char *source, peft__tokenizer **out);
peft_status peft__tok_reserve(peft__tokenizer *t, size_t count, const char *what); /* ids below count may be set */
/* Sets a token; text is borrowed. A text seen before keeps its first id. */
peft_status peft__tok_set(peft__tokenizer *t, size_t id, const char *text, size_t len, int32_t type, float score);
peft_status peft__tok_merge(peft__tokenizer *t, const char *left, size_t left_len, const char *right, size_t right_len,
                            const char *what); /* the next rank */
peft_status peft__tok_merge_line(peft__tokenizer *t, const char *line, size_t len, const char *what); /* "left right" */
peft_status peft__tok_finish(peft__tokenizer *t, const char *what); /* tables, decoded bytes, ends of generation */
peft_status peft__tok_add_eog(peft__tokenizer *t, int32_t id);
uint32_t peft__tok_byte_char(uint32_t byte); /* GPT-2's alphabet: the character that stands for a byte */
int32_t peft__tok_char_byte(uint32_t cp);    /* and back; -1: not in the alphabet */

/* bpe.c: merging */
enum { PEFT__BPE_SHORT = 48 }; /* symbols of a word up to which a scan beats a heap */
typedef struct peft__bpe_item {
    int32_t rank, pos, left, right;
} peft__bpe_item;
typedef struct peft__bpe_work { /* scratch of one call */
    peft__mem *mem;
    int32_t *ids;         /* [cap], the symbols of the word, then its tokens */
    int32_t *prev, *next; /* [link_cap] */
    peft__bpe_item *heap; /* [heap_cap] */
    size_t n, cap, link_cap, heap_len, heap_cap;
} peft__bpe_work;
void peft__bpe_init(peft__bpe_work *w, peft__mem *mem);
void peft__bpe_free(peft__bpe_work *w);
peft_status peft__bpe_reserve(peft__bpe_work *w, size_t n);
peft_status peft__bpe_run(const peft__tokenizer *t, peft__bpe_work *w); /* w->ids[0..n) in place */
peft_status peft__bpe_index(peft__tokenizer *t);                        /* merges -> pairs */
peft_status peft__bpe_merges_from_scores(peft__tokenizer *t); /* SentencePiece: pairs of pieces that make a piece */

/* One reader a format */
peft_status peft__tokenizer_open_json(peft__mem *mem, const char *path, const char *dir, peft__tokenizer **out);
peft_status peft__tokenizer_open_gguf(peft__mem *mem, const char *path, peft__tokenizer **out);
peft_status peft__tokenizer_open_spm(peft__mem *mem, const char *path, const char *dir, peft__tokenizer **out);
peft_status peft__tokenizer_open_gpt2(peft__mem *mem, const char *vocab, const char *merges, const char *dir,
                                      peft__tokenizer **out);
/* tokenizer_json_rules.c: normalizer, pre_tokenizer, post_processor and decoder of tokenizer.json */
bool peft__tok_json_has(const peft__json *node, const char *type); /* the node or one in its sequence is of the type */
peft_status peft__tok_json_rules(peft__tokenizer *t, const peft__json *root, const char *what);
peft_status peft__tok_json_affixes(peft__tokenizer *t, const peft__json *root, const char *what);
/* companions.c: tokenizer_config.json, special_tokens_map.json, config.json, generation_config.json,
 * chat_template.jinja in a folder; all optional. Call it before peft__tok_finish. */
peft_status peft__tok_companions(peft__tokenizer *t, const char *dir, bool added_tokens);
size_t peft__tok_companion_added(const peft__json *config); /* 1 + largest id of "added_tokens_decoder"; 0: none */

void peft__chat_recognise(peft__tokenizer *t); /* chat.c: sets chat_format */
peft_status peft__chat_default_system(peft__tokenizer *t);

#endif
