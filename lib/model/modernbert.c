/* modernbert.c - ModernBERT (Warner et al. 2024, arXiv 2412.13663), as transformers' ModernBertModel computes it:
 *
 *   x = layer_norm(E[ids]);  each layer, norms before its parts:
 *   x = x + attention(rope(q), rope(k), v) Wo,  q, k, v = layer_norm(x) Wqkv, where the first layer has no norm;
 *   x = x + (act(g) * u) Wo,  g, u = layer_norm(x) Wi
 *
 * then a last norm. Each global_attn_every_n_layers-th layer sees all of a row and turns by global_rope_theta; the others see
 * local_attention / 2 tokens on either side and turn by local_rope_theta. Biases are as the config says: usually there are none.
 *
 * Left out: rope scalings; GGUF, which llama.cpp's older releases do not know. */
#include "model/parts.h"

static const char *const modernbert_types[] = {"modernbert", NULL};
static const char *const modernbert_classes[] = {"ModernBertForMaskedLM"};
static const char *const modernbert_ggufs[] = {NULL};

static const peft__head_layout modernbert_heads[] = {
    {.task = PEFT__TASK_EMBEDDING},
    {.task = PEFT__TASK_MASKED_LM, .dense = "head.dense", .norm = "head.norm", .out = "decoder"},
    {.task = PEFT__TASK_SEQUENCE, .dense = "head.dense", .norm = "head.norm", .out = "classifier", .out_bias = true},
    {.task = PEFT__TASK_TOKENS, .dense = "head.dense", .norm = "head.norm", .out = "classifier", .out_bias = true},
    {.task = PEFT__TASK_SPAN, .dense = "head.dense", .norm = "head.norm", .out = "classifier", .out_bias = true},
};

static void modernbert_fit_head(const peft__config *c, peft__head_layout *h) {
    h->dense_bias = c->head_bias;
    h->act = c->head_act;
    h->norm_bias = c->norm_bias;
    if (h->task == PEFT__TASK_MASKED_LM) { h->out_bias = c->lm_bias; }
    if (h->task == PEFT__TASK_SEQUENCE) { h->pool = c->head_pool; }
}

/* ---- config -------------------------------------------------------------------------------------------------------------- */

/* A base of rotary positions: a key of its own, in newer configs a member of "rope_parameters". */
static peft_status modernbert_read_theta(const peft__json *config, const char *what, const char *key, const char *member, double dflt,
                                         double *out) {
    peft_status st = PEFT_OK;
    const char *type = NULL;
    const peft__json *own = peft__json_find(peft__json_find(config, "rope_parameters"), member);
    TRY(peft__json_float(config, what, key, dflt, out));
    if (own != NULL) {
        TRY(peft__json_float(own, what, "rope_theta", *out, out));
        TRY(peft__json_str(own, what, "rope_type", "default", &type));
        if (strcmp(type, "default") != 0) {
            FAIL(PEFT_E_UNSUPPORTED, "%s: \"%s\" has the rope scaling \"%s\", only default is supported", what, member, type);
        }
    }
    if (!(*out > 0)) { FAIL(PEFT_E_FORMAT, "%s: key \"%s\" is not above 0", what, key); }
out:
    return st;
}

static peft_status modernbert_read_windows(const peft__json *config, const char *what, peft__config *c) {
    peft_status st = PEFT_OK;
    int64_t every = 0, local = 0;
    bool listed = false;
    if (peft__json_find(config, "rope_scaling") != NULL) {
        FAIL(PEFT_E_UNSUPPORTED, "%s: key \"rope_scaling\" is set, which is not supported for modernbert", what);
    }
    TRY(peft__json_int(config, what, "global_attn_every_n_layers", 3, 1, PEFT__MODEL_MAX_LAYERS, &every));
    TRY(peft__json_int(config, what, "local_attention", 128, 2, PEFT__MODEL_MAX_POSITIONS, &local));
    TRY(modernbert_read_theta(config, what, "global_rope_theta", "full_attention", 160000, &c->rope_theta));
    TRY(modernbert_read_theta(config, what, "local_rope_theta", "sliding_attention", 10000, &c->rope_local_theta));
    const peft__json *theta = peft__json_get(config, "local_rope_theta");
    if (theta != NULL && theta->kind == PEFT__JSON_NULL) { c->rope_local_theta = c->rope_theta; }
    c->window = local / 2;
    TRY(peft__config_layer_types(config, what, c, &listed));
    for (int64_t i = 0; !listed && i < c->layers; i++) { peft__config_set_windowed(c, i, i % every != 0); }
out:
    return st;
}

