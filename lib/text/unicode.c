/* unicode.c - what the splitting and normalising rules of tokenizers ask about a code point, and the normal forms.
 *
 * Tables: unicode_tables.h, made by tools/gen_unicode.py. Left out: scripts, title and upper case, and the parts of
 * grapheme clusters that no character map of a tokenizer can see (Hangul, flags, joined emoji: all are too long). */
#include "text/parts.h"

#include "text/unicode_tables.h"

enum { /* kinds of the table; those of Hugging Face's BERT are of older versions of Unicode than the others */
       UNI_OTHER = 0,
       UNI_LETTER = 1,
       UNI_NUMBER = 2, /* decimal digits and letters for numbers */
       UNI_SPACE = 3,
       UNI_PUNCT = 4,
       UNI_ACCENT = 5,       /* a mark that BERT strips */
       UNI_MARK = 6,         /* a mark that StripAccents strips too */
       UNI_CONTROL = 7,      /* control, format and private use: BERT removes it */
       UNI_NEW_PUNCT = 8,    /* punctuation that BERT does not know */
       UNI_NEW_MARK = 9,     /* a mark that nobody strips */
       UNI_OLD_PUNCT = 10,   /* BERT's punctuation, a symbol now */
       UNI_FRACTION = 11,    /* a number that is no part of a word */
       UNI_WORD_SYMBOL = 12, /* circled letters: a symbol that is part of a word */
       UNI_PUNCT_MARK = 13   /* a mark that was punctuation, which it is to BERT still */
};

static uint32_t uni_kind(uint32_t cp) {
    uint32_t stretch = cp >> 9;
    if (stretch >= UNICODE_TOP) { /* planes 15 and 16 are for private use, but for their last two */
        return cp >= 0xF0000 && cp < 0x110000 && (cp & 0xFFFE) != 0xFFFE ? UNI_CONTROL : UNI_OTHER;
    }
    uint32_t block = unicode_index[(uint32_t)unicode_top[stretch] * 16 + ((cp & 511) >> 5)];
    uint32_t packed = unicode_block[block * 16 + ((cp & 31) >> 1)];
    return (cp & 1) ? packed >> 4 : packed & 15;
}

int32_t peft__unicode_class(uint32_t cp) {
    switch (uni_kind(cp)) {
        case UNI_LETTER: return PEFT__UNI_LETTER;
        case UNI_NUMBER:
        case UNI_FRACTION: return PEFT__UNI_NUMBER;
        case UNI_SPACE: return PEFT__UNI_SPACE;
        case UNI_PUNCT:
        case UNI_NEW_PUNCT: return PEFT__UNI_PUNCT;
        default: return PEFT__UNI_OTHER;
    }
}

bool peft__unicode_is_word(uint32_t cp) {
    uint32_t kind = uni_kind(cp);
    bool connector = cp == '_' || cp == 0x203F || cp == 0x2040 || cp == 0x2054 || cp == 0xFE33 || cp == 0xFE34 ||
                     (cp >= 0xFE4D && cp <= 0xFE4F) || cp == 0xFF3F;
    return kind == UNI_LETTER || kind == UNI_NUMBER || kind == UNI_ACCENT || kind == UNI_MARK || kind == UNI_NEW_MARK ||
           kind == UNI_WORD_SYMBOL || kind == UNI_PUNCT_MARK || connector || cp == 0x200C || cp == 0x200D;
}

bool peft__unicode_is_punct(uint32_t cp) {
    if (cp < 128) {
        return (cp > 32 && cp < '0') || (cp > '9' && cp < 'A') || (cp > 'Z' && cp < 'a') || (cp > 'z' && cp < 127);
    }
    uint32_t kind = uni_kind(cp);
    return kind == UNI_PUNCT || kind == UNI_OLD_PUNCT || kind == UNI_PUNCT_MARK;
}

bool peft__unicode_is_control(uint32_t cp) {
    return uni_kind(cp) == UNI_CONTROL || cp == 0x0B || cp == 0x0C || cp == 0x85;
}

bool peft__unicode_is_accent(uint32_t cp, bool all) {
    uint32_t kind = cp < 0x300 ? UNI_OTHER : uni_kind(cp);
    return kind == UNI_ACCENT || (all && kind == UNI_MARK);
}

