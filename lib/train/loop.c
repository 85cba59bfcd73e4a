/* loop.c - steps: batches forward and backward, one update, and what happens between updates (progress, evaluation, saving).
 *
 * A step's loss is the mean over the labelled tokens of all its batches, before the update. Gradients are summed and divided
 * once, in the update, so that accumulation over batches is exact. A loss that is no finite number ends the run before the
 * update: parameters and optimiser are then those of the last good step. */
#include <math.h>

#include "train/loop.h"

static peft_status loop_backward(struct peft_trainer *t) {
    peft_status st = PEFT_OK;
    peft__frame *f = &t->room.frame;
    f->seed = t->seed;
    f->step = (uint64_t)t->step;
    f->label_smoothing = peft__opt_float(&t->opts, "label_smoothing");
    TRY(peft__exec_run(&t->exec, f, true));
    t->accumulated += f->labelled;
    t->accumulated_loss += f->loss_sum;
    t->accumulated_rows += f->n_rows;
    if (!isfinite(f->loss_sum)) {
        FAIL(PEFT_E_NUMERIC, "the loss of adapter \"%s\" at step %lld is not a finite number",
             peft__trainer_job(t)->adapter->name, (long long)t->step + 1);
    }
out:
    return st;
}

static void loop_clear(struct peft_trainer *t) {
    peft__job *job = peft__trainer_job(t);
    memset(job->grads, 0, (size_t)job->adapter->n_trainable * sizeof(peft__real));
    t->accumulated = 0;
    t->accumulated_loss = 0;
    t->accumulated_rows = 0;
}

/* Clips and updates; the gradients are cleared. */
static peft_status loop_update(struct peft_trainer *t, double *norm) {
    peft_status st = PEFT_OK;
    peft__job *job = peft__trainer_job(t);
    double gscale = 1.0 / (double)PEFT__MAX(t->accumulated, 1);
    *norm = peft__optim_grad_norm(&job->optim, &t->exec.run, gscale);
    if (!isfinite(*norm)) {
        FAIL(PEFT_E_NUMERIC, "a gradient of adapter \"%s\" at step %lld is not a finite number", job->adapter->name,
             (long long)t->step + 1);
    }
    if (job->adapter->method->project != NULL) { TRY(job->adapter->method->project(job->adapter, job->grads)); }
    peft__optim_step(&job->optim, &t->exec.run, gscale, *norm);
    t->step++;
out:
    loop_clear(t);
    return st;
}

peft_status peft__trainer_accumulate(struct peft_trainer *t, const struct peft_batch *b, double *loss) {
    peft_status st = PEFT_OK;
    const int32_t *ids = b->ids.data, *labels = b->labels.len > 0 ? b->labels.data : NULL;
    const float *weights = b->weights.len > 0 ? b->weights.data : NULL;
    TRY(peft__trainer_plan(t));
    peft__frame_begin(&t->room);
    for (size_t r = 0; r + 1 < b->offsets.len; r++) {
        int64_t first = PEFT__VEC_AT(&b->offsets, int64_t, r), n = PEFT__VEC_AT(&b->offsets, int64_t, r + 1) - first;
        for (int64_t i = first; i < first + n; i++) {
            bool bad = ids[i] < 0 || ids[i] >= t->model->config.vocab_size;
            bool bad_label = labels != NULL && labels[i] >= t->model->config.vocab_size;
            if (bad || bad_label) {
                FAIL(PEFT_E_SHAPE, "row %zu has %s %d, and the vocabulary %lld", r, bad ? "token id" : "label",
                     bad ? (int)ids[i] : (int)labels[i], (long long)t->model->config.vocab_size);
            }
        }
        if (!peft__frame_add(&t->room, ids + first, labels != NULL ? labels + first : NULL,
                             weights != NULL ? weights + first : NULL, n, (uint64_t)t->accumulated_rows + r)) {
            FAIL(PEFT_E_SHAPE, "the batch is larger than the plan's %lld rows, %lld tokens and %lld tokens a row",
                 (long long)t->room.caps.max_rows, (long long)t->room.caps.max_tokens, (long long)t->room.caps.max_length);
        }
    }
    if (t->room.frame.n_rows == 0) { FAIL(PEFT_E_INVALID, "the batch has no rows"); }
    st = loop_backward(t);
    if (st != PEFT_OK) { /* NaN in the sums: earlier batches of the step cannot be told from it */
        loop_clear(t);
        goto out;
    }
    if (loss != NULL) { *loss = t->room.frame.loss_sum / (double)PEFT__MAX(t->room.frame.labelled, 1); }
out:
    return st;
}

peft_status peft__trainer_apply(struct peft_trainer *t) {
    double norm = 0;
    if (!t->planned || t->accumulated_rows == 0) {
        return peft__fail(PEFT_E_INVALID, "there are no gradients to apply: accumulate a batch first");
    }
    return loop_update(t, &norm);
}

