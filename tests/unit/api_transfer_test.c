/* api_transfer_test.c - init_from: virtual tokens, keys and values that start from another saved adapter compute what it does;
 * one task of a multitask_prompt becomes a plain prompt; what does not fit is refused. */
#include "api_kit.h"

enum { TRANSFER_IDS = 8, TRANSFER_LOGITS = TRANSFER_IDS * API_VOCAB };
static const int32_t transfer_ids[TRANSFER_IDS] = {3, 1, 4, 1, 5, 9, 2, 6};
static float transfer_a[TRANSFER_LOGITS], transfer_b[TRANSFER_LOGITS];

typedef struct transfer_world {
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
} transfer_world;

static peft_status transfer_begin(transfer_world *w, api_host *h, const char *config) {
    peft_status st = PEFT_OK;
    memset(w, 0, sizeof *w);
    TRY(api_context(h, &w->ctx));
    TRY(api_model(w->ctx, config, &w->m));
    TRY(peft_adapters_create(w->m, &w->a));
out:
    return st;
}

static void transfer_end(transfer_world *w) {
    peft_adapters_free(w->a);
    peft_model_free(w->m);
    peft_context_free(w->ctx);
}

/* from NULL: none. */
static peft_status transfer_add(transfer_world *w, const char *name, const char *method, const char *options, const char *from) {
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    char schema[64], text[1024];
    (void)snprintf(schema, sizeof schema, "method:%s", method);
    (void)snprintf(text, sizeof text, from != NULL ? "{%s,'init_from':'%s'}" : "{%s%s}", options, from != NULL ? from : "");
    TRY(api_options(w->ctx, schema, text, &o));
    TRY(peft_adapters_add(w->a, name, method, o, 7));
out:
    peft_options_free(o);
    return st;
}

static peft_status transfer_logits(transfer_world *w, const char *name, int32_t task, float *out) {
    static const int64_t n = TRANSFER_IDS;
    peft_status st = PEFT_OK;
    peft_session *s = NULL;
    peft_batch *b = NULL;
    peft_options *o = NULL;
    TRY(peft_options_create(w->ctx, "session", &o));
    TRY(peft_options_set_int(o, "task_id", task));
    TRY(peft_session_create(w->m, w->a, name, o, &s));
    TRY(api_batch(w->ctx, transfer_ids, &n, 1, &b));
    TRY(peft_session_logits(s, b, out, TRANSFER_LOGITS, NULL));
out:
    peft_options_free(o);
    peft_batch_free(b);
    peft_session_free(s);
    return st;
}

/* A fresh adapter with init_from gives the logits of its source: to the bit where it is a table, nearly where a network has to be
 * fitted to it. */
TEST(api_transfer_starts_as_its_source) {
    static const struct {
        const char *source, *options, *method, *own;
        int32_t task;
        double tolerance;
    } cases[] = {
        {"prompt", "'num_virtual_tokens':3", "prompt", "'num_virtual_tokens':3", 0, 0},
        {"ptuning", "'num_virtual_tokens':3,'encoder_hidden_size':5", "prompt", "'num_virtual_tokens':3", 0, 1e-6},
        {"ptuning", "'num_virtual_tokens':3,'baked':true", "prompt", "'num_virtual_tokens':3", 0, 0},
        {"multitask_prompt", "'num_virtual_tokens':3,'num_tasks':3,'num_ranks':2", "prompt",
         "'num_virtual_tokens':3,'prompt_tuning_init_task':2", 2, 1e-6},
        {"multitask_prompt", "'num_virtual_tokens':3,'num_tasks':2", "prompt", "'num_virtual_tokens':3", 0, 1e-6},
        {"prompt", "'num_virtual_tokens':3", "ptuning", "'num_virtual_tokens':3,'baked':true", 0, 0},
        {"prompt", "'num_virtual_tokens':3", "ptuning", "'num_virtual_tokens':3", 0, 1e-3},
        {"multitask_prompt", "'num_virtual_tokens':3,'num_tasks':2", "ptuning",
         "'num_virtual_tokens':3,'baked':true,'prompt_tuning_init_task':1", 1, 1e-6},
        {"prompt", "'num_virtual_tokens':3", "multitask_prompt", "'num_virtual_tokens':3,'num_tasks':2", 0, 0},
        {"multitask_prompt", "'num_virtual_tokens':3,'num_tasks':2", "multitask_prompt",
         "'num_virtual_tokens':3,'num_ranks':2,'prompt_tuning_init_task':1", 1, 1e-6},
        {"prefix", "'num_virtual_tokens':3", "prefix", "'num_virtual_tokens':3", 0, 0},
        {"prefix", "'num_virtual_tokens':3,'prefix_projection':true", "prefix", "'num_virtual_tokens':3", 0, 1e-6},
        {"prefix", "'num_virtual_tokens':3", "ptuning_v2", "'num_virtual_tokens':3,'prefix_projection':true", 0, 1e-3},
    };
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        api_host h = {0};
        transfer_world w;
        const char *dir = runner_path(runner_tmpdir(), "source");
        CHECK_OK(transfer_begin(&w, &h, i % 2 == 0 ? API_LLAMA : API_GPT2));
        CHECK_OK(transfer_add(&w, "source", cases[i].source, cases[i].options, NULL));
        CHECK_OK(api_shake(w.a, "source", 0.5F));
        CHECK_OK(transfer_logits(&w, "source", cases[i].task, transfer_a));
        CHECK_OK(peft_adapters_save(w.a, "source", dir, NULL));
        CHECK_OK(transfer_add(&w, "fresh", cases[i].method, "'num_virtual_tokens':3", NULL));
        CHECK_OK(transfer_logits(&w, "fresh", 0, transfer_b));
        CHECK(api_distance(transfer_a, transfer_b, TRANSFER_LOGITS) > 2e-3); /* what it would be without init_from */
        CHECK_OK(transfer_add(&w, "new", cases[i].method, cases[i].own, dir));
        CHECK_OK(transfer_logits(&w, "new", 0, transfer_b));
        CHECK_NEAR(api_distance(transfer_a, transfer_b, TRANSFER_LOGITS), 0, cases[i].tolerance);
        transfer_end(&w);
        CHECK_INT((int64_t)h.now, 0);
    }
}

