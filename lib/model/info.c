/* info.c - what a model is, as JSON: the object of peft_model_info_json. */
#include "model/parts.h"

static void info_int(peft__json_out *j, const char *key, int64_t v) {
    peft__json_key(j, key);
    peft__json_put_int(j, v);
}

static void info_sizes(const peft__config *c, peft__json_out *j) {
    info_int(j, "hidden_size", c->hidden_size);
    info_int(j, "num_hidden_layers", c->layers);
    info_int(j, "num_attention_heads", c->heads);
    info_int(j, "num_key_value_heads", c->kv_heads);
    info_int(j, "head_dim", c->head_dim);
    info_int(j, "intermediate_size", c->intermediate_size);
    info_int(j, "vocab_size", c->vocab_size);
    info_int(j, "max_position_embeddings", c->max_positions);
    peft__json_key(j, "tie_word_embeddings");
    peft__json_put_bool(j, c->tie_embeddings);
    peft__json_key(j, "task");
    peft__json_put_text(j, peft__task_name(c->task.kind));
}

/* Types in the order in which they first appear. */
static void info_dtypes(const struct peft_model *m, peft__json_out *j) {
    peft__json_key(j, "dtypes");
    peft__json_object(j);
    for (size_t i = 0; i < m->n_tensors; i++) {
        int32_t dtype = m->tensors[i].w.dtype;
        int64_t count = 0;
        bool first = true;
        for (size_t k = 0; k < i && first; k++) { first = m->tensors[k].w.dtype != dtype; }
        if (!first) { continue; }
        for (size_t k = i; k < m->n_tensors; k++) { count += m->tensors[k].w.dtype == dtype; }
        info_int(j, peft__dtype_name(dtype), count);
    }
    peft__json_object_end(j);
}

static void info_sites(const struct peft_model *m, peft__json_out *j) {
    static const char *const kinds[] = {"linear", "stream", "kv", "input", "norm", "embed", "head"};
    peft__json_key(j, "sites");
    peft__json_array(j);
    for (size_t i = 0; i < m->n_sites; i++) {
        const peft__site *s = &m->sites[i];
        peft__json_object(j);
        peft__json_key(j, "path");
        peft__json_put_text(j, s->path);
        peft__json_key(j, "kind");
        peft__json_put_text(j, kinds[s->kind]);
        info_int(j, "in", s->in);
        info_int(j, "out", s->out);
        peft__json_key(j, "dtype");
        peft__json_put_text(j, s->weight != NULL ? peft__dtype_name(s->weight->dtype) : NULL);
        peft__json_object_end(j);
    }
    peft__json_array_end(j);
}

peft_status peft__model_info(const struct peft_model *m, peft__str *out) {
    peft__json_out j;
    peft__json_begin(&j, out, 0);
    peft__json_object(&j);
    peft__json_key(&j, "kind");
    peft__json_put_text(&j, "model");
    peft__json_key(&j, "architecture");
    peft__json_put_text(&j, m->arch->name);
    peft__json_key(&j, "model_type");
    peft__json_put_text(&j, m->model_type);
    info_sizes(&m->config, &j);
    if (m->config.task.labels > 0) { info_int(&j, "num_labels", m->config.task.labels); }
    peft__heads_write_config(m, &j);
    info_int(&j, "parameters", m->parameters);
    info_dtypes(m, &j);
    info_int(&j, "bytes", (int64_t)m->bytes);
    info_int(&j, "resident_bytes", (int64_t)peft__model_resident(m));
    info_sites(m, &j);
    peft__json_object_end(&j);
    return peft__str_status(out);
}
