/* report_log.c - reads logs of `peft train --json-log` (docs/tool.md#keys-of-the-log): a line is a JSON object with "step" and what is
 * known of it. Lines with "job" are of so many runs. Unknown keys and lines with nothing but unknown keys are passed over, so that
 * logs of other versions can be read; a last line that is half written is passed over and noted. Where a step comes again, as in a
 * file that two runs wrote to, what was there from it on is dropped. */
#include "report.h"

#include "system.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LOG_LINE = 8 << 20 /* bytes that no line of a log has */ };

static const char *const log_keys[REPORT_COLUMNS] = {"step",      "loss",   "eval_loss",         "learning_rate",
                                                     "grad_norm", "tokens", "tokens_per_second", "peak_bytes"};

/* The next line, with its end; false at the file's end, and at a line that is too long (*len is then LOG_LINE). */
static bool log_line(FILE *file, tool_text *line) {
    line->len = 0;
    for (int c; line->len < LOG_LINE && (c = getc(file)) != EOF;) {
        char byte = (char)c;
        tool_append(line, &byte, 1);
        if (c == '\n') { break; }
    }
    return line->len > 0 && line->len < LOG_LINE;
}

static report_run *log_run(report_logs *l, const char *path, const json_value *job, size_t first) {
    const char *name = job != NULL && job->kind == JSON_STRING ? job->text : NULL;
    for (size_t i = first; i < l->count; i++) {
        report_run *r = &l->runs[i];
        if (name == NULL ? r->job == NULL : r->job != NULL && strcmp(r->job, name) == 0) { return r; }
    }
    l->runs = tool_resize(l->runs, (l->count + 1) * sizeof *l->runs);
    report_run *r = &l->runs[l->count++];
    *r = (report_run){.file = tool_copy(path, strlen(path)), .job = name != NULL ? tool_copy(name, strlen(name)) : NULL};
    return r;
}

static void log_add_step(report_run *r, const json_value *line) {
    if (r->count == r->cap) {
        r->cap = 2 * r->cap + 64;
        r->steps = tool_resize(r->steps, r->cap * sizeof *r->steps);
    }
    double *row = r->steps[r->count];
    for (size_t c = 0; c < REPORT_COLUMNS; c++) {
        const json_value *v = json_get(line, log_keys[c]);
        row[c] = v != NULL && v->kind == JSON_NUMBER && isfinite(v->number) ? v->number : (double)NAN;
    }
    r->count++;
}

static void log_drop_from(report_run *r, double step) {
    while (r->count > 0 && r->steps[r->count - 1][REPORT_STEP] >= step) {
        r->count--;
        r->again = true;
    }
    while (r->sample_count > 0 && r->samples[r->sample_count - 1].step >= step) { json_free(&r->samples[--r->sample_count].doc); }
    while (r->gradient_count > 0 && r->gradients[r->gradient_count - 1].step >= step) {
        json_free(&r->gradients[--r->gradient_count].doc);
    }
}

static void log_add_record(report_record **list, size_t *count, double step, json_doc *doc) {
    while (*count > 0 && (*list)[*count - 1].step >= step) { json_free(&(*list)[--*count].doc); }
    *list = tool_resize(*list, (*count + 1) * sizeof **list);
    (*list)[(*count)++] = (report_record){step, *doc};
    *doc = (json_doc){NULL, NULL};
}

/* Takes a line of the file's; *doc is taken over where it is kept. */
static void log_take(report_run *r, double step, json_doc *doc) {
    const json_value *line = &doc->values[0], *head = json_get(line, "run");
    const json_value *samples = json_get(line, "samples"), *gradients = json_get(line, "gradients");
    if (json_get(line, "loss") != NULL) {
        log_drop_from(r, step);
        log_add_step(r, line);
    }
    if (samples != NULL && samples->kind == JSON_ARRAY) {
        log_add_record(&r->samples, &r->sample_count, step, doc);
    } else if (gradients != NULL && gradients->kind == JSON_OBJECT) {
        log_add_record(&r->gradients, &r->gradient_count, step, doc);
    } else if (head != NULL && head->kind == JSON_OBJECT) {
        json_free(&r->about);
        r->about = *doc;
        r->head = head;
        r->processes++;
        *doc = (json_doc){NULL, NULL};
    }
}

