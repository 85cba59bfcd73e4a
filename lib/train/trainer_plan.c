/* trainer_plan.c - a trainer's plan: from options and data to a tape with all its memory.
 *
 * It is made for the largest batch that the data can give; after it, a step allocates nothing. Where several jobs are trained, it is
 * made anew for those that are left when one of them ends. */
#include <math.h>
#include <stdio.h>

#include "autograd/profile.h"
#include "train/loop.h"

void peft__trainer_unplan(struct peft_trainer *t) {
    peft__frame_room_free(&t->room);
    peft__exec_free(&t->exec);
    peft__plan_free(&t->plan);
    peft__tape_free(&t->tape);
    peft__expression_free(&t->joint);
    t->planned = false;
}

/* ---- caps ---------------------------------------------------------------------------------------------------------------- */

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

/* What a job's largest batch is: the longest rows that its data has, all in one. */
static peft_status trainer_job_caps(struct peft_trainer *t, const peft__job *job, peft__caps *caps) {
    int64_t copies = peft__expression_copies(&job->expression), rows = (job->rows + t->ranks - 1) / t->ranks;
    int64_t *top = NULL;
    size_t bytes = 0;
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
    caps->max_rows *= copies;
    caps->max_tokens *= copies;
    caps->max_source *= copies;
    peft__free(&t->ctx->mem, top, bytes);
    return PEFT_OK;
}

/* Caps: the largest batches of all jobs in one. */
static peft_status trainer_caps(struct peft_trainer *t, peft__caps *caps) {
    peft_status st = PEFT_OK;
    int64_t limit = peft__opt_int(&t->opts, "max_length");
    int64_t positions = t->model->config.max_positions, added = t->tape.virtual_tokens + t->tape.position_shift;
    for (size_t i = 0; i < t->n_active; i++) {
        peft__caps own = {.max_rows = 0};
        TRY(trainer_job_caps(t, t->active[i], &own));
        if (limit > 0 && own.max_length > limit && t->active[i]->train != NULL) {
            FAIL(PEFT_E_SHAPE, "a row of the data has %lld tokens, more than the trainer's max_length %lld", (long long)own.max_length,
                 (long long)limit);
        }
        caps->max_rows += own.max_rows;
        caps->max_tokens += own.max_tokens;
        caps->max_source += own.max_source;
        caps->max_length = PEFT__MAX(caps->max_length, own.max_length);
        caps->max_source_length = PEFT__MAX(caps->max_source_length, own.max_source_length);
    }
    caps->virtual_tokens = t->tape.virtual_tokens;
    caps->position_shift = t->tape.position_shift;
    caps->source_virtual = t->tape.source_virtual;
    caps->bf16 = peft__compute_bf16(&t->opts, t->ctx->kernels);
#ifndef PEFT_MINIMAL
    caps->pack = strcmp(peft__opt_str(&t->opts, "activation_dtype"), "bfloat16") == 0;
#endif
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
out:
    return st;
}

static int64_t trainer_total_steps(const struct peft_trainer *t, const peft__job *job) {
    const peft__optset *own = &job->optimizer_opts;
    int64_t steps = peft__opt_int(own, "max_steps");
    double epochs = peft__opt_float(own, "num_train_epochs");
    if (steps == 0 && epochs == 0) { steps = peft__opt_int(&t->opts, "max_steps"); }
    if (steps > 0 || job->train == NULL) { return steps; }
    if (epochs == 0) { epochs = peft__opt_float(&t->opts, "num_train_epochs"); }
    int64_t rows = (int64_t)peft__dataset_size(job->train), per_step = job->rows * peft__opt_int(&t->opts, "gradient_accumulation_steps");
    return PEFT__MAX((int64_t)ceil(epochs * (double)((rows + per_step - 1) / per_step)), 1);
}

/* ---- memory -------------------------------------------------------------------------------------------------------------- */

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
    size_t values = t->tape.values.len, steps = 3 * t->tape.ops.len, packed = 0;
#ifndef PEFT_MINIMAL
    if (caps->pack) {
        packed = values * (sizeof(int32_t) + sizeof(size_t));
        steps += 2 * values;
    }
#endif
    return packed + values * (3 * sizeof(size_t) + 3 * sizeof(bool)) + (size_t)t->tape.segments * (sizeof(bool) + sizeof(size_t)) +
           steps * sizeof(peft__plan_step) + peft__frame_room_bytes(caps) + trainer_saving(t);
}

/* What the limit leaves for activations and scratch; 0: no limit. 1 where nothing is left, so that planning says what lacks. */
static size_t trainer_room(const struct peft_trainer *t, size_t fixed) {
    size_t limit = (size_t)peft__opt_int(&t->opts, "memory_limit");
    if (limit == 0) { return 0; }
    return limit > fixed ? limit - fixed : 1;
}

