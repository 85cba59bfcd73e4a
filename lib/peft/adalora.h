/* adalora.h - between adalora.c, which adapts, adalora_budget.c, which decides what is kept, and adalora_pattern.c, which files it. */
#ifndef PEFT_ADALORA_H
#define PEFT_ADALORA_H

#include "peft/method.h"

enum { PEFT__ADALORA_A = 0, PEFT__ADALORA_B = 1, PEFT__ADALORA_E = 2 };

/* The schedule of a run, in steps that count from 0. */
typedef struct peft__adalora_plan {
    int64_t init, target;        /* triplets of all modules together: at first, in the end */
    int64_t tinit, tfinal, every, total;
} peft__adalora_plan;

/* total: of the run, where total_step does not say. PEFT_E_INVALID where the options leave no steps to prune in. */
peft_status peft__adalora_schedule(const peft__adapter *a, int64_t total, peft__adalora_plan *out);
int64_t peft__adalora_budget(const peft__adalora_plan *p, int64_t step); /* triplets that may be left after it */
bool peft__adalora_masks(const peft__adalora_plan *p, int64_t step);     /* are they chosen anew after it */

int64_t peft__adalora_state_count(const peft__adapter *a);
peft_status peft__adalora_after_step(peft__adapter *a, const peft__real *grads, double gscale, int64_t step, int64_t total,
                                     peft__real *state);

/* adalora_pattern.c. The option rank_pattern as a tree in the arena, NULL where it is unset; a module's rank by it; are all its
 * keys those of targets: PEFT_E_KEY. */
peft_status peft__adalora_pattern(const peft__adapter *a, peft__arena *arena, const peft__json **out);
peft_status peft__adalora_rank(const peft__adapter *a, const char *path, const peft__json *pattern, int64_t *out);
peft_status peft__adalora_check_pattern(const peft__adapter *a, const peft__json *pattern);
peft_status peft__adalora_plain(const peft__adapter *a, peft__adapter **out);
peft_status peft__adalora_simplify(const peft__adapter *a, peft__adapter **out);

/* Values of a module's parameter by its slot. */
peft__real *peft__adalora_values(const peft__adapter *a, const peft__attachment *at, int32_t slot);

#endif
