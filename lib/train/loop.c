/* loop.c - steps: batches forward and backward, one update, and what happens between updates (progress, evaluation, saving).
 *
 * A step's loss is the mean over the labelled tokens (of classifications: rows) of all its batches, before the update. Gradients are
 * summed and divided once, in the update, so that accumulation over batches is exact. A loss that is no finite number ends the run
 * before the update: parameters and optimiser are then those of the last good step. Of several jobs (jobs.c) the one that it is of
 * ends, and the step is made again without it. */
#include <math.h>

#include "train/loop.h"

/* Layers that this step leaves out: as many as the member that leaves out most (AdapterDrop). */
static int32_t loop_skips(const struct peft_trainer *t, const peft__job *job) {
    int32_t most = 0;
    for (size_t i = 0; i < job->members.len; i++) {
        const peft__adapter *a = peft__trainer_member(t, job, i)->adapter;
        int32_t own = a->method->skip_layers != NULL ? a->method->skip_layers(a, t->seed, (uint64_t)t->step) : 0;
        most = PEFT__MAX(most, own);
    }
    return most;
}

/* What the sums of losses and gradients are divided by. */
static double loop_divisor(const peft__job *job) { return job->accumulated > 0 ? job->accumulated : 1; }

/* Forward and backward of the frame's rows. Jobs whose loss is no finite number are `bad` then. */
static peft_status loop_backward(struct peft_trainer *t) {
    peft_status st = PEFT_OK;
    peft__frame *f = &t->room.frame;
    f->seed = t->seed;
    f->step = (uint64_t)t->step;
    f->label_smoothing = peft__opt_float(&t->opts, "label_smoothing");
    f->similarity_scale = peft__opt_float(&t->opts, "similarity_scale");
    for (size_t g = 0; g < PEFT__GROUPS; g++) { /* a lone job's expression may have groups of its own */
        const peft__job *job = t->active[t->n_active > 1 ? PEFT__MIN(g, t->n_active - 1) : 0];
        f->skip_layers[g] = loop_skips(t, job);
        f->class_weights[g] = job->class_weights;
    }
    f->loss = t->loss != NULL ? peft__hooks_loss : NULL;
    f->loss_user = t;
    TRY(peft__exec_run(&t->exec, f, true));
    if (f->loss_failed) { FAIL(PEFT_E_CALLBACK, "the loss callback ended step %lld", (long long)t->step + 1); }
    for (int64_t r = 0; r < f->n_rows; r++) { t->active[t->n_active > 1 ? f->row_groups[r] : 0]->accumulated_rows++; }
    for (size_t i = 0; i < t->n_active; i++) {
        peft__job *job = t->active[i];
        double loss = t->n_active > 1 ? f->group_loss[i] : f->loss_sum;
        job->accumulated += t->n_active > 1 ? f->group_divisor[i] : f->divisor;
        job->accumulated_loss += loss;
        job->bad = job->bad || !isfinite(loss);
    }
out:
    return st;
}

static void loop_clear(struct peft_trainer *t) {
    for (size_t i = 0; i < t->members.len; i++) {
        peft__member *m = &PEFT__VEC_AT(&t->members, peft__member, i);
        memset(m->grads, 0, (size_t)m->adapter->n_trainable * sizeof(peft__real));
    }
    for (size_t i = 0; i < t->jobs.len; i++) {
        peft__job *job = peft__trainer_job(t, i);
        job->accumulated = job->accumulated_loss = 0;
        job->accumulated_rows = job->tokens = 0;
        job->bad = false;
    }
}

static bool loop_has(const struct peft_trainer *t, const peft__job *job, const peft__member *m) {
    for (size_t i = 0; i < job->members.len; i++) {
        if (peft__trainer_member(t, job, i) == m) { return true; }
    }
    return false;
}

/* What a member's gradients are divided by: the tokens of all active jobs that have it. With parallel branches each has the mean of
 * its own copies of the rows. */
