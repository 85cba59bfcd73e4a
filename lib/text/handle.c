/* handle.c - references to a tokenizer: the caller's, and those of data sets and sessions. */
#include "text/text.h"

void peft__tokenizer_retain(struct peft_tokenizer *t) {
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
}

void peft__tokenizer_release(struct peft_tokenizer *t) {
    if (t == NULL || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1) { return; }
    peft_context *ctx = t->ctx;
    peft__tokenizer_free(t->inner);
    t->magic = PEFT__MAGIC_FREED;
    peft__free(&ctx->mem, t, sizeof *t);
    peft__ctx_release(ctx);
}
