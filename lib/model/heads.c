/* heads.c - heads of tasks other than the next token, for any architecture: which one a model has, its labels, its tensors, what it
 * records.
 *
 *   x = pool(states);  x = act(x Wd' + b) (dense);  x = layer_norm(x);  outputs = x Wo' + b;  loss of the task (op_loss.c)
 *
 * each part only where the architecture's layout has it. A masked language model ends in the head over the vocabulary instead, an
 * embedding in rows of length 1. Classes and names are transformers' (BertForSequenceClassification: pooler.dense, classifier).
 * What no file has is made at random, N(0, initializer_range), as from_pretrained does; adapters train a copy and keep it.
 *
 * Left out: dropout in heads, heads of several tasks at once. */
#include <stdio.h>

#include "model/parts.h"


enum { HEADS_DENSE = 0, HEADS_NORM = 1, HEADS_OUT = 2, HEADS_MAX_LABELS = 1 << 20 };

const peft__head_layout peft__heads_decoder[PEFT__HEADS_DECODER] = {
    {.task = PEFT__TASK_SEQUENCE, .pool = PEFT__POOL_LAST, .out = "score"},
};

/* ---- which task ----------------------------------------------------------------------------------------------------------- */

/* Ends of the classes of each task; those of embeddings are the base's own. */
static const char *const heads_classes[PEFT__TASK_COUNT] = {"ForCausalLM", "ForMaskedLM", "ForConditionalGeneration",
                                                            "ForSequenceClassification", "ForTokenClassification",
                                                            "ForQuestionAnswering", "Model"};

/* The task that config.json's "architectures" names; -1: none. */
static int32_t heads_of_class(const peft__json *config) {
    const peft__json *list = config != NULL ? peft__json_find(config, "architectures") : NULL;
    if (list == NULL || list->kind != PEFT__JSON_ARRAY || list->len == 0 || list->items[0].kind != PEFT__JSON_STRING) { return -1; }
    const peft__json *name = &list->items[0];
    for (int32_t i = 0; i < PEFT__TASK_COUNT; i++) {
        size_t n = strlen(heads_classes[i]);
        if (name->len >= n && memcmp(name->str + name->len - n, heads_classes[i], n) == 0) { return i; }
    }
    return -1;
}

static const peft__head_layout *heads_find(const peft__arch *arch, int32_t task) {
    for (size_t i = 0; i < arch->n_heads; i++) {
        if (arch->heads[i].task == task) { return &arch->heads[i]; }
    }
    return NULL;
}

/* "causal_lm, sequence_classification": what the architecture can do. */
static const char *heads_known(const peft__arch *arch, peft__arena *a) {
    char *all = arch->lm_task >= 0 ? peft__arena_printf(a, "%s", peft__task_name(arch->lm_task)) : NULL;
    for (size_t i = 0; i < arch->n_heads; i++) {
        all = peft__arena_printf(a, "%s%s%s", all != NULL ? all : "", all != NULL ? ", " : "", peft__task_name(arch->heads[i].task));
    }
    return all != NULL ? all : "";
}

/* Names in the order of a list, or of an object's keys "0", "1", ... */
static peft_status heads_read_names(struct peft_model *m, const peft__json *from, const char *what, peft__task *t) {
    peft_status st = PEFT_OK;
    const char **names = peft__arena_alloc(&m->arena, PEFT__MAX(from->len, (size_t)1) * sizeof *names);
    if (names == NULL) { return PEFT_E_NOMEM; }
    memset(names, 0, from->len * sizeof *names);
    for (size_t i = 0; i < from->len; i++) {
        const peft__json *key = from->kind == PEFT__JSON_OBJECT ? &from->keys[i] : NULL, *name = &from->items[i];
        int64_t at = (int64_t)i;
        bool number = key == NULL || peft__parse_i64(key->str, key->len, &at);
        if (!number || at < 0 || at >= (int64_t)from->len || names[at] != NULL || name->kind != PEFT__JSON_STRING) {
            FAIL(PEFT_E_FORMAT, "%s has no text for each label from 0 to %lld", what, (long long)from->len - 1);
        }
        for (int64_t k = 0; k < (int64_t)from->len; k++) {
            if (names[k] != NULL && strcmp(names[k], name->str) == 0) { FAIL(PEFT_E_KEY, "%s names \"%s\" twice", what, name->str); }
        }
        names[at] = peft__arena_strdup(&m->arena, name->str, name->len);
        if (names[at] == NULL) { return PEFT_E_NOMEM; }
    }
    t->names = (const char *const *)names;
out:
    return st;
}

