/* containers.c - growing bytes, growing arrays, and a hash map from text to an integer.
 *
 * A str remembers a failed allocation instead of reporting every put, so that a writer of a long text checks once.
 * The map is open addressing with linear probing at a load of at most 3/4; its order is never visible, so results
 * cannot depend on it.
 *
 * Left out: removal from the map, iteration, sorting. */
#include "base/base.h"

#include <stdio.h>

/* ---- str ------------------------------------------------------------------------------------------------------ */

void peft__str_init(peft__str *s, peft__mem *mem) {
    *s = (peft__str){.mem = mem};
}

void peft__str_free(peft__str *s) {
    if (s->data) { peft__free(s->mem, s->data, s->cap); }
    *s = (peft__str){.mem = s->mem};
}

void peft__str_clear(peft__str *s) {
    s->len = 0;
    s->failed = false;
    if (s->data) { s->data[0] = '\0'; }
}

/* Room for `more` bytes and the NUL behind them. */
static bool str_grow(peft__str *s, size_t more) {
    if (s->failed) { return false; }
    size_t need;
    if (!peft__add(s->len, more, &need) || !peft__add(need, 1, &need)) {
        peft__fail(PEFT_E_NOMEM, "out of memory: a text of more than %zu bytes", s->len);
        s->failed = true;
        return false;
    }
    if (need <= s->cap) { return true; }
    size_t cap = PEFT__MAX(need, (size_t)64);
    if (s->cap <= SIZE_MAX / 2) { cap = PEFT__MAX(cap, s->cap * 2); }
    char *data = peft__realloc(s->mem, s->data, s->cap, cap);
    if (!data) {
        s->failed = true;
        return false;
    }
    s->data = data;
    s->cap = cap;
    return true;
}

void peft__str_put(peft__str *s, const char *bytes, size_t len) {
    if (!str_grow(s, len)) { return; }
    if (len) { memcpy(s->data + s->len, bytes, len); }
    s->len += len;
    s->data[s->len] = '\0';
}

void peft__str_puts(peft__str *s, const char *text) {
    peft__str_put(s, text, strlen(text));
}

void peft__str_putc(peft__str *s, char c) {
    peft__str_put(s, &c, 1);
}

void peft__str_putf(peft__str *s, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    if (n < 0) {
        s->failed = true;
    } else if (str_grow(s, (size_t)n)) {
        (void)vsnprintf(s->data + s->len, (size_t)n + 1, fmt, again);
        s->len += (size_t)n;
    }
    va_end(again);
    va_end(args);
}

void peft__str_putd(peft__str *s, double v, int32_t digits) {
    char text[40];
    size_t len = peft__format_f64(v, digits, text);
    peft__str_put(s, text, len);
}

const char *peft__str_c(const peft__str *s) {
    return s->data ? s->data : "";
}

peft_status peft__str_status(const peft__str *s) {
    if (!s->failed) { return PEFT_OK; }
    return peft__fail(PEFT_E_NOMEM, "out of memory for a text of more than %zu bytes", s->len);
}

peft_status peft__copy_out(const char *text, size_t len, char *buf, size_t cap, size_t *needed) {
    if (needed) { *needed = len + 1; }
    if (!buf && cap > 0) { return peft__fail(PEFT_E_INVALID, "buffer is NULL, but its capacity is %zu", cap); }
    if (cap <= len) {
        return peft__fail(PEFT_E_BUFFER, "the buffer has %zu bytes, %zu are needed", cap, len + 1);
    }
    if (len) { memcpy(buf, text, len); }
    buf[len] = '\0';
    return PEFT_OK;
}

/* ---- vec ------------------------------------------------------------------------------------------------------ */

void peft__vec_init(peft__vec *v, peft__mem *mem, size_t elem) {
    *v = (peft__vec){.mem = mem, .elem = elem};
}

void peft__vec_free(peft__vec *v) {
    if (v->data) { peft__free(v->mem, v->data, v->cap * v->elem); }
    *v = (peft__vec){.mem = v->mem, .elem = v->elem};
}

