/* fusion.c - AdapterFusion (Pfeiffer et al. 2021, arXiv 2005.00247): bottleneck adapters, trained before and now fixed, whose
 * outputs u_i are weighed for each token by an attention that is trained:
 *
 *   p = softmax over i of (Q z + q) . (K u_i + k),   y = inner + V sum of p_i u_i
 *
 * z: what the adapters read; inner: what their outputs are added to. There is one Q, q, K, k, V at each stream where all of
 * them act. V starts as the identity and is drawn to it: 0.01 |V - I|^2 is added to the loss ("regularization"). k changes no
 * weight, since it adds the same to all scores. Options and files are those of AdapterHub's library (1.3):
 *
 *   DIR/adapter_fusion_config.json, DIR/model_adapter_fusion.safetensors
 *   "model.layers.0.output_adapters.adapter_fusion_layer.a,b.query.weight"
 *
 * With query_before_ln, z of the scores is the sub-layer's output, also where the adapters read it with the residual added.
 *
 * An expression says fuse(a, b), or the fusion's name. Left out: dropout of the scores, fusing stacks. */
#include "peft/hub.h"

#include <math.h>

enum { FUSION_Q = 0, FUSION_QB = 1, FUSION_K = 2, FUSION_KB = 3, FUSION_V = 4 };
enum { FUSION_PARTS = 8 };

static const peft__option fusion_options[] = {
    {"adapters", PEFT__OPT_LIST, "", 1, 0, NULL, "names of the bottleneck adapters that it weighs, which must be in the set"},
    {"query", PEFT__OPT_BOOL, "true", 1, 0, NULL, "a trained matrix for the query"},
    {"key", PEFT__OPT_BOOL, "true", 1, 0, NULL, "a trained matrix for the keys"},
    {"value", PEFT__OPT_BOOL, "true", 1, 0, NULL, "a trained matrix for the values"},
    {"value_initialized", PEFT__OPT_BOOL, "true", 1, 0, NULL, "the values' matrix starts as the identity"},
    {"value_before_softmax", PEFT__OPT_BOOL, "true", 1, 0, NULL, "written to the file; the result is the same"},
    {"query_before_ln", PEFT__OPT_BOOL, "false", 1, 0, NULL, "the query is the sub-layer's output, before the residual is added"},
    {"residual_before", PEFT__OPT_BOOL, "false", 1, 0, NULL, "the residual is added to what is weighed"},
    {"regularization", PEFT__OPT_BOOL, "true", 1, 0, NULL, "the values' matrix is drawn to the identity"},
    {"temperature", PEFT__OPT_BOOL, "false", 1, 0, NULL, "the scores are divided by 50 at first, by 1 from step 980 on"},
    {"base_model_name_or_path", PEFT__OPT_STR, "", 1, 0, NULL, "as written to adapter_fusion_config.json; unset: the model's path"},
};
static const peft__schema fusion_schema = {"method:fusion", fusion_options, PEFT__COUNT(fusion_options)};

static const peft__adapter *fusion_part(const peft__adapter *a, size_t i) { return PEFT__VEC_AT(&a->parts, peft__adapter *, i); }

/* ---- what it weighs ------------------------------------------------------------------------------------------- */

static peft_status fusion_accepts(const peft__adapter *part) {
    if (part->method->up != NULL) { return PEFT_OK; }
    return peft__fail(PEFT_E_UNSUPPORTED, "adapter \"%s\" is a \"%s\", and a fusion takes bottleneck adapters", part->name,
                      part->method->name);
}

static peft_status fusion_refer(peft__adapter *a, struct peft_adapters *set) {
    peft_status st = PEFT_OK;
    peft__names names;
    peft__arena arena;
    peft__arena_init(&arena, a->mem);
    TRY(peft__names_read(&arena, peft__opt_str(&a->opts, "adapters"), "adapters", &names));
    if (names.count < 1 || names.count > FUSION_PARTS) {
        FAIL(PEFT_E_KEY, "option \"adapters\" of fusion \"%s\" names %zu adapters, expected 1 to %d", a->name, names.count, FUSION_PARTS);
    }
    TRY(peft__set_pin_parts(set, &names, a, fusion_accepts));
out:
    peft__arena_free(&arena);
    return st;
}

