/* train_tasks_test.c - evaluation and training of every task but the next token over small random models: what an evaluation says is
 * computed again from the outputs of a session, and a few steps of training lower the loss. */
#include "rows_tasks_kit.h"
#include "train_kit.h"

#define TASKS_BERT(class, rest)                                                                                                       \
    "{\"model_type\":\"bert\",\"architectures\":[\"Bert" class "\"],\"hidden_size\":16,\"num_hidden_layers\":2,"                      \
    "\"num_attention_heads\":2,\"intermediate_size\":24,\"vocab_size\":14,\"max_position_embeddings\":48,\"type_vocab_size\":2" rest "}"
#define TASKS_T5                                                                                                                       \
    "{\"model_type\":\"t5\",\"vocab_size\":14,\"d_model\":16,\"d_kv\":6,\"d_ff\":20,\"num_layers\":2,\"num_heads\":2,"                \
    "\"decoder_start_token_id\":0,\"pad_token_id\":0,\"eos_token_id\":12}"
enum { TASKS_ROOM = 1024, TASKS_ROWS = 6 };

typedef struct tasks_world {
    rt_kit k;
    peft_model *m;
    peft_adapters *a; /* "x": a LoRA that changes something */
    peft_session *s;
    float out[TASKS_ROOM];
    size_t n; /* numbers in out */
} tasks_world;

typedef struct tasks_spec {
    const char *config, *rows[TASKS_ROWS]; /* ' for " in rows */
    const char *data;                      /* options of the set */
} tasks_spec;

static peft_status tasks_open(tasks_world *w, const tasks_spec *spec, bool bytes) {
    peft_status st = PEFT_OK;
    static const char *const lora[2] = {"lora", "{'r':4,'lora_alpha':8}"};
    memset(w, 0, sizeof *w);
    TRY(bytes ? rt_bytes(&w->k, spec->data) : rt_bert(&w->k, spec->data));
    for (size_t i = 0; i < TASKS_ROWS && spec->rows[i] != NULL; i++) { TRY(rt_add(&w->k, spec->rows[i])); }
    TRY(api_model(w->k.ctx, spec->config, &w->m));
    train_stir(w->m);
    TRY(peft_adapters_create(w->m, &w->a));
    TRY(api_adapter(w->k.ctx, w->a, "x", lora, 4, 0.2F));
    TRY(peft_session_create(w->m, w->a, "x", NULL, &w->s));
out:
    return st;
}

static void tasks_close(tasks_world *w) {
    peft_session_free(w->s);
    peft_adapters_free(w->a);
    peft_model_free(w->m);
    rt_end(&w->k);
    CHECK_INT(w->k.host.now, 0);
}

/* The loss goes down in 30 steps, whose trainer says the same of the data as a session, before and after. */
static void tasks_train(tasks_world *w, double before, const char *options) {
    peft_trainer *t = NULL;
    peft_options *o = NULL, *rate = NULL;
    char text[1024], again[1024];
    peft_session_free(w->s);
    w->s = NULL;
    CHECK_OK(api_options(w->k.ctx, "trainer", options, &o));
    CHECK_OK(peft_trainer_create(w->a, o, &t));
    CHECK_OK(api_options(w->k.ctx, "optimizer", "{'learning_rate':0.02}", &rate));
    CHECK_OK(peft_trainer_add_job(t, "x", w->k.d, NULL, rate));
    CHECK_OK(peft_trainer_evaluate(t, w->k.d, text, sizeof text, NULL));
    CHECK_NEAR(train_number(text, "loss"), before, 1e-5 * fmax(before, 1));
    CHECK_OK(peft_trainer_run(t));
    CHECK_OK(peft_trainer_evaluate(t, w->k.d, text, sizeof text, NULL));
    CHECK(train_number(text, "loss") < 0.8 * before);
    CHECK_OK(peft_session_create(w->m, w->a, "x", NULL, &w->s));
    CHECK_OK(peft_session_evaluate(w->s, w->k.d, again, sizeof again, NULL));
    CHECK_NEAR(train_number(again, "loss"), train_number(text, "loss"), 1e-6);
    peft_trainer_free(t);
    peft_options_free(o);
    peft_options_free(rate);
}

