/* oft.c - OFT: rotations of a weight's rows (Qiu et al. 2023, arXiv 2306.07280; Qiu et al. 2025, arXiv 2506.19847: applied to
 * the input, with a Neumann series).
 *
 *   y = W (x R) + b, a merged weight W R'      R = diag(R_1, .. R_n), blocks [b, b], n b = in
 *   R_i: the Cayley transform of a skew matrix Q_i whose upper triangle is trained (cayley.c); 0, hence I, at first
 *
 * The blocks are given by their number (r) or their size (oft_block_size). block_share: all have one Q. coft: each Q is
 * shortened to eps / sqrt(number of trained blocks) in the Frobenius norm, in the values too after each step of training
 * (Hugging Face PEFT does so at each forward pass). module_dropout leaves a part of the blocks alone in each training step, as
 * PEFT documents it; its 0.21 reads the option and does nothing. Options and keys are those of PEFT, "<path>.oft_R.weight"
 * [n, b (b - 1) / 2]; unlike there, Conv1D bases work, and a number that does not divide is an error. The default and those of
 * a folder go to the nearest that does, as in PEFT.
 *
 * Left out: convolutions, embeddings as targets, the form of files before PEFT 0.16. */
#include "autograd/cayley.h"
#include "peft/rotate.h"

#include <math.h>

static const peft__option oft_options[] = {
    {"r", PEFT__OPT_INT, "0", 0, 1 << 20, NULL,
     "number of blocks that a weight's columns are cut into; 0: as oft_block_size says"},
    {"oft_block_size", PEFT__OPT_INT, "32", 0, 1 << 20, NULL,
     "columns of a block; 0: as r says; unset: the divisor of a weight's columns that is nearest to the default"},
    {"module_dropout", PEFT__OPT_FLOAT, "0.0", 0, 0.999, NULL,
     "part of the blocks that a training step leaves alone; none with block_share"},
    {"coft", PEFT__OPT_BOOL, "false", 1, 0, NULL, "rotations stay small: by eps"},
    {"eps", PEFT__OPT_FLOAT, "6e-5", 1e-30, 1e30, NULL, "with coft: how long the blocks' skew matrices may be together"},
    {"block_share", PEFT__OPT_BOOL, "false", 1, 0, NULL, "all blocks of a weight are turned alike"},
    {"use_cayley_neumann", PEFT__OPT_BOOL, "true", 1, 0, NULL, "a series in place of the exact transform: nearly a rotation"},
    {"num_cayley_neumann_terms", PEFT__OPT_INT, "5", 2, 1000, NULL, "terms of that series"},
    {"init_weights", PEFT__OPT_BOOL, "true", 1, 0, NULL, "start as the base; false: from N(0, 0.01)"},
    PEFT__TARGET_OPTIONS,
    PEFT__LAYER_OPTIONS,
    {"fan_in_fan_out", PEFT__OPT_BOOL, "false", 1, 0, NULL, "set by the library: the base keeps its weights as [in, out]"},
};
static const peft__schema oft_schema = {"method:oft", oft_options, PEFT__COUNT(oft_options)};

/* ---- shared with BOFT ------------------------------------------------------------------------------------------------ */

peft_status peft__rotate_weight(peft__mem *mem, const peft__run *run, const peft__rotation *r, const peft__real *values,
                                bool undo, int64_t rows, peft__real *weight) {
    peft_status st = PEFT_OK;
    int64_t b = r->block, square = b * b, units = peft__rotation_units(r), all = rows * b * r->count;
    size_t bytes = (size_t)(units * square + peft__rotation_work(r) + all) * sizeof(peft__real);
    peft__real *mats = peft__alloc(mem, bytes);
    if (mats == NULL) { return PEFT_E_NOMEM; }
    peft__real *work = mats + units * square, *copy = work + peft__rotation_work(r);
    peft__rotation_form(r, run, values, mats, work);
    for (int64_t u = 0; u < units && undo && r->terms > 0; u++) { /* what a series gives is no rotation to the last bit */
        if (!peft__cayley_invert(run->k, b, mats + u * square, work)) {
            FAIL(PEFT_E_NUMERIC, "block %lld of %lld has no inverse", (long long)u, (long long)units);
        }
        memcpy(mats + u * square, work, (size_t)square * sizeof *mats);
    }
    memcpy(copy, weight, (size_t)all * sizeof *copy);
    peft__rotation_apply(r, run, mats, !undo || r->terms > 0, copy, weight, rows);
out:
    peft__free(mem, mats, bytes);
    return st;
}

