/* json.c - JSON text to a tree.
 *
 * Grammar: RFC 8259, strictly (no comments, no trailing commas, no NaN). Beyond it: a UTF-8 byte order mark is skipped,
 * duplicate keys of an object are errors, nesting ends at PEFT__JSON_DEPTH, and an escape of half a surrogate pair
 * reads as U+FFFD. Strings must be valid UTF-8.
 *
 * A string never grows when its escapes are resolved, so one block as long as the text takes all strings, each at the
 * offset it has in the text: that offset is also where errors about it point. Containers are kept on a stack of our
 * own: a hostile text cannot exhaust the thread's.
 *
 * Left out: streaming, and a faithful copy of numbers beyond double. */
#include <math.h>
#include <stdio.h>

#include "io/io.h"

/* Objects with more keys than this are checked for duplicates with a hash table. */
enum { JSON_FEW_KEYS = 16 };

/* An array or object whose end was not read yet. */
typedef struct json_frame {
    size_t first;  /* its first child in json_reader.nodes */
    size_t start;  /* offset of its bracket in the text */
    bool object;
} json_frame;

typedef struct json_reader {
    peft__arena *arena; /* borrowed: owns the tree */
    const char *text;   /* borrowed */
    size_t len, pos;    /* bytes of text, and those read */
    const char *what;   /* borrowed: name of the text in errors */
    char *strings;      /* arena block of len + 1 bytes */
    peft__vec nodes;    /* peft__json: children of open containers; of objects key, value, key, value */
    size_t depth;       /* open containers */
    json_frame frames[PEFT__JSON_DEPTH];
} json_reader;

PEFT__PRINTF(3, 4)
static peft_status json_fail(const json_reader *r, size_t pos, const char *fmt, ...) {
    char msg[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    size_t line = 1;
    size_t column = 1;
    for (size_t i = 0; i < pos && i < r->len; i++) {
        unsigned char c = (unsigned char)r->text[i];
        if (c == '\n') {
            line++;
            column = 1;
        } else if ((c & 0xC0u) != 0x80u) { /* columns count characters, not bytes */
            column++;
        }
    }
    return peft__fail(PEFT_E_FORMAT, "%s: line %zu, column %zu: %s", r->what, line, column, msg);
}

/* "expected <wanted>, found ..." at the present position. */
static peft_status json_fail_here(const json_reader *r, const char *wanted) {
    if (r->pos >= r->len) { return json_fail(r, r->len, "expected %s, found the end of the text", wanted); }
    unsigned char c = (unsigned char)r->text[r->pos];
    if (c > 0x20 && c < 0x7F) { return json_fail(r, r->pos, "expected %s, found '%c'", wanted, c); }
    return json_fail(r, r->pos, "expected %s, found the byte 0x%02X", wanted, c);
}

static void json_skip_space(json_reader *r) {
    while (r->pos < r->len) {
        char c = r->text[r->pos];
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t') { return; }
        r->pos++;
    }
}

static bool json_at(const json_reader *r, char c) {
    return r->pos < r->len && r->text[r->pos] == c;
}

/* ---- strings --------------------------------------------------------------------------------------------------- */

/* Four hexadecimal digits at pos; false when they are not all there. */
static bool json_hex4(const json_reader *r, size_t pos, uint32_t *out) {
    if (r->len - pos < 4) { return false; }
    uint32_t v = 0;
    for (size_t i = 0; i < 4; i++) {
        char c = r->text[pos + i];
        uint32_t d;
        if (c >= '0' && c <= '9') {
            d = (uint32_t)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            d = (uint32_t)(c - 'a') + 10;
        } else if (c >= 'A' && c <= 'F') {
            d = (uint32_t)(c - 'A') + 10;
        } else {
            return false;
        }
        v = v << 4 | d;
    }
    *out = v;
    return true;
}

/* The digits of a \u escape, r->pos at the first of them; takes the second half of a surrogate pair too. */
static peft_status json_read_unicode(json_reader *r, char **dst) {
    uint32_t cp;
    if (!json_hex4(r, r->pos, &cp)) { return json_fail(r, r->pos, "expected four hexadecimal digits after \\u"); }
    r->pos += 4;
    if (cp >= 0xD800 && cp <= 0xDFFF) {
        uint32_t low = 0;
        bool pair = cp < 0xDC00 && r->len - r->pos >= 6 && r->text[r->pos] == '\\' && r->text[r->pos + 1] == 'u' &&
                    json_hex4(r, r->pos + 2, &low) && low >= 0xDC00 && low <= 0xDFFF;
        if (pair) {
            cp = 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00);
            r->pos += 6;
        } else {
            cp = 0xFFFD;
        }
    }
    char out[4];
    size_t n = peft__utf8_write(cp, out);
    memcpy(*dst, out, n);
    *dst += n;
    return PEFT_OK;
}