#define TASKS_STEPS "{'max_steps':30,'batch_size':4}"

/* -log softmax(x)[label] of n numbers `step` apart. */
static double tasks_nll(const float *x, int64_t n, int64_t step, int64_t label) {
    double top = -1e30, sum = 0;
    for (int64_t i = 0; i < n; i++) { top = fmax(top, (double)x[i * step]); }
    for (int64_t i = 0; i < n; i++) { sum += exp((double)x[i * step] - top); }
    return top + log(sum) - (double)x[label * step];
}

static int64_t tasks_best(const float *x, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++) { best = x[i] > x[best] ? i : best; }
    return best;
}

/* Outputs, and what the evaluation says, of which only the number of rows is checked here. */
static void tasks_run(tasks_world *w, size_t outputs, int64_t rows, char text[1024]) {
    CHECK_OK(peft_session_outputs(w->s, w->k.d, w->out, TASKS_ROOM, &w->n));
    CHECK_INT(w->n, outputs);
    CHECK_STATUS(peft_session_outputs(w->s, w->k.d, w->out, outputs - 1, NULL), PEFT_E_BUFFER);
    CHECK_OK(peft_session_evaluate(w->s, w->k.d, text, 1024, NULL));
    CHECK_NEAR(train_number(text, "rows"), rows, 0);
}

/* ---- of whole rows ------------------------------------------------------------------------------------------------------ */

TEST(tasks_several_labels) {
    static const tasks_spec spec = {
        TASKS_BERT("ForSequenceClassification", ",\"problem_type\":\"multi_label_classification\",\"num_labels\":3"),
        {"{'text':'a b','labels':[0,2]}", "{'text':'x','labels':[]}", "{'text':'c b x','labels':[1]}", "{'text':'b','labels':[0,1,2]}"},
        "{'task':'sequence_classification'}"};
    static const int32_t truth[4][3] = {{1, 0, 1}, {0, 0, 0}, {0, 1, 0}, {1, 1, 1}};
    tasks_world w;
    char text[1024];
    double loss = 0, all = 0;
    CHECK_OK(tasks_open(&w, &spec, false));
    tasks_run(&w, 12, 4, text);
    for (size_t r = 0; r < 4; r++) {
        bool right = true;
        for (size_t j = 0; j < 3; j++) {
            double x = (double)w.out[r * 3 + j];
            loss += log1p(exp(truth[r][j] != 0 ? -x : x)) / 12;
            right = right && (x > 0) == (truth[r][j] != 0);
        }
        all += right ? 0.25 : 0;
    }
    CHECK_NEAR(train_number(text, "loss"), loss, 1e-5);
    CHECK_NEAR(train_number(text, "accuracy"), all, 1e-7);
    tasks_train(&w, loss, TASKS_STEPS);
    tasks_close(&w);
}

TEST(tasks_regression) {
    static const tasks_spec spec = {
        TASKS_BERT("ForSequenceClassification", ",\"num_labels\":1"),
        {"{'text':'a b','label':2.5}", "{'text':'x','label':-1}", "{'text':'c b x','text_pair':'a','label':0.25}", "{'text':'b c'}"},
        "{'task':'sequence_classification'}"};
    static const double truth[3] = {2.5, -1, 0.25};
    tasks_world w;
    char text[1024];
    double squares = 0, sizes = 0;
    CHECK_OK(tasks_open(&w, &spec, false));
    tasks_run(&w, 4, 4, text);
    for (size_t r = 0; r < 3; r++) { /* the last row has no number */
        squares += ((double)w.out[r] - truth[r]) * ((double)w.out[r] - truth[r]) / 3;
        sizes += fabs((double)w.out[r] - truth[r]) / 3;
    }
    CHECK_NEAR(train_number(text, "loss"), squares, 1e-5 * squares);
    CHECK_NEAR(train_number(text, "mse"), squares, 1e-5 * squares);
    CHECK_NEAR(train_number(text, "mae"), sizes, 1e-5 * sizes);
    tasks_train(&w, squares, TASKS_STEPS);
    tasks_close(&w);
}

