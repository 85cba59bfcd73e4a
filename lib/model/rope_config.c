/* rope_config.c - rotary positions in config.json ("rope_theta", and "rope_scaling" or "rope_parameters") and in GGUF metadata
 * ("ARCH.rope.freq_base", "ARCH.rope.scaling.*").
 *
 * A scaling that is not known is refused by name, and so is one whose keys are missing: positions that turn otherwise than the
 * model's would make sense nowhere. */
#include <math.h>

#include "model/parts.h"

static const char *const rope_names[] = {"default", "linear", "dynamic", "llama3", "yarn", "longrope"};

static peft_status rope_positive(const peft__json *o, const char *what, const char *key, double *out) {
    peft_status st = PEFT_OK;
    if (peft__json_find(o, key) == NULL) { FAIL(PEFT_E_FORMAT, "%s: key \"%s\" of the rope scaling is missing", what, key); }
    TRY(peft__json_float(o, what, key, 0, out));
    if (!(*out > 0)) { FAIL(PEFT_E_FORMAT, "%s: key \"%s\" of the rope scaling is not above 0", what, key); }
out:
    return st;
}

/* A number that may be absent or null: 0. */
static peft_status rope_maybe(const peft__json *o, const char *what, const char *key, double *out) {
    *out = 0;
    return peft__json_find(o, key) == NULL ? PEFT_OK : peft__json_float(o, what, key, 0, out);
}

static peft_status rope_read_llama3(const peft__json *s, const char *what, peft__config *c) {
    peft_status st = PEFT_OK;
    TRY(rope_positive(s, what, "factor", &c->rope_factor));
    TRY(rope_positive(s, what, "low_freq_factor", &c->rope_low_freq));
    TRY(rope_positive(s, what, "high_freq_factor", &c->rope_high_freq));
    if (c->rope_high_freq <= c->rope_low_freq) {
        FAIL(PEFT_E_FORMAT, "%s: rope scaling has \"high_freq_factor\" not above \"low_freq_factor\"", what);
    }
    TRY(peft__config_need(s, what, "original_max_position_embeddings", PEFT__MODEL_MAX_POSITIONS,
                          &c->rope_original_positions));
out:
    return st;
}

static peft_status rope_read_yarn(const peft__json *s, const char *what, peft__config *c) {
    peft_status st = PEFT_OK;
    TRY(rope_positive(s, what, "factor", &c->rope_factor));
    TRY(rope_maybe(s, what, "attention_factor", &c->rope_attention));
    TRY(rope_maybe(s, what, "beta_fast", &c->rope_beta_fast));
    TRY(rope_maybe(s, what, "beta_slow", &c->rope_beta_slow));
    TRY(rope_maybe(s, what, "mscale", &c->rope_mscale));
    TRY(rope_maybe(s, what, "mscale_all_dim", &c->rope_mscale_all));
    TRY(peft__json_bool(s, what, "truncate", true, &c->rope_truncate));
    TRY(peft__json_int(s, what, "original_max_position_embeddings", 0, 1, PEFT__MODEL_MAX_POSITIONS, &c->rope_original_positions));
    if (!(c->rope_beta_fast > 0)) { c->rope_beta_fast = 32; }
    if (!(c->rope_beta_slow > 0)) { c->rope_beta_slow = 1; }
out:
    return st;
}

/* A list of one factor for each pair of columns. */
static peft_status rope_read_factors(const peft__json *s, const char *what, const char *key, int64_t half, peft__arena *a,
                                     const double **out) {
    const peft__json *list = peft__json_find(s, key);
    if (list == NULL || list->kind != PEFT__JSON_ARRAY || list->len != (size_t)half) {
        return peft__fail(PEFT_E_FORMAT, "%s: key \"%s\" of the rope scaling is no list of %lld numbers", what, key, (long long)half);
    }
    double *v = peft__arena_alloc(a, (size_t)half * sizeof *v);
    if (v == NULL) { return PEFT_E_NOMEM; }
    for (int64_t i = 0; i < half; i++) {
        const peft__json *n = &list->items[i];
        if (n->kind != PEFT__JSON_NUMBER || !(n->num > 0)) {
            return peft__fail(PEFT_E_FORMAT, "%s: number %lld of key \"%s\" is not above 0", what, (long long)i, key);
        }
        v[i] = (double)(float)n->num;
    }
    *out = v;
    return PEFT_OK;
}

