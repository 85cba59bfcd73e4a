/* io_gguf_write_test.c - the GGUF writer: exact bytes, round trips through the reader, and what it refuses. */
#include "io_gguf_build.h"

TEST(gguf_writes_exact_bytes) {
    static const float v[2] = {1.0f, -2.0f};
    peft__io_source src = {.name = "w", .dtype = PEFT_DTYPE_F32, .ndim = 2, .dims = {1, 2}, .data = v};
    peft__mem *mem = runner_mem();
    const char *path = runner_path(runner_tmpdir(), "e.gguf");
    peft__gguf_out w;
    peft__gguf_out_init(&w, mem);
    peft__gguf_put_u32(&w, "u", 7);
    peft__gguf_put_bool(&w, "b", true);
    CHECK_OK(peft__gguf_write(&w, mem, path, &src, 1));
    peft__gguf_out_free(&w);
    peft__str s;
    peft__str_init(&s, mem);
    put_head(&s, 3, 1, 2);
    put_kv(&s, "u", 4, 7, 4);
    put_kv(&s, "b", 7, 1, 1);
    put_tensor(&s, "w", 2, 2, 1, 0, 0);
    pad(&s, 32);
    peft__str_put(&s, "\0\0\x80\x3F\0\0\0\xC0", 8);
    pad(&s, 32);
    peft__file f;
    CHECK_OK(peft__file_open(mem, path, false, &f));
    CHECK_INT(f.size, s.len);
    CHECK_MEM(f.data, s.data, s.len);
    peft__file_close(&f);
    peft__str_free(&s);
}

typedef struct pieces {
    size_t calls, block;
    bool whole; /* every piece was of whole blocks */
} pieces;

static peft_status count_up(void *user, void *out, size_t offset, size_t size) {
    pieces *p = user;
    uint8_t *bytes = out;
    p->calls++;
    p->whole = p->whole && offset % p->block == 0 && size % p->block == 0 && size <= PEFT__IO_PIECE;
    for (size_t i = 0; i < size; i++) { bytes[i] = (uint8_t)((offset + i) * 2654435761u >> 24); }
    return PEFT_OK;
}

static peft_status refuse(void *user, void *out, size_t offset, size_t size) {
    (void)user;
    (void)out;
    (void)offset;
    (void)size;
    return peft__fail(PEFT_E_NUMERIC, "no such weights");
}

TEST(gguf_copies_metadata) {
    static const uint8_t bytes[6] = {1, 2, 3, 4, 5, 6};
    peft__mem *mem = runner_mem();
    const char *path = runner_path(runner_tmpdir(), "1.gguf");
    peft__gguf g;
    peft__gguf copy;
    peft__str s;
    peft__str_init(&s, mem);
    put_head(&s, 3, 0, 19);
    put_all_kvs(&s);
    put_kv(&s, "general.alignment", 4, 64, 4);
    CHECK_OK(open_built(&s, false, &g));
    peft__gguf_out w;
    peft__gguf_out_init(&w, mem);
    for (size_t i = 0; i < g.kv_count; i++) { peft__gguf_put_kv(&w, &g.kvs[i]); }
    CHECK_INT(w.kv_count, 18);
    peft__gguf_put_f32(&w, "x.f32", -0.75f);
    peft__gguf_put_text(&w, "x.text", "abc", 2);
    peft__gguf_begin_str_array(&w, "x.words", 2);
    peft__gguf_array_str(&w, "one", 3);
    peft__gguf_array_str(&w, "", 0);
    peft__gguf_put_array(&w, "x.bytes", PEFT__GGUF_U8, 6, bytes, 6);
    CHECK_OK(peft__gguf_write(&w, mem, path, NULL, 0));
    peft__gguf_out_free(&w);
    CHECK_OK(peft__gguf_open(mem, path, false, &copy));
    CHECK_INT(copy.alignment, 32);
    CHECK_INT(copy.kv_count, 22);
    for (size_t i = 0; i < 18; i++) {
        const peft__gguf_kv *a = &g.kvs[i];
        const peft__gguf_kv *b = &copy.kvs[i];
        CHECK_STR(b->key, a->key);
        CHECK_INT(b->type, a->type);
        CHECK_INT(b->i, a->i);
        CHECK_MEM(&b->f, &a->f, sizeof a->f);
        CHECK_INT(b->str.len, a->str.len);
        CHECK_MEM(b->str.data, a->str.data, a->str.len);
        CHECK_INT(b->elem, a->elem);
        CHECK_INT(b->count, a->count);
        CHECK_INT(b->raw_size, a->raw_size);
        CHECK_MEM(b->raw, a->raw, a->raw_size);
    }
    CHECK_NEAR(peft__gguf_get(&copy, "x.f32")->f, -0.75, 0);
    CHECK_INT(peft__gguf_get(&copy, "x.text")->str.len, 2);
    CHECK_INT(peft__gguf_get(&copy, "x.words")->raw_size, 19);
    CHECK_INT(peft__gguf_array_i64(peft__gguf_get(&copy, "x.bytes"), 5), 6);
    peft__gguf_close(&copy);
    peft__gguf_close(&g);
}

