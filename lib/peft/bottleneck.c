/* bottleneck.c - bottleneck adapters: a small trained network beside or after a sub-layer, h' = h + s U f(D h).
 *
 *   houlsby   one after attention and one after the FFN, before the residual is added (Houlsby et al. 2019, arXiv 1902.00751)
 *   pfeiffer  one after the FFN; it sees h + residual, as its model adds the residual before (Pfeiffer et al. 2020, 2005.00052)
 *   parallel  one beside the FFN, reading the residual stream, scaled (He et al. 2021, arXiv 2110.04366)
 *
 * For models that normalise before each sub-layer (Llama, GPT-2), with x the residual stream and up(z) = s U f(D z + d) + u:
 *   houlsby: a = up(h) + h    pfeiffer: a = up(h + x) + h    parallel: a = up(x) + h;    the model goes on with x + a
 * Options are those of AdapterHub's BnConfig, the file format too (format_adapterhub.c). The width is hidden / reduction_factor.
 *
 * Left out: gates, stochastic depth, Compacter's hypercomplex layers, invertible adapters. */
#include <math.h>

#include "peft/method.h"

enum { BN_DOWN_W = 0, BN_DOWN_B = 1, BN_UP_W = 2, BN_UP_B = 3, BN_SCALE = 4, BN_BEFORE_W = 5, BN_BEFORE_B = 6, BN_AFTER_W = 7,
       BN_AFTER_B = 8 };

#define BN_OPTIONS(reduction, activation, factor, init, before)                                                              \
    {"reduction_factor", PEFT__OPT_FLOAT, reduction, 1e-3, 1e9, NULL, "hidden size over the width of the bottleneck"},         \
    {"reduction_factors", PEFT__OPT_MAP, "", 1, 0, NULL, "the same by layer number: {\"0\": 8, \"11\": 32}"},                  \
    {"non_linearity", PEFT__OPT_STR, activation, 1, 0, "relu|gelu|gelu_new|swish|silu|tanh|sigmoid|quick_gelu|identity",       \
     "activation between the two matrices"},                                                                                 \
    {"scaling", PEFT__OPT_STR, factor, 1, 0, NULL, "factor of the output: a number, or learned"},                             \
    {"dropout", PEFT__OPT_FLOAT, "0.0", 0, 0.999, NULL, "part of the output that is dropped in training"},                     \
    {"leave_out", PEFT__OPT_LIST, "", 1, 0, NULL, "numbers of layers without an adapter"},                                    \
    {"original_ln_before", PEFT__OPT_BOOL, before, 1, 0, NULL, "the input has the residual added"},                           \
    {"residual_before_ln", PEFT__OPT_BOOL, "true", 1, 0, NULL,                                                               \
     "the inner residual is the sub-layer's output alone, not the adapter's input"},                                         \
    {"ln_before", PEFT__OPT_BOOL, "false", 1, 0, NULL, "a trained LayerNorm on the adapter's input"},                          \
    {"ln_after", PEFT__OPT_BOOL, "false", 1, 0, NULL, "a trained LayerNorm on its output"},                                    \
    {"adapter_residual_before_ln", PEFT__OPT_BOOL, "false", 1, 0, NULL, "the inner residual is added before ln_after"},        \
    {"init_weights", PEFT__OPT_STR, init, 1, 0, "bert|mam_adapter|houlsby",                                                   \
     "initial values: N(0, 0.02); zero output; N(0, 0.01) within 0.02"},                                                     \
    {"base_model_name_or_path", PEFT__OPT_STR, "", 1, 0, NULL, "as written to adapter_config.json; unset: the model's path"}

static const peft__option houlsby_options[] = {BN_OPTIONS("16", "swish", "1.0", "bert", "false")};
static const peft__option pfeiffer_options[] = {BN_OPTIONS("16", "relu", "1.0", "bert", "true")};
static const peft__option parallel_options[] = {BN_OPTIONS("2", "relu", "4.0", "mam_adapter", "false")};
#undef BN_OPTIONS
static const peft__schema houlsby_schema = {"method:houlsby", houlsby_options, PEFT__COUNT(houlsby_options)};
static const peft__schema pfeiffer_schema = {"method:pfeiffer", pfeiffer_options, PEFT__COUNT(pfeiffer_options)};
static const peft__schema parallel_schema = {"method:parallel", parallel_options, PEFT__COUNT(parallel_options)};

static int32_t bn_act(const char *name) {
    static const struct { const char *name; int32_t act; } acts[] = {
        {"relu", PEFT__ACT_RELU}, {"gelu", PEFT__ACT_GELU}, {"gelu_new", PEFT__ACT_GELU_TANH}, {"swish", PEFT__ACT_SILU},
        {"silu", PEFT__ACT_SILU}, {"tanh", PEFT__ACT_TANH}, {"sigmoid", PEFT__ACT_SIGMOID}, {"quick_gelu", PEFT__ACT_QUICK_GELU},
    };
    for (size_t i = 0; i < PEFT__COUNT(acts); i++) {
        if (strcmp(acts[i].name, name) == 0) { return acts[i].act; }
    }
    return PEFT__ACT_IDENTITY;
}

