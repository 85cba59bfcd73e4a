/* model_dump.c - a model for scripts to look at.
 *
 *   model_dump logits PATH            a JSON list of ids a line on stdin; floats [tokens, vocab] on stdout
 *   model_dump info PATH              the object of peft_model_info_json
 *   model_dump config PATH            config.json as the library has it
 *   model_dump hf PATH OUT TYPE       writes a Hugging Face folder; TYPE: a dtype's number, -1 as stored
 *   model_dump gguf PATH OUT TYPE     writes a GGUF file */
#include <stdio.h>
#include <stdlib.h>

#include "../unit/model_kit.h"

static peft_status dump_logits(const struct peft_model *m) {
    static char line[1 << 16];
    peft_status st = PEFT_OK;
    while (fgets(line, sizeof line, stdin) != NULL) {
        peft__arena a;
        const peft__json *ids = NULL;
        int32_t list[512];
        peft__arena_init(&a, &m->ctx->mem);
        st = peft__json_parse(&a, line, strlen(line), "stdin", &ids);
        if (st != PEFT_OK || ids->len > 512) { return st; }
        for (size_t i = 0; i < ids->len; i++) { list[i] = (int32_t)ids->items[i].i; }
        size_t n = ids->len * (size_t)m->config.vocab_size;
        float *out = calloc(n, sizeof *out);
        st = out != NULL ? kit_forward(m, list, (int64_t)ids->len, out, NULL) : PEFT_E_NOMEM;
        if (st == PEFT_OK) { (void)fwrite(out, sizeof *out, n, stdout); }
        free(out);
        peft__arena_free(&a);
        if (st != PEFT_OK) { return st; }
    }
    return st;
}

static peft_status dump_run(peft_context *ctx, int argc, char **argv) {
    struct peft_model *m = NULL;
    peft__str text;
    peft_status st = PEFT_OK;
    peft__str_init(&text, &ctx->mem);
    TRY(peft__kernels_find("auto", &ctx->kernels));
    if (argc < 3) { FAIL(PEFT_E_INVALID, "usage: model_dump WHAT PATH [OUT TYPE]"); }
    TRY(peft__model_open(ctx, argv[2], false, NULL, &m));
    if (strcmp(argv[1], "logits") == 0) {
        TRY(dump_logits(m));
    } else if (strcmp(argv[1], "info") == 0) {
        TRY(peft__model_info(m, &text));
        (void)puts(peft__str_c(&text));
    } else if (strcmp(argv[1], "config") == 0) {
        (void)puts(m->config_json);
    } else if (argc == 5 && strcmp(argv[1], "hf") == 0) {
        TRY(peft__model_write_hf(m, NULL, atoi(argv[4]), argv[3]));
    } else if (argc == 5 && strcmp(argv[1], "gguf") == 0) {
        TRY(peft__model_write_gguf(m, NULL, atoi(argv[4]), NULL, argv[3]));
    } else {
        FAIL(PEFT_E_INVALID, "unknown command \"%s\"", argv[1]);
    }
out:
    peft__str_free(&text);
    peft__model_release(m);
    return st;
}

int main(int argc, char **argv) {
    peft_context ctx;
    kit_context(&ctx);
    peft_status st = dump_run(&ctx, argc, argv);
    if (st != PEFT_OK) { (void)fprintf(stderr, "error %d: %s\n", (int)st, peft__fail_text()); }
    return st == PEFT_OK ? 0 : 1;
}

/* model_kit.h wants names of the runner, which this program has no use for. */
const char *runner_path(const char *dir, const char *name) {
    (void)dir;
    return name;
}
