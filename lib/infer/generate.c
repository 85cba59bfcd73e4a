/* generate.c - from token to token: the prompt in passes of `chunk` tokens with logits for its last one only, then one
 * token at a time through the KV cache; either all of them in one call, or each when the caller asks for it.
 *
 * It ends with an end-of-sequence token (which is among the ids, without text), a stop string, max_new_tokens, or the
 * session's max_length.
 *
 * Left out: several rows at a time (rows.c). */
#include "infer/beam.h"
#include "infer/generation.h"

static const peft__option generate_options[] = {
    {"max_new_tokens", PEFT__OPT_INT, "128", 0, 1 << 30, NULL, "most tokens to add"},
    {"temperature", PEFT__OPT_FLOAT, "0", 0, 100, NULL, "0: always the likeliest token; higher: more varied"},
    {"top_k", PEFT__OPT_INT, "0", 0, 1 << 30, NULL, "choose among the k likeliest tokens; 0: all"},
    {"top_p", PEFT__OPT_FLOAT, "1", 0, 1, NULL,
     "choose among the likeliest tokens that have this probability together"},
    {"min_p", PEFT__OPT_FLOAT, "0", 0, 1, NULL, "leave out tokens below this share of the likeliest one's probability"},
    {"repetition_penalty", PEFT__OPT_FLOAT, "1", 0.01, 100, NULL, "above 1: tokens that occurred become less likely"},
    {"seed", PEFT__OPT_INT, "0", 0, 0x1p53, NULL, "seed of the choice"},
    {"stop", PEFT__OPT_LIST, "", 1, 0, NULL, "end before one of these texts, such as [\"\\n\",\"User:\"]"},
#ifndef PEFT_MINIMAL
    {"num_beams", PEFT__OPT_INT, "1", 1, PEFT__BEAMS, NULL, "beams of a search for the likeliest text; 1: none"},
    {"length_penalty", PEFT__OPT_FLOAT, "1", -100, 100, NULL, "of beams: texts are ranked by score / length ^ this"},
    {"early_stopping", PEFT__OPT_STR, "false", 0, 0, "false|true|never",
     "of beams: end with num_beams finished texts; never: only when no better one can come"},
    {"task_id", PEFT__OPT_INT, "-1", -1, INT32_MAX, NULL, "of a row among others: its task of a multitask_prompt; -1: the session's"},
    {"hold", PEFT__OPT_BOOL, "false", 1, 0, NULL,
     "of a row among others: it stays after its end, for rows that begin with its tokens, until it is removed"},
#endif
    {"ignore_eos", PEFT__OPT_BOOL, "false", 1, 0, NULL, "go on after an end-of-sequence token"},
};
const peft__schema peft__schema_generate = {"generate", generate_options, PEFT__COUNT(generate_options)};

void peft__generation_init(peft__generation *g, struct peft_session *s, const struct peft_tokenizer *t, peft__str *text) {
    memset(g, 0, sizeof *g);
    g->s = s;
    g->t = t;
    g->last = -1;
    g->logits = s->logits;
    g->vocab = s->vocab;
    peft__str_init(&g->own, &s->ctx->mem);
    peft__vec_init(&g->history, &s->ctx->mem, sizeof(int32_t));
    peft__vec_init(&g->found, &s->ctx->mem, sizeof(int32_t));
    peft__arena_init(&g->arena, &s->ctx->mem);
    if (t == NULL) { return; }
    g->emit.text = text != NULL ? text : &g->own;
    g->emit.sent = g->emit.text->len;
    peft__detok_init(&g->emit.detok, t->inner, 0);
    g->emit.detok.started = true; /* the text goes on from a prompt: its first space counts */
}

void peft__generation_free(peft__generation *g) {
    peft__free(&g->s->ctx->mem, g->work, g->work_bytes);
    peft__vec_free(&g->history);
    peft__vec_free(&g->found);
    peft__arena_free(&g->arena);
    peft__str_free(&g->own);
}

