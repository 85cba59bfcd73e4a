/* trainer_hooks.c - a trainer's callbacks beside progress: the host's own loss, and sums over several processes. */
#include "api/api.h"

peft_status peft_trainer_set_loss(peft_trainer *t, peft_loss_fn fn, void *user) {
    peft_status st = PEFT_OK;
    TRY(peft__check_trainer(t));
    if (fn != NULL && t->model->config.final_softcap > 0) {
        FAIL(PEFT_E_UNSUPPORTED, "the logits of a %s model are capped, and a loss callback takes them as they are", t->model->model_type);
    }
    t->loss = fn;
    t->loss_user = user;
out:
    return st;
}

peft_status peft_trainer_set_all_reduce(peft_trainer *t, int32_t rank, int32_t size, peft_all_reduce_fn fn, void *user) {
    peft_status st = PEFT_OK;
    TRY(peft__check_trainer(t));
    if (size < 1 || rank < 0 || rank >= size) {
        FAIL(PEFT_E_INVALID, "process %d of %d: ranks are from 0 to one less than the size", (int)rank, (int)size);
    }
    if (size > 1 && fn == NULL) { FAIL(PEFT_E_INVALID, "fn is NULL, and %d processes have something to add up", (int)size); }
    if (t->step > 0) { FAIL(PEFT_E_BUSY, "the trainer has made steps: it becomes one of several before the first"); }
    t->reduce = size > 1 ? fn : NULL;
    t->reduce_user = user;
    t->rank = rank;
    t->ranks = size;
    peft__trainer_unplan(t); /* it planned for whole batches */
out:
    return st;
}
