/* trainer.c - a trainer's jobs and its plan: from options and data to a tape with all its memory.
 *
 * The plan is made once, for the largest batch that the data can give; after it, a step allocates nothing. */
#include <math.h>
#include <stdio.h>

#include "train/loop.h"

static const peft__option trainer_options[] = {
    {"max_steps", PEFT__OPT_INT, "0", 0, 1e15, NULL, "optimiser steps; 0: num_train_epochs says"},
    {"num_train_epochs", PEFT__OPT_FLOAT, "3", 0, 1e9, NULL, "passes over the data, where max_steps is 0"},
    {"batch_size", PEFT__OPT_INT, "8", 1, 1 << 20, NULL, "rows of one forward and backward pass"},
    {"gradient_accumulation_steps", PEFT__OPT_INT, "1", 1, 1 << 20, NULL, "such passes a step"},
    {"max_length", PEFT__OPT_INT, "0", 0, 1 << 24, NULL,
     "longest row; data with a longer one is refused; planned for where there is no data"},
    {"shuffle", PEFT__OPT_BOOL, "true", 1, 0, NULL, "a new order of the rows in each epoch"},
    {"group_by_length", PEFT__OPT_BOOL, "false", 1, 0, NULL, "rows of like length together"},
    {"seed", PEFT__OPT_INT, "42", 0, 9e15, NULL, "of order and dropout"},
    {"label_smoothing", PEFT__OPT_FLOAT, "0", 0, 1, NULL, "share of the label's probability that goes to all tokens"},
    {"class_weights", PEFT__OPT_LIST, "", 1, 0, NULL, "weights of the losses of classes, a list of numbers or balanced; unset: 1"},
    {"similarity_scale", PEFT__OPT_FLOAT, "20", 0, 1e6, NULL, "of embeddings: what cosines are multiplied by in the loss"},
    {"compute_dtype", PEFT__OPT_STR, "float32", 1, 0, "float32", "type of the arithmetic"},
    {"memory_limit", PEFT__OPT_SIZE, "0", 0, 1e18, NULL, "bytes of base and all else, 0: any; activations are recomputed to fit"},
    {"eval_steps", PEFT__OPT_INT, "0", 0, 1e15, NULL, "evaluate every so many steps; 0: after the last"},
    {"save_steps", PEFT__OPT_INT, "0", 0, 1e15, NULL, "write a checkpoint every so many steps; 0: after the last"},
    {"checkpoint_dir", PEFT__OPT_STR, "", 1, 0, NULL, "folder of the checkpoint; empty: none is written"},
    {"load_best_model_at_end", PEFT__OPT_BOOL, "false", 1, 0, NULL, "end with the adapter that had the lowest evaluation loss"},
};
const peft__schema peft__schema_trainer = {"trainer", trainer_options, PEFT__COUNT(trainer_options)};

peft_status peft__trainer_create(struct peft_adapters *set, const peft__optset *opts, struct peft_trainer **out) {
    peft_status st = PEFT_OK;
    peft_context *ctx = set->ctx;
    struct peft_trainer *t = peft__alloc_zero(&ctx->mem, sizeof *t);
    if (t == NULL) { return PEFT_E_NOMEM; }
    t->magic = PEFT__MAGIC_TRAINER;
    t->ctx = ctx;
    peft__ctx_retain(ctx);
    t->set = set;
    peft__set_retain(set);
    t->model = set->base.owner;
    atomic_init(&t->cancel, false);
    peft__vec_init(&t->jobs, &ctx->mem, sizeof(peft__job));
    TRY(opts != NULL ? peft__optset_copy(&t->opts, &ctx->mem, opts)
                     : peft__optset_init(&t->opts, &ctx->mem, &peft__schema_trainer));
    t->seed = (uint64_t)peft__opt_int(&t->opts, "seed");
    TRY(peft__pool_create(&ctx->mem, ctx->threads, &t->pool));
    peft__pool_set_host(t->pool, ctx->parallel_for, ctx->parallel_user);
out:
    if (st != PEFT_OK) {
        peft__trainer_free(t);
        t = NULL;
    }
    *out = t;
    return st;
}

