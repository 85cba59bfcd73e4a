/* minijson.c - a tiny JSON reader (RFC 8259). Leaves out: a check that strings are valid UTF-8, and numbers beyond what a
 * double holds (their text is kept). Depth is bounded, so that no input can exhaust the stack. */
#include "minijson.h"

#include "tool.h"

#include <stdlib.h>
#include <string.h>

enum { JSON_DEPTH = 64 };

typedef struct json_reader {
    char *p;          /* next byte; the text ends with a NUL */
    json_value *free; /* next unused value */
    int line;         /* that p is in */
} json_reader;

static bool json_read(json_reader *r, json_value *v, int depth);

static void json_space(json_reader *r) {
    for (size_t n = strspn(r->p, " \t\r\n"); n > 0; n--) { r->line += *r->p++ == '\n'; /* strings have none */ }
}

static bool json_hex4(const char *p, unsigned *out) {
    *out = 0;
    for (int i = 0; i < 4; i++) {
        static const char digits[] = "0123456789abcdef0123456789ABCDEF";
        const char *d = p[i] != '\0' ? strchr(digits, p[i]) : NULL;
        if (d == NULL) { return false; }
        *out = *out * 16 + (unsigned)((d - digits) % 16);
    }
    return true;
}

static char *json_put_utf8(char *to, unsigned c) {
    if (c < 0x80) {
        *to++ = (char)c;
    } else if (c < 0x800) {
        *to++ = (char)(0xc0 | c >> 6);
        *to++ = (char)(0x80 | (c & 63));
    } else if (c < 0x10000) {
        *to++ = (char)(0xe0 | c >> 12);
        *to++ = (char)(0x80 | (c >> 6 & 63));
        *to++ = (char)(0x80 | (c & 63));
    } else {
        *to++ = (char)(0xf0 | c >> 18);
        *to++ = (char)(0x80 | (c >> 12 & 63));
        *to++ = (char)(0x80 | (c >> 6 & 63));
        *to++ = (char)(0x80 | (c & 63));
    }
    return to;
}

/* At the byte after \u; a pair of surrogates is one character, half a pair becomes U+FFFD. */
static bool json_unicode(json_reader *r, char **to) {
    unsigned c = 0, low = 0;
    if (!json_hex4(r->p, &c)) { return false; }
    r->p += 4;
    if (c >= 0xd800 && c < 0xdc00 && r->p[0] == '\\' && r->p[1] == 'u' && json_hex4(r->p + 2, &low) && low >= 0xdc00 &&
        low < 0xe000) {
        r->p += 6;
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    } else if (c >= 0xd800 && c < 0xe000) {
        c = 0xfffd;
    }
    *to = json_put_utf8(*to, c);
    return true;
}

/* At the opening quote. No escape is shorter than what it stands for, so the string is rewritten where it is. */
static bool json_string(json_reader *r, const char **text, size_t *len) {
    char *start = ++r->p, *to = start;
    for (;;) {
        char c = *r->p;
        if (c == '"') { break; }
        if ((unsigned char)c < 0x20) { return false; /* the end of the text too */ }
        r->p++;
        if (c != '\\') {
            *to++ = c;
            continue;
        }
        static const char names[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
        c = *r->p++;
        const char *name = c != '\0' ? strchr(names, c) : NULL;
        if (name != NULL) {
            *to++ = meant[name - names];
        } else if (c != 'u' || !json_unicode(r, &to)) {
            return false;
        }
    }
    r->p++;
    *to = '\0';
    *text = start;
    *len = (size_t)(to - start);
    return true;
}

/* Members or elements up to the closing bracket; at the opening one. */
static bool json_group(json_reader *r, json_value *v, char close, int depth) {
    json_value **link = &v->first;
    r->p++;
    json_space(r);
    if (*r->p == close) {
        r->p++;
        return true;
    }
    for (;;) {
        json_value *item = r->free++;
        size_t key_len = 0;
        json_space(r);
        int line = r->line;
        if (v->kind == JSON_OBJECT) {
            if (*r->p != '"' || !json_string(r, &item->key, &key_len)) { return false; }
            json_space(r);
            if (*r->p++ != ':') { return false; }
        }
        if (!json_read(r, item, depth + 1)) { return false; }
        item->line = line;
        *link = item;
        link = &item->next;
        v->count++;
        json_space(r);
        char c = *r->p++;
        if (c == close) { return true; }
        if (c != ',') { return false; }
    }
}

static bool json_word(json_reader *r, json_value *v, json_kind kind, const char *word) {
    size_t len = strlen(word);
    if (strncmp(r->p, word, len) != 0) { return false; }
    r->p += len;
    v->kind = kind;
    v->text = word;
    v->len = len;
    return true;
}

/* The text of a number is terminated later, by json_close_numbers: here the next byte is still needed. */
static bool json_number(json_reader *r, json_value *v) {
    size_t len = strspn(r->p, "+-.0123456789eE");
    char *end = NULL;
    v->kind = JSON_NUMBER;
    v->text = r->p;
    v->len = len;
    v->number = len > 0 ? strtod(r->p, &end) : 0.0;
    if (len == 0 || end != r->p + len) { return false; }
    r->p = end;
    return true;
}

static bool json_read(json_reader *r, json_value *v, int depth) {
    if (depth > JSON_DEPTH) { return false; }
    json_space(r);
    switch (*r->p) {
        case '{': v->kind = JSON_OBJECT; return json_group(r, v, '}', depth);
        case '[': v->kind = JSON_ARRAY; return json_group(r, v, ']', depth);
        case '"': v->kind = JSON_STRING; return json_string(r, &v->text, &v->len);
        case 't': return json_word(r, v, JSON_TRUE, "true");
        case 'f': return json_word(r, v, JSON_FALSE, "false");
        case 'n': return json_word(r, v, JSON_NULL, "null");
        default: return json_number(r, v);
    }
}

static void json_close_numbers(json_doc *doc, const json_value *end) {
    for (json_value *v = doc->values; v < end; v++) {
        if (v->kind == JSON_NUMBER) { doc->text[v->text - doc->text + (ptrdiff_t)v->len] = '\0'; }
    }
}

bool json_parse(json_doc *doc, const char *text, size_t len) {
    int line = 0;
    return json_parse_at(doc, text, len, &line);
}

bool json_parse_at(json_doc *doc, const char *text, size_t len, int *line) {
    size_t most = 1; /* every value but the root follows an opening bracket or a comma */
    for (size_t i = 0; i < len; i++) { most += text[i] == '[' || text[i] == '{' || text[i] == ','; }
    doc->values = tool_alloc(most * sizeof *doc->values);
    doc->text = tool_copy(text, len);
    json_reader r = {doc->text, doc->values + 1, 1};
    json_space(&r);
    doc->values->line = r.line;
    bool good = json_read(&r, doc->values, 0);
    if (r.p <= doc->text + len) { json_space(&r); } /* what fails at the NUL has passed it */
    *line = r.line;
    if (!good || r.p != doc->text + len) {
        json_free(doc);
        return false;
    }
    json_close_numbers(doc, r.free);
    return true;
}

void json_free(json_doc *doc) {
    free(doc->values);
    free(doc->text);
    *doc = (json_doc){NULL, NULL};
}

const json_value *json_get(const json_value *object, const char *key) {
    if (object == NULL || object->kind != JSON_OBJECT) { return NULL; }
    for (const json_value *v = object->first; v != NULL; v = v->next) {
        if (strcmp(v->key, key) == 0) { return v; }
    }
    return NULL;
}
