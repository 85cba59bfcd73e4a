/* probe.c - what the page of `--report` shows beside the log of the steps.
 *
 * Samples are made with a session of their own, before the trainer is there and after its run, so that their memory is not the run's.
 *
 * Gradients: the trainer forgets those of a step with its update, so the first rows of the data, as many as make a batch, are passed
 * once more by peft_trainer_accumulate. For a layer it is the root of the sum of the squares of the gradients of all its tensors:
 * of the loss of these rows, a mean over their labelled tokens, with the dropout of the step to come. The same rows each time make the
 * figures of different steps comparable.
 *
 * Left out: tasks whose labels peft_dataset_row does not give; tensors of more than PROBE_LARGEST numbers, as embeddings in full
 * fine-tuning. */
#include "probe.h"

#include "minijson.h"
#include "system.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PROBE_NEW_TOKENS = 96, PROBE_LARGEST = 1 << 22, PROBE_LABEL = 64 };

/* ---- Samples ----------------------------------------------------------------------------------------------------------- */

/* Were the rows chats? Then a prompt is a user's message, as in training. */
static bool probe_is_chat(const char *path) {
    tool_text line = {0};
    json_doc doc = {NULL, NULL};
    FILE *file = path != NULL ? system_open(path, "r") : NULL;
    bool chat = file != NULL && tool_read_line(file, &line) && json_parse(&doc, line.text, line.len) &&
                json_get(&doc.values[0], "messages") != NULL;
    json_free(&doc);
    free(line.text);
    if (file != NULL) { (void)fclose(file); }
    return chat;
}

static int probe_chat(const tool_run *run, const char *prompt, char **out) {
    int rc = TOOL_OK;
    tool_text messages = {NULL, 0, 0};
    static const char head[] = "[{\"role\": \"user\", \"content\": ", tail[] = "}]";
    tool_append(&messages, head, sizeof head - 1);
    tool_append_json(&messages, prompt, strlen(prompt));
    tool_append(&messages, tail, sizeof tail - 1);
    READ_TEXT(*out, peft_tokenizer_chat, run->tokenizer, messages.text, messages.len, 1);
out:
    free(messages.text);
    return rc;
}

static int32_t probe_on_token(void *user, int32_t id, const char *text, size_t len) {
    (void)id;
    if (text != NULL) { tool_append(user, text, len); }
    return 0;
}

static int probe_sample(const tool_run *run, peft_session *session, const peft_options *options, const char *prompt, bool chat,
                        tool_text *out) {
    int rc = TOOL_OK;
    char *formed = NULL;
    tool_text text = {NULL, 0, 0};
    if (chat) { DO(probe_chat(run, prompt, &formed)); }
    const char *start = chat ? formed : prompt;
    peft_status status = peft_session_generate_text(session, run->tokenizer, start, strlen(start), options, probe_on_token, &text,
                                                    NULL, 0, NULL);
    if (status != PEFT_E_BUFFER) { TRY(status); } /* the text came by the callback */
    tool_append(out, "{\"prompt\": ", 11);
    tool_append_json(out, prompt, strlen(prompt));
    tool_append(out, ", \"text\": ", 10);
    tool_append_json(out, text.text != NULL ? text.text : "", text.len);
    tool_append(out, "}", 1);
out:
    free(text.text);
    free(formed);
    return rc;
}

int probe_samples(const tool_run *run, const tool_args *args, const char *expression, tool_text *out) {
    int rc = TOOL_OK;
    bool chat = probe_is_chat(args->data);
    peft_session *session = NULL;
    peft_options *options = NULL;
    if (run->tokenizer == NULL) {
        DO(tool_fail("--sample-prompt: %s has no tokenizer; give one with --tokenizer", args->model));
    }
    TRY(peft_options_create(run->ctx, "generate", &options));
    TRY(peft_options_set_int(options, "max_new_tokens", PROBE_NEW_TOKENS));
    TRY(peft_session_create(run->model, run->adapters, expression, NULL, &session));
    tool_append(out, "[", 1);
    for (size_t i = 0; i < args->samples.count; i++) {
        if (i > 0) { tool_append(out, ", ", 2); }
        DO(probe_sample(run, session, options, args->samples.text[i], chat, out));
    }
    tool_append(out, "]", 1);
out:
    peft_session_free(session);
    peft_options_free(options);
    return rc;
}

/* ---- Gradients ----------------------------------------------------------------------------------------------------------- */

typedef struct probe_layer {
    char label[PROBE_LABEL];
    double squares;
} probe_layer;

typedef struct probe {
    probe_layer *layers; /* owned, in the order in which the tensors name them */
    size_t count;
} probe;

/* "base_model.model.model.layers.3.mlp.up_proj.lora_A.weight": "layers.3"; with "encoder" or "decoder" before it where that is of
 * the name; "other" without a number. */
static void probe_label(const char *name, char out[PROBE_LABEL]) {
    const char *before = NULL, *side = "";
    for (const char *at = name; at != NULL;) {
        size_t len = strcspn(at, "./");
        if (before != NULL && len > 0 && strspn(at, "0123456789") == len) {
            size_t word = strcspn(before, "./");
            (void)snprintf(out, PROBE_LABEL, "%s%.*s.%.*s", side, word < 24 ? (int)word : 24, before, len < 10 ? (int)len : 10, at);
            return;
        }
        if (len == 7 && strncmp(at, "encoder", 7) == 0) { side = "encoder."; }
        if (len == 7 && strncmp(at, "decoder", 7) == 0) { side = "decoder."; }
        before = at;
        at = at[len] != '\0' ? at + len + 1 : NULL;
    }
    (void)snprintf(out, PROBE_LABEL, "other");
}

