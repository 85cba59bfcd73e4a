/* cmd_convert.c - `peft convert`: writes an adapter in another format. */
#include "tool.h"

#include <stdio.h>
#include <string.h>

/* --to, or --set format=... */
static int convert_check(const tool_args *args) {
    for (size_t i = 0; i < args->setting_count; i++) {
        if (strcmp(args->settings[i].key, "format") == 0) { return TOOL_OK; }
    }
    return tool_usage("convert needs --to FORMAT; see 'peft convert --help'");
}

static int convert_main(const tool_args *args) {
    static const char *const schemas[] = {"save", "load", "model", NULL};
    int rc = TOOL_OK;
    tool_run run = {0};
    DO(convert_check(args));
    DO(run_begin(&run, args, schemas));
    DO(run_open_set(&run, args));
    TRY(peft_adapters_load(run.adapters, RUN_ADAPTER, args->adapter, settings_of(&run.options, "load")));
    TRY(peft_adapters_save(run.adapters, RUN_ADAPTER, args->out, settings_of(&run.options, "save")));
    if (!args->quiet) { (void)fprintf(stderr, "saved in %s\n", args->out); }
out:
    run_close(&run);
    return rc;
}

static const arg_spec convert_args[] = {
    ARG_ROW_TEXT("--model", "PATH", model, true, "model: a Hugging Face folder or a GGUF file"),
    ARG_ROW_TEXT("--adapter", "PATH", adapter, true, "adapter: a folder, or a GGUF file of llama.cpp"),
    ARG_ROW_KEY("--to", "FORMAT", "format", "hf, adapterhub or gguf (required)"),
    ARG_ROW_KEY("--as", "METHOD", "method", "as this method, where it is the same: lora, prompt"),
    ARG_ROW_TEXT("--out", "PATH", out, true, "a folder; with --to gguf a file"),
    ARG_ROW_FLAG("--quiet", quiet, "say nothing"),
    ARG_ROW_SET,
    ARG_ROW_THREADS,
    ARG_ROW_HELP,
    ARG_ROW_END,
};

const tool_command command_convert = {"convert",
                                      "--model PATH --adapter PATH --to FORMAT --out PATH [options]",
                                      "write an adapter in another format",
                                      "--set takes the keys of the schemas save, load and model. What a format cannot hold is an error.",
                                      convert_args,
                                      convert_main};
