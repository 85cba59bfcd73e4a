/* system_posix.c - what the tool asks of a POSIX system. */
#include "system.h"

#if !defined(_WIN32)

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

void system_begin(void) {}

FILE *system_open(const char *path, const char *mode) {
    return fopen(path, mode);
}

bool system_cut(FILE *file, int64_t size) {
    return fflush(file) == 0 && ftruncate(fileno(file), (off_t)size) == 0 && fseeko(file, 0, SEEK_END) == 0;
}

bool system_exists(const char *path) {
    return access(path, F_OK) == 0;
}

bool system_is_folder(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool system_may_write(const char *folder) {
    return access(folder, W_OK) == 0;
}

bool system_make_folder(const char *path) {
    return mkdir(path, 0777) == 0;
}

void system_remove_file(const char *path) {
    (void)unlink(path);
}

void system_remove_folder(const char *path) {
    (void)rmdir(path);
}

bool system_is_separator(char c) {
    return c == '/';
}

bool system_is_terminal(void) {
    return isatty(STDERR_FILENO) != 0;
}

bool system_can_redraw(void) {
    const char *term = getenv("TERM");
    return system_is_terminal() && term != NULL && strcmp(term, "dumb") != 0;
}

bool system_is_utf8(void) {
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        if (value != NULL && value[0] != '\0') { /* the first that is set decides */
            return strstr(value, "UTF-8") != NULL || strstr(value, "utf8") != NULL;
        }
    }
    return false;
}

int system_columns(void) {
    struct winsize size;
    memset(&size, 0, sizeof size);
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

void system_on_interrupt(void (*handler)(int)) {
    struct sigaction action = {0};
    action.sa_handler = handler;
    action.sa_flags = (int)(SA_RESTART | SA_RESETHAND);
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}

double system_clock(void) {
    struct timespec t = {0, 0};
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct system_thread {
    void (*body)(void *element);
    void *element;
    pthread_t id;
} system_thread;

static void *system_thread_main(void *arg) {
    const system_thread *t = arg;
    t->body(t->element);
    return NULL;
}

bool system_parallel(int n, void (*body)(void *element), void *elements, size_t size) {
    system_thread *threads = calloc((size_t)n, sizeof *threads);
    int started = 0;
    for (; threads != NULL && started < n; started++) {
        threads[started] = (system_thread){.body = body, .element = (char *)elements + (size_t)started * size};
        if (pthread_create(&threads[started].id, NULL, system_thread_main, &threads[started]) != 0) { break; }
    }
    for (int i = 0; i < started; i++) { (void)pthread_join(threads[i].id, NULL); }
    free(threads);
    return started == n;
}

#endif
