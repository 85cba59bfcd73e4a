/* compose.c - the hooks that put adapters into a model as it records itself.
 *
 * At a projection: the first adapter that replaces it, else before (each in order) -> base product, with trained copies of
 * weight and bias where an adapter has them -> after (each in order; all see the same input). Norms, embeddings, positions and
 * the head take trained copies. A head tied to the embedding follows a trained copy only if the adapter says so ("full").
 *
 * Left out: adapters that act on some rows of the batch only. */
#include "peft/method.h"

typedef struct compose_member {
    const peft__adapter *adapter; /* pinned by whoever records */
    const peft__attachment **at;  /* [n_sites], NULL where it does not act; in the tape's arena */
} compose_member;

typedef struct compose_all {
    const peft__base_info *base;
    compose_member *members;
    size_t n;
} compose_all;

/* Trained copies at a site: of the one adapter that has them. */
static void compose_copies(const compose_all *c, peft__tape *t, const peft__site *s, int32_t *weight, int32_t *bias) {
    const char *owner[2] = {NULL, NULL};
    *weight = *bias = PEFT__NONE;
    for (size_t i = 0; i < c->n; i++) {
        const peft__attachment *at = c->members[i].at[s->id];
        if (at == NULL) { continue; }
        int32_t found[2] = {at->weight_param, at->bias_param};
        int32_t *out[2] = {weight, bias};
        for (int k = 0; k < 2; k++) {
            if (found[k] < 0) { continue; }
            if (owner[k] != NULL) {
                peft__tape_fail(t, PEFT_E_UNSUPPORTED, "adapters \"%s\" and \"%s\" both replace the %s of \"%s\"", owner[k],
                                c->members[i].adapter->name, k == 0 ? "weight" : "bias", s->path);
            }
            owner[k] = c->members[i].adapter->name;
            *out[k] = peft__adapter_tape_copy(c->members[i].adapter, found[k], t);
        }
    }
}

static peft__val compose_linear(void *user, peft__tape *t, const peft__site *s, peft__val x) {
    const compose_all *c = user;
    int32_t weight, bias;
    for (size_t i = 0; i < c->n; i++) {
        const peft__adapter *a = c->members[i].adapter;
        const peft__attachment *at = c->members[i].at[s->id];
        if (at != NULL && a->method->replace != NULL) { return a->method->replace(a, at, t, s, x); }
    }
    for (size_t i = 0; i < c->n; i++) {
        const peft__adapter *a = c->members[i].adapter;
        const peft__attachment *at = c->members[i].at[s->id];
        if (at != NULL && a->method->before != NULL) { x = a->method->before(a, at, t, s, x); }
    }
    compose_copies(c, t, s, &weight, &bias);
    peft__val y = peft__base_linear(t, s, x, weight, bias);
    for (size_t i = 0; i < c->n; i++) {
        const peft__adapter *a = c->members[i].adapter;
        const peft__attachment *at = c->members[i].at[s->id];
        if (at != NULL && a->method->after != NULL) { y = a->method->after(a, at, t, s, x, y); }
    }
    return y;
}

static peft__val compose_stream(void *user, peft__tape *t, const peft__site *s, peft__val h, peft__val residual) {
    const compose_all *c = user;
    for (size_t i = 0; i < c->n; i++) {
        const peft__adapter *a = c->members[i].adapter;
        const peft__attachment *at = c->members[i].at[s->id];
        if (at != NULL && a->method->stream != NULL) { h = a->method->stream(a, at, t, s, h, residual); }
    }
    return h;
}

static peft__val compose_input(void *user, peft__tape *t, const peft__site *s, peft__val x) {
    const compose_all *c = user;
    peft__prepend prompts[PEFT__OP_IN];
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++) {
        const peft__adapter *a = c->members[i].adapter;
        const peft__attachment *at = c->members[i].at[s->id];
        if (at == NULL) { continue; }
        if (a->method->input != NULL) { x = a->method->input(a, at, t, s, x); }
        if (a->method->prompt == NULL || n == PEFT__OP_IN) { continue; }
        peft__prompt p = a->method->prompt(a, at, t, s);
        if (p.rows != PEFT__NONE) { prompts[n++] = (peft__prepend){p.rows, p.n, p.tasks, 1}; }
    }
    return n > 0 ? peft__op_prepend(t, x, prompts, n) : x;
}

