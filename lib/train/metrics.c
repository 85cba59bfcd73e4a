/* metrics.c - accuracy, precision, recall, F1 and correlation of classes from counts by class; entities among tokens.
 *
 * Class k was true t_k times, predicted p_k times and both h_k times, of n rows, c of which are right:
 *
 *   precision h_k / p_k,  recall h_k / t_k,  F1 2 h_k / (p_k + t_k);  0 where there is nothing to divide by
 *   macro     means over classes with t_k + p_k > 0, with several labels over all;  micro: the same of the sums over k
 *   Matthews  (c n - sum t_k p_k) / sqrt((n^2 - sum p_k^2) (n^2 - sum t_k^2)), 0 for 0/0   (Gorodkin 2004, R_K)
 *
 * which is what scikit-learn's f1_score (zero_division 0) and matthews_corrcoef say. No table of pairs of classes is needed.
 *
 * Entities as conlleval (Tjong Kim Sang and De Meulder 2003) and seqeval's default mode read tags: an entity begins at B or S,
 * at any tag after O, E or S, and where the type changes; it is right when type, first and last token are. No entity goes on
 * from one row to the next.
 *
 * Left out: weights of rows, figures of each class by itself, strict readings of tags. */
#include <math.h>

#include "train/metrics.h"

enum { SCORES_CLASSES = 0, SCORES_SEVERAL = 1, SCORES_NUMBERS = 2 };

/* ---- figures --------------------------------------------------------------------------------------------------------------- */

static double metrics_share(double part, double whole) { return whole > 0 ? part / whole : 0; }

static double metrics_matthews(const peft__class_counts *c) {
    double n = (double)c->rows, both = 0, truth = 0, predicted = 0;
    for (int64_t k = 0; k < c->labels; k++) {
        double t = (double)c->truth[k], p = (double)c->predicted[k];
        both += t * p;
        truth += t * t;
        predicted += p * p;
    }
    double spread = (n * n - predicted) * (n * n - truth);
    return spread > 0 ? ((double)c->right * n - both) / sqrt(spread) : 0;
}

peft__class_scores peft__class_scores_of(const peft__class_counts *c) {
    const double none = (double)NAN;
    peft__class_scores s = {none, none, none, none, none, none, none, none};
    double hits = 0, truths = 0, predictions = 0, precision = 0, recall = 0, f1 = 0;
    int64_t labels = 0;
    if (c->rows == 0) { return s; }
    for (int64_t k = 0; k < c->labels; k++) {
        double h = (double)c->hit[k], t = (double)c->truth[k], p = (double)c->predicted[k];
        hits += h;
        truths += t;
        predictions += p;
        precision += metrics_share(h, p);
        recall += metrics_share(h, t);
        f1 += metrics_share(2 * h, p + t);
        labels += c->several || t + p > 0;
    }
    s.accuracy = (double)c->right / (double)c->rows;
    s.precision_micro = metrics_share(hits, predictions);
    s.recall_micro = metrics_share(hits, truths);
    s.f1_micro = metrics_share(2 * hits, predictions + truths);
    s.precision_macro = metrics_share(precision, (double)labels);
    s.recall_macro = metrics_share(recall, (double)labels);
    s.f1_macro = metrics_share(f1, (double)labels);
    if (!c->several) { s.matthews = metrics_matthews(c); }
    return s;
}

int32_t peft__candidate_best(const double *scores, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++) {
        if (scores[i] > scores[best]) { best = i; }
    }
    return (int32_t)best;
}

/* ---- entities ---------------------------------------------------------------------------------------------------------------- */

static const char *entity_type(const char *name) { return name[1] == '-' ? name + 2 : name + 1; }

static bool entity_is_tag(const char *name) {
    bool tag = name[0] == 'B' || name[0] == 'I' || name[0] == 'E' || name[0] == 'S';
    return (name[0] == 'O' && name[1] == '\0') || (tag && (name[1] == '\0' || name[1] == '-'));
}

