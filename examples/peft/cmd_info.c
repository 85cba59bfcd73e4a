/* cmd_info.c - `peft info`: what a path holds. */
#include "pretty.h"
#include "tool.h"

#include <stdio.h>
#include <stdlib.h>

static int info_main(const tool_args *args) {
    static const char *const schemas[] = {NULL};
    int rc = TOOL_OK;
    tool_run run = {0};
    char *text = NULL;
    DO(run_begin(&run, args, schemas));
    READ_TEXT(text, peft_inspect_json, run.ctx, args->path);
    if (args->json) {
        printf("%s\n", text);
    } else {
        DO(pretty_print(text));
    }
out:
    free(text);
    run_close(&run);
    return rc;
}

static const arg_spec info_args[] = {
    ARG_ROW_PATH("PATH", true, "a model, adapter, tokenizer or data file or folder"),
    ARG_ROW_FLAG("--json", json, "print one JSON object"),
    ARG_ROW_HELP,
    ARG_ROW_END,
};

const tool_command command_info = {"info", "PATH [--json]", "what a model, adapter, tokenizer or data file holds",
                                   NULL,   info_args,       info_main};
