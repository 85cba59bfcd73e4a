/* parts.h - what the files of text/ share: the inside of a tokenizer, Unicode classes, the pre-tokenizer, merging.
 *
 * Nobody outside text/ includes this header. */
#ifndef PEFT_TEXT_PARTS_H
#define PEFT_TEXT_PARTS_H

#include "text/text.h"

/* ---- aligned.c: a text that knows which bytes of the text as given each of its bytes comes from ------------------- */

typedef struct peft__place { /* bytes of the text as given */
    uint32_t from, to;
} peft__place;

typedef struct peft__aligned {
    peft__str text;
    peft__vec places; /* peft__place, one a byte of text; empty unless `placed` */
    bool placed;
} peft__aligned;

void peft__aligned_init(peft__aligned *a, peft__mem *mem, bool placed);
void peft__aligned_free(peft__aligned *a);
void peft__aligned_clear(peft__aligned *a);
peft_status peft__aligned_put(peft__aligned *a, const char *s, size_t len, peft__place place); /* all from one place */
/* s[0..len) as it stands in the text as given from byte `from` on, each character from its own place. */
peft_status peft__aligned_copy(peft__aligned *a, const char *s, size_t len, size_t from);
peft__place peft__aligned_at(const peft__aligned *a, size_t i); /* of byte i; zeros unless placed */

/* ---- unicode.c: more of it in text.h ----------------------------------------------------------------------------- */

bool peft__unicode_is_word(uint32_t cp);             /* \w */
bool peft__unicode_is_punct(uint32_t cp);            /* what BERT splits off: punctuation, and all symbols of ASCII */
bool peft__unicode_is_control(uint32_t cp);          /* what BERT removes; line ends and tabs are spaces */
bool peft__unicode_is_han(uint32_t cp);              /* what BERT puts spaces around */
/* Bytes of the grapheme cluster at the front; right for those of at most five bytes, which are all that is asked for. */
size_t peft__unicode_cluster(const char *s, size_t len);
/* Normal forms D, C, KD, KC (Unicode Standard Annex 15). Bytes that are no UTF-8 pass as they are. */
bool peft__nfc_quick(const char *text, size_t len); /* true: certainly in form C */
peft_status peft__unicode_form(peft__mem *mem, const peft__aligned *in, bool compat, bool compose, peft__aligned *out);

/* ---- charsmap.c: SentencePiece's compiled table of replacements -------------------------------------------------- */

typedef struct peft__charsmap {
    const uint8_t *units; /* [count] little-endian words of a double array; NULL: no map */
    size_t count;
    const char *pool; /* texts, each with a NUL behind it */
    size_t pool_len;
    const uint8_t *blob; /* the whole, as a file has it */
    size_t blob_len;
} peft__charsmap;

peft_status peft__charsmap_read(const uint8_t *blob, size_t len, const char *what, peft__charsmap *out); /* borrows */
peft_status peft__charsmap_base64(peft__arena *a, const char *text, size_t len, const char *what, peft__charsmap *out);
void peft__charsmap_put_base64(const peft__charsmap *map, peft__str *out);
/* The replacement of the front of s: of its longest or shortest stretch that has one. NULL: none. */
const char *peft__charsmap_find(const peft__charsmap *map, const char *s, size_t len, bool longest, size_t *used,
                                size_t *out_len);

/* ---- normalise.c ------------------------------------------------------------------------------------------------- */