peft_status peft__vec_reserve(peft__vec *v, size_t n) {
    if (n <= v->cap) { return PEFT_OK; }
    size_t bytes;
    if (!peft__mul(n, v->elem, &bytes)) {
        return peft__fail(PEFT_E_NOMEM, "out of memory: %zu elements of %zu bytes", n, v->elem);
    }
    void *data = peft__realloc(v->mem, v->data, v->cap * v->elem, bytes);
    if (!data) { return PEFT_E_NOMEM; }
    v->data = data;
    v->cap = n;
    return PEFT_OK;
}

peft_status peft__vec_push(peft__vec *v, const void *elem) {
    if (v->len == v->cap) {
        peft_status st = peft__vec_reserve(v, v->cap > SIZE_MAX / 2 ? SIZE_MAX : PEFT__MAX(v->cap * 2, (size_t)8));
        if (st != PEFT_OK) { return st; }
    }
    memcpy((char *)v->data + v->len * v->elem, elem, v->elem);
    v->len++;
    return PEFT_OK;
}

/* ---- map ------------------------------------------------------------------------------------------------------ */

struct peft__map_slot {
    const char *key; /* borrowed; NULL: an empty slot */
    size_t len;      /* bytes of key */
    uint64_t hash;   /* of key, so that growing need not read it again */
    int64_t value;
};

void peft__map_init(peft__map *m, peft__mem *mem) {
    *m = (peft__map){.mem = mem};
}

void peft__map_free(peft__map *m) {
    if (m->slots) { peft__free(m->mem, m->slots, m->cap * sizeof *m->slots); }
    *m = (peft__map){.mem = m->mem};
}

/* The slot that holds the key, or the empty one where it belongs. There is always an empty one. */
static struct peft__map_slot *map_find(struct peft__map_slot *slots, size_t cap, const char *key, size_t len,
                                       uint64_t hash) {
    size_t i = (size_t)hash & (cap - 1);
    while (slots[i].key) {
        if (slots[i].hash == hash && slots[i].len == len && memcmp(slots[i].key, key, len) == 0) { break; }
        i = (i + 1) & (cap - 1);
    }
    return &slots[i];
}

static peft_status map_grow(peft__map *m) {
    size_t cap = m->cap ? m->cap * 2 : 16, bytes;
    if (cap < m->cap || !peft__mul(cap, sizeof *m->slots, &bytes)) {
        return peft__fail(PEFT_E_NOMEM, "out of memory: a map of more than %zu entries", m->len);
    }
    struct peft__map_slot *slots = peft__alloc_zero(m->mem, bytes);
    if (!slots) { return PEFT_E_NOMEM; }
    for (size_t i = 0; i < m->cap; i++) {
        const struct peft__map_slot *s = &m->slots[i];
        if (s->key) { *map_find(slots, cap, s->key, s->len, s->hash) = *s; }
    }
    if (m->slots) { peft__free(m->mem, m->slots, m->cap * sizeof *m->slots); }
    m->slots = slots;
    m->cap = cap;
    return PEFT_OK;
}

peft_status peft__map_put(peft__map *m, const char *key, size_t len, int64_t value) {
    uint64_t hash = peft__hash_str(0, key, len);
    /* Looked up first: a key that exists is no reason to grow. */
    if (m->cap && map_find(m->slots, m->cap, key, len, hash)->key) {
        return peft__fail(PEFT_E_EXISTS, "\"%.*s\" occurs twice", (int)PEFT__MIN(len, (size_t)200), key);
    }
    if (m->len + 1 > m->cap / 4 * 3) {
        peft_status st = map_grow(m);
        if (st != PEFT_OK) { return st; }
    }
    *map_find(m->slots, m->cap, key, len, hash) = (struct peft__map_slot){key, len, hash, value};
    m->len++;
    return PEFT_OK;
}

int64_t peft__map_get(const peft__map *m, const char *key, size_t len) {
    if (!m->cap) { return -1; }
    const struct peft__map_slot *s = map_find(m->slots, m->cap, key, len, peft__hash_str(0, key, len));
    return s->key ? s->value : -1;
}