static void compose_kv(void *user, peft__tape *t, const peft__site *s, peft__val *past_k, peft__val *past_v) {
    const compose_all *c = user;
    const char *owner = NULL;
    for (size_t i = 0; i < c->n; i++) {
        const peft__adapter *a = c->members[i].adapter;
        const peft__attachment *at = c->members[i].at[s->id];
        if (at == NULL || a->method->kv == NULL) { continue; }
        if (owner != NULL) {
            peft__tape_fail(t, PEFT_E_UNSUPPORTED, "adapters \"%s\" and \"%s\" both put a prefix before \"%s\"", owner, a->name,
                            s->path);
            return;
        }
        owner = a->name;
        a->method->kv(a, at, t, s, past_k, past_v);
    }
}

static peft__val compose_norm(void *user, peft__tape *t, const peft__site *s, peft__val x) {
    int32_t weight, bias;
    compose_copies(user, t, s, &weight, &bias);
    return peft__base_norm(t, s, x, weight, bias);
}

/* For positions `scale` carries the offset that is added to each of them. */
static peft__val compose_embed(void *user, peft__tape *t, const peft__site *s, peft__val x, double scale) {
    int32_t weight, bias;
    compose_copies(user, t, s, &weight, &bias);
    if (s->role == PEFT__ROLE_POSITIONS) { return peft__base_positions(t, s, x, weight, (int64_t)scale); }
    return peft__base_embed(t, s, weight, scale);
}

static peft__val compose_head(void *user, peft__tape *t, const peft__site *s, peft__val x, peft__head_spec *spec) {
    const compose_all *c = user;
    compose_copies(c, t, s, &spec->w_param, &spec->b_param);
    for (size_t i = 0; i < c->n; i++) {
        const peft__adapter *a = c->members[i].adapter;
        const peft__attachment *at = c->members[i].at[s->id];
        if (at != NULL && a->method->head != NULL) { x = a->method->head(a, at, t, s, x, spec); }
    }
    return x;
}

static peft_status compose_add(compose_all *c, peft__tape *t, size_t i, const peft__adapter *a) {
    if (a->base->n_sites != c->base->n_sites) {
        return peft__fail(PEFT_E_INVALID, "adapter \"%s\" is of another model", a->name);
    }
    compose_member *m = &c->members[i];
    m->adapter = a;
    m->at = peft__arena_alloc(&t->arena, PEFT__MAX(c->base->n_sites, (size_t)1) * sizeof *m->at);
    if (m->at == NULL) { return PEFT_E_NOMEM; }
    for (size_t j = 0; j < a->attachments.len; j++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, j);
        m->at[at->site] = at;
    }
    return PEFT_OK;
}

peft_status peft__compose(peft__tape *t, const peft__base_info *base, peft__adapter *const *adapters, size_t n) {
    peft_status st = PEFT_OK;
    compose_all *c = peft__arena_alloc(&t->arena, sizeof *c);
    peft__hooks *hooks = peft__arena_alloc(&t->arena, sizeof *hooks);
    if (c == NULL || hooks == NULL) { return PEFT_E_NOMEM; }
    *c = (compose_all){.base = base, .n = n};
    c->members = peft__arena_alloc(&t->arena, PEFT__MAX(n, (size_t)1) * sizeof *c->members);
    if (c->members == NULL) { return PEFT_E_NOMEM; }
    for (size_t i = 0; i < n; i++) { TRY(compose_add(c, t, i, adapters[i])); }
    *hooks = (peft__hooks){.user = c,
                           .linear = compose_linear,
                           .stream = compose_stream,
                           .input = compose_input,
                           .kv = compose_kv,
                           .norm = compose_norm,
                           .embed = compose_embed,
                           .head = compose_head};
    t->hooks = hooks;
out:
    return st;
}
