/* soft.c - sizes, options and initial rows of the methods that put trained rows before a text (see soft.h).
 *
 * Where PEFT draws initial rows from N(0, 1), far outside of what the model has ever read, these come from the model: rows of
 * its embedding table, of a text or drawn from the vocabulary (Lester et al. 2021, arXiv 2104.08691, section 3.2).
 *
 * PEFT's files for encoder-decoder models have rows for both stacks, of which the decoder's are used by multitask prompts alone.
 *
 * Left out: sizes that differ between the layers. */
#include "peft/soft.h"

#include <math.h>

/* ---- the base ------------------------------------------------------------------------------------------------ */

/* A size by the first of its names that config.json has; dflt: none has it. */
static int64_t soft_size(const peft__json *config, const char *const *names, int64_t dflt) {
    for (; *names != NULL; names++) {
        const peft__json *node = peft__json_find(config, *names);
        if (node != NULL && node->kind == PEFT__JSON_NUMBER && node->is_int && node->i > 0) { return node->i; }
    }
    return dflt;
}

peft_status peft__soft_sizes_of(const peft__adapter *a, peft__soft_base *out) {
    static const char *const heads[] = {"num_attention_heads", "n_head", "num_heads", "encoder_attention_heads", "n_heads", NULL};
    static const char *const kv[] = {"num_key_value_heads", NULL};
    int64_t layers[2] = {0, 0}; /* by part: the decoder's, the encoder's */
    peft_status st = PEFT_OK;
    const peft__json *config = NULL;
    const char *text = a->base->config_json != NULL ? a->base->config_json : "{}";
    peft__arena arena;
    peft__arena_init(&arena, a->mem);
    *out = (peft__soft_base){0};
    for (size_t i = 0; i < a->base->n_sites; i++) {
        const peft__site *s = &a->base->sites[i];
        if (s->kind == PEFT__SITE_INPUT && out->input != NULL) { out->decoder_input = s; } /* an encoder is before its decoder */
        if (s->kind == PEFT__SITE_INPUT && out->input == NULL) { out->input = s; }
        if (s->kind == PEFT__SITE_EMBED && s->role == PEFT__ROLE_TOKENS) { out->tokens = s; }
        if (s->kind == PEFT__SITE_STREAM) { out->width = s->out; }
        if (s->kind != PEFT__SITE_KV || s->part == PEFT__PART_CROSS) { continue; }
        layers[s->part]++;
        if (out->first_kv == NULL && s->part == PEFT__PART_DECODER) { out->first_kv = s; }
    }
    out->layers = layers[1] > 0 ? layers[1] : layers[0];
    if (out->tokens == NULL || out->input == NULL || out->first_kv == NULL) {
        FAIL(PEFT_E_UNSUPPORTED, "the base has no place for virtual tokens");
    }
    TRY(peft__json_parse(&arena, text, strlen(text), "the base's config", &config));
    out->vocab = out->tokens->in;
    out->hidden = out->tokens->out;
    out->kv_dim = out->first_kv->out;
    out->heads = soft_size(config, heads, 1);
    out->kv_heads = soft_size(config, kv, out->heads);
out:
    peft__arena_free(&arena);
    return st;
}

static peft_status soft_put_size(peft__adapter *a, const char *key, int64_t have) {
    int64_t given = peft__opt_int(&a->opts, key);
    if (given == 0) { return peft__opt_set_int(&a->opts, key, have); }
    if (given == have) { return PEFT_OK; }
    return peft__fail(a->from_file ? PEFT_E_SHAPE : PEFT_E_KEY, "%s is %lld, and this base has %lld%s", key, (long long)given,
                      (long long)have, a->from_file ? ": the adapter was made for another" : "");
}

int64_t peft__soft_stacks(const peft__adapter *a) { return peft__opt_int(&a->opts, "num_transformer_submodules"); }

