/* lokr.c - LoKr: the change of a weight as a Kronecker product (Edalati et al. 2022, arXiv 2212.10650, KronA; Yeh et al. 2024, arXiv
 * 2309.14859, LyCORIS).
 *
 *   y = W x + b + D x,   D = alpha / r  w1 (x) w2      w1 [l, m], w2 [k, n], out = l k, in = m n
 *   D[i k + p, j n + q] = alpha / r  w1[i, j] w2[p, q]
 *
 * (l, k) and (m, n) are factors of out and in, the smaller first: decompose_factor and the rest where that divides, else the most
 * even pair whose first is at most decompose_factor (-1: any). w2 is a product w2_a w2_b of rank r where that is smaller
 * (r < max(k, n) / 2); so is w1 with decompose_both. w1 (w1_a) starts as 0, what is left as U(-1/sqrt(columns), 1/sqrt(columns));
 * init_weights=lycoris starts w2 (w2_b) as 0 instead, false nothing. Options and keys are those of Hugging Face PEFT,
 * "<path>.lokr_w1" and so on; unlike there, Conv1D bases work. Left out: convolutions (lokr_t2). */
#include "peft/method.h"

#include <math.h>

enum { LOKR_1 = 0, LOKR_1B = 1, LOKR_2 = 2, LOKR_2B = 3 }; /* LOKR_1, LOKR_2: the matrix, or its left factor */
enum { LOKR_L = 0, LOKR_K = 1, LOKR_M = 2, LOKR_N = 3, LOKR_R = 4 }; /* peft__delta's dims */

static const peft__option lokr_options[] = {
    {"r", PEFT__OPT_INT, "8", 1, 1 << 20, NULL, "rank of the factors that are products"},
    {"alpha", PEFT__OPT_FLOAT, "8", 1, 0, NULL, "the change is scaled by alpha / r"},
    {"rank_dropout", PEFT__OPT_FLOAT, "0.0", 0, 0.999, NULL, "part of the rows of the change that is dropped in training"},
    {"rank_dropout_scale", PEFT__OPT_BOOL, "false", 1, 0, NULL, "what rank_dropout leaves is divided by its share"},
    {"module_dropout", PEFT__OPT_FLOAT, "0.0", 0, 0.999, NULL, "chance that a module goes without its change in a training step"},
    {"decompose_both", PEFT__OPT_BOOL, "false", 1, 0, NULL, "the first factor is a product of rank r too, where that is smaller"},
    {"decompose_factor", PEFT__OPT_INT, "-1", -1, 1 << 20, NULL, "rows and columns of the first factor; -1: near the square root"},
    {"init_weights", PEFT__OPT_STR, "true", 1, 0, "true|lycoris|false", "which factor starts as 0: the first, the second, none"},
    {"rank_pattern", PEFT__OPT_MAP, "", 1, 0, NULL, "rank by pattern of the path's end"},
    {"alpha_pattern", PEFT__OPT_MAP, "", 1, 0, NULL, "alpha by pattern of the path's end"},
    PEFT__TARGET_OPTIONS,
    PEFT__LAYER_OPTIONS,
};
static const peft__schema lokr_schema = {"method:lokr", lokr_options, PEFT__COUNT(lokr_options)};

/* dimension = m n, m <= n unless `factor` itself divides. */
static void lokr_factors(int64_t dimension, int64_t factor, int64_t *m, int64_t *n) {
    *m = 1;
    *n = dimension;
    if (factor > 0 && dimension % factor == 0) {
        *m = factor;
        *n = dimension / factor;
        return;
    }
    if (factor <= 0) { factor = dimension; }
    for (int64_t next = 2; next <= dimension && *m < *n; next++) {
        if (dimension % next != 0) { continue; }
        if (next + dimension / next > 1 + dimension || next > factor || next > dimension / next) { break; }
        *m = next;
        *n = dimension / next;
    }
}

static void lokr_dims(const peft__adapter *a, const peft__site *s, int64_t dims[6]) {
    int64_t factor = peft__opt_int(&a->opts, "decompose_factor");
    lokr_factors(s->out, factor, &dims[LOKR_L], &dims[LOKR_K]);
    lokr_factors(s->in, factor, &dims[LOKR_M], &dims[LOKR_N]);
}

static peft_status lokr_add_matrix(peft__adapter *a, peft__attachment *at, const peft__site *s, int32_t slot, int64_t rows,
                                   int64_t cols, bool split) {
    peft_status st = PEFT_OK;
    const char *name = slot == LOKR_1 ? "lokr_w1" : "lokr_w2";
    if (!split) {
        return peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.%s", s->path, name), slot, rows, cols, 2, false,
                                       false);
    }
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.%s_a", s->path, name), slot, rows, at->rank, 2, false,
                                false));
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.%s_b", s->path, name), slot + 1, at->rank, cols, 2, false,
                                false));