static bool bn_is(const peft__adapter *a, const char *method) { return strcmp(a->method->name, method) == 0; }

/* ---- building -------------------------------------------------------------------------------------------------------- */

static peft_status bn_left_out(const peft__adapter *a, peft__arena *arena, int32_t layer, bool *out) {
    peft_status st = PEFT_OK;
    peft__names names;
    *out = false;
    if (peft__opt_str(&a->opts, "leave_out")[0] == '\0') { return PEFT_OK; }
    TRY(peft__names_read(arena, peft__opt_str(&a->opts, "leave_out"), "leave_out", &names));
    for (size_t i = 0; i < names.count; i++) { *out = *out || names.numbers[i] == layer; }
out:
    return st;
}

static peft_status bn_width(const peft__adapter *a, peft__arena *arena, const peft__site *s, int64_t *out) {
    peft_status st = PEFT_OK;
    const char *map = peft__opt_str(&a->opts, "reduction_factors");
    double factor = peft__opt_float(&a->opts, "reduction_factor");
    if (map[0] != '\0') {
        const peft__json *node = NULL;
        char *layer = peft__arena_printf(arena, "%d", (int)s->layer);
        if (layer == NULL) { return PEFT_E_NOMEM; }
        TRY(peft__json_parse(arena, map, strlen(map), "reduction_factors", &node));
        TRY(peft__json_float(node, "reduction_factors", "default", factor, &factor));
        TRY(peft__json_float(node, "reduction_factors", layer, factor, &factor));
        if (!(factor > 0)) { FAIL(PEFT_E_KEY, "reduction_factors: the factor of layer %s is %g, expected more than 0", layer, factor); }
    }
    *out = PEFT__MAX((int64_t)floor((double)s->out / factor), 1);
out:
    return st;
}

static peft_status bn_add(peft__adapter *a, peft__attachment *at, const char *place, const char *name, int32_t slot, int64_t rows,
                          int64_t cols, int32_t ndim) {
    return peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.%s", place, name), slot, rows, cols, ndim, false, false);
}

/* The adapter of one place: "model.layers.3.output_adapters" and its parameters. */
static peft_status bn_add_site(peft__adapter *a, const peft__site *s, const char *kind, int64_t m) {
    peft_status st = PEFT_OK;
    peft__attachment *at = NULL;
    int64_t d = s->out;
    bool before = peft__opt_bool(&a->opts, "ln_before"), after = peft__opt_bool(&a->opts, "ln_after");
    const char *dot = strrchr(s->path, '.');
    char *place = peft__arena_printf(&a->arena, "%.*s.%s", dot != NULL ? (int)(dot - s->path) : 0, s->path, kind);
    if (place == NULL) { return PEFT_E_NOMEM; }
    TRY(peft__adapter_attach(a, s, &at));
    at->dropout = peft__opt_float(&a->opts, "dropout");
    at->scale = 1;
    if (strcmp(peft__opt_str(&a->opts, "scaling"), "learned") != 0) {
        const char *text = peft__opt_str(&a->opts, "scaling");
        if (!peft__parse_f64(text, strlen(text), &at->scale)) {
            FAIL(PEFT_E_KEY, "option \"scaling\" is \"%s\", expected a number or learned", text);
        }
    }
    if (before) { TRY(bn_add(a, at, place, "adapter_norm_before.weight", BN_BEFORE_W, 1, d, 1)); }
    if (before) { TRY(bn_add(a, at, place, "adapter_norm_before.bias", BN_BEFORE_B, 1, d, 1)); }
    TRY(bn_add(a, at, place, before ? "adapter_down.1.weight" : "adapter_down.0.weight", BN_DOWN_W, m, d, 2));
    TRY(bn_add(a, at, place, before ? "adapter_down.1.bias" : "adapter_down.0.bias", BN_DOWN_B, 1, m, 1));
    TRY(bn_add(a, at, place, "adapter_up.weight", BN_UP_W, d, m, 2));
    TRY(bn_add(a, at, place, "adapter_up.bias", BN_UP_B, 1, d, 1));
    if (strcmp(peft__opt_str(&a->opts, "scaling"), "learned") == 0) { TRY(bn_add(a, at, place, "scaling", BN_SCALE, 1, 1, 1)); }
    if (after) { TRY(bn_add(a, at, place, "adapter_norm_after.weight", BN_AFTER_W, 1, d, 1)); }
    if (after) { TRY(bn_add(a, at, place, "adapter_norm_after.bias", BN_AFTER_B, 1, d, 1)); }
out:
    return st;
}

