/* files_posix.c - files by POSIX: Linux, macOS, the BSDs.
 *
 * Left out: retries after a signal (EINTR), which file.c does for all systems. */
#ifndef _FILE_OFFSET_BITS
#define _FILE_OFFSET_BITS 64 /* a file of 3 GB is refused as too large on 32 bits, not as one that cannot be opened */
#endif
#include "base/system.h"

#if !defined(_WIN32)

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef O_CLOEXEC
#define O_CLOEXEC 0
#endif

enum { FILES_PAGES = 4096 /* asked about by one mincore */ };

/* ---- by path -------------------------------------------------------------------------------------------------- */

bool peft__sys_is_separator(char c) {
    return c == '/';
}

static void files_info(const struct stat *from, peft__sys_info *to) {
    to->kind = S_ISDIR(from->st_mode) ? PEFT__SYS_FOLDER : S_ISREG(from->st_mode) ? PEFT__SYS_FILE : PEFT__SYS_OTHER;
    to->size = (uint64_t)from->st_size;
    to->rights = (uint32_t)from->st_mode & 0777;
}

bool peft__sys_stat(const char *path, peft__sys_info *out) {
    struct stat info;
    if (stat(path, &info) != 0) { return false; }
    files_info(&info, out);
    return true;
}

int peft__sys_make_folder(const char *path) {
    return mkdir(path, 0777);
}

int peft__sys_remove(const char *path) {
    return unlink(path);
}

int peft__sys_rename(const char *from, const char *to) {
    return rename(from, to);
}

bool peft__sys_read_link(const char *path, char *out, size_t room) {
    ssize_t len = readlink(path, out, room - 1);
    if (len < 0) { return false; }
    out[len] = '\0';
    return true;
}

/* ---- by descriptor -------------------------------------------------------------------------------------------- */

int peft__sys_open(const char *path) {
    return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

int peft__sys_create(const char *path) {
    return open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
}

int peft__sys_open_folder(const char *path) {
    return open(path, O_RDONLY | O_CLOEXEC);
}

bool peft__sys_fstat(int fd, peft__sys_info *out) {
    struct stat info;
    if (fstat(fd, &info) != 0) { return false; }
    files_info(&info, out);
    return true;
}

void peft__sys_set_rights(int fd, uint32_t rights) {
    if (fchmod(fd, (mode_t)rights) != 0) { errno = 0; }
}

int64_t peft__sys_read(int fd, void *data, size_t size) {
    return (int64_t)read(fd, data, size);
}

int64_t peft__sys_write(int fd, const void *data, size_t size) {
    return (int64_t)write(fd, data, size);
}

int peft__sys_sync(int fd) {
    return fsync(fd);
}

int peft__sys_close(int fd) {
    return close(fd);
}

/* ---- mappings ------------------------------------------------------------------------------------------------- */

void *peft__sys_map(int fd, size_t size) {
    void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    return data == MAP_FAILED ? NULL : data;
}

void peft__sys_unmap(void *data, size_t size) {
    munmap(data, size);
}

size_t peft__sys_resident(const void *data, size_t size) {
    long page_size = sysconf(_SC_PAGESIZE);
    size_t page = page_size > 0 ? (size_t)page_size : 4096, resident = 0;
    char *begin;
    memcpy(&begin, &data, sizeof begin); /* drops const: mincore reads nothing there */
    for (size_t at = 0; at < size; at += page * FILES_PAGES) {
#if defined(__APPLE__)
        char in[FILES_PAGES];
#else
        unsigned char in[FILES_PAGES];
#endif
        size_t span = PEFT__MIN(size - at, page * FILES_PAGES);
        if (mincore(begin + at, span, in) != 0) { return 0; }
        for (size_t i = 0; i * page < span; i++) {
            if (in[i] & 1) { resident += PEFT__MIN(page, span - i * page); }
        }
    }
    return resident;
}

#endif
