/* autograd.h - layer 3: a static tape of fused macro-ops, its memory plan and its execution.
 *
 *   record   an architecture calls peft__op_* (through sites, site.h); the tape grows a straight list of operations
 *   plan     every value's lifetime is known, so all activations and gradients get fixed places in one block of memory;
 *            values may be dropped after the forward pass and rebuilt in the backward one
 *   execute  forward, backward; nothing is allocated
 *
 * A value is [rows, cols]. Its number of rows is that of its space (the tokens of the batch, its rows, ...) and differs
 * from batch to batch below the caps that the plan was made for.
 *
 * An error while recording is sticky: later calls are no-ops and peft__tape_finish returns it. */
#ifndef PEFT_AUTOGRAD_H
#define PEFT_AUTOGRAD_H

#include "autograd/task.h"
#include "base/base.h"
#include "base/options.h"
#include "kernels/kernels.h"
#include "tensor/tensor.h"

typedef int32_t peft__val; /* index of a value of the tape; PEFT__NONE: none */
enum { PEFT__NONE = -1 };

enum { /* what a value has one row of */
    PEFT__SPACE_TOKENS = 0,  /* tokens of the stream, virtual ones included */
    PEFT__SPACE_INPUT = 1,   /* tokens of the caller */
    PEFT__SPACE_ROWS = 2,    /* rows of the batch (pooled states) */
    PEFT__SPACE_ENCODER = 3, /* tokens of the encoder's stream (encoder-decoder models) */
    PEFT__SPACE_FIXED = 4,   /* a number of its own (prompts, prefixes) */
    PEFT__SPACE_SOURCE = 5,  /* tokens of the caller that an encoder-decoder model's encoder reads */
    PEFT__SPACE_COUNT = 6
};

typedef struct peft__tape peft__tape;
typedef struct peft__exec peft__exec;
typedef struct peft__op peft__op;

/* ---- parameters: what may be trained ----------------------------------------------------------------------------- */

/* A trainable matrix [rows, cols] somewhere in an adapter's flat vector. */
typedef struct peft__param {
    const char *name;       /* for errors; owned by the adapter */
    peft__real *value;      /* [rows * cols]; owned by the adapter */
    peft__real *grad;       /* same shape, added to by backward; set by the trainer, NULL: frozen */
    int64_t rows, cols;
    bool frozen;            /* never trained: no gradient is taken */
} peft__param;

typedef struct peft__caps { /* what a plan is made for; a larger batch is PEFT_E_SHAPE */
    int64_t max_rows, max_tokens, max_length; /* tokens: of the whole batch; length: of one row, past included */
    int64_t virtual_tokens, position_shift;   /* of the tape, where frames are built for it: 0 without soft prompts */
    int64_t max_source, max_source_length;    /* tokens that encoders read, of a batch and of a row; 0: the model has none */
    int64_t source_virtual;                   /* virtual tokens before a row of them */
    bool bf16;                                /* products with frozen matrices are made in bfloat16 */
    bool pack;                                /* what waits for the backward pass is stored as bfloat16 */
} peft__caps;

/* ---- values and ops -------------------------------------------------------------------------------------------------- */

typedef struct peft__value {
    int32_t space;          /* PEFT__SPACE_* */
    int64_t fixed;          /* SPACE_FIXED: number of rows */
    int64_t cols;
    int32_t parent;         /* a view of columns [col, col + cols) of that value; PEFT__NONE: a value of its own */
    int64_t col;
    int32_t producer;       /* op index */
    bool needs_grad;        /* on a path from a trainable parameter to the loss */
    bool viewed;            /* has views, which are then its only use */
} peft__value;

enum { PEFT__GROUPS = 32 }; /* most branches of an expression that rows are divided among */
enum { PEFT__READS_OUT = 24 };
enum { PEFT__OP_IN = 34, PEFT__OP_OUT = 3, PEFT__OP_PARAMS = 5 };

enum { /* flags of an op kind */
    PEFT__OPF_CHEAP = 1,    /* element-wise: rebuilt in the backward pass rather than kept */
    PEFT__OPF_INPLACE0 = 2, /* out[0] may take in[0]'s memory when nobody else wants in[0] */
    PEFT__OPF_INPLACE1 = 4, /* the same of in[1] */
    PEFT__OPF_PASS0 = 8,    /* d in[0] may take d out[0]'s memory: it is the same, or computed in place */
    PEFT__OPF_PASS1 = 16,   /* the same of in[1] */
    PEFT__OPF_LOSS = 32,    /* has no output; computes loss and gradient in one go at the start of the backward pass */
    PEFT__OPF_SOLE = 64,    /* overwrites its inputs' gradients: it must be their only consumer */
    PEFT__OPF_APART = 128   /* forward with a group: reads no other group's rows, writes none of in[0]'s, and has no scratch */
};

