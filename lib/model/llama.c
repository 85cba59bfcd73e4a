/* llama.c - Llama 2 and 3 (Touvron et al. 2023; Llama Team 2024), SmolLM2, Mistral (Jiang et al. 2023) and others of their
 * form, as transformers' LlamaForCausalLM and MistralForCausalLM compute them:
 *
 *   x = E[ids];  each layer:  h = rms_norm(x);  q, k, v = h Wq', h Wk', h Wv', q and k turned by rotary positions;
 *   x = x + attention(q, k, v) Wo';  h = rms_norm(x);  x = x + (silu(h Wg') * h Wu') Wd';  logits = rms_norm(x) Wh'
 *
 * with grouped key/value heads, a head of any size, biases where attention_bias or mlp_bias say so, a sliding window
 * (Mistral) and a head that is the embedding's matrix or its own. Rotary scalings: linear, llama3.
 *
 * Left out: mixtures of experts, attention dropout (a base is not trained from scratch here), pretraining_tp (it changes
 * no result). */
#include <math.h>

#include "model/parts.h"

static const char *const llama_types[] = {"llama", "mistral", NULL};
static const char *const llama_classes[] = {"LlamaForCausalLM", "MistralForCausalLM"};
static const char *const llama_ggufs[] = {"llama", NULL};

/* ---- config -------------------------------------------------------------------------------------------------------------- */

/* transformers gives Mistral a window of 4096 where the key is absent, none where it is null; Llama has none. */
static peft_status llama_read_window(const peft__json *config, const char *what, peft__config *c) {
    c->window = 0;
    if (!peft__json_is(peft__json_get(config, "model_type"), "mistral")) { return PEFT_OK; }
    const peft__json *node = peft__json_get(config, "sliding_window");
    if (node != NULL && node->kind == PEFT__JSON_NULL) { return PEFT_OK; }
    return peft__json_int(config, what, "sliding_window", 4096, 1, PEFT__MODEL_MAX_POSITIONS, &c->window);
}

static peft_status llama_read_config(const peft__json *config, const char *what, peft__config *c) {
    peft_status st = PEFT_OK;
    const int64_t width = PEFT__MODEL_MAX_WIDTH;
    TRY(peft__config_need(config, what, "hidden_size", width, &c->hidden_size));
    TRY(peft__config_need(config, what, "num_hidden_layers", PEFT__MODEL_MAX_LAYERS, &c->layers));
    TRY(peft__config_need(config, what, "num_attention_heads", width, &c->heads));
    TRY(peft__json_int(config, what, "num_key_value_heads", c->heads, 1, width, &c->kv_heads));
    TRY(peft__json_int(config, what, "head_dim", 0, 1, width, &c->head_dim));
    TRY(peft__config_need(config, what, "intermediate_size", width, &c->intermediate_size));
    TRY(peft__config_need(config, what, "vocab_size", PEFT__MODEL_MAX_VOCAB, &c->vocab_size));
    TRY(peft__json_int(config, what, "max_position_embeddings", 2048, 1, PEFT__MODEL_MAX_POSITIONS, &c->max_positions));
    TRY(peft__json_float(config, what, "rms_norm_eps", 1e-6, &c->norm_eps));
    TRY(peft__json_bool(config, what, "tie_word_embeddings", false, &c->tie_embeddings));
    TRY(peft__json_bool(config, what, "attention_bias", false, &c->attention_bias));
    TRY(peft__json_bool(config, what, "mlp_bias", false, &c->mlp_bias));
    TRY(peft__config_act(config, what, "hidden_act", "silu", &c->act));
    TRY(llama_read_window(config, what, c));
    TRY(peft__config_rope(config, what, c));
    TRY(peft__config_ids(config, what, 1, 2, c));
    TRY(peft__config_heads(what, "hidden_size", c));
    if (c->head_dim % 2 != 0) {
        FAIL(PEFT_E_FORMAT, "%s: heads of %lld columns cannot be rotated in halves", what, (long long)c->head_dim);
    }
out:
    return st;
}

