/* rng.c - randomness without state: a word is a function of a key and a place.
 *
 * Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011): ten rounds of two
 * 32x32-bit products. Any element of a mask or a matrix can be drawn without the ones before it, so recomputation and
 * threads need no saved state. Normals are Box and Muller's with logarithm and cosine written here, because those of
 * the C libraries differ in the last bit.
 *
 * Left out: secrets (Philox is no cipher), other distributions. */
#include "base/base.h"

#include <math.h>

void peft__philox(uint64_t key, uint64_t ctr_hi, uint64_t ctr_lo, uint32_t out[4]) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = (uint32_t)ctr_lo, c1 = (uint32_t)(ctr_lo >> 32), c2 = (uint32_t)ctr_hi, c3 = (uint32_t)(ctr_hi >> 32);
    for (int i = 0; i < 10; i++) {
        uint64_t p0 = (uint64_t)0xD2511F53U * c0, p1 = (uint64_t)0xCD9E8D57U * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9U;
        k1 += 0xBB67AE85U;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The finaliser of splitmix64 (Steele, Lea, Flood, OOPSLA 2014, variant 13). */
uint64_t peft__mix64(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
    return x ^ (x >> 31);
}

uint64_t peft__hash_str(uint64_t seed, const char *s, size_t len) {
    /* The length goes in first, so that a text and the same text with NULs behind it differ. */
    uint64_t h = peft__mix64(seed + 0x9E3779B97F4A7C15U * ((uint64_t)len + 1));
    while (len > 0) {
        size_t n = PEFT__MIN(len, (size_t)8);
        uint64_t word = 0;
        for (size_t i = 0; i < n; i++) { word |= (uint64_t)(unsigned char)s[i] << (8 * i); }
        h = peft__mix64(h ^ word) + 0x9E3779B97F4A7C15U;
        s += n;
        len -= n;
    }
    return peft__mix64(h);
}

uint32_t peft__rng_u32(peft__rng *r) {
    uint32_t block[4];
    peft__philox(r->key, 0, r->pos >> 2, block);
    return block[r->pos++ & 3];
}

/* Two words of one block: an odd position skips a word, which costs nothing. */
static uint64_t rng_u64(peft__rng *r) {
    uint32_t block[4];
    uint64_t pos = (r->pos + 1) & ~(uint64_t)1;
    peft__philox(r->key, 0, pos >> 2, block);
    r->pos = pos + 2;
    return (uint64_t)block[pos & 3] << 32 | block[(pos & 3) + 1];
}

uint64_t peft__rng_below(peft__rng *r, uint64_t n) {
    if (n < 2) { return 0; }
    uint64_t reject = (0 - n) % n, x; /* 2^64 mod n words too many: those below are drawn again */
    do {
        x = rng_u64(r);
    } while (x < reject);
    return x % n;
}

double peft__rng_uniform(peft__rng *r) {
    return (double)(rng_u64(r) >> 11) * 0x1p-53;
}

/* ln x for a normal x > 0: x = m 2^e with m in [sqrt(1/2), sqrt(2)), ln m = 2 atanh((m-1)/(m+1)) by its series. */
static double rng_log(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int32_t e = (int32_t)(bits >> 52) - 1022;
    bits = (bits & 0x000FFFFFFFFFFFFFU) | 0x3FE0000000000000U; /* m in [1/2, 1) */
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m < 0.70710678118654752) {
        m *= 2;
        e--;
    }
    double f = (m - 1) / (m + 1), z = f * f, sum = 0;
    for (int32_t k = 25; k >= 1; k -= 2) { sum = sum * z + 1.0 / k; } /* z < 0.0295: z^12 / 25 is below 2^-64 */
    return e * 0.69314718055994531 + 2 * f * sum;
}

/* cos(2 pi u) for u in [0, 1): the nearest quarter turn is exact, the rest is within 1/8 of a turn. */
static double rng_cos_turn(double u) {
    int32_t quarter = (int32_t)(u * 4 + 0.5);
    double x = (u - quarter * 0.25) * 6.2831853071795865, z = x * x, term = 1, sum = 0;
    bool odd = quarter & 1;
    if (odd) { term = x; }
    for (int32_t k = odd ? 2 : 1; k < 23; k += 2) { /* Taylor; |x| < 0.79: x^22 / 22! is below 2^-75 */
        sum += term;
        term *= -z / (k * (k + 1));
    }
    return quarter == 1 || quarter == 2 ? -sum : sum;
}

double peft__rng_normal(peft__rng *r) {
    uint32_t block[4];
    uint64_t pos = (r->pos + 3) & ~(uint64_t)3;
    peft__philox(r->key, 0, pos >> 2, block);
    r->pos = pos + 4;
    uint64_t a = ((uint64_t)block[0] << 32 | block[1]) >> 11, b = ((uint64_t)block[2] << 32 | block[3]) >> 11;
    double u = (double)(a + 1) * 0x1p-53; /* (0, 1]: the logarithm exists */
    return sqrt(-2 * rng_log(u)) * rng_cos_turn((double)b * 0x1p-53);
}
