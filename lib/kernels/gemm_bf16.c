/* gemm_bf16.c - C = alpha A B + beta C + bias with both operands rounded to bfloat16 and sums of floats: frozen weights only.
 *
 *   A, all rows ──round──▶ words [m][k / 2]       once for a product, by all workers, into the run's room for it
 *   B, by blocks ──pack──▶ panels of words        as in gemm.c: stored rows are dequantised, rounded and turned in a worker's L2
 *                          tile_bf16 over both    two products a step: half of the steps of gemm.c's tile
 *
 * A word holds two numbers that follow each other along k (kernels.h). B stored as bfloat16 along k is words already, and its rows
 * are packed as if they were floats. A table without such a tile multiplies rounded floats with its own: no faster than floats,
 * and off from pairs by the order of sums only. alpha is applied to A, so that B stored as bfloat16 is taken as it is.
 *
 * A product whose A does not fit its room goes in rounds, first over K, then over rows. As in gemm.c the blocks of K depend on K
 * alone and are added in order: an element has the same bits however M and N are cut and whoever computes them.
 *
 * Left out: B of reals (adapters: their products stay what they are), A stored transposed (gradients of weights, likewise). */
#include "kernels/gemm.h"
#include "kernels/generic/generic.h"
#include "kernels/scratch.h"

#ifndef PEFT_MINIMAL

enum {
    BF16_WORDS = 640,            /* most words of K in a block */
    BF16_B_BYTES = 672 << 10,    /* room for B's block: 256 columns of BF16_WORDS, and the padding */
    BF16_B_TARGET = 512 << 10,   /* wanted size of it where words are pairs: half of the L2 of CPUs that multiply them */
    BF16_B_TARGET_PLAIN = 256 << 10,
    BF16_CHUNK = 256,            /* numbers of a stored row that are dequantised at a time */
    BF16_STAGE_BYTES = 64 << 10, /* BF16_CHUNK x PEFT__TILE_COLS floats */
    BF16_PAD = 16,               /* words between panels, and rows of A: off each other's L1 sets */
    BF16_NC_MOST = 1024,         /* columns of a block: sixteen stored rows of them fit the stage */
    BF16_AHEAD = 8,              /* stored rows of B that are asked for before they are wanted */
    BF16_GRAIN = 8,              /* rows of A that a task rounds */
    BF16_WIDE = sizeof(peft__real) / sizeof(float),
};

/* One call, cut up, and its present round. */
typedef struct bf16_plan {
    const peft__run *run;
    const peft__gemm_args *args;
    bool pairs;              /* words are pairs of bfloat16; else rounded reals */
    bool plain;              /* B is stored as aligned reals */
    bool straight;           /* B is stored as the words it is packed as */
    peft__dtype_block block; /* of B's type */
    int64_t kc, nc, mc;      /* most of K, columns and rows in a block */
    int64_t row_blocks;      /* task = column block * row_blocks + row block */
    int64_t row, rows;       /* the round: rows of A and C */
    int64_t k, depth;        /* the round: of K */
    int64_t lda;             /* words from one rounded row to the next */
} bf16_plan;

/* A worker's scratch. */
typedef struct bf16_space {
    peft__real *b;     /* BF16_B_BYTES: panels [columns / nr][words][nr], BF16_PAD between them */
    peft__real *stage; /* two times BF16_STAGE_BYTES: dequantised rows on their way, and behind them a panel of reals */
    peft__real *wide;  /* that panel */
} bf16_space;

size_t peft__bf16_scratch(void) {
    return (size_t)BF16_WIDE * ((size_t)BF16_B_BYTES + 2 * (size_t)BF16_STAGE_BYTES);
}

static bf16_space bf16_space_of(const peft__run *run, int32_t worker) {
    uint8_t *base = run->scratch + (size_t)worker * run->scratch_size;
    bf16_space s;
    s.b = (peft__real *)(void *)base;
    s.stage = (peft__real *)(void *)(base + (size_t)BF16_WIDE * BF16_B_BYTES);
    s.wide = (peft__real *)(void *)(base + (size_t)BF16_WIDE * (BF16_B_BYTES + BF16_STAGE_BYTES));
    return s;
}

static int64_t bf16_ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }

