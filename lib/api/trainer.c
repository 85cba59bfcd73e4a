/* trainer.c - peft_trainer: jobs, plan, run, and the pieces of a step. */
#include "api/api.h"

peft_status peft_trainer_create(peft_adapters *a, const peft_options *options, peft_trainer **out) {
    peft_status st = PEFT_OK;
    peft__optset own = {0};
    const peft__optset *o = NULL;
    TRY(peft__check_arg(out, "out"));
    *out = NULL;
    TRY(peft__check_handle(a, PEFT__MAGIC_ADAPTERS, "adapters"));
    TRY(peft__pick_options(options, &a->ctx->mem, &peft__schema_trainer, &own, &o));
    TRY(peft__trainer_create(a, o, out));
out:
    peft__optset_free(&own);
    return st;
}

/* A trainer that is inside a run or an evaluation is its caller's, and its callbacks may only cancel. */
peft_status peft__check_trainer(const peft_trainer *t) {
    peft_status st = peft__check_handle(t, PEFT__MAGIC_TRAINER, "trainer");
    if (st == PEFT_OK && t->running) {
        st = peft__fail(PEFT_E_BUSY, "the trainer is running: a callback may only cancel it");
    }
    return st;
}

void peft_trainer_free(peft_trainer *t) {
    if (!peft__is_handle(t, PEFT__MAGIC_TRAINER)) { return; }
    if (peft__check_trainer(t) != PEFT_OK) { /* rather a leak than a crash after the callback */
        peft__log(t->ctx, PEFT_LOG_ERROR, "peft_trainer_free was called by a callback of the trainer: it is not freed");
        return;
    }
    peft__trainer_free(t);
}

peft_status peft_trainer_add_job(peft_trainer *t, const char *adapter, peft_dataset *train, peft_dataset *eval,
                                 const peft_options *optimizer) {
    peft_status st = PEFT_OK;
    peft__optset own = {0};
    const peft__optset *o = NULL;
    TRY(peft__check_trainer(t));
    TRY(peft__check_text(adapter, "adapter"));
    if (train != NULL) { TRY(peft__check_handle(train, PEFT__MAGIC_DATASET, "train")); }
    if (eval != NULL) { TRY(peft__check_handle(eval, PEFT__MAGIC_DATASET, "eval")); }
    TRY(peft__pick_options(optimizer, &t->ctx->mem, &peft__schema_optimizer, &own, &o));
    TRY(peft__trainer_add_job(t, adapter, train, eval, o));
out:
    peft__optset_free(&own);
    return st;
}

peft_status peft_trainer_set_progress(peft_trainer *t, peft_progress_fn fn, void *user) {
    peft_status st = PEFT_OK;
    TRY(peft__check_trainer(t));
    t->progress = fn;
    t->progress_user = user;
out:
    return st;
}

peft_status peft_trainer_plan_json(peft_trainer *t, char *buf, size_t cap, size_t *needed) {
    peft_status st = PEFT_OK;
    peft__str text;
    TRY(peft__check_buffer(buf, cap, needed));
    TRY(peft__check_trainer(t));
    peft__str_init(&text, &t->ctx->mem);
    return peft__finish_text(peft__trainer_plan_json(t, &text), &text, buf, cap, needed);
out:
    return st;
}

peft_status peft_trainer_run(peft_trainer *t) {
    peft_status st = peft__check_trainer(t);
    return st == PEFT_OK ? peft__trainer_run(t) : st;
}

peft_status peft_trainer_step(peft_trainer *t, int32_t *more) {
    peft_status st = PEFT_OK;
    bool left = false;
    TRY(peft__check_arg(more, "more"));
    TRY(peft__check_trainer(t));
    st = peft__trainer_step(t, &left);
    *more = left;
out:
    return st;
}

peft_status peft_trainer_accumulate(peft_trainer *t, const peft_batch *batch, double *loss) {
    peft_status st = PEFT_OK;
    TRY(peft__check_trainer(t));
    TRY(peft__check_handle(batch, PEFT__MAGIC_BATCH, "batch"));
    TRY(peft__trainer_accumulate(t, batch, loss));
out:
    return st;
}

peft_status peft_trainer_apply(peft_trainer *t) {
    peft_status st = peft__check_trainer(t);
    return st == PEFT_OK ? peft__trainer_apply(t) : st;
}

peft_status peft_trainer_gradient_read(peft_trainer *t, const char *adapter, const char *tensor, float *buf, size_t cap,
                                       size_t *needed) {
    peft_status st = PEFT_OK;
    TRY(peft__check_buffer(buf, cap, needed));
    TRY(peft__check_trainer(t));
    TRY(peft__check_text(adapter, "adapter"));
    TRY(peft__check_text(tensor, "tensor"));
    TRY(peft__trainer_gradient(t, adapter, tensor, buf, cap, needed));
out:
    return st;
}

peft_status peft_trainer_evaluate(peft_trainer *t, peft_dataset *data, char *buf, size_t cap, size_t *needed) {
    peft_status st = PEFT_OK;
    peft__str text;
    TRY(peft__check_buffer(buf, cap, needed));
    TRY(peft__check_trainer(t));
    TRY(peft__check_handle(data, PEFT__MAGIC_DATASET, "data"));
    peft__str_init(&text, &t->ctx->mem);
    st = peft__trainer_evaluate(t, data, &text);
    if (st == PEFT_E_CANCELLED) { atomic_store(&t->cancel, false); } /* it has done its work */
    return peft__finish_text(st, &text, buf, cap, needed);
out:
    return st;
}

/* One store: a signal handler may call it. */
void peft_trainer_cancel(peft_trainer *t) {
    if (peft__is_handle(t, PEFT__MAGIC_TRAINER)) { atomic_store(&t->cancel, true); }
}

peft_status peft_trainer_checkpoint_save(peft_trainer *t, const char *path) {
    peft_status st = PEFT_OK;
    TRY(peft__check_trainer(t));
    TRY(peft__check_text(path, "path"));
    TRY(peft__checkpoint_save(t, path));
out:
    return st;
}

peft_status peft_trainer_checkpoint_load(peft_trainer *t, const char *path) {
    peft_status st = PEFT_OK;
    TRY(peft__check_trainer(t));
    TRY(peft__check_text(path, "path"));
    TRY(peft__checkpoint_load(t, path));
out:
    return st;
}
