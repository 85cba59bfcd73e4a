/* adalora_budget.c - AdaLoRA's budget: how many triplets may be left after a step, and which.
 *
 * Zhang et al. 2023, arXiv 2303.10512, section 3.2 and algorithm 1, in the form of Hugging Face PEFT's RankAllocator:
 *   I = |w g|     S = b1 S + (1 - b1) I     U = b2 U + (1 - b2) |I - S|     for each element w of A, B, E with gradient g
 *   score of triplet i = (S U)(E_i) + mean over j of (S U)(A_ij) + mean over k of (S U)(B_ki)
 *   budget after step t = b0 for t <= tinit; int((b0 - bT) (1 - (t - tinit) / (T - tfinal - tinit))^3 + bT) until T - tfinal
 * where b0 is init_r and bT target_r times the number of modules, T total_step. After every deltaT-th step past tinit the
 * b0 - budget lowest scores of all modules together lose their E, and ties with the highest of these lose it too; E may grow
 * again until the next choice. At step T - tfinal the choice is final, and holds after every later step.
 *
 * Steps count from 0, as in PEFT's example, which calls update_and_allocate(0) after the first update; w is its value after the
 * update, g the gradient that made it. After a run's last step the last choice is applied once more, which is what PEFT's
 * save_pretrained does to the file: the adapter in memory and its file agree.
 *
 * State of a job: S and U [n_trainable] each; for each triplet, in order of modules: whether it is out, its score, a copy to sort.
 *
 * Left out: DeepSpeed's gathered gradients. */
#include <math.h>

#include "peft/adalora.h"

/* ---- the schedule -------------------------------------------------------------------------------------------- */

peft_status peft__adalora_schedule(const peft__adapter *a, int64_t total, peft__adalora_plan *out) {
    peft_status st = PEFT_OK;
    static const char *const betas[] = {"beta1", "beta2"};
    int64_t init = peft__opt_int(&a->opts, "init_r"), target = peft__opt_int(&a->opts, "target_r"), modules = 0;
    int64_t given = peft__opt_int(&a->opts, "total_step");
    for (size_t j = 0; j < a->attachments.len; j++) { modules += PEFT__VEC_AT(&a->attachments, peft__attachment, j).product; }
    *out = (peft__adalora_plan){.init = init * modules,
                                .target = target * modules,
                                .tinit = peft__opt_int(&a->opts, "tinit"),
                                .tfinal = peft__opt_int(&a->opts, "tfinal"),
                                .every = peft__opt_int(&a->opts, "deltaT"),
                                .total = given > 0 ? given : total};
    if (target > init) {
        FAIL(PEFT_E_INVALID, "adapter \"%s\": target_r is %lld, more than init_r %lld", a->name, (long long)target,
             (long long)init);
    }
    for (size_t i = 0; i < PEFT__COUNT(betas); i++) {
        double beta = peft__opt_float(&a->opts, betas[i]);
        if (!(beta > 0 && beta < 1)) {
            FAIL(PEFT_E_INVALID, "adapter \"%s\": %s is %g; it must lie between 0 and 1", a->name, betas[i], beta);
        }
    }
    if (out->total <= 0) {
        FAIL(PEFT_E_INVALID, "adapter \"%s\": total_step is not set, and the trainer has no max_steps to take for it", a->name);
    }
    if (out->total - out->tinit <= out->tfinal) {
        FAIL(PEFT_E_INVALID, "adapter \"%s\": of %lld steps%s, tinit %lld and tfinal %lld leave none to prune in", a->name,
             (long long)out->total, given > 0 ? " (total_step)" : " of the run", (long long)out->tinit, (long long)out->tfinal);
    }
out:
    return st;
}

int64_t peft__adalora_budget(const peft__adalora_plan *p, int64_t step) {
    if (step <= p->tinit) { return p->init; }
    if (step > p->total - p->tfinal) { return p->target; }
    double left = 1 - (double)(step - p->tinit) / (double)(p->total - p->tfinal - p->tinit);
    return (int64_t)((double)(p->init - p->target) * pow(left, 3) + (double)p->target);
}

bool peft__adalora_masks(const peft__adalora_plan *p, int64_t step) {
    int64_t last = p->total - p->tfinal;
    return step > p->tinit && step <= last && (step % p->every == 0 || step == last);
}

/* ---- importance ---------------------------------------------------------------------------------------------- */

typedef struct budget_betas {
    peft__real b1, c1, b2, c2; /* c = 1 - b */
    peft__real gscale;
} budget_betas;

static void budget_smooth(const budget_betas *b, const peft__real *w, const peft__real *g, peft__real *s, peft__real *u,
                          int64_t n) {
    for (int64_t e = 0; e < n; e++) {
        peft__real product = w[e] * (b->gscale * g[e]), i = product < 0 ? -product : product;
        s[e] = b->b1 * s[e] + b->c1 * i;
        u[e] = b->b2 * u[e] + b->c2 * (i < s[e] ? s[e] - i : i - s[e]);
    }
}

