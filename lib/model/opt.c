/* opt.c - OPT (Zhang et al. 2022), as transformers' OPTForCausalLM computes it:
 *
 *   x = E[ids] Win' + P[positions + 2];  each layer:  x = x + attention(layer_norm(x)) Wo' + b;
 *   x = x + relu(layer_norm(x) W1' + b1) W2' + b2;  logits = layer_norm(x) Wout' E'
 *
 * Most sizes have no Win and Wout. OPT-350m has them, and its norms behind each sum (do_layer_norm_before false), with none at
 * the end.
 *
 * Left out: models without biases or with norms without weights (no published one has either); GGUF, which has no OPT. */
#include "model/parts.h"

static const char *const opt_types[] = {"opt", NULL};
static const char *const opt_classes[] = {"OPTForCausalLM"};
static const char *const opt_ggufs[] = {NULL};

/* ---- config -------------------------------------------------------------------------------------------------------------- */

static peft_status opt_read_config(const peft__json *config, const char *what, peft__arena *a, peft__config *c) {
    peft_status st = PEFT_OK;
    const int64_t width = PEFT__MODEL_MAX_WIDTH;
    bool removed = false;
    (void)a;
    TRY(peft__config_need(config, what, "hidden_size", width, &c->hidden_size));
    TRY(peft__config_need(config, what, "num_hidden_layers", PEFT__MODEL_MAX_LAYERS, &c->layers));
    TRY(peft__config_need(config, what, "num_attention_heads", width, &c->heads));
    TRY(peft__json_int(config, what, "ffn_dim", 4 * c->hidden_size, 1, width, &c->intermediate_size));
    TRY(peft__config_need(config, what, "vocab_size", PEFT__MODEL_MAX_VOCAB, &c->vocab_size));
    TRY(peft__json_int(config, what, "max_position_embeddings", 2048, 1, PEFT__MODEL_MAX_POSITIONS, &c->max_positions));
    TRY(peft__json_int(config, what, "word_embed_proj_dim", c->hidden_size, 1, width, &c->embed_size));
    TRY(peft__json_bool(config, what, "do_layer_norm_before", true, &c->norm_first));
    TRY(peft__json_bool(config, what, "_remove_final_layer_norm", false, &removed));
    TRY(peft__json_bool(config, what, "tie_word_embeddings", true, &c->tie_embeddings));
    TRY(peft__config_act(config, what, "activation_function", "relu", &c->act));
    TRY(peft__config_only(config, what, "enable_bias", true, true));
    TRY(peft__config_only(config, what, "layer_norm_elementwise_affine", true, true));
    TRY(peft__config_ids(config, what, 2, 2, c));
    c->norm_eps = 1e-5;
    c->kv_heads = c->heads;
    c->final_norm = c->norm_first && !removed;
    TRY(peft__config_heads(what, "hidden_size", c));
out:
    return st;
}

static void opt_write_config(const peft__config *c, peft__json_out *j) {
    const struct {
        const char *key;
        int64_t value;
    } sizes[] = {{"hidden_size", c->hidden_size}, {"num_hidden_layers", c->layers}, {"num_attention_heads", c->heads},
                 {"ffn_dim", c->intermediate_size}, {"vocab_size", c->vocab_size},
                 {"max_position_embeddings", c->max_positions}, {"word_embed_proj_dim", c->embed_size}};
    for (size_t i = 0; i < PEFT__COUNT(sizes); i++) {
        peft__json_key(j, sizes[i].key);
        peft__json_put_int(j, sizes[i].value);
    }
    peft__json_key(j, "do_layer_norm_before");
    peft__json_put_bool(j, c->norm_first);
    peft__json_key(j, "_remove_final_layer_norm");
    peft__json_put_bool(j, c->norm_first && !c->final_norm);
    peft__json_key(j, "activation_function");
    peft__json_put_text(j, peft__config_act_name(c->act));
}

/* ---- tensors ------------------------------------------------------------------------------------------------------------- */

