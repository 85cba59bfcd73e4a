/* write_gguf.c - a model as one GGUF file (version 3) that llama.cpp loads.
 *
 * llama.cpp multiplies no logits: where the model does so to those of a tied head (T5), output.weight is the embedding times that
 * factor, and "peft.tied_head" says so.
 *
 * From a GGUF its metadata are copied as they are, general.file_type apart, and the keys of its tokenizer only when the
 * caller gave none. From a Hugging Face folder they are written by the architecture. rope_freqs.weight is copied, or made
 * from a llama3 scaling, which GGUF has no key for.
 *
 * Left out: K-quants as a target, the importance matrices that llama-quantize can use. */
#include "model/parts.h"

/* general.file_type (llama_ftype in llama.h): what most elements of the matrices are. */
static uint32_t save_gguf_file_type(const peft__write_job *job) {
    static const struct {
        int32_t dtype;
        uint32_t type;
    } types[] = {{PEFT_DTYPE_F32, 0},   {PEFT_DTYPE_F16, 1},   {PEFT_DTYPE_Q4_0, 2},  {PEFT_DTYPE_Q4_1, 3},
                 {PEFT_DTYPE_Q8_0, 7},  {PEFT_DTYPE_Q5_0, 8},  {PEFT_DTYPE_Q5_1, 9},  {PEFT_DTYPE_Q4_K, 15},
                 {PEFT_DTYPE_Q5_K, 17}, {PEFT_DTYPE_Q6_K, 18}, {PEFT_DTYPE_BF16, 32}};
    int64_t most = -1;
    uint32_t best = 0;
    for (size_t k = 0; k < PEFT__COUNT(types); k++) {
        int64_t n = 0;
        for (size_t i = 0; i < job->count; i++) {
            const peft__io_source *s = &job->sources[i];
            if (s->ndim == 2 && s->dtype == types[k].dtype) { n += s->dims[0] * s->dims[1]; }
        }
        if (n > most) {
            most = n;
            best = types[k].type;
        }
    }
    return best;
}

static bool save_gguf_is_quantised(const peft__write_job *job) {
    for (size_t i = 0; i < job->count; i++) {
        if (peft__dtype_elems(job->sources[i].dtype) > 1) { return true; }
    }
    return false;
}

static void save_gguf_copy_meta(const struct peft_model *m, bool tokenizer, peft__gguf_out *w) {
    for (size_t i = 0; i < m->gguf->kv_count; i++) {
        const peft__gguf_kv *kv = &m->gguf->kvs[i];
        bool text = strncmp(kv->key, "tokenizer.", 10) == 0;
        if ((text && !tokenizer) || strcmp(kv->key, "general.file_type") == 0 || strcmp(kv->key, PEFT__GGUF_TIED) == 0 ||
            strcmp(kv->key, "general.quantization_version") == 0) { continue; }
        peft__gguf_put_kv(w, kv);
    }
}

/* The last part of a path, without the slashes at its end. */
static void save_gguf_put_name(const char *path, peft__gguf_out *w) {
    size_t end = strlen(path);
    while (end > 0 && path[end - 1] == '/') { end--; }
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') { begin--; }
    if (begin == end) {
        peft__gguf_put_text(w, "general.name", "model", 5);
    } else {
        peft__gguf_put_text(w, "general.name", path + begin, end - begin);
    }
}

/* What a decoder beside an encoder begins and ends with is the tokenizer's to say; without one, the model's. */
static void save_gguf_put_ids(const peft__config *c, peft__gguf_out *w) {
    if (c->encoder_layers == 0) { return; }
    peft__gguf_put_u32(w, "tokenizer.ggml.eos_token_id", c->eos_id >= 0 ? (uint32_t)c->eos_id : UINT32_MAX);
    peft__gguf_put_u32(w, "tokenizer.ggml.padding_token_id", (uint32_t)c->pad_id);
}

