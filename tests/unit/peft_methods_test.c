/* Scaling, norm, bias, head and weight-space methods and the variants of LoRA: names, shapes, initial values, what each option
 * changes, bad input, failed allocations. */
#include <math.h>

#include "peft_fake.h"

static const peft__param *mixed_find(const peft__adapter *a, const char *key) {
    const peft__adapter_param *p = peft__adapter_find(a, key, NULL);
    return p != NULL ? &p->p : NULL;
}

/* Does the adapter have the parameter with this shape? */
static bool mixed_has(const peft__adapter *a, const char *key, int64_t rows, int64_t cols) {
    const peft__param *p = mixed_find(a, key);
    if (p == NULL || p->rows != rows || p->cols != cols) {
        printf("%s: not there as %lld x %lld\n", key, (long long)rows, (long long)cols);
    }
    return p != NULL && p->rows == rows && p->cols == cols;
}

#define MIXED_Q "model.layers.0.self_attn.q_proj."
#define MIXED_DOWN "model.layers.0.mlp.down_proj."

TEST(ia3_options) {
    fake_base b;
    peft_status st;
    fake_llama(&b);
    peft__adapter *a = fake_adapter(&b, "ia3", NULL, 1, &st);
    CHECK_OK(st);
    CHECK_INT(a->n_trainable, 2 * (4 + 4 + 12)); /* k and v by their outputs, down by its input */
    CHECK(mixed_has(a, "model.layers.1.self_attn.k_proj.ia3_l", 4, 1));
    CHECK(mixed_has(a, MIXED_DOWN "ia3_l", 1, 12));
    CHECK_NEAR(a->values[3], 1, 0);
    CHECK_STR(peft__opt_str(&a->opts, "feedforward_modules"), "[\"down_proj\"]");
    peft__adapter_release(a);
    a = fake_adapter(&b, "ia3", FAKE("target_modules=q_proj,down_proj", "feedforward_modules=q_proj",
                                    "init_ia3_weights=false"), 1, &st);
    CHECK_OK(st);
    CHECK(mixed_has(a, MIXED_Q "ia3_l", 1, 8));
    CHECK(mixed_has(a, MIXED_DOWN "ia3_l", 8, 1));
    CHECK(fabs((double)a->values[0] - 1) > 1e-3);
    peft__adapter_release(a);
    CHECK(fake_adapter(&b, "ia3", FAKE("target_modules=q_proj", "feedforward_modules=up_proj"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("feedforward_modules: \"up_proj\" is none of the targets");
    CHECK(fake_adapter(&b, "ia3", FAKE("target_modules=lm_head"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_UNSUPPORTED);
    b.info.model_type = "mamba";
    CHECK(fake_adapter(&b, "ia3", NULL, 1, &st) == NULL);
    CHECK_ERROR_HAS("no default targets for model type \"mamba\"");
    fake_end(&b);
}

TEST(ln_tuning_copies_norms) {
    fake_base b;
    peft_status st;
    fake_gpt2(&b);
    peft__adapter *a = fake_adapter(&b, "ln_tuning", FAKE("target_modules=ln_1,ln_f", "exclude_modules=h.1.ln_1"), 1, &st);
    CHECK_OK(st);
    CHECK_INT(a->n_trainable, 2 * 16);
    CHECK(mixed_has(a, "transformer.h.0.ln_1.ln_tuning_layers.weight", 1, 8));
    CHECK(mixed_has(a, "transformer.ln_f.ln_tuning_layers.bias", 1, 8));
    int32_t site = fake_find(&b, "transformer.ln_f");
    CHECK_NEAR(mixed_find(a, "transformer.ln_f.ln_tuning_layers.weight")->value[5], fake_value(site, 5), 0);
    CHECK_NEAR(mixed_find(a, "transformer.ln_f.ln_tuning_layers.bias")->value[5], fake_value(site + 100, 5), 0);
    peft__adapter_release(a);
    CHECK(fake_adapter(&b, "ln_tuning", FAKE("target_modules=c_attn"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_UNSUPPORTED);
    b.info.model_type = "unheard-of"; /* every norm, by the names that it has */
    a = fake_adapter(&b, "ln_tuning", NULL, 1, &st);
    CHECK_OK(st);
    CHECK_INT(a->n_trainable, 3 * 16);
    CHECK_STR(peft__opt_str(&a->opts, "target_modules"), "[\"ln_1\",\"ln_f\"]");
    peft__adapter_release(a);
    fake_end(&b);
}

TEST(bitfit_and_head_copy) {
    fake_base b;
    peft_status st;
    fake_gpt2(&b);
    peft__adapter *a = fake_adapter(&b, "bitfit", NULL, 1, &st);
    CHECK_OK(st);
    CHECK_INT(a->n_trainable, 2 * (8 + 24 + 8 + 8) + 8);
    CHECK_NEAR(mixed_find(a, "transformer.h.1.attn.c_attn.bias")->value[20],
               fake_value(fake_find(&b, "transformer.h.1.attn.c_attn") + 100, 20), 0);
    peft__adapter_release(a);
    a = fake_adapter(&b, "bitfit", FAKE("target_modules=c_attn,ln_1", "layers_to_transform=1"), 1, &st);
    CHECK_OK(st);
    CHECK_INT(a->n_trainable, 24 + 8);
    peft__adapter_release(a);
    a = fake_adapter(&b, "head", NULL, 1, &st);
    CHECK_OK(st);
    CHECK_INT(peft__adapter_param_count(a), 1);
    CHECK(mixed_has(a, "lm_head.weight", 10, 8));
    CHECK_NEAR(a->values[17], fake_value(0, 17), 0); /* the embedding's */
    peft__adapter_release(a);
    fake_end(&b);
    fake_llama(&b);
    CHECK(fake_adapter(&b, "bitfit", NULL, 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("there is no bias to train: the llama model has none");
    fake_end(&b);
}

TEST(dora_starts_from_the_rows) {
    fake_base b;
    peft_status st;
    fake_gpt2(&b);
    peft__adapter *a = fake_adapter(&b, "dora", FAKE("r=2", "init_lora_weights=false", "lora_alpha=3"), 1, &st);
    CHECK_OK(st);
    const peft__param *m = mixed_find(a, "transformer.h.1.attn.c_attn.lora_magnitude_vector");
    const peft__real *pa = mixed_find(a, "transformer.h.1.attn.c_attn.lora_A.weight")->value;
    const peft__real *pb = mixed_find(a, "transformer.h.1.attn.c_attn.lora_B.weight")->value;
    int32_t site = fake_find(&b, "transformer.h.1.attn.c_attn");
    CHECK(m != NULL && m->cols == 24 && m->rows == 1);
    for (int64_t o = 0; o < 24; o++) {
        double sum = 0;
        for (int64_t i = 0; i < 8; i++) {
            double v = (double)fake_value(site, o * 8 + i);
            for (int64_t r = 0; r < 2; r++) { v += 1.5 * (double)pb[o * 2 + r] * (double)pa[r * 8 + i]; }
            sum += v * v;
        }
        CHECK_NEAR(m->value[o], sqrt(sum), 1e-6);
    }
    peft__adapter_release(a);
    CHECK(fake_adapter(&b, "lora", FAKE("use_dora=true", "target_modules=lm_head"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("the head \"lm_head\" cannot be a target");
    fake_end(&b);
}

/* s B A of the start is the best approximation of that rank: what is left has nothing along A's rows or B's columns. */
TEST(lora_starts_from_the_base) {
    static const char *const how[] = {"init_lora_weights=pissa", "init_lora_weights=olora"};
    fake_base b;
    peft_status st;
    fake_gpt2(&b);
    int32_t site = fake_find(&b, "transformer.h.0.mlp.c_proj"); /* [8, 32] */
    for (int k = 0; k < 2; k++) {
        peft__adapter *a = fake_adapter(&b, "lora", FAKE("r=2", "lora_alpha=6", "target_modules=mlp.c_proj",
                                    how[k]), 1, &st);
        CHECK_OK(st);
        CHECK_INT(a->n_values, 2 * a->n_trainable); /* with the frozen copies */
        const peft__real *pa = mixed_find(a, "transformer.h.0.mlp.c_proj.lora_A.weight")->value;
        const peft__real *pb = mixed_find(a, "transformer.h.0.mlp.c_proj.lora_B.weight")->value;
        double s = k == 0 ? 3 : 1;
        for (int64_t c = 0; c < 2; c++) {
            for (int64_t i = 0; i < 32; i++) {
                double along = 0;
                for (int64_t o = 0; o < 8; o++) {
                    double ba = (double)pb[o * 2] * (double)pa[i] + (double)pb[o * 2 + 1] * (double)pa[32 + i];
                    along += (double)pb[o * 2 + c] * ((double)fake_value(site, o * 32 + i) - s * ba);
                }
                CHECK_NEAR(along, 0, 2e-5);
            }
        }
        peft__adapter_release(a);
    }
    CHECK(fake_adapter(&b, "lora", FAKE("r=9", "target_modules=mlp.c_proj", how[0]), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_SHAPE);
    CHECK_ERROR_HAS("rank 9 of \"transformer.h.0.mlp.c_proj\" is more than its 8 x 32 weight has");
    CHECK(fake_adapter(&b, "dora", FAKE(how[1]), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_UNSUPPORTED);
    fake_end(&b);
}

TEST(lora_fa_projects_gradients) {
    fake_base b;
    peft_status st;
    fake_llama(&b);
    peft__adapter *a = fake_adapter(&b, "lora_fa", FAKE("r=2", "lora_alpha=6", "target_modules=q_proj",
                                    "layers_to_transform=0"), 1, &st);
    CHECK_OK(st);
    CHECK_INT(a->n_trainable, 8 * 2);
    CHECK_INT(a->n_values, 8 * 2 + 2 * 8);
    const peft__real *pa = mixed_find(a, MIXED_Q "lora_A.weight")->value;
    peft__real g[16];
    double aa[3] = {1e-8, 0, 1e-8}; /* A A' + 1e-8 I: [0][0], [0][1], [1][1] */
    for (int i = 0; i < 8; i++) {
        aa[0] += (double)pa[i] * (double)pa[i];
        aa[1] += (double)pa[i] * (double)pa[8 + i];
        aa[2] += (double)pa[8 + i] * (double)pa[8 + i];
    }
    for (int i = 0; i < 16; i++) { g[i] = PEFT__R(i - 5); }
    CHECK_OK(a->method->project(a, g));
    for (int o = 0; o < 8; o++) { /* g' (A A') s^2 is the gradient again */
        double g0 = (double)g[2 * o], g1 = (double)g[2 * o + 1];
        CHECK_NEAR(9 * (g0 * aa[0] + g1 * aa[1]), 2 * o - 5, 2e-5);
        CHECK_NEAR(9 * (g0 * aa[1] + g1 * aa[2]), 2 * o - 4, 2e-5);
    }
    peft__adapter_release(a);
    fake_end(&b);
}

TEST(loraplus_rates) {
    fake_base b;
    peft_status st;
    size_t i;
    fake_gpt2(&b);
    peft__adapter *a = fake_adapter(&b, "lora", FAKE("loraplus_lr_ratio=16", "bias=lora_only",
                                    "modules_to_save=wpe"), 1, &st);
    CHECK_OK(st);
    CHECK(peft__adapter_find(a, "transformer.h.0.attn.c_attn.lora_A.weight", &i) != NULL);
    CHECK_NEAR(a->method->rate(a, i), 1, 0);
    CHECK(peft__adapter_find(a, "transformer.h.0.attn.c_attn.lora_B.weight", &i) != NULL);
    CHECK_NEAR(a->method->rate(a, i), 16, 0);
    CHECK(peft__adapter_find(a, "transformer.h.0.attn.c_attn.base_layer.bias", &i) != NULL);
    CHECK_NEAR(a->method->rate(a, i), 16, 0);
    CHECK(peft__adapter_find(a, "transformer.wpe.weight", &i) != NULL);
    CHECK_NEAR(a->method->rate(a, i), 1, 0);
    peft__adapter_release(a);
    fake_end(&b);
}

TEST(vera_shares_projections) {
    fake_base b;
    peft_status st;
    fake_llama(&b);
    peft__adapter *a = fake_adapter(&b, "vera", FAKE("r=3", "target_modules=v_proj,down_proj", "d_initial=0.25"), 1, &st);
    CHECK_OK(st);
    CHECK(mixed_has(a, "vera_A", 3, 12) && mixed_has(a, "vera_B", 8, 3));
    CHECK_INT(a->n_trainable, 2 * (4 + 8 + 3 + 3));
    CHECK_INT(a->n_values, a->n_trainable + 3 * 12 + 8 * 3);
    CHECK_NEAR(mixed_find(a, MIXED_DOWN "vera_lambda_d")->value[2], 0.25, 0);
    CHECK_NEAR(mixed_find(a, MIXED_DOWN "vera_lambda_b")->value[7], 0, 0);
    /* torch.manual_seed(0); torch.rand(1) is 0.4962566 */
    double bound = sqrt(6.0 / 12);
    CHECK_NEAR(mixed_find(a, "vera_A")->value[0], 2 * bound * 0.49625658988952637 - bound, 1e-6);
    peft__adapter *other = fake_adapter(&b, "vera", FAKE("r=3", "target_modules=v_proj,down_proj",
                                    "projection_prng_key=1"), 1, &st);
    CHECK_OK(st);
    CHECK(mixed_find(a, "vera_A")->value[0] != mixed_find(other, "vera_A")->value[0]);
    CHECK_NEAR(mixed_find(other, MIXED_DOWN "vera_lambda_d")->value[2], 0.1, 1e-7);
    peft__adapter_release(other);
    other = fake_adapter(&b, "vera", FAKE("r=3", "target_modules=v_proj,down_proj"), 9, &st);
    CHECK_OK(st);
    CHECK_MEM(mixed_find(a, "vera_A")->value, mixed_find(other, "vera_A")->value, 36 * sizeof(peft__real));
    peft__adapter_release(other);
    peft__adapter_release(a);
    CHECK(fake_adapter(&b, "vera", FAKE("projection_prng_key=-1"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_KEY);
    fake_end(&b);
}

TEST(loha_and_lokr_shapes) {
    fake_base b;
    peft_status st;
    fake_llama(&b);
    peft__adapter *a = fake_adapter(&b, "loha", FAKE("r=2", "target_modules=down_proj",
                                    "rank_pattern={\"layers.1.mlp.down_proj\":3}", "alpha=5"), 1, &st);
    CHECK_OK(st);
    CHECK(mixed_has(a, MIXED_DOWN "hada_w1_a", 8, 2) && mixed_has(a, MIXED_DOWN "hada_w1_b", 2, 12));
    CHECK(mixed_has(a, "model.layers.1.mlp.down_proj.hada_w2_a", 8, 3) && mixed_has(a, MIXED_DOWN "hada_w2_b", 2, 12));
    CHECK_NEAR(((const peft__attachment *)a->attachments.data)[1].scale, 5.0 / 3, 1e-15);
    for (int i = 0; i < 24; i++) { CHECK_NEAR(mixed_find(a, MIXED_DOWN "hada_w2_b")->value[i], 0, 0); }
    CHECK(mixed_find(a, MIXED_DOWN "hada_w1_b")->value[0] != 0);
    peft__adapter_release(a);
    a = fake_adapter(&b, "lokr", FAKE("r=1", "target_modules=down_proj"), 1, &st); /* 8 = 2 x 4, 12 = 3 x 4 */
    CHECK_OK(st);
    CHECK(mixed_has(a, MIXED_DOWN "lokr_w1", 2, 3));
    CHECK(mixed_has(a, MIXED_DOWN "lokr_w2_a", 4, 1) && mixed_has(a, MIXED_DOWN "lokr_w2_b", 1, 4));
    CHECK_NEAR(mixed_find(a, MIXED_DOWN "lokr_w1")->value[0], 0, 0);
    CHECK(mixed_find(a, MIXED_DOWN "lokr_w2_b")->value[0] != 0);
    peft__adapter_release(a);
    a = fake_adapter(&b, "lokr", FAKE("r=1", "target_modules=down_proj", "decompose_both=true", "decompose_factor=4",
                                    "init_weights=lycoris"), 1, &st);
    CHECK_OK(st); /* 8 = 4 x 2, 12 = 4 x 3 */
    CHECK(mixed_has(a, MIXED_DOWN "lokr_w1_a", 4, 1) && mixed_has(a, MIXED_DOWN "lokr_w1_b", 1, 4));
    CHECK(mixed_has(a, MIXED_DOWN "lokr_w2_a", 2, 1) && mixed_has(a, MIXED_DOWN "lokr_w2_b", 1, 3));
    CHECK(mixed_find(a, MIXED_DOWN "lokr_w1_a")->value[0] != 0);
    CHECK_NEAR(mixed_find(a, MIXED_DOWN "lokr_w2_b")->value[0], 0, 0);
    peft__adapter_release(a);
    CHECK(fake_adapter(&b, "lokr", FAKE("rank_pattern={\"q_proj\":0}"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_KEY);
    CHECK(fake_adapter(&b, "lokr", FAKE("init_weights=maybe"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_KEY);
    CHECK(fake_adapter(&b, "loha", FAKE("rank_dropout=1"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_KEY);
    fake_end(&b);
}

TEST(methods_every_allocation_may_fail) {
    static const char *const names[] = {"ia3", "ln_tuning", "bitfit", "head", "dora", "lora_fa", "vera", "loha", "lokr", "lora", "lora"};
    static const char *const settings[] = {NULL, "target_modules=ln_1", NULL, NULL, NULL, NULL, "r=3", NULL, NULL,
                                           "init_lora_weights=pissa", "init_lora_weights=olora"};
    for (size_t i = 0; i < PEFT__COUNT(names); i++) {
        fake_base b;
        peft_status st = PEFT_E_NOMEM;
        fake_gpt2(&b);
        size_t before = atomic_load(&b.mem->now), n = 0;
        for (n = 1; n < 2000 && st != PEFT_OK; n++) {
            peft__mem_fail_after(b.mem, n, true);
            peft__adapter *a = fake_adapter(&b, names[i], FAKE(settings[i]), 1, &st);
            peft__mem_fail_after(b.mem, 0, false);
            CHECK(a != NULL || st == PEFT_E_NOMEM);
            peft__adapter_release(a);
            CHECK_INT(atomic_load(&b.mem->now), before);
        }
        CHECK_INT(st, PEFT_OK);
        fake_end(&b);
    }
}
