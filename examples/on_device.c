/* on_device.c - a model that adapts to its user while the program goes on: train a little, look, train more; within a memory limit; to
 * be stopped at any time, and gone on with the next day.
 *
 *   on_device MODEL ROWS FOLDER [PROMPT [ROUNDS [SECONDS [MEBIBYTES]]]]
 *
 * ROWS: what the user wrote or chose so far, JSON Lines. Each of ROUNDS (3) trains for SECONDS (2), by an alarm that asks the run to
 * stop after its present step, and continues PROMPT. FOLDER has the adapter, and in it the trainer's state: the next call goes on from
 * there. Ctrl-C ends the round and the program, with nothing lost. POSIX. */
#include <peft.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TRY(call)                            \
    do {                                     \
        if ((call) != PEFT_OK) { goto out; } \
    } while (0)

typedef struct app {
    peft_context *ctx;
    peft_model *model;
    peft_tokenizer *tokenizer;
    peft_adapters *adapters;
    peft_dataset *data;
    peft_options *options;
    peft_trainer *trainer;
    char state[4096]; /* folder of the trainer's state */
} app;

static peft_trainer *running; /* what a signal stops: peft_trainer_cancel may be called from a handler */
static volatile sig_atomic_t interrupted;

static void stop(int number) {
    if (number == SIGINT) { interrupted = 1; }
    peft_trainer_cancel(running);
}

static int32_t watch(void *user, const peft_step_info *info) {
    *(int64_t *)user = info->step;
    return 0;
}

static peft_status open_all(app *a, const char *model, const char *rows, const char *mebibytes) {
    char limit[64];
    peft_status st;
    (void)snprintf(limit, sizeof limit, "%sMiB", mebibytes);
    TRY(st = peft_context_create(NULL, &a->ctx));
    TRY(st = peft_model_open(a->ctx, model, NULL, &a->model));
    TRY(st = peft_tokenizer_open(a->ctx, model, &a->tokenizer));
    TRY(st = peft_adapters_create(a->model, &a->adapters));
    TRY(st = peft_adapters_add(a->adapters, "user", "lora", NULL, 1));
    TRY(st = peft_dataset_create(a->ctx, a->tokenizer, NULL, &a->data));
    TRY(st = peft_dataset_load_jsonl(a->data, rows));
    TRY(st = peft_options_create(a->ctx, "trainer", &a->options));
    TRY(st = peft_options_set_int(a->options, "max_steps", 100000)); /* the alarm decides */
    TRY(st = peft_options_set_text(a->options, "memory_limit", limit));
    TRY(st = peft_trainer_create(a->adapters, a->options, &a->trainer));
    TRY(st = peft_trainer_add_job(a->trainer, "user", a->data, NULL, NULL));
out:
    return st;
}

static void close_all(app *a) {
    peft_trainer_free(a->trainer), peft_options_free(a->options), peft_dataset_free(a->data);
    peft_adapters_free(a->adapters), peft_tokenizer_free(a->tokenizer), peft_model_free(a->model), peft_context_free(a->ctx);
}

/* Trains until the alarm: PEFT_OK too where it stopped the run, whose state is then that of a step's end. */
static peft_status train_for(app *a, unsigned seconds, int64_t *step) {
    peft_status st = peft_trainer_set_progress(a->trainer, watch, step);
    if (st != PEFT_OK) { return st; }
    (void)alarm(seconds);
    st = peft_trainer_run(a->trainer);
    (void)alarm(0);
    return st == PEFT_E_CANCELLED ? PEFT_OK : st;
}

static peft_status say(app *a, const char *prompt) {
    static const char how[] = "{\"max_new_tokens\":48,\"stop\":[\"\\n\"]}";
    char text[1024];
    peft_session *s = NULL;
    peft_options *o = NULL;
    peft_status st;
    TRY(st = peft_options_create(a->ctx, "generate", &o));
    TRY(st = peft_options_set_json(o, how, strlen(how)));
    TRY(st = peft_session_create(a->model, a->adapters, "user", NULL, &s));
    TRY(st = peft_session_generate_text(s, a->tokenizer, prompt, strlen(prompt), o, NULL, NULL, text, sizeof text, NULL));
    (void)printf("  %s\n", text);
out:
    peft_session_free(s), peft_options_free(o);
    return st;
}

int main(int argc, char **argv) {
    app a = {0};
    int failed = 1;
    int64_t step = 0;
    if (argc < 4) {
        (void)fprintf(stderr, "usage: on_device MODEL ROWS FOLDER [PROMPT [ROUNDS [SECONDS [MEBIBYTES]]]]\n");
        return 2;
    }
    const char *prompt = argc > 4 ? argv[4] : "name: Calm Stove | kind: bistro | area: lighthouse | dish: plum tart\nSentence:";
    int rounds = argc > 5 ? atoi(argv[5]) : 3;
    unsigned seconds = argc > 6 ? (unsigned)atoi(argv[6]) : 2;
    (void)snprintf(a.state, sizeof a.state, "%s/trainer", argv[3]);
    TRY(open_all(&a, argv[1], argv[2], argc > 7 ? argv[7] : "64"));
    running = a.trainer;
    struct sigaction action = {.sa_handler = stop};
    (void)sigaction(SIGALRM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
    peft_status st = peft_trainer_checkpoint_load(a.trainer, a.state);
    if (st != PEFT_OK && st != PEFT_E_NOT_FOUND) { goto out; } /* not found: the first day */
    for (int round = 0; round < rounds && !interrupted; round++) {
        TRY(train_for(&a, seconds, &step));
        (void)printf("after step %lld:\n", (long long)step);
        TRY(say(&a, prompt));
    }
    TRY(peft_adapters_save(a.adapters, "user", argv[3], NULL));
    TRY(peft_trainer_checkpoint_save(a.trainer, a.state));
    failed = 0;
out:
    if (failed) { (void)fprintf(stderr, "on_device: %s\n", peft_last_error()); }
    close_all(&a);
    return failed;
}
