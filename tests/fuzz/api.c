/* api.c - fuzzes the order of public calls: each byte of the input is a call on the objects of a small machine, with arguments of the
 * bytes after it. Objects are made, replaced, used, and freed at any time; in the end all that was allocated has gone. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

enum { API_SLOTS = 2, API_CALLS = 60, API_FLOATS = 1 << 12 };

typedef struct api_machine {
    fuzz_bytes in;
    peft_context *ctx;
    peft_model *m;
    peft_tokenizer *tokenizer;
    peft_adapters *a;
    peft_options *o[API_SLOTS]; /* of any schema */
    peft_batch *b[API_SLOTS];
    peft_dataset *d[API_SLOTS];
    peft_trainer *t[API_SLOTS];
    peft_session *s[API_SLOTS];
    uint8_t stop; /* callbacks answer so */
} api_machine;

static float api_floats[API_FLOATS];

static const char *const api_names[] = {"a", "b", "c", "", "d e", "nobody"};
static const char *const api_expressions[] = {
    "a", "b", "a, b", "0.5 * a", "stack(a, b)", "average(a:3, b)", "split(a:2, b)", "parallel(a, b)", "batch_split(a:1, b:1)",
    "fuse(a, b)", "freeze(a), b", "c", "a, c", "", "a:0",
};
static const char *const api_models[] = {
    NULL, /* fuzz_llama, fuzz_gpt2 */
    NULL,
    "{\"model_type\":\"bert\",\"architectures\":[\"BertForSequenceClassification\"],\"hidden_size\":8,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":2,\"intermediate_size\":8,\"vocab_size\":14,\"max_position_embeddings\":24,\"type_vocab_size\":2,"
    "\"id2label\":{\"0\":\"no\",\"1\":\"yes\"},\"label2id\":{\"no\":0,\"yes\":1}}",
    "{\"model_type\":\"t5\",\"d_model\":8,\"d_kv\":4,\"d_ff\":8,\"num_layers\":1,\"num_decoder_layers\":1,\"num_heads\":2,"
    "\"vocab_size\":14,\"decoder_start_token_id\":0,\"eos_token_id\":12,\"pad_token_id\":0,\"feed_forward_proj\":\"relu\"}",
};
static const char *const api_options[][2] = {
    {"trainer", "{'max_steps':3,'batch_size':2}"},
    {"trainer", "{'max_steps':4,'batch_size':3,'gradient_accumulation_steps':2,'max_length':12}"},
    {"trainer", "{'max_steps':3,'batch_size':2,'memory_limit':60000,'eval_steps':1,'load_best_model_at_end':true}"},
    {"trainer", "{'num_train_epochs':1,'batch_size':1,'group_by_length':true,'profile':true,'max_length':9}"},
    {"optimizer", "{'learning_rate':0.01}"},
    {"optimizer", "{'optimizer':'lion','learning_rate':1000000,'max_grad_norm':0}"},
    {"optimizer", "{'optimizer':'sgd','momentum':0.9,'learning_rate':0.1,'lr_scheduler_type':'cosine'}"},
    {"session", "{'max_length':16,'chunk':4}"},
    {"session", "{'max_length':48}"},
    {"generate", "{'max_new_tokens':3}"},
    {"generate", "{'max_new_tokens':5,'temperature':0.9,'top_k':3,'top_p':0.9,'seed':7}"},
    {"generate", "{'max_new_tokens':4,'num_beams':3}"},
    {"generate", "{'hold':true,'max_new_tokens':2,'repetition_penalty':1.5}"},
    {"dataset", "{'max_length':8,'packing':true}"},
    {"dataset", "{'max_length':6,'truncation':'left'}"},
    {"dataset", "{'task':'seq2seq_lm'}"},
    {"dataset", "{'task':'masked_lm'}"},
    {"combine", "{'type':'ties_svd','density':0.5}"},
    {"combine", "{'type':'cat'}"},
    {"save", "{}"},
    {"merge", "{}"},
    {"load", "{'replace':true}"},
    {"method:lora", "{'r':2}"},
    {"method:lora", "{'r':1,'use_dora':true,'target_modules':'all-linear','lora_dropout':0.5}"},
    {"method:prompt", "{'num_virtual_tokens':2}"},
    {"method:prefix", "{'num_virtual_tokens':3}"},
};
static const char *const api_rows[] = {
    "{\"input_ids\":[1,2,3,4]}", "{\"text\":\"abc ab\"}", "{\"prompt\":\"a\",\"completion\":\"b\"}",
    "{\"input_ids\":[5,5,5,5,5,5,5,5,5,5,5,5,5,5,5,5,5,5,5,5]}", "{\"text\":\"ab\",\"label\":1}",
    "{\"source\":\"ab\",\"target\":\"c\"}", "{\"input_ids\":[13,0],\"labels\":[-100,1]}", "{\"input_ids\":[99]}", "{\"text\":1}",
};