/* Leaves tags NULL when a name is no tag or all are O. */
static peft_status entity_begin(peft__entity_counts *e, peft__mem *mem, const peft__task *task) {
    int64_t n = task->labels, tags = 0;
    for (int64_t k = 0; task->names != NULL && k < n; k++) {
        if (!entity_is_tag(task->names[k])) { return PEFT_OK; }
        tags += task->names[k][0] != 'O';
    }
    if (tags == 0) { return PEFT_OK; }
    e->types = peft__alloc(mem, (size_t)n * (sizeof *e->types + 1));
    if (e->types == NULL) { return PEFT_E_NOMEM; }
    e->tags = (char *)(e->types + n);
    for (int64_t k = 0; k < n; k++) {
        int32_t first = 0;
        while (strcmp(entity_type(task->names[first]), entity_type(task->names[k])) != 0) { first++; }
        e->tags[k] = task->names[k][0];
        e->types[k] = first;
    }
    return PEFT_OK;
}

typedef struct entity_open { /* where a sequence of tags stands */
    char tag;                /* of the token before; 'O' before the first */
    int32_t type;            /* of the same */
    int64_t first;           /* first token of the entity that it is in, unless tag is 'O' */
} entity_open;

static bool entity_begins(const entity_open *o, char tag, int32_t type) {
    if (tag == 'O') { return false; }
    return tag == 'B' || tag == 'S' || o->tag == 'O' || o->tag == 'E' || o->tag == 'S' || type != o->type;
}

/* Does the entity that the token before is in end there? */
static bool entity_ends(const entity_open *o, char tag, int32_t type) {
    return o->tag != 'O' && (tag == 'O' || entity_begins(o, tag, type));
}

static void entity_step(entity_open *o, int64_t at, char tag, int32_t type) {
    if (entity_begins(o, tag, type)) { o->first = at; }
    o->tag = tag;
    o->type = type;
}

static void entity_count(peft__entity_counts *e, const int32_t *truth, const int32_t *prediction, int64_t n) {
    entity_open t = {'O', 0, 0}, p = {'O', 0, 0};
    for (int64_t i = 0; i <= n; i++) { /* an O follows the last */
        char tag_t = i < n ? e->tags[truth[i]] : 'O', tag_p = i < n ? e->tags[prediction[i]] : 'O';
        int32_t type_t = i < n ? e->types[truth[i]] : 0, type_p = i < n ? e->types[prediction[i]] : 0;
        bool end_t = entity_ends(&t, tag_t, type_t), end_p = entity_ends(&p, tag_p, type_p);
        e->truth += end_t;
        e->predicted += end_p;
        e->hit += end_t && end_p && t.first == p.first && t.type == p.type;
        entity_step(&t, i, tag_t, type_t);
        entity_step(&p, i, tag_p, type_p);
    }
}

/* ---- sums -------------------------------------------------------------------------------------------------------------------- */

peft_status peft__scores_begin(peft__scores *s, peft__mem *mem, const peft__task *task) {
    memset(s, 0, sizeof *s);
    s->mem = mem;
    s->columns = PEFT__MAX(task->labels, 1);
    peft__vec_init(&s->pairs, mem, sizeof(float));
    if (task->kind == PEFT__TASK_EMBEDDING) { s->columns = 1; }
    if (task->kind == PEFT__TASK_EMBEDDING || (task->kind == PEFT__TASK_SEQUENCE && task->problem == PEFT__PROBLEM_REGRESSION)) {
        s->kind = SCORES_NUMBERS;
        return PEFT_OK;
    }
    peft__class_counts *c = &s->classes;
    c->several = task->kind == PEFT__TASK_SEQUENCE && task->problem == PEFT__PROBLEM_MULTI;
    s->kind = c->several ? SCORES_SEVERAL : SCORES_CLASSES;
    c->labels = task->labels;
    c->truth = peft__alloc_zero(mem, 3 * (size_t)c->labels * sizeof *c->truth);
    if (c->truth == NULL) { return PEFT_E_NOMEM; }
    c->predicted = c->truth + c->labels;
    c->hit = c->predicted + c->labels;
    return task->kind == PEFT__TASK_TOKENS ? entity_begin(&s->entities, mem, task) : PEFT_OK;
}

void peft__scores_free(peft__scores *s) {
    if (s->mem == NULL) { return; }
    peft__free(s->mem, s->classes.truth, 3 * (size_t)s->classes.labels * sizeof *s->classes.truth);
    peft__free(s->mem, s->entities.types, (size_t)s->classes.labels * (sizeof *s->entities.types + 1));
    peft__vec_free(&s->pairs);
    memset(s, 0, sizeof *s);
}

