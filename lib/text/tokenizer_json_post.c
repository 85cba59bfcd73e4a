/* tokenizer_json_post.c - the post_processor of tokenizer.json: the tokens put around one text and around two.
 *
 * TemplateProcessing, BertProcessing and RobertaProcessing say which; ByteLevel and RobertaProcessing also whether places
 * of tokens leave out the spaces at their ends. Left out: token types other than 0 for a single text. */
#include "text/parts.h"

static peft_status json_post_affix(peft__tokenizer *t, int64_t id, bool lead, const char *what) {
    size_t *count = lead ? &t->n_lead : &t->n_trail;
    if (id < 0 || (uint64_t)id >= t->count || *count == PEFT__TOK_AFFIXES) {
        return peft__fail(PEFT_E_FORMAT, "%s: the post_processor adds token %lld, expected at most %d ids below %zu",
                          what, (long long)id, PEFT__TOK_AFFIXES, t->count);
    }
    (lead ? t->lead : t->trail)[(*count)++] = (int32_t)id;
    return PEFT_OK;
}

static peft_status json_post_pair(peft__tokenizer *t, int64_t id, int64_t type, const char *what) {
    if (id < PEFT__PART_SECOND || (id >= 0 && (uint64_t)id >= t->count) || type < 0 || type > 255 ||
        t->n_pair == PEFT__TOK_PAIR) {
        return peft__fail(
            PEFT_E_FORMAT,
            "%s: the post_processor puts token %lld of type %lld beside two texts, expected at most %d ids "
            "below %zu",
            what, (long long)id, (long long)type, PEFT__TOK_PAIR, t->count);
    }
    t->pair[t->n_pair++] = (peft__template_item){(int32_t)id, (int32_t)type};
    return PEFT_OK;
}

/* One item of a template: {"SpecialToken": {"id": text, "type_id": n}}, whose ids are in the table, or {"Sequence": {"id":
 * "A" or "B", "type_id": n}}. For a single text *lead turns false at the text. */
static peft_status json_post_item(peft__tokenizer *t, const peft__json *item, const peft__json *table, bool pair,
                                  bool *lead, const char *what) {
    peft_status st = PEFT_OK;
    const peft__json *special = peft__json_find(item, "SpecialToken"), *text = peft__json_find(item, "Sequence");
    const peft__json *name = peft__json_find(special, "id");
    int64_t type = 0;
    TRY(peft__json_int(special != NULL ? special : text, what, "type_id", 0, 0, 255, &type));
    if (name == NULL || name->kind != PEFT__JSON_STRING) {
        bool second = peft__json_is(peft__json_find(text, "id"), "B");
        if (!second && !peft__json_is(peft__json_find(text, "id"), "A")) {
            FAIL(PEFT_E_FORMAT, "%s: the post_processor's template has an item that is neither a token nor text A or B", what);
        }
        *lead = false;
        if (pair) { TRY(json_post_pair(t, second ? PEFT__PART_SECOND : PEFT__PART_FIRST, type, what)); }
        goto out;
    }
    const peft__json *ids = peft__json_find(peft__json_find(table, name->str), "ids");
    bool listed = ids != NULL && ids->kind == PEFT__JSON_ARRAY;
    for (size_t k = 0; k < (listed ? ids->len : 1); k++) {
        int64_t id = ids == NULL                      ? peft__tokenizer_id(t, name->str, name->len)
                     : listed && ids->items[k].is_int ? ids->items[k].i
                                                      : -1;
        if (id < 0) { FAIL(PEFT_E_FORMAT, "%s: the post_processor's token \"%.80s\" has no id", what, name->str); }
        TRY(pair ? json_post_pair(t, id, type, what) : json_post_affix(t, id, *lead, what));
    }
out:
    return st;
}

