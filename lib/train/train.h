/* train.h - layer 5: data sets, batches, evaluation and the trainer.
 *
 * dataset.c, rows*.c  JSON Lines to token ids and labels of each task; templates, truncation, packing; rows.h
 * order.c             which rows come next: shuffling by (seed, epoch), length groups
 * frame.c             rows to the frame of an execution
 * evaluate.c          loss, perplexity, accuracy of a data set
 * trainer.c, trainer_plan.c   a trainer's jobs; from options and data to a tape with all its memory
 * jobs.c              several at a time: shares of a batch, one expression for all
 * loop.c              steps;  checkpoint.c  state of a run */
#ifndef PEFT_TRAIN_H
#define PEFT_TRAIN_H

#include "model/model.h"
#include "autograd/task.h"
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
    peft__vec jobs;          /* the same: which of a trainer's jobs the row is of, as they were added */
    peft__vec types;         /* of int32_t: token types, one a token; empty: all 0 */
    peft__vec row_labels;    /* of int32_t, one a row, -100: none; empty: none. Of embeddings: the row's part */
    peft__vec spans;         /* of int32_t, first and last token of each row's answer, -1 and -1: none; empty: none */
    peft__vec targets;       /* of float: numbers of each row, as many of all; empty: none */
    peft__vec offsets;       /* of int64_t: n_rows + 1 */
    peft__vec source_ids;    /* of int32_t: what an encoder-decoder model's encoder reads; empty: none */
    peft__vec source_offsets; /* of int64_t: n_rows + 1 */
};
enum { PEFT__MAGIC_BATCH = 0x42464550 };

/* ---- dataset: the inside of peft_dataset --------------------------------------------------------------------------------- */

typedef struct peft__row {   /* one example */
    int64_t first, n;        /* its tokens: ids[first, first + n) of the set */
    uint64_t key;            /* the row's id, for dropout: its position in the file before packing */
    int32_t task;            /* for prompts of several tasks */
    int32_t label;           /* class, or with `named` the number of its name among the set's; -100: none */
    int64_t target;          /* where its numbers begin in the set's targets: the label as a number, or those of a list */
    int64_t n_targets;       /* how many */
    bool named, list;        /* the label is a text; it is a list (of classes, names' numbers, or numbers of their own) */
    int64_t source, n_source; /* tokens that an encoder reads: sources[source, source + n_source) of the set */
    int32_t begin, end;      /* question answering: first and last token of the answer, from the row's first; 0 and 0: it is not in
                                the row; -1: nothing is known of it */
    int64_t example;         /* question answering: which question of the set; its rows follow one another */
    int64_t part[2];         /* embedding: tokens of the anchor and of the positive (0: a text alone); what is left is the negative */
    bool maskable;           /* masked language model: every token with a label may be masked; else labels are as given */
} peft__row;

typedef struct peft__example { /* a question, for what is measured of its answers */
    const char *context;     /* in the arena */
    const char *const *answers; /* [n_answers], in the arena; none: the context has no answer */
    size_t n_answers;
} peft__example;

