/* model_seq2seq_test.c - encoder-decoder models through the public calls: configs that are wrong, by the key that is; folders and
 * GGUF files that are written and read; passes with and without the caches; the same bits at any number of threads; which places
 * adapters take. */
#include <stdlib.h>

#include "api/api.h"
#include "api_kit.h"
#include "model_kit.h"

enum { SEQ2SEQ_VOCAB = 14, SEQ2SEQ_ROWS = 3, SEQ2SEQ_TOKENS = 12, SEQ2SEQ_LOGITS = SEQ2SEQ_TOKENS * SEQ2SEQ_VOCAB };

#define SEQ2SEQ_T5(rest) "{\"model_type\":\"t5\",\"vocab_size\":14,\"d_model\":16,\"d_kv\":6,\"d_ff\":20,\"num_layers\":2,\"num_heads\":2" \
                         rest "}"
#define SEQ2SEQ_BART(rest) "{\"model_type\":\"bart\",\"vocab_size\":14,\"d_model\":16,\"encoder_layers\":2,\"decoder_layers\":3," \
                           "\"encoder_attention_heads\":2,\"decoder_attention_heads\":4,\"encoder_ffn_dim\":20,"                   \
                           "\"decoder_ffn_dim\":24,\"max_position_embeddings\":40" rest "}"
static const char *const seq2seq_configs[] = {
    SEQ2SEQ_T5(""), SEQ2SEQ_T5(",\"feed_forward_proj\":\"gated-gelu\",\"tie_word_embeddings\":false,\"num_decoder_layers\":3"),
    SEQ2SEQ_BART(",\"scale_embedding\":true"),
};

static const int32_t seq2seq_ids[SEQ2SEQ_TOKENS] = {0, 3, 5, 1, 9, 0, 4, 0, 11, 2, 7, 7};
static const int64_t seq2seq_lens[SEQ2SEQ_ROWS] = {5, 2, 5};
static const int32_t seq2seq_sources[13] = {6, 3, 2, 8, 8, 1, 5, 12, 13, 4, 4, 9, 1};
static const int64_t seq2seq_source_offsets[SEQ2SEQ_ROWS + 1] = {0, 4, 12, 13};

static peft_status seq2seq_batch(peft_context *ctx, peft_batch **out) {
    peft_status st = api_batch(ctx, seq2seq_ids, seq2seq_lens, SEQ2SEQ_ROWS, out);
    return st != PEFT_OK ? st : peft_batch_set_i32(*out, "source_ids", seq2seq_sources, seq2seq_source_offsets, SEQ2SEQ_ROWS);
}

/* Logits of the batch by a session of at most `chunk` tokens a pass; chunk 0: as many as it likes. */
static peft_status seq2seq_logits(peft_model *m, peft_adapters *set, const char *expression, int chunk, float out[SEQ2SEQ_LOGITS]) {
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    peft_session *s = NULL;
    peft_batch *b = NULL;
    TRY(peft_options_create(m->ctx, "session", &o));
    if (chunk > 0) { TRY(peft_options_set_int(o, "chunk", chunk)); }
    TRY(peft_session_create(m, set, expression, o, &s));
    TRY(seq2seq_batch(m->ctx, &b));
    TRY(peft_session_logits(s, b, out, SEQ2SEQ_LOGITS, NULL));
out:
    peft_batch_free(b);
    peft_session_free(s);
    peft_options_free(o);
    return st;
}

static void seq2seq_near(const float *a, const float *b, double most) {
    double scale = 0;
    for (int32_t i = 0; i < SEQ2SEQ_LOGITS; i++) { scale = fmax(scale, fabs((double)a[i])); }
    CHECK(scale > 0.01);
    for (int32_t i = 0; i < SEQ2SEQ_LOGITS; i++) { CHECK_NEAR(b[i], a[i], most * scale); }
}