static bool fusion_acts(const peft__adapter *part, const peft__site *s) {
    const peft__attachment *all = part->attachments.data;
    for (size_t i = 0; i < part->attachments.len; i++) {
        if (all[i].site == s->id) { return true; }
    }
    return false;
}

static peft_status fusion_add(peft__adapter *a, const peft__site *s) {
    static const struct { const char *option, *weight, *bias; int32_t slot; } all[] = {
        {"query", "query.weight", "query.bias", FUSION_Q}, {"key", "key.weight", "key.bias", FUSION_K},
        {"value", "value.weight", NULL, FUSION_V},
    };
    peft_status st = PEFT_OK;
    peft__attachment *at = NULL;
    char *module = peft__hub_place(&a->arena, s);
    char *place = module != NULL ? peft__arena_printf(&a->arena, "%s.adapter_fusion_layer", module) : NULL;
    if (place == NULL) { return PEFT_E_NOMEM; }
    TRY(peft__adapter_attach(a, s, &at));
    for (size_t i = 0; i < PEFT__COUNT(all); i++) {
        if (!peft__opt_bool(&a->opts, all[i].option)) { continue; }
        char *weight = peft__arena_printf(&a->arena, "%s.%s", place, all[i].weight);
        TRY(peft__adapter_add_param(a, at, weight, all[i].slot, s->out, s->out, 2, false, false));
        if (all[i].bias == NULL) { continue; }
        char *bias = peft__arena_printf(&a->arena, "%s.%s", place, all[i].bias);
        TRY(peft__adapter_add_param(a, at, bias, all[i].slot + 1, 1, s->out, 1, false, false));
    }
out:
    return st;
}

static peft_status fusion_build(peft__adapter *a) {
    peft_status st = PEFT_OK;
    bool some = false;
    if (!peft__opt_bool(&a->opts, "query") && !peft__opt_bool(&a->opts, "key") && !peft__opt_bool(&a->opts, "value")) {
        FAIL(PEFT_E_KEY, "fusion \"%s\" has neither query, key nor value to train", a->name);
    }
    for (size_t i = 0; i < a->base->n_sites; i++) {
        const peft__site *s = &a->base->sites[i];
        bool all = s->kind == PEFT__SITE_STREAM;
        for (size_t j = 0; j < a->parts.len && all; j++) { all = fusion_acts(fusion_part(a, j), s); }
        if (!all) { continue; }
        TRY(fusion_add(a, s));
        some = true;
    }
    if (!some) { FAIL(PEFT_E_NOT_FOUND, "the adapters of fusion \"%s\" act nowhere together", a->name); }
out:
    return st;
}

/* The library's initial values: N(0, 0.02), biases 0, values the identity and a millionth. */
static void fusion_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    bool bias = p->slot == FUSION_QB || p->slot == FUSION_KB, unit = p->slot == FUSION_V && peft__opt_bool(&a->opts, "value_initialized");
    (void)k;
    for (int64_t e = 0; e < p->p.rows * p->p.cols; e++) {
        double v = bias ? 0 : unit ? (e / p->p.cols == e % p->p.cols ? 1 : 1e-6) : 0.02 * peft__rng_normal(rng);
        p->p.value[e] = PEFT__R(v);
    }
}

/* ---- the network ------------------------------------------------------------------------------------------------ */

static peft__val fusion_linear(const peft__adapter *a, const peft__attachment *at, peft__tape *t, peft__val x, int32_t slot,
                               const peft__site *s) {
    int32_t w = peft__adapter_tape_param(a, at, slot, t);
    if (w == PEFT__NONE) { return x; }
    int32_t b = slot == FUSION_V ? PEFT__NONE : peft__adapter_tape_param(a, at, slot + 1, t);
    return peft__op_linear(t, x, NULL, NULL, w, b, s->out);
}

static peft__val fusion_fuse(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val h,
                             peft__val residual, peft__val query, peft__val inner, const peft__val *up, size_t n) {
    bool parallel = query == residual; /* its query is that, whatever the options say */
    if (peft__opt_bool(&a->opts, "query_before_ln") && !parallel) { query = h; }
    peft__val keys[FUSION_PARTS], q = fusion_linear(a, at, t, query, FUSION_Q, s);
    for (size_t i = 0; i < n; i++) { keys[i] = fusion_linear(a, at, t, up[i], FUSION_K, s); }
    peft__val mixed = peft__op_fuse(t, q, keys, up, n, peft__opt_bool(&a->opts, "temperature"));
    if (peft__opt_bool(&a->opts, "residual_before")) { /* the weights add up to 1 */
        return fusion_linear(a, at, t, peft__op_add(t, inner, mixed), FUSION_V, s);
    }
    return peft__op_add(t, inner, fusion_linear(a, at, t, mixed, FUSION_V, s));
}

