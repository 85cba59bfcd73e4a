/* op_rotate.c - y = x R, R of square blocks along the diagonal, each a rotation made of trained values (OFT, Qiu et al. 2023,
 * arXiv 2306.07280; BOFT, Liu et al. 2024, arXiv 2311.06243).
 *
 *   dx = dy R',  dR of a block = its columns of x' dy, from which cayley.c makes the gradient of the skew matrix
 *
 * At level l of a butterfly a block is two half blocks of columns that lie 2^l half blocks apart, so that no column moves:
 * y_to = x_0 R[0, to] + x_1 R[1, to]. The skew matrix has the trained values above its diagonal and their negatives below
 * (OFT), or is half of the trained matrix less its transpose (BOFT).
 *
 * R is formed again only when the values have changed: the copies live with the tape, as a generated token would otherwise
 * cost more for forming than for multiplying. Which blocks a training step leaves alone is drawn from (seed, step, site). A
 * matrix that is longer than the limit (constrained OFT) is shortened; its gradient is that of the shortened one, taken as a
 * value of its own.
 *
 * Left out: convolutions. */
#include "autograd/cayley.h"
#include "autograd/ops.h"

#include <math.h>

/* What the op keeps between passes, in the tape's arena. */
typedef struct rotate_kept {
    peft__rotation r;
    peft__real *values, *mats; /* the parameter that R [units, b, b] is of, and R */
    bool *valid;               /* is there such a pair yet */
} rotate_kept;

int64_t peft__rotation_units(const peft__rotation *r) { return r->shared ? 1 : r->count; }

int64_t peft__rotation_values(const peft__rotation *r) {
    return peft__rotation_units(r) * (r->square ? r->block * r->block : r->block * (r->block - 1) / 2);
}

double peft__rotation_share(const peft__rotation *r, const peft__real *values) {
    if (r->limit <= 0) { return 1; }
    double length = sqrt(2 * peft__kernels_generic.sum_sq(values, r->block * (r->block - 1) / 2));
    return length > r->limit ? r->limit / length : 1;
}

/* ---- forming R --------------------------------------------------------------------------------------------------------- */

typedef struct rotate_form {
    const peft__rotation *r;
    const peft__run *run;
    const peft__real *values;
    peft__real *mats;     /* R, [units, b, b] */
    peft__real *work;     /* [units, 1 + PEFT__CAYLEY_WORK, b, b] */
    peft__real *g, *back; /* backward: dR [units, b, b]; where the values' gradients are added */
} rotate_form;

static void rotate_skew(const peft__rotation *r, const peft__real *values, peft__real *q) {
    int64_t b = r->block;
    peft__real share = PEFT__R(peft__rotation_share(r, values));
    for (int64_t i = 0; i < b; i++) {
        q[i * b + i] = 0;
        for (int64_t j = i + 1; j < b; j++) {
            peft__real v = r->square ? PEFT__R(0.5) * (values[i * b + j] - values[j * b + i]) : share * *values++;
            q[i * b + j] = v;
            q[j * b + i] = -v;
        }
    }
}

static void rotate_form_unit(const rotate_form *f, const peft__run *run, int64_t u) {
    int64_t b = f->r->block, n = peft__rotation_values(f->r) / peft__rotation_units(f->r);
    peft__real *q = f->work + u * (1 + PEFT__CAYLEY_WORK) * b * b;
    rotate_skew(f->r, f->values + u * n, q);
    peft__cayley(run, b, f->r->terms, q, f->mats + u * b * b, q + b * b);
}

static void rotate_back_unit(const rotate_form *f, const peft__run *run, int64_t u) {
    int64_t b = f->r->block, n = peft__rotation_values(f->r) / peft__rotation_units(f->r);
    peft__real *q = f->work + u * (1 + PEFT__CAYLEY_WORK) * b * b, *g = f->g + u * b * b, *to = f->back + u * n;
    rotate_skew(f->r, f->values + u * n, q);
    peft__cayley_back(run, b, f->r->terms, q, f->mats + u * b * b, g, q + b * b);
    for (int64_t i = 0; i < b; i++) {
        for (int64_t j = i + 1; j < b; j++) {
            peft__real v = g[i * b + j] - g[j * b + i];
            if (f->r->square) {
                to[i * b + j] += PEFT__R(0.5) * v;
                to[j * b + i] -= PEFT__R(0.5) * v;
            } else {
                *to++ += v;
            }
        }
    }
}

