/* rows.c - rows that are continued together: each with its own text, options and adapters, joining and leaving between tokens.
 *
 *   one call   1. rows whose last token the model has not seen: one token each, in one pass
 *              2. rows that wait to be read: as many prompts as fit a pass, or a part of a long one
 *              3. each row that has got logits chooses its token and hands it out
 *
 * The rows have a session of their own, recorded with a branch for each different expression of theirs: the base's matrices are
 * passed once for all rows, an adapter's by the rows of its branch. A row's numbers do not depend on the others, bit for bit. A
 * branch without rows stays recorded until another is needed or no row is left; it holds its adapters as they were when its first
 * row joined, so that one may be replaced in the set meanwhile.
 *
 * A row that begins with the tokens of a held one of its branch takes the keys and values of these from there, after that was read:
 * its numbers are those of a row that is read in these two parts, which may differ in the last bits from those of one that is read at
 * once. Not where all tokens of a row matter to each (gates, frequencies by a row's length).
 *
 * Left out: beams; more rows than a pass has (64), more branches than PEFT__GROUPS; memory that rows have in common. */
#include "infer/generation.h"

enum { ROWS_SHARED = 16 }; /* fewer tokens in common are read again */

typedef struct rows_branch { /* a different expression */
    peft__expression e; /* parsed alone: holds the adapters */
    int64_t rows;       /* that have it */
} rows_branch;

typedef struct rows_row {
    int64_t id;
    peft__generation g;
    rows_branch *branch; /* borrowed */
    int32_t *source;     /* owned, [n_source]: what an encoder reads; NULL: nothing */
    int64_t n_source;
    int64_t n, read;     /* tokens to read before the first is chosen; tokens of g.history in the cache */
    size_t from;         /* of the text: what is handed out next */
    int32_t slot, task;  /* slot: the row's in the cache */
    bool hold, told;     /* hold: stays after its end; told: that it has ended */
    bool got;            /* something to hand out */
    peft_status status;
} rows_row;

struct peft__rows {
    struct peft_session *s; /* owned */
    peft__vec list;      /* rows_row *, by id */
    peft__vec branches;  /* rows_branch *, in the order of groups where recorded */
    bool recorded;       /* the session has these branches */
    int64_t next;        /* id of the next row */
    peft__vec ids;       /* int32_t, room for [chunk]: of a pass */
    peft__vec logits;    /* float, room for [rows, vocab]: of the rows that have got some in this call */
    int64_t logits_rows; /* so many rows */
};

static rows_row *rows_at(const struct peft__rows *b, size_t i) { return PEFT__VEC_AT(&b->list, rows_row *, i); }
static rows_branch *rows_branch_at(const struct peft__rows *b, size_t i) { return PEFT__VEC_AT(&b->branches, rows_branch *, i); }

/* ---- branches ------------------------------------------------------------------------------------------------------------ */

static void rows_branch_free(struct peft__rows *b, rows_branch *own) {
    peft__expression_free(&own->e);
    peft__free(&b->s->ctx->mem, own, sizeof *own);
}

/* Leaves out branches that no row has; true: something changed. */
static bool rows_sweep(struct peft__rows *b) {
    size_t n = 0;
    rows_branch **list = b->branches.data;
    for (size_t i = 0; i < b->branches.len; i++) {
        if (list[i]->rows > 0) { list[n++] = list[i]; } else { rows_branch_free(b, list[i]); }
    }
    bool changed = n < b->branches.len;
    b->branches.len = n;
    b->recorded = b->recorded && !changed;
    return changed;
}

static int32_t rows_group(const struct peft__rows *b, const rows_branch *own) {
    size_t g = 0;
    while (rows_branch_at(b, g) != own) { g++; }
    return (int32_t)g;
}

/* The session gets the branches that there are, at least one. */
static peft_status rows_record(struct peft__rows *b) {
    peft_status st = PEFT_OK;
    const peft__expression *of[PEFT__GROUPS] = {NULL}, none = {.text = ""};
    if (b->recorded) { return PEFT_OK; }
    if (b->branches.len > PEFT__GROUPS) {
        FAIL(PEFT_E_BUSY, "the session's rows have %d different expressions already: another can join when one of them has ended",
             (int)PEFT__GROUPS);
    }
    for (size_t i = 0; i < b->branches.len; i++) { of[i] = &rows_branch_at(b, i)->e; }
    if (b->branches.len == 0) { of[0] = &none; }
    TRY(peft__session_set_branches(b->s, of, PEFT__MAX(b->branches.len, (size_t)1)));
    b->recorded = true;
    for (size_t i = 0; i < b->list.len; i++) { rows_at(b, i)->g.group = rows_group(b, rows_at(b, i)->branch); }
out:
    return st;
}

