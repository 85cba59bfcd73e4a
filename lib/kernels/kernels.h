/* kernels.h - layer 1: the arithmetic, as one table of functions per instruction set.
 *
 * `peft__kernels` holds what differs between instruction sets: the matrix micro-kernel, panel packing, dequantisation and
 * vector functions. A table starts from the generic one and overrides entries, so that any of them may be missing.
 * The drivers (gemm.c, attention.c, rows.c) are written once over the table.
 *
 * Numbers: float (peft__real), accumulated in float, FMA only where an intrinsic says so, own exp, tanh, sin, cos, log.
 * The order of every sum depends on its length, the type and the instruction set, never on the number of rows or threads:
 * the product of one row with a matrix has the same bits as that row of a larger product.
 *
 * Left out: tensors and graphs (tensor/, autograd/). Rows are [n, C] with a stride; nothing here allocates. */
#ifndef PEFT_KERNELS_H
#define PEFT_KERNELS_H

#include "base/base.h"

/* The type of activations and trainable parameters as a matrix operand. Distinct from F32, so that the double build works. */
#ifdef PEFT_DOUBLE
#define PEFT__DTYPE_REAL 1000
#else
#define PEFT__DTYPE_REAL PEFT_DTYPE_F32
#endif

enum { /* activation functions, for act and glu */
    PEFT__ACT_SILU = 0,       /* x * sigmoid(x); "swish" */
    PEFT__ACT_GELU = 1,       /* x * Phi(x), exact (erf) */
    PEFT__ACT_GELU_TANH = 2,  /* "gelu_new", "gelu_pytorch_tanh" */
    PEFT__ACT_RELU = 3,
    PEFT__ACT_TANH = 4,
    PEFT__ACT_SIGMOID = 5,
    PEFT__ACT_QUICK_GELU = 6, /* x * sigmoid(1.702 x) */
    PEFT__ACT_IDENTITY = 7,
    PEFT__ACT_COUNT = 8
};

enum { PEFT__TILE_ROWS = 8, PEFT__TILE_COLS = 64 }; /* upper bounds of mr and nr over all tables */
enum { PEFT__NARROW_ROWS = 16 }; /* most rows for narrow */

