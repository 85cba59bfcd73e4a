/* adalora.c - AdaLoRA: a low-rank change in the form of a singular value decomposition, whose smallest parts are taken away
 * while it is trained, so that modules end with the ranks that they deserve (Zhang et al. 2023, arXiv 2303.10512).
 *
 *   y = W x + b + s B (E o (A drop(x)))        A [r, in], B [out, r], E [r, 1], s = lora_alpha / (init_r + 1e-5)
 *
 * A and B start as N(0, 0.02^2), E as 0. A row of A, a column of B and the element of E between them are a triplet. The loss has
 * one term more, which keeps A's rows and B's columns orthonormal: orth_reg_weight times the mean over all A and B of
 *   |A A' - I|, |B' B - I|        Frobenius norms, not squared (the paper's eq. 4 squares them; Hugging Face PEFT does not)
 * Which triplets stay is decided in adalora_budget.c: taken away means E = 0. Files hold what is left (adalora_pattern.c); s stays
 * as it is for all.
 *
 * Left out: the head and convolutions as targets, trained biases. */
#include "peft/adalora.h"

#include <math.h>

static const peft__option adalora_options[] = {
    {"init_r", PEFT__OPT_INT, "12", 1, 4096, NULL, "rank at first: rows of A and columns of B"},
    {"target_r", PEFT__OPT_INT, "8", 1, 4096, NULL, "mean rank in the end, over all modules"},
    {"tinit", PEFT__OPT_INT, "0", 0, 1e15, NULL, "steps before the first triplet is taken away"},
    {"tfinal", PEFT__OPT_INT, "0", 0, 1e15, NULL, "steps at the end in which the choice stays"},
    {"deltaT", PEFT__OPT_INT, "1", 1, 1e15, NULL, "a choice after every so many steps"},
    {"beta1", PEFT__OPT_FLOAT, "0.85", 0, 1, NULL, "smoothing of the importance"},
    {"beta2", PEFT__OPT_FLOAT, "0.85", 0, 1, NULL, "smoothing of its uncertainty"},
    {"orth_reg_weight", PEFT__OPT_FLOAT, "0.5", 0, 1e9, NULL, "weight of the term that keeps A and B orthonormal"},
    {"total_step", PEFT__OPT_INT, "0", 0, 1e15, NULL, "steps of the schedule; 0: those of the run"},
    {"lora_alpha", PEFT__OPT_FLOAT, "8", 1, 0, NULL, "the product is scaled by lora_alpha / init_r; 0 or less: by 1"},
    {"lora_dropout", PEFT__OPT_FLOAT, "0.0", 0, 0.999, NULL, "part of the adapter's input that is dropped in training"},
    {"init_lora_weights", PEFT__OPT_BOOL, "true", 1, 0, NULL, "E is 0 at first; false: A, B and E are N(0, 1)"},
    PEFT__TARGET_OPTIONS,
    PEFT__LAYER_OPTIONS,
    {"rank_pattern", PEFT__OPT_MAP, "", 1, 0, NULL,
     "what a training has left: by the path of E, for each of init_r triplets whether it is there; nothing more is taken away"},
    {"fan_in_fan_out", PEFT__OPT_BOOL, "false", 1, 0, NULL, "set by the library: the base keeps its weights as [in, out]"},
};
static const peft__schema adalora_schema = {"method:adalora", adalora_options, PEFT__COUNT(adalora_options)};

/* Where PEFT's defaults are not those of LoRA. */
static const char *const adalora_targets[][2] = {
    {"t5", "[\"q\",\"k\",\"v\",\"o\",\"wi\",\"wo\"]"}, /* "wi" where there is one: version 1.1 has not */
    {"mt5", "[\"q\",\"k\",\"v\",\"o\",\"wi_0\",\"wi_1\",\"wo\"]"},
    {"bart", "[\"q_proj\",\"k_proj\",\"v_proj\",\"out_proj\",\"fc1\",\"fc2\"]"},
    {"opt", "[\"q_proj\",\"k_proj\",\"v_proj\",\"out_proj\",\"fc1\",\"fc2\"]"},
    {"roberta", "[\"query\",\"key\",\"value\",\"dense\"]"},
    {"deberta-v2", "[\"query_proj\",\"key_proj\",\"value_proj\",\"dense\"]"},
};

static const char adalora_gated_t5[] = "[\"q\",\"k\",\"v\",\"o\",\"wo\"]";