typedef struct peft__op_kind {
    const char *name;
    uint32_t flags;
    /* Which values backward reads: bit i for in[i], bit PEFT__READS_OUT + i for out[i]. */
    uint32_t (*reads)(const peft__tape *t, const peft__op *op);
    void (*forward)(peft__exec *x, const peft__op *op);
    void (*backward)(peft__exec *x, const peft__op *op); /* NULL: gradient stops (an op that never needs one) */
    /* Multiply-adds x 2 per row of out[0] (of in[0] for a loss), for rows of the caps' length. */
    double (*flops)(const peft__tape *t, const peft__op *op, const peft__caps *caps, bool backward);
    /* Bytes of shared scratch that the op wants while it runs (exec->op_scratch); NULL: none. */
    size_t (*scratch)(const peft__tape *t, const peft__op *op, const peft__caps *caps);
} peft__op_kind;

struct peft__op {
    const peft__op_kind *kind;
    int32_t n_in, n_out;
    peft__val in[PEFT__OP_IN], out[PEFT__OP_OUT];
    int32_t segment;              /* layer for the planner: 0 embeddings, 1.. layers, last head */
    int32_t group;                /* works on the batch's rows of this group only (frame.row_groups); -1: on all. linear and
                                     add_product heed it, others do all rows */
    const peft__weight *weight;   /* frozen matrix, or NULL */
    const peft__real *vec, *vec2; /* frozen vectors (bias; norm's gain and shift), or NULL */
    int32_t param[PEFT__OP_PARAMS]; /* trainable matrices by index in the tape, PEFT__NONE: none */
    peft__real f[3];              /* scalars of the kind */
    int64_t i[6];                 /* integers of the kind */
    const void *aux;              /* further data of the kind, owned by the tape's arena */
    bool needs_grad;
};

struct peft__hooks;

struct peft__tape {
    peft__mem *mem;
    peft__arena arena;
    peft_status status;           /* first error; its text is kept in `error` */
    char error[512];
    peft__vec values, ops, params; /* of peft__value, peft__op, peft__param */
    int32_t segment, group;       /* given to ops as they are recorded */
    int32_t branch;               /* what is recorded is chosen for rows of this group alone: its ops may have it; -1: for all */
    int32_t segments;             /* number of segments */
    bool freeze;                  /* parameters registered now are frozen on this tape */
    bool training;                /* record for training: needs_grad is followed */
    bool encoder;                 /* what is recorded now belongs to an encoder-decoder model's encoder: its ids are the source's */
    const struct peft__hooks *hooks; /* adapters (site.h); NULL: the base alone */
    int64_t virtual_tokens;       /* most tokens that adapters add to a row */
    int64_t group_tokens[PEFT__GROUPS]; /* the same, to a row of each group */
    int64_t source_virtual;       /* the same, to a row of the source */
    int64_t group_source[PEFT__GROUPS]; /* and of each group */
    int64_t prefix_tokens;        /* keys and values that stand before each row's own (prefix) */
    int64_t group_prefix[PEFT__GROUPS]; /* the same, before a row of each group */
    int64_t cross_prefix;         /* prefix_tokens before the encoder's in cross attention: of the layer that has most */
    int64_t position_shift;       /* added to the positions of a row's tokens where a prefix counts as tokens: the most */
    int64_t group_shift[PEFT__GROUPS]; /* the same, of a row of each group */
    int64_t vocab_extra;          /* ids after the base's vocabulary that adapters add: the head has as many more logits */
    bool means;                   /* something is a mean over a row's tokens (gates): a row must not be cut into passes */
    bool past_again;              /* what stands before rows is wanted in every pass of a session: each has other gates */
    int64_t tasks;                /* rows' tasks are below it (frame.row_tasks); 0: nothing asks for them */
};

void peft__tape_init(peft__tape *t, peft__mem *mem, bool training);
void peft__tape_free(peft__tape *t);
peft_status peft__tape_finish(peft__tape *t); /* propagates needs_grad; checks that a backward exists where it must */
void peft__tape_fail(peft__tape *t, peft_status code, const char *fmt, ...) PEFT__PRINTF(3, 4);
int32_t peft__tape_param(peft__tape *t, const peft__param *p); /* registers; the same value pointer, frozen or not, gives the same index */
peft__value *peft__tape_value(const peft__tape *t, peft__val v);
peft__op *peft__tape_op(const peft__tape *t, int32_t i);
peft__param *peft__tape_param_at(const peft__tape *t, int32_t i);
peft__val peft__tape_view(peft__tape *t, peft__val v, int64_t col, int64_t cols); /* columns; the views of a value must be
                                                                                     disjoint and be its only use */
