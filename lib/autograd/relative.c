/* relative.c - biases of attention by relative position (Raffel et al. 2020, section 2.1, as T5 has them): a score gets
 * table[bucket(d), head] for a key d positions after the query.
 *
 *   n = |d|, of `half` the buckets for each sign              (bidirectional)
 *   n = max(-d, 0), of all buckets                            (else: keys after the query are as the query itself)
 *   bucket = n                                                below e = buckets / 2
 *            e + floor(ln(n / e) / ln(max_distance / e) (buckets - e)), at most buckets - 1
 *
 * so that distances from max_distance on are all alike. For a pass the table is written out by head as a vector over distances,
 * of which a row of scores wants a contiguous stretch. How far it reaches does not depend on the rows' lengths.
 *
 * Left out: biases without a table (ALiBi). */
#include "autograd/relative.h"

#include <math.h>

int64_t peft__relative_bucket(const peft__bias *b, int64_t d) {
    const int64_t buckets = b->bidirectional ? b->buckets / 2 : b->buckets, e = buckets / 2;
    const int64_t first = b->bidirectional && d > 0 ? buckets : 0;
    const int64_t n = b->bidirectional ? (d < 0 ? -d : d) : PEFT__MAX(-d, 0);
    if (n < e) { return first + n; }
    const double part = log((double)n / (double)e) / log((double)b->max_distance / (double)e);
    /* Where the quotient is an integer, rounding must not make it less. */
    const double above = floor(part * (double)(buckets - e) * (1 + 1e-12));
    return first + (above < (double)(buckets - 1 - e) ? e + (int64_t)above : buckets - 1);
}

const peft__relative *peft__relative_make(peft__tape *t, const peft__bias *b, int64_t heads) {
    if (t->status != PEFT_OK) { return NULL; }
    const peft__param *p = b->param != PEFT__NONE ? peft__tape_param_at(t, b->param) : NULL;
    const int64_t rows = p != NULL ? p->rows : b->table->rows, cols = p != NULL ? p->cols : b->table->cols;
    const int64_t least = b->bidirectional ? 4 : 2, e = b->buckets / least;
    if (b->buckets < least || b->max_distance <= e || b->max_distance > INT32_MAX / 4) {
        peft__tape_fail(t, PEFT_E_INVALID, "%lld buckets of relative positions up to %lld, expected %lld buckets or more, and a "
                        "distance above %lld", (long long)b->buckets, (long long)b->max_distance, (long long)least, (long long)e);
        return NULL;
    }
    if (rows != b->buckets || cols != heads) {
        peft__tape_fail(t, PEFT_E_SHAPE, "a table of relative positions is [%lld, %lld], expected [%lld, %lld]", (long long)rows,
                        (long long)cols, (long long)b->buckets, (long long)heads);
        return NULL;
    }
    const int64_t zero = b->max_distance + PEFT__ATTN_KEYS, ld = 2 * zero + 1;
    peft__relative *r = peft__arena_alloc(&t->arena, sizeof *r);
    int32_t *bucket = peft__arena_alloc(&t->arena, (size_t)ld * sizeof *bucket);
    if (r == NULL || bucket == NULL) {
        peft__tape_fail(t, PEFT_E_NOMEM, "%s", peft__fail_text());
        return NULL;
    }
    for (int64_t x = 0; x < ld; x++) { bucket[x] = (int32_t)peft__relative_bucket(b, x - zero); }
    *r = (peft__relative){*b, heads, ld, bucket};
    return r;
}

size_t peft__relative_scratch(const peft__relative *r, int64_t tokens, int64_t rows) {
    const int64_t values = r->heads * r->ld, table = r->heads * r->bias.buckets;
    return (size_t)(values + table + peft__attn_bias_partials(tokens, rows, r->heads, r->bias.buckets));
}

/* The vector of one head. What is beyond the reach is one value. */
static void relative_head(const peft__relative *r, const peft__real *table, int64_t h, peft__real *to) {
    const int64_t begin = PEFT__ATTN_KEYS, end = r->ld - PEFT__ATTN_KEYS;
    for (int64_t x = begin; x < end; x++) { to[x] = table[r->bucket[x] * r->heads + h]; }
    for (int64_t x = 0; x < begin; x++) { to[x] = to[begin]; }
    for (int64_t x = end; x < r->ld; x++) { to[x] = to[end - 1]; }
}

peft__real *peft__relative_expand(const peft__relative *r, const peft__kernels *k, const peft__real *param, peft__real *d_table,
                                  int64_t tokens, int64_t rows, peft__real *scratch, peft__attn_bias *out) {
    peft__real *values = scratch, *own = values + r->heads * r->ld;
    const peft__real *table = param != NULL ? param : own;
    if (param == NULL) { peft__weight_read(k, r->bias.table, own); }
    for (int64_t h = 0; h < r->heads; h++) { relative_head(r, table, h, values + h * r->ld); }
    memset(out, 0, sizeof *out);
    out->reach = r->bias.max_distance;
    out->ld = r->ld;
    out->values = values;
    out->bucket = r->bucket;
    out->buckets = r->bias.buckets;
    out->d_table = d_table;
    out->partial = own + r->heads * r->bias.buckets;
    return scratch + (d_table != NULL ? peft__relative_scratch(r, tokens, rows) : peft__relative_scratch(r, 0, 0));
}
