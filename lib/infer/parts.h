/* parts.h - between the files of this folder: one pass of a session. */
#ifndef PEFT_INFER_PARTS_H
#define PEFT_INFER_PARTS_H

#include "infer/infer.h"

void peft__session_unplan(struct peft_session *s);
peft_status peft__session_plan(struct peft_session *s); /* plan and memory, at the first use */
peft_status peft__session_check_ids(const struct peft_session *s, const int32_t *ids, size_t n);
/* PEFT_E_SHAPE where gates would not see a row of n tokens as a whole. */
peft_status peft__session_check_whole(const struct peft_session *s, int64_t n);
/* The next n tokens (at most `chunk`) of the cached row, after the plan was made; logits of the last n_logits of them. */
peft_status peft__session_advance(struct peft_session *s, const int32_t *ids, int64_t n, float *logits,
                                  int64_t n_logits);
/* One token each for n rows (at most 64) of the cache, all of one length; logits [n, vocab]. */
peft_status peft__session_advance_rows(struct peft_session *s, const int32_t *ids, const int32_t *slots, int64_t n, float *logits);
peft_status peft__session_cache_rows(struct peft_session *s, int64_t rows); /* room for so many rows of the same length */
void peft__session_cache_copy(struct peft_session *s, int32_t from, int32_t to); /* a row of the cache to another */
void peft__session_rewind(struct peft_session *s);    /* the cached rows begin anew */
void peft__session_row_begins(struct peft_session *s, int64_t n); /* the same, for a row of n tokens that comes in parts; n 0:
                                                                      it is there */
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
/* In the first pass of the cached row: the encoder reads s->source. */
peft_status peft__session_source_begins(struct peft_session *s, peft__frame *f);
peft_status peft__session_cross_grow(struct peft_session *s, int64_t rows, int64_t tokens); /* tokens 0: as there were */
void peft__session_cross_copy(struct peft_session *s, int32_t from, int32_t to);
void peft__session_cross_rewind(struct peft_session *s);
void peft__session_cross_free(struct peft_session *s);

bool peft__session_cancelled(struct peft_session *s); /* was asked to end; asking forgets it */

#endif
