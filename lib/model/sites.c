/* sites.c - the list of sites of a model, built by its architecture in the order of execution.
 *
 * A site finds its tensors by its path: PATH.weight and, where there is one, PATH.bias. Vectors are turned into reals here,
 * once, in the model's arena; matrices stay where they are in the file. */
#include "model/parts.h"

peft_status peft__sites_begin(peft__sites *b, struct peft_model *m, size_t cap) {
    memset(b, 0, sizeof *b);
    b->m = m;
    b->cap = cap;
    b->layer = -1;
    b->prefix = "";
    m->sites = peft__arena_alloc(&m->arena, (cap + PEFT__HEAD_SITES) * sizeof *m->sites);
    b->st = m->sites != NULL ? PEFT_OK : PEFT_E_NOMEM;
    return b->st;
}

void peft__sites_more(peft__sites *b, struct peft_model *m) {
    memset(b, 0, sizeof *b);
    b->m = m;
    b->cap = m->n_sites + PEFT__HEAD_SITES;
    b->layer = -1;
    b->prefix = "";
}

void peft__sites_in(peft__sites *b, int32_t layer, const char *prefix) {
    b->layer = layer;
    b->prefix = prefix;
    if (prefix == NULL && b->st == PEFT_OK) { b->st = PEFT_E_NOMEM; }
}

static peft__site *sites_add(peft__sites *b, int32_t kind, int32_t role, const char *name) {
    struct peft_model *m = b->m;
    if (b->st != PEFT_OK) { return NULL; }
    if (m->n_sites >= b->cap) {
        b->st = peft__fail(PEFT_E_INTERNAL, "architecture \"%s\" has more than %zu sites", m->arch->name, b->cap);
        return NULL;
    }
    const char *dot = b->prefix[0] != '\0' && name[0] != '\0' ? "." : "";
    const char *path = peft__arena_printf(&m->arena, "%s%s%s", b->prefix, dot, name);
    if (path == NULL) {
        b->st = PEFT_E_NOMEM;
        return NULL;
    }
    peft__site *s = &m->sites[m->n_sites];
    s->id = (int32_t)m->n_sites++;
    s->kind = kind;
    s->role = role;
    s->layer = b->layer;
    s->part = b->part;
    s->path = path;
    s->tied_to = -1;
    return s;
}

/* The tensor "PATH.what"; NULL: absent. */
static const peft__model_tensor *sites_tensor(peft__sites *b, const peft__site *s, const char *what) {
    const char *name = peft__arena_printf(&b->m->arena, "%s.%s", s->path, what);
    if (name == NULL) {
        b->st = PEFT_E_NOMEM;
        return NULL;
    }
    return peft__model_find(b->m, name);
}

static peft__real *sites_vector(peft__sites *b, const peft__weight *w) {
    peft__real *v = peft__arena_alloc(&b->m->arena, (size_t)w->cols * sizeof *v);
    if (v == NULL) {
        b->st = PEFT_E_NOMEM;
        return NULL;
    }
    peft__weight_row(b->m->ctx->kernels, w, 0, v);
    return v;
}

/* Fills weight and bias of a site; false after an error. */
static bool sites_bind(peft__sites *b, peft__site *s) {
    if (s == NULL) { return false; }
    const peft__model_tensor *w = sites_tensor(b, s, "weight"), *bias = sites_tensor(b, s, "bias");
    if (b->st != PEFT_OK) { return false; }
    if (w == NULL) {
        b->st = peft__fail(PEFT_E_INTERNAL, "site \"%s\" has no weight", s->path);
        return false;
    }
    s->weight = &w->w;
    s->in = w->w.cols;
    s->out = w->w.rows;
    s->conv1d = w->conv1d;
    if (bias != NULL) {
        s->bias = &bias->w;
        s->bias_data = sites_vector(b, s->bias);
    }
    return b->st == PEFT_OK;
}

const peft__site *peft__sites_linear(peft__sites *b, int32_t role, const char *name) {
    peft__site *s = sites_add(b, PEFT__SITE_LINEAR, role, name);
    return sites_bind(b, s) ? s : NULL;
}