void peft__scores_class(peft__scores *s, int32_t truth, int32_t prediction) {
    peft__class_counts *c = &s->classes;
    if (truth < 0) { return; }
    c->truth[truth]++;
    c->predicted[prediction]++;
    c->hit[truth] += truth == prediction;
    c->right += truth == prediction;
    c->rows++;
}

void peft__scores_tokens(peft__scores *s, const int32_t *truth, const int32_t *prediction, int64_t n) {
    for (int64_t i = 0; i < n; i++) { peft__scores_class(s, truth[i], prediction[i]); }
    if (s->entities.tags != NULL) { entity_count(&s->entities, truth, prediction, n); }
}

void peft__scores_several(peft__scores *s, const float *logits, const float *targets) {
    peft__class_counts *c = &s->classes;
    bool right = true;
    for (int64_t k = 0; k < c->labels; k++) {
        bool truth = targets[k] > 0.5f, predicted = logits[k] > 0;
        c->truth[k] += truth;
        c->predicted[k] += predicted;
        c->hit[k] += truth && predicted;
        right = right && truth == predicted;
    }
    c->right += right;
    c->rows++;
}

peft_status peft__scores_numbers(peft__scores *s, const float *predicted, const float *truth) {
    peft_status st = PEFT_OK;
    size_t n = (size_t)s->columns, len = s->pairs.len;
    TRY(peft__vec_reserve(&s->pairs, len + 2 * n));
    memcpy(&PEFT__VEC_AT(&s->pairs, float, len), predicted, n * sizeof(float));
    memcpy(&PEFT__VEC_AT(&s->pairs, float, len + n), truth, n * sizeof(float));
    s->pairs.len = len + 2 * n;
out:
    return st;
}

/* ---- JSON -------------------------------------------------------------------------------------------------------------------- */

static void metrics_put(peft__json_out *j, const char *key, double value) {
    peft__json_key(j, key);
    peft__json_put_float(j, value);
}

static void metrics_put_classes(const peft__scores *s, peft__json_out *j) {
    peft__class_scores c = peft__class_scores_of(&s->classes);
    metrics_put(j, "accuracy", c.accuracy);
    metrics_put(j, "precision_macro", c.precision_macro);
    metrics_put(j, "recall_macro", c.recall_macro);
    metrics_put(j, "f1_macro", c.f1_macro);
    if (s->kind == SCORES_SEVERAL) { /* of classes both are the accuracy, as the micro F1 is */
        metrics_put(j, "precision_micro", c.precision_micro);
        metrics_put(j, "recall_micro", c.recall_micro);
    }
    metrics_put(j, "f1_micro", c.f1_micro);
    if (s->kind == SCORES_CLASSES) { metrics_put(j, "matthews_correlation", c.matthews); }
}

static void metrics_put_entities(const peft__scores *s, peft__json_out *j) {
    const peft__entity_counts *e = &s->entities;
    double whole = s->classes.rows > 0 ? 1 : (double)NAN; /* nothing is known of no rows */
    double hit = (double)e->hit, truth = (double)e->truth, predicted = (double)e->predicted;
    metrics_put(j, "entity_precision", whole * metrics_share(hit, predicted));
    metrics_put(j, "entity_recall", whole * metrics_share(hit, truth));
    metrics_put(j, "entity_f1", whole * metrics_share(2 * hit, predicted + truth));
}

peft_status peft__scores_write(const peft__scores *s, peft__json_out *j) {
    peft_status st = PEFT_OK;
    peft__number_scores n;
    if (s->kind != SCORES_NUMBERS) {
        metrics_put_classes(s, j);
        if (s->entities.tags != NULL) { metrics_put_entities(s, j); }
        return PEFT_OK;
    }
    TRY(peft__number_scores_of(s->mem, s->pairs.data, (int64_t)s->pairs.len / (2 * s->columns), s->columns, &n));
    metrics_put(j, "mse", n.mse);
    metrics_put(j, "mae", n.mae);
    metrics_put(j, "pearson", n.pearson);
    metrics_put(j, "spearman", n.spearman);
out:
    return st;
}