/* The branch of an expression, recorded. A new one that cannot be is gone again. */
static peft_status rows_branch_find(struct peft__rows *b, const char *text, rows_branch **out) {
    peft_status st = PEFT_OK;
    peft__mem *mem = &b->s->ctx->mem;
    rows_branch *own = peft__alloc_zero(mem, sizeof *own);
    if (own == NULL) { return PEFT_E_NOMEM; }
    TRY(peft__expression_parse(&own->e, mem, b->s->set, text));
    peft__expression_used_by(&own->e, PEFT__USER_ROWS);
    if (own->e.rows != NULL) { FAIL(PEFT_E_UNSUPPORTED, "\"%s\" divides rows, and one row is added: name one branch", text); }
    for (size_t i = 0; i < b->branches.len; i++) {
        if (!peft__expression_same(&rows_branch_at(b, i)->e, &own->e)) { continue; }
        rows_branch_free(b, own);
        *out = rows_branch_at(b, i);
        return rows_record(b);
    }
    (void)rows_sweep(b);
    TRY(peft__vec_push(&b->branches, &own));
    b->recorded = false;
    st = rows_record(b);
    if (st == PEFT_OK) {
        *out = own;
        return PEFT_OK;
    }
    b->branches.len--;
out:
    rows_branch_free(b, own);
    return st;
}

/* ---- life of rows ------------------------------------------------------------------------------------------------------------ */

static void rows_row_free(struct peft__rows *b, rows_row *r) {
    peft__mem *mem = &b->s->ctx->mem;
    if (r->branch != NULL) { r->branch->rows--; }
    peft__free(mem, r->source, (size_t)r->n_source * sizeof *r->source);
    peft__tokenizer_release(r->g.kept);
    peft__generation_free(&r->g);
    peft__free(mem, r, sizeof *r);
}

static void rows_take_out(struct peft__rows *b, size_t i) {
    rows_row **list = b->list.data;
    rows_row_free(b, list[i]);
    memmove(&list[i], &list[i + 1], (b->list.len - i - 1) * sizeof *list);
    b->list.len--;
}

/* Without rows no adapter is held. That the session cannot be recorded leaves it as it is, for the next row to try again. */
static void rows_rest(struct peft__rows *b) {
    if (b->list.len > 0 || !rows_sweep(b)) { return; }
    (void)rows_record(b);
}

void peft__rows_free(struct peft__rows *b) {
    if (b == NULL) { return; }
    for (size_t i = 0; i < b->list.len; i++) { rows_row_free(b, rows_at(b, i)); }
    for (size_t i = 0; i < b->branches.len; i++) { rows_branch_free(b, rows_branch_at(b, i)); }
    peft__vec_free(&b->list);
    peft__vec_free(&b->branches);
    peft__vec_free(&b->ids);
    peft__vec_free(&b->logits);
    struct peft_session *s = b->s;
    peft_context *ctx = s->ctx;
    peft__ctx_retain(ctx); /* outlives the session that has it */
    peft__session_free(s);
    peft__free(&ctx->mem, b, sizeof *b);
    peft__ctx_release(ctx);
}

static peft_status rows_make(struct peft_session *s) {
    peft_status st = PEFT_OK;
    peft__mem *mem = &s->ctx->mem;
    if (s->batch != NULL) { return PEFT_OK; }
    struct peft__rows *b = peft__alloc_zero(mem, sizeof *b);
    if (b == NULL) { return PEFT_E_NOMEM; }
    TRY(peft__session_create(s->model, s->set, NULL, &s->opts, &b->s));
    b->s->kernels = s->kernels;
    b->next = 1;
    peft__vec_init(&b->list, mem, sizeof(rows_row *));
    peft__vec_init(&b->branches, mem, sizeof(rows_branch *));
    peft__vec_init(&b->ids, mem, sizeof(int32_t));
    peft__vec_init(&b->logits, mem, sizeof(float));
    s->batch = b;
    return PEFT_OK;
out:
    peft__free(mem, b, sizeof *b);
    return st;
}

