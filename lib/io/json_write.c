/* json_write.c - JSON text from calls in order: the writer sets commas, line breaks and escapes.
 *
 * Whatever it is given, the output is valid JSON in UTF-8: bytes that are no UTF-8 become U+FFFD, NaN and infinities
 * become null. Floats always show a fraction or an exponent, so that they are read back as floats. Allocation failures
 * stay in the peft__str until peft__str_status asks.
 *
 * Left out: checks that calls balance; a key without its value is the caller's bug. */
#include <math.h>

#include "io/io.h"

void peft__json_begin(peft__json_out *j, peft__str *s, int32_t indent) {
    *j = (peft__json_out){.s = s, .indent = indent, .first = true};
}

static void json_write_newline(peft__json_out *j) {
    if (j->indent <= 0) { return; }
    peft__str_putc(j->s, '\n');
    for (int32_t i = 0; i < j->depth * j->indent; i++) { peft__str_putc(j->s, ' '); }
}

/* What stands before a key or a value: nothing after a key or at the top, else comma and line break. */
static void json_write_lead(peft__json_out *j) {
    if (j->after_key) {
        j->after_key = false;
        return;
    }
    if (j->depth > 0) {
        if (!j->first) { peft__str_putc(j->s, ','); }
        json_write_newline(j);
    }
    j->first = false;
}

static void json_write_open(peft__json_out *j, char bracket) {
    json_write_lead(j);
    peft__str_putc(j->s, bracket);
    j->depth++;
    j->first = true;
}

static void json_write_close(peft__json_out *j, char bracket) {
    j->depth--;
    if (!j->first) { json_write_newline(j); }
    peft__str_putc(j->s, bracket);
    j->first = false;
}

void peft__json_object(peft__json_out *j) {
    json_write_open(j, '{');
}

void peft__json_object_end(peft__json_out *j) {
    json_write_close(j, '}');
}

void peft__json_array(peft__json_out *j) {
    json_write_open(j, '[');
}

void peft__json_array_end(peft__json_out *j) {
    json_write_close(j, ']');
}

/* The character at s[*pos], which is no plain ASCII; moves *pos past it. */
static void json_write_special(peft__str *s, const char *text, size_t len, size_t *pos) {
    static const char codes[] = "\"\\\b\f\n\r\t";
    static const char names[] = "\"\\bfnrt";
    unsigned char c = (unsigned char)text[*pos];
    if (c >= 0x80) {
        uint32_t cp;
        size_t n = peft__utf8_read(text + *pos, len - *pos, &cp);
        if (n == 0) {
            peft__str_put(s, "\xEF\xBF\xBD", 3);
            *pos += 1;
        } else {
            peft__str_put(s, text + *pos, n);
            *pos += n;
        }
        return;
    }
    const char *at = c != 0 ? strchr(codes, c) : NULL;
    if (at != NULL) {
        peft__str_putc(s, '\\');
        peft__str_putc(s, names[at - codes]);
    } else {
        peft__str_putf(s, "\\u%04x", (unsigned)c);
    }
    *pos += 1;
}

static void json_write_string(peft__str *s, const char *text, size_t len) {
    peft__str_putc(s, '"');
    for (size_t pos = 0; pos < len;) {
        size_t end = pos;
        while (end < len && text[end] >= 0x20 && text[end] < 0x7F && text[end] != '"' && text[end] != '\\') { end++; }
        peft__str_put(s, text + pos, end - pos);
        pos = end;
        if (pos < len) { json_write_special(s, text, len, &pos); }
    }
    peft__str_putc(s, '"');
}

static void json_write_key(peft__json_out *j, const char *key, size_t len) {
    json_write_lead(j);
    json_write_string(j->s, key, len);
    peft__str_puts(j->s, j->indent > 0 ? ": " : ":");
    j->after_key = true;
}

void peft__json_key(peft__json_out *j, const char *key) {
    json_write_key(j, key, strlen(key));
}

void peft__json_put_str(peft__json_out *j, const char *s, size_t len) {
    json_write_lead(j);
    json_write_string(j->s, s, len);
}

void peft__json_put_text(peft__json_out *j, const char *s) {
    if (s == NULL) {
        peft__json_put_null(j);
    } else {
        peft__json_put_str(j, s, strlen(s));
    }
}

void peft__json_put_int(peft__json_out *j, int64_t v) {
    json_write_lead(j);
    peft__str_putf(j->s, "%lld", (long long)v);
}

static void json_write_number(peft__json_out *j, double v, int32_t digits) {
    if (!isfinite(v)) {
        peft__json_put_null(j);
        return;
    }
    char text[40];
    size_t len = peft__format_f64(v, digits, text);
    json_write_lead(j);
    peft__str_put(j->s, text, len);
    if (memchr(text, '.', len) == NULL && memchr(text, 'e', len) == NULL) { peft__str_put(j->s, ".0", 2); }
}

void peft__json_put_float(peft__json_out *j, double v) {
    json_write_number(j, v, 9);
}

void peft__json_put_double(peft__json_out *j, double v) {
    json_write_number(j, v, 17);
}

void peft__json_put_bool(peft__json_out *j, bool v) {
    json_write_lead(j);
    peft__str_puts(j->s, v ? "true" : "false");
}

void peft__json_put_null(peft__json_out *j) {
    json_write_lead(j);
    peft__str_puts(j->s, "null");
}

static void json_write_scalar(peft__json_out *j, const peft__json *node) {
    switch (node->kind) {
    case PEFT__JSON_BOOL: peft__json_put_bool(j, node->truth); return;
    case PEFT__JSON_STRING: peft__json_put_str(j, node->str, node->len); return;
    case PEFT__JSON_NUMBER:
        if (node->is_int) {
            peft__json_put_int(j, node->i);
        } else {
            peft__json_put_double(j, node->num);
        }
        return;
    default: peft__json_put_null(j); return;
    }
}

void peft__json_put_node(peft__json_out *j, const peft__json *node) {
    /* A stack instead of recursion; a parsed tree is never deeper than this. */
    const peft__json *open[PEFT__JSON_DEPTH];
    size_t next[PEFT__JSON_DEPTH];
    size_t depth = 0;
    for (;;) {
        bool object = node->kind == PEFT__JSON_OBJECT;
        if ((object || node->kind == PEFT__JSON_ARRAY) && depth < PEFT__JSON_DEPTH) {
            json_write_open(j, object ? '{' : '[');
            next[depth] = 0;
            open[depth++] = node;
        } else {
            json_write_scalar(j, node);
        }
        while (depth > 0 && next[depth - 1] == open[depth - 1]->len) {
            depth--;
            json_write_close(j, open[depth]->kind == PEFT__JSON_OBJECT ? '}' : ']');
        }
        if (depth == 0) { return; }
        const peft__json *parent = open[depth - 1];
        size_t i = next[depth - 1]++;
        if (parent->kind == PEFT__JSON_OBJECT) { json_write_key(j, parent->keys[i].str, parent->keys[i].len); }
        node = &parent->items[i];
    }
}
