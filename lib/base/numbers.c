/* numbers.c - text to number and back, exactly and without the locale.
 *
 * Reading: up to 15 digits with a power of ten up to 22 are two exact doubles and one rounding (Clinger 1990). All else
 * is a quotient of two big integers, divided bit by bit to 64 bits and a sticky bit, then rounded once. Writing divides
 * the same big integers by tens to 18 digits and a sticky bit, and rounds those to what is asked for.
 *
 * Left out: infinities and NaN on reading (JSON has none), hexadecimal, digit grouping. */
#include "base/base.h"

#include <float.h>

enum {
    NUM_LIMBS = 160,        /* 5120 bits: 10^1115 takes 3704, 770 digits take 2558, and a little room to shift */
    NUM_MAX_DIGITS = 770,   /* no boundary between doubles has more (767); the rest only matters as "not zero" */
    NUM_OUT_DIGITS = 18,    /* one more than is ever written */
};

/* ---- big unsigned integers ------------------------------------------------------------------------------------ */

typedef struct num_big {
    uint32_t limb[NUM_LIMBS]; /* least significant first */
    size_t n;                 /* limbs in use; the top one is not 0 */
} num_big;

static void num_set(num_big *a, uint64_t v) {
    a->limb[0] = (uint32_t)v;
    a->limb[1] = (uint32_t)(v >> 32);
    a->n = a->limb[1] ? 2 : a->limb[0] ? 1 : 0;
}

