/* ptuning.c - P-tuning: virtual tokens before each row, made by a small trained network (Liu et al. 2021, arXiv 2103.10385).
 *
 *   MLP   P = W2 relu(W1 relu(W0 e + b0) + b1) + b2                     e [n, hidden] trained too
 *   LSTM  P = W1 relu(W0 h + b0) + b1, h of a bidirectional LSTM over e
 *
 * Saved as PEFT's P_TUNING, which keeps P alone ("prompt_embeddings") and loses the network; here the network's own tensors
 * follow under "prompt_encoder.*", so that training goes on where it ended, and PEFT passes them over. A file without them is
 * read with P as the trained table (option "baked").
 *
 * In encoder-decoder models it makes as many again, as PEFT's does, which nothing reads but its own LSTM.
 *
 * Left out: merging, as nothing of it is a weight. */
#include "peft/soft.h"

#include <math.h>

enum { PTUNING_TABLE = 0, PTUNING_EMBED = 1, PTUNING_W = 2 /* + 2 i: weight, bias */, PTUNING_LSTM = 16 /* + 4 (2 l + direction) */ };
enum { PTUNING_LAYERS = 16 };

static const peft__option ptuning_options[] = {
    PEFT__SOFT_OPTIONS,
    {"encoder_reparameterization_type", PEFT__OPT_STR, "MLP", 1, 0, "MLP|LSTM", "the network that makes the virtual tokens"},
    {"encoder_hidden_size", PEFT__OPT_INT, "0", 0, 1 << 20, NULL, "width inside of it; 0: token_dim"},
    {"encoder_num_layers", PEFT__OPT_INT, "2", 1, PTUNING_LAYERS, NULL, "layers of the LSTM; the MLP has three products"},
    {"encoder_dropout", PEFT__OPT_FLOAT, "0.0", 0, 0.999, NULL, "dropout between the LSTM's layers"},
    {"init", PEFT__OPT_STR, "vocabulary", 1, 0, "vocabulary|text|random",
     "what the network makes at first: rows of random tokens, rows of a text's tokens, or what its random weights give"},
    {"init_text", PEFT__OPT_STR, "", 1, 0, NULL, "text to start from with init=text; unset: a neutral instruction"},
    PEFT__SOFT_FROM_OPTION("virtual tokens"),
    PEFT__SOFT_TASK_OPTION,
    {"baked", PEFT__OPT_BOOL, "false", 1, 0, NULL, "there is no network: the virtual tokens are trained themselves"},
    PEFT__SOFT_OPTIONS_END,
};
static const peft__schema ptuning_schema = {"method:ptuning", ptuning_options, PEFT__COUNT(ptuning_options)};

static bool ptuning_starts_as(const peft__adapter *a, const char *how) { return strcmp(peft__opt_str(&a->opts, "init"), how) == 0; }
static bool ptuning_is_lstm(const peft__adapter *a) {
    return strcmp(peft__opt_str(&a->opts, "encoder_reparameterization_type"), "LSTM") == 0;
}
static int32_t ptuning_last(const peft__adapter *a) { return PTUNING_W + (ptuning_is_lstm(a) ? 2 : 4); }

/* ---- building ------------------------------------------------------------------------------------------------ */

static peft_status ptuning_add_lstm(peft__adapter *a, peft__attachment *at, int64_t in, int64_t h) {
    static const char *const names[] = {"weight_ih", "weight_hh", "bias_ih", "bias_hh"};
    peft_status st = PEFT_OK;
    int64_t layers = peft__opt_int(&a->opts, "encoder_num_layers");
    for (int64_t i = 0; i < 8 * layers; i++) {
        int64_t part = i % 4, layer = i / 8;
        bool bias = part > 1;
        char *name = peft__arena_printf(&a->arena, "prompt_encoder.lstm_head.%s_l%lld%s", names[part], (long long)layer,
                                        i / 4 % 2 == 1 ? "_reverse" : "");
        int64_t cols = part == 1 ? h : layer == 0 ? in : 2 * h;
        TRY(peft__adapter_add_param(a, at, name, PTUNING_LSTM + (int32_t)i, bias ? 1 : 4 * h, bias ? 4 * h : cols, bias ? 1 : 2,
                                    false, false));
    }
out:
    return st;
}

