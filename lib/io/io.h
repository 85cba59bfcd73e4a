/* io.h - layer 1: the file formats that models, adapters and tokenizers come in, as names, types, shapes and byte
 * spans.
 *
 * json.c, json_get.c, json_write.c    RFC 8259 text to a tree in an arena, typed reads, a writer into a peft__str
 * tensor_bytes.c                      sizes of the dtypes, checks of spans, streaming of tensors to a file
 * safetensors.c, safetensors_write.c  https://github.com/huggingface/safetensors, single files; model/ joins shards
 * gguf.c, gguf_get.c, gguf_write.c    https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3
 *
 * Everything read here may be hostile: counts and sizes are checked against the file before anything is reserved.
 * Left out: what the numbers mean (tensor/, model/, text/). */
#ifndef PEFT_IO_H
#define PEFT_IO_H

#include "base/base.h"

/* Limits on what a file may claim; each breach is PEFT_E_FORMAT (or PEFT_E_UNSUPPORTED for a type) and names itself. */
enum {
    PEFT__JSON_DEPTH = 128,            /* nesting of arrays and objects */
    PEFT__IO_MAX_DIMS = 8,
    PEFT__IO_MAX_TENSORS = 1 << 20,
    PEFT__IO_MAX_NAME = 1024,          /* bytes of a tensor's name or a metadata key */
    PEFT__SAFETENSORS_MAX_HEADER = 100 << 20,
    PEFT__GGUF_MAX_ALIGNMENT = 1 << 20,
    PEFT__GGUF_MAX_DIMS = 4,
};

/* ---- json.c -------------------------------------------------------------------------------------------------- */

enum {
    PEFT__JSON_NULL = 0, PEFT__JSON_BOOL = 1, PEFT__JSON_NUMBER = 2, PEFT__JSON_STRING = 3,
    PEFT__JSON_ARRAY = 4, PEFT__JSON_OBJECT = 5
};

/* A node of the tree; nodes, strings and keys belong to the arena of the parse. */
typedef struct peft__json {
    int32_t kind;                 /* PEFT__JSON_* */
    bool truth;                   /* BOOL: its value */
    bool is_int;                  /* NUMBER: written without fraction or exponent and fits an int64 */
    int64_t i;                    /* NUMBER with is_int */
    double num;                   /* NUMBER */
    const char *str;              /* STRING: unescaped UTF-8, NUL-terminated (may hold NULs inside) */
    size_t len;                   /* STRING: bytes; ARRAY, OBJECT: number of children */
    const struct peft__json *items; /* ARRAY, OBJECT: children in file order */
    const struct peft__json *keys;  /* OBJECT: STRING nodes, one a child */
} peft__json;

/* Parses one JSON text (a UTF-8 BOM is skipped; anything after the value but white space is an error). `what` names the
 * text in errors ("config.json"), which carry line and column. Duplicate keys of an object are an error. */
peft_status peft__json_parse(peft__arena *a, const char *text, size_t len, const char *what, const peft__json **out);
/* Reads and parses a whole file. */
peft_status peft__json_read(peft__arena *a, const char *path, const peft__json **out);
/* Child by key; NULL when absent or `obj` is NULL or no object. Linear in the number of keys. */
const peft__json *peft__json_get(const peft__json *obj, const char *key);
/* Child by key that treats JSON null like an absent one. */
const peft__json *peft__json_find(const peft__json *obj, const char *key);
/* Typed reads with a default for an absent or null key. A wrong type or a value outside [min, max] is PEFT_E_FORMAT:
 * "<what>: key "<key>" is <value>, expected ...". */
peft_status peft__json_int(const peft__json *obj, const char *what, const char *key, int64_t dflt, int64_t min,
                           int64_t max, int64_t *out);
peft_status peft__json_float(const peft__json *obj, const char *what, const char *key, double dflt, double *out);
peft_status peft__json_bool(const peft__json *obj, const char *what, const char *key, bool dflt, bool *out);
peft_status peft__json_str(const peft__json *obj, const char *what, const char *key, const char *dflt,
                           const char **out);
bool peft__json_is(const peft__json *node, const char *text); /* a STRING equal to text */