struct peft_dataset {
    uint32_t magic;
    atomic_int refs;
    peft_context *ctx;       /* retained */
    struct peft_tokenizer *tokenizer; /* retained; NULL: input_ids only */
    peft__optset opts;       /* schema "dataset" */
    peft__vec ids, labels;   /* of int32_t: all rows end to end; label[t] is the label AT t (-100: none), before the shift */
    peft__vec rows;          /* of peft__row, as loaded */
    peft__vec packed;        /* of peft__row: made of several (packing=true); empty otherwise */
    int32_t kind;            /* PEFT__TASK_*: what the rows are for, by their fields; the same for all; -1: none yet */
    peft__vec types;         /* of int32_t: token types, one a token; empty: all 0 */
    peft__vec targets;       /* of float */
    peft__vec sources;       /* of int32_t: token ids that an encoder reads */
    peft__vec names;         /* of const char *: names of classes as they first came, in the arena */
    peft__vec examples;      /* of peft__example: questions */
    peft__vec offsets;       /* of int32_t, two a token: bytes of the context that a token of a question's row is; -1: none */
    peft__vec candidates;    /* of peft__row: each row with each of the verbalizer's answers in turn; empty: no verbalizer */
    int64_t answers;         /* how many a row has there */
    peft__vec words;         /* of int32_t: token ids of the verbalizer's answers, end to end, classes in the order of names */
    peft__vec word_ends;     /* of size_t, one a class: where its answer ends in words */
    int32_t label_form;      /* PEFT__LABEL_*: what the rows' labels are */
    int32_t max_type;        /* largest token type seen */
    peft__arena arena;       /* names, contexts, answers */
    int64_t truncated;       /* rows that were cut */
    int32_t max_id;          /* largest token id seen */
    int32_t max_task;        /* largest task seen */
};
enum { PEFT__MAGIC_DATASET = 0x44464550 };
enum { /* PEFT__LABEL_*: none seen yet; a number, a name, lists of these */
    PEFT__LABEL_NONE = 0,
    PEFT__LABEL_NUMBER = 1,
    PEFT__LABEL_NAME = 2,
    PEFT__LABEL_NUMBERS = 3,
    PEFT__LABEL_NAMES = 4
};

extern const peft__schema peft__schema_dataset, peft__schema_trainer;

peft_status peft__dataset_create(peft_context *ctx, struct peft_tokenizer *t, const peft__optset *opts, struct peft_dataset **out);
void peft__dataset_retain(struct peft_dataset *d);
void peft__dataset_release(struct peft_dataset *d);
peft_status peft__dataset_load(struct peft_dataset *d, const char *path);
peft_status peft__dataset_add_json(struct peft_dataset *d, const char *json, size_t len, const char *what);
peft_status peft__dataset_add_batch(struct peft_dataset *d, const struct peft_batch *b);
size_t peft__dataset_size(const struct peft_dataset *d);
const peft__row *peft__dataset_row(const struct peft_dataset *d, size_t i);
int64_t peft__dataset_longest(const struct peft_dataset *d); /* tokens of the longest row, candidate, or text of an embedding */
int64_t peft__dataset_longest_source(const struct peft_dataset *d); /* tokens that an encoder reads of a row, at most */
peft_status peft__dataset_info(const struct peft_dataset *d, peft__str *out);

/* ---- frames ---------------------------------------------------------------------------------------------------------------- */

/* Which tokens of a maskable row are to be guessed (BERT: 15 %; of those 80 % become [MASK], 10 % another token). */
typedef struct peft__masking {
    double probability;      /* of a token */
    int32_t mask_id;         /* -1: no masking */
    int64_t vocab;           /* other tokens are drawn below it */
    uint64_t seed;           /* with a row's key it fixes the draw */
} peft__masking;

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
    int32_t group;           /* of the rows that are added next; -1: as the expression divides them */
    const peft__task *kind;  /* borrowed, the model's: what rows are labelled with; NULL: tokens, with the next one */
    bool unlabelled;         /* labels of the rows count for nothing */
    const int32_t *classes;  /* borrowed: class of each of a data set's names; NULL: their own numbers */
    int32_t *types;          /* [max_tokens + max_rows * virtual_tokens] */
    int32_t *row_labels, *spans, *parts; /* [max_rows], [max_rows, 2], [max_rows] */
    float *targets;          /* [max_rows, kind->labels]; NULL without a kind */
    peft__masking masking;   /* of masked language models */
    const peft__expression *e; /* borrowed: says which group a row is of, and how many copies of it there are; NULL: 0 and 1 */
    int64_t group_tokens[PEFT__GROUPS]; /* virtual tokens of a row of each group */
    int64_t group_shift[PEFT__GROUPS];  /* and what is added to its positions */
    int64_t *source_offsets, *encoder_offsets; /* [max_rows + 1]: of tokens for the encoder; with virtual ones. NULL without */
    int32_t *source_ids;     /* [max_source] */
    int32_t *source_positions; /* [max_source + max_rows * source_virtual] */
    int64_t group_source[PEFT__GROUPS]; /* virtual tokens before the source of a row of each group */
    int32_t start_id, pad_id; /* what the decoder begins with; what it reads for tokens without a label */
    peft__frame frame;
} peft__frame_room;
peft_status peft__frame_room_create(peft__frame_room *r, peft__mem *mem, const peft__caps *caps);
/* Rows are of this model's task. After create. */
peft_status peft__frame_room_task(peft__frame_room *r, const peft__config *config);
/* Rows are divided among the branches of e, as the tape recorded with it says. */
void peft__frame_room_divide(peft__frame_room *r, const peft__tape *t, const peft__expression *e);
void peft__frame_room_free(peft__frame_room *r);
size_t peft__frame_room_bytes(const peft__caps *caps); /* that creating one takes */
void peft__frame_begin(peft__frame_room *r);
/* Appends a row; labels (the labels AT each token, NULL: all but the first) are shifted here. false: it does not fit. */
bool peft__frame_add(peft__frame_room *r, const int32_t *ids, const int32_t *labels, const float *weights, int64_t n,
                     uint64_t key);
