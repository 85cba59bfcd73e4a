/* args.h - options of the command line, by table. */
#ifndef ARGS_H
#define ARGS_H

#include <stdbool.h>
#include <stddef.h>

/* One value for an option key of the library, from --set or from an option that stands for a key. */
typedef struct tool_setting {
    char *key;          /* owned by tool_args */
    const char *value;  /* borrowed from argv */
    const char *option; /* what the user typed: "--set" or "--top-k" */
} tool_setting;

/* Texts of an option or argument that may be given several times. */
typedef struct arg_list {
    const char **text; /* owned list of borrowed texts; NULL: none */
    size_t count;
} arg_list;

/* Everything that any command takes; absent text is NULL. Pointers borrow from argv unless said otherwise. */
typedef struct tool_args {
    const char *path; /* the argument without a name: PATH of info, SCHEMA of options */
    const char *model, *tokenizer, *adapter, *compose, *data, *eval, *jobs, *out;
    const char *method, *init, *json_log, *threads;
    const char *prompt, *prompts, *weights;
    const char *seq, *batch, *seconds;
    const char *report;
    bool json, resume, chat, quiet, plot, help;
    arg_list paths, samples; /* LOG of report; --sample-prompt */
    tool_setting *settings; /* owned, in the order of the command line */
    size_t setting_count;
    tool_setting *named;    /* the same of ARG_NAMED and ARG_ADAPTER: adapters by name */
    size_t named_count;
} tool_args;

typedef enum arg_kind {
    ARG_FLAG, /* sets the bool at offset */
    ARG_TEXT, /* sets the text at offset */
    ARG_KEY,  /* appends a setting of `key` */
    ARG_SET,  /* appends a setting from key=value */
    ARG_NAMED, /* appends to `named` from name=value */
    ARG_ADAPTER, /* the same; without a name it is "default" */
    ARG_PATH, /* the argument without a name; text at offset */
    ARG_PATHS, /* all arguments without a name; list at offset */
    ARG_LIST  /* appends to the list at offset */
} arg_kind;

typedef struct arg_spec {
    const char *name;    /* "--model"; for ARG_PATH and ARG_PATHS what help calls it */
    const char *metavar; /* "PATH"; NULL for flags */
    arg_kind kind;
    bool required;
    size_t offset;   /* in tool_args */
    const char *key; /* of ARG_KEY */
    const char *help;
} arg_spec;

/* Rows for the tables of the commands. */
#define ARG_ROW_TEXT(name, metavar, field, required, help) \
    { name, metavar, ARG_TEXT, required, offsetof(tool_args, field), NULL, help }
#define ARG_ROW_FLAG(name, field, help) { name, NULL, ARG_FLAG, false, offsetof(tool_args, field), NULL, help }
#define ARG_ROW_KEY(name, metavar, key, help) { name, metavar, ARG_KEY, false, 0, key, help }
#define ARG_ROW_NAMED(name, metavar, help) { name, metavar, ARG_NAMED, false, 0, NULL, help }
#define ARG_ROW_ADAPTERS(help) { "--adapter", "[NAME=]PATH", ARG_ADAPTER, false, 0, NULL, help }, \
    { "--compose", "TEXT", ARG_TEXT, false, offsetof(tool_args, compose), NULL, \
      "how they act together, as in 'stack(a, 0.5 * b)' (default: one after the other)" }
#define ARG_ROW_PATH(name, required, help) { name, NULL, ARG_PATH, required, offsetof(tool_args, path), NULL, help }
#define ARG_ROW_PATHS(name, field, help) { name, NULL, ARG_PATHS, true, offsetof(tool_args, field), NULL, help }
#define ARG_ROW_LIST(name, metavar, field, help) { name, metavar, ARG_LIST, false, offsetof(tool_args, field), NULL, help }
#define ARG_ROW_SET { "--set", "KEY=VALUE", ARG_SET, false, 0, NULL, "set an option of the library; repeatable (see 'peft options')" }
#define ARG_ROW_TASK \
    ARG_ROW_KEY("--task", "NAME", "task", "what the model is asked for, such as sequence_classification (see 'peft options model')"), \
    ARG_ROW_KEY("--labels", "NAME,NAME", "labels", "the classes, in order (default: the model's, the adapter's or the rows')"), \
    ARG_ROW_KEY("--verbalizer", "NAME=TEXT,..", "verbalizer", "classes by what a language model says: positive=\" good\",negative=\" bad\"")
#define ARG_ROW_THREADS ARG_ROW_TEXT("--threads", "N", threads, false, "threads (default: PEFT_THREADS, else one per CPU)")
#define ARG_ROW_HELP ARG_ROW_FLAG("--help", help, "show this help")
#define ARG_ROW_END { NULL, NULL, ARG_FLAG, false, 0, NULL, NULL }

/* Reads argv[0..argc) by the table. Returns an exit code; TOOL_USAGE has been explained on stderr. Options that a
 * command must have are not asked for when --help is there. */
int args_parse(const char *command, const arg_spec *table, int argc, char **argv, tool_args *out);
void args_free(tool_args *args);
void args_print_help(const arg_spec *table); /* the table's rows, to stdout */

#endif
