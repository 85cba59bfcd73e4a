/* generate.c - the loop over tokens: the prompt in passes of `chunk` tokens with logits for its last one only, then one
 * token at a time through the KV cache.
 *
 * It ends with an end-of-sequence token (which is among the ids, without text), a stop string, max_new_tokens, or the
 * session's max_length.
 *
 * Left out: several rows at a time, beams. */
#include "infer/emit.h"
#include "infer/parts.h"

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
    {"ignore_eos", PEFT__OPT_BOOL, "false", 1, 0, NULL, "go on after an end-of-sequence token"},
};
const peft__schema peft__schema_generate = {"generate", generate_options, PEFT__COUNT(generate_options)};

typedef struct generate_run {
    struct peft_session *s;
    const struct peft_tokenizer *t; /* NULL: none */
    peft__emit emit;
    peft__sampler sampler;
    peft__vec history; /* int32_t: prompt and new ids, for the penalty */
    peft__arena arena; /* owns the stop strings */
    void *work;        /* owned: the sampler's */
    int64_t left;      /* tokens that may still be added */
    bool ignore_eos;
} generate_run;

static peft_status generate_begin(generate_run *g, const int32_t *ids, size_t n, const peft__optset *o) {
    peft_status st = PEFT_OK;
    struct peft_session *s = g->s;
    if (n == 0) { FAIL(PEFT_E_INVALID, "the prompt has no tokens"); }
    if ((int64_t)n >= s->max_length) {
        FAIL(PEFT_E_SHAPE, "the prompt has %zu tokens, which leaves nothing of the session's max_length of %lld", n,
             (long long)s->max_length);
    }
    TRY(peft__session_check_ids(s, ids, n));
    TRY(peft__session_check_whole(s, (int64_t)n));
    g->left = PEFT__MIN(peft__opt_int(o, "max_new_tokens"), s->max_length - (int64_t)n);
    g->ignore_eos = peft__opt_bool(o, "ignore_eos");
    g->sampler.temperature = peft__opt_float(o, "temperature");
    g->sampler.top_k = peft__opt_int(o, "top_k");
    g->sampler.top_p = peft__opt_float(o, "top_p");
    g->sampler.min_p = peft__opt_float(o, "min_p");
    g->sampler.repetition_penalty = peft__opt_float(o, "repetition_penalty");
    g->sampler.rng.key = peft__mix64((uint64_t)peft__opt_int(o, "seed"));
    if (g->t != NULL) { TRY(peft__emit_stops(&g->arena, o, &g->emit.stops)); }
    TRY(peft__session_plan(s));
    TRY(peft__vec_reserve(&g->history, n + (size_t)PEFT__MIN(g->left, 1024)));
    memcpy(g->history.data, ids, n * sizeof *ids);
    g->history.len = n;
    g->work = peft__alloc(&s->ctx->mem, peft__sample_work(s->vocab));
    if (g->work == NULL) { st = PEFT_E_NOMEM; }
out:
    return st;
}

static peft_status generate_cancelled(struct peft_session *s) {
    return peft__session_cancelled(s) ? peft__fail(PEFT_E_CANCELLED, "the session was cancelled") : PEFT_OK;
}

static peft_status generate_prefill(generate_run *g, const int32_t *ids, int64_t n) {
    peft_status st = PEFT_OK;
    struct peft_session *s = g->s;
    peft__session_rewind(s);
    for (int64_t at = 0; at < n; at += s->chunk) {
        int64_t part = PEFT__MIN(s->chunk, n - at);
        TRY(generate_cancelled(s));
        TRY(peft__session_advance(s, ids + at, part, s->logits, at + part == n));
    }
out:
    return st;
}

static bool generate_ends(const generate_run *g, int32_t id) {
    if (g->ignore_eos) { return false; }
    if (g->t != NULL && peft__tokenizer_is_eog(g->t->inner, id)) { return true; }
    return g->t == NULL && id == g->s->model->config.eos_id;
}

static peft_status generate_choose(generate_run *g, int32_t *id) {
    peft_status st = PEFT_OK;
    int64_t vocab = g->s->vocab;
    for (int64_t i = 0; i < vocab; i++) {
        float v = g->s->logits[i];
        if (!(v - v == 0)) { /* a NaN or an infinity is no 0 away from itself */
            FAIL(PEFT_E_NUMERIC, "the logits after token %zu have a NaN or an infinity", g->history.len - 1);
        }
    }
    *id = peft__sample(&g->sampler, g->s->logits, vocab, g->history.data, g->history.len, g->work);
    TRY(peft__vec_push(&g->history, id));
out:
    return st;
}

static peft_status generate_loop(generate_run *g) {
    peft_status st = PEFT_OK;
    int32_t id = 0;
    for (; g->left > 0; g->left--) {
        TRY(generate_choose(g, &id));
        bool ends = generate_ends(g, id);
        TRY(peft__emit_token(&g->emit, id, ends, ends || g->left == 1));
        TRY(generate_cancelled(g->s)); /* also by the callback, at the last token too */
        if (ends || g->emit.stopped || g->left == 1) { break; }
        TRY(peft__session_advance(g->s, &id, 1, g->s->logits, 1));
    }
out:
    return st;
}

peft_status peft__session_generate(struct peft_session *s, const struct peft_tokenizer *t, const int32_t *ids, size_t n,
                                   const peft__optset *opts, peft_token_fn fn, void *user, peft__vec *out,
                                   peft__str *text) {
    peft_status st = PEFT_OK;
    generate_run g;
    peft__str own; /* text for stop strings and the callback when the caller wants none */
    memset(&g, 0, sizeof g);
    peft__str_init(&own, &s->ctx->mem);
    g.s = s;
    g.t = t;
    g.emit.fn = fn;
    g.emit.user = user;
    g.emit.ids = out;
    if (t != NULL) {
        g.emit.text = text != NULL ? text : &own;
        g.emit.sent = g.emit.text->len;
        peft__detok_init(&g.emit.detok, t->inner, 0);
        g.emit.detok.started = true; /* the text goes on from a prompt: its first space counts */
    }
    peft__vec_init(&g.history, &s->ctx->mem, sizeof(int32_t));
    peft__arena_init(&g.arena, &s->ctx->mem);
    if (peft__expression_groups(&s->expression) > 1) {
        FAIL(PEFT_E_UNSUPPORTED, "\"%s\" divides rows, and one row is generated: name one branch", s->expression.text);
    }
    TRY(generate_begin(&g, ids, n, opts));
    if (g.left == 0) { goto out; }
    TRY(generate_prefill(&g, ids, (int64_t)n));
    TRY(generate_loop(&g));
out:
    peft__free(&s->ctx->mem, g.work, peft__sample_work(s->vocab));
    peft__vec_free(&g.history);
    peft__arena_free(&g.arena);
    peft__str_free(&own);
    return st;
}
