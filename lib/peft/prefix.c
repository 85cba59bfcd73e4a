/* prefix.c - prefix-tuning: trained keys and values stand before those of each row, in every layer (Li and Liang 2021,
 * arXiv 2101.00190), and P-tuning v2, which is the same with a trained head (Liu et al. 2022, arXiv 2110.07602).
 *
 *   flat        the table T [n, layers 2 D] is trained: column ((layer 2 + {0 key, 1 value}) heads + head) head_dim + i
 *   projection  T = W2 tanh(W1 e + b1) + b2, e [n, D]
 *
 * D is the width of a layer's keys. A prefix counts as tokens: a row's positions begin after it, and it leaves a sliding
 * window; its keys are not rotated, so that a position is part of what is learned. Saved as PEFT's PREFIX_TUNING, which keeps T
 * ("prompt_embeddings"); the tensors of a projection follow under "prompt_encoder.*", and PEFT passes them over.
 *
 * The default start is what the base itself computes for a text: its rotated keys and its values. From N(0, 1), PEFT's, a model
 * first has to recover from noise.
 *
 * In encoder-decoder models it stands before the decoder's own keys, not in cross attention, and a network makes one table.
 *
 * Left out: merging, as nothing of it is a weight. */
#include "peft/soft.h"

#include <math.h>

enum { PREFIX_TABLE = 0, PREFIX_EMBED = 1, PREFIX_W1 = 2, PREFIX_B1 = 3, PREFIX_W2 = 4, PREFIX_B2 = 5, PREFIX_COPY = 6, PREFIX_BIAS = 7 };

#define PREFIX_OPTIONS(projection_help)                                                                                    \
    PEFT__SOFT_OPTIONS, {"prefix_projection", PEFT__OPT_BOOL, "false", 1, 0, NULL, projection_help},                       \
        {"encoder_hidden_size", PEFT__OPT_INT, "0", 0, 1 << 20, NULL, "width inside of that network; 0: token_dim"},       \
        {"init", PEFT__OPT_STR, "text", 1, 0, "text|random|zero",                                                          \
         "initial keys and values: the base's own for a text, N(0, 1) or what a random network makes, or 0"},              \
        {"init_text", PEFT__OPT_STR, "", 1, 0, NULL, "text to start from with init=text; unset: a neutral instruction"},   \
        PEFT__SOFT_FROM_OPTION("keys and values"),                                                                         \
        {"baked", PEFT__OPT_BOOL, "false", 1, 0, NULL, "the keys and values are trained themselves, whatever prefix_projection says"}, \
        {"modules_to_save", PEFT__OPT_LIST, "", 1, 0, NULL, "names of modules that are trained and saved whole"},          \
        PEFT__SOFT_OPTIONS_END

static const peft__option prefix_options[] = {PREFIX_OPTIONS("a network makes the keys and values")};
static const peft__schema prefix_schema = {"method:prefix", prefix_options, PEFT__COUNT(prefix_options)};
static const peft__option prefix_v2_options[] = {PREFIX_OPTIONS("a network makes the keys and values; not in P-tuning v2's paper")};
static const peft__schema prefix_v2_schema = {"method:ptuning_v2", prefix_v2_options, PEFT__COUNT(prefix_v2_options)};

static bool prefix_starts_as(const peft__adapter *a, const char *how) { return strcmp(peft__opt_str(&a->opts, "init"), how) == 0; }
static bool prefix_is_flat(const peft__adapter *a) {
    return peft__opt_bool(&a->opts, "baked") || !peft__opt_bool(&a->opts, "prefix_projection");
}

/* ---- building ------------------------------------------------------------------------------------------------ */

/* A classification head is saved by P-tuning v2 where the base has one. */
static peft_status prefix_v2_head(peft__adapter *a) {
    static const char *const heads[] = {"score", "classifier"};
    if (a->from_file || peft__opt_str(&a->opts, "modules_to_save")[0] != '\0') { return PEFT_OK; }
    for (size_t i = 0; i < a->base->n_sites; i++) {
        for (size_t h = 0; h < PEFT__COUNT(heads); h++) {
            if (strcmp(peft__path_leaf(a->base->sites[i].path), heads[h]) == 0) {
                return peft__opt_set_text(&a->opts, "modules_to_save", heads[h]);
            }
        }
    }
    return PEFT_OK;
}