static size_t trainer_bytes(const peft__member *m) { return (size_t)m->adapter->n_trainable * sizeof(peft__real); }

static void trainer_free_labels(const struct peft_trainer *t, const peft__job *job) {
    peft__mem *mem = &t->ctx->mem;
    if (job->train_classes != NULL) { peft__labels_free(job->train, mem, job->train_classes); }
    if (job->eval_classes != NULL) { peft__labels_free(job->eval, mem, job->eval_classes); }
    peft__free(mem, job->class_weights, (size_t)t->model->config.task.labels * sizeof *job->class_weights);
}

static void trainer_free_job(struct peft_trainer *t, peft__job *job) {
    peft__mem *mem = &t->ctx->mem;
    for (size_t i = 0; i < job->members.len; i++) {
        peft__member *m = peft__trainer_member(job, i);
        peft__optim_free(&m->optim);
        peft__free(mem, m->grads, trainer_bytes(m));
        peft__free(mem, m->best, trainer_bytes(m));
        peft__free(mem, m->state, (size_t)m->n_state * sizeof *m->state);
    }
    peft__vec_free(&job->members);
    peft__optset_free(&job->optimizer_opts);
    if (job->train != NULL) { peft__free(mem, job->order, peft__dataset_size(job->train) * sizeof *job->order); }
    trainer_free_labels(t, job);
    peft__dataset_release(job->train);
    peft__dataset_release(job->eval);
    peft__expression_free(&job->expression);
}

static void trainer_unplan(struct peft_trainer *t) {
    peft__frame_room_free(&t->room);
    peft__exec_free(&t->exec);
    peft__plan_free(&t->plan);
    peft__tape_free(&t->tape);
    t->planned = false;
}

void peft__trainer_free(struct peft_trainer *t) {
    if (t == NULL) { return; }
    peft_context *ctx = t->ctx;
    trainer_unplan(t);
    for (size_t i = 0; i < t->jobs.len; i++) { trainer_free_job(t, &PEFT__VEC_AT(&t->jobs, peft__job, i)); }
    peft__vec_free(&t->jobs);
    peft__optset_free(&t->opts);
    peft__pool_free(t->pool);
    peft__set_release(t->set);
    t->magic = PEFT__MAGIC_FREED;
    peft__free(&ctx->mem, t, sizeof *t);
    peft__ctx_release(ctx);
}

/* What the expression trains: its adapters but those that are frozen. */
static peft_status trainer_members(peft__job *job) {
    peft_status st = PEFT_OK;
    const peft__expression *e = &job->expression;
    for (size_t i = 0; i < e->n_leaves; i++) {
        peft__member m;
        memset(&m, 0, sizeof m);
        m.adapter = e->leaves[i]->adapter;
        if (e->leaves[i]->frozen || m.adapter->n_trainable == 0) { continue; }
        TRY(peft__vec_push(&job->members, &m));
        job->n_trainable += m.adapter->n_trainable;
    }
    if (job->members.len == 0) { FAIL(PEFT_E_INVALID, "\"%s\" has nothing to train", e->text); }
out:
    return st;
}

static peft_status trainer_labels(const struct peft_trainer *t, peft__job *job) {
    peft_status st = PEFT_OK;
    const peft__task *task = &t->model->config.task;
    peft__mem *mem = &t->ctx->mem;
    if (job->train != NULL) {
        TRY(peft__labels_match(job->train, task, "training", mem, &job->train_classes));
    }
    TRY(peft__labels_undivided(task, &job->expression));
    TRY(peft__labels_weights(job->train, task, job->train_classes, peft__opt_str(&t->opts, "class_weights"), mem, &job->class_weights));
    if (job->eval != NULL) { TRY(peft__labels_match(job->eval, task, "evaluation", mem, &job->eval_classes)); }
out:
    return st;
}

