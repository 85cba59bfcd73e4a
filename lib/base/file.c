/* file.c - files: open read-only (mapped or copied), folders, and the atomic save.
 *
 * A save writes `<path>.tmp-<pid>-<counter>`, made with O_EXCL in the same folder, so that the rename is atomic and
 * neither two threads, two processes nor the litter of a killed one collide. Then fsync of the file, rename over the old
 * file, fsync of the folder: after a crash at any moment the path holds the whole old or the whole new file.
 *
 * Left out: appending, locks, following a symbolic link on save (the rename replaces the link). */
#include "base/system.h"

#include <errno.h>
#include <stdio.h>

#ifndef EDQUOT /* Windows has no such error */
#define EDQUOT (-1)
#endif

enum {
    FILE_TRIES = 10000,         /* temporary names before giving up */
    FILE_CHUNK = 1 << 30,       /* bytes of one read or write: some systems refuse 2 GiB and more */
};

/* ---- the system, and the seam that lets a test stand in for it -------------------------------------------------- */

static const peft__file_ops file_system = {peft__sys_read, peft__sys_write, peft__sys_sync, peft__sys_rename};
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
    peft__sys_info info;
    return peft__sys_stat(path, &info);
}

bool peft__path_starts(const char *path, const void *bytes, size_t n) {
    char head[16];
    int fd = n <= sizeof head ? peft__sys_open(path) : -1;
    if (fd < 0) { return false; }
    int64_t have = 0, got = 0;
    do { /* a read may be cut short, or broken off by a signal */
        got = peft__sys_read(fd, head + have, n - (size_t)have);
        have += PEFT__MAX(got, 0);
    } while ((got > 0 && (size_t)have < n) || (got < 0 && errno == EINTR));
    (void)peft__sys_close(fd);
    return (size_t)have == n && memcmp(head, bytes, n) == 0;
}

peft_status peft__path_no_lfs_pointer(const char *path) {
    peft_status st = PEFT_OK;
    if (peft__path_starts(path, "version https://", 16)) {
        FAIL(PEFT_E_FORMAT, "%s: this is a Git LFS pointer and not the file; git lfs pull fetches it", path);
    }
out:
    return st;
}

bool peft__path_is_dir(const char *path) {
    peft__sys_info info;
    return peft__sys_stat(path, &info) && info.kind == PEFT__SYS_FOLDER;
}

bool peft__text_ends(const char *text, const char *tail) {
    size_t n = strlen(text), m = strlen(tail);
    return n >= m && strcmp(text + n - m, tail) == 0;
}

const char *peft__path_name(const char *path) {
    const char *name = path;
    for (const char *p = path; *p != '\0'; p++) {
        if (peft__sys_is_separator(*p)) { name = p + 1; }
    }
    return name;
}

peft_status peft__path_join(peft__arena *a, const char *dir, const char *name, char **out) {
    size_t len = strlen(dir);
    const char *slash = len == 0 || peft__sys_is_separator(dir[len - 1]) ? "" : "/";
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
        if (part[i] != '\0' && !peft__sys_is_separator(part[i])) { continue; }
        char end = part[i];
        part[i] = '\0';
        if (peft__sys_make_folder(part) != 0) {
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
    return peft__sys_remove(path) == 0 ? PEFT_OK : file_fail(errno, "remove", path);
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
    int fd = peft__sys_open(path);
    if (fd < 0) { return file_fail(errno, "open", path); }
    peft__sys_info info;
    if (!peft__sys_fstat(fd, &info)) {
        st = file_fail(errno, "open", path);
        goto out;
    }
    if (info.kind == PEFT__SYS_FOLDER) { FAIL(PEFT_E_IO, "cannot open \"%s\": it is a folder, expected a file", path); }
    if (info.kind != PEFT__SYS_FILE) { FAIL(PEFT_E_IO, "cannot open \"%s\": it is no regular file", path); }
    if (info.size > PTRDIFF_MAX) { FAIL(PEFT_E_IO, "cannot open \"%s\": too large for the address space", path); }
    size_t size = (size_t)info.size;
    if (size == 0) {
        *out = (peft__file){.data = (const uint8_t *)""};
        goto out;
    }
    if (!copy) {
        void *data = peft__sys_map(fd, size);
        if (data != NULL) {
            *out = (peft__file){.data = data, .size = size, .mapped = true};
            goto out;
        }
        if (errno != ENODEV) { /* a file system that cannot map; reading still works */
            st = file_fail(errno, "map", path);
            goto out;
        }
    }
    TRY(file_copy(mem, fd, path, size, out));
out:
    (void)peft__sys_close(fd);
    return st;
}

void peft__file_close(peft__file *f) {
    void *data;
    memcpy(&data, &f->data, sizeof data); /* drops const: the bytes are ours to give back */
    if (f->mapped) {
        peft__sys_unmap(data, f->size);
    } else if (f->size > 0) {
        peft__free(f->mem, data, f->size);
    }
    *f = (peft__file){0};
}

size_t peft__file_resident(const peft__file *f) {
    return f->mapped ? peft__sys_resident(f->data, f->size) : 0;
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
    if (s->fd >= 0) { (void)peft__sys_close(s->fd); }
    if (!renamed) { (void)peft__sys_remove(save_temp(s)); }
    peft__free(s->mem, s, s->size);
}

peft_status peft__save_begin(peft__mem *mem, const char *path, peft__save **out) {
    peft__sys_info old;
    bool exists = peft__sys_stat(path, &old);
    if (exists && old.kind == PEFT__SYS_FOLDER) {
        return peft__fail(PEFT_E_IO, "cannot write \"%s\": it is a folder, expected a file", path);
    }
    size_t len = strlen(path), room = len + 40, size = sizeof(peft__save) + len + 1 + room;
    peft__save *s = peft__alloc(mem, size);
    if (!s) { return PEFT_E_NOMEM; }
    *s = (peft__save){.mem = mem, .fd = -1, .size = size, .temp_at = len + 1};
    memcpy(s->text, path, len + 1);
    for (int i = 0; i < FILE_TRIES && s->fd < 0; i++) {
        (void)snprintf(s->text + s->temp_at, room, "%s.tmp-%lld-%d", path, (long long)peft__sys_pid(), i);
        s->fd = peft__sys_create(save_temp(s));
        if (s->fd < 0 && errno != EEXIST) { break; }
    }
    if (s->fd < 0) {
        peft_status st = file_fail(errno, "write", path);
        peft__free(mem, s, size);
        return st;
    }
    if (exists) { peft__sys_set_rights(s->fd, old.rights); } /* a file that its owner had made private stays so */
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
    char *name = s->text + (peft__path_name(s->text) - s->text), first = *name;
    if (name == s->text) { return peft__sys_open_folder("."); }
    *name = '\0';
    int fd = peft__sys_open_folder(s->text);
    *name = first;
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
    int rc = peft__sys_close(s->fd); /* network file systems report a full disk only here */
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
    if (dir >= 0) { (void)peft__sys_close(dir); }
    save_drop(s, renamed);
    return st;
}

void peft__save_abort(peft__save *s) {
    if (s) { save_drop(s, false); }
}

peft_status peft__save_text(peft__mem *mem, const char *path, const char *text, size_t len) {
    peft__save *s = NULL;
    peft_status st = peft__save_begin(mem, path, &s);
    if (s == NULL) { return st; }
    st = peft__save_write(s, text, len);
    if (st != PEFT_OK) {
        peft__save_abort(s);
        return st;
    }
    return peft__save_commit(s);
}
