/* io_gguf_hostile_test.c - the GGUF reader over damaged and hostile files: each is refused, naming the culprit. */
#include "io_gguf_build.h"

/* ---- malformed heads ---- */

TEST(gguf_rejects_bad_headers) {
    static const struct { const char *magic; uint32_t version; uint64_t tensors, kvs; size_t len; peft_status st;
                          const char *says; } cases[] = {
        {"GGUF", 3, 0, 0, 0, PEFT_E_FORMAT, "does not start with \"GGUF\""},
        {"GGUF", 3, 0, 0, 3, PEFT_E_FORMAT, "does not start with \"GGUF\""},
        {"GGML", 3, 0, 0, 24, PEFT_E_FORMAT, "does not start with \"GGUF\""},
        {"GGUF", 3, 0, 0, 23, PEFT_E_FORMAT, "the file ends inside its header: 23 bytes"},
        {"GGUF", 0, 0, 0, 24, PEFT_E_FORMAT, "GGUF version 0, expected 2 or 3"},
        {"GGUF", 1, 0, 0, 24, PEFT_E_UNSUPPORTED, "GGUF version 1, expected 2 or 3"},
        {"GGUF", 4, 0, 0, 24, PEFT_E_VERSION, "GGUF version 4, this library reads 2 and 3"},
        {"GGUF", 0x03000000, 0, 0, 24, PEFT_E_UNSUPPORTED, "made for big-endian machines"},
        {"GGUF", 3, UINT64_MAX, 0, 24, PEFT_E_FORMAT, "18446744073709551615 tensors are claimed"},
        {"GGUF", 3, 1, 0, 24, PEFT_E_FORMAT, "1 tensors are claimed, the file has 0 bytes left"},
        {"GGUF", 3, 1u << 20, 0, 24, PEFT_E_FORMAT, "1048576 tensors are claimed, the file has 0 bytes left"},
        {"GGUF", 3, 0, UINT64_MAX, 24, PEFT_E_FORMAT, "18446744073709551615 metadata entries are claimed"},
        {"GGUF", 3, 0, 24, 24, PEFT_E_FORMAT, "24 metadata entries are claimed, the file has 0 bytes left"},
    };
    peft__mem *mem = runner_mem();
    for (size_t k = 0; k < PEFT__COUNT(cases); k++) {
        peft__str s;
        peft__gguf g;
        peft__str_init(&s, mem);
        put_head(&s, cases[k].version, cases[k].tensors, cases[k].kvs);
        memcpy(s.data, cases[k].magic, 4);
        s.len = cases[k].len;
        CHECK_STATUS(open_built(&s, false, &g), cases[k].st);
        CHECK_ERROR_HAS("m.gguf: ");
        CHECK_ERROR_HAS(cases[k].says);
        CHECK(g.file.data == NULL);
        CHECK_INT(atomic_load(&mem->now), 0);
    }
}

/* ---- malformed metadata: one entry each ---- */

static void bad_key_long(peft__str *s) {
    put(s, PEFT__IO_MAX_NAME + 1, 8);
    for (int i = 0; i <= PEFT__IO_MAX_NAME; i++) { peft__str_putc(s, 'k'); }
    put(s, 4, 4);
    put(s, 4, 4);
}

static void bad_key_length(peft__str *s) {
    put(s, UINT64_MAX, 8);
    put(s, 0, 8);
}

static void bad_key_nul(peft__str *s) {
    put(s, 3, 8);
    peft__str_put(s, "a\0b", 3);
    put(s, 4, 8);
}

static void bad_string_length(peft__str *s) {
    put_kv(s, "text", 8, UINT64_MAX - 7, 8);
}

static void bad_array(peft__str *s, uint32_t elem, uint64_t count) {
    put_kv(s, "list", 9, elem, 4);
    put(s, count, 8);
}

static void bad_array_count(peft__str *s) { /* times 8 it is 8 again */
    bad_array(s, 10, (UINT64_C(1) << 61) + 1);
    put(s, 0, 8);
}

static void bad_array_strings(peft__str *s) {
    bad_array(s, 8, 2);
    put_string(s, "first one");
    put(s, 100, 8);
}

static void bad_array_too_many_strings(peft__str *s) {
    bad_array(s, 8, UINT64_MAX);
}

