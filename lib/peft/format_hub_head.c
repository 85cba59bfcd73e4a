/* format_hub_head.c - the head that AdapterHub's library saves beside an adapter:
 *
 *   DIR/model_head.safetensors   "lm_head.weight": the model's own output projection, trained or not
 *
 * An untrained one is passed over. One that differs from this base's becomes a part of the adapter that is loaded: the union of
 * both. How far two count as the same depends on what the base has kept of its numbers: F32 all, quantised ones few.
 *
 * Of a base for another task ("classifier.weight", ...) the head is the adapter's own copy (heads.c): there it is written and read,
 * with a head_config.json that names the labels and transformers' class of the model.
 *
 * Left out: heads by name (AutoAdapterModel's flexible ones); pickles, which cannot be read safely. */
#include "peft/reader.h"

#define HUBHEAD_FILE "model_head.safetensors"

/* Difference in a row, relative to its largest value, that rounding explains. */
static double hubhead_rounding(int32_t dtype) {
    if (dtype == PEFT_DTYPE_F32) { return 0; }
    return dtype == PEFT_DTYPE_F16 || dtype == PEFT_DTYPE_BF16 ? 1.0 / 128 : 0.125;
}

static peft_status hubhead_find(const peft__base_info *base, const peft__safetensors *file, const char *path,
                                const peft__site **site, const peft__io_tensor **tensor) {
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < base->n_sites; i++) {
        if (base->sites[i].kind == PEFT__SITE_HEAD) { *site = &base->sites[i]; }
    }
    for (size_t i = 0; i < file->count; i++) {
        const peft__io_tensor *t = &file->tensors[i];
        size_t n = *site != NULL ? strlen((*site)->path) : 0;
        if (*site == NULL || strncmp(t->name, (*site)->path, n) != 0 || strcmp(t->name + n, ".weight") != 0) {
            FAIL(PEFT_E_UNSUPPORTED, "%s: tensor \"%s\" is of a head that this base does not have", path, t->name);
        }
        if (!peft__reader_plain(t) || t->ndim != 2 || t->dims[0] != (*site)->weight->rows || t->dims[1] != (*site)->weight->cols) {
            FAIL(PEFT_E_SHAPE, "%s: tensor \"%s\" is not [%lld, %lld] as this base's", path, t->name, (long long)(*site)->weight->rows,
                 (long long)(*site)->weight->cols);
        }
        *tensor = t;
    }
out:
    return st;
}

static peft_status hubhead_make(peft__mem *mem, const peft__base_info *base, const char *name, const peft__io_tensor *t,
                                const peft__kernels *k, bool allow_nan, const char *path, peft__adapter **out) {
    peft_status st = PEFT_OK;
    peft__adapter *a = NULL;
    TRY(peft__adapter_create(mem, k, base, name, &peft__method_head, NULL, 0, &a));
    const peft__adapter_param *p = peft__adapter_param_at(a, 0);
    for (int64_t e = 0; e < p->p.rows * p->p.cols; e++) { p->p.value[e] = PEFT__R(peft__reader_element(t, (size_t)e)); }
    if (!allow_nan && !k->finite(p->p.value, p->p.rows * p->p.cols)) {
        FAIL(PEFT_E_NUMERIC, "%s: tensor \"%s\" has a NaN or an infinite value", path, t->name);
    }
    *out = a;
    a = NULL;
out:
    peft__adapter_release(a);
    return st;
}

/* The union of an adapter, which it takes over, and its head. */
static peft_status hubhead_unite(peft__mem *mem, const peft__base_info *base, const char *name, peft__adapter *head,
                                 peft__adapter **adapter) {
    peft_status st = PEFT_OK;
    peft__adapter *both = NULL;
    TRY(peft__adapter_create_empty(mem, base, name, &peft__method_union, NULL, &both));
    TRY(peft__vec_push(&both->parts, adapter));
    *adapter = NULL;
    TRY(peft__vec_push(&both->parts, &head));
    peft__adapter_retain(head);
    *adapter = both;
    both = NULL;
out:
    peft__adapter_release(both);
    return st;
}

peft_status peft__hub_add_head(peft__mem *mem, const peft__kernels *k, const peft__base_info *base, const char *dir, bool allow_nan,
                               peft__adapter **adapter) {
    peft_status st = PEFT_OK;
    char *path = NULL;
    const peft__site *s = NULL;
    const peft__io_tensor *t = NULL;
    peft__adapter *head = NULL;
    int64_t row = -1;
    peft__safetensors file = {0};
    peft__arena arena;
    peft__arena_init(&arena, mem);
    TRY(peft__path_join(&arena, dir, HUBHEAD_FILE, &path));
    if (!peft__path_exists(path)) { goto out; }
    TRY(peft__safetensors_open(mem, path, false, &file));
    TRY(hubhead_find(base, &file, path, &s, &t));
    if (t == NULL) { goto out; }
    TRY(peft__reader_differs(mem, s->weight, t, hubhead_rounding(s->weight->dtype), k, &row));
    if (row < 0) { goto out; }
    TRY(hubhead_make(mem, base, "head", t, k, allow_nan, path, &head));
    TRY(hubhead_unite(mem, base, (*adapter)->name, head, adapter));
out:
    peft__adapter_release(head);
    peft__safetensors_close(&file);
    peft__arena_free(&arena);
    return st;
}

/* ---- heads of other tasks ------------------------------------------------------------------------------------------------------ */

bool peft__hub_in_head(const peft__adapter *a, size_t i) {
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    return p->whole && p->site >= 0 && peft__heads_has(a->base, &a->base->sites[p->site]);
}

