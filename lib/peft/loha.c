/* loha.c - LoHa: the change of a weight as the element-wise product of two products of low rank (Hyeon-Woo et al. 2022, arXiv
 * 2108.06098, FedPara; Yeh et al. 2024, arXiv 2309.14859, LyCORIS).
 *
 *   y = W x + b + D x,   D = alpha / r (w1_a w1_b) o (w2_a w2_b)      w._a [out, r], w._b [r, in]: D has rank up to r^2
 *
 * All start as U(-1/sqrt(columns), 1/sqrt(columns)) but w2_b, which starts as 0; init_weights=false draws it too. rank_dropout
 * drops rows of D in training, divided by the share that is kept; module_dropout drops D. Options and keys are those of Hugging
 * Face PEFT, "<path>.hada_w1_a" and so on; unlike there, Conv1D bases work.
 *
 * Left out: convolutions (hada_t1, hada_t2). */
#include "peft/method.h"

#include <math.h>

enum { LOHA_1A = 0, LOHA_1B = 1, LOHA_2A = 2, LOHA_2B = 3 };

static const peft__option loha_options[] = {
    {"r", PEFT__OPT_INT, "8", 1, 1 << 20, NULL, "rank of each of the two products"},
    {"alpha", PEFT__OPT_FLOAT, "8", 1, 0, NULL, "the change is scaled by alpha / r"},
    {"rank_dropout", PEFT__OPT_FLOAT, "0.0", 0, 0.999, NULL, "part of the rows of the change that is dropped in training"},
    {"module_dropout", PEFT__OPT_FLOAT, "0.0", 0, 0.999, NULL, "chance that a module goes without its change in a training step"},
    {"init_weights", PEFT__OPT_BOOL, "true", 1, 0, NULL, "the change starts as 0; else as random"},
    {"rank_pattern", PEFT__OPT_MAP, "", 1, 0, NULL, "rank by pattern of the path's end"},
    {"alpha_pattern", PEFT__OPT_MAP, "", 1, 0, NULL, "alpha by pattern of the path's end"},
    PEFT__TARGET_OPTIONS,
    PEFT__LAYER_OPTIONS,
};
static const peft__schema loha_schema = {"method:loha", loha_options, PEFT__COUNT(loha_options)};

static peft_status loha_add_site(peft__adapter *a, const peft__site *s, bool target, bool saved) {
    static const char *const names[] = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"};
    peft_status st = PEFT_OK;
    peft__attachment *at = NULL;
    if (saved) { return peft__adapter_save_site(a, s); }
    if (!target) { return PEFT_OK; }
    TRY(peft__adapter_attach(a, s, &at));
    TRY(peft__adapter_rank(a, at, s, "alpha"));
    TRY(peft__adapter_check_rank(a, s, at->rank));
    at->product = true;
    for (int32_t i = 0; i < 4; i++) {
        bool left = i % 2 == 0;
        TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.%s", s->path, names[i]), i, left ? s->out : at->rank,
                                    left ? at->rank : s->in, 2, false, false));
    }
out:
    return st;
}

static peft_status loha_build(peft__adapter *a) {
    return peft__adapter_targets(a, 1 << PEFT__SITE_LINEAR, peft__usual_projections(a->base), loha_add_site);
}

static void loha_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    double bound = p->slot == LOHA_2B && peft__opt_bool(&a->opts, "init_weights") ? 0 : 1 / sqrt((double)p->p.cols);
    if (p->whole) {
        peft__adapter_init_copy(a, i, k);
        return;
    }
    for (int64_t e = 0; e < p->p.rows * p->p.cols; e++) { p->p.value[e] = PEFT__R(bound * (2 * peft__rng_uniform(rng) - 1)); }
}

/* ---- the change, and its gradients --------------------------------------------------------------------------- */

/* c[out, in] = alpha a b */
static void loha_product(const peft__delta *d, const peft__run *run, const peft__real *a, const peft__real *b, double alpha,
                         peft__real *c) {
    int64_t r = d->dims[0];
    peft__gemm_args g = {.m = d->out, .n = d->in, .k = r, .a = a, .lda = r, .b = peft__real_backward(b, d->in), .c = c,
                         .ldc = d->in, .alpha = PEFT__R(alpha)};
    peft__gemm(run, &g);
}