/* Anchors against all positives and negatives of the batch, which here is all data: cosines times 20. */
TEST(tasks_embeddings) {
    static const tasks_spec spec = {TASKS_BERT("Model", ""),
                                    {"{'anchor':'a b','positive':'b a','negative':'x'}",
                                     "{'anchor':'c','positive':'c c x','negative':'a .'}",
                                     "{'anchor':'x x b','positive':'b x','negative':'c'}"},
                                    "{'task':'embedding'}"};
    enum { WIDE = 16, SETS = 3 };
    tasks_world w;
    char text[1024];
    double loss = 0, right = 0;
    CHECK_OK(tasks_open(&w, &spec, false));
    tasks_run(&w, 3 * SETS * WIDE, SETS, text);
    for (size_t r = 0; r < SETS; r++) {
        float x[2 * SETS];
        const float *anchor = w.out + 3 * r * WIDE;
        for (size_t c = 0; c < 2 * SETS; c++) { /* positive and negative of each row */
            const float *other = w.out + (3 * (c / 2) + 1 + c % 2) * WIDE;
            double dot = 0;
            for (size_t i = 0; i < WIDE; i++) { dot += (double)anchor[i] * (double)other[i]; }
            x[c] = (float)(20 * dot);
        }
        loss += tasks_nll(x, 2 * SETS, 1, (int64_t)(2 * r)) / SETS;
        right += tasks_best(x, 2 * SETS) == (int64_t)(2 * r) ? 1.0 / SETS : 0;
    }
    CHECK_NEAR(train_number(text, "loss"), loss, 2e-5 * fmax(loss, 1));
    CHECK_NEAR(train_number(text, "accuracy"), right, 1e-7);
    tasks_train(&w, loss, TASKS_STEPS);
    tasks_close(&w);
}

/* How alike two texts are by their cosine, beside a number. */
TEST(tasks_embeddings_with_scores) {
    static const tasks_spec spec = {TASKS_BERT("Model", ""),
                                    {"{'sentence1':'a b','sentence2':'b a','score':4}", "{'sentence1':'c','sentence2':'x .','score':1}",
                                     "{'sentence1':'x x b','sentence2':'b x','score':3}", "{'sentence1':'a','sentence2':'c c','score':2}"},
                                    "{'task':'embedding'}"};
    static const double score[4] = {4, 1, 3, 2};
    enum { WIDE = 16 };
    tasks_world w;
    char text[1024];
    double dot[4] = {0}, squares = 0;
    CHECK_OK(tasks_open(&w, &spec, false));
    tasks_run(&w, 8 * WIDE, 4, text);
    for (size_t r = 0; r < 4; r++) {
        for (size_t i = 0; i < WIDE; i++) { dot[r] += (double)w.out[2 * r * WIDE + i] * (double)w.out[(2 * r + 1) * WIDE + i]; }
    }
    for (size_t r = 0; r < 4; r++) { /* Spearman: 1 - 6 sum of squared differences of ranks / (n (n^2 - 1)) */
        double rank = 1;
        for (size_t q = 0; q < 4; q++) { rank += dot[q] < dot[r] ? 1 : 0; }
        squares += (rank - score[r]) * (rank - score[r]);
    }
    CHECK_NEAR(train_number(text, "spearman"), 1 - 6 * squares / 60, 1e-9);
    tasks_close(&w);
}

/* ---- of tokens ----------------------------------------------------------------------------------------------------------- */

