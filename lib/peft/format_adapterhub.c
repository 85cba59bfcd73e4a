/* format_adapterhub.c - the folders of AdapterHub's `adapters` library (1.3), for the bottleneck family:
 *
 *   DIR/adapter_config.json  {"config": {the BnConfig}, "hidden_size", "model_class", "model_name", "model_type", "name",
 *                            "version"}, two spaces of indentation, sorted keys
 *   DIR/adapter.safetensors  keys with the adapter's name in them:
 *                            "model.layers.0.output_adapters.adapters.NAME.adapter_down.0.weight"
 *
 * With ln_before the library saves the norm twice, as adapter_norm_before and as adapter_down.0, which are one module there;
 * the second is not written, and passed over on reading. Files without the keys that newer releases added take the defaults.
 *
 * Left out: heads, fusion layers, unions, Compacter, invertible adapters, gates; folders that use them are refused by key. */
#include "peft/method.h"

#define HUB_VERSION "adapters.1.3.0"

bool peft__hub_is(const peft__json *config) {
    const peft__json *inner = peft__json_find(config, "config");
    return inner != NULL && inner->kind == PEFT__JSON_OBJECT && peft__json_find(config, "peft_type") == NULL;
}

/* The config without the part that says how the network is put together. */
static void hub_fixed(peft__json_out *j) {
    static const char *const no[] = {"cross_adapter", "factorized_phm_rule", "phm_layer", "shared_W_phm", "use_gating"};
    static const char *const yes[] = {"factorized_phm_W", "learn_phm", "phm_bias", "shared_phm_rule", "original_ln_after"};
    static const char *const none[] = {"init_weights_seed", "inv_adapter", "inv_adapter_reduction_factor"};
    for (size_t i = 0; i < PEFT__COUNT(no); i++) { peft__json_key(j, no[i]), peft__json_put_bool(j, false); }
    for (size_t i = 0; i < PEFT__COUNT(yes); i++) { peft__json_key(j, yes[i]), peft__json_put_bool(j, true); }
    for (size_t i = 0; i < PEFT__COUNT(none); i++) { peft__json_key(j, none[i]), peft__json_put_null(j); }
    peft__json_key(j, "phm_c_init"), peft__json_put_text(j, "normal");
    peft__json_key(j, "hypercomplex_nonlinearity"), peft__json_put_text(j, "glorot-uniform");
    peft__json_key(j, "phm_dim"), peft__json_put_int(j, 4);
    peft__json_key(j, "phm_rank"), peft__json_put_int(j, 1);
    peft__json_key(j, "phm_init_range"), peft__json_put_double(j, 0.0001);
    peft__json_key(j, "stochastic_depth"), peft__json_put_double(j, 0);
}

