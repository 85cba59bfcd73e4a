/* format_gguf.c - a LoRA as the one GGUF file that llama.cpp takes as an adapter (--lora), and back:
 *
 *   general.type "adapter", general.architecture as the base's, adapter.type "lora", adapter.lora.alpha F32
 *   NAME.lora_a [r, in] and NAME.lora_b [out, r] for each adapted tensor NAME ("blk.0.attn_q.weight"); written as F32
 *
 * There: y = W x + (alpha / r) B A x with r of each pair; alpha 0 or absent means a factor of 1. A file has one alpha: where the
 * scales of modules want several (alpha_pattern, rsLoRA with several ranks) the rest goes into B. Rows of q and k stand in pair
 * order where those of the base do, so rows of their B do too.
 *
 * Left out: pairs on token_embd.weight; lora_b of experts; norms, which llama.cpp passes over as well; aLoRA's invocation. */
#include "peft/method.h"

#include <math.h>

#include "peft/lora.h"

/* ---- names --------------------------------------------------------------------------------------------------- */

/* GGUF's name of the site's weight, and the head size where its rows are in pair order. NULL: it has none, as a tied head. */
static const char *gguf_adapter_name(const peft__base_info *base, const peft__site *s, int32_t *interleave) {
    *interleave = 0;
    if (base->gguf_name == NULL || (s->kind == PEFT__SITE_HEAD && s->tied_to >= 0)) { return NULL; }
    for (size_t i = 0; i < base->n_tensors; i++) {
        int32_t ndim;
        const peft__weight *w = base->tensor(base->owner, i, &ndim);
        if (strcmp(w->name, s->weight->name) == 0) { return base->gguf_name(base->owner, i, interleave); }
    }
    return NULL;
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

/* alpha of the file: that of the first module which has one. */
static double gguf_adapter_alpha(const peft__adapter *a) {
    const peft__attachment *all = a->attachments.data;
    for (size_t i = 0; i < a->attachments.len; i++) {
        double alpha = all[i].scale * (double)all[i].rank;
        if (alpha > 0) { return alpha; }
    }
    return 1;
}

typedef struct gguf_adapter_part {
    const peft__param *p;
    double factor;
    int32_t interleave;
} gguf_adapter_part;

static peft_status gguf_adapter_produce(void *user, void *out, size_t offset, size_t size) {
    const gguf_adapter_part *t = user;
    uint8_t *bytes = out;
    size_t cols = (size_t)t->p->cols;
    for (size_t i = 0; i < size / 4; i++) {
        size_t e = offset / 4 + i;
        int64_t row = (int64_t)(e / cols);
        if (t->interleave > 0) { row = peft__unpair_row(t->interleave, row); }
        float v = (float)(t->factor * (double)t->p->value[row * t->p->cols + (int64_t)(e % cols)]);
        uint32_t bits;
        memcpy(&bits, &v, sizeof bits);
        peft__set_u32(bytes + 4 * i, bits);
    }
    return PEFT_OK;
}

/* The pair of one attachment. */
static peft_status gguf_adapter_add(const peft__adapter *a, const peft__attachment *at, double alpha, peft__arena *arena,
                                    peft__io_source *sources, gguf_adapter_part *parts) {
    peft_status st = PEFT_OK;
    const peft__site *s = &a->base->sites[at->site];
    int32_t interleave = 0;
    const char *name = gguf_adapter_name(a->base, s, &interleave);
    if (name == NULL) {
        FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\": a GGUF file for llama.cpp cannot hold a LoRA of \"%s\"%s", a->name, s->path,
             s->kind == PEFT__SITE_HEAD ? ", which has the embedding's tensor" : "");
    }
    /* exactly 1 for the module that alpha is of, whatever its float is */
    double rest = at->scale * (double)at->rank == alpha ? 1 : at->scale * (double)at->rank / (double)(float)alpha;
    parts[0] = (gguf_adapter_part){peft__lora_param(a, at, PEFT__LORA_A), 1, 0};
    parts[1] = (gguf_adapter_part){peft__lora_param(a, at, PEFT__LORA_B), rest, interleave};
    for (int32_t side = 0; side < 2; side++) {
        sources[side] = (peft__io_source){.name = peft__arena_printf(arena, "%s.lora_%c", name, side == 0 ? 'a' : 'b'),
                                          .dtype = PEFT_DTYPE_F32,
                                          .ndim = 2,
                                          .dims = {parts[side].p->rows, parts[side].p->cols},
                                          .produce = gguf_adapter_produce,
                                          .user = &parts[side]};
        if (sources[side].name == NULL) { return PEFT_E_NOMEM; }
    }
out:
    return st;
}

