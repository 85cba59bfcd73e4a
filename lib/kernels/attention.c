/* attention.c - softmax(q k' scale + bias) v by blocks, forward (Milakov and Gimelshein 2018; Dao et al. 2022).
 *
 *   for each block of keys:   S = Q K' (tiles on packed panels);   m' = max(m, max S);   P = exp(S - m')
 *                             O = O exp(m - m') + P V;             l = l exp(m - m') + sum P
 *   at the end                O = O / l;                           lse = m + ln l
 *
 * A task is a KV head of a row, up to ATTN_UNITS (head, sub-block) units that share its packed keys and values. O is summed
 * in the caller's array. Blocks and units follow from the row and the table alone, never from the batch or the threads.
 * Rows of few queries (generation) take a path without packing, one head to a task, on dot and axpy.
 *
 * Left out: dropout inside attention, biases of other kinds than by relative position (ALiBi), the backward half
 * (attention_back.c). */
#include <math.h>

#include "kernels/attention.h"
#include "kernels/scratch.h"

enum {
    ATTN_UNITS = 16, /* units of a task */
    ATTN_SHARE = 4,  /* units that share packed keys, at least, where the row is long enough */
    ATTN_FEW = 4,    /* rows of fewer queries are not packed */
    ATTN_PAD = 16    /* reals after each row of S: keeps rows out of each other's cache sets */
};

typedef struct attn_scratch {
    peft__real *keys;   /* panels of K', block x head_dim */
    peft__real *values; /* panels of V, block x head_dim rounded up to nr */
    peft__real *s;      /* [PEFT__ATTN_QUERIES, lds] */
    peft__real *m, *l;  /* [ATTN_UNITS][PEFT__ATTN_QUERIES]: running maximum and sum */
    int64_t lds;
    int64_t block; /* keys of a block */
} attn_scratch;

/* Lays the pieces out from base (which may be NULL, for the size in reals that is returned). */
static size_t attn_layout(const peft__kernels *k, int64_t dim, peft__real *base, attn_scratch *out) {
    const int64_t wide = peft__attn_ceil(dim, k->nr) * k->nr;
    out->block = PEFT__MAX(PEFT__ATTN_KEYS / k->nr, 1) * k->nr; /* a multiple of nr */
    out->lds = peft__attn_ceil(out->block, 16) * 16 + ATTN_PAD;
    const size_t keys = (size_t)(peft__attn_ceil(out->block * dim, 16) * 16), values = (size_t)(out->block * wide);
    const size_t s = (size_t)(PEFT__ATTN_QUERIES * out->lds), stat = (size_t)ATTN_UNITS * PEFT__ATTN_QUERIES;
    if (base) {
        out->keys = base;
        out->values = out->keys + keys;
        out->s = out->values + values;
        out->m = out->s + s;
        out->l = out->m + stat;
    }
    return keys + values + s + 2 * stat;
}

size_t peft__attn_forward_scratch(const peft__kernels *k, int64_t head_dim) {
    attn_scratch unused;
    return (attn_layout(k, head_dim, NULL, &unused) * sizeof(peft__real) + 63) / 64 * 64;
}

/* What all tasks read. */
typedef struct attn_job {
    const peft__run *run;
    const peft__attn_args *args;
    int64_t group;  /* query heads of a KV head */
    int64_t subs;   /* sub-blocks of a task: more when few query heads share a KV head, to pack it less often */
    int64_t heads;  /* query heads of a task */
    int64_t chunks; /* tasks that share a KV head and a range of queries */
} attn_job;

/* One row, one KV head, `heads` query heads from `head0`, queries [query, query + n). */
typedef struct attn_task {
    const attn_job *job;
    const peft__attn_row *row;
    attn_scratch w;
    int64_t kv, head0, heads, query, n;
} attn_task;

static int64_t attn_row_tasks(const attn_job *job, const peft__attn_row *row) {
    if (row->n < ATTN_FEW) { return row->n > 0 ? job->args->heads : 0; }
    return peft__attn_ceil(row->n, job->subs * PEFT__ATTN_QUERIES) * job->args->kv_heads * job->chunks;
}

/* Folds query `query`'s scores of the block's keys [lo, lo + n) into the running softmax; s, at the first of them, becomes
 * exp(scores - m). Returns the factor of what was summed. */