typedef struct peft__kernels {
    const char *name;   /* "generic", "avx2", "avx512", "avx512bf16", "neon", "blas" */
    uint32_t needs;     /* PEFT__CPU_* bits without which it must not run */
    bool blas;          /* large products of floats are a BLAS's (blas.c); taken by its name only */

    /* -- matrix micro-kernel. C[rows, cols] = (first ? 0 : C) + sum over k of A[i,k] * B[k,j], 1 <= rows <= mr, 1 <= cols <= nr;
     * A[i,k] is a[i*a_row + k*a_col]; B[k,j] is b[k*ldb + j], readable up to nr columns (a panel is zero-padded). Each C element
     * is one chain of FMAs over k in order. With cols <= lane, up to 2 mr rows. */
    int32_t mr, nr;
    int32_t lane;       /* columns of one vector: tiles of `lane`, 2*lane ... nr columns exist without waste */
    void (*tile)(int32_t rows, int32_t cols, int64_t k, const peft__real *a, int64_t a_row, int64_t a_col,
                 const peft__real *b, int64_t ldb, peft__real *c, int64_t ldc, bool first);
    /* dst[k*nr + j] = src_row(j)[k] for j < cols (zero beyond), 0 <= k < kc: a panel from rows stored along k. rows[j] point
     * to the first of kc values of each row. */
    void (*pack_rows)(peft__real *dst, const peft__real *const *rows, int32_t cols, int64_t kc);
    /* The same panel, in the same bits, straight from nr stored rows: rows[j] point to the first of kc elements, kc a multiple
     * of the type's block. False: not for this type. May be NULL. */
    bool (*pack_stored)(int32_t dtype, peft__real *dst, const uint8_t *const *rows, int64_t kc);

    /* sums[r][j] goes on with its chain of FMAs: + a[r lda + i] * rows[j][i], i = 0 .. n-1 in order, r < m, j < 4 lane; rows[j] points
     * to n elements of the type, n a multiple of its block; a row of sums has PEFT__TILE_COLS. What tile makes of a panel, in the same
     * bits, without the panel. As many bytes as are read are asked for from `next` on, wherever that is: what the following calls
     * will read. False: not for so many rows of this type (also asked with n = 0 and no rows). May be NULL. */
    bool (*narrow)(int32_t dtype, const peft__real *a, int64_t lda, int64_t m, const uint8_t *const *rows, int64_t n,
                   const uint8_t *next, peft__real *sums);

#ifndef PEFT_MINIMAL
    /* -- products in bfloat16 (gemm_bf16.c). y = the bfloat16 nearest to x, ties to even; NaN stays NaN. y may be x. */
    void (*round_bf16)(peft__real *y, const peft__real *x, int64_t n);
    /* A word, in the place of a float, is two bfloat16 that follow each other along k, the first in the low half; past an odd end
     * is zero. tile_bf16 is tile over k words: each adds both of its products to the sum of floats. All three are NULL where the
     * set has no such instruction; words are then rounded floats, for tile. */
    void (*tile_bf16)(int32_t rows, int32_t cols, int64_t k, const peft__real *a, int64_t a_row, int64_t a_col,
                      const peft__real *b, int64_t ldb, peft__real *c, int64_t ldc, bool first);
    void (*pair_row)(peft__real *words, const peft__real *x, int64_t n); /* n numbers along k: (n + 1) / 2 words */
    /* Rows of n numbers, lds apart, that follow each other along k: (rows + 1) / 2 rows of n words, ldw apart. */
    void (*pair_rows)(peft__real *words, int64_t ldw, const peft__real *x, int64_t lds, int64_t rows, int64_t n);
#endif

    /* -- n elements of a stored type to reals; n a multiple of the type's block. */
    void (*dequant)(int32_t dtype, const void *src, int64_t n, peft__real *dst);

    /* -- vectors of n elements; x, y, z may be equal, not otherwise overlap */
    void (*add)(peft__real *z, const peft__real *x, const peft__real *y, int64_t n);
    void (*axpy)(peft__real *y, peft__real a, const peft__real *x, int64_t n);      /* y += a x */
    void (*scale)(peft__real *y, peft__real a, const peft__real *x, int64_t n);     /* y = a x */
    void (*mul)(peft__real *z, const peft__real *x, const peft__real *y, int64_t n);
    void (*mul_add)(peft__real *z, const peft__real *x, const peft__real *y, int64_t n); /* z += x * y */
    peft__real (*dot)(const peft__real *x, const peft__real *y, int64_t n);
    peft__real (*sum)(const peft__real *x, int64_t n);
    peft__real (*max)(const peft__real *x, int64_t n);                              /* n >= 1 */
    double (*sum_sq)(const peft__real *x, int64_t n);   /* sum of squares, accumulated in double: gradient norms */
    bool (*finite)(const peft__real *x, int64_t n);
    /* y = exp(a*x - m), returns the sum of y in this table's fixed order. y may be x. */
    peft__real (*exp_sum)(peft__real *y, const peft__real *x, peft__real a, peft__real m, int64_t n);

    /* -- one row of n */
    /* y = x * rstd * w with rstd = 1/sqrt(mean(x^2) + eps), returned; w NULL: ones. */
    peft__real (*rms_norm)(peft__real *y, const peft__real *x, const peft__real *w, int64_t n, peft__real eps);
    /* dx (+)= gradient of the above; add: accumulate. */
    void (*rms_norm_back)(peft__real *dx, const peft__real *dy, const peft__real *x, const peft__real *w, int64_t n,
                          peft__real rstd, bool add);
    /* y = (x - mean) * rstd * w + b; b NULL: zero. *mean and the returned rstd are what backward wants. */
    peft__real (*layer_norm)(peft__real *y, const peft__real *x, const peft__real *w, const peft__real *b, int64_t n,
                             peft__real eps, peft__real *mean);
    void (*layer_norm_back)(peft__real *dx, const peft__real *dy, const peft__real *x, const peft__real *w, int64_t n,
                            peft__real mean, peft__real rstd, bool add);
    void (*act)(int32_t kind, peft__real *y, const peft__real *x, int64_t n);
    void (*act_back)(int32_t kind, peft__real *dx, const peft__real *dy, const peft__real *x, int64_t n, bool add);
    /* y = act(g) * u */
    void (*glu)(int32_t kind, peft__real *y, const peft__real *g, const peft__real *u, int64_t n);
    /* dg = dy * u * act'(g); du = dy * act(g); either may be NULL. No accumulation. */
    void (*glu_back)(int32_t kind, peft__real *dg, peft__real *du, const peft__real *dy, const peft__real *g,
                     const peft__real *u, int64_t n);
    /* Rotates pairs (x[i], x[i + half]) by the angles whose cosines and sines are given, i < half: y0 = x0 c - x1 s,
     * y1 = x1 c + x0 s. sign -1 rotates back (the backward pass). y may be x. */
    void (*rope)(peft__real *y, const peft__real *x, const peft__real *cos, const peft__real *sin, int64_t half,
                 peft__real sign);

    /* -- optimiser updates over n elements; bias corrections are folded into the scalars by optim/ */
    /* m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; p -= decay * p; p -= step * m / (sqrt(v) * vscale + eps). g is multiplied
     * by gscale first. */
    void (*adamw)(peft__real *p, const peft__real *g, peft__real *m, peft__real *v, int64_t n, peft__real gscale,
                  peft__real b1, peft__real b2, peft__real step, peft__real vscale, peft__real eps, peft__real decay);
    /* u = b1 m + (1-b1) g; p -= decay * p + step * sign(u); m = b2 m + (1-b2) g */
    void (*lion)(peft__real *p, const peft__real *g, peft__real *m, int64_t n, peft__real gscale, peft__real b1,
                 peft__real b2, peft__real step, peft__real decay);
} peft__kernels;

