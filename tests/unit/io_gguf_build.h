/* io_gguf_build.h - GGUF files by hand, for the tests of their reader and writer: puts append to a peft__str.
 *
 * Nothing of gguf_write.c is used here, so that reader and writer cannot share a mistake. */
#ifndef IO_GGUF_BUILD_H
#define IO_GGUF_BUILD_H

#include "runner.h"

#include "io/io.h"

static inline void put(peft__str *s, uint64_t v, size_t bytes) {
    uint8_t word[8];
    peft__set_u64(word, v);
    peft__str_put(s, (const char *)word, bytes);
}

static inline void put_string(peft__str *s, const char *text) {
    put(s, strlen(text), 8);
    peft__str_puts(s, text);
}

static inline void put_head(peft__str *s, uint32_t version, uint64_t tensors, uint64_t kvs) {
    peft__str_puts(s, "GGUF");
    put(s, version, 4);
    put(s, tensors, 8);
    put(s, kvs, 8);
}

static inline void put_kv(peft__str *s, const char *key, uint32_t type, uint64_t v, size_t bytes) {
    put_string(s, key);
    put(s, type, 4);
    put(s, v, bytes);
}

static inline void put_tensor(peft__str *s, const char *name, uint32_t ndim, uint64_t d0, uint64_t d1, uint32_t type,
                       uint64_t offset) {
    put_string(s, name);
    put(s, ndim, 4);
    if (ndim > 0) { put(s, d0, 8); }
    for (uint32_t i = 1; i < ndim; i++) { put(s, d1, 8); }
    put(s, type, 4);
    put(s, offset, 8);
}

static inline void pad(peft__str *s, size_t alignment) {
    while (s->len % alignment != 0) { peft__str_putc(s, '\0'); }
}

/* Bytes 0, 1, 2, ... */
static inline void put_data(peft__str *s, size_t size) {
    for (size_t i = 0; i < size; i++) { peft__str_putc(s, (char)(unsigned char)i); }
}

/* Opens what was built (and forgets it). */
static inline peft_status open_built(peft__str *s, bool copy, peft__gguf *g) {
    const char *path = runner_path(runner_tmpdir(), "m.gguf");
    peft_status st = peft__str_status(s);
    if (st == PEFT_OK) { st = peft__save_text(s->mem, path, s->data, s->len); }
    peft__str_free(s);
    return st == PEFT_OK ? peft__gguf_open(s->mem, path, copy, g) : st;
}

static inline uint64_t f32_bits(float v) {
    uint32_t b;
    memcpy(&b, &v, sizeof b);
    return b;
}

static inline uint64_t f64_bits(double v) {
    uint64_t b;
    memcpy(&b, &v, sizeof b);
    return b;
}

static inline void put_all_kvs(peft__str *s) { /* 18 of them */
    put_kv(s, "u8", 0, 200, 1);
    put_kv(s, "i8", 1, 0x80, 1);
    put_kv(s, "u16", 2, 65535, 2);
    put_kv(s, "i16", 3, 0xFFFE, 2);
    put_kv(s, "u32", 4, 4294967295u, 4);
    put_kv(s, "i32", 5, 0xFFFFFFFD, 4);
    put_kv(s, "f32", 6, f32_bits(0.5f), 4);
    put_kv(s, "bool", 7, 2, 1);
    put_string(s, "text");
    put(s, 8, 4);
    put_string(s, "h\xC3\xA9");
    put_kv(s, "u64", 10, (uint64_t)INT64_MAX, 8);
    put_kv(s, "i64", 11, (uint64_t)INT64_MIN, 8);
    put_kv(s, "f64", 12, f64_bits(-0.1), 8);
    put_string(s, "strings");
    put(s, 9, 4);
    put(s, 8, 4);
    put(s, 3, 8);
    put_string(s, "a");
    put_string(s, "");
    put_string(s, "\xFFzz");
    put_string(s, "floats");
    put(s, 9, 4);
    put(s, 6, 4);
    put(s, 2, 8);
    put(s, f32_bits(1.5f), 4);
    put(s, f32_bits(-2.0f), 4);
    put_string(s, "ints");
    put(s, 9, 4);
    put(s, 5, 4);
    put(s, 2, 8);
    put(s, 7, 4);
    put(s, 0xFFFFFFFF, 4);
    put_string(s, "empty");
    put(s, 9, 4);
    put(s, 8, 4);
    put(s, 0, 8);
    put_kv(s, "nan", 6, 0x7FC00000, 4);
    put_string(s, "nul");
    put(s, 8, 4);
    put(s, 3, 8);
    peft__str_put(s, "a\0b", 3);
}

#endif
