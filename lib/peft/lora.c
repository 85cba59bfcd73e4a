/* lora.c - LoRA: y = W x + b + s B A drop(x), with A [r, in] and B [out, r]; and DoRA over it.
 *
 * s = alpha / r, or alpha / sqrt(r) with use_rslora (Hu et al. 2021, arXiv 2106.09685; Kalajdzievski 2023, arXiv 2312.03732).
 * A starts as U(-1/sqrt(in), 1/sqrt(in)) (Kaiming's with a = sqrt 5) or N(0, 1/r), B as 0, so that the adapter changes nothing
 * at first; init_lora_weights=false draws B from U(-1/sqrt(r), 1/sqrt(r)) too. Options are those of Hugging Face PEFT, r and
 * alpha by module through rank_pattern and alpha_pattern; bias and modules_to_save add trained copies of base tensors.
 *
 * use_dora (Liu et al. 2024, arXiv 2402.09353) trains the length of each row of the weight as well:
 *   y = m / |W + s B A| o (W x + s B A x) + b      m [out], from the lengths of W's rows; the norm counts as a constant
 * With dropout both parts of what is added see the dropped input, as in PEFT. loraplus_lr_ratio (Hayou et al. 2024, arXiv
 * 2402.12354) gives B, and what has one dimension, a larger learning rate. Merging: W + s B A, with DoRA its rows times m / |.|.
 *
 * Initial values made from the base (PiSSA, OLoRA) are in lora_base.c, trained rows of tokens (trainable_token_indices) in tokens.c.
 *
 * Left out: embeddings as targets, lora_bias, LoftQ, EVA and their like. */
#include "peft/hub.h"
#include "peft/lora.h"

#include <math.h>

enum { LORA_A = PEFT__LORA_A, LORA_B = PEFT__LORA_B, LORA_BIAS = PEFT__LORA_BIAS, LORA_M = PEFT__LORA_M };

static const peft__option lora_options[] = {PEFT__LORA_OPTIONS("false")};
static const peft__schema lora_schema = {"method:lora", lora_options, PEFT__COUNT(lora_options)};
static const peft__option dora_options[] = {PEFT__LORA_OPTIONS("true")};
static const peft__schema dora_schema = {"method:dora", dora_options, PEFT__COUNT(dora_options)};

/* ---- building ------------------------------------------------------------------------------------------------ */

static peft_status lora_add_pair(peft__adapter *a, peft__attachment *at, const peft__site *s) {
    peft_status st = PEFT_OK;
    TRY(peft__adapter_rank(a, at, s, "lora_alpha"));
    TRY(peft__adapter_check_rank(a, s, at->rank));
    if (peft__opt_bool(&a->opts, "use_rslora")) { at->scale = at->scale * (double)at->rank / sqrt((double)at->rank); }
    at->product = true;
    at->dropout = peft__opt_float(&a->opts, "lora_dropout");
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.lora_A.weight", s->path), LORA_A, at->rank, s->in, 2,
                                false, a->method == &peft__method_lora_fa));
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.lora_B.weight", s->path), LORA_B, s->out, at->rank, 2,
                                false, false));
    if (peft__lora_from_base(a)) { TRY(peft__lora_add_base(a, at, s)); }
    if (!peft__opt_bool(&a->opts, "use_dora")) { goto out; }
    if (s->kind == PEFT__SITE_HEAD) {
        FAIL(PEFT_E_UNSUPPORTED, "use_dora: the head \"%s\" cannot be a target; take it out of target_modules", s->path);
    }
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.lora_magnitude_vector", s->path), LORA_M, 1, s->out, 1,
                                false, false));
out:
    return st;
}

/* PEFT wraps a target, so that its bias lies one level deeper than those of other modules. */
static peft_status lora_add_bias(peft__adapter *a, peft__attachment *at, const peft__site *s, bool target) {
    const char *key = NULL;
    if (target) {
        key = peft__arena_printf(&a->arena, "%s.base_layer.bias", s->path);
        if (key == NULL) { return PEFT_E_NOMEM; }
    }
    return peft__adapter_copy_bias(a, at, s, key, LORA_BIAS);
}

static peft_status lora_add_site(peft__adapter *a, const peft__site *s, bool target, bool saved) {
    peft_status st = PEFT_OK;
    const char *bias = peft__opt_str(&a->opts, "bias");
    bool trains_bias = s->bias != NULL && !saved && (strcmp(bias, "all") == 0 || (target && strcmp(bias, "lora_only") == 0));
    peft__attachment *at = NULL;
    if (!target && !saved && !trains_bias) { return peft__tokens_add(a, s); }
    TRY(peft__adapter_attach(a, s, &at));
    if (saved) { TRY(peft__adapter_save_site(a, s)); }
    if (target) { TRY(lora_add_pair(a, at, s)); }
    if (trains_bias) { TRY(lora_add_bias(a, at, s, target)); }
    TRY(peft__tokens_add(a, s));
out:
    return st;
}