static void bad_array_nested(peft__str *s) {
    bad_array(s, 9, 1);
}

static void bad_array_type(peft__str *s) {
    bad_array(s, 13, 1000);
}

static void bad_array_u64(peft__str *s) {
    bad_array(s, 10, 2);
    put(s, 1, 8);
    put(s, UINT64_MAX, 8);
}

static void bad_type(peft__str *s) {
    put_kv(s, "odd", 13, 0, 8);
}

static void bad_u64(peft__str *s) {
    put_kv(s, "big", 10, UINT64_MAX, 8);
}

static void bad_value_cut(peft__str *s) {
    put_kv(s, "half", 12, 0, 4);
}

static void bad_key_empty(peft__str *s) {
    put_kv(s, "", 4, 4, 4);
}

static void bad_key_utf8(peft__str *s) {
    put_kv(s, "\xFF\xFE", 4, 4, 4);
}

static void bad_alignment_3(peft__str *s) {
    put_kv(s, "general.alignment", 4, 3, 4);
}

static void bad_alignment_0(peft__str *s) {
    put_kv(s, "general.alignment", 4, 0, 4);
}

static void bad_alignment_big(peft__str *s) {
    put_kv(s, "general.alignment", 4, 1u << 21, 4);
}

static void bad_alignment_type(peft__str *s) {
    put_kv(s, "general.alignment", 10, 32, 8);
}

static void bad_split(peft__str *s) {
    put_kv(s, "split.count", 2, 3, 2);
}

static void bad_split_type(peft__str *s) {
    put_kv(s, "split.count", 6, 3, 4);
}

