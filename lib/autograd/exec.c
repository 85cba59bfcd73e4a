/* exec.c - running a plan: the steps in order, with all memory taken beforehand. */
#include "autograd/plan.h"
#include "autograd/profile.h"

peft_status peft__exec_create(peft__exec *x, peft__mem *mem, const peft__tape *t, const peft__plan *p,
                              const peft__kernels *k, peft__pool *pool) {
    peft_status st = PEFT_OK;
    memset(x, 0, sizeof *x);
    x->mem = mem;
    x->tape = t;
    x->plan = p;
    x->run.k = k;
    x->run.pool = pool;
    x->run.workers = peft__pool_size(pool);
    x->run.scratch_size = p->scratch_bytes / (size_t)x->run.workers;
    x->block = peft__alloc(mem, p->block_bytes);
    x->run.scratch = peft__alloc(mem, p->scratch_bytes);
#ifndef PEFT_MINIMAL
    if (p->caps.bf16 && x->run.scratch != NULL) { /* behind the workers' own */
        x->run.scratch_size = (p->scratch_bytes - PEFT__ROUNDED_BYTES) / (size_t)x->run.workers;
        x->run.rounded = x->run.scratch + (p->scratch_bytes - PEFT__ROUNDED_BYTES);
    }
#endif
    x->scratch = peft__alloc(mem, p->op_scratch_bytes);
    x->grad_written = peft__alloc_zero(mem, (size_t)p->n_values * sizeof(bool));
    x->backward_place = peft__alloc_zero(mem, (size_t)p->n_values * sizeof(bool));
    if (x->block == NULL || x->run.scratch == NULL || x->scratch == NULL || x->grad_written == NULL ||
        x->backward_place == NULL) {
        st = PEFT_E_NOMEM;
    }
#ifndef PEFT_MINIMAL
    if (st == PEFT_OK && !p->training && x->run.workers > 1) { st = peft__pool_create(mem, 1, &x->alone); }
#endif
    if (st != PEFT_OK) { peft__exec_free(x); }
    return st;
}

void peft__exec_free(peft__exec *x) {
    if (x->mem == NULL) { return; }
#ifndef PEFT_MINIMAL
    peft__pool_free(x->alone);
#endif
    peft__free(x->mem, x->block, x->plan->block_bytes);
    peft__free(x->mem, x->run.scratch, x->plan->scratch_bytes);
    peft__free(x->mem, x->scratch, x->plan->op_scratch_bytes);
    peft__free(x->mem, x->grad_written, (size_t)x->plan->n_values * sizeof(bool));
    peft__free(x->mem, x->backward_place, (size_t)x->plan->n_values * sizeof(bool));
    memset(x, 0, sizeof *x);
}

static peft_status exec_check(const peft__exec *x, const peft__frame *f) {
    const peft__caps *c = &x->plan->caps;
    if (f->count[PEFT__SPACE_SOURCE] > c->max_source) {
        return peft__fail(PEFT_E_SHAPE, "a batch with %lld tokens for the encoder is larger than the plan's %lld",
                          (long long)f->count[PEFT__SPACE_SOURCE], (long long)c->max_source);
    }
    if (f->n_rows > c->max_rows || f->count[PEFT__SPACE_INPUT] > c->max_tokens) {
        return peft__fail(PEFT_E_SHAPE, "a batch of %lld rows and %lld tokens is larger than the plan's %lld and %lld",
                          (long long)f->n_rows, (long long)f->count[PEFT__SPACE_INPUT], (long long)c->max_rows,
                          (long long)c->max_tokens);
    }
    for (int64_t r = 0; r < f->n_rows; r++) {
        int64_t n = f->offsets[PEFT__SPACE_TOKENS][r + 1] - f->offsets[PEFT__SPACE_TOKENS][r];
        if (f->cache != NULL) { n += f->cache->length[f->cache_rows[r]]; }
        int32_t task = f->row_tasks != NULL ? f->row_tasks[r] : 0;
        if (x->tape->tasks > 0 && (task < 0 || task >= x->tape->tasks)) {
            return peft__fail(PEFT_E_SHAPE, "row %lld has task_id %d, and the adapter's num_tasks is %lld", (long long)r, (int)task,
                              (long long)x->tape->tasks);
        }
        const int64_t *source = f->offsets[PEFT__SPACE_SOURCE];
        if (source != NULL && source[r + 1] - source[r] > c->max_source_length) {
            return peft__fail(PEFT_E_SHAPE, "row %lld has %lld tokens for the encoder, more than the plan's %lld", (long long)r,
                              (long long)(source[r + 1] - source[r]), (long long)c->max_source_length);
        }
        if (n > c->max_length + x->tape->virtual_tokens + x->tape->prefix_tokens) {
            return peft__fail(PEFT_E_SHAPE, "row %lld has %lld tokens, more than the plan's %lld", (long long)r, (long long)n,
                              (long long)c->max_length);
        }
    }
    return PEFT_OK;
}

