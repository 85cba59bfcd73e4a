/* config.c - what architectures share in reading config.json and GGUF metadata, and in writing a config.json.
 *
 * Keys are Hugging Face's (transformers' PretrainedConfig). Values that would change the result but are not implemented are
 * refused, never ignored.
 *
 * Left out: the keys of one family (llama.c, gpt2.c). */
#include "model/parts.h"

peft_status peft__config_need(const peft__json *config, const char *what, const char *key, int64_t max, int64_t *out) {
    if (peft__json_find(config, key) == NULL) { return peft__fail(PEFT_E_FORMAT, "%s: key \"%s\" is missing", what, key); }
    return peft__json_int(config, what, key, 1, 1, max, out);
}

peft_status peft__config_need_gguf(const peft__gguf *g, const char *key, int64_t max, int64_t *out) {
    if (peft__gguf_get(g, key) == NULL) { return peft__fail(PEFT_E_FORMAT, "key \"%s\" is missing", key); }
    return peft__gguf_int(g, key, 1, 1, max, out);
}

peft_status peft__config_float_gguf(const peft__gguf *g, const char *key, double dflt, double *out) {
    peft_status st = peft__gguf_float(g, key, dflt, out);
    float wanted = (float)*out;
    for (int32_t digits = 1; st == PEFT_OK && digits <= 9; digits++) {
        char text[40];
        double v = 0;
        size_t len = peft__format_f64((double)wanted, digits, text);
        if (peft__parse_f64(text, len, &v) && !((float)v < wanted) && !((float)v > wanted)) {
            *out = v;
            break;
        }
    }
    return st;
}

/* ---- activation functions ------------------------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    int32_t act;
} config_acts[] = {
    {"silu", PEFT__ACT_SILU},           {"swish", PEFT__ACT_SILU},
    {"gelu", PEFT__ACT_GELU},           {"gelu_new", PEFT__ACT_GELU_TANH},
    {"gelu_pytorch_tanh", PEFT__ACT_GELU_TANH}, {"gelu_fast", PEFT__ACT_GELU_TANH},
    {"relu", PEFT__ACT_RELU},           {"tanh", PEFT__ACT_TANH},
    {"sigmoid", PEFT__ACT_SIGMOID},     {"quick_gelu", PEFT__ACT_QUICK_GELU},
    {"linear", PEFT__ACT_IDENTITY},
};

bool peft__config_act_find(const char *name, int32_t *out) {
    for (size_t i = 0; i < PEFT__COUNT(config_acts); i++) {
        if (strcmp(config_acts[i].name, name) == 0) {
            *out = config_acts[i].act;
            return true;
        }
    }
    return false;
}

peft_status peft__config_act(const peft__json *config, const char *what, const char *key, const char *dflt, int32_t *out) {
    const char *name = NULL;
    peft_status st = peft__json_str(config, what, key, dflt, &name);
    if (st != PEFT_OK || peft__config_act_find(name, out)) { return st; }
    return peft__fail(PEFT_E_UNSUPPORTED,
                      "%s: key \"%s\" is \"%s\", expected silu, gelu, gelu_new, gelu_pytorch_tanh, gelu_fast, relu, tanh, "
                      "sigmoid, quick_gelu or linear", what, key, name);
}

const char *peft__config_act_name(int32_t act) {
    for (size_t i = 0; i < PEFT__COUNT(config_acts); i++) {
        if (config_acts[i].act == act) { return config_acts[i].name; }
    }
    return "?";
}

/* ---- ids, vocabulary, heads ---------------------------------------------------------------------------------------------- */

static peft_status config_id(const peft__json *config, const char *what, const char *key, int32_t dflt, int32_t *out) {
    const peft__json *node = peft__json_get(config, key);
    int64_t id = dflt;
    peft_status st = PEFT_OK;
    if (node != NULL && node->kind == PEFT__JSON_NULL) {
        id = -1;
    } else if (node != NULL && node->kind == PEFT__JSON_ARRAY) {
        const peft__json *first = node->len > 0 ? &node->items[0] : NULL;
        if (first == NULL || !first->is_int || first->i < 0 || first->i > INT32_MAX) {
            FAIL(PEFT_E_FORMAT, "%s: key \"%s\" is no list of ids", what, key);
        }
        id = first->i;
    } else {
        TRY(peft__json_int(config, what, key, dflt, -1, INT32_MAX, &id));
    }
    *out = (int32_t)id;
out:
    return st;
}

peft_status peft__config_ids(const peft__json *config, const char *what, int32_t bos, int32_t eos, peft__config *c) {
    peft_status st = PEFT_OK;
    TRY(config_id(config, what, "bos_token_id", bos, &c->bos_id));
    TRY(config_id(config, what, "eos_token_id", eos, &c->eos_id));
out:
    return st;
}