enum { ADALORA_TOTAL = 16 }; /* reals of `shared` before the scratch; the first is the total of the last run, or 0 */

peft__real *peft__adalora_values(const peft__adapter *a, const peft__attachment *at, int32_t slot) {
    return peft__adapter_param_at(a, (size_t)(at->first + slot))->p.value;
}

/* ---- building ------------------------------------------------------------------------------------------------ */

/* A parameter of a module of rank r, which may be 0: then its file has a tensor without elements. */
static peft_status adalora_add_param(peft__adapter *a, peft__attachment *at, const peft__site *s, int32_t slot) {
    static const char *const names[] = {"lora_A", "lora_B", "lora_E"};
    int64_t r = at->rank, some = PEFT__MAX(r, 1);
    int64_t rows = slot == PEFT__ADALORA_A ? some : slot == PEFT__ADALORA_B ? s->out : 1;
    int64_t dims[2] = {slot == PEFT__ADALORA_B ? s->out : r, slot == PEFT__ADALORA_A ? s->in : slot == PEFT__ADALORA_B ? r : 1};
    peft_status st = peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.%s", s->path, names[slot]), slot, rows,
                                             slot == PEFT__ADALORA_A ? s->in : some, 2, false, false);
    if (st != PEFT_OK) { return st; }
    peft__adapter_shape(a, 2, dims);
    peft__adapter_param *p = &PEFT__VEC_AT(&a->params, peft__adapter_param, a->params.len - 1);
    if (r == 0 && slot == PEFT__ADALORA_A) { p->p.rows = 0; }
    if (r == 0 && slot != PEFT__ADALORA_A) { p->p.cols = 0; }
    return PEFT_OK;
}

static peft_status adalora_add_site(peft__adapter *a, const peft__site *s, bool target, bool saved) {
    peft_status st = PEFT_OK;
    peft__attachment *at = NULL;
    double alpha = peft__opt_float(&a->opts, "lora_alpha"), init = (double)peft__opt_int(&a->opts, "init_r");
    const peft__json *pattern = NULL;
    peft__arena arena;
    if (saved) { return peft__adapter_save_site(a, s); }
    if (!target) { return PEFT_OK; }
    peft__arena_init(&arena, a->mem);
    TRY(peft__adalora_pattern(a, &arena, &pattern));
    TRY(peft__adapter_attach(a, s, &at));
    TRY(peft__adalora_rank(a, s->path, pattern, &at->rank));
    at->product = true;
    at->scale = (alpha > 0 ? alpha : init) / (init + 1e-5);
    at->dropout = peft__opt_float(&a->opts, "lora_dropout");
    for (int32_t slot = PEFT__ADALORA_A; slot <= PEFT__ADALORA_E; slot++) { TRY(adalora_add_param(a, at, s, slot)); }
out:
    peft__arena_free(&arena);
    return st;
}

/* LIST text of what an unset target_modules means. */
static const char *adalora_usual(const peft__base_info *base) {
    const char *usual = peft__model_type_find(adalora_targets, PEFT__COUNT(adalora_targets), base->model_type);
    if (usual[0] == '\0') { return peft__usual_projections(base); }
    if (strcmp(base->model_type, "t5") != 0) { return usual; }
    for (size_t i = 0; i < base->n_sites; i++) {
        if (peft__path_ends(base->sites[i].path, "wi")) { return usual; }
    }
    return adalora_gated_t5;
}

static peft_status adalora_build(peft__adapter *a) {
    peft_status st = PEFT_OK;
    peft__adalora_plan plan;
    const peft__json *pattern = NULL;
    int64_t init = peft__opt_int(&a->opts, "init_r"), total = peft__opt_int(&a->opts, "total_step");
    peft__arena arena;
    peft__arena_init(&arena, a->mem);
    TRY(peft__adapter_targets(a, 1 << PEFT__SITE_LINEAR, adalora_usual(a->base), adalora_add_site));
    TRY(peft__adalora_pattern(a, &arena, &pattern));
    TRY(peft__adalora_check_pattern(a, pattern));
    if (!a->from_file) { /* a file may come from a training that never pruned; a run checks again */
        int64_t least = peft__opt_int(&a->opts, "tinit") + peft__opt_int(&a->opts, "tfinal") + 1;
        TRY(peft__adalora_schedule(a, total > 0 ? total : least, &plan));
    }
    a->shared = peft__arena_alloc(&a->arena, (size_t)(ADALORA_TOTAL + init * init) * sizeof *a->shared);
    if (a->shared == NULL) { st = PEFT_E_NOMEM; }
out:
    peft__arena_free(&arena);
    return st;
}

