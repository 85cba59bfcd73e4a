/* threads.c - a fork-join pool whose caller never waits for a worker that has claimed nothing, and a mutex.
 *
 * One 64-bit word holds the generation (upper 40 bits) and the tasks left (lower 24). A worker claims by compare and
 * swap of `left` to `left - 1`. Success proves that the generation is the present one, and the caller cannot publish the
 * next before that task is done: so the job's fields, plain memory, are stable from claim to done. Workers that sleep or
 * are paused by the system cost the caller nothing, it does their tasks itself.
 *
 * Waiting: about 0.1 ms of spinning (4000 pauses of 30 ns), because steps come every few microseconds; then a futex on
 * Linux, a condition variable of the system elsewhere (or with PEFT_NO_FUTEX). PEFT_NO_THREADS leaves everything to the caller.
 *
 * Left out: nested runs, work stealing, priorities, binding to CPUs. */
#include "base/system.h"

#if defined(__linux__) && !defined(PEFT_NO_FUTEX) && !defined(PEFT_NO_THREADS)
#define THREADS_FUTEX
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum {
    THREADS_FUTEX_WAIT = 128, /* FUTEX_WAIT_PRIVATE and FUTEX_WAKE_PRIVATE: not every C library comes with Linux's headers */
    THREADS_FUTEX_WAKE = 129,
    THREADS_SPIN = 4000,
    THREADS_LINE = 128,          /* two cache lines, which some processors fetch together */
    THREADS_STACK = 2 << 20,     /* bytes of a worker's stack */
    THREADS_LEFT_BITS = 24,
    THREADS_BATCH = (1 << THREADS_LEFT_BITS) - 1, /* tasks of one generation */
};

#if !defined(PEFT_NO_THREADS)
typedef struct threads_worker {
    peft__sys_thread thread;
    struct peft__pool *pool; /* borrowed */
    int32_t index;           /* 1 .. size-1 */
} threads_worker;
#endif

struct peft__pool {
    peft__mem *mem;                    /* borrowed */
    int32_t size;                      /* workers with the caller */
    peft_parallel_for_fn host;         /* NULL: own threads */
    void *host_user;
#if !defined(PEFT_NO_THREADS)
    bool tried;                        /* threads were asked for */
    int32_t started;                   /* threads that the system gave */
    int64_t pid;                       /* process of those threads: a forked child has none */
    threads_worker *workers;           /* owned, size - 1 */
    peft__sys_lock lock;               /* of `wake`, without futex */
    peft__sys_cond wake;
    peft__task_fn fn;                  /* the job; written by the caller between generations only */
    void *arg;
    int64_t first;                     /* number of the batch's first task */
    uint32_t count;                    /* tasks of the batch */
    _Alignas(THREADS_LINE) atomic_uint gen;        /* changes when there is work; what workers wait on */
    _Alignas(THREADS_LINE) _Atomic uint64_t word;  /* generation and tasks left */
    _Alignas(THREADS_LINE) _Atomic uint32_t done;  /* finished tasks of the batch */
    _Alignas(THREADS_LINE) atomic_int sleepers;    /* workers in or before the sleep */
    atomic_bool quit;
#endif
};

void peft__pool_set_host(peft__pool *p, peft_parallel_for_fn fn, void *user) {
    p->host = fn;
    p->host_user = user;
}

int32_t peft__pool_size(const peft__pool *p) {
    return p->size;
}

static void threads_serial(peft__task_fn fn, void *arg, int64_t tasks) {
    for (int64_t i = 0; i < tasks; i++) { fn(arg, i, 0); }
}

#if defined(PEFT_NO_THREADS)

struct peft__mutex {
    char unused;
};

peft_status peft__pool_create(peft__mem *mem, int32_t n, peft__pool **out) {
    if (n < 1) { return peft__fail(PEFT_E_INVALID, "a pool of %d threads, expected at least 1", (int)n); }
    peft__pool *p = peft__alloc_zero(mem, sizeof *p);
    if (!p) { return PEFT_E_NOMEM; }
    p->mem = mem;
    p->size = n;
    *out = p;
    return PEFT_OK;
}

void peft__pool_free(peft__pool *p) {
    if (p) { peft__free(p->mem, p, sizeof *p); }
}

void peft__pool_run(peft__pool *p, peft__task_fn fn, void *arg, int64_t tasks) {
    if (p->host && p->size > 1 && tasks > 1) {
        p->host(p->host_user, tasks, p->size, fn, arg);
    } else {
        threads_serial(fn, arg, tasks);
    }
}