/* Writer: commas, indentation and escapes are its business. indent 0 writes one line. Numbers: floats with 9
 * significant digits (NaN and infinities as null), or 17 through _double. */
typedef struct peft__json_out {
    peft__str *s;    /* borrowed */
    int32_t indent;  /* spaces a level, 0: none */
    int32_t depth;
    bool first;      /* nothing was put at this level yet */
    bool after_key;
} peft__json_out;
void peft__json_begin(peft__json_out *j, peft__str *s, int32_t indent);
void peft__json_object(peft__json_out *j);
void peft__json_object_end(peft__json_out *j);
void peft__json_array(peft__json_out *j);
void peft__json_array_end(peft__json_out *j);
void peft__json_key(peft__json_out *j, const char *key);
void peft__json_put_str(peft__json_out *j, const char *s, size_t len);
void peft__json_put_text(peft__json_out *j, const char *s /* NULL writes null */);
void peft__json_put_int(peft__json_out *j, int64_t v);
void peft__json_put_float(peft__json_out *j, double v);
void peft__json_put_double(peft__json_out *j, double v);
void peft__json_put_bool(peft__json_out *j, bool v);
void peft__json_put_null(peft__json_out *j);
void peft__json_put_node(peft__json_out *j, const peft__json *node); /* a parsed tree again; integers stay integers */

/* ---- tensors in files ------------------------------------------------------------------------------------------ */

/* A tensor as the file describes it. Checked: span inside the file, size = product of dims x dtype, no overlap. */
typedef struct peft__io_tensor {
    const char *name;        /* owned by the file object */
    int32_t dtype;           /* PEFT_DTYPE_*; others of a file are PEFT__IO_DTYPE_OTHER and have no meaning for us */
    const char *dtype_name;  /* as the file spells it: for errors and info */
    int32_t ndim;
    int64_t dims[PEFT__IO_MAX_DIMS]; /* row-major, slowest first (GGUF's order is turned round) */
    const uint8_t *data;     /* into the mapping; safetensors promise no alignment at all, so read it bytewise */
    size_t size;             /* bytes */
} peft__io_tensor;
enum { PEFT__IO_DTYPE_OTHER = -1 };

/* Bytes of one block of a dtype and the elements in it: F32 4/1, Q8_0 34/32, Q4_K 144/256. 0 for an unknown one. */
size_t peft__io_block_bytes(int32_t dtype);
int64_t peft__io_block_size(int32_t dtype);
const char *peft__io_dtype_name(int32_t dtype); /* "F32", "Q4_K"; "?" for an unknown one */

/* ---- safetensors.c ----------------------------------------------------------------------------------------------- */

typedef struct peft__safetensors {
    peft__file file;             /* owned mapping */
    peft__arena arena;           /* owns names and metadata */
    peft__io_tensor *tensors;    /* in file order */
    size_t count;
    const peft__json *metadata;  /* "__metadata__" object or NULL */
    peft__map index;             /* name -> position in tensors */
} peft__safetensors;

peft_status peft__safetensors_open(peft__mem *mem, const char *path, bool copy, peft__safetensors *out);
void peft__safetensors_close(peft__safetensors *st); /* a zeroed struct is fine */
const peft__io_tensor *peft__safetensors_find(const peft__safetensors *st, const char *name); /* NULL: absent */

/* What a writer is given for each tensor: `produce` fills `size` bytes for piece [offset, offset+size) of the
 * tensor, so that a merged model never stands in memory whole. Pieces come in order, are at most 1 MiB and whole
 * blocks of the dtype. data != NULL is written directly instead. */
typedef struct peft__io_source {
    const char *name;
    int32_t dtype;           /* PEFT_DTYPE_* */
    int32_t ndim;
    int64_t dims[PEFT__IO_MAX_DIMS]; /* slowest first */
    const void *data;        /* the bytes, or NULL */
    peft_status (*produce)(void *user, void *out, size_t offset, size_t size);
    void *user;
} peft__io_source;

/* Writes atomically, tensors in the order given, of F32, F16 or BF16. metadata: key, value, key, value, ...,
 * NULL; NULL for {"format":"pt"}. */