static void adalora_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    bool usual = peft__opt_bool(&a->opts, "init_lora_weights");
    double deviation = !usual ? 1 : p->slot == PEFT__ADALORA_E ? 0 : 0.02;
    if (p->whole) {
        peft__adapter_init_copy(a, i, k);
        return;
    }
    for (int64_t e = 0; e < p->p.rows * p->p.cols; e++) { p->p.value[e] = PEFT__R(deviation * peft__rng_normal(rng)); }
}

/* ---- acting -------------------------------------------------------------------------------------------------- */

static peft__val adalora_after(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val x,
                               peft__val y) {
    (void)s;
    if (at->rank == 0) { return y; } /* saved whole, or nothing is left */
    peft__val h = peft__op_dropout(t, x, at->dropout, at->key);
    h = peft__op_linear(t, h, NULL, NULL, peft__adapter_tape_param(a, at, PEFT__ADALORA_A, t), PEFT__NONE, at->rank);
    h = peft__op_scale_columns(t, h, peft__adapter_tape_param(a, at, PEFT__ADALORA_E, t));
    return peft__op_add_product(t, y, h, peft__adapter_tape_param(a, at, PEFT__ADALORA_B, t), at->scale);
}

/* weight += s (B o E) A */
static peft_status adalora_merge(const peft__adapter *a, const peft__attachment *at, const peft__site *s, const peft__run *run,
                                 peft__real *weight) {
    int64_t r = at->rank;
    if (r == 0) { return PEFT_OK; }
    const peft__real *pb = peft__adalora_values(a, at, PEFT__ADALORA_B), *pe = peft__adalora_values(a, at, PEFT__ADALORA_E);
    size_t bytes = (size_t)(s->out * r) * sizeof(peft__real);
    peft__real *scaled = peft__alloc(a->mem, bytes);
    if (scaled == NULL) { return PEFT_E_NOMEM; }
    for (int64_t o = 0; o < s->out; o++) { run->k->mul(scaled + o * r, pb + o * r, pe, r); }
    peft__gemm_args args = {.m = s->out,
                            .n = s->in,
                            .k = r,
                            .a = scaled,
                            .lda = r,
                            .b = peft__real_backward(peft__adalora_values(a, at, PEFT__ADALORA_A), s->in),
                            .c = weight,
                            .ldc = s->in,
                            .alpha = PEFT__R(at->scale),
                            .accumulate = true};
    peft__gemm(run, &args);
    peft__free(a->mem, scaled, bytes);
    return PEFT_OK;
}

/* ---- the orthonormal term ------------------------------------------------------------------------------------ */

/* c[r, r] -= I; its Frobenius norm. */
static double adalora_distance(const peft__run *run, peft__real *c, int64_t r) {
    for (int64_t i = 0; i < r; i++) { c[i * r + i] -= 1; }
    return sqrt(run->k->sum_sq(c, r * r));
}

/* f = |A A' - I|;  dA += factor df/dA = factor 2 (A A' - I) A / f, and 0 where f is 0. */
static double adalora_rows_term(const peft__run *run, const peft__real *pa, int64_t r, int64_t in, double factor, peft__real *c,
                                peft__real *da) {
    peft__gemm_args gram = {.m = r, .n = r, .k = in, .a = pa, .lda = in, .b = peft__real_forward(pa, in), .c = c, .ldc = r,
                            .alpha = 1};
    peft__gemm(run, &gram);
    double f = adalora_distance(run, c, r);
    peft__gemm_args back = {.m = r, .n = in, .k = r, .a = c, .lda = r, .b = peft__real_backward(pa, in), .c = da, .ldc = in,
                            .alpha = PEFT__R(f > 0 ? 2 * factor / f : 0), .accumulate = true};
    peft__gemm(run, &back);
    return f;
}

/* The same of B' B - I:  dB += factor 2 B (B' B - I) / f. */
static double adalora_columns_term(const peft__run *run, const peft__real *pb, int64_t r, int64_t out, double factor,
                                   peft__real *c, peft__real *db) {
    peft__gemm_args gram = {.m = r, .n = r, .k = out, .a = pb, .lda = r, .a_trans = true, .b = peft__real_backward(pb, r), .c = c,
                            .ldc = r, .alpha = 1};
    peft__gemm(run, &gram);
    double f = adalora_distance(run, c, r);
    peft__gemm_args back = {.m = out, .n = r, .k = r, .a = pb, .lda = r, .b = peft__real_backward(c, r), .c = db, .ldc = r,
                            .alpha = PEFT__R(f > 0 ? 2 * factor / f : 0), .accumulate = true};
    peft__gemm(run, &back);
    return f;
}

