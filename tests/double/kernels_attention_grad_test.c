/* The library in double: gradients of attention, norms, activations and gates against central differences, to 1e-7. */
#include "runner.h"

#include <math.h>

#include "kernels/kernels.h"

enum { MAX_N = 4096 };

typedef double (*loss_fn)(void *arg); /* a scalar of the arrays that arg points to */

/* Largest difference between grad and the differences of `loss` by each of the n elements of x (every `step`-th of them),
 * over the largest gradient or 1. */
static double gap(loss_fn loss, void *arg, double *x, const double *grad, int64_t n, int64_t step) {
    double worst = 0, most = 1;
    for (int64_t i = 0; i < n; i += step) {
        const double was = x[i], h = 1e-5;
        x[i] = was + h;
        const double up = loss(arg);
        x[i] = was - h;
        const double down = loss(arg);
        x[i] = was;
        const double e = fabs((up - down) / (2 * h) - grad[i]);
        worst = e <= worst ? worst : e; /* a NaN stays */
        most = fmax(most, fabs(grad[i]));
    }
    return worst / most;
}

static void fill(double *x, int64_t n, uint64_t seed) {
    peft__rng rng = {seed, 0};
    for (int64_t i = 0; i < n; i++) { x[i] = peft__rng_normal(&rng); }
}

/* ---- one row of n ---------------------------------------------------------------------------------------------------- */

typedef struct line {
    const peft__kernels *k;
    int64_t n;
    int32_t kind; /* of activation; -1 RMSNorm, -2 LayerNorm */
    bool gated;
    double x[64], u[64], w[64], b[64], dy[64], y[64];
} line;

static double line_loss(void *arg) {
    line *l = (line *)arg;
    double mean;
    if (l->kind == -1) {
        (void)l->k->rms_norm(l->y, l->x, l->w, l->n, 1e-5);
    } else if (l->kind == -2) {
        (void)l->k->layer_norm(l->y, l->x, l->w, l->b, l->n, 1e-5, &mean);
    } else if (l->gated) {
        l->k->glu(l->kind, l->y, l->x, l->u, l->n);
    } else {
        l->k->act(l->kind, l->y, l->x, l->n);
    }
    return l->k->dot(l->y, l->dy, l->n);
}

static void line_fill(line *l, int64_t n) {
    l->k = &peft__kernels_generic;
    l->n = n;
    fill(l->x, n, 1);
    fill(l->u, n, 2);
    fill(l->w, n, 3);
    fill(l->b, n, 4);
    fill(l->dy, n, 5);
}

TEST(kernels_grad_norms) {
    for (int64_t n = 1; n < 64; n += 6) {
        line l = {.kind = -1};
        double dx[64], mean;
        line_fill(&l, n);
        const double r = l.k->rms_norm(l.y, l.x, l.w, n, 1e-5);
        l.k->rms_norm_back(dx, l.dy, l.x, l.w, n, r, false);
        CHECK_NEAR(gap(line_loss, &l, l.x, dx, n, 1), 0, 1e-7);
        if (n == 1) { continue; /* one element has no variance */ }
        l.kind = -2;
        const double s = l.k->layer_norm(l.y, l.x, l.w, l.b, n, 1e-5, &mean);
        l.k->layer_norm_back(dx, l.dy, l.x, l.w, n, mean, s, false);
        CHECK_NEAR(gap(line_loss, &l, l.x, dx, n, 1), 0, 1e-7);
    }
}

TEST(kernels_grad_activations) {
    for (int32_t kind = 0; kind < PEFT__ACT_COUNT; kind++) {
        line l = {.kind = kind};
        double dx[64], du[64];
        line_fill(&l, 61);
        l.k->act_back(kind, dx, l.dy, l.x, l.n, false);
        CHECK_NEAR(gap(line_loss, &l, l.x, dx, l.n, 1), 0, 1e-7);
        l.gated = true;
        l.k->glu_back(kind, dx, du, l.dy, l.x, l.u, l.n);
        CHECK_NEAR(gap(line_loss, &l, l.x, dx, l.n, 1), 0, 1e-7);
        CHECK_NEAR(gap(line_loss, &l, l.u, du, l.n, 1), 0, 1e-7);
    }
}

TEST(kernels_grad_scalars) {
    for (int32_t i = -900; i <= 900; i++) {
        const double x = (double)i * 0.0137;
        CHECK_NEAR(peft__exp(x), exp(x), 1e-15 * exp(x));
        CHECK_NEAR(peft__tanh(x), tanh(x), 1e-15 * fabs(tanh(x)));
        CHECK_NEAR(peft__erf(x), erf(x), 1e-15 * fabs(erf(x)));
        CHECK_NEAR(peft__ln(exp(x)), x, 1e-15 * (1 + fabs(x)));
    }
    CHECK_NEAR(peft__ln(1 + 1e-9), log1p((1 + 1e-9) - 1), 1e-24);
    CHECK_NEAR(peft__tanh(1e-9), 1e-9, 1e-24);
}

/* ---- attention --------------------------------------------------------------------------------------------------------- */