peft_status peft__lora_build(peft__adapter *a) {
    peft_status st = peft__tokens_resolve(a, "trainable_token_indices", PEFT__TOKENS_TABLE, "token_adapter.");
    if (st != PEFT_OK) { return st; }
    a->bent = peft__opt_bool(&a->opts, "use_dora") || peft__opt_str(&a->opts, "trainable_token_indices")[0] != '\0';
    return peft__adapter_targets(a, 1 << PEFT__SITE_LINEAR | 1 << PEFT__SITE_HEAD, peft__usual_projections(a->base), lora_add_site);
}

void peft__lora_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    const char *how = peft__opt_str(&a->opts, "init_lora_weights");
    int64_t n = p->p.rows * p->p.cols;
    if (peft__tokens_init(a, i, false, rng, k)) { return; }
    if (p->whole) {
        peft__adapter_init_copy(a, i, k);
    } else if (p->slot == LORA_A && strcmp(how, "gaussian") == 0) {
        double deviation = 1 / (double)p->p.rows;
        for (int64_t e = 0; e < n; e++) { p->p.value[e] = PEFT__R(deviation * peft__rng_normal(rng)); }
    } else if (p->slot == LORA_A || strcmp(how, "false") == 0) {
        double bound = 1 / sqrt((double)p->p.cols);
        for (int64_t e = 0; e < n; e++) { p->p.value[e] = PEFT__R(bound * (2 * peft__rng_uniform(rng) - 1)); }
    } else {
        memset(p->p.value, 0, (size_t)n * sizeof *p->p.value); /* m: see settle */
    }
}

/* n[out]: lengths of the rows of W + s B A. */
static peft_status lora_lengths(const peft__adapter *a, const peft__attachment *at, const peft__kernels *k, peft__real *n) {
    const peft__site *s = &a->base->sites[at->site];
    const peft__real *pa = peft__adapter_param_at(a, (size_t)at->first)->p.value;
    const peft__real *pb = peft__adapter_param_at(a, (size_t)at->first + 1)->p.value;
    size_t bytes = (size_t)s->in * sizeof(peft__real);
    peft__real *row = peft__alloc(a->mem, bytes);
    if (row == NULL) { return PEFT_E_NOMEM; }
    for (int64_t i = 0; i < s->out; i++) {
        peft__weight_row(k, s->weight, i, row);
        for (int64_t p = 0; p < at->rank; p++) { k->axpy(row, PEFT__R(at->scale) * pb[i * at->rank + p], pa + p * s->in, s->in); }
        n[i] = PEFT__R(sqrt(k->sum_sq(row, s->in)));
    }
    peft__free(a->mem, row, bytes);
    return PEFT_OK;
}

static const peft__real *lora_magnitude(const peft__adapter *a, const peft__attachment *at) {
    for (int32_t i = at->first; i < at->first + at->count; i++) {
        const peft__adapter_param *p = peft__adapter_param_at(a, (size_t)i);
        if (p->slot == LORA_M) { return p->p.value; }
    }
    return NULL;
}

/* A fresh DoRA changes nothing: m is what the norms are. */
peft_status peft__lora_settle(peft__adapter *a, const peft__kernels *k) {
    peft_status st = PEFT_OK;
    TRY(peft__tokens_settle(a, false, k));
    if (peft__lora_from_base(a)) { TRY(peft__lora_fill_base(a, k)); }
    for (size_t i = 0; i < peft__adapter_param_count(a); i++) {
        const peft__adapter_param *p = peft__adapter_param_at(a, i);
        if (p->slot != LORA_M || p->whole) { continue; }
        const peft__attachment *all = a->attachments.data;
        for (size_t j = 0; j < a->attachments.len; j++) {
            if (all[j].site == p->site) { TRY(lora_lengths(a, &all[j], k, p->p.value)); }
        }
    }
out:
    return st;
}

double peft__lora_rate(const peft__adapter *a, size_t i) {
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    return (p->slot == LORA_B && !p->whole) || p->ndim == 1 ? peft__opt_float(&a->opts, "loraplus_lr_ratio") : 1;
}

/* ---- emitters ------------------------------------------------------------------------------------------------ */