static size_t api_slot(api_machine *v) {
    return fuzz_byte(&v->in) % API_SLOTS;
}

#define API_PICK(v, list) (list)[fuzz_byte(&(v)->in) % (sizeof(list) / sizeof *(list))]

/* An options object of a slot, or none. */
static peft_options *api_option(api_machine *v) {
    size_t i = fuzz_byte(&v->in) % (API_SLOTS + 1);
    return i < API_SLOTS ? v->o[i] : NULL;
}

static int32_t api_progress(void *user, const peft_step_info *info) {
    api_machine *v = user;
    fuzz_check(info->struct_size >= sizeof *info && info->step >= 1, "a step");
    return v->stop != 0 && v->stop % 3 == 0;
}

static int32_t api_token(void *user, int32_t id, const char *text, size_t len) {
    api_machine *v = user;
    fuzz_check(id >= 0 && (text != NULL || len == 0), "a token");
    if (v->stop % 5 == 4) { peft_session_cancel(v->s[0]); }
    return v->stop != 0 && v->stop % 7 == 0;
}

static int32_t api_row(void *user, const peft_row_info *info) {
    api_machine *v = user;
    fuzz_check(info->struct_size >= sizeof *info && info->id >= -1, "a row");
    return v->stop != 0 && v->stop % 11 == 0;
}

/* Half of the squared values: its gradient is the values themselves. */
static int32_t api_loss(void *user, const peft_loss_chunk *c, double *loss, double *weight) {
    api_machine *v = user;
    *loss = 0;
    for (int64_t i = 0; i < c->rows * c->columns; i++) { *loss += 0.5 * (double)c->values[i] * (double)c->values[i]; }
    *weight = (double)c->rows;
    return v->stop != 0 && v->stop % 13 == 0;
}

/* ---- calls: each takes its arguments from the input ---------------------------------------------------------------- */

static void api_make_options(api_machine *v) {
    size_t i = api_slot(v);
    const char *const *which = api_options[fuzz_byte(&v->in) % (sizeof api_options / sizeof *api_options)];
    peft_options_free(v->o[i]);
    v->o[i] = fuzz_options(v->ctx, which[0], which[1]);
}

static void api_add(api_machine *v) {
    const char *name = API_PICK(v, api_names), *method = peft_method_name(fuzz_byte(&v->in) % 40);
    peft_options *o = fuzz_byte(&v->in) % 2 != 0 ? api_option(v) : NULL;
    (void)fuzz_status(peft_adapters_add(v->a, name, method != NULL ? method : "lora", o, 1));
}

static void api_save(api_machine *v) {
    static const char *const files[] = {"one", "two", "one.gguf", "model"};
    char path[FUZZ_PATH];
    const char *name = API_PICK(v, api_names);
    (void)fuzz_status(peft_adapters_save(v->a, name, fuzz_path(API_PICK(v, files), path), api_option(v)));
}

static void api_load(api_machine *v) {
    static const char *const files[] = {"one", "two", "one.gguf", "none"};
    char path[FUZZ_PATH];
    const char *name = API_PICK(v, api_names);
    (void)fuzz_status(peft_adapters_load(v->a, name, fuzz_path(API_PICK(v, files), path), api_option(v)));
}