static void rotate_form_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const rotate_form *f = arg;
    peft__run one = peft__run_alone(f->run, worker);
    for (int64_t u = begin; u < end; u++) { rotate_form_unit(f, &one, u); }
}

static void rotate_back_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const rotate_form *f = arg;
    peft__run one = peft__run_alone(f->run, worker);
    for (int64_t u = begin; u < end; u++) { rotate_back_unit(f, &one, u); }
}

/* Blocks side by side where there are enough of them, else one after the other, each by all workers: the bits are the same. */
static void rotate_each(rotate_form *f, bool back) {
    int64_t units = peft__rotation_units(f->r);
    if (units >= f->run->workers) {
        peft__rows(f->run, units, 1, back ? rotate_back_rows : rotate_form_rows, f);
        return;
    }
    for (int64_t u = 0; u < units; u++) {
        if (back) { rotate_back_unit(f, f->run, u); } else { rotate_form_unit(f, f->run, u); }
    }
}

int64_t peft__rotation_work(const peft__rotation *r) {
    return peft__rotation_units(r) * (1 + PEFT__CAYLEY_WORK) * r->block * r->block;
}

void peft__rotation_form(const peft__rotation *r, const peft__run *run, const peft__real *values, peft__real *mats,
                         peft__real *work) {
    rotate_form f = {.r = r, .run = run, .values = values, .mats = mats, .work = work};
    rotate_each(&f, false);
}

/* ---- multiplying -------------------------------------------------------------------------------------------------------- */

typedef struct rotate_job {
    const peft__rotation *r;
    const peft__run *run;
    const peft__real *mats;
    const bool *skip;        /* [count]: blocks that are left alone; NULL: none */
    const peft__real *x, *dy;
    peft__real *y, *g;       /* g: dR */
    int64_t ld_x, ld_dy, ld_y, rows;
    bool back, add;          /* by R', to what is there */
} rotate_job;

/* The columns of block i: `parts` stretches of `size`, beginning at at[]. */
static int64_t rotate_stretches(const peft__rotation *r, int64_t i, int64_t at[2], int64_t *size) {
    int64_t near = (int64_t)1 << r->level, half = r->block / 2; /* blocks whose halves lie side by side */
    if (r->level == 0) {
        at[0] = i * r->block;
        *size = r->block;
        return 1;
    }
    at[0] = i / near * near * r->block + i % near * half;
    at[1] = at[0] + near * half;
    *size = half;
    return 2;
}

static void rotate_copy(const rotate_job *j, int64_t at, int64_t size) {
    for (int64_t t = 0; t < j->rows; t++) {
        const peft__real *from = j->x + t * j->ld_x + at;
        peft__real *to = j->y + t * j->ld_y + at;
        if (j->add) { j->run->k->add(to, to, from, size); } else { memcpy(to, from, (size_t)size * sizeof *to); }
    }
}

static void rotate_block(const rotate_job *j, const peft__run *run, int64_t i) {
    int64_t at[2], size, b = j->r->block, parts = rotate_stretches(j->r, i, at, &size);
    const peft__real *m = j->mats + (j->r->shared ? 0 : i * b * b);
    for (int64_t to = 0; to < parts; to++) {
        if (j->skip != NULL && j->skip[i]) {
            rotate_copy(j, at[to], size);
            continue;
        }
        for (int64_t from = 0; from < parts; from++) {
            peft__gemm_args g = {.m = j->rows, .n = size, .k = size, .a = j->x + at[from], .lda = j->ld_x,
                                 .b = j->back ? peft__real_forward(m + to * size * b + from * size, b)
                                              : peft__real_backward(m + from * size * b + to * size, b),
                                 .c = j->y + at[to], .ldc = j->ld_y, .alpha = 1, .accumulate = j->add || from > 0};
            peft__block_gemm(run, &g);
        }
    }
}

static void rotate_block_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const rotate_job *j = arg;
    peft__run one = peft__run_alone(j->run, worker);
    for (int64_t i = begin; i < end; i++) { rotate_block(j, &one, i); }
}

static void rotate_blocks(rotate_job *j) {
    if (j->r->count >= j->run->workers) {
        peft__rows(j->run, j->r->count, 1, rotate_block_rows, j);
        return;
    }
    for (int64_t i = 0; i < j->r->count; i++) { rotate_block(j, j->run, i); }
}

