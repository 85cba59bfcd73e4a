/* to_gguf.c - writes a model as a GGUF file, its tokenizer with it: `to_gguf MODEL OUT.gguf [DTYPE]`. DTYPE as in the schema
 * "merge", q8_0 by default. A merge of no adapter at all; used by tools/train_base.sh. */
#include <peft.h>
#include <stdio.h>

#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        if ((call) != PEFT_OK) { goto out; }                                                                           \
    } while (0)

int main(int argc, char **argv)
{
    peft_context *ctx = NULL;
    peft_model *model = NULL;
    peft_adapters *none = NULL;
    peft_options *options = NULL;
    int code = 1;
    if (argc < 3) {
        (void)fprintf(stderr, "usage: to_gguf MODEL OUT.gguf [DTYPE]\n");
        return 2;
    }
    TRY(peft_context_create(NULL, &ctx));
    TRY(peft_options_create(ctx, "merge", &options));
    TRY(peft_options_set_str(options, "dtype", argc > 3 ? argv[3] : "q8_0"));
    TRY(peft_model_open(ctx, argv[1], NULL, &model));
    TRY(peft_adapters_create(model, &none));
    TRY(peft_adapters_merge(none, NULL, argv[2], options));
    code = 0;
out:
    if (code != 0) { (void)fprintf(stderr, "to_gguf: %s\n", peft_last_error()); }
    peft_adapters_free(none);
    peft_model_free(model);
    peft_options_free(options);
    peft_context_free(ctx);
    return code;
}
