/* system.h - what base/ asks of the operating system: one set of functions, made by system_posix.c and files_posix.c, or by
 * system_windows.c and files_windows.c. Which of them a build has is decided inside those files, and nowhere else.
 *
 * Only base/ includes this. Functions of files fail with -1, NULL or false and with the reason in errno, whatever the
 * system; paths are UTF-8. peft__cpu_count and peft__clock (base.h) come from the system's files as well.
 *
 * Left out: the futex, which is Linux's alone and lies with its one user in threads.c. */
#ifndef PEFT_BASE_SYSTEM_H
#define PEFT_BASE_SYSTEM_H

#include "base/base.h"

/* ---- memory and process ------------------------------------------------------------------------------------------ */

/* `align`: a power of two, at least that of a pointer. `huge`: better backed by huge pages, which is only advice. */
void *peft__sys_alloc(size_t size, size_t align, bool huge);
void peft__sys_free(void *p);
int64_t peft__sys_pid(void);

/* ---- threads ----------------------------------------------------------------------------------------------------- */

#if !defined(PEFT_NO_THREADS)
#if defined(_WIN32)
typedef struct peft__sys_lock { void *srw; } peft__sys_lock;
typedef struct peft__sys_cond { void *variable; } peft__sys_cond;
#else
#include <pthread.h>
typedef struct peft__sys_lock { pthread_mutex_t mutex; } peft__sys_lock;
typedef struct peft__sys_cond { pthread_cond_t cond; } peft__sys_cond;
#endif

typedef void (*peft__sys_main)(void *arg);
typedef struct peft__sys_thread { /* stays where it is until it was joined */
    peft__sys_main fn;
    void *arg;
#if defined(_WIN32)
    void *handle;
#else
    pthread_t id;
#endif
} peft__sys_thread;

/* A thread that gets none of the process's signals; false if the system has no more. */
bool peft__sys_thread_start(peft__sys_thread *t, size_t stack, peft__sys_main fn, void *arg);
void peft__sys_thread_join(peft__sys_thread *t);
void peft__sys_yield(void);
bool peft__sys_lock_make(peft__sys_lock *l);
void peft__sys_lock_free(peft__sys_lock *l);
void peft__sys_lock_take(peft__sys_lock *l);
void peft__sys_lock_leave(peft__sys_lock *l);
bool peft__sys_cond_make(peft__sys_cond *c);
void peft__sys_cond_free(peft__sys_cond *c);
void peft__sys_cond_wait(peft__sys_cond *c, peft__sys_lock *l); /* may return without cause */
void peft__sys_cond_wake_all(peft__sys_cond *c);
#endif

/* ---- files ------------------------------------------------------------------------------------------------------- */

typedef enum peft__sys_kind { PEFT__SYS_FILE, PEFT__SYS_FOLDER, PEFT__SYS_OTHER } peft__sys_kind;
typedef struct peft__sys_info {
    peft__sys_kind kind;
    uint64_t size;    /* bytes */
    uint32_t rights;  /* POSIX's nine bits; 0 where the system has others */
} peft__sys_info;

bool peft__sys_is_separator(char c); /* of folders in a path */
bool peft__sys_stat(const char *path, peft__sys_info *out);
int peft__sys_make_folder(const char *path); /* its parent must be there */
int peft__sys_remove(const char *path);
/* Over whatever file is there, in one step: a reader of `to` finds the old or the new one. */
int peft__sys_rename(const char *from, const char *to);
/* Where a symbolic link leads, as it says, with a NUL and cut to room; false if path is none. */
bool peft__sys_read_link(const char *path, char *out, size_t room);

int peft__sys_open(const char *path);        /* to read, any kind of file, without waiting for a pipe's writer */
int peft__sys_create(const char *path);      /* to write, a new file: EEXIST if there is one */
int peft__sys_open_folder(const char *path); /* to sync it; -1 as well where the system does not do that */
bool peft__sys_fstat(int fd, peft__sys_info *out);
void peft__sys_set_rights(int fd, uint32_t rights); /* best effort */
int64_t peft__sys_read(int fd, void *data, size_t size);
int64_t peft__sys_write(int fd, const void *data, size_t size);
int peft__sys_sync(int fd);
int peft__sys_close(int fd);

/* Maps a whole file of `size` bytes, read-only; ENODEV: this file system cannot, reading works. */
void *peft__sys_map(int fd, size_t size);
void peft__sys_unmap(void *data, size_t size);
size_t peft__sys_resident(const void *data, size_t size); /* bytes of a mapping that are in memory now */

#endif