typedef struct field {
    peft__run run;
    peft__attn_args args;
    peft__attn_row rows[2];
    double q[MAX_N], k[MAX_N], v[MAX_N], o[MAX_N], d_o[MAX_N], dq[MAX_N], dk[MAX_N], dv[MAX_N], lse[MAX_N], delta[MAX_N];
    double pk[2][MAX_N], pv[2][MAX_N], pdk[2][MAX_N], pdv[2][MAX_N];
} field;

static double field_loss(void *arg) {
    field *f = (field *)arg;
    const int64_t wide = f->args.heads * f->args.head_dim;
    peft__attn_forward(&f->run, &f->args);
    return f->run.k->dot(f->o, f->d_o, f->args.n_tokens * wide);
}

static peft_status field_fill(field *f, peft__mem *mem, int64_t heads, int64_t kv_heads, int64_t dim) {
    peft_status st = PEFT_OK;
    peft__attn_args *a = &f->args;
    const int64_t n0 = 9, n1 = 3, past0 = 4, past1 = 0, ldk = kv_heads * dim;
    for (int64_t r = 0; r < 2; r++) {
        f->rows[r] = (peft__attn_row){.first = r == 0 ? 0 : n0, .n = r == 0 ? n0 : n1, .past_k = f->pk[r], .past_v = f->pv[r],
                                      .past_dk = f->pdk[r], .past_dv = f->pdv[r], .past_ld = ldk, .n_past = r == 0 ? past0 : past1};
    }
    *a = (peft__attn_args){.heads = heads,
                           .kv_heads = kv_heads,
                           .head_dim = dim,
                           .scale = 0.4,
                           .rows = f->rows,
                           .n_rows = 2,
                           .n_tokens = n0 + n1,
                           .q = f->q,
                           .k = f->k,
                           .v = f->v,
                           .ldq = heads * dim,
                           .ldk = ldk,
                           .ldv = ldk,
                           .o = f->o,
                           .ldo = heads * dim,
                           .lse = f->lse,
                           .d_o = f->d_o,
                           .delta = f->delta,
                           .dq = f->dq,
                           .dk = f->dk,
                           .dv = f->dv};
    fill(f->q, MAX_N, 1);
    fill(f->k, MAX_N, 2);
    fill(f->v, MAX_N, 3);
    fill(f->d_o, MAX_N, 4);
    for (int64_t r = 0; r < 2; r++) {
        fill(f->pk[r], MAX_N, 5 + (uint64_t)r);
        fill(f->pv[r], MAX_N, 7 + (uint64_t)r);
        memset(f->pdk[r], 0, sizeof f->pdk[r]);
        memset(f->pdv[r], 0, sizeof f->pdv[r]);
    }
    f->run = (peft__run){.k = &peft__kernels_generic, .workers = 1};
    f->run.scratch_size = peft__scratch_size(f->run.k, dim, 16);
    TRY(peft__pool_create(mem, 1, &f->run.pool));
    f->run.scratch = (uint8_t *)peft__alloc(mem, f->run.scratch_size);
    if (!f->run.scratch) { st = PEFT_E_NOMEM; }
out:
    return st;
}

static void check_field(field *f) {
    const peft__attn_args *a = &f->args;
    const int64_t q = a->n_tokens * a->ldq, k = a->n_tokens * a->ldk, past = f->rows[0].n_past * a->ldk;
    const double tol = 1e-7;
    memset(f->pdk[0], 0, sizeof f->pdk[0]);
    memset(f->pdv[0], 0, sizeof f->pdv[0]);
    (void)field_loss(f);
    peft__attn_backward(&f->run, a);
    CHECK_NEAR(gap(field_loss, f, f->q, f->dq, q, 7), 0, tol);
    CHECK_NEAR(gap(field_loss, f, f->k, f->dk, k, 5), 0, tol);
    CHECK_NEAR(gap(field_loss, f, f->v, f->dv, k, 5), 0, tol);
    CHECK_NEAR(gap(field_loss, f, f->pk[0], f->pdk[0], past, 3), 0, tol);
    CHECK_NEAR(gap(field_loss, f, f->pv[0], f->pdv[0], past, 3), 0, tol);
}

TEST(kernels_grad_attention) {
    static field f;
    const int64_t shapes[][3] = {{1, 1, 8}, {4, 2, 12}, {6, 1, 5}};
    for (size_t s = 0; s < PEFT__COUNT(shapes); s++) {
        peft__mem *mem = runner_mem();
        CHECK_OK(field_fill(&f, mem, shapes[s][0], shapes[s][1], shapes[s][2]));
        check_field(&f);
        f.args.window = 2;
        check_field(&f);
        f.args.causal = true;
        f.args.window = 0;
        check_field(&f);
        f.args.window = 3;
        check_field(&f);
        f.rows[0].n_visible = 2;
        check_field(&f);
        f.rows[0].n_visible = f.rows[0].n_past;
        check_field(&f);
        f.args.softcap = 2;
        check_field(&f);
        peft__free(mem, f.run.scratch, f.run.scratch_size);
        peft__pool_free(f.run.pool);
    }
}
