/* t5.c - T5 (Raffel et al. 2020, arXiv 1910.10683), its version 1.1 and mT5 (Xue et al. 2021, arXiv 2010.11934) as transformers'
 * T5ForConditionalGeneration computes them:
 *
 *   x = E[ids];  each layer, rms(x) = x / sqrt(mean(x^2) + eps) * w before each part, no biases:
 *   x = x + attention(rms(x)) Wo, scores q k' unscaled, plus b[bucket(j - i)] with one table b of a stack's first layer
 *   x = x + attention(rms(x) Wq, states Wk, states Wv) Wo in the decoder, states = rms(encoder's last x)
 *   x = x + f(rms(x) Wi) Wo, f = relu; gated: gelu(rms(x) W0) * (rms(x) W1)
 *   logits = rms(x) H', or tied rms(x) E' / sqrt(width)
 *
 * A GGUF file (architecture "t5" of llama.cpp) says by its tensors whether there is a gate, which then means gelu_new, else relu, and
 * whether the head is tied, where it is not said (write_gguf.c); its distance is always 128.
 *
 * Left out: heads for classes, the encoder alone (T5EncoderModel, "t5encoder"). */
#include <math.h>
#include <stdio.h>

#include "model/parts.h"

static const char *const t5_types[] = {"t5", "mt5", NULL};
static const char *const t5_classes[] = {"T5ForConditionalGeneration", "MT5ForConditionalGeneration"};
static const char *const t5_ggufs[] = {"t5", NULL};
enum { T5_GGUF_DISTANCE = 128 };

/* ---- config -------------------------------------------------------------------------------------------------------------- */

/* "relu", "gated-gelu": an activation, and whether it is a gate's. T5 v1.1 means gelu_new by "gated-gelu". */
static peft_status t5_read_act(const peft__json *config, const char *what, const char *dflt, peft__config *c) {
    static const char key[] = "feed_forward_proj";
    const char *name = NULL;
    peft_status st = peft__json_str(config, what, key, dflt, &name);
    if (st != PEFT_OK) { return st; }
    c->glu = strncmp(name, "gated-", 6) == 0;
    const char *act = strcmp(name, "gated-gelu") == 0 ? "gelu_new" : name + (c->glu ? 6 : 0);
    if (peft__config_act_find(act, &c->act)) { return PEFT_OK; }
    return peft__fail(PEFT_E_UNSUPPORTED, "%s: key \"%s\" is \"%s\", expected relu, gated-gelu, gated-silu or another activation", what,
                      key, name);
}

/* The activation that llama.cpp takes for granted. */
static int32_t t5_gguf_act(const peft__config *c) { return c->glu ? PEFT__ACT_GELU_TANH : PEFT__ACT_RELU; }

static void t5_derive(peft__config *c) {
    c->kv_heads = c->heads;
    c->head_scale = c->tie_embeddings ? 1 / sqrt((double)c->hidden_size) : 1;
}