static peft_status gguf_adapter_write(const peft__adapter *a, const char *path) {
    peft_status st = PEFT_OK;
    size_t n = 0, room = 2 * a->attachments.len;
    double alpha = gguf_adapter_alpha(a);
    const char *base = peft__opt_str(&a->opts, "base_model_name_or_path");
    peft__gguf_out w;
    peft__arena arena;
    peft__arena_init(&arena, a->mem);
    peft__gguf_out_init(&w, a->mem);
    peft__io_source *sources = peft__arena_alloc(&arena, (room + 1) * sizeof *sources);
    gguf_adapter_part *parts = peft__arena_alloc(&arena, (room + 1) * sizeof *parts);
    if (sources == NULL || parts == NULL) {
        st = PEFT_E_NOMEM;
        goto out;
    }
    for (size_t i = 0; i < a->attachments.len; i++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, i);
        if (at->rank == 0) { continue; }
        TRY(gguf_adapter_add(a, at, alpha, &arena, sources + n, parts + n));
        n += 2;
    }
    peft__gguf_put_text(&w, "general.architecture", a->base->gguf_architecture, strlen(a->base->gguf_architecture));
    peft__gguf_put_text(&w, "general.type", "adapter", 7);
    peft__gguf_put_text(&w, "general.name", a->name, strlen(a->name));
    if (base[0] == '\0') { base = a->base->path != NULL ? a->base->path : ""; }
    if (base[0] != '\0') {
        peft__gguf_put_u32(&w, "general.base_model.count", 1);
        peft__gguf_put_text(&w, "general.base_model.0.name", base, strlen(base));
    }
    peft__gguf_put_text(&w, "adapter.type", "lora", 4);
    peft__gguf_put_f32(&w, "adapter.lora.alpha", (float)alpha);
    TRY(peft__gguf_write(&w, a->mem, path, sources, n));
out:
    peft__gguf_out_free(&w);
    peft__arena_free(&arena);
    return st;
}

peft_status peft__adapter_save_gguf(const peft__adapter *a, const char *path) {
    peft_status st = PEFT_OK;
    peft__adapter *plain = NULL;
    if (a->method->plain != NULL) { TRY(a->method->plain(a, &plain)); }
    if (plain != NULL) { a = plain; }
    if (a->method->low_rank == NULL) {
        FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\": a GGUF file for llama.cpp holds LoRA only, not method \"%s\"", a->name,
             a->method->name);
    }
    if (a->base->gguf_name == NULL || a->base->gguf_architecture == NULL) {
        FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\": the base has no form in GGUF", a->name);
    }
    TRY(a->method->low_rank(a, "a GGUF file for llama.cpp"));
    TRY(gguf_adapter_write(a, path));
out:
    peft__adapter_release(plain);
    return st;
}

/* ---- reading ------------------------------------------------------------------------------------------------- */

/* A pair of tensors of the file, at the site that it is of. */
typedef struct gguf_adapter_pair {
    const peft__io_tensor *a, *b;
    int32_t interleave;
} gguf_adapter_pair;

static bool gguf_adapter_ends(const char *name, const char *tail, size_t *stem) {
    size_t n = strlen(name), m = strlen(tail);
    *stem = n - PEFT__MIN(n, m);
    return n > m && strcmp(name + *stem, tail) == 0;
}

