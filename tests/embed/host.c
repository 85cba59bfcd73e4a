/* host.c - the library inside of a host that has its own allocator and its own threads.
 *
 * Allocator: every block aligned as asked and given back once with its size, from whichever thread; and where it says no, at
 * any point of the work, a status and nothing lost. Thread pool: each task once, worker numbers apart, the same bits as from
 * the library's own threads.
 *
 * Left out: a pool that runs fewer workers than there are, which its contract allows (tests/unit/base_threads_test.c). */
#define KIT_LINK
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "kit.h"

/* ---- allocator: a header before each block knows what was asked for ---- */

enum { HOST_MARK = 0x50454654, HOST_SEEN = 8 };

typedef struct host_block {
    uint32_t mark;
    size_t size, align;
    void *start;
} host_block;

typedef struct host_memory {
    pthread_mutex_t lock;
    size_t now, blocks, calls, fail_at; /* fail_at: this call gets NULL (from 1); 0: none */
    pthread_t seen[HOST_SEEN];          /* threads that came */
    int threads;
} host_memory;

static void host_count(host_memory *m, ptrdiff_t size, int blocks) { /* under the lock */
    int i = 0;
    m->now += (size_t)size;
    m->blocks += (size_t)blocks;
    while (i < m->threads && !pthread_equal(m->seen[i], pthread_self())) { i++; }
    if (i == m->threads && i < HOST_SEEN) { m->seen[m->threads++] = pthread_self(); }
}

static void *host_alloc(void *user, size_t size, size_t align) {
    host_memory *m = user;
    host_block b = {HOST_MARK, size, align, NULL};
    EXPECT(align > 0 && (align & (align - 1)) == 0);
    (void)pthread_mutex_lock(&m->lock);
    int no = ++m->calls == m->fail_at;
    (void)pthread_mutex_unlock(&m->lock);
    if (no || (b.start = malloc(size + align + sizeof b)) == NULL) { return NULL; }
    uintptr_t at = ((uintptr_t)b.start + sizeof b + align - 1) & ~(uintptr_t)(align - 1);
    memcpy((char *)at - sizeof b, &b, sizeof b);
    (void)pthread_mutex_lock(&m->lock);
    host_count(m, (ptrdiff_t)size, 1);
    (void)pthread_mutex_unlock(&m->lock);
    memset((char *)at, 0xA5, size); /* nobody may count on zeros */
    return (char *)at;
}

static void host_release(void *user, void *p, size_t size) {
    host_memory *m = user;
    host_block b;
    memcpy(&b, (char *)p - sizeof b, sizeof b);
    EXPECT(b.mark == HOST_MARK && b.size == size);
    EXPECT(((uintptr_t)p & (b.align - 1)) == 0);
    memset((char *)p - sizeof b, 0, sizeof b); /* a second release finds no mark */
    (void)pthread_mutex_lock(&m->lock);
    host_count(m, -(ptrdiff_t)size, -1);
    (void)pthread_mutex_unlock(&m->lock);
    free(b.start);
}

static void *host_thread(void *arg) { /* builds and frees its own things from the context of all */
    (void)kit_work(&kit_linked, arg, NULL);
    return NULL;
}

static void host_counts(void) {
    host_memory m = {.lock = PTHREAD_MUTEX_INITIALIZER};
    peft_allocator alloc = {host_alloc, host_release, &m};
    peft_context *ctx = NULL;
    size_t now = 0, peak = 0;
    pthread_t threads[3];
    OK(peft_context_create(&alloc, &ctx));
    memset(&alloc, 0, sizeof alloc); /* it was copied */
    OK(peft_context_set_threads(ctx, 2));
    for (int i = 0; i < 3; i++) { EXPECT(pthread_create(&threads[i], NULL, host_thread, ctx) == 0); }
    for (int i = 0; i < 3; i++) { EXPECT(pthread_join(threads[i], NULL) == 0); }
    peft_context_memory(ctx, &now, &peak);
    EXPECT(m.calls > 300 && m.threads >= 4 && now == m.now && peak > now);
    peft_context_free(ctx);
    EXPECT(m.now == 0 && m.blocks == 0);
    (void)printf("allocator: %zu calls from %d threads, everything given back\n", m.calls, m.threads);
}

