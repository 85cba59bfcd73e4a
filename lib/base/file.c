/* file.c - files: open read-only (mapped or copied), folders, and the atomic save.
 *
 * A save writes `<path>.tmp-<pid>-<counter>`, made with O_EXCL in the same folder, so that the rename is atomic and
 * neither two threads, two processes nor the litter of a killed one collide. Then fsync of the file, rename over the old
 * file, fsync of the folder: after a crash at any moment the path holds the whole old or the whole new file.
 *
 * Left out: appending, locks, following a symbolic link on save (the rename replaces the link). */
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef O_CLOEXEC
#define O_CLOEXEC 0
#endif

enum {
    FILE_TRIES = 10000,         /* temporary names before giving up */
    FILE_CHUNK = 1 << 30,       /* bytes of one read or write: some systems refuse 2 GiB and more */
    FILE_PAGES = 4096,          /* pages asked about by one mincore */
};

/* ---- the system, and the seam that lets a test stand in for it -------------------------------------------------- */

static int64_t file_sys_read(int fd, void *data, size_t size) {
    return (int64_t)read(fd, data, size);
}

static int64_t file_sys_write(int fd, const void *data, size_t size) {
    return (int64_t)write(fd, data, size);
}

static int file_sys_sync(int fd) {
    return fsync(fd);
}

static int file_sys_rename(const char *from, const char *to) {
    return rename(from, to);
}

static const peft__file_ops file_system = {file_sys_read, file_sys_write, file_sys_sync, file_sys_rename};
static _Thread_local const peft__file_ops *file_ops; /* NULL: file_system; only tests set it */

const peft__file_ops *peft__file_set_ops(const peft__file_ops *ops) {
    const peft__file_ops *before = file_ops ? file_ops : &file_system;
    file_ops = ops;
    return before;
}

static const peft__file_ops *file_use(void) {
    return file_ops ? file_ops : &file_system;
}

/* Texts of our own: strerror depends on the locale and may share a buffer between threads. */
static const char *file_reason(int error, char buf[32]) {
    switch (error) {
        case EACCES: case EPERM: return "permission denied";
        case EBUSY: return "the file is in use";
        case EDQUOT: return "the disk quota is used up";
        case EEXIST: return "the file exists";
        case EFBIG: return "the file would be larger than the system allows";
        case EINVAL: return "not possible on this file system";
        case EIO: return "input/output error of the device";
        case EISDIR: return "it is a folder";
        case ELOOP: return "too many symbolic links";
        case EMFILE: case ENFILE: return "too many open files";
        case ENAMETOOLONG: return "the name is too long";
        case ENOENT: return "no such file or folder";
        case ENOMEM: return "the system is out of memory";
        case ENOSPC: return "no space left on the device";
        case ENOTDIR: return "a part of the path is no folder";
        case ENOTEMPTY: return "the folder is not empty";
        case EROFS: return "the file system is read-only";
        default: break;
    }
    (void)snprintf(buf, 32, "system error %d", error);
    return buf;
}

static peft_status file_fail(int error, const char *verb, const char *path) {
    char buf[32];
    peft_status code = error == ENOENT || error == ENOTDIR ? PEFT_E_NOT_FOUND : PEFT_E_IO;
    return peft__fail(code, "cannot %s \"%s\": %s", verb, path, file_reason(error, buf));
}

/* ---- paths and folders ---------------------------------------------------------------------------------------- */

bool peft__path_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0;
}

bool peft__path_starts(const char *path, const void *bytes, size_t n) {
    char head[16];
    int fd = n <= sizeof head ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    if (fd < 0) { return false; }
    bool yes = read(fd, head, n) == (ssize_t)n && memcmp(head, bytes, n) == 0;
    (void)close(fd);
    return yes;
}