static double loop_weight(const struct peft_trainer *t, const peft__member *m) {
    double sum = 0;
    for (size_t i = 0; i < t->n_active; i++) {
        if (loop_has(t, t->active[i], m)) { sum += t->active[i]->accumulated; }
    }
    return (sum > 0 ? sum : 1) / (double)peft__expression_copies(&t->active[0]->expression);
}

/* Is it trained by an active job? */
static bool loop_acts(const struct peft_trainer *t, const peft__member *m) {
    for (size_t i = 0; i < t->n_active; i++) {
        if (loop_has(t, t->active[i], m)) { return true; }
    }
    return false;
}

/* Terms that methods add to a loss, and the squares of all gradients; jobs with one that is not finite are `bad` then. */
static peft_status loop_norms(struct peft_trainer *t) {
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < t->members.len; i++) {
        peft__member *m = &PEFT__VEC_AT(&t->members, peft__member, i);
        if (!loop_acts(t, m)) { continue; }
        double weight = loop_weight(t, m), extra = 0;
        if (m->adapter->method->regularise != NULL) {
            TRY(m->adapter->method->regularise(m->adapter, &t->exec.run, weight, m->grads, &extra));
        }
        double own = peft__optim_grad_norm(&m->optim, &t->exec.run, 1.0 / weight);
        m->squares = own * own;
        for (size_t j = 0; j < t->n_active; j++) {
            peft__job *job = t->active[j];
            if (!loop_has(t, job, m)) { continue; }
            job->loss += extra;
            job->bad = job->bad || !isfinite(own);
        }
    }
    for (size_t j = 0; j < t->n_active; j++) { /* what several jobs have is clipped by itself */
        double squares = 0;
        for (size_t i = 0; i < t->active[j]->members.len; i++) {
            const peft__member *m = peft__trainer_member(t, t->active[j], i);
            squares += m->jobs == 1 || t->active[j]->members.len == 1 ? m->squares : 0;
        }
        t->active[j]->norm = sqrt(squares);
    }
out:
    return st;
}

static peft__job *loop_bad(const struct peft_trainer *t) {
    for (size_t i = 0; i < t->n_active; i++) {
        if (t->active[i]->bad) { return t->active[i]; }
    }
    return NULL;
}

/* Clips and updates. loop_norms was before it, and nothing is bad. */
static peft_status loop_update(struct peft_trainer *t) {
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < t->members.len; i++) {
        peft__member *m = &PEFT__VEC_AT(&t->members, peft__member, i);
        const peft__method *method = m->adapter->method;
        if (!loop_acts(t, m)) { continue; }
        double norm = m->jobs > 1 ? sqrt(m->squares) : peft__trainer_job(t, m->job)->norm;
        if (method->project != NULL) { TRY(method->project(m->adapter, m->grads)); }
        double gscale = peft__optim_step(&m->optim, &t->exec.run, 1.0 / loop_weight(t, m), norm);
        if (method->after_step != NULL) {
            TRY(method->after_step(m->adapter, m->grads, gscale, t->step + 1, m->optim.total_steps, m->state));
        }
    }
    t->step++;
out:
    loop_clear(t);
    return st;
}

/* ---- for callers who own the loop ---------------------------------------------------------------------------------------- */

