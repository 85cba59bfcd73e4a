/* bottleneck.c - bottleneck adapters: a small trained network beside or after a sub-layer, h' = h + s U f(D h).
 *
 *   houlsby      one after attention and one after the FFN, before the residual is added (Houlsby et al. 2019, arXiv 1902.00751)
 *   pfeiffer     one after the FFN; it sees h + residual, as its model adds that before (Pfeiffer et al. 2020, 2005.00052)
 *   parallel     one beside the FFN, reading the residual stream, scaled (He et al. 2021, arXiv 2110.04366)
 *   compacter    houlsby's places, with matrices that are sums of Kronecker products (phm.c); compacter++: pfeiffer's place
 *
 * For models that normalise before each sub-layer (Llama, GPT-2), with x the residual stream and up(z) = s (U f(D z + d) + u):
 *   houlsby: a = up(h) + h    pfeiffer: a = up(h + x) + h    parallel: a = up(x) + h;    the model goes on with x + a
 * (original_ln_after=false: with a alone.) In models that normalise after it (BERT) pfeiffer reads that norm of the sum, a = up(LN(h +
 * x)) + h, as it did where such a layer came before it. s is a number, a trained scalar or a trained vector. With use_gating, up is
 * multiplied by one number a row, the mean over its tokens of sigmoid(w z + b): op_gate.c, UniPELT (Mao et al. 2022, arXiv 2110.07577).
 * adapter_drop: in each training step, a random number of first layers are without (Rueckle et al. 2021, arXiv 2010.11918).
 * Options are those of AdapterHub's BnConfig, the file format too (format_adapterhub.c). The width is hidden / reduction_factor.
 *
 * Invertible adapters are invertible.c. Left out: leaky ReLU; "post_add" for residual_before_ln,
 * the sum before the norm that follows it. */
#include <math.h>

#include "peft/hub.h"
#include "peft/invertible.h"
#include "peft/phm.h"

enum { BN_DOWN_W = 0, BN_DOWN_B = 1, BN_UP_W = 2, BN_UP_B = 3, BN_SCALE = 4, BN_BEFORE_W = 5, BN_BEFORE_B = 6, BN_AFTER_W = 7,
       BN_AFTER_B = 8, BN_GATE_W = 9, BN_GATE_B = 10 };

/* attention: also after attention; before, factor, init: of original_ln_before, scaling and init_weights. */
#define BN_OPTIONS(attention, reduction, activation, factor, init, before)                                                    \
    {"mh_adapter", PEFT__OPT_BOOL, attention, 1, 0, NULL, "an adapter after attention in each layer"},                         \
    {"output_adapter", PEFT__OPT_BOOL, "true", 1, 0, NULL, "an adapter after the FFN in each layer"},                         \
    {"cross_adapter", PEFT__OPT_BOOL, "false", 1, 0, NULL, "an adapter after attention to the encoder in each decoder layer"}, \
    {"reduction_factor", PEFT__OPT_FLOAT, reduction, 1e-3, 1e9, NULL, "hidden size over the width of the bottleneck"},         \
    {"reduction_factors", PEFT__OPT_MAP, "", 1, 0, NULL, "the same by layer number: {\"0\": 8, \"11\": 32}"},                  \
    {"non_linearity", PEFT__OPT_STR, activation, 1, 0,                                                                       \
     "relu|gelu|gelu_new|gelu_pytorch_tanh|swish|silu|tanh|sigmoid|quick_gelu|linear|identity",                               \
     "activation between the two matrices"},                                                                                 \
    {"scaling", PEFT__OPT_STR, factor, 1, 0, NULL, "factor of the output: a number, learned, or channel: one a column"},       \
    {"use_gating", PEFT__OPT_BOOL, "false", 1, 0, NULL, "a trained gate: one factor for each row of tokens"},                  \
    {"dropout", PEFT__OPT_FLOAT, "0.0", 0, 0.999, NULL, "part of the output that is dropped in training"},                     \
    {"stochastic_depth", PEFT__OPT_FLOAT, "0.0", 0, 0.999, NULL, "part of the rows that skip an adapter in training"},         \
    {"adapter_drop", PEFT__OPT_INT, "0", 0, 100000, NULL,                                                                    \
     "in training, the first 0 to this many layers, by chance, are without (AdapterDrop)"},                                  \
    {"leave_out", PEFT__OPT_LIST, "", 1, 0, NULL, "numbers of layers without an adapter"},                                    \
    {"original_ln_before", PEFT__OPT_BOOL, before, 1, 0, NULL, "the input has the residual added"},                           \
    {"original_ln_after", PEFT__OPT_BOOL, "true", 1, 0, NULL, "the residual is added to the output"},                         \
    {"residual_before_ln", PEFT__OPT_BOOL, "true", 1, 0, NULL,                                                               \
     "the inner residual is the sub-layer's output alone, not the adapter's input"},                                         \
    {"ln_before", PEFT__OPT_BOOL, "false", 1, 0, NULL, "a trained LayerNorm on the adapter's input"},                          \
    {"ln_after", PEFT__OPT_BOOL, "false", 1, 0, NULL, "a trained LayerNorm on its output"},                                    \
    {"adapter_residual_before_ln", PEFT__OPT_BOOL, "false", 1, 0, NULL, "the inner residual is added before ln_after"},        \
    {"init_weights", PEFT__OPT_STR, init, 1, 0, "bert|mam_adapter|houlsby",                                                   \
     "initial values: N(0, 0.02); zero output; N(0, 0.01) within 0.02"},                                                     \
    {"init_weights_seed", PEFT__OPT_INT, "-1", -1, 4294967295.0, NULL, "all places start alike, from this; -1: each its own"}, \
    {"base_model_name_or_path", PEFT__OPT_STR, "", 1, 0, NULL, "as written to adapter_config.json; unset: the model's path"}
