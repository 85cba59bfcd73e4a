/* combine.h - weighted combinations of adapters: combine.c reads what is wanted and averages, a method's `mix` adds up in its own
 * way, combine_ops.c prunes, elects signs and sums. */
#ifndef PEFT_COMBINE_H
#define PEFT_COMBINE_H

#include "peft/method.h"

enum { PEFT__COMBINE_MAX = 64 }; /* adapters in one combination */

/* What a method's `mix` is given. */
typedef struct peft__mix {
    peft__mem *mem;
    const peft__base_info *base;
    const char *name;               /* of the new adapter */
    const peft__optset *opts;       /* schema "combine" */
    const char *type;               /* "cat"; "": the method's own default */
    peft__adapter *const *sources;  /* [n], as files would hold them */
    const double *weights;          /* [n] */
    size_t n;
} peft__mix;

extern const peft__schema peft__schema_combine;

/* "a:0.6, b:-0.4" over the adapters of the set. A name without a weight has 1. */
peft_status peft__combine(struct peft_adapters *set, const char *name, const char *expression, const peft__optset *opts,
                          peft__adapter **out);

/* ---- combine_ops.c -------------------------------------------------------------------------------------------- */

enum { PEFT__PRUNE_NONE = 0, PEFT__PRUNE_MAGNITUDE = 1, PEFT__PRUNE_RANDOM = 2 };
enum { PEFT__ELECT_NONE = 0, PEFT__ELECT_TOTAL = 1, PEFT__ELECT_FREQUENCY = 2 };

/* The n-th largest magnitude of v[0..count), n from 1. */
double peft__mix_nth(const double *v, int64_t count, int64_t n);
/* Keeps the share `density` of v: the largest magnitudes, or each by chance and divided by density. `key`: of the chance. */
void peft__mix_prune(double *v, int64_t count, int32_t prune, double density, uint64_t key);
/* out = sum of weights[i] v_i, v_i = v + i * count; with an election: of the elements that have the sign that is elected
 * (before weighting; none: positive), divided by their number. */
void peft__mix_sum(const double *v, const double *weights, size_t n, int64_t count, int32_t elect, double *out);

#endif