/* For op files: a new op with in[] set, everything else zero / NONE; NULL after an error. */
peft__op *peft__tape_push(peft__tape *t, const peft__op_kind *kind, int32_t n_in, const peft__val *in);
peft__val peft__tape_out(peft__tape *t, peft__op *op, int32_t space, int64_t fixed, int64_t cols);

/* ---- macro-ops. A weight is frozen (w, vec) or trainable (param index, else PEFT__NONE) ------------------------------------ */

/* ids -> rows of the table: [INPUT, C], of an encoder [SOURCE, C]; scale multiplies (Gemma); 1 otherwise. */
peft__val peft__op_embed(peft__tape *t, const peft__weight *table, int32_t table_param, peft__real scale);
/* x [INPUT, C] with scale times row i of the parameter where the token's id is ids[i] (distinct). An id past the table of `embed`
 * has a row of 0 there. */
peft__val peft__op_embed_rows(peft__tape *t, peft__val x, const int32_t *ids, int64_t n, int32_t param, double scale);
/* x + table[position]: learned positions; offset is added to each position. */
peft__val peft__op_add_pos(peft__tape *t, peft__val x, const peft__weight *table, int32_t table_param, int64_t offset);
/* x + table[token type] (BERT's segments). */
peft__val peft__op_add_types(peft__tape *t, peft__val x, const peft__weight *table, int32_t table_param);
/* RMSNorm: x / sqrt(mean(x^2) + eps) * w. */
peft__val peft__op_rms_norm(peft__tape *t, peft__val x, const peft__real *w, int32_t w_param, double eps);
/* The same over each head of head_dim columns (0: the whole row), w: [head_dim]. A trained w is what the gain is above `plus`. */
peft__val peft__op_rms_norm_heads(peft__tape *t, peft__val x, const peft__real *w, int32_t w_param, double eps, int64_t head_dim,
                                  double plus);
peft__val peft__op_layer_norm(peft__tape *t, peft__val x, const peft__real *w, const peft__real *b, int32_t w_param,
                              int32_t b_param, double eps);
/* y = x W' + b, W: [out, in] */
peft__val peft__op_linear(peft__tape *t, peft__val x, const peft__weight *w, const peft__real *b, int32_t w_param,
                          int32_t b_param, int64_t out);
/* y + scale * (drop(x) A') B'; A: [r, in], B: [out, r] (LoRA). In place on y. */
peft__val peft__op_low_rank(peft__tape *t, peft__val y, peft__val x, int32_t a_param, int32_t b_param, double scale);
/* y + scale * h B': the second half of it. */
peft__val peft__op_add_product(peft__tape *t, peft__val y, peft__val h, int32_t b_param, double scale);
/* y with s h_g B_g' added to stretch g of its columns, from first[g] on, for n groups: h [T, n r], B [n w, r]. In place on y. */
peft__val peft__op_add_groups(peft__tape *t, peft__val y, peft__val h, int32_t b_param, double scale, const int64_t *first, int64_t n);
/* Inverted dropout, keyed by (seed, step, row's id, token in its row, site). Identity outside training and for p = 0. */
peft__val peft__op_dropout(peft__tape *t, peft__val x, double p, uint64_t site_key);
/* How positions turn a head (op_rope.c); owned by the model. */
typedef struct peft__rope {
    int64_t rotary;         /* columns that turn, the first of each head, in halves */
    const double *freq;     /* [rotary / 2]: angle of a position */
    double scale;           /* cos and sin are multiplied by it (yarn, longrope); 1 otherwise */
    int64_t beyond;         /* rows of more positions turn by what follows; 0: none do */
    const double *far;      /* [rotary / 2] (longrope); NULL: by theta, stretched with the row's length (dynamic) */
    double theta, factor;   /* dynamic */
} peft__rope;
/* Rotary positions (Su et al. 2021) on heads of head_dim columns. In place. */
peft__val peft__op_rope(peft__tape *t, peft__val x, int64_t head_dim, const peft__rope *rope);
/* A table of biases by relative position (relative.c). */
typedef struct peft__bias {
    const peft__weight *table; /* [buckets, heads]; borrowed */
    int32_t param;             /* parameter of that shape that stands in for it; PEFT__NONE */
    int64_t buckets;
    int64_t max_distance;      /* from here on distances share one bucket */
    bool bidirectional;        /* keys after a query have buckets of their own */
} peft__bias;
typedef struct peft__attn_spec {
    int64_t heads, kv_heads, head_dim;
    double scale;           /* of the scores, 1/sqrt(head_dim) usually */
    bool causal;
    int64_t window;         /* causal: the last `window` keys, else those at most so far away; 0: all */
    double softcap;         /* 0: none; not with a bias */
    int32_t layer;          /* of the KV cache */
    bool cross;             /* all keys of the same row in another space; neither causal nor with a window or a bias */
    const peft__bias *bias; /* added to the scaled scores; NULL: none. Read while recording */
} peft__attn_spec;
/* What stands before every row's own keys and values (prefix): [P, kv_heads D] in SPACE_FIXED; PEFT__NONE: nothing. With gates
 * [ROWS, 1 or 2] each row sees them times factors of its own, keys times the first column, values times the last. */
