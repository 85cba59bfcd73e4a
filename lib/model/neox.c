/* neox.c - GPT-NeoX (Black et al. 2022) and Pythia (Biderman et al. 2023), as transformers' GPTNeoXForCausalLM computes them:
 *
 *   a = attention(layer_norm(x));  m = gelu(layer_norm(y) W1' + b1) W2' + b2;  x = x + a + m
 *
 * with y = x, attention and FFN side by side (use_parallel_residual), or y = x + a, one after the other. q, k and v of each head
 * are rows of one matrix, [heads][3][d]; GGUF has them as [3][heads][d]. A part of each head turns (rotary_pct). The head is a
 * matrix of its own.
 *
 * Left out: dropout (a base is not trained from scratch here). */
#include "model/parts.h"

static const char *const neox_types[] = {"gpt_neox", NULL};
static const char *const neox_classes[] = {"GPTNeoXForCausalLM"};
static const char *const neox_ggufs[] = {"gptneox", NULL};

static const peft__decoder_keys neox_keys = {
    .eps_key = "layer_norm_eps", .gguf_eps = "attention.layer_norm_epsilon", .act_key = "hidden_act", .act = "gelu",
    .rotary_key = "rotary_pct", .rotary = 0.25, .eps = 1e-5, .theta = 10000, .positions = 2048, .bos = 0, .eos = 2,
};

/* ---- config -------------------------------------------------------------------------------------------------------------- */

static peft_status neox_read_config(const peft__json *config, const char *what, peft__arena *a, peft__config *c) {
    peft_status st = PEFT_OK;
    peft__decoder_keys keys = neox_keys;
    TRY(peft__json_float(config, what, "rotary_emb_base", keys.theta, &keys.theta));
    TRY(peft__decoder_read(config, what, &keys, a, c));
    TRY(peft__json_bool(config, what, "use_parallel_residual", true, &c->parallel));
    TRY(peft__json_bool(config, what, "attention_bias", true, &c->attention_bias));
    if (c->kv_heads != c->heads) {
        FAIL(PEFT_E_UNSUPPORTED, "%s: key \"num_key_value_heads\" is %lld, and this architecture has one for each of its %lld heads",
             what, (long long)c->kv_heads, (long long)c->heads);
    }
out:
    return st;
}

static peft_status neox_read_gguf(const peft__gguf *g, peft__arena *a, peft__config *c) {
    peft_status st = PEFT_OK;
    TRY(peft__decoder_read_gguf(g, "gptneox", &neox_keys, a, c));
    TRY(peft__gguf_bool(g, "gptneox.use_parallel_residual", true, &c->parallel));
    c->attention_bias = true;
    c->act = PEFT__ACT_GELU;
out:
    return st;
}

static void neox_write_config(const peft__config *c, peft__json_out *j) {
    peft__decoder_write(c, &neox_keys, j);
    peft__json_key(j, "rotary_emb_base");
    peft__json_put_float(j, c->rope_theta);
    peft__json_key(j, "use_parallel_residual");
    peft__json_put_bool(j, c->parallel);
    peft__json_key(j, "attention_bias");
    peft__json_put_bool(j, c->attention_bias);
}

static peft_status neox_write_gguf(const struct peft_model *m, peft__gguf_out *w) {
    if (!m->config.attention_bias) { return peft__fail(PEFT_E_UNSUPPORTED, "GGUF has no gptneox models without biases"); }
    peft__gguf_put_bool(w, "gptneox.use_parallel_residual", m->config.parallel);
    return peft__decoder_write_gguf(&m->config, "gptneox", &neox_keys, w);
}

/* ---- tensors ------------------------------------------------------------------------------------------------------------- */

static bool neox_tensor(const peft__config *c, peft__arena *a, size_t index, struct peft__tensor_spec *out) {
    int64_t h = c->hidden_size, q = c->heads * c->head_dim, f = c->intermediate_size;
    const bool bias = c->attention_bias;
    const peft__module before[] = {{"gpt_neox.embed_in", "token_embd", .rows = c->vocab_size, .cols = h}};
    const peft__module layer[] = {
        {"input_layernorm", "attn_norm", .rows = 1, .cols = h, .bias = true},
        {"attention.query_key_value", "attn_qkv", .rows = 3 * q, .cols = h, .bias = bias, .fused = true},
        {"attention.dense", "attn_output", .rows = h, .cols = q, .bias = bias},
        {"post_attention_layernorm", "ffn_norm", .rows = 1, .cols = h, .bias = true},
        {"mlp.dense_h_to_4h", "ffn_up", .rows = f, .cols = h, .bias = true},
        {"mlp.dense_4h_to_h", "ffn_down", .rows = h, .cols = f, .bias = true},
    };
    const peft__module after[] = {
        {"gpt_neox.final_layer_norm", "output_norm", .rows = 1, .cols = h, .bias = true},
        {"embed_out", "output", .rows = c->vocab_size, .cols = h, .optional = c->tie_embeddings},
    };
    const peft__modules all = {before, layer, after, PEFT__COUNT(before), PEFT__COUNT(layer), PEFT__COUNT(after), "gpt_neox.layers",
                               "blk"};
    return peft__modules_tensor(&all, c->layers, a, index, out);
}

/* ---- sites and recording ------------------------------------------------------------------------------------------------- */

typedef struct neox_layer {
    const peft__site *norm, *qkv, *kv, *o, *attn, *ffn_norm, *up, *down, *ffn;
} neox_layer;