/* The first row of the cache that nobody has. */
static int32_t rows_slot(const struct peft__rows *b) {
    bool used[PEFT__SESSION_ROWS] = {false};
    int32_t slot = 0;
    for (size_t i = 0; i < b->list.len; i++) { used[rows_at(b, i)->slot] = true; }
    while (used[slot]) { slot++; }
    return slot;
}

static peft_status rows_begin(struct peft__rows *b, rows_row *r, const int32_t *ids, size_t n, const peft__optset *opts) {
    peft_status st = PEFT_OK;
    struct peft_session *s = b->s;
    int64_t task = peft__opt_int(opts, "task_id");
    r->g.group = rows_group(b, r->branch);
    r->g.vocab = s->model->config.vocab_size + peft__expression_new_tokens(&r->branch->e);
    TRY(peft__generation_begin(&r->g, ids, n, opts));
    if (r->g.beams > 1) { FAIL(PEFT_E_UNSUPPORTED, "num_beams is %lld, and a row among others is one text", (long long)r->g.beams); }
    r->task = task >= 0 ? (int32_t)task : peft__session_task(s, -1);
    if (s->tape.tasks > 0 && r->task >= s->tape.tasks) {
        FAIL(PEFT_E_KEY, "key \"task_id\" is %d, but the adapter's num_tasks is %lld", (int)r->task, (long long)s->tape.tasks);
    }
    r->hold = peft__opt_bool(opts, "hold");
    r->n = (int64_t)r->g.history.len;
    r->slot = rows_slot(b);
    if (r->slot < s->cache.rows) { s->cache.length[r->slot] = 0; }
    if (!r->g.source) { return PEFT_OK; }
    r->source = peft__alloc(&s->ctx->mem, n * sizeof *ids);
    if (r->source == NULL) { st = PEFT_E_NOMEM; goto out; }
    r->n_source = (int64_t)n;
    memcpy(r->source, ids, n * sizeof *ids);
    if (r->slot < s->source.rows) { s->cache.cross_length[r->slot] = 0; }
out:
    return st;
}

peft_status peft__rows_add(struct peft_session *s, const char *expression, struct peft_tokenizer *t, const int32_t *ids, size_t n,
                           const peft__optset *opts, int64_t *row) {
    peft_status st = PEFT_OK;
    rows_row *r = NULL;
    struct peft__rows *b = NULL;
    TRY(rows_make(s));
    b = s->batch;
    int64_t most = peft__session_max_rows(b->s);
    if ((int64_t)b->list.len >= most) {
        FAIL(PEFT_E_BUSY, "the session has %lld rows, as many as a pass can have: another can join when one of them has ended",
             (long long)most);
    }
    r = peft__alloc_zero(&b->s->ctx->mem, sizeof *r);
    if (r == NULL) { st = PEFT_E_NOMEM; goto out; }
    peft__generation_init(&r->g, b->s, t, NULL);
    r->g.kept = t;
    if (t != NULL) { peft__tokenizer_retain(t); }
    TRY(rows_branch_find(b, expression != NULL ? expression : s->expression.text, &r->branch));
    r->branch->rows++;
    TRY(rows_begin(b, r, ids, n, opts));
    TRY(peft__vec_push(&b->list, &r));
    r->id = b->next++;
    *row = r->id;
    return PEFT_OK;
out:
    if (r != NULL) {
        rows_row_free(b, r);
        rows_rest(b);
    }
    return st;
}

peft_status peft__rows_remove(struct peft_session *s, int64_t row) {
    struct peft__rows *b = s->batch;
    for (size_t i = 0; b != NULL && i < b->list.len; i++) {
        if (rows_at(b, i)->id != row) { continue; }
        rows_take_out(b, i);
        rows_rest(b);
        return PEFT_OK;
    }
    return peft__fail(PEFT_E_NOT_FOUND, "the session has no row %lld", (long long)row);
}

/* ---- passes ------------------------------------------------------------------------------------------------------------------ */

typedef struct rows_part { /* a row's share of a pass */
    rows_row *r;
    int64_t n; /* tokens, from `read` on */
} rows_part;

