/* scan.c - reads every value of a tensor for those that are no numbers.
 *
 * A NaN or an infinity in a weight spreads to everything that is computed from it, and where it came from cannot be told any more;
 * a scale of a quantised block that is one makes the whole block so. A matrix of zeros only is what a file has where a copy was cut
 * short on a file system that leaves holes.
 *
 * Left out: whether finite values are plausible ones. */
#include <math.h>
#include <stdio.h>

#include "tensor/tensor.h"

void peft__scan(const peft__kernels *k, int32_t dtype, const uint8_t *data, int64_t n, peft__scan_result *out) {
    enum { PIECE = 256 }; /* whole blocks of every type */
    peft__real piece[PIECE];
    *out = (peft__scan_result){.values = n, .first = -1, .zeros = true};
    for (int64_t at = 0; at < n; at += PIECE) {
        int64_t count = PEFT__MIN((int64_t)PIECE, n - at);
        k->dequant(dtype, data + peft__dtype_bytes(dtype, at), count, piece);
        for (int64_t i = 0; out->zeros && i < count; i++) { out->zeros = !(piece[i] > 0) && !(piece[i] < 0); }
        if (k->finite(piece, count)) { continue; }
        for (int64_t i = 0; i < count; i++) {
            if (isfinite(piece[i])) { continue; }
            out->zeros = false;
            out->nans += isnan(piece[i]) != 0;
            out->infinities += isnan(piece[i]) == 0;
            if (out->first < 0) { out->first = at + i; }
        }
    }
}

/* "[2, 17]" of element number `at`. */
static void scan_place(int64_t at, int32_t ndim, const int64_t *dims, char out[128]) {
    int64_t index[8] = {0};
    size_t len = 0;
    int32_t most = PEFT__MIN(ndim, 8);
    for (int32_t d = most; d-- > 0;) {
        index[d] = at % PEFT__MAX(dims[d], (int64_t)1);
        at /= PEFT__MAX(dims[d], (int64_t)1);
    }
    out[0] = '\0';
    for (int32_t d = 0; d < most; d++) {
        int n = snprintf(out + len, 128 - len, "%s%lld", d == 0 ? "[" : ", ", (long long)index[d]);
        len += n > 0 ? PEFT__MIN((size_t)n, 127 - len) : 0;
    }
    (void)snprintf(out + len, 128 - len, "%s", most == 0 ? "[]" : "]");
}

bool peft__scan_report(const peft__scan_result *r, int32_t ndim, const int64_t *dims, const char *file, const char *name, bool error,
                       peft__findings *f) {
    char where[PEFT__SCAN_NAME], place[128], what[96];
    if (r->first < 0) { return false; }
    (void)snprintf(where, sizeof where, "tensor \"%.1000s\"", name);
    scan_place(r->first, ndim, dims, place);
    if (r->nans > 0 && r->infinities > 0) {
        (void)snprintf(what, sizeof what, "%lld NaN and %lld infinite values", (long long)r->nans, (long long)r->infinities);
    } else {
        int64_t n = r->nans + r->infinities;
        (void)snprintf(what, sizeof what, "%lld %s value%s", (long long)n, r->nans > 0 ? "NaN" : "infinite", n == 1 ? "" : "s");
    }
    if (error) {
        peft__finding_error(f, PEFT_E_NUMERIC, file, where, "%s of %lld, the first at %s", what, (long long)r->values, place);
    } else {
        peft__finding_warn(f, file, where, "%s of %lld, the first at %s; the model does not use it", what, (long long)r->values, place);
    }
    return true;
}
