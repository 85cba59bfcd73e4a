/* attention_back.c - gradients of attention by blocks (Dao et al. 2022), five products for each pair of blocks.
 *
 *   P = exp(S - lse), recomputed;  dV += P' dO;  dP = dO V';  dS = P (dP - D), D = rowsum(dO O);
 *   dQ += scale dS K;  dK += scale dS' Q;  with softcap, dS also times 1 - tanh(S / cap)^2
 *   with a trained table of biases, dtable[bucket, head] += sum over the pairs of that bucket of dS
 *
 * A pair of blocks adds to the rows of dQ of its queries and to the rows of dK, dV of its keys. Pairs that share neither run
 * at once: in phase s, query block a meets key block (a + L - s) mod L of the same row,
 *
 *      keys    0 1 2 3
 *   queries 0  0
 *           1  1 0            causal, L = 4: the phase of each pair; three KV heads make 12, 9, 6 and 3 tasks
 *           2  2 1 0
 *           3  3 2 1 0
 *
 * so that no partial sums need memory of their own and every sum has one order, whatever the threads. The blocks of past
 * segments come first, one after the other; rows that share one past gradient are one task, in order. The sums of dS by
 * bucket are kept by query block and head, and at the end added up in their order.
 *
 * Left out: past gradients that overlap without being the same array. */
#include "kernels/attention.h"
#include "kernels/scratch.h"

enum {
    ATTN_BACK_KEYS = 128, /* least keys of a block */
    ATTN_BACK_SPAN =
        128,            /* queries of a block; twice that when the KV head has one query head, to pack it less often */
    ATTN_BACK_PAD = 16, /* reals after each row of P and dS */
    ATTN_BACK_TILES = 64, /* upper bound of tiles of mr keys in a block: for an mr of 3 and more */
    ATTN_BACK_BEGIN = 8   /* tasks that zero the gradients of a row and compute its D */
};

typedef struct attn_back_scratch {
    peft__real *keys;       /* panels of K' */
    peft__real *values;     /* panels of V' */
    peft__real *key_rows;   /* panels of scale K */
    peft__real *query_rows; /* panels of scale Q, PEFT__ATTN_QUERIES of them */
    peft__real *d_o_rows;   /* panels of dO */
    peft__real *p, *ds, *t; /* [PEFT__ATTN_QUERIES, lds]: P, dP then dS, 1 - tanh^2 */
    int64_t lds;
    int64_t block; /* keys of a block */
} attn_back_scratch;

/* As attn_layout of attention.c. */
static size_t attn_back_layout(const peft__kernels *k, int64_t dim, peft__real *base, attn_back_scratch *out) {
    const int64_t wide = peft__attn_ceil(dim, k->nr) * k->nr;
    out->block = peft__attn_ceil(ATTN_BACK_KEYS, k->nr) * k->nr;
    out->lds = peft__attn_ceil(out->block, 16) * 16 + ATTN_BACK_PAD;
    const size_t columns = (size_t)(peft__attn_ceil(out->block * dim, 16) * 16), rows = (size_t)(out->block * wide);
    const size_t queries = (size_t)(PEFT__ATTN_QUERIES * wide), s = (size_t)(PEFT__ATTN_QUERIES * out->lds);
    if (base) {
        out->keys = base;
        out->values = out->keys + columns;
        out->key_rows = out->values + columns;
        out->query_rows = out->key_rows + rows;
        out->d_o_rows = out->query_rows + queries;
        out->p = out->d_o_rows + queries;
        out->ds = out->p + s;
        out->t = out->ds + s;
    }
    return 2 * columns + rows + 2 * queries + 3 * s;
}

size_t peft__attn_backward_scratch(const peft__kernels *k, int64_t head_dim) {
    attn_back_scratch unused;
    return (attn_back_layout(k, head_dim, NULL, &unused) * sizeof(peft__real) + 63) / 64 * 64;
}

typedef struct attn_back_job {
    const peft__run *run;
    const peft__attn_args *args;
    peft__real *partial; /* [query blocks of all rows, heads, buckets]: sums of dS; NULL: not wanted */
    int64_t group; /* query heads of a KV head */
    int64_t block; /* keys of a block */
    int64_t span;  /* queries of a block */
    int64_t phase; /* s above, or the index of the past block */
} attn_back_job;

