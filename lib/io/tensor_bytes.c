/* tensor_bytes.c - what both tensor formats share: sizes of types and tensors, checks of spans, streaming to a file.
 *
 * Block sizes are those of ggml (ggml-common.h): a block of `elems` consecutive elements of the fastest dimension takes
 * `bytes` bytes. Types with an elems of 1 are plain.
 *
 * Left out: what is inside a block (kernels/). */
#include "io/io.h"

static const peft__ggml_type tensor_types[] = {
    {PEFT_DTYPE_F32, true, 4, 1, "F32"},
    {PEFT_DTYPE_F16, true, 2, 1, "F16"},
    {PEFT_DTYPE_Q4_0, true, 18, 32, "Q4_0"},
    {PEFT_DTYPE_Q4_1, true, 20, 32, "Q4_1"},
    {PEFT_DTYPE_Q5_0, true, 22, 32, "Q5_0"},
    {PEFT_DTYPE_Q5_1, true, 24, 32, "Q5_1"},
    {PEFT_DTYPE_Q8_0, true, 34, 32, "Q8_0"},
    {9, false, 36, 32, "Q8_1"},
    {10, false, 84, 256, "Q2_K"},
    {11, false, 110, 256, "Q3_K"},
    {PEFT_DTYPE_Q4_K, true, 144, 256, "Q4_K"},
    {PEFT_DTYPE_Q5_K, true, 176, 256, "Q5_K"},
    {PEFT_DTYPE_Q6_K, true, 210, 256, "Q6_K"},
    {15, false, 292, 256, "Q8_K"},
    {16, false, 66, 256, "IQ2_XXS"},
    {17, false, 74, 256, "IQ2_XS"},
    {18, false, 98, 256, "IQ3_XXS"},
    {19, false, 50, 256, "IQ1_S"},
    {20, false, 18, 32, "IQ4_NL"},
    {21, false, 110, 256, "IQ3_S"},
    {22, false, 82, 256, "IQ2_S"},
    {23, false, 136, 256, "IQ4_XS"},
    {24, false, 1, 1, "I8"},
    {25, false, 2, 1, "I16"},
    {26, false, 4, 1, "I32"},
    {27, false, 8, 1, "I64"},
    {28, false, 8, 1, "F64"},
    {29, false, 56, 256, "IQ1_M"},
    {PEFT_DTYPE_BF16, true, 2, 1, "BF16"},
    {34, false, 54, 256, "TQ1_0"},
    {35, false, 66, 256, "TQ2_0"},
    {39, false, 17, 32, "MXFP4"},
    {40, false, 36, 64, "NVFP4"},
    {41, false, 18, 128, "Q1_0"},
    {42, false, 18, 64, "Q2_0"},
};

const peft__ggml_type *peft__ggml_type_find(uint32_t id) {
    for (size_t i = 0; i < PEFT__COUNT(tensor_types); i++) {
        if ((uint32_t)tensor_types[i].id == id) { return &tensor_types[i]; }
    }
    return NULL;
}

static const peft__ggml_type *tensor_own_type(int32_t dtype) {
    const peft__ggml_type *t = dtype >= 0 ? peft__ggml_type_find((uint32_t)dtype) : NULL;
    return t != NULL && t->ours ? t : NULL;
}

size_t peft__io_block_bytes(int32_t dtype) {
    const peft__ggml_type *t = tensor_own_type(dtype);
    return t != NULL ? t->bytes : 0;
}

int64_t peft__io_block_size(int32_t dtype) {
    const peft__ggml_type *t = tensor_own_type(dtype);
    return t != NULL ? t->elems : 0;
}

const char *peft__io_dtype_name(int32_t dtype) {
    const peft__ggml_type *t = tensor_own_type(dtype);
    return t != NULL ? t->name : "?";
}

peft_status peft__io_elements(int32_t ndim, const int64_t *dims, int64_t least, int64_t *out) {
    int64_t product = 1;
    bool empty = false;
    for (int32_t i = 0; i < ndim; i++) {
        if (dims[i] < least) {
            return peft__fail(PEFT_E_FORMAT, "dimension %d is %lld, expected %lld or more", (int)i, (long long)dims[i],
                              (long long)least);
        }
        int64_t d = dims[i];
        if (d == 0) {
            empty = true;
            d = 1;
        }
        if (product > INT64_MAX / d) {
            return peft__fail(PEFT_E_FORMAT, "the product of %d dimensions passes 2^63", (int)ndim);
        }
        product *= d;
    }
    *out = empty ? 0 : product;
    return PEFT_OK;
}

peft_status peft__io_bytes(int32_t ndim, const int64_t *dims, int64_t least, size_t bytes, int64_t elems, size_t *out) {
    int64_t n = 0;
    peft_status st = peft__io_elements(ndim, dims, least, &n);
    if (st != PEFT_OK) { return st; }
    int64_t row = ndim > 0 ? dims[ndim - 1] : 1;
    if (row % elems != 0) {
        return peft__fail(PEFT_E_FORMAT, "rows of %lld elements are no whole blocks of %lld", (long long)row,
                          (long long)elems);
    }
    uint64_t blocks = (uint64_t)(n / elems);
    size_t size = 0;
    if (blocks > SIZE_MAX || !peft__mul((size_t)blocks, bytes, &size)) {
        return peft__fail(PEFT_E_FORMAT, "%lld elements pass the address space", (long long)n);
    }
    *out = size;
    return PEFT_OK;
}

/* ---- spans ------------------------------------------------------------------------------------------------------- */

