/* hostile.c - see hostile.h; runs the formats one after the other. The last line is "N passed, N failed", a case being a file. */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "hostile.h"

enum { HOSTILE_ROOM = 64 << 10, HOSTILE_TIMES = 16 }; /* bytes that an allocation may have beyond the good file's; and by the file's size */

static char hostile_root[300];
static int hostile_folders;
static int hostile_passed, hostile_failed;
static int hostile_refusals, hostile_takings, hostile_alike; /* of the present format; the last: that mean what the good file does */
static char hostile_current[700];             /* format and case that runs */

/* ---- folders --------------------------------------------------------------------------------------------------- */

static void hostile_empty(const char *path) {
    DIR *dir = opendir(path);
    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
        char child[1000];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) { continue; }
        if (snprintf(child, sizeof child, "%s/%s", path, e->d_name) >= (int)sizeof child) { continue; }
        if (peft__sys_remove(child) == 0) { continue; }
        hostile_empty(child);
        (void)rmdir(child);
    }
    if (dir != NULL) { (void)closedir(dir); }
}

static bool hostile_make_root(void) {
    const char *base = getenv("TMPDIR");
    for (int i = 0; i < 1000; i++) { /* a number that a killed run left is passed over */
        (void)snprintf(hostile_root, sizeof hostile_root, "%.200s/libpeft-hostile-%lld-%d", base != NULL && base[0] != '\0' ? base : "/tmp",
                       (long long)peft__sys_pid(), i);
        if (peft__sys_make_folder(hostile_root) == 0) { return true; }
        if (errno != EEXIST) { break; }
    }
    perror(hostile_root);
    return false;
}

bool hostile_write(const char *dir, const char *name, const void *data, size_t len) {
    char path[700];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    (void)peft__sys_remove(path); /* some file systems wait for the disk where a file is emptied and written again */
    FILE *f = fopen(path, "wb");
    bool good = f != NULL && fwrite(data, 1, len, f) == len;
    return f != NULL && fclose(f) == 0 && good;
}

void hostile_remove(hostile *h, const char *name) {
    char path[700];
    (void)snprintf(path, sizeof path, "%s/%s", h->dir, name);
    (void)peft__sys_remove(path);
}

/* ---- contexts -------------------------------------------------------------------------------------------------- */

static void *hostile_alloc(void *user, size_t size, size_t align) {
    hostile_host *h = user;
    h->largest = PEFT__MAX(h->largest, size);
    void *p = size < (size_t)1 << 31 ? peft__sys_alloc(size, align, false) : NULL;
    if (p == NULL) { return NULL; }
    h->now += size;
    h->peak = PEFT__MAX(h->peak, h->now);
    memset(p, 0xff, size); /* what is read before it is written shows */
    return p;
}

static void hostile_release(void *user, void *p, size_t size) {
    ((hostile_host *)user)->now -= size;
    peft__sys_free(p);
}

bool hostile_begin(hostile *h, const char *format, hostile_open open) {
    memset(h, 0, sizeof *h);
    h->format = format;
    h->open = open;
    (void)snprintf(h->dir, sizeof h->dir, "%s/%d", hostile_root, hostile_folders++);
    (void)snprintf(hostile_current, sizeof hostile_current, "%s, set-up", format);
    peft_allocator a = {hostile_alloc, hostile_release, &h->host};
    bool good = peft__sys_make_folder(h->dir) == 0 && peft_context_create(&a, &h->ctx) == PEFT_OK &&
                peft_context_set_threads(h->ctx, 1) == PEFT_OK;
    hostile_holds(h, "a context and a folder", good);
    return good;
}

void hostile_end(hostile *h) {
    free(h->good);
    peft_tokenizer_free(h->words);
    peft_model_free(h->base);
    peft_context_free(h->ctx);
    hostile_holds(h, "nothing is left at the end", h->host.now == 0);
    hostile_empty(h->dir);
    (void)rmdir(h->dir);
}

