/* attention_tiles.c - the block, mask and tile helpers under both halves of attention; see attention.h.
 *
 * Left out: any softmax. */
#include "kernels/attention.h"

int64_t peft__attn_ceil(int64_t n, int64_t by) {
    return (n + by - 1) / by;
}

/* Past keys that a window does not hide; 0 where there is none and all keys are alike. */
static int64_t attn_tiles_visible(const peft__attn_args *args, const peft__attn_row *row, bool past) {
    return past && args->window > 0 ? PEFT__MIN(row->n_visible, row->n_past) : 0;
}

int64_t peft__attn_block_count(const peft__attn_args *args, const peft__attn_row *row, bool past, int64_t size) {
    const int64_t visible = attn_tiles_visible(args, row, past);
    return peft__attn_ceil(visible, size) + peft__attn_ceil((past ? row->n_past : peft__attn_own(args, row)) - visible, size);
}

peft__attn_block peft__attn_block_at(const peft__attn_args *args, const peft__attn_row *row, int64_t head, bool past,
                                     int64_t size, int64_t index) {
    const int64_t visible = attn_tiles_visible(args, row, past), before = peft__attn_ceil(visible, size);
    peft__attn_block b = {.past = past, .visible = index < before};
    b.first = b.visible ? index * size : visible + (index - before) * size;
    b.n = PEFT__MIN(size, (b.visible ? visible : past ? row->n_past : peft__attn_own(args, row)) - b.first);
    b.ldk = past ? row->past_ld : args->ldk;
    b.ldv = past ? row->past_ld : args->ldv;
    const int64_t at = b.first + (past ? 0 : args->cross ? row->k_first : row->first);
    b.k = (past ? row->past_k : args->k) + at * b.ldk + head * args->head_dim;
    b.v = (past ? row->past_v : args->v) + at * b.ldv + head * args->head_dim;
    return b;
}

bool peft__attn_spans(const peft__attn_args *args, const peft__attn_row *row, const peft__attn_block *block,
                      int64_t query, int64_t n, peft__attn_span *span) {
    const int64_t key0 = block->first + (block->past ? 0 : row->n_past);
    const int64_t behind = args->causal ? args->window - 1 : args->window; /* keys of a window before the query's own */
    const bool windowed = args->window > 0 && !block->visible;
    bool any = false;
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = row->n_past + query + i - key0; /* the query's own key, counted within the block */
        int64_t lo = windowed ? at - behind : 0, hi = args->causal ? at + 1 : windowed ? at + behind + 1 : block->n;
        lo = PEFT__MAX(PEFT__MIN(lo, block->n), 0);
        hi = PEFT__MAX(PEFT__MIN(hi, block->n), 0);
        span->lo[i] = PEFT__MIN(lo, hi);
        span->hi[i] = hi;
        any |= lo < hi;
    }
    return any;
}

void peft__attn_pack_keys(const peft__kernels *k, peft__real *dst, const peft__real *src, int64_t ld, int64_t n,
                          int64_t dim) {
    const peft__real *rows[PEFT__TILE_COLS];
    for (int64_t j = 0; j < n; j += k->nr, dst += dim * k->nr) {
        const int32_t cols = (int32_t)PEFT__MIN(n - j, (int64_t)k->nr);
        for (int32_t c = 0; c < cols; c++) { rows[c] = src + (j + c) * ld; }
        k->pack_rows(dst, rows, cols, dim);
    }
}

/* Rows of a panel are short: a call for each would cost more than the copy, and loops of eight become vectors. */
void peft__attn_pack_values(const peft__kernels *k, peft__real *restrict dst, const peft__real *restrict src,
                            int64_t ld, int64_t n, int64_t dim, peft__real scale) {
    const int64_t nr = k->nr;
    for (int64_t p = 0; p < dim; p += nr) {
        const int64_t cols = PEFT__MIN(nr, dim - p), eights = cols / 8 * 8;
        for (int64_t j = 0; j < n; j++, dst += nr) {
            const peft__real *from = src + j * ld + p;
            for (int64_t c = 0; c < eights; c += 8) {
                for (int64_t i = 0; i < 8; i++) { dst[c + i] = scale * from[c + i]; }
            }
            for (int64_t c = eights; c < nr; c++) { dst[c] = c < cols ? scale * from[c] : 0; }
        }
    }
}

void peft__attn_scores(const peft__kernels *k, const peft__attn_span *span, int64_t rows, int64_t keys, int64_t dim,
                       const peft__real *a, int64_t lda, const peft__real *panels, peft__real *s, int64_t lds,
                       bool first) {
    for (int64_t j = 0; j < keys; j += k->nr, panels += dim * k->nr) {
        const int64_t cols = PEFT__MIN(keys - j, (int64_t)k->nr);
        for (int64_t i = 0; i < rows; i += k->mr) {
            const int64_t r = PEFT__MIN(rows - i, (int64_t)k->mr);
            if (span->lo[i] < j + cols && span->hi[i + r - 1] > j) {
                k->tile((int32_t)r, (int32_t)cols, dim, a + i * lda, lda, 1, panels, k->nr, s + i * lds + j, lds,
                        first);
            }
        }
    }
}

void peft__attn_weigh(const peft__kernels *k, const peft__attn_span *span, int64_t rows, int64_t keys, int64_t dim,
                      const peft__real *s, int64_t lds, const peft__real *panels, peft__real *c, int64_t ldc) {
    const int64_t nr = k->nr;
    for (int64_t p = 0; p < dim; p += nr, panels += keys * nr) {
        const int64_t cols = PEFT__MIN(nr, dim - p);
        for (int64_t i = 0; i < rows; i += k->mr) {
            const int64_t r = PEFT__MIN(rows - i, (int64_t)k->mr), lo = span->lo[i], hi = span->hi[i + r - 1];
            if (lo < hi) {
                k->tile((int32_t)r, (int32_t)cols, hi - lo, s + i * lds + lo, lds, 1, panels + lo * nr, nr,
                        c + i * ldc + p, ldc, false);
            }
        }
    }
}

void peft__attn_clear_edges(const peft__attn_span *span, int64_t i, int64_t keys, peft__real *row) {
    const int64_t edge = PEFT__TILE_ROWS - 1, lo = span->lo[i], hi = span->hi[i];
    const int64_t from = PEFT__MAX(lo - edge, 0), to = PEFT__MIN(hi + edge, keys);
    for (int64_t j = from; j < lo; j++) { row[j] = 0; }
    for (int64_t j = hi; j < to; j++) { row[j] = 0; }
}

int64_t peft__attn_distance(const peft__attn_row *row, const peft__attn_block *block, int64_t query) {
    return block->first + (block->past ? 0 : row->n_past) - (row->n_past + query) + row->bias_shift;
}

void peft__attn_add_bias(const peft__kernels *k, const peft__attn_args *args, const peft__attn_row *row,
                         const peft__attn_block *block, int64_t head, int64_t query, int64_t lo, int64_t n, peft__real *s) {
    const peft__attn_bias *b = args->bias;
    const int64_t zero = b->reach + PEFT__ATTN_KEYS, d = peft__attn_distance(row, block, query) + lo;
    /* A stretch of keys that starts beyond the reach has the values of one that starts where the vector does. */
    const int64_t at = zero + PEFT__MAX(PEFT__MIN(d, b->reach), -zero);
    if (args->scale != 1) { k->scale(s, args->scale, s, n); }
    k->add(s, s, b->values + head * b->ld + at, n);
}
