/* gguf.c - reader of the GGUF container.
 *
 * Format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), versions 2 and 3, all words little-endian:
 *     "GGUF", u32 version, u64 tensors, u64 key-values
 *     key-values: string key, u32 type, value; a string is u64 length + bytes; an array is u32 type, u64 count,
 *                 elements
 *     tensors: string name, u32 ndim, u64 dims (fastest first), u32 type, u64 offset into the data
 *     zeros up to general.alignment (32 unless said otherwise), the data
 * Offsets must be aligned and tensors must not overlap; their order and gaps are free.
 *
 * Left out: version 1 (u32 counts), big-endian files, models split over files, arrays of arrays: all are refused. */
#include "io/io.h"

enum {
    GGUF_HEAD = 24,       /* magic, version, both counts */
    GGUF_MIN_KV = 14,     /* key of one byte, type, value of one byte */
    GGUF_MIN_TENSOR = 25, /* name of one byte, ndim, type, offset */
};

typedef struct gguf_cursor {
    const uint8_t *data; /* borrowed */
    size_t size, pos;    /* bytes, and those read */
} gguf_cursor;

/* The next n bytes; NULL with the error text set (PEFT_E_FORMAT) where the file is shorter. */
static const uint8_t *gguf_take(gguf_cursor *c, size_t n, const char *part) {
    if (n > c->size - c->pos) {
        (void)peft__fail(PEFT_E_FORMAT, "the file ends inside %s at byte %zu: %zu bytes wanted, %zu left", part,
                         c->pos, n, c->size - c->pos);
        return NULL;
    }
    const uint8_t *p = c->data + c->pos;
    c->pos += n;
    return p;
}

static peft_status gguf_take_u32(gguf_cursor *c, const char *part, uint32_t *out) {
    const uint8_t *p = gguf_take(c, 4, part);
    if (p == NULL) { return PEFT_E_FORMAT; }
    *out = peft__get_u32(p);
    return PEFT_OK;
}

static peft_status gguf_take_u64(gguf_cursor *c, const char *part, uint64_t *out) {
    const uint8_t *p = gguf_take(c, 8, part);
    if (p == NULL) { return PEFT_E_FORMAT; }
    *out = peft__get_u64(p);
    return PEFT_OK;
}

static peft_status gguf_take_string(gguf_cursor *c, const char *part, peft__gguf_str *out) {
    uint64_t n = 0;
    peft_status st = gguf_take_u64(c, part, &n);
    if (st != PEFT_OK) { return st; }
    if (n > c->size - c->pos) {
        (void)peft__fail(PEFT_E_FORMAT, "%s at byte %zu claims %llu bytes, the file has %zu left", part, c->pos - 8,
                         (unsigned long long)n, c->size - c->pos);
        return PEFT_E_FORMAT;
    }
    *out = (peft__gguf_str){.data = (const char *)c->data + c->pos, .len = (size_t)n};
    c->pos += (size_t)n;
    return PEFT_OK;
}

/* A key or a tensor's name: short, valid UTF-8, copied with a NUL. */
static peft_status gguf_take_name(gguf_cursor *c, peft__arena *a, const char *part, const char **out, size_t *len) {
    peft__gguf_str s = {0};
    peft_status st = gguf_take_string(c, part, &s);
    if (st != PEFT_OK) { return st; }
    if (s.len == 0 || s.len > PEFT__IO_MAX_NAME) {
        return peft__fail(PEFT_E_FORMAT, "%s has %zu bytes, expected 1 to %d", part, s.len, (int)PEFT__IO_MAX_NAME);
    }
    if (memchr(s.data, '\0', s.len) != NULL || !peft__utf8_valid(s.data, s.len)) {
        return peft__fail(PEFT_E_FORMAT, "%s is not valid UTF-8 or holds a NUL", part);
    }
    *out = peft__arena_strdup(a, s.data, s.len);
    *len = s.len;
    return *out != NULL ? PEFT_OK : PEFT_E_NOMEM;
}

/* ---- key-values -------------------------------------------------------------------------------------------------- */