TEST(seq2seq_configs_that_are_wrong) {
    static const struct { const char *config; peft_status code; const char *words; } cases[] = {
        {"{\"model_type\":\"t5\",\"vocab_size\":14,\"d_model\":16,\"d_kv\":6,\"d_ff\":20,\"num_heads\":2}", PEFT_E_FORMAT,
         "key \"num_layers\" is missing"},
        {SEQ2SEQ_T5(",\"feed_forward_proj\":\"gated-maxout\""), PEFT_E_UNSUPPORTED,
         "\"feed_forward_proj\" is \"gated-maxout\", expected relu"},
        {SEQ2SEQ_T5(",\"feed_forward_proj\":3"), PEFT_E_FORMAT, "feed_forward_proj"},
        {SEQ2SEQ_T5(",\"relative_attention_num_buckets\":6"), PEFT_E_FORMAT, "\"relative_attention_num_buckets\" 6 is no multiple of 4"},
        {SEQ2SEQ_T5(",\"relative_attention_max_distance\":16"), PEFT_E_FORMAT, "\"relative_attention_max_distance\" 16 not above half"},
        {SEQ2SEQ_T5(",\"num_decoder_layers\":0"), PEFT_E_FORMAT, "num_decoder_layers"},
        {SEQ2SEQ_T5(",\"is_encoder_decoder\":false"), PEFT_E_UNSUPPORTED, "key \"is_encoder_decoder\" is false, only true"},
        {SEQ2SEQ_T5(",\"decoder_start_token_id\":14"), PEFT_E_FORMAT, "\"decoder_start_token_id\" is 14, and the vocabulary has 14 tokens"},
        {SEQ2SEQ_T5(",\"pad_token_id\":null"), PEFT_E_FORMAT, "key \"pad_token_id\" is missing"},
        {SEQ2SEQ_T5(",\"layer_norm_epsilon\":2"), PEFT_E_FORMAT, "epsilon of the norms"},
        {"{\"model_type\":\"bart\",\"vocab_size\":14,\"d_model\":16,\"encoder_layers\":2}", PEFT_E_FORMAT,
         "key \"decoder_layers\" is missing"},
        {SEQ2SEQ_BART(",\"activation_function\":\"mish\""), PEFT_E_UNSUPPORTED, "\"activation_function\" is \"mish\""},
        {SEQ2SEQ_BART(",\"forced_eos_token_id\":99"), PEFT_E_FORMAT, "\"forced_eos_token_id\" is 99"},
        {SEQ2SEQ_BART(",\"normalize_before\":true"), PEFT_E_UNSUPPORTED, "key \"normalize_before\" is true, only false"},
    };
    api_host h = {0};
    peft_context *ctx = NULL;
    CHECK_OK(api_context(&h, &ctx));
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        peft_model *m = NULL;
        CHECK_STATUS(peft_model_create_random(ctx, cases[i].config, strlen(cases[i].config), 3, &m), cases[i].code);
        CHECK_ERROR_HAS(cases[i].words);
        CHECK(m == NULL);
    }
    peft_context_free(ctx);
    CHECK_INT(h.now, 0);
}

TEST(seq2seq_folders_are_the_same_model) {
    static float logits[SEQ2SEQ_LOGITS], again[SEQ2SEQ_LOGITS];
    for (size_t i = 0; i < PEFT__COUNT(seq2seq_configs); i++) {
        api_host h = {0};
        peft_context *ctx = NULL;
        peft_model *m = NULL, *n = NULL;
        peft_adapters *set = NULL;
        const char *folder = runner_path(runner_tmpdir(), i == 0 ? "one" : i == 1 ? "two" : "three");
        CHECK_OK(api_context(&h, &ctx));
        CHECK_OK(peft__model_random(ctx, seq2seq_configs[i], strlen(seq2seq_configs[i]), 3, 0.2, &m));
        CHECK_OK(seq2seq_logits(m, NULL, NULL, 0, logits));
        CHECK_OK(peft_adapters_create(m, &set));
        CHECK_OK(peft_adapters_merge(set, "", folder, NULL));
        CHECK_OK(peft_model_open(ctx, folder, NULL, &n));
        CHECK_STR(n->model_type, m->model_type);
        CHECK_INT(n->n_tensors, m->n_tensors);
        CHECK_INT(n->config.decoder_start_id, m->config.decoder_start_id);
        CHECK_INT(n->config.forced_eos_id, m->config.forced_eos_id);
        CHECK_OK(seq2seq_logits(n, NULL, NULL, 0, again));
        for (int32_t k = 0; k < SEQ2SEQ_LOGITS; k++) { CHECK_NEAR(again[k], logits[k], 0); }
        peft_adapters_free(set);
        peft_model_free(m);
        peft_model_free(n);
        peft_context_free(ctx);
        CHECK_INT(h.now, 0);
    }
}

