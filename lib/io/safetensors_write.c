/* safetensors_write.c - writer of the safetensors container (format: see safetensors.c).
 *
 * The header is padded with spaces so that the data start at a multiple of 8 bytes. Data go out in pieces, and the file
 * appears whole or not at all.
 *
 * Left out: sorting. The caller gives wider types first when every tensor should be aligned to its element. */
#include "io/io.h"

static peft_status safetensors_source_size(const peft__io_source *t, size_t *size) {
    peft_status st = PEFT_OK;
    if (t->dtype != PEFT_DTYPE_F32 && t->dtype != PEFT_DTYPE_F16 && t->dtype != PEFT_DTYPE_BF16) {
        FAIL(PEFT_E_UNSUPPORTED, "safetensors files hold F32, F16 and BF16, not %s (%d)", peft__io_dtype_name(t->dtype),
             (int)t->dtype);
    }
    if (t->ndim < 0 || t->ndim > PEFT__IO_MAX_DIMS) {
        FAIL(PEFT_E_SHAPE, "%d dimensions, expected 0 to %d", (int)t->ndim, (int)PEFT__IO_MAX_DIMS);
    }
    if (peft__io_bytes(t->ndim, t->dims, 0, peft__io_block_bytes(t->dtype), 1, size) != PEFT_OK) {
        st = PEFT_E_SHAPE; /* the caller's shape, no file's */
        goto out;
    }
    if (*size > 0 && t->data == NULL && t->produce == NULL) { FAIL(PEFT_E_INVALID, "neither data nor a producer"); }
out:
    return st;
}

static void safetensors_put_metadata(peft__json_out *j, const char *const *metadata) {
    static const char *const plain[] = {"format", "pt", NULL};
    const char *const *m = metadata != NULL ? metadata : plain;
    if (m[0] == NULL) { return; }
    peft__json_key(j, "__metadata__");
    peft__json_object(j);
    for (size_t i = 0; m[i] != NULL && m[i + 1] != NULL; i += 2) {
        peft__json_key(j, m[i]);
        peft__json_put_str(j, m[i + 1], strlen(m[i + 1]));
    }
    peft__json_object_end(j);
}

static void safetensors_put_entry(peft__json_out *j, const peft__io_source *t, size_t begin, size_t end) {
    peft__json_key(j, t->name);
    peft__json_object(j);
    peft__json_key(j, "dtype");
    peft__json_put_text(j, peft__io_dtype_name(t->dtype));
    peft__json_key(j, "shape");
    peft__json_array(j);
    for (int32_t i = 0; i < t->ndim; i++) { peft__json_put_int(j, t->dims[i]); }
    peft__json_array_end(j);
    peft__json_key(j, "data_offsets");
    peft__json_array(j);
    peft__json_put_int(j, (int64_t)begin);
    peft__json_put_int(j, (int64_t)end);
    peft__json_array_end(j);
    peft__json_object_end(j);
}

/* Length and header as they stand at the start of the file. */
static peft_status safetensors_put_header(peft__str *s, const peft__io_source *tensors, size_t count,
                                          const char *const *metadata) {
    peft_status st = PEFT_OK;
    peft__json_out j;
    uint8_t length[8] = {0};
    size_t at = 0;
    peft__str_put(s, (const char *)length, sizeof length);
    peft__json_begin(&j, s, 0);
    peft__json_object(&j);
    safetensors_put_metadata(&j, metadata);
    for (size_t i = 0; i < count; i++) {
        size_t size = 0;
        size_t end = 0;
        st = safetensors_source_size(&tensors[i], &size);
        if (st == PEFT_OK && (!peft__add(at, size, &end) || end > (size_t)PTRDIFF_MAX)) {
            st = peft__fail(PEFT_E_SHAPE, "the file passes the address space");
        }
        if (st != PEFT_OK) {
            peft__fail_prefix("tensor \"%s\"", tensors[i].name);
            goto out;
        }
        safetensors_put_entry(&j, &tensors[i], at, end);
        at = end;
    }
    peft__json_object_end(&j);
    while (s->len % 8 != 0 && !s->failed) { peft__str_putc(s, ' '); }
    TRY(peft__str_status(s));
    if (s->len - 8 > PEFT__SAFETENSORS_MAX_HEADER) {
        FAIL(PEFT_E_UNSUPPORTED, "a header of %zu bytes is too long", s->len);
    }
    peft__set_u64(length, s->len - 8);
    memcpy(s->data, length, sizeof length);
out:
    return st;
}

static peft_status safetensors_save(peft__save *save, const peft__str *header, const peft__io_source *tensors,
                                    size_t count, void *piece) {
    peft_status st = PEFT_OK;
    TRY(peft__save_write(save, header->data, header->len));
    for (size_t i = 0; i < count; i++) {
        size_t size = 0;
        TRY(safetensors_source_size(&tensors[i], &size));
        TRY(peft__io_stream(save, &tensors[i], size, piece));
    }
out:
    return st;
}

peft_status peft__safetensors_write(peft__mem *mem, const char *path, const peft__io_source *tensors, size_t count,
                                    const char *const *metadata) {
    peft_status st = PEFT_OK;
    peft__save *save = NULL;
    void *piece = NULL;
    peft__str header;
    peft__str_init(&header, mem);
    st = peft__io_check_names(mem, tensors, count, PEFT__IO_MAX_NAME);
    for (size_t i = 0; i < count && st == PEFT_OK; i++) {
        if (strcmp(tensors[i].name, "__metadata__") == 0) {
            st = peft__fail(PEFT_E_INVALID, "a tensor cannot be named \"__metadata__\"");
        }
    }
    if (st == PEFT_OK) { st = safetensors_put_header(&header, tensors, count, metadata); }
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
    TRY(safetensors_save(save, &header, tensors, count, piece));
    st = peft__save_commit(save);
    save = NULL;
out:
    peft__save_abort(save);
    peft__free(mem, piece, PEFT__IO_PIECE);
    peft__str_free(&header);
    return st;
}