bool hostile_take(hostile *h, const char *name, bool alone) {
    free(h->good);
    (void)snprintf(h->path, sizeof h->path, "%s/%s", h->dir, name);
    (void)snprintf(h->what, sizeof h->what, "%s", alone ? h->path : h->dir);
    h->name = strrchr(h->path, '/') + 1;
    FILE *f = fopen(h->path, "rb");
    long size = f != NULL && fseek(f, 0, SEEK_END) == 0 ? ftell(f) : -1;
    h->len = size >= 0 ? (size_t)size : 0;
    h->good = malloc(h->len + 1);
    bool good = h->good != NULL && size >= 0 && fseek(f, 0, SEEK_SET) == 0 && fread(h->good, 1, h->len, f) == h->len;
    if (f != NULL) { (void)fclose(f); }
    if (!good) {
        hostile_holds(h, name, false);
        return false;
    }
    h->good[h->len] = '\0';
    size_t now = h->host.now;
    h->host.largest = 0;
    h->host.peak = now;
    peft_status st = h->open(h, NULL);
    h->largest = h->host.largest;
    h->peak = h->host.peak - now;
    if (st == PEFT_OK) { st = h->open(h, &h->print); }
    if (st != PEFT_OK) { (void)fprintf(stderr, "%s: %s\n", h->path, peft_last_error()); }
    hostile_holds(h, "the good file opens", st == PEFT_OK);
    return st == PEFT_OK;
}

/* ---- cases ----------------------------------------------------------------------------------------------------- */

void hostile_holds(hostile *h, const char *what, bool holds) {
    if (!holds) { printf("FAIL   %s: %s\n", h->format, what); }
    hostile_passed += holds;
    hostile_failed += !holds;
}

static bool hostile_put(hostile *h, const char *what, const void *data, size_t len) {
    (void)snprintf(hostile_current, sizeof hostile_current, "%s, %s, %.300s", h->format, h->name, what);
    return hostile_write(h->dir, h->path + strlen(h->dir) + 1, data, len);
}

void hostile_refused(hostile *h, const char *what, const void *data, size_t len, peft_status status, const char *culprit) {
    const char *why = NULL;
    size_t now = h->host.now;
    bool written = hostile_put(h, what, data, len);
    h->host.largest = 0;
    h->host.peak = now;
    peft_status st = h->open(h, NULL);
    const char *text = st == PEFT_OK ? "(taken)" : peft_last_error();
    (void)snprintf(h->said, sizeof h->said, "%s", text);
    size_t most = PEFT__MAX(h->largest, (size_t)HOSTILE_ROOM) + HOSTILE_TIMES * len;
    size_t peak = h->peak + HOSTILE_ROOM + 4 * HOSTILE_TIMES * len;
    if (st != status) { why = "another status"; }
    if (st != PEFT_OK && strstr(text, h->name) == NULL && (culprit == NULL || strstr(text,
        h->dir) == NULL)) { why = "the file is not named"; }
    if (st != PEFT_OK && culprit != NULL && strstr(text, culprit) == NULL) { why = "the culprit is not named"; }
    if (h->host.largest > most || h->host.peak - now > peak) { why = "more was reserved than the file accounts for"; }
    if (h->host.now != now) { why = "memory is left"; }
    if (!written) { why = "the file cannot be written"; }
    if (why != NULL) {
        printf("FAIL   %s, %s, %.200s: %s: %s, expected %s of \"%s\"; %zu bytes at once, %zu in all: %.400s\n", h->format, h->name,
            what, why,
               peft_status_name(st), peft_status_name(status), culprit != NULL ? culprit : h->name, h->host.largest, h->host.peak - now,
                   text);
    }
    bool again = hostile_write(h->dir, h->path + strlen(h->dir) + 1, h->good, h->len) && h->open(h, NULL) == PEFT_OK && h->host.now == now;
    if (why == NULL && !again) { printf("FAIL   %s, %s: the good file does not open after: %.200s\n", h->format, h->name, what); }
    hostile_passed += why == NULL && again;
    hostile_failed += why != NULL || !again;
    hostile_refusals++;
}

static void hostile_take_as(hostile *h, const char *what, const void *data, size_t len, bool same) {
    uint64_t print = 0;
    size_t now = h->host.now;
    bool written = hostile_put(h, what, data, len);
    peft_status st = h->open(h, &print);
    bool good = written && st == PEFT_OK && (!same || print == h->print) && h->host.now == now;
    if (!good) {
        printf("FAIL   %s, %s, %.200s: %s: %.400s\n", h->format, h->name, what,
            st == PEFT_OK ? "it means something else" : peft_status_name(st),
               st == PEFT_OK ? "" : peft_last_error());
    }
    good = hostile_write(h->dir, h->path + strlen(h->dir) + 1, h->good, h->len) && good;
    hostile_passed += good;
    hostile_failed += !good;
    hostile_takings++;
    hostile_alike += same;
}