peft_status peft__trainer_accumulate(struct peft_trainer *t, const struct peft_batch *b, double *loss) {
    peft_status st = PEFT_OK;
    TRY(peft__trainer_plan(t));
    TRY(peft__batch_check(b, &t->model->config, t->model->config.vocab_size + t->tape.vocab_extra));
    TRY(peft__jobs_batch(t, b));
    peft__frame_begin(&t->room);
    for (size_t r = 0; r + 1 < b->offsets.len; r++) {
        peft__job *job = peft__jobs_of(t, b, r);
        t->room.group = peft__jobs_group(t, job);
        if (!peft__frame_add_batch(&t->room, b, r, (uint64_t)(job->accumulated_rows + peft__jobs_before(b, r)))) {
            FAIL(PEFT_E_SHAPE, "the batch is larger than the plan's %lld rows, %lld tokens and %lld tokens a row",
                 (long long)t->room.caps.max_rows, (long long)t->room.caps.max_tokens, (long long)t->room.caps.max_length);
        }
    }
    st = loop_backward(t);
    if (st == PEFT_OK && loop_bad(t) != NULL) { st = peft__jobs_fail(t, loop_bad(t)); }
    if (st != PEFT_OK) { /* NaN in the sums: earlier batches of the step cannot be told from it */
        loop_clear(t);
        goto out;
    }
    if (loss != NULL) { *loss = t->room.frame.loss_sum / (t->room.frame.divisor > 0 ? t->room.frame.divisor : 1); }
out:
    t->room.group = -1;
    return st;
}

peft_status peft__trainer_apply(struct peft_trainer *t) {
    int64_t rows = 0;
    for (size_t i = 0; i < t->n_active; i++) { rows += t->active[i]->accumulated_rows; }
    if (!t->planned || rows == 0) {
        return peft__fail(PEFT_E_INVALID, "there are no gradients to apply: accumulate a batch first");
    }
    peft_status st = peft__hooks_reduce(t);
    if (st == PEFT_OK) { st = loop_norms(t); }
    if (st == PEFT_OK && loop_bad(t) != NULL) { st = peft__jobs_fail(t, loop_bad(t)); }
    if (st != PEFT_OK) {
        loop_clear(t);
        return st;
    }
    return loop_update(t);
}

/* The member whose tensor it is: of the adapter by name, or of a union of that name, the last one that has it. */
static peft_status loop_tensor(const struct peft_trainer *t, const char *adapter, const char *tensor, const peft__member **out,
                               size_t *index) {
    bool named = false;
    for (size_t i = t->members.len; i > 0; i--) {
        const peft__member *m = &PEFT__VEC_AT(&t->members, peft__member, i - 1);
        bool own = strcmp(m->adapter->name, adapter) == 0;
        bool part = !own && strcmp(peft__trainer_job(t, m->job)->expression.text, adapter) == 0;
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
    double scale = t->n_active > 0 ? 1 / loop_weight(t, m) : 1;
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
    if (t->jobs.len > 1) {
        FAIL(PEFT_E_INVALID, "the trainer has %zu jobs: a session of one's adapter evaluates that", t->jobs.len);
    }
    const peft__job *job = peft__trainer_job(t, 0);
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
        st = peft__evaluate_model(t->model, &t->set->base, &job->expression, d, &t->cancel, &m, out, NULL,
                                  peft__compute_bf16(&t->opts, t->ctx->kernels));
    }
out:
    peft__labels_free(d, &t->ctx->mem, classes);
    return st;
}

/* ---- the run --------------------------------------------------------------------------------------------------------------- */

/* The job's rows of a pass, behind those that the frame has. */
static peft_status loop_fill(struct peft_trainer *t, peft__job *job) {
    peft_status st = PEFT_OK;
    int64_t rows = (int64_t)peft__dataset_size(job->train), before = t->room.frame.count[PEFT__SPACE_INPUT];
    t->room.group = peft__jobs_group(t, job);
    t->room.classes = job->train_classes;
    t->room.masking = peft__evaluate_masking(job->train, &t->model->config);
    t->room.masking.seed = peft__mix64(t->seed) + (uint64_t)t->step; /* other tokens each time */
    for (int64_t i = 0; i < job->rows && job->position < rows; i++, job->position++) {
        if (i % t->ranks != t->rank) { continue; } /* another process has it */
        const peft__row *r = peft__dataset_row(job->train, (size_t)job->order[job->position]);
        if (!peft__frame_add_row(&t->room, job->train, r)) {
            FAIL(PEFT_E_SHAPE, "row %lld has %lld tokens and does not fit the plan", (long long)job->order[job->position],
                 (long long)r->n);
        }
    }
    job->tokens += t->room.frame.count[PEFT__SPACE_INPUT] - before;
out:
    t->room.group = -1;
    return st;
}

