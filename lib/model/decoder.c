/* decoder.c - what decoders of Llama's kind share: the keys of their config.json (transformers' names) and of their GGUF metadata
 * ("ARCH.embedding_length" and so on), which layers have a window, attention and gated units, and their tensors as a table of
 * modules.
 *
 * Left out: what makes a family a family: its keys, modules and forward pass are in its own file. */
#include <math.h>
#include <stdio.h>

#include "model/parts.h"

/* ---- config.json ---------------------------------------------------------------------------------------------------------- */

peft_status peft__decoder_read(const peft__json *config, const char *what, const peft__decoder_keys *k, peft__arena *a,
                               peft__config *c) {
    peft_status st = PEFT_OK;
    const int64_t width = PEFT__MODEL_MAX_WIDTH;
    double part = 1;
    TRY(peft__config_need(config, what, "hidden_size", width, &c->hidden_size));
    TRY(peft__config_need(config, what, "num_hidden_layers", PEFT__MODEL_MAX_LAYERS, &c->layers));
    TRY(peft__config_need(config, what, "num_attention_heads", width, &c->heads));
    TRY(peft__json_int(config, what, "num_key_value_heads", c->heads, 1, width, &c->kv_heads));
    TRY(peft__json_int(config, what, "head_dim", k->head_dim, 1, width, &c->head_dim));
    TRY(peft__config_need(config, what, "intermediate_size", width, &c->intermediate_size));
    TRY(peft__config_need(config, what, "vocab_size", PEFT__MODEL_MAX_VOCAB, &c->vocab_size));
    TRY(peft__json_int(config, what, "max_position_embeddings", k->positions, 1, PEFT__MODEL_MAX_POSITIONS, &c->max_positions));
    TRY(peft__json_float(config, what, k->eps_key, k->eps, &c->norm_eps));
    TRY(peft__json_bool(config, what, "tie_word_embeddings", k->tied, &c->tie_embeddings));
    TRY(peft__config_act(config, what, k->act_key, k->act, &c->act));
    TRY(peft__config_ids(config, what, k->bos, k->eos, c));
    TRY(peft__config_heads(what, "hidden_size", c));
    if (k->rotary_key != NULL) { TRY(peft__json_float(config, what, k->rotary_key, k->rotary, &part)); }
    if (!(part > 0 && part <= 1)) { FAIL(PEFT_E_FORMAT, "%s: key \"%s\" is not from 0 to 1", what, k->rotary_key); }
    c->rotary_dim = (int64_t)((double)c->head_dim * part);
    if (c->rotary_dim == 0) { FAIL(PEFT_E_FORMAT, "%s: key \"%s\" leaves no column that turns", what, k->rotary_key); }
    TRY(peft__config_rope(config, what, k->theta, a, c));
out:
    return st;
}

void peft__decoder_write(const peft__config *c, const peft__decoder_keys *k, peft__json_out *j) {
    const struct {
        const char *key;
        int64_t value;
    } sizes[] = {{"hidden_size", c->hidden_size}, {"intermediate_size", c->intermediate_size},
                 {"num_hidden_layers", c->layers}, {"num_attention_heads", c->heads},
                 {"num_key_value_heads", c->kv_heads}, {"head_dim", c->head_dim}, {"vocab_size", c->vocab_size},
                 {"max_position_embeddings", peft__config_stated(c)}};
    for (size_t i = 0; i < PEFT__COUNT(sizes); i++) {
        peft__json_key(j, sizes[i].key);
        peft__json_put_int(j, sizes[i].value);
    }
    peft__json_key(j, k->act_key);
    peft__json_put_text(j, peft__config_act_name(c->act));
    peft__json_key(j, k->eps_key);
    peft__json_put_float(j, c->norm_eps);
    if (k->rotary_key != NULL) {
        peft__json_key(j, k->rotary_key);
        peft__json_put_float(j, (double)peft__config_rotary(c) / (double)c->head_dim);
    }
    peft__config_write_rope(c, j);
}