void hostile_taken(hostile *h, const char *what, const void *data, size_t len) { hostile_take_as(h, what, data, len, true); }
void hostile_opens(hostile *h, const char *what, const void *data, size_t len) { hostile_take_as(h, what, data, len, false); }

/* ---- changes --------------------------------------------------------------------------------------------------- */

void hostile_spliced(hostile *h, const char *what, size_t at, size_t cut, const void *text, size_t n, peft_status status,
                     const char *culprit) {
    size_t len = h->len - cut + n, end = strlen(h->name);
    char *data = malloc(len + 1);
    if (data == NULL || at + cut > h->len) {
        free(data);
        hostile_holds(h, what, false);
        return;
    }
    memcpy(data, h->good, at);
    memcpy(data + at, text, n);
    memcpy(data + at + n, h->good + at + cut, h->len - at - cut);
    if (end > 12 && strcmp(h->name + end - 12, ".safetensors") == 0 && n != cut) {
        peft__set_u64((uint8_t *)data, peft__get_u64((const uint8_t *)h->good) - cut + n);
    }
    if (status == PEFT_OK) {
        hostile_opens(h, what, data, len);
    } else {
        hostile_refused(h, what, data, len, status, culprit);
    }
    free(data);
}

/* Where `from` is in the file, of which NULs are a part. */
static size_t hostile_at(const hostile *h, const char *from) {
    size_t n = strlen(from), at = 0;
    while (at + n <= h->len && memcmp(h->good + at, from, n) != 0) { at++; }
    return at + n <= h->len ? at : h->len;
}

void hostile_swaps(hostile *h, const hostile_swap *swaps, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const hostile_swap *s = &swaps[i];
        char what[300];
        (void)snprintf(what, sizeof what, "%.120s: %.80s for %.60s", s->name != NULL ? s->name : "", s->to, s->from);
        size_t at = hostile_at(h, s->from);
        if (at == h->len) {
            hostile_holds(h, what, false);
        } else {
            hostile_spliced(h, what, at, strlen(s->from), s->to, strlen(s->to), s->status, s->culprit);
        }
    }
}

/* Behind the JSON value at p. */
static const char *hostile_value_end(const char *p) {
    int depth = 0;
    bool text = false;
    for (; *p != '\0'; p++) {
        if (text) {
            if (*p == '\\') { p++; } else { text = *p != '"'; }
        } else if (*p == '"') {
            text = true;
        } else if (*p == '{' || *p == '[') {
            depth++;
        } else if ((*p == '}' || *p == ']') && depth-- == 0) {
            return p;
        } else if (depth == 0 && (*p == ',' || *p == '\n')) {
            return p;
        }
    }
    return p;
}

const char *hostile_find(const char *from, const char *key, size_t *len) {
    char want[160];
    (void)snprintf(want, sizeof want, "\"%.150s\":", key);
    const char *at = strstr(from, want);
    if (at == NULL) { return NULL; }
    at += strlen(want);
    while (*at == ' ') { at++; }
    *len = (size_t)(hostile_value_end(at) - at);
    return at;
}

void hostile_values(hostile *h, const char *key, const hostile_value *values, size_t n) {
    size_t len = 0, skip = strlen(h->name) > 12 && strstr(h->name, ".safetensors") != NULL ? 8 : 0; /* its first bytes may be NUL */
    const char *at = hostile_find(h->good + skip, key, &len);
    char what[300];
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(what, sizeof what, "\"%.100s\" is %.150s", key, values[i].text);
        if (at == NULL) { /* a key of its own */
            char text[400];
            int m = snprintf(text, sizeof text, "\"%s\":%s,", key, values[i].text);
            hostile_spliced(h, what, 1, 0, text, (size_t)m, values[i].status, key);
            continue;
        }
        hostile_spliced(h, what, (size_t)(at - h->good), len, values[i].text, strlen(values[i].text), values[i].status, key);
    }
}

void hostile_cuts(hostile *h, size_t end, size_t cuts, peft_status status) {
    char what[64];
    for (size_t i = 0; i < cuts; i++) {
        size_t n = end * i / cuts;
        (void)snprintf(what, sizeof what, "cut at %zu of %zu", n, h->len);
        hostile_refused(h, what, h->good, n, status, NULL);
    }
}

uint64_t hostile_hash(uint64_t h, const void *data, size_t len) { return peft__hash_str(h, data, len); }

/* ---- models ---------------------------------------------------------------------------------------------------- */

