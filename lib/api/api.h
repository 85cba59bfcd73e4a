/* api.h - layer 6: what the files of the public functions share: argument checks, options, texts for the caller.
 *
 * One file per public handle. A function checks its arguments, fills in default options, calls the layer below and copies
 * the result out; it has no logic of its own. Nobody includes this folder. */
#ifndef PEFT_API_SHARED_H
#define PEFT_API_SHARED_H

#include "infer/infer.h"
#include "peft/combine.h"
#include "train/train.h"

/* The inside of peft_options. */
struct peft_options {
    uint32_t magic;    /* PEFT__MAGIC_OPTIONS; poisoned on free */
    peft_context *ctx; /* retained */
    peft__optset set;
};
enum { PEFT__MAGIC_OPTIONS = 0x4f464550 };

/* ---- check.c ------------------------------------------------------------------------------------------------------------- */

/* The handle is there and of its kind; every handle begins with its magic. `name`: of the argument. */
peft_status peft__check_handle(const void *handle, uint32_t magic, const char *name);
peft_status peft__check_trainer(const struct peft_trainer *t); /* a trainer that is not running */
peft_status peft__check_arg(const void *p, const char *name);                /* not NULL */
peft_status peft__check_text(const char *text, const char *name);            /* not NULL, valid UTF-8 */
peft_status peft__check_bytes(const void *p, size_t len, const char *name);  /* NULL only with len 0 */
peft_status peft__check_buffer(const void *buf, size_t cap, size_t *needed); /* NULL only with cap 0; *needed = 0 */
/* A lookup by a wrong handle that has no status to say so. */
bool peft__is_handle(const void *handle, uint32_t magic);
/* Copies n elements of `size` bytes by the rule of the public header; needed and cap count elements. */
peft_status peft__copy_elements(const void *data, size_t n, size_t size, void *buf, size_t cap, size_t *needed);
/* Ends a function that builds a text: copies it out unless st is an error; frees it. */
peft_status peft__finish_text(peft_status st, peft__str *text, char *buf, size_t cap, size_t *needed);
/* The options to use: those of o, or all defaults in `own`, which the caller frees in any case (it may start zeroed). */
peft_status peft__pick_options(const peft_options *o, peft__mem *mem, const peft__schema *schema, peft__optset *own,
                               const peft__optset **out);

/* ---- schemas.c ------------------------------------------------------------------------------------------------------------- */

extern const peft__schema peft__schema_model, peft__schema_save, peft__schema_merge, peft__schema_load, peft__schema_check;
const peft__schema *peft__schema_at(size_t index);                            /* NULL past the end */
peft_status peft__schema_by_name(const char *name, const peft__schema **out); /* PEFT_E_KEY naming the nearest */
void peft__option_json(const peft__option *opt, const peft__opt_value *v,
                       peft__json_out *j);                           /* a value in its own type */
peft_status peft__dtype_option(const peft__optset *o, int32_t *out); /* "dtype": PEFT_DTYPE_*, -1 for "" */

/* ---- adapters.c, merge.c ------------------------------------------------------------------------------------------------------ */

/* Initial values that need the base's keys and values: those that it computes for random tokens. */
peft_status peft__adapters_start(const peft_adapters *a, peft__adapter *x);
/* An adapter of a file or folder, for the set, which does not have it yet. */
peft_status peft__adapters_read(const peft_adapters *a, const char *name, const char *path, bool allow_nan, peft__adapter **out);
/* What adapters know of their base. Borrowed from the model. */
peft__base_info peft__base_of_model(struct peft_model *m);
/* Writes the model that the adapters make of their base. to_gguf: else a Hugging Face folder. */
peft_status peft__merge_write(struct peft_model *m, const peft__expression *e, int32_t dtype, bool to_gguf, const char *path);

const char *peft__status_name(peft_status status); /* library.c: what peft_status_name says */
/* session.c: is it one, and not running? */
peft_status peft__session_check(const peft_session *s);
/* A prompt's ids: what its text says, after the BOS that the tokenizer adds unless the text has it already. No EOS: the
 * text goes on. An empty prompt is BOS alone, where there is one. What an encoder reads is a text of its own, and has both. */
peft_status peft__session_encode(const peft_session *s, const peft__tokenizer *t, const char *prompt, size_t len, peft__vec *out);

#endif
