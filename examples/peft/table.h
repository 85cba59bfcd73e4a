/* table.h - rows of text in aligned columns. */
#ifndef TABLE_H
#define TABLE_H

#include <stddef.h>

typedef struct table {
    size_t columns;
    char **cells; /* owned, rows x columns */
    size_t rows;
} table;

void table_init(table *t, size_t columns);
void table_put(table *t, size_t row, size_t column, const char *text); /* rows appear as they are needed */
const char *table_get(const table *t, size_t row, size_t column);      /* "" where nothing was put */
void table_drop_last(table *t);                                        /* the last row */
void table_print(const table *t, int indent);                          /* to stdout */
void table_free(table *t);

#endif