/* ---- which layers have a window ---------------------------------------------------------------------------------------------- */

bool peft__config_windowed(const peft__config *c, int64_t layer) {
    return c->window > 0 && (!c->windows_differ || (c->windowed[layer / 8] >> (layer % 8) & 1) != 0);
}

void peft__config_set_windowed(peft__config *c, int64_t layer, bool windowed) {
    uint8_t bit = (uint8_t)(1u << (layer % 8));
    c->windows_differ = true;
    c->windowed[layer / 8] = (uint8_t)(windowed ? c->windowed[layer / 8] | bit : c->windowed[layer / 8] & ~bit);
}

peft_status peft__config_layer_types(const peft__json *config, const char *what, peft__config *c, bool *found) {
    peft_status st = PEFT_OK;
    const peft__json *list = peft__json_find(config, "layer_types");
    *found = list != NULL;
    if (list == NULL) { return PEFT_OK; }
    if (list->kind != PEFT__JSON_ARRAY || list->len != (size_t)c->layers) {
        FAIL(PEFT_E_FORMAT, "%s: key \"layer_types\" is no list of %lld texts", what, (long long)c->layers);
    }
    for (size_t i = 0; i < list->len; i++) {
        bool windowed = peft__json_is(&list->items[i], "sliding_attention");
        if (!windowed && !peft__json_is(&list->items[i], "full_attention")) {
            FAIL(PEFT_E_UNSUPPORTED, "%s: entry %zu of \"layer_types\" is neither full_attention nor sliding_attention", what, i);
        }
        peft__config_set_windowed(c, (int64_t)i, windowed);
    }
out:
    return st;
}

void peft__config_write_layer_types(const peft__config *c, peft__json_out *j) {
    peft__json_key(j, "layer_types");
    peft__json_array(j);
    for (int64_t i = 0; i < c->layers; i++) {
        peft__json_put_text(j, peft__config_windowed(c, i) ? "sliding_attention" : "full_attention");
    }
    peft__json_array_end(j);
}

static peft__val layer_attention(const peft__config *c, const peft__site *kv, peft__tape *t, peft__val h, const peft__val qkv[3],
                                 int32_t layer, bool causal) {
    peft__past past = peft__site_kv(t, kv, h);
    peft__attn_spec spec;
    memset(&spec, 0, sizeof spec);
    spec.heads = c->heads;
    spec.kv_heads = c->kv_heads;
    spec.head_dim = c->head_dim;
    spec.scale = c->attn_scale > 0 ? c->attn_scale : 1 / sqrt((double)c->head_dim);
    spec.causal = causal;
    spec.window = peft__config_windowed(c, layer) ? c->window : 0;
    spec.softcap = c->attn_softcap;
    spec.layer = layer;
    return peft__op_attention(t, qkv[0], qkv[1], qkv[2], &past, &spec);
}

peft__val peft__decoder_attention(const peft__config *c, const peft__site *kv, peft__tape *t, peft__val h, peft__val q, peft__val k,
                                  peft__val v, int32_t layer) {
    return layer_attention(c, kv, t, h, (const peft__val[3]){q, k, v}, layer, true);
}

peft__val peft__encoder_attention(const peft__config *c, const peft__site *kv, peft__tape *t, peft__val h, peft__val q, peft__val k,
                                  peft__val v, int32_t layer) {
    return layer_attention(c, kv, t, h, (const peft__val[3]){q, k, v}, layer, false);
}

peft__val peft__decoder_glu(const peft__config *c, const peft__site *gate, const peft__site *up, peft__tape *t, peft__val h) {
    peft__val g = peft__site_linear(t, gate, h);
    peft__val u = peft__site_linear(t, up, h);
    return peft__op_glu(t, c->act, g, u);
}

/* ---- GGUF metadata --------------------------------------------------------------------------------------------------------- */

