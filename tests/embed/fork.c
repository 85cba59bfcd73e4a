/* fork.c - a process that has used the library forks: parent and child both go on, with what there was and with new things.
 *
 * The child has none of the parent's threads; its calls do all work themselves, and give the same bits.
 *
 * Left out: a fork while another thread is inside of the library, whose locks and heap nobody would give back. */
#define KIT_LINK
#include <sys/wait.h>
#include <unistd.h>

#include "kit.h"

typedef struct fork_state {
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    peft_trainer *t;
    peft_batch *b;
} fork_state;

static uint64_t fork_step(const fork_state *s) {
    double loss = 0;
    OK(peft_trainer_accumulate(s->t, s->b, &loss));
    OK(peft_trainer_apply(s->t));
    return kit_adapter(&kit_linked, s->a, "a", kit_hash(1, &loss, sizeof loss));
}

static void fork_make(fork_state *s) {
    OK(peft_context_create(NULL, &s->ctx));
    OK(peft_context_set_threads(s->ctx, 2));
    OK(peft_model_create_random(s->ctx, kit_config, strlen(kit_config), 5, &s->m));
    OK(peft_adapters_create(s->m, &s->a));
    OK(peft_adapters_add(s->a, "a", "lora", NULL, 1));
    peft_options *o = kit_options(&kit_linked, s->ctx, "trainer", "{\"batch_size\":4,\"max_length\":24}");
    OK(peft_trainer_create(s->a, o, &s->t));
    OK(peft_trainer_add_job(s->t, "a", NULL, NULL, NULL));
    peft_options_free(o);
    s->b = kit_batch(&kit_linked, s->ctx);
}

static void fork_drop(const fork_state *s) {
    size_t now = 0;
    peft_batch_free(s->b);
    peft_trainer_free(s->t);
    peft_adapters_free(s->a);
    peft_model_free(s->m);
    peft_context_memory(s->ctx, &now, NULL);
    EXPECT(now > 0 && now < 4096); /* the context itself */
    peft_context_free(s->ctx);
}

/* What both processes do after the fork; all results as one number. */
static uint64_t fork_after(const fork_state *s) {
    uint64_t h = fork_step(s);
    h = h * 31 + fork_step(s);
    h = h * 31 + kit_generate(&kit_linked, s->ctx, s->m, s->a, "a");
    h = h * 31 + kit_run(&kit_linked, NULL, 2, NULL); /* with a context and threads of its own */
    fork_drop(s);
    return h;
}

int main(void) {
    fork_state s, alone;
    uint64_t theirs = 0;
    int pipes[2], status = -1;
    fork_make(&alone);
    (void)fork_step(&alone);
    uint64_t expected = fork_after(&alone);
    fork_make(&s);
    (void)fork_step(&s);
    EXPECT(kit_threads() == 2 && pipe(pipes) == 0);
    (void)fflush(stdout);
    pid_t child = fork();
    EXPECT(child >= 0);
    if (child == 0) {
        EXPECT(kit_threads() == 1);
        (void)alarm(60); /* a child that waits for a thread that it does not have */
        theirs = fork_after(&s);
        EXPECT(write(pipes[1], &theirs, sizeof theirs) == (ssize_t)sizeof theirs);
        return 0;
    }
    uint64_t ours = fork_after(&s);
    EXPECT(close(pipes[1]) == 0 && read(pipes[0], &theirs, sizeof theirs) == (ssize_t)sizeof theirs);
    EXPECT(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    EXPECT(ours == expected && theirs == expected);
    (void)printf("fork: parent, child and neither, the same bits\n");
    return 0;
}
