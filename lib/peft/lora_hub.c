/* lora_hub.c - LoRA as AdapterHub's library has it: y + s B A drop(x), s = alpha / r, or with use_gating
 *
 *   y + g_r B A drop(x)        g_r = mean over row r's tokens of sigmoid(w x + b)    (UniPELT, Mao et al. 2022, arXiv 2110.07577)
 *
 * where the gate stands in the place of alpha / r. Its places are named by what they are, not by module: attn_matrices of q, k, v,
 * and the two matrices that it calls intermediate and output (of Llama and Mistral those are the down- and the up-projection). Where
 * one matrix makes q, k and v (GPT-2), each chosen one has a pair and a gate of its own: lora_A [n r, in], lora_B [n out / 3, r],
 * gate [n, in]. That of GPT-NeoX, whose heads have their q, k and v together, is meant so too; that library has no such model.
 *
 * Files: "<module>.loras.NAME.lora_A", ".lora_B", ".gate.weight", ".gate.bias". Without gates, and with one pair a module, it is
 * LoRA as anywhere else: such folders are read as method `lora`, and written from it (lora_to_hub, format "adapterhub").
 * Releases before 1.1.0 did not scale by alpha / r: their folders are read with alpha = r.
 *
 * Left out: IA3, DoRA and VeRA as that library has them (its IA3 scales other things, its DoRA and VeRA compute others). */
#include <math.h>

#include "peft/hub.h"
#include "peft/lora.h"

enum { LORA_HUB_A = PEFT__LORA_A, LORA_HUB_B = PEFT__LORA_B, LORA_HUB_GATE_W = 2, LORA_HUB_GATE_B = 3 };

static const peft__option lora_hub_options[] = {
    {"r", PEFT__OPT_INT, "8", 1, 1 << 20, NULL, "rank: columns of B"},
    {"alpha", PEFT__OPT_FLOAT, "8", 1, 0, NULL, "the product is scaled by alpha / r; of no effect with use_gating"},
    {"dropout", PEFT__OPT_FLOAT, "0.0", 0, 0.999, NULL, "part of the input that is dropped in training"},
    {"attn_matrices", PEFT__OPT_LIST, "[\"q\",\"v\"]", 1, 0, NULL, "which of q, k, v have one"},
    {"selfattn_lora", PEFT__OPT_BOOL, "true", 1, 0, NULL, "attn_matrices have one; else none does"},
    {"intermediate_lora", PEFT__OPT_BOOL, "false", 1, 0, NULL, "the FFN's first matrix has one; of Llama and Mistral its last"},
    {"output_lora", PEFT__OPT_BOOL, "false", 1, 0, NULL, "the FFN's last matrix has one; of Llama and Mistral its up-projection"},
    {"leave_out", PEFT__OPT_LIST, "", 1, 0, NULL, "numbers of layers without one"},
    {"init_weights", PEFT__OPT_STR, "lora", 1, 0, "lora|bert", "initial values: A uniform and B 0; or both N(0, 0.02)"},
    {"use_gating", PEFT__OPT_BOOL, "false", 1, 0, NULL, "a trained gate says how much a row takes of it"},
    {"base_model_name_or_path", PEFT__OPT_STR, "", 1, 0, NULL, "as written to adapter_config.json; unset: the model's path"},
};
static const peft__schema lora_hub_schema = {"method:lora_hub", lora_hub_options, PEFT__COUNT(lora_hub_options)};

/* ---- places -------------------------------------------------------------------------------------------------- */

typedef struct lora_hub_places {
    bool attn[3];                /* q, k, v */
    bool up, down;               /* roles of the FFN */
} lora_hub_places;

bool peft__lora_hub_turned(const peft__base_info *base) { /* as that library's classes are, and not its other interfaces */
    return base->model_type != NULL && (strcmp(base->model_type, "llama") == 0 || strcmp(base->model_type, "mistral") == 0);
}

int64_t peft__lora_hub_row(const peft__site *s, int64_t part, int64_t i) {
    if (s->heads == 0) { return part * (s->out / 3) + i; }
    int64_t d = s->out / 3 / s->heads;
    return (i / d * 3 + part) * d + i % d;
}

