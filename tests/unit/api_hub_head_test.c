/* api_hub_head_test.c - model_head.safetensors of an AdapterHub folder: of a language model the base's own is passed over and another
 * becomes a part of what is loaded; of other tasks it has the adapter's head. What such a file cannot be. */
#include "golden_kit.h"
#include "tensor/tensor.h"

#define HUB_HEAD "lm_head.weight"
enum { HUB_WIDTH = API_HIDDEN, HUB_ROWS = API_VOCAB, HUB_SIZE = HUB_WIDTH * HUB_ROWS, HUB_TYPE_I32 = -1 };

typedef struct hub_world {
    api_host host;
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
} hub_world;

static float hub_base_value(size_t i) {
    return (float)((int)(i * 37 % 101) - 50) / 64; /* a float of 16 bits of either kind has it */
}

/* A model whose head has these values in this type; its other tensors by golden_kit.h. */
static peft_status hub_model(peft_context *ctx, int32_t dtype, peft_model **out) {
    peft_status st = PEFT_OK;
    peft_model *f32 = NULL;
    peft_options *o = NULL;
    const char *names[GOLDEN_TENSORS];
    int32_t types[GOLDEN_TENSORS], ndims[GOLDEN_TENSORS];
    int64_t dims[8 * GOLDEN_TENSORS] = {0};
    const void *data[GOLDEN_TENSORS];
    float *values = malloc(GOLDEN_FLOATS * sizeof *values), *next = values, head[HUB_SIZE];
    uint16_t half[HUB_SIZE];
    TRY(golden_model(ctx, API_LLAMA, &f32));
    size_t n = peft_model_tensor_count(f32);
    for (size_t i = 0; i < n; i++) {
        size_t size = 0;
        TRY(peft_model_tensor_info(f32, i, &names[i], &types[i], &ndims[i], &dims[8 * i]));
        TRY(peft_model_tensor_read(f32, names[i], next, GOLDEN_FLOATS - (size_t)(next - values), &size));
        data[i] = next;
        next += size;
        if (strcmp(names[i], HUB_HEAD) != 0) { continue; }
        types[i] = dtype;
        data[i] = dtype == PEFT_DTYPE_F32 ? (const void *)head : half;
    }
    for (size_t i = 0; i < HUB_SIZE; i++) {
        head[i] = hub_base_value(i);
        half[i] = dtype == PEFT_DTYPE_F16 ? peft__f32_to_f16(head[i]) : peft__f32_to_bf16(head[i]);
    }
    TRY(api_options(ctx, "model", "{'load':'copy'}", &o));
    st = peft_model_create_from_tensors(ctx, API_LLAMA, strlen(API_LLAMA), names, types, ndims, dims, data, n, o, NULL, NULL, out);
out:
    peft_options_free(o);
    peft_model_free(f32);
    free(values);
    return st;
}

/* A world with an adapter "x" saved into dir. */
static peft_status hub_open(hub_world *w, const char *config, int32_t dtype, const char *dir) {
    static const char *const how[2] = {"pfeiffer", "{'reduction_factor':4}"};
    peft_status st = PEFT_OK;
    memset(w, 0, sizeof *w);
    TRY(api_context(&w->host, &w->ctx));
    TRY(config != NULL ? golden_model(w->ctx, config, &w->m) : hub_model(w->ctx, dtype, &w->m));
    TRY(peft_adapters_create(w->m, &w->a));
    TRY(api_adapter(w->ctx, w->a, "x", how, 1, 0.3F));
    TRY(peft_adapters_save(w->a, "x", dir, NULL));
out:
    return st;
}

static void hub_close(hub_world *w) {
    peft_adapters_free(w->a);
    peft_model_free(w->m);
    peft_context_free(w->ctx);
}

typedef struct hub_tensor { /* of a head's file; name NULL: none */
    const char *name;
    int32_t dtype; /* PEFT_DTYPE_*, or HUB_TYPE_I32 */
    int64_t rows, cols; /* cols 0: a vector */
} hub_tensor;