/* Such a prompt is saved as any other, and starts from no text. */
TEST(api_transfer_a_task_becomes_a_prompt) {
    static char text[1 << 15];
    static const int32_t ids[] = {1};
    api_host h = {0};
    transfer_world w;
    const char *top = runner_tmpdir(), *dir = runner_path(top, "source"), *plain = runner_path(top, "plain");
    CHECK_OK(transfer_begin(&w, &h, API_LLAMA));
    CHECK_OK(transfer_add(&w, "source", "multitask_prompt", "'num_virtual_tokens':3,'num_tasks':2", NULL));
    CHECK_OK(api_shake(w.a, "source", 0.5F));
    CHECK_OK(peft_adapters_save(w.a, "source", dir, NULL));
    CHECK_OK(transfer_add(&w, "p", "prompt", "'num_virtual_tokens':3,'prompt_tuning_init_task':1", dir));
    CHECK_OK(peft_adapters_save(w.a, "p", plain, NULL));
    CHECK_OK(peft_inspect_json(w.ctx, plain, text, sizeof text, NULL));
    CHECK(strstr(text, "\"peft_type\":\"PROMPT_TUNING\"") != NULL && strstr(text, "init_from") == NULL);
    CHECK_OK(peft_adapters_load(w.a, "again", plain, NULL));
    CHECK_OK(transfer_logits(&w, "source", 1, transfer_a));
    CHECK_OK(transfer_logits(&w, "again", 0, transfer_b));
    CHECK_NEAR(api_distance(transfer_a, transfer_b, TRANSFER_LOGITS), 0, 1e-6);
    CHECK_STATUS(peft_adapters_init(w.a, "p", ids, 1), PEFT_E_UNSUPPORTED);
    CHECK_OK(transfer_add(&w, "k", "prefix", "'num_virtual_tokens':2", NULL));
    CHECK_OK(peft_adapters_save(w.a, "k", plain, NULL));
    CHECK_OK(transfer_add(&w, "q", "prefix", "'num_virtual_tokens':2", plain));
    CHECK_STATUS(peft_adapters_init(w.a, "q", ids, 1), PEFT_E_UNSUPPORTED);
    CHECK_OK(peft_adapters_info_json(w.a, "q", text, sizeof text, NULL));
    CHECK(strstr(text, "\"init_text\":\"Below") == NULL);
    transfer_end(&w);
}

