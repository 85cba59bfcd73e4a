/* progress.h - how a training run shows itself: on stderr for a person, in a JSON log for a script. */
#ifndef PROGRESS_H
#define PROGRESS_H

#include "peft.h"

#include <stdbool.h>
#include <stdio.h>

typedef struct progress {
    bool quiet, bar, colour, unicode; /* bar: stderr is a terminal that can redraw a line */
    bool drawn;                       /* an unfinished bar is on the line */
    double drawn_at;                  /* seconds of the run at the last line or redraw */
    const char *name;                 /* of one job of several: what its lines begin with; NULL: nothing */
    int name_width;                   /* columns for it */
} progress;

void progress_init(progress *p, bool quiet);
void progress_step(progress *p, const peft_step_info *info);
void progress_end(progress *p); /* takes the bar away, so that a message can follow */

/* Several jobs: a bar each, one below the other, or plain lines with names. */
typedef struct progress_jobs {
    progress *lines;      /* owned, one a job */
    peft_step_info *last; /* owned: of each job's last step; its job is not kept */
    bool *seen;           /* owned: it has made one */
    size_t count;
    bool drawn;           /* bars are on the screen, the cursor behind the last */
    double drawn_at;
} progress_jobs;

void progress_jobs_init(progress_jobs *p, bool quiet, size_t count);
void progress_jobs_name(progress_jobs *p, size_t i, const char *name); /* keeps the pointer */
void progress_jobs_step(progress_jobs *p, size_t i, const peft_step_info *info);
void progress_jobs_end(progress_jobs *p); /* takes the bars away, so that a message can follow */
void progress_jobs_free(progress_jobs *p);

/* One JSON object a step, and what is to be kept beside it. */
typedef struct step_log {
    const char *path; /* borrowed; NULL: no log */
    FILE *file;
    bool resume, started; /* resume: lines of the steps that are done again are dropped at the first line */
} step_log;

int step_log_open(step_log *l, const char *path, bool resume);   /* returns an exit code */
/* job NULL: the only one; run: what the run is (run_record.h), with a process' first line, or NULL. Returns an exit code. */
int step_log_write(step_log *l, const peft_step_info *info, const char *job, const char *run);
int step_log_record(step_log *l, int64_t step, const char *key, const char *json); /* {"step", KEY} after it; returns an exit code */
int step_log_close(step_log *l);                                 /* returns an exit code */

#endif