peft_status peft__trainer_gradient(struct peft_trainer *t, const char *adapter, const char *tensor, float *buf, size_t cap,
                                   size_t *needed) {
    if (t->jobs.len == 0 || strcmp(peft__trainer_job(t)->adapter->name, adapter) != 0) {
        return peft__fail(PEFT_E_NOT_FOUND, "the trainer has no job for adapter \"%s\"", adapter);
    }
    const peft__job *job = peft__trainer_job(t);
    size_t index = 0;
    const peft__adapter_param *p = peft__adapter_find(job->adapter, tensor, &index);
    if (p == NULL) { return peft__fail(PEFT_E_NOT_FOUND, "adapter \"%s\" has no tensor \"%s\"", adapter, tensor); }
    if (p->frozen) { return peft__fail(PEFT_E_INVALID, "tensor \"%s\" is not trained", tensor); }
    size_t n = (size_t)(p->p.rows * p->p.cols);
    if (needed != NULL) { *needed = n; }
    if (cap < n || (buf == NULL && n > 0)) {
        return peft__fail(PEFT_E_BUFFER, "tensor \"%s\" needs room for %zu floats, and there is room for %zu", tensor, n, cap);
    }
    const peft__real *g = job->grads == NULL ? NULL : job->grads + (p->p.value - job->adapter->values);
    double scale = 1.0 / (double)PEFT__MAX(t->accumulated, 1);
    size_t rows = (size_t)p->p.rows, cols = (size_t)p->p.cols;
    bool flipped = peft__adapter_flipped(job->adapter, index); /* in the order of the file, as values are read */
    for (size_t i = 0; i < n; i++) {
        size_t at = flipped ? i % rows * cols + i / rows : i;
        buf[i] = g == NULL ? 0 : (float)((double)g[at] * scale);
    }
    return PEFT_OK;
}

peft_status peft__trainer_evaluate(struct peft_trainer *t, struct peft_dataset *d, peft__str *out) {
    peft_status st = PEFT_OK;
    peft__metrics m;
    if (t->jobs.len == 0) { FAIL(PEFT_E_INVALID, "the trainer has no job"); }
    peft__job *job = peft__trainer_job(t);
    if (t->planned && peft__dataset_longest(d) <= PEFT__MIN(t->room.caps.max_length, t->room.caps.max_tokens)) {
        TRY(peft__dataset_check(d, &t->model->config, "evaluation"));
        TRY(peft__evaluate(&t->exec, &t->room, d, &t->cancel, &m)); /* within the memory that there is */
    } else {
        TRY(peft__evaluate_model(t->model, &t->set->base, &job->adapter, 1, d, &t->cancel, &m));
    }
    TRY(peft__metrics_json(&m, out));
out:
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
    int64_t rows = (int64_t)peft__dataset_size(job->train), batch = peft__opt_int(&t->opts, "batch_size");
    const int32_t *ids = job->train->ids.data, *labels = job->train->labels.data;
    peft__frame_begin(&t->room);
    for (int64_t i = 0; i < batch && job->position < rows; i++) {
        const peft__row *r = peft__dataset_row(job->train, (size_t)job->order[job->position]);
        if (!peft__frame_add(&t->room, ids + r->first, labels + r->first, NULL, r->n, r->key)) {
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
    double begun = peft__clock();
    bool more = true;
    if (job->epoch < 0) { peft__order_epoch(t, job, 0); }
    if (job->position >= (int64_t)peft__dataset_size(job->train)) { peft__order_epoch(t, job, job->epoch + 1); }
    int64_t epoch = job->epoch, position = job->position;
    r->tokens = 0;
    loop_clear(t);
    for (int64_t i = 0; i < passes && more && st == PEFT_OK; i++) { st = loop_micro_batch(t, job, &r->tokens, &more); }
    r->loss = t->accumulated_loss / (double)PEFT__MAX(t->accumulated, 1);
    r->rate = peft__optim_rate(&job->optim, job->optim.step);
    if (st == PEFT_OK) { st = loop_update(t, &r->norm); }
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
    peft__metrics m;
    int64_t every = peft__opt_int(&t->opts, "eval_steps");
    r->eval_loss = (double)NAN;
    bool now = t->step == t->max_steps || (every > 0 && t->step % every == 0);
    if (job->eval == NULL || !now) { return PEFT_OK; }
    TRY(peft__evaluate(&t->exec, &t->room, job->eval, NULL, &m));
    r->eval_loss = m.loss_sum / (double)PEFT__MAX(m.tokens, 1);
    if (job->best != NULL && r->eval_loss < job->best_loss) {
        job->best_loss = r->eval_loss;
        memcpy(job->best, job->adapter->values, (size_t)job->adapter->n_trainable * sizeof(peft__real));
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
    info.job = job->adapter->name;
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

peft_status peft__trainer_run(struct peft_trainer *t) {
    peft_status st = PEFT_OK;
    loop_report r;
    memset(&r, 0, sizeof r);
    TRY(peft__trainer_plan(t));
    peft__job *job = peft__trainer_job(t);
    if (job->train == NULL) { FAIL(PEFT_E_INVALID, "job \"%s\" has no training data", job->adapter->name); }
    t->running = true;
    r.begun = peft__clock();
    r.first_step = t->step;
    while (t->step < t->max_steps) {
        if (atomic_exchange(&t->cancel, false)) { FAIL(PEFT_E_CANCELLED, "cancelled after step %lld", (long long)t->step); }
        TRY(loop_step(t, job, &r));
        TRY(loop_evaluate(t, job, &r));
        TRY(loop_save(t, t->step == t->max_steps));
        TRY(loop_progress(t, job, &r));
    }
    if (job->best != NULL && isfinite(job->best_loss)) {
        memcpy(job->adapter->values, job->best, (size_t)job->adapter->n_trainable * sizeof(peft__real));
    }
out:
    t->running = false;
    atomic_store(&t->cancel, false); /* what was asked of this run does not concern the next */
    return st;
}
