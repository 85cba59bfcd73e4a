/* gguf.c - GGUF files that mean harm: each field of the header, of each key and of each tensor, the meaning of each key of a model and of
 * a tokenizer; and unusual files that are right.
 *
 * A walk over a good file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) notes where its fields are. */
#include "hostile.h"

typedef enum gguf_field { GGUF_COUNT, GGUF_KEY, GGUF_LENGTH, GGUF_TYPE, GGUF_ELEMENT, GGUF_ELEMENTS, GGUF_NAME, GGUF_DIMS, GGUF_DIM,
                          GGUF_DTYPE, GGUF_OFFSET, GGUF_FIELDS } gguf_field;

typedef struct gguf_place {
    gguf_field field;
    size_t at;
    char of[64]; /* key or tensor; empty: of the file, or not yet known */
} gguf_place;

enum { GGUF_PLACES = 1024 };

typedef struct gguf_walk {
    const uint8_t *data;
    size_t at, n, first_kv, first_tensor; /* the last two: places in data */
    gguf_place place[GGUF_PLACES];
    char of[64];
} gguf_walk;

static void gguf_note(gguf_walk *w, gguf_field field) {
    if (w->n == GGUF_PLACES) { return; }
    gguf_place *p = &w->place[w->n++];
    p->field = field;
    p->at = w->at;
    memcpy(p->of, w->of, sizeof p->of);
}

static uint64_t gguf_word(gguf_walk *w, size_t bytes) {
    uint64_t v = bytes == 8 ? peft__get_u64(w->data + w->at) : peft__get_u32(w->data + w->at);
    w->at += bytes;
    return v;
}

static void gguf_text(gguf_walk *w, gguf_field field) {
    if (field != GGUF_LENGTH) { w->of[0] = '\0'; }
    gguf_note(w, field);
    uint64_t n = gguf_word(w, 8);
    if (field != GGUF_LENGTH) { (void)snprintf(w->of, sizeof w->of, "%.*s", (int)n, (const char *)w->data + w->at); }
    w->at += n;
}

static void gguf_value(gguf_walk *w, uint32_t type) {
    static const size_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    if (type == 8) {
        gguf_text(w, GGUF_LENGTH);
    } else if (type == 9) {
        gguf_note(w, GGUF_ELEMENT);
        uint32_t element = (uint32_t)gguf_word(w, 4);
        gguf_note(w, GGUF_ELEMENTS);
        uint64_t n = gguf_word(w, 8);
        size_t noted = w->n;
        for (uint64_t i = 0; i < n; i++) { gguf_value(w, element); }
        w->n = PEFT__MIN(w->n, noted + 2); /* two of a list's texts will do */
    } else {
        w->at += sizes[type];
    }
}

static void gguf_file(gguf_walk *w, const hostile *h) {
    memset(w, 0, sizeof *w);
    w->data = (const uint8_t *)h->good;
    w->at = 8;
    gguf_note(w, GGUF_COUNT);
    uint64_t tensors = gguf_word(w, 8);
    gguf_note(w, GGUF_COUNT);
    uint64_t keys = gguf_word(w, 8);
    w->first_kv = w->at;
    for (uint64_t i = 0; i < keys; i++) {
        gguf_text(w, GGUF_KEY);
        gguf_note(w, GGUF_TYPE);
        gguf_value(w, (uint32_t)gguf_word(w, 4));
    }
    w->first_tensor = w->at;
    for (uint64_t i = 0; i < tensors; i++) {
        gguf_text(w, GGUF_NAME);
        gguf_note(w, GGUF_DIMS);
        uint64_t dims = gguf_word(w, 4);
        for (uint64_t d = 0; d < dims; d++) {
            gguf_note(w, GGUF_DIM);
            (void)gguf_word(w, 8);
        }
        gguf_note(w, GGUF_DTYPE);
        (void)gguf_word(w, 4);
        gguf_note(w, GGUF_OFFSET);
        (void)gguf_word(w, 8);
    }
}

/* ---- fields ----------------------------------------------------------------------------------------------------- */

typedef struct gguf_bad {
    uint64_t value;
    peft_status status;
} gguf_bad;