static void num_mul_add(num_big *a, uint32_t m, uint32_t add) {
    uint64_t carry = add;
    for (size_t i = 0; i < a->n; i++) {
        carry += (uint64_t)a->limb[i] * m;
        a->limb[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry) { a->limb[a->n++] = (uint32_t)carry; }
}

static void num_mul_pow10(num_big *a, int32_t e) {
    for (; e >= 9; e -= 9) { num_mul_add(a, 1000000000U, 0); }
    for (; e > 0; e--) { num_mul_add(a, 10, 0); }
}

static void num_shift(num_big *a, int32_t bits) {
    if (a->n == 0) { return; }
    size_t words = (size_t)bits / 32;
    uint32_t rest = (uint32_t)bits % 32;
    a->limb[a->n] = 0;
    for (size_t i = a->n + 1; i-- > 0;) {
        uint32_t below = i > 0 ? a->limb[i - 1] : 0;
        a->limb[i + words] = rest ? a->limb[i] << rest | below >> (32 - rest) : a->limb[i];
    }
    for (size_t i = 0; i < words; i++) { a->limb[i] = 0; }
    a->n += words + 1;
    while (a->n > 0 && a->limb[a->n - 1] == 0) { a->n--; }
}

static int num_cmp(const num_big *a, const num_big *b) {
    if (a->n != b->n) { return a->n < b->n ? -1 : 1; }
    for (size_t i = a->n; i-- > 0;) {
        if (a->limb[i] != b->limb[i]) { return a->limb[i] < b->limb[i] ? -1 : 1; }
    }
    return 0;
}

static void num_sub(num_big *a, const num_big *b) { /* a >= b */
    uint64_t borrow = 0;
    for (size_t i = 0; i < a->n; i++) {
        uint64_t d = (uint64_t)a->limb[i] - (i < b->n ? b->limb[i] : 0) - borrow;
        a->limb[i] = (uint32_t)d;
        borrow = d >> 63;
    }
    while (a->n > 0 && a->limb[a->n - 1] == 0) { a->n--; }
}

static int32_t num_bits(const num_big *a) {
    if (a->n == 0) { return 0; }
    int32_t bits = (int32_t)(a->n - 1) * 32;
    for (uint32_t top = a->limb[a->n - 1]; top; top >>= 1) { bits++; }
    return bits;
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

bool peft__parse_i64(const char *s, size_t len, int64_t *out) {
    size_t i = 0;
    bool minus = len > 0 && s[0] == '-';
    if (minus) { i++; }
    if (i == len) { return false; }
    uint64_t limit = (uint64_t)INT64_MAX + (minus ? 1 : 0), v = 0;
    for (; i < len; i++) {
        if (s[i] < '0' || s[i] > '9') { return false; }
        uint64_t d = (uint64_t)(s[i] - '0');
        if (v > (limit - d) / 10) { return false; }
        v = v * 10 + d;
    }
    *out = minus ? (v > (uint64_t)INT64_MAX ? INT64_MIN : -(int64_t)v) : (int64_t)v;
    return true;
}

/* A decimal as it was written: digits without leading zeros times 10^exp10. */
typedef struct num_decimal {
    uint8_t digit[NUM_MAX_DIGITS + 1]; /* values 0-9; one more for the sticky digit */
    int32_t n;                         /* digits kept */
    int32_t exp10;                     /* power of ten of the last digit kept */
    bool minus;
} num_decimal;

static bool num_is_digit(const char *s, size_t len, size_t i) {
    return i < len && s[i] >= '0' && s[i] <= '9';
}

/* Digits beyond the limit count for the size of the number, and as one digit 1 at the end if any of them is not 0. */
static void num_push(num_decimal *d, char c, bool fraction, bool *lost) {
    if (d->n < NUM_MAX_DIGITS) {
        if (d->n > 0 || c != '0') { d->digit[d->n++] = (uint8_t)(c - '0'); }
        if (fraction) { d->exp10--; }
    } else {
        if (c != '0') { *lost = true; }
        if (!fraction) { d->exp10++; }
    }
}

/* JSON's grammar: -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)? */
static bool num_scan(const char *s, size_t len, num_decimal *d) {
    size_t i = 0;
    bool lost = false;
    if (len > (size_t)1 << 28) { return false; } /* exponents stay far inside int32 */
    d->n = 0;
    d->exp10 = 0;
    d->minus = len > 0 && s[0] == '-';
    if (d->minus) { i++; }
    if (!num_is_digit(s, len, i) || (s[i] == '0' && num_is_digit(s, len, i + 1))) { return false; }
    for (; num_is_digit(s, len, i); i++) { num_push(d, s[i], false, &lost); }
    if (i < len && s[i] == '.') {
        if (!num_is_digit(s, len, ++i)) { return false; }
        for (; num_is_digit(s, len, i); i++) { num_push(d, s[i], true, &lost); }
    }
    if (i < len && (s[i] == 'e' || s[i] == 'E')) {
        i++;
        bool down = i < len && s[i] == '-';
        if (i < len && (s[i] == '-' || s[i] == '+')) { i++; }
        if (!num_is_digit(s, len, i)) { return false; }
        int32_t e = 0;
        for (; num_is_digit(s, len, i); i++) { e = e < 100000000 ? e * 10 + (s[i] - '0') : e; }
        d->exp10 += down ? -e : e;
    }
    if (lost) {
        d->digit[d->n++] = 1;
        d->exp10--;
    }
    return i == len;
}

/* Rounds top * 2^exp2 (top's highest bit set; sticky: a little more than top) to nearest, ties to even. */
static bool num_round(uint64_t top, int32_t exp2, bool sticky, double *out) {
    int32_t drop = 11;                                    /* 64 - 53 */
    if (exp2 + drop < -1074) { drop = -1074 - exp2; }     /* subnormal: the last bit is 2^-1074 */
    uint64_t keep, rest, half;
    if (drop > 64) {
        *out = 0;
        return true;
    }
    keep = drop == 64 ? 0 : top >> drop;
    rest = drop == 64 ? top : top & (((uint64_t)1 << drop) - 1);
    half = (uint64_t)1 << (drop - 1);
    if (rest > half || (rest == half && (sticky || (keep & 1)))) { keep++; }
    int32_t e = exp2 + drop;
    if (keep >> 53) {
        keep >>= 1;
        e++;
    }
    if (e > 971) { return false; } /* above DBL_MAX */
    uint64_t bits = keep >> 52 ? ((uint64_t)(e + 1075) << 52) | (keep & (((uint64_t)1 << 52) - 1)) : keep;
    memcpy(out, &bits, sizeof bits);
    return true;
}

/* The big-integer path; at least one digit, the first not 0. */
static bool num_exact(const num_decimal *d, double *out) {
    if (d->n + d->exp10 > 310) { return false; }
    if (d->n + d->exp10 < -330) {
        *out = 0;
        return true;
    }
    num_big num, den;
    num_set(&num, 0);
    num_set(&den, 1);
    for (int32_t i = 0; i < d->n; i++) { num_mul_add(&num, 10, d->digit[i]); }
    num_mul_pow10(d->exp10 >= 0 ? &num : &den, d->exp10 >= 0 ? d->exp10 : -d->exp10);
    int32_t shift = num_bits(&den) - num_bits(&num); /* bring num into [den, 2 den) */
    num_shift(shift > 0 ? &num : &den, shift > 0 ? shift : -shift);
    if (num_cmp(&num, &den) < 0) {
        num_shift(&num, 1);
        shift++;
    }
    uint64_t top = 0;
    for (int32_t i = 0; i < 64; i++) {
        top <<= 1;
        if (num_cmp(&num, &den) >= 0) {
            num_sub(&num, &den);
            top |= 1;
        }
        num_shift(&num, 1);
    }
    return num_round(top, -shift - 63, num.n != 0, out);
}

static bool num_fast(const num_decimal *d, double *out) {
    static const double pow10[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                   1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (FLT_EVAL_METHOD != 0 || d->n > 15 || d->exp10 < -22 || d->exp10 > 22) { return false; }
    uint64_t v = 0;
    for (int32_t i = 0; i < d->n; i++) { v = v * 10 + d->digit[i]; }
    *out = d->exp10 < 0 ? (double)v / pow10[-d->exp10] : (double)v * pow10[d->exp10];
    return true;
}

static bool num_value(const num_decimal *d, double *out) {
    double v = 0;
    if (d->n > 0 && !num_fast(d, &v) && !num_exact(d, &v)) { return false; }
    *out = d->minus ? -v : v;
    return true;
}

bool peft__parse_f64(const char *s, size_t len, double *out) {
    num_decimal d;
    return num_scan(s, len, &d) && num_value(&d, out);
}

/* ---- writing -------------------------------------------------------------------------------------------------- */

/* v = digit[0].digit[1]... * 10^result, exactly up to NUM_OUT_DIGITS digits and *sticky for "and a little more". */
static int32_t num_digits(double v, uint8_t digit[NUM_OUT_DIGITS], bool *sticky) {
    uint64_t bits, mant;
    memcpy(&bits, &v, sizeof bits);
    int32_t e = (int32_t)(bits >> 52 & 0x7FF);
    mant = bits & (((uint64_t)1 << 52) - 1);
    if (e > 0) {
        mant |= (uint64_t)1 << 52;
    } else {
        e = 1;
    }
    e -= 1075;
    num_big num, den;
    num_set(&num, mant);
    num_set(&den, 1);
    /* log10 from the bit length: 1233 / 4096 is log10(2) from below; the estimate is at most one too high or low. */
    int32_t log2 = num_bits(&num) - 1 + e, exp10 = log2 * 1233 / 4096;
    num_shift(e >= 0 ? &num : &den, e >= 0 ? e : -e);
    num_mul_pow10(exp10 >= 0 ? &den : &num, exp10 >= 0 ? exp10 : -exp10);
    while (num_cmp(&num, &den) < 0) {
        num_mul_add(&num, 10, 0);
        exp10--;
    }
    for (;;) {
        num_big ten = den;
        num_mul_add(&ten, 10, 0);
        if (num_cmp(&num, &ten) < 0) { break; }
        den = ten;
        exp10++;
    }
    for (int32_t i = 0; i < NUM_OUT_DIGITS; i++) {
        digit[i] = 0;
        for (; num_cmp(&num, &den) >= 0; digit[i]++) { num_sub(&num, &den); }
        num_mul_add(&num, 10, 0);
    }
    *sticky = num.n != 0;
    return exp10;
}

/* The first p digits of a number in [1, 10) and its exponent, rounded to nearest, ties to even, zeros at the end cut. */
static void num_round_digits(const uint8_t digit[NUM_OUT_DIGITS], bool sticky, int32_t exp10, int32_t p,
                             num_decimal *d) {
    bool more = sticky;
    for (int32_t i = p + 1; i < NUM_OUT_DIGITS; i++) { more = more || digit[i] != 0; }
    bool up = digit[p] > 5 || (digit[p] == 5 && (more || (digit[p - 1] & 1)));
    memcpy(d->digit, digit, (size_t)p);
    d->n = p;
    while (up && d->n > 0) { /* a carry turns 9s into 0s, which are cut */
        up = ++d->digit[d->n - 1] == 10;
        if (up) { d->n--; }
    }
    if (d->n == 0) {
        d->digit[d->n++] = 1;
        exp10++;
    }
    while (d->n > 1 && d->digit[d->n - 1] == 0) { d->n--; }
    d->exp10 = exp10 - (d->n - 1);
}

static size_t num_put_exp(char *out, int32_t e) {
    size_t n = 0;
    out[n++] = 'e';
    out[n++] = e < 0 ? '-' : '+';
    if (e < 0) { e = -e; }
    if (e >= 100) { out[n++] = (char)('0' + e / 100); }
    out[n++] = (char)('0' + e / 10 % 10);
    out[n++] = (char)('0' + e % 10);
    return n;
}

/* The layout of %g without trailing zeros. */
static size_t num_layout(const num_decimal *d, int32_t digits, char *out) {
    size_t n = 0;
    int32_t e = d->exp10 + d->n - 1; /* of the first digit */
    bool exponent = e < -4 || e >= digits;
    int32_t point = exponent ? 1 : e + 1; /* digits before the point; below 1: zeros after it come first */
    if (point < 1) {
        out[n++] = '0';
        out[n++] = '.';
        for (int32_t i = point; i < 0; i++) { out[n++] = '0'; }
    }
    for (int32_t i = 0; i < PEFT__MAX(d->n, point); i++) {
        if (i > 0 && i == point) { out[n++] = '.'; }
        out[n++] = i < d->n ? (char)('0' + d->digit[i]) : '0';
    }
    if (exponent) { n += num_put_exp(out + n, e); }
    out[n] = '\0';
    return n;
}

static size_t num_word(const char *word, char *out) {
    size_t n = strlen(word);
    memcpy(out, word, n + 1);
    return n;
}

size_t peft__format_f64(double v, int32_t digits, char out[40]) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    size_t n = 0;
    if (v != v) { return num_word("nan", out); }
    if (bits >> 63) {
        out[n++] = '-';
        v = -v;
    }
    if (v > DBL_MAX) { return n + num_word("inf", out + n); }
    if (v <= 0) { return n + num_word("0", out + n); }
    uint8_t digit[NUM_OUT_DIGITS];
    bool sticky;
    int32_t exp10 = num_digits(v, digit, &sticky);
    num_decimal d;
    d.minus = false;
    digits = PEFT__MIN(PEFT__MAX(digits, 1), 17);
    for (int32_t p = digits == 17 ? 1 : digits; p <= digits; p++) {
        double back;
        num_round_digits(digit, sticky, exp10, p, &d);
        if (p < 17 && digits == 17 && (!num_value(&d, &back) || back < v || back > v)) { continue; }
        break;
    }
    return n + num_layout(&d, digits, out + n);
}
