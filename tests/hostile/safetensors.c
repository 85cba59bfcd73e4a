/* safetensors.c - files of tensors that mean harm (format: lib/io/safetensors.c): the header's length, its JSON, and of each tensor
 * name, type, shape and place; pickles; numbers that are none; and unusual files that are right. */
#include "hostile.h"

/* ---- the length and the ends ------------------------------------------------------------------------------------ */

static void tensors_lengths(hostile *h) {
    static const struct {
        uint64_t length;
        const char *culprit;
    } lengths[] = {{0, "does not start with '{'"}, {1, "does not start with '{'"}, {104857601, "the header claims 104857601 bytes"},
                   {1 << 30, "claims"}, {(uint64_t)1 << 40, "claims"}, {(uint64_t)1 << 63, "claims"}, {UINT64_MAX - 7, "claims"},
                   {UINT64_MAX, "claims"}};
    uint64_t right = peft__get_u64((const uint8_t *)h->good);
    uint8_t word[8];
    char what[64];
    for (size_t i = 0; i < PEFT__COUNT(lengths); i++) {
        peft__set_u64(word, lengths[i].length);
        (void)snprintf(what, sizeof what, "a header of %llu bytes", (unsigned long long)lengths[i].length);
        hostile_spliced(h, what, 0, 8, word, 8, PEFT_E_FORMAT, lengths[i].culprit);
    }
    for (int64_t by = -9; by <= 9; by += 6) { /* into the JSON, or into the data */
        peft__set_u64(word, right + (uint64_t)by);
        (void)snprintf(what, sizeof what, "a header that is longer by %lld", (long long)by);
        hostile_spliced(h, what, 0, 8, word, 8, PEFT_E_FORMAT, NULL);
    }
    hostile_cuts(h, 8 + (size_t)right, 24, PEFT_E_FORMAT);
    for (size_t left = 1; left <= 4; left++) { /* of the data */
        hostile_refused(h, "cut in its data", h->good, h->len - left * (h->len - 8 - (size_t)right) / 4, PEFT_E_FORMAT, NULL);
    }
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
    hostile_refused(h, "a Git LFS pointer", pointer, sizeof pointer - 1, PEFT_E_FORMAT, "git lfs pull");
    hostile_spliced(h, "bytes after the data", h->len, 0, "more", 4, PEFT_E_FORMAT, NULL);
}

/* ---- tensors ---------------------------------------------------------------------------------------------------- */

static const hostile_value tensors_types[] = {
    {"\"F63\"", PEFT_E_UNSUPPORTED}, {"\"\"", PEFT_E_UNSUPPORTED}, {"\"f32\"", PEFT_E_UNSUPPORTED}, {"\"F32 \"", PEFT_E_UNSUPPORTED},
    {"5", PEFT_E_FORMAT}, {"null", PEFT_E_FORMAT}, {"[\"F32\"]", PEFT_E_FORMAT}, {"{}", PEFT_E_FORMAT}, {"true", PEFT_E_FORMAT},
    {"\"I64\"", PEFT_E_FORMAT}, {"\"U8\"", PEFT_E_FORMAT}, {"\"F16\"", PEFT_E_FORMAT}, {"\"F4\"", PEFT_E_FORMAT},
};
static const hostile_value tensors_shapes[] = {
    {"[-1,4]", PEFT_E_FORMAT}, {"[1.5]", PEFT_E_FORMAT}, {"\"16\"", PEFT_E_FORMAT}, {"16", PEFT_E_FORMAT}, {"null", PEFT_E_FORMAT},
    {"[[16]]", PEFT_E_FORMAT}, {"[\"16\"]", PEFT_E_FORMAT}, {"{}", PEFT_E_FORMAT}, {"[]", PEFT_E_FORMAT}, {"[0]", PEFT_E_FORMAT},
    {"[9223372036854775807,9223372036854775807]", PEFT_E_FORMAT}, {"[4294967296,4294967296]", PEFT_E_FORMAT},
    {"[18446744073709551617]", PEFT_E_FORMAT}, {"[4611686018427387905,4]", PEFT_E_FORMAT}, {"[1e300]", PEFT_E_FORMAT},
    {"[1,1,1,1,1,1,1,1,1]", PEFT_E_FORMAT}, {"[100000000]", PEFT_E_FORMAT},
};
static const hostile_value tensors_spans[] = {
    {"[0]", PEFT_E_FORMAT}, {"[]", PEFT_E_FORMAT}, {"[1,2,3]", PEFT_E_FORMAT}, {"[0,4]", PEFT_E_FORMAT}, {"[-4,4]", PEFT_E_FORMAT},
    {"[8,4]", PEFT_E_FORMAT}, {"[0,1e30]", PEFT_E_FORMAT}, {"[0,18446744073709551615]", PEFT_E_FORMAT}, {"\"0\"", PEFT_E_FORMAT},
    {"null", PEFT_E_FORMAT}, {"[0.5,64]", PEFT_E_FORMAT}, {"[9223372036854775800,9223372036854775807]", PEFT_E_FORMAT},
    {"[\"0\",\"64\"]", PEFT_E_FORMAT}, {"{}", PEFT_E_FORMAT},
};

