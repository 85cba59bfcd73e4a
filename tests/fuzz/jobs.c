/* jobs.c - fuzzes the file of `peft train --jobs`, as the tool reads it.
 *
 * The tool's sources are a part of this file, so that its messages go nowhere: thousands of them come in a second, and a
 * sanitizer's own must be seen. */
#include <stdio.h>

static FILE *jobs_sink;
#undef stderr
#define stderr jobs_sink

#include "../../examples/peft/jobs_file.c"
#include "../../examples/peft/minijson.c"
#include "../../examples/peft/tool.c"

#undef stderr

#include "fuzz.h"

/* What was read is whole: every text has an end, every entry a place. */
static size_t jobs_look(const jobs_entry *e) {
    const char *const all[] = {e->name, e->where, e->method, e->adapter, e->compose, e->data, e->eval, e->source};
    size_t n = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) { n += all[i] != NULL ? strlen(all[i]) : 0; }
    for (size_t i = 0; i < e->setting_count; i++) { n += strlen(e->settings[i].key) + strlen(e->settings[i].value); }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[FUZZ_PATH];
    jobs_file f;
    if (jobs_sink == NULL) { jobs_sink = fopen(fuzz_path("messages", path), "w+"); }
    fuzz_check(jobs_sink != NULL, "a file for messages");
    rewind(jobs_sink);
    fuzz_write("jobs.json", (fuzz_bytes){data, size});
    int rc = jobs_file_read(fuzz_path("jobs.json", path), &f);
    fuzz_check(rc == TOOL_OK || rc == TOOL_USAGE, "an exit code that tells of a file that is there");
    fuzz_check(rc != TOOL_OK || f.job_count > 0, "a file that is good has jobs");
    for (size_t i = 0; rc == TOOL_OK && i < f.job_count; i++) {
        fuzz_check(f.jobs[i].name != NULL && f.jobs[i].data != NULL && jobs_look(&f.jobs[i]) > 0, "a job has a name and data");
    }
    for (size_t i = 0; rc == TOOL_OK && i < f.adapter_count; i++) { fuzz_check(jobs_look(&f.adapters[i]) > 0, "an adapter has a name"); }
    jobs_file_free(&f);
    return 0;
}