static peft_status heads_names(struct peft_model *m, const peft__json *config, const char *what, peft__task *t) {
    peft_status st = PEFT_OK;
    const peft__json *map = config != NULL ? peft__json_find(config, "id2label") : NULL, *list = NULL;
    int64_t unnamed = 2;
    size_t n = 0;
    if (m->ask.names != NULL && m->ask.names[0] != '\0') {
        TRY(peft__json_parse(&m->arena, m->ask.names, strlen(m->ask.names), "labels", &list));
        if (list->kind != PEFT__JSON_ARRAY) { FAIL(PEFT_E_KEY, "key \"labels\" is no list"); }
        TRY(heads_read_names(m, list, "key \"labels\"", t));
        n = list->len;
    } else if (m->ask.labels == 0 && map != NULL && map->kind == PEFT__JSON_OBJECT) {
        TRY(heads_read_names(m, map, "key \"id2label\"", t));
        n = map->len;
    } else if (config != NULL) {
        TRY(peft__json_int(config, what, "num_labels", unnamed, 1, HEADS_MAX_LABELS, &unnamed));
    }
    t->labels = m->ask.labels > 0 ? m->ask.labels : n > 0 ? (int64_t)n : unnamed;
    if (n > 0 && t->labels != (int64_t)n) {
        FAIL(PEFT_E_KEY, "num_labels is %lld, and there are %zu labels", (long long)t->labels, n);
    }
    if (t->labels > HEADS_MAX_LABELS) { FAIL(PEFT_E_SHAPE, "%lld labels are more than %d", (long long)t->labels, HEADS_MAX_LABELS); }
out:
    return st;
}

static peft_status heads_problem(const struct peft_model *m, const peft__json *config, const char *what, peft__task *t) {
    peft_status st = PEFT_OK;
    const char *name = NULL;
    if (config != NULL && m->ask.problem < 0 && m->ask.labels == 0) { TRY(peft__json_str(config, what, "problem_type", NULL, &name)); }
    t->problem = m->ask.problem >= 0 ? m->ask.problem : t->labels == 1 ? PEFT__PROBLEM_REGRESSION : PEFT__PROBLEM_SINGLE;
    for (int32_t i = 0; name != NULL && i < PEFT__PROBLEM_COUNT; i++) {
        if (strcmp(name, peft__problem_name(i)) == 0) {
            t->problem = i;
            name = NULL;
        }
    }
    if (name != NULL) { FAIL(PEFT_E_UNSUPPORTED, "%s: key \"problem_type\" is \"%s\", which is not known", what, name); }
    if (t->problem == PEFT__PROBLEM_SINGLE && t->labels < 2) {
        FAIL(PEFT_E_KEY, "a classification needs at least 2 labels, and num_labels is %lld", (long long)t->labels);
    }
out:
    return st;
}

peft_status peft__heads_choose(struct peft_model *m, const peft__json *config, const char *what) {
    peft_status st = PEFT_OK;
    const peft__arch *arch = m->arch;
    peft__task *t = &m->config.task;
    int32_t kind = m->ask.kind >= 0 ? m->ask.kind : heads_of_class(config);
    int32_t pool = t->pool; /* as a file says */
    memset(t, 0, sizeof *t);
    if (m->ask.kind < 0 && kind != arch->lm_task && heads_find(arch, kind) == NULL) { kind = -1; } /* a bare decoder */
    if (kind < 0) { kind = arch->lm_task >= 0 ? arch->lm_task : arch->heads[0].task; }
    t->kind = kind;
    m->head = kind == arch->lm_task ? NULL : heads_find(arch, kind);
    if (kind != arch->lm_task && m->head == NULL) {
        FAIL(PEFT_E_UNSUPPORTED, "architecture \"%s\" has no head for task \"%s\", it can have: %s", arch->name, peft__task_name(kind),
             heads_known(arch, &m->arena));
    }
    if (m->head != NULL && arch->fit_head != NULL) {
        peft__head_layout *own = peft__arena_alloc(&m->arena, sizeof *own);
        if (own == NULL) { return PEFT_E_NOMEM; }
        *own = *m->head;
        arch->fit_head(&m->config, own);
        m->head = own;
    }
    if (m->config.init_range <= 0) { m->config.init_range = 0.02; }
    if (config != NULL) { TRY(peft__json_float(config, what, "initializer_range", m->config.init_range, &m->config.init_range)); }
    if (kind == PEFT__TASK_SEQUENCE || kind == PEFT__TASK_TOKENS) { TRY(heads_names(m, config, what, t)); }
    if (kind == PEFT__TASK_SEQUENCE) { TRY(heads_problem(m, config, what, t)); }
    if (kind == PEFT__TASK_SPAN) { t->labels = 2; }
    if (kind == PEFT__TASK_EMBEDDING) {
        t->pool = m->ask.pool >= 0 ? m->ask.pool : pool != PEFT__POOL_NONE ? pool : PEFT__POOL_MEAN;
        t->normalize = m->ask.normalize != 0;
    }
out:
    return st;
}

