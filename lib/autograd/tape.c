/* tape.c - recording: values, operations and parameters, and which of them need a gradient.
 *
 * needs_grad flows forward from the trainable parameters, so that frozen weights never get a dW and nothing below the lowest
 * trainable parameter is differentiated. A missing backward is an error here, never at run time. */
#include <stdio.h>

#include "autograd/autograd.h"

void peft__tape_init(peft__tape *t, peft__mem *mem, bool training) {
    memset(t, 0, sizeof *t);
    t->mem = mem;
    t->training = training;
    t->group = t->branch = -1;
    t->segments = 1;
    peft__arena_init(&t->arena, mem);
    peft__vec_init(&t->values, mem, sizeof(peft__value));
    peft__vec_init(&t->ops, mem, sizeof(peft__op));
    peft__vec_init(&t->params, mem, sizeof(peft__param));
}

void peft__tape_free(peft__tape *t) {
    if (t->mem == NULL) { return; }
    peft__vec_free(&t->values);
    peft__vec_free(&t->ops);
    peft__vec_free(&t->params);
    peft__arena_free(&t->arena);
    t->mem = NULL;
}

void peft__tape_fail(peft__tape *t, peft_status code, const char *fmt, ...) {
    if (t->status != PEFT_OK) { return; }
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(t->error, sizeof t->error, fmt, ap);
    va_end(ap);
    (void)n;
    t->status = code;
}

/* Takes over an error that a callee already wrote to the thread's text. */
static void tape_sticky(peft__tape *t, peft_status st) {
    if (st != PEFT_OK && t->status == PEFT_OK) { peft__tape_fail(t, st, "%s", peft__fail_text()); }
}

peft__value *peft__tape_value(const peft__tape *t, peft__val v) { return &PEFT__VEC_AT(&t->values, peft__value, v); }
peft__op *peft__tape_op(const peft__tape *t, int32_t i) { return &PEFT__VEC_AT(&t->ops, peft__op, i); }
peft__param *peft__tape_param_at(const peft__tape *t, int32_t i) { return &PEFT__VEC_AT(&t->params, peft__param, i); }

int32_t peft__tape_param(peft__tape *t, const peft__param *p) {
    if (t->status != PEFT_OK) { return PEFT__NONE; }
    peft__param own = *p;
    own.frozen = own.frozen || t->freeze; /* another job may train what is frozen here */
    for (size_t i = 0; i < t->params.len; i++) {
        const peft__param *q = peft__tape_param_at(t, (int32_t)i);
        if (q->value == p->value && q->frozen == own.frozen) { return (int32_t)i; }
    }
    tape_sticky(t, peft__vec_push(&t->params, &own));
    return t->status == PEFT_OK ? (int32_t)t->params.len - 1 : PEFT__NONE;
}

peft__op *peft__tape_push(peft__tape *t, const peft__op_kind *kind, int32_t n_in, const peft__val *in) {
    if (t->status != PEFT_OK) { return NULL; }
    peft__op op;
    memset(&op, 0, sizeof op);
    op.kind = kind;
    op.segment = t->segment;
    op.group = t->group;
    for (int32_t i = 0; i < PEFT__OP_PARAMS; i++) { op.param[i] = PEFT__NONE; }
    for (int32_t i = 0; i < PEFT__OP_OUT; i++) { op.out[i] = PEFT__NONE; }
    for (int32_t i = 0; i < PEFT__OP_IN; i++) { op.in[i] = PEFT__NONE; }
    op.n_in = n_in;
    for (int32_t i = 0; i < n_in; i++) { op.in[i] = in[i]; }
    tape_sticky(t, peft__vec_push(&t->ops, &op));
    return t->status == PEFT_OK ? peft__tape_op(t, (int32_t)t->ops.len - 1) : NULL;
}

