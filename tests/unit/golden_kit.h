/* golden_kit.h - files as earlier versions wrote them, in tests/golden, one folder a version: what a release has written is read by
 * those after it. They are of models, rows and values that this file makes by itself, so that they depend on nothing in the library.
 *
 *     tests/golden/checkpoint-VERSION/RUN/{state,next}.safetensors     golden_checkpoint_test.c
 *     tests/golden/adapters-VERSION/NAME/, NAME.gguf, expected.safetensors    golden_adapters_test.c
 *
 * A release that writes something else than the one before it gets folders of its own:
 *
 *     PEFT_GOLDEN_WRITE=1 build/tests/unit --filter golden_writes
 *
 * writes those of this version where they do not exist. Folders of releases stay as they are; what is new in a release is a new run or
 * adapter in the tables of the tests, which folders without it lack. */
#ifndef GOLDEN_KIT_H
#define GOLDEN_KIT_H

#include <dirent.h>

#include "api_kit.h"
#include "io/io.h"

#define GOLDEN_DIR "tests/golden"
enum { GOLDEN_VERSIONS = 32, GOLDEN_TENSORS = 96, GOLDEN_FLOATS = 1 << 14 };

static inline bool golden_writing(void) {
    return getenv("PEFT_GOLDEN_WRITE") != NULL;
}

/* Element i of the tensor of that name: in [-1, 1), a multiple of 2^-23. */
static inline float golden_value(const char *name, size_t i) {
    uint64_t h = 2166136261U;
    for (const char *c = name; *c != '\0'; c++) { h = ((h ^ (uint8_t)*c) * 16777619U) & 0xffffffffU; }
    h = (h ^ ((uint64_t)i * 2654435761U)) & 0xffffffffU;
    h = ((h ^ (h >> 15)) * 2246822519U) & 0xffffffffU;
    h = ((h ^ (h >> 13)) * 3266489917U) & 0xffffffffU;
    return (float)(int32_t)((h ^ (h >> 16)) >> 8) / 8388608.0F - 1.0F;
}

static inline size_t golden_size(int32_t ndim, const int64_t *dims) {
    size_t n = 1;
    for (int32_t d = 0; d < ndim; d++) { n *= (size_t)dims[d]; }
    return n;
}

/* The model of a config, its weights by golden_value: matrices of half that size, norms about 1. */
static inline peft_status golden_model(peft_context *ctx, const char *config, peft_model **out) {
    peft_status st = PEFT_OK;
    peft_model *shape = NULL;
    peft_options *o = NULL;
    const char *names[GOLDEN_TENSORS];
    int32_t types[GOLDEN_TENSORS], ndims[GOLDEN_TENSORS];
    int64_t dims[8 * GOLDEN_TENSORS] = {0};
    const void *data[GOLDEN_TENSORS];
    float *values = malloc(GOLDEN_FLOATS * sizeof *values), *next = values;
    if (values == NULL) { return PEFT_E_NOMEM; }
    TRY(api_model(ctx, config, &shape));
    size_t n = peft_model_tensor_count(shape);
    if (n > GOLDEN_TENSORS) { FAIL(PEFT_E_BUFFER, "the model has %zu tensors", n); }
    for (size_t i = 0; i < n; i++) {
        TRY(peft_model_tensor_info(shape, i, &names[i], &types[i], &ndims[i], &dims[8 * i]));
        size_t size = golden_size(ndims[i], &dims[8 * i]), len = strlen(names[i]);
        bool norm = strstr(names[i], "orm") != NULL && strcmp(names[i] + len - 7, ".weight") == 0;
        if ((size_t)(next - values) + size > GOLDEN_FLOATS) { FAIL(PEFT_E_BUFFER, "the model is larger than %d", (int)GOLDEN_FLOATS); }
        for (size_t k = 0; k < size; k++) {
            next[k] = (ndims[i] > 1 ? 0.5F : 0.125F) * golden_value(names[i], k) + (norm ? 1.0F : 0.0F);
        }
        data[i] = next;
        next += size;
    }
    TRY(api_options(ctx, "model", "{'load':'copy'}", &o));
    st = peft_model_create_from_tensors(ctx, config, strlen(config), names, types, ndims, dims, data, n, o, NULL, NULL, out);
out:
    peft_options_free(o);
    peft_model_free(shape);
    free(values);
    return st;
}