/* Up to two tensors, their elements by hub_base_value but for one. */
static peft_status hub_write(const char *dir, const hub_tensor tensors[2], size_t changed, float value) {
    enum { LARGEST = 512 };
    peft_status st = PEFT_OK;
    peft__io_source sources[2];
    float f32[LARGEST];
    uint16_t half[LARGEST];
    size_t n = 0;
    memset(sources, 0, sizeof sources);
    for (size_t i = 0; i < LARGEST; i++) {
        f32[i] = i == changed ? value : hub_base_value(i);
        half[i] = tensors[0].dtype == PEFT_DTYPE_F16 ? peft__f32_to_f16(f32[i]) : peft__f32_to_bf16(f32[i]);
    }
    for (; n < 2 && tensors[n].name != NULL; n++) {
        const hub_tensor *t = &tensors[n];
        bool plain = t->dtype == PEFT_DTYPE_F32 || t->dtype == HUB_TYPE_I32;
        sources[n] = (peft__io_source){.name = t->name, .dtype = plain ? PEFT_DTYPE_F32 : t->dtype, .ndim = t->cols > 0 ? 2 : 1,
                                       .dims = {t->rows, t->cols}, .data = plain ? (const void *)f32 : half};
    }
    const char *path = runner_path(dir, "model_head.safetensors");
    peft__file file;
    memset(&file, 0, sizeof file);
    st = peft__safetensors_write(runner_mem(), path, sources, n, NULL);
    if (st != PEFT_OK || tensors[0].dtype != HUB_TYPE_I32) { return st; }
    TRY(peft__file_open(runner_mem(), path, true, &file)); /* "F32" becomes a type of the same size that no head has */
    char *copy = malloc(file.size), *at = NULL;
    if (copy == NULL) { st = PEFT_E_NOMEM; goto out; }
    memcpy(copy, file.data, file.size);
    for (size_t i = 8; i + 3 < file.size && at == NULL; i++) { at = memcmp(copy + i, "F32", 3) == 0 ? copy + i : NULL; }
    if (at != NULL) { memcpy(at, "I32", 3); }
    st = peft__save_text(runner_mem(), path, copy, file.size);
    free(copy);
out:
    peft__file_close(&file);
    return st;
}

static peft_status hub_logits(const hub_world *w, const char *name, float out[4 * HUB_ROWS]) {
    static const int32_t ids[] = {3, 1, 4, 1};
    static const int64_t len = 4;
    peft_session *s = NULL;
    peft_batch *b = NULL;
    peft_status st = peft_session_create(w->m, w->a, name, NULL, &s);
    if (st == PEFT_OK) { st = api_batch(w->ctx, ids, &len, 1, &b); }
    if (st == PEFT_OK) { st = peft_session_logits(s, b, out, 4 * HUB_ROWS, NULL); }
    peft_batch_free(b);
    peft_session_free(s);
    return st;
}

/* Loads the folder as "y": what `method` it is, and which column of the logits differs from those of "x" (-1: none). */
static void hub_expect(const hub_world *w, const char *dir, const char *method, int column) {
    float x[4 * HUB_ROWS], y[4 * HUB_ROWS];
    char json[8192], says[64];
    CHECK_OK(peft_adapters_load(w->a, "y", dir, NULL));
    CHECK_OK(peft_adapters_info_json(w->a, "y", json, sizeof json, NULL));
    (void)snprintf(says, sizeof says, "\"method\":\"%s\"", method);
    CHECK(strstr(json, says) != NULL);
    CHECK_OK(hub_logits(w, "x", x));
    CHECK_OK(hub_logits(w, "y", y));
    for (size_t i = 0; i < PEFT__COUNT(x); i++) {
        double apart = fabs((double)x[i] - (double)y[i]);
        if ((int)(i % HUB_ROWS) == column) { CHECK(apart > 1e-4); } else { CHECK(apart < 1e-6); }
    }
    CHECK_OK(peft_adapters_remove(w->a, "y"));
}

