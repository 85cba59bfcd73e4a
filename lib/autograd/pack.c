/* pack.c - values that wait for the backward pass as bfloat16: the trainer's option "activation_dtype".
 *
 *   forward    ... the last op that uses v, PACK v, ...            v's own memory is free from here on
 *   backward   ... UNPACK v, the first op that reads v, ...        into a place of its own, as if v had been rebuilt
 *
 * Packing rounds to the nearest bfloat16, ties to even: the upper half of the float, 8 bits of precision. The forward pass sees the
 * numbers before, the backward pass those after, in float again; so ops know nothing of it. Packed is what has a row for each token,
 * is on the way of a gradient, and belongs to a layer before the last: the last one's values are wanted at once. An op's further
 * outputs are its statistics (attention's log-sum-exp, a norm's scale), small and to be had exactly: they stay as they are.
 *
 * Left out: values without a gradient (tables of angles, what lies below the lowest trained parameter). */
#include "autograd/plan.h"

#ifndef PEFT_MINIMAL

enum { PACK_PIECE = 16 /* floats: a loop of known length becomes vectors */, PACK_GRAIN = 4096 };

size_t peft__pack_bytes(const peft__tape *t, const peft__caps *caps, peft__val v) {
    return (peft__plan_value_bytes(t, caps, v) / sizeof(peft__real) * sizeof(uint16_t) + 63) & ~(size_t)63;
}

/* An op whose outputs are rebuilt together writes all of them: none is packed then. */
static bool pack_may(const peft__tape *t, const peft__plan *p, const peft__aliases *al, peft__val v) {
    const peft__value *x = peft__tape_value(t, v);
    const peft__op *op = peft__tape_op(t, x->producer);
    if (al->data[v] != v || op->out[0] != v || !x->needs_grad || op->segment >= p->segments - 2) { return false; }
    if (x->space == PEFT__SPACE_FIXED || x->space == PEFT__SPACE_ROWS) { return false; }
    for (int32_t j = 0; j < op->n_out; j++) {
        if (p->dropped[op->out[j]]) { return false; }
    }
    return true;
}

void peft__pack_choose(const peft__tape *t, peft__plan *p, const peft__aliases *al) {
    if (p->packed == NULL) { return; }
    for (int64_t v = 0; v < p->n_values; v++) {
        bool packed = p->training && pack_may(t, p, al, (peft__val)v);
        p->packed[v] = packed ? peft__tape_value(t, (peft__val)v)->producer : -1;
    }
    for (size_t i = 0; i < t->ops.len; i++) { /* all that share the memory */
        const peft__op *op = peft__tape_op(t, (int32_t)i);
        for (int32_t j = 0; j < op->n_in + op->n_out; j++) {
            peft__val v = j < op->n_in ? op->in[j] : op->out[j - op->n_in];
            if (v != PEFT__NONE && peft__plan_packs(p, al->data[v])) { p->packed[al->data[v]] = (int32_t)i; }
        }
    }
    for (int64_t v = 0; v < p->n_values; v++) {
        if (peft__plan_packs(p, al->data[v])) { p->dropped[v] = true; }
    }
}

/* ---- the steps -------------------------------------------------------------------------------------------------------------- */

typedef struct pack_job {
    peft__real *reals;
    uint16_t *halves;
    const peft__kernels *k;
} pack_job;

static void pack_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const pack_job *job = (const pack_job *)arg;
    int64_t i = begin;
    (void)worker;
    for (; i + PACK_PIECE <= end; i += PACK_PIECE) {
        for (int64_t j = 0; j < PACK_PIECE; j++) { job->halves[i + j] = peft__f32_to_bf16((float)job->reals[i + j]); }
    }
    for (; i < end; i++) { job->halves[i] = peft__f32_to_bf16((float)job->reals[i]); }
}

static void pack_back_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const pack_job *job = (const pack_job *)arg;
    (void)worker;
    job->k->dequant(PEFT_DTYPE_BF16, job->halves + begin, end - begin, job->reals + begin);
}

void peft__pack_step(peft__exec *x, const peft__plan_step *s) {
    bool back = s->phase == PEFT__PHASE_UNPACK;
    peft__val v = peft__tape_op(x->tape, s->op)->out[0];
    if (back) { x->backward_place[v] = true; }
    pack_job job = {peft__exec_data(x, v), (uint16_t *)(void *)(x->block + x->plan->packed_place[v]), x->run.k};
    int64_t n = peft__exec_rows(x, v) * peft__tape_value(x->tape, v)->cols;
    peft__rows(&x->run, n, PACK_GRAIN, back ? pack_back_rows : pack_rows, &job);
}

#endif
