/* trainable_tokens.c - rows of chosen tokens in the table of embeddings are trained, and nothing else; tokens may be added.
 *
 *   E'[i] = R[k] for i = token_indices[k], E elsewhere; R starts as the base's rows. A tied head is E'; an untied one stays as
 *   it is unless target_modules names it, or there are new tokens.
 *
 * As Hugging Face PEFT's TRAINABLE_TOKENS: "<path>.trainable_tokens_delta" [n, C] has the rows themselves, and the list of ids
 * is for all target modules. With a tied head PEFT writes the same tensor under the head's name as well; so does this library.
 *
 * Left out: tables of positions and projections as targets. */
#include "peft/tokens.h"

static const peft__option trained_options[] = {
    {"token_indices", PEFT__OPT_LIST, "", 1, 0, NULL, "ids of the tokens to train"},
    PEFT__NEW_TOKENS_OPTION,
    {"target_modules", PEFT__OPT_LIST, "", 1, 0, NULL,
     "names that end a module's path, or a pattern for the whole path; unset: the table of embeddings"},
    {"init_weights", PEFT__OPT_BOOL, "true", 1, 0, NULL, "start from the base's rows; false: N(0, 1)"},
    {"task_type", PEFT__OPT_STR, "CAUSAL_LM", 1, 0, NULL, "task_type of adapter_config.json"},
    {"base_model_name_or_path", PEFT__OPT_STR, "", 1, 0, NULL, "as written to adapter_config.json; unset: the model's path"},
};
static const peft__schema trained_schema = {"method:trainable_tokens", trained_options, PEFT__COUNT(trained_options)};

/* Which of the two matrices target_modules means. */
static peft_status trained_sites(peft__adapter *a, uint32_t *out) {
    peft_status st = PEFT_OK;
    const peft__base_info *base = a->base;
    size_t bytes = PEFT__MAX(base->n_sites, (size_t)1) * sizeof(bool);
    bool *matched = NULL;
    *out = PEFT__TOKENS_TABLE;
    if (peft__opt_str(&a->opts, "target_modules")[0] == '\0') { goto out; }
    peft__target target = {.modules = peft__opt_str(&a->opts, "target_modules"),
                           .exclude = "",
                           .layers = "",
                           .layers_pattern = "",
                           .modules_to_save = "",
                           .defaults = "",
                           .lenient = a->from_file};
    matched = peft__alloc_zero(a->mem, bytes);
    if (matched == NULL) { return PEFT_E_NOMEM; }
    TRY(peft__target_match(a->mem, base, &target, 1 << PEFT__SITE_EMBED | 1 << PEFT__SITE_HEAD, matched));
    *out = 0;
    for (size_t i = 0; i < base->n_sites; i++) {
        const peft__site *s = &base->sites[i];
        if (!matched[i]) { continue; }
        if (s->kind == PEFT__SITE_EMBED && s->role != PEFT__ROLE_TOKENS) {
            FAIL(PEFT_E_UNSUPPORTED, "target_modules: \"%s\" is no table of tokens", s->path);
        }
        *out |= s->kind == PEFT__SITE_HEAD ? PEFT__TOKENS_HEAD : PEFT__TOKENS_TABLE;
    }
out:
    peft__free(a->mem, matched, bytes);
    return st;
}

/* What was meant by target_modules, with all that new tokens need. */
static peft_status trained_name_targets(peft__adapter *a) {
    peft_status st = PEFT_OK;
    peft__str list;
    peft__json_out j;
    peft__str_init(&list, a->mem);
    peft__json_begin(&j, &list, 0);
    peft__json_array(&j);
    if (a->tokens->table.n > 0) { peft__json_put_text(&j, peft__path_leaf(a->tokens->table.site->path)); }
    if (a->tokens->head.n > 0) { peft__json_put_text(&j, peft__path_leaf(a->tokens->head.site->path)); }
    peft__json_array_end(&j);
    TRY(peft__str_status(&list));
    TRY(peft__opt_set_raw(&a->opts, "target_modules", peft__str_c(&list)));
out:
    peft__str_free(&list);
    return st;
}

static peft_status trained_build(peft__adapter *a) {
    peft_status st = PEFT_OK;
    uint32_t sites = 0;
    TRY(trained_sites(a, &sites));
    TRY(peft__tokens_resolve(a, "token_indices", sites, ""));
    if (a->tokens == NULL) {
        FAIL(PEFT_E_KEY, "key \"token_indices\" is an empty list, and num_new_tokens is 0: there is nothing to train");
    }
    TRY(trained_name_targets(a));
    for (size_t i = 0; i < a->base->n_sites; i++) { TRY(peft__tokens_add(a, &a->base->sites[i])); }
out:
    return st;
}

static void trained_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    (void)peft__tokens_init(a, i, !peft__opt_bool(&a->opts, "init_weights"), rng, k);
}

static peft_status trained_settle(peft__adapter *a, const peft__kernels *k) {
    return peft__tokens_settle(a, !peft__opt_bool(&a->opts, "init_weights"), k);
}

static peft_status trained_merge(const peft__adapter *a, const peft__attachment *at, const peft__site *s, const peft__run *run,
                                 peft__real *weight) {
    (void)s;
    (void)run;
    return peft__tokens_merge(a, at, weight);
}

static const char *const trained_keys[] = {"token_indices", "target_modules", "init_weights"};

static void trained_config_out(const peft__adapter *a, peft__json_out *j) {
    for (size_t i = 0; i < PEFT__COUNT(trained_keys); i++) { peft__config_put(&a->opts, trained_keys[i], j); }
}

static peft_status trained_config_in(peft__optset *opts, const peft__json *config, const char *what) {
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < PEFT__COUNT(trained_keys); i++) { TRY(peft__config_get(opts, config, what, trained_keys[i])); }
out:
    return st;
}

const peft__method peft__method_trainable_tokens = {
    .name = "trainable_tokens",
    .hf_type = "TRAINABLE_TOKENS",
    .schema = &trained_schema,
    .build = trained_build,
    .init = trained_init,
    .settle = trained_settle,
    .embed = peft__tokens_embed,
    .head = peft__tokens_head,
    .merge = trained_merge,
    .config_out = trained_config_out,
    .config_in = trained_config_in,
    .learning_rate = 1e-2, /* by runs: docs/methods/trainable-tokens.md */
};
