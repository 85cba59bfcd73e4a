/* peft_fake.h - two small bases made of sites alone, for tests of peft/: a Llama with 2 layers (width 8, kv width 4, FFN 12,
 * vocabulary 10, a head of its own) and a GPT-2 with 2 layers (width 8, Conv1D weights, biases, a tied head). Weights are
 * F32 in memory with values that tell where they came from. No model code is involved. */
#ifndef PEFT_FAKE_H
#define PEFT_FAKE_H

#include <stdio.h>

#include "peft/method.h"
#include "runner.h"

enum { FAKE_SITES = 40 };

typedef struct fake_base {
    peft__mem *mem;
    peft__arena arena;
    peft__site sites[FAKE_SITES];
    peft__base_info info;
    int owners; /* references that a set holds on it */
} fake_base;

/* Element e of a weight: a multiple of 1/256, so that F16 and BF16 can be told from F32 only where they should. */
static inline float fake_value(int32_t site, int64_t e) { return (float)((site * 37 + e * 5) % 256 - 128) / 256.0f; }

static inline peft__weight *fake_weight(fake_base *b, int32_t site, const char *name, int64_t rows, int64_t cols,
                                        bool transposed) {
    peft__weight *w = peft__arena_alloc(&b->arena, sizeof *w);
    float *data = peft__arena_alloc(&b->arena, (size_t)(rows * cols) * sizeof *data);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < cols; c++) { data[transposed ? c * rows + r : r * cols + c] = fake_value(site, r * cols + c); }
    }
    w->name = name;
    w->data = (const uint8_t *)data;
    w->dtype = PEFT_DTYPE_F32;
    w->rows = rows;
    w->cols = cols;
    w->transposed = transposed;
    w->row_bytes = (transposed ? rows : cols) * 4;
    return w;
}

static inline const peft__real *fake_reals(fake_base *b, const peft__weight *w) {
    peft__real *out = peft__arena_alloc(&b->arena, (size_t)w->cols * sizeof *out);
    for (int64_t i = 0; i < w->cols; i++) {
        float v;
        memcpy(&v, w->data + 4 * i, sizeof v);
        out[i] = PEFT__R(v);
    }
    return out;
}

static inline peft__site *fake_site(fake_base *b, int32_t kind, int32_t role, int32_t layer, const char *path, int64_t in,
                                    int64_t out, bool bias, bool conv1d) {
    int32_t id = (int32_t)b->info.n_sites++;
    peft__site *s = &b->sites[id];
    *s = (peft__site){.id = id, .kind = kind, .role = role, .layer = layer, .in = in, .out = out, .conv1d = conv1d, .tied_to = -1,
                      .eps = 1e-5};
    s->path = peft__arena_strdup(&b->arena, path, strlen(path));
    char *weight = peft__arena_printf(&b->arena, "%s.weight", path), *shift = peft__arena_printf(&b->arena, "%s.bias", path);
    if (kind == PEFT__SITE_NORM) {
        s->weight = fake_weight(b, id, weight, 1, out, false);
        s->norm_gain = fake_reals(b, s->weight);
        s->rms = !bias;
    } else if (kind == PEFT__SITE_EMBED) {
        s->weight = fake_weight(b, id, weight, in, out, false);
    } else if (kind == PEFT__SITE_LINEAR || kind == PEFT__SITE_HEAD) {
        s->weight = fake_weight(b, id, weight, out, in, conv1d);
    }
    if (bias) {
        s->bias = fake_weight(b, id + 100, shift, 1, out, false);
        s->bias_data = fake_reals(b, s->bias);
    }
    return s;
}

static inline void fake_start(fake_base *b, const char *type) {
    memset(b, 0, sizeof *b);
    b->mem = runner_mem();
    peft__arena_init(&b->arena, b->mem);
    b->info.sites = b->sites;
    b->info.architecture = b->info.model_type = type;
    b->info.path = "models/tiny";
    b->info.config_json = "{}";
}

