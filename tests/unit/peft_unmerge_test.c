/* peft_unmerge_test.c - what is merged comes out again: for every registered method, base + adapter merged into a model, then the
 * adapter with factor -1 merged into that, gives the base's weights back within 1e-5, where the method's change is proportional
 * to a factor or can be turned back (method.h); elsewhere PEFT_E_UNSUPPORTED that names the adapter, and nothing is written. */

#include "api/api.h"
#include "api_kit.h"
#include "peft/method.h"

#define UNMERGE_LLAMA                                                                                         \
    "{\"model_type\":\"llama\",\"hidden_size\":16,\"intermediate_size\":24,\"num_hidden_layers\":2,"         \
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"vocab_size\":14,\"max_position_embeddings\":48,"  \
    "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"attention_bias\":true,\"tie_word_embeddings\":false,"   \
    "\"bos_token_id\":null,\"eos_token_id\":12}"

/* Options that a method cannot do without. */
static const char *const unmerge_options[][2] = {
    {"trainable_tokens", "{'token_indices':[1,4,5]}"}, {"union", "{'parts':['p','q']}"}, {"fusion", "{'adapters':['f']}"},
    {"compacter", "{'reduction_factor':2}"}, {"compacter++", "{'reduction_factor':2}"}, {"adalora", "{'init_r':3,'target_r':2}"},
};

typedef struct unmerge_world {
    peft_context *ctx;
    peft_model *base, *merged, *back;
    peft_adapters *a, *b;
    const char *method;
    bool done;
} unmerge_world;

static peft_status unmerge_add(unmerge_world *w, peft_adapters *a, const char *name, const char *method) {
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    char schema[64];
    const char *options = "{}";
    for (size_t i = 0; i < PEFT__COUNT(unmerge_options); i++) {
        if (strcmp(unmerge_options[i][0], method) == 0) { options = unmerge_options[i][1]; }
    }
    (void)snprintf(schema, sizeof schema, "method:%s", method);
    TRY(api_options(w->ctx, schema, options, &o));
    TRY(peft_adapters_add(a, name, method, o, 5));
    if (strcmp(name, "x") != 0) { TRY(api_shake(a, name, 0.2F)); }
out:
    peft_options_free(o);
    return st;
}

/* A set over `m` with "x" in it, shaken alike each time. */
static peft_status unmerge_set(unmerge_world *w, peft_model *m, peft_adapters **out) {
    peft_status st = PEFT_OK;
    TRY(peft_adapters_create(m, out));
    if (strcmp(w->method, "union") == 0) {
        TRY(unmerge_add(w, *out, "p", "lora"));
        TRY(unmerge_add(w, *out, "q", "lokr"));
    }
    if (strcmp(w->method, "fusion") == 0) { TRY(unmerge_add(w, *out, "f", "pfeiffer")); }
    TRY(unmerge_add(w, *out, "x", w->method));
    TRY(api_shake(*out, "x", 0.2F));
out:
    return st;
}

/* Largest difference of two models' tensors; -1: they have not the same, such as a head of its own. */
static double unmerge_gap(const peft_model *m, const peft_model *n) {
    static float one[1 << 12], two[1 << 12];
    double most = 0;
    if (peft_model_tensor_count(m) != peft_model_tensor_count(n)) { return -1; }
    for (size_t i = 0; i < peft_model_tensor_count(m); i++) {
        const char *name = NULL;
        size_t k = 0, l = 0;
        if (peft_model_tensor_info(m, i, &name, NULL, NULL, NULL) != PEFT_OK ||
            peft_model_tensor_read(m, name, one, PEFT__COUNT(one), &k) != PEFT_OK ||
            peft_model_tensor_read(n, name, two, PEFT__COUNT(two), &l) != PEFT_OK || k != l) {
            return -1;
        }
        most = fmax(most, api_distance(one, two, k));
    }
    return most;
}