static void probe_add(probe *p, const char *tensor, double squares) {
    char label[PROBE_LABEL];
    size_t i = 0;
    probe_label(tensor, label);
    while (i < p->count && strcmp(p->layers[i].label, label) != 0) { i++; }
    if (i == p->count) {
        p->layers = tool_resize(p->layers, (p->count + 1) * sizeof *p->layers);
        memcpy(p->layers[i].label, label, sizeof label);
        p->layers[i].squares = 0.0;
        p->count++;
    }
    p->layers[i].squares += squares;
}

static void probe_read(probe *p, const tool_run *run, peft_trainer *trainer, const char *adapter) {
    float *buf = NULL;
    size_t cap = 0;
    for (size_t i = 0; i < peft_adapters_tensor_count(run->adapters, adapter); i++) {
        const char *name = NULL;
        int32_t ndim = 0;
        int64_t dims[8];
        size_t n = 0;
        double squares = 0.0;
        if (peft_adapters_tensor_info(run->adapters, adapter, i, &name, &ndim, dims) != PEFT_OK ||
            peft_trainer_gradient_read(trainer, adapter, name, NULL, 0, &n) != PEFT_E_BUFFER || n > PROBE_LARGEST) {
            continue; /* not trained */
        }
        if (n > cap) {
            cap = n;
            buf = tool_resize(buf, cap * sizeof *buf);
        }
        if (peft_trainer_gradient_read(trainer, adapter, name, buf, cap, NULL) != PEFT_OK) { continue; }
        for (size_t k = 0; k < n; k++) { squares += (double)buf[k] * (double)buf[k]; }
        probe_add(p, name, squares);
    }
    free(buf);
}

typedef struct probe_rows {
    int32_t *ids, *labels; /* owned, [tokens] */
    int64_t *offsets;      /* owned, [count + 1] */
    size_t count, tokens;
} probe_rows;

/* The first rows, as many as the plan has room for. */
static bool probe_take(const peft_dataset *rows, size_t most_rows, size_t most_tokens, probe_rows *out) {
    size_t size = peft_dataset_size(rows);
    out->ids = tool_alloc(most_tokens * sizeof *out->ids);
    out->labels = tool_alloc(most_tokens * sizeof *out->labels);
    out->offsets = tool_alloc((most_rows + 1) * sizeof *out->offsets);
    for (; out->count < size && out->count < most_rows; out->count++) {
        size_t n = 0, at = out->tokens;
        if (peft_dataset_row(rows, out->count, out->ids + at, out->labels + at, most_tokens - at, &n) != PEFT_OK) { break; }
        out->tokens += n;
        out->offsets[out->count + 1] = (int64_t)out->tokens;
    }
    return out->count > 0;
}

static double probe_number(const json_doc *doc, const char *key) {
    const json_value *v = doc->values != NULL ? json_get(&doc->values[0], key) : NULL;
    return v != NULL && v->kind == JSON_NUMBER && v->number > 0.0 && v->number < 1e8 ? v->number : 0.0;
}

/* Passes the rows; false where that cannot be. */
static bool probe_pass(const tool_run *run, peft_trainer *trainer, const peft_dataset *data) {
    int rc = TOOL_OK;
    bool good = false;
    char *about = NULL, *plan = NULL;
    json_doc info = {NULL, NULL}, room = {NULL, NULL};
    probe_rows rows = {NULL, NULL, NULL, 0, 0};
    peft_batch *batch = NULL;
    READ_TEXT(about, peft_dataset_info_json, data);
    READ_TEXT(plan, peft_trainer_plan_json, trainer);
    if (!json_parse(&info, about, strlen(about)) || !json_parse(&room, plan, strlen(plan))) { goto out; }
    const json_value *task = json_get(&info.values[0], "task");
    if (task == NULL || task->kind != JSON_STRING || strcmp(task->text, "causal_lm") != 0) { goto out; }
    if (!probe_take(data, (size_t)probe_number(&room, "max_rows"), (size_t)probe_number(&room, "max_tokens"), &rows)) { goto out; }
    good = peft_batch_create(run->ctx, &batch) == PEFT_OK &&
           peft_batch_set_i32(batch, "input_ids", rows.ids, rows.offsets, rows.count) == PEFT_OK &&
           peft_batch_set_i32(batch, "labels", rows.labels, rows.offsets, rows.count) == PEFT_OK &&
           peft_trainer_accumulate(trainer, batch, NULL) == PEFT_OK;
out:
    peft_batch_free(batch);
    free(rows.ids);
    free(rows.labels);
    free(rows.offsets);
    json_free(&info);
    json_free(&room);
    free(about);
    free(plan);
    return good && rc == TOOL_OK;
}

void probe_gradients(const tool_run *run, peft_trainer *trainer, const peft_dataset *rows, const char *const *adapters, size_t count,
                     tool_text *out) {
    probe p = {NULL, 0};
    if (!probe_pass(run, trainer, rows)) { return; }
    for (size_t i = 0; i < count; i++) { probe_read(&p, run, trainer, adapters[i]); }
    for (size_t i = 0; i < p.count; i++) {
        char number[TOOL_SHORT];
        double norm = sqrt(p.layers[i].squares);
        tool_append(out, i == 0 ? "{" : ", ", i == 0 ? 1 : 2);
        tool_append_json(out, p.layers[i].label, strlen(p.layers[i].label));
        (void)snprintf(number, sizeof number, isfinite(norm) ? ": %.6g" : ": null", norm);
        tool_append(out, number, strlen(number));
    }
    if (p.count > 0) { tool_append(out, "}", 1); }
    free(p.layers);
}