/* What no such field may hold. */
static const struct {
    const char *name;
    size_t bytes;
    gguf_bad bad[5]; /* up to the first of status PEFT_OK */
} gguf_fields[GGUF_FIELDS] = {
    [GGUF_COUNT] = {"count", 8, {{(uint64_t)1 << 24, PEFT_E_FORMAT}, {(uint64_t)1 << 32, PEFT_E_FORMAT}, {(uint64_t)1 << 61, PEFT_E_FORMAT},
                                 {UINT64_MAX, PEFT_E_FORMAT}}},
    [GGUF_KEY] = {"length of key", 8, {{0, PEFT_E_FORMAT}, {1025, PEFT_E_FORMAT}, {(uint64_t)1 << 31, PEFT_E_FORMAT},
                                       {(uint64_t)1 << 62, PEFT_E_FORMAT}, {UINT64_MAX, PEFT_E_FORMAT}}},
    [GGUF_LENGTH] = {"length", 8, {{(uint64_t)1 << 31, PEFT_E_FORMAT}, {(uint64_t)1 << 40, PEFT_E_FORMAT},
        {(uint64_t)1 << 63, PEFT_E_FORMAT},
                                   {UINT64_MAX - 7, PEFT_E_FORMAT}, {UINT64_MAX, PEFT_E_FORMAT}}},
    [GGUF_TYPE] = {"type", 4, {{13, PEFT_E_UNSUPPORTED}, {255, PEFT_E_UNSUPPORTED}, {UINT32_MAX, PEFT_E_UNSUPPORTED}}},
    [GGUF_ELEMENT] = {"type of elements", 4, {{9, PEFT_E_UNSUPPORTED}, {13, PEFT_E_UNSUPPORTED}, {UINT32_MAX, PEFT_E_UNSUPPORTED}}},
    [GGUF_ELEMENTS] = {"number of elements", 8, {{(uint64_t)1 << 31, PEFT_E_FORMAT}, {((uint64_t)1 << 61) + 1, PEFT_E_FORMAT},
                                                 {((uint64_t)1 << 62) + 1, PEFT_E_FORMAT}, {UINT64_MAX, PEFT_E_FORMAT}}},
    [GGUF_NAME] = {"length of name", 8, {{0, PEFT_E_FORMAT}, {1025, PEFT_E_FORMAT}, {(uint64_t)1 << 32, PEFT_E_FORMAT},
                                         {(uint64_t)1 << 62, PEFT_E_FORMAT}, {UINT64_MAX, PEFT_E_FORMAT}}},
    [GGUF_DIMS] = {"number of dimensions", 4, {{5, PEFT_E_FORMAT}, {0x7fffffff, PEFT_E_FORMAT}, {UINT32_MAX, PEFT_E_FORMAT}}},
    [GGUF_DIM] = {"dimension", 8, {{(uint64_t)1 << 31, PEFT_E_FORMAT}, {(uint64_t)1 << 40, PEFT_E_FORMAT},
        {(uint64_t)1 << 62, PEFT_E_FORMAT},
                                   {(uint64_t)1 << 63, PEFT_E_FORMAT}, {UINT64_MAX, PEFT_E_FORMAT}}},
    [GGUF_DTYPE] = {"tensor type", 4, {{4, PEFT_E_UNSUPPORTED}, {36, PEFT_E_UNSUPPORTED}, {999, PEFT_E_UNSUPPORTED},
                                       {UINT32_MAX, PEFT_E_UNSUPPORTED}}},
    [GGUF_OFFSET] = {"offset", 8, {{1, PEFT_E_FORMAT}, {(uint64_t)1 << 40, PEFT_E_FORMAT}, {(uint64_t)1 << 62, PEFT_E_FORMAT},
                                   {UINT64_MAX - 31, PEFT_E_FORMAT}, {UINT64_MAX, PEFT_E_FORMAT}}},
};

static void gguf_places(hostile *h, const gguf_walk *w, size_t step) {
    char what[200];
    uint8_t word[8];
    size_t seen[GGUF_FIELDS] = {0};
    for (size_t p = 0; p < w->n; p++) {
        const gguf_place *place = &w->place[p];
        if (seen[place->field]++ % (place->field <= GGUF_KEY ? 1 : step) != 0) { continue; }
        for (size_t i = 0; i < 5 && gguf_fields[place->field].bad[i].status != PEFT_OK; i++) {
            const gguf_bad *bad = &gguf_fields[place->field].bad[i];
            (void)snprintf(what, sizeof what, "%s of \"%s\" is %llx", gguf_fields[place->field].name, place->of,
                (unsigned long long)bad->value);
            peft__set_u64(word, bad->value);
            hostile_spliced(h, what, place->at, gguf_fields[place->field].bytes, word, gguf_fields[place->field].bytes, bad->status,
                            place->of[0] != '\0' ? place->of : NULL);
        }
    }
}