#define BN_TABLE(method, named, phm, inv, ...)                                                                                \
    static const peft__option method##_options[] = {BN_OPTIONS(__VA_ARGS__), PEFT__PHM_OPTIONS(phm),                          \
                                                    PEFT__INVERTIBLE_OPTIONS(inv)};                                          \
    static const peft__schema method##_schema = {"method:" named, method##_options, PEFT__COUNT(method##_options)}

BN_TABLE(houlsby, "houlsby", "false", "none", "true", "16", "swish", "1.0", "bert", "false");
BN_TABLE(pfeiffer, "pfeiffer", "false", "none", "false", "16", "relu", "1.0", "bert", "true");
BN_TABLE(parallel, "parallel", "false", "none", "false", "2", "relu", "4.0", "mam_adapter", "false");
BN_TABLE(houlsby_inv, "houlsby_inv", "false", "nice", "true", "16", "swish", "1.0", "bert", "false");
BN_TABLE(pfeiffer_inv, "pfeiffer_inv", "false", "nice", "false", "16", "relu", "1.0", "bert", "true");
BN_TABLE(compacter, "compacter", "true", "none", "true", "32", "gelu", "1.0", "bert", "false");
BN_TABLE(compacterpp, "compacter++", "true", "none", "false", "32", "gelu", "1.0", "bert", "true");
#undef BN_TABLE
#undef BN_OPTIONS

int32_t peft__bottleneck_act(const char *name) {
    static const struct { const char *name; int32_t act; } acts[] = {
        {"relu", PEFT__ACT_RELU}, {"gelu", PEFT__ACT_GELU}, {"gelu_new", PEFT__ACT_GELU_TANH},
        {"gelu_pytorch_tanh", PEFT__ACT_GELU_TANH}, {"swish", PEFT__ACT_SILU}, {"silu", PEFT__ACT_SILU},
        {"tanh", PEFT__ACT_TANH}, {"sigmoid", PEFT__ACT_SIGMOID}, {"quick_gelu", PEFT__ACT_QUICK_GELU},
    };
    for (size_t i = 0; i < PEFT__COUNT(acts); i++) {
        if (strcmp(acts[i].name, name) == 0) { return acts[i].act; }
    }
    return PEFT__ACT_IDENTITY;
}

static bool bn_parallel(const peft__adapter *a) { return strcmp(a->method->name, "parallel") == 0; }
static bool bn_scaling_is(const peft__adapter *a, const char *kind) {
    return strcmp(peft__opt_str(&a->opts, "scaling"), kind) == 0;
}