static inline void fake_llama(fake_base *b) {
    static const char *const attn[] = {"q_proj", "k_proj", "v_proj", "o_proj"};
    static const int32_t roles[] = {PEFT__ROLE_Q, PEFT__ROLE_K, PEFT__ROLE_V, PEFT__ROLE_O};
    fake_start(b, "llama");
    fake_site(b, PEFT__SITE_EMBED, PEFT__ROLE_TOKENS, -1, "model.embed_tokens", 10, 8, false, false);
    for (int32_t l = 0; l < 2; l++) {
        char path[96];
        (void)snprintf(path, sizeof path, "model.layers.%d.input_layernorm", l);
        fake_site(b, PEFT__SITE_NORM, PEFT__ROLE_NONE, l, path, 8, 8, false, false);
        for (int i = 0; i < 4; i++) {
            (void)snprintf(path, sizeof path, "model.layers.%d.self_attn.%s", l, attn[i]);
            fake_site(b, PEFT__SITE_LINEAR, roles[i], l, path, 8, i == 1 || i == 2 ? 4 : 8, false, false);
        }
        (void)snprintf(path, sizeof path, "model.layers.%d.self_attn", l);
        fake_site(b, PEFT__SITE_KV, PEFT__ROLE_ATTN, l, path, 4, 4, false, false);
        (void)snprintf(path, sizeof path, "model.layers.%d.post_attention_layernorm", l);
        fake_site(b, PEFT__SITE_NORM, PEFT__ROLE_NONE, l, path, 8, 8, false, false);
        (void)snprintf(path, sizeof path, "model.layers.%d.mlp.gate_proj", l);
        fake_site(b, PEFT__SITE_LINEAR, PEFT__ROLE_GATE, l, path, 8, 12, false, false);
        (void)snprintf(path, sizeof path, "model.layers.%d.mlp.up_proj", l);
        fake_site(b, PEFT__SITE_LINEAR, PEFT__ROLE_UP, l, path, 8, 12, false, false);
        (void)snprintf(path, sizeof path, "model.layers.%d.mlp.down_proj", l);
        fake_site(b, PEFT__SITE_LINEAR, PEFT__ROLE_DOWN, l, path, 12, 8, false, false);
    }
    fake_site(b, PEFT__SITE_NORM, PEFT__ROLE_FINAL, -1, "model.norm", 8, 8, false, false);
    fake_site(b, PEFT__SITE_HEAD, PEFT__ROLE_NONE, -1, "lm_head", 8, 10, false, false);
}

static inline void fake_gpt2(fake_base *b) {
    fake_start(b, "gpt2");
    fake_site(b, PEFT__SITE_EMBED, PEFT__ROLE_TOKENS, -1, "transformer.wte", 10, 8, false, false);
    fake_site(b, PEFT__SITE_EMBED, PEFT__ROLE_POSITIONS, -1, "transformer.wpe", 6, 8, false, false);
    for (int32_t l = 0; l < 2; l++) {
        char path[96];
        (void)snprintf(path, sizeof path, "transformer.h.%d.ln_1", l);
        fake_site(b, PEFT__SITE_NORM, PEFT__ROLE_NONE, l, path, 8, 8, true, false);
        (void)snprintf(path, sizeof path, "transformer.h.%d.attn.c_attn", l);
        fake_site(b, PEFT__SITE_LINEAR, PEFT__ROLE_QKV, l, path, 8, 24, true, true);
        (void)snprintf(path, sizeof path, "transformer.h.%d.attn.c_proj", l);
        fake_site(b, PEFT__SITE_LINEAR, PEFT__ROLE_O, l, path, 8, 8, true, true);
        (void)snprintf(path, sizeof path, "transformer.h.%d.mlp.c_proj", l);
        fake_site(b, PEFT__SITE_LINEAR, PEFT__ROLE_DOWN, l, path, 32, 8, true, true);
    }
    fake_site(b, PEFT__SITE_NORM, PEFT__ROLE_FINAL, -1, "transformer.ln_f", 8, 8, true, false);
    peft__site *head = fake_site(b, PEFT__SITE_HEAD, PEFT__ROLE_NONE, -1, "lm_head", 8, 10, false, false);
    head->tied_to = 0;
    head->weight = b->sites[0].weight;
}

static inline void fake_end(fake_base *b) { peft__arena_free(&b->arena); }

static inline int32_t fake_find(const fake_base *b, const char *path) {
    for (size_t i = 0; i < b->info.n_sites; i++) {
        if (strcmp(b->sites[i].path, path) == 0) { return (int32_t)i; }
    }
    return -1;
}

/* An adapter from "key=value" texts, ended by NULL; NULL on failure with *st set. */
static inline peft__adapter *fake_adapter(fake_base *b, const char *method, const char *const *settings, uint64_t seed,
                                          peft_status *st) {
    const peft__method *m = peft__method_find(method);
    peft__optset opts;
    peft__adapter *a = NULL;
    *st = peft__optset_init(&opts, b->mem, m->schema);
    if (*st != PEFT_OK) { return NULL; }
    for (size_t i = 0; settings != NULL && settings[i] != NULL && *st == PEFT_OK; i++) {
        char key[64];
        size_t n = strcspn(settings[i], "=");
        memcpy(key, settings[i], n);
        key[n] = '\0';
        *st = peft__opt_set_text(&opts, key, settings[i] + n + 1);
    }
    if (*st == PEFT_OK) { *st = peft__adapter_create(b->mem, &peft__kernels_generic, &b->info, "a", m, &opts, seed, &a); }
    peft__optset_free(&opts);
    return a;
}

/* Settings as an argument: FAKE("r=4", "bias=all"). */
#define FAKE(...) ((const char *const[]){__VA_ARGS__, NULL})

#endif
