/* tokenizer_gguf.c - the tokenizer inside a GGUF file: its tokenizer.ggml.* keys.
 *
 * https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, section on tokenizers. "llama" is SentencePiece BPE driven by
 * scores, "gpt2" byte-level BPE with merges, "bert" WordPiece, "t5" unigram. Values that a file leaves out are those that
 * llama.cpp assumes. A WordPiece vocabulary is written there with U+2581 at the front of words and nothing in front of the
 * pieces inside them; whether it folds case is not said: it does where no token has a capital letter of ASCII.
 * Left out: the rarer kinds; where llama.cpp splits or normalises otherwise than the model's own tokenizer, the latter. */
#include "text/parts.h"

static peft_status gguf_tok_array(const peft__tokenizer *t, const char *key, const char *path, int32_t elem,
                                  const peft__gguf_kv **out) {
    const peft__gguf_kv *kv = peft__gguf_get(&t->gguf, key);
    *out = kv;
    if (kv == NULL) { return PEFT_OK; }
    if (kv->type != PEFT__GGUF_ARRAY || kv->elem != elem) {
        return peft__fail(PEFT_E_FORMAT, "%s: %s is no array of %s", path, key,
                          elem == PEFT__GGUF_STRING ? "strings"
                          : elem == PEFT__GGUF_F32  ? "float32"
                                                    : "int32");
    }
    if (t->count > 0 && elem != PEFT__GGUF_STRING && kv->count != t->count) {
        return peft__fail(PEFT_E_FORMAT, "%s: %s has %zu elements, expected %zu, one a token", path, key, kv->count,
                          t->count);
    }
    return PEFT_OK;
}

static bool gguf_tok_looks_byte(const peft__gguf_str *s) {
    return s->len == 6 && memcmp(s->data, "<0x", 3) == 0 && s->data[5] == '>';
}

/* A token of WordPiece as vocab.txt spells it: *s gets a copy. */
static peft_status gguf_tok_wordpiece(peft__tokenizer *t, peft__gguf_str *s) {
    bool bare = s->len >= 2 && s->data[0] == '[' && s->data[s->len - 1] == ']';
    bool front = s->len >= 3 && memcmp(s->data, "\xE2\x96\x81", 3) == 0;
    if (front) {
        s->data += 3;
        s->len -= 3;
    } else if (!bare) {
        char *copy = peft__arena_alloc(&t->arena, s->len + 3);
        if (copy == NULL) { return PEFT_E_NOMEM; }
        copy[0] = copy[1] = '#';
        memcpy(copy + 2, s->data, s->len);
        s->data = copy;
        s->len += 2;
    }
    return PEFT_OK;
}

static peft_status gguf_tok_vocabulary(peft__tokenizer *t, const char *path) {
    peft_status st = PEFT_OK;
    const peft__gguf_kv *tokens = NULL, *types = NULL, *scores = NULL;
    peft__gguf_str s;
    TRY(gguf_tok_array(t, "tokenizer.ggml.tokens", path, PEFT__GGUF_STRING, &tokens));
    if (tokens == NULL) { FAIL(PEFT_E_FORMAT, "%s: the key tokenizer.ggml.tokens is missing", path); }
    TRY(peft__tok_reserve(t, tokens->count, path));
    TRY(gguf_tok_array(t, "tokenizer.ggml.token_type", path, PEFT__GGUF_I32, &types));
    TRY(gguf_tok_array(t, "tokenizer.ggml.scores", path, PEFT__GGUF_F32, &scores));
    if (scores == NULL && (t->kind == PEFT__TOK_SPM || t->kind == PEFT__TOK_UNIGRAM)) {
        FAIL(PEFT_E_FORMAT, "%s: the key tokenizer.ggml.scores is missing", path);
    }
    size_t pos = 0;
    for (size_t i = 0; peft__gguf_next_str(tokens, &pos, &s); i++) {
        int64_t type = PEFT__TOKEN_NORMAL;
        if (types != NULL) {
            type = peft__gguf_array_i64(types, i);
        } else if (t->kind != PEFT__TOK_BYTES && gguf_tok_looks_byte(&s)) {
            type = PEFT__TOKEN_BYTE;
        }
        if (type < 0 || type > PEFT__TOKEN_BYTE) {
            FAIL(PEFT_E_FORMAT, "%s: tokenizer.ggml.token_type of token %zu is %lld, expected 1 to 6", path, i,
                 (long long)type);
        }
        double score = scores == NULL ? 0 : peft__gguf_array_f64(scores, i);
        if (score != score) { FAIL(PEFT_E_FORMAT, "%s: tokenizer.ggml.scores of token %zu is NaN", path, i); }
        if (t->kind == PEFT__TOK_WORDPIECE) { TRY(gguf_tok_wordpiece(t, &s)); }
        TRY(peft__tok_set(t, i, s.data, s.len, type == 0 ? PEFT__TOKEN_NORMAL : (int32_t)type, (float)score));
    }
out:
    return st;
}

