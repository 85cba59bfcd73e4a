/* format_hf_base.c - tensors of the base in an adapter's folder.
 *
 * PEFT saves the base matrix of an adapted head along with the adapter, and after model.resize_token_embeddings whole
 * embeddings and heads:
 *   <path>.base_layer.weight                  of a LoRA at the head; of trainable_tokens after a resize
 *   <path>.token_adapter.base_layer.weight    of trainable_token_indices after a resize
 *   lm_head.weight                            of an untied head after a resize, which no adapter touches
 * and the rows of a tied head once more under the head's name, with encoder-decoders under those of both stacks' tables too
 * (<stack>.embed_tokens). What is no news is passed over, if it is this base's (rounding
 * and quantisation aside): a base that was changed is refused. An untied head's rows of new tokens are news, and are taken. */
#include "peft/reader.h"
#include "peft/tokens.h"

#include <math.h>
#include <stdio.h>

static const char base_prefix[] = "base_model.model.";

bool peft__reader_plain(const peft__io_tensor *t) {
    return t->dtype == PEFT_DTYPE_F32 || t->dtype == PEFT_DTYPE_F16 || t->dtype == PEFT_DTYPE_BF16;
}

float peft__reader_element(const peft__io_tensor *t, size_t i) {
    if (t->dtype == PEFT_DTYPE_F32) {
        uint32_t bits = peft__get_u32(t->data + 4 * i);
        float v;
        memcpy(&v, &bits, sizeof v);
        return v;
    }
    uint16_t half = (uint16_t)(t->data[2 * i] | t->data[2 * i + 1] << 8);
    if (t->dtype == PEFT_DTYPE_F16) { return peft__f16_to_f32(half); }
    uint32_t bits = (uint32_t)half << 16;
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* Is the key that of the site's own matrix: its path and one of the endings? */
static bool base_is_matrix(const peft__adapter *a, const peft__site *s, const char *key) {
    static const char *const ends[] = {".base_layer.weight", ".token_adapter.base_layer.weight", ".weight"};
    size_t lead = sizeof base_prefix - 1, n = strlen(s->path), count = a->tokens == NULL ? 1 : a->new_tokens > 0 ? 3 : 2;
    if (strncmp(key, base_prefix, lead) != 0 || strncmp(key + lead, s->path, n) != 0) { return false; }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(key + lead + n, ends[i]) == 0) { return true; }
    }
    return false;
}

static const peft__site *base_site(const peft__adapter *a, const char *key) {
    for (size_t i = 0; i < a->attachments.len; i++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, i);
        const peft__site *s = &a->base->sites[at->site];
        if ((s->kind == PEFT__SITE_HEAD || at->rows_param >= 0) && base_is_matrix(a, s, key)) { return s; }
    }
    return NULL;
}

peft_status peft__reader_differs(peft__mem *mem, const peft__weight *w, const peft__io_tensor *t, double rounding,
                                 const peft__kernels *k, int64_t *row) {
    peft__real *values = peft__alloc(mem, (size_t)w->cols * sizeof *values);
    if (values == NULL) { return PEFT_E_NOMEM; }
    *row = -1;
    for (int64_t r = 0; r < w->rows && *row < 0; r++) {
        double gap = 0, most = 0;
        peft__weight_row(k, w, r, values);
        for (int64_t c = 0; c < w->cols; c++) {
            double apart = fabs((double)values[c] - (double)peft__reader_element(t, (size_t)(r * w->cols + c)));
            if (gap >= 0 && !(apart <= gap)) { gap = apart; } /* a NaN stays */
            most = fmax(most, fabs((double)values[c]));
        }
        if (!(gap <= rounding * most)) { *row = r; }
    }
    peft__free(mem, values, (size_t)w->cols * sizeof *values);
    return PEFT_OK;
}

/* Rows of new tokens may follow those of the base. */
static peft_status base_compare(const char *what, peft__mem *mem, const peft__adapter *a, const peft__io_tensor *t,
                                const peft__site *s, const peft__kernels *k) {
    peft_status st = PEFT_OK;
    int64_t rows = s->weight->rows, cols = s->weight->cols, row = -1;
    if (t->ndim != 2 || (t->dims[0] != rows && t->dims[0] != rows + a->new_tokens) || t->dims[1] != cols) {
        FAIL(PEFT_E_SHAPE, "%s: tensor \"%s\" is not [%lld, %lld] as this base's", what, t->name, (long long)rows, (long long)cols);
    }
    TRY(peft__reader_differs(mem, s->weight, t, 0.125, k, &row)); /* Q4 rounds by about a fifteenth of the largest */
    if (row >= 0) {
        FAIL(PEFT_E_UNSUPPORTED, "%s: tensor \"%s\" is not this base's: row %lld differs", what, t->name, (long long)row);
    }
out:
    return st;
}