static peft_status llama_read_gguf_rope(const peft__gguf *g, peft__config *c) {
    peft_status st = PEFT_OK;
    int64_t rotary = 0;
    double linear = 1;
    const peft__gguf_kv *type = peft__gguf_get(g, "llama.rope.scaling.type");
    TRY(peft__gguf_int(g, "llama.rope.dimension_count", c->head_dim, 1, PEFT__MODEL_MAX_WIDTH, &rotary));
    if (rotary != c->head_dim) {
        FAIL(PEFT_E_UNSUPPORTED, "key \"llama.rope.dimension_count\" is %lld, only the head's %lld is supported",
             (long long)rotary, (long long)c->head_dim);
    }
    TRY(peft__config_float_gguf(g, "llama.rope.freq_base", 10000, &c->rope_theta));
    TRY(peft__config_float_gguf(g, "llama.rope.scale_linear", 1, &linear));
    TRY(peft__config_float_gguf(g, "llama.rope.scaling.factor", linear, &c->rope_factor));
    c->rope_scaling = PEFT__ROPE_NONE;
    if (type == NULL ? linear > 1 : type->type == PEFT__GGUF_STRING && type->str.len == 6 &&
                                        memcmp(type->str.data, "linear", 6) == 0) {
        c->rope_scaling = PEFT__ROPE_LINEAR;
    } else if (type != NULL &&
               (type->type != PEFT__GGUF_STRING || type->str.len != 4 || memcmp(type->str.data, "none", 4) != 0)) {
        FAIL(PEFT_E_UNSUPPORTED, "key \"llama.rope.scaling.type\" is not supported, expected none or linear");
    }
    if (!(c->rope_theta > 0) || !(c->rope_factor > 0)) {
        FAIL(PEFT_E_FORMAT, "rope base and factor must be above 0");
    }
out:
    return st;
}

static peft_status llama_read_gguf(const peft__gguf *g, peft__config *c) {
    peft_status st = PEFT_OK;
    const int64_t width = PEFT__MODEL_MAX_WIDTH;
    int64_t experts = 0, value_dim = 0;
    TRY(peft__config_need_gguf(g, "llama.embedding_length", width, &c->hidden_size));
    TRY(peft__config_need_gguf(g, "llama.block_count", PEFT__MODEL_MAX_LAYERS, &c->layers));
    TRY(peft__config_need_gguf(g, "llama.attention.head_count", width, &c->heads));
    TRY(peft__gguf_int(g, "llama.attention.head_count_kv", c->heads, 1, width, &c->kv_heads));
    TRY(peft__gguf_int(g, "llama.attention.key_length", 0, 1, width, &c->head_dim));
    TRY(peft__gguf_int(g, "llama.attention.value_length", c->head_dim, 0, width, &value_dim));
    TRY(peft__config_need_gguf(g, "llama.feed_forward_length", width, &c->intermediate_size));
    TRY(peft__gguf_int(g, "llama.context_length", 2048, 1, PEFT__MODEL_MAX_POSITIONS, &c->max_positions));
    TRY(peft__config_float_gguf(g, "llama.attention.layer_norm_rms_epsilon", 1e-5, &c->norm_eps));
    TRY(peft__gguf_int(g, "llama.attention.sliding_window", 0, 0, PEFT__MODEL_MAX_POSITIONS, &c->window));
    TRY(peft__gguf_int(g, "llama.expert_count", 0, 0, INT32_MAX, &experts));
    if (experts > 0) { FAIL(PEFT_E_UNSUPPORTED, "mixtures of experts are not supported (llama.expert_count)"); }
    TRY(peft__config_vocab_gguf(g, "llama.vocab_size", c));
    TRY(peft__config_ids_gguf(g, c));
    c->tie_embeddings = peft__gguf_find(g, "output.weight") == NULL;
    c->attention_bias = peft__gguf_find(g, "blk.0.attn_q.bias") != NULL;
    c->mlp_bias = peft__gguf_find(g, "blk.0.ffn_gate.bias") != NULL;
    c->act = PEFT__ACT_SILU;
    TRY(peft__config_heads("metadata", "llama.embedding_length", c));
    if (value_dim != 0 && value_dim != c->head_dim) {
        FAIL(PEFT_E_UNSUPPORTED, "llama.attention.key_length %lld and value_length %lld differ", (long long)c->head_dim,
             (long long)value_dim);
    }
    if (c->head_dim % 2 != 0) { FAIL(PEFT_E_FORMAT, "heads of %lld columns cannot be rotated", (long long)c->head_dim); }
    TRY(llama_read_gguf_rope(g, c));
out:
    return st;
}

static size_t llama_gguf_type(const peft__config *c) { return c->window > 0 ? 1 : 0; }