TEST(gguf_streams_tensors) {
    static const uint8_t half[6] = {1, 2, 3, 4, 5, 6};
    pieces p = {.block = 34, .whole = true};
    peft__io_source src[] = {
        {.name = "q", .dtype = PEFT_DTYPE_Q8_0, .ndim = 2, .dims = {1000, 2048}, .produce = count_up, .user = &p},
        {.name = "h", .dtype = PEFT_DTYPE_F16, .ndim = 3, .dims = {1, 3, 1}, .data = half},
        {.name = "s", .dtype = PEFT_DTYPE_BF16, .ndim = 0, .data = half},
    };
    peft__mem *mem = runner_mem();
    const char *path = runner_path(runner_tmpdir(), "1.gguf");
    peft__gguf_out w;
    peft__gguf g;
    peft__gguf_out_init(&w, mem);
    CHECK_OK(peft__gguf_write(&w, mem, path, src, 3));
    peft__gguf_out_free(&w);
    CHECK_INT(p.calls, 3); /* 2.1 MB in pieces of at most 1 MiB */
    CHECK(p.whole);
    CHECK_OK(peft__gguf_open(mem, path, false, &g));
    CHECK_INT(g.version, 3);
    CHECK_INT(g.file.size % 32, 0);
    CHECK_INT(g.count, 3);
    for (size_t i = 0; i < 3; i++) {
        CHECK_STR(g.tensors[i].name, src[i].name);
        CHECK_INT(g.tensors[i].dtype, src[i].dtype);
        CHECK_INT(g.tensors[i].ndim, src[i].ndim);
        CHECK_INT((g.tensors[i].data - g.file.data) % 32, 0);
        for (int32_t d = 0; d < src[i].ndim; d++) { CHECK_INT(g.tensors[i].dims[d], src[i].dims[d]); }
    }
    uint8_t *want = peft__alloc(mem, g.tensors[0].size);
    CHECK(want != NULL);
    CHECK_OK(count_up(&p, want, 0, g.tensors[0].size));
    CHECK_MEM(g.tensors[0].data, want, g.tensors[0].size);
    peft__free(mem, want, g.tensors[0].size);
    CHECK_MEM(g.tensors[1].data, half, 6);
    CHECK_MEM(g.tensors[2].data, half, 2);
    peft__gguf_close(&g);
}

