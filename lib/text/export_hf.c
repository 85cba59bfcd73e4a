/* export_hf.c - writes tokenizer.json and tokenizer_config.json, as Hugging Face's tokenizers and transformers read them.
 *
 * Left out: squeezed spaces of SentencePiece (there is no step for them that would give the same ids in every text). */
#include "text/parts.h"

static void hf_key_text(peft__json_out *j, const char *key, const char *text) {
    peft__json_key(j, key);
    peft__json_put_text(j, text);
}

static void hf_key_bool(peft__json_out *j, const char *key, bool on) {
    peft__json_key(j, key);
    peft__json_put_bool(j, on);
}

static void hf_begin(peft__json_out *j, const char *type) {
    peft__json_object(j);
    hf_key_text(j, "type", type);
}

static void hf_token(const peft__tokenizer *t, peft__json_out *j, int32_t id) {
    peft__json_put_str(j, t->tokens[id].text, t->tokens[id].len);
}

/* A token as a key, which wants a NUL behind it. */
static void hf_token_key(const peft__tokenizer *t, peft__json_out *j, int32_t id, peft__str *scratch) {
    peft__str_clear(scratch);
    peft__str_put(scratch, t->tokens[id].text, t->tokens[id].len);
    peft__json_key(j, peft__str_c(scratch));
}

static void hf_added(const peft__tokenizer *t, peft__json_out *j) {
    peft__json_key(j, "added_tokens");
    peft__json_array(j);
    for (size_t i = 0; i < t->count; i++) { /* by id, as the reader wants them */
        const peft__token *k = &t->tokens[i];
        bool special = k->type == PEFT__TOKEN_CONTROL || k->type == PEFT__TOKEN_UNKNOWN;
        if ((!special && k->type != PEFT__TOKEN_USER) || k->len == 0) { continue; }
        peft__json_object(j);
        peft__json_key(j, "id");
        peft__json_put_int(j, (int64_t)i);
        peft__json_key(j, "content");
        hf_token(t, j, (int32_t)i);
        hf_key_bool(j, "single_word", (k->match & PEFT__TOKEN_WHOLE) != 0);
        hf_key_bool(j, "lstrip", (k->match & PEFT__TOKEN_LSTRIP) != 0);
        hf_key_bool(j, "rstrip", (k->match & PEFT__TOKEN_RSTRIP) != 0);
        hf_key_bool(j, "normalized", false);
        hf_key_bool(j, "special", special);
        peft__json_object_end(j);
    }
    peft__json_array_end(j);
}

static void hf_replace(peft__json_out *j, const char *from, const char *to) {
    hf_begin(j, "Replace");
    peft__json_key(j, "pattern");
    peft__json_object(j);
    hf_key_text(j, "String", from);
    peft__json_object_end(j);
    hf_key_text(j, "content", to);
    peft__json_object_end(j);
}

static void hf_normalizer(const peft__tokenizer *t, peft__json_out *j) {
    bool spm = t->kind == PEFT__TOK_SPM && !t->no_marks;
    peft__json_key(j, "normalizer");
    if (!spm && !t->nfc) {
        peft__json_put_null(j);
        return;
    }
    hf_begin(j, "Sequence");
    peft__json_key(j, "normalizers");
    peft__json_array(j);
    if (t->nfc) {
        hf_begin(j, "NFC");
        peft__json_object_end(j);
    }
    if (spm && t->prefix == PEFT__PREFIX_ALWAYS && !t->prefix_once) {
        hf_begin(j, "Prepend");
        hf_key_text(j, "prepend", "\xE2\x96\x81");
        peft__json_object_end(j);
    }
    if (spm) { hf_replace(j, " ", "\xE2\x96\x81"); }
    peft__json_array_end(j);
    peft__json_object_end(j);
}

static void hf_metaspace(const peft__tokenizer *t, peft__json_out *j, bool split) {
    hf_begin(j, "Metaspace");
    hf_key_text(j, "replacement", "\xE2\x96\x81");
    hf_key_text(j, "prepend_scheme",
                t->prefix == PEFT__PREFIX_NEVER   ? "never"
                : t->prefix == PEFT__PREFIX_FIRST ? "first"
                                                  : "always");
    hf_key_bool(j, "split", split);
    peft__json_object_end(j);
}

static void hf_byte_level(const peft__tokenizer *t, peft__json_out *j, bool regex, bool pre) {
    hf_begin(j, "ByteLevel");
    hf_key_bool(j, "add_prefix_space", pre && t->prefix != PEFT__PREFIX_NEVER);
    hf_key_bool(j, "trim_offsets", true);
    hf_key_bool(j, "use_regex", regex);
    peft__json_object_end(j);
}

