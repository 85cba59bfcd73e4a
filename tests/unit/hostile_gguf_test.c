/* hostile_gguf_test.c - GGUF files that mean harm: each field of the header, of each key and of each tensor, with values that cannot be.
 *
 * A walk over a good file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) notes where its fields are. */
#include "hostile_kit.h"

typedef enum gguf_field { /* what a place holds */
    GGUF_COUNT,           /* of keys or tensors, u64 */
    GGUF_LENGTH,          /* of a text or an array, u64 */
    GGUF_TYPE,            /* of a value, u32 */
    GGUF_DIMS,            /* how many dimensions, u32 */
    GGUF_DIM,             /* one of them, u64 */
    GGUF_DTYPE,           /* of a tensor, u32 */
    GGUF_OFFSET           /* of a tensor's data, u64 */
} gguf_field;

typedef struct gguf_place {
    gguf_field field;
    size_t at;
    char of[64]; /* key or tensor; empty: of the file */
} gguf_place;

enum { GGUF_PLACES = 1024 };

typedef struct gguf_walk {
    const uint8_t *data;
    size_t at;
    gguf_place place[GGUF_PLACES];
    size_t n;
    char of[64];
} gguf_walk;

static void gguf_note(gguf_walk *w, gguf_field field) {
    if (w->n == GGUF_PLACES) { return; }
    gguf_place *p = &w->place[w->n++];
    p->field = field;
    p->at = w->at;
    memcpy(p->of, w->of, sizeof p->of);
}

static uint64_t gguf_u64(gguf_walk *w) {
    uint64_t v = peft__get_u64(w->data + w->at);
    w->at += 8;
    return v;
}

static uint32_t gguf_u32(gguf_walk *w) {
    uint32_t v = peft__get_u32(w->data + w->at);
    w->at += 4;
    return v;
}

static void gguf_text(gguf_walk *w, bool names) {
    if (names) { w->of[0] = '\0'; }
    gguf_note(w, GGUF_LENGTH);
    uint64_t n = gguf_u64(w);
    if (names) { (void)snprintf(w->of, sizeof w->of, "%.*s", (int)n, (const char *)w->data + w->at); }
    w->at += n;
}

static void gguf_value(gguf_walk *w, uint32_t type) {
    static const size_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    if (type == 8) {
        gguf_text(w, false);
    } else if (type == 9) {
        gguf_note(w, GGUF_TYPE);
        uint32_t element = gguf_u32(w);
        gguf_note(w, GGUF_LENGTH);
        uint64_t n = gguf_u64(w);
        size_t noted = w->n;
        for (uint64_t i = 0; i < n; i++) { gguf_value(w, element); }
        w->n = PEFT__MIN(w->n, noted + 2); /* two of a list's texts will do */
    } else {
        w->at += sizes[type];
    }
}

static void gguf_file(gguf_walk *w) {
    w->at = 8;
    gguf_note(w, GGUF_COUNT);
    uint64_t tensors = gguf_u64(w);
    gguf_note(w, GGUF_COUNT);
    uint64_t keys = gguf_u64(w);
    for (uint64_t i = 0; i < keys; i++) {
        gguf_text(w, true);
        gguf_note(w, GGUF_TYPE);
        gguf_value(w, gguf_u32(w));
    }
    for (uint64_t i = 0; i < tensors; i++) {
        gguf_text(w, true);
        gguf_note(w, GGUF_DIMS);
        uint32_t dims = gguf_u32(w);
        for (uint32_t d = 0; d < dims; d++) {
            gguf_note(w, GGUF_DIM);
            (void)gguf_u64(w);
        }
        gguf_note(w, GGUF_DTYPE);
        (void)gguf_u32(w);
        gguf_note(w, GGUF_OFFSET);
        (void)gguf_u64(w);
    }
}

