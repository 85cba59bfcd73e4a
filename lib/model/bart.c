/* bart.c - BART (Lewis et al. 2020, arXiv 1910.13461) as transformers' BartForConditionalGeneration computes it:
 *
 *   x = layer_norm(s E[ids] + P[positions + 2]), s = sqrt(width) with scale_embedding; each layer, norms behind the sums:
 *   x = layer_norm(x + attention(x Wq + b, x Wk + b, x Wv + b) Wo + b)
 *   x = layer_norm(x + attention(x Wq + b, states Wk + b, states Wv + b) Wo + b) in the decoder, states the encoder's last x
 *   x = layer_norm(x + f(x W1 + b) W2 + b);   logits = x E' + final_logits_bias
 *
 * Left out: heads for classes and answers, mBART, GGUF, which llama.cpp does not know for it. */
#include <math.h>

#include "model/parts.h"

static const char *const bart_types[] = {"bart", NULL};
static const char *const bart_classes[] = {"BartForConditionalGeneration"};
static const char *const bart_ggufs[] = {NULL};

enum { BART_OFFSET = 2 }; /* rows of the tables of positions before position 0 */

/* ---- config -------------------------------------------------------------------------------------------------------------- */

static peft_status bart_read_config(const peft__json *config, const char *what, peft__arena *a, peft__config *c) {
    static const peft__seq2seq_keys keys = {.bos = 0, .eos = 2, .pad = 1, .start = 2, .forced_eos = 2};
    peft_status st = PEFT_OK;
    (void)a;
    const int64_t width = PEFT__MODEL_MAX_WIDTH, layers = PEFT__MODEL_MAX_LAYERS;
    bool scaled = false;
    TRY(peft__config_need(config, what, "vocab_size", PEFT__MODEL_MAX_VOCAB, &c->vocab_size));
    TRY(peft__config_need(config, what, "d_model", width, &c->hidden_size));
    TRY(peft__config_need(config, what, "encoder_layers", layers, &c->encoder_layers));
    TRY(peft__config_need(config, what, "decoder_layers", layers, &c->layers));
    TRY(peft__config_need(config, what, "encoder_attention_heads", width, &c->encoder_heads));
    TRY(peft__config_need(config, what, "decoder_attention_heads", width, &c->heads));
    TRY(peft__config_need(config, what, "encoder_ffn_dim", width, &c->encoder_ffn));
    TRY(peft__config_need(config, what, "decoder_ffn_dim", width, &c->intermediate_size));
    TRY(peft__json_int(config, what, "max_position_embeddings", 1024, 1, PEFT__MODEL_MAX_POSITIONS, &c->max_positions));
    TRY(peft__config_act(config, what, "activation_function", "gelu", &c->act));
    TRY(peft__json_bool(config, what, "scale_embedding", false, &scaled));
    TRY(peft__json_bool(config, what, "tie_word_embeddings", true, &c->tie_embeddings));
    TRY(peft__json_float(config, what, "init_std", 0.02, &c->init_range));
    TRY(peft__config_only(config, what, "add_bias_logits", false, false));
    TRY(peft__config_only(config, what, "normalize_before", false, false));
    TRY(peft__seq2seq_ids(config, what, &keys, c));
    c->norm_eps = 1e-5; /* PyTorch's, not in the config */
    c->kv_heads = c->heads;
    c->attention_bias = c->mlp_bias = true;
    c->embed_scale = scaled ? sqrt((double)c->hidden_size) : 0;
    if (c->hidden_size % c->encoder_heads != 0) {
        FAIL(PEFT_E_FORMAT, "%s: d_model %lld is no multiple of %lld attention heads of the encoder", what, (long long)c->hidden_size,
             (long long)c->encoder_heads);
    }
    TRY(peft__config_heads(what, "d_model", c));
out:
    return st;
}