/* ---- building -------------------------------------------------------------------------------------------------------- */

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
    double d = (double)s->out;
    *out = PEFT__MAX((int64_t)round((d - fmod(d, factor)) / factor), 1); /* Python's d // factor */
out:
    return st;
}

static peft_status bn_add(peft__adapter *a, peft__attachment *at, const char *place, const char *name, int32_t slot, int64_t rows,
                          int64_t cols, int32_t ndim) {
    char *key = peft__arena_printf(&a->arena, "%s.%s", place, name);
    return peft__adapter_add_param(a, at, key, slot, rows, cols, ndim, false, false);
}

static peft_status bn_add_network(peft__adapter *a, peft__attachment *at, const char *place, int64_t d, int64_t m) {
    peft_status st = PEFT_OK;
    bool before = peft__opt_bool(&a->opts, "ln_before");
    if (peft__opt_bool(&a->opts, "phm_layer")) {
        TRY(peft__phm_add(a, at, peft__arena_printf(&a->arena, "%s.adapter_down.%d", place, before ? 1 : 0), PEFT__PHM_DOWN, d, m));
        TRY(peft__phm_add(a, at, peft__arena_printf(&a->arena, "%s.adapter_up", place), PEFT__PHM_UP, m, d));
        goto out;
    }
    TRY(bn_add(a, at, place, before ? "adapter_down.1.weight" : "adapter_down.0.weight", BN_DOWN_W, m, d, 2));
    TRY(bn_add(a, at, place, before ? "adapter_down.1.bias" : "adapter_down.0.bias", BN_DOWN_B, 1, m, 1));
    TRY(bn_add(a, at, place, "adapter_up.weight", BN_UP_W, d, m, 2));
    TRY(bn_add(a, at, place, "adapter_up.bias", BN_UP_B, 1, d, 1));
out:
    return st;
}

/* The adapter of one place and its parameters. */
static peft_status bn_add_site(peft__adapter *a, const peft__site *s, int64_t m) {
    peft_status st = PEFT_OK;
    peft__attachment *at = NULL;
    int64_t d = s->out;
    bool before = peft__opt_bool(&a->opts, "ln_before"), after = peft__opt_bool(&a->opts, "ln_after");
    bool gate = peft__opt_bool(&a->opts, "use_gating"), channel = bn_scaling_is(a, "channel");
    const char *factor = peft__opt_str(&a->opts, "scaling");
    char *place = peft__hub_place(&a->arena, s);
    if (place == NULL) { return PEFT_E_NOMEM; }
    if (s->norm != NULL && !peft__opt_bool(&a->opts, "original_ln_after")) {
        FAIL(PEFT_E_UNSUPPORTED, "option \"original_ln_after\" is false, and the norm \"%s\" that follows cannot be left out",
             s->norm->path);
    }
    TRY(peft__adapter_attach(a, s, &at));
    at->dropout = peft__opt_float(&a->opts, "dropout");
    at->scale = 1;
    at->rank = m;
    if (!channel && !bn_scaling_is(a, "learned") && !peft__parse_f64(factor, strlen(factor), &at->scale)) {
        FAIL(PEFT_E_KEY, "option \"scaling\" is \"%s\", expected a number, learned or channel", factor);
    }
    if (before) { TRY(bn_add(a, at, place, "adapter_norm_before.weight", BN_BEFORE_W, 1, d, 1)); }
    if (before) { TRY(bn_add(a, at, place, "adapter_norm_before.bias", BN_BEFORE_B, 1, d, 1)); }
    TRY(bn_add_network(a, at, place, d, m));
    if (channel || bn_scaling_is(a, "learned")) { TRY(bn_add(a, at, place, "scaling", BN_SCALE, 1, channel ? d : 1, 1)); }
    if (after) { TRY(bn_add(a, at, place, "adapter_norm_after.weight", BN_AFTER_W, 1, d, 1)); }
    if (after) { TRY(bn_add(a, at, place, "adapter_norm_after.bias", BN_AFTER_B, 1, d, 1)); }
    if (gate) { TRY(bn_add(a, at, place, "gate.weight", BN_GATE_W, 1, d, 2)); }
    if (gate) { TRY(bn_add(a, at, place, "gate.bias", BN_GATE_B, 1, 1, 1)); }
out:
    return st;
}

