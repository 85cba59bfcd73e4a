/* boft.c - BOFT: a rotation of a weight's rows as a product of sparse ones, like the steps of a fast Fourier transform (Liu et
 * al. 2024, arXiv 2311.06243), and a length of each row.
 *
 *   y = s o (W (x B)) + b, a merged weight diag(s) W B'      B = B_(m-1) .. B_1 B_0, s [out]
 *   B_l = P_l diag(R_l1, .. R_ln) P_l', blocks [b, b], n b = in
 *   P_l: the two halves of a block are columns that lie 2^l halves apart
 *   R: the exact Cayley transform of half of (A - A'), A trained (cayley.c); A starts as 0, s as 1
 *
 * The blocks are given by their size (boft_block_size) or their number (boft_block_num). boft_dropout leaves a part of the
 * blocks of one factor, drawn anew, alone in each training step. Options and keys are those of Hugging Face PEFT,
 * "<path>.boft_R" [m, n, b, b] and "<path>.boft_s" [out, 1]; unlike there, Conv1D bases work, and more than one factor needs no
 * GPU: without one PEFT makes a single factor and writes the number that was asked for, so that such a folder's config has to
 * be set right by hand.
 *
 * Left out: convolutions. */
#include "peft/rotate.h"

enum { BOFT_R = 0, BOFT_S = 1 };

static const peft__option boft_options[] = {
    {"boft_block_size", PEFT__OPT_INT, "4", 0, 1 << 20, NULL, "columns of a block; 0: as boft_block_num says"},
    {"boft_block_num", PEFT__OPT_INT, "0", 0, 1 << 20, NULL,
     "number of blocks that a weight's columns are cut into; 0: as boft_block_size says"},
    {"boft_n_butterfly_factor", PEFT__OPT_INT, "1", 1, 20, NULL,
     "factors of the rotation; each more doubles what a column can reach"},
    {"boft_dropout", PEFT__OPT_FLOAT, "0.0", 0, 0.999, NULL,
     "part of the blocks of one factor that a training step leaves alone"},
    {"init_weights", PEFT__OPT_BOOL, "true", 1, 0, NULL, "start as the base; false: from N(0, 0.01) and N(1, 0.01)"},
    PEFT__TARGET_OPTIONS,
    PEFT__LAYER_OPTIONS,
    {"fan_in_fan_out", PEFT__OPT_BOOL, "false", 1, 0, NULL, "set by the library: the base keeps its weights as [in, out]"},
};
static const peft__schema boft_schema = {"method:boft", boft_options, PEFT__COUNT(boft_options)};

/* ---- building --------------------------------------------------------------------------------------------------------- */

static peft_status boft_block(const peft__adapter *a, const peft__site *s, int64_t *block) {
    peft_status st = PEFT_OK;
    int64_t num = peft__opt_int(&a->opts, "boft_block_num");
    int64_t given = num > 0 ? num : peft__opt_int(&a->opts, "boft_block_size");
    int64_t factors = peft__opt_int(&a->opts, "boft_n_butterfly_factor"), reach = (int64_t)1 << (factors - 1);
    const char *key = num > 0 ? "boft_block_num" : "boft_block_size";
    if (s->in % given != 0) {
        FAIL(PEFT_E_SHAPE, "%s is %lld, which does not divide the %lld columns of \"%s\"", key, (long long)given,
             (long long)s->in, s->path);
    }
    int64_t b = num > 0 ? s->in / num : given, n = s->in / b;
    if (n % reach != 0) {
        FAIL(PEFT_E_SHAPE,
             "boft_n_butterfly_factor is %lld, which needs a multiple of %lld blocks; \"%s\" has %lld of %lld columns",
             (long long)factors, (long long)reach, s->path, (long long)n, (long long)b);
    }
    if (factors > 1 && b % 2 != 0) {
        FAIL(PEFT_E_SHAPE,
             "boft_n_butterfly_factor is %lld, which needs blocks of an even size; those of \"%s\" have %lld columns",
             (long long)factors, s->path, (long long)b);
    }
    *block = b;
out:
    return st;
}

static peft_status boft_add_site(peft__adapter *a, const peft__site *s, bool target, bool saved) {
    peft_status st = PEFT_OK;
    peft__attachment *at = NULL;
    int64_t b = 1;
    if (saved) { return peft__adapter_save_site(a, s); }
    if (!target) { return PEFT_OK; }
    TRY(boft_block(a, s, &b));
    TRY(peft__adapter_attach(a, s, &at));
    at->product = true;
    at->dropout = peft__opt_float(&a->opts, "boft_dropout");
    int64_t dims[4] = {peft__opt_int(&a->opts, "boft_n_butterfly_factor"), s->in / b, b, b};
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.boft_R", s->path), BOFT_R, dims[0] * s->in, b, 2,
                                false, false));
    peft__adapter_shape(a, 4, dims);
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.boft_s", s->path), BOFT_S, s->out, 1, 2, false,
                                false));
out:
    return st;
}

