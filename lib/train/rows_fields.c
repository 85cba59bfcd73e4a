/* rows_fields.c - what readers of rows share: fields of JSON, texts as the tokenizer's template has them, names of classes.
 *
 * Text, pairs and truncation are those of Hugging Face's tokenizers (text/pair.c). What `truncation=left` keeps of a pair is as
 * long as what `right` keeps, from the other end (their truncation_side).
 * Left out: padding; names of classes are looked for one after the other, which tens of thousands of them would make slow. */
#include <float.h>
#include <math.h>

#include "train/rows.h"

const char *peft__rows_what(const peft__json *node) {
    static const char *const names[] = {"null", "true or false", "a number", "a text", "a list", "an object"};
    return names[node->kind];
}

peft_status peft__rows_text(const peft__json *row, const char *key, const peft__json **out) {
    *out = peft__json_find(row, key);
    if (*out == NULL || (*out)->kind == PEFT__JSON_STRING) { return PEFT_OK; }
    return peft__fail(PEFT_E_FORMAT, "\"%s\" is no text", key);
}

peft_status peft__rows_field(struct peft_dataset *d, const peft__row_in *in, const char *option, const char *const *keys,
                             peft__text_in *text) {
    peft_status st = PEFT_OK;
    const char *template = peft__opt_str(&d->opts, option);
    const peft__json *node = NULL;
    peft__str made;
    memset(text, 0, sizeof *text);
    peft__str_init(&made, &d->ctx->mem);
    if (template[0] != '\0') {
        TRY(peft__template_render(template, in->json, &made));
        text->text = peft__arena_strdup(in->scratch, peft__str_c(&made), made.len);
        if (text->text == NULL) { st = PEFT_E_NOMEM; }
        text->len = made.len;
        goto out;
    }
    for (size_t i = 0; node == NULL && keys[i] != NULL; i++) { TRY(peft__rows_text(in->json, keys[i], &node)); }
    if (node != NULL) { *text = (peft__text_in){.text = node->str, .len = node->len}; }
out:
    peft__str_free(&made);
    return st;
}

peft_status peft__rows_ints(const peft__json *array, const char *key, bool masked, peft__vec *out) {
    peft_status st = PEFT_OK;
    if (array->kind != PEFT__JSON_ARRAY) { FAIL(PEFT_E_FORMAT, "\"%s\" is no array", key); }
    for (size_t i = 0; i < array->len; i++) {
        const peft__json *x = &array->items[i];
        bool none = masked && x->kind == PEFT__JSON_NUMBER && x->is_int && x->i == -100;
        if (!none && (x->kind != PEFT__JSON_NUMBER || !x->is_int || x->i < 0 || x->i > INT32_MAX)) {
            FAIL(PEFT_E_FORMAT, "\"%s\"[%zu] is no token id", key, i);
        }
        int32_t id = (int32_t)x->i;
        TRY(peft__vec_push(out, &id));
    }
out:
    return st;
}

peft_status peft__rows_tokenizer(const struct peft_dataset *d) {
    if (d->tokenizer != NULL) { return PEFT_OK; }
    return peft__fail(PEFT_E_FORMAT, "the row has text, and there is no tokenizer: give one, or \"input_ids\"");
}

/* ---- texts -------------------------------------------------------------------------------------------------------------------- */

/* Leaves of each text in full[from, end) only its last kept[part] tokens. */
static void fields_keep_ends(peft__vec *full, size_t from, const size_t kept[2]) {
    size_t left[2] = {0, 0}, to = from;
    for (size_t i = from; i < full->len; i++) {
        int32_t part = PEFT__VEC_AT(full, peft__encoded, i).part;
        if (part >= 0) { left[part]++; }
    }
    for (size_t i = from; i < full->len; i++) {
        peft__encoded x = PEFT__VEC_AT(full, peft__encoded, i);
        if (x.part >= 0 && left[x.part]-- > kept[x.part]) { continue; }
        PEFT__VEC_AT(full, peft__encoded, to++) = x;
    }
    full->len = to;
}

peft_status peft__rows_pair(const struct peft_dataset *d, peft__row_in *in, const peft__text_in *a, const peft__text_in *b,
                            const char *limit, peft__vec *out) {
    peft_status st = PEFT_OK;
    const char *how = peft__opt_str(&d->opts, "truncation");
    peft__pair_rule rule = {.flags = PEFT_TOKENIZE_SPECIAL | PEFT_TOKENIZE_BOS_EOS};
    size_t from = out->len, max = (size_t)peft__opt_int(&d->opts, limit), kept[2] = {0, 0};
    peft__vec right;
    peft__vec_init(&right, &d->ctx->mem, sizeof(peft__encoded));
    TRY(peft__rows_tokenizer(d));
    const peft__tokenizer *t = d->tokenizer->inner;
    TRY(peft__tokenizer_encode_pair(t, a, b, &rule, out, NULL));
    if (out->len - from <= max) { goto out; }
    if (strcmp(how, "error") == 0) { FAIL(PEFT_E_FORMAT, "the row has %zu tokens, more than %s %zu", out->len - from, limit, max); }
    rule.max = max;
    in->cut = true;
    if (strcmp(how, "left") != 0) {
        out->len = from;
        st = peft__tokenizer_encode_pair(t, a, b, &rule, out, NULL);
        if (st == PEFT_E_INVALID) { peft__fail_prefix("option \"%s\"", limit); }
        goto out;
    }
    TRY(peft__tokenizer_encode_pair(t, a, b, &rule, &right, NULL));
    for (size_t i = 0; i < right.len; i++) {
        int32_t part = PEFT__VEC_AT(&right, peft__encoded, i).part;
        if (part >= 0) { kept[part]++; }
    }
    fields_keep_ends(out, from, kept);
out:
    peft__vec_free(&right);
    return st;
}

