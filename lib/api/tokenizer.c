/* tokenizer.c - peft_tokenizer: text to ids and back, chat formats. */
#include "api/api.h"

peft_status peft_tokenizer_open(peft_context *ctx, const char *path, peft_tokenizer **out) {
    peft_status st = PEFT_OK;
    peft_tokenizer *t = NULL;
    TRY(peft__check_arg(out, "out"));
    *out = NULL;
    TRY(peft__check_handle(ctx, PEFT__MAGIC_CONTEXT, "ctx"));
    TRY(peft__check_text(path, "path"));
    t = peft__alloc_zero(&ctx->mem, sizeof *t);
    if (t == NULL) { return PEFT_E_NOMEM; }
    TRY(peft__tokenizer_open(&ctx->mem, path, &t->inner));
    t->magic = PEFT__MAGIC_TOKENIZER;
    atomic_init(&t->refs, 1);
    t->ctx = ctx;
    peft__ctx_retain(ctx);
    *out = t;
    t = NULL;
out:
    if (t != NULL) { peft__free(&ctx->mem, t, sizeof *t); }
    return st;
}

void peft_tokenizer_free(peft_tokenizer *t) {
    if (peft__is_handle(t, PEFT__MAGIC_TOKENIZER)) { peft__tokenizer_release(t); }
}

size_t peft_tokenizer_size(const peft_tokenizer *t) {
    return peft__is_handle(t, PEFT__MAGIC_TOKENIZER) ? (size_t)peft__tokenizer_size(t->inner) : 0;
}

int32_t peft_tokenizer_token_id(const peft_tokenizer *t, const char *token) {
    if (!peft__is_handle(t, PEFT__MAGIC_TOKENIZER) || token == NULL) { return -1; }
    return peft__tokenizer_id(t->inner, token, strlen(token));
}

int32_t peft_tokenizer_bos_id(const peft_tokenizer *t) {
    return peft__is_handle(t, PEFT__MAGIC_TOKENIZER) ? peft__tokenizer_bos(t->inner) : -1;
}

int32_t peft_tokenizer_eos_id(const peft_tokenizer *t) {
    return peft__is_handle(t, PEFT__MAGIC_TOKENIZER) ? peft__tokenizer_eos(t->inner) : -1;
}

static peft_status tokenizer_check_flags(int32_t flags) {
    if ((flags & ~(PEFT_TOKENIZE_SPECIAL | PEFT_TOKENIZE_BOS_EOS)) == 0) { return PEFT_OK; }
    return peft__fail(PEFT_E_INVALID, "flags are %d, expected a sum of PEFT_TOKENIZE_*", (int)flags);
}

peft_status peft_tokenizer_encode(const peft_tokenizer *t, const char *text, size_t len, int32_t flags, int32_t *ids,
                                  size_t cap, size_t *needed) {
    peft_status st = PEFT_OK;
    peft__vec made;
    memset(&made, 0, sizeof made);
    TRY(peft__check_buffer(ids, cap, needed));
    TRY(peft__check_handle(t, PEFT__MAGIC_TOKENIZER, "tokenizer"));
    TRY(peft__check_bytes(text, len, "text"));
    TRY(tokenizer_check_flags(flags));
    peft__vec_init(&made, &t->ctx->mem, sizeof(int32_t));
    TRY(peft__tokenizer_encode(t->inner, text != NULL ? text : "", len, flags, &made));
    TRY(peft__copy_elements(made.data, made.len, sizeof(int32_t), ids, cap, needed));
out:
    if (made.mem != NULL) { peft__vec_free(&made); }
    return st;
}

peft_status peft_tokenizer_decode(const peft_tokenizer *t, const int32_t *ids, size_t n, int32_t flags, char *buf,
                                  size_t cap, size_t *needed) {
    peft_status st = PEFT_OK;
    peft__str text;
    memset(&text, 0, sizeof text);
    TRY(peft__check_buffer(buf, cap, needed));
    TRY(peft__check_handle(t, PEFT__MAGIC_TOKENIZER, "tokenizer"));
    TRY(peft__check_bytes(ids, n, "ids"));
    TRY(tokenizer_check_flags(flags));
    peft__str_init(&text, &t->ctx->mem);
    TRY(peft__tokenizer_decode(t->inner, ids, n, flags, &text));
    TRY(peft__copy_elements(text.data, text.len, 1, buf, cap, needed));
out:
    if (text.mem != NULL) { peft__str_free(&text); }
    return st;
}

/* Messages from JSON; contents belong to the arena. */
static peft_status tokenizer_messages(peft__arena *a, const char *json, size_t len, peft__chat_message **out,
                                      size_t *count) {
    peft_status st = PEFT_OK;
    const peft__json *list = NULL;
    TRY(peft__json_parse(a, json, len, "messages", &list));
    if (list->kind != PEFT__JSON_ARRAY) {
        FAIL(PEFT_E_FORMAT, "messages: expected a JSON array of {\"role\",\"content\"}");
    }
    *count = list->len;
    *out = peft__arena_alloc(a, PEFT__MAX(list->len, (size_t)1) * sizeof **out);
    if (*out == NULL) { return PEFT_E_NOMEM; }
    for (size_t i = 0; i < list->len; i++) {
        const peft__json *role = peft__json_get(&list->items[i], "role");
        const peft__json *content = peft__json_get(&list->items[i], "content");
        if (role == NULL || role->kind != PEFT__JSON_STRING || content == NULL || content->kind != PEFT__JSON_STRING) {
            FAIL(PEFT_E_FORMAT, "messages: message %zu has no texts \"role\" and \"content\"", i);
        }
        (*out)[i] = (peft__chat_message){role->str, content->str, role->len, content->len};
    }
out:
    return st;
}

peft_status peft_tokenizer_chat(const peft_tokenizer *t, const char *messages_json, size_t len,
                                int32_t add_generation_prompt, char *buf, size_t cap, size_t *needed) {
    peft_status st = PEFT_OK;
    peft__str text;
    peft__arena arena;
    peft__chat_message *messages = NULL;
    size_t count = 0;
    TRY(peft__check_buffer(buf, cap, needed));
    TRY(peft__check_handle(t, PEFT__MAGIC_TOKENIZER, "tokenizer"));
    TRY(peft__check_bytes(messages_json, len, "messages_json"));
    peft__arena_init(&arena, &t->ctx->mem);
    peft__str_init(&text, &t->ctx->mem);
    st = tokenizer_messages(&arena, messages_json, len, &messages, &count);
    if (st == PEFT_OK) { st = peft__chat_render(t->inner, messages, count, add_generation_prompt != 0, &text, NULL); }
    peft__arena_free(&arena);
    return peft__finish_text(st, &text, buf, cap, needed);
out:
    return st;
}

peft_status peft_tokenizer_info_json(const peft_tokenizer *t, char *buf, size_t cap, size_t *needed) {
    peft_status st = PEFT_OK;
    peft__str text;
    TRY(peft__check_buffer(buf, cap, needed));
    TRY(peft__check_handle(t, PEFT__MAGIC_TOKENIZER, "tokenizer"));
    peft__str_init(&text, &t->ctx->mem);
    return peft__finish_text(peft__tokenizer_info(t->inner, &text), &text, buf, cap, needed);
out:
    return st;
}