/* dispatch.c. Tables by name ("generic", "avx2", ...), "auto" for the best that this CPU has; PEFT_E_UNSUPPORTED naming
 * the CPU's lack or the known names. index: 0 is generic; NULL past the end (built tables, whether or not the CPU has them). */
peft_status peft__kernels_find(const char *name, const peft__kernels **out);
const peft__kernels *peft__kernels_at(size_t index);
extern const peft__kernels peft__kernels_generic;

/* Where a kernel runs: table, threads and scratch memory of its own. */
typedef struct peft__run {
    const peft__kernels *k;
    peft__pool *pool;
    int32_t workers;       /* peft__pool_size(pool) */
    uint8_t *scratch;      /* workers x scratch_size bytes, 64-byte aligned; contents are dead between calls */
    size_t scratch_size;   /* bytes of one worker, at least peft__scratch_size(...) */
    uint8_t *rounded;      /* products with frozen matrices are made in bfloat16, and here is room for A; NULL: in reals */
} peft__run;

/* Bytes of scratch that one worker needs for every driver below, given the largest head_dim of the model and, for
 * attention's backward pass, the most keys that a row can have (prefix or cache included). Multiple of 64. */
size_t peft__scratch_size(const peft__kernels *k, int64_t head_dim, int64_t max_keys);
enum { PEFT__ROUNDED_BYTES = 2 << 20 }; /* of peft__run.rounded, 64-byte aligned */

/* ---- gemm.c: C = alpha A B + beta C + bias ------------------------------------------------------------------------- */

/* The right operand: a matrix as it is stored. Packed or dequantised by tile on the fly, never as a whole. */
typedef struct peft__operand {
    const void *data;      /* first stored row */
    int32_t dtype;         /* PEFT_DTYPE_* or PEFT__DTYPE_REAL */
    int64_t row_bytes;     /* from one stored row to the next */
    bool trans;            /* true: stored [n][k] (a Linear's weight in its forward pass); false: stored [k][n] */
    int32_t interleave;    /* 0, or head_dim D: logical row h*D + j*D/2 + i is stored at h*D + 2i + j (GGUF's llama q, k) */
    int32_t heads, part;   /* 0, or H heads of D = part rows: logical row (h*3 + p)*D + i is stored at (p*H + h)*D + i
                              (GGUF's gptneox qkv) */
    int64_t first;         /* element offset within each stored row: a column range of a wider matrix (block-aligned) */
    bool frozen;           /* a weight of the base: bfloat16 will do where the run has it */
} peft__operand;

typedef struct peft__gemm_args {
    int64_t m, n, k;
    const peft__real *a;   /* [m,k] with lda, or, with a_trans, stored [k,m] */
    int64_t lda;
    bool a_trans;
    peft__operand b;
    peft__real *c;         /* [m,n] */
    int64_t ldc;
    peft__real alpha;
    bool accumulate;       /* beta: false 0, true 1 */
    const peft__real *bias; /* [n], added once, not scaled; NULL: none */
} peft__gemm_args;
/* m, n or k may be 0 (k = 0: C = bias or 0). Blocks of K are added in order; the split depends on K alone. */
void peft__gemm(const peft__run *run, const peft__gemm_args *args);

/* ---- attention.c: tiled softmax(q k' scale + bias) v and its gradients; no T x T matrix --------------------------------- */

enum { PEFT__ATTN_KEYS = 256 }; /* most keys that are worked on at once */

