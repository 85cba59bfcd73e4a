/* verify.c - looks for what is wrong in a tokenizer that opens: ids without a token, texts that two ids have, merges listed twice,
 * scores that are no numbers, special ids and names that no token has.
 *
 * Opening a tokenizer refuses what it cannot work with, and passes over what it can do without, as Hugging Face's tokenizers and
 * llama.cpp do. Those mistakes show up later: a token that is never made, a prompt without its beginning, an id beyond the
 * embedding. Companion files: companions.c.
 *
 * Left out: whether the pieces are good ones, and the text of chat templates. */
#include <math.h>
#include <stdio.h>

#include "text/parts.h"

enum { VERIFY_SHOWN = 40 }; /* bytes of a token's text in a message */

typedef struct verify_tok {
    const peft__tokenizer *t;
    const char *path;      /* for messages */
    peft__findings *f;
    char where[96];        /* of the present token */
} verify_tok;

static const char *verify_where(verify_tok *v, size_t id) {
    (void)snprintf(v->where, sizeof v->where, "token %zu", id);
    return v->where;
}

/* ---- the vocabulary ------------------------------------------------------------------------------------------------------ */

static void verify_token(verify_tok *v, size_t id) {
    const peft__tokenizer *t = v->t;
    const peft__token *k = &t->tokens[id];
    int shown = (int)PEFT__MIN(k->len, (uint32_t)VERIFY_SHOWN);
    if (k->type == 0) {
        peft__finding_error(v->f, PEFT_E_FORMAT, v->path, verify_where(v, id), "the vocabulary has a hole: no token has this id, and %zu "
                            "is the largest", t->count - 1);
        return;
    }
    if (k->type == PEFT__TOKEN_UNUSED) { return; }
    if (k->len == 0) {
        peft__finding_error(v->f, PEFT_E_FORMAT, v->path, verify_where(v, id), "its text is empty");
        return;
    }
    int64_t first = peft__map_get(&t->index, k->text, k->len);
    if (first >= 0 && (size_t)first != id) {
        peft__finding_error(v->f, PEFT_E_EXISTS, v->path, verify_where(v, id), "\"%.*s\" is the text of token %lld already", shown, k->text,
                            (long long)first);
    }
    if (!peft__utf8_valid(k->text, k->len)) {
        peft__finding_error(v->f, PEFT_E_FORMAT, v->path, verify_where(v, id), "its text is no valid UTF-8");
    }
    if (!isfinite(k->score) || (t->scores != NULL && !isfinite(t->scores[id]))) {
        peft__finding_error(v->f, PEFT_E_NUMERIC, v->path, verify_where(v, id), "the score of \"%.*s\" is NaN or infinite", shown, k->text);
    }
}

/* A pair that is listed again has the rank of its first merge in the table. */
static peft_status verify_merges(verify_tok *v) {
    peft_status st = PEFT_OK;
    peft__map seen;
    peft__map_init(&seen, v->t->mem);
    if (v->t->from_gguf && v->t->kind == PEFT__TOK_SPM) { goto out; } /* made of the scores, not listed */
    for (size_t i = 0; i < v->t->merges.len; i++) {
        const peft__merge *m = &PEFT__VEC_AT(&v->t->merges, peft__merge, i);
        st = peft__map_put(&seen, (const char *)m, 2 * sizeof m->left, (int64_t)i); /* left and right are its first members */
        if (st == PEFT_E_EXISTS) {
            (void)snprintf(v->where, sizeof v->where, "merge %zu", i);
            const peft__token *l = &v->t->tokens[m->left], *r = &v->t->tokens[m->right];
            peft__finding_error(v->f, PEFT_E_EXISTS, v->path, v->where, "\"%.*s %.*s\" is merge %lld already",
                                (int)PEFT__MIN(l->len, (uint32_t)VERIFY_SHOWN), l->text, (int)PEFT__MIN(r->len,
                                                                                                        (uint32_t)VERIFY_SHOWN), r->text,
                                (long long)peft__map_get(&seen, (const char *)m, 2 * sizeof m->left));
            st = PEFT_OK;
        }
        TRY(st);
    }
out:
    peft__map_free(&seen);
    return st;
}