static void api_merge(api_machine *v) {
    static const char *const files[] = {"merged", "merged.gguf"};
    char path[FUZZ_PATH];
    const char *text = API_PICK(v, api_expressions);
    (void)fuzz_status(peft_adapters_merge(v->a, text, fuzz_path(API_PICK(v, files), path), api_option(v)));
}

static void api_change(api_machine *v) {
    const char *name = API_PICK(v, api_names);
    switch (fuzz_byte(&v->in) % 4) {
    case 0: (void)fuzz_status(peft_adapters_remove(v->a, name)); break;
    case 1: (void)fuzz_status(peft_adapters_combine(v->a, name, API_PICK(v, api_expressions), api_option(v))); break;
    case 2: {
        static const int32_t ids[] = {1, 2};
        (void)fuzz_status(peft_adapters_init(v->a, name, ids, fuzz_byte(&v->in) % 3));
        break;
    }
    default: {
        const char *tensor = NULL;
        size_t n = 0;
        if (fuzz_status(peft_adapters_tensor_info(v->a, name, fuzz_byte(&v->in), &tensor, NULL, NULL)) != PEFT_OK) { break; }
        if (fuzz_status(peft_adapters_tensor_read(v->a, name, tensor, api_floats, API_FLOATS, &n)) != PEFT_OK) { break; }
        for (size_t i = 0; i < n; i++) { api_floats[i] += v->stop == 1 ? NAN : 0.1F; }
        (void)fuzz_status(peft_adapters_tensor_write(v->a, name, tensor, api_floats, n));
        break;
    }
    }
}

static void api_make_data(api_machine *v) {
    size_t i = api_slot(v);
    peft_dataset *fresh = NULL;
    peft_tokenizer *t = fuzz_byte(&v->in) % 4 != 0 ? v->tokenizer : NULL;
    if (fuzz_status(peft_dataset_create(v->ctx, t, api_option(v), &fresh)) != PEFT_OK) { return; }
    peft_dataset_free(v->d[i]);
    v->d[i] = fresh;
}

static void api_add_row(api_machine *v) {
    peft_dataset *d = v->d[api_slot(v)];
    const char *row = API_PICK(v, api_rows);
    if (fuzz_byte(&v->in) % 4 != 0) {
        (void)fuzz_status(peft_dataset_add_json(d, row, strlen(row)));
    } else {
        (void)fuzz_status(peft_dataset_add(d, v->b[api_slot(v)]));
    }
    if (d != NULL) { FUZZ_JSON(peft_dataset_info_json, d); }
}

/* Rows of a batch, under a key, with lengths from the input. */
static void api_set_batch(api_machine *v) {
    static const char *const keys[] = {"input_ids", "labels", "token_type_ids", "loss_weights", "row_labels", "source_ids", "jobs",
                                       "task_id", "spans", "targets", "other"};
    int32_t ids[64];
    float reals[64];
    int64_t offsets[5] = {0};
    size_t i = api_slot(v), rows = fuzz_byte(&v->in) % 5, n = 0;
    const char *key = API_PICK(v, keys);
    bool whole = fuzz_byte(&v->in) % 2 != 0;
    if (v->b[i] == NULL) { fuzz_good(peft_batch_create(v->ctx, &v->b[i])); }
    if (v->stop % 2 != 0) { peft_batch_clear(v->b[i]); }
    for (size_t r = 0; r < rows; r++) { offsets[r + 1] = offsets[r] + fuzz_byte(&v->in) % 13; }
    n = whole ? 8 : (size_t)offsets[rows];
    for (size_t k = 0; k < n; k++) {
        ids[k] = (int8_t)fuzz_byte(&v->in) % 16;
        reals[k] = (float)ids[k];
    }
    if (strcmp(key, "loss_weights") == 0 || strcmp(key, "targets") == 0) {
        (void)fuzz_status(peft_batch_set_f32(v->b[i], key, reals, whole ? NULL : offsets, rows));
    } else {
        (void)fuzz_status(peft_batch_set_i32(v->b[i], key, ids, whole ? NULL : offsets, rows));
    }
}

