/* op_couple.c - the affine half of a coupling block (RealNVP, Dinh et al. 2017, arXiv 1605.08803; one network for scale and
 * shift as in GLOW, Kingma and Dhariwal 2018, 1807.03039), with the scale's exponent clamped softly to +-5:
 *
 *   r = [s | t],  e(s) = exp(c k atan(s / c)),  c = 5, k = 0.636 (about 2 / pi)
 *   forward  y = e(s) x + t        dx = e dy       dt = dy        ds = e x l' dy
 *   inverse  y = (x - t) / e(s)    dx = dy / e     dt = -dy / e   ds = -y l' dy       with l' = k / (1 + (s / c)^2) */
#include <math.h>

#include "autograd/ops.h"

#define COUPLE_CLAMP PEFT__R(5.0)
#define COUPLE_SLOPE PEFT__R(0.636)

typedef struct couple_args {
    const peft__real *x, *r, *dy;
    peft__real *y, *dx, *dr;
    int64_t cols, ldx, ldr;
    bool inverse, add_x, add_r;
} couple_args;

static peft__real couple_exp(peft__real s) {
    return PEFT__R(exp((double)(COUPLE_CLAMP * COUPLE_SLOPE) * atan((double)(s / COUPLE_CLAMP))));
}

static void couple_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const couple_args *c = arg;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        const peft__real *x = c->x + i * c->ldx, *s = c->r + i * c->ldr, *t = s + c->cols;
        for (int64_t j = 0; j < c->cols; j++) {
            peft__real e = couple_exp(s[j]);
            c->y[i * c->cols + j] = c->inverse ? (x[j] - t[j]) / e : e * x[j] + t[j];
        }
    }
}

static void couple_put(peft__real *at, peft__real v, bool add) { *at = add ? *at + v : v; }

static void couple_back_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const couple_args *c = arg;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        const peft__real *x = c->x + i * c->ldx, *s = c->r + i * c->ldr, *t = s + c->cols, *dy = c->dy + i * c->cols;
        for (int64_t j = 0; j < c->cols; j++) {
            peft__real e = couple_exp(s[j]), u = s[j] / COUPLE_CLAMP;
            peft__real dx = c->inverse ? dy[j] / e : e * dy[j];
            peft__real dt = c->inverse ? -dx : dy[j];
            peft__real ds = (c->inverse ? -(x[j] - t[j]) : x[j]) * dx * COUPLE_SLOPE / (1 + u * u);
            if (c->dx != NULL) { couple_put(c->dx + i * c->ldx + j, dx, c->add_x); }
            if (c->dr == NULL) { continue; }
            couple_put(c->dr + i * c->ldr + j, ds, c->add_r);
            couple_put(c->dr + i * c->ldr + c->cols + j, dt, c->add_r);
        }
    }
}

static couple_args couple_gather(peft__exec *x, const peft__op *op) {
    couple_args c;
    memset(&c, 0, sizeof c);
    c.x = peft__exec_data(x, op->in[0]);
    c.r = peft__exec_data(x, op->in[1]);
    c.cols = peft__tape_value(x->tape, op->out[0])->cols;
    c.ldx = peft__exec_ld(x, op->in[0]);
    c.ldr = peft__exec_ld(x, op->in[1]);
    c.inverse = op->i[0] != 0;
    return c;
}

static void couple_forward(peft__exec *x, const peft__op *op) {
    couple_args c = couple_gather(x, op);
    c.y = peft__exec_data(x, op->out[0]);
    peft__rows(&x->run, peft__exec_rows(x, op->out[0]), PEFT__MAX(peft__op_grain(c.cols) / 16, 1), couple_rows, &c);
}

static void couple_backward(peft__exec *x, const peft__op *op) {
    couple_args c = couple_gather(x, op);
    c.dy = peft__exec_grad(x, op->out[0]);
    c.dx = peft__exec_grad_out(x, op->in[0], &c.add_x);
    c.dr = peft__exec_grad_out(x, op->in[1], &c.add_r);
    peft__rows(&x->run, peft__exec_rows(x, op->out[0]), PEFT__MAX(peft__op_grain(c.cols) / 16, 1), couple_back_rows, &c);
}

static uint32_t couple_reads(const peft__tape *t, const peft__op *op) {
    (void)t;
    (void)op;
    return 3u;
}

static const peft__op_kind couple_kind = {"couple", PEFT__OPF_CHEAP, couple_reads, couple_forward, couple_backward, NULL, NULL};

peft__val peft__op_couple(peft__tape *t, peft__val x, peft__val r, bool inverse) {
    peft__val in[2] = {x, r};
    peft__op *op = peft__tape_push(t, &couple_kind, 2, in);
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, x);
    op->i[0] = inverse;
    return peft__tape_out(t, op, v.space, v.fixed, v.cols);
}