static peft_status t5_read_config(const peft__json *config, const char *what, peft__arena *a, peft__config *c) {
    static const peft__seq2seq_keys keys = {.bos = -1, .eos = 1, .pad = 0, .start = -1, .forced_eos = -1};
    peft_status st = PEFT_OK;
    (void)a;
    const int64_t width = PEFT__MODEL_MAX_WIDTH, positions = PEFT__MODEL_MAX_POSITIONS;
    const bool mt5 = peft__json_is(peft__json_find(config, "model_type"), "mt5");
    TRY(peft__config_need(config, what, "vocab_size", PEFT__MODEL_MAX_VOCAB, &c->vocab_size));
    TRY(peft__config_need(config, what, "d_model", width, &c->hidden_size));
    TRY(peft__config_need(config, what, "d_kv", width, &c->head_dim));
    TRY(peft__config_need(config, what, "d_ff", width, &c->intermediate_size));
    TRY(peft__config_need(config, what, "num_layers", PEFT__MODEL_MAX_LAYERS, &c->encoder_layers));
    TRY(peft__config_need(config, what, "num_heads", width, &c->heads));
    const peft__json *decoder = peft__json_get(config, "num_decoder_layers");
    c->layers = c->encoder_layers;
    if (decoder != NULL && decoder->kind != PEFT__JSON_NULL) {
        TRY(peft__config_need(config, what, "num_decoder_layers", PEFT__MODEL_MAX_LAYERS, &c->layers));
    }
    TRY(peft__json_int(config, what, "relative_attention_num_buckets", 32, 4, positions, &c->bias_buckets));
    TRY(peft__json_int(config, what, "relative_attention_max_distance", 128, 1, positions, &c->bias_distance));
    TRY(peft__json_float(config, what, "layer_norm_epsilon", 1e-6, &c->norm_eps));
    TRY(peft__json_bool(config, what, "tie_word_embeddings", !mt5, &c->tie_embeddings));
    TRY(t5_read_act(config, what, mt5 ? "gated-gelu" : "relu", c));
    if (c->bias_distance <= c->bias_buckets / 2 || c->bias_buckets % 4 != 0) {
        FAIL(PEFT_E_FORMAT, "%s: \"relative_attention_num_buckets\" %lld is no multiple of 4, or \"relative_attention_max_distance\" "
             "%lld not above half of it", what, (long long)c->bias_buckets, (long long)c->bias_distance);
    }
    TRY(peft__seq2seq_ids(config, what, &keys, c));
    t5_derive(c);
    TRY(peft__config_heads(what, "d_model", c));
out:
    return st;
}

/* A key that may only repeat what is known. */
static peft_status t5_same_gguf(const peft__gguf *g, const char *key, int64_t known) {
    int64_t value = known;
    peft_status st = peft__gguf_int(g, key, known, 1, PEFT__MODEL_MAX_WIDTH, &value);
    if (st != PEFT_OK || value == known) { return st; }
    return peft__fail(PEFT_E_UNSUPPORTED, "key \"%s\" is %lld, only %lld is supported", key, (long long)value, (long long)known);
}

/* Ids that a file leaves out are those that llama.cpp assumes of a "t5" vocabulary. */
static peft_status t5_ids_gguf(const peft__gguf *g, peft__config *c) {
    peft_status st = PEFT_OK;
    int64_t pad = 0, start = 0;
    TRY(peft__config_ids_gguf(g, c));
    if (peft__gguf_get(g, "tokenizer.ggml.eos_token_id") == NULL && c->vocab_size > 1) { c->eos_id = 1; }
    TRY(peft__gguf_int(g, "tokenizer.ggml.padding_token_id", 0, 0, c->vocab_size - 1, &pad));
    TRY(peft__gguf_int(g, "t5.decoder_start_token_id", pad, 0, c->vocab_size - 1, &start));
    c->pad_id = (int32_t)pad;
    c->decoder_start_id = (int32_t)start;
    c->forced_bos_id = c->forced_eos_id = -1;
out:
    return st;
}

