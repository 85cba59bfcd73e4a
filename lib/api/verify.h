/* verify.h - what the files of peft_check_json share: one check of one path. */
#ifndef PEFT_API_VERIFY_H
#define PEFT_API_VERIFY_H

#include "api/api.h"

typedef struct peft__verify {
    peft_context *ctx;
    struct peft_model *base;     /* borrowed: what adapters and rows are for; NULL: not given */
    const peft__optset *opts;    /* schema "check" */
    bool weights, forward;       /* options: read all values; run a pass */
    peft__findings f;
    const char *kind;            /* "model", "tokenizer", "adapter", "data", "checkpoint"; static */
    peft__str about;             /* JSON object: what it is; empty: not known */
    int64_t tensors, values;     /* that were looked at */
    int64_t rows, tokens;        /* the same of data */
    bool passed;                 /* a forward pass was run */
} peft__verify;

/* verify_model.c: a folder or GGUF file; a tokenizer by itself. */
peft_status peft__verify_model(peft__verify *v, const char *path);
peft_status peft__verify_tokenizer(peft__verify *v, const char *path);
/* One pass over a few tokens of the vocabulary; set NULL: the model alone. What it gives is finite. */
peft_status peft__verify_forward(peft__verify *v, const char *path, struct peft_model *m, struct peft_adapters *set,
                                 const char *expression);
/* verify_adapter.c: a folder of Hugging Face PEFT or AdapterHub, a union, or a GGUF file; then in its base, if there is one. */
peft_status peft__verify_adapter(peft__verify *v, const char *path, bool gguf);
/* verify_data.c: JSON Lines. */
peft_status peft__verify_data(peft__verify *v, const char *path);

#endif
