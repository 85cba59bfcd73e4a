/* tokenizer_json_rules.c - the pipeline around the model in tokenizer.json.
 *
 * normalizer: see tokenizer_json_norm.c. post_processor: see tokenizer_json_post.c.
 * pre_tokenizer: ByteLevel, Digits, Metaspace, BertPreTokenizer, WhitespaceSplit, Whitespace, Punctuation, and Split by one
 * of the known expressions; in sequence.
 * decoder: only what happens to the first space, and how WordPiece joins; bytes and spaces follow from the vocabulary.
 * Left out: every other step; it is refused by name. */
#include "text/parts.h"

static const char json_rules_mark[] = "\xE2\x96\x81";

/* The steps of a node: those of a Sequence, the node itself, or none. `list` is the key of a Sequence's steps. */
size_t peft__tok_json_steps(const peft__json *node, const char *list, const peft__json **steps) {
    *steps = NULL;
    if (node == NULL || node->kind != PEFT__JSON_OBJECT) { return 0; }
    const peft__json *items = peft__json_is(peft__json_find(node, "type"), "Sequence") ? peft__json_find(node, list) : NULL;
    if (items == NULL || items->kind != PEFT__JSON_ARRAY) { /* a Sequence without a list is for its reader to refuse */
        *steps = node;
        return 1;
    }
    *steps = items->items;
    return items->len;
}

bool peft__tok_json_has(const peft__json *node, const char *type) {
    static const char *const lists[] = {"pretokenizers", "decoders", "normalizers"};
    for (size_t l = 0; l < PEFT__COUNT(lists); l++) {
        const peft__json *steps = NULL;
        size_t n = peft__tok_json_steps(node, lists[l], &steps);
        for (size_t i = 0; i < n; i++) {
            if (peft__json_is(peft__json_find(&steps[i], "type"), type)) { return true; }
        }
    }
    return false;
}

static peft_status json_rules_metaspace(peft__tokenizer *t, const peft__json *step, const char *what) {
    peft_status st = PEFT_OK;
    const char *scheme = NULL, *mark = NULL;
    bool prefix = true, split = true;
    TRY(peft__json_str(step, what, "replacement", json_rules_mark, &mark));
    TRY(peft__json_bool(step, what, "add_prefix_space", true, &prefix));
    TRY(peft__json_str(step, what, "prepend_scheme", prefix ? "always" : "never", &scheme));
    TRY(peft__json_bool(step, what, "split", true, &split));
    bool spaced = t->kind == PEFT__TOK_SPM || t->kind == PEFT__TOK_UNIGRAM;
    if (!spaced || strcmp(mark, json_rules_mark) != 0) { TRY(peft__tok_json_refuse(step, "pre_tokenizer", what)); }
    t->no_marks = false;
    t->prefix = strcmp(scheme, "never") == 0   ? PEFT__PREFIX_NEVER
                : strcmp(scheme, "first") == 0 ? PEFT__PREFIX_FIRST
                                               : PEFT__PREFIX_ALWAYS;
    t->prefix_once = true;
    t->late = t->pretok.count;
    if (split) { TRY(peft__pretok_add(&t->pretok, PEFT__SPLIT_MARK, 0, what)); }
out:
    return st;
}

static peft_status json_rules_split(peft__tokenizer *t, const peft__json *step, const char *what) {
    peft_status st = PEFT_OK;
    bool regex = false, invert = false;
    const char *behavior = NULL, *pattern = peft__tok_json_pattern(step, &regex);
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
    if (!isolated && !removed) { TRY(peft__tok_json_refuse(step, "pre_tokenizer", what)); }
    TRY(peft__pretok_add(&t->pretok, stage.rule, stage.max, what));
out:
    return st;
}

static peft_status json_rules_byte_level(peft__tokenizer *t, const peft__json *step, const char *what, bool *bytes) {
    peft_status st = PEFT_OK;
    bool on = false;
    if (t->kind != PEFT__TOK_BYTES) { TRY(peft__tok_json_refuse(step, "pre_tokenizer", what)); }
    TRY(peft__json_bool(step, what, "add_prefix_space", true, &on));
    if (on) {
        t->prefix = PEFT__PREFIX_ALWAYS;
        t->prefix_once = true;
        t->late = t->pretok.count;
    }
    TRY(peft__json_bool(step, what, "use_regex", true, &on));
    if (on && *bytes) { TRY(peft__tok_json_refuse(step, "pre_tokenizer", what)); }
    if (on) { TRY(peft__pretok_add(&t->pretok, PEFT__SPLIT_GPT2, 0, what)); }
    *bytes = true;
out:
    return st;
}

