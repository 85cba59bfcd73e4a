/* op_attention.c - softmax attention over the rows of a batch: softmax(q k' scale) v (Vaswani et al. 2017), tiled as in
 * FlashAttention (Dao et al. 2022): only the log-sum-exp of each query is kept, no T x T matrix exists.
 *
 * Rows are packed end to end and see only themselves. Before a row's own keys may stand a prefix (values of the tape, which
 * may be trained) or, in a session, the KV cache, into which the new keys and values are then copied.
 *
 * Cross attention takes keys and values from the encoder's row of the same number. In a session they, and the prefix before them,
 * are put into a cache of their own in a row's first pass; later passes have no encoder. Self attention of an encoder has no cache:
 * its rows are whole. Scores may have biases by relative position (relative.c).
 *
 * With gates each row sees the prefix times factors of its own, P_r = g_r P: copies in scratch, of which
 *   dP = sum over rows of g_r dP_r, rows in order;   dg_r = <dP_r, P>
 * In a session every pass has other gates, and puts the prefix into the cache anew; other prefixes are put there once.
 *
 * Left out: dropout of the attention's weights. */
#include "autograd/ops.h"
#include "autograd/plan.h"
#include "autograd/relative.h"

enum { ATTENTION_Q = 0, ATTENTION_K = 1, ATTENTION_V = 2, ATTENTION_PAST_K = 3, ATTENTION_PAST_V = 4, ATTENTION_GATES = 5 };

/* Rows are described in pieces of this many at a time, on the stack. */
enum { ATTENTION_ROWS = 64 };

/* What the op keeps. The description is first, as `aux` is read. */
typedef struct attention_aux {
    peft__attn_spec spec;
    peft__past past;
    const peft__relative *relative; /* NULL: no bias */
} attention_aux;

/* The space of queries (j 0), keys (1) and values (2). */
static int32_t attention_space(const peft__exec *x, const peft__op *op, int32_t j) {
    return peft__tape_value(x->tape, op->in[j])->space;
}

/* *scratch: moves past what biases take of it. */
static peft__attn_args attention_gather(peft__exec *x, const peft__op *op, bool backward, peft__attn_bias *bias,
                                        peft__real **scratch) {
    const peft__attn_spec *s = op->aux;
    const peft__relative *relative = ((const attention_aux *)op->aux)->relative;
    peft__attn_args a;
    memset(&a, 0, sizeof a);
    a.heads = s->heads;
    a.kv_heads = s->kv_heads;
    a.head_dim = s->head_dim;
    a.scale = PEFT__R(s->scale);
    a.causal = s->causal;
    a.cross = s->cross;
    a.window = s->window;
    a.softcap = PEFT__R(s->softcap);
    a.n_tokens = peft__exec_rows(x, op->in[ATTENTION_Q]);
    a.q = peft__exec_data(x, op->in[ATTENTION_Q]);
    a.k = peft__exec_data(x, op->in[ATTENTION_K]);
    a.v = peft__exec_data(x, op->in[ATTENTION_V]);
    a.ldq = peft__exec_ld(x, op->in[ATTENTION_Q]);
    a.ldk = peft__exec_ld(x, op->in[ATTENTION_K]);
    a.ldv = peft__exec_ld(x, op->in[ATTENTION_V]);
    a.o = peft__exec_data(x, op->out[0]);
    a.ldo = peft__exec_ld(x, op->out[0]);
    a.lse = peft__exec_data(x, op->out[1]);
    if (relative != NULL) {
        peft__real *d_table = backward ? peft__exec_param_grad(x, op->param[0]) : NULL;
        *scratch = peft__relative_expand(relative, x->run.k, peft__exec_param(x, op->param[0]), d_table, a.n_tokens,
                                         PEFT__MIN(x->frame->n_rows, ATTENTION_ROWS), *scratch, bias);
        a.bias = bias;
    }
    return a;
}

