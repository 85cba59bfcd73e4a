/* mem.c - the context's allocator with accounting, and checked arithmetic for sizes.
 *
 * Every byte of the library comes through peft__alloc. Sizes are handed back on release, so that accounting needs no
 * header before the block and a host's allocator may be an arena. Blocks are 64-byte aligned: a cache line, and the
 * widest vector register. Large ones lie on 2 MiB, so that the system can back them with huge pages, which saves most
 * of the TLB misses of a matrix product.
 *
 * Left out: a limit (the planner of autograd/ keeps to it before anything is reserved). */
#include "base/system.h"

enum {
    MEM_ALIGN = 64,
    MEM_HUGE_ALIGN = 2 << 20,
    MEM_HUGE_FROM = 4 << 20, /* smaller blocks would waste too much of their last huge page */
};

static void *mem_malloc(void *user, size_t size, size_t align) {
    (void)user;
    return peft__sys_alloc(size, align, size >= MEM_HUGE_FROM);
}

static void mem_release(void *user, void *p, size_t size) {
    (void)user;
    (void)size;
    peft__sys_free(p);
}

void peft__mem_init(peft__mem *mem, const peft_allocator *host) {
    mem->host = host ? *host : (peft_allocator){mem_malloc, mem_release, NULL};
    atomic_init(&mem->now, 0);
    atomic_init(&mem->peak, 0);
    atomic_init(&mem->calls, 0);
    atomic_init(&mem->fail_at, 0);
    atomic_init(&mem->fail_more, false);
}

void peft__mem_fail_after(peft__mem *mem, size_t n, bool every) {
    atomic_store(&mem->calls, 0);
    atomic_store(&mem->fail_more, every);
    atomic_store(&mem->fail_at, n);
}

void peft__mem_reset_peak(peft__mem *mem) {
    atomic_store(&mem->peak, atomic_load(&mem->now));
}

static bool mem_must_fail(peft__mem *mem) {
    size_t call = atomic_fetch_add_explicit(&mem->calls, 1, memory_order_relaxed) + 1;
    size_t at = atomic_load_explicit(&mem->fail_at, memory_order_relaxed);
    if (at == 0) { return false; }
    return call == at || (call > at && atomic_load_explicit(&mem->fail_more, memory_order_relaxed));
}

/* A block of size 0 is one byte to the host: two live blocks never share an address. */
static size_t mem_host_size(size_t size) {
    return size ? size : 1;
}

void *peft__alloc(peft__mem *mem, size_t size) {
    void *p = NULL;
    if (!mem_must_fail(mem) && size <= PTRDIFF_MAX) {
        size_t align = size >= MEM_HUGE_FROM ? MEM_HUGE_ALIGN : MEM_ALIGN;
        p = mem->host.alloc(mem->host.user, mem_host_size(size), align);
    }
    if (!p) {
        peft__fail(PEFT_E_NOMEM, "out of memory: %zu bytes asked for, %zu in use", size,
                   atomic_load_explicit(&mem->now, memory_order_relaxed));
        return NULL;
    }
    size_t now = atomic_fetch_add_explicit(&mem->now, size, memory_order_relaxed) + size;
    size_t peak = atomic_load_explicit(&mem->peak, memory_order_relaxed);
    while (now > peak && !atomic_compare_exchange_weak_explicit(&mem->peak, &peak, now, memory_order_relaxed,
                                                                memory_order_relaxed)) {}
    return p;
}

void *peft__alloc_zero(peft__mem *mem, size_t size) {
    void *p = peft__alloc(mem, size);
    if (p) { memset(p, 0, size); }
    return p;
}

void peft__free(peft__mem *mem, void *p, size_t size) {
    if (!p) { return; }
    mem->host.release(mem->host.user, p, mem_host_size(size));
    atomic_fetch_sub_explicit(&mem->now, size, memory_order_relaxed);
}

void *peft__realloc(peft__mem *mem, void *p, size_t old_size, size_t new_size) {
    void *q = peft__alloc(mem, new_size);
    if (!q) { return NULL; }
    if (p) {
        memcpy(q, p, PEFT__MIN(old_size, new_size));
        peft__free(mem, p, old_size);
    }
    return q;
}

bool peft__mul(size_t a, size_t b, size_t *out) {
    if (b != 0 && a > SIZE_MAX / b) { return false; }
    *out = a * b;
    return true;
}

bool peft__add(size_t a, size_t b, size_t *out) {
    if (a > SIZE_MAX - b) { return false; }
    *out = a + b;
    return true;
}
