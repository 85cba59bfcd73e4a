/* jobs_file.h - the file of `peft train --jobs`, read and checked. */
#ifndef JOBS_FILE_H
#define JOBS_FILE_H

#include "args.h"
#include "minijson.h"

/* A job, or an adapter that jobs share. Absent text is NULL; all of it belongs to the file. */
typedef struct jobs_entry {
    const char *name;      /* of the adapter, and of its folder */
    const char *where;     /* "jobs.json:3", where the entry begins, for messages */
    const char *method;    /* not with `adapter` */
    const char *adapter;   /* folder of an adapter to go on with */
    const char *compose;   /* expression over names; of a job only, as are the next two */
    const char *data, *eval;
    const char *source;    /* "jobs.json:4: method" where there is a method, else as `where` */
    tool_setting *settings; /* owned: of "options", and "share"; `option` is "jobs.json:5: r" */
    size_t setting_count;
} jobs_entry;

typedef struct jobs_file {
    const char *path; /* borrowed */
    json_doc doc;
    jobs_entry *jobs, *adapters; /* owned */
    size_t job_count, adapter_count;
    tool_setting *settings;      /* owned: of the file's own "options" */
    size_t setting_count;
    char **texts;                /* owned: what is not in doc */
    size_t text_count;
} jobs_file;

/* Returns an exit code: TOOL_FAILED for a file that cannot be read, TOOL_USAGE for one that says what it may not, with its line.
 * jobs_file_free is due in any case. */
int jobs_file_read(const char *path, jobs_file *out);
void jobs_file_free(jobs_file *f);

#endif