/* transformers takes the original context of longrope from beside the scaling, where Phi-3 has it. */
static peft_status rope_read_longrope(const peft__json *config, const peft__json *s, const char *what, peft__arena *a,
                                      peft__config *c) {
    peft_status st = PEFT_OK;
    int64_t half = peft__config_rotary(c) / 2;
    TRY(rope_read_factors(s, what, "short_factor", half, a, &c->rope_short));
    TRY(rope_read_factors(s, what, "long_factor", half, a, &c->rope_long));
    TRY(rope_maybe(s, what, "attention_factor", &c->rope_attention));
    TRY(rope_maybe(s, what, "factor", &c->rope_factor));
    const peft__json *from = peft__json_find(config, "original_max_position_embeddings") != NULL ? config : s;
    TRY(peft__json_int(from, what, "original_max_position_embeddings", 0, 1, PEFT__MODEL_MAX_POSITIONS,
                       &c->rope_original_positions));
    if (!(c->rope_factor > 0) && !(c->rope_attention > 0) && c->rope_original_positions == 0) {
        FAIL(PEFT_E_FORMAT, "%s: longrope has neither \"original_max_position_embeddings\" nor \"factor\" nor \"attention_factor\"",
             what);
    }
out:
    return st;
}

static peft_status rope_read_scaling(const peft__json *config, const peft__json *s, const char *what, peft__arena *a,
                                     peft__config *c) {
    peft_status st = PEFT_OK;
    const char *type = NULL;
    if (s->kind != PEFT__JSON_OBJECT) { FAIL(PEFT_E_FORMAT, "%s: key \"rope_scaling\" is no object", what); }
    TRY(peft__json_float(s, what, "rope_theta", c->rope_theta, &c->rope_theta));
    TRY(peft__json_str(s, what, "rope_type", NULL, &type));
    if (type == NULL) { TRY(peft__json_str(s, what, "type", "default", &type)); }
    if (strcmp(type, "su") == 0) { type = "longrope"; } /* its first name */
    int32_t found = -1;
    for (size_t i = 0; i < PEFT__COUNT(rope_names); i++) { found = strcmp(type, rope_names[i]) == 0 ? (int32_t)i : found; }
    c->rope_scaling = found;
    switch (found) {
    case PEFT__ROPE_NONE: break;
    case PEFT__ROPE_LINEAR:
    case PEFT__ROPE_DYNAMIC: TRY(rope_positive(s, what, "factor", &c->rope_factor)); break;
    case PEFT__ROPE_LLAMA3: TRY(rope_read_llama3(s, what, c)); break;
    case PEFT__ROPE_YARN: TRY(rope_read_yarn(s, what, c)); break;
    case PEFT__ROPE_LONGROPE: TRY(rope_read_longrope(config, s, what, a, c)); break;
    default:
        FAIL(PEFT_E_UNSUPPORTED,
             "%s: rope scaling \"%s\" is not supported, expected default, linear, dynamic, llama3, yarn or longrope", what, type);
    }
out:
    return st;
}

/* dynamic and yarn let rows be as many times as long as their factor says. */
static void rope_stretch(peft__config *c) {
    if (c->rope_scaling != PEFT__ROPE_DYNAMIC && c->rope_scaling != PEFT__ROPE_YARN) { return; }
    double longest = c->rope_factor * (double)peft__rope_original(c);
    if (!(longest > (double)c->max_positions)) { return; }
    c->stated_positions = c->max_positions;
    c->max_positions = longest < (double)PEFT__MODEL_MAX_POSITIONS ? (int64_t)longest : PEFT__MODEL_MAX_POSITIONS;
}

peft_status peft__config_rope(const peft__json *config, const char *what, double theta, peft__arena *a, peft__config *c) {
    peft_status st = PEFT_OK;
    const peft__json *s = peft__json_find(config, "rope_scaling");
    if (s == NULL) { s = peft__json_find(config, "rope_parameters"); }
    const peft__json *full = peft__json_find(s, "full_attention"); /* each kind of layer has its own; gemma.c takes the other */
    if (full != NULL && !peft__json_is(peft__json_get(config, "model_type"), "gemma3_text")) {
        FAIL(PEFT_E_UNSUPPORTED, "%s: key \"rope_parameters\" differs between kinds of layers, which only gemma3_text models may", what);
    }
    if (full != NULL) { s = full; }
    TRY(peft__json_float(config, what, "rope_theta", theta, &c->rope_theta));
    c->rope_scaling = PEFT__ROPE_NONE;
    c->rope_factor = s != NULL ? 0 : 1;
    if (s != NULL) { TRY(rope_read_scaling(config, s, what, a, c)); }
    if (!(c->rope_theta > 0)) { FAIL(PEFT_E_FORMAT, "%s: key \"rope_theta\" is not above 0", what); }
    rope_stretch(c);
    if (peft__config_rotary(c) % 2 != 0) {
        FAIL(PEFT_E_FORMAT, "%s: %lld columns of a head cannot be rotated in halves", what, (long long)peft__config_rotary(c));
    }
out:
    return st;
}

