/* op_attention.c - softmax attention over the rows of a batch: softmax(q k' scale) v (Vaswani et al. 2017), tiled as in
 * FlashAttention (Dao et al. 2022): only the log-sum-exp of each query is kept, no T x T matrix exists.
 *
 * Rows are packed end to end and see only themselves. Before a row's own keys may stand a prefix (values of the tape, which
 * may be trained) or, in a session, the KV cache, into which the new keys and values are then copied. */
#include "autograd/ops.h"

enum { ATTENTION_Q = 0, ATTENTION_K = 1, ATTENTION_V = 2, ATTENTION_PAST_K = 3, ATTENTION_PAST_V = 4 };

/* Rows are described in pieces of this many at a time, on the stack. */
enum { ATTENTION_ROWS = 64 };

static peft__attn_args attention_gather(peft__exec *x, const peft__op *op) {
    const peft__attn_spec *s = op->aux;
    peft__attn_args a;
    memset(&a, 0, sizeof a);
    a.heads = s->heads;
    a.kv_heads = s->kv_heads;
    a.head_dim = s->head_dim;
    a.scale = PEFT__R(s->scale);
    a.causal = s->causal;
    a.window = s->window;
    a.past_visible = x->frame->cache == NULL && x->tape->position_shift == 0; /* a prefix that counts as tokens leaves the window */
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
    return a;
}

/* The first pass of a session's row: the prefix becomes the start of its cache. */
static void attention_cache_prefix(peft__exec *x, const peft__op *op, const peft__attn_row *r, int64_t width) {
    const peft__real *k = peft__exec_data(x, op->in[ATTENTION_PAST_K]), *v = peft__exec_data(x, op->in[ATTENTION_PAST_V]);
    for (int64_t i = 0; i < r->n_past; i++) {
        peft__real *to_k = (peft__real *)(uintptr_t)r->past_k + i * width, *to_v = (peft__real *)(uintptr_t)r->past_v + i * width;
        memcpy(to_k, k + i * peft__exec_ld(x, op->in[ATTENTION_PAST_K]), (size_t)width * sizeof *to_k);
        memcpy(to_v, v + i * peft__exec_ld(x, op->in[ATTENTION_PAST_V]), (size_t)width * sizeof *to_v);
    }
}

/* Describes rows [first, first + n) of the batch. */
static void attention_rows(peft__exec *x, const peft__op *op, int64_t first, int64_t n, peft__attn_row *rows) {
    const peft__attn_spec *s = op->aux;
    const peft__frame *f = x->frame;
    const int64_t *offsets = f->offsets[PEFT__SPACE_TOKENS];
    memset(rows, 0, (size_t)n * sizeof *rows);
    for (int64_t i = 0; i < n; i++) {
        peft__attn_row *r = &rows[i];
        r->first = offsets[first + i];
        r->n = offsets[first + i + 1] - r->first;
        if (f->cache != NULL) {
            int64_t slot = f->cache_rows[first + i];
            r->n_past = f->cache->length[slot];
            r->past_ld = f->cache->kv_dim;
            r->past_k = f->cache->k[s->layer] + slot * f->cache->capacity * f->cache->kv_dim;
            r->past_v = f->cache->v[s->layer] + slot * f->cache->capacity * f->cache->kv_dim;
            if (r->n_past == 0 && op->in[ATTENTION_PAST_K] != PEFT__NONE) {
                r->n_past = peft__exec_rows(x, op->in[ATTENTION_PAST_K]);
                attention_cache_prefix(x, op, r, f->cache->kv_dim);
            }
        } else if (op->in[ATTENTION_PAST_K] != PEFT__NONE) {
            r->n_past = peft__exec_rows(x, op->in[ATTENTION_PAST_K]);
            r->past_ld = peft__exec_ld(x, op->in[ATTENTION_PAST_K]);
            r->past_k = peft__exec_data(x, op->in[ATTENTION_PAST_K]);
            r->past_v = peft__exec_data(x, op->in[ATTENTION_PAST_V]);
        }
    }
}

static void attention_store(peft__exec *x, const peft__attn_args *a, const peft__attn_row *rows, int64_t n, int64_t width) {
    if (x->frame->cache == NULL) { return; }
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
    peft__attn_args a = attention_gather(x, op);
    peft__attn_row rows[ATTENTION_ROWS];
    a.rows = rows;
    for (int64_t r = 0; r < x->frame->n_rows; r += ATTENTION_ROWS) {
        a.n_rows = PEFT__MIN(ATTENTION_ROWS, x->frame->n_rows - r);
        attention_rows(x, op, r, a.n_rows, rows);
        peft__attn_forward(&x->run, &a);
        attention_store(x, &a, rows, a.n_rows, a.kv_heads * a.head_dim);
    }
}

