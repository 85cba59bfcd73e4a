/* serve_json.h - the JSON (RFC 8259) of serve.c: strings written, and an object read whose other members are left to the library.
 *
 * Left out: values other than texts, which nothing here looks into. */
#ifndef SERVE_JSON_H
#define SERVE_JSON_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct text { /* bytes, and a NUL after them; zeroed: empty */
    char *p;
    size_t len, room;
    int broken; /* there was no memory for all of it */
} text;

static void put(text *t, const char *p, size_t n) {
    if (t->broken) { return; }
    if (t->room - t->len <= n) {
        size_t room = 2 * t->room + n + 64;
        char *more = realloc(t->p, room);
        if (more == NULL) {
            t->broken = 1;
            return;
        }
        t->p = more;
        t->room = room;
    }
    if (n > 0) { memcpy(t->p + t->len, p, n); }
    t->len += n;
    t->p[t->len] = '\0';
}

static void put_c(text *t, const char *p) { put(t, p, strlen(p)); }

static void put_number(text *t, int64_t value) {
    char digits[24];
    snprintf(digits, sizeof digits, "%lld", (long long)value);
    put_c(t, digits);
}

static void drop_text(text *t) {
    free(t->p);
    *t = (text){0};
}

/* Bytes of the UTF-8 character at p (RFC 3629); 0: it is none. */
static size_t character(const char *at, size_t left) {
    const unsigned char *p = (const unsigned char *)at;
    unsigned low = 0x80, high = 0xbf, c = left > 0 ? p[0] : 0xff;
    size_t n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    if (c == 0xe0) { low = 0xa0; }
    if (c == 0xed) { high = 0x9f; }
    if (c == 0xf0) { low = 0x90; }
    if (c == 0xf4) { high = 0x8f; }
    for (size_t i = 1; i < n; i++, low = 0x80, high = 0xbf) {
        if (i >= left || p[i] < low || p[i] > high) { return 0; }
    }
    return n;
}

/* As a JSON string; bytes that are no UTF-8 become U+FFFD. */
static void put_string(text *t, const char *p, size_t len) {
    char escape[8];
    put_c(t, "\"");
    for (size_t i = 0, n; i < len; i += n > 0 ? n : 1) {
        n = character(p + i, len - i);
        if (n == 0) {
            put_c(t, "\xef\xbf\xbd");
        } else if ((unsigned char)p[i] < 0x20 || p[i] == '"' || p[i] == '\\') {
            snprintf(escape, sizeof escape, "\\u%04x", (unsigned)(unsigned char)p[i]);
            put_c(t, escape);
        } else {
            put(t, p + i, n);
        }
    }
    put_c(t, "\"");
}

/* {"error": message} */
static void put_error(text *t, const char *message) {
    put_c(t, "{\"error\":");
    put_string(t, message, strlen(message));
    put_c(t, "}");
}

typedef struct reader { const char *p, *end; } reader;

static void skip_space(reader *r) {
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\t' || *r->p == '\r' || *r->p == '\n')) { r->p++; }
}

static int take(reader *r, char c) {
    skip_space(r);
    if (r->p == r->end || *r->p != c) { return 0; }
    r->p++;
    return 1;
}

/* Four hexadecimal digits; -1: they are none. */
static long read_hex(reader *r) {
    char digits[5] = "";
    if (r->end - r->p < 4 || strspn(r->p, "0123456789abcdefABCDEF") < 4) { return -1; }
    memcpy(digits, r->p, 4);
    r->p += 4;
    return strtol(digits, NULL, 16);
}

/* After \u; half a pair of surrogates is no character. */
static int read_escape(reader *r, text *out) {
    long c = read_hex(r), low;
    if (c >= 0xd800 && c < 0xdc00 && r->end - r->p > 2 && r->p[0] == '\\' && r->p[1] == 'u') {
        r->p += 2;
        low = read_hex(r);
        if (low < 0xdc00 || low > 0xdfff) { return 0; }
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    }
    if (c < 0 || (c >= 0xd800 && c < 0xe000)) { return 0; }
    char u[4] = {(char)c};
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n; n > 1 && i-- > 1; c >>= 6) { u[i] = (char)(0x80 | (c & 63)); }
    if (n > 1) { u[0] = (char)((0xf00 >> n & 0xf0) | c); }
    put(out, u, n);
    return 1;
}

