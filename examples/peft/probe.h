/* probe.h - looks at a run that the page of `--report` shows: what the model says, and gradients by layer. */
#ifndef PROBE_H
#define PROBE_H

#include "tool.h"

/* Continues each --sample-prompt with the likeliest tokens under the adapters of `expression` (NULL: the base alone); appends a JSON
 * list of {"prompt", "text"}. Returns an exit code. */
int probe_samples(const tool_run *run, const tool_args *args, const char *expression, tool_text *out);

/* Norms of the gradients of the first rows of `rows`, by layer, as they are now; appends a JSON object, or nothing where there is no
 * such batch: of other tasks than causal_lm. The trainer's next step begins anew, so that a run is the same with it and without. */
void probe_gradients(const tool_run *run, peft_trainer *trainer, const peft_dataset *rows, const char *const *adapters, size_t count,
                     tool_text *out);

#endif
