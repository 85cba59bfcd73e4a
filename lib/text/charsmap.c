/* charsmap.c - SentencePiece's compiled table of character replacements ("precompiled_charsmap").
 *
 * A number of bytes in 32 bits, a trie as a double array of that size, then the replacements, each ended by a NUL. The
 * units of the array are those of Darts-clone (https://github.com/s-yata/darts-clone): bits 0-7 the byte that leads here,
 * with bit 31 for a value; bit 8 whether a value hangs here; bits 10-30 the distance to the children, times 256 with bit 9.
 * tokenizer.json carries the same bytes in base64 (RFC 4648). Every step through the array is checked against its size. */
#include "text/parts.h"

peft_status peft__charsmap_read(const uint8_t *blob, size_t len, const char *what, peft__charsmap *out) {
    size_t size = len < 4 ? 0 : peft__get_u32(blob);
    if (len < 4 || size > len - 4 || size < 4 || size % 4 != 0) {
        return peft__fail(PEFT_E_FORMAT,
                          "%s: the character map says that its trie has %zu bytes, and is %zu bytes in all", what, size,
                          len);
    }
    *out = (peft__charsmap){.units = blob + 4,
                            .count = size / 4,
                            .pool = (const char *)blob + 4 + size,
                            .pool_len = len - 4 - size,
                            .blob = blob,
                            .blob_len = len};
    return PEFT_OK;
}

static int32_t charsmap_digit(char c) {
    if (c >= 'A' && c <= 'Z') { return c - 'A'; }
    if (c >= 'a' && c <= 'z') { return c - 'a' + 26; }
    if (c >= '0' && c <= '9') { return c - '0' + 52; }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

peft_status peft__charsmap_base64(peft__arena *a, const char *text, size_t len, const char *what, peft__charsmap *out) {
    uint8_t *blob = peft__arena_alloc(a, len / 4 * 3 + 4);
    if (blob == NULL) { return PEFT_E_NOMEM; }
    while (len > 0 && text[len - 1] == '=') { len--; }
    size_t n = 0;
    uint32_t bits = 0;
    for (size_t i = 0; i < len; i++) {
        int32_t d = charsmap_digit(text[i]);
        if (d < 0) {
            return peft__fail(PEFT_E_FORMAT, "%s: the character map is no base64: byte 0x%02X at %zu", what,
                              (unsigned)(unsigned char)text[i], i);
        }
        bits = bits << 6 | (uint32_t)d;
        if (i % 4 != 0) { blob[n++] = (uint8_t)(bits >> (6 - 2 * (i % 4))); }
    }
    return peft__charsmap_read(blob, n, what, out);
}

void peft__charsmap_put_base64(const peft__charsmap *map, peft__str *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < map->blob_len; i += 3) {
        size_t left = map->blob_len - i;
        uint32_t v = (uint32_t)map->blob[i] << 16 | (left > 1 ? (uint32_t)map->blob[i + 1] << 8 : 0) |
                     (left > 2 ? (uint32_t)map->blob[i + 2] : 0);
        char four[4] = {digits[v >> 18], digits[v >> 12 & 63], left > 1 ? digits[v >> 6 & 63] : '=',
                        left > 2 ? digits[v & 63] : '='};
        peft__str_put(out, four, 4);
    }
}

/* Where the children of a unit begin, relative to its own number. */
static uint32_t charsmap_offset(uint32_t unit) {
    return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

const char *peft__charsmap_find(const peft__charsmap *map, const char *s, size_t len, bool longest, size_t *used,
                                size_t *out_len) {
    uint32_t at = charsmap_offset(peft__get_u32(map->units)), value = 0;
    bool found = false;
    for (size_t i = 0; i < len && s[i] != '\0' && !(found && !longest); i++) {
        uint32_t byte = (unsigned char)s[i];
        at ^= byte;
        if (at >= map->count) { break; }
        uint32_t unit = peft__get_u32(map->units + (size_t)at * 4);
        if ((unit & 0x800000FFu) != byte) { break; }
        at ^= charsmap_offset(unit);
        if (at >= map->count) { break; }
        if (unit >> 8 & 1) {
            value = peft__get_u32(map->units + (size_t)at * 4) & 0x7FFFFFFFu;
            *used = i + 1;
            found = true;
        }
    }
    if (!found || value >= map->pool_len) { return NULL; }
    const char *text = map->pool + value, *end = memchr(text, '\0', map->pool_len - value);
    *out_len = end == NULL ? map->pool_len - value : (size_t)(end - text);
    return text;
}
