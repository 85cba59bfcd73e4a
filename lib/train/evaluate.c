/* evaluate.c - what a model is worth on a data set: loss, and the measures of its task, over all rows whatever the batches.
 *
 *   language model       loss, perplexity and accuracy over the labelled tokens
 *   verbalizer           of each row the class whose words are likeliest; the loss is that of the right words
 *   classification, ...  metrics.c, answers.c
 *
 * Tokens of a masked language model are masked by a draw that the rows fix, the same in every evaluation.
 *
 * Left out: batches by length; ROUGE and BLEU, which compare texts. */
#include <math.h>

#include "train/metrics.h"

enum { EVALUATE_TOKENS = 512, EVALUATE_ROWS = 64, EVALUATE_SEED = 0x65766121 };

typedef struct evaluation {
    peft__exec *x;
    peft__frame_room *room;
    const struct peft_dataset *d;
    bool choosing;           /* rows are the verbalizer's candidates */
    size_t first, count;     /* rows of the set that are in the frame */
    float *values;           /* owned: outputs of a frame, [rows or tokens, columns] */
    int64_t *tokens;         /* owned, [tokens of a frame] 0, 1, ...: those whose outputs are wanted */
    int32_t *truth, *predicted; /* owned, [tokens of a frame]: labelled tokens of one row */
    double *nll;             /* owned, [rows of a frame] */
    double *choices;         /* owned, [d->answers]: scores of the candidates of a row */
    int64_t columns, max_tokens;
    double loss_sum, divisor;
    int64_t labelled, correct, rows;
    peft__scores scores;
    peft__answers answers;
    bool scored;             /* scores has something */
    float *outputs;          /* the caller's: outputs of all rows, one after the other; NULL: not wanted */
    size_t n_outputs;        /* written so far */
} evaluation;

static const peft__task *evaluate_task(const evaluation *e) {
    static const peft__task causal;
    return e->room->kind != NULL ? e->room->kind : &causal;
}

static const peft__row *evaluate_row(const evaluation *e, size_t i) {
    return e->choosing ? &PEFT__VEC_AT(&e->d->candidates, peft__row, i) : peft__dataset_row(e->d, i);
}

static size_t evaluate_rows(const evaluation *e) { return e->choosing ? e->d->candidates.len : peft__dataset_size(e->d); }

/* ---- room ------------------------------------------------------------------------------------------------------------------ */

static peft_status evaluate_begin(evaluation *e, peft__exec *x, peft__frame_room *room, const struct peft_dataset *d) {
    peft_status st = PEFT_OK;
    const peft__task *task = room->kind;
    const peft__caps *caps = &room->caps;
    peft__mem *mem = room->mem;
    memset(e, 0, sizeof *e);
    e->x = x;
    e->room = room;
    e->d = d;
    e->choosing = d->answers > 0 && (task == NULL || task->kind == PEFT__TASK_CAUSAL_LM);
    e->max_tokens = caps->max_tokens + caps->max_rows * caps->virtual_tokens;
    peft__task classes = task != NULL ? *task : (peft__task){.kind = PEFT__TASK_CAUSAL_LM};
    if (e->choosing) {
        classes = (peft__task){.kind = PEFT__TASK_SEQUENCE, .labels = d->answers};
        e->nll = peft__alloc(mem, (size_t)caps->max_rows * sizeof *e->nll);
        e->choices = peft__alloc(mem, (size_t)d->answers * sizeof *e->choices);
        if (e->nll == NULL || e->choices == NULL) { return PEFT_E_NOMEM; }
    }
    e->scored = !peft__task_is_lm(&classes) && classes.kind != PEFT__TASK_SPAN;
    if (e->scored) { TRY(peft__scores_begin(&e->scores, mem, &classes)); }
    if (task == NULL || peft__task_is_lm(task)) { goto out; }
    const peft__op *last = peft__tape_op(x->tape, (int32_t)x->tape->ops.len - 1);
    e->columns = peft__tape_value(x->tape, last->in[0])->cols;
    bool rows = peft__tape_value(x->tape, last->in[0])->space == PEFT__SPACE_ROWS;
    e->values = peft__alloc(mem, (size_t)((rows ? caps->max_rows : e->max_tokens) * e->columns) * sizeof *e->values);
    e->tokens = peft__alloc(mem, (size_t)e->max_tokens * sizeof *e->tokens);
    e->truth = peft__alloc(mem, (size_t)e->max_tokens * sizeof *e->truth);
    e->predicted = peft__alloc(mem, (size_t)e->max_tokens * sizeof *e->predicted);
    if (e->values == NULL || e->tokens == NULL || e->truth == NULL || e->predicted == NULL) { return PEFT_E_NOMEM; }
    for (int64_t t = 0; t < e->max_tokens; t++) { e->tokens[t] = t; }
    if (task->kind == PEFT__TASK_SPAN) { peft__answers_begin(&e->answers, mem, d); }
out:
    return st;
}