static void exec_step(peft__exec *x, const peft__plan_step *s) {
    const peft__op *op = peft__tape_op(x->tape, s->op);
    x->op_scratch = (op->kind->flags & PEFT__OPF_LOSS) != 0 ? x->block + x->plan->loss_place : x->scratch;
    if (s->phase == PEFT__PHASE_BACKWARD) {
        op->kind->backward(x, op);
        return;
    }
#ifndef PEFT_MINIMAL
    if (s->phase >= PEFT__PHASE_PACK) {
        peft__pack_step(x, s);
        return;
    }
#endif
    if (s->phase == PEFT__PHASE_REBUILD) {
        for (int32_t j = 0; j < op->n_out; j++) { x->backward_place[op->out[j]] = x->plan->dropped[op->out[j]]; }
    }
    op->kind->forward(x, op);
}

/* The same, with its time where that is asked for. */
static void exec_measured(peft__exec *x, const peft__plan_step *s) {
#ifndef PEFT_MINIMAL
    if (x->profile != NULL) {
        double begun = peft__clock();
        exec_step(x, s);
        peft__profile_add(x->profile, x, s, peft__clock() - begun);
        return;
    }
#endif
    exec_step(x, s);
}

/* A session goes on with rows: what stands before their first tokens is in the cache, and values of a number of rows of their
 * own are only for that. */
static bool exec_goes_on(const peft__frame *f) {
    if (f->cache == NULL) { return false; }
    for (int64_t r = 0; r < f->n_rows; r++) {
        if (f->cache->length[f->cache_rows[r]] == 0) { return false; }
    }
    return true;
}

/* Is the op only for what stands before a row's first tokens? The encoder's states are, as cross attention reads the cache. */
static bool exec_is_before(const peft__tape *t, const peft__op *op) {
    if (op->n_out == 0) { return false; }
    int32_t space = peft__tape_value(t, op->out[0])->space;
    if (space == PEFT__SPACE_FIXED) { return !t->past_again; }
    if (space == PEFT__SPACE_SOURCE || space == PEFT__SPACE_ENCODER) { return true; }
    int32_t from = op->n_in > 0 && op->in[0] != PEFT__NONE ? peft__tape_value(t, op->in[0])->space : PEFT__SPACE_TOKENS;
    return space == PEFT__SPACE_ROWS && (from == PEFT__SPACE_SOURCE || from == PEFT__SPACE_ENCODER); /* gates: means of them */
}

peft_status peft__exec_run(peft__exec *x, peft__frame *frame, bool backward) {
    peft_status st = exec_check(x, frame);
    if (st != PEFT_OK) { return st; }
    if (backward && !x->plan->training) { return peft__fail(PEFT_E_INTERNAL, "a plan for inference has no backward pass"); }
    size_t n = (size_t)x->plan->n_values * sizeof(bool);
    memset(x->grad_written, 0, n);
    memset(x->backward_place, 0, n);
    frame->loss_sum = frame->nll_sum = frame->weight_sum = frame->divisor = 0;
    memset(frame->group_loss, 0, sizeof frame->group_loss);
    memset(frame->group_divisor, 0, sizeof frame->group_divisor);
    frame->labelled = frame->correct = 0;
    frame->loss_failed = false;
    x->frame = frame;
    x->training = backward;
    int64_t last = backward ? x->plan->n_steps : x->plan->n_forward;
    bool goes_on = exec_goes_on(frame);
    for (int64_t i = 0; i < last; i++) {
        const peft__plan_step *s = &x->plan->steps[i];
        bool loss = (peft__tape_op(x->tape, s->op)->kind->flags & PEFT__OPF_LOSS) != 0;
        if (goes_on && exec_is_before(x->tape, peft__tape_op(x->tape, s->op))) { continue; }
        if (backward && loss && s->phase == PEFT__PHASE_FORWARD) { continue; } /* done with its gradient, in one go */
        if (!backward && s->phase != PEFT__PHASE_FORWARD) { continue; }        /* nothing waits for a backward pass */
#ifndef PEFT_MINIMAL
        if (s->together > 0 && peft__exec_together(x, s)) {
            i += s->together - 1;
            continue;
        }
#endif
        exec_measured(x, s);
    }
#ifndef PEFT_MINIMAL
    if (x->profile != NULL) { x->profile->runs++; }
#endif
    x->frame = NULL;
    return PEFT_OK;
}