/* SentencePiece's character map, as an array of bytes. */
static peft_status gguf_tok_charsmap(peft__tokenizer *t, const char *path) {
    peft_status st = PEFT_OK;
    const peft__gguf_kv *map = peft__gguf_get(&t->gguf, "tokenizer.ggml.precompiled_charsmap");
    if (map == NULL || (map->type == PEFT__GGUF_ARRAY && map->count == 0)) { goto out; }
    if (map->type != PEFT__GGUF_ARRAY || (map->elem != PEFT__GGUF_U8 && map->elem != PEFT__GGUF_I8)) {
        FAIL(PEFT_E_FORMAT, "%s: tokenizer.ggml.precompiled_charsmap is no array of bytes", path);
    }
    TRY(peft__charsmap_read(map->raw, map->count, path, &t->charsmap));
    TRY(peft__normalise_add(t, PEFT__NORM_CHARSMAP, 1));
out:
    return st;
}

static bool gguf_tok_has_capitals(const peft__tokenizer *t) {
    for (size_t i = 0; i < t->count; i++) {
        const peft__token *k = &t->tokens[i];
        for (size_t p = 0; k->type == PEFT__TOKEN_NORMAL && k->text[0] != '[' && p < k->len; p++) {
            if (k->text[p] >= 'A' && k->text[p] <= 'Z') { return true; }
        }
    }
    return false;
}

static peft_status gguf_tok_rules(peft__tokenizer *t, const char *path) {
    peft_status st = PEFT_OK;
    if (t->kind == PEFT__TOK_UNIGRAM) {
        t->fuse_unk = t->users_inside = true;
        TRY(gguf_tok_charsmap(t, path));
    }
    if (t->kind == PEFT__TOK_WORDPIECE) {
        TRY(peft__normalise_add(t, PEFT__NORM_BERT, gguf_tok_has_capitals(t) ? 3 | 16 : 15 | 16));
        TRY(peft__pretok_add(&t->pretok, PEFT__SPLIT_BERT, 0, path));
        t->no_marks = t->joins = t->cleans = true;
        t->joint = "##";
        t->max_chars = 100;
    }
out:
    return st;
}

static peft_status gguf_tok_merges(peft__tokenizer *t, const char *path) {
    peft_status st = PEFT_OK;
    const peft__gguf_kv *merges = NULL;
    peft__gguf_str s;
    size_t pos = 0;
    TRY(gguf_tok_array(t, "tokenizer.ggml.merges", path, PEFT__GGUF_STRING, &merges));
    if (merges == NULL) { FAIL(PEFT_E_FORMAT, "%s: the key tokenizer.ggml.merges is missing", path); }
    TRY(peft__vec_reserve(&t->merges, merges->count));
    while (peft__gguf_next_str(merges, &pos, &s)) { TRY(peft__tok_merge_line(t, s.data, s.len, path)); }
out:
    return st;
}

static peft_status gguf_tok_id(const peft__tokenizer *t, const char *key, int32_t dflt, const char *path,
                               int32_t *out) {
    int64_t id = 0;
    peft_status st = peft__gguf_int(&t->gguf, key, dflt < 0 ? (int64_t)UINT32_MAX : dflt, 0, UINT32_MAX, &id);
    if (st != PEFT_OK) { return st; }
    if (id != UINT32_MAX && (uint64_t)id >= t->count) {
        if (peft__gguf_get(&t->gguf, key) == NULL) { /* an assumed id that this vocabulary does not reach */
            id = UINT32_MAX;
        } else {
            return peft__fail(PEFT_E_FORMAT, "%s: %s is %lld, expected less than %zu", path, key, (long long)id,
                              t->count);
        }
    }
    *out = id == UINT32_MAX ? -1 : (int32_t)id;
    return PEFT_OK;
}

