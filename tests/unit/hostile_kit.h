/* hostile_kit.h - what tests of files that mean harm share: a file of a kind, changes to it, and what refusing one is.
 *
 * A change is refused when opening says no with a status of its own, the message names the culprit, nothing was reserved that the file's
 * size does not account for, and nothing is left. A kind's test counts its changes and ends by opening the file as it was. */
#ifndef HOSTILE_KIT_H
#define HOSTILE_KIT_H

#include "api_kit.h"

enum { HOSTILE_MOST = 1 << 20 }; /* bytes of one allocation that any file may lead to: buffers of fixed size */

typedef struct hostile_host { /* behind the context's allocator */
    size_t now, largest;
} hostile_host;

typedef struct hostile hostile;
struct hostile {
    peft_context *ctx;
    hostile_host host;
    peft_model *base;              /* what adapters are for; NULL: none */
    const char *dir, *path, *name; /* what is opened; the file that is changed; its name, which messages have */
    char *whole;                   /* the file as it was; owned */
    size_t len;
    peft_status (*open)(hostile *h); /* opens dir and frees what it got */
    size_t most;                     /* bytes of one allocation that opening may need for other than the file */
    int32_t cases;
};

static inline void *hostile_alloc(void *user, size_t size, size_t align) {
    hostile_host *h = user;
    void *p = size < (size_t)1 << 32 ? peft__sys_alloc(size, align, false) : NULL;
    h->largest = PEFT__MAX(h->largest, size);
    if (p != NULL) { h->now += size; }
    return p;
}

static inline void hostile_release(void *user, void *p, size_t size) {
    ((hostile_host *)user)->now -= size;
    peft__sys_free(p);
}

static inline peft_status hostile_begin(hostile *h) {
    peft_allocator a = {hostile_alloc, hostile_release, &h->host};
    memset(h, 0, sizeof *h);
    h->dir = runner_tmpdir();
    h->most = HOSTILE_MOST;
    return peft_context_create(&a, &h->ctx);
}

static inline void hostile_end(hostile *h) {
    free(h->whole);
    peft_model_free(h->base);
    peft_context_free(h->ctx);
    memset(h, 0, sizeof *h);
}

static inline bool hostile_write(const char *path, const char *data, size_t len) {
    FILE *f = fopen(path, "wb");
    bool good = f != NULL && fwrite(data, 1, len, f) == len;
    return f != NULL && fclose(f) == 0 && good;
}

/* Takes up the file `name` of h->dir (NULL: dir is the file), which is there and good. */
static inline bool hostile_take(hostile *h, const char *name) {
    free(h->whole);
    h->path = name != NULL ? runner_path(h->dir, name) : h->dir;
    h->name = strrchr(h->path, '/') + 1;
    FILE *f = fopen(h->path, "rb");
    long size = f != NULL && fseek(f, 0, SEEK_END) == 0 ? ftell(f) : -1;
    h->whole = size >= 0 ? malloc((size_t)size + 1) : NULL;
    h->len = size >= 0 ? (size_t)size : 0;
    bool good = h->whole != NULL && fseek(f, 0, SEEK_SET) == 0 && fread(h->whole, 1, h->len, f) == h->len;
    if (f != NULL) { (void)fclose(f); }
    if (good) { h->whole[h->len] = '\0'; }
    return good && h->open(h) == PEFT_OK;
}

static inline bool hostile_is_refusal(peft_status st) {
    static const peft_status all[] = {PEFT_E_FORMAT,    PEFT_E_UNSUPPORTED, PEFT_E_SHAPE,   PEFT_E_NOT_FOUND, PEFT_E_KEY,
                                      PEFT_E_INVALID,   PEFT_E_VERSION,     PEFT_E_NUMERIC, PEFT_E_EXISTS};
    for (size_t i = 0; i < PEFT__COUNT(all); i++) {
        if (st == all[i]) { return true; }
    }
    return false;
}

/* Is the file with these bytes refused, for the culprit (NULL: the file's name will do)? what: of the change, for who reads a failure. */
static inline bool hostile_refused(hostile *h, const char *data, size_t len, const char *what, const char *culprit) {
    size_t now = h->host.now;
    bool written = hostile_write(h->path, data, len);
    h->host.largest = 0;
    peft_status st = written ? h->open(h) : PEFT_OK;
    bool names = strstr(peft_last_error(), h->name) != NULL && (culprit == NULL || strstr(peft_last_error(), culprit) != NULL);
    bool good = hostile_is_refusal(st) && names && h->host.now == now && h->host.largest <= h->most + 16 * len;
    if (!good) {
        (void)fprintf(stderr, "%s, %s: status %d, %zu bytes left, %zu at once: %.300s\n", h->name, what, (int)st, h->host.now - now,
                      h->host.largest, st != PEFT_OK ? peft_last_error() : "taken");
    }
    h->cases++;
    return good;
}

