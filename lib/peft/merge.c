/* merge.c - what a base tensor becomes when adapters are folded into it.
 *
 * A trained copy takes the base's place; then each adapter in order adds its own, W += s B A for LoRA, in peft__real through
 * the same matrix product as everywhere. Tensors have Hugging Face names, values are in logical [out, in] order.
 *
 * Left out: writing (model/). */
#include "peft/method.h"

/* Is `tensor` the weight or the bias of the site? By the site's path, or by the name that the model gave the tensor. */
static bool merge_is(const char *tensor, const peft__site *s, const peft__weight *w, const char *part) {
    size_t n = strlen(s->path);
    bool here = strncmp(tensor, s->path, n) == 0 && tensor[n] == '.' && strcmp(tensor + n + 1, part) == 0;
    /* A tied head has the embedding's tensor, and its name: only its own path means the head. */
    bool tied = s->kind == PEFT__SITE_HEAD && s->tied_to >= 0 && strcmp(part, "weight") == 0;
    return here || (!tied && w != NULL && w->name != NULL && strcmp(tensor, w->name) == 0);
}

/* Does the method itself change the tensor, apart from trained copies? */
static bool merge_acts(const peft__adapter *a, const peft__attachment *at, bool weight) {
    return at->product && (weight || a->method->merge_bias != NULL);
}

/* What of the adapter changes the tensor: the attachment, and a trained copy or -1. NULL: nothing. */
static const peft__attachment *merge_find(const peft__adapter *a, const char *tensor, int32_t *copy, bool *weight) {
    const peft__attachment *all = a->attachments.data;
    for (size_t i = 0; i < a->attachments.len; i++) {
        const peft__site *s = &a->base->sites[all[i].site];
        if (merge_is(tensor, s, s->weight, "weight")) {
            *weight = true;
            *copy = all[i].weight_param;
            if (*copy >= 0 || merge_acts(a, &all[i], true)) { return &all[i]; }
        } else if (merge_is(tensor, s, s->bias, "bias")) {
            *weight = false;
            *copy = all[i].bias_param;
            if (*copy >= 0 || merge_acts(a, &all[i], false)) { return &all[i]; }
        }
    }
    return NULL;
}

peft_status peft__merge_changes(peft__adapter *const *adapters, size_t n, const char *tensor, bool *out) {
    *out = false;
    for (size_t i = 0; i < n; i++) {
        int32_t copy;
        bool weight;
        const peft__method *m = adapters[i]->method;
        if (m->input != NULL || m->prompt != NULL || m->kv != NULL || m->stream != NULL) {
            return peft__fail(PEFT_E_UNSUPPORTED, "adapter \"%s\": method \"%s\" cannot be merged: what it adds is no weight of the base",
                              adapters[i]->name, m->name);
        }
        const peft__attachment *at = merge_find(adapters[i], tensor, &copy, &weight);
        if (at == NULL) { continue; }
        if (weight && merge_acts(adapters[i], at, true) && adapters[i]->method->merge == NULL) {
            return peft__fail(PEFT_E_UNSUPPORTED, "adapter \"%s\": method \"%s\" cannot be merged into \"%s\"", adapters[i]->name,
                              adapters[i]->method->name, tensor);
        }
        *out = true;
    }
    return PEFT_OK;
}

/* One adapter's own change. A factor goes into the scale of methods that are proportional to it; others can be taken out again
 * at most, by -1. */
static peft_status merge_add(const peft__adapter *a, const peft__attachment *at, double factor, bool weight, const peft__run *run,
                             peft__real *out) {
    const peft__site *s = &a->base->sites[at->site];
    peft__attachment own = *at;
    bool proportional = a->method->proportional && !a->bent;
    if (factor != 1 && !proportional && !(a->method->reversible && factor == -1)) {
        return peft__fail(PEFT_E_UNSUPPORTED, "adapter \"%s\": method \"%s\" cannot be merged with factor %g%s", a->name,
                          a->method->name, factor, a->method->reversible ? ", only with 1 or -1" : "");
    }
    if (proportional) { own.scale *= factor; }
    own.strength = factor;
    if (weight) { return a->method->merge(a, &own, s, run, out); }
    a->method->merge_bias(a, &own, s, out);
    return PEFT_OK;
}