static peft_status save_gguf_put_meta(const peft__write_job *job, bool tokenizer, peft__gguf_out *w) {
    const struct peft_model *m = job->m;
    if (m->gguf != NULL) {
        save_gguf_copy_meta(m, tokenizer, w);
    } else {
        const char *name = peft__arch_gguf_name(m->arch, &m->config);
        peft__gguf_put_text(w, "general.architecture", name, strlen(name));
        peft__gguf_put_text(w, "general.type", "model", 5);
        save_gguf_put_name(m->path, w);
        peft_status st = m->arch->write_gguf(m, w);
        if (st != PEFT_OK) { return st; }
        if (tokenizer) {
            peft__gguf_put_text(w, "tokenizer.ggml.model", "none", 4);
            save_gguf_put_ids(&m->config, w);
        }
    }
    if (peft__write_derives_head(job)) { peft__gguf_put_bool(w, PEFT__GGUF_TIED, true); }
    peft__gguf_put_u32(w, "general.file_type", save_gguf_file_type(job));
    if (save_gguf_is_quantised(job)) { peft__gguf_put_u32(w, "general.quantization_version", 2); }
    return PEFT_OK;
}

/* Adds a vector of `half` floats beside the model's tensors; value(c, i) is element i. */
static peft_status save_gguf_add_vector(peft__write_job *job, const char *name, int64_t half,
                                        double (*value)(const peft__config *c, int64_t i)) {
    uint8_t *bytes = peft__arena_alloc(&job->arena, (size_t)half * sizeof(float));
    if (bytes == NULL) { return PEFT_E_NOMEM; }
    for (int64_t i = 0; i < half; i++) {
        float v = (float)value(&job->m->config, i);
        uint32_t bits;
        memcpy(&bits, &v, sizeof bits);
        peft__set_u32(bytes + 4 * i, bits);
    }
    peft__io_source *s = &job->sources[job->count++];
    *s = (peft__io_source){.name = name, .dtype = PEFT_DTYPE_F32, .ndim = 1, .dims = {half}, .data = bytes};
    return PEFT_OK;
}

static double save_gguf_freq(const peft__config *c, int64_t i) {
    return c->rope_factors != NULL ? c->rope_factors[i] : peft__rope_factor(c, c->head_dim, i);
}
static double save_gguf_long(const peft__config *c, int64_t i) { return c->rope_long[i]; }
static double save_gguf_short(const peft__config *c, int64_t i) { return c->rope_short[i]; }

/* Rotary scalings that files have as tensors. */
static peft_status save_gguf_add_rope(peft__write_job *job) {
    peft_status st = PEFT_OK;
    const struct peft_model *m = job->m;
    const peft__config *c = &m->config;
    if (c->rope_scaling == PEFT__ROPE_LONGROPE) {
        TRY(save_gguf_add_vector(job, "rope_factors_long.weight", peft__config_rotary(c) / 2, save_gguf_long));
        TRY(save_gguf_add_vector(job, "rope_factors_short.weight", peft__config_rotary(c) / 2, save_gguf_short));
    } else if (c->rope_scaling == PEFT__ROPE_LLAMA3 || (m->gguf != NULL && peft__gguf_find(m->gguf, "rope_freqs.weight") != NULL)) {
        TRY(save_gguf_add_vector(job, "rope_freqs.weight", c->head_dim / 2, save_gguf_freq));
    }
out:
    return st;
}

peft_status peft__model_write_gguf(const struct peft_model *m, const peft__model_change *change, int32_t dtype,
                                   peft__gguf_out *meta, const char *path) {
    peft_status st = PEFT_OK;
    peft__write_job job;
    peft__gguf_out own, *w = meta != NULL ? meta : &own;
    peft__gguf_out_init(&own, m->arena.mem);
    TRY(peft__write_begin(&job, m, change, dtype, true));
    if (peft__arch_gguf_name(m->arch, &m->config) == NULL) { FAIL(PEFT_E_UNSUPPORTED, "GGUF has no %s models", m->model_type); }
    if (m->head != NULL && m->head->out != NULL) {
        FAIL(PEFT_E_UNSUPPORTED, "a GGUF file cannot hold the head for %s", peft__task_name(m->config.task.kind));
    }
    if (m->arch->gguf_act >= 0 && m->config.act != m->arch->gguf_act) {
        FAIL(PEFT_E_UNSUPPORTED, "GGUF cannot say that a %s model's activation is %s", m->arch->name,
             peft__config_act_name(m->config.act));
    }
    TRY(save_gguf_add_rope(&job));
    TRY(save_gguf_put_meta(&job, meta == NULL, w));
    TRY(peft__gguf_write(w, job.mem, path, job.sources, job.count));
out:
    peft__write_end(&job);
    peft__gguf_out_free(&own);
    return st;
}
