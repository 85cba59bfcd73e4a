/* fuzz.c - see fuzz.h. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "fuzz.h"
#include "base/system.h"
#include "unit/text_build.h"

const char fuzz_llama[] = "{\"model_type\":\"llama\",\"hidden_size\":8,\"intermediate_size\":12,\"num_hidden_layers\":2,"
                          "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"vocab_size\":14,\"max_position_embeddings\":48,"
                          "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"eos_token_id\":12,\"tie_word_embeddings\":false}";
const char fuzz_gpt2[] = "{\"model_type\":\"gpt2\",\"n_embd\":8,\"n_layer\":2,\"n_head\":2,\"n_positions\":48,\"vocab_size\":14,"
                         "\"activation_function\":\"gelu_new\",\"bos_token_id\":12,\"eos_token_id\":12}";

/* ---- the input ------------------------------------------------------------------------------------------------- */

uint8_t fuzz_byte(fuzz_bytes *in) {
    if (in->size == 0) { return 0; }
    in->size--;
    return *in->data++;
}

fuzz_bytes fuzz_section(fuzz_bytes *in) {
    static const char mark[] = "\n%%\n";
    size_t n = sizeof mark - 1;
    fuzz_bytes whole = *in;
    for (size_t i = 0; i + n <= whole.size; i++) {
        if (memcmp(whole.data + i, mark, n) != 0) { continue; }
        *in = (fuzz_bytes){whole.data + i + n, whole.size - i - n};
        return (fuzz_bytes){whole.data, i};
    }
    *in = (fuzz_bytes){whole.data + whole.size, 0};
    return whole;
}

char *fuzz_text(fuzz_bytes b) {
    const uint8_t *nul = b.size > 0 ? memchr(b.data, 0, b.size) : NULL;
    size_t n = nul != NULL ? (size_t)(nul - b.data) : b.size;
    char *text = malloc(n + 1);
    fuzz_check(text != NULL, "no memory");
    if (n > 0) { memcpy(text, b.data, n); }
    text[n] = '\0';
    return text;
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

static char fuzz_root[FUZZ_PATH / 2];

/* All below a folder. */
static void fuzz_empty(const char *path) {
    DIR *dir = opendir(path);
    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
        char child[2 * FUZZ_PATH];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) { continue; }
        if (snprintf(child, sizeof child, "%s/%s", path, e->d_name) >= (int)sizeof child) { continue; }
        if (peft__sys_remove(child) == 0) { continue; }
        fuzz_empty(child);
        (void)rmdir(child);
    }
    if (dir != NULL) { (void)closedir(dir); }
}

static void fuzz_end(void) {
    fuzz_empty(fuzz_root);
    (void)rmdir(fuzz_root);
}

static void fuzz_begin(void) {
    const char *base = getenv("TMPDIR");
    int made = -1;
    for (int i = 0; made != 0 && i < 1000; i++) { /* a number that a killed run left is passed over */
        (void)snprintf(fuzz_root, sizeof fuzz_root, "%.150s/libpeft-fuzz-%lld-%d", base != NULL && base[0] != '\0' ? base : "/tmp",
                       (long long)peft__sys_pid(), i);
        made = peft__sys_make_folder(fuzz_root);
        if (made != 0 && errno != EEXIST) { break; }
    }
    fuzz_check(made == 0, fuzz_root);
    (void)atexit(fuzz_end);
}

const char *fuzz_path(const char *name, char out[FUZZ_PATH]) {
    if (fuzz_root[0] == '\0') { fuzz_begin(); }
    (void)snprintf(out, FUZZ_PATH, "%s%s%.200s", fuzz_root, name[0] != '\0' ? "/" : "", name);
    return out;
}

void fuzz_clear(void) {
    if (fuzz_root[0] != '\0') { fuzz_empty(fuzz_root); }
}

void fuzz_folder(const char *name) {
    char path[FUZZ_PATH];
    fuzz_check(peft__sys_make_folder(fuzz_path(name, path)) == 0 || errno == EEXIST, path);
}

void fuzz_write(const char *name, fuzz_bytes content) {
    char path[FUZZ_PATH];
    FILE *f = fopen(fuzz_path(name, path), "wb");
    fuzz_check(f != NULL, path);
    if (content.size > 0) { fuzz_check(fwrite(content.data, 1, content.size, f) == content.size, path); }
    fuzz_check(fclose(f) == 0, path);
}