static int log_refuse(const char *path, size_t number, const char *why) {
    return tool_fail("%s line %zu %s: this is no log of a run; give the file that 'peft train --json-log FILE' wrote", path, number, why);
}

static int log_read_lines(report_logs *l, const char *path, FILE *file, size_t first) {
    int rc = TOOL_OK;
    tool_text line = {0};
    json_doc doc = {NULL, NULL};
    size_t number = 0, taken = 0;
    bool cut = false;
    while (log_line(file, &line)) {
        number++;
        if (strspn(line.text, " \t\r\n") == line.len) { continue; }
        if (!json_parse(&doc, line.text, line.len)) {
            cut = line.text[0] == '{' && line.text[line.len - 1] != '\n' && getc(file) == EOF;
            if (!cut) { DO(log_refuse(path, number, "is no JSON")); }
            break;
        }
        const json_value *step = json_get(&doc.values[0], "step");
        if (step == NULL || step->kind != JSON_NUMBER || !(step->number >= 0.0 && step->number < 1e15)) {
            DO(log_refuse(path, number, "has no \"step\""));
        }
        report_run *r = log_run(l, path, json_get(&doc.values[0], "job"), first);
        log_take(r, step->number, &doc);
        json_free(&doc);
        if (l->count > REPORT_RUNS) {
            DO(tool_fail("there are more than %d runs, the most of a page: give fewer logs", REPORT_RUNS));
        }
        taken++;
    }
    if (line.len >= LOG_LINE) { DO(log_refuse(path, number + 1, "does not end")); }
    if (ferror(file)) { DO(tool_fail("cannot read %s: %s", path, strerror(errno))); }
    if (taken == 0 && cut) { DO(tool_fail("%s ends within its first line: let the run make a step, then ask again", path)); }
    if (number == 0) { DO(tool_fail("%s is empty: a log has a line once 'peft train --json-log' has made its first step", path)); }
    for (size_t i = first; i < l->count; i++) { l->runs[i].cut = cut; }
out:
    json_free(&doc);
    free(line.text);
    return rc;
}

int report_read(report_logs *l, const char *path) {
    size_t first = l->count, kept = first, steps = 0;
    if (system_is_folder(path)) { return tool_fail("%s is a folder: give the file that 'peft train --json-log FILE' wrote", path); }
    FILE *file = system_open(path, "r");
    if (file == NULL) { return tool_fail("cannot read %s: %s", path, strerror(errno)); }
    int rc = log_read_lines(l, path, file, first);
    (void)fclose(file);
    for (size_t i = first; i < l->count; i++) { steps += l->runs[i].count; }
    if (rc == TOOL_OK && steps == 0) {
        rc = tool_fail("%s has no step with a loss: let the run make one, then ask again", path);
    }
    for (size_t i = first; i < l->count && rc == TOOL_OK; i++) { /* what has samples alone is no run */
        if (l->runs[i].count > 0) {
            report_run whole = l->runs[i];
            l->runs[i] = l->runs[kept];
            l->runs[kept++] = whole;
        }
    }
    if (rc == TOOL_OK && kept < l->count) { /* samples and gradients of a lone run have no "job": they are its */
        report_logs rest = {tool_alloc((l->count - kept) * sizeof *l->runs), l->count - kept};
        memcpy(rest.runs, l->runs + kept, rest.count * sizeof *rest.runs);
        l->count = kept;
        report_free(&rest);
    }
    return rc;
}

void report_free(report_logs *l) {
    for (size_t i = 0; i < l->count; i++) {
        report_run *r = &l->runs[i];
        for (size_t k = 0; k < r->sample_count; k++) { json_free(&r->samples[k].doc); }
        for (size_t k = 0; k < r->gradient_count; k++) { json_free(&r->gradients[k].doc); }
        json_free(&r->about);
        free(r->samples);
        free(r->gradients);
        free(r->steps);
        free(r->file);
        free(r->job);
        free(r->name);
    }
    free(l->runs);
    *l = (report_logs){NULL, 0};
}

/* "a/run.jsonl": "run". */
static char *log_stem(const char *path) {
    static const char *const ends[] = {".jsonl", ".json", ".log"};
    const char *start = path;
    for (const char *c = path; *c != '\0'; c++) {
        if (system_is_separator(*c) && c[1] != '\0') { start = c + 1; }
    }
    size_t len = strlen(start);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t n = strlen(ends[i]);
        if (len > n && strcmp(start + len - n, ends[i]) == 0) { return tool_copy(start, len - n); }
    }
    return tool_copy(start, len);
}

