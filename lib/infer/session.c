/* session.c - inference with one model and the adapters that act on it: tape, plan and KV cache, what the head gives of whole rows.
 *
 * The tape is recorded without gradients; one plan, made at the first use, serves batches of many short rows and, with the
 * cache, one long row piece by piece: a pass has at most `chunk` tokens. A row's numbers do not depend on how it was cut;
 * with products in bfloat16 they do by its rounding, for one token alone is multiplied in float32.
 * An adapter's virtual tokens stand before a row's first token, its prefix before them as the beginning of the cache.
 *
 * A cancel is remembered until the call that it ends: one that comes between two calls ends the second.
 *
 * An adapter with gates, which are means over a row's tokens, has the tokens of the pass: a prompt may not be cut, and each token
 * that is added has gates of its own. Nor may the rows of an encoder be cut, whose tokens see those after them: there a pass is as
 * long as the longest row.
 *
 * Left out: several rows that decode at the same time. */
#include "infer/parts.h"

enum { SESSION_LENGTH = 4096, SESSION_CACHE_STEP = 64 };

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

/* What a row may have: the model's positions less those that the adapters take. */
static peft_status session_limits(struct peft_session *s) {
    int64_t most = s->model->config.max_positions, asked = peft__opt_int(&s->opts, "max_length");
    int64_t chunk = peft__opt_int(&s->opts, "chunk");
    int64_t taken = s->tape.virtual_tokens + s->tape.position_shift;
    if (most > 0 && most <= taken) {
        return peft__fail(PEFT_E_SHAPE, "the adapters take %lld positions, and the model has %lld", (long long)taken,
                          (long long)most);
    }
    if (asked == 0) {
        asked = most > 0 ? PEFT__MIN(most - taken, SESSION_LENGTH) : SESSION_LENGTH;
        if (s->uncut) { asked = PEFT__MIN(asked, chunk); }
    } else if (most > 0 && asked > most - taken) {
        return peft__fail(PEFT_E_KEY, "key \"max_length\" is %lld, but the model has %lld positions%s",
                          (long long)asked, (long long)(most - taken), taken > 0 ? " that the adapters leave" : "");
    }
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

/* Of row r of a batch that names tasks; the option's otherwise (r -1: in any case). */
static int32_t session_task(const struct peft_session *s, int64_t r) {
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

static int64_t session_max_rows(const struct peft_session *s) {
    return PEFT__MIN(PEFT__SESSION_ROWS, s->chunk);
}

static size_t session_logit_bytes(const struct peft_session *s) {
    return (size_t)PEFT__MAX(s->vocab, s->columns) * sizeof *s->logits;
}

static peft_status session_fill(struct peft_session *s, const char *expression, const peft__optset *opts) {
    peft_status st = PEFT_OK;
    peft__mem *mem = &s->ctx->mem;
    if (s->set != NULL && s->set->base.owner != s->model) {
        FAIL(PEFT_E_INVALID, "the adapters are of another model than the session");
    }
    TRY(peft__optset_copy(&s->opts, mem, opts));
    TRY(peft__expression_parse(&s->expression, mem, s->set, expression));
    TRY(session_record(s));
    session_outputs(s);
    TRY(session_limits(s));
    s->task = session_task(s, -1);
    if (s->tape.tasks > 0 && s->task >= s->tape.tasks) {
        FAIL(PEFT_E_KEY, "key \"task_id\" is %d, but the adapter's num_tasks is %lld", (int)s->task,
             (long long)s->tape.tasks);
    }
    TRY(peft__pool_create(mem, s->ctx->threads, &s->pool));
    peft__pool_set_host(s->pool, s->ctx->parallel_for, s->ctx->parallel_user);
    s->max_stream = s->chunk + session_max_rows(s) * s->tape.virtual_tokens;
    s->positions = peft__alloc(mem, (size_t)s->max_stream * sizeof *s->positions);
    s->wanted = peft__alloc(mem, (size_t)s->chunk * sizeof *s->wanted);
    s->types = peft__alloc(mem, (size_t)s->max_stream * sizeof *s->types);
    s->logits = peft__alloc(mem, session_logit_bytes(s));
    if (s->positions == NULL || s->wanted == NULL || s->types == NULL || s->logits == NULL) { st = PEFT_E_NOMEM; }
out:
    return st;
}

peft_status peft__session_create(struct peft_model *m, struct peft_adapters *set, const char *expression,
                                 const peft__optset *opts, struct peft_session **out) {
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
    peft_status st = session_fill(s, expression, opts);
    if (st != PEFT_OK) {
        peft__session_free(s);
        return st;
    }
    *out = s;
    return PEFT_OK;
}

void peft__session_unplan(struct peft_session *s) {
    peft__exec_free(&s->exec);
    peft__plan_free(&s->plan);
    s->planned = false;
}

static size_t session_cache_reals(const struct peft_session *s) {
    return 2 * (size_t)s->model->config.layers * (size_t)(s->cache.rows * s->cache.capacity) * (size_t)s->cache.kv_dim;
}

static void session_cache_free(struct peft_session *s) {
    peft__mem *mem = &s->ctx->mem;
    size_t layers = (size_t)s->model->config.layers;
    if (s->cache.k != NULL) {
        peft__free(mem, s->cache.k[0], session_cache_reals(s) * sizeof(peft__real));
        peft__free(mem, s->cache.k, 2 * layers * sizeof *s->cache.k);
    }
    peft__free(mem, s->cache.length, (size_t)s->cache.rows * sizeof *s->cache.length);
    memset(&s->cache, 0, sizeof s->cache);
}

void peft__session_free(struct peft_session *s) {
    if (s == NULL) { return; }
    peft_context *ctx = s->ctx;
    peft__session_stop(s);
    if (s->tape.mem != NULL) { peft__session_source_free(s); }
    peft__session_unplan(s);
    peft__session_cross_free(s);
    session_cache_free(s);
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

/* A new session takes the place of this one, whose plan and cache are of no use any more. */
peft_status peft__session_set_adapters(struct peft_session *s, const char *expression) {
    peft_status st = PEFT_OK;
    struct peft_session *other = NULL, old;
    TRY(peft__session_create(s->model, s->set, expression, &s->opts, &other));
    peft__session_stop(s);
    peft__session_source_free(s);
    peft__session_unplan(s);
    peft__session_cross_free(s);
    session_cache_free(s);
    memcpy(&old, s, sizeof old);
    memcpy(s, other, sizeof *s);
    memcpy(other, &old, sizeof old);
    peft__session_free(other);
out:
    return st;
}

/* ---- plan and cache -------------------------------------------------------------------------------------------------- */

peft_status peft__session_plan(struct peft_session *s) {
    peft_status st = PEFT_OK;
    peft__mem *mem = &s->ctx->mem;
    peft__caps caps = {.max_rows = session_max_rows(s), .max_tokens = s->chunk, .max_length = s->max_length,
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

/* Copies what is filled of the rows of `from` into blocks of the new capacity. */
static void session_cache_move(const peft__kv_cache *from, peft__kv_cache *to, peft__real *block, size_t layers) {
    size_t stride = (size_t)(to->capacity * to->kv_dim), before = (size_t)(from->capacity * from->kv_dim);
    for (size_t i = 0; i < 2 * layers; i++) {
        peft__real *own = block + i * (size_t)to->rows * stride;
        for (int64_t r = 0; r < from->rows; r++) {
            size_t filled = (size_t)(from->length[r] * to->kv_dim);
            if (filled > 0) { memcpy(own + (size_t)r * stride, from->k[i] + (size_t)r * before, filled * sizeof *own); }
        }
        to->k[i] = own;
    }
    for (int64_t r = 0; r < from->rows; r++) { to->length[r] = from->length[r]; }
}

/* Room for `need` positions of `rows` rows, the filled ones kept. */
static peft_status session_cache_grow(struct peft_session *s, int64_t rows, int64_t need) {
    peft__kv_cache *c = &s->cache, old = *c;
    peft__mem *mem = &s->ctx->mem;
    size_t layers = (size_t)s->model->config.layers;
    if (c->k != NULL && need <= c->capacity && rows <= c->rows) { return PEFT_OK; }
    c->kv_dim = s->model->config.kv_heads * s->model->config.head_dim;
    c->rows = PEFT__MAX(rows, old.rows);
    if (need > old.capacity) {
        c->capacity = PEFT__MAX(2 * old.capacity, (need + SESSION_CACHE_STEP - 1) / SESSION_CACHE_STEP * SESSION_CACHE_STEP);
        c->capacity = PEFT__MIN(c->capacity, s->max_length + s->tape.virtual_tokens + s->tape.prefix_tokens);
    }
    size_t bytes = session_cache_reals(s) * sizeof(peft__real);
    peft__real *block = peft__alloc(mem, bytes);
    c->k = peft__alloc_zero(mem, 2 * layers * sizeof *c->k);
    c->length = peft__alloc_zero(mem, (size_t)c->rows * sizeof *c->length);
    if (block == NULL || c->k == NULL || c->length == NULL) {
        peft__free(mem, block, bytes);
        peft__free(mem, c->k, 2 * layers * sizeof *c->k);
        peft__free(mem, c->length, (size_t)c->rows * sizeof *c->length);
        *c = old;
        return PEFT_E_NOMEM;
    }
    session_cache_move(&old, c, block, layers);
    c->v = c->k + layers;
    peft__kv_cache made = *c;
    *c = old;
    session_cache_free(s);
    *c = made;
    return PEFT_OK;
}

peft_status peft__session_cache_rows(struct peft_session *s, int64_t rows) {
    peft_status st = session_cache_grow(s, rows, s->cache.capacity);
    return st == PEFT_OK ? peft__session_cross_grow(s, rows, 0) : st;
}

void peft__session_cache_copy(struct peft_session *s, int32_t from, int32_t to) {
    peft__kv_cache *c = &s->cache;
    size_t stride = (size_t)(c->capacity * c->kv_dim), filled = (size_t)(c->length[from] * c->kv_dim);
    for (size_t i = 0; i < 2 * (size_t)s->model->config.layers; i++) {
        memcpy(c->k[i] + (size_t)to * stride, c->k[i] + (size_t)from * stride, filled * sizeof **c->k);
    }
    c->length[to] = c->length[from];
    peft__session_cross_copy(s, from, to);
}

/* ---- passes ------------------------------------------------------------------------------------------------------------ */

peft_status peft__session_check_ids(const struct peft_session *s, const int32_t *ids, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= s->vocab) {
            return peft__fail(PEFT_E_INVALID, "token %zu has id %d, expected 0 to %lld", i, (int)ids[i],
                              (long long)s->vocab - 1);
        }
    }
    return PEFT_OK;
}

bool peft__session_cancelled(struct peft_session *s) {
    return atomic_exchange(&s->cancel, false) != 0;
}

/* Token types of the pass, virtual tokens having 0; NULL: all have. */
static const int32_t *session_types(struct peft_session *s, const int32_t *ids, const int64_t *in, const int64_t *out, int64_t n_rows) {
    if (s->rows == NULL || s->rows->types == NULL) { return NULL; }
    const int32_t *own = s->rows->types + (ids - s->rows->ids);
    for (int64_t r = 0; r < n_rows; r++) {
        int64_t n = in[r + 1] - in[r], added = out[r + 1] - out[r] - n;
        memset(s->types + out[r], 0, (size_t)added * sizeof *own);
        memcpy(s->types + out[r] + added, own + in[r], (size_t)n * sizeof *own);
    }
    return s->types;
}

/* The frame of a pass over n_rows rows at offsets `in` of ids, of groups[r] each. `out` becomes their offsets with the group's
 * virtual tokens before each, unless they go on (`begun`); a row's first token (virtual or not) has position `position`. Wanted
 * are the logits of each row's last tokens, at most `n_logits` a row. */
static peft__frame session_frame(struct peft_session *s, const int32_t *ids, const int64_t *in, int64_t *out,
                                 const int32_t *groups, int64_t n_rows, bool begun, int64_t position, int64_t n_logits) {
    static const uint64_t keys[PEFT__SESSION_ROWS]; /* of dropout, which is training's */
    peft__frame f;
    memset(&f, 0, sizeof f);
    out[0] = 0;
    for (int64_t r = 0; r < n_rows; r++) {
        int64_t n = in[r + 1] - in[r], skipped = n - PEFT__MIN(n, n_logits);
        int64_t virtual_tokens = begun ? 0 : s->tape.group_tokens[groups[r]];
        out[r + 1] = out[r] + virtual_tokens + n;
        int64_t at = position + s->tape.group_shift[groups[r]];
        for (int64_t t = out[r]; t < out[r + 1]; t++) { s->positions[t] = (int32_t)(at + t - out[r]); }
        for (int64_t t = skipped; t < n; t++) { s->wanted[f.n_logits++] = out[r] + virtual_tokens + t; }
    }
    f.n_rows = f.count[PEFT__SPACE_ROWS] = n_rows;
    f.count[PEFT__SPACE_INPUT] = in[n_rows];
    f.count[PEFT__SPACE_TOKENS] = out[n_rows];
    f.offsets[PEFT__SPACE_INPUT] = in;
    f.offsets[PEFT__SPACE_TOKENS] = out;
    f.ids = ids;
    f.positions = s->positions;
    f.types = session_types(s, ids, in, out, n_rows);
    f.row_keys = keys;
    f.row_groups = groups;
    f.logit_tokens = s->wanted;
    f.lengths = s->whole > 0 ? &s->whole : NULL;
    return f;
}

peft_status peft__session_advance(struct peft_session *s, const int32_t *ids, int64_t n, float *logits,
                                  int64_t n_logits) {
    peft_status st = PEFT_OK;
    int64_t in[2] = {0, n}, out[2], past = s->cache.length != NULL ? s->cache.length[0] : 0,
            prefix = s->tape.prefix_tokens;
    int64_t virtual_tokens = past == 0 ? s->tape.group_tokens[s->group] : 0, behind = past == 0 ? 0 : past - prefix;
    int32_t slot = 0;
    TRY(session_cache_grow(s, 1, prefix + behind + virtual_tokens + n));
    peft__frame f = session_frame(s, ids, in, out, &s->group, 1, past > 0, behind, n_logits);
    f.row_tasks = &s->task;
    if (past == 0) { TRY(peft__session_source_begins(s, &f)); }
    f.cache = &s->cache;
    f.cache_rows = &slot;
    f.logits = logits;
    TRY(peft__exec_run(&s->exec, &f, false));
    s->cache.length[0] = prefix + behind + virtual_tokens + n;
out:
    return st;
}

peft_status peft__session_advance_rows(struct peft_session *s, const int32_t *ids, const int32_t *slots, int64_t n, float *logits) {
    peft_status st = PEFT_OK;
    int64_t in[PEFT__SESSION_ROWS + 1], out[PEFT__SESSION_ROWS + 1], past = s->cache.length[slots[0]];
    int32_t groups[PEFT__SESSION_ROWS], tasks[PEFT__SESSION_ROWS];
    for (int64_t r = 0; r < n; r++) {
        in[r] = r;
        groups[r] = s->group;
        tasks[r] = s->task;
    }
    in[n] = n;
    TRY(session_cache_grow(s, n, past + 1));
    peft__frame f = session_frame(s, ids, in, out, groups, n, true, past - s->tape.prefix_tokens, 1);
    f.row_tasks = tasks;
    f.cache = &s->cache;
    f.cache_rows = slots;
    f.logits = logits;
    TRY(peft__exec_run(&s->exec, &f, false));
    for (int64_t r = 0; r < n; r++) { s->cache.length[slots[r]] = past + 1; }
out:
    return st;
}

void peft__session_rewind(struct peft_session *s) {
    for (int64_t r = 0; r < s->cache.rows; r++) { s->cache.length[r] = 0; }
    peft__session_cross_rewind(s);
}

void peft__session_row_begins(struct peft_session *s, int64_t n) {
    peft__session_rewind(s);
    s->whole = n > 0 ? n + s->tape.group_tokens[s->group] + s->tape.group_shift[s->group] : 0;
}

peft_status peft__session_check_whole(const struct peft_session *s, int64_t n) {
    if (!s->tape.means || n <= s->chunk) { return PEFT_OK; }
    return peft__fail(PEFT_E_SHAPE, "a row of %lld tokens takes several passes of %lld, and the adapters have gates, which are means over "
                      "a whole row: set the session's chunk to %lld or more", (long long)n, (long long)s->chunk, (long long)n);
}

/* A row that is longer than a pass. Of outputs of the row the last pass has the right ones. */
static peft_status session_logits_long(struct peft_session *s, const int32_t *ids, int64_t n, float *out) {
    peft_status st = PEFT_OK;
    TRY(peft__session_check_whole(s, n));
    peft__session_row_begins(s, n);
    for (int64_t at = 0; at < n; at += s->chunk) {
        int64_t part = PEFT__MIN(s->chunk, n - at);
        if (peft__session_cancelled(s)) { FAIL(PEFT_E_CANCELLED, "the session was cancelled"); }
        TRY(peft__session_advance(s, ids + at, part, out + (s->by_rows ? 0 : at * s->columns), part));
    }
out:
    s->whole = 0;
    return st;
}

/* Rows [first, first + n_rows) of the batch, all in one pass. */
static peft_status session_logits_short(struct peft_session *s, int64_t first, int64_t n_rows, int64_t copy, float *out) {
    const int64_t *offsets = s->rows->offsets + first;
    int64_t in[PEFT__SESSION_ROWS + 1], stream[PEFT__SESSION_ROWS + 1];
    int32_t groups[PEFT__SESSION_ROWS], tasks[PEFT__SESSION_ROWS];
    for (int64_t r = 0; r < n_rows; r++) { groups[r] = peft__expression_group(&s->expression, first + r, copy); }
    for (int64_t r = 0; r < n_rows; r++) { tasks[r] = session_task(s, first + r); }
    for (int64_t r = 0; r <= n_rows; r++) { in[r] = offsets[r] - offsets[0]; }
    peft__frame f = session_frame(s, s->rows->ids + offsets[0], in, stream, groups, n_rows, false, 0, s->chunk);
    f.row_tasks = tasks;
    f.logits = out;
    if (s->rows->source_ids != NULL) {
        const int64_t *source = s->rows->source_offsets + first;
        peft__session_source_rows(s, &f, s->rows->source_ids + source[0], source, groups);
    }
    return peft__exec_run(&s->exec, &f, false);
}

static peft_status session_check_rows(const struct peft_session *s, const peft__session_rows *rows) {
    int64_t types = s->model->config.type_vocab, tokens = rows->n > 0 ? rows->offsets[rows->n] : 0;
    for (size_t r = 0; r < rows->n; r++) {
        int64_t n = rows->offsets[r + 1] - rows->offsets[r];
        if (n <= s->max_length) { continue; }
        return peft__fail(PEFT_E_SHAPE, "row %zu has %lld tokens, more than the session's max_length of %lld%s", r, (long long)n,
                          (long long)s->max_length, s->uncut ? ", and it cannot be cut: set max_length" : "");
    }
    for (int64_t i = 0; rows->types != NULL && types > 0 && i < tokens; i++) {
        if (rows->types[i] < types) { continue; }
        return peft__fail(PEFT_E_INVALID, "token %lld has type %d, expected 0 to %lld", (long long)i, (int)rows->types[i],
                          (long long)types - 1);
    }
    return peft__session_check_ids(s, rows->ids, (size_t)tokens);
}

/* All rows, in their branch `copy` where the expression has a parallel block. */
static peft_status session_logits_copy(struct peft_session *s, int64_t copy, float *out) {
    peft_status st = PEFT_OK;
    const int64_t *offsets = s->rows->offsets;
    for (size_t r = 0; r < s->rows->n;) {
        size_t end = r;
        int64_t first = offsets[r];
        float *to = out + (s->by_rows ? (int64_t)r : first) * s->columns;
        while (end < s->rows->n && end - r < (size_t)session_max_rows(s) && offsets[end + 1] - first <= s->chunk &&
               peft__session_source_fits(s, r, end + 1)) {
            end++;
        }
        if (peft__session_cancelled(s)) { FAIL(PEFT_E_CANCELLED, "the session was cancelled"); }
        if (end == r) {
            s->group = peft__expression_group(&s->expression, (int64_t)r, copy);
            s->task = session_task(s, (int64_t)r);
            peft__session_source_is(s, r);
            TRY(session_logits_long(s, s->rows->ids + first, offsets[r + 1] - first, to));
            end = r + 1;
        } else {
            TRY(session_logits_short(s, (int64_t)r, (int64_t)(end - r), copy, to));
        }
        r = end;
    }
out:
    s->group = 0;
    s->task = session_task(s, -1);
    return st;
}

bool peft__session_output_size(const struct peft_session *s, size_t tokens, size_t rows, size_t *n) {
    return peft__mul(s->by_rows ? rows : tokens, (size_t)s->columns, n) &&
           peft__mul(*n, (size_t)peft__expression_copies(&s->expression), n);
}

peft_status peft__session_logits(struct peft_session *s, const peft__session_rows *rows, float *out) {
    peft_status st = PEFT_OK;
    int64_t wanted = peft__expression_rows(&s->expression), copies = peft__expression_copies(&s->expression);
    size_t size = 0;
    s->rows = rows;
    TRY(session_check_rows(s, rows));
    if (wanted > 0 && (size_t)wanted != rows->n) {
        FAIL(PEFT_E_SHAPE, "the batch has %zu rows, and batch_split divides %lld", rows->n, (long long)wanted);
    }
    peft__session_stop(s);
    TRY(peft__session_source_prepare(s, rows));
    TRY(peft__session_plan(s));
    (void)peft__session_output_size(s, rows->n > 0 ? (size_t)rows->offsets[rows->n] : 0, rows->n, &size);
    for (int64_t c = 0; c < copies; c++) { TRY(session_logits_copy(s, c, out + (size_t)c * (size / (size_t)copies))); }
out:
    s->rows = NULL;
    return st;
}
