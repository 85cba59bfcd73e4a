/* model_encoders_test.c - encoders and their heads: configs that are wrong, by the key that is; tasks that a model cannot have; a
 * written folder gives the same outputs and says the labels; what sessions and trainers refuse where no token comes next. */
#include <math.h>
#include <stdio.h>

#include "model_kit.h"

#define ENCODER_SIZES                                                                                                                \
    "\"vocab_size\":40,\"max_position_embeddings\":16,\"hidden_size\":16,\"num_hidden_layers\":2,\"num_attention_heads\":2,"
#define ENCODER_BERT(rest) "{\"model_type\":\"bert\"," ENCODER_SIZES "\"intermediate_size\":24" rest "}"
#define ENCODER_ROBERTA(rest) "{\"model_type\":\"roberta\",\"type_vocab_size\":1," ENCODER_SIZES "\"intermediate_size\":24" rest "}"
#define ENCODER_DISTIL(rest)                                                                                                         \
    "{\"model_type\":\"distilbert\",\"vocab_size\":40,\"max_position_embeddings\":16,\"dim\":16,\"n_layers\":2,\"n_heads\":2," \
    "\"hidden_dim\":24" rest "}"
#define ENCODER_MODERN(rest)                                                                                                        \
    "{\"model_type\":\"modernbert\"," ENCODER_SIZES "\"intermediate_size\":24,\"local_attention\":4,\"global_attn_every_n_layers\":2" \
    rest "}"
#define ENCODER_OF(class) ",\"architectures\":[\"" class "\"]"
#define ENCODER_LABELS ",\"id2label\":{\"0\":\"bad\",\"1\":\"fair\",\"2\":\"good\"}"

static const int32_t encoder_ids[9] = {3, 17, 0, 39, 5, 21, 3, 8, 11};
static const int64_t encoder_offsets[3] = {0, 6, 9};

static peft_model *encoder_random(peft_context *ctx, const char *config) {
    peft_model *m = NULL;
    return peft_model_create_random(ctx, config, strlen(config), 5, &m) == PEFT_OK ? m : NULL;
}

static peft_batch *encoder_batch(peft_context *ctx) {
    peft_batch *b = NULL;
    if (peft_batch_create(ctx, &b) != PEFT_OK) { return NULL; }
    return peft_batch_set_i32(b, "input_ids", encoder_ids, encoder_offsets, 2) == PEFT_OK ? b : NULL;
}

/* Outputs of the two rows; how many there are, -1: none. */
static int64_t encoder_outputs(peft_context *ctx, peft_model *m, float *out, size_t cap) {
    peft_session *s = NULL;
    peft_batch *b = encoder_batch(ctx);
    size_t n = 0;
    peft_status st = peft_session_create(m, NULL, NULL, NULL, &s);
    if (st == PEFT_OK) { st = peft_session_logits(s, b, out, cap, &n); }
    peft_session_free(s);
    peft_batch_free(b);
    return st == PEFT_OK ? (int64_t)n : -1;
}

/* ---- configs ---------------------------------------------------------------------------------------------------------------- */