peft_status peft__trainer_add_job(struct peft_trainer *t, const char *adapter, struct peft_dataset *train,
                                  struct peft_dataset *eval, const peft__optset *optimizer) {
    peft_status st = PEFT_OK;
    peft__job job;
    memset(&job, 0, sizeof job);
    peft__vec_init(&job.members, &t->ctx->mem, sizeof(peft__member));
    if (t->jobs.len > 0) {
        FAIL(PEFT_E_UNSUPPORTED, "this version trains one job at a time, and the trainer has job \"%s\"",
             peft__trainer_job(t)->expression.text);
    }
    TRY(peft__expression_parse(&job.expression, &t->ctx->mem, t->set, adapter));
    int64_t new_tokens = peft__expression_new_tokens(&job.expression);
    job.train = train;
    job.eval = eval;
    if (train != NULL) { TRY(peft__dataset_check(train, &t->model->config, new_tokens, "training")); }
    if (eval != NULL) { TRY(peft__dataset_check(eval, &t->model->config, new_tokens, "evaluation")); }
    TRY(trainer_labels(t, &job));
    TRY(trainer_members(&job));
    TRY(optimizer != NULL ? peft__optset_copy(&job.optimizer_opts, &t->ctx->mem, optimizer)
                          : peft__optset_init(&job.optimizer_opts, &t->ctx->mem, &peft__schema_optimizer));
    job.best_loss = HUGE_VAL;
    TRY(peft__vec_push(&t->jobs, &job));
    if (train != NULL) { peft__dataset_retain(train); }
    if (eval != NULL) { peft__dataset_retain(eval); }
    return PEFT_OK;
out:
    trainer_free_labels(t, &job);
    peft__optset_free(&job.optimizer_opts);
    peft__vec_free(&job.members);
    peft__expression_free(&job.expression);
    return st;
}

/* ---- the plan ---------------------------------------------------------------------------------------------------------- */

static void trainer_longest(const struct peft_dataset *d, int64_t rows, bool source, int64_t *top /* [rows], falling */) {
    for (size_t i = 0; d != NULL && i < peft__dataset_size(d); i++) {
        int64_t n = source ? peft__dataset_row(d, i)->n_source : peft__dataset_row(d, i)->n;
        if (n <= top[rows - 1]) { continue; }
        int64_t j = rows - 1;
        for (; j > 0 && top[j - 1] < n; j--) { top[j] = top[j - 1]; }
        top[j] = n;
    }
}

/* Longest text of the rows. */
static int64_t trainer_row_length(const struct peft_dataset *d) {
    int64_t most = 0;
    for (size_t i = 0; d != NULL && i < peft__dataset_size(d); i++) { most = PEFT__MAX(most, peft__row_length(peft__dataset_row(d, i))); }
    return most;
}

enum { TRAINER_LENGTH = 512, TRAINER_TOKENS = 1 << 28 };

/* Longest row of a caller's own batches, where there is no training data to say it. */
static int64_t trainer_length(const struct peft_trainer *t) {
    int64_t length = peft__opt_int(&t->opts, "max_length"), positions = t->model->config.max_positions;
    if (length > 0) { return length; }
    positions -= positions > 0 ? t->tape.virtual_tokens + t->tape.position_shift : 0;
    return positions > 0 ? PEFT__MIN(positions, TRAINER_LENGTH) : TRAINER_LENGTH;
}

/* The same of what the encoder reads. top: room for `rows` lengths. */
static void trainer_source_caps(const struct peft_trainer *t, const peft__job *job, int64_t rows, int64_t *top, peft__caps *caps) {
    memset(top, 0, (size_t)rows * sizeof *top);
    trainer_longest(job->train, rows, true, top);
    trainer_longest(job->eval, rows, true, top);
    caps->max_source_length = top[0];
    for (int64_t i = 0; i < rows; i++) { caps->max_source += top[i]; }
    if (job->train == NULL) {
        int64_t length = trainer_length(t), positions = t->model->config.max_positions - caps->source_virtual;
        bool asked = peft__opt_int(&t->opts, "max_length") > 0 || t->model->config.max_positions <= 0;
        caps->max_source_length = PEFT__MAX(asked ? length : PEFT__MIN(length, positions), top[0]);
        caps->max_source = rows * caps->max_source_length;
    }
}

