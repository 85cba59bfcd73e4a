/* tokenizer_json_rules.c - the pipeline around the model in tokenizer.json.
 *
 * normalizer: NFC; for SentencePiece also Prepend and Replace, which write spaces as U+2581.
 * pre_tokenizer: ByteLevel, Digits, Metaspace, and Split by one of the known expressions; in sequence.
 * post_processor: TemplateProcessing, BertProcessing, RobertaProcessing: the tokens put around one text.
 * decoder: only whether the first space is dropped; bytes and spaces follow from the vocabulary.
 * Left out: every other step; it is refused by name. */
#include "text/parts.h"

static const char json_rules_mark[] = "\xE2\x96\x81";

/* The steps of a node: those of a Sequence, the node itself, or none. `list` is the key of a Sequence's steps. */
static size_t json_rules_steps(const peft__json *node, const char *list, const peft__json **steps) {
    *steps = NULL;
    if (node == NULL || node->kind != PEFT__JSON_OBJECT) { return 0; }
    if (!peft__json_is(peft__json_find(node, "type"), "Sequence")) {
        *steps = node;
        return 1;
    }
    const peft__json *items = peft__json_find(node, list);
    if (items == NULL || items->kind != PEFT__JSON_ARRAY) { return 0; }
    *steps = items->items;
    return items->len;
}

bool peft__tok_json_has(const peft__json *node, const char *type) {
    static const char *const lists[] = {"pretokenizers", "decoders", "normalizers"};
    for (size_t l = 0; l < PEFT__COUNT(lists); l++) {
        const peft__json *steps = NULL;
        size_t n = json_rules_steps(node, lists[l], &steps);
        for (size_t i = 0; i < n; i++) {
            if (peft__json_is(peft__json_find(&steps[i], "type"), type)) { return true; }
        }
    }
    return false;
}

static peft_status json_rules_refuse(const peft__json *step, const char *stage, const char *what) {
    const peft__json *type = peft__json_find(step, "type");
    const char *name = type != NULL && type->kind == PEFT__JSON_STRING ? type->str : "without a type";
    return peft__fail(PEFT_E_UNSUPPORTED, "%s: the %s \"%.80s\" is not supported as it is used there", what, stage,
                      name);
}

/* Text of {"String": ...} or {"Regex": ...}; NULL: neither. */
static const char *json_rules_pattern(const peft__json *step, bool *regex) {
    const peft__json *pattern = peft__json_find(step, "pattern");
    const peft__json *text = peft__json_find(pattern, "String"), *expr = peft__json_find(pattern, "Regex");
    *regex = expr != NULL;
    text = expr != NULL ? expr : text;
    return text != NULL && text->kind == PEFT__JSON_STRING ? text->str : NULL;
}

static peft_status json_rules_normalizer(peft__tokenizer *t, const peft__json *step, const char *what) {
    const peft__json *type = peft__json_find(step, "type");
    bool spm = t->kind == PEFT__TOK_SPM, regex = false;
    if (peft__json_is(type, "NFC")) {
        t->nfc = true;
        return PEFT_OK;
    }
    if (spm && peft__json_is(type, "Prepend") && peft__json_is(peft__json_find(step, "prepend"), json_rules_mark)) {
        t->prefix = PEFT__PREFIX_ALWAYS;
        return PEFT_OK;
    }
    if (spm && peft__json_is(type, "Replace") && peft__json_is(peft__json_find(step, "content"), json_rules_mark)) {
        const char *pattern = json_rules_pattern(step, &regex);
        if (pattern != NULL && !regex && strcmp(pattern, " ") == 0) {
            t->no_marks = false;
            return PEFT_OK;
        }
    }
    return json_rules_refuse(step, "normalizer", what);
}

static peft_status json_rules_metaspace(peft__tokenizer *t, const peft__json *step, const char *what) {
    peft_status st = PEFT_OK;
    const char *scheme = NULL, *mark = NULL;
    bool prefix = true, split = true;
    TRY(peft__json_str(step, what, "replacement", json_rules_mark, &mark));
    TRY(peft__json_bool(step, what, "add_prefix_space", true, &prefix));
    TRY(peft__json_str(step, what, "prepend_scheme", prefix ? "always" : "never", &scheme));
    TRY(peft__json_bool(step, what, "split", true, &split));
    if (t->kind != PEFT__TOK_SPM || strcmp(mark, json_rules_mark) != 0) {
        TRY(json_rules_refuse(step, "pre_tokenizer", what));
    }
    t->no_marks = false;
    t->prefix = strcmp(scheme, "never") == 0   ? PEFT__PREFIX_NEVER
                : strcmp(scheme, "first") == 0 ? PEFT__PREFIX_FIRST
                                               : PEFT__PREFIX_ALWAYS;
    t->prefix_once = true;
    if (split) { TRY(peft__pretok_add(&t->pretok, PEFT__SPLIT_MARK, 0, what)); }
out:
    return st;
}

