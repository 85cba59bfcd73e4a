/* report_text.c - text of others on the page: what is in logs may come from anywhere. Outside of tags and in quoted attributes HTML
 * needs & < > " ' as references; a <script> ends at the first "</script", whatever it holds. Control characters, and bytes that are
 * no UTF-8 (RFC 3629), become U+FFFD. */
#include "report.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void report_put(tool_text *page, const char *format, ...) {
    char text[512];
    va_list list;
    va_start(list, format);
    int len = vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (len > 0) { tool_append(page, text, (size_t)len < sizeof text ? (size_t)len : sizeof text - 1); }
}

/* Bytes of the character, 0 where it is none. */
static size_t text_character(const unsigned char *p, size_t len) {
    static const struct { unsigned char from, to, second_from, second_to; size_t bytes; } rows[] = {
        {0x20, 0x7e, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
        {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4},
        {0xf4, 0xf4, 0x80, 0x8f, 4}};
    if (p[0] == '\n' || p[0] == '\t') { return 1; }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (p[0] < rows[i].from || p[0] > rows[i].to) { continue; }
        if (rows[i].bytes > len) { return 0; }
        if (rows[i].bytes > 1 && (p[1] < rows[i].second_from || p[1] > rows[i].second_to)) { return 0; }
        for (size_t k = 2; k < rows[i].bytes; k++) {
            if (p[k] < 0x80 || p[k] > 0xbf) { return 0; }
        }
        return rows[i].bytes;
    }
    return 0;
}

static const char *text_reference(char c) {
    switch (c) {
        case '&': return "&amp;";
        case '<': return "&lt;";
        case '>': return "&gt;";
        case '"': return "&quot;";
        case '\'': return "&#39;";
        default: return NULL;
    }
}

void report_put_cut(tool_text *page, const char *text, size_t len, size_t most) {
    for (size_t i = 0; i < len;) {
        if (i >= most) {
            report_put(page, "\u2026");
            return;
        }
        size_t n = text_character((const unsigned char *)text + i, len - i);
        const char *reference = text_reference(text[i]);
        if (n == 0) {
            report_put(page, "\ufffd");
            n = 1;
        } else if (reference != NULL) {
            report_put(page, "%s", reference);
        } else {
            tool_append(page, text + i, n);
        }
        i += n;
    }
}

void report_put_name(tool_text *page, const char *text) {
    report_put_cut(page, text, strlen(text), REPORT_NAME);
}

void report_put_end(tool_text *page, size_t begin, size_t empty, const char *end) {
    if (page->len == empty) {
        page->len = begin;
        page->text[begin] = '\0';
    } else {
        report_put(page, "%s", end);
    }
}

void report_put_json(tool_text *page, const char *text) {
    size_t len = strlen(text);
    report_put(page, "\"");
    for (size_t i = 0; i < len && i < REPORT_NAME;) {
        size_t n = text_character((const unsigned char *)text + i, len - i);
        if (n == 0 || strchr("<>&\"\\\n\t", text[i]) != NULL) {
            report_put(page, "\\u%04x", n == 0 ? 0xfffdu : (unsigned)(unsigned char)text[i]);
            n = 1;
        } else {
            tool_append(page, text + i, n);
        }
        i += n;
    }
    report_put(page, "%s\"", len > REPORT_NAME ? "\u2026" : "");
}

const char *report_figure(double value, int digits, char out[TOOL_SHORT]) {
    if (!isfinite(value)) {
        (void)snprintf(out, TOOL_SHORT, "\u2013");
    } else {
        (void)snprintf(out, TOOL_SHORT, "%.*g", digits, value);
    }
    return out;
}