static void hf_split(peft__json_out *j, const peft__split_stage *stage) {
    if (stage->rule == PEFT__SPLIT_DIGITS && stage->max <= 1) {
        hf_begin(j, "Digits");
        hf_key_bool(j, "individual_digits", stage->max == 1);
        peft__json_object_end(j);
        return;
    }
    hf_begin(j, "Split");
    peft__json_key(j, "pattern");
    peft__json_object(j);
    hf_key_text(j, "Regex", peft__pretok_regex(stage));
    peft__json_object_end(j);
    hf_key_text(j, "behavior", "Isolated");
    hf_key_bool(j, "invert", false);
    peft__json_object_end(j);
}

static void hf_pre_tokenizer(const peft__tokenizer *t, peft__json_out *j) {
    peft__json_key(j, "pre_tokenizer");
    if (t->kind == PEFT__TOK_SPM) {
        bool split = t->pretok.count > 0 && t->pretok.stages[0].rule == PEFT__SPLIT_MARK;
        if (split || t->prefix_once || t->prefix == PEFT__PREFIX_FIRST) {
            hf_metaspace(t, j, split);
        } else {
            peft__json_put_null(j);
        }
        return;
    }
    hf_begin(j, "Sequence");
    peft__json_key(j, "pretokenizers");
    peft__json_array(j);
    for (size_t i = 0; i < t->pretok.count; i++) {
        bool last = i + 1 == t->pretok.count;
        if (last && t->pretok.stages[i].rule == PEFT__SPLIT_GPT2) { break; } /* ByteLevel does it */
        hf_split(j, &t->pretok.stages[i]);
    }
    bool regex = t->pretok.count > 0 && t->pretok.stages[t->pretok.count - 1].rule == PEFT__SPLIT_GPT2;
    hf_byte_level(t, j, regex, true);
    peft__json_array_end(j);
    peft__json_object_end(j);
}

static void hf_special(const peft__tokenizer *t, peft__json_out *j, int32_t id) {
    peft__json_object(j);
    peft__json_key(j, "SpecialToken");
    peft__json_object(j);
    peft__json_key(j, "id");
    hf_token(t, j, id);
    peft__json_key(j, "type_id");
    peft__json_put_int(j, 0);
    peft__json_object_end(j);
    peft__json_object_end(j);
}

static void hf_sequence(peft__json_out *j, const char *which, int64_t type) {
    peft__json_object(j);
    peft__json_key(j, "Sequence");
    peft__json_object(j);
    hf_key_text(j, "id", which);
    peft__json_key(j, "type_id");
    peft__json_put_int(j, type);
    peft__json_object_end(j);
    peft__json_object_end(j);
}

static void hf_template(const peft__tokenizer *t, peft__json_out *j, const char *key, bool pair) {
    peft__json_key(j, key);
    peft__json_array(j);
    for (size_t i = 0; i < t->n_lead; i++) { hf_special(t, j, t->lead[i]); }
    hf_sequence(j, "A", 0);
    if (pair) { hf_sequence(j, "B", 1); }
    for (size_t i = 0; i < t->n_trail; i++) { hf_special(t, j, t->trail[i]); }
    peft__json_array_end(j);
}

static void hf_post_processor(const peft__tokenizer *t, peft__json_out *j, peft__str *scratch) {
    peft__json_key(j, "post_processor");
    if (t->n_lead + t->n_trail == 0) {
        peft__json_put_null(j);
        return;
    }
    hf_begin(j, "TemplateProcessing");
    hf_template(t, j, "single", false);
    hf_template(t, j, "pair", true);
    peft__json_key(j, "special_tokens");
    peft__json_object(j);
    for (size_t i = 0; i < t->n_lead + t->n_trail; i++) {
        int32_t id = i < t->n_lead ? t->lead[i] : t->trail[i - t->n_lead];
        bool seen = false;
        for (size_t k = 0; k < i; k++) { seen = seen || (k < t->n_lead ? t->lead[k] : t->trail[k - t->n_lead]) == id; }
        if (seen) { continue; }
        hf_token_key(t, j, id, scratch);
        peft__json_object(j);
        peft__json_key(j, "id");
        hf_token(t, j, id);
        peft__json_key(j, "ids");
        peft__json_array(j);
        peft__json_put_int(j, id);
        peft__json_array_end(j);
        peft__json_key(j, "tokens");
        peft__json_array(j);
        hf_token(t, j, id);
        peft__json_array_end(j);
        peft__json_object_end(j);
    }
    peft__json_object_end(j);
    peft__json_object_end(j);
}

static void hf_decoder(const peft__tokenizer *t, peft__json_out *j) {
    peft__json_key(j, "decoder");
    if (t->kind == PEFT__TOK_BYTES) {
        hf_byte_level(t, j, true, false);
        return;
    }
    hf_begin(j, "Sequence");
    peft__json_key(j, "decoders");
    peft__json_array(j);
    if (!t->no_marks) { hf_replace(j, "\xE2\x96\x81", " "); }
    hf_begin(j, "ByteFallback");
    peft__json_object_end(j);
    hf_begin(j, "Fuse");
    peft__json_object_end(j);
    if (t->strip_first) {
        hf_begin(j, "Strip");
        hf_key_text(j, "content", " ");
        peft__json_key(j, "start");
        peft__json_put_int(j, 1);
        peft__json_key(j, "stop");
        peft__json_put_int(j, 0);
        peft__json_object_end(j);
    }
    peft__json_array_end(j);
    peft__json_object_end(j);
}

