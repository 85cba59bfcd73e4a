/* many.c - one model and one set of adapters used by many threads at once, as the header's Threads paragraph allows; run
 * under the thread sanitizer as well, see run.sh.
 *
 * Trainers of different adapters, sessions, adapters that come and go and readers of the set, all at the same time; then a
 * run that another thread cancels. Each result must be what it is alone, bit for bit.
 *
 * Left out: what the paragraph does not allow, such as two threads with one session. */
#define KIT_LINK
#include <pthread.h>
#include <stdatomic.h>

#include "kit.h"

enum { MANY_TRAINERS = 2, MANY_SESSIONS = 2, MANY_STEPS = 4, MANY_ROUNDS = 3 };

typedef struct many_state {
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    atomic_int working;              /* trainers and sessions that are not yet through */
    peft_trainer *run;               /* what the cancelling thread cancels */
    atomic_int asked, cancelled;     /* cancels, and calls that ended so */
    atomic_int went;                 /* adapters that came and went */
    uint64_t trained[MANY_TRAINERS]; /* what came out */
    uint64_t generated[MANY_SESSIONS];
} many_state;

typedef struct many_job {
    many_state *s;
    int index;
} many_job;

static const char *const many_names[MANY_TRAINERS] = {"t0", "t1"};

static void many_make(many_state *s) {
    OK(peft_context_create(NULL, &s->ctx));
    OK(peft_context_set_threads(s->ctx, 2));
    OK(peft_model_create_random(s->ctx, kit_config, strlen(kit_config), 5, &s->m));
    OK(peft_adapters_create(s->m, &s->a));
    OK(peft_adapters_add(s->a, "shared", "lora", NULL, 9));
    for (int i = 0; i < MANY_TRAINERS; i++) { OK(peft_adapters_add(s->a, many_names[i], "lora", NULL, (uint64_t)i)); }
    OK(peft_adapters_add(s->a, "run", "lora", NULL, 3));
}

static void many_drop(const many_state *s) {
    peft_context_free(s->ctx); /* in any order */
    peft_model_free(s->m);
    peft_adapters_free(s->a);
}

static void *many_train(void *arg) {
    const many_job *j = arg;
    j->s->trained[j->index] = kit_train(&kit_linked, j->s->ctx, j->s->a, many_names[j->index], MANY_STEPS, NULL);
    atomic_fetch_sub(&j->s->working, 1);
    return NULL;
}

static void *many_generate(void *arg) {
    const many_job *j = arg;
    uint64_t first = 0;
    for (int i = 0; i < MANY_ROUNDS; i++) {
        uint64_t h = kit_generate(&kit_linked, j->s->ctx, j->s->m, j->s->a, "shared");
        EXPECT(i == 0 || h == first);
        first = h;
    }
    j->s->generated[j->index] = first;
    atomic_fetch_sub(&j->s->working, 1);
    return NULL;
}

static void *many_come_and_go(void *arg) {
    many_state *s = arg;
    char name[32], json[1 << 14];
    size_t needed = 0;
    do {
        int n = atomic_fetch_add(&s->went, 1);
        (void)snprintf(name, sizeof name, "x%d", n);
        OK(peft_adapters_add(s->a, name, "lora", NULL, 1));
        EXPECT(peft_adapters_add(s->a, name, "lora", NULL, 1) == PEFT_E_EXISTS && strstr(peft_last_error(), name) != NULL);
        OK(peft_adapters_info_json(s->a, name, json, sizeof json, &needed));
        EXPECT(strstr(json, name) != NULL);
        OK(peft_adapters_remove(s->a, name));
        EXPECT(peft_adapters_remove(s->a, name) == PEFT_E_NOT_FOUND && strstr(peft_last_error(), name) != NULL);
    } while (atomic_load(&s->working) > 0);
    return NULL;
}

static void *many_read(void *arg) {
    const many_state *s = arg;
    char json[1 << 15];
    float values[4096];
    while (atomic_load(&s->working) > 0) {
        size_t needed = 0, n = peft_adapters_count(s->a), now = 0, peak = 0;
        EXPECT(n >= 4 && n <= 5);
        EXPECT(strcmp(peft_adapters_name(s->a, 0), "shared") == 0);
        OK(peft_model_info_json(s->m, json, sizeof json, &needed));
        OK(peft_model_tensor_read(s->m, "model.norm.weight", values, 4096, &needed));
        EXPECT(needed == 64 && values[0] > 0);
        EXPECT(peft_model_tensor_read(s->m, "nobody's", values, 4096, &needed) == PEFT_E_NOT_FOUND);
        EXPECT(strstr(peft_last_error(), "nobody's") != NULL); /* its own, whatever fails in other threads */
        peft_context_memory(s->ctx, &now, &peak);
        EXPECT(now > 0 && peak >= now);
    }
    return NULL;
}

