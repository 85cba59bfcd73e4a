/* train_labels_test.c - what the labels of a data set mean to a task: names become its classes, numbers are held against it, classes get
 * weights; and what does not fit, each with its message. */
#include "rows_tasks_kit.h"

static const char *const labels_abc[] = {"a", "b", "c"};
#define LABELS_TASK(k, p, n, abc) {.kind = PEFT__TASK_##k, .problem = PEFT__PROBLEM_##p, .labels = (n), .names = (abc) ? labels_abc : NULL}

/* Rows, one after the other, into a set of a task. */
static peft_status labels_rows(rt_kit *k, const char *options, const char *const rows[4]) {
    peft_status st = rt_none(k, options);
    for (size_t i = 0; st == PEFT_OK && i < 4 && rows[i] != NULL; i++) { st = rt_add(k, rows[i]); }
    return st;
}

#define LABELS_SEQ "{'task':'sequence_classification'}"
#define LABELS_TOK "{'task':'token_classification'}"

typedef struct labels_case {
    const char *options, *rows[4];
    peft__task task;
    const char *says; /* PEFT_OK: the classes of the names, "-" without names */
    peft_status st;
} labels_case;

static const labels_case labels_one[] = {
    {LABELS_SEQ, {"{'input_ids':[1],'label':'c'}", "{'input_ids':[1],'label':'a'}"}, LABELS_TASK(SEQUENCE, SINGLE, 3, 1), "2 0", PEFT_OK},
    {LABELS_SEQ, {"{'input_ids':[1],'label':2}", "{'input_ids':[1]}"}, LABELS_TASK(SEQUENCE, SINGLE, 3, 1), "-", PEFT_OK},
    {LABELS_SEQ, {"{'input_ids':[1],'label':'d'}"}, LABELS_TASK(SEQUENCE, SINGLE, 3, 1),
     "the t data has label \"d\", which is none of the model's: a, b, c", PEFT_E_NOT_FOUND},
    {LABELS_SEQ, {"{'input_ids':[1],'label':'a'}"}, LABELS_TASK(SEQUENCE, SINGLE, 3, 0),
     "the t data has label \"a\", and the model's 3 labels have no names: give it the option labels", PEFT_E_NOT_FOUND},
    {LABELS_SEQ, {"{'input_ids':[1],'label':2}", "{'input_ids':[1],'label':3}"}, LABELS_TASK(SEQUENCE, SINGLE, 3, 0),
     "row 1 of the t data has label 3, and the model has labels 0 to 2", PEFT_E_SHAPE},
    {LABELS_SEQ, {"{'input_ids':[1],'label':-3}"}, LABELS_TASK(SEQUENCE, SINGLE, 3, 0), "has label -3, and", PEFT_E_SHAPE},
    {LABELS_SEQ, {"{'input_ids':[1],'label':1.5}"}, LABELS_TASK(SEQUENCE, SINGLE, 3, 0), "has label 1.5, and", PEFT_E_SHAPE},
    {LABELS_SEQ, {"{'input_ids':[1],'label':[1]}"}, LABELS_TASK(SEQUENCE, SINGLE, 3, 0),
     "row 0 of the t data has several labels, and the model gives one", PEFT_E_FORMAT},
    {LABELS_SEQ, {"{'input_ids':[1]}", "{'input_ids':[1],'label':-100}"}, LABELS_TASK(SEQUENCE, SINGLE, 3, 0),
     "no row of the t data has a \"label\"", PEFT_E_INVALID},
    {LABELS_SEQ, {"{'input_ids':[1],'label':1}"}, LABELS_TASK(TOKENS, SINGLE, 3, 0),
     "the t data has rows for sequence_classification, and the model's task is token_classification: give one of them the option task",
     PEFT_E_INVALID},
};

