/* ia3.c - IA3: a trained factor for each column (Liu et al. 2022, arXiv 2205.05638, section 3.3).
 *
 *   y = l o (W x + b)          l [out]: projections of attention
 *   y = W (l o x) + b          l [in]: feedforward_modules, whose input is scaled
 *
 * l starts as 1, so that the adapter changes nothing at first; init_ia3_weights=false draws it from N(0, 1). Options and keys are
 * those of Hugging Face PEFT: "<path>.ia3_l" [out, 1] or [1, in]. Merging multiplies rows or columns of W (and b of the first).
 *
 * Left out: embeddings, convolutions, the head as a target. */
#include "peft/combine.h"

enum { IA3_OUT = 0, IA3_IN = 1 };

static const peft__option ia3_options[] = {
    PEFT__TARGET_OPTIONS,
    {"feedforward_modules", PEFT__OPT_LIST, "", 1, 0, NULL,
     "targets whose input is scaled, not their output; unset: usual ones of the model type"},
    {"init_ia3_weights", PEFT__OPT_BOOL, "true", 1, 0, NULL, "vectors start as 1; else as N(0, 1)"},
    {"fan_in_fan_out", PEFT__OPT_BOOL, "false", 1, 0, NULL, "set by the library: the base keeps its weights as [in, out]"},
};
static const peft__schema ia3_schema = {"method:ia3", ia3_options, PEFT__COUNT(ia3_options)};

/* PEFT's TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING, and its members that are feed-forward. */
static const char *const ia3_targets[][2] = {
    {"t5", "[\"k\",\"v\",\"wo\"]"},
    {"mt5", "[\"k\",\"v\",\"wi_1\"]"},
    {"gpt2", "[\"c_attn\",\"mlp.c_proj\"]"},
    {"gpt_bigcode", "[\"c_attn\",\"mlp.c_proj\"]"},
    {"bloom", "[\"query_key_value\",\"mlp.dense_4h_to_h\"]"},
    {"gpt_neox", "[\"query_key_value\",\"dense_4h_to_h\"]"},
    {"falcon", "[\"query_key_value\",\"dense_4h_to_h\"]"},
    {"RefinedWeb", "[\"query_key_value\",\"dense_4h_to_h\"]"},
    {"RefinedWebModel", "[\"query_key_value\",\"dense_4h_to_h\"]"},
    {"bert", "[\"key\",\"value\",\"output.dense\"]"},
    {"roberta", "[\"key\",\"value\",\"output.dense\"]"},
    {"deberta", "[\"in_proj\",\"output.dense\"]"},
    {"deberta-v2", "[\"key_proj\",\"value_proj\",\"output.dense\"]"},
    {"opt", "[\"q_proj\",\"k_proj\",\"fc2\"]"},
    {"bart", "[\"q_proj\",\"v_proj\",\"fc2\"]"},
    {"phi", "[\"q_proj\",\"v_proj\",\"fc2\"]"},
    {"gptj", "[\"q_proj\",\"v_proj\",\"fc_out\"]"},
    {"gpt_neo", "[\"q_proj\",\"v_proj\",\"c_proj\"]"},
    {"llama", "[\"k_proj\",\"v_proj\",\"down_proj\"]"},
    {"mistral", "[\"k_proj\",\"v_proj\",\"down_proj\"]"},
    {"mixtral", "[\"k_proj\",\"v_proj\",\"w2\"]"},
    {"llama4", "[\"q_proj\",\"v_proj\",\"down_proj\"]"},
    {"gemma", "[\"q_proj\",\"v_proj\",\"down_proj\"]"},
    {"gemma2", "[\"q_proj\",\"v_proj\",\"down_proj\"]"},
    {"gemma3_text", "[\"q_proj\",\"v_proj\",\"down_proj\"]"},
    {"qwen2", "[\"q_proj\",\"v_proj\",\"down_proj\"]"},
    {"qwen3", "[\"q_proj\",\"v_proj\",\"down_proj\"]"},
};
static const char *const ia3_feedforward[][2] = {
    {"t5", "[\"wo\"]"},
    {"gpt2", "[\"mlp.c_proj\"]"},
    {"gpt_bigcode", "[\"mlp.c_proj\"]"},
    {"bloom", "[\"mlp.dense_4h_to_h\"]"},
    {"gpt_neox", "[\"dense_4h_to_h\"]"},
    {"falcon", "[\"dense_4h_to_h\"]"},
    {"RefinedWeb", "[\"dense_4h_to_h\"]"},
    {"RefinedWebModel", "[\"dense_4h_to_h\"]"},
    {"bert", "[\"output.dense\"]"},
    {"roberta", "[\"output.dense\"]"},
    {"deberta", "[\"output.dense\"]"},
    {"deberta-v2", "[\"output.dense\"]"},
    {"opt", "[\"fc2\"]"},
    {"bart", "[\"fc2\"]"},
    {"phi", "[\"fc2\"]"},
    {"gptj", "[\"fc_out\"]"},
    {"gpt_neo", "[\"c_proj\"]"},
    {"llama", "[\"down_proj\"]"},
    {"mistral", "[\"down_proj\"]"},
    {"mixtral", "[\"w2\"]"},
    {"llama4", "[\"down_proj\"]"},
    {"gemma", "[\"down_proj\"]"},
    {"gemma2", "[\"down_proj\"]"},
    {"gemma3_text", "[\"down_proj\"]"},
    {"qwen2", "[\"down_proj\"]"},
    {"qwen3", "[\"down_proj\"]"},
};