TEST(gguf_rejects_bad_metadata) {
    static const struct { void (*build)(peft__str *); peft_status st; const char *says;
    } cases[] = {
        {bad_key_long, PEFT_E_FORMAT, "metadata entry 1: the key has 1025 bytes, expected 1 to 1024"},
        {bad_key_length, PEFT_E_FORMAT, "metadata entry 1: the key at byte 42 claims 18446744073709551615 bytes"},
        {bad_key_nul, PEFT_E_FORMAT, "metadata entry 1: the key is not valid UTF-8 or holds a NUL"},
        {bad_key_empty, PEFT_E_FORMAT, "metadata entry 1: the key has 0 bytes"},
        {bad_key_utf8, PEFT_E_FORMAT, "metadata entry 1: the key is not valid UTF-8"},
        {bad_string_length, PEFT_E_FORMAT, "key \"text\": a string at byte 58 claims 18446744073709551608 bytes"},
        {bad_array_count, PEFT_E_FORMAT, "key \"list\": an array claims 2305843009213693953 elements of u64"},
        {bad_array_strings, PEFT_E_FORMAT, "key \"list\": a string of an array at byte 87 claims 100 bytes"},
        {bad_array_too_many_strings, PEFT_E_FORMAT,
         "key \"list\": an array claims 18446744073709551615 elements of string"},
        {bad_array_nested, PEFT_E_UNSUPPORTED, "key \"list\": arrays of type 9 (array) are not supported"},
        {bad_array_type, PEFT_E_UNSUPPORTED, "key \"list\": arrays of type 13 (?)"},
        {bad_array_u64, PEFT_E_UNSUPPORTED, "key \"list\": element 1 of the array is above 2^63 - 1"},
        {bad_type, PEFT_E_UNSUPPORTED, "key \"odd\": values of type 13 are unknown"},
        {bad_u64, PEFT_E_UNSUPPORTED, "key \"big\": the value is above 2^63 - 1"},
        {bad_value_cut, PEFT_E_FORMAT, "key \"half\": the file ends inside a value at byte 58: 8 bytes wanted, 4 left"},
        {bad_alignment_3, PEFT_E_FORMAT, "key \"general.alignment\" is 3 of type u32, expected a power of two"},
        {bad_alignment_0, PEFT_E_FORMAT, "key \"general.alignment\" is 0"},
        {bad_alignment_big, PEFT_E_FORMAT, "key \"general.alignment\" is 2097152"},
        {bad_alignment_type, PEFT_E_FORMAT, "key \"general.alignment\" is 32 of type u64"},
        {bad_split, PEFT_E_UNSUPPORTED, "key \"split.count\" is 3: models split over several files"},
        {bad_split_type, PEFT_E_FORMAT, "key \"split.count\" has type f32, expected an integer"},
    };
    peft__mem *mem = runner_mem();
    for (size_t k = 0; k < PEFT__COUNT(cases); k++) {
        peft__str s;
        peft__gguf g;
        peft__str_init(&s, mem);
        put_head(&s, 3, 0, 2);
        put_kv(&s, "first", 0, 1, 1); /* 18 bytes, up to 42 */
        cases[k].build(&s);
        CHECK_STATUS(open_built(&s, false, &g), cases[k].st);
        CHECK_ERROR_HAS("m.gguf: ");
        CHECK_ERROR_HAS(cases[k].says);
        CHECK_INT(atomic_load(&mem->now), 0);
    }
    peft__str s;
    peft__gguf g;
    peft__str_init(&s, mem);
    put_head(&s, 3, 0, 3);
    put_kv(&s, "a", 0, 1, 1);
    put_kv(&s, "b", 0, 1, 1);
    put_kv(&s, "a", 0, 2, 1);
    CHECK_STATUS(open_built(&s, false, &g), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("key \"a\": the key appears twice");
}

/* ---- malformed tensors ---- */

TEST(gguf_rejects_bad_tensors) {
    static const struct { const char *name; uint32_t ndim; uint64_t d0, d1; uint32_t type; uint64_t offset;
                          peft_status st; const char *says;
    } cases[] = {
        {"t", 1, 0, 0, 0, 64, PEFT_E_FORMAT, "tensor \"t\": dimension 0 is 0, expected 1 or more"},
        {"t", 2, 0, UINT64_C(1) << 40, 0, 64, PEFT_E_FORMAT, "tensor \"t\": dimension 1 is 0"},
        {"t", 1, UINT64_MAX, 0, 0, 64, PEFT_E_FORMAT, "tensor \"t\": a dimension of 18446744073709551615"},
        {"t", 2, UINT64_C(1) << 32, UINT64_C(1) << 32, 0, 64, PEFT_E_FORMAT, "the product of 2 dimensions passes 2^63"},
        {"t", 1, (UINT64_C(1) << 62) + 1, 0, 0, 64, PEFT_E_FORMAT, "tensor \"t\": "},
        {"t", 5, 1, 1, 0, 64, PEFT_E_FORMAT, "tensor \"t\": 5 dimensions, at most 4 are possible"},
        {"t", 0xFFFFFFFF, 0, 0, 0, 64, PEFT_E_FORMAT, "4294967295 dimensions, at most 4"},
        {"t", 1, 33, 0, 8, 64, PEFT_E_FORMAT, "tensor \"t\": rows of 33 elements are no whole blocks of 32"},
        {"t", 2, 128, 2, 12, 64, PEFT_E_FORMAT, "rows of 128 elements are no whole blocks of 256"},
        {"t", 1, 8, 0, 4, 64, PEFT_E_UNSUPPORTED, "tensor \"t\": type id 4 is unknown"},
        {"t", 1, 8, 0, 31, 64, PEFT_E_UNSUPPORTED, "tensor \"t\": type id 31 is unknown"},
        {"t", 1, 8, 0, 200, 64, PEFT_E_UNSUPPORTED, "tensor \"t\": type id 200 is unknown"},
        {"t", 1, 8, 0, 0xFFFFFFFF, 64, PEFT_E_UNSUPPORTED, "tensor \"t\": type id 4294967295 is unknown"},
        {"t", 1, 8, 0, 0, 65, PEFT_E_FORMAT, "tensor \"t\": offset 65 is no multiple of the alignment 32"},
        {"t", 1, 8, 0, 0, 96, PEFT_E_FORMAT, "tensor \"t\": 32 bytes at offset 96 reach past the 96 bytes of data"},
        {"t", 1, 9, 0, 0, 64, PEFT_E_FORMAT, "tensor \"t\": 36 bytes at offset 64 reach past"},
        {"t", 1, 8, 0, 0, UINT64_MAX - 31, PEFT_E_FORMAT, "at offset 18446744073709551584 reach past"},
        {"t", 1, 8, 0, 0, 32, PEFT_E_FORMAT,
         "tensors \"ok\" and \"t\" overlap: bytes [0, 64) and [32, 64) of the data"},
        {"t", 1, 8, 0, 0, 0, PEFT_E_FORMAT, "overlap"},
        {"ok", 1, 8, 0, 0, 64, PEFT_E_FORMAT, "tensor \"ok\": the name appears twice"},
        {"", 1, 8, 0, 0, 64, PEFT_E_FORMAT, "tensor 1: the name has 0 bytes"},
        {"\xC3", 1, 8, 0, 0, 64, PEFT_E_FORMAT, "tensor 1: the name is not valid UTF-8"},
    };
    peft__mem *mem = runner_mem();
    for (size_t k = 0; k < PEFT__COUNT(cases); k++) {
        peft__str s;
        peft__gguf g;
        peft__str_init(&s, mem);
        put_head(&s, 3, 2, 0);
        put_tensor(&s, "ok", 1, 16, 0, 0, 0);
        uint32_t ndim = cases[k].ndim;
        put_tensor(&s, cases[k].name, ndim > 5 ? 5 : ndim, cases[k].d0, cases[k].d1, cases[k].type, cases[k].offset);
        if (ndim > 5) { peft__set_u32((uint8_t *)s.data + s.len - 56, ndim); }
        pad(&s, 32);
        put_data(&s, 96);
        CHECK_STATUS(open_built(&s, false, &g), cases[k].st);
        CHECK_ERROR_HAS("m.gguf: ");
        CHECK_ERROR_HAS(cases[k].says);
        CHECK_INT(atomic_load(&mem->now), 0);
    }
}

static void build_small(peft__str *s) {
    put_head(s, 3, 2, 3);
    put_kv(s, "n", 4, 7, 4);
    put_string(s, "list");
    put(s, 9, 4);
    put(s, 8, 4);
    put(s, 2, 8);
    put_string(s, "xy");
    put_string(s, "z");
    put_kv(s, "general.alignment", 4, 16, 4);
    put_tensor(s, "a", 2, 4, 2, 0, 0);
    put_tensor(s, "b", 1, 32, 0, 2, 32);
    pad(s, 16);
    put_data(s, 32 + 18);
}

/* Every cut is refused, every byte may be anything: no crash, no leak, no span outside the file. */
TEST(gguf_survives_damage) {
    static const uint8_t bytes[] = {0, 1, 2, 8, 9, 0x20, 0x7F, 0x80, 0xFF};
    peft__mem *mem = runner_mem();
    const char *path = runner_path(runner_tmpdir(), "d.gguf");
    peft__str s;
    peft__gguf g;
    peft__str_init(&s, mem);
    build_small(&s);
    CHECK_OK(peft__str_status(&s));
    size_t base = atomic_load(&mem->now);
    for (size_t len = 0; len < s.len; len++) {
        CHECK_OK(peft__save_text(mem, path, s.data, len));
        CHECK_STATUS(peft__gguf_open(mem, path, true, &g), PEFT_E_FORMAT);
        CHECK_ERROR_HAS("d.gguf: ");
        CHECK_INT(atomic_load(&mem->now), base);
    }
    for (size_t at = 0; at < s.len - 50; at++) {
        char old = s.data[at];
        for (size_t k = 0; k < PEFT__COUNT(bytes); k++) {
            s.data[at] = (char)bytes[k];
            CHECK_OK(peft__save_text(mem, path, s.data, s.len));
            peft_status st = peft__gguf_open(mem, path, true, &g);
            CHECK(st == PEFT_OK || st == PEFT_E_FORMAT || st == PEFT_E_UNSUPPORTED || st == PEFT_E_VERSION);
            for (size_t i = 0; i < g.count; i++) {
                CHECK(g.tensors[i].size <= g.file.size);
                CHECK(g.tensors[i].data >= g.file.data);
                CHECK(g.tensors[i].data - g.file.data <= (ptrdiff_t)(g.file.size - g.tensors[i].size));
            }
            peft__gguf_close(&g);
            CHECK_INT(atomic_load(&mem->now), base);
        }
        s.data[at] = old;
    }
    peft__str_free(&s);
}
