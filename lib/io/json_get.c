/* json_get.c - looking things up in a JSON tree: children by key, and typed reads that say what was wrong.
 *
 * Left out: paths into the tree, and conversion between types (a number in quotes is no number). */
#include <stdio.h>

#include "io/io.h"

const peft__json *peft__json_get(const peft__json *obj, const char *key) {
    if (obj == NULL || obj->kind != PEFT__JSON_OBJECT) { return NULL; }
    size_t n = strlen(key);
    for (size_t i = 0; i < obj->len; i++) {
        if (obj->keys[i].len == n && memcmp(obj->keys[i].str, key, n) == 0) { return &obj->items[i]; }
    }
    return NULL;
}

const peft__json *peft__json_find(const peft__json *obj, const char *key) {
    const peft__json *node = peft__json_get(obj, key);
    return node != NULL && node->kind != PEFT__JSON_NULL ? node : NULL;
}

bool peft__json_is(const peft__json *node, const char *text) {
    return node != NULL && node->kind == PEFT__JSON_STRING && node->len == strlen(text) &&
           memcmp(node->str, text, node->len) == 0;
}

/* A value as it should stand in an error: scalars as they are (long strings cut), containers by kind. */
static void json_describe(const peft__json *node, char out[80]) {
    enum { LONGEST = 48 };
    char num[40];
    switch (node->kind) {
    case PEFT__JSON_NULL: (void)snprintf(out, 80, "null"); return;
    case PEFT__JSON_BOOL: (void)snprintf(out, 80, "%s", node->truth ? "true" : "false"); return;
    case PEFT__JSON_NUMBER:
        if (node->is_int) {
            (void)snprintf(out, 80, "%lld", (long long)node->i);
        } else {
            size_t len = peft__format_f64(node->num, 17, num);
            (void)snprintf(out, 80, "%.*s", (int)len, num);
        }
        return;
    case PEFT__JSON_STRING: {
        size_t n = node->len;
        if (n > LONGEST) {
            n = LONGEST;
            while (n > 0 && ((unsigned char)node->str[n] & 0xC0u) == 0x80u) { n--; } /* never half a character */
        }
        (void)snprintf(out, 80, "\"%.*s%s\"", (int)n, node->str, n < node->len ? "..." : "");
        return;
    }
    default:
        (void)snprintf(out, 80, "%s of %zu", node->kind == PEFT__JSON_ARRAY ? "an array" : "an object", node->len);
        return;
    }
}

static peft_status json_fail_value(const peft__json *node, const char *what, const char *key, const char *wanted) {
    char value[80];
    json_describe(node, value);
    return peft__fail(PEFT_E_FORMAT, "%s: key \"%s\" is %s, expected %s", what, key, value, wanted);
}

peft_status peft__json_int(const peft__json *obj, const char *what, const char *key, int64_t dflt, int64_t min,
                           int64_t max, int64_t *out) {
    const peft__json *node = peft__json_find(obj, key);
    if (node == NULL) {
        *out = dflt;
        return PEFT_OK;
    }
    if (node->kind != PEFT__JSON_NUMBER || !node->is_int || node->i < min || node->i > max) {
        char wanted[96];
        (void)snprintf(wanted, sizeof wanted, "an integer from %lld to %lld", (long long)min, (long long)max);
        return json_fail_value(node, what, key, wanted);
    }
    *out = node->i;
    return PEFT_OK;
}

peft_status peft__json_float(const peft__json *obj, const char *what, const char *key, double dflt, double *out) {
    const peft__json *node = peft__json_find(obj, key);
    if (node != NULL && node->kind != PEFT__JSON_NUMBER) { return json_fail_value(node, what, key, "a number"); }
    *out = node == NULL ? dflt : node->num;
    return PEFT_OK;
}

peft_status peft__json_bool(const peft__json *obj, const char *what, const char *key, bool dflt, bool *out) {
    const peft__json *node = peft__json_find(obj, key);
    if (node != NULL && node->kind != PEFT__JSON_BOOL) { return json_fail_value(node, what, key, "true or false"); }
    *out = node == NULL ? dflt : node->truth;
    return PEFT_OK;
}

peft_status peft__json_str(const peft__json *obj, const char *what, const char *key, const char *dflt,
                           const char **out) {
    const peft__json *node = peft__json_find(obj, key);
    if (node == NULL) {
        *out = dflt;
        return PEFT_OK;
    }
    if (node->kind != PEFT__JSON_STRING) { return json_fail_value(node, what, key, "a string"); }
    if (memchr(node->str, '\0', node->len) != NULL) {
        return json_fail_value(node, what, key, "a string without NUL characters");
    }
    *out = node->str;
    return PEFT_OK;
}
