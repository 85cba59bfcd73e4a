/* long.c - a long run: does it drift, does it grow? For `make torture`, which builds it twice, over the library in float and in double.
 *
 *   long DIR STEPS     DIR/model, DIR/rows.jsonl: trains LoRA for STEPS steps; every tenth of them is a line
 *                          STEP LOSS BYTES FILES RESIDENT
 *                      LOSS: mean of the steps since the line before; BYTES: what the context's allocator has given out; FILES: open file
 *                      descriptors; RESIDENT: KiB of the process. Between the lines sessions, trainers' twins and adapters come and go.
 *
 * Left out: judging the lines, which run.sh does. */
#include <dirent.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peft.h"

#define TRY(call)                                                            \
    do {                                                                     \
        if ((call) != PEFT_OK) {                                             \
            (void)fprintf(stderr, "%s: %s\n", #call, peft_last_error());     \
            exit(1);                                                         \
        }                                                                    \
    } while (0)

static atomic_size_t held; /* bytes */

static void *long_alloc(void *user, size_t size, size_t align) {
    void *p = NULL;
    (void)user;
    if (posix_memalign(&p, align, size) != 0) { return NULL; }
    atomic_fetch_add(&held, size);
    return p;
}

static void long_release(void *user, void *p, size_t size) {
    (void)user;
    atomic_fetch_sub(&held, size);
    free(p);
}

static int long_files(void) {
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    for (; d != NULL && readdir(d) != NULL; n++) {}
    if (d != NULL) { (void)closedir(d); }
    return n;
}

static long long_resident(void) {
    long pages = 0, size = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f == NULL || fscanf(f, "%ld %ld", &size, &pages) != 2) { pages = 0; }
    if (f != NULL) { (void)fclose(f); }
    return pages * 4;
}

typedef struct long_sums {
    double loss;
    long long steps, every;
} long_sums;

static int32_t long_step(void *user, const peft_step_info *info) {
    long_sums *s = user;
    s->loss += info->loss;
    s->steps++;
    if (info->step % s->every == 0) {
        (void)printf("%lld %.12g %zu %d %ld\n", (long long)info->step, s->loss / (double)s->steps, atomic_load(&held), long_files(),
                     long_resident());
        s->loss = 0, s->steps = 0;
    }
    return 0;
}

/* A host's day beside a run: an adapter, a trainer of its own for two steps, a session. */
static void long_visit(peft_context *ctx, peft_model *m, peft_dataset *rows, int day) {
    static const int32_t prompt[] = {5, 6, 7};
    static const char how[] = "{\"max_steps\":2,\"batch_size\":2}", most[] = "{\"max_new_tokens\":4}";
    peft_adapters *a = NULL;
    peft_options *o = NULL;
    peft_trainer *t = NULL;
    peft_session *s = NULL;
    int32_t out[8];
    size_t n = 0;
    TRY(peft_adapters_create(m, &a));
    TRY(peft_adapters_add(a, "v", day % 2 == 0 ? "lora" : "pfeiffer", NULL, (uint64_t)day));
    TRY(peft_options_create(ctx, "trainer", &o));
    TRY(peft_options_set_json(o, how, strlen(how)));
    TRY(peft_trainer_create(a, o, &t));
    TRY(peft_trainer_add_job(t, "v", rows, NULL, NULL));
    TRY(peft_trainer_run(t));
    peft_options_free(o);
    TRY(peft_options_create(ctx, "generate", &o));
    TRY(peft_options_set_json(o, most, strlen(most)));
    TRY(peft_session_create(m, a, "v", NULL, &s));
    TRY(peft_session_generate(s, NULL, prompt, 3, o, NULL, NULL, out, 8, &n));
    peft_session_free(s);
    peft_trainer_free(t);
    peft_options_free(o);
    peft_adapters_free(a);
}

int main(int argc, char **argv) {
    char path[4096], how[256];
    peft_context *ctx = NULL;
    peft_model *m = NULL;
    peft_adapters *a = NULL;
    peft_dataset *rows = NULL;
    peft_options *o = NULL;
    peft_trainer *t = NULL;
    if (argc != 3) {
        (void)fprintf(stderr, "usage: long DIR STEPS\n");
        return 2;
    }
    long_sums sums = {0, 0, atoll(argv[2]) / 10};
    peft_allocator host = {long_alloc, long_release, NULL};
    TRY(peft_context_create(&host, &ctx));
    (void)snprintf(path, sizeof path, "%s/model", argv[1]);
    TRY(peft_model_open(ctx, path, NULL, &m));
    (void)snprintf(path, sizeof path, "%s/rows.jsonl", argv[1]);
    TRY(peft_dataset_create(ctx, NULL, NULL, &rows));
    TRY(peft_dataset_load_jsonl(rows, path));
    TRY(peft_adapters_create(m, &a));
    TRY(peft_adapters_add(a, "x", "lora", NULL, 7));
    TRY(peft_options_create(ctx, "trainer", &o));
    (void)snprintf(how, sizeof how, "{\"max_steps\":%s,\"batch_size\":2}", argv[2]);
    TRY(peft_options_set_json(o, how, strlen(how)));
    TRY(peft_trainer_create(a, o, &t));
    TRY(peft_trainer_add_job(t, "x", rows, NULL, NULL));
    TRY(peft_trainer_set_progress(t, long_step, &sums));
    int32_t more = 1;
    for (int step = 0; more; step++) {
        TRY(peft_trainer_step(t, &more));
        if (step % 100 == 0) { long_visit(ctx, m, rows, step / 100); }
    }
    peft_trainer_free(t);
    peft_options_free(o);
    peft_dataset_free(rows);
    peft_adapters_free(a);
    peft_model_free(m);
    peft_context_free(ctx);
    (void)printf("end %zu\n", atomic_load(&held));
    return 0;
}
