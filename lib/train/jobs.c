/* jobs.c - several jobs at a time: one batch whose rows belong to different adapters, over one pass through the base.
 *
 *   rows of job i in a pass   batch_size w_i / sum of w, whole numbers by largest remainders, at least 1;
 *                             w = share (fixed), share n (proportional) or share n^(1/T) (temperature), n its rows of data
 *   expression of the tape    batch_split(stack(job 1):rows, stack(job 2):rows, ...)
 *
 * A job's rows stay the same when others end, and jobs are ordered by their text and not as they were added: what one of them learns
 * depends neither on the order nor on the fate of the others. An adapter that several jobs have learns from the rows of all.
 *
 * Left out: more than PEFT__GROUPS jobs at a time. */
#include <math.h>

#include "train/loop.h"

peft_status peft__jobs_check(const struct peft_trainer *t, const peft__job *job) {
    const char *text = job->expression.text;
    if (t->jobs.len == 0) { return PEFT_OK; }
    if (t->jobs.len == PEFT__GROUPS) {
        return peft__fail(PEFT_E_UNSUPPORTED, "the trainer has %d jobs, which is as many as it can train at a time", (int)PEFT__GROUPS);
    }
    if (t->step > 0) { return peft__fail(PEFT_E_BUSY, "the trainer has made steps: jobs are added before the first"); }
    for (size_t i = 0; i < t->jobs.len; i++) {
        const peft__expression *e = &peft__trainer_job(t, i)->expression;
        if (strcmp(e->text, text) == 0) { return peft__fail(PEFT_E_EXISTS, "the trainer has a job \"%s\" already", text); }
        if (e->rows == NULL && job->expression.rows == NULL) { continue; }
        return peft__fail(PEFT_E_UNSUPPORTED, "\"%s\" divides the rows of a batch, and so do several jobs: it is trained alone",
                          e->rows != NULL ? e->text : text);
    }
    return PEFT_OK;
}

/* ---- shares ---------------------------------------------------------------------------------------------------------------- */

static double jobs_weight(const struct peft_trainer *t, const peft__job *job) {
    const char *how = peft__opt_str(&t->opts, "job_sampling");
    double share = peft__opt_float(&job->optimizer_opts, "share"), n = job->train != NULL ? (double)peft__dataset_size(job->train) : 1;
    if (strcmp(how, "proportional") == 0) { return share * n; }
    if (strcmp(how, "temperature") == 0) { return share * pow(n, 1 / peft__opt_float(&t->opts, "sampling_temperature")); }
    return share;
}

/* The job whose claim on another row is largest; of equal ones the first by text. */
static peft__job *jobs_next(const struct peft_trainer *t, const double *claims) {
    size_t best = 0;
    for (size_t i = 1; i < t->jobs.len; i++) {
        const char *text = peft__trainer_job(t, i)->expression.text, *other = peft__trainer_job(t, best)->expression.text;
        double a = claims[i] - (double)peft__trainer_job(t, i)->rows, b = claims[best] - (double)peft__trainer_job(t, best)->rows;
        if (a > b || (!(a < b) && strcmp(text, other) < 0)) { best = i; }
    }
    return peft__trainer_job(t, best);
}

static peft_status jobs_share_one(const struct peft_trainer *t, peft__job *job) {
    int64_t asked = peft__opt_int(&t->opts, "batch_size"), divided = peft__expression_rows(&job->expression);
    job->rows = divided > 0 ? divided : asked;
    if (peft__opt_is_set(&t->opts, "batch_size") && job->rows != asked) {
        return peft__fail(PEFT_E_SHAPE, "batch_size is %lld, and batch_split divides %lld rows", (long long)asked, (long long)divided);
    }
    return PEFT_OK;
}

