/* gemma.c - Gemma 2 (Gemma Team 2024) and the text models of Gemma 3 (Gemma Team 2025), as transformers' Gemma2ForCausalLM and
 * Gemma3ForCausalLM compute them:
 *
 *   x = sqrt(hidden) E[ids];  each layer:  x = x + norm(attention(norm(x)));  x = x + norm(mlp(norm(x)));  logits = norm(x) E'
 *
 * with norm(x) = x / sqrt(mean(x^2) + eps) * (1 + w) and mlp(h) = (gelu(h Wg') * h Wu') Wd'. Layers with a window of their own
 * alternate with layers that see everything: every second (Gemma 2), five to one (Gemma 3), or as layer_types says. Scores are
 * scaled by query_pre_attn_scalar.
 *
 *   Gemma 2   scores and logits are capped: cap tanh(s / cap); virtual tokens are multiplied by sqrt(hidden) as tokens are
 *   Gemma 3   q and k are normed, each head by itself; layers with a window turn by rope_local_base_freq, unscaled
 *
 * GGUF files have 1 + w in place of w.
 *
 * Left out: Gemma 1, whose norms stand elsewhere, the vision towers, attention in both directions. */
#include <math.h>

#include "model/parts.h"

static const char *const gemma_types[] = {"gemma2", "gemma3_text", NULL};
static const char *const gemma_classes[] = {"Gemma2ForCausalLM", "Gemma3ForCausalLM"};
static const char *const gemma_ggufs[] = {"gemma2", "gemma3", NULL};

static const peft__decoder_keys gemma_keys[2] = {
    {.eps_key = "rms_norm_eps", .gguf_eps = "attention.layer_norm_rms_epsilon", .act_key = "hidden_activation",
     .act = "gelu_pytorch_tanh", .eps = 1e-6, .theta = 10000, .positions = 8192, .head_dim = 256, .tied = true, .bos = 2, .eos = 1},
    {.eps_key = "rms_norm_eps", .gguf_eps = "attention.layer_norm_rms_epsilon", .act_key = "hidden_activation",
     .act = "gelu_pytorch_tanh", .eps = 1e-6, .theta = 1e6, .positions = 131072, .head_dim = 256, .tied = true, .bos = 2, .eos = 1},
};

/* ---- config -------------------------------------------------------------------------------------------------------------- */

/* c->qk_norm is what Gemma 3 has and Gemma 2 has not. */
static void gemma_windows(peft__config *c, int64_t every) {
    for (int64_t i = 0; i < c->layers; i++) { peft__config_set_windowed(c, i, (i + 1) % every != 0); }
}

static peft_status gemma_cap(const peft__json *config, const char *what, const char *key, double dflt, double *out) {
    const peft__json *node = peft__json_get(config, key);
    *out = 0;
    if (node != NULL && node->kind == PEFT__JSON_NULL) { return PEFT_OK; }
    return peft__json_float(config, what, key, dflt, out);
}

/* Positions of layers with a window: "rope_local_base_freq", in newer configs a member of "rope_parameters". */
static peft_status gemma_read_local(const peft__json *config, const char *what, peft__config *c) {
    peft_status st = PEFT_OK;
    const char *type = NULL;
    const peft__json *local = peft__json_find(peft__json_find(config, "rope_parameters"), "sliding_attention");
    TRY(peft__json_float(config, what, "rope_local_base_freq", 10000, &c->rope_local_theta));
    if (local == NULL) { goto out; }
    TRY(peft__json_float(local, what, "rope_theta", c->rope_local_theta, &c->rope_local_theta));
    TRY(peft__json_str(local, what, "rope_type", "default", &type));
    if (strcmp(type, "default") != 0) {
        FAIL(PEFT_E_UNSUPPORTED, "%s: layers with a window have the rope scaling \"%s\", only default is supported", what, type);
    }
out:
    return st;
}

