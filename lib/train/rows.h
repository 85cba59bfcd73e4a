/* rows.h - what dataset.c, rows.c and template.c share. */
#ifndef PEFT_ROWS_H
#define PEFT_ROWS_H

#include "train/train.h"

/* Appends text with the row's fields put in. */
peft_status peft__template_render(const char *text, const peft__json *row, peft__str *out);
/* Appends the ids and labels of one JSON row to the data set (labels -100 where no loss is taken), untruncated; *task: its
 * task. */
peft_status peft__row_parse(struct peft_dataset *d, const peft__json *row, int32_t *task);

#endif