/* Is something of an epoch left? */
static bool loop_has_rows(const struct peft_trainer *t) {
    for (size_t j = 0; j < t->n_active; j++) {
        if (t->active[j]->position < (int64_t)peft__dataset_size(t->active[j]->train)) { return true; }
    }
    return false;
}

/* Gradients of a step: up to `passes` batches of each job, none beyond its epoch. */
static peft_status loop_passes(struct peft_trainer *t) {
    peft_status st = PEFT_OK;
    int64_t passes = peft__opt_int(&t->opts, "gradient_accumulation_steps");
    loop_clear(t);
    for (int64_t i = 0; i < passes && loop_bad(t) == NULL && loop_has_rows(t); i++) {
        peft__frame_begin(&t->room);
        for (size_t j = 0; j < t->n_active; j++) { TRY(loop_fill(t, t->active[j])); }
        if (t->room.frame.n_rows > 0) { TRY(loop_backward(t)); }
    }
    TRY(peft__hooks_reduce(t));
    for (size_t j = 0; j < t->n_active; j++) {
        peft__job *job = t->active[j];
        const peft__optim *o = &peft__trainer_member(t, job, 0)->optim;
        job->loss = job->accumulated_loss / loop_divisor(job);
        job->rate = peft__optim_rate(o, o->step);
        job->last_tokens = job->tokens;
    }
    if (loop_bad(t) == NULL) { TRY(loop_norms(t)); }
out:
    return st;
}

typedef struct loop_place { int64_t epoch, position; } loop_place;

static void loop_rewind(struct peft_trainer *t, const loop_place *places) {
    for (size_t i = 0; i < t->jobs.len; i++) {
        peft__job *job = peft__trainer_job(t, i);
        if (job->train == NULL || job->state != PEFT__JOB_RUNS || places[i].epoch < 0) { continue; }
        peft__order_epoch(t, job, places[i].epoch);
        job->position = places[i].position;
    }
}

/* Of several jobs those with a bad loss end; where only gradients are bad, those that have them without the others too, or else all
 * that have them. */
static peft_status loop_drop(struct peft_trainer *t, const loop_place *places) {
    peft_status st = PEFT_OK;
    bool suspect[PEFT__GROUPS] = {false}, known = false, found = false;
    for (size_t i = 0; i < t->jobs.len; i++) {
        peft__job *job = peft__trainer_job(t, i);
        suspect[i] = job->bad;
        if (!job->bad || isfinite(job->accumulated_loss)) { continue; }
        (void)peft__jobs_fail(t, job);
        peft__jobs_end(t, job, PEFT__JOB_FAILED, peft__fail_text());
        known = true;
    }
    for (size_t i = 0; i < t->jobs.len && !known; i++) {
        peft__job *job = peft__trainer_job(t, i);
        if (!suspect[i]) { continue; }
        loop_rewind(t, places);
        TRY(peft__jobs_only(t, job));
        TRY(loop_passes(t));
        if (!job->bad) { continue; }
        (void)peft__jobs_fail(t, job);
        peft__jobs_end(t, job, PEFT__JOB_FAILED, peft__fail_text());
        found = true;
    }
    for (size_t i = 0; i < t->jobs.len && !known && !found; i++) {
        peft__job *job = peft__trainer_job(t, i);
        if (suspect[i]) { peft__jobs_end(t, job, PEFT__JOB_FAILED, "a gradient is not a finite number, in one batch with the other jobs"); }
    }
    loop_rewind(t, places);
    peft__trainer_unplan(t);
    TRY(peft__trainer_plan(t));
out:
    return st;
}