/* Long names differ at their ends more often than not: the middle is left out. */
static void log_shorten(char *name) {
    enum { HEAD = 24, TAIL = 20 };
    size_t len = strlen(name), head = HEAD, tail = len > TAIL ? len - TAIL : 0;
    if (len <= HEAD + TAIL + 3) { return; }
    while (head > 0 && ((unsigned char)name[head] & 0xc0) == 0x80) { head--; /* not inside of a character */ }
    while (((unsigned char)name[tail] & 0xc0) == 0x80) { tail++; }
    memmove(name + head + 3, name + tail, len - tail + 1);
    memcpy(name + head, "\u2026", 3);
}

/* Of a job its name, with the file's where there are several; of a file its own, or the whole path where two have it. */
void report_name(report_logs *l) {
    bool files = false;
    for (size_t i = 0; i < l->count; i++) {
        files = files || strcmp(l->runs[i].file, l->runs[0].file) != 0;
        l->runs[i].name = log_stem(l->runs[i].file);
    }
    bool *twice = tool_alloc(l->count * sizeof *twice);
    for (size_t i = 0; i < l->count; i++) {
        for (size_t k = 0; k < l->count; k++) {
            twice[i] = twice[i] || (strcmp(l->runs[i].file, l->runs[k].file) != 0 && strcmp(l->runs[i].name, l->runs[k].name) == 0);
        }
    }
    for (size_t i = 0; i < l->count; i++) {
        report_run *r = &l->runs[i];
        char *base = twice[i] ? tool_copy(r->file, strlen(r->file)) : tool_copy(r->name, strlen(r->name));
        free(r->name);
        r->name = r->job == NULL ? tool_copy(base, strlen(base))
                  : files        ? tool_join(base, " / ", r->job)
                                 : tool_copy(r->job, strlen(r->job));
        log_shorten(r->name);
        free(base);
    }
    free(twice);
}

/* ---- Figures --------------------------------------------------------------------------------------------------------------- */

const json_value *report_about(const report_run *r, const char *part, const char *key) {
    const json_value *object = r->head != NULL && part != NULL ? json_get(r->head, part) : r->head;
    return object != NULL ? json_get(object, key) : NULL;
}

double report_number(const report_run *r, const char *part, const char *key) {
    const json_value *v = report_about(r, part, key);
    return v != NULL && v->kind == JSON_NUMBER && isfinite(v->number) ? v->number : (double)NAN;
}

double report_last(const report_run *r, report_column c) {
    for (size_t i = r->count; i > 0; i--) {
        if (isfinite(r->steps[i - 1][c])) { return r->steps[i - 1][c]; }
    }
    return (double)NAN;
}

double report_least(const report_run *r, report_column c, double *step) {
    double least = (double)NAN;
    for (size_t i = 0; i < r->count; i++) {
        if (isfinite(r->steps[i][c]) && !(r->steps[i][c] >= least)) {
            least = r->steps[i][c];
            *step = r->steps[i][REPORT_STEP];
        }
    }
    return least;
}

double report_most(const report_run *r, report_column c) {
    double most = (double)NAN;
    for (size_t i = 0; i < r->count; i++) {
        if (isfinite(r->steps[i][c]) && !(r->steps[i][c] <= most)) { most = r->steps[i][c]; }
    }
    return most;
}

double report_seconds(const report_run *r) {
    double sum = 0.0;
    for (size_t i = 0; i < r->count; i++) {
        double seconds = r->steps[i][REPORT_TOKENS] / r->steps[i][REPORT_SPEED];
        if (isfinite(seconds)) { sum += seconds; }
    }
    return sum > 0.0 ? sum : (double)NAN;
}

double report_speed(const report_run *r) {
    double tokens = 0.0;
    for (size_t i = 0; i < r->count; i++) {
        if (isfinite(r->steps[i][REPORT_TOKENS] / r->steps[i][REPORT_SPEED])) { tokens += r->steps[i][REPORT_TOKENS]; }
    }
    return tokens / report_seconds(r);
}