TEST(api_transfer_refuses) {
    api_host h = {0};
    transfer_world w, other;
    const char *top = runner_tmpdir(), *prompt = runner_path(top, "prompt"), *tasks = runner_path(top, "tasks");
    const char *prefix = runner_path(top, "prefix"), *lora = runner_path(top, "lora"), *gone = runner_path(top, "gone");
    CHECK_OK(transfer_begin(&w, &h, API_LLAMA));
    CHECK_OK(transfer_begin(&other, &h, API_GPT2));
    CHECK_OK(transfer_add(&w, "p", "prompt", "'num_virtual_tokens':3", NULL));
    CHECK_OK(transfer_add(&w, "t", "multitask_prompt", "'num_virtual_tokens':3,'num_tasks':2", NULL));
    CHECK_OK(transfer_add(&w, "k", "prefix", "'num_virtual_tokens':3", NULL));
    CHECK_OK(transfer_add(&w, "l", "lora", "'r':2", NULL));
    CHECK_OK(peft_adapters_save(w.a, "p", prompt, NULL));
    CHECK_OK(peft_adapters_save(w.a, "t", tasks, NULL));
    CHECK_OK(peft_adapters_save(w.a, "k", prefix, NULL));
    CHECK_OK(peft_adapters_save(w.a, "l", lora, NULL));
    CHECK_STATUS(transfer_add(&w, "x", "prompt", "'num_virtual_tokens':5", prompt), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("has 3 virtual tokens, and adapter \"x\" 5");
    CHECK_STATUS(transfer_add(&w, "x", "prefix", "'num_virtual_tokens':2", prefix), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("has 3 virtual tokens, and adapter \"x\" 2");
    CHECK_STATUS(transfer_add(&w, "x", "prompt", "'num_virtual_tokens':3", lora), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("of method \"lora\", which has no virtual tokens for \"prompt\"");
    CHECK_STATUS(transfer_add(&w, "x", "prompt", "'num_virtual_tokens':3", prefix), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("of method \"prefix\"");
    CHECK_STATUS(transfer_add(&w, "x", "prefix", "'num_virtual_tokens':3", prompt), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("which has no keys and values for \"prefix\"");
    CHECK_STATUS(transfer_add(&w, "x", "prompt", "'num_virtual_tokens':3,'prompt_tuning_init_task':2", tasks), PEFT_E_KEY);
    CHECK_ERROR_HAS("prompt_tuning_init_task is 2, and the adapter in");
    CHECK_ERROR_HAS("has 2 tasks");
    CHECK_STATUS(transfer_add(&w, "x", "prompt", "'num_virtual_tokens':3,'prompt_tuning_init_task':1", prompt), PEFT_E_KEY);
    CHECK_ERROR_HAS("has 1 task");
    CHECK_STATUS(transfer_add(&w, "x", "prompt", "'prompt_tuning_init_task':1", NULL), PEFT_E_KEY);
    CHECK_ERROR_HAS("nothing to take a task from");
    CHECK_STATUS(transfer_add(&w, "x", "prompt", "'num_virtual_tokens':3,'prompt_tuning_init':'TEXT'", prompt), PEFT_E_KEY);
    CHECK_ERROR_HAS("init_from and prompt_tuning_init are both set");
    CHECK_STATUS(transfer_add(&w, "x", "ptuning", "'num_virtual_tokens':3,'init':'text'", prompt), PEFT_E_KEY);
    CHECK_STATUS(transfer_add(&w, "x", "prefix", "'num_virtual_tokens':3,'init':'zero'", prefix), PEFT_E_KEY);
    CHECK_ERROR_HAS("init_from and init are both set");
    CHECK_STATUS(transfer_add(&w, "x", "prompt", "'num_virtual_tokens':3", gone), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("gone");
    CHECK_STATUS(transfer_add(&other, "x", "prompt", "'num_virtual_tokens':3", prompt), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("this base");
    CHECK_INT((int64_t)peft_adapters_count(w.a), 4);
    transfer_end(&w);
    transfer_end(&other);
    CHECK_INT((int64_t)h.now, 0);
}

static peft_status transfer_whole_way(transfer_world *w, const char *dir) {
    peft_status st = PEFT_OK;
    char state[1024];
    (void)snprintf(state, sizeof state,
                   "'num_virtual_tokens':2,'prompt_tuning_init':'AVERAGE_SOURCE_TASKS','prompt_tuning_init_state_dict_path':'%s'", dir);
    TRY(transfer_add(w, "source", "multitask_prompt", "'num_virtual_tokens':2,'num_tasks':2", NULL));
    TRY(peft_adapters_save(w->a, "source", dir, NULL));
    TRY(transfer_add(w, "p", "prompt", "'num_virtual_tokens':2,'prompt_tuning_init_task':1", dir));
    TRY(transfer_add(w, "t", "ptuning", "'num_virtual_tokens':2,'encoder_hidden_size':2", dir));
    TRY(transfer_add(w, "m", "multitask_prompt", state, NULL));
out:
    return st;
}

TEST(api_transfer_every_allocation_fails_once) {
    const char *dir = runner_path(runner_tmpdir(), "saved");
    bool through = false;
    for (size_t k = 1; !through && k < 4000; k += k < 40 ? 1 : 5) {
        api_host h = {0};
        transfer_world w;
        CHECK_OK(transfer_begin(&w, &h, API_LLAMA));
        h.fail_at = h.calls + k;
        peft_status st = transfer_whole_way(&w, dir);
        through = h.calls < h.fail_at;
        if (through) { CHECK_OK(st); } else { CHECK_INT(st, PEFT_E_NOMEM); }
        transfer_end(&w);
        CHECK_INT((int64_t)h.now, 0);
    }
    CHECK(through);
}
