/* end_to_end.c MODEL_FOLDER ADAPTER_FOLDER ISA - what a minimal build is for, by peft.h alone: opens a Llama model and its
 * tokenizer, trains a LoRA, saves it, loads it again, generates. Prints losses and text, the same with the full library. */
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
    "{\"text\": \"The keeper's boat is called Plover.\"}",
};

static int32_t show_loss(void *user, const peft_step_info *info) {
    (void)user;
    printf("step %lld loss %.9g\n", (long long)info->step, info->loss);
    return 0;
}

int main(int argc, char **argv) {
    static const char prompt[] = "The lighthouse keeper is called";
    char text[1024];
    int failed = 1;
    peft_context *ctx = NULL;
    peft_model *model = NULL;
    peft_tokenizer *tokenizer = NULL;
    peft_adapters *adapters = NULL;
    peft_options *options = NULL;
    peft_dataset *data = NULL;
    peft_trainer *trainer = NULL;
    peft_session *session = NULL;
    if (argc != 4) { return 2; }
    TRY(peft_context_create(NULL, &ctx));
    TRY(peft_context_set_isa(ctx, argv[3]));
    TRY(peft_model_open(ctx, argv[1], NULL, &model));
    TRY(peft_tokenizer_open(ctx, argv[1], &tokenizer));
    TRY(peft_adapters_create(model, &adapters));
    TRY(peft_adapters_add(adapters, "keeper", "lora", NULL, 7));
    TRY(peft_dataset_create(ctx, tokenizer, NULL, &data));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) TRY(peft_dataset_add_json(data, rows[i], strlen(rows[i])));
    TRY(peft_options_create(ctx, "trainer", &options));
    TRY(peft_options_set_int(options, "max_steps", 12));
    TRY(peft_trainer_create(adapters, options, &trainer));
    TRY(peft_trainer_add_job(trainer, "keeper", data, NULL, NULL));
    TRY(peft_trainer_set_progress(trainer, show_loss, NULL));
    TRY(peft_trainer_run(trainer));
    TRY(peft_adapters_save(adapters, "keeper", argv[2], NULL));
    TRY(peft_adapters_load(adapters, "again", argv[2], NULL));
    TRY(peft_session_create(model, adapters, "again", NULL, &session));
    TRY(peft_session_generate_text(session, tokenizer, prompt, strlen(prompt), NULL, NULL, NULL, text, sizeof text, NULL));
    printf("%s%s\n", prompt, text);
    failed = 0;
out:
    if (failed) { fprintf(stderr, "end_to_end: %s\n", peft_last_error()); }
    peft_session_free(session), peft_trainer_free(trainer), peft_dataset_free(data), peft_options_free(options);
    peft_adapters_free(adapters), peft_tokenizer_free(tokenizer), peft_model_free(model), peft_context_free(ctx);
    return failed;
}
