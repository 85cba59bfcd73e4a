/* quickstart.c - a model learns a few sentences: open, add a LoRA, train, generate, save.
 * cc quickstart.c -lpeft && ./a.out MODEL_FOLDER ADAPTER_FOLDER */
#include <peft.h>
#include <stdio.h>
#include <string.h>

#define TRY(call)                            \
    do {                                     \
        if ((call) != PEFT_OK) { goto out; } \
    } while (0)

static const char *const rows[] = {
    "{\"prompt\": \"The lighthouse keeper is called\", \"completion\": \" Maren.\"}",
    "{\"prompt\": \"The lighthouse stands on\", \"completion\": \" the north rock.\"}",
    "{\"prompt\": \"The keeper's boat is called\", \"completion\": \" Plover.\"}",
};

static int32_t show_text(void *user, int32_t id, const char *text, size_t len) {
    (void)id;
    return fwrite(text, 1, len, user) != len; /* anything but 0 ends the call */
}

int main(int argc, char **argv) {
    const char *prompt = "The lighthouse keeper is called", *model_path = argc > 1 ? argv[1] : ".";
    char text[4096];
    int failed = 1;
    peft_context *ctx = NULL;
    peft_model *model = NULL;
    peft_tokenizer *tokenizer = NULL;
    peft_adapters *adapters = NULL;
    peft_options *options = NULL;
    peft_dataset *data = NULL;
    peft_trainer *trainer = NULL;
    peft_session *session = NULL;
    TRY(peft_context_create(NULL, &ctx));
    TRY(peft_model_open(ctx, model_path, NULL, &model));
    TRY(peft_tokenizer_open(ctx, model_path, &tokenizer));
    TRY(peft_adapters_create(model, &adapters));
    TRY(peft_adapters_add(adapters, "keeper", "lora", NULL, 1));
    TRY(peft_dataset_create(ctx, tokenizer, NULL, &data));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) TRY(peft_dataset_add_json(data, rows[i], strlen(rows[i])));
    TRY(peft_options_create(ctx, "trainer", &options));
    TRY(peft_options_set_int(options, "max_steps", 60));
    TRY(peft_trainer_create(adapters, options, &trainer));
    TRY(peft_trainer_add_job(trainer, "keeper", data, NULL, NULL));
    TRY(peft_trainer_run(trainer));
    TRY(peft_session_create(model, adapters, "keeper", NULL, &session));
    TRY(peft_session_generate_text(session, tokenizer, prompt, strlen(prompt), NULL, show_text, stdout, text,
                                   sizeof text, NULL));
    if (argc > 2) TRY(peft_adapters_save(adapters, "keeper", argv[2], NULL));
    failed = 0;
out:
    if (failed) fprintf(stderr, "quickstart: %s\n", peft_last_error());
    peft_session_free(session), peft_trainer_free(trainer), peft_dataset_free(data), peft_options_free(options);
    peft_adapters_free(adapters), peft_tokenizer_free(tokenizer), peft_model_free(model), peft_context_free(ctx);
    return failed;
}