out:
    return st;
}

static peft_status lokr_add_site(peft__adapter *a, const peft__site *s, bool target, bool saved) {
    peft_status st = PEFT_OK;
    peft__attachment *at = NULL;
    int64_t d[6];
    if (saved) { return peft__adapter_save_site(a, s); }
    if (!target) { return PEFT_OK; }
    TRY(peft__adapter_attach(a, s, &at));
    TRY(peft__adapter_rank(a, at, s, "alpha"));
    at->product = true;
    lokr_dims(a, s, d);
    bool both = peft__opt_bool(&a->opts, "decompose_both");
    TRY(lokr_add_matrix(a, at, s, LOKR_1, d[LOKR_L], d[LOKR_M], both && 2 * at->rank < PEFT__MAX(d[LOKR_L], d[LOKR_M])));
    TRY(lokr_add_matrix(a, at, s, LOKR_2, d[LOKR_K], d[LOKR_N], 2 * at->rank < PEFT__MAX(d[LOKR_K], d[LOKR_N])));
out:
    return st;
}

static peft_status lokr_build(peft__adapter *a) {
    return peft__adapter_targets(a, 1 << PEFT__SITE_LINEAR, peft__usual_projections(a->base), lokr_add_site);
}


static void lokr_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    const char *how = peft__opt_str(&a->opts, "init_weights");
    if (p->whole) {
        peft__adapter_init_copy(a, i, k);
        return;
    }
    size_t len = strlen(p->p.name);
    bool left_of_two = len > 2 && strcmp(p->p.name + len - 2, "_a") == 0;
    bool zero = strcmp(how, "true") == 0 ? p->slot == LOKR_1
                                         : strcmp(how, "lycoris") == 0 && (p->slot == LOKR_2B || (p->slot == LOKR_2 && !left_of_two));
    double bound = zero ? 0 : 1 / sqrt((double)p->p.cols);
    for (int64_t e = 0; e < p->p.rows * p->p.cols; e++) { p->p.value[e] = PEFT__R(bound * (2 * peft__rng_uniform(rng) - 1)); }
}

/* ---- the change, and its gradients --------------------------------------------------------------------------- */

/* The matrix itself, or the product of its two factors in `room` [rows, cols]. */
static const peft__real *lokr_matrix(const peft__run *run, const peft__real *a, const peft__real *b, int64_t rows, int64_t cols,
                                     int64_t r, peft__real *room) {
    if (b == NULL) { return a; }
    peft__gemm_args g = {.m = rows, .n = cols, .k = r, .a = a, .lda = r, .b = peft__real_backward(b, cols), .c = room, .ldc = cols,
                         .alpha = 1};
    peft__gemm(run, &g);
    return room;
}

static void lokr_form(const peft__delta *d, const peft__run *run, const peft__real *const p[4], peft__real *out,
                      peft__real *work) {
    int64_t l = d->dims[LOKR_L], k = d->dims[LOKR_K], m = d->dims[LOKR_M], n = d->dims[LOKR_N], r = d->dims[LOKR_R];
    const peft__real *w1 = lokr_matrix(run, p[LOKR_1], p[LOKR_1B], l, m, r, work);
    const peft__real *w2 = lokr_matrix(run, p[LOKR_2], p[LOKR_2B], k, n, r, work + l * m);
    for (int64_t i = 0; i < l; i++) {
        for (int64_t q = 0; q < k; q++) {
            peft__real *row = out + (i * k + q) * d->in;
            for (int64_t j = 0; j < m; j++) { run->k->scale(row + j * n, PEFT__R(d->scale) * w1[i * m + j], w2 + q * n, n); }
        }
    }
}

/* From the gradient gw [rows, cols] of a matrix to those of its factors: da += gw b', db += a' gw; or da += gw. */
static void lokr_matrix_back(const peft__run *run, const peft__real *gw, const peft__real *a, const peft__real *b, int64_t rows,
                             int64_t cols, int64_t r, peft__real *da, peft__real *db) {
    if (b == NULL) {
        if (da != NULL) { run->k->add(da, da, gw, rows * cols); }
        return;
    }
    peft__gemm_args left = {.m = rows, .n = r, .k = cols, .a = gw, .lda = cols, .b = peft__real_forward(b, cols), .c = da,
                            .ldc = r, .alpha = 1, .accumulate = true};
    peft__gemm_args right = {.m = r, .n = cols, .k = rows, .a = a, .lda = r, .a_trans = true, .b = peft__real_backward(gw, cols),
                             .c = db, .ldc = cols, .alpha = 1, .accumulate = true};
    if (da != NULL) { peft__gemm(run, &left); }
    if (db != NULL) { peft__gemm(run, &right); }
}