peft_status peft__merge_value(peft__adapter *const *adapters, size_t n, const double *factors, const char *tensor, const peft__weight *w,
                              const peft__run *run, peft__real *out) {
    peft_status st = PEFT_OK;
    const peft__adapter *owner = NULL;
    int64_t more = 0;
    int32_t copy;
    bool weight;
    peft__weight_read(run->k, w, out);
    for (size_t left = n; left > 0; left--) { /* of heads of a task the last one's counts, as compose.c has it */
        const size_t i = left - 1;
        const peft__attachment *at = merge_find(adapters[i], tensor, &copy, &weight);
        if (at == NULL || copy < 0) { continue; }
        if (owner != NULL && peft__heads_has(owner->base, &owner->base->sites[at->site])) { continue; }
        const peft__param *p = &peft__adapter_param_at(adapters[i], (size_t)copy)->p;
        if (owner != NULL) {
            FAIL(PEFT_E_UNSUPPORTED, "adapters \"%s\" and \"%s\" both replace \"%s\"", adapters[i]->name, owner->name, tensor);
        }
        if (p->rows != w->rows || p->cols != w->cols) {
            FAIL(PEFT_E_SHAPE, "\"%s\" of adapter \"%s\" is %lld x %lld, and the base's %lld x %lld", p->name, adapters[i]->name,
                 (long long)p->rows, (long long)p->cols, (long long)w->rows, (long long)w->cols);
        }
        if (factors != NULL && factors[i] != 1) {
            FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\" replaces \"%s\", which has no factor: the base's values are not in the file",
                 adapters[i]->name, tensor);
        }
        owner = adapters[i];
        memcpy(out, p->value, (size_t)(p->rows * p->cols) * sizeof *out);
    }
    for (size_t i = 0; i < n; i++) {
        const peft__attachment *at = merge_find(adapters[i], tensor, &copy, &weight);
        if (at == NULL || !merge_acts(adapters[i], at, weight)) { continue; }
        TRY(merge_add(adapters[i], at, factors != NULL ? factors[i] : 1, weight, run, out));
        if (weight && at->rows_param >= 0) { more = PEFT__MAX(more, adapters[i]->new_tokens); }
    }
    if (!run->k->finite(out, (w->rows + more) * w->cols)) {
        FAIL(PEFT_E_NUMERIC, "\"%s\" has a NaN or an infinite value after merging", tensor);
    }
out:
    return st;
}

bool peft__merge_unties(peft__adapter *const *adapters, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const peft__adapter *a = adapters[i];
        const peft__attachment *all = a->attachments.data, *head = NULL, *table = NULL;
        int32_t tied_to = -1;
        for (size_t s = 0; s < a->base->n_sites && tied_to < 0; s++) {
            if (a->base->sites[s].kind == PEFT__SITE_HEAD) { tied_to = a->base->sites[s].tied_to; }
        }
        if (tied_to < 0) { continue; }
        for (size_t j = 0; j < a->attachments.len; j++) {
            if (all[j].site == tied_to) { table = &all[j]; }
            if (a->base->sites[all[j].site].kind == PEFT__SITE_HEAD) { head = &all[j]; }
        }
        int32_t copy[2] = {head != NULL ? head->weight_param : -1, table != NULL ? table->weight_param : -1};
        bool alike = head != NULL && table != NULL && head->rows_param >= 0 && head->rows_param == table->rows_param;
        bool adds = (head != NULL && head->product) || (table != NULL && table->product && !alike);
        if (adds || copy[0] != copy[1]) { return true; }
    }
    return false;
}