/* A tied head is written apart, and is the embedding again when it is read. */
TEST(seq2seq_ggufs_are_the_same_model) {
    static float logits[SEQ2SEQ_LOGITS], again[SEQ2SEQ_LOGITS];
    static const char *const configs[] = {
        SEQ2SEQ_T5(""), SEQ2SEQ_T5(",\"num_decoder_layers\":1,\"decoder_start_token_id\":5,\"eos_token_id\":3,\"pad_token_id\":2"),
        SEQ2SEQ_T5(",\"feed_forward_proj\":\"gated-gelu\",\"tie_word_embeddings\":false,\"num_decoder_layers\":3,"
                   "\"relative_attention_num_buckets\":12,\"layer_norm_epsilon\":1e-5,\"eos_token_id\":null")};
    for (size_t i = 0; i < PEFT__COUNT(configs); i++) {
        api_host h = {0};
        peft_context *ctx = NULL;
        peft_model *m = NULL, *n = NULL;
        peft_adapters *set = NULL;
        peft_tokenizer *none = NULL;
        const char *path = runner_path(runner_tmpdir(), "t5.gguf"), *folder = runner_path(runner_tmpdir(), "folder");
        CHECK_OK(api_context(&h, &ctx));
        CHECK_OK(peft__model_random(ctx, configs[i], strlen(configs[i]), 3, 0.2, &m));
        CHECK_OK(seq2seq_logits(m, NULL, NULL, 0, logits));
        CHECK_OK(peft_adapters_create(m, &set));
        CHECK_OK(peft_adapters_merge(set, "", path, NULL));
        CHECK_OK(peft_model_open(ctx, path, NULL, &n));
        const peft__config *a = &m->config, *b = &n->config;
        CHECK_STR(n->model_type, "t5");
        CHECK_STATUS(peft_tokenizer_open(ctx, path, &none), PEFT_E_NOT_FOUND);
        CHECK_ERROR_HAS("no tokenizer: tokenizer.ggml.model is \"none\"");
        CHECK_INT(n->n_tensors, m->n_tensors);
        CHECK_INT(b->tie_embeddings, a->tie_embeddings);
        CHECK_INT(n->gguf->count, m->n_tensors + a->tie_embeddings);
        CHECK_INT(b->encoder_layers, a->encoder_layers);
        CHECK_INT(b->layers, a->layers);
        CHECK_INT(b->head_dim, 6);
        CHECK_INT(b->bias_buckets, a->bias_buckets);
        CHECK_INT(b->bias_distance, 128);
        CHECK_INT(b->glu, a->glu);
        CHECK_INT(b->act, a->act);
        CHECK_NEAR(b->norm_eps, a->norm_eps, 0);
        CHECK_INT(b->decoder_start_id, a->decoder_start_id);
        CHECK_INT(b->pad_id, a->pad_id);
        CHECK_INT(b->eos_id, a->eos_id);
        CHECK_OK(seq2seq_logits(n, NULL, NULL, 0, again));
        for (int32_t k = 0; k < SEQ2SEQ_LOGITS; k++) { CHECK_NEAR(again[k], logits[k], 0); }
        peft_adapters_free(set);
        CHECK_OK(peft_adapters_create(n, &set));
        CHECK_OK(peft_adapters_merge(set, "", folder, NULL)); /* which has no tokenizer either */
        CHECK(!peft__path_exists(runner_path(folder, "tokenizer.json")));
        peft_adapters_free(set);
        peft_model_free(m);
        peft_model_free(n);
        peft_context_free(ctx);
        CHECK_INT(h.now, 0);
    }
}

static void seq2seq_heads(peft__gguf_out *w) { peft__gguf_put_u32(w, "t5.attention.head_count", 3); }
static void seq2seq_groups(peft__gguf_out *w) { peft__gguf_put_u32(w, "t5.attention.head_count_kv", 1); }
static void seq2seq_values(peft__gguf_out *w) { peft__gguf_put_u32(w, "t5.attention.value_length", 8); }
static void seq2seq_buckets(peft__gguf_out *w) { peft__gguf_put_u32(w, "t5.attention.relative_buckets_count", 30); }
static void seq2seq_layers(peft__gguf_out *w) { peft__gguf_put_u32(w, "t5.decoder_block_count", 3); }
static void seq2seq_no_layers(peft__gguf_out *w) { peft__gguf_put_u32(w, "t5.decoder_block_count", 0); }
static void seq2seq_start(peft__gguf_out *w) { peft__gguf_put_u32(w, "t5.decoder_start_token_id", 14); }
static void seq2seq_pad(peft__gguf_out *w) { peft__gguf_put_u32(w, "tokenizer.ggml.padding_token_id", 99); }
static void seq2seq_epsilon(peft__gguf_out *w) { peft__gguf_put_f32(w, "t5.attention.layer_norm_rms_epsilon", 2); }
static void seq2seq_encoder(peft__gguf_out *w) { peft__gguf_put_text(w, "general.architecture", "t5encoder", 9); }