static int32_t attention_group(const peft__exec *x, int64_t row) {
    return x->frame->row_groups != NULL ? x->frame->row_groups[row] : 0;
}

/* ---- the prefix ---------------------------------------------------------------------------------------------------------- */

/* Rows of the prefix. */
static int64_t attention_prefix(const peft__exec *x, const peft__op *op) {
    return op->in[ATTENTION_PAST_K] != PEFT__NONE ? peft__exec_rows(x, op->in[ATTENTION_PAST_K]) : 0;
}

/* The rows of the prefix that a row of the batch sees; the first of them in *first. */
static int64_t attention_stretch(const peft__exec *x, const peft__op *op, int64_t row, int64_t *first) {
    const attention_aux *aux = op->aux;
    int32_t group = attention_group(x, row);
    *first = aux->past.divided ? aux->past.first[group] : 0;
    return aux->past.divided ? aux->past.count[group] : attention_prefix(x, op);
}

static int64_t attention_width(const peft__op *op) {
    const peft__attn_spec *s = op->aux;
    return s->kv_heads * s->head_dim;
}

/* Factor of the prefix's keys (j 0) or values (1) for a row of the batch. */
static peft__real attention_gate(const peft__exec *x, const peft__op *op, int64_t row, int32_t j) {
    int64_t cols = peft__tape_value(x->tape, op->in[ATTENTION_GATES])->cols;
    return peft__exec_data(x, op->in[ATTENTION_GATES])[row * cols + (j == 0 ? 0 : cols - 1)];
}

/* to[P, width] = the prefix as the row sees it. */
static void attention_copy_prefix(const peft__exec *x, const peft__op *op, int64_t row, int32_t j, peft__real *to) {
    peft__val v = op->in[ATTENTION_PAST_K + j];
    int64_t width = attention_width(op), ld = peft__exec_ld(x, v), first, count = attention_stretch(x, op, row, &first);
    const peft__real *from = peft__exec_data(x, v) + first * ld;
    for (int64_t i = 0; i < count; i++) {
        if (op->in[ATTENTION_GATES] == PEFT__NONE) {
            memcpy(to + i * width, from + i * ld, (size_t)width * sizeof *to);
        } else {
            x->run.k->scale(to + i * width, attention_gate(x, op, row, j), from + i * ld, width);
        }
    }
}

/* Where the copies for row i of a piece lie: keys, then values; and, in the second half, their gradients. */
static peft__real *attention_copy_at(const peft__exec *x, const peft__op *op, peft__real *copies, int64_t i, int32_t j) {
    return copies + (2 * i + j) * attention_prefix(x, op) * attention_width(op);
}

/* Row `row` of the batch, which goes on with its cache. Layers without the prefix leave its places in the cache out. */
static void attention_cache(peft__exec *x, const peft__op *op, int64_t row, peft__attn_row *r) {
    const peft__attn_spec *s = op->aux;
    const peft__kv_cache *c = x->frame->cache;
    int64_t begin, slot = x->frame->cache_rows[row], own = attention_stretch(x, op, row, &begin), skip = c->prefix[slot] - own;
    int64_t first = (slot * c->capacity + skip) * c->kv_dim;
    bool fresh = c->length[slot] == 0;
    r->n_past = fresh ? own : c->length[slot] - skip;
    r->past_ld = c->kv_dim;
    r->past_k = c->k[s->layer] + first;
    r->past_v = c->v[s->layer] + first;
    if (own == 0 || (!fresh && op->in[ATTENTION_GATES] == PEFT__NONE)) { return; }
    attention_copy_prefix(x, op, row, 0, c->k[s->layer] + first);
    attention_copy_prefix(x, op, row, 1, c->v[s->layer] + first);
}

