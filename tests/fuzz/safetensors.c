/* safetensors.c - fuzzes the reader of safetensors: every byte of every tensor is looked at, and what the writer can write is read
 * back the same. */
#include <stdlib.h>

#include "fuzz.h"
#include "io/io.h"

static uint64_t safetensors_sum(const peft__safetensors *s) {
    uint64_t h = 0;
    for (size_t i = 0; i < s->count; i++) {
        const peft__io_tensor *t = &s->tensors[i];
        fuzz_check(peft__safetensors_find(s, t->name) == t, "a tensor is found by its name");
        fuzz_check(t->ndim >= 0 && t->ndim <= PEFT__IO_MAX_DIMS, "number of dimensions");
        h = peft__hash_str(h, t->name, strlen(t->name));
        h = peft__hash_str(h, (const char *)t->data, t->size);
    }
    return h;
}

/* The same tensors through the writer. */
static void safetensors_again(peft__mem *mem, const peft__safetensors *s) {
    char path[FUZZ_PATH];
    peft__safetensors again = {0};
    peft__io_source *w = calloc(s->count + 1, sizeof *w);
    fuzz_check(w != NULL, "no memory");
    for (size_t i = 0; i < s->count; i++) {
        const peft__io_tensor *t = &s->tensors[i];
        w[i] = (peft__io_source){.name = t->name, .dtype = t->dtype, .ndim = t->ndim, .data = t->data};
        memcpy(w[i].dims, t->dims, sizeof w[i].dims);
    }
    (void)fuzz_path("again.safetensors", path);
    if (fuzz_status(peft__safetensors_write(mem, path, w, s->count, NULL)) == PEFT_OK) {
        fuzz_good(peft__safetensors_open(mem, path, false, &again));
        fuzz_check(safetensors_sum(&again) == safetensors_sum(s), "the same when written again");
    }
    peft__safetensors_close(&again);
    free(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[FUZZ_PATH];
    peft_context *ctx = fuzz_context(64 << 20);
    peft__safetensors s = {0};
    fuzz_write("f.safetensors", (fuzz_bytes){data, size});
    if (fuzz_status(peft__safetensors_open(&ctx->mem, fuzz_path("f.safetensors", path), true, &s)) == PEFT_OK) {
        (void)safetensors_sum(&s);
        bool ours = true;
        for (size_t i = 0; i < s.count; i++) { ours = ours && s.tensors[i].dtype >= 0; }
        if (ours) { safetensors_again(&ctx->mem, &s); }
    }
    peft__safetensors_close(&s);
    FUZZ_JSON(peft_inspect_json, ctx, path);
    fuzz_context_end(ctx);
    return 0;
}