/* ---- building ------------------------------------------------------------------------------------------------ */

static peft_status ia3_is_feedforward(const peft__adapter *a, const char *path, bool *out) {
    peft_status st = PEFT_OK;
    peft__names names;
    peft__arena arena;
    peft__arena_init(&arena, a->mem);
    *out = false;
    TRY(peft__names_read(&arena, peft__opt_str(&a->opts, "feedforward_modules"), "feedforward_modules", &names));
    if (names.pattern) {
        TRY(peft__regex_match(names.items[0], path, true, out));
        goto out;
    }
    for (size_t i = 0; i < names.count; i++) { *out = *out || peft__path_ends(path, names.items[i]); }
out:
    peft__arena_free(&arena);
    return st;
}

static peft_status ia3_add_site(peft__adapter *a, const peft__site *s, bool target, bool saved) {
    peft_status st = PEFT_OK;
    peft__attachment *at = NULL;
    bool inner;
    if (saved) { return peft__adapter_save_site(a, s); }
    if (!target) { return PEFT_OK; }
    TRY(ia3_is_feedforward(a, s->path, &inner));
    TRY(peft__adapter_attach(a, s, &at));
    at->product = true;
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.ia3_l", s->path), inner ? IA3_IN : IA3_OUT,
                                inner ? 1 : s->out, inner ? s->in : 1, 2, false, false));
out:
    return st;
}

/* Every name of feedforward_modules must mean a target. */
static peft_status ia3_check_feedforward(const peft__adapter *a) {
    peft_status st = PEFT_OK;
    peft__names names;
    peft__arena arena;
    const peft__attachment *all = a->attachments.data;
    peft__arena_init(&arena, a->mem);
    TRY(peft__names_read(&arena, peft__opt_str(&a->opts, "feedforward_modules"), "feedforward_modules", &names));
    for (size_t i = 0; i < names.count; i++) {
        bool used = false;
        for (size_t j = 0; j < a->attachments.len && !used; j++) {
            const char *path = a->base->sites[all[j].site].path;
            if (names.pattern) {
                TRY(peft__regex_match(names.items[i], path, true, &used));
            } else {
                used = peft__path_ends(path, names.items[i]);
            }
            used = used && all[j].product;
        }
        if (!used) { FAIL(PEFT_E_NOT_FOUND, "feedforward_modules: \"%s\" is none of the targets", names.items[i]); }
    }
out:
    peft__arena_free(&arena);
    return st;
}

