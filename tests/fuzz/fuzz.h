/* fuzz.h - what the fuzz targets of this folder share: parts of an input, files in a folder of the process's own, a context with
 * little memory, a tiny model, and what must hold after every call.
 *
 * A target is a file with LLVMFuzzerTestOneInput, for libFuzzer (`make fuzz`) and for replay.c (`make check`), which calls all of
 * them over the files of corpus/. What must hold and does not ends the process: that is how libFuzzer keeps an input.
 * Left out: inputs of several processes at once in one folder, for which there is a folder a process. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "peft.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- the input ------------------------------------------------------------------------------------------------- */

typedef struct fuzz_bytes { /* what is left of an input, or a part of it; borrowed */
    const uint8_t *data;
    size_t size;
} fuzz_bytes;

uint8_t fuzz_byte(fuzz_bytes *in);      /* the next one; 0 at the end */
fuzz_bytes fuzz_section(fuzz_bytes *in); /* up to a line "%%", which goes too, or to the end */
char *fuzz_text(fuzz_bytes b);          /* a copy up to the first NUL, from malloc with no byte to spare */

/* ---- files ----------------------------------------------------------------------------------------------------- */

enum { FUZZ_PATH = 512 };
/* A path in the process's own folder, which goes when it ends in peace; "" for the folder. */
const char *fuzz_path(const char *name, char out[FUZZ_PATH]);
void fuzz_folder(const char *name);               /* an existing one is fine */
void fuzz_write(const char *name, fuzz_bytes content);
void fuzz_write_text(const char *name, const char *text);
void fuzz_clear(void); /* removes all that an input before this one left there */

/* ---- the library ------------------------------------------------------------------------------------------------- */

/* A context of one thread, with the generic kernels, that has `limit` bytes; new memory holds NaN. From now on saves do not wait for the
 * disk. */
peft_context *fuzz_context(size_t limit);
void fuzz_context_end(peft_context *ctx); /* frees it; all that was made with it must be gone */
void fuzz_check(bool holds, const char *what);
/* A status that there is, other than PEFT_E_INTERNAL, with a text where it is an error; returns it. */
peft_status fuzz_status(peft_status st);
/* The same of a call that must be good: of the target's own set-up. */
void fuzz_good(peft_status st);

extern const char fuzz_llama[], fuzz_gpt2[]; /* configs of the smallest models that take every method, of 14 tokens */
peft_model *fuzz_model(peft_context *ctx, const char *config);
/* Options of a schema from JSON with ' for "; NULL where they are refused. */
peft_options *fuzz_options(peft_context *ctx, const char *schema, const char *json);
peft_tokenizer *fuzz_tokenizer(peft_context *ctx); /* for them: the unit tests' TEXT_BYTES */

/* A text by the buffer rule, in a static buffer; too long or an error: its beginning, or "". */
#define FUZZ_JSON(call, ...)                                                                       \
    do {                                                                                           \
        static char room_[1 << 16];                                                                \
        size_t needed_ = 0;                                                                        \
        peft_status st_ = fuzz_status(call(__VA_ARGS__, room_, sizeof room_, &needed_));           \
        fuzz_check(st_ != PEFT_E_BUFFER || needed_ > sizeof room_, "PEFT_E_BUFFER with room enough"); \
        fuzz_check(st_ != PEFT_OK || (needed_ <= sizeof room_ && needed_ > 0), "needed");            \
    } while (0)

#endif
