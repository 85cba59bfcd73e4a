/* session.c - the life of a session: inference with one model and the adapters that act on it, its tape and its plan.
 *
 * The tape is recorded without gradients; one plan, made at the first use, serves batches of many short rows and, with the
 * cache, one long row piece by piece: a pass has at most `chunk` tokens. A row's numbers do not depend on how it was cut;
 * with products in bfloat16 they do by its rounding, for one token alone is multiplied in float32.
 *
 * A cancel is remembered until the call that it ends: one that comes between two calls ends the second.
 *
 * An adapter with gates, which are means over a row's tokens, has the tokens of the pass: a prompt may not be cut, and each token
 * that is added has gates of its own. Nor may the rows of an encoder be cut, whose tokens see those after them: there a pass is as
 * long as the longest row.
 *
 * The session of several rows (rows.c) has a branch of the expression for each different one of theirs, and a row's limits are
 * those of its branch.
 *
 * Left out: passes (pass.c), the cache of keys and values (cache.c). */
#include "infer/parts.h"

enum { SESSION_LENGTH = 4096 };

static const peft__option session_options[] = {
    {"max_length", PEFT__OPT_INT, "0", 0, 1 << 30, NULL,
     "most tokens of a row, prompt and continuation; 0: what the model allows, at most 4096"},
    {"chunk", PEFT__OPT_INT, "512", 1, 1 << 20, NULL, "most tokens of one pass: longer prompts take several"},
#ifndef PEFT_MINIMAL
    {"compute_dtype", PEFT__OPT_STR, "float32", 1, 0, PEFT__COMPUTE_TYPES, PEFT__COMPUTE_HELP},
#endif
    {"task_id", PEFT__OPT_INT, "0", 0, INT32_MAX, NULL, "task of a multitask_prompt, for rows that name none"},
};
const peft__schema peft__schema_session = {"session", session_options, PEFT__COUNT(session_options)};

/* ---- life ------------------------------------------------------------------------------------------------------------ */

int64_t peft__session_taken(const struct peft_session *s, int32_t group) {
    return s->tape.group_tokens[group] + s->tape.group_shift[group];
}

/* The same of any row: the most. Of branches for rows of their own the least, as each row has a limit of its own. */
static int64_t session_taken_of_any(const struct peft_session *s) {
    int64_t least = INT64_MAX;
    if (PEFT__MINIMAL || s->branches == 0) { return s->tape.virtual_tokens + s->tape.position_shift; }
    for (int32_t g = 0; g < s->branches; g++) { least = PEFT__MIN(least, peft__session_taken(s, g)); }
    return least;
}

/* What a row may have: the model's positions less those that the adapters take. */
static peft_status session_most(const struct peft_session *s, int32_t group, int64_t *out) {
    int64_t most = s->model->config.max_positions, asked = peft__opt_int(&s->opts, "max_length"),
            taken = group >= 0 ? peft__session_taken(s, group) : session_taken_of_any(s);
    if (most > 0 && most <= taken) {
        return peft__fail(PEFT_E_SHAPE, "the adapters take %lld positions, and the model has %lld", (long long)taken,
                          (long long)most);
    }
    if (asked == 0) {
        asked = most > 0 ? PEFT__MIN(most - taken, SESSION_LENGTH) : SESSION_LENGTH;
        if (s->uncut) { asked = PEFT__MIN(asked, peft__opt_int(&s->opts, "chunk")); }
    } else if (most > 0 && asked > most - taken) {
        return peft__fail(PEFT_E_KEY, "key \"max_length\" is %lld, but the model has %lld positions%s",
                          (long long)asked, (long long)(most - taken), taken > 0 ? " that the adapters leave" : "");
    }
    *out = asked;
    return PEFT_OK;
}

peft_status peft__session_limit(const struct peft_session *s, int32_t group, int64_t *most) {
    return session_most(s, !PEFT__MINIMAL && s->branches > 0 ? group : -1, most);
}

static peft_status session_limits(struct peft_session *s) {
    int64_t chunk = peft__opt_int(&s->opts, "chunk"), asked = 0;
    peft_status st = session_most(s, -1, &asked);
    if (st != PEFT_OK) { return st; }
    if (s->uncut && asked > chunk && peft__opt_is_set(&s->opts, "chunk")) {
        return peft__fail(PEFT_E_KEY, "key \"chunk\" is %lld, less than max_length %lld, and rows of %s cannot be cut", (long long)chunk,
                          (long long)asked, s->model->model_type);
    }
    s->max_length = asked;
    s->chunk = s->uncut ? asked : PEFT__MIN(chunk, asked);
    return PEFT_OK;
}

