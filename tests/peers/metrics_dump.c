/* metrics_dump.c - the figures of lib/train/metrics.h on the command line, for comparison with other libraries.
 *
 *   metrics_dump < cases        JSON cases on stdin, one a line; an object or a value on stdout
 *
 *   {"task": "sequence_classification" ..., "problem", "labels", "names", "rows": [[a, b], ...]}
 *        rows are [truth, prediction], of several labels [targets, logits], of numbers [truth, predicted], of tokens two lists
 *   {"questions": [{"context", "answers", "windows": [{"offsets": [from, to, ...], "logits": [start, end, ...]}]}]}
 *        "texts" of the best answers, "exact_match", "f1"
 *   {"text", "answers", "nulls"}    [the words that are compared, exact, f1]
 *   {"cosine": [a, b]}, {"candidates": [...]} */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/metrics.h"

enum { METRICS_DUMP_MAX = 4096 };

static float dump_floats[2][METRICS_DUMP_MAX];
static int32_t dump_ints[2][METRICS_DUMP_MAX];
static const char *dump_texts[METRICS_DUMP_MAX];

static const peft__json *dump_side(const peft__json *row, int side) { return &row->items[side]; }

/* A list, or one number, as floats and as integers. */
static int64_t dump_read(const peft__json *node, int side) {
    const peft__json *items = node->kind == PEFT__JSON_ARRAY ? node->items : node;
    size_t n = node->kind == PEFT__JSON_ARRAY ? node->len : 1;
    for (size_t i = 0; i < n && i < METRICS_DUMP_MAX; i++) {
        dump_floats[side][i] = items[i].kind == PEFT__JSON_NULL ? (float)strtod("nan", NULL) : (float)items[i].num;
        dump_ints[side][i] = items[i].is_int ? (int32_t)items[i].i : 0;
    }
    return (int64_t)n;
}

static const char *const *dump_names(const peft__json *list) {
    for (size_t i = 0; list != NULL && i < list->len && i < METRICS_DUMP_MAX; i++) { dump_texts[i] = list->items[i].str; }
    return list == NULL ? NULL : dump_texts;
}

static peft_status dump_row(peft__scores *s, const peft__task *task, const peft__json *row) {
    int64_t n = dump_read(dump_side(row, 0), 0);
    (void)dump_read(dump_side(row, 1), 1);
    if (task->kind == PEFT__TASK_EMBEDDING || task->problem == PEFT__PROBLEM_REGRESSION) {
        return peft__scores_numbers(s, dump_floats[1], dump_floats[0]);
    }
    if (task->kind == PEFT__TASK_TOKENS) {
        peft__scores_tokens(s, dump_ints[0], dump_ints[1], n);
    } else if (task->problem == PEFT__PROBLEM_MULTI) {
        peft__scores_several(s, dump_floats[1], dump_floats[0]);
    } else {
        peft__scores_class(s, dump_ints[0][0], dump_ints[1][0]);
    }
    return PEFT_OK;
}

static peft_status dump_scores(peft__mem *mem, const peft__json *node, peft__json_out *j) {
    peft_status st = PEFT_OK;
    peft__scores s;
    peft__task task = {0};
    const peft__json *rows = peft__json_find(node, "rows"), *problem = peft__json_find(node, "problem");
    task.kind = peft__task_find(peft__json_find(node, "task")->str);
    task.problem = problem == NULL ? 0 : (int32_t)problem->i;
    task.labels = peft__json_find(node, "labels")->i;
    task.names = dump_names(peft__json_find(node, "names"));
    TRY(peft__scores_begin(&s, mem, &task));
    for (size_t i = 0; i < rows->len; i++) { TRY(dump_row(&s, &task, &rows->items[i])); }
    peft__json_object(j);
    TRY(peft__scores_write(&s, j));
    peft__json_object_end(j);
out:
    peft__scores_free(&s);
    return st;
}

static peft__example dump_example(peft__arena *a, const peft__json *node) {
    const peft__json *answers = peft__json_find(node, "answers"), *context = peft__json_find(node, "context");
    const char **texts = peft__arena_alloc(a, (answers->len + 1) * sizeof *texts);
    for (size_t i = 0; i < answers->len; i++) { texts[i] = answers->items[i].str; }
    return (peft__example){context == NULL ? "" : context->str, texts, answers->len};
}

/* Appends the window's offsets to the set and gives it to the question's answer. */
static peft_status dump_window(peft__answers *a, struct peft_dataset *d, const peft__json *window, int64_t example) {
    peft_status st = PEFT_OK;
    peft__row row = {0};
    row.first = (int64_t)d->offsets.len / 2;
    row.n = dump_read(peft__json_find(window, "offsets"), 0) / 2;
    row.example = example;
    for (int64_t i = 0; i < 2 * row.n; i++) { TRY(peft__vec_push(&d->offsets, &dump_ints[0][i])); }
    (void)dump_read(peft__json_find(window, "logits"), 1);
    TRY(peft__answers_add_window(a, &row, dump_floats[1]));
out:
    return st;
}