static peft_status ptuning_build(peft__adapter *a) {
    peft_status st = PEFT_OK;
    peft__soft_base base;
    peft__attachment *at = NULL;
    int64_t h = peft__opt_int(&a->opts, "encoder_hidden_size");
    TRY(peft__soft_sizes_of(a, &base));
    TRY(peft__soft_sizes(a, base.hidden, base.layers, base.heads));
    int64_t n = peft__soft_count(a);
    TRY(peft__soft_check_text(a, "init_text"));
    TRY(peft__soft_check_source(a, "init", false));
    int64_t d = base.hidden;
    if (h == 0) { h = d; }
    TRY(peft__opt_set_int(&a->opts, "encoder_hidden_size", h));
    TRY(peft__adapter_attach(a, base.input, &at));
    if (peft__opt_bool(&a->opts, "baked")) {
        TRY(peft__adapter_add_param(a, at, "prompt_embeddings", PTUNING_TABLE, n, d, 2, false, false));
        goto out;
    }
    TRY(peft__adapter_add_param(a, at, "prompt_encoder.embedding.weight", PTUNING_EMBED, n, d, 2, false, false));
    if (ptuning_is_lstm(a)) {
        TRY(ptuning_add_lstm(a, at, d, h));
        TRY(peft__soft_add_linear(a, at, "prompt_encoder.mlp_head.0", PTUNING_W, PTUNING_W + 1, 2 * h, 2 * h));
        TRY(peft__soft_add_linear(a, at, "prompt_encoder.mlp_head.2", PTUNING_W + 2, PTUNING_W + 3, d, 2 * h));
    } else {
        TRY(peft__soft_add_linear(a, at, "prompt_encoder.mlp_head.0", PTUNING_W, PTUNING_W + 1, h, d));
        TRY(peft__soft_add_linear(a, at, "prompt_encoder.mlp_head.2", PTUNING_W + 2, PTUNING_W + 3, h, h));
        TRY(peft__soft_add_linear(a, at, "prompt_encoder.mlp_head.4", PTUNING_W + 4, PTUNING_W + 5, d, h));
    }
out:
    return st;
}

/* PyTorch's: N(0, 1) for embeddings, U(-b, b) else, b = 1 / sqrt of the layer's inputs, or of the LSTM's width. */
static void ptuning_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    (void)k;
    double bound = 0;
    if (p->slot >= PTUNING_LSTM) {
        bound = 1 / sqrt((double)peft__opt_int(&a->opts, "encoder_hidden_size"));
    } else if (p->slot >= PTUNING_W) {
        bound = 1 / sqrt((double)peft__soft_param(a, p->slot & ~1)->p.cols);
    }
    for (int64_t e = 0; e < p->p.rows * p->p.cols; e++) {
        p->p.value[e] = PEFT__R(bound > 0 ? bound * (2 * peft__rng_uniform(rng) - 1) : peft__rng_normal(rng));
    }
}

/* ---- the network --------------------------------------------------------------------------------------------- */

static peft__val ptuning_lstm(const peft__adapter *a, peft__tape *t, peft__val x) {
    int64_t layers = peft__opt_int(&a->opts, "encoder_num_layers");
    double dropout = peft__opt_float(&a->opts, "encoder_dropout");
    for (int64_t l = 0; l < layers; l++) {
        peft__val both[2];
        if (l > 0) { x = peft__op_dropout(t, x, dropout, peft__hash_str((uint64_t)l, "prompt_encoder", 14)); }
        for (int32_t d = 0; d < 2; d++) {
            int32_t params[4];
            for (int32_t j = 0; j < 4; j++) { params[j] = peft__soft_tape_param(a, PTUNING_LSTM + (int32_t)(8 * l) + 4 * d + j, t); }
            both[d] = peft__op_lstm(t, x, params, d == 1);
        }
        x = peft__op_join(t, both[0], both[1]);
    }
    return x;
}

static peft__val ptuning_emit(const peft__adapter *a, peft__tape *t, peft__val *hidden) {
    if (peft__opt_bool(&a->opts, "baked")) { return peft__op_param(t, peft__soft_tape_param(a, PTUNING_TABLE, t)); }
    peft__val x = peft__op_param(t, peft__soft_tape_param(a, PTUNING_EMBED, t));
    if (ptuning_is_lstm(a)) { x = ptuning_lstm(a, t, x); }
    for (int32_t slot = PTUNING_W; slot < ptuning_last(a); slot += 2) {
        x = peft__op_act(t, PEFT__ACT_RELU, peft__soft_linear(a, t, x, slot, slot + 1));
    }
    if (hidden != NULL) { *hidden = x; }
    return peft__soft_linear(a, t, x, ptuning_last(a), ptuning_last(a) + 1);
}

static peft__prompt ptuning_prompt(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s) {
    (void)at;
    (void)s;
    return (peft__prompt){.rows = ptuning_emit(a, t, NULL), .n = peft__opt_int(&a->opts, "num_virtual_tokens"), .tasks = 1};
}