static peft_status gemma_read_config(const peft__json *config, const char *what, peft__arena *a, peft__config *c) {
    peft_status st = PEFT_OK;
    bool listed = false;
    double scalar = 256;
    int64_t every = 2;
    c->qk_norm = peft__json_is(peft__json_get(config, "model_type"), "gemma3_text");
    TRY(peft__decoder_read(config, what, &gemma_keys[c->qk_norm], a, c));
    TRY(peft__json_int(config, what, "sliding_window", 4096, 1, PEFT__MODEL_MAX_POSITIONS, &c->window));
    TRY(peft__json_float(config, what, "query_pre_attn_scalar", 256, &scalar));
    TRY(gemma_cap(config, what, "attn_logit_softcapping", c->qk_norm ? 0 : 50, &c->attn_softcap));
    TRY(gemma_cap(config, what, "final_logit_softcapping", c->qk_norm ? 0 : 30, &c->final_softcap));
    TRY(peft__json_bool(config, what, "attention_bias", false, &c->attention_bias));
    TRY(peft__config_only(config, what, "use_bidirectional_attention", false, false));
    if (c->qk_norm) {
        TRY(gemma_read_local(config, what, c));
        TRY(peft__json_int(config, what, "sliding_window_pattern", 6, 1, INT32_MAX, &every));
    }
    if (!(scalar > 0)) { FAIL(PEFT_E_FORMAT, "%s: key \"query_pre_attn_scalar\" is not above 0", what); }
    if (c->qk_norm && !(c->rope_local_theta > 0)) { FAIL(PEFT_E_FORMAT, "%s: key \"rope_local_base_freq\" is not above 0", what); }
    c->attn_scale = 1 / sqrt(scalar);
    c->embed_scale = sqrt((double)c->hidden_size);
    TRY(peft__config_layer_types(config, what, c, &listed));
    if (!listed) { gemma_windows(c, every); }
out:
    return st;
}

static const char *gemma_gguf_arch(const peft__config *c) { return gemma_ggufs[c->qk_norm]; }

/* The largest models divide by the width of a head as the hidden size would have it; llama.cpp knows them by their layers. */
static double gemma_gguf_scale(const peft__config *c) {
    bool largest = c->layers == (c->qk_norm ? 62 : 46);
    return 1 / sqrt(largest ? (double)c->hidden_size / (double)c->heads : (double)c->head_dim);
}

static peft_status gemma_read_gguf(const peft__gguf *g, peft__arena *a, peft__config *c) {
    peft_status st = PEFT_OK;
    char key[PEFT__GGUF_KEY];
    c->qk_norm = peft__gguf_find(g, "blk.0.attn_q_norm.weight") != NULL;
    const char *arch = gemma_gguf_arch(c);
    TRY(peft__decoder_read_gguf(g, arch, &gemma_keys[c->qk_norm], a, c));
    c->act = PEFT__ACT_GELU_TANH;
    c->embed_scale = sqrt((double)c->hidden_size);
    c->attn_scale = gemma_gguf_scale(c);
    if (c->window == 0) { c->window = 4096; }
    gemma_windows(c, c->qk_norm ? 6 : 2);
    if (c->qk_norm) {
        c->rope_local_theta = 10000;
    } else {
        TRY(peft__config_float_gguf(g, peft__gguf_key(key, arch, "attn_logit_softcapping"), 50, &c->attn_softcap));
        TRY(peft__config_float_gguf(g, peft__gguf_key(key, arch, "final_logit_softcapping"), 30, &c->final_softcap));
    }
out:
    return st;
}

static size_t gemma_gguf_type(const peft__config *c) { return c->qk_norm ? 1 : 0; }

static void gemma_put_cap(peft__json_out *j, const char *key, double cap) {
    peft__json_key(j, key);
    if (cap > 0) {
        peft__json_put_float(j, cap);
    } else {
        peft__json_put_null(j);
    }
}

