/* export_hf_rules.c - writes the pipeline around the model of tokenizer.json: the converse of tokenizer_json_rules.c,
 * _norm.c and _post.c. Left out: nothing that those read. */
#include "text/parts.h"

static void hf_replace(peft__json_out *j, const char *from, const char *to) {
    peft__hf_begin(j, "Replace");
    peft__json_key(j, "pattern");
    peft__json_object(j);
    peft__hf_text(j, "String", from);
    peft__json_object_end(j);
    peft__hf_text(j, "content", to);
    peft__json_object_end(j);
}

static void hf_bert_normalizer(peft__json_out *j, int32_t flags) {
    peft__hf_begin(j, "BertNormalizer");
    peft__hf_bool(j, "clean_text", (flags & 1) != 0);
    peft__hf_bool(j, "handle_chinese_chars", (flags & 2) != 0);
    if (flags & 16) {
        peft__hf_text(j, "strip_accents", NULL);
    } else {
        peft__hf_bool(j, "strip_accents", (flags & 4) != 0);
    }
    peft__hf_bool(j, "lowercase", (flags & 8) != 0);
    peft__json_object_end(j);
}

static void hf_charsmap(const peft__tokenizer *t, peft__json_out *j, peft__str *scratch) {
    peft__str_clear(scratch);
    peft__charsmap_put_base64(&t->charsmap, scratch);
    peft__hf_begin(j, "Precompiled");
    peft__hf_text(j, "precompiled_charsmap", peft__str_c(scratch));
    peft__json_object_end(j);
}

static void hf_strip(peft__json_out *j, int32_t sides) {
    peft__hf_begin(j, "Strip");
    peft__hf_bool(j, "strip_left", (sides & 1) != 0);
    peft__hf_bool(j, "strip_right", (sides & 2) != 0);
    peft__json_object_end(j);
}

static void hf_replace_step(peft__json_out *j, const peft__norm_step *step) {
    peft__hf_begin(j, "Replace");
    peft__json_key(j, "pattern");
    peft__json_object(j);
    peft__json_key(j, step->flags == 0 ? "String" : "Regex");
    peft__json_put_str(j, step->from, step->from_len);
    peft__json_object_end(j);
    peft__json_key(j, "content");
    peft__json_put_str(j, step->to, step->to_len);
    peft__json_object_end(j);
}

static void hf_step(const peft__tokenizer *t, peft__json_out *j, const peft__norm_step *step, peft__str *scratch) {
    static const char *const forms[] = {"NFD", "NFKD", "NFC", "NFKC"};
    const char *type = step->op == PEFT__NORM_FORM      ? forms[step->flags & 3]
                       : step->op == PEFT__NORM_LOWER   ? "Lowercase"
                       : step->op == PEFT__NORM_ACCENTS ? "StripAccents"
                       : step->op == PEFT__NORM_NMT     ? "Nmt"
                                                        : "Prepend";
    switch (step->op) {
        case PEFT__NORM_BERT: hf_bert_normalizer(j, step->flags); break;
        case PEFT__NORM_STRIP: hf_strip(j, step->flags); break;
        case PEFT__NORM_REPLACE: hf_replace_step(j, step); break;
        case PEFT__NORM_CHARSMAP: hf_charsmap(t, j, scratch); break;
        default:
            peft__hf_begin(j, type);
            if (step->op == PEFT__NORM_PREPEND) {
                peft__json_key(j, "prepend");
                peft__json_put_str(j, step->to, step->to_len);
            }
            peft__json_object_end(j);
            break;
    }
}