/* Caps: the longest rows that the data has, all in one batch. */
static peft_status trainer_caps(struct peft_trainer *t, const peft__job *job, peft__caps *caps) {
    peft_status st = PEFT_OK;
    int64_t copies = peft__expression_copies(&job->expression);
    int64_t rows = peft__trainer_batch(t, job), limit = peft__opt_int(&t->opts, "max_length");
    int64_t positions = t->model->config.max_positions, added = t->tape.virtual_tokens + t->tape.position_shift;
    int64_t *top = NULL;
    size_t bytes = 0;
    if (peft__opt_is_set(&t->opts, "batch_size") && rows != peft__opt_int(&t->opts, "batch_size")) {
        FAIL(PEFT_E_SHAPE, "batch_size is %lld, and batch_split divides %lld rows", (long long)peft__opt_int(&t->opts, "batch_size"),
             (long long)rows);
    }
    if (job->train != NULL) { rows = PEFT__MIN(rows, (int64_t)peft__dataset_size(job->train)); }
    bytes = (size_t)rows * sizeof(int64_t);
    top = peft__alloc_zero(&t->ctx->mem, bytes);
    if (top == NULL) { return PEFT_E_NOMEM; }
    trainer_longest(job->train, rows, false, top);
    trainer_longest(job->eval, rows, false, top);
    int64_t parts = PEFT__MAX(peft__dataset_parts(job->train), peft__dataset_parts(job->eval));
    *caps = (peft__caps){.max_rows = rows * parts, .max_length = top[0], .virtual_tokens = t->tape.virtual_tokens,
                         .position_shift = t->tape.position_shift, .source_virtual = t->tape.source_virtual};
    if (parts > 1) { caps->max_length = PEFT__MAX(trainer_row_length(job->train), trainer_row_length(job->eval)); }
    for (int64_t i = 0; i < rows; i++) { caps->max_tokens += top[i]; }
    if (job->train == NULL) {
        caps->max_length = PEFT__MAX(trainer_length(t), top[0]);
        caps->max_tokens = rows * caps->max_length;
    }
    if (t->model->config.encoder_layers > 0) { trainer_source_caps(t, job, rows, top, caps); }
    if (limit > 0 && caps->max_length > limit && job->train != NULL) {
        FAIL(PEFT_E_SHAPE, "a row of the data has %lld tokens, more than the trainer's max_length %lld", (long long)caps->max_length,
             (long long)limit);
    }
    if (positions > 0 && caps->max_length + added > positions) {
        FAIL(PEFT_E_SHAPE, "rows of %lld tokens%s are more than the model's %lld positions: lower max_length",
             (long long)(caps->max_length + added), added > 0 ? " with the adapter's" : "", (long long)positions);
    }
    if (positions > 0 && caps->max_source_length + caps->source_virtual > positions) {
        FAIL(PEFT_E_SHAPE, "rows of %lld tokens for the encoder are more than the model's %lld positions: lower max_source_length",
             (long long)(caps->max_source_length + caps->source_virtual), (long long)positions);
    }
    if (PEFT__MAX(caps->max_tokens, caps->max_source) > TRAINER_TOKENS) {
        FAIL(PEFT_E_SHAPE, "a batch of %lld tokens is too large, at most %d: lower batch_size or max_length",
             (long long)PEFT__MAX(caps->max_tokens, caps->max_source), (int)TRAINER_TOKENS);
    }
    caps->max_rows *= copies;
    caps->max_tokens *= copies;
    caps->max_source *= copies;
out:
    peft__free(&t->ctx->mem, top, bytes);
    return st;
}

