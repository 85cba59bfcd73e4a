/* gguf_write.c - writer of the GGUF container, version 3 (format: see gguf.c).
 *
 * Metadata are collected as the bytes that the file will hold and read back once before writing, which finds duplicate
 * keys and string arrays of the wrong length. The alignment is 32; every tensor, the last one too, is padded to it,
 * because ggml expects each offset to be the padded sum of the sizes before.
 *
 * Left out: other alignments, splitting, big-endian files. */
#include "io/io.h"

enum {
    GGUF_ALIGN = 32,
    GGUF_MAX_NAME = 63, /* ggml keeps names in 64 bytes */
};

void peft__gguf_out_init(peft__gguf_out *w, peft__mem *mem) {
    peft__str_init(&w->meta, mem);
    w->kv_count = 0;
}

void peft__gguf_out_free(peft__gguf_out *w) {
    peft__str_free(&w->meta);
    w->kv_count = 0;
}

/* ---- metadata ---------------------------------------------------------------------------------------------------- */

/* `bytes` low bytes of v. */
static void gguf_put_word(peft__str *s, uint64_t v, size_t bytes) {
    uint8_t word[8];
    peft__set_u64(word, v);
    peft__str_put(s, (const char *)word, bytes);
}

static void gguf_put_string(peft__str *s, const char *text, size_t len) {
    gguf_put_word(s, len, 8);
    peft__str_put(s, text, len);
}

static void gguf_put_key(peft__gguf_out *w, const char *key, int32_t type) {
    gguf_put_string(&w->meta, key, strlen(key));
    gguf_put_word(&w->meta, (uint64_t)type, 4);
    w->kv_count++;
}

static void gguf_put_f32_bits(peft__str *s, float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    gguf_put_word(s, bits, 4);
}

void peft__gguf_put_u32(peft__gguf_out *w, const char *key, uint32_t v) {
    gguf_put_key(w, key, PEFT__GGUF_U32);
    gguf_put_word(&w->meta, v, 4);
}

void peft__gguf_put_f32(peft__gguf_out *w, const char *key, float v) {
    gguf_put_key(w, key, PEFT__GGUF_F32);
    gguf_put_f32_bits(&w->meta, v);
}

void peft__gguf_put_bool(peft__gguf_out *w, const char *key, bool v) {
    gguf_put_key(w, key, PEFT__GGUF_BOOL);
    gguf_put_word(&w->meta, v ? 1 : 0, 1);
}

void peft__gguf_put_text(peft__gguf_out *w, const char *key, const char *v, size_t len) {
    gguf_put_key(w, key, PEFT__GGUF_STRING);
    gguf_put_string(&w->meta, v, len);
}

void peft__gguf_put_kv(peft__gguf_out *w, const peft__gguf_kv *kv) {
    if (strcmp(kv->key, "general.alignment") == 0) { return; }
    switch (kv->type) {
    case PEFT__GGUF_STRING: peft__gguf_put_text(w, kv->key, kv->str.data, kv->str.len); return;
    case PEFT__GGUF_ARRAY: peft__gguf_put_array(w, kv->key, kv->elem, kv->count, kv->raw, kv->raw_size); return;
    case PEFT__GGUF_F32: peft__gguf_put_f32(w, kv->key, (float)kv->f); return;
    case PEFT__GGUF_F64: {
        uint64_t bits;
        memcpy(&bits, &kv->f, sizeof bits);
        gguf_put_key(w, kv->key, kv->type);
        gguf_put_word(&w->meta, bits, 8);
        return;
    }
    default:
        gguf_put_key(w, kv->key, kv->type);
        gguf_put_word(&w->meta, (uint64_t)kv->i, peft__gguf_type_bytes(kv->type));
        return;
    }
}

static void gguf_put_array_head(peft__gguf_out *w, const char *key, int32_t elem, size_t count) {
    gguf_put_key(w, key, PEFT__GGUF_ARRAY);
    gguf_put_word(&w->meta, (uint64_t)elem, 4);
    gguf_put_word(&w->meta, count, 8);
}

void peft__gguf_put_array(peft__gguf_out *w, const char *key, int32_t elem, size_t count, const void *raw,
                          size_t raw_size) {
    gguf_put_array_head(w, key, elem, count);
    peft__str_put(&w->meta, raw, raw_size);
}

void peft__gguf_begin_str_array(peft__gguf_out *w, const char *key, size_t count) {
    gguf_put_array_head(w, key, PEFT__GGUF_STRING, count);
}

void peft__gguf_array_str(peft__gguf_out *w, const char *s, size_t len) {
    gguf_put_string(&w->meta, s, len);
}

