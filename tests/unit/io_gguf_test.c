/* io_gguf_test.c - the GGUF reader over sound files, plain and unusual, and its getters. */
#include "io_gguf_build.h"

TEST(gguf_reads_metadata_of_every_type) {
    peft__mem *mem = runner_mem();
    for (uint32_t version = 2; version <= 3; version++) {
        peft__str s;
        peft__gguf g;
        peft__str_init(&s, mem);
        put_head(&s, version, 0, 18);
        put_all_kvs(&s);
        CHECK_OK(open_built(&s, version == 2, &g));
        CHECK_INT(g.version, version);
        CHECK_INT(g.kv_count, 18);
        CHECK_INT(g.count, 0);
        CHECK_INT(g.alignment, 32);
        CHECK_STR(g.kvs[0].key, "u8");
        CHECK_INT(peft__gguf_get(&g, "u8")->i, 200);
        CHECK_INT(peft__gguf_get(&g, "i8")->i, -128);
        CHECK_INT(peft__gguf_get(&g, "u16")->i, 65535);
        CHECK_INT(peft__gguf_get(&g, "i16")->i, -2);
        CHECK_INT(peft__gguf_get(&g, "u32")->i, 4294967295);
        CHECK_INT(peft__gguf_get(&g, "i32")->i, -3);
        CHECK_NEAR(peft__gguf_get(&g, "i32")->f, -3, 0);
        CHECK_NEAR(peft__gguf_get(&g, "f32")->f, 0.5, 0);
        CHECK_INT(peft__gguf_get(&g, "bool")->i, 1);
        CHECK_INT(peft__gguf_get(&g, "u64")->i, INT64_MAX);
        CHECK_INT(peft__gguf_get(&g, "i64")->i, INT64_MIN);
        CHECK_NEAR(peft__gguf_get(&g, "f64")->f, -0.1, 0);
        CHECK_INT(peft__gguf_get(&g, "text")->str.len, 3);
        CHECK(peft__gguf_get(&g, "absent") == NULL);
        peft__gguf_close(&g);
        peft__gguf_close(&g);
    }
}

TEST(gguf_walks_arrays) {
    peft__str s;
    peft__gguf g;
    peft__gguf_str item = {0};
    size_t pos = 0;
    peft__str_init(&s, runner_mem());
    put_head(&s, 3, 0, 18);
    put_all_kvs(&s);
    CHECK_OK(open_built(&s, false, &g));
    const peft__gguf_kv *strings = peft__gguf_get(&g, "strings");
    CHECK_INT(strings->count, 3);
    CHECK_INT(strings->elem, PEFT__GGUF_STRING);
    CHECK_INT(strings->raw_size, 3 * 8 + 4);
    CHECK(peft__gguf_next_str(strings, &pos, &item));
    CHECK_INT(item.len, 1);
    CHECK_MEM(item.data, "a", 1);
    CHECK(peft__gguf_next_str(strings, &pos, &item));
    CHECK_INT(item.len, 0);
    CHECK(peft__gguf_next_str(strings, &pos, &item));
    CHECK_INT(item.len, 3);
    CHECK_MEM(item.data, "\xFFzz", 3);
    CHECK(!peft__gguf_next_str(strings, &pos, &item));
    pos = 0;
    CHECK(!peft__gguf_next_str(peft__gguf_get(&g, "empty"), &pos, &item));
    CHECK(!peft__gguf_next_str(peft__gguf_get(&g, "ints"), &pos, &item));
    CHECK(!peft__gguf_next_str(NULL, &pos, &item));
    const peft__gguf_kv *floats = peft__gguf_get(&g, "floats");
    const peft__gguf_kv *ints = peft__gguf_get(&g, "ints");
    CHECK_NEAR(peft__gguf_array_f64(floats, 0), 1.5, 0);
    CHECK_NEAR(peft__gguf_array_f64(floats, 1), -2, 0);
    CHECK_NEAR(peft__gguf_array_f64(floats, 2), 0, 0);
    CHECK_INT(peft__gguf_array_i64(floats, 1), -2);
    CHECK_INT(peft__gguf_array_i64(ints, 0), 7);
    CHECK_INT(peft__gguf_array_i64(ints, 1), -1);
    CHECK_NEAR(peft__gguf_array_f64(ints, 1), -1, 0);
    CHECK_INT(peft__gguf_array_i64(strings, 0), 0);
    CHECK_INT(peft__gguf_array_i64(NULL, 0), 0);
    peft__gguf_close(&g);
}

