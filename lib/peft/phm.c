/* phm.c - Compacter's layers (Mahabadi et al. 2021, arXiv 2106.04647, eq. 5; the sum of Kronecker products: Zhang et al. 2021,
 * 2102.08597): in place of a matrix [out, in], with n = phm_dim,
 *
 *   y = x H + b,  H = sum over i < n of rule_i (x) (left_i right_i)     rule_i [n, n], left_i [in / n, r], right_i [r, out / n]
 *
 * The rules are one for all places (shared_phm_rule), and the W_i may be (shared_W_phm: one set for the matrices down, one for
 * those up). Files have them as AdapterHub does, in three dimensions:
 *   PLACE.adapter_down.0.W_left [n, in / n, r], .W_right [n, r, out / n] (or .W [n, in / n, out / n]), .b [out]
 *   PREFIX.shared_parameters.NAME.phm_rule [n, n, n] (or phm_rule_left [n, n, 1], phm_rule_right [n, 1, n]), W_down_left, ...
 *   PLACE.adapter_down.0.phm_rule, where rules are not shared
 *
 * Where adapters 1.3.0 does otherwise than its options say, this does what they say: initial W_i (there Glorot's normal ones,
 * whatever hypercomplex_nonlinearity is), learn_phm=false (its train_adapter trains the rules all the same), shared_W_phm
 * without factors (fails there).
 *
 * Left out: init_weights for these layers, which start by options of their own. */
#include <math.h>

#include "peft/phm.h"

/* ---- building ---------------------------------------------------------------------------------------------------- */

static peft_status phm_add(peft__adapter *a, peft__attachment *at, const char *place, const char *name, int32_t slot,
                           const int64_t dims[3], bool frozen) {
    char *key = peft__arena_printf(&a->arena, "%s.%s", place, name);
    peft_status st = peft__adapter_add_param(a, at, key, slot, dims[0] * dims[1], dims[2], 3, false, frozen);
    if (st == PEFT_OK) { peft__adapter_shape(a, 3, dims); }
    return st;
}

static peft_status phm_add_rule(peft__adapter *a, peft__attachment *at, const char *place, int32_t base) {
    peft_status st = PEFT_OK;
    int64_t n = peft__opt_int(&a->opts, "phm_dim");
    const int64_t whole[3] = {n, n, n}, left[3] = {n, n, 1}, right[3] = {n, 1, n};
    bool frozen = !peft__opt_bool(&a->opts, "learn_phm");
    if (!peft__opt_bool(&a->opts, "factorized_phm_rule")) {
        TRY(phm_add(a, at, place, "phm_rule", base + PEFT__PHM_RULE, whole, frozen));
        goto out;
    }
    TRY(phm_add(a, at, place, "phm_rule_left", base + PEFT__PHM_RULE, left, frozen));
    TRY(phm_add(a, at, place, "phm_rule_right", base + PEFT__PHM_RULE_RIGHT, right, frozen));
out:
    return st;
}

/* name: of W in keys, "W" or "W_down". */
static peft_status phm_add_w(peft__adapter *a, peft__attachment *at, const char *place, const char *name, int32_t base,
                             int64_t in, int64_t out) {
    peft_status st = PEFT_OK;
    int64_t n = peft__opt_int(&a->opts, "phm_dim"), r = peft__opt_int(&a->opts, "phm_rank");
    const int64_t whole[3] = {n, in / n, out / n}, left[3] = {n, in / n, r}, right[3] = {n, r, out / n};
    if (!peft__opt_bool(&a->opts, "factorized_phm_W")) {
        TRY(phm_add(a, at, place, name, base + PEFT__PHM_W, whole, false));
        goto out;
    }
    const char *names[2] = {peft__arena_printf(&a->arena, "%s_left", name), peft__arena_printf(&a->arena, "%s_right", name)};
    if (names[0] == NULL || names[1] == NULL) { return PEFT_E_NOMEM; }
    TRY(phm_add(a, at, place, names[0], base + PEFT__PHM_W, left, false));
    TRY(phm_add(a, at, place, names[1], base + PEFT__PHM_W_RIGHT, right, false));
out:
    return st;
}

/* n must divide both widths; the message names a factor that leaves such a width. */
static peft_status phm_check(const peft__adapter *a, int64_t d, int64_t m) {
    int64_t n = peft__opt_int(&a->opts, "phm_dim");
    if (d % n != 0) {
        return peft__fail(PEFT_E_KEY, "phm_dim %lld does not divide the hidden size %lld", (long long)n, (long long)d);
    }
    if (m % n != 0) {
        return peft__fail(PEFT_E_KEY,
                          "phm_dim %lld does not divide the bottleneck's width %lld, which is the hidden size %lld over the"
                          " reduction factor; a factor of %g would do",
                          (long long)n, (long long)m, (long long)d, (double)d / (double)PEFT__MAX(m - m % n, n));
    }
    return PEFT_OK;
}

