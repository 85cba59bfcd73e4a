/* cmd_generate.c - `peft generate`: continues one prompt or each line of a file, and shows the text as it comes.
 *
 * A line of a --prompts file is a prompt, or a JSON object with "prompt", or with "input_ids" for models without a
 * tokenizer. Plain output is the continuation (after the prompt's own line where there are several); --json prints one
 * object a prompt. */
#include "system.h"
#include "tool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct generate {
    tool_run run;
    const tool_args *args;
    tool_text text; /* of the present prompt's continuation */
    int64_t tokens;
} generate;

static int32_t generate_on_token(void *user, int32_t id, const char *text, size_t len) {
    generate *g = user;
    g->tokens++;
    if (text != NULL) { tool_append(&g->text, text, len); }
    if (!g->args->json) {
        if (text != NULL) {
            (void)fwrite(text, 1, len, stdout);
        } else {
            printf("%s%d", g->tokens > 1 ? " " : "", (int)id);
        }
        (void)fflush(stdout);
    }
    return ferror(stdout) != 0;
}

/* What a generating call returned, as an exit code; its text or ids have gone through the callback already, so that a
 * buffer that is too small is no error. */
static int generate_result(peft_status status) {
    if (interrupt_code() != 0 && status == PEFT_E_CANCELLED) { return interrupt_code(); }
    if (status == PEFT_E_CALLBACK) { return TOOL_FAILED; /* stdout is closed or full; main says so */ }
    return status == PEFT_E_BUFFER ? TOOL_OK : tool_check(status);
}

static int generate_chat(generate *g, const char *prompt, size_t len, char **out) {
    int rc = TOOL_OK;
    tool_text messages = {NULL, 0, 0};
    static const char head[] = "[{\"role\": \"user\", \"content\": ", tail[] = "}]";
    tool_append(&messages, head, sizeof head - 1);
    tool_append_json(&messages, prompt, len);
    tool_append(&messages, tail, sizeof tail - 1);
    READ_TEXT(*out, peft_tokenizer_chat, g->run.tokenizer, messages.text, messages.len, 1);
out:
    free(messages.text);
    return rc;
}

static void generate_print_json(const generate *g, const char *prompt, size_t len) {
    tool_text line = {NULL, 0, 0};
    tool_append(&line, "{\"prompt\": ", 11);
    tool_append_json(&line, prompt, len);
    tool_append(&line, ", \"text\": ", 10);
    tool_append_json(&line, g->text.text, g->text.len);
    printf("%s, \"tokens\": %lld}\n", line.text, (long long)g->tokens);
    free(line.text);
}

static int generate_from_text(generate *g, const char *prompt, size_t len) {
    int rc = TOOL_OK;
    char *chat = NULL;
    const char *start = prompt;
    size_t start_len = len;
    if (g->run.tokenizer == NULL) {
        DO(tool_fail(
            "%s has no tokenizer; give one with --tokenizer, or --prompts with lines of {\"input_ids\": [...]}",
            g->args->model));
    }
    if (g->args->chat) {
        DO(generate_chat(g, prompt, len, &chat));
        start = chat;
        start_len = strlen(chat);
    }
    if (!g->args->json && g->args->prompts != NULL) { printf("> %.*s\n", (int)len, prompt); }
    g->text.len = 0;
    g->tokens = 0;
    rc = generate_result(peft_session_generate_text(g->run.session, g->run.tokenizer, start, start_len,
                                                    settings_of(&g->run.options, "generate"), generate_on_token, g,
                                                    NULL, 0, NULL));
    if (!g->args->json) {
        printf("\n");
    } else if (rc == TOOL_OK) {
        generate_print_json(g, prompt, len);
    }
out:
    free(chat);
    return rc;
}

static int generate_from_ids(generate *g, const json_value *ids) {
    int rc = TOOL_OK;
    size_t n = 0, cap = (size_t)settings_number(&g->run.options, "generate", "max_new_tokens", 4096.0), made = 0;
    int32_t *in = tool_alloc((ids->count + 1) * sizeof *in), *out = tool_alloc((cap + 1) * sizeof *out);
    for (const json_value *v = ids->first; v != NULL; v = v->next) {
        if (v->kind != JSON_NUMBER || !(v->number >= 0.0 && v->number <= INT32_MAX)) {
            DO(tool_fail("%s: input_ids must be token numbers", g->args->prompts));
        }
        in[n++] = (int32_t)v->number;
    }
    g->text.len = 0;
    g->tokens = 0;
    DO(generate_result(peft_session_generate(g->run.session, g->run.tokenizer, in, n,
                                             settings_of(&g->run.options, "generate"), generate_on_token, g, out, cap,
                                             &made)));
    if (g->args->json) {
        printf("{\"ids\": [");
        for (size_t i = 0; i < made; i++) { printf("%s%d", i > 0 ? ", " : "", (int)out[i]); }
        printf("], \"tokens\": %lld}", (long long)g->tokens);
    }
    printf("\n");
out:
    free(out);
    free(in);
    return rc;
}