TEST(seq2seq_gguf_errors_name_key_or_tensor) {
    static const struct {
        kit_edit edit;
        peft_status code;
        const char *part;
    } cases[] = {
        {{"t5.embedding_length", NULL, NULL}, PEFT_E_FORMAT, "key \"t5.embedding_length\" is missing"},
        {{"t5.block_count", NULL, NULL}, PEFT_E_FORMAT, "key \"t5.block_count\" is missing"},
        {{"t5.feed_forward_length", NULL, NULL}, PEFT_E_FORMAT, "key \"t5.feed_forward_length\" is missing"},
        {{"t5.attention.head_count", NULL, NULL}, PEFT_E_FORMAT, "key \"t5.attention.head_count\" is missing"},
        {{"t5.attention.relative_buckets_count", NULL, NULL}, PEFT_E_FORMAT, "\"t5.attention.relative_buckets_count\" is missing"},
        {{"t5.attention.relative_buckets_count", NULL, seq2seq_buckets}, PEFT_E_FORMAT, "relative_buckets_count\" is 30, no multiple of 4"},
        {{"t5.attention.key_length", NULL, NULL}, PEFT_E_UNSUPPORTED, "\"t5.attention.value_length\" is 6, only 8 is supported"},
        {{"t5.attention.value_length", NULL, seq2seq_values}, PEFT_E_UNSUPPORTED, "\"t5.attention.value_length\" is 8, only 6"},
        {{"t5.attention.head_count", NULL, seq2seq_heads}, PEFT_E_SHAPE, "\"enc.blk.0.attn_q.weight\" has shape [12, 16], expected [18"},
        {{NULL, NULL, seq2seq_groups}, PEFT_E_UNSUPPORTED, "\"t5.attention.head_count_kv\" is 1, only 2 is supported"},
        {{"t5.decoder_block_count", NULL, seq2seq_layers}, PEFT_E_NOT_FOUND, "tensor \"dec.blk.2.attn_norm.weight\" is missing"},
        {{"t5.decoder_block_count", NULL, seq2seq_no_layers}, PEFT_E_FORMAT, "\"t5.decoder_block_count\" is 0, expected 1"},
        {{"t5.decoder_start_token_id", NULL, seq2seq_start}, PEFT_E_FORMAT, "\"t5.decoder_start_token_id\" is 14, expected 0 to 13"},
        {{"tokenizer.ggml.padding_token_id", NULL, seq2seq_pad}, PEFT_E_FORMAT, "\"tokenizer.ggml.padding_token_id\" is 99, expected 0"},
        {{"t5.attention.layer_norm_rms_epsilon", NULL, seq2seq_epsilon}, PEFT_E_FORMAT, "epsilon of the norms"},
        {{"general.architecture", NULL, seq2seq_encoder}, PEFT_E_UNSUPPORTED, "\"t5encoder\" is not supported, expected one of"},
        {{NULL, "enc.blk.0.attn_rel_b.weight", NULL}, PEFT_E_NOT_FOUND, "\"enc.blk.0.attn_rel_b.weight\" is missing"},
        {{NULL, "dec.output_norm.weight", NULL}, PEFT_E_NOT_FOUND, "\"dec.output_norm.weight\" is missing"},
    };
    api_host h = {0};
    peft_context *ctx = NULL;
    peft_model *m = NULL;
    const char *good = runner_path(runner_tmpdir(), "good.gguf"), *bad = runner_path(runner_tmpdir(), "bad.gguf");
    CHECK_OK(api_context(&h, &ctx));
    CHECK_OK(api_model(ctx, seq2seq_configs[0], &m));
    CHECK_OK(peft__model_write_gguf(m, NULL, -1, NULL, good));
    peft_model_free(m);
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        m = NULL;
        CHECK_OK(kit_rewrite(ctx, good, bad, &cases[i].edit));
        CHECK_STATUS(peft_model_open(ctx, bad, NULL, &m), cases[i].code);
        CHECK_ERROR_HAS(cases[i].part);
        CHECK_ERROR_HAS("bad.gguf");
    }
    static const kit_edit no_length = {"t5.attention.key_length", NULL, NULL}, heads = {"t5.attention.head_count", NULL, seq2seq_heads};
    const char *mid = runner_path(runner_tmpdir(), "mid.gguf");
    CHECK_OK(kit_rewrite(ctx, good, mid, &no_length));
    CHECK_OK(kit_rewrite(ctx, mid, bad, &heads));
    CHECK_STATUS(peft_model_open(ctx, bad, NULL, &m), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("t5.embedding_length 16 is no multiple of 3 attention heads");
    peft_context_free(ctx);
    CHECK_INT(h.now, 0);
}

