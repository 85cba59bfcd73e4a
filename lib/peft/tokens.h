/* tokens.h - trained rows of single tokens: tokens.c has the functions, trainable_tokens.c the method that is nothing else;
 * methods with the option trainable_token_indices have them besides. */
#ifndef PEFT_TOKENS_H
#define PEFT_TOKENS_H

#include "peft/method.h"

enum { PEFT__SLOT_TOKENS = 110 }; /* of the rows, at each site */

/* Rows [n, C] that stand in for those of `ids` in the matrix of a site. */
typedef struct peft__token_rows {
    const peft__site *site;      /* NULL: the base has none */
    int32_t *ids;                /* in the adapter's arena */
    int64_t n;                   /* 0: none */
} peft__token_rows;

/* What an adapter trains of tokens: peft__adapter.tokens. */
typedef struct peft__tokens {
    peft__token_rows table, head;
    bool shared;                 /* the head is tied and uses the table's rows; head.n is 0 then */
    bool twin;                   /* files have shared rows under the head's name as well */
    const char *wrapper;         /* between path and "trainable_tokens_delta" in keys of files */
} peft__tokens;

enum { PEFT__TOKENS_TABLE = 1, PEFT__TOKENS_HEAD = 2 };

/* Options of methods that have tokens besides. */
#define PEFT__TOKENS_OPTIONS                                                                                                 \
    {"trainable_token_indices", PEFT__OPT_LISTS, "", 1, 0, NULL,                                                             \
     "ids of tokens whose embeddings are trained too: a list, or lists by module such as {\"embed_tokens\": [3, 5]}"},       \
    PEFT__NEW_TOKENS_OPTION
#define PEFT__NEW_TOKENS_OPTION                                                                                              \
    {"num_new_tokens", PEFT__OPT_INT, "0", 0, 1 << 20, NULL, "tokens after the base's vocabulary that exist with this adapter"}

/* First in build: reads the option `key` (a list is for the sites of `sites`: PEFT__TOKENS_*) and num_new_tokens, checks them,
 * and writes them back complete. a->tokens stays NULL where nothing is asked for. */
peft_status peft__tokens_resolve(peft__adapter *a, const char *key, uint32_t sites, const char *wrapper);
/* What s has of it, after all other parameters of s. */
peft_status peft__tokens_add(peft__adapter *a, const peft__site *s);
/* Is parameter i one of these rows? Then it gets the base's (normal: N(0, 1), as init_weights=false means). */
bool peft__tokens_init(const peft__adapter *a, size_t i, bool normal, peft__rng *rng, const peft__kernels *k);
/* In settle: rows of new tokens; normal: left as they are. */
peft_status peft__tokens_settle(peft__adapter *a, bool normal, const peft__kernels *k);
peft__val peft__tokens_embed(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val y,
                             double scale);
/* Before whatever else changes spec. */
peft__val peft__tokens_head(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val x,
                            peft__head_spec *spec);
/* Rows of weight [rows of the base + a->new_tokens, C]; at->strength must be 1. */
peft_status peft__tokens_merge(const peft__adapter *a, const peft__attachment *at, peft__real *weight);

/* Shared rows under the head's name in files, whether or not this adapter's have them; rows 0: nothing is shared. */
peft_status peft__tokens_twin(const peft__adapter *a, peft__arena *arena, peft__param *out);

#endif