const peft__site *peft__sites_norm(peft__sites *b, int32_t role, const char *name, bool rms, double eps) {
    peft__site *s = sites_add(b, PEFT__SITE_NORM, role, name);
    if (!sites_bind(b, s)) { return NULL; }
    s->out = s->in;
    s->rms = rms;
    s->eps = eps;
    s->norm_gain = sites_vector(b, s->weight);
    return s->norm_gain != NULL ? s : NULL;
}

const peft__site *peft__sites_rms_norm(peft__sites *b, int32_t role, const char *name, double eps, int64_t head_dim, double plus) {
    peft__site *s = sites_add(b, PEFT__SITE_NORM, role, name);
    if (!sites_bind(b, s)) { return NULL; }
    s->out = s->in;
    s->rms = true;
    s->eps = eps;
    s->head_dim = head_dim;
    s->plus = plus;
    peft__real *gain = sites_vector(b, s->weight);
    for (int64_t i = 0; gain != NULL && i < s->in; i++) { gain[i] += PEFT__R(plus); }
    s->norm_gain = gain;
    return gain != NULL ? s : NULL;
}

const peft__site *peft__sites_embed(peft__sites *b, int32_t role, const char *name) {
    peft__site *s = sites_add(b, PEFT__SITE_EMBED, role, name);
    if (!sites_bind(b, s)) { return NULL; }
    s->in = s->weight->rows;
    s->out = s->weight->cols;
    return s;
}

const peft__site *peft__sites_plain(peft__sites *b, int32_t kind, int32_t role, const char *name, int64_t width) {
    peft__site *s = sites_add(b, kind, role, name);
    if (s != NULL) { s->in = s->out = width; }
    return s;
}

void peft__sites_norm_of(peft__sites *b, const peft__site *stream, const peft__site *norm) {
    if (b->st == PEFT_OK) { b->m->sites[stream->id].norm = norm; }
}

const peft__site *peft__sites_output(peft__sites *b, const char *name, const char *bias, const peft__site *tied) {
    const peft__model_tensor *other = bias != NULL ? peft__model_find(b->m, bias) : NULL;
    peft__site *s = sites_add(b, PEFT__SITE_HEAD, PEFT__ROLE_NONE, name);
    if (s == NULL) { return NULL; }
    if (sites_tensor(b, s, "weight") != NULL) {
        if (!sites_bind(b, s)) { return NULL; }
    } else if (tied == NULL) {
        b->st = peft__fail(PEFT_E_INTERNAL, "head \"%s\" has no weight", s->path);
        return NULL;
    } else {
        s->weight = tied->weight;
        s->in = tied->out;
        s->out = tied->in;
        s->tied_to = tied->id;
    }
    if (other == NULL && s->bias == NULL) { other = sites_tensor(b, s, "bias"); } /* a tied matrix with a bias of its own */
    if (other != NULL && s->bias == NULL) {
        s->bias = &other->w;
        s->bias_data = sites_vector(b, s->bias);
    }
    return b->st == PEFT_OK ? s : NULL;
}

const peft__site *peft__sites_head(peft__sites *b, const char *name, const peft__site *embed) {
    if (b->m->head != NULL) { return NULL; }
    peft__site *s = sites_add(b, PEFT__SITE_HEAD, PEFT__ROLE_NONE, name);
    if (s == NULL) { return NULL; }
    if (sites_tensor(b, s, "weight") != NULL) { return sites_bind(b, s) ? s : NULL; }
    if (b->st != PEFT_OK) { return NULL; }
    s->weight = embed->weight;
    s->in = embed->out;
    s->out = embed->in;
    s->tied_to = embed->id;
    return s;
}

void peft__sites_offset(peft__sites *b, const peft__site *head, const char *tensor) {
    const peft__model_tensor *t = peft__model_find(b->m, tensor);
    if (head != NULL && t != NULL && b->st == PEFT_OK) { b->m->sites[head->id].bias_data = sites_vector(b, &t->w); }
}
