/* bert.c - BERT (Devlin et al. 2019, arXiv 1810.04805) as transformers' BertModel computes it:
 *
 *   x = layer_norm(E[ids] + P[positions] + T[types]);  each layer, norms behind the sums:
 *   a = attention(x Wq + b, x Wk + b, x Wv + b) Wo + b, every token sees every token;  x = layer_norm(x + a)
 *   x = layer_norm(x + gelu(x Wi + b) Wd + b)
 *
 * The heads are those of BertFor*: pooler.dense with tanh before a classifier of rows, a transform before the vocabulary.
 *
 * Left out: decoders of this kind (is_decoder), relative positions. */
#include <math.h>

#include "model/parts.h"

static const char *const bert_types[] = {"bert", NULL};
static const char *const bert_classes[] = {"BertForMaskedLM"};
static const char *const bert_ggufs[] = {"bert", NULL};

static const peft__head_layout bert_heads[] = {
    {.task = PEFT__TASK_EMBEDDING},
    {.task = PEFT__TASK_MASKED_LM, .dense = "cls.predictions.transform.dense", .dense_bias = true, .act = PEFT__HEAD_ACT_CONFIG,
     .norm = "cls.predictions.transform.LayerNorm", .norm_bias = true, .out = "cls.predictions.decoder", .out_bias = true,
     .out_bias_name = "cls.predictions.bias"},
    {.task = PEFT__TASK_SEQUENCE, .pool = PEFT__POOL_FIRST, .dense = "bert.pooler.dense", .dense_bias = true, .act = PEFT__ACT_TANH,
     .out = "classifier", .out_bias = true},
    {.task = PEFT__TASK_TOKENS, .out = "classifier", .out_bias = true},
    {.task = PEFT__TASK_SPAN, .out = "qa_outputs", .out_bias = true},
};

const char *peft__encoder_base(const peft__config *c, const char *base) {
    return c->task.kind == PEFT__TASK_EMBEDDING ? "" : base;
}

/* ---- config -------------------------------------------------------------------------------------------------------------- */

peft_status peft__bert_read(const peft__json *config, const char *what, peft__config *c) {
    peft_status st = PEFT_OK;
    const int64_t width = PEFT__MODEL_MAX_WIDTH;
    const char *positions = NULL;
    TRY(peft__config_need(config, what, "hidden_size", width, &c->hidden_size));
    TRY(peft__config_need(config, what, "num_hidden_layers", PEFT__MODEL_MAX_LAYERS, &c->layers));
    TRY(peft__config_need(config, what, "num_attention_heads", width, &c->heads));
    TRY(peft__config_need(config, what, "intermediate_size", width, &c->intermediate_size));
    TRY(peft__config_need(config, what, "vocab_size", PEFT__MODEL_MAX_VOCAB, &c->vocab_size));
    TRY(peft__json_int(config, what, "max_position_embeddings", 512, 1, PEFT__MODEL_MAX_POSITIONS, &c->max_positions));
    TRY(peft__json_int(config, what, "type_vocab_size", 2, 0, PEFT__MODEL_MAX_VOCAB, &c->type_vocab));
    TRY(peft__json_float(config, what, "layer_norm_eps", 1e-12, &c->norm_eps));
    TRY(peft__json_bool(config, what, "tie_word_embeddings", true, &c->tie_embeddings));
    TRY(peft__config_act(config, what, "hidden_act", "gelu", &c->act));
    TRY(peft__config_only(config, what, "is_decoder", false, false));
    TRY(peft__config_only(config, what, "add_cross_attention", false, false));
    TRY(peft__json_str(config, what, "position_embedding_type", "absolute", &positions));
    if (strcmp(positions, "absolute") != 0) {
        FAIL(PEFT_E_UNSUPPORTED, "%s: key \"position_embedding_type\" is \"%s\", only \"absolute\" is supported", what, positions);
    }
    TRY(peft__config_ids(config, what, -1, -1, c));
    c->kv_heads = c->heads;
    c->attention_bias = c->mlp_bias = true;
    TRY(peft__config_heads(what, "hidden_size", c));
out:
    return st;
}

static peft_status bert_read_config(const peft__json *config, const char *what, peft__arena *a, peft__config *c) {
    (void)a;
    return peft__bert_read(config, what, c);
}