/* The site whose weight has this name in GGUF files; -1: none. */
static int32_t gguf_adapter_site(const peft__base_info *base, const char *name, size_t len, int32_t *interleave) {
    for (size_t i = 0; i < base->n_tensors; i++) {
        int32_t ndim;
        const char *here = base->gguf_name(base->owner, i, interleave);
        if (here == NULL || strlen(here) != len || memcmp(here, name, len) != 0) { continue; }
        const peft__weight *w = base->tensor(base->owner, i, &ndim);
        for (size_t s = 0; s < base->n_sites; s++) {
            const peft__site *site = &base->sites[s];
            bool takes = site->kind == PEFT__SITE_LINEAR || (site->kind == PEFT__SITE_HEAD && site->tied_to < 0);
            if (takes && strcmp(site->weight->name, w->name) == 0) { return site->id; }
        }
    }
    return -1;
}

static peft_status gguf_adapter_pairs(const peft__gguf *g, const char *path, const peft__base_info *base, gguf_adapter_pair *pairs) {
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < g->count; i++) {
        const peft__io_tensor *t = &g->tensors[i];
        size_t stem;
        int32_t interleave = 0;
        if (gguf_adapter_ends(t->name, "_norm.weight", &stem)) { continue; }
        bool left = gguf_adapter_ends(t->name, ".lora_a", &stem);
        if (!left && !gguf_adapter_ends(t->name, ".lora_b", &stem)) {
            FAIL(PEFT_E_FORMAT, "%s: tensor \"%s\" ends in neither .lora_a nor .lora_b", path, t->name);
        }
        int32_t site = gguf_adapter_site(base, t->name, stem, &interleave);
        if (site < 0 && stem == 17 && memcmp(t->name, "token_embd.weight", stem) == 0) {
            FAIL(PEFT_E_UNSUPPORTED, "%s: tensor \"%s\": LoRA of the embedding is not supported", path, t->name);
        }
        if (site < 0) { FAIL(PEFT_E_NOT_FOUND, "%s: tensor \"%s\": the base has no matrix \"%.*s\"", path, t->name, (int)stem, t->name); }
        pairs[site].interleave = interleave;
        if (left) { pairs[site].a = t; } else { pairs[site].b = t; }
    }
out:
    return st;
}

/* ranks [n_sites] of complete pairs of the right shapes. */
static peft_status gguf_adapter_ranks(const char *path, const peft__base_info *base, const gguf_adapter_pair *pairs,
                                      int64_t *ranks) {
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < base->n_sites; i++) {
        const peft__io_tensor *a = pairs[i].a, *b = pairs[i].b;
        const peft__site *s = &base->sites[i];
        if (a == NULL && b == NULL) { continue; }
        if (a == NULL || b == NULL) {
            const char *have = a != NULL ? a->name : b->name;
            FAIL(PEFT_E_NOT_FOUND, "%s: tensor \"%s\" has no counterpart .lora_%c", path, have, a != NULL ? 'b' : 'a');
        }
        bool flat = a->ndim == 2 && b->ndim == 2;
        if (!flat || a->dims[1] != s->in || b->dims[0] != s->out || a->dims[0] != b->dims[1]) {
            FAIL(PEFT_E_SHAPE, "%s: tensors \"%s\" [%lld, %lld] and \"%s\" [%lld, %lld], expected [r, %lld] and [%lld, r]", path, a->name,
                 (long long)a->dims[0], (long long)(a->ndim > 1 ? a->dims[1] : 0), b->name, (long long)b->dims[0],
                 (long long)(b->ndim > 1 ? b->dims[1] : 0), (long long)s->in, (long long)s->out);
        }
        ranks[i] = a->dims[0];
    }
out:
    return st;
}

static peft_status gguf_adapter_fill(const char *path, const peft__io_tensor *t, int32_t interleave, const peft__kernels *k,
                                     bool allow_nan, const peft__param *p) {
    peft_status st = PEFT_OK;
    size_t block = peft__dtype_block_bytes(t->dtype);
    int64_t elems = peft__dtype_elems(t->dtype);
    if (t->dtype == PEFT__IO_DTYPE_OTHER || block == 0) {
        FAIL(PEFT_E_UNSUPPORTED, "%s: tensor \"%s\" has type %s", path, t->name, t->dtype_name);
    }
    peft__weight w = {.name = t->name,
                      .data = t->data,
                      .dtype = t->dtype,
                      .rows = p->rows,
                      .cols = p->cols,
                      .interleave = interleave,
                      .row_bytes = p->cols / elems * (int64_t)block};
    peft__weight_read(k, &w, p->value);
    if (!allow_nan && !k->finite(p->value, p->rows * p->cols)) {
        FAIL(PEFT_E_NUMERIC, "%s: tensor \"%s\" has a NaN or an infinite value", path, t->name);
    }
out:
    return st;
}

