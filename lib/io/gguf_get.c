/* gguf_get.c - reading the metadata and finding the tensors of an open GGUF file.
 *
 * Everything here was checked when the file was opened (gguf.c), so walks over arrays need no bounds but their own.
 *
 * Left out: conversion between numbers and text. */
#include <math.h>

#include "io/io.h"

size_t peft__gguf_type_bytes(int32_t type) {
    switch (type) {
    case PEFT__GGUF_U8:
    case PEFT__GGUF_I8:
    case PEFT__GGUF_BOOL: return 1;
    case PEFT__GGUF_U16:
    case PEFT__GGUF_I16: return 2;
    case PEFT__GGUF_U32:
    case PEFT__GGUF_I32:
    case PEFT__GGUF_F32: return 4;
    case PEFT__GGUF_U64:
    case PEFT__GGUF_I64:
    case PEFT__GGUF_F64: return 8;
    default: return 0;
    }
}

const char *peft__gguf_type_name(int32_t type) {
    static const char *const names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                        "bool", "string", "array", "u64", "i64", "f64"};
    return type >= 0 && type < (int32_t)PEFT__COUNT(names) ? names[type] : "?";
}

bool peft__gguf_number(const uint8_t *p, int32_t type, int64_t *i, double *f) {
    uint64_t word = 0;
    size_t bytes = peft__gguf_type_bytes(type);
    for (size_t k = 0; k < bytes; k++) { word |= (uint64_t)p[k] << (8 * k); }
    *i = 0;
    *f = 0;
    if (type == PEFT__GGUF_F32) {
        uint32_t half = (uint32_t)word;
        float v;
        memcpy(&v, &half, sizeof v);
        *f = (double)v;
        return true;
    }
    if (type == PEFT__GGUF_F64) {
        memcpy(f, &word, sizeof *f);
        return true;
    }
    switch (type) {
    case PEFT__GGUF_BOOL: word = word != 0; break;
    case PEFT__GGUF_I8: word |= word & 0x80 ? ~UINT64_C(0xFF) : 0; break;
    case PEFT__GGUF_I16: word |= word & 0x8000 ? ~UINT64_C(0xFFFF) : 0; break;
    case PEFT__GGUF_I32: word |= word & 0x80000000 ? ~UINT64_C(0xFFFFFFFF) : 0; break;
    case PEFT__GGUF_U64:
        if (word > (uint64_t)INT64_MAX) { return false; }
        break;
    default: break;
    }
    memcpy(i, &word, sizeof *i); /* two's complement, as C11's int64_t is */
    *f = (double)*i;
    return true;
}

const peft__io_tensor *peft__gguf_find(const peft__gguf *g, const char *name) {
    int64_t i = peft__map_get(&g->index, name, strlen(name));
    return i >= 0 ? &g->tensors[i] : NULL;
}

const peft__gguf_kv *peft__gguf_get(const peft__gguf *g, const char *key) {
    int64_t i = peft__map_get(&g->keys, key, strlen(key));
    return i >= 0 ? &g->kvs[i] : NULL;
}

static bool gguf_is_int(const peft__gguf_kv *kv) {
    return peft__gguf_type_bytes(kv->type) > 0 && kv->type != PEFT__GGUF_F32 && kv->type != PEFT__GGUF_F64 &&
           kv->type != PEFT__GGUF_BOOL;
}

static peft_status gguf_fail_type(const peft__gguf_kv *kv, const char *wanted) {
    bool array = kv->type == PEFT__GGUF_ARRAY;
    return peft__fail(PEFT_E_FORMAT, "key \"%s\" has type %s%s%s, expected %s", kv->key, peft__gguf_type_name(kv->type),
                      array ? " of " : "", array ? peft__gguf_type_name(kv->elem) : "", wanted);
}

