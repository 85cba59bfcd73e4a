/* inspect.c - what a path holds: an adapter, a model, a tokenizer or rows of data, found out by looking. */
#include "api/api.h"

static peft_status inspect_model(peft_context *ctx, const char *path, peft__str *out) {
    struct peft_model *m = NULL;
    peft_status st = peft__model_open(ctx, path, false, NULL, &m);
    if (st == PEFT_OK) { st = peft__model_info(m, out); }
    peft__model_release(m);
    return st;
}

static peft_status inspect_tokenizer(peft_context *ctx, const char *path, peft__str *out) {
    peft_status st = PEFT_OK;
    peft__tokenizer *t = NULL;
    TRY(peft__tokenizer_open(&ctx->mem, path, &t));
    peft__str_puts(out, "{\"kind\":\"tokenizer\",\"tokenizer\":");
    TRY(peft__tokenizer_info(t, out));
    peft__str_puts(out, "}");
    TRY(peft__str_status(out));
out:
    peft__tokenizer_free(t);
    return st;
}

/* ---- JSON Lines ---------------------------------------------------------------------------------------------------------- */

enum { INSPECT_TEXT, INSPECT_COMPLETION, INSPECT_MESSAGES, INSPECT_IDS, INSPECT_OTHER, INSPECT_KINDS };
static const char *const inspect_kinds[INSPECT_KINDS] = {"text", "prompt_completion", "messages", "input_ids", "other"};

static int32_t inspect_row_kind(const peft__json *row) {
    if (peft__json_get(row, "messages") != NULL) { return INSPECT_MESSAGES; }
    if (peft__json_get(row, "prompt") != NULL && peft__json_get(row, "completion") != NULL) {
        return INSPECT_COMPLETION;
    }
    if (peft__json_get(row, "input_ids") != NULL) { return INSPECT_IDS; }
    return peft__json_get(row, "text") != NULL ? INSPECT_TEXT : INSPECT_OTHER;
}

static peft_status inspect_row(peft__mem *mem, const char *text, size_t len, int64_t counts[INSPECT_KINDS]) {
    peft_status st = PEFT_OK;
    const peft__json *row = NULL;
    peft__arena a;
    peft__arena_init(&a, mem);
    TRY(peft__json_parse(&a, text, len, "row", &row));
    if (row->kind != PEFT__JSON_OBJECT) { FAIL(PEFT_E_FORMAT, "no JSON object"); }
    counts[inspect_row_kind(row)]++;
out:
    peft__arena_free(&a);
    return st;
}

static bool inspect_blank(const char *text, size_t len) {
    return strspn(text, " \t\r\n") >= len;
}

/* A copy of the line, because the mapping has no NUL behind it. */
static peft_status inspect_line(peft__str *line, const char *path, const char *text, size_t len, int64_t number,
                                int64_t counts[INSPECT_KINDS]) {
    peft_status st = PEFT_OK;
    peft__str_clear(line);
    peft__str_put(line, text, len);
    TRY(peft__str_status(line));
    if (inspect_blank(line->data, len)) { return PEFT_OK; }
    TRY(inspect_row(line->mem, line->data, len, counts));
    return PEFT_OK;
out:
    if (st != PEFT_E_NOMEM) { peft__fail_prefix("%s line %lld", path, (long long)number); }
    return st;
}

static peft_status inspect_data(peft_context *ctx, const char *path, peft__str *out) {
    peft_status st = PEFT_OK;
    peft__file file;
    peft__str line;
    peft__json_out j;
    int64_t counts[INSPECT_KINDS] = {0}, number = 0, rows = 0;
    memset(&file, 0, sizeof file);
    peft__str_init(&line, &ctx->mem);
    TRY(peft__file_open(&ctx->mem, path, false, &file));
    for (size_t at = 0; at < file.size; number++) {
        const char *text = (const char *)file.data + at, *end = memchr(text, '\n', file.size - at);
        size_t len = end != NULL ? (size_t)(end - text) : file.size - at;
        TRY(inspect_line(&line, path, text, len, number + 1, counts));
        at += len + (end != NULL);
    }
    for (int32_t i = 0; i < INSPECT_KINDS; i++) { rows += counts[i]; }
    if (rows == 0) { FAIL(PEFT_E_FORMAT, "%s: there is nothing in it", path); }
    peft__json_begin(&j, out, 0);
    peft__json_object(&j);
    peft__json_key(&j, "kind");
    peft__json_put_text(&j, "data");
    peft__json_key(&j, "rows");
    peft__json_put_int(&j, rows);
    peft__json_key(&j, "bytes");
    peft__json_put_int(&j, (int64_t)file.size);
    for (int32_t i = 0; i < INSPECT_KINDS; i++) {
        peft__json_key(&j, inspect_kinds[i]);
        peft__json_put_int(&j, counts[i]);
    }
    peft__json_object_end(&j);
    TRY(peft__str_status(out));
out:
    peft__file_close(&file);
    peft__str_free(&line);
    return st;
}

/* ---- which of them ------------------------------------------------------------------------------------------------------- */

static peft_status inspect_path(peft_context *ctx, const char *path, peft__str *out) {
    bool dir = peft__path_is_dir(path);
    if (!dir && !peft__path_exists(path)) { return peft__fail(PEFT_E_NOT_FOUND, "%s: no such file or folder", path); }
    if (peft__union_probe(path)) { return peft__union_inspect(&ctx->mem, path, out); }
    if (peft__adapter_probe(path)) { return peft__adapter_inspect(&ctx->mem, path, out); }
    if (peft__adapter_probe_gguf(&ctx->mem, path)) { return peft__adapter_inspect_gguf(&ctx->mem, path, out); }
    if (peft__model_probe(path)) { return inspect_model(ctx, path, out); }
    if (peft__tokenizer_probe(path)) { return inspect_tokenizer(ctx, path, out); }
    if (peft__text_ends(path, ".gguf")) { return inspect_model(ctx, path, out); } /* which says what is wrong with it */
    if (dir) {
        return peft__fail(PEFT_E_FORMAT,
                          "%s: neither a model (config.json and model.safetensors), nor an adapter "
                          "(adapter_config.json), nor a tokenizer (tokenizer.json, tokenizer.model, vocab.json)",
                          path);
    }
    return inspect_data(ctx, path, out);
}

peft_status peft_inspect_json(peft_context *ctx, const char *path, char *buf, size_t cap, size_t *needed) {
    peft_status st = PEFT_OK;
    peft__str text;
    TRY(peft__check_buffer(buf, cap, needed));
    TRY(peft__check_handle(ctx, PEFT__MAGIC_CONTEXT, "ctx"));
    TRY(peft__check_text(path, "path"));
    peft__str_init(&text, &ctx->mem);
    return peft__finish_text(inspect_path(ctx, path, &text), &text, buf, cap, needed);
out:
    return st;
}
