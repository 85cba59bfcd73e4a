/* Files: opening, folders, and saves that are whole or nothing under a full disk, a failing device and no memory. */
#include "base/system.h"
#include "runner.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#if !defined(_WIN32)
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

static int file_count_entries(const char *dir) {
    int n = 0;
    DIR *d = opendir(dir);
    if (!d) { return -1; }
    for (const struct dirent *e; (e = readdir(d)) != NULL;) { n += e->d_name[0] != '.'; }
    closedir(d);
    return n;
}

/* Whether the file holds exactly this text, by both ways of reading it. */
static bool file_holds(const char *path, const char *text) {
    peft__mem mem;
    peft__mem_init(&mem, NULL);
    bool same = true;
    for (int copy = 0; copy < 2; copy++) {
        peft__file f;
        if (peft__file_open(&mem, path, copy, &f) != PEFT_OK) { return false; }
        same = same && f.size == strlen(text) && memcmp(f.data, text, f.size) == 0;
        peft__file_close(&f);
    }
    return same && atomic_load(&mem.now) == 0;
}

TEST(base_file_opens_mapped_and_copied) {
    peft__mem *mem = runner_mem();
    const char *path = runner_path(runner_tmpdir(), "data.bin");
    CHECK_OK(peft__save_text(mem, path, "hello world", 11));
    peft__file f;
    CHECK_OK(peft__file_open(mem, path, false, &f));
    CHECK(f.mapped);
    CHECK_INT(f.size, 11);
    CHECK_MEM(f.data, "hello world", 11);
    CHECK_INT(atomic_load(&mem->now), 0);
    CHECK_INT(peft__file_resident(&f), 11);
    peft__file_close(&f);
    CHECK(f.data == NULL);
    CHECK_OK(peft__file_open(mem, path, true, &f));
    CHECK(!f.mapped);
    CHECK_INT(atomic_load(&mem->now), 11);
    CHECK_INT(peft__file_resident(&f), 0);
    CHECK_MEM(f.data, "hello world", 11);
    peft__file_close(&f);
    peft__file_close(&f); /* a closed one is empty */
}

TEST(base_file_empty_has_data) {
    peft__mem *mem = runner_mem();
    const char *path = runner_path(runner_tmpdir(), "empty");
    CHECK_OK(peft__save_text(mem, path, "", 0));
    for (int copy = 0; copy < 2; copy++) {
        peft__file f;
        CHECK_OK(peft__file_open(mem, path, copy, &f));
        CHECK_INT(f.size, 0);
        CHECK(f.data != NULL);
        peft__file_close(&f);
    }
}

