/* threads.c once more, as PEFT_NO_THREADS makes it: the caller does all tasks in order, or the host does. */
#define PEFT_NO_THREADS
#define peft__pool_create serial_pool_create
#define peft__pool_free serial_pool_free
#define peft__pool_size serial_pool_size
#define peft__pool_set_host serial_pool_set_host
#define peft__pool_run serial_pool_run
#define peft__mutex_create serial_mutex_create
#define peft__mutex_free serial_mutex_free
#define peft__mutex_lock serial_mutex_lock
#define peft__mutex_unlock serial_mutex_unlock
#include "base/threads.c"

#include "runner.h"

static void serial_note(void *arg, int64_t task, int32_t worker) {
    int64_t *next = arg;
    *next = *next == task && worker == 0 ? task + 1 : -1;
}

static void serial_host(void *user, int64_t n, int32_t workers, void (*body)(void *, int64_t, int32_t), void *arg) {
    *(int32_t *)user = workers;
    for (int64_t i = 0; i < n; i++) { body(arg, i, 0); }
}

TEST(base_pool_serial_keeps_the_order) {
    peft__mem *mem = runner_mem();
    peft__pool *p = NULL;
    CHECK_STATUS(peft__pool_create(mem, 0, &p), PEFT_E_INVALID);
    CHECK_OK(peft__pool_create(mem, 4, &p));
    CHECK_INT(peft__pool_size(p), 4);
    int64_t next = 0;
    peft__pool_run(p, serial_note, &next, 100);
    CHECK_INT(next, 100);
    int32_t workers = 0;
    peft__pool_set_host(p, serial_host, &workers);
    next = 0;
    peft__pool_run(p, serial_note, &next, 10);
    CHECK_INT(next, 10);
    CHECK_INT(workers, 4);
    peft__pool_free(p);
    peft__mutex *m = NULL;
    CHECK_OK(peft__mutex_create(mem, &m));
    peft__mutex_lock(m);
    peft__mutex_unlock(m);
    peft__mutex_free(mem, m);
}