#ifndef PEFT_MINIMAL
/* What a search for the likeliest text leaves no room for. */
static peft_status generate_check_beams(const peft__generation *g) {
    if (g->beams == 1) { return PEFT_OK; }
    if (g->sampler.temperature > 0) {
        return peft__fail(PEFT_E_UNSUPPORTED, "num_beams is %lld, and beams are not sampled: leave temperature at 0", (long long)g->beams);
    }
    if (g->emit.stops != NULL) {
        return peft__fail(PEFT_E_UNSUPPORTED, "num_beams is %lld, and beams know no stop strings", (long long)g->beams);
    }
    if (g->beams > g->s->chunk) {
        return peft__fail(PEFT_E_SHAPE, "num_beams is %lld, more than the %lld tokens of the session's chunk", (long long)g->beams,
                          (long long)g->s->chunk);
    }
    return PEFT_OK;
}
#endif

peft_status peft__generation_begin(peft__generation *g, const int32_t *ids, size_t n, const peft__optset *o) {
    peft_status st = PEFT_OK;
    struct peft_session *s = g->s;
    int64_t most = 0;
    TRY(peft__session_limit(s, g->group, &most));
    g->source = s->model->config.task.kind == PEFT__TASK_SEQ2SEQ_LM;
    if (s->model->config.task.kind != PEFT__TASK_CAUSAL_LM && !g->source) {
        FAIL(PEFT_E_UNSUPPORTED, "a %s model for %s has no next token to generate", s->model->model_type,
             peft__task_name(s->model->config.task.kind));
    }
    if (s->branches == 0 && peft__expression_groups(&s->expression) > 1) {
        FAIL(PEFT_E_UNSUPPORTED, "\"%s\" divides rows, and one row is generated: name one branch", s->expression.text);
    }
    if (n == 0) { FAIL(PEFT_E_INVALID, "the prompt has no tokens"); }
    if (g->source) {
        TRY(peft__session_check_source(s, 0, (int64_t)n));
        TRY(peft__session_source_need(s, (int64_t)n));
    } else if ((int64_t)n >= most) {
        FAIL(PEFT_E_SHAPE, "the prompt has %zu tokens, which leaves nothing of the session's max_length of %lld", n, (long long)most);
    }
    TRY(peft__session_check_ids(ids, n, g->vocab));
    g->start = s->model->config.decoder_start_id;
    if (g->source) { /* from here on the text is the decoder's */
        ids = &g->start;
        n = 1;
        g->emit.detok.started = false;
    }
    TRY(peft__session_check_whole(s, (int64_t)n));
    g->left = PEFT__MIN(peft__opt_int(o, "max_new_tokens"), most - (int64_t)n);
    g->ignore_eos = peft__opt_bool(o, "ignore_eos");
    g->sampler.temperature = peft__opt_float(o, "temperature");
    g->sampler.top_k = peft__opt_int(o, "top_k");
    g->sampler.top_p = peft__opt_float(o, "top_p");
    g->sampler.min_p = peft__opt_float(o, "min_p");
    g->sampler.repetition_penalty = peft__opt_float(o, "repetition_penalty");
    g->sampler.rng.key = peft__mix64((uint64_t)peft__opt_int(o, "seed"));
    if (g->t != NULL) { TRY(peft__emit_stops(&g->arena, o, &g->emit.stops)); }
    g->beams = 1;
#ifndef PEFT_MINIMAL
    g->beams = peft__opt_int(o, "num_beams");
    TRY(generate_check_beams(g));
#endif
    TRY(peft__vec_reserve(&g->history, n + (size_t)PEFT__MIN(g->left, 1024)));
    memcpy(g->history.data, ids, n * sizeof *ids);
    g->history.len = n;
    g->ended = g->left == 0;
    if (g->sampler.temperature <= 0 && peft__opt_float(o, "repetition_penalty") == 1) { return PEFT_OK; }
    g->work_bytes = peft__sample_work(g->vocab);
    g->work = peft__alloc(&s->ctx->mem, g->work_bytes);
    if (g->work == NULL) { st = PEFT_E_NOMEM; }
out:
    return st;
}