static int64_t bf16_words(const bf16_plan *p, int64_t k) { return p->pairs ? (k + 1) / 2 : k; }

static int64_t bf16_panel_size(const bf16_plan *p, int64_t kc) { return bf16_words(p, kc) * p->run->k->nr + BF16_PAD; }

static const peft__real *bf16_reals(const uint8_t *at) { return (const peft__real *)(const void *)at; }

/* Even blocks, whole quant blocks where K consists of such; all but the last are even numbers. */
static int64_t bf16_kc(int64_t k, int64_t most) {
    const int64_t unit = k % 256 == 0 ? 256 : k % 32 == 0 ? 32 : 8;
    const int64_t units = bf16_ceil(k, unit), blocks = bf16_ceil(units, most / unit);
    return bf16_ceil(units, blocks) * unit;
}

/* Columns [j0, j0 + cols) of B (stored [n][k]) at k0 .. k0 + kc as one panel of words. */
static void bf16_pack_trans(const bf16_plan *p, const bf16_space *s, int64_t k0, int64_t kc, int64_t j0, int32_t cols,
                            peft__real *panel) {
    const peft__kernels *k = p->run->k;
    const peft__operand *b = &p->args->b;
    const int64_t at = (b->first + k0) / p->block.elems * p->block.bytes, ahead = k->nr * b->row_bytes;
    const uint8_t *stored[PEFT__TILE_COLS];
    const peft__real *rows[PEFT__TILE_COLS];
    for (int32_t j = 0; j < cols; j++) {
        stored[j] = peft__gemm_stored_row(b, j0 + j) + at;
        rows[j] = p->straight || p->plain ? bf16_reals(stored[j]) : s->stage + (int64_t)j * BF16_CHUNK;
    }
    if (p->straight && kc % 2 == 0) {
        k->pack_rows(panel, rows, cols, kc / 2);
        return;
    }
    for (int64_t done = 0; done < kc; done += BF16_CHUNK) {
        const int64_t n = PEFT__MIN(kc - done, BF16_CHUNK), bytes = n / p->block.elems * p->block.bytes;
        peft__real *to = p->pairs ? s->wide : panel + done * k->nr;
        for (int32_t j = 0; j < cols; j++) {
            peft__gemm_fetch(stored[j], ahead, bytes);
            rows[j] = p->plain ? bf16_reals(stored[j]) : s->stage + (int64_t)j * BF16_CHUNK;
        }
        if (p->plain) {
            k->pack_rows(to, rows, cols, n);
        } else if (cols < k->nr || k->pack_stored == NULL || !k->pack_stored(b->dtype, to, stored, n)) {
            for (int32_t j = 0; j < cols; j++) { k->dequant(b->dtype, stored[j], n, s->stage + (int64_t)j * BF16_CHUNK); }
            k->pack_rows(to, rows, cols, n);
        }
        if (p->pairs) {
            k->pair_rows(panel + done / 2 * k->nr, k->nr, to, k->nr, n, k->nr);
        } else {
            k->round_bf16(to, to, n * k->nr);
        }
        for (int32_t j = 0; j < cols; j++) { stored[j] += bytes; }
    }
}

/* `rows` rows of B's block, lds apart, into rows `at` and on of a panel of kc; cols of its columns. */
static void bf16_put_rows(const bf16_plan *p, const peft__real *x, int64_t lds, int64_t rows, int64_t at, int32_t cols,
                          peft__real *panel) {
    const peft__kernels *k = p->run->k;
    peft__real *to = panel + bf16_words(p, at) * k->nr;
    if (cols < k->nr) { memset(to, 0, (size_t)(bf16_words(p, rows) * k->nr) * sizeof *to); }
    if (p->pairs) {
        k->pair_rows(to, k->nr, x, lds, rows, cols);
        return;
    }
    for (int64_t r = 0; r < rows; r++) { k->round_bf16(to + r * k->nr, x + r * lds, cols); }
}