typedef struct peft__past {
    peft__val k, v, gates;
    bool divided;                /* a row sees k[first, first + count) of its group (frame.row_groups), else all; without gates */
    int64_t first[PEFT__GROUPS], count[PEFT__GROUPS];
    bool unplaced;               /* for a bias by relative position it comes between a query's position and the keys, so that
                                    own keys are that much further on (adapter-transformers' T5); else it is part of both */
} peft__past;
/* Softmax attention of q [T, heads D] over k, v [T, kv_heads D] of the same rows, after the cache (inference) and `past`. With
 * cross, k and v are of another space: [S, kv_heads D]. */
peft__val peft__op_attention(peft__tape *t, peft__val q, peft__val k, peft__val v, const peft__past *past,
                             const peft__attn_spec *spec);
peft__val peft__op_glu(peft__tape *t, int32_t act, peft__val gate, peft__val up); /* act(gate) * up */
peft__val peft__op_act(peft__tape *t, int32_t act, peft__val x);
/* x + y. Residual stream first. */
peft__val peft__op_add(peft__tape *t, peft__val x, peft__val y);
/* [TOKENS, C] -> [ROWS, C]: the state that stands for a row, PEFT__POOL_*. And rows as multiples of length 1. */
peft__val peft__op_pool(peft__tape *t, peft__val x, int32_t how);
peft__val peft__op_unit_rows(peft__tape *t, peft__val x);
/* Loss of a task's outputs x, or embeddings: [ROWS, labels or C], for tasks about tokens [TOKENS, labels]. task: borrowed. */
void peft__op_loss(peft__tape *t, peft__val x, const peft__task *task);
/* A parameter as a value of its rows in SPACE_FIXED. */
peft__val peft__op_param(peft__tape *t, int32_t param);
/* One direction of an LSTM layer over the rows of x in SPACE_FIXED: params w_ih [4h, in], w_hh [4h, h], b_ih, b_hh [4h], gates
 * in the order i, f, g, o -> [rows, h]. reverse: from the last row to the first. */
peft__val peft__op_lstm(peft__tape *t, peft__val x, const int32_t params[4], bool reverse);
/* Columns [col, col + n) of x as a value of its own; and [a | b], rows of any space. */
peft__val peft__op_columns(peft__tape *t, peft__val x, int64_t col, int64_t n);
peft__val peft__op_join(peft__tape *t, peft__val a, peft__val b);
/* Columns [heads][parts][d] as [parts][heads][d]. */
peft__val peft__op_regroup(peft__tape *t, peft__val x, int64_t heads, int64_t parts);
/* y = e(s) x + t, or undone (x - t) / e(s), with r = [s | t] and a clamped exponential e (op_couple.c). */
peft__val peft__op_couple(peft__tape *t, peft__val x, peft__val r, bool inverse);
/* Rows of a, then those of b, of SPACE_FIXED. */
peft__val peft__op_stack_rows(peft__tape *t, peft__val a, peft__val b);
/* Virtual tokens: rows of the stream become [prompts that are the row's; x]. x: [INPUT, C] -> [TOKENS, C], or [SOURCE, C] ->
 * [ENCODER, C]. */
