/* export.c - writes a tokenizer in the other form: GGUF keys, or tokenizer.json and tokenizer_config.json.
 *
 * The keys of a GGUF's own tokenizer are copied as they are. A SentencePiece vocabulary from tokenizer.json has merges but
 * no scores: a token's score is then minus the rank of the first merge that makes it, which keeps the order.
 * Left out: tokenizer.model and vocab.json as targets; NFC and squeezed spaces have no key in GGUF. */
#include "text/parts.h"

static void export_gguf_vocab(const peft__tokenizer *t, peft__gguf_out *w, int32_t *types) {
    peft__gguf_begin_str_array(w, "tokenizer.ggml.tokens", t->count);
    for (size_t i = 0; i < t->count; i++) {
        const peft__token *k = &t->tokens[i];
        types[i] = k->type == 0 ? PEFT__TOKEN_UNUSED : k->type;
        peft__gguf_array_str(w, k->text, k->len);
    }
    peft__gguf_put_array(w, "tokenizer.ggml.token_type", PEFT__GGUF_I32, t->count, types, t->count * sizeof *types);
}

/* values: scratch of t->count floats. */
static void export_gguf_scores(const peft__tokenizer *t, peft__gguf_out *w, float *values) {
    bool scored = false;
    for (size_t i = 0; i < t->count; i++) {
        values[i] = t->tokens[i].score;
        scored = scored || values[i] < 0 || values[i] > 0;
    }
    if (!scored) {
        for (size_t k = t->merges.len; k-- > 0;) {
            const peft__merge *m = &PEFT__VEC_AT(&t->merges, peft__merge, k);
            values[m->result] = -(float)m->rank;
        }
    }
    peft__gguf_put_array(w, "tokenizer.ggml.scores", PEFT__GGUF_F32, t->count, values, t->count * sizeof *values);
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

static void export_gguf_ids(const peft__tokenizer *t, peft__gguf_out *w) {
    const struct {
        const char *key;
        int32_t id;
    } ids[] = {{"tokenizer.ggml.bos_token_id", t->bos},
               {"tokenizer.ggml.eos_token_id", t->eos},
               {"tokenizer.ggml.unknown_token_id", t->unk},
               {"tokenizer.ggml.padding_token_id", t->pad}};
    for (size_t i = 0; i < PEFT__COUNT(ids); i++) {
        if (ids[i].id >= 0) { peft__gguf_put_u32(w, ids[i].key, (uint32_t)ids[i].id); }
    }
    peft__gguf_put_bool(w, "tokenizer.ggml.add_bos_token", t->n_lead > 0);
    peft__gguf_put_bool(w, "tokenizer.ggml.add_eos_token", t->n_trail > 0);
    if (t->kind == PEFT__TOK_SPM) {
        peft__gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", t->prefix != PEFT__PREFIX_NEVER);
        if (t->squeeze) { peft__gguf_put_bool(w, "tokenizer.ggml.remove_extra_whitespaces", true); }
    }
    if (t->chat_template != NULL) {
        peft__gguf_put_text(w, "tokenizer.chat_template", t->chat_template, strlen(t->chat_template));
    }
}

peft_status peft__tokenizer_to_gguf(const peft__tokenizer *t, peft__gguf_out *w) {
    peft_status st = PEFT_OK;
    peft__str line;
    int32_t *types = NULL;
    bool spm = t->kind == PEFT__TOK_SPM;
    peft__str_init(&line, t->mem);
    if (t->from_gguf) {
        for (size_t i = 0; i < t->gguf.kv_count; i++) {
            if (strncmp(t->gguf.kvs[i].key, "tokenizer.", 10) == 0) { peft__gguf_put_kv(w, &t->gguf.kvs[i]); }
        }
        TRY(peft__str_status(&w->meta));
        goto out;
    }
    const char *pre = spm ? "default" : t->pre_name;
    if (pre == NULL) { FAIL(PEFT_E_UNSUPPORTED, "the tokenizer's splitting rule has no name in GGUF"); }
    if (spm && t->no_marks) {
        FAIL(PEFT_E_UNSUPPORTED, "a tokenizer that keeps spaces as they are has no form in GGUF");
    }
    types = peft__alloc(t->mem, t->count * sizeof *types);
    if (types == NULL) { FAIL(PEFT_E_NOMEM, "no memory to write %zu tokens", t->count); }
    const char *model = spm ? "llama" : "gpt2";
    peft__gguf_put_text(w, "tokenizer.ggml.model", model, strlen(model));
    peft__gguf_put_text(w, "tokenizer.ggml.pre", pre, strlen(pre));
    export_gguf_vocab(t, w, types);
    if (spm) {
        export_gguf_scores(t, w, (float *)(void *)types); /* as large, and no longer needed as types */
    } else {
        export_gguf_merges(t, w, &line);
    }
    export_gguf_ids(t, w);
    TRY(peft__str_status(&line));
    TRY(peft__str_status(&w->meta));
out:
    peft__free(t->mem, types, t->count * sizeof *types);
    peft__str_free(&line);
    return st;
}
