/* set.c - the adapters of one model by name.
 *
 * A set holds one reference to each of its adapters; whoever uses one pins it, which is another. Removing an adapter that is
 * pinned is refused; one that is replaced goes on for those who have pinned it. All changes and look-ups happen under the set's lock.
 *
 * Left out: which adapters act (said by the session, the job or the row), files (format_hf.c). */
#include <stdio.h>

#include "peft/method.h"

peft_status peft__set_create(peft_context *ctx, const peft__base_info *base, struct peft_adapters **out) {
    struct peft_adapters *s = peft__alloc_zero(&ctx->mem, sizeof *s);
    if (s == NULL) { return PEFT_E_NOMEM; }
    peft_status st = peft__mutex_create(&ctx->mem, &s->lock);
    if (st != PEFT_OK) {
        peft__free(&ctx->mem, s, sizeof *s);
        return st;
    }
    s->magic = PEFT__MAGIC_ADAPTERS;
    atomic_init(&s->refs, 1);
    s->ctx = ctx;
    s->base = *base;
    s->base.set = s;
    peft__vec_init(&s->list, &ctx->mem, sizeof(peft__adapter *));
    peft__ctx_retain(ctx);
    if (base->retain != NULL) { base->retain(base->owner); }
    *out = s;
    return PEFT_OK;
}

void peft__set_retain(struct peft_adapters *s) {
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
}

void peft__set_release(struct peft_adapters *s) {
    if (s == NULL || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1) { return; }
    peft_context *ctx = s->ctx;
    for (size_t i = 0; i < s->list.len; i++) { peft__adapter_release(PEFT__VEC_AT(&s->list, peft__adapter *, i)); }
    peft__vec_free(&s->list);
    peft__mutex_free(&ctx->mem, s->lock);
    if (s->base.release != NULL) { s->base.release(s->base.owner); }
    s->magic = PEFT__MAGIC_FREED;
    peft__free(&ctx->mem, s, sizeof *s);
    peft__ctx_release(ctx);
}

/* Position of a name; list.len when it is not there. Under the lock. */
static size_t set_index(const struct peft_adapters *s, const char *name) {
    size_t i = 0;
    while (i < s->list.len && strcmp(PEFT__VEC_AT(&s->list, peft__adapter *, i)->name, name) != 0) { i++; }
    return i;
}

static peft_status set_fail_name(const struct peft_adapters *s, const char *name) {
    peft__str known;
    peft__str_init(&known, &s->ctx->mem);
    for (size_t i = 0; i < s->list.len; i++) {
        peft__str_putf(&known, "%s%s", i > 0 ? ", " : "", PEFT__VEC_AT(&s->list, peft__adapter *, i)->name);
    }
    peft_status st = peft__str_status(&known);
    if (st == PEFT_OK) {
        st = peft__fail(PEFT_E_NOT_FOUND, "there is no adapter \"%s\"; there %s: %s", name, s->list.len == 1 ? "is" : "are",
                        s->list.len > 0 ? peft__str_c(&known) : "none");
    }
    peft__str_free(&known);
    return st;
}

peft_status peft__set_add(struct peft_adapters *s, peft__adapter *a, bool replace) {
    peft_status st = PEFT_OK;
    replace = replace && !PEFT__MINIMAL;
    peft__mutex_lock(s->lock);
    if (a->name[0] == '\0') { FAIL(PEFT_E_INVALID, "the name of an adapter is empty"); }
    size_t i = set_index(s, a->name);
    if (i < s->list.len && !replace) { FAIL(PEFT_E_EXISTS, "there is an adapter \"%s\" already", a->name); }
    if (i < s->list.len) {
        peft__adapter_release(PEFT__VEC_AT(&s->list, peft__adapter *, i));
        PEFT__VEC_AT(&s->list, peft__adapter *, i) = a;
    } else {
        TRY(peft__vec_push(&s->list, &a));
    }
out:
    peft__mutex_unlock(s->lock);
    return st;
}

/* An adapter of the set that is made of it; NULL: none. */
static const peft__adapter *set_whole(const struct peft_adapters *s, const peft__adapter *part) {
    for (size_t i = 0; i < s->list.len; i++) {
        const peft__adapter *a = PEFT__VEC_AT(&s->list, peft__adapter *, i);
        for (size_t k = 0; k < a->parts.len; k++) {
            if (PEFT__VEC_AT(&a->parts, peft__adapter *, k) == part) { return a; }
        }
    }
    return NULL;
}

