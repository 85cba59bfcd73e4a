/* tool.h - what every part of the command-line tool shares: exit codes, the error idiom, small formatting, the open
 * objects of a run, and the list of commands.
 *
 * The tool is written against the public header only, so that it doubles as the largest example of libpeft. Its one
 * idiom for errors: a function that can fail returns an exit code (0 is success) and has printed the reason already;
 * it keeps the code in `rc` and leaves through the label `out`, where everything that it holds is freed. */
#ifndef TOOL_H
#define TOOL_H

#include "args.h"
#include "peft.h"
#include "settings.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* ---- Exit codes and errors (tool.c) ------------------------------------------------------------------------------ */

enum { TOOL_OK = 0, TOOL_FAILED = 1, TOOL_USAGE = 2, TOOL_SIGNALLED = 128 /* plus the signal: 130 after Ctrl-C */ };

#if defined(__MINGW32__) && !defined(__clang__) /* its plain "printf" does not know %zu */
#define TOOL_PRINTF(at, first) __attribute__((__format__(__gnu_printf__, at, first)))
#elif defined(__GNUC__)
#define TOOL_PRINTF(at, first) __attribute__((__format__(__printf__, at, first)))
#else
#define TOOL_PRINTF(at, first)
#endif

/* A call of the library: prints the library's text and leaves. */
#define TRY(call)                                 \
    do {                                          \
        if ((rc = tool_check(call)) != TOOL_OK) { \
            goto out;                             \
        }                                         \
    } while (0)

/* A call of the tool, which has printed its reason already. */
#define DO(call)                      \
    do {                              \
        if ((rc = (call)) != TOOL_OK) { \
            goto out;                 \
        }                             \
    } while (0)

/* A library call that ends in (buf, cap, needed): asks for the size, then reads into memory that the caller frees. The
 * slack is for figures that may grow a digit between the two calls, such as resident memory. */
#define READ_TEXT(text, call, ...)                              \
    do {                                                        \
        size_t size_ = 0;                                       \
        peft_status asked_ = call(__VA_ARGS__, NULL, 0, &size_); \
        if (asked_ != PEFT_E_BUFFER) { TRY(asked_); }           \
        size_ += 64;                                            \
        (text) = tool_alloc(size_);                             \
        TRY(call(__VA_ARGS__, (text), size_, NULL));            \
    } while (0)

int tool_fail(const char *format, ...) TOOL_PRINTF(1, 2);  /* prints "peft: <text>" to stderr, returns TOOL_FAILED */
int tool_usage(const char *format, ...) TOOL_PRINTF(1, 2); /* the same, returns TOOL_USAGE */
void tool_note(const char *format, ...) TOOL_PRINTF(1, 2); /* the same for what is no error */
int tool_check(peft_status status);                        /* TOOL_OK, or prints peft_last_error() */

/* ---- Memory and text (tool.c) ------------------------------------------------------------------------------------ */

void *tool_alloc(size_t size);             /* zeroed; ends the tool with a message when there is no memory */
void *tool_resize(void *p, size_t size);   /* as realloc, with the same promise */
char *tool_copy(const char *text, size_t len);
char *tool_join(const char *a, const char *b, const char *c); /* a b c in one allocation */

/* Text that grows. An empty one is all zero; text is NULL until something is appended. */
typedef struct tool_text {
    char *text;      /* owned; NUL-terminated once it is not NULL */
    size_t len, cap; /* bytes without the NUL; bytes allocated */
} tool_text;
void tool_append(tool_text *t, const char *bytes, size_t len);
void tool_append_json(tool_text *t, const char *bytes, size_t len); /* as a JSON string with its quotes */
bool tool_read_line(FILE *file, tool_text *line); /* the next line with its end, in place of what it held; false at the end */

enum { TOOL_SHORT = 32 }; /* room that each of the three below needs */
const char *tool_bytes(double bytes, char out[TOOL_SHORT]);      /* "1.5 MiB" */
const char *tool_count(double count, char out[TOOL_SHORT]);      /* "134.5 M" */
const char *tool_duration(double seconds, char out[TOOL_SHORT]); /* "1:05", "2:00:01", "-" when unknown */

size_t tool_distance(const char *a, const char *b); /* edits from a to b, for "did you mean" */
int tool_make_folder(const char *path);             /* with its parents; an existing folder is fine */

/* ---- Interruption (interrupt.c) ----------------------------------------------------------------------------------- */

/* From now on the first SIGINT or SIGTERM cancels the trainer or session given here (the other is NULL); a second one
 * ends the process as usual. */
void interrupt_watch(peft_trainer *trainer, peft_session *session);
void interrupt_forget(void);   /* before the object is freed */
int interrupt_code(void);      /* 0, or the exit code for the signal that came */

/* ---- The objects of a run (run.c) --------------------------------------------------------------------------------- */

/* All may be NULL; run_close frees what is there. */
typedef struct tool_run {
    peft_context *ctx;
    tool_options options; /* of the schemas that the command takes */
    peft_model *model;
    peft_tokenizer *tokenizer; /* NULL: the model has none, rows must be input_ids */
    peft_adapters *adapters;
    peft_session *session;
} tool_run;

/* A context with the threads and instruction set of --threads, PEFT_THREADS and PEFT_ISA, and options of the schemas
 * (a NULL-terminated list) with every --set in them. Wrong settings end here, before a file is opened. */
int run_begin(tool_run *r, const tool_args *args, const char *const *schemas);
int run_open_model(tool_run *r, const tool_args *args);   /* model and, where there is none yet, tokenizer */
int run_open_tokenizer(tool_run *r, const tool_args *args);
int run_load_adapters(tool_run *r, const tool_args *args); /* the adapters of --adapter, into a set */
int run_open_set(tool_run *r, const tool_args *args);     /* the model, for the task of its adapters, and an empty set */
int run_open_session(tool_run *r, const tool_args *args); /* model and tokenizer, then the adapters if any, and a session */
char *run_expression(const tool_args *args); /* --compose, or the adapters' names; to be freed; NULL: no adapters */
int run_load_data(tool_run *r, const char *path, peft_dataset **out);
int run_check_method(const char *source, const char *method); /* there is such a method; source: "--method", for the message */
int run_init_adapter(tool_run *r, const char *name); /* a fresh one that starts from a text gets that */
void run_close(tool_run *r);

#define RUN_ADAPTER "default" /* the name that an adapter has inside the tool */

/* ---- What the model is asked for (task.c) ----------------------------------------------------------------------------- */

bool task_wants_labels(const tool_args *args);               /* a task, and no labels with it */
int task_from_data(tool_run *r, peft_dataset *const *data, size_t count); /* before the model is opened: the labels of all */
int task_from_adapter(tool_run *r, const tool_args *args);   /* the same; nothing without an adapter */
int task_from_path(tool_run *r, const tool_args *args, const char *path); /* as the adapter there says */

/* ---- Several adapters at a time (cmd_jobs.c) --------------------------------------------------------------------------- */

int jobs_train(const tool_args *args); /* train --jobs */
int jobs_plan(const tool_args *args);  /* plan --jobs */

/* ---- Commands ------------------------------------------------------------------------------------------------------ */

typedef struct tool_command {
    const char *name, *synopsis, *summary;
    const char *notes;    /* further help text, or NULL */
    const arg_spec *args; /* ends with a NULL name */
    int (*run)(const tool_args *args);
} tool_command;

extern const tool_command command_info, command_check, command_train, command_eval, command_generate, command_merge, command_combine,
    command_convert, command_plan, command_bench, command_options, command_report;

#endif
