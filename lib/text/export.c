/* export.c - writes a tokenizer in the other form: GGUF keys, or tokenizer.json and tokenizer_config.json.
 *
 * The keys of a GGUF's own tokenizer are copied as they are. A SentencePiece vocabulary from tokenizer.json has merges but
 * no scores: a token's score is then minus the rank of the first merge that makes it, which keeps the order.
 * Models often have more rows than their tokenizer has tokens; a GGUF names them all, so that unused tokens [PADn] fill up the rest.
 * WordPiece goes into a GGUF as llama.cpp wants it: U+2581 in front of words, nothing in front of pieces inside them.
 * Left out: tokenizer.model, vocab.json and vocab.txt as targets; normal forms, which have no key in GGUF. */
#include <stdio.h>

#include "text/parts.h"

static void export_gguf_wordpiece(const peft__tokenizer *t, peft__gguf_out *w, const peft__token *k, peft__str *line) {
    bool bare = k->len >= 2 && k->text[0] == '[' && k->text[k->len - 1] == ']';
    size_t joint = strlen(t->joint);
    peft__str_clear(line);
    if (bare) {
        peft__str_put(line, k->text, k->len);
    } else if (joint <= k->len && memcmp(k->text, t->joint, joint) == 0) {
        peft__str_put(line, k->text + joint, k->len - joint);
    } else {
        peft__str_put(line, "\xE2\x96\x81", 3);
        peft__str_put(line, k->text, k->len);
    }
    peft__gguf_array_str(w, peft__str_c(line), line->len);
}

enum { EXPORT_NO_TOKEN_SCORE = -10000 }; /* of what fills up, so that no text is made of it */

static bool export_gguf_is_token(const peft__tokenizer *t, size_t id) { return id < t->count && t->tokens[id].type != 0; }

static void export_gguf_vocab(const peft__tokenizer *t, peft__gguf_out *w, size_t rows, int32_t *types, peft__str *line) {
    char none[32];
    peft__gguf_begin_str_array(w, "tokenizer.ggml.tokens", rows);
    for (size_t i = 0; i < rows; i++) {
        const peft__token *k = &t->tokens[i < t->count ? i : 0];
        types[i] = export_gguf_is_token(t, i) ? k->type : PEFT__TOKEN_UNUSED;
        if (!export_gguf_is_token(t, i)) {
            int len = snprintf(none, sizeof none, "[PAD%zu]", i);
            peft__gguf_array_str(w, none, len > 0 ? (size_t)len : 0);
        } else if (t->kind == PEFT__TOK_WORDPIECE) {
            export_gguf_wordpiece(t, w, k, line);
        } else {
            peft__gguf_array_str(w, k->text, k->len);
        }
    }
    peft__gguf_put_array(w, "tokenizer.ggml.token_type", PEFT__GGUF_I32, rows, types, rows * sizeof *types);
}

/* values: scratch of `rows` floats. */
static void export_gguf_scores(const peft__tokenizer *t, peft__gguf_out *w, size_t rows, float *values) {
    bool scored = false;
    for (size_t i = 0; i < rows; i++) {
        values[i] = export_gguf_is_token(t, i) ? t->tokens[i].score : 0;
        scored = scored || values[i] < 0 || values[i] > 0;
    }
    if (!scored) {
        for (size_t k = t->merges.len; k-- > 0;) {
            const peft__merge *m = &PEFT__VEC_AT(&t->merges, peft__merge, k);
            values[m->result] = -(float)m->rank;
        }
    }
    for (size_t i = 0; i < rows; i++) { values[i] = export_gguf_is_token(t, i) ? values[i] : EXPORT_NO_TOKEN_SCORE; }
    peft__gguf_put_array(w, "tokenizer.ggml.scores", PEFT__GGUF_F32, rows, values, rows * sizeof *values);
}

static void export_gguf_merges(const peft__tokenizer *t, peft__gguf_out *w, peft__str *line) {
    peft__gguf_begin_str_array(w, "tokenizer.ggml.merges", t->merges.len);
    for (size_t i = 0; i < t->merges.len; i++) {
        const peft__merge *m = &PEFT__VEC_AT(&t->merges, peft__merge, i);
        peft__str_clear(line);
        peft__str_put(line, t->tokens[m->left].text, t->tokens[m->left].len);
        peft__str_putc(line, ' ');
        peft__str_put(line, t->tokens[m->right].text, t->tokens[m->right].len);
        peft__gguf_array_str(w, peft__str_c(line), line->len);
    }
}

/* The steps of tokenizer.json that do what remove_extra_whitespaces does. */
static bool export_gguf_squeezes(const peft__tokenizer *t) {
    bool squeezes = t->late > 0 && t->pretok.stages[0].rule == PEFT__SPLIT_SPACE;
    for (size_t i = 0; i < t->steps.len; i++) {
        const peft__norm_step *step = &PEFT__VEC_AT(&t->steps, peft__norm_step, i);
        squeezes = squeezes || (step->op == PEFT__NORM_REPLACE && step->flags > 0);
    }
    return squeezes;
}