static peft_status loop_step(struct peft_trainer *t) {
    peft_status st = PEFT_OK;
    loop_place places[PEFT__GROUPS];
    for (size_t i = 0; i < t->jobs.len; i++) {
        peft__job *job = peft__trainer_job(t, i);
        places[i] = (loop_place){-1, 0};
        if (job->state != PEFT__JOB_RUNS) { continue; }
        if (job->epoch < 0) { peft__order_epoch(t, job, 0); }
        if (job->position >= (int64_t)peft__dataset_size(job->train)) { peft__order_epoch(t, job, job->epoch + 1); }
        places[i] = (loop_place){job->epoch, job->position};
    }
    for (;;) {
        TRY(loop_passes(t));
        if (loop_bad(t) == NULL) { break; }
        if (t->n_active == 1) { st = peft__jobs_fail(t, t->active[0]); goto out; }
        TRY(loop_drop(t, places));
        if (t->active[0]->state != PEFT__JOB_RUNS) { goto out; } /* none is left */
    }
    st = loop_update(t);
out:
    if (st != PEFT_OK) { /* as if the step had not begun */
        loop_clear(t);
        loop_rewind(t, places);
    }
    return st;
}

static bool loop_evaluates(const struct peft_trainer *t, const peft__job *job) {
    int64_t every = peft__opt_int(&t->opts, "eval_steps");
    return job->eval != NULL && (t->step == job->max_steps || (every > 0 && t->step % every == 0));
}

static peft_status loop_evaluate(struct peft_trainer *t, peft__job *job) {
    peft_status st = PEFT_OK;
    peft__metrics metrics;
    int64_t patience = peft__opt_int(&job->optimizer_opts, "early_stopping_patience");
    job->eval_loss = (double)NAN;
    if (!loop_evaluates(t, job)) { return PEFT_OK; }
    t->room.group = peft__jobs_group(t, job);
    t->room.classes = job->eval_classes;
    t->room.masking = peft__evaluate_masking(job->eval, &t->model->config);
    TRY(peft__evaluate(&t->exec, &t->room, job->eval, NULL, &metrics, NULL, NULL));
    job->eval_loss = metrics.loss;
    bool better = metrics.loss < job->best_loss;
    job->worse = metrics.loss < job->best_loss - peft__opt_float(&job->optimizer_opts, "early_stopping_threshold") ? 0 : job->worse + 1;
    if (better) { job->best_loss = metrics.loss; }
    for (size_t i = 0; better && i < job->members.len; i++) {
        peft__member *m = peft__trainer_member(t, job, i);
        if (m->best != NULL) { memcpy(m->best, m->adapter->values, (size_t)m->adapter->n_trainable * sizeof *m->best); }
    }
    job->stop = patience > 0 && job->worse >= patience;
out:
    t->room.group = -1;
    return st;
}

static peft_status loop_progress(struct peft_trainer *t, const peft__job *job, double step_seconds) {
    peft_step_info info;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    info.step = t->step;
    info.max_steps = job->max_steps;
    info.loss = job->loss;
    info.learning_rate = job->rate;
    info.grad_norm = job->norm;
    info.tokens = job->last_tokens;
    info.tokens_per_second = (double)job->last_tokens / PEFT__MAX(step_seconds, 1e-9);
    info.seconds = peft__clock() - t->begun;
    info.eta_seconds = info.seconds / (double)PEFT__MAX(t->step - t->begun_step, 1) * (double)(job->max_steps - t->step);
    info.peak_bytes = peft__trainer_peak(t);
    info.eval_loss = job->eval_loss;
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
    if (dir[0] == '\0' || t->rank > 0 || !(last || (every > 0 && t->step % every == 0))) { return PEFT_OK; }
    return peft__checkpoint_save(t, dir);
}

