/* config.c - fuzzes config.json of a Hugging Face folder: a model with random weights of what it says, by which a row is read.
 *
 * Memory is small, so that large models end at once. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const int32_t ids[] = {1, 2, 3, 1};
    static const int64_t offsets[] = {0, 4};
    static float out[1 << 14];
    char *config = fuzz_text((fuzz_bytes){data, size});
    peft_context *ctx = fuzz_context(3 << 20);
    peft_model *m = NULL;
    peft_session *s = NULL;
    peft_batch *b = NULL;
    peft_options *o = fuzz_options(ctx, "session", "{'max_length':8,'chunk':8}");
    if (fuzz_status(peft_model_create_random(ctx, config, strlen(config), 1, &m)) == PEFT_OK) {
        FUZZ_JSON(peft_model_info_json, m);
        FUZZ_JSON(peft_model_config_json, m);
        fuzz_good(peft_batch_create(ctx, &b));
        fuzz_good(peft_batch_set_i32(b, "input_ids", ids, offsets, 1));
        if (fuzz_status(peft_session_create(m, NULL, NULL, o, &s)) == PEFT_OK) {
            (void)fuzz_status(peft_session_logits(s, b, out, sizeof out / sizeof *out, NULL));
        }
    }
    peft_session_free(s);
    peft_batch_free(b);
    peft_model_free(m);
    peft_options_free(o);
    fuzz_context_end(ctx);
    free(config);
    return 0;
}