peft_status peft__safetensors_write(peft__mem *mem, const char *path, const peft__io_source *tensors, size_t count,
                                    const char *const *metadata);

/* ---- gguf.c ------------------------------------------------------------------------------------------------------ */

enum {
    PEFT__GGUF_U8 = 0, PEFT__GGUF_I8 = 1, PEFT__GGUF_U16 = 2, PEFT__GGUF_I16 = 3, PEFT__GGUF_U32 = 4,
    PEFT__GGUF_I32 = 5, PEFT__GGUF_F32 = 6, PEFT__GGUF_BOOL = 7, PEFT__GGUF_STRING = 8, PEFT__GGUF_ARRAY = 9,
    PEFT__GGUF_U64 = 10, PEFT__GGUF_I64 = 11, PEFT__GGUF_F64 = 12
};

typedef struct peft__gguf_str { /* a string in the mapping: not NUL-terminated */
    const char *data;
    size_t len;
} peft__gguf_str;

typedef struct peft__gguf_kv {
    const char *key;          /* NUL-terminated, owned by the file object */
    int32_t type;             /* PEFT__GGUF_* */
    int64_t i;                /* integers and bool (u64 above INT64_MAX is an error) */
    double f;                 /* F32, F64; integers too */
    peft__gguf_str str;       /* STRING */
    int32_t elem;             /* ARRAY: type of its elements */
    size_t count;             /* ARRAY */
    const uint8_t *raw;       /* ARRAY: first element; strings are u64 length + bytes each, checked at open */
    size_t raw_size;          /* bytes from raw to the array's end */
} peft__gguf_kv;

typedef struct peft__gguf {
    peft__file file;
    peft__arena arena;
    uint32_t version;
    peft__gguf_kv *kvs;       /* in file order */
    size_t kv_count;
    peft__io_tensor *tensors; /* in file order */
    size_t count;
    size_t alignment;
    peft__map index;          /* tensor name -> position */
    peft__map keys;           /* metadata key -> position */
} peft__gguf;

peft_status peft__gguf_open(peft__mem *mem, const char *path, bool copy, peft__gguf *out);
void peft__gguf_close(peft__gguf *g);
bool peft__gguf_probe(const char *path); /* starts with the magic */
const peft__io_tensor *peft__gguf_find(const peft__gguf *g, const char *name);
const peft__gguf_kv *peft__gguf_get(const peft__gguf *g, const char *key); /* NULL: absent */
/* Typed reads with a default for an absent key; a wrong type is PEFT_E_FORMAT naming key and types. */
peft_status peft__gguf_int(const peft__gguf *g, const char *key, int64_t dflt, int64_t min, int64_t max, int64_t *out);
peft_status peft__gguf_float(const peft__gguf *g, const char *key, double dflt, double *out);
peft_status peft__gguf_bool(const peft__gguf *g, const char *key, bool dflt, bool *out);
peft_status peft__gguf_text(const peft__gguf *g, const char *key, peft__arena *a, const char *dflt, const char **out);
/* Walks an array of strings: *pos from 0; false at its end. */
bool peft__gguf_next_str(const peft__gguf_kv *kv, size_t *pos, peft__gguf_str *out);
/* Element i of an array of numbers. */
double peft__gguf_array_f64(const peft__gguf_kv *kv, size_t i);
int64_t peft__gguf_array_i64(const peft__gguf_kv *kv, size_t i);

/* Writer: metadata is collected as bytes, tensors are streamed; the file appears whole or not at all. */
typedef struct peft__gguf_out {
    peft__str meta;           /* serialised key-values */
    uint64_t kv_count;
} peft__gguf_out;
void peft__gguf_out_init(peft__gguf_out *w, peft__mem *mem);
void peft__gguf_out_free(peft__gguf_out *w);
void peft__gguf_put_u32(peft__gguf_out *w, const char *key, uint32_t v);
void peft__gguf_put_f32(peft__gguf_out *w, const char *key, float v);
void peft__gguf_put_bool(peft__gguf_out *w, const char *key, bool v);
void peft__gguf_put_text(peft__gguf_out *w, const char *key, const char *v, size_t len);
/* Copies one of another file as it is; general.alignment is left out, because the writer has its own. */
void peft__gguf_put_kv(peft__gguf_out *w, const peft__gguf_kv *kv);
/* Arrays: strings given one after the other through _array_str, numbers as raw little-endian elements. */
void peft__gguf_put_array(peft__gguf_out *w, const char *key, int32_t elem, size_t count, const void *raw,
                          size_t raw_size);
