/* Full fine-tuning: a copy of every tensor under its Hugging Face name, in logical order, the tied head sharing one. */
#include "peft_fake.h"

TEST(full_copies_every_tensor) {
    fake_base b;
    peft_status st;
    fake_llama(&b);
    peft__adapter *a = fake_adapter(&b, "full", NULL, 1, &st);
    CHECK_OK(st);
    /* embedding, head, final norm; two layers of q, k, v, o, gate, up, down and two norms */
    CHECK_INT(peft__adapter_param_count(a), 3 + 2 * 9);
    CHECK_INT(a->n_values, 2 * 10 * 8 + 8 + 2 * (8 * (8 + 4 + 4 + 8 + 12 + 12) + 12 * 8 + 16));
    CHECK_INT(a->n_trainable, a->n_values);
    for (size_t i = 0; i < peft__adapter_param_count(a); i++) {
        const peft__adapter_param *p = peft__adapter_param_at(a, i);
        CHECK(p->whole && !p->frozen);
        for (int64_t e = 0; e < p->p.rows * p->p.cols; e++) { CHECK_NEAR(p->p.value[e], fake_value(p->site, e), 0); }
    }
    CHECK_STATUS(peft__adapter_save_hf(a, runner_tmpdir()), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("method \"full\" is saved as a model");
    peft__adapter_release(a);
    fake_end(&b);
}

TEST(full_ties_head_to_embedding) {
    fake_base b;
    peft_status st;
    size_t i, table;
    fake_gpt2(&b);
    peft__adapter *a = fake_adapter(&b, "full", NULL, 1, &st);
    CHECK_OK(st);
    CHECK(peft__adapter_find(a, "lm_head.weight", NULL) == NULL);
    CHECK(peft__adapter_find(a, "transformer.wte.weight", &table) != NULL);
    const peft__attachment *all = a->attachments.data;
    int32_t head = -2;
    for (i = 0; i < a->attachments.len; i++) {
        if (all[i].site == fake_find(&b, "lm_head")) { head = all[i].weight_param; }
    }
    CHECK_INT(head, table);
    const peft__adapter_param *p = peft__adapter_find(a, "transformer.h.1.attn.c_attn.weight", &i);
    CHECK(p != NULL && p->p.rows == 24 && p->p.cols == 8 && peft__adapter_flipped(a, i));
    CHECK_NEAR(p->p.value[9], fake_value(p->site, 9), 0);
    p = peft__adapter_find(a, "transformer.h.1.attn.c_attn.bias", &i);
    CHECK(p != NULL && p->ndim == 1 && p->p.cols == 24 && !peft__adapter_flipped(a, i));
    /* wte, wpe; two layers of a norm and three projections, each with a bias; ln_f */
    CHECK_INT(peft__adapter_param_count(a), 2 + 2 * 8 + 2);
    peft__adapter_release(a);
    fake_end(&b);
}
