/* run_record.h - what a training run is, as the log keeps it for those who read it later. */
#ifndef RUN_RECORD_H
#define RUN_RECORD_H

#include "tool.h"

typedef struct run_record {
    const tool_run *run;
    const tool_args *args;      /* settings: those of the command line and of a file of jobs */
    peft_trainer *trainer;
    const char *adapter;        /* its name in the set */
    const tool_options *own;    /* of the method, where they are not the run's; or NULL */
    const char *data, *eval;    /* paths; eval may be NULL */
    peft_dataset *rows, *held;  /* held: NULL without eval */
    size_t job;                 /* which of the trainer's */
} run_record;

/* Appends one JSON object: versions, model, adapter, data, settings, plan. Returns an exit code. */
int run_record_write(const run_record *r, tool_text *out);

#endif