static int read_string(reader *r, text *out) {
    static const char names[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    if (!take(r, '"')) { return 0; }
    put(out, "", 0);
    for (; r->p < r->end; r->p++) {
        unsigned char c = (unsigned char)*r->p;
        if (c == '"') {
            r->p++;
            return 1;
        }
        if (c < 0x20) { return 0; }
        if (c != '\\') {
            put(out, r->p, 1);
            continue;
        }
        if (++r->p == r->end) { return 0; }
        const char *name = *r->p != '\0' ? strchr(names, *r->p) : NULL;
        if (name != NULL) {
            put(out, meant + (name - names), 1);
        } else if (*r->p++ != 'u' || !read_escape(r, out)) {
            return 0;
        } else {
            r->p--;
        }
    }
    return 0;
}

/* To the end of a value of any kind. That brackets fit and words mean something is seen by the library, which gets it as it is. */
static int skip_value(reader *r) {
    int depth = 0;
    skip_space(r);
    const char *begin = r->p;
    while (r->p < r->end && (depth > 0 || strchr(",}] \t\r\n", *r->p) == NULL)) {
        if (*r->p == '"') {
            text none = {0};
            int good = read_string(r, &none);
            drop_text(&none);
            if (!good) { return 0; }
            continue;
        }
        depth += (*r->p == '[' || *r->p == '{') - (*r->p == ']' || *r->p == '}');
        r->p++;
    }
    return depth == 0 && r->p > begin;
}

/* A member: one of the two texts, or something for the rest. NULL, or what is wrong with it. */
static const char *read_member(reader *r, const char *const names[2], text *found[2], text *rest) {
    static char said[64];
    text key = {0};
    int i = 0;
    skip_space(r);
    const char *begin = r->p;
    int good = read_string(r, &key) && take(r, ':') && !key.broken && strlen(key.p) == key.len;
    while (good && i < 2 && strcmp(names[i], key.p) != 0) { i++; }
    drop_text(&key);
    if (!good) { return "the body is no JSON object"; }
    if (i == 2) {
        if (!skip_value(r)) { return "the body is no JSON object"; }
        put_c(rest, rest->len > 1 ? "," : "");
        put(rest, begin, (size_t)(r->p - begin));
        return NULL;
    }
    skip_space(r);
    int text_follows = r->p < r->end && *r->p == '"', twice = found[i]->p != NULL;
    if (twice || !text_follows) {
        snprintf(said, sizeof said, "key \"%s\" %s", names[i], twice ? "comes twice" : "is no string");
        return said;
    }
    return read_string(r, found[i]) ? NULL : "the body is no JSON object";
}

/* A JSON object: two texts of it by their names (found[i]->p stays NULL where there is none), and the rest as an object. NULL, or what
 * is wrong. */
static const char *read_object(const char *json, size_t len, const char *const names[2], text *found[2], text *rest) {
    reader r = {json, json + len};
    const char *wrong = NULL;
    for (size_t i = 0, n; i < len; i += n) {
        n = character(json + i, len - i);
        if (n == 0) { return "the body is no UTF-8"; }
    }
    put_c(rest, "{");
    if (!take(&r, '{')) { return "the body is no JSON object"; }
    if (!take(&r, '}')) {
        do { wrong = read_member(&r, names, found, rest); } while (wrong == NULL && take(&r, ','));
        if (wrong == NULL && !take(&r, '}')) { wrong = "the body is no JSON object"; }
    }
    skip_space(&r);
    if (wrong == NULL && r.p < r.end) { wrong = "something follows the body's JSON object"; }
    put_c(rest, "}");
    return wrong != NULL ? wrong : rest->broken || found[0]->broken || found[1]->broken ? "there is no memory for the request" : NULL;
}

#endif
