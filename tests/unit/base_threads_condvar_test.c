/* threads.c once more, as it is where there is no futex: workers sleep on a condition variable. */
#define PEFT_NO_FUTEX
#define peft__pool_create condvar_pool_create
#define peft__pool_free condvar_pool_free
#define peft__pool_size condvar_pool_size
#define peft__pool_set_host condvar_pool_set_host
#define peft__pool_run condvar_pool_run
#define peft__mutex_create condvar_mutex_create
#define peft__mutex_free condvar_mutex_free
#define peft__mutex_lock condvar_mutex_lock
#define peft__mutex_unlock condvar_mutex_unlock
#include "base/threads.c"

#include "runner.h"

static void condvar_add(void *arg, int64_t task, int32_t worker) {
    (void)worker;
    atomic_fetch_add((_Atomic int64_t *)arg, task);
}

TEST(base_pool_condvar_wakes_and_finishes) {
    peft__mem *mem = runner_mem();
    peft__pool *p = NULL;
    CHECK_OK(peft__pool_create(mem, 3, &p));
    for (int round = 0; round < 5000; round++) {
        _Atomic int64_t sum = 0;
        peft__pool_run(p, condvar_add, &sum, 6);
        CHECK_INT(atomic_load(&sum), 15);
        if (round % 1000 == 0) { runner_sleep(0.003); }
    }
    runner_sleep(0.003);
    peft__pool_free(p);
}