static peft_status prefix_add_copies(peft__adapter *a) {
    peft_status st = PEFT_OK;
    const peft__base_info *base = a->base;
    size_t bytes = base->n_sites * sizeof(bool);
    bool *saved = peft__alloc_zero(a->mem, bytes);
    if (saved == NULL) { return PEFT_E_NOMEM; }
    TRY(peft__target_saved(a->mem, base, peft__opt_str(&a->opts, "modules_to_save"), a->from_file, saved));
    for (size_t i = 0; i < base->n_sites; i++) {
        const peft__site *s = &base->sites[i];
        peft__attachment *at = NULL;
        if (!saved[i] || s->weight == NULL) { continue; }
        TRY(peft__adapter_attach(a, s, &at));
        TRY(peft__adapter_copy_weight(a, at, s, PREFIX_COPY));
        if (s->bias != NULL) { TRY(peft__adapter_copy_bias(a, at, s, NULL, PREFIX_BIAS)); }
    }
out:
    peft__free(a->mem, saved, bytes);
    return st;
}

static peft_status prefix_add_table(peft__adapter *a, peft__attachment *at, const peft__soft_base *base) {
    peft_status st = PEFT_OK;
    int64_t n = peft__opt_int(&a->opts, "num_virtual_tokens"), h = peft__opt_int(&a->opts, "encoder_hidden_size");
    int64_t d = base->kv_dim, width = base->layers * 2 * d;
    if (h == 0) { h = d; }
    TRY(peft__opt_set_int(&a->opts, "encoder_hidden_size", h));
    if (prefix_is_flat(a)) {
        TRY(peft__adapter_add_param(a, at, "prompt_embeddings", PREFIX_TABLE, n, width, 2, false, false));
        goto out;
    }
    TRY(peft__adapter_add_param(a, at, "prompt_encoder.embedding.weight", PREFIX_EMBED, n, d, 2, false, false));
    TRY(peft__soft_add_linear(a, at, "prompt_encoder.transform.0", PREFIX_W1, PREFIX_B1, h, d));
    TRY(peft__soft_add_linear(a, at, "prompt_encoder.transform.2", PREFIX_W2, PREFIX_B2, width, h));
out:
    return st;
}

static peft_status prefix_build(peft__adapter *a) {
    peft_status st = PEFT_OK;
    peft__soft_base base;
    peft__attachment *at = NULL;
    TRY(peft__soft_sizes_of(a, &base));
    TRY(peft__soft_sizes(a, base.kv_dim, base.layers, base.kv_heads));
    TRY(peft__soft_check_text(a, "init_text"));
    TRY(peft__soft_check_source(a, "init", false));
    TRY(peft__adapter_attach(a, base.first_kv, &at)); /* which has the parameters of all layers */
    TRY(prefix_add_table(a, at, &base));
    for (size_t i = 0; i < a->base->n_sites; i++) {
        const peft__site *s = &a->base->sites[i];
        if (s->kind != PEFT__SITE_KV || s->part != PEFT__PART_DECODER) { continue; }
        if (s->out != base.kv_dim) {
            FAIL(PEFT_E_UNSUPPORTED, "the keys of \"%s\" are %lld wide, and %lld in other layers", s->path, (long long)s->out,
                 (long long)base.kv_dim);
        }
        TRY(peft__adapter_attach(a, s, &at));
    }
    if (a->method->schema == &prefix_v2_schema) { TRY(prefix_v2_head(a)); }
    TRY(prefix_add_copies(a));
out:
    return st;
}

/* PyTorch's, or 0 for the table, or for the network's last layer. */
static void prefix_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    int64_t n = p->p.rows * p->p.cols;
    bool last = p->slot == PREFIX_TABLE || p->slot == PREFIX_W2 || p->slot == PREFIX_B2, random = prefix_starts_as(a, "random");
    if (p->whole) {
        peft__adapter_init_copy(a, i, k);
    } else if (last && !random) {
        memset(p->p.value, 0, (size_t)n * sizeof *p->p.value);
    } else if (p->slot == PREFIX_TABLE || p->slot == PREFIX_EMBED) {
        for (int64_t e = 0; e < n; e++) { p->p.value[e] = PEFT__R(peft__rng_normal(rng)); }
    } else {
        double bound = 1 / sqrt((double)peft__soft_param(a, p->slot & ~1)->p.cols);
        for (int64_t e = 0; e < n; e++) { p->p.value[e] = PEFT__R(bound * (2 * peft__rng_uniform(rng) - 1)); }
    }
}