static peft_status bert_read_gguf(const peft__gguf *g, peft__arena *a, peft__config *c) {
    peft_status st = PEFT_OK;
    (void)a;
    const int64_t width = PEFT__MODEL_MAX_WIDTH;
    int64_t pooling = 0;
    TRY(peft__config_need_gguf(g, "bert.embedding_length", width, &c->hidden_size));
    TRY(peft__config_need_gguf(g, "bert.block_count", PEFT__MODEL_MAX_LAYERS, &c->layers));
    TRY(peft__config_need_gguf(g, "bert.attention.head_count", width, &c->heads));
    TRY(peft__config_need_gguf(g, "bert.feed_forward_length", width, &c->intermediate_size));
    TRY(peft__config_need_gguf(g, "bert.context_length", PEFT__MODEL_MAX_POSITIONS, &c->max_positions));
    TRY(peft__config_float_gguf(g, "bert.attention.layer_norm_epsilon", 1e-12, &c->norm_eps));
    TRY(peft__config_vocab_gguf(g, "bert.vocab_size", c));
    TRY(peft__config_ids_gguf(g, c));
    TRY(peft__gguf_int(g, "bert.pooling_type", 1, 0, INT32_MAX, &pooling)); /* 1: mean, 2: cls, 3: last */
    c->task.pool = pooling == 2 ? PEFT__POOL_FIRST : pooling == 3 ? PEFT__POOL_LAST : PEFT__POOL_NONE;
    const peft__io_tensor *types = peft__gguf_find(g, "token_types.weight");
    c->type_vocab = types != NULL && types->ndim == 2 ? types->dims[0] : 0;
    c->kv_heads = c->heads;
    c->act = PEFT__ACT_GELU;
    c->tie_embeddings = c->attention_bias = c->mlp_bias = true;
    TRY(peft__config_heads("metadata", "bert.embedding_length", c));
out:
    return st;
}

void peft__bert_write(const peft__config *c, peft__json_out *j) {
    const struct {
        const char *key;
        int64_t value;
    } sizes[] = {{"hidden_size", c->hidden_size}, {"num_hidden_layers", c->layers}, {"num_attention_heads", c->heads},
                 {"intermediate_size", c->intermediate_size}, {"max_position_embeddings", peft__config_stated(c)},
                 {"type_vocab_size", c->type_vocab}, {"vocab_size", c->vocab_size}};
    for (size_t i = 0; i < PEFT__COUNT(sizes); i++) {
        peft__json_key(j, sizes[i].key);
        peft__json_put_int(j, sizes[i].value);
    }
    peft__json_key(j, "layer_norm_eps");
    peft__json_put_float(j, c->norm_eps);
    peft__json_key(j, "hidden_act");
    peft__json_put_text(j, peft__config_act_name(c->act));
}

static peft_status bert_write_gguf(const struct peft_model *m, peft__gguf_out *w) {
    const peft__config *c = &m->config;
    const struct {
        const char *key;
        int64_t value;
    } sizes[] = {{"bert.vocab_size", c->vocab_size}, {"bert.context_length", c->max_positions}, {"bert.embedding_length", c->hidden_size},
                 {"bert.block_count", c->layers}, {"bert.feed_forward_length", c->intermediate_size},
                 {"bert.attention.head_count", c->heads}, {"tokenizer.ggml.token_type_count", c->type_vocab},
                 {"bert.pooling_type", c->task.pool == PEFT__POOL_FIRST ? 2 : c->task.pool == PEFT__POOL_LAST ? 3 : 1}};
    if (c->type_vocab == 0) { return peft__fail(PEFT_E_UNSUPPORTED, "GGUF has no bert models without token types"); }
    for (size_t i = 0; i < PEFT__COUNT(sizes); i++) { peft__gguf_put_u32(w, sizes[i].key, (uint32_t)sizes[i].value); }
    peft__gguf_put_f32(w, "bert.attention.layer_norm_epsilon", (float)c->norm_eps);
    peft__gguf_put_bool(w, "bert.attention.causal", false);
    return PEFT_OK;
}

/* ---- tensors ------------------------------------------------------------------------------------------------------------- */