static peft_status json_rules_split(peft__tokenizer *t, const peft__json *step, const char *what) {
    peft_status st = PEFT_OK;
    bool regex = false, invert = false;
    const char *behavior = NULL, *pattern = json_rules_pattern(step, &regex);
    peft__split_stage stage = {0, 0};
    TRY(peft__json_bool(step, what, "invert", false, &invert));
    TRY(peft__json_str(step, what, "behavior", "Isolated", &behavior));
    if (pattern == NULL) { FAIL(PEFT_E_FORMAT, "%s: a \"Split\" has no \"pattern\"", what); }
    if (!regex && strcmp(pattern, " ") == 0 && t->kind == PEFT__TOK_SPM && !t->no_marks) {
        goto out;
    } /* none is left */
    if (!regex || !peft__pretok_by_regex(pattern, &stage)) {
        FAIL(PEFT_E_UNSUPPORTED, "%s: the pre_tokenizer splits by %.400s, which is not among the known expressions",
             what, pattern);
    }
    bool covers = stage.rule == PEFT__SPLIT_GPT2 || stage.rule == PEFT__SPLIT_LLAMA3; /* it matches all of any text */
    bool isolated = strcmp(behavior, "Isolated") == 0;
    bool removed = covers && invert && strcmp(behavior, "Removed") == 0;
    if (!isolated && !removed) { TRY(json_rules_refuse(step, "pre_tokenizer", what)); }
    TRY(peft__pretok_add(&t->pretok, stage.rule, stage.max, what));
out:
    return st;
}

/* One step; *bytes: a ByteLevel step came before, after which other characters than ASCII look different. */
static peft_status json_rules_pre_tokenizer(peft__tokenizer *t, const peft__json *step, const char *what, bool *bytes) {
    peft_status st = PEFT_OK;
    const peft__json *type = peft__json_find(step, "type");
    bool on = false;
    size_t before = t->pretok.count;
    if (peft__json_is(type, "ByteLevel")) {
        TRY(peft__json_bool(step, what, "add_prefix_space", true, &on));
        if (on) {
            t->prefix = PEFT__PREFIX_ALWAYS;
            t->prefix_once = true;
        }
        TRY(peft__json_bool(step, what, "use_regex", true, &on));
        if (on && *bytes) { TRY(json_rules_refuse(step, "pre_tokenizer", what)); }
        if (on) { TRY(peft__pretok_add(&t->pretok, PEFT__SPLIT_GPT2, 0, what)); }
        *bytes = true;
        goto out;
    }
    if (peft__json_is(type, "Digits")) {
        TRY(peft__json_bool(step, what, "individual_digits", false, &on));
        TRY(peft__pretok_add(&t->pretok, PEFT__SPLIT_DIGITS, on ? 1 : 0, what));
    } else if (peft__json_is(type, "Metaspace")) {
        TRY(json_rules_metaspace(t, step, what));
    } else if (peft__json_is(type, "Split")) {
        TRY(json_rules_split(t, step, what));
    } else {
        TRY(json_rules_refuse(step, "pre_tokenizer", what));
    }
    if (*bytes && t->pretok.count > before && t->pretok.stages[before].rule != PEFT__SPLIT_TRIPLE) {
        TRY(json_rules_refuse(step, "pre_tokenizer", what));
    }
out:
    return st;
}

static void json_rules_decoder(peft__tokenizer *t, const peft__json *step) {
    const peft__json *type = peft__json_find(step, "type"), *start = peft__json_find(step, "start");
    if (t->kind != PEFT__TOK_SPM) { return; }
    if (peft__json_is(type, "Strip") && peft__json_is(peft__json_find(step, "content"), " ")) {
        t->strip_first = start != NULL && start->is_int && start->i > 0;
    }
    if (peft__json_is(type, "Metaspace")) {
        const peft__json *old = peft__json_find(step, "add_prefix_space"),
                         *scheme = peft__json_find(step, "prepend_scheme");
        t->strip_first = scheme != NULL ? !peft__json_is(scheme, "never") : old == NULL || old->truth;
    }
}