static peft__real attn_softmax(const attn_task *t, const peft__attn_block *block, int64_t head, int64_t query, int64_t lo,
                               int64_t n, peft__real *s, peft__real *m, peft__real *l) {
    const peft__attn_args *args = t->job->args;
    const peft__kernels *k = t->job->run->k;
    peft__real a = args->scale;
    if (n <= 0) { return 1; }
    if (args->softcap > 0) {
        k->scale(s, a / args->softcap, s, n);
        k->act(PEFT__ACT_TANH, s, s, n);
        a = args->softcap;
    } else if (args->bias != NULL) {
        peft__attn_add_bias(k, args, t->row, block, head, query, lo, n, s);
        a = 1;
    }
    const peft__real top = a * k->max(s, n), next = top > *m ? top : *m;
    const peft__real factor = next == *m ? 1 : peft__exp(*m - next);
    *l = *l * factor + k->exp_sum(s, s, a, next, n);
    *m = next;
    return factor;
}

/* One unit against one packed block. */
static void attn_unit(const attn_task *t, const peft__attn_block *block, const peft__attn_span *span, int64_t unit,
                      int64_t head, int64_t query, int64_t rows) {
    const peft__attn_args *args = t->job->args;
    const peft__kernels *k = t->job->run->k;
    const int64_t dim = args->head_dim, token = t->row->first + query;
    const peft__real *q = args->q + token * args->ldq + head * dim;
    peft__real *o = args->o + token * args->ldo + head * dim;
    peft__real *m = t->w.m + unit * PEFT__ATTN_QUERIES, *l = t->w.l + unit * PEFT__ATTN_QUERIES;
    peft__attn_scores(k, span, rows, block->n, dim, q, args->ldq, t->w.keys, t->w.s, t->w.lds, true);
    for (int64_t i = 0; i < rows; i++) {
        peft__real *s = t->w.s + i * t->w.lds;
        const int64_t lo = span->lo[i], n = span->hi[i] - lo;
        const peft__real factor = attn_softmax(t, block, head, query + i, lo, n, s + lo, &m[i], &l[i]);
        peft__attn_clear_edges(span, i, block->n, s);
        if (factor != 1) { k->scale(o + i * args->ldo, factor, o + i * args->ldo, dim); }
    }
    peft__attn_weigh(k, span, rows, block->n, dim, t->w.s, t->w.lds, t->w.values, o, args->ldo);
}

static void attn_blocks(const attn_task *t, bool past) {
    const peft__attn_args *args = t->job->args;
    const peft__kernels *k = t->job->run->k;
    const int64_t count = peft__attn_block_count(args, t->row, past, t->w.block);
    for (int64_t b = 0; b < count; b++) {
        const peft__attn_block block = peft__attn_block_at(args, t->row, t->kv, past, t->w.block, b);
        bool packed = false;
        for (int64_t at = 0, sub = 0; at < t->n; at += PEFT__ATTN_QUERIES, sub++) {
            const int64_t rows = PEFT__MIN(t->n - at, (int64_t)PEFT__ATTN_QUERIES);
            peft__attn_span span;
            if (!peft__attn_spans(args, t->row, &block, t->query + at, rows, &span)) { continue; }
            if (!packed) {
                peft__attn_pack_keys(k, t->w.keys, block.k, block.ldk, block.n, args->head_dim);
                peft__attn_pack_values(k, t->w.values, block.v, block.ldv, block.n, args->head_dim, 1);
                packed = true;
            }
            for (int64_t h = 0; h < t->heads; h++) {
                attn_unit(t, &block, &span, h * t->job->subs + sub, t->head0 + h, t->query + at, rows);
            }
        }
    }
}

/* Zeroes the output, or divides it by the sums and keeps their logarithms. */
static void attn_edges(const attn_task *t, bool begin) {
    const peft__attn_args *args = t->job->args;
    for (int64_t h = 0; h < t->heads; h++) {
        const int64_t head = t->head0 + h;
        for (int64_t i = 0; i < t->n; i++) {
            const int64_t at = h * t->job->subs * PEFT__ATTN_QUERIES + i, token = t->row->first + t->query + i;
            peft__real *o = args->o + token * args->ldo + head * args->head_dim, *m = t->w.m + at, *l = t->w.l + at;
            if (begin) {
                memset(o, 0, (size_t)args->head_dim * sizeof *o);
                *m = -(peft__real)INFINITY;
                *l = 0;
                continue;
            }
            t->job->run->k->scale(o, *l == 0 ? 0 : 1 / *l, o, args->head_dim);
            if (args->lse) { args->lse[head * args->n_tokens + token] = *m + peft__ln(*l); }
        }
    }
}

