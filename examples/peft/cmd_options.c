/* cmd_options.c - `peft options`: the keys of --set, from the library's own schemas. */
#include "minijson.h"
#include "table.h"
#include "tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *options_text(const json_value *row, const char *key) {
    const json_value *v = json_get(row, key);
    return v == NULL || v->kind == JSON_NULL || v->text == NULL ? "" : v->text;
}

/* "a, b, c" or "[]" of an array, the text of anything else. */
static void options_list(const json_value *v, const char *separator, char *out, size_t cap) {
    size_t len = 0;
    out[0] = '\0';
    for (const json_value *item = v->first; item != NULL && len + 1 < cap; item = item->next) {
        int written =
            snprintf(out + len, cap - len, "%s%s", len > 0 ? separator : "", item->text != NULL ? item->text : "");
        len += written > 0 ? (size_t)written : 0;
    }
}

static void options_range(const json_value *row, char *out, size_t cap) {
    const json_value *choices = json_get(row, "choices");
    const char *min = options_text(row, "min"), *max = options_text(row, "max");
    out[0] = '\0';
    if (choices != NULL && choices->kind == JSON_ARRAY && choices->count > 0) {
        options_list(choices, "|", out, cap);
    } else if (options_text(row, "choices")[0] != '\0') {
        (void)snprintf(out, cap, "%s", options_text(row, "choices"));
    } else if (min[0] != '\0' && max[0] != '\0') {
        (void)snprintf(out, cap, "%s..%s", min, max);
    } else if (min[0] != '\0') {
        (void)snprintf(out, cap, ">= %s", min);
    } else if (max[0] != '\0') {
        (void)snprintf(out, cap, "<= %s", max);
    }
}

static void options_default(const json_value *row, char *out, size_t cap) {
    const json_value *v = json_get(row, "default");
    if (v != NULL && v->kind == JSON_ARRAY) {
        options_list(v, ",", out, cap);
    } else if (v != NULL && v->kind == JSON_OBJECT) {
        (void)snprintf(out, cap, "%s", v->count == 0 ? "{}" : "{...}");
    } else {
        (void)snprintf(out, cap, "%s", options_text(row, "default"));
    }
}

static void options_table(const json_value *rows) {
    static const char *const head[] = {"key", "type", "default", "range", "help"};
    char cell[256];
    table t;
    table_init(&t, 5);
    for (size_t j = 0; j < 5; j++) { table_put(&t, 0, j, head[j]); }
    for (const json_value *row = rows->first; row != NULL; row = row->next) {
        size_t i = t.rows;
        table_put(&t, i, 0, options_text(row, "key"));
        table_put(&t, i, 1, options_text(row, "type"));
        options_default(row, cell, sizeof cell);
        table_put(&t, i, 2, cell);
        options_range(row, cell, sizeof cell);
        table_put(&t, i, 3, cell);
        table_put(&t, i, 4, options_text(row, "help"));
    }
    table_print(&t, 2);
    table_free(&t);
}

/* With --json the schemas are the members of one object. */
static int options_print(const char *schema, bool json, bool first) {
    int rc = TOOL_OK;
    char *text = NULL;
    json_doc doc = {NULL, NULL};
    READ_TEXT(text, peft_schema_json, schema);
    if (json) {
        printf("%s\"%s\": %s", first ? "{" : ",\n ", schema, text);
        goto out;
    }
    if (!json_parse(&doc, text, strlen(text))) { DO(tool_fail("the schema %s is no JSON array", schema)); }
    printf("%s%s\n", first ? "" : "\n", schema);
    options_table(&doc.values[0]);
out:
    json_free(&doc);
    free(text);
    return rc;
}

static int options_unknown(const char *schema) {
    const char *name = NULL, *sep = "";
    tool_text known = {NULL, 0, 0};
    for (size_t i = 0; (name = peft_schema_name(i)) != NULL; i++) {
        tool_append(&known, sep, strlen(sep));
        tool_append(&known, name, strlen(name));
        sep = ", ";
    }
    int rc = tool_usage("there is no schema '%s'; there are: %s", schema, known.text != NULL ? known.text : "none");
    free(known.text);
    return rc;
}

static int options_main(const tool_args *args) {
    int rc = TOOL_OK;
    const char *name = NULL;
    if (args->path != NULL && !settings_known(args->path)) { return options_unknown(args->path); }
    if (args->path != NULL) { DO(options_print(args->path, args->json, true)); }
    for (size_t i = 0; args->path == NULL && (name = peft_schema_name(i)) != NULL; i++) {
        DO(options_print(name, args->json, i == 0));
    }
    if (args->json) { printf("}\n"); }
out:
    return rc;
}

static const arg_spec options_args[] = {
    ARG_ROW_PATH("SCHEMA", false, "one schema, such as trainer or method:lora (default: all)"),
    ARG_ROW_FLAG("--json", json, "print one JSON object, a schema a member"),
    ARG_ROW_HELP,
    ARG_ROW_END,
};

const tool_command command_options = {
    "options", "[SCHEMA] [--json]", "the keys of --set with type, default, range and help",
    NULL,      options_args,        options_main};