static const peft__bert_names bert_names = {
    .base = "bert.", .layers = "encoder.layer", .q = "attention.self.query", .k = "attention.self.key", .v = "attention.self.value",
    .kv = "attention.self", .o = "attention.output.dense", .attn = "attention.output", .attn_norm = "attention.output.LayerNorm",
    .up = "intermediate.dense", .down = "output.dense", .ffn = "output", .ffn_norm = "output.LayerNorm",
};

bool peft__bert_tensor(const peft__config *c, const peft__bert_names *n, peft__arena *a, size_t index, struct peft__tensor_spec *out) {
    const int64_t h = c->hidden_size, f = c->intermediate_size;
    const peft__module before[] = {
        {.hf = "embeddings.word_embeddings", .gguf = "token_embd", .rows = c->vocab_size, .cols = h},
        {.hf = "embeddings.position_embeddings", .gguf = "position_embd", .rows = peft__config_stated(c), .cols = h},
        {.hf = "embeddings.token_type_embeddings", .gguf = "token_types", .rows = c->type_vocab, .cols = h, .matrix = true},
        {.hf = "embeddings.LayerNorm", .gguf = "token_embd_norm", .rows = 1, .cols = h, .bias = true},
    };
    const peft__module layer[] = {
        {.hf = n->q, .gguf = "attn_q", .rows = h, .cols = h, .bias = true},
        {.hf = n->k, .gguf = "attn_k", .rows = h, .cols = h, .bias = true},
        {.hf = n->v, .gguf = "attn_v", .rows = h, .cols = h, .bias = true},
        {.hf = n->o, .gguf = "attn_output", .rows = h, .cols = h, .bias = true},
        {.hf = n->attn_norm, .gguf = "attn_output_norm", .rows = 1, .cols = h, .bias = true},
        {.hf = n->up, .gguf = "ffn_up", .rows = f, .cols = h, .bias = true},
        {.hf = n->down, .gguf = "ffn_down", .rows = h, .cols = f, .bias = true},
        {.hf = n->ffn_norm, .gguf = "layer_output_norm", .rows = 1, .cols = h, .bias = true},
    };
    const peft__modules all = {before, layer, NULL, PEFT__COUNT(before), PEFT__COUNT(layer), 0, n->layers, "blk"};
    return peft__modules_tensor_in(&all, peft__encoder_base(c, n->base), c->layers, a, index, out);
}

static bool bert_tensor(const peft__config *c, peft__arena *a, size_t index, struct peft__tensor_spec *out) {
    return peft__bert_tensor(c, &bert_names, a, index, out);
}

/* ---- sites and recording ------------------------------------------------------------------------------------------------- */

typedef struct bert_layer {
    const peft__site *q, *k, *v, *kv, *o, *attn, *attn_norm, *up, *down, *ffn, *ffn_norm;
} bert_layer;

typedef struct bert_model {
    const peft__site *embed, *input, *positions, *types, *norm;
    bert_layer *layers; /* [config.layers] */
} bert_model;

static void bert_layer_sites(peft__sites *b, const peft__config *c, const peft__bert_names *n, bert_layer *l) {
    l->q = peft__sites_linear(b, PEFT__ROLE_Q, n->q);
    l->k = peft__sites_linear(b, PEFT__ROLE_K, n->k);
    l->v = peft__sites_linear(b, PEFT__ROLE_V, n->v);
    l->kv = peft__sites_plain(b, PEFT__SITE_KV, PEFT__ROLE_ATTN, n->kv, c->hidden_size);
    l->o = peft__sites_linear(b, PEFT__ROLE_O, n->o);
    l->attn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_ATTN, n->attn, c->hidden_size);
    l->attn_norm = peft__sites_norm(b, PEFT__ROLE_ATTN, n->attn_norm, false, c->norm_eps);
    peft__sites_norm_of(b, l->attn, l->attn_norm);
    l->up = peft__sites_linear(b, PEFT__ROLE_UP, n->up);
    l->down = peft__sites_linear(b, PEFT__ROLE_DOWN, n->down);
    l->ffn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_FFN, n->ffn, c->hidden_size);
    l->ffn_norm = peft__sites_norm(b, PEFT__ROLE_FFN, n->ffn_norm, false, c->norm_eps);
    peft__sites_norm_of(b, l->ffn, l->ffn_norm);
}