/* The same of cross attention: all keys are in the cache, which has no places for a prefix that the layer does not have. */
static void attention_cross_cache(peft__exec *x, const peft__op *op, int64_t row, peft__attn_row *r) {
    const peft__attn_spec *s = op->aux;
    const peft__kv_cache *c = x->frame->cache;
    int64_t begin, width = c->kv_dim, slot = x->frame->cache_rows[row], own = attention_stretch(x, op, row, &begin);
    bool fresh = c->length[slot] == 0;
    peft__real *to[2] = {c->cross_k[s->layer] + slot * c->cross_capacity * width, c->cross_v[s->layer] + slot * c->cross_capacity * width};
    r->n_past = own + c->cross_length[slot];
    r->past_ld = width;
    r->past_k = to[0];
    r->past_v = to[1];
    for (int32_t j = 0; j < 2; j++) {
        peft__val v = op->in[ATTENTION_K + j];
        if (own > 0 && (fresh || op->in[ATTENTION_GATES] != PEFT__NONE)) { attention_copy_prefix(x, op, row, j, to[j]); }
        for (int64_t t = 0; fresh && t < c->cross_length[slot]; t++) {
            int64_t token = x->frame->offsets[attention_space(x, op, ATTENTION_K)][row] + t;
            memcpy(to[j] + (own + t) * width, peft__exec_data(x, v) + token * peft__exec_ld(x, v), (size_t)width * sizeof **to);
        }
    }
}

/* ---- rows ---------------------------------------------------------------------------------------------------------------- */

/* Only the decoder's rows go on in a session. */
static bool attention_is_cached(const peft__exec *x, const peft__op *op) {
    int32_t space = attention_space(x, op, ATTENTION_Q);
    return x->frame->cache != NULL && (space == PEFT__SPACE_TOKENS || space == PEFT__SPACE_INPUT);
}

/* Describes rows [first, first + n) of the batch. copies: room for prefixes with gates. */
static void attention_rows(peft__exec *x, const peft__op *op, int64_t first, int64_t n, peft__attn_row *rows, peft__real *copies) {
    const peft__frame *f = x->frame;
    const int64_t *offsets = f->offsets[attention_space(x, op, ATTENTION_Q)], *keys = f->offsets[attention_space(x, op, ATTENTION_K)];
    const attention_aux *aux = op->aux;
    bool gated = op->in[ATTENTION_GATES] != PEFT__NONE, cross = aux->spec.cross, cached = attention_is_cached(x, op);
    memset(rows, 0, (size_t)n * sizeof *rows);
    for (int64_t i = 0; i < n; i++) {
        peft__attn_row *r = &rows[i];
        int64_t begin, prefix = attention_stretch(x, op, first + i, &begin);
        r->first = offsets[first + i];
        r->n = offsets[first + i + 1] - r->first;
        r->n_visible = x->tape->group_shift[attention_group(x, first + i)] == 0 ? prefix : 0; /* else it leaves the window */
        r->bias_shift = aux->past.unplaced ? prefix : 0;
        if (cross && !cached) {
            r->k_first = keys[first + i];
            r->k_n = keys[first + i + 1] - r->k_first;
        }
        if (cached && cross) {
            attention_cross_cache(x, op, first + i, r);
        } else if (cached) {
            attention_cache(x, op, first + i, r);
        } else if (gated) {
            for (int32_t j = 0; j < 2; j++) { attention_copy_prefix(x, op, first + i, j, attention_copy_at(x, op, copies, i, j)); }
            r->n_past = prefix;
            r->past_ld = attention_width(op);
            r->past_k = attention_copy_at(x, op, copies, i, 0);
            r->past_v = attention_copy_at(x, op, copies, i, 1);
        } else if (prefix > 0) {
            r->n_past = prefix;
            r->past_ld = peft__exec_ld(x, op->in[ATTENTION_PAST_K]);
            r->past_k = peft__exec_data(x, op->in[ATTENTION_PAST_K]) + begin * r->past_ld;
            r->past_v = peft__exec_data(x, op->in[ATTENTION_PAST_V]) + begin * peft__exec_ld(x, op->in[ATTENTION_PAST_V]);
        }
    }
}