TEST(gguf_typed_reads) {
    peft__mem *mem = runner_mem();
    peft__str s;
    peft__gguf g;
    peft__arena a;
    int64_t i;
    double f;
    bool b;
    const char *t;
    peft__arena_init(&a, mem);
    peft__str_init(&s, mem);
    put_head(&s, 3, 0, 18);
    put_all_kvs(&s);
    CHECK_OK(open_built(&s, false, &g));
    CHECK_OK(peft__gguf_int(&g, "u16", 1, 0, 65535, &i));
    CHECK_INT(i, 65535);
    CHECK_OK(peft__gguf_int(&g, "absent", -1, 0, 9, &i));
    CHECK_INT(i, -1);
    CHECK_OK(peft__gguf_float(&g, "f32", 1, &f));
    CHECK_NEAR(f, 0.5, 0);
    CHECK_OK(peft__gguf_float(&g, "i8", 1, &f));
    CHECK_NEAR(f, -128, 0);
    CHECK_OK(peft__gguf_float(&g, "absent", 1.5, &f));
    CHECK_NEAR(f, 1.5, 0);
    CHECK_OK(peft__gguf_bool(&g, "bool", false, &b));
    CHECK(b);
    CHECK_OK(peft__gguf_bool(&g, "absent", true, &b));
    CHECK(b);
    CHECK_OK(peft__gguf_text(&g, "text", &a, "d", &t));
    CHECK_STR(t, "h\xC3\xA9");
    CHECK_OK(peft__gguf_text(&g, "absent", &a, "d", &t));
    CHECK_STR(t, "d");
    CHECK_STATUS(peft__gguf_int(&g, "u16", 1, 0, 9, &i), PEFT_E_FORMAT);
    CHECK_STR(peft__fail_text(), "key \"u16\" is 65535, expected 0 to 9");
    CHECK_STATUS(peft__gguf_int(&g, "f32", 1, 0, 9, &i), PEFT_E_FORMAT);
    CHECK_STR(peft__fail_text(), "key \"f32\" has type f32, expected an integer");
    CHECK_STATUS(peft__gguf_int(&g, "ints", 1, 0, 9, &i), PEFT_E_FORMAT);
    CHECK_STR(peft__fail_text(), "key \"ints\" has type array of i32, expected an integer");
    CHECK_STATUS(peft__gguf_int(&g, "bool", 1, 0, 9, &i), PEFT_E_FORMAT);
    CHECK_STATUS(peft__gguf_float(&g, "text", 1, &f), PEFT_E_FORMAT);
    CHECK_STR(peft__fail_text(), "key \"text\" has type string, expected a number");
    CHECK_STATUS(peft__gguf_float(&g, "nan", 1, &f), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("key \"nan\" is not a finite number");
    CHECK_STATUS(peft__gguf_bool(&g, "u8", true, &b), PEFT_E_FORMAT);
    CHECK_STR(peft__fail_text(), "key \"u8\" has type u8, expected bool");
    CHECK_STATUS(peft__gguf_text(&g, "u8", &a, "", &t), PEFT_E_FORMAT);
    CHECK_STR(peft__fail_text(), "key \"u8\" has type u8, expected string");
    CHECK_STATUS(peft__gguf_text(&g, "nul", &a, "", &t), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("key \"nul\" is not valid UTF-8 or holds a NUL");
    peft__gguf_close(&g);
    peft__arena_free(&a);
}

/* Unusual but sound: another alignment, a gap, data out of order, a scalar, types that only ggml knows. */
TEST(gguf_reads_tensors) {
    peft__mem *mem = runner_mem();
    peft__str s;
    peft__gguf g;
    peft__str_init(&s, mem);
    put_head(&s, 3, 4, 2);
    put_kv(&s, "general.alignment", 4, 8, 4);
    put_kv(&s, "split.count", 2, 1, 2);
    put_tensor(&s, "q8", 2, 64, 3, 8, 48);
    put_tensor(&s, "f", 1, 3, 0, 0, 8);
    put_tensor(&s, "scalar", 0, 0, 0, 30, 0);
    put_tensor(&s, "iq", 1, 32, 0, 20, 24);
    pad(&s, 8);
    put_data(&s, 48 + 204);
    CHECK_OK(open_built(&s, false, &g));
    CHECK_INT(g.alignment, 8);
    CHECK_INT(g.count, 4);
    const peft__io_tensor *q = peft__gguf_find(&g, "q8");
    CHECK(q == &g.tensors[0]);
    CHECK_INT(q->dtype, PEFT_DTYPE_Q8_0);
    CHECK_STR(q->dtype_name, "Q8_0");
    CHECK_INT(q->ndim, 2);
    CHECK_INT(q->dims[0], 3);
    CHECK_INT(q->dims[1], 64);
    CHECK_INT(q->size, 3 * 2 * 34);
    CHECK_INT(q->data[0], 48);
    CHECK_INT(peft__gguf_find(&g, "f")->size, 12);
    CHECK_INT(peft__gguf_find(&g, "f")->data[0], 8);
    CHECK_INT(peft__gguf_find(&g, "scalar")->ndim, 0);
    CHECK_INT(peft__gguf_find(&g, "scalar")->size, 2);
    CHECK_INT(peft__gguf_find(&g, "scalar")->dtype, PEFT_DTYPE_BF16);
    CHECK_INT(peft__gguf_find(&g, "iq")->dtype, PEFT__IO_DTYPE_OTHER);
    CHECK_STR(peft__gguf_find(&g, "iq")->dtype_name, "IQ4_NL");
    CHECK_INT(peft__gguf_find(&g, "iq")->size, 18);
    CHECK(peft__gguf_find(&g, "none") == NULL);
    peft__gguf_close(&g);
}

TEST(gguf_probe_looks_at_the_magic) {
    peft__mem *mem = runner_mem();
    const char *dir = runner_tmpdir();
    const char *path = runner_path(dir, "p");
    CHECK(!peft__gguf_probe(path));
    CHECK(!peft__gguf_probe(dir));
    CHECK_OK(peft__save_text(mem, path, "GGU", 3));
    CHECK(!peft__gguf_probe(path));
    CHECK_OK(peft__save_text(mem, path, "GGUF", 4));
    CHECK(peft__gguf_probe(path));
    CHECK_OK(peft__save_text(mem, path, "ggufxx", 6));
    CHECK(!peft__gguf_probe(path));
}

/* ---- sizes of types ---- */

TEST(io_block_sizes) {
    static const struct { int32_t dtype; size_t bytes; int64_t elems; const char *name; } cases[] = {
        {PEFT_DTYPE_F32, 4, 1, "F32"}, {PEFT_DTYPE_F16, 2, 1, "F16"}, {PEFT_DTYPE_BF16, 2, 1, "BF16"},
        {PEFT_DTYPE_Q4_0, 18, 32, "Q4_0"}, {PEFT_DTYPE_Q4_1, 20, 32, "Q4_1"}, {PEFT_DTYPE_Q5_0, 22, 32, "Q5_0"},
        {PEFT_DTYPE_Q5_1, 24, 32, "Q5_1"}, {PEFT_DTYPE_Q8_0, 34, 32, "Q8_0"}, {PEFT_DTYPE_Q4_K, 144, 256, "Q4_K"},
        {PEFT_DTYPE_Q5_K, 176, 256, "Q5_K"}, {PEFT_DTYPE_Q6_K, 210, 256, "Q6_K"}, {10, 0, 0, "?"}, {26, 0, 0, "?"},
        {PEFT__IO_DTYPE_OTHER, 0, 0, "?"}, {1000, 0, 0, "?"},
    };
    for (size_t k = 0; k < PEFT__COUNT(cases); k++) {
        CHECK_INT(peft__io_block_bytes(cases[k].dtype), cases[k].bytes);
        CHECK_INT(peft__io_block_size(cases[k].dtype), cases[k].elems);
        CHECK_STR(peft__io_dtype_name(cases[k].dtype), cases[k].name);
    }
}

/* Spans in a shuffled order, so that the sort has work; then one that overlaps the next by a byte. */
TEST(io_spans_are_sorted_and_compared) {
    enum { N = 1009 };
    static peft__io_tensor t[N];
    static uint8_t data[N * 4];
    peft__mem *mem = runner_mem();
    for (size_t i = 0; i < N; i++) {
        t[i] = (peft__io_tensor){.name = "x", .data = data + i * 577 % N * 4, .size = 4};
    }
    CHECK_OK(peft__io_check_spans(mem, t, N, data, sizeof data, true));
    t[500].size = 3;
    CHECK_OK(peft__io_check_spans(mem, t, N, data, sizeof data, false));
    CHECK_STATUS(peft__io_check_spans(mem, t, N, data, sizeof data, true), PEFT_E_FORMAT);
    t[500].size = 5;
    t[500].name = "long";
    CHECK_STATUS(peft__io_check_spans(mem, t, N, data, sizeof data, false), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("tensors \"long\" and \"x\" overlap");
}
