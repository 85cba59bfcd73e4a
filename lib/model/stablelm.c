/* stablelm.c - StableLM 3B, Zephyr 3B and StableLM 2 1.6B (Bellagente et al. 2024), as transformers' StableLmForCausalLM computes them:
 * Llama's layer (llama.c) with LayerNorm, whose shifts are the only biases but for those of q, k and v (use_qkv_bias),
 *
 *   x = x + attention(layer_norm(x));  x = x + (silu(h Wg') * h Wu') Wd', h = layer_norm(x)
 *
 * and a part of each head that turns (partial_rotary_factor).
 *
 * Left out: what StableLM 2 12B has, norms of each head of q and k and layers whose parts stand side by side. */
#include "model/parts.h"

static const char *const stablelm_types[] = {"stablelm", NULL};
static const char *const stablelm_classes[] = {"StableLmForCausalLM"};

static const peft__decoder_keys stablelm_keys = {
    .eps_key = "layer_norm_eps", .gguf_eps = "attention.layer_norm_epsilon", .act_key = "hidden_act", .act = "silu",
    .rotary_key = "partial_rotary_factor", .rotary = 0.25, .eps = 1e-5, .theta = 10000, .positions = 4096, .bos = 0, .eos = 0,
};

/* ---- config -------------------------------------------------------------------------------------------------------------- */

static peft_status stablelm_read_config(const peft__json *config, const char *what, peft__arena *a, peft__config *c) {
    peft_status st = PEFT_OK;
    TRY(peft__decoder_read(config, what, &stablelm_keys, a, c));
    if (c->heads * c->head_dim != c->hidden_size) { /* transformers turns by this key, but cuts heads by hidden_size */
        FAIL(PEFT_E_UNSUPPORTED, "%s: key \"head_dim\" is %lld, only hidden_size / num_attention_heads is supported", what,
             (long long)c->head_dim);
    }
    TRY(peft__json_bool(config, what, "use_qkv_bias", false, &c->attention_bias));
    TRY(peft__config_only(config, what, "qk_layernorm", false, false));
    TRY(peft__config_only(config, what, "use_parallel_residual", false, false));
    c->head_scale = 1; /* llama.cpp opens no file without output.weight: a tied head is written beside the table */
out:
    return st;
}

/* Tensors say it, as they do to llama.cpp: there are files whose use_parallel_residual is true and whose layers are in series. */
static peft_status stablelm_read_gguf(const peft__gguf *g, peft__arena *a, peft__config *c) {
    peft_status st = PEFT_OK;
    TRY(peft__decoder_read_gguf(g, "stablelm", &stablelm_keys, a, c));
    if (peft__gguf_find(g, "blk.0.attn_q_norm.weight") != NULL) {
        FAIL(PEFT_E_UNSUPPORTED, "stablelm models with norms of q and k (blk.0.attn_q_norm.weight) are not supported");
    }
    if (peft__gguf_find(g, "blk.0.ffn_norm.weight") == NULL) {
        FAIL(PEFT_E_UNSUPPORTED, "stablelm models with parallel residuals (no blk.0.ffn_norm.weight) are not supported");
    }
    TRY(peft__gguf_bool(g, PEFT__GGUF_TIED, c->tie_embeddings, &c->tie_embeddings));
    c->head_scale = 1;
    c->attention_bias = peft__gguf_find(g, "blk.0.attn_q.bias") != NULL;
    c->act = PEFT__ACT_SILU;
out:
    return st;
}

static void stablelm_write_config(const peft__config *c, peft__json_out *j) {
    peft__decoder_write(c, &stablelm_keys, j);
    peft__json_key(j, "use_qkv_bias");
    peft__json_put_bool(j, c->attention_bias);
}

static peft_status stablelm_write_gguf(const struct peft_model *m, peft__gguf_out *w) {
    peft__gguf_put_bool(w, "stablelm.use_parallel_residual", false);
    return peft__decoder_write_gguf(&m->config, "stablelm", &stablelm_keys, w);
}

/* ---- tensors ------------------------------------------------------------------------------------------------------------- */

static bool stablelm_tensor(const peft__config *c, peft__arena *a, size_t index, struct peft__tensor_spec *out) {
    int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim, h = c->hidden_size, f = c->intermediate_size;
    const bool bias = c->attention_bias;
    const peft__module before[] = {{"model.embed_tokens", "token_embd", .rows = c->vocab_size, .cols = h}};
    const peft__module layer[] = {
        {"input_layernorm", "attn_norm", .rows = 1, .cols = h, .bias = true},
        {"self_attn.q_proj", "attn_q", .rows = q, .cols = h, .bias = bias},
        {"self_attn.k_proj", "attn_k", .rows = kv, .cols = h, .bias = bias},
        {"self_attn.v_proj", "attn_v", .rows = kv, .cols = h, .bias = bias},
        {"self_attn.o_proj", "attn_output", .rows = h, .cols = q},
        {"post_attention_layernorm", "ffn_norm", .rows = 1, .cols = h, .bias = true},
        {"mlp.gate_proj", "ffn_gate", .rows = f, .cols = h},
        {"mlp.up_proj", "ffn_up", .rows = f, .cols = h},
        {"mlp.down_proj", "ffn_down", .rows = h, .cols = f},
    };
    const peft__module after[] = {
        {"model.norm", "output_norm", .rows = 1, .cols = h, .bias = true},
        {"lm_head", "output", .rows = c->vocab_size, .cols = h, .optional = c->tie_embeddings},
    };
    const peft__modules all = {before, layer, after, PEFT__COUNT(before), PEFT__COUNT(layer), PEFT__COUNT(after), "model.layers", "blk"};
    return peft__modules_tensor(&all, c->layers, a, index, out);
}