static const labels_case labels_several[] = {
    {LABELS_SEQ, {"{'input_ids':[1],'label':2}", "{'input_ids':[1],'label':-0.5}"}, LABELS_TASK(SEQUENCE, REGRESSION, 1, 0), "-", PEFT_OK},
    {LABELS_SEQ, {"{'input_ids':[1],'label':[1,2]}"}, LABELS_TASK(SEQUENCE, REGRESSION, 2, 0), "-", PEFT_OK},
    {LABELS_SEQ, {"{'input_ids':[1],'label':[1,2]}"}, LABELS_TASK(SEQUENCE, REGRESSION, 3, 0),
     "row 0 of the t data has 2 numbers, and the model gives 3", PEFT_E_SHAPE},
    {LABELS_SEQ, {"{'input_ids':[1],'label':[]}"}, LABELS_TASK(SEQUENCE, REGRESSION, 1, 0), "has 0 numbers, and the model gives 1",
     PEFT_E_SHAPE},
    {LABELS_SEQ, {"{'input_ids':[1],'label':'a'}"}, LABELS_TASK(SEQUENCE, REGRESSION, 3, 1),
     "row 0 of the t data has a name as its label, and the model gives numbers", PEFT_E_FORMAT},
    {LABELS_SEQ, {"{'input_ids':[1]}"}, LABELS_TASK(SEQUENCE, REGRESSION, 1, 0), "no row of the t data has a \"label\"", PEFT_E_INVALID},
    {LABELS_SEQ, {"{'input_ids':[1],'label':['c','b']}", "{'input_ids':[1],'label':[]}"}, LABELS_TASK(SEQUENCE, MULTI, 3, 1), "2 1",
     PEFT_OK},
    {LABELS_SEQ, {"{'input_ids':[1],'label':[0,1,0.5]}"}, LABELS_TASK(SEQUENCE, MULTI, 3, 1), "-", PEFT_OK}, /* marks */
    {LABELS_SEQ, {"{'input_ids':[1],'label':[2]}", "{'input_ids':[1],'label':[0,2,1]}"}, LABELS_TASK(SEQUENCE, MULTI, 3, 1), "-", PEFT_OK},
    {LABELS_SEQ, {"{'input_ids':[1],'label':[0,3]}"}, LABELS_TASK(SEQUENCE, MULTI, 3, 0), "has label 3, and the model has labels 0 to 2",
     PEFT_E_SHAPE},
    {LABELS_SEQ, {"{'input_ids':[1],'label':[0,-1,0]}"}, LABELS_TASK(SEQUENCE, MULTI, 3, 0), "has label -1, and", PEFT_E_SHAPE},
    {LABELS_TOK, {"{'input_ids':[1,2],'labels':[-100,2]}"}, LABELS_TASK(TOKENS, SINGLE, 3, 0), "-", PEFT_OK},
    {LABELS_TOK, {"{'input_ids':[1,2],'labels':[-100,3]}"}, LABELS_TASK(TOKENS, SINGLE, 3, 0), "row 0 of the t data has label 3, and",
     PEFT_E_SHAPE},
    {LABELS_TOK, {"{'input_ids':[1,2],'labels':[-100,-100]}"}, LABELS_TASK(TOKENS, SINGLE, 3, 0), "no token of the t data has a label",
     PEFT_E_INVALID},
    {"{}", {"{'input_ids':[1,2]}"}, LABELS_TASK(CAUSAL_LM, SINGLE, 0, 0), "-", PEFT_OK},
};

static void labels_check(const labels_case *c) {
    rt_kit k;
    int32_t *classes = NULL;
    char text[64] = "-";
    CHECK_OK(labels_rows(&k, c->options, c->rows));
    CHECK_STATUS(peft__labels_match(k.d, &c->task, "t", &k.ctx->mem, &classes), c->st);
    if (c->st != PEFT_OK) {
        CHECK(classes == NULL);
        CHECK_ERROR_HAS(c->says);
    } else {
        for (size_t i = 0, at = 0; classes != NULL && i < k.d->names.len; i++) {
            at += (size_t)snprintf(text + at, sizeof text - at, "%s%d", i > 0 ? " " : "", (int)classes[i]);
        }
        CHECK_STR(text, c->says);
    }
    peft__labels_free(k.d, &k.ctx->mem, classes);
    rt_end(&k);
    CHECK_INT(k.host.now, 0);
}

TEST(train_labels_of_one_class) {
    for (size_t i = 0; i < PEFT__COUNT(labels_one); i++) { labels_check(&labels_one[i]); }
}
TEST(train_labels_of_several) {
    for (size_t i = 0; i < PEFT__COUNT(labels_several); i++) { labels_check(&labels_several[i]); }
}