/* ---- tensors --------------------------------------------------------------------------------------------------------------- */

/* Width of what `out` reads. */
static int64_t heads_width(const peft__config *c) { return c->hidden_size; }

static bool heads_tensor(const struct peft_model *m, peft__arena *a, size_t index, struct peft__tensor_spec *out) {
    const peft__head_layout *h = m->head;
    const peft__config *c = &m->config;
    if (h == NULL) { return false; }
    bool lm = h->task == PEFT__TASK_MASKED_LM;
    int64_t width = heads_width(c), labels = lm ? c->vocab_size : c->task.labels;
    const struct {
        const char *path;
        bool there, bias, optional;
        int64_t rows, cols;
    } parts[] = {
        {h->dense, h->dense != NULL, false, false, width, width},   {h->dense, h->dense != NULL && h->dense_bias, true, false, 1, width},
        {h->norm, h->norm != NULL, false, false, 1, width},         {h->norm, h->norm != NULL && h->norm_bias, true, false, 1, width},
        {h->out, h->out != NULL, false, lm && c->tie_embeddings, labels, width},
        {h->out, h->out != NULL && h->out_bias, true, false, 1, labels},
    };
    for (size_t i = 0; i < PEFT__COUNT(parts); i++) {
        if (!parts[i].there) { continue; }
        if (index-- > 0) { continue; }
        memset(out, 0, sizeof *out);
        bool other = parts[i].bias && parts[i].path == h->out && h->out_bias_name != NULL;
        out->hf_name = other ? h->out_bias_name : peft__arena_printf(a, "%s.%s", parts[i].path, parts[i].bias ? "bias" : "weight");
        out->gguf_name = "";
        out->ndim = parts[i].rows == 1 && (parts[i].bias || parts[i].path == h->norm) ? 1 : 2;
        out->rows = parts[i].rows;
        out->cols = parts[i].cols;
        out->optional = parts[i].optional;
        out->fresh = !parts[i].optional;
        return true;
    }
    return false;
}

static bool heads_is_lm(const char *name) { return strcmp(name, "lm_head.weight") == 0 || strcmp(name, "embed_out.weight") == 0; }

bool peft__model_spec(struct peft_model *m, peft__arena *a, size_t index, struct peft__tensor_spec *out) {
    if (m->n_base == 0 || index < m->n_base) {
        if (m->arch->tensor(&m->config, a, index, out)) {
            if (m->head != NULL && out->hf_name != NULL && heads_is_lm(out->hf_name)) { out->unused = true; }
            return true;
        }
        m->n_base = index;
    }
    return heads_tensor(m, a, index - m->n_base, out);
}

peft_status peft__heads_make(struct peft_model *m, const struct peft__tensor_spec *spec, peft__model_tensor *out) {
    size_t n = (size_t)(spec->rows * spec->cols), len = strlen(spec->hf_name);
    float *values = peft__arena_alloc(&m->arena, n * sizeof *values);
    peft__rng rng = {peft__hash_str(m->ask.seed, spec->hf_name, len), 0};
    bool gain = spec->ndim == 1 && len > 7 && strcmp(spec->hf_name + len - 7, ".weight") == 0;
    if (values == NULL) { return PEFT_E_NOMEM; }
    for (size_t i = 0; i < n; i++) {
        values[i] = spec->ndim == 2 ? (float)(m->config.init_range * peft__rng_normal(&rng)) : gain ? 1.0F : 0.0F;
    }
    out->w.data = (const uint8_t *)values;
    out->w.dtype = PEFT_DTYPE_F32;
    out->w.row_bytes = spec->cols * (int64_t)sizeof *values;
    if (!m->new_head) {
        peft__log(m->ctx, PEFT_LOG_INFO, "%s: no file has \"%s\": the head for %s is new", m->path, spec->hf_name,
                  peft__task_name(m->config.task.kind));
    }
    m->new_head = true;
    return PEFT_OK;
}

/* ---- sites and recording ------------------------------------------------------------------------------------------------------- */