int64_t peft__exec_rows(const peft__exec *x, peft__val v) {
    const peft__value *val = peft__tape_value(x->tape, v);
    return val->space == PEFT__SPACE_FIXED ? val->fixed : x->frame->count[val->space];
}

bool peft__exec_next(const peft__exec *x, const peft__op *op, peft__val v, int64_t *row, int64_t *begin, int64_t *end) {
    const peft__frame *f = x->frame;
    const int32_t *groups = f->row_groups;
    int32_t space = peft__tape_value(x->tape, v)->space;
    int64_t n = *row;
    if (op->group < 0 || groups == NULL || space == PEFT__SPACE_FIXED) {
        *begin = 0;
        *end = peft__exec_rows(x, v);
        *row = INT64_MAX;
        return n == 0;
    }
    const int64_t *offsets = f->offsets[space];
    while (n < f->n_rows && groups[n] != op->group) { n++; }
    if (n >= f->n_rows) { return false; }
    *begin = offsets != NULL ? offsets[n] : n;
    while (n < f->n_rows && groups[n] == op->group) { n++; }
    *end = offsets != NULL ? offsets[n] : n;
    *row = n;
    return true;
}

peft__real *peft__exec_data(const peft__exec *x, peft__val v) {
    const peft__value *val = peft__tape_value(x->tape, v);
    peft__val of = val->parent == PEFT__NONE ? v : val->parent;
    size_t at = x->backward_place[of] ? x->plan->rebuilt_place[of] : x->plan->place[of];
    return (peft__real *)(void *)(x->block + at) + (val->parent == PEFT__NONE ? 0 : val->col);
}

int64_t peft__exec_ld(const peft__exec *x, peft__val v) {
    const peft__value *val = peft__tape_value(x->tape, v);
    return val->parent == PEFT__NONE ? val->cols : peft__tape_value(x->tape, val->parent)->cols;
}

static peft__real *exec_grad_at(const peft__exec *x, peft__val v) {
    const peft__value *val = peft__tape_value(x->tape, v);
    return (peft__real *)(void *)(x->block + x->plan->grad_place[v]) + (val->parent == PEFT__NONE ? 0 : val->col);
}

const peft__real *peft__exec_grad(const peft__exec *x, peft__val v) { return exec_grad_at(x, v); }

static void exec_zero(void *arg, int64_t begin, int64_t end, int32_t worker) {
    (void)worker;
    memset((peft__real *)arg + begin, 0, (size_t)(end - begin) * sizeof(peft__real));
}

peft__real *peft__exec_grad_out(peft__exec *x, peft__val v, bool *add) {
    if (v == PEFT__NONE || !peft__tape_value(x->tape, v)->needs_grad) { return NULL; }
    *add = x->grad_written[v];
    x->grad_written[v] = true;
    return exec_grad_at(x, v);
}

peft__real *peft__exec_grad_rows(peft__exec *x, const peft__op *op, peft__val v, bool *add) {
    peft__real *g = peft__exec_grad_out(x, v, add);
    if (g != NULL && !*add && op->group >= 0 && x->frame->row_groups != NULL) {
        peft__rows(&x->run, peft__exec_rows(x, v) * peft__tape_value(x->tape, v)->cols, 1 << 16, exec_zero, g);
        *add = true;
    }
    return g;
}

const peft__real *peft__exec_param(const peft__exec *x, int32_t param) {
    return param == PEFT__NONE ? NULL : peft__tape_param_at(x->tape, param)->value;
}

peft__real *peft__exec_param_grad(const peft__exec *x, int32_t param) {
    if (param == PEFT__NONE) { return NULL; }
    const peft__param *p = peft__tape_param_at(x->tape, param);
    return p->frozen ? NULL : p->grad;
}