static void hf_normalizer(const peft__tokenizer *t, peft__json_out *j, peft__str *scratch) {
    bool spm = t->kind == PEFT__TOK_SPM && !t->no_marks, squeezed = t->kind == PEFT__TOK_UNIGRAM && t->squeeze;
    peft__json_key(j, "normalizer");
    if (!spm && !squeezed && t->steps.len == 0) {
        peft__json_put_null(j);
        return;
    }
    peft__hf_begin(j, "Sequence");
    peft__json_key(j, "normalizers");
    peft__json_array(j);
    for (size_t i = 0; i < t->steps.len; i++) { hf_step(t, j, &PEFT__VEC_AT(&t->steps, peft__norm_step, i), scratch); }
    if (spm && t->prefix == PEFT__PREFIX_ALWAYS && !t->prefix_once) {
        peft__hf_begin(j, "Prepend");
        peft__hf_text(j, "prepend", "\xE2\x96\x81");
        peft__json_object_end(j);
    }
    if (spm) { hf_replace(j, " ", "\xE2\x96\x81"); }
    if (squeezed) {
        static const peft__norm_step spaces = {
            .op = PEFT__NORM_REPLACE, .flags = 1, .from = " {2,}", .from_len = 5, .to = "\xE2\x96\x81", .to_len = 3};
        hf_strip(j, 2);
        hf_replace_step(j, &spaces);
    }
    peft__json_array_end(j);
    peft__json_object_end(j);
}

static void hf_metaspace(const peft__tokenizer *t, peft__json_out *j, bool pre, bool split) {
    bool never = pre ? t->prefix == PEFT__PREFIX_NEVER : !t->strip_first && !t->strip_marks;
    peft__hf_begin(j, "Metaspace");
    peft__hf_text(j, "replacement", "\xE2\x96\x81");
    peft__hf_text(j, "prepend_scheme", never ? "never" : t->prefix == PEFT__PREFIX_FIRST ? "first" : "always");
    peft__hf_bool(j, "split", split);
    peft__json_object_end(j);
}

static void hf_byte_level(const peft__tokenizer *t, peft__json_out *j, bool regex, bool pre) {
    peft__hf_begin(j, "ByteLevel");
    peft__hf_bool(j, "add_prefix_space", pre && t->prefix != PEFT__PREFIX_NEVER);
    peft__hf_bool(j, "trim_offsets", true);
    peft__hf_bool(j, "use_regex", regex);
    peft__json_object_end(j);
}

static void hf_plain(peft__json_out *j, const char *type, const char *key, const char *value) {
    peft__hf_begin(j, type);
    if (key != NULL) { peft__hf_text(j, key, value); }
    peft__json_object_end(j);
}

static void hf_split(peft__json_out *j, const peft__split_stage *stage) {
    switch (stage->rule) {
        case PEFT__SPLIT_BERT: hf_plain(j, "BertPreTokenizer", NULL, NULL); return;
        case PEFT__SPLIT_SPACE: hf_plain(j, "WhitespaceSplit", NULL, NULL); return;
        case PEFT__SPLIT_WORDS: hf_plain(j, "Whitespace", NULL, NULL); return;
        case PEFT__SPLIT_SIGNS:
            hf_plain(j, "Punctuation", "behavior", stage->max == 1 ? "Isolated" : "Contiguous");
            return;
        default: break;
    }
    if (stage->rule == PEFT__SPLIT_DIGITS && stage->max <= 1) {
        peft__hf_begin(j, "Digits");
        peft__hf_bool(j, "individual_digits", stage->max == 1);
        peft__json_object_end(j);
        return;
    }
    peft__hf_begin(j, "Split");
    peft__json_key(j, "pattern");
    peft__json_object(j);
    peft__hf_text(j, "Regex", peft__pretok_regex(stage));
    peft__json_object_end(j);
    peft__hf_text(j, "behavior", "Isolated");
    peft__hf_bool(j, "invert", false);
    peft__json_object_end(j);
}