static void gemma_write_config(const peft__config *c, peft__json_out *j) {
    peft__decoder_write(c, &gemma_keys[c->qk_norm], j);
    peft__json_key(j, "sliding_window");
    peft__json_put_int(j, c->window);
    peft__json_key(j, "query_pre_attn_scalar");
    peft__json_put_float(j, 1 / (c->attn_scale * c->attn_scale));
    gemma_put_cap(j, "attn_logit_softcapping", c->attn_softcap);
    gemma_put_cap(j, "final_logit_softcapping", c->final_softcap);
    peft__json_key(j, "attention_bias");
    peft__json_put_bool(j, c->attention_bias);
    if (c->qk_norm) {
        peft__json_key(j, "rope_local_base_freq");
        peft__json_put_float(j, c->rope_local_theta);
    }
    peft__config_write_layer_types(c, j);
}

/* What llama.cpp takes for granted must be so. */
static peft_status gemma_write_gguf(const struct peft_model *m, peft__gguf_out *w) {
    const peft__config *c = &m->config;
    const char *arch = gemma_gguf_arch(c);
    char key[PEFT__GGUF_KEY];
    int64_t every = c->qk_norm ? 6 : 2;
    bool known = !c->attention_bias && fabs(c->attn_scale / gemma_gguf_scale(c) - 1) < 1e-6;
    bool caps = c->qk_norm ? !(c->attn_softcap > 0 || c->final_softcap > 0) : c->attn_softcap > 0 && c->final_softcap > 0;
    bool local = !c->qk_norm || fabs(c->rope_local_theta - 10000) < 1e-3;
    for (int64_t i = 0; i < c->layers; i++) { known = known && peft__config_windowed(c, i) == ((i + 1) % every != 0); }
    if (!known || !caps || !local) {
        return peft__fail(PEFT_E_UNSUPPORTED, "GGUF cannot hold this %s model: its biases, query_pre_attn_scalar, caps, layer types or "
                          "local rotary base are not the published ones", m->model_type);
    }
    if (!c->qk_norm) {
        peft__gguf_put_f32(w, peft__gguf_key(key, arch, "attn_logit_softcapping"), (float)c->attn_softcap);
        peft__gguf_put_f32(w, peft__gguf_key(key, arch, "final_logit_softcapping"), (float)c->final_softcap);
    }
    return peft__decoder_write_gguf(c, arch, &gemma_keys[c->qk_norm], w);
}

/* ---- tensors ------------------------------------------------------------------------------------------------------------- */

static bool gemma_tensor(const peft__config *c, peft__arena *a, size_t index, struct peft__tensor_spec *out) {
    int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim, h = c->hidden_size, f = c->intermediate_size;
    const bool bias = c->attention_bias;
    const int64_t norms = c->qk_norm ? 1 : 0;
    const peft__module before[] = {{"model.embed_tokens", "token_embd", .rows = c->vocab_size, .cols = h}};
    const peft__module layer[] = {
        {"input_layernorm", "attn_norm", .rows = 1, .cols = h, .gguf_plus = 1},
        {"self_attn.q_proj", "attn_q", .rows = q, .cols = h, .bias = bias},
        {"self_attn.k_proj", "attn_k", .rows = kv, .cols = h, .bias = bias},
        {"self_attn.v_proj", "attn_v", .rows = kv, .cols = h, .bias = bias},
        {"self_attn.q_norm", "attn_q_norm", .rows = norms, .cols = c->head_dim, .gguf_plus = 1},
        {"self_attn.k_norm", "attn_k_norm", .rows = norms, .cols = c->head_dim, .gguf_plus = 1},
        {"self_attn.o_proj", "attn_output", .rows = h, .cols = q, .bias = bias},
        {"post_attention_layernorm", "post_attention_norm", .rows = 1, .cols = h, .gguf_plus = 1},
        {"pre_feedforward_layernorm", "ffn_norm", .rows = 1, .cols = h, .gguf_plus = 1},
        {"mlp.gate_proj", "ffn_gate", .rows = f, .cols = h},
        {"mlp.up_proj", "ffn_up", .rows = f, .cols = h},
        {"mlp.down_proj", "ffn_down", .rows = h, .cols = f},
        {"post_feedforward_layernorm", "post_ffw_norm", .rows = 1, .cols = h, .gguf_plus = 1},
    };
    const peft__module after[] = {
        {"model.norm", "output_norm", .rows = 1, .cols = h, .gguf_plus = 1},
        {"lm_head", "output", .rows = c->vocab_size, .cols = h, .optional = c->tie_embeddings},
    };
    const peft__modules all = {before, layer, after, PEFT__COUNT(before), PEFT__COUNT(layer), PEFT__COUNT(after), "model.layers", "blk"};
    return peft__modules_tensor(&all, c->layers, a, index, out);
}