/* The batch has what the task's loss needs, and within what the model knows: PEFT_E_INVALID, PEFT_E_SHAPE otherwise. vocab: with
 * tokens that adapters add. */
peft_status peft__batch_check(const struct peft_batch *b, const peft__config *config, int64_t vocab);
/* Appends row i of a batch that was checked. */
bool peft__frame_add_batch(peft__frame_room *r, const struct peft_batch *b, size_t i, uint64_t key);
/* Appends a row of a data set, with what it has beside tokens; an embedding's texts are rows of their own. */
bool peft__frame_add_row(peft__frame_room *r, const struct peft_dataset *d, const peft__row *row);
int64_t peft__frame_labelled(const peft__frame_room *r);
/* frame_source.c, for frame.c: what rows of encoder-decoder models have besides. Of a row that is put n_rows is the number. */
peft_status peft__frame_source_create(peft__frame_room *r);
void peft__frame_source_free(peft__frame_room *r);
size_t peft__frame_source_bytes(const peft__caps *caps);
void peft__frame_source_begin(peft__frame_room *r);
bool peft__frame_source_fits(const peft__frame_room *r, int64_t n, int64_t copies);
void peft__frame_source_put(peft__frame_room *r, const int32_t *ids, int64_t n, int32_t group);
void peft__frame_source_drop(peft__frame_room *r, int64_t rows); /* what rows from that number on have */
void peft__frame_decoder_input(const peft__frame_room *r, const int32_t *labels, int64_t n, int32_t *out);

/* ---- evaluation --------------------------------------------------------------------------------------------------------------- */

typedef struct peft__metrics {
    double loss;             /* mean over what is labelled */
    int64_t labelled, rows;  /* tokens or rows with a label; rows of the set */
} peft__metrics;
/* outputs (NULL: not wanted): those of all rows, whatever their labels; nothing is measured then.
 * Runs a data set through x in batches of at most the plan's caps. cancel: checked between batches; NULL: never. json (NULL: not
 * wanted) gets an object of "loss", "rows" and what the task is measured by: "perplexity" and "accuracy" over "tokens" of a language
 * model, else the keys of metrics.h. */
peft_status peft__evaluate(peft__exec *x, peft__frame_room *room, const struct peft_dataset *d, atomic_int *cancel,
                           peft__metrics *out, peft__str *json, float *outputs);
/* How the set's rows are masked: every time alike, until a trainer gives another seed. */
peft__masking peft__evaluate_masking(const struct peft_dataset *d, const peft__config *config);
/* The same with a tape of its own, for sessions: model with adapters (may be none). */
peft_status peft__evaluate_model(struct peft_model *m, const peft__base_info *base, const peft__expression *e,
                                 const struct peft_dataset *d, atomic_int *cancel, peft__metrics *out, peft__str *json, float *outputs,
                                 bool bf16);