enum {                      /* what a step does; flags: */
       PEFT__NORM_FORM = 1, /* 1: compatibility, 2: composed */
       PEFT__NORM_BERT = 2, /* 1: clean, 2: spaces around Han, 4: strip accents, 8: lower case, 16: accents as 8 says */
       PEFT__NORM_LOWER = 3,
       PEFT__NORM_ACCENTS = 4,
       PEFT__NORM_STRIP = 5,    /* 1: left, 2: right */
       PEFT__NORM_REPLACE = 6,  /* what of `from` is looked for: 0: itself, 1: two spaces or more, 2: \s+ */
       PEFT__NORM_CHARSMAP = 7, /* 0: as Hugging Face's tokenizers apply it, 1: as SentencePiece does */
       PEFT__NORM_PREPEND = 8,  /* `to`, unless the text is empty */
       PEFT__NORM_NMT = 9       /* controls are dropped, odd spaces are spaces: SentencePiece's "nmt" rules */
};
typedef struct peft__norm_step {
    int32_t op, flags;
    const char *from, *to; /* of replacements; in the tokenizer's arena */
    size_t from_len, to_len;
} peft__norm_step;

struct peft__tokenizer;
/* Runs t's steps over s[0..len), which stands at byte `base` of the text as given. a, b: scratch; *out is one of them. */
peft_status peft__normalise(const struct peft__tokenizer *t, const char *s, size_t len, size_t base, peft__aligned *a,
                            peft__aligned *b, const peft__aligned **out);
peft_status peft__normalise_add(struct peft__tokenizer *t, int32_t op, int32_t flags);

/* ---- trie.c: the tokens by their bytes --------------------------------------------------------------------------- */

typedef struct peft__trie {
    peft__mem *mem;
    uint32_t *first; /* [count + 1]: children of node i are first[i] .. first[i + 1], by byte */
    int32_t *ids;    /* [count]; -1: no token ends here */
    uint8_t *bytes;  /* [count]: the last byte */
    size_t count;    /* node 0 is the root */
    uint32_t root[256];
} peft__trie;
enum { PEFT__TRIE_NONE = 0 }; /* the root is nobody's child */
peft_status
peft__trie_build(struct peft__tokenizer *t); /* of normal tokens, and of the user's where they stay inside */
void peft__trie_free(peft__trie *trie);
uint32_t peft__trie_child(const peft__trie *trie, uint32_t node, uint8_t byte); /* PEFT__TRIE_NONE: there is none */

/* ---- pretok.c: splitting into words -------------------------------------------------------------------------- */

enum { /* one rule; `max` of the stage is the longest run of DIGITS (0: any) */
       PEFT__SPLIT_GPT2 = 1,
       PEFT__SPLIT_LLAMA3 = 2, /* `max`: digits in a number */
       PEFT__SPLIT_DIGITS = 3,
       PEFT__SPLIT_PUNCT = 4,  /* `max` 1: the grave accent is punctuation too */
       PEFT__SPLIT_TRIPLE = 5, /* every three ASCII digits */
       PEFT__SPLIT_MARK = 6,   /* before each U+2581 */
       PEFT__SPLIT_MARKS = 7,  /* before each run of U+2581 */
       PEFT__SPLIT_BERT = 8,   /* white space is dropped, each punctuation mark is a word */
       PEFT__SPLIT_SPACE = 9,  /* white space is dropped */
       PEFT__SPLIT_WORDS = 10, /* \w+|[^\w\s]+ */
       PEFT__SPLIT_SIGNS = 11  /* BERT's punctuation; `max` 1: each mark is a word, else each run */
};
enum { PEFT__SPLIT_STAGES = 6 };

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
    size_t from, to;                 /* the stages that this walk applies */
    size_t ends[PEFT__SPLIT_STAGES]; /* where the present piece of each stage ends */
} peft__pretok_walk;

void peft__pretok_begin(peft__pretok_walk *w, const peft__pretok *rules, const char *text, size_t len);
bool peft__pretok_next(peft__pretok_walk *w, const char **word, size_t *len); /* false at the end */

typedef struct peft__pretok_named { /* the stages of a GGUF's tokenizer.ggml.pre, and what goes with them */
    const char *name;
    peft__pretok rules;
    bool ignore_merges; /* a whole word that is a token needs no merging */
    bool add_bos;       /* unless the file says otherwise */
    bool nfc;           /* the models of this name normalise to form C, which GGUF has no key for */
} peft__pretok_named;
const peft__pretok_named *peft__pretok_by_name(const char *name); /* NULL: not known */
const char *peft__pretok_name(const peft__pretok *rules);         /* the first GGUF name of these stages; NULL: none */
bool peft__pretok_by_regex(const char *regex, peft__split_stage *out); /* false: not among the known ones */
const char *peft__pretok_regex(const peft__split_stage *stage);        /* NULL: the stage is no regex */
peft_status peft__pretok_add(peft__pretok *p, int32_t rule, int32_t max, const char *what);

