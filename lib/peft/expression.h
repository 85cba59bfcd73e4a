/* expression.h - which adapters act, and how together: the text of sessions, jobs and merges as a tree (grammar: expression.c). */
#ifndef PEFT_EXPRESSION_H
#define PEFT_EXPRESSION_H

#include "peft/method.h"

enum { /* kinds of nodes */
    PEFT__NODE_ADAPTER = 0,
    PEFT__NODE_STACK = 1,       /* one after the other */
    PEFT__NODE_AVERAGE = 2,     /* weighted mean of what each makes of the same input */
    PEFT__NODE_PARALLEL = 3,    /* every row once for each child */
    PEFT__NODE_SPLIT = 4,       /* stretches of each row's tokens */
    PEFT__NODE_BATCH_SPLIT = 5, /* stretches of the batch's rows */
    PEFT__NODE_FUSE = 6         /* outputs weighed by a trained attention (AdapterFusion) */
};

typedef struct peft__node {
    int32_t kind;
    double factor;              /* of its effect; 1 */
    peft__adapter *adapter;     /* ADAPTER: it; FUSE: the fusion, NULL elsewhere; borrowed from the expression or a union */
    int32_t leaf;               /* ADAPTER, and FUSE for its fusion: number in order of the text; -1 */
    int32_t branch;             /* number of the branch for some rows that it is in; -1: it is in none */
    bool frozen;                /* freeze(...), or below a fusion: not trained */
    struct peft__node **child;  /* [n]; in the expression's arena */
    size_t n;
    double *weights;            /* AVERAGE: [n], of sum 1 */
    int64_t *sizes;             /* SPLIT, BATCH_SPLIT: [n] tokens or rows; the last of SPLIT may be -1: the rest */
} peft__node;

enum { PEFT__EXPRESSION_MAX = 64 }; /* leaves */

typedef struct peft__expression {
    peft__mem *mem;             /* NULL: not parsed, nothing to free */
    peft__arena arena;
    const char *text;           /* as given */
    peft__node *root;           /* NULL: the base alone */
    peft__adapter *pinned[PEFT__EXPRESSION_MAX]; /* retained, each once */
    size_t n_pinned;
    int32_t user;               /* PEFT__USER_* that they are counted for; -1: none */
    peft__node *leaves[PEFT__EXPRESSION_MAX]; /* by number */
    size_t n_leaves;
    int32_t branch;             /* of the nodes that are made next */
    const peft__node *rows;     /* the one PARALLEL or BATCH_SPLIT node, whose children are groups of rows; NULL */
} peft__expression;

/* text NULL or "": the base alone (set may be NULL then). Pins what it names. On failure nothing is held. */
peft_status peft__expression_parse(peft__expression *e, peft__mem *mem, struct peft_adapters *set, const char *text);
/* The stack of adapters that the caller holds. */
peft_status peft__expression_of(peft__expression *e, peft__mem *mem, peft__adapter *const *list, size_t n);
/* A branch for each of n expressions, at most PEFT__GROUPS: rows divide among them; one alone is of all rows. It has the adapters that
 * those hold, which need not be the set's any more. */
peft_status peft__expression_branches(peft__expression *e, peft__mem *mem, struct peft_adapters *set, const peft__expression *const *of,
                                      size_t n);
bool peft__expression_same(const peft__expression *a, const peft__expression *b); /* the same text with the same adapters? */
void peft__expression_used_by(peft__expression *e, int32_t user); /* PEFT__USER_*, until it is freed */
void peft__expression_free(peft__expression *e); /* a zeroed one is fine */
/* The adapters in order, where they simply act one after the other with a factor each: PEFT_E_UNSUPPORTED otherwise. */
peft_status peft__expression_flat(const peft__expression *e, const char *doing);
int32_t peft__expression_groups(const peft__expression *e); /* of rows; 1 usually */
int64_t peft__expression_new_tokens(const peft__expression *e); /* ids that there are after the base's vocabulary */
int64_t peft__expression_copies(const peft__expression *e); /* PARALLEL: rows of the batch for each row given; 1 */
/* BATCH_SPLIT: rows of a batch; 0: any number. */
int64_t peft__expression_rows(const peft__expression *e);
/* Group of row `row` of a batch (of copy `copy` of it). */
int32_t peft__expression_group(const peft__expression *e, int64_t row, int64_t copy);

/* compose.c: the hooks that make a model record itself with the adapters. e must outlive the recording only. */
peft_status peft__compose(peft__tape *t, const peft__base_info *base, const peft__expression *e);

#endif
