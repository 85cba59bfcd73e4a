/* train.h - layer 5: data sets, batches, evaluation and the trainer.
 *
 * dataset.c, rows.c   JSON Lines to token ids and labels; templates, truncation, packing
 * order.c             which rows come next: shuffling by (seed, epoch), length groups
 * frame.c             rows to the frame of an execution
 * evaluate.c          loss, perplexity, accuracy of a data set
 * trainer.c, step.c   jobs, plan, steps;  checkpoint.c  state of a run */
#ifndef PEFT_TRAIN_H
#define PEFT_TRAIN_H

#include "model/model.h"
#include "optim/optim.h"
#include "peft/expression.h"
#include "text/text.h"

/* ---- batch: the inside of peft_batch ---------------------------------------------------------------------------------- */

struct peft_batch {
    uint32_t magic;
    peft_context *ctx;       /* retained */
    peft__vec ids, labels;   /* of int32_t; labels as given by the caller (unshifted), empty: none */
    peft__vec weights;       /* of float; empty: none */
    peft__vec tasks;         /* of int32_t, one a row; empty: none */
    peft__vec offsets;       /* of int64_t: n_rows + 1 */
};
enum { PEFT__MAGIC_BATCH = 0x42464550 };

/* ---- dataset: the inside of peft_dataset --------------------------------------------------------------------------------- */

typedef struct peft__row {   /* a span of the set's tokens */
    int64_t first, n;
    uint64_t key;            /* the row's id, for dropout: its position in the file before packing */
    int32_t task;            /* for prompts of several tasks */
} peft__row;

struct peft_dataset {
    uint32_t magic;
    atomic_int refs;
    peft_context *ctx;       /* retained */
    struct peft_tokenizer *tokenizer; /* retained; NULL: input_ids only */
    peft__optset opts;       /* schema "dataset" */
    peft__vec ids, labels;   /* of int32_t: all rows end to end; label[t] is the label AT t (-100: none), before the shift */
    peft__vec rows;          /* of peft__row, as loaded */
    peft__vec packed;        /* of peft__row: made of several (packing=true); empty otherwise */
    int64_t truncated;       /* rows that were cut */
    int32_t max_id;          /* largest token id seen */
    int32_t max_task;        /* largest task seen */
};
enum { PEFT__MAGIC_DATASET = 0x44464550 };

extern const peft__schema peft__schema_dataset, peft__schema_trainer;

peft_status peft__dataset_create(peft_context *ctx, struct peft_tokenizer *t, const peft__optset *opts, struct peft_dataset **out);
void peft__dataset_retain(struct peft_dataset *d);
void peft__dataset_release(struct peft_dataset *d);
peft_status peft__dataset_load(struct peft_dataset *d, const char *path);
peft_status peft__dataset_add_json(struct peft_dataset *d, const char *json, size_t len, const char *what);
peft_status peft__dataset_add_batch(struct peft_dataset *d, const struct peft_batch *b);
size_t peft__dataset_size(const struct peft_dataset *d);
const peft__row *peft__dataset_row(const struct peft_dataset *d, size_t i);
int64_t peft__dataset_longest(const struct peft_dataset *d);
peft_status peft__dataset_info(const struct peft_dataset *d, peft__str *out);

/* ---- frames ---------------------------------------------------------------------------------------------------------------- */

/* Room for the arrays of a frame, for at most caps. */
typedef struct peft__frame_room {
    peft__mem *mem;
    peft__caps caps;
    int64_t *offsets, *token_offsets;  /* [max_rows + 1]: of the caller's tokens; with virtual ones */
    int32_t *ids;            /* [max_tokens] */
    int32_t *positions, *labels; /* [max_tokens + max_rows * virtual_tokens] */
    float *weights;          /* the same */
    uint64_t *keys;          /* [max_rows] */
    int32_t *row_groups, *row_tasks; /* [max_rows] */
    int32_t task;            /* of the rows that are added next; 0 after peft__frame_begin */
    const peft__expression *e; /* borrowed: says which group a row is of, and how many copies of it there are; NULL: 0 and 1 */
    int64_t group_tokens[PEFT__GROUPS]; /* virtual tokens of a row of each group */
    int64_t group_shift[PEFT__GROUPS];  /* and what is added to its positions */
    peft__frame frame;
} peft__frame_room;
peft_status peft__frame_room_create(peft__frame_room *r, peft__mem *mem, const peft__caps *caps);
/* Rows are divided among the branches of e, as the tape recorded with it says. */
void peft__frame_room_divide(peft__frame_room *r, const peft__tape *t, const peft__expression *e);
void peft__frame_room_free(peft__frame_room *r);
size_t peft__frame_room_bytes(const peft__caps *caps); /* that creating one takes */
void peft__frame_begin(peft__frame_room *r);
/* Appends a row; labels (the labels AT each token, NULL: all but the first) are shifted here. false: it does not fit. */
bool peft__frame_add(peft__frame_room *r, const int32_t *ids, const int32_t *labels, const float *weights, int64_t n,
                     uint64_t key);
int64_t peft__frame_labelled(const peft__frame_room *r);

/* ---- evaluation --------------------------------------------------------------------------------------------------------------- */