static void llama_write_scaling(const peft__config *c, peft__json_out *j) {
    peft__json_key(j, "rope_scaling");
    if (c->rope_scaling == PEFT__ROPE_NONE) {
        peft__json_put_null(j);
        return;
    }
    bool linear = c->rope_scaling == PEFT__ROPE_LINEAR;
    peft__json_object(j);
    peft__json_key(j, "rope_type");
    peft__json_put_text(j, linear ? "linear" : "llama3");
    peft__json_key(j, "factor");
    peft__json_put_float(j, c->rope_factor);
    if (!linear) {
        peft__json_key(j, "low_freq_factor");
        peft__json_put_float(j, c->rope_low_freq);
        peft__json_key(j, "high_freq_factor");
        peft__json_put_float(j, c->rope_high_freq);
        peft__json_key(j, "original_max_position_embeddings");
        peft__json_put_int(j, c->rope_original_positions);
    }
    peft__json_object_end(j);
}

static void llama_write_config(const peft__config *c, peft__json_out *j) {
    const struct {
        const char *key;
        int64_t value;
    } sizes[] = {{"hidden_size", c->hidden_size}, {"intermediate_size", c->intermediate_size},
                 {"num_hidden_layers", c->layers}, {"num_attention_heads", c->heads},
                 {"num_key_value_heads", c->kv_heads}, {"head_dim", c->head_dim}, {"vocab_size", c->vocab_size},
                 {"max_position_embeddings", c->max_positions}};
    for (size_t i = 0; i < PEFT__COUNT(sizes); i++) {
        peft__json_key(j, sizes[i].key);
        peft__json_put_int(j, sizes[i].value);
    }
    peft__json_key(j, "hidden_act");
    peft__json_put_text(j, peft__config_act_name(c->act));
    peft__json_key(j, "rms_norm_eps");
    peft__json_put_float(j, c->norm_eps);
    peft__json_key(j, "rope_theta");
    peft__json_put_float(j, c->rope_theta);
    llama_write_scaling(c, j);
    peft__json_key(j, "attention_bias");
    peft__json_put_bool(j, c->attention_bias);
    peft__json_key(j, "mlp_bias");
    peft__json_put_bool(j, c->mlp_bias);
    if (c->window > 0) {
        peft__json_key(j, "sliding_window");
        peft__json_put_int(j, c->window);
    }
}

static void llama_write_gguf(const struct peft_model *m, peft__gguf_out *w) {
    const peft__config *c = &m->config;
    const struct {
        const char *key;
        int64_t value;
    } sizes[] = {{"llama.vocab_size", c->vocab_size}, {"llama.context_length", c->max_positions},
                 {"llama.embedding_length", c->hidden_size}, {"llama.block_count", c->layers},
                 {"llama.feed_forward_length", c->intermediate_size}, {"llama.attention.head_count", c->heads},
                 {"llama.attention.head_count_kv", c->kv_heads}, {"llama.attention.key_length", c->head_dim},
                 {"llama.attention.value_length", c->head_dim}, {"llama.rope.dimension_count", c->head_dim}};
    for (size_t i = 0; i < PEFT__COUNT(sizes); i++) { peft__gguf_put_u32(w, sizes[i].key, (uint32_t)sizes[i].value); }
    if (c->window > 0) { peft__gguf_put_u32(w, "llama.attention.sliding_window", (uint32_t)c->window); }
    peft__gguf_put_f32(w, "llama.attention.layer_norm_rms_epsilon", (float)c->norm_eps);
    peft__gguf_put_f32(w, "llama.rope.freq_base", (float)c->rope_theta);
    if (c->rope_scaling == PEFT__ROPE_LINEAR) {
        peft__gguf_put_text(w, "llama.rope.scaling.type", "linear", 6);
        peft__gguf_put_f32(w, "llama.rope.scaling.factor", (float)c->rope_factor);
    }
}

/* ---- tensors ------------------------------------------------------------------------------------------------------------- */

enum { LLAMA_PARTS = 9 }; /* modules with a weight in a layer */