static peft_status boft_build(peft__adapter *a) {
    peft_status st = PEFT_OK;
    TRY(peft__rotate_choose(a, "boft_block_num", "boft_block_size"));
    TRY(peft__adapter_targets(a, 1 << PEFT__SITE_LINEAR, peft__usual_projections(a->base), boft_add_site));
out:
    return st;
}

static void boft_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    double size = peft__opt_bool(&a->opts, "init_weights") ? 0 : 0.1, mean = p->slot == BOFT_S ? 1 : 0;
    if (p->whole) {
        peft__adapter_init_copy(a, i, k);
        return;
    }
    for (int64_t e = 0; e < p->p.rows * p->p.cols; e++) { p->p.value[e] = PEFT__R(mean + size * peft__rng_normal(rng)); }
}

/* ---- acting ----------------------------------------------------------------------------------------------------------- */

static peft__rotation boft_rotation(const peft__adapter *a, const peft__attachment *at, int64_t level) {
    const peft__adapter_param *p = peft__adapter_param_at(a, (size_t)at->first);
    return (peft__rotation){.block = p->dims[2],
                            .count = p->dims[1],
                            .square = true,
                            .level = (int32_t)level,
                            .levels = (int32_t)p->dims[0],
                            .dropout = at->dropout,
                            .key = at->key};
}

/* x B_(m-1) .. B_0 */
static peft__val boft_before(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s,
                             peft__val x) {
    (void)s;
    if (!at->product) { return x; } /* saved whole */
    int32_t param = peft__adapter_tape_param(a, at, BOFT_R, t);
    for (int64_t level = peft__adapter_param_at(a, (size_t)at->first)->dims[0] - 1; level >= 0; level--) {
        peft__rotation r = boft_rotation(a, at, level);
        x = peft__op_rotate(t, x, param, &r);
    }
    return x;
}

static peft__val boft_after(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val x,
                            peft__val y) {
    (void)x;
    return at->product ? peft__op_scale_about(t, y, s->bias_data, peft__adapter_tape_param(a, at, BOFT_S, t)) : y;
}

static peft_status boft_scale(const peft__adapter *a, const peft__attachment *at, const peft__site *s, const peft__run *run,
                              peft__real *weight) {
    const peft__real *scale = peft__adapter_param_at(a, (size_t)at->first + 1)->p.value;
    for (int64_t i = 0; i < s->out; i++) {
        if (at->strength < 0 && scale[i] == 0) {
            return peft__fail(PEFT_E_NUMERIC, "row %lld of \"%s\" is multiplied by 0, which cannot be taken out of it",
                              (long long)i, s->path);
        }
        run->k->scale(weight + i * s->in, at->strength < 0 ? 1 / scale[i] : scale[i], weight + i * s->in, s->in);
    }
    return PEFT_OK;
}

/* w B' = w B_0' .. B_(m-1)', one factor at a time; the other way round to undo it. */
static peft_status boft_merge(const peft__adapter *a, const peft__attachment *at, const peft__site *s, const peft__run *run,
                              peft__real *weight) {
    peft_status st = PEFT_OK;
    const peft__adapter_param *p = peft__adapter_param_at(a, (size_t)at->first);
    bool undo = at->strength < 0;
    TRY(peft__rotate_check_strength(a, at));
    for (int64_t i = 0; i < p->dims[0]; i++) {
        int64_t level = undo ? p->dims[0] - 1 - i : i;
        peft__rotation r = boft_rotation(a, at, level);
        TRY(peft__rotate_weight(a->mem, run, &r, p->p.value + level * peft__rotation_values(&r), undo, s->out, weight));
    }
    TRY(boft_scale(a, at, s, run, weight));
out:
    return st;
}

/* ---- adapter_config.json ---------------------------------------------------------------------------------------------- */

static const char *const boft_keys[] = {"boft_block_size", "boft_block_num", "boft_n_butterfly_factor", "boft_dropout",
                                        "init_weights"};

static void boft_config_out(const peft__adapter *a, peft__json_out *j) {
    peft__config_put_targets(&a->opts, j);
    for (size_t i = 0; i < PEFT__COUNT(boft_keys); i++) { peft__config_put(&a->opts, boft_keys[i], j); }
    peft__json_key(j, "bias");
    peft__json_put_text(j, "none");
}

static peft_status boft_config_in(peft__optset *opts, const peft__json *config, const char *what) {
    static const char *const refused[] = {"bias"};
    peft_status st = PEFT_OK;
    TRY(peft__config_refuse(config, what, refused, PEFT__COUNT(refused)));
    TRY(peft__config_get_targets(opts, config, what));
    for (size_t i = 0; i < PEFT__COUNT(boft_keys); i++) { TRY(peft__config_get(opts, config, what, boft_keys[i])); }
out:
    return st;
}

const peft__method peft__method_boft = {
    .name = "boft",
    .hf_type = "BOFT",
    .schema = &boft_schema,
    .build = boft_build,
    .init = boft_init,
    .before = boft_before,
    .after = boft_after,
    .merge = boft_merge,
    .reversible = true,
    .config_out = boft_config_out,
    .config_in = boft_config_in,
    .learning_rate = 1e-2,
};