static int generate_line(generate *g, const char *line, size_t len, size_t number) {
    int rc = TOOL_OK;
    json_doc doc = {NULL, NULL};
    if (line[0] != '{') { return generate_from_text(g, line, len); }
    if (!json_parse(&doc, line, len)) { return tool_fail("%s line %zu is no JSON object", g->args->prompts, number); }
    const json_value *prompt = json_get(&doc.values[0], "prompt"), *ids = json_get(&doc.values[0], "input_ids");
    if (prompt != NULL && prompt->kind == JSON_STRING) {
        rc = generate_from_text(g, prompt->text, prompt->len);
    } else if (ids != NULL && ids->kind == JSON_ARRAY) {
        rc = generate_from_ids(g, ids);
    } else {
        rc = tool_fail("%s line %zu has neither a \"prompt\" nor \"input_ids\"", g->args->prompts, number);
    }
    json_free(&doc);
    return rc;
}

static int generate_file(generate *g, const char *path) {
    int rc = TOOL_OK;
    tool_text line = {0};
    size_t number = 0;
    FILE *file = system_open(path, "r");
    if (file == NULL) { return tool_fail("cannot read %s: %s", path, strerror(errno)); }
    while (tool_read_line(file, &line)) {
        number++;
        while (line.len > 0 && (line.text[line.len - 1] == '\n' || line.text[line.len - 1] == '\r')) {
            line.text[--line.len] = '\0';
        }
        if (line.len > 0) { DO(generate_line(g, line.text, line.len, number)); }
    }
    if (ferror(file)) {
        rc = tool_fail("cannot read %s: %s", path, strerror(errno));
    } else if (number == 0) {
        rc = tool_fail("%s has no prompts", path);
    }
out:
    free(line.text);
    (void)fclose(file);
    return rc;
}

static int generate_main(const tool_args *args) {
    static const char *const schemas[] = {"generate", "session", "model", NULL};
    int rc = TOOL_OK;
    generate g = {.args = args};
    if ((args->prompt == NULL) == (args->prompts == NULL)) {
        return tool_usage("generate needs one of --prompt TEXT and --prompts FILE");
    }
    DO(run_begin(&g.run, args, schemas));
    DO(run_open_session(&g.run, args));
    interrupt_watch(NULL, g.run.session);
    if (args->prompt != NULL) {
        DO(generate_from_text(&g, args->prompt, strlen(args->prompt)));
    } else {
        DO(generate_file(&g, args->prompts));
    }
out:
    interrupt_forget();
    free(g.text.text);
    run_close(&g.run);
    return rc;
}

static const arg_spec generate_args[] = {
    ARG_ROW_TEXT("--model", "PATH", model, true, "model: a Hugging Face folder or a GGUF file"),
    ARG_ROW_TEXT("--tokenizer", "PATH", tokenizer, false, "tokenizer (default: the model's)"),
    ARG_ROW_ADAPTERS("an adapter, with a name for --compose; repeatable (default: the model alone)"),
    ARG_ROW_TEXT("--prompt", "TEXT", prompt, false, "continue this text"),
    ARG_ROW_TEXT("--prompts", "FILE", prompts, false,
                 "continue each line: text, or {\"prompt\": ...}, or {\"input_ids\": [...]}"),
    ARG_ROW_FLAG("--chat", chat, "the prompt is a user's message; the model's chat format goes around it"),
    ARG_ROW_KEY("--max-new", "N", "max_new_tokens", "at most so many new tokens"),
    ARG_ROW_KEY("--temperature", "F", "temperature", "0: always the likeliest token"),
    ARG_ROW_KEY("--top-k", "N", "top_k", "choose among the N likeliest tokens; 0: all"),
    ARG_ROW_KEY("--top-p", "F", "top_p", "choose among the likeliest tokens that have this probability together"),
    ARG_ROW_KEY("--stop", "TEXT", "stop", "end before this text"),
    ARG_ROW_KEY("--seed", "N", "seed", "seed of the choice"),
    ARG_ROW_FLAG("--json", json, "print one JSON object a prompt instead of streaming"),
    ARG_ROW_SET,
    ARG_ROW_THREADS,
    ARG_ROW_HELP,
    ARG_ROW_END,
};

const tool_command command_generate = {"generate",
                                       "--model PATH (--prompt TEXT | --prompts FILE) [options]",
                                       "continue prompts, streaming",
                                       "--set takes the keys of the schemas generate, session and model.",
                                       generate_args,
                                       generate_main};
