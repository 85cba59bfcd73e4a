/* ctx.c - what every handle needs of its context: a log and a reference.
 *
 * Left out: creation and settings (api/). */
#include "base/base.h"

#include <stdio.h>

void peft__log(const peft_context *ctx, int32_t level, const char *fmt, ...) {
    if (!ctx->log || level > ctx->log_level) { return; }
    char text[1024];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (n >= 0) { ctx->log(ctx->log_user, level, text); }
}

void peft__ctx_retain(peft_context *ctx) {
    atomic_fetch_add_explicit(&ctx->refs, 1, memory_order_relaxed);
}

void peft__ctx_release(peft_context *ctx) {
    if (!ctx || atomic_fetch_sub_explicit(&ctx->refs, 1, memory_order_acq_rel) != 1) { return; }
    ctx->magic = PEFT__MAGIC_FREED; /* a stale handle is told, as long as nobody reuses the bytes */
    peft__mem mem; /* the context's own lies inside the block that goes */
    peft__mem_init(&mem, &ctx->mem.host);
    atomic_store(&mem.now, sizeof *ctx);
    peft__free(&mem, ctx, sizeof *ctx);
}