peft_status peft__tok_json_rules(peft__tokenizer *t, const peft__json *root, const char *what) {
    peft_status st = PEFT_OK;
    const peft__json *steps = NULL;
    bool bytes = false;
    t->no_marks = true; /* until a step says that spaces are written as U+2581 */
    size_t n = json_rules_steps(peft__json_find(root, "normalizer"), "normalizers", &steps);
    for (size_t i = 0; i < n; i++) { TRY(json_rules_normalizer(t, &steps[i], what)); }
    n = json_rules_steps(peft__json_find(root, "pre_tokenizer"), "pretokenizers", &steps);
    for (size_t i = 0; i < n; i++) { TRY(json_rules_pre_tokenizer(t, &steps[i], what, &bytes)); }
    n = json_rules_steps(peft__json_find(root, "decoder"), "decoders", &steps);
    for (size_t i = 0; i < n; i++) { json_rules_decoder(t, &steps[i]); }
out:
    return st;
}

/* ---- post_processor ---- */

static peft_status json_rules_affix(peft__tokenizer *t, int64_t id, bool lead, const char *what) {
    size_t *count = lead ? &t->n_lead : &t->n_trail;
    if (id < 0 || (uint64_t)id >= t->count || *count == PEFT__TOK_AFFIXES) {
        return peft__fail(PEFT_E_FORMAT, "%s: the post_processor adds token %lld, expected at most %d ids below %zu",
                          what, (long long)id, PEFT__TOK_AFFIXES, t->count);
    }
    (lead ? t->lead : t->trail)[(*count)++] = (int32_t)id;
    return PEFT_OK;
}

/* "single": [{"SpecialToken": {"id": text}}, {"Sequence": ...}, ...] with "special_tokens": {text: {"ids": [...]}}. */
static peft_status json_rules_template(peft__tokenizer *t, const peft__json *step, const char *what) {
    peft_status st = PEFT_OK;
    const peft__json *single = peft__json_find(step, "single"), *table = peft__json_find(step, "special_tokens");
    bool lead = true;
    if (single == NULL || single->kind != PEFT__JSON_ARRAY) {
        FAIL(PEFT_E_FORMAT, "%s: the post_processor has no list \"single\"", what);
    }
    for (size_t i = 0; i < single->len; i++) {
        const peft__json *name = peft__json_find(peft__json_find(&single->items[i], "SpecialToken"), "id");
        if (name == NULL || name->kind != PEFT__JSON_STRING) {
            lead = false;
            continue;
        }
        const peft__json *ids = peft__json_find(peft__json_find(table, name->str), "ids");
        if (ids == NULL || ids->kind != PEFT__JSON_ARRAY) {
            TRY(json_rules_affix(t, peft__tokenizer_id(t, name->str, name->len), lead, what));
            continue;
        }
        for (size_t k = 0; k < ids->len; k++) {
            TRY(json_rules_affix(t, ids->items[k].is_int ? ids->items[k].i : -1, lead, what));
        }
    }
out:
    return st;
}

static peft_status json_rules_pair(peft__tokenizer *t, const peft__json *step, const char *key, bool lead,
                                   const char *what) {
    const peft__json *pair = peft__json_find(step, key);
    bool good = pair != NULL && pair->kind == PEFT__JSON_ARRAY && pair->len == 2 && pair->items[1].is_int;
    return json_rules_affix(t, good ? pair->items[1].i : -1, lead, what);
}

peft_status peft__tok_json_affixes(peft__tokenizer *t, const peft__json *root, const char *what) {
    peft_status st = PEFT_OK;
    const peft__json *steps = NULL;
    size_t n = json_rules_steps(peft__json_find(root, "post_processor"), "processors", &steps);
    for (size_t i = 0; i < n; i++) {
        const peft__json *type = peft__json_find(&steps[i], "type");
        if (peft__json_is(type, "TemplateProcessing")) {
            TRY(json_rules_template(t, &steps[i], what));
        } else if (peft__json_is(type, "BertProcessing") || peft__json_is(type, "RobertaProcessing")) {
            TRY(json_rules_pair(t, &steps[i], "cls", true, what));
            TRY(json_rules_pair(t, &steps[i], "sep", false, what));
        } else if (!peft__json_is(type, "ByteLevel")) {
            TRY(json_rules_refuse(&steps[i], "post_processor", what));
        }
    }
out:
    return st;
}