typedef struct tensor_span {
    size_t begin, end; /* bytes of the data section */
    size_t tensor;     /* position in the list */
} tensor_span;

static bool tensor_span_less(const tensor_span *a, const tensor_span *b) {
    if (a->begin != b->begin) { return a->begin < b->begin; }
    if (a->end != b->end) { return a->end < b->end; }
    return a->tensor < b->tensor;
}

static void tensor_span_sink(tensor_span *s, size_t root, size_t count) {
    tensor_span v = s[root];
    for (;;) {
        size_t child = 2 * root + 1;
        if (child >= count) { break; }
        if (child + 1 < count && tensor_span_less(&s[child], &s[child + 1])) { child++; }
        if (!tensor_span_less(&v, &s[child])) { break; }
        s[root] = s[child];
        root = child;
    }
    s[root] = v;
}

/* Heap sort: no memory (qsort of the C library may take some behind the allocator's back), no bad case. */
static void tensor_span_sort(tensor_span *s, size_t count) {
    bool sorted = true;
    for (size_t i = 1; i < count && sorted; i++) { sorted = !tensor_span_less(&s[i], &s[i - 1]); }
    if (sorted) { return; }
    for (size_t i = count / 2; i-- > 0;) { tensor_span_sink(s, i, count); }
    for (size_t end = count - 1; end > 0; end--) {
        tensor_span v = s[0];
        s[0] = s[end];
        s[end] = v;
        tensor_span_sink(s, 0, end);
    }
}

static peft_status tensor_scan_spans(const peft__io_tensor *tensors, const tensor_span *s, size_t count, size_t size,
                                     bool dense) {
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        const char *name = tensors[s[i].tensor].name;
        if (s[i].begin < at) {
            return peft__fail(PEFT_E_FORMAT,
                              "tensors \"%s\" and \"%s\" overlap: bytes [%zu, %zu) and [%zu, %zu) of the data",
                              tensors[s[i - 1].tensor].name, name, s[i - 1].begin, s[i - 1].end, s[i].begin, s[i].end);
        }
        if (dense && s[i].begin > at) {
            return peft__fail(PEFT_E_FORMAT, "bytes [%zu, %zu) of the data, before tensor \"%s\", belong to no tensor",
                              at, s[i].begin, name);
        }
        at = s[i].end;
    }
    if (dense && at != size) {
        return peft__fail(PEFT_E_FORMAT, "bytes [%zu, %zu) at the end of the data belong to no tensor", at, size);
    }
    return PEFT_OK;
}

peft_status peft__io_check_spans(peft__mem *mem, const peft__io_tensor *tensors, size_t count, const uint8_t *data,
                                 size_t size, bool dense) {
    size_t bytes;
    if (!peft__mul(count, sizeof(tensor_span), &bytes)) {
        return peft__fail(PEFT_E_NOMEM, "%zu tensors are too many", count);
    }
    tensor_span *s = peft__alloc(mem, bytes);
    if (s == NULL) { return PEFT_E_NOMEM; }
    for (size_t i = 0; i < count; i++) {
        size_t begin = (size_t)(tensors[i].data - data);
        s[i] = (tensor_span){.begin = begin, .end = begin + tensors[i].size, .tensor = i};
    }
    if (count > 0) { tensor_span_sort(s, count); }
    peft_status st = tensor_scan_spans(tensors, s, count, size, dense);
    peft__free(mem, s, bytes);
    return st;
}

/* ---- sources of a writer ----------------------------------------------------------------------------------------- */

static peft_status tensor_check_name(peft__map *seen, const peft__io_source *t, size_t i, size_t longest) {
    if (t->name == NULL || t->name[0] == '\0') { return peft__fail(PEFT_E_INVALID, "tensor %zu has no name", i); }
    size_t len = strlen(t->name);
    if (len > longest) {
        return peft__fail(PEFT_E_UNSUPPORTED, "tensor \"%.80s\": the name has %zu bytes, at most %zu are possible",
                          t->name, len, longest);
    }
    if (!peft__utf8_valid(t->name, len)) {
        return peft__fail(PEFT_E_INVALID, "the name of tensor %zu is not valid UTF-8", i);
    }
    peft_status st = peft__map_put(seen, t->name, len, (int64_t)i);
    if (st == PEFT_E_EXISTS) { st = peft__fail(PEFT_E_EXISTS, "tensor \"%s\" is given twice", t->name); }
    return st;
}

peft_status peft__io_check_names(peft__mem *mem, const peft__io_source *tensors, size_t count, size_t longest) {
    peft_status st = PEFT_OK;
    peft__map seen;
    peft__map_init(&seen, mem);
    for (size_t i = 0; i < count && st == PEFT_OK; i++) { st = tensor_check_name(&seen, &tensors[i], i, longest); }
    peft__map_free(&seen);
    return st;
}

peft_status peft__io_stream(peft__save *save, const peft__io_source *t, size_t size, void *piece) {
    if (t->data != NULL || size == 0) { return size > 0 ? peft__save_write(save, t->data, size) : PEFT_OK; }
    size_t block = PEFT__MAX(peft__io_block_bytes(t->dtype), (size_t)1);
    size_t most = PEFT__IO_PIECE / block * block;
    for (size_t pos = 0; pos < size;) {
        size_t n = PEFT__MIN(most, size - pos);
        peft_status st = t->produce(t->user, piece, pos, n);
        if (st == PEFT_OK) { st = peft__save_write(save, piece, n); }
        if (st != PEFT_OK) { return st; }
        pos += n;
    }
    return PEFT_OK;
}