/* Steps of byte-level BPE: with a prefix, ByteLevel stands where that is put; else at the end. */
static void hf_byte_steps(const peft__tokenizer *t, peft__json_out *j) {
    bool prefix = t->prefix != PEFT__PREFIX_NEVER, done = false;
    for (size_t i = 0; i <= t->pretok.count; i++) {
        bool end = i == t->pretok.count, gpt2 = !end && t->pretok.stages[i].rule == PEFT__SPLIT_GPT2;
        if (!done && (prefix ? i == t->late : end || (gpt2 && i + 1 == t->pretok.count))) {
            hf_byte_level(t, j, gpt2, true);
            done = true;
            if (gpt2) { continue; } /* ByteLevel does it */
        }
        if (!end) { hf_split(j, &t->pretok.stages[i]); }
    }
}

static void hf_pre_tokenizer(const peft__tokenizer *t, peft__json_out *j) {
    bool spaced = t->kind == PEFT__TOK_SPM || t->kind == PEFT__TOK_UNIGRAM;
    bool split = t->pretok.count > t->late && t->pretok.stages[t->late].rule == PEFT__SPLIT_MARK;
    bool meta = spaced && (split || t->prefix_once || t->prefix == PEFT__PREFIX_FIRST ||
                           (t->kind == PEFT__TOK_UNIGRAM && !t->no_marks));
    peft__json_key(j, "pre_tokenizer");
    if (spaced && !meta && (t->kind == PEFT__TOK_SPM || t->pretok.count == 0)) {
        peft__json_put_null(j);
        return;
    }
    peft__hf_begin(j, "Sequence");
    peft__json_key(j, "pretokenizers");
    peft__json_array(j);
    if (t->kind == PEFT__TOK_BYTES) {
        hf_byte_steps(t, j);
    } else {
        for (size_t i = 0; i <= t->pretok.count; i++) {
            /* A unigram model of SentencePiece has no such step, and Hugging Face's conversion splits. */
            if (meta && i == t->late) { hf_metaspace(t, j, true, split || t->users_inside); }
            bool own = i < t->pretok.count && t->pretok.stages[i].rule != PEFT__SPLIT_MARK &&
                       t->pretok.stages[i].rule != PEFT__SPLIT_MARKS;
            if (own) { hf_split(j, &t->pretok.stages[i]); }
        }
    }
    peft__json_array_end(j);
    peft__json_object_end(j);
}

static void hf_template_item(const peft__tokenizer *t, peft__json_out *j, peft__template_item item) {
    peft__json_object(j);
    peft__json_key(j, item.id >= 0 ? "SpecialToken" : "Sequence");
    peft__json_object(j);
    peft__json_key(j, "id");
    if (item.id >= 0) {
        peft__hf_token(t, j, item.id);
    } else {
        peft__json_put_text(j, item.id == PEFT__PART_FIRST ? "A" : "B");
    }
    peft__json_key(j, "type_id");
    peft__json_put_int(j, item.type);
    peft__json_object_end(j);
    peft__json_object_end(j);
}

static void hf_template_single(const peft__tokenizer *t, peft__json_out *j) {
    peft__json_key(j, "single");
    peft__json_array(j);
    for (size_t i = 0; i < t->n_lead; i++) { hf_template_item(t, j, (peft__template_item){t->lead[i], 0}); }
    hf_template_item(t, j, (peft__template_item){PEFT__PART_FIRST, 0});
    for (size_t i = 0; i < t->n_trail; i++) { hf_template_item(t, j, (peft__template_item){t->trail[i], 0}); }
    peft__json_array_end(j);
}

