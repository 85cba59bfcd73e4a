/* io_safetensors_test.c - the safetensors reader over hand-made files, and the writer. */
#include "runner.h"

#include <stdlib.h>

#include "io/io.h"

/* A file of a header and `size` bytes 0, 1, 2, ... */
static const char *st_file(peft__mem *mem, const char *header, size_t size) {
    const char *path = runner_path(runner_tmpdir(), "m.safetensors");
    peft__str s;
    uint8_t word[8];
    peft__str_init(&s, mem);
    peft__set_u64(word, strlen(header));
    peft__str_put(&s, (const char *)word, 8);
    peft__str_puts(&s, header);
    for (size_t i = 0; i < size; i++) { peft__str_putc(&s, (char)(unsigned char)i); }
    peft_status st = peft__save_text(mem, path, peft__str_c(&s), s.len);
    peft__str_free(&s);
    return st == PEFT_OK ? path : "could not write the test's file";
}

TEST(safetensors_reads_tensors_and_metadata) {
    peft__mem *mem = runner_mem();
    peft__safetensors f;
    /* Out of order, odd header length, an unknown key in an entry, trailing spaces, scalars and empty tensors. */
    const char *path = st_file(mem, "{\"b\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[8,14]},\n"
        "\"__metadata__\":{\"format\":\"pt\",\"x\":\"\\u00e9\"},"
        "\"a\":{\"shape\":[1,2],\"extra\":[0],\"data_offsets\":[0,8],\"dtype\":\"F32\"},"
        "\"e\":{\"dtype\":\"BF16\",\"shape\":[4,0],\"data_offsets\":[8,8]},"
        "\"q\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[14,16]},"
        "\"s\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[16,24]}}   ", 24);
    for (int copy = 0; copy < 2; copy++) {
        CHECK_OK(peft__safetensors_open(mem, path, copy != 0, &f));
        CHECK_INT(f.count, 5);
        const peft__io_tensor *b = &f.tensors[0];
        CHECK_STR(b->name, "b");
        CHECK_INT(b->dtype, PEFT_DTYPE_F16);
        CHECK_STR(b->dtype_name, "F16");
        CHECK_INT(b->ndim, 1);
        CHECK_INT(b->dims[0], 3);
        CHECK_INT(b->size, 6);
        CHECK_MEM(b->data, "\x08\x09\x0A\x0B\x0C\x0D", 6);
        const peft__io_tensor *a = peft__safetensors_find(&f, "a");
        CHECK(a == &f.tensors[1]);
        CHECK_INT(a->ndim, 2);
        CHECK_INT(a->dims[0], 1);
        CHECK_INT(a->dims[1], 2);
        CHECK_INT(a->dtype, PEFT_DTYPE_F32);
        CHECK_INT(a->data[7], 7);
        CHECK_INT(peft__safetensors_find(&f, "e")->size, 0);
        CHECK_INT(peft__safetensors_find(&f, "e")->dtype, PEFT_DTYPE_BF16);
        CHECK_INT(peft__safetensors_find(&f, "q")->size, 2);
        const peft__io_tensor *s = peft__safetensors_find(&f, "s");
        CHECK_INT(s->dtype, PEFT__IO_DTYPE_OTHER);
        CHECK_STR(s->dtype_name, "I64");
        CHECK_INT(s->ndim, 0);
        CHECK_INT(s->size, 8);
        CHECK(peft__safetensors_find(&f, "absent") == NULL);
        CHECK_STR(peft__json_get(f.metadata, "x")->str, "\xC3\xA9");
        peft__safetensors_close(&f);
        peft__safetensors_close(&f);
    }
}

TEST(safetensors_reads_a_file_without_tensors) {
    peft__mem *mem = runner_mem();
    peft__safetensors f;
    CHECK_OK(peft__safetensors_open(mem, st_file(mem, "{}", 0), false, &f));
    CHECK_INT(f.count, 0);
    CHECK(f.metadata == NULL);
    CHECK(peft__safetensors_find(&f, "a") == NULL);
    peft__safetensors_close(&f);
}

#define ENTRY(dtype, shape, offsets) "{\"t\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
#define NAMED(name, offsets) "\"" name "\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" offsets "}"