static peft_status bn_build(peft__adapter *a) {
    peft_status st = PEFT_OK;
    size_t added = 0;
    peft__arena arena;
    peft__arena_init(&arena, a->mem);
    for (size_t i = 0; i < a->base->n_sites; i++) {
        const peft__site *s = &a->base->sites[i];
        bool after_attention = s->role == PEFT__ROLE_ATTN, out = false;
        int64_t m = 0;
        if (s->kind != PEFT__SITE_STREAM || (after_attention && !bn_is(a, "houlsby"))) { continue; }
        TRY(bn_left_out(a, &arena, s->layer, &out));
        if (out) { continue; }
        TRY(bn_width(a, &arena, s, &m));
        TRY(bn_add_site(a, s, after_attention ? "attention_adapters" : "output_adapters", m));
        added++;
    }
    if (added == 0) { FAIL(PEFT_E_NOT_FOUND, "option \"leave_out\" leaves no layer for an adapter"); }
out:
    peft__arena_free(&arena);
    return st;
}

static void bn_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    const char *how = peft__opt_str(&a->opts, "init_weights");
    bool ones = p->slot == BN_SCALE || p->slot == BN_BEFORE_W || p->slot == BN_AFTER_W;
    bool matrix = p->slot == BN_DOWN_W || p->slot == BN_UP_W;
    bool zero = !ones && (!matrix || (strcmp(how, "mam_adapter") == 0 && p->slot == BN_UP_W));
    double bound = 1 / sqrt((double)p->p.cols);
    (void)k;
    for (int64_t e = 0; e < p->p.rows * p->p.cols; e++) {
        double v = ones ? 1 : 0;
        if (zero || ones) {
            p->p.value[e] = PEFT__R(v);
            continue;
        }
        if (strcmp(how, "mam_adapter") == 0) {
            v = bound * (2 * peft__rng_uniform(rng) - 1);
        } else if (strcmp(how, "houlsby") == 0) {
            do { v = 0.01 * peft__rng_normal(rng); } while (fabs(v) > 0.02);
        } else {
            v = 0.02 * peft__rng_normal(rng);
        }
        p->p.value[e] = PEFT__R(v);
    }
}

/* ---- the network -------------------------------------------------------------------------------------------------------- */

static int32_t bn_param(const peft__adapter *a, const peft__attachment *at, int32_t slot, peft__tape *t) {
    return peft__adapter_tape_param(a, at, slot, t);
}

/* s U f(D [LN](z) + d) + u, dropped out */
static peft__val bn_network(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val z) {
    int32_t down = bn_param(a, at, BN_DOWN_W, t), scale = bn_param(a, at, BN_SCALE, t);
    if (t->status != PEFT_OK) { return PEFT__NONE; }
    if (peft__opt_bool(&a->opts, "ln_before")) {
        z = peft__op_layer_norm(t, z, NULL, NULL, bn_param(a, at, BN_BEFORE_W, t), bn_param(a, at, BN_BEFORE_B, t), 1e-5);
    }
    z = peft__op_linear(t, z, NULL, NULL, down, bn_param(a, at, BN_DOWN_B, t), peft__tape_param_at(t, down)->rows);
    z = peft__op_act(t, bn_act(peft__opt_str(&a->opts, "non_linearity")), z);
    z = peft__op_linear(t, z, NULL, NULL, bn_param(a, at, BN_UP_W, t), bn_param(a, at, BN_UP_B, t), s->out);
    if (scale != PEFT__NONE || at->scale != 1) { z = peft__op_scale_all(t, z, at->scale, scale); }
    return peft__op_dropout(t, z, at->dropout, at->key);
}

static peft__val bn_stream(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val h,
                           peft__val residual) {
    bool parallel = bn_is(a, "parallel"), after = peft__opt_bool(&a->opts, "ln_after");
    bool residual_first = peft__opt_bool(&a->opts, "adapter_residual_before_ln");
    peft__val z = h, inner = h;
    if (parallel) {
        z = residual;
    } else if (peft__opt_bool(&a->opts, "original_ln_before")) {
        z = peft__op_add(t, residual, h);
        if (!peft__opt_bool(&a->opts, "residual_before_ln")) { inner = z; }
    }
    peft__val up = bn_network(a, at, t, s, z);
    if (after && residual_first) { up = peft__op_add(t, inner, up); }
    if (after) {
        up = peft__op_layer_norm(t, up, NULL, NULL, bn_param(a, at, BN_AFTER_W, t), bn_param(a, at, BN_AFTER_B, t), 1e-5);
    }
    return after && residual_first ? up : peft__op_add(t, inner, up);
}

#define BN_METHOD(method)                                                                                                      \
    const peft__method peft__method_##method = {.name = #method, .schema = &method##_schema, .build = bn_build, .init = bn_init, \
                                                .stream = bn_stream, .hub = true, .learning_rate = 1e-3}
BN_METHOD(houlsby);
BN_METHOD(pfeiffer);
BN_METHOD(parallel);
#undef BN_METHOD