/* One KV head of a row: queries against one block of its keys. */
typedef struct attn_back_pair {
    const attn_back_job *job;
    const peft__attn_row *row;
    int64_t kv; /* KV head */
    peft__attn_block keys;
    peft__real *dk, *dv; /* first key's rows; NULL: not wanted */
    int64_t lddk, lddv;
    attn_back_scratch w;
    bool packed; /* keys, values and key_rows hold this block */
} attn_back_pair;

/* P and dS of query i of a sub-block that begins at `query`: in, raw scores and dP - D; out, zero outside the span as far as
 * tiles reach. */
static void attn_back_softmax(const attn_back_pair *t, const peft__attn_span *span, int64_t head, int64_t query, int64_t i,
                              peft__real lse) {
    const peft__attn_args *args = t->job->args;
    const peft__kernels *k = t->job->run->k;
    const int64_t lo = span->lo[i], n = span->hi[i] - lo;
    peft__real *p = t->w.p + i * t->w.lds, *ds = t->w.ds + i * t->w.lds;
    if (n > 0 && args->softcap > 0) {
        peft__real *u = t->w.t + i * t->w.lds + lo;
        k->scale(u, args->scale / args->softcap, p + lo, n);
        k->act(PEFT__ACT_TANH, u, u, n);
        (void)k->exp_sum(p + lo, u, args->softcap, lse, n);
        k->mul(ds + lo, p + lo, ds + lo, n);
        k->mul(u, u, u, n);
        k->mul(u, u, ds + lo, n);
        k->axpy(ds + lo, -1, u, n);
    } else if (n > 0) {
        if (args->bias != NULL) { peft__attn_add_bias(k, args, t->row, &t->keys, head, query + i, lo, n, p + lo); }
        (void)k->exp_sum(p + lo, p + lo, args->bias != NULL ? 1 : args->scale, lse, n);
        k->mul(ds + lo, p + lo, ds + lo, n);
    }
    peft__attn_clear_edges(span, i, t->keys.n, p);
    peft__attn_clear_edges(span, i, t->keys.n, ds);
}

/* c[j, :] += sum over queries i of s[i, j] * b[i, :], for the keys of the block: the transposed product. */
static void attn_back_gather(const attn_back_pair *t, const peft__attn_span *span, int64_t rows, const peft__real *s,
                             const peft__real *panels, peft__real *c, int64_t ldc) {
    const peft__kernels *k = t->job->run->k;
    const int64_t nr = k->nr, mr = k->mr, keys = t->keys.n, dim = t->job->args->head_dim;
    int64_t begin[ATTN_BACK_TILES], end[ATTN_BACK_TILES], i0 = 0, i1 = 0;
    for (int64_t j = 0, x = 0; j < keys; j += mr, x++) { /* queries that see a key of the tile */
        while (i0 < rows && span->hi[i0] <= j) { i0++; }
        while (i1 < rows && span->lo[i1] < j + mr) { i1++; }
        begin[x] = i0;
        end[x] = i1;
    }
    for (int64_t p = 0; p < dim; p += nr, panels += rows * nr) {
        const int32_t cols = (int32_t)PEFT__MIN(nr, dim - p);
        for (int64_t j = 0, x = 0; j < keys; j += mr, x++) {
            if (begin[x] < end[x]) {
                k->tile((int32_t)PEFT__MIN(keys - j, mr), cols, end[x] - begin[x], s + begin[x] * t->w.lds + j, 1,
                        t->w.lds, panels + begin[x] * nr, nr, c + j * ldc + p, ldc, false);
            }
        }
    }
}

/* Sums dS of a sub-block by bucket: first along its diagonals, each of which has one distance. */
static void attn_back_bias(const attn_back_pair *t, const peft__attn_span *span, int64_t head, int64_t query, int64_t rows) {
    const attn_back_job *job = t->job;
    const peft__attn_bias *b = job->args->bias;
    const int64_t last = rows - 1, n = last + t->keys.n, zero = b->reach + PEFT__ATTN_KEYS;
    const int64_t d = peft__attn_distance(t->row, &t->keys, query) - last; /* of the last query's first key */
    peft__real *sums = t->w.t; /* [n], free without a softcap */
    int64_t block = query / job->span; /* of all rows' */
    for (const peft__attn_row *r = job->args->rows; r != t->row; r++) { block += peft__attn_ceil(r->n, job->span); }
    peft__real *out = job->partial + (block * job->args->heads + head) * b->buckets;
    memset(sums, 0, (size_t)n * sizeof *sums);
    for (int64_t i = 0; i < rows; i++) {
        const int64_t lo = span->lo[i];
        peft__real *to = sums + last - i + lo;
        if (span->hi[i] > lo) { job->run->k->add(to, to, t->w.ds + i * t->w.lds + lo, span->hi[i] - lo); }
    }
    for (int64_t x = 0; x < n; x++) { out[b->bucket[zero + PEFT__MAX(PEFT__MIN(d + x, b->reach), -b->reach)]] += sums[x]; }
}