peft_status peft__jobs_share(struct peft_trainer *t) {
    double claims[PEFT__GROUPS], sum = 0;
    int64_t batch = peft__opt_int(&t->opts, "batch_size"), left = batch;
    size_t n = t->jobs.len;
    if (n == 1) { return jobs_share_one(t, peft__trainer_job(t, 0)); }
    if (batch < (int64_t)n) {
        return peft__fail(PEFT_E_SHAPE, "batch_size is %lld, and the %zu jobs need at least a row each", (long long)batch, n);
    }
    for (size_t i = 0; i < n; i++) { sum += claims[i] = jobs_weight(t, peft__trainer_job(t, i)); }
    for (size_t i = 0; i < n; i++) {
        peft__job *job = peft__trainer_job(t, i);
        claims[i] *= (double)batch / sum;
        job->rows = PEFT__MAX((int64_t)claims[i], 1);
        left -= job->rows;
    }
    for (; left > 0; left--) { jobs_next(t, claims)->rows++; }
    for (; left < 0; left++) { /* rows that went to jobs with less than one: from those with most */
        peft__job *most = peft__trainer_job(t, 0);
        for (size_t i = 1; i < n; i++) {
            peft__job *job = peft__trainer_job(t, i);
            bool first = strcmp(job->expression.text, most->expression.text) < 0;
            if (job->rows > most->rows || (job->rows == most->rows && first)) { most = job; }
        }
        most->rows--;
    }
    return PEFT_OK;
}

/* ---- which of them, and as what ---------------------------------------------------------------------------------------------- */

void peft__jobs_insert(peft__job **list, size_t n, peft__job *job) {
    for (; n > 0 && strcmp(list[n - 1]->expression.text, job->expression.text) > 0; n--) { list[n] = list[n - 1]; }
    list[n] = job;
}

static peft_status jobs_join(struct peft_trainer *t) {
    peft_status st = PEFT_OK;
    peft__str text;
    peft__str_init(&text, &t->ctx->mem);
    for (size_t i = 0; i < t->n_active; i++) {
        peft__str_putf(&text, "%sstack(%s):%lld", i == 0 ? "batch_split(" : ",", t->active[i]->expression.text,
                       (long long)t->active[i]->rows);
    }
    peft__str_putc(&text, ')');
    TRY(peft__str_status(&text));
    TRY(peft__expression_parse(&t->joint, &t->ctx->mem, t->set, peft__str_c(&text)));
out:
    peft__str_free(&text);
    return st;
}

peft_status peft__jobs_activate(struct peft_trainer *t) {
    t->n_active = 0;
    for (size_t i = 0; i < t->jobs.len; i++) {
        peft__job *job = peft__trainer_job(t, i);
        if (t->only != NULL ? job == t->only : job->state == PEFT__JOB_RUNS) { peft__jobs_insert(t->active, t->n_active++, job); }
    }
    if (t->n_active == 0) { t->active[t->n_active++] = peft__trainer_job(t, 0); } /* all have ended: what is asked is of the first */
    return t->n_active > 1 ? jobs_join(t) : PEFT_OK;
}

const peft__expression *peft__jobs_expression(const struct peft_trainer *t) {
    return t->n_active > 1 ? &t->joint : &t->active[0]->expression;
}

int32_t peft__jobs_group(const struct peft_trainer *t, const peft__job *job) {
    for (size_t i = 0; t->n_active > 1 && i < t->n_active; i++) {
        if (t->active[i] == job) { return (int32_t)i; }
    }
    return -1;
}

peft_status peft__jobs_only(struct peft_trainer *t, peft__job *job) {
    peft__trainer_unplan(t);
    t->only = job;
    peft_status st = peft__trainer_plan(t);
    t->only = NULL;
    return st;
}

void peft__jobs_end(struct peft_trainer *t, peft__job *job, int32_t state, const char *error) {
    job->state = state;
    peft__str_puts(&job->error, error);
    peft__log(t->ctx, PEFT_LOG_WARN, "job \"%s\" has ended: %s", job->expression.text, error);
}

/* ---- a caller's batches ------------------------------------------------------------------------------------------------------ */

peft_status peft__jobs_batch(const struct peft_trainer *t, const struct peft_batch *b) {
    if (b->jobs.len == 0 && t->jobs.len > 1) {
        return peft__fail(PEFT_E_INVALID, "the trainer has %zu jobs, and the batch has no \"jobs\" that say whose each row is",
                          t->jobs.len);
    }
    for (size_t r = 0; r < b->jobs.len; r++) {
        int32_t job = PEFT__VEC_AT(&b->jobs, int32_t, r);
        bool known = job >= 0 && (size_t)job < t->jobs.len;
        if (known && (t->n_active == 1 || peft__jobs_group(t, peft__trainer_job(t, (size_t)job)) >= 0)) { continue; }
        return peft__fail(PEFT_E_INVALID, "row %zu is of job %d, and the trainer has %zu%s", r, (int)job, t->jobs.len,
                          known ? ", of which that one has ended" : "");
    }
    return PEFT_OK;
}