/* May a factor of -1 take it out? A union's is one of its parts, of which there is one level. */
static bool unmerge_may(const peft__adapter *a) {
    bool may = peft__adapter_own_parts(a) > 0 || peft__adapter_proportional(a) || a->method->reversible;
    for (size_t i = 0; i < peft__adapter_own_parts(a); i++) {
        const peft__adapter *part = PEFT__VEC_AT(&a->parts, peft__adapter *, i);
        may = may && (peft__adapter_proportional(part) || part->method->reversible);
    }
    return may;
}

static void unmerge_check(unmerge_world *w) {
    const char *dir = runner_tmpdir(), *one = runner_path(dir, "merged"), *two = runner_path(dir, "back");
    peft__adapter *x = NULL;
    CHECK_OK(unmerge_set(w, w->base, &w->a));
    CHECK_OK(peft__set_pin(w->a, "x", &x));
    bool may = unmerge_may(x);
    peft__adapter_release(x);
    peft_status st = peft_adapters_merge(w->a, "x", one, NULL);
    if (st == PEFT_OK) { CHECK_OK(peft_model_open(w->ctx, one, NULL, &w->merged)); }
    if (st == PEFT_OK) { CHECK(fabs(unmerge_gap(w->base, w->merged)) > 1e-2); }
    if (st != PEFT_OK) { /* no weight of it: with any factor */
        CHECK_INT(st, PEFT_E_UNSUPPORTED);
        CHECK(!may);
    } else if (may) {
        CHECK_OK(unmerge_set(w, w->merged, &w->b));
        CHECK_OK(peft_adapters_merge(w->b, "x:-1", two, NULL));
        CHECK_OK(peft_model_open(w->ctx, two, NULL, &w->back));
        double gap = unmerge_gap(w->base, w->back);
        if (!(gap >= 0 && gap <= 1e-5)) { printf("%s: %g apart\n", w->method, gap); }
        CHECK(gap >= 0 && gap <= 1e-5);
        w->done = true;
        return;
    }
    CHECK_INT(peft_adapters_merge(w->a, "x:-1", two, NULL), PEFT_E_UNSUPPORTED);
    CHECK(strcmp(w->method, "union") == 0 || strcmp(w->method, "fusion") == 0 || strstr(peft_last_error(), "\"x\"") != NULL);
    CHECK(!peft__path_exists(runner_path(two, "config.json")));
    w->done = true;
}

static peft_status unmerge_run(unmerge_world *w, const char *method, const char *config) {
    peft_status st = PEFT_OK;
    memset(w, 0, sizeof *w);
    w->method = method;
    TRY(peft_context_create(NULL, &w->ctx));
    TRY(peft__model_random(w->ctx, config, strlen(config), 3, 0.2, &w->base));
    unmerge_check(w);
    if (!w->done) { printf("method %s: %s\n", method, peft_last_error()); }
out:
    peft_adapters_free(w->a);
    peft_adapters_free(w->b);
    peft_model_free(w->base);
    peft_model_free(w->merged);
    peft_model_free(w->back);
    peft_context_free(w->ctx);
    return st;
}

TEST(unmerge_gives_the_base_back) {
    for (size_t i = 0; peft__method_at(i) != NULL; i++) {
        static unmerge_world w;
        CHECK_OK(unmerge_run(&w, peft__method_at(i)->name, UNMERGE_LLAMA));
        CHECK_OK(unmerge_run(&w, peft__method_at(i)->name, API_GPT2)); /* weights as [in, out], a head that is tied */
    }
}

/* Which methods these are, so that a flag that is lost is seen. */
TEST(unmerge_methods_by_name) {
    static const char *const may[] = {"lora", "lora_fa", "adalora", "vera", "loha", "lokr", "oft", "boft", "ia3", "lora_hub", "dora"};
    for (size_t i = 0; i < PEFT__COUNT(may); i++) {
        const peft__method *m = peft__method_find(may[i]);
        CHECK(m != NULL && m->merge != NULL && (m->proportional || m->reversible));
    }
    for (size_t i = 0; peft__method_at(i) != NULL; i++) {
        const peft__method *m = peft__method_at(i);
        CHECK(m->merge != NULL || !(m->proportional || m->reversible));
    }
}