static peft_status lora_hub_chosen(const peft__adapter *a, peft__arena *arena, lora_hub_places *out) {
    static const char *const letters[] = {"q", "k", "v"};
    peft_status st = PEFT_OK;
    peft__names names;
    bool turned = peft__lora_hub_turned(a->base);
    memset(out, 0, sizeof *out);
    out->up = peft__opt_bool(&a->opts, turned ? "output_lora" : "intermediate_lora");
    out->down = peft__opt_bool(&a->opts, turned ? "intermediate_lora" : "output_lora");
    if (!peft__opt_bool(&a->opts, "selfattn_lora")) { goto out; }
    TRY(peft__names_read(arena, peft__opt_str(&a->opts, "attn_matrices"), "attn_matrices", &names));
    for (size_t i = 0; i < names.count; i++) {
        size_t k = 0;
        while (k < 3 && strcmp(names.items[i], letters[k]) != 0) { k++; }
        if (k == 3) { FAIL(PEFT_E_KEY, "option \"attn_matrices\" has \"%s\", expected q, k or v", names.items[i]); }
        out->attn[k] = true;
    }
out:
    return st;
}

/* Groups of the output's columns that have a pair at a site: their first columns; 0: no LoRA there. */
static int64_t lora_hub_groups(const lora_hub_places *p, const peft__site *s, int64_t first[3]) {
    int64_t n = 0;
    first[0] = 0;
    if (s->kind != PEFT__SITE_LINEAR) { return 0; }
    switch (s->role) {
    case PEFT__ROLE_Q: return p->attn[0];
    case PEFT__ROLE_K: return p->attn[1];
    case PEFT__ROLE_V: return p->attn[2];
    case PEFT__ROLE_UP: return p->up;
    case PEFT__ROLE_DOWN: return p->down;
    case PEFT__ROLE_QKV:
        for (int64_t i = 0; i < 3; i++) {
            if (p->attn[i]) { first[n++] = i * (s->out / 3); }
        }
        return n;
    default: return 0;
    }
}

/* ---- building ------------------------------------------------------------------------------------------------ */

static peft_status lora_hub_add(peft__adapter *a, const peft__site *s, int64_t groups) {
    peft_status st = PEFT_OK;
    peft__attachment *at = NULL;
    int64_t r = peft__opt_int(&a->opts, "r"), out = s->role == PEFT__ROLE_QKV ? s->out / 3 * groups : s->out;
    bool gated = peft__opt_bool(&a->opts, "use_gating");
    TRY(peft__adapter_attach(a, s, &at));
    at->rank = r;
    at->scale = gated ? 1 : peft__opt_float(&a->opts, "alpha") / (double)r;
    at->dropout = peft__opt_float(&a->opts, "dropout");
    at->product = true;
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.loras.lora_A", s->path), LORA_HUB_A, r * groups, s->in, 2,
                                false, false));
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.loras.lora_B", s->path), LORA_HUB_B, out, r, 2, false,
                                false));
    if (!gated) { goto out; }
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.loras.gate.weight", s->path), LORA_HUB_GATE_W, groups,
                                s->in, 2, false, false));
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.loras.gate.bias", s->path), LORA_HUB_GATE_B, 1, groups, 1,
                                false, false));
out:
    return st;
}

/* Parts of a matrix of q, k and v must be of one size. */
static peft_status lora_hub_check_parts(const peft__adapter *a, const peft__site *s) {
    for (size_t i = 0; i < a->base->n_sites && s->role == PEFT__ROLE_QKV; i++) {
        const peft__site *kv = &a->base->sites[i];
        if (kv->kind != PEFT__SITE_KV || kv->layer != s->layer || 3 * kv->out == s->out) { continue; }
        return peft__fail(PEFT_E_UNSUPPORTED, "AdapterHub's LoRA cuts \"%s\" in three equal parts, and of its %lld rows keys have %lld: "
                          "choose selfattn_lora=false, or method lora", s->path, (long long)s->out, (long long)kv->out);
    }
    return PEFT_OK;
}

