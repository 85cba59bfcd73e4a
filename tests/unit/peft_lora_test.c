/* LoRA: names, shapes and counts by formula, scales, initial values, biases and saved modules, errors, failed allocations. */
#include <math.h>
#include <stdio.h>

#include "peft_fake.h"

/* Names and shapes, one a line: "path [rows, cols]". */
static void lora_names(const peft__adapter *a, char out[4096]) {
    out[0] = '\0';
    for (size_t i = 0; i < peft__adapter_param_count(a); i++) {
        const peft__adapter_param *p = peft__adapter_param_at(a, i);
        (void)snprintf(out + strlen(out), 4096 - strlen(out), p->ndim == 1 ? "%s [%lld]\n" : "%s [%lld, %lld]\n", p->p.name,
                       (long long)(p->ndim == 1 ? p->p.cols : p->p.rows), (long long)p->p.cols);
    }
}

TEST(lora_default_parameters) {
    fake_base b;
    peft_status st;
    char names[4096];
    fake_llama(&b);
    peft__adapter *a = fake_adapter(&b, "lora", FAKE("r=2", "lora_alpha=6"), 1, &st);
    CHECK_OK(st);
    lora_names(a, names);
    CHECK_STR(names, "model.layers.0.self_attn.q_proj.lora_A.weight [2, 8]\n"
                     "model.layers.0.self_attn.q_proj.lora_B.weight [8, 2]\n"
                     "model.layers.0.self_attn.v_proj.lora_A.weight [2, 8]\n"
                     "model.layers.0.self_attn.v_proj.lora_B.weight [4, 2]\n"
                     "model.layers.1.self_attn.q_proj.lora_A.weight [2, 8]\n"
                     "model.layers.1.self_attn.q_proj.lora_B.weight [8, 2]\n"
                     "model.layers.1.self_attn.v_proj.lora_A.weight [2, 8]\n"
                     "model.layers.1.self_attn.v_proj.lora_B.weight [4, 2]\n");
    CHECK_INT(a->n_values, 2 * 2 * (8 + 8 + 8 + 4)); /* layers x rank x (in + out of q and v) */
    CHECK_INT(a->n_trainable, a->n_values);
    CHECK_STR(peft__opt_str(&a->opts, "target_modules"), "[\"q_proj\",\"v_proj\"]");
    CHECK(!peft__opt_bool(&a->opts, "fan_in_fan_out"));
    const peft__attachment *at = a->attachments.data;
    CHECK_INT(a->attachments.len, 4);
    CHECK_NEAR(at[0].scale, 3, 0);
    CHECK_INT(at[0].rank, 2);
    CHECK(at[0].key != at[1].key);
    CHECK(peft__adapter_param_at(a, 0)->p.value == a->values);
    CHECK(peft__adapter_param_at(a, 1)->p.value == a->values + 16);
    size_t index;
    CHECK(peft__adapter_find(a, "model.layers.1.self_attn.v_proj.lora_B.weight", &index) != NULL);
    CHECK_INT(index, 7);
    CHECK(peft__adapter_find(a, "lm_head.weight", NULL) == NULL);
    peft__adapter_release(a);
    fake_end(&b);
}