/* Room for a call's ids and logits. */
static peft_status rows_room(struct peft__rows *b) {
    b->logits_rows = 0;
    peft_status st = peft__vec_reserve(&b->ids, (size_t)b->s->chunk);
    return st == PEFT_OK ? peft__vec_reserve(&b->logits, b->list.len * (size_t)b->s->vocab) : st;
}

/* Rows of one branch stand together, so that its matrices are passed once. */
static void rows_by_group(rows_part *parts, int64_t n) {
    for (int64_t i = 1; i < n; i++) {
        rows_part p = parts[i];
        int64_t at = i;
        for (; at > 0 && parts[at - 1].r->g.group > p.r->g.group; at--) { parts[at] = parts[at - 1]; }
        parts[at] = p;
    }
}

/* All parts begin, or all go on. Rows that have been read to their end take a token. */
static peft_status rows_pass(struct peft__rows *b, rows_part *parts, int64_t n, bool last) {
    struct peft_session *s = b->s;
    int64_t in[PEFT__SESSION_ROWS + 1] = {0};
    int32_t slots[PEFT__SESSION_ROWS], groups[PEFT__SESSION_ROWS], tasks[PEFT__SESSION_ROWS];
    int32_t *ids = b->ids.data;
    float *logits = (float *)b->logits.data + b->logits_rows * s->vocab;
    rows_by_group(parts, n);
    for (int64_t i = 0; i < n; i++) {
        const rows_row *r = parts[i].r;
        in[i + 1] = in[i] + parts[i].n;
        memcpy(ids + in[i], (const int32_t *)r->g.history.data + r->read, (size_t)parts[i].n * sizeof *ids);
        slots[i] = r->slot;
        groups[i] = r->g.group;
        tasks[i] = r->task;
        if (!last) { s->whole = r->n + peft__session_taken(s, groups[i]); }
        s->source.ids = r->source;
        s->source.n = r->n_source;
    }
    const peft__pass p = {.ids = ids, .in = in, .slots = slots, .groups = groups, .tasks = tasks, .n_rows = n};
    peft_status st = peft__session_pass(s, &p, logits, last ? 1 : 0);
    s->whole = 0;
    if (st != PEFT_OK) { return st; }
    b->logits_rows += last ? n : 0;
    for (int64_t i = 0; i < n; i++) {
        rows_row *r = parts[i].r;
        r->read += parts[i].n;
        if (!last || r->g.ended) { continue; }
        r->g.logits = logits + i * s->vocab;
        r->from = r->g.emit.sent;
        r->status = peft__generation_take(&r->g);
        r->g.ended = r->g.ended || r->status != PEFT_OK;
        r->got = true;
    }
    return PEFT_OK;
}