size_t peft__evaluate_outputs(const struct peft_dataset *d, const peft__config *config); /* floats of them */

/* ---- labels.c: what a data set's labels mean to a model --------------------------------------------------------------------------- */

/* Checks that the rows are of the model's task and their labels among its own. *classes: the class of each of the set's names, owned by
 * the caller, [names of the set]; NULL where there are none. */
peft_status peft__labels_match(const struct peft_dataset *d, const peft__task *task, const char *what, peft__mem *mem, int32_t **classes);
void peft__labels_free(const struct peft_dataset *d, peft__mem *mem, int32_t *classes);
/* Weights of the losses of classes [labels] from the option class_weights: a list of numbers, or "balanced" (rows / (labels * rows
 * of the class), as scikit-learn). NULL: none. d NULL: there is nothing to count. */
peft_status peft__labels_weights(const struct peft_dataset *d, const peft__task *task, const int32_t *classes, const char *option,
                                 peft__mem *mem, float **out);
/* PEFT_E_UNSUPPORTED where the expression would take texts of an embedding's row apart. */
peft_status peft__labels_undivided(const peft__task *task, const peft__expression *e);
/* Most tokens of a text of the row. */
static inline int64_t peft__row_length(const peft__row *r) {
    int64_t rest = r->n - r->part[0] - r->part[1];
    return r->part[0] == 0 ? r->n : PEFT__MAX(PEFT__MAX(r->part[0], r->part[1]), rest);
}
/* Rows of a frame that a row of the set can become. */
static inline int64_t peft__dataset_parts(const struct peft_dataset *d) { return d != NULL && d->kind == PEFT__TASK_EMBEDDING ? 3 : 1; }
/* Rows and what stands before them (virtual tokens, a prefix that counts) fit the model's positions: PEFT_E_SHAPE. */
peft_status peft__caps_check(const peft__caps *caps, const peft__config *config);
/* Ids and vocabulary fit, rows are not empty: PEFT_E_SHAPE / PEFT_E_INVALID otherwise. */
peft_status peft__dataset_check(const struct peft_dataset *d, const peft__config *config, int64_t new_tokens, const char *what);
/* What a loss is taken on is there: PEFT_E_INVALID otherwise. */
peft_status peft__dataset_labelled(const struct peft_dataset *d, const char *what);
/* Every row's task is one of the tape's: PEFT_E_SHAPE otherwise. d NULL: nothing to check. */
peft_status peft__dataset_check_tasks(const struct peft_dataset *d, const peft__tape *t, const char *what);

/* ---- trainer: the inside of peft_trainer ---------------------------------------------------------------------------------------- */

typedef struct peft__member { /* an adapter that jobs train, and its optimiser */
    peft__adapter *adapter;  /* pinned by the jobs' expressions */
    size_t job;              /* the first that has it: its options are the optimiser's */
    size_t jobs;             /* how many have it; more than one: it learns from the rows of all */
    peft__optim optim;       /* made with the plan */
    peft__real *grads;       /* owned, [adapter->n_trainable] */
    peft__real *best;        /* owned: values at the lowest eval loss (load_best_model_at_end); NULL: not kept */
    peft__real *state;       /* owned, [n_state]: what the method keeps between steps */
    int64_t n_state;
    double squares;          /* of the gradients of the step, divided as they are in the update */
} peft__member;

enum { /* states of a job */
    PEFT__JOB_RUNS = 0,
    PEFT__JOB_DONE = 1,      /* all its steps */
    PEFT__JOB_EARLY = 2,     /* its evaluation loss fell no more (early_stopping_patience) */
    PEFT__JOB_FAILED = 3     /* a number was not finite; `error` says which */
};

