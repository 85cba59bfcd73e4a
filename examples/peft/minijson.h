/* minijson.h - a tiny JSON reader for what the library prints and for lines of prompts. */
#ifndef MINIJSON_H
#define MINIJSON_H

#include <stdbool.h>
#include <stddef.h>

typedef enum json_kind { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT } json_kind;

typedef struct json_value {
    json_kind kind;
    const char *key;  /* of an object's member; NULL elsewhere */
    const char *text; /* a string's bytes (NUL-terminated, unescaped) or a number as written; "true", "false", "null" */
    size_t len;       /* bytes of text */
    double number;    /* of JSON_NUMBER */
    size_t count;     /* elements or members */
    int line;         /* of the text, from 1, where it begins; a member begins with its key */
    struct json_value *first, *next;
} json_value;

/* A parsed text: all values and strings live in two allocations. */
typedef struct json_doc {
    json_value *values; /* owned; values[0] is the root */
    char *text;         /* owned copy of the text, strings unescaped in place */
} json_doc;

bool json_parse(json_doc *doc, const char *text, size_t len); /* false: not one JSON value; doc is then empty */
bool json_parse_at(json_doc *doc, const char *text, size_t len, int *line); /* false: *line is where it is none */
void json_free(json_doc *doc);
const json_value *json_get(const json_value *object, const char *key); /* NULL: no such member, or no object */

#endif
