/* table.c - rows of text in aligned columns; widths count bytes, the last column is not padded. */
#include "table.h"

#include "tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void table_init(table *t, size_t columns) {
    *t = (table){columns, NULL, 0};
}

void table_put(table *t, size_t row, size_t column, const char *text) {
    if (row >= t->rows) {
        size_t old = t->rows * t->columns, count = (row + 1) * t->columns;
        t->cells = tool_resize(t->cells, count * sizeof *t->cells);
        memset(t->cells + old, 0, (count - old) * sizeof *t->cells);
        t->rows = row + 1;
    }
    char **cell = &t->cells[row * t->columns + column];
    free(*cell);
    *cell = tool_copy(text, strlen(text));
}

const char *table_get(const table *t, size_t row, size_t column) {
    const char *cell = t->cells[row * t->columns + column];
    return cell != NULL ? cell : "";
}

void table_drop_last(table *t) {
    t->rows--;
    for (size_t j = 0; j < t->columns; j++) {
        free(t->cells[t->rows * t->columns + j]);
        t->cells[t->rows * t->columns + j] = NULL;
    }
}

void table_print(const table *t, int indent) {
    size_t *widths = tool_alloc(t->columns * sizeof *widths);
    for (size_t i = 0; i < t->rows; i++) {
        for (size_t j = 0; j < t->columns; j++) {
            size_t width = strlen(table_get(t, i, j));
            widths[j] = width > widths[j] ? width : widths[j];
        }
    }
    for (size_t i = 0; i < t->rows; i++) {
        size_t last = t->columns - 1;
        while (last > 0 && table_get(t, i, last)[0] == '\0') { last--; /* no trailing blanks */ }
        printf("%*s", indent, "");
        for (size_t j = 0; j < last; j++) { printf("%-*s  ", (int)widths[j], table_get(t, i, j)); }
        printf("%s\n", table_get(t, i, last));
    }
    free(widths);
}

void table_free(table *t) {
    for (size_t i = 0; i < t->rows * t->columns; i++) { free(t->cells[i]); }
    free(t->cells);
    *t = (table){0, NULL, 0};
}