/* ---- initial values ------------------------------------------------------------------------------------------ */

/* The table becomes these rows, or the network gives them (nearly). */
static peft_status ptuning_start(peft__adapter *a, const peft__real *rows) {
    if (!peft__opt_bool(&a->opts, "baked")) {
        return peft__soft_fit(a, ptuning_emit, rows, ptuning_last(a), ptuning_last(a) + 1);
    }
    const peft__param *p = &peft__soft_param(a, PTUNING_TABLE)->p;
    memcpy(p->value, rows, (size_t)(p->rows * p->cols) * sizeof *rows);
    return PEFT_OK;
}

/* text NULL: from init_from. */
static peft_status ptuning_from_text(peft__adapter *a, const peft__init_text *text, const peft__kernels *k) {
    peft_status st = PEFT_OK;
    int64_t n = peft__soft_count(a), d = peft__opt_int(&a->opts, "token_dim");
    size_t bytes = (size_t)(n * d) * sizeof(peft__real);
    peft__real *rows = peft__alloc(a->mem, bytes);
    if (rows == NULL) { return PEFT_E_NOMEM; }
    TRY(text != NULL ? peft__soft_rows(a, text, n, k, rows) : peft__soft_source(a, k, n, d, rows));
    TRY(ptuning_start(a, rows));
out:
    peft__free(a->mem, rows, bytes);
    return st;
}

/* With init=text the network makes rows of random tokens until the text comes. */
static peft_status ptuning_settle(peft__adapter *a, const peft__kernels *k) {
    peft_status st = PEFT_OK;
    int64_t n = peft__soft_count(a);
    peft__soft_base base;
    if (peft__soft_has_source(a)) { return ptuning_from_text(a, NULL, k); }
    if (ptuning_starts_as(a, "random")) { return PEFT_OK; }
    int32_t *ids = peft__arena_alloc(&a->arena, (size_t)n * sizeof *ids);
    if (ids == NULL) { return PEFT_E_NOMEM; }
    TRY(peft__soft_sizes_of(a, &base));
    peft__soft_sample(a, base.vocab, n, ids);
    peft__init_text text = {.ids = ids, .n = n};
    TRY(ptuning_from_text(a, &text, k));
out:
    return st;
}

static uint32_t ptuning_needs(const peft__adapter *a) { return ptuning_starts_as(a, "text") ? PEFT__NEEDS_TOKENS : 0; }

static const char *ptuning_text(const peft__adapter *a) {
    return ptuning_starts_as(a, "text") ? peft__soft_text(a, "init_text") : NULL;
}

/* ---- files --------------------------------------------------------------------------------------------------- */

static peft_status ptuning_bake(const peft__adapter *a, int64_t *rows, int64_t *cols, peft__real *out) {
    bool baked = peft__opt_bool(&a->opts, "baked");
    *rows = baked ? 0 : peft__soft_count(a);
    *cols = peft__opt_int(&a->opts, "token_dim");
    return out != NULL && !baked ? peft__soft_run(a, ptuning_emit, out, NULL) : PEFT_OK;
}

static const char *const ptuning_keys[] = {"encoder_reparameterization_type", "encoder_hidden_size", "encoder_num_layers",
                                           "encoder_dropout"};

static void ptuning_config_out(const peft__adapter *a, peft__json_out *j) {
    peft__soft_config_out(a, j);
    for (size_t i = 0; i < PEFT__COUNT(ptuning_keys); i++) { peft__config_put(&a->opts, ptuning_keys[i], j); }
}

static peft_status ptuning_config_in(peft__optset *opts, const peft__json *config, const char *what) {
    peft_status st = PEFT_OK;
    TRY(peft__soft_config_in(opts, config, what));
    for (size_t i = 0; i < PEFT__COUNT(ptuning_keys); i++) { TRY(peft__config_get(opts, config, what, ptuning_keys[i])); }
out:
    return st;
}

const peft__method peft__method_ptuning = {
    .name = "ptuning",
    .hf_type = "P_TUNING",
    .schema = &ptuning_schema,
    .build = ptuning_build,
    .init = ptuning_init,
    .settle = ptuning_settle,
    .prompt = ptuning_prompt,
    .needs = ptuning_needs,
    .from_text = ptuning_from_text,
    .text = ptuning_text,
    .prompt_keys = true,
    .bake = ptuning_bake,
    .simplify = peft__soft_simplify,
    .config_out = ptuning_config_out,
    .config_in = ptuning_config_in,
    .learning_rate = 1e-3,
};
