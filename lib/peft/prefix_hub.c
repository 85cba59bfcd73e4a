/* prefix_hub.c - prefix-tuning as AdapterHub's library has it: `prefix_tuning`, and `prefix_tuning_flat` with the option flat.
 *
 *   T = W2 f(W1 e + b1) + b2, e [n, width of the model], or, flat, T itself:  [n, layers 2 D], as in prefix.c
 *   with use_gating   row r of a batch sees g_r K and g_r V, g_r = mean over its tokens of sigmoid(w x + b)
 *
 * x is what the layer's queries, keys and values are made of; with shared_gating=false keys and values have a gate each (UniPELT,
 * Mao et al. 2022, arXiv 2110.07577). Unlike PEFT's prefix a row's positions begin at 0 and every token sees the whole prefix,
 * whatever a sliding window is: the folders that the two save mean different things, and are two methods here.
 *
 * Files: "<model>.prefix_tuning.prefix_tunings.NAME.self_prefix.wte.weight", ".control_trans.0.weight", ... or, flat,
 * ".control_trans" of one dimension; "<attention>.prefix_tuning.prefix_gates.NAME.weight". That library saves the first ones
 * again under every layer ("....prefix_tuning.pool.prefix_tunings..."), where they are passed over.
 *
 * Dropout falls on keys and values, alike for all rows of a step (there: for each row).
 *
 * Encoder-decoder models have up to three tables: of the encoder, of the decoder's attention to itself, and of that to the encoder.
 *
 * Left out: merging, as nothing of it is a weight; what that library does to T5's biases where leave_out names a stack's first layer
 * (it forgets them). */
#include <math.h>

#include "peft/hub.h"
#include "peft/soft.h"

enum { PREFIX_HUB_TABLE = 0, PREFIX_HUB_EMBED = 1, PREFIX_HUB_W1 = 2, PREFIX_HUB_B1 = 3, PREFIX_HUB_W2 = 4, PREFIX_HUB_B2 = 5,
       PREFIX_HUB_GATE_W = 6, PREFIX_HUB_GATE_B = 7 };

static const peft__option prefix_hub_options[] = {
    {"prefix_length", PEFT__OPT_INT, "30", 1, 1 << 16, NULL, "number of keys and values before each row"},
    {"bottleneck_size", PEFT__OPT_INT, "512", 1, 1 << 20, NULL, "width inside of the network that makes them"},
    {"non_linearity", PEFT__OPT_STR, "tanh", 1, 0, PEFT__HUB_ACTS, "activation of that network"},
    {"flat", PEFT__OPT_BOOL, "false", 1, 0, NULL, "the keys and values are trained themselves, without a network"},
    {"dropout", PEFT__OPT_FLOAT, "0.0", 0, 0.999, NULL, "part of the keys and values that is dropped in training"},
    {"leave_out", PEFT__OPT_LIST, "", 1, 0, NULL, "numbers of layers without a prefix"},
    {"encoder_prefix", PEFT__OPT_BOOL, "true", 1, 0, NULL, "of encoder-decoder models: also in the encoder's attention"},
    {"cross_prefix", PEFT__OPT_BOOL, "true", 1, 0, NULL, "of encoder-decoder models: also in attention to the encoder"},
    {"use_gating", PEFT__OPT_BOOL, "false", 1, 0, NULL, "a trained gate in each layer says how much a row takes of them"},
    {"shared_gating", PEFT__OPT_BOOL, "true", 1, 0, NULL, "one gate for keys and values; else one each"},
    {"init", PEFT__OPT_STR, "text", 1, 0, "text|random|zero",
     "initial keys and values: the base's own for a text, what a random network makes (flat: N(0, 1)), or 0"},
    {"init_text", PEFT__OPT_STR, "", 1, 0, NULL, "text to start from with init=text; unset: a neutral instruction"},
    {"base_model_name_or_path", PEFT__OPT_STR, "", 1, 0, NULL, "as written to adapter_config.json; unset: the model's path"},
};
static const peft__schema prefix_hub_schema = {"method:prefix_tuning", prefix_hub_options, PEFT__COUNT(prefix_hub_options)};