peft_status peft__hub_find_head(peft__mem *mem, const char *dir, bool *there, size_t *size) {
    peft_status st = PEFT_OK;
    char *path = NULL;
    peft__file file = {0};
    peft__arena arena;
    peft__arena_init(&arena, mem);
    TRY(peft__path_join(&arena, dir, HUBHEAD_FILE, &path));
    *there = peft__path_exists(path);
    if (*there) { TRY(peft__file_open(mem, path, false, &file)); }
    *size = file.size;
out:
    peft__file_close(&file);
    peft__arena_free(&arena);
    return st;
}

peft_status peft__hub_read_head(const char *dir, const peft__adapter *a, size_t i, const peft__kernels *k, bool allow_nan) {
    peft_status st = PEFT_OK;
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    char *path = NULL;
    peft__safetensors file = {0};
    peft__arena arena;
    peft__arena_init(&arena, a->mem);
    TRY(peft__path_join(&arena, dir, HUBHEAD_FILE, &path));
    TRY(peft__safetensors_open(a->mem, path, false, &file));
    const peft__io_tensor *t = peft__safetensors_find(&file, p->p.name);
    if (t == NULL) { FAIL(PEFT_E_NOT_FOUND, "%s: there is no tensor \"%s\"", path, p->p.name); }
    bool fits = t->ndim == p->ndim && t->dims[0] == p->dims[0] && (p->ndim == 1 || t->dims[1] == p->dims[1]);
    if (!fits || !peft__reader_plain(t)) {
        FAIL(PEFT_E_SHAPE, "%s: tensor \"%s\" is not of the %lld x %lld plain numbers of this base's", path, t->name, (long long)p->p.rows,
             (long long)p->p.cols);
    }
    for (int64_t e = 0; e < p->p.rows * p->p.cols; e++) { p->p.value[e] = PEFT__R(peft__reader_element(t, (size_t)e)); }
    if (!allow_nan && !k->finite(p->p.value, p->p.rows * p->p.cols)) {
        FAIL(PEFT_E_NUMERIC, "%s: tensor \"%s\" has a NaN or an infinite value", path, t->name);
    }
out:
    peft__safetensors_close(&file);
    peft__arena_free(&arena);
    return st;
}

static peft_status hubhead_config(const peft__adapter *a, peft__str *out) {
    const peft__task *t = a->base->task;
    peft__json_out j;
    peft__json_begin(&j, out, 2);
    peft__json_object(&j);
    peft__json_key(&j, "config");
    peft__json_put_null(&j);
    peft__json_key(&j, "label2id");
    if (t->names == NULL) {
        peft__json_put_null(&j);
    } else {
        peft__json_object(&j);
        for (int64_t i = 0; i < t->labels; i++) {
            peft__json_key(&j, t->names[i]);
            peft__json_put_int(&j, i);
        }
        peft__json_object_end(&j);
    }
    const struct {
        const char *key, *value;
    } texts[] = {{"model_class", a->base->model_class}, {"model_name", a->base->path}, {"model_type", a->base->model_type}, {"name", NULL}};
    for (size_t i = 0; i < PEFT__COUNT(texts); i++) {
        peft__json_key(&j, texts[i].key);
        peft__json_put_text(&j, texts[i].value);
    }
    peft__json_key(&j, "num_labels");
    peft__json_put_int(&j, t->labels);
    peft__json_object_end(&j);
    return peft__str_status(out);
}

static peft_status hubhead_produce(void *user, void *out, size_t offset, size_t size) {
    const peft__param *p = user;
    for (size_t i = 0; i < size / 4; i++) {
        float v = (float)p->value[offset / 4 + i];
        uint32_t bits;
        memcpy(&bits, &v, sizeof bits);
        peft__set_u32((uint8_t *)out + 4 * i, bits);
    }
    return PEFT_OK;
}

/* Sources of the head's tensors, of the adapter and its own parts. */
static peft_status hubhead_gather(const peft__adapter *a, peft__vec *out) {
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < peft__adapter_own_parts(a); i++) { TRY(hubhead_gather(PEFT__VEC_AT(&a->parts, peft__adapter *, i), out)); }
    for (size_t i = 0; i < peft__adapter_param_count(a); i++) {
        const peft__adapter_param *p = peft__adapter_param_at(a, i);
        if (!peft__hub_in_head(a, i)) { continue; }
        peft__io_source s = {.name = p->p.name, .dtype = PEFT_DTYPE_F32, .ndim = p->ndim, .produce = hubhead_produce,
                             .user = (void *)(uintptr_t)&p->p};
        memcpy(s.dims, p->dims, (size_t)p->ndim * sizeof *s.dims);
        TRY(peft__vec_push(out, &s));
    }
out:
    return st;
}

peft_status peft__hub_write_head(const peft__adapter *a, const char *dir) {
    static const char *const metadata[] = {"format", "pt", NULL};
    peft_status st = PEFT_OK;
    char *path = NULL, *config = NULL;
    peft__str text;
    peft__vec sources;
    peft__arena arena;
    peft__arena_init(&arena, a->mem);
    peft__str_init(&text, a->mem);
    peft__vec_init(&sources, a->mem, sizeof(peft__io_source));
    TRY(hubhead_gather(a, &sources));
    if (sources.len == 0) { goto out; }
    TRY(peft__path_join(&arena, dir, HUBHEAD_FILE, &path));
    TRY(peft__path_join(&arena, dir, "head_config.json", &config));
    TRY(hubhead_config(a, &text));
    TRY(peft__safetensors_write(a->mem, path, sources.data, sources.len, metadata));
    TRY(peft__save_text(a->mem, config, peft__str_c(&text), text.len));
out:
    peft__vec_free(&sources);
    peft__str_free(&text);
    peft__arena_free(&arena);
    return st;
}