static void tensors_fields(hostile *h, const char *entry) {
    const struct {
        const char *key;
        const hostile_value *values;
        size_t n;
    } fields[] = {{"dtype", tensors_types, PEFT__COUNT(tensors_types)}, {"shape", tensors_shapes, PEFT__COUNT(tensors_shapes)},
                  {"data_offsets", tensors_spans, PEFT__COUNT(tensors_spans)}};
    char name[200], what[400];
    (void)snprintf(name, sizeof name, "%.*s", (int)(strchr(entry + 1, '"') - entry - 1), entry + 1);
    for (size_t f = 0; f < PEFT__COUNT(fields); f++) {
        size_t len = 0;
        const char *at = hostile_find(entry, fields[f].key, &len);
        for (size_t i = 0; i < fields[f].n; i++) {
            const hostile_value *v = &fields[f].values[i];
            (void)snprintf(what, sizeof what, "%s of %.150s is %.100s", fields[f].key, name, v->text);
            hostile_spliced(h, what, (size_t)(at - h->good), len, v->text, strlen(v->text), v->status, name);
        }
        (void)snprintf(what, sizeof what, "%.150s without %s", name, fields[f].key);
        hostile_spliced(h, what, (size_t)(at - h->good) - strlen(fields[f].key) - 2, 1, "_", 1, PEFT_E_FORMAT, name);
    }
    size_t len = 0;
    const char *value = hostile_find(entry, name, &len);
    static const char *const whole[] = {"5", "[]", "{}", "null", "\"F32\""};
    for (size_t i = 0; i < PEFT__COUNT(whole); i++) {
        (void)snprintf(what, sizeof what, "%.150s is %s", name, whole[i]);
        hostile_spliced(h, what, (size_t)(value - h->good), len, whole[i], strlen(whole[i]), PEFT_E_FORMAT, name);
    }
}

/* The n-th tensor's entry: "name":{...}. */
static const char *tensors_entry(const hostile *h, size_t n) {
    const char *p = h->good + 8;
    for (size_t i = 0; (p = strstr(p + 1, "\":{\"dtype\"")) != NULL && i < n; i++) {}
    while (p != NULL && p[-1] != '"') { p--; }
    return p != NULL ? p - 1 : NULL;
}

static void tensors_names(hostile *h) {
    const char *first = tensors_entry(h, 0), *second = tensors_entry(h, 1);
    size_t at = (size_t)(first - h->good), n = (size_t)(strchr(first + 1, '"') - first - 1);
    char text[2400];
    hostile_spliced(h, "a name of no bytes", at + 1, n, "", 0, PEFT_E_FORMAT, "tensor name \"\"");
    memset(text, 'x', 2000);
    hostile_spliced(h, "a name of 2000 bytes", at + 1, n, text, 2000, PEFT_E_FORMAT, "2000 bytes");
    hostile_spliced(h, "a NUL in a name", at + 1, n, "a\\u0000b", 8, PEFT_E_FORMAT, "holds a NUL");
    hostile_spliced(h, "a name that is no UTF-8", at + 1, n, "a\xC3(", 3, PEFT_E_FORMAT, "UTF-8");
    int len = snprintf(text, sizeof text, "%.*s", (int)(strchr(second + 1, '"') - second - 1), second + 1);
    hostile_spliced(h, "a name that comes twice", at + 1, n, text, (size_t)len, PEFT_E_FORMAT, text);
    /* two tensors at one place, and none at another */
    size_t span1 = 0, span2 = 0;
    const char *to = hostile_find(first, "data_offsets", &span1), *from = hostile_find(second, "data_offsets", &span2);
    hostile_spliced(h, "tensors over each other", (size_t)(to - h->good), span1, from, span2, PEFT_E_FORMAT, NULL);
}

void hostile_header(hostile *h, size_t step) {
    static const hostile_swap metadata[] = {
        {"text", "{", "[", PEFT_E_FORMAT, "does not start with '{'"},
        {"metadata", "{", "{\"__metadata__\":[],", PEFT_E_FORMAT, "__metadata__"},
        {"metadata", "{", "{\"__metadata__\":5,", PEFT_E_FORMAT, "__metadata__"},
        {"metadata", "{", "{\"__metadata__\":{\"a\":1},", PEFT_E_FORMAT, "__metadata__"},
        {"metadata", "{", "{\"__metadata__\":{\"a\":{}},", PEFT_E_FORMAT, "__metadata__"},
        {"text", "{", "{,", PEFT_E_FORMAT, NULL},
        {"text", "{", "{x", PEFT_E_FORMAT, NULL},
        {"text", "{", "{{", PEFT_E_FORMAT, NULL},
        {"text", "{", " {", PEFT_E_FORMAT, "does not start with '{'"},
        {"text", "{", "\xEF\xBB\xBF{", PEFT_E_FORMAT, "does not start with '{'"},
        {"text", "{", "{\"deep\":"
         "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
         "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
         PEFT_E_FORMAT, NULL},
    };
    tensors_lengths(h);
    tensors_names(h);
    for (size_t i = 0; tensors_entry(h, i) != NULL; i += step) { tensors_fields(h, tensors_entry(h, i)); }
    bool has = strstr(h->good + 8, "__metadata__") != NULL;
    for (size_t i = 0; i < PEFT__COUNT(metadata); i++) {
        if (!has || strcmp(metadata[i].name, "metadata") != 0) { hostile_swaps(h, &metadata[i], 1); }
    }
}