/* The values that no such field may have; how many bytes it has. */
static size_t gguf_bad(gguf_field field, const uint64_t **values, size_t *n) {
    static const uint64_t counts[] = {(uint64_t)1 << 32, (uint64_t)1 << 61, UINT64_MAX, (uint64_t)1 << 24};
    static const uint64_t lengths[] = {(uint64_t)1 << 31, (uint64_t)1 << 40, (uint64_t)1 << 62, UINT64_MAX};
    static const uint64_t types[] = {13, 255, UINT32_MAX}, dims[] = {5, 0x7fffffff, UINT32_MAX}, dtypes[] = {4, 36, 999, UINT32_MAX};
    static const uint64_t dim[] = {(uint64_t)1 << 31, (uint64_t)1 << 40, (uint64_t)1 << 63, UINT64_MAX};
    static const uint64_t offsets[] = {1, (uint64_t)1 << 40, UINT64_MAX - 31, UINT64_MAX};
    switch (field) {
    case GGUF_COUNT: return *values = counts, *n = PEFT__COUNT(counts), 8;
    case GGUF_LENGTH: return *values = lengths, *n = PEFT__COUNT(lengths), 8;
    case GGUF_TYPE: return *values = types, *n = PEFT__COUNT(types), 4;
    case GGUF_DIMS: return *values = dims, *n = PEFT__COUNT(dims), 4;
    case GGUF_DIM: return *values = dim, *n = PEFT__COUNT(dim), 8;
    case GGUF_DTYPE: return *values = dtypes, *n = PEFT__COUNT(dtypes), 4;
    case GGUF_OFFSET: return *values = offsets, *n = PEFT__COUNT(offsets), 8;
    }
    return 0;
}

static bool gguf_place_holds(hostile *h, const gguf_place *p) {
    static const char *const names[] = {"count", "length", "type", "dimensions", "dimension", "tensor type", "offset"};
    const uint64_t *values = NULL;
    size_t n = 0, bytes = gguf_bad(p->field, &values, &n);
    bool good = true;
    for (size_t i = 0; i < n; i++) {
        char what[160], old[8], *at = h->whole + p->at;
        (void)snprintf(what, sizeof what, "%s of \"%s\": %llx", names[p->field], p->of, (unsigned long long)values[i]);
        memcpy(old, at, bytes);
        for (size_t b = 0; b < bytes; b++) { at[b] = (char)(values[i] >> (8 * b)); }
        bool tensor = p->field >= GGUF_DIMS;
        good = hostile_refused(h, h->whole, h->len, what, tensor && p->of[0] != '\0' ? p->of : NULL) && good;
        memcpy(at, old, bytes);
    }
    return good;
}

static peft_status gguf_opens(hostile *h) {
    peft_model *m = NULL;
    peft_status st = peft_model_open(h->ctx, h->dir, NULL, &m);
    peft_model_free(m);
    return st;
}

/* A model's file. */
static peft_status gguf_make(hostile *h) {
    peft_status st = PEFT_OK;
    peft_model *m = NULL;
    peft_adapters *a = NULL;
    TRY(hostile_begin(h));
    h->dir = runner_path(h->dir, "model.gguf");
    TRY(api_model(h->ctx, API_LLAMA, &m));
    TRY(peft_adapters_create(m, &a));
    TRY(peft_adapters_merge(a, "", h->dir, NULL));
    h->open = gguf_opens;
out:
    peft_adapters_free(a);
    peft_model_free(m);
    return st;
}

TEST(hostile_gguf_fields) {
    hostile h;
    gguf_walk *w = calloc(1, sizeof *w);
    CHECK(w != NULL);
    CHECK_OK(gguf_make(&h));
    CHECK(hostile_take(&h, NULL));
    w->data = (const uint8_t *)h.whole;
    gguf_file(w);
    bool good = w->n > 60;
    for (size_t i = 0; i < w->n; i += runner_few() && i > 20 ? 3 : 1) { good = gguf_place_holds(&h, &w->place[i]) && good; }
    CHECK(good);
    CHECK(hostile_as_it_was(&h));
    CHECK(h.cases >= (runner_few() ? 100 : 250));
    hostile_end(&h);
    free(w);
}

TEST(hostile_gguf_head_and_ends) {
    static const uint32_t versions[] = {0, 1, 4, 99, 0x03000000, UINT32_MAX};
    hostile h;
    char what[64];
    CHECK_OK(gguf_make(&h));
    CHECK(hostile_take(&h, NULL));
    bool good = true;
    for (size_t i = 0; i < PEFT__COUNT(versions); i++) {
        (void)snprintf(what, sizeof what, "version %x", (unsigned)versions[i]);
        peft__set_u32((uint8_t *)h.whole + 4, versions[i]);
        good = hostile_refused(&h, h.whole, h.len, what, versions[i] == 0x03000000 ? "big-endian" : "version") && good;
    }
    peft__set_u32((uint8_t *)h.whole + 4, 3);
    for (size_t len = 0; len < h.len; len += 1 + h.len / 60) {
        (void)snprintf(what, sizeof what, "cut at %zu", len);
        good = hostile_refused(&h, h.whole, len, what, NULL) && good;
    }
    good = hostile_spliced(&h, 0, 4, "GGJT", 4, "another magic", NULL) && good;
    CHECK(good);
    CHECK(hostile_as_it_was(&h));
    CHECK(h.cases >= 60);
    hostile_end(&h);
}