peft__val peft__lora_after(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val x,
                            peft__val y) {
    if (at->rank == 0) { return y; } /* only a trained bias or copy */
    int32_t pa = peft__adapter_tape_param(a, at, LORA_A, t), pb = peft__adapter_tape_param(a, at, LORA_B, t);
    int32_t pm = peft__adapter_tape_param(a, at, LORA_M, t), pa0 = peft__adapter_tape_param(a, at, PEFT__LORA_A0, t);
    if (pa0 != PEFT__NONE) { /* what the base has lost to A and B; not dropped */
        y = peft__op_low_rank(t, y, x, pa0, peft__adapter_tape_param(a, at, PEFT__LORA_B0, t), -at->scale);
    }
    bool drops = t->training && at->dropout > 0;
    if (drops) { x = peft__op_dropout(t, x, at->dropout, at->key); }
    y = peft__op_low_rank(t, y, x, pa, pb, at->scale);
    if (pm == PEFT__NONE) { return y; }
    const int32_t params[3] = {pm, pa, pb};
    peft__val z = PEFT__NONE;
    if (drops) { /* the base's product with what dropout has left of x */
        z = peft__op_linear(t, x, s->weight, NULL, PEFT__NONE, PEFT__NONE, s->out);
        z = peft__op_low_rank(t, z, x, pa, pb, at->scale);
    }
    return peft__op_dora(t, y, z, s->weight, s->bias_data, peft__adapter_tape_copy(a, at->bias_param, t), params, at->scale);
}

peft__val peft__lora_head(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val x,
                          peft__head_spec *spec) {
    x = peft__tokens_head(a, at, t, s, x, spec);
    if (at->rank == 0) { return x; }
    if (spec->lora_a != PEFT__NONE) {
        peft__tape_fail(t, PEFT_E_UNSUPPORTED, "two adapters add to \"%s\", and the head takes one", s->path);
        return x;
    }
    if (t->training && at->dropout > 0) {
        peft__tape_fail(t, PEFT_E_UNSUPPORTED,
                        "lora_dropout is set, and \"%s\" is trained without dropout only; set it to 0 or take the head out of "
                        "target_modules", s->path);
        return x;
    }
    spec->lora_a = peft__adapter_tape_param(a, at, LORA_A, t);
    spec->lora_b = peft__adapter_tape_param(a, at, LORA_B, t);
    spec->lora_scale = at->scale;
    return x;
}

/* weight += s B A; with DoRA its rows are then multiplied by m / |W + s B A| */
peft_status peft__lora_merge(const peft__adapter *a, const peft__attachment *at, const peft__site *s, const peft__run *run,
                              peft__real *weight) {
    peft_status st = peft__tokens_merge(a, at, weight);
    if (at->rank == 0 || st != PEFT_OK) { return st; }
    const peft__real *pa = peft__adapter_param_at(a, (size_t)at->first)->p.value;
    const peft__real *pb = peft__adapter_param_at(a, (size_t)at->first + 1)->p.value;
    peft__gemm_args args = {.m = s->out,
                            .n = s->in,
                            .k = at->rank,
                            .a = pb,
                            .lda = at->rank,
                            .b = peft__real_backward(pa, s->in),
                            .c = weight,
                            .ldc = s->in,
                            .alpha = PEFT__R(at->scale),
                            .accumulate = true};
    peft__gemm(run, &args);
    if (peft__lora_from_base(a)) {
        args.a = peft__adapter_param_at(a, (size_t)at->first + 3)->p.value; /* B0, after A, B, A0 */
        args.b = peft__real_backward(peft__adapter_param_at(a, (size_t)at->first + 2)->p.value, s->in);
        args.alpha = -args.alpha;
        peft__gemm(run, &args);
    }
    const peft__real *m = lora_magnitude(a, at);
    size_t bytes = (size_t)s->out * sizeof(peft__real);
    if (m == NULL) { return PEFT_OK; }
    peft__real *n = peft__alloc(a->mem, bytes);
    if (n == NULL) { return PEFT_E_NOMEM; }
    st = lora_lengths(a, at, run->k, n);
    for (int64_t i = 0; i < s->out && st == PEFT_OK; i++) {
        run->k->scale(weight + i * s->in, m[i] / n[i], weight + i * s->in, s->in);
    }
    peft__free(a->mem, n, bytes);
    return st;
}

/* ---- adapter_config.json ------------------------------------------------------------------------------------- */

