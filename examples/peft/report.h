/* report.h - a page about training runs, made from their logs. */
#ifndef REPORT_H
#define REPORT_H

#include "minijson.h"
#include "tool.h"

enum { REPORT_RUNS = 32 }; /* on one page */

/* What a line of a log has of a step; NaN where it has not. */
typedef enum report_column {
    REPORT_STEP,
    REPORT_LOSS,
    REPORT_EVAL,
    REPORT_RATE,
    REPORT_NORM,
    REPORT_TOKENS,
    REPORT_SPEED,
    REPORT_PEAK,
    REPORT_COLUMNS
} report_column;

/* A line that stands beside the steps: {"step", "samples": [...]} or {"step", "gradients": {...}}. */
typedef struct report_record {
    double step;
    json_doc doc; /* owned */
} report_record;

typedef struct report_run {
    char *file, *job, *name;             /* owned: as given; of a log of several, or NULL; what the page calls it */
    double (*steps)[REPORT_COLUMNS];     /* owned, [count], by rising step */
    size_t count, cap;
    report_record *samples, *gradients;  /* owned, by rising step */
    size_t sample_count, gradient_count;
    json_doc about;                      /* owned: the last line with "run" */
    const json_value *head;              /* its object "run"; NULL: an old log */
    int processes;                       /* lines with "run": how often the run was begun or gone on with */
    bool cut;                            /* the file's last line is half a one */
    bool again;                          /* steps were there twice; the later ones stand */
} report_run;

typedef struct report_logs {
    report_run *runs; /* owned */
    size_t count;
} report_logs;

/* ---- Logs (report_log.c) ---------------------------------------------------------------------------------------------- */

int report_read(report_logs *l, const char *path); /* appends the runs of a file; returns an exit code */
void report_name(report_logs *l);                  /* once all are read: names that tell them apart */
void report_free(report_logs *l);
const json_value *report_about(const report_run *r, const char *part, const char *key); /* of "run"; NULL: not there */
double report_number(const report_run *r, const char *part, const char *key);           /* NaN: not there */
double report_last(const report_run *r, report_column c);                               /* the last that is finite, or NaN */
double report_least(const report_run *r, report_column c, double *step);                /* the least, and where; NaN: none */
double report_most(const report_run *r, report_column c);
double report_seconds(const report_run *r);                                             /* of all steps; NaN: unknown */
double report_speed(const report_run *r);                                               /* tokens a second over all; NaN */

/* ---- Text of the page (report_text.c) ---------------------------------------------------------------------------------- */

void report_put(tool_text *page, const char *format, ...) TOOL_PRINTF(2, 3); /* as it is: no text of others may be in it */
void report_put_cut(tool_text *page, const char *text, size_t len, size_t most); /* escaped for HTML, cut after `most` bytes */
void report_put_name(tool_text *page, const char *text);              /* the same, after REPORT_NAME */
void report_put_end(tool_text *page, size_t begin, size_t empty, const char *end); /* what began at `begin` ends; if the page has not
                                                                         grown since it was `empty` long, it is taken back */
void report_put_json(tool_text *page, const char *text);              /* a JSON string that may stand in a <script> */
const char *report_figure(double value, int digits, char out[TOOL_SHORT]); /* so many significant ones; "\u2013" for NaN */

enum { REPORT_NAME = 60 };

/* ---- Charts (report_svg.c, report_axis.c, report_memory.c) ------------------------------------------------------------ */

typedef struct report_chart {
    const char *id, *title, *unit;     /* title and unit: of the values */
    report_column column, dots;        /* curve; values with a mark each, or REPORT_COLUMNS for none */
    const char *dots_name;
    bool wide, from_zero, may_be_log, smooth;
    bool whole;                        /* values are shown as whole numbers */
} report_chart;

/* The figure with its hover values and its table of data; nothing where no run has such values. */
void report_put_chart(tool_text *page, const report_logs *l, const report_chart *c);
void report_put_memory(tool_text *page, const report_logs *l);

typedef struct report_axis {
    double from, to;   /* values at the two ends */
    bool log;
    double ticks[12];
    int count;
} report_axis;

void report_axis_linear(report_axis *a, double least, double most, int about, bool round); /* round: ends are ticks */
void report_axis_log(report_axis *a, double least, double most);
double report_axis_at(const report_axis *a, double value); /* 0 to 1 */
void report_axis_label(const report_axis *a, int tick, char out[TOOL_SHORT]);

/* ---- Page (report.c, report_parts.c, report_style.c) ------------------------------------------------------------------- */

void report_put_runs(tool_text *page, const report_logs *l);      /* the table of runs */
void report_put_gradients(tool_text *page, const report_logs *l);
void report_put_samples(tool_text *page, const report_logs *l);
void report_put_settings(tool_text *page, const report_logs *l);
void report_put_run(tool_text *page, const report_run *r, size_t index); /* its colour, as in the charts, and its name */
extern const char *const report_style[], *const report_script[];  /* lines; NULL-terminated */
extern const char report_script_hash[];                           /* SHA-256 of the script, base64 */

int report_make(const char *const *paths, size_t count, const char *out); /* reads logs, writes the page; returns an exit code */

/* ---- Of a run of `peft train` (cmd_report.c) ----------------------------------------------------------------------------- */

/* Before the run: *log becomes the path of its log (owned; NULL: none). Wrong use, and a page that cannot be written, end here. */
int report_begin(const tool_args *args, char **log);
int report_end(const tool_args *args, const char *log); /* writes the page, where one is wanted; returns an exit code */

#endif
