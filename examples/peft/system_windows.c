/* system_windows.c - what the tool asks of Windows: UTF-8 paths and arguments, files as bytes, a console with escapes.
 *
 * With GCC's -municode the program begins in wmain, which has the arguments in UTF-16. Without it everything works as well,
 * but for arguments outside of the system's own code page. */
#include "system.h"

#if defined(_WIN32)

#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

int main(int argc, char **argv);
int wmain(int argc, wchar_t **argv);

enum { SYSTEM_PATH = 4096 /* UTF-16 units of a path */ };

void system_begin(void) {
    (void)_setmode(_fileno(stdout), _O_BINARY);
    (void)SetConsoleOutputCP(CP_UTF8);
}

int wmain(int argc, wchar_t **argv) {
    char **list = calloc((size_t)argc + 1, sizeof *list);
    int rc = 1;
    for (int i = 0; list != NULL && i < argc; i++) {
        int size = WideCharToMultiByte(CP_UTF8, 0, argv[i], -1, NULL, 0, NULL, NULL);
        list[i] = calloc((size_t)size + 1, 1);
        if (list[i] == NULL) { goto out; }
        (void)WideCharToMultiByte(CP_UTF8, 0, argv[i], -1, list[i], size, NULL, NULL);
    }
    if (list != NULL) { rc = main(argc, list); }
out:
    for (int i = 0; list != NULL && i < argc; i++) { free(list[i]); }
    free(list);
    return rc;
}

/* Never fails: a path that cannot be written in UTF-16 becomes one that does not exist. */
static const wchar_t *system_path(const char *path, wchar_t out[SYSTEM_PATH]) {
    if (MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, out, SYSTEM_PATH) == 0) { out[0] = L'\0'; }
    return out;
}

FILE *system_open(const char *path, const char *mode) {
    wchar_t wide[SYSTEM_PATH], how[8] = {0};
    size_t n = 0;
    for (; mode[n] != '\0' && n + 2 < sizeof how / sizeof *how; n++) { how[n] = (wchar_t)mode[n]; }
    how[n] = L'b';
    return _wfopen(system_path(path, wide), how);
}

bool system_cut(FILE *file, int64_t size) {
    return fflush(file) == 0 && _chsize_s(_fileno(file), size) == 0 && _fseeki64(file, 0, SEEK_END) == 0;
}

bool system_exists(const char *path) {
    wchar_t wide[SYSTEM_PATH];
    return GetFileAttributesW(system_path(path, wide)) != INVALID_FILE_ATTRIBUTES;
}

bool system_is_folder(const char *path) {
    wchar_t wide[SYSTEM_PATH];
    DWORD what = GetFileAttributesW(system_path(path, wide));
    return what != INVALID_FILE_ATTRIBUTES && (what & FILE_ATTRIBUTE_DIRECTORY) != 0;
}

/* Rights are lists here, which only an attempt to write can tell; the library's message says what came of it. */
bool system_may_write(const char *folder) {
    return system_is_folder(folder);
}

bool system_make_folder(const char *path) {
    wchar_t wide[SYSTEM_PATH];
    return _wmkdir(system_path(path, wide)) == 0;
}

void system_remove_file(const char *path) {
    wchar_t wide[SYSTEM_PATH];
    (void)_wremove(system_path(path, wide));
}

void system_remove_folder(const char *path) {
    wchar_t wide[SYSTEM_PATH];
    (void)_wrmdir(system_path(path, wide));
}

bool system_is_separator(char c) {
    return c == '/' || c == '\\';
}

bool system_is_terminal(void) {
    return _isatty(_fileno(stderr)) != 0;
}

bool system_can_redraw(void) {
    HANDLE console = GetStdHandle(STD_ERROR_HANDLE);
    DWORD mode = 0;
    return system_is_terminal() && GetConsoleMode(console, &mode) &&
           SetConsoleMode(console, mode | ENABLE_VIRTUAL_TERMINAL_PROCESSING);
}

bool system_is_utf8(void) {
    return GetConsoleOutputCP() == CP_UTF8;
}

int system_columns(void) {
    CONSOLE_SCREEN_BUFFER_INFO info;
    if (!GetConsoleScreenBufferInfo(GetStdHandle(STD_ERROR_HANDLE), &info)) { return 80; }
    int columns = info.srWindow.Right - info.srWindow.Left + 1;
    return columns > 0 ? columns : 80;
}

void system_on_interrupt(void (*handler)(int)) {
    (void)signal(SIGINT, handler); /* each is back at the default once it came */
    (void)signal(SIGTERM, handler);
}

double system_clock(void) {
    LARGE_INTEGER now, each;
    (void)QueryPerformanceCounter(&now);
    (void)QueryPerformanceFrequency(&each);
    return (double)now.QuadPart / (double)each.QuadPart;
}

typedef struct system_thread {
    void (*body)(void *element);
    void *element;
    HANDLE handle;
} system_thread;

static DWORD WINAPI system_thread_main(LPVOID arg) {
    const system_thread *t = arg;
    t->body(t->element);
    return 0;
}

bool system_parallel(int n, void (*body)(void *element), void *elements, size_t size) {
    system_thread *threads = calloc((size_t)n, sizeof *threads);
    int started = 0;
    for (; threads != NULL && started < n; started++) {
        threads[started] = (system_thread){.body = body, .element = (char *)elements + (size_t)started * size};
        threads[started].handle = CreateThread(NULL, 0, system_thread_main, &threads[started], 0, NULL);
        if (threads[started].handle == NULL) { break; }
    }
    for (int i = 0; i < started; i++) {
        (void)WaitForSingleObject(threads[i].handle, INFINITE);
        (void)CloseHandle(threads[i].handle);
    }
    free(threads);
    return started == n;
}

#endif
