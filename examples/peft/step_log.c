/* step_log.c - the file of --json-log: one JSON object a line and step, flushed at once, so that another program can follow the run.
 *
 * The first line of a process also says what the run is ("run": run_record.c). With --sample-prompt and --report there are lines that
 * have "samples" or "gradients" (probe.c) in place of a step's figures. A resumed run continues the file: the lines of steps that it does
 * again are dropped first, so that the figures are what an uninterrupted run would have written. */
#include "minijson.h"
#include "progress.h"
#include "system.h"
#include "tool.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int step_log_open(step_log *l, const char *path, bool resume) {
    *l = (step_log){.path = path, .resume = resume};
    if (path == NULL) { return TOOL_OK; }
    l->file = system_open(path, resume ? "a+" : "w");
    return l->file != NULL ? TOOL_OK : tool_fail("cannot write the log %s: %s", path, strerror(errno));
}

/* Is this a whole line of a step before `step`? A line that a killed process left half written is none. */
static bool step_log_keeps(const char *line, size_t len, int64_t step) {
    json_doc doc;
    if (len == 0 || line[len - 1] != '\n' || !json_parse(&doc, line, len)) { return false; }
    const json_value *v = json_get(&doc.values[0], "step");
    bool keeps = v != NULL && v->kind == JSON_NUMBER && v->number < (double)step;
    json_free(&doc);
    return keeps;
}

/* Steps only grow, so what stays is the head of the file. */
static int step_log_cut(step_log *l, int64_t step) {
    tool_text line = {0};
    int64_t keep = 0;
    rewind(l->file);
    while (tool_read_line(l->file, &line) && step_log_keeps(line.text, line.len, step)) { keep += (int64_t)line.len; }
    free(line.text);
    if (!system_cut(l->file, keep)) {
        return tool_fail("cannot shorten the log %s: %s", l->path, strerror(errno));
    }
    return TOOL_OK;
}

/* JSON has no NaN and no infinity; they become null. */
static void step_log_float(FILE *file, const char *key, double value) {
    if (isfinite(value)) {
        (void)fprintf(file, ", \"%s\": %.9g", key, value);
    } else {
        (void)fprintf(file, ", \"%s\": null", key);
    }
}

static void step_log_job(FILE *file, const char *job) {
    tool_text name = {NULL, 0, 0};
    tool_append_json(&name, job, strlen(job));
    (void)fprintf(file, ", \"job\": %s", name.text);
    free(name.text);
}

static int step_log_begin(step_log *l, int64_t cut, int64_t step) {
    int rc = TOOL_OK;
    if (l->resume && !l->started) { DO(step_log_cut(l, cut)); }
    l->started = true;
    (void)fprintf(l->file, "{\"step\": %lld", (long long)step);
out:
    return rc;
}

static int step_log_end(step_log *l) {
    (void)fputs("}\n", l->file);
    if (fflush(l->file) != 0 || ferror(l->file)) { return tool_fail("cannot write the log %s: %s", l->path, strerror(errno)); }
    return TOOL_OK;
}

int step_log_record(step_log *l, int64_t step, const char *key, const char *json) {
    int rc = TOOL_OK;
    if (l->file == NULL) { return TOOL_OK; }
    DO(step_log_begin(l, step + 1, step));
    (void)fprintf(l->file, ", \"%s\": %s", key, json);
    DO(step_log_end(l));
out:
    return rc;
}

int step_log_write(step_log *l, const peft_step_info *info, const char *job, const char *run) {
    int rc = TOOL_OK;
    if (l->file == NULL) { return TOOL_OK; }
    DO(step_log_begin(l, info->step, info->step));
    if (job != NULL) { step_log_job(l->file, job); }
    if (run != NULL) { (void)fprintf(l->file, ", \"run\": %s", run); }
    step_log_float(l->file, "loss", info->loss);
    step_log_float(l->file, "learning_rate", info->learning_rate);
    step_log_float(l->file, "grad_norm", info->grad_norm);
    (void)fprintf(l->file, ", \"tokens\": %lld", (long long)info->tokens);
    step_log_float(l->file, "tokens_per_second", info->tokens_per_second);
    (void)fprintf(l->file, ", \"peak_bytes\": %zu", info->peak_bytes);
    if (!isnan(info->eval_loss)) { step_log_float(l->file, "eval_loss", info->eval_loss); }
    DO(step_log_end(l));
out:
    return rc;
}

int step_log_close(step_log *l) {
    int rc = TOOL_OK;
    if (l->file != NULL && fclose(l->file) != 0) {
        rc = tool_fail("cannot write the log %s: %s", l->path, strerror(errno));
    }
    l->file = NULL;
    return rc;
}
