/* OFT and BOFT through the public functions: what each option changes, bits whatever the number of threads, quantised bases,
 * folders. What all variants have in common is in api_variants_test.c. */
#include "api_kit.h"

static const int32_t oft_ids[] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8};
enum { OFT_IDS = 12, OFT_LOGITS = OFT_IDS * API_VOCAB };
#define OFT_WIDE                                                                                            \
    "{\"model_type\":\"llama\",\"hidden_size\":32,\"intermediate_size\":64,\"num_hidden_layers\":2,"        \
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"vocab_size\":14,\"max_position_embeddings\":48," \
    "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"tie_word_embeddings\":false,\"attention_bias\":true}"

typedef struct oft_world {
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
} oft_world;

static peft_status oft_open(oft_world *w, const char *config) {
    peft_status st = PEFT_OK;
    memset(w, 0, sizeof *w);
    TRY(peft_context_create(NULL, &w->ctx));
    TRY(api_model(w->ctx, config, &w->m));
    TRY(peft_adapters_create(w->m, &w->a));
out:
    return st;
}

static void oft_close(oft_world *w) {
    peft_adapters_free(w->a);
    peft_model_free(w->m);
    peft_context_free(w->ctx);
}

/* Adds a shaken adapter: the same values for the same shapes. */
static peft_status oft_add(oft_world *w, const char *name, const char *method, const char *json) {
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    char schema[32];
    (void)snprintf(schema, sizeof schema, "method:%s", method);
    TRY(api_options(w->ctx, schema, json, &o));
    TRY(peft_adapters_add(w->a, name, method, o, 5));
    TRY(api_shake(w->a, name, 0.2F));
out:
    peft_options_free(o);
    return st;
}

static peft_status oft_logits(oft_world *w, peft_model *m, const char *name, float *out) {
    peft_status st = PEFT_OK;
    peft_session *s = NULL;
    peft_batch *b = NULL;
    const int64_t rows[] = {7, 5};
    TRY(peft_session_create(m, name != NULL ? w->a : NULL, name, NULL, &s));
    TRY(api_batch(w->ctx, oft_ids, rows, 2, &b));
    TRY(peft_session_logits(s, b, out, OFT_LOGITS, NULL));
out:
    peft_batch_free(b);
    peft_session_free(s);
    return st;
}

/* Loss of one batch in training, and the gradients of all tensors end to end. */
static peft_status oft_step(oft_world *w, const char *name, double *loss, float *grads, size_t cap, size_t *n) {
    peft_status st = PEFT_OK;
    peft_trainer *t = NULL;
    peft_batch *b = NULL;
    const int64_t rows[] = {7, 5};
    *n = 0;
    TRY(peft_trainer_create(w->a, NULL, &t));
    TRY(peft_trainer_add_job(t, name, NULL, NULL, NULL));
    TRY(api_batch(w->ctx, oft_ids, rows, 2, &b));
    TRY(peft_trainer_accumulate(t, b, loss));
    for (size_t i = 0; i < peft_adapters_tensor_count(w->a, name); i++) {
        const char *tensor = NULL;
        size_t got = 0;
        TRY(peft_adapters_tensor_info(w->a, name, i, &tensor, NULL, NULL));
        TRY(peft_trainer_gradient_read(t, name, tensor, grads + *n, cap - *n, &got));
        *n += got;
    }
out:
    peft_batch_free(b);
    peft_trainer_free(t);
    return st;
}