TEST(safetensors_rejects_malformed_files) {
    static const struct { const char *header; size_t size; peft_status st; const char *says;
    } cases[] = {
        {"", 0, PEFT_E_FORMAT, "does not start with '{'"},
        {" {}", 0, PEFT_E_FORMAT, "does not start with '{'"},
        {"[]", 0, PEFT_E_FORMAT, "does not start with '{'"},
        {"\xEF\xBB\xBF{}", 0, PEFT_E_FORMAT, "does not start with '{'"},
        {"{}x", 0, PEFT_E_FORMAT, "line 1, column 3: expected nothing after the value"},
        {"{\"t\":}", 0, PEFT_E_FORMAT, "line 1, column 6: expected a value"},
        {"{\"t\":1}", 0, PEFT_E_FORMAT, "tensor \"t\": its entry is no object"},
        {"{\"t\":{}}", 0, PEFT_E_FORMAT, "tensor \"t\": \"dtype\" is missing"},
        {"{\"\":{}}", 0, PEFT_E_FORMAT, "the tensor name \"\" of 0 bytes is empty"},
        {"{\"a\\u0000\":{}}", 0, PEFT_E_FORMAT, "holds a NUL"},
        {ENTRY("3", "[1]", "[0,4]"), 4, PEFT_E_FORMAT, "\"dtype\" is missing or no string"},
        {ENTRY("\"F99\"", "[1]", "[0,4]"), 4, PEFT_E_UNSUPPORTED, "tensor \"t\": unknown dtype \"F99\""},
        {ENTRY("\"f32\"", "[1]", "[0,4]"), 4, PEFT_E_UNSUPPORTED, "unknown dtype \"f32\""},
        {ENTRY("\"F32\"", "1", "[0,4]"), 4, PEFT_E_FORMAT, "\"shape\" is missing or no array"},
        {ENTRY("\"F32\"", "[-1]", "[0,4]"), 4, PEFT_E_FORMAT, "dimension 0 of \"shape\" is no integer of 0 or more"},
        {ENTRY("\"F32\"", "[1,1.0]", "[0,4]"), 4, PEFT_E_FORMAT, "dimension 1 of \"shape\""},
        {ENTRY("\"F32\"", "[\"1\"]", "[0,4]"), 4, PEFT_E_FORMAT, "dimension 0 of \"shape\""},
        {ENTRY("\"F32\"", "[18446744073709551617]", "[0,4]"), 4, PEFT_E_FORMAT, "dimension 0 of \"shape\""},
        {ENTRY("\"F32\"", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, PEFT_E_FORMAT, "9 dimensions, at most 8"},
        {ENTRY("\"F32\"", "[4294967296,4294967296]", "[0,0]"), 0, PEFT_E_FORMAT, "the product of 2 dimensions"},
        {ENTRY("\"F32\"", "[4294967296,4294967296,0]", "[0,0]"), 0, PEFT_E_FORMAT, "the product of 3 dimensions"},
        {ENTRY("\"F32\"", "[4611686018427387905]", "[0,4]"), 4, PEFT_E_FORMAT, "tensor \"t\": "},
        {ENTRY("\"F4\"", "[3]", "[0,2]"), 2, PEFT_E_FORMAT, "3 elements of F4 are no whole number of bytes"},
        {ENTRY("\"F32\"", "[1]", "4"), 4, PEFT_E_FORMAT, "\"data_offsets\" is missing or no array of two"},
        {ENTRY("\"F32\"", "[1]", "[0,4,4]"), 4, PEFT_E_FORMAT, "\"data_offsets\" is missing or no array of two"},
        {ENTRY("\"F32\"", "[1]", "[-4,0]"), 4, PEFT_E_FORMAT, "something else than integers"},
        {ENTRY("\"F32\"", "[1]", "[0,4.0]"), 4, PEFT_E_FORMAT, "something else than integers"},
        {ENTRY("\"F32\"", "[1]", "[4,0]"), 4, PEFT_E_FORMAT, "data offsets [4, 0) run backwards"},
        {ENTRY("\"F32\"", "[1]", "[0,4]"), 3, PEFT_E_FORMAT, "data offset 4 lies outside the 3 bytes"},
        {ENTRY("\"F32\"", "[1]", "[9223372036854775804,9223372036854775807]"), 4, PEFT_E_FORMAT, "lies outside"},
        {ENTRY("\"F32\"", "[2]", "[0,4]"), 4, PEFT_E_FORMAT, "are 4 bytes, its shape and dtype F32 need 8"},
        {ENTRY("\"F32\"", "[1]", "[0,4]"), 5, PEFT_E_FORMAT, "bytes [4, 5) at the end of the data"},
        {ENTRY("\"F32\"", "[1]", "[4,8]"), 8, PEFT_E_FORMAT, "bytes [0, 4) of the data, before tensor \"t\","},
        {"{}", 1, PEFT_E_FORMAT, "bytes [0, 1) at the end of the data"},
        {"{" NAMED("a", "[0,4]") "," NAMED("b", "[5,9]") "}", 9, PEFT_E_FORMAT,
         "bytes [4, 5) of the data, before tensor \"b\""},
        {"{" NAMED("b", "[2,6]") "," NAMED("a", "[0,4]") "}", 6, PEFT_E_FORMAT,
         "tensors \"a\" and \"b\" overlap: bytes [0, 4) and [2, 6)"},
        {"{" NAMED("a", "[0,4]") "," NAMED("b", "[0,4]") "}", 4, PEFT_E_FORMAT, "tensors \"a\" and \"b\" overlap"},
        {"{" NAMED("a", "[0,4]") ",\"e\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[2,2]}}", 4, PEFT_E_FORMAT,
         "overlap"},
        {"{" NAMED("a", "[0,4]") "," NAMED("a", "[4,8]") "}", 8, PEFT_E_FORMAT, "the key \"a\" appears twice"},
        {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, PEFT_E_FORMAT, "the key \"a\" appears twice"},
        {"{\"__metadata__\":{\"a\":1}}", 0, PEFT_E_FORMAT, "\"__metadata__\": the value of \"a\" is no string"},
        {"{\"__metadata__\":[]}", 0, PEFT_E_FORMAT, "\"__metadata__\" is no object"},
        {"{\"\xFF\":{}}", 0, PEFT_E_FORMAT, "invalid UTF-8"},
    };
    peft__mem *mem = runner_mem();
    for (size_t k = 0; k < PEFT__COUNT(cases); k++) {
        peft__safetensors f;
        CHECK_STATUS(peft__safetensors_open(mem, st_file(mem, cases[k].header, cases[k].size), false, &f), cases[k].st);
        CHECK_ERROR_HAS("m.safetensors: ");
        CHECK_ERROR_HAS(cases[k].says);
        CHECK_INT(f.count, 0);
        CHECK(f.file.data == NULL);
        CHECK_INT(atomic_load(&mem->now), 0);
    }
}

TEST(safetensors_rejects_bad_lengths_and_paths) {
    static const struct { const char *bytes; size_t len; const char *says; } cases[] = {
        {"", 0, "0 bytes are too short"},
        {"\2\0\0\0\0\0\0", 7, "7 bytes are too short"},
        {"\2\0\0\0\0\0\0\0", 8, "the header claims 2 bytes, the file has 0"},
        {"\3\0\0\0\0\0\0\0{}", 10, "the header claims 3 bytes, the file has 2"},
        {"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF{}", 10, "the header claims 18446744073709551615 bytes"},
        {"\xF8\xFF\xFF\xFF\xFF\xFF\xFF\xFF{}", 10, "the header claims"},
        {"\1\0\0\0\0\0\0\0{}", 10, "does not start with '{'"},
    };
    peft__mem *mem = runner_mem();
    const char *dir = runner_tmpdir();
    const char *path = runner_path(dir, "x.safetensors");
    peft__safetensors f;
    for (size_t k = 0; k < PEFT__COUNT(cases); k++) {
        CHECK_OK(peft__save_text(mem, path, cases[k].bytes, cases[k].len));
        CHECK_STATUS(peft__safetensors_open(mem, path, false, &f), PEFT_E_FORMAT);
        CHECK_ERROR_HAS("x.safetensors: ");
        CHECK_ERROR_HAS(cases[k].says);
    }
    CHECK_STATUS(peft__safetensors_open(mem, runner_path(dir, "none"), false, &f), PEFT_E_NOT_FOUND);
    peft__safetensors_close(&f);
    CHECK_STATUS(peft__safetensors_open(mem, dir, false, &f), PEFT_E_IO);
}

/* Every header cut short and every byte of it changed: never a crash, a leak, or a span outside the file. */
TEST(safetensors_survives_damage) {
    static const char whole[] = "{\"__metadata__\":{\"f\":\"p\"}," NAMED("a", "[0,4]") "," NAMED("b", "[4,8]") "}";
    static const char bytes[] = "\"{}[],:0189-\\\x80 ";
    peft__mem *mem = runner_mem();
    const char *path = runner_path(runner_tmpdir(), "d.safetensors");
    char file[sizeof whole + 16];
    size_t n = sizeof whole - 1;
    for (size_t at = 0; at < n; at++) {
        for (size_t k = 0; k < sizeof bytes; k++) {
            peft__set_u64((uint8_t *)file, n);
            memcpy(file + 8, whole, n);
            memset(file + 8 + n, 7, 8);
            file[8 + at] = bytes[k];
            size_t len = 16 + n;
            if (k == 0) { len = 8 + at; } /* cut instead */
            CHECK_OK(peft__save_text(mem, path, file, len));
            peft__safetensors f;
            peft_status st = peft__safetensors_open(mem, path, true, &f);
            for (size_t i = 0; st == PEFT_OK && i < f.count; i++) {
                CHECK(f.tensors[i].data >= f.file.data);
                CHECK(f.tensors[i].data + f.tensors[i].size <= f.file.data + f.file.size);
            }
            peft__safetensors_close(&f);
            CHECK_INT(atomic_load(&mem->now), 0);
        }
    }
}

/* ---- writer ---- */

static peft_status st_count_up(void *user, void *out, size_t offset, size_t size) {
    size_t *calls = user;
    uint8_t *p = out;
    (*calls)++;
    for (size_t i = 0; i < size; i++) { p[i] = (uint8_t)((offset + i) * 2654435761u >> 24); }
    return PEFT_OK;
}

static peft_status st_refuse(void *user, void *out, size_t offset, size_t size) {
    (void)user;
    (void)out;
    (void)offset;
    (void)size;
    return peft__fail(PEFT_E_NUMERIC, "no such weights");
}

TEST(safetensors_writes_what_it_reads) {
    static const char *const meta[] = {"format", "pt", "quote\"", "line\n", NULL};
    static const uint8_t small[6] = {1, 2, 3, 4, 5, 6};
    size_t calls = 0;
    peft__io_source src[] = {
        {.name = "w", .dtype = PEFT_DTYPE_F32, .ndim = 2, .dims = {700, 1000}, .produce = st_count_up, .user = &calls},
        {.name = "layer.0.\xC3\xA9", .dtype = PEFT_DTYPE_BF16, .ndim = 1, .dims = {3}, .data = small},
        {.name = "none", .dtype = PEFT_DTYPE_F16, .ndim = 2, .dims = {0, 5}},
        {.name = "scalar", .dtype = PEFT_DTYPE_F16, .ndim = 0, .data = small + 2},
    };
    peft__mem *mem = runner_mem();
    const char *path = runner_path(runner_tmpdir(), "w.safetensors");
    peft__safetensors f;
    CHECK_OK(peft__safetensors_write(mem, path, src, 4, meta));
    CHECK_INT(calls, 3); /* 2.8 MB in pieces of 1 MiB */
    CHECK_OK(peft__safetensors_open(mem, path, false, &f));
    CHECK_INT(f.count, 4);
    CHECK_INT(peft__get_u64(f.file.data) % 8, 0);
    for (size_t i = 0; i < 4; i++) {
        CHECK_STR(f.tensors[i].name, src[i].name);
        CHECK_INT(f.tensors[i].dtype, src[i].dtype);
        CHECK_INT(f.tensors[i].ndim, src[i].ndim);
        for (int32_t d = 0; d < src[i].ndim; d++) { CHECK_INT(f.tensors[i].dims[d], src[i].dims[d]); }
    }
    CHECK_INT(f.tensors[0].size, 2800000);
    uint8_t *want = peft__alloc(mem, 2800000);
    CHECK(want != NULL);
    CHECK_OK(st_count_up(&calls, want, 0, 2800000));
    CHECK_MEM(f.tensors[0].data, want, 2800000);
    peft__free(mem, want, 2800000);
    CHECK_MEM(f.tensors[1].data, small, 6);
    CHECK_MEM(f.tensors[3].data, small + 2, 2);
    CHECK_STR(peft__json_get(f.metadata, "quote\"")->str, "line\n");
    peft__safetensors_close(&f);
}

TEST(safetensors_writes_exact_bytes) {
    static const float v[2] = {1.0f, -2.0f};
    static const char want[] = "\x60\0\0\0\0\0\0\0"
        "{\"__metadata__\":{\"format\":\"pt\"},\"xyz\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,8]}}"
        "       " "\0\0\x80\x3F\0\0\0\xC0";
    peft__io_source src = {.name = "xyz", .dtype = PEFT_DTYPE_F32, .ndim = 2, .dims = {2, 1}, .data = v};
    peft__mem *mem = runner_mem();
    const char *path = runner_path(runner_tmpdir(), "e.safetensors");
    peft__file f;
    CHECK_OK(peft__safetensors_write(mem, path, &src, 1, NULL));
    CHECK_OK(peft__file_open(mem, path, false, &f));
    CHECK_INT(f.size, sizeof want - 1);
    CHECK_MEM(f.data, want, sizeof want - 1);
    peft__file_close(&f);
}

TEST(safetensors_writer_refuses) {
    static const uint8_t data[64] = {0};
    static char longest[PEFT__IO_MAX_NAME + 2];
    memset(longest, 'n', PEFT__IO_MAX_NAME + 1);
    struct { peft__io_source t; peft_status st; const char *says;
    } cases[] = {
        {{.name = NULL, .dtype = 0, .data = data}, PEFT_E_INVALID, "tensor 1 has no name"},
        {{.name = "", .dtype = 0, .data = data}, PEFT_E_INVALID, "tensor 1 has no name"},
        {{.name = longest, .dtype = 0, .data = data}, PEFT_E_UNSUPPORTED, "the name has 1025 bytes"},
        {{.name = "a\xFF", .dtype = 0, .data = data}, PEFT_E_INVALID, "not valid UTF-8"},
        {{.name = "first", .dtype = 0, .data = data}, PEFT_E_EXISTS, "tensor \"first\" is given twice"},
        {{.name = "__metadata__", .dtype = 0, .data = data}, PEFT_E_INVALID, "cannot be named"},
        {{.name = "t", .dtype = PEFT_DTYPE_Q4_K, .data = data},
         PEFT_E_UNSUPPORTED,
         "tensor \"t\": safetensors files hold F32, F16 and BF16, not Q4_K"},
        {{.name = "t", .dtype = -1, .data = data}, PEFT_E_UNSUPPORTED, "tensor \"t\""},
        {{.name = "t", .dtype = 0, .ndim = 9, .data = data}, PEFT_E_SHAPE, "tensor \"t\": 9 dimensions"},
        {{.name = "t", .dtype = 0, .ndim = 1, .dims = {-1}, .data = data}, PEFT_E_SHAPE, "dimension 0 is -1"},
        {{.name = "t", .dtype = 0, .ndim = 2, .dims = {INT64_MAX, 3}, .data = data}, PEFT_E_SHAPE, "product"},
        {{.name = "t", .dtype = 0, .ndim = 0}, PEFT_E_INVALID, "tensor \"t\": neither data nor a producer"},
        {{.name = "t", .dtype = 0, .ndim = 0, .produce = st_refuse}, PEFT_E_NUMERIC, "no such weights"},
    };
    peft__mem *mem = runner_mem();
    const char *dir = runner_tmpdir();
    const char *path = runner_path(dir, "r.safetensors");
    CHECK_OK(peft__save_text(mem, path, "old", 3));
    for (size_t k = 0; k < PEFT__COUNT(cases); k++) {
        peft__io_source src[2] = {{.name = "first", .dtype = 0, .data = data}, cases[k].t};
        CHECK_STATUS(peft__safetensors_write(mem, path, src, 2, NULL), cases[k].st);
        CHECK_ERROR_HAS(cases[k].says);
        CHECK_INT(atomic_load(&mem->now), 0);
        peft__file f;
        CHECK_OK(peft__file_open(mem, path, true, &f));
        CHECK_INT(f.size, 3);
        CHECK_MEM(f.data, "old", 3);
        peft__file_close(&f);
    }
    CHECK_STATUS(peft__safetensors_write(mem, runner_path(dir, "no/such/f"), NULL, 0, NULL), PEFT_E_NOT_FOUND);
}

TEST(safetensors_survives_failing_allocations) {
    static const uint8_t data[64] = {0};
    peft__io_source src[] = {
        {.name = "a", .dtype = PEFT_DTYPE_F32, .ndim = 1, .dims = {4}, .data = data},
        {.name = "b", .dtype = PEFT_DTYPE_F16, .ndim = 1, .dims = {4}, .data = data},
    };
    peft__mem *mem = runner_mem();
    const char *path = runner_path(runner_tmpdir(), "f.safetensors");
    int failures[2] = {0, 0};
    for (int write = 1; write >= 0; write--) {
        for (size_t n = 1; n < 1000; n++) {
            peft__safetensors f;
            peft__mem_fail_after(mem, n, false);
            peft_status st = write != 0 ? peft__safetensors_write(mem, path, src, 2, NULL)
                                        : peft__safetensors_open(mem, path, true, &f);
            peft__mem_fail_after(mem, 0, false);
            if (write == 0) { peft__safetensors_close(&f); }
            CHECK_INT(atomic_load(&mem->now), 0);
            if (st == PEFT_OK) { break; }
            CHECK_INT(st, PEFT_E_NOMEM);
            CHECK_INT(peft__path_exists(path), write == 0);
            failures[write]++;
        }
    }
    CHECK(failures[0] >= 4 && failures[0] < 100);
    CHECK(failures[1] >= 4 && failures[1] < 100);
}