typedef struct peft__metrics {
    double loss_sum;         /* sum of negative log-likelihoods */
    int64_t tokens, correct, rows; /* labelled tokens */
} peft__metrics;
peft_status peft__metrics_json(const peft__metrics *m, peft__str *out); /* {"loss","perplexity","accuracy","tokens","rows"} */
/* Runs a data set through x in batches of at most the plan's caps. cancel: checked between batches; NULL: never. */
peft_status peft__evaluate(peft__exec *x, peft__frame_room *room, const struct peft_dataset *d, atomic_int *cancel,
                           peft__metrics *out);
/* The same with a tape of its own, for sessions: model with adapters (may be none). */
peft_status peft__evaluate_model(struct peft_model *m, const peft__base_info *base, const peft__expression *e,
                                 const struct peft_dataset *d, atomic_int *cancel, peft__metrics *out);
/* Rows and what stands before them (virtual tokens, a prefix that counts) fit the model's positions: PEFT_E_SHAPE. */
peft_status peft__caps_check(const peft__caps *caps, const peft__config *config);
/* Ids and vocabulary fit, rows are not empty: PEFT_E_SHAPE / PEFT_E_INVALID otherwise. */
peft_status peft__dataset_check(const struct peft_dataset *d, const peft__config *config, int64_t new_tokens, const char *what);
/* Every row's task is one of the tape's: PEFT_E_SHAPE otherwise. d NULL: nothing to check. */
peft_status peft__dataset_check_tasks(const struct peft_dataset *d, const peft__tape *t, const char *what);

/* ---- trainer: the inside of peft_trainer ---------------------------------------------------------------------------------------- */

typedef struct peft__member { /* an adapter that a job trains, and its optimiser */
    peft__adapter *adapter;  /* pinned by the job's expression */
    peft__optim optim;       /* made with the plan */
    peft__real *grads;       /* owned, [adapter->n_trainable] */
    peft__real *best;        /* owned: values at the lowest eval loss (load_best_model_at_end); NULL until needed */
    peft__real *state;       /* owned, [n_state]: what the method keeps between steps */
    int64_t n_state;
} peft__member;

typedef struct peft__job {   /* adapters that act together, their data and their training */
    peft__expression expression;
    peft__vec members;       /* of peft__member: those of the expression that are trained */
    int64_t n_trainable;     /* in all */
    struct peft_dataset *train, *eval; /* retained; may be NULL */
    peft__optset optimizer_opts;
    double best_loss;
    int64_t *order;          /* owned, [rows of train]: this epoch's permutation */
    int64_t epoch, position; /* of the data order */
} peft__job;

struct peft_trainer {
    uint32_t magic;
    peft_context *ctx;       /* retained */
    struct peft_adapters *set; /* retained (and through it the model) */
    struct peft_model *model;  /* borrowed from the set's base */
    peft__optset opts;       /* schema "trainer" */
    peft__vec jobs;          /* of peft__job; one for now */
    peft__pool *pool;        /* owned */
    bool planned;
    peft__tape tape;
    peft__plan plan;
    peft__exec exec;
    peft__frame_room room;
    peft_progress_fn progress;
    void *progress_user;
    atomic_int cancel;      /* asked to stop; as large as every processor can exchange without a library */
    bool running;            /* inside peft__trainer_run: callbacks may not re-enter */
    int64_t step, max_steps; /* optimiser steps done, and in all */
    int64_t accumulated;     /* labelled tokens whose gradients are in grads */
    double accumulated_loss; /* sum of their losses */
    int64_t accumulated_rows; /* rows whose gradients are in grads */
    double begun;            /* clock and step number when the run, or the first of single steps, began */
    int64_t begun_step;
    bool stepping;           /* single steps follow one another */
    uint64_t seed;
};
enum { PEFT__MAGIC_TRAINER = 0x52464550 };

peft_status peft__trainer_create(struct peft_adapters *set, const peft__optset *opts, struct peft_trainer **out);
void peft__trainer_free(struct peft_trainer *t);
peft_status peft__trainer_add_job(struct peft_trainer *t, const char *adapter, struct peft_dataset *train,
                                  struct peft_dataset *eval, const peft__optset *optimizer);
peft_status peft__trainer_plan(struct peft_trainer *t);               /* makes tape, plan and memory if there are none */
peft_status peft__trainer_plan_json(struct peft_trainer *t, peft__str *out);
peft_status peft__trainer_run(struct peft_trainer *t);
peft_status peft__trainer_step(struct peft_trainer *t, bool *more); /* one step of the run; *more: some are left */
peft_status peft__trainer_accumulate(struct peft_trainer *t, const struct peft_batch *b, double *loss);
peft_status peft__trainer_apply(struct peft_trainer *t);
peft_status peft__trainer_gradient(struct peft_trainer *t, const char *adapter, const char *tensor, float *buf, size_t cap,
                                   size_t *needed);
peft_status peft__trainer_evaluate(struct peft_trainer *t, struct peft_dataset *d, peft__str *out);
peft_status peft__checkpoint_save(struct peft_trainer *t, const char *dir);
peft_status peft__checkpoint_load(struct peft_trainer *t, const char *dir);
size_t peft__trainer_peak(const struct peft_trainer *t); /* resident base + peak of the context's allocator */

#endif