/* Module `part` of a layer: names and shape; false when the bias that is asked for is not there. */
static bool llama_part(const peft__config *c, size_t part, bool bias, const char **hf, const char **gguf,
                       struct peft__tensor_spec *out) {
    int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim, h = c->hidden_size, f = c->intermediate_size;
    const struct {
        const char *hf, *gguf;
        int64_t rows, cols;
        bool interleaved, bias;
    } parts[LLAMA_PARTS] = {
        {"input_layernorm", "attn_norm", 1, h, false, false},
        {"self_attn.q_proj", "attn_q", q, h, true, c->attention_bias},
        {"self_attn.k_proj", "attn_k", kv, h, true, c->attention_bias},
        {"self_attn.v_proj", "attn_v", kv, h, false, c->attention_bias},
        {"self_attn.o_proj", "attn_output", h, q, false, c->attention_bias},
        {"post_attention_layernorm", "ffn_norm", 1, h, false, false},
        {"mlp.gate_proj", "ffn_gate", f, h, false, c->mlp_bias},
        {"mlp.up_proj", "ffn_up", f, h, false, c->mlp_bias},
        {"mlp.down_proj", "ffn_down", h, f, false, c->mlp_bias},
    };
    *hf = parts[part].hf;
    *gguf = parts[part].gguf;
    out->rows = bias ? 1 : parts[part].rows;
    out->cols = bias ? parts[part].rows : parts[part].cols;
    out->ndim = bias || parts[part].rows == 1 ? 1 : 2;
    out->interleaved = parts[part].interleaved;
    return !bias || parts[part].bias;
}

/* The layer's tensors: nine weights, then those of nine biases that exist. */
static bool llama_layer_tensor(const peft__config *c, peft__arena *a, int64_t layer, size_t index,
                               struct peft__tensor_spec *out) {
    size_t seen = 0;
    for (size_t i = 0; i < 2 * LLAMA_PARTS; i++) {
        const char *hf = NULL, *gguf = NULL;
        bool bias = i >= LLAMA_PARTS;
        if (!llama_part(c, i % LLAMA_PARTS, bias, &hf, &gguf, out)) { continue; }
        if (seen++ < index) { continue; }
        const char *what = bias ? "bias" : "weight";
        out->hf_name = peft__arena_printf(a, "model.layers.%lld.%s.%s", (long long)layer, hf, what);
        out->gguf_name = peft__arena_printf(a, "blk.%lld.%s.%s", (long long)layer, gguf, what);
        return true;
    }
    return false;
}

static bool llama_tensor(const peft__config *c, peft__arena *a, size_t index, struct peft__tensor_spec *out) {
    size_t per_layer = LLAMA_PARTS + (c->attention_bias ? 4u : 0u) + (c->mlp_bias ? 3u : 0u);
    size_t layers = (size_t)c->layers;
    out->ndim = 2;
    out->rows = c->vocab_size;
    out->cols = c->hidden_size;
    if (index == 0) {
        out->hf_name = "model.embed_tokens.weight";
        out->gguf_name = "token_embd.weight";
        return true;
    }
    if (index - 1 < layers * per_layer) {
        return llama_layer_tensor(c, a, (int64_t)((index - 1) / per_layer), (index - 1) % per_layer, out);
    }
    switch (index - 1 - layers * per_layer) {
    case 0:
        out->hf_name = "model.norm.weight";
        out->gguf_name = "output_norm.weight";
        out->ndim = 1;
        out->rows = 1;
        return true;
    case 1:
        out->hf_name = "lm_head.weight";
        out->gguf_name = "output.weight";
        out->optional = c->tie_embeddings;
        return true;
    default: return false;
    }
}

/* ---- sites and recording ------------------------------------------------------------------------------------------------- */

typedef struct llama_layer {
    const peft__site *norm, *q, *k, *v, *kv, *o, *attn, *ffn_norm, *gate, *up, *down, *ffn;
} llama_layer;

typedef struct llama_model {
    const peft__site *embed, *input, *norm, *head;
    llama_layer *layers;    /* [config.layers] */
    const double *inv_freq; /* [head_dim / 2] */
} llama_model;

static void llama_layer_sites(peft__sites *b, const peft__config *c, llama_layer *l) {
    l->norm = peft__sites_norm(b, PEFT__ROLE_ATTN, "input_layernorm", true, c->norm_eps);
    l->q = peft__sites_linear(b, PEFT__ROLE_Q, "self_attn.q_proj");
    l->k = peft__sites_linear(b, PEFT__ROLE_K, "self_attn.k_proj");
    l->v = peft__sites_linear(b, PEFT__ROLE_V, "self_attn.v_proj");
    l->kv = peft__sites_plain(b, PEFT__SITE_KV, PEFT__ROLE_ATTN, "self_attn", c->kv_heads * c->head_dim);
    l->o = peft__sites_linear(b, PEFT__ROLE_O, "self_attn.o_proj");
    l->attn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_ATTN, "self_attn", c->hidden_size);
    l->ffn_norm = peft__sites_norm(b, PEFT__ROLE_FFN, "post_attention_layernorm", true, c->norm_eps);
    l->gate = peft__sites_linear(b, PEFT__ROLE_GATE, "mlp.gate_proj");
    l->up = peft__sites_linear(b, PEFT__ROLE_UP, "mlp.up_proj");
    l->down = peft__sites_linear(b, PEFT__ROLE_DOWN, "mlp.down_proj");
    l->ffn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_FFN, "mlp", c->hidden_size);
}