peft_status peft__gguf_int(const peft__gguf *g, const char *key, int64_t dflt, int64_t min, int64_t max, int64_t *out) {
    const peft__gguf_kv *kv = peft__gguf_get(g, key);
    if (kv == NULL) {
        *out = dflt;
        return PEFT_OK;
    }
    if (!gguf_is_int(kv)) { return gguf_fail_type(kv, "an integer"); }
    if (kv->i < min || kv->i > max) {
        return peft__fail(PEFT_E_FORMAT, "key \"%s\" is %lld, expected %lld to %lld", key, (long long)kv->i,
                          (long long)min, (long long)max);
    }
    *out = kv->i;
    return PEFT_OK;
}

peft_status peft__gguf_float(const peft__gguf *g, const char *key, double dflt, double *out) {
    const peft__gguf_kv *kv = peft__gguf_get(g, key);
    if (kv == NULL) {
        *out = dflt;
        return PEFT_OK;
    }
    if (kv->type != PEFT__GGUF_F32 && kv->type != PEFT__GGUF_F64 && !gguf_is_int(kv)) {
        return gguf_fail_type(kv, "a number");
    }
    if (!isfinite(kv->f)) { return peft__fail(PEFT_E_FORMAT, "key \"%s\" is not a finite number", key); }
    *out = kv->f;
    return PEFT_OK;
}

peft_status peft__gguf_bool(const peft__gguf *g, const char *key, bool dflt, bool *out) {
    const peft__gguf_kv *kv = peft__gguf_get(g, key);
    if (kv != NULL && kv->type != PEFT__GGUF_BOOL) { return gguf_fail_type(kv, "bool"); }
    *out = kv == NULL ? dflt : kv->i != 0;
    return PEFT_OK;
}

peft_status peft__gguf_text(const peft__gguf *g, const char *key, peft__arena *a, const char *dflt, const char **out) {
    const peft__gguf_kv *kv = peft__gguf_get(g, key);
    if (kv == NULL) {
        *out = dflt;
        return PEFT_OK;
    }
    if (kv->type != PEFT__GGUF_STRING) { return gguf_fail_type(kv, "string"); }
    if (memchr(kv->str.data, '\0', kv->str.len) != NULL || !peft__utf8_valid(kv->str.data, kv->str.len)) {
        return peft__fail(PEFT_E_FORMAT, "key \"%s\" is not valid UTF-8 or holds a NUL", key);
    }
    const char *copy = peft__arena_strdup(a, kv->str.data, kv->str.len);
    if (copy == NULL) { return PEFT_E_NOMEM; }
    *out = copy;
    return PEFT_OK;
}

bool peft__gguf_next_str(const peft__gguf_kv *kv, size_t *pos, peft__gguf_str *out) {
    if (kv == NULL || kv->type != PEFT__GGUF_ARRAY || kv->elem != PEFT__GGUF_STRING || *pos >= kv->raw_size) {
        return false;
    }
    size_t len = (size_t)peft__get_u64(kv->raw + *pos);
    *out = (peft__gguf_str){.data = (const char *)kv->raw + *pos + 8, .len = len};
    *pos += 8 + len;
    return true;
}

static bool gguf_array_number(const peft__gguf_kv *kv, size_t at, int64_t *i, double *f) {
    *i = 0;
    *f = 0;
    if (kv == NULL || kv->type != PEFT__GGUF_ARRAY || at >= kv->count) { return false; }
    size_t bytes = peft__gguf_type_bytes(kv->elem);
    return bytes > 0 && peft__gguf_number(kv->raw + at * bytes, kv->elem, i, f);
}

double peft__gguf_array_f64(const peft__gguf_kv *kv, size_t i) {
    int64_t whole;
    double f;
    return gguf_array_number(kv, i, &whole, &f) ? f : 0;
}

int64_t peft__gguf_array_i64(const peft__gguf_kv *kv, size_t i) {
    int64_t whole;
    double f;
    if (!gguf_array_number(kv, i, &whole, &f)) { return 0; }
    if (kv->elem != PEFT__GGUF_F32 && kv->elem != PEFT__GGUF_F64) { return whole; }
    return f > -9.0e18 && f < 9.0e18 ? (int64_t)f : 0;
}