TEST(encoder_configs_are_refused_by_key) {
    static const struct { const char *config; peft_status code; const char *says; } cases[] = {
        {"{\"model_type\":\"bert\",\"hidden_size\":16}", PEFT_E_FORMAT, "key \"num_hidden_layers\" is missing"},
        {ENCODER_BERT(",\"type_vocab_size\":\"two\""), PEFT_E_FORMAT, "\"type_vocab_size\""},
        {ENCODER_BERT(",\"hidden_act\":\"mish\""), PEFT_E_UNSUPPORTED, "key \"hidden_act\" is \"mish\", expected silu"},
        {ENCODER_BERT(",\"position_embedding_type\":\"relative_key\""), PEFT_E_UNSUPPORTED, "only \"absolute\" is supported"},
        {ENCODER_BERT(",\"is_decoder\":true"), PEFT_E_UNSUPPORTED, "key \"is_decoder\" is true, only false is supported"},
        {ENCODER_BERT(",\"layer_norm_eps\":2"), PEFT_E_FORMAT, "epsilon of the norms"},
        {"{\"model_type\":\"bert\",\"vocab_size\":40,\"hidden_size\":15,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
         "\"intermediate_size\":24}", PEFT_E_FORMAT, "hidden_size 15 is no multiple of 2 attention heads"},
        {ENCODER_ROBERTA(",\"pad_token_id\":15"), PEFT_E_FORMAT, "positions begin at pad_token_id + 1 = 16"},
        {"{\"model_type\":\"distilbert\",\"dim\":16,\"n_layers\":1,\"n_heads\":2}", PEFT_E_FORMAT, "key \"hidden_dim\" is missing"},
        {ENCODER_MODERN(",\"classifier_pooling\":\"max\""), PEFT_E_UNSUPPORTED, "\"classifier_pooling\" is \"max\", expected cls or mean"},
        {ENCODER_MODERN(",\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2}"), PEFT_E_UNSUPPORTED, "\"rope_scaling\""},
        {ENCODER_MODERN(",\"global_rope_theta\":0"), PEFT_E_FORMAT, "key \"global_rope_theta\" is not above 0"},
        {ENCODER_MODERN(",\"layer_types\":[\"full_attention\"]"), PEFT_E_FORMAT, "\"layer_types\" is no list of 2 texts"},
        {ENCODER_BERT(ENCODER_OF("BertForSequenceClassification") ",\"problem_type\":\"ranking\""), PEFT_E_UNSUPPORTED, "\"ranking\""},
        {ENCODER_BERT(ENCODER_OF("BertForTokenClassification") ",\"id2label\":{\"0\":\"a\",\"2\":\"b\"}"), PEFT_E_FORMAT, "id2label"},
        {ENCODER_BERT(ENCODER_OF("BertForTokenClassification") ",\"id2label\":{\"0\":\"a\",\"1\":\"a\"}"), PEFT_E_KEY, "names \"a\" twice"},
        {ENCODER_BERT(ENCODER_OF("BertForTokenClassification") ",\"num_labels\":0"), PEFT_E_FORMAT, "\"num_labels\" is 0"},
    };
    peft_context *ctx = NULL;
    CHECK_OK(peft_context_create(NULL, &ctx));
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        peft_model *m = NULL;
        CHECK_STATUS(peft_model_create_random(ctx, cases[i].config, strlen(cases[i].config), 1, &m), cases[i].code);
        CHECK_ERROR_HAS(cases[i].says);
        CHECK(m == NULL);
    }
    peft_context_free(ctx);
}

/* ---- folders ----------------------------------------------------------------------------------------------------------------- */

static const struct { const char *config; int64_t outputs; const char *says; } encoder_models[] = {
    {ENCODER_BERT(""), 2 * 16, "\"BertModel\""},
    {ENCODER_BERT(ENCODER_OF("BertForMaskedLM")), 9 * 40, "\"BertForMaskedLM\""},
    {ENCODER_BERT(ENCODER_OF("BertForSequenceClassification") ENCODER_LABELS), 2 * 3, "\"fair\": 1"},
    {ENCODER_BERT(ENCODER_OF("BertForQuestionAnswering")), 9 * 2, "\"BertForQuestionAnswering\""},
    {ENCODER_ROBERTA(ENCODER_OF("RobertaForSequenceClassification") ",\"problem_type\":\"multi_label_classification\"" ENCODER_LABELS),
     2 * 3, "\"multi_label_classification\""},
    {ENCODER_ROBERTA(ENCODER_OF("RobertaForMaskedLM") ",\"pad_token_id\":2"), 9 * 40, "\"pad_token_id\": 2"},
    {ENCODER_DISTIL(ENCODER_OF("DistilBertForTokenClassification") ENCODER_LABELS), 9 * 3, "\"good\""},
    {ENCODER_DISTIL(ENCODER_OF("DistilBertForMaskedLM")), 9 * 40, "\"hidden_dim\": 24"},
    {ENCODER_MODERN(ENCODER_OF("ModernBertForMaskedLM") ",\"norm_bias\":true,\"decoder_bias\":false"), 9 * 40, "\"local_attention\": 4"},
    {ENCODER_MODERN(ENCODER_OF("ModernBertForSequenceClassification") ",\"classifier_pooling\":\"mean\"" ENCODER_LABELS), 2 * 3,
     "\"classifier_pooling\": \"mean\""},
};