/* What a file leaves out; a head that is tied as a converter leaves it; one apart, times 1 / sqrt(16): a power of two, so that the
 * logits are the same to the bit. */
TEST(seq2seq_gguf_defaults) {
    static const kit_edit edits[] = {{"peft.tied_head", NULL, NULL}, {"peft.tied_head", "output.weight", NULL},
                                     {"t5.decoder_start_token_id", NULL, NULL}, {"t5.decoder_block_count", NULL, NULL},
                                     {"tokenizer.ggml.eos_token_id", NULL, NULL}};
    static float logits[SEQ2SEQ_LOGITS], again[SEQ2SEQ_LOGITS];
    peft_context *ctx = NULL;
    peft_model *m = NULL;
    const char *good = runner_path(runner_tmpdir(), "good.gguf"), *other = runner_path(runner_tmpdir(), "other.gguf");
    CHECK_OK(peft_context_create(NULL, &ctx));
    CHECK_OK(peft__model_random(ctx, seq2seq_configs[0], strlen(seq2seq_configs[0]), 3, 0.2, &m));
    CHECK_OK(seq2seq_logits(m, NULL, NULL, 0, logits));
    CHECK_OK(peft__model_write_gguf(m, NULL, -1, NULL, good));
    peft_model_free(m);
    for (size_t i = 0; i < PEFT__COUNT(edits); i++) {
        CHECK_OK(kit_rewrite(ctx, good, other, &edits[i]));
        CHECK_OK(peft_model_open(ctx, other, NULL, &m));
        CHECK_INT(m->config.tie_embeddings, i != 0);
        CHECK_INT(m->config.layers, 2);
        CHECK_INT(m->config.decoder_start_id, 0);
        CHECK_INT(m->config.eos_id, 1);
        CHECK_OK(seq2seq_logits(m, NULL, NULL, 0, again));
        for (int32_t k = 0; k < SEQ2SEQ_LOGITS; k++) { CHECK_NEAR(again[k], logits[k], 0); }
        peft_model_free(m);
    }
    peft_context_free(ctx);
}

TEST(seq2seq_ggufs_that_cannot_be) {
    static const struct { const char *config, *words; } cases[] = {
        {SEQ2SEQ_BART(""), "GGUF has no bart models"},
        {SEQ2SEQ_T5(",\"feed_forward_proj\":\"gated-silu\""), "the activation of a t5 model with a gate is silu"},
        {SEQ2SEQ_T5(",\"feed_forward_proj\":\"gelu\""), "the activation of a t5 model without a gate is gelu"},
        {SEQ2SEQ_T5(",\"relative_attention_max_distance\":64"), "a t5 model's relative_attention_max_distance is 64, only 128"},
        {SEQ2SEQ_T5(",\"forced_bos_token_id\":4"), "a t5 model's forced_bos_token_id is 4"},
        {SEQ2SEQ_T5(",\"forced_eos_token_id\":1"), "a t5 model's forced_eos_token_id is 1"},
    };
    peft_context *ctx = NULL;
    const char *path = runner_path(runner_tmpdir(), "none.gguf");
    CHECK_OK(peft_context_create(NULL, &ctx));
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        peft_model *m = NULL;
        peft_adapters *set = NULL;
        CHECK_OK(api_model(ctx, cases[i].config, &m));
        CHECK_OK(peft_adapters_create(m, &set));
        CHECK_STATUS(peft_adapters_merge(set, "", path, NULL), PEFT_E_UNSUPPORTED);
        CHECK_ERROR_HAS(cases[i].words);
        CHECK(!peft__path_exists(path));
        peft_adapters_free(set);
        peft_model_free(m);
    }
    peft_context_free(ctx);
}

