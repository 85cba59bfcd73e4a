/* tool.c - errors, memory and small formatting of the command-line tool. */
#include "tool.h"

#include "system.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void tool_print(const char *format, va_list list) TOOL_PRINTF(1, 0);

static void tool_print(const char *format, va_list list) {
    (void)fflush(stdout); /* keeps the order of the two where they are the same terminal */
    (void)fputs("peft: ", stderr);
    (void)vfprintf(stderr, format, list);
    (void)fputc('\n', stderr);
}

int tool_fail(const char *format, ...) {
    va_list list;
    va_start(list, format);
    tool_print(format, list);
    va_end(list);
    return TOOL_FAILED;
}

int tool_usage(const char *format, ...) {
    va_list list;
    va_start(list, format);
    tool_print(format, list);
    va_end(list);
    return TOOL_USAGE;
}

void tool_note(const char *format, ...) {
    va_list list;
    va_start(list, format);
    tool_print(format, list);
    va_end(list);
}

int tool_check(peft_status status) {
    if (status == PEFT_OK) { return TOOL_OK; }
    const char *text = peft_last_error();
    return tool_fail("%s", text[0] != '\0' ? text : peft_status_name(status));
}

/* ---- Memory and text ---------------------------------------------------------------------------------------------- */

void *tool_alloc(size_t size) {
    void *p = tool_resize(NULL, size);
    memset(p, 0, size);
    return p;
}

void *tool_resize(void *p, size_t size) {
    void *q = realloc(p, size > 0 ? size : 1);
    if (q == NULL) { exit(tool_fail("no memory for %zu bytes", size)); }
    return q;
}

char *tool_copy(const char *text, size_t len) {
    char *copy = tool_alloc(len + 1);
    memcpy(copy, text, len);
    return copy;
}

char *tool_join(const char *a, const char *b, const char *c) {
    size_t size = strlen(a) + strlen(b) + strlen(c) + 1;
    char *text = tool_alloc(size);
    (void)snprintf(text, size, "%s%s%s", a, b, c);
    return text;
}

void tool_append(tool_text *t, const char *bytes, size_t len) {
    if (t->cap - t->len <= len) {
        t->cap = 2 * t->cap + len + 64;
        t->text = tool_resize(t->text, t->cap);
    }
    if (len > 0) { memcpy(t->text + t->len, bytes, len); }
    t->len += len;
    t->text[t->len] = '\0';
}

void tool_append_json(tool_text *t, const char *bytes, size_t len) {
    tool_append(t, "\"", 1);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)bytes[i];
        char escape[8];
        if (c == '"' || c == '\\') {
            (void)snprintf(escape, sizeof escape, "\\%c", c);
        } else if (c < 0x20) {
            (void)snprintf(escape, sizeof escape, "\\u%04x", (unsigned)c);
        } else {
            (void)snprintf(escape, sizeof escape, "%c", c);
        }
        tool_append(t, escape, strlen(escape));
    }
    tool_append(t, "\"", 1);
}

static const char *tool_scaled(double value, double base, const char *const *units, size_t count,
                               char out[TOOL_SHORT]) {
    size_t unit = 0;
    while (unit + 1 < count && value >= base) {
        value /= base;
        unit++;
    }
    (void)snprintf(out, TOOL_SHORT, unit == 0 ? "%.0f%s" : "%.1f%s", value, units[unit]);
    return out;
}

const char *tool_bytes(double bytes, char out[TOOL_SHORT]) {
    static const char *const units[] = {" B", " KiB", " MiB", " GiB", " TiB"};
    return tool_scaled(bytes, 1024.0, units, sizeof units / sizeof *units, out);
}

const char *tool_count(double count, char out[TOOL_SHORT]) {
    static const char *const units[] = {"", " k", " M", " G", " T", " P"};
    return tool_scaled(count, 1000.0, units, sizeof units / sizeof *units, out);
}

const char *tool_duration(double seconds, char out[TOOL_SHORT]) {
    if (!(seconds >= 0.0 && seconds < 1e9)) { /* NaN too */
        return "-";
    }
    long long s = (long long)ceil(seconds);
    if (s >= 3600) {
        (void)snprintf(out, TOOL_SHORT, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    } else {
        (void)snprintf(out, TOOL_SHORT, "%lld:%02lld", s / 60, s % 60);
    }
    return out;
}

bool tool_read_line(FILE *file, tool_text *line) {
    line->len = 0;
    for (int c; (c = getc(file)) != EOF;) {
        char byte = (char)c;
        tool_append(line, &byte, 1);
        if (c == '\n') { break; }
    }
    return line->len > 0;
}

/* Levenshtein's distance by one row of the table; words longer than the row count as far away. */
size_t tool_distance(const char *a, const char *b) {
    enum { LONGEST = 63 };
    size_t n = strlen(a), m = strlen(b), row[LONGEST + 1];
    if (m > LONGEST) { return n > m ? n : m; }
    for (size_t j = 0; j <= m; j++) { row[j] = j; }
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t change = diagonal + (a[i - 1] != b[j - 1]);
            size_t shift = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = change < shift ? change : shift;
        }
    }
    return row[m];
}

int tool_make_folder(const char *path) {
    int rc = TOOL_OK;
    char *part = tool_copy(path, strlen(path));
    for (size_t i = 1; rc == TOOL_OK; i++) {
        bool end = path[i] == '\0';
        if (!end && !system_is_separator(path[i])) { continue; }
        part[i] = '\0';
        if (!system_make_folder(part)) {
            int error = errno; /* a drive or a share is refused for other reasons than that it exists */
            if (error != EEXIST && !system_is_folder(part)) {
                rc = tool_fail("cannot make the folder %s: %s", part, strerror(error));
            }
        }
        part[i] = path[i];
        if (end) { break; }
    }
    if (rc == TOOL_OK && !system_is_folder(path)) { rc = tool_fail("%s is not a folder", path); }
    free(part);
    return rc;
}
