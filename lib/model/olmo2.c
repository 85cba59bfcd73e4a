/* olmo2.c - OLMo 2 (OLMo Team 2025), as transformers' Olmo2ForCausalLM computes it: Llama's projections (llama.c) with the norms
 * behind them,
 *
 *   x = x + norm(attention(x));  x = x + norm(mlp(x));  q = rms_norm(x Wq'), k = rms_norm(x Wk'), over all heads together
 *
 * Left out: OLMo 1 (its norms have no weights), OLMoE. */
#include "model/parts.h"

static const char *const olmo2_types[] = {"olmo2", NULL};
static const char *const olmo2_classes[] = {"Olmo2ForCausalLM"};

static const peft__decoder_keys olmo2_keys = {
    .eps_key = "rms_norm_eps", .gguf_eps = "attention.layer_norm_rms_epsilon", .act_key = "hidden_act", .act = "silu",
    .eps = 1e-5, .theta = 10000, .positions = 2048, .bos = -1, .eos = 50279,
};

/* ---- config -------------------------------------------------------------------------------------------------------------- */

static peft_status olmo2_read_config(const peft__json *config, const char *what, peft__arena *a, peft__config *c) {
    peft_status st = PEFT_OK;
    TRY(peft__decoder_read(config, what, &olmo2_keys, a, c));
    TRY(peft__json_bool(config, what, "attention_bias", false, &c->attention_bias));
out:
    return st;
}

static peft_status olmo2_read_gguf(const peft__gguf *g, peft__arena *a, peft__config *c) {
    peft_status st = peft__decoder_read_gguf(g, "olmo2", &olmo2_keys, a, c);
    c->act = PEFT__ACT_SILU;
    return st;
}

static void olmo2_write_config(const peft__config *c, peft__json_out *j) {
    peft__decoder_write(c, &olmo2_keys, j);
    peft__json_key(j, "attention_bias");
    peft__json_put_bool(j, c->attention_bias);
}

static peft_status olmo2_write_gguf(const struct peft_model *m, peft__gguf_out *w) {
    if (m->config.attention_bias) { return peft__fail(PEFT_E_UNSUPPORTED, "GGUF has no biases for olmo2 models"); }
    return peft__decoder_write_gguf(&m->config, "olmo2", &olmo2_keys, w);
}

/* ---- tensors ------------------------------------------------------------------------------------------------------------- */

static bool olmo2_tensor(const peft__config *c, peft__arena *a, size_t index, struct peft__tensor_spec *out) {
    int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim, h = c->hidden_size, f = c->intermediate_size;
    const bool bias = c->attention_bias;
    const peft__module before[] = {{"model.embed_tokens", "token_embd", .rows = c->vocab_size, .cols = h}};
    const peft__module layer[] = {
        {"self_attn.q_proj", "attn_q", .rows = q, .cols = h, .bias = bias},
        {"self_attn.k_proj", "attn_k", .rows = kv, .cols = h, .bias = bias},
        {"self_attn.v_proj", "attn_v", .rows = kv, .cols = h, .bias = bias},
        {"self_attn.q_norm", "attn_q_norm", .rows = 1, .cols = q},
        {"self_attn.k_norm", "attn_k_norm", .rows = 1, .cols = kv},
        {"self_attn.o_proj", "attn_output", .rows = h, .cols = q, .bias = bias},
        {"post_attention_layernorm", "post_attention_norm", .rows = 1, .cols = h},
        {"mlp.gate_proj", "ffn_gate", .rows = f, .cols = h},
        {"mlp.up_proj", "ffn_up", .rows = f, .cols = h},
        {"mlp.down_proj", "ffn_down", .rows = h, .cols = f},
        {"post_feedforward_layernorm", "post_ffw_norm", .rows = 1, .cols = h},
    };
    const peft__module after[] = {
        {"model.norm", "output_norm", .rows = 1, .cols = h},
        {"lm_head", "output", .rows = c->vocab_size, .cols = h, .optional = c->tie_embeddings},
    };
    const peft__modules all = {before, layer, after, PEFT__COUNT(before), PEFT__COUNT(layer), PEFT__COUNT(after), "model.layers", "blk"};
    return peft__modules_tensor(&all, c->layers, a, index, out);
}

/* ---- sites and recording ------------------------------------------------------------------------------------------------- */

typedef struct olmo2_layer {
    const peft__site *q, *k, *v, *q_norm, *k_norm, *kv, *o, *after, *attn, *gate, *up, *down, *ffn_after, *ffn;
} olmo2_layer;

typedef struct olmo2_model {
    const peft__site *embed, *input, *norm, *head;
    olmo2_layer *layers; /* [config.layers] */
    peft__rope rope;
} olmo2_model;

