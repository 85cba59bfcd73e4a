/* api_library_test.c - names, versions, contexts. */
#include "api_kit.h"

TEST(api_status_names) {
    CHECK_STR(peft_status_name(PEFT_OK), "PEFT_OK");
    CHECK_STR(peft_status_name(PEFT_E_INVALID), "PEFT_E_INVALID");
    CHECK_STR(peft_status_name(PEFT_E_NOMEM), "PEFT_E_NOMEM");
    CHECK_STR(peft_status_name(PEFT_E_IO), "PEFT_E_IO");
    CHECK_STR(peft_status_name(PEFT_E_FORMAT), "PEFT_E_FORMAT");
    CHECK_STR(peft_status_name(PEFT_E_UNSUPPORTED), "PEFT_E_UNSUPPORTED");
    CHECK_STR(peft_status_name(PEFT_E_NOT_FOUND), "PEFT_E_NOT_FOUND");
    CHECK_STR(peft_status_name(PEFT_E_EXISTS), "PEFT_E_EXISTS");
    CHECK_STR(peft_status_name(PEFT_E_KEY), "PEFT_E_KEY");
    CHECK_STR(peft_status_name(PEFT_E_SHAPE), "PEFT_E_SHAPE");
    CHECK_STR(peft_status_name(PEFT_E_BUFFER), "PEFT_E_BUFFER");
    CHECK_STR(peft_status_name(PEFT_E_BUSY), "PEFT_E_BUSY");
    CHECK_STR(peft_status_name(PEFT_E_CANCELLED), "PEFT_E_CANCELLED");
    CHECK_STR(peft_status_name(PEFT_E_CALLBACK), "PEFT_E_CALLBACK");
    CHECK_STR(peft_status_name(PEFT_E_NUMERIC), "PEFT_E_NUMERIC");
    CHECK_STR(peft_status_name(PEFT_E_VERSION), "PEFT_E_VERSION");
    CHECK_STR(peft_status_name(PEFT_E_INTERNAL), "PEFT_E_INTERNAL");
    CHECK_STR(peft_status_name(1), "PEFT_E_?");
    CHECK_STR(peft_status_name(-17), "PEFT_E_?");
    CHECK_STR(peft_status_name(INT32_MIN), "PEFT_E_?");
}

TEST(api_version) {
    CHECK_INT(peft_version(), PEFT_VERSION_MAJOR << 16 | PEFT_VERSION_MINOR << 8 | PEFT_VERSION_PATCH);
    char text[32];
    (void)snprintf(text, sizeof text, "%d.%d.%d", PEFT_VERSION_MAJOR, PEFT_VERSION_MINOR, PEFT_VERSION_PATCH);
    CHECK_STR(peft_version_string(), text);
}

static bool library_has(const char *(*name)(size_t), const char *wanted) {
    for (size_t i = 0; name(i) != NULL; i++) {
        if (strcmp(name(i), wanted) == 0) { return true; }
    }
    return false;
}

TEST(api_lists_what_is_built_in) {
    CHECK(library_has(peft_method_name, "lora"));
    CHECK(library_has(peft_method_name, "full"));
    CHECK(library_has(peft_arch_name, "llama"));
    CHECK(library_has(peft_arch_name, "gpt2"));
    CHECK(library_has(peft_optimizer_name, "adamw"));
    CHECK(library_has(peft_optimizer_name, "sgd"));
    static const char *const schemas[] = {"trainer", "dataset", "optimizer", "model",       "session",    "generate",
                                          "save",    "merge",   "load",      "method:lora", "method:full"};
    for (size_t i = 0; i < PEFT__COUNT(schemas); i++) { CHECK(library_has(peft_schema_name, schemas[i])); }
    CHECK(peft_method_name(SIZE_MAX) == NULL);
    CHECK(peft_arch_name(1000) == NULL);
    CHECK(peft_optimizer_name(1000) == NULL);
    CHECK(peft_schema_name(1000) == NULL);
    CHECK_STR(peft_dtype_name(PEFT_DTYPE_Q8_0), "Q8_0");
    CHECK_STR(peft_dtype_name(77), "?");
}