static void api_make_trainer(api_machine *v) {
    size_t i = api_slot(v);
    peft_trainer *fresh = NULL;
    if (fuzz_status(peft_trainer_create(v->a, api_option(v), &fresh)) != PEFT_OK) { return; }
    peft_trainer_free(v->t[i]);
    v->t[i] = fresh;
    fuzz_good(peft_trainer_set_progress(fresh, api_progress, v));
    if (fuzz_byte(&v->in) % 4 == 0) { (void)fuzz_status(peft_trainer_set_loss(fresh, api_loss, v)); }
}

static void api_train(api_machine *v) {
    peft_trainer *t = v->t[api_slot(v)];
    char path[FUZZ_PATH];
    int32_t more = 0;
    double loss = 0;
    switch (fuzz_byte(&v->in) % 10) {
    case 0: {
        const char *text = API_PICK(v, api_expressions);
        peft_dataset *train = v->d[api_slot(v)], *eval = fuzz_byte(&v->in) % 2 != 0 ? v->d[api_slot(v)] : NULL;
        (void)fuzz_status(peft_trainer_add_job(t, text, train, eval, api_option(v)));
        break;
    }
    case 1: (void)fuzz_status(peft_trainer_step(t, &more)); break;
    case 2: (void)fuzz_status(peft_trainer_run(t)); break;
    case 3: (void)fuzz_status(peft_trainer_accumulate(t, v->b[api_slot(v)], &loss)); break;
    case 4: (void)fuzz_status(peft_trainer_apply(t)); break;
    case 5: FUZZ_JSON(peft_trainer_evaluate, t, v->d[api_slot(v)]); break;
    case 6: FUZZ_JSON(peft_trainer_plan_json, t); break;
    case 7: (void)fuzz_status(peft_trainer_checkpoint_save(t, fuzz_path("state", path))); break;
    case 8: (void)fuzz_status(peft_trainer_checkpoint_load(t, fuzz_path("state", path))); break;
    default: peft_trainer_cancel(t); break;
    }
}

static void api_make_session(api_machine *v) {
    size_t i = api_slot(v);
    peft_session *fresh = NULL;
    const char *text = API_PICK(v, api_expressions);
    if (fuzz_status(peft_session_create(v->m, v->a, text, api_option(v), &fresh)) != PEFT_OK) { return; }
    peft_session_free(v->s[i]);
    v->s[i] = fresh;
}

static void api_rows_of(api_machine *v, peft_session *s) {
    static const char prompt[] = "ab c";
    int64_t row = 0;
    size_t left = 0;
    switch (fuzz_byte(&v->in) % 4) {
    case 0: {
        const char *text = API_PICK(v, api_expressions);
        (void)fuzz_status(peft_session_row_add_text(s, text, v->tokenizer, prompt, fuzz_byte(&v->in) % 5, api_option(v), &row));
        break;
    }
    case 1: (void)fuzz_status(peft_session_row_remove(s, fuzz_byte(&v->in) % 8)); break;
    default: (void)fuzz_status(peft_session_rows_next(s, api_row, v, &left)); break;
    }
}

