/* mam.c - adaptation methods made of several, as AdapterHub's library has them:
 *
 *   mam       prefix-tuning in attention and a parallel adapter beside the FFN: mix-and-match (He et al. 2021, arXiv 2110.04366)
 *   unipelt   prefix-tuning, an adapter after the FFN and LoRA, with a gate each (Mao et al. 2022, arXiv 2110.07577)
 *
 * An adapter of such a method has no parameters itself. Its parts are adapters of the methods prefix_tuning, parallel or pfeiffer,
 * and lora_hub; where it is named, they act. Options are those of the parts, under names of their own where two parts have them.
 * Saved as one folder with a list of configs (format_hub_union.c).
 *
 * Left out: other unions, which the method `union` makes of any adapters. */
#include "peft/hub.h"
#include "peft/soft.h"

#define MAM_PREFIX(length, bottleneck)                                                                                        \
    {"prefix_length", PEFT__OPT_INT, length, 1, 1 << 16, NULL, "number of keys and values before each row"},                    \
        {"bottleneck_size", PEFT__OPT_INT, bottleneck, 1, 1 << 20, NULL, "width inside of the network that makes them"},       \
        {"flat", PEFT__OPT_BOOL, "false", 1, 0, NULL, "the keys and values are trained themselves, without a network"},        \
        {"prefix_non_linearity", PEFT__OPT_STR, "tanh", 1, 0, PEFT__HUB_ACTS, "activation of that network"},                    \
        {"prefix_dropout", PEFT__OPT_FLOAT, "0.0", 0, 0.999, NULL, "part of the keys and values that is dropped in training"},  \
        {"shared_gating", PEFT__OPT_BOOL, "true", 1, 0, NULL, "one gate for keys and values; else one each"},                   \
        {"init", PEFT__OPT_STR, "text", 1, 0, "text|random|zero",                                                             \
         "initial keys and values: the base's own for a text, what a random network makes (flat: N(0, 1)), or 0"},             \
        {"init_text", PEFT__OPT_STR, "", 1, 0, NULL, "text to start from with init=text; unset: a neutral instruction"}
#define MAM_ADAPTER(reduction, factor, how)                                                                                   \
    {"reduction_factor", PEFT__OPT_FLOAT, reduction, 1e-3, 1e9, NULL, "hidden size over the width of the adapter"},            \
        {"non_linearity", PEFT__OPT_STR, "relu", 1, 0, PEFT__HUB_ACTS, "activation of the adapter"},                           \
        {"scaling", PEFT__OPT_STR, factor, 1, 0, NULL, "factor of the adapter's output: a number, learned, or channel"},       \
        {"dropout", PEFT__OPT_FLOAT, "0.0", 0, 0.999, NULL, "part of the adapter's output that is dropped in training"},        \
        {"init_weights", PEFT__OPT_STR, how, 1, 0, "bert|mam_adapter|houlsby",                                                \
         "the adapter's initial values: N(0, 0.02); zero output; N(0, 0.01) within 0.02"}
#define MAM_ALL(gates)                                                                                                        \
    {"use_gating", PEFT__OPT_BOOL, gates, 1, 0, NULL, "a trained gate at each place says how much a row takes of it"},          \
        {"leave_out", PEFT__OPT_LIST, "", 1, 0, NULL, "numbers of layers without any of it"},                                 \
        {"base_model_name_or_path", PEFT__OPT_STR, "", 1, 0, NULL, "as written to adapter_config.json; unset: the model's path"}