peft__val peft__tape_out(peft__tape *t, peft__op *op, int32_t space, int64_t fixed, int64_t cols) {
    if (op == NULL || t->status != PEFT_OK) { return PEFT__NONE; }
    peft__value v;
    memset(&v, 0, sizeof v);
    v.space = space;
    v.fixed = fixed;
    v.cols = cols;
    v.parent = PEFT__NONE;
    v.producer = (int32_t)t->ops.len - 1;
    tape_sticky(t, peft__vec_push(&t->values, &v));
    if (t->status != PEFT_OK) { return PEFT__NONE; }
    peft__val id = (peft__val)t->values.len - 1;
    op->out[op->n_out++] = id;
    return id;
}

peft__val peft__tape_view(peft__tape *t, peft__val v, int64_t col, int64_t cols) {
    if (t->status != PEFT_OK) { return PEFT__NONE; }
    peft__value view = *peft__tape_value(t, v);
    peft__tape_value(t, v)->viewed = true;
    view.parent = v;
    view.viewed = false;
    view.col = col;
    view.cols = cols;
    tape_sticky(t, peft__vec_push(&t->values, &view));
    return t->status == PEFT_OK ? (peft__val)t->values.len - 1 : PEFT__NONE;
}

static bool tape_trainable(const peft__tape *t, int32_t param) {
    return t->training && param != PEFT__NONE && !peft__tape_param_at(t, param)->frozen;
}

static bool tape_needs(const peft__tape *t, peft__val v) {
    const peft__value *x = peft__tape_value(t, v);
    return x->parent == PEFT__NONE ? x->needs_grad : peft__tape_value(t, x->parent)->needs_grad;
}

/* How many ops read v (views and their consumers count apart). */
static int32_t tape_consumers(const peft__tape *t, peft__val v) {
    int32_t n = 0;
    for (size_t i = 0; i < t->ops.len; i++) {
        const peft__op *op = peft__tape_op(t, (int32_t)i);
        for (int32_t j = 0; j < op->n_in; j++) { n += op->in[j] == v; }
    }
    return n;
}

peft_status peft__tape_finish(peft__tape *t) {
    peft_status st = t->status;
    if (st != PEFT_OK) { return peft__fail(st, "%s", t->error); }
    for (size_t i = 0; i < t->ops.len; i++) {
        peft__op *op = peft__tape_op(t, (int32_t)i);
        op->needs_grad = false;
        for (int32_t j = 0; j < op->n_in; j++) {
            if (op->in[j] != PEFT__NONE) { op->needs_grad = op->needs_grad || tape_needs(t, op->in[j]); }
        }
        for (int32_t j = 0; j < PEFT__OP_PARAMS; j++) { op->needs_grad = op->needs_grad || tape_trainable(t, op->param[j]); }
        for (int32_t j = 0; j < op->n_out; j++) { peft__tape_value(t, op->out[j])->needs_grad = op->needs_grad; }
        if (op->needs_grad && op->kind->backward == NULL) {
            FAIL(PEFT_E_UNSUPPORTED, "operation \"%s\" has no gradient, and something below it is trained", op->kind->name);
        }
        if (op->needs_grad && (op->kind->flags & PEFT__OPF_SOLE) != 0) {
            for (int32_t j = 0; j < op->n_in; j++) {
                if (op->in[j] != PEFT__NONE && tape_consumers(t, op->in[j]) != 1) {
                    FAIL(PEFT_E_INTERNAL, "operation \"%s\" shares input %d with another", op->kind->name, (int)j);
                }
            }
        }
    }
    for (size_t v = 0; v < t->values.len; v++) {
        peft__value *x = peft__tape_value(t, (peft__val)v);
        if (x->parent != PEFT__NONE) { x->needs_grad = tape_needs(t, (peft__val)v); }
        if (x->viewed && tape_consumers(t, (peft__val)v) != 0) {
            FAIL(PEFT_E_INTERNAL, "value %d is used both whole and by columns", (int)v);
        }
    }
out:
    return st;
}