/* Adapters in every part, shaken. */
static peft_status seq2seq_adapters(peft_model *m, peft_adapters **out) {
    static const char *const parts[][3] = {{"l", "lora", "{'r':2,'target_modules':'all-linear'}"},
                                           {"b", "houlsby", "{'reduction_factor':4,'cross_adapter':true}"},
                                           {"p", "prefix_tuning", "{'prefix_length':3,'flat':true}"},
                                           {"v", "prompt", "{'num_virtual_tokens':2}"},
                                           {"k", "prefix", "{'num_virtual_tokens':2,'init':'random'}"}};
    peft_status st = peft_adapters_create(m, out);
    for (size_t i = 0; st == PEFT_OK && i < PEFT__COUNT(parts); i++) {
        char schema[64];
        peft_options *o = NULL;
        (void)snprintf(schema, sizeof schema, "method:%s", parts[i][1]);
        st = api_options(m->ctx, schema, parts[i][2], &o);
        if (st == PEFT_OK) { st = peft_adapters_add(*out, parts[i][0], parts[i][1], o, 5); }
        if (st == PEFT_OK) { st = api_shake(*out, parts[i][0], 0.2F); }
        peft_options_free(o);
    }
    return st;
}

/* A row in passes of few tokens, whose later ones have the caches, is the row in one. */
TEST(seq2seq_passes_are_one) {
    static const char *const expressions[] = {NULL, "l,b", "p", "v", "k", "l,b,p,v,k", "parallel(b,l)"};
    static float whole[2 * SEQ2SEQ_LOGITS], cut[2 * SEQ2SEQ_LOGITS];
    for (size_t i = 0; i < PEFT__COUNT(seq2seq_configs); i++) {
        peft_context *ctx = NULL;
        peft_model *m = NULL;
        peft_adapters *set = NULL;
        CHECK_OK(peft_context_create(NULL, &ctx));
        CHECK_OK(peft__model_random(ctx, seq2seq_configs[i], strlen(seq2seq_configs[i]), 3, 0.2, &m));
        CHECK_OK(seq2seq_adapters(m, &set));
        for (size_t e = 0; e + 1 < PEFT__COUNT(expressions); e++) {
            CHECK_OK(seq2seq_logits(m, set, expressions[e], 0, whole));
            for (int chunk = 1; chunk < 5; chunk += 3) {
                CHECK_OK(seq2seq_logits(m, set, expressions[e], chunk, cut));
                seq2seq_near(whole, cut, 2e-5);
            }
        }
        peft_adapters_free(set);
        peft_model_free(m);
        peft_context_free(ctx);
    }
}

/* Greedy texts are what the logits of all their tokens at once say; a beam is no worse than they are. */
TEST(seq2seq_generation_is_what_logits_say) {
    for (size_t i = 0; i < PEFT__COUNT(seq2seq_configs); i++) {
        peft_context *ctx = NULL;
        peft_model *m = NULL;
        peft_adapters *set = NULL;
        peft_session *s = NULL;
        peft_options *o = NULL;
        peft_batch *b = NULL;
        int32_t made[16], row[16], streamed[16];
        static float logits[16 * SEQ2SEQ_VOCAB];
        size_t n = 0, count = 0;
        char text[16];
        CHECK_OK(peft_context_create(NULL, &ctx));
        CHECK_OK(peft__model_random(ctx, seq2seq_configs[i], strlen(seq2seq_configs[i]), 9, 0.3, &m));
        CHECK_OK(seq2seq_adapters(m, &set));
        CHECK_OK(peft_session_create(m, set, "l,b,k", NULL, &s));
        CHECK_OK(api_options(ctx, "generate", "{'max_new_tokens':9,'ignore_eos':true}", &o));
        CHECK_OK(peft_session_generate(s, NULL, seq2seq_sources, 8, o, NULL, NULL, made, 16, &n));
        CHECK_INT(n, 9);
        row[0] = m->config.decoder_start_id;
        memcpy(row + 1, made, (n - 1) * sizeof *made);
        CHECK_OK(peft_batch_create(ctx, &b));
        CHECK_OK(peft_batch_set_i32(b, "input_ids", row, (int64_t[]){0, 9}, 1));
        CHECK_OK(peft_batch_set_i32(b, "source_ids", seq2seq_sources, (int64_t[]){0, 8}, 1));
        CHECK_OK(peft_session_logits(s, b, logits, PEFT__COUNT(logits), NULL));
        for (size_t t = 0; t < n; t++) {
            const float *at = logits + t * SEQ2SEQ_VOCAB;
            int32_t best = 0;
            for (int32_t v = 1; v < SEQ2SEQ_VOCAB; v++) { best = at[v] > at[best] ? v : best; }
            CHECK_INT(made[t], best);
        }
        CHECK_OK(peft_session_start(s, NULL, seq2seq_sources, 8, o));
        for (int32_t id = 0; peft_session_next(s, &id, text, sizeof text, NULL) == PEFT_OK && id >= 0 && count < 16;) {
            streamed[count++] = id;
        }
        CHECK_INT(count, n);
        CHECK(memcmp(streamed, made, n * sizeof *made) == 0);
        peft_options_free(o);
        CHECK_OK(api_options(ctx, "generate", "{'max_new_tokens':9,'num_beams':3,'ignore_eos':true}", &o));
        CHECK_OK(peft_session_generate(s, NULL, seq2seq_sources, 8, o, NULL, NULL, streamed, 16, &n));
        CHECK_INT(n, 9);
        peft_batch_free(b);
        peft_options_free(o);
        peft_session_free(s);
        peft_adapters_free(set);
        peft_model_free(m);
        peft_context_free(ctx);
    }
}