static peft_status t5_read_gguf(const peft__gguf *g, peft__arena *a, peft__config *c) {
    peft_status st = PEFT_OK;
    (void)a;
    const int64_t width = PEFT__MODEL_MAX_WIDTH;
    TRY(peft__config_need_gguf(g, "t5.embedding_length", width, &c->hidden_size));
    TRY(peft__config_need_gguf(g, "t5.block_count", PEFT__MODEL_MAX_LAYERS, &c->encoder_layers));
    TRY(peft__gguf_int(g, "t5.decoder_block_count", c->encoder_layers, 1, PEFT__MODEL_MAX_LAYERS, &c->layers));
    TRY(peft__config_need_gguf(g, "t5.attention.head_count", width, &c->heads));
    TRY(peft__config_need_gguf(g, "t5.feed_forward_length", width, &c->intermediate_size));
    TRY(peft__config_need_gguf(g, "t5.attention.relative_buckets_count", T5_GGUF_DISTANCE, &c->bias_buckets));
    TRY(peft__gguf_int(g, "t5.attention.key_length", 0, 1, width, &c->head_dim));
    TRY(peft__config_float_gguf(g, "t5.attention.layer_norm_rms_epsilon", 1e-6, &c->norm_eps));
    TRY(peft__config_vocab_gguf(g, "t5.vocab_size", c));
    TRY(t5_ids_gguf(g, c));
    if (c->bias_buckets % 4 != 0) {
        FAIL(PEFT_E_FORMAT, "key \"t5.attention.relative_buckets_count\" is %lld, no multiple of 4", (long long)c->bias_buckets);
    }
    c->bias_distance = T5_GGUF_DISTANCE;
    c->glu = peft__gguf_find(g, "enc.blk.0.ffn_gate.weight") != NULL;
    c->act = t5_gguf_act(c);
    TRY(peft__gguf_bool(g, PEFT__GGUF_TIED, peft__gguf_find(g, "output.weight") == NULL, &c->tie_embeddings));
    t5_derive(c);
    TRY(peft__config_heads("metadata", "t5.embedding_length", c));
    TRY(t5_same_gguf(g, "t5.attention.value_length", c->head_dim));
    TRY(t5_same_gguf(g, "t5.attention.head_count_kv", c->heads));
out:
    return st;
}

static peft_status t5_write_gguf(const struct peft_model *m, peft__gguf_out *w) {
    const peft__config *c = &m->config;
    const struct {
        const char *key;
        int64_t value;
    } sizes[] = {{"t5.vocab_size", c->vocab_size}, {"t5.context_length", 512}, {"t5.embedding_length", c->hidden_size},
                 {"t5.block_count", c->encoder_layers}, {"t5.decoder_block_count", c->layers},
                 {"t5.feed_forward_length", c->intermediate_size}, {"t5.attention.head_count", c->heads},
                 {"t5.attention.key_length", c->head_dim}, {"t5.attention.value_length", c->head_dim},
                 {"t5.attention.relative_buckets_count", c->bias_buckets}, {"t5.decoder_start_token_id", c->decoder_start_id}};
    if (c->act != t5_gguf_act(c)) {
        return peft__fail(PEFT_E_UNSUPPORTED, "GGUF cannot say that the activation of a t5 model %s a gate is %s",
                          c->glu ? "with" : "without", peft__config_act_name(c->act));
    }
    if (c->bias_distance != T5_GGUF_DISTANCE) {
        return peft__fail(PEFT_E_UNSUPPORTED, "GGUF cannot say that a t5 model's relative_attention_max_distance is %lld, only %d",
                          (long long)c->bias_distance, (int)T5_GGUF_DISTANCE);
    }
    if (c->forced_bos_id >= 0 || c->forced_eos_id >= 0) {
        return peft__fail(PEFT_E_UNSUPPORTED, "GGUF cannot say that a t5 model's %s is %d",
                          c->forced_bos_id >= 0 ? "forced_bos_token_id" : "forced_eos_token_id",
                          (int)(c->forced_bos_id >= 0 ? c->forced_bos_id : c->forced_eos_id));
    }
    for (size_t i = 0; i < PEFT__COUNT(sizes); i++) { peft__gguf_put_u32(w, sizes[i].key, (uint32_t)sizes[i].value); }
    peft__gguf_put_f32(w, "t5.attention.layer_norm_epsilon", (float)c->norm_eps); /* readers differ in which they look at */
    peft__gguf_put_f32(w, "t5.attention.layer_norm_rms_epsilon", (float)c->norm_eps);
    return PEFT_OK;
}

