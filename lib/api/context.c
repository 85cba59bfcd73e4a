/* context.c - peft_context: allocator, threads, instruction set, log.
 *
 * The context is the first block of its own allocator, so it is made with a counter on the stack that is then moved in. */
#include "api/api.h"

peft_status peft_context_create(const peft_allocator *alloc, peft_context **out) {
    peft_status st = PEFT_OK;
    peft__mem mem;
    peft_context *ctx = NULL;
    TRY(peft__check_arg(out, "out"));
    *out = NULL;
    if (alloc != NULL && (alloc->alloc == NULL || alloc->release == NULL)) {
        FAIL(PEFT_E_INVALID, "the allocator has no %s function", alloc->alloc == NULL ? "alloc" : "release");
    }
    peft__mem_init(&mem, alloc);
    ctx = peft__alloc_zero(&mem, sizeof *ctx);
    if (ctx == NULL) { return PEFT_E_NOMEM; }
    ctx->magic = PEFT__MAGIC_CONTEXT;
    atomic_init(&ctx->refs, 1);
    peft__mem_init(&ctx->mem, &mem.host);
    atomic_store(&ctx->mem.now, sizeof *ctx);
    atomic_store(&ctx->mem.peak, sizeof *ctx);
    ctx->threads = peft__cpu_count();
    TRY(peft__kernels_find("auto", &ctx->kernels));
    *out = ctx;
    ctx = NULL;
out:
    if (ctx != NULL) { peft__ctx_release(ctx); }
    return st;
}

void peft_context_free(peft_context *ctx) {
    if (peft__is_handle(ctx, PEFT__MAGIC_CONTEXT)) { peft__ctx_release(ctx); }
}

peft_status peft_context_set_threads(peft_context *ctx, int32_t n) {
    peft_status st = PEFT_OK;
    TRY(peft__check_handle(ctx, PEFT__MAGIC_CONTEXT, "ctx"));
    if (n < 0 || n > 1024) { FAIL(PEFT_E_INVALID, "threads are %d, expected 0 to 1024", (int)n); }
    ctx->threads = n > 0 ? n : peft__cpu_count();
out:
    return st;
}

int32_t peft_context_threads(const peft_context *ctx) {
    return peft__is_handle(ctx, PEFT__MAGIC_CONTEXT) ? ctx->threads : 0;
}

peft_status peft_context_set_parallel_for(peft_context *ctx, peft_parallel_for_fn fn, void *user) {
    peft_status st = PEFT_OK;
    TRY(peft__check_handle(ctx, PEFT__MAGIC_CONTEXT, "ctx"));
    ctx->parallel_for = fn;
    ctx->parallel_user = user;
out:
    return st;
}

peft_status peft_context_set_isa(peft_context *ctx, const char *name) {
    peft_status st = PEFT_OK;
    TRY(peft__check_handle(ctx, PEFT__MAGIC_CONTEXT, "ctx"));
    TRY(peft__check_text(name, "name"));
    TRY(peft__kernels_find(name, &ctx->kernels));
out:
    return st;
}

const char *peft_context_isa(const peft_context *ctx) {
    return peft__is_handle(ctx, PEFT__MAGIC_CONTEXT) ? ctx->kernels->name : NULL;
}

peft_status peft_context_set_log(peft_context *ctx, int32_t level, peft_log_fn fn, void *user) {
    peft_status st = PEFT_OK;
    TRY(peft__check_handle(ctx, PEFT__MAGIC_CONTEXT, "ctx"));
    if (fn != NULL && (level < PEFT_LOG_ERROR || level > PEFT_LOG_DEBUG)) {
        FAIL(PEFT_E_INVALID, "the log level is %d, expected %d to %d", (int)level, PEFT_LOG_ERROR, PEFT_LOG_DEBUG);
    }
    ctx->log_level = level;
    ctx->log_user = user;
    ctx->log = fn;
out:
    return st;
}

void peft_context_memory(const peft_context *ctx, size_t *now, size_t *peak) {
    bool good = peft__is_handle(ctx, PEFT__MAGIC_CONTEXT);
    if (now != NULL) { *now = good ? atomic_load(&ctx->mem.now) : 0; }
    if (peak != NULL) { *peak = good ? atomic_load(&ctx->mem.peak) : 0; }
}

void peft_context_memory_reset_peak(peft_context *ctx) {
    if (peft__is_handle(ctx, PEFT__MAGIC_CONTEXT)) { peft__mem_reset_peak(&ctx->mem); }
}