peft_status peft__mutex_create(peft__mem *mem, peft__mutex **out) {
    *out = peft__alloc_zero(mem, sizeof **out);
    return *out ? PEFT_OK : PEFT_E_NOMEM;
}

void peft__mutex_free(peft__mem *mem, peft__mutex *m) {
    peft__free(mem, m, sizeof *m);
}

void peft__mutex_lock(peft__mutex *m) {
    (void)m;
}

void peft__mutex_unlock(peft__mutex *m) {
    (void)m;
}

#else

/* ---- waiting -------------------------------------------------------------------------------------------------- */

static void threads_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* `yield` is a no-op on most cores; this takes about as long as x86's pause */
#endif
}

/* Sleeps unless the generation is no longer `seen`. May wake without cause. */
static void threads_sleep(peft__pool *p, uint32_t seen) {
    atomic_fetch_add(&p->sleepers, 1);
#if defined(THREADS_FUTEX)
    syscall(SYS_futex, &p->gen, THREADS_FUTEX_WAIT, seen, NULL, NULL, 0);
#else
    peft__sys_lock_take(&p->lock);
    if (atomic_load(&p->gen) == seen) { peft__sys_cond_wait(&p->wake, &p->lock); }
    peft__sys_lock_leave(&p->lock);
#endif
    atomic_fetch_sub(&p->sleepers, 1);
}

/* Publishes the next generation number. The order of `gen` and `sleepers` here and in threads_sleep is sequentially
 * consistent: a worker that this misses sees the new number before it sleeps. */
static void threads_wake(peft__pool *p, uint32_t gen) {
#if defined(THREADS_FUTEX)
    atomic_store(&p->gen, gen);
    if (atomic_load(&p->sleepers) > 0) { syscall(SYS_futex, &p->gen, THREADS_FUTEX_WAKE, INT32_MAX, NULL, NULL, 0); }
#else
    atomic_store(&p->gen, gen);
    if (atomic_load(&p->sleepers) > 0) {
        peft__sys_lock_take(&p->lock);
        peft__sys_cond_wake_all(&p->wake);
        peft__sys_lock_leave(&p->lock);
    }
#endif
}

/* ---- workers -------------------------------------------------------------------------------------------------- */

static void threads_work(peft__pool *p, int32_t worker) {
    const uint64_t left_mask = THREADS_BATCH;
    uint64_t word = atomic_load_explicit(&p->word, memory_order_acquire);
    while (word & left_mask) {
        if (!atomic_compare_exchange_weak_explicit(&p->word, &word, word - 1, memory_order_acq_rel,
                                                   memory_order_acquire)) {
            continue;
        }
        p->fn(p->arg, p->first + (p->count - (uint32_t)(word & left_mask)), worker);
        atomic_fetch_add_explicit(&p->done, 1, memory_order_release);
        word = atomic_load_explicit(&p->word, memory_order_acquire);
    }
}

static void threads_main(void *arg) {
    const threads_worker *w = arg;
    peft__pool *p = w->pool;
    uint32_t seen = 0;
    for (;;) {
        uint32_t gen = atomic_load_explicit(&p->gen, memory_order_acquire);
        for (int32_t spin = 0; gen == seen; spin++) {
            if (spin < THREADS_SPIN) {
                threads_pause();
            } else {
                threads_sleep(p, seen);
                spin = 0;
            }
            gen = atomic_load_explicit(&p->gen, memory_order_acquire);
        }
        seen = gen;
        if (atomic_load_explicit(&p->quit, memory_order_relaxed)) { return; }
        threads_work(p, w->index);
    }
}

/* Fewer threads than wanted (a limit of the system) make a slower pool, not a failure. */
static void threads_start(peft__pool *p) {
    p->tried = true;
    p->pid = peft__sys_pid();
    for (int32_t i = 1; i < p->size; i++) {
        threads_worker *w = &p->workers[i - 1];
        w->pool = p;
        w->index = i;
        if (!peft__sys_thread_start(&w->thread, THREADS_STACK, threads_main, w)) { break; }
        p->started++;
    }
}

/* ---- the pool ------------------------------------------------------------------------------------------------- */

static void threads_free_pool(peft__pool *p) {
    peft__free(p->mem, p->workers, (size_t)(p->size - 1) * sizeof *p->workers);
    /* Aligned by hand inside its block: the allocator gives 64 bytes, the fields want 128. */
    char *block = ((char **)(void *)p)[-1];
    peft__free(p->mem, block, sizeof *p + 2 * THREADS_LINE);
}