static void evaluate_end(evaluation *e) {
    peft__mem *mem = e->room->mem;
    const peft__caps *caps = &e->room->caps;
    bool rows = e->room->kind != NULL && (e->room->kind->kind == PEFT__TASK_SEQUENCE || e->room->kind->kind == PEFT__TASK_EMBEDDING);
    peft__free(mem, e->nll, (size_t)caps->max_rows * sizeof *e->nll);
    peft__free(mem, e->choices, (size_t)e->d->answers * sizeof *e->choices);
    peft__free(mem, e->values, (size_t)((rows ? caps->max_rows : e->max_tokens) * e->columns) * sizeof *e->values);
    peft__free(mem, e->tokens, (size_t)e->max_tokens * sizeof *e->tokens);
    peft__free(mem, e->truth, (size_t)e->max_tokens * sizeof *e->truth);
    peft__free(mem, e->predicted, (size_t)e->max_tokens * sizeof *e->predicted);
    peft__scores_free(&e->scores);
}

/* ---- measuring a frame ------------------------------------------------------------------------------------------------------- */

static int32_t evaluate_best(const float *v, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++) { best = v[i] > v[best] ? i : best; }
    return (int32_t)best;
}

static peft_status evaluate_sequence(evaluation *e, int64_t r) {
    const peft__frame *f = &e->room->frame;
    const float *v = e->values + r * e->columns;
    int32_t problem = e->room->kind->problem;
    if (problem == PEFT__PROBLEM_SINGLE) {
        peft__scores_class(&e->scores, f->row_labels[r], evaluate_best(v, e->columns));
        return PEFT_OK;
    }
    if (f->row_labels[r] < 0) { return PEFT_OK; }
    if (problem == PEFT__PROBLEM_REGRESSION) { return peft__scores_numbers(&e->scores, v, f->targets + r * e->columns); }
    peft__scores_several(&e->scores, v, f->targets + r * e->columns);
    return PEFT_OK;
}

static void evaluate_tokens(evaluation *e, int64_t r) {
    const peft__frame *f = &e->room->frame;
    const int64_t *offsets = f->offsets[PEFT__SPACE_TOKENS];
    int64_t n = 0;
    for (int64_t t = offsets[r]; t < offsets[r + 1]; t++) {
        if (f->labels[t] < 0) { continue; }
        e->truth[n] = f->labels[t];
        e->predicted[n++] = evaluate_best(e->values + t * e->columns, e->columns);
    }
    peft__scores_tokens(&e->scores, e->truth, e->predicted, n);
}

/* Cosines of pairs that the set has a number for. */
static peft_status evaluate_pair(evaluation *e, int64_t r, const peft__row *row) {
    if (row->n_targets != 1) { return PEFT_OK; }
    float cosine = (float)peft__cosine(e->values + r * e->columns, e->values + (r + 1) * e->columns, e->columns);
    return peft__scores_numbers(&e->scores, &cosine, (const float *)e->d->targets.data + row->target);
}