/* Every byte of UTF-8 can be written, or there is a token for what is unknown. */
static void verify_bytes(verify_tok *v) {
    const peft__tokenizer *t = v->t;
    int32_t lacking = 0, first = -1, there = 0;
    if (t->kind == PEFT__TOK_WORDPIECE) { return; }
    for (int32_t b = 0; b < 256; b++) {
        bool never = b == 0xC0 || b == 0xC1 || b > 0xF4; /* in no UTF-8 */
        there += t->byte_ids[b] >= 0;
        if (never || t->byte_ids[b] >= 0) { continue; }
        lacking++;
        first = first < 0 ? b : first;
    }
    bool bytes = t->kind == PEFT__TOK_BYTES;
    if (lacking == 0 || (!bytes && there == 0)) { return; }
    if (t->unk >= 0 && bytes) { return; }
    peft__finding_warn(v->f, v->path, "", "%d bytes have no token, the first of them 0x%02X: texts with them %s", (int)lacking,
                       (unsigned)first, t->unk >= 0 ? "become the unknown token" : "cannot be encoded whole");
}

/* ---- special ids ----------------------------------------------------------------------------------------------------------- */

static void verify_id(verify_tok *v, int32_t id, const char *name) {
    if (id < 0) { return; }
    if ((size_t)id >= v->t->count || v->t->tokens[id].type == 0) {
        peft__finding_error(v->f, PEFT_E_FORMAT, v->path, name, "it is %d, and no token has this id: expected one below %zu", (int)id,
                            v->t->count);
    }
}

static void verify_specials(verify_tok *v) {
    const peft__tokenizer *t = v->t;
    const struct { const char *name; int32_t id; } ids[] = {{"BOS token", t->bos}, {"EOS token", t->eos}, {"padding token", t->pad},
                                                            {"unknown token", t->unk}, {"mask token", t->mask}};
    for (size_t i = 0; i < PEFT__COUNT(ids); i++) { verify_id(v, ids[i].id, ids[i].name); }
    for (size_t i = 0; i < t->n_lead; i++) { verify_id(v, t->lead[i], "token before a text"); }
    for (size_t i = 0; i < t->n_trail; i++) { verify_id(v, t->trail[i], "token after a text"); }
    for (size_t i = 0; i < t->n_pair; i++) { verify_id(v, t->pair[i].id, "template of two texts"); }
    for (size_t i = 0; i < t->eog.len; i++) { verify_id(v, PEFT__VEC_AT(&t->eog, int32_t, i), "end of generation"); }
    if (t->add_bos && t->bos < 0) { peft__finding_error(v->f, PEFT_E_FORMAT, v->path, "BOS token",
                                                        "texts are to begin with it, and there is none"); }
    if (t->chat_template != NULL && t->chat_format < 0) {
        peft__finding_warn(v->f, v->path, "chat_template", "it is none of the known formats: conversations cannot be written");
    }
}

/* A sample of what texts are made of comes out as ids of the vocabulary. */
static peft_status verify_encode(verify_tok *v) {
    static const char sample[] = "The 3 quick (brown) foxes'\n\tna\xC3\xAFve \xE4\xB8\xAD\xE6\x96\x87 \xF0\x9F\x98\x80.";
    peft_status st = PEFT_OK;
    peft__vec ids;
    peft__vec_init(&ids, v->t->mem, sizeof(int32_t));
    st = peft__tokenizer_encode(v->t, sample, sizeof sample - 1, PEFT_TOKENIZE_BOS_EOS, &ids);
    TRY(peft__finding_failed(v->f, st, v->path, "encoding a sample"));
    for (size_t i = 0; i < ids.len; i++) { verify_id(v, PEFT__VEC_AT(&ids, int32_t, i), "encoding a sample"); }
out:
    peft__vec_free(&ids);
    return st;
}

peft_status peft__tokenizer_verify(const peft__tokenizer *t, const char *path, int64_t rows, peft__findings *f) {
    peft_status st = PEFT_OK;
    verify_tok v = {.t = t, .path = path, .f = f};
    for (size_t i = 0; i < t->count; i++) { verify_token(&v, i); }
    if (rows > 0 && t->count > (size_t)rows) {
        peft__finding_error(f, PEFT_E_SHAPE, path, "", "the tokenizer has %zu tokens, and the model's embedding %lld rows", t->count,
                            (long long)rows);
    }
    TRY(verify_merges(&v));
    verify_bytes(&v);
    verify_specials(&v);
    TRY(verify_encode(&v));
out:
    return st;
}

/* ---- the files beside it ------------------------------------------------------------------------------------------------- */