static void *many_cancel(void *arg) {
    many_state *s = arg;
    while (atomic_load(&s->working) > 0) {
        peft_trainer_cancel(s->run);
        atomic_fetch_add(&s->asked, 1);
        for (volatile int i = 0; i < 200000; i++) {}
    }
    return NULL;
}

static int32_t many_wait(void *user, const peft_step_info *info) { /* at the first step, until it was cancelled */
    many_state *s = user;
    while (info->step == 1 && atomic_load(&s->asked) == 0) {}
    return 0;
}

/* A run that is cancelled again and again, and goes on each time: the same as one that never was. */
static uint64_t many_run(many_state *s, int cancelled) {
    static const char row[] = "{\"input_ids\":[1,2,3,4,5,6,7,8]}";
    peft_dataset *d = NULL;
    peft_status st;
    peft_options *o = kit_options(&kit_linked, s->ctx, "trainer", "{\"max_steps\":40,\"batch_size\":1}");
    pthread_t canceller;
    OK(peft_dataset_create(s->ctx, NULL, NULL, &d));
    OK(peft_dataset_add_json(d, row, strlen(row)));
    OK(peft_trainer_create(s->a, o, &s->run));
    OK(peft_trainer_add_job(s->run, "run", d, NULL, NULL));
    atomic_fetch_add(&s->working, 1);
    if (cancelled) { OK(peft_trainer_set_progress(s->run, many_wait, s)); }
    if (cancelled) { EXPECT(pthread_create(&canceller, NULL, many_cancel, s) == 0); }
    while ((st = peft_trainer_run(s->run)) == PEFT_E_CANCELLED) { atomic_fetch_add(&s->cancelled, 1); }
    OK(st);
    atomic_fetch_sub(&s->working, 1);
    if (cancelled) { EXPECT(pthread_join(canceller, NULL) == 0); }
    peft_trainer_free(s->run);
    peft_dataset_free(d);
    peft_options_free(o);
    return kit_adapter(&kit_linked, s->a, "run", 1);
}

static void many_together(many_state *s) {
    pthread_t threads[MANY_TRAINERS + MANY_SESSIONS + 2];
    many_job jobs[MANY_TRAINERS + MANY_SESSIONS];
    int n = 0;
    many_make(s);
    atomic_store(&s->working, MANY_TRAINERS + MANY_SESSIONS);
    for (; n < MANY_TRAINERS + MANY_SESSIONS; n++) {
        jobs[n] = (many_job){s, n < MANY_TRAINERS ? n : n - MANY_TRAINERS};
        EXPECT(pthread_create(&threads[n], NULL, n < MANY_TRAINERS ? many_train : many_generate, &jobs[n]) == 0);
    }
    EXPECT(pthread_create(&threads[n++], NULL, many_come_and_go, s) == 0);
    EXPECT(pthread_create(&threads[n++], NULL, many_read, s) == 0);
    for (int i = 0; i < n; i++) { EXPECT(pthread_join(threads[i], NULL) == 0); }
    EXPECT(peft_adapters_count(s->a) == 4);
}

int main(void) {
    static many_state alone, together, free_run, cancelled;
    many_make(&alone);
    for (int i = 0; i < MANY_TRAINERS; i++) { (void)many_train(&(many_job){&alone, i}); }
    for (int i = 0; i < MANY_SESSIONS; i++) { (void)many_generate(&(many_job){&alone, i}); }
    many_together(&together);
    EXPECT(memcmp(alone.trained, together.trained, sizeof alone.trained) == 0 && alone.trained[0] != alone.trained[1]);
    EXPECT(memcmp(alone.generated, together.generated, sizeof alone.generated) == 0);
    EXPECT(atomic_load(&together.went) > 0);
    many_make(&free_run);
    many_make(&cancelled);
    EXPECT(many_run(&free_run, 0) == many_run(&cancelled, 1));
    EXPECT(atomic_load(&free_run.cancelled) == 0 && atomic_load(&cancelled.cancelled) > 0);
    (void)printf("threads: the same bits beside each other as alone; %d adapters came and went, %d calls were cancelled\n",
                 atomic_load(&together.went), atomic_load(&cancelled.cancelled));
    many_drop(&alone);
    many_drop(&together);
    many_drop(&free_run);
    many_drop(&cancelled);
    return 0;
}