/* ---- the tokenizer ------------------------------------------------------------------------------------------- */

enum { /* byte-level BPE; SentencePiece BPE over characters; the longest piece first; the likeliest pieces */
       PEFT__TOK_BYTES = 0,
       PEFT__TOK_SPM = 1,
       PEFT__TOK_WORDPIECE = 2,
       PEFT__TOK_UNIGRAM = 3
};
enum { /* kinds of token, numbered as in GGUF */
       PEFT__TOKEN_NORMAL = 1,
       PEFT__TOKEN_UNKNOWN = 2,
       PEFT__TOKEN_CONTROL = 3,
       PEFT__TOKEN_USER = 4,
       PEFT__TOKEN_UNUSED = 5,
       PEFT__TOKEN_BYTE = 6
};
enum { /* how an added token matches; LATE: in the normalised text */
       PEFT__TOKEN_LSTRIP = 1,
       PEFT__TOKEN_RSTRIP = 2,
       PEFT__TOKEN_WHOLE = 4,
       PEFT__TOKEN_LATE = 8
};
enum { PEFT__PREFIX_NEVER = 0, PEFT__PREFIX_FIRST = 1, PEFT__PREFIX_ALWAYS = 2 }; /* which segments get a space */
enum { PEFT__TOK_AFFIXES = 4, PEFT__TOK_PAIR = 16, PEFT__TOK_MAX = 1 << 24 };
enum { PEFT__PART_FIRST = -1, PEFT__PART_SECOND = -2 }; /* in place of an id in a template */

typedef struct peft__token {
    const char *text;  /* as the vocabulary spells it, no NUL; in the tokenizer's arena or the GGUF mapping */
    const char *bytes; /* what it decodes to; as text */
    uint32_t len;      /* bytes of text */
    uint32_t n_bytes;  /* bytes of bytes */
    float score;       /* SentencePiece: log probability, larger merges first */
    uint8_t type;      /* PEFT__TOKEN_*; 0: no such id */
    uint8_t match;     /* PEFT__TOKEN_LSTRIP ... */
} peft__token;

typedef struct peft__template_item { /* of a pair of texts: a text, or a token beside it */
    int32_t id;                      /* or PEFT__PART_* */
    int32_t type;                    /* token type */
} peft__template_item;

typedef struct peft__added { /* a token that is cut out of a text */
    const char *text;        /* what it is looked for as; in the arena or the file */
    uint32_t len;
    int32_t id;
} peft__added;