/* Options that change what values of the same shapes compute. */
TEST(api_oft_options_change_logits) {
    static const char *const cases[][3] = {
        {"oft", "{'oft_block_size':4}", "{'oft_block_size':4,'use_cayley_neumann':false}"},
        {"oft", "{'oft_block_size':4}", "{'oft_block_size':4,'num_cayley_neumann_terms':4}"},
        {"oft", "{'oft_block_size':4}", "{'oft_block_size':4,'num_cayley_neumann_terms':6}"},
        {"oft", "{'oft_block_size':4}", "{'oft_block_size':4,'coft':true,'eps':0.05}"},
        {"oft", "{'oft_block_size':4,'coft':true,'eps':0.05}", "{'oft_block_size':4,'coft':true,'eps':0.06}"},
        {"oft", "{'oft_block_size':4}", "{'oft_block_size':4,'block_share':true}"},
        {"oft", "{'oft_block_size':4}", "{'oft_block_size':8}"},
        {"oft", "{'r':4}", "{'r':2}"},
        {"oft", "{'r':4}", "{'r':4,'init_weights':false}"},
        {"boft", "{}", "{'boft_n_butterfly_factor':2}"},
        {"boft", "{}", "{'boft_block_size':8}"},
        {"boft", "{}", "{'boft_block_num':8}"},
        {"boft", "{}", "{'init_weights':false}"},
    };
    float one[OFT_LOGITS], two[OFT_LOGITS];
    oft_world w;
    CHECK_OK(oft_open(&w, API_LLAMA));
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        CHECK_OK(oft_add(&w, "one", cases[i][0], cases[i][1]));
        CHECK_OK(oft_add(&w, "two", cases[i][0], cases[i][2]));
        CHECK_OK(oft_logits(&w, w.m, "one", one));
        CHECK_OK(oft_logits(&w, w.m, "two", two));
        if (!(api_distance(one, two, OFT_LOGITS) > 1e-4)) { printf("%s: no change\n", cases[i][2]); }
        CHECK(api_distance(one, two, OFT_LOGITS) > 1e-4);
        CHECK_OK(peft_adapters_remove(w.a, "one"));
        CHECK_OK(peft_adapters_remove(w.a, "two"));
    }
    /* 3 and 4 terms are the same series, as in PEFT. */
    CHECK_OK(oft_add(&w, "one", "oft", "{'r':4,'num_cayley_neumann_terms':3}"));
    CHECK_OK(oft_add(&w, "two", "oft", "{'r':4,'num_cayley_neumann_terms':4}"));
    CHECK_OK(oft_logits(&w, w.m, "one", one));
    CHECK_OK(oft_logits(&w, w.m, "two", two));
    CHECK_MEM(one, two, sizeof one);
    oft_close(&w);
}

/* Dropout is of training only; a shared block is never left alone; a part that rounds down to no block changes nothing. */
TEST(api_oft_dropout) {
    static const char *const cases[][4] = {
        {"oft", "{'oft_block_size':2}", "{'oft_block_size':2,'module_dropout':0.5}", "other"},
        {"oft", "{'oft_block_size':2,'block_share':true}", "{'oft_block_size':2,'block_share':true,'module_dropout':0.5}", "same"},
        {"oft", "{'oft_block_size':2}", "{'oft_block_size':2,'module_dropout':0.12}", "same"},
        {"boft", "{'boft_n_butterfly_factor':2}", "{'boft_n_butterfly_factor':2,'boft_dropout':0.5}", "other"},
        {"boft", "{'boft_n_butterfly_factor':2}", "{'boft_n_butterfly_factor':2,'boft_dropout':0.2}", "same"},
    };
    static float grads[1 << 13];
    float one[OFT_LOGITS], two[OFT_LOGITS];
    double plain = 0, dropped = 0;
    size_t n = 0;
    oft_world w;
    CHECK_OK(oft_open(&w, API_GPT2));
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        CHECK_OK(oft_add(&w, "one", cases[i][0], cases[i][1]));
        CHECK_OK(oft_add(&w, "two", cases[i][0], cases[i][2]));
        CHECK_OK(oft_logits(&w, w.m, "one", one));
        CHECK_OK(oft_logits(&w, w.m, "two", two));
        CHECK_MEM(one, two, sizeof one);
        CHECK_OK(oft_step(&w, "one", &plain, grads, PEFT__COUNT(grads), &n));
        CHECK_OK(oft_step(&w, "two", &dropped, grads, PEFT__COUNT(grads), &n));
        bool other = strcmp(cases[i][3], "other") == 0;
        CHECK(other ? fabs(plain - dropped) > 1e-5 : plain == dropped);
        CHECK_OK(peft_adapters_remove(w.a, "one"));
        CHECK_OK(peft_adapters_remove(w.a, "two"));
    }
    /* Half of the blocks have no gradient. */
    CHECK_OK(oft_add(&w, "half", "oft", "{'oft_block_size':2,'module_dropout':0.5,'layers_to_transform':[0]}"));
    CHECK_OK(oft_step(&w, "half", &plain, grads, PEFT__COUNT(grads), &n));
    int64_t zeros = 0;
    for (size_t i = 0; i < n; i++) { zeros += grads[i] == 0; }
    CHECK_INT(n, 8);
    CHECK_INT(zeros, 4);
    oft_close(&w);
}

