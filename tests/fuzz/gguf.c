/* gguf.c - fuzzes the reader of GGUF: every value and every byte is looked at, what the writer can write is read back the same, and
 * the file is opened as a model. */
#include <stdlib.h>

#include "fuzz.h"
#include "io/io.h"

static uint64_t gguf_sum_kv(uint64_t h, const peft__gguf_kv *kv) {
    size_t pos = 0, strings = 0;
    peft__gguf_str s = {NULL, 0};
    h = peft__hash_str(h, kv->key, strlen(kv->key)) + (uint64_t)kv->i;
    if (kv->type == PEFT__GGUF_STRING) { h = peft__hash_str(h, kv->str.data, kv->str.len); }
    if (kv->type != PEFT__GGUF_ARRAY) { return h; }
    h = peft__hash_str(h, (const char *)kv->raw, kv->raw_size);
    while (kv->elem == PEFT__GGUF_STRING && peft__gguf_next_str(kv, &pos, &s)) {
        h = peft__hash_str(h, s.data, s.len);
        strings++;
    }
    fuzz_check(kv->elem != PEFT__GGUF_STRING || strings == kv->count, "as many strings as announced");
    for (size_t i = 0; kv->elem != PEFT__GGUF_STRING && peft__gguf_type_bytes(kv->elem) > 0 && i < kv->count; i++) {
        double real = peft__gguf_array_f64(kv, i);
        h += (uint64_t)peft__gguf_array_i64(kv, i) + (real == real && real > 1);
    }
    return h;
}

static uint64_t gguf_sum(const peft__gguf *g) {
    uint64_t h = 0;
    for (size_t i = 0; i < g->kv_count; i++) {
        fuzz_check(peft__gguf_get(g, g->kvs[i].key) == &g->kvs[i], "a key is found by its name");
        if (strcmp(g->kvs[i].key, "general.alignment") != 0) { h = gguf_sum_kv(h, &g->kvs[i]); }
    }
    for (size_t i = 0; i < g->count; i++) {
        const peft__io_tensor *t = &g->tensors[i];
        fuzz_check(peft__gguf_find(g, t->name) == t, "a tensor is found by its name");
        h = peft__hash_str(h, t->name, strlen(t->name));
        h = peft__hash_str(h, (const char *)t->data, t->size);
    }
    return h;
}

static void gguf_reads(const peft__gguf *g) {
    for (size_t i = 0; i < g->kv_count; i++) {
        const char *key = g->kvs[i].key, *text = NULL;
        peft__arena a;
        int64_t whole = 0;
        double real = 0;
        bool truth = false;
        peft__arena_init(&a, g->arena.mem);
        (void)fuzz_status(peft__gguf_int(g, key, 0, -5, 1 << 20, &whole));
        (void)fuzz_status(peft__gguf_float(g, key, 0, &real));
        (void)fuzz_status(peft__gguf_bool(g, key, false, &truth));
        (void)fuzz_status(peft__gguf_text(g, key, &a, "", &text));
        peft__arena_free(&a);
        fuzz_check(whole >= -5 && whole <= 1 << 20, "range of peft__gguf_int");
    }
}

static void gguf_again(peft__mem *mem, const peft__gguf *g) {
    char path[FUZZ_PATH];
    peft__gguf again = {0};
    peft__gguf_out w;
    peft__io_source *s = calloc(g->count + 1, sizeof *s);
    fuzz_check(s != NULL, "no memory");
    peft__gguf_out_init(&w, mem);
    for (size_t i = 0; i < g->kv_count; i++) { peft__gguf_put_kv(&w, &g->kvs[i]); }
    for (size_t i = 0; i < g->count; i++) {
        const peft__io_tensor *t = &g->tensors[i];
        s[i] = (peft__io_source){.name = t->name, .dtype = t->dtype, .ndim = t->ndim, .data = t->data};
        memcpy(s[i].dims, t->dims, sizeof s[i].dims);
    }
    (void)fuzz_path("again.gguf", path);
    if (fuzz_status(peft__gguf_write(&w, mem, path, s, g->count)) == PEFT_OK) {
        fuzz_good(peft__gguf_open(mem, path, false, &again));
        fuzz_check(gguf_sum(&again) == gguf_sum(g), "the same when written again");
    }
    peft__gguf_close(&again);
    peft__gguf_out_free(&w);
    free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[FUZZ_PATH];
    peft_context *ctx = fuzz_context(64 << 20);
    peft_model *m = NULL;
    peft__gguf g = {0};
    fuzz_write("f.gguf", (fuzz_bytes){data, size});
    if (fuzz_status(peft__gguf_open(&ctx->mem, fuzz_path("f.gguf", path), true, &g)) == PEFT_OK) {
        bool ours = true;
        gguf_reads(&g);
        (void)gguf_sum(&g);
        for (size_t i = 0; i < g.count; i++) { ours = ours && g.tensors[i].dtype >= 0; }
        if (ours) { gguf_again(&ctx->mem, &g); }
    }
    peft__gguf_close(&g);
    if (fuzz_status(peft_model_open(ctx, path, NULL, &m)) == PEFT_OK) { FUZZ_JSON(peft_model_info_json, m); }
    peft_model_free(m);
    FUZZ_JSON(peft_inspect_json, ctx, path);
    FUZZ_JSON(peft_check_json, ctx, path, NULL, NULL);
    fuzz_context_end(ctx);
    return 0;
}
