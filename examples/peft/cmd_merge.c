/* cmd_merge.c - `peft merge`: writes base plus adapter as one model; without an adapter the base, in another format or type. */
#include "tool.h"

#include <stdio.h>
#include <stdlib.h>

static int merge_main(const tool_args *args) {
    static const char *const schemas[] = {"merge", "model", NULL};
    int rc = TOOL_OK;
    tool_run run = {0};
    char *expression = run_expression(args);
    DO(run_begin(&run, args, schemas));
    DO(run_open_set(&run, args));
    DO(run_load_adapters(&run, args));
    TRY(peft_adapters_merge(run.adapters, expression, args->out, settings_of(&run.options, "merge")));
    if (!args->quiet) { (void)fprintf(stderr, "saved in %s\n", args->out); }
out:
    free(expression);
    run_close(&run);
    return rc;
}

static const arg_spec merge_args[] = {
    ARG_ROW_TEXT("--model", "PATH", model, true, "model: a Hugging Face folder or a GGUF file"),
    ARG_ROW_ADAPTERS("an adapter folder or GGUF file, with a name for --compose; repeatable (default: the model alone)"),
    ARG_ROW_TEXT("--out", "PATH", out, true, "a folder, or a GGUF file where PATH ends in .gguf"),
    ARG_ROW_FLAG("--quiet", quiet, "say nothing"),
    ARG_ROW_SET,
    ARG_ROW_THREADS,
    ARG_ROW_HELP,
    ARG_ROW_END,
};

const tool_command command_merge = {"merge",
                                    "--model PATH [--adapter PATH] --out PATH [options]",
                                    "write model plus adapter as one model",
                                    "--set takes the keys of the schemas merge and model.",
                                    merge_args,
                                    merge_main};