/* Is it taken? */
static inline bool hostile_taken(hostile *h, const char *data, size_t len, const char *what) {
    peft_status st = hostile_write(h->path, data, len) ? h->open(h) : PEFT_E_IO;
    if (st != PEFT_OK) { (void)fprintf(stderr, "%s, %s: status %d: %.300s\n", h->name, what, (int)st, peft_last_error()); }
    h->cases++;
    return st == PEFT_OK;
}

/* With `cut` bytes at `at` replaced by text. */
static inline bool hostile_spliced(hostile *h, size_t at, size_t cut, const char *text, size_t n, const char *what, const char *culprit) {
    char *data = malloc(h->len - cut + n + 1);
    if (data == NULL || at + cut > h->len) { free(data); return false; }
    memcpy(data, h->whole, at);
    memcpy(data + at, text, n);
    memcpy(data + at + n, h->whole + at + cut, h->len - at - cut);
    bool good = hostile_refused(h, data, h->len - cut + n, what, culprit);
    free(data);
    return good;
}

static inline bool hostile_as_it_was(hostile *h) { return hostile_write(h->path, h->whole, h->len) && h->open(h) == PEFT_OK; }

/* ---- JSON ------------------------------------------------------------------------------------------------------------------------ */

/* Behind the JSON value at p. */
static inline const char *hostile_json_end(const char *p) {
    int depth = 0;
    bool text = false;
    for (; *p != '\0'; p++) {
        if (text) {
            if (*p == '\\') { p++; } else { text = *p != '"'; }
        } else if (*p == '"') {
            text = true;
        } else if (*p == '{' || *p == '[') {
            depth++;
        } else if (*p == '}' || *p == ']') {
            if (depth == 0) { return p; }
            depth--;
        } else if (*p == ',' && depth == 0) {
            return p;
        }
    }
    return p;
}

/* The value of the first "key": in the text from `from` on; len: of it. NULL: there is none. */
static inline const char *hostile_json_value(const char *from, const char *key, size_t *len) {
    char want[128];
    (void)snprintf(want, sizeof want, "\"%s\":", key);
    const char *at = strstr(from, want);
    if (at == NULL) { (void)snprintf(want, sizeof want, "\"%s\" :", key), at = strstr(from, want); }
    if (at == NULL) { return NULL; }
    at += strlen(want);
    while (*at == ' ') { at++; }
    *len = (size_t)(hostile_json_end(at) - at);
    return at;
}

/* Is each of the values refused in the place of the key's, the key being named? */
static inline bool hostile_values(hostile *h, const char *key, const char *const *values, size_t n) {
    size_t len = 0;
    const char *at = hostile_json_value(h->whole, key, &len);
    bool good = at != NULL;
    if (at == NULL) { (void)fprintf(stderr, "%s has no %s\n", h->name, key); }
    for (size_t i = 0; at != NULL && i < n; i++) {
        char what[160];
        (void)snprintf(what, sizeof what, "%s: %.80s", key, values[i]);
        good = hostile_spliced(h, (size_t)(at - h->whole), len, values[i], strlen(values[i]), what, key) && good;
    }
    return good;
}

/* Is the text cut off at any of `n` places refused, and with bytes that no JSON has? */
static inline bool hostile_broken_json(hostile *h, int n) {
    static const char *const more[] = {"{", "[1", "nul", "\"", "{\"a\":1,}", "{\"a\" 1}", "[01]", "{\"a\":1}x",
            "\"\\ud800\"", "", " ", "\xff\xfe{}"};
    bool good = true;
    char what[64];
    for (int i = 0; i < n; i++) {
        size_t at = (h->len - 2) * (size_t)i / (size_t)n;
        (void)snprintf(what, sizeof what, "cut at %zu", at);
        good = hostile_refused(h, h->whole, at, what, NULL) && good;
    }
    for (size_t i = 0; i < PEFT__COUNT(more); i++) { good = hostile_refused(h, more[i], strlen(more[i]), more[i], NULL) && good; }
    char *deep = malloc(200000);
    if (deep == NULL) { return false; }
    memset(deep, '[', 100000);
    memset(deep + 100000, ']', 100000);
    good = hostile_refused(h, deep, 200000, "100,000 arrays in each other", NULL) && good;
    free(deep);
    return good;
}

#endif