/* ---- emitters ------------------------------------------------------------------------------------------------ */

static peft__val prefix_emit(const peft__adapter *a, peft__tape *t, peft__val *hidden) {
    if (prefix_is_flat(a)) { return peft__op_param(t, peft__soft_tape_param(a, PREFIX_TABLE, t)); }
    peft__val x = peft__op_param(t, peft__soft_tape_param(a, PREFIX_EMBED, t));
    x = peft__op_act(t, PEFT__ACT_TANH, peft__soft_linear(a, t, x, PREFIX_W1, PREFIX_B1));
    if (hidden != NULL) { *hidden = x; }
    return peft__soft_linear(a, t, x, PREFIX_W2, PREFIX_B2);
}

/* The table as the first layer put it on the tape, or put there now, in the segment that is never rebuilt. */
static peft__val prefix_table(const peft__adapter *a, peft__tape *t) {
    int32_t param = peft__soft_tape_param(a, prefix_is_flat(a) ? PREFIX_TABLE : PREFIX_W2, t), segment = t->segment;
    for (size_t i = 0; i < t->ops.len && param != PEFT__NONE; i++) {
        const peft__op *op = peft__tape_op(t, (int32_t)i);
        if (op->param[0] == param && op->n_out > 0) { return op->out[0]; }
    }
    t->segment = 0;
    peft__val v = prefix_emit(a, t, NULL);
    t->segment = segment;
    t->prefix_tokens += peft__opt_int(&a->opts, "num_virtual_tokens");
    t->position_shift += peft__opt_int(&a->opts, "num_virtual_tokens");
    return v;
}

/* Number of a site's layer among the decoder's. */
static int64_t prefix_own_layer(const peft__adapter *a, const peft__site *s) {
    int64_t own = s->layer;
    for (size_t i = 0; i < a->base->n_sites; i++) {
        const peft__site *other = &a->base->sites[i];
        if (other->kind == PEFT__SITE_KV && other->part == PEFT__PART_ENCODER) { own--; }
    }
    return own;
}

/* Which of the table's layers that one has. For two stacks PEFT puts the table behind itself, and takes of the four parts that each
 * layer then has the first two. */
static int64_t prefix_place(const peft__adapter *a, int64_t own) {
    return peft__soft_stacks(a) * own % peft__opt_int(&a->opts, "num_layers");
}

static void prefix_kv(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val x,
                      peft__past *past) {
    (void)at;
    (void)x;
    int64_t d = s->out, first = prefix_place(a, prefix_own_layer(a, s)) * 2 * d;
    peft__val v = prefix_table(a, t);
    bool shared = peft__soft_stacks(a) > 1; /* by several layers, which views must not be */
    past->k = shared ? peft__op_columns(t, v, first, d) : peft__tape_view(t, v, first, d);
    past->v = shared ? peft__op_columns(t, v, first + d, d) : peft__tape_view(t, v, first + d, d);
}

/* ---- initial values ------------------------------------------------------------------------------------------ */

static bool prefix_from_a_text(const peft__adapter *a) { return prefix_starts_as(a, "text") && !peft__soft_has_source(a); }

static uint32_t prefix_needs(const peft__adapter *a) { return prefix_from_a_text(a) ? PEFT__NEEDS_FORWARD : 0; }

static const char *prefix_text(const peft__adapter *a) { return prefix_from_a_text(a) ? peft__soft_text(a, "init_text") : NULL; }

/* The table becomes these rows, or the network gives them (nearly). */
static peft_status prefix_start(peft__adapter *a, const peft__real *rows) {
    if (!prefix_is_flat(a)) { return peft__soft_fit(a, prefix_emit, rows, PREFIX_W2, PREFIX_B2); }
    const peft__param *p = &peft__soft_param(a, PREFIX_TABLE)->p;
    memcpy(p->value, rows, (size_t)(p->rows * p->cols) * sizeof *rows);
    return PEFT_OK;
}