peft_status hostile_save_model(hostile *h, const char *config, const char *name) {
    peft_status st = PEFT_OK;
    peft_model *m = NULL;
    peft_adapters *a = NULL;
    char path[700];
    (void)snprintf(path, sizeof path, "%s%s%s", h->dir, name[0] != '\0' ? "/" : "", name);
    TRY(api_model(h->ctx, config, &m));
    TRY(peft_adapters_create(m, &a));
    TRY(peft_adapters_merge(a, "", path, NULL));
out:
    if (st != PEFT_OK) { (void)fprintf(stderr, "%s\n", peft_last_error()); }
    peft_adapters_free(a);
    peft_model_free(m);
    return st;
}

/* Every tensor, in its order, and what the model makes of four tokens. */
static peft_status hostile_print_model(hostile *h, peft_model *m, uint64_t *print) {
    static const int32_t ids[4] = {1, 5, 9, 2};
    static const int64_t four = 4;
    peft_status st = PEFT_OK;
    peft_session *s = NULL;
    peft_batch *b = NULL;
    float values[4096];
    size_t n = 0;
    *print = 1;
    for (size_t i = 0; i < peft_model_tensor_count(m); i++) {
        const char *name = NULL;
        TRY(peft_model_tensor_info(m, i, &name, NULL, NULL, NULL));
        TRY(peft_model_tensor_read(m, name, values, PEFT__COUNT(values), &n));
        *print = hostile_hash(hostile_hash(*print, name, strlen(name)), values, n * sizeof *values);
    }
    TRY(api_batch(h->ctx, ids, &four, 1, &b));
    TRY(peft_session_create(m, NULL, NULL, NULL, &s));
    if (peft_session_logits(s, b, values, PEFT__COUNT(values), &n) == PEFT_E_INVALID) { /* an encoder-decoder model */
        const int64_t offsets[2] = {0, four};
        TRY(peft_batch_set_i32(b, "source_ids", ids, offsets, 1));
    }
    TRY(peft_session_logits(s, b, values, PEFT__COUNT(values), &n));
    *print = hostile_hash(*print, values, n * sizeof *values);
out:
    peft_session_free(s);
    peft_batch_free(b);
    return st;
}

peft_status hostile_open_model(hostile *h, uint64_t *print) {
    peft_model *m = NULL;
    peft_status st = peft_model_open(h->ctx, h->what, NULL, &m);
    if (st == PEFT_OK && print != NULL) { st = hostile_print_model(h, m, print); }
    peft_model_free(m);
    return st;
}

/* ---- all ------------------------------------------------------------------------------------------------------- */

static void hostile_on_crash(int sig) {
    printf("FAIL   %s: ended by signal %d\n%d passed, %d failed\n", hostile_current, sig, hostile_passed, hostile_failed + 1);
    (void)fflush(stdout);
    (void)signal(sig, SIG_DFL);
    (void)raise(sig);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(void);
    } formats[] = {{"safetensors", hostile_safetensors}, {"gguf", hostile_gguf}, {"json", hostile_json}, {"tokenizers", hostile_tokenizers},
                   {"configs", hostile_configs}, {"adapters", hostile_adapters}, {"datasets", hostile_datasets},
                   {"checkpoints", hostile_checkpoints}};
    static const int signals[] = {SIGSEGV, SIGABRT, SIGFPE, SIGILL};
    int refusals = 0, takings = 0, alike = 0;
    for (size_t i = 0; i < PEFT__COUNT(signals); i++) { (void)signal(signals[i], hostile_on_crash); }
    if (!hostile_make_root()) { return 2; }
    for (size_t i = 0; i < PEFT__COUNT(formats); i++) {
        if (argc > 1 && strstr(formats[i].name, argv[1]) == NULL) { continue; }
        int failed = hostile_failed;
        hostile_refusals = hostile_takings = hostile_alike = 0;
        formats[i].run();
        printf("%s   %s: %d files refused, %d unusual ones taken\n", hostile_failed == failed ? "ok  " : "FAIL", formats[i].name,
               hostile_refusals, hostile_takings);
        refusals += hostile_refusals;
        takings += hostile_takings;
        alike += hostile_alike;
    }
    hostile_empty(hostile_root);
    (void)rmdir(hostile_root);
    printf("hostile: %d files refused, %d unusual ones taken, %d of them for what the usual form is\n", refusals, takings, alike);
    printf("%d passed, %d failed\n", hostile_passed, hostile_failed);
    return hostile_failed > 0;
}
