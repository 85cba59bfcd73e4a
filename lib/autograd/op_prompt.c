/* op_prompt.c - trained rows in a stream: parameters as values, and virtual tokens before the tokens of each row.
 *
 *   param    y = P, a value of P's rows in SPACE_FIXED;  dP += dy
 *   prepend  row r of the stream is [prompt; x_r] where the frame gives the row virtual tokens, else x_r (a session that goes
 *            on with a row has them in its cache);  d prompt = sum over rows, in order */
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

/* ---- prepend: in[0] x [INPUT, C], in[1] prompt [FIXED, C] ------------------------------------------------------------ */

typedef struct prompt_row { /* where a row of the batch lies in both spaces */
    int64_t from, n, to, virtual_tokens;
} prompt_row;

static prompt_row prompt_place(const peft__exec *x, int64_t r) {
    const int64_t *in = x->frame->offsets[PEFT__SPACE_INPUT], *out = x->frame->offsets[PEFT__SPACE_TOKENS];
    prompt_row p = {in[r], in[r + 1] - in[r], out[r], 0};
    p.virtual_tokens = out[r + 1] - out[r] - p.n;
    return p;
}

static void prepend_forward(peft__exec *x, const peft__op *op) {
    const peft__real *in = peft__exec_data(x, op->in[0]), *prompt = peft__exec_data(x, op->in[1]);
    peft__real *y = peft__exec_data(x, op->out[0]);
    int64_t c = peft__tape_value(x->tape, op->out[0])->cols;
    for (int64_t r = 0; r < x->frame->n_rows; r++) {
        prompt_row p = prompt_place(x, r);
        memcpy(y + p.to * c, prompt, (size_t)(p.virtual_tokens * c) * sizeof *y);
        memcpy(y + (p.to + p.virtual_tokens) * c, in + p.from * c, (size_t)(p.n * c) * sizeof *y);
    }
}

static void prepend_backward(peft__exec *x, const peft__op *op) {
    const peft__kernels *k = x->run.k;
    const peft__real *dy = peft__exec_grad(x, op->out[0]);
    int64_t c = peft__tape_value(x->tape, op->out[0])->cols;
    bool add = false, add_prompt = false;
    peft__real *dx = peft__exec_grad_out(x, op, op->in[0], &add);
    peft__real *dp = peft__exec_grad_out(x, op, op->in[1], &add_prompt);
    if (dp != NULL && !add_prompt) { memset(dp, 0, (size_t)(peft__exec_rows(x, op->in[1]) * c) * sizeof *dp); }
    for (int64_t r = 0; r < x->frame->n_rows; r++) {
        prompt_row p = prompt_place(x, r);
        const peft__real *own = dy + (p.to + p.virtual_tokens) * c;
        if (dp != NULL) { k->add(dp, dp, dy + p.to * c, p.virtual_tokens * c); }
        if (dx != NULL && add) { k->add(dx + p.from * c, dx + p.from * c, own, p.n * c); }
        if (dx != NULL && !add) { memcpy(dx + p.from * c, own, (size_t)(p.n * c) * sizeof *dx); }
    }
}

static const peft__op_kind prepend_kind = {"prepend", 0, NULL, prepend_forward, prepend_backward, NULL, NULL};

peft__val peft__op_prepend(peft__tape *t, peft__val x, peft__val prompt) {
    peft__val in[2] = {x, prompt};
    peft__op *op = peft__tape_push(t, &prepend_kind, 2, in);
    if (op == NULL) { return PEFT__NONE; }
    t->virtual_tokens += peft__tape_value(t, prompt)->fixed;
    return peft__tape_out(t, op, PEFT__SPACE_TOKENS, 0, peft__tape_value(t, x)->cols);
}