/* Each parameter's gradient: the same place in another vector. */
static void trainer_gradients(struct peft_trainer *t) {
    for (size_t i = 0; i < t->tape.params.len; i++) {
        peft__param *p = peft__tape_param_at(&t->tape, (int32_t)i);
        for (size_t j = 0; j < t->members.len && !p->frozen; j++) {
            const peft__member *m = &PEFT__VEC_AT(&t->members, peft__member, j);
            const peft__real *first = m->adapter->values, *last = first + m->adapter->n_trainable;
            if ((uintptr_t)p->value >= (uintptr_t)first && (uintptr_t)p->value < (uintptr_t)last) {
                p->grad = m->grads + (p->value - first);
            }
        }
    }
}

static peft_status trainer_record(struct peft_trainer *t) {
    peft_status st = PEFT_OK;
    peft__tape_init(&t->tape, &t->ctx->mem, true);
    TRY(peft__compose(&t->tape, &t->set->base, peft__jobs_expression(t)));
    t->model->arch->record(t->model, &t->tape);
    TRY(peft__tape_finish(&t->tape));
    trainer_gradients(t);
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

/* Steps of the longest job that has the member: its schedule's. */
static int64_t trainer_member_steps(const struct peft_trainer *t, const peft__member *m) {
    int64_t steps = 0;
    for (size_t i = 0; i < t->jobs.len; i++) {
        const peft__job *job = peft__trainer_job(t, i);
        for (size_t j = 0; j < job->members.len; j++) {
            if (peft__trainer_member(t, job, j) == m) { steps = PEFT__MAX(steps, job->max_steps); }
        }
    }
    return steps;
}

static peft_status trainer_member_memory(struct peft_trainer *t, peft__member *m) {
    peft_status st = PEFT_OK;
    peft__mem *mem = &t->ctx->mem;
    const peft__job *job = peft__trainer_job(t, m->job);
    const peft__method *method = m->adapter->method;
    size_t bytes = (size_t)m->adapter->n_trainable * sizeof *m->grads;
    if (m->grads == NULL) { m->grads = peft__alloc_zero(mem, bytes); }
    if (m->grads == NULL) { st = PEFT_E_NOMEM; goto out; }
    if (m->state == NULL && method->state_count != NULL) {
        m->n_state = method->state_count(m->adapter);
        m->state = peft__alloc_zero(mem, (size_t)m->n_state * sizeof *m->state);
        if (m->state == NULL) { m->n_state = 0; st = PEFT_E_NOMEM; goto out; }
    }
    if (m->jobs == 1 && job->eval != NULL && m->best == NULL && peft__opt_bool(&t->opts, "load_best_model_at_end")) {
        m->best = peft__alloc(mem, bytes);
        if (m->best == NULL) { st = PEFT_E_NOMEM; goto out; }
    }
    if (m->optim.kind == NULL) {
        double rate = method->default_rate != NULL ? method->default_rate(m->adapter) : method->learning_rate;
        TRY(peft__optim_create(&m->optim, mem, &job->optimizer_opts, rate > 0 ? rate : 2e-4, m->adapter->values, m->grads,
                               m->adapter->n_trainable, trainer_member_steps(t, m)));
        if ((st = trainer_rates(m)) != PEFT_OK) { peft__optim_free(&m->optim); } /* all of it, or none */
    }
out:
    return st;
}

static peft_status trainer_memory(struct peft_trainer *t) {
    peft_status st = PEFT_OK;
    TRY(peft__jobs_share(t));
    t->max_steps = 0;
    for (size_t i = 0; i < t->jobs.len; i++) {
        peft__job *job = peft__trainer_job(t, i);
        job->max_steps = trainer_total_steps(t, job);
        t->max_steps = PEFT__MAX(t->max_steps, job->max_steps);
        if (job->train == NULL || job->order != NULL) { continue; }
        job->order = peft__alloc(&t->ctx->mem, peft__dataset_size(job->train) * sizeof *job->order);
        if (job->order == NULL) { st = PEFT_E_NOMEM; goto out; }
        job->epoch = -1;
    }
    for (size_t i = 0; i < t->members.len; i++) { TRY(trainer_member_memory(t, &PEFT__VEC_AT(&t->members, peft__member, i))); }
    TRY(peft__jobs_activate(t));
out:
    return st;
}

/* ---- profile (autograd/profile.h) ------------------------------------------------------------------------------------------- */

#ifndef PEFT_MINIMAL
/* Stays from plan to plan. */
static peft_status trainer_profile(struct peft_trainer *t) {
    if (t->profile != NULL || !peft__opt_bool(&t->opts, "profile")) { return PEFT_OK; }
    t->profile = peft__alloc_zero(&t->ctx->mem, sizeof *t->profile);
    return t->profile != NULL ? PEFT_OK : PEFT_E_NOMEM;
}

void peft__trainer_profile_free(struct peft_trainer *t) { peft__free(&t->ctx->mem, t->profile, sizeof *t->profile); }

static void trainer_profile_line(const peft__profile_line *line, peft__json_out *j) {
    peft__json_object(j);
    peft__json_key(j, "op");
    peft__json_put_text(j, line->kind->name);
    peft__json_key(j, "phase");
    peft__json_put_text(j, peft__profile_phase(line->phase));
    peft__json_key(j, "calls");
    peft__json_put_int(j, line->calls);
    peft__json_key(j, "seconds");
    peft__json_put_float(j, line->seconds);
    peft__json_key(j, "flops");
    peft__json_put_float(j, line->flops);
    peft__json_key(j, "bytes");
    peft__json_put_float(j, line->bytes);
    peft__json_object_end(j);
}

static void trainer_profile_json(const struct peft_trainer *t, peft__json_out *j) {
    const peft__profile *p = t->profile;
    if (p == NULL) { return; }
    peft__json_key(j, "profile");
    peft__json_object(j);
    peft__json_key(j, "runs");
    peft__json_put_int(j, p->runs);
    peft__json_key(j, "seconds");
    peft__json_put_float(j, p->seconds);
    peft__json_key(j, "ops");
    peft__json_array(j);
    for (int32_t i = 0; i < p->n; i++) { trainer_profile_line(&p->line[i], j); }
    peft__json_array_end(j);
    peft__json_object_end(j);
}
#endif

/* ---- the plan ------------------------------------------------------------------------------------------------------------ */

peft_status peft__trainer_plan(struct peft_trainer *t) {
    peft_status st = PEFT_OK;
    peft__caps caps = {.max_rows = 0};
    size_t fixed, limit = (size_t)peft__opt_int(&t->opts, "memory_limit");
    peft__mem *mem = &t->ctx->mem;
    if (t->planned) { return PEFT_OK; }
    if (t->jobs.len == 0) { return peft__fail(PEFT_E_INVALID, "the trainer has no job"); }
#ifndef PEFT_MINIMAL
    TRY(trainer_profile(t));
#endif
    TRY(trainer_memory(t));
    TRY(trainer_record(t));
    for (size_t i = 0; i < t->n_active; i++) {
        TRY(peft__dataset_check_tasks(t->active[i]->train, &t->tape, "training"));
        TRY(peft__dataset_check_tasks(t->active[i]->eval, &t->tape, "evaluation"));
    }
    TRY(trainer_caps(t, &caps));
    fixed = atomic_load(&mem->now) + trainer_mapped(t->model) + trainer_tables(t, &caps);
    st = peft__plan_make(&t->plan, mem, &t->tape, &caps, trainer_room(t, fixed), t->ctx->kernels, peft__pool_size(t->pool),
                         peft__config_head_dim(&t->model->config));
    if (st == PEFT_E_NOMEM && t->plan.least_bytes > 0) {
        FAIL(PEFT_E_NOMEM, "memory_limit is %zu bytes, and this run needs at least %zu", limit, fixed + t->plan.least_bytes);
    }
    if (st != PEFT_OK) { goto out; }
    TRY(peft__exec_create(&t->exec, mem, &t->tape, &t->plan, t->ctx->kernels, t->pool));
#ifndef PEFT_MINIMAL
    t->exec.profile = t->profile;
#endif
    TRY(peft__frame_room_create(&t->room, mem, &caps));
    peft__frame_room_divide(&t->room, &t->tape, peft__jobs_expression(t));
    TRY(peft__frame_room_task(&t->room, &t->model->config));
    t->planned = true;
out:
    if (st != PEFT_OK) { peft__trainer_unplan(t); }
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
    size_t peak = PEFT__MAX(atomic_load(&t->ctx->mem.peak), atomic_load(&t->ctx->mem.now) + trainer_saving(t));
    int64_t passes = peft__opt_int(&t->opts, "gradient_accumulation_steps");
    int64_t values = 0, optimizer = 0, trainable = 0;
    for (size_t i = 0; i < t->members.len; i++) {
        const peft__member *m = &PEFT__VEC_AT(&t->members, peft__member, i);
        values += m->adapter->n_values;
        trainable += m->adapter->n_trainable;
        optimizer += (int64_t)peft__optim_bytes(m->optim.kind, m->optim.n) + m->n_state * (int64_t)sizeof *m->state;
    }
    double once = p->forward_flops + p->backward_flops + p->rebuild_flops;
    struct { const char *key; int64_t value; } ints[] = {
        {"peak_bytes", (int64_t)(trainer_mapped(t->model) + peak)},
        {"base_bytes", (int64_t)t->model->bytes},
        {"activation_bytes", (int64_t)p->block_bytes},
        {"scratch_bytes", (int64_t)(p->scratch_bytes + p->op_scratch_bytes)},
        {"adapter_bytes", values * (int64_t)sizeof(peft__real)},
        {"gradient_bytes", trainable * (int64_t)sizeof(peft__real)},
        {"optimizer_bytes", optimizer},
        {"trainable_parameters", trainable},
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
    for (size_t i = 0; i < t->members.len; i++) {
        peft__json_put_text(&j, PEFT__VEC_AT(&t->members, peft__member, i).adapter->name);
    }
    peft__json_array_end(&j);
    peft__jobs_json(t, &j);
#ifndef PEFT_MINIMAL
    trainer_profile_json(t, &j);
#endif
    peft__json_object_end(&j);
    TRY(peft__str_status(out));
out:
    return st;
}