/* Gives every tensor of an adapter its values, or says where one has others. */
static inline peft_status golden_adapter(peft_adapters *a, const char *name, bool write) {
    peft_status st = PEFT_OK;
    float *values = malloc(GOLDEN_FLOATS * sizeof *values);
    if (values == NULL) { return PEFT_E_NOMEM; }
    for (size_t i = 0; i < peft_adapters_tensor_count(a, name); i++) {
        const char *tensor = NULL;
        size_t n = 0;
        TRY(peft_adapters_tensor_info(a, name, i, &tensor, NULL, NULL));
        TRY(peft_adapters_tensor_read(a, name, tensor, values, GOLDEN_FLOATS, &n));
        for (size_t k = 0; k < n; k++) {
            float v = 0.25F * golden_value(tensor, k);
            if (!write && values[k] != v) {
                FAIL(PEFT_E_NUMERIC, "%s: element %zu of \"%s\" is %a, expected %a", name, k, tensor, (double)values[k], (double)v);
            }
            values[k] = v;
        }
        if (write) { TRY(peft_adapters_tensor_write(a, name, tensor, values, n)); }
    }
out:
    free(values);
    return st;
}

static inline int golden_by_text(const void *a, const void *b) {
    return strcmp(a, b);
}

/* The folders of `kind` ("checkpoint"), the oldest text first. Returns how many there are. */
static inline size_t golden_versions(const char *kind, char out[GOLDEN_VERSIONS][64]) {
    size_t n = 0, len = strlen(kind);
    DIR *dir = opendir(GOLDEN_DIR);
    for (struct dirent *e; dir != NULL && n < GOLDEN_VERSIONS && (e = readdir(dir)) != NULL;) {
        if (strncmp(e->d_name, kind, len) != 0 || e->d_name[len] != '-' || strlen(e->d_name) > 63) { continue; }
        (void)snprintf(out[n++], 64, "%.63s", e->d_name);
    }
    if (dir != NULL) { (void)closedir(dir); }
    qsort(out, n, 64, golden_by_text);
    return n;
}

/* Where this version writes; NULL: the folder is there already, and stays. */
static inline const char *golden_new(const char *kind) {
    char name[64];
    (void)snprintf(name, sizeof name, "%s-%s", kind, peft_version_string());
    const char *path = runner_path(GOLDEN_DIR, name);
    return peft__path_exists(path) ? NULL : path;
}

/* Every tensor of the file `expected` is in the file `actual`, with the same bytes. */
static inline peft_status golden_same(peft__mem *mem, const char *actual, const char *expected) {
    peft_status st = PEFT_OK;
    peft__safetensors a, e;
    memset(&a, 0, sizeof a);
    memset(&e, 0, sizeof e);
    TRY(peft__safetensors_open(mem, actual, true, &a));
    TRY(peft__safetensors_open(mem, expected, true, &e));
    for (size_t i = 0; i < e.count; i++) {
        const peft__io_tensor *x = &e.tensors[i], *y = peft__safetensors_find(&a, x->name);
        if (y == NULL || y->size != x->size) { FAIL(PEFT_E_SHAPE, "%s: tensor \"%s\" of %s is missing", actual, x->name, expected); }
        if (memcmp(x->data, y->data, x->size) != 0) {
            FAIL(PEFT_E_NUMERIC, "%s: tensor \"%s\" has other bytes than in %s", actual, x->name, expected);
        }
    }
out:
    peft__safetensors_close(&a);
    peft__safetensors_close(&e);
    return st;
}

#endif
