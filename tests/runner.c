/* runner.c - runs the registered tests and says what failed, where, with actual and expected.
 *
 * Options: --list, --filter SUBSTR and --skip SUBSTR (may be repeated), --verbose (each test with its time). The last line
 * is "N passed, N failed"; the exit code is 1 if any failed. */
#include "base/system.h"
#include "runner.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#if defined(_WIN32)
#include <fcntl.h>
#include <windows.h>
#define SIGBUS SIGSEGV            /* one signal for both */
#define lstat  stat               /* no symbolic links are made here */
#endif

typedef struct runner_test {
    const char *name, *file;
    runner_fn fn;
} runner_test;

typedef struct runner_block { /* something that lives until the end of a test */
    struct runner_block *next;
    peft__mem mem;    /* what runner_mem gave */
    bool is_mem;      /* else: text */
    char text[4096];  /* what runner_path gave */
} runner_block;

static runner_test *tests;
static size_t test_count, test_cap;
static const char *current = "";  /* name of the running test */
static bool failed;               /* the running test */
static runner_block *blocks;      /* of the running test */
static char root[256];            /* folder of all temporary folders; "" until one is asked for */
static int dirs;                  /* temporary folders made */

void runner_register(const char *name, const char *file, runner_fn fn) {
    if (test_count == test_cap) {
        test_cap = test_cap ? test_cap * 2 : 256;
        tests = realloc(tests, test_cap * sizeof *tests);
        if (!tests) { abort(); }
    }
    tests[test_count++] = (runner_test){name, file, fn};
}

static runner_block *new_block(void) {
    runner_block *b = calloc(1, sizeof *b);
    if (!b) { abort(); }
    b->next = blocks;
    blocks = b;
    return b;
}

bool runner_few(void) {
    return getenv("PEFT_TEST_FEW") != NULL;
}

peft__mem *runner_mem(void) {
    runner_block *b = new_block();
    b->is_mem = true;
    peft__mem_init(&b->mem, NULL);
    return &b->mem;
}

const char *runner_path(const char *dir, const char *name) {
    runner_block *b = new_block();
    (void)snprintf(b->text, sizeof b->text, "%s/%s", dir, name);
    return b->text;
}

const char *runner_tmpdir(void) {
    if (!root[0]) {
        const char *base = getenv("TMPDIR");
        int made = -1;
        for (int i = 0; made != 0 && i < 1000; i++) { /* a number that a killed run left is passed over */
            (void)snprintf(root, sizeof root, "%.200s/libpeft-test-%lld-%d", base && base[0] ? base : "/tmp",
                           (long long)peft__sys_pid(), i);
            made = peft__sys_make_folder(root);
            if (made != 0 && errno != EEXIST) { break; }
        }
        if (made != 0) {
            perror(root);
            exit(2);
        }
    }
    runner_block *b = new_block();
    (void)snprintf(b->text, sizeof b->text, "%s/%d", root, dirs++);
    if (peft__sys_make_folder(b->text) != 0) {
        perror(b->text);
        exit(2);
    }
    return b->text;
}

static void remove_tree(const char *path) {
    struct stat info;
    if (lstat(path, &info) != 0) { return; }
    if (!S_ISDIR(info.st_mode)) {
        unlink(path);
        return;
    }
    (void)chmod(path, 0700); /* a test may have taken the rights away */
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) { continue; }
        char child[4096];
        if (snprintf(child, sizeof child, "%s/%s", path, e->d_name) < (int)sizeof child) { remove_tree(child); }
    }
    if (dir) { closedir(dir); }
    rmdir(path);
}

void runner_sleep(double seconds) {
#if defined(_WIN32)
    Sleep((DWORD)(1e3 * seconds));
#else
    struct timespec wait = {(time_t)seconds, (long)(1e9 * (seconds - (double)(time_t)seconds))};
    (void)nanosleep(&wait, NULL);
#endif
}

/* ---- checks --------------------------------------------------------------------------------------------------- */

static void report(const char *file, int line) {
    failed = true;
    printf("FAIL %s\n  %s:%d: ", current, file, line);
}

bool runner_true(const char *file, int line, bool ok, const char *text) {
    if (ok) { return true; }
    report(file, line);
    printf("%s is false (last error: \"%s\")\n", text, peft__fail_text());
    return false;
}

bool runner_int(const char *file, int line, const char *text, int64_t actual, int64_t expected) {
    if (actual == expected) { return true; }
    report(file, line);
    printf("%s\n    actual   %lld\n    expected %lld\n", text, (long long)actual, (long long)expected);
    return false;
}