/* The table's rows once more, under a name that an encoder or a decoder has for the table "shared"? */
static bool base_stack_rows(const peft__adapter *a, const char *name) {
    static const char *const stacks[] = {"encoder", "decoder"};
    char key[512];
    if (a->tokens == NULL) { return false; }
    const char *path = a->tokens->table.site->path, *leaf = peft__path_leaf(path);
    if (strcmp(leaf, "shared") != 0) { return false; }
    for (size_t i = 0; i < PEFT__COUNT(stacks); i++) {
        (void)snprintf(key, sizeof key, "%s%.*s%s.embed_tokens.%strainable_tokens_delta", base_prefix, (int)(leaf - path), path,
                       stacks[i], a->tokens->wrapper);
        if (strcmp(key, name) == 0) { return true; }
    }
    return false;
}

/* The tied head's rows of tokens once more, or those of a stack. */
static peft_status base_twin(const char *what, const peft__adapter *a, const peft__io_tensor *t, bool *known) {
    peft_status st = PEFT_OK;
    peft__param twin = {0};
    peft__arena arena;
    peft__arena_init(&arena, a->mem);
    TRY(peft__tokens_twin(a, &arena, &twin));
    if (twin.rows == 0 || (strcmp(twin.name, t->name) != 0 && !base_stack_rows(a, t->name))) { goto out; }
    if (t->ndim != 2 || t->dims[0] != twin.rows || t->dims[1] != twin.cols) {
        FAIL(PEFT_E_SHAPE, "%s: tensor \"%s\" is not [%lld, %lld] as that of the embedding, to which it is tied", what, t->name,
             (long long)twin.rows, (long long)twin.cols);
    }
    for (int64_t e = 0; e < twin.rows * twin.cols; e++) {
        if ((float)twin.value[e] == peft__reader_element(t, (size_t)e)) { continue; }
        FAIL(PEFT_E_UNSUPPORTED, "%s: tensor \"%s\" has another row %lld than that of the embedding, to which it is tied", what,
             t->name, (long long)(e / twin.cols));
    }
    *known = true;
out:
    peft__arena_free(&arena);
    return st;
}

peft_status peft__reader_copy(const char *what, peft__mem *mem, const peft__adapter *a, const peft__io_tensor *t,
                              const peft__kernels *k, bool *known) {
    *known = false;
    const peft__site *s = base_site(a, t->name);
    if (!peft__reader_plain(t)) { return PEFT_OK; }
    if (s == NULL) { return base_twin(what, a, t, known); }
    peft_status st = base_compare(what, mem, a, t, s, k);
    *known = st == PEFT_OK;
    return st;
}

peft_status peft__reader_resized(const char *what, const peft__safetensors *file, const peft__adapter *a, size_t i, bool *found) {
    peft_status st = PEFT_OK;
    char key[512];
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    *found = false;
    if (p->slot != PEFT__SLOT_TOKENS || a->new_tokens == 0 || p->site != a->tokens->head.site->id) { return PEFT_OK; }
    const peft__token_rows *rows = &a->tokens->head;
    (void)snprintf(key, sizeof key, "%s%s.weight", base_prefix, rows->site->path);
    const peft__io_tensor *t = peft__safetensors_find(file, key);
    if (t == NULL || !peft__reader_plain(t) || t->ndim != 2 || t->dims[0] != rows->site->weight->rows + a->new_tokens ||
        t->dims[1] != p->p.cols) {
        FAIL(PEFT_E_NOT_FOUND, "%s: there is neither a tensor \"%s%s\" nor a whole \"%s\": what an untied head has for new tokens was "
             "not saved with the adapter", what, base_prefix, p->p.name, key);
    }
    for (int64_t r = 0; r < p->p.rows; r++) {
        for (int64_t c = 0; c < p->p.cols; c++) {
            p->p.value[r * p->p.cols + c] = PEFT__R(peft__reader_element(t, (size_t)(rows->ids[r] * p->p.cols + c)));
        }
    }
    *found = true;
out:
    return st;
}