static int64_t trainer_total_steps(const struct peft_trainer *t, const peft__job *job) {
    int64_t steps = peft__opt_int(&t->opts, "max_steps");
    if (steps > 0 || job->train == NULL) { return steps; }
    int64_t rows = (int64_t)peft__dataset_size(job->train);
    int64_t per_step = peft__trainer_batch(t, job) * peft__opt_int(&t->opts, "gradient_accumulation_steps");
    double epochs = peft__opt_float(&t->opts, "num_train_epochs");
    return PEFT__MAX((int64_t)ceil(epochs * (double)((rows + per_step - 1) / per_step)), 1);
}

/* Bytes of the base that are not in the allocator's account. */
static size_t trainer_mapped(const struct peft_model *m) {
    size_t bytes = m->gguf != NULL && m->gguf->file.mapped ? m->gguf->file.size : 0;
    for (size_t i = 0; i < m->n_shards; i++) { bytes += m->shards[i].file.mapped ? m->shards[i].file.size : 0; }
    return bytes;
}

/* What writing a checkpoint takes for a moment: a piece of the file and its header. */
static size_t trainer_saving(const struct peft_trainer *t) {
    return peft__opt_str(&t->opts, "checkpoint_dir")[0] != '\0' ? PEFT__IO_PIECE + ((size_t)16 << 10) : 0;
}

/* What a run takes besides the present allocations, block and scratch: tables of the plan and the execution, the frame. */
static size_t trainer_tables(const struct peft_trainer *t, const peft__caps *caps) {
    size_t values = t->tape.values.len, steps = 3 * t->tape.ops.len;
    return values * (3 * sizeof(size_t) + 3 * sizeof(bool)) + (size_t)t->tape.segments * (sizeof(bool) + sizeof(size_t)) +
           steps * sizeof(peft__plan_step) + peft__frame_room_bytes(caps) + trainer_saving(t);
}

/* What the limit leaves for activations and scratch; 0: no limit. 1 where nothing is left, so that planning says what lacks. */
static size_t trainer_room(const struct peft_trainer *t, size_t fixed) {
    size_t limit = (size_t)peft__opt_int(&t->opts, "memory_limit");
    if (limit == 0) { return 0; }
    return limit > fixed ? limit - fixed : 1;
}

static peft_status trainer_record(struct peft_trainer *t, peft__job *job) {
    peft_status st = PEFT_OK;
    peft__tape_init(&t->tape, &t->ctx->mem, true);
    TRY(peft__compose(&t->tape, &t->set->base, &job->expression));
    t->model->arch->record(t->model, &t->tape);
    TRY(peft__tape_finish(&t->tape));
    for (size_t i = 0; i < t->tape.params.len; i++) { /* each parameter's gradient: the same place in another vector */
        peft__param *p = peft__tape_param_at(&t->tape, (int32_t)i);
        for (size_t j = 0; j < job->members.len && !p->frozen; j++) {
            const peft__member *m = peft__trainer_member(job, j);
            const peft__real *first = m->adapter->values, *last = first + m->adapter->n_trainable;
            if ((uintptr_t)p->value >= (uintptr_t)first && (uintptr_t)p->value < (uintptr_t)last) {
                p->grad = m->grads + (p->value - first);
            }
        }
    }
out:
    return st;
}

/* Parameters that learn faster or slower than the rest. */
static peft_status trainer_rates(peft__member *m) {
    peft_status st = PEFT_OK;
    const peft__adapter *a = m->adapter;
    for (size_t i = 0; i < peft__adapter_param_count(a) && a->method->rate != NULL; i++) {
        const peft__adapter_param *p = peft__adapter_param_at(a, i);
        double factor = p->frozen ? 1 : a->method->rate(a, i);
        int64_t begin = p->p.value - a->values;
        if (factor != 1) { TRY(peft__optim_add_segment(&m->optim, begin, begin + p->p.rows * p->p.cols, factor)); }
    }
out:
    return st;
}