/* ---- the same work with one allocation that fails: a status, and nothing lost ---- */

static peft_status host_try(const peft_allocator *alloc, int *reached) {
    peft_context *ctx = NULL;
    peft_model *m = NULL;
    peft_adapters *a = NULL;
    peft_options *o = NULL;
    peft_trainer *t = NULL;
    peft_session *s = NULL;
    int32_t out[4], prompt[2] = {1, 2};
    *reached = 0;
    peft_status st = peft_context_create(alloc, &ctx);
    if (st == PEFT_OK) { *reached = 1, st = peft_context_set_threads(ctx, 2); }
    if (st == PEFT_OK) { st = peft_model_create_random(ctx, kit_config, strlen(kit_config), 5, &m); }
    if (st == PEFT_OK) { *reached = 2, st = peft_adapters_create(m, &a); }
    if (st == PEFT_OK) { st = peft_adapters_add(a, "a", "lora", NULL, 1); }
    if (st == PEFT_OK) { *reached = 3, st = peft_options_create(ctx, "trainer", &o); }
    if (st == PEFT_OK) { st = peft_options_set_json(o, "{\"max_steps\":1}", 15); }
    if (st == PEFT_OK) { st = peft_trainer_create(a, o, &t); }
    if (st == PEFT_OK) { st = peft_trainer_add_job(t, "a", NULL, NULL, NULL); }
    if (st == PEFT_OK) {
        peft_batch *b = NULL;
        int64_t offsets[2] = {0, 2};
        *reached = 4;
        st = peft_batch_create(ctx, &b);
        if (st == PEFT_OK) { st = peft_batch_set_i32(b, "input_ids", prompt, offsets, 1); }
        if (st == PEFT_OK) { st = peft_trainer_accumulate(t, b, NULL); }
        if (st == PEFT_OK) { st = peft_trainer_apply(t); }
        peft_batch_free(b);
    }
    if (st == PEFT_OK) { *reached = 5, st = peft_session_create(m, a, "a", NULL, &s); }
    if (st == PEFT_OK) { st = peft_session_generate(s, NULL, prompt, 2, NULL, NULL, NULL, out, 4, NULL); }
    if (st == PEFT_E_BUFFER) { st = PEFT_OK; } /* that many more tokens than four: as wished */
    peft_session_free(s);
    peft_trainer_free(t);
    peft_options_free(o);
    peft_adapters_free(a);
    peft_model_free(m);
    peft_context_free(ctx);
    return st;
}

static void host_says_no(void) {
    int reached, places[6] = {0};
    size_t n = 0, all = 0, spared = 0;
    for (n = 1;; n++) {
        host_memory m = {.lock = PTHREAD_MUTEX_INITIALIZER, .fail_at = n};
        peft_allocator alloc = {host_alloc, host_release, &m};
        peft_status st = host_try(&alloc, &reached);
        EXPECT(m.now == 0 && m.blocks == 0);
        if (m.calls < n) { /* none was left to fail */
            EXPECT(st == PEFT_OK);
            break;
        }
        if (st == PEFT_OK) { /* what was asked for could be done without */
            spared++;
            continue;
        }
        EXPECT(st == PEFT_E_NOMEM && strstr(peft_last_error(), "bytes") != NULL);
        places[reached]++;
        all++;
    }
    (void)printf("allocator: NULL at each call: %zu statuses (%d %d %d %d %d %d by stage), %zu done without\n", all,
                 places[0], places[1], places[2], places[3], places[4], places[5], spared);
    EXPECT(spared * 20 < all);
    for (int i = 0; i < 6; i++) { EXPECT(places[i] > 0); }
}

/* ---- thread pool ---- */

