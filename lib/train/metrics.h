/* metrics.h - what is measured of predictions: classes, several labels, entities, numbers, answers.
 *
 * metrics.c    sums over rows and what follows from them: accuracy, precision, recall, F1, correlation of classes; entities
 * correlate.c  errors and correlations of numbers; cosines
 * answers.c    the span that answers a question, exact match and F1 of its words
 *
 * Every figure lies from 0 to 1, or -1 to 1 for correlations; NaN, in JSON null, where it is not defined. All is computed in
 * double, from rows in the caller's order, by one thread.
 *
 * Left out: where predictions come from (evaluate.c), confidence intervals, curves over thresholds. */
#ifndef PEFT_METRICS_H
#define PEFT_METRICS_H

#include "train/train.h"

/* ---- classes ------------------------------------------------------------------------------------------------------------- */

typedef struct peft__class_counts {
    int64_t labels;          /* classes, or labels each of which a row has or has not */
    int64_t *truth;          /* [labels] how often it was so */
    int64_t *predicted;      /* [labels] how often it was predicted */
    int64_t *hit;            /* [labels] how often both */
    int64_t rows;            /* counted in all */
    int64_t right;           /* those of which all was predicted as it was */
    bool several;            /* a row may have several labels, or none */
} peft__class_counts;

typedef struct peft__class_scores {
    double accuracy;         /* right / rows */
    double precision_micro, recall_micro, f1_micro; /* of all labels' counts together */
    double precision_macro, recall_macro, f1_macro; /* means over labels; of classes, over those that occur */
    double matthews;         /* correlation of classes; NaN with several labels */
} peft__class_scores;
peft__class_scores peft__class_scores_of(const peft__class_counts *c);

/* ---- entities: stretches of tokens whose classes are named B-x, I-x, ... and O ------------------------------------------- */

typedef struct peft__entity_counts {
    char *tags;              /* [labels] 'B', 'I', 'E', 'S' or 'O' of each class's name; NULL: the names are no such tags */
    int32_t *types;          /* [labels] number of what follows the tag: equal for equal texts */
    int64_t truth, predicted, hit; /* entities in the labels, in the predictions, in both */
} peft__entity_counts;

/* ---- numbers (correlate.c) -------------------------------------------------------------------------------------------------- */

double peft__pearson(const double *a, const double *b, int64_t n); /* NaN: less than two values, or all of one are the same */
/* Ranks from 1, equal values share the mean of theirs. order: room for n. */
void peft__ranks(const double *values, int64_t n, int64_t *order, double *ranks);
double peft__cosine(const float *a, const float *b, int64_t n); /* 0 when either is all zeros */

typedef struct peft__number_scores { /* means over columns */
    double mse, mae, pearson, spearman;
} peft__number_scores;
/* pairs: [rows, 2, columns], predicted before true. */
peft_status peft__number_scores_of(peft__mem *mem, const float *pairs, int64_t rows, int64_t columns, peft__number_scores *out);

/* ---- the sums of a data set (metrics.c) --------------------------------------------------------------------------------------- */

typedef struct peft__scores {
    peft__mem *mem;          /* borrowed */
    int32_t kind;            /* SCORES_* of metrics.c: which of the sums below count */
    int64_t columns;         /* numbers a row */
    peft__class_counts classes;   /* its arrays are owned, one block */
    peft__entity_counts entities; /* the same */
    peft__vec pairs;         /* of float: predicted and true numbers of each row, [rows, 2, columns] */
} peft__scores;

/* For the rows of a task: classes (also each token's), several labels, or numbers; an embedding's one number is a cosine. A
 * choice among candidates is scored as a sequence classification with so many labels. */
peft_status peft__scores_begin(peft__scores *s, peft__mem *mem, const peft__task *task);
void peft__scores_free(peft__scores *s); /* after begin, also when that failed; or of zeros */
void peft__scores_class(peft__scores *s, int32_t truth, int32_t prediction); /* truth below 0: no label, not counted */
/* The labelled tokens of one row, in order: each as a class, and the entities among them. */
void peft__scores_tokens(peft__scores *s, const int32_t *truth, const int32_t *prediction, int64_t n);
/* Labels of one row, [labels]: those with a logit above 0 are predicted, those with a target above 0.5 true. */
void peft__scores_several(peft__scores *s, const float *logits, const float *targets);
peft_status peft__scores_numbers(peft__scores *s, const float *predicted, const float *truth); /* [columns] each */
/* Puts the keys into the open object: "accuracy", "f1_macro", ... or "mse", "mae", "pearson", "spearman". */
peft_status peft__scores_write(const peft__scores *s, peft__json_out *j);

/* The candidate with the largest score, the first of equals. */
int32_t peft__candidate_best(const double *scores, int64_t n);

/* ---- answers (answers.c) -------------------------------------------------------------------------------------------------------- */

typedef struct peft__answer { /* a span of a window, or of the best one so far */
    float start, end;        /* logits of its first and last token */
    int32_t from, to;        /* bytes of the context */
    bool found;              /* else there is none yet and the above is nothing */
} peft__answer;

typedef struct peft__answers {
    peft__mem *mem;          /* borrowed */
    const struct peft_dataset *d; /* borrowed */
    bool nulls;              /* a question may have no answer: some of the set have none; may be changed before the first window */
    int64_t example;         /* the question whose windows are coming; -1: none yet */
    peft__answer best;       /* of its windows */
    float null_score;        /* lowest start + end logit of the windows' first tokens */
    int64_t questions;       /* that were measured */
    double exact, f1;        /* sums over them */
} peft__answers;

void peft__answers_begin(peft__answers *a, peft__mem *mem, const struct peft_dataset *d);
/* The next window, a row of the set with its logits [row->n, 2] of start and end. Rows of a question follow one another; with
 * the first of another question the one before is measured. */
peft_status peft__answers_add_window(peft__answers *a, const peft__row *row, const float *logits);
/* The answer to the question whose windows came last, in its context; *len 0: it has none. */
void peft__answers_best(const peft__answers *a, const char **text, size_t *len);
peft_status peft__answers_end(peft__answers *a); /* measures the last question */
void peft__answers_write(const peft__answers *a, peft__json_out *j); /* "exact_match", "f1" into the open object, 0 to 1 */

/* Exact match and F1 of a text, the largest over the example's answers. nulls: by SQuAD 2's rules for texts without words. */
peft_status peft__answer_match(peft__mem *mem, const char *text, size_t len, const peft__example *e, bool nulls, double *exact,
                               double *f1);
/* Appends the text as SQuAD compares it: lower case, without punctuation and articles, words with one space between. */
peft_status peft__answer_words(peft__mem *mem, const char *text, size_t len, peft__str *out);

#endif