static const peft__site *heads_table(const struct peft_model *m) {
    for (size_t i = 0; i < m->n_sites; i++) {
        if (m->sites[i].kind == PEFT__SITE_EMBED && m->sites[i].role == PEFT__ROLE_TOKENS) { return &m->sites[i]; }
    }
    return NULL;
}

peft_status peft__heads_sites(struct peft_model *m) {
    const peft__head_layout *h = m->head;
    peft__sites b;
    if (h == NULL) { return PEFT_OK; }
    peft__sites_more(&b, m);
    if (h->dense != NULL) { m->head_sites[HEADS_DENSE] = peft__sites_linear(&b, PEFT__ROLE_NONE, h->dense); }
    if (h->norm != NULL) { m->head_sites[HEADS_NORM] = peft__sites_norm(&b, PEFT__ROLE_FINAL, h->norm, false, m->config.norm_eps); }
    if (h->out != NULL) {
        const peft__site *table = h->task == PEFT__TASK_MASKED_LM ? heads_table(m) : NULL;
        m->head_sites[HEADS_OUT] = peft__sites_output(&b, h->out, h->out_bias_name, table);
    }
    return b.st;
}

void peft__model_head(const struct peft_model *m, peft__tape *t, const peft__site *lm, peft__val x, double softcap, double scale) {
    const peft__head_layout *h = m->head;
    const peft__task *task = &m->config.task;
    if (h == NULL) {
        peft__site_head(t, lm, x, softcap, scale);
        return;
    }
    int32_t pool = task->kind == PEFT__TASK_EMBEDDING ? task->pool : h->pool;
    if (pool != PEFT__POOL_NONE) { x = peft__op_pool(t, x, pool); }
    if (h->dense != NULL) {
        int32_t act = h->act == PEFT__HEAD_ACT_CONFIG ? m->config.act : h->act;
        x = peft__op_act(t, act, peft__site_linear(t, m->head_sites[HEADS_DENSE], x));
    }
    if (h->norm != NULL) { x = peft__site_norm(t, m->head_sites[HEADS_NORM], x); }
    if (task->kind == PEFT__TASK_MASKED_LM) {
        peft__site_head(t, m->head_sites[HEADS_OUT], x, 0, 1);
        return;
    }
    if (h->out != NULL) { x = peft__site_outputs(t, m->head_sites[HEADS_OUT], x); }
    if (task->kind == PEFT__TASK_EMBEDDING && task->normalize) { x = peft__op_unit_rows(t, x); }
    peft__op_loss(t, x, task);
}

/* ---- config.json ----------------------------------------------------------------------------------------------------------------- */

void peft__heads_write_config(const struct peft_model *m, peft__json_out *j) {
    const peft__task *t = &m->config.task;
    if (t->kind != PEFT__TASK_SEQUENCE && t->kind != PEFT__TASK_TOKENS) { return; }
    for (int32_t way = 0; way < 2; way++) {
        peft__json_key(j, way == 0 ? "id2label" : "label2id");
        peft__json_object(j);
        for (int64_t i = 0; i < t->labels; i++) {
            char number[24], unnamed[32];
            (void)snprintf(number, sizeof number, "%lld", (long long)i);
            (void)snprintf(unnamed, sizeof unnamed, "LABEL_%lld", (long long)i);
            const char *name = t->names != NULL ? t->names[i] : unnamed;
            peft__json_key(j, way == 0 ? number : name);
            if (way == 0) { peft__json_put_text(j, name); } else { peft__json_put_int(j, i); }
        }
        peft__json_object_end(j);
    }
    if (t->kind == PEFT__TASK_SEQUENCE) {
        peft__json_key(j, "problem_type");
        peft__json_put_text(j, peft__problem_name(t->problem));
    }
}

const char *peft__heads_class(const struct peft_model *m, peft__arena *a) {
    size_t type = 0;
    while (m->arch->model_types[type] != NULL && m->arch->model_types[type] != m->model_type) { type++; }
    const char *own = m->arch->architectures[type], *at = strstr(own, "For");
    if (m->head == NULL) { return own; }
    if (at == NULL) { at = strstr(own, "LMHead"); }
    size_t n = m->arch->class_prefix != NULL ? strlen(m->arch->class_prefix) : at != NULL ? (size_t)(at - own) : strlen(own);
    return peft__arena_printf(a, "%.*s%s", (int)n, m->arch->class_prefix != NULL ? m->arch->class_prefix : own,
                              heads_classes[m->config.task.kind]);
}
