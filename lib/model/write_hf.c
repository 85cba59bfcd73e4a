/* write_hf.c - a model as a Hugging Face folder: config.json, model.safetensors and, from a folder, the files beside them.
 *
 * Names are those of the full model ("model.", "transformer."). config.json is the base's own text, unless the head was
 * untied, tokens were added or another type was asked for: then those keys are set. Weights are written first, so that a folder with a new
 * config never has old weights.
 *
 * Left out: scalings of rotary positions that are known only as a tensor, shards (files of any size are read by
 * safetensors), tokenizers of GGUF bases (the caller's). */
#include "model/parts.h"

static const char *save_hf_dtype_name(int32_t dtype) {
    return dtype == PEFT_DTYPE_F16 ? "float16" : dtype == PEFT_DTYPE_BF16 ? "bfloat16" : "float32";
}

static bool save_hf_is_about_labels(const peft__json *key) {
    static const char *const keys[] = {"architectures", "id2label", "label2id", "num_labels", "problem_type"};
    for (size_t i = 0; i < PEFT__COUNT(keys); i++) {
        if (peft__json_is(key, keys[i])) { return true; }
    }
    return false;
}

/* The base's config with tie_word_embeddings, vocab_size, the type and the head as written. */
static peft_status save_hf_config_text(const struct peft_model *m, bool tied, int64_t vocab, int32_t dtype, peft__str *out) {
    peft_status st = PEFT_OK;
    peft__arena a;
    peft__json_out j;
    const peft__json *c = NULL;
    peft__arena_init(&a, m->arena.mem);
    TRY(peft__json_parse(&a, m->config_json, m->config_json_len, "config.json", &c));
    const char *key = peft__json_find(c, "dtype") != NULL ? "dtype" : "torch_dtype";
    peft__json_begin(&j, out, 2);
    peft__json_object(&j);
    for (size_t i = 0; i < c->len; i++) {
        if (peft__json_is(&c->keys[i], "tie_word_embeddings") || (dtype >= 0 && peft__json_is(&c->keys[i], key))) {
            continue;
        }
        if (m->head != NULL && save_hf_is_about_labels(&c->keys[i])) { continue; }
        peft__json_key(&j, c->keys[i].str);
        if (peft__json_is(&c->keys[i], "vocab_size")) {
            peft__json_put_int(&j, vocab);
            continue;
        }
        peft__json_put_node(&j, &c->items[i]);
    }
    peft__json_key(&j, "tie_word_embeddings");
    peft__json_put_bool(&j, tied);
    if (dtype >= 0) {
        peft__json_key(&j, key);
        peft__json_put_text(&j, save_hf_dtype_name(dtype));
    }
    if (m->head != NULL) {
        peft__json_key(&j, "architectures");
        peft__json_array(&j);
        peft__json_put_text(&j, peft__heads_class(m, &a));
        peft__json_array_end(&j);
        peft__heads_write_config(m, &j);
    }
    peft__json_object_end(&j);
    peft__str_putc(out, '\n');
    st = peft__str_status(out);
out:
    peft__arena_free(&a);
    return st;
}

/* What the weights of this file are, for a config made from a GGUF, which has no such key. */
static int32_t save_hf_written_dtype(const peft__write_job *job) {
    return job->dtype >= 0 ? job->dtype : job->m->gguf != NULL ? job->items[0].dtype : -1;
}

static peft_status save_hf_write_config(const peft__write_job *job, bool tied, const char *path) {
    const struct peft_model *m = job->m;
    peft_status st = PEFT_OK;
    peft__str text;
    int32_t dtype = save_hf_written_dtype(job);
    int64_t more = job->change != NULL ? job->change->new_tokens : 0;
    peft__str_init(&text, m->arena.mem);
    if (tied && dtype < 0 && more == 0 && m->head == NULL) { /* nothing to say anew */
        TRY(peft__save_text(m->arena.mem, path, m->config_json, m->config_json_len));
    } else {
        TRY(save_hf_config_text(m, tied, m->config.vocab_size + more, dtype, &text));
        TRY(peft__save_text(m->arena.mem, path, peft__str_c(&text), text.len));
    }
out:
    peft__str_free(&text);
    return st;
}

/* Files that belong to a model and do not depend on its weights. */
static peft_status save_hf_copy_companions(peft__arena *a, const char *from, const char *to) {
    static const char *const names[] = {"tokenizer.json",          "tokenizer_config.json", "special_tokens_map.json",
                                        "added_tokens.json",       "vocab.json",            "merges.txt",
                                        "tokenizer.model",         "spiece.model",          "spm.model",
                                        "vocab.txt",               "chat_template.jinja",   "chat_template.json",
                                        "generation_config.json"};
    peft_status st = PEFT_OK;
    peft__file file;
    memset(&file, 0, sizeof file);
    for (size_t i = 0; i < PEFT__COUNT(names); i++) {
        char *source = NULL, *target = NULL;
        TRY(peft__path_join(a, from, names[i], &source));
        TRY(peft__path_join(a, to, names[i], &target));
        if (!peft__path_exists(source)) { continue; }
        TRY(peft__file_open(a->mem, source, true, &file));
        TRY(peft__save_text(a->mem, target, (const char *)file.data, file.size));
        peft__file_close(&file);
        memset(&file, 0, sizeof file);
    }
out:
    peft__file_close(&file);
    return st;
}

peft_status peft__model_write_hf(const struct peft_model *m, const peft__model_change *change, int32_t dtype,
                                 const char *dir) {
    peft_status st = PEFT_OK;
    peft__write_job job;
    char *weights = NULL, *config = NULL;
    if (m->config.rope_factors != NULL && m->config.rope_scaling != PEFT__ROPE_LLAMA3) {
        return peft__fail(PEFT_E_UNSUPPORTED, "config.json cannot express the scaling in rope_freqs.weight of %s", m->path);
    }
    TRY(peft__write_begin(&job, m, change, dtype, false));
    TRY(peft__path_join(&job.arena, dir, "model.safetensors", &weights));
    TRY(peft__path_join(&job.arena, dir, "config.json", &config));
    TRY(peft__dir_make(dir));
    TRY(peft__safetensors_write(job.mem, weights, job.sources, job.count, NULL));
    bool tied = m->config.tie_embeddings && !(change != NULL && change->untie);
    TRY(save_hf_write_config(&job, tied, config));
    if (m->n_shards > 0 && m->path[0] != '\0') { TRY(save_hf_copy_companions(&job.arena, m->path, dir)); }
out:
    peft__write_end(&job);
    return st;
}