typedef struct peft__prepend {
    peft__val rows;              /* [n * tasks, C] in SPACE_FIXED */
    int64_t n, tasks;            /* tokens before a row: those of the row's task */
    int64_t first, stride;       /* rows of task t: from first + t stride on; stride 0: n */
    uint32_t groups;             /* bit g: rows of group g get it (frame.row_groups) */
} peft__prepend;
peft__val peft__op_prepend(peft__tape *t, peft__val x, const peft__prepend *prompts, size_t n);
/* Virtual tokens of several tasks, [tasks P, C]: E o (U_t V_t) of task t. params: E [P, C], U [tasks P, r], V [tasks r, C]. */
peft__val peft__op_multitask(peft__tape *t, const int32_t params[3], int64_t tasks);
/* Sum over i of softmax(q . k_i / T) u_i, token by token; n at most 8 (AdapterFusion). temperature: T falls from 50 to 1. */
peft__val peft__op_fuse(peft__tape *t, peft__val q, const peft__val *k, const peft__val *u, size_t n, bool temperature);
/* Where a value is taken from another: rows of the batch, tokens of rows, training steps. */
typedef struct peft__choice {
    uint32_t groups;             /* bit g: in rows of group g; ~0: all */
    int64_t begin, end;          /* of a row's own tokens [begin, end); end -1: to its last */
    int32_t layer;               /* not in steps that leave out this many layers or more (frame.skip_layers) ; -1: always */
} peft__choice;
/* y + w (z - base) where chosen, y elsewhere; base NONE: y (w 1: z itself). All of one shape. */
peft__val peft__op_blend(peft__tape *t, peft__val y, peft__val z, peft__val base, double w, const peft__choice *choice);
/* y = x * l with a trained l [1, C]; y = factor * l * x with a trained l [1, 1] (PEFT__NONE: factor alone). */
peft__val peft__op_scale_columns(peft__tape *t, peft__val x, int32_t param);
peft__val peft__op_scale_all(peft__tape *t, peft__val x, double factor, int32_t param);
/* Factors of whole rows of the batch, [ROWS, n]: means over each row's tokens of sigmoid(w x + b), w [n, C], b [1, n]; 1 / (1 - p)
 * or, with probability p, 0 in training (1 otherwise). And y times them: y's columns are n equal stretches. row_gate: both. */
peft__val peft__op_row_mean_gate(peft__tape *t, peft__val x, int32_t w_param, int32_t b_param);
peft__val peft__op_row_keep(peft__tape *t, double p, uint64_t site_key);
peft__val peft__op_row_scale(peft__tape *t, peft__val y, peft__val g);
peft__val peft__op_row_gate(peft__tape *t, peft__val y, peft__val x, int32_t w_param, int32_t b_param);
/* y + (m/n - 1) o z, n the norms of the rows of W + scale B A, constants in the backward pass (DoRA). z: the product with it,
 * without a bias; NONE: y - b, b frozen or trained. params: m [1, out], A [r, in], B [out, r]. */
peft__val peft__op_dora(peft__tape *t, peft__val y, peft__val z, const peft__weight *w, const peft__real *b, int32_t b_param,
                        const int32_t params[3], double scale);
/* y = b + l o (y - b) with a trained l [out, 1]; b [out] frozen, or NULL (BOFT). */
peft__val peft__op_scale_about(peft__tape *t, peft__val y, const peft__real *b, int32_t param);
/* Rotations of blocks of columns. The values of a block: the upper triangle of its skew matrix [b (b - 1) / 2], or with `square`
 * a matrix [b, b] whose skew half it is, those of level 0 first. */
typedef struct peft__rotation {
    int64_t block, count;       /* columns of a block, and blocks */
    bool shared;                /* all have the values of one */
    bool square;
    int32_t level, levels;      /* of a butterfly; 0 of 1: whole blocks */
    int32_t terms;              /* of PEFT's Neumann series of the Cayley transform; 0: exact */
    double limit;               /* longest skew matrix, in the Frobenius norm; 0: none */
    double dropout;             /* part of the blocks of one level that a training step leaves alone */
    uint64_t key;               /* of this site's dropout */
} peft__rotation;
peft__val peft__op_rotate(peft__tape *t, peft__val x, int32_t param, const peft__rotation *r);
/* The same without a tape: R [units, b, b] of the values of a level; rows of x [rows, cols] times it, or its transpose. */
int64_t peft__rotation_units(const peft__rotation *r);  /* 1 when shared */
int64_t peft__rotation_values(const peft__rotation *r); /* of a level */
int64_t peft__rotation_work(const peft__rotation *r);   /* reals that forming wants */
double peft__rotation_share(const peft__rotation *r, const peft__real *values); /* what the limit leaves of a block's; 1: all */
void peft__rotation_form(const peft__rotation *r, const peft__run *run, const peft__real *values, peft__real *mats,
                         peft__real *work);
void peft__rotation_apply(const peft__rotation *r, const peft__run *run, const peft__real *mats, bool back, const peft__real *x,
                          peft__real *y, int64_t rows);
