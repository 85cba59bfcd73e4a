/* emit.h - what the caller gets of each token: its id and the text that it completes. */
#ifndef PEFT_INFER_EMIT_H
#define PEFT_INFER_EMIT_H

#include "infer/infer.h"

typedef struct peft__emit {
    peft_token_fn fn; /* NULL: none */
    void *user;
    peft__vec *ids;          /* new ids are pushed here; NULL: not wanted */
    peft__str *text;         /* all text so far; NULL: no tokenizer */
    const peft__json *stops; /* array of strings, each not empty, in the caller's arena; NULL: none */
    peft__detok detok;
    size_t sent;  /* bytes of text that the callback has had */
    bool stopped; /* a stop string came: the text is cut before it */
} peft__emit;

/* "stop" of a set of schema "generate": a text or an array of texts. */
peft_status peft__emit_stops(peft__arena *a, const peft__optset *opts, const peft__json **out);
/* Hands out a token. silent: its text is none (an end of sequence). last: nothing comes after it, so nothing is held back. */
peft_status peft__emit_token(peft__emit *e, int32_t id, bool silent, bool last);

#endif