static peft_status ia3_build(peft__adapter *a) {
    peft_status st = PEFT_OK;
    const char *type = a->base->model_type;
    bool given = peft__opt_str(&a->opts, "feedforward_modules")[0] != '\0';
    if (!given) { /* as PEFT: also where target_modules is given */
        const char *usual = peft__model_type_find(ia3_feedforward, PEFT__COUNT(ia3_feedforward), type);
        TRY(peft__opt_set_raw(&a->opts, "feedforward_modules", usual[0] != '\0' ? usual : "[]"));
    }
    TRY(peft__adapter_targets(a, 1 << PEFT__SITE_LINEAR, peft__model_type_find(ia3_targets, PEFT__COUNT(ia3_targets), type),
                              ia3_add_site));
    if (given && !a->from_file) { TRY(ia3_check_feedforward(a)); }
out:
    return st;
}

static void ia3_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    if (p->whole) {
        peft__adapter_init_copy(a, i, k);
        return;
    }
    bool ones = peft__opt_bool(&a->opts, "init_ia3_weights");
    for (int64_t e = 0; e < p->p.rows * p->p.cols; e++) { p->p.value[e] = ones ? 1 : PEFT__R(peft__rng_normal(rng)); }
}

/* ---- acting -------------------------------------------------------------------------------------------------- */

static peft__val ia3_before(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val x) {
    int32_t l = peft__adapter_tape_param(a, at, IA3_IN, t);
    (void)s;
    return l != PEFT__NONE ? peft__op_scale_columns(t, x, l) : x;
}

static peft__val ia3_after(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val x,
                           peft__val y) {
    int32_t l = peft__adapter_tape_param(a, at, IA3_OUT, t);
    (void)s;
    (void)x;
    return l != PEFT__NONE ? peft__op_scale_columns(t, y, l) : y;
}

/* Taken out again by the division; a factor of 0 then gives infinity, which merging refuses. */
static peft__real ia3_by(const peft__attachment *at, peft__real v, peft__real l) { return at->strength < 0 ? v / l : v * l; }

static peft_status ia3_merge(const peft__adapter *a, const peft__attachment *at, const peft__site *s, const peft__run *run,
                             peft__real *weight) {
    const peft__adapter_param *p = peft__adapter_param_at(a, (size_t)at->first);
    (void)run;
    for (int64_t r = 0; r < s->out; r++) {
        peft__real *row = weight + r * s->in;
        if (p->slot == IA3_IN) {
            for (int64_t c = 0; c < s->in; c++) { row[c] = ia3_by(at, row[c], p->p.value[c]); }
        } else {
            for (int64_t c = 0; c < s->in; c++) { row[c] = ia3_by(at, row[c], p->p.value[r]); }
        }
    }
    return PEFT_OK;
}

static void ia3_merge_bias(const peft__adapter *a, const peft__attachment *at, const peft__site *s, peft__real *bias) {
    const peft__adapter_param *p = peft__adapter_param_at(a, (size_t)at->first);
    for (int64_t r = 0; p->slot == IA3_OUT && r < s->out; r++) { bias[r] = ia3_by(at, bias[r], p->p.value[r]); }
}

/* ---- combining ----------------------------------------------------------------------------------------------- */

static const peft__adapter_param *ia3_at(const peft__adapter *a, int32_t site) {
    const peft__attachment *all = a->attachments.data;
    for (size_t i = 0; i < a->attachments.len; i++) {
        if (all[i].site == site && all[i].product) { return peft__adapter_param_at(a, (size_t)all[i].first); }
    }
    return NULL;
}

/* Which sites the sources have, [n_sites], and which of these scale the input. */
static peft_status ia3_union(const peft__mix *m, bool *targets, bool *inner) {
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < m->n; i++) {
        for (size_t s = 0; s < m->base->n_sites; s++) {
            const peft__adapter_param *p = ia3_at(m->sources[i], (int32_t)s);
            if (p == NULL) { continue; }
            if (targets[s] && inner[s] != (p->slot == IA3_IN)) {
                FAIL(PEFT_E_SHAPE, "\"%s\" is one of feedforward_modules in some of the adapters only", m->base->sites[s].path);
            }
            targets[s] = true;
            inner[s] = p->slot == IA3_IN;
        }
        for (size_t k = 0; k < peft__adapter_param_count(m->sources[i]); k++) {
            const peft__adapter_param *p = peft__adapter_param_at(m->sources[i], k);
            if (!p->whole) { continue; }
            FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\": a combination of IA3 adapters cannot hold \"%s\", which is saved whole",
                 m->sources[i]->name, p->p.name);
        }
    }
