/* generation.h - one text that is continued: what is asked for, what there is of it, what comes next. Its tokens go through the
 * model elsewhere: one row at a time (generate.c), or with others (rows.c). */
#ifndef PEFT_INFER_GENERATION_H
#define PEFT_INFER_GENERATION_H

#include "infer/emit.h"
#include "infer/parts.h"

typedef struct peft__generation {
    struct peft_session *s;         /* borrowed */
    int32_t group;                  /* of the session's: which branch of its expression the row takes */
    int64_t vocab;                  /* ids that the row has: the model's, and those that its branch adds */
    float *logits;                  /* borrowed, [vocab] at least: where the last pass put them */
    const struct peft_tokenizer *t; /* NULL: none */
    struct peft_tokenizer *kept;    /* the same, retained, where it must outlive the call */
    peft__emit emit;
    peft__str own;     /* the text, when the caller has no place for it */
    peft__sampler sampler;
    peft__vec history; /* int32_t: prompt and new ids, for the penalty */
    peft__arena arena; /* owns the stop strings */
    void *work;        /* owned: the sampler's; NULL: it takes the likeliest */
    size_t work_bytes;
    int64_t left;      /* tokens that may still be added */
    int32_t last;      /* the token chosen last, which the model has not seen yet; -1: none */
    bool ignore_eos, ended;
    bool source;       /* the prompt is what an encoder reads; the text begins with the decoder's first token */
    int32_t start;     /* that token */
    int64_t beams;
    peft__vec found;   /* int32_t: what the beams found */
    size_t taken;      /* of it, handed out */
    bool held;         /* pulled: `last` and the text from `from` on are still to be handed out */
    size_t from;       /* in emit.text */
} peft__generation;

/* text: NULL for its own; stays as it is with t NULL. */
void peft__generation_init(peft__generation *g, struct peft_session *s, const struct peft_tokenizer *t, peft__str *text);
void peft__generation_free(peft__generation *g);
/* Options of schema "generate", and what can be said of the prompt before the model reads it. */
peft_status peft__generation_begin(peft__generation *g, const int32_t *ids, size_t n, const peft__optset *o);
/* Chooses by g->logits, which it overwrites, and hands the token out: g->last, g->ended. */
peft_status peft__generation_take(peft__generation *g);

#endif