static bool prefix_hub_starts_as(const peft__adapter *a, const char *how) {
    return strcmp(peft__opt_str(&a->opts, "init"), how) == 0;
}
static bool prefix_hub_flat(const peft__adapter *a) { return peft__opt_bool(&a->opts, "flat"); }

static const peft__site *prefix_hub_site(const peft__adapter *a, size_t i) {
    return &a->base->sites[PEFT__VEC_AT(&a->attachments, peft__attachment, i).site];
}

/* How many attachments are prefixes: they come before the copies of a head. */
static size_t prefix_hub_count(const peft__adapter *a) {
    size_t n = 0;
    while (n < a->attachments.len && prefix_hub_site(a, n)->kind == PEFT__SITE_KV) { n++; }
    return n;
}

/* The attachment that has the table of a part of the model: its first. NULL: none yet. */
static const peft__attachment *prefix_hub_holder(const peft__adapter *a, int32_t part) {
    for (size_t i = 0; i < a->attachments.len; i++) {
        if (prefix_hub_site(a, i)->part == part) { return &PEFT__VEC_AT(&a->attachments, peft__attachment, i); }
    }
    return NULL;
}

/* ---- building ------------------------------------------------------------------------------------------------ */

static const char *const prefix_hub_parts[] = {[PEFT__PART_DECODER] = "self_prefix", [PEFT__PART_ENCODER] = "encoder_prefix",
                                               [PEFT__PART_CROSS] = "cross_prefix"};

/* Has attention at a site a prefix? Layers are counted over both stacks. */
static peft_status prefix_hub_takes(const peft__adapter *a, peft__arena *arena, const peft__site *s, bool *out) {
    bool left = false;
    peft_status st = s->kind == PEFT__SITE_KV ? peft__hub_left_out(a, arena, s->layer, &left) : PEFT_OK;
    *out = s->kind == PEFT__SITE_KV && !left &&
           (s->part == PEFT__PART_DECODER || peft__opt_bool(&a->opts, prefix_hub_parts[s->part]));
    return st;
}

static peft_status prefix_hub_add_table(peft__adapter *a, peft__attachment *at, const peft__site *s, int64_t layers,
                                        int64_t hidden) {
    peft_status st = PEFT_OK;
    int64_t n = peft__opt_int(&a->opts, "prefix_length"), m = peft__opt_int(&a->opts, "bottleneck_size");
    int64_t width = layers * 2 * s->out;
    const char *base = peft__hub_base(&a->arena, s);
    if (base == NULL) { return PEFT_E_NOMEM; }
    bool plain = a->base->model_type != NULL && strcmp(a->base->model_type, "distilbert") == 0; /* as that library's class has it */
    const char *part = plain ? "self" : prefix_hub_parts[s->part];
    char *place = peft__arena_printf(&a->arena, "%sprefix_tuning.prefix_tunings.%s", base, part);
    if (place == NULL) { return PEFT_E_NOMEM; }
    if (prefix_hub_flat(a)) {
        int64_t all = n * width;
        TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.control_trans", place), PREFIX_HUB_TABLE, n, width, 2,
                                    false, false));
        peft__adapter_shape(a, 1, &all);
        goto out;
    }
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.wte.weight", place), PREFIX_HUB_EMBED, n, hidden, 2, false,
                                false));
    TRY(peft__soft_add_linear(a, at, peft__arena_printf(&a->arena, "%s.control_trans.0", place), PREFIX_HUB_W1, PREFIX_HUB_B1, m,
                              hidden));
    TRY(peft__soft_add_linear(a, at, peft__arena_printf(&a->arena, "%s.control_trans.2", place), PREFIX_HUB_W2, PREFIX_HUB_B2, width,
                              m));
out:
    return st;
}

static peft_status prefix_hub_add_gate(peft__adapter *a, peft__attachment *at, const peft__site *s, int64_t hidden) {
    peft_status st = PEFT_OK;
    int64_t gates = peft__opt_bool(&a->opts, "shared_gating") ? 1 : 2;
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.prefix_tuning.prefix_gates.weight", s->path),
                                PREFIX_HUB_GATE_W, gates, hidden, 2, false, false));
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.prefix_tuning.prefix_gates.bias", s->path),
                                PREFIX_HUB_GATE_B, 1, gates, 1, false, false));