/* Says by how many of what it is in use. */
static peft_status set_fail_busy(const peft__adapter *a) {
#ifdef PEFT_MINIMAL
    return peft__fail(PEFT_E_BUSY, "adapter \"%s\" is in use", a->name);
#else
    static const char *const kinds[PEFT__USERS][2] = {{"session", "sessions"}, {"job of a trainer", "jobs of trainers"},
                                                      {"branch of a session's rows", "branches of sessions' rows"}};
    char text[160] = "";
    for (size_t i = 0, at = 0; i < PEFT__USERS; i++) {
        int n = atomic_load(&a->users[i]);
        if (n <= 0) { continue; }
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%d %s", at > 0 ? ", " : "", n, kinds[i][n > 1]);
    }
    return peft__fail(PEFT_E_BUSY, "adapter \"%s\" is in use by %s", a->name, text[0] != '\0' ? text : "a call that is under way");
#endif
}

peft_status peft__set_remove(struct peft_adapters *s, const char *name) {
    peft_status st = PEFT_OK;
    peft__mutex_lock(s->lock);
    size_t i = set_index(s, name);
    peft__adapter **list = s->list.data;
    if (i == s->list.len) {
        st = set_fail_name(s, name);
        goto out;
    }
    /* Nobody can pin it between this look and the removal: pinning takes the lock. */
    if (atomic_load_explicit(&list[i]->refs, memory_order_acquire) > 1) {
        const peft__adapter *whole = set_whole(s, list[i]);
        if (whole != NULL) { FAIL(PEFT_E_BUSY, "adapter \"%s\" is in use: adapter \"%s\" is made of it", name, whole->name); }
        st = set_fail_busy(list[i]);
        goto out;
    }
    peft__adapter_release(list[i]);
    memmove(&list[i], &list[i + 1], (s->list.len - i - 1) * sizeof *list);
    s->list.len--;
out:
    peft__mutex_unlock(s->lock);
    return st;
}

peft_status peft__set_pin(struct peft_adapters *s, const char *name, peft__adapter **out) {
    peft_status st = PEFT_OK;
    peft__mutex_lock(s->lock);
    size_t i = set_index(s, name);
    if (i < s->list.len) {
        *out = PEFT__VEC_AT(&s->list, peft__adapter *, i);
        peft__adapter_retain(*out);
    } else {
        st = set_fail_name(s, name);
    }
    peft__mutex_unlock(s->lock);
    return st;
}

peft_status peft__set_pin_parts(struct peft_adapters *s, const peft__names *names, peft__adapter *a,
                                peft_status (*accepts)(const peft__adapter *part)) {
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < names->count; i++) {
        peft__adapter *part = NULL;
        TRY(peft__set_pin(s, names->items[i], &part));
        st = accepts(part);
        if (st == PEFT_OK) { st = peft__vec_push(&a->parts, &part); }
        if (st != PEFT_OK) {
            peft__adapter_release(part);
            goto out;
        }
    }
out:
    return st;
}

bool peft__set_is_fusion(const peft__adapter *a, peft__adapter *const *parts, size_t n) {
    if (a->method->combine != PEFT__COMBINE_FUSE || a->parts.len != n) { return false; }
    for (size_t i = 0; i < n; i++) {
        if (PEFT__VEC_AT(&a->parts, peft__adapter *, i) != parts[i]) { return false; }
    }
    return true;
}

static peft_status set_fail_fusion(const struct peft_adapters *s, peft__adapter *const *parts, size_t n) {
    peft__str names;
    peft__str_init(&names, &s->ctx->mem);
    for (size_t i = 0; i < n; i++) { peft__str_putf(&names, "%s%s", i > 0 ? ", " : "", parts[i]->name); }
    peft_status st = peft__str_status(&names);
    if (st == PEFT_OK) {
        st = peft__fail(PEFT_E_NOT_FOUND, "there is no fusion of %s: add one of method \"fusion\" with these adapters, in this order",
                        peft__str_c(&names));
    }
    peft__str_free(&names);
    return st;
}

peft_status peft__set_pin_fusion(struct peft_adapters *s, peft__adapter *const *parts, size_t n, peft__adapter **out) {
    peft_status st = PEFT_OK;
    peft__adapter **list;
    *out = NULL;
    peft__mutex_lock(s->lock);
    list = s->list.data;
    for (size_t i = 0; i < s->list.len && *out == NULL; i++) {
        if (peft__set_is_fusion(list[i], parts, n)) { *out = list[i]; }
    }
    if (*out != NULL) { peft__adapter_retain(*out); } else { st = set_fail_fusion(s, parts, n); }
    peft__mutex_unlock(s->lock);
    return st;
}

size_t peft__set_count(const struct peft_adapters *s) {
    peft__mutex_lock(s->lock);
    size_t n = s->list.len;
    peft__mutex_unlock(s->lock);
    return n;
}

const char *peft__set_name(const struct peft_adapters *s, size_t index) {
    peft__mutex_lock(s->lock);
    const char *name = index < s->list.len ? PEFT__VEC_AT(&s->list, peft__adapter *, index)->name : NULL;
    peft__mutex_unlock(s->lock);
    return name;
}