bool peft__unicode_is_han(uint32_t cp) {
    static const uint32_t ranges[][2] = {{0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},  {0x20000, 0x2A6DF},
                                         {0x2A700, 0x2B81F}, {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F}};
    for (size_t i = 0; cp >= 0x3400 && i < PEFT__COUNT(ranges); i++) {
        if (cp >= ranges[i][0] && cp <= ranges[i][1]) { return true; }
    }
    return false;
}

uint32_t peft__unicode_lower(uint32_t cp) {
    if (cp < 128) { return cp >= 'A' && cp <= 'Z' ? cp + 32 : cp; }
    size_t lo = 0, hi = UNICODE_LOWER;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if ((int32_t)cp > unicode_lower[mid * 4 + 1]) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    const int32_t *run = unicode_lower + lo * 4;
    if (lo == UNICODE_LOWER || (int32_t)cp < run[0] || ((int32_t)cp - run[0]) % run[2] != 0) { return cp; }
    return (uint32_t)((int32_t)cp + run[3]);
}

/* ---- grapheme clusters of a few bytes ---- */

/* Joins the character before it: Extend, ZWJ or SpacingMark of Unicode Standard Annex 29. */
static bool uni_extends(uint32_t cp) {
    static const uint32_t not_marks[][2] = {{0x102B, 0x102C},  {0x1038, 0x1038}, {0x1062, 0x1064}, {0x1067, 0x106D},
                                            {0x1083, 0x1083},  {0x1087, 0x108C}, {0x108F, 0x108F}, {0x109A, 0x109C},
                                            {0x1A61, 0x1A61},  {0x1A63, 0x1A64}, {0xAA7B, 0xAA7B}, {0xAA7D, 0xAA7D},
                                            {0x11720, 0x11721}};
    if (cp < 0x300) { return false; }
    uint32_t kind = uni_kind(cp);
    if (kind != UNI_ACCENT && kind != UNI_MARK && kind != UNI_NEW_MARK && kind != UNI_PUNCT_MARK) {
        return cp == 0x200C || cp == 0x200D || cp == 0xE33 || cp == 0xEB3 || cp == 0xFF9E || cp == 0xFF9F ||
               (cp >= 0x1F3FB && cp <= 0x1F3FF) || (cp >= 0xE0020 && cp <= 0xE007F);
    }
    for (size_t i = 0; i < PEFT__COUNT(not_marks); i++) {
        if (cp >= not_marks[i][0] && cp <= not_marks[i][1]) { return false; }
    }
    return true;
}

/* Joins the character after it: Prepend. */
static bool uni_prepends(uint32_t cp) {
    return (cp >= 0x600 && cp <= 0x605) || cp == 0x6DD || cp == 0x70F || cp == 0x890 || cp == 0x891 || cp == 0x8E2 ||
           cp == 0xD4E || cp == 0x110BD || cp == 0x110CD || cp == 0x111C2 || cp == 0x111C3 || cp == 0x1193F ||
           cp == 0x11941 || cp == 0x11A3A || (cp >= 0x11A84 && cp <= 0x11A89) || cp == 0x11D46 || cp == 0x11F02;
}

static bool uni_breaks(uint32_t cp) {
    bool joins = uni_prepends(cp) || uni_extends(cp);
    return cp < 32 || (cp >= 0x7F && cp < 0xA0) || cp == 0x2028 || cp == 0x2029 ||
           (uni_kind(cp) == UNI_CONTROL && !joins && !(cp >= 0xE000 && cp <= 0xF8FF) && cp < 0xF0000);
}

size_t peft__unicode_cluster(const char *s, size_t len) {
    uint32_t cp = 0, next = 0;
    size_t n = peft__utf8_read(s, len, &cp), k;
    if (n == 0 || n == len) { return n == 0 ? 1 : n; }
    if (cp == '\r' && s[1] == '\n') { return 2; }
    if (uni_breaks(cp)) { return n; }
    while (n < len && (k = peft__utf8_read(s + n, len - n, &next)) > 0) {
        bool joined = uni_extends(next) || (uni_prepends(cp) && !uni_breaks(next));
        if (!joined) { break; }
        cp = next;
        n += k;
    }
    return n;
}