typedef struct neox_model {
    const peft__site *embed, *input, *norm, *head;
    neox_layer *layers; /* [config.layers] */
    peft__rope rope;
} neox_model;

static void neox_layer_sites(peft__sites *b, const peft__config *c, neox_layer *l) {
    l->norm = peft__sites_norm(b, PEFT__ROLE_ATTN, "input_layernorm", false, c->norm_eps);
    l->qkv = peft__sites_linear(b, PEFT__ROLE_QKV, "attention.query_key_value");
    if (l->qkv != NULL) { b->m->sites[l->qkv->id].heads = c->heads; }
    l->kv = peft__sites_plain(b, PEFT__SITE_KV, PEFT__ROLE_ATTN, "attention", c->kv_heads * c->head_dim);
    l->o = peft__sites_linear(b, PEFT__ROLE_O, "attention.dense");
    l->attn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_ATTN, "attention", c->hidden_size);
    l->ffn_norm = peft__sites_norm(b, PEFT__ROLE_FFN, "post_attention_layernorm", false, c->norm_eps);
    l->up = peft__sites_linear(b, PEFT__ROLE_UP, "mlp.dense_h_to_4h");
    l->down = peft__sites_linear(b, PEFT__ROLE_DOWN, "mlp.dense_4h_to_h");
    l->ffn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_FFN, "mlp", c->hidden_size);
}

static peft_status neox_sites(struct peft_model *m) {
    const peft__config *c = &m->config;
    peft__sites b;
    neox_model *d = peft__arena_alloc(&m->arena, sizeof *d);
    if (d == NULL) { return PEFT_E_NOMEM; }
    d->layers = peft__arena_alloc(&m->arena, (size_t)c->layers * sizeof *d->layers);
    if (d->layers == NULL || !peft__rope_make(c, peft__config_rotary(c), &m->arena, &d->rope)) { return PEFT_E_NOMEM; }
    m->arch_data = d;
    peft__sites_begin(&b, m, 4 + (size_t)c->layers * 9);
    d->embed = peft__sites_embed(&b, PEFT__ROLE_TOKENS, "gpt_neox.embed_in");
    d->input = peft__sites_plain(&b, PEFT__SITE_INPUT, PEFT__ROLE_NONE, "", c->hidden_size);
    for (int64_t i = 0; i < c->layers; i++) {
        peft__sites_in(&b, (int32_t)i, peft__arena_printf(&m->arena, "gpt_neox.layers.%lld", (long long)i));
        neox_layer_sites(&b, c, &d->layers[i]);
    }
    peft__sites_in(&b, -1, "");
    d->norm = peft__sites_norm(&b, PEFT__ROLE_FINAL, "gpt_neox.final_layer_norm", false, c->norm_eps);
    d->head = peft__sites_head(&b, "embed_out", d->embed);
    return b.st;
}

static peft__val neox_attention(const peft__config *c, const neox_model *d, const neox_layer *l, peft__tape *t, peft__val h,
                                int32_t layer) {
    int64_t w = c->heads * c->head_dim;
    peft__val qkv = peft__op_regroup(t, peft__site_linear(t, l->qkv, h), c->heads, 3);
    peft__val q = peft__op_rope(t, peft__tape_view(t, qkv, 0, w), c->head_dim, &d->rope);
    peft__val k = peft__op_rope(t, peft__tape_view(t, qkv, w, w), c->head_dim, &d->rope);
    peft__val v = peft__tape_view(t, qkv, 2 * w, w);
    return peft__site_linear(t, l->o, peft__decoder_attention(c, l->kv, t, h, q, k, v, layer));
}

static peft__val neox_mlp(const peft__config *c, const neox_layer *l, peft__tape *t, peft__val x) {
    peft__val h = peft__site_linear(t, l->up, peft__site_norm(t, l->ffn_norm, x));
    return peft__site_linear(t, l->down, peft__op_act(t, c->act, h));
}

static void neox_record(const struct peft_model *m, peft__tape *t) {
    const peft__config *c = &m->config;
    const neox_model *d = m->arch_data;
    t->segments = (int32_t)c->layers + 2;
    t->segment = 0;
    peft__val x = peft__site_input(t, d->input, peft__site_embed(t, d->embed, 1));
    for (int32_t i = 0; i < (int32_t)c->layers; i++) {
        const neox_layer *l = &d->layers[i];
        t->segment = i + 1;
        peft__val a = peft__site_stream(t, l->attn, neox_attention(c, d, l, t, peft__site_norm(t, l->norm, x), i), x);
        peft__val y = c->parallel ? x : peft__op_add(t, x, a);
        peft__val f = peft__site_stream(t, l->ffn, neox_mlp(c, l, t, y), y);
        x = c->parallel ? peft__op_add(t, x, peft__op_add(t, a, f)) : peft__op_add(t, y, f);
    }
    t->segment = (int32_t)c->layers + 1;
    peft__model_head(m, t, d->head, peft__site_norm(t, d->norm, x), 0, 1);
}

const peft__arch peft__arch_neox = {
    .name = "gpt_neox",
    .model_types = neox_types,
    .architectures = neox_classes,
    .gguf_archs = neox_ggufs,
    .heads = peft__heads_decoder,
    .n_heads = PEFT__HEADS_DECODER,
    .prefix = "",
    .gguf_act = PEFT__ACT_GELU,
    .read_config = neox_read_config,
    .read_gguf = neox_read_gguf,
    .write_config = neox_write_config,
    .write_gguf = neox_write_gguf,
    .tensor = neox_tensor,
    .sites = neox_sites,
    .record = neox_record,
};
