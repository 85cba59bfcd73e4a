/* findings.c - what a check found, kept in order.
 *
 * Left out: writing it out (api/verify.c has the JSON). */
#include "base/findings.h"

#include <stdarg.h>
#include <stdio.h>

enum { FINDINGS_TEXT = 1024 }; /* bytes of a message with its NUL, as those of errors */

void peft__findings_init(peft__findings *f, peft__mem *mem, int64_t most) {
    memset(f, 0, sizeof *f);
    peft__arena_init(&f->arena, mem);
    peft__vec_init(&f->errors, mem, sizeof(peft__finding));
    peft__vec_init(&f->warnings, mem, sizeof(peft__finding));
    f->most = most;
}

void peft__findings_free(peft__findings *f) {
    peft__vec_free(&f->errors);
    peft__vec_free(&f->warnings);
    peft__arena_free(&f->arena);
}

/* A text that was cut ends before a character that is not whole; what is no UTF-8 at all is shown as "?". */
static char *findings_text(peft__findings *f, const char *s) {
    size_t len = strlen(s);
    char *copy = peft__arena_strdup(&f->arena, s, len);
    for (size_t i = 0; copy != NULL && i < len;) {
        uint32_t cp;
        size_t n = peft__utf8_read(copy + i, len - i, &cp);
        if (n == 0) { copy[i] = '?'; }
        i += n > 0 ? n : 1;
    }
    if (copy == NULL) { f->st = PEFT_E_NOMEM; }
    return copy;
}

static void findings_put(peft__findings *f, bool error, peft_status code, const char *file, const char *where, const char *text) {
    peft__vec *list = error ? &f->errors : &f->warnings;
    if (f->st != PEFT_OK) { return; }
    if (error) { f->n_errors++; } else { f->n_warnings++; }
    if ((int64_t)list->len >= f->most) { return; }
    peft__finding x = {code, findings_text(f, file), findings_text(f, where), findings_text(f, text)};
    if (f->st == PEFT_OK) { f->st = peft__vec_push(list, &x); }
}

PEFT__PRINTF(6, 0)
static void findings_print(peft__findings *f, bool error, peft_status code, const char *file, const char *where, const char *fmt,
                           va_list args) {
    char text[FINDINGS_TEXT];
    int n = vsnprintf(text, sizeof text, fmt, args);
    findings_put(f, error, code, file, where, n < 0 ? "" : text);
}

void peft__finding_error(peft__findings *f, peft_status code, const char *file, const char *where, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    findings_print(f, true, code, file, where, fmt, args);
    va_end(args);
}

void peft__finding_warn(peft__findings *f, const char *file, const char *where, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    findings_print(f, false, PEFT_OK, file, where, fmt, args);
    va_end(args);
}

/* 'tensor "x"' or 'key "x"', where the text names one first. */
static void findings_place(const char *text, char out[FINDINGS_TEXT]) {
    static const char *const words[] = {"tensor \"", "key \""};
    const char *first = NULL, *name = NULL;
    out[0] = '\0';
    for (size_t i = 0; i < PEFT__COUNT(words); i++) {
        const char *at = strstr(text, words[i]);
        if (at == NULL || (first != NULL && first < at)) { continue; }
        first = at;
        name = at + strlen(words[i]);
    }
    const char *end = name != NULL ? strchr(name, '"') : NULL;
    if (end == NULL) { return; }
    size_t n = (size_t)(end - first) + 1;
    memcpy(out, first, n);
    out[n] = '\0';
}

/* The file that a message begins with, if it is `file` or one in that folder, and where the rest begins. "config.json" is how a model's
 * folder calls its own. */
static const char *findings_file(const char *text, const char *file, char out[FINDINGS_TEXT]) {
    static const char config[] = "config.json: ";
    size_t n = strlen(file);
    const char *rest = text;
    (void)snprintf(out, FINDINGS_TEXT, "%s", file);
    if (n > 0 && strncmp(text, file, n) == 0) {
        const char *end = text[n] == '/' ? strstr(text + n, ": ") : text[n] == ':' && text[n + 1] == ' ' ? text + n : NULL;
        if (end != NULL) {
            (void)snprintf(out, FINDINGS_TEXT, "%.*s", (int)(end - text), text);
            rest = end + 2;
        }
    }
    if (strncmp(rest, config, sizeof config - 1) == 0 && n + sizeof config < FINDINGS_TEXT) {
        (void)snprintf(out, FINDINGS_TEXT, "%.1000s/config.json", file);
        rest += sizeof config - 1;
    }
    return rest;
}

/* Several parts of a check may meet the same fault. */
static bool findings_repeats(const peft__findings *f, const char *file, const char *where, const char *text) {
    enum { BACK = 8 };
    for (size_t i = f->errors.len > BACK ? f->errors.len - BACK : 0; i < f->errors.len; i++) {
        const peft__finding *x = &PEFT__VEC_AT(&f->errors, peft__finding, i);
        if (strcmp(x->file, file) == 0 && strcmp(x->where, where) == 0 && strcmp(x->message, text) == 0) { return true; }
    }
    return false;
}

peft_status peft__finding_failed(peft__findings *f, peft_status st, const char *file, const char *where) {
    char text[FINDINGS_TEXT], place[FINDINGS_TEXT], path[FINDINGS_TEXT];
    if (st == PEFT_OK || st == PEFT_E_NOMEM || st == PEFT_E_CANCELLED) { return st; }
    (void)snprintf(text, sizeof text, "%s", peft__fail_text());
    const char *rest = findings_file(text, file, path);
    findings_place(rest, place);
    const char *at = where[0] != '\0' ? where : place;
    if (!findings_repeats(f, path, at, rest)) { findings_put(f, true, st, path, at, rest); }
    return PEFT_OK;
}