static void gguf_head(hostile *h) {
    static const struct {
        uint32_t version;
        peft_status status;
        const char *culprit;
    } versions[] = {{0, PEFT_E_FORMAT, "version 0"}, {1, PEFT_E_UNSUPPORTED, "version 1"}, {4, PEFT_E_VERSION, "version 4"},
                    {99, PEFT_E_VERSION, "version 99"}, {0x02000000, PEFT_E_UNSUPPORTED, "big-endian"},
                    {0x03000000, PEFT_E_UNSUPPORTED, "big-endian"}, {UINT32_MAX, PEFT_E_VERSION, "version 4294967295"}};
    static const char *const magics[] = {"GGJT", "GGLA", "gguf", "FUGG", "\0\0\0\0", "PK\3\4"};
    uint8_t word[8];
    char what[64];
    for (size_t i = 0; i < PEFT__COUNT(versions); i++) {
        (void)snprintf(what, sizeof what, "version %x", (unsigned)versions[i].version);
        peft__set_u64(word, versions[i].version);
        hostile_spliced(h, what, 4, 4, word, 4, versions[i].status, versions[i].culprit);
    }
    for (size_t i = 0; i < PEFT__COUNT(magics); i++) {
        hostile_spliced(h, "another magic", 0, 4, magics[i], 4, PEFT_E_FORMAT, NULL);
    }
}

/* ---- keys ------------------------------------------------------------------------------------------------------- */

typedef struct gguf_key { /* the value of a key of the same type */
    const char *key;
    size_t bytes;
    uint64_t value;
    peft_status status;
} gguf_key;

