/* loop.c - steps: batches forward and backward, one update, and what happens between updates (progress, evaluation, saving).
 *
 * A step's loss is the mean over the labelled tokens (of classifications: rows) of all its batches, before the update. Gradients are
 * summed and divided once, in the update, so that accumulation over batches is exact. A loss that is no finite number ends the run
 * before the update: parameters and optimiser are then those of the last good step. */
#include <math.h>

#include "train/loop.h"

/* Layers that this step leaves out: as many as the member that leaves out most (AdapterDrop). */
static int32_t loop_skips(const struct peft_trainer *t) {
    int32_t most = 0;
    const peft__job *job = peft__trainer_job(t);
    for (size_t i = 0; i < job->members.len; i++) {
        const peft__adapter *a = peft__trainer_member(job, i)->adapter;
        int32_t own = a->method->skip_layers != NULL ? a->method->skip_layers(a, t->seed, (uint64_t)t->step) : 0;
        most = PEFT__MAX(most, own);
    }
    return most;
}

/* What the sums of losses and gradients are divided by. */
static double loop_divisor(const struct peft_trainer *t) { return t->accumulated > 0 ? t->accumulated : 1; }

static peft_status loop_backward(struct peft_trainer *t) {
    peft_status st = PEFT_OK;
    peft__frame *f = &t->room.frame;
    f->seed = t->seed;
    f->step = (uint64_t)t->step;
    f->skip_layers = loop_skips(t);
    f->label_smoothing = peft__opt_float(&t->opts, "label_smoothing");
    f->class_weights = peft__trainer_job(t)->class_weights;
    f->similarity_scale = peft__opt_float(&t->opts, "similarity_scale");
    TRY(peft__exec_run(&t->exec, f, true));
    t->accumulated += f->divisor;
    t->accumulated_loss += f->loss_sum;
    t->accumulated_rows += f->n_rows;
    if (!isfinite(f->loss_sum)) {
        FAIL(PEFT_E_NUMERIC, "the loss of adapter \"%s\" at step %lld is not a finite number",
             peft__trainer_job(t)->expression.text, (long long)t->step + 1);
    }
out:
    return st;
}

static void loop_clear(struct peft_trainer *t) {
    peft__job *job = peft__trainer_job(t);
    for (size_t i = 0; i < job->members.len; i++) {
        peft__member *m = peft__trainer_member(job, i);
        memset(m->grads, 0, (size_t)m->adapter->n_trainable * sizeof(peft__real));
    }
    t->accumulated = 0;
    t->accumulated_loss = 0;
    t->accumulated_rows = 0;
}

/* Terms that methods add to the loss, and the norm of all gradients together. weight: what the sums are divided by. */
static peft_status loop_norm(struct peft_trainer *t, double weight, double *norm, double *extra) {
    peft_status st = PEFT_OK;
    peft__job *job = peft__trainer_job(t);
    double squares = 0;
    *extra = 0;
    for (size_t i = 0; i < job->members.len; i++) {
        peft__member *m = peft__trainer_member(job, i);
        const peft__method *method = m->adapter->method;
        if (method->regularise != NULL) { TRY(method->regularise(m->adapter, &t->exec.run, weight, m->grads, extra)); }
        double own = peft__optim_grad_norm(&m->optim, &t->exec.run, 1.0 / weight);
        if (!isfinite(own)) {
            FAIL(PEFT_E_NUMERIC, "a gradient of adapter \"%s\" at step %lld is not a finite number", m->adapter->name,
                 (long long)t->step + 1);
        }
        squares += own * own;
    }
    *norm = sqrt(squares);
out:
    return st;
}

/* Clips and updates; the gradients are cleared. *extra: what methods added to the mean loss. */
static peft_status loop_update(struct peft_trainer *t, double *norm, double *extra) {
    peft_status st = PEFT_OK;
    peft__job *job = peft__trainer_job(t);
    /* with parallel branches each has the mean of its own copies of the rows */
    double weight = loop_divisor(t) / (double)peft__expression_copies(&job->expression);
    TRY(loop_norm(t, weight, norm, extra));
    for (size_t i = 0; i < job->members.len; i++) {
        peft__member *m = peft__trainer_member(job, i);
        const peft__method *method = m->adapter->method;
        if (method->project != NULL) { TRY(method->project(m->adapter, m->grads)); }
        double gscale = peft__optim_step(&m->optim, &t->exec.run, 1.0 / weight, *norm);
        if (method->after_step != NULL) {
            TRY(method->after_step(m->adapter, m->grads, gscale, t->step + 1, t->max_steps, m->state));
        }
    }
    t->step++;
out:
    loop_clear(t);
    return st;
}

