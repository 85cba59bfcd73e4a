/* check_kit.h - what tests of peft_check_json share: its report, words in it, a model and its files, damage to files. */
#ifndef CHECK_KIT_H
#define CHECK_KIT_H

#include "api_kit.h"

enum { CHECK_ROOM = 1 << 18 };
static char check_report[CHECK_ROOM];

static inline peft_status check_run_with(peft_context *ctx, const char *path, const peft_model *base, const char *options) {
    peft_options *o = NULL;
    peft_status st = options != NULL ? api_options(ctx, "check", options, &o) : PEFT_OK;
    check_report[0] = '\0';
    if (st == PEFT_OK) { st = peft_check_json(ctx, path, base, o, check_report, sizeof check_report, NULL); }
    peft_options_free(o);
    return st;
}

static inline peft_status check_run(peft_context *ctx, const char *path, const peft_model *base) { return check_run_with(ctx, path, base,
                                                                                                                         NULL); }

static inline bool check_is_good(const char *kind) {
    char want[64];
    (void)snprintf(want, sizeof want, "{\"kind\":\"%s\",\"ok\":true,\"error_count\":0", kind);
    if (strncmp(check_report, want, strlen(want)) == 0) { return true; }
    (void)fprintf(stderr, "not a good %s: %.800s\n", kind, check_report);
    return false;
}

/* One item of `list` ("errors", "warnings") has all the words. */
static inline bool check_lists(const char *list, const char *const *words, size_t n) {
    char key[32];
    (void)snprintf(key, sizeof key, "\"%s\":[", list);
    const char *at = strstr(check_report, key), *stop = at != NULL ? strstr(at, "],\"") : NULL;
    for (; at != NULL && stop != NULL && (at = strchr(at, '{')) != NULL && at < stop;) {
        const char *end = strstr(at, "\"}");
        size_t found = 0;
        for (size_t i = 0; end != NULL && i < n; i++) {
            const char *word = strstr(at, words[i]);
            found += word != NULL && word < end + 2;
        }
        if (found == n) { return true; }
        at = end != NULL ? end : stop;
    }
    (void)fprintf(stderr, "no item of %s with %s, %s, %s: %.1200s\n", list, words[0], n > 1 ? words[1] : "", n > 2 ? words[2] : "",
                  check_report);
    return false;
}

static inline bool check_has(peft_status code, const char *where, const char *says) {
    char first[64];
    (void)snprintf(first, sizeof first, "\"code\":\"%s\"", peft_status_name(code));
    const char *words[] = {first, where, says};
    return strstr(check_report, "\"ok\":false") != NULL && check_lists("errors", words, 3);
}

static inline bool check_warns(const char *where, const char *says) {
    const char *words[] = {where, says};
    return check_lists("warnings", words, 2);
}

/* ---- damage ---------------------------------------------------------------------------------------------------------------- */

/* The file with the first `from` replaced, in a safetensors file in its header; cut: bytes that are kept at most. */
static inline peft_status check_rewrite(const char *from_path, const char *path, const char *from, const char *to, size_t cut) {
    peft_status st = PEFT_OK;
    peft__mem *mem = runner_mem();
    peft__file file = {0};
    peft__str s;
    peft__str_init(&s, mem);
    TRY(peft__file_open(mem, from_path, true, &file));
    const char *text = (const char *)file.data;
    size_t at = 0, n = from != NULL ? strlen(from) : 0;
    while (from != NULL && at + n <= file.size && memcmp(text + at, from, n) != 0) { at++; }
    if (from != NULL && at + n > file.size) { FAIL(PEFT_E_INTERNAL, "%s: there is no \"%s\"", from_path, from); }
    peft__str_put(&s, text, at);
    if (from != NULL) { peft__str_puts(&s, to); }
    peft__str_put(&s, text + at + n, file.size - at - n);
    TRY(peft__str_status(&s));
    if (from != NULL && strstr(path, ".safetensors") != NULL) {
        peft__set_u64((uint8_t *)s.data, peft__get_u64((const uint8_t *)s.data) + strlen(to) - n);
    }
    TRY(peft__save_text(mem, path, s.data, PEFT__MIN(cut, s.len)));
out:
    peft__file_close(&file);
    peft__str_free(&s);
    return st;
}

/* Element `at` of an F32 tensor of a safetensors or GGUF file, and the `n` after it, become x. */
static inline peft_status check_poke(const char *from_path, const char *path, const char *tensor, size_t at, size_t n, float x) {
    peft_status st = PEFT_OK;
    peft__mem *mem = runner_mem();
    peft__safetensors s = {0};
    peft__gguf g = {0};
    bool gguf = peft__gguf_probe(from_path);
    const peft__file *file = gguf ? &g.file : &s.file;
    uint8_t *copy = NULL;
    TRY(gguf ? peft__gguf_open(mem, from_path, true, &g) : peft__safetensors_open(mem, from_path, true, &s));
    const peft__io_tensor *t = gguf ? peft__gguf_find(&g, tensor) : peft__safetensors_find(&s, tensor);
    if (t == NULL || t->dtype != PEFT_DTYPE_F32) { FAIL(PEFT_E_INTERNAL, "no F32 tensor %s", tensor); }
    copy = peft__alloc(mem, file->size);
    if (copy == NULL) { st = PEFT_E_NOMEM; goto out; }
    memcpy(copy, file->data, file->size);
    uint8_t *to = copy + (t->data - file->data);
    if (n == 0) { n = t->size / sizeof x; }
    for (size_t i = 0; i < n; i++) { memcpy(to + (at + i) * sizeof x, &x, sizeof x); }
    TRY(peft__save_text(mem, path, (const char *)copy, file->size));
out:
    peft__free(mem, copy, copy != NULL ? file->size : 0);
    peft__safetensors_close(&s);
    peft__gguf_close(&g);
    return st;
}

typedef struct check_kit {
    api_host host;
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    const char *dir, *model, *gguf, *config, *weights, *words; /* a model folder and file, and two of the folder's */
} check_kit;

static inline peft_status check_begin(check_kit *k) {
    peft_status st = PEFT_OK;
    memset(k, 0, sizeof *k);
    k->dir = runner_tmpdir();
    k->model = runner_path(k->dir, "model");
    k->gguf = runner_path(k->dir, "m.gguf");
    k->config = runner_path(k->model, "config.json");
    k->weights = runner_path(k->model, "model.safetensors");
    k->words = runner_path(k->model, "tokenizer.json");
    TRY(api_context(&k->host, &k->ctx));
    TRY(api_model(k->ctx, API_LLAMA, &k->m));
    TRY(peft_adapters_create(k->m, &k->a));
    TRY(peft_adapters_merge(k->a, NULL, k->model, NULL));
    TRY(peft_adapters_merge(k->a, NULL, k->gguf, NULL));
    TRY(text_write(runner_mem(), k->model, "tokenizer.json", TEXT_BYTES));
out:
    return st;
}

static inline void check_end(check_kit *k) {
    peft_adapters_free(k->a);
    peft_model_free(k->m);
    peft_context_free(k->ctx);
}

#endif
