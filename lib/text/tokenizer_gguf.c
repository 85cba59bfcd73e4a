/* tokenizer_gguf.c - the tokenizer inside a GGUF file: its tokenizer.ggml.* keys.
 *
 * https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, section on tokenizers. "llama" is SentencePiece BPE driven by
 * scores, "gpt2" byte-level BPE with merges. Values that a file leaves out are those that llama.cpp assumes.
 * Left out: "bert" (WordPiece), "t5" (unigram) and the rarer kinds. */
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

static peft_status gguf_tok_vocabulary(peft__tokenizer *t, const char *path) {
    peft_status st = PEFT_OK;
    const peft__gguf_kv *tokens = NULL, *types = NULL, *scores = NULL;
    peft__gguf_str s;
    TRY(gguf_tok_array(t, "tokenizer.ggml.tokens", path, PEFT__GGUF_STRING, &tokens));
    if (tokens == NULL) { FAIL(PEFT_E_FORMAT, "%s: the key tokenizer.ggml.tokens is missing", path); }
    TRY(peft__tok_reserve(t, tokens->count, path));
    TRY(gguf_tok_array(t, "tokenizer.ggml.token_type", path, PEFT__GGUF_I32, &types));
    TRY(gguf_tok_array(t, "tokenizer.ggml.scores", path, PEFT__GGUF_F32, &scores));
    if (scores == NULL && t->kind == PEFT__TOK_SPM) {
        FAIL(PEFT_E_FORMAT, "%s: the key tokenizer.ggml.scores is missing", path);
    }
    size_t pos = 0;
    for (size_t i = 0; peft__gguf_next_str(tokens, &pos, &s); i++) {
        int64_t type = PEFT__TOKEN_NORMAL;
        if (types != NULL) {
            type = peft__gguf_array_i64(types, i);
        } else if (t->kind == PEFT__TOK_SPM && gguf_tok_looks_byte(&s)) {
            type = PEFT__TOKEN_BYTE;
        }
        if (type < 0 || type > PEFT__TOKEN_BYTE) {
            FAIL(PEFT_E_FORMAT, "%s: tokenizer.ggml.token_type of token %zu is %lld, expected 1 to 6", path, i,
                 (long long)type);
        }
        double score = scores == NULL ? 0 : peft__gguf_array_f64(scores, i);
        if (score != score) { FAIL(PEFT_E_FORMAT, "%s: tokenizer.ggml.scores of token %zu is NaN", path, i); }
        TRY(peft__tok_set(t, i, s.data, s.len, type == 0 ? PEFT__TOKEN_NORMAL : (int32_t)type, (float)score));
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

static peft_status gguf_tok_specials(peft__tokenizer *t, const char *path, bool add_bos) {
    peft_status st = PEFT_OK;
    bool spm = t->kind == PEFT__TOK_SPM, prefix = false;
    int32_t eot = -1, eom = -1;
    TRY(gguf_tok_id(t, "tokenizer.ggml.bos_token_id", spm ? 1 : -1, path, &t->bos));
    TRY(gguf_tok_id(t, "tokenizer.ggml.eos_token_id", spm ? 2 : -1, path, &t->eos));
    TRY(gguf_tok_id(t, "tokenizer.ggml.unknown_token_id", spm ? 0 : -1, path, &t->unk));
    TRY(gguf_tok_id(t, "tokenizer.ggml.padding_token_id", -1, path, &t->pad));
    TRY(gguf_tok_id(t, "tokenizer.ggml.eot_token_id", -1, path, &eot));
    TRY(gguf_tok_id(t, "tokenizer.ggml.eom_token_id", -1, path, &eom));
    TRY(peft__gguf_bool(&t->gguf, "tokenizer.ggml.add_bos_token", spm || add_bos, &t->add_bos));
    TRY(peft__gguf_bool(&t->gguf, "tokenizer.ggml.add_eos_token", false, &t->add_eos));
    TRY(peft__gguf_bool(&t->gguf, "tokenizer.ggml.add_space_prefix", spm, &prefix));
    TRY(peft__gguf_bool(&t->gguf, "tokenizer.ggml.remove_extra_whitespaces", false, &t->squeeze));
    t->prefix = spm && prefix ? PEFT__PREFIX_ALWAYS : PEFT__PREFIX_NEVER;
    t->strip_first = spm && prefix;
    if (t->add_bos && t->bos >= 0) { t->lead[t->n_lead++] = t->bos; }
    if (t->add_eos && t->eos >= 0) { t->trail[t->n_trail++] = t->eos; }
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
    if (strcmp(model, "llama") == 0) {
        t->kind = PEFT__TOK_SPM;
        t->fuse_unk = true;
        t->pre_name = pre;
    } else if (strcmp(model, "gpt2") == 0) {
        t->kind = PEFT__TOK_BYTES;
        t->pre_name = pre;
        if (!peft__pretok_by_name(pre, &t->pretok, &t->ignore_merges, add_bos)) {
            FAIL(PEFT_E_UNSUPPORTED,
                 "%s: tokenizer.ggml.pre is \"%s\", whose splitting rule is not known; known are gpt-2, "
                 "llama-bpe, qwen2, smollm, starcoder, falcon, default and their kin",
                 path, pre);
        }
    } else {
        const char *kind = strcmp(model, "bert") == 0 ? " (WordPiece)" : strcmp(model, "t5") == 0 ? " (unigram)" : "";
        FAIL(PEFT_E_UNSUPPORTED,
             "%s: a tokenizer of kind \"%s\"%s; supported are \"llama\" (SentencePiece BPE) and "
             "\"gpt2\" (byte-level BPE)",
             path, model, kind);
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
    TRY(t->kind == PEFT__TOK_SPM ? peft__bpe_merges_from_scores(t) : gguf_tok_merges(t, path));
    TRY(gguf_tok_specials(t, path, add_bos));
    TRY(peft__tok_finish(t, path));
    *out = t;
    t = NULL;
out:
    peft__tokenizer_free(t);
    return st;
}