static uint64_t gguf_f32(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static void gguf_sizes(hostile *h, const gguf_walk *w) {
    static const char *const sizes[] = {"llama.vocab_size", "llama.context_length", "llama.embedding_length", "llama.block_count",
                                        "llama.feed_forward_length", "llama.attention.head_count", "llama.attention.head_count_kv",
                                        "llama.attention.key_length", "llama.rope.dimension_count"};
    static const peft_status another[PEFT__COUNT(sizes)] = {PEFT_E_SHAPE, PEFT_OK, PEFT_E_SHAPE, PEFT_E_NOT_FOUND, PEFT_E_SHAPE,
        PEFT_E_SHAPE,
                                                            PEFT_E_SHAPE, PEFT_E_UNSUPPORTED, PEFT_E_FORMAT}; /* one more than it is */
    static const uint32_t values[] = {0, 0x7fffffff, 0x80000000, UINT32_MAX};
    static const uint32_t types[] = {6, 8}; /* of a number as float32; of four bytes as a text */
    uint8_t word[8];
    char what[200];
    for (size_t p = 0; p < w->n; p++) {
        if (w->place[p].field != GGUF_TYPE) { continue; }
        for (size_t k = 0; k < PEFT__COUNT(sizes); k++) {
            if (strcmp(w->place[p].of, sizes[k]) != 0) { continue; }
            for (size_t i = 0; i < PEFT__COUNT(values); i++) {
                (void)snprintf(what, sizeof what, "%s is %u", sizes[k], (unsigned)values[i]);
                peft__set_u64(word, values[i]);
                hostile_spliced(h, what, w->place[p].at + 4, 4, word, 4, PEFT_E_FORMAT, sizes[k]);
            }
            for (size_t i = 0; i < PEFT__COUNT(types); i++) {
                (void)snprintf(what, sizeof what, "%s is of type %u", sizes[k], (unsigned)types[i]);
                peft__set_u64(word, types[i]);
                hostile_spliced(h, what, w->place[p].at, 4, word, 4, PEFT_E_FORMAT, sizes[k]);
            }
            (void)snprintf(what, sizeof what, "%s is another number", sizes[k]);
            peft__set_u64(word, peft__get_u32((const uint8_t *)h->good + w->place[p].at + 4) + 1);
            hostile_spliced(h, what, w->place[p].at + 4, 4, word, 4, another[k], NULL);
        }
    }
}

static void gguf_floats(hostile *h, const gguf_walk *w) {
    static const char *const keys[] = {"llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base"};
    const float values[] = {NAN, INFINITY, -INFINITY, -1};
    uint8_t word[8];
    char what[200];
    for (size_t p = 0; p < w->n; p++) {
        for (size_t k = 0; w->place[p].field == GGUF_TYPE && k < PEFT__COUNT(keys); k++) {
            if (strcmp(w->place[p].of, keys[k]) != 0) { continue; }
            for (size_t i = 0; i < PEFT__COUNT(values); i++) {
                (void)snprintf(what, sizeof what, "%s is %g", keys[k], (double)values[i]);
                peft__set_u64(word, gguf_f32(values[i]));
                hostile_spliced(h, what, w->place[p].at + 4, 4, word, 4, PEFT_E_FORMAT, i < 3 ? keys[k] : k == 0 ? "epsilon" : "rope base");
            }
            peft__set_u64(word, 7);
            (void)snprintf(what, sizeof what, "%s is a bool", keys[k]);
            hostile_spliced(h, what, w->place[p].at, 8, (const uint8_t[5]){7, 0, 0, 0, 1}, 5, PEFT_E_FORMAT, keys[k]);
        }
    }
}

/* A key of its own in front of the others: its bytes are those of key, type and value. */
static size_t gguf_entry(uint8_t *out, const char *key, uint32_t type, const void *value, size_t n) {
    size_t len = strlen(key);
    peft__set_u64(out, len);
    memcpy(out + 8, key, len);
    peft__set_u32(out + 8 + len, type);
    memcpy(out + 12 + len, value, n);
    return 12 + len + n;
}

/* The file with `more` keys, whose bytes are `entry`, in front; padded so that the data lies as before. */
static char *gguf_with(const hostile *h, const gguf_walk *w, const uint8_t *entry, size_t n, uint64_t more, size_t alignment, size_t *len) {
    size_t head = w->at, old = (head + 31) / 32 * 32, at = (head + n + alignment - 1) / alignment * alignment;
    char *data = calloc(1, at + h->len);
    if (data == NULL) { return NULL; }
    memcpy(data, h->good, w->first_kv);
    peft__set_u64((uint8_t *)data + 16, peft__get_u64((const uint8_t *)h->good + 16) + more);
    memcpy(data + w->first_kv, entry, n);
    memcpy(data + w->first_kv + n, h->good + w->first_kv, head - w->first_kv);
    memcpy(data + at, h->good + old, h->len - old);
    *len = at + h->len - old;
    return data;
}

static void gguf_more_keys(hostile *h, const gguf_walk *w) {
    static const struct {
        const char *key;
        uint32_t type;
        const char *value;
        size_t bytes;
        peft_status status;
        const char *culprit; /* NULL: the key */
    } keys[] = {
        {"general.alignment", 4, "\0\0\0", 4, PEFT_E_FORMAT, NULL}, {"general.alignment", 4, "\3\0\0", 4, PEFT_E_FORMAT, NULL},
        {"general.alignment", 4, "\377\377\377\377", 4, PEFT_E_FORMAT, NULL}, {"general.alignment", 4, "\0\0\0\1", 4, PEFT_E_FORMAT, NULL},
        {"general.alignment", 6, "\0\0\0\102", 4, PEFT_E_FORMAT, NULL},
        {"general.alignment", 10, "\40\0\0\0\0\0\0", 8, PEFT_E_FORMAT, NULL},
        {"split.count", 2, "\3\0", 2, PEFT_E_UNSUPPORTED, NULL}, {"split.count", 6, "\0\0\200?", 4, PEFT_E_FORMAT, NULL},
        {"general.name", 4, "\1\0\0", 4, PEFT_E_FORMAT, "twice"}, {"llama.block_count", 4, "\2\0\0", 4, PEFT_E_FORMAT, "twice"},
        {"a\xFF", 4, "\2\0\0", 4, PEFT_E_FORMAT, "not valid UTF-8"},
        {"big", 10, "\377\377\377\377\377\377\377\377", 8, PEFT_E_UNSUPPORTED, NULL},
        {"note", 9, "\11\0\0\0\1\0\0\0\0\0\0\0", 12, PEFT_E_UNSUPPORTED, NULL},
        /* unusual, and right */
        {"note", 8, "\0\0\0\0\0\0\0", 8, PEFT_OK, "a key that nobody knows"},
        {"caf\xC3\xA9", 8, "\2\0\0\0\0\0\0\0\xFF\xFE", 10, PEFT_OK, "a text of bytes that are no UTF-8"},
        {"note", 9, "\10\0\0\0\0\0\0\0\0\0\0\0", 12, PEFT_OK, "an empty list of texts"},
        {"note", 9, "\4\0\0\0\2\0\0\0\0\0\0\0\1\0\0\0\2\0\0\0", 20, PEFT_OK, "a list of numbers"},
        {"note", 7, "\2", 1, PEFT_OK, "a bool of 2"}, {"note", 12, "\0\0\0\0\0\0\370\177", 8, PEFT_OK, "a NaN that nobody asks for"},
        {"note", 0, "\377", 1, PEFT_OK, "a byte, after which nothing is aligned"},
        {"split.count", 2, "\1\0", 2, PEFT_OK, "one part of one"},
        {"general.alignment", 4, "\40\0\0", 4, PEFT_OK, "the alignment that it is"},
        {"general.alignment", 4, "\20\0\0", 4, PEFT_OK, "a smaller alignment"},
        {"general.alignment", 4, "\1\0\0", 4, PEFT_OK, "no alignment"},
    };
    uint8_t entry[128];
    char what[200];
    for (size_t i = 0; i < PEFT__COUNT(keys); i++) {
        size_t n = gguf_entry(entry, keys[i].key, keys[i].type, keys[i].value, keys[i].bytes), len = 0;
        size_t alignment = keys[i].status != PEFT_OK || strcmp(keys[i].key, "general.alignment") != 0 ? 32 : (uint8_t)keys[i].value[0];
        char *data = gguf_with(h, w, entry, n, 1, alignment, &len);
        (void)snprintf(what, sizeof what, "%s, case %zu: %.80s", keys[i].key, i, keys[i].status == PEFT_OK ? keys[i].culprit : "");
        if (data != NULL && keys[i].status == PEFT_OK) { hostile_taken(h, what, data, len); }
        if (data != NULL && keys[i].status != PEFT_OK) {
            hostile_refused(h, what, data, len, keys[i].status, keys[i].culprit != NULL ? keys[i].culprit : keys[i].key);
        }
        free(data);
    }
}

/* ---- tensors ---------------------------------------------------------------------------------------------------- */

static void gguf_tensors(hostile *h, const gguf_walk *w) {
    size_t offsets[2] = {0}, names = 0, n = 0;
    uint8_t word[8];
    for (size_t p = 0; p < w->n; p++) {
        const gguf_place *place = &w->place[p];
        if (place->field == GGUF_OFFSET && n < 2) { offsets[n++] = place->at; }
        if (place->field == GGUF_NAME && names++ % 5 == 1) { /* another name: the one is missing */
            uint64_t len = peft__get_u64((const uint8_t *)h->good + place->at);
            char wanted[64];
            (void)snprintf(wanted, sizeof wanted, "%.*s", (int)PEFT__MIN(len, 60), h->good + place->at + 8);
            hostile_spliced(h, wanted, place->at + 8, 1, "X", 1, PEFT_E_NOT_FOUND, wanted);
            hostile_spliced(h, "a NUL in a name", place->at + 9, 1, "\0", 1, PEFT_E_FORMAT, "NUL");
            hostile_spliced(h, "a name that is no UTF-8", place->at + 9, 1, "\xFF", 1, PEFT_E_FORMAT, "UTF-8");
        }
        if (place->field == GGUF_DTYPE && strstr(place->of, "attn_q") != NULL) {
            peft__set_u64(word, 2); /* Q4_0 has blocks of 32, and the rows 16 */
            hostile_spliced(h, "Q4_0 of rows of half a block", place->at, 4, word, 4, PEFT_E_FORMAT, place->of);
            peft__set_u64(word, 26); /* I32 */
            hostile_spliced(h, "weights of integers", place->at, 4, word, 4, PEFT_E_UNSUPPORTED, NULL);
        }
        if (place->field == GGUF_DIM && strstr(place->of, "attn_k") != NULL) {
            peft__set_u64(word, 0);
            hostile_spliced(h, "a dimension of 0", place->at, 8, word, 8, PEFT_E_FORMAT, place->of);
            peft__set_u64(word, 4);
            hostile_spliced(h, "a smaller dimension", place->at, 8, word, 8, PEFT_E_SHAPE, place->of);
        }
    }
    hostile_spliced(h, "two tensors at one place", offsets[1], 8, h->good + offsets[0], 8, PEFT_E_FORMAT, NULL);
}

static void gguf_model(void) {
    hostile h;
    gguf_walk *w = calloc(1, sizeof *w);
    if (w != NULL && hostile_begin(&h, "GGUF", hostile_open_model) && hostile_save_model(&h, API_LLAMA, "model.gguf") == PEFT_OK &&
        hostile_take(&h, "model.gguf", true)) {
        gguf_file(w, &h);
        gguf_head(&h);
        gguf_places(&h, w, 5);
        gguf_sizes(&h, w);
        gguf_floats(&h, w);
        gguf_more_keys(&h, w);
        gguf_tensors(&h, w);
        hostile_cuts(&h, w->at, 50, PEFT_E_FORMAT);
        hostile_refused(&h, "cut in its data", h.good, h.len - 1, PEFT_E_FORMAT, NULL);
        hostile_refused(&h, "cut before its data", h.good, w->at, PEFT_E_FORMAT, NULL);
    }
    hostile_end(&h);
    free(w);
}

/* ---- storage that changes ---------------------------------------------------------------------------------------- */

enum { GGUF_NEW = 12 };

static peft_status gguf_generate(hostile *h, const peft_model *m, int32_t out[GGUF_NEW], float logits[API_VOCAB]) {
    static const int32_t ids[3] = {1, 5, 9};
    static const int64_t one = 1;
    peft_status st = PEFT_OK;
    peft_session *s = NULL;
    peft_options *o = NULL;
    peft_batch *b = NULL;
    size_t n = 0;
    TRY(api_options(h->ctx, "generate", "{'max_new_tokens':12,'ignore_eos':true}", &o));
    TRY(peft_session_create((peft_model *)(uintptr_t)m, NULL, NULL, NULL, &s));
    TRY(peft_session_generate(s, NULL, ids, 3, o, NULL, NULL, out, GGUF_NEW, &n));
    TRY(api_batch(h->ctx, out, &one, 1, &b));
    TRY(peft_session_logits(s, b, logits, API_VOCAB, &n));
out:
    peft_batch_free(b);
    peft_options_free(o);
    peft_session_free(s);
    return st;
}

/* A file that is emptied under a model that was copied: it goes on with the same bits. (Under a mapped one the system ends the process:
 * peft.h says that such files are trusted not to shrink.) */
static void gguf_shrinks(void) {
    hostile h;
    peft_options *o = NULL;
    peft_model *m = NULL;
    int32_t before[GGUF_NEW] = {0}, after[GGUF_NEW] = {1};
    float logits[2][API_VOCAB] = {{0}, {1}};
    if (hostile_begin(&h, "load=copy", hostile_open_model) && hostile_save_model(&h, API_LLAMA, "model.gguf") == PEFT_OK &&
        hostile_take(&h, "model.gguf", true) &&
        api_options(h.ctx, "model", "{'load':'copy'}", &o) == PEFT_OK) {
        hostile_holds(&h, "opens", peft_model_open(h.ctx, h.what, o, &m) == PEFT_OK);
        hostile_holds(&h, "generates", gguf_generate(&h, m, before, logits[0]) == PEFT_OK);
        FILE *f = fopen(h.path, "wb"); /* the same file, not another in its place */
        hostile_holds(&h, "is emptied", f != NULL && fclose(f) == 0);
        hostile_holds(&h, "opens no more", h.open(&h, NULL) == PEFT_E_FORMAT);
        hostile_holds(&h, "goes on", gguf_generate(&h, m, after, logits[1]) == PEFT_OK);
        hostile_holds(&h, "the same tokens", memcmp(before, after, sizeof before) == 0);
        hostile_holds(&h, "the same bits", memcmp(logits[0], logits[1], sizeof logits[0]) == 0);
    }
    peft_options_free(o);
    peft_model_free(m);
    hostile_end(&h);
}

void hostile_gguf(void) {
    gguf_model();
    gguf_shrinks();
}
