/* phi3.c - Phi-3, Phi-3.5 and Phi-4-mini (Abdin et al. 2024), as transformers' Phi3ForCausalLM computes them: Llama's layer
 * (llama.c) with fused projections,
 *
 *   [q | k | v] = h Wqkv';  [gate | up] = h Wgu';  mlp(h) = (silu(gate) * up) Wd'
 *
 * perhaps a part of each head that turns (partial_rotary_factor), a window in all layers, and longrope positions (rope.c).
 *
 * Left out: dropout of the residuals, Phi-3-small and the MoE and vision models, which are other architectures. */
#include <math.h>

#include "model/parts.h"

static const char *const phi3_types[] = {"phi3", NULL};
static const char *const phi3_classes[] = {"Phi3ForCausalLM"};

static const peft__decoder_keys phi3_keys = {
    .eps_key = "rms_norm_eps", .gguf_eps = "attention.layer_norm_rms_epsilon", .act_key = "hidden_act", .act = "silu",
    .rotary_key = "partial_rotary_factor", .rotary = 1, .eps = 1e-5, .theta = 10000, .positions = 4096, .bos = 1, .eos = 32000,
};

/* ---- config -------------------------------------------------------------------------------------------------------------- */

static peft_status phi3_read_config(const peft__json *config, const char *what, peft__arena *a, peft__config *c) {
    peft_status st = PEFT_OK;
    TRY(peft__decoder_read(config, what, &phi3_keys, a, c));
    TRY(peft__json_int(config, what, "sliding_window", 0, 1, PEFT__MODEL_MAX_POSITIONS, &c->window));
out:
    return st;
}

static peft_status phi3_read_gguf(const peft__gguf *g, peft__arena *a, peft__config *c) {
    peft_status st = PEFT_OK;
    TRY(peft__decoder_read_gguf(g, "phi3", &phi3_keys, a, c));
    c->act = PEFT__ACT_SILU;
    if (peft__gguf_find(g, "rope_factors_long.weight") == NULL) { return PEFT_OK; }
    c->rope_scaling = PEFT__ROPE_LONGROPE;
    TRY(peft__config_rope_vector(g, "rope_factors_short.weight", peft__config_rotary(c) / 2, a, &c->rope_short));
    TRY(peft__config_rope_vector(g, "rope_factors_long.weight", peft__config_rotary(c) / 2, a, &c->rope_long));
    TRY(peft__gguf_int(g, "phi3.rope.scaling.original_context_length", 0, 0, PEFT__MODEL_MAX_POSITIONS, &c->rope_original_positions));
    c->rope_factor = 0; /* the contexts say it */
    double scale = 0;
    TRY(peft__config_float_gguf(g, "phi3.rope.scaling.attn_factor", 0, &scale));
    if (fabs(scale - peft__rope_attention(c)) > 1e-6) { c->rope_attention = scale; }
out:
    return st;
}

static void phi3_write_config(const peft__config *c, peft__json_out *j) {
    peft__decoder_write(c, &phi3_keys, j);
    peft__json_key(j, "pad_token_id"); /* transformers would take one beyond small vocabularies */
    peft__json_put_null(j);
    peft__json_key(j, "sliding_window");
    if (c->window > 0) {
        peft__json_put_int(j, c->window);
    } else {
        peft__json_put_null(j);
    }
}

static peft_status phi3_write_gguf(const struct peft_model *m, peft__gguf_out *w) {
    const peft__config *c = &m->config;
    if (c->rope_scaling != PEFT__ROPE_LONGROPE) { return peft__decoder_write_gguf(c, "phi3", &phi3_keys, w); }
    peft__config plain = *c; /* the factors are tensors, which write_gguf.c adds */
    plain.rope_scaling = PEFT__ROPE_NONE;
    peft__gguf_put_u32(w, "phi3.rope.scaling.original_context_length", (uint32_t)peft__rope_original(c));
    peft__gguf_put_f32(w, "phi3.rope.scaling.attn_factor", (float)peft__rope_attention(c));
    return peft__decoder_write_gguf(&plain, "phi3", &phi3_keys, w);
}

/* ---- tensors ------------------------------------------------------------------------------------------------------------- */

static bool phi3_tensor(const peft__config *c, peft__arena *a, size_t index, struct peft__tensor_spec *out) {
    int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim, h = c->hidden_size, f = c->intermediate_size;
    const peft__module before[] = {{"model.embed_tokens", "token_embd", .rows = c->vocab_size, .cols = h}};
    const peft__module layer[] = {
        {"input_layernorm", "attn_norm", .rows = 1, .cols = h},
        {"self_attn.qkv_proj", "attn_qkv", .rows = q + 2 * kv, .cols = h},
        {"self_attn.o_proj", "attn_output", .rows = h, .cols = q},
        {"post_attention_layernorm", "ffn_norm", .rows = 1, .cols = h},
        {"mlp.gate_up_proj", "ffn_up", .rows = 2 * f, .cols = h},
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

typedef struct phi3_layer {
    const peft__site *norm, *qkv, *kv, *o, *attn, *ffn_norm, *gate_up, *down, *ffn;
} phi3_layer;

typedef struct phi3_model {
    const peft__site *embed, *input, *norm, *head;
    phi3_layer *layers; /* [config.layers] */
    peft__rope rope;
} phi3_model;

static void phi3_layer_sites(peft__sites *b, const peft__config *c, phi3_layer *l) {
    l->norm = peft__sites_norm(b, PEFT__ROLE_ATTN, "input_layernorm", true, c->norm_eps);
    l->qkv = peft__sites_linear(b, PEFT__ROLE_QKV, "self_attn.qkv_proj");
    l->kv = peft__sites_plain(b, PEFT__SITE_KV, PEFT__ROLE_ATTN, "self_attn", c->kv_heads * c->head_dim);
    l->o = peft__sites_linear(b, PEFT__ROLE_O, "self_attn.o_proj");
    l->attn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_ATTN, "self_attn", c->hidden_size);
    l->ffn_norm = peft__sites_norm(b, PEFT__ROLE_FFN, "post_attention_layernorm", true, c->norm_eps);
    l->gate_up = peft__sites_linear(b, PEFT__ROLE_UP, "mlp.gate_up_proj");
    l->down = peft__sites_linear(b, PEFT__ROLE_DOWN, "mlp.down_proj");
    l->ffn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_FFN, "mlp", c->hidden_size);
}

