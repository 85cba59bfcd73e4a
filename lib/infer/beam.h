/* beam.h - what a beam search is asked for. */
#ifndef PEFT_INFER_BEAM_H
#define PEFT_INFER_BEAM_H

#include "infer/parts.h"

enum { PEFT__BEAMS = 64 }; /* most beams */
enum { PEFT__BEAM_BY_LENGTH = 0, PEFT__BEAM_EARLY = 1, PEFT__BEAM_NEVER = 2 }; /* early_stopping false, true, "never" */

typedef struct peft__beam_spec {
    int64_t beams, keep;       /* keep: continuations that are looked at in a step, at least 2 beams */
    int64_t most;              /* tokens to add at most */
    double length_penalty, repetition_penalty;
    int32_t early;             /* PEFT__BEAM_* */
    const int32_t *prompt;     /* [n], for the penalty */
    int64_t n;
    int32_t first, last;  /* the token that every text begins with, that it has at the greatest length; -1: any */
    bool (*ends)(void *user, int32_t id); /* ends this token a text? */
    void *user;
} peft__beam_spec;

/* The best continuation of the row that was just read: its logits are in s->logits. Pushes ids to out. */
peft_status peft__beam_search(struct peft_session *s, const peft__beam_spec *spec, peft__vec *out);

#endif
