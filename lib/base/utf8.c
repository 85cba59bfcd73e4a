/* utf8.c - strict UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF.
 *
 * Left out: normalisation, categories and case, which are tables (text/). */
#include "base/base.h"

size_t peft__utf8_read(const char *s, size_t len, uint32_t *cp) {
    const unsigned char *b = (const unsigned char *)s;
    if (len == 0) { return 0; }
    if (b[0] < 0x80) {
        *cp = b[0];
        return 1;
    }
    size_t n = b[0] >= 0xF0 ? 4 : b[0] >= 0xE0 ? 3 : 2;
    if (b[0] < 0xC2 || b[0] > 0xF4 || len < n) { return 0; }
    uint32_t v = b[0] & (0x7FU >> n);
    for (size_t i = 1; i < n; i++) {
        if ((b[i] & 0xC0) != 0x80) { return 0; }
        v = v << 6 | (b[i] & 0x3FU);
    }
    /* The first byte's range already excludes overlong forms of two bytes. */
    if (n == 3 && (v < 0x800 || (v >= 0xD800 && v <= 0xDFFF))) { return 0; }
    if (n == 4 && (v < 0x10000 || v > 0x10FFFF)) { return 0; }
    *cp = v;
    return n;
}

size_t peft__utf8_write(uint32_t cp, char out[4]) {
    if (cp > 0x10FFFF || (cp >= 0xD800 && cp <= 0xDFFF)) { cp = 0xFFFD; } /* the replacement character */
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (cp & 0x3F));
        cp >>= 6;
    }
    out[0] = (char)((0xF00U >> n & 0xF0U) | cp);
    return n;
}

bool peft__utf8_valid(const char *s, size_t len) {
    uint32_t cp;
    for (size_t i = 0; i < len;) {
        size_t n = peft__utf8_read(s + i, len - i, &cp);
        if (n == 0) { return false; }
        i += n;
    }
    return true;
}