/* ---- normal forms ----
 * Decompose, sort the marks of each starter by combining class, for C and KC compose again (Unicode Standard Annex 15).
 * They stand in this file because they read the same tables. */

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
    uint32_t cp;       /* or NFC_RAW | byte */
    uint32_t ccc;      /* canonical combining class */
    peft__place place; /* of what it was made from */
    bool more;         /* not the first that was made from it */
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

static peft_status nfc_push(peft__vec *v, uint32_t cp, peft__place place, bool more) {
    peft__nfc_char c = {cp, cp >= 0x300 && cp < NFC_RAW ? nfc_class(cp) : 0, place, more};
    return peft__vec_push(v, &c);
}

static peft_status nfc_decompose(peft__vec *v, uint32_t cp, peft__place place) {
    peft_status st = PEFT_OK;
    uint32_t tail[8]; /* second parts, to be written after the first: chains are at most four long */
    size_t n = 0;
    if (cp >= NFC_S && cp < NFC_S + NFC_SN) {
        uint32_t s = cp - NFC_S;
        TRY(nfc_push(v, NFC_L + s / (NFC_VN * NFC_TN), place, false));
        TRY(nfc_push(v, NFC_V + s % (NFC_VN * NFC_TN) / NFC_TN, place, true));
        if (s % NFC_TN != 0) { TRY(nfc_push(v, NFC_T + s % NFC_TN, place, true)); }
        goto out;
    }
    for (size_t row; n < PEFT__COUNT(tail) && (row = nfc_find(cp)) < UNICODE_DECOMP;) {
        if (unicode_decomp[row * 3 + 2] != 0) { tail[n++] = unicode_decomp[row * 3 + 2]; }
        cp = unicode_decomp[row * 3 + 1];
    }
    TRY(nfc_push(v, cp, place, false));
    while (n > 0) { TRY(nfc_push(v, tail[--n], place, true)); }
out:
    return st;
}

/* The compatibility decomposition of one character, where it has one; else the canonical one. */
static peft_status nfc_compat(peft__vec *v, uint32_t cp, peft__place place) {
    size_t lo = 0, hi = cp < 0xA0 ? 0 : UNICODE_COMPAT;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (unicode_compat[mid * 2] < cp) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    if (cp < 0xA0 || lo == UNICODE_COMPAT || unicode_compat[lo * 2] != cp) { return nfc_decompose(v, cp, place); }
    uint32_t where = unicode_compat[lo * 2 + 1];
    peft_status st = PEFT_OK;
    for (uint32_t i = 0; st == PEFT_OK && i < (where & 31); i++) {
        st = nfc_push(v, unicode_pool[(where >> 5) + i], place, i > 0);
    }
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
            if (c[starter].more && !c[i].more) { /* as Hugging Face counts: it stands where the mark stood */
                c[starter].place = c[i].place;
                c[starter].more = false;
            }
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

peft_status peft__unicode_form(peft__mem *mem, const peft__aligned *in, bool compat, bool compose, peft__aligned *out) {
    peft_status st = PEFT_OK;
    peft__vec v;
    const char *text = in->text.data;
    size_t len = in->text.len;
    peft__vec_init(&v, mem, sizeof(peft__nfc_char));
    if (PEFT__MINIMAL) {
        FAIL(PEFT_E_UNSUPPORTED, "Unicode normal forms are not supported" PEFT__OF_BUILD);
    } /* large tables */
    for (size_t i = 0; i < len;) {
        uint32_t cp = 0;
        size_t n = peft__utf8_read(text + i, len - i, &cp);
        peft__place place = peft__aligned_at(in, i);
        if (n == 0) {
            TRY(nfc_push(&v, NFC_RAW | (unsigned char)text[i], place, false));
        } else {
            TRY(compat ? nfc_compat(&v, cp, place) : nfc_decompose(&v, cp, place));
        }
        i += n == 0 ? 1 : n;
    }
    peft__nfc_char *c = v.data;
    nfc_order(c, v.len);
    size_t count = compose ? nfc_compose(c, v.len) : v.len;
    for (size_t i = 0; i < count; i++) {
        char buf[4] = {(char)(c[i].cp & 0xFF), 0, 0, 0};
        TRY(peft__aligned_put(out, buf, c[i].cp & NFC_RAW ? 1 : peft__utf8_write(c[i].cp, buf), c[i].place));
    }
out:
    peft__vec_free(&v);
    return st;
}
#undef NFC_RAW