peft__job *peft__jobs_of(const struct peft_trainer *t, const struct peft_batch *b, size_t row) {
    return peft__trainer_job(t, b->jobs.len > 0 ? (size_t)PEFT__VEC_AT(&b->jobs, int32_t, row) : 0);
}

int64_t peft__jobs_before(const struct peft_batch *b, size_t row) {
    int64_t n = 0;
    for (size_t r = 0; r < row; r++) {
        n += b->jobs.len == 0 || PEFT__VEC_AT(&b->jobs, int32_t, r) == PEFT__VEC_AT(&b->jobs, int32_t, row);
    }
    return n;
}

/* The first tensor of an adapter with something else than numbers in `of`, its values or its gradients; NULL: none has. */
static const char *jobs_odd(const struct peft_trainer *t, const peft__adapter *a, const peft__real *of) {
    for (size_t i = 0; i < peft__adapter_param_count(a); i++) {
        const peft__param *p = &peft__adapter_param_at(a, i)->p;
        ptrdiff_t at = p->value - a->values;
        if ((of == a->values || at < a->n_trainable) && !t->ctx->kernels->finite(of + at, p->rows * p->cols)) { return p->name; }
    }
    return NULL;
}

/* The same of the base. */
static const char *jobs_odd_base(const struct peft_trainer *t) {
    const struct peft_model *m = t->model;
    const char *name = NULL;
    for (size_t i = 0; i < m->n_tensors && name == NULL; i++) {
        const peft__weight *w = &m->tensors[i].w;
        peft__real *row = peft__alloc(&t->ctx->mem, (size_t)w->cols * sizeof *row);
        for (int64_t r = 0; row != NULL && r < w->rows && name == NULL; r++) {
            peft__weight_row(t->ctx->kernels, w, r, row);
            if (!t->ctx->kernels->finite(row, w->cols)) { name = w->name; }
        }
        peft__free(&t->ctx->mem, row, (size_t)w->cols * sizeof *row);
    }
    return name;
}

peft_status peft__jobs_fail(const struct peft_trainer *t, const peft__job *job) {
    bool loss = !isfinite(job->accumulated_loss);
    const char *tensor = NULL, *whose = job->expression.text;
    for (size_t i = 0; i < job->members.len && tensor == NULL; i++) {
        const peft__member *m = peft__trainer_member(t, job, i);
        tensor = jobs_odd(t, m->adapter, loss ? m->adapter->values : m->grads);
        if (!loss && tensor != NULL) { whose = m->adapter->name; }
    }
    if (loss && tensor == NULL) { tensor = jobs_odd_base(t); }
    (void)peft__fail(PEFT_E_NUMERIC, "%s of adapter \"%s\" at step %lld is not a finite number", loss ? "the loss" : "a gradient", whose,
                     (long long)t->step + 1);
    if (tensor != NULL) {
        (void)peft__fail(PEFT_E_NUMERIC, "%s: tensor \"%s\"%s", peft__fail_text(), tensor, loss ? " has a NaN or an infinite value" : "");
    }
    return PEFT_E_NUMERIC;
}

void peft__jobs_json(const struct peft_trainer *t, peft__json_out *j) {
    static const char *const states[] = {"runs", "done", "stopped early", "failed"};
    peft__json_key(j, "jobs");
    peft__json_array(j);
    for (size_t i = 0; i < t->jobs.len; i++) {
        const peft__job *job = peft__trainer_job(t, i);
        peft__json_object(j);
        peft__json_key(j, "adapter");
        peft__json_put_text(j, job->expression.text);
        peft__json_key(j, "rows");
        peft__json_put_int(j, job->rows);
        peft__json_key(j, "trainable_parameters");
        peft__json_put_int(j, job->n_trainable);
        peft__json_key(j, "max_steps");
        peft__json_put_int(j, job->max_steps);
        peft__json_key(j, "state");
        peft__json_put_text(j, states[job->state]);
        if (job->state == PEFT__JOB_FAILED) {
            peft__json_key(j, "error");
            peft__json_put_text(j, peft__str_c(&job->error));
        }
        peft__json_key(j, "loss"); /* null: no step yet */
        peft__json_put_double(j, job->loss);
        peft__json_key(j, "eval_loss");
        peft__json_put_double(j, job->eval_loss);
        peft__json_object_end(j);
    }
    peft__json_array_end(j);
}
