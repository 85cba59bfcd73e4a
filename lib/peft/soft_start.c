/* soft_start.c - how a table of virtual tokens starts: from the vocabulary, a text, noise, or another saved prompt.
 *
 * A prompt that was trained for one task is a good start for another (Vu et al. 2022, arXiv 2110.07904, "SPoT"): init_from reads
 * it from the folder of any method that makes such a table, of a P-tuning network what it makes, of a multitask prompt the
 * table of one task. Before training the new adapter computes what its source does.
 *
 * Left out: tables of another length, which would have to be cut or repeated. */
#include "peft/soft.h"

bool peft__soft_starts_as(const peft__adapter *a, const char *how) {
    return strcmp(peft__opt_str(&a->opts, "prompt_tuning_init"), how) == 0;
}

/* ---- another prompt ------------------------------------------------------------------------------------------- */

bool peft__soft_has_source(const peft__adapter *a) { return peft__opt_str(&a->opts, "init_from")[0] != '\0'; }

peft_status peft__soft_check_source(const peft__adapter *a, const char *how, bool tasks) {
    if (a->from_file) { return PEFT_OK; }
    if (peft__soft_has_source(a) && peft__opt_is_set(&a->opts, how)) {
        return peft__fail(PEFT_E_KEY, "init_from and %s are both set: each says where virtual tokens start", how);
    }
    if (!peft__soft_has_source(a) && !tasks && peft__schema_find(a->opts.schema, "prompt_tuning_init_task") != NULL &&
        peft__opt_is_set(&a->opts, "prompt_tuning_init_task")) {
        return peft__fail(PEFT_E_KEY, "prompt_tuning_init_task is set, and nothing to take a task from");
    }
    return PEFT_OK;
}

static const peft__site *start_site(const peft__adapter *a) {
    const peft__attachment *at = a->attachments.data;
    return &a->base->sites[at->site];
}

/* Puts the virtual tokens of any method on a tape. */
static peft__val start_emit(const peft__adapter *a, peft__tape *t, peft__val *hidden) {
    (void)hidden;
    return a->method->prompt(a, a->attachments.data, t, start_site(a)).rows;
}

/* How many tasks the tokens of an adapter are for, and of how many rows each. */
static peft_status start_sizes(const peft__adapter *source, int64_t *n, int64_t *tasks) {
    peft__tape t;
    peft__tape_init(&t, source->mem, false);
    peft__prompt p = source->method->prompt(source, source->attachments.data, &t, start_site(source));
    peft_status st = peft__tape_finish(&t);
    *n = p.n;
    *tasks = p.tasks;
    peft__tape_free(&t);
    return st;
}

/* The tokens of one task. */
static peft_status start_tokens(const peft__adapter *a, const peft__adapter *source, int64_t rows, int64_t cols,
                                peft__real *out) {
    peft_status st = PEFT_OK;
    int64_t n = 0, tasks = 0, task = peft__opt_int(&a->opts, "prompt_tuning_init_task");
    peft__real *all = NULL;
    size_t bytes = 0;
    TRY(start_sizes(source, &n, &tasks));
    if (task >= tasks) {
        FAIL(PEFT_E_KEY, "prompt_tuning_init_task is %lld, and the adapter in \"%s\" has %lld task%s", (long long)task,
             peft__opt_str(&a->opts, "init_from"), (long long)tasks, tasks == 1 ? "" : "s");
    }
    bytes = (size_t)(tasks * rows * cols) * sizeof *all;
    all = peft__alloc(a->mem, bytes);
    if (all == NULL) { return PEFT_E_NOMEM; }
    TRY(peft__soft_run(source, start_emit, all, NULL));
    memcpy(out, all + task * rows * cols, (size_t)(rows * cols) * sizeof *out);
out:
    peft__free(a->mem, all, bytes);
    return st;
}

/* The keys and values: a parameter, or what an encoder makes. */
static peft_status start_keys(const peft__adapter *source, int64_t rows, int64_t cols, peft__real *out) {
    peft_status st = PEFT_OK;
    const peft__adapter_param *table = peft__adapter_find(source, "prompt_embeddings", NULL);
    int64_t n = 0, width = 0;
    if (table != NULL) {
        memcpy(out, table->p.value, (size_t)(rows * cols) * sizeof *out);
        goto out;
    }
    TRY(source->method->bake(source, &n, &width, out));
out:
    return st;
}

