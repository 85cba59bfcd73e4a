/* tokenizer_json.c - tokenizer.json of Hugging Face's tokenizers: model, vocabulary, merges and added tokens.
 *
 * https://huggingface.co/docs/tokenizers (the file is the serialised pipeline). A pipeline with a ByteLevel step is
 * byte-level BPE; any other BPE works on characters as SentencePiece does. Normalizer, pre-tokenizer, post-processor and
 * decoder are read in tokenizer_json_rules.c, _norm.c and _post.c.
 * Left out: the model WordLevel, sub-word prefixes and suffixes of BPE, truncation and padding. */
#include "text/parts.h"

static peft_status json_tok_id(const peft__json *node, size_t limit, const char *text, const char *what,
                               size_t *count) {
    if (node == NULL || !node->is_int || node->i < 0 || (uint64_t)node->i >= limit) {
        return peft__fail(PEFT_E_FORMAT, "%s: the id of \"%.80s\" is no number from 0 to %zu", what, text, limit - 1);
    }
    *count = PEFT__MAX(*count, (size_t)node->i + 1);
    return PEFT_OK;
}

/* Room for *count ids of the vocabulary and for the added tokens. */
static peft_status json_tok_room(peft__tokenizer *t, const peft__json *added, size_t limit, size_t *count,
                                 const char *what) {
    peft_status st = PEFT_OK;
    for (size_t i = 0; added != NULL && i < added->len; i++) {
        const peft__json *content = peft__json_find(&added->items[i], "content");
        if (content == NULL || content->kind != PEFT__JSON_STRING || content->len == 0) {
            FAIL(PEFT_E_FORMAT, "%s: \"added_tokens\" entry %zu has no \"content\"", what, i);
        }
        TRY(json_tok_id(peft__json_find(&added->items[i], "id"), limit, content->str, what, count));
    }
    TRY(peft__tok_reserve(t, *count, what));
out:
    return st;
}

static peft_status json_tok_put(peft__tokenizer *t, size_t id, const peft__json *key, bool bytes, float score) {
    char *text = peft__arena_strdup(&t->arena, key->str, key->len);
    if (text == NULL) { return PEFT_E_NOMEM; }
    bool byte = bytes && key->len == 6 && memcmp(text, "<0x", 3) == 0 && text[5] == '>';
    return peft__tok_set(t, id, text, key->len, byte ? PEFT__TOKEN_BYTE : PEFT__TOKEN_NORMAL, score);
}

static size_t json_tok_limit(size_t vocab, const peft__json *added) { /* some ids may be unused */
    return PEFT__MIN((vocab + (added == NULL ? 0 : added->len)) * 2 + 65536, (size_t)PEFT__TOK_MAX);
}

static peft_status json_tok_vocab(peft__tokenizer *t, const peft__json *vocab, const peft__json *added, bool bytes,
                                  const char *what) {
    peft_status st = PEFT_OK;
    size_t count = 0, limit = json_tok_limit(vocab->len, added);
    for (size_t i = 0; i < vocab->len; i++) {
        TRY(json_tok_id(&vocab->items[i], limit, vocab->keys[i].str, what, &count));
    }
    TRY(json_tok_room(t, added, limit, &count, what));
    for (size_t i = 0; i < vocab->len; i++) {
        if (t->tokens[vocab->items[i].i].type != 0) {
            FAIL(PEFT_E_FORMAT, "%s: id %lld is given to two tokens", what, (long long)vocab->items[i].i);
        }
        TRY(json_tok_put(t, (size_t)vocab->items[i].i, &vocab->keys[i], bytes, 0));
    }
out:
    return st;
}

