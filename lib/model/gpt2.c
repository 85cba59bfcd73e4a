/* gpt2.c - GPT-2 (Radford et al. 2019) as transformers' GPT2LMHeadModel computes it:
 *
 *   x = E[ids] + P[positions];  each layer:  q, k, v = layer_norm(x) Wqkv + b;  x = x + attention(q, k, v) Wo + b;
 *   x = x + gelu_new(layer_norm(x) Wfc + b) Wproj + b;  logits = layer_norm(x) E'
 *
 * Its matrices are Conv1D: stored [in][out] in Hugging Face's files, [out][in] in GGUF. q, k and v are columns of one
 * product.
 *
 * Left out: cross attention, scores that are unscaled or scaled by layer. */
#include <math.h>

#include "model/parts.h"

static const char *const gpt2_types[] = {"gpt2", NULL};
static const char *const gpt2_classes[] = {"GPT2LMHeadModel"};

/* ---- config -------------------------------------------------------------------------------------------------------------- */

static void gpt2_derive(peft__config *c) {
    c->kv_heads = c->heads;
    c->head_dim = 0;
    c->attention_bias = c->mlp_bias = true;
}

static peft_status gpt2_read_config(const peft__json *config, const char *what, peft__arena *a, peft__config *c) {
    peft_status st = PEFT_OK;
    (void)a;
    const int64_t width = PEFT__MODEL_MAX_WIDTH;
    const char *positions = peft__json_find(config, "n_positions") != NULL ? "n_positions" : "n_ctx";
    TRY(peft__config_need(config, what, "n_embd", width / 4, &c->hidden_size));
    TRY(peft__config_need(config, what, "n_layer", PEFT__MODEL_MAX_LAYERS, &c->layers));
    TRY(peft__config_need(config, what, "n_head", width, &c->heads));
    TRY(peft__json_int(config, what, "n_inner", 4 * c->hidden_size, 1, width, &c->intermediate_size));
    TRY(peft__config_need(config, what, "vocab_size", PEFT__MODEL_MAX_VOCAB, &c->vocab_size));
    TRY(peft__json_int(config, what, positions, 1024, 1, PEFT__MODEL_MAX_POSITIONS, &c->max_positions));
    TRY(peft__json_float(config, what, "layer_norm_epsilon", 1e-5, &c->norm_eps));
    TRY(peft__json_bool(config, what, "tie_word_embeddings", true, &c->tie_embeddings));
    TRY(peft__config_act(config, what, "activation_function", "gelu_new", &c->act));
    TRY(peft__config_only(config, what, "scale_attn_weights", true, true));
    TRY(peft__config_only(config, what, "scale_attn_by_inverse_layer_idx", false, false));
    TRY(peft__config_only(config, what, "add_cross_attention", false, false));
    TRY(peft__config_ids(config, what, 50256, 50256, c));
    gpt2_derive(c);
    TRY(peft__config_heads(what, "n_embd", c));
out:
    return st;
}

static peft_status gpt2_read_gguf(const peft__gguf *g, peft__arena *a, peft__config *c) {
    peft_status st = PEFT_OK;
    (void)a;
    const int64_t width = PEFT__MODEL_MAX_WIDTH;
    TRY(peft__config_need_gguf(g, "gpt2.embedding_length", width / 4, &c->hidden_size));
    TRY(peft__config_need_gguf(g, "gpt2.block_count", PEFT__MODEL_MAX_LAYERS, &c->layers));
    TRY(peft__config_need_gguf(g, "gpt2.attention.head_count", width, &c->heads));
    TRY(peft__gguf_int(g, "gpt2.feed_forward_length", 4 * c->hidden_size, 1, width, &c->intermediate_size));
    TRY(peft__config_need_gguf(g, "gpt2.context_length", PEFT__MODEL_MAX_POSITIONS, &c->max_positions));
    TRY(peft__config_float_gguf(g, "gpt2.attention.layer_norm_epsilon", 1e-5, &c->norm_eps));
    TRY(peft__config_vocab_gguf(g, "gpt2.vocab_size", c));
    TRY(peft__config_ids_gguf(g, c));
    c->tie_embeddings = peft__gguf_find(g, "output.weight") == NULL;
    c->act = PEFT__ACT_GELU_TANH;
    gpt2_derive(c);
    TRY(peft__config_heads("metadata", "gpt2.embedding_length", c));
out:
    return st;
}

static void gpt2_write_config(const peft__config *c, peft__json_out *j) {
    const struct {
        const char *key;
        int64_t value;
    } sizes[] = {{"n_embd", c->hidden_size}, {"n_layer", c->layers}, {"n_head", c->heads},
                 {"n_inner", c->intermediate_size}, {"n_positions", c->max_positions}, {"n_ctx", c->max_positions},
                 {"vocab_size", c->vocab_size}};
    for (size_t i = 0; i < PEFT__COUNT(sizes); i++) {
        peft__json_key(j, sizes[i].key);
        peft__json_put_int(j, sizes[i].value);
    }
    peft__json_key(j, "layer_norm_epsilon");
    peft__json_put_float(j, c->norm_eps);
    peft__json_key(j, "activation_function");
    peft__json_put_text(j, c->act == PEFT__ACT_GELU_TANH ? "gelu_new" : peft__config_act_name(c->act));
}

