/* beam.c - beam search for one prompt, as transformers' generate does it (its utils.py, _beam_search):
 *
 *   score of a continuation   sum over its tokens of log softmax(logits), repeated tokens penalised
 *   each step                 of all continuations of all beams by a token the best 2 B (more where several tokens end a text); of
 *                             these the best B that do not end go on, and those among the first B that end are finished
 *   finished                  are kept by score / length ^ length_penalty, at most B
 *   the search ends           when no running beam could still beat the worst of B finished ones (early_stopping: as soon as there
 *                             are B), or at the greatest length, where all end
 *
 * Each beam has a row of the KV cache. A beam that goes on stays in its parent's row; only where a parent has several children
 * is the row copied.
 *
 * Left out: sampling of beams, groups of beams, stop strings. */
#include <math.h>

#include "infer/beam.h"

static const double beam_never = -1e9; /* score of what may not be chosen */

typedef struct beam_pick { /* a continuation */
    double score;
    int32_t parent, id;
    bool ends;
} beam_pick;

typedef struct beam_done { /* a finished text */
    double score;
    bool full;
    int64_t n;
} beam_done;

typedef struct beam_search {
    struct peft_session *s;
    const peft__beam_spec *spec;
    int64_t running, keep, vocab, made; /* running beams, picks of this step, tokens so far */
    float *logits;                    /* [running, vocab] */
    double *scores;                   /* [beams] */
    int32_t *slots, *last;            /* [beams]: row of the cache, token that the model has not seen */
    int32_t *ids, *next_ids;          /* [beams, most]: running texts */
    int32_t *done_ids;                /* [beams, most]: finished texts, best first */
    beam_done *done;                  /* [beams] */
    beam_pick *picks;                 /* [keep], best first */
    int32_t forced;                   /* the token that all of this step's continuations are by; -1: any */
    bool hope;                        /* a running beam may still beat a finished one */
} beam_search;

/* ---- scores ---------------------------------------------------------------------------------------------------------- */

/* Log-probabilities in place of logits; NaN and infinities are refused. */
static peft_status beam_log_softmax(float *x, int64_t n) {
    double top = -HUGE_VAL, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!(x[i] - x[i] == 0)) { return peft__fail(PEFT_E_NUMERIC, "the logits have a NaN or an infinity"); }
        top = fmax(top, (double)x[i]);
    }
    for (int64_t i = 0; i < n; i++) { sum += exp((double)x[i] - top); }
    double shift = top + log(sum);
    for (int64_t i = 0; i < n; i++) { x[i] = (float)((double)x[i] - shift); }
    return PEFT_OK;
}

static void beam_penalise(float *x, const int32_t *ids, int64_t n, double by, uint8_t *seen) {
    for (int64_t i = 0; i < n; i++) {
        if (seen[ids[i]]) { continue; }
        seen[ids[i]] = 1;
        double v = (double)x[ids[i]];
        x[ids[i]] = (float)(v < 0 ? v * by : v / by);
    }
}

static peft_status beam_score(beam_search *b) {
    peft_status st = PEFT_OK;
    peft__mem *mem = &b->s->ctx->mem;
    double by = b->spec->repetition_penalty;
    bool penalised = by < 1 || by > 1;
    uint8_t *seen = penalised ? peft__alloc(mem, (size_t)b->vocab) : NULL;
    if (penalised && seen == NULL) { return PEFT_E_NOMEM; }
    for (int64_t r = 0; r < b->running; r++) {
        float *x = b->logits + r * b->vocab;
        TRY(beam_log_softmax(x, b->vocab));
        if (!penalised) { continue; }
        memset(seen, 0, (size_t)b->vocab);
        beam_penalise(x, b->spec->prompt, b->spec->n, by, seen);
        beam_penalise(x, b->ids + r * b->spec->most, b->made, by, seen);
    }
out:
    peft__free(mem, seen, (size_t)b->vocab);
    return st;
}

/* ---- choice ------------------------------------------------------------------------------------------------------------ */