peft_status peft__rotate_check_strength(const peft__adapter *a, const peft__attachment *at) {
    if (at->strength == 1 || at->strength == -1) { return PEFT_OK; }
    return peft__fail(PEFT_E_UNSUPPORTED,
                      "adapter \"%s\": method \"%s\" merges with a factor of 1 or -1, not %g: it turns a weight", a->name,
                      a->method->name, at->strength);
}

peft_status peft__rotate_choose(peft__adapter *a, const char *count, const char *size) {
    peft_status st = PEFT_OK;
    if (peft__opt_int(&a->opts, count) > 0 && !peft__opt_is_set(&a->opts, size)) { TRY(peft__opt_set_int(&a->opts, size, 0)); }
    long long n = (long long)peft__opt_int(&a->opts, count), b = (long long)peft__opt_int(&a->opts, size);
    peft_status code = a->from_file ? PEFT_E_FORMAT : PEFT_E_KEY;
    if (n > 0 && b > 0) { FAIL(code, "%s is %lld and %s is %lld: one of them says the other, give one", count, n, size, b); }
    if (n == 0 && b == 0) { FAIL(code, "%s and %s are both 0: one of them must be given", count, size); }
out:
    return st;
}

/* ---- building --------------------------------------------------------------------------------------------------------- */

/* The divisor of n that is nearest to v; the smaller of two that are as near. */
static int64_t oft_divisor(int64_t n, int64_t v) {
    int64_t above = v, below = v;
    if (v >= n) { return n; }
    while (n % above != 0) { above++; }
    while (n % below != 0) { below--; }
    return v - below <= above - v ? below : above;
}

static peft_status oft_block(const peft__adapter *a, const peft__site *s, int64_t *block) {
    int64_t r = peft__opt_int(&a->opts, "r"), given = r > 0 ? r : peft__opt_int(&a->opts, "oft_block_size");
    int64_t near = oft_divisor(s->in, given);
    bool meant = !a->from_file && (r > 0 || peft__opt_is_set(&a->opts, "oft_block_size"));
    if (near != given && meant) {
        return peft__fail(PEFT_E_SHAPE, "%s is %lld, which does not divide the %lld columns of \"%s\"; %lld does",
                          r > 0 ? "r" : "oft_block_size", (long long)given, (long long)s->in, s->path, (long long)near);
    }
    *block = r > 0 ? s->in / near : near;
    if (*block >= 2) { return PEFT_OK; }
    return peft__fail(PEFT_E_SHAPE, "%s is %lld, and blocks of 1 of the %lld columns of \"%s\" cannot be turned",
                      r > 0 ? "r" : "oft_block_size", (long long)given, (long long)s->in, s->path);
}

/* b from b (b - 1) / 2 */
static int64_t oft_block_of(int64_t values) {
    int64_t b = (int64_t)((1 + sqrt(1 + 8 * (double)values)) / 2 + 0.5);
    while (b * (b - 1) / 2 > values) { b--; }
    return b;
}

static peft_status oft_add_site(peft__adapter *a, const peft__site *s, bool target, bool saved) {
    peft_status st = PEFT_OK;
    peft__attachment *at = NULL;
    int64_t b = 1;
    if (saved) { return peft__adapter_save_site(a, s); }
    if (!target) { return PEFT_OK; }
    TRY(oft_block(a, s, &b));
    TRY(peft__adapter_attach(a, s, &at));
    at->product = true;
    at->dropout = peft__opt_float(&a->opts, "module_dropout");
    bool shared = peft__opt_bool(&a->opts, "block_share");
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.oft_R.weight", s->path), 0, shared ? 1 : s->in / b,
                                b * (b - 1) / 2, 2, false, false));
out:
    return st;
}

static peft_status oft_build(peft__adapter *a) {
    peft_status st = PEFT_OK;
    TRY(peft__rotate_choose(a, "r", "oft_block_size"));
    TRY(peft__adapter_targets(a, 1 << PEFT__SITE_LINEAR, peft__usual_projections(a->base), oft_add_site));
out:
    return st;
}

static void oft_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    double size = peft__opt_bool(&a->opts, "init_weights") ? 0 : 0.1;
    if (p->whole) {
        peft__adapter_init_copy(a, i, k);
        return;
    }
    for (int64_t e = 0; e < p->p.rows * p->p.cols; e++) { p->p.value[e] = PEFT__R(size * peft__rng_normal(rng)); }
}

