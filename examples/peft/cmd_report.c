/* cmd_report.c - `peft report`: a page about runs, made from their logs, or their curves in the terminal; and what `peft train --report`
 * has of it. */
#include "plot.h"
#include "report.h"
#include "system.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Can the page be written? Asked before hours of training. What is there stays, and what is not is not left behind. */
static int report_try(const char *path) {
    bool there = system_exists(path);
    FILE *file = system_open(path, "a");
    if (file == NULL) { return tool_fail("cannot write the page %s: %s", path, strerror(errno)); }
    (void)fclose(file);
    if (!there) { system_remove_file(path); }
    return TOOL_OK;
}

int report_begin(const tool_args *args, char **log) {
    int rc = TOOL_OK;
    if (args->samples.count > 0 && args->report == NULL && args->json_log == NULL) {
        return tool_usage("--sample-prompt needs --report FILE or --json-log FILE, where the samples go");
    }
    if (args->json_log != NULL) {
        *log = tool_copy(args->json_log, strlen(args->json_log));
    } else if (args->report != NULL) {
        *log = tool_join(args->out, "/", "log.jsonl");
    }
    if (args->report != NULL) { rc = report_try(args->report); }
    return rc;
}

int report_end(const tool_args *args, const char *log) {
    if (args->report == NULL || log == NULL) { return TOOL_OK; }
    int rc = report_make(&log, 1, args->report);
    if (rc == TOOL_OK && !args->quiet) { (void)fprintf(stderr, "report in %s\n", args->report); }
    return rc;
}

static int report_plot(const tool_args *args) {
    int rc = TOOL_OK;
    report_logs logs = {NULL, 0};
    plot *p = tool_alloc(sizeof *p);
    for (size_t i = 0; i < args->paths.count; i++) { DO(report_read(&logs, args->paths.text[i])); }
    report_name(&logs);
    for (size_t i = 0; i < logs.count; i++) {
        memset(p, 0, sizeof *p);
        for (size_t k = 0; k < logs.runs[i].count; k++) {
            const double *row = logs.runs[i].steps[k];
            plot_add(p, (int64_t)row[REPORT_STEP], row[REPORT_LOSS], row[REPORT_EVAL]);
        }
        plot_print(p, stdout, logs.count > 1 ? logs.runs[i].name : NULL, system_columns(), system_is_utf8(), false);
    }
out:
    free(p);
    report_free(&logs);
    return rc;
}

static int report_main(const tool_args *args) {
    int rc = TOOL_OK;
    if (args->out == NULL && !args->plot) { return tool_usage("report needs --out FILE, or --plot; see 'peft report --help'"); }
    for (size_t i = 0; i < args->paths.count && args->out != NULL; i++) {
        if (strcmp(args->out, args->paths.text[i]) == 0) { return tool_usage("--out %s is one of the logs", args->out); }
    }
    if (args->plot) { DO(report_plot(args)); }
    if (args->out != NULL) { DO(report_make(args->paths.text, args->paths.count, args->out)); }
out:
    return rc;
}

static const arg_spec report_args[] = {
    ARG_ROW_PATHS("LOG", paths, "log of 'peft train --json-log'; several are shown side by side"),
    ARG_ROW_TEXT("--out", "FILE", out, false, "write the page, HTML"),
    ARG_ROW_FLAG("--plot", plot, "show the curves of losses in the terminal"),
    ARG_ROW_HELP,
    ARG_ROW_END,
};

const tool_command command_report = {
    "report", "LOG... --out FILE", "a page about training runs, made from their logs",
    "The page is one file that needs no other. Example: peft report a.jsonl b.jsonl --out runs.html",
    report_args, report_main};