/* Is it a LoRA for this base? Its alpha. */
static peft_status gguf_adapter_head(const peft__gguf *g, const char *path, const peft__base_info *base, peft__arena *arena,
                                     double *alpha) {
    peft_status st = PEFT_OK;
    const char *kind = NULL, *architecture = NULL, *type = NULL;
    TRY(peft__gguf_text(g, "general.type", arena, "", &kind));
    TRY(peft__gguf_text(g, "general.architecture", arena, "", &architecture));
    TRY(peft__gguf_text(g, "adapter.type", arena, "", &type));
    TRY(peft__gguf_float(g, "adapter.lora.alpha", 0, alpha));
    if (strcmp(kind, "adapter") != 0) { FAIL(PEFT_E_FORMAT, "%s: general.type is \"%s\", expected \"adapter\"", path, kind); }
    if (strcmp(type, "lora") != 0) { FAIL(PEFT_E_UNSUPPORTED, "%s: adapter.type is \"%s\", expected \"lora\"", path, type); }
    if (base->gguf_name == NULL || base->gguf_architecture == NULL || strcmp(architecture, base->gguf_architecture) != 0) {
        FAIL(PEFT_E_SHAPE, "%s: the adapter is for architecture \"%s\", this base is \"%s\"", path, architecture,
             base->gguf_architecture != NULL ? base->gguf_architecture : "?");
    }
    if (peft__gguf_get(g, "adapter.alora.invocation_tokens") != NULL) {
        FAIL(PEFT_E_UNSUPPORTED, "%s: an aLoRA, which acts after its invocation tokens only, is not supported", path);
    }
    if (!isfinite(*alpha) || *alpha < 0) { FAIL(PEFT_E_FORMAT, "%s: adapter.lora.alpha is %g", path, *alpha); }
out:
    return st;
}

peft_status peft__adapter_load_gguf(peft__mem *mem, const peft__kernels *k, const peft__base_info *base, const char *name,
                                    const char *path, bool allow_nan, peft__adapter **out) {
    peft_status st = PEFT_OK;
    double alpha = 0;
    peft__adapter *made = NULL;
    peft__gguf g = {0};
    peft__arena arena;
    peft__arena_init(&arena, mem);
    TRY(peft__gguf_open(mem, path, false, &g));
    TRY(gguf_adapter_head(&g, path, base, &arena, &alpha));
    gguf_adapter_pair *pairs = peft__arena_alloc(&arena, base->n_sites * sizeof *pairs);
    int64_t *ranks = peft__arena_alloc(&arena, base->n_sites * sizeof *ranks);
    if (pairs == NULL || ranks == NULL) {
        st = PEFT_E_NOMEM;
        goto out;
    }
    TRY(gguf_adapter_pairs(&g, path, base, pairs));
    TRY(gguf_adapter_ranks(path, base, pairs, ranks));
    TRY(peft__lora_make(mem, base, name, ranks, alpha, NULL, &made));
    for (size_t i = 0; i < made->attachments.len; i++) {
        const peft__attachment *at = &PEFT__VEC_AT(&made->attachments, peft__attachment, i);
        const gguf_adapter_pair *pair = &pairs[at->site];
        TRY(gguf_adapter_fill(path, pair->a, 0, k, allow_nan, peft__lora_param(made, at, PEFT__LORA_A)));
        TRY(gguf_adapter_fill(path, pair->b, pair->interleave, k, allow_nan, peft__lora_param(made, at, PEFT__LORA_B)));
    }
    *out = made;
    made = NULL;
out:
    peft__adapter_release(made);
    peft__gguf_close(&g);
    peft__arena_free(&arena);
    return st;
}

/* ---- without a base ------------------------------------------------------------------------------------------ */