static const peft__option mam_options[] = {MAM_PREFIX("30", "800"), MAM_ADAPTER("2", "4.0", "mam_adapter"), MAM_ALL("false")};
static const peft__option unipelt_options[] = {
    MAM_PREFIX("10", "512"),
    MAM_ADAPTER("16", "1.0", "bert"),
    {"r", PEFT__OPT_INT, "8", 1, 1 << 20, NULL, "rank of the LoRA"},
    {"alpha", PEFT__OPT_FLOAT, "2", 1, 0, NULL, "without gates the LoRA is scaled by alpha / r; with them it has no effect"},
    {"lora_dropout", PEFT__OPT_FLOAT, "0.0", 0, 0.999, NULL, "part of the LoRA's input that is dropped in training"},
    {"attn_matrices", PEFT__OPT_LIST, "[\"q\",\"v\"]", 1, 0, NULL, "which of q, k, v have a LoRA"},
    MAM_ALL("true"),
};
#undef MAM_PREFIX
#undef MAM_ADAPTER
#undef MAM_ALL
static const peft__schema mam_schema = {"method:mam", mam_options, PEFT__COUNT(mam_options)};
static const peft__schema unipelt_schema = {"method:unipelt", unipelt_options, PEFT__COUNT(unipelt_options)};

#define MAM_WHERE                                                                                                             \
    {"prefix_length", "prefix_length", 0}, {"bottleneck_size", "bottleneck_size", 0}, {"flat", "flat", 0},                      \
        {"prefix_non_linearity", "non_linearity", 0}, {"prefix_dropout", "dropout", 0}, {"shared_gating", "shared_gating", 0},  \
        {"init", "init", 0}, {"init_text", "init_text", 0}, {"reduction_factor", "reduction_factor", 1},                       \
        {"non_linearity", "non_linearity", 1}, {"scaling", "scaling", 1}, {"dropout", "dropout", 1},                            \
        {"init_weights", "init_weights", 1}, {"use_gating", "use_gating", -1}, {"leave_out", "leave_out", -1},                  \
        {"base_model_name_or_path", "base_model_name_or_path", -1}
static const peft__hub_union_option mam_where[] = {MAM_WHERE};
static const peft__hub_union_option unipelt_where[] = {
    MAM_WHERE, {"r", "r", 2}, {"alpha", "alpha", 2}, {"lora_dropout", "dropout", 2}, {"attn_matrices", "attn_matrices", 2}};
#undef MAM_WHERE

static const peft__hub_union mam_unions[] = {
    {&peft__method_mam, {"prefix_tuning", "parallel", NULL}, mam_where, PEFT__COUNT(mam_where)},
    {&peft__method_unipelt, {"prefix_tuning", "pfeiffer", "lora_hub"}, unipelt_where, PEFT__COUNT(unipelt_where)},
};

const peft__hub_union *peft__hub_union_at(size_t i) { return i < PEFT__COUNT(mam_unions) ? &mam_unions[i] : NULL; }

const peft__hub_union *peft__hub_union_of(const peft__method *m) {
    for (size_t i = 0; i < PEFT__COUNT(mam_unions); i++) {
        if (mam_unions[i].method == m) { return &mam_unions[i]; }
    }
    return NULL;
}

/* ---- options ------------------------------------------------------------------------------------------------- */

peft_status peft__hub_union_copy(const peft__optset *from, const char *key, peft__optset *to, const char *to_key) {
    const peft__option *opt = peft__schema_find(from->schema, key);
    const char *text = peft__opt_str(from, key);
    switch (opt->type) {
    case PEFT__OPT_INT: return peft__opt_set_int(to, to_key, peft__opt_int(from, key));
    case PEFT__OPT_FLOAT: return peft__opt_set_float(to, to_key, peft__opt_float(from, key));
    case PEFT__OPT_BOOL: return peft__opt_set_bool(to, to_key, peft__opt_bool(from, key));
    case PEFT__OPT_STR: return peft__opt_set_str(to, to_key, text);
    default: return text[0] != '\0' ? peft__opt_set_raw(to, to_key, text) : PEFT_OK;
    }
}

/* A text that was set to nothing is not the same as one that was not set. */
static bool mam_is_given(const peft__optset *own, const char *key) {
    const peft__option *opt = peft__schema_find(own->schema, key);
    return opt->type != PEFT__OPT_STR || opt->dflt[0] != '\0' || peft__opt_is_set(own, key);
}

