/* parts.h - between the files of this folder: one pass of a session. */
#ifndef PEFT_INFER_PARTS_H
#define PEFT_INFER_PARTS_H

#include "infer/infer.h"

peft_status peft__session_plan(struct peft_session *s); /* plan and memory, at the first use */
peft_status peft__session_check_ids(const struct peft_session *s, const int32_t *ids, size_t n);
/* PEFT_E_SHAPE where gates would not see a row of n tokens as a whole. */
peft_status peft__session_check_whole(const struct peft_session *s, int64_t n);
/* The next n tokens (at most `chunk`) of the cached row, after the plan was made; logits of the last n_logits of them. */
peft_status peft__session_advance(struct peft_session *s, const int32_t *ids, int64_t n, float *logits,
                                  int64_t n_logits);
void peft__session_rewind(struct peft_session *s);    /* the cached row begins anew */
bool peft__session_cancelled(struct peft_session *s); /* was asked to end; asking forgets it */

#endif