/* x[lo, hi) = value, eight at a time: compilers leave a loop of unknown length to single numbers. */
static void attn_back_fill(peft__real *x, peft__real value, int64_t lo, int64_t hi) {
    for (; hi - lo >= 8; lo += 8) {
        for (int64_t i = 0; i < 8; i++) { x[lo + i] = value; }
    }
    for (; lo < hi; lo++) { x[lo] = value; }
}

/* One head's sub-block of queries against the packed keys. */
static void attn_back_unit(const attn_back_pair *t, const peft__attn_span *span, int64_t head, int64_t query,
                           int64_t rows) {
    const peft__attn_args *args = t->job->args;
    const peft__kernels *k = t->job->run->k;
    const attn_back_scratch *w = &t->w;
    const int64_t dim = args->head_dim, token = t->row->first + query, keys = t->keys.n;
    const peft__real *q = args->q + token * args->ldq + head * dim;
    const peft__real *d_o = args->d_o + token * args->ldo + head * dim;
    const peft__real *lse = args->lse + head * args->n_tokens + token, *delta = args->delta + head * args->n_tokens + token;
    peft__attn_scores(k, span, rows, keys, dim, q, args->ldq, w->keys, w->p, w->lds, true);
    for (int64_t i = 0; i < rows; i++) { attn_back_fill(w->ds + i * w->lds, -delta[i], span->lo[i], span->hi[i]); } /* dP starts at -D */
    peft__attn_scores(k, span, rows, keys, dim, d_o, args->ldo, w->values, w->ds, w->lds, false);
    for (int64_t i = 0; i < rows; i++) { attn_back_softmax(t, span, head, query, i, lse[i]); }
    if (t->job->partial != NULL) { attn_back_bias(t, span, head, query, rows); }
    peft__attn_weigh(k, span, rows, keys, dim, w->ds, w->lds, w->key_rows, args->dq + token * args->ldq + head * dim,
                     args->ldq);
    if (t->dk) {
        peft__attn_pack_values(k, w->query_rows, q, args->ldq, rows, dim, args->scale);
        attn_back_gather(t, span, rows, w->ds, w->query_rows, t->dk, t->lddk);
    }
    if (t->dv) {
        peft__attn_pack_values(k, w->d_o_rows, d_o, args->ldo, rows, dim, 1);
        attn_back_gather(t, span, rows, w->p, w->d_o_rows, t->dv, t->lddv);
    }
}

/* Queries [query, query + n) of all heads of the group. */
static void attn_back_queries(attn_back_pair *t, int64_t query, int64_t n) {
    const peft__attn_args *args = t->job->args;
    const peft__kernels *k = t->job->run->k;
    for (int64_t at = query; at < query + n; at += PEFT__ATTN_QUERIES) {
        const int64_t rows = PEFT__MIN(query + n - at, (int64_t)PEFT__ATTN_QUERIES);
        peft__attn_span span;
        if (!peft__attn_spans(args, t->row, &t->keys, at, rows, &span)) { continue; }
        if (!t->packed) {
            const peft__attn_block *b = &t->keys;
            peft__attn_pack_keys(k, t->w.keys, b->k, b->ldk, b->n, args->head_dim);
            peft__attn_pack_keys(k, t->w.values, b->v, b->ldv, b->n, args->head_dim);
            peft__attn_pack_values(k, t->w.key_rows, b->k, b->ldk, b->n, args->head_dim, args->scale);
            t->packed = true;
        }
        for (int64_t h = 0; h < t->job->group; h++) { attn_back_unit(t, &span, t->kv * t->job->group + h, at, rows); }
    }
}

