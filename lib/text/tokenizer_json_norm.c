/* tokenizer_json_norm.c - the normalizers of tokenizer.json, each to a step of normalise.c.
 *
 * For SentencePiece BPE a Prepend of U+2581 and the Replace that writes spaces as U+2581 are no steps but what the tokenizer
 * does with spaces anyway. Left out: ByteLevel as a normalizer, and regular expressions but for "two spaces or more" and
 * "white space"; they are refused by name. */
#include "text/parts.h"

static const char json_norm_mark[] = "\xE2\x96\x81";

peft_status peft__tok_json_refuse(const peft__json *step, const char *stage, const char *what) {
    const peft__json *type = peft__json_find(step, "type");
    const char *name = type != NULL && type->kind == PEFT__JSON_STRING ? type->str : "without a type";
    return peft__fail(PEFT_E_UNSUPPORTED, "%s: the %s \"%.80s\" is not supported as it is used there", what, stage,
                      name);
}

static const peft__json *json_norm_pattern(const peft__json *step, bool *regex) {
    const peft__json *pattern = peft__json_find(step, "pattern");
    const peft__json *text = peft__json_find(pattern, "String"), *expr = peft__json_find(pattern, "Regex");
    *regex = expr != NULL;
    text = expr != NULL ? expr : text;
    return text != NULL && text->kind == PEFT__JSON_STRING ? text : NULL;
}

const char *peft__tok_json_pattern(const peft__json *step, bool *regex) {
    const peft__json *text = json_norm_pattern(step, regex);
    return text == NULL ? NULL : text->str;
}

static peft_status json_norm_bert(peft__tokenizer *t, const peft__json *step, const char *what) {
    peft_status st = PEFT_OK;
    bool clean = true, han = true, lower = true, accents = true;
    TRY(peft__json_bool(step, what, "clean_text", true, &clean));
    TRY(peft__json_bool(step, what, "handle_chinese_chars", true, &han));
    TRY(peft__json_bool(step, what, "lowercase", true, &lower));
    TRY(peft__json_bool(step, what, "strip_accents", lower, &accents)); /* null: as lower case */
    bool open = peft__json_find(step, "strip_accents") == NULL;
    TRY(peft__normalise_add(t, PEFT__NORM_BERT,
                            (clean ? 1 : 0) | (han ? 2 : 0) | (accents ? 4 : 0) | (lower ? 8 : 0) | (open ? 16 : 0)));
out:
    return st;
}

static peft_status json_norm_text(peft__tokenizer *t, const peft__json *node, const char **text, size_t *len) {
    *text = peft__arena_strdup(&t->arena, node->str, node->len);
    *len = node->len;
    return *text == NULL ? PEFT_E_NOMEM : PEFT_OK;
}

static peft_status json_norm_replace(peft__tokenizer *t, const peft__json *step, const char *what) {
    static const char *const spaces[] = {" {2,}", "[ ]{2,}", "  +"};
    peft_status st = PEFT_OK;
    bool regex = false;
    const peft__json *from = json_norm_pattern(step, &regex), *to = peft__json_find(step, "content");
    peft__norm_step s = {.op = PEFT__NORM_REPLACE};
    if (from == NULL || to == NULL || to->kind != PEFT__JSON_STRING) {
        FAIL(PEFT_E_FORMAT, "%s: a \"Replace\" has no \"pattern\" and \"content\"", what);
    }
    if (t->kind == PEFT__TOK_SPM && !regex && peft__json_is(from, " ") && peft__json_is(to, json_norm_mark)) {
        t->no_marks = false;
        goto out;
    }
    for (size_t i = 0; regex && i < PEFT__COUNT(spaces); i++) {
        s.flags = peft__json_is(from, spaces[i]) ? 1 : s.flags;
    }
    if (regex && (peft__json_is(from, "\\s+") || peft__json_is(from, "[\\s]+"))) { s.flags = 2; }
    if ((regex && s.flags == 0) || from->len == 0) {
        FAIL(PEFT_E_UNSUPPORTED, "%s: the normalizer replaces %.200s, which is not among the known expressions", what,
             from->str);
    }
    TRY(json_norm_text(t, from, &s.from, &s.from_len));
    TRY(json_norm_text(t, to, &s.to, &s.to_len));
    TRY(peft__vec_push(&t->steps, &s));
out:
    return st;
}