/* As in PEFT, an encoder-decoder model has two stacks unless the caller says otherwise. */
static peft_status soft_put_stacks(peft__adapter *a) {
    peft__soft_base base;
    peft_status st = peft__soft_sizes_of(a, &base);
    if (st != PEFT_OK) { return st; }
    if (base.decoder_input == NULL && peft__soft_stacks(a) != 1) {
        return peft__fail(a->from_file ? PEFT_E_SHAPE : PEFT_E_KEY, "num_transformer_submodules is %lld, and this base has no encoder "
                          "beside its decoder", (long long)peft__soft_stacks(a));
    }
    if (base.decoder_input == NULL || a->from_file || peft__opt_is_set(&a->opts, "num_transformer_submodules")) { return PEFT_OK; }
    return peft__opt_set_int(&a->opts, "num_transformer_submodules", 2);
}

peft_status peft__soft_sizes(peft__adapter *a, int64_t token_dim, int64_t layers, int64_t heads) {
    peft_status st = PEFT_OK;
    TRY(soft_put_stacks(a));
    TRY(soft_put_size(a, "token_dim", token_dim));
    TRY(soft_put_size(a, "num_layers", layers));
    TRY(soft_put_size(a, "num_attention_heads", heads));
out:
    return st;
}

/* ---- options ------------------------------------------------------------------------------------------------- */

static const char *const soft_keys[] = {"num_virtual_tokens", "token_dim", "num_layers", "num_attention_heads",
                                        "num_transformer_submodules"};

void peft__soft_config_out(const peft__adapter *a, peft__json_out *j) {
    for (size_t i = 0; i < PEFT__COUNT(soft_keys); i++) { peft__config_put(&a->opts, soft_keys[i], j); }
}

peft_status peft__soft_config_in(peft__optset *opts, const peft__json *config, const char *what) {
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < PEFT__COUNT(soft_keys); i++) { TRY(peft__config_get(opts, config, what, soft_keys[i])); }
out:
    return st;
}

peft_status peft__soft_check_text(const peft__adapter *a, const char *key) {
    if (!a->from_file && peft__opt_is_set(&a->opts, key) && peft__opt_str(&a->opts, key)[0] == '\0') {
        return peft__fail(PEFT_E_KEY, "%s is empty: virtual tokens cannot start from it", key);
    }
    return PEFT_OK;
}

const char *peft__soft_text(const peft__adapter *a, const char *key) {
    const char *text = peft__opt_str(&a->opts, key);
    return text[0] != '\0' ? text : PEFT__SOFT_TEXT;
}

/* ---- rows ---------------------------------------------------------------------------------------------------- */

void peft__soft_sample(const peft__adapter *a, int64_t vocab, int64_t n, int32_t *ids) {
    static const char stream[] = "virtual tokens";
    peft__rng rng = {peft__hash_str(a->seed, stream, sizeof stream - 1), 0};
    for (int64_t i = 0; i < n; i++) { ids[i] = (int32_t)peft__rng_below(&rng, (uint64_t)vocab); }
}

peft_status peft__soft_rows(const peft__adapter *a, const peft__init_text *text, int64_t n, const peft__kernels *k,
                            peft__real *out) {
    peft_status st = PEFT_OK;
    peft__soft_base base;
    TRY(peft__soft_sizes_of(a, &base));
    if (text->n < 1) { FAIL(PEFT_E_INVALID, "the text that adapter \"%s\" is to start from has no tokens", a->name); }
    for (int64_t i = 0; i < n; i++) {
        int32_t id = text->ids[i % text->n];
        if (id < 0 || id >= base.vocab) {
            FAIL(PEFT_E_INVALID, "token %lld has id %d, expected 0 to %lld", (long long)(i % text->n), (int)id,
                 (long long)base.vocab - 1);
        }
        peft__weight_row(k, base.tokens->weight, id, out + i * base.hidden);
        if (base.tokens->row_scale > 0) {
            k->scale(out + i * base.hidden, PEFT__R(base.tokens->row_scale), out + i * base.hidden, base.hidden);
        }
    }
out:
    return st;
}