peft_status peft__hub_union_part_options(const peft__hub_union *u, const peft__optset *own, peft__mem *mem, int32_t part,
                                         peft__optset *out) {
    peft_status st = PEFT_OK;
    TRY(peft__optset_init(out, mem, peft__method_find(u->parts[part])->schema));
    for (size_t i = 0; i < u->count; i++) {
        const peft__hub_union_option *o = &u->options[i];
        if ((o->part != part && o->part >= 0) || !mam_is_given(own, o->own)) { continue; }
        TRY(peft__hub_union_copy(own, o->own, out, o->key));
    }
out:
    return st;
}

/* ---- building ------------------------------------------------------------------------------------------------ */

static peft_status mam_add_part(peft__adapter *a, const peft__hub_union *u, int32_t part) {
    peft_status st = PEFT_OK;
    peft__optset opts = {0};
    peft__adapter *made = NULL;
    const peft__method *method = peft__method_find(u->parts[part]);
    TRY(peft__hub_union_part_options(u, &a->opts, a->mem, part, &opts));
    if (a->heads && part == 0) { /* the union's head is its first part's */
        TRY(a->kernels != NULL ? peft__adapter_create_headed(a->mem, a->kernels, a->base, a->name, method, &opts, a->seed, &made)
                               : peft__adapter_create_empty_headed(a->mem, a->base, a->name, method, &opts, &made));
    } else if (a->kernels != NULL) {
        TRY(peft__adapter_create(a->mem, a->kernels, a->base, a->name, method, &opts, a->seed, &made));
    } else {
        TRY(peft__adapter_create_empty(a->mem, a->base, a->name, method, &opts, &made));
    }
    TRY(peft__vec_push(&a->parts, &made));
    made = NULL;
out:
    peft__adapter_release(made);
    peft__optset_free(&opts);
    return st;
}

static peft_status mam_build(peft__adapter *a) {
    peft_status st = PEFT_OK;
    const peft__hub_union *u = peft__hub_union_of(a->method);
    for (int32_t i = 0; i < PEFT__HUB_UNION_PARTS && u->parts[i] != NULL; i++) { TRY(mam_add_part(a, u, i)); }
    a->heads = false;
out:
    return st;
}

static void mam_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    (void)a; /* has no parameters */
    (void)i;
    (void)rng;
    (void)k;
}

/* ---- the prefix's start -------------------------------------------------------------------------------------- */

static peft__adapter *mam_prefix(const peft__adapter *a) { return PEFT__VEC_AT(&a->parts, peft__adapter *, 0); }

static uint32_t mam_needs(const peft__adapter *a) { return mam_prefix(a)->method->needs(mam_prefix(a)); }

static const char *mam_text(const peft__adapter *a) { return mam_prefix(a)->method->text(mam_prefix(a)); }

static peft_status mam_from_text(peft__adapter *a, const peft__init_text *text, const peft__kernels *k) {
    return mam_prefix(a)->method->from_text(mam_prefix(a), text, k);
}

#define MAM_METHOD(id)                                                                                                        \
    const peft__method peft__method_##id = {.name = #id,                                                                      \
                                            .schema = &id##_schema,                                                          \
                                            .build = mam_build,                                                              \
                                            .init = mam_init,                                                                \
                                            .needs = mam_needs,                                                              \
                                            .from_text = mam_from_text,                                                      \
                                            .text = mam_text,                                                                \
                                            .combine = PEFT__COMBINE_STACK,                                                  \
                                            .hub = true,                                                                     \
                                            .hub_architecture = "union",                                                     \
                                            .hub_out = peft__hub_union_out,                                                  \
                                            .hub_in = peft__hub_union_in,                                                    \
                                            .learning_rate = 1e-3}
MAM_METHOD(mam);
MAM_METHOD(unipelt);
#undef MAM_METHOD