static void budget_smooth_all(const peft__adapter *a, const peft__real *grads, double gscale, peft__real *state) {
    double b1 = peft__opt_float(&a->opts, "beta1"), b2 = peft__opt_float(&a->opts, "beta2");
    budget_betas b = {PEFT__R(b1), PEFT__R(1 - b1), PEFT__R(b2), PEFT__R(1 - b2), PEFT__R(gscale)};
    for (size_t i = 0; i < peft__adapter_param_count(a); i++) {
        const peft__adapter_param *p = peft__adapter_param_at(a, i);
        int64_t at = p->p.value - a->values;
        if (p->whole) { continue; }
        budget_smooth(&b, p->p.value, grads + at, state + at, state + a->n_trainable + at, p->p.rows * p->p.cols);
    }
}

/* Mean of s u over n elements that lie `stride` apart. */
static double budget_mean(const peft__real *s, const peft__real *u, int64_t n, int64_t stride) {
    double sum = 0;
    for (int64_t e = 0; e < n; e++) { sum += (double)(s[e * stride] * u[e * stride]); }
    return sum / (double)n;
}

/* out[rank]: scores of one module's triplets. */
static void budget_scores(const peft__adapter *a, const peft__attachment *at, const peft__real *state, peft__real *out) {
    const peft__site *site = &a->base->sites[at->site];
    int64_t r = at->rank;
    const peft__real *sa = state + (peft__adalora_values(a, at, PEFT__ADALORA_A) - a->values), *ua = sa + a->n_trainable;
    const peft__real *sb = state + (peft__adalora_values(a, at, PEFT__ADALORA_B) - a->values), *ub = sb + a->n_trainable;
    const peft__real *se = state + (peft__adalora_values(a, at, PEFT__ADALORA_E) - a->values), *ue = se + a->n_trainable;
    for (int64_t i = 0; i < r; i++) {
        peft__real row = PEFT__R(budget_mean(sa + i * site->in, ua + i * site->in, site->in, 1));
        peft__real column = PEFT__R(budget_mean(sb + i, ub + i, site->out, r));
        out[i] = se[i] * ue[i] + (row + column);
    }
}

/* ---- the choice ---------------------------------------------------------------------------------------------- */

static void budget_sift(peft__real *v, int64_t at, int64_t n) {
    for (int64_t child = 2 * at + 1; child < n; child = 2 * at + 1) {
        if (child + 1 < n && v[child + 1] > v[child]) { child++; }
        if (!(v[child] > v[at])) { return; }
        peft__real swap = v[at];
        v[at] = v[child];
        v[child] = swap;
        at = child;
    }
}

/* Heap sort, rising: no memory, and no order of equals that could matter. */
static void budget_sort(peft__real *v, int64_t n) {
    for (int64_t i = n / 2; i-- > 0;) { budget_sift(v, i, n); }
    for (int64_t end = n; end-- > 1;) {
        peft__real swap = v[0];
        v[0] = v[end];
        v[end] = swap;
        budget_sift(v, 0, end);
    }
}

/* E becomes 0 where a triplet is out. */
static void budget_apply(peft__adapter *a, const peft__real *dropped) {
    for (size_t j = 0; j < a->attachments.len; j++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, j);
        if (!at->product) { continue; }
        peft__real *e = peft__adalora_values(a, at, PEFT__ADALORA_E);
        for (int64_t i = 0; i < at->rank; i++) {
            if (dropped[i] > 0) { e[i] = 0; }
        }
        dropped += at->rank;
    }
}

/* The lowest `n` of the scores, and what equals the highest of them, are out; the others are in again. */
static void budget_choose(peft__adapter *a, const peft__adalora_plan *p, int64_t n, peft__real *state) {
    peft__real *dropped = state + 2 * a->n_trainable, *scores = dropped + p->init, *sorted = scores + p->init, *next = scores;
    for (size_t j = 0; j < a->attachments.len; j++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, j);
        if (!at->product) { continue; }
        budget_scores(a, at, state, next);
        next += at->rank;
    }
    memcpy(sorted, scores, (size_t)p->init * sizeof *sorted);
    budget_sort(sorted, p->init);
    for (int64_t i = 0; i < p->init; i++) { dropped[i] = n > 0 && scores[i] <= sorted[n - 1] ? 1 : 0; }
}

/* ---- the trainer's calls ------------------------------------------------------------------------------------- */

/* What is left of an adapter with a pattern stays. */
static bool budget_is_fixed(const peft__adapter *a) { return peft__opt_str(&a->opts, "rank_pattern")[0] != '\0'; }

int64_t peft__adalora_state_count(const peft__adapter *a) {
    int64_t triplets = 0;
    if (budget_is_fixed(a)) { return 0; }
    for (size_t j = 0; j < a->attachments.len; j++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, j);
        triplets += at->product ? at->rank : 0;
    }
    return 2 * a->n_trainable + 3 * triplets;
}

peft_status peft__adalora_after_step(peft__adapter *a, const peft__real *grads, double gscale, int64_t step, int64_t total,
                                     peft__real *state) {
    peft_status st = PEFT_OK;
    peft__adalora_plan p;
    int64_t at = step - 1;
    if (budget_is_fixed(a)) { return PEFT_OK; }
    TRY(peft__adalora_schedule(a, total, &p));
    a->shared[0] = PEFT__R((double)p.total);
    if (at < p.total - p.tfinal) { budget_smooth_all(a, grads, gscale, state); }
    bool choose = peft__adalora_masks(&p, at);
    if (choose) { budget_choose(a, &p, p.init - peft__adalora_budget(&p, at), state); }
    if (choose || at > p.total - p.tfinal || step == total) { budget_apply(a, state + 2 * a->n_trainable); }
out:
    return st;
}