static void hf_model(const peft__tokenizer *t, peft__json_out *j, peft__str *scratch) {
    bool spm = t->kind == PEFT__TOK_SPM, bytes = false;
    for (size_t b = 0; b < 256; b++) { bytes = bytes || (spm && t->byte_ids[b] >= 0); }
    peft__json_key(j, "model");
    hf_begin(j, "BPE");
    peft__json_key(j, "dropout");
    peft__json_put_null(j);
    peft__json_key(j, "unk_token");
    if (spm && t->unk >= 0) {
        hf_token(t, j, t->unk);
    } else {
        peft__json_put_null(j);
    }
    hf_key_text(j, "continuing_subword_prefix", NULL);
    hf_key_text(j, "end_of_word_suffix", NULL);
    hf_key_bool(j, "fuse_unk", t->fuse_unk);
    hf_key_bool(j, "byte_fallback", bytes);
    hf_key_bool(j, "ignore_merges", t->ignore_merges);
    peft__json_key(j, "vocab");
    peft__json_object(j);
    for (size_t i = 0; i < t->count; i++) {
        const peft__token *k = &t->tokens[i];
        if (k->type == 0 || peft__map_get(&t->index, k->text, k->len) != (int64_t)i) {
            continue;
        } /* a name given twice */
        hf_token_key(t, j, (int32_t)i, scratch);
        peft__json_put_int(j, (int64_t)i);
    }
    peft__json_object_end(j);
    peft__json_key(j, "merges");
    peft__json_array(j);
    for (size_t i = 0; i < t->merges.len; i++) {
        const peft__merge *m = &PEFT__VEC_AT(&t->merges, peft__merge, i);
        peft__json_array(j);
        hf_token(t, j, m->left);
        hf_token(t, j, m->right);
        peft__json_array_end(j);
    }
    peft__json_array_end(j);
    peft__json_object_end(j);
}

static void hf_config(const peft__tokenizer *t, peft__json_out *j) {
    static const char *const keys[] = {"bos_token", "eos_token", "pad_token", "unk_token"};
    const int32_t ids[] = {t->bos, t->eos, t->pad, t->unk};
    peft__json_object(j);
    hf_key_text(j, "tokenizer_class", "PreTrainedTokenizerFast");
    hf_key_bool(j, "add_bos_token", t->n_lead > 0);
    hf_key_bool(j, "add_eos_token", t->n_trail > 0);
    for (size_t i = 0; i < PEFT__COUNT(keys); i++) {
        if (ids[i] < 0) { continue; }
        peft__json_key(j, keys[i]);
        hf_token(t, j, ids[i]);
    }
    peft__json_key(j, "model_input_names"); /* transformers' default has token_type_ids, which decoders refuse */
    peft__json_array(j);
    peft__json_put_text(j, "input_ids");
    peft__json_put_text(j, "attention_mask");
    peft__json_array_end(j);
    hf_key_bool(j, "clean_up_tokenization_spaces", false);
    if (t->chat_template != NULL) { hf_key_text(j, "chat_template", t->chat_template); }
    peft__json_object_end(j);
}

peft_status peft__tokenizer_to_hf(const peft__tokenizer *t, const char *dir) {
    peft_status st = PEFT_OK;
    peft__arena a;
    peft__str s, scratch;
    peft__json_out j;
    char *path = NULL;
    peft__arena_init(&a, t->mem);
    peft__str_init(&s, t->mem);
    peft__str_init(&scratch, t->mem);
    if (t->squeeze) { FAIL(PEFT_E_UNSUPPORTED, "a tokenizer that squeezes spaces has no form in tokenizer.json"); }
    TRY(peft__dir_make(dir));
    peft__json_begin(&j, &s, 0);
    peft__json_object(&j);
    hf_key_text(&j, "version", "1.0");
    hf_key_text(&j, "truncation", NULL);
    hf_key_text(&j, "padding", NULL);
    hf_added(t, &j);
    hf_normalizer(t, &j);
    hf_pre_tokenizer(t, &j);
    hf_post_processor(t, &j, &scratch);
    hf_decoder(t, &j);
    hf_model(t, &j, &scratch);
    peft__json_object_end(&j);
    TRY(peft__str_status(&scratch));
    TRY(peft__str_status(&s));
    TRY(peft__path_join(&a, dir, "tokenizer.json", &path));
    TRY(peft__save_text(t->mem, path, s.data, s.len));
    peft__str_clear(&s);
    peft__json_begin(&j, &s, 2);
    hf_config(t, &j);
    TRY(peft__str_status(&s));
    TRY(peft__path_join(&a, dir, "tokenizer_config.json", &path));
    TRY(peft__save_text(t->mem, path, s.data, s.len));
out:
    peft__str_free(&scratch);
    peft__str_free(&s);
    peft__arena_free(&a);
    return st;
}