/* What is lost would change ids. */
static peft_status export_gguf_check(const peft__tokenizer *t, size_t rows) {
    peft_status st = PEFT_OK;
    if (rows < t->count) {
        FAIL(PEFT_E_UNSUPPORTED, "the tokenizer has %zu tokens, and the model %zu rows: a GGUF file has as many of one as of the other",
             t->count, rows);
    }
    bool spm = t->kind == PEFT__TOK_SPM, unigram = t->kind == PEFT__TOK_UNIGRAM, bert = t->kind == PEFT__TOK_WORDPIECE;
    if (t->kind == PEFT__TOK_BYTES && t->pre_name == NULL) {
        FAIL(PEFT_E_UNSUPPORTED, "the tokenizer's splitting rule has no name in GGUF");
    }
    if ((spm || unigram) && t->no_marks) {
        FAIL(PEFT_E_UNSUPPORTED, "a tokenizer that keeps spaces as they are has no form in GGUF");
    }
    for (size_t i = 0; i < t->steps.len; i++) {
        const peft__norm_step *step = &PEFT__VEC_AT(&t->steps, peft__norm_step, i);
        bool spaces = step->op == PEFT__NORM_STRIP || (step->op == PEFT__NORM_REPLACE && step->flags > 0);
        bool known = (unigram && (spaces || step->op == PEFT__NORM_CHARSMAP)) ||
                     (bert && step->op == PEFT__NORM_BERT) ||
                     (!unigram && !bert && step->op == PEFT__NORM_FORM && step->flags == 2);
        if (!known) { FAIL(PEFT_E_UNSUPPORTED, "a normalizer of the tokenizer has no form in GGUF"); }
    }
    bool bert_split = t->pretok.count == 1 && t->pretok.stages[0].rule == PEFT__SPLIT_BERT;
    if (bert && (!bert_split || strcmp(t->joint, "##") != 0)) {
        FAIL(PEFT_E_UNSUPPORTED, "a WordPiece tokenizer that does not split words as BERT does has no form in GGUF");
    }
out:
    return st;
}

static void export_gguf_ids(const peft__tokenizer *t, peft__gguf_out *w) {
    const struct {
        const char *key;
        int32_t id;
    } ids[] = {{"tokenizer.ggml.bos_token_id", t->bos},
               {"tokenizer.ggml.eos_token_id", t->eos},
               {"tokenizer.ggml.unknown_token_id", t->unk},
               {"tokenizer.ggml.padding_token_id", t->pad},
               {"tokenizer.ggml.mask_token_id", t->mask},
               {"tokenizer.ggml.cls_token_id", t->kind == PEFT__TOK_WORDPIECE ? t->bos : -1},
               {"tokenizer.ggml.seperator_token_id", t->kind == PEFT__TOK_WORDPIECE ? t->eos : -1}}; /* its spelling */
    for (size_t i = 0; i < PEFT__COUNT(ids); i++) {
        if (ids[i].id >= 0) { peft__gguf_put_u32(w, ids[i].key, (uint32_t)ids[i].id); }
    }
    peft__gguf_put_bool(w, "tokenizer.ggml.add_bos_token", t->n_lead > 0);
    peft__gguf_put_bool(w, "tokenizer.ggml.add_eos_token", t->n_trail > 0);
    if (t->kind == PEFT__TOK_SPM || t->kind == PEFT__TOK_UNIGRAM) {
        peft__gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", t->prefix != PEFT__PREFIX_NEVER);
        bool squeeze = t->squeeze || (t->kind == PEFT__TOK_UNIGRAM && export_gguf_squeezes(t));
        /* Readers differ in what they take for it where it is absent. */
        if (squeeze || t->kind == PEFT__TOK_UNIGRAM) { peft__gguf_put_bool(w, "tokenizer.ggml.remove_extra_whitespaces", squeeze); }
    }
    if (t->chat_template != NULL) {
        peft__gguf_put_text(w, "tokenizer.chat_template", t->chat_template, strlen(t->chat_template));
    }
}

peft_status peft__tokenizer_to_gguf(const peft__tokenizer *t, size_t rows, peft__gguf_out *w) {
    peft_status st = PEFT_OK;
    rows = rows > 0 ? rows : t->count;
    peft__str line;
    int32_t *types = NULL;
    peft__str_init(&line, t->mem);
    if (t->from_gguf) {
        for (size_t i = 0; i < t->gguf.kv_count; i++) {
            if (strncmp(t->gguf.kvs[i].key, "tokenizer.", 10) == 0) { peft__gguf_put_kv(w, &t->gguf.kvs[i]); }
        }
        TRY(peft__str_status(&w->meta));
        goto out;
    }
    TRY(export_gguf_check(t, rows));
    const char *pre = t->kind == PEFT__TOK_BYTES ? t->pre_name : "default";
    types = peft__alloc(t->mem, rows * sizeof *types);
    if (types == NULL) { FAIL(PEFT_E_NOMEM, "no memory to write %zu tokens", rows); }
    static const char *const models[] = {"gpt2", "llama", "bert", "t5"};
    const char *model = models[t->kind];
    peft__gguf_put_text(w, "tokenizer.ggml.model", model, strlen(model));
    peft__gguf_put_text(w, "tokenizer.ggml.pre", pre, strlen(pre));
    export_gguf_vocab(t, w, rows, types, &line);
    if (t->kind == PEFT__TOK_SPM || t->kind == PEFT__TOK_UNIGRAM) {
        export_gguf_scores(t, w, rows, (float *)(void *)types); /* as large, and no longer needed as types */
    }
    if (t->kind == PEFT__TOK_BYTES) { export_gguf_merges(t, w, &line); }
    if (t->charsmap.units != NULL) {
        peft__gguf_put_array(w, "tokenizer.ggml.precompiled_charsmap", PEFT__GGUF_U8, t->charsmap.blob_len,
                             t->charsmap.blob, t->charsmap.blob_len);
    }
    export_gguf_ids(t, w);
    TRY(peft__str_status(&line));
    TRY(peft__str_status(&w->meta));
out:
    peft__free(t->mem, types, rows * sizeof *types);
    peft__str_free(&line);
    return st;
}