peft_status peft__bert_sites(struct peft_model *m, const peft__bert_names *n) {
    const peft__config *c = &m->config;
    const char *prefix = peft__encoder_base(c, n->base);
    peft__sites b;
    bert_model *d = peft__arena_alloc(&m->arena, sizeof *d);
    if (d == NULL) { return PEFT_E_NOMEM; }
    memset(d, 0, sizeof *d);
    d->layers = peft__arena_alloc(&m->arena, (size_t)c->layers * sizeof *d->layers);
    if (d->layers == NULL) { return PEFT_E_NOMEM; }
    m->arch_data = d;
    peft__sites_begin(&b, m, 5 + (size_t)c->layers * 11);
    peft__sites_in(&b, -1, peft__arena_printf(&m->arena, "%sembeddings", prefix));
    d->embed = peft__sites_embed(&b, PEFT__ROLE_TOKENS, "word_embeddings");
    d->input = peft__sites_plain(&b, PEFT__SITE_INPUT, PEFT__ROLE_NONE, "", c->hidden_size);
    d->positions = peft__sites_embed(&b, PEFT__ROLE_POSITIONS, "position_embeddings");
    if (c->type_vocab > 0) { d->types = peft__sites_embed(&b, PEFT__ROLE_TYPES, "token_type_embeddings"); }
    d->norm = peft__sites_norm(&b, PEFT__ROLE_NONE, "LayerNorm", false, c->norm_eps);
    for (int64_t i = 0; i < c->layers; i++) {
        peft__sites_in(&b, (int32_t)i, peft__arena_printf(&m->arena, "%s%s.%lld", prefix, n->layers, (long long)i));
        bert_layer_sites(&b, c, n, &d->layers[i]);
    }
    return b.st;
}

static peft_status bert_sites(struct peft_model *m) { return peft__bert_sites(m, &bert_names); }

static peft__val bert_attention(const peft__config *c, const bert_layer *l, peft__tape *t, peft__val x, int32_t layer) {
    peft__val q = peft__site_linear(t, l->q, x);
    peft__val k = peft__site_linear(t, l->k, x);
    peft__val v = peft__site_linear(t, l->v, x);
    return peft__site_linear(t, l->o, peft__encoder_attention(c, l->kv, t, x, q, k, v, layer));
}

void peft__bert_record(const struct peft_model *m, peft__tape *t) {
    const peft__config *c = &m->config;
    const bert_model *d = m->arch_data;
    t->segments = (int32_t)c->layers + 2;
    t->segment = 0;
    peft__val x = peft__site_embed(t, d->embed, 1);
    x = peft__site_input(t, d->input, x); /* virtual tokens get positions and types too */
    x = peft__site_positions(t, d->positions, x, c->position_offset);
    if (d->types != NULL) { x = peft__site_types(t, d->types, x); }
    x = peft__site_norm(t, d->norm, x);
    for (int32_t i = 0; i < (int32_t)c->layers; i++) {
        const bert_layer *l = &d->layers[i];
        t->segment = i + 1;
        peft__val h = bert_attention(c, l, t, x, i);
        x = peft__site_norm(t, l->attn_norm, peft__op_add(t, x, peft__site_stream(t, l->attn, h, x)));
        h = peft__site_linear(t, l->down, peft__op_act(t, c->act, peft__site_linear(t, l->up, x)));
        x = peft__site_norm(t, l->ffn_norm, peft__op_add(t, x, peft__site_stream(t, l->ffn, h, x)));
    }
    t->segment = (int32_t)c->layers + 1;
    peft__model_head(m, t, NULL, x, 0, 1);
}

const peft__arch peft__arch_bert = {
    .name = "bert",
    .model_types = bert_types,
    .architectures = bert_classes,
    .gguf_archs = bert_ggufs,
    .lm_task = -1,
    .heads = bert_heads,
    .n_heads = PEFT__COUNT(bert_heads),
    .prefix = "bert.",
    .class_prefix = "Bert",
    .gguf_act = PEFT__ACT_GELU,
    .read_config = bert_read_config,
    .read_gguf = bert_read_gguf,
    .write_config = peft__bert_write,
    .write_gguf = bert_write_gguf,
    .tensor = bert_tensor,
    .sites = bert_sites,
    .record = peft__bert_record,
};
