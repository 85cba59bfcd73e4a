/* torture.c - whole lives of a trainer under an allocator that fails and over files that are damaged, for `make torture`.
 *
 *   torture model DIR ARCH SEED          a small random model as a Hugging Face folder
 *   torture rows FILE COUNT SEED         rows of input_ids
 *   torture methods                      the names of all methods
 *   torture starve DIR METHOD STRIDE     DIR/model, DIR/rows.jsonl: every STRIDE-th allocation of a life fails, alone and
 *                                        with all after it
 *   torture corrupt DIR METHOD COUNT SEED  files of DIR/model, of an adapter and of a checkpoint with bytes changed or cut
 *                                        off; each case in a process of its own
 *
 * The last line is "N passed, N failed". A life is: open, data, adapter, plan, two steps, checkpoint, save, load, generate. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base.h"

typedef struct torture_host { /* behind the context's allocator */
    atomic_size_t now, calls;
    size_t fail_at; /* this allocation fails, from 1; 0: none */
    bool every;     /* and all after it */
} torture_host;

static void *torture_alloc(void *user, size_t size, size_t align) {
    torture_host *h = user;
    void *p = NULL;
    size_t call = atomic_fetch_add(&h->calls, 1) + 1;
    if (h->fail_at > 0 && (call == h->fail_at || (h->every && call > h->fail_at))) { return NULL; }
    if (posix_memalign(&p, align, size) != 0) { return NULL; }
    atomic_fetch_add(&h->now, size);
    return p;
}

