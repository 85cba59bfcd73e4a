/* run.c - opens what a command works with, in the order of the library's manual: context, options, model, tokenizer,
 * adapters, session. */
#include "tool.h"

#include "system.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void run_log(void *user, int32_t level, const char *text) {
    (void)user;
    if (system_is_terminal()) { (void)fputs("\r\033[K", stderr); /* a progress bar may be on this line */ }
    tool_note("%s%s", level <= PEFT_LOG_WARN ? "warning: " : "", text);
}

static int run_set_threads(peft_context *ctx, const tool_args *args) {
    const char *source = args->threads != NULL ? "--threads" : "PEFT_THREADS";
    const char *text = args->threads != NULL ? args->threads : getenv("PEFT_THREADS");
    if (text == NULL || text[0] == '\0') { return TOOL_OK; }
    char *end = NULL;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || n < 0 || n > 1024) {
        return tool_usage("%s must be a number from 0 (one per CPU) to 1024, not '%s'", source, text);
    }
    return tool_check(peft_context_set_threads(ctx, (int32_t)n));
}

int run_begin(tool_run *r, const tool_args *args, const char *const *schemas) {
    int rc = TOOL_OK;
    const char *isa = getenv("PEFT_ISA");
    TRY(peft_context_create(NULL, &r->ctx));
    TRY(peft_context_set_log(r->ctx, PEFT_LOG_WARN, run_log, NULL));
    DO(run_set_threads(r->ctx, args));
    if (isa != NULL && isa[0] != '\0' && peft_context_set_isa(r->ctx, isa) != PEFT_OK) {
        DO(tool_usage("PEFT_ISA=%s: %s", isa, peft_last_error()));
    }
    DO(settings_build(r->ctx, args, schemas, &r->options));
out:
    return rc;
}

int run_check_method(const char *source, const char *method) {
    const char *name = NULL, *nearest = "", *sep = "";
    size_t best = SIZE_MAX;
    tool_text known = {NULL, 0, 0};
    for (size_t i = 0; (name = peft_method_name(i)) != NULL; i++) {
        size_t distance = tool_distance(method, name);
        if (distance < best) {
            best = distance;
            nearest = name;
        }
        tool_append(&known, sep, strlen(sep));
        tool_append(&known, name, strlen(name));
        sep = ", ";
    }
    int rc = best == 0 ? TOOL_OK
                       : tool_usage("%s %s: no such method; did you mean %s? There are: %s", source, method, nearest,
                                    known.text != NULL ? known.text : "none");
    free(known.text);
    return rc;
}

int run_open_tokenizer(tool_run *r, const tool_args *args) {
    int rc = TOOL_OK;
    const char *path = args->tokenizer != NULL ? args->tokenizer : args->model;
    peft_status status = peft_tokenizer_open(r->ctx, path, &r->tokenizer);
    if (status == PEFT_E_NOT_FOUND && args->tokenizer == NULL) {
        status = PEFT_OK; /* such a model takes rows of input_ids */
    }
    TRY(status);
out:
    return rc;
}

int run_open_model(tool_run *r, const tool_args *args) {
    int rc = TOOL_OK;
    TRY(peft_model_open(r->ctx, args->model, settings_of(&r->options, "model"), &r->model));
    if (r->tokenizer == NULL) { DO(run_open_tokenizer(r, args)); }
out:
    return rc;
}

/* Fusions refer to others, which must be there: they come last. */
int run_load_adapters(tool_run *r, const tool_args *args) {
    int rc = TOOL_OK;
    if (r->adapters == NULL) { TRY(peft_adapters_create(r->model, &r->adapters)); }
    for (int fusions = 0; fusions < 2; fusions++) {
        for (size_t i = 0; i < args->named_count; i++) {
            const char *path = args->named[i].value;
            char *config = tool_join(path, "/", "adapter_fusion_config.json");
            bool fusion = system_exists(config);
            free(config);
            if (fusion == (fusions == 1)) { TRY(peft_adapters_load(r->adapters, args->named[i].key, path, NULL)); }
        }
    }
out:
    return rc;
}

char *run_expression(const tool_args *args) {
    tool_text text = {0};
    if (args->compose != NULL) { return tool_copy(args->compose, strlen(args->compose)); }
    for (size_t i = 0; i < args->named_count; i++) {
        if (i > 0) { tool_append(&text, ",", 1); }
        tool_append(&text, args->named[i].key, strlen(args->named[i].key));
    }
    return text.text;
}

int run_open_set(tool_run *r, const tool_args *args) {
    int rc = TOOL_OK;
    DO(task_from_adapter(r, args));
    TRY(peft_model_open(r->ctx, args->model, settings_of(&r->options, "model"), &r->model));
    TRY(peft_adapters_create(r->model, &r->adapters));
out:
    return rc;
}

int run_open_session(tool_run *r, const tool_args *args) {
    int rc = TOOL_OK;
    char *expression = run_expression(args);
    DO(task_from_adapter(r, args));
    DO(run_open_model(r, args));
    if (args->named_count > 0) { DO(run_load_adapters(r, args)); }
    TRY(peft_session_create(r->model, r->adapters, expression, settings_of(&r->options, "session"), &r->session));
out:
    free(expression);
    return rc;
}

/* Where the method starts from a text, gives it that of its options, or its own. Without a tokenizer it keeps the start that
 * the library has given it. */
int run_init_adapter(tool_run *r, const char *name) {
    int rc = TOOL_OK;
    char *info_text = NULL;
    json_doc info = {NULL, NULL};
    int32_t *ids = NULL;
    size_t count = 0;
    READ_TEXT(info_text, peft_adapters_info_json, r->adapters, name);
    const json_value *text =
        json_parse(&info, info_text, strlen(info_text)) ? json_get(&info.values[0], "init_text") : NULL;
    if (text == NULL || text->kind != JSON_STRING || r->tokenizer == NULL) { goto out; }
    size_t len = strlen(text->text);
    (void)peft_tokenizer_encode(r->tokenizer, text->text, len, PEFT_TOKENIZE_BOS_EOS, NULL, 0, &count);
    ids = tool_alloc((count + 1) * sizeof *ids);
    TRY(peft_tokenizer_encode(r->tokenizer, text->text, len, PEFT_TOKENIZE_BOS_EOS, ids, count, NULL));
    TRY(peft_adapters_init(r->adapters, name, ids, count));
out:
    free(ids);
    json_free(&info);
    free(info_text);
    return rc;
}

int run_load_data(tool_run *r, const char *path, peft_dataset **out) {
    int rc = TOOL_OK;
    TRY(peft_dataset_create(r->ctx, r->tokenizer, settings_of(&r->options, "dataset"), out));
    TRY(peft_dataset_load_jsonl(*out, path));
out:
    return rc;
}

void run_close(tool_run *r) {
    peft_session_free(r->session);
    peft_adapters_free(r->adapters);
    peft_tokenizer_free(r->tokenizer);
    peft_model_free(r->model);
    settings_free(&r->options);
    peft_context_free(r->ctx);
}
