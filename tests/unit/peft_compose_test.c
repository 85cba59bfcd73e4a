/* Hooks: which ops an adapter adds at which site, with which parameters; trained copies; conflicts. */
#include <stdio.h>

#include "peft/expression.h"
#include "peft_fake.h"

/* Records one site of each kind, as an architecture would; the ops' kinds and parameters, one a line. */
static peft_status compose_record(fake_base *b, peft__adapter *const *list, size_t n, bool training, const char *linear,
                                  const char *norm, char out[2048]) {
    peft__tape t;
    peft__expression e;
    peft__tape_init(&t, b->mem, training);
    peft_status st = peft__expression_of(&e, b->mem, list, n);
    if (st == PEFT_OK) { st = peft__compose(&t, &b->info, &e); }
    out[0] = '\0';
    if (st == PEFT_OK) {
        peft__val x = peft__site_embed(&t, &b->sites[0], 1);
        int32_t positions = fake_find(b, "transformer.wpe");
        if (positions >= 0) { x = peft__site_positions(&t, &b->sites[positions], x, 2); }
        x = peft__site_input(&t, &b->sites[0], x);
        peft__val y = peft__site_linear(&t, &b->sites[fake_find(b, linear)], x);
        y = peft__site_stream(&t, &b->sites[fake_find(b, linear)], y, x);
        (void)y;
        x = peft__site_norm(&t, &b->sites[fake_find(b, norm)], x);
        peft__site_head(&t, &b->sites[fake_find(b, "lm_head")], x, 0, 1);
        st = t.status;
        if (st != PEFT_OK) { (void)peft__fail(st, "%s", t.error); }
    }
    for (size_t i = 0; i < t.ops.len && st == PEFT_OK; i++) {
        const peft__op *op = peft__tape_op(&t, (int32_t)i);
        (void)snprintf(out + strlen(out), 2048 - strlen(out), "%s", op->kind->name);
        for (int p = 0; p < PEFT__OP_PARAMS; p++) {
            if (op->param[p] == PEFT__NONE) { continue; }
            (void)snprintf(out + strlen(out), 2048 - strlen(out), " %s", peft__tape_param_at(&t, op->param[p])->name);
        }
        (void)snprintf(out + strlen(out), 2048 - strlen(out), "\n");
    }
    peft__tape_free(&t);
    peft__expression_free(&e);
    return st;
}

static const char *const compose_q = "model.layers.0.self_attn.q_proj";

TEST(compose_lora) {
    fake_base b;
    peft_status st;
    char ops[2048], bare[2048];
    fake_llama(&b);
    CHECK_OK(compose_record(&b, NULL, 0, true, compose_q, "model.norm", bare));
    peft__adapter *a = fake_adapter(&b, "lora", FAKE("lora_dropout=0.1"), 1, &st);
    CHECK_OK(st);
    CHECK_OK(compose_record(&b, &a, 1, true, "model.layers.0.self_attn.k_proj", "model.norm", ops));
    CHECK_STR(ops, bare); /* no target: the base alone */
    CHECK_OK(compose_record(&b, &a, 1, true, compose_q, "model.norm", ops));
    const char *at = strstr(ops, " model.layers.0.self_attn.q_proj.lora_A.weight\n");
    CHECK(at != NULL && strstr(at, " model.layers.0.self_attn.q_proj.lora_B.weight\n") != NULL);
    CHECK(strstr(ops, "dropout") != NULL && strstr(ops, "dropout") < at);
    peft__adapter_release(a);
    a = fake_adapter(&b, "lora", NULL, 1, &st);
    CHECK_OK(compose_record(&b, &a, 1, true, compose_q, "model.norm", ops));
    CHECK(strstr(ops, "dropout") == NULL && strstr(ops, "lora_A") != NULL);
    peft__adapter *two[2] = {a, fake_adapter(&b, "lora", NULL, 2, &st)};
    CHECK_OK(compose_record(&b, two, 2, true, compose_q, "model.norm", ops));
    at = strstr(ops, "lora_A");
    CHECK(at != NULL && strstr(at + 1, "lora_A") != NULL);
    peft__adapter_release(two[1]);
    peft__adapter_release(a);
    fake_end(&b);
}

TEST(compose_head) {
    fake_base b;
    peft_status st;
    char ops[2048];
    fake_llama(&b);
    peft__adapter *a = fake_adapter(&b, "lora", FAKE("target_modules=lm_head"), 1, &st);
    CHECK_OK(st);
    CHECK_OK(compose_record(&b, &a, 1, true, compose_q, "model.norm", ops));
    CHECK(strstr(ops, "lm_head.lora_A.weight lm_head.lora_B.weight") != NULL);
    peft__adapter *two[2] = {a, fake_adapter(&b, "lora", FAKE("target_modules=lm_head"), 2, &st)};
    CHECK_STATUS(compose_record(&b, two, 2, true, compose_q, "model.norm", ops), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("two adapters add to \"lm_head\"");
    two[1] = (peft__adapter_release(two[1]), a);
    CHECK_STATUS(compose_record(&b, two, 2, true, compose_q, "model.norm", ops), PEFT_E_INVALID);
    CHECK_ERROR_HAS("twice");
    peft__adapter_release(a);
    a = fake_adapter(&b, "lora", FAKE("target_modules=lm_head", "lora_dropout=0.1"), 1, &st);
    CHECK_STATUS(compose_record(&b, &a, 1, true, compose_q, "model.norm", ops), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("\"lm_head\" is trained without dropout only");
    CHECK_OK(compose_record(&b, &a, 1, false, compose_q, "model.norm", ops));
    peft__adapter_release(a);
    fake_end(&b);
}

TEST(compose_copies) {
    fake_base b;
    peft_status st;
    char ops[2048];
    fake_gpt2(&b);
    peft__adapter *a = fake_adapter(&b, "full", NULL, 1, &st);
    CHECK_OK(st);
    CHECK_OK(compose_record(&b, &a, 1, true, "transformer.h.0.attn.c_attn", "transformer.ln_f", ops));
    CHECK(strstr(ops, "transformer.h.0.attn.c_attn.weight transformer.h.0.attn.c_attn.bias") != NULL);
    CHECK(strstr(ops, "transformer.ln_f.weight transformer.ln_f.bias") != NULL);
    CHECK(strstr(ops, " transformer.wpe.weight") != NULL);
    const char *first = strstr(ops, " transformer.wte.weight"); /* the embedding and, at the end, the tied head */
    CHECK(first != NULL && strstr(first + 1, " transformer.wte.weight") != NULL);
    peft__adapter *two[2] = {a, fake_adapter(&b, "lora", FAKE("modules_to_save=ln_f"), 2, &st)};
    CHECK_STATUS(compose_record(&b, two, 2, true, "transformer.h.0.attn.c_attn", "transformer.ln_f", ops), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("adapters \"a\" and \"a\" both replace the weight of \"transformer.ln_f\"");
    peft__adapter_release(two[1]);
    peft__adapter_release(a);
    a = fake_adapter(&b, "lora", FAKE("modules_to_save=wte"), 1, &st);
    CHECK_OK(compose_record(&b, &a, 1, true, "transformer.h.0.attn.c_attn", "transformer.ln_f", ops));
    first = strstr(ops, " transformer.wte.weight"); /* the head stays the base's */
    CHECK(first != NULL && strstr(first + 1, " transformer.wte.weight") == NULL);
    peft__adapter_release(a);
    fake_end(&b);
}