void peft__lora_config_out(const peft__adapter *a, peft__json_out *j) {
    static const char *const core[] = {"r", "lora_alpha", "lora_dropout", "target_modules", "layers_to_transform",
                                       "layers_pattern", "bias", "modules_to_save", "fan_in_fan_out"};
    static const char *const others[] = {"exclude_modules", "rank_pattern", "alpha_pattern"};
    for (size_t i = 0; i < PEFT__COUNT(core); i++) { peft__config_put(&a->opts, core[i], j); }
    for (size_t i = 0; i < PEFT__COUNT(others); i++) {
        if (peft__opt_str(&a->opts, others[i])[0] != '\0') { peft__config_put(&a->opts, others[i], j); }
    }
    if (peft__opt_bool(&a->opts, "use_rslora")) { peft__config_put(&a->opts, "use_rslora", j); }
    if (peft__opt_bool(&a->opts, "use_dora")) { peft__config_put(&a->opts, "use_dora", j); }
    if (a->tokens != NULL) { peft__config_put(&a->opts, "trainable_token_indices", j); }
    const char *how = peft__opt_str(&a->opts, "init_lora_weights");
    peft__json_key(j, "init_lora_weights");
    if (strcmp(how, "gaussian") == 0) {
        peft__json_put_text(j, how);
    } else {
        peft__json_put_bool(j, strcmp(how, "true") == 0);
    }
}

/* Schemes that only choose initial values are as good as "true" once there are values; those that change the base are not. */
static peft_status lora_config_init(peft__optset *opts, const peft__json *config, const char *what) {
    static const char *const harmless[] = {"eva", "orthogonal", "mica"};
    const peft__json *node = peft__json_find(config, "init_lora_weights");
    if (node == NULL) { return PEFT_OK; }
    if (node->kind == PEFT__JSON_BOOL) { return peft__opt_set_bool(opts, "init_lora_weights", node->truth); }
    for (size_t i = 0; i < PEFT__COUNT(harmless); i++) {
        if (peft__json_is(node, harmless[i])) { return peft__opt_set_str(opts, "init_lora_weights", "true"); }
    }
    if (peft__json_is(node, "gaussian")) { return peft__opt_set_str(opts, "init_lora_weights", "gaussian"); }
    return peft__fail(PEFT_E_UNSUPPORTED,
                      "%s: init_lora_weights is \"%s\", which may change the base weights; convert the adapter to plain LoRA first "
                      "(PEFT: save_pretrained with path_initial_model_for_weight_conversion)",
                      what, node->kind == PEFT__JSON_STRING ? node->str : "?");
}

peft_status peft__lora_config_in(peft__optset *opts, const peft__json *config, const char *what) {
    static const char *const plain[] = {"r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules",
                                        "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "bias",
                                        "modules_to_save", "use_rslora", "use_dora", "fan_in_fan_out", "trainable_token_indices"};
    /* Ignoring these would give another model than the one that was trained. */
    static const char *const refused[] = {"lora_bias", "layer_replication", "target_parameters",
                                          "alora_invocation_tokens", "arrow_config", "use_qalora",
                                          "use_bdlora", "velora_config", "monteclora_config", "kasa_config", "enable_lora"};
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < PEFT__COUNT(refused); i++) {
        if (!peft__config_unused(peft__json_find(config, refused[i]))) {
            FAIL(PEFT_E_UNSUPPORTED, "%s: %s is set; this version reads plain LoRA", what, refused[i]);
        }
    }
    for (size_t i = 0; i < PEFT__COUNT(plain); i++) { TRY(peft__config_get(opts, config, what, plain[i])); }
    TRY(lora_config_init(opts, config, what));
out:
    return st;
}

const peft__method peft__method_lora = {
    .name = "lora",
    .hf_type = "LORA",
    .schema = &lora_schema,
    .build = peft__lora_build,
    .init = peft__lora_init,
    .settle = peft__lora_settle,
    .after = peft__lora_after,
    .embed = peft__tokens_embed,
    .head = peft__lora_head,
    .merge = peft__lora_merge,
    .proportional = true,
    .by_rows = true,
    .rate = peft__lora_rate,
    .plain = peft__lora_plain,
    .to_hub = peft__lora_to_hub,
    .mix = peft__lora_mix,
    .low_rank = peft__lora_only,
    .config_out = peft__lora_config_out,
    .config_in = peft__lora_config_in,
    .learning_rate = 5e-4,
};

const peft__method peft__method_dora = {
    .name = "dora",
    .hf_type = "LORA",
    .schema = &dora_schema,
    .alias = true,
    .build = peft__lora_build,
    .init = peft__lora_init,
    .settle = peft__lora_settle,
    .after = peft__lora_after,
    .embed = peft__tokens_embed,
    .head = peft__lora_head,
    .merge = peft__lora_merge,
    .proportional = true,
    .by_rows = true,
    .rate = peft__lora_rate,
    .plain = peft__lora_plain,
    .to_hub = peft__lora_to_hub,
    .mix = peft__lora_mix,
    .low_rank = peft__lora_only,
    .config_out = peft__lora_config_out,
    .config_in = peft__lora_config_in,
    .learning_rate = 5e-4,
};