/* A long list of names is cut. */
TEST(train_labels_known_are_cut) {
    static const char name[] = "a name that is rather long, as some are";
    const char *names[40];
    rt_kit k;
    int32_t *classes = NULL;
    static const char *const rows[4] = {"{'input_ids':[1],'label':'z'}"};
    for (size_t i = 0; i < PEFT__COUNT(names); i++) { names[i] = name; }
    const peft__task task = {.kind = PEFT__TASK_SEQUENCE, .labels = 40, .names = names};
    CHECK_OK(labels_rows(&k, LABELS_SEQ, rows));
    CHECK_STATUS(peft__labels_match(k.d, &task, "training", &k.ctx->mem, &classes), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("none of the model's: a name that is rather long");
    CHECK(strlen(peft_last_error()) < 400);
    rt_end(&k);
}

/* ---- weights -------------------------------------------------------------------------------------------------------- */

static const struct labels_weigh {
    const char *options, *rows[4];
    peft__task task;
    const char *option;
    float w[3];
    const char *says;
} labels_weights_cases[] = {
    /* 4 rows in 3 classes: 4 / (3 n) */
    {LABELS_SEQ, {"{'input_ids':[1],'label':'c'}", "{'input_ids':[1],'label':'a'}", "{'input_ids':[1],'label':'a'}", "{'input_ids':[1],"
     "'label':'a'}"}, LABELS_TASK(SEQUENCE, SINGLE, 3, 1), "balanced", {4.0F / 9, 0, 4.0F / 3}, NULL},
    {LABELS_SEQ, {"{'input_ids':[1],'label':1}", "{'input_ids':[1]}"}, LABELS_TASK(SEQUENCE, SINGLE, 3, 0), "[\"balanced\"]",
     {0, 1.0F / 3, 0}, NULL},
    {LABELS_TOK, {"{'input_ids':[1,2,3,4],'labels':[0,-100,2,2]}"}, LABELS_TASK(TOKENS, SINGLE, 3, 0), "balanced", {1, 0, 0.5F}, NULL},
    {LABELS_SEQ, {"{'input_ids':[1],'label':0}"}, LABELS_TASK(SEQUENCE, SINGLE, 3, 0), "[1,\"0.5\",0]", {1, 0.5F, 0}, NULL},
    {LABELS_SEQ, {"{'input_ids':[1],'label':0}"}, LABELS_TASK(SEQUENCE, SINGLE, 3, 0), "[1,2]", {0},
     "key \"class_weights\" is no list of 3 numbers, nor \"balanced\""},
    {LABELS_SEQ, {"{'input_ids':[1],'label':0}"}, LABELS_TASK(SEQUENCE, SINGLE, 3, 0), "{\"a\":1}", {0}, "is no list of 3 numbers"},
    {LABELS_SEQ, {"{'input_ids':[1],'label':0}"}, LABELS_TASK(SEQUENCE, SINGLE, 3, 0), "[1,-1,1]", {0},
     "element 1 of \"class_weights\" is no number from 0"},
    {LABELS_SEQ, {"{'input_ids':[1],'label':0}"}, LABELS_TASK(SEQUENCE, SINGLE, 3, 0), "[1,1,\"x\"]", {0}, "element 2 of"},
    {LABELS_SEQ, {"{'input_ids':[1],'label':0}"}, LABELS_TASK(SEQUENCE, SINGLE, 3, 0), "[null,1,1]", {0}, "element 0 of"},
    {LABELS_SEQ, {"{'input_ids':[1],'label':0}"}, LABELS_TASK(SEQUENCE, SINGLE, 3, 0), "[1,1e30,1]", {0}, "element 1 of"},
    {LABELS_SEQ, {"{'input_ids':[1],'label':0}"}, LABELS_TASK(SEQUENCE, REGRESSION, 3, 0), "[1,1,1]", {0},
     "key \"class_weights\" is for classifications with one label, and the task is sequence_classification"},
    {LABELS_SEQ, {"{'input_ids':[1],'label':0}"}, LABELS_TASK(CAUSAL_LM, SINGLE, 0, 0), "balanced", {0}, "and the task is causal_lm"},
};

TEST(train_labels_weights) {
    for (size_t i = 0; i < PEFT__COUNT(labels_weights_cases); i++) {
        const struct labels_weigh *c = &labels_weights_cases[i];
        rt_kit k;
        int32_t *classes = NULL;
        float *w = NULL;
        CHECK_OK(labels_rows(&k, c->options, c->rows));
        if (c->says == NULL) { CHECK_OK(peft__labels_match(k.d, &c->task, "training", &k.ctx->mem, &classes)); }
        CHECK_STATUS(peft__labels_weights(k.d, &c->task, classes, c->option, &k.ctx->mem, &w), c->says == NULL ? PEFT_OK : PEFT_E_KEY);
        CHECK_INT(w != NULL, c->says == NULL);
        if (c->says != NULL) { CHECK_ERROR_HAS(c->says); }
        for (size_t n = 0; w != NULL && n < 3; n++) { CHECK_NEAR(w[n], c->w[n], 1e-7); }
        if (w != NULL) { peft__free(&k.ctx->mem, w, 3 * sizeof *w); }
        peft__labels_free(k.d, &k.ctx->mem, classes);
        rt_end(&k);
        CHECK_INT(k.host.now, 0);
    }
    static const char *const none[] = {NULL, "", "[]"};
    const peft__task task = LABELS_TASK(SEQUENCE, SINGLE, 3, 0);
    peft__mem *mem = runner_mem();
    float *w = NULL;
    for (size_t i = 0; i < PEFT__COUNT(none); i++) {
        CHECK_OK(peft__labels_weights(NULL, &task, NULL, none[i], mem, &w));
        CHECK(w == NULL);
    }
    CHECK_STATUS(peft__labels_weights(NULL, &task, NULL, "balanced", mem, &w), PEFT_E_KEY);
    CHECK_ERROR_HAS("is balanced, and there is no training data to count");
}