/* y = x P[:out, :in]', P a frozen parameter with at least as many rows and columns (VeRA). */
peft__val peft__op_slice(peft__tape *t, peft__val x, int32_t param, int64_t out);
/* A change D [out, in] of a weight, formed from up to four parameters (LoHa, LoKr). */
typedef struct peft__delta {
    int64_t out, in;
    int64_t dims[6];             /* of the method */
    double scale;                /* D is multiplied by it, by form */
    int64_t work;                /* reals of scratch that form and back want */
    double row_dropout, module_dropout; /* of rows of D, of D as a whole; in training */
    bool rescale;                /* what is left of the rows is divided by its share */
    uint64_t key;                /* of this site's dropout */
    void (*form)(const struct peft__delta *d, const peft__run *run, const peft__real *const p[4], peft__real *out,
                 peft__real *work);
    /* dp[i] += gradient, from g [out, in], which may be overwritten; dp[i] NULL: none */
    void (*back)(const struct peft__delta *d, const peft__run *run, const peft__real *const p[4], peft__real *g,
                 peft__real *const dp[4], peft__real *work);
} peft__delta;
/* y + x D'. In place on y. */
peft__val peft__op_delta(peft__tape *t, peft__val y, peft__val x, const int32_t params[4], const peft__delta *delta);
/* y = x H + b, H [in, out] the sum over i < n of the Kronecker products of R_i [n, n] and W_i [in / n, out / n] (op_phm.c). params:
 * R [n n, n] and NONE, or its factors [n n, 1] and [n, n]; W [in, out / n] and NONE, or its factors [in, r] and [n r, out / n];
 * b [1, out] or NONE. */
peft__val peft__op_phm(peft__tape *t, peft__val x, const int32_t params[5], int64_t n, int64_t out);
/* The head and what comes of it: logits = x W' + b (+ low-rank terms), over rows that have labels only, by chunks; mean-loss
 * gradient, evaluation sums or logits for the caller (exec->frame says which). x: [TOKENS, C], already normed. */
typedef struct peft__head_spec {
    const peft__weight *weight; /* [V, C] */
    int32_t w_param;            /* trainable head */
    const peft__real *bias;
    int32_t b_param;
    int64_t vocab;
    double softcap;             /* final soft cap; 0: none */
    double scale;               /* logits are multiplied by it; 1 usually */
    int32_t lora_a, lora_b;     /* parameters of a low-rank term on the head; PEFT__NONE */
    double lora_scale;
    int32_t rows_param;         /* parameter [n_rows, C] that stands in for the matrix's rows row_ids; PEFT__NONE */
    const int32_t *row_ids;     /* distinct; those from `vocab` on are new: vocab, vocab + 1, ... */
    int64_t n_rows, extra;      /* extra: how many of them are new; there are vocab + extra logits */
} peft__head_spec;
void peft__op_head(peft__tape *t, peft__val x, const peft__head_spec *spec);

/* ---- execution ------------------------------------------------------------------------------------------------------------- */

/* Keys and values of a session: k[layer] + (row * capacity + position) * kv_dim. Those of cross attention (a prefix, then all of
 * the encoder's tokens) are put there in a row's first pass, and are all that is read from then on. */
typedef struct peft__kv_cache {
    peft__real **k, **v;    /* [layers] -> [rows * capacity * kv_dim] */
    int64_t rows, capacity, kv_dim;
    int64_t *length;        /* [rows]: positions filled; advanced by the session after a forward pass */
    int64_t *prefix;        /* [rows]: of these, the prefix; of the layer that has most */
    peft__real **cross_k, **cross_v; /* [layers] -> [rows * cross_capacity * kv_dim]; NULL: no cross attention */
    int64_t cross_capacity; /* tokens of a row's encoder, and of the longest prefix of cross attention */
    int64_t *cross_length;  /* [rows]: tokens of the row's encoder; set by the session before the row's first pass */
} peft__kv_cache;

/* Values of some rows of one group of the batch, for a loss of the host's: it turns them into the gradient of `loss`. */
typedef struct peft__loss_part {
    int32_t group;
    int64_t rows, cols;
    peft__real *values;          /* [rows, cols] in: logits, or what the head computes; out: d loss by them */
    const int64_t *batch_rows, *tokens; /* [rows]: row of the batch, token of that row */
    const int32_t *labels;       /* [rows]; -100: none */
    double loss, weight;         /* out: the sum, and what it is to be divided by */
} peft__loss_part;