typedef struct peft__added_index {
    peft__vec items;  /* peft__added: by first byte, then longest first */
    uint32_t at[257]; /* items[at[b] .. at[b+1]) begin with byte b */
} peft__added_index;

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
    const char *source; /* "gguf", "tokenizer.json", "tokenizer.model", "vocab.json" or "vocab.txt"; static */
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

    peft__trie trie;     /* WordPiece, unigram */
    const char *joint;   /* WordPiece: what a piece inside a word begins with, "##" */
    uint32_t joint_node; /* of the trie; PEFT__TRIE_NONE: no token begins so */
    bool joint_all;      /* joint is empty: pieces inside a word are looked for as those at its start */
    int64_t max_chars;   /* WordPiece: longer words are unknown */
    bool joins, cleans;  /* WordPiece: decoding joins pieces; and takes the space from before a full stop ... */
    double *scores; /* unigram from tokenizer.json: [count], owned, as exact as the file; NULL: those of the tokens */
    double least, most; /* unigram: scores of the unlikeliest and the likeliest normal token */
    bool users_inside;  /* unigram of SentencePiece: the user's tokens are pieces that win, not cut out of the text */

    peft__vec steps; /* peft__norm_step */
    peft__charsmap charsmap;
    peft__pretok pretok;
    size_t late;          /* stages that split before spaces are written as U+2581 and one is put in front */
    const char *pre_name; /* GGUF name of the rules; NULL: none known */
    int32_t prefix;       /* PEFT__PREFIX_* */
    bool prefix_once;     /* no prefix where the text begins with a space already */
    bool strip_first;     /* decoding drops one space at the very start */
    bool strip_marks;     /* and all U+2581 of the first piece */
    bool squeeze;         /* SPM: drop spaces at both ends, one for each run inside */
    bool no_marks;        /* SPM: spaces stay spaces (escape_whitespaces off) */
    bool ignore_merges;   /* a word that is a token is taken whole */
    bool fuse_unk;        /* neighbouring unknown characters give one token */

    int32_t bos, eos, pad, unk, mask;                          /* -1: none */
    bool add_bos, add_eos;                                     /* as the file says; lead and trail are what counts */
    int32_t lead[PEFT__TOK_AFFIXES], trail[PEFT__TOK_AFFIXES]; /* ids put around a text on request */
    size_t n_lead, n_trail;
    peft__template_item pair[PEFT__TOK_PAIR]; /* two texts */
    size_t n_pair;                            /* 0: made of lead and trail */
    bool pair_made;                           /* from lead and trail, as no file says it */
    bool trim;                                /* places of tokens leave the spaces at their ends out */
    bool trim_prefix;                         /* but for the one that was put in front */
    peft__vec eog;                            /* int32_t ids that end generation */
    peft__added_index added;                  /* looked for in the text as given */
    peft__added_index added_late;             /* looked for once it is normalised */

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
    int32_t *ids;                    /* [cap], the symbols of the word, then its tokens */
    peft__place *spans;              /* [cap], bytes of the word; WordPiece and unigram only */
    int32_t *prev, *next;            /* [link_cap] */
    peft__bpe_item *heap;            /* [heap_cap] */
    struct peft__unigram_node *path; /* [path_cap] */
    size_t n, cap, link_cap, heap_len, heap_cap, path_cap;
} peft__bpe_work;
void peft__bpe_init(peft__bpe_work *w, peft__mem *mem);
void peft__bpe_free(peft__bpe_work *w);
peft_status peft__bpe_reserve(peft__bpe_work *w, size_t n);
peft_status peft__bpe_run(const peft__tokenizer *t, peft__bpe_work *w); /* w->ids[0..n) in place */
peft_status peft__bpe_index(peft__tokenizer *t);                        /* merges -> pairs */
peft_status peft__bpe_merges_from_scores(peft__tokenizer *t); /* SentencePiece: pairs of pieces that make a piece */

/* wordpiece.c, unigram.c: a word to w->ids and w->spans [0..n) */
peft_status peft__wordpiece_run(const peft__tokenizer *t, peft__bpe_work *w, const char *s, size_t len);
peft_status peft__wordpiece_finish(peft__tokenizer *t, const char *what);
peft_status peft__unigram_run(const peft__tokenizer *t, peft__bpe_work *w, const char *s, size_t len);
peft_status peft__unigram_finish(peft__tokenizer *t);
void peft__unigram_free(peft__bpe_work *w);

/* added.c: tokens that are cut out of a text before it is encoded */
peft_status peft__added_build(peft__tokenizer *t);
/* The first one in text[from..len): its id, or -1; [*start, *end) is its span with the spaces that it takes with it. */
int32_t peft__added_find(const peft__tokenizer *t, const peft__added_index *index, const char *text, size_t len,
                         size_t from, bool special, size_t *start, size_t *end);
/* The longest of the user's tokens at the front of s; 0: none. */
size_t peft__added_user(const peft__tokenizer *t, const char *s, size_t len);