static void attn_back_begin(attn_back_pair *t, const attn_back_job *job, int32_t worker) {
    void *base = job->run->scratch + (size_t)worker * job->run->scratch_size;
    memset(t, 0, sizeof *t);
    t->job = job;
    (void)attn_back_layout(job->run->k, job->args->head_dim, (peft__real *)base, &t->w);
}

/* ---- own tokens: phases over pairs of blocks -------------------------------------------------------------------------- */

/* Diagonals of a row's table of pairs, L; *queries its query blocks. */
static int64_t attn_back_side(const attn_back_job *job, const peft__attn_row *row, int64_t *queries) {
    *queries = peft__attn_ceil(row->n, job->span);
    return PEFT__MAX(*queries, peft__attn_ceil(peft__attn_own(job->args, row), job->block));
}

static void attn_back_own_task(void *arg, int64_t task, int32_t worker) {
    const attn_back_job *job = (const attn_back_job *)arg;
    const peft__attn_args *args = job->args;
    const peft__attn_row *row = args->rows;
    int64_t queries, side = attn_back_side(job, row, &queries);
    while (job->phase >= side || task >= queries * args->kv_heads) {
        task -= job->phase < side ? queries * args->kv_heads : 0;
        side = attn_back_side(job, ++row, &queries);
    }
    const int64_t a = task / args->kv_heads, b = (a + side - job->phase) % side;
    if (b * job->block >= peft__attn_own(args, row)) { return; }
    const int64_t first = (args->cross ? row->k_first : row->first) + b * job->block;
    attn_back_pair t;
    attn_back_begin(&t, job, worker);
    t.row = row;
    t.kv = task % args->kv_heads;
    t.keys = peft__attn_block_at(args, row, t.kv, false, job->block, b);
    t.lddk = args->ldk;
    t.lddv = args->ldv;
    t.dk = args->dk + first * t.lddk + t.kv * args->head_dim;
    t.dv = args->dv + first * t.lddv + t.kv * args->head_dim;
    attn_back_queries(&t, a * job->span, PEFT__MIN(row->n - a * job->span, job->span));
}

static void attn_back_own(attn_back_job *job) {
    const peft__attn_args *args = job->args;
    for (job->phase = 0;; job->phase++) {
        int64_t tasks = 0;
        for (int64_t r = 0; r < args->n_rows; r++) {
            int64_t queries, side = attn_back_side(job, &args->rows[r], &queries);
            tasks += job->phase < side ? queries * args->kv_heads : 0;
        }
        if (tasks == 0) { return; }
        peft__pool_run(job->run->pool, attn_back_own_task, job, tasks);
    }
}

/* ---- past segments: one block after the other --------------------------------------------------------------------------- */

/* Whether two rows add to the same past gradients. */
static bool attn_back_shares(const peft__attn_row *x, const peft__attn_row *y) {
    return (x->past_dk && x->past_dk == y->past_dk) || (x->past_dv && x->past_dv == y->past_dv);
}

static void attn_back_past_row(attn_back_pair *t, const peft__attn_row *row) {
    const peft__attn_args *args = t->job->args;
    if (t->job->phase >= peft__attn_block_count(args, row, true, t->job->block)) { return; }
    t->row = row;
    t->packed = false;
    t->keys = peft__attn_block_at(args, row, t->kv, true, t->job->block, t->job->phase);
    t->lddk = t->lddv = row->past_ld;
    const int64_t at = t->keys.first * row->past_ld + t->kv * args->head_dim;
    t->dk = row->past_dk ? row->past_dk + at : NULL;
    t->dv = row->past_dv ? row->past_dv + at : NULL;
    attn_back_queries(t, 0, row->n);
}

/* A row and a KV head; the first of the rows that share a gradient does the others' work as well. */
static void attn_back_past_task(void *arg, int64_t task, int32_t worker) {
    const attn_back_job *job = (const attn_back_job *)arg;
    const peft__attn_args *args = job->args;
    const int64_t r = task / args->kv_heads;
    for (int64_t i = 0; i < r; i++) {
        if (attn_back_shares(&args->rows[i], &args->rows[r])) { return; }
    }
    attn_back_pair t;
    attn_back_begin(&t, job, worker);
    t.kv = task % args->kv_heads;
    attn_back_past_row(&t, &args->rows[r]);
    for (int64_t i = r + 1; i < args->n_rows; i++) {
        if (attn_back_shares(&args->rows[i], &args->rows[r])) { attn_back_past_row(&t, &args->rows[i]); }
    }
}

