/* op_blend.c - a value that is another's in some places: branches of expressions, factors, AdapterDrop.
 *
 *   blend  out = y + w (z - base) where the choice says so, y elsewhere; without a base z replaces y (w = 1), or base is y.
 *          d y = dy (where z replaces it: 0; with base y: (1 - w) dy), d z = w dy and d base = -w dy where chosen, 0 elsewhere
 *
 * Places: rows of some groups of the batch (frame.row_groups), a range of each row's own tokens, layers that the step does not
 * leave out. Outside of them y passes bit for bit. Places count from a row's first own token, virtual ones are before 0; a
 * session that goes on with a row counts on from the position that the frame says. */
#include "autograd/ops.h"

enum { BLEND_REPLACE = 0, BLEND_TOWARDS = 1, BLEND_ADD = 2 }; /* z; y + w (z - y); y + w (z - base) */

typedef struct blend_args {
    const peft__exec *x;
    const peft__op *op;
    const peft__choice *choice;
    const peft__real *y, *z, *base, *d;
    peft__real *out, *grad[3];
    bool add[3];
    peft__real w;
    int64_t cols;
    int32_t how;
} blend_args;

static bool blend_row(const peft__frame *f, const peft__choice *c, int64_t row) {
    int32_t group = f->row_groups != NULL ? f->row_groups[row] : 0;
    return (c->groups >> group & 1u) != 0 && (c->layer < 0 || c->layer >= f->skip_layers[group]);
}

/* The chosen stretch [begin, end) of a batch row, in rows of the value. */
static void blend_range(const blend_args *b, int64_t row, int64_t *begin, int64_t *end) {
    const peft__frame *f = b->x->frame;
    const peft__value *v = peft__tape_value(b->x->tape, b->op->out[0]);
    if (v->space == PEFT__SPACE_ROWS) { /* pooled: a row is one */
        *begin = row;
        *end = row + (blend_row(f, b->choice, row) ? 1 : 0);
        return;
    }
    bool source = v->space == PEFT__SPACE_ENCODER || v->space == PEFT__SPACE_SOURCE;
    const int64_t *offsets = f->offsets[v->space], *own = f->offsets[source ? PEFT__SPACE_SOURCE : PEFT__SPACE_INPUT];
    int64_t first = offsets[row], last = offsets[row + 1], n = own[row + 1] - own[row];
    *begin = first;
    *end = blend_row(f, b->choice, row) ? last : first;
    if (b->choice->begin == 0 && b->choice->end < 0) { return; }
    int64_t zero = last - n; /* the row's first own token */
    if (f->cache != NULL && !source) { /* a position counts what stands before the row's own tokens too */
        int32_t group = f->row_groups != NULL ? f->row_groups[row] : 0;
        zero -= f->positions[last - n] - b->x->tape->group_tokens[group] - b->x->tape->group_shift[group];
    }
    if (b->choice->begin > 0) { *begin = PEFT__MIN(PEFT__MAX(first, zero + b->choice->begin), *end); }
    if (b->choice->end >= 0) { *end = PEFT__MAX(PEFT__MIN(*end, zero + b->choice->end), *begin); }
}

static void blend_put(const blend_args *b, int64_t r, bool chosen) {
    const peft__kernels *k = b->x->run.k;
    peft__real *out = b->out + r * b->cols;
    const peft__real *y = b->y + r * b->cols, *z = b->z + r * b->cols;
    if (chosen && b->how == BLEND_REPLACE) {
        memcpy(out, z, (size_t)b->cols * sizeof *out);
        return;
    }
    if (out != y) { memcpy(out, y, (size_t)b->cols * sizeof *out); }
    if (!chosen) { return; }
    const peft__real *base = b->how == BLEND_ADD ? b->base + r * b->cols : y;
    if (b->how == BLEND_TOWARDS) {
        for (int64_t c = 0; c < b->cols; c++) { out[c] = y[c] + b->w * (z[c] - y[c]); }
    } else {
        k->axpy(out, b->w, z, b->cols);
        k->axpy(out, -b->w, base, b->cols);
    }
}