/* ---- sites and recording ------------------------------------------------------------------------------------------------- */

typedef struct gemma_layer {
    const peft__site *norm, *q, *k, *v, *q_norm, *k_norm, *kv, *o, *after, *attn;
    const peft__site *ffn_norm, *gate, *up, *down, *ffn_after, *ffn;
} gemma_layer;

typedef struct gemma_model {
    const peft__site *embed, *input, *norm, *head;
    gemma_layer *layers;    /* [config.layers] */
    peft__rope rope, local; /* of layers that see everything, and of those with a window */
} gemma_model;

static void gemma_layer_sites(peft__sites *b, const peft__config *c, gemma_layer *l) {
    const double eps = c->norm_eps;
    l->norm = peft__sites_rms_norm(b, PEFT__ROLE_ATTN, "input_layernorm", eps, 0, 1);
    l->q = peft__sites_linear(b, PEFT__ROLE_Q, "self_attn.q_proj");
    l->k = peft__sites_linear(b, PEFT__ROLE_K, "self_attn.k_proj");
    l->v = peft__sites_linear(b, PEFT__ROLE_V, "self_attn.v_proj");
    if (c->qk_norm) {
        l->q_norm = peft__sites_rms_norm(b, PEFT__ROLE_NONE, "self_attn.q_norm", eps, c->head_dim, 1);
        l->k_norm = peft__sites_rms_norm(b, PEFT__ROLE_NONE, "self_attn.k_norm", eps, c->head_dim, 1);
    }
    l->kv = peft__sites_plain(b, PEFT__SITE_KV, PEFT__ROLE_ATTN, "self_attn", c->kv_heads * c->head_dim);
    l->o = peft__sites_linear(b, PEFT__ROLE_O, "self_attn.o_proj");
    l->after = peft__sites_rms_norm(b, PEFT__ROLE_NONE, "post_attention_layernorm", eps, 0, 1);
    l->attn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_ATTN, "self_attn", c->hidden_size);
    l->ffn_norm = peft__sites_rms_norm(b, PEFT__ROLE_FFN, "pre_feedforward_layernorm", eps, 0, 1);
    l->gate = peft__sites_linear(b, PEFT__ROLE_GATE, "mlp.gate_proj");
    l->up = peft__sites_linear(b, PEFT__ROLE_UP, "mlp.up_proj");
    l->down = peft__sites_linear(b, PEFT__ROLE_DOWN, "mlp.down_proj");
    l->ffn_after = peft__sites_rms_norm(b, PEFT__ROLE_NONE, "post_feedforward_layernorm", eps, 0, 1);
    l->ffn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_FFN, "mlp", c->hidden_size);
}

/* Both tables; that of the windows has no scaling. */
static bool gemma_ropes(const peft__config *c, peft__arena *a, gemma_model *d) {
    peft__config plain = *c;
    if (!peft__rope_make(c, c->head_dim, a, &d->rope)) { return false; }
    if (!(c->rope_local_theta > 0)) { return true; }
    plain.rope_theta = c->rope_local_theta;
    plain.rope_scaling = PEFT__ROPE_NONE;
    return peft__rope_make(&plain, c->head_dim, a, &d->local);
}

