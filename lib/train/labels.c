/* labels.c - what a data set's labels mean to a model: names become classes, numbers are checked, classes get weights.
 *
 * "balanced" weights are n / (k n_c): n rows (tokens) with a label, k classes, n_c of class c (King and Zeng 2001), as scikit-learn's
 * compute_class_weight; a class that no row has gets 0.
 *
 * Left out: how a row says its label (rows.c), how losses use the weights (op_loss.c). */
#include <math.h>
#include <stdio.h>

#include "train/train.h"

static const char *labels_name(const struct peft_dataset *d, size_t i) { return PEFT__VEC_AT(&d->names, const char *, i); }

/* "a, b, c": the labels that there are, cut where they are many. */
static void labels_known(const peft__task *t, char out[256]) {
    size_t len = 0;
    out[0] = '\0';
    for (int64_t i = 0; i < t->labels && t->names != NULL && len < 200; i++) {
        int n = snprintf(out + len, 256 - len, "%s%s", len > 0 ? ", " : "", t->names[i]);
        len += n > 0 ? (size_t)n : 0;
    }
}

static peft_status labels_names(const struct peft_dataset *d, const peft__task *t, const char *what, int32_t *classes) {
    for (size_t i = 0; i < d->names.len; i++) {
        const char *name = labels_name(d, i);
        char known[256];
        classes[i] = peft__task_class(t, name, strlen(name));
        if (classes[i] >= 0) { continue; }
        labels_known(t, known);
        if (t->names == NULL) {
            return peft__fail(PEFT_E_NOT_FOUND, "the %s data has label \"%s\", and the model's %lld labels have no names: give it the "
                              "option labels", what, name, (long long)t->labels);
        }
        return peft__fail(PEFT_E_NOT_FOUND, "the %s data has label \"%s\", which is none of the model's: %s", what, name, known);
    }
    return PEFT_OK;
}

static peft_status labels_range(const char *what, size_t row, double label, const peft__task *t) {
    if (label >= 0 && label < (double)t->labels && label == floor(label)) { return PEFT_OK; }
    return peft__fail(PEFT_E_SHAPE, "row %zu of the %s data has label %g, and the model has labels 0 to %lld", row, what, label,
                      (long long)t->labels - 1);
}

/* Numbers of a row of a regression or with several labels; *found: it has them. */
static peft_status labels_numbers(const struct peft_dataset *d, const peft__row *r, size_t i, const peft__task *t, const char *what,
                                  bool *found) {
    peft_status st = PEFT_OK;
    const float *x = d->targets.data == NULL ? NULL : (const float *)d->targets.data + r->target; /* none: no row has numbers */
    *found = r->list || r->n_targets > 0 || r->label >= 0;
    if (t->problem == PEFT__PROBLEM_REGRESSION) {
        if (r->named) { FAIL(PEFT_E_FORMAT, "row %zu of the %s data has a name as its label, and the model gives numbers", i, what); }
        if (*found && r->n_targets != t->labels) {
            FAIL(PEFT_E_SHAPE, "row %zu of the %s data has %lld numbers, and the model gives %lld", i, what, (long long)r->n_targets,
                 (long long)t->labels);
        }
        return PEFT_OK;
    }
    bool marks = !r->named && r->list && r->n_targets == t->labels;
    for (int64_t k = 0; k < r->n_targets && marks; k++) { marks = x[k] >= 0 && x[k] <= 1; }
    for (int64_t k = 0; k < r->n_targets && !marks && !r->named; k++) { TRY(labels_range(what, i, (double)x[k], t)); }
out:
    return st;
}

static peft_status labels_row(const struct peft_dataset *d, size_t i, const peft__task *t, const char *what, bool *found) {
    const peft__row *r = peft__dataset_row(d, i);
    const int32_t *labels = d->labels.data;
    peft_status st = PEFT_OK;
    if (t->kind == PEFT__TASK_TOKENS) {
        for (int64_t k = r->first; k < r->first + r->n; k++) {
            if (labels[k] < 0) { continue; }
            *found = true;
            if (!r->named) { TRY(labels_range(what, i, labels[k], t)); }
        }
    } else if (t->kind == PEFT__TASK_SEQUENCE && t->problem == PEFT__PROBLEM_SINGLE) {
        if (r->list) { FAIL(PEFT_E_FORMAT, "row %zu of the %s data has several labels, and the model gives one", i, what); }
        if (r->label < 0 && r->n_targets > 0) {
            TRY(labels_range(what, i, (double)((const float *)d->targets.data)[r->target], t));
        }
        *found = *found || r->label >= 0;
        if (r->label >= 0 && !r->named) { TRY(labels_range(what, i, r->label, t)); }
    } else if (t->kind == PEFT__TASK_SEQUENCE) {
        bool own = false;
        TRY(labels_numbers(d, r, i, t, what, &own));
        *found = *found || own;
    } else {
        if (t->kind == PEFT__TASK_EMBEDDING && r->part[1] == 0) {
            FAIL(PEFT_E_FORMAT, "row %zu of the %s data is one text: an embedding is trained and measured on an \"anchor\" and its "
                 "\"positive\"", i, what);
        }
        *found = true;
    }
out:
    return st;
}

