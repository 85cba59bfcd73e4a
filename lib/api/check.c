/* check.c - argument checks, default options and output buffers, the same for all public functions. */
#include "api/api.h"

static const char *check_kind(uint32_t magic) {
    switch (magic) {
        case PEFT__MAGIC_CONTEXT: return "a context";
        case PEFT__MAGIC_OPTIONS: return "an options object";
        case PEFT__MAGIC_MODEL: return "a model";
        case PEFT__MAGIC_TOKENIZER: return "a tokenizer";
        case PEFT__MAGIC_ADAPTERS: return "an adapter set";
        case PEFT__MAGIC_BATCH: return "a batch";
        case PEFT__MAGIC_DATASET: return "a dataset";
        case PEFT__MAGIC_TRAINER: return "a trainer";
        case PEFT__MAGIC_SESSION: return "a session";
        case PEFT__MAGIC_FREED: return "a handle that was freed";
        default: return "something else";
    }
}

bool peft__is_handle(const void *handle, uint32_t magic) {
    uint32_t found = 0;
    if (handle != NULL) { memcpy(&found, handle, sizeof found); }
    return found == magic;
}

peft_status peft__check_handle(const void *handle, uint32_t magic, const char *name) {
    uint32_t found;
    if (handle == NULL) { return peft__fail(PEFT_E_INVALID, "%s is NULL, expected %s", name, check_kind(magic)); }
    memcpy(&found, handle, sizeof found);
    if (found == magic) { return PEFT_OK; }
    return peft__fail(PEFT_E_INVALID, "%s is %s, expected %s", name, check_kind(found), check_kind(magic));
}

peft_status peft__check_arg(const void *p, const char *name) {
    return p != NULL ? PEFT_OK : peft__fail(PEFT_E_INVALID, "%s is NULL", name);
}

peft_status peft__check_text(const char *text, const char *name) {
    if (text == NULL) { return peft__fail(PEFT_E_INVALID, "%s is NULL", name); }
    if (!peft__utf8_valid(text, strlen(text))) { return peft__fail(PEFT_E_INVALID, "%s is no valid UTF-8", name); }
    return PEFT_OK;
}

peft_status peft__check_bytes(const void *p, size_t len, const char *name) {
    if (p != NULL || len == 0) { return PEFT_OK; }
    return peft__fail(PEFT_E_INVALID, "%s is NULL, but its length is %zu", name, len);
}

peft_status peft__check_buffer(const void *buf, size_t cap, size_t *needed) {
    if (needed != NULL) { *needed = 0; }
    if (buf != NULL || cap == 0) { return PEFT_OK; }
    return peft__fail(PEFT_E_INVALID, "buffer is NULL, but its capacity is %zu", cap);
}

peft_status peft__copy_elements(const void *data, size_t n, size_t size, void *buf, size_t cap, size_t *needed) {
    if (needed != NULL) { *needed = n; }
    if (cap < n) { return peft__fail(PEFT_E_BUFFER, "the buffer has room for %zu elements, %zu are needed", cap, n); }
    if (n > 0) { memcpy(buf, data, n * size); }
    return PEFT_OK;
}

peft_status peft__finish_text(peft_status st, peft__str *text, char *buf, size_t cap, size_t *needed) {
    if (st == PEFT_OK) { st = peft__str_status(text); }
    if (st == PEFT_OK) { st = peft__copy_out(peft__str_c(text), text->len, buf, cap, needed); }
    peft__str_free(text);
    return st;
}

peft_status peft__pick_options(const peft_options *o, peft__mem *mem, const peft__schema *schema, peft__optset *own,
                               const peft__optset **out) {
    peft_status st = PEFT_OK;
    memset(own, 0, sizeof *own);
    if (o == NULL) {
        TRY(peft__optset_init(own, mem, schema));
        *out = own;
        return PEFT_OK;
    }
    TRY(peft__check_handle(o, PEFT__MAGIC_OPTIONS, "options"));
    if (o->set.schema != schema) {
        FAIL(PEFT_E_INVALID, "options are of schema \"%s\", expected schema \"%s\"", o->set.schema->name, schema->name);
    }
    *out = &o->set;
out:
    return st;
}