TEST(api_oft_threads_change_no_bit) {
    static const char *const cases[][2] = {
        {"oft", "{'oft_block_size':8,'target_modules':'all-linear','use_cayley_neumann':false,'module_dropout':0.3}"},
        {"oft", "{'r':2,'target_modules':'all-linear'}"},
        {"oft", "{'oft_block_size':8,'block_share':true}"},
        {"boft", "{'boft_block_size':8,'boft_n_butterfly_factor':3,'target_modules':['q_proj','up_proj']}"},
    };
    static float grads[2][1 << 14];
    float logits[2][OFT_LOGITS];
    double loss[2];
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        size_t n[2];
        for (int k = 0; k < 2; k++) {
            oft_world w;
            CHECK_OK(oft_open(&w, OFT_WIDE));
            CHECK_OK(peft_context_set_threads(w.ctx, k == 0 ? 1 : 5));
            CHECK_OK(oft_add(&w, "x", cases[i][0], cases[i][1]));
            CHECK_OK(oft_logits(&w, w.m, "x", logits[k]));
            CHECK_OK(oft_step(&w, "x", &loss[k], grads[k], PEFT__COUNT(grads[k]), &n[k]));
            oft_close(&w);
        }
        CHECK(loss[0] == loss[1]);
        CHECK_INT(n[0], n[1]);
        CHECK_MEM(logits[0], logits[1], sizeof logits[0]);
        CHECK_MEM(grads[0], grads[1], n[0] * sizeof grads[0][0]);
    }
}

/* Over Q8_0: the adapter's logits are those of its merged model, in F32. */
TEST(api_oft_over_a_quantised_base) {
    static const char *const cases[][2] = {{"oft", "{'oft_block_size':8,'target_modules':'all-linear'}"},
                                           {"boft", "{'boft_block_size':8,'boft_n_butterfly_factor':2,'target_modules':'all-linear'}"}};
    const char *dir = runner_tmpdir();
    const char *stored = runner_path(dir, "q8.gguf"), *merged = runner_path(dir, "merged.gguf");
    float base[OFT_LOGITS], live[OFT_LOGITS], again[OFT_LOGITS];
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        oft_world w, q;
        peft_options *how = NULL;
        peft_model *m = NULL;
        memset(&q, 0, sizeof q);
        CHECK_OK(oft_open(&w, OFT_WIDE));
        CHECK_OK(api_options(w.ctx, "merge", "{'dtype':'q8_0'}", &how));
        CHECK_OK(peft_adapters_add(w.a, "fresh", "lora", NULL, 1));
        CHECK_OK(peft_adapters_merge(w.a, "fresh", stored, how));
        peft_options_free(how);
        CHECK_OK(peft_context_create(NULL, &q.ctx));
        CHECK_OK(peft_model_open(q.ctx, stored, NULL, &q.m));
        CHECK_OK(peft_adapters_create(q.m, &q.a));
        CHECK_OK(oft_add(&q, "x", cases[i][0], cases[i][1]));
        CHECK_OK(oft_logits(&q, q.m, NULL, base));
        CHECK_OK(oft_logits(&q, q.m, "x", live));
        CHECK_OK(api_options(q.ctx, "merge", "{'dtype':'float32'}", &how));
        CHECK_OK(peft_adapters_merge(q.a, "x", merged, how));
        peft_options_free(how);
        CHECK_OK(peft_model_open(q.ctx, merged, NULL, &m));
        CHECK_OK(oft_logits(&q, m, NULL, again));
        CHECK(api_distance(base, live, OFT_LOGITS) > 1e-2);
        CHECK_NEAR(api_distance(live, again, OFT_LOGITS), 0, 2e-5);
        peft_model_free(m);
        oft_close(&q);
        oft_close(&w);
    }
}