static peft_status gpt2_write_gguf(const struct peft_model *m, peft__gguf_out *w) {
    const peft__config *c = &m->config;
    const struct {
        const char *key;
        int64_t value;
    } sizes[] = {{"gpt2.vocab_size", c->vocab_size}, {"gpt2.context_length", c->max_positions},
                 {"gpt2.embedding_length", c->hidden_size}, {"gpt2.block_count", c->layers},
                 {"gpt2.feed_forward_length", c->intermediate_size}, {"gpt2.attention.head_count", c->heads}};
    for (size_t i = 0; i < PEFT__COUNT(sizes); i++) { peft__gguf_put_u32(w, sizes[i].key, (uint32_t)sizes[i].value); }
    peft__gguf_put_f32(w, "gpt2.attention.layer_norm_epsilon", (float)c->norm_eps);
    return PEFT_OK;
}

/* ---- tensors ------------------------------------------------------------------------------------------------------------- */

enum { GPT2_PARTS = 6, GPT2_LAYER = 2 * GPT2_PARTS }; /* modules in a layer; tensors: each has a weight and a bias */

static void gpt2_layer_tensor(const peft__config *c, peft__arena *a, int64_t layer, size_t index,
                              struct peft__tensor_spec *out) {
    int64_t h = c->hidden_size, f = c->intermediate_size;
    const struct {
        const char *hf, *gguf;
        int64_t rows, cols;
    } parts[GPT2_PARTS] = {
        {"ln_1", "attn_norm", 1, h},      {"attn.c_attn", "attn_qkv", 3 * h, h}, {"attn.c_proj", "attn_output", h, h},
        {"ln_2", "ffn_norm", 1, h},       {"mlp.c_fc", "ffn_up", f, h},          {"mlp.c_proj", "ffn_down", h, f},
    };
    size_t p = index / 2;
    bool bias = index % 2 != 0, vector = parts[p].rows == 1;
    const char *what = bias ? "bias" : "weight";
    out->hf_name = peft__arena_printf(a, "transformer.h.%lld.%s.%s", (long long)layer, parts[p].hf, what);
    out->gguf_name = peft__arena_printf(a, "blk.%lld.%s.%s", (long long)layer, parts[p].gguf, what);
    out->ndim = bias || vector ? 1 : 2;
    out->rows = bias ? 1 : parts[p].rows;
    out->cols = bias && !vector ? parts[p].rows : parts[p].cols;
    out->conv1d = out->ndim == 2;
}

static bool gpt2_tensor(const peft__config *c, peft__arena *a, size_t index, struct peft__tensor_spec *out) {
    static const struct {
        const char *hf, *gguf;
    } outer[] = {{"transformer.wte.weight", "token_embd.weight"},
                 {"transformer.wpe.weight", "position_embd.weight"},
                 {"transformer.ln_f.weight", "output_norm.weight"},
                 {"transformer.ln_f.bias", "output_norm.bias"},
                 {"lm_head.weight", "output.weight"}};
    size_t inner = (size_t)c->layers * GPT2_LAYER, at = index;
    if (index >= 2 && index - 2 < inner) {
        gpt2_layer_tensor(c, a, (int64_t)((index - 2) / GPT2_LAYER), (index - 2) % GPT2_LAYER, out);
        return true;
    }
    if (index >= 2) { at = index - inner; }
    if (at >= PEFT__COUNT(outer)) { return false; }
    out->hf_name = outer[at].hf;
    out->gguf_name = outer[at].gguf;
    out->ndim = at == 2 || at == 3 ? 1 : 2;
    out->rows = out->ndim == 1 ? 1 : at == 1 ? c->max_positions : c->vocab_size;
    out->cols = c->hidden_size;
    out->optional = at == 4 && c->tie_embeddings;
    return true;
}

/* ---- sites and recording ------------------------------------------------------------------------------------------------- */

typedef struct gpt2_layer {
    const peft__site *norm, *qkv, *kv, *o, *attn, *ffn_norm, *up, *down, *ffn;
} gpt2_layer;

typedef struct gpt2_model {
    const peft__site *embed, *input, *positions, *norm, *head;
    gpt2_layer *layers; /* [config.layers] */
} gpt2_model;