static peft_status gguf_tok_bert_specials(peft__tokenizer *t, const char *path) {
    static const char cls_key[] = "tokenizer.ggml.cls_token_id", sep_key[] = "tokenizer.ggml.seperator_token_id";
    static const char sep_key_2[] = "tokenizer.ggml.separator_token_id"; /* newer files spell it right */
    peft_status st = PEFT_OK;
    int32_t cls = -1, sep = -1;
    TRY(gguf_tok_id(t, cls_key, peft__tokenizer_id(t, "[CLS]", 5), path, &cls));
    TRY(gguf_tok_id(t, sep_key, peft__tokenizer_id(t, "[SEP]", 5), path, &sep));
    TRY(gguf_tok_id(t, sep_key_2, sep, path, &sep));
    TRY(gguf_tok_id(t, "tokenizer.ggml.unknown_token_id", peft__tokenizer_id(t, "[UNK]", 5), path, &t->unk));
    TRY(gguf_tok_id(t, "tokenizer.ggml.mask_token_id", peft__tokenizer_id(t, "[MASK]", 6), path, &t->mask));
    const int32_t specials[] = {cls, sep, t->unk, t->mask, t->pad};
    for (size_t i = 0; i < PEFT__COUNT(specials); i++) {
        if (specials[i] >= 0) { t->tokens[specials[i]].type = PEFT__TOKEN_CONTROL; }
    }
    peft__tok_bert_template(t, cls, sep);
out:
    return st;
}

/* Text, end, text, end. */
static void gguf_tok_t5_template(peft__tokenizer *t) {
    for (int32_t i = 0; i < 2 && t->n_trail == 1 && t->n_lead == 0; i++) {
        t->pair[t->n_pair++] = (peft__template_item){i == 0 ? PEFT__PART_FIRST : PEFT__PART_SECOND, 0};
        t->pair[t->n_pair++] = (peft__template_item){t->trail[0], 0};
    }
}

static peft_status gguf_tok_specials(peft__tokenizer *t, const char *path, bool add_bos) {
    peft_status st = PEFT_OK;
    bool spm = t->kind == PEFT__TOK_SPM, unigram = t->kind == PEFT__TOK_UNIGRAM, prefix = false;
    int32_t eot = -1, eom = -1;
    TRY(gguf_tok_id(t, "tokenizer.ggml.bos_token_id", spm ? 1 : -1, path, &t->bos));
    TRY(gguf_tok_id(t, "tokenizer.ggml.eos_token_id", spm ? 2 : unigram ? 1 : -1, path, &t->eos));
    TRY(gguf_tok_id(t, "tokenizer.ggml.unknown_token_id", spm ? 0 : unigram ? 2 : -1, path, &t->unk));
    TRY(gguf_tok_id(t, "tokenizer.ggml.padding_token_id", unigram ? 0 : -1, path, &t->pad));
    TRY(gguf_tok_id(t, "tokenizer.ggml.eot_token_id", -1, path, &eot));
    TRY(gguf_tok_id(t, "tokenizer.ggml.eom_token_id", -1, path, &eom));
    TRY(peft__gguf_bool(&t->gguf, "tokenizer.ggml.add_bos_token", spm || add_bos, &t->add_bos));
    TRY(peft__gguf_bool(&t->gguf, "tokenizer.ggml.add_eos_token", unigram, &t->add_eos));
    TRY(peft__gguf_bool(&t->gguf, "tokenizer.ggml.add_space_prefix", spm || unigram, &prefix));
    TRY(peft__gguf_bool(&t->gguf, "tokenizer.ggml.remove_extra_whitespaces", unigram, &t->squeeze));
    if (t->kind == PEFT__TOK_WORDPIECE) {
        t->squeeze = false;
        TRY(gguf_tok_bert_specials(t, path));
    } else {
        t->prefix = (spm || unigram) && prefix ? PEFT__PREFIX_ALWAYS : PEFT__PREFIX_NEVER;
        t->strip_first = (spm || unigram) && prefix;
        if (t->add_bos && t->bos >= 0) { t->lead[t->n_lead++] = t->bos; }
        if (t->add_eos && t->eos >= 0) { t->trail[t->n_trail++] = t->eos; }
        if (unigram) { gguf_tok_t5_template(t); }
    }
    TRY(peft__tok_add_eog(t, t->eos));
    TRY(peft__tok_add_eog(t, eot));
    TRY(peft__tok_add_eog(t, eom));
    TRY(peft__gguf_text(&t->gguf, "tokenizer.chat_template", &t->arena, NULL, &t->chat_template));
out:
    return st;
}

