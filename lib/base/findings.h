/* findings.h - layer 0: what a check found: errors and warnings, each with the file and the place in it.
 *
 * A check goes on after the first error. It says what it found here, and returns an error of its own only where it could not look:
 * no memory, a file that cannot be read. At most `most` of each kind are kept; all are counted. */
#ifndef PEFT_FINDINGS_H
#define PEFT_FINDINGS_H

#include "base/base.h"

typedef struct peft__finding {
    peft_status code;          /* what an open would have failed with */
    const char *file;          /* its path; in the arena */
    const char *where;         /* "tensor \"a.weight\"", "line 3", "key \"vocab_size\"", "token 7"; "" the file as a whole */
    const char *message;       /* what is wrong, and what was expected */
} peft__finding;

typedef struct peft__findings {
    peft__arena arena;         /* owns the texts */
    peft__vec errors, warnings; /* of peft__finding */
    int64_t n_errors, n_warnings; /* also of those that are not kept */
    int64_t most;              /* that are kept of each */
    peft_status st;            /* PEFT_E_NOMEM sticks */
} peft__findings;

void peft__findings_init(peft__findings *f, peft__mem *mem, int64_t most);
void peft__findings_free(peft__findings *f);
/* where "": the file as a whole. */
void peft__finding_error(peft__findings *f, peft_status code, const char *file, const char *where, const char *fmt, ...)
    PEFT__PRINTF(5, 6);
void peft__finding_warn(peft__findings *f, const char *file, const char *where, const char *fmt, ...) PEFT__PRINTF(4, 5);
/* A call failed with st: its text becomes an error of the file, and the place is taken from the text if where is "". Returns
 * PEFT_OK, or st where it says nothing of the file: no memory. */
peft_status peft__finding_failed(peft__findings *f, peft_status st, const char *file, const char *where);

#endif