void fuzz_write_text(const char *name, const char *text) {
    fuzz_write(name, (fuzz_bytes){(const uint8_t *)text, strlen(text)});
}

/* ---- the library ------------------------------------------------------------------------------------------------- */

/* With --wrap=peft__sys_map (`make fuzz`) files are read into memory of their own size, after which a sanitizer sees a step. */
void *__wrap_peft__sys_map(int fd, size_t size);
void *__wrap_peft__sys_map(int fd, size_t size) {
    (void)fd, (void)size;
    errno = ENODEV;
    return NULL;
}

typedef struct fuzz_host { /* behind a context's allocator; one context of each thread at a time */
    size_t now, limit;     /* bytes */
} fuzz_host;

static void *fuzz_alloc(void *user, size_t size, size_t align) {
    fuzz_host *h = user;
    if (size > h->limit - h->now) { return NULL; }
    void *p = peft__sys_alloc(size, align, false);
    fuzz_check(p != NULL, "no memory");
    h->now += size;
    memset(p, 0xff, PEFT__MIN(size, (size_t)1 << 16));
    return p;
}

static void fuzz_release(void *user, void *p, size_t size) {
    fuzz_host *h = user;
    fuzz_check(size <= h->now, "more was released than there was");
    h->now -= size;
    peft__sys_free(p);
}

static int fuzz_sync(int fd) {
    return fd < 0;
}

peft_context *fuzz_context(size_t limit) {
    static const peft__file_ops fast = {peft__sys_read, peft__sys_write, fuzz_sync, peft__sys_rename};
    fuzz_host *h = malloc(sizeof *h);
    peft_context *ctx = NULL;
    fuzz_check(h != NULL, "no memory");
    *h = (fuzz_host){0, limit};
    (void)peft__file_set_ops(&fast);
    fuzz_good(peft_context_create(&(peft_allocator){fuzz_alloc, fuzz_release, h}, &ctx));
    fuzz_good(peft_context_set_threads(ctx, 1));
    fuzz_good(peft_context_set_isa(ctx, "generic"));
    return ctx;
}

void fuzz_context_end(peft_context *ctx) {
    fuzz_host *h = ctx->mem.host.user;
    peft_context_free(ctx);
    fuzz_check(h->now == 0, "memory was not freed");
    free(h);
}

void fuzz_check(bool holds, const char *what) {
    if (holds) { return; }
    (void)fprintf(stderr, "fuzz: does not hold: %s\n", what);
    abort();
}

peft_status fuzz_status(peft_status st) {
    fuzz_check(st <= 0 && strcmp(peft_status_name(st), "PEFT_E_?") != 0, "a status that there is not");
    if (st == PEFT_E_INTERNAL) { fuzz_check(false, peft_last_error()); }
    fuzz_check(st == PEFT_OK || st == PEFT_E_BUFFER || peft_last_error()[0] != '\0', "an error without a text");
    fuzz_check(st == PEFT_OK || peft__utf8_valid(peft_last_error(), strlen(peft_last_error())), "a text that is no UTF-8");
    return st;
}

void fuzz_good(peft_status st) {
    if (st != PEFT_OK) { fuzz_check(false, peft_last_error()); }
}

peft_model *fuzz_model(peft_context *ctx, const char *config) {
    peft_model *m = NULL;
    fuzz_good(peft_model_create_random(ctx, config, strlen(config), 3, &m));
    return m;
}

peft_options *fuzz_options(peft_context *ctx, const char *schema, const char *json) {
    peft_options *o = NULL;
    char text[1024];
    (void)snprintf(text, sizeof text, "%s", json);
    for (char *c = text; *c != '\0'; c++) { *c = *c == '\'' ? '"' : *c; }
    if (fuzz_status(peft_options_create(ctx, schema, &o)) != PEFT_OK) { return NULL; }
    if (fuzz_status(peft_options_set_json(o, text, strlen(text))) != PEFT_OK) {
        peft_options_free(o);
        return NULL;
    }
    return o;
}

peft_tokenizer *fuzz_tokenizer(peft_context *ctx) {
    char path[FUZZ_PATH];
    peft_tokenizer *t = NULL;
    fuzz_folder("own");
    fuzz_write_text("own/tokenizer.json", TEXT_BYTES);
    fuzz_write_text("own/tokenizer_config.json", "{\"eos_token\":\"<|end|>\",\"bos_token\":null}");
    fuzz_good(peft_tokenizer_open(ctx, fuzz_path("own", path), &t));
    return t;
}
