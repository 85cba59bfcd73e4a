/* profile.c - what a step of a plan costs: its time, its FLOPs and the bytes that it must move, for a roofline.
 *
 *   attainable FLOP/s = min(peak, FLOPs / bytes x bandwidth)     (Williams, Waterman and Patterson, "Roofline: an insightful visual
 *                                                                performance model for multicore architectures", 2009)
 *
 * FLOPs are those of op_kind.flops, for the rows that the batch had; attention's with the mean number of keys of its tokens' rows.
 * Bytes are counted as if nothing stayed in a cache from one op to the next and nothing was moved twice inside of one:
 *
 *   forward, rebuild   values read, values written, the frozen matrix as it is stored, parameters
 *   backward           gradients of the outputs, gradients of the inputs, values that it reads, the matrix, parameters, and the
 *                      gradients of those that are trained, read and written
 *   pack, unpack       its first output, once as reals and once as bfloat16
 *
 * An op without products reads as many rows of its table as it has rows, not all of it.
 *
 * Left out: scratch, a cache of keys and values, bytes of biases and gains. */
#include "autograd/profile.h"

#ifndef PEFT_MINIMAL

const char *peft__profile_phase(int32_t phase) {
    static const char *const names[] = {"forward", "rebuild", "backward", "pack", "unpack"};
    return names[phase];
}

/* Rows of v that the op works on. */
static double profile_rows(const peft__exec *x, const peft__op *op, peft__val v) {
    int64_t n = 0;
    if (op->kind->flops == NULL) { return (double)peft__exec_rows(x, v); }
    for (int64_t row = 0, begin, end; peft__exec_next(x, op, v, &row, &begin, &end);) { n += end - begin; }
    return (double)n;
}

static double profile_value(const peft__exec *x, const peft__op *op, peft__val v) {
    if (v == PEFT__NONE) { return 0; }
    return profile_rows(x, op, v) * (double)peft__tape_value(x->tape, v)->cols * (double)sizeof(peft__real);
}

/* Rows of outputs; of a head only those that have a label, or that logits are wanted of. */
static double profile_out_rows(const peft__exec *x, const peft__op *op) {
    const peft__frame *f = x->frame;
    if ((op->kind->flags & PEFT__OPF_LOSS) != 0) { return (double)(f->logits != NULL ? f->n_logits : f->labelled); }
    return op->n_out > 0 ? profile_rows(x, op, op->out[0]) : 0;
}

static double profile_flops(const peft__exec *x, const peft__op *op, bool backward) {
    const int64_t *offsets = x->frame->offsets[PEFT__SPACE_TOKENS];
    peft__caps caps = x->plan->caps;
    double tokens = 0, pairs = 0;
    if (op->kind->flops == NULL) { return 0; }
    for (int64_t r = 0; r < x->frame->n_rows; r++) {
        double n = (double)(offsets[r + 1] - offsets[r]);
        tokens += n;
        pairs += n * n;
    }
    if (tokens > 0) { caps.max_length = (int64_t)(pairs / tokens + 0.5); }
    return profile_out_rows(x, op) * op->kind->flops(x->tape, op, &caps, backward);
}

/* The frozen matrix, and parameters: values, and with `trained` the gradients of those that have any. */
static double profile_weights(const peft__exec *x, const peft__op *op, bool trained) {
    double bytes = 0;
    const peft__weight *w = op->weight;
    if (w != NULL) {
        int64_t rows = w->rows;
        if (op->kind->flops == NULL && op->n_out > 0) { rows = PEFT__MIN(rows, peft__exec_rows(x, op->out[0])); }
        bytes += (double)rows * (double)peft__dtype_bytes(w->dtype, w->cols);
    }
    for (int32_t i = 0; i < PEFT__OP_PARAMS; i++) {
        if (op->param[i] == PEFT__NONE) { continue; }
        const peft__param *p = peft__tape_param_at(x->tape, op->param[i]);
        double own = (double)(p->rows * p->cols) * (double)sizeof(peft__real);
        bytes += trained && !p->frozen && p->grad != NULL ? 3 * own : own;
    }
    return bytes;
}

static double profile_bytes(const peft__exec *x, const peft__op *op, int32_t phase) {
    if (phase >= PEFT__PHASE_PACK) {
        peft__val v = op->out[0];
        return (double)(peft__exec_rows(x, v) * peft__tape_value(x->tape, v)->cols) * (double)(sizeof(peft__real) + sizeof(uint16_t));
    }
    bool backward = phase == PEFT__PHASE_BACKWARD;
    double bytes = profile_weights(x, op, backward);
    uint32_t reads = backward && op->kind->reads != NULL ? op->kind->reads(x->tape, op) : 0;
    for (int32_t i = 0; i < op->n_in; i++) {
        if (op->in[i] == PEFT__NONE) { continue; }
        bool read = !backward || (reads >> i & 1u) != 0, graded = backward && peft__tape_value(x->tape, op->in[i])->needs_grad;
        bytes += profile_value(x, op, op->in[i]) * ((read ? 1 : 0) + (graded ? 1 : 0));
    }
    for (int32_t i = 0; i < op->n_out; i++) {
        bool read = backward && (reads >> (PEFT__READS_OUT + i) & 1u) != 0;
        bytes += profile_value(x, op, op->out[i]) * (read ? 2 : 1);
    }
    return bytes;
}

void peft__profile_add(peft__profile *p, const peft__exec *x, const peft__plan_step *s, double seconds) {
    const peft__op *op = peft__tape_op(x->tape, s->op);
    int32_t i = 0;
    p->seconds += seconds;
    while (i < p->n && (p->line[i].kind != op->kind || p->line[i].phase != s->phase)) { i++; }
    if (i == PEFT__PROFILE_LINES) { return; }
    peft__profile_line *line = &p->line[i];
    if (i == p->n) {
        *line = (peft__profile_line){.kind = op->kind, .phase = s->phase};
        p->n++;
    }
    line->calls++;
    line->seconds += seconds;
    line->flops += s->phase >= PEFT__PHASE_PACK ? 0 : profile_flops(x, op, s->phase == PEFT__PHASE_BACKWARD);
    line->bytes += profile_bytes(x, op, s->phase);
}

#endif