/* Reads the collected metadata as any reader of the file will. */
static peft_status gguf_check_meta(const peft__gguf_out *w, peft__mem *mem) {
    peft_status st = PEFT_OK;
    peft__arena a;
    peft__map keys;
    peft__gguf_kv *kvs = NULL;
    size_t pos = 0;
    peft__arena_init(&a, mem);
    peft__map_init(&keys, mem);
    TRY(peft__str_status(&w->meta));
    const uint8_t *bytes = (const uint8_t *)peft__str_c(&w->meta);
    st = peft__gguf_read_kvs(&a, bytes, w->meta.len, &pos, (size_t)w->kv_count, &kvs, &keys);
    if (st == PEFT_OK && pos != w->meta.len) {
        st = peft__fail(PEFT_E_INTERNAL, "%zu bytes behind the last entry", w->meta.len - pos);
    }
    if (st != PEFT_OK && st != PEFT_E_NOMEM) {
        st = PEFT_E_INTERNAL;
        peft__fail_prefix("the metadata to be written are unsound");
    }
out:
    peft__map_free(&keys);
    peft__arena_free(&a);
    return st;
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

static peft_status gguf_source_size(const peft__io_source *t, size_t *size) {
    peft_status st = PEFT_OK;
    size_t bytes = peft__io_block_bytes(t->dtype);
    if (bytes == 0) { FAIL(PEFT_E_UNSUPPORTED, "dtype %d is unknown", (int)t->dtype); }
    if (t->ndim < 0 || t->ndim > PEFT__GGUF_MAX_DIMS) {
        FAIL(PEFT_E_UNSUPPORTED, "%d dimensions, GGUF holds 0 to %d", (int)t->ndim, (int)PEFT__GGUF_MAX_DIMS);
    }
    st = peft__io_bytes(t->ndim, t->dims, 1, bytes, peft__io_block_size(t->dtype), size);
    if (st != PEFT_OK) {
        st = PEFT_E_SHAPE; /* the caller's shape, no file's */
        goto out;
    }
    if (t->data == NULL && t->produce == NULL) { FAIL(PEFT_E_INVALID, "neither data nor a producer"); }
out:
    return st;
}

static size_t gguf_padding(size_t size) {
    return (GGUF_ALIGN - size % GGUF_ALIGN) % GGUF_ALIGN;
}

/* Everything before the data, padding included. */
static peft_status gguf_put_head(peft__str *s, const peft__gguf_out *w, const peft__io_source *tensors, size_t count) {
    peft_status st = PEFT_OK;
    size_t at = 0;
    peft__str_put(s, "GGUF", 4);
    gguf_put_word(s, 3, 4);
    gguf_put_word(s, count, 8);
    gguf_put_word(s, w->kv_count, 8);
    peft__str_put(s, peft__str_c(&w->meta), w->meta.len);
    for (size_t i = 0; i < count; i++) {
        const peft__io_source *t = &tensors[i];
        size_t size = 0;
        st = gguf_source_size(t, &size);
        if (st == PEFT_OK && (size > PTRDIFF_MAX - GGUF_ALIGN || at > PTRDIFF_MAX - GGUF_ALIGN - size)) {
            st = peft__fail(PEFT_E_SHAPE, "the file passes the address space");
        }
        if (st != PEFT_OK) {
            peft__fail_prefix("tensor \"%s\"", t->name);
            return st;
        }
        gguf_put_string(s, t->name, strlen(t->name));
        gguf_put_word(s, (uint64_t)t->ndim, 4);
        for (int32_t k = t->ndim - 1; k >= 0; k--) { gguf_put_word(s, (uint64_t)t->dims[k], 8); }
        gguf_put_word(s, (uint64_t)t->dtype, 4);
        gguf_put_word(s, at, 8);
        at += size + gguf_padding(size);
    }
    for (size_t i = gguf_padding(s->len); i > 0; i--) { peft__str_putc(s, '\0'); }
    return peft__str_status(s);
}

static peft_status gguf_save(peft__save *save, const peft__str *head, const peft__io_source *tensors, size_t count,
                             void *piece) {
    static const uint8_t zeros[GGUF_ALIGN] = {0};
    peft_status st = PEFT_OK;
    TRY(peft__save_write(save, head->data, head->len));
    for (size_t i = 0; i < count; i++) {
        size_t size = 0;
        TRY(gguf_source_size(&tensors[i], &size));
        TRY(peft__io_stream(save, &tensors[i], size, piece));
        TRY(peft__save_write(save, zeros, gguf_padding(size)));
    }
out:
    return st;
}

peft_status peft__gguf_write(peft__gguf_out *w, peft__mem *mem, const char *path, const peft__io_source *tensors,
                             size_t count) {
    peft_status st = PEFT_OK;
    peft__save *save = NULL;
    void *piece = NULL;
    peft__str head;
    peft__str_init(&head, mem);
    st = gguf_check_meta(w, mem);
    if (st == PEFT_OK) { st = peft__io_check_names(mem, tensors, count, GGUF_MAX_NAME); }
    if (st == PEFT_OK) { st = gguf_put_head(&head, w, tensors, count); }
    if (st != PEFT_OK) {
        peft__fail_prefix("%s", path);
        goto out;
    }
    piece = peft__alloc(mem, PEFT__IO_PIECE);
    if (piece == NULL) {
        st = PEFT_E_NOMEM;
        goto out;
    }
    TRY(peft__save_begin(mem, path, &save));
    TRY(gguf_save(save, &head, tensors, count, piece));
    st = peft__save_commit(save);
    save = NULL;
out:
    peft__save_abort(save);
    peft__free(mem, piece, PEFT__IO_PIECE);
    peft__str_free(&head);
    return st;
}