/* The batch of one execution. All arrays are borrowed. */
typedef struct peft__frame {
    int64_t n_rows;
    int64_t count[PEFT__SPACE_COUNT];          /* rows of each space but FIXED */
    const int64_t *offsets[PEFT__SPACE_COUNT]; /* TOKENS, INPUT, ENCODER, SOURCE: [n_rows + 1] */
    const int32_t *ids;          /* [count INPUT] */
    const int32_t *positions;    /* [count TOKENS] */
    const int32_t *source_ids;   /* [count SOURCE] */
    const int32_t *source_positions; /* [count ENCODER] */
    const int64_t *lengths;      /* [n_rows]: positions of each row when it is whole, where this is a part of it; NULL: whole */
    const int32_t *labels;       /* [count TOKENS], already shifted: what comes after token t; -100: no label */
    const float *weights;        /* [count TOKENS] loss weights; NULL: ones */
    const int32_t *types;        /* [count TOKENS] token types; NULL: all 0 */
    const int32_t *row_labels;   /* [n_rows] classes; -100: none. With targets: whether the row has them; NULL: no labels */
    const float *targets;        /* [n_rows, labels] of several labels (0, 1) or a regression */
    const int32_t *spans;        /* [n_rows, 2] first and last token of an answer, from the row's first; -1: none */
    const int32_t *parts;        /* [n_rows] 0: an anchor, 1: its positive, which follows it, 2: its negative */
    const float *class_weights[PEFT__GROUPS]; /* for rows of each group: [labels] of losses by class; NULL: ones */
    double similarity_scale;     /* what cosines are multiplied by in a contrastive loss */
    int32_t skip_layers[PEFT__GROUPS]; /* for rows of each group: this many first layers are without their adapters (AdapterDrop) */
    const uint64_t *row_keys;    /* [n_rows]: the row's id for dropout */
    const int32_t *row_tasks;    /* [n_rows]: task of each row (multitask prompts); NULL: all 0 */
    const int32_t *row_groups;   /* [n_rows]: which branch of the adapters' expression a row takes; NULL: all 0 */
    uint64_t seed, step;         /* dropout */
    double loss_scale;           /* gradient of each labelled token: 1 / labelled tokens of the whole step */
    double label_smoothing;
    bool (*loss)(void *user, peft__loss_part *part); /* in place of the task's own; false: it failed. NULL: the task's */
    void *loss_user;
    bool loss_failed;
    peft__kv_cache *cache;       /* inference: past keys and values; NULL: none */
    const int32_t *cache_rows;   /* [n_rows]: which cache row each batch row continues */
    float *logits;               /* inference: wanted logits, [n_logits, vocab]; NULL: loss is computed instead */
    const int64_t *logit_tokens; /* [n_logits]: token indices in the batch */
    int64_t n_logits;
    /* results of the head */
    double loss_sum;             /* sum over labelled tokens of weight * loss (smoothing included) */
    double nll_sum;              /* the same without smoothing */
    double weight_sum;
    double divisor;              /* what loss_sum is divided by for a mean: labelled tokens or rows, with class weights their sum */
    double group_loss[PEFT__GROUPS], group_divisor[PEFT__GROUPS]; /* both, of the rows of each group */
    int64_t labelled, correct;   /* tokens or rows with a label; those whose label has the largest logit */
    double *row_nll;             /* [n_rows], the caller's: nll_sum by row, added to; NULL: not wanted */
} peft__frame;

typedef struct peft__plan_step {
    int32_t op;
    int32_t phase;               /* PEFT__PHASE_* */
    int32_t together;            /* steps from this on that groups may run beside each other (together.c), itself included; 0: none */
} peft__plan_step;
enum { PEFT__PHASE_FORWARD = 0, PEFT__PHASE_REBUILD = 1, PEFT__PHASE_BACKWARD = 2 };
enum { PEFT__PHASE_PACK = 3, PEFT__PHASE_UNPACK = 4 }; /* of the op's first output (pack.c) */