TEST(gguf_writer_refuses_tensors) {
    static const uint8_t data[64] = {0};
    struct { peft__io_source t; peft_status st; const char *says;
    } cases[] = {
        {{.name = "", .dtype = 0, .data = data}, PEFT_E_INVALID, "tensor 0 has no name"},
        {{.name = "0123456789012345678901234567890123456789012345678901234567890123", .dtype = 0, .data = data},
         PEFT_E_UNSUPPORTED,
         "the name has 64 bytes, at most 63 are possible"},
        {{.name = "t", .dtype = 10, .data = data}, PEFT_E_UNSUPPORTED, "tensor \"t\": dtype 10 is unknown"},
        {{.name = "t", .dtype = 0, .ndim = 5, .data = data},
         PEFT_E_UNSUPPORTED,
         "tensor \"t\": 5 dimensions, GGUF holds 0 to 4"},
        {{.name = "t", .dtype = 0, .ndim = 1, .dims = {0}, .data = data},
         PEFT_E_SHAPE,
         "tensor \"t\": dimension 0 is 0"},
        {{.name = "t", .dtype = 8, .ndim = 1, .dims = {40}, .data = data}, PEFT_E_SHAPE, "rows of 40 elements"},
        {{.name = "t", .dtype = 0, .ndim = 1, .dims = {PTRDIFF_MAX / 4}, .data = data},
         PEFT_E_SHAPE,
         "tensor \"t\": the file passes"},
        {{.name = "t", .dtype = 0, .ndim = 1, .dims = {4}}, PEFT_E_INVALID, "neither data nor a producer"},
        {{.name = "t", .dtype = 0, .ndim = 1, .dims = {4}, .produce = refuse}, PEFT_E_NUMERIC, "no such weights"},
    };
    peft__mem *mem = runner_mem();
    const char *path = runner_path(runner_tmpdir(), "r.gguf");
    for (size_t k = 0; k < PEFT__COUNT(cases); k++) {
        peft__gguf_out w;
        peft__gguf_out_init(&w, mem);
        CHECK_STATUS(peft__gguf_write(&w, mem, path, &cases[k].t, 1), cases[k].st);
        CHECK_ERROR_HAS(cases[k].says);
        CHECK(!peft__path_exists(path));
        CHECK_INT(atomic_load(&mem->now), 0);
    }
}

TEST(gguf_writer_refuses_unsound_metadata) {
    peft__mem *mem = runner_mem();
    const char *path = runner_path(runner_tmpdir(), "r.gguf");
    for (int k = 0; k < 3; k++) {
        static const char *const says[] = {"key \"a\": the key appears twice", "a string of an array",
                                           "bytes behind the last"};
        peft__gguf_out w;
        peft__gguf_out_init(&w, mem);
        peft__gguf_put_u32(&w, "a", 1);
        if (k == 0) {
            peft__gguf_put_u32(&w, "a", 2);
        } else {
            peft__gguf_begin_str_array(&w, "words", k == 1 ? 2 : 0);
            peft__gguf_array_str(&w, "one and more", 12);
        }
        CHECK_STATUS(peft__gguf_write(&w, mem, path, NULL, 0), PEFT_E_INTERNAL);
        CHECK_ERROR_HAS("r.gguf: the metadata to be written are unsound");
        CHECK_ERROR_HAS(says[k]);
        peft__gguf_out_free(&w);
        CHECK(!peft__path_exists(path));
    }
}

TEST(gguf_survives_failing_allocations) {
    static const uint8_t data[64] = {0};
    peft__io_source src[] = {
        {.name = "a", .dtype = PEFT_DTYPE_F32, .ndim = 1, .dims = {4}, .data = data},
        {.name = "b", .dtype = PEFT_DTYPE_F16, .ndim = 1, .dims = {4}, .data = data},
    };
    peft__mem *mem = runner_mem();
    const char *path = runner_path(runner_tmpdir(), "f.gguf");
    int failures[2] = {0, 0};
    for (int write = 1; write >= 0; write--) {
        for (size_t n = 1; n < 1000; n++) {
            peft__gguf g;
            peft__gguf_out w;
            peft__gguf_out_init(&w, mem);
            peft__mem_fail_after(mem, n, false);
            peft__gguf_put_u32(&w, "n", 1);
            peft__gguf_put_text(&w, "t", "0123456789012345678901234567890123456789", 40);
            peft_status st =
                write != 0 ? peft__gguf_write(&w, mem, path, src, 2) : peft__gguf_open(mem, path, true, &g);
            peft__mem_fail_after(mem, 0, false);
            if (write == 0) { peft__gguf_close(&g); }
            peft__gguf_out_free(&w);
            CHECK_INT(atomic_load(&mem->now), 0);
            if (st == PEFT_OK && !(write == 0 && n <= 2)) { break; } /* the first two are the writer's in any case */
            if (st != PEFT_OK) { CHECK_INT(st, PEFT_E_NOMEM); }
            CHECK_INT(peft__path_exists(path), write == 0);
            failures[write]++;
        }
    }
    CHECK(failures[0] >= 4 && failures[0] < 100);
    CHECK(failures[1] >= 4 && failures[1] < 100);
}
