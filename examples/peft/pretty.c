/* pretty.c - a JSON object as a person reads it: one line a member, arrays of objects as tables. Rows that differ only in
 * a number inside a name ("layers.0.", "layers.1.") are one row with a count, so that a model of thirty layers is as short
 * as its description. */
#include "pretty.h"

#include "table.h"
#include "tool.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PRETTY_CELL = 96, PRETTY_COLUMNS = 8, PRETTY_ITEMS = 24 };

static void pretty_members(const json_value *object, int indent);

static bool pretty_is_group(const json_value *v) {
    return v->kind == JSON_ARRAY || v->kind == JSON_OBJECT;
}

/* A scalar, or an array of scalars as "[a, b]", in at most `cap` bytes. */
static void pretty_cell(const json_value *v, char *out, size_t cap) {
    size_t len = 0;
    out[0] = '\0';
    if (!pretty_is_group(v)) {
        int written = snprintf(out, cap, "%s", v->text);
        if (written >= (int)cap) { memcpy(out + cap - 4, "...", 4); }
        for (char *c = out; *c != '\0'; c++) { *c = iscntrl((unsigned char)*c) ? ' ' : *c; }
        return;
    }
    for (const json_value *item = v->first; item != NULL && len + 8 < cap; item = item->next) {
        int written = snprintf(out + len, cap - len, "%s%s", item == v->first ? "[" : ", ",
                               pretty_is_group(item) ? "..." : item->text);
        len += (size_t)written < cap - len ? (size_t)written : cap - len - 1;
    }
    (void)snprintf(out + len, cap - len, "%s", v->first != NULL ? "]" : "[]");
}

/* Numbers that stand alone in a name become '*': "model.layers.11.mlp" but not "fc1". */
static void pretty_star(const char *name, char *out, size_t cap) {
    size_t len = 0;
    for (size_t i = 0; name[i] != '\0' && len + 2 < cap; i++) {
        bool start = i == 0 || !isalnum((unsigned char)name[i - 1]);
        size_t digits = start ? strspn(name + i, "0123456789") : 0;
        if (digits > 0 && !isalpha((unsigned char)name[i + digits]) && name[i + digits] != '_') {
            out[len++] = '*';
            i += digits - 1;
        } else {
            out[len++] = name[i];
        }
    }
    out[len] = '\0';
}

/* Equal but for numbers in the name, which is the first of the cells. */
static bool pretty_same_row(const table *t, size_t a, size_t b) {
    char star_a[PRETTY_CELL], star_b[PRETTY_CELL];
    for (size_t j = 2; j < t->columns; j++) {
        if (strcmp(table_get(t, a, j), table_get(t, b, j)) != 0) { return false; }
    }
    pretty_star(table_get(t, a, 1), star_a, sizeof star_a);
    pretty_star(table_get(t, b, 1), star_b, sizeof star_b);
    return strcmp(star_a, star_b) == 0;
}

/* Counts the last row, as its own or as one more of an equal row above, which then takes the name with stars. */
static void pretty_fold(table *t, size_t *counts) {
    size_t last = t->rows - 1;
    for (size_t i = 1; i < last; i++) {
        if (pretty_same_row(t, i, last)) {
            char star[PRETTY_CELL];
            pretty_star(table_get(t, i, 1), star, sizeof star);
            table_put(t, i, 1, star);
            counts[i]++;
            table_drop_last(t);
            return;
        }
    }
    counts[last] = 1;
}

static void pretty_table(const json_value *array, int indent) {
    const json_value *head = array->first;
    size_t columns = head->count < PRETTY_COLUMNS ? head->count : PRETTY_COLUMNS;
    size_t *counts = tool_alloc((array->count + 1) * sizeof *counts);
    size_t column = 1;
    char cell[PRETTY_CELL];
    table t;
    table_init(&t, columns + 1); /* column 0 holds the counts */
    table_put(&t, 0, 0, "");
    for (const json_value *v = head->first; v != NULL && column <= columns; v = v->next) {
        table_put(&t, 0, column++, v->key);
    }
    for (const json_value *item = head; item != NULL; item = item->next) {
        size_t row = t.rows;
        table_put(&t, row, 0, "");
        column = 1;
        for (const json_value *v = item->first; v != NULL && column <= columns; v = v->next) {
            pretty_cell(v, cell, sizeof cell);
            table_put(&t, row, column++, cell);
        }
        pretty_fold(&t, counts);
    }
    for (size_t i = 1; i < t.rows; i++) {
        (void)snprintf(cell, sizeof cell, "%zu x", counts[i]);
        table_put(&t, i, 0, cell);
    }
    table_print(&t, indent);
    table_free(&t);
    free(counts);
}

static void pretty_list(const json_value *array) {
    size_t shown = 0;
    char cell[PRETTY_CELL];
    for (const json_value *v = array->first; v != NULL && shown < PRETTY_ITEMS; v = v->next, shown++) {
        pretty_cell(v, cell, sizeof cell);
        printf("%s%s", shown > 0 ? ", " : "", cell);
    }
    if (shown < array->count) { printf(", ... (%zu)", array->count); }
    printf("%s\n", array->count == 0 ? "none" : "");
}

static void pretty_number(const json_value *v) {
    char text[TOOL_SHORT];
    bool bytes = strstr(v->key, "bytes") != NULL, large = v->number >= 10000.0;
    bool counted = strstr(v->key, "parameters") != NULL || strstr(v->key, "flops") != NULL;
    if (large && bytes) {
        printf("%s (%s)\n", v->text, tool_bytes(v->number, text));
    } else if (large && counted) {
        printf("%s (%s)\n", v->text, tool_count(v->number, text));
    } else {
        printf("%s\n", v->text);
    }
}

static void pretty_member(const json_value *v, int indent, int width) {
    char cell[PRETTY_CELL];
    bool bare = v->kind == JSON_OBJECT || (v->kind == JSON_STRING && v->len == 0); /* no value on the line */
    printf("%*s%-*s%s", indent, "", bare ? 0 : width, v->key, bare ? "" : "  ");
    if (v->kind == JSON_NUMBER) {
        pretty_number(v);
    } else if (!pretty_is_group(v)) {
        pretty_cell(v, cell, sizeof cell);
        printf("%s\n", cell);
    } else if (v->kind == JSON_OBJECT) {
        printf("\n");
        pretty_members(v, indent + 2);
    } else if (v->first != NULL && v->first->kind == JSON_OBJECT) {
        printf("%zu\n", v->count);
        pretty_table(v, indent + 2);
    } else {
        pretty_list(v);
    }
}

static void pretty_members(const json_value *object, int indent) {
    int width = 0;
    for (const json_value *v = object->first; v != NULL; v = v->next) {
        int len = (int)strlen(v->key);
        width = len > width ? len : width;
    }
    for (const json_value *v = object->first; v != NULL; v = v->next) { pretty_member(v, indent, width); }
}

int pretty_print(const char *text) {
    json_doc doc;
    if (!json_parse(&doc, text, strlen(text)) || doc.values[0].kind != JSON_OBJECT) {
        return tool_fail("the library answered with something that is no JSON object");
    }
    pretty_members(&doc.values[0], 0);
    json_free(&doc);
    return TOOL_OK;
}
