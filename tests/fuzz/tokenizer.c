/* tokenizer.c - fuzzes the readers of tokenizers, then encodes and decodes with what opened.
 *
 * First byte: j tokenizer.json, tokenizer_config.json, text; s tokenizer_config.json, text, spiece.model; g a GGUF file; v vocab.json,
 * merges.txt, tokenizer_config.json, text; b vocab.txt, tokenizer_config.json, text; c messages, template: a chat. Parts are divided
 * by lines "%%"; the last is all that is left. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "text/text.h"

enum { TOKENIZER_ROOM = 4096 };

/* The streaming decoder says the same as the decoder of all. */
static void tokenizer_stream(const peft__tokenizer *t, const int32_t *ids, size_t n, int32_t flags, const char *want, size_t len) {
    peft__detok d;
    peft__str out;
    peft__mem mem;
    peft__mem_init(&mem, NULL);
    peft__str_init(&out, &mem);
    peft__detok_init(&d, t, flags);
    for (size_t i = 0; i < n; i++) { fuzz_good(peft__detok_put(&d, ids[i], &out)); }
    fuzz_good(peft__detok_end(&d, &out));
    fuzz_check(out.len == len && (len == 0 || memcmp(out.data, want, len) == 0), "streaming decodes the same");
    peft__str_free(&out);
}

static void tokenizer_encode(const peft_tokenizer *t, const char *text, size_t len) {
    static int32_t ids[TOKENIZER_ROOM];
    static char back[16 * TOKENIZER_ROOM];
    for (int32_t flags = 0; flags < 4; flags++) {
        size_t n = 0, bytes = 0;
        if (fuzz_status(peft_tokenizer_encode(t, text, len, flags, ids, TOKENIZER_ROOM, &n)) != PEFT_OK) { continue; }
        for (size_t i = 0; i < n; i++) {
            fuzz_check(ids[i] >= 0 && (size_t)ids[i] < peft_tokenizer_size(t), "ids are below the size of the vocabulary");
        }
        if (fuzz_status(peft_tokenizer_decode(t, ids, n, flags, back, sizeof back, &bytes)) != PEFT_OK) { continue; }
        tokenizer_stream(t->inner, ids, n, flags, back, bytes);
    }
}

static void tokenizer_pair(const peft_tokenizer *t, const char *text, size_t len) {
    peft__mem mem;
    peft__vec out;
    size_t windows = 0;
    peft__text_in a = {.text = "ab a", .len = 4}, b = {.text = text, .len = len};
    peft__pair_rule rule = {.flags = 3, .max = 9, .truncate = PEFT__TRUNCATE_SECOND, .stride = 2};
    peft__mem_init(&mem, NULL);
    peft__vec_init(&out, &mem, sizeof(peft__encoded));
    if (!peft__utf8_valid(text, len)) { return; }
    (void)fuzz_status(peft__tokenizer_encode_pair(t->inner, &a, &b, &rule, &out, &windows));
    fuzz_check(out.len <= 9 || windows == 0, "no more tokens than asked for");
    peft__vec_free(&out);
    fuzz_check(atomic_load(&mem.now) == 0, "memory was not freed");
}

static void tokenizer_export(peft_context *ctx, const peft_tokenizer *t) {
    char path[FUZZ_PATH];
    peft__gguf_out w;
    peft_tokenizer *again = NULL;
    peft__gguf_out_init(&w, &ctx->mem);
    if (fuzz_status(peft__tokenizer_to_gguf(t->inner, 0, &w)) == PEFT_OK) {
        fuzz_good(peft__gguf_write(&w, &ctx->mem, fuzz_path("tokens.gguf", path), NULL, 0));
        (void)fuzz_status(peft_tokenizer_open(ctx, path, &again));
        peft_tokenizer_free(again);
    }
    peft__gguf_out_free(&w);
    fuzz_folder("hf");
    if (fuzz_status(peft__tokenizer_to_hf(t->inner, fuzz_path("hf", path))) == PEFT_OK) {
        (void)fuzz_status(peft_tokenizer_open(ctx, path, &again));
        peft_tokenizer_free(again);
    }
}

static void tokenizer_use(peft_context *ctx, const char *path, fuzz_bytes text) {
    static const char sample[] = " ab<|end|>abc 123\n\xC3\xA9\xE2\x96\x81 \xFF" "Don't  stop.\t\xF0\x9F\x98\x80";
    static const char chat[] = "[{\"role\":\"user\",\"content\":\"ab\"},{\"role\":\"assistant\",\"content\":\"c\"}]";
    peft_tokenizer *t = NULL;
    FUZZ_JSON(peft_inspect_json, ctx, path);
    if (fuzz_status(peft_tokenizer_open(ctx, path, &t)) == PEFT_OK) {
        FUZZ_JSON(peft_tokenizer_info_json, t);
        tokenizer_encode(t, sample, sizeof sample - 1);
        tokenizer_encode(t, (const char *)text.data, text.size);
        tokenizer_pair(t, (const char *)text.data, text.size);
        FUZZ_JSON(peft_tokenizer_chat, t, chat, sizeof chat - 1, 1);
        tokenizer_export(ctx, t);
        FUZZ_JSON(peft_check_json, ctx, path, NULL, NULL);
    }
    peft_tokenizer_free(t);
}

/* Messages for a tokenizer whose template is of the input. */
static void tokenizer_chat(peft_context *ctx, fuzz_bytes *in) {
    peft_tokenizer *t = fuzz_tokenizer(ctx);
    fuzz_bytes messages = fuzz_section(in);
    char path[FUZZ_PATH];
    peft_tokenizer_free(t);
    fuzz_write("own/chat_template.jinja", *in);
    fuzz_good(peft_tokenizer_open(ctx, fuzz_path("own", path), &t));
    FUZZ_JSON(peft_tokenizer_chat, t, (const char *)messages.data, messages.size, 0);
    FUZZ_JSON(peft_tokenizer_chat, t, (const char *)messages.data, messages.size, 1);
    peft_tokenizer_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[FUZZ_PATH];
    fuzz_bytes in = {data, size}, text = {NULL, 0};
    peft_context *ctx = fuzz_context(64 << 20);
    uint8_t kind = fuzz_byte(&in);
    fuzz_clear();
    fuzz_folder("t");
    switch (kind) {
    case 'j': fuzz_write("t/tokenizer.json", fuzz_section(&in)); break;
    case 'v':
        fuzz_write("t/vocab.json", fuzz_section(&in));
        fuzz_write("t/merges.txt", fuzz_section(&in));
        break;
    case 'b': fuzz_write("t/vocab.txt", fuzz_section(&in)); break;
    default: break;
    }
    if (kind == 'c') {
        tokenizer_chat(ctx, &in);
    } else if (kind == 'g') {
        fuzz_write("t.gguf", in);
        tokenizer_use(ctx, fuzz_path("t.gguf", path), (fuzz_bytes){data, PEFT__MIN(size, (size_t)64)});
    } else {
        fuzz_bytes config = fuzz_section(&in);
        if (config.size > 0) { fuzz_write("t/tokenizer_config.json", config); }
        text = fuzz_section(&in);
        if (kind == 's') { fuzz_write("t/spiece.model", in); }
        tokenizer_use(ctx, fuzz_path("t", path), text);
    }
    fuzz_context_end(ctx);
    return 0;
}