/* ---- what is taken ---------------------------------------------------------------------------------------------- */

/* With other text for the header, its length set right, and `gap` bytes that are nobody's before the data. */
static void tensors_taken(hostile *h, const char *what, const char *header, size_t n) {
    size_t right = (size_t)peft__get_u64((const uint8_t *)h->good), body = h->len - 8 - right;
    char *data = malloc(8 + n + body);
    if (data == NULL) { return; }
    peft__set_u64((uint8_t *)data, n);
    memcpy(data + 8, header, n);
    memcpy(data + 8 + n, h->good + 8 + right, body);
    hostile_taken(h, what, data, 8 + n + body);
    free(data);
}

static void tensors_unusual(hostile *h) {
    static const struct {
        const char *what, *first, *last;
    } ways[] = {
        {"spaces behind the header, to no alignment", "{", "    "},
        {"spaces in it", "{ \n\t\r ", ""},
        {"an empty tensor", "{\"none\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},", ""},
        {"an empty tensor of three sizes", "{\"none\":{\"dtype\":\"BF16\",\"shape\":[3,0,5],\"data_offsets\":[0,0]},", ""},
        {"fields in another order", "{\"none\":{\"data_offsets\":[0,0],\"shape\":[0],\"dtype\":\"I64\"},", ""},
        {"a field that nobody knows", "{\"none\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0],\"note\":{\"a\":[1,null]}},", ""},
        {"a type that this library does not compute with", "{\"none\":{\"dtype\":\"F8_E4M3\",\"shape\":[0],\"data_offsets\":[0,0]},", ""},
        {"a name with escapes", "{\"n\\u006fne \\\" \xC3\xA9\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},", ""},
        {"a buffer that transformers left", "{\"model.layers.0.self_attn.rotary_emb.inv_freq\":{\"dtype\":\"F32\",\"shape\":[0],"
         "\"data_offsets\":[0,0]},", ""},
    };
    size_t right = (size_t)peft__get_u64((const uint8_t *)h->good);
    char *text = malloc(right + 1024);
    for (size_t i = 0; text != NULL && i < PEFT__COUNT(ways); i++) {
        size_t first = strlen(ways[i].first), last = strlen(ways[i].last);
        memcpy(text, ways[i].first, first);
        memcpy(text + first, h->good + 9, right - 1);
        memcpy(text + first + right - 1, ways[i].last, last);
        tensors_taken(h, ways[i].what, text, first + right - 1 + last);
    }
    free(text);
    static const char *const metadata[] = {"{\"note\":\"caf\xC3\xA9 \\u00e9 \\\"\",\"format\":\"flax\"}", "{}"};
    for (size_t i = 0; i < PEFT__COUNT(metadata); i++) {
        size_t len = 0, n = strlen(metadata[i]);
        const char *at = hostile_find(h->good + 8, "__metadata__", &len);
        size_t head = (size_t)(at - h->good) - 8;
        if ((text = malloc(right + n)) == NULL) { return; }
        memcpy(text, h->good + 8, head);
        memcpy(text + head, metadata[i], n);
        memcpy(text + head + n, at + len, right - head - len);
        tensors_taken(h, "metadata that nobody knows", text, right - len + n);
        free(text);
    }
}

void hostile_safetensors(void) {
    static const uint8_t pickle[] = "\x80\x02" "cposix\nsystem\nq\x01X\x04\x00\x00\x00trueq\x02\x85q\x03Rq\x04.";
    hostile h;
    if (hostile_begin(&h, "safetensors", hostile_open_model) && hostile_save_model(&h, API_LLAMA, "") == PEFT_OK &&
        hostile_take(&h, "model.safetensors", false)) {
        hostile_header(&h, 7);
        hostile_refused(&h, "a pickle", pickle, sizeof pickle - 1, PEFT_E_FORMAT, NULL);
        hostile_refused(&h, "a zip, as torch writes it", "PK\3\4\0\0\0\0\0\0\0\0\0\0", 14, PEFT_E_FORMAT, NULL);
        hostile_refused(&h, "a GGUF file", "GGUF\3\0\0\0\0\0\0\0\0\0\0\0", 16, PEFT_E_FORMAT, NULL);
        hostile_refused(&h, "nothing", "", 0, PEFT_E_FORMAT, NULL);
        tensors_unusual(&h);
    }
    hostile_end(&h);
}
