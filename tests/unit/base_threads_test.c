/* The pool with 1, 2 and more threads and with a host's; the mutex; the processor. base_threads_condvar_test.c and
 * base_threads_serial_test.c run the same code as other systems compile it. */
#include "base/system.h"
#include "runner.h"

#include <stdlib.h>
#if !defined(_WIN32)
#include <sys/wait.h>
#include <unistd.h>
#endif

typedef struct threads_log {
    atomic_int *runs;      /* of each task */
    atomic_int workers[8]; /* tasks by worker */
    atomic_bool bad;       /* a worker number out of range */
    int32_t size;
} threads_log;

static void threads_note(void *arg, int64_t task, int32_t worker) {
    threads_log *log = arg;
    atomic_fetch_add(&log->runs[task], 1);
    if (worker < 0 || worker >= log->size) {
        atomic_store(&log->bad, true);
    } else if (worker < 8) {
        atomic_fetch_add(&log->workers[worker], 1);
    }
}

TEST(base_pool_runs_every_task_once) {
    peft__mem *mem = runner_mem();
    for (int32_t n = 1; n <= 4; n = n * 2) {
        peft__pool *p = NULL;
        CHECK_OK(peft__pool_create(mem, n, &p));
        CHECK_INT(peft__pool_size(p), n);
        int64_t counts[] = {0, 1, 2, 3, 17, 1000};
        for (int round = 0; round < 200; round++) {
            int64_t tasks = counts[round % 6];
            atomic_int runs[1000] = {0};
            threads_log log = {.runs = runs, .size = n};
            peft__pool_run(p, threads_note, &log, tasks);
            for (int64_t i = 0; i < tasks; i++) { CHECK_INT(atomic_load(&runs[i]), 1); }
            CHECK(!atomic_load(&log.bad));
        }
        peft__pool_free(p);
    }
}

static void threads_add(void *arg, int64_t task, int32_t worker) {
    (void)worker;
    atomic_fetch_add((_Atomic int64_t *)arg, task);
}

TEST(base_pool_survives_many_short_runs_and_sleep) {
    peft__mem *mem = runner_mem();
    peft__pool *p = NULL;
    CHECK_OK(peft__pool_create(mem, 3, &p));
    for (int round = 0; round < 20000; round++) {
        _Atomic int64_t sum = 0;
        peft__pool_run(p, threads_add, &sum, 5);
        CHECK_INT(atomic_load(&sum), 10);
        if (round % 4000 == 0) { runner_sleep(0.003); } /* long enough for the workers to fall asleep */
    }
    peft__pool_free(p);
}

typedef struct threads_meet {
    atomic_int arrived;
    atomic_bool timeout;
} threads_meet;

static void threads_wait_for_other(void *arg, int64_t task, int32_t worker) {
    (void)task;
    (void)worker;
    threads_meet *meet = arg;
    atomic_fetch_add(&meet->arrived, 1);
    for (double end = peft__clock() + 20; atomic_load(&meet->arrived) < 2;) {
        if (peft__clock() > end) {
            atomic_store(&meet->timeout, true);
            return;
        }
        peft__sys_yield();
    }
}

TEST(base_pool_tasks_run_at_the_same_time) {
    peft__mem *mem = runner_mem();
    peft__pool *p = NULL;
    CHECK_OK(peft__pool_create(mem, 2, &p));
    threads_meet meet = {0};
    peft__pool_run(p, threads_wait_for_other, &meet, 2); /* each task waits until the other has begun */
    CHECK(!atomic_load(&meet.timeout));
    peft__pool_free(p);
}

TEST(base_pool_more_tasks_than_a_generation_counts) {
    peft__mem *mem = runner_mem();
    peft__pool *p = NULL;
    CHECK_OK(peft__pool_create(mem, 2, &p));
    _Atomic int64_t sum = 0;
    int64_t n = (1 << 24) + 1000;
    peft__pool_run(p, threads_add, &sum, n);
    CHECK_INT(atomic_load(&sum), n * (n - 1) / 2);
    peft__pool_free(p);
}

typedef struct threads_host {
    int64_t n;
    int32_t workers;
} threads_host;

static void threads_parallel_for(void *user, int64_t n, int32_t workers, void (*body)(void *, int64_t, int32_t),
                                 void *arg) {
    threads_host *h = user;
    h->n = n;
    h->workers = workers;
    for (int64_t i = n; i-- > 0;) { body(arg, i, (int32_t)(i % workers)); }
}