static void attn_back_past(attn_back_job *job) {
    const peft__attn_args *args = job->args;
    int64_t most = 0;
    for (int64_t r = 0; r < args->n_rows; r++) {
        most = PEFT__MAX(most, peft__attn_block_count(args, &args->rows[r], true, job->block));
    }
    for (job->phase = 0; job->phase < most; job->phase++) {
        peft__pool_run(job->run->pool, attn_back_past_task, job, args->n_rows * args->kv_heads);
    }
}

/* ------------------------------------------------------------------------------------------------------------------------- */

/* D of a token's heads: here, where rows pass in order, once, and not for each block of keys. */
static void attn_back_delta(const attn_back_job *job, int64_t token) {
    const peft__attn_args *args = job->args;
    const peft__real *d_o = args->d_o + token * args->ldo, *o = args->o + token * args->ldo;
    for (int64_t h = 0; h < args->heads; h++) {
        args->delta[h * args->n_tokens + token] = job->run->k->dot(d_o + h * args->head_dim, o + h * args->head_dim, args->head_dim);
    }
}

static void attn_back_begin_task(void *arg, int64_t task, int32_t worker) {
    const peft__attn_args *args = ((const attn_back_job *)arg)->args;
    const size_t wide = (size_t)(args->heads * args->head_dim) * sizeof(peft__real);
    const size_t narrow = (size_t)(args->kv_heads * args->head_dim) * sizeof(peft__real);
    const peft__attn_row *row = &args->rows[task / ATTN_BACK_BEGIN];
    const int64_t part = task % ATTN_BACK_BEGIN;
    const int64_t own = peft__attn_own(args, row), first = args->cross ? row->k_first : row->first;
    (void)worker;
    for (int64_t i = row->n * part / ATTN_BACK_BEGIN; i < row->n * (part + 1) / ATTN_BACK_BEGIN; i++) {
        memset(args->dq + (row->first + i) * args->ldq, 0, wide);
        attn_back_delta(arg, row->first + i);
    }
    for (int64_t i = own * part / ATTN_BACK_BEGIN; i < own * (part + 1) / ATTN_BACK_BEGIN; i++) {
        memset(args->dk + (first + i) * args->ldk, 0, narrow);
        memset(args->dv + (first + i) * args->ldv, 0, narrow);
    }
}

/* The sums by query block and head, added to the table's gradient, or made 0. */
static void attn_back_table(const attn_back_job *job, bool begin) {
    const peft__attn_args *args = job->args;
    const peft__attn_bias *b = args->bias;
    int64_t blocks = 0;
    if (job->partial == NULL) { return; }
    for (int64_t r = 0; r < args->n_rows; r++) { blocks += peft__attn_ceil(args->rows[r].n, job->span); }
    if (begin) {
        memset(job->partial, 0, (size_t)(blocks * args->heads * b->buckets) * sizeof *job->partial);
        return;
    }
    const peft__real *from = job->partial;
    for (int64_t x = 0; x < blocks; x++) {
        for (int64_t h = 0; h < args->heads; h++, from += b->buckets) {
            for (int64_t i = 0; i < b->buckets; i++) { b->d_table[i * args->heads + h] += from[i]; }
        }
    }
}

int64_t peft__attn_bias_partials(int64_t tokens, int64_t rows, int64_t heads, int64_t buckets) {
    return (tokens / ATTN_BACK_SPAN + rows) * heads * buckets;
}

void peft__attn_backward(const peft__run *run, const peft__attn_args *args) {
    attn_back_job job = {.run = run, .args = args, .group = args->heads / args->kv_heads};
    job.block = peft__attn_ceil(ATTN_BACK_KEYS, run->k->nr) * run->k->nr;
    job.span = job.group == 1 ? 2 * ATTN_BACK_SPAN : ATTN_BACK_SPAN;
    job.partial = args->bias != NULL && args->bias->d_table != NULL ? args->bias->partial : NULL;
    if (args->n_rows == 0) { return; }
    attn_back_table(&job, true);
    peft__pool_run(run->pool, attn_back_begin_task, &job, args->n_rows * ATTN_BACK_BEGIN);
    attn_back_past(&job);
    attn_back_own(&job);
    attn_back_table(&job, false);
}