void peft__rotation_apply(const peft__rotation *r, const peft__run *run, const peft__real *mats, bool back,
                          const peft__real *x, peft__real *y, int64_t rows) {
    int64_t cols = r->block * r->count;
    rotate_job j = {.r = r, .run = run, .mats = mats, .x = x, .y = y, .ld_x = cols, .ld_y = cols, .rows = rows, .back = back};
    rotate_blocks(&j);
}

/* dR of unit u: of all blocks in order where they share it. */
static void rotate_outer_unit(const rotate_job *j, const peft__run *run, int64_t u) {
    int64_t at[2], size, b = j->r->block, first = j->r->shared ? 0 : u, last = j->r->shared ? j->r->count : u + 1;
    peft__real *g = j->g + u * b * b;
    memset(g, 0, (size_t)(b * b) * sizeof *g);
    for (int64_t i = first; i < last; i++) {
        int64_t parts = rotate_stretches(j->r, i, at, &size);
        for (int64_t e = 0; e < parts * parts && (j->skip == NULL || !j->skip[i]); e++) {
            int64_t from = e / parts, to = e % parts;
            peft__gemm_args a = {.m = size, .n = size, .k = j->rows, .a = j->x + at[from], .lda = j->ld_x, .a_trans = true,
                                 .b = peft__real_backward(j->dy + at[to], j->ld_dy), .c = g + from * size * b + to * size,
                                 .ldc = b, .alpha = 1, .accumulate = true};
            peft__block_gemm(run, &a);
        }
    }
}

static void rotate_outer_rows(void *arg, int64_t begin, int64_t end, int32_t worker) {
    const rotate_job *j = arg;
    peft__run one = peft__run_alone(j->run, worker);
    for (int64_t u = begin; u < end; u++) { rotate_outer_unit(j, &one, u); }
}

static void rotate_outer(rotate_job *j) {
    int64_t units = peft__rotation_units(j->r);
    if (units >= j->run->workers) {
        peft__rows(j->run, units, 1, rotate_outer_rows, j);
        return;
    }
    for (int64_t u = 0; u < units; u++) { rotate_outer_unit(j, j->run, u); }
}

/* ---- the op ------------------------------------------------------------------------------------------------------------- */

/* Which blocks this training step leaves alone: of one level, a part of them, rounded down, as PEFT does. */
static const bool *rotate_draw(const peft__exec *x, const peft__rotation *r, bool *skip) {
    uint64_t place[2] = {x->frame->seed, x->frame->step};
    if (!x->training || r->dropout <= 0 || r->shared) { return NULL; }
    peft__rng rng = {peft__hash_str(r->key, (const char *)place, sizeof place), 0};
    if (peft__rng_below(&rng, (uint64_t)r->levels) != (uint64_t)r->level) { return NULL; }
    int64_t left = (int64_t)(r->dropout * (double)r->count);
    for (int64_t i = 0; i < r->count; i++) {
        skip[i] = peft__rng_below(&rng, (uint64_t)(r->count - i)) < (uint64_t)left;
        left -= skip[i];
    }
    return skip;
}

/* Room in the op's scratch: dR, work, skip. */
static rotate_form rotate_gather(peft__exec *x, const peft__op *op, rotate_job *j) {
    const rotate_kept *kept = op->aux;
    const peft__rotation *r = &kept->r;
    int64_t offset = r->level * peft__rotation_values(r);
    rotate_form f = {.r = r, .run = &x->run, .values = peft__exec_param(x, op->param[0]) + offset, .mats = kept->mats};
    f.g = (peft__real *)(void *)x->op_scratch;
    f.work = f.g + peft__rotation_units(r) * r->block * r->block;
    size_t bytes = (size_t)peft__rotation_values(r) * sizeof *f.values;
    if (!*kept->valid || memcmp(kept->values, f.values, bytes) != 0) {
        rotate_each(&f, false);
        memcpy(kept->values, f.values, bytes);
        *kept->valid = true;
    }
    *j = (rotate_job){.r = r, .run = &x->run, .mats = kept->mats, .rows = peft__exec_rows(x, op->in[0]), .g = f.g};
    j->skip = rotate_draw(x, r, (bool *)(void *)(f.work + peft__rotation_work(r)));
    return f;
}

