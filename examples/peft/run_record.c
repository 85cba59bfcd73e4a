/* run_record.c - the object "run" in the first line of a log: what was run, so that a log explains itself.
 *
 *   version, kernels, threads, started (UTC)    of the process
 *   model, adapter, data, eval                  path and size of each
 *   given                                       settings as they were typed
 *   settings                                    all options in force, by schema
 *   plan                                        what the run would need, as `peft plan` says it
 *
 * Left out: names that a log's lines have themselves, such as "eval_loss", so that one who searches lines by a key finds theirs. */
#include "run_record.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static void record_put(tool_text *out, const char *text) {
    tool_append(out, text, strlen(text));
}

/* With a comma before every member but an object's first. */
static void record_key(tool_text *out, const char *key) {
    if (out->len > 0 && out->text[out->len - 1] != '{') { record_put(out, ", "); }
    tool_append_json(out, key, strlen(key));
    record_put(out, ": ");
}

static void record_text(tool_text *out, const char *key, const char *text) {
    record_key(out, key);
    tool_append_json(out, text, strlen(text));
}

/* A scalar as it was written. */
static void record_value(tool_text *out, const char *key, const json_value *v) {
    if (v == NULL || v->kind == JSON_ARRAY || v->kind == JSON_OBJECT) { return; }
    if (v->kind == JSON_STRING) {
        record_key(out, key);
        tool_append_json(out, v->text, v->len);
    } else {
        record_key(out, key);
        record_put(out, v->text);
    }
}

/* "NAME": {"path": ..., keys...} with those of the NULL-terminated keys that the library's JSON text has. */
static void record_part(tool_text *out, const char *name, const char *path, const char *text, const char *const *keys) {
    json_doc doc = {NULL, NULL};
    record_key(out, name);
    record_put(out, "{");
    if (path != NULL) { record_text(out, "path", path); }
    if (json_parse(&doc, text, strlen(text))) {
        for (; *keys != NULL; keys++) { record_value(out, *keys, json_get(&doc.values[0], *keys)); }
    }
    record_put(out, "}");
    json_free(&doc);
}

static void record_process(const run_record *r, tool_text *out) {
    char number[TOOL_SHORT], moment[TOOL_SHORT] = "";
    time_t now = time(NULL);
    const struct tm *utc = gmtime(&now);
    record_text(out, "version", peft_version_string());
    record_text(out, "kernels", peft_context_isa(r->run->ctx));
    (void)snprintf(number, sizeof number, "%d", (int)peft_context_threads(r->run->ctx));
    record_key(out, "threads");
    record_put(out, number);
    if (utc != NULL && strftime(moment, sizeof moment, "%Y-%m-%dT%H:%M:%SZ", utc) > 0) { record_text(out, "started", moment); }
}

static int record_parts(const run_record *r, tool_text *out) {
    static const char *const model_keys[] = {"architecture", "model_type", "parameters", "bytes", "num_hidden_layers",
                                             "hidden_size", "vocab_size", "task", NULL};
    static const char *const adapter_keys[] = {"method", "parameters", "bytes", NULL};
    static const char *const data_keys[] = {"rows", "tokens", "labelled_tokens", "max_length", "truncated", "task", NULL};
    int rc = TOOL_OK;
    char *text[4] = {NULL};
    READ_TEXT(text[0], peft_model_info_json, r->run->model);
    record_part(out, "model", r->args->model, text[0], model_keys);
    READ_TEXT(text[1], peft_adapters_info_json, r->run->adapters, r->adapter);
    record_part(out, "adapter", r->args->out, text[1], adapter_keys);
    READ_TEXT(text[2], peft_dataset_info_json, r->rows);
    record_part(out, "data", r->data, text[2], data_keys);
    if (r->held != NULL) {
        READ_TEXT(text[3], peft_dataset_info_json, r->held);
        record_part(out, "eval", r->eval, text[3], data_keys);
    }
out:
    for (size_t i = 0; i < 4; i++) { free(text[i]); }
    return rc;
}

/* Of settings of one key the last counts. */
static void record_given(const tool_args *args, tool_text *out) {
    record_key(out, "given");
    record_put(out, "{");
    for (size_t i = 0; i < args->setting_count; i++) {
        bool last = true;
        for (size_t j = i + 1; j < args->setting_count && last; j++) {
            last = strcmp(args->settings[i].key, args->settings[j].key) != 0;
        }
        if (last) { record_text(out, args->settings[i].key, args->settings[i].value); }
    }
    record_put(out, "}");
}

static int record_schemas(const tool_options *o, tool_text *out) {
    int rc = TOOL_OK;
    char *text = NULL;
    for (size_t i = 0; i < o->count; i++) {
        READ_TEXT(text, peft_options_get_json, o->options[i]);
        record_key(out, o->schema[i]);
        record_put(out, text);
        free(text);
        text = NULL;
    }
out:
    free(text);
    return rc;
}

static int record_settings(const run_record *r, tool_text *out) {
    int rc = TOOL_OK;
    record_key(out, "settings");
    record_put(out, "{");
    DO(record_schemas(&r->run->options, out));
    if (r->own != NULL) { DO(record_schemas(r->own, out)); }
    record_put(out, "}");
out:
    return rc;
}

/* Parameters and steps of one of several jobs are its own, memory is of all. */
static int record_plan(const run_record *r, tool_text *out) {
    static const char *const keys[] = {"base_bytes", "adapter_bytes", "gradient_bytes", "optimizer_bytes", "activation_bytes",
                                       "scratch_bytes", "flops_per_step", "max_rows", "max_tokens", "recomputed_segments", NULL};
    int rc = TOOL_OK;
    char *text = NULL;
    json_doc doc = {NULL, NULL};
    READ_TEXT(text, peft_trainer_plan_json, r->trainer);
    record_key(out, "plan");
    record_put(out, "{");
    if (json_parse(&doc, text, strlen(text))) {
        const json_value *jobs = json_get(&doc.values[0], "jobs"), *job = jobs != NULL ? jobs->first : NULL;
        for (size_t i = 0; i < r->job && job != NULL; i++) { job = job->next; }
        record_value(out, "trainable_parameters", json_get(job, "trainable_parameters"));
        record_value(out, "max_steps", json_get(job, "max_steps"));
        record_value(out, "planned_bytes", json_get(&doc.values[0], "peak_bytes"));
        for (size_t i = 0; keys[i] != NULL; i++) { record_value(out, keys[i], json_get(&doc.values[0], keys[i])); }
    }
    record_put(out, "}");
out:
    json_free(&doc);
    free(text);
    return rc;
}

int run_record_write(const run_record *r, tool_text *out) {
    int rc = TOOL_OK;
    record_put(out, "{");
    record_process(r, out);
    DO(record_parts(r, out));
    record_given(r->args, out);
    DO(record_settings(r, out));
    DO(record_plan(r, out));
    record_put(out, "}");
out:
    return rc;
}
