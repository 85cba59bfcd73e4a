/* checkpoint.c - fuzzes what reads checkpoints: loads one into a trainer, which then makes a step and saves again.
 *
 * First byte: s the JSON text of the state, put into the file of a real checkpoint without its checksum; r the whole file. In a state
 * "@L" and "@D" stand for the numbers of the real one that depend on the adapter's layout and the data. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "io/io.h"
#include "train/train.h"

typedef struct checkpoint_kit {
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    peft_dataset *d;
    peft_trainer *t;
} checkpoint_kit;

static void checkpoint_begin(checkpoint_kit *k) {
    static const char *const rows[] = {"{\"input_ids\":[1,2,3]}", "{\"input_ids\":[4,5]}", "{\"input_ids\":[6,7,8,9]}"};
    k->ctx = fuzz_context(32 << 20);
    k->m = fuzz_model(k->ctx, fuzz_llama);
    peft_options *lora = fuzz_options(k->ctx, "method:lora", "{'r':1,'target_modules':['q_proj']}");
    peft_options *how = fuzz_options(k->ctx, "trainer", "{'max_steps':4,'batch_size':2}");
    fuzz_good(peft_adapters_create(k->m, &k->a));
    fuzz_good(peft_adapters_add(k->a, "x", "lora", lora, 1));
    fuzz_good(peft_dataset_create(k->ctx, NULL, NULL, &k->d));
    for (size_t i = 0; i < PEFT__COUNT(rows); i++) { fuzz_good(peft_dataset_add_json(k->d, rows[i], strlen(rows[i]))); }
    fuzz_good(peft_trainer_create(k->a, how, &k->t));
    fuzz_good(peft_trainer_add_job(k->t, "x", k->d, NULL, NULL));
    peft_options_free(lora);
    peft_options_free(how);
}

static void checkpoint_end(checkpoint_kit *k) {
    peft_trainer_free(k->t);
    peft_dataset_free(k->d);
    peft_adapters_free(k->a);
    peft_model_free(k->m);
    fuzz_context_end(k->ctx);
}

/* Digits of a number of the real state; `state` has it as `"key":123`. */
static void checkpoint_number(const char *state, const char *key, char out[32]) {
    const char *at = strstr(state, key);
    size_t n = 0;
    fuzz_check(at != NULL, key);
    for (at += strlen(key); *at >= '0' && *at <= '9' && n + 1 < 32; at++) { out[n++] = *at; }
    out[n] = '\0';
}

static void checkpoint_expand(fuzz_bytes in, const char *real, peft__str *out) {
    char layout[32], data[32];
    checkpoint_number(real, "\"layout\":", layout);
    checkpoint_number(real, "\"data\":", data);
    for (size_t i = 0; i < in.size; i++) {
        bool mark = in.data[i] == '@' && i + 1 < in.size;
        if (mark && in.data[i + 1] == 'L') {
            peft__str_puts(out, layout);
        } else if (mark && in.data[i + 1] == 'D') {
            peft__str_puts(out, data);
        } else {
            peft__str_putc(out, (char)in.data[i]);
            continue;
        }
        i++;
    }
}

/* c/state.safetensors with another state than the trainer's. */
static void checkpoint_put_state(checkpoint_kit *k, fuzz_bytes in) {
    char path[FUZZ_PATH];
    peft__safetensors file = {0};
    peft__str text;
    peft__str_init(&text, &k->ctx->mem);
    fuzz_good(peft_trainer_checkpoint_save(k->t, fuzz_path("c", path)));
    (void)fuzz_path("c/state.safetensors", path);
    fuzz_good(peft__safetensors_open(&k->ctx->mem, path, true, &file));
    checkpoint_expand(in, peft__json_find(file.metadata, "state")->str, &text);
    const char *metadata[] = {"format", "libpeft-checkpoint", "state", peft__str_c(&text), NULL};
    peft__io_source tensors[16];
    fuzz_check(file.count <= PEFT__COUNT(tensors), "a checkpoint of one adapter");
    for (size_t i = 0; i < file.count; i++) {
        const peft__io_tensor *t = &file.tensors[i];
        tensors[i] = (peft__io_source){.name = t->name, .dtype = t->dtype, .ndim = t->ndim, .data = t->data};
        memcpy(tensors[i].dims, t->dims, sizeof tensors[i].dims);
    }
    (void)fuzz_status(peft__safetensors_write(&k->ctx->mem, path, tensors, file.count, metadata)); /* no UTF-8: the real one stays */
    peft__safetensors_close(&file);
    peft__str_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[FUZZ_PATH];
    checkpoint_kit k = {0};
    fuzz_bytes in = {data, size};
    uint8_t kind = fuzz_byte(&in);
    int32_t more = 0;
    fuzz_clear();
    fuzz_folder("c");
    checkpoint_begin(&k);
    if (kind == 's') {
        checkpoint_put_state(&k, in);
    } else {
        fuzz_write("c/state.safetensors", in);
    }
    (void)fuzz_path("c", path);
    if (fuzz_status(peft_trainer_checkpoint_load(k.t, path)) == PEFT_OK) {
        FUZZ_JSON(peft_trainer_plan_json, k.t);
        (void)fuzz_status(peft_trainer_step(k.t, &more));
        (void)fuzz_status(peft_trainer_checkpoint_save(k.t, fuzz_path("c2", path)));
        (void)fuzz_path("c", path);
    }
    FUZZ_JSON(peft_check_json, k.ctx, path, k.m, NULL);
    checkpoint_end(&k);
    return 0;
}