/* One row of a batch. Its keys are `past` (a prefix or a cache; NULL with n_past 0) and then its own tokens. Query i (of
 * n) stands at key index n_past + i; causal: it sees keys up to itself. With cross its keys are those of another row. */
typedef struct peft__attn_row {
    int64_t first, n;              /* tokens of the row in q, o: [first, first + n), without cross also in k, v */
    const peft__real *past_k, *past_v; /* [n_past, kv_heads * head_dim], stride past_ld */
    peft__real *past_dk, *past_dv; /* backward: gradients are added here; NULL: not wanted */
    int64_t past_ld, n_past;
    int64_t n_visible;             /* with window: the first n_visible past keys are always seen (a prefix of no position) */
    int64_t k_first, k_n;          /* with cross: the row's tokens in k, v: [k_first, k_first + k_n) */
    int64_t bias_shift;            /* with bias: added to each distance (past keys that a query's position leaves out) */
} peft__attn_row;

/* Biases by relative position. The distance of key index j from a query at key index i is d = j - i + bias_shift. */
typedef struct peft__attn_bias {
    int64_t reach;                 /* d >= reach are all alike, and d <= -reach */
    int64_t ld;                    /* 2 (reach + PEFT__ATTN_KEYS) + 1 */
    const peft__real *values;      /* [heads, ld]: of d at reach + PEFT__ATTN_KEYS + d */
    /* backward, where the table that the values are from is trained */
    const int32_t *bucket;         /* [ld]: the table's row of d, at the same place */
    int64_t buckets;               /* rows of the table */
    peft__real *d_table;           /* [buckets, heads]: gradients are added here; NULL: not wanted */
    peft__real *partial;           /* room for peft__attn_bias_partials(...) reals */
} peft__attn_bias;

typedef struct peft__attn_args {
    int64_t heads, kv_heads, head_dim;   /* heads a multiple of kv_heads: head h reads kv head h / (heads / kv_heads) */
    peft__real scale;
    bool causal;
    bool cross;                    /* keys are not the queries' own row: neither causal nor with a window */
    int64_t window;                /* > 0: causal, the last `window` keys (itself included), else those at most so far away */
    peft__real softcap;            /* > 0: scores = softcap * tanh(scores / softcap) */
    const peft__attn_bias *bias;   /* added to scaled scores, without softcap; NULL: none */
    const peft__attn_row *rows;
    int64_t n_rows, n_tokens;      /* n_tokens: stride of lse */
    const peft__real *q, *k, *v;   /* [tokens, .] with strides; head h at column h * head_dim */
    int64_t ldq, ldk, ldv;
    peft__real *o;                 /* [n_tokens, heads * head_dim], stride ldo */
    int64_t ldo;
    peft__real *lse;               /* [heads, n_tokens]: log of the sum of exponentials; NULL: not kept */
    /* backward: o and lse as forward left them */
    const peft__real *d_o;         /* stride ldo */
    peft__real *delta;             /* [heads, n_tokens], for the kernel: rowsum(dO O) */
    peft__real *dq, *dk, *dv;      /* overwritten for the rows' own tokens, strides ldq, ldk, ldv; NULL dk/dv not allowed */
} peft__attn_args;
void peft__attn_forward(const peft__run *run, const peft__attn_args *args);
/* Wants lse and a scale above 0. Pairs of a block of queries and a block of keys run in phases in which no two tasks write the
 * same rows: every sum has one order. Rows that share a past gradient add to it in row order. */
void peft__attn_backward(const peft__run *run, const peft__attn_args *args);
/* Reals of attn_bias.partial for so many queries in so many rows, at most. */
int64_t peft__attn_bias_partials(int64_t tokens, int64_t rows, int64_t heads, int64_t buckets);

/* ---- rows.c: parallel loops over rows, for the element-wise operations ---------------------------------------------------- */

typedef void (*peft__rows_fn)(void *arg, int64_t begin, int64_t end, int32_t worker);
/* Calls fn over [0, n) in pieces of `grain` rows (the same whatever the number of threads). */
void peft__rows(const peft__run *run, int64_t n, int64_t grain, peft__rows_fn fn, void *arg);

/* ---- math.c: scalar twins of the vector functions, the same bits from every compiler ---------------------------------------- */

peft__real peft__exp(peft__real x);
peft__real peft__ln(peft__real x);
peft__real peft__tanh(peft__real x);
peft__real peft__erf(peft__real x);
void peft__sin_cos(double x, double *sin_x, double *cos_x); /* any finite x below 2^40 in size; error below 1e-15 */

#endif