static peft_status evaluate_task_rows(evaluation *e) {
    peft_status st = PEFT_OK;
    const peft__frame *f = &e->room->frame;
    const int64_t *offsets = f->offsets[PEFT__SPACE_TOKENS];
    int64_t copies = f->n_rows / (int64_t)PEFT__MAX(e->count, (size_t)1);
    for (int64_t r = 0, pair = -1; r < f->n_rows; r++) {
        if (e->room->kind->kind == PEFT__TASK_SEQUENCE) {
            TRY(evaluate_sequence(e, r));
        } else if (e->room->kind->kind == PEFT__TASK_TOKENS) {
            evaluate_tokens(e, r);
        } else if (e->room->kind->kind == PEFT__TASK_SPAN) {
            const peft__row *row = peft__dataset_row(e->d, e->first + (size_t)(r / copies));
            TRY(peft__answers_add_window(&e->answers, row, e->values + (offsets[r + 1] - row->n) * e->columns));
        } else if (f->parts[r] == 0) {
            pair++;
            TRY(evaluate_pair(e, r, peft__dataset_row(e->d, e->first + (size_t)pair)));
        }
    }
out:
    return st;
}

/* Candidates of a row come one after the other, perhaps in several frames. */
static void evaluate_choices(evaluation *e) {
    for (size_t i = 0; i < e->count; i++) {
        size_t at = e->first + i;
        int64_t c = (int64_t)(at % (size_t)e->d->answers);
        int32_t truth = evaluate_row(e, at)->label;
        e->choices[c] = -e->nll[i];
        if (truth == (int32_t)c) { e->loss_sum += e->nll[i]; }
        if (c + 1 == e->d->answers) { peft__scores_class(&e->scores, truth, peft__candidate_best(e->choices, e->d->answers)); }
    }
}

/* Outputs of the frame's rows, or of their own tokens, for the caller. */
static void evaluate_keep(evaluation *e) {
    const peft__frame *f = &e->room->frame;
    const int64_t *offsets = f->offsets[PEFT__SPACE_TOKENS], *own = f->offsets[PEFT__SPACE_INPUT];
    bool rows = peft__task_pools(e->room->kind);
    for (int64_t r = 0; r < f->n_rows; r++) {
        int64_t n = rows ? 1 : own[r + 1] - own[r], first = rows ? r : offsets[r + 1] - n;
        size_t size = (size_t)(n * e->columns);
        memcpy(e->outputs + e->n_outputs, e->values + first * e->columns, size * sizeof *e->outputs);
        e->n_outputs += size;
    }
}

static peft_status evaluate_flush(evaluation *e) {
    peft_status st = PEFT_OK;
    peft__frame *f = &e->room->frame;
    if (f->n_rows == 0) { return PEFT_OK; }
    if (e->values != NULL) {
        f->logits = e->values;
        f->logit_tokens = e->tokens;
        f->n_logits = f->count[PEFT__SPACE_TOKENS];
    }
    if (e->choosing) {
        memset(e->nll, 0, (size_t)f->n_rows * sizeof *e->nll);
        f->row_nll = e->nll;
    }
    TRY(peft__exec_run(e->x, f, false));
    if (e->choosing) { evaluate_choices(e); } else { e->loss_sum += f->nll_sum; }
    e->divisor += f->divisor;
    e->labelled += f->labelled;
    e->correct += f->correct;
    e->rows += (int64_t)e->count;
    if (e->outputs != NULL) {
        evaluate_keep(e);
    } else if (e->values != NULL) {
        TRY(evaluate_task_rows(e));
    }
    peft__frame_begin(e->room);
    e->first += e->count;
    e->count = 0;
out:
    return st;
}

/* ---- the result -------------------------------------------------------------------------------------------------------------- */

static void evaluate_float(peft__json_out *j, const char *key, double v) {
    peft__json_key(j, key);
    peft__json_put_float(j, v);
}

static peft_status evaluate_json(const evaluation *e, double loss, peft__str *out) {
    peft_status st = PEFT_OK;
    const peft__task *task = evaluate_task(e);
    peft__json_out j;
    bool lm = peft__task_is_lm(task);
    peft__json_begin(&j, out, 0);
    peft__json_object(&j);
    evaluate_float(&j, "loss", loss);
    if (lm) { evaluate_float(&j, "perplexity", exp(loss)); }
    if (e->scored && !(task->kind == PEFT__TASK_EMBEDDING && e->scores.pairs.len == 0)) { TRY(peft__scores_write(&e->scores, &j)); }
    if (task->kind == PEFT__TASK_SPAN) { peft__answers_write(&e->answers, &j); }
    if ((lm && !e->choosing) || task->kind == PEFT__TASK_EMBEDDING) {
        evaluate_float(&j, "accuracy", (double)e->correct / (double)PEFT__MAX(e->labelled, 1));
    }
    if (lm || task->kind == PEFT__TASK_TOKENS) {
        peft__json_key(&j, "tokens");
        peft__json_put_int(&j, e->labelled);
    }
    peft__json_key(&j, "rows");
    peft__json_put_int(&j, e->choosing ? e->rows / e->d->answers : e->rows);
    peft__json_object_end(&j);
    TRY(peft__str_status(out));
out:
    return st;
}

