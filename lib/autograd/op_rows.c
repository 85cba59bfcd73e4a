/* op_rows.c - trained rows in place of what a table of embeddings gave for some tokens.
 *
 *   y[t] = scale * rows[i] where id[t] = ids[i], x[t] elsewhere;   drows[i] += scale * dy[t], tokens in order;
 *   dx[t] = 0 where replaced, dy[t] elsewhere
 *
 * Left out: the head's side of the same rows (op_head.c). */
#include "autograd/ops.h"

typedef struct rows_index { /* ids in rising order, and which row each has */
    int64_t n;
    int32_t *id, *row;
} rows_index;

typedef struct rows_args {
    const peft__exec *x;
    const rows_index *index;
    const int32_t *ids;   /* [tokens] */
    const peft__real *in, *rows, *dy;
    peft__real *y, *drows, *dx;
    int64_t cols, ld, tokens;
    peft__real scale;
    bool add;
} rows_args;

/* Row for an id; -1: not replaced. */
static int32_t rows_find(const rows_index *r, int32_t id) {
    int64_t low = 0, high = r->n;
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        if (r->id[mid] < id) { low = mid + 1; } else { high = mid; }
    }
    return low < r->n && r->id[low] == id ? r->row[low] : -1;
}

static void rows_put(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const rows_args *r = arg;
    const int32_t *ids = r->ids;
    (void)worker;
    for (int64_t t = begin; t < end; t++) {
        int32_t row = rows_find(r->index, ids[t]);
        peft__real *y = r->y + t * r->cols;
        const peft__real *in = r->in + t * r->ld;
        if (row >= 0) {
            r->x->run.k->scale(y, r->scale, r->rows + row * r->cols, r->cols);
        } else if (y != in) {
            memcpy(y, in, (size_t)r->cols * sizeof *y);
        }
    }
}

static void rows_back_columns(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const rows_args *r = arg;
    const int32_t *ids = r->ids;
    (void)worker;
    for (int64_t t = 0; t < r->tokens; t++) {
        int32_t row = rows_find(r->index, ids[t]);
        if (row < 0) { continue; }
        peft__real *d = r->drows + row * r->cols;
        const peft__real *dy = r->dy + t * r->cols;
        for (int64_t c = begin; c < end; c++) { d[c] += r->scale * dy[c]; }
    }
}

/* dx may be the memory of dy: what is replaced is cleared there. */
static void rows_back_tokens(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const rows_args *r = arg;
    const int32_t *ids = r->ids;
    (void)worker;
    for (int64_t t = begin; t < end; t++) {
        bool replaced = rows_find(r->index, ids[t]) >= 0;
        peft__real *dx = r->dx + t * r->ld;
        const peft__real *dy = r->dy + t * r->cols;
        if (replaced && !r->add) {
            memset(dx, 0, (size_t)r->cols * sizeof *dx);
        } else if (!replaced && r->add) {
            r->x->run.k->add(dx, dx, dy, r->cols);
        } else if (!replaced && dx != dy) {
            memcpy(dx, dy, (size_t)r->cols * sizeof *dx);
        }
    }
}

static rows_args rows_gather(peft__exec *x, const peft__op *op) {
    rows_args r;
    memset(&r, 0, sizeof r);
    r.x = x;
    r.index = op->aux;
    r.rows = peft__exec_param(x, op->param[0]);
    r.cols = peft__tape_value(x->tape, op->out[0])->cols;
    r.ld = peft__exec_ld(x, op->in[0]);
    r.tokens = peft__exec_rows(x, op->out[0]);
    r.ids = peft__tape_value(x->tape, op->out[0])->space == PEFT__SPACE_SOURCE ? x->frame->source_ids : x->frame->ids;
    r.scale = op->f[0];
    return r;
}

static void rows_forward(peft__exec *x, const peft__op *op) {
    rows_args r = rows_gather(x, op);
    r.in = peft__exec_data(x, op->in[0]);
    r.y = peft__exec_data(x, op->out[0]);
    peft__rows(&x->run, r.tokens, peft__op_grain(r.cols), rows_put, &r);
}

static void rows_backward(peft__exec *x, const peft__op *op) {
    rows_args r = rows_gather(x, op);
    r.dy = peft__exec_grad(x, op->out[0]);
    r.drows = peft__exec_param_grad(x, op->param[0]);
    if (r.drows != NULL) { peft__rows(&x->run, r.cols, 64, rows_back_columns, &r); }
    r.dx = peft__exec_grad_out(x, op->in[0], &r.add);
    if (r.dx != NULL) { peft__rows(&x->run, r.tokens, peft__op_grain(r.cols), rows_back_tokens, &r); }
}

static uint32_t rows_reads(const peft__tape *t, const peft__op *op) {
    (void)t;
    (void)op;
    return 0;
}

static const peft__op_kind rows_kind = {"embed_rows", PEFT__OPF_CHEAP | PEFT__OPF_INPLACE0 | PEFT__OPF_PASS0, rows_reads,
                                        rows_forward, rows_backward, NULL, NULL};

/* Rising ids, by insertion: lists are short, or rise already. */
static rows_index *rows_sort(peft__tape *t, const int32_t *ids, int64_t n) {
    rows_index *r = t->status == PEFT_OK ? peft__arena_alloc(&t->arena, sizeof *r) : NULL;
    if (r == NULL) { return NULL; }
    r->n = n;
    r->id = peft__arena_alloc(&t->arena, (size_t)n * sizeof *r->id);
    r->row = peft__arena_alloc(&t->arena, (size_t)n * sizeof *r->row);
    if (r->id == NULL || r->row == NULL) { return NULL; }
    for (int64_t i = 0; i < n; i++) {
        int64_t at = i;
        for (; at > 0 && r->id[at - 1] > ids[i]; at--) {
            r->id[at] = r->id[at - 1];
            r->row[at] = r->row[at - 1];
        }
        r->id[at] = ids[i];
        r->row[at] = (int32_t)i;
    }
    return r;
}

/* The rows that are replaced already below x, by the same op. */
static bool rows_overlap(const peft__tape *t, peft__val x, const rows_index *r, int32_t *id) {
    for (const peft__op *op = peft__tape_op(t, peft__tape_value(t, x)->producer); op->kind == &rows_kind;
         op = peft__tape_op(t, peft__tape_value(t, op->in[0])->producer)) {
        const rows_index *other = op->aux;
        for (int64_t i = 0; i < r->n; i++) {
            *id = r->id[i];
            if (rows_find(other, *id) >= 0) { return true; }
        }
    }
    return false;
}

peft__val peft__op_embed_rows(peft__tape *t, peft__val x, const int32_t *ids, int64_t n, int32_t param, double scale) {
    int32_t id = 0;
    rows_index *index = rows_sort(t, ids, n);
    if (index == NULL) {
        peft__tape_fail(t, PEFT_E_NOMEM, "%s", peft__fail_text());
        return PEFT__NONE;
    }
    if (rows_overlap(t, x, index, &id)) {
        peft__tape_fail(t, PEFT_E_UNSUPPORTED, "two adapters that act together replace the row of token %d", (int)id);
        return PEFT__NONE;
    }
    peft__op *op = peft__tape_push(t, &rows_kind, 1, &x);
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, x);
    op->aux = index;
    op->param[0] = param;
    op->f[0] = PEFT__R(scale);
    return peft__tape_out(t, op, v.space, v.fixed, v.cols);
}
