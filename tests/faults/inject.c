/* inject.c - a library for LD_PRELOAD that makes one call of the system fail: of those that concern files below a folder.
 *
 *   FAULT_UNDER   the folder; calls for other files pass
 *   FAULT_AT      which of the calls fails, from 1; 0: none
 *   FAULT_HOW     EIO, ENOSPC, EINTR, or short: a read or write of one byte less than asked, but at least one
 *   FAULT_LOG     file that gets a line "NUMBER CALL PATH" for each call
 *
 * Linux and glibc only. Left out: calls that libpeft does not make. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FDS = 1024, PATH = 4096 };
static char watched[FDS][256]; /* what each descriptor is of; "": not watched */
static long count;

#define NEXT(name) ((__typeof__(&name))(uintptr_t)dlsym(RTLD_NEXT, #name))

static const char *under(void) { return getenv("FAULT_UNDER"); }

static int concerns(const char *path) {
    const char *folder = under();
    return folder != NULL && path != NULL && strncmp(path, folder, strlen(folder)) == 0;
}

/* Counts a call; is it the one that fails? */
static int fails(const char *call, const char *path) {
    const char *at = getenv("FAULT_AT"), *log = getenv("FAULT_LOG");
    count++;
    if (log != NULL) {
        char line[PATH];
        int n = snprintf(line, sizeof line, "%ld %s %s\n", count, call, path);
        int fd = NEXT(open)(log, O_WRONLY | O_CREAT | O_APPEND, 0666);
        if (fd >= 0 && NEXT(write)(fd, line, (size_t)n) != n) { abort(); }
        if (fd >= 0) { NEXT(close)(fd); }
    }
    return at != NULL && atol(at) == count;
}

static int is(const char *how) {
    const char *asked = getenv("FAULT_HOW");
    return asked != NULL && strcmp(asked, how) == 0;
}

static int refuse(void) {
    errno = is("ENOSPC") ? ENOSPC : is("EINTR") ? EINTR : EIO;
    return -1;
}

static int watch(int fd, const char *path) {
    if (fd >= 0 && fd < FDS) { snprintf(watched[fd], sizeof watched[fd], "%s", path); }
    return fd;
}

static const char *of(int fd) { return fd >= 0 && fd < FDS && watched[fd][0] != '\0' ? watched[fd] : NULL; }

int open(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = flags & O_CREAT ? va_arg(list, mode_t) : 0;
    va_end(list);
    if (!concerns(path)) { return NEXT(open)(path, flags, mode); }
    if (fails("open", path)) { return refuse(); }
    return watch(NEXT(open)(path, flags, mode), path);
}

int open64(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = flags & O_CREAT ? va_arg(list, mode_t) : 0;
    va_end(list);
    return open(path, flags, mode);
}

int close(int fd) {
    const char *path = of(fd);
    int failed = path != NULL && fails("close", path);
    if (path != NULL) { watched[fd][0] = '\0'; }
    int rc = NEXT(close)(fd); /* the descriptor is gone even so, as on Linux */
    return failed ? refuse() : rc;
}

ssize_t read(int fd, void *data, size_t size) {
    if (of(fd) != NULL && fails("read", of(fd))) {
        if (!is("short")) { return refuse(); }
        size = size > 1 ? size - 1 : size;
    }
    return NEXT(read)(fd, data, size);
}

ssize_t write(int fd, const void *data, size_t size) {
    if (of(fd) != NULL && fails("write", of(fd))) {
        if (!is("short")) { return refuse(); }
        size = size > 1 ? size - 1 : size;
    }
    return NEXT(write)(fd, data, size);
}

int fsync(int fd) {
    if (of(fd) != NULL && fails("fsync", of(fd))) { return refuse(); }
    return NEXT(fsync)(fd);
}

int ftruncate(int fd, off_t size) {
    if (of(fd) != NULL && fails("ftruncate", of(fd))) { return refuse(); }
    return NEXT(ftruncate)(fd, size);
}

int rename(const char *from, const char *to) {
    if (concerns(to) && fails("rename", to)) { return refuse(); }
    return NEXT(rename)(from, to);
}

int mkdir(const char *path, mode_t mode) {
    if (concerns(path) && fails("mkdir", path)) { return refuse(); }
    return NEXT(mkdir)(path, mode);
}

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    if (of(fd) != NULL && fails("mmap", of(fd))) {
        refuse();
        return MAP_FAILED;
    }
    return NEXT(mmap)(at, size, protection, flags, fd, offset);
}

int fstat(int fd, struct stat *out) {
    if (of(fd) != NULL && fails("fstat", of(fd))) { return refuse(); }
    return NEXT(fstat)(fd, out);
}