out:
    return st;
}

/* l = sum w_i l_i, as PEFT's add_weighted_adapter. An adapter without the module leaves it alone, so that its l is 1 there; in PEFT,
 * and with compat, 0. */
static void ia3_sum(const peft__mix *m, const peft__adapter *made) {
    double missing = peft__opt_bool(m->opts, "compat") ? 0 : 1;
    for (size_t i = 0; i < peft__adapter_param_count(made); i++) {
        const peft__adapter_param *to = peft__adapter_param_at(made, i);
        for (int64_t e = 0; e < to->p.rows * to->p.cols; e++) {
            double sum = 0;
            for (size_t s = 0; s < m->n; s++) {
                const peft__adapter_param *p = ia3_at(m->sources[s], to->site);
                sum += m->weights[s] * (p != NULL ? (double)p->p.value[e] : missing);
            }
            to->p.value[e] = PEFT__R(sum);
        }
    }
}

static peft_status ia3_mix(const peft__mix *m, peft__adapter **out) {
    peft_status st = PEFT_OK;
    size_t n = m->base->n_sites;
    bool *targets = peft__alloc_zero(m->mem, 2 * n);
    peft__optset opts = {0};
    peft__adapter *made = NULL;
    peft__str names;
    peft__str_init(&names, m->mem);
    if (targets == NULL) { return PEFT_E_NOMEM; }
    if (m->type[0] != '\0' && strcmp(m->type, "linear") != 0) {
        FAIL(PEFT_E_UNSUPPORTED, "IA3 adapters combine as type=linear or average, not %s", m->type);
    }
    TRY(ia3_union(m, targets, targets + n));
    TRY(peft__optset_init(&opts, m->mem, &ia3_schema));
    TRY(peft__target_names(m->base, targets, &names));
    TRY(peft__opt_set_raw(&opts, "target_modules", peft__str_c(&names)));
    peft__str_clear(&names);
    TRY(peft__target_names(m->base, targets + n, &names));
    TRY(peft__opt_set_raw(&opts, "feedforward_modules", peft__str_c(&names)));
    TRY(peft__opt_set_str(&opts, "task_type", peft__opt_str(&m->sources[0]->opts, "task_type")));
    TRY(peft__adapter_create_empty(m->mem, m->base, m->name, &peft__method_ia3, &opts, &made));
    ia3_sum(m, made);
    *out = made;
out:
    peft__optset_free(&opts);
    peft__str_free(&names);
    peft__free(m->mem, targets, 2 * n);
    return st;
}

static void ia3_config_out(const peft__adapter *a, peft__json_out *j) {
    peft__config_put_targets(&a->opts, j);
    peft__config_put(&a->opts, "feedforward_modules", j);
    peft__config_put(&a->opts, "init_ia3_weights", j);
}

static peft_status ia3_config_in(peft__optset *opts, const peft__json *config, const char *what) {
    peft_status st = PEFT_OK;
    const peft__json *inner = peft__json_find(config, "feedforward_modules");
    TRY(peft__config_get_targets(opts, config, what));
    TRY(peft__config_get(opts, config, what, "feedforward_modules"));
    TRY(peft__config_get(opts, config, what, "init_ia3_weights"));
    if (inner != NULL && inner->kind == PEFT__JSON_ARRAY && inner->len == 0) { /* none, which is not "unset" */
        TRY(peft__opt_set_raw(opts, "feedforward_modules", "[]"));
    }
out:
    return st;
}

const peft__method peft__method_ia3 = {
    .name = "ia3",
    .hf_type = "IA3",
    .schema = &ia3_schema,
    .build = ia3_build,
    .init = ia3_init,
    .before = ia3_before,
    .after = ia3_after,
    .merge = ia3_merge,
    .reversible = true,
    .merge_bias = ia3_merge_bias,
    .mix = ia3_mix,
    .config_out = ia3_config_out,
    .config_in = ia3_config_in,
    .learning_rate = 3e-3,
};