TEST(base_file_refusals_name_the_path) {
    peft__mem *mem = runner_mem();
    const char *dir = runner_tmpdir(), *path = runner_path(dir, "missing.bin");
    peft__file f;
    CHECK_STATUS(peft__file_open(mem, path, false, &f), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("missing.bin\": no such file or folder");
    CHECK_STATUS(peft__file_open(mem, dir, false, &f), PEFT_E_IO);
    CHECK_ERROR_HAS(dir);
    CHECK_ERROR_HAS("it is a folder, expected a file");
    CHECK_OK(peft__save_text(mem, path, "x", 1));
    CHECK_STATUS(peft__file_open(mem, runner_path(path, "below"), false, &f), PEFT_E_NOT_FOUND);
#if !defined(_WIN32) /* knows one error for both, no pipes among the files, and no rights of this kind */
    CHECK_ERROR_HAS("a part of the path is no folder");
    const char *fifo = runner_path(dir, "pipe");
    CHECK_INT(mkfifo(fifo, 0600), 0);
    CHECK_STATUS(peft__file_open(mem, fifo, false, &f), PEFT_E_IO); /* and does not hang */
    CHECK_ERROR_HAS("no regular file");
    if (geteuid() != 0) {
        CHECK_INT(chmod(path, 0), 0);
        CHECK_STATUS(peft__file_open(mem, path, false, &f), PEFT_E_IO);
        CHECK_ERROR_HAS("permission denied");
    }
#endif
}

TEST(base_file_copy_without_memory) {
    peft__mem *mem = runner_mem();
    const char *path = runner_path(runner_tmpdir(), "data.bin");
    CHECK_OK(peft__save_text(mem, path, "abc", 3));
    peft__file f;
    peft__mem_fail_after(mem, 1, false);
    CHECK_STATUS(peft__file_open(mem, path, true, &f), PEFT_E_NOMEM);
    CHECK_ERROR_HAS("data.bin\" has 3 bytes");
}

TEST(base_file_resident_counts_pages) {
    peft__mem *mem = runner_mem();
    const char *path = runner_path(runner_tmpdir(), "big.bin");
    size_t size = (size_t)20 << 20; /* more than one question to the system */
    char *data = peft__alloc_zero(mem, size + 100);
    CHECK(data != NULL);
    CHECK_OK(peft__save_text(mem, path, data, size + 100));
    peft__free(mem, data, size + 100);
    peft__file f;
    CHECK_OK(peft__file_open(mem, path, false, &f));
    CHECK(peft__file_resident(&f) <= size + 100);
    unsigned sum = 0;
    for (size_t i = 0; i < f.size; i += 4096) { sum += f.data[i]; }
    CHECK_INT(sum, 0);
    CHECK(peft__file_resident(&f) > size / 2); /* memory pressure may take some back */
    peft__file_close(&f);
}

TEST(base_paths) {
    peft__mem *mem = runner_mem();
    peft__arena a;
    peft__arena_init(&a, mem);
    char *path = NULL;
    CHECK_OK(peft__path_join(&a, "dir", "name", &path));
    CHECK_STR(path, "dir/name");
    CHECK_OK(peft__path_join(&a, "dir/", "name", &path));
    CHECK_STR(path, "dir/name");
    CHECK_OK(peft__path_join(&a, "", "name", &path));
    CHECK_STR(path, "name");
    CHECK_OK(peft__path_join(&a, "/", "name", &path));
    CHECK_STR(path, "/name");
    peft__arena_free(&a);
    peft__mem_fail_after(mem, 1, false);
    CHECK_STATUS(peft__path_join(&a, "dir", "name", &path), PEFT_E_NOMEM);
    peft__arena_free(&a);
}

TEST(base_dir_make_with_parents) {
    peft__mem *mem = runner_mem();
    const char *dir = runner_tmpdir(), *deep = runner_path(dir, "a/b/c");
    CHECK(!peft__path_exists(deep));
    CHECK_OK(peft__dir_make(deep));
    CHECK(peft__path_is_dir(deep));
    CHECK_OK(peft__dir_make(deep));
    CHECK_OK(peft__dir_make(runner_path(dir, "a/b/c/d/")));
    CHECK(peft__path_is_dir(runner_path(dir, "a/b/c/d")));
    const char *file = runner_path(dir, "file");
    CHECK_OK(peft__save_text(mem, file, "x", 1));
    CHECK(peft__path_exists(file) && !peft__path_is_dir(file));
    CHECK_STATUS(peft__dir_make(file), PEFT_E_IO);
    CHECK_ERROR_HAS("it is a file");
    CHECK(peft__dir_make(runner_path(file, "below")) != PEFT_OK);
    CHECK_STATUS(peft__dir_make(""), PEFT_E_IO);
    char name[5000];
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    CHECK_STATUS(peft__dir_make(name), PEFT_E_IO);
    name[300] = '\0';
#if !defined(_WIN32) /* calls it a name that cannot be */
    CHECK_STATUS(peft__dir_make(runner_path(dir, name)), PEFT_E_IO);
    CHECK_ERROR_HAS("the name is too long");
#else
    CHECK(peft__dir_make(runner_path(dir, name)) != PEFT_OK);
#endif
}

TEST(base_file_remove_says_what_was_missing) {
    peft__mem *mem = runner_mem();
    const char *path = runner_path(runner_tmpdir(), "f");
    CHECK_OK(peft__save_text(mem, path, "x", 1));
    CHECK_OK(peft__file_remove(path));
    CHECK(!peft__path_exists(path));
    CHECK_STATUS(peft__file_remove(path), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("cannot remove");
}

TEST(base_save_replaces_whole_files_only) {
    peft__mem *mem = runner_mem();
    const char *dir = runner_tmpdir(), *path = runner_path(dir, "out.bin");
    CHECK_OK(peft__save_text(mem, path, "old", 3));
#if !defined(_WIN32)
    CHECK_INT(chmod(path, 0600), 0);
#endif
    peft__save *s = NULL;
    CHECK_OK(peft__save_begin(mem, path, &s));
    CHECK_OK(peft__save_write(s, "new ", 4));
    CHECK_OK(peft__save_write(s, "", 0));
    CHECK(file_holds(path, "old")); /* nothing to see before the commit */
    CHECK_INT(file_count_entries(dir), 2);
    CHECK_OK(peft__save_write(s, "text", 4));
    CHECK_OK(peft__save_commit(s));
    CHECK(file_holds(path, "new text"));
    CHECK_INT(file_count_entries(dir), 1);
#if !defined(_WIN32)
    struct stat info;
    CHECK_INT(stat(path, &info), 0);
    CHECK_INT(info.st_mode & 0777, 0600); /* the old file's rights */
#endif
}

TEST(base_save_abort_leaves_the_old_file) {
    peft__mem *mem = runner_mem();
    const char *dir = runner_tmpdir(), *path = runner_path(dir, "out.bin");
    CHECK_OK(peft__save_text(mem, path, "old", 3));
    peft__save *s = NULL;
    CHECK_OK(peft__save_begin(mem, path, &s));
    CHECK_OK(peft__save_write(s, "half", 4));
    peft__save_abort(s);
    peft__save_abort(NULL);
    CHECK(file_holds(path, "old"));
    CHECK_INT(file_count_entries(dir), 1);
}

TEST(base_save_two_at_once_and_old_litter) {
    peft__mem *mem = runner_mem();
    const char *dir = runner_tmpdir(), *path = runner_path(dir, "out.bin");
    char litter[4096];
    (void)snprintf(litter, sizeof litter, "%s.tmp-%lld-0", path, (long long)peft__sys_pid()); /* of a killed run with this number */
    CHECK_OK(peft__save_text(mem, litter, "litter", 6));
    peft__save *a = NULL, *b = NULL;
    CHECK_OK(peft__save_begin(mem, path, &a));
    CHECK_OK(peft__save_begin(mem, path, &b));
    CHECK_OK(peft__save_write(a, "from a", 6));
    CHECK_OK(peft__save_write(b, "from b", 6));
    CHECK_OK(peft__save_commit(b));
    CHECK(file_holds(path, "from b"));
    CHECK_OK(peft__save_commit(a));
    CHECK(file_holds(path, "from a"));
    CHECK(file_holds(litter, "litter"));
    CHECK_INT(file_count_entries(dir), 2);
}

TEST(base_save_refusals) {
    peft__mem *mem = runner_mem();
    const char *dir = runner_tmpdir();
    peft__save *s = NULL;
    CHECK_STATUS(peft__save_begin(mem, dir, &s), PEFT_E_IO);
    CHECK_ERROR_HAS("it is a folder, expected a file");
    CHECK_STATUS(peft__save_begin(mem, runner_path(dir, "no/such/folder.bin"), &s), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("cannot write");
    CHECK_ERROR_HAS("no/such/folder.bin");
    peft__mem_fail_after(mem, 1, false);
    CHECK_STATUS(peft__save_begin(mem, runner_path(dir, "f"), &s), PEFT_E_NOMEM);
    CHECK(s == NULL);
    CHECK_INT(file_count_entries(dir), 0);
    char name[400];
    memset(name, 'n', sizeof name);
    name[250] = '\0'; /* legal itself, but the temporary name is too long: better refused at once than after training */
#if !defined(_WIN32)
    CHECK_STATUS(peft__save_text(mem, runner_path(dir, name), "x", 1), PEFT_E_IO);
    CHECK_ERROR_HAS("the name is too long");
#else
    CHECK(peft__save_text(mem, runner_path(dir, name), "x", 1) != PEFT_OK);
#endif
}

/* ---- a system that fails ---------------------------------------------------------------------------------------- */

static _Thread_local int64_t disk_room;  /* bytes until the disk is full */
static _Thread_local int interrupted;    /* calls that a signal interrupts first */
static _Thread_local int sync_fails_at;  /* the sync call with this number fails */
static _Thread_local int fail_with;      /* errno of sync and rename; 0: they work */

static int64_t disk_write(int fd, const void *data, size_t size) {
    if (interrupted > 0) {
        interrupted--;
        errno = EINTR;
        return -1;
    }
    if (disk_room == 0) {
        errno = ENOSPC;
        return -1;
    }
    size_t n = PEFT__MIN(size, (size_t)disk_room);
    n = PEFT__MIN(n, (size_t)7); /* always short */
    disk_room -= (int64_t)n;
    return peft__sys_write(fd, data, n);
}

static int64_t disk_read(int fd, void *data, size_t size) {
    if (interrupted > 0) {
        interrupted--;
        errno = EINTR;
        return -1;
    }
    if (fail_with) {
        errno = fail_with;
        return -1;
    }
    if (disk_room == 0) { return 0; }
    size_t n = PEFT__MIN(size, (size_t)3);
    disk_room -= (int64_t)n;
    return peft__sys_read(fd, data, n);
}

static int disk_sync(int fd) {
    if (interrupted > 0) {
        interrupted--;
        errno = EINTR;
        return -1;
    }
    if (sync_fails_at > 0 && --sync_fails_at == 0) {
        errno = fail_with;
        return -1;
    }
    return peft__sys_sync(fd);
}

static int disk_rename(const char *from, const char *to) {
    if (fail_with && sync_fails_at == 0) {
        errno = fail_with;
        return -1;
    }
    return peft__sys_rename(from, to);
}

static const peft__file_ops disk = {disk_read, disk_write, disk_sync, disk_rename};

static peft_status save_on_disk(peft__mem *mem, const char *path, const char *text) {
    const peft__file_ops *before = peft__file_set_ops(&disk);
    peft_status st = peft__save_text(mem, path, text, strlen(text));
    peft__file_set_ops(before);
    return st;
}

TEST(base_save_full_disk_at_every_byte) {
    peft__mem *mem = runner_mem();
    const char *dir = runner_tmpdir(), *path = runner_path(dir, "out.bin"), *text = "thirty bytes of a new content.";
    CHECK_OK(peft__save_text(mem, path, "old", 3));
    fail_with = 0;
    sync_fails_at = 0;
    for (int64_t room = 0; room < 30; room++) {
        disk_room = room;
        CHECK_STATUS(save_on_disk(mem, path, text), PEFT_E_IO);
        CHECK_ERROR_HAS("out.bin\": no space left on the device");
        CHECK(file_holds(path, "old"));
        CHECK_INT(file_count_entries(dir), 1);
    }
    disk_room = 30;
    interrupted = 3;
    CHECK_OK(save_on_disk(mem, path, text));
    CHECK(file_holds(path, text));
}

TEST(base_save_commit_after_a_failed_write_fails) {
    peft__mem *mem = runner_mem();
    const char *dir = runner_tmpdir(), *path = runner_path(dir, "out.bin");
    const peft__file_ops *before = peft__file_set_ops(&disk);
    peft__save *s = NULL;
    CHECK_OK(peft__save_begin(mem, path, &s));
    disk_room = 2;
    peft_status first = peft__save_write(s, "abcd", 4);
    disk_room = 100;
    peft_status second = peft__save_write(s, "efgh", 4); /* there is room again, but a hole in the file */
    peft_status commit = peft__save_commit(s);
    peft__file_set_ops(before);
    CHECK_INT(first, PEFT_E_IO);
    CHECK_INT(second, PEFT_E_IO);
    CHECK_INT(commit, PEFT_E_IO);
    CHECK_INT(file_count_entries(dir), 0);
}

TEST(base_save_failing_sync_and_rename) {
    peft__mem *mem = runner_mem();
    const char *dir = runner_tmpdir(), *path = runner_path(dir, "out.bin");
    CHECK_OK(peft__save_text(mem, path, "old", 3));
    disk_room = 1000;
    fail_with = EIO;
    sync_fails_at = 1; /* of the file */
    CHECK_STATUS(save_on_disk(mem, path, "new"), PEFT_E_IO);
    CHECK_ERROR_HAS("input/output error of the device");
    CHECK(file_holds(path, "old"));
    CHECK_INT(file_count_entries(dir), 1);
    sync_fails_at = 0;
    fail_with = EACCES; /* of the rename */
    CHECK_STATUS(save_on_disk(mem, path, "new"), PEFT_E_IO);
    CHECK_ERROR_HAS("cannot replace");
    CHECK_ERROR_HAS("permission denied");
    CHECK(file_holds(path, "old"));
    CHECK_INT(file_count_entries(dir), 1);
#if !defined(_WIN32) /* syncs no folder */
    sync_fails_at = 2; /* of the folder: the new file is in place */
    fail_with = EIO;
    CHECK_STATUS(save_on_disk(mem, path, "new"), PEFT_E_IO);
    CHECK_ERROR_HAS("cannot make durable");
    CHECK(file_holds(path, "new"));
    CHECK_INT(file_count_entries(dir), 1);
    sync_fails_at = 2;
    fail_with = EINVAL; /* a file system that cannot sync folders */
    CHECK_OK(save_on_disk(mem, path, "newer"));
    CHECK(file_holds(path, "newer"));
#endif
    fail_with = 0;
}

TEST(base_file_copy_reads_in_pieces_and_notices_shrinking) {
    peft__mem *mem = runner_mem();
    const char *path = runner_path(runner_tmpdir(), "data.bin");
    CHECK_OK(peft__save_text(mem, path, "0123456789", 10));
    peft__file f = {0};
    const peft__file_ops *before = peft__file_set_ops(&disk);
    fail_with = 0;
    interrupted = 2;
    disk_room = 100;
    peft_status whole = peft__file_open(mem, path, true, &f);
    bool same = whole == PEFT_OK && memcmp(f.data, "0123456789", 10) == 0;
    peft__file_close(&f);
    disk_room = 6;
    peft_status cut = peft__file_open(mem, path, true, &f);
    bool cut_told = strstr(peft__fail_text(), "became shorter while it was read: 6 of 10 bytes") != NULL;
    fail_with = EIO;
    peft_status broken = peft__file_open(mem, path, true, &f);
    fail_with = 0;
    peft__file_set_ops(before);
    CHECK_INT(whole, PEFT_OK);
    CHECK(same);
    CHECK_INT(cut, PEFT_E_IO);
    CHECK(cut_told);
    CHECK_INT(broken, PEFT_E_IO);
    CHECK_ERROR_HAS("cannot read");
}

#if !defined(_WIN32) /* has no fork */
TEST(base_save_killed_process_leaves_the_old_file) {
    peft__mem *mem = runner_mem();
    const char *dir = runner_tmpdir(), *path = runner_path(dir, "out.bin");
    CHECK_OK(peft__save_text(mem, path, "old", 3));
    pid_t child = fork();
    if (child == 0) {
        peft__save *s = NULL;
        if (peft__save_begin(mem, path, &s) == PEFT_OK && peft__save_write(s, "half", 4) == PEFT_OK) { _exit(0); }
        _exit(1);
    }
    int code = -1;
    CHECK_INT(waitpid(child, &code, 0), child);
    CHECK_INT(code, 0);
    CHECK(file_holds(path, "old"));
    CHECK_INT(file_count_entries(dir), 2); /* its temporary file, under a name that no later save uses by chance */
    CHECK_OK(peft__save_text(mem, path, "new", 3));
    CHECK(file_holds(path, "new"));
}
#endif

TEST(base_file_names_beyond_ascii_and_long_paths) {
    peft__mem *mem = runner_mem();
    const char *dir = runner_path(runner_tmpdir(), "\u00fcber \u8a9e \U0001F600");
    char deep[600];
    CHECK_OK(peft__dir_make(dir));
    CHECK_OK(peft__save_text(mem, runner_path(dir, "\u03b1.txt"), "alpha", 5));
    CHECK(file_holds(runner_path(dir, "\u03b1.txt"), "alpha"));
    (void)snprintf(deep, sizeof deep, "%.200s", dir);
    while (strlen(deep) < 400) { (void)strcat(deep, "/twelve_chars"); }
    CHECK_OK(peft__dir_make(deep));
    CHECK_OK(peft__save_text(mem, runner_path(deep, "f"), "deep", 4));
    CHECK(file_holds(runner_path(deep, "f"), "deep"));
    CHECK_OK(peft__file_remove(runner_path(deep, "f")));
    CHECK_OK(peft__file_remove(runner_path(dir, "\u03b1.txt")));
}

TEST(base_path_names) {
    CHECK_STR(peft__path_name("a/b/c.json"), "c.json");
    CHECK_STR(peft__path_name("c.json"), "c.json");
    CHECK_STR(peft__path_name("/c"), "c");
    CHECK_STR(peft__path_name("a/"), "");
    CHECK_STR(peft__path_name(""), "");
#if defined(_WIN32)
    CHECK_STR(peft__path_name("C:\\models\\x.gguf"), "x.gguf");
#else
    CHECK_STR(peft__path_name("a\\b"), "a\\b");
#endif
}