/* The best `keep` continuations, in falling order; of equals the first. */
static void beam_pick_best(beam_search *b) {
    int64_t n = 0;
    for (int64_t r = 0; r < b->running; r++) {
        int64_t from = b->forced >= 0 ? b->forced : 0, to = b->forced >= 0 ? from + 1 : b->vocab;
        for (int64_t t = from; t < to; t++) {
            double score = b->forced >= 0 ? b->scores[r] : (double)((float)b->scores[r] + b->logits[r * b->vocab + t]);
            if (n == b->keep && !(score > b->picks[n - 1].score)) { continue; }
            int64_t at = n < b->keep ? n++ : n - 1;
            for (; at > 0 && b->picks[at - 1].score < score; at--) { b->picks[at] = b->picks[at - 1]; }
            b->picks[at] = (beam_pick){score, (int32_t)r, (int32_t)t, false};
        }
    }
    b->keep = n; /* a vocabulary may be smaller */
    for (int64_t i = 0; i < n; i++) {
        b->picks[i].ends = b->made + 1 >= b->spec->most || b->spec->ends(b->spec->user, b->picks[i].id);
    }
}

static double beam_by_length(const beam_search *b, double score, int64_t length) {
    return score / pow((double)length, b->spec->length_penalty);
}

static bool beam_all_full(const beam_search *b) {
    bool full = true;
    for (int64_t i = 0; i < b->spec->beams; i++) { full = full && b->done[i].full; }
    return full;
}

/* Puts a text of parent's tokens and id among the best finished ones. */
static void beam_finish(beam_search *b, double score, const int32_t *ids, int64_t n, int32_t id) {
    int64_t most = b->spec->most, at = b->spec->beams - 1;
    if (!(score > b->done[at].score)) { return; }
    for (; at > 0 && b->done[at - 1].score < score; at--) {
        b->done[at] = b->done[at - 1];
        memcpy(b->done_ids + at * most, b->done_ids + (at - 1) * most, (size_t)b->done[at].n * sizeof *ids);
    }
    b->done[at] = (beam_done){score, true, n + 1};
    memcpy(b->done_ids + at * most, ids, (size_t)n * sizeof *ids);
    b->done_ids[at * most + n] = id;
}

static void beam_finish_all(beam_search *b) {
    bool closed = b->spec->early == PEFT__BEAM_EARLY && beam_all_full(b);
    int64_t first = PEFT__MIN(b->spec->beams, b->keep);
    for (int64_t i = 0; i < first && !closed && b->hope; i++) {
        const beam_pick *p = &b->picks[i];
        if (!p->ends) { continue; }
        beam_finish(b, beam_by_length(b, p->score, b->made + 1), b->ids + p->parent * b->spec->most, b->made, p->id);
    }
}

/* The beams that go on: their texts, scores and rows of the cache. */
static int64_t beam_go_on(beam_search *b) {
    int64_t n = 0, most = b->spec->most;
    int32_t slots[PEFT__BEAMS];
    bool taken[PEFT__BEAMS] = {false}, used[PEFT__BEAMS] = {false};
    int32_t parents[PEFT__BEAMS];
    for (int64_t i = 0; i < b->keep && n < b->spec->beams; i++) {
        const beam_pick *p = &b->picks[i];
        if (p->ends) { continue; }
        memcpy(b->next_ids + n * most, b->ids + p->parent * most, (size_t)b->made * sizeof *b->ids);
        b->next_ids[n * most + b->made] = p->id;
        b->scores[n] = p->score;
        b->last[n] = p->id;
        parents[n] = p->parent;
        slots[n] = taken[p->parent] ? -1 : b->slots[p->parent]; /* the first child stays */
        taken[p->parent] = true;
        if (slots[n] >= 0) { used[slots[n]] = true; }
        n++;
    }
    for (int64_t i = 0, row = 0; i < n; i++) {
        if (slots[i] >= 0) { continue; }
        while (used[row]) { row++; }
        used[row] = true;
        slots[i] = (int32_t)row;
        peft__session_cache_copy(b->s, b->slots[parents[i]], slots[i]);
    }
    memcpy(b->slots, slots, (size_t)n * sizeof *slots);
    int32_t *swap = b->ids;
    b->ids = b->next_ids;
    b->next_ids = swap;
    return n;
}