static bool opt_tensor(const peft__config *c, peft__arena *a, size_t index, struct peft__tensor_spec *out) {
    int64_t h = c->hidden_size, f = c->intermediate_size, e = c->embed_size, projected = e != h ? 1 : 0;
    const peft__module before[] = {
        {"model.decoder.embed_tokens", "", .rows = c->vocab_size, .cols = e},
        {"model.decoder.embed_positions", "", .rows = c->max_positions + 2, .cols = h},
        {"model.decoder.project_in", "", .rows = projected * h, .cols = e},
        {"model.decoder.project_out", "", .rows = projected * e, .cols = h},
    };
    const peft__module layer[] = {
        {"self_attn.q_proj", "", .rows = h, .cols = h, .bias = true},
        {"self_attn.k_proj", "", .rows = h, .cols = h, .bias = true},
        {"self_attn.v_proj", "", .rows = h, .cols = h, .bias = true},
        {"self_attn.out_proj", "", .rows = h, .cols = h, .bias = true},
        {"self_attn_layer_norm", "", .rows = 1, .cols = h, .bias = true},
        {"fc1", "", .rows = f, .cols = h, .bias = true},
        {"fc2", "", .rows = h, .cols = f, .bias = true},
        {"final_layer_norm", "", .rows = 1, .cols = h, .bias = true},
    };
    const peft__module after[] = {
        {"model.decoder.final_layer_norm", "", .rows = c->final_norm ? 1 : 0, .cols = h, .bias = true},
        {"lm_head", "", .rows = c->vocab_size, .cols = e, .optional = c->tie_embeddings},
    };
    const peft__modules all = {before, layer, after, PEFT__COUNT(before), PEFT__COUNT(layer), PEFT__COUNT(after),
                               "model.decoder.layers", "blk"};
    return peft__modules_tensor(&all, c->layers, a, index, out);
}

/* ---- sites and recording ------------------------------------------------------------------------------------------------- */

typedef struct opt_layer {
    const peft__site *q, *k, *v, *kv, *o, *attn, *norm, *up, *down, *ffn, *ffn_norm;
} opt_layer;

typedef struct opt_model {
    const peft__site *embed, *in, *input, *positions, *norm, *out, *head; /* in, out, norm: NULL where there is none */
    opt_layer *layers;                                                   /* [config.layers] */
} opt_model;

static void opt_layer_sites(peft__sites *b, const peft__config *c, opt_layer *l) {
    l->norm = peft__sites_norm(b, PEFT__ROLE_ATTN, "self_attn_layer_norm", false, c->norm_eps);
    l->q = peft__sites_linear(b, PEFT__ROLE_Q, "self_attn.q_proj");
    l->k = peft__sites_linear(b, PEFT__ROLE_K, "self_attn.k_proj");
    l->v = peft__sites_linear(b, PEFT__ROLE_V, "self_attn.v_proj");
    l->kv = peft__sites_plain(b, PEFT__SITE_KV, PEFT__ROLE_ATTN, "self_attn", c->hidden_size);
    l->o = peft__sites_linear(b, PEFT__ROLE_O, "self_attn.out_proj");
    l->attn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_ATTN, "self_attn", c->hidden_size);
    l->ffn_norm = peft__sites_norm(b, PEFT__ROLE_FFN, "final_layer_norm", false, c->norm_eps);
    l->up = peft__sites_linear(b, PEFT__ROLE_UP, "fc1");
    l->down = peft__sites_linear(b, PEFT__ROLE_DOWN, "fc2");
    l->ffn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_FFN, "fc2", c->hidden_size);
}