static void gpt2_layer_sites(peft__sites *b, const peft__config *c, gpt2_layer *l) {
    l->norm = peft__sites_norm(b, PEFT__ROLE_ATTN, "ln_1", false, c->norm_eps);
    l->qkv = peft__sites_linear(b, PEFT__ROLE_QKV, "attn.c_attn");
    l->kv = peft__sites_plain(b, PEFT__SITE_KV, PEFT__ROLE_ATTN, "attn", c->hidden_size);
    l->o = peft__sites_linear(b, PEFT__ROLE_O, "attn.c_proj");
    l->attn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_ATTN, "attn", c->hidden_size);
    l->ffn_norm = peft__sites_norm(b, PEFT__ROLE_FFN, "ln_2", false, c->norm_eps);
    l->up = peft__sites_linear(b, PEFT__ROLE_UP, "mlp.c_fc");
    l->down = peft__sites_linear(b, PEFT__ROLE_DOWN, "mlp.c_proj");
    l->ffn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_FFN, "mlp", c->hidden_size);
}

static peft_status gpt2_sites(struct peft_model *m) {
    const peft__config *c = &m->config;
    peft__sites b;
    gpt2_model *d = peft__arena_alloc(&m->arena, sizeof *d);
    if (d == NULL) { return PEFT_E_NOMEM; }
    d->layers = peft__arena_alloc(&m->arena, (size_t)c->layers * sizeof *d->layers);
    if (d->layers == NULL) { return PEFT_E_NOMEM; }
    m->arch_data = d;
    peft__sites_begin(&b, m, 5 + (size_t)c->layers * 9);
    d->embed = peft__sites_embed(&b, PEFT__ROLE_TOKENS, "transformer.wte");
    d->input = peft__sites_plain(&b, PEFT__SITE_INPUT, PEFT__ROLE_NONE, "", c->hidden_size);
    d->positions = peft__sites_embed(&b, PEFT__ROLE_POSITIONS, "transformer.wpe");
    for (int64_t i = 0; i < c->layers; i++) {
        peft__sites_in(&b, (int32_t)i, peft__arena_printf(&m->arena, "transformer.h.%lld", (long long)i));
        gpt2_layer_sites(&b, c, &d->layers[i]);
    }
    peft__sites_in(&b, -1, "");
    d->norm = peft__sites_norm(&b, PEFT__ROLE_FINAL, "transformer.ln_f", false, c->norm_eps);
    d->head = peft__sites_head(&b, "lm_head", d->embed);
    return b.st;
}

static peft__val gpt2_attention(const peft__config *c, const gpt2_layer *l, peft__tape *t, peft__val h, int32_t layer) {
    int64_t w = c->hidden_size;
    peft__val qkv = peft__site_linear(t, l->qkv, h);
    peft__val q = peft__tape_view(t, qkv, 0, w);
    peft__val k = peft__tape_view(t, qkv, w, w);
    peft__val v = peft__tape_view(t, qkv, 2 * w, w);
    peft__past past = peft__site_kv(t, l->kv, h);
    peft__attn_spec spec;
    memset(&spec, 0, sizeof spec);
    spec.heads = spec.kv_heads = c->heads;
    spec.head_dim = c->head_dim;
    spec.scale = 1 / sqrt((double)c->head_dim);
    spec.causal = true;
    spec.layer = layer;
    return peft__site_linear(t, l->o, peft__op_attention(t, q, k, v, &past, &spec));
}

static void gpt2_record(const struct peft_model *m, peft__tape *t) {
    const peft__config *c = &m->config;
    const gpt2_model *d = m->arch_data;
    t->segments = (int32_t)c->layers + 2;
    t->segment = 0;
    peft__val x = peft__site_embed(t, d->embed, 1);
    x = peft__site_input(t, d->input, x); /* virtual tokens get positions too */
    x = peft__site_positions(t, d->positions, x, 0);
    for (int32_t i = 0; i < (int32_t)c->layers; i++) {
        const gpt2_layer *l = &d->layers[i];
        t->segment = i + 1;
        peft__val h = gpt2_attention(c, l, t, peft__site_norm(t, l->norm, x), i);
        x = peft__op_add(t, x, peft__site_stream(t, l->attn, h, x));
        h = peft__site_linear(t, l->up, peft__site_norm(t, l->ffn_norm, x));
        h = peft__site_linear(t, l->down, peft__op_act(t, c->act, h));
        x = peft__op_add(t, x, peft__site_stream(t, l->ffn, h, x));
    }
    t->segment = (int32_t)c->layers + 1;
    peft__model_head(m, t, d->head, peft__site_norm(t, d->norm, x), 0, 1);
}

const peft__arch peft__arch_gpt2 = {
    .name = "gpt2",
    .model_types = gpt2_types,
    .architectures = gpt2_classes,
    .gguf_archs = gpt2_types,
    .heads = peft__heads_decoder,
    .n_heads = PEFT__HEADS_DECODER,
    .prefix = "",
    .gguf_act = PEFT__ACT_GELU_TANH,
    .read_config = gpt2_read_config,
    .read_gguf = gpt2_read_gguf,
    .write_config = gpt2_write_config,
    .write_gguf = gpt2_write_gguf,
    .tensor = gpt2_tensor,
    .sites = gpt2_sites,
    .record = gpt2_record,
};