static void rope_put(peft__json_out *j, const char *key, double v) {
    if (!(v > 0)) { return; }
    peft__json_key(j, key);
    peft__json_put_float(j, v);
}

static void rope_put_list(peft__json_out *j, const char *key, const double *v, int64_t n) {
    peft__json_key(j, key);
    peft__json_array(j);
    for (int64_t i = 0; i < n; i++) { peft__json_put_float(j, v[i]); }
    peft__json_array_end(j);
}

void peft__config_write_rope(const peft__config *c, peft__json_out *j) {
    peft__json_key(j, "rope_theta");
    peft__json_put_float(j, c->rope_theta);
    peft__json_key(j, "rope_scaling");
    if (c->rope_scaling == PEFT__ROPE_NONE) {
        peft__json_put_null(j);
        return;
    }
    bool longrope = c->rope_scaling == PEFT__ROPE_LONGROPE;
    peft__json_object(j);
    peft__json_key(j, longrope ? "type" : "rope_type"); /* Phi-3's config takes the first only */
    peft__json_put_text(j, rope_names[c->rope_scaling]);
    rope_put(j, "factor", c->rope_factor);
    if (c->rope_scaling == PEFT__ROPE_LLAMA3) {
        rope_put(j, "low_freq_factor", c->rope_low_freq);
        rope_put(j, "high_freq_factor", c->rope_high_freq);
    }
    if (c->rope_scaling == PEFT__ROPE_YARN) {
        rope_put(j, "beta_fast", c->rope_beta_fast);
        rope_put(j, "beta_slow", c->rope_beta_slow);
        rope_put(j, "mscale", c->rope_mscale);
        rope_put(j, "mscale_all_dim", c->rope_mscale_all);
        peft__json_key(j, "truncate");
        peft__json_put_bool(j, c->rope_truncate);
    }
    rope_put(j, "attention_factor", c->rope_attention);
    if (longrope) {
        rope_put_list(j, "short_factor", c->rope_short, peft__config_rotary(c) / 2);
        rope_put_list(j, "long_factor", c->rope_long, peft__config_rotary(c) / 2);
    } else if (c->rope_original_positions > 0) {
        peft__json_key(j, "original_max_position_embeddings");
        peft__json_put_int(j, c->rope_original_positions);
    }
    peft__json_object_end(j);
    if (longrope && c->rope_original_positions > 0) {
        peft__json_key(j, "original_max_position_embeddings");
        peft__json_put_int(j, c->rope_original_positions);
    }
}

/* ---- GGUF -------------------------------------------------------------------------------------------------------------------- */

peft_status peft__config_rope_vector(const peft__gguf *g, const char *name, int64_t half, peft__arena *a, const double **out) {
    const peft__io_tensor *t = peft__gguf_find(g, name);
    if (t == NULL || t->dtype != PEFT_DTYPE_F32 || t->ndim != 1 || t->dims[0] != half) {
        return peft__fail(PEFT_E_SHAPE, "tensor \"%s\" is no F32 vector of %lld elements", name, (long long)half);
    }
    double *v = peft__arena_alloc(a, (size_t)half * sizeof *v);
    if (v == NULL) { return PEFT_E_NOMEM; }
    for (int64_t i = 0; i < half; i++) {
        uint32_t bits = peft__get_u32(t->data + 4 * i);
        float f;
        memcpy(&f, &bits, sizeof f);
        if (!(f > 0) || !isfinite(f)) { return peft__fail(PEFT_E_FORMAT, "tensor \"%s\" has an element not above 0", name); }
        v[i] = (double)f;
    }
    *out = v;
    return PEFT_OK;
}