typedef struct peft__job {   /* adapters that act together, their data and their training */
    peft__expression expression;
    peft__vec members;       /* of size_t: which of the trainer's members those of the expression are that are trained */
    int64_t n_trainable;     /* in all */
    struct peft_dataset *train, *eval; /* retained; may be NULL */
    int32_t *train_classes, *eval_classes; /* owned: see peft__labels_match */
    float *class_weights;    /* owned, [labels]; NULL: none */
    peft__optset optimizer_opts;
    int64_t rows;            /* of a pass; 0: not yet planned */
    int64_t max_steps;       /* 0: the caller's loop */
    int32_t state;           /* PEFT__JOB_* */
    bool bad, stop;          /* a number of the step in progress is not finite; the last evaluation says that it is to stop */
    peft__str error;         /* why it failed */
    double loss, eval_loss;  /* of the last step and evaluation; NaN: none */
    double best_loss;
    int64_t worse;           /* evaluations since the last that was better */
    int64_t *order;          /* owned, [rows of train]: this epoch's permutation */
    int64_t epoch, position; /* of the data order */
    double accumulated;      /* what the sums are divided by: labelled tokens or rows whose gradients are in grads */
    double accumulated_loss; /* sum of their losses */
    int64_t accumulated_rows; /* rows whose gradients are in grads */
    int64_t tokens, last_tokens; /* of the step in progress, and of the last */
    double norm, rate;       /* of its gradients before clipping; of its first member */
} peft__job;

struct peft_trainer {
    uint32_t magic;
    peft_context *ctx;       /* retained */
    struct peft_adapters *set; /* retained (and through it the model) */
    struct peft_model *model;  /* borrowed from the set's base */
    peft__optset opts;       /* schema "trainer" */
    peft__vec jobs;          /* of peft__job, as they were added */
    peft__vec members;       /* of peft__member */
    peft__job *active[PEFT__GROUPS]; /* those that the tape is recorded for, by their text; job i's rows are group i */
    size_t n_active;
    peft__job *only;         /* the one to record the tape for; NULL: all that run */
    peft__expression joint;  /* theirs, as branches for some rows; empty where there is one */
    peft__pool *pool;        /* owned */
    bool planned;
    peft__tape tape;
    peft__plan plan;
    peft__exec exec;
    peft__frame_room room;
    peft_progress_fn progress;
    void *progress_user;
    peft_loss_fn loss;       /* the host's; NULL: the task's */
    void *loss_user;
    peft_all_reduce_fn reduce; /* NULL: one process */
    void *reduce_user;
    int32_t rank, ranks;     /* which of how many processes */
    atomic_int cancel;      /* asked to stop; as large as every processor can exchange without a library */
    bool running;            /* inside peft__trainer_run: callbacks may not re-enter */
    int64_t step, max_steps; /* optimiser steps done, and those of the longest job */
    double begun;            /* clock and step number when the run, or the first of single steps, began */
    int64_t begun_step;
    bool stepping;           /* single steps follow one another */
    uint64_t seed;
#ifndef PEFT_MINIMAL
    struct peft__profile *profile; /* owned; NULL without the option */
#endif
};
enum { PEFT__MAGIC_TRAINER = 0x52464550 };

peft_status peft__trainer_create(struct peft_adapters *set, const peft__optset *opts, struct peft_trainer **out);
void peft__trainer_free(struct peft_trainer *t);
peft_status peft__trainer_add_job(struct peft_trainer *t, const char *adapter, struct peft_dataset *train,
                                  struct peft_dataset *eval, const peft__optset *optimizer);
void peft__trainer_unplan(struct peft_trainer *t);
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
/* checkpoint_check.c: what is wrong in one, without its trainer. path: the folder or the file. about: JSON of what it is of. */
bool peft__checkpoint_probe(peft__mem *mem, const char *path);
peft_status peft__checkpoint_check(peft__mem *mem, const peft__kernels *k, const char *path, bool values, peft__findings *f,
                                   peft__str *about, int64_t *tensors, int64_t *numbers);
size_t peft__trainer_peak(const struct peft_trainer *t); /* resident base + peak of the context's allocator */

#endif