/* The list [[text, score], ...] of a unigram model: ids in its order. */
static peft_status json_tok_pieces(peft__tokenizer *t, const peft__json *vocab, const peft__json *added, bool bytes,
                                   const char *what) {
    peft_status st = PEFT_OK;
    size_t count = vocab->len;
    TRY(json_tok_room(t, added, json_tok_limit(vocab->len, added), &count, what));
    t->scores = peft__alloc_zero(t->mem, t->count * sizeof *t->scores);
    if (t->scores == NULL) { FAIL(PEFT_E_NOMEM, "%s: no memory for %zu scores", what, t->count); }
    for (size_t i = 0; i < vocab->len; i++) {
        const peft__json *piece = &vocab->items[i];
        if (piece->kind != PEFT__JSON_ARRAY || piece->len != 2 || piece->items[0].kind != PEFT__JSON_STRING ||
            piece->items[1].kind != PEFT__JSON_NUMBER ||
            !(piece->items[1].num <= 1e30 && piece->items[1].num >= -1e30)) {
            FAIL(PEFT_E_FORMAT, "%s: piece %zu of the vocabulary is no text with a score", what, i);
        }
        t->scores[i] = piece->items[1].num;
        TRY(json_tok_put(t, i, &piece->items[0], bytes, (float)piece->items[1].num));
    }
out:
    return st;
}

static peft_status json_tok_added(peft__tokenizer *t, const peft__json *added, const char *what) {
    static const struct {
        const char *key;
        uint8_t bit;
    } marks[] = {{"lstrip", PEFT__TOKEN_LSTRIP},
                 {"rstrip", PEFT__TOKEN_RSTRIP},
                 {"single_word", PEFT__TOKEN_WHOLE},
                 {"normalized", PEFT__TOKEN_LATE}};
    peft_status st = PEFT_OK;
    for (size_t i = 0; added != NULL && i < added->len; i++) {
        const peft__json *entry = &added->items[i], *content = peft__json_find(entry, "content");
        size_t id = (size_t)peft__json_find(entry, "id")->i;
        peft__token *k = &t->tokens[id];
        bool special = false, on = false;
        TRY(peft__json_bool(entry, what, "special", false, &special));
        if (k->type == 0) {
            char *text = peft__arena_strdup(&t->arena, content->str, content->len);
            if (text == NULL) { return PEFT_E_NOMEM; }
            TRY(peft__tok_set(t, id, text, content->len, PEFT__TOKEN_USER, 0));
        } else if (k->len != content->len || memcmp(k->text, content->str, k->len) != 0) {
            FAIL(PEFT_E_FORMAT, "%s: added token \"%.80s\" has the id %zu of \"%.*s\"", what, content->str, id,
                 (int)PEFT__MIN(k->len, 80), k->text);
        }
        if (k->type != PEFT__TOKEN_UNKNOWN) { k->type = special ? PEFT__TOKEN_CONTROL : PEFT__TOKEN_USER; }
        for (size_t m = 0; m < PEFT__COUNT(marks); m++) {
            TRY(peft__json_bool(entry, what, marks[m].key, false, &on));
            if (on) { k->match = (uint8_t)(k->match | marks[m].bit); }
        }
    }
out:
    return st;
}

static peft_status json_tok_merges(peft__tokenizer *t, const peft__json *merges, const char *what) {
    peft_status st = PEFT_OK;
    TRY(peft__vec_reserve(&t->merges, merges->len));
    for (size_t i = 0; i < merges->len; i++) {
        const peft__json *m = &merges->items[i];
        if (m->kind == PEFT__JSON_STRING) {
            TRY(peft__tok_merge_line(t, m->str, m->len, what));
        } else if (m->kind == PEFT__JSON_ARRAY && m->len == 2 && m->items[0].kind == PEFT__JSON_STRING &&
                   m->items[1].kind == PEFT__JSON_STRING) {
            TRY(peft__tok_merge(t, m->items[0].str, m->items[0].len, m->items[1].str, m->items[1].len, what));
        } else {
            FAIL(PEFT_E_FORMAT, "%s: merge %zu is neither \"left right\" nor a pair of texts", what, i);
        }
    }
out:
    return st;
}

