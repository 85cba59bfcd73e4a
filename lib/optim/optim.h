/* optim.h - layer 3: optimisers over flat vectors of parameters, learning-rate schedules and clipping.
 *
 * An optimiser is one descriptor in one file. It sees reals in a row and knows nothing of tensors, models or methods. */
#ifndef PEFT_OPTIM_H
#define PEFT_OPTIM_H

#include "base/options.h"
#include "kernels/kernels.h"

struct peft__optim;

typedef struct peft__optim_kind {
    const char *name;            /* "adamw" */
    int32_t states;              /* vectors of state, each as long as the parameters */
    const char *state_names[2];  /* "m", "v" */
    /* Updates elements [begin, end). step counts from 1. gscale multiplies each gradient. */
    void (*update)(const struct peft__optim *o, const peft__kernels *k, int64_t begin, int64_t end, peft__real gscale,
                   double learning_rate);
} peft__optim_kind;

/* A stretch of the parameters that learns at `factor` times the rate. */
typedef struct peft__optim_segment {
    int64_t begin, end;
    double factor;
} peft__optim_segment;

typedef struct peft__optim {
    const peft__optim_kind *kind;
    peft__mem *mem;
    peft__real *params, *grads;  /* borrowed, [n] */
    peft__real *state[2];        /* owned, [n] each */
    int64_t n, step;             /* elements; updates done */
    double learning_rate, weight_decay, beta1, beta2, epsilon, momentum;
    double max_grad_norm;        /* 0: no clipping */
    int32_t schedule;            /* PEFT__SCHEDULE_* */
    int64_t warmup_steps, total_steps;
    peft__vec segments;          /* of peft__optim_segment, rising and apart; elsewhere the factor is 1 */
    double power, min_ratio;     /* polynomial's power; lowest learning rate as a share of the first */
} peft__optim;

extern const peft__schema peft__schema_optimizer;
const peft__optim_kind *peft__optim_at(size_t index); /* NULL past the end */
const peft__optim_kind *peft__optim_find(const char *name); /* NULL: there is none */

/* opts: schema "optimizer". default_lr stands in for a learning rate of 0. total_steps: length of the schedule,
 * 0: unknown, the rate then stays at its peak. */
peft_status peft__optim_create(peft__optim *o, peft__mem *mem, const peft__optset *opts, double default_lr,
                               peft__real *params, peft__real *grads, int64_t n, int64_t total_steps);
/* Segments are added in rising order. */
peft_status peft__optim_add_segment(peft__optim *o, int64_t begin, int64_t end, double factor);
void peft__optim_free(peft__optim *o); /* a zeroed one is fine */
size_t peft__optim_bytes(const peft__optim_kind *kind, int64_t n); /* of state */
/* Norm of gscale * gradient, accumulated in double in fixed pieces. */
double peft__optim_grad_norm(const peft__optim *o, const peft__run *run, double gscale);
/* Learning rate of update number `step` (from 0). */
double peft__optim_rate(const peft__optim *o, int64_t step);
/* Clips to max_grad_norm given the norm (as torch.nn.utils.clip_grad_norm_ does) and updates. Returns gscale with the clipping. */
double peft__optim_step(peft__optim *o, const peft__run *run, double gscale, double norm);

enum {
    PEFT__SCHEDULE_LINEAR = 0, PEFT__SCHEDULE_COSINE = 1, PEFT__SCHEDULE_CONSTANT = 2, PEFT__SCHEDULE_POLYNOMIAL = 3
};

#endif
