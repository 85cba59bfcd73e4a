/* gemm.c - C = alpha A B + beta C + bias for any stored type of B, over the micro-kernel of a table.
 *
 *              n: column blocks of nc                  A task is one column block of one row block. For each block of K it
 *            +------+------+------+                    packs (or dequantises) B's kc x nc part into panels of nr columns in
 *    k: kc   | B's  |      |      |                    its own L2, then runs down its rows: a sliver of mr rows of A stays
 *            +------+------+------+                    in L1 while all panels pass by.
 *            |      |      |      |
 *            +------+------+------+                    C's block is written once for each block of K, in order of K.
 *      +--+--+  +---+
 *    m |A |  |  | C |     mr x nr at a time            (Goto and van de Geijn, "Anatomy of high-performance matrix
 *      +--+--+  +---+                                  multiplication", 2008, with B's block rather than A's in L2.)
 *
 * The split of K depends on K alone, and the tile adds each element's products in order of k; so an element has the same
 * bits however M and N are cut and whoever computes them. Cutting N comes first, for a packed block then serves all rows.
 *
 * A is read where it lies unless it is stored transposed and wide; copying rows that are multiples of 4 KiB apart did not
 * pay with six of them. alpha is applied to the packed panels. A few rows of A over stored rows of B are
 * narrow.c's, tall ones transposed with a narrow B tall.c's.
 *
 * Left out: packing B beforehand. */
#include "kernels/gemm.h"
#include "kernels/blas.h"
#include "kernels/generic/generic.h"
#include "kernels/scratch.h"

enum {
    GEMM_B_TARGET = 256 << 10,   /* wanted size of B's block: half of a small L2 */
    GEMM_STAGE_BYTES = 64 << 10, /* dequantised rows on their way into panels */
    GEMM_CHUNK = 256,            /* elements of a stored row that are dequantised at a time */
    GEMM_GROUP = 8,              /* slivers of a transposed A packed at a time; 10 at most, with the rest */
    GEMM_NC_MOST = 2048,         /* columns of a block, whatever its depth */
    GEMM_TASKS = 4,              /* wanted for each worker: one that is held up then costs little */
    GEMM_ROW_BLOCKS = 4,         /* most blocks of rows, but where more are needed for enough tasks */
    GEMM_PACKING = 28,           /* rows of C that could be computed while B's block is packed */
    GEMM_EXACT = 2,              /* rows for which rounding to bfloat16 does not pay */
    GEMM_SERIAL = 1 << 17,       /* products below which waking a thread costs more than it saves */
};

/* One call, cut up. */
typedef struct gemm_plan {
    const peft__run *run;
    const peft__gemm_args *args;
    int64_t kc, nc, mc;      /* most of K, columns and rows in a block */
    int32_t mr;              /* rows of a sliver: the table's, or twice as many if a vector holds all columns */
    int64_t row_blocks;      /* task = column block * row_blocks + row block */
    peft__dtype_block block; /* of B's type */
    bool plain;              /* B is stored as aligned reals */
    bool direct;             /* whole panels of B are read where they lie */
    bool pack_a;             /* A is stored transposed and its slivers are packed */
} gemm_plan;

/* A worker's scratch. */
typedef struct gemm_space {
    peft__real *b;     /* PEFT__GEMM_B_BYTES: panels [columns / nr][kc][nr], PEFT__GEMM_PAD between them */
    peft__real *stage; /* GEMM_STAGE_BYTES */
    peft__real *a;     /* slivers [GEMM_GROUP + 2][PEFT__GEMM_KC][mr], PEFT__GEMM_PAD between them */
} gemm_space;

/* In the double build a block of as many numbers takes twice the bytes. */
enum { GEMM_WIDE = sizeof(peft__real) / sizeof(float) };

size_t peft__gemm_scratch(const peft__kernels *k) {
    const size_t a = (GEMM_GROUP + 2) * ((size_t)k->mr * PEFT__GEMM_KC + PEFT__GEMM_PAD) * sizeof(peft__real);
    return (size_t)GEMM_WIDE * ((size_t)PEFT__GEMM_B_BYTES + (size_t)GEMM_STAGE_BYTES) + (a + 63) / 64 * 64;
}

