/* pass.c - one run of a session's tape: rows that are whole, or that go on from what the cache has of them.
 *
 * All rows of a pass begin, or all go on. A row that begins has its adapters' virtual tokens before its first token and their
 * prefix before these, as the beginning of its cache; where it goes on, its tokens' positions count on from the cache's length.
 *
 * Left out: rows that begin and rows that go on in one pass. */
#include "infer/parts.h"

peft_status peft__session_check_ids(const int32_t *ids, size_t n, int64_t vocab) {
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= vocab) {
            return peft__fail(PEFT_E_INVALID, "token %zu has id %d, expected 0 to %lld", i, (int)ids[i], (long long)vocab - 1);
        }
    }
    return PEFT_OK;
}

bool peft__session_cancelled(struct peft_session *s) {
    return atomic_exchange(&s->cancel, false) != 0;
}

/* Token types of the pass, virtual tokens having 0; NULL: all have. */
static const int32_t *pass_types(struct peft_session *s, const int32_t *ids, const int64_t *in, const int64_t *out, int64_t n_rows) {
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
 * virtual tokens before each, unless they go on (`begun`); a row's first token (virtual or not) has position behind[r], NULL: 0.
 * Wanted are the logits of each row's last tokens, at most `n_logits` a row. */
static peft__frame pass_frame(struct peft_session *s, const int32_t *ids, const int64_t *in, int64_t *out, const int32_t *groups,
                              int64_t n_rows, bool begun, const int64_t *behind, int64_t n_logits) {
    static const uint64_t keys[PEFT__SESSION_ROWS]; /* of dropout, which is training's */
    peft__frame f;
    memset(&f, 0, sizeof f);
    out[0] = 0;
    for (int64_t r = 0; r < n_rows; r++) {
        int64_t n = in[r + 1] - in[r], skipped = n - PEFT__MIN(n, n_logits);
        int64_t virtual_tokens = begun ? 0 : s->tape.group_tokens[groups[r]];
        out[r + 1] = out[r] + virtual_tokens + n;
        int64_t at = (behind != NULL ? behind[r] : 0) + s->tape.group_shift[groups[r]];
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
    f.types = pass_types(s, ids, in, out, n_rows);
    f.row_keys = keys;
    f.row_groups = groups;
    f.logit_tokens = s->wanted;
    f.lengths = s->whole > 0 ? &s->whole : NULL;
    return f;
}

/* Room in the cache for what the pass adds to its rows; the positions of their tokens before it. */
static peft_status pass_room(struct peft_session *s, const peft__pass *p, bool begun, int64_t *behind) {
    int64_t rows = 0, need = 0;
    for (int64_t r = 0; r < p->n_rows; r++) {
        int32_t slot = p->slots[r], group = p->groups[r];
        int64_t prefix = begun ? s->cache.prefix[slot] : s->tape.group_prefix[group];
        behind[r] = begun ? s->cache.length[slot] - prefix : 0;
        need = PEFT__MAX(need, prefix + behind[r] + (begun ? 0 : s->tape.group_tokens[group]) + p->in[r + 1] - p->in[r]);
        rows = PEFT__MAX(rows, slot + 1);
    }
    peft_status st = peft__session_cache_grow(s, rows, need);
    for (int64_t r = 0; st == PEFT_OK && !begun && r < p->n_rows; r++) {
        s->cache.prefix[p->slots[r]] = s->tape.group_prefix[p->groups[r]];
    }
    return st;
}

peft_status peft__session_pass(struct peft_session *s, const peft__pass *p, float *logits, int64_t n_logits) {
    peft_status st = PEFT_OK;
    int64_t out[PEFT__SESSION_ROWS + 1], behind[PEFT__SESSION_ROWS];
    bool begun = s->cache.length != NULL && p->slots[0] < s->cache.rows && s->cache.length[p->slots[0]] > 0;
    TRY(pass_room(s, p, begun, behind));
    peft__frame f = pass_frame(s, p->ids, p->in, out, p->groups, p->n_rows, begun, behind, n_logits);
    f.row_tasks = p->tasks;
    if (!begun) { TRY(peft__session_source_begins(s, &f, p->slots[0])); }
    f.cache = &s->cache;
    f.cache_rows = p->slots;
    f.logits = logits;
    TRY(peft__exec_run(&s->exec, &f, false));
    for (int64_t r = 0; r < p->n_rows; r++) {
        s->cache.length[p->slots[r]] = s->cache.prefix[p->slots[r]] + behind[r] + out[r + 1] - out[r];
    }
out:
    return st;
}

peft_status peft__session_advance(struct peft_session *s, const int32_t *ids, int64_t n, float *logits,
                                  int64_t n_logits) {
    const int64_t in[2] = {0, n};
    const int32_t slot = 0;
    const peft__pass p = {.ids = ids, .in = in, .slots = &slot, .groups = &s->group, .tasks = &s->task, .n_rows = 1};
    return peft__session_pass(s, &p, logits, n_logits);
}

peft_status peft__session_advance_rows(struct peft_session *s, const int32_t *ids, const int32_t *slots, int64_t n, float *logits) {
    int64_t in[PEFT__SESSION_ROWS + 1];
    int32_t groups[PEFT__SESSION_ROWS], tasks[PEFT__SESSION_ROWS];
    for (int64_t r = 0; r < n; r++) {
        in[r] = r;
        groups[r] = s->group;
        tasks[r] = s->task;
    }
    in[n] = n;
    const peft__pass p = {.ids = ids, .in = in, .slots = slots, .groups = groups, .tasks = tasks, .n_rows = n};
    return peft__session_pass(s, &p, logits, 1);
}

void peft__session_row_begins(struct peft_session *s, int64_t n) {
    peft__session_rewind(s);
    s->whole = n > 0 ? n + peft__session_taken(s, s->group) : 0;
}

peft_status peft__session_check_whole(const struct peft_session *s, int64_t n) {
    if (!s->tape.means || n <= s->chunk) { return PEFT_OK; }
    return peft__fail(PEFT_E_SHAPE, "a row of %lld tokens takes several passes of %lld, and the adapters have gates, which are means over "
                      "a whole row: set the session's chunk to %lld or more", (long long)n, (long long)s->chunk, (long long)n);
}

/* A row that is longer than a pass. Of outputs of the row the last pass has the right ones. */
static peft_status pass_logits_long(struct peft_session *s, const int32_t *ids, int64_t n, float *out) {
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
static peft_status pass_logits_short(struct peft_session *s, int64_t first, int64_t n_rows, int64_t copy, float *out) {
    const int64_t *offsets = s->rows->offsets + first;
    int64_t in[PEFT__SESSION_ROWS + 1], stream[PEFT__SESSION_ROWS + 1];
    int32_t groups[PEFT__SESSION_ROWS], tasks[PEFT__SESSION_ROWS];
    for (int64_t r = 0; r < n_rows; r++) { groups[r] = peft__expression_group(&s->expression, first + r, copy); }
    for (int64_t r = 0; r < n_rows; r++) { tasks[r] = peft__session_task(s, first + r); }
    for (int64_t r = 0; r <= n_rows; r++) { in[r] = offsets[r] - offsets[0]; }
    peft__frame f = pass_frame(s, s->rows->ids + offsets[0], in, stream, groups, n_rows, false, NULL, s->chunk);
    f.row_tasks = tasks;
    f.logits = out;
    if (s->rows->source_ids != NULL) {
        const int64_t *source = s->rows->source_offsets + first;
        peft__session_source_rows(s, &f, s->rows->source_ids + source[0], source, groups);
    }
    return peft__exec_run(&s->exec, &f, false);
}

static peft_status pass_check_rows(const struct peft_session *s, const peft__session_rows *rows) {
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
    return peft__session_check_ids(rows->ids, (size_t)tokens, s->vocab);
}

/* All rows, in their branch `copy` where the expression has a parallel block. */
static peft_status pass_logits_copy(struct peft_session *s, int64_t copy, float *out) {
    peft_status st = PEFT_OK;
    const int64_t *offsets = s->rows->offsets;
    for (size_t r = 0; r < s->rows->n;) {
        size_t end = r;
        int64_t first = offsets[r];
        float *to = out + (s->by_rows ? (int64_t)r : first) * s->columns;
        while (end < s->rows->n && end - r < (size_t)peft__session_max_rows(s) && offsets[end + 1] - first <= s->chunk &&
               peft__session_source_fits(s, r, end + 1)) {
            end++;
        }
        if (peft__session_cancelled(s)) { FAIL(PEFT_E_CANCELLED, "the session was cancelled"); }
        if (end == r) {
            s->group = peft__expression_group(&s->expression, (int64_t)r, copy);
            s->task = peft__session_task(s, (int64_t)r);
            peft__session_source_is(s, r);
            TRY(pass_logits_long(s, s->rows->ids + first, offsets[r + 1] - first, to));
            end = r + 1;
        } else {
            TRY(pass_logits_short(s, (int64_t)r, (int64_t)(end - r), copy, to));
        }
        r = end;
    }
out:
    s->group = 0;
    s->task = peft__session_task(s, -1);
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
    TRY(pass_check_rows(s, rows));
    if (wanted > 0 && (size_t)wanted != rows->n) {
        FAIL(PEFT_E_SHAPE, "the batch has %zu rows, and batch_split divides %lld", rows->n, (long long)wanted);
    }
    peft__session_stop(s);
    TRY(peft__session_source_prepare(s, rows));
    TRY(peft__session_plan(s));
    (void)peft__session_output_size(s, rows->n > 0 ? (size_t)rows->offsets[rows->n] : 0, rows->n, &size);
    for (int64_t c = 0; c < copies; c++) { TRY(pass_logits_copy(s, c, out + (size_t)c * (size / (size_t)copies))); }
out:
    s->rows = NULL;
    return st;
}
