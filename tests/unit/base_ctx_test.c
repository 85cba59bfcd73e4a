/* The log's levels and the context's reference count. */
#include "runner.h"

typedef struct ctx_seen {
    int calls;
    int32_t level;
    char text[1100];
} ctx_seen;

static void ctx_note(void *user, int32_t level, const char *text) {
    ctx_seen *seen = user;
    seen->calls++;
    seen->level = level;
    memcpy(seen->text, text, strlen(text) + 1);
}

TEST(base_log_respects_level_and_silence) {
    struct peft_context ctx = {.log_level = PEFT_LOG_INFO};
    ctx_seen seen = {0};
    peft__log(&ctx, PEFT_LOG_ERROR, "nobody listens");
    ctx.log = ctx_note;
    ctx.log_user = &seen;
    peft__log(&ctx, PEFT_LOG_INFO, "step %d of \"%s\"", 3, "run");
    CHECK_INT(seen.calls, 1);
    CHECK_INT(seen.level, PEFT_LOG_INFO);
    CHECK_STR(seen.text, "step 3 of \"run\"");
    peft__log(&ctx, PEFT_LOG_DEBUG, "too fine");
    CHECK_INT(seen.calls, 1);
    peft__log(&ctx, PEFT_LOG_ERROR, "%3000d", 1);
    CHECK_INT(seen.calls, 2);
    CHECK_INT(strlen(seen.text), 1023);
}

TEST(base_ctx_last_release_frees) {
    peft__mem *mem = runner_mem();
    struct peft_context *ctx = peft__alloc_zero(mem, sizeof *ctx);
    CHECK(ctx != NULL);
    ctx->magic = PEFT__MAGIC_CONTEXT;
    peft__mem_init(&ctx->mem, &mem->host);
    atomic_init(&ctx->refs, 1);
    peft__ctx_retain(ctx);
    peft__ctx_retain(ctx);
    CHECK_INT(atomic_load(&ctx->refs), 3);
    peft__ctx_release(ctx);
    peft__ctx_release(ctx);
    CHECK_INT(ctx->magic, PEFT__MAGIC_CONTEXT);
    peft__ctx_release(ctx); /* freed through the same host; the count of `mem` is told by hand */
    atomic_store(&mem->now, 0);
    peft__ctx_release(NULL);
}
