/* cmd_combine.c - `peft combine`: one adapter out of several, each with a weight. */
#include "tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMBINE_OUT "combination" /* the new adapter's name inside the tool */

/* "a,b": all names, each with weight 1. */
static char *combine_names(const tool_args *args) {
    tool_text text = {0};
    for (size_t i = 0; i < args->named_count; i++) {
        if (i > 0) { tool_append(&text, ",", 1); }
        tool_append(&text, args->named[i].key, strlen(args->named[i].key));
    }
    return text.text;
}

static int combine_main(const tool_args *args) {
    static const char *const schemas[] = {"combine", "save", "load", "model", NULL};
    int rc = TOOL_OK;
    tool_run run = {0};
    char *names = NULL;
    if (args->named_count == 0) { DO(tool_usage("combine needs --adapter NAME=DIR; see 'peft combine --help'")); }
    names = combine_names(args);
    DO(run_begin(&run, args, schemas));
    DO(run_open_set(&run, args));
    for (size_t i = 0; i < args->named_count; i++) {
        TRY(peft_adapters_load(run.adapters, args->named[i].key, args->named[i].value, settings_of(&run.options, "load")));
    }
    TRY(peft_adapters_combine(run.adapters, COMBINE_OUT, args->weights != NULL ? args->weights : names,
                              settings_of(&run.options, "combine")));
    TRY(peft_adapters_save(run.adapters, COMBINE_OUT, args->out, settings_of(&run.options, "save")));
    if (!args->quiet) { (void)fprintf(stderr, "saved in %s\n", args->out); }
out:
    free(names);
    run_close(&run);
    return rc;
}

static const arg_spec combine_args[] = {
    ARG_ROW_TEXT("--model", "PATH", model, true, "model: a Hugging Face folder or a GGUF file"),
    ARG_ROW_NAMED("--adapter", "NAME=PATH", "an adapter and the name it has in --weights; repeatable (required)"),
    ARG_ROW_TEXT("--weights", "LIST", weights, false, "NAME:WEIGHT,... (default: each adapter with weight 1)"),
    ARG_ROW_KEY("--type", "NAME", "type", "how: cat, linear, svd, ties, ... (see 'peft options combine')"),
    ARG_ROW_TEXT("--out", "PATH", out, true, "folder for the adapter, or a GGUF file where PATH ends in .gguf"),
    ARG_ROW_FLAG("--quiet", quiet, "say nothing"),
    ARG_ROW_SET,
    ARG_ROW_THREADS,
    ARG_ROW_HELP,
    ARG_ROW_END,
};

const tool_command command_combine = {
    "combine",
    "--model PATH --adapter NAME=PATH ... --out PATH [options]",
    "add adapters up, each with a weight, to one adapter",
    "--set takes the keys of the schemas combine, save, load and model.\n"
    "Example: peft combine --model base --adapter a=one --adapter b=two --weights a:0.6,b:-0.4 --out both",
    combine_args,
    combine_main};