const char *peft__gguf_key(char buf[PEFT__GGUF_KEY], const char *arch, const char *key) {
    size_t len = PEFT__MIN(strlen(arch), (size_t)15), more = PEFT__MIN(strlen(key), (size_t)(PEFT__GGUF_KEY - 18));
    memcpy(buf, arch, len);
    buf[len] = '.';
    memcpy(buf + len + 1, key, more);
    buf[len + 1 + more] = '\0';
    return buf;
}

peft_status peft__decoder_read_gguf(const peft__gguf *g, const char *arch, const peft__decoder_keys *k, peft__arena *a,
                                    peft__config *c) {
    peft_status st = PEFT_OK;
    const int64_t width = PEFT__MODEL_MAX_WIDTH;
    int64_t experts = 0, value_dim = 0;
    char key[PEFT__GGUF_KEY];
    TRY(peft__config_need_gguf(g, peft__gguf_key(key, arch, "embedding_length"), width, &c->hidden_size));
    TRY(peft__config_need_gguf(g, peft__gguf_key(key, arch, "block_count"), PEFT__MODEL_MAX_LAYERS, &c->layers));
    TRY(peft__config_need_gguf(g, peft__gguf_key(key, arch, "attention.head_count"), width, &c->heads));
    TRY(peft__gguf_int(g, peft__gguf_key(key, arch, "attention.head_count_kv"), c->heads, 1, width, &c->kv_heads));
    TRY(peft__gguf_int(g, peft__gguf_key(key, arch, "attention.key_length"), 0, 1, width, &c->head_dim));
    TRY(peft__gguf_int(g, peft__gguf_key(key, arch, "attention.value_length"), c->head_dim, 0, width, &value_dim));
    TRY(peft__config_need_gguf(g, peft__gguf_key(key, arch, "feed_forward_length"), width, &c->intermediate_size));
    TRY(peft__gguf_int(g, peft__gguf_key(key, arch, "context_length"), 2048, 1, PEFT__MODEL_MAX_POSITIONS, &c->max_positions));
    TRY(peft__config_float_gguf(g, peft__gguf_key(key, arch, k->gguf_eps), 1e-5, &c->norm_eps));
    TRY(peft__gguf_int(g, peft__gguf_key(key, arch, "attention.sliding_window"), 0, 0, PEFT__MODEL_MAX_POSITIONS, &c->window));
    TRY(peft__gguf_int(g, peft__gguf_key(key, arch, "expert_count"), 0, 0, INT32_MAX, &experts));
    if (experts > 0) { FAIL(PEFT_E_UNSUPPORTED, "mixtures of experts are not supported (%s)", key); }
    TRY(peft__config_vocab_gguf(g, peft__gguf_key(key, arch, "vocab_size"), c));
    TRY(peft__config_ids_gguf(g, c));
    c->tie_embeddings = peft__gguf_find(g, "output.weight") == NULL;
    TRY(peft__config_heads("metadata", peft__gguf_key(key, arch, "embedding_length"), c));
    if (value_dim != 0 && value_dim != c->head_dim) {
        FAIL(PEFT_E_UNSUPPORTED, "%s.attention.key_length %lld and value_length %lld differ", arch, (long long)c->head_dim,
             (long long)value_dim);
    }
    TRY(peft__config_rope_gguf(g, arch, a, c));
    if (k->rotary_key == NULL && c->rotary_dim != c->head_dim) {
        FAIL(PEFT_E_UNSUPPORTED, "key \"%s.rope.dimension_count\" is %lld, only the head's %lld is supported", arch,
             (long long)c->rotary_dim, (long long)c->head_dim);
    }
out:
    return st;
}