static bool evaluate_add(evaluation *e, size_t i) {
    if (!peft__frame_add_row(e->room, e->d, evaluate_row(e, i))) { return false; }
    e->count++;
    return true;
}

/* What the verbalizer's losses are divided by: labelled tokens of the right candidates. */
static double evaluate_choice_tokens(const evaluation *e) {
    const int32_t *labels = e->d->labels.data;
    double n = 0;
    for (size_t i = 0; i < e->d->candidates.len; i++) {
        const peft__row *r = evaluate_row(e, i);
        if (r->label != (int32_t)(i % (size_t)e->d->answers)) { continue; }
        for (int64_t t = r->first; t < r->first + r->n; t++) { n += labels[t] >= 0; }
    }
    return n;
}

peft_status peft__evaluate(peft__exec *x, peft__frame_room *room, const struct peft_dataset *d, atomic_int *cancel,
                           peft__metrics *out, peft__str *json, float *outputs) {
    peft_status st = PEFT_OK;
    evaluation e;
    memset(out, 0, sizeof *out);
    TRY(evaluate_begin(&e, x, room, d));
    e.outputs = outputs;
    peft__frame_begin(room);
    for (size_t i = 0; i < evaluate_rows(&e); i++) {
        if (cancel != NULL && atomic_exchange(cancel, false)) { FAIL(PEFT_E_CANCELLED, "cancelled"); }
        if (evaluate_add(&e, i)) { continue; }
        TRY(evaluate_flush(&e));
        if (!evaluate_add(&e, i)) {
            FAIL(PEFT_E_SHAPE, "row %zu has %lld tokens, more than the plan's %lld", i, (long long)evaluate_row(&e, i)->n,
                 (long long)PEFT__MIN(room->caps.max_length, room->caps.max_tokens));
        }
    }
    TRY(evaluate_flush(&e));
    if (!isfinite(e.loss_sum)) { FAIL(PEFT_E_NUMERIC, "the loss of the data is not a finite number"); }
    if (room->kind != NULL && room->kind->kind == PEFT__TASK_SPAN) { TRY(peft__answers_end(&e.answers)); }
    double divisor = e.choosing ? evaluate_choice_tokens(&e) : e.divisor;
    *out = (peft__metrics){e.loss_sum / (divisor > 0 ? divisor : 1), e.labelled, e.rows};
    if (json != NULL) { TRY(evaluate_json(&e, out->loss, json)); }
out:
    peft__frame_begin(room);
    evaluate_end(&e);
    return st;
}

size_t peft__evaluate_outputs(const struct peft_dataset *d, const peft__config *config) {
    const peft__task *t = &config->task;
    size_t n = 0;
    for (size_t i = 0; i < peft__dataset_size(d); i++) {
        const peft__row *r = peft__dataset_row(d, i);
        size_t texts = r->part[0] == 0 ? 1 : (size_t)(1 + (r->part[1] > 0) + (r->n > r->part[0] + r->part[1]));
        n += peft__task_pools(t) ? texts : (size_t)r->n;
    }
    return n * (size_t)(t->kind == PEFT__TASK_EMBEDDING ? config->hidden_size : t->labels);
}

peft__masking peft__evaluate_masking(const struct peft_dataset *d, const peft__config *config) {
    const peft__masking none = {0, -1, 1, 0};
    if (d == NULL || d->tokenizer == NULL || d->kind != PEFT__TASK_MASKED_LM) { return none; }
    double share = peft__opt_float(&d->opts, "mlm_probability");
    return (peft__masking){share, peft__tokenizer_mask(d->tokenizer->inner), config->vocab_size, EVALUATE_SEED};
}