static peft_status hub_network(const peft__adapter *a, peft__arena *arena, peft__json_out *j) {
    static const char *const same[] = {"non_linearity", "dropout", "original_ln_before", "residual_before_ln", "ln_before",
                                       "ln_after", "adapter_residual_before_ln", "init_weights"};
    peft_status st = PEFT_OK;
    const char *factors = peft__opt_str(&a->opts, "reduction_factors"), *scaling = peft__opt_str(&a->opts, "scaling");
    const char *left = peft__opt_str(&a->opts, "leave_out");
    const peft__json *node = NULL;
    double factor = 1;
    for (size_t i = 0; i < PEFT__COUNT(same); i++) { peft__config_put(&a->opts, same[i], j); }
    peft__json_key(j, "mh_adapter"), peft__json_put_bool(j, strcmp(a->method->name, "houlsby") == 0);
    peft__json_key(j, "output_adapter"), peft__json_put_bool(j, true);
    peft__json_key(j, "is_parallel"), peft__json_put_bool(j, strcmp(a->method->name, "parallel") == 0);
    peft__json_key(j, "leave_out");
    TRY(peft__json_parse(arena, left[0] != '\0' ? left : "[]", left[0] != '\0' ? strlen(left) : 2, "leave_out", &node));
    peft__json_put_node(j, node);
    peft__json_key(j, "reduction_factor");
    if (factors[0] != '\0') {
        TRY(peft__json_parse(arena, factors, strlen(factors), "reduction_factors", &node));
        peft__json_put_node(j, node);
    } else {
        peft__json_put_double(j, peft__opt_float(&a->opts, "reduction_factor"));
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
    hub_fixed(&j);
    TRY(hub_network(a, &arena, &j));
    peft__json_object_end(&j);
    peft__json_key(&j, "hidden_size"), peft__json_put_int(&j, hidden);
    peft__json_key(&j, "model_class"), peft__json_put_text(&j, hub_model_class(a, &arena));
    peft__json_key(&j, "model_name"), peft__json_put_text(&j, name[0] != '\0' ? name : a->base->path);
    peft__json_key(&j, "model_type"), peft__json_put_text(&j, a->base->model_type);
    peft__json_key(&j, "name"), peft__json_put_text(&j, a->name);
    peft__json_key(&j, "version"), peft__json_put_text(&j, HUB_VERSION);
    peft__json_object_end(&j);
    TRY(peft__str_status(out));
out:
    peft__arena_free(&arena);
    return st;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------ */

peft_status peft__hub_method(const peft__json *config, const char *what, const peft__method **out) {
    static const char *const refused[] = {"architecture", "inv_adapter", "use_gating", "phm_layer", "cross_adapter", "stochastic_depth"};
    peft_status st = PEFT_OK;
    const peft__json *c = peft__json_find(config, "config");
    bool attention = false, ffn = true, parallel = false;
    for (size_t i = 0; i < PEFT__COUNT(refused); i++) {
        const peft__json *node = peft__json_find(c, refused[i]);
        bool zero = node != NULL && node->kind == PEFT__JSON_NUMBER && node->num == 0;
        bool plain = node != NULL && (peft__json_is(node, "bottleneck") || (node->kind == PEFT__JSON_BOOL && !node->truth));
        if (node != NULL && !zero && !plain) {
            FAIL(PEFT_E_UNSUPPORTED, "%s: config.%s is set; this version reads houlsby, pfeiffer and parallel bottleneck adapters",
                 what, refused[i]);
        }
    }
    TRY(peft__json_bool(c, what, "mh_adapter", false, &attention));
    TRY(peft__json_bool(c, what, "output_adapter", true, &ffn));
    TRY(peft__json_bool(c, what, "is_parallel", false, &parallel));
    if (!ffn || (attention && parallel)) {
        FAIL(PEFT_E_UNSUPPORTED, "%s: mh_adapter %s with output_adapter %s and is_parallel %s is none of houlsby, pfeiffer, parallel",
             what, attention ? "true" : "false", ffn ? "true" : "false", parallel ? "true" : "false");
    }
    *out = peft__method_find(parallel ? "parallel" : attention ? "houlsby" : "pfeiffer");
out:
    return st;
}

peft_status peft__hub_options(peft__optset *opts, const peft__json *config, const char *what) {
    static const char *const same[] = {"non_linearity", "dropout", "leave_out", "original_ln_before", "residual_before_ln",
                                       "ln_before", "ln_after", "adapter_residual_before_ln", "init_weights"};
    peft_status st = PEFT_OK;
    const peft__json *c = peft__json_find(config, "config");
    const peft__json *factor = peft__json_find(c, "reduction_factor"), *scaling = peft__json_find(c, "scaling");
    for (size_t i = 0; i < PEFT__COUNT(same); i++) { TRY(peft__config_get(opts, c, what, same[i])); }
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

char *peft__hub_key(peft__arena *arena, const peft__adapter *a, const char *name) {
    const char *at = strstr(name, "_adapters."), *file = a->file_name != NULL ? a->file_name : a->name;
    if (at == NULL) { return peft__arena_strdup(arena, name, strlen(name)); }
    int head = (int)(at - name) + 9; /* up to and with "_adapters" */
    return peft__arena_printf(arena, "%.*s.adapters.%s%s", head, name, file, name + head);
}
