/* unicode.c - the class of a code point, as the splitting rules of tokenizers see it: \p{L}, \p{N}, \s, \p{P}.
 *
 * Tables: unicode_tables.h, made by tools/gen_unicode.py. Left out: scripts, case, and every other property. */
#include "text/parts.h"

#include "text/unicode_tables.h"

int32_t peft__unicode_class(uint32_t cp) {
    uint32_t block = cp >> 7;
    if (block >= UNICODE_INDEX) { return PEFT__UNI_OTHER; }
    uint32_t packed = unicode_block[(uint32_t)unicode_index[block] * 64 + ((cp & 127) >> 1)];
    return (int32_t)((cp & 1) ? packed >> 4 : packed & 15);
}

/* ---- normal form C ----
 * Decompose, sort the marks of each starter by combining class, compose again (Unicode Standard Annex 15). It stands
 * in this file because it reads the same tables. */

enum { /* Hangul syllables are composed by arithmetic: Unicode Standard, section 3.12 */
       NFC_S = 0xAC00,
       NFC_L = 0x1100,
       NFC_V = 0x1161,
       NFC_T = 0x11A7,
       NFC_LN = 19,
       NFC_VN = 21,
       NFC_TN = 28,
       NFC_SN = NFC_LN * NFC_VN * NFC_TN
};
#define NFC_RAW 0x80000000u /* marks a byte that is no UTF-8 */

typedef struct peft__nfc_char {
    uint32_t cp;  /* or NFC_RAW | byte */
    uint32_t ccc; /* canonical combining class */
} peft__nfc_char;

static uint32_t nfc_class(uint32_t cp) {
    size_t lo = 0, hi = UNICODE_CCC;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (cp > unicode_ccc[mid * 3 + 1]) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < UNICODE_CCC && cp >= unicode_ccc[lo * 3] ? unicode_ccc[lo * 3 + 2] : 0;
}

/* The row of cp in the table of decompositions; UNICODE_DECOMP: none. */
static size_t nfc_find(uint32_t cp) {
    size_t lo = 0, hi = UNICODE_DECOMP;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (unicode_decomp[mid * 3] < cp) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < UNICODE_DECOMP && unicode_decomp[lo * 3] == cp ? lo : UNICODE_DECOMP;
}

static peft_status nfc_push(peft__vec *v, uint32_t cp) {
    peft__nfc_char c = {cp, cp >= 0x300 && cp < NFC_RAW ? nfc_class(cp) : 0};
    return peft__vec_push(v, &c);
}

static peft_status nfc_decompose(peft__vec *v, uint32_t cp) {
    peft_status st = PEFT_OK;
    uint32_t tail[8]; /* second parts, to be written after the first: chains are at most four long */
    size_t n = 0;
    if (cp >= NFC_S && cp < NFC_S + NFC_SN) {
        uint32_t s = cp - NFC_S;
        TRY(nfc_push(v, NFC_L + s / (NFC_VN * NFC_TN)));
        TRY(nfc_push(v, NFC_V + s % (NFC_VN * NFC_TN) / NFC_TN));
        if (s % NFC_TN != 0) { TRY(nfc_push(v, NFC_T + s % NFC_TN)); }
        goto out;
    }
    for (size_t row; n < PEFT__COUNT(tail) && (row = nfc_find(cp)) < UNICODE_DECOMP;) {
        if (unicode_decomp[row * 3 + 2] != 0) { tail[n++] = unicode_decomp[row * 3 + 2]; }
        cp = unicode_decomp[row * 3 + 1];
    }
    TRY(nfc_push(v, cp));
    while (n > 0) { TRY(nfc_push(v, tail[--n])); }
out:
    return st;
}

static void nfc_order(peft__nfc_char *c, size_t n) {
    for (size_t i = 1; i < n; i++) { /* runs of marks are short: insertion sort, stable */
        peft__nfc_char x = c[i];
        size_t k = i;
        while (x.ccc != 0 && k > 0 && c[k - 1].ccc > x.ccc) {
            c[k] = c[k - 1];
            k--;
        }
        c[k] = x;
    }
}

/* The composite of two characters; 0: none. */
static uint32_t nfc_pair(uint32_t a, uint32_t b) {
    if (a >= NFC_L && a < NFC_L + NFC_LN && b >= NFC_V && b < NFC_V + NFC_VN) {
        return NFC_S + ((a - NFC_L) * NFC_VN + (b - NFC_V)) * NFC_TN;
    }
    if (a >= NFC_S && a < NFC_S + NFC_SN && (a - NFC_S) % NFC_TN == 0 && b > NFC_T && b < NFC_T + NFC_TN) {
        return a + (b - NFC_T);
    }
    size_t lo = 0, hi = UNICODE_COMP;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const uint32_t *row = unicode_comp + mid * 3;
        if (row[0] < a || (row[0] == a && row[1] < b)) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    const uint32_t *row = unicode_comp + lo * 3;
    return lo < UNICODE_COMP && row[0] == a && row[1] == b ? row[2] : 0;
}

static size_t nfc_compose(peft__nfc_char *c, size_t n) {
    size_t out = 0, starter = SIZE_MAX;
    uint32_t last = 0; /* combining class of the character written last, after the starter */
    for (size_t i = 0; i < n; i++) {
        bool next_to = starter != SIZE_MAX && starter + 1 == out;
        bool blocked = starter == SIZE_MAX || (!next_to && last >= c[i].ccc);
        uint32_t joined = blocked ? 0 : nfc_pair(c[starter].cp, c[i].cp);
        if (joined != 0) {
            c[starter].cp = joined;
            continue;
        }
        if (c[i].ccc == 0) { starter = out; }
        last = c[i].ccc;
        c[out++] = c[i];
    }
    return out;
}

bool peft__nfc_quick(const char *text, size_t len) {
    for (size_t i = 0; i < len; i++) { /* U+0300, the first character that may change, begins with byte 0xCC */
        if ((unsigned char)text[i] >= 0xCC) { return false; }
    }
    return true;
}

peft_status peft__nfc(peft__mem *mem, const char *text, size_t len, peft__str *out) {
    peft_status st = PEFT_OK;
    peft__vec v;
    peft__vec_init(&v, mem, sizeof(peft__nfc_char));
    for (size_t i = 0; i < len;) {
        uint32_t cp = 0;
        size_t n = peft__utf8_read(text + i, len - i, &cp);
        if (n == 0) {
            TRY(nfc_push(&v, NFC_RAW | (unsigned char)text[i]));
        } else {
            TRY(nfc_decompose(&v, cp));
        }
        i += n == 0 ? 1 : n;
    }
    peft__nfc_char *c = v.data;
    nfc_order(c, v.len);
    size_t count = nfc_compose(c, v.len);
    for (size_t i = 0; i < count; i++) {
        char buf[4] = {(char)(c[i].cp & 0xFF), 0, 0, 0};
        peft__str_put(out, buf, c[i].cp & NFC_RAW ? 1 : peft__utf8_write(c[i].cp, buf));
    }
    st = peft__str_status(out);
out:
    peft__vec_free(&v);
    return st;
}
#undef NFC_RAW
