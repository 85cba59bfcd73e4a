/* safetensors.c - reader of the safetensors container.
 *
 * Format (https://huggingface.co/docs/safetensors): u64 n, little-endian; n bytes of JSON, an object that starts
 * with '{' and may end in spaces; the data. The JSON has one entry a tensor,
 *     "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]},
 * offsets counting from the start of the data, and optionally "__metadata__", strings to strings. The spans of the
 * tensors cover the data without holes or overlaps. Tensors may have no dimensions (scalars) or dimensions of 0.
 *
 * Left out: shards and their index (model/), and any reading of the data. */
#include "io/io.h"

/* Bits of an element; types without a PEFT_DTYPE_* are here because their size is checked as well. */
typedef struct safetensors_dtype {
    const char *name;
    int32_t dtype; /* PEFT_DTYPE_* or PEFT__IO_DTYPE_OTHER */
    uint32_t bits;
} safetensors_dtype;

static const safetensors_dtype safetensors_dtypes[] = {
    {"F32", PEFT_DTYPE_F32, 32},         {"F16", PEFT_DTYPE_F16, 16},
    {"BF16", PEFT_DTYPE_BF16, 16},       {"F64", PEFT__IO_DTYPE_OTHER, 64},
    {"I64", PEFT__IO_DTYPE_OTHER, 64},   {"U64", PEFT__IO_DTYPE_OTHER, 64},
    {"C64", PEFT__IO_DTYPE_OTHER, 64},   {"I32", PEFT__IO_DTYPE_OTHER, 32},
    {"U32", PEFT__IO_DTYPE_OTHER, 32},   {"I16", PEFT__IO_DTYPE_OTHER, 16},
    {"U16", PEFT__IO_DTYPE_OTHER, 16},   {"I8", PEFT__IO_DTYPE_OTHER, 8},
    {"U8", PEFT__IO_DTYPE_OTHER, 8},     {"BOOL", PEFT__IO_DTYPE_OTHER, 8},
    {"F8_E4M3", PEFT__IO_DTYPE_OTHER, 8}, {"F8_E5M2", PEFT__IO_DTYPE_OTHER, 8},
    {"F8_E8M0", PEFT__IO_DTYPE_OTHER, 8}, {"F6_E2M3", PEFT__IO_DTYPE_OTHER, 6},
    {"F6_E3M2", PEFT__IO_DTYPE_OTHER, 6}, {"F4", PEFT__IO_DTYPE_OTHER, 4},
};

static const safetensors_dtype *safetensors_find_dtype(const peft__json *node) {
    for (size_t i = 0; i < PEFT__COUNT(safetensors_dtypes); i++) {
        if (peft__json_is(node, safetensors_dtypes[i].name)) { return &safetensors_dtypes[i]; }
    }
    return NULL;
}

/* Bytes of n elements of `bits`; types below a byte are packed and must fill whole bytes. */
static peft_status safetensors_size(int64_t n, const safetensors_dtype *d, size_t *out) {
    uint64_t whole = (uint64_t)n / 8;
    uint64_t rest = (uint64_t)n % 8 * d->bits;
    size_t size = 0;
    if (rest % 8 != 0) {
        return peft__fail(PEFT_E_FORMAT, "%lld elements of %s are no whole number of bytes", (long long)n, d->name);
    }
    if (whole > SIZE_MAX || !peft__mul((size_t)whole, d->bits, &size) || !peft__add(size, (size_t)(rest / 8), &size)) {
        return peft__fail(PEFT_E_FORMAT, "%lld elements of %s pass the address space", (long long)n, d->name);
    }
    *out = size;
    return PEFT_OK;
}