/* Bits of logits and of trained values after three steps, by the number of threads. */
TEST(seq2seq_bits_at_any_number_of_threads) {
    static float logits[3][SEQ2SEQ_LOGITS], values[3][1 << 14];
    static const int32_t labels[SEQ2SEQ_TOKENS] = {3, 5, 1, 9, -100, 4, 8, 11, 2, 7, 7, 1};
    for (size_t i = 0; i < PEFT__COUNT(seq2seq_configs); i++) {
        size_t n = 0;
        for (int k = 0; k < 3; k++) {
            peft_context *ctx = NULL;
            peft_model *m = NULL;
            peft_adapters *set = NULL;
            peft_trainer *t = NULL;
            peft_batch *b = NULL;
            CHECK_OK(peft_context_create(NULL, &ctx));
            CHECK_OK(peft_context_set_threads(ctx, 1 << k));
            CHECK_OK(peft__model_random(ctx, seq2seq_configs[i], strlen(seq2seq_configs[i]), 3, 0.2, &m));
            CHECK_OK(seq2seq_adapters(m, &set));
            CHECK_OK(peft_adapters_add(set, "f", "full", NULL, 1));
            CHECK_OK(peft_trainer_create(set, NULL, &t));
            CHECK_OK(peft_trainer_add_job(t, "f,l,b,p,v", NULL, NULL, NULL));
            CHECK_OK(seq2seq_batch(ctx, &b));
            CHECK_OK(peft_batch_set_i32(b, "labels", labels, (int64_t[]){0, 5, 7, 12}, SEQ2SEQ_ROWS));
            for (int step = 0; step < 3; step++) {
                CHECK_OK(peft_trainer_accumulate(t, b, NULL));
                CHECK_OK(peft_trainer_apply(t));
            }
            CHECK_OK(seq2seq_logits(m, set, "f,l,b,p,v", 0, logits[k]));
            const char *table = i < 2 ? "shared.weight" : "model.shared.weight";
            CHECK_OK(peft_adapters_tensor_read(set, "f", table, values[k], PEFT__COUNT(values[k]), &n));
            peft_batch_free(b);
            peft_trainer_free(t);
            peft_adapters_free(set);
            peft_model_free(m);
            peft_context_free(ctx);
        }
        CHECK(n == SEQ2SEQ_VOCAB * 16);
        for (int k = 1; k < 3; k++) {
            CHECK(memcmp(logits[0], logits[k], sizeof logits[0]) == 0);
            CHECK(memcmp(values[0], values[k], n * sizeof(float)) == 0);
        }
    }
}

static int64_t seq2seq_places(peft_adapters *set, const char *name, const char *words) {
    int64_t n = 0;
    for (size_t i = 0; i < peft_adapters_tensor_count(set, name); i++) {
        const char *tensor = NULL;
        n += peft_adapters_tensor_info(set, name, i, &tensor, NULL, NULL) == PEFT_OK && strstr(tensor, words) != NULL;
    }
    return n;
}

