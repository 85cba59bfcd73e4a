/* expression.c - fuzzes the small languages that options and calls take. First byte: e which adapters act (a session, that reads a
 * row by them), c a combination, t a pattern of target_modules, r a pattern, a line "%%", and a text that may match it. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "peft/method.h"

static void expression_session(peft_context *ctx, peft_model *m, peft_adapters *a, const char *text) {
    static const int32_t ids[] = {1, 2, 3, 1, 5, 6};
    static const int64_t offsets[] = {0, 4, 6};
    static float out[1 << 12];
    peft_session *s = NULL;
    peft_batch *b = NULL;
    fuzz_good(peft_batch_create(ctx, &b));
    fuzz_good(peft_batch_set_i32(b, "input_ids", ids, offsets, 2));
    if (fuzz_status(peft_session_create(m, a, text, NULL, &s)) == PEFT_OK) {
        (void)fuzz_status(peft_session_logits(s, b, out, sizeof out / sizeof *out, NULL));
        (void)fuzz_status(peft_session_set_adapters(s, "a"));
        fuzz_good(peft_session_set_adapters(s, text));
    }
    peft_session_free(s);
    peft_batch_free(b);
}

static void expression_target(peft_context *ctx, peft_adapters *a, const char *text) {
    peft_options *o = NULL;
    fuzz_good(peft_options_create(ctx, "method:lora", &o));
    (void)fuzz_status(peft_options_set_int(o, "r", 1));
    if (fuzz_status(peft_options_set_text(o, "target_modules", text)) == PEFT_OK) {
        if (fuzz_status(peft_adapters_add(a, "t", "lora", o, 0)) == PEFT_OK) { FUZZ_JSON(peft_adapters_info_json, a, "t"); }
    }
    peft_options_free(o);
}

static void expression_regex(fuzz_bytes *in) {
    char *pattern = fuzz_text(fuzz_section(in)), *text = fuzz_text(*in);
    bool whole = false, part = false;
    if (fuzz_status(peft__regex_match(pattern, text, true, &whole)) == PEFT_OK) {
        fuzz_good(peft__regex_match(pattern, text, false, &part));
        fuzz_check(part || !whole, "what matches the whole matches a part");
    }
    free(pattern);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_bytes in = {data, size};
    uint8_t kind = fuzz_byte(&in);
    if (kind == 'r') {
        expression_regex(&in);
        return 0;
    }
    char *text = fuzz_text(in);
    peft_context *ctx = fuzz_context(32 << 20);
    peft_model *m = fuzz_model(ctx, fuzz_llama);
    peft_adapters *a = NULL;
    peft_options *two = fuzz_options(ctx, "method:lora", "{'r':2,'target_modules':['q_proj','v_proj']}");
    peft_options *prompt = fuzz_options(ctx, "method:prompt", "{'num_virtual_tokens':2}");
    fuzz_good(peft_adapters_create(m, &a));
    fuzz_good(peft_adapters_add(a, "a", "lora", two, 1));
    fuzz_good(peft_adapters_add(a, "b", "lora", two, 2));
    fuzz_good(peft_adapters_add(a, "i", "ia3", NULL, 3));
    fuzz_good(peft_adapters_add(a, "n", "pfeiffer", NULL, 4));
    fuzz_good(peft_adapters_add(a, "p", "prompt", prompt, 5));
    if (kind == 'c') {
        (void)fuzz_status(peft_adapters_combine(a, "x", text, NULL));
    } else if (kind == 't') {
        expression_target(ctx, a, text);
    } else {
        expression_session(ctx, m, a, text);
    }
    peft_options_free(two);
    peft_options_free(prompt);
    peft_adapters_free(a);
    peft_model_free(m);
    fuzz_context_end(ctx);
    free(text);
    return 0;
}
