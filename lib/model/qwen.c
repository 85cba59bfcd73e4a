/* qwen.c - Qwen2 and Qwen2.5 (Qwen Team 2024), Qwen3 (Qwen Team 2025), as transformers' Qwen2ForCausalLM and Qwen3ForCausalLM
 * compute them: Llama's layer (llama.c) with
 *
 *   Qwen2   biases on q, k and v
 *   Qwen3   no biases unless attention_bias; heads of a size of their own; q = rms_norm(h Wq'), k = rms_norm(h Wk'), each head by
 *           itself, before the rotary positions
 *
 * and, where use_sliding_window says so, a window in the layers from max_window_layers on (or those of layer_types).
 *
 * Left out: mixtures of experts, the vision towers of the VL models. */
#include "model/parts.h"

static const char *const qwen_types[] = {"qwen2", "qwen3", NULL};
static const char *const qwen_classes[] = {"Qwen2ForCausalLM", "Qwen3ForCausalLM"};

static const peft__decoder_keys qwen_keys = {
    .eps_key = "rms_norm_eps", .gguf_eps = "attention.layer_norm_rms_epsilon", .act_key = "hidden_act", .act = "silu",
    .eps = 1e-6, .theta = 10000, .positions = 32768, .bos = -1, .eos = -1,
};

/* ---- config -------------------------------------------------------------------------------------------------------------- */

static peft_status qwen_read_windows(const peft__json *config, const char *what, peft__config *c) {
    peft_status st = PEFT_OK;
    bool windows = false, listed = false;
    int64_t from = 0;
    TRY(peft__json_bool(config, what, "use_sliding_window", false, &windows));
    if (windows) { TRY(peft__json_int(config, what, "sliding_window", 4096, 1, PEFT__MODEL_MAX_POSITIONS, &c->window)); }
    TRY(peft__json_int(config, what, "max_window_layers", 28, 0, INT32_MAX, &from));
    TRY(peft__config_layer_types(config, what, c, &listed));
    for (int64_t i = 0; windows && !listed && i < c->layers; i++) { peft__config_set_windowed(c, i, i >= from); }
out:
    return st;
}

static peft_status qwen_read_config(const peft__json *config, const char *what, peft__arena *a, peft__config *c) {
    peft_status st = PEFT_OK;
    c->qk_norm = peft__json_is(peft__json_get(config, "model_type"), "qwen3");
    peft__decoder_keys keys = qwen_keys;
    if (c->qk_norm) { keys.head_dim = 128; }
    TRY(peft__decoder_read(config, what, &keys, a, c));
    c->attention_bias = !c->qk_norm;
    if (c->qk_norm) { TRY(peft__json_bool(config, what, "attention_bias", false, &c->attention_bias)); }
    TRY(qwen_read_windows(config, what, c));
out:
    return st;
}

static const char *qwen_gguf_arch(const peft__config *c) { return c->qk_norm ? "qwen3" : "qwen2"; }

static peft_status qwen_read_gguf(const peft__gguf *g, peft__arena *a, peft__config *c) {
    peft_status st = PEFT_OK;
    c->qk_norm = peft__gguf_find(g, "blk.0.attn_q_norm.weight") != NULL;
    TRY(peft__decoder_read_gguf(g, qwen_gguf_arch(c), &qwen_keys, a, c));
    c->attention_bias = peft__gguf_find(g, "blk.0.attn_q.bias") != NULL;
    c->act = PEFT__ACT_SILU;
    c->window = 0; /* llama.cpp has none for these */
out:
    return st;
}

static size_t qwen_gguf_type(const peft__config *c) { return c->qk_norm ? 1 : 0; }

static void qwen_write_config(const peft__config *c, peft__json_out *j) {
    peft__decoder_write(c, &qwen_keys, j);
    if (c->qk_norm) {
        peft__json_key(j, "attention_bias");
        peft__json_put_bool(j, c->attention_bias);
    }
    peft__json_key(j, "use_sliding_window");
    peft__json_put_bool(j, c->window > 0);
    if (c->window == 0) { return; }
    peft__json_key(j, "sliding_window");
    peft__json_put_int(j, c->window);
    peft__config_write_layer_types(c, j);
}