static void rotate_forward(peft__exec *x, const peft__op *op) {
    rotate_job j;
    (void)rotate_gather(x, op, &j);
    j.ld_x = peft__exec_ld(x, op->in[0]);
    j.ld_y = peft__exec_ld(x, op->out[0]);
    j.x = peft__exec_data(x, op->in[0]);
    j.y = peft__exec_data(x, op->out[0]);
    rotate_blocks(&j);
}

static void rotate_backward(peft__exec *x, const peft__op *op) {
    int64_t ld = peft__exec_ld(x, op->in[0]), ld_dy = peft__exec_ld(x, op->out[0]);
    rotate_job j;
    rotate_form f = rotate_gather(x, op, &j);
    const peft__real *dy = peft__exec_grad(x, op->out[0]);
    peft__real *dp = peft__exec_param_grad(x, op->param[0]);
    if (dp != NULL) {
        f.back = dp + f.r->level * peft__rotation_values(f.r);
        j.x = peft__exec_data(x, op->in[0]);
        j.ld_x = ld;
        j.dy = dy;
        j.ld_dy = ld_dy;
        rotate_outer(&j);
        rotate_each(&f, true);
    }
    peft__real *dx = peft__exec_grad_out(x, op->in[0], &j.add);
    if (dx == NULL) { return; }
    j.x = dy;
    j.ld_x = ld_dy;
    j.y = dx;
    j.ld_y = ld;
    j.back = true;
    rotate_blocks(&j);
}

static uint32_t rotate_reads(const peft__tape *t, const peft__op *op) { return peft__op_trained(t, op->param[0]) ? 1u : 0; }

static double rotate_flops(const peft__tape *t, const peft__op *op, const peft__caps *caps, bool backward) {
    const peft__rotation *r = &((const rotate_kept *)op->aux)->r;
    double b = (double)r->block, product = 2 * b * b * (double)r->count;
    double once = b * b * b * (double)peft__rotation_units(r) * (r->terms > 0 ? 2.0 * r->terms : 3.0);
    double trained = peft__op_trained(t, op->param[0]) ? 1 : 0;
    if (backward) { return product * (1 + trained) + 2 * trained * once / (double)PEFT__MAX(caps->max_tokens, 1); }
    return product + once / (double)PEFT__MAX(caps->max_tokens, 1);
}

static size_t rotate_scratch(const peft__tape *t, const peft__op *op, const peft__caps *caps) {
    const peft__rotation *r = &((const rotate_kept *)op->aux)->r;
    (void)t;
    (void)caps;
    int64_t reals = peft__rotation_units(r) * r->block * r->block + peft__rotation_work(r);
    return (size_t)reals * sizeof(peft__real) + (size_t)r->count * sizeof(bool);
}

static const peft__op_kind rotate_kind = {"rotate",        0,            rotate_reads,  rotate_forward,
                                          rotate_backward, rotate_flops, rotate_scratch};

/* NULL after an error. */
static const rotate_kept *rotate_keep(peft__tape *t, const peft__rotation *r) {
    size_t values = (size_t)peft__rotation_values(r), mats = (size_t)(peft__rotation_units(r) * r->block * r->block);
    rotate_kept *kept = peft__arena_alloc(&t->arena, sizeof *kept);
    peft__real *room = peft__arena_alloc(&t->arena, (values + mats) * sizeof *room);
    bool *valid = peft__arena_alloc(&t->arena, sizeof *valid);
    if (kept == NULL || room == NULL || valid == NULL) {
        peft__tape_fail(t, PEFT_E_NOMEM, "%s", peft__fail_text());
        return NULL;
    }
    *valid = false;
    *kept = (rotate_kept){*r, room, room + values, valid};
    return kept;
}

peft__val peft__op_rotate(peft__tape *t, peft__val x, int32_t param, const peft__rotation *r) {
    const rotate_kept *kept = t->status == PEFT_OK ? rotate_keep(t, r) : NULL;
    peft__op *op = kept != NULL ? peft__tape_push(t, &rotate_kind, 1, &x) : NULL;
    if (op == NULL) { return PEFT__NONE; }
    peft__value v = *peft__tape_value(t, x);
    op->aux = kept;
    op->param[0] = param;
    return peft__tape_out(t, op, v.space, v.fixed, v.cols);
}
