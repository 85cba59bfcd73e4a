/* args.c - reads the command line by a command's table: --name VALUE, --name=VALUE, flags, arguments without a name.
 * "--" ends the options. Short options other than -h do not exist. */
#include "tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool args_is_path(const arg_spec *row) {
    return row->kind == ARG_PATH || row->kind == ARG_PATHS;
}

static const arg_spec *args_find(const arg_spec *table, const char *name, size_t len) {
    for (const arg_spec *row = table; row->name != NULL; row++) {
        if (!args_is_path(row) && strlen(row->name) == len && memcmp(row->name, name, len) == 0) { return row; }
    }
    return NULL;
}

static int args_unknown(const char *command, const arg_spec *table, const char *name) {
    const char *nearest = NULL;
    size_t best = 4; /* further away than this is no typing error */
    for (const arg_spec *row = table; row->name != NULL; row++) {
        size_t distance = args_is_path(row) ? best : tool_distance(name, row->name);
        if (distance < best) {
            best = distance;
            nearest = row->name;
        }
    }
    if (nearest != NULL) { return tool_usage("%s has no option %s; did you mean %s?", command, name, nearest); }
    return tool_usage("%s has no option %s; 'peft %s --help' lists what there is", command, name, command);
}

/* The fields of tool_args are reached by offset, so that the tables can be constant. */
static void args_put_text(tool_args *out, const arg_spec *row, const char *value) {
    const char **field = (const char **)(void *)((char *)out + row->offset);
    *field = value;
}

static void args_put_flag(tool_args *out, const arg_spec *row) {
    bool *field = (bool *)(void *)((char *)out + row->offset);
    *field = true;
}

static const arg_list *args_list(const tool_args *args, const arg_spec *row) {
    return (const arg_list *)(const void *)((const char *)args + row->offset);
}

static void args_put_item(tool_args *out, const arg_spec *row, const char *value) {
    arg_list *list = (arg_list *)(void *)((char *)out + row->offset);
    list->text = tool_resize(list->text, (list->count + 1) * sizeof *list->text);
    list->text[list->count++] = value;
}

static int args_put_setting(tool_args *out, const arg_spec *row, const char *value) {
    const char *key = row->key;
    size_t key_len = key != NULL ? strlen(key) : 0;
    if (row->kind == ARG_SET || row->kind == ARG_NAMED) {
        const char *equals = strchr(value, '=');
        if (equals == NULL || equals == value) { return tool_usage("%s needs %s, not '%s'", row->name, row->metavar, value); }
        key = value;
        key_len = (size_t)(equals - value);
        value = equals + 1;
    }
    if (row->kind == ARG_ADAPTER) { /* a path may have a "=" of its own, after its first folder */
        size_t name = strcspn(value, "=/");
        bool named = value[name] == '=' && name > 0;
        key = named ? value : RUN_ADAPTER;
        key_len = named ? name : strlen(key);
        value += named ? name + 1 : 0;
    }
    if (row->kind == ARG_NAMED || row->kind == ARG_ADAPTER) {
        out->named = tool_resize(out->named, (out->named_count + 1) * sizeof *out->named);
        out->named[out->named_count++] = (tool_setting){tool_copy(key, key_len), value, row->name};
        return TOOL_OK;
    }
    out->settings = tool_resize(out->settings, (out->setting_count + 1) * sizeof *out->settings);
    out->settings[out->setting_count++] = (tool_setting){tool_copy(key, key_len), value, row->name};
    return TOOL_OK;
}

static int args_put_path(const char *command, const arg_spec *table, const char *value, tool_args *out) {
    for (const arg_spec *row = table; row->name != NULL; row++) {
        if (row->kind == ARG_PATH && out->path == NULL) {
            args_put_text(out, row, value);
            return TOOL_OK;
        }
        if (row->kind == ARG_PATHS) {
            args_put_item(out, row, value);
            return TOOL_OK;
        }
    }
    return tool_usage("%s does not know what to do with '%s'", command, value);
}

/* One option; *next is the argument after it, moved on when it was the option's value. */
static int args_put_option(const char *command, const arg_spec *table, int argc, char **argv, int *next,
                           tool_args *out) {
    const char *arg = argv[*next - 1];
    const char *equals = strchr(arg, '=');
    size_t len = equals != NULL ? (size_t)(equals - arg) : strlen(arg);
    const arg_spec *row = args_find(table, arg, len);
    if (row == NULL) {
        char *name = tool_copy(arg, len);
        int rc = args_unknown(command, table, name);
        free(name);
        return rc;
    }
    if (row->kind == ARG_FLAG) {
        if (equals != NULL) { return tool_usage("%s takes no value", row->name); }
        args_put_flag(out, row);
        return TOOL_OK;
    }
    const char *value = equals != NULL ? equals + 1 : *next < argc ? argv[(*next)++] : NULL;
    if (value == NULL) { return tool_usage("%s needs a value: %s %s", row->name, row->name, row->metavar); }
    if (row->kind == ARG_TEXT) {
        args_put_text(out, row, value);
        return TOOL_OK;
    }
    if (row->kind == ARG_LIST) {
        args_put_item(out, row, value);
        return TOOL_OK;
    }
    return args_put_setting(out, row, value);
}

static bool args_is_there(const tool_args *args, const arg_spec *row) {
    if (row->kind == ARG_PATHS || row->kind == ARG_LIST) { return args_list(args, row)->count > 0; }
    const char *const *field = (const char *const *)(const void *)((const char *)args + row->offset);
    return *field != NULL;
}

static int args_check_required(const char *command, const arg_spec *table, const tool_args *out) {
    for (const arg_spec *row = table; row->name != NULL; row++) {
        if (row->required && !args_is_there(out, row)) {
            return tool_usage("%s needs %s%s%s; see 'peft %s --help'", command, row->name,
                              row->metavar != NULL ? " " : "", row->metavar != NULL ? row->metavar : "", command);
        }
    }
    return TOOL_OK;
}

int args_parse(const char *command, const arg_spec *table, int argc, char **argv, tool_args *out) {
    int rc = TOOL_OK;
    bool options = true;
    for (int next = 0; next < argc && rc == TOOL_OK;) {
        const char *arg = argv[next++];
        if (options && strcmp(arg, "--") == 0) {
            options = false;
        } else if (options && strcmp(arg, "-h") == 0) {
            out->help = true;
        } else if (options && arg[0] == '-' && arg[1] != '\0') {
            rc = args_put_option(command, table, argc, argv, &next, out);
        } else {
            rc = args_put_path(command, table, arg, out);
        }
    }
    if (rc == TOOL_OK && !out->help) { rc = args_check_required(command, table, out); }
    return rc;
}

void args_free(tool_args *args) {
    for (size_t i = 0; i < args->setting_count; i++) { free(args->settings[i].key); }
    free(args->settings);
    for (size_t i = 0; i < args->named_count; i++) { free(args->named[i].key); }
    free(args->named);
    free(args->paths.text);
    free(args->samples.text);
}

void args_print_help(const arg_spec *table) {
    for (const arg_spec *row = table; row->name != NULL; row++) {
        char left[48];
        (void)snprintf(left, sizeof left, "%s%s%s", row->name, row->metavar != NULL ? " " : "",
                       row->metavar != NULL ? row->metavar : "");
        printf("  %-30s %s%s\n", left, row->help, row->required ? " (required)" : "");
    }
}
