/* format_hub_head.c - the head that AdapterHub's library saves beside an adapter:
 *
 *   DIR/model_head.safetensors   "lm_head.weight": the model's own output projection, trained or not
 *
 * An untrained one is passed over. One that differs from this base's becomes a part of the adapter that is loaded: the union of
 * both. How far two count as the same depends on what the base has kept of its numbers: F32 all, quantised ones few.
 *
 * Left out: heads for classes and tags, which no model here has (refused by name); pickles, which cannot be read safely. */
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