typedef struct peft__plan {
    peft__mem *mem;
    peft__caps caps;
    bool training;
    peft__plan_step *steps;      /* owned */
    int64_t n_steps, n_forward;
    size_t *place, *rebuilt_place, *grad_place; /* owned, [values]: byte offsets in the block; SIZE_MAX: none */
    bool *dropped;               /* owned, [values]: not kept from forward to backward, or kept packed only */
#ifndef PEFT_MINIMAL
    int32_t *packed;             /* owned, [values]: the op of the forward pass after which it is packed; -1: it is not; NULL: none */
    size_t *packed_place;        /* owned, [values]: byte offsets in the block; NULL: none */
#endif
    int64_t n_values;
    bool *recompute;             /* owned, [segments]: this segment is rebuilt in the backward pass */
    size_t *kept;                /* owned, [segments]: bytes that live from its forward into its backward pass */
    int32_t segments, recomputed;
    size_t least_bytes;          /* after PEFT_E_NOMEM for the limit: the smallest limit that would do */
    size_t block_bytes;          /* activations and gradients */
    size_t scratch_bytes;        /* workers x per-worker scratch; caps.bf16: and PEFT__ROUNDED_BYTES */
    size_t op_scratch_bytes;     /* shared scratch of the largest op but those of losses */
    size_t loss_bytes, loss_place; /* the losses' scratch, which is in the block: it is the largest, and wanted once */
    double forward_flops, backward_flops, rebuild_flops; /* of a batch of max_tokens */
} peft__plan;

/* limit: bytes for block and scratch together; 0: none. Segments are rebuilt until it fits; PEFT_E_NOMEM naming the least
 * that would do otherwise. kernels, workers, head_dim: for scratch sizes. */
peft_status peft__plan_make(peft__plan *p, peft__mem *mem, const peft__tape *t, const peft__caps *caps, size_t limit,
                            const peft__kernels *k, int32_t workers, int64_t head_dim);
void peft__plan_free(peft__plan *p); /* a zeroed plan is fine */
size_t peft__plan_bytes(const peft__plan *p); /* block + scratch + op scratch: what exec will allocate */
/* The option "compute_dtype" of trainers and sessions: are products with frozen matrices made in bfloat16? */
#ifdef PEFT_MINIMAL
#define PEFT__COMPUTE_TYPES            "float32"
#define PEFT__COMPUTE_HELP             "type of the arithmetic"
#define peft__compute_bf16(opts, kern) false
#else
#define PEFT__COMPUTE_TYPES "float32|bfloat16|auto"
#define PEFT__COMPUTE_HELP  "type that products with the base's matrices round to; auto: bfloat16 where the CPU multiplies it"
bool peft__compute_bf16(const peft__optset *opts, const peft__kernels *k);
#endif

struct peft__exec {
    const peft__tape *tape;      /* borrowed */
    const peft__plan *plan;      /* borrowed */
    peft__frame *frame;          /* of the run in progress */
    peft__run run;
    peft__mem *mem;
    uint8_t *block, *scratch;    /* owned; scratch: of all ops but losses */
    uint8_t *op_scratch;         /* of the op that runs */
    bool *grad_written;          /* owned, [values] */
    bool *backward_place;        /* owned, [values]: read the rebuilt copy */
    bool training;               /* of the run in progress */
#ifndef PEFT_MINIMAL
    struct peft__profile *profile; /* borrowed (profile.h); NULL: nothing is measured */
    peft__pool *alone;             /* owned, of one thread: for what runs on a thread of run.pool (together.c); NULL: nothing does */
#endif
};
peft_status peft__exec_create(peft__exec *x, peft__mem *mem, const peft__tape *t, const peft__plan *p,
                              const peft__kernels *k, peft__pool *pool);
void peft__exec_free(peft__exec *x);
/* Runs the tape. backward: also adds to the gradients of the tape's parameters. Results are left in frame. */
peft_status peft__exec_run(peft__exec *x, peft__frame *frame, bool backward);

/* For ops; pointers are to row 0 of the value. */
int64_t peft__exec_rows(const peft__exec *x, peft__val v);
/* The next stretch [begin, end) of v's rows that the op works on: those of batch rows of the op's group that stand together, or all
 * at once where it has none. *row is 0 before the first; false: there is no more. */
bool peft__exec_next(const peft__exec *x, const peft__op *op, peft__val v, int64_t *row, int64_t *begin, int64_t *end);
peft__real *peft__exec_data(const peft__exec *x, peft__val v);
int64_t peft__exec_ld(const peft__exec *x, peft__val v);   /* stride of its rows, in reals */
/* Gradient of v for reading (of an output), and for writing (of an input): NULL when v needs none; *add: accumulate. */
const peft__real *peft__exec_grad(const peft__exec *x, peft__val v);
peft__real *peft__exec_grad_out(peft__exec *x, peft__val v, bool *add);
/* The same for an op that writes the stretches of peft__exec_next only: what is outside of them is zero where it is the first. */
peft__real *peft__exec_grad_rows(peft__exec *x, const peft__op *op, peft__val v, bool *add);
const peft__real *peft__exec_param(const peft__exec *x, int32_t param);      /* value */
peft__real *peft__exec_param_grad(const peft__exec *x, int32_t param);       /* NULL: frozen or none */

#endif
