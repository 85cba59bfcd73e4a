/* trainer.c - a trainer's options, its jobs and the adapters that they train. The plan is trainer_plan.c. */
#include <math.h>

#include "train/loop.h"

static const peft__option trainer_options[] = {
    {"max_steps", PEFT__OPT_INT, "0", 0, 1e15, NULL, "optimiser steps; 0: num_train_epochs says"},
    {"num_train_epochs", PEFT__OPT_FLOAT, "3", 0, 1e9, NULL, "passes over the data, where max_steps is 0"},
    {"batch_size", PEFT__OPT_INT, "8", 1, 1 << 20, NULL, "rows of one forward and backward pass, of all jobs together"},
    {"job_sampling", PEFT__OPT_STR, "fixed", 1, 0, "fixed|proportional|temperature",
     "how several jobs divide them: by their shares; by share x rows of data; by share x rows^(1/sampling_temperature)"},
    {"sampling_temperature", PEFT__OPT_FLOAT, "2", 1, 1e6, NULL, "1: as proportional; large: as fixed"},
    {"gradient_accumulation_steps", PEFT__OPT_INT, "1", 1, 1 << 20, NULL, "such passes a step"},
    {"max_length", PEFT__OPT_INT, "0", 0, 1 << 24, NULL,
     "longest row; data with a longer one is refused; planned for where there is no data"},
    {"shuffle", PEFT__OPT_BOOL, "true", 1, 0, NULL, "a new order of the rows in each epoch"},
    {"group_by_length", PEFT__OPT_BOOL, "false", 1, 0, NULL, "rows of like length together"},
    {"seed", PEFT__OPT_INT, "42", 0, 9e15, NULL, "of order and dropout"},
    {"label_smoothing", PEFT__OPT_FLOAT, "0", 0, 1, NULL, "share of the label's probability that goes to all tokens"},
    {"class_weights", PEFT__OPT_LIST, "", 1, 0, NULL, "weights of the losses of classes, a list of numbers or balanced; unset: 1"},
    {"similarity_scale", PEFT__OPT_FLOAT, "20", 0, 1e6, NULL, "of embeddings: what cosines are multiplied by in the loss"},
    {"compute_dtype", PEFT__OPT_STR, "float32", 1, 0, PEFT__COMPUTE_TYPES, PEFT__COMPUTE_HELP},
#ifndef PEFT_MINIMAL
    {"activation_dtype", PEFT__OPT_STR, "float32", 1, 0, "float32|bfloat16",
     "type in which values wait for the backward pass; bfloat16: half of the memory, rounded"},
#endif
    {"memory_limit", PEFT__OPT_SIZE, "0", 0, 1e18, NULL, "bytes of base and all else, 0: any; activations are recomputed to fit"},
    {"eval_steps", PEFT__OPT_INT, "0", 0, 1e15, NULL, "evaluate every so many steps; 0: after the last"},
    {"save_steps", PEFT__OPT_INT, "0", 0, 1e15, NULL, "write a checkpoint every so many steps; 0: after the last"},
    {"checkpoint_dir", PEFT__OPT_STR, "", 1, 0, NULL, "folder of the checkpoint; empty: none is written"},
    {"load_best_model_at_end", PEFT__OPT_BOOL, "false", 1, 0, NULL, "end with the adapter that had the lowest evaluation loss"},
#ifndef PEFT_MINIMAL
    {"profile", PEFT__OPT_BOOL, "false", 1, 0, NULL, "measure each kind of operation; peft_trainer_plan_json then has \"profile\""},
#endif
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
    t->ranks = 1;
    atomic_init(&t->cancel, false);
    peft__vec_init(&t->jobs, &ctx->mem, sizeof(peft__job));
    peft__vec_init(&t->members, &ctx->mem, sizeof(peft__member));
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

static void trainer_free_member(struct peft_trainer *t, peft__member *m) {
    peft__mem *mem = &t->ctx->mem;
    peft__optim_free(&m->optim);
    peft__free(mem, m->grads, trainer_bytes(m));
    peft__free(mem, m->best, trainer_bytes(m));
    peft__free(mem, m->state, (size_t)m->n_state * sizeof *m->state);
}

static void trainer_free_job(struct peft_trainer *t, peft__job *job, bool retained) {
    peft__mem *mem = &t->ctx->mem;
    if (job->train != NULL) { peft__free(mem, job->order, peft__dataset_size(job->train) * sizeof *job->order); }
    if (job->train_classes != NULL) { peft__labels_free(job->train, mem, job->train_classes); }
    if (job->eval_classes != NULL) { peft__labels_free(job->eval, mem, job->eval_classes); }
    peft__free(mem, job->class_weights, (size_t)t->model->config.task.labels * sizeof *job->class_weights);
    peft__vec_free(&job->members);
    peft__str_free(&job->error);
    peft__optset_free(&job->optimizer_opts);
    if (retained) {
        peft__dataset_release(job->train);
        peft__dataset_release(job->eval);
    }
    peft__expression_free(&job->expression);
}

void peft__trainer_free(struct peft_trainer *t) {
    if (t == NULL) { return; }
    peft_context *ctx = t->ctx;
    peft__trainer_unplan(t);
    peft__trainer_profile_free(t);
    for (size_t i = 0; i < t->members.len; i++) { trainer_free_member(t, &PEFT__VEC_AT(&t->members, peft__member, i)); }
    peft__vec_free(&t->members);
    for (size_t i = 0; i < t->jobs.len; i++) { trainer_free_job(t, peft__trainer_job(t, i), true); }
    peft__vec_free(&t->jobs);
    peft__optset_free(&t->opts);
    peft__pool_free(t->pool);
    peft__set_release(t->set);
    t->magic = PEFT__MAGIC_FREED;
    peft__free(&ctx->mem, t, sizeof *t);
    peft__ctx_release(ctx);
}

/* The trainer's member that is the adapter; the number of members: it has none. */
static size_t trainer_member_of(const struct peft_trainer *t, const peft__adapter *a) {
    size_t i = 0;
    while (i < t->members.len && PEFT__VEC_AT(&t->members, peft__member, i).adapter != a) { i++; }
    return i;
}

/* What the expression trains: its adapters but those that are frozen. */
static peft_status trainer_members(struct peft_trainer *t, peft__job *job) {
    peft_status st = PEFT_OK;
    const peft__expression *e = &job->expression;
    for (size_t i = 0; i < e->n_leaves; i++) {
        peft__member m;
        memset(&m, 0, sizeof m);
        m.adapter = e->leaves[i]->adapter;
        m.job = t->jobs.len;
        if (e->leaves[i]->frozen || m.adapter->n_trainable == 0) { continue; }
        size_t at = trainer_member_of(t, m.adapter);
        if (at == t->members.len) { TRY(peft__vec_push(&t->members, &m)); }
        TRY(peft__vec_push(&job->members, &at));
        PEFT__VEC_AT(&t->members, peft__member, at).jobs++;
        job->n_trainable += m.adapter->n_trainable;
    }
    if (job->members.len == 0) { FAIL(PEFT_E_INVALID, "\"%s\" has nothing to train", e->text); }
out:
    return st;
}

/* Takes back what trainer_members did for a job that is not to be. */
static void trainer_drop_members(struct peft_trainer *t, const peft__job *job) {
    for (size_t i = 0; i < job->members.len; i++) { peft__trainer_member(t, job, i)->jobs--; }
    while (t->members.len > 0 && PEFT__VEC_AT(&t->members, peft__member, t->members.len - 1).jobs == 0) { t->members.len--; }
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
    peft__vec_init(&job.members, &t->ctx->mem, sizeof(size_t));
    peft__str_init(&job.error, &t->ctx->mem);
    TRY(peft__expression_parse(&job.expression, &t->ctx->mem, t->set, adapter));
    peft__expression_used_by(&job.expression, PEFT__USER_JOB);
    TRY(peft__jobs_check(t, &job));
    int64_t new_tokens = peft__expression_new_tokens(&job.expression);
    job.train = train;
    job.eval = eval;
    if (train != NULL) { TRY(peft__dataset_check(train, &t->model->config, new_tokens, "training")); }
    if (eval != NULL) { TRY(peft__dataset_check(eval, &t->model->config, new_tokens, "evaluation")); }
    TRY(trainer_labels(t, &job));
    TRY(optimizer != NULL ? peft__optset_copy(&job.optimizer_opts, &t->ctx->mem, optimizer)
                          : peft__optset_init(&job.optimizer_opts, &t->ctx->mem, &peft__schema_optimizer));
    job.best_loss = HUGE_VAL;
    job.loss = job.eval_loss = (double)NAN;
    TRY(trainer_members(t, &job));
    TRY(peft__vec_push(&t->jobs, &job));
    if (train != NULL) { peft__dataset_retain(train); }
    if (eval != NULL) { peft__dataset_retain(eval); }
    peft__trainer_unplan(t); /* a plan was of fewer jobs */
    return PEFT_OK;
out:
    trainer_drop_members(t, &job);
    trainer_free_job(t, &job, false);
    return st;
}