TEST(api_context_lives_in_its_allocator) {
    api_host h = {0};
    peft_context *ctx = NULL;
    size_t now = 0, peak = 0;
    CHECK_OK(api_context(&h, &ctx));
    peft_context_memory(ctx, &now, &peak);
    CHECK_INT(now, h.now);
    CHECK_INT(peak, h.now);
    CHECK(h.now > 0);
    peft_context_free(ctx);
    CHECK_INT(h.now, 0);
    h = (api_host){.fail_at = 1};
    CHECK_STATUS(api_context(&h, &ctx), PEFT_E_NOMEM);
    CHECK(ctx == NULL);
}

TEST(api_context_checks_arguments) {
    peft_context *ctx = NULL;
    peft_allocator half = {api_host_alloc, NULL, NULL};
    CHECK_STATUS(peft_context_create(NULL, NULL), PEFT_E_INVALID);
    CHECK_ERROR_HAS("out is NULL");
    CHECK_STATUS(peft_context_create(&half, &ctx), PEFT_E_INVALID);
    CHECK_ERROR_HAS("release");
    CHECK_STATUS(peft_context_set_threads(NULL, 1), PEFT_E_INVALID);
    CHECK_ERROR_HAS("ctx is NULL, expected a context");
    CHECK_INT(peft_context_threads(NULL), 0);
    CHECK(peft_context_isa(NULL) == NULL);
    peft_context_free(NULL);
    peft_context_memory_reset_peak(NULL);
    size_t now = 1, peak = 1;
    peft_context_memory(NULL, &now, &peak);
    CHECK_INT(now + peak, 0);
}

TEST(api_context_settings) {
    api_host h = {0};
    peft_context *ctx = NULL;
    CHECK_OK(api_context(&h, &ctx));
    CHECK_INT(peft_context_threads(ctx), peft__cpu_count());
    CHECK_OK(peft_context_set_threads(ctx, 3));
    CHECK_INT(peft_context_threads(ctx), 3);
    CHECK_OK(peft_context_set_threads(ctx, 0));
    CHECK_INT(peft_context_threads(ctx), peft__cpu_count());
    CHECK_STATUS(peft_context_set_threads(ctx, -1), PEFT_E_INVALID);
    CHECK_STATUS(peft_context_set_threads(ctx, 1025), PEFT_E_INVALID);
    CHECK_ERROR_HAS("1025");
    CHECK_OK(peft_context_set_isa(ctx, "generic"));
    CHECK_STR(peft_context_isa(ctx), "generic");
    CHECK_STATUS(peft_context_set_isa(ctx, "mmx"), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("mmx");
    CHECK_STR(peft_context_isa(ctx), "generic");
    CHECK_STATUS(peft_context_set_isa(ctx, NULL), PEFT_E_INVALID);
    CHECK_OK(peft_context_set_isa(ctx, "auto"));
    CHECK_STATUS(peft_context_set_log(ctx, 9, (peft_log_fn)(uintptr_t)1, NULL), PEFT_E_INVALID);
    CHECK_OK(peft_context_set_log(ctx, 0, NULL, NULL));
    CHECK_OK(peft_context_set_parallel_for(ctx, NULL, NULL));
    peft_context_free(ctx);
    CHECK_INT(h.now, 0);
}

TEST(api_context_peak) {
    api_host h = {0};
    peft_context *ctx = NULL;
    peft_model *m = NULL;
    size_t before = 0, now = 0, peak = 0;
    CHECK_OK(api_context(&h, &ctx));
    peft_context_memory(ctx, &before, NULL);
    CHECK_OK(api_model(ctx, API_LLAMA, &m));
    peft_model_free(m);
    peft_context_memory(ctx, &now, &peak);
    CHECK_INT(now, before);
    CHECK(peak > before);
    peft_context_memory_reset_peak(ctx);
    peft_context_memory(ctx, NULL, &peak);
    CHECK_INT(peak, before);
    peft_context_free(ctx);
}
