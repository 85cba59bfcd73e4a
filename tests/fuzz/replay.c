/* replay.c - all fuzz targets over the files of corpus/, without a fuzzer: the inputs that found something once, and those that reach
 * the most.
 *
 *     fuzz [CORPUS [TARGET...]]      CORPUS: tests/fuzz/corpus
 *
 * A file that breaks what must hold ends the program, which says which one it was. The last line is "N passed, N failed". */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

#define REPLAY_TARGETS(X) \
    X(adapter) X(api) X(checkpoint) X(config) X(expression) X(gguf) X(jobs) X(json) X(jsonl) X(options) X(safetensors) X(tokenizer)

/* Each target is compiled with LLVMFuzzerTestOneInput by another name. */
#define REPLAY_DECLARE(name) int target_##name(const uint8_t *data, size_t size);
REPLAY_TARGETS(REPLAY_DECLARE)

#define REPLAY_ENTRY(name) {#name, target_##name},
static const struct replay_target {
    const char *name;
    int (*run)(const uint8_t *data, size_t size);
} replay_targets[] = {REPLAY_TARGETS(REPLAY_ENTRY)};

enum { REPLAY_MOST = 4096 };
static char replay_current[1024]; /* file that is run */

static void replay_on_crash(int sig) {
    printf("FAIL   %s: ended by signal %d\n0 passed, 1 failed\n", replay_current, sig); /* the process is lost anyway */
    (void)fflush(stdout);
    (void)signal(sig, SIG_DFL);
    (void)raise(sig);
}

static void replay_file(const struct replay_target *t, const char *path) {
    FILE *f = fopen(path, "rb");
    uint8_t *data = NULL;
    size_t n = 0, cap = 0;
    for (size_t got = 1; f != NULL && got > 0; n += got) {
        if (cap - n < 4096) { data = realloc(data, cap = 2 * cap + 8192); }
        fuzz_check(data != NULL, "no memory");
        got = fread(data + n, 1, cap - n, f);
    }
    fuzz_check(f != NULL, "the file can be read");
    (void)fclose(f);
    (void)t->run(data, n);
    free(data);
}

static int replay_by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Files of the target's folder in order; how many there were. */
static int replay_folder(const struct replay_target *t, const char *corpus) {
    static char *names[REPLAY_MOST];
    char dir[700];
    size_t n = 0;
    (void)snprintf(dir, sizeof dir, "%.500s/%s", corpus, t->name);
    DIR *d = opendir(dir);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.' || n == REPLAY_MOST) { continue; }
        names[n] = malloc(strlen(e->d_name) + 1);
        fuzz_check(names[n] != NULL, "no memory");
        strcpy(names[n++], e->d_name);
    }
    if (d != NULL) { (void)closedir(d); }
    if (n > 0) { qsort(names, n, sizeof *names, replay_by_name); }
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(replay_current, sizeof replay_current, "%s/%.300s", dir, names[i]);
        replay_file(t, replay_current);
        free(names[i]);
    }
    printf("%s   %s: %d inputs\n", n > 0 ? "ok  " : "FAIL", t->name, (int)n);
    return (int)n;
}

int main(int argc, char **argv) {
    const char *corpus = argc > 1 ? argv[1] : "tests/fuzz/corpus";
    int passed = 0, failed = 0;
    static const int signals[] = {SIGABRT, SIGFPE, SIGILL, SIGSEGV};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) { (void)signal(signals[i], replay_on_crash); }
    for (size_t i = 0; i < sizeof replay_targets / sizeof *replay_targets; i++) {
        bool wanted = argc < 3;
        for (int k = 2; k < argc; k++) { wanted = wanted || strcmp(argv[k], replay_targets[i].name) == 0; }
        if (!wanted) { continue; }
        int n = replay_folder(&replay_targets[i], corpus);
        passed += n;
        failed += n == 0;
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0 ? 1 : 0;
}