/* The values that were best, where they are kept. */
static void loop_take_best(struct peft_trainer *t, const peft__job *job) {
    for (size_t i = 0; i < job->members.len && isfinite(job->best_loss); i++) {
        peft__member *m = peft__trainer_member(t, job, i);
        if (m->best != NULL) { memcpy(m->adapter->values, m->best, (size_t)m->adapter->n_trainable * sizeof *m->best); }
    }
}

/* Jobs whose steps are done, or that stop early, end; the tape is to be made anew for the others. */
static void loop_finish(struct peft_trainer *t) {
    bool any = false, left = false;
    for (size_t i = 0; i < t->n_active; i++) {
        peft__job *job = t->active[i];
        if (job->state == PEFT__JOB_RUNS && job->train != NULL && (job->stop || t->step >= job->max_steps)) {
            job->state = job->stop ? PEFT__JOB_EARLY : PEFT__JOB_DONE;
            loop_take_best(t, job);
            any = true;
        }
        left = left || job->state == PEFT__JOB_RUNS;
    }
    if (any && left) { peft__trainer_unplan(t); }
}

/* What follows a step: evaluations, calls of the host, a checkpoint. In this order, so that a log that the calls write has all steps
 * of a checkpoint; all calls and the checkpoint, even if one of them ends the run. */
static peft_status loop_after(struct peft_trainer *t, double seconds) {
    peft_status st = PEFT_OK, said = PEFT_OK;
    bool last = true;
    for (size_t i = 0; i < t->n_active; i++) {
        TRY(loop_evaluate(t, t->active[i]));
        last = last && (t->step >= t->active[i]->max_steps || t->active[i]->stop);
    }
    for (size_t i = 0; i < t->n_active && t->progress != NULL; i++) {
        st = loop_progress(t, t->active[i], seconds);
        said = said == PEFT_OK ? st : said;
    }
    TRY(loop_save(t, last));
    st = said;
out:
    return st;
}

static bool loop_left(const struct peft_trainer *t) {
    for (size_t i = 0; i < t->jobs.len; i++) {
        const peft__job *job = peft__trainer_job(t, i);
        if (job->state == PEFT__JOB_RUNS && t->step < job->max_steps) { return true; }
    }
    return false;
}

/* What the run as a whole came to. */
static peft_status loop_result(const struct peft_trainer *t) {
    const peft__job *failed = NULL;
    size_t n = 0;
    for (size_t i = 0; i < t->jobs.len; i++) {
        const peft__job *job = peft__trainer_job(t, i);
        if (job->state != PEFT__JOB_FAILED) { continue; }
        failed = failed == NULL ? job : failed;
        n++;
    }
    if (failed == NULL || loop_left(t)) { return PEFT_OK; }
    return peft__fail(PEFT_E_NUMERIC, "%zu of %zu jobs failed and the others are done; \"%s\": %s", n, t->jobs.len,
                      failed->expression.text, peft__str_c(&failed->error));
}

/* Up to `most` steps of what is left, each with what follows it. */
static peft_status loop_run(struct peft_trainer *t, int64_t most) {
    peft_status st = PEFT_OK;
    for (int64_t done = 0;; done++) {
        loop_finish(t);
        TRY(peft__trainer_plan(t));
        for (size_t i = 0; i < t->n_active; i++) {
            if (t->active[i]->train != NULL) { continue; }
            FAIL(PEFT_E_INVALID, "job \"%s\" has no training data", t->active[i]->expression.text);
        }
        t->running = true;
        if (done == most || !loop_left(t)) { break; }
        if (atomic_exchange(&t->cancel, false)) { FAIL(PEFT_E_CANCELLED, "cancelled after step %lld", (long long)t->step); }
        double begun = peft__clock();
        int64_t before = t->step;
        TRY(loop_step(t));
        if (t->step > before) { TRY(loop_after(t, peft__clock() - begun)); } /* else no job was left to make it */
    }
    st = loop_result(t);
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
    *more = loop_left(t);
    if (!*more) { atomic_store(&t->cancel, false); } /* there is nothing left to stop; else the next step answers */
    return st;
}