TEST(base_pool_uses_the_host) {
    peft__mem *mem = runner_mem();
    peft__pool *p = NULL;
    CHECK_OK(peft__pool_create(mem, 3, &p));
    threads_host h = {0};
    peft__pool_set_host(p, threads_parallel_for, &h);
    atomic_int runs[10] = {0};
    threads_log log = {.runs = runs, .size = 3};
    peft__pool_run(p, threads_note, &log, 10);
    CHECK_INT(h.n, 10);
    CHECK_INT(h.workers, 3);
    for (int i = 0; i < 10; i++) { CHECK_INT(atomic_load(&runs[i]), 1); }
    CHECK_INT(atomic_load(&log.workers[2]), 3);
    peft__pool_run(p, threads_note, &log, 1); /* one task needs no host */
    CHECK_INT(h.n, 10);
    peft__pool_set_host(p, NULL, NULL);
    peft__pool_run(p, threads_note, &log, 10);
    CHECK_INT(h.n, 10);
    CHECK_INT(atomic_load(&runs[9]), 2);
    peft__pool_free(p);
}

TEST(base_pool_refuses_no_threads_and_no_memory) {
    peft__mem *mem = runner_mem();
    peft__pool *p = NULL;
    CHECK_STATUS(peft__pool_create(mem, 0, &p), PEFT_E_INVALID);
    CHECK_ERROR_HAS("pool of 0 threads");
    CHECK_STATUS(peft__pool_create(mem, -3, &p), PEFT_E_INVALID);
    for (size_t n = 1; n <= 2; n++) {
        peft__mem_fail_after(mem, n, false);
        CHECK_STATUS(peft__pool_create(mem, 4, &p), PEFT_E_NOMEM);
        CHECK_INT(atomic_load(&mem->now), 0);
    }
    CHECK(p == NULL);
    peft__pool_free(NULL);
}

#if !defined(_WIN32) /* has no fork */
TEST(base_pool_forked_child_works_alone) {
    peft__mem *mem = runner_mem();
    peft__pool *p = NULL;
    CHECK_OK(peft__pool_create(mem, 3, &p));
    _Atomic int64_t sum = 0;
    peft__pool_run(p, threads_add, &sum, 100);
    pid_t child = fork();
    if (child == 0) { /* it has the pool, but none of its threads */
        atomic_store(&sum, 0);
        peft__pool_run(p, threads_add, &sum, 100);
        peft__pool_free(p);
        _exit(atomic_load(&sum) == 4950 && atomic_load(&mem->now) == 0 ? 0 : 1);
    }
    int code = -1;
    CHECK_INT(waitpid(child, &code, 0), child);
    CHECK_INT(code, 0);
    peft__pool_free(p);
}
#endif

typedef struct threads_shared {
    peft__mutex *mutex;
    int64_t value; /* guarded by mutex */
} threads_shared;

static void threads_increment(void *arg, int64_t task, int32_t worker) {
    (void)task;
    (void)worker;
    threads_shared *s = arg;
    peft__mutex_lock(s->mutex);
    s->value++;
    peft__mutex_unlock(s->mutex);
}

TEST(base_mutex_excludes) {
    peft__mem *mem = runner_mem();
    peft__pool *p = NULL;
    threads_shared s = {0};
    CHECK_OK(peft__mutex_create(mem, &s.mutex));
    CHECK_OK(peft__pool_create(mem, 4, &p));
    peft__pool_run(p, threads_increment, &s, 50000);
    CHECK_INT(s.value, 50000);
    peft__pool_free(p);
    peft__mutex_free(mem, s.mutex);
    peft__mutex_free(mem, NULL);
    peft__mem_fail_after(mem, 1, false);
    CHECK_STATUS(peft__mutex_create(mem, &s.mutex), PEFT_E_NOMEM);
}

TEST(base_cpu_facts) {
    int32_t n = peft__cpu_count();
    CHECK(n >= 1 && n < 100000);
    uint32_t f = peft__cpu_features();
    if (f & (PEFT__CPU_AVX512_BF16 | PEFT__CPU_AVX512_VNNI)) { CHECK(f & PEFT__CPU_AVX512); }
    if (f & PEFT__CPU_AVX512) { CHECK(f & PEFT__CPU_AVX2); }
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
    __builtin_cpu_init();
    CHECK_INT((f & PEFT__CPU_AVX2) != 0, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
    CHECK_INT((f & PEFT__CPU_AVX512) != 0, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"));
    CHECK_INT((f & PEFT__CPU_AVX512_VNNI) != 0, __builtin_cpu_supports("avx512vnni") && (f & PEFT__CPU_AVX512));
    CHECK_INT((f & PEFT__CPU_AVX512_BF16) != 0, __builtin_cpu_supports("avx512bf16") && (f & PEFT__CPU_AVX512));
#endif
#if defined(__aarch64__)
    CHECK_INT(f, PEFT__CPU_NEON);
#endif
    double a = peft__clock();
    runner_sleep(0.002);
    double b = peft__clock();
    CHECK(b - a >= 0.002 && b - a < 10);
}