static gemm_space gemm_space_of(const peft__run *run, int32_t worker) {
    uint8_t *base = run->scratch + (size_t)worker * run->scratch_size;
    gemm_space s;
    s.b = (peft__real *)(void *)base;
    s.stage = (peft__real *)(void *)(base + (size_t)GEMM_WIDE * PEFT__GEMM_B_BYTES);
    s.a = (peft__real *)(void *)(base + (size_t)GEMM_WIDE * (PEFT__GEMM_B_BYTES + GEMM_STAGE_BYTES));
    return s;
}

static int64_t gemm_panel_size(const gemm_plan *p, int64_t kc) {
    return kc * p->run->k->nr + PEFT__GEMM_PAD;
}

static int64_t gemm_ceil(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* Even blocks of at most PEFT__GEMM_KC, whole quant blocks where K consists of such. */
static int64_t gemm_kc(int64_t k) {
    const int64_t unit = k % 256 == 0 ? 256 : k % 32 == 0 ? 32 : 8;
    const int64_t units = gemm_ceil(k, unit), blocks = gemm_ceil(units, PEFT__GEMM_KC / unit);
    return gemm_ceil(units, blocks) * unit;
}

const uint8_t *peft__gemm_stored_row(const peft__operand *b, int64_t row) {
    if (b->interleave > 0) {
        const int64_t d = b->interleave, half = d / 2, in = row % d;
        row += 2 * (in % half) + in / half - in;
    } else if (b->heads > 0) {
        const int64_t d = b->part, h = row / (3 * d), p = row / d % 3;
        row = (p * b->heads + h) * d + row % d;
    }
    return (const uint8_t *)b->data + row * b->row_bytes;
}

static const peft__real *gemm_reals(const uint8_t *p) {
    return (const peft__real *)(const void *)p;
}

/* Columns [j0, j0 + cols) of B (stored [n][k]) at k0 .. k0 + kc as one panel. Stored blocks go through the stage a chunk at a
 * time, while the same chunk of the next panel's rows is asked for: streams of so few lines end before hardware sees them. */
static void gemm_pack_trans(const gemm_plan *p, const gemm_space *s, int64_t k0, int64_t kc, int64_t j0, int32_t cols,
                            peft__real *panel) {
    const peft__kernels *k = p->run->k;
    const peft__operand *b = &p->args->b;
    const int64_t at = (b->first + k0) / p->block.elems * p->block.bytes, ahead = k->nr * b->row_bytes;
    const uint8_t *stored[PEFT__TILE_COLS];
    const peft__real *rows[PEFT__TILE_COLS];
    for (int32_t j = 0; j < cols; j++) {
        stored[j] = peft__gemm_stored_row(b, j0 + j) + at;
        rows[j] = p->plain ? gemm_reals(stored[j]) : s->stage + (int64_t)j * GEMM_CHUNK;
    }
    if (p->plain) {
        k->pack_rows(panel, rows, cols, kc);
        return;
    }
    for (int64_t done = 0; done < kc; done += GEMM_CHUNK) {
        const int64_t n = PEFT__MIN(kc - done, GEMM_CHUNK), bytes = n / p->block.elems * p->block.bytes;
        peft__real *to = panel + done * k->nr;
        for (int32_t j = 0; j < cols; j++) { peft__gemm_fetch(stored[j], ahead, bytes); }
        if (cols < k->nr || k->pack_stored == NULL || !k->pack_stored(b->dtype, to, stored, n)) {
            for (int32_t j = 0; j < cols; j++) {
                k->dequant(b->dtype, stored[j], n, s->stage + (int64_t)j * GEMM_CHUNK);
            }
            k->pack_rows(to, rows, cols, n);
        }
        for (int32_t j = 0; j < cols; j++) { stored[j] += bytes; }
    }
}

/* nr reals; sizes that are known let the compiler use registers. */
static void gemm_copy_row(peft__real *dst, const peft__real *src, int32_t nr) {
    switch (nr) {
        case 8: memcpy(dst, src, 8 * sizeof *dst); break;
        case 16: memcpy(dst, src, 16 * sizeof *dst); break;
        case 64: memcpy(dst, src, 64 * sizeof *dst); break;
        default: memcpy(dst, src, (size_t)nr * sizeof *dst); break;
    }
}

void peft__gemm_spread(peft__real *dst, const peft__real *src, int64_t n, int32_t nr, int64_t panel) {
    for (; n >= nr; n -= nr, src += nr, dst += panel) { gemm_copy_row(dst, src, nr); }
    if (n > 0) {
        memcpy(dst, src, (size_t)n * sizeof *dst);
        memset(dst + n, 0, (size_t)(nr - n) * sizeof *dst);
    }
}

/* Columns [j0, j0 + n) of B (stored [k][n]) at k0 .. k0 + kc as panels. */
static void gemm_pack_plain(const gemm_plan *p, const gemm_space *s, int64_t k0, int64_t kc, int64_t j0, int64_t n,
                            peft__real *panels) {
    const peft__operand *b = &p->args->b;
    const int64_t at = (b->first + j0) / p->block.elems * p->block.bytes;
    const int64_t whole = gemm_ceil(n, p->block.elems) * p->block.elems;
    const int32_t nr = p->run->k->nr;
    for (int64_t k = 0; k < kc; k++) {
        const uint8_t *row = peft__gemm_stored_row(b, k0 + k) + at;
        if (p->plain) {
            peft__gemm_fetch(row, PEFT__GEMM_AHEAD * b->row_bytes, n * (int64_t)sizeof(peft__real));
        } else {
            p->run->k->dequant(b->dtype, row, whole, s->stage);
        }
        peft__gemm_spread(panels + k * nr, p->plain ? gemm_reals(row) : s->stage, n, nr, gemm_panel_size(p, kc));
    }
}

static void gemm_pack(const gemm_plan *p, const gemm_space *s, int64_t k0, int64_t kc, int64_t j0, int64_t n) {
    const peft__kernels *k = p->run->k;
    const peft__gemm_args *g = p->args;
    const int64_t panels = gemm_ceil(n, k->nr), size = gemm_panel_size(p, kc);
    if (g->b.trans) {
        for (int64_t i = 0; i < panels; i++) {
            gemm_pack_trans(p, s, k0, kc, j0 + i * k->nr, (int32_t)PEFT__MIN(n - i * k->nr, k->nr), s->b + i * size);
        }
    } else {
        const int64_t skip = p->direct ? n / k->nr : 0;
        if (skip < panels) { gemm_pack_plain(p, s, k0, kc, j0 + skip * k->nr, n - skip * k->nr, s->b + skip * size); }
    }
    for (int64_t i = 0; g->alpha != 1 && i < panels; i++) {
        k->scale(s->b + i * size, g->alpha, s->b + i * size, kc * k->nr);
    }
}

/* A sliver of A: where row i and step k are. */
typedef struct gemm_sliver {
    const peft__real *data; /* element [i, k] at i * row + k * col */
    int64_t row, col;
} gemm_sliver;

/* A stored transposed, rows [i0, i0 + n): slivers [kc][rows], so that the tile finds the rows of a step side by side. One
 * pass over k for the whole group: each stored row is another page. */
static void gemm_pack_a(const gemm_plan *p, const gemm_space *s, int64_t i0, int64_t n, int64_t k0, int64_t kc) {
    const peft__gemm_args *g = p->args;
    const int64_t size = kc * p->mr + PEFT__GEMM_PAD;
    for (int64_t k = 0; k < kc; k++) {
        const peft__real *from = g->a + (k0 + k) * g->lda + i0;
        peft__real *to = s->a + k * p->mr;
        int64_t left = n;
        for (; left >= 2 * p->mr && p->mr == 6; left -= 6, from += 6, to += size) {
            memcpy(to, from, 6 * sizeof *to); /* a known size becomes registers */
        }
        while (left > 0) {
            const int32_t rows = peft__gemm_sliver(p->mr, left);
            for (int32_t i = 0; i < rows; i++) { to[i] = from[i]; }
            left -= rows;
            from += rows;
            to += size;
        }
    }
}

/* Rows [i0, i0 + rows) of C's block: all panels pass by one sliver. */
static void gemm_sweep(const gemm_plan *p, const gemm_space *s, const gemm_sliver *a, int64_t i0, int32_t rows,
                       int64_t k0, int64_t kc, int64_t j0, int64_t n) {
    const peft__kernels *k = p->run->k;
    const peft__gemm_args *g = p->args;
    const bool first = k0 == 0 && !g->accumulate;
    for (int64_t j = 0; j < n; j += k->nr) {
        const int32_t cols = (int32_t)PEFT__MIN(n - j, k->nr);
        const peft__real *b = s->b + j / k->nr * gemm_panel_size(p, kc);
        int64_t ldb = k->nr;
        if (p->direct && cols == k->nr) {
            ldb = g->b.row_bytes / (int64_t)sizeof(peft__real);
            b = gemm_reals((const uint8_t *)g->b.data + k0 * g->b.row_bytes) + g->b.first + j0 + j;
        }
        k->tile(rows, cols, kc, a->data, a->row, a->col, b, ldb, g->c + i0 * g->ldc + j0 + j, g->ldc, first);
    }
    if (k0 + kc == g->k && g->bias != NULL) {
        for (int32_t i = 0; i < rows; i++) {
            peft__real *c = g->c + (i0 + i) * g->ldc + j0;
            k->add(c, c, g->bias + j0, n);
        }
    }
}

/* Rows [i0, i0 + n) of C's block, sliver by sliver. */
static void gemm_group(const gemm_plan *p, const gemm_space *s, int64_t i0, int64_t n, int64_t k0, int64_t kc,
                       int64_t j0, int64_t cols) {
    const peft__gemm_args *g = p->args;
    gemm_sliver a = {g->a + i0 * g->lda + k0, g->lda, 1};
    int64_t step = p->mr * g->lda; /* from one sliver to the next */
    if (g->a_trans && p->pack_a) {
        gemm_pack_a(p, s, i0, n, k0, kc);
        a = (gemm_sliver){s->a, 1, p->mr};
        step = kc * p->mr + PEFT__GEMM_PAD;
    } else if (g->a_trans) {
        a = (gemm_sliver){g->a + k0 * g->lda + i0, 1, g->lda};
        step = p->mr;
    }
    for (int64_t i = 0; i < n;) {
        const int32_t rows = peft__gemm_sliver(p->mr, n - i);
        gemm_sweep(p, s, &a, i0 + i, rows, k0, kc, j0, cols);
        i += rows;
        a.data += p->pack_a || rows == p->mr ? step : step / p->mr * rows;
    }
}

static void gemm_task(void *arg, int64_t task, int32_t worker) {
    const gemm_plan *p = arg;
    const peft__gemm_args *g = p->args;
    const gemm_space s = gemm_space_of(p->run, worker);
    const int64_t j0 = task / p->row_blocks * p->nc, n = PEFT__MIN(g->n - j0, p->nc);
    const int64_t begin = task % p->row_blocks * p->mc, end = PEFT__MIN(begin + p->mc, g->m);
    const int64_t group = GEMM_GROUP * p->run->k->mr;
    for (int64_t k0 = 0; k0 < g->k; k0 += p->kc) {
        const int64_t kc = PEFT__MIN(g->k - k0, p->kc);
        gemm_pack(p, &s, k0, kc, j0, n);
        for (int64_t i = begin; i < end;) {
            const int64_t rows = end - i < group + p->mr ? end - i : group;
            gemm_group(p, &s, i, rows, k0, kc, j0, n);
            i += rows;
        }
    }
}

/* An empty sum: C = bias, or 0, or what it was plus bias. */
static void gemm_empty(const peft__run *run, const peft__gemm_args *g) {
    for (int64_t i = 0; i < g->m; i++) {
        peft__real *c = g->c + i * g->ldc;
        if (!g->accumulate) { memset(c, 0, (size_t)g->n * sizeof *c); }
        if (g->bias != NULL) { run->k->add(c, c, g->bias, g->n); }
    }
}

bool peft__gemm_plain(const peft__operand *b) {
    return b->dtype == PEFT__DTYPE_REAL && (uintptr_t)b->data % sizeof(peft__real) == 0 && b->row_bytes % (int64_t)sizeof(peft__real) == 0;
}

bool peft__gemm_rowwise(const peft__operand *b) {
    return peft__gemm_plain(b) && !b->trans && b->interleave == 0 && b->heads == 0;
}

int64_t peft__gemm_tasks(const peft__run *run, const peft__gemm_args *g) {
    const bool serial = run->workers < 2 || g->m * g->n <= GEMM_SERIAL / g->k;
    return serial ? 1 : (int64_t)GEMM_TASKS * run->workers;
}

/* Cuts C so; units: of columns, which are not cut. What the worker with most has then, in columns times rows. */
static int64_t gemm_try(gemm_plan *p, int64_t units, int64_t unit, int64_t blocks, int64_t row_blocks) {
    const peft__gemm_args *g = p->args;
    p->nc = gemm_ceil(units, blocks) * unit;
    p->mc = gemm_ceil(gemm_ceil(g->m, row_blocks), p->mr) * p->mr;
    p->row_blocks = gemm_ceil(g->m, p->mc);
    const int64_t tasks = gemm_ceil(g->n, p->nc) * p->row_blocks;
    return gemm_ceil(tasks, p->run->workers) * p->nc * (p->mc + GEMM_PACKING);
}

/* Column blocks as wide as the target size allows, narrower ones and blocks of rows where that keeps all workers busy until the end. */
static void gemm_cut(gemm_plan *p) {
    const peft__gemm_args *g = p->args;
    const peft__kernels *k = p->run->k;
    const int64_t unit = g->b.trans ? k->nr : PEFT__MAX(k->nr, p->block.elems), units = gemm_ceil(g->n, unit);
    const int64_t fit = PEFT__MIN(GEMM_B_TARGET / (int64_t)sizeof(float) / p->kc, GEMM_NC_MOST);
    const int64_t fewest = gemm_ceil(units, PEFT__MAX(fit / unit, 1)), tasks = peft__gemm_tasks(p->run, g);
    const int64_t want = tasks * 3 / 4, most = PEFT__MAX(g->m / (4 * p->mr), 1); /* even tasks need not be as many */
    if (tasks == 1) {
        (void)gemm_try(p, units, unit, fewest, 1);
        return;
    }
    gemm_plan best = *p;
    int64_t least = INT64_MAX;
    for (int64_t r = 1; r <= PEFT__MIN(PEFT__MAX(gemm_ceil(want, fewest), GEMM_ROW_BLOCKS), most); r++) {
        const int64_t from = PEFT__MAX(fewest, PEFT__MIN(gemm_ceil(want, r), gemm_ceil(g->n, PEFT__MAX(2 * k->nr, unit))));
        for (int64_t b = from; b == from || (b <= units && b < from + tasks); b++) {
            const int64_t longest = gemm_try(p, units, unit, b, r);
            if (longest < least) { least = longest, best = *p; }
        }
    }
    *p = best;
}

void peft__gemm(const peft__run *run, const peft__gemm_args *args) {
    const peft__operand *b = &args->b;
    if (args->m <= 0 || args->n <= 0) { return; }
    if (args->k <= 0) {
        gemm_empty(run, args);
        return;
    }
#ifndef PEFT_MINIMAL
    bool rounds = args->m > GEMM_EXACT && peft__bf16_fits(run, args);
    if (rounds) {
        peft__gemm_bf16(run, args);
        return;
    }
    if (peft__narrow_fits(run, args)) {
        peft__narrow(run, args, gemm_kc(args->k));
        return;
    }
#endif
    if (peft__tall_fits(args)) {
        peft__tall(run, args, gemm_kc(args->k));
        return;
    }
#ifdef PEFT__BLAS
    if (peft__blas_fits(run, args)) {
        peft__blas(run, args);
        return;
    }
#endif
    gemm_plan p = {.run = run, .args = args, .kc = gemm_kc(args->k), .block = peft__dtype_block_of(b->dtype)};
    p.plain = peft__gemm_plain(b);
    p.direct = peft__gemm_rowwise(b) && !peft__gemm_aliased(b->row_bytes) && args->alpha == 1 && args->m <= 3 * run->k->mr;
    p.mr = run->k->mr * (args->n <= run->k->lane ? 2 : 1);
    p.pack_a = args->a_trans && args->lda > 64;
    gemm_cut(&p);
    peft__pool_run(run->pool, gemm_task, &p, gemm_ceil(args->n, p.nc) * p.row_blocks);
}