static peft_status json_tok_no_text(const peft__json *model, const char *key, const char *what) {
    const peft__json *node = peft__json_find(model, key);
    if (node == NULL || (node->kind == PEFT__JSON_STRING && node->len == 0)) { return PEFT_OK; }
    return peft__fail(PEFT_E_UNSUPPORTED, "%s: the model has a \"%s\", which is not supported", what, key);
}

/* The model's own keys; tokens are set afterwards, so only what can be refused at once is looked at here. */
static peft_status json_tok_check(const peft__json *root, const char *what, const peft__json **model, int32_t *kind) {
    peft_status st = PEFT_OK;
    const char *type = NULL;
    const peft__json *m = peft__json_find(root, "model");
    if (m == NULL || m->kind != PEFT__JSON_OBJECT) { FAIL(PEFT_E_FORMAT, "%s: no object \"model\"", what); }
    const peft__json *vocab = peft__json_find(m, "vocab"), *merges = peft__json_find(m, "merges");
    const peft__json *added = peft__json_find(root, "added_tokens");
    TRY(peft__json_str(m, what, "type", merges != NULL ? "BPE" : "without a type", &type));
    bool unigram = strcmp(type, "Unigram") == 0, wordpiece = strcmp(type, "WordPiece") == 0;
    if (strcmp(type, "BPE") != 0 && !unigram && !wordpiece) {
        FAIL(PEFT_E_UNSUPPORTED, "%s: a tokenizer of kind \"%s\", supported are BPE, WordPiece and Unigram", what,
             type);
    }
    if (!unigram && !wordpiece) {
        TRY(json_tok_no_text(m, "continuing_subword_prefix", what));
        TRY(json_tok_no_text(m, "end_of_word_suffix", what));
        if (merges == NULL || merges->kind != PEFT__JSON_ARRAY) { FAIL(PEFT_E_FORMAT, "%s: no list \"merges\"", what); }
    }
    if (vocab == NULL || vocab->kind != (unigram ? PEFT__JSON_ARRAY : PEFT__JSON_OBJECT)) {
        FAIL(PEFT_E_FORMAT, "%s: no %s \"vocab\"", what, unigram ? "list" : "object");
    }
    if (added != NULL && added->kind != PEFT__JSON_ARRAY) {
        FAIL(PEFT_E_FORMAT, "%s: \"added_tokens\" is no list", what);
    }
    static const char *const steps[] = {"normalizer", "pre_tokenizer", "post_processor", "decoder"};
    for (size_t i = 0; i < PEFT__COUNT(steps); i++) {
        const peft__json *step = peft__json_find(root, steps[i]);
        if (step != NULL && step->kind != PEFT__JSON_NULL && step->kind != PEFT__JSON_OBJECT) {
            FAIL(PEFT_E_FORMAT, "%s: \"%s\" is no object", what, steps[i]);
        }
    }
    bool bytes = peft__tok_json_has(peft__json_find(root, "pre_tokenizer"), "ByteLevel") ||
                 peft__tok_json_has(peft__json_find(root, "decoder"), "ByteLevel");
    *kind = unigram ? PEFT__TOK_UNIGRAM : wordpiece ? PEFT__TOK_WORDPIECE : bytes ? PEFT__TOK_BYTES : PEFT__TOK_SPM;
    *model = m;
out:
    return st;
}

static peft_status json_tok_bpe(peft__tokenizer *t, const peft__json *model, const peft__json *added,
                                const char *what) {
    peft_status st = PEFT_OK;
    bool byte_fallback = false;
    const char *unk = NULL;
    TRY(peft__json_bool(model, what, "byte_fallback", false, &byte_fallback));
    TRY(peft__json_bool(model, what, "fuse_unk", false, &t->fuse_unk));
    TRY(peft__json_bool(model, what, "ignore_merges", false, &t->ignore_merges));
    TRY(peft__json_str(model, what, "unk_token", NULL, &unk));
    TRY(json_tok_vocab(t, peft__json_find(model, "vocab"), added, byte_fallback && t->kind == PEFT__TOK_SPM, what));
    TRY(json_tok_merges(t, peft__json_find(model, "merges"), what));
    if (unk != NULL) {
        t->unk = peft__tokenizer_id(t, unk, strlen(unk));
        if (t->unk >= 0 && t->kind == PEFT__TOK_SPM) { t->tokens[t->unk].type = PEFT__TOKEN_UNKNOWN; }
    }
out:
    return st;
}

