/* status.c - the text of the last error, one a thread.
 *
 * The text lives in thread-local storage of fixed size, so that reporting an error can neither fail nor allocate, also
 * when the error is that there is no memory. It is the only state of the library outside of handles.
 *
 * Left out: names of codes and the public getter (api/). */
#include "base/base.h"

#include <stdio.h>

enum { STATUS_TEXT = 1024 }; /* bytes with NUL */

static _Thread_local char status_text[STATUS_TEXT];

/* Whatever bytes a file or a caller has put in: the text is UTF-8, and a cut one does not end inside a character. */
static void status_clean(char *text) {
    size_t len = strlen(text), n;
    uint32_t cp;
    for (size_t i = 0; i < len; i += n) {
        n = peft__utf8_read(text + i, len - i, &cp);
        if (n > 0) { continue; }
        text[i] = len == STATUS_TEXT - 1 && len - i < 4 ? '\0' : '?';
        n = text[i] == '\0' ? len : 1;
    }
}

peft_status peft__fail(peft_status code, const char *fmt, ...) {
    char text[STATUS_TEXT]; /* apart from status_text, because an argument may be the present text */
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (n < 0) { text[0] = '\0'; }
    status_clean(text);
    memcpy(status_text, text, strlen(text) + 1);
    return code;
}

void peft__fail_prefix(const char *fmt, ...) {
    char text[STATUS_TEXT];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (n < 0) { return; }
    const char *parts[2] = {": ", status_text};
    size_t len = strlen(text);
    for (int i = 0; i < 2; i++) {
        size_t part = PEFT__MIN(strlen(parts[i]), STATUS_TEXT - 1 - len);
        memcpy(text + len, parts[i], part);
        len += part;
    }
    text[len] = '\0';
    status_clean(text);
    memcpy(status_text, text, strlen(text) + 1);
}

const char *peft__fail_text(void) {
    return status_text;
}