static peft_status trainer_member_memory(struct peft_trainer *t, const peft__job *job, peft__member *m) {
    peft_status st = PEFT_OK;
    peft__mem *mem = &t->ctx->mem;
    const peft__method *method = m->adapter->method;
    if (m->grads == NULL) { m->grads = peft__alloc_zero(mem, trainer_bytes(m)); }
    if (m->grads == NULL) { st = PEFT_E_NOMEM; goto out; }
    if (m->state == NULL && method->state_count != NULL) {
        m->n_state = method->state_count(m->adapter);
        m->state = peft__alloc_zero(mem, (size_t)m->n_state * sizeof *m->state);
        if (m->state == NULL) { m->n_state = 0; st = PEFT_E_NOMEM; goto out; }
    }
    if (job->eval != NULL && m->best == NULL && peft__opt_bool(&t->opts, "load_best_model_at_end")) {
        m->best = peft__alloc(mem, trainer_bytes(m));
        if (m->best == NULL) { st = PEFT_E_NOMEM; goto out; }
    }
    if (m->optim.kind == NULL) {
        double rate = method->default_rate != NULL ? method->default_rate(m->adapter) : method->learning_rate;
        TRY(peft__optim_create(&m->optim, mem, &job->optimizer_opts, rate > 0 ? rate : 2e-4, m->adapter->values, m->grads,
                               m->adapter->n_trainable, t->max_steps));
        if ((st = trainer_rates(m)) != PEFT_OK) { peft__optim_free(&m->optim); } /* all of it, or none */
    }
out:
    return st;
}

static peft_status trainer_memory(struct peft_trainer *t, peft__job *job) {
    peft_status st = PEFT_OK;
    peft__mem *mem = &t->ctx->mem;
    t->max_steps = trainer_total_steps(t, job);
    for (size_t i = 0; i < job->members.len; i++) { TRY(trainer_member_memory(t, job, peft__trainer_member(job, i))); }
    if (job->train != NULL && job->order == NULL) {
        job->order = peft__alloc(mem, peft__dataset_size(job->train) * sizeof *job->order);
        if (job->order == NULL) { st = PEFT_E_NOMEM; goto out; }
        job->epoch = -1;
    }
out:
    return st;
}

peft_status peft__trainer_plan(struct peft_trainer *t) {
    peft_status st = PEFT_OK;
    peft__caps caps = {.max_rows = 0};
    size_t fixed, limit = (size_t)peft__opt_int(&t->opts, "memory_limit");
    peft__mem *mem = &t->ctx->mem;
    if (t->planned) { return PEFT_OK; }
    if (t->jobs.len == 0) { return peft__fail(PEFT_E_INVALID, "the trainer has no job"); }
    peft__job *job = peft__trainer_job(t);
    TRY(trainer_memory(t, job));
    TRY(trainer_record(t, job));
    TRY(peft__dataset_check_tasks(job->train, &t->tape, "training"));
    TRY(peft__dataset_check_tasks(job->eval, &t->tape, "evaluation"));
    TRY(trainer_caps(t, job, &caps));
    fixed = atomic_load(&mem->now) + trainer_mapped(t->model) + trainer_tables(t, &caps);
    st = peft__plan_make(&t->plan, mem, &t->tape, &caps, trainer_room(t, fixed), t->ctx->kernels, peft__pool_size(t->pool),
                         peft__config_head_dim(&t->model->config));
    if (st == PEFT_E_NOMEM && t->plan.least_bytes > 0) {
        FAIL(PEFT_E_NOMEM, "memory_limit is %zu bytes, and this run needs at least %zu", limit, fixed + t->plan.least_bytes);
    }
    if (st != PEFT_OK) { goto out; }
    TRY(peft__exec_create(&t->exec, mem, &t->tape, &t->plan, t->ctx->kernels, t->pool));
    TRY(peft__frame_room_create(&t->room, mem, &caps));
    peft__frame_room_divide(&t->room, &t->tape, &job->expression);
    TRY(peft__frame_room_task(&t->room, &t->model->config));
    t->planned = true;
out:
    if (st != PEFT_OK) { trainer_unplan(t); }
    return st;
}