/* encode.c: a text to ids and, where spans is not NULL, to peft__encoded with part 0 and type 0; flags as in text.h */
peft_status peft__encode_text(const peft__tokenizer *t, const char *text, size_t len, int32_t flags, int32_t word,
                              peft__vec *out, peft__vec *spans);

void peft__tok_pair_template(peft__tokenizer *t); /* pair.c: made of lead and trail unless the file has one */

/* One reader a format */
peft_status peft__tokenizer_open_json(peft__mem *mem, const char *path, const char *dir, peft__tokenizer **out);
peft_status peft__tokenizer_open_gguf(peft__mem *mem, const char *path, peft__tokenizer **out);
peft_status peft__tokenizer_open_spm(peft__mem *mem, const char *path, const char *dir, peft__tokenizer **out);
peft_status peft__tokenizer_open_gpt2(peft__mem *mem, const char *vocab, const char *merges, const char *dir,
                                      peft__tokenizer **out);
peft_status peft__tokenizer_open_bert(peft__mem *mem, const char *path, const char *dir, peft__tokenizer **out);
void peft__tok_bert_template(peft__tokenizer *t, int32_t cls, int32_t sep); /* [CLS] A [SEP] B [SEP]; -1: none */
/* tokenizer_json_norm.c: one normalizer of tokenizer.json to a step */
peft_status peft__tok_json_norm(peft__tokenizer *t, const peft__json *step, const char *what);
peft_status peft__tok_json_refuse(const peft__json *step, const char *stage, const char *what);
const char *peft__tok_json_pattern(const peft__json *step, bool *regex); /* {"String"} or {"Regex"}; NULL: neither */
/* tokenizer_json_post.c: post_processor */
peft_status peft__tok_json_post(peft__tokenizer *t, const peft__json *root, const char *what);
/* tokenizer_json_rules.c: normalizer, pre_tokenizer and decoder of tokenizer.json */
size_t peft__tok_json_steps(const peft__json *node, const char *list,
                            const peft__json **steps);             /* of a Sequence, or one */
bool peft__tok_json_has(const peft__json *node, const char *type); /* the node or one in its sequence is of the type */
peft_status peft__tok_json_rules(peft__tokenizer *t, const peft__json *root, const char *what);
/* companions.c: tokenizer_config.json, special_tokens_map.json, config.json, generation_config.json,
 * chat_template.jinja in a folder; all optional. Call it before peft__tok_finish. */
peft_status peft__tok_companions(peft__tokenizer *t, const char *dir, bool added_tokens);
size_t peft__tok_companion_added(const peft__json *config); /* 1 + largest id of "added_tokens_decoder"; 0: none */

/* export_hf.c: pieces of JSON */
void peft__hf_text(peft__json_out *j, const char *key, const char *text);
void peft__hf_bool(peft__json_out *j, const char *key, bool on);
void peft__hf_begin(peft__json_out *j, const char *type); /* opens an object of the type */
void peft__hf_token(const peft__tokenizer *t, peft__json_out *j, int32_t id);
void peft__hf_token_key(const peft__tokenizer *t, peft__json_out *j, int32_t id, peft__str *scratch);
/* export_hf_rules.c: the pipeline around the model */
void peft__export_hf_rules(const peft__tokenizer *t, peft__json_out *j, peft__str *scratch);

/* Ids that the folder's configuration needs beside those of a SentencePiece model. */
peft_status peft__tok_companion_room(peft__arena *a, const char *dir, size_t pieces, bool unigram, size_t *count);
/* families.c: what the class of the tokenizer, or the kind of the model, says where the tokenizer's own file does not */
peft_status peft__tok_family(peft__tokenizer *t, const peft__json *config, const peft__json *model);
size_t peft__tok_family_extra(const peft__json *config, const peft__json *model); /* tokens put behind the pieces */

void peft__chat_recognise(peft__tokenizer *t); /* chat.c: sets chat_format */
peft_status peft__chat_default_system(peft__tokenizer *t);

#endif