out:
    return st;
}

/* Layers with a prefix, of each part; all must have keys of one width. */
static peft_status prefix_hub_layers(const peft__adapter *a, peft__arena *arena, const peft__soft_base *base, int64_t out[3]) {
    peft_status st = PEFT_OK;
    memset(out, 0, 3 * sizeof *out);
    for (size_t i = 0; i < a->base->n_sites; i++) {
        const peft__site *s = &a->base->sites[i];
        bool takes = false;
        if (s->kind != PEFT__SITE_KV) { continue; }
        if (s->out != base->kv_dim) {
            FAIL(PEFT_E_UNSUPPORTED, "the keys of \"%s\" are %lld wide, and %lld in other layers", s->path, (long long)s->out,
                 (long long)base->kv_dim);
        }
        TRY(prefix_hub_takes(a, arena, s, &takes));
        out[s->part] += takes;
    }
    if (out[0] + out[1] + out[2] == 0) { FAIL(PEFT_E_NOT_FOUND, "option \"leave_out\" leaves no layer for a prefix"); }
out:
    return st;
}

/* What the base computes of a text is known for a decoder's keys and values alone. */
static peft_status prefix_hub_start(peft__adapter *a) {
    if (a->from_file || !prefix_hub_starts_as(a, "text")) { return PEFT_OK; }
    if (!peft__opt_is_set(&a->opts, "init")) { return peft__opt_set_str(&a->opts, "init", "random"); }
    return peft__fail(PEFT_E_UNSUPPORTED,
                      "option \"init\" is \"text\", and this base has an encoder, whose prefixes start as random or zero");
}

static peft_status prefix_hub_build(peft__adapter *a) {
    peft_status st = PEFT_OK;
    int64_t layers[3];
    peft__soft_base base;
    peft__arena arena;
    peft__arena_init(&arena, a->mem);
    TRY(peft__soft_sizes_of(a, &base));
    TRY(peft__soft_check_text(a, "init_text"));
    if (base.decoder_input != NULL) { TRY(prefix_hub_start(a)); }
    TRY(prefix_hub_layers(a, &arena, &base, layers));
    for (size_t i = 0; i < a->base->n_sites; i++) {
        const peft__site *s = &a->base->sites[i];
        peft__attachment *at = NULL;
        bool takes = false;
        TRY(prefix_hub_takes(a, &arena, s, &takes));
        if (!takes) { continue; }
        bool first = prefix_hub_holder(a, s->part) == NULL; /* it has the parameters of all */
        TRY(peft__adapter_attach(a, s, &at));
        if (first) { TRY(prefix_hub_add_table(a, at, s, layers[s->part], base.width)); }
        if (peft__opt_bool(&a->opts, "use_gating")) { TRY(prefix_hub_add_gate(a, at, s, base.width)); }
    }
out:
    peft__arena_free(&arena);
    return st;
}

/* PyTorch's, or 0 for the table, or for the network's last layer. */
static void prefix_hub_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    int64_t n = p->p.rows * p->p.cols;
    bool last = p->slot == PREFIX_HUB_TABLE || p->slot == PREFIX_HUB_W2 || p->slot == PREFIX_HUB_B2;
    (void)k;
    if (p->slot == PREFIX_HUB_GATE_W || p->slot == PREFIX_HUB_GATE_B) {
        peft__hub_init_gate(a, i, p->slot == PREFIX_HUB_GATE_B, rng);
    } else if (last && !prefix_hub_starts_as(a, "random")) {
        memset(p->p.value, 0, (size_t)n * sizeof *p->p.value);
    } else if (p->slot == PREFIX_HUB_TABLE || p->slot == PREFIX_HUB_EMBED) {
        for (int64_t e = 0; e < n; e++) { p->p.value[e] = PEFT__R(peft__rng_normal(rng)); }
    } else {
        double bound = 1 / sqrt((double)peft__soft_param(a, p->slot & ~1)->p.cols);
        for (int64_t e = 0; e < n; e++) { p->p.value[e] = PEFT__R(bound * (2 * peft__rng_uniform(rng) - 1)); }
    }
}

