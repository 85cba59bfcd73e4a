/* prompt.c - prompt tuning: trained vectors of the embedding's width stand before each row (Lester et al. 2021, arXiv 2104.08691).
 *
 *   the stream of a row is [P; E[ids]], P [n, hidden]; positions count them, the loss does not
 *
 * Saved as PEFT's PROMPT_TUNING. Unlike there, rows of the vocabulary are the default start: N(0, 1) is an order of magnitude
 * larger than any row that the model has read, and hardly learns.
 *
 * It may start from another saved prompt (soft_start.c), and is how one task of a multitask prompt is taken out for good.
 *
 * In encoder-decoder models they stand before the encoder's rows; PEFT's file has as many again, which nothing reads.
 *
 * Left out: merging, as nothing of it is a weight. */
#include "peft/soft.h"

enum { PROMPT_TABLE = 0 };

static const peft__option prompt_options[] = {
    PEFT__SOFT_OPTIONS,
    PEFT__SOFT_START_OPTIONS("SAMPLE_VOCAB|TEXT|RANDOM",
                             "initial vectors: rows of random tokens, rows of a text's tokens, or N(0, 1)"),
    PEFT__SOFT_FROM_OPTION("virtual tokens"),
    PEFT__SOFT_TASK_OPTION,
    PEFT__SOFT_OPTIONS_END,
};
static const peft__schema prompt_schema = {"method:prompt", prompt_options, PEFT__COUNT(prompt_options)};

static peft_status prompt_build(peft__adapter *a) {
    peft_status st = PEFT_OK;
    peft__soft_base base;
    peft__attachment *at = NULL;
    TRY(peft__soft_sizes_of(a, &base));
    TRY(peft__soft_sizes(a, base.hidden, base.layers, base.heads));
    TRY(peft__soft_check_text(a, "prompt_tuning_init_text"));
    TRY(peft__soft_check_source(a, "prompt_tuning_init", false));
    TRY(peft__adapter_attach(a, base.input, &at));
    TRY(peft__adapter_add_param(a, at, "prompt_embeddings", PROMPT_TABLE, peft__soft_count(a), base.hidden, 2, false, false));
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

static peft_status prompt_settle(peft__adapter *a, const peft__kernels *k) {
    return peft__soft_start(a, &peft__soft_param(a, PROMPT_TABLE)->p, k);
}

static peft__prompt prompt_emit(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s) {
    (void)at;
    (void)s;
    peft__val rows = peft__op_param(t, peft__soft_tape_param(a, PROMPT_TABLE, t));
    return (peft__prompt){.rows = rows, .n = peft__opt_int(&a->opts, "num_virtual_tokens"), .tasks = 1};
}

/* ---- adapter_config.json ------------------------------------------------------------------------------------- */

static void prompt_config_out(const peft__adapter *a, peft__json_out *j) {
    peft__soft_config_out(a, j);
    peft__soft_start_out(a, peft__opt_str(&a->opts, "prompt_tuning_init"), j);
}

static peft_status prompt_config_in(peft__optset *opts, const peft__json *config, const char *what) {
    peft_status st = PEFT_OK;
    TRY(peft__soft_config_in(opts, config, what));
    TRY(peft__soft_start_in(opts, config, what));
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
    .needs = peft__soft_start_needs,
    .from_text = prompt_from_text,
    .text = peft__soft_start_text,
    .prompt_keys = true,
    .config_out = prompt_config_out,
    .config_in = prompt_config_in,
    .learning_rate = 1e-2,
};