static peft_status lora_hub_build(peft__adapter *a) {
    peft_status st = PEFT_OK;
    lora_hub_places places;
    int64_t first[3];
    peft__arena arena;
    peft__arena_init(&arena, a->mem);
    TRY(lora_hub_chosen(a, &arena, &places));
    for (size_t i = 0; i < a->base->n_sites; i++) {
        const peft__site *s = &a->base->sites[i];
        int64_t groups = lora_hub_groups(&places, s, first);
        bool left = false;
        if (groups == 0) { continue; }
        TRY(lora_hub_check_parts(a, s));
        TRY(peft__hub_left_out(a, &arena, s->layer, &left));
        if (!left) { TRY(lora_hub_add(a, s, groups)); }
    }
    if (a->params.len == 0) {
        FAIL(PEFT_E_NOT_FOUND, "the options selfattn_lora, attn_matrices, intermediate_lora, output_lora and leave_out leave no "
                               "place for a LoRA");
    }
out:
    peft__arena_free(&arena);
    return st;
}

static void lora_hub_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    int64_t n = p->p.rows * p->p.cols;
    bool bert = strcmp(peft__opt_str(&a->opts, "init_weights"), "bert") == 0;
    (void)k;
    if (p->slot == LORA_HUB_GATE_W || p->slot == LORA_HUB_GATE_B) {
        peft__hub_init_gate(a, i, p->slot == LORA_HUB_GATE_B, rng);
    } else if (bert) {
        for (int64_t e = 0; e < n; e++) { p->p.value[e] = PEFT__R(0.02 * peft__rng_normal(rng)); }
    } else if (p->slot == LORA_HUB_A) {
        double bound = 1 / sqrt((double)p->p.cols);
        for (int64_t e = 0; e < n; e++) { p->p.value[e] = PEFT__R(bound * (2 * peft__rng_uniform(rng) - 1)); }
    } else {
        memset(p->p.value, 0, (size_t)n * sizeof *p->p.value);
    }
}

/* ---- what it does -------------------------------------------------------------------------------------------- */

/* The groups of an attachment again. */
static int64_t lora_hub_groups_at(const peft__adapter *a, const peft__site *s, int64_t first[3]) {
    lora_hub_places places;
    peft__arena arena;
    peft__arena_init(&arena, a->mem);
    int64_t n = lora_hub_chosen(a, &arena, &places) == PEFT_OK ? lora_hub_groups(&places, s, first) : 0;
    peft__arena_free(&arena);
    return n;
}

static peft__val lora_hub_after(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val x,
                                peft__val y) {
    int64_t first[3], n = lora_hub_groups_at(a, s, first);
    int32_t pa = peft__adapter_tape_param(a, at, LORA_HUB_A, t), pb = peft__adapter_tape_param(a, at, LORA_HUB_B, t);
    int32_t gate = peft__adapter_tape_param(a, at, LORA_HUB_GATE_W, t);
    if (n == 0) { peft__tape_fail(t, PEFT_E_NOMEM, "%s", peft__fail_text()); }
    if (t->status != PEFT_OK) { return PEFT__NONE; }
    peft__val in = at->dropout > 0 ? peft__op_dropout(t, x, at->dropout, at->key) : x;
    peft__val h = peft__op_linear(t, in, NULL, NULL, pa, PEFT__NONE, peft__tape_param_at(t, pa)->rows);
    if (gate != PEFT__NONE) {
        h = peft__op_row_scale(t, h, peft__op_row_mean_gate(t, x, gate, peft__adapter_tape_param(a, at, LORA_HUB_GATE_B, t)));
    }
    if (s->heads == 0) { return peft__op_add_groups(t, y, h, pb, at->scale, first, n); }
    y = peft__op_add_groups(t, peft__op_regroup(t, y, s->heads, 3), h, pb, at->scale, first, n);
    return peft__op_regroup(t, y, 3, s->heads);
}

static peft_status lora_hub_merge(const peft__adapter *a, const peft__attachment *at, const peft__site *s, const peft__run *run,
                                  peft__real *weight) {
    int64_t first[3], n = lora_hub_groups_at(a, s, first), r = at->rank;
    const peft__param *pa = peft__lora_param(a, at, LORA_HUB_A), *pb = peft__lora_param(a, at, LORA_HUB_B);
    if (peft__lora_param(a, at, LORA_HUB_GATE_W) != NULL) {
        return peft__fail(PEFT_E_UNSUPPORTED, "adapter \"%s\" has gates (use_gating), which depend on the row: it cannot be merged",
                          a->name);
    }
    if (n == 0) { return PEFT_E_NOMEM; }
    int64_t width = pb->rows / n, run_of = s->heads > 0 ? width / s->heads : width; /* rows that stand together */
    for (int64_t i = 0; i < pb->rows / run_of; i++) {
        int64_t g = i * run_of / width, row = s->heads > 0 ? peft__lora_hub_row(s, first[g] / width, i * run_of % width) : first[g];
        peft__gemm_args args = {.m = run_of,
                                .n = s->in,
                                .k = r,
                                .a = pb->value + i * run_of * r,
                                .lda = r,
                                .b = peft__real_backward(pa->value + g * r * s->in, s->in),
                                .c = weight + row * s->in,
                                .ldc = s->in,
                                .alpha = PEFT__R(at->scale),
                                .accumulate = true};
        peft__gemm(run, &args);
    }
    return PEFT_OK;
}

