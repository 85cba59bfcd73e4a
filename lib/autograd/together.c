/* together.c - short ops of different groups at a time, each group's on one thread.
 *
 * Where a batch's rows have adapters of their own, a layer's product is followed by two small ones for each group: h = x A', y += s h B'.
 * For the few rows that a session continues, to divide such a product among threads costs as much as the product. Ops of one group
 * touch that group's rows of y and their own h only, so that the groups' run beside each other instead: the same ops in the same
 * order within a group, so the same bits.
 *
 * Left out: training and long batches, whose products are large enough to be divided; products rounded to bfloat16 (one room for all);
 * measured runs, as a time would belong to several ops. */
#include "autograd/plan.h"

#define TOGETHER_ROWS 64 /* at most as many: 8 rows of 8 groups, or some that begin with a few tokens */

static bool together_may(const peft__tape *t, const peft__aliases *al, int32_t i) {
    const peft__op *op = peft__tape_op(t, i);
    if (op->group < 0 || (op->kind->flags & PEFT__OPF_APART) == 0) { return false; }
    if (peft__tape_value(t, op->in[0])->space != PEFT__SPACE_TOKENS) { return false; }
    return (op->kind->flags & PEFT__OPF_INPLACE0) == 0 || al->data[op->in[0]] == al->data[op->out[0]];
}

void peft__plan_together(peft__plan *p, const peft__tape *t, const peft__aliases *al) {
    for (int64_t i = 0, end; i < p->n_forward && !p->training; i = end) {
        for (end = i; end < p->n_forward && together_may(t, al, p->steps[end].op); end++) {}
        bool several = end > i && peft__tape_op(t, p->steps[i].op)->group != peft__tape_op(t, p->steps[end - 1].op)->group;
        p->steps[i].together = several ? (int32_t)(end - i) : 0;
        end = PEFT__MAX(end, i + 1);
    }
}

typedef struct together_job {
    const peft__exec *x;
    const peft__plan_step *steps;
    int32_t n;
} together_job;

/* The ops of one group. */
static void together_task(void *arg, int64_t group, int32_t worker) {
    const together_job *job = arg;
    peft__exec x = *job->x;
    x.run.pool = job->x->alone;
    x.run.workers = 1;
    x.run.scratch += (size_t)worker * x.run.scratch_size;
    for (int32_t i = 0; i < job->n; i++) {
        const peft__op *op = peft__tape_op(x.tape, job->steps[i].op);
        if (op->group == group) { op->kind->forward(&x, op); }
    }
}

bool peft__exec_together(peft__exec *x, const peft__plan_step *s) {
    const peft__frame *f = x->frame;
    bool few = f->row_groups != NULL && f->count[PEFT__SPACE_TOKENS] <= TOGETHER_ROWS;
    if (!few || x->alone == NULL || x->run.rounded != NULL || x->profile != NULL) { return false; }
    together_job job = {x, s, s->together};
    int64_t groups = 0;
    for (int32_t i = 0; i < job.n; i++) { groups = PEFT__MAX(groups, peft__tape_op(x->tape, s[i].op)->group + 1); }
    peft__pool_run(x->run.pool, together_task, &job, groups);
    return true;
}