static peft_status generate_cancelled(struct peft_session *s) {
    return peft__session_cancelled(s) ? peft__fail(PEFT_E_CANCELLED, "the session was cancelled") : PEFT_OK;
}

static bool generate_ends(const peft__generation *g, int32_t id) {
    if (g->ignore_eos) { return false; }
    if (g->t != NULL && peft__tokenizer_is_eog(g->t->inner, id)) { return true; }
    return g->t == NULL && id == g->s->model->config.eos_id;
}

#ifndef PEFT_MINIMAL
static bool generate_beam_ends(void *user, int32_t id) { return generate_ends(user, id); }

/* The whole search, after the prompt was read. */
static peft_status generate_beams(peft__generation *g, const int32_t *ids, int64_t n, const peft__optset *o) {
    const char *early = peft__opt_str(o, "early_stopping");
    int64_t ends = 0;
    for (int64_t i = 0; i < g->s->vocab; i++) { ends += generate_ends(g, (int32_t)i); }
    peft__beam_spec spec = {.beams = g->beams, .keep = PEFT__MAX(2, 1 + ends) * g->beams, .most = g->left};
    spec.length_penalty = peft__opt_float(o, "length_penalty");
    spec.repetition_penalty = g->sampler.repetition_penalty;
    spec.early = strcmp(early, "true") == 0 ? PEFT__BEAM_EARLY : strcmp(early, "never") == 0 ? PEFT__BEAM_NEVER : PEFT__BEAM_BY_LENGTH;
    spec.prompt = ids;
    spec.n = n;
    spec.first = g->source ? g->s->model->config.forced_bos_id : -1;
    spec.last = g->source && !g->ignore_eos ? g->s->model->config.forced_eos_id : -1;
    spec.ends = generate_beam_ends;
    spec.user = g;
    peft_status st = peft__beam_search(g->s, &spec, &g->found);
    g->ended = g->ended || g->found.len == 0;
    return st;
}
#endif

static peft_status generate_prefill(peft__generation *g, const int32_t *ids, int64_t n, const peft__optset *o) {
    peft_status st = PEFT_OK;
    struct peft_session *s = g->s;
    s->source.ids = ids;
    s->source.n = n;
    TRY(peft__session_plan(s));
    if (g->source) {
        ids = &g->start;
        n = 1;
    }
    peft__session_row_begins(s, n);
    for (int64_t at = 0; at < n; at += s->chunk) {
        int64_t part = PEFT__MIN(s->chunk, n - at);
        TRY(generate_cancelled(s));
        TRY(peft__session_advance(s, ids + at, part, s->logits, at + part == n));
    }
    s->whole = 0;
#ifdef PEFT_MINIMAL
    (void)o;
#else
    if (g->beams > 1) { TRY(generate_beams(g, ids, n, o)); }
#endif
out:
    s->whole = 0;
    return st;
}

static peft_status generate_choose(peft__generation *g, int32_t *id) {
    peft_status st = PEFT_OK;
    for (int64_t i = 0; i < g->vocab; i++) {
        float v = g->logits[i];
        if (!(v - v == 0)) { /* a NaN or an infinity is no 0 away from itself */
            FAIL(PEFT_E_NUMERIC, "the logits after token %zu have a NaN or an infinity", g->history.len - 1);
        }
    }
    const peft__config *c = &g->s->model->config;
    int32_t forced = !g->source ? -1 : g->history.len == 1 ? c->forced_bos_id : -1;
    if (g->source && g->left == 1 && c->forced_eos_id >= 0 && !g->ignore_eos) { forced = c->forced_eos_id; }
    *id = peft__sample(&g->sampler, g->logits, g->vocab, g->history.data, g->history.len, g->work);
    if (forced >= 0) { *id = forced; }
    TRY(peft__vec_push(&g->history, id));
out:
    return st;
}

