/* op_prompt.c - trained rows in a stream: parameters as values, and virtual tokens before the tokens of each row.
 *
 *   param    y = P, a value of P's rows in SPACE_FIXED;  dP += dy
 *   prepend  row r of the stream is [prompts of its group; x_r] where the frame gives the row virtual tokens, else x_r (a
 *            session that goes on with a row has them in its cache); a prompt of several tasks gives the rows of the row's
 *            task.  d prompt = sum over batch rows, in order */
#include "autograd/ops.h"

static void param_forward(peft__exec *x, const peft__op *op) {
    const peft__param *p = peft__tape_param_at(x->tape, op->param[0]);
    memcpy(peft__exec_data(x, op->out[0]), p->value, (size_t)(p->rows * p->cols) * sizeof(peft__real));
}

static void param_backward(peft__exec *x, const peft__op *op) {
    const peft__param *p = peft__tape_param_at(x->tape, op->param[0]);
    peft__real *g = peft__exec_param_grad(x, op->param[0]);
    if (g != NULL) { x->run.k->add(g, g, peft__exec_grad(x, op->out[0]), p->rows * p->cols); }
}

static const peft__op_kind param_kind = {"param", 0, NULL, param_forward, param_backward, NULL, NULL};

peft__val peft__op_param(peft__tape *t, int32_t param) {
    peft__op *op = peft__tape_push(t, &param_kind, 0, NULL);
    if (op == NULL) { return PEFT__NONE; }
    const peft__param *p = peft__tape_param_at(t, param);
    op->param[0] = param;
    return peft__tape_out(t, op, PEFT__SPACE_FIXED, p->rows, p->cols);
}

/* ---- prepend: in[0] x [INPUT, C], in[1..] prompts [FIXED, C]; aux: their peft__prepend ----------------------------------- */

typedef struct prompt_row { /* where a row of the batch lies in both spaces */
    int64_t from, n, to, virtual_tokens;
    int32_t group, task;
} prompt_row;

static prompt_row prompt_place(const peft__exec *x, const peft__op *op, int64_t r) {
    const peft__frame *f = x->frame;
    const int64_t *in = f->offsets[peft__tape_value(x->tape, op->in[0])->space];
    const int64_t *out = f->offsets[peft__tape_value(x->tape, op->out[0])->space];
    prompt_row p = {in[r], in[r + 1] - in[r], out[r], 0, 0, 0};
    p.virtual_tokens = out[r + 1] - out[r] - p.n;
    p.group = f->row_groups != NULL ? f->row_groups[r] : 0;
    p.task = f->row_tasks != NULL ? f->row_tasks[r] : 0;
    return p;
}

/* First row of prompt j for a batch row; -1: not for it. */
static int64_t prompt_first(const peft__prepend *prompt, const prompt_row *p) {
    if (p->virtual_tokens == 0 || (prompt->groups >> p->group & 1u) == 0) { return -1; }
    return prompt->first + (prompt->tasks > 1 ? p->task : 0) * (prompt->stride > 0 ? prompt->stride : prompt->n);
}

static void prepend_forward(peft__exec *x, const peft__op *op) {
    const peft__prepend *prompts = op->aux;
    const peft__real *in = peft__exec_data(x, op->in[0]);
    peft__real *y = peft__exec_data(x, op->out[0]);
    int64_t c = peft__tape_value(x->tape, op->out[0])->cols;
    for (int64_t r = 0; r < x->frame->n_rows; r++) {
        prompt_row p = prompt_place(x, op, r);
        int64_t to = p.to;
        for (int32_t j = 1; j < op->n_in; j++) {
            int64_t n = prompts[j - 1].n, first = prompt_first(&prompts[j - 1], &p);
            if (first < 0) { continue; }
            memcpy(y + to * c, peft__exec_data(x, op->in[j]) + first * c, (size_t)(n * c) * sizeof *y);
            to += n;
        }
        memcpy(y + to * c, in + p.from * c, (size_t)(p.n * c) * sizeof *y);
    }
}