TEST(api_hub_head_of_a_language_model) {
    static const struct {
        int32_t base, file;
        float away; /* of element 37, in row 2; the largest of its row is 0.78125 */
        int column; /* -1: as the base's */
    } cases[] = {
        {PEFT_DTYPE_F32, PEFT_DTYPE_F32, 0, -1},
        {PEFT_DTYPE_F32, PEFT_DTYPE_F32, 0.001F, 2},
        {PEFT_DTYPE_F32, PEFT_DTYPE_F16, 0.25F, 2},
        {PEFT_DTYPE_F32, PEFT_DTYPE_BF16, 0.25F, 2},
        {PEFT_DTYPE_F32, PEFT_DTYPE_BF16, 0, -1},
        {PEFT_DTYPE_F16, PEFT_DTYPE_F32, 0.005F, -1}, /* within what 16 bits round by */
        {PEFT_DTYPE_F16, PEFT_DTYPE_F32, 0.01F, 2},
        {PEFT_DTYPE_F16, PEFT_DTYPE_F16, 0, -1},
        {PEFT_DTYPE_BF16, PEFT_DTYPE_F32, 0.005F, -1},
        {PEFT_DTYPE_BF16, PEFT_DTYPE_F32, -0.01F, 2},
    };
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        hub_world w;
        const char *dir = runner_tmpdir();
        const hub_tensor head[2] = {{HUB_HEAD, cases[i].file, HUB_ROWS, HUB_WIDTH}};
        CHECK_OK(hub_open(&w, NULL, cases[i].base, dir));
        CHECK_OK(hub_write(dir, head, 37, hub_base_value(37) + cases[i].away));
        hub_expect(&w, dir, cases[i].column < 0 ? "pfeiffer" : "union", cases[i].column);
        hub_close(&w);
        CHECK_INT(w.host.now, 0);
    }
}

TEST(api_hub_head_of_a_language_model_refused) {
    static const struct {
        hub_tensor tensors[2];
        float value; /* of element 5 */
        peft_status st;
        const char *says;
    } cases[] = {
        {{{"heads.x.1.weight", PEFT_DTYPE_F32, HUB_ROWS, HUB_WIDTH}}, 0, PEFT_E_UNSUPPORTED, "\"heads.x.1.weight\" is of a head"},
        {{{"lm_head.bias", PEFT_DTYPE_F32, HUB_ROWS, 0}}, 0, PEFT_E_UNSUPPORTED, "\"lm_head.bias\" is of a head that this base does not"},
        {{{HUB_HEAD, PEFT_DTYPE_F32, HUB_ROWS, HUB_WIDTH}, {"lm_head2.weight", PEFT_DTYPE_F32, 1, 1}}, 0, PEFT_E_UNSUPPORTED, "lm_head2"},
        {{{HUB_HEAD, PEFT_DTYPE_F32, HUB_ROWS + 1, HUB_WIDTH}}, 0, PEFT_E_SHAPE, "is not [14, 16] as this base's"},
        {{{HUB_HEAD, PEFT_DTYPE_F32, HUB_ROWS, HUB_WIDTH - 1}}, 0, PEFT_E_SHAPE, "is not [14, 16] as this base's"},
        {{{HUB_HEAD, PEFT_DTYPE_F32, HUB_SIZE, 0}}, 0, PEFT_E_SHAPE, "is not [14, 16] as this base's"},
        {{{HUB_HEAD, HUB_TYPE_I32, HUB_ROWS, HUB_WIDTH}}, 0, PEFT_E_SHAPE, "is not [14, 16] as this base's"},
        {{{HUB_HEAD, PEFT_DTYPE_F32, HUB_ROWS, HUB_WIDTH}}, NAN, PEFT_E_NUMERIC, "\"lm_head.weight\" has a NaN or an infinite value"},
        {{{HUB_HEAD, PEFT_DTYPE_BF16, HUB_ROWS, HUB_WIDTH}}, -INFINITY, PEFT_E_NUMERIC, "has a NaN or an infinite value"},
    };
    hub_world w;
    peft_options *o = NULL;
    const char *dir = runner_tmpdir();
    CHECK_OK(hub_open(&w, NULL, PEFT_DTYPE_F32, dir));
    CHECK_OK(api_options(w.ctx, "load", "{'allow_nan':true}", &o));
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        CHECK_OK(hub_write(dir, cases[i].tensors, 5, cases[i].value));
        CHECK_STATUS(peft_adapters_load(w.a, "y", dir, NULL), cases[i].st);
        CHECK_ERROR_HAS("model_head.safetensors: tensor ");
        CHECK_ERROR_HAS(cases[i].says);
        CHECK_INT(peft_adapters_count(w.a), 1);
        if (cases[i].st != PEFT_E_NUMERIC) { continue; }
        CHECK_OK(peft_adapters_load(w.a, "y", dir, o));
        CHECK_OK(peft_adapters_remove(w.a, "y"));
    }
    const hub_tensor none[2] = {{NULL, PEFT_DTYPE_F32, 0, 0}};
    CHECK_OK(hub_write(dir, none, 0, 0)); /* without a tensor it says nothing */
    hub_expect(&w, dir, "pfeiffer", -1);
    CHECK_OK(text_write(runner_mem(), dir, "model_head.safetensors", ""));
    CHECK_STATUS(peft_adapters_load(w.a, "y", dir, NULL), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("model_head.safetensors");
    peft_options_free(o);
    hub_close(&w);
    CHECK_INT(w.host.now, 0);
}

