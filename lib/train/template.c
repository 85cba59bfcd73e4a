/* template.c - 'Record: {mr}\nSentence:' with the fields of a JSON row put in.
 *
 *   {name}      the field; {refs.0} and {a.b} go into arrays and objects
 *   {{ and }}   braces
 *   \n \t \\    as in C, so that a command line can say them */
#include "train/rows.h"

static const peft__json *template_find(const peft__json *row, const char *path, size_t len) {
    const peft__json *node = len > 0 ? row : NULL;
    size_t at = 0;
    while (node != NULL && at < len) {
        size_t end = at;
        while (end < len && path[end] != '.') { end++; }
        const peft__json *next = NULL;
        int64_t index = 0;
        if (node->kind == PEFT__JSON_ARRAY && peft__parse_i64(path + at, end - at, &index)) {
            if (index >= 0 && (size_t)index < node->len) { next = &node->items[index]; }
        } else if (node->kind == PEFT__JSON_OBJECT) {
            for (size_t i = 0; i < node->len; i++) {
                if (node->keys[i].len == end - at && memcmp(node->keys[i].str, path + at, end - at) == 0) {
                    next = &node->items[i];
                }
            }
        }
        node = next;
        at = end + 1;
    }
    return node;
}

static peft_status template_put(const peft__json *row, const char *path, size_t len, peft__str *out) {
    const peft__json *node = template_find(row, path, len);
    if (node == NULL) { return peft__fail(PEFT_E_FORMAT, "no field \"%.*s\", which the template wants", (int)len, path); }
    if (node->kind == PEFT__JSON_STRING) {
        peft__str_put(out, node->str, node->len);
    } else if (node->kind != PEFT__JSON_NULL) {
        peft__json_out j;
        peft__json_begin(&j, out, 0);
        peft__json_put_node(&j, node);
    }
    return peft__str_status(out);
}

peft_status peft__template_render(const char *text, const peft__json *row, peft__str *out) {
    peft_status st = PEFT_OK;
    for (const char *p = text; *p != '\0'; p++) {
        if (p[0] == '\\' && (p[1] == 'n' || p[1] == 't' || p[1] == '\\')) {
            peft__str_putc(out, p[1] == 'n' ? '\n' : p[1] == 't' ? '\t' : '\\');
            p++;
        } else if ((p[0] == '{' && p[1] == '{') || (p[0] == '}' && p[1] == '}')) {
            peft__str_putc(out, *p++);
        } else if (*p == '{') {
            const char *end = strchr(p, '}');
            if (end == NULL) { FAIL(PEFT_E_KEY, "the template \"%s\" has a \"{\" without its \"}\"", text); }
            TRY(template_put(row, p + 1, (size_t)(end - p - 1), out));
            p = end;
        } else {
            peft__str_putc(out, *p);
        }
    }
    TRY(peft__str_status(out));
out:
    return st;
}