void peft__gguf_begin_str_array(peft__gguf_out *w, const char *key, size_t count);
void peft__gguf_array_str(peft__gguf_out *w, const char *s, size_t len);
/* Duplicate keys, string arrays with another number of strings than announced and tensors that GGUF cannot hold (more
 * than 4 dims, an empty one, a name over 63 bytes, rows that are no whole blocks) are refused. */
peft_status peft__gguf_write(peft__gguf_out *w, peft__mem *mem, const char *path, const peft__io_source *tensors,
                             size_t count);

/* ---- between the files of this folder ---------------------------------------------------------------------------- */

/* A type of ggml: also those that peft.h has no name for, because their size is needed to check a file. */
typedef struct peft__ggml_type {
    int32_t id;          /* as in a GGUF file; equal to PEFT_DTYPE_* where `ours` */
    bool ours;           /* has a PEFT_DTYPE_* */
    uint16_t bytes;      /* of a block */
    uint16_t elems;      /* in a block */
    const char *name;
} peft__ggml_type;
const peft__ggml_type *peft__ggml_type_find(uint32_t id); /* NULL: unknown or removed from ggml */

/* Elements in dims; PEFT_E_FORMAT when a dim is below `least` or the product passes int64 (a 0 counts as 1 there, so
 * that products of any part of the dims are safe too). */
peft_status peft__io_elements(int32_t ndim, const int64_t *dims, int64_t least, int64_t *out);
/* Bytes of a tensor of whole blocks: `bytes` per `elems`, the fastest dim being a multiple of `elems`. */
peft_status peft__io_bytes(int32_t ndim, const int64_t *dims, int64_t least, size_t bytes, int64_t elems, size_t *out);
/* No two tensors share a byte of data[0..size); `dense`: no byte is without a tensor either. */
peft_status peft__io_check_spans(peft__mem *mem, const peft__io_tensor *tensors, size_t count, const uint8_t *data,
                                 size_t size, bool dense);
/* Names of sources are there, no longer than `longest`, valid UTF-8 and unique. */
peft_status peft__io_check_names(peft__mem *mem, const peft__io_source *tensors, size_t count, size_t longest);
/* Writes `size` bytes of a source through `piece`, a buffer of PEFT__IO_PIECE bytes (unused when t->data is set). */
peft_status peft__io_stream(peft__save *save, const peft__io_source *t, size_t size, void *piece);
enum { PEFT__IO_PIECE = 1 << 20 };

/* Reads `count` key-values at *pos of data[0..size): arrays and strings point into data, keys are copied. */
peft_status peft__gguf_read_kvs(peft__arena *a, const uint8_t *data, size_t size, size_t *pos, size_t count,
                                peft__gguf_kv **kvs, peft__map *keys);
size_t peft__gguf_type_bytes(int32_t type); /* of a number or bool; 0 for strings, arrays and unknown types */
const char *peft__gguf_type_name(int32_t type);
/* A number or bool as both kinds; false: a u64 above INT64_MAX. */
bool peft__gguf_number(const uint8_t *p, int32_t type, int64_t *i, double *f);

/* Little-endian words at any address, on any machine. */
static inline uint32_t peft__get_u32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline uint64_t peft__get_u64(const uint8_t *p) {
    return (uint64_t)peft__get_u32(p) | (uint64_t)peft__get_u32(p + 4) << 32;
}
static inline void peft__set_u32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++) { p[i] = (uint8_t)(v >> (8 * i)); }
}
static inline void peft__set_u64(uint8_t *p, uint64_t v) {
    for (int i = 0; i < 8; i++) { p[i] = (uint8_t)(v >> (8 * i)); }
}

#endif