static void attention_store(const peft__attn_args *a, const peft__attn_row *rows, int64_t n, int64_t width) {
    for (int64_t i = 0; i < n; i++) {
        peft__real *k = (peft__real *)(uintptr_t)rows[i].past_k + rows[i].n_past * width;
        peft__real *v = (peft__real *)(uintptr_t)rows[i].past_v + rows[i].n_past * width;
        for (int64_t t = 0; t < rows[i].n; t++) {
            memcpy(k + t * width, a->k + (rows[i].first + t) * a->ldk, (size_t)width * sizeof *k);
            memcpy(v + t * width, a->v + (rows[i].first + t) * a->ldv, (size_t)width * sizeof *v);
        }
    }
}

static void attention_forward(peft__exec *x, const peft__op *op) {
    peft__attn_row rows[ATTENTION_ROWS];
    peft__attn_bias bias;
    peft__real *spare = (peft__real *)(void *)x->op_scratch;
    peft__attn_args a = attention_gather(x, op, false, &bias, &spare);
    bool store = attention_is_cached(x, op) && !a.cross;
    a.rows = rows;
    for (int64_t r = 0; r < x->frame->n_rows; r += ATTENTION_ROWS) {
        a.n_rows = PEFT__MIN(ATTENTION_ROWS, x->frame->n_rows - r);
        attention_rows(x, op, r, a.n_rows, rows, spare);
        peft__attn_forward(&x->run, &a);
        if (store) { attention_store(&a, rows, a.n_rows, a.kv_heads * a.head_dim); }
    }
}

/* Where a gradient goes that nobody wants: the kernel writes all three. */
static peft__real *attention_grad(peft__exec *x, const peft__op *op, int32_t j, peft__real **spare) {
    bool add = false; /* sole consumer: never */
    peft__real *g = peft__exec_grad_out(x, op->in[j], &add);
    if (g == NULL) {
        g = *spare;
        *spare += peft__exec_ld(x, op->in[j]) * peft__exec_rows(x, op->in[j]);
    }
    return g;
}

/* The gradient of a value that may be columns of another: those of its neighbours stay. */
static void attention_zero(const peft__exec *x, peft__val v, peft__real *g) {
    int64_t ld = peft__exec_ld(x, v), cols = peft__tape_value(x->tape, v)->cols;
    for (int64_t r = 0; r < peft__exec_rows(x, v); r++) { memset(g + r * ld, 0, (size_t)cols * sizeof *g); }
}

/* Gradients of the rows' own copies of the prefix become those of the prefix and of the gates. */
static void attention_back_gates(peft__exec *x, const peft__op *op, int64_t first, int64_t n, peft__real *d_copies,
                                 peft__real *const dp[2], peft__real *dg) {
    const peft__kernels *k = x->run.k;
    int64_t width = attention_width(op), cols = peft__tape_value(x->tape, op->in[ATTENTION_GATES])->cols;
    for (int64_t i = 0; i < n; i++) {
        for (int32_t j = 0; j < 2; j++) {
            const peft__real *d = attention_copy_at(x, op, d_copies, i, j), *p = peft__exec_data(x, op->in[ATTENTION_PAST_K + j]);
            int64_t ld = peft__exec_ld(x, op->in[ATTENTION_PAST_K + j]);
            peft__real g = attention_gate(x, op, first + i, j), sum = 0;
            for (int64_t t = 0; t < attention_prefix(x, op); t++) {
                if (dp[j] != NULL) { k->axpy(dp[j] + t * ld, g, d + t * width, width); }
                sum += k->dot(d + t * width, p + t * ld, width);
            }
            if (dg != NULL) { dg[(first + i) * cols + (j == 0 ? 0 : cols - 1)] += sum; }
        }
    }
}