peft_status peft__config_ids_gguf(const peft__gguf *g, peft__config *c) {
    peft_status st = PEFT_OK;
    int64_t bos = -1, eos = -1;
    TRY(peft__gguf_int(g, "tokenizer.ggml.bos_token_id", -1, -1, UINT32_MAX, &bos));
    TRY(peft__gguf_int(g, "tokenizer.ggml.eos_token_id", -1, -1, UINT32_MAX, &eos));
    c->bos_id = bos < c->vocab_size ? (int32_t)bos : -1; /* 0xFFFFFFFF is some writers' "none" */
    c->eos_id = eos < c->vocab_size ? (int32_t)eos : -1;
out:
    return st;
}

peft_status peft__config_vocab_gguf(const peft__gguf *g, const char *key, peft__config *c) {
    peft_status st = PEFT_OK;
    int64_t stated = 0;
    const peft__io_tensor *t = peft__gguf_find(g, "token_embd.weight");
    const peft__gguf_kv *tokens = peft__gguf_get(g, "tokenizer.ggml.tokens");
    if (t == NULL) { FAIL(PEFT_E_NOT_FOUND, "tensor \"token_embd.weight\" is missing"); }
    if (t->ndim != 2 || t->dims[0] < 1 || t->dims[0] > PEFT__MODEL_MAX_VOCAB) {
        FAIL(PEFT_E_SHAPE, "tensor \"token_embd.weight\" is no matrix of 1 to %d rows", (int)PEFT__MODEL_MAX_VOCAB);
    }
    c->vocab_size = t->dims[0];
    TRY(peft__gguf_int(g, key, c->vocab_size, 1, PEFT__MODEL_MAX_VOCAB, &stated));
    if (stated != c->vocab_size) {
        FAIL(PEFT_E_SHAPE, "key \"%s\" is %lld, but tensor \"token_embd.weight\" has %lld rows", key, (long long)stated,
             (long long)c->vocab_size);
    }
    if (tokens != NULL && tokens->type == PEFT__GGUF_ARRAY && tokens->count != (size_t)c->vocab_size) {
        FAIL(PEFT_E_SHAPE, "the vocabulary has %zu tokens, but tensor \"token_embd.weight\" has %lld rows", tokens->count,
             (long long)c->vocab_size);
    }
out:
    return st;
}

peft_status peft__config_heads(const char *what, const char *width_key, peft__config *c) {
    if (c->heads % c->kv_heads != 0) {
        return peft__fail(PEFT_E_FORMAT, "%s: %lld attention heads are no multiple of %lld key/value heads", what,
                          (long long)c->heads, (long long)c->kv_heads);
    }
    if (c->head_dim == 0) {
        if (c->hidden_size % c->heads != 0) {
            return peft__fail(PEFT_E_FORMAT, "%s: %s %lld is no multiple of %lld attention heads", what, width_key,
                              (long long)c->hidden_size, (long long)c->heads);
        }
        c->head_dim = c->hidden_size / c->heads;
    }
    if (!(c->norm_eps >= 0 && c->norm_eps < 1)) {
        return peft__fail(PEFT_E_FORMAT, "%s: the epsilon of the norms is not from 0 to 1", what);
    }
    if (c->heads * c->head_dim > PEFT__MODEL_MAX_WIDTH) {
        return peft__fail(PEFT_E_FORMAT, "%s: %lld heads of %lld are wider than %d", what, (long long)c->heads,
                          (long long)c->head_dim, (int)PEFT__MODEL_MAX_WIDTH);
    }
    return PEFT_OK;
}

peft_status peft__config_only(const peft__json *config, const char *what, const char *key, bool dflt, bool only) {
    bool value = dflt;
    peft_status st = peft__json_bool(config, what, key, dflt, &value);
    if (st != PEFT_OK || value == only) { return st; }
    return peft__fail(PEFT_E_UNSUPPORTED, "%s: key \"%s\" is %s, only %s is supported", what, key,
                      value ? "true" : "false", only ? "true" : "false");
}

peft_status peft__config_text(const peft__arch *arch, size_t type, const peft__config *c, peft__str *out) {
    peft__json_out j;
    peft__json_begin(&j, out, 2);
    peft__json_object(&j);
    peft__json_key(&j, "architectures");
    peft__json_array(&j);
    peft__json_put_text(&j, arch->architectures[type]);
    peft__json_array_end(&j);
    peft__json_key(&j, "model_type");
    peft__json_put_text(&j, arch->model_types[type]);
    arch->write_config(c, &j);
    const struct {
        const char *key;
        int32_t id;
    } ids[] = {{"bos_token_id", c->bos_id}, {"eos_token_id", c->eos_id}};
    for (size_t i = 0; i < PEFT__COUNT(ids); i++) {
        peft__json_key(&j, ids[i].key);
        if (ids[i].id < 0) {
            peft__json_put_null(&j);
        } else {
            peft__json_put_int(&j, ids[i].id);
        }
    }
    peft__json_key(&j, "tie_word_embeddings");
    peft__json_put_bool(&j, c->tie_embeddings);
    peft__json_object_end(&j);
    peft__str_putc(out, '\n');
    return peft__str_status(out);
}