peft_status peft__trainer_accumulate(struct peft_trainer *t, const struct peft_batch *b, double *loss) {
    peft_status st = PEFT_OK;
    TRY(peft__trainer_plan(t));
    TRY(peft__batch_check(b, &t->model->config, t->model->config.vocab_size + t->tape.vocab_extra));
    peft__frame_begin(&t->room);
    for (size_t r = 0; r + 1 < b->offsets.len; r++) {
        if (!peft__frame_add_batch(&t->room, b, r, (uint64_t)t->accumulated_rows + r)) {
            FAIL(PEFT_E_SHAPE, "the batch is larger than the plan's %lld rows, %lld tokens and %lld tokens a row",
                 (long long)t->room.caps.max_rows, (long long)t->room.caps.max_tokens, (long long)t->room.caps.max_length);
        }
    }
    st = loop_backward(t);
    if (st != PEFT_OK) { /* NaN in the sums: earlier batches of the step cannot be told from it */
        loop_clear(t);
        goto out;
    }
    if (loss != NULL) { *loss = t->room.frame.loss_sum / (t->room.frame.divisor > 0 ? t->room.frame.divisor : 1); }
out:
    return st;
}

peft_status peft__trainer_apply(struct peft_trainer *t) {
    double norm = 0, extra = 0;
    if (!t->planned || t->accumulated_rows == 0) {
        return peft__fail(PEFT_E_INVALID, "there are no gradients to apply: accumulate a batch first");
    }
    return loop_update(t, &norm, &extra);
}

/* The member whose tensor it is: of the adapter by name, or of a union of that name. */
static peft_status loop_tensor(const struct peft_trainer *t, const char *adapter, const char *tensor, const peft__member **out,
                               size_t *index) {
    bool named = false;
    const peft__job *job = t->jobs.len > 0 ? peft__trainer_job(t) : NULL;
    for (size_t i = 0; job != NULL && i < job->members.len; i++) {
        const peft__member *m = peft__trainer_member(job, i);
        bool own = strcmp(m->adapter->name, adapter) == 0;
        bool part = !own && strcmp(job->expression.text, adapter) == 0;
        named = named || own || part;
        if ((own || part) && peft__adapter_find(m->adapter, tensor, index) != NULL) {
            *out = m;
            return PEFT_OK;
        }
    }
    if (named) { return peft__fail(PEFT_E_NOT_FOUND, "adapter \"%s\" has no tensor \"%s\"", adapter, tensor); }
    return peft__fail(PEFT_E_NOT_FOUND, "the trainer has no job for adapter \"%s\"", adapter);
}

peft_status peft__trainer_gradient(struct peft_trainer *t, const char *adapter, const char *tensor, float *buf, size_t cap,
                                   size_t *needed) {
    peft_status st = PEFT_OK;
    const peft__member *m = NULL;
    size_t index = 0;
    TRY(loop_tensor(t, adapter, tensor, &m, &index));
    const peft__adapter_param *p = peft__adapter_param_at(m->adapter, index);
    if (p->frozen) { FAIL(PEFT_E_INVALID, "tensor \"%s\" is not trained", tensor); }
    size_t n = (size_t)(p->p.rows * p->p.cols), rows = (size_t)p->p.rows, cols = (size_t)p->p.cols;
    if (needed != NULL) { *needed = n; }
    if (cap < n || (buf == NULL && n > 0)) {
        FAIL(PEFT_E_BUFFER, "tensor \"%s\" needs room for %zu floats, and there is room for %zu", tensor, n, cap);
    }
    const peft__real *g = m->grads == NULL ? NULL : m->grads + (p->p.value - m->adapter->values);
    double scale = (double)peft__expression_copies(&peft__trainer_job(t)->expression) / loop_divisor(t);
    bool flipped = peft__adapter_flipped(m->adapter, index); /* in the order of the file, as values are read */
    for (size_t i = 0; i < n; i++) {
        size_t at = flipped ? i % rows * cols + i / rows : i;
        buf[i] = g == NULL ? 0 : (float)((double)g[at] * scale);
    }
out:
    return st;
}