/* Columns [j0, j0 + n) of B (stored [k][n]) at k0 .. k0 + kc as panels, a few stored rows at a time. */
static void bf16_pack_plain(const bf16_plan *p, const bf16_space *s, int64_t k0, int64_t kc, int64_t j0, int64_t n) {
    const peft__kernels *k = p->run->k;
    const peft__operand *b = &p->args->b;
    const int64_t at = (b->first + j0) / p->block.elems * p->block.bytes;
    const int64_t whole = bf16_ceil(n, p->block.elems) * p->block.elems, room = 2 * BF16_STAGE_BYTES / (int64_t)sizeof(float);
    const int64_t group = PEFT__MIN(room / whole, 64) / 2 * 2, size = bf16_panel_size(p, kc);
    for (int64_t done = 0; done < kc; done += group) {
        const int64_t rows = PEFT__MIN(kc - done, group);
        for (int64_t r = 0; r < rows; r++) {
            const uint8_t *row = peft__gemm_stored_row(b, k0 + done + r) + at;
            peft__gemm_fetch(row, BF16_AHEAD * b->row_bytes, n / p->block.elems * p->block.bytes);
            if (p->plain) {
                memcpy(s->stage + r * whole, row, (size_t)n * sizeof *s->stage);
            } else {
                k->dequant(b->dtype, row, whole, s->stage + r * whole);
            }
        }
        for (int64_t j = 0; j < n; j += k->nr) {
            bf16_put_rows(p, s->stage + j, whole, rows, done, (int32_t)PEFT__MIN(n - j, k->nr), s->b + j / k->nr * size);
        }
    }
}

static void bf16_pack(const bf16_plan *p, const bf16_space *s, int64_t k0, int64_t kc, int64_t j0, int64_t n) {
    const int32_t nr = p->run->k->nr;
    if (!p->args->b.trans) {
        bf16_pack_plain(p, s, k0, kc, j0, n);
        return;
    }
    for (int64_t j = 0; j < n; j += nr) {
        bf16_pack_trans(p, s, k0, kc, j0 + j, (int32_t)PEFT__MIN(n - j, nr), s->b + j / nr * bf16_panel_size(p, kc));
    }
}

/* Rows [i, i + rows) of the round's C: all panels pass by one sliver of A. */
static void bf16_sweep(const bf16_plan *p, const bf16_space *s, int64_t i, int32_t rows, int64_t k0, int64_t kc, int64_t j0,
                       int64_t n) {
    const peft__kernels *k = p->run->k;
    const peft__gemm_args *g = p->args;
    const peft__real *a = (const peft__real *)(const void *)p->run->rounded + i * p->lda + bf16_words(p, k0 - p->k);
    peft__real *c = g->c + (p->row + i) * g->ldc + j0;
    for (int64_t j = 0; j < n; j += k->nr) {
        (p->pairs ? k->tile_bf16 : k->tile)(rows, (int32_t)PEFT__MIN(n - j, k->nr), bf16_words(p, kc), a, p->lda, 1,
                                            s->b + j / k->nr * bf16_panel_size(p, kc), k->nr, c + j, g->ldc,
                                            k0 == 0 && !g->accumulate);
    }
    for (int32_t r = 0; k0 + kc == g->k && g->bias != NULL && r < rows; r++) {
        k->add(c + r * g->ldc, c + r * g->ldc, g->bias + j0, n);
    }
}

static void bf16_task(void *arg, int64_t task, int32_t worker) {
    const bf16_plan *p = arg;
    const bf16_space s = bf16_space_of(p->run, worker);
    const int64_t mr = p->run->k->mr, j0 = task / p->row_blocks * p->nc, n = PEFT__MIN(p->args->n - j0, p->nc);
    const int64_t begin = task % p->row_blocks * p->mc, end = PEFT__MIN(begin + p->mc, p->rows);
    for (int64_t k0 = p->k; k0 < p->k + p->depth; k0 += p->kc) {
        const int64_t kc = PEFT__MIN(p->k + p->depth - k0, p->kc);
        bf16_pack(p, &s, k0, kc, j0, n);
        for (int64_t i = begin, rows; i < end; i += rows) { /* the last two share what is left */
            const int64_t left = end - i;
            rows = left <= mr ? left : left < 2 * mr ? (left + 1) / 2 : mr;
            bf16_sweep(p, &s, i, (int32_t)rows, k0, kc, j0, n);
        }
    }
}

