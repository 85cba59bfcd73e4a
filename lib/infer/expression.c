/* expression.c - which adapters act: a name, or names joined by commas, in the order in which they act.
 *
 * Left out: the rest of the algebra (parallel, fuse, average). */
#include "infer/infer.h"

static peft_status expression_pin(struct peft_adapters *set, const char *name, size_t len, peft__adapter **list,
                                  size_t *n) {
    char text[256];
    if (set == NULL) {
        return peft__fail(PEFT_E_INVALID, "there are no adapters to take \"%.*s\" from", (int)len, name);
    }
    if (len >= sizeof text) { return peft__fail(PEFT_E_NOT_FOUND, "there is no adapter \"%.60s...\"", name); }
    memcpy(text, name, len);
    text[len] = '\0';
    for (size_t i = 0; i < *n; i++) {
        if (strcmp(list[i]->name, text) == 0) {
            return peft__fail(PEFT_E_INVALID, "the expression has adapter \"%s\" twice", text);
        }
    }
    if (*n == PEFT__EXPRESSION_MAX) {
        return peft__fail(PEFT_E_UNSUPPORTED, "the expression has more than %d adapters", PEFT__EXPRESSION_MAX);
    }
    peft_status st = peft__set_pin(set, text, &list[*n]);
    *n += st == PEFT_OK;
    return st;
}

void peft__expression_unpin(peft__adapter **list, size_t *n) {
    while (*n > 0) { peft__adapter_release(list[--*n]); }
}

peft_status peft__expression_pin(struct peft_adapters *set, const char *expression, peft__adapter **list, size_t *n) {
    *n = 0;
    if (expression == NULL || expression[0] == '\0') { return PEFT_OK; }
    for (const char *at = expression;; at++) {
        size_t len = strcspn(at, ",");
        peft_status st = expression_pin(set, at, len, list, n);
        if (st != PEFT_OK) {
            peft__expression_unpin(list, n);
            return st;
        }
        at += len;
        if (*at == '\0') { return PEFT_OK; }
    }
}
