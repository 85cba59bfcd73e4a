/* optim.c - what all optimisers share: options, schedules, clipping and the parallel loop.
 *
 * Schedules are those of transformers.get_scheduler: warm-up from 0 over warmup_steps, then
 *   linear      to 0 at total_steps
 *   cosine      half a cosine wave to 0
 *   polynomial  lr (1 - progress)^power, down to min_ratio
 *   constant    (with warm-up)
 * Clipping is torch.nn.utils.clip_grad_norm_: g *= min(1, max_norm / (norm + 1e-6)). */
#include "optim/optim.h"

#include <math.h>

#include "optim/kinds.h"

static const peft__option optim_options[] = {
    {"optimizer", PEFT__OPT_STR, "adamw", 1, 0, "adamw|sgd|lion", "update rule"},
    {"learning_rate", PEFT__OPT_FLOAT, "0", 0, 1e6, NULL, "peak learning rate; 0: the method's own default"},
    {"weight_decay", PEFT__OPT_FLOAT, "0", 0, 1e6, NULL, "decoupled weight decay"},
    {"adam_beta1", PEFT__OPT_FLOAT, "0.9", 0, 0.999999, NULL, "decay of the gradient's average (adamw, lion)"},
    {"adam_beta2", PEFT__OPT_FLOAT, "0.999", 0, 0.999999, NULL,
     "decay of the squared gradient's average (adamw), of the momentum (lion)"},
    {"adam_epsilon", PEFT__OPT_FLOAT, "1e-8", 1e-30, 1, NULL, "added to the denominator (adamw)"},
    {"momentum", PEFT__OPT_FLOAT, "0", 0, 1, NULL, "momentum (sgd)"},
    {"lr_scheduler_type", PEFT__OPT_STR, "linear", 1, 0, "linear|cosine|constant|polynomial|constant_with_warmup",
     "course of the learning rate"},
    {"warmup_steps", PEFT__OPT_INT, "0", 0, 1e15, NULL, "steps over which the learning rate rises from 0"},
    {"warmup_ratio", PEFT__OPT_FLOAT, "0", 0, 1, NULL, "the same as a share of all steps, where warmup_steps is 0"},
    {"lr_power", PEFT__OPT_FLOAT, "1", 0, 100, NULL, "power of the polynomial schedule"},
    {"lr_min_ratio", PEFT__OPT_FLOAT, "0", 0, 1, NULL, "lowest learning rate as a share of the peak"},
    {"max_grad_norm", PEFT__OPT_FLOAT, "1", 0, 1e30, NULL, "gradients are clipped to this norm; 0: never"},
    {"max_steps", PEFT__OPT_INT, "0", 0, 1e15, NULL, "steps of this job; 0: as num_train_epochs or the trainer say"},
    {"num_train_epochs", PEFT__OPT_FLOAT, "0", 0, 1e9, NULL, "passes of this job over its data; 0: as the trainer says"},
    {"share", PEFT__OPT_FLOAT, "1", 1e-6, 1e9, NULL, "weight of this job where several divide a batch (job_sampling)"},
    {"early_stopping_patience", PEFT__OPT_INT, "0", 0, 1e9, NULL,
     "stop this job after so many evaluations without a lower loss; 0: never"},
    {"early_stopping_threshold", PEFT__OPT_FLOAT, "0", 0, 1e9, NULL, "how much lower a loss must be to count as lower"},
};
const peft__schema peft__schema_optimizer = {"optimizer", optim_options, PEFT__COUNT(optim_options)};

static const peft__optim_kind *const optim_kinds[] = {&peft__optim_adamw, &peft__optim_sgd, &peft__optim_lion};

const peft__optim_kind *peft__optim_at(size_t index) {
    return index < PEFT__COUNT(optim_kinds) ? optim_kinds[index] : NULL;
}

const peft__optim_kind *peft__optim_find(const char *name) {
    for (size_t i = 0; i < PEFT__COUNT(optim_kinds); i++) {
        if (strcmp(optim_kinds[i]->name, name) == 0) { return optim_kinds[i]; }
    }
    return NULL;
}