/* The elements of an array; strings are walked, so that later readers need no checks. */
static peft_status gguf_take_array(gguf_cursor *c, peft__gguf_kv *kv) {
    peft_status st = PEFT_OK;
    uint32_t elem = 0;
    uint64_t count = 0;
    TRY(gguf_take_u32(c, "the type of an array", &elem));
    TRY(gguf_take_u64(c, "the length of an array", &count));
    kv->elem = elem <= PEFT__GGUF_F64 ? (int32_t)elem : -1;
    size_t bytes = peft__gguf_type_bytes(kv->elem);
    size_t least = kv->elem == PEFT__GGUF_STRING ? 8 : bytes;
    if (least == 0) {
        FAIL(PEFT_E_UNSUPPORTED, "arrays of type %lu (%s) are not supported", (unsigned long)elem,
             peft__gguf_type_name(kv->elem));
    }
    if (count > (c->size - c->pos) / least) {
        FAIL(PEFT_E_FORMAT, "an array claims %llu elements of %s, the file has %zu bytes left",
             (unsigned long long)count, peft__gguf_type_name(kv->elem), c->size - c->pos);
    }
    kv->count = (size_t)count;
    kv->raw = c->data + c->pos;
    size_t start = c->pos;
    if (kv->elem != PEFT__GGUF_STRING) {
        c->pos += kv->count * bytes;
    } else {
        peft__gguf_str s;
        for (size_t i = 0; i < kv->count; i++) { TRY(gguf_take_string(c, "a string of an array", &s)); }
    }
    kv->raw_size = c->pos - start;
    for (size_t i = 0; kv->elem == PEFT__GGUF_U64 && i < kv->count; i++) {
        if (peft__get_u64(kv->raw + 8 * i) > (uint64_t)INT64_MAX) {
            FAIL(PEFT_E_UNSUPPORTED, "element %zu of the array is above 2^63 - 1", i);
        }
    }
out:
    return st;
}

static peft_status gguf_take_value(gguf_cursor *c, peft__gguf_kv *kv) {
    peft_status st = PEFT_OK;
    uint32_t type = 0;
    TRY(gguf_take_u32(c, "the type of a value", &type));
    if (type > PEFT__GGUF_F64) {
        FAIL(PEFT_E_UNSUPPORTED, "values of type %lu are unknown, expected 0 to %d", (unsigned long)type,
             (int)PEFT__GGUF_F64);
    }
    kv->type = (int32_t)type;
    if (kv->type == PEFT__GGUF_STRING) { return gguf_take_string(c, "a string", &kv->str); }
    if (kv->type == PEFT__GGUF_ARRAY) { return gguf_take_array(c, kv); }
    const uint8_t *p = gguf_take(c, peft__gguf_type_bytes(kv->type), "a value");
    if (p == NULL) { return PEFT_E_FORMAT; }
    if (!peft__gguf_number(p, kv->type, &kv->i, &kv->f)) { FAIL(PEFT_E_UNSUPPORTED, "the value is above 2^63 - 1"); }
out:
    return st;
}

static peft_status gguf_take_kv(gguf_cursor *c, peft__arena *a, size_t i, peft__gguf_kv *kv, peft__map *keys) {
    size_t len = 0;
    peft_status st = gguf_take_name(c, a, "the key", &kv->key, &len);
    if (st != PEFT_OK) {
        if (st != PEFT_E_NOMEM) { peft__fail_prefix("metadata entry %zu", i); }
        return st;
    }
    st = gguf_take_value(c, kv);
    if (st == PEFT_OK) {
        st = peft__map_put(keys, kv->key, len, (int64_t)i);
        if (st == PEFT_E_EXISTS) { st = peft__fail(PEFT_E_FORMAT, "the key appears twice"); }
    }
    if (st != PEFT_OK && st != PEFT_E_NOMEM) { peft__fail_prefix("key \"%s\"", kv->key); }
    return st;
}