/* ---- acting ----------------------------------------------------------------------------------------------------------- */

static peft__rotation oft_rotation(const peft__adapter *a, const peft__adapter_param *p, int64_t in) {
    peft__rotation r = {.block = oft_block_of(p->p.cols), .shared = peft__opt_bool(&a->opts, "block_share"), .levels = 1};
    bool series = peft__opt_bool(&a->opts, "use_cayley_neumann");
    r.count = in / r.block;
    if (series) { r.terms = (int32_t)peft__opt_int(&a->opts, "num_cayley_neumann_terms"); }
    if (peft__opt_bool(&a->opts, "coft")) { r.limit = peft__opt_float(&a->opts, "eps") / sqrt((double)p->p.rows); }
    return r;
}

static peft__val oft_before(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s,
                            peft__val x) {
    if (!at->product) { return x; } /* saved whole */
    peft__rotation r = oft_rotation(a, peft__adapter_param_at(a, (size_t)at->first), s->in);
    r.dropout = at->dropout;
    r.key = at->key;
    return peft__op_rotate(t, x, peft__adapter_tape_param(a, at, 0, t), &r);
}

static peft_status oft_merge(const peft__adapter *a, const peft__attachment *at, const peft__site *s, const peft__run *run,
                             peft__real *weight) {
    peft_status st = PEFT_OK;
    const peft__adapter_param *p = peft__adapter_param_at(a, (size_t)at->first);
    peft__rotation r = oft_rotation(a, p, s->in);
    TRY(peft__rotate_check_strength(a, at));
    TRY(peft__rotate_weight(a->mem, run, &r, p->p.value, at->strength < 0, s->out, weight));
out:
    return st;
}

/* Constrained: the values themselves are shortened, so that the next step starts from there. */
static peft_status oft_after_step(peft__adapter *a, const peft__real *grads, double gscale, int64_t step, int64_t total,
                                  peft__real *state) {
    (void)grads;
    (void)gscale;
    (void)step;
    (void)total;
    (void)state;
    if (!peft__opt_bool(&a->opts, "coft")) { return PEFT_OK; }
    for (size_t i = 0; i < peft__adapter_param_count(a); i++) {
        const peft__adapter_param *p = peft__adapter_param_at(a, i);
        if (p->whole) { continue; }
        peft__rotation r = oft_rotation(a, p, a->base->sites[p->site].in);
        for (int64_t u = 0; u < p->p.rows; u++) {
            peft__real *values = p->p.value + u * p->p.cols;
            double share = peft__rotation_share(&r, values);
            if (share < 1) { peft__kernels_generic.scale(values, PEFT__R(share), values, p->p.cols); }
        }
    }
    return PEFT_OK;
}

/* ---- adapter_config.json ---------------------------------------------------------------------------------------------- */

static const char *const oft_keys[] = {"r", "oft_block_size", "module_dropout", "coft", "eps", "block_share",
                                       "use_cayley_neumann", "num_cayley_neumann_terms", "init_weights"};

static void oft_config_out(const peft__adapter *a, peft__json_out *j) {
    peft__config_put_targets(&a->opts, j);
    for (size_t i = 0; i < PEFT__COUNT(oft_keys); i++) { peft__config_put(&a->opts, oft_keys[i], j); }
    peft__json_key(j, "bias");
    peft__json_put_text(j, "none");
}

static peft_status oft_config_in(peft__optset *opts, const peft__json *config, const char *what) {
    static const char *const refused[] = {"bias"};
    peft_status st = PEFT_OK;
    if (peft__json_find(config, "oft_block_size") == NULL) {
        FAIL(PEFT_E_UNSUPPORTED, "%s: there is no oft_block_size: OFT of an old PEFT, which newer ones do not read either", what);
    }
    TRY(peft__config_refuse(config, what, refused, PEFT__COUNT(refused)));
    TRY(peft__config_get_targets(opts, config, what));
    for (size_t i = 0; i < PEFT__COUNT(oft_keys); i++) { TRY(peft__config_get(opts, config, what, oft_keys[i])); }
out:
    return st;
}

const peft__method peft__method_oft = {
    .name = "oft",
    .hf_type = "OFT",
    .schema = &oft_schema,
    .build = oft_build,
    .init = oft_init,
    .before = oft_before,
    .merge = oft_merge,
    .reversible = true,
    .after_step = oft_after_step,
    .config_out = oft_config_out,
    .config_in = oft_config_in,
    .learning_rate = 2e-3,
};