/* What the whole adapter has once; its keys stand under the model without its head: "model.". s: the first place. */
static peft_status bn_add_shared(peft__adapter *a, const peft__site *s, int64_t m) {
    char *prefix = peft__hub_base(&a->arena, s);
    return prefix != NULL ? peft__phm_add_shared(a, prefix, s->out, m) : PEFT_E_NOMEM;
}

/* Options that only have a meaning without others are set to what is done. */
static peft_status bn_settle_options(peft__adapter *a) {
    peft_status st = PEFT_OK;
    if (strcmp(peft__opt_str(&a->opts, "non_linearity"), "identity") == 0) {
        TRY(peft__opt_set_str(&a->opts, "non_linearity", "linear")); /* as files call it */
    }
    if (peft__opt_bool(&a->opts, "phm_layer")) { TRY(peft__opt_set_str(&a->opts, "init_weights", "bert")); }
out:
    return st;
}

static peft_status bn_build(peft__adapter *a) {
    peft_status st = PEFT_OK;
    const peft__site *first = NULL;
    int64_t width = 0;
    peft__arena arena;
    peft__arena_init(&arena, a->mem);
    TRY(bn_settle_options(a));
    for (size_t i = 0; i < a->base->n_sites; i++) {
        const peft__site *s = &a->base->sites[i];
        const char *place = s->part == PEFT__PART_CROSS ? "cross_adapter" : s->role == PEFT__ROLE_ATTN ? "mh_adapter" : "output_adapter";
        bool out = false;
        int64_t m = 0;
        if (s->kind != PEFT__SITE_STREAM) { continue; }
        if (!peft__opt_bool(&a->opts, place)) { continue; }
        TRY(peft__hub_left_out(a, &arena, s->layer, &out));
        if (out) { continue; }
        TRY(bn_width(a, &arena, s, &m));
        if (first != NULL && m != width && peft__opt_bool(&a->opts, "phm_layer") && peft__opt_bool(&a->opts, "shared_W_phm")) {
            FAIL(PEFT_E_KEY, "shared_W_phm: the bottleneck's width is %lld in layer %d and %lld in layer %d", (long long)width,
                 (int)first->layer, (long long)m, (int)s->layer);
        }
        TRY(bn_add_site(a, s, m));
        if (first == NULL) { first = s, width = m; }
    }
    if (first == NULL && !peft__invertible_on(a)) {
        FAIL(PEFT_E_NOT_FOUND, "options \"mh_adapter\", \"output_adapter\", \"cross_adapter\" and \"leave_out\" leave no layer for an "
             "adapter");
    }
    TRY(peft__invertible_build(a));
    if (first != NULL && peft__opt_bool(&a->opts, "phm_layer")) { TRY(bn_add_shared(a, first, width)); }
out:
    peft__arena_free(&arena);
    return st;
}

/* The key within its place, which all places have alike. */
static const char *bn_leaf(const char *key) {
    const char *at = strstr(key, "_adapters.");
    if (at != NULL) { return at; }
    for (const char *next = strstr(key, ".output."); next != NULL; next = strstr(next + 1, ".output.")) { at = next; }
    for (const char *next = strstr(key, ".layer."); next != NULL; next = strstr(next + 1, ".layer.")) { /* T5: "...layer.0.KEY" */
        bool own = next[7] >= '0' && next[7] <= '9' && next[8] == '.' && strncmp(next + 8, ".adapter", 8) == 0;
        if (own) { at = next + 8; }
    }
    return at != NULL ? at : key;
}