static peft_status safetensors_read_shape(const peft__json *shape, peft__io_tensor *t) {
    if (shape == NULL || shape->kind != PEFT__JSON_ARRAY) {
        return peft__fail(PEFT_E_FORMAT, "\"shape\" is missing or no array");
    }
    if (shape->len > PEFT__IO_MAX_DIMS) {
        return peft__fail(PEFT_E_FORMAT, "%zu dimensions, at most %d are possible", shape->len, (int)PEFT__IO_MAX_DIMS);
    }
    t->ndim = (int32_t)shape->len;
    for (size_t i = 0; i < shape->len; i++) {
        const peft__json *d = &shape->items[i];
        if (d->kind != PEFT__JSON_NUMBER || !d->is_int || d->i < 0) {
            return peft__fail(PEFT_E_FORMAT, "dimension %zu of \"shape\" is no integer of 0 or more", i);
        }
        t->dims[i] = d->i;
    }
    return PEFT_OK;
}

static peft_status safetensors_read_span(const peft__json *node, size_t limit, size_t *begin, size_t *end) {
    if (node == NULL || node->kind != PEFT__JSON_ARRAY || node->len != 2) {
        return peft__fail(PEFT_E_FORMAT, "\"data_offsets\" is missing or no array of two");
    }
    size_t v[2];
    for (size_t i = 0; i < 2; i++) {
        const peft__json *n = &node->items[i];
        if (n->kind != PEFT__JSON_NUMBER || !n->is_int || n->i < 0) {
            return peft__fail(PEFT_E_FORMAT, "\"data_offsets\" holds something else than integers of 0 or more");
        }
        if ((uint64_t)n->i > limit) {
            return peft__fail(PEFT_E_FORMAT, "data offset %lld lies outside the %zu bytes of data", (long long)n->i,
                              limit);
        }
        v[i] = (size_t)n->i;
    }
    if (v[0] > v[1]) {
        return peft__fail(PEFT_E_FORMAT, "data offsets [%zu, %zu) run backwards", v[0], v[1]);
    }
    *begin = v[0];
    *end = v[1];
    return PEFT_OK;
}

/* One entry of the header; errors do not yet say which tensor it was. */
static peft_status safetensors_read_entry(const peft__json *entry, const uint8_t *data, size_t limit,
                                          peft__io_tensor *t) {
    peft_status st = PEFT_OK;
    int64_t n = 0;
    size_t begin = 0;
    size_t end = 0;
    size_t size = 0;
    if (entry->kind != PEFT__JSON_OBJECT) { FAIL(PEFT_E_FORMAT, "its entry is no object"); }
    const peft__json *dtype = peft__json_get(entry, "dtype");
    if (dtype == NULL || dtype->kind != PEFT__JSON_STRING) { FAIL(PEFT_E_FORMAT, "\"dtype\" is missing or no string"); }
    const safetensors_dtype *d = safetensors_find_dtype(dtype);
    if (d == NULL) { FAIL(PEFT_E_UNSUPPORTED, "unknown dtype \"%.40s\"", dtype->str); }
    t->dtype = d->dtype;
    t->dtype_name = d->name;
    TRY(safetensors_read_shape(peft__json_get(entry, "shape"), t));
    TRY(peft__io_elements(t->ndim, t->dims, 0, &n));
    TRY(safetensors_size(n, d, &size));
    TRY(safetensors_read_span(peft__json_get(entry, "data_offsets"), limit, &begin, &end));
    if (end - begin != size) {
        FAIL(PEFT_E_FORMAT, "data offsets [%zu, %zu) are %zu bytes, its shape and dtype %s need %zu", begin, end,
             end - begin, d->name, size);
    }
    t->data = data + begin;
    t->size = size;
out:
    return st;
}

static peft_status safetensors_read_metadata(const peft__json *node, peft__safetensors *out) {
    if (node->kind != PEFT__JSON_OBJECT) { return peft__fail(PEFT_E_FORMAT, "\"__metadata__\" is no object"); }
    for (size_t i = 0; i < node->len; i++) {
        if (node->items[i].kind != PEFT__JSON_STRING) {
            return peft__fail(PEFT_E_FORMAT, "\"__metadata__\": the value of \"%.80s\" is no string",
                              node->keys[i].str);
        }
    }
    out->metadata = node;
    return PEFT_OK;
}

