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
} progress;

void progress_init(progress *p, bool quiet);
void progress_step(progress *p, const peft_step_info *info);
void progress_end(progress *p); /* takes the bar away, so that a message can follow */

/* One JSON object a step. */
typedef struct step_log {
    const char *path; /* borrowed; NULL: no log */
    FILE *file;
    bool resume, started; /* resume: lines of the steps that are done again are dropped at the first step */
} step_log;

int step_log_open(step_log *l, const char *path, bool resume);   /* returns an exit code */
int step_log_write(step_log *l, const peft_step_info *info);     /* returns an exit code */
int step_log_close(step_log *l);                                 /* returns an exit code */

#endif