static void bn_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    const char *how = peft__opt_str(&a->opts, "init_weights"), *leaf = bn_leaf(p->p.name);
    int64_t seed = peft__opt_int(&a->opts, "init_weights_seed");
    bool mam = strcmp(how, "mam_adapter") == 0, houlsby = strcmp(how, "houlsby") == 0, gate = p->slot == BN_GATE_W;
    bool ones = p->slot == BN_SCALE || p->slot == BN_BEFORE_W || p->slot == BN_AFTER_W;
    bool drawn = p->slot == BN_DOWN_W || gate || (p->slot == BN_UP_W && !mam);
    peft__rng own = {peft__hash_str((uint64_t)seed, leaf, strlen(leaf)), 0};
    double bound = 1 / sqrt((double)p->p.cols);
    (void)k;
    if (seed >= 0) { rng = &own; }
    if (peft__invertible_init(a, i, rng) || peft__phm_init(a, i, rng)) { return; }
    for (int64_t e = 0; e < p->p.rows * p->p.cols; e++) {
        double v = ones ? 1 : 0;
        if (drawn && mam && !gate) {
            v = bound * (2 * peft__rng_uniform(rng) - 1);
        } else if (drawn && houlsby && !gate) {
            do { v = 0.01 * peft__rng_normal(rng); } while (fabs(v) > 0.02);
        } else if (drawn) {
            v = 0.02 * peft__rng_normal(rng);
        }
        p->p.value[e] = PEFT__R(v);
    }
}

/* ---- the network -------------------------------------------------------------------------------------------------------- */

static int32_t bn_param(const peft__adapter *a, const peft__attachment *at, int32_t slot, peft__tape *t) {
    return peft__adapter_tape_param(a, at, slot, t);
}

/* Can the products keep to some rows? What stands in the others then has no sense: no sum over rows may see it. */
static bool bn_by_rows(const peft__adapter *a) {
    return !peft__opt_bool(&a->opts, "ln_before") && !peft__opt_bool(&a->opts, "ln_after") && !peft__opt_bool(&a->opts, "use_gating") &&
           !bn_scaling_is(a, "learned") && !bn_scaling_is(a, "channel");
}

/* One of the two products; slots of its weight and bias, or of its factors. */
static peft__val bn_product(const peft__adapter *a, const peft__attachment *at, peft__tape *t, peft__val z, int32_t slot,
                            int32_t phm, int64_t out) {
    if (peft__opt_bool(&a->opts, "phm_layer")) { return peft__phm_emit(a, at, t, z, phm, out); }
    t->group = bn_by_rows(a) ? t->branch : -1;
    z = peft__op_linear(t, z, NULL, NULL, bn_param(a, at, slot, t), bn_param(a, at, slot + 1, t), out);
    t->group = -1;
    return z;
}

/* s (U f(D [LN](z) + d) + u); whole rows dropped */
static peft__val bn_network(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val z) {
    double depth = peft__opt_float(&a->opts, "stochastic_depth");
    int32_t scale = bn_param(a, at, BN_SCALE, t);
    if (t->status != PEFT_OK) { return PEFT__NONE; }
    if (peft__opt_bool(&a->opts, "ln_before")) {
        z = peft__op_layer_norm(t, z, NULL, NULL, bn_param(a, at, BN_BEFORE_W, t), bn_param(a, at, BN_BEFORE_B, t), 1e-5);
    }
    z = bn_product(a, at, t, z, BN_DOWN_W, PEFT__PHM_DOWN, at->rank);
    z = peft__op_act(t, peft__bottleneck_act(peft__opt_str(&a->opts, "non_linearity")), z);
    z = bn_product(a, at, t, z, BN_UP_W, PEFT__PHM_UP, s->out);
    if (t->training && depth > 0) { z = peft__op_row_scale(t, z, peft__op_row_keep(t, depth, at->key)); }
    if (bn_scaling_is(a, "channel")) { return peft__op_scale_columns(t, z, scale); }
    return scale != PEFT__NONE || at->scale != 1 ? peft__op_scale_all(t, z, at->scale, scale) : z;
}

/* What the network reads, and what is added to its output. */
static peft__val bn_read(const peft__adapter *a, peft__tape *t, const peft__site *s, peft__val h, peft__val residual,
                         peft__val *inner) {
    *inner = h;
    if (bn_parallel(a)) { return residual; }
    if (!peft__opt_bool(&a->opts, "original_ln_before")) { return h; }
    peft__val z = peft__op_add(t, residual, h);
    if (s->norm != NULL) { z = peft__base_norm(t, s->norm, z, PEFT__NONE, PEFT__NONE); }
    if (!peft__opt_bool(&a->opts, "residual_before_ln")) { *inner = z; }
    return z;
}