size_t peft__trainer_peak(const struct peft_trainer *t) {
    return peft__model_resident(t->model) + atomic_load(&t->ctx->mem.peak);
}

static void trainer_plan_segments(const struct peft_trainer *t, peft__json_out *j) {
    const peft__plan *p = &t->plan;
    char name[32];
    peft__json_key(j, "segments");
    peft__json_array(j);
    for (int32_t s = 0; s < p->segments; s++) {
        peft__json_object(j);
        (void)snprintf(name, sizeof name, "layer %d", (int)s - 1);
        peft__json_key(j, "name");
        peft__json_put_text(j, s == 0 ? "embeddings" : s == p->segments - 1 ? "head" : name);
        peft__json_key(j, "recomputed");
        peft__json_put_bool(j, p->recompute[s]);
        peft__json_key(j, "kept_bytes");
        peft__json_put_int(j, (int64_t)p->kept[s]);
        peft__json_object_end(j);
    }
    peft__json_array_end(j);
}

peft_status peft__trainer_plan_json(struct peft_trainer *t, peft__str *out) {
    peft_status st = PEFT_OK;
    peft__json_out j;
    TRY(peft__trainer_plan(t));
    const peft__plan *p = &t->plan;
    const peft__job *job = peft__trainer_job(t);
    size_t peak = PEFT__MAX(atomic_load(&t->ctx->mem.peak), atomic_load(&t->ctx->mem.now) + trainer_saving(t));
    int64_t passes = peft__opt_int(&t->opts, "gradient_accumulation_steps");
    int64_t values = 0, optimizer = 0;
    for (size_t i = 0; i < job->members.len; i++) {
        const peft__member *m = peft__trainer_member(job, i);
        values += m->adapter->n_values;
        optimizer += (int64_t)peft__optim_bytes(m->optim.kind, m->optim.n) + m->n_state * (int64_t)sizeof *m->state;
    }
    double once = p->forward_flops + p->backward_flops + p->rebuild_flops;
    struct { const char *key; int64_t value; } ints[] = {
        {"peak_bytes", (int64_t)(trainer_mapped(t->model) + peak)},
        {"base_bytes", (int64_t)t->model->bytes},
        {"activation_bytes", (int64_t)p->block_bytes},
        {"scratch_bytes", (int64_t)(p->scratch_bytes + p->op_scratch_bytes)},
        {"adapter_bytes", values * (int64_t)sizeof(peft__real)},
        {"gradient_bytes", job->n_trainable * (int64_t)sizeof(peft__real)},
        {"optimizer_bytes", optimizer},
        {"trainable_parameters", job->n_trainable},
        {"max_rows", p->caps.max_rows},
        {"max_tokens", p->caps.max_tokens},
        {"max_length", p->caps.max_length},
        {"max_steps", t->max_steps},
        {"recomputed_segments", p->recomputed},
    };
    peft__json_begin(&j, out, 0);
    peft__json_object(&j);
    for (size_t i = 0; i < PEFT__COUNT(ints); i++) {
        peft__json_key(&j, ints[i].key);
        peft__json_put_int(&j, ints[i].value);
    }
    peft__json_key(&j, "flops_per_step");
    peft__json_put_float(&j, once * (double)passes);
    peft__json_key(&j, "recomputed_flops");
    peft__json_put_float(&j, p->rebuild_flops * (double)passes);
    trainer_plan_segments(t, &j);
    peft__json_key(&j, "trained"); /* which adapters */
    peft__json_array(&j);
    for (size_t i = 0; i < job->members.len; i++) { peft__json_put_text(&j, peft__trainer_member(job, i)->adapter->name); }
    peft__json_array_end(&j);
    peft__json_object_end(&j);
    TRY(peft__str_status(out));
out:
    return st;
}