static void bart_write_config(const peft__config *c, peft__json_out *j) {
    const struct {
        const char *key;
        int64_t value;
    } sizes[] = {{"d_model", c->hidden_size}, {"encoder_layers", c->encoder_layers}, {"decoder_layers", c->layers},
                 {"encoder_attention_heads", c->encoder_heads}, {"decoder_attention_heads", c->heads},
                 {"encoder_ffn_dim", c->encoder_ffn}, {"decoder_ffn_dim", c->intermediate_size},
                 {"max_position_embeddings", c->max_positions}, {"vocab_size", c->vocab_size}};
    for (size_t i = 0; i < PEFT__COUNT(sizes); i++) {
        peft__json_key(j, sizes[i].key);
        peft__json_put_int(j, sizes[i].value);
    }
    peft__json_key(j, "activation_function");
    peft__json_put_text(j, peft__config_act_name(c->act));
    peft__json_key(j, "scale_embedding");
    peft__json_put_bool(j, c->embed_scale > 0);
    peft__seq2seq_write_ids(c, j);
}

/* ---- tensors ------------------------------------------------------------------------------------------------------------- */

enum { BART_ATTENTION = 5, BART_FFN = 3 }; /* modules */

static void bart_attention_modules(int64_t h, bool cross, peft__module out[BART_ATTENTION]) {
    static const char *const names[2][BART_ATTENTION] = {
        {"self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.out_proj", "self_attn_layer_norm"},
        {"encoder_attn.k_proj", "encoder_attn.v_proj", "encoder_attn.q_proj", "encoder_attn.out_proj", "encoder_attn_layer_norm"}};
    for (int32_t i = 0; i < BART_ATTENTION; i++) {
        out[i] = (peft__module){.hf = names[cross][i], .gguf = "", .rows = i == BART_ATTENTION - 1 ? 1 : h, .cols = h, .bias = true};
    }
}

/* Tensor *index of a stack; false: fewer, *index less those there are. */
static bool bart_stack_tensor(const peft__config *c, bool decoder, peft__arena *a, size_t *index, struct peft__tensor_spec *out) {
    const int64_t h = c->hidden_size, f = decoder ? c->intermediate_size : c->encoder_ffn, n = decoder ? c->layers : c->encoder_layers;
    const peft__module before[] = {
        {.hf = decoder ? "decoder.embed_positions" : "encoder.embed_positions", .gguf = "",
         .rows = c->max_positions + BART_OFFSET, .cols = h},
        {.hf = decoder ? "decoder.layernorm_embedding" : "encoder.layernorm_embedding", .gguf = "", .rows = 1, .cols = h, .bias = true},
    };
    const peft__module ffn[BART_FFN] = {{.hf = "fc1", .gguf = "", .rows = f, .cols = h, .bias = true},
                                        {.hf = "fc2", .gguf = "", .rows = h, .cols = f, .bias = true},
                                        {.hf = "final_layer_norm", .gguf = "", .rows = 1, .cols = h, .bias = true}};
    peft__module layer[2 * BART_ATTENTION + BART_FFN];
    size_t parts = BART_ATTENTION;
    bart_attention_modules(h, false, layer);
    if (decoder) {
        bart_attention_modules(h, true, layer + parts);
        parts += BART_ATTENTION;
    }
    memcpy(layer + parts, ffn, sizeof ffn);
    const peft__modules all = {before, layer, NULL, PEFT__COUNT(before), parts + BART_FFN, 0,
                               decoder ? "decoder.layers" : "encoder.layers", ""};
    if (peft__modules_tensor_in(&all, "model.", n, a, *index, out)) { return true; }
    *index -= 3 + 2 * (size_t)n * (parts + BART_FFN); /* positions have no bias */
    return false;
}

static bool bart_tensor(const peft__config *c, peft__arena *a, size_t index, struct peft__tensor_spec *out) {
    out->gguf_name = "";
    out->rows = c->vocab_size;
    out->cols = c->hidden_size;
    out->ndim = 2;
    if (index == 0) {
        out->hf_name = "model.shared.weight";
        out->alias = "model.decoder.embed_tokens.weight";
        return true;
    }
    index--;
    if (bart_stack_tensor(c, false, a, &index, out) || bart_stack_tensor(c, true, a, &index, out)) { return true; }
    out->optional = index == 1 || c->tie_embeddings;
    if (index == 1) {
        out->rows = 1;
        out->cols = c->vocab_size;
    }
    out->hf_name = index == 0 ? "lm_head.weight" : "final_logits_bias";
    return index < 2;
}