size_t peft__optim_bytes(const peft__optim_kind *kind, int64_t n) {
    return (size_t)kind->states * (size_t)n * sizeof(peft__real);
}

static int32_t optim_schedule(const char *name) {
    if (strcmp(name, "cosine") == 0) { return PEFT__SCHEDULE_COSINE; }
    if (strcmp(name, "polynomial") == 0) { return PEFT__SCHEDULE_POLYNOMIAL; }
    return strcmp(name, "linear") == 0 ? PEFT__SCHEDULE_LINEAR : PEFT__SCHEDULE_CONSTANT;
}

peft_status peft__optim_create(peft__optim *o, peft__mem *mem, const peft__optset *opts, double default_lr,
                               peft__real *params, peft__real *grads, int64_t n, int64_t total_steps) {
    peft_status st = PEFT_OK;
    const char *name = peft__opt_str(opts, "optimizer");
    memset(o, 0, sizeof *o);
    o->kind = peft__optim_find(name);
    if (o->kind == NULL) { FAIL(PEFT_E_KEY, "option \"optimizer\" is \"%s\", expected adamw, sgd or lion", name); }
    o->mem = mem;
    peft__vec_init(&o->segments, mem, sizeof(peft__optim_segment));
    o->params = params;
    o->grads = grads;
    o->n = n;
    o->total_steps = total_steps;
    o->learning_rate = peft__opt_float(opts, "learning_rate");
    if (o->learning_rate <= 0) { o->learning_rate = default_lr; }
    o->weight_decay = peft__opt_float(opts, "weight_decay");
    o->beta1 = peft__opt_float(opts, "adam_beta1");
    o->beta2 = peft__opt_float(opts, "adam_beta2");
    o->epsilon = peft__opt_float(opts, "adam_epsilon");
    o->momentum = peft__opt_float(opts, "momentum");
    o->max_grad_norm = peft__opt_float(opts, "max_grad_norm");
    o->power = peft__opt_float(opts, "lr_power");
    o->min_ratio = peft__opt_float(opts, "lr_min_ratio");
    o->schedule = optim_schedule(peft__opt_str(opts, "lr_scheduler_type"));
    o->warmup_steps = peft__opt_int(opts, "warmup_steps");
    if (o->warmup_steps == 0) { o->warmup_steps = (int64_t)ceil(peft__opt_float(opts, "warmup_ratio") * (double)total_steps); }
    for (int32_t i = 0; i < o->kind->states; i++) {
        o->state[i] = peft__alloc_zero(mem, (size_t)n * sizeof(peft__real));
        if (o->state[i] == NULL) { st = PEFT_E_NOMEM; goto out; }
    }
out:
    if (st != PEFT_OK) { peft__optim_free(o); }
    return st;
}

peft_status peft__optim_add_segment(peft__optim *o, int64_t begin, int64_t end, double factor) {
    peft__optim_segment *last = o->segments.len > 0 ? &PEFT__VEC_AT(&o->segments, peft__optim_segment, o->segments.len - 1) : NULL;
    if (begin < 0 || end > o->n || begin >= end || (last != NULL && begin < last->end)) {
        return peft__fail(PEFT_E_INTERNAL, "segment [%lld, %lld) of the optimiser is out of order", (long long)begin, (long long)end);
    }
    if (last != NULL && last->end == begin && last->factor == factor) {
        last->end = end;
        return PEFT_OK;
    }
    peft__optim_segment s = {begin, end, factor};
    return peft__vec_push(&o->segments, &s);
}

void peft__optim_free(peft__optim *o) {
    if (o->mem != NULL) { peft__vec_free(&o->segments); }
    for (int32_t i = 0; i < 2 && o->mem != NULL; i++) { peft__free(o->mem, o->state[i], (size_t)o->n * sizeof(peft__real)); }
    memset(o, 0, sizeof *o);
}