static void t5_write_config(const peft__config *c, peft__json_out *j) {
    const struct {
        const char *key;
        int64_t value;
    } sizes[] = {{"d_model", c->hidden_size}, {"d_kv", c->head_dim}, {"d_ff", c->intermediate_size},
                 {"num_layers", c->encoder_layers}, {"num_decoder_layers", c->layers}, {"num_heads", c->heads},
                 {"relative_attention_num_buckets", c->bias_buckets}, {"relative_attention_max_distance", c->bias_distance},
                 {"vocab_size", c->vocab_size}};
    char act[48];
    const char *name = peft__config_act_name(c->act);
    for (size_t i = 0; i < PEFT__COUNT(sizes); i++) {
        peft__json_key(j, sizes[i].key);
        peft__json_put_int(j, sizes[i].value);
    }
    peft__json_key(j, "layer_norm_epsilon");
    peft__json_put_float(j, c->norm_eps);
    (void)snprintf(act, sizeof act, "%s%s", c->glu ? "gated-" : "", c->glu && c->act == PEFT__ACT_GELU_TANH ? "gelu" : name);
    peft__json_key(j, "feed_forward_proj");
    peft__json_put_text(j, act);
    peft__seq2seq_write_ids(c, j);
}

/* ---- tensors ------------------------------------------------------------------------------------------------------------- */

enum { T5_LAYER = 16 }; /* most tensors of a layer */

typedef struct t5_tensor_row {
    const char *hf, *gguf; /* without what stands before them in a layer */
    int64_t rows, cols;
} t5_tensor_row;

/* Tensors of a layer, in execution order; the table of biases, which the first has, in its attention. */
static size_t t5_layer_tensors(const peft__config *c, bool decoder, bool first, t5_tensor_row out[T5_LAYER]) {
    const int64_t h = c->hidden_size, a = c->heads * c->head_dim, f = c->intermediate_size;
    const t5_tensor_row self[] = {{"layer.0.layer_norm", "attn_norm", 1, h}, {"layer.0.SelfAttention.q", "attn_q", a, h},
                                  {"layer.0.SelfAttention.k", "attn_k", a, h}, {"layer.0.SelfAttention.v", "attn_v", a, h},
                                  {"layer.0.SelfAttention.o", "attn_o", h, a}};
    const t5_tensor_row bias = {"layer.0.SelfAttention.relative_attention_bias", "attn_rel_b", c->bias_buckets, c->heads};
    const t5_tensor_row cross[] = {{"layer.1.layer_norm", "cross_attn_norm", 1, h}, {"layer.1.EncDecAttention.q", "cross_attn_q", a, h},
                                   {"layer.1.EncDecAttention.k", "cross_attn_k", a, h},
                                   {"layer.1.EncDecAttention.v", "cross_attn_v", a, h},
                                   {"layer.1.EncDecAttention.o", "cross_attn_o", h, a}};
    const t5_tensor_row ffn[2][4] = {{{"layer.1.layer_norm", "ffn_norm", 1, h}, {"layer.1.DenseReluDense.wi_0", "ffn_gate", f, h},
                                      {"layer.1.DenseReluDense.wi_1", "ffn_up", f, h}, {"layer.1.DenseReluDense.wo", "ffn_down", h, f}},
                                     {{"layer.2.layer_norm", "ffn_norm", 1, h}, {"layer.2.DenseReluDense.wi_0", "ffn_gate", f, h},
                                      {"layer.2.DenseReluDense.wi_1", "ffn_up", f, h}, {"layer.2.DenseReluDense.wo", "ffn_down", h, f}}};
    size_t n = PEFT__COUNT(self);
    memcpy(out, self, sizeof self);
    if (first) { out[n++] = bias; }
    if (decoder) {
        memcpy(out + n, cross, sizeof cross);
        n += PEFT__COUNT(cross);
    }
    for (size_t i = 0; i < 4; i++) {
        if (i == 1 && !c->glu) { continue; }
        out[n] = ffn[decoder][i];
        if (i == 2 && !c->glu) { out[n].hf = decoder ? "layer.2.DenseReluDense.wi" : "layer.1.DenseReluDense.wi"; }
        n++;
    }
    return n;
}