static peft_status prefix_settle(peft__adapter *a, const peft__kernels *k) {
    peft_status st = PEFT_OK;
    if (!peft__soft_has_source(a)) { return PEFT_OK; }
    int64_t n = peft__opt_int(&a->opts, "num_virtual_tokens");
    int64_t width = prefix_is_flat(a) ? peft__soft_param(a, PREFIX_TABLE)->p.cols : peft__soft_param(a, PREFIX_W2)->p.rows;
    size_t bytes = (size_t)(n * width) * sizeof(peft__real);
    peft__real *rows = peft__alloc(a->mem, bytes);
    if (rows == NULL) { return PEFT_E_NOMEM; }
    TRY(peft__soft_source(a, k, n, width, rows));
    TRY(prefix_start(a, rows));
out:
    peft__free(a->mem, rows, bytes);
    return st;
}

static peft_status prefix_from_text(peft__adapter *a, const peft__init_text *text, const peft__kernels *k) {
    peft_status st = PEFT_OK;
    int64_t n = peft__opt_int(&a->opts, "num_virtual_tokens"), d = text->kv_dim;
    int64_t width = peft__opt_int(&a->opts, "num_layers") * 2 * d;
    size_t bytes = (size_t)(n * width) * sizeof(peft__real);
    (void)k;
    if (text->n < n) {
        return peft__fail(PEFT_E_INVALID, "%lld tokens are given for %lld virtual ones", (long long)text->n, (long long)n);
    }
    peft__real *rows = peft__alloc(a->mem, bytes);
    if (rows == NULL) { return PEFT_E_NOMEM; }
    memset(rows, 0, bytes);
    for (int64_t l = text->layers - 1; l >= 0; l--) { /* of layers that share a place the first counts */
        peft__real *to = rows + prefix_place(a, l) * 2 * d;
        for (int64_t i = 0; i < n; i++) {
            memcpy(to + i * width, text->k[l] + i * d, (size_t)d * sizeof *rows);
            memcpy(to + i * width + d, text->v[l] + i * d, (size_t)d * sizeof *rows);
        }
    }
    TRY(prefix_start(a, rows));
out:
    peft__free(a->mem, rows, bytes);
    return st;
}

/* ---- files --------------------------------------------------------------------------------------------------- */

static peft_status prefix_bake(const peft__adapter *a, int64_t *rows, int64_t *cols, peft__real *out) {
    bool flat = prefix_is_flat(a);
    *rows = flat ? 0 : peft__opt_int(&a->opts, "num_virtual_tokens");
    *cols = flat ? 0 : peft__soft_param(a, PREFIX_W2)->p.rows;
    return out != NULL && !flat ? peft__soft_run(a, prefix_emit, out, NULL) : PEFT_OK;
}

static void prefix_config_out(const peft__adapter *a, peft__json_out *j) {
    peft__soft_config_out(a, j);
    peft__config_put(&a->opts, "prefix_projection", j);
    peft__config_put(&a->opts, "encoder_hidden_size", j);
    if (peft__opt_str(&a->opts, "modules_to_save")[0] != '\0') { peft__config_put(&a->opts, "modules_to_save", j); }
}

static peft_status prefix_config_in(peft__optset *opts, const peft__json *config, const char *what) {
    static const char *const keys[] = {"prefix_projection", "encoder_hidden_size", "modules_to_save"};
    peft_status st = PEFT_OK;
    TRY(peft__soft_config_in(opts, config, what));
    for (size_t i = 0; i < PEFT__COUNT(keys); i++) { TRY(peft__config_get(opts, config, what, keys[i])); }
out:
    return st;
}

/* A step of the network's last layer moves every key and value by the sum of its inputs: at 1e-2 it leaves the model's range. */
static double prefix_rate(const peft__adapter *a) { return prefix_is_flat(a) ? 1e-2 : 1e-3; }

#define PREFIX_METHOD(id, options)                                                                                         \
    {                                                                                                                      \
        .name = id, .hf_type = "PREFIX_TUNING", .schema = &(options), .build = prefix_build, .init = prefix_init,          \
        .settle = prefix_settle, .kv = prefix_kv, .needs = prefix_needs, .from_text = prefix_from_text,                    \
        .text = prefix_text, .prompt_keys = true, .bake = prefix_bake, .config_out = prefix_config_out,                    \
        .config_in = prefix_config_in, .default_rate = prefix_rate,                                                        \
    }

const peft__method peft__method_prefix = PREFIX_METHOD("prefix", prefix_schema);
const peft__method peft__method_ptuning_v2 = PREFIX_METHOD("ptuning_v2", prefix_v2_schema);

#undef PREFIX_METHOD
#undef PREFIX_OPTIONS