static peft_status adalora_regularise(const peft__adapter *a, const peft__run *run, double weight, peft__real *grads,
                                      double *loss) {
    double share = peft__opt_float(&a->opts, "orth_reg_weight"), sum = 0, count = 0;
    const peft__attachment *all = a->attachments.data;
    peft__real *c = a->shared + ADALORA_TOTAL;
    for (size_t j = 0; j < a->attachments.len; j++) { count += all[j].product ? 2 : 0; } /* those of rank 0 too, as in PEFT */
    if (share == 0 || count == 0) { return PEFT_OK; }
    for (size_t j = 0; j < a->attachments.len; j++) {
        const peft__site *s = &a->base->sites[all[j].site];
        if (!all[j].product || all[j].rank == 0) { continue; }
        const peft__real *pa = peft__adalora_values(a, &all[j], PEFT__ADALORA_A);
        const peft__real *pb = peft__adalora_values(a, &all[j], PEFT__ADALORA_B);
        double factor = weight * share / count;
        sum += adalora_rows_term(run, pa, all[j].rank, s->in, factor, c, grads + (pa - a->values));
        sum += adalora_columns_term(run, pb, all[j].rank, s->out, factor, c, grads + (pb - a->values));
    }
    *loss += share * sum / count;
    return PEFT_OK;
}

/* ---- adapter_config.json ------------------------------------------------------------------------------------- */

static const char *const adalora_keys[] = {"init_r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2",
                                           "orth_reg_weight", "lora_alpha", "lora_dropout", "init_lora_weights"};

static void adalora_config_out(const peft__adapter *a, peft__json_out *j) {
    static const char *const unset[] = {"total_step", "rank_pattern"};
    peft__config_put_targets(&a->opts, j);
    for (size_t i = 0; i < PEFT__COUNT(adalora_keys); i++) { peft__config_put(&a->opts, adalora_keys[i], j); }
    bool set[2] = {peft__opt_int(&a->opts, unset[0]) > 0, peft__opt_str(&a->opts, unset[1])[0] != '\0'};
    for (size_t i = 0; i < PEFT__COUNT(unset); i++) {
        if (set[i]) {
            peft__config_put(&a->opts, unset[i], j);
        } else {
            peft__json_key(j, unset[i]);
            peft__json_put_null(j);
        }
    }
    peft__json_key(j, "bias");
    peft__json_put_text(j, "none");
}

static peft_status adalora_config_in(peft__optset *opts, const peft__json *config, const char *what) {
    static const char *const refused[] = {"bias", "use_dora", "layer_replication", "target_parameters", "trainable_token_indices"};
    peft_status st = PEFT_OK;
    const peft__json *init = peft__json_find(config, "init_lora_weights");
    TRY(peft__config_refuse(config, what, refused, PEFT__COUNT(refused)));
    TRY(peft__config_get_targets(opts, config, what));
    for (size_t i = 0; i < PEFT__COUNT(adalora_keys); i++) { /* any text there, "gaussian" say, is as good as true */
        bool text = init != NULL && init->kind != PEFT__JSON_BOOL && strcmp(adalora_keys[i], "init_lora_weights") == 0;
        if (!text) { TRY(peft__config_get(opts, config, what, adalora_keys[i])); }
    }
    TRY(peft__config_get(opts, config, what, "total_step"));
    if (!peft__config_unused(peft__json_find(config, "rank_pattern"))) {
        TRY(peft__config_get(opts, config, what, "rank_pattern"));
    }
out:
    return st;
}

const peft__method peft__method_adalora = {
    .name = "adalora",
    .hf_type = "ADALORA",
    .schema = &adalora_schema,
    .build = adalora_build,
    .init = adalora_init,
    .after = adalora_after,
    .proportional = true,
    .merge = adalora_merge,
    .state_count = peft__adalora_state_count,
    .regularise = adalora_regularise,
    .after_step = peft__adalora_after_step,
    .plain = peft__adalora_plain,
    .simplify = peft__adalora_simplify,
    .config_out = adalora_config_out,
    .config_in = adalora_config_in,
    .learning_rate = 2e-3,
};
