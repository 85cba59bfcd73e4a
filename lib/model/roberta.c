/* roberta.c - RoBERTa (Liu et al. 2019, arXiv 1907.11692) and XLM-RoBERTa (Conneau et al. 2020, arXiv 1911.02116), as transformers'
 * RobertaModel computes them: BERT's layers (bert.c) with
 *
 *   positions   of a row's tokens from pad_token_id + 1 on, so that the table has as many rows more than a row can have tokens
 *   heads       of rows: classifier.dense with tanh, classifier.out_proj; of the vocabulary: lm_head.dense, gelu, layer_norm, decoder
 *
 * Left out: a padding token among a row's own, which transformers gives the padding's position and leaves out of the count; GGUF,
 * where llama.cpp calls it "bert" and moves the table of positions. */
#include "model/parts.h"

static const char *const roberta_types[] = {"roberta", "xlm-roberta", NULL};
static const char *const roberta_classes[] = {"RobertaForMaskedLM", "XLMRobertaForMaskedLM"};
static const char *const roberta_ggufs[] = {NULL};

static const peft__head_layout roberta_heads[] = {
    {.task = PEFT__TASK_EMBEDDING},
    {.task = PEFT__TASK_MASKED_LM, .dense = "lm_head.dense", .dense_bias = true, .act = PEFT__ACT_GELU, .norm = "lm_head.layer_norm",
     .norm_bias = true, .out = "lm_head.decoder", .out_bias = true, .out_bias_name = "lm_head.bias"},
    {.task = PEFT__TASK_SEQUENCE, .pool = PEFT__POOL_FIRST, .dense = "classifier.dense", .dense_bias = true, .act = PEFT__ACT_TANH,
     .out = "classifier.out_proj", .out_bias = true},
    {.task = PEFT__TASK_TOKENS, .out = "classifier", .out_bias = true},
    {.task = PEFT__TASK_SPAN, .out = "qa_outputs", .out_bias = true},
};

static peft_status roberta_read_config(const peft__json *config, const char *what, peft__arena *a, peft__config *c) {
    peft_status st = PEFT_OK;
    int64_t pad = 1;
    (void)a;
    TRY(peft__bert_read(config, what, c));
    TRY(peft__json_int(config, what, "pad_token_id", 1, 0, PEFT__MODEL_MAX_VOCAB, &pad));
    c->position_offset = pad + 1;
    c->stated_positions = c->max_positions;
    c->max_positions -= c->position_offset;
    if (c->max_positions < 1) {
        FAIL(PEFT_E_FORMAT, "%s: key \"max_position_embeddings\" is %lld, and positions begin at pad_token_id + 1 = %lld", what,
             (long long)c->stated_positions, (long long)c->position_offset);
    }
out:
    return st;
}

static void roberta_write_config(const peft__config *c, peft__json_out *j) {
    peft__bert_write(c, j);
    peft__json_key(j, "pad_token_id");
    peft__json_put_int(j, c->position_offset - 1);
}

static const peft__bert_names roberta_names = {
    .base = "roberta.", .layers = "encoder.layer", .q = "attention.self.query", .k = "attention.self.key", .v = "attention.self.value",
    .kv = "attention.self", .o = "attention.output.dense", .attn = "attention.output", .attn_norm = "attention.output.LayerNorm",
    .up = "intermediate.dense", .down = "output.dense", .ffn = "output", .ffn_norm = "output.LayerNorm",
};

static bool roberta_tensor(const peft__config *c, peft__arena *a, size_t index, struct peft__tensor_spec *out) {
    return peft__bert_tensor(c, &roberta_names, a, index, out);
}

static peft_status roberta_sites(struct peft_model *m) { return peft__bert_sites(m, &roberta_names); }

const peft__arch peft__arch_roberta = {
    .name = "roberta",
    .model_types = roberta_types,
    .architectures = roberta_classes,
    .gguf_archs = roberta_ggufs,
    .lm_task = -1,
    .heads = roberta_heads,
    .n_heads = PEFT__COUNT(roberta_heads),
    .prefix = "roberta.",
    .gguf_act = PEFT__ACT_GELU,
    .read_config = roberta_read_config,
    .write_config = roberta_write_config,
    .tensor = roberta_tensor,
    .sites = roberta_sites,
    .record = peft__bert_record,
};