/* Rows [first, first + n) with copies of the prefix and of its gradients. */
static void attention_back_gated(peft__exec *x, const peft__op *op, peft__attn_args *a, peft__attn_row *rows, int64_t first,
                                 peft__real *copies, peft__real *const dp[2], peft__real *dg) {
    peft__real *d_copies = attention_copy_at(x, op, copies, a->n_rows, 0);
    memset(d_copies, 0, (size_t)(2 * a->n_rows * attention_prefix(x, op) * attention_width(op)) * sizeof *d_copies);
    attention_rows(x, op, first, a->n_rows, rows, copies);
    for (int64_t i = 0; i < a->n_rows; i++) {
        rows[i].past_dk = attention_copy_at(x, op, d_copies, i, 0);
        rows[i].past_dv = attention_copy_at(x, op, d_copies, i, 1);
    }
    peft__attn_backward(&x->run, a);
    attention_back_gates(x, op, first, a->n_rows, d_copies, dp, dg);
}

static void attention_backward(peft__exec *x, const peft__op *op) {
    peft__attn_row rows[ATTENTION_ROWS];
    peft__attn_bias bias;
    peft__real *spare = (peft__real *)(void *)x->op_scratch, *dp[2], *dg;
    peft__attn_args a = attention_gather(x, op, true, &bias, &spare);
    bool add = true;
    a.rows = rows;
    a.d_o = peft__exec_grad(x, op->out[0]);
    a.dq = attention_grad(x, op, ATTENTION_Q, &spare);
    a.dk = attention_grad(x, op, ATTENTION_K, &spare);
    a.dv = attention_grad(x, op, ATTENTION_V, &spare);
    a.delta = spare;
    spare += a.heads * a.n_tokens;
    for (int32_t j = 0; j < 2; j++) {
        dp[j] = peft__exec_grad_out(x, op->in[ATTENTION_PAST_K + j], &add);
        if (dp[j] != NULL) { attention_zero(x, op->in[ATTENTION_PAST_K + j], dp[j]); }
    }
    dg = peft__exec_grad_out(x, op->in[ATTENTION_GATES], &add);
    if (dg != NULL) { attention_zero(x, op->in[ATTENTION_GATES], dg); }
    bool gated = dg != NULL || (op->in[ATTENTION_GATES] != PEFT__NONE && dp[0] != NULL);
    int64_t step = !gated && dp[0] != NULL ? 1 : ATTENTION_ROWS; /* rows add to a shared prefix one after the other, in order */
    for (int64_t r = 0; r < x->frame->n_rows; r += step) {
        a.n_rows = PEFT__MIN(step, x->frame->n_rows - r);
        if (gated) {
            attention_back_gated(x, op, &a, rows, r, spare, dp, dg);
            continue;
        }
        attention_rows(x, op, r, a.n_rows, rows, spare);
        int64_t begin;
        (void)attention_stretch(x, op, r, &begin);
        rows[0].past_dk = dp[0] != NULL ? dp[0] + begin * peft__exec_ld(x, op->in[ATTENTION_PAST_K]) : NULL;
        rows[0].past_dv = dp[1] != NULL ? dp[1] + begin * peft__exec_ld(x, op->in[ATTENTION_PAST_V]) : NULL;
        peft__attn_backward(&x->run, &a);
    }
}

static uint32_t attention_reads(const peft__tape *t, const peft__op *op) {
    (void)t;
    uint32_t prefix = op->in[ATTENTION_PAST_K] != PEFT__NONE ? 24u : 0, gates = op->in[ATTENTION_GATES] != PEFT__NONE ? 32u : 0;
    return 7u | prefix | gates | 3u << PEFT__READS_OUT;
}

/* Two products forward, five backward, over half of the square when causal; estimated for rows of the largest length. */
static double attention_flops(const peft__tape *t, const peft__op *op, const peft__caps *caps, bool backward) {
    const peft__attn_spec *s = op->aux;
    (void)t;
    double keys = (double)caps->max_length * (s->causal ? 0.5 : 1.0), window = (double)s->window * (s->causal ? 1 : 2);
    if (s->window > 0) { keys = PEFT__MIN(keys, window); }
    return (backward ? 10.0 : 4.0) * (double)(s->heads * s->head_dim) * keys;
}