bool runner_str(const char *file, int line, const char *text, const char *actual, const char *expected) {
    if (actual && expected && strcmp(actual, expected) == 0) { return true; }
    report(file, line);
    printf("%s\n    actual   \"%s\"\n    expected \"%s\"\n", text, actual ? actual : "(NULL)",
           expected ? expected : "(NULL)");
    return false;
}

bool runner_near(const char *file, int line, const char *text, double actual, double expected, double tol) {
    double gap = actual - expected;
    if (gap <= tol && -gap <= tol) { return true; } /* false for NaN */
    report(file, line);
    printf("%s\n    actual   %.17g\n    expected %.17g +- %g\n", text, actual, expected, tol);
    return false;
}

bool runner_status(const char *file, int line, const char *text, peft_status actual, peft_status expected) {
    if (actual == expected) { return true; }
    report(file, line);
    printf("%s\n    actual   status %d (last error: \"%s\")\n    expected status %d\n", text, (int)actual,
           peft__fail_text(), (int)expected);
    return false;
}

bool runner_error_has(const char *file, int line, const char *part) {
    if (strstr(peft__fail_text(), part)) { return true; }
    report(file, line);
    printf("the last error\n    actual   \"%s\"\n    expected \"... %s ...\"\n", peft__fail_text(), part);
    return false;
}

bool runner_same(const char *file, int line, const char *text, const void *actual, const void *expected, size_t n) {
    const unsigned char *a = actual, *e = expected;
    size_t i = 0;
    while (i < n && a[i] == e[i]) { i++; }
    if (i == n) { return true; }
    report(file, line);
    printf("%s: byte %zu of %zu\n    actual   0x%02x\n    expected 0x%02x\n", text, i, n, a[i], e[i]);
    return false;
}

/* ---- running -------------------------------------------------------------------------------------------------- */

static void end_test(const runner_test *t) {
    while (blocks) {
        runner_block *b = blocks;
        size_t now = b->is_mem ? atomic_load(&b->mem.now) : 0;
        if (now != 0 && !failed) {
            report(t->file, 0);
            printf("%zu bytes were not freed\n", now);
        }
        blocks = b->next;
        free(b);
    }
}

/* Only async-signal-safe calls: which test it was is what a core file is slow to tell. */
static void on_crash(int sig) {
    static const char text[] = "CRASH in ";
    (void)peft__sys_write(1, text, sizeof text - 1);
    (void)peft__sys_write(1, current, strlen(current));
    (void)peft__sys_write(1, "\n", 1);
    signal(sig, SIG_DFL);
    raise(sig);
}

static bool wanted(const char *name, int argc, char **argv) {
    bool any = false, named = false;
    for (int i = 1; i + 1 < argc; i++) {
        bool hit = strstr(name, argv[i + 1]) != NULL;
        if (strcmp(argv[i], "--skip") == 0 && hit) { return false; }
        if (strcmp(argv[i], "--filter") != 0) { continue; }
        any = true;
        named = named || hit;
    }
    return !any || named;
}

static bool flag(const char *name, int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], name) == 0) { return true; }
    }
    return false;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const runner_test *)a)->name, ((const runner_test *)b)->name);
}

/* A disk that is not waited for: tests save thousands of times. Those of saving itself, of the tool and under faults do wait. */
static int disk_sync(int fd) { return fd < 0; }
static const peft__file_ops disk = {peft__sys_read, peft__sys_write, disk_sync, peft__sys_rename};

int main(int argc, char **argv) {
    int passed = 0, bad = 0;
    bool list = flag("--list", argc, argv), verbose = flag("--verbose", argc, argv);
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
#if defined(_WIN32)
    (void)_setmode(_fileno(stdout), _O_BINARY); /* lines end as everywhere */
#endif
    signal(SIGSEGV, on_crash);
    signal(SIGBUS, on_crash);
    signal(SIGABRT, on_crash);
    signal(SIGFPE, on_crash);
    if (test_count > 0) { qsort(tests, test_count, sizeof *tests, by_name); }
    for (size_t i = 0; i < test_count; i++) {
        if (!wanted(tests[i].name, argc, argv)) { continue; }
        if (list) {
            puts(tests[i].name);
            continue;
        }
        current = tests[i].name;
        failed = false;
        double start = peft__clock();
        (void)peft__file_set_ops(&disk);
        tests[i].fn();
        end_test(&tests[i]);
        if (failed) {
            bad++;
        } else {
            passed++;
        }
        if (verbose) { printf("%-8s %7.1f ms  %s\n", failed ? "failed" : "ok", 1e3 * (peft__clock() - start), current); }
    }
    if (root[0]) { remove_tree(root); }
    free(tests);
    if (list) { return 0; }
    printf("%d passed, %d failed\n", passed, bad);
    return bad > 0 ? 1 : 0;
}