enum { HOST_WORKERS = 3 };

typedef struct host_job {
    void (*body)(void *arg, int64_t i, int32_t worker);
    void *arg;
    int64_t n;
    atomic_int inside[HOST_WORKERS]; /* nobody else has the same worker number now */
} host_job;

typedef struct host_seat {
    host_job *job;
    int32_t worker;
} host_seat;

static atomic_llong host_loops, host_tasks, host_elsewhere; /* loops, tasks, tasks on other threads than the caller's */

static void *host_worker(void *arg) {
    const host_seat *seat = arg;
    host_job *j = seat->job;
    for (int64_t i = seat->worker; i < j->n; i += HOST_WORKERS) { /* each its share, so that all workers have work */
        EXPECT(atomic_fetch_add(&j->inside[seat->worker], 1) == 0);
        j->body(j->arg, i, seat->worker);
        EXPECT(atomic_fetch_sub(&j->inside[seat->worker], 1) == 1);
        if (seat->worker != 0) { atomic_fetch_add(&host_elsewhere, 1); }
    }
    return NULL;
}

static void host_parallel_for(void *user, int64_t n, int32_t workers, void (*body)(void *arg, int64_t i, int32_t worker),
                              void *arg) {
    pthread_t threads[HOST_WORKERS];
    host_seat seats[HOST_WORKERS];
    host_job j = {.body = body, .arg = arg, .n = n};
    EXPECT(n > 0 && workers == HOST_WORKERS && user == &host_loops);
    atomic_fetch_add(&host_loops, 1);
    atomic_fetch_add(&host_tasks, n);
    for (int32_t w = 0; w < workers; w++) { seats[w] = (host_seat){&j, w}; }
    for (int32_t w = 1; w < workers; w++) { EXPECT(pthread_create(&threads[w], NULL, host_worker, &seats[w]) == 0); }
    (void)host_worker(&seats[0]);
    for (int32_t w = 1; w < workers; w++) { EXPECT(pthread_join(threads[w], NULL) == 0); }
}

/* Threads of the library's own that there are beside the caller's: none where it was built without (run.sh). */
#ifdef HOST_NO_THREADS
#define HOST_OWN(n) 1
#else
#define HOST_OWN(n) (n)
#endif

static int host_before, host_most; /* threads before any work (a sanitizer may have its own), and while there is work */

static void host_look(void) {
    host_most = kit_threads() - host_before + 1;
}

static void host_pool(void) {
    uint64_t own[4];
    host_before = kit_threads();
    for (int32_t n = 1; n <= 3; n++) {
        own[n] = kit_run(&kit_linked, NULL, n, host_look);
        EXPECT(host_most == HOST_OWN(n) && own[n] == own[1]);
    }
    peft_context *ctx = NULL;
    OK(peft_context_create(NULL, &ctx));
    OK(peft_context_set_threads(ctx, HOST_WORKERS));
    OK(peft_context_set_parallel_for(ctx, host_parallel_for, &host_loops));
    EXPECT(kit_work(&kit_linked, ctx, host_look) == own[1]);
    EXPECT(host_most == 1); /* no thread of the library's own */
    long long loops = atomic_load(&host_loops);
    EXPECT(loops > 50 && atomic_load(&host_tasks) > 2 * loops && atomic_load(&host_elsewhere) > loops);
    OK(peft_context_set_parallel_for(ctx, NULL, NULL));
    EXPECT(kit_work(&kit_linked, ctx, host_look) == own[1]);
    EXPECT(host_most == HOST_OWN(HOST_WORKERS) && atomic_load(&host_loops) == loops);
    peft_context_free(ctx);
    EXPECT(kit_threads() == host_before);
    (void)printf("pool: the host's threads ran %lld loops of %lld tasks, %lld of them on its workers; the same bits\n",
                 loops, atomic_load(&host_tasks), atomic_load(&host_elsewhere));
}

int main(void) {
    host_counts();
    host_says_no();
    host_pool();
    return 0;
}