/* BF16_GRAIN rows of the round's A. */
static void bf16_round_task(void *arg, int64_t task, int32_t worker) {
    enum { PIECE = BF16_STAGE_BYTES / sizeof(float) };
    const bf16_plan *p = arg;
    const peft__kernels *k = p->run->k;
    const bf16_space s = bf16_space_of(p->run, worker);
    const int64_t end = PEFT__MIN((task + 1) * BF16_GRAIN, p->rows);
    for (int64_t i = task * BF16_GRAIN; i < end; i++) {
        peft__real *to = (peft__real *)(void *)p->run->rounded + i * p->lda;
        const peft__real *a = p->args->a + (p->row + i) * p->args->lda + p->k;
        for (int64_t done = 0; done < p->depth; done += PIECE) {
            const int64_t n = PEFT__MIN(p->depth - done, PIECE);
            const peft__real *from = a + done;
            if (p->args->alpha != 1) {
                k->scale(s.stage, p->args->alpha, from, n);
                from = s.stage;
            }
            (p->pairs ? k->pair_row : k->round_bf16)(to + bf16_words(p, done), from, n);
        }
    }
}

bool peft__bf16_fits(const peft__run *run, const peft__gemm_args *g) {
    return run->rounded != NULL && g->b.frozen && !g->a_trans;
}

/* Columns in a block: as many as the target size allows, fewer to give every worker enough tasks, in whole units. Rows are cut
 * only where that leaves too few, for each row block packs B anew. */
static void bf16_cut(bf16_plan *p) {
    const peft__gemm_args *g = p->args;
    const peft__kernels *k = p->run->k;
    const int64_t unit = g->b.trans ? k->nr : PEFT__MAX(k->nr, p->block.elems), want = peft__gemm_tasks(p->run, g);
    const int64_t target = p->pairs ? BF16_B_TARGET : BF16_B_TARGET_PLAIN;
    const int64_t fit = PEFT__MIN(target / (int64_t)sizeof(float) / bf16_words(p, p->kc), BF16_NC_MOST);
    p->nc = PEFT__MAX(PEFT__MIN(fit, bf16_ceil(g->n, want)) / unit * unit, unit);
    if (want == 1) { p->nc = bf16_ceil(bf16_ceil(g->n, bf16_ceil(g->n, p->nc)), unit) * unit; } /* even ones */
    const int64_t blocks = bf16_ceil(g->n, p->nc);
    const int64_t row_blocks = PEFT__MAX(1, PEFT__MIN(bf16_ceil(want, blocks), p->rows / (4 * k->mr)));
    p->mc = bf16_ceil(bf16_ceil(p->rows, row_blocks), k->mr) * k->mr;
    p->row_blocks = bf16_ceil(p->rows, p->mc);
}

void peft__gemm_bf16(const peft__run *run, const peft__gemm_args *g) {
    const int64_t room = PEFT__ROUNDED_BYTES / (int64_t)sizeof(peft__real);
    bf16_plan p = {.run = run, .args = g, .pairs = run->k->tile_bf16 != NULL, .block = peft__dtype_block_of(g->b.dtype)};
    p.plain = peft__gemm_plain(&g->b);
    p.straight = p.pairs && g->b.trans && g->b.dtype == PEFT_DTYPE_BF16;
    p.kc = bf16_kc(g->k, p.pairs ? 2 * BF16_WORDS : BF16_WORDS);
    const int64_t least = bf16_words(&p, PEFT__MIN(p.kc, g->k)) + 3 * BF16_PAD, most = PEFT__MIN(g->m, room / least);
    for (p.row = 0; p.row < g->m; p.row += p.rows) {
        p.rows = PEFT__MIN(g->m - p.row, most);
        const int64_t blocks = PEFT__MAX((room / p.rows - 3 * BF16_PAD) / bf16_words(&p, p.kc), 1);
        for (p.k = 0; p.k < g->k; p.k += p.depth) {
            p.depth = PEFT__MIN(g->k - p.k, blocks * p.kc);
            p.lda = bf16_ceil(bf16_words(&p, p.depth), BF16_PAD) * BF16_PAD + BF16_PAD;
            p.lda += p.lda % 256 == 0 ? BF16_PAD : 0;
            bf16_cut(&p);
            peft__pool_run(run->pool, bf16_round_task, &p, bf16_ceil(p.rows, BF16_GRAIN));
            peft__pool_run(run->pool, bf16_task, &p, bf16_ceil(g->n, p.nc) * p.row_blocks);
        }
    }
}

#endif
