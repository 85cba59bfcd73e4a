/* op_loss.c - losses of tasks that are not about the vocabulary, with what a session or an evaluation wants of the same values.
 *
 *   classes       of rows or tokens: cross-entropy of softmax(x); class weights w and label smoothing e as torch's CrossEntropyLoss
 *                 has them: sum over i of w[y_i] loss_i, divided by the sum of w[y_i]
 *   several       of a row: binary cross-entropy of each sigmoid(x[j]) with a target, mean over all (BCEWithLogitsLoss)
 *   numbers       (x - target)^2, mean over all (MSELoss)
 *   span          half the cross-entropies of where in its row an answer begins (column 0) and ends (column 1), over the row's tokens
 *   contrast      in-batch negatives: softmax over all positives and negatives c of s cos(a, c), the anchor's own positive being right
 *                 (MultipleNegativesRankingLoss; Henderson et al. 2017, arXiv 1705.00652)
 *
 * Loss and gradient are computed in one go, rows in order, on one thread: these are a few numbers a row.
 *
 *   the host's    a callback turns the values into their gradient (peft_trainer_set_loss)
 *
 * Left out: margins, hard negatives' own weights. */
#include <math.h>

#include "autograd/ops.h"

typedef struct loss_run {
    peft__exec *x;
    const peft__task *task;
    const peft__real *in;  /* [rows, ld] */
    peft__real *d;         /* the same of the gradient; NULL: not wanted */
    int64_t ld, cols, rows;
} loss_run;

static int32_t loss_group(const loss_run *r, int64_t row) {
    const int32_t *groups = r->x->frame->row_groups;
    return groups != NULL ? groups[row] : 0;
}

/* The share in the sums of one item of a row. `right`: whether the largest value is where it should be. */
static void loss_account(const loss_run *r, int64_t row, double loss, double nll, double weight, bool right) {
    peft__frame *f = r->x->frame;
    int32_t group = loss_group(r, row);
    f->group_loss[group] += loss;
    f->group_divisor[group] += weight;
    f->loss_sum += loss;
    f->nll_sum += nll;
    f->weight_sum += weight;
    f->divisor += weight;
    f->correct += right;
    f->labelled++;
}

/* ---- cross-entropy over n numbers that lie `step` apart ---------------------------------------------------------------------- */

typedef struct loss_entropy {
    double nll, smooth; /* of the label; mean over all */
    bool right;
} loss_entropy;

/* d (NULL: none) gets scale times the gradient. */
static loss_entropy loss_softmax(const peft__real *v, int64_t step, int64_t n, int64_t label, double e, double scale, peft__real *d) {
    double top = -HUGE_VAL, sum = 0, mean = 0;
    for (int64_t i = 0; i < n; i++) {
        top = PEFT__MAX(top, (double)v[i * step]);
        mean += (double)v[i * step] / (double)n;
    }
    for (int64_t i = 0; i < n; i++) { sum += exp((double)v[i * step] - top); }
    double lse = top + log(sum);
    for (int64_t i = 0; d != NULL && i < n; i++) {
        double p = exp((double)v[i * step] - lse) - e / (double)n - (i == label ? 1 - e : 0);
        d[i * step] = PEFT__R(scale * p);
    }
    return (loss_entropy){lse - (double)v[label * step], lse - mean, (double)v[label * step] >= top};
}

/* labels: one a row of the value; offsets: [n_rows + 1] where those of a row of the batch begin, NULL: it has one. */
static void loss_classes(const loss_run *r, const int32_t *labels, const int64_t *offsets) {
    const peft__frame *f = r->x->frame;
    double e = f->label_smoothing;
    for (int64_t i = 0, row = 0; i < r->rows; i++) {
        if (labels[i] < 0) { continue; }
        while (offsets != NULL ? i >= offsets[row + 1] : i > row) { row++; }
        const float *weights = f->class_weights[loss_group(r, row)];
        double w = weights != NULL ? (double)weights[labels[i]] : 1;
        const peft__real *v = r->in + i * r->ld;
        loss_entropy l = loss_softmax(v, 1, r->cols, labels[i], e, f->loss_scale * w, r->d != NULL ? r->d + i * r->ld : NULL);
        loss_account(r, row, w * ((1 - e) * l.nll + e * l.smooth), w * l.nll, w, l.right);
    }
}

/* ---- numbers ------------------------------------------------------------------------------------------------------------------ */

static void loss_numbers(const loss_run *r, bool several) {
    const peft__frame *f = r->x->frame;
    for (int64_t i = 0; i < r->rows; i++) {
        if (f->row_labels[i] < 0) { continue; }
        double sum = 0;
        bool right = true;
        for (int64_t j = 0; j < r->cols; j++) {
            double x = (double)r->in[i * r->ld + j], y = (double)f->targets[i * r->cols + j], slope;
            if (several) {
                double away = log1p(exp(-fabs(x)));
                sum += PEFT__MAX(x, 0) - x * y + away;
                slope = 1 / (1 + exp(-x)) - y;
                right = right && (x > 0) == (y > 0.5);
            } else {
                sum += (x - y) * (x - y);
                slope = 2 * (x - y);
                right = false;
            }
            if (r->d != NULL) { r->d[i * r->ld + j] = PEFT__R(f->loss_scale * slope / (double)r->cols); }
        }
        loss_account(r, i, sum / (double)r->cols, sum / (double)r->cols, 1, right);
    }
}