peft_status peft__config_rope_gguf(const peft__gguf *g, const char *arch, peft__arena *a, peft__config *c) {
    peft_status st = PEFT_OK;
    int64_t rotary = 0;
    double linear = 1;
    const char *type = NULL;
    char key[PEFT__GGUF_KEY];
    TRY(peft__gguf_int(g, peft__gguf_key(key, arch, "rope.dimension_count"), c->head_dim, 1, PEFT__MODEL_MAX_WIDTH, &rotary));
    if (rotary > c->head_dim || rotary % 2 != 0) {
        FAIL(PEFT_E_FORMAT, "key \"%s\" is %lld, expected an even number of at most the head's %lld", key, (long long)rotary,
             (long long)c->head_dim);
    }
    c->rotary_dim = rotary;
    TRY(peft__config_float_gguf(g, peft__gguf_key(key, arch, "rope.freq_base"), 10000, &c->rope_theta));
    TRY(peft__config_float_gguf(g, peft__gguf_key(key, arch, "rope.scale_linear"), 1, &linear));
    TRY(peft__config_float_gguf(g, peft__gguf_key(key, arch, "rope.scaling.factor"), linear, &c->rope_factor));
    TRY(peft__gguf_text(g, peft__gguf_key(key, arch, "rope.scaling.type"), a, linear > 1 ? "linear" : "none", &type));
    c->rope_scaling = PEFT__ROPE_NONE;
    if (strcmp(type, "linear") == 0) {
        c->rope_scaling = PEFT__ROPE_LINEAR;
    } else if (strcmp(type, "yarn") == 0) {
        c->rope_scaling = PEFT__ROPE_YARN;
        c->rope_beta_fast = 32;
        c->rope_beta_slow = 1;
        c->rope_truncate = true;
        TRY(peft__gguf_int(g, peft__gguf_key(key, arch, "rope.scaling.original_context_length"), 0, 1, PEFT__MODEL_MAX_POSITIONS,
                           &c->rope_original_positions));
    } else if (strcmp(type, "longrope") != 0 && strcmp(type, "none") != 0) { /* longrope's factors are tensors */
        FAIL(PEFT_E_UNSUPPORTED, "key \"%s\" is \"%s\", expected none, linear, yarn or longrope", key, type);
    }
    if (!(c->rope_theta > 0) || !(c->rope_factor > 0)) {
        FAIL(PEFT_E_FORMAT, "rope base and factor must be above 0");
    }
out:
    return st;
}

/* A yarn that is all that its factor and original context say: llama.cpp takes the rest from its own defaults. */
static bool rope_yarn_is_plain(const peft__config *c) {
    bool betas = !(c->rope_beta_fast < 32) && !(c->rope_beta_fast > 32) && !(c->rope_beta_slow < 1) && !(c->rope_beta_slow > 1);
    return betas && !(c->rope_attention > 0) && !(c->rope_mscale > 0 && c->rope_mscale_all > 0) && c->rope_truncate;
}

peft_status peft__config_write_rope_gguf(const peft__config *c, const char *arch, peft__gguf_out *w) {
    char key[PEFT__GGUF_KEY];
    if (c->rope_scaling == PEFT__ROPE_DYNAMIC || c->rope_scaling == PEFT__ROPE_LONGROPE ||
        (c->rope_scaling == PEFT__ROPE_YARN && !rope_yarn_is_plain(c))) {
        return peft__fail(PEFT_E_UNSUPPORTED, "GGUF cannot hold the rope scaling \"%s\" of this %s model", rope_names[c->rope_scaling],
                          arch);
    }
    const char *type = c->rope_scaling == PEFT__ROPE_LINEAR ? "linear" : c->rope_scaling == PEFT__ROPE_YARN ? "yarn" : NULL;
    peft__gguf_put_u32(w, peft__gguf_key(key, arch, "rope.dimension_count"), (uint32_t)peft__config_rotary(c));
    peft__gguf_put_f32(w, peft__gguf_key(key, arch, "rope.freq_base"), (float)c->rope_theta);
    if (type == NULL) { return PEFT_OK; }
    peft__gguf_put_text(w, peft__gguf_key(key, arch, "rope.scaling.type"), type, strlen(type));
    peft__gguf_put_f32(w, peft__gguf_key(key, arch, "rope.scaling.factor"), (float)c->rope_factor);
    if (c->rope_scaling == PEFT__ROPE_YARN) {
        peft__gguf_put_u32(w, peft__gguf_key(key, arch, "rope.scaling.original_context_length"), (uint32_t)peft__rope_original(c));
    }
    return PEFT_OK;
}
