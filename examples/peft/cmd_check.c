/* cmd_check.c - `peft check`: all that is wrong with what a path holds. */
#include "minijson.h"
#include "tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The files are read at every call, so that there is room at the first one, but for a list longer than any. */
static int check_read(const tool_run *run, const tool_args *args, char **out) {
    int rc = TOOL_OK;
    size_t size = 1 << 18, needed = 0;
    char *text = tool_alloc(size);
    peft_status status = PEFT_OK;
    while ((status = peft_check_json(run->ctx, args->path, run->model, settings_of(&run->options, "check"), text, size, &needed)) ==
           PEFT_E_BUFFER) {
        size = needed + 64;
        text = tool_resize(text, size);
    }
    TRY(status);
    *out = text;
    text = NULL;
out:
    free(text);
    return rc;
}

static const char *check_text(const json_value *object, const char *key) {
    const json_value *v = json_get(object, key);
    return v != NULL && v->kind == JSON_STRING ? v->text : "";
}

static double check_number(const json_value *object, const char *key) {
    const json_value *v = json_get(object, key);
    return v != NULL && v->kind == JSON_NUMBER ? v->number : 0;
}

/* "error: FILE: PLACE: what is wrong", one a line, and how many more there are. */
static void check_list(const json_value *root, const char *list, const char *count, const char *word) {
    const json_value *items = json_get(root, list);
    double left = check_number(root, count) - (double)(items != NULL ? items->count : 0);
    for (const json_value *x = items != NULL ? items->first : NULL; x != NULL; x = x->next) {
        const char *where = check_text(x, "where");
        printf("%s: %s: %s%s%s\n", word, check_text(x, "file"), where, where[0] != '\0' ? ": " : "", check_text(x, "message"));
    }
    if (left > 0) { printf("%s: and %.0f more\n", word, left); }
}

/* "model: architecture llama, task causal_lm, ...": what it is. */
static void check_about(const json_value *root) {
    const json_value *about = json_get(root, "about"), *jobs = json_get(about, "jobs");
    const char *gap = " ";
    printf("%s:", check_text(root, "kind"));
    for (const json_value *x = about != NULL ? about->first : NULL; x != NULL; x = x->next) {
        if (x->kind != JSON_STRING && x->kind != JSON_NUMBER) { continue; }
        printf("%s%s %s", gap, x->key, x->text);
        gap = ", ";
    }
    const json_value *tokenizer = json_get(about, "tokenizer");
    if (tokenizer != NULL && tokenizer->kind == JSON_OBJECT) {
        printf("%stokenizer %s of %.0f", gap, check_text(tokenizer, "kind"), check_number(tokenizer, "size"));
    }
    for (const json_value *x = jobs != NULL ? jobs->first : NULL; x != NULL; x = x->next) {
        printf("%s%s (%s, %s, step %.0f)", gap, check_text(x, "adapter"), check_text(x, "method"), check_text(x, "optimizer"),
               check_number(x, "step"));
        gap = ", ";
    }
    printf("\n");
}

static void check_done(const json_value *root) {
    const json_value *seen = json_get(root, "checked"), *pass = json_get(seen, "forward");
    char values[TOOL_SHORT];
    const char *gap = "checked: ";
    if (check_number(seen, "tensors") > 0) {
        printf("%s%.0f tensors of %s values", gap, check_number(seen, "tensors"), tool_count(check_number(seen, "values"), values));
        gap = ", ";
    }
    if (check_number(seen, "rows") > 0) {
        printf("%s%.0f rows", gap, check_number(seen, "rows"));
        gap = ", ";
    }
    if (pass != NULL && pass->kind == JSON_TRUE) {
        printf("%sone forward pass", gap);
        gap = ", ";
    }
    if (strcmp(gap, ", ") == 0) { printf("\n"); }
}

static int check_print(const char *path, const char *text, bool json) {
    int rc = TOOL_OK;
    json_doc doc = {0};
    if (!json_parse(&doc, text, strlen(text))) { return tool_fail("the library's report is no JSON"); }
    const json_value *root = doc.values;
    double errors = check_number(root, "error_count");
    if (json) {
        printf("%s\n", text);
    } else {
        check_about(root);
        check_list(root, "errors", "error_count", "error");
        check_list(root, "warnings", "warning_count", "warning");
        check_done(root);
        if (!(errors > 0)) { printf("%s: no errors\n", path); }
    }
    if (errors > 0) { rc = tool_fail("%s: %.0f error%s", path, errors, errors > 1 ? "s" : ""); }
    json_free(&doc);
    return rc;
}

/* The base, for the task that the adapter was trained for if it is an adapter that is looked at. */
static int check_open_model(tool_run *run, const tool_args *args) {
    int rc = TOOL_OK;
    size_t size = 0;
    peft_options *options = NULL;
    if (peft_inspect_json(run->ctx, args->path, NULL, 0, &size) == PEFT_E_BUFFER) {
        DO(task_from_path(run, args, args->path));
        options = settings_of(&run->options, "model");
    }
    TRY(peft_model_open(run->ctx, args->model, options, &run->model));
out:
    return rc;
}

static int check_main(const tool_args *args) {
    static const char *const schemas[] = {"check", "model", NULL};
    int rc = TOOL_OK;
    tool_run run = {0};
    char *text = NULL;
    DO(run_begin(&run, args, schemas));
    if (args->model != NULL) { DO(check_open_model(&run, args)); }
    DO(check_read(&run, args, &text));
    DO(check_print(args->path, text, args->json));
out:
    free(text);
    run_close(&run);
    return rc;
}

static const arg_spec check_args[] = {
    ARG_ROW_PATH("PATH", true, "a model, adapter, tokenizer, data or checkpoint: a file or folder"),
    ARG_ROW_TEXT("--model", "PATH", model, false, "the base of an adapter; what rows of data are for"),
    ARG_ROW_KEY("--prompt-template", "TEXT", "prompt_template", "data: prompt from a row's fields, as in 'Record: {mr}'"),
    ARG_ROW_KEY("--completion-template", "TEXT", "completion_template", "data: completion from a row's fields"),
    ARG_ROW_KEY("--task", "NAME", "task", "data: what the rows are for, such as seq2seq_lm"),
    ARG_ROW_SET,
    ARG_ROW_FLAG("--json", json, "print one JSON object"),
    ARG_ROW_THREADS,
    ARG_ROW_HELP,
    ARG_ROW_END,
};

const tool_command command_check = {
    "check", "PATH [--model PATH] [options]", "all that is wrong with a model, adapter, tokenizer, data or checkpoint",
    "The exit code is 1 where there is an error; warnings leave it 0. Keys of --set: schemas check and model.", check_args, check_main};