/* ---- tokens -------------------------------------------------------------------------------------------------------------------- */

peft_status peft__rows_put(struct peft_dataset *d, int32_t id, int32_t label, int32_t type) {
    peft_status st = PEFT_OK;
    static const int32_t zero = 0;
    if (type != 0 || d->types.len > 0) { /* the first one that is not 0: all before it are */
        while (d->types.len < d->ids.len) { TRY(peft__vec_push(&d->types, &zero)); }
        TRY(peft__vec_push(&d->types, &type));
    }
    TRY(peft__vec_push(&d->ids, &id));
    TRY(peft__vec_push(&d->labels, &label));
out:
    return st;
}

peft_status peft__rows_put_all(struct peft_dataset *d, const peft__vec *encoded) {
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < encoded->len; i++) {
        const peft__encoded *x = &PEFT__VEC_AT(encoded, peft__encoded, i);
        TRY(peft__rows_put(d, x->id, -100, x->type));
    }
out:
    return st;
}

peft_status peft__rows_put_ids(struct peft_dataset *d, const peft__row_in *in, const peft__json *ids, bool types) {
    peft_status st = PEFT_OK;
    const peft__json *type = types ? peft__json_find(in->json, "token_type_ids") : NULL;
    peft__vec list, kinds;
    peft__vec_init(&list, &d->ctx->mem, sizeof(int32_t));
    peft__vec_init(&kinds, &d->ctx->mem, sizeof(int32_t));
    TRY(peft__rows_ints(ids, "input_ids", false, &list));
    if (type != NULL) {
        TRY(peft__rows_ints(type, "token_type_ids", false, &kinds));
        if (kinds.len != list.len) {
            FAIL(PEFT_E_FORMAT, "\"token_type_ids\" has %zu elements, and \"input_ids\" %zu", kinds.len, list.len);
        }
    }
    for (size_t i = 0; i < list.len; i++) {
        TRY(peft__rows_put(d, PEFT__VEC_AT(&list, int32_t, i), -100, type != NULL ? PEFT__VEC_AT(&kinds, int32_t, i) : 0));
    }
out:
    peft__vec_free(&list);
    peft__vec_free(&kinds);
    return st;
}

peft_status peft__rows_number(struct peft_dataset *d, const char *key, const peft__json *x) {
    if (fabs(x->num) > (double)FLT_MAX) { return peft__fail(PEFT_E_FORMAT, "\"%s\" is a number that does not fit a float", key); }
    float number = (float)x->num;
    return peft__vec_push(&d->targets, &number);
}

/* ---- classes ------------------------------------------------------------------------------------------------------------------- */

peft_status peft__rows_name(struct peft_dataset *d, const char *name, size_t len, int32_t *number) {
    peft_status st = PEFT_OK;
    if (len == 0 || memchr(name, '\0', len) != NULL) { FAIL(PEFT_E_FORMAT, "the name of a class is empty, or has a NUL character"); }
    for (size_t i = 0; i < d->names.len; i++) {
        const char *known = PEFT__VEC_AT(&d->names, const char *, i);
        if (strncmp(known, name, len) == 0 && known[len] == '\0') {
            *number = (int32_t)i;
            return PEFT_OK;
        }
    }
    if (d->names.len >= INT32_MAX) { FAIL(PEFT_E_UNSUPPORTED, "more than %d classes", INT32_MAX); }
    const char *copy = peft__arena_strdup(&d->arena, name, len);
    if (copy == NULL) { return PEFT_E_NOMEM; }
    *number = (int32_t)d->names.len;
    TRY(peft__vec_push(&d->names, &copy));
out:
    return st;
}

peft_status peft__rows_form(struct peft_dataset *d, int32_t form) {
    static const char *const names[] = {"none", "a number", "a name", "a list of numbers", "a list of names"};
    if (d->label_form != PEFT__LABEL_NONE && d->label_form != form) {
        return peft__fail(PEFT_E_FORMAT, "the row's label is %s, and that of a row before it %s", names[form], names[d->label_form]);
    }
    d->label_form = form;
    return PEFT_OK;
}
