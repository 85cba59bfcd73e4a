/* reader.h - between format_hf_read.c, which reads an adapter's folder, and format_hf_base.c, which knows what PEFT saves of the
 * base. */
#ifndef PEFT_READER_H
#define PEFT_READER_H

#include "peft/method.h"

bool peft__reader_plain(const peft__io_tensor *t); /* F32, F16 or BF16 */
float peft__reader_element(const peft__io_tensor *t, size_t i);

/* The first row of t, as wide as w, that differs from w's by more than `rounding` of its largest value; -1: none. */
peft_status peft__reader_differs(peft__mem *mem, const peft__weight *w, const peft__io_tensor *t, double rounding,
                                 const peft__kernels *k, int64_t *row);
/* Is t, which is no parameter of a, a copy of what base and adapter have anyway? `what`: the file, for errors. */
peft_status peft__reader_copy(const char *what, peft__mem *mem, const peft__adapter *a, const peft__io_tensor *t,
                              const peft__kernels *k, bool *known);
/* Parameter i, which the file does not have under its own key: rows of new tokens in a resized head. *found false: no such. */
peft_status peft__reader_resized(const char *what, const peft__safetensors *file, const peft__adapter *a, size_t i, bool *found);

/* What an adapter's folder holds, opened and read but not yet put together: for checks without a base. */
typedef struct peft__adapter_files {
    const char *config_path, *tensors_path;
    const peft__json *config;    /* an object */
    const peft__safetensors *file;
    const peft__method *method;
    const peft__optset *opts;    /* what the config says, of the method's schema */
    bool hub;                    /* of AdapterHub's library */
} peft__adapter_files;
typedef peft_status (*peft__adapter_files_fn)(void *user, const peft__adapter_files *files);
peft_status peft__adapter_with_files(peft__mem *mem, const char *dir, peft__adapter_files_fn fn, void *user);

/* format_hub_head.c: what AdapterHub's library has saved of the model's head beside the adapter, which becomes a union with it where
 * it is not the base's own. On failure *adapter may be NULL: it is gone. */
peft_status peft__hub_add_head(peft__mem *mem, const peft__kernels *k, const peft__base_info *base, const char *dir, bool allow_nan,
                               peft__adapter **adapter);

/* Heads of other tasks: is there a file of them, of how many bytes; is parameter i in it; its values from it; the file of an adapter's. */
peft_status peft__hub_find_head(peft__mem *mem, const char *dir, bool *there, size_t *size);
bool peft__hub_in_head(const peft__adapter *a, size_t i);
peft_status peft__hub_read_head(const char *dir, const peft__adapter *a, size_t i, const peft__kernels *k, bool allow_nan);

#endif