bool peft__path_is_dir(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

peft_status peft__path_join(peft__arena *a, const char *dir, const char *name, char **out) {
    size_t len = strlen(dir);
    const char *slash = len == 0 || dir[len - 1] == '/' ? "" : "/";
    char *path = peft__arena_printf(a, "%s%s%s", dir, slash, name);
    if (!path) { return PEFT_E_NOMEM; }
    *out = path;
    return PEFT_OK;
}

peft_status peft__dir_make(const char *path) {
    char part[4096];
    size_t len = strlen(path);
    if (len == 0 || len >= sizeof part) {
        return peft__fail(PEFT_E_IO, "cannot make the folder \"%.200s\": a path of %zu bytes, expected 1 to %zu", path,
                          len, sizeof part - 1);
    }
    memcpy(part, path, len + 1);
    for (size_t i = 1; i <= len; i++) {
        if (part[i] != '/' && part[i] != '\0') { continue; }
        char end = part[i];
        part[i] = '\0';
        if (mkdir(part, 0777) != 0) {
            int error = errno; /* EROFS or EACCES may hide that it exists: only the look-up decides */
            if (!peft__path_is_dir(part)) {
                return error == EEXIST ? peft__fail(PEFT_E_IO, "cannot make the folder \"%s\": it is a file", part)
                                       : file_fail(error, "make the folder", part);
            }
        }
        part[i] = end;
    }
    return PEFT_OK;
}

peft_status peft__file_remove(const char *path) {
    return unlink(path) == 0 ? PEFT_OK : file_fail(errno, "remove", path);
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

static peft_status file_copy(peft__mem *mem, int fd, const char *path, size_t size, peft__file *out) {
    peft_status st = PEFT_OK;
    size_t have = 0;
    uint8_t *data = peft__alloc(mem, size);
    if (!data) { FAIL(PEFT_E_NOMEM, "out of memory: \"%s\" has %zu bytes", path, size); }
    while (have < size) {
        int64_t n = file_use()->read(fd, data + have, PEFT__MIN(size - have, (size_t)FILE_CHUNK));
        if (n < 0 && errno == EINTR) { continue; }
        if (n < 0) {
            st = file_fail(errno, "read", path);
            goto out;
        }
        if (n == 0) { FAIL(PEFT_E_IO, "\"%s\" became shorter while it was read: %zu of %zu bytes", path, have, size); }
        have += (size_t)n;
    }
    *out = (peft__file){.data = data, .size = size, .mem = mem};
out:
    if (st != PEFT_OK) { peft__free(mem, data, size); }
    return st;
}

peft_status peft__file_open(peft__mem *mem, const char *path, bool copy, peft__file *out) {
    peft_status st = PEFT_OK;
    /* O_NONBLOCK: opening a pipe must not wait for its writer, it is refused below. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) { return file_fail(errno, "open", path); }
    struct stat info;
    if (fstat(fd, &info) != 0) {
        st = file_fail(errno, "open", path);
        goto out;
    }
    if (S_ISDIR(info.st_mode)) { FAIL(PEFT_E_IO, "cannot open \"%s\": it is a folder, expected a file", path); }
    if (!S_ISREG(info.st_mode)) { FAIL(PEFT_E_IO, "cannot open \"%s\": it is no regular file", path); }
    if ((uintmax_t)info.st_size > PTRDIFF_MAX) {
        FAIL(PEFT_E_IO, "cannot open \"%s\": too large for the address space", path);
    }
    size_t size = (size_t)info.st_size;
    if (size == 0) {
        *out = (peft__file){.data = (const uint8_t *)""};
        goto out;
    }
    if (!copy) {
        void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data != MAP_FAILED) {
            *out = (peft__file){.data = data, .size = size, .mapped = true};
            goto out;
        }
        if (errno != ENODEV) { /* ENODEV: a file system that cannot map; reading still works */
            st = file_fail(errno, "map", path);
            goto out;
        }
    }
    TRY(file_copy(mem, fd, path, size, out));
out:
    close(fd);
    return st;
}

void peft__file_close(peft__file *f) {
    void *data;
    memcpy(&data, &f->data, sizeof data); /* drops const: the bytes are ours to give back */
    if (f->mapped) {
        munmap(data, f->size);
    } else if (f->size > 0) {
        peft__free(f->mem, data, f->size);
    }
    *f = (peft__file){0};
}

size_t peft__file_resident(const peft__file *f) {
    if (!f->mapped) { return 0; }
    long page_size = sysconf(_SC_PAGESIZE);
    size_t page = page_size > 0 ? (size_t)page_size : 4096, resident = 0;
    void *data;
    memcpy(&data, &f->data, sizeof data);
    for (size_t at = 0; at < f->size; at += page * FILE_PAGES) {
#if defined(__APPLE__)
        char in[FILE_PAGES];
#else
        unsigned char in[FILE_PAGES];
#endif
        size_t span = PEFT__MIN(f->size - at, page * FILE_PAGES);
        if (mincore((char *)data + at, span, in) != 0) { return 0; }
        for (size_t i = 0; i * page < span; i++) {
            if (in[i] & 1) { resident += PEFT__MIN(page, span - i * page); }
        }
    }
    return resident;
}

/* ---- saving --------------------------------------------------------------------------------------------------- */

struct peft__save {
    peft__mem *mem;  /* borrowed */
    int fd;          /* of the temporary file */
    int error;       /* errno of the first write that failed; 0: none */
    size_t size;     /* bytes of this block, with both paths */
    size_t temp_at;  /* offset of the temporary path in text */
    char text[];     /* the path, NUL, the temporary path, NUL */
};