/* ---- sites and recording ------------------------------------------------------------------------------------------------- */

typedef struct bart_layer {
    peft__seq2seq_sites self, cross;
    const peft__site *up, *down, *ffn, *ffn_norm;
} bart_layer;

typedef struct bart_stack {
    const peft__site *input, *positions, *norm;
    bart_layer *layers;
    int64_t n, heads;
} bart_stack;

typedef struct bart_model {
    const peft__site *embed, *head;
    bart_stack encoder, decoder;
} bart_model;

static void bart_attention_sites(peft__sites *b, const peft__config *c, const char *name, peft__seq2seq_sites *s) {
    struct {
        const peft__site **site;
        int32_t role;
        const char *leaf;
    } parts[] = {{&s->k, PEFT__ROLE_K, "k_proj"}, {&s->v, PEFT__ROLE_V, "v_proj"}, {&s->q, PEFT__ROLE_Q, "q_proj"},
                 {&s->o, PEFT__ROLE_O, "out_proj"}};
    for (size_t i = 0; i < PEFT__COUNT(parts); i++) {
        const char *full = peft__arena_printf(&b->m->arena, "%s.%s", name, parts[i].leaf);
        if (i == 3) { s->kv = peft__sites_plain(b, PEFT__SITE_KV, PEFT__ROLE_ATTN, name, c->hidden_size); }
        *parts[i].site = peft__sites_linear(b, parts[i].role, full != NULL ? full : "");
    }
    const char *norm = peft__arena_printf(&b->m->arena, "%s_layer_norm", name);
    s->stream = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_ATTN, name, c->hidden_size);
    s->norm = peft__sites_norm(b, PEFT__ROLE_ATTN, norm != NULL ? norm : "", false, c->norm_eps);
    if (s->stream != NULL) { peft__sites_norm_of(b, s->stream, s->norm); }
}

static void bart_layer_sites(peft__sites *b, const peft__config *c, bool decoder, bart_layer *l) {
    bart_attention_sites(b, c, "self_attn", &l->self);
    if (decoder) {
        b->part = PEFT__PART_CROSS;
        bart_attention_sites(b, c, "encoder_attn", &l->cross);
        b->part = PEFT__PART_DECODER;
    }
    l->up = peft__sites_linear(b, PEFT__ROLE_UP, "fc1");
    l->down = peft__sites_linear(b, PEFT__ROLE_DOWN, "fc2");
    l->ffn = peft__sites_plain(b, PEFT__SITE_STREAM, PEFT__ROLE_FFN, "fc2", c->hidden_size);
    l->ffn_norm = peft__sites_norm(b, PEFT__ROLE_FFN, "final_layer_norm", false, c->norm_eps);
    if (l->ffn != NULL) { peft__sites_norm_of(b, l->ffn, l->ffn_norm); }
}

static void bart_stack_sites(peft__sites *b, const peft__config *c, bool decoder, bart_stack *s) {
    peft__arena *a = &b->m->arena;
    const char *name = decoder ? "model.decoder" : "model.encoder";
    int64_t before = decoder ? c->encoder_layers : 0;
    s->n = decoder ? c->layers : c->encoder_layers;
    s->heads = decoder ? c->heads : c->encoder_heads;
    s->layers = peft__arena_alloc(a, (size_t)s->n * sizeof *s->layers);
    if (s->layers == NULL) {
        b->st = PEFT_E_NOMEM;
        return;
    }
    memset(s->layers, 0, (size_t)s->n * sizeof *s->layers);
    b->part = decoder ? PEFT__PART_DECODER : PEFT__PART_ENCODER;
    peft__sites_in(b, -1, name);
    s->input = peft__sites_plain(b, PEFT__SITE_INPUT, PEFT__ROLE_NONE, "", c->hidden_size);
    s->positions = peft__sites_embed(b, PEFT__ROLE_POSITIONS, "embed_positions");
    s->norm = peft__sites_norm(b, PEFT__ROLE_NONE, "layernorm_embedding", false, c->norm_eps);
    for (int64_t i = 0; i < s->n; i++) {
        peft__sites_in(b, (int32_t)(before + i), peft__arena_printf(a, "%s.layers.%lld", name, (long long)i));
        bart_layer_sites(b, c, decoder, &s->layers[i]);
    }
}