/* Could the best running beam still get above the worst finished one? */
static bool beam_hopes(const beam_search *b) {
    int64_t length = b->spec->early == PEFT__BEAM_NEVER && b->spec->length_penalty > 0 ? b->spec->most : b->made;
    return !beam_all_full(b) || beam_by_length(b, b->scores[0], length) > b->done[b->spec->beams - 1].score;
}

/* ---- the search -------------------------------------------------------------------------------------------------------- */

static peft_status beam_loop(beam_search *b) {
    peft_status st = PEFT_OK;
    for (;;) {
        TRY(peft__session_cancelled(b->s) ? peft__fail(PEFT_E_CANCELLED, "the session was cancelled") : PEFT_OK);
        TRY(beam_score(b));
        b->forced = b->made == 0 ? b->spec->first : -1;
        if (b->made + 1 >= b->spec->most && b->spec->last >= 0) { b->forced = b->spec->last; }
        b->keep = b->spec->keep;
        beam_pick_best(b);
        beam_finish_all(b);
        int64_t n = beam_go_on(b);
        b->made++;
        b->hope = b->hope && n > 0 && beam_hopes(b);
        if (!b->hope || b->made >= b->spec->most || (b->spec->early == PEFT__BEAM_EARLY && beam_all_full(b))) { break; }
        b->running = n;
        TRY(peft__session_advance_rows(b->s, b->last, b->slots, n, b->logits));
    }
out:
    return st;
}

static size_t beam_bytes(const beam_search *b, const peft__beam_spec *spec) {
    size_t beams = (size_t)spec->beams, most = (size_t)spec->most;
    return beams * (size_t)b->vocab * sizeof(float) + beams * (sizeof(double) + sizeof(beam_done) + 2 * sizeof(int32_t)) +
           3 * beams * most * sizeof(int32_t) + (size_t)spec->keep * sizeof(beam_pick) + 9 * 64;
}

static void *beam_take(uint8_t **at, size_t bytes) {
    void *p = *at;
    *at += (bytes + 63) / 64 * 64;
    return p;
}

static void beam_place(beam_search *b, uint8_t *at) {
    size_t beams = (size_t)b->spec->beams, texts = beams * (size_t)b->spec->most * sizeof(int32_t);
    b->picks = beam_take(&at, (size_t)b->spec->keep * sizeof *b->picks);
    b->scores = beam_take(&at, beams * sizeof *b->scores);
    b->done = beam_take(&at, beams * sizeof *b->done);
    b->logits = beam_take(&at, beams * (size_t)b->vocab * sizeof *b->logits);
    b->slots = beam_take(&at, beams * sizeof *b->slots);
    b->last = beam_take(&at, beams * sizeof *b->last);
    b->ids = beam_take(&at, texts);
    b->next_ids = beam_take(&at, texts);
    b->done_ids = beam_take(&at, texts);
}

peft_status peft__beam_search(struct peft_session *s, const peft__beam_spec *spec, peft__vec *out) {
    peft_status st = PEFT_OK;
    beam_search b;
    memset(&b, 0, sizeof b);
    b.s = s;
    b.spec = spec;
    b.vocab = s->vocab;
    b.hope = true;
    size_t bytes = beam_bytes(&b, spec);
    uint8_t *block = peft__alloc(&s->ctx->mem, bytes);
    if (block == NULL) { return PEFT_E_NOMEM; }
    beam_place(&b, block);
    for (int64_t i = 0; i < spec->beams; i++) { b.done[i] = (beam_done){beam_never, false, 0}; }
    memcpy(b.logits, s->logits, (size_t)b.vocab * sizeof *b.logits);
    b.scores[0] = 0;
    b.slots[0] = 0;
    b.running = 1; /* all begin with the prompt */
    TRY(peft__session_cache_rows(s, spec->beams));
    TRY(beam_loop(&b));
    for (int64_t i = 0; i < b.done[0].n; i++) { TRY(peft__vec_push(out, &b.done_ids[i])); }
out:
    peft__free(&s->ctx->mem, block, bytes);
    return st;
}