static peft_status qwen_write_gguf(const struct peft_model *m, peft__gguf_out *w) {
    const peft__config *c = &m->config;
    if (c->window > 0) { return peft__fail(PEFT_E_UNSUPPORTED, "GGUF has no windows for %s models", m->model_type); }
    if (c->qk_norm && c->attention_bias) { return peft__fail(PEFT_E_UNSUPPORTED, "GGUF has no biases for qwen3 models"); }
    return peft__decoder_write_gguf(c, qwen_gguf_arch(c), &qwen_keys, w);
}

/* ---- tensors ------------------------------------------------------------------------------------------------------------- */

static bool qwen_tensor(const peft__config *c, peft__arena *a, size_t index, struct peft__tensor_spec *out) {
    int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim, h = c->hidden_size, f = c->intermediate_size;
    const bool bias = c->attention_bias, o_bias = bias && c->qk_norm;
    const int64_t norms = c->qk_norm ? 1 : 0;
    const peft__module before[] = {{"model.embed_tokens", "token_embd", .rows = c->vocab_size, .cols = h}};
    const peft__module layer[] = {
        {"input_layernorm", "attn_norm", .rows = 1, .cols = h},
        {"self_attn.q_proj", "attn_q", .rows = q, .cols = h, .bias = bias},
        {"self_attn.k_proj", "attn_k", .rows = kv, .cols = h, .bias = bias},
        {"self_attn.v_proj", "attn_v", .rows = kv, .cols = h, .bias = bias},
        {"self_attn.q_norm", "attn_q_norm", .rows = norms, .cols = c->head_dim},
        {"self_attn.k_norm", "attn_k_norm", .rows = norms, .cols = c->head_dim},
        {"self_attn.o_proj", "attn_output", .rows = h, .cols = q, .bias = o_bias},
        {"post_attention_layernorm", "ffn_norm", .rows = 1, .cols = h},
        {"mlp.gate_proj", "ffn_gate", .rows = f, .cols = h},
        {"mlp.up_proj", "ffn_up", .rows = f, .cols = h},
        {"mlp.down_proj", "ffn_down", .rows = h, .cols = f},
    };
    const peft__module after[] = {
        {"model.norm", "output_norm", .rows = 1, .cols = h},
        {"lm_head", "output", .rows = c->vocab_size, .cols = h, .optional = c->tie_embeddings},
    };
    const peft__modules all = {before, layer, after, PEFT__COUNT(before), PEFT__COUNT(layer), PEFT__COUNT(after), "model.layers", "blk"};
    return peft__modules_tensor(&all, c->layers, a, index, out);
}

/* ---- sites and recording ------------------------------------------------------------------------------------------------- */

typedef struct qwen_layer {
    const peft__site *norm, *q, *k, *v, *q_norm, *k_norm, *kv, *o, *attn, *ffn_norm, *gate, *up, *down, *ffn;
} qwen_layer;

typedef struct qwen_model {
    const peft__site *embed, *input, *norm, *head;
    qwen_layer *layers; /* [config.layers] */
    peft__rope rope;
} qwen_model;

static void qwen_layer_sites(peft__sites *b, const peft__config *c, qwen_layer *l) {
    l->norm = peft__sites_norm(b, PEFT__ROLE_ATTN, "input_layernorm", true, c->norm_eps);
    l->q = peft__sites_linear(b, PEFT__ROLE_Q, "self_attn.q_proj");
    l->k = peft__sites_linear(b, PEFT__ROLE_K, "self_attn.k_proj");
    l->v = peft__sites_linear(b, PEFT__ROLE_V, "self_attn.v_proj");
    if (c->qk_norm) {
        l->q_norm = peft__sites_rms_norm(b, PEFT__ROLE_NONE, "self_attn.q_norm", c->norm_eps, c->head_dim, 0);
        l->k_norm = peft__sites_rms_norm(b, PEFT__ROLE_NONE, "self_attn.k_norm", c->norm_eps, c->head_dim, 0);
    }
    l->kv = peft__sites_plain(b, PEFT__SITE_KV, PEFT__ROLE_ATTN, "self_attn", c->kv_heads * c->head_dim);
    l->o = peft__sites_linear(b, PEFT__ROLE_O, "self_attn.o_proj");
    l->attn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_ATTN, "self_attn", c->hidden_size);
    l->ffn_norm = peft__sites_norm(b, PEFT__ROLE_FFN, "post_attention_layernorm", true, c->norm_eps);
    l->gate = peft__sites_linear(b, PEFT__ROLE_GATE, "mlp.gate_proj");
    l->up = peft__sites_linear(b, PEFT__ROLE_UP, "mlp.up_proj");
    l->down = peft__sites_linear(b, PEFT__ROLE_DOWN, "mlp.down_proj");
    l->ffn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_FFN, "mlp", c->hidden_size);
}