/* ---- spans -------------------------------------------------------------------------------------------------------------------- */

static void loss_spans(const loss_run *r) {
    const peft__frame *f = r->x->frame;
    const int64_t *offsets = f->offsets[PEFT__SPACE_TOKENS];
    for (int64_t i = 0; i < f->n_rows; i++) {
        int64_t first = offsets[i], n = offsets[i + 1] - first;
        double nll = 0;
        bool right = true;
        if (f->spans[2 * i] < 0 || f->spans[2 * i + 1] < 0) { continue; }
        for (int64_t j = 0; j < 2; j++) {
            const peft__real *v = r->in + first * r->ld + j;
            peft__real *d = r->d != NULL ? r->d + first * r->ld + j : NULL;
            loss_entropy l = loss_softmax(v, r->ld, n, f->spans[2 * i + j], 0, f->loss_scale / 2, d);
            nll += l.nll / 2;
            right = right && l.right;
        }
        loss_account(r, i, nll, nll, 1, right);
    }
}

/* ---- contrast ----------------------------------------------------------------------------------------------------------------- */

/* Scratch: lengths [rows] and the scores of one anchor [rows]. */
static double *loss_lengths(const loss_run *r) { return (double *)(void *)r->x->op_scratch; }

static double loss_dot(const peft__real *a, const peft__real *b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) { sum += (double)a[i] * (double)b[i]; }
    return sum;
}

/* d of s cos(a, c) with weight g, for both. */
static void loss_cosine_back(const loss_run *r, int64_t a, int64_t c, double cosine, double g) {
    const double *len = loss_lengths(r);
    const peft__real *va = r->in + a * r->ld, *vc = r->in + c * r->ld;
    peft__real *da = r->d + a * r->ld, *dc = r->d + c * r->ld;
    for (int64_t j = 0; j < r->cols; j++) {
        double ua = (double)va[j] / len[a], uc = (double)vc[j] / len[c];
        da[j] += PEFT__R(g * (uc - cosine * ua) / len[a]);
        dc[j] += PEFT__R(g * (ua - cosine * uc) / len[c]);
    }
}

/* Is row c one that the anchor is told from, its own positive among them? Only rows of its group are. */
static bool loss_compared(const loss_run *r, int64_t anchor, int64_t c) {
    return r->x->frame->parts[c] != 0 && loss_group(r, c) == loss_group(r, anchor);
}

static void loss_anchor(const loss_run *r, int64_t anchor, int64_t own) {
    const peft__frame *f = r->x->frame;
    double *len = loss_lengths(r), *cosine = len + r->rows, s = f->similarity_scale, top = -HUGE_VAL, sum = 0;
    bool right = true;
    for (int64_t c = 0; c < r->rows; c++) {
        if (!loss_compared(r, anchor, c)) { continue; }
        cosine[c] = loss_dot(r->in + anchor * r->ld, r->in + c * r->ld, r->cols) / (len[anchor] * len[c]);
        top = PEFT__MAX(top, s * cosine[c]);
    }
    for (int64_t c = 0; c < r->rows; c++) {
        if (!loss_compared(r, anchor, c)) { continue; }
        sum += exp(s * cosine[c] - top);
        right = right && cosine[c] <= cosine[own];
    }
    double lse = top + log(sum), nll = lse - s * cosine[own];
    for (int64_t c = 0; r->d != NULL && c < r->rows; c++) {
        if (!loss_compared(r, anchor, c)) { continue; }
        double p = exp(s * cosine[c] - lse) - (c == own ? 1 : 0);
        loss_cosine_back(r, anchor, c, cosine[c], f->loss_scale * s * p);
    }
    loss_account(r, anchor, nll, nll, 1, right);
}

static void loss_contrast(const loss_run *r) {
    double *len = loss_lengths(r);
    for (int64_t i = 0; i < r->rows; i++) {
        const peft__real *v = r->in + i * r->ld;
        len[i] = PEFT__MAX(sqrt(loss_dot(v, v, r->cols)), 1e-12);
    }
    for (int64_t i = 0; i + 1 < r->rows; i++) { /* an anchor's positive comes after it */
        if (r->x->frame->parts[i] == 0) { loss_anchor(r, i, i + 1); }
    }
}

/* ---- the op -------------------------------------------------------------------------------------------------------------------- */

/* ---- the host's ------------------------------------------------------------------------------------------------------------------ */