/* What the head of the tape gives. */
static void session_outputs(struct peft_session *s) {
    const peft__task *task = &s->model->config.task;
    const peft__op *last = peft__tape_op(&s->tape, (int32_t)s->tape.ops.len - 1);
    const peft__value *v = peft__tape_value(&s->tape, last->in[0]);
    s->vocab = s->model->config.vocab_size + s->tape.vocab_extra;
    s->columns = peft__task_is_lm(task) ? s->vocab : v->cols;
    s->by_rows = !peft__task_is_lm(task) && v->space == PEFT__SPACE_ROWS;
    s->uncut = s->model->arch->lm_task < 0 || task->kind == PEFT__TASK_EMBEDDING;
}

int32_t peft__session_task(const struct peft_session *s, int64_t r) {
    return s->rows != NULL && s->rows->tasks != NULL && r >= 0 ? s->rows->tasks[r] : (int32_t)peft__opt_int(&s->opts, "task_id");
}

static peft_status session_record(struct peft_session *s) {
    peft_status st = PEFT_OK;
    peft__tape_init(&s->tape, &s->ctx->mem, false);
    TRY(peft__compose(&s->tape, &s->base, &s->expression));
    s->model->arch->record(s->model, &s->tape);
    TRY(peft__tape_finish(&s->tape));
out:
    return st;
}

int64_t peft__session_max_rows(const struct peft_session *s) {
    return PEFT__MIN(PEFT__SESSION_ROWS, s->chunk);
}

static size_t session_logit_bytes(const struct peft_session *s) {
    return (size_t)PEFT__MAX(s->vocab, s->columns) * sizeof *s->logits;
}

/* The expression that acts: a text, or the branches of rows (of), as many as s->branches. */
static peft_status session_fill(struct peft_session *s, const char *text, const peft__expression *const *of, const peft__optset *opts) {
    peft_status st = PEFT_OK;
    peft__mem *mem = &s->ctx->mem;
    if (s->set != NULL && s->set->base.owner != s->model) {
        FAIL(PEFT_E_INVALID, "the adapters are of another model than the session");
    }
    TRY(peft__optset_copy(&s->opts, mem, opts));
    if (!PEFT__MINIMAL && of != NULL) {
        TRY(peft__expression_branches(&s->expression, mem, s->set, of, (size_t)s->branches));
    } else {
        TRY(peft__expression_parse(&s->expression, mem, s->set, text));
        peft__expression_used_by(&s->expression, PEFT__USER_SESSION);
    }
    TRY(session_record(s));
    session_outputs(s);
    TRY(session_limits(s));
    s->task = peft__session_task(s, -1);
    if (s->tape.tasks > 0 && s->task >= s->tape.tasks) {
        FAIL(PEFT_E_KEY, "key \"task_id\" is %d, but the adapter's num_tasks is %lld", (int)s->task,
             (long long)s->tape.tasks);
    }
    s->max_stream = s->chunk + peft__session_max_rows(s) * s->tape.virtual_tokens;
    s->positions = peft__alloc(mem, (size_t)s->max_stream * sizeof *s->positions);
    s->wanted = peft__alloc(mem, (size_t)s->chunk * sizeof *s->wanted);
    s->types = peft__alloc(mem, (size_t)s->max_stream * sizeof *s->types);
    s->logits = peft__alloc(mem, session_logit_bytes(s));
    if (s->positions == NULL || s->wanted == NULL || s->types == NULL || s->logits == NULL) { st = PEFT_E_NOMEM; }
out:
    return st;
}

/* All but the threads. */
static peft_status session_make(struct peft_model *m, struct peft_adapters *set, const char *text, const peft__expression *const *of,
                                size_t branches, const peft__optset *opts, struct peft_session **out) {
    struct peft_session *s = peft__alloc_zero(&m->ctx->mem, sizeof *s);
    if (s == NULL) { return PEFT_E_NOMEM; }
    s->magic = PEFT__MAGIC_SESSION;
    s->ctx = m->ctx;
    s->model = m;
    s->set = set;
    atomic_init(&s->cancel, false);
    peft__ctx_retain(s->ctx);
    peft__model_retain(m);
    if (set != NULL) {
        peft__set_retain(set);
        s->base = set->base;
    }
    s->kernels = s->ctx->kernels;
    s->branches = (int32_t)branches;
    peft_status st = session_fill(s, text, of, opts);
    if (st != PEFT_OK) {
        peft__session_free(s);
        return st;
    }
    *out = s;
    return PEFT_OK;
}

