/* head.c - head only: a trained copy of the output projection, the least that full fine-tuning can be.
 *
 * A head that is tied to the embedding is untied: the embedding stays as it is. No gradient goes below the head, so that a step
 * costs a forward pass and the head. The file has "lm_head.weight" (and ".bias"), peft_type is "HEAD": Hugging Face PEFT, which has
 * no such type, refuses it by name. Merging writes the copy as the model's head. */
#include "peft/method.h"

static const peft__option head_only_options[] = {
    {"task_type", PEFT__OPT_STR, "CAUSAL_LM", 1, 0, NULL, "task_type of adapter_config.json"},
    {"base_model_name_or_path", PEFT__OPT_STR, "", 1, 0, NULL, "as written to adapter_config.json; unset: the model's path"},
};
static const peft__schema head_only_schema = {"method:head", head_only_options, PEFT__COUNT(head_only_options)};

static peft_status head_only_build(peft__adapter *a) {
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < a->base->n_sites; i++) {
        if (a->base->sites[i].kind == PEFT__SITE_HEAD) { TRY(peft__adapter_save_site(a, &a->base->sites[i])); }
    }
    if (a->attachments.len == 0) { FAIL(PEFT_E_NOT_FOUND, "the %s model has no head", a->base->model_type); }
out:
    return st;
}

static void head_only_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    (void)rng;
    peft__adapter_init_copy(a, i, k);
}

static void head_only_config_out(const peft__adapter *a, peft__json_out *j) {
    (void)a;
    (void)j;
}

static peft_status head_only_config_in(peft__optset *opts, const peft__json *config, const char *what) {
    (void)opts;
    (void)config;
    (void)what;
    return PEFT_OK;
}

const peft__method peft__method_head = {
    .name = "head",
    .hf_type = "HEAD",
    .schema = &head_only_schema,
    .build = head_only_build,
    .init = head_only_init,
    .config_out = head_only_config_out,
    .config_in = head_only_config_in,
    .learning_rate = 2e-4,
};