TEST(seq2seq_places_of_adapters) {
    static const struct { const char *method, *options, *words; int64_t t5, bart; } cases[] = {
        {"houlsby", "{}", "adapter_up.weight", 8, 10},
        {"houlsby", "{'cross_adapter':true}", "adapter_up.weight", 10, 13},
        {"pfeiffer", "{'leave_out':[0,2]}", "adapter_up.weight", 2, 3}, /* the decoder's layers follow the encoder's */
        {"prefix_tuning", "{'flat':true}", "control_trans", 3, 3},
        {"prefix_tuning", "{'flat':true,'cross_prefix':false}", "control_trans", 2, 2},
        {"prefix_tuning", "{'flat':true,'encoder_prefix':false,'cross_prefix':false}", "self_prefix", 1, 1},
        {"lora", "{}", "lora_A", 12, 16},
        {"prompt", "{'num_virtual_tokens':3}", "prompt_embeddings", 1, 1},
    };
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        for (int bart = 0; bart < 2; bart++) {
            peft_context *ctx = NULL;
            peft_model *m = NULL;
            peft_adapters *set = NULL;
            peft_options *o = NULL;
            char schema[64];
            CHECK_OK(peft_context_create(NULL, &ctx));
            CHECK_OK(api_model(ctx, seq2seq_configs[bart * 2], &m));
            CHECK_OK(peft_adapters_create(m, &set));
            (void)snprintf(schema, sizeof schema, "method:%s", cases[i].method);
            CHECK_OK(api_options(ctx, schema, cases[i].options, &o));
            CHECK_OK(peft_adapters_add(set, "a", cases[i].method, o, 1));
            CHECK_INT(seq2seq_places(set, "a", cases[i].words), bart ? cases[i].bart : cases[i].t5);
            peft_options_free(o);
            peft_adapters_free(set);
            peft_model_free(m);
            peft_context_free(ctx);
        }
    }
}

TEST(seq2seq_refuses_by_name) {
    static float out[SEQ2SEQ_LOGITS];
    peft_context *ctx = NULL;
    peft_model *m = NULL, *llama = NULL;
    peft_session *s = NULL, *other = NULL;
    peft_batch *b = NULL;
    peft_adapters *set = NULL;
    peft_options *o = NULL;
    peft_trainer *t = NULL;
    size_t n = 0;
    int32_t long_row[64] = {0};
    CHECK_OK(peft_context_create(NULL, &ctx));
    CHECK_OK(api_model(ctx, seq2seq_configs[2], &m));
    CHECK_OK(api_model(ctx, API_LLAMA, &llama));
    CHECK_OK(peft_session_create(m, NULL, NULL, NULL, &s));
    CHECK_OK(peft_session_create(llama, NULL, NULL, NULL, &other));
    CHECK_OK(api_batch(ctx, seq2seq_ids, seq2seq_lens, SEQ2SEQ_ROWS, &b));
    CHECK_STATUS(peft_session_logits(s, b, out, PEFT__COUNT(out), NULL), PEFT_E_INVALID);
    CHECK_ERROR_HAS("the batch has no \"source_ids\", which the encoder of this model reads");
    CHECK_STATUS(peft_batch_set_i32(b, "source_ids", seq2seq_sources, seq2seq_source_offsets, 2), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("\"source_ids\" have 2 rows, \"input_ids\" have 3");
    CHECK_OK(peft_batch_set_i32(b, "source_ids", seq2seq_sources, seq2seq_source_offsets, SEQ2SEQ_ROWS));
    CHECK_STATUS(peft_session_logits(other, b, out, PEFT__COUNT(out), NULL), PEFT_E_INVALID);
    CHECK_ERROR_HAS("the model has no encoder beside its decoder");
    CHECK_OK(peft_session_logits(s, b, out, PEFT__COUNT(out), NULL));
    CHECK_STATUS(peft_session_generate(s, NULL, long_row, 41, NULL, NULL, NULL, long_row, 64, &n), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("41 tokens for the encoder, more than the session's max_length of 40");
    CHECK_OK(peft_adapters_create(m, &set));
    CHECK_OK(peft_adapters_add(set, "a", "lora", NULL, 1));
    CHECK_OK(peft_trainer_create(set, NULL, &t));
    CHECK_OK(peft_trainer_add_job(t, "a", NULL, NULL, NULL));
    CHECK_OK(peft_batch_set_i32(b, "input_ids", seq2seq_ids, (int64_t[]){0, 5, 7, 12}, SEQ2SEQ_ROWS)); /* forgets the sources */
    CHECK_STATUS(peft_trainer_accumulate(t, b, NULL), PEFT_E_INVALID);
    CHECK_ERROR_HAS("source_ids");
    CHECK_OK(api_options(ctx, "method:prefix_tuning", "{'init':'text'}", &o));
    CHECK_STATUS(peft_adapters_add(set, "p", "prefix_tuning", o, 1), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("option \"init\" is \"text\", and this base has an encoder");
    peft_options_free(o);
    peft_trainer_free(t);
    peft_adapters_free(set);
    peft_batch_free(b);
    peft_session_free(s);
    peft_session_free(other);
    peft_model_free(m);
    peft_model_free(llama);
    peft_context_free(ctx);
}