/* A query of one head against one block, unpacked. */
static void attn_few_block(const attn_task *t, const peft__attn_block *block, peft__real *m, peft__real *l) {
    const peft__attn_args *args = t->job->args;
    const peft__kernels *k = t->job->run->k;
    const int64_t dim = args->head_dim, token = t->row->first + t->query;
    const peft__real *q = args->q + token * args->ldq + t->head0 * dim;
    peft__real *o = args->o + token * args->ldo + t->head0 * dim, *s = t->w.s;
    peft__attn_span span;
    if (!peft__attn_spans(args, t->row, block, t->query, 1, &span)) { return; }
    for (int64_t j = span.lo[0]; j < span.hi[0]; j++) { s[j] = k->dot(q, block->k + j * block->ldk, dim); }
    const int64_t lo = span.lo[0], n = span.hi[0] - lo;
    const peft__real factor = attn_softmax(t, block, t->head0, t->query, lo, n, s + lo, m, l);
    if (factor != 1) { k->scale(o, factor, o, dim); }
    for (int64_t j = span.lo[0]; j < span.hi[0]; j++) { k->axpy(o, s[j], block->v + j * block->ldv, dim); }
}

static void attn_few(attn_task *t) {
    t->n = 1;
    for (t->query = 0; t->query < t->row->n; t->query++) {
        attn_edges(t, true);
        for (int64_t past = 1; past >= 0; past--) {
            const int64_t count = peft__attn_block_count(t->job->args, t->row, past != 0, t->w.block);
            for (int64_t b = 0; b < count; b++) {
                const peft__attn_block block =
                    peft__attn_block_at(t->job->args, t->row, t->kv, past != 0, t->w.block, b);
                attn_few_block(t, &block, t->w.m, t->w.l);
            }
        }
        attn_edges(t, false);
    }
}

static void attn_forward_task(void *arg, int64_t task, int32_t worker) {
    const attn_job *job = (const attn_job *)arg;
    const peft__attn_args *args = job->args;
    const peft__attn_row *row = args->rows;
    int64_t count = attn_row_tasks(job, row);
    while (task >= count) {
        task -= count;
        count = attn_row_tasks(job, ++row);
    }
    attn_task t = {.job = job, .row = row};
    void *base = job->run->scratch + (size_t)worker * job->run->scratch_size;
    (void)attn_layout(job->run->k, args->head_dim, (peft__real *)base, &t.w);
    if (row->n < ATTN_FEW) {
        t.head0 = task;
        t.heads = 1;
        t.kv = task / job->group;
        attn_few(&t);
        return;
    }
    const int64_t span = job->subs * PEFT__ATTN_QUERIES, ranges = peft__attn_ceil(row->n, span);
    const int64_t range =
        ranges - 1 - task / (args->kv_heads * job->chunks); /* the longest tasks of a causal row first */
    const int64_t chunk = task % job->chunks;
    t.kv = task / job->chunks % args->kv_heads;
    t.head0 = t.kv * job->group + chunk * job->heads;
    t.heads = PEFT__MIN(job->heads, job->group - chunk * job->heads);
    t.query = range * span;
    t.n = PEFT__MIN(span, row->n - t.query);
    attn_edges(&t, true);
    attn_blocks(&t, true);
    attn_blocks(&t, false);
    attn_edges(&t, false);
}

void peft__attn_forward(const peft__run *run, const peft__attn_args *args) {
    attn_job job = {.run = run, .args = args, .group = args->heads / args->kv_heads};
    job.subs = job.group < ATTN_SHARE ? ATTN_SHARE / job.group : 1;
    job.heads = PEFT__MIN(job.group, ATTN_UNITS / job.subs);
    job.chunks = peft__attn_ceil(job.group, job.heads);
    int64_t tasks = 0;
    for (int64_t r = 0; r < args->n_rows; r++) { tasks += attn_row_tasks(&job, &args->rows[r]); }
    if (tasks > 0) { peft__pool_run(run->pool, attn_forward_task, &job, tasks); }
}
