/* client.c - a program of release 0.1: built against that release's header and symbols, run with the library of today. It looks at
 * the values that come through every public struct, callback, enum and buffer, not only at statuses. Not to be changed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "peft.h"

#define EXPECT(cond)                                                                              \
    do {                                                                                          \
        if (!(cond)) {                                                                            \
            (void)printf("line %d: not so: %s (last error: %s)\n", __LINE__, #cond, peft_last_error()); \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)
#define OK(call) EXPECT((call) == PEFT_OK)

static const char config[] =
    "{\"model_type\":\"llama\",\"hidden_size\":16,\"intermediate_size\":24,\"num_hidden_layers\":2,\"num_attention_heads\":2,"
    "\"num_key_value_heads\":1,\"vocab_size\":14,\"max_position_embeddings\":48,\"rms_norm_eps\":1e-5,\"bos_token_id\":null,"
    "\"eos_token_id\":12,\"tie_word_embeddings\":false}";

typedef struct memory { /* behind peft_allocator */
    size_t now, calls;
} memory;

static void *memory_alloc(void *user, size_t size, size_t align) {
    memory *m = user;
    void *p = NULL;
    EXPECT(align >= sizeof(void *) && (align & (align - 1)) == 0);
    if (posix_memalign(&p, align, size) != 0) { return NULL; }
    m->now += size;
    m->calls++;
    return p;
}

static void memory_release(void *user, void *p, size_t size) {
    memory *m = user;
    EXPECT(m->now >= size);
    m->now -= size;
    free(p);
}

typedef struct run { /* what the progress callback saw */
    int64_t steps;
    double first, last;
} run;

static int32_t run_step(void *user, const peft_step_info *info) {
    run *r = user;
    EXPECT(info->struct_size >= sizeof *info);
    EXPECT(info->step == r->steps + 1 && info->max_steps == 12);
    EXPECT(info->loss > 0.1 && info->loss < 10 && isfinite(info->grad_norm) && info->grad_norm > 0);
    EXPECT(fabs(info->learning_rate - 0.05) < 1e-12);
    EXPECT(info->tokens == 10 && info->tokens_per_second > 0);
    EXPECT(info->seconds >= 0 && info->eta_seconds >= 0 && info->peak_bytes > 1000);
    EXPECT(info->step == 12 ? info->eval_loss > 0 : isnan(info->eval_loss));
    EXPECT(fabs(info->epoch - (double)info->step) < 1e-9 && strcmp(info->job, "a") == 0);
    if (r->steps++ == 0) { r->first = info->loss; }
    r->last = info->loss;
    return 0;
}

static int32_t token_seen(void *user, int32_t id, const char *text, size_t len) {
    EXPECT(id >= 0 && id < 14 && text == NULL && len == 0);
    return ++*(int32_t *)user == 3; /* the third ends the call */
}

static void values_of_the_header(void) {
    EXPECT(strcmp(peft_status_name(PEFT_E_CALLBACK), "PEFT_E_CALLBACK") == 0 && PEFT_E_CALLBACK == -13);
    EXPECT(strcmp(peft_status_name(-9999), "PEFT_E_?") == 0);
    EXPECT(peft_version() >= (0 << 16 | 1 << 8 | 0) && strncmp(peft_build_info(), "version=", 8) == 0);
    EXPECT(strcmp(peft_dtype_name(PEFT_DTYPE_BF16), "BF16") == 0 && PEFT_DTYPE_Q8_0 == 8 && PEFT_LOG_DEBUG == 4);
    EXPECT(strcmp(peft_method_name(0), "lora") == 0 && peft_method_name(10000) == NULL);
}

static peft_options *options(peft_context *ctx, const char *schema, const char *json) {
    peft_options *o = NULL;
    OK(peft_options_create(ctx, schema, &o));
    OK(peft_options_set_json(o, json, strlen(json)));
    return o;
}

static void buffers(peft_context *ctx, const peft_model *m) {
    char text[4096];
    size_t needed = 0, again = 0;
    peft_options *o = options(ctx, "method:lora", "{\"r\":4}");
    EXPECT(peft_options_get_json(o, NULL, 0, &needed) == PEFT_E_BUFFER && needed > 10 && needed < sizeof text);
    OK(peft_options_get_json(o, text, needed, &again));
    EXPECT(again == needed && strlen(text) + 1 == needed && strstr(text, "\"r\":4") != NULL);
    EXPECT(peft_options_set_int(o, "rr", 4) == PEFT_E_KEY && strstr(peft_last_error(), "rr") != NULL);
    peft_options_free(o);
    const char *name = NULL;
    int32_t dtype = -1, ndim = 0;
    int64_t dims[8] = {0};
    OK(peft_model_tensor_info(m, 0, &name, &dtype, &ndim, dims));
    EXPECT(strcmp(name, "model.embed_tokens.weight") == 0 && dtype == PEFT_DTYPE_F32 && ndim == 2 && dims[0] == 14 && dims[1] == 16);
}