/* ---- emitters ------------------------------------------------------------------------------------------------ */

static int32_t prefix_hub_param(const peft__adapter *a, const peft__attachment *at, int32_t slot, peft__tape *t) {
    return peft__adapter_tape_param(a, at, slot, t);
}

static peft__val prefix_hub_linear(const peft__adapter *a, const peft__attachment *at, peft__tape *t, peft__val x, int32_t slot) {
    int32_t w = prefix_hub_param(a, at, slot, t), b = prefix_hub_param(a, at, slot + 1, t);
    return peft__op_linear(t, x, NULL, NULL, w, b, w != PEFT__NONE ? peft__tape_param_at(t, w)->rows : 0);
}

/* The table of a part. */
static peft__val prefix_hub_make(const peft__adapter *a, const peft__attachment *at, peft__tape *t, peft__val *hidden) {
    if (prefix_hub_flat(a)) { return peft__op_param(t, prefix_hub_param(a, at, PREFIX_HUB_TABLE, t)); }
    peft__val x = peft__op_param(t, prefix_hub_param(a, at, PREFIX_HUB_EMBED, t));
    x = prefix_hub_linear(a, at, t, x, PREFIX_HUB_W1);
    x = peft__op_act(t, peft__bottleneck_act(peft__opt_str(&a->opts, "non_linearity")), x);
    if (hidden != NULL) { *hidden = x; }
    return prefix_hub_linear(a, at, t, x, PREFIX_HUB_W2);
}

static peft__val prefix_hub_emit(const peft__adapter *a, peft__tape *t, peft__val *hidden) {
    return prefix_hub_make(a, a->attachments.data, t, hidden);
}

/* The table as its first layer put it on the tape, or put there now, in the segment that is never rebuilt. */
static peft__val prefix_hub_table(const peft__adapter *a, const peft__site *s, peft__tape *t) {
    const peft__attachment *at = prefix_hub_holder(a, s->part);
    int32_t param = prefix_hub_param(a, at, prefix_hub_flat(a) ? PREFIX_HUB_TABLE : PREFIX_HUB_W2, t), segment = t->segment;
    double p = peft__opt_float(&a->opts, "dropout");
    peft__val v = PEFT__NONE;
    for (size_t i = 0; i < t->ops.len && param != PEFT__NONE; i++) {
        const peft__op *op = peft__tape_op(t, (int32_t)i);
        bool dropped = v != PEFT__NONE && op->n_in == 1 && op->in[0] == v; /* used whole: by dropout alone */
        if (op->n_out > 0 && (op->param[0] == param || dropped)) { v = op->out[0]; }
    }
    if (v != PEFT__NONE || t->status != PEFT_OK) { return v; }
    t->segment = 0;
    v = prefix_hub_make(a, at, t, NULL);
    if (p > 0) { v = peft__op_dropout(t, v, p, at->key); }
    t->segment = segment;
    if (s->part == PEFT__PART_DECODER) { t->prefix_tokens += peft__opt_int(&a->opts, "prefix_length"); }
    return v;
}

/* Which of its part's table's layers a site has. */
static int64_t prefix_hub_layer(const peft__adapter *a, const peft__site *s) {
    int64_t n = 0;
    for (size_t i = 0; prefix_hub_site(a, i)->id != s->id; i++) { n += prefix_hub_site(a, i)->part == s->part; }
    return n;
}

static void prefix_hub_kv(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val x,
                          peft__past *past) {
    int64_t d = s->out, first = prefix_hub_layer(a, s) * 2 * d;
    peft__val v = prefix_hub_table(a, s, t);
    int32_t gate = peft__adapter_tape_param(a, at, PREFIX_HUB_GATE_W, t), bias = peft__adapter_tape_param(a, at, PREFIX_HUB_GATE_B, t);
    past->k = peft__tape_view(t, v, first, d);
    past->v = peft__tape_view(t, v, first + d, d);
    past->unplaced = true;
    if (gate != PEFT__NONE) { past->gates = peft__op_row_mean_gate(t, x, gate, bias); }
}