static void lokr_back(const peft__delta *d, const peft__run *run, const peft__real *const p[4], peft__real *g,
                      peft__real *const dp[4], peft__real *work) {
    int64_t l = d->dims[LOKR_L], k = d->dims[LOKR_K], m = d->dims[LOKR_M], n = d->dims[LOKR_N], r = d->dims[LOKR_R];
    peft__real *g1 = work + l * m + k * n, *g2 = g1 + l * m, s = PEFT__R(d->scale);
    const peft__real *w1 = lokr_matrix(run, p[LOKR_1], p[LOKR_1B], l, m, r, work);
    const peft__real *w2 = lokr_matrix(run, p[LOKR_2], p[LOKR_2B], k, n, r, work + l * m);
    memset(g1, 0, (size_t)(l * m + k * n) * sizeof *g1);
    for (int64_t i = 0; i < l; i++) {
        for (int64_t q = 0; q < k; q++) {
            const peft__real *row = g + (i * k + q) * d->in;
            for (int64_t j = 0; j < m; j++) {
                g1[i * m + j] += s * run->k->dot(row + j * n, w2 + q * n, n);
                run->k->axpy(g2 + q * n, s * w1[i * m + j], row + j * n, n);
            }
        }
    }
    lokr_matrix_back(run, g1, p[LOKR_1], p[LOKR_1B], l, m, r, dp[LOKR_1], dp[LOKR_1B]);
    lokr_matrix_back(run, g2, p[LOKR_2], p[LOKR_2B], k, n, r, dp[LOKR_2], dp[LOKR_2B]);
}

static peft__delta lokr_delta(const peft__adapter *a, const peft__attachment *at, const peft__site *s) {
    peft__delta d = {.out = s->out,
                     .in = s->in,
                     .scale = at->scale,
                     .row_dropout = peft__opt_float(&a->opts, "rank_dropout"),
                     .module_dropout = peft__opt_float(&a->opts, "module_dropout"),
                     .rescale = peft__opt_bool(&a->opts, "rank_dropout_scale"),
                     .key = at->key,
                     .form = lokr_form,
                     .back = lokr_back};
    lokr_dims(a, s, d.dims);
    d.dims[LOKR_R] = at->rank;
    d.work = 2 * (d.dims[LOKR_L] * d.dims[LOKR_M] + d.dims[LOKR_K] * d.dims[LOKR_N]);
    return d;
}

static peft__val lokr_after(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val x,
                            peft__val y) {
    if (!at->product) { return y; }
    peft__delta d = lokr_delta(a, at, s);
    return peft__adapter_delta(a, at, t, x, y, &d);
}

static peft_status lokr_merge(const peft__adapter *a, const peft__attachment *at, const peft__site *s, const peft__run *run,
                              peft__real *weight) {
    peft__delta d = lokr_delta(a, at, s);
    return peft__adapter_merge_delta(a, at, run, &d, weight);
}

/* ---- adapter_config.json ------------------------------------------------------------------------------------- */

static const char *const lokr_keys[] = {"r", "alpha", "rank_dropout", "rank_dropout_scale", "module_dropout", "decompose_both",
                                        "decompose_factor", "rank_pattern", "alpha_pattern"};

static void lokr_config_out(const peft__adapter *a, peft__json_out *j) {
    const char *how = peft__opt_str(&a->opts, "init_weights");
    peft__config_put_targets(&a->opts, j);
    for (size_t i = 0; i < PEFT__COUNT(lokr_keys); i++) { peft__config_put(&a->opts, lokr_keys[i], j); }
    peft__json_key(j, "init_weights");
    if (strcmp(how, "lycoris") == 0) {
        peft__json_put_text(j, how);
    } else {
        peft__json_put_bool(j, strcmp(how, "true") == 0);
    }
}

static peft_status lokr_config_in(peft__optset *opts, const peft__json *config, const char *what) {
    peft_status st = PEFT_OK;
    const peft__json *how = peft__json_find(config, "init_weights");
    TRY(peft__config_get_targets(opts, config, what));
    for (size_t i = 0; i < PEFT__COUNT(lokr_keys); i++) { TRY(peft__config_get(opts, config, what, lokr_keys[i])); }
    if (how != NULL && how->kind == PEFT__JSON_BOOL) {
        TRY(peft__opt_set_bool(opts, "init_weights", how->truth));
    } else {
        TRY(peft__config_get(opts, config, what, "init_weights"));
    }
out:
    return st;
}

const peft__method peft__method_lokr = {
    .name = "lokr",
    .hf_type = "LOKR",
    .schema = &lokr_schema,
    .build = lokr_build,
    .init = lokr_init,
    .after = lokr_after,
    .proportional = true,
    .merge = lokr_merge,
    .config_out = lokr_config_out,
    .config_in = lokr_config_in,
    .learning_rate = 1e-3,
};
