/* evaluate.c - loss, perplexity and accuracy of a data set: means over its labelled tokens, whatever the batches. */
#include <math.h>

#include "train/train.h"

peft_status peft__metrics_json(const peft__metrics *m, peft__str *out) {
    peft__json_out j;
    double n = (double)PEFT__MAX(m->tokens, 1);
    peft__json_begin(&j, out, 0);
    peft__json_object(&j);
    peft__json_key(&j, "loss");
    peft__json_put_float(&j, m->loss_sum / n);
    peft__json_key(&j, "perplexity");
    peft__json_put_float(&j, exp(m->loss_sum / n));
    peft__json_key(&j, "accuracy");
    peft__json_put_float(&j, (double)m->correct / n);
    peft__json_key(&j, "tokens");
    peft__json_put_int(&j, m->tokens);
    peft__json_key(&j, "rows");
    peft__json_put_int(&j, m->rows);
    peft__json_object_end(&j);
    return peft__str_status(out);
}

static peft_status evaluate_flush(peft__exec *x, peft__frame_room *room, peft__metrics *out) {
    peft_status st = PEFT_OK;
    if (room->frame.n_rows == 0) { return PEFT_OK; }
    TRY(peft__exec_run(x, &room->frame, false));
    out->loss_sum += room->frame.nll_sum;
    out->tokens += room->frame.labelled;
    out->correct += room->frame.correct;
    out->rows += room->frame.n_rows;
    peft__frame_begin(room);
out:
    return st;
}

static bool evaluate_add(peft__frame_room *room, const struct peft_dataset *d, const peft__row *r) {
    const int32_t *ids = d->ids.data, *labels = d->labels.data;
    room->task = r->task;
    return peft__frame_add(room, ids + r->first, labels + r->first, NULL, r->n, r->key);
}

peft_status peft__evaluate(peft__exec *x, peft__frame_room *room, const struct peft_dataset *d, atomic_int *cancel,
                           peft__metrics *out) {
    peft_status st = PEFT_OK;
    memset(out, 0, sizeof *out);
    peft__frame_begin(room);
    for (size_t i = 0; i < peft__dataset_size(d); i++) {
        const peft__row *r = peft__dataset_row(d, i);
        if (cancel != NULL && atomic_exchange(cancel, false)) { FAIL(PEFT_E_CANCELLED, "cancelled"); }
        if (evaluate_add(room, d, r)) { continue; }
        TRY(evaluate_flush(x, room, out));
        if (!evaluate_add(room, d, r)) {
            FAIL(PEFT_E_SHAPE, "row %zu has %lld tokens, more than the plan's %lld", i, (long long)r->n,
                 (long long)PEFT__MIN(room->caps.max_length, room->caps.max_tokens));
        }
    }
    TRY(evaluate_flush(x, room, out));
    if (!isfinite(out->loss_sum)) { FAIL(PEFT_E_NUMERIC, "the loss of the data is not a finite number"); }
out:
    return st;
}

peft_status peft__caps_check(const peft__caps *caps, const peft__config *config) {
    int64_t more = caps->virtual_tokens + caps->position_shift;
    if (config->max_positions <= 0 || more == 0 || caps->max_length + more <= config->max_positions) { return PEFT_OK; }
    return peft__fail(PEFT_E_SHAPE, "rows of %lld tokens with %lld virtual ones are longer than the model's %lld positions: "
                      "lower max_length", (long long)caps->max_length, (long long)more, (long long)config->max_positions);
}

enum { EVALUATE_TOKENS = 512, EVALUATE_ROWS = 64 };

peft_status peft__evaluate_model(struct peft_model *m, const peft__base_info *base, const peft__expression *e,
                                 const struct peft_dataset *d, atomic_int *cancel, peft__metrics *out) {
    peft_status st = PEFT_OK;
    peft__mem *mem = &m->ctx->mem;
    peft__pool *pool = NULL;
    peft__tape tape;
    peft__plan plan;
    peft__exec exec;
    peft__frame_room room;
    memset(&plan, 0, sizeof plan);
    memset(&exec, 0, sizeof exec);
    memset(&room, 0, sizeof room);
    peft__tape_init(&tape, mem, false);
    TRY(peft__dataset_check(d, &m->config, peft__expression_new_tokens(e), "evaluation"));
    int64_t longest = peft__dataset_longest(d);
    int64_t rows = peft__expression_rows(e), copies = peft__expression_copies(e);
    int64_t tokens = rows > 0 ? rows * longest : PEFT__MAX(EVALUATE_TOKENS, copies * longest);
    peft__caps caps = {PEFT__MAX(EVALUATE_ROWS, rows), tokens, longest, 0, 0};
    TRY(peft__pool_create(mem, m->ctx->threads, &pool));
    peft__pool_set_host(pool, m->ctx->parallel_for, m->ctx->parallel_user);
    TRY(peft__compose(&tape, base, e));
    m->arch->record(m, &tape);
    TRY(peft__tape_finish(&tape));
    TRY(peft__dataset_check_tasks(d, &tape, "evaluation"));
    caps.virtual_tokens = tape.virtual_tokens;
    caps.position_shift = tape.position_shift;
    TRY(peft__caps_check(&caps, &m->config));
    TRY(peft__plan_make(&plan, mem, &tape, &caps, 0, m->ctx->kernels, peft__pool_size(pool), m->config.head_dim));
    TRY(peft__exec_create(&exec, mem, &tape, &plan, m->ctx->kernels, pool));
    TRY(peft__frame_room_create(&room, mem, &caps));
    peft__frame_room_divide(&room, &tape, e);
    TRY(peft__evaluate(&exec, &room, d, cancel, out));
out:
    peft__frame_room_free(&room);
    peft__exec_free(&exec);
    peft__plan_free(&plan);
    peft__tape_free(&tape);
    peft__pool_free(pool);
    return st;
}