/* 0.01 |V - I|^2 at each place, and its gradient */
static peft_status fusion_regularise(const peft__adapter *a, const peft__run *run, double weight, peft__real *grads, double *loss) {
    (void)run;
    if (!peft__opt_bool(&a->opts, "regularization")) { return PEFT_OK; }
    for (size_t i = 0; i < peft__adapter_param_count(a); i++) {
        const peft__adapter_param *p = peft__adapter_param_at(a, i);
        if (p->slot != FUSION_V) { continue; }
        peft__real *g = grads + (p->p.value - a->values);
        for (int64_t e = 0; e < p->p.rows * p->p.cols; e++) {
            double off = (double)p->p.value[e] - (e / p->p.cols == e % p->p.cols ? 1 : 0);
            *loss += 0.01 * off * off;
            g[e] += PEFT__R(0.02 * weight * off);
        }
    }
    return PEFT_OK;
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

static const char *const fusion_keys[] = {"query", "key", "value", "value_before_softmax", "query_before_ln", "residual_before",
                                          "regularization", "temperature", "value_initialized"};

static peft_status fusion_hub_out(const peft__adapter *a, peft__json_out *j) {
    for (size_t i = 0; i < PEFT__COUNT(fusion_keys); i++) { peft__config_put(&a->opts, fusion_keys[i], j); }
    peft__json_key(j, "dropout_prob"), peft__json_put_null(j);
    return PEFT_OK;
}

static peft_status fusion_hub_in(peft__optset *opts, const peft__json *root, const char *what) {
    peft_status st = PEFT_OK;
    const peft__json *c = peft__json_find(root, "config"), *drop = peft__json_find(c, "dropout_prob");
    const peft__json *names = peft__json_find(root, "adapter_names");
    const char *name = NULL;
    peft__str text;
    peft__str_init(&text, opts->mem);
    for (size_t i = 0; i < PEFT__COUNT(fusion_keys); i++) { TRY(peft__config_get(opts, c, what, fusion_keys[i])); }
    if (drop != NULL && drop->kind == PEFT__JSON_NUMBER && drop->num > 0) {
        FAIL(PEFT_E_UNSUPPORTED, "%s: config.dropout_prob is %g; this version fuses without dropout", what, drop->num);
    }
    if (names != NULL && names->kind == PEFT__JSON_ARRAY) { /* else it is the fusion's name: "a,b" */
        peft__json_out j;
        peft__json_begin(&j, &text, 0);
        peft__json_put_node(&j, names);
        TRY(peft__str_status(&text));
        TRY(peft__opt_set_raw(opts, "adapters", peft__str_c(&text)));
    } else {
        TRY(peft__json_str(root, what, "name", "", &name));
        TRY(peft__opt_set_text(opts, "adapters", name));
    }
out:
    peft__str_free(&text);
    return st;
}

static char *fusion_hub_name(const peft__adapter *a, peft__arena *arena) {
    char *text = peft__arena_printf(arena, "%s", a->parts.len > 0 ? fusion_part(a, 0)->name : "");
    for (size_t i = 1; i < a->parts.len && text != NULL; i++) { text = peft__arena_printf(arena, "%s,%s", text, fusion_part(a, i)->name); }
    return text;
}

const peft__method peft__method_fusion = {
    .name = "fusion",
    .schema = &fusion_schema,
    .build = fusion_build,
    .init = fusion_init,
    .combine = PEFT__COMBINE_FUSE,
    .refer = fusion_refer,
    .fuse = fusion_fuse,
    .regularise = fusion_regularise,
    .hub = true,
    .hub_out = fusion_hub_out,
    .hub_in = fusion_hub_in,
    .hub_name = fusion_hub_name,
    .config_file = "adapter_fusion_config.json",
    .tensors_file = "model_adapter_fusion.safetensors",
    .learning_rate = 5e-5,
};