static peft_status dump_answers(peft__mem *mem, const peft__json *questions, peft__json_out *j) {
    peft_status st = PEFT_OK;
    struct peft_dataset d;
    peft__arena arena;
    peft__answers a;
    peft__arena_init(&arena, mem);
    memset(&d, 0, sizeof d);
    peft__vec_init(&d.examples, mem, sizeof(peft__example));
    peft__vec_init(&d.offsets, mem, sizeof(int32_t));
    for (size_t i = 0; i < questions->len; i++) {
        peft__example e = dump_example(&arena, &questions->items[i]);
        TRY(peft__vec_push(&d.examples, &e));
    }
    peft__answers_begin(&a, mem, &d);
    peft__json_object(j);
    peft__json_key(j, "texts");
    peft__json_array(j);
    for (size_t i = 0; i < questions->len; i++) {
        const peft__json *windows = peft__json_find(&questions->items[i], "windows");
        const char *text = NULL;
        size_t len = 0;
        for (size_t w = 0; w < windows->len; w++) { TRY(dump_window(&a, &d, &windows->items[w], (int64_t)i)); }
        peft__answers_best(&a, &text, &len);
        peft__json_put_str(j, text, len);
    }
    peft__json_array_end(j);
    TRY(peft__answers_end(&a));
    peft__answers_write(&a, j);
    peft__json_object_end(j);
out:
    peft__vec_free(&d.examples);
    peft__vec_free(&d.offsets);
    peft__arena_free(&arena);
    return st;
}

static peft_status dump_match(peft__mem *mem, const peft__json *node, peft__json_out *j) {
    peft_status st = PEFT_OK;
    peft__str words;
    peft__arena arena;
    double exact = 0, f1 = 0;
    const peft__json *text = peft__json_find(node, "text");
    peft__str_init(&words, mem);
    peft__arena_init(&arena, mem);
    peft__example e = dump_example(&arena, node);
    TRY(peft__answer_words(mem, text->str, text->len, &words));
    TRY(peft__answer_match(mem, text->str, text->len, &e, peft__json_find(node, "nulls")->truth, &exact, &f1));
    peft__json_array(j);
    peft__json_put_str(j, peft__str_c(&words), words.len);
    peft__json_put_double(j, exact);
    peft__json_put_double(j, f1);
    peft__json_array_end(j);
out:
    peft__str_free(&words);
    peft__arena_free(&arena);
    return st;
}

static peft_status dump_candidates(const peft__json *list, peft__json_out *j) {
    static double scores[METRICS_DUMP_MAX];
    for (size_t i = 0; i < list->len && i < METRICS_DUMP_MAX; i++) { scores[i] = list->items[i].num; }
    peft__json_put_int(j, peft__candidate_best(scores, (int64_t)list->len));
    return PEFT_OK;
}

static peft_status dump_case(peft__mem *mem, const peft__json *node, peft__json_out *j) {
    const peft__json *x = NULL;
    if (peft__json_find(node, "task") != NULL) { return dump_scores(mem, node, j); }
    if ((x = peft__json_find(node, "questions")) != NULL) { return dump_answers(mem, x, j); }
    if (peft__json_find(node, "text") != NULL) { return dump_match(mem, node, j); }
    if ((x = peft__json_find(node, "candidates")) != NULL) { return dump_candidates(x, j); }
    x = peft__json_find(node, "cosine");
    if (x == NULL) { return peft__fail(PEFT_E_INVALID, "no such case"); }
    int64_t n = dump_read(dump_side(x, 0), 0);
    (void)dump_read(dump_side(x, 1), 1);
    peft__json_put_double(j, peft__cosine(dump_floats[0], dump_floats[1], n));
    return PEFT_OK;
}

int main(void) {
    peft_status st = PEFT_OK;
    peft__mem mem;
    size_t cap = 0;
    char *line = NULL;
    peft__mem_init(&mem, NULL);
    for (ssize_t n; st == PEFT_OK && (n = getline(&line, &cap, stdin)) > 0;) {
        const peft__json *node = NULL;
        peft__arena arena;
        peft__str out;
        peft__json_out j;
        peft__arena_init(&arena, &mem);
        peft__str_init(&out, &mem);
        peft__json_begin(&j, &out, 0);
        st = peft__json_parse(&arena, line, (size_t)n, "stdin", &node);
        if (st == PEFT_OK) { st = dump_case(&mem, node, &j); }
        puts(peft__str_c(&out));
        peft__str_free(&out);
        peft__arena_free(&arena);
    }
    free(line);
    if (st != PEFT_OK) { fprintf(stderr, "%s\n", peft__fail_text()); }
    return st == PEFT_OK ? 0 : 1;
}
