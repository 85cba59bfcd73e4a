/* arena.c - many small blocks that die together.
 *
 * Chunks grow from 4 KiB to 256 KiB; a block too large for what is left of the newest chunk starts a new one, and one
 * that would fill a good part of a chunk gets its own, placed behind the newest so that its rest stays in use.
 *
 * Left out: freeing single blocks; marks to go back to. */
#include "base/base.h"

#include <stdio.h>

enum {
    ARENA_ALIGN = 16,
    ARENA_FIRST = 4 << 10,
    ARENA_LAST = 256 << 10, /* chunk sizes with their head */
};

struct peft__chunk {
    struct peft__chunk *next; /* owned, older */
    size_t size;              /* bytes with this head */
    size_t used;              /* bytes with this head */
};

enum { ARENA_HEAD = (sizeof(struct peft__chunk) + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN };

void peft__arena_init(peft__arena *a, peft__mem *mem) {
    a->mem = mem;
    a->chunks = NULL;
}

void peft__arena_free(peft__arena *a) {
    struct peft__chunk *c = a->chunks;
    while (c) {
        struct peft__chunk *next = c->next;
        peft__free(a->mem, c, c->size);
        c = next;
    }
    a->chunks = NULL;
}

static struct peft__chunk *arena_chunk(peft__arena *a, size_t size) {
    struct peft__chunk *c = peft__alloc(a->mem, size);
    if (!c) { return NULL; }
    c->next = NULL;
    c->size = size;
    c->used = ARENA_HEAD;
    return c;
}

/* The chunk that has room for `need` bytes (a multiple of ARENA_ALIGN); NULL when there is no memory. */
static struct peft__chunk *arena_room(peft__arena *a, size_t need) {
    struct peft__chunk *head = a->chunks;
    if (head && head->size - head->used >= need) { return head; }
    size_t size = head ? PEFT__MIN(PEFT__MAX(head->size, (size_t)ARENA_FIRST) * 2, (size_t)ARENA_LAST)
                       : (size_t)ARENA_FIRST;
    if (need > (size - ARENA_HEAD) / 4) {
        struct peft__chunk *own = arena_chunk(a, ARENA_HEAD + need);
        if (!own) { return NULL; }
        if (head) {
            own->next = head->next;
            head->next = own;
        } else {
            a->chunks = own;
        }
        return own;
    }
    struct peft__chunk *c = arena_chunk(a, size);
    if (!c) { return NULL; }
    c->next = head;
    a->chunks = c;
    return c;
}

void *peft__arena_alloc(peft__arena *a, size_t size) {
    if (size > PTRDIFF_MAX - ARENA_HEAD - ARENA_ALIGN) {
        peft__fail(PEFT_E_NOMEM, "out of memory: %zu bytes asked for", size);
        return NULL;
    }
    size_t need = (PEFT__MAX(size, (size_t)1) + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    struct peft__chunk *c = arena_room(a, need);
    if (!c) { return NULL; }
    char *p = (char *)c + c->used;
    c->used += need;
    memset(p, 0, need);
    return p;
}

char *peft__arena_strdup(peft__arena *a, const char *s, size_t len) {
    size_t size;
    if (!peft__add(len, 1, &size)) {
        peft__fail(PEFT_E_NOMEM, "out of memory: a text of %zu bytes", len);
        return NULL;
    }
    char *copy = peft__arena_alloc(a, size);
    if (copy && len) { memcpy(copy, s, len); }
    return copy;
}

char *peft__arena_printf(peft__arena *a, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    char *text = NULL;
    int n = vsnprintf(NULL, 0, fmt, args);
    if (n < 0) {
        peft__fail(PEFT_E_INTERNAL, "cannot format the text \"%s\"", fmt);
    } else {
        text = peft__arena_alloc(a, (size_t)n + 1);
        if (text) { (void)vsnprintf(text, (size_t)n + 1, fmt, again); }
    }
    va_end(again);
    va_end(args);
    return text;
}