peft_status peft__caps_check(const peft__caps *caps, const peft__config *config) {
    int64_t more = caps->virtual_tokens + caps->position_shift;
    if (config->max_positions > 0 && caps->max_source_length + caps->source_virtual > config->max_positions) {
        return peft__fail(PEFT_E_SHAPE, "rows of %lld tokens for the encoder are longer than the model's %lld positions: lower "
                          "max_source_length", (long long)(caps->max_source_length + caps->source_virtual),
                          (long long)config->max_positions);
    }
    if (config->max_positions <= 0 || more == 0 || caps->max_length + more <= config->max_positions) { return PEFT_OK; }
    return peft__fail(PEFT_E_SHAPE, "rows of %lld tokens with %lld virtual ones are longer than the model's %lld positions: "
                      "lower max_length", (long long)caps->max_length, (long long)more, (long long)config->max_positions);
}

peft_status peft__evaluate_model(struct peft_model *m, const peft__base_info *base, const peft__expression *e,
                                 const struct peft_dataset *d, atomic_int *cancel, peft__metrics *out, peft__str *json, float *outputs,
                                 bool bf16) {
    peft_status st = PEFT_OK;
    peft__mem *mem = &m->ctx->mem;
    peft__pool *pool = NULL;
    peft__tape tape;
    peft__plan plan;
    peft__exec exec;
    peft__frame_room room;
    int32_t *classes = NULL;
    memset(&plan, 0, sizeof plan);
    memset(&exec, 0, sizeof exec);
    memset(&room, 0, sizeof room);
    peft__tape_init(&tape, mem, false);
    TRY(peft__dataset_check(d, &m->config, peft__expression_new_tokens(e), "evaluation"));
    if (outputs == NULL) { TRY(peft__labels_match(d, &m->config.task, "evaluation", mem, &classes)); }
    TRY(peft__labels_undivided(&m->config.task, e));
    int64_t longest = peft__dataset_longest(d);
    int64_t rows = peft__expression_rows(e), copies = peft__expression_copies(e);
    copies *= peft__dataset_parts(d);
    int64_t tokens = rows > 0 ? rows * longest : PEFT__MAX(EVALUATE_TOKENS, copies * longest);
    peft__caps caps = {.max_rows = PEFT__MAX(EVALUATE_ROWS, rows), .max_tokens = tokens, .max_length = longest, .bf16 = bf16};
    caps.max_source_length = peft__dataset_longest_source(d);
    if (caps.max_source_length > 0) {
        caps.max_source = rows > 0 ? rows * caps.max_source_length : PEFT__MAX(EVALUATE_TOKENS, copies * caps.max_source_length);
    }
    TRY(peft__pool_create(mem, m->ctx->threads, &pool));
    peft__pool_set_host(pool, m->ctx->parallel_for, m->ctx->parallel_user);
    TRY(peft__compose(&tape, base, e));
    m->arch->record(m, &tape);
    TRY(peft__tape_finish(&tape));
    TRY(peft__dataset_check_tasks(d, &tape, "evaluation"));
    caps.virtual_tokens = tape.virtual_tokens;
    caps.position_shift = tape.position_shift;
    caps.source_virtual = tape.source_virtual;
    TRY(peft__caps_check(&caps, &m->config));
    TRY(peft__plan_make(&plan, mem, &tape, &caps, 0, m->ctx->kernels, peft__pool_size(pool), peft__config_head_dim(&m->config)));
    TRY(peft__exec_create(&exec, mem, &tape, &plan, m->ctx->kernels, pool));
    TRY(peft__frame_room_create(&room, mem, &caps));
    peft__frame_room_divide(&room, &tape, e);
    TRY(peft__frame_room_task(&room, &m->config));
    room.classes = classes;
    room.masking = peft__evaluate_masking(d, &m->config);
    room.unlabelled = outputs != NULL;
    TRY(peft__evaluate(&exec, &room, d, cancel, out, json, outputs));
out:
    peft__labels_free(d, mem, classes);
    peft__frame_room_free(&room);
    peft__exec_free(&exec);
    peft__plan_free(&plan);
    peft__tape_free(&tape);
    peft__pool_free(pool);
    return st;
}