/* g (+)= f d over a row */
static void blend_give(const blend_args *b, int32_t j, int64_t r, peft__real f) {
    const peft__kernels *k = b->x->run.k;
    if (b->grad[j] == NULL) { return; }
    peft__real *g = b->grad[j] + r * b->cols;
    const peft__real *d = b->d + r * b->cols;
    if (b->add[j]) {
        if (f != 0) { k->axpy(g, f, d, b->cols); }
    } else if (f == 0) {
        memset(g, 0, (size_t)b->cols * sizeof *g);
    } else {
        k->scale(g, f, d, b->cols);
    }
}

static void blend_back(const blend_args *b, int64_t r, bool chosen) {
    peft__real w = chosen ? b->w : 0;
    peft__real own = !chosen || b->how == BLEND_ADD ? 1 : b->how == BLEND_REPLACE ? 0 : 1 - b->w;
    blend_give(b, 1, r, b->how == BLEND_REPLACE && chosen ? 1 : w);
    if (b->how == BLEND_ADD) { blend_give(b, 2, r, -w); }
    blend_give(b, 0, r, own);
}

static void blend_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const blend_args *b = arg;
    int32_t space = peft__tape_value(b->x->tape, b->op->out[0])->space;
    const int64_t *offsets = space != PEFT__SPACE_ROWS ? b->x->frame->offsets[space] : NULL; /* pooled: a row is one */
    (void)worker;
    for (int64_t row = begin; row < end; row++) {
        int64_t from, to, first = offsets != NULL ? offsets[row] : row, last = offsets != NULL ? offsets[row + 1] : row + 1;
        blend_range(b, row, &from, &to);
        for (int64_t r = first; r < last; r++) {
            bool chosen = r >= from && r < to;
            if (b->d != NULL) { blend_back(b, r, chosen); } else { blend_put(b, r, chosen); }
        }
    }
}

static blend_args blend_gather(peft__exec *x, const peft__op *op) {
    blend_args b;
    memset(&b, 0, sizeof b);
    b.x = x;
    b.op = op;
    b.choice = op->aux;
    b.how = (int32_t)op->i[0];
    b.w = op->f[0];
    b.cols = peft__tape_value(x->tape, op->out[0])->cols;
    return b;
}

static void blend_forward(peft__exec *x, const peft__op *op) {
    blend_args b = blend_gather(x, op);
    b.y = peft__exec_data(x, op->in[0]);
    b.z = peft__exec_data(x, op->in[1]);
    if (b.how == BLEND_ADD) { b.base = peft__exec_data(x, op->in[2]); }
    b.out = peft__exec_data(x, op->out[0]);
    peft__rows(&x->run, x->frame->n_rows, 1, blend_rows, &b);
}

static void blend_backward(peft__exec *x, const peft__op *op) {
    blend_args b = blend_gather(x, op);
    b.d = peft__exec_grad(x, op->out[0]);
    for (int32_t j = 0; j < op->n_in; j++) { b.grad[j] = peft__exec_grad_out(x, op->in[j], &b.add[j]); }
    peft__rows(&x->run, x->frame->n_rows, 1, blend_rows, &b);
}

static const peft__op_kind blend_kind = {"blend", PEFT__OPF_CHEAP, NULL, blend_forward, blend_backward, NULL, NULL};

peft__val peft__op_blend(peft__tape *t, peft__val y, peft__val z, peft__val base, double w, const peft__choice *choice) {
    bool own = base == PEFT__NONE || base == y;
    peft__val in[3] = {y, z, base};
    peft__choice *c = t->status == PEFT_OK ? peft__arena_alloc(&t->arena, sizeof *c) : NULL;
    if (c == NULL) {
        peft__tape_fail(t, PEFT_E_NOMEM, "%s", peft__fail_text());
        return PEFT__NONE;
    }
    *c = *choice;
    peft__op *op = peft__tape_push(t, &blend_kind, own ? 2 : 3, in);
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, y);
    op->aux = c;
    op->f[0] = PEFT__R(w);
    op->i[0] = !own ? BLEND_ADD : w == 1 ? BLEND_REPLACE : BLEND_TOWARDS;
    return peft__tape_out(t, op, v.space, v.fixed, v.cols);
}
