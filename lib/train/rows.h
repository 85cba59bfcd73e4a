/* rows.h - what the files that read rows share: dataset.c, rows*.c, template.c, verbalizer.c.
 *
 * A row is begun, its tokens are appended to the set's ids, labels (and types, offsets, sources), and it is ended: peft__row_end
 * enters what came since its beginning. rows.c asks rows_kind.c which task a row is for and calls that task's reader. */
#ifndef PEFT_ROWS_H
#define PEFT_ROWS_H

#include "train/train.h"

typedef struct peft__row_in { /* a row that is being read */
    const peft__json *json;   /* an object */
    peft__arena *scratch;     /* dies with the row */
    int32_t task;             /* its "task_id" */
    bool cut;                 /* something of it was cut off */
} peft__row_in;

/* ---- dataset.c ------------------------------------------------------------------------------------------------------------- */

peft__row peft__row_begin(const struct peft_dataset *d, int32_t task);
/* Brings the tokens since the row's first one to max_length as the option "truncation" says. */
peft_status peft__row_cut(struct peft_dataset *d, const peft__row *row, bool *cut);
/* Enters the row into d->rows or d->candidates. A row without tokens is PEFT_E_FORMAT. */
peft_status peft__row_end(struct peft_dataset *d, peft__row *row, peft__vec *list);

/* ---- template.c, rows.c ------------------------------------------------------------------------------------------------------ */

/* Appends text with the row's fields put in. */
peft_status peft__template_render(const char *text, const peft__json *row, peft__str *out);
/* Appends what one JSON row gives to the data set. */
peft_status peft__row_parse(struct peft_dataset *d, const peft__json *row, peft__arena *scratch);
/* BOS at the start of a row, where the tokenizer's file says that encoding adds it. */
peft_status peft__rows_bos(struct peft_dataset *d);
/* A text without the model's template; flags: PEFT_TOKENIZE_SPECIAL, PEFT__TOKENIZE_INSIDE. */
peft_status peft__rows_encode(struct peft_dataset *d, const char *text, size_t len, int32_t flags, bool labelled);

/* ---- rows_kind.c: which task -------------------------------------------------------------------------------------------------- */

bool peft__rows_templates(const struct peft_dataset *d); /* the options have one */
bool peft__rows_known(const peft__json *row);            /* its fields are those of some task, without a template */
peft_status peft__rows_kind(const struct peft_dataset *d, const peft__json *row, int32_t *kind);
/* PEFT_E_FORMAT: the row has no `what`, and what rows of its task look like. */
peft_status peft__rows_lacks(const struct peft_dataset *d, const char *what);
/* A row of that task from a batch of ids, before anything is read. */
peft_status peft__rows_batch_kind(const struct peft_dataset *d, int32_t *kind);

/* ---- rows_fields.c: fields, pairs of texts, names of classes ------------------------------------------------------------------ */

/* *out: the text under the key, NULL without one. */
peft_status peft__rows_text(const peft__json *row, const char *key, const peft__json **out);
/* The text that the template `option` makes, or without one that of the first of the keys (NULL-ended) that the row has.
 * Neither: *text is NULL. */
peft_status peft__rows_field(struct peft_dataset *d, const peft__row_in *in, const char *option, const char *const *keys,
                             peft__text_in *text);
/* Token ids; with `masked` also -100. */
peft_status peft__rows_ints(const peft__json *array, const char *key, bool masked, peft__vec *out);
/* PEFT_E_FORMAT: the set has none. */
peft_status peft__rows_tokenizer(const struct peft_dataset *d);
/* One text or two as the model's template has them, of at most as many tokens as the option `limit` says, into out (elements
 * peft__encoded). */
peft_status peft__rows_pair(const struct peft_dataset *d, peft__row_in *in, const peft__text_in *a,
                            const peft__text_in *b /* NULL: one text */, const char *limit, peft__vec *out);
peft_status peft__rows_put(struct peft_dataset *d, int32_t id, int32_t label, int32_t type); /* a token */
peft_status peft__rows_put_all(struct peft_dataset *d, const peft__vec *encoded); /* without labels */
/* Ids of a JSON array as tokens without labels, with the row's "token_type_ids" if `types`. */
peft_status peft__rows_put_ids(struct peft_dataset *d, const peft__row_in *in, const peft__json *ids, bool types);
/* Appends a JSON number to the set's targets. */
peft_status peft__rows_number(struct peft_dataset *d, const char *key, const peft__json *x);
/* The number of the class name, which is new the first time. */
peft_status peft__rows_name(struct peft_dataset *d, const char *name, size_t len, int32_t *number);
/* All labels of a set are of one form, PEFT__LABEL_*. */
peft_status peft__rows_form(struct peft_dataset *d, int32_t form);
const char *peft__rows_what(const peft__json *node); /* "a number" */

/* ---- readers of rows, one a task ------------------------------------------------------------------------------------------- */

peft_status peft__rows_sequence(struct peft_dataset *d, peft__row_in *in);   /* rows_class.c */
peft_status peft__rows_tokens(struct peft_dataset *d, peft__row_in *in);     /* rows_class.c */
peft_status peft__rows_span(struct peft_dataset *d, peft__row_in *in);       /* rows_span.c */
peft_status peft__rows_masked(struct peft_dataset *d, peft__row_in *in);     /* rows_encoder.c, as the next two */
peft_status peft__rows_embedding(struct peft_dataset *d, peft__row_in *in);
peft_status peft__rows_seq2seq(struct peft_dataset *d, peft__row_in *in);
peft_status peft__rows_verbalized(struct peft_dataset *d, peft__row_in *in); /* verbalizer.c */
/* Reads the option "verbalizer", if it is set, when the set is made. */
peft_status peft__verbalizer_read(struct peft_dataset *d);

#endif