peft_status peft__pool_create(peft__mem *mem, int32_t n, peft__pool **out) {
    if (n < 1) { return peft__fail(PEFT_E_INVALID, "a pool of %d threads, expected at least 1", (int)n); }
    char *block = peft__alloc_zero(mem, sizeof(peft__pool) + 2 * THREADS_LINE);
    if (!block) { return PEFT_E_NOMEM; }
    uintptr_t pad = THREADS_LINE - ((uintptr_t)block & (THREADS_LINE - 1)); /* 1 .. 128, a multiple of 64 */
    peft__pool *p = (peft__pool *)(void *)(block + pad);
    ((char **)(void *)p)[-1] = block;
    p->mem = mem;
    p->size = n;
    p->workers = peft__alloc_zero(mem, (size_t)(n - 1) * sizeof *p->workers);
    if (!p->workers) {
        peft__free(mem, block, sizeof *p + 2 * THREADS_LINE);
        return PEFT_E_NOMEM;
    }
    if (!peft__sys_lock_make(&p->lock) || !peft__sys_cond_make(&p->wake)) {
        threads_free_pool(p);
        return peft__fail(PEFT_E_NOMEM, "the system has no resources for a thread pool");
    }
    *out = p;
    return PEFT_OK;
}

void peft__pool_free(peft__pool *p) {
    if (!p) { return; }
    if (p->started > 0 && p->pid == peft__sys_pid()) {
        atomic_store_explicit(&p->quit, true, memory_order_relaxed);
        threads_wake(p, atomic_load(&p->gen) + 1);
        for (int32_t i = 0; i < p->started; i++) { peft__sys_thread_join(&p->workers[i].thread); }
        peft__sys_cond_free(&p->wake);
        peft__sys_lock_free(&p->lock);
    }
    threads_free_pool(p);
}

static void threads_batch(peft__pool *p, peft__task_fn fn, void *arg, int64_t first, uint32_t count) {
    p->fn = fn;
    p->arg = arg;
    p->first = first;
    p->count = count;
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    uint64_t gen = (atomic_load_explicit(&p->word, memory_order_relaxed) >> THREADS_LEFT_BITS) + 1;
    atomic_store_explicit(&p->word, gen << THREADS_LEFT_BITS | count, memory_order_release);
    threads_wake(p, atomic_load_explicit(&p->gen, memory_order_relaxed) + 1);
    threads_work(p, 0);
    for (int32_t spin = 0; atomic_load_explicit(&p->done, memory_order_acquire) != count; spin++) {
        if (spin < THREADS_SPIN) {
            threads_pause();
        } else {
            peft__sys_yield(); /* the worker with the last task may need this very CPU */
        }
    }
}

void peft__pool_run(peft__pool *p, peft__task_fn fn, void *arg, int64_t tasks) {
    if (tasks < 2 || p->size < 2) {
        threads_serial(fn, arg, tasks);
        return;
    }
    if (p->host) {
        p->host(p->host_user, tasks, p->size, fn, arg);
        return;
    }
    if (!p->tried) { threads_start(p); }
    for (int64_t first = 0; first < tasks; first += THREADS_BATCH) {
        threads_batch(p, fn, arg, first, (uint32_t)PEFT__MIN(tasks - first, (int64_t)THREADS_BATCH));
    }
}

/* ---- mutex ---------------------------------------------------------------------------------------------------- */

struct peft__mutex {
    peft__sys_lock lock;
};

peft_status peft__mutex_create(peft__mem *mem, peft__mutex **out) {
    peft__mutex *m = peft__alloc(mem, sizeof *m);
    if (!m) { return PEFT_E_NOMEM; }
    if (!peft__sys_lock_make(&m->lock)) {
        peft__free(mem, m, sizeof *m);
        return peft__fail(PEFT_E_NOMEM, "the system has no resources for a mutex");
    }
    *out = m;
    return PEFT_OK;
}

void peft__mutex_free(peft__mem *mem, peft__mutex *m) {
    if (!m) { return; }
    peft__sys_lock_free(&m->lock);
    peft__free(mem, m, sizeof *m);
}

void peft__mutex_lock(peft__mutex *m) {
    peft__sys_lock_take(&m->lock);
}

void peft__mutex_unlock(peft__mutex *m) {
    peft__sys_lock_leave(&m->lock);
}

#endif
#undef THREADS_FUTEX