static peft_status safetensors_read_tensor(peft__safetensors *out, const peft__json *key, const peft__json *entry,
                                           const uint8_t *data, size_t limit) {
    peft_status st = PEFT_OK;
    peft__io_tensor *t = &out->tensors[out->count];
    if (key->len == 0 || key->len > PEFT__IO_MAX_NAME || memchr(key->str, '\0', key->len) != NULL) {
        return peft__fail(PEFT_E_FORMAT,
                          "the tensor name \"%.40s\" of %zu bytes is empty, longer than %d or holds a NUL", key->str,
                          key->len, (int)PEFT__IO_MAX_NAME);
    }
    t->name = key->str;
    st = safetensors_read_entry(entry, data, limit, t);
    if (st != PEFT_OK) {
        peft__fail_prefix("tensor \"%s\"", t->name);
        return st;
    }
    st = peft__map_put(&out->index, key->str, key->len, (int64_t)out->count);
    out->count++;
    return st;
}

static peft_status safetensors_read_header(peft__mem *mem, const char *path, peft__safetensors *out) {
    peft_status st = PEFT_OK;
    const peft__json *root = NULL;
    const uint8_t *bytes = out->file.data;
    size_t size = out->file.size;
    size_t room;
    if (size < 8) { FAIL(PEFT_E_FORMAT, "%s: %zu bytes are too short for a safetensors file", path, size); }
    uint64_t n = peft__get_u64(bytes);
    if (n > size - 8 || n > PEFT__SAFETENSORS_MAX_HEADER) {
        TRY(peft__path_no_lfs_pointer(path));
        FAIL(PEFT_E_FORMAT, "%s: the header claims %llu bytes, the file has %zu after its length (limit %d)", path,
             (unsigned long long)n, size - 8, (int)PEFT__SAFETENSORS_MAX_HEADER);
    }
    if (n < 2 || bytes[8] != '{') { FAIL(PEFT_E_FORMAT, "%s: the header does not start with '{'", path); }
    const uint8_t *data = bytes + 8 + n;
    size_t limit = size - 8 - (size_t)n;
    TRY(peft__json_parse(&out->arena, (const char *)bytes + 8, (size_t)n, path, &root));
    if (root->len > PEFT__IO_MAX_TENSORS) {
        FAIL(PEFT_E_FORMAT, "%s: %zu tensors, at most %d are possible", path, root->len, (int)PEFT__IO_MAX_TENSORS);
    }
    if (!peft__mul(root->len, sizeof *out->tensors, &room)) { FAIL(PEFT_E_NOMEM, "%s: too many tensors", path); }
    out->tensors = peft__arena_alloc(&out->arena, room);
    if (out->tensors == NULL) {
        st = PEFT_E_NOMEM;
        goto out;
    }
    for (size_t i = 0; i < root->len && st == PEFT_OK; i++) {
        const peft__json *key = &root->keys[i];
        st = peft__json_is(key, "__metadata__") ? safetensors_read_metadata(&root->items[i], out)
                                                : safetensors_read_tensor(out, key, &root->items[i], data, limit);
    }
    if (st == PEFT_OK) { st = peft__io_check_spans(mem, out->tensors, out->count, data, limit, true); }
    if (st != PEFT_OK) { peft__fail_prefix("%s", path); }
out:
    return st;
}

peft_status peft__safetensors_open(peft__mem *mem, const char *path, bool copy, peft__safetensors *out) {
    *out = (peft__safetensors){0};
    peft_status st = peft__file_open(mem, path, copy, &out->file);
    if (st != PEFT_OK) {
        *out = (peft__safetensors){0};
        return st;
    }
    peft__arena_init(&out->arena, mem);
    peft__map_init(&out->index, mem);
    st = safetensors_read_header(mem, path, out);
    if (st != PEFT_OK) { peft__safetensors_close(out); }
    return st;
}

void peft__safetensors_close(peft__safetensors *st) {
    if (st->arena.mem != NULL) { /* else never opened */
        peft__map_free(&st->index);
        peft__arena_free(&st->arena);
        peft__file_close(&st->file);
    }
    *st = (peft__safetensors){0};
}

const peft__io_tensor *peft__safetensors_find(const peft__safetensors *st, const char *name) {
    int64_t i = peft__map_get(&st->index, name, strlen(name));
    return i >= 0 ? &st->tensors[i] : NULL;
}
