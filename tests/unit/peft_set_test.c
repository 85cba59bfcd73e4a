/* Sets: names, pins, references, removal while in use. */

#include "peft_fake.h"

static void set_retain_owner(void *owner) { ((fake_base *)owner)->owners++; }
static void set_release_owner(void *owner) { ((fake_base *)owner)->owners--; }

static peft_context *set_context(void) {
    peft__mem mem;
    peft__mem_init(&mem, NULL);
    peft_context *ctx = peft__alloc_zero(&mem, sizeof *ctx);
    peft__mem_init(&ctx->mem, NULL);
    ctx->magic = PEFT__MAGIC_CONTEXT;
    atomic_init(&ctx->refs, 1);
    ctx->kernels = &peft__kernels_generic;
    return ctx;
}

static peft_status set_put(struct peft_adapters *s, const char *name) {
    peft__adapter *a = NULL;
    peft_status st = peft__adapter_create(&s->ctx->mem, s->ctx->kernels, &s->base, name, &peft__method_lora, NULL, 1, &a);
    if (st == PEFT_OK) { st = peft__set_add(s, a, false); }
    if (st != PEFT_OK) { peft__adapter_release(a); }
    return st;
}

TEST(set_names_and_pins) {
    fake_base b;
    struct peft_adapters *s = NULL;
    peft__adapter *pin = NULL;
    fake_llama(&b);
    b.info.owner = &b;
    b.info.retain = set_retain_owner;
    b.info.release = set_release_owner;
    peft_context *ctx = set_context();
    CHECK_OK(peft__set_create(ctx, &b.info, &s));
    CHECK_INT(b.owners, 1);
    CHECK_STATUS(peft__set_pin(s, "x", &pin), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("there is no adapter \"x\"; there are: none");
    CHECK_OK(set_put(s, "first"));
    CHECK_OK(set_put(s, "second"));
    CHECK_STATUS(set_put(s, "first"), PEFT_E_EXISTS);
    CHECK_ERROR_HAS("\"first\"");
    CHECK_STATUS(set_put(s, ""), PEFT_E_INVALID);
    CHECK_INT(peft__set_count(s), 2);
    CHECK_STR(peft__set_name(s, 1), "second");
    CHECK(peft__set_name(s, 2) == NULL);
    CHECK_STATUS(peft__set_pin(s, "x", &pin), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("there are: first, second");
    CHECK_OK(peft__set_pin(s, "first", &pin));
    CHECK_STR(pin->name, "first");
    CHECK_STATUS(peft__set_remove(s, "first"), PEFT_E_BUSY);
    CHECK_ERROR_HAS("adapter \"first\" is in use");
    peft__adapter_release(pin);
    CHECK_OK(peft__set_remove(s, "first"));
    CHECK_STATUS(peft__set_remove(s, "first"), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("there is: second");
    CHECK_STR(peft__set_name(s, 0), "second");
    peft__set_retain(s);
    peft__set_release(s);
    CHECK_INT(b.owners, 1);
    peft__set_release(s);
    CHECK_INT(b.owners, 0);
    CHECK_INT(atomic_load(&ctx->mem.now), 0);
    peft__ctx_release(ctx);
    fake_end(&b);
}

TEST(set_info) {
    fake_base b;
    peft_status st;
    peft__str out;
    fake_llama(&b);
    peft__str_init(&out, b.mem);
    peft__adapter *a = fake_adapter(&b, "lora", FAKE("r=2", "layers_to_transform=0", "target_modules=q_proj"), 1, &st);
    CHECK_OK(st);
    CHECK_OK(peft__adapter_info(a, &out));
    CHECK_STR(peft__str_c(&out),
              "{\"name\":\"a\",\"method\":\"lora\",\"parameters\":32,\"trainable\":32,\"bytes\":128,\"sites\":[{\"path\":"
              "\"model.layers.0.self_attn.q_proj\",\"rank\":2,\"scale\":4.0}],\"options\":{\"r\":2,\"lora_alpha\":8,"
              "\"lora_dropout\":0.0,\"target_modules\":[\"q_proj\"],\"exclude_modules\":null,\"modules_to_save\":null,"
              "\"task_type\":\"CAUSAL_LM\",\"base_model_name_or_path\":null,\"layers_to_transform\":[0],"
              "\"layers_pattern\":null,\"rank_pattern\":{},\"alpha_pattern\":{},\"bias\":\"none\","
              "\"init_lora_weights\":\"true\",\"use_rslora\":false,\"use_dora\":false,"
              "\"trainable_token_indices\":null,\"num_new_tokens\":0,\"loraplus_lr_ratio\":1,"
              "\"fan_in_fan_out\":false}}");
    peft__str_free(&out);
    peft__adapter_release(a);
    fake_end(&b);
}