static void torture_release(void *user, void *p, size_t size) {
    atomic_fetch_sub(&((torture_host *)user)->now, size);
    free(p);
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

static int64_t torture_read(int fd, void *data, size_t size) {
    return (int64_t)read(fd, data, size);
}
static int64_t torture_write(int fd, const void *data, size_t size) {
    return (int64_t)write(fd, data, size);
}
static int torture_sync(int fd) {
    return fd < 0;
} /* thousands of saves: the disk is not waited for */
static int torture_rename(const char *from, const char *to) {
    return rename(from, to);
}

static const char *torture_path(const char *dir, const char *name, char out[4096]) {
    (void)snprintf(out, 4096, "%s/%s", dir, name);
    return out;
}

static int torture_say(peft_status st) {
    if (st != PEFT_OK) { (void)fprintf(stderr, "torture: %s: %s\n", peft_status_name(st), peft_last_error()); }
    return st == PEFT_OK ? 0 : 1;
}

static int torture_model(const char *dir, const char *arch, uint64_t seed) {
    static const char llama[] =
        "{\"model_type\":\"llama\",\"hidden_size\":32,\"intermediate_size\":48,\"num_hidden_layers\":2,"
        "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":64,\"max_position_embeddings\":64,"
        "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"bos_token_id\":1,\"eos_token_id\":2,\"tie_word_embeddings\":"
        "true}";
    static const char gpt2[] =
        "{\"model_type\":\"gpt2\",\"n_embd\":32,\"n_layer\":2,\"n_head\":4,\"n_positions\":64,\"vocab_size\":64,"
        "\"layer_norm_epsilon\":1e-5,\"activation_function\":\"gelu_new\",\"bos_token_id\":1,\"eos_token_id\":2}";
    const char *config = strcmp(arch, "gpt2") == 0 ? gpt2 : llama;
    peft_context *ctx = NULL;
    peft_model *m = NULL;
    peft_adapters *a = NULL;
    peft_status st = PEFT_OK;
    TRY(peft_context_create(NULL, &ctx));
    TRY(peft_model_create_random(ctx, config, strlen(config), seed, &m));
    TRY(peft_adapters_create(m, &a));
    TRY(peft_adapters_add(a, "none", "lora", NULL, 0)); /* a fresh one changes nothing */
    TRY(peft_adapters_merge(a, "none", dir, NULL));
out:
    peft_adapters_free(a);
    peft_model_free(m);
    peft_context_free(ctx);
    return torture_say(st);
}

static int torture_rows(const char *path, int64_t count, uint64_t seed) {
    peft__rng rng = {seed, 0};
    FILE *f = fopen(path, "w");
    if (f == NULL) {
        perror(path);
        return 1;
    }
    for (int64_t r = 0; r < count; r++) {
        int64_t n = 4 + (int64_t)peft__rng_below(&rng, 20), at = (int64_t)peft__rng_below(&rng, 60);
        (void)fputs("{\"input_ids\":[", f);
        for (int64_t i = 0; i < n; i++) {
            (void)fprintf(f, "%s%d", i > 0 ? "," : "", 3 + (int)((at + i * (1 + at % 3)) % 61));
        }
        (void)fputs("]}\n", f);
    }
    if (fclose(f) != 0) {
        perror(path);
        return 1;
    }
    return 0;
}

/* ---- a life ----------------------------------------------------------------------------------------------------- */

typedef struct torture_life {
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    peft_dataset *d;
    peft_options *o;
    peft_trainer *t;
    peft_session *s;
} torture_life;

static void torture_end(torture_life *l) {
    peft_session_free(l->s);
    peft_trainer_free(l->t);
    peft_options_free(l->o);
    peft_dataset_free(l->d);
    peft_adapters_free(l->a);
    peft_model_free(l->m);
    peft_context_free(l->ctx);
    memset(l, 0, sizeof *l);
}

static peft_status torture_train(torture_life *l, const char *state, bool resume) {
    peft_status st = PEFT_OK;
    static const char how[] = "{\"max_steps\":2,\"batch_size\":3}";
    char plan[8192];
    TRY(peft_options_create(l->ctx, "trainer", &l->o));
    TRY(peft_options_set_json(l->o, how, strlen(how)));
    TRY(peft_trainer_create(l->a, l->o, &l->t));
    TRY(peft_trainer_add_job(l->t, "x", l->d, l->d, NULL));
    TRY(peft_trainer_plan_json(l->t, plan, sizeof plan, NULL));
    if (resume) { TRY(peft_trainer_checkpoint_load(l->t, state)); }
    TRY(peft_trainer_run(l->t));
    if (!resume) {
        TRY(peft_trainer_checkpoint_save(l->t, state));
        TRY(peft_trainer_checkpoint_load(l->t, state));
    }
out:
    return st;
}

static peft_status torture_speak(torture_life *l, const char *adapter) {
    peft_status st = PEFT_OK;
    static const int32_t prompt[] = {5, 6, 7};
    static const char how[] = "{\"max_new_tokens\":4}";
    int32_t out[8];
    size_t n = 0;
    peft_options_free(l->o);
    l->o = NULL;
    TRY(peft_options_create(l->ctx, "generate", &l->o));
    TRY(peft_options_set_json(l->o, how, strlen(how)));
    TRY(peft_session_create(l->m, l->a, adapter, NULL, &l->s));
    TRY(peft_session_generate(l->s, NULL, prompt, 3, l->o, NULL, NULL, out, 8, &n));
out:
    return st;
}

/* The adapter "x", and before it those that a union or a fusion is made of. */
static peft_status torture_add(torture_life *l, const char *method) {
    static const char *const wanted[][3] = {
        {"compacter", "reduction_factor", "4"}, {"compacter++", "reduction_factor", "4"}, /* whose default suits wider models */
        {"trainable_tokens", "token_indices", "1,3,5"}, {"union", "parts", "b,c"}, {"fusion", "adapters", "b,d"},
    };
    peft_status st = PEFT_OK;
    char schema[64];
    (void)snprintf(schema, sizeof schema, "method:%s", method);
    TRY(peft_options_create(l->ctx, schema, &l->o));
    for (size_t i = 0; i < PEFT__COUNT(wanted); i++) {
        if (strcmp(method, wanted[i][0]) == 0) { TRY(peft_options_set_text(l->o, wanted[i][1], wanted[i][2])); }
    }
    if (strcmp(method, "union") == 0 || strcmp(method, "fusion") == 0) {
        TRY(peft_adapters_add(l->a, "b", "pfeiffer", NULL, 1));
        TRY(peft_adapters_add(l->a, "c", "prompt", NULL, 2));
        TRY(peft_adapters_add(l->a, "d", "pfeiffer", NULL, 3));
    }
    TRY(peft_adapters_add(l->a, "x", method, l->o, 7));
out:
    peft_options_free(l->o);
    l->o = NULL;
    return st;
}

/* dir has model and rows.jsonl; adapter and state are written to (or, where damaged, read from) `work`. */
static peft_status torture_live(torture_life *l, torture_host *h, const char *dir, const char *work, const char *method,
                                bool damaged) {
    peft_status st = PEFT_OK;
    char path[4096], state[4096];
    peft_allocator host = {torture_alloc, torture_release, h};
    TRY(peft_context_create(&host, &l->ctx));
    TRY(peft_context_set_threads(l->ctx, 2));
    TRY(peft_model_open(l->ctx, torture_path(dir, "model", path), NULL, &l->m));
    TRY(peft_dataset_create(l->ctx, NULL, NULL, &l->d));
    TRY(peft_dataset_load_jsonl(l->d, torture_path(dir, "rows.jsonl", path)));
    TRY(peft_adapters_create(l->m, &l->a));
    TRY(torture_add(l, method));
    TRY(torture_train(l, torture_path(work, "state", state), damaged));
    bool whole = strcmp(method, "full") == 0; /* saved as a model, and opened as one */
    torture_path(work, "adapter", path);
    if (!damaged) { TRY(peft_adapters_save(l->a, "x", path, NULL)); }
    if (!whole) { TRY(peft_adapters_load(l->a, "y", path, NULL)); }
    TRY(torture_speak(l, whole ? "x" : "y"));
out:
    return st;
}

/* ---- starving --------------------------------------------------------------------------------------------------- */

/* One life with allocation n failing. *passed: nothing leaked, and the status is that of a lack of memory. */
static peft_status torture_starved(const char *dir, const char *method, size_t n, bool every, size_t *calls,
                                   bool *passed) {
    torture_host h;
    torture_life l = {0};
    atomic_init(&h.now, 0);
    atomic_init(&h.calls, 0);
    h.fail_at = n;
    h.every = every;
    peft_status st = torture_live(&l, &h, dir, dir, method, false);
    char text[1024];
    (void)snprintf(text, sizeof text, "%s", peft_last_error());
    torture_end(&l);
    size_t left = atomic_load(&h.now);
    *calls = atomic_load(&h.calls);
    *passed = left == 0 && (st == PEFT_OK || (st == PEFT_E_NOMEM && n > 0));
    if (!*passed && !(n == 0 && st == PEFT_E_NOT_FOUND)) {
        (void)printf("FAIL starve %s %s, allocation %zu%s: %s, %zu bytes left: %s\n", dir, method, n,
                     every ? " and all after it" : "", peft_status_name(st), left, text);
    }
    return st;
}

static int torture_starve(const char *dir, const char *method, size_t stride) {
    size_t calls = 0, again = 0, passed = 0, failed = 0;
    bool ok = false;
    peft__file_ops ops = {torture_read, torture_write, torture_sync, torture_rename};
    peft__file_set_ops(&ops);
    if (torture_starved(dir, method, 0, false, &calls, &ok) == PEFT_E_NOT_FOUND) { /* no bias in a Llama, say */
        (void)printf("%s has nothing to train there\n0 passed, 0 failed\n", method);
        return 0;
    }
    passed += ok;
    failed += !ok;
    for (size_t n = 1; ok && n <= calls; n += stride) {
        for (int every = 0; every < 2; every++) {
            bool good = false;
            (void)torture_starved(dir, method, n, every != 0, &again, &good);
            passed += good;
            failed += !good;
        }
    }
    peft__file_set_ops(NULL);
    (void)printf("%zu passed, %zu failed\n", passed, failed);
    return failed > 0 ? 1 : 0;
}

/* ---- damage ----------------------------------------------------------------------------------------------------- */

static const char *const torture_files[] = {
    "model/config.json",           "model/model.safetensors",           "rows.jsonl",
    "adapter/adapter_config.json", "adapter/adapter_model.safetensors", "state/state.safetensors",
    "adapter/adapter.safetensors", /* of AdapterHub; of a fusion; of a union and its parts */
    "adapter/adapter_fusion_config.json", "adapter/model_adapter_fusion.safetensors", "adapter/libpeft_union.json",
    "adapter/pfeiffer/adapter_config.json", "adapter/pfeiffer/adapter.safetensors", "adapter/prompt/adapter_config.json",
    "adapter/prompt/adapter_model.safetensors"};

static bool torture_copy(const char *from, const char *to, peft__rng *damage /* NULL: as it is */) {
    peft__mem mem;
    peft__file f;
    peft__mem_init(&mem, NULL);
    if (peft__file_open(&mem, from, true, &f) != PEFT_OK) { return false; }
    uint8_t *data = malloc(f.size + 1);
    size_t size = f.size;
    if (data == NULL) { return false; }
    memcpy(data, f.data, size);
    if (damage != NULL && peft__rng_below(damage, 4) == 0) {
        size = (size_t)peft__rng_below(damage, size);
    } else if (damage != NULL && size > 0) { /* mostly where the structure is: at the start */
        size_t reach = peft__rng_below(damage, 4) == 0 ? size : PEFT__MIN(size, (size_t)2048);
        for (uint64_t i = 0, n = 1 + peft__rng_below(damage, 4); i < n; i++) {
            static const char likely[] = "0123456789-{}[]\",:.e\xFF\x80\x01";
            bool text = peft__rng_below(damage, 2) == 0;
            data[peft__rng_below(damage, reach)] =
                text ? (uint8_t)likely[peft__rng_below(damage, sizeof likely)] : (uint8_t)peft__rng_u32(damage);
        }
    }
    bool ok = peft__save_text(&mem, to, (const char *)data, size) == PEFT_OK;
    free(data);
    peft__file_close(&f);
    return ok;
}

/* In a child: whatever the files say, a status comes back and nothing leaks. */
static int torture_child(const char *bad, const char *method) {
    torture_host h;
    torture_life l = {0};
    atomic_init(&h.now, 0);
    atomic_init(&h.calls, 0);
    h.fail_at = 0;
    h.every = false;
    (void)alarm(60);
    peft_status st = torture_live(&l, &h, bad, bad, method, true);
    bool named = st == PEFT_OK || peft_last_error()[0] != '\0';
    torture_end(&l);
    return atomic_load(&h.now) != 0 ? 3 : st == PEFT_E_INTERNAL ? 4 : named ? 0 : 5;
}

static bool torture_prepare(const char *dir, const char *method) {
    torture_host h;
    torture_life l = {0};
    char path[4096];
    peft__mem mem;
    peft__mem_init(&mem, NULL);
    atomic_init(&h.now, 0);
    atomic_init(&h.calls, 0);
    h.fail_at = 0;
    h.every = false;
    peft_status st = torture_live(&l, &h, dir, dir, method, false);
    torture_end(&l);
    static const char *const folders[] = {"bad/model", "bad/adapter", "bad/state", "bad/adapter/pfeiffer", "bad/adapter/prompt"};
    for (size_t i = 0; st == PEFT_OK && i < PEFT__COUNT(folders); i++) {
        st = peft__dir_make(torture_path(dir, folders[i], path));
    }
    return torture_say(st) == 0;
}

static int torture_corrupt(const char *dir, const char *method, int64_t count, uint64_t seed) {
    int64_t passed = 0, failed = 0;
    char from[4096], to[4096], bad[1024];
    peft__file_ops ops = {torture_read, torture_write, torture_sync, torture_rename};
    peft__file_set_ops(&ops);
    if (snprintf(bad, sizeof bad, "%s/bad", dir) >= (int)sizeof bad) { return 2; }
    if (!torture_prepare(dir, method)) { failed++; }
    for (int64_t i = 0; failed == 0 && i < count; i++) {
        peft__rng rng = {peft__mix64(seed) ^ (uint64_t)i, 0};
        size_t victim = (size_t)i % PEFT__COUNT(torture_files);
        for (size_t k = 0; k < PEFT__COUNT(torture_files); k++) {
            torture_path(dir, torture_files[k], from);
            if (access(from, F_OK) != 0) { continue; } /* full has no adapter */
            if (!torture_copy(from, torture_path(bad, torture_files[k], to), k == victim ? &rng : NULL)) { failed++; }
        }
        (void)fflush(stdout);
        pid_t child = fork();
        if (child == 0) { _exit(torture_child(bad, method)); }
        int status = 0;
        while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {}
        if (child > 0 && status == 0) {
            passed++;
            continue;
        }
        failed++;
        (void)printf(
            "FAIL corrupt %s %s, seed %llu, case %lld, %s: %s %d (3: a leak, 4: an internal error, 5: no text)\n", dir,
            method, (unsigned long long)seed, (long long)i, torture_files[victim],
            WIFSIGNALED(status) ? "signal" : "exit", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    (void)printf("%lld passed, %lld failed\n", (long long)passed, (long long)failed);
    return failed > 0 ? 1 : 0;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "model") == 0 && argc == 5) {
        return torture_model(argv[2], argv[3], strtoull(argv[4], NULL, 10));
    }
    if (strcmp(what, "rows") == 0 && argc == 5) {
        return torture_rows(argv[2], atoll(argv[3]), strtoull(argv[4], NULL, 10));
    }
    for (size_t i = 0; strcmp(what, "methods") == 0 && peft_method_name(i) != NULL; i++) {
        (void)puts(peft_method_name(i));
    }
    if (strcmp(what, "methods") == 0) { return 0; }
    if (strcmp(what, "starve") == 0 && argc == 5) {
        return torture_starve(argv[2], argv[3], (size_t)PEFT__MAX(atoll(argv[4]), 1));
    }
    if (strcmp(what, "corrupt") == 0 && argc == 6) {
        return torture_corrupt(argv[2], argv[3], atoll(argv[4]), strtoull(argv[5], NULL, 10));
    }
    (void)fprintf(stderr,
                  "usage: torture model DIR ARCH SEED | rows FILE COUNT SEED | methods | starve DIR METHOD STRIDE | "
                  "corrupt DIR METHOD COUNT SEED\n");
    return 2;
}