/* Values [rows, cols] to the host, stretch by stretch of rows of one group; they become their gradient in r->d. */
static void loss_host(const loss_run *r) {
    peft__frame *f = r->x->frame;
    bool tokens = r->task->kind == PEFT__TASK_TOKENS || r->task->kind == PEFT__TASK_SPAN;
    const int64_t *offsets = tokens ? f->offsets[PEFT__SPACE_TOKENS] : NULL;
    const int32_t *given = r->task->kind == PEFT__TASK_TOKENS ? f->labels : tokens ? NULL : f->row_labels;
    int64_t *rows = (int64_t *)(void *)r->x->op_scratch, *at = rows + r->rows;
    int32_t *labels = (int32_t *)(void *)(at + r->rows);
    for (int64_t i = 0, row = 0; i < r->rows; i++) {
        while (offsets != NULL ? i >= offsets[row + 1] : i > row) { row++; }
        rows[i] = row;
        at[i] = offsets != NULL ? i - offsets[row] : 0;
        labels[i] = given != NULL ? given[i] : -100;
        memcpy(r->d + i * r->ld, r->in + i * r->ld, (size_t)r->cols * sizeof *r->d);
    }
    for (int64_t first = 0, end; first < r->rows; first = end) {
        for (end = first + 1; end < r->rows && loss_group(r, rows[end]) == loss_group(r, rows[first]); end++) {}
        peft__loss_part p = {.group = loss_group(r, rows[first]), .rows = end - first, .cols = r->cols, .values = r->d + first * r->ld,
                             .batch_rows = rows + first, .tokens = at + first, .labels = labels + first};
        f->loss_failed = f->loss_failed || !f->loss(f->loss_user, &p);
        peft__op_host_loss(f, &p);
    }
}

static void loss_take(peft__exec *x, const peft__op *op, bool gradient) {
    const peft__frame *f = x->frame;
    bool add = false;
    loss_run r = {x, op->aux, peft__exec_data(x, op->in[0]), NULL, peft__exec_ld(x, op->in[0]),
                  peft__tape_value(x->tape, op->in[0])->cols, peft__exec_rows(x, op->in[0])};
    r.d = gradient ? peft__exec_grad_out(x, op->in[0], &add) : NULL;
    if (r.d != NULL) { memset(r.d, 0, (size_t)(r.rows * r.ld) * sizeof *r.d); }
    if (f->loss != NULL && r.d != NULL && r.ld == r.cols) {
        loss_host(&r);
    } else if (r.task->kind == PEFT__TASK_TOKENS) {
        if (f->labels != NULL) { loss_classes(&r, f->labels, f->offsets[PEFT__SPACE_TOKENS]); }
    } else if (r.task->kind == PEFT__TASK_SPAN) {
        if (f->spans != NULL) { loss_spans(&r); }
    } else if (r.task->kind == PEFT__TASK_EMBEDDING) {
        if (f->parts != NULL) { loss_contrast(&r); }
    } else if (f->row_labels != NULL && r.task->problem == PEFT__PROBLEM_SINGLE) {
        loss_classes(&r, f->row_labels, NULL);
    } else if (f->row_labels != NULL && f->targets != NULL) {
        loss_numbers(&r, r.task->problem == PEFT__PROBLEM_MULTI);
    }
}

/* Values that the caller asked for: of all rows, or of chosen tokens. */
static void loss_hand_out(peft__exec *x, const peft__op *op) {
    const peft__frame *f = x->frame;
    const peft__real *in = peft__exec_data(x, op->in[0]);
    int64_t ld = peft__exec_ld(x, op->in[0]), cols = peft__tape_value(x->tape, op->in[0])->cols;
    bool rows = peft__tape_value(x->tape, op->in[0])->space == PEFT__SPACE_ROWS;
    for (int64_t i = 0; i < (rows ? f->n_rows : f->n_logits); i++) {
        const peft__real *v = in + (rows ? i : f->logit_tokens[i]) * ld;
        for (int64_t j = 0; j < cols; j++) { f->logits[i * cols + j] = (float)v[j]; }
    }
}

static void loss_forward(peft__exec *x, const peft__op *op) {
    if (x->frame->logits != NULL) { loss_hand_out(x, op); }
    loss_take(x, op, false);
}

static void loss_backward(peft__exec *x, const peft__op *op) { loss_take(x, op, true); }

static uint32_t loss_reads(const peft__tape *t, const peft__op *op) {
    (void)t;
    (void)op;
    return 1u;
}

static size_t loss_scratch(const peft__tape *t, const peft__op *op, const peft__caps *caps) {
    bool tokens = peft__tape_value(t, op->in[0])->space != PEFT__SPACE_ROWS;
    size_t rows = (size_t)(tokens ? caps->max_tokens + caps->max_rows * caps->virtual_tokens : caps->max_rows);
    return rows * (2 * sizeof(int64_t) + sizeof(int32_t)) + 64; /* as much as two lengths a row and more */
}

static const peft__op_kind loss_kind = {"loss", PEFT__OPF_LOSS | PEFT__OPF_SOLE, loss_reads, loss_forward, loss_backward, NULL,
                                        loss_scratch};

void peft__op_loss(peft__tape *t, peft__val x, const peft__task *task) {
    peft__op *op = peft__tape_push(t, &loss_kind, 1, &x);
    if (op != NULL) { op->aux = task; }
}
