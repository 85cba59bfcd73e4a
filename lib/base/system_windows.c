/* system_windows.c - memory, threads, processors and clock by the Windows API: nothing but KERNEL32 and the C library.
 *
 * Locks are SRWLOCKs and sleeping workers wait on a CONDITION_VARIABLE: both are one pointer, need no clean-up, and are in
 * Windows since Vista. Works on Windows 7 and later.
 *
 * Left out: large pages, which take a privilege that programs do not have; WaitOnAddress, which needs another DLL. */
#include "base/system.h"

#if defined(_WIN32)

#include <malloc.h>
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>

/* ---- memory and process --------------------------------------------------------------------------------------- */

void *peft__sys_alloc(size_t size, size_t align, bool huge) {
    (void)huge;
    return _aligned_malloc(size, align);
}

void peft__sys_free(void *p) {
    _aligned_free(p);
}

int64_t peft__sys_pid(void) {
    return (int64_t)GetCurrentProcessId();
}

/* ---- processors and clock ------------------------------------------------------------------------------------- */

int32_t peft__cpu_count(void) {
    DWORD_PTR mine = 0, all = 0;
    int32_t n = 0;
    /* A mask covers one group of up to 64 processors; a process of several groups has no mask to go by. */
    if (GetActiveProcessorGroupCount() == 1 && GetProcessAffinityMask(GetCurrentProcess(), &mine, &all)) {
        for (; mine != 0; mine &= mine - 1) { n++; }
    }
    if (n == 0) { n = (int32_t)GetActiveProcessorCount(ALL_PROCESSOR_GROUPS); }
    return n > 0 ? n : 1;
}

double peft__clock(void) {
    LARGE_INTEGER now, rate; /* neither call fails since Windows XP */
    QueryPerformanceCounter(&now);
    QueryPerformanceFrequency(&rate);
    return (double)now.QuadPart / (double)rate.QuadPart;
}

/* ---- threads -------------------------------------------------------------------------------------------------- */

#if !defined(PEFT_NO_THREADS)

_Static_assert(sizeof(peft__sys_lock) == sizeof(SRWLOCK), "a lock is an SRWLOCK");
_Static_assert(sizeof(peft__sys_cond) == sizeof(CONDITION_VARIABLE), "a condition is a CONDITION_VARIABLE");

static DWORD WINAPI windows_main(LPVOID arg) {
    const peft__sys_thread *t = arg;
    t->fn(t->arg);
    return 0;
}

bool peft__sys_thread_start(peft__sys_thread *t, size_t stack, peft__sys_main fn, void *arg) {
    t->fn = fn;
    t->arg = arg;
    t->handle = CreateThread(NULL, stack, windows_main, t, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    return t->handle != NULL;
}

void peft__sys_thread_join(peft__sys_thread *t) {
    (void)WaitForSingleObject(t->handle, INFINITE);
    (void)CloseHandle(t->handle);
}

void peft__sys_yield(void) {
    (void)SwitchToThread();
}

bool peft__sys_lock_make(peft__sys_lock *l) {
    InitializeSRWLock((SRWLOCK *)(void *)l);
    return true;
}

void peft__sys_lock_free(peft__sys_lock *l) {
    (void)l;
}

void peft__sys_lock_take(peft__sys_lock *l) {
    AcquireSRWLockExclusive((SRWLOCK *)(void *)l);
}

void peft__sys_lock_leave(peft__sys_lock *l) {
    ReleaseSRWLockExclusive((SRWLOCK *)(void *)l);
}

bool peft__sys_cond_make(peft__sys_cond *c) {
    InitializeConditionVariable((CONDITION_VARIABLE *)(void *)c);
    return true;
}

void peft__sys_cond_free(peft__sys_cond *c) {
    (void)c;
}

void peft__sys_cond_wait(peft__sys_cond *c, peft__sys_lock *l) {
    (void)SleepConditionVariableSRW((CONDITION_VARIABLE *)(void *)c, (SRWLOCK *)(void *)l, INFINITE, 0);
}

void peft__sys_cond_wake_all(peft__sys_cond *c) {
    WakeAllConditionVariable((CONDITION_VARIABLE *)(void *)c);
}

#endif
#undef near /* words of ours, which Microsoft's headers take away from what follows in an amalgamation */
#undef far
#endif