peft_status peft__decoder_write_gguf(const peft__config *c, const char *arch, const peft__decoder_keys *k, peft__gguf_out *w) {
    const struct {
        const char *key;
        int64_t value;
    } sizes[] = {{"vocab_size", c->vocab_size}, {"context_length", peft__config_stated(c)}, {"embedding_length", c->hidden_size},
                 {"block_count", c->layers}, {"feed_forward_length", c->intermediate_size},
                 {"attention.head_count", c->heads}, {"attention.head_count_kv", c->kv_heads},
                 {"attention.key_length", c->head_dim}, {"attention.value_length", c->head_dim}};
    char key[PEFT__GGUF_KEY];
    for (size_t i = 0; i < PEFT__COUNT(sizes); i++) {
        peft__gguf_put_u32(w, peft__gguf_key(key, arch, sizes[i].key), (uint32_t)sizes[i].value);
    }
    if (c->window > 0) { peft__gguf_put_u32(w, peft__gguf_key(key, arch, "attention.sliding_window"), (uint32_t)c->window); }
    peft__gguf_put_f32(w, peft__gguf_key(key, arch, k->gguf_eps), (float)c->norm_eps);
    return peft__config_write_rope_gguf(c, arch, w);
}

/* ---- tensors ------------------------------------------------------------------------------------------------------------------ */

/* Tensor `index` of a module: its weight, then its bias where it has one. */
static void module_tensor(const peft__module *m, bool bias, const char *hf, const char *gguf, peft__arena *a,
                          struct peft__tensor_spec *out) {
    const char *what = bias ? "bias" : "weight";
    out->hf_name = peft__arena_printf(a, "%s%s.%s", hf, m->hf, what);
    out->gguf_name = peft__arena_printf(a, "%s%s.%s", gguf, m->gguf, what);
    out->ndim = bias || (m->rows == 1 && !m->matrix) ? 1 : 2;
    out->rows = bias ? 1 : m->rows;
    out->cols = bias && m->rows > 1 ? m->rows : m->cols;
    out->conv1d = m->conv1d && out->ndim == 2;
    out->interleaved = m->interleaved;
    out->optional = m->optional;
    out->fused = m->fused;
    out->gguf_plus = bias ? 0 : m->gguf_plus;
}

/* Which module and which of its tensors is number *index; false: fewer, *index less those there are. */
static bool module_at(const peft__module *list, size_t n, size_t *index, size_t *at, bool *bias) {
    for (*at = 0; *at < n; (*at)++) {
        size_t own = list[*at].rows == 0 ? 0 : list[*at].bias ? 2 : 1;
        if (*index < own) {
            *bias = *index == 1;
            return true;
        }
        *index -= own;
    }
    return false;
}

static size_t module_tensors(const peft__module *list, size_t n) {
    size_t all = 0;
    for (size_t i = 0; i < n; i++) { all += list[i].rows == 0 ? 0 : list[i].bias ? 2 : 1; }
    return all;
}

bool peft__modules_tensor(const peft__modules *m, int64_t layers, peft__arena *a, size_t index, struct peft__tensor_spec *out) {
    return peft__modules_tensor_in(m, "", layers, a, index, out);
}

bool peft__modules_tensor_in(const peft__modules *m, const char *prefix, int64_t layers, peft__arena *a, size_t index,
                             struct peft__tensor_spec *out) {
    size_t at = 0, per_layer = module_tensors(m->layer, m->n_layer);
    bool bias = false;
    if (module_at(m->before, m->n_before, &index, &at, &bias)) {
        module_tensor(&m->before[at], bias, prefix, "", a, out);
        return true;
    }
    if (index < (size_t)layers * per_layer) {
        char hf[64], gguf[64];
        int64_t layer = (int64_t)(index / per_layer);
        index %= per_layer;
        (void)module_at(m->layer, m->n_layer, &index, &at, &bias);
        (void)snprintf(hf, sizeof hf, "%s%s.%lld.", prefix, m->hf_layers, (long long)layer);
        (void)snprintf(gguf, sizeof gguf, "%s.%lld.", m->gguf_layers, (long long)layer);
        module_tensor(&m->layer[at], bias, hf, gguf, a, out);
        return true;
    }
    index -= (size_t)layers * per_layer;
    if (!module_at(m->after, m->n_after, &index, &at, &bias)) { return false; }
    module_tensor(&m->after[at], bias, prefix, "", a, out);
    return true;
}
