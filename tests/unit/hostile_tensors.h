/* hostile_tensors.h - changes to a safetensors file: its length, its header's text, each field of its tensors. */
#ifndef HOSTILE_TENSORS_H
#define HOSTILE_TENSORS_H

#include "hostile_kit.h"

/* Bytes [at, at + cut) of the header replaced, its length set right. */
static inline bool hostile_header(hostile *h, size_t at, size_t cut, const char *text, const char *what, const char *culprit) {
    size_t n = strlen(text), len = h->len - cut + n;
    char *data = malloc(len);
    if (data == NULL) { return false; }
    memcpy(data, h->whole, at);
    memcpy(data + at, text, n);
    memcpy(data + at + n, h->whole + at + cut, h->len - at - cut);
    uint64_t header = peft__get_u64((const uint8_t *)h->whole) - cut + n;
    peft__set_u64((uint8_t *)data, header);
    bool good = hostile_refused(h, data, len, what, culprit);
    free(data);
    return good;
}

/* Each field of the tensor whose entry begins at `entry` ("name":{...}). */
static inline bool hostile_tensor(hostile *h, const char *entry) {
    static const char *const types[] = {"\"F63\"", "\"\"", "5", "null", "\"f32\"", "[\"F32\"]", "\"U4\"", "\"I64\""};
    static const char *const shapes[] = {"[-1,4]", "[1.5]", "\"16\"", "null", "[[16]]", "[9223372036854775807,9223372036854775807]",
                                         "[4294967296,4294967296]", "[16,1e3]", "{}", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]"};
    static const char *const spans[] = {"[0]", "[0,4]", "[-4,4]", "[8,4]", "[0,1e30]", "[0,18446744073709551615]", "\"0\"", "null",
                                        "[0.5,64]", "[9223372036854775800,9223372036854775807]", "[]", "[1,2,3]"};
    char name[256];
    (void)snprintf(name, sizeof name, "%.*s", (int)(strchr(entry + 1, '"') - entry - 1), entry + 1);
    struct {
        const char *key, *const *values;
        size_t n;
    } fields[] = {{"dtype", types, PEFT__COUNT(types)}, {"shape", shapes, PEFT__COUNT(shapes)}, {"data_offsets", spans,
            PEFT__COUNT(spans)}};
    bool good = true;
    for (size_t f = 0; f < PEFT__COUNT(fields); f++) {
        size_t len = 0;
        const char *at = hostile_json_value(entry, fields[f].key, &len);
        for (size_t i = 0; at != NULL && i < fields[f].n; i++) {
            char what[320];
            (void)snprintf(what, sizeof what, "%s of %s: %s", fields[f].key, name, fields[f].values[i]);
            good = hostile_header(h, (size_t)(at - h->whole), len, fields[f].values[i], what, name) && good;
        }
        good = good && at != NULL;
    }
    return good;
}

static inline bool hostile_lengths(hostile *h) {
    static const uint64_t lengths[] = {0, 1, 7, 100000001, (uint64_t)1 << 40, (uint64_t)1 << 63, UINT64_MAX, UINT64_MAX - 7};
    bool good = true;
    char old[8], what[64];
    memcpy(old, h->whole, 8);
    for (size_t i = 0; i < PEFT__COUNT(lengths); i++) {
        (void)snprintf(what, sizeof what, "a header of %llu bytes", (unsigned long long)lengths[i]);
        peft__set_u64((uint8_t *)h->whole, lengths[i]);
        good = hostile_refused(h, h->whole, h->len, what, NULL) && good;
    }
    memcpy(h->whole, old, 8);
    for (size_t len = 0; len < h->len; len += 1 + h->len / 40) {
        (void)snprintf(what, sizeof what, "cut at %zu", len);
        good = hostile_refused(h, h->whole, len, what, NULL) && good;
    }
    return good;
}

/* All of that, for every `step`-th tensor. */
static inline bool hostile_safetensors(hostile *h, size_t step) {
    bool good = hostile_lengths(h);
    size_t seen = 0;
    for (const char *p = strstr(h->whole + 8, "\":{\"dtype\""); p != NULL; p = strstr(p + 1, "\":{\"dtype\""), seen++) {
        const char *entry = p - 1;
        while (*entry != '"') { entry--; }
        if (seen % step == 0) { good = hostile_tensor(h, entry) && good; }
        if (seen == 1) { /* a name that is there twice */
            size_t len = (size_t)(hostile_json_end(entry) - entry);
            char *twice = malloc(2 * len + 2);
            if (twice == NULL) { return false; }
            (void)snprintf(twice, 2 * len + 2, "%.*s,%.*s", (int)len, entry, (int)len, entry);
            good = hostile_header(h, (size_t)(entry - h->whole), len, twice, "a tensor twice", NULL) && good;
            free(twice);
        }
    }
    static const char *const heads[] = {"[", "x", "\"a\":5,", "\"__metadata__\":[],", "\"__metadata__\":{\"a\":1},",
            "\"\xff\":{},", "\"a\":{},"};
    for (size_t i = 0; i < PEFT__COUNT(heads); i++) { good = hostile_header(h, 9, 0, heads[i], heads[i], NULL) && good; }
    return good && seen > 1;
}

#endif
