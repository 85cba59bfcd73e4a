/* task.c - names of tasks: as options spell them, as Hugging Face PEFT's files do (peft.TaskType), and the modules that PEFT trains
 * and saves whole for each (its PeftModelFor* classes).
 *
 * Left out: what a task's head is made of, which is the architecture's (model/heads.c). */
#include "autograd/task.h"

static const char *const task_names[PEFT__TASK_COUNT] = {"causal_lm",            "masked_lm",          "seq2seq_lm",
                                                         "sequence_classification", "token_classification", "question_answering",
                                                         "embedding"};
static const char *const task_problems[PEFT__PROBLEM_COUNT] = {"single_label_classification", "multi_label_classification",
                                                               "regression"};

const char *peft__task_name(int32_t kind) { return task_names[kind]; }
const char *peft__problem_name(int32_t problem) { return task_problems[problem]; }

int32_t peft__task_find(const char *name) {
    for (int32_t i = 0; i < PEFT__TASK_COUNT; i++) {
        if (strcmp(task_names[i], name) == 0) { return i; }
    }
    return -1;
}

const char *peft__task_type(const peft__task *t) {
    static const char *const types[PEFT__TASK_COUNT] = {"CAUSAL_LM", NULL,           "SEQ_2_SEQ_LM",      "SEQ_CLS",
                                                        "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"};
    return types[t->kind];
}

const char *const *peft__task_heads(const peft__task *t) {
    static const char *const none[] = {NULL}, *const classes[] = {"classifier", "score", NULL}, *const spans[] = {"qa_outputs", NULL};
    if (t->kind == PEFT__TASK_SPAN) { return spans; }
    return t->kind == PEFT__TASK_SEQUENCE || t->kind == PEFT__TASK_TOKENS ? classes : none;
}

int32_t peft__task_class(const peft__task *t, const char *name, size_t len) {
    for (int64_t i = 0; t->names != NULL && i < t->labels; i++) {
        if (strlen(t->names[i]) == len && memcmp(t->names[i], name, len) == 0) { return (int32_t)i; }
    }
    return -1;
}