static void loha_form(const peft__delta *d, const peft__run *run, const peft__real *const p[4], peft__real *out,
                      peft__real *work) {
    loha_product(d, run, p[LOHA_1A], p[LOHA_1B], d->scale, out);
    loha_product(d, run, p[LOHA_2A], p[LOHA_2B], 1, work);
    run->k->mul(out, out, work, d->out * d->in);
}

/* da += t b', db += a' t */
static void loha_factors(const peft__delta *d, const peft__run *run, const peft__real *t, const peft__real *a,
                         const peft__real *b, peft__real *da, peft__real *db) {
    int64_t r = d->dims[0];
    peft__gemm_args left = {.m = d->out, .n = r, .k = d->in, .a = t, .lda = d->in, .b = peft__real_forward(b, d->in), .c = da,
                            .ldc = r, .alpha = 1, .accumulate = true};
    peft__gemm_args right = {.m = r, .n = d->in, .k = d->out, .a = a, .lda = r, .a_trans = true,
                             .b = peft__real_backward(t, d->in), .c = db, .ldc = d->in, .alpha = 1, .accumulate = true};
    if (da != NULL) { peft__gemm(run, &left); }
    if (db != NULL) { peft__gemm(run, &right); }
}

static void loha_back(const peft__delta *d, const peft__run *run, const peft__real *const p[4], peft__real *g,
                      peft__real *const dp[4], peft__real *work) {
    int64_t n = d->out * d->in;
    loha_product(d, run, p[LOHA_2A], p[LOHA_2B], d->scale, work);
    run->k->mul(work, work, g, n);
    loha_factors(d, run, work, p[LOHA_1A], p[LOHA_1B], dp[LOHA_1A], dp[LOHA_1B]);
    loha_product(d, run, p[LOHA_1A], p[LOHA_1B], d->scale, work);
    run->k->mul(work, work, g, n);
    loha_factors(d, run, work, p[LOHA_2A], p[LOHA_2B], dp[LOHA_2A], dp[LOHA_2B]);
}

static peft__delta loha_delta(const peft__adapter *a, const peft__attachment *at, const peft__site *s) {
    return (peft__delta){.out = s->out,
                         .in = s->in,
                         .dims = {at->rank},
                         .scale = at->scale,
                         .work = s->out * s->in,
                         .row_dropout = peft__opt_float(&a->opts, "rank_dropout"),
                         .module_dropout = peft__opt_float(&a->opts, "module_dropout"),
                         .rescale = true,
                         .key = at->key,
                         .form = loha_form,
                         .back = loha_back};
}

static peft__val loha_after(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val x,
                            peft__val y) {
    if (!at->product) { return y; }
    peft__delta d = loha_delta(a, at, s);
    return peft__adapter_delta(a, at, t, x, y, &d);
}

static peft_status loha_merge(const peft__adapter *a, const peft__attachment *at, const peft__site *s, const peft__run *run,
                              peft__real *weight) {
    peft__delta d = loha_delta(a, at, s);
    return peft__adapter_merge_delta(a, at, run, &d, weight);
}

/* ---- adapter_config.json ------------------------------------------------------------------------------------- */

static const char *const loha_keys[] = {"r", "alpha", "rank_dropout", "module_dropout", "init_weights", "rank_pattern",
                                        "alpha_pattern"};

static void loha_config_out(const peft__adapter *a, peft__json_out *j) {
    peft__config_put_targets(&a->opts, j);
    for (size_t i = 0; i < PEFT__COUNT(loha_keys); i++) { peft__config_put(&a->opts, loha_keys[i], j); }
}

static peft_status loha_config_in(peft__optset *opts, const peft__json *config, const char *what) {
    peft_status st = PEFT_OK;
    TRY(peft__config_get_targets(opts, config, what));
    for (size_t i = 0; i < PEFT__COUNT(loha_keys); i++) { TRY(peft__config_get(opts, config, what, loha_keys[i])); }
out:
    return st;
}

const peft__method peft__method_loha = {
    .name = "loha",
    .hf_type = "LOHA",
    .schema = &loha_schema,
    .build = loha_build,
    .init = loha_init,
    .after = loha_after,
    .proportional = true,
    .merge = loha_merge,
    .config_out = loha_config_out,
    .config_in = loha_config_in,
    .learning_rate = 1e-3,
};