peft_status peft__soft_source(const peft__adapter *a, const peft__kernels *k, int64_t rows, int64_t cols, peft__real *out) {
    peft_status st = PEFT_OK;
    const char *dir = peft__opt_str(&a->opts, "init_from");
    peft__adapter *source = NULL;
    bool tokens = a->method->prompt != NULL;
    TRY(peft__adapter_load_hf(a->mem, k, a->base, "source", dir, false, &source));
    if (tokens ? source->method->prompt == NULL : source->method->kv == NULL) {
        FAIL(PEFT_E_UNSUPPORTED, "the adapter in \"%s\" is of method \"%s\", which has no %s for \"%s\" to start from", dir,
             source->method->name, tokens ? "virtual tokens" : "keys and values", a->method->name);
    }
    int64_t n = peft__soft_count(source);
    if (n != rows) {
        FAIL(PEFT_E_SHAPE, "the adapter in \"%s\" has %lld virtual tokens, and adapter \"%s\" %lld: set num_virtual_tokens=%lld",
             dir, (long long)n, a->name, (long long)rows, (long long)n);
    }
    TRY(tokens ? start_tokens(a, source, rows, cols, out) : start_keys(source, rows, cols, out));
out:
    peft__adapter_release(source);
    return st;
}

/* ---- as prompt_tuning_init says -------------------------------------------------------------------------------- */

peft_status peft__soft_start(peft__adapter *a, const peft__param *table, const peft__kernels *k) {
    peft_status st = PEFT_OK;
    peft__soft_base base;
    if (peft__soft_has_source(a)) { return peft__soft_source(a, k, table->rows, table->cols, table->value); }
    if (peft__soft_starts_as(a, "RANDOM")) { return PEFT_OK; }
    int32_t *ids = peft__arena_alloc(&a->arena, (size_t)table->rows * sizeof *ids);
    if (ids == NULL) { return PEFT_E_NOMEM; }
    TRY(peft__soft_sizes_of(a, &base));
    peft__soft_sample(a, base.vocab, table->rows, ids);
    peft__init_text text = {.ids = ids, .n = table->rows};
    TRY(peft__soft_rows(a, &text, table->rows, k, table->value));
out:
    return st;
}

uint32_t peft__soft_start_needs(const peft__adapter *a) { return peft__soft_starts_as(a, "TEXT") ? PEFT__NEEDS_TOKENS : 0; }

const char *peft__soft_start_text(const peft__adapter *a) {
    return peft__soft_starts_as(a, "TEXT") ? peft__soft_text(a, "prompt_tuning_init_text") : NULL;
}

/* ---- adapter_config.json ------------------------------------------------------------------------------------- */

/* PEFT refuses TEXT without a text and a tokenizer's name. */
void peft__soft_start_out(const peft__adapter *a, const char *how, peft__json_out *j) {
    bool text = strcmp(how, "TEXT") == 0;
    const char *tokenizer = peft__opt_str(&a->opts, "tokenizer_name_or_path");
    const char *base = peft__opt_str(&a->opts, "base_model_name_or_path");
    if (tokenizer[0] == '\0') { tokenizer = base[0] != '\0' ? base : a->base->path; }
    if (tokenizer == NULL || tokenizer[0] == '\0') { tokenizer = "base"; }
    peft__json_key(j, "prompt_tuning_init");
    peft__json_put_text(j, how);
    peft__json_key(j, "prompt_tuning_init_text");
    peft__json_put_text(j, text ? peft__soft_start_text(a) : NULL);
    peft__json_key(j, "tokenizer_name_or_path");
    peft__json_put_text(j, text ? tokenizer : NULL);
}

peft_status peft__soft_start_in(peft__optset *opts, const peft__json *config, const char *what) {
    static const char *const keys[] = {"prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path"};
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < PEFT__COUNT(keys); i++) { TRY(peft__config_get(opts, config, what, keys[i])); }
out:
    return st;
}