TEST(encoder_folders_give_the_same_outputs) {
    static float first[9 * 40], again[9 * 40];
    peft_context *ctx = NULL;
    CHECK_OK(peft_context_create(NULL, &ctx));
    for (size_t i = 0; i < PEFT__COUNT(encoder_models); i++) {
        peft_model *m = encoder_random(ctx, encoder_models[i].config), *n = NULL;
        const char *dir = runner_path(runner_tmpdir(), "model");
        CHECK(m != NULL);
        CHECK_INT(encoder_outputs(ctx, m, first, PEFT__COUNT(first)), encoder_models[i].outputs);
        for (int64_t k = 0; k < encoder_models[i].outputs; k++) { CHECK(isfinite(first[k])); }
        CHECK(fabsf(first[0] - first[1]) > 1e-6F);
        CHECK_OK(peft__model_write_hf(m, NULL, -1, dir));
        CHECK_OK(peft_model_open(ctx, dir, NULL, &n));
        CHECK_INT(encoder_outputs(ctx, n, again, PEFT__COUNT(again)), encoder_models[i].outputs);
        CHECK_MEM(again, first, (size_t)encoder_models[i].outputs * sizeof *first);
        bool said = strstr(n->config_json, encoder_models[i].says) != NULL;
        if (!said) { printf("  %s in\n%s\n", encoder_models[i].says, n->config_json); }
        CHECK(said);
        peft_model_free(n);
        peft_model_free(m);
    }
    peft_context_free(ctx);
}

static peft_status encoder_open(peft_context *ctx, const char *dir, const char *options, peft_model **out) {
    peft_options *o = NULL;
    peft_status st = peft_options_create(ctx, "model", &o);
    if (st == PEFT_OK) { st = peft_options_set_json(o, options, strlen(options)); }
    if (st == PEFT_OK) { st = peft_model_open(ctx, dir, o, out); }
    peft_options_free(o);
    return st;
}

/* What a folder of sentence-transformers says of its embeddings, which the option goes before. */
TEST(encoder_pooling_of_the_folder) {
    static const char cls[] = "{\"pooling_mode_cls_token\":true,\"pooling_mode_mean_tokens\":false}";
    static const struct {
        const char *text, *words;
    } bad[] = {{"{\"pooling_mode_max_tokens\":true}", "\"pooling_mode_max_tokens\" is not supported"},
               {"{\"pooling_mode_cls_token\":true,\"pooling_mode_mean_tokens\":true}",
                "with \"pooling_mode_mean_tokens\" is not supported"},
               {"{\"pooling_mode_cls_token\":1}", "pooling_mode_cls_token"}, {"[]", "no object"}};
    peft_context *ctx = NULL;
    peft_model *m = NULL, *n = NULL;
    float mean[2 * 16], first[2 * 16], read[2 * 16];
    const char *dir = runner_path(runner_tmpdir(), "model"), *pooling = runner_path(dir, "1_Pooling");
    CHECK_OK(peft_context_create(NULL, &ctx));
    m = encoder_random(ctx, encoder_models[0].config);
    CHECK_OK(peft__model_write_hf(m, NULL, -1, dir));
    peft_model_free(m);
    const struct { const char *options; float *out; } before[] = {{"{}", mean}, {"{\"pooling\":\"cls\"}", first}};
    for (size_t i = 0; i < PEFT__COUNT(before); i++) {
        CHECK_OK(encoder_open(ctx, dir, before[i].options, &n));
        CHECK_INT(encoder_outputs(ctx, n, before[i].out, PEFT__COUNT(mean)), PEFT__COUNT(mean));
        peft_model_free(n);
    }
    CHECK_OK(peft__dir_make(pooling));
    CHECK_OK(kit_save(ctx, pooling, "config.json", cls));
    const struct { const char *options; const float *like; } after[] = {{"{}", first}, {"{\"pooling\":\"mean\"}", mean}};
    for (size_t i = 0; i < PEFT__COUNT(after); i++) {
        CHECK_OK(encoder_open(ctx, dir, after[i].options, &n));
        CHECK_INT(encoder_outputs(ctx, n, read, PEFT__COUNT(read)), PEFT__COUNT(read));
        CHECK_MEM(read, after[i].like, sizeof read);
        peft_model_free(n);
    }
    CHECK(memcmp(mean, first, sizeof mean) != 0);
    for (size_t i = 0; i < PEFT__COUNT(bad); i++) {
        CHECK_OK(kit_save(ctx, pooling, "config.json", bad[i].text));
        CHECK(encoder_open(ctx, dir, "{}", &n) != PEFT_OK);
        CHECK_ERROR_HAS(bad[i].words);
    }
    peft_context_free(ctx);
}