static peft_status gguf_tok_kind(peft__tokenizer *t, const char *path, bool *add_bos) {
    peft_status st = PEFT_OK;
    const char *model = NULL, *pre = NULL;
    TRY(peft__gguf_text(&t->gguf, "tokenizer.ggml.model", &t->arena, NULL, &model));
    TRY(peft__gguf_text(&t->gguf, "tokenizer.ggml.pre", &t->arena, "default", &pre));
    if (model == NULL) { FAIL(PEFT_E_NOT_FOUND, "%s: no tokenizer: the key tokenizer.ggml.model is missing", path); }
    if (strcmp(model, "none") == 0 || strcmp(model, "no_vocab") == 0) {
        FAIL(PEFT_E_NOT_FOUND, "%s: no tokenizer: tokenizer.ggml.model is \"%s\"", path, model);
    }
    if (strcmp(model, "llama") == 0) {
        t->kind = PEFT__TOK_SPM;
        t->fuse_unk = true;
        t->pre_name = pre;
    } else if (strcmp(model, "gpt2") == 0) {
        const peft__pretok_named *named = peft__pretok_by_name(pre);
        t->kind = PEFT__TOK_BYTES;
        t->pre_name = pre;
        if (named == NULL) {
            FAIL(PEFT_E_UNSUPPORTED,
                 "%s: tokenizer.ggml.pre is \"%s\", whose splitting rule is not known; known are gpt-2, "
                 "llama-bpe, qwen2, smollm, starcoder, falcon, default and their kin",
                 path, pre);
        }
        t->pretok = named->rules;
        t->ignore_merges = named->ignore_merges;
        *add_bos = named->add_bos;
        if (named->nfc) { TRY(peft__normalise_add(t, PEFT__NORM_FORM, 2)); }
    } else if (strcmp(model, "bert") == 0) {
        t->kind = PEFT__TOK_WORDPIECE;
    } else if (strcmp(model, "t5") == 0) {
        t->kind = PEFT__TOK_UNIGRAM;
    } else {
        FAIL(PEFT_E_UNSUPPORTED,
             "%s: a tokenizer of kind \"%s\"; supported are \"llama\" (SentencePiece BPE), \"gpt2\" (byte-level BPE), "
             "\"bert\" (WordPiece) and \"t5\" (unigram)",
             path, model);
    }
out:
    return st;
}

peft_status peft__tokenizer_open_gguf(peft__mem *mem, const char *path, peft__tokenizer **out) {
    peft_status st = PEFT_OK;
    peft__tokenizer *t = NULL;
    bool add_bos = false;
    TRY(peft__tok_create(mem, PEFT__TOK_BYTES, "gguf", &t));
    TRY(peft__gguf_open(mem, path, false, &t->gguf));
    t->from_gguf = true;
    TRY(gguf_tok_kind(t, path, &add_bos));
    TRY(gguf_tok_vocabulary(t, path));
    if (t->kind == PEFT__TOK_SPM) { TRY(peft__bpe_merges_from_scores(t)); }
    if (t->kind == PEFT__TOK_BYTES) { TRY(gguf_tok_merges(t, path)); }
    TRY(gguf_tok_rules(t, path));
    TRY(gguf_tok_specials(t, path, add_bos));
    TRY(peft__tok_finish(t, path));
    *out = t;
    t = NULL;
out:
    peft__tokenizer_free(t);
    return st;
}