static peft_status json_tok_wordpiece(peft__tokenizer *t, const peft__json *model, const peft__json *added,
                                      const char *what) {
    peft_status st = PEFT_OK;
    const char *unk = NULL, *joint = NULL;
    TRY(peft__json_str(model, what, "unk_token", "[UNK]", &unk));
    TRY(peft__json_str(model, what, "continuing_subword_prefix", "##", &joint));
    TRY(peft__json_int(model, what, "max_input_chars_per_word", 100, 0, INT32_MAX, &t->max_chars));
    TRY(json_tok_vocab(t, peft__json_find(model, "vocab"), added, false, what));
    t->unk = peft__tokenizer_id(t, unk, strlen(unk));
    if (t->unk >= 0) { t->tokens[t->unk].type = PEFT__TOKEN_UNKNOWN; }
    t->joint = peft__arena_strdup(&t->arena, joint, strlen(joint));
    if (t->joint == NULL) { return PEFT_E_NOMEM; }
    t->joins = true;
out:
    return st;
}

static peft_status json_tok_unigram(peft__tokenizer *t, const peft__json *model, const peft__json *added,
                                    const char *what) {
    peft_status st = PEFT_OK;
    bool byte_fallback = false;
    int64_t unk = -1;
    const peft__json *vocab = peft__json_find(model, "vocab");
    TRY(peft__json_bool(model, what, "byte_fallback", false, &byte_fallback));
    TRY(peft__json_int(model, what, "unk_id", -1, -1, (int64_t)vocab->len - 1, &unk));
    TRY(json_tok_pieces(t, vocab, added, byte_fallback, what));
    t->unk = (int32_t)unk;
    t->fuse_unk = true;
    if (unk >= 0) { t->tokens[unk].type = PEFT__TOKEN_UNKNOWN; }
out:
    return st;
}

static peft_status json_tok_build(peft__tokenizer *t, const peft__json *root, const peft__json *model,
                                  const char *what) {
    peft_status st = PEFT_OK;
    const peft__json *added = peft__json_find(root, "added_tokens");
    switch (t->kind) {
        case PEFT__TOK_WORDPIECE: TRY(json_tok_wordpiece(t, model, added, what)); break;
        case PEFT__TOK_UNIGRAM: TRY(json_tok_unigram(t, model, added, what)); break;
        default: TRY(json_tok_bpe(t, model, added, what)); break;
    }
    TRY(json_tok_added(t, added, what));
    TRY(peft__tok_json_rules(t, root, what));
    TRY(peft__tok_json_post(t, root, what));
out:
    return st;
}

peft_status peft__tokenizer_open_json(peft__mem *mem, const char *path, const char *dir, peft__tokenizer **out) {
    peft_status st = PEFT_OK;
    peft__arena a;
    peft__tokenizer *t = NULL;
    const peft__json *root = NULL, *model = NULL;
    peft__arena_init(&a, mem);
    TRY(peft__json_read(&a, path, &root));
    int32_t kind = 0;
    TRY(json_tok_check(root, path, &model, &kind));
    TRY(peft__tok_create(mem, kind, "tokenizer.json", &t));
    TRY(json_tok_build(t, root, model, path));
    t->add_bos = t->n_lead > 0;
    t->add_eos = t->n_trail > 0;
    TRY(peft__tok_companions(t, dir, false));
    if (t->bos < 0 && t->n_lead > 0) { t->bos = t->lead[0]; }
    if (t->eos < 0 && t->n_trail > 0) { t->eos = t->trail[t->n_trail - 1]; }
    TRY(peft__tok_finish(t, path));
    *out = t;
    t = NULL;
out:
    peft__tokenizer_free(t);
    peft__arena_free(&a);
    return st;
}