TEST(lora_patterns_and_scales) {
    fake_base b;
    peft_status st;
    fake_llama(&b);
    peft__adapter *a = fake_adapter(&b, "lora",
                                    FAKE("target_modules=q_proj,k_proj,lm_head", "r=4", "lora_alpha=8", "use_rslora=true",
                                         "rank_pattern={\"k_proj\":2}", "alpha_pattern={\"lm_head\":1.5}"),
                                    1, &st);
    CHECK_OK(st);
    const peft__attachment *at = a->attachments.data;
    CHECK_NEAR(at[0].scale, 8 / sqrt(4.0), 1e-15);
    CHECK_INT(at[1].rank, 2);
    CHECK_NEAR(at[1].scale, 8 / sqrt(2.0), 1e-15);
    CHECK_NEAR(at[4].scale, 1.5 / 2, 1e-15);
    CHECK_INT(a->n_values, 2 * (4 * 16 + 2 * 12) + 4 * 18);
    peft__adapter_release(a);
    CHECK(fake_adapter(&b, "lora", FAKE("rank_pattern={\"q_proj\":2.5}"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_KEY);
    CHECK_ERROR_HAS("rank_pattern: the rank of \"model.layers.0.self_attn.q_proj\"");
    CHECK(fake_adapter(&b, "lora", FAKE("rank_pattern={\"q_proj\":0}"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_KEY);
    fake_end(&b);
}

TEST(lora_initial_values) {
    static const char *const names[] = {"q_proj", "k_proj", "v_proj"};
    static const int32_t roles[] = {PEFT__ROLE_Q, PEFT__ROLE_K, PEFT__ROLE_V};
    fake_base b;
    peft_status st;
    fake_start(&b, "llama"); /* wide enough for many values */
    for (int i = 0; i < 3; i++) {
        char path[96];
        (void)snprintf(path, sizeof path, "model.layers.1.self_attn.%s", names[i]);
        (void)fake_site(&b, PEFT__SITE_LINEAR, roles[i], 1, path, 64, 64, false, false);
    }
    peft__adapter *one = fake_adapter(&b, "lora", FAKE("r=64"), 7, &st);
    peft__adapter *more = fake_adapter(&b, "lora", FAKE("r=64", "target_modules=all-linear"), 7, &st);
    peft__adapter *other = fake_adapter(&b, "lora", FAKE("r=64"), 8, &st);
    CHECK_OK(st);
    const char *key = "model.layers.1.self_attn.q_proj.lora_A.weight";
    const peft__param *p = &peft__adapter_find(one, key, NULL)->p;
    double low = 1, high = -1, sum = 0;
    for (int i = 0; i < 512; i++) {
        low = fmin(low, (double)p->value[i]);
        high = fmax(high, (double)p->value[i]);
        sum += (double)p->value[i];
    }
    double bound = 1 / sqrt(64.0); /* in = 64 */
    CHECK(low >= -bound && high <= bound && low < -0.98 * bound && high > 0.98 * bound);
    CHECK_NEAR(sum / 512, 0, 4 * bound / sqrt(3.0 * 512));
    /* Another set of targets, the same values; another seed, others. */
    CHECK_MEM(p->value, peft__adapter_find(more, key, NULL)->p.value, 512 * sizeof(peft__real));
    CHECK(memcmp(p->value, peft__adapter_find(other, key, NULL)->p.value, 512 * sizeof(peft__real)) != 0);
    p = &peft__adapter_find(one, "model.layers.1.self_attn.q_proj.lora_B.weight", NULL)->p;
    for (int i = 0; i < 512; i++) { CHECK(p->value[i] == 0); }
    peft__adapter_release(one);
    peft__adapter_release(more);
    peft__adapter_release(other);

    one = fake_adapter(&b, "lora", FAKE("r=64", "init_lora_weights=gaussian"), 7, &st);
    CHECK_OK(st);
    sum = 0;
    p = &peft__adapter_find(one, key, NULL)->p;
    for (int i = 0; i < 512; i++) { sum += (double)p->value[i] * (double)p->value[i]; }
    CHECK_NEAR(sqrt(sum / 512), 1.0 / 64, 0.15 / 64);
    peft__adapter_release(one);

    one = fake_adapter(&b, "lora", FAKE("r=64", "init_lora_weights=false"), 7, &st);
    CHECK_OK(st);
    p = &peft__adapter_find(one, "model.layers.1.self_attn.q_proj.lora_B.weight", NULL)->p;
    high = 0;
    for (int i = 0; i < 512; i++) { high = fmax(high, fabs((double)p->value[i])); }
    CHECK(high <= 0.125 && high > 0.12); /* 1 / sqrt(64) */
    peft__adapter_release(one);
    fake_end(&b);
}

TEST(lora_biases_and_saved_modules) {
    fake_base b;
    peft_status st;
    char names[4096];
    fake_gpt2(&b);
    peft__adapter *a = fake_adapter(&b, "lora", FAKE("r=1", "layers_to_transform=1", "bias=lora_only"), 1, &st);
    CHECK_OK(st);
    lora_names(a, names);
    CHECK_STR(names, "transformer.h.1.attn.c_attn.lora_A.weight [1, 8]\n"
                     "transformer.h.1.attn.c_attn.lora_B.weight [24, 1]\n"
                     "transformer.h.1.attn.c_attn.base_layer.bias [24]\n");
    CHECK(peft__opt_bool(&a->opts, "fan_in_fan_out"));
    const peft__adapter_param *p = peft__adapter_param_at(a, 2);
    CHECK(p->whole);
    CHECK_NEAR(p->p.value[5], fake_value(fake_find(&b, "transformer.h.1.attn.c_attn") + 100, 5), 0);
    peft__adapter_release(a);

    a = fake_adapter(&b, "lora", FAKE("r=1", "layers_to_transform=1", "bias=all"), 1, &st);
    CHECK_OK(st);
    CHECK_INT(peft__adapter_param_count(a), 2 + 9); /* biases: ln_1, c_attn, c_proj, c_proj of two layers, ln_f */
    CHECK(peft__adapter_find(a, "transformer.h.1.attn.c_attn.base_layer.bias", NULL) != NULL);
    CHECK(peft__adapter_find(a, "transformer.h.0.attn.c_attn.bias", NULL) != NULL);
    CHECK(peft__adapter_find(a, "transformer.ln_f.bias", NULL) != NULL);
    peft__adapter_release(a);

    a = fake_adapter(&b, "lora", FAKE("r=1", "modules_to_save=wte,ln_f,mlp.c_proj", "target_modules=c_attn,c_proj"), 1, &st);
    CHECK_OK(st);
    CHECK(peft__adapter_find(a, "transformer.h.0.mlp.c_proj.lora_A.weight", NULL) == NULL);
    CHECK(peft__adapter_find(a, "transformer.h.0.attn.c_proj.lora_A.weight", NULL) != NULL);
    size_t i;
    p = peft__adapter_find(a, "transformer.h.0.mlp.c_proj.weight", &i);
    CHECK(p != NULL && p->p.rows == 8 && p->p.cols == 32 && peft__adapter_flipped(a, i));
    CHECK_NEAR(p->p.value[33], fake_value(fake_find(&b, "transformer.h.0.mlp.c_proj"), 33), 0); /* logical order */
    p = peft__adapter_find(a, "transformer.ln_f.weight", &i);
    CHECK(p != NULL && p->ndim == 1 && !peft__adapter_flipped(a, i));
    CHECK(peft__adapter_find(a, "transformer.ln_f.bias", NULL) != NULL);
    CHECK(peft__adapter_find(a, "transformer.wte.weight", NULL) != NULL);
    peft__adapter_release(a);
    fake_end(&b);
}

TEST(lora_all_linear_becomes_names) {
    fake_base b;
    peft_status st;
    fake_llama(&b);
    peft__adapter *a = fake_adapter(&b, "lora", FAKE("target_modules=all-linear"), 1, &st);
    CHECK_OK(st);
    CHECK_STR(peft__opt_str(&a->opts, "target_modules"),
              "[\"q_proj\",\"k_proj\",\"v_proj\",\"o_proj\",\"gate_proj\",\"up_proj\",\"down_proj\"]");
    peft__adapter_release(a);
    a = fake_adapter(&b, "lora", FAKE("target_modules=all-linear", "exclude_modules=layers.0.mlp.up_proj", "r=1"), 1, &st);
    CHECK_OK(st);
    CHECK(strstr(peft__opt_str(&a->opts, "target_modules"), "\"model.layers.1.mlp.up_proj\"") != NULL);
    CHECK_INT(a->attachments.len, 13);
    peft__adapter_release(a);
    fake_end(&b);
}

TEST(lora_errors) {
    fake_base b;
    peft_status st;
    fake_llama(&b);
    CHECK(fake_adapter(&b, "lora", FAKE("target_modules=q_porj"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("did you mean \"q_proj\"");
    CHECK(fake_adapter(&b, "lora", FAKE("modules_to_save=lm_haed"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("did you mean \"lm_head\"");
    CHECK(fake_adapter(&b, "lora", FAKE("r=0"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_KEY);
    CHECK(fake_adapter(&b, "lora", FAKE("bias=some"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_KEY);
    b.info.model_type = "mamba";
    CHECK(fake_adapter(&b, "lora", NULL, 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("no default targets for model type \"mamba\"");
    fake_end(&b);
}

TEST(lora_every_allocation_may_fail) {
    fake_base b;
    peft_status st = PEFT_E_NOMEM;
    fake_gpt2(&b);
    size_t before = atomic_load(&b.mem->now), n = 0;
    for (n = 1; n < 2000 && st != PEFT_OK; n++) {
        peft__mem_fail_after(b.mem, n, true);
        peft__adapter *a = fake_adapter(&b, "lora", FAKE("bias=all", "target_modules=all-linear", "modules_to_save=wte"), 1, &st);
        peft__mem_fail_after(b.mem, 0, false);
        CHECK(a != NULL || st == PEFT_E_NOMEM);
        peft__adapter_release(a);
        CHECK_INT(atomic_load(&b.mem->now), before);
    }
    CHECK_INT(st, PEFT_OK);
    CHECK(n > 20);
    fake_end(&b);
}