/* An escape, r->pos at its backslash. */
static peft_status json_read_escape(json_reader *r, char **dst) {
    static const char codes[] = "\"\\/bfnrt";
    static const char values[] = "\"\\/\b\f\n\r\t";
    size_t start = r->pos++;
    char c = '\0';
    if (r->pos < r->len) { c = r->text[r->pos]; }
    if (c == 'u') {
        r->pos++;
        return json_read_unicode(r, dst);
    }
    const char *at = c != '\0' ? strchr(codes, c) : NULL;
    if (at == NULL) { return json_fail(r, start, "unknown escape after a backslash"); }
    r->pos++;
    *(*dst)++ = values[at - codes];
    return PEFT_OK;
}

static bool json_is_plain(unsigned char c) {
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

/* A string, r->pos at its quote. */
static peft_status json_read_string(json_reader *r, peft__json *out) {
    peft_status st = PEFT_OK;
    size_t open = r->pos++;
    char *start = r->strings + r->pos;
    char *dst = start;
    for (;;) {
        size_t end = r->pos;
        while (end < r->len && json_is_plain((unsigned char)r->text[end])) { end++; }
        memcpy(dst, r->text + r->pos, end - r->pos);
        dst += end - r->pos;
        r->pos = end;
        if (end >= r->len) { return json_fail(r, open, "this string has no end"); }
        unsigned char c = (unsigned char)r->text[end];
        if (c == '"') { break; }
        if (c == '\\') {
            TRY(json_read_escape(r, &dst));
            continue;
        }
        if (c < 0x20) { return json_fail(r, end, "a string holds the control character 0x%02X unescaped", c); }
        uint32_t cp;
        size_t n = peft__utf8_read(r->text + end, r->len - end, &cp);
        if (n == 0) { return json_fail(r, end, "invalid UTF-8 at byte 0x%02X, offset %zu of the text", c, end); }
        memcpy(dst, r->text + end, n);
        dst += n;
        r->pos += n;
    }
    *dst = '\0';
    r->pos++;
    *out = (peft__json){.kind = PEFT__JSON_STRING, .str = start, .len = (size_t)(dst - start)};
out:
    return st;
}

/* ---- numbers and words ------------------------------------------------------------------------------------------- */

static size_t json_skip_digits(json_reader *r) {
    size_t start = r->pos;
    while (r->pos < r->len && r->text[r->pos] >= '0' && r->text[r->pos] <= '9') { r->pos++; }
    return r->pos - start;
}

static peft_status json_read_number(json_reader *r, peft__json *out) {
    size_t start = r->pos;
    bool whole = true;
    if (json_at(r, '-')) { r->pos++; }
    if (json_at(r, '0')) {
        r->pos++;
        if (r->pos < r->len && r->text[r->pos] >= '0' && r->text[r->pos] <= '9') {
            return json_fail(r, start, "a number starts with a superfluous 0");
        }
    } else if (json_skip_digits(r) == 0) {
        return json_fail_here(r, "a digit");
    }
    if (json_at(r, '.')) {
        whole = false;
        r->pos++;
        if (json_skip_digits(r) == 0) { return json_fail_here(r, "a digit after the decimal point"); }
    }
    if (json_at(r, 'e') || json_at(r, 'E')) {
        whole = false;
        r->pos++;
        if (json_at(r, '+') || json_at(r, '-')) { r->pos++; }
        if (json_skip_digits(r) == 0) { return json_fail_here(r, "a digit of the exponent"); }
    }
    *out = (peft__json){.kind = PEFT__JSON_NUMBER};
    const char *s = r->text + start;
    size_t n = r->pos - start;
    if (whole && peft__parse_i64(s, n, &out->i)) {
        out->is_int = true;
        out->num = (double)out->i;
    } else if (!peft__parse_f64(s, n, &out->num) || !isfinite(out->num)) {
        return json_fail(r, start, "the number %.*s is out of range", (int)PEFT__MIN(n, (size_t)40), s);
    }
    return PEFT_OK;
}

static bool json_take_word(json_reader *r, const char *word) {
    size_t n = strlen(word);
    if (r->len - r->pos < n || memcmp(r->text + r->pos, word, n) != 0) { return false; }
    r->pos += n;
    return true;
}

static peft_status json_read_word(json_reader *r, peft__json *out) {
    if (json_take_word(r, "true")) {
        *out = (peft__json){.kind = PEFT__JSON_BOOL, .truth = true};
    } else if (json_take_word(r, "false")) {
        *out = (peft__json){.kind = PEFT__JSON_BOOL};
    } else if (json_take_word(r, "null")) {
        *out = (peft__json){.kind = PEFT__JSON_NULL};
    } else if (json_at(r, 'N') || json_at(r, 'I')) {
        return json_fail(r, r->pos, "expected a value, found a name (NaN and Infinity are not JSON)");
    } else {
        return json_fail_here(r, "a value");
    }
    return PEFT_OK;
}

/* ---- containers -------------------------------------------------------------------------------------------------- */

static peft_status json_fail_twice(const json_reader *r, const peft__json *key) {
    size_t pos = (size_t)(key->str - r->strings) - 1;
    return json_fail(r, pos, "the key \"%.*s\" appears twice in one object", (int)PEFT__MIN(key->len, (size_t)80),
                     key->str);
}

static bool json_same_text(const peft__json *a, const peft__json *b) {
    return a->len == b->len && memcmp(a->str, b->str, a->len) == 0;
}

static peft_status json_check_keys(const json_reader *r, const peft__json *keys, size_t count) {
    peft_status st = PEFT_OK;
    if (count <= JSON_FEW_KEYS) {
        for (size_t i = 1; i < count; i++) {
            for (size_t k = 0; k < i; k++) {
                if (json_same_text(&keys[i], &keys[k])) { return json_fail_twice(r, &keys[i]); }
            }
        }
        return PEFT_OK;
    }
    peft__map seen;
    peft__map_init(&seen, r->arena->mem);
    for (size_t i = 0; i < count && st == PEFT_OK; i++) {
        st = peft__map_put(&seen, keys[i].str, keys[i].len, (int64_t)i);
        if (st == PEFT_E_EXISTS) { st = json_fail_twice(r, &keys[i]); }
    }
    peft__map_free(&seen);
    return st;
}

static peft_status json_open(json_reader *r, bool object) {
    if (r->depth == PEFT__JSON_DEPTH) {
        return json_fail(r, r->pos, "arrays and objects are nested deeper than %d", (int)PEFT__JSON_DEPTH);
    }
    r->frames[r->depth++] = (json_frame){.first = r->nodes.len, .start = r->pos, .object = object};
    r->pos++;
    return PEFT_OK;
}

/* Moves the children of the innermost container from the stack to the arena; r->pos at its closing bracket. */
static peft_status json_close(json_reader *r, peft__json *out) {
    peft_status st = PEFT_OK;
    json_frame f = r->frames[r->depth - 1];
    size_t step = f.object ? 2 : 1;
    size_t count = (r->nodes.len - f.first) / step;
    *out = (peft__json){.kind = f.object ? PEFT__JSON_OBJECT : PEFT__JSON_ARRAY, .len = count};
    if (count > 0) {
        const peft__json *from = &PEFT__VEC_AT(&r->nodes, peft__json, f.first);
        size_t bytes;
        if (!peft__mul(count, step * sizeof *from, &bytes)) {
            FAIL(PEFT_E_NOMEM, "%s: %zu values are too many", r->what, count);
        }
        peft__json *items = peft__arena_alloc(r->arena, bytes);
        if (items == NULL) {
            st = PEFT_E_NOMEM;
            goto out;
        }
        if (f.object) {
            peft__json *keys = items + count;
            for (size_t i = 0; i < count; i++) {
                keys[i] = from[2 * i];
                items[i] = from[2 * i + 1];
            }
            out->keys = keys;
            TRY(json_check_keys(r, keys, count));
        } else {
            memcpy(items, from, bytes);
        }
        out->items = items;
    }
    r->nodes.len = f.first;
    r->depth--;
    r->pos++;
out:
    return st;
}

/* "key": and the white space around it; the key goes on the stack. */
static peft_status json_read_key(json_reader *r) {
    peft_status st = PEFT_OK;
    peft__json key;
    json_skip_space(r);
    if (!json_at(r, '"')) { return json_fail_here(r, "a key in quotes"); }
    TRY(json_read_string(r, &key));
    json_skip_space(r);
    if (!json_at(r, ':')) { return json_fail_here(r, "':' after a key"); }
    r->pos++;
    TRY(peft__vec_push(&r->nodes, &key));
out:
    return st;
}

/* Reads one scalar or an empty container into *out, or opens a container (*opened) up to where its first value
 * starts. */
static peft_status json_read_start(json_reader *r, peft__json *out, bool *opened) {
    *opened = false;
    json_skip_space(r);
    char c = '\0';
    if (r->pos < r->len) { c = r->text[r->pos]; }
    if (c == '"') { return json_read_string(r, out); }
    if (c == '-' || (c >= '0' && c <= '9')) { return json_read_number(r, out); }
    if (c != '{' && c != '[') { return json_read_word(r, out); }
    peft_status st = json_open(r, c == '{');
    if (st != PEFT_OK) { return st; }
    json_skip_space(r);
    if (json_at(r, c == '{' ? '}' : ']')) { return json_close(r, out); }
    *opened = true;
    return c == '{' ? json_read_key(r) : PEFT_OK;
}

static peft_status json_read_root(json_reader *r, peft__json *root) {
    peft_status st = PEFT_OK;
    for (;;) {
        peft__json node = {0};
        bool open;
        TRY(json_read_start(r, &node, &open));
        while (!open) { /* a value is complete: it is the root, or the innermost container goes on or ends */
            if (r->depth == 0) {
                *root = node;
                return PEFT_OK;
            }
            json_frame f = r->frames[r->depth - 1];
            TRY(peft__vec_push(&r->nodes, &node));
            json_skip_space(r);
            if (json_at(r, ',')) {
                r->pos++;
                if (f.object) { TRY(json_read_key(r)); }
                open = true;
            } else if (json_at(r, f.object ? '}' : ']')) {
                TRY(json_close(r, &node));
            } else if (r->pos >= r->len) {
                st = json_fail(r, f.start, "this %s has no end", f.object ? "object" : "array");
                goto out;
            } else {
                st = json_fail_here(r, f.object ? "',' or '}'" : "',' or ']'");
                goto out;
            }
        }
    }
out:
    return st;
}

peft_status peft__json_parse(peft__arena *a, const char *text, size_t len, const char *what, const peft__json **out) {
    peft_status st = PEFT_OK;
    json_reader r = {.arena = a, .text = text, .len = len, .what = what};
    peft__vec_init(&r.nodes, a->mem, sizeof(peft__json));
    size_t bytes;
    if (!peft__add(len, 1, &bytes)) { FAIL(PEFT_E_NOMEM, "%s: the text is too long", what); }
    r.strings = peft__arena_alloc(a, bytes);
    peft__json *root = peft__arena_alloc(a, sizeof *root);
    if (r.strings == NULL || root == NULL) {
        st = PEFT_E_NOMEM;
        goto out;
    }
    if (len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) { r.pos = 3; }
    TRY(json_read_root(&r, root));
    json_skip_space(&r);
    if (r.pos != len) { TRY(json_fail_here(&r, "nothing after the value")); }
    *out = root;
out:
    peft__vec_free(&r.nodes);
    return st;
}

peft_status peft__json_read(peft__arena *a, const char *path, const peft__json **out) {
    peft_status st = PEFT_OK;
    peft__file f = {0};
    TRY(peft__file_open(a->mem, path, false, &f));
    st = peft__json_parse(a, (const char *)f.data, f.size, path, out);
    peft__file_close(&f);
out:
    return st;
}
