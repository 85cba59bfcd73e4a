/* distilbert.c - DistilBERT (Sanh et al. 2019, arXiv 1910.01108), as transformers' DistilBertModel computes it: BERT's layers (bert.c)
 * without token types, under names of its own, and
 *
 *   heads   of rows: pre_classifier with relu on the first state, classifier; of the vocabulary: vocab_transform, the activation,
 *           vocab_layer_norm, vocab_projector
 *
 * Its sinusoidal positions (sinusoidal_pos_embds) are a table in the file like learned ones.
 *
 * Left out: GGUF, which llama.cpp has none of. */
#include "model/parts.h"

static const char *const distilbert_types[] = {"distilbert", NULL};
static const char *const distilbert_classes[] = {"DistilBertForMaskedLM"};
static const char *const distilbert_ggufs[] = {NULL};

static const peft__head_layout distilbert_heads[] = {
    {.task = PEFT__TASK_EMBEDDING},
    {.task = PEFT__TASK_MASKED_LM, .dense = "vocab_transform", .dense_bias = true, .act = PEFT__HEAD_ACT_CONFIG,
     .norm = "vocab_layer_norm", .norm_bias = true, .out = "vocab_projector", .out_bias = true},
    {.task = PEFT__TASK_SEQUENCE, .pool = PEFT__POOL_FIRST, .dense = "pre_classifier", .dense_bias = true, .act = PEFT__ACT_RELU,
     .out = "classifier", .out_bias = true},
    {.task = PEFT__TASK_TOKENS, .out = "classifier", .out_bias = true},
    {.task = PEFT__TASK_SPAN, .out = "qa_outputs", .out_bias = true},
};

static const peft__bert_names distilbert_names = {
    .base = "distilbert.", .layers = "transformer.layer", .q = "attention.q_lin", .k = "attention.k_lin", .v = "attention.v_lin",
    .kv = "attention", .o = "attention.out_lin", .attn = "attention", .attn_norm = "sa_layer_norm", .up = "ffn.lin1",
    .down = "ffn.lin2", .ffn = "ffn", .ffn_norm = "output_layer_norm",
};

static peft_status distilbert_read_config(const peft__json *config, const char *what, peft__arena *a, peft__config *c) {
    peft_status st = PEFT_OK;
    const int64_t width = PEFT__MODEL_MAX_WIDTH;
    (void)a;
    TRY(peft__config_need(config, what, "dim", width, &c->hidden_size));
    TRY(peft__config_need(config, what, "n_layers", PEFT__MODEL_MAX_LAYERS, &c->layers));
    TRY(peft__config_need(config, what, "n_heads", width, &c->heads));
    TRY(peft__config_need(config, what, "hidden_dim", width, &c->intermediate_size));
    TRY(peft__config_need(config, what, "vocab_size", PEFT__MODEL_MAX_VOCAB, &c->vocab_size));
    TRY(peft__json_int(config, what, "max_position_embeddings", 512, 1, PEFT__MODEL_MAX_POSITIONS, &c->max_positions));
    TRY(peft__json_bool(config, what, "tie_word_embeddings", true, &c->tie_embeddings));
    TRY(peft__config_act(config, what, "activation", "gelu", &c->act));
    TRY(peft__config_ids(config, what, -1, -1, c));
    c->norm_eps = 1e-12;
    c->kv_heads = c->heads;
    c->attention_bias = c->mlp_bias = true;
    TRY(peft__config_heads(what, "dim", c));
out:
    return st;
}

static void distilbert_write_config(const peft__config *c, peft__json_out *j) {
    const struct {
        const char *key;
        int64_t value;
    } sizes[] = {{"dim", c->hidden_size}, {"n_layers", c->layers}, {"n_heads", c->heads}, {"hidden_dim", c->intermediate_size},
                 {"max_position_embeddings", c->max_positions}, {"vocab_size", c->vocab_size}};
    for (size_t i = 0; i < PEFT__COUNT(sizes); i++) {
        peft__json_key(j, sizes[i].key);
        peft__json_put_int(j, sizes[i].value);
    }
    peft__json_key(j, "activation");
    peft__json_put_text(j, peft__config_act_name(c->act));
}

static bool distilbert_tensor(const peft__config *c, peft__arena *a, size_t index, struct peft__tensor_spec *out) {
    return peft__bert_tensor(c, &distilbert_names, a, index, out);
}

static peft_status distilbert_sites(struct peft_model *m) { return peft__bert_sites(m, &distilbert_names); }

const peft__arch peft__arch_distilbert = {
    .name = "distilbert",
    .model_types = distilbert_types,
    .architectures = distilbert_classes,
    .gguf_archs = distilbert_ggufs,
    .lm_task = -1,
    .heads = distilbert_heads,
    .n_heads = PEFT__COUNT(distilbert_heads),
    .prefix = "distilbert.",
    .gguf_act = PEFT__ACT_GELU,
    .read_config = distilbert_read_config,
    .write_config = distilbert_write_config,
    .tensor = distilbert_tensor,
    .sites = distilbert_sites,
    .record = peft__bert_record,
};