peft_status peft__session_create(struct peft_model *m, struct peft_adapters *set, const char *expression,
                                 const peft__optset *opts, struct peft_session **out) {
    struct peft_session *s = NULL;
    peft_status st = session_make(m, set, expression, NULL, 0, opts, &s);
    if (st != PEFT_OK) { return st; }
    st = peft__pool_create(&s->ctx->mem, s->ctx->threads, &s->pool);
    if (st != PEFT_OK) {
        peft__session_free(s);
        return st;
    }
    peft__pool_set_host(s->pool, s->ctx->parallel_for, s->ctx->parallel_user);
    *out = s;
    return PEFT_OK;
}

void peft__session_unplan(struct peft_session *s) {
    peft__exec_free(&s->exec);
    peft__plan_free(&s->plan);
    s->planned = false;
}

void peft__session_free(struct peft_session *s) {
    if (s == NULL) { return; }
    peft_context *ctx = s->ctx;
    peft__session_stop(s);
    peft__rows_free(s->batch);
    if (s->tape.mem != NULL) { peft__session_source_free(s); }
    peft__session_unplan(s);
    peft__session_cross_free(s);
    peft__session_cache_free(s);
    if (s->tape.mem != NULL) { peft__tape_free(&s->tape); }
    peft__pool_free(s->pool);
    peft__free(&ctx->mem, s->positions, (size_t)s->max_stream * sizeof *s->positions);
    peft__free(&ctx->mem, s->wanted, (size_t)s->chunk * sizeof *s->wanted);
    peft__free(&ctx->mem, s->types, (size_t)s->max_stream * sizeof *s->types);
    peft__free(&ctx->mem, s->logits, session_logit_bytes(s));
    peft__optset_free(&s->opts);
    peft__expression_free(&s->expression);
    peft__set_release(s->set);
    peft__model_release(s->model);
    s->magic = PEFT__MAGIC_FREED;
    peft__free(&ctx->mem, s, sizeof *s);
    peft__ctx_release(ctx);
}

/* A new session takes the place of this one, of which it keeps the threads. */
static peft_status session_again(struct peft_session *s, const char *text, const peft__expression *const *of, size_t branches) {
    struct peft_session *other = NULL, old;
    peft_status st = session_make(s->model, s->set, text, of, branches, &s->opts, &other);
    if (st != PEFT_OK) { return st; }
    peft__session_stop(s);
    peft__session_source_free(s);
    peft__session_unplan(s);
    other->kernels = s->kernels;
    other->pool = s->pool;
    s->pool = NULL;
    memcpy(&old, s, sizeof old);
    memcpy(s, other, sizeof *s);
    memcpy(other, &old, sizeof old);
    s->batch = other->batch;
    other->batch = NULL;
    if (!PEFT__MINIMAL && branches > 0) { /* what rows have read stays */
        s->cache = other->cache;
        s->source.rows = other->source.rows;
        memset(&other->cache, 0, sizeof other->cache);
        other->source.rows = 0;
    }
    peft__session_free(other);
    return PEFT_OK;
}

peft_status peft__session_set_adapters(struct peft_session *s, const char *expression) {
    return session_again(s, expression, NULL, 0);
}

#ifndef PEFT_MINIMAL
peft_status peft__session_set_branches(struct peft_session *s, const peft__expression *const *of, size_t n) {
    return session_again(s, NULL, of, n);
}
#endif

/* ---- plan ------------------------------------------------------------------------------------------------------------ */

peft_status peft__session_plan(struct peft_session *s) {
    peft_status st = PEFT_OK;
    peft__mem *mem = &s->ctx->mem;
    peft__caps caps = {.max_rows = peft__session_max_rows(s), .max_tokens = s->chunk, .max_length = s->max_length,
                       .virtual_tokens = s->tape.virtual_tokens, .position_shift = s->tape.position_shift,
                       .max_source = s->source.room, .max_source_length = s->source.room, .source_virtual = s->tape.source_virtual,
                       .bf16 = peft__compute_bf16(&s->opts, s->kernels)};
    if (s->planned) { return PEFT_OK; }
    TRY(peft__plan_make(&s->plan, mem, &s->tape, &caps, 0, s->kernels, peft__pool_size(s->pool),
                        peft__config_head_dim(&s->model->config)));
    TRY(peft__exec_create(&s->exec, mem, &s->tape, &s->plan, s->kernels, s->pool));
    s->planned = true;
out:
    if (st != PEFT_OK) { peft__session_unplan(s); }
    return st;
}