/* Where a gradient goes that nobody wants: the kernel writes all three. */
static peft__real *attention_grad(peft__exec *x, const peft__op *op, int32_t j, peft__real **spare, int64_t ld, int64_t tokens) {
    bool add = false; /* sole consumer: never */
    peft__real *g = peft__exec_grad_out(x, op, op->in[j], &add);
    if (g == NULL) {
        g = *spare;
        *spare += ld * tokens;
    }
    return g;
}

/* The gradient of a value that may be columns of another: those of its neighbours stay. */
static void attention_zero(const peft__exec *x, peft__val v, peft__real *g) {
    int64_t ld = peft__exec_ld(x, v), cols = peft__tape_value(x->tape, v)->cols;
    for (int64_t r = 0; r < peft__exec_rows(x, v); r++) { memset(g + r * ld, 0, (size_t)cols * sizeof *g); }
}

static void attention_backward(peft__exec *x, const peft__op *op) {
    peft__attn_args a = attention_gather(x, op);
    peft__attn_row rows[ATTENTION_ROWS];
    peft__real *spare = (peft__real *)(void *)x->op_scratch;
    bool add = true;
    a.rows = rows;
    a.d_o = peft__exec_grad(x, op->out[0]);
    a.dq = attention_grad(x, op, ATTENTION_Q, &spare, a.ldq, a.n_tokens);
    a.dk = attention_grad(x, op, ATTENTION_K, &spare, a.ldk, a.n_tokens);
    a.dv = attention_grad(x, op, ATTENTION_V, &spare, a.ldv, a.n_tokens);
    peft__real *dpk = peft__exec_grad_out(x, op, op->in[ATTENTION_PAST_K], &add), *dpv = NULL;
    if (dpk != NULL) {
        dpv = peft__exec_grad_out(x, op, op->in[ATTENTION_PAST_V], &add);
        attention_zero(x, op->in[ATTENTION_PAST_K], dpk);
        attention_zero(x, op->in[ATTENTION_PAST_V], dpv);
    }
    int64_t step = dpk != NULL ? 1 : ATTENTION_ROWS; /* rows add to a shared prefix one after the other, in order */
    for (int64_t r = 0; r < x->frame->n_rows; r += step) {
        a.n_rows = PEFT__MIN(step, x->frame->n_rows - r);
        attention_rows(x, op, r, a.n_rows, rows);
        rows[0].past_dk = dpk;
        rows[0].past_dv = dpv;
        peft__attn_backward(&x->run, &a);
    }
}

static uint32_t attention_reads(const peft__tape *t, const peft__op *op) {
    (void)t;
    return 7u | (op->in[ATTENTION_PAST_K] != PEFT__NONE ? 24u : 0) | 3u << 8;
}

/* Two products forward, five backward, over half of the square when causal; estimated for rows of the largest length. */
static double attention_flops(const peft__tape *t, const peft__op *op, const peft__caps *caps, bool backward) {
    const peft__attn_spec *s = op->aux;
    (void)t;
    double keys = (double)caps->max_length * (s->causal ? 0.5 : 1.0);
    if (s->window > 0) { keys = PEFT__MIN(keys, (double)s->window); }
    return (backward ? 10.0 : 4.0) * (double)(s->heads * s->head_dim) * keys;
}

static size_t attention_scratch(const peft__tape *t, const peft__op *op, const peft__caps *caps) {
    size_t cols = 0;
    int64_t rows = caps->max_tokens + caps->max_rows * t->virtual_tokens;
    if (!op->needs_grad) { return 0; }
    for (int32_t j = 0; j < 3; j++) {
        const peft__value *v = peft__tape_value(t, op->in[j]);
        if (!v->needs_grad) { cols += (size_t)(v->parent == PEFT__NONE ? v->cols : peft__tape_value(t, v->parent)->cols); }
    }
    return cols * (size_t)rows * sizeof(peft__real);
}

static const peft__op_kind attention_kind = {"attention", PEFT__OPF_SOLE, attention_reads, attention_forward, attention_backward,
                                              attention_flops,
                                        attention_scratch};

peft__val peft__op_attention(peft__tape *t, peft__val q, peft__val k, peft__val v, peft__val past_k, peft__val past_v,
                             const peft__attn_spec *spec) {
    peft__val in[5] = {q, k, v, past_k, past_v};
    peft__attn_spec *s = t->status == PEFT_OK ? peft__arena_alloc(&t->arena, sizeof *s) : NULL;
    if (s == NULL) {
        peft__tape_fail(t, PEFT_E_NOMEM, "%s", peft__fail_text());
        return PEFT__NONE;
    }
    *s = *spec;
    peft__op *op = peft__tape_push(t, &attention_kind, 5, in);
    if (op == NULL) { return PEFT__NONE; }
    peft__value x = *peft__tape_value(t, q);
    op->aux = s;
    peft__val out = peft__tape_out(t, op, x.space, x.fixed, spec->heads * spec->head_dim);
    (void)peft__tape_out(t, op, x.space, x.fixed, spec->heads);
    return out;
}