/* The model adds the residual; an adapter whose output goes on without it takes it off before. */
static peft__val bn_end(const peft__adapter *a, peft__tape *t, peft__val v, peft__val residual) {
    if (peft__opt_bool(&a->opts, "original_ln_after")) { return v; }
    return peft__op_add(t, peft__op_scale_all(t, residual, -1, PEFT__NONE), v);
}

static peft__val bn_up(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val h,
                       peft__val residual, peft__val *query, peft__val *inner) {
    *query = bn_read(a, t, s, h, residual, inner);
    *inner = bn_end(a, t, *inner, residual);
    return bn_network(a, at, t, s, *query);
}

static peft__val bn_stream(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val h,
                           peft__val residual) {
    bool after = peft__opt_bool(&a->opts, "ln_after"), parallel = bn_parallel(a);
    bool residual_first = after && !parallel && peft__opt_bool(&a->opts, "adapter_residual_before_ln");
    peft__val inner = h, z = bn_read(a, t, s, h, residual, &inner);
    peft__val up = peft__op_dropout(t, bn_network(a, at, t, s, z), at->dropout, at->key);
    if (peft__opt_bool(&a->opts, "use_gating")) {
        up = peft__op_row_gate(t, up, z, bn_param(a, at, BN_GATE_W, t), bn_param(a, at, BN_GATE_B, t));
    }
    if (residual_first) { up = peft__op_add(t, inner, up); }
    if (after) {
        up = peft__op_layer_norm(t, up, NULL, NULL, bn_param(a, at, BN_AFTER_W, t), bn_param(a, at, BN_AFTER_B, t), 1e-5);
    }
    if (!residual_first) { up = peft__op_add(t, inner, up); }
    up = bn_end(a, t, up, residual);
    if (!t->training || s->layer >= peft__opt_int(&a->opts, "adapter_drop")) { return up; }
    peft__choice kept = {.groups = UINT32_MAX, .end = -1, .layer = s->layer};
    return peft__op_blend(t, h, up, PEFT__NONE, 1, &kept);
}

/* Any number from 0 to adapter_drop, alike. */
static int32_t bn_skip_layers(const peft__adapter *a, uint64_t seed, uint64_t step) {
    uint64_t place[2] = {seed, step};
    int64_t most = peft__opt_int(&a->opts, "adapter_drop");
    peft__rng rng = {peft__hash_str(0, (const char *)place, sizeof place), 0};
    return (int32_t)peft__rng_below(&rng, (uint64_t)most + 1);
}

static peft__val bn_input(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val x) {
    (void)at;
    (void)s;
    return peft__invertible_emit(a, t, x, peft__bottleneck_act(peft__opt_str(&a->opts, "non_linearity")), false);
}

static peft__val bn_head(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val x,
                         peft__head_spec *spec) {
    (void)at;
    (void)s;
    (void)spec;
    return peft__invertible_emit(a, t, x, peft__bottleneck_act(peft__opt_str(&a->opts, "non_linearity")), true);
}

/* Four times the output of a network of half the hidden size: at 1e-3 it throws SmolLM2 off in one step. */
static double bn_default_rate(const peft__adapter *a) { return bn_parallel(a) ? 3e-5 : a->method->learning_rate; }

#define BN_METHOD(method, named)                                                                                             \
    const peft__method peft__method_##method = {.name = named, .schema = &method##_schema, .build = bn_build, .init = bn_init, \
                                                .stream = bn_stream, .up = bn_up, .skip_layers = bn_skip_layers,             \
                                                .input = bn_input, .head = bn_head, .hub = true, .learning_rate = 1e-3, \
                                                .default_rate = bn_default_rate}
BN_METHOD(houlsby, "houlsby");
BN_METHOD(pfeiffer, "pfeiffer");
BN_METHOD(parallel, "parallel");
BN_METHOD(houlsby_inv, "houlsby_inv");
BN_METHOD(pfeiffer_inv, "pfeiffer_inv");
BN_METHOD(compacter, "compacter");
BN_METHOD(compacterpp, "compacter++");
#undef BN_METHOD