static void t5_put(peft__arena *a, const char *hf, const char *gguf, const t5_tensor_row *row, struct peft__tensor_spec *out) {
    out->hf_name = peft__arena_printf(a, "%s%s.weight", hf, row->hf);
    out->gguf_name = peft__arena_printf(a, "%s%s.weight", gguf, row->gguf);
    bool table = strstr(row->hf, "_bias") != NULL;
    out->gguf_f32 = table;
    out->ndim = row->rows == 1 && !table ? 1 : 2;
    out->rows = row->rows;
    out->cols = row->cols;
}

/* Tensor *index of a stack with its last norm; false: fewer, *index less those there are. */
static bool t5_stack_tensor(const peft__config *c, bool decoder, peft__arena *a, size_t *index, struct peft__tensor_spec *out) {
    t5_tensor_row rows[T5_LAYER];
    char hf[48], gguf[48];
    const char *stack = decoder ? "decoder" : "encoder", *blk = decoder ? "dec" : "enc";
    size_t layers = (size_t)(decoder ? c->layers : c->encoder_layers), each = t5_layer_tensors(c, decoder, false, rows);
    size_t layer = *index <= each ? 0 : (*index - 1) / each; /* the first has one more */
    if (layer < layers) {
        (void)t5_layer_tensors(c, decoder, layer == 0, rows);
        (void)snprintf(hf, sizeof hf, "%s.block.%zu.", stack, layer);
        (void)snprintf(gguf, sizeof gguf, "%s.blk.%zu.", blk, layer);
        t5_put(a, hf, gguf, &rows[layer == 0 ? *index : *index - 1 - layer * each], out);
        return true;
    }
    *index -= layers * each + 1;
    if (*index > 0) {
        (*index)--;
        return false;
    }
    const t5_tensor_row norm = {"final_layer_norm", "output_norm", 1, c->hidden_size};
    (void)snprintf(hf, sizeof hf, "%s.", stack);
    (void)snprintf(gguf, sizeof gguf, "%s.", blk);
    t5_put(a, hf, gguf, &norm, out);
    return true;
}

static bool t5_tensor(const peft__config *c, peft__arena *a, size_t index, struct peft__tensor_spec *out) {
    const t5_tensor_row table = {"shared", "token_embd", c->vocab_size, c->hidden_size};
    const t5_tensor_row head = {"lm_head", "output", c->vocab_size, c->hidden_size};
    if (index == 0) {
        t5_put(a, "", "", &table, out);
        out->alias = "decoder.embed_tokens.weight";
        return true;
    }
    index--;
    if (t5_stack_tensor(c, false, a, &index, out) || t5_stack_tensor(c, true, a, &index, out)) { return true; }
    if (index > 0) { return false; }
    t5_put(a, "", "", &head, out);
    out->optional = c->tie_embeddings;
    return true;
}

/* ---- sites and recording ------------------------------------------------------------------------------------------------- */

typedef struct t5_layer {
    peft__seq2seq_sites self, cross;
    const peft__site *ffn_norm, *gate, *up, *down, *ffn; /* gate NULL: an FFN without one */
} t5_layer;

typedef struct t5_stack {
    const peft__site *input, *bias, *norm;
    t5_layer *layers;
    int64_t n;
} t5_stack;

typedef struct t5_model {
    const peft__site *embed, *head;
    t5_stack encoder, decoder;
} t5_model;

static const char *t5_name(const peft__sites *b, int32_t layer, const char *name) {
    const char *path = peft__arena_printf(&b->m->arena, name[0] != '\0' ? "layer.%d.%s" : "layer.%d", (int)layer, name);
    return path != NULL ? path : "";
}

