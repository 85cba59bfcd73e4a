/* prompt.c - prompt tuning: trained vectors of the embedding's width stand before each row (Lester et al. 2021, arXiv 2104.08691).
 *
 *   the stream of a row is [P; E[ids]], P [n, hidden]; positions count them, the loss does not
 *
 * Saved as PEFT's PROMPT_TUNING. Unlike there, rows of the vocabulary are the default start: N(0, 1) is an order of magnitude
 * larger than any row that the model has read, and hardly learns.
 *
 * Left out: encoder-decoder models; merging, as nothing of it is a weight. */
#include "peft/soft.h"

enum { PROMPT_TABLE = 0 };

static const peft__option prompt_options[] = {
    PEFT__SOFT_OPTIONS,
    {"prompt_tuning_init", PEFT__OPT_STR, "SAMPLE_VOCAB", 1, 0, "SAMPLE_VOCAB|TEXT|RANDOM",
     "initial vectors: rows of random tokens, rows of a text's tokens, or N(0, 1)"},
    {"prompt_tuning_init_text", PEFT__OPT_STR, "", 1, 0, NULL, "text to start from with TEXT; unset: a neutral instruction"},
    {"tokenizer_name_or_path", PEFT__OPT_STR, "", 1, 0, NULL,
     "as written to adapter_config.json with TEXT; unset: base_model_name_or_path"},
    PEFT__SOFT_OPTIONS_END,
};
static const peft__schema prompt_schema = {"method:prompt", prompt_options, PEFT__COUNT(prompt_options)};

static bool prompt_starts_as(const peft__adapter *a, const char *how) {
    return strcmp(peft__opt_str(&a->opts, "prompt_tuning_init"), how) == 0;
}

static peft_status prompt_build(peft__adapter *a) {
    peft_status st = PEFT_OK;
    peft__soft_base base;
    peft__attachment *at = NULL;
    TRY(peft__soft_sizes_of(a, &base));
    TRY(peft__soft_sizes(a, base.hidden, base.layers, base.heads));
    TRY(peft__soft_check_text(a, "prompt_tuning_init_text"));
    TRY(peft__adapter_attach(a, base.input, &at));
    TRY(peft__adapter_add_param(a, at, "prompt_embeddings", PROMPT_TABLE, peft__opt_int(&a->opts, "num_virtual_tokens"),
                                base.hidden, 2, false, false));
out:
    return st;
}

static void prompt_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    const peft__param *p = &peft__adapter_param_at(a, i)->p;
    (void)k;
    for (int64_t e = 0; e < p->rows * p->cols; e++) { p->value[e] = PEFT__R(peft__rng_normal(rng)); }
}

static peft_status prompt_from_text(peft__adapter *a, const peft__init_text *text, const peft__kernels *k) {
    const peft__param *p = &peft__soft_param(a, PROMPT_TABLE)->p;
    return peft__soft_rows(a, text, p->rows, k, p->value);
}

/* With TEXT the vectors are those of random tokens until the text comes. */
static peft_status prompt_settle(peft__adapter *a, const peft__kernels *k) {
    peft_status st = PEFT_OK;
    const peft__param *p = &peft__soft_param(a, PROMPT_TABLE)->p;
    peft__soft_base base;
    if (prompt_starts_as(a, "RANDOM")) { return PEFT_OK; }
    int32_t *ids = peft__arena_alloc(&a->arena, (size_t)p->rows * sizeof *ids);
    if (ids == NULL) { return PEFT_E_NOMEM; }
    TRY(peft__soft_sizes_of(a, &base));
    peft__soft_sample(a, base.vocab, p->rows, ids);
    peft__init_text text = {.ids = ids, .n = p->rows};
    TRY(prompt_from_text(a, &text, k));
out:
    return st;
}

static uint32_t prompt_needs(const peft__adapter *a) { return prompt_starts_as(a, "TEXT") ? PEFT__NEEDS_TOKENS : 0; }

static const char *prompt_text(const peft__adapter *a) {
    return prompt_starts_as(a, "TEXT") ? peft__soft_text(a, "prompt_tuning_init_text") : NULL;
}

static peft__prompt prompt_emit(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s) {
    (void)at;
    (void)s;
    peft__val rows = peft__op_param(t, peft__soft_tape_param(a, PROMPT_TABLE, t));
    return (peft__prompt){rows, peft__opt_int(&a->opts, "num_virtual_tokens"), 1};
}

/* ---- adapter_config.json ------------------------------------------------------------------------------------- */

/* PEFT refuses TEXT without a text and a tokenizer's name. */
static void prompt_config_out(const peft__adapter *a, peft__json_out *j) {
    bool text = prompt_starts_as(a, "TEXT");
    const char *tokenizer = peft__opt_str(&a->opts, "tokenizer_name_or_path");
    const char *base = peft__opt_str(&a->opts, "base_model_name_or_path");
    if (tokenizer[0] == '\0') { tokenizer = base[0] != '\0' ? base : a->base->path; }
    if (tokenizer == NULL || tokenizer[0] == '\0') { tokenizer = "base"; }
    peft__soft_config_out(a, j);
    peft__config_put(&a->opts, "prompt_tuning_init", j);
    peft__json_key(j, "prompt_tuning_init_text");
    peft__json_put_text(j, text ? prompt_text(a) : NULL);
    peft__json_key(j, "tokenizer_name_or_path");
    peft__json_put_text(j, text ? tokenizer : NULL);
}

static peft_status prompt_config_in(peft__optset *opts, const peft__json *config, const char *what) {
    static const char *const keys[] = {"prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path"};
    peft_status st = PEFT_OK;
    TRY(peft__soft_config_in(opts, config, what));
    for (size_t i = 0; i < PEFT__COUNT(keys); i++) { TRY(peft__config_get(opts, config, what, keys[i])); }
out:
    return st;
}

const peft__method peft__method_prompt = {
    .name = "prompt",
    .hf_type = "PROMPT_TUNING",
    .schema = &prompt_schema,
    .build = prompt_build,
    .init = prompt_init,
    .settle = prompt_settle,
    .prompt = prompt_emit,
    .needs = prompt_needs,
    .from_text = prompt_from_text,
    .text = prompt_text,
    .prompt_keys = true,
    .config_out = prompt_config_out,
    .config_in = prompt_config_in,
    .learning_rate = 1e-2,
};