static peft_status modernbert_read_head(const peft__json *config, const char *what, peft__config *c) {
    peft_status st = PEFT_OK;
    const char *pool = NULL;
    TRY(peft__json_bool(config, what, "classifier_bias", false, &c->head_bias));
    TRY(peft__json_bool(config, what, "decoder_bias", true, &c->lm_bias));
    TRY(peft__config_act(config, what, "classifier_activation", "gelu", &c->head_act));
    TRY(peft__json_str(config, what, "classifier_pooling", "cls", &pool));
    if (strcmp(pool, "cls") != 0 && strcmp(pool, "mean") != 0) {
        FAIL(PEFT_E_UNSUPPORTED, "%s: key \"classifier_pooling\" is \"%s\", expected cls or mean", what, pool);
    }
    c->head_pool = strcmp(pool, "mean") == 0 ? PEFT__POOL_MEAN : PEFT__POOL_FIRST;
out:
    return st;
}

static peft_status modernbert_read_config(const peft__json *config, const char *what, peft__arena *a, peft__config *c) {
    peft_status st = PEFT_OK;
    const int64_t width = PEFT__MODEL_MAX_WIDTH;
    (void)a;
    TRY(peft__config_need(config, what, "hidden_size", width, &c->hidden_size));
    TRY(peft__config_need(config, what, "num_hidden_layers", PEFT__MODEL_MAX_LAYERS, &c->layers));
    TRY(peft__config_need(config, what, "num_attention_heads", width, &c->heads));
    TRY(peft__config_need(config, what, "intermediate_size", width, &c->intermediate_size));
    TRY(peft__config_need(config, what, "vocab_size", PEFT__MODEL_MAX_VOCAB, &c->vocab_size));
    TRY(peft__json_int(config, what, "max_position_embeddings", 8192, 1, PEFT__MODEL_MAX_POSITIONS, &c->max_positions));
    TRY(peft__json_float(config, what, "norm_eps", 1e-5, &c->norm_eps));
    TRY(peft__json_bool(config, what, "norm_bias", false, &c->norm_bias));
    TRY(peft__json_bool(config, what, "attention_bias", false, &c->attention_bias));
    TRY(peft__json_bool(config, what, "mlp_bias", false, &c->mlp_bias));
    TRY(peft__json_bool(config, what, "tie_word_embeddings", true, &c->tie_embeddings));
    TRY(peft__config_act(config, what, "hidden_activation", "gelu", &c->act));
    TRY(peft__config_ids(config, what, 50281, 50282, c));
    c->kv_heads = c->heads;
    TRY(peft__config_heads(what, "hidden_size", c));
    TRY(modernbert_read_windows(config, what, c));
    TRY(modernbert_read_head(config, what, c));
out:
    return st;
}

/* Which layers see everything, as a period where there is one. */
static int64_t modernbert_every(const peft__config *c) {
    int64_t every = 1;
    while (every < c->layers && peft__config_windowed(c, every)) { every++; }
    return every;
}

static void modernbert_write_config(const peft__config *c, peft__json_out *j) {
    const struct {
        const char *key;
        int64_t value;
    } sizes[] = {{"hidden_size", c->hidden_size}, {"num_hidden_layers", c->layers}, {"num_attention_heads", c->heads},
                 {"intermediate_size", c->intermediate_size}, {"max_position_embeddings", c->max_positions},
                 {"vocab_size", c->vocab_size}, {"local_attention", 2 * c->window}, {"global_attn_every_n_layers", modernbert_every(c)}};
    const struct {
        const char *key;
        bool value;
    } switches[] = {{"norm_bias", c->norm_bias}, {"attention_bias", c->attention_bias}, {"mlp_bias", c->mlp_bias},
                    {"classifier_bias", c->head_bias}, {"decoder_bias", c->lm_bias}};
    const struct {
        const char *key;
        double value;
    } numbers[] = {{"norm_eps", c->norm_eps}, {"global_rope_theta", c->rope_theta}, {"local_rope_theta", c->rope_local_theta}};
    for (size_t i = 0; i < PEFT__COUNT(sizes); i++) {
        peft__json_key(j, sizes[i].key);
        peft__json_put_int(j, sizes[i].value);
    }
    for (size_t i = 0; i < PEFT__COUNT(switches); i++) {
        peft__json_key(j, switches[i].key);
        peft__json_put_bool(j, switches[i].value);
    }
    for (size_t i = 0; i < PEFT__COUNT(numbers); i++) {
        peft__json_key(j, numbers[i].key);
        peft__json_put_float(j, numbers[i].value);
    }
    peft__json_key(j, "hidden_activation");
    peft__json_put_text(j, peft__config_act_name(c->act));
    peft__json_key(j, "classifier_activation");
    peft__json_put_text(j, peft__config_act_name(c->head_act));
    peft__json_key(j, "classifier_pooling");
    peft__json_put_text(j, c->head_pool == PEFT__POOL_MEAN ? "mean" : "cls");
    peft__config_write_layer_types(c, j);
}

