/* random.c - a model of a given config with seeded random weights, for tests and for training from scratch.
 *
 * Matrices are N(0, 0.02), gains 1, biases 0; each tensor has a stream of its own, keyed by seed and name, so that adding a
 * tensor to an architecture changes no other. Weights are float, in Hugging Face's layout, in one block.
 *
 * Left out: the initialisations of each family (GPT-2 scales its residual projections). */
#include "model/parts.h"

typedef struct random_fill {
    uint64_t seed;
    double noise;
    size_t at; /* bytes of the block that are given out */
} random_fill;

static float *random_place(uint8_t *block, size_t *at, const struct peft__tensor_spec *s) {
    float *p = block != NULL ? (float *)(void *)(block + *at) : NULL;
    *at += ((size_t)(s->rows * s->cols) * sizeof *p + 63) / 64 * 64;
    return p;
}

/* Bytes of the block: checked, because the config is anybody's. */
static peft_status random_size(struct peft_model *m, size_t *size) {
    peft__arena names;
    struct peft__tensor_spec s;
    peft__arena_init(&names, m->arena.mem);
    *size = 0;
    for (size_t i = 0;; i++) {
        memset(&s, 0, sizeof s);
        if (!peft__model_spec(m, &names, i, &s)) { break; }
        if (!s.optional && !s.unused) { (void)random_place(NULL, size, &s); }
        if (*size > SIZE_MAX / 4) {
            peft__arena_free(&names);
            return peft__fail(PEFT_E_NOMEM, "a model of this config is too large");
        }
    }
    peft__arena_free(&names);
    return PEFT_OK;
}

static void random_tensor(const random_fill *f, const struct peft__tensor_spec *s, float *p) {
    size_t len = strlen(s->hf_name);
    peft__rng rng = {peft__hash_str(f->seed, s->hf_name, len), 0};
    double mean = 0, spread = 0.02;
    if (s->ndim == 1) {
        mean = len > 7 && strcmp(s->hf_name + len - 7, ".weight") == 0 ? 1 : 0;
        spread = f->noise;
    }
    for (int64_t i = 0; i < s->rows * s->cols; i++) {
        p[i] = (float)(spread > 0 ? mean + spread * peft__rng_normal(&rng) : mean);
    }
}

/* Tensors lie in the block in the order in which they are asked for. */
static peft_status random_source(struct peft_model *m, void *user, const struct peft__tensor_spec *spec,
                                 peft__model_tensor *out, bool *found) {
    *found = !spec->optional;
    if (spec->optional) { return PEFT_OK; }
    random_fill *f = user;
    float *p = random_place(m->owned, &f->at, spec);
    random_tensor(f, spec, p);
    out->w.data = (const uint8_t *)p;
    out->w.dtype = PEFT_DTYPE_F32;
    out->w.transposed = spec->conv1d;
    out->w.row_bytes = (spec->conv1d ? spec->rows : spec->cols) * (int64_t)sizeof *p;
    return PEFT_OK;
}

peft_status peft__model_random(peft_context *ctx, const char *config_json, size_t len, uint64_t seed, double noise,
                               struct peft_model **out) {
    peft_status st = PEFT_OK;
    struct peft_model *m = NULL;
    random_fill fill = {seed, noise, 0};
    size_t size = 0;
    TRY(peft__model_new(ctx, "", &m));
    TRY(peft__model_set_config(m, config_json, len));
    TRY(random_size(m, &size));
    m->owned = peft__alloc(&ctx->mem, size);
    if (m->owned == NULL) {
        st = PEFT_E_NOMEM;
        goto out;
    }
    m->owned_bytes = size;
    TRY(peft__model_bind(m, "config.json", random_source, &fill));
    *out = m;
    m = NULL;
out:
    peft__model_release(m);
    return st;
}