TEST(encoder_tasks_by_option) {
    peft_context *ctx = NULL;
    peft_model *m = NULL, *n = NULL;
    float out[9 * 16];
    const char *dir = runner_path(runner_tmpdir(), "model");
    CHECK_OK(peft_context_create(NULL, &ctx));
    m = encoder_random(ctx, ENCODER_BERT(""));
    CHECK(m != NULL);
    CHECK_OK(peft__model_write_hf(m, NULL, -1, dir));
    CHECK_STATUS(encoder_open(ctx, dir, "{\"task\":\"causal_lm\"}", &n), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("architecture \"bert\" has no head for task \"causal_lm\", it can have: embedding, masked_lm");
    CHECK_STATUS(encoder_open(ctx, dir, "{\"task\":\"sequence_classification\",\"num_labels\":3,\"labels\":[\"a\",\"b\"]}", &n),
                 PEFT_E_KEY);
    CHECK_ERROR_HAS("num_labels is 3, and there are 2 labels");
    CHECK_OK(encoder_open(ctx, dir, "{\"task\":\"token_classification\",\"labels\":[\"a\",\"b\",\"c\",\"d\"]}", &n));
    CHECK_INT(encoder_outputs(ctx, n, out, PEFT__COUNT(out)), 9 * 4);
    CHECK(n->new_head);
    peft_model_free(n);
    CHECK_OK(encoder_open(ctx, dir, "{\"pooling\":\"cls\"}", &n));
    CHECK_INT(encoder_outputs(ctx, n, out, PEFT__COUNT(out)), 2 * 16);
    for (int32_t r = 0; r < 2; r++) { /* of length 1 */
        double sum = 0;
        for (int32_t k = 0; k < 16; k++) { sum += (double)out[16 * r + k] * (double)out[16 * r + k]; }
        CHECK_NEAR(sum, 1, 1e-5);
    }
    peft_model_free(n);
    peft_model_free(m);
    peft_context_free(ctx);
}

TEST(encoder_gguf_files_keep_the_pooling) {
    peft_context *ctx = NULL;
    peft_model *m = NULL, *n = NULL;
    float first[2 * 16], again[2 * 16];
    const char *dir = runner_path(runner_tmpdir(), "model"), *file = runner_path(runner_tmpdir(), "m.gguf");
    CHECK_OK(peft_context_create(NULL, &ctx));
    m = encoder_random(ctx, ENCODER_BERT(""));
    CHECK(m != NULL);
    CHECK_OK(peft__model_write_hf(m, NULL, -1, dir));
    peft_model_free(m);
    for (int32_t i = 0; i < 3; i++) {
        static const char *const pools[] = {"{\"pooling\":\"mean\"}", "{\"pooling\":\"cls\"}", "{\"pooling\":\"last\"}"};
        CHECK_OK(encoder_open(ctx, dir, pools[i], &m));
        CHECK_INT(encoder_outputs(ctx, m, first, PEFT__COUNT(first)), 2 * 16);
        CHECK_OK(peft__model_write_gguf(m, NULL, -1, NULL, file));
        CHECK_OK(peft_model_open(ctx, file, NULL, &n));
        CHECK_INT(n->config.task.pool, m->config.task.pool);
        CHECK_INT(encoder_outputs(ctx, n, again, PEFT__COUNT(again)), 2 * 16);
        CHECK_MEM(again, first, sizeof first);
        peft_model_free(n);
        peft_model_free(m);
    }
    peft_context_free(ctx);
}

/* ---- sessions and trainers ------------------------------------------------------------------------------------------------------- */

static peft_status encoder_session(peft_context *ctx, peft_model *m, const char *options, peft_session **out) {
    peft_options *o = NULL;
    peft_status st = peft_options_create(ctx, "session", &o);
    if (st == PEFT_OK) { st = peft_options_set_json(o, options, strlen(options)); }
    if (st == PEFT_OK) { st = peft_session_create(m, NULL, NULL, o, out); }
    peft_options_free(o);
    return st;
}

TEST(encoder_rows_are_not_cut) {
    peft_context *ctx = NULL;
    peft_session *s = NULL;
    float out[9 * 16];
    static const int32_t types[9] = {0, 0, 0, 1, 1, 1, 0, 1, 2};
    CHECK_OK(peft_context_create(NULL, &ctx));
    peft_model *m = encoder_random(ctx, ENCODER_BERT(""));
    peft_batch *b = encoder_batch(ctx);
    CHECK(m != NULL && b != NULL);
    CHECK_STATUS(encoder_session(ctx, m, "{\"max_length\":8,\"chunk\":4}", &s), PEFT_E_KEY);
    CHECK_ERROR_HAS("key \"chunk\" is 4, less than max_length 8, and rows of bert cannot be cut");
    CHECK_STATUS(encoder_session(ctx, m, "{\"max_length\":17}", &s), PEFT_E_KEY);
    CHECK_ERROR_HAS("the model has 16 positions");
    CHECK_OK(encoder_session(ctx, m, "{\"chunk\":5}", &s));
    CHECK_STATUS(peft_session_logits(s, b, out, PEFT__COUNT(out), NULL), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("row 0 has 6 tokens, more than the session's max_length of 5, and it cannot be cut: set max_length");
    CHECK_STATUS(peft_session_generate(s, NULL, encoder_ids, 3, NULL, NULL, NULL, NULL, 0, NULL), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("a bert model for embedding has no next token to generate");
    peft_session_free(s);
    CHECK_OK(peft_batch_set_i32(b, "token_type_ids", types, encoder_offsets, 2));
    CHECK_OK(encoder_session(ctx, m, "{}", &s));
    CHECK_STATUS(peft_session_logits(s, b, out, PEFT__COUNT(out), NULL), PEFT_E_INVALID);
    CHECK_ERROR_HAS("token 8 has type 2, expected 0 to 1");
    peft_session_free(s);
    peft_batch_free(b);
    peft_model_free(m);
    peft_context_free(ctx);
}

static peft_trainer *encoder_trainer(peft_context *ctx, peft_model *m, peft_adapters **set) {
    peft_trainer *t = NULL;
    peft_options *o = NULL;
    static const char options[] = "{\"batch_size\":4,\"max_length\":8}";
    peft_status st = peft_adapters_create(m, set);
    if (st == PEFT_OK) { st = peft_adapters_add(*set, "a", "lora", NULL, 1); }
    if (st == PEFT_OK) { st = peft_options_create(ctx, "trainer", &o); }
    if (st == PEFT_OK) { st = peft_options_set_json(o, options, sizeof options - 1); }
    if (st == PEFT_OK) { st = peft_trainer_create(*set, o, &t); }
    if (st == PEFT_OK) { st = peft_trainer_add_job(t, "a", NULL, NULL, NULL); }
    peft_options_free(o);
    return st == PEFT_OK ? t : NULL;
}

TEST(encoder_batches_need_what_the_loss_needs) {
    static const struct { const char *config, *lacks; } cases[] = {
        {ENCODER_BERT(ENCODER_OF("BertForSequenceClassification") ENCODER_LABELS), "no \"row_labels\", which a loss of sequence_classif"},
        {ENCODER_BERT(ENCODER_OF("BertForSequenceClassification") ",\"problem_type\":\"regression\",\"id2label\":{\"0\":\"x\"}"),
         "no \"targets\""},
        {ENCODER_BERT(ENCODER_OF("BertForTokenClassification") ENCODER_LABELS), "no \"labels\", which a loss of token_classification"},
        {ENCODER_BERT(ENCODER_OF("BertForQuestionAnswering")), "no \"spans\""},
        {ENCODER_BERT(ENCODER_OF("BertForMaskedLM")), "no \"labels\""},
        {ENCODER_BERT(""), "no \"row_labels\""},
    };
    peft_context *ctx = NULL;
    CHECK_OK(peft_context_create(NULL, &ctx));
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        peft_adapters *set = NULL;
        peft_model *m = encoder_random(ctx, cases[i].config);
        peft_batch *b = encoder_batch(ctx);
        peft_trainer *t = encoder_trainer(ctx, m, &set);
        CHECK(m != NULL && b != NULL && t != NULL);
        CHECK_STATUS(peft_trainer_accumulate(t, b, NULL), PEFT_E_INVALID);
        CHECK_ERROR_HAS(cases[i].lacks);
        peft_trainer_free(t);
        peft_batch_free(b);
        peft_adapters_free(set);
        peft_model_free(m);
    }
    peft_context_free(ctx);
}

/* A config may say how many labels there are and name none. */
TEST(encoder_labels_without_names) {
    static const struct { const char *config, *says; } cases[] = {
        {ENCODER_BERT(ENCODER_OF("BertForTokenClassification") ",\"num_labels\":5"), "\"num_labels\":5,"},
        {ENCODER_BERT(ENCODER_OF("BertForTokenClassification") ENCODER_LABELS ",\"num_labels\":5"), "\"num_labels\":3,"},
        {ENCODER_BERT(ENCODER_OF("BertForTokenClassification")), "\"num_labels\":2,"},
    };
    peft_context *ctx = NULL;
    CHECK_OK(peft_context_create(NULL, &ctx));
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        char info[4096];
        peft_model *m = encoder_random(ctx, cases[i].config);
        CHECK(m != NULL);
        CHECK_OK(peft_model_info_json(m, info, sizeof info, NULL));
        if (strstr(info, cases[i].says) == NULL) { CHECK_STR(info, cases[i].says); }
        peft_model_free(m);
    }
    peft_context_free(ctx);
}

TEST(encoder_batches_are_checked_against_the_labels) {
    static const int32_t labels[2] = {2, 3}, good[2] = {2, -100}, odd[2] = {2, -1}, spans[4] = {1, 2, 0, 3};
    static const float numbers[3] = {1, 2, 3};
    static const int64_t uneven[3] = {0, 1, 3};
    peft_context *ctx = NULL;
    peft_adapters *set = NULL;
    double loss = 0;
    CHECK_OK(peft_context_create(NULL, &ctx));
    peft_model *m = encoder_random(ctx, encoder_models[2].config);
    peft_batch *b = encoder_batch(ctx);
    peft_trainer *t = encoder_trainer(ctx, m, &set);
    CHECK(m != NULL && b != NULL && t != NULL);
    CHECK_STATUS(peft_batch_set_i32(b, "row_labels", odd, NULL, 2), PEFT_E_INVALID);
    CHECK_ERROR_HAS("value 1 of \"row_labels\" is -1, expected a label from 0, or -100");
    CHECK_STATUS(peft_batch_set_i32(b, "row_labels", good, NULL, 1), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("\"row_labels\" has 1 values, \"input_ids\" have 2 rows");
    CHECK_STATUS(peft_batch_set_f32(b, "targets", numbers, uneven, 2), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("row 1 has another number of values of \"targets\" than 1");
    CHECK_OK(peft_batch_set_i32(b, "spans", spans, NULL, 2));
    CHECK_OK(peft_batch_set_i32(b, "row_labels", labels, NULL, 2));
    CHECK_STATUS(peft_trainer_accumulate(t, b, NULL), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("row 1 has label 3, and the model's labels are 3");
    CHECK_OK(peft_batch_set_i32(b, "row_labels", good, NULL, 2));
    CHECK_OK(peft_trainer_accumulate(t, b, &loss));
    CHECK_NEAR(loss, log(3), 0.5); /* a head that is random and small */
    CHECK_OK(peft_trainer_apply(t));
    peft_trainer_free(t);
    peft_batch_free(b);
    peft_adapters_free(set);
    peft_model_free(m);
    peft_context_free(ctx);
}