static void hf_template_table(const peft__tokenizer *t, peft__json_out *j, peft__str *scratch) {
    int32_t ids[PEFT__TOK_PAIR + 2 * PEFT__TOK_AFFIXES];
    size_t n = 0;
    for (size_t i = 0; i < t->n_lead; i++) { ids[n++] = t->lead[i]; }
    for (size_t i = 0; i < t->n_trail; i++) { ids[n++] = t->trail[i]; }
    for (size_t i = 0; i < t->n_pair; i++) { ids[n++] = t->pair[i].id; }
    peft__json_key(j, "special_tokens");
    peft__json_object(j);
    for (size_t i = 0; i < n; i++) {
        bool seen = ids[i] < 0;
        for (size_t k = 0; k < i; k++) { seen = seen || ids[k] == ids[i]; }
        if (seen) { continue; }
        peft__hf_token_key(t, j, ids[i], scratch);
        peft__json_object(j);
        peft__json_key(j, "id");
        peft__hf_token(t, j, ids[i]);
        peft__json_key(j, "ids");
        peft__json_array(j);
        peft__json_put_int(j, ids[i]);
        peft__json_array_end(j);
        peft__json_key(j, "tokens");
        peft__json_array(j);
        peft__hf_token(t, j, ids[i]);
        peft__json_array_end(j);
        peft__json_object_end(j);
    }
    peft__json_object_end(j);
}

static void hf_trim(const peft__tokenizer *t, peft__json_out *j) {
    peft__hf_begin(j, "ByteLevel");
    peft__hf_bool(j, "add_prefix_space", t->trim_prefix);
    peft__hf_bool(j, "trim_offsets", true);
    peft__hf_bool(j, "use_regex", true);
    peft__json_object_end(j);
}

static void hf_post_processor(const peft__tokenizer *t, peft__json_out *j, peft__str *scratch) {
    bool around = t->n_lead + t->n_trail > 0;
    peft__json_key(j, "post_processor");
    if (!around && !t->trim) {
        peft__json_put_null(j);
        return;
    }
    if (t->trim && around) {
        peft__hf_begin(j, "Sequence");
        peft__json_key(j, "processors");
        peft__json_array(j);
    }
    if (t->trim) { hf_trim(t, j); }
    if (around) {
        peft__hf_begin(j, "TemplateProcessing");
        hf_template_single(t, j);
        peft__json_key(j, "pair");
        peft__json_array(j);
        for (size_t i = 0; i < t->n_pair; i++) { hf_template_item(t, j, t->pair[i]); }
        peft__json_array_end(j);
        hf_template_table(t, j, scratch);
        peft__json_object_end(j);
    }
    if (t->trim && around) {
        peft__json_array_end(j);
        peft__json_object_end(j);
    }
}

static void hf_decoder(const peft__tokenizer *t, peft__json_out *j) {
    peft__json_key(j, "decoder");
    if (t->kind == PEFT__TOK_BYTES) {
        hf_byte_level(t, j, true, false);
        return;
    }
    if (t->kind == PEFT__TOK_WORDPIECE) {
        peft__hf_begin(j, "WordPiece");
        peft__hf_text(j, "prefix", t->joint);
        peft__hf_bool(j, "cleanup", t->cleans);
        peft__json_object_end(j);
        return;
    }
    bool bytes = false;
    for (size_t b = 0; b < 256; b++) { bytes = bytes || t->byte_ids[b] >= 0; }
    if (t->kind == PEFT__TOK_UNIGRAM && !bytes) {
        hf_metaspace(t, j, false, true);
        return;
    }
    peft__hf_begin(j, "Sequence");
    peft__json_key(j, "decoders");
    peft__json_array(j);
    if (!t->no_marks) { hf_replace(j, "\xE2\x96\x81", " "); }
    peft__hf_begin(j, "ByteFallback");
    peft__json_object_end(j);
    peft__hf_begin(j, "Fuse");
    peft__json_object_end(j);
    if (t->strip_first) {
        peft__hf_begin(j, "Strip");
        peft__hf_text(j, "content", " ");
        peft__json_key(j, "start");
        peft__json_put_int(j, 1);
        peft__json_key(j, "stop");
        peft__json_put_int(j, 0);
        peft__json_object_end(j);
    }
    peft__json_array_end(j);
    peft__json_object_end(j);
}

void peft__export_hf_rules(const peft__tokenizer *t, peft__json_out *j, peft__str *scratch) {
    hf_normalizer(t, j, scratch);
    hf_pre_tokenizer(t, j);
    hf_post_processor(t, j, scratch);
    hf_decoder(t, j);
}
