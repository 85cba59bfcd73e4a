/* task.h - what a model is asked for: which head it has, what its rows are labelled with, which loss is taken.
 *
 * Models know it from config.json or from the caller, adapters write it into their files, data sets make rows for it. */
#ifndef PEFT_TASK_H
#define PEFT_TASK_H

#include "base/base.h"

enum { /* PEFT__TASK_*: names are those of the option "task" */
    PEFT__TASK_CAUSAL_LM = 0,  /* the next token: labels of tokens, shifted */
    PEFT__TASK_MASKED_LM = 1,  /* the token that stood here */
    PEFT__TASK_SEQ2SEQ_LM = 2, /* a second row's next token, given the first */
    PEFT__TASK_SEQUENCE = 3,   /* sequence_classification: a label, several or numbers of a row */
    PEFT__TASK_TOKENS = 4,     /* token_classification: a label of each token */
    PEFT__TASK_SPAN = 5,       /* question_answering: where in the row the answer begins and ends */
    PEFT__TASK_EMBEDDING = 6,  /* a vector of a row, near those of rows that mean the same */
    PEFT__TASK_COUNT = 7
};

enum { /* PEFT__PROBLEM_*: of PEFT__TASK_SEQUENCE, as config.json's "problem_type" */
    PEFT__PROBLEM_SINGLE = 0,     /* single_label_classification */
    PEFT__PROBLEM_MULTI = 1,      /* multi_label_classification */
    PEFT__PROBLEM_REGRESSION = 2, /* regression */
    PEFT__PROBLEM_COUNT = 3
};

enum { /* PEFT__POOL_*: the state that stands for a row */
    PEFT__POOL_NONE = 0,  /* every token for itself */
    PEFT__POOL_FIRST = 1, /* the first of the stream, virtual tokens counted */
    PEFT__POOL_LAST = 2,  /* the last */
    PEFT__POOL_MEAN = 3   /* the mean of the row's own tokens */
};

typedef struct peft__task {
    int32_t kind;             /* PEFT__TASK_* */
    int32_t problem;          /* PEFT__PROBLEM_* */
    int32_t pool;             /* PEFT__POOL_* of an embedding */
    bool normalize;           /* embeddings have length 1 */
    int64_t labels;           /* classes, or numbers of a regression; 0 for tasks without */
    const char *const *names; /* [labels] of the classes; NULL: none given. The model's */
} peft__task;

const char *peft__task_name(int32_t kind);                 /* "causal_lm", ... */
const char *peft__problem_name(int32_t problem);           /* "regression", ... */
int32_t peft__task_find(const char *name);                 /* -1: no task is called so */
const char *peft__task_type(const peft__task *t);          /* task_type of HF PEFT's files: "SEQ_CLS", ...; NULL: none */
const char *const *peft__task_heads(const peft__task *t);  /* modules that are trained and saved whole with it, NULL-ended */
/* The class of that name; -1: none, or the task has no names. */
int32_t peft__task_class(const peft__task *t, const char *name, size_t len);

/* One output a row, not one a token? */
static inline bool peft__task_pools(const peft__task *t) {
    return t->kind == PEFT__TASK_SEQUENCE || t->kind == PEFT__TASK_EMBEDDING;
}

/* Logits over the vocabulary? */
static inline bool peft__task_is_lm(const peft__task *t) { return t->kind <= PEFT__TASK_SEQ2SEQ_LM; }

#endif
