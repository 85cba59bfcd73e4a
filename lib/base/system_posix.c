/* system_posix.c - memory, threads, processors and clock by POSIX: Linux, macOS, the BSDs.
 *
 * Linux's own, where it has better: advice about huge pages, and the CPUs that this process may use.
 *
 * Left out: CPU quotas of control groups. */
#include "base/system.h"

#if !defined(_WIN32)

#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/mman.h>
#include <sys/syscall.h>
#endif
#if !defined(PEFT_NO_THREADS)
#include <sched.h>
#include <signal.h>
#endif

/* ---- memory and process --------------------------------------------------------------------------------------- */

void *peft__sys_alloc(size_t size, size_t align, bool huge) {
    void *p = NULL;
    if (posix_memalign(&p, align, size) != 0) { return NULL; }
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    /* A system without huge pages refuses it, and nothing is lost. */
    if (huge) { (void)madvise(p, size & ~(size_t)4095, MADV_HUGEPAGE); }
#else
    (void)huge;
#endif
    return p;
}

void peft__sys_free(void *p) {
    free(p);
}

int64_t peft__sys_pid(void) {
    return (int64_t)getpid();
}

/* ---- processors and clock ------------------------------------------------------------------------------------- */

int32_t peft__cpu_count(void) {
#if defined(__linux__) && defined(SYS_sched_getaffinity)
    unsigned long mask[1024 / sizeof(unsigned long)] = {0}; /* 8192 CPUs */
    long bytes = syscall(SYS_sched_getaffinity, 0, sizeof mask, mask);
    int32_t n = 0;
    for (size_t i = 0; bytes > 0 && i < (size_t)bytes / sizeof mask[0]; i++) {
        for (unsigned long word = mask[i]; word; word &= word - 1) { n++; }
    }
    if (n > 0) { return n; }
#endif
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 && online < 1 << 20 ? (int32_t)online : 1;
}

double peft__clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- threads -------------------------------------------------------------------------------------------------- */

#if !defined(PEFT_NO_THREADS)

static void *posix_main(void *arg) {
    const peft__sys_thread *t = arg;
    t->fn(t->arg);
    return NULL;
}

bool peft__sys_thread_start(peft__sys_thread *t, size_t stack, peft__sys_main fn, void *arg) {
    pthread_attr_t attr;
    sigset_t all, before; /* signals are the host's business: its threads get them, not ours */
    if (pthread_attr_init(&attr) != 0) { return false; }
    (void)pthread_attr_setstacksize(&attr, stack);
    t->fn = fn;
    t->arg = arg;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool ok = pthread_create(&t->id, &attr, posix_main, t) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return ok;
}

void peft__sys_thread_join(peft__sys_thread *t) {
    pthread_join(t->id, NULL);
}

void peft__sys_yield(void) {
    sched_yield();
}

bool peft__sys_lock_make(peft__sys_lock *l) {
    return pthread_mutex_init(&l->mutex, NULL) == 0;
}

void peft__sys_lock_free(peft__sys_lock *l) {
    pthread_mutex_destroy(&l->mutex);
}

void peft__sys_lock_take(peft__sys_lock *l) {
    pthread_mutex_lock(&l->mutex);
}

void peft__sys_lock_leave(peft__sys_lock *l) {
    pthread_mutex_unlock(&l->mutex);
}

bool peft__sys_cond_make(peft__sys_cond *c) {
    return pthread_cond_init(&c->cond, NULL) == 0;
}

void peft__sys_cond_free(peft__sys_cond *c) {
    pthread_cond_destroy(&c->cond);
}

void peft__sys_cond_wait(peft__sys_cond *c, peft__sys_lock *l) {
    pthread_cond_wait(&c->cond, &l->mutex);
}

void peft__sys_cond_wake_all(peft__sys_cond *c) {
    pthread_cond_broadcast(&c->cond);
}

#endif
#endif