static peft_status rows_decode(struct peft__rows *b) {
    rows_part parts[PEFT__SESSION_ROWS];
    int64_t n = 0;
    for (size_t i = 0; i < b->list.len; i++) {
        rows_row *r = rows_at(b, i);
        if (!r->g.ended && !r->got && r->read >= r->n) { parts[n++] = (rows_part){r, 1}; }
    }
    return n > 0 ? rows_pass(b, parts, n, true) : PEFT_OK;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------------ */

static bool rows_unread(const rows_row *r) { return r->read < r->n && !r->got; }

static bool rows_may_share(const struct peft__rows *b) {
    int32_t rope = b->s->model->config.rope_scaling;
    return !b->s->tape.means && !peft__session_has_source(b->s) && rope != PEFT__ROPE_DYNAMIC && rope != PEFT__ROPE_LONGROPE;
}

/* Tokens that both rows begin with, of the held one at most `most`; the last of the other is its own. */
static int64_t rows_common(const rows_row *held, const rows_row *r, int64_t most) {
    const int32_t *x = held->g.history.data, *y = r->g.history.data;
    int64_t n = 0;
    if (!held->hold || held == r || held->g.group != r->g.group || held->task != r->task) { return 0; }
    while (n < most && n < r->n - 1 && x[n] == y[n]) { n++; }
    return n;
}

/* The held row that this one begins like, with most tokens in common. whole: counting tokens that are not read yet. */
static const rows_row *rows_like(const struct peft__rows *b, const rows_row *r, bool whole, int64_t *common) {
    const rows_row *best = NULL;
    *common = ROWS_SHARED - 1;
    for (size_t i = 0; i < b->list.len && rows_may_share(b); i++) {
        const rows_row *held = rows_at(b, i);
        int64_t n = rows_common(held, r, whole ? held->n : held->read);
        if (n <= *common) { continue; }
        best = held;
        *common = n;
    }
    return best;
}

/* A row that has not begun takes over what a held one has read; *waits: that has more to read which is this one's too. */
static peft_status rows_share(struct peft__rows *b, rows_row *r, bool *waits) {
    int64_t common, later;
    *waits = false;
    if (r->read > 0) { return PEFT_OK; }
    const rows_row *held = rows_like(b, r, false, &common);
    *waits = rows_like(b, r, true, &later) != NULL && later > common;
    if (held == NULL || *waits) { return PEFT_OK; }
    peft_status st = peft__session_cache_grow(b->s, r->slot + 1, b->s->cache.capacity);
    if (st != PEFT_OK) { return st; }
    int64_t before = b->s->cache.prefix[held->slot] + b->s->tape.group_tokens[r->g.group];
    peft__session_cache_share(b->s, held->slot, r->slot, before + common);
    r->read = common;
    return PEFT_OK;
}

/* The first row to be read, and others that fit the pass with it as a whole; or a part of a row that fits none. */
static peft_status rows_read(struct peft__rows *b) {
    peft_status st = PEFT_OK;
    rows_part parts[PEFT__SESSION_ROWS];
    int64_t n = 0, tokens = 0, chunk = b->s->chunk;
    for (size_t i = 0; i < b->list.len && tokens < chunk; i++) {
        rows_row *r = rows_at(b, i);
        bool waits = false;
        if (!rows_unread(r)) { continue; }
        TRY(rows_share(b, r, &waits));
        int64_t left = r->n - r->read;
        bool joins = n == 0 || ((r->read > 0) == (parts[0].r->read > 0) && !r->g.source && tokens + left <= chunk);
        if (waits || !joins) { continue; }
        parts[n++] = (rows_part){r, PEFT__MIN(left, chunk)};
        tokens += left;
    }
    if (n == 0) { return PEFT_OK; }
    st = rows_pass(b, parts, n, tokens <= chunk);
out:
    return st;
}

/* ---- a token for each ------------------------------------------------------------------------------------------------------------ */

/* What the row got; it stays if it has more to come, or is to be held. */
static bool rows_hand_out(rows_row *r, peft_row_fn fn, void *user) {
    bool ended = r->g.ended && r->read >= r->n, nothing = !r->got;
    if (nothing && (!ended || r->told)) { return true; }
    peft_row_info info = {.struct_size = sizeof info, .id = nothing || r->status != PEFT_OK ? -1 : r->g.last, .row = r->id,
                          .ended = ended, .status = r->status,
                          .logits = nothing ? NULL : r->g.logits, .n_logits = nothing ? 0 : (size_t)r->g.vocab};
    if (r->g.emit.text != NULL) {
        info.text = peft__str_c(r->g.emit.text) + r->from;
        info.text_len = r->g.emit.sent - r->from;
        r->from = r->g.emit.sent;
    }
    r->got = false;
    r->told = ended;
    if (fn != NULL && fn(user, &info) != 0) { r->g.ended = r->told = true; }
    return !r->told || r->hold;
}

peft_status peft__rows_next(struct peft_session *s, peft_row_fn fn, void *user, size_t *left) {
    peft_status st = PEFT_OK;
    struct peft__rows *b = s->batch;
    *left = 0;
    if (peft__session_cancelled(s)) { FAIL(PEFT_E_CANCELLED, "the session was cancelled"); }
    if (b == NULL || b->list.len == 0) { return PEFT_OK; }
    TRY(rows_record(b));
    for (size_t i = 0; i < b->list.len; i++) {
        const rows_row *r = rows_at(b, i);
        if (r->source != NULL && r->read == 0) { TRY(peft__session_source_need(b->s, r->n_source)); }
    }
    TRY(peft__session_plan(b->s));
    TRY(rows_room(b));
    st = rows_decode(b);
    if (st == PEFT_OK) { st = rows_read(b); }
    for (size_t i = 0; i < b->list.len;) { /* also after an error: what was chosen is not lost */
        rows_row *r = rows_at(b, i);
        if (rows_hand_out(r, fn, user)) {
            *left += !r->told;
            i++;
        } else {
            rows_take_out(b, i);
        }
    }
    rows_rest(b);
out:
    return st;
}