peft_status peft__generation_take(peft__generation *g) {
    peft_status st = PEFT_OK;
    int32_t id = 0;
    bool found = !PEFT__MINIMAL && g->beams > 1;
    if (found) {
        id = PEFT__VEC_AT(&g->found, int32_t, g->taken++);
    } else {
        TRY(generate_choose(g, &id));
    }
    bool ends = generate_ends(g, id), last = ends || g->left == 1 || (found && g->taken == g->found.len);
    g->last = id;
    g->left--;
    g->ended = last;
    TRY(peft__emit_token(&g->emit, id, ends, last));
    g->ended = last || g->emit.stopped;
out:
    return st;
}

/* The next token; the one before goes through the model first. */
static peft_status generate_next(peft__generation *g) {
    peft_status st = PEFT_OK;
    if (g->last >= 0 && g->beams == 1) { TRY(peft__session_advance(g->s, &g->last, 1, g->logits, 1)); }
    st = peft__generation_take(g);
out:
    return st;
}

peft_status peft__session_generate(struct peft_session *s, const struct peft_tokenizer *t, const int32_t *ids, size_t n,
                                   const peft__optset *opts, peft_token_fn fn, void *user, peft__vec *out,
                                   peft__str *text) {
    peft_status st = PEFT_OK;
    peft__generation g;
    peft__session_stop(s);
    peft__generation_init(&g, s, t, text);
    g.emit.fn = fn;
    g.emit.user = user;
    g.emit.ids = out;
    TRY(peft__generation_begin(&g, ids, n, opts));
    if (!g.ended) { TRY(generate_prefill(&g, ids, (int64_t)n, opts)); }
    while (!g.ended) {
        TRY(generate_next(&g));
        TRY(generate_cancelled(s)); /* also by the callback, at the last token too */
    }
out:
    peft__generation_free(&g);
    return st;
}

/* ---- a token at a time ----------------------------------------------------------------------------------------------- */

void peft__session_stop(struct peft_session *s) {
    peft__generation *g = s->generation;
    if (g == NULL) { return; }
    s->generation = NULL;
    peft__tokenizer_release(g->kept);
    peft__generation_free(g);
    peft__free(&s->ctx->mem, g, sizeof *g);
}

peft_status peft__session_start(struct peft_session *s, struct peft_tokenizer *t, const int32_t *ids, size_t n,
                                const peft__optset *opts) {
    peft_status st = PEFT_OK;
    peft__session_stop(s);
    peft__generation *g = peft__alloc(&s->ctx->mem, sizeof *g);
    if (g == NULL) { return PEFT_E_NOMEM; }
    peft__generation_init(g, s, t, NULL);
    g->kept = t;
    if (t != NULL) { peft__tokenizer_retain(t); }
    s->generation = g;
    TRY(peft__generation_begin(g, ids, n, opts));
    if (!g->ended) { TRY(generate_prefill(g, ids, (int64_t)n, opts)); }
out:
    if (st != PEFT_OK) { peft__session_stop(s); }
    return st;
}

peft_status peft__session_next(struct peft_session *s, int32_t *id, char *buf, size_t cap, size_t *needed) {
    peft_status st = PEFT_OK;
    peft__generation *g = s->generation;
    if (g == NULL) {
        FAIL(PEFT_E_INVALID, "no generation is under way: start one, and make no other use of the session until its end");
    }
    if (!g->held && !g->ended) {
        TRY(generate_cancelled(s));
        g->from = g->emit.sent;
        st = generate_next(g);
        if (st != PEFT_OK) { /* the model has seen half of a token */
            peft__session_stop(s);
            goto out;
        }
        g->held = true;
    }
    size_t len = g->held ? g->emit.sent - g->from : 0;
    const char *text = g->emit.text != NULL ? peft__str_c(g->emit.text) + g->from : "";
    TRY(peft__copy_out(text, len, buf, cap, needed));
    *id = g->held ? g->last : -1;
    g->held = false;
out:
    return st;
}