static peft_status json_norm_prepend(peft__tokenizer *t, const peft__json *step, const char *what) {
    peft_status st = PEFT_OK;
    const peft__json *to = peft__json_find(step, "prepend");
    peft__norm_step s = {.op = PEFT__NORM_PREPEND};
    if (to == NULL || to->kind != PEFT__JSON_STRING) {
        FAIL(PEFT_E_FORMAT, "%s: a \"Prepend\" has no \"prepend\"", what);
    }
    if (t->kind == PEFT__TOK_SPM && peft__json_is(to, json_norm_mark)) {
        t->prefix = PEFT__PREFIX_ALWAYS;
        goto out;
    }
    TRY(json_norm_text(t, to, &s.to, &s.to_len));
    TRY(peft__vec_push(&t->steps, &s));
out:
    return st;
}

static peft_status json_norm_precompiled(peft__tokenizer *t, const peft__json *step, const char *what) {
    peft_status st = PEFT_OK;
    const peft__json *map = peft__json_find(step, "precompiled_charsmap");
    if (map == NULL || map->kind != PEFT__JSON_STRING) {
        FAIL(PEFT_E_FORMAT, "%s: a \"Precompiled\" has no text \"precompiled_charsmap\"", what);
    }
    if (t->charsmap.units != NULL) { FAIL(PEFT_E_UNSUPPORTED, "%s: two character maps", what); }
    TRY(peft__charsmap_base64(&t->arena, map->str, map->len, what, &t->charsmap));
    TRY(peft__normalise_add(t, PEFT__NORM_CHARSMAP, 0));
out:
    return st;
}

static peft_status json_norm_strip(peft__tokenizer *t, const peft__json *step, const char *what) {
    peft_status st = PEFT_OK;
    bool left = true, right = true;
    TRY(peft__json_bool(step, what, "strip_left", true, &left));
    TRY(peft__json_bool(step, what, "strip_right", true, &right));
    TRY(peft__normalise_add(t, PEFT__NORM_STRIP, (left ? 1 : 0) | (right ? 2 : 0)));
out:
    return st;
}

static peft_status json_norm_sequence(peft__tokenizer *t, const peft__json *step, const char *what) {
    peft_status st = PEFT_OK;
    const peft__json *list = peft__json_find(step, "normalizers");
    if (list == NULL || list->kind != PEFT__JSON_ARRAY) { FAIL(PEFT_E_FORMAT, "%s: a \"Sequence\" has no list", what); }
    for (size_t i = 0; i < list->len; i++) { TRY(peft__tok_json_norm(t, &list->items[i], what)); }
out:
    return st;
}

peft_status peft__tok_json_norm(peft__tokenizer *t, const peft__json *step, const char *what) {
    static const struct {
        const char *type;
        int32_t op, flags;
    } plain[] = {{"NFC", PEFT__NORM_FORM, 2},        {"NFD", PEFT__NORM_FORM, 0},
                 {"NFKC", PEFT__NORM_FORM, 3},       {"NFKD", PEFT__NORM_FORM, 1},
                 {"Lowercase", PEFT__NORM_LOWER, 0}, {"StripAccents", PEFT__NORM_ACCENTS, 0},
                 {"Nmt", PEFT__NORM_NMT, 0}};
    static const struct {
        const char *type;
        peft_status (*read)(peft__tokenizer *t, const peft__json *step, const char *what);
    } others[] = {{"BertNormalizer", json_norm_bert}, {"Replace", json_norm_replace},
                  {"Prepend", json_norm_prepend},     {"Precompiled", json_norm_precompiled},
                  {"Strip", json_norm_strip},         {"Sequence", json_norm_sequence}};
    const peft__json *type = peft__json_find(step, "type");
    for (size_t i = 0; i < PEFT__COUNT(plain); i++) {
        if (peft__json_is(type, plain[i].type)) { return peft__normalise_add(t, plain[i].op, plain[i].flags); }
    }
    for (size_t i = 0; i < PEFT__COUNT(others); i++) {
        if (peft__json_is(type, others[i].type)) { return others[i].read(t, step, what); }
    }
    return peft__tok_json_refuse(step, "normalizer", what);
}