static void t5_attention_sites(peft__sites *b, const peft__config *c, int32_t at, const char *name, peft__seq2seq_sites *s) {
    const char *path = t5_name(b, at, name);
    struct {
        const peft__site **site;
        int32_t role;
        const char *leaf;
    } parts[] = {{&s->q, PEFT__ROLE_Q, "q"}, {&s->k, PEFT__ROLE_K, "k"}, {&s->v, PEFT__ROLE_V, "v"}, {&s->o, PEFT__ROLE_O, "o"}};
    s->norm = peft__sites_norm(b, PEFT__ROLE_ATTN, t5_name(b, at, "layer_norm"), true, c->norm_eps);
    for (size_t i = 0; i < PEFT__COUNT(parts); i++) {
        const char *full = peft__arena_printf(&b->m->arena, "%s.%s", path, parts[i].leaf);
        if (i == 3) { s->kv = peft__sites_plain(b, PEFT__SITE_KV, PEFT__ROLE_ATTN, path, c->heads * c->head_dim); }
        *parts[i].site = peft__sites_linear(b, parts[i].role, full != NULL ? full : "");
    }
    s->stream = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_ATTN, t5_name(b, at, ""), c->hidden_size);
}

static void t5_layer_sites(peft__sites *b, const peft__config *c, bool decoder, t5_layer *l) {
    const int32_t at = decoder ? 2 : 1;
    t5_attention_sites(b, c, 0, "SelfAttention", &l->self);
    if (decoder) {
        b->part = PEFT__PART_CROSS;
        t5_attention_sites(b, c, 1, "EncDecAttention", &l->cross);
        b->part = PEFT__PART_DECODER;
    }
    l->ffn_norm = peft__sites_norm(b, PEFT__ROLE_FFN, t5_name(b, at, "layer_norm"), true, c->norm_eps);
    l->gate = c->glu ? peft__sites_linear(b, PEFT__ROLE_GATE, t5_name(b, at, "DenseReluDense.wi_0")) : NULL;
    l->up = peft__sites_linear(b, PEFT__ROLE_UP, t5_name(b, at, c->glu ? "DenseReluDense.wi_1" : "DenseReluDense.wi"));
    l->down = peft__sites_linear(b, PEFT__ROLE_DOWN, t5_name(b, at, "DenseReluDense.wo"));
    l->ffn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_FFN, t5_name(b, at, ""), c->hidden_size);
}

static void t5_stack_sites(peft__sites *b, const peft__config *c, bool decoder, t5_stack *s) {
    const char *name = decoder ? "decoder" : "encoder";
    peft__arena *a = &b->m->arena;
    int64_t before = decoder ? c->encoder_layers : 0;
    s->n = decoder ? c->layers : c->encoder_layers;
    s->layers = peft__arena_alloc(a, (size_t)s->n * sizeof *s->layers);
    if (s->layers == NULL) {
        b->st = PEFT_E_NOMEM;
        return;
    }
    memset(s->layers, 0, (size_t)s->n * sizeof *s->layers);
    b->part = decoder ? PEFT__PART_DECODER : PEFT__PART_ENCODER;
    peft__sites_in(b, -1, name);
    s->input = peft__sites_plain(b, PEFT__SITE_INPUT, PEFT__ROLE_NONE, "", c->hidden_size);
    for (int64_t i = 0; i < s->n; i++) {
        peft__sites_in(b, (int32_t)(before + i), peft__arena_printf(a, "%s.block.%lld", name, (long long)i));
        if (i == 0) { s->bias = peft__sites_embed(b, PEFT__ROLE_BIAS, "layer.0.SelfAttention.relative_attention_bias"); }
        t5_layer_sites(b, c, decoder, &s->layers[i]);
    }
    peft__sites_in(b, -1, name);
    s->norm = peft__sites_norm(b, PEFT__ROLE_FINAL, "final_layer_norm", true, c->norm_eps);
}