static peft_status llama_sites(struct peft_model *m) {
    const peft__config *c = &m->config;
    peft__sites b;
    llama_model *d = peft__arena_alloc(&m->arena, sizeof *d);
    if (d == NULL) { return PEFT_E_NOMEM; }
    d->layers = peft__arena_alloc(&m->arena, (size_t)c->layers * sizeof *d->layers);
    d->inv_freq = peft__rope_frequencies(c, c->head_dim, &m->arena);
    if (d->layers == NULL || d->inv_freq == NULL) { return PEFT_E_NOMEM; }
    m->arch_data = d;
    peft__sites_begin(&b, m, 4 + (size_t)c->layers * 12);
    d->embed = peft__sites_embed(&b, PEFT__ROLE_TOKENS, "model.embed_tokens");
    d->input = peft__sites_plain(&b, PEFT__SITE_INPUT, PEFT__ROLE_NONE, "", c->hidden_size);
    for (int64_t i = 0; i < c->layers; i++) {
        peft__sites_in(&b, (int32_t)i, peft__arena_printf(&m->arena, "model.layers.%lld", (long long)i));
        llama_layer_sites(&b, c, &d->layers[i]);
    }
    peft__sites_in(&b, -1, "");
    d->norm = peft__sites_norm(&b, PEFT__ROLE_FINAL, "model.norm", true, c->norm_eps);
    d->head = peft__sites_head(&b, "lm_head", d->embed);
    return b.st;
}

static peft__val llama_attention(const peft__config *c, const llama_model *d, const llama_layer *l, peft__tape *t,
                                 peft__val h, int32_t layer) {
    peft__val q = peft__site_linear(t, l->q, h);
    peft__val k = peft__site_linear(t, l->k, h);
    peft__val v = peft__site_linear(t, l->v, h);
    q = peft__op_rope(t, q, c->head_dim, c->head_dim, d->inv_freq, 1);
    k = peft__op_rope(t, k, c->head_dim, c->head_dim, d->inv_freq, 1);
    peft__past past = peft__site_kv(t, l->kv, h);
    peft__attn_spec spec;
    memset(&spec, 0, sizeof spec);
    spec.heads = c->heads;
    spec.kv_heads = c->kv_heads;
    spec.head_dim = c->head_dim;
    spec.scale = 1 / sqrt((double)c->head_dim);
    spec.causal = true;
    spec.window = c->window;
    spec.layer = layer;
    return peft__site_linear(t, l->o, peft__op_attention(t, q, k, v, &past, &spec));
}

static void llama_record(const struct peft_model *m, peft__tape *t) {
    const peft__config *c = &m->config;
    const llama_model *d = m->arch_data;
    t->segments = (int32_t)c->layers + 2;
    t->segment = 0;
    peft__val x = peft__site_embed(t, d->embed, 1);
    x = peft__site_input(t, d->input, x);
    for (int32_t i = 0; i < (int32_t)c->layers; i++) {
        const llama_layer *l = &d->layers[i];
        t->segment = i + 1;
        peft__val h = llama_attention(c, d, l, t, peft__site_norm(t, l->norm, x), i);
        x = peft__op_add(t, x, peft__site_stream(t, l->attn, h, x));
        h = peft__site_norm(t, l->ffn_norm, x);
        peft__val gate = peft__site_linear(t, l->gate, h);
        peft__val up = peft__site_linear(t, l->up, h);
        h = peft__site_linear(t, l->down, peft__op_glu(t, c->act, gate, up));
        x = peft__op_add(t, x, peft__site_stream(t, l->ffn, h, x));
    }
    t->segment = (int32_t)c->layers + 1;
    peft__site_head(t, d->head, peft__site_norm(t, d->norm, x), 0, 1);
}

const peft__arch peft__arch_llama = {
    .name = "llama",
    .model_types = llama_types,
    .architectures = llama_classes,
    .gguf_archs = llama_ggufs,
    .gguf_act = PEFT__ACT_SILU,
    .read_config = llama_read_config,
    .read_gguf = llama_read_gguf,
    .gguf_type = llama_gguf_type,
    .write_config = llama_write_config,
    .write_gguf = llama_write_gguf,
    .tensor = llama_tensor,
    .sites = llama_sites,
    .record = llama_record,
};