/* The formed rotation follows the values: a session that is open while they change says what a new one says. */
TEST(api_oft_follows_its_values) {
    float before[OFT_LOGITS], open[OFT_LOGITS], fresh[OFT_LOGITS];
    oft_world w;
    peft_session *s = NULL;
    peft_batch *b = NULL;
    const int64_t rows[] = {7, 5};
    CHECK_OK(oft_open(&w, API_LLAMA));
    CHECK_OK(oft_add(&w, "x", "boft", "{'boft_n_butterfly_factor':2}"));
    CHECK_OK(peft_session_create(w.m, w.a, "x", NULL, &s));
    CHECK_OK(api_batch(w.ctx, oft_ids, rows, 2, &b));
    CHECK_OK(peft_session_logits(s, b, before, OFT_LOGITS, NULL));
    CHECK_OK(api_shake(w.a, "x", 0.1F));
    CHECK_OK(peft_session_logits(s, b, open, OFT_LOGITS, NULL));
    CHECK_OK(oft_logits(&w, w.m, "x", fresh));
    CHECK(api_distance(before, fresh, OFT_LOGITS) > 1e-3);
    CHECK_MEM(open, fresh, sizeof open);
    peft_batch_free(b);
    peft_session_free(s);
    oft_close(&w);
}

/* ---- folders --------------------------------------------------------------------------------------------------------- */

static peft_status oft_config(const char *dir, const char *text) {
    return text_write(runner_mem(), dir, "adapter_config.json", text);
}

TEST(api_oft_folders_that_are_not_read) {
    oft_world w;
    const char *dir = runner_path(runner_tmpdir(), "x");
    CHECK_OK(oft_open(&w, API_LLAMA));
    CHECK_OK(oft_add(&w, "x", "oft", "{'oft_block_size':4}"));
    CHECK_OK(peft_adapters_save(w.a, "x", dir, NULL));
    CHECK_OK(oft_config(dir, "{\"peft_type\":\"OFT\",\"r\":8,\"target_modules\":[\"q_proj\",\"v_proj\"]}"));
    CHECK_STATUS(peft_adapters_load(w.a, "y", dir, NULL), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("there is no oft_block_size");
    CHECK_OK(oft_config(dir, "{\"peft_type\":\"OFT\",\"r\":4,\"oft_block_size\":4,\"target_modules\":[\"q_proj\",\"v_proj\"]}"));
    CHECK_STATUS(peft_adapters_load(w.a, "y", dir, NULL), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("r is 4 and oft_block_size is 4");
    CHECK_OK(oft_config(dir, "{\"peft_type\":\"OFT\",\"oft_block_size\":4,\"bias\":\"oft_only\",\"target_modules\":[\"q_proj\"]}"));
    CHECK_STATUS(peft_adapters_load(w.a, "y", dir, NULL), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("bias is set");
    CHECK_OK(oft_config(dir, "{\"peft_type\":\"OFT\",\"oft_block_size\":8,\"target_modules\":[\"q_proj\",\"v_proj\"]}"));
    CHECK_STATUS(peft_adapters_load(w.a, "y", dir, NULL), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("is [4, 6], expected [2, 28]");
    CHECK_OK(oft_config(dir, "{\"peft_type\":\"OFT\",\"oft_block_size\":5,\"target_modules\":[\"q_proj\",\"v_proj\"]}"));
    CHECK_OK(peft_adapters_load(w.a, "y", dir, NULL)); /* 5 becomes 4, as in PEFT */
    dir = runner_path(runner_tmpdir(), "z");
    CHECK_OK(oft_add(&w, "z", "boft", "{}"));
    CHECK_OK(peft_adapters_save(w.a, "z", dir, NULL));
    CHECK_OK(oft_config(dir, "{\"peft_type\":\"BOFT\",\"boft_n_butterfly_factor\":2,\"target_modules\":[\"q_proj\",\"v_proj\"]}"));
    CHECK_STATUS(peft_adapters_load(w.a, "u", dir, NULL), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("is [1, 4, 4, 4], expected [2, 4, 4, 4]");
    CHECK_OK(oft_config(dir, "{\"peft_type\":\"BOFT\",\"bias\":\"all\",\"target_modules\":[\"q_proj\",\"v_proj\"]}"));
    CHECK_STATUS(peft_adapters_load(w.a, "u", dir, NULL), PEFT_E_UNSUPPORTED);
    CHECK_OK(oft_config(dir, "{\"peft_type\":\"BOFT\",\"target_modules\":[\"q_proj\",\"v_proj\"]}"));
    CHECK_OK(peft_adapters_load(w.a, "u", dir, NULL));
    oft_close(&w);
}