peft_status peft__gguf_read_kvs(peft__arena *a, const uint8_t *data, size_t size, size_t *pos, size_t count,
                                peft__gguf_kv **kvs, peft__map *keys) {
    gguf_cursor c = {.data = data, .size = size, .pos = *pos};
    size_t bytes;
    if (count > (size - *pos) / GGUF_MIN_KV) {
        return peft__fail(PEFT_E_FORMAT, "%zu metadata entries are claimed, the file has %zu bytes left", count,
                          size - *pos);
    }
    if (!peft__mul(count, sizeof **kvs, &bytes)) { return peft__fail(PEFT_E_NOMEM, "%zu keys are too many", count); }
    *kvs = peft__arena_alloc(a, bytes);
    if (*kvs == NULL) { return PEFT_E_NOMEM; }
    for (size_t i = 0; i < count; i++) {
        peft_status st = gguf_take_kv(&c, a, i, &(*kvs)[i], keys);
        if (st != PEFT_OK) { return st; }
    }
    *pos = c.pos;
    return PEFT_OK;
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

static peft_status gguf_take_dims(gguf_cursor *c, peft__io_tensor *t) {
    peft_status st = PEFT_OK;
    uint32_t ndim = 0;
    TRY(gguf_take_u32(c, "the number of dimensions", &ndim));
    if (ndim > PEFT__GGUF_MAX_DIMS) {
        FAIL(PEFT_E_FORMAT, "%lu dimensions, at most %d are possible", (unsigned long)ndim, (int)PEFT__GGUF_MAX_DIMS);
    }
    t->ndim = (int32_t)ndim;
    for (int32_t i = t->ndim - 1; i >= 0; i--) {
        uint64_t d = 0;
        TRY(gguf_take_u64(c, "the dimensions", &d));
        if (d > (uint64_t)INT64_MAX) { FAIL(PEFT_E_FORMAT, "a dimension of %llu", (unsigned long long)d); }
        t->dims[i] = (int64_t)d;
    }
out:
    return st;
}

/* Dims, type and offset of a tensor; its place is checked when the start of the data is known. */
static peft_status gguf_take_layout(gguf_cursor *c, peft__io_tensor *t, uint64_t *offset) {
    peft_status st = PEFT_OK;
    uint32_t id = 0;
    TRY(gguf_take_dims(c, t));
    TRY(gguf_take_u32(c, "the type", &id));
    TRY(gguf_take_u64(c, "the offset", offset));
    const peft__ggml_type *type = peft__ggml_type_find(id);
    if (type == NULL) {
        FAIL(PEFT_E_UNSUPPORTED, "type id %lu is unknown to this version (or was removed from ggml)",
             (unsigned long)id);
    }
    t->dtype = type->ours ? type->id : PEFT__IO_DTYPE_OTHER;
    t->dtype_name = type->name;
    TRY(peft__io_bytes(t->ndim, t->dims, 1, type->bytes, type->elems, &t->size));
out:
    return st;
}

static peft_status gguf_take_tensor(gguf_cursor *c, peft__gguf *g, size_t i, uint64_t *offset) {
    peft__io_tensor *t = &g->tensors[i];
    size_t len = 0;
    peft_status st = gguf_take_name(c, &g->arena, "the name", &t->name, &len);
    if (st != PEFT_OK) {
        if (st != PEFT_E_NOMEM) { peft__fail_prefix("tensor %zu", i); }
        return st;
    }
    st = gguf_take_layout(c, t, offset);
    if (st == PEFT_OK) {
        st = peft__map_put(&g->index, t->name, len, (int64_t)i);
        if (st == PEFT_E_EXISTS) { st = peft__fail(PEFT_E_FORMAT, "the name appears twice"); }
    }
    if (st != PEFT_OK && st != PEFT_E_NOMEM) { peft__fail_prefix("tensor \"%s\"", t->name); }
    return st;
}

/* Puts each tensor at its offset behind `start`. */
static peft_status gguf_place(peft__gguf *g, const uint64_t *offsets, size_t start) {
    size_t room = g->file.size - start;
    for (size_t i = 0; i < g->count; i++) {
        peft__io_tensor *t = &g->tensors[i];
        if (offsets[i] % g->alignment != 0) {
            return peft__fail(PEFT_E_FORMAT, "tensor \"%s\": offset %llu is no multiple of the alignment %zu", t->name,
                              (unsigned long long)offsets[i], g->alignment);
        }
        if (offsets[i] > room || t->size > room - (size_t)offsets[i]) {
            return peft__fail(PEFT_E_FORMAT, "tensor \"%s\": %zu bytes at offset %llu reach past the %zu bytes of data",
                              t->name, t->size, (unsigned long long)offsets[i], room);
        }
        t->data = g->file.data + start + (size_t)offsets[i];
    }
    return PEFT_OK;
}

static peft_status gguf_read_tensors(peft__mem *mem, peft__gguf *g, size_t pos) {
    peft_status st = PEFT_OK;
    gguf_cursor c = {.data = g->file.data, .size = g->file.size, .pos = pos};
    uint64_t *offsets = NULL;
    size_t bytes = g->count * sizeof *offsets; /* the count is at most PEFT__IO_MAX_TENSORS */
    if (g->count > (c.size - c.pos) / GGUF_MIN_TENSOR) {
        FAIL(PEFT_E_FORMAT, "%zu tensors are claimed, the file has %zu bytes left", g->count, c.size - c.pos);
    }
    offsets = peft__alloc(mem, bytes);
    g->tensors = peft__arena_alloc(&g->arena, g->count * sizeof *g->tensors);
    if (offsets == NULL || g->tensors == NULL) {
        st = PEFT_E_NOMEM;
        goto out;
    }
    for (size_t i = 0; i < g->count; i++) { TRY(gguf_take_tensor(&c, g, i, &offsets[i])); }
    size_t pad = (g->alignment - c.pos % g->alignment) % g->alignment;
    if (g->count == 0) { goto out; } /* a file of metadata only may end without padding */
    if (pad > c.size - c.pos) { FAIL(PEFT_E_FORMAT, "the file ends before its data at byte %zu", c.pos); }
    TRY(gguf_place(g, offsets, c.pos + pad));
    TRY(peft__io_check_spans(mem, g->tensors, g->count, c.data + c.pos + pad, c.size - c.pos - pad, false));
out:
    peft__free(mem, offsets, bytes);
    return st;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static peft_status gguf_check_version(uint32_t v) {
    if (v == 2 || v == 3) { return PEFT_OK; }
    if (v != 0 && (v & 0xFFFFu) == 0) {
        return peft__fail(PEFT_E_UNSUPPORTED, "the file was made for big-endian machines; convert it to little-endian");
    }
    if (v > 3) { return peft__fail(PEFT_E_VERSION, "GGUF version %lu, this library reads 2 and 3", (unsigned long)v); }
    return peft__fail(v == 1 ? PEFT_E_UNSUPPORTED : PEFT_E_FORMAT, "GGUF version %lu, expected 2 or 3",
                      (unsigned long)v);
}

/* The keys that change how the file itself is read. */
static peft_status gguf_check_layout_keys(peft__gguf *g) {
    const peft__gguf_kv *kv = peft__gguf_get(g, "general.alignment");
    g->alignment = 32;
    if (kv != NULL) {
        if (kv->type != PEFT__GGUF_U32 || kv->i < 1 || kv->i > PEFT__GGUF_MAX_ALIGNMENT || (kv->i & (kv->i - 1)) != 0) {
            return peft__fail(
                PEFT_E_FORMAT,
                "key \"general.alignment\" is %lld of type %s, expected a power of two up to %d of type u32",
                (long long)kv->i, peft__gguf_type_name(kv->type), (int)PEFT__GGUF_MAX_ALIGNMENT);
        }
        g->alignment = (size_t)kv->i;
    }
    int64_t parts = 1;
    peft_status st = peft__gguf_int(g, "split.count", 1, 0, INT64_MAX, &parts);
    if (st == PEFT_OK && parts > 1) {
        st = peft__fail(PEFT_E_UNSUPPORTED, "key \"split.count\" is %lld: models split over several files are not "
                        "supported, join them first", (long long)parts);
    }
    return st;
}

static peft_status gguf_read_file(peft__mem *mem, peft__gguf *g) {
    peft_status st = PEFT_OK;
    const uint8_t *p = g->file.data;
    size_t size = g->file.size;
    if (size < 4 || memcmp(p, "GGUF", 4) != 0) { FAIL(PEFT_E_FORMAT, "the file does not start with \"GGUF\""); }
    if (size < GGUF_HEAD) { FAIL(PEFT_E_FORMAT, "the file ends inside its header: %zu bytes", size); }
    g->version = peft__get_u32(p + 4);
    TRY(gguf_check_version(g->version));
    uint64_t tensors = peft__get_u64(p + 8);
    uint64_t kvs = peft__get_u64(p + 16);
    if (tensors > PEFT__IO_MAX_TENSORS) {
        FAIL(PEFT_E_FORMAT, "%llu tensors are claimed, at most %d are possible", (unsigned long long)tensors,
             (int)PEFT__IO_MAX_TENSORS);
    }
    if (kvs > size) {
        FAIL(PEFT_E_FORMAT, "%llu metadata entries are claimed, the file has %zu bytes", (unsigned long long)kvs, size);
    }
    size_t pos = GGUF_HEAD;
    TRY(peft__gguf_read_kvs(&g->arena, p, size, &pos, (size_t)kvs, &g->kvs, &g->keys));
    g->kv_count = (size_t)kvs;
    TRY(gguf_check_layout_keys(g));
    g->count = (size_t)tensors;
    TRY(gguf_read_tensors(mem, g, pos));
out:
    return st;
}

peft_status peft__gguf_open(peft__mem *mem, const char *path, bool copy, peft__gguf *out) {
    *out = (peft__gguf){0};
    peft_status st = peft__file_open(mem, path, copy, &out->file);
    if (st != PEFT_OK) {
        *out = (peft__gguf){0};
        return st;
    }
    peft__arena_init(&out->arena, mem);
    peft__map_init(&out->index, mem);
    peft__map_init(&out->keys, mem);
    st = gguf_read_file(mem, out);
    if (st != PEFT_OK) {
        peft__fail_prefix("%s", path);
        peft__gguf_close(out);
    }
    return st;
}

void peft__gguf_close(peft__gguf *g) {
    if (g->arena.mem != NULL) { /* else never opened */
        peft__map_free(&g->keys);
        peft__map_free(&g->index);
        peft__arena_free(&g->arena);
        peft__file_close(&g->file);
    }
    *g = (peft__gguf){0};
}

bool peft__gguf_probe(const char *path) {
    return peft__path_starts(path, "GGUF", 4);
}
