/* jsonl.c - fuzzes rows of data: options of a data set as a JSON object, a line "%%", then a file of JSON Lines. */
#include "fuzz.h"

/* All rows once, and sizes that fit together. */
static void jsonl_rows(const peft_dataset *d) {
    static int32_t ids[1 << 12], labels[1 << 12];
    size_t rows = peft_dataset_size(d);
    for (size_t i = 0; i < rows && i < 64; i++) {
        size_t n = 0;
        peft_status st = fuzz_status(peft_dataset_row(d, i, ids, labels, 1 << 12, &n));
        fuzz_check(st == PEFT_OK || (st == PEFT_E_BUFFER && n > 1 << 12), "a row can be had");
        for (size_t k = 0; st == PEFT_OK && k < n; k++) { fuzz_check(ids[k] >= 0 && labels[k] >= -100, "ids and labels"); }
    }
    fuzz_check(peft_dataset_row(d, rows, ids, labels, 0, NULL) == PEFT_E_NOT_FOUND, "no row past the end");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[FUZZ_PATH];
    fuzz_bytes in = {data, size}, options = fuzz_section(&in);
    peft_context *ctx = fuzz_context(32 << 20);
    peft_options *o = NULL;
    peft_dataset *d = NULL;
    peft_tokenizer *t = fuzz_tokenizer(ctx);
    fuzz_write("rows.jsonl", in);
    (void)fuzz_path("rows.jsonl", path);
    fuzz_good(peft_options_create(ctx, "dataset", &o));
    (void)fuzz_status(peft_options_set_json(o, (const char *)options.data, options.size));
    if (fuzz_status(peft_dataset_create(ctx, t, o, &d)) == PEFT_OK) {
        if (fuzz_status(peft_dataset_load_jsonl(d, path)) != PEFT_OK) {
            fuzz_check(peft_dataset_size(d) == 0, "a load that fails adds nothing");
        }
        jsonl_rows(d);
        (void)fuzz_status(peft_dataset_add_json(d, (const char *)in.data, in.size));
        FUZZ_JSON(peft_dataset_info_json, d);
        jsonl_rows(d);
    }
    FUZZ_JSON(peft_check_json, ctx, path, NULL, NULL);
    peft_dataset_free(d);
    peft_tokenizer_free(t);
    peft_options_free(o);
    fuzz_context_end(ctx);
    return 0;
}