/* ---- files --------------------------------------------------------------------------------------------------- */

static peft_status lora_hub_out(const peft__adapter *a, peft__json_out *j) {
    static const char *const keys[] = {"r", "alpha", "dropout", "attn_matrices", "selfattn_lora", "intermediate_lora",
                                       "output_lora", "init_weights", "use_gating"};
    static const char *const none[] = {"init_weights_seed", "vera_b", "vera_d", "dtype"};
    for (size_t i = 0; i < PEFT__COUNT(keys); i++) { peft__config_put(&a->opts, keys[i], j); }
    for (size_t i = 0; i < PEFT__COUNT(none); i++) { peft__json_key(j, none[i]), peft__json_put_null(j); }
    peft__json_key(j, "composition_mode"), peft__json_put_text(j, "add");
    peft__json_key(j, "use_dora"), peft__json_put_bool(j, false);
    return PEFT_OK;
}

/* "adapters.1.0.2" is before 1.1; a file without that text is of the older library, whose version is a number alone. */
static bool lora_hub_is_old(const peft__json *root) {
    static const char lead[] = "adapters.";
    const peft__json *version = peft__json_find(root, "version");
    int64_t major = 0, minor = 0;
    if (version == NULL || version->kind != PEFT__JSON_STRING) { return false; }
    if (strncmp(version->str, lead, sizeof lead - 1) != 0) { return false; }
    const char *at = version->str + sizeof lead - 1, *dot = strchr(at, '.');
    if (dot == NULL || !peft__parse_i64(at, (size_t)(dot - at), &major)) { return false; }
    return major < 1 || (major == 1 && peft__parse_i64(dot + 1, strspn(dot + 1, "0123456789"), &minor) && minor < 1);
}

static peft_status lora_hub_in(peft__optset *opts, const peft__json *root, const char *what) {
    static const char *const keys[] = {"r", "alpha", "dropout", "attn_matrices", "selfattn_lora", "intermediate_lora",
                                       "output_lora", "leave_out", "use_gating"};
    static const char *const refused[] = {"use_dora", "vera_d", "vera_b", "n_up_projection"};
    peft_status st = PEFT_OK;
    const peft__json *c = peft__json_find(root, "config"), *mode = peft__json_find(c, "composition_mode");
    if (mode != NULL && !peft__json_is(mode, "add")) {
        FAIL(PEFT_E_UNSUPPORTED, "%s: composition_mode is \"%s\": AdapterHub's IA3 scales other things than this library's", what,
             mode->kind == PEFT__JSON_STRING ? mode->str : "?");
    }
    TRY(peft__config_refuse(c, what, refused, PEFT__COUNT(refused)));
    for (size_t i = 0; i < PEFT__COUNT(keys); i++) { TRY(peft__config_get(opts, c, what, keys[i])); }
    if (peft__json_is(peft__json_find(c, "init_weights"), "bert")) { TRY(peft__opt_set_str(opts, "init_weights", "bert")); }
    if (lora_hub_is_old(root)) { TRY(peft__opt_set_float(opts, "alpha", (double)peft__opt_int(opts, "r"))); }
out:
    return st;
}

const peft__method peft__method_lora_hub = {
    .name = "lora_hub",
    .schema = &lora_hub_schema,
    .build = lora_hub_build,
    .init = lora_hub_init,
    .after = lora_hub_after,
    .merge = lora_hub_merge,
    .proportional = true,
    .simplify = peft__lora_hub_simplify,
    .loaded = peft__lora_hub_loaded,
    .hub = true,
    .hub_architecture = "lora",
    .hub_out = lora_hub_out,
    .hub_in = lora_hub_in,
    .learning_rate = 5e-4,
};
