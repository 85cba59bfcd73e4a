/* kit.h - what the embedding tests share: the library as a table of functions (linked or loaded), a piece of real work
 * whose results are one number, and counts of what a process has open.
 *
 * Left out: what the numbers should be. Tests compare one run with another: loaded twice, on other threads and so on. */
#ifndef EMBED_KIT_H
#define EMBED_KIT_H

#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peft.h"

#define EXPECT(cond)                                                                   \
    do {                                                                               \
        if (!(cond)) {                                                                 \
            (void)printf("FAIL %s:%d: not so: %s\n", __FILE__, __LINE__, #cond);       \
            (void)fflush(stdout);                                                      \
            exit(1);                                                                   \
        }                                                                              \
    } while (0)
#define OK(call)                                                                                              \
    do {                                                                                                      \
        peft_status kit_status = (call);                                                                      \
        if (kit_status != PEFT_OK) {                                                                          \
            (void)printf("FAIL %s:%d: %s gave %d\n", __FILE__, __LINE__, #call, (int)kit_status);             \
            (void)fflush(stdout);                                                                             \
            exit(1);                                                                                          \
        }                                                                                                     \
    } while (0)

#define KIT_FUNCTIONS(X)                                                                                              \
    X(peft_last_error) X(peft_version) X(peft_version_string) X(peft_context_create) X(peft_context_free)              \
    X(peft_context_set_threads) X(peft_context_set_parallel_for) X(peft_context_memory) X(peft_options_create)         \
    X(peft_options_free) X(peft_options_set_json) X(peft_model_create_random) X(peft_model_free)                       \
    X(peft_adapters_create) X(peft_adapters_add) X(peft_adapters_free) X(peft_adapters_tensor_count)                   \
    X(peft_adapters_tensor_info) X(peft_adapters_tensor_read) X(peft_batch_create) X(peft_batch_set_i32)               \
    X(peft_batch_free) X(peft_trainer_create) X(peft_trainer_add_job) X(peft_trainer_accumulate) X(peft_trainer_apply) \
    X(peft_trainer_free) X(peft_session_create) X(peft_session_generate) X(peft_session_free)

#define KIT_FIELD(name) __typeof__(name) *name;
typedef struct kit_api { /* a library, wherever it came from */
    KIT_FUNCTIONS(KIT_FIELD)
} kit_api;

#define KIT_LOOK(name)                                         \
    address = dlsym(library, #name);                           \
    EXPECT(address != NULL);                                   \
    memcpy(&(p)->name, &address, sizeof address);

/* Loads the library itself, or a plug-in that was linked with one (plugin.c). */
static inline void *kit_load(const char *path, int flags, kit_api *p) {
    void *library = dlopen(path, RTLD_NOW | flags), *address = NULL;
    if (library == NULL) { (void)printf("FAIL %s\n", dlerror()); }
    EXPECT(library != NULL);
    if ((address = dlsym(library, "plugin_library")) != NULL) {
        const kit_api *(*of_plugin)(void);
        memcpy(&of_plugin, &address, sizeof address);
        *p = *of_plugin();
    } else {
        KIT_FUNCTIONS(KIT_LOOK)
    }
    return library;
}

#define KIT_LINKED(name) .name = (name),
#ifdef KIT_LINK
static const kit_api kit_linked = {KIT_FUNCTIONS(KIT_LINKED)};
#endif

/* ---- work ---- */

/* Large enough that its loops are divided among threads. */
static const char kit_config[] =
    "{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":48,\"max_position_embeddings\":64,"
    "\"rms_norm_eps\":1e-5,\"bos_token_id\":null,\"eos_token_id\":47,\"tie_word_embeddings\":false}";
enum { KIT_ROWS = 4, KIT_ROW = 24, KIT_IDS = KIT_ROWS * KIT_ROW };

static inline uint64_t kit_hash(uint64_t h, const void *data, size_t size) { /* FNV-1a */
    for (size_t i = 0; i < size; i++) { h = (h ^ ((const unsigned char *)data)[i]) * 1099511628211ULL; }
    return h;
}

static inline peft_batch *kit_batch(const kit_api *p, peft_context *ctx) {
    int32_t ids[KIT_IDS];
    int64_t offsets[KIT_ROWS + 1];
    peft_batch *b = NULL;
    for (int i = 0; i < KIT_IDS; i++) { ids[i] = (i * 7 + i / KIT_ROW) % 46; }
    for (int r = 0; r <= KIT_ROWS; r++) { offsets[r] = r * KIT_ROW; }
    OK(p->peft_batch_create(ctx, &b));
    OK(p->peft_batch_set_i32(b, "input_ids", ids, offsets, KIT_ROWS));
    return b;
}

static inline peft_options *kit_options(const kit_api *p, peft_context *ctx, const char *schema, const char *json) {
    peft_options *o = NULL;
    OK(p->peft_options_create(ctx, schema, &o));
    OK(p->peft_options_set_json(o, json, strlen(json)));
    return o;
}

/* All trainable numbers of an adapter. */
static inline uint64_t kit_adapter(const kit_api *p, peft_adapters *a, const char *name, uint64_t h) {
    float values[4096];
    size_t n = p->peft_adapters_tensor_count(a, name);
    EXPECT(n > 0);
    for (size_t i = 0; i < n; i++) {
        const char *tensor = NULL;
        size_t needed = 0;
        OK(p->peft_adapters_tensor_info(a, name, i, &tensor, NULL, NULL));
        OK(p->peft_adapters_tensor_read(a, name, tensor, values, 4096, &needed));
        h = kit_hash(h, values, needed * sizeof *values);
    }
    return h;
}

/* Trains an adapter of a set for some steps; losses and what it has learnt go into the result. `meanwhile` (may be NULL) is
 * called while the trainer and its threads are there. */
static inline uint64_t kit_train(const kit_api *p, peft_context *ctx, peft_adapters *a, const char *name, int steps,
                                 void (*meanwhile)(void)) {
    uint64_t h = 14695981039346656037ULL;
    peft_trainer *t = NULL;
    peft_batch *b = kit_batch(p, ctx);
    peft_options *o = kit_options(p, ctx, "trainer", "{\"batch_size\":4,\"max_length\":24}");
    OK(p->peft_trainer_create(a, o, &t));
    OK(p->peft_trainer_add_job(t, name, NULL, NULL, NULL));
    for (int i = 0; i < steps; i++) {
        double loss = 0;
        OK(p->peft_trainer_accumulate(t, b, &loss));
        OK(p->peft_trainer_apply(t));
        EXPECT(loss > 0.1 && loss < 20);
        h = kit_hash(h, &loss, sizeof loss);
    }
    if (meanwhile != NULL) { meanwhile(); }
    p->peft_trainer_free(t);
    p->peft_options_free(o);
    p->peft_batch_free(b);
    return kit_adapter(p, a, name, h);
}

static inline uint64_t kit_generate(const kit_api *p, peft_context *ctx, peft_model *m, peft_adapters *a, const char *name) {
    static const int32_t prompt[3] = {1, 2, 3};
    int32_t out[12];
    size_t n = 0;
    peft_session *s = NULL;
    peft_options *o = kit_options(p, ctx, "generate", "{\"max_new_tokens\":12}");
    OK(p->peft_session_create(m, a, name, NULL, &s));
    OK(p->peft_session_generate(s, NULL, prompt, 3, o, NULL, NULL, out, 12, &n));
    EXPECT(n >= 1 && n <= 12);
    p->peft_session_free(s);
    p->peft_options_free(o);
    return kit_hash(14695981039346656037ULL, out, n * sizeof *out);
}

/* All of it with a context that the caller made and frees: a model, an adapter, two steps, some tokens. */
static inline uint64_t kit_work(const kit_api *p, peft_context *ctx, void (*meanwhile)(void)) {
    peft_model *m = NULL;
    peft_adapters *a = NULL;
    OK(p->peft_model_create_random(ctx, kit_config, strlen(kit_config), 5, &m));
    OK(p->peft_adapters_create(m, &a));
    OK(p->peft_adapters_add(a, "a", "lora", NULL, 1));
    uint64_t h = kit_train(p, ctx, a, "a", 2, meanwhile) ^ kit_generate(p, ctx, m, a, "a");
    p->peft_adapters_free(a);
    p->peft_model_free(m);
    return h;
}

/* The same with a context of its own; also checks that nothing is outstanding but the context. */
static inline uint64_t kit_run(const kit_api *p, const peft_allocator *alloc, int32_t threads, void (*meanwhile)(void)) {
    peft_context *ctx = NULL;
    size_t before = 0, after = 0;
    OK(p->peft_context_create(alloc, &ctx));
    OK(p->peft_context_set_threads(ctx, threads));
    p->peft_context_memory(ctx, &before, NULL);
    uint64_t h = kit_work(p, ctx, meanwhile);
    p->peft_context_memory(ctx, &after, NULL);
    EXPECT(before == after);
    p->peft_context_free(ctx);
    return h;
}

/* ---- the process ---- */

static inline int kit_entries(const char *folder) {
    int n = 0;
    DIR *d = opendir(folder);
    EXPECT(d != NULL);
    while (readdir(d) != NULL) { n++; }
    (void)closedir(d);
    return n - 2;
}
#define kit_files() kit_entries("/proc/self/fd")

/* Is the thread still to do anything? A joined one may stay in the list until the kernel is done with it, but was marked
 * before it was joined: bit 0x4 (PF_EXITING) of the 9th field of /proc/[pid]/stat, see proc(5). */
static inline int kit_alive(const char *tid) {
    char path[64], line[1024];
    unsigned flags = 0;
    if (snprintf(path, sizeof path, "/proc/self/task/%.20s/stat", tid) < 0) { return 0; }
    FILE *f = fopen(path, "r");
    if (f == NULL) { return 0; }
    size_t n = fread(line, 1, sizeof line - 1, f);
    (void)fclose(f);
    line[n] = '\0';
    const char *name_end = strrchr(line, ')');
    if (name_end == NULL) { return 0; } /* gone in between */
    EXPECT(sscanf(name_end + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) == 1);
    return (flags & 4U) == 0;
}

static inline int kit_threads(void) {
    int n = 0;
    const struct dirent *e;
    DIR *d = opendir("/proc/self/task");
    EXPECT(d != NULL);
    while ((e = readdir(d)) != NULL) { n += e->d_name[0] != '.' && kit_alive(e->d_name); }
    (void)closedir(d);
    return n;
}

static inline int kit_mappings(const char *part) { /* lines of /proc/self/maps with `part` in them */
    char line[1024];
    int n = 0;
    FILE *f = fopen("/proc/self/maps", "r");
    EXPECT(f != NULL);
    while (fgets(line, sizeof line, f) != NULL) { n += strstr(line, part) != NULL; }
    (void)fclose(f);
    return n;
}

#endif