/* ---- tensors ------------------------------------------------------------------------------------------------------------- */

static bool modernbert_tensor(const peft__config *c, peft__arena *a, size_t index, struct peft__tensor_spec *out) {
    const int64_t h = c->hidden_size, f = c->intermediate_size;
    const bool attn = c->attention_bias, mlp = c->mlp_bias, norm = c->norm_bias;
    const peft__module before[] = {
        {.hf = "embeddings.tok_embeddings", .gguf = "", .rows = c->vocab_size, .cols = h},
        {.hf = "embeddings.norm", .gguf = "", .rows = 1, .cols = h, .bias = norm},
    };
    const peft__module layer[] = {
        {.hf = "attn_norm", .gguf = "", .rows = 1, .cols = h, .bias = norm},
        {.hf = "attn.Wqkv", .gguf = "", .rows = 3 * h, .cols = h, .bias = attn},
        {.hf = "attn.Wo", .gguf = "", .rows = h, .cols = h, .bias = attn},
        {.hf = "mlp_norm", .gguf = "", .rows = 1, .cols = h, .bias = norm},
        {.hf = "mlp.Wi", .gguf = "", .rows = 2 * f, .cols = h, .bias = mlp},
        {.hf = "mlp.Wo", .gguf = "", .rows = h, .cols = f, .bias = mlp},
    };
    const peft__module after[] = {{.hf = "final_norm", .gguf = "", .rows = 1, .cols = h, .bias = norm}};
    const peft__modules all = {before, layer, after, PEFT__COUNT(before), PEFT__COUNT(layer), PEFT__COUNT(after), "layers", "blk"};
    size_t first = norm ? 3 : 2, own = norm ? 2 : 1; /* where the first layer's norm would be, and of how many tensors */
    return peft__modules_tensor_in(&all, peft__encoder_base(c, "model."), c->layers, a, index < first ? index : index + own, out);
}

/* ---- sites and recording ------------------------------------------------------------------------------------------------- */

typedef struct modernbert_layer {
    const peft__site *attn_norm, *qkv, *kv, *o, *attn, *ffn_norm, *up, *down, *ffn; /* attn_norm NULL: none */
} modernbert_layer;

typedef struct modernbert_model {
    const peft__site *embed, *input, *norm, *last;
    modernbert_layer *layers; /* [config.layers] */
    peft__rope rope, local;   /* of layers that see everything, and of those with a window */
} modernbert_model;

static void modernbert_layer_sites(peft__sites *b, const peft__config *c, bool first, modernbert_layer *l) {
    l->attn_norm = first ? NULL : peft__sites_norm(b, PEFT__ROLE_ATTN, "attn_norm", false, c->norm_eps);
    l->qkv = peft__sites_linear(b, PEFT__ROLE_QKV, "attn.Wqkv");
    l->kv = peft__sites_plain(b, PEFT__SITE_KV, PEFT__ROLE_ATTN, "attn", c->hidden_size);
    l->o = peft__sites_linear(b, PEFT__ROLE_O, "attn.Wo");
    l->attn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_ATTN, "attn", c->hidden_size);
    l->ffn_norm = peft__sites_norm(b, PEFT__ROLE_FFN, "mlp_norm", false, c->norm_eps);
    l->up = peft__sites_linear(b, PEFT__ROLE_UP, "mlp.Wi");
    l->down = peft__sites_linear(b, PEFT__ROLE_DOWN, "mlp.Wo");
    l->ffn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_FFN, "mlp", c->hidden_size);
}

static bool modernbert_ropes(const peft__config *c, peft__arena *a, modernbert_model *d) {
    peft__config local = *c;
    local.rope_theta = c->rope_local_theta;
    return peft__rope_make(c, c->head_dim, a, &d->rope) && peft__rope_make(&local, c->head_dim, a, &d->local);
}