static void trains(peft_context *ctx, peft_adapters *a) {
    run seen = {0, 0, 0};
    peft_dataset *d = NULL;
    peft_trainer *t = NULL;
    peft_options *o = options(ctx, "trainer", "{\"max_steps\":12,\"batch_size\":2}");
    peft_options *how = options(ctx, "optimizer", "{\"learning_rate\":0.05,\"lr_scheduler_type\":\"constant\"}");
    static const char *const rows[2] = {"{\"input_ids\":[1,2,3,4,5]}", "{\"input_ids\":[5,4,3,2,1]}"};
    OK(peft_dataset_create(ctx, NULL, NULL, &d));
    for (int i = 0; i < 2; i++) { OK(peft_dataset_add_json(d, rows[i], strlen(rows[i]))); }
    EXPECT(peft_dataset_size(d) == 2);
    OK(peft_trainer_create(a, o, &t));
    OK(peft_trainer_add_job(t, "a", d, d, how));
    OK(peft_trainer_set_progress(t, run_step, &seen));
    OK(peft_trainer_run(t));
    EXPECT(seen.steps == 12 && seen.last < 0.98 * seen.first);
    peft_options_free(how);
    peft_options_free(o);
    peft_dataset_free(d);
    peft_trainer_free(t);
}

static void saves_and_generates(peft_model *m, peft_adapters *a, const char *folder) {
    static const int32_t prompt[2] = {1, 2};
    int32_t one[64], two[64], calls = 0;
    size_t n1 = 0, n2 = 0;
    peft_session *s = NULL;
    OK(peft_adapters_save(a, "a", folder, NULL));
    OK(peft_adapters_load(a, "b", folder, NULL));
    EXPECT(peft_adapters_count(a) == 2 && strcmp(peft_adapters_name(a, 1), "b") == 0 && peft_adapters_name(a, 2) == NULL);
    OK(peft_session_create(m, a, "a", NULL, &s));
    EXPECT(peft_session_generate(s, NULL, prompt, 2, NULL, token_seen, &calls, one, 64, &n1) == PEFT_E_CALLBACK || calls < 3);
    EXPECT(peft_session_generate(s, NULL, prompt, 2, NULL, NULL, NULL, NULL, 0, &n1) == PEFT_E_BUFFER && n1 >= 1 && n1 <= 46);
    OK(peft_session_generate(s, NULL, prompt, 2, NULL, NULL, NULL, one, 64, &n1));
    OK(peft_session_generate(s, NULL, prompt, 2, NULL, NULL, NULL, two, 64, &n2));
    EXPECT(n1 == n2 && memcmp(one, two, n1 * sizeof *one) == 0);
    peft_session_free(s);
    float before[2 * 14], after[2 * 14];
    peft_batch *b = NULL;
    static const int64_t offsets[2] = {0, 2};
    peft_context *ctx = NULL;
    OK(peft_context_create(NULL, &ctx));
    OK(peft_batch_create(ctx, &b));
    OK(peft_batch_set_i32(b, "input_ids", prompt, offsets, 1));
    OK(peft_session_create(m, a, "a", NULL, &s));
    OK(peft_session_logits(s, b, before, 28, &n1));
    OK(peft_session_set_adapters(s, "b"));
    OK(peft_session_logits(s, b, after, 28, &n2));
    EXPECT(n1 == 28 && n2 == 28 && memcmp(before, after, sizeof before) == 0);
    peft_session_free(s);
    peft_batch_free(b);
    peft_context_free(ctx);
}

int main(int argc, char **argv) {
    memory mem = {0, 0};
    peft_allocator alloc = {memory_alloc, memory_release, &mem};
    peft_context *ctx = NULL;
    peft_model *m = NULL;
    peft_adapters *a = NULL;
    size_t now = 0, peak = 0;
    EXPECT(argc == 2);
    values_of_the_header();
    OK(peft_context_create(&alloc, &ctx));
    OK(peft_context_set_threads(ctx, 2));
    OK(peft_model_create_random(ctx, config, strlen(config), 3, &m));
    buffers(ctx, m);
    OK(peft_adapters_create(m, &a));
    OK(peft_adapters_add(a, "a", "lora", NULL, 1));
    EXPECT(peft_adapters_add(a, "a", "lora", NULL, 1) == PEFT_E_EXISTS);
    trains(ctx, a);
    saves_and_generates(m, a, argv[1]);
    peft_context_memory(ctx, &now, &peak);
    EXPECT(now == mem.now && peak >= now && mem.calls > 100);
    peft_adapters_free(a);
    peft_model_free(m);
    peft_context_free(ctx);
    EXPECT(mem.now == 0);
    return 0;
}