/* ---- initial values ------------------------------------------------------------------------------------------ */

static uint32_t prefix_hub_needs(const peft__adapter *a) { return prefix_hub_starts_as(a, "text") ? PEFT__NEEDS_FORWARD : 0; }

static const char *prefix_hub_text(const peft__adapter *a) {
    return prefix_hub_starts_as(a, "text") ? peft__soft_text(a, "init_text") : NULL;
}

static peft_status prefix_hub_from_text(peft__adapter *a, const peft__init_text *text, const peft__kernels *k) {
    peft_status st = PEFT_OK;
    size_t layers = prefix_hub_count(a);
    int64_t n = peft__opt_int(&a->opts, "prefix_length"), d = text->kv_dim, width = (int64_t)layers * 2 * d;
    size_t bytes = (size_t)(n * width) * sizeof(peft__real);
    (void)k;
    if (text->n < n) {
        return peft__fail(PEFT_E_INVALID, "%lld tokens are given for a prefix of %lld", (long long)text->n, (long long)n);
    }
    peft__real *rows = peft__alloc(a->mem, bytes);
    if (rows == NULL) { return PEFT_E_NOMEM; }
    for (int64_t i = 0; i < n; i++) {
        for (size_t l = 0; l < layers; l++) {
            int32_t layer = a->base->sites[PEFT__VEC_AT(&a->attachments, peft__attachment, l).site].layer;
            peft__real *to = rows + i * width + (int64_t)l * 2 * d;
            memcpy(to, text->k[layer] + i * d, (size_t)d * sizeof *rows);
            memcpy(to + d, text->v[layer] + i * d, (size_t)d * sizeof *rows);
        }
    }
    if (prefix_hub_flat(a)) {
        memcpy(peft__soft_param(a, PREFIX_HUB_TABLE)->p.value, rows, bytes);
    } else {
        TRY(peft__soft_fit(a, prefix_hub_emit, rows, PREFIX_HUB_W2, PREFIX_HUB_B2));
    }
out:
    peft__free(a->mem, rows, bytes);
    return st;
}

/* ---- files --------------------------------------------------------------------------------------------------- */

static peft_status prefix_hub_out(const peft__adapter *a, peft__json_out *j) {
    static const char *const keys[] = {"prefix_length", "bottleneck_size", "non_linearity", "flat", "dropout", "use_gating",
                                       "shared_gating", "encoder_prefix", "cross_prefix"};
    for (size_t i = 0; i < PEFT__COUNT(keys); i++) { peft__config_put(&a->opts, keys[i], j); }
    peft__json_key(j, "init_weights_seed"), peft__json_put_null(j);
    return PEFT_OK;
}

static peft_status prefix_hub_in(peft__optset *opts, const peft__json *root, const char *what) {
    static const char *const keys[] = {"prefix_length", "bottleneck_size", "non_linearity", "flat",
                                       "dropout", "leave_out", "use_gating", "shared_gating", "encoder_prefix", "cross_prefix"};
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < PEFT__COUNT(keys); i++) { TRY(peft__config_get(opts, peft__json_find(root, "config"), what, keys[i])); }
out:
    return st;
}

/* As prefix.c: a step of the network's last layer moves every key and value by the sum of its inputs. */
static double prefix_hub_rate(const peft__adapter *a) { return prefix_hub_flat(a) ? 1e-2 : 1e-3; }

const peft__method peft__method_prefix_tuning = {
    .name = "prefix_tuning",
    .schema = &prefix_hub_schema,
    .build = prefix_hub_build,
    .init = prefix_hub_init,
    .kv = prefix_hub_kv,
    .needs = prefix_hub_needs,
    .from_text = prefix_hub_from_text,
    .text = prefix_hub_text,
    .hub = true,
    .hub_architecture = "prefix_tuning",
    .hub_out = prefix_hub_out,
    .hub_in = prefix_hub_in,
    .default_rate = prefix_hub_rate,
};
