/* format_adapterhub.c - the folders of AdapterHub's `adapters` library (1.3), for the bottleneck family:
 *
 *   DIR/adapter_config.json  {"config": {the BnConfig}, "hidden_size", "model_class", "model_name", "model_type", "name",
 *                            "version"}, two spaces of indentation, sorted keys
 *   DIR/adapter.safetensors  keys with the adapter's name in them:
 *                            "model.layers.0.output_adapters.adapters.NAME.adapter_down.0.weight"
 *                            "model.shared_parameters.NAME.phm_rule"
 *
 * With ln_before the library saves the norm twice, as adapter_norm_before and as adapter_down.0, which are one module there;
 * the second is not written, and passed over on reading. Files without the keys that newer releases added take the defaults.
 *
 * Other architectures: hub_out and hub_in of their methods, and format_hub_union.c.
 *
 * Left out: heads, fusion layers, adapters after cross-attention; folders that use them are refused by key. */
#include <math.h>

#include "peft/hub.h"
#include "peft/invertible.h"

#define HUB_VERSION "adapters.1.3.0"

bool peft__hub_is(const peft__json *config) {
    const peft__json *inner = peft__json_find(config, "config");
    return inner != NULL && inner->kind == PEFT__JSON_OBJECT && peft__json_find(config, "peft_type") == NULL;
}

/* Keys that are options of the same name and type. */
static const char *const hub_same[] = {
    "mh_adapter", "output_adapter", "cross_adapter", "non_linearity", "dropout", "stochastic_depth", "use_gating", "init_weights",
    "original_ln_before", "original_ln_after", "residual_before_ln", "ln_before", "ln_after", "adapter_residual_before_ln",
    "phm_layer", "phm_dim", "phm_rank", "factorized_phm_W", "shared_W_phm", "shared_phm_rule", "factorized_phm_rule", "learn_phm",
    "phm_bias", "phm_c_init", "phm_init_range", "hypercomplex_nonlinearity"};

/* A number as Python has it after reading: whole ones are int, which its sizes of shared matrices ask for. */
static void hub_put_number(peft__json_out *j, double v) {
    if (v == floor(v) && fabs(v) < 1e9) { peft__json_put_int(j, (int64_t)v); } else { peft__json_put_double(j, v); }
}

/* Factors by layer, and the one of layers without, which readers ask for under "default". */
static void hub_put_factors(peft__json_out *j, const peft__json *node, double usual) {
    peft__json_object(j);
    for (size_t i = 0; i < node->len; i++) {
        peft__json_key(j, node->keys[i].str);
        peft__json_put_node(j, &node->items[i]);
    }
    if (peft__json_find(node, "default") == NULL) { peft__json_key(j, "default"), hub_put_number(j, usual); }
    peft__json_object_end(j);
}

peft_status peft__hub_bottleneck(const peft__adapter *a, peft__arena *arena, peft__json_out *j) {
    peft_status st = PEFT_OK;
    const char *factors = peft__opt_str(&a->opts, "reduction_factors"), *scaling = peft__opt_str(&a->opts, "scaling");
    const char *left = peft__opt_str(&a->opts, "leave_out");
    const peft__json *node = NULL;
    int64_t seed = peft__opt_int(&a->opts, "init_weights_seed"), drop = peft__opt_int(&a->opts, "adapter_drop");
    double factor = 1;
    for (size_t i = 0; i < PEFT__COUNT(hub_same); i++) { peft__config_put(&a->opts, hub_same[i], j); }
    peft__invertible_config_out(a, j);
    peft__json_key(j, "init_weights_seed");
    if (seed >= 0) { peft__json_put_int(j, seed); } else { peft__json_put_null(j); }
    if (drop > 0) { peft__json_key(j, "adapter_drop"), peft__json_put_int(j, drop); } /* a key of this library */
    peft__json_key(j, "is_parallel"), peft__json_put_bool(j, strcmp(a->method->name, "parallel") == 0);
    peft__json_key(j, "leave_out");
    TRY(peft__json_parse(arena, left[0] != '\0' ? left : "[]", left[0] != '\0' ? strlen(left) : 2, "leave_out", &node));
    peft__json_put_node(j, node);
    peft__json_key(j, "reduction_factor");
    if (factors[0] != '\0') {
        TRY(peft__json_parse(arena, factors, strlen(factors), "reduction_factors", &node));
        hub_put_factors(j, node, peft__opt_float(&a->opts, "reduction_factor"));
    } else {
        hub_put_number(j, peft__opt_float(&a->opts, "reduction_factor"));
    }
    peft__json_key(j, "scaling");
    if (peft__parse_f64(scaling, strlen(scaling), &factor)) { peft__json_put_double(j, factor); } else { peft__json_put_text(j, scaling); }
out:
    return st;
}

