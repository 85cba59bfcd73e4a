/* adapter.c - fuzzes what reads adapters: loads one, and what loaded is saved, loaded again and run.
 *
 * First byte: h a folder of Hugging Face PEFT (adapter_config.json, adapter_model.safetensors), a one of AdapterHub's library
 * (adapter_config.json, head_config.json, adapter.safetensors), f a fusion of it (adapter_fusion_config.json,
 * model_adapter_fusion.safetensors), g a LoRA file of llama.cpp. Second byte: 2 GPT-2, else Llama. Then the files, divided by lines
 * "%%"; the last is all that is left. */
#include "fuzz.h"

/* Through the public calls that read what a loaded adapter holds. */
static void adapter_use(peft_context *ctx, peft_model *m, peft_adapters *a) {
    static const int32_t ids[] = {1, 2, 3, 1};
    static const int64_t offsets[] = {0, 4};
    static float out[1 << 13];
    char path[FUZZ_PATH];
    peft_session *s = NULL;
    peft_batch *b = NULL;
    FUZZ_JSON(peft_adapters_info_json, a, "x");
    for (size_t i = 0; i < peft_adapters_tensor_count(a, "x"); i++) {
        const char *tensor = NULL;
        fuzz_good(peft_adapters_tensor_info(a, "x", i, &tensor, NULL, NULL));
        (void)fuzz_status(peft_adapters_tensor_read(a, "x", tensor, out, sizeof out / sizeof *out, NULL));
    }
    if (fuzz_status(peft_adapters_save(a, "x", fuzz_path("saved", path), NULL)) == PEFT_OK) {
        fuzz_check(fuzz_status(peft_adapters_load(a, "again", path, NULL)) == PEFT_OK, "what was saved can be loaded");
    }
    (void)fuzz_status(peft_adapters_save(a, "x", fuzz_path("saved.gguf", path), NULL));
    fuzz_good(peft_batch_create(ctx, &b));
    fuzz_good(peft_batch_set_i32(b, "input_ids", ids, offsets, 1));
    if (fuzz_status(peft_session_create(m, a, "x", NULL, &s)) == PEFT_OK) {
        (void)fuzz_status(peft_session_logits(s, b, out, sizeof out / sizeof *out, NULL));
    }
    peft_session_free(s);
    peft_batch_free(b);
}

static void adapter_files(uint8_t kind, fuzz_bytes in) {
    static const char *const names[] = {"x/adapter_config.json",        "x/adapter_model.safetensors",
                                        "x/head_config.json",           "x/adapter.safetensors",
                                        "x/adapter_fusion_config.json", "x/model_adapter_fusion.safetensors"};
    fuzz_clear();
    fuzz_folder("x");
    if (kind == 'g') {
        fuzz_write("x.gguf", in);
        return;
    }
    fuzz_write(names[kind == 'f' ? 4 : 0], fuzz_section(&in));
    if (kind == 'a') {
        fuzz_bytes head = fuzz_section(&in);
        if (head.size > 0) { fuzz_write(names[2], head); }
    }
    fuzz_write(names[kind == 'f' ? 5 : kind == 'a' ? 3 : 1], in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[FUZZ_PATH];
    fuzz_bytes in = {data, size};
    uint8_t kind = fuzz_byte(&in), base = fuzz_byte(&in);
    peft_context *ctx = fuzz_context(16 << 20);
    peft_model *m = fuzz_model(ctx, base == '2' ? fuzz_gpt2 : fuzz_llama);
    peft_adapters *a = NULL;
    adapter_files(kind, in);
    (void)fuzz_path(kind == 'g' ? "x.gguf" : "x", path);
    fuzz_good(peft_adapters_create(m, &a));
    if (fuzz_status(peft_adapters_load(a, "x", path, NULL)) == PEFT_OK) { adapter_use(ctx, m, a); }
    FUZZ_JSON(peft_inspect_json, ctx, path);
    FUZZ_JSON(peft_check_json, ctx, path, m, NULL);
    peft_adapters_free(a);
    peft_model_free(m);
    fuzz_context_end(ctx);
    return 0;
}