/* ---- sites and recording ------------------------------------------------------------------------------------------------- */

typedef struct stablelm_layer {
    const peft__site *norm, *q, *k, *v, *kv, *o, *attn, *ffn_norm, *gate, *up, *down, *ffn;
} stablelm_layer;

typedef struct stablelm_model {
    const peft__site *embed, *input, *norm, *head;
    stablelm_layer *layers; /* [config.layers] */
    peft__rope rope;
} stablelm_model;

static void stablelm_layer_sites(peft__sites *b, const peft__config *c, stablelm_layer *l) {
    l->norm = peft__sites_norm(b, PEFT__ROLE_ATTN, "input_layernorm", false, c->norm_eps);
    l->q = peft__sites_linear(b, PEFT__ROLE_Q, "self_attn.q_proj");
    l->k = peft__sites_linear(b, PEFT__ROLE_K, "self_attn.k_proj");
    l->v = peft__sites_linear(b, PEFT__ROLE_V, "self_attn.v_proj");
    l->kv = peft__sites_plain(b, PEFT__SITE_KV, PEFT__ROLE_ATTN, "self_attn", c->kv_heads * c->head_dim);
    l->o = peft__sites_linear(b, PEFT__ROLE_O, "self_attn.o_proj");
    l->attn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_ATTN, "self_attn", c->hidden_size);
    l->ffn_norm = peft__sites_norm(b, PEFT__ROLE_FFN, "post_attention_layernorm", false, c->norm_eps);
    l->gate = peft__sites_linear(b, PEFT__ROLE_GATE, "mlp.gate_proj");
    l->up = peft__sites_linear(b, PEFT__ROLE_UP, "mlp.up_proj");
    l->down = peft__sites_linear(b, PEFT__ROLE_DOWN, "mlp.down_proj");
    l->ffn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_FFN, "mlp", c->hidden_size);
}

static peft_status stablelm_sites(struct peft_model *m) {
    const peft__config *c = &m->config;
    peft__sites b;
    stablelm_model *d = peft__arena_alloc(&m->arena, sizeof *d);
    if (d == NULL) { return PEFT_E_NOMEM; }
    d->layers = peft__arena_alloc(&m->arena, (size_t)c->layers * sizeof *d->layers);
    if (d->layers == NULL || !peft__rope_make(c, peft__config_rotary(c), &m->arena, &d->rope)) { return PEFT_E_NOMEM; }
    m->arch_data = d;
    peft__sites_begin(&b, m, 4 + (size_t)c->layers * 12);
    d->embed = peft__sites_embed(&b, PEFT__ROLE_TOKENS, "model.embed_tokens");
    d->input = peft__sites_plain(&b, PEFT__SITE_INPUT, PEFT__ROLE_NONE, "", c->hidden_size);
    for (int64_t i = 0; i < c->layers; i++) {
        peft__sites_in(&b, (int32_t)i, peft__arena_printf(&m->arena, "model.layers.%lld", (long long)i));
        stablelm_layer_sites(&b, c, &d->layers[i]);
    }
    peft__sites_in(&b, -1, "");
    d->norm = peft__sites_norm(&b, PEFT__ROLE_FINAL, "model.norm", false, c->norm_eps);
    d->head = peft__sites_head(&b, "lm_head", d->embed);
    return b.st;
}

static peft__val stablelm_attention(const peft__config *c, const stablelm_model *d, const stablelm_layer *l, peft__tape *t,
                                    peft__val h, int32_t layer) {
    peft__val q = peft__site_linear(t, l->q, h);
    peft__val k = peft__site_linear(t, l->k, h);
    peft__val v = peft__site_linear(t, l->v, h);
    q = peft__op_rope(t, q, c->head_dim, &d->rope);
    k = peft__op_rope(t, k, c->head_dim, &d->rope);
    return peft__site_linear(t, l->o, peft__decoder_attention(c, l->kv, t, h, q, k, v, layer));
}

static void stablelm_record(const struct peft_model *m, peft__tape *t) {
    const peft__config *c = &m->config;
    const stablelm_model *d = m->arch_data;
    t->segments = (int32_t)c->layers + 2;
    t->segment = 0;
    peft__val x = peft__site_input(t, d->input, peft__site_embed(t, d->embed, 1));
    for (int32_t i = 0; i < (int32_t)c->layers; i++) {
        const stablelm_layer *l = &d->layers[i];
        t->segment = i + 1;
        peft__val h = stablelm_attention(c, d, l, t, peft__site_norm(t, l->norm, x), i);
        x = peft__op_add(t, x, peft__site_stream(t, l->attn, h, x));
        h = peft__decoder_glu(c, l->gate, l->up, t, peft__site_norm(t, l->ffn_norm, x));
        h = peft__site_linear(t, l->down, h);
        x = peft__op_add(t, x, peft__site_stream(t, l->ffn, h, x));
    }
    t->segment = (int32_t)c->layers + 1;
    peft__model_head(m, t, d->head, peft__site_norm(t, d->norm, x), 0, 1);
}

const peft__arch peft__arch_stablelm = {
    .name = "stablelm",
    .model_types = stablelm_types,
    .architectures = stablelm_classes,
    .gguf_archs = stablelm_types,
    .heads = peft__heads_decoder,
    .n_heads = PEFT__HEADS_DECODER,
    .prefix = "",
    .gguf_act = PEFT__ACT_SILU,
    .read_config = stablelm_read_config,
    .read_gguf = stablelm_read_gguf,
    .write_config = stablelm_write_config,
    .write_gguf = stablelm_write_gguf,
    .tensor = stablelm_tensor,
    .sites = stablelm_sites,
    .record = stablelm_record,
};