static size_t attention_scratch(const peft__tape *t, const peft__op *op, const peft__caps *caps) {
    const attention_aux *aux = op->aux;
    const peft__value *q = peft__tape_value(t, op->in[ATTENTION_Q]);
    size_t bytes = 0, copies = 0;
    int64_t tokens = peft__plan_rows(t, caps, q->space, q->fixed), rows = PEFT__MIN(caps->max_rows, ATTENTION_ROWS);
    bool trained = op->needs_grad && peft__op_trained(t, op->param[0]);
    if (aux->relative != NULL) {
        bytes = peft__relative_scratch(aux->relative, trained ? tokens : 0, trained ? rows : 0) * sizeof(peft__real);
    }
    if (op->in[ATTENTION_GATES] != PEFT__NONE) {
        int64_t prefix = peft__tape_value(t, op->in[ATTENTION_PAST_K])->fixed;
        copies = (size_t)(rows * 2 * prefix * attention_width(op)) * sizeof(peft__real);
    }
    if (!op->needs_grad) { return bytes + copies; }
    bytes += (size_t)(aux->spec.heads * tokens) * sizeof(peft__real);
    for (int32_t j = 0; j < 3; j++) {
        const peft__value *v = peft__tape_value(t, op->in[j]);
        int64_t ld = v->parent == PEFT__NONE ? v->cols : peft__tape_value(t, v->parent)->cols;
        if (!v->needs_grad) { bytes += (size_t)(ld * peft__plan_rows(t, caps, v->space, v->fixed)) * sizeof(peft__real); }
    }
    return bytes + 2 * copies;
}

static const peft__op_kind attention_kind = {"attention", PEFT__OPF_SOLE, attention_reads, attention_forward, attention_backward,
                                              attention_flops,
                                        attention_scratch};

/* What the kernels cannot do at once. */
static void attention_check(peft__tape *t, const peft__attn_spec *s) {
    if (s->cross && (s->causal || s->window > 0 || s->bias != NULL)) {
        peft__tape_fail(t, PEFT_E_UNSUPPORTED, "cross attention with a mask, a window or biases by relative position");
    }
    if (s->bias != NULL && s->softcap > 0) {
        peft__tape_fail(t, PEFT_E_UNSUPPORTED, "attention with biases by relative position and a cap of %g on its scores", s->softcap);
    }
}

peft__val peft__op_attention(peft__tape *t, peft__val q, peft__val k, peft__val v, const peft__past *past,
                             const peft__attn_spec *spec) {
    peft__val in[6] = {q, k, v, past->k, past->v, past->gates};
    attention_check(t, spec);
    const peft__relative *relative = spec->bias != NULL ? peft__relative_make(t, spec->bias, spec->heads) : NULL;
    attention_aux *aux = t->status == PEFT_OK ? peft__arena_alloc(&t->arena, sizeof *aux) : NULL;
    if (aux == NULL) {
        peft__tape_fail(t, PEFT_E_NOMEM, "%s", peft__fail_text());
        return PEFT__NONE;
    }
    *aux = (attention_aux){*spec, *past, relative};
    peft__op *op = peft__tape_push(t, &attention_kind, 6, in);
    if (op == NULL) { return PEFT__NONE; }
    peft__value x = *peft__tape_value(t, q);
    op->aux = aux;
    op->param[0] = relative != NULL ? relative->bias.param : PEFT__NONE;
    t->past_again = t->past_again || past->gates != PEFT__NONE;
    peft__val out = peft__tape_out(t, op, x.space, x.fixed, spec->heads * spec->head_dim);
    (void)peft__tape_out(t, op, x.space, x.fixed, spec->heads);
    return out;
}
