/* task.c - what a model is asked for where the command line leaves it open: rows and adapters say it.
 *
 *   train    --task sequence_classification without labels: those of the training rows, in the order in which they first come
 *   others   the task and the labels that the first --adapter was trained for */
#include "tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Has the command line said it? */
static bool task_given(const tool_args *args, const char *key) {
    for (size_t i = 0; i < args->setting_count; i++) {
        if (strcmp(args->settings[i].key, key) == 0) { return true; }
    }
    return false;
}

static bool task_given_labels(const tool_args *args) { return task_given(args, "labels") || task_given(args, "num_labels"); }

/* The labels as options of the model: their names, or how many there are. */
static int task_set_labels(peft_options *model, const json_value *labels) {
    int rc = TOOL_OK;
    tool_text list = {NULL, 0, 0};
    char number[32];
    if (labels == NULL) { goto out; }
    if (labels->kind == JSON_NUMBER) {
        (void)snprintf(number, sizeof number, "%.0f", labels->number);
        TRY(peft_options_set_text(model, "num_labels", number));
        goto out;
    }
    tool_append(&list, "[", 1);
    for (const json_value *v = labels->first; v != NULL; v = v->next) {
        if (v->kind != JSON_STRING) { goto out; }
        tool_append(&list, ",", v != labels->first ? 1 : 0);
        tool_append_json(&list, v->text, strlen(v->text));
    }
    tool_append(&list, "]", 1);
    if (labels->first != NULL) { TRY(peft_options_set_text(model, "labels", list.text)); }
out:
    free(list.text);
    return rc;
}

bool task_wants_labels(const tool_args *args) { return task_given(args, "task") && !task_given_labels(args); }

/* Labels of one set of rows, behind those of others: names that are not there yet, or the higher number. */
static int task_join_labels(const peft_dataset *data, tool_text *names, double *number) {
    int rc = TOOL_OK;
    char *text = NULL;
    json_doc info = {NULL, NULL};
    tool_text name = {NULL, 0, 0};
    READ_TEXT(text, peft_dataset_info_json, data);
    const json_value *labels = json_parse(&info, text, strlen(text)) ? json_get(&info.values[0], "labels") : NULL;
    if (labels != NULL && labels->kind == JSON_NUMBER && labels->number > *number) { *number = labels->number; }
    for (const json_value *v = labels != NULL ? labels->first : NULL; v != NULL; v = v->next) {
        name.len = 0;
        tool_append(&name, "\n", 1); /* only at the beginning of one: no label has it inside */
        tool_append_json(&name, v->text, v->len);
        if (v->kind != JSON_STRING || (names->text != NULL && strstr(names->text, name.text) != NULL)) { continue; }
        tool_append(names, names->len > 0 ? "," : "[", 1);
        tool_append(names, name.text, name.len);
    }
out:
    free(name.text);
    json_free(&info);
    free(text);
    return rc;
}

int task_from_data(tool_run *r, peft_dataset *const *data, size_t count) {
    int rc = TOOL_OK;
    tool_text names = {NULL, 0, 0};
    double number = 0;
    char digits[TOOL_SHORT];
    peft_options *model = settings_of(&r->options, "model");
    for (size_t i = 0; i < count; i++) { DO(task_join_labels(data[i], &names, &number)); }
    if (names.len > 0) {
        tool_append(&names, "]", 1);
        TRY(peft_options_set_text(model, "labels", names.text));
    } else if (number > 0) {
        (void)snprintf(digits, sizeof digits, "%.0f", number);
        TRY(peft_options_set_text(model, "num_labels", digits));
    }
out:
    free(names.text);
    return rc;
}

/* What an adapter's description says of its task; of a union the last part does. */
static const json_value *task_part(const json_value *adapter) {
    const json_value *parts = json_get(adapter, "parts"), *last = parts != NULL ? parts->first : NULL;
    while (last != NULL && last->next != NULL) { last = last->next; }
    return last != NULL ? json_get(last, "adapter") : adapter;
}

int task_from_path(tool_run *r, const tool_args *args, const char *path) {
    static const char *const keys[] = {"task", "problem_type"};
    int rc = TOOL_OK;
    char *text = NULL;
    json_doc info = {NULL, NULL};
    peft_options *model = settings_of(&r->options, "model"), *dataset = settings_of(&r->options, "dataset");
    if (model == NULL) { return TOOL_OK; }
    READ_TEXT(text, peft_inspect_json, r->ctx, path);
    const json_value *about = json_parse(&info, text, strlen(text)) ? task_part(&info.values[0]) : NULL;
    if (about == NULL) { goto out; }
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_value *v = json_get(about, keys[i]);
        if (v == NULL || v->kind != JSON_STRING || task_given(args, keys[i])) { continue; }
        TRY(peft_options_set_text(model, keys[i], v->text));
        if (i == 0 && dataset != NULL) { TRY(peft_options_set_text(dataset, keys[i], v->text)); }
    }
    if (!task_given_labels(args)) {
        const json_value *labels = json_get(about, "labels");
        DO(task_set_labels(model, labels != NULL ? labels : json_get(about, "num_labels")));
    }
out:
    json_free(&info);
    free(text);
    return rc;
}

int task_from_adapter(tool_run *r, const tool_args *args) {
    const char *path = args->named_count > 0 ? args->named[0].value : args->adapter;
    return path != NULL ? task_from_path(r, args, path) : TOOL_OK;
}
