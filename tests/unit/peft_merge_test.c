/* Merging: W + s B A against the sum written out, copies replacing, which tensors change, when a tied head comes loose. */
#include <math.h>
#include <stdio.h>

#include "peft_fake.h"

typedef struct merge_run {
    peft__pool *pool;
    peft__run run;
} merge_run;

static peft_status merge_start(merge_run *m, peft__mem *mem) {
    peft_status st = peft__pool_create(mem, 2, &m->pool);
    if (st != PEFT_OK) { return st; }
    size_t size = peft__scratch_size(&peft__kernels_generic, 8, 64);
    m->run = (peft__run){.k = &peft__kernels_generic, .pool = m->pool, .workers = 2, .scratch_size = size};
    m->run.scratch = peft__alloc(mem, 2 * size);
    return m->run.scratch != NULL ? PEFT_OK : PEFT_E_NOMEM;
}

static void merge_end(merge_run *m, peft__mem *mem) {
    peft__free(mem, m->run.scratch, 2 * m->run.scratch_size);
    peft__pool_free(m->pool);
}

static bool merge_changes(peft__adapter *a, const char *tensor) {
    bool out = false;
    return peft__merge_changes(&a, 1, tensor, &out) == PEFT_OK && out;
}

TEST(merge_adds_s_b_a) {
    fake_base b;
    merge_run m;
    peft_status st;
    peft__real out[24 * 8];
    fake_gpt2(&b); /* Conv1D: the base is stored the other way round */
    CHECK_OK(merge_start(&m, b.mem));
    peft__adapter *a = fake_adapter(&b, "lora", FAKE("r=3", "lora_alpha=6", "init_lora_weights=false", "bias=lora_only"), 3, &st);
    CHECK_OK(st);
    const char *name = "transformer.h.1.attn.c_attn.weight";
    const peft__site *s = &b.sites[fake_find(&b, "transformer.h.1.attn.c_attn")];
    CHECK(merge_changes(a, name) && merge_changes(a, "transformer.h.0.attn.c_attn.bias"));
    CHECK(!merge_changes(a, "transformer.h.1.attn.c_proj.weight") && !merge_changes(a, "transformer.ln_f.bias"));
    CHECK_OK(peft__merge_value(&a, 1, NULL, name, s->weight, &m.run, out));
    const peft__real *pa = peft__adapter_find(a, "transformer.h.1.attn.c_attn.lora_A.weight", NULL)->p.value;
    const peft__real *pb = peft__adapter_find(a, "transformer.h.1.attn.c_attn.lora_B.weight", NULL)->p.value;
    for (int64_t o = 0; o < 24; o++) {
        for (int64_t i = 0; i < 8; i++) {
            double sum = 0;
            for (int64_t r = 0; r < 3; r++) { sum += (double)pb[o * 3 + r] * (double)pa[r * 8 + i]; }
            CHECK_NEAR(out[o * 8 + i], (double)fake_value(s->id, o * 8 + i) + 2 * sum, 1e-6);
        }
    }
    peft__adapter_find(a, "transformer.h.0.attn.c_attn.base_layer.bias", NULL)->p.value[4] = PEFT__R(2.5);
    s = &b.sites[fake_find(&b, "transformer.h.0.attn.c_attn")];
    CHECK_OK(peft__merge_value(&a, 1, NULL, "transformer.h.0.attn.c_attn.bias", s->bias, &m.run, out));
    CHECK_NEAR(out[4], 2.5, 0);
    CHECK_NEAR(out[5], fake_value(s->id + 100, 5), 0);
    a->values[0] = PEFT__R(INFINITY);
    CHECK_STATUS(peft__merge_value(&a, 1, NULL, "transformer.h.0.attn.c_attn.weight", s->weight, &m.run, out), PEFT_E_NUMERIC);
    CHECK_ERROR_HAS("\"transformer.h.0.attn.c_attn.weight\" has a NaN");
    peft__adapter_release(a);
    merge_end(&m, b.mem);
    fake_end(&b);
}

TEST(merge_several_adapters) {
    fake_base b;
    merge_run m;
    peft_status st;
    peft__real one[64], both[64];
    fake_llama(&b);
    CHECK_OK(merge_start(&m, b.mem));
    const char *name = "model.layers.0.self_attn.q_proj.weight";
    const peft__site *s = &b.sites[fake_find(&b, "model.layers.0.self_attn.q_proj")];
    peft__adapter *list[2];
    list[0] = fake_adapter(&b, "full", NULL, 3, &st);
    list[1] = fake_adapter(&b, "lora", FAKE("r=2", "init_lora_weights=false"), 3, &st);
    CHECK_OK(st);
    for (int64_t i = 0; i < list[0]->n_values; i++) { list[0]->values[i] = PEFT__R((double)(i % 7)); }
    CHECK_OK(peft__merge_value(&list[1], 1, NULL, name, s->weight, &m.run, one));
    CHECK_OK(peft__merge_value(list, 2, NULL, name, s->weight, &m.run, both));
    const peft__real *copy = peft__adapter_find(list[0], name, NULL)->p.value;
    for (int64_t i = 0; i < 64; i++) {
        CHECK_NEAR(both[i], (double)copy[i] + ((double)one[i] - (double)fake_value(s->id, i)), 1e-6);
    }
    peft__adapter_release(list[1]);
    list[1] = fake_adapter(&b, "full", NULL, 4, &st);
    CHECK_STATUS(peft__merge_value(list, 2, NULL, name, s->weight, &m.run, both), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("both replace \"model.layers.0.self_attn.q_proj.weight\"");
    peft__adapter_release(list[0]);
    peft__adapter_release(list[1]);
    merge_end(&m, b.mem);
    fake_end(&b);
}

static bool merge_unties(fake_base *b, const char *method, const char *const *settings) {
    peft_status st;
    peft__adapter *a = fake_adapter(b, method, settings, 1, &st);
    bool out = a != NULL && peft__merge_unties(&a, 1);
    peft__adapter_release(a);
    return out;
}

TEST(merge_tied_head) {
    fake_base b;
    peft_status st;
    fake_gpt2(&b);
    CHECK(!merge_unties(&b, "lora", NULL));
    CHECK(merge_unties(&b, "lora", FAKE("target_modules=lm_head")));
    CHECK(merge_unties(&b, "lora", FAKE("modules_to_save=wte")));
    CHECK(merge_unties(&b, "lora", FAKE("modules_to_save=lm_head")));
    CHECK(merge_unties(&b, "lora", FAKE("modules_to_save=lm_head,wte")));
    CHECK(!merge_unties(&b, "full", NULL));
    peft__adapter *a = fake_adapter(&b, "lora", FAKE("target_modules=lm_head"), 1, &st);
    CHECK_OK(st);
    CHECK(merge_changes(a, "lm_head.weight") && !merge_changes(a, "transformer.wte.weight"));
    peft__adapter_release(a);
    a = fake_adapter(&b, "full", NULL, 1, &st);
    CHECK_OK(st);
    CHECK(merge_changes(a, "lm_head.weight") && merge_changes(a, "transformer.wte.weight"));
    CHECK(merge_changes(a, "transformer.wpe.weight") && merge_changes(a, "transformer.h.1.mlp.c_proj.bias"));
    peft__adapter_release(a);
    fake_end(&b);
    fake_llama(&b);
    CHECK(!merge_unties(&b, "lora", FAKE("modules_to_save=lm_head")));
    fake_end(&b);
}