peft_status peft__labels_match(const struct peft_dataset *d, const peft__task *t, const char *what, peft__mem *mem, int32_t **classes) {
    peft_status st = PEFT_OK;
    bool found = false;
    int32_t kind = d->kind >= 0 ? d->kind : PEFT__TASK_CAUSAL_LM;
    *classes = NULL;
    if (kind != t->kind) {
        FAIL(PEFT_E_INVALID, "the %s data has rows for %s, and the model's task is %s: give one of them the option task", what,
             peft__task_name(kind), peft__task_name(t->kind));
    }
    TRY(peft__dataset_labelled(d, what));
    if (peft__task_is_lm(t)) { goto out; }
    if (d->names.len > 0) {
        *classes = peft__alloc(mem, d->names.len * sizeof **classes);
        if (*classes == NULL) { return PEFT_E_NOMEM; }
        TRY(labels_names(d, t, what, *classes));
    }
    for (size_t i = 0; i < peft__dataset_size(d); i++) { TRY(labels_row(d, i, t, what, &found)); }
    if (!found) { FAIL(PEFT_E_INVALID, "no row of the %s data has a label", what); }
out:
    if (st != PEFT_OK) {
        peft__labels_free(d, mem, *classes);
        *classes = NULL;
    }
    return st;
}

void peft__labels_free(const struct peft_dataset *d, peft__mem *mem, int32_t *classes) {
    if (classes != NULL) { peft__free(mem, classes, d->names.len * sizeof *classes); }
}

peft_status peft__labels_undivided(const peft__task *t, const peft__expression *e) {
    if (t->kind != PEFT__TASK_EMBEDDING || (peft__expression_copies(e) == 1 && peft__expression_rows(e) == 0)) { return PEFT_OK; }
    return peft__fail(PEFT_E_UNSUPPORTED, "\"%s\" divides rows, and the texts of an embedding's row go together: name one branch", e->text);
}

/* ---- weights --------------------------------------------------------------------------------------------------------------------- */

static int32_t labels_class(int32_t label, bool named, const int32_t *classes) {
    return named && classes != NULL && label >= 0 ? classes[label] : label;
}

static void labels_count(const struct peft_dataset *d, const peft__task *t, const int32_t *classes, float *counts) {
    const int32_t *labels = d->labels.data;
    for (size_t i = 0; i < peft__dataset_size(d); i++) {
        const peft__row *r = peft__dataset_row(d, i);
        if (t->kind == PEFT__TASK_SEQUENCE && r->label >= 0) { counts[labels_class(r->label, r->named, classes)] += 1; }
        for (int64_t k = r->first; t->kind == PEFT__TASK_TOKENS && k < r->first + r->n; k++) {
            if (labels[k] >= 0) { counts[labels_class(labels[k], r->named, classes)] += 1; }
        }
    }
}

static peft_status labels_read_weights(const peft__task *t, const char *option, peft__mem *mem, float *w) {
    peft_status st = PEFT_OK;
    const peft__json *list = NULL;
    peft__arena a;
    peft__arena_init(&a, mem);
    TRY(peft__json_parse(&a, option, strlen(option), "class_weights", &list));
    if (list->kind != PEFT__JSON_ARRAY || (int64_t)list->len != t->labels) {
        FAIL(PEFT_E_KEY, "key \"class_weights\" is no list of %lld numbers, nor \"balanced\"", (long long)t->labels);
    }
    for (size_t i = 0; i < list->len; i++) {
        const peft__json *x = &list->items[i];
        double v = -1;
        bool text = x->kind == PEFT__JSON_STRING && peft__parse_f64(x->str, x->len, &v);
        if (x->kind == PEFT__JSON_NUMBER) { v = x->num; } else if (!text) { v = -1; }
        if (!(v >= 0 && v < 1e30)) { FAIL(PEFT_E_KEY, "element %zu of \"class_weights\" is no number from 0", i); }
        w[i] = (float)v;
    }
out:
    peft__arena_free(&a);
    return st;
}

peft_status peft__labels_weights(const struct peft_dataset *d, const peft__task *t, const int32_t *classes, const char *option,
                                 peft__mem *mem, float **out) {
    peft_status st = PEFT_OK;
    size_t bytes = (size_t)t->labels * sizeof **out;
    *out = NULL;
    if (option == NULL || option[0] == '\0' || strcmp(option, "[]") == 0) { return PEFT_OK; }
    if ((t->kind != PEFT__TASK_SEQUENCE || t->problem != PEFT__PROBLEM_SINGLE) && t->kind != PEFT__TASK_TOKENS) {
        return peft__fail(PEFT_E_KEY, "key \"class_weights\" is for classifications with one label, and the task is %s",
                          peft__task_name(t->kind));
    }
    float *w = peft__alloc_zero(mem, bytes);
    if (w == NULL) { return PEFT_E_NOMEM; }
    if (strstr(option, "balanced") == NULL) {
        TRY(labels_read_weights(t, option, mem, w));
    } else if (d == NULL) {
        FAIL(PEFT_E_KEY, "key \"class_weights\" is balanced, and there is no training data to count");
    } else {
        double n = 0;
        labels_count(d, t, classes, w);
        for (int64_t i = 0; i < t->labels; i++) { n += (double)w[i]; }
        for (int64_t i = 0; i < t->labels; i++) { w[i] = w[i] > 0 ? (float)(n / ((double)t->labels * (double)w[i])) : 0; }
    }
    *out = w;
    w = NULL;
out:
    if (w != NULL) { peft__free(mem, w, bytes); }
    return st;
}
