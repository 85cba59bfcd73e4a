/* load_gguf.c - a GGUF file as a model: its metadata as a config, its tensors under Hugging Face's names.
 *
 * What converters changed is undone in the views, not in the data: rows of q and k in pair order (peft__weight.interleave),
 * Conv1D matrices already turned to [out][in]. Vectors in pair order, or to which 1 was added, are small and are copied.
 * rope_freqs.weight, which has Llama 3's scaling baked in, is recognised where it is one of the scalings that were
 * published, so that config.json can say so; the frequencies come from the tensor in any case.
 *
 * Left out: split files, fused attn_qkv of architectures that have separate projections in Hugging Face's form. */
#include <math.h>

#include "model/parts.h"

/* A vector without what converters add to it, as floats in the arena. */
static peft_status load_gguf_minus(struct peft_model *m, const peft__io_tensor *t, double plus, peft__model_tensor *out) {
    int64_t n = t->dims[0];
    peft__real *values = peft__arena_alloc(&m->arena, (size_t)n * sizeof *values);
    float *copy = peft__arena_alloc(&m->arena, (size_t)n * sizeof *copy);
    if (values == NULL || copy == NULL) { return PEFT_E_NOMEM; }
    m->ctx->kernels->dequant(t->dtype, t->data, n, values);
    for (int64_t i = 0; i < n; i++) { copy[i] = (float)((double)values[i] - plus); }
    out->w.data = (const uint8_t *)copy;
    out->w.dtype = PEFT_DTYPE_F32;
    out->w.row_bytes = n * (int64_t)sizeof *copy;
    return PEFT_OK;
}

static peft_status load_gguf_source(struct peft_model *m, void *user, const struct peft__tensor_spec *spec,
                               peft__model_tensor *out, bool *found) {
    peft_status st = PEFT_OK;
    (void)user;
    const peft__io_tensor *t = peft__gguf_find(m->gguf, spec->gguf_name);
    *found = t != NULL;
    if (spec->optional && m->config.tie_embeddings && m->config.head_scale > 0) { *found = false; } /* it is derived (write_gguf.c) */
    if (!*found) { goto out; }
    TRY(peft__model_accept(m->path, t, spec, false, out));
    if (spec->gguf_plus > 0 && spec->ndim == 1) { TRY(load_gguf_minus(m, t, spec->gguf_plus, out)); }
    if (!spec->interleaved && !spec->fused) { goto out; }
    if (spec->ndim == 2) {
        if (spec->fused) {
            out->w.heads = (int32_t)m->config.heads;
        } else {
            out->w.interleave = (int32_t)m->config.head_dim;
        }
        goto out;
    }
    int64_t n = spec->cols, d = m->config.head_dim, heads = m->config.heads;
    size_t size = peft__dtype_bytes(t->dtype, 1);
    if (peft__dtype_elems(t->dtype) != 1) {
        FAIL(PEFT_E_UNSUPPORTED, "%s: tensor \"%s\" has type %s, expected F32, F16 or BF16", m->path, t->name,
             t->dtype_name);
    }
    uint8_t *copy = peft__arena_alloc(&m->arena, (size_t)n * size);
    if (copy == NULL) {
        st = PEFT_E_NOMEM;
        goto out;
    }
    for (int64_t r = 0; r < n; r++) {
        int64_t from = spec->fused ? peft__fused_row(heads, d, r) : peft__pair_row(d, r);
        memcpy(copy + (size_t)r * size, t->data + (size_t)from * size, size);
    }
    out->w.data = copy;
out:
    return st;
}

/* Fills the config with the llama3 scaling whose factors these are, if there is one with the published 1 and 4 as its bounds
 * and an original context of a power of two: 8192 first, which all published models have. */
static bool load_gguf_llama3_scaling(peft__config *c, const double *factors) {
    int64_t half = c->head_dim / 2;
    double largest = 0;
    for (int64_t i = 0; i < half; i++) { largest = PEFT__MAX(largest, factors[i]); }
    for (int32_t k = 0; k <= 16; k++) {
        peft__config guess = *c;
        guess.rope_scaling = PEFT__ROPE_LLAMA3;
        guess.rope_factor = largest;
        guess.rope_low_freq = 1;
        guess.rope_high_freq = 4;
        guess.rope_original_positions = k == 0 ? 8192 : INT64_C(16) << k;
        bool same = true;
        for (int64_t i = 0; i < half && same; i++) {
            same = fabs(peft__rope_factor(&guess, c->head_dim, i) - factors[i]) <= 1e-5 * factors[i];
        }
        if (same) {
            *c = guess;
            return true;
        }
    }
    return false;
}

static peft_status load_gguf_rope_factors(struct peft_model *m) {
    peft_status st = PEFT_OK;
    peft__config *c = &m->config;
    const double *factors = NULL;
    if (strcmp(m->arch->name, "llama") != 0 || peft__gguf_find(m->gguf, "rope_freqs.weight") == NULL) { goto out; }
    TRY(peft__config_rope_vector(m->gguf, "rope_freqs.weight", c->head_dim / 2, &m->arena, &factors));
    if (!load_gguf_llama3_scaling(c, factors)) {
        peft__log(m->ctx, PEFT_LOG_WARN, "%s: rope_freqs.weight is used, but is no scaling that config.json can express",
                  m->path);
    }
    c->rope_factors = factors;
out:
    return st;
}

static peft_status load_gguf_config(struct peft_model *m) {
    peft_status st = PEFT_OK;
    peft__str text;
    peft__str_init(&text, m->arena.mem);
    TRY(peft__arch_of_gguf(m->gguf, &m->arena, &m->arch));
    TRY(m->arch->read_gguf(m->gguf, &m->arena, &m->config));
    TRY(load_gguf_rope_factors(m));
    size_t type = m->arch->gguf_type != NULL ? m->arch->gguf_type(&m->config) : 0;
    m->model_type = m->arch->model_types[type];
    TRY(peft__heads_choose(m, NULL, "metadata"));
    TRY(peft__config_text(m->arch, type, &m->config, &text));
    m->config_json = peft__arena_strdup(&m->arena, peft__str_c(&text), text.len);
    if (m->config_json == NULL) { st = PEFT_E_NOMEM; }
    m->config_json_len = text.len;
out:
    peft__str_free(&text);
    return st;
}

peft_status peft__model_load_gguf(struct peft_model *m, bool copy) {
    peft_status st = PEFT_OK;
    peft__gguf *g = peft__arena_alloc(&m->arena, sizeof *g);
    if (g == NULL) { return PEFT_E_NOMEM; }
    TRY(peft__gguf_open(m->arena.mem, m->path, copy, g));
    m->gguf = g;
    st = load_gguf_config(m);
    if (st != PEFT_OK) {
        if (st != PEFT_E_NOMEM) { peft__fail_prefix("%s", m->path); }
        goto out;
    }
    TRY(peft__model_bind(m, m->path, load_gguf_source, NULL));
out:
    return st;
}