double peft__optim_rate(const peft__optim *o, int64_t step) {
    double s = (double)step, warm = (double)o->warmup_steps, total = (double)o->total_steps, factor = 1;
    if (step < o->warmup_steps) { return o->learning_rate * s / PEFT__MAX(warm, 1.0); }
    if (o->total_steps == 0) { return o->learning_rate; } /* the end is not known */
    double progress = total > warm ? PEFT__MIN((s - warm) / (total - warm), 1.0) : 1.0;
    if (o->schedule == PEFT__SCHEDULE_LINEAR) { factor = 1 - progress; }
    if (o->schedule == PEFT__SCHEDULE_COSINE) {
        double sine, cosine;
        peft__sin_cos(progress * 3.14159265358979323846, &sine, &cosine);
        factor = 0.5 * (1 + cosine);
    }
    if (o->schedule == PEFT__SCHEDULE_POLYNOMIAL) { factor = pow(1 - progress, o->power); }
    return o->learning_rate * (o->min_ratio + (1 - o->min_ratio) * factor);
}

/* ---- loops in fixed pieces ------------------------------------------------------------------------------------------- */

enum { OPTIM_PIECE = 1 << 15 };

typedef struct optim_loop {
    const peft__optim *o;
    const peft__kernels *k;
    peft__real gscale;
    double rate;
    double *sums; /* one a piece */
} optim_loop;

static void optim_norm_piece(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const optim_loop *l = arg;
    (void)worker;
    for (int64_t p = begin; p < end; p++) {
        int64_t from = p * OPTIM_PIECE, to = PEFT__MIN(from + OPTIM_PIECE, l->o->n);
        l->sums[p] = l->k->sum_sq(l->o->grads + from, to - from);
    }
}

double peft__optim_grad_norm(const peft__optim *o, const peft__run *run, double gscale) {
    int64_t pieces = (o->n + OPTIM_PIECE - 1) / OPTIM_PIECE, fit = (int64_t)(run->scratch_size / sizeof(double));
    optim_loop l = {o, run->k, 0, 0, (double *)(void *)run->scratch};
    double total = 0;
    if (pieces > fit) { /* more than a worker's scratch holds: one thread, the same order */
        for (int64_t p = 0; p < pieces; p++) {
            int64_t from = p * OPTIM_PIECE, to = PEFT__MIN(from + OPTIM_PIECE, o->n);
            total += run->k->sum_sq(o->grads + from, to - from);
        }
        return sqrt(total) * gscale;
    }
    peft__rows(run, pieces, 1, optim_norm_piece, &l);
    for (int64_t p = 0; p < pieces; p++) { total += l.sums[p]; }
    return sqrt(total) * gscale;
}

/* [from, to), each part at the rate of its segment. */
static void optim_update(const optim_loop *l, int64_t from, int64_t to) {
    const peft__optim *o = l->o;
    const peft__optim_segment *all = o->segments.data;
    for (size_t i = 0; i < o->segments.len && from < to; i++) {
        if (all[i].end <= from) { continue; }
        int64_t begin = PEFT__MIN(all[i].begin, to), end = PEFT__MIN(all[i].end, to);
        if (begin > from) { o->kind->update(o, l->k, from, begin, l->gscale, l->rate); }
        from = PEFT__MAX(from, begin);
        if (end > from) { o->kind->update(o, l->k, from, end, l->gscale, l->rate * all[i].factor); }
        from = PEFT__MAX(from, end);
    }
    if (from < to) { o->kind->update(o, l->k, from, to, l->gscale, l->rate); }
}

static void optim_step_piece(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const optim_loop *l = arg;
    (void)worker;
    for (int64_t p = begin; p < end; p++) {
        int64_t from = p * OPTIM_PIECE, to = PEFT__MIN(from + OPTIM_PIECE, l->o->n);
        optim_update(l, from, to);
    }
}

double peft__optim_step(peft__optim *o, const peft__run *run, double gscale, double norm) {
    double rate = peft__optim_rate(o, o->step);
    if (o->max_grad_norm > 0) { gscale *= PEFT__MIN(1.0, o->max_grad_norm / (norm + 1e-6)); }
    o->step++;
    optim_loop l = {o, run->k, PEFT__R(gscale), rate, NULL};
    peft__rows(run, (o->n + OPTIM_PIECE - 1) / OPTIM_PIECE, 1, optim_step_piece, &l);
    return gscale;
}