bool peft__adapter_probe_gguf(peft__mem *mem, const char *path) {
    const char *kind = NULL;
    peft__gguf g = {0};
    peft__arena arena;
    peft__arena_init(&arena, mem);
    bool is = !peft__path_is_dir(path) && peft__gguf_probe(path) && peft__gguf_open(mem, path, false, &g) == PEFT_OK &&
              peft__gguf_text(&g, "general.type", &arena, "", &kind) == PEFT_OK && strcmp(kind, "adapter") == 0;
    peft__gguf_close(&g);
    peft__arena_free(&arena);
    return is;
}

static void gguf_adapter_put_tensors(const peft__gguf *g, peft__json_out *j) {
    peft__json_key(j, "sites");
    peft__json_array(j);
    for (size_t i = 0; i < g->count; i++) {
        size_t stem;
        if (gguf_adapter_ends(g->tensors[i].name, ".lora_a", &stem)) { peft__json_put_str(j, g->tensors[i].name, stem); }
    }
    peft__json_array_end(j);
    peft__json_key(j, "tensors");
    peft__json_array(j);
    for (size_t i = 0; i < g->count; i++) {
        const peft__io_tensor *t = &g->tensors[i];
        peft__json_object(j);
        peft__json_key(j, "name");
        peft__json_put_text(j, t->name);
        peft__json_key(j, "dtype");
        peft__json_put_text(j, t->dtype_name);
        peft__json_key(j, "shape");
        peft__json_array(j);
        for (int32_t d = 0; d < t->ndim; d++) { peft__json_put_int(j, t->dims[d]); }
        peft__json_array_end(j);
        peft__json_object_end(j);
    }
    peft__json_array_end(j);
}

/* The numbers and texts among the metadata. */
static void gguf_adapter_put_meta(const peft__gguf *g, peft__json_out *j) {
    peft__json_key(j, "config");
    peft__json_object(j);
    for (size_t i = 0; i < g->kv_count; i++) {
        const peft__gguf_kv *kv = &g->kvs[i];
        bool text = kv->type == PEFT__GGUF_STRING;
        if (kv->type == PEFT__GGUF_ARRAY || (text && !peft__utf8_valid(kv->str.data, kv->str.len))) { continue; }
        peft__json_key(j, kv->key);
        if (text) {
            peft__json_put_str(j, kv->str.data, kv->str.len);
        } else if (kv->type == PEFT__GGUF_F32 || kv->type == PEFT__GGUF_F64) {
            peft__json_put_float(j, kv->f);
        } else if (kv->type == PEFT__GGUF_BOOL) {
            peft__json_put_bool(j, kv->i != 0);
        } else {
            peft__json_put_int(j, kv->i);
        }
    }
    peft__json_object_end(j);
}

peft_status peft__adapter_inspect_gguf(peft__mem *mem, const char *path, peft__str *out) {
    peft_status st = PEFT_OK;
    int64_t values = 0, bytes = 0;
    const char *type = NULL, *architecture = NULL;
    peft__json_out j;
    peft__gguf g = {0};
    peft__arena arena;
    peft__arena_init(&arena, mem);
    TRY(peft__gguf_open(mem, path, false, &g));
    TRY(peft__gguf_text(&g, "adapter.type", &arena, "?", &type));
    TRY(peft__gguf_text(&g, "general.architecture", &arena, "?", &architecture));
    for (size_t i = 0; i < g.count; i++) {
        int64_t n = 0;
        TRY(peft__io_elements(g.tensors[i].ndim, g.tensors[i].dims, 0, &n));
        values += n;
        bytes += (int64_t)g.tensors[i].size;
    }
    peft__json_begin(&j, out, 0);
    peft__json_object(&j);
    peft__json_key(&j, "kind");
    peft__json_put_text(&j, "adapter");
    peft__json_key(&j, "method");
    peft__json_put_text(&j, type);
    peft__json_key(&j, "architecture");
    peft__json_put_text(&j, architecture);
    peft__json_key(&j, "parameters");
    peft__json_put_int(&j, values);
    peft__json_key(&j, "bytes");
    peft__json_put_int(&j, bytes);
    gguf_adapter_put_meta(&g, &j);
    gguf_adapter_put_tensors(&g, &j);
    peft__json_object_end(&j);
    TRY(peft__str_status(out));
out:
    peft__gguf_close(&g);
    peft__arena_free(&arena);
    return st;
}