static peft_status modernbert_sites(struct peft_model *m) {
    const peft__config *c = &m->config;
    const char *prefix = peft__encoder_base(c, "model.");
    peft__sites b;
    modernbert_model *d = peft__arena_alloc(&m->arena, sizeof *d);
    if (d == NULL) { return PEFT_E_NOMEM; }
    d->layers = peft__arena_alloc(&m->arena, (size_t)c->layers * sizeof *d->layers);
    if (d->layers == NULL || !modernbert_ropes(c, &m->arena, d)) { return PEFT_E_NOMEM; }
    m->arch_data = d;
    peft__sites_begin(&b, m, 4 + (size_t)c->layers * 9);
    peft__sites_in(&b, -1, peft__arena_printf(&m->arena, "%sembeddings", prefix));
    d->embed = peft__sites_embed(&b, PEFT__ROLE_TOKENS, "tok_embeddings");
    d->input = peft__sites_plain(&b, PEFT__SITE_INPUT, PEFT__ROLE_NONE, "", c->hidden_size);
    d->norm = peft__sites_norm(&b, PEFT__ROLE_NONE, "norm", false, c->norm_eps);
    for (int64_t i = 0; i < c->layers; i++) {
        peft__sites_in(&b, (int32_t)i, peft__arena_printf(&m->arena, "%slayers.%lld", prefix, (long long)i));
        modernbert_layer_sites(&b, c, i == 0, &d->layers[i]);
    }
    peft__sites_in(&b, -1, peft__arena_printf(&m->arena, "%sfinal_norm", prefix));
    d->last = peft__sites_norm(&b, PEFT__ROLE_FINAL, "", false, c->norm_eps);
    return b.st;
}

static peft__val modernbert_attention(const peft__config *c, const modernbert_model *d, const modernbert_layer *l, peft__tape *t,
                                      peft__val h, int32_t layer) {
    const peft__rope *rope = peft__config_windowed(c, layer) ? &d->local : &d->rope;
    int64_t wide = c->hidden_size;
    peft__val qkv = peft__site_linear(t, l->qkv, h);
    peft__val q = peft__op_rope(t, peft__tape_view(t, qkv, 0, wide), c->head_dim, rope);
    peft__val k = peft__op_rope(t, peft__tape_view(t, qkv, wide, wide), c->head_dim, rope);
    peft__val v = peft__tape_view(t, qkv, 2 * wide, wide);
    return peft__site_linear(t, l->o, peft__encoder_attention(c, l->kv, t, h, q, k, v, layer));
}

static void modernbert_record(const struct peft_model *m, peft__tape *t) {
    const peft__config *c = &m->config;
    const modernbert_model *d = m->arch_data;
    t->segments = (int32_t)c->layers + 2;
    t->segment = 0;
    peft__val x = peft__site_norm(t, d->norm, peft__site_input(t, d->input, peft__site_embed(t, d->embed, 1)));
    for (int32_t i = 0; i < (int32_t)c->layers; i++) {
        const modernbert_layer *l = &d->layers[i];
        t->segment = i + 1;
        peft__val h = l->attn_norm != NULL ? peft__site_norm(t, l->attn_norm, x) : x;
        h = modernbert_attention(c, d, l, t, h, i);
        x = peft__op_add(t, x, peft__site_stream(t, l->attn, h, x));
        peft__val both = peft__site_linear(t, l->up, peft__site_norm(t, l->ffn_norm, x));
        peft__val gate = peft__tape_view(t, both, 0, c->intermediate_size);
        peft__val up = peft__tape_view(t, both, c->intermediate_size, c->intermediate_size);
        h = peft__site_linear(t, l->down, peft__op_glu(t, c->act, gate, up));
        x = peft__op_add(t, x, peft__site_stream(t, l->ffn, h, x));
    }
    t->segment = (int32_t)c->layers + 1;
    peft__model_head(m, t, NULL, peft__site_norm(t, d->last, x), 0, 1);
}

const peft__arch peft__arch_modernbert = {
    .name = "modernbert",
    .model_types = modernbert_types,
    .architectures = modernbert_classes,
    .gguf_archs = modernbert_ggufs,
    .lm_task = -1,
    .heads = modernbert_heads,
    .n_heads = PEFT__COUNT(modernbert_heads),
    .prefix = "model.",
    .gguf_act = PEFT__ACT_GELU,
    .read_config = modernbert_read_config,
    .write_config = modernbert_write_config,
    .tensor = modernbert_tensor,
    .sites = modernbert_sites,
    .fit_head = modernbert_fit_head,
    .record = modernbert_record,
};