static peft_status json_rules_punctuation(peft__tokenizer *t, const peft__json *step, const char *what) {
    peft_status st = PEFT_OK;
    const char *behavior = NULL;
    TRY(peft__json_str(step, what, "behavior", "Isolated", &behavior));
    bool each = strcmp(behavior, "Isolated") == 0;
    if (!each && strcmp(behavior, "Contiguous") != 0) { TRY(peft__tok_json_refuse(step, "pre_tokenizer", what)); }
    TRY(peft__pretok_add(&t->pretok, PEFT__SPLIT_SIGNS, each ? 1 : 0, what));
out:
    return st;
}

/* One step; *bytes: a ByteLevel step came before, after which other characters than ASCII look different. */
static peft_status json_rules_pre_tokenizer(peft__tokenizer *t, const peft__json *step, const char *what, bool *bytes) {
    static const struct {
        const char *type;
        int32_t rule;
    } plain[] = {{"BertPreTokenizer", PEFT__SPLIT_BERT},
                 {"WhitespaceSplit", PEFT__SPLIT_SPACE},
                 {"Whitespace", PEFT__SPLIT_WORDS}};
    peft_status st = PEFT_OK;
    const peft__json *type = peft__json_find(step, "type");
    bool on = false;
    size_t before = t->pretok.count;
    if (peft__json_is(type, "ByteLevel")) {
        st = json_rules_byte_level(t, step, what, bytes);
        goto out;
    }
    int32_t rule = 0;
    for (size_t i = 0; i < PEFT__COUNT(plain); i++) {
        rule = peft__json_is(type, plain[i].type) ? plain[i].rule : rule;
    }
    if (rule != 0) {
        TRY(peft__pretok_add(&t->pretok, rule, 0, what));
    } else if (peft__json_is(type, "Digits")) {
        TRY(peft__json_bool(step, what, "individual_digits", false, &on));
        TRY(peft__pretok_add(&t->pretok, PEFT__SPLIT_DIGITS, on ? 1 : 0, what));
    } else if (peft__json_is(type, "Metaspace")) {
        TRY(json_rules_metaspace(t, step, what));
    } else if (peft__json_is(type, "Punctuation")) {
        TRY(json_rules_punctuation(t, step, what));
    } else if (peft__json_is(type, "Split")) {
        TRY(json_rules_split(t, step, what));
    } else {
        TRY(peft__tok_json_refuse(step, "pre_tokenizer", what));
    }
    if (*bytes && t->pretok.count > before && t->pretok.stages[before].rule != PEFT__SPLIT_TRIPLE) {
        TRY(peft__tok_json_refuse(step, "pre_tokenizer", what));
    }
out:
    return st;
}

static void json_rules_decoder(peft__tokenizer *t, const peft__json *step) {
    const peft__json *type = peft__json_find(step, "type"), *start = peft__json_find(step, "start");
    if (t->kind == PEFT__TOK_WORDPIECE && peft__json_is(type, "WordPiece")) {
        const peft__json *cleanup = peft__json_find(step, "cleanup");
        t->cleans = cleanup == NULL || cleanup->truth;
    }
    if (t->kind != PEFT__TOK_SPM && t->kind != PEFT__TOK_UNIGRAM) { return; }
    if (peft__json_is(type, "Strip") && peft__json_is(peft__json_find(step, "content"), " ")) {
        t->strip_first = start != NULL && start->is_int && start->i > 0;
    }
    if (peft__json_is(type, "Metaspace")) {
        const peft__json *old = peft__json_find(step, "add_prefix_space"),
                         *scheme = peft__json_find(step, "prepend_scheme");
        bool strip = scheme != NULL ? !peft__json_is(scheme, "never") : old == NULL || old->truth;
        *(t->kind == PEFT__TOK_SPM ? &t->strip_first : &t->strip_marks) = strip;
    }
}

peft_status peft__tok_json_rules(peft__tokenizer *t, const peft__json *root, const char *what) {
    peft_status st = PEFT_OK;
    const peft__json *steps = NULL;
    bool bytes = false;
    t->no_marks = true; /* until a step says that spaces are written as U+2581 */
    size_t n = peft__tok_json_steps(peft__json_find(root, "normalizer"), "normalizers", &steps);
    for (size_t i = 0; i < n; i++) { TRY(peft__tok_json_norm(t, &steps[i], what)); }
    n = peft__tok_json_steps(peft__json_find(root, "pre_tokenizer"), "pretokenizers", &steps);
    for (size_t i = 0; i < n; i++) { TRY(json_rules_pre_tokenizer(t, &steps[i], what, &bytes)); }
    n = peft__tok_json_steps(peft__json_find(root, "decoder"), "decoders", &steps);
    for (size_t i = 0; i < n; i++) { json_rules_decoder(t, &steps[i]); }
out:
    return st;
}