static void olmo2_layer_sites(peft__sites *b, const peft__config *c, olmo2_layer *l) {
    l->q = peft__sites_linear(b, PEFT__ROLE_Q, "self_attn.q_proj");
    l->k = peft__sites_linear(b, PEFT__ROLE_K, "self_attn.k_proj");
    l->v = peft__sites_linear(b, PEFT__ROLE_V, "self_attn.v_proj");
    l->q_norm = peft__sites_norm(b, PEFT__ROLE_NONE, "self_attn.q_norm", true, c->norm_eps);
    l->k_norm = peft__sites_norm(b, PEFT__ROLE_NONE, "self_attn.k_norm", true, c->norm_eps);
    l->kv = peft__sites_plain(b, PEFT__SITE_KV, PEFT__ROLE_ATTN, "self_attn", c->kv_heads * c->head_dim);
    l->o = peft__sites_linear(b, PEFT__ROLE_O, "self_attn.o_proj");
    l->after = peft__sites_norm(b, PEFT__ROLE_ATTN, "post_attention_layernorm", true, c->norm_eps);
    l->attn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_ATTN, "self_attn", c->hidden_size);
    l->gate = peft__sites_linear(b, PEFT__ROLE_GATE, "mlp.gate_proj");
    l->up = peft__sites_linear(b, PEFT__ROLE_UP, "mlp.up_proj");
    l->down = peft__sites_linear(b, PEFT__ROLE_DOWN, "mlp.down_proj");
    l->ffn_after = peft__sites_norm(b, PEFT__ROLE_FFN, "post_feedforward_layernorm", true, c->norm_eps);
    l->ffn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_FFN, "mlp", c->hidden_size);
}

static peft_status olmo2_sites(struct peft_model *m) {
    const peft__config *c = &m->config;
    peft__sites b;
    olmo2_model *d = peft__arena_alloc(&m->arena, sizeof *d);
    if (d == NULL) { return PEFT_E_NOMEM; }
    d->layers = peft__arena_alloc(&m->arena, (size_t)c->layers * sizeof *d->layers);
    if (d->layers == NULL || !peft__rope_make(c, c->head_dim, &m->arena, &d->rope)) { return PEFT_E_NOMEM; }
    m->arch_data = d;
    peft__sites_begin(&b, m, 4 + (size_t)c->layers * 14);
    d->embed = peft__sites_embed(&b, PEFT__ROLE_TOKENS, "model.embed_tokens");
    d->input = peft__sites_plain(&b, PEFT__SITE_INPUT, PEFT__ROLE_NONE, "", c->hidden_size);
    for (int64_t i = 0; i < c->layers; i++) {
        peft__sites_in(&b, (int32_t)i, peft__arena_printf(&m->arena, "model.layers.%lld", (long long)i));
        olmo2_layer_sites(&b, c, &d->layers[i]);
    }
    peft__sites_in(&b, -1, "");
    d->norm = peft__sites_norm(&b, PEFT__ROLE_FINAL, "model.norm", true, c->norm_eps);
    d->head = peft__sites_head(&b, "lm_head", d->embed);
    return b.st;
}

static peft__val olmo2_attention(const peft__config *c, const olmo2_model *d, const olmo2_layer *l, peft__tape *t, peft__val h,
                                int32_t layer) {
    peft__val q = peft__site_linear(t, l->q, h);
    peft__val k = peft__site_linear(t, l->k, h);
    peft__val v = peft__site_linear(t, l->v, h);
    q = peft__op_rope(t, peft__site_norm(t, l->q_norm, q), c->head_dim, &d->rope);
    k = peft__op_rope(t, peft__site_norm(t, l->k_norm, k), c->head_dim, &d->rope);
    return peft__site_linear(t, l->o, peft__decoder_attention(c, l->kv, t, h, q, k, v, layer));
}

static void olmo2_record(const struct peft_model *m, peft__tape *t) {
    const peft__config *c = &m->config;
    const olmo2_model *d = m->arch_data;
    t->segments = (int32_t)c->layers + 2;
    t->segment = 0;
    peft__val x = peft__site_input(t, d->input, peft__site_embed(t, d->embed, 1));
    for (int32_t i = 0; i < (int32_t)c->layers; i++) {
        const olmo2_layer *l = &d->layers[i];
        t->segment = i + 1;
        peft__val h = peft__site_norm(t, l->after, olmo2_attention(c, d, l, t, x, i));
        x = peft__op_add(t, x, peft__site_stream(t, l->attn, h, x));
        h = peft__site_linear(t, l->down, peft__decoder_glu(c, l->gate, l->up, t, x));
        h = peft__site_norm(t, l->ffn_after, h);
        x = peft__op_add(t, x, peft__site_stream(t, l->ffn, h, x));
    }
    t->segment = (int32_t)c->layers + 1;
    peft__model_head(m, t, d->head, peft__site_norm(t, d->norm, x), 0, 1);
}

const peft__arch peft__arch_olmo2 = {
    .name = "olmo2",
    .model_types = olmo2_types,
    .architectures = olmo2_classes,
    .gguf_archs = olmo2_types,
    .heads = peft__heads_decoder,
    .n_heads = PEFT__HEADS_DECODER,
    .prefix = "",
    .gguf_act = PEFT__ACT_SILU,
    .read_config = olmo2_read_config,
    .read_gguf = olmo2_read_gguf,
    .write_config = olmo2_write_config,
    .write_gguf = olmo2_write_gguf,
    .tensor = olmo2_tensor,
    .sites = olmo2_sites,
    .record = olmo2_record,
};
