/* cmd_eval.c - `peft eval`: what a model, with or without an adapter, is worth on rows: loss, perplexity and token accuracy, or the
 * measures of its task. */
#include "pretty.h"
#include "tool.h"

#include <stdio.h>

static int eval_main(const tool_args *args) {
    static const char *const schemas[] = {"session", "dataset", "model", NULL};
    int rc = TOOL_OK;
    tool_run run = {0};
    peft_dataset *data = NULL;
    char text[4096]; /* evaluating twice only to learn the size would be dear; the object is short */
    DO(run_begin(&run, args, schemas));
    DO(run_open_session(&run, args));
    DO(run_load_data(&run, args->data, &data));
    interrupt_watch(NULL, run.session);
    peft_status status = peft_session_evaluate(run.session, data, text, sizeof text, NULL);
    if (status == PEFT_E_CANCELLED && interrupt_code() != 0) {
        rc = interrupt_code();
        goto out;
    }
    TRY(status);
    if (args->json) {
        printf("%s\n", text);
    } else {
        DO(pretty_print(text));
    }
out:
    interrupt_forget();
    peft_dataset_free(data);
    run_close(&run);
    return rc;
}

static const arg_spec eval_args[] = {
    ARG_ROW_TEXT("--model", "PATH", model, true, "model: a Hugging Face folder or a GGUF file"),
    ARG_ROW_TEXT("--tokenizer", "PATH", tokenizer, false, "tokenizer (default: the model's)"),
    ARG_ROW_ADAPTERS("an adapter, with a name for --compose; repeatable (default: the model alone)"),
    ARG_ROW_TEXT("--data", "FILE", data, true, "rows, JSON Lines"),
    ARG_ROW_FLAG("--json", json, "print one JSON object: loss, and what the task is measured by"),
    ARG_ROW_SET,
    ARG_ROW_KEY("--prompt-template", "TEXT", "prompt_template", "prompt from a row's fields, as in 'Record: {mr}'"),
    ARG_ROW_KEY("--completion-template", "TEXT", "completion_template", "completion from a row's fields"),
    ARG_ROW_TASK,
    ARG_ROW_THREADS,
    ARG_ROW_HELP,
    ARG_ROW_END,
};

const tool_command command_eval = {"eval",
                                   "--model PATH --data FILE [options]",
                                   "loss, perplexity and accuracy on rows, or the measures of a task",
                                   "--set takes the keys of the schemas session, dataset and model.",
                                   eval_args,
                                   eval_main};
