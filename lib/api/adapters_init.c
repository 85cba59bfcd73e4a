/* adapters_init.c - initial values from a text: peft_adapters_init, and what a fresh adapter gets without one.
 *
 * A method says what it wants (peft__method.needs): the text's tokens, or also the keys and values that the base computes for
 * them, for which the base runs once over as many tokens as the adapter has virtual ones. */
#include "api/api.h"
#include "infer/parts.h"
#include "peft/soft.h"

/* A session of the base alone that has read the ids. */
static peft_status init_read(const peft_adapters *a, const int32_t *ids, int64_t n, peft_session **out) {
    peft_status st = PEFT_OK;
    peft__optset opts = {0};
    peft_session *s = NULL;
    TRY(peft__optset_init(&opts, &a->ctx->mem, &peft__schema_session));
    TRY(peft__opt_set_int(&opts, "max_length", n));
    TRY(peft__opt_set_int(&opts, "chunk", PEFT__MIN(n, 512)));
    TRY(peft__session_create(a->base.owner, NULL, NULL, &opts, &s));
    TRY(peft__session_check_ids(ids, (size_t)n, s->vocab));
    if (peft__session_has_source(s)) { /* encoder and decoder read the same */
        s->source.ids = ids;
        s->source.n = n;
        TRY(peft__session_source_need(s, n));
    }
    TRY(peft__session_plan(s));
    for (int64_t at = 0; at < n; at += s->chunk) {
        TRY(peft__session_advance(s, ids + at, PEFT__MIN(s->chunk, n - at), s->logits, 1));
    }
    *out = s;
    s = NULL;
out:
    peft__session_free(s);
    peft__optset_free(&opts);
    return st;
}

/* ids [n] are repeated, or cut, to as many as the adapter has virtual tokens. */
static peft_status init_forward(const peft_adapters *a, peft__adapter *x, const int32_t *ids, int64_t n) {
    peft_status st = PEFT_OK;
    peft_session *s = NULL;
    int64_t want = peft__soft_count(x);
    size_t bytes = (size_t)want * sizeof *ids;
    int32_t *row = peft__alloc(&a->ctx->mem, bytes);
    if (row == NULL) { return PEFT_E_NOMEM; }
    for (int64_t i = 0; i < want; i++) { row[i] = ids[i % n]; }
    TRY(init_read(a, row, want, &s));
    peft__init_text text = {row, want, s->cache.k, s->cache.v, s->cache.kv_dim, s->model->config.layers};
    TRY(x->method->from_text(x, &text, a->ctx->kernels));
out:
    peft__session_free(s);
    peft__free(&a->ctx->mem, row, bytes);
    return st;
}

peft_status peft__adapters_start(const peft_adapters *a, peft__adapter *x) {
    peft_status st = PEFT_OK;
    peft__soft_base base;
    if (x->method->needs == NULL || (x->method->needs(x) & PEFT__NEEDS_FORWARD) == 0) { return PEFT_OK; }
    int64_t n = peft__soft_count(x);
    size_t bytes = (size_t)n * sizeof(int32_t);
    int32_t *ids = peft__alloc(&a->ctx->mem, bytes);
    if (ids == NULL) { return PEFT_E_NOMEM; }
    TRY(peft__soft_sizes_of(x, &base));
    peft__soft_sample(x, base.vocab, n, ids);
    TRY(init_forward(a, x, ids, n));
out:
    peft__free(&a->ctx->mem, ids, bytes);
    return st;
}

peft_status peft_adapters_init(peft_adapters *a, const char *name, const int32_t *ids, size_t n) {
    peft_status st = PEFT_OK;
    peft__adapter *x = NULL;
    TRY(peft__check_handle(a, PEFT__MAGIC_ADAPTERS, "adapters"));
    TRY(peft__check_text(name, "name"));
    TRY(peft__check_bytes(ids, n, "ids"));
    TRY(peft__set_pin(a, name, &x));
    uint32_t needs = x->method->needs != NULL ? x->method->needs(x) : 0;
    if (needs == 0) {
        FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\" does not start from a text: its method is \"%s\"%s", name, x->method->name,
             x->method->needs != NULL ? ", and its options choose another start" : "");
    }
    if (n == 0 || n > (size_t)INT32_MAX) {
        FAIL(PEFT_E_INVALID, "the text that adapter \"%s\" is to start from has %zu tokens", name, n);
    }
    if ((needs & PEFT__NEEDS_FORWARD) != 0) {
        TRY(init_forward(a, x, ids, (int64_t)n));
    } else {
        peft__init_text text = {.ids = ids, .n = (int64_t)n};
        TRY(x->method->from_text(x, &text, a->ctx->kernels));
    }
out:
    peft__adapter_release(x);
    return st;
}