static peft_status json_post_template(peft__tokenizer *t, const peft__json *step, const char *what) {
    peft_status st = PEFT_OK;
    const peft__json *single = peft__json_find(step, "single"), *two = peft__json_find(step, "pair");
    const peft__json *table = peft__json_find(step, "special_tokens");
    bool lead = true;
    if (single == NULL || single->kind != PEFT__JSON_ARRAY) {
        FAIL(PEFT_E_FORMAT, "%s: the post_processor has no list \"single\"", what);
    }
    for (size_t i = 0; i < single->len; i++) { TRY(json_post_item(t, &single->items[i], table, false, &lead, what)); }
    bool has_pair = two != NULL && two->kind == PEFT__JSON_ARRAY;
    for (size_t i = 0; has_pair && i < two->len; i++) {
        TRY(json_post_item(t, &two->items[i], table, true, &lead, what));
    }
    size_t texts[2] = {0, 0};
    for (size_t i = 0; i < t->n_pair; i++) {
        if (t->pair[i].id < 0) { texts[t->pair[i].id == PEFT__PART_SECOND]++; }
    }
    if (t->n_pair > 0 && (texts[0] != 1 || texts[1] != 1)) {
        FAIL(PEFT_E_FORMAT, "%s: the post_processor's \"pair\" has text A %zu times and B %zu times, expected once each", what, texts[0],
             texts[1]);
    }
out:
    return st;
}

static int64_t json_post_id(const peft__json *step, const char *key) {
    const peft__json *pair = peft__json_find(step, key);
    bool good = pair != NULL && pair->kind == PEFT__JSON_ARRAY && pair->len == 2 && pair->items[1].is_int;
    return good && pair->items[1].i >= 0 ? pair->items[1].i : INT64_MIN;
}

/* [CLS] A [SEP] B [SEP], or <s> A </s> </s> B </s>. */
static peft_status json_post_classic(peft__tokenizer *t, const peft__json *step, bool roberta, const char *what) {
    peft_status st = PEFT_OK;
    int64_t cls = json_post_id(step, "cls"), sep = json_post_id(step, "sep");
    TRY(json_post_affix(t, cls, true, what));
    TRY(json_post_affix(t, sep, false, what));
    TRY(json_post_pair(t, cls, 0, what));
    TRY(json_post_pair(t, PEFT__PART_FIRST, 0, what));
    TRY(json_post_pair(t, sep, 0, what));
    if (roberta) { TRY(json_post_pair(t, sep, 0, what)); }
    TRY(json_post_pair(t, PEFT__PART_SECOND, roberta ? 0 : 1, what));
    TRY(json_post_pair(t, sep, roberta ? 0 : 1, what));
out:
    return st;
}

static peft_status json_post_trim(peft__tokenizer *t, const peft__json *step, const char *what) {
    peft_status st = PEFT_OK;
    TRY(peft__json_bool(step, what, "trim_offsets", true, &t->trim));
    TRY(peft__json_bool(step, what, "add_prefix_space", true, &t->trim_prefix));
out:
    return st;
}

peft_status peft__tok_json_post(peft__tokenizer *t, const peft__json *root, const char *what) {
    peft_status st = PEFT_OK;
    const peft__json *steps = NULL;
    size_t n = peft__tok_json_steps(peft__json_find(root, "post_processor"), "processors", &steps);
    for (size_t i = 0; i < n; i++) {
        const peft__json *type = peft__json_find(&steps[i], "type");
        bool roberta = peft__json_is(type, "RobertaProcessing"), bytes = peft__json_is(type, "ByteLevel");
        if (peft__json_is(type, "TemplateProcessing")) {
            TRY(json_post_template(t, &steps[i], what));
        } else if (roberta || peft__json_is(type, "BertProcessing")) {
            TRY(json_post_classic(t, &steps[i], roberta, what));
        } else if (!bytes) {
            TRY(peft__tok_json_refuse(&steps[i], "post_processor", what));
        }
        if (roberta || bytes) { TRY(json_post_trim(t, &steps[i], what)); }
    }
out:
    return st;
}
