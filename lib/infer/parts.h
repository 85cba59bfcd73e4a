/* parts.h - between the files of this folder: one pass of a session. */
#ifndef PEFT_INFER_PARTS_H
#define PEFT_INFER_PARTS_H

#include "infer/infer.h"

void peft__session_unplan(struct peft_session *s);
peft_status peft__session_plan(struct peft_session *s); /* plan and memory, at the first use */
peft_status peft__session_check_ids(const int32_t *ids, size_t n, int64_t vocab);
/* PEFT_E_SHAPE where gates would not see a row of n tokens as a whole. */
peft_status peft__session_check_whole(const struct peft_session *s, int64_t n);
int64_t peft__session_max_rows(const struct peft_session *s); /* of a pass */
/* Of row r of a batch that names tasks; the option's otherwise (r -1: in any case). */
int32_t peft__session_task(const struct peft_session *s, int64_t r);
int64_t peft__session_taken(const struct peft_session *s, int32_t group); /* positions that the adapters take of a row of the group */
/* Most tokens of a row of a group. */
peft_status peft__session_limit(const struct peft_session *s, int32_t group, int64_t *most);
/* Records the session anew for rows that divide among these expressions, [n] of at least 1; what is cached of them stays. On failure
 * it is as before. */
peft_status peft__session_set_branches(struct peft_session *s, const peft__expression *const *of, size_t n);

/* ---- pass.c ---- */

typedef struct peft__pass { /* rows that all begin, or all go on; all borrowed */
    const int32_t *ids;     /* [in[n_rows]] */
    const int64_t *in;      /* [n_rows + 1] offsets */
    const int32_t *slots;   /* [n_rows] rows of the cache */
    const int32_t *groups, *tasks; /* [n_rows] */
    int64_t n_rows;         /* at most PEFT__SESSION_ROWS; 1 for rows of an encoder-decoder that begin */
} peft__pass;
/* After the plan was made. Logits of the last n_logits tokens of each row, one after the other. */
peft_status peft__session_pass(struct peft_session *s, const peft__pass *p, float *logits, int64_t n_logits);
/* The next n tokens (at most `chunk`) of the cached row, after the plan was made; logits of the last n_logits of them. */
peft_status peft__session_advance(struct peft_session *s, const int32_t *ids, int64_t n, float *logits,
                                  int64_t n_logits);
/* One token each for n rows (at most 64) of the cache; logits [n, vocab]. */
peft_status peft__session_advance_rows(struct peft_session *s, const int32_t *ids, const int32_t *slots, int64_t n, float *logits);
void peft__session_row_begins(struct peft_session *s, int64_t n); /* the cached row is of n tokens and comes in parts; n 0: it is there */

/* ---- cache.c ---- */

peft_status peft__session_cache_grow(struct peft_session *s, int64_t rows, int64_t need); /* room for `need` positions of so many rows */
peft_status peft__session_cache_rows(struct peft_session *s, int64_t rows); /* room for so many rows of the same length */
void peft__session_cache_copy(struct peft_session *s, int32_t from, int32_t to); /* a row of the cache to another */
void peft__session_cache_share(struct peft_session *s, int32_t from, int32_t to, int64_t n); /* its first n positions */
void peft__session_rewind(struct peft_session *s);    /* the cached rows begin anew */
void peft__session_cache_free(struct peft_session *s);

/* ---- source.c ---- */

bool peft__session_has_source(const struct peft_session *s); /* is the model an encoder-decoder? */
/* Room for passes with so many tokens for the encoder; before peft__session_plan. */
peft_status peft__session_source_need(struct peft_session *s, int64_t tokens);
void peft__session_source_free(struct peft_session *s);
peft_status peft__session_check_source(const struct peft_session *s, int64_t row, int64_t n); /* PEFT_E_SHAPE: too long */
/* The frame's rows read ids of these offsets, which need not begin with 0. */
void peft__session_source_rows(struct peft_session *s, peft__frame *f, const int32_t *ids, const int64_t *offsets,
                               const int32_t *groups);
/* Room for a batch's rows, which are checked; rows [first, end) of it fit a pass; row r is the cached one. */
peft_status peft__session_source_prepare(struct peft_session *s, const peft__session_rows *rows);
bool peft__session_source_fits(const struct peft_session *s, size_t first, size_t end);
void peft__session_source_is(struct peft_session *s, size_t r);
/* In the first pass of a row: the encoder reads s->source. */
peft_status peft__session_source_begins(struct peft_session *s, peft__frame *f, int32_t slot);
peft_status peft__session_cross_grow(struct peft_session *s, int64_t rows, int64_t tokens); /* tokens 0: as there were */
void peft__session_cross_copy(struct peft_session *s, int32_t from, int32_t to);
void peft__session_cross_rewind(struct peft_session *s);
void peft__session_cross_free(struct peft_session *s);

bool peft__session_cancelled(struct peft_session *s); /* was asked to end; asking forgets it */

#endif