static void api_ask(api_machine *v) {
    static const char prompt[] = "ab c";
    static const int32_t ids[] = {1, 2, 3, 99};
    peft_session *s = v->s[api_slot(v)];
    char text[64];
    int32_t out[64], id = 0;
    size_t n = fuzz_byte(&v->in) % 5;
    switch (fuzz_byte(&v->in) % 9) {
    case 0: (void)fuzz_status(peft_session_logits(s, v->b[api_slot(v)], api_floats, API_FLOATS, NULL)); break;
    case 1: FUZZ_JSON(peft_session_evaluate, s, v->d[api_slot(v)]); break;
    case 2: (void)fuzz_status(peft_session_outputs(s, v->d[api_slot(v)], api_floats, API_FLOATS, NULL)); break;
    case 3: (void)fuzz_status(peft_session_generate(s, v->tokenizer, ids, n, api_option(v), api_token, v, out, 64, NULL)); break;
    case 4:
        (void)fuzz_status(peft_session_generate_text(s, v->tokenizer, prompt, n, api_option(v), api_token, v, text, sizeof text, NULL));
        break;
    case 5: (void)fuzz_status(peft_session_start_text(s, v->tokenizer, prompt, n, api_option(v))); break;
    case 6: (void)fuzz_status(peft_session_next(s, &id, text, n * 16, NULL)); break;
    case 7: (void)fuzz_status(peft_session_set_adapters(s, API_PICK(v, api_expressions))); break;
    default: api_rows_of(v, s); break;
    }
}

static void api_drop(api_machine *v) {
    size_t i = api_slot(v);
    switch (fuzz_byte(&v->in) % 8) {
    case 0: peft_options_free(v->o[i]), v->o[i] = NULL; break;
    case 1: peft_batch_free(v->b[i]), v->b[i] = NULL; break;
    case 2: peft_dataset_free(v->d[i]), v->d[i] = NULL; break;
    case 3: peft_trainer_free(v->t[i]), v->t[i] = NULL; break;
    case 4: peft_session_free(v->s[i]), v->s[i] = NULL; break;
    case 5: peft_adapters_free(v->a), v->a = NULL; break;
    case 6: peft_model_free(v->m), v->m = NULL; break;
    default: peft_tokenizer_free(v->tokenizer), v->tokenizer = NULL; break;
    }
}

static void api_tell(api_machine *v) {
    const char *name = API_PICK(v, api_names);
    if (v->a != NULL) { FUZZ_JSON(peft_adapters_info_json, v->a, name); }
    if (v->m != NULL) { FUZZ_JSON(peft_model_info_json, v->m); }
    if (v->tokenizer != NULL) { FUZZ_JSON(peft_tokenizer_info_json, v->tokenizer); }
    for (size_t i = 0; i < API_SLOTS; i++) {
        if (v->o[i] != NULL) { FUZZ_JSON(peft_options_get_json, v->o[i]); }
        if (v->b[i] != NULL) { fuzz_check(peft_batch_rows(v->b[i]) < 8, "rows of a batch"); }
    }
}

static void api_call(api_machine *v) {
    static void (*const calls[])(api_machine *) = {api_make_options, api_add,          api_save,      api_load,  api_merge,
                                                   api_change,       api_make_data,    api_add_row,   api_set_batch,
                                                   api_make_trainer, api_train,        api_train,     api_train, api_make_session,
                                                   api_ask,          api_ask,          api_ask,       api_tell,  api_drop};
    uint8_t which = fuzz_byte(&v->in);
    if (which >= 240) {
        v->stop = fuzz_byte(&v->in);
    } else {
        calls[which % (sizeof calls / sizeof *calls)](v);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    api_machine v = {.in = {data, size}};
    fuzz_clear();
    v.ctx = fuzz_context(16 << 20);
    size_t which = fuzz_byte(&v.in) % 4;
    v.m = fuzz_model(v.ctx, which == 0 ? fuzz_llama : which == 1 ? fuzz_gpt2 : api_models[which]);
    v.tokenizer = fuzz_tokenizer(v.ctx);
    fuzz_good(peft_adapters_create(v.m, &v.a));
    for (int i = 0; i < API_CALLS && v.in.size > 0; i++) { api_call(&v); }
    for (size_t i = 0; i < API_SLOTS; i++) {
        peft_options_free(v.o[i]);
        peft_batch_free(v.b[i]);
        peft_dataset_free(v.d[i]);
        peft_trainer_free(v.t[i]);
        peft_session_free(v.s[i]);
    }
    peft_adapters_free(v.a);
    peft_model_free(v.m);
    peft_tokenizer_free(v.tokenizer);
    fuzz_context_end(v.ctx);
    return 0;
}