peft_status peft__trainer_evaluate(struct peft_trainer *t, struct peft_dataset *d, peft__str *out) {
    peft_status st = PEFT_OK;
    peft__metrics m;
    int32_t *classes = NULL;
    const peft__task *task = &t->model->config.task;
    if (t->jobs.len == 0) { FAIL(PEFT_E_INVALID, "the trainer has no job"); }
    peft__job *job = peft__trainer_job(t);
    const peft__caps *caps = &t->room.caps;
    bool fits = t->planned && peft__dataset_longest(d) <= PEFT__MIN(caps->max_length, caps->max_tokens) &&
                peft__dataset_longest_source(d) <= PEFT__MIN(caps->max_source_length, caps->max_source);
    if (fits && peft__dataset_parts(d) <= t->room.caps.max_rows) { /* within the memory that there is */
        TRY(peft__dataset_check(d, &t->model->config, t->tape.vocab_extra, "evaluation"));
        TRY(peft__dataset_check_tasks(d, &t->tape, "evaluation"));
        TRY(peft__labels_match(d, task, "evaluation", &t->ctx->mem, &classes));
        t->room.classes = classes;
        t->room.masking = peft__evaluate_masking(d, &t->model->config);
        st = peft__evaluate(&t->exec, &t->room, d, &t->cancel, &m, out, NULL);
        t->room.classes = NULL;
    } else {
        st = peft__evaluate_model(t->model, &t->set->base, &job->expression, d, &t->cancel, &m, out, NULL);
    }
out:
    peft__labels_free(d, &t->ctx->mem, classes);
    return st;
}

/* ---- the run --------------------------------------------------------------------------------------------------------------- */

typedef struct loop_report { /* one step, for the callback */
    double loss, rate, norm, eval_loss;
    int64_t tokens;
    double step_seconds, begun;
    int64_t first_step;      /* step number at which this call began */
} loop_report;

/* Forward and backward of up to one batch of rows; false in *more at the end of an epoch. */
static peft_status loop_micro_batch(struct peft_trainer *t, peft__job *job, int64_t *tokens, bool *more) {
    peft_status st = PEFT_OK;
    int64_t rows = (int64_t)peft__dataset_size(job->train), batch = peft__trainer_batch(t, job);
    peft__frame_begin(&t->room);
    t->room.classes = job->train_classes;
    t->room.masking = peft__evaluate_masking(job->train, &t->model->config);
    t->room.masking.seed = peft__mix64(t->seed) + (uint64_t)t->step; /* other tokens each time */
    for (int64_t i = 0; i < batch && job->position < rows; i++) {
        const peft__row *r = peft__dataset_row(job->train, (size_t)job->order[job->position]);
        if (!peft__frame_add_row(&t->room, job->train, r)) {
            FAIL(PEFT_E_SHAPE, "row %lld has %lld tokens and does not fit the plan", (long long)job->order[job->position],
                 (long long)r->n);
        }
        job->position++;
    }
    *tokens += t->room.frame.count[PEFT__SPACE_INPUT];
    TRY(loop_backward(t));
    *more = job->position < rows;
out:
    return st;
}

static peft_status loop_step(struct peft_trainer *t, peft__job *job, loop_report *r) {
    peft_status st = PEFT_OK;
    int64_t passes = peft__opt_int(&t->opts, "gradient_accumulation_steps");
    double begun = peft__clock(), extra = 0;
    bool more = true;
    if (job->epoch < 0) { peft__order_epoch(t, job, 0); }
    if (job->position >= (int64_t)peft__dataset_size(job->train)) { peft__order_epoch(t, job, job->epoch + 1); }
    int64_t epoch = job->epoch, position = job->position;
    r->tokens = 0;
    loop_clear(t);
    for (int64_t i = 0; i < passes && more && st == PEFT_OK; i++) { st = loop_micro_batch(t, job, &r->tokens, &more); }
    r->loss = t->accumulated_loss / loop_divisor(t);
    r->rate = peft__optim_rate(&peft__trainer_member(job, 0)->optim, peft__trainer_member(job, 0)->optim.step);
    if (st == PEFT_OK) { st = loop_update(t, &r->norm, &extra); }
    r->loss += extra;
    if (st != PEFT_OK) { /* as if the step had not begun */
        loop_clear(t);
        peft__order_epoch(t, job, epoch);
        job->position = position;
    }
    r->step_seconds = peft__clock() - begun;
    return st;
}

