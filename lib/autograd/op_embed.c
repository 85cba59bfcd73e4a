/* op_embed.c - rows of a table by token id, and learned positions added to a stream.
 *
 *   embed    y[t] = scale * table[id[t]];        dtable[id[t]] += scale * dy[t], tokens in order
 *   add_pos  y[t] = x[t] + table[position[t] + offset]
 *   add_type y[t] = x[t] + table[type[t]], type 0 where a frame has none
 *
 * An id past the table has a row of 0, which another op replaces (op_rows.c). */
#include "autograd/ops.h"

typedef struct embed_args {
    const peft__exec *x;
    const peft__op *op;
    const peft__real *table, *in, *dy;
    peft__real *y, *dtable;
    const int32_t *index; /* row of the table for each token; NULL: row 0 */
    int64_t cols, ld, tokens, offset, rows;
    peft__real scale;
} embed_args;

static int64_t embed_row(const embed_args *e, int64_t t) { return (e->index != NULL ? e->index[t] : 0) + e->offset; }

static void embed_fetch(const embed_args *e, int64_t t, peft__real *out) {
    int64_t row = embed_row(e, t);
    if (row >= e->rows) {
        memset(out, 0, (size_t)e->cols * sizeof *out);
    } else if (e->table != NULL) {
        memcpy(out, e->table + row * e->cols, (size_t)e->cols * sizeof *out);
    } else {
        peft__weight_row(e->x->run.k, e->op->weight, row, out);
    }
}

static void embed_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const embed_args *e = arg;
    const peft__kernels *k = e->x->run.k;
    peft__real *row = (peft__real *)(void *)(e->x->op_scratch) + (int64_t)worker * e->cols;
    for (int64_t t = begin; t < end; t++) {
        peft__real *y = e->y + t * e->cols;
        if (e->in == NULL) {
            embed_fetch(e, t, y);
            if (e->scale != 1) { k->scale(y, e->scale, y, e->cols); }
        } else {
            embed_fetch(e, t, row);
            k->add(y, e->in + t * e->ld, row, e->cols);
        }
    }
}

static void embed_back_columns(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const embed_args *e = arg;
    (void)worker;
    for (int64_t t = 0; t < e->tokens; t++) {
        if (embed_row(e, t) >= e->rows) { continue; }
        peft__real *d = e->dtable + embed_row(e, t) * e->cols;
        const peft__real *dy = e->dy + t * e->cols;
        for (int64_t c = begin; c < end; c++) { d[c] += e->scale * dy[c]; }
    }
}

static const int32_t *embed_index(const peft__exec *x, const peft__op *op) {
    const peft__frame *f = x->frame;
    int32_t space = peft__tape_value(x->tape, op->out[0])->space;
    bool source = space == PEFT__SPACE_SOURCE || space == PEFT__SPACE_ENCODER;
    if (op->n_in == 0) { return source ? f->source_ids : f->ids; }
    if (op->i[1] != 0) { return f->types; }
    return source ? f->source_positions : f->positions;
}

static embed_args embed_gather(peft__exec *x, const peft__op *op) {
    embed_args e;
    memset(&e, 0, sizeof e);
    e.x = x;
    e.op = op;
    e.table = peft__exec_param(x, op->param[0]);
    e.cols = peft__tape_value(x->tape, op->out[0])->cols;
    e.tokens = peft__exec_rows(x, op->out[0]);
    e.index = embed_index(x, op);
    e.offset = op->i[0];
    e.rows = op->weight != NULL ? op->weight->rows : INT64_MAX;
    e.scale = op->f[0];
    return e;
}

static void embed_forward(peft__exec *x, const peft__op *op) {
    embed_args e = embed_gather(x, op);
    e.y = peft__exec_data(x, op->out[0]);
    if (op->n_in > 0) {
        e.in = peft__exec_data(x, op->in[0]);
        e.ld = peft__exec_ld(x, op->in[0]);
    }
    peft__rows(&x->run, e.tokens, peft__op_grain(e.cols), embed_rows, &e);
}

static void embed_backward(peft__exec *x, const peft__op *op) {
    embed_args e = embed_gather(x, op);
    e.dy = peft__exec_grad(x, op->out[0]);
    e.dtable = peft__exec_param_grad(x, op->param[0]);
    if (e.dtable != NULL) { peft__rows(&x->run, e.cols, 64, embed_back_columns, &e); }
    if (op->n_in > 0) { peft__op_pass_grad(x, op, 0); }
}

static size_t embed_scratch(const peft__tape *t, const peft__op *op, const peft__caps *caps) {
    (void)caps;
    return (size_t)peft__tape_value(t, op->out[0])->cols * sizeof(peft__real) * PEFT__OP_MAX_WORKERS;
}

static const peft__op_kind embed_kind = {"embed", 0, NULL, embed_forward, embed_backward, NULL, NULL};
static const peft__op_kind add_pos_kind = {"add_pos", PEFT__OPF_INPLACE0 | PEFT__OPF_PASS0, NULL, embed_forward,
                                           embed_backward, NULL, embed_scratch};

peft__val peft__op_embed(peft__tape *t, const peft__weight *table, int32_t table_param, peft__real scale) {
    peft__op *op = peft__tape_push(t, &embed_kind, 0, NULL);
    if (op == NULL) { return PEFT__NONE; }
    op->weight = table;
    op->param[0] = table_param;
    op->f[0] = scale;
    return peft__tape_out(t, op, t->encoder ? PEFT__SPACE_SOURCE : PEFT__SPACE_INPUT, 0, table->cols);
}

peft__val peft__op_add_pos(peft__tape *t, peft__val x, const peft__weight *table, int32_t table_param, int64_t offset) {
    peft__op *op = peft__tape_push(t, &add_pos_kind, 1, &x);
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, x);
    op->weight = table;
    op->param[0] = table_param;
    op->f[0] = 1;
    op->i[0] = offset;
    return peft__tape_out(t, op, v.space, v.fixed, v.cols);
}

peft__val peft__op_add_types(peft__tape *t, peft__val x, const peft__weight *table, int32_t table_param) {
    peft__val y = peft__op_add_pos(t, x, table, table_param, 0);
    if (y != PEFT__NONE) { peft__tape_op(t, peft__tape_value(t, y)->producer)->i[1] = 1; }
    return y;
}
