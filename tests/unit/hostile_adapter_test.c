/* hostile_adapter_test.c - adapters and checkpoints that mean harm: adapter_config.json, its tensors, a trainer's state. */
#include "hostile_tensors.h"

static peft_status adapter_opens(hostile *h) {
    peft_adapters *a = NULL;
    peft_status st = peft_adapters_create(h->base, &a);
    if (st == PEFT_OK) { st = peft_adapters_load(a, "x", h->dir, NULL); }
    peft_adapters_free(a);
    return st;
}

static peft_status adapter_folder(hostile *h) {
    static const char *const lora[2] = {"lora", "{'r':4,'target_modules':['q_proj','v_proj']}"};
    peft_status st = PEFT_OK;
    peft_adapters *a = NULL;
    TRY(hostile_begin(h));
    TRY(api_model(h->ctx, API_LLAMA, &h->base));
    TRY(peft_adapters_create(h->base, &a));
    TRY(api_adapter(h->ctx, a, "x", lora, 3, 0.1F));
    TRY(peft_adapters_save(a, "x", h->dir, NULL));
    h->open = adapter_opens;
out:
    peft_adapters_free(a);
    return st;
}

TEST(hostile_adapter_config) {
    static const char *const sizes[] = {"-1", "0", "1.5", "\"8\"", "[8]", "{}", "true", "1e30", "2147483648"};
    static const char *const alpha[] = {"\"x\"", "[]", "{}"}, *const type[] = {"5", "\"\"", "\"LORA9\"", "[]", "{}"};
    static const char *const dropout[] = {"-0.5", "1.5", "\"x\"", "[]"}, *const bias[] = {"5", "\"some\"", "[]", "{}"};
    static const char *const flag[] = {"5", "\"yes\"", "[]", "{}"}, *const targets[] = {"5", "[5]", "[\"nothing_here\"]",
            "{}", "[[\"q_proj\"]]"};
    hostile h;
    CHECK_OK(adapter_folder(&h));
    CHECK(hostile_take(&h, "adapter_config.json"));
    bool good = hostile_values(&h, "r", sizes, PEFT__COUNT(sizes));
    good = hostile_values(&h, "lora_alpha", alpha, PEFT__COUNT(alpha)) && good;
    good = hostile_values(&h, "peft_type", type, PEFT__COUNT(type)) && good;
    good = hostile_values(&h, "lora_dropout", dropout, PEFT__COUNT(dropout)) && good;
    good = hostile_values(&h, "bias", bias, PEFT__COUNT(bias)) && good;
    good = hostile_values(&h, "fan_in_fan_out", flag, PEFT__COUNT(flag)) && good;
    good = hostile_values(&h, "target_modules", targets, PEFT__COUNT(targets)) && good;
    good = hostile_broken_json(&h, 24) && good;
    CHECK(good);
    CHECK(hostile_as_it_was(&h));
    CHECK(h.cases >= 70);
    hostile_end(&h);
}

TEST(hostile_adapter_tensors) {
    hostile h;
    CHECK_OK(adapter_folder(&h));
    CHECK(hostile_take(&h, "adapter_model.safetensors"));
    bool good = hostile_safetensors(&h, 4);
    char *data = h.whole + h.len - 4; /* the last number of the last tensor */
    static const uint32_t numbers[] = {0x7fc00000, 0x7f800000, 0xff800000, 0x7f800001};
    for (size_t i = 0; i < PEFT__COUNT(numbers); i++) {
        peft__set_u32((uint8_t *)data, numbers[i]);
        good = hostile_refused(&h, h.whole, h.len, "a number that is none", "lora_") && good;
    }
    CHECK(good);
    hostile_end(&h);
}

/* A pickle is refused by name, and never read. */
TEST(hostile_adapter_pickle) {
    static const char pickle[] = "\x80\x02" "cposix\nsystem\nq\x01X\x04\x00\x00\x00trueq\x02\x85q\x03Rq\x04.";
    hostile h;
    CHECK_OK(adapter_folder(&h));
    CHECK(hostile_take(&h, "adapter_model.safetensors"));
    CHECK(hostile_write(runner_path(h.dir, "adapter_model.bin"), pickle, sizeof pickle - 1));
    CHECK(remove(h.path) == 0);
    CHECK(hostile_is_refusal(h.open(&h)));
    CHECK_ERROR_HAS("adapter_model.");
    hostile_end(&h);
}

/* ---- checkpoints ------------------------------------------------------------------------------------------------------------------ */

static const char *checkpoint_state;

static peft_status checkpoint_trainer(hostile *h, peft_adapters **a, peft_dataset **d, peft_trainer **t) {
    static const char *const lora[2] = {"lora", "{'r':2}"};
    static const char row[] = "{\"input_ids\":[1,2,3,4]}";
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    TRY(peft_adapters_create(h->base, a));
    TRY(api_adapter(h->ctx, *a, "x", lora, 3, 0));
    TRY(peft_dataset_create(h->ctx, NULL, NULL, d));
    TRY(peft_dataset_add_json(*d, row, sizeof row - 1));
    TRY(api_options(h->ctx, "trainer", "{'max_steps':2,'batch_size':1}", &o));
    TRY(peft_trainer_create(*a, o, t));
    TRY(peft_trainer_add_job(*t, "x", *d, NULL, NULL));
out:
    peft_options_free(o);
    return st;
}

static peft_status checkpoint_use(hostile *h, bool save) {
    peft_status st = PEFT_OK;
    peft_adapters *a = NULL;
    peft_dataset *d = NULL;
    peft_trainer *t = NULL;
    TRY(checkpoint_trainer(h, &a, &d, &t));
    if (save) { TRY(peft_trainer_run(t)); }
    st = save ? peft_trainer_checkpoint_save(t, checkpoint_state) : peft_trainer_checkpoint_load(t, checkpoint_state);
out:
    peft_trainer_free(t);
    peft_dataset_free(d);
    peft_adapters_free(a);
    return st;
}

static peft_status checkpoint_opens(hostile *h) { return checkpoint_use(h, false); }

/* Any byte that is not as it was: structure where it is structure, else the checksum. */
TEST(hostile_checkpoint) {
    hostile h;
    char what[64];
    CHECK_OK(hostile_begin(&h));
    CHECK_OK(api_model(h.ctx, API_LLAMA, &h.base));
    checkpoint_state = h.dir;
    CHECK_OK(checkpoint_use(&h, true));
    h.open = checkpoint_opens;
    h.most = 2 * HOSTILE_MOST; /* a trainer's room */
    CHECK(hostile_take(&h, "state.safetensors"));
    bool good = hostile_lengths(&h);
    for (size_t i = 0; i < 100; i++) {
        size_t at = (h.len - 1) * i / 99;
        char bit = (char)(1 << i % 7);
        (void)snprintf(what, sizeof what, "byte %zu", at);
        h.whole[at] ^= bit;
        good = hostile_refused(&h, h.whole, h.len, what, NULL) && good;
        h.whole[at] ^= bit;
    }
    CHECK(good);
    CHECK(hostile_as_it_was(&h));
    CHECK(h.cases >= 120);
    hostile_end(&h);
}