static peft_status opt_sites(struct peft_model *m) {
    const peft__config *c = &m->config;
    bool projected = c->embed_size != c->hidden_size;
    peft__sites b;
    opt_model *d = peft__arena_alloc(&m->arena, sizeof *d);
    if (d == NULL) { return PEFT_E_NOMEM; }
    memset(d, 0, sizeof *d);
    d->layers = peft__arena_alloc(&m->arena, (size_t)c->layers * sizeof *d->layers);
    if (d->layers == NULL) { return PEFT_E_NOMEM; }
    m->arch_data = d;
    peft__sites_begin(&b, m, 7 + (size_t)c->layers * 11);
    d->embed = peft__sites_embed(&b, PEFT__ROLE_TOKENS, "model.decoder.embed_tokens");
    d->input = peft__sites_plain(&b, PEFT__SITE_INPUT, PEFT__ROLE_NONE, "", c->embed_size);
    if (projected) { d->in = peft__sites_linear(&b, PEFT__ROLE_NONE, "model.decoder.project_in"); }
    d->positions = peft__sites_embed(&b, PEFT__ROLE_POSITIONS, "model.decoder.embed_positions");
    for (int64_t i = 0; i < c->layers; i++) {
        peft__sites_in(&b, (int32_t)i, peft__arena_printf(&m->arena, "model.decoder.layers.%lld", (long long)i));
        opt_layer_sites(&b, c, &d->layers[i]);
    }
    peft__sites_in(&b, -1, "");
    if (c->final_norm) { d->norm = peft__sites_norm(&b, PEFT__ROLE_FINAL, "model.decoder.final_layer_norm", false, c->norm_eps); }
    if (projected) { d->out = peft__sites_linear(&b, PEFT__ROLE_NONE, "model.decoder.project_out"); }
    d->head = peft__sites_head(&b, "lm_head", d->embed);
    return b.st;
}

static peft__val opt_attention(const peft__config *c, const opt_layer *l, peft__tape *t, peft__val h, int32_t layer) {
    peft__val q = peft__site_linear(t, l->q, h);
    peft__val k = peft__site_linear(t, l->k, h);
    peft__val v = peft__site_linear(t, l->v, h);
    return peft__site_linear(t, l->o, peft__decoder_attention(c, l->kv, t, h, q, k, v, layer));
}

static peft__val opt_layer_record(const peft__config *c, const opt_layer *l, peft__tape *t, peft__val x, int32_t layer) {
    peft__val h = opt_attention(c, l, t, c->norm_first ? peft__site_norm(t, l->norm, x) : x, layer);
    x = peft__op_add(t, x, peft__site_stream(t, l->attn, h, x));
    if (!c->norm_first) { x = peft__site_norm(t, l->norm, x); }
    h = peft__site_linear(t, l->up, c->norm_first ? peft__site_norm(t, l->ffn_norm, x) : x);
    h = peft__site_linear(t, l->down, peft__op_act(t, c->act, h));
    x = peft__op_add(t, x, peft__site_stream(t, l->ffn, h, x));
    return c->norm_first ? x : peft__site_norm(t, l->ffn_norm, x);
}

static void opt_record(const struct peft_model *m, peft__tape *t) {
    const peft__config *c = &m->config;
    const opt_model *d = m->arch_data;
    t->segments = (int32_t)c->layers + 2;
    t->segment = 0;
    peft__val x = peft__site_input(t, d->input, peft__site_embed(t, d->embed, 1));
    if (d->in != NULL) { x = peft__site_linear(t, d->in, x); }
    x = peft__site_positions(t, d->positions, x, 2);
    for (int32_t i = 0; i < (int32_t)c->layers; i++) {
        t->segment = i + 1;
        x = opt_layer_record(c, &d->layers[i], t, x, i);
    }
    t->segment = (int32_t)c->layers + 1;
    if (d->norm != NULL) { x = peft__site_norm(t, d->norm, x); }
    if (d->out != NULL) { x = peft__site_linear(t, d->out, x); }
    peft__model_head(m, t, d->head, x, 0, 1);
}

const peft__arch peft__arch_opt = {
    .name = "opt",
    .model_types = opt_types,
    .architectures = opt_classes,
    .gguf_archs = opt_ggufs,
    .heads = peft__heads_decoder,
    .n_heads = PEFT__HEADS_DECODER,
    .prefix = "",
    .gguf_act = PEFT__ACT_RELU,
    .read_config = opt_read_config,
    .write_config = opt_write_config,
    .tensor = opt_tensor,
    .sites = opt_sites,
    .record = opt_record,
};