peft_status peft__phm_add(peft__adapter *a, peft__attachment *at, const char *place, int32_t base, int64_t in, int64_t out) {
    peft_status st = PEFT_OK;
    bool down = base == PEFT__PHM_DOWN;
    if (place == NULL) { return PEFT_E_NOMEM; }
    TRY(phm_check(a, down ? in : out, down ? out : in));
    if (!peft__opt_bool(&a->opts, "shared_phm_rule")) { TRY(phm_add_rule(a, at, place, base)); }
    if (!peft__opt_bool(&a->opts, "shared_W_phm")) { TRY(phm_add_w(a, at, place, "W", base, in, out)); }
    if (peft__opt_bool(&a->opts, "phm_bias")) {
        char *key = peft__arena_printf(&a->arena, "%s.b", place);
        TRY(peft__adapter_add_param(a, at, key, base + PEFT__PHM_BIAS, 1, out, 1, false, false));
    }
out:
    return st;
}

peft_status peft__phm_add_shared(peft__adapter *a, const char *prefix, int64_t d, int64_t m) {
    peft_status st = PEFT_OK;
    peft__attachment none = {.site = -1};
    char *place = peft__arena_printf(&a->arena, "%sshared_parameters", prefix);
    if (place == NULL) { return PEFT_E_NOMEM; }
    if (peft__opt_bool(&a->opts, "shared_phm_rule")) { TRY(phm_add_rule(a, &none, place, PEFT__PHM_SHARED)); }
    if (peft__opt_bool(&a->opts, "shared_W_phm")) {
        TRY(phm_add_w(a, &none, place, "W_down", PEFT__PHM_DOWN, d, m));
        TRY(phm_add_w(a, &none, place, "W_up", PEFT__PHM_UP, m, d));
    }
out:
    return st;
}

/* ---- initial values ---------------------------------------------------------------------------------------------- */

/* U(-size, size), or N(0, size). */
static void phm_fill(const peft__param *p, peft__rng *rng, bool uniform, double size) {
    for (int64_t e = 0; e < p->rows * p->cols; e++) {
        p->value[e] = PEFT__R(uniform ? size * (2 * peft__rng_uniform(rng) - 1) : size * peft__rng_normal(rng));
    }
}

bool peft__phm_init(const peft__adapter *a, size_t i, peft__rng *rng) {
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    if (p->slot < PEFT__PHM_DOWN || p->slot > PEFT__PHM_SHARED + PEFT__PHM_RULE_RIGHT) { return false; }
    int32_t what = (p->slot - PEFT__PHM_DOWN) % (PEFT__PHM_UP - PEFT__PHM_DOWN);
    const char *how = peft__opt_str(&a->opts, "hypercomplex_nonlinearity");
    double range = peft__opt_float(&a->opts, "phm_init_range");
    if (what == PEFT__PHM_BIAS) { return true; } /* zero */
    if (what == PEFT__PHM_RULE || what == PEFT__PHM_RULE_RIGHT) {
        bool uniform = strcmp(peft__opt_str(&a->opts, "phm_c_init"), "uniform") == 0, shared = p->site < 0;
        phm_fill(&p->p, rng, uniform, !shared ? 0.01 : uniform ? 1 : range);
        return true;
    }
    double fans = (double)(p->dims[1] + p->dims[2]); /* of each of the n matrices */
    if (strcmp(how, "normal") == 0) {
        phm_fill(&p->p, rng, false, range);
    } else {
        bool uniform = strcmp(how, "glorot-uniform") == 0;
        phm_fill(&p->p, rng, uniform, sqrt((uniform ? 6 : 2) / fans));
    }
    return true;
}

/* ---- acting ------------------------------------------------------------------------------------------------------ */

/* A parameter of this place, or else the shared one. */
static int32_t phm_param(const peft__adapter *a, const peft__attachment *at, peft__tape *t, int32_t slot, int32_t shared) {
    int32_t own = peft__adapter_tape_param(a, at, slot, t);
    for (size_t i = a->params.len; own == PEFT__NONE && i-- > 0;) {
        const peft__adapter_param *p = peft__adapter_param_at(a, i);
        if (p->site < 0 && p->slot == shared) { own = peft__adapter_tape_copy(a, (int32_t)i, t); }
    }
    return own;
}

peft__val peft__phm_emit(const peft__adapter *a, const peft__attachment *at, peft__tape *t, peft__val x, int32_t base,
                         int64_t out) {
    int32_t params[5];
    for (int32_t j = 0; j < 5; j++) {
        params[j] = phm_param(a, at, t, base + j, j <= PEFT__PHM_RULE_RIGHT ? PEFT__PHM_SHARED + j : base + j);
    }
    return peft__op_phm(t, x, params, peft__opt_int(&a->opts, "phm_dim"), out);
}
