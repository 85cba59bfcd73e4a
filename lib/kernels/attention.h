/* attention.h - what the forward and the backward half of tiled attention share.
 *
 * Both work on a sub-block of at most PEFT__ATTN_QUERIES queries against a block of keys. A block lies wholly among past keys
 * that are always seen, wholly among other past keys or wholly among the row's own tokens, so that its keys have one stride
 * and, for each query, the keys it sees are one range [lo, hi) of the block. Both ends never decrease from one query to the next
 * and move by at most one. */
#ifndef PEFT_KERNELS_ATTENTION_H
#define PEFT_KERNELS_ATTENTION_H

#include "kernels/kernels.h"

enum { PEFT__ATTN_QUERIES = 64 };

typedef struct peft__attn_block {
    const peft__real *k, *v; /* [n, head_dim] of one KV head */
    int64_t ldk, ldv;        /* strides of k, v */
    int64_t first;           /* first key, counted within the segment */
    int64_t n;               /* keys */
    bool past;               /* the segment: past or own tokens */
    bool visible;            /* seen whatever the window */
} peft__attn_block;

typedef struct peft__attn_span { /* visible keys of each query of a sub-block */
    int64_t lo[PEFT__ATTN_QUERIES], hi[PEFT__ATTN_QUERIES];
} peft__attn_span;

int64_t peft__attn_ceil(int64_t n, int64_t by); /* n / by rounded up */

/* Blocks of `size` keys that a segment of the row has, and block `index` of them for KV head `head`. */
int64_t peft__attn_block_count(const peft__attn_args *args, const peft__attn_row *row, bool past, int64_t size);
peft__attn_block peft__attn_block_at(const peft__attn_args *args, const peft__attn_row *row, int64_t head, bool past,
                                     int64_t size, int64_t index);

/* Fills the spans of `n` queries from `query` (counted within the row); false when none of them sees a key of the block. */
bool peft__attn_spans(const peft__attn_args *args, const peft__attn_row *row, const peft__attn_block *block,
                      int64_t query, int64_t n, peft__attn_span *span);

/* Panels of nr columns with the head's elements along k: B operands of products with rows of queries. */
void peft__attn_pack_keys(const peft__kernels *k, peft__real *dst, const peft__real *src, int64_t ld, int64_t n,
                          int64_t dim);
/* Panels of nr columns with the keys (or queries) along k, times `scale`, zero-padded: B operands of sums over them. */
void peft__attn_pack_values(const peft__kernels *k, peft__real *dst, const peft__real *src, int64_t ld, int64_t n,
                            int64_t dim, peft__real scale);

/* s[i, j] (+)= a[i, :] . key j over the panels that any query of a tile sees; elements outside stay undefined. */
void peft__attn_scores(const peft__kernels *k, const peft__attn_span *span, int64_t rows, int64_t keys, int64_t dim,
                       const peft__real *a, int64_t lda, const peft__real *panels, peft__real *s, int64_t lds,
                       bool first);
/* c[i, :] += sum over visible j of s[i, j] * b[j, :], b packed by pack_values over `keys` rows. Each row of s must be zero
 * for PEFT__TILE_ROWS - 1 keys on either side of its span. */
void peft__attn_weigh(const peft__kernels *k, const peft__attn_span *span, int64_t rows, int64_t keys, int64_t dim,
                      const peft__real *s, int64_t lds, const peft__real *panels, peft__real *c, int64_t ldc);
/* Makes those zeros in row i. */
void peft__attn_clear_edges(const peft__attn_span *span, int64_t i, int64_t keys, peft__real *row);

/* Keys of the row in k, v. */
static inline int64_t peft__attn_own(const peft__attn_args *args, const peft__attn_row *row) {
    return args->cross ? row->k_n : row->n;
}
/* Distance of the block's first key from a query (counted within the row). */
int64_t peft__attn_distance(const peft__attn_row *row, const peft__attn_block *block, int64_t query);
/* s[n] = scale s + bias: scores of a query of head `head` from the block's key `lo` on. */
void peft__attn_add_bias(const peft__kernels *k, const peft__attn_args *args, const peft__attn_row *row,
                         const peft__attn_block *block, int64_t head, int64_t query, int64_t lo, int64_t n, peft__real *s);

#endif