TEST(tasks_labels_of_tokens) {
    static const tasks_spec spec = {TASKS_BERT("ForTokenClassification", ",\"num_labels\":3"),
                                    {"{'tokens':['a','ab','x'],'labels':[0,2,null]}", "{'input_ids':[2,6,7,3],'labels':[-100,1,1,-100]}"},
                                    "{'task':'token_classification'}"};
    static const int32_t at[] = {1, 2, 6, 7}, label[] = {0, 2, 1, 1}; /* [CLS] a a ##b x [SEP], then [CLS] b c [SEP] */
    tasks_world w;
    char text[1024];
    double loss = 0, right = 0;
    CHECK_OK(tasks_open(&w, &spec, false));
    tasks_run(&w, 10 * 3, 2, text);
    for (size_t i = 0; i < 4; i++) {
        const int64_t t = at[i] + (i >= 2 ? 1 : 0);
        loss += tasks_nll(w.out + 3 * t, 3, 1, label[i]) / 4;
        right += tasks_best(w.out + 3 * t, 3) == label[i] ? 0.25 : 0;
    }
    CHECK_NEAR(train_number(text, "loss"), loss, 1e-5);
    CHECK_NEAR(train_number(text, "accuracy"), right, 1e-7);
    CHECK_NEAR(train_number(text, "tokens"), 4, 0);
    tasks_train(&w, loss, TASKS_STEPS);
    tasks_close(&w);
}

TEST(tasks_answers) {
    static const tasks_spec spec = {TASKS_BERT("ForQuestionAnswering", ""),
                                    {"{'question':'a','context':'b c x','answers':[{'text':'c x','answer_start':2}]}",
                                     "{'question':'x','context':'a b','answers':[]}"},
                                    "{'task':'question_answering'}"};
    tasks_world w;
    char text[1024];
    CHECK_OK(tasks_open(&w, &spec, false)); /* [CLS] a [SEP] b c x [SEP], then [CLS] x [SEP] a b [SEP] */
    tasks_run(&w, (7 + 6) * 2, 2, text);
    double loss = (tasks_nll(w.out, 7, 2, 4) + tasks_nll(w.out + 1, 7, 2, 5)) / 4;
    loss += (tasks_nll(w.out + 14, 6, 2, 0) + tasks_nll(w.out + 15, 6, 2, 0)) / 4;
    CHECK_NEAR(train_number(text, "loss"), loss, 1e-5);
    tasks_train(&w, loss, TASKS_STEPS);
    CHECK_OK(peft_session_evaluate(w.s, w.k.d, text, sizeof text, NULL));
    CHECK_NEAR(train_number(text, "exact_match"), 1, 0);
    tasks_close(&w);
}

/* The loss over n tokens of a batch, the at-th each, is what the evaluation says of the data, and training lowers it. */
static void tasks_expect_tokens(tasks_world *w, const peft_batch *b, const int32_t *at, const int32_t *label, int64_t n) {
    enum { VOCAB = 14 };
    char text[1024];
    double loss = 0;
    CHECK_OK(peft_session_logits(w->s, b, w->out, TASKS_ROOM, &w->n));
    CHECK_OK(peft_session_evaluate(w->s, w->k.d, text, sizeof text, NULL));
    for (int64_t i = 0; i < n; i++) { loss += tasks_nll(w->out + at[i] * VOCAB, VOCAB, 1, label[i]) / (double)n; }
    CHECK_NEAR(train_number(text, "loss"), loss, 1e-5);
    CHECK_NEAR(train_number(text, "tokens"), n, 0);
    tasks_train(w, loss, TASKS_STEPS);
}

TEST(tasks_masked_tokens) {
    static const tasks_spec spec = {TASKS_BERT("ForMaskedLM", ""),
                                    {"{'input_ids':[2,4,7,3],'labels':[-100,6,-100,-100]}",
                                     "{'input_ids':[2,5,4,3],'labels':[-100,5,11,-100]}"},
                                    "{'task':'masked_lm'}"};
    static const int64_t lens[2] = {4, 4};
    static const int32_t ids[8] = {2, 4, 7, 3, 2, 5, 4, 3}, at[3] = {1, 5, 6}, label[3] = {6, 5, 11};
    tasks_world w;
    peft_batch *b = NULL;
    CHECK_OK(tasks_open(&w, &spec, false));
    CHECK_STATUS(peft_session_outputs(w.s, w.k.d, w.out, TASKS_ROOM, &w.n), PEFT_E_UNSUPPORTED);
    CHECK_OK(api_batch(w.k.ctx, ids, lens, 2, &b));
    tasks_expect_tokens(&w, b, at, label, 3);
    peft_batch_free(b);
    tasks_close(&w);
}