static peft_status qwen_sites(struct peft_model *m) {
    const peft__config *c = &m->config;
    peft__sites b;
    qwen_model *d = peft__arena_alloc(&m->arena, sizeof *d);
    if (d == NULL) { return PEFT_E_NOMEM; }
    d->layers = peft__arena_alloc(&m->arena, (size_t)c->layers * sizeof *d->layers);
    if (d->layers == NULL || !peft__rope_make(c, c->head_dim, &m->arena, &d->rope)) { return PEFT_E_NOMEM; }
    m->arch_data = d;
    peft__sites_begin(&b, m, 4 + (size_t)c->layers * 14);
    d->embed = peft__sites_embed(&b, PEFT__ROLE_TOKENS, "model.embed_tokens");
    d->input = peft__sites_plain(&b, PEFT__SITE_INPUT, PEFT__ROLE_NONE, "", c->hidden_size);
    for (int64_t i = 0; i < c->layers; i++) {
        peft__sites_in(&b, (int32_t)i, peft__arena_printf(&m->arena, "model.layers.%lld", (long long)i));
        qwen_layer_sites(&b, c, &d->layers[i]);
    }
    peft__sites_in(&b, -1, "");
    d->norm = peft__sites_norm(&b, PEFT__ROLE_FINAL, "model.norm", true, c->norm_eps);
    d->head = peft__sites_head(&b, "lm_head", d->embed);
    return b.st;
}

static peft__val qwen_attention(const peft__config *c, const qwen_model *d, const qwen_layer *l, peft__tape *t, peft__val h,
                                int32_t layer) {
    peft__val q = peft__site_linear(t, l->q, h);
    peft__val k = peft__site_linear(t, l->k, h);
    peft__val v = peft__site_linear(t, l->v, h);
    if (c->qk_norm) {
        q = peft__site_norm(t, l->q_norm, q);
        k = peft__site_norm(t, l->k_norm, k);
    }
    q = peft__op_rope(t, q, c->head_dim, &d->rope);
    k = peft__op_rope(t, k, c->head_dim, &d->rope);
    return peft__site_linear(t, l->o, peft__decoder_attention(c, l->kv, t, h, q, k, v, layer));
}

static void qwen_record(const struct peft_model *m, peft__tape *t) {
    const peft__config *c = &m->config;
    const qwen_model *d = m->arch_data;
    t->segments = (int32_t)c->layers + 2;
    t->segment = 0;
    peft__val x = peft__site_input(t, d->input, peft__site_embed(t, d->embed, 1));
    for (int32_t i = 0; i < (int32_t)c->layers; i++) {
        const qwen_layer *l = &d->layers[i];
        t->segment = i + 1;
        peft__val h = qwen_attention(c, d, l, t, peft__site_norm(t, l->norm, x), i);
        x = peft__op_add(t, x, peft__site_stream(t, l->attn, h, x));
        h = peft__site_norm(t, l->ffn_norm, x);
        h = peft__site_linear(t, l->down, peft__decoder_glu(c, l->gate, l->up, t, h));
        x = peft__op_add(t, x, peft__site_stream(t, l->ffn, h, x));
    }
    t->segment = (int32_t)c->layers + 1;
    peft__model_head(m, t, d->head, peft__site_norm(t, d->norm, x), 0, 1);
}

const peft__arch peft__arch_qwen = {
    .name = "qwen",
    .model_types = qwen_types,
    .architectures = qwen_classes,
    .gguf_archs = qwen_types,
    .heads = peft__heads_decoder,
    .n_heads = PEFT__HEADS_DECODER,
    .prefix = "",
    .gguf_act = PEFT__ACT_SILU,
    .read_config = qwen_read_config,
    .read_gguf = qwen_read_gguf,
    .gguf_type = qwen_gguf_type,
    .write_config = qwen_write_config,
    .gguf_arch = qwen_gguf_arch,
    .write_gguf = qwen_write_gguf,
    .tensor = qwen_tensor,
    .sites = qwen_sites,
    .record = qwen_record,
};
