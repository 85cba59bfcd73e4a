/* llama.c - Llama 2 and 3 (Touvron et al. 2023; Llama Team 2024), SmolLM2, Mistral (Jiang et al. 2023) and others of their
 * form, as transformers' LlamaForCausalLM and MistralForCausalLM compute them:
 *
 *   x = E[ids];  each layer:  h = rms_norm(x);  q, k, v = h Wq', h Wk', h Wv', q and k turned by rotary positions;
 *   x = x + attention(q, k, v) Wo';  h = rms_norm(x);  x = x + (silu(h Wg') * h Wu') Wd';  logits = rms_norm(x) Wh'
 *
 * with grouped key/value heads, a head of any size, biases where attention_bias or mlp_bias say so, a sliding window
 * (Mistral) and a head that is the embedding's matrix or its own.
 *
 * Left out: mixtures of experts, attention dropout (a base is not trained from scratch here), pretraining_tp (it changes
 * no result). */
#include "model/parts.h"

static const char *const llama_types[] = {"llama", "mistral", NULL};
static const char *const llama_classes[] = {"LlamaForCausalLM", "MistralForCausalLM"};
static const char *const llama_ggufs[] = {"llama", NULL};

/* ---- config -------------------------------------------------------------------------------------------------------------- */

static const peft__decoder_keys llama_keys = {
    .eps_key = "rms_norm_eps", .gguf_eps = "attention.layer_norm_rms_epsilon", .act_key = "hidden_act", .act = "silu",
    .eps = 1e-6, .theta = 10000, .positions = 2048, .bos = 1, .eos = 2,
};

/* transformers gives Mistral a window of 4096 where the key is absent, none where it is null; Llama has none. */
static peft_status llama_read_window(const peft__json *config, const char *what, peft__config *c) {
    c->window = 0;
    if (!peft__json_is(peft__json_get(config, "model_type"), "mistral")) { return PEFT_OK; }
    const peft__json *node = peft__json_get(config, "sliding_window");
    if (node != NULL && node->kind == PEFT__JSON_NULL) { return PEFT_OK; }
    return peft__json_int(config, what, "sliding_window", 4096, 1, PEFT__MODEL_MAX_POSITIONS, &c->window);
}

static peft_status llama_read_config(const peft__json *config, const char *what, peft__arena *a, peft__config *c) {
    peft_status st = PEFT_OK;
    TRY(peft__decoder_read(config, what, &llama_keys, a, c));
    TRY(peft__json_bool(config, what, "attention_bias", false, &c->attention_bias));
    TRY(peft__json_bool(config, what, "mlp_bias", false, &c->mlp_bias));
    TRY(llama_read_window(config, what, c));
out:
    return st;
}

static peft_status llama_read_gguf(const peft__gguf *g, peft__arena *a, peft__config *c) {
    peft_status st = PEFT_OK;
    TRY(peft__decoder_read_gguf(g, "llama", &llama_keys, a, c));
    c->attention_bias = peft__gguf_find(g, "blk.0.attn_q.bias") != NULL;
    c->mlp_bias = peft__gguf_find(g, "blk.0.ffn_gate.bias") != NULL;
    c->act = PEFT__ACT_SILU;
out:
    return st;
}

static size_t llama_gguf_type(const peft__config *c) { return c->window > 0 ? 1 : 0; }

static void llama_write_config(const peft__config *c, peft__json_out *j) {
    peft__decoder_write(c, &llama_keys, j);
    peft__json_key(j, "attention_bias");
    peft__json_put_bool(j, c->attention_bias);
    peft__json_key(j, "mlp_bias");
    peft__json_put_bool(j, c->mlp_bias);
    if (c->window > 0) {
        peft__json_key(j, "sliding_window");
        peft__json_put_int(j, c->window);
    }
}

static peft_status llama_write_gguf(const struct peft_model *m, peft__gguf_out *w) {
    return peft__decoder_write_gguf(&m->config, "llama", &llama_keys, w);
}

/* ---- tensors ------------------------------------------------------------------------------------------------------------- */

static bool llama_tensor(const peft__config *c, peft__arena *a, size_t index, struct peft__tensor_spec *out) {
    int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim, h = c->hidden_size, f = c->intermediate_size;
    const bool ab = c->attention_bias, mb = c->mlp_bias;
    const peft__module before[] = {{"model.embed_tokens", "token_embd", .rows = c->vocab_size, .cols = h}};
    const peft__module layer[] = {
        {"input_layernorm", "attn_norm", .rows = 1, .cols = h},
        {"self_attn.q_proj", "attn_q", .rows = q, .cols = h, .bias = ab, .interleaved = true},
        {"self_attn.k_proj", "attn_k", .rows = kv, .cols = h, .bias = ab, .interleaved = true},
        {"self_attn.v_proj", "attn_v", .rows = kv, .cols = h, .bias = ab},
        {"self_attn.o_proj", "attn_output", .rows = h, .cols = q, .bias = ab},
        {"post_attention_layernorm", "ffn_norm", .rows = 1, .cols = h},
        {"mlp.gate_proj", "ffn_gate", .rows = f, .cols = h, .bias = mb},
        {"mlp.up_proj", "ffn_up", .rows = f, .cols = h, .bias = mb},
        {"mlp.down_proj", "ffn_down", .rows = h, .cols = f, .bias = mb},
    };
    const peft__module after[] = {
        {"model.norm", "output_norm", .rows = 1, .cols = h},
        {"lm_head", "output", .rows = c->vocab_size, .cols = h, .optional = c->tie_embeddings},
    };
    const peft__modules all = {before, layer, after, PEFT__COUNT(before), PEFT__COUNT(layer), PEFT__COUNT(after), "model.layers", "blk"};
    return peft__modules_tensor(&all, c->layers, a, index, out);
}

/* ---- sites and recording ------------------------------------------------------------------------------------------------- */

typedef struct llama_layer {
    const peft__site *norm, *q, *k, *v, *kv, *o, *attn, *ffn_norm, *gate, *up, *down, *ffn;
} llama_layer;

typedef struct llama_model {
    const peft__site *embed, *input, *norm, *head;
    llama_layer *layers;    /* [config.layers] */
    peft__rope rope;
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
    if (d->layers == NULL || !peft__rope_make(c, c->head_dim, &m->arena, &d->rope)) { return PEFT_E_NOMEM; }
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
    q = peft__op_rope(t, q, c->head_dim, &d->rope);
    k = peft__op_rope(t, k, c->head_dim, &d->rope);
    return peft__site_linear(t, l->o, peft__decoder_attention(c, l->kv, t, h, q, k, v, layer));
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
        h = peft__site_linear(t, l->down, peft__decoder_glu(c, l->gate, l->up, t, h));
        x = peft__op_add(t, x, peft__site_stream(t, l->ffn, h, x));
    }
    t->segment = (int32_t)c->layers + 1;
    peft__model_head(m, t, d->head, peft__site_norm(t, d->norm, x), 0, 1);
}

const peft__arch peft__arch_llama = {
    .name = "llama",
    .model_types = llama_types,
    .architectures = llama_classes,
    .gguf_archs = llama_ggufs,
    .heads = peft__heads_decoder,
    .n_heads = PEFT__HEADS_DECODER,
    .prefix = "",
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
