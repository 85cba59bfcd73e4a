/* lacks.c MODEL_FOLDER GGUF_FILE SCRATCH_FOLDER - what a minimal build says when it is asked for what it does not have. */
#include <peft.h>
#include <stdio.h>
#include <string.h>

static int passed, failed;

/* The status is PEFT_E_UNSUPPORTED and the text has `part`. */
static void lacks(const char *what, peft_status st, const char *part) {
    int ok = st == PEFT_E_UNSUPPORTED && strstr(peft_last_error(), part) != NULL;
    ok ? passed++ : failed++;
    printf("%s %s: %s: %s\n", ok ? "ok" : "not ok", what, peft_status_name(st), st != PEFT_OK ? peft_last_error() : "");
}

static void is(const char *what, int ok) {
    ok ? passed++ : failed++;
    printf("%s %s\n", ok ? "ok" : "not ok", what);
}

static void adapters(peft_context *ctx, peft_model *model, const char *scratch) {
    char path[1024];
    const int32_t ids[] = {1, 2, 3};
    peft_adapters *set = NULL;
    peft_options *options = NULL;
    is("a set", peft_adapters_create(model, &set) == PEFT_OK && peft_adapters_add(set, "x", "lora", NULL, 1) == PEFT_OK);
    lacks("method oft", peft_adapters_add(set, "y", "oft", NULL, 1), "there is no method \"oft\" in this minimal build");
    lacks("combine", peft_adapters_combine(set, "y", "x:0.5", NULL), "combining adapters");
    lacks("init", peft_adapters_init(set, "x", ids, 3), "start from a text");
    snprintf(path, sizeof path, "%s/merged", scratch);
    lacks("merge", peft_adapters_merge(set, "x", path, NULL), "merging adapters");
    snprintf(path, sizeof path, "%s/x.gguf", scratch);
    lacks("a LoRA file", peft_adapters_save(set, "x", path, NULL), "GGUF files");
    is("options", peft_options_create(ctx, "save", &options) == PEFT_OK &&
                      peft_options_set_str(options, "format", "adapterhub") == PEFT_OK);
    lacks("AdapterHub", peft_adapters_save(set, "x", scratch, options), "AdapterHub");
    peft_options_free(options);
    is("options", peft_options_create(ctx, "method:lora", &options) == PEFT_OK &&
                      peft_options_set_str(options, "init_lora_weights", "pissa") == PEFT_OK);
    lacks("pissa", peft_adapters_add(set, "y", "lora", options, 1), "init_lora_weights=pissa");
    peft_options_free(options);
    is("nothing was added", peft_adapters_count(set) == 1);
    peft_adapters_free(set);
}

int main(int argc, char **argv) {
    char text[4096];
    static const char gpt2[] = "{\"model_type\":\"gpt2\"}";
    peft_context *ctx = NULL;
    peft_model *model = NULL, *none = NULL;
    peft_tokenizer *tokenizer = NULL;
    if (argc != 4) { return 2; }
    is("says what it is", strstr(peft_build_info(), "minimal=yes") != NULL);
    is("one method", strcmp(peft_method_name(0), "lora") == 0 && peft_method_name(1) == NULL);
    is("one architecture", strcmp(peft_arch_name(0), "llama") == 0 && peft_arch_name(1) == NULL);
    is("a context", peft_context_create(NULL, &ctx) == PEFT_OK);
    is("a model", peft_model_open(ctx, argv[1], NULL, &model) == PEFT_OK);
    lacks("GGUF model", peft_model_open(ctx, argv[2], NULL, &none), "GGUF files: not in this build");
    lacks("GGUF tokenizer", peft_tokenizer_open(ctx, argv[2], &tokenizer), "GGUF files: not in this build");
    lacks("files checked", peft_check_json(ctx, argv[2], NULL, NULL, text, sizeof text, NULL), "checking files: not in this build");
    lacks("GGUF inspected", peft_inspect_json(ctx, argv[2], text, sizeof text, NULL), "GGUF files: not in this build");
    lacks("gpt2", peft_model_create_random(ctx, gpt2, strlen(gpt2), 1, &none),
          "model_type \"gpt2\" is not supported in this minimal build, expected one of \"llama\"");
    is("no handle", none == NULL && tokenizer == NULL);
    adapters(ctx, model, argv[3]);
    peft_model_free(model), peft_context_free(ctx);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
