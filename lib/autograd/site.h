/* site.h - where models and methods meet: the places of an architecture at which an adapter may act.
 *
 * A model lists its sites when it is opened and calls them as it records itself; a method says which sites it takes and
 * appends ops there. Neither includes the other's headers. */
#ifndef PEFT_SITE_H
#define PEFT_SITE_H

#include "autograd/autograd.h"

enum { /* kinds of sites */
    PEFT__SITE_LINEAR = 0, /* a projection */
    PEFT__SITE_STREAM = 1, /* hidden state after attention or FFN, before it is added to the residual stream */
    PEFT__SITE_KV = 2,     /* keys and values of one attention */
    PEFT__SITE_INPUT = 3,  /* embeddings on their way into the first layer */
    PEFT__SITE_NORM = 4,   /* a norm's gain and shift */
    PEFT__SITE_EMBED = 5,  /* a table of embeddings (tokens, positions) */
    PEFT__SITE_HEAD = 6    /* the output projection */
};

enum { /* roles: what a site is in any transformer, so that methods can speak of "the query projection" */
    PEFT__ROLE_NONE = 0, PEFT__ROLE_Q = 1, PEFT__ROLE_K = 2, PEFT__ROLE_V = 3, PEFT__ROLE_QKV = 4, PEFT__ROLE_O = 5,
    PEFT__ROLE_GATE = 6, PEFT__ROLE_UP = 7, PEFT__ROLE_DOWN = 8, PEFT__ROLE_ATTN = 9, PEFT__ROLE_FFN = 10,
    PEFT__ROLE_TOKENS = 11, PEFT__ROLE_POSITIONS = 12, PEFT__ROLE_FINAL = 13, PEFT__ROLE_TYPES = 14, PEFT__ROLE_BIAS = 15
};

enum { /* parts of an encoder-decoder model */
    PEFT__PART_DECODER = 0, /* or the whole of another model; outside the layers: what both share */
    PEFT__PART_ENCODER = 1,
    PEFT__PART_CROSS = 2    /* the decoder's attention to the encoder */
};

typedef struct peft__site {
    int32_t id;                  /* position in the model's list */
    int32_t kind, role;          /* PEFT__SITE_*, PEFT__ROLE_* */
    int32_t layer;               /* -1: outside the layers; the decoder's follow the encoder's */
    int32_t part;                /* PEFT__PART_* */
    const char *path;            /* Hugging Face module path: "model.layers.0.self_attn.q_proj" */
    int64_t in, out;             /* LINEAR, HEAD: in, out; NORM, STREAM: both the width; EMBED: rows, width; KV: kv width */
    const peft__weight *weight;  /* LINEAR, HEAD, EMBED: the matrix; NORM: the gain as [1, n]; else NULL */
    const peft__weight *bias;    /* [1, out], or NULL; NORM: the shift */
    const peft__real *bias_data, *norm_gain; /* the vectors as reals, owned by the model; NULL: none */
    double eps;                  /* NORM */
    bool rms;                    /* NORM: RMSNorm, else LayerNorm */
    int64_t head_dim;            /* NORM: each head of so many columns is normed by itself; 0: the whole row */
    double plus;                 /* NORM: the gain is `weight` and this (Gemma: 1); it is in norm_gain */
    bool conv1d;                 /* stored [in][out]: what HF calls fan_in_fan_out */
    int64_t heads;               /* QKV: its columns are q, k and v of each of so many heads, one head after the other; 0: all of
                                    q, then all of k, then all of v */
    double row_scale;            /* EMBED: what a row is multiplied by before the INPUT site; 0: nothing */
    const struct peft__site *norm; /* STREAM: the norm of residual + h that follows (post-norm layers: BERT); NULL: none */
    int32_t tied_to;             /* HEAD: id of the EMBED site whose matrix it is; -1 */
} peft__site;

/* What acts at the sites of a tape, in place of the base ops. Written once, by peft/compose.c. Every function returns the
 * site's result; a NULL entry means the base op. */
typedef struct peft__hooks {
    void *user;
    peft__val (*linear)(void *user, peft__tape *t, const peft__site *s, peft__val x);
    peft__val (*stream)(void *user, peft__tape *t, const peft__site *s, peft__val h, peft__val residual);
    void (*kv)(void *user, peft__tape *t, const peft__site *s, peft__val x, peft__past *past);
    peft__val (*input)(void *user, peft__tape *t, const peft__site *s, peft__val x);
    peft__val (*norm)(void *user, peft__tape *t, const peft__site *s, peft__val x);
    /* x: what positions are added to, with `scale` their offset, or types; NONE for tokens, with `scale` the factor of the rows */
    peft__val (*embed)(void *user, peft__tape *t, const peft__site *s, peft__val x, double scale);
    /* trained copy of a table of biases by relative position, or NONE */
    int32_t (*bias)(void *user, peft__tape *t, const peft__site *s);
    /* how many groups of rows have a head of their own; 1: one for all */
    int32_t (*heads)(void *user, const peft__site *s);
    /* may change spec, for rows of the tape's group; returns what the head reads */
    peft__val (*head)(void *user, peft__tape *t, const peft__site *s, peft__val x, peft__head_spec *spec);
} peft__hooks;

/* Called by architectures. */
peft__val peft__site_linear(peft__tape *t, const peft__site *s, peft__val x);
peft__val peft__site_stream(peft__tape *t, const peft__site *s, peft__val h, peft__val residual);
peft__past peft__site_kv(peft__tape *t, const peft__site *s, peft__val x); /* x: what the layer's q, k and v are made of */
peft__val peft__site_input(peft__tape *t, const peft__site *s, peft__val x);   /* [INPUT, C] -> [TOKENS, C] */
peft__val peft__site_norm(peft__tape *t, const peft__site *s, peft__val x);
peft__val peft__site_embed(peft__tape *t, const peft__site *s, double scale);  /* -> [INPUT, C] */
peft__val peft__site_positions(peft__tape *t, const peft__site *s, peft__val x, int64_t offset);
peft__val peft__site_types(peft__tape *t, const peft__site *s, peft__val x);   /* token types added to x */
int32_t peft__site_bias(peft__tape *t, const peft__site *s);                   /* which parameter the table is; NONE: its weight */
/* Outputs of a head that is not over the vocabulary: [ROWS or TOKENS, out]. */
peft__val peft__site_outputs(peft__tape *t, const peft__site *s, peft__val x);
void peft__site_head(peft__tape *t, const peft__site *s, peft__val x, double softcap, double scale);

/* The base ops of each kind, for hooks that add to them or train their weights (param or PEFT__NONE). */
peft__val peft__base_linear(peft__tape *t, const peft__site *s, peft__val x, int32_t w_param, int32_t b_param);
peft__val peft__base_norm(peft__tape *t, const peft__site *s, peft__val x, int32_t w_param, int32_t b_param);
peft__val peft__base_embed(peft__tape *t, const peft__site *s, int32_t w_param, double scale);
peft__val peft__base_positions(peft__tape *t, const peft__site *s, peft__val x, int32_t w_param, int64_t offset);
peft__val peft__base_types(peft__tape *t, const peft__site *s, peft__val x, int32_t w_param);

#endif