/* The class that the library looks the model up by: of the base's config.json. */
static const char *hub_model_class(const peft__adapter *a, peft__arena *arena) {
    const peft__json *config = NULL;
    const char *text = a->base->config_json;
    if (text == NULL || peft__json_parse(arena, text, strlen(text), "config.json", &config) != PEFT_OK) { return ""; }
    const peft__json *list = peft__json_find(config, "architectures");
    bool named = list != NULL && list->kind == PEFT__JSON_ARRAY && list->len > 0 && list->items[0].kind == PEFT__JSON_STRING;
    return named ? list->items[0].str : "";
}

peft_status peft__hub_config(const peft__adapter *a, peft__str *out) {
    peft_status st = PEFT_OK;
    int64_t hidden = 0;
    peft__arena arena;
    peft__json_out j;
    const char *name = peft__opt_str(&a->opts, "base_model_name_or_path");
    peft__arena_init(&arena, a->mem);
    for (size_t i = 0; i < a->base->n_sites; i++) {
        if (a->base->sites[i].kind == PEFT__SITE_STREAM) { hidden = a->base->sites[i].out; }
    }
    peft__json_begin(&j, out, 0);
    peft__json_object(&j);
    peft__json_key(&j, "config");
    peft__json_object(&j);
    TRY(peft__hub_members(a, &j));
    peft__json_object_end(&j);
    peft__json_key(&j, "hidden_size"), peft__json_put_int(&j, hidden);
    peft__json_key(&j, "model_class"), peft__json_put_text(&j, peft__invertible_class(a, hub_model_class(a, &arena)));
    peft__json_key(&j, "model_name"), peft__json_put_text(&j, name[0] != '\0' ? name : a->base->path);
    peft__json_key(&j, "model_type"), peft__json_put_text(&j, a->base->model_type);
    peft__json_key(&j, "name");
    peft__json_put_text(&j, a->method->hub_name != NULL ? a->method->hub_name(a, &arena) : a->name);
    if (a->method->combine == PEFT__COMBINE_FUSE) {
        peft__json_key(&j, "adapter_names");
        peft__json_array(&j);
        for (size_t i = 0; i < a->parts.len; i++) { peft__json_put_text(&j, PEFT__VEC_AT(&a->parts, peft__adapter *, i)->name); }
        peft__json_array_end(&j);
    }
    peft__json_key(&j, "version"), peft__json_put_text(&j, HUB_VERSION);
    peft__json_object_end(&j);
    TRY(peft__str_status(out));
out:
    peft__arena_free(&arena);
    return st;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------ */

peft_status peft__hub_method(const peft__json *config, const char *what, const peft__method **out) {
    static const char *const refused[] = {"architecture"};
    peft_status st = PEFT_OK;
    const peft__json *c = peft__json_find(config, "config"), *architecture = peft__json_find(c, "architecture");
    if (peft__json_is(architecture, "union")) { return peft__hub_union_method(config, what, out); }
    for (size_t i = 0; architecture != NULL && peft__method_at(i) != NULL; i++) {
        const char *own = peft__method_at(i)->hub_architecture;
        if (own == NULL || !peft__json_is(architecture, own)) { continue; }
        *out = peft__method_at(i);
        return PEFT_OK;
    }
    bool attention = false, parallel = false, phm = false;
    for (size_t i = 0; i < PEFT__COUNT(refused); i++) {
        const peft__json *node = peft__json_find(c, refused[i]);
        bool plain = node != NULL && (peft__json_is(node, "bottleneck") || (node->kind == PEFT__JSON_BOOL && !node->truth));
        if (node != NULL && !plain) {
            FAIL(PEFT_E_UNSUPPORTED,
                 "%s: config.%s is set; this version reads bottleneck adapters of decoders, prefix_tuning, lora and unions of them",
                 what, refused[i]);
        }
    }
    TRY(peft__json_bool(c, what, "mh_adapter", false, &attention));
    TRY(peft__json_bool(c, what, "is_parallel", false, &parallel));
    TRY(peft__json_bool(c, what, "phm_layer", false, &phm));
    *out = peft__method_find(parallel             ? "parallel"
                             : phm && attention ? "compacter"
                             : phm              ? "compacter++"
                             : attention        ? "houlsby"
                                                : "pfeiffer");
out:
    return st;
}

peft_status peft__hub_options(peft__optset *opts, const peft__json *config, const char *what) {
    static const char *const own[] = {"leave_out", "init_weights_seed", "adapter_drop"};
    peft_status st = PEFT_OK;
    const peft__json *c = peft__json_find(config, "config");
    const peft__json *factor = peft__json_find(c, "reduction_factor"), *scaling = peft__json_find(c, "scaling");
    for (size_t i = 0; i < PEFT__COUNT(hub_same); i++) { TRY(peft__config_get(opts, c, what, hub_same[i])); }
    for (size_t i = 0; i < PEFT__COUNT(own); i++) { TRY(peft__config_get(opts, c, what, own[i])); }
    TRY(peft__invertible_config_in(opts, config, what));
    if (factor != NULL && factor->kind == PEFT__JSON_OBJECT) {
        peft__str text;
        peft__json_out j;
        peft__str_init(&text, opts->mem);
        peft__json_begin(&j, &text, 0);
        peft__json_put_node(&j, factor);
        st = peft__str_status(&text);
        if (st == PEFT_OK) { st = peft__opt_set_raw(opts, "reduction_factors", peft__str_c(&text)); }
        peft__str_free(&text);
        TRY(st);
    } else {
        TRY(peft__config_get(opts, c, what, "reduction_factor"));
    }
    if (scaling != NULL && scaling->kind == PEFT__JSON_NUMBER) {
        char text[48];
        text[peft__format_f64(scaling->num, 17, text)] = '\0';
        TRY(peft__opt_set_str(opts, "scaling", text));
    } else {
        TRY(peft__config_get(opts, c, what, "scaling"));
    }
out:
    return st;
}

/* What an adapter has at its place; another module has a LoRA or a gate of a prefix. */
static bool hub_is_of_place(const char *leaf) {
    static const char *const own[] = {"adapter_", "scaling", "gate."};
    bool is = false;
    for (size_t i = 0; i < PEFT__COUNT(own); i++) { is = is || strncmp(leaf, own[i], strlen(own[i])) == 0; }
    return is;
}

char *peft__hub_key(peft__arena *arena, const peft__adapter *a, const char *name) {
    static const char *const dicts[] = {"adapter_fusion_layer.", "_adapters.", "shared_parameters."}; /* names stand after these */
    const char *at = NULL, *file = a->file_name != NULL ? a->file_name : a->name;
    if (a->file_name == NULL && a->method->hub_name != NULL) { file = a->method->hub_name(a, arena); }
    if (file == NULL) { return NULL; }
    size_t i = 0;
    for (; i < PEFT__COUNT(dicts) && at == NULL; i++) {
        at = strstr(name, dicts[i]);
        if (at != NULL) { at += strlen(dicts[i]) - 1; }
    }
    for (size_t k = 0; at == NULL && k < a->base->n_sites; k++) { /* "attention.output.adapters.NAME" */
        const peft__site *s = &a->base->sites[k];
        size_t n = strlen(s->path);
        if (!peft__hub_place_own(s) || strncmp(name, s->path, n) != 0 || name[n] != '.' || !hub_is_of_place(name + n + 1)) { continue; }
        return peft__arena_printf(arena, "%s.adapters.%s%s", s->path, file, name + n);
    }
    if (at == NULL) { return peft__hub_named(arena, name, file); }
    int head = (int)(at - name);
    bool nested = i == 2 && strstr(name, "invertible_adapters.") == NULL; /* "output_adapters.adapters.NAME" */
    return peft__arena_printf(arena, "%.*s%s.%s%s", head, name, nested ? ".adapters" : "", file, at);
}
