/* api_adapters_test.c - peft_adapters: adding, removing, tensors, files. */
#include "api_kit.h"

typedef struct adapters_fixture {
    api_host host;
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
} adapters_fixture;

static peft_status adapters_begin(adapters_fixture *f, const char *config) {
    memset(f, 0, sizeof *f);
    peft_status st = api_context(&f->host, &f->ctx);
    if (st == PEFT_OK) { st = api_model(f->ctx, config, &f->m); }
    return st == PEFT_OK ? peft_adapters_create(f->m, &f->a) : st;
}

/* Everything but the set, which keeps what it needs. */
static void adapters_end(adapters_fixture *f) {
    peft_context_free(f->ctx);
    peft_model_free(f->m);
    peft_adapters_free(f->a);
}

TEST(api_adapters_add_and_remove) {
    adapters_fixture f;
    CHECK_OK(adapters_begin(&f, API_LLAMA));
    CHECK_INT(peft_adapters_count(f.a), 0);
    CHECK(peft_adapters_name(f.a, 0) == NULL);
    CHECK_OK(peft_adapters_add(f.a, "one", "lora", NULL, 1));
    CHECK_OK(peft_adapters_add(f.a, "two", "lora", NULL, 2));
    CHECK_STATUS(peft_adapters_add(f.a, "one", "lora", NULL, 3), PEFT_E_EXISTS);
    CHECK_ERROR_HAS("\"one\"");
    CHECK_INT(peft_adapters_count(f.a), 2);
    CHECK_STR(peft_adapters_name(f.a, 1), "two");
    CHECK(peft_adapters_name(f.a, 2) == NULL);
    CHECK_STATUS(peft_adapters_remove(f.a, "three"), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("one, two");
    CHECK_OK(peft_adapters_remove(f.a, "one"));
    CHECK_STR(peft_adapters_name(f.a, 0), "two");
    adapters_end(&f);
    CHECK_INT(f.host.now, 0);
}

TEST(api_adapters_arguments) {
    adapters_fixture f;
    peft_options *o = NULL;
    CHECK_OK(adapters_begin(&f, API_LLAMA));
    peft_adapters *none = f.a;
    CHECK_STATUS(peft_adapters_create(NULL, &none), PEFT_E_INVALID);
    CHECK(none == NULL);
    CHECK_STATUS(peft_adapters_create(f.m, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_adapters_add(NULL, "a", "lora", NULL, 1), PEFT_E_INVALID);
    CHECK_ERROR_HAS("adapters is NULL");
    CHECK_STATUS(peft_adapters_add(f.a, NULL, "lora", NULL, 1), PEFT_E_INVALID);
    CHECK_STATUS(peft_adapters_add(f.a, "", "lora", NULL, 1), PEFT_E_INVALID);
    CHECK_STATUS(peft_adapters_add(f.a, "a,b", "lora", NULL, 1), PEFT_E_INVALID);
    CHECK_ERROR_HAS("a,b");
    CHECK_STATUS(peft_adapters_add(f.a, "a", NULL, NULL, 1), PEFT_E_INVALID);
    CHECK_STATUS(peft_adapters_add(f.a, "a", "lorra", NULL, 1), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("did you mean \"lora\"");
    CHECK_STATUS(peft_adapters_add(f.a, "a", "zzz", NULL, 1), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("known: lora");
    CHECK_OK(api_options(f.ctx, "method:lora", "{'target_modules':['no_such']}", &o));
    CHECK_STATUS(peft_adapters_add(f.a, "a", "lora", o, 1), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("no_such");
    CHECK_STATUS(peft_adapters_add(f.a, "a", "full", o, 1), PEFT_E_INVALID);
    CHECK_ERROR_HAS("schema \"method:lora\", expected schema \"method:full\"");
    peft_options_free(o);
    CHECK_INT(peft_adapters_count(NULL), 0);
    CHECK(peft_adapters_name(NULL, 0) == NULL);
    CHECK_STATUS(peft_adapters_remove(NULL, "a"), PEFT_E_INVALID);
    CHECK_STATUS(peft_adapters_info_json(f.a, "a", NULL, 0, NULL), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("none");
    CHECK_INT(peft_adapters_tensor_count(f.a, "a"), 0);
    CHECK_STATUS(peft_adapters_load(f.a, "a", "/no/such", NULL), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("/no/such");
    CHECK_STATUS(peft_adapters_load(f.a, "a", NULL, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_adapters_save(f.a, "a", "x", NULL), PEFT_E_NOT_FOUND);
    CHECK_STATUS(peft_adapters_merge(f.a, "a", "x", NULL), PEFT_E_NOT_FOUND);
    CHECK_STATUS(peft_adapters_merge(f.a, NULL, NULL, NULL), PEFT_E_INVALID);
    peft_adapters_free(NULL);
    adapters_end(&f);
}

TEST(api_adapters_tensors) {
    adapters_fixture f;
    const char *tensor = NULL;
    int32_t ndim = 0;
    int64_t dims[8] = {0};
    float values[128], back[128];
    size_t needed = 0;
    CHECK_OK(adapters_begin(&f, API_LLAMA));
    CHECK_OK(peft_adapters_add(f.a, "a", "lora", NULL, 1));
    CHECK_INT(peft_adapters_tensor_count(f.a, "a"), 2 * 2 * 2); /* q_proj and v_proj of two layers */
    CHECK_OK(peft_adapters_tensor_info(f.a, "a", 0, &tensor, &ndim, dims));
    CHECK_STR(tensor, "model.layers.0.self_attn.q_proj.lora_A.weight");
    CHECK_INT(ndim, 2);
    CHECK_INT(dims[0], 8);
    CHECK_INT(dims[1], API_HIDDEN);
    CHECK_STATUS(peft_adapters_tensor_info(f.a, "a", 8, &tensor, NULL, NULL), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("no trainable tensor 8");
    CHECK_STATUS(peft_adapters_tensor_read(f.a, "a", tensor, NULL, 0, &needed), PEFT_E_BUFFER);
    CHECK_INT(needed, 128);
    CHECK_OK(peft_adapters_tensor_read(f.a, "a", tensor, values, 128, NULL));
    CHECK(values[0] != 0);
    for (int i = 0; i < 128; i++) { values[i] = (float)i; }
    CHECK_OK(peft_adapters_tensor_write(f.a, "a", tensor, values, 128));
    CHECK_OK(peft_adapters_tensor_read(f.a, "a", tensor, back, 128, NULL));
    CHECK_MEM(back, values, sizeof values);
    CHECK_STATUS(peft_adapters_tensor_write(f.a, "a", tensor, values, 127), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("128");
    CHECK_STATUS(peft_adapters_tensor_write(f.a, "a", tensor, NULL, 128), PEFT_E_INVALID);
    CHECK_STATUS(
        peft_adapters_tensor_read(f.a, "a", "model.layers.0.self_attn.q_proj.lora_A.wieght", values, 128, NULL),
        PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("did you mean");
    CHECK_STATUS(peft_adapters_tensor_read(f.a, "a", NULL, values, 128, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_adapters_tensor_read(f.a, "b", tensor, values, 128, NULL), PEFT_E_NOT_FOUND);
    adapters_end(&f);
}

/* GPT-2's files hold projections as [in][out]: a trained copy is shown in that order. */
TEST(api_adapters_tensors_of_conv1d) {
    adapters_fixture f;
    float base[API_HIDDEN * 48], copy[API_HIDDEN * 48];
    int64_t dims[8] = {0};
    const char *name = NULL;
    static const char wanted[] = "transformer.h.0.attn.c_attn.weight";
    CHECK_OK(adapters_begin(&f, API_GPT2));
    CHECK_OK(peft_adapters_add(f.a, "a", "full", NULL, 1));
    for (size_t i = 0; i < peft_adapters_tensor_count(f.a, "a"); i++) {
        CHECK_OK(peft_adapters_tensor_info(f.a, "a", i, &name, NULL, dims));
        if (strcmp(name, wanted) == 0) { break; }
    }
    CHECK_STR(name, wanted);
    CHECK_INT(dims[0], API_HIDDEN);
    CHECK_INT(dims[1], 48);
    CHECK_OK(peft_model_tensor_read(f.m, wanted, base, PEFT__COUNT(base), NULL));
    CHECK_OK(peft_adapters_tensor_read(f.a, "a", wanted, copy, PEFT__COUNT(copy), NULL));
    CHECK_MEM(copy, base, sizeof base);
    base[5] = 7;
    CHECK_OK(peft_adapters_tensor_write(f.a, "a", wanted, base, PEFT__COUNT(base)));
    CHECK_OK(peft_adapters_tensor_read(f.a, "a", wanted, copy, PEFT__COUNT(copy), NULL));
    CHECK_MEM(copy, base, sizeof base);
    adapters_end(&f);
}

TEST(api_adapters_save_and_load) {
    adapters_fixture f;
    peft_options *o = NULL;
    float a[512], b[512];
    size_t n = 0;
    const char *dir = runner_path(runner_tmpdir(), "deep/adapter");
    CHECK_OK(adapters_begin(&f, API_LLAMA));
    CHECK_OK(api_options(f.ctx, "method:lora", "{'r':4,'lora_alpha':16,'target_modules':'all-linear'}", &o));
    CHECK_OK(peft_adapters_add(f.a, "a", "lora", o, 5));
    CHECK_OK(api_shake(f.a, "a", 0.1F));
    CHECK_OK(peft_adapters_save(f.a, "a", dir, NULL));
    CHECK_OK(peft_adapters_load(f.a, "b", dir, NULL));
    CHECK_INT(peft_adapters_tensor_count(f.a, "b"), peft_adapters_tensor_count(f.a, "a"));
    for (size_t i = 0; i < peft_adapters_tensor_count(f.a, "a"); i++) {
        const char *tensor = NULL;
        CHECK_OK(peft_adapters_tensor_info(f.a, "a", i, &tensor, NULL, NULL));
        CHECK_OK(peft_adapters_tensor_read(f.a, "a", tensor, a, 512, &n));
        CHECK_OK(peft_adapters_tensor_read(f.a, "b", tensor, b, 512, &n));
        CHECK_MEM(a, b, n * sizeof *a);
    }
    CHECK_STATUS(peft_adapters_load(f.a, "a", dir, NULL), PEFT_E_EXISTS);
    peft_options_free(o);
    CHECK_OK(api_options(f.ctx, "save", "{'dtype':'float16'}", &o));
    CHECK_STATUS(peft_adapters_save(f.a, "a", dir, o), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("float32");
    peft_options_free(o);
    adapters_end(&f);
    CHECK_INT(f.host.now, 0);
}

TEST(api_adapters_in_use_are_not_removed) {
    adapters_fixture f;
    peft_session *s = NULL;
    char text[4096];
    CHECK_OK(adapters_begin(&f, API_LLAMA));
    CHECK_OK(peft_adapters_add(f.a, "a", "lora", NULL, 1));
    CHECK_OK(peft_session_create(f.m, f.a, "a", NULL, &s));
    CHECK_STATUS(peft_adapters_remove(f.a, "a"), PEFT_E_BUSY);
    CHECK_ERROR_HAS("\"a\"");
    CHECK_OK(peft_adapters_info_json(f.a, "a", text, sizeof text, NULL));
    CHECK(strstr(text, "\"name\":\"a\"") != NULL && strstr(text, "\"method\":\"lora\"") != NULL);
    peft_session_free(s);
    CHECK_OK(peft_adapters_remove(f.a, "a"));
    adapters_end(&f);
}