static peft_status t5_sites(struct peft_model *m) {
    const peft__config *c = &m->config;
    peft__sites b;
    t5_model *d = peft__arena_alloc(&m->arena, sizeof *d);
    if (d == NULL) { return PEFT_E_NOMEM; }
    memset(d, 0, sizeof *d);
    m->arch_data = d;
    peft__sites_begin(&b, m, 8 + (size_t)c->encoder_layers * 13 + (size_t)c->layers * 20);
    d->embed = peft__sites_embed(&b, PEFT__ROLE_TOKENS, "shared");
    t5_stack_sites(&b, c, false, &d->encoder);
    t5_stack_sites(&b, c, true, &d->decoder);
    peft__sites_in(&b, -1, "");
    b.part = PEFT__PART_DECODER;
    d->head = peft__sites_head(&b, "lm_head", d->embed);
    return b.st;
}

static peft__val t5_attention(const peft__config *c, const peft__seq2seq_sites *s, peft__tape *t, peft__val x, peft__val states,
                              peft__attn_spec spec) {
    spec.heads = spec.kv_heads = c->heads;
    spec.head_dim = c->head_dim;
    spec.scale = 1;
    peft__val h = peft__seq2seq_attention(s, t, peft__site_norm(t, s->norm, x), states, &spec);
    return peft__op_add(t, x, peft__site_stream(t, s->stream, h, x));
}

static peft__val t5_ffn(const peft__config *c, const t5_layer *l, peft__tape *t, peft__val x) {
    peft__val h = peft__site_norm(t, l->ffn_norm, x);
    h = l->gate != NULL ? peft__decoder_glu(c, l->gate, l->up, t, h) : peft__op_act(t, c->act, peft__site_linear(t, l->up, h));
    return peft__op_add(t, x, peft__site_stream(t, l->ffn, peft__site_linear(t, l->down, h), x));
}

/* One stack with its last norm. states: the encoder's, for the decoder. */
static peft__val t5_run(const struct peft_model *m, const t5_stack *s, peft__tape *t, peft__val states) {
    const peft__config *c = &m->config;
    const t5_model *d = m->arch_data;
    const bool decoder = s == &d->decoder;
    const peft__bias bias = {.table = s->bias->weight, .param = peft__site_bias(t, s->bias), .buckets = c->bias_buckets,
                             .max_distance = c->bias_distance, .bidirectional = !decoder};
    t->encoder = !decoder;
    peft__val x = peft__site_input(t, s->input, peft__site_embed(t, d->embed, 1));
    for (int32_t i = 0; i < (int32_t)s->n; i++) {
        const t5_layer *l = &s->layers[i];
        const peft__attn_spec self = {.layer = i, .bias = &bias}, cross = {.layer = i};
        t->segment++;
        x = t5_attention(c, &l->self, t, x, PEFT__NONE, self);
        if (decoder) { x = t5_attention(c, &l->cross, t, x, states, cross); }
        x = t5_ffn(c, l, t, x);
    }
    x = peft__site_norm(t, s->norm, x);
    t->encoder = false;
    return x;
}

static void t5_record(const struct peft_model *m, peft__tape *t) {
    const t5_model *d = m->arch_data;
    t->segments = (int32_t)(m->config.encoder_layers + m->config.layers) + 2;
    t->segment = 0;
    peft__val states = t5_run(m, &d->encoder, t, PEFT__NONE);
    peft__val x = t5_run(m, &d->decoder, t, states);
    t->segment = t->segments - 1;
    peft__model_head(m, t, d->head, x, 0, m->config.head_scale);
}

const peft__arch peft__arch_t5 = {
    .name = "t5",
    .model_types = t5_types,
    .architectures = t5_classes,
    .gguf_archs = t5_ggufs,
    .lm_task = PEFT__TASK_SEQ2SEQ_LM,
    .prefix = "",
    .gguf_act = -1,
    .read_config = t5_read_config,
    .read_gguf = t5_read_gguf,
    .write_config = t5_write_config,
    .write_gguf = t5_write_gguf,
    .tensor = t5_tensor,
    .sites = t5_sites,
    .record = t5_record,
};
