/* api_kit.h - what tests of the public API share: a counting allocator that can fail, tiny models, a tokenizer, batches. */
#ifndef API_KIT_H
#define API_KIT_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "runner.h"
#include "base/system.h"
#include "text_build.h"

typedef struct api_host { /* behind a context's allocator */
    size_t now;           /* bytes outstanding */
    size_t calls;         /* allocations so far */
    size_t fail_at;       /* this one fails (from 1); 0: none */
} api_host;

static inline void *api_host_alloc(void *user, size_t size, size_t align) {
    api_host *h = user;
    void *p = NULL;
    if (++h->calls == h->fail_at || (p = peft__sys_alloc(size, align, false)) == NULL) { return NULL; }
    h->now += size;
    memset(p, 0xff, size); /* NaN: what is read before it is written shows */
    return p;
}

static inline void api_host_release(void *user, void *p, size_t size) {
    ((api_host *)user)->now -= size;
    peft__sys_free(p);
}

static inline peft_status api_context(api_host *h, peft_context **out) {
    peft_allocator a = {api_host_alloc, api_host_release, h};
    return peft_context_create(&a, out);
}

/* 14 tokens, as TEXT_BYTES has them. */
#define API_LLAMA_TIED(tied)                                                                                \
    "{\"model_type\":\"llama\",\"hidden_size\":16,\"intermediate_size\":24,\"num_hidden_layers\":2,"        \
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"vocab_size\":14,\"max_position_embeddings\":48," \
    "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"bos_token_id\":null,\"eos_token_id\":12,\"tie_word_"   \
    "embeddings\":" tied "}"
#define API_LLAMA API_LLAMA_TIED("false")
#define API_GPT2                                                                                              \
    "{\"model_type\":\"gpt2\",\"n_embd\":16,\"n_layer\":2,\"n_head\":2,\"n_positions\":48,\"vocab_size\":14," \
    "\"layer_norm_epsilon\":1e-5,\"activation_function\":\"gelu_new\",\"bos_token_id\":12,\"eos_token_id\":12}"
#define API_BERT                                                                                               \
    "{\"model_type\":\"bert\",\"architectures\":[\"BertForSequenceClassification\"],\"hidden_size\":16,"       \
    "\"num_hidden_layers\":2,\"num_attention_heads\":2,\"intermediate_size\":24,\"vocab_size\":14,"            \
    "\"max_position_embeddings\":48,\"type_vocab_size\":2,\"hidden_act\":\"gelu\",\"layer_norm_eps\":1e-12,"  \
    "\"pad_token_id\":0,\"id2label\":{\"0\":\"a\",\"1\":\"b\",\"2\":\"c\"}}"
enum { API_VOCAB = 14, API_HIDDEN = 16, API_END = 12 };

static inline peft_status api_model(peft_context *ctx, const char *config, peft_model **out) {
    return peft_model_create_random(ctx, config, strlen(config), 3, out);
}

/* Options from a JSON object with ' for ". */
static inline peft_status api_options(peft_context *ctx, const char *schema, const char *json, peft_options **out) {
    char text[1024];
    peft_status st = peft_options_create(ctx, schema, out);
    (void)snprintf(text, sizeof text, "%s", json);
    for (char *c = text; *c != '\0'; c++) {
        if (*c == '\'') { *c = '"'; }
    }
    if (st == PEFT_OK) { st = peft_options_set_json(*out, text, strlen(text)); }
    if (st != PEFT_OK) {
        peft_options_free(*out);
        *out = NULL;
    }
    return st;
}

/* A batch of rows of ids; lens[rows]. */
static inline peft_status api_batch(peft_context *ctx, const int32_t *ids, const int64_t *lens, size_t rows,
                                    peft_batch **out) {
    int64_t offsets[64] = {0};
    for (size_t r = 0; r < rows; r++) { offsets[r + 1] = offsets[r] + lens[r]; }
    peft_status st = peft_batch_create(ctx, out);
    return st != PEFT_OK ? st : peft_batch_set_i32(*out, "input_ids", ids, offsets, rows);
}