static peft_status gemma_sites(struct peft_model *m) {
    const peft__config *c = &m->config;
    peft__sites b;
    gemma_model *d = peft__arena_alloc(&m->arena, sizeof *d);
    if (d == NULL) { return PEFT_E_NOMEM; }
    d->layers = peft__arena_alloc(&m->arena, (size_t)c->layers * sizeof *d->layers);
    if (d->layers == NULL || !gemma_ropes(c, &m->arena, d)) { return PEFT_E_NOMEM; }
    m->arch_data = d;
    peft__sites_begin(&b, m, 4 + (size_t)c->layers * 16);
    d->embed = peft__sites_embed(&b, PEFT__ROLE_TOKENS, "model.embed_tokens");
    if (d->embed != NULL && c->qk_norm) { m->sites[d->embed->id].row_scale = c->embed_scale; }
    d->input = peft__sites_plain(&b, PEFT__SITE_INPUT, PEFT__ROLE_NONE, "", c->hidden_size);
    for (int64_t i = 0; i < c->layers; i++) {
        peft__sites_in(&b, (int32_t)i, peft__arena_printf(&m->arena, "model.layers.%lld", (long long)i));
        gemma_layer_sites(&b, c, &d->layers[i]);
    }
    peft__sites_in(&b, -1, "");
    d->norm = peft__sites_rms_norm(&b, PEFT__ROLE_FINAL, "model.norm", c->norm_eps, 0, 1);
    d->head = peft__sites_head(&b, "lm_head", d->embed);
    return b.st;
}

static peft__val gemma_attention(const peft__config *c, const gemma_model *d, const gemma_layer *l, peft__tape *t, peft__val h,
                                 int32_t layer) {
    bool local = c->rope_local_theta > 0 && peft__config_windowed(c, layer);
    const peft__rope *rope = local ? &d->local : &d->rope;
    peft__val q = peft__site_linear(t, l->q, h);
    peft__val k = peft__site_linear(t, l->k, h);
    peft__val v = peft__site_linear(t, l->v, h);
    if (c->qk_norm) {
        q = peft__site_norm(t, l->q_norm, q);
        k = peft__site_norm(t, l->k_norm, k);
    }
    q = peft__op_rope(t, q, c->head_dim, rope);
    k = peft__op_rope(t, k, c->head_dim, rope);
    return peft__site_linear(t, l->o, peft__decoder_attention(c, l->kv, t, h, q, k, v, layer));
}

static void gemma_record(const struct peft_model *m, peft__tape *t) {
    const peft__config *c = &m->config;
    const gemma_model *d = m->arch_data;
    t->segments = (int32_t)c->layers + 2;
    t->segment = 0;
    peft__val x = peft__site_input(t, d->input, peft__site_embed(t, d->embed, c->qk_norm ? c->embed_scale : 1));
    if (!c->qk_norm) { x = peft__op_scale_all(t, x, c->embed_scale, PEFT__NONE); } /* virtual tokens too */
    for (int32_t i = 0; i < (int32_t)c->layers; i++) {
        const gemma_layer *l = &d->layers[i];
        t->segment = i + 1;
        peft__val h = gemma_attention(c, d, l, t, peft__site_norm(t, l->norm, x), i);
        x = peft__op_add(t, x, peft__site_stream(t, l->attn, peft__site_norm(t, l->after, h), x));
        h = peft__site_norm(t, l->ffn_norm, x);
        h = peft__site_linear(t, l->down, peft__decoder_glu(c, l->gate, l->up, t, h));
        x = peft__op_add(t, x, peft__site_stream(t, l->ffn, peft__site_norm(t, l->ffn_after, h), x));
    }
    t->segment = (int32_t)c->layers + 1;
    peft__model_head(m, t, d->head, peft__site_norm(t, d->norm, x), c->final_softcap, 1);
}

const peft__arch peft__arch_gemma = {
    .name = "gemma",
    .model_types = gemma_types,
    .architectures = gemma_classes,
    .gguf_archs = gemma_ggufs,
    .heads = peft__heads_decoder,
    .n_heads = PEFT__HEADS_DECODER,
    .prefix = "",
    .gguf_act = PEFT__ACT_GELU_TANH,
    .read_config = gemma_read_config,
    .read_gguf = gemma_read_gguf,
    .gguf_type = gemma_gguf_type,
    .write_config = gemma_write_config,
    .gguf_arch = gemma_gguf_arch,
    .write_gguf = gemma_write_gguf,
    .tensor = gemma_tensor,
    .sites = gemma_sites,
    .record = gemma_record,
};