static const char *save_temp(const peft__save *s) {
    return s->text + s->temp_at;
}

/* Frees s; removes the temporary file unless it has become the real one. */
static void save_drop(peft__save *s, bool renamed) {
    if (s->fd >= 0) { close(s->fd); }
    if (!renamed) { unlink(save_temp(s)); }
    peft__free(s->mem, s, s->size);
}

peft_status peft__save_begin(peft__mem *mem, const char *path, peft__save **out) {
    struct stat old;
    bool exists = stat(path, &old) == 0;
    if (exists && S_ISDIR(old.st_mode)) {
        return peft__fail(PEFT_E_IO, "cannot write \"%s\": it is a folder, expected a file", path);
    }
    size_t len = strlen(path), room = len + 40, size = sizeof(peft__save) + len + 1 + room;
    peft__save *s = peft__alloc(mem, size);
    if (!s) { return PEFT_E_NOMEM; }
    *s = (peft__save){.mem = mem, .fd = -1, .size = size, .temp_at = len + 1};
    memcpy(s->text, path, len + 1);
    for (int i = 0; i < FILE_TRIES && s->fd < 0; i++) {
        (void)snprintf(s->text + s->temp_at, room, "%s.tmp-%ld-%d", path, (long)getpid(), i);
        s->fd = open(save_temp(s), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (s->fd < 0 && errno != EEXIST) { break; }
    }
    if (s->fd < 0) {
        peft_status st = file_fail(errno, "write", path);
        peft__free(mem, s, size);
        return st;
    }
    /* Best effort: a file that its owner had made private stays so. */
    if (exists && fchmod(s->fd, old.st_mode & 0777) != 0) { errno = 0; }
    *out = s;
    return PEFT_OK;
}

peft_status peft__save_write(peft__save *s, const void *data, size_t size) {
    const char *bytes = data;
    while (size > 0 && s->error == 0) {
        int64_t n = file_use()->write(s->fd, bytes, PEFT__MIN(size, (size_t)FILE_CHUNK));
        if (n < 0 && errno == EINTR) { continue; }
        if (n <= 0) {
            s->error = n < 0 ? errno : ENOSPC;
            break;
        }
        bytes += n;
        size -= (size_t)n;
    }
    return s->error ? file_fail(s->error, "write", s->text) : PEFT_OK;
}

/* The folder that holds the file, opened before the rename: afterwards a failure to open it could not be undone. */
static int save_open_dir(peft__save *s) {
    char *slash = strrchr(s->text, '/');
    if (!slash) { return open(".", O_RDONLY | O_CLOEXEC); }
    if (slash == s->text) { return open("/", O_RDONLY | O_CLOEXEC); }
    *slash = '\0';
    int fd = open(s->text, O_RDONLY | O_CLOEXEC);
    *slash = '/';
    return fd;
}

static int save_sync(int fd) {
    int rc;
    do {
        rc = file_use()->sync(fd);
    } while (rc != 0 && errno == EINTR);
    return rc;
}

peft_status peft__save_commit(peft__save *s) {
    peft_status st = PEFT_OK;
    bool renamed = false;
    int dir = -1;
    if (s->error) {
        st = file_fail(s->error, "write", s->text);
        goto out;
    }
    /* EINVAL: a file system without fsync. Its loss in a crash is no error that a retry could cure. */
    if (save_sync(s->fd) != 0 && errno != EINVAL) {
        st = file_fail(errno, "write", s->text);
        goto out;
    }
    int rc = close(s->fd); /* network file systems report a full disk only here */
    s->fd = -1;
    if (rc != 0 && errno != EINTR) {
        st = file_fail(errno, "write", s->text);
        goto out;
    }
    dir = save_open_dir(s); /* a folder that may be written but not read cannot be synced: not an error */
    if (file_use()->rename(save_temp(s), s->text) != 0) {
        st = file_fail(errno, "replace", s->text);
        goto out;
    }
    renamed = true;
    if (dir >= 0 && save_sync(dir) != 0 && errno != EINVAL && errno != EBADF) {
        st = file_fail(errno, "make durable", s->text);
    }
out:
    if (dir >= 0) { close(dir); }
    save_drop(s, renamed);
    return st;
}

void peft__save_abort(peft__save *s) {
    if (s) { save_drop(s, false); }
}

peft_status peft__save_text(peft__mem *mem, const char *path, const char *text, size_t len) {
    peft__save *s = NULL;
    peft_status st = peft__save_begin(mem, path, &s);
    if (st != PEFT_OK) { return st; }
    st = peft__save_write(s, text, len);
    if (st != PEFT_OK) {
        peft__save_abort(s);
        return st;
    }
    return peft__save_commit(s);
}