static peft_status loop_evaluate(struct peft_trainer *t, peft__job *job, loop_report *r) {
    peft_status st = PEFT_OK;
    peft__metrics metrics;
    int64_t every = peft__opt_int(&t->opts, "eval_steps");
    r->eval_loss = (double)NAN;
    bool now = t->step == t->max_steps || (every > 0 && t->step % every == 0);
    if (job->eval == NULL || !now) { return PEFT_OK; }
    t->room.classes = job->eval_classes;
    t->room.masking = peft__evaluate_masking(job->eval, &t->model->config);
    TRY(peft__evaluate(&t->exec, &t->room, job->eval, NULL, &metrics, NULL, NULL));
    r->eval_loss = metrics.loss;
    if (peft__trainer_member(job, 0)->best != NULL && r->eval_loss < job->best_loss) {
        job->best_loss = r->eval_loss;
        for (size_t i = 0; i < job->members.len; i++) {
            peft__member *m = peft__trainer_member(job, i);
            size_t bytes = (size_t)m->adapter->n_trainable * sizeof *m->best;
            if (m->best != NULL) { memcpy(m->best, m->adapter->values, bytes); }
        }
    }
out:
    return st;
}

static peft_status loop_progress(struct peft_trainer *t, const peft__job *job, const loop_report *r) {
    peft_step_info info;
    if (t->progress == NULL) { return PEFT_OK; }
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    info.step = t->step;
    info.max_steps = t->max_steps;
    info.loss = r->loss;
    info.learning_rate = r->rate;
    info.grad_norm = r->norm;
    info.tokens = r->tokens;
    info.tokens_per_second = (double)r->tokens / PEFT__MAX(r->step_seconds, 1e-9);
    info.seconds = peft__clock() - r->begun;
    info.eta_seconds = info.seconds / (double)PEFT__MAX(t->step - r->first_step, 1) * (double)(t->max_steps - t->step);
    info.peak_bytes = peft__trainer_peak(t);
    info.eval_loss = r->eval_loss;
    info.epoch = (double)job->epoch + (double)job->position / (double)peft__dataset_size(job->train);
    info.job = job->expression.text;
    if (t->progress(t->progress_user, &info) != 0) {
        return peft__fail(PEFT_E_CALLBACK, "the progress callback ended the run after step %lld", (long long)t->step);
    }
    return PEFT_OK;
}

static peft_status loop_save(struct peft_trainer *t, bool last) {
    const char *dir = peft__opt_str(&t->opts, "checkpoint_dir");
    int64_t every = peft__opt_int(&t->opts, "save_steps");
    if (dir[0] == '\0' || !(last || (every > 0 && t->step % every == 0))) { return PEFT_OK; }
    return peft__checkpoint_save(t, dir);
}

/* Up to `most` steps of what is left, each with what follows it. */
static peft_status loop_run(struct peft_trainer *t, int64_t most) {
    peft_status st = PEFT_OK;
    loop_report r;
    memset(&r, 0, sizeof r);
    TRY(peft__trainer_plan(t));
    peft__job *job = peft__trainer_job(t);
    if (job->train == NULL) { FAIL(PEFT_E_INVALID, "job \"%s\" has no training data", job->expression.text); }
    t->running = true;
    r.begun = t->begun;
    r.first_step = t->begun_step;
    for (int64_t done = 0; done < most && t->step < t->max_steps; done++) {
        if (atomic_exchange(&t->cancel, false)) { FAIL(PEFT_E_CANCELLED, "cancelled after step %lld", (long long)t->step); }
        TRY(loop_step(t, job, &r));
        TRY(loop_evaluate(t, job, &r));
        TRY(loop_save(t, t->step == t->max_steps));
        TRY(loop_progress(t, job, &r));
    }
    for (size_t i = 0; t->step == t->max_steps && i < job->members.len && isfinite(job->best_loss); i++) {
        peft__member *m = peft__trainer_member(job, i);
        if (m->best != NULL) { memcpy(m->adapter->values, m->best, (size_t)m->adapter->n_trainable * sizeof *m->best); }
    }
out:
    t->running = false;
    return st;
}

peft_status peft__trainer_run(struct peft_trainer *t) {
    t->begun = peft__clock();
    t->begun_step = t->step;
    t->stepping = false;
    peft_status st = loop_run(t, INT64_MAX);
    atomic_store(&t->cancel, false); /* what was asked of this run does not concern the next */
    return st;
}

peft_status peft__trainer_step(struct peft_trainer *t, bool *more) {
    if (!t->stepping) {
        t->begun = peft__clock();
        t->begun_step = t->step;
        t->stepping = true;
    }
    peft_status st = loop_run(t, 1);
    *more = st != PEFT_OK || t->step < t->max_steps;
    if (!*more) { atomic_store(&t->cancel, false); } /* there is nothing left to stop; else the next step answers */
    return st;
}