/* ---- other tasks ------------------------------------------------------------------------------------------------------- */

TEST(api_hub_head_of_a_classification) {
    static const struct {
        hub_tensor tensors[2];
        float value; /* of element 1 */
        peft_status st;
        const char *says;
    } cases[] = {
        {{{"classifier.weight", PEFT_DTYPE_F32, 3, 16}, {"classifier.bias", PEFT_DTYPE_F32, 3, 0}}, 1, PEFT_OK, NULL},
        {{{"classifier.weight", PEFT_DTYPE_BF16, 3, 16}, {"classifier.bias", PEFT_DTYPE_BF16, 3, 0}}, 1, PEFT_OK, NULL},
        {{{"classifier.weight", PEFT_DTYPE_F32, 3, 16}}, 1, PEFT_E_NOT_FOUND, "there is no tensor \"classifier.bias\""},
        {{{"classifier.bias", PEFT_DTYPE_F32, 3, 0}}, 1, PEFT_E_NOT_FOUND, "there is no tensor \"classifier.weight\""},
        {{{"classifier.weight", PEFT_DTYPE_F32, 2, 16}, {"classifier.bias", PEFT_DTYPE_F32, 3, 0}}, 1, PEFT_E_SHAPE,
         "\"classifier.weight\" is not of the 3 x 16 plain numbers"},
        {{{"classifier.weight", PEFT_DTYPE_F32, 3, 8}, {"classifier.bias", PEFT_DTYPE_F32, 3, 0}}, 1, PEFT_E_SHAPE, "is not of the 3 x 16"},
        {{{"classifier.weight", PEFT_DTYPE_F32, 48, 0}, {"classifier.bias", PEFT_DTYPE_F32, 3, 0}}, 1, PEFT_E_SHAPE,
         "is not of the 3 x 16"},
        {{{"classifier.weight", PEFT_DTYPE_F32, 3, 16}, {"classifier.bias", PEFT_DTYPE_F32, 4, 0}}, 1, PEFT_E_SHAPE, "\"classifier.bias\""},
        {{{"classifier.weight", HUB_TYPE_I32, 3, 16}, {"classifier.bias", PEFT_DTYPE_F32, 3, 0}}, 1, PEFT_E_SHAPE, "plain numbers"},
        {{{"classifier.weight", PEFT_DTYPE_F32, 3, 16}, {"classifier.bias", PEFT_DTYPE_F32, 3, 0}}, NAN, PEFT_E_NUMERIC, "has a NaN"},
    };
    hub_world w;
    peft_options *o = NULL;
    float values[48];
    const char *dir = runner_tmpdir();
    CHECK_OK(hub_open(&w, API_BERT, PEFT_DTYPE_F32, dir));
    CHECK_OK(api_options(w.ctx, "load", "{'allow_nan':true}", &o));
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        CHECK_OK(hub_write(dir, cases[i].tensors, 1, cases[i].value));
        CHECK_STATUS(peft_adapters_load(w.a, "y", dir, NULL), cases[i].st);
        if (cases[i].st != PEFT_OK) {
            CHECK_ERROR_HAS("model_head.safetensors: ");
            CHECK_ERROR_HAS(cases[i].says);
            CHECK_INT(peft_adapters_count(w.a), 1);
        }
        if (cases[i].st == PEFT_E_NUMERIC) { CHECK_OK(peft_adapters_load(w.a, "y", dir, o)); }
        if (peft_adapters_count(w.a) == 1) { continue; }
        CHECK_OK(peft_adapters_tensor_read(w.a, "y", "classifier.weight", values, 48, NULL));
        CHECK(cases[i].st == PEFT_OK ? values[1] == cases[i].value : isnan(values[1]));
        CHECK_NEAR(values[47], hub_base_value(47), 0);
        CHECK_OK(peft_adapters_remove(w.a, "y"));
    }
    peft_options_free(o);
    hub_close(&w);
    CHECK_INT(w.host.now, 0);
}