static void prepend_backward(peft__exec *x, const peft__op *op) {
    const peft__kernels *k = x->run.k;
    const peft__prepend *prompts = op->aux;
    const peft__real *dy = peft__exec_grad(x, op->out[0]);
    int64_t c = peft__tape_value(x->tape, op->out[0])->cols;
    bool add[PEFT__OP_IN] = {false};
    peft__real *grads[PEFT__OP_IN];
    for (int32_t j = 0; j < op->n_in; j++) {
        grads[j] = peft__exec_grad_out(x, op->in[j], &add[j]);
        if (j > 0 && grads[j] != NULL && !add[j]) {
            memset(grads[j], 0, (size_t)(peft__exec_rows(x, op->in[j]) * c) * sizeof *grads[j]);
        }
    }
    for (int64_t r = 0; r < x->frame->n_rows; r++) {
        prompt_row p = prompt_place(x, op, r);
        const peft__real *from = dy + p.to * c;
        for (int32_t j = 1; j < op->n_in; j++) {
            int64_t n = prompts[j - 1].n, first = prompt_first(&prompts[j - 1], &p);
            if (first < 0) { continue; }
            if (grads[j] != NULL) { k->add(grads[j] + first * c, grads[j] + first * c, from, n * c); }
            from += n * c;
        }
        if (grads[0] == NULL) { continue; }
        peft__real *dx = grads[0] + p.from * c;
        if (add[0]) { k->add(dx, dx, from, p.n * c); } else { memcpy(dx, from, (size_t)(p.n * c) * sizeof *dx); }
    }
}

static const peft__op_kind prepend_kind = {"prepend", 0, NULL, prepend_forward, prepend_backward, NULL, NULL};

peft__val peft__op_prepend(peft__tape *t, peft__val x, const peft__prepend *prompts, size_t n) {
    peft__val in[PEFT__OP_IN] = {x};
    if (n + 1 > PEFT__OP_IN) { peft__tape_fail(t, PEFT_E_UNSUPPORTED, "more than %d prompts act at once", PEFT__OP_IN - 1); }
    peft__prepend *own = t->status == PEFT_OK ? peft__arena_alloc(&t->arena, n * sizeof *own) : NULL;
    if (own == NULL) {
        peft__tape_fail(t, PEFT_E_NOMEM, "%s", peft__fail_text());
        return PEFT__NONE;
    }
    memcpy(own, prompts, n * sizeof *own);
    bool source = peft__tape_value(t, x)->space == PEFT__SPACE_SOURCE;
    int64_t *tokens = source ? t->group_source : t->group_tokens, *most = source ? &t->source_virtual : &t->virtual_tokens;
    for (size_t j = 0; j < n; j++) {
        in[j + 1] = own[j].rows;
        for (int32_t g = 0; g < PEFT__GROUPS; g++) {
            if ((own[j].groups >> g & 1u) != 0) { tokens[g] += own[j].n; }
        }
    }
    for (int32_t g = 0; g < PEFT__GROUPS; g++) { *most = PEFT__MAX(*most, tokens[g]); }
    peft__op *op = peft__tape_push(t, &prepend_kind, (int32_t)n + 1, in);
    if (op == NULL) { return PEFT__NONE; }
    op->aux = own;
    return peft__tape_out(t, op, source ? PEFT__SPACE_ENCODER : PEFT__SPACE_TOKENS, 0, peft__tape_value(t, x)->cols);
}

/* ---- stacked rows: in[0] [P, C], in[1] [Q, C] -> [P + Q, C], all of SPACE_FIXED ------------------------------------------ */

static void stacked_copy(peft__exec *x, const peft__op *op, bool back) {
    int64_t c = peft__tape_value(x->tape, op->out[0])->cols, at = 0;
    for (int32_t j = 0; j < 2; j++) {
        int64_t n = peft__exec_rows(x, op->in[j]), ld = peft__exec_ld(x, op->in[j]);
        bool add = false;
        peft__real *to = back ? peft__exec_grad_out(x, op->in[j], &add) : NULL;
        for (int64_t r = 0; r < n; r++) {
            if (!back) {
                memcpy(peft__exec_data(x, op->out[0]) + (at + r) * c, peft__exec_data(x, op->in[j]) + r * ld, (size_t)c * sizeof *to);
            } else if (to != NULL && add) {
                x->run.k->add(to + r * ld, to + r * ld, peft__exec_grad(x, op->out[0]) + (at + r) * c, c);
            } else if (to != NULL) {
                memcpy(to + r * ld, peft__exec_grad(x, op->out[0]) + (at + r) * c, (size_t)c * sizeof *to);
            }
        }
        at += n;
    }
}

static void stacked_forward(peft__exec *x, const peft__op *op) { stacked_copy(x, op, false); }
static void stacked_backward(peft__exec *x, const peft__op *op) { stacked_copy(x, op, true); }

static const peft__op_kind stacked_kind = {"stack_rows", 0, NULL, stacked_forward, stacked_backward, NULL, NULL};

peft__val peft__op_stack_rows(peft__tape *t, peft__val a, peft__val b) {
    peft__val in[2] = {a, b};
    peft__op *op = peft__tape_push(t, &stacked_kind, 2, in);
    if (op == NULL) { return PEFT__NONE; }
    int64_t rows = peft__tape_value(t, a)->fixed + peft__tape_value(t, b)->fixed;
    return peft__tape_out(t, op, PEFT__SPACE_FIXED, rows, peft__tape_value(t, a)->cols);
}