/* Writes noise to every tensor of an adapter, so that it changes something. */
static inline peft_status api_shake(peft_adapters *a, const char *name, float size) {
    peft_status st = PEFT_OK;
    enum { ROOM = 1 << 16 };
    float *values = malloc(ROOM * sizeof *values); /* not static: tests shake in several threads at once */
    uint32_t state = 12345;
    if (values == NULL) { return PEFT_E_NOMEM; }
    for (size_t i = 0; i < peft_adapters_tensor_count(a, name); i++) {
        const char *tensor = NULL;
        size_t n = 0;
        TRY(peft_adapters_tensor_info(a, name, i, &tensor, NULL, NULL));
        TRY(peft_adapters_tensor_read(a, name, tensor, values, ROOM, &n));
        for (size_t k = 0; k < n; k++) {
            state = state * 1664525U + 1013904223U;
            values[k] += size * ((float)(state >> 8) / 8388608.0F - 1);
        }
        TRY(peft_adapters_tensor_write(a, name, tensor, values, n));
    }
out:
    free(values);
    return st;
}

/* Adds an adapter of a method with options (NULL: none) and shakes it; size 0: as it is. */
static inline peft_status api_adapter(peft_context *ctx, peft_adapters *a, const char *name, const char *const method[2], uint64_t seed,
                                      float size) {
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    char schema[64];
    (void)snprintf(schema, sizeof schema, "method:%s", method[0]);
    if (method[1] != NULL) { TRY(api_options(ctx, schema, method[1], &o)); }
    TRY(peft_adapters_add(a, name, method[0], o, seed));
    if (size > 0) { TRY(api_shake(a, name, size)); }
out:
    peft_options_free(o);
    return st;
}

static inline peft_status api_fill(peft_adapters *a, const char *name, const char *tensor, size_t n,
                                   const float *values) {
    static const float zeros[4096];
    return peft_adapters_tensor_write(a, name, tensor, values != NULL ? values : zeros, n);
}

/* Adds a "full" adapter that makes API_LLAMA say next[t] after token t: embeddings are unit vectors, the layers add nothing,
 * the head is a table. */
static inline peft_status api_add_table(peft_adapters *a, const char *name, const int32_t next[API_VOCAB]) {
    static const char *const silent[] = {"model.layers.0.self_attn.o_proj.weight",
                                         "model.layers.1.self_attn.o_proj.weight",
                                         "model.layers.0.mlp.down_proj.weight", "model.layers.1.mlp.down_proj.weight"};
    float embed[API_VOCAB * API_HIDDEN] = {0}, head[API_VOCAB * API_HIDDEN] = {0};
    peft_status st = peft_adapters_add(a, name, "full", NULL, 0);
    for (int32_t t = 0; t < API_VOCAB; t++) {
        embed[t * API_HIDDEN + t] = 1;
        head[next[t] * API_HIDDEN + t] = 10;
    }
    if (st != PEFT_OK) { return st; }
    TRY(api_fill(a, name, "model.embed_tokens.weight", PEFT__COUNT(embed), embed));
    TRY(api_fill(a, name, "lm_head.weight", PEFT__COUNT(head), head));
    for (size_t i = 0; i < 2; i++) { TRY(api_fill(a, name, silent[i], API_HIDDEN * API_HIDDEN, NULL)); }
    for (size_t i = 2; i < 4; i++) { TRY(api_fill(a, name, silent[i], API_HIDDEN * 24, NULL)); }
out:
    return st;
}

/* The tokenizer of TEXT_BYTES in a folder of its own. */
static inline peft_status api_tokenizer(peft_context *ctx, const char *json, peft_tokenizer **out) {
    peft__mem *mem = runner_mem();
    const char *dir = runner_tmpdir();
    peft_status st = text_write(mem, dir, "tokenizer.json", json);
    if (st == PEFT_OK) {
        st = text_write(mem, dir, "tokenizer_config.json", "{\"eos_token\":\"<|end|>\",\"bos_token\":null}");
    }
    return st != PEFT_OK ? st : peft_tokenizer_open(ctx, dir, out);
}

/* Largest difference of n floats. */
static inline double api_distance(const float *a, const float *b, size_t n) {
    double most = 0;
    for (size_t i = 0; i < n; i++) { most = fmax(most, fabs((double)a[i] - (double)b[i])); }
    return most;
}

#endif