/* What head_config.json says of the labels. */
TEST(api_hub_head_config) {
    static const char *const configs[][2] = {
        {API_BERT, "{\n  \"config\": null,\n  \"label2id\": {\n    \"a\": 0,\n    \"b\": 1,\n    \"c\": 2\n  },\n"
                      "  \"model_class\": \"BertForSequenceClassification\",\n  \"model_name\": \"\",\n  \"model_type\": \"bert\",\n"
                      "  \"name\": null,\n  \"num_labels\": 3\n}"},
        {"{\"model_type\":\"bert\",\"architectures\":[\"BertForSequenceClassification\"],\"hidden_size\":16,\"num_hidden_layers\":1,"
         "\"num_attention_heads\":2,\"intermediate_size\":24,\"vocab_size\":14,\"max_position_embeddings\":48,\"type_vocab_size\":2,"
         "\"hidden_act\":\"gelu\",\"layer_norm_eps\":1e-12,\"pad_token_id\":0}",
         "{\n  \"config\": null,\n  \"label2id\": null,\n  \"model_class\": \"BertForSequenceClassification\",\n  \"model_name\": \"\",\n"
         "  \"model_type\": \"bert\",\n  \"name\": null,\n  \"num_labels\": 2\n}"}};
    for (size_t i = 0; i < PEFT__COUNT(configs); i++) {
        hub_world w;
        peft__file file;
        const char *dir = runner_tmpdir();
        CHECK_OK(hub_open(&w, configs[i][0], PEFT_DTYPE_F32, dir));
        CHECK_OK(peft__file_open(runner_mem(), runner_path(dir, "head_config.json"), true, &file));
        char text[512];
        (void)snprintf(text, sizeof text, "%.*s", (int)file.size, (const char *)file.data);
        CHECK_STR(text, configs[i][1]);
        peft__file_close(&file);
        hub_close(&w);
    }
}

/* A head's file is no leave to reserve what neither file accounts for. */
TEST(api_hub_head_and_a_width_of_no_file) {
    hub_world w;
    const char *dir = runner_tmpdir();
    const hub_tensor head[2] = {{HUB_HEAD, PEFT_DTYPE_F32, HUB_ROWS, HUB_WIDTH}};
    CHECK_OK(hub_open(&w, NULL, PEFT_DTYPE_F32, dir));
    CHECK_OK(hub_write(dir, head, 0, hub_base_value(0)));
    CHECK_OK(text_write(runner_mem(), dir, "adapter_config.json", "{\"config\":{\"mh_adapter\":false,\"output_adapter\":true,"
                        "\"reduction_factor\":0.001,\"non_linearity\":\"relu\"},\"hidden_size\":16,\"name\":\"x\"}"));
    peft_context_memory_reset_peak(w.ctx);
    size_t before = 0, peak = 0;
    peft_context_memory(w.ctx, &before, NULL);
    CHECK_STATUS(peft_adapters_load(w.a, "y", dir, NULL), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("and the file has no room for half as many");
    peft_context_memory(w.ctx, NULL, &peak);
    CHECK(peak - before < 1 << 20);
    hub_close(&w);
    CHECK_INT(w.host.now, 0);
}