static peft_status phi3_sites(struct peft_model *m) {
    const peft__config *c = &m->config;
    peft__sites b;
    phi3_model *d = peft__arena_alloc(&m->arena, sizeof *d);
    if (d == NULL) { return PEFT_E_NOMEM; }
    d->layers = peft__arena_alloc(&m->arena, (size_t)c->layers * sizeof *d->layers);
    if (d->layers == NULL || !peft__rope_make(c, peft__config_rotary(c), &m->arena, &d->rope)) { return PEFT_E_NOMEM; }
    m->arch_data = d;
    peft__sites_begin(&b, m, 4 + (size_t)c->layers * 9);
    d->embed = peft__sites_embed(&b, PEFT__ROLE_TOKENS, "model.embed_tokens");
    d->input = peft__sites_plain(&b, PEFT__SITE_INPUT, PEFT__ROLE_NONE, "", c->hidden_size);
    for (int64_t i = 0; i < c->layers; i++) {
        peft__sites_in(&b, (int32_t)i, peft__arena_printf(&m->arena, "model.layers.%lld", (long long)i));
        phi3_layer_sites(&b, c, &d->layers[i]);
    }
    peft__sites_in(&b, -1, "");
    d->norm = peft__sites_norm(&b, PEFT__ROLE_FINAL, "model.norm", true, c->norm_eps);
    d->head = peft__sites_head(&b, "lm_head", d->embed);
    return b.st;
}

static peft__val phi3_attention(const peft__config *c, const phi3_model *d, const phi3_layer *l, peft__tape *t, peft__val h,
                                int32_t layer) {
    int64_t wide = c->heads * c->head_dim, narrow = c->kv_heads * c->head_dim;
    peft__val qkv = peft__site_linear(t, l->qkv, h);
    peft__val q = peft__tape_view(t, qkv, 0, wide);
    peft__val k = peft__tape_view(t, qkv, wide, narrow);
    peft__val v = peft__tape_view(t, qkv, wide + narrow, narrow);
    q = peft__op_rope(t, q, c->head_dim, &d->rope);
    k = peft__op_rope(t, k, c->head_dim, &d->rope);
    return peft__site_linear(t, l->o, peft__decoder_attention(c, l->kv, t, h, q, k, v, layer));
}

static void phi3_record(const struct peft_model *m, peft__tape *t) {
    const peft__config *c = &m->config;
    const phi3_model *d = m->arch_data;
    t->segments = (int32_t)c->layers + 2;
    t->segment = 0;
    peft__val x = peft__site_input(t, d->input, peft__site_embed(t, d->embed, 1));
    for (int32_t i = 0; i < (int32_t)c->layers; i++) {
        const phi3_layer *l = &d->layers[i];
        t->segment = i + 1;
        peft__val h = phi3_attention(c, d, l, t, peft__site_norm(t, l->norm, x), i);
        x = peft__op_add(t, x, peft__site_stream(t, l->attn, h, x));
        h = peft__site_norm(t, l->ffn_norm, x);
        peft__val both = peft__site_linear(t, l->gate_up, h);
        peft__val gate = peft__tape_view(t, both, 0, c->intermediate_size);
        peft__val up = peft__tape_view(t, both, c->intermediate_size, c->intermediate_size);
        h = peft__site_linear(t, l->down, peft__op_glu(t, c->act, gate, up));
        x = peft__op_add(t, x, peft__site_stream(t, l->ffn, h, x));
    }
    t->segment = (int32_t)c->layers + 1;
    peft__model_head(m, t, d->head, peft__site_norm(t, d->norm, x), 0, 1);
}

const peft__arch peft__arch_phi3 = {
    .name = "phi3",
    .model_types = phi3_types,
    .architectures = phi3_classes,
    .gguf_archs = phi3_types,
    .heads = peft__heads_decoder,
    .n_heads = PEFT__HEADS_DECODER,
    .prefix = "",
    .gguf_act = PEFT__ACT_SILU,
    .read_config = phi3_read_config,
    .read_gguf = phi3_read_gguf,
    .write_config = phi3_write_config,
    .write_gguf = phi3_write_gguf,
    .tensor = phi3_tensor,
    .sites = phi3_sites,
    .record = phi3_record,
};