/* Every id that a file of settings names is one of the model's. */
static void verify_json_ids(const peft__json *obj, const char *path, int64_t limit, peft__findings *f) {
    static const char *const keys[] = {"bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id", "cls_token_id",
                                       "mask_token_id", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id"};
    char where[64];
    for (size_t k = 0; k < PEFT__COUNT(keys); k++) {
        const peft__json *node = peft__json_find(obj, keys[k]);
        size_t n = node == NULL ? 0 : node->kind == PEFT__JSON_ARRAY ? node->len : 1;
        (void)snprintf(where, sizeof where, "key \"%s\"", keys[k]);
        for (size_t i = 0; i < n; i++) {
            const peft__json *x = node->kind == PEFT__JSON_ARRAY ? &node->items[i] : node;
            if (x->kind == PEFT__JSON_NUMBER && x->is_int && x->i >= 0 && x->i < limit) { continue; }
            if (x->kind == PEFT__JSON_NUMBER && x->is_int && x->i == -1) { continue; } /* some writers' "none" */
            if (x->kind == PEFT__JSON_NUMBER && x->is_int) {
                peft__finding_error(f, PEFT_E_FORMAT, path, where, "the id %lld is out of range: expected one below %lld", (long long)x->i,
                                    (long long)limit);
            } else {
                peft__finding_error(f, PEFT_E_FORMAT, path, where, "it is no id");
            }
        }
    }
}

static void verify_json_names(const peft__tokenizer *t, const peft__json *obj, const char *path, peft__findings *f) {
    static const char *const keys[] = {"bos_token", "eos_token", "pad_token", "unk_token", "mask_token", "sep_token", "cls_token"};
    char where[64];
    for (size_t k = 0; k < PEFT__COUNT(keys); k++) {
        const peft__json *node = peft__json_find(obj, keys[k]);
        if (node != NULL && node->kind == PEFT__JSON_OBJECT) { node = peft__json_find(node, "content"); }
        if (node == NULL || node->kind != PEFT__JSON_STRING || peft__tokenizer_id(t, node->str, node->len) >= 0) { continue; }
        (void)snprintf(where, sizeof where, "key \"%s\"", keys[k]);
        peft__finding_warn(f, path, where, "\"%.40s\" is not in the vocabulary: it is passed over here, and other readers give it an id "
                           "beyond the model's", node->str);
    }
}

peft_status peft__tokenizer_verify_folder(const peft__tokenizer *t, const char *dir, int64_t limit, peft__mem *mem, peft__findings *f) {
    static const char *const files[] = {"config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"};
    peft_status st = PEFT_OK;
    peft__arena a;
    peft__arena_init(&a, mem);
    for (size_t i = 0; i < PEFT__COUNT(files); i++) {
        char *path = NULL;
        const peft__json *obj = NULL;
        TRY(peft__path_join(&a, dir, files[i], &path));
        if (!peft__path_exists(path)) { continue; }
        st = peft__json_read(&a, path, &obj);
        if (st != PEFT_OK) {
            TRY(peft__finding_failed(f, st, path, ""));
            continue;
        }
        if (i < 2) { verify_json_ids(obj, path, limit, f); }
        if (i >= 2 && t != NULL) { verify_json_names(t, obj, path, f); }
    }
out:
    peft__arena_free(&a);
    return st;
}

/* ---- a tokenizer of bytes -------------------------------------------------------------------------------------------------- */

peft_status peft__tokenizer_of_bytes(peft__mem *mem, peft__tokenizer **out) {
    peft_status st = PEFT_OK;
    enum { MASK = 256, END = 257, COUNT = 258 };
    peft__tokenizer *t = NULL;
    TRY(peft__tok_create(mem, PEFT__TOK_BYTES, "bytes", &t));
    TRY(peft__tok_reserve(t, COUNT, "bytes"));
    char *texts = peft__arena_alloc(&t->arena, (size_t)4 * 256);
    if (texts == NULL) { st = PEFT_E_NOMEM; goto out; }
    for (uint32_t b = 0; b < 256; b++) {
        size_t n = peft__utf8_write(peft__tok_byte_char(b), texts + (size_t)4 * b);
        TRY(peft__tok_set(t, b, texts + (size_t)4 * b, n, PEFT__TOKEN_NORMAL, 0));
    }
    TRY(peft__tok_set(t, MASK, "<|mask|>", 8, PEFT__TOKEN_CONTROL, 0));
    TRY(peft__tok_set(t, END, "<|im_end|>", 10, PEFT__TOKEN_CONTROL, 0));
    t->mask = MASK;
    t->eos = END;
    t->chat_template = "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>'}}";
    TRY(peft__pretok_add(&t->pretok, PEFT__SPLIT_GPT2, 0, "bytes"));
    TRY(peft__tok_finish(t, "bytes"));
    *out = t;
    t = NULL;
out:
    peft__tokenizer_free(t);
    return st;
}