/* Tokens of a text are masked by chance, the same ones in each evaluation. */
TEST(tasks_masked_at_random) {
    static const tasks_spec spec = {TASKS_BERT("ForMaskedLM", ""),
                                    {"{'text':'a b c x . a b c x . a b c'}", "{'text':'x x a a b b c c . .'}"},
                                    "{'task':'masked_lm','mlm_probability':0.5}"};
    tasks_world w;
    char text[1024], again[1024];
    CHECK_OK(tasks_open(&w, &spec, false));
    CHECK_OK(peft_session_evaluate(w.s, w.k.d, text, sizeof text, NULL));
    CHECK_OK(peft_session_evaluate(w.s, w.k.d, again, sizeof again, NULL));
    CHECK_STR(again, text);
    CHECK(train_number(text, "tokens") >= 4 && train_number(text, "tokens") <= 19); /* of 23 */
    tasks_train(&w, train_number(text, "loss"), "{'max_steps':60,'batch_size':2}");
    tasks_close(&w);
}

/* ---- a source and a target; words of classes ------------------------------------------------------------------------------- */

TEST(tasks_sources_and_targets) {
    static const tasks_spec spec = {TASKS_T5,
                                    {"{'input_ids':[3,4,5],'labels':[6,7,12]}", "{'input_ids':[8],'labels':[2,12]}"},
                                    "{'task':'seq2seq_lm'}"};
    static const int32_t source[4] = {3, 4, 5, 8}, ids[5] = {0, 6, 7, 0, 2}, label[5] = {6, 7, 12, 2, 12};
    static const int32_t at[5] = {0, 1, 2, 3, 4};
    static const int64_t lens[2] = {3, 2}, offsets[3] = {0, 3, 4};
    tasks_world w;
    peft_batch *b = NULL;
    CHECK_OK(tasks_open(&w, &spec, true));
    CHECK_OK(api_batch(w.k.ctx, ids, lens, 2, &b));
    CHECK_OK(peft_batch_set_i32(b, "source_ids", source, offsets, 2));
    tasks_expect_tokens(&w, b, at, label, 5);
    peft_batch_free(b);
    tasks_close(&w);
}

/* Classes as words: the one whose words a prompt makes likeliest. " a" is token 10, "c" token 2. */
TEST(tasks_words_of_classes) {
    static const tasks_spec spec = {API_LLAMA,
                                    {"{'text':'ab','label':'good'}", "{'text':'c1','label':'bad'}", "{'text':'abc','label':'bad'}"},
                                    "{'verbalizer':{'good':' a','bad':'c'}}"};
    static const int32_t prompts[3][2] = {{8, -1}, {2, 5}, {9, -1}}, words[2] = {10, 2}, truth[3] = {0, 1, 1};
    tasks_world w;
    char text[1024];
    double loss = 0, right = 0;
    CHECK_OK(tasks_open(&w, &spec, true));
    for (size_t r = 0; r < 3; r++) {
        const int64_t n = prompts[r][1] < 0 ? 1 : 2;
        peft_batch *b = NULL;
        double nll[2];
        CHECK_OK(api_batch(w.k.ctx, prompts[r], &n, 1, &b));
        CHECK_OK(peft_session_logits(w.s, b, w.out, TASKS_ROOM, NULL));
        for (size_t c = 0; c < 2; c++) { nll[c] = tasks_nll(w.out + (n - 1) * 14, 14, 1, words[c]); }
        loss += nll[truth[r]] / 3;
        right += (nll[1] < nll[0]) == (truth[r] == 1) ? 1.0 / 3 : 0;
        peft_batch_free(b);
    }
    CHECK_OK(peft_session_evaluate(w.s, w.k.d, text, sizeof text, NULL));
    CHECK_NEAR(train_number(text, "loss"), loss, 1e-5);
    CHECK_NEAR(train_number(text, "accuracy"), right, 1e-6);
    CHECK_NEAR(train_number(text, "rows"), 3, 0);
    tasks_train(&w, loss, TASKS_STEPS);
    tasks_close(&w);
}