static peft_status bart_sites(struct peft_model *m) {
    const peft__config *c = &m->config;
    peft__sites b;
    bart_model *d = peft__arena_alloc(&m->arena, sizeof *d);
    if (d == NULL) { return PEFT_E_NOMEM; }
    memset(d, 0, sizeof *d);
    m->arch_data = d;
    peft__sites_begin(&b, m, 8 + (size_t)c->encoder_layers * 11 + (size_t)c->layers * 18);
    d->embed = peft__sites_embed(&b, PEFT__ROLE_TOKENS, "model.shared");
    if (d->embed != NULL) { m->sites[d->embed->id].row_scale = c->embed_scale; }
    bart_stack_sites(&b, c, false, &d->encoder);
    bart_stack_sites(&b, c, true, &d->decoder);
    peft__sites_in(&b, -1, "");
    d->head = peft__sites_head(&b, "lm_head", d->embed);
    peft__sites_offset(&b, d->head, "final_logits_bias");
    return b.st;
}

static peft__val bart_attention(const peft__config *c, const bart_stack *s, const peft__seq2seq_sites *sites, peft__tape *t, peft__val x,
                                peft__val states, int32_t layer) {
    peft__attn_spec spec = {.heads = s->heads, .kv_heads = s->heads, .head_dim = c->hidden_size / s->heads, .layer = layer};
    spec.scale = 1 / sqrt((double)spec.head_dim);
    peft__val h = peft__seq2seq_attention(sites, t, x, states, &spec);
    return peft__site_norm(t, sites->norm, peft__op_add(t, x, peft__site_stream(t, sites->stream, h, x)));
}

/* One stack. states: the encoder's, for the decoder. */
static peft__val bart_run(const struct peft_model *m, const bart_stack *s, peft__tape *t, peft__val states) {
    const peft__config *c = &m->config;
    const bart_model *d = m->arch_data;
    const bool decoder = s == &d->decoder;
    t->encoder = !decoder;
    peft__val x = peft__site_embed(t, d->embed, c->embed_scale > 0 ? c->embed_scale : 1);
    x = peft__site_input(t, s->input, x); /* virtual tokens get positions too */
    x = peft__site_norm(t, s->norm, peft__site_positions(t, s->positions, x, BART_OFFSET));
    for (int32_t i = 0; i < (int32_t)s->n; i++) {
        const bart_layer *l = &s->layers[i];
        t->segment++;
        x = bart_attention(c, s, &l->self, t, x, PEFT__NONE, i);
        if (decoder) { x = bart_attention(c, s, &l->cross, t, x, states, i); }
        peft__val h = peft__op_act(t, c->act, peft__site_linear(t, l->up, x));
        h = peft__site_linear(t, l->down, h);
        x = peft__site_norm(t, l->ffn_norm, peft__op_add(t, x, peft__site_stream(t, l->ffn, h, x)));
    }
    t->encoder = false;
    return x;
}

static void bart_record(const struct peft_model *m, peft__tape *t) {
    const bart_model *d = m->arch_data;
    t->segments = (int32_t)(m->config.encoder_layers + m->config.layers) + 2;
    t->segment = 0;
    peft__val states = bart_run(m, &d->encoder, t, PEFT__NONE);
    peft__val x = bart_run(m, &d->decoder, t, states);
    t->segment = t->segments - 1;
    peft__model_head(m, t, d->head, x, 0, 1);
}

const peft__arch peft__arch_bart = {
    .name = "bart",
    .model_types = bart_types,
    .architectures = bart_classes,
    .gguf_archs = bart_ggufs,
    .lm_task = PEFT__TASK_SEQ2SEQ_LM,
    .prefix = "model.",
    .read_config = bart_read_config,
    .write_config = bart_write_config,
    .tensor = bart_tensor,
    .sites = bart_sites,
    .record = bart_record,
};
