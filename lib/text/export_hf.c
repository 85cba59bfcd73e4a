/* export_hf.c - writes tokenizer.json and tokenizer_config.json, as Hugging Face's tokenizers and transformers read them.
 *
 * A unigram model of SentencePiece gets the steps that Hugging Face's own conversion gives it; texts with spaces or marks
 * in odd places then have the ids that they have there. Left out: squeezed spaces of SentencePiece BPE (there is no step
 * for them that would give the same ids in every text). */
#include "text/parts.h"

void peft__hf_text(peft__json_out *j, const char *key, const char *text) {
    peft__json_key(j, key);
    peft__json_put_text(j, text);
}

void peft__hf_bool(peft__json_out *j, const char *key, bool on) {
    peft__json_key(j, key);
    peft__json_put_bool(j, on);
}

void peft__hf_begin(peft__json_out *j, const char *type) {
    peft__json_object(j);
    peft__hf_text(j, "type", type);
}

void peft__hf_token(const peft__tokenizer *t, peft__json_out *j, int32_t id) {
    peft__json_put_str(j, t->tokens[id].text, t->tokens[id].len);
}

/* A token as a key, which wants a NUL behind it. */
void peft__hf_token_key(const peft__tokenizer *t, peft__json_out *j, int32_t id, peft__str *scratch) {
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
        peft__hf_token(t, j, (int32_t)i);
        peft__hf_bool(j, "single_word", (k->match & PEFT__TOKEN_WHOLE) != 0);
        peft__hf_bool(j, "lstrip", (k->match & PEFT__TOKEN_LSTRIP) != 0);
        peft__hf_bool(j, "rstrip", (k->match & PEFT__TOKEN_RSTRIP) != 0);
        peft__hf_bool(j, "normalized", (k->match & PEFT__TOKEN_LATE) != 0);
        peft__hf_bool(j, "special", special);
        peft__json_object_end(j);
    }
    peft__json_array_end(j);
}

static void hf_unk(const peft__tokenizer *t, peft__json_out *j) {
    peft__json_key(j, "unk_token");
    if (t->kind != PEFT__TOK_BYTES && t->unk >= 0) {
        peft__hf_token(t, j, t->unk);
    } else {
        peft__json_put_null(j);
    }
}

static void hf_vocab(const peft__tokenizer *t, peft__json_out *j, peft__str *scratch) {
    peft__json_key(j, "vocab");
    peft__json_object(j);
    for (size_t i = 0; i < t->count; i++) {
        const peft__token *k = &t->tokens[i];
        if (k->type == 0 || peft__map_get(&t->index, k->text, k->len) != (int64_t)i) {
            continue;
        } /* a name given twice */
        peft__hf_token_key(t, j, (int32_t)i, scratch);
        peft__json_put_int(j, (int64_t)i);
    }
    peft__json_object_end(j);
}

static void hf_bpe(const peft__tokenizer *t, peft__json_out *j, peft__str *scratch, bool bytes) {
    peft__hf_begin(j, "BPE");
    peft__json_key(j, "dropout");
    peft__json_put_null(j);
    hf_unk(t, j);
    peft__hf_text(j, "continuing_subword_prefix", NULL);
    peft__hf_text(j, "end_of_word_suffix", NULL);
    peft__hf_bool(j, "fuse_unk", t->fuse_unk);
    peft__hf_bool(j, "byte_fallback", bytes);
    peft__hf_bool(j, "ignore_merges", t->ignore_merges);
    hf_vocab(t, j, scratch);
    peft__json_key(j, "merges");
    peft__json_array(j);
    for (size_t i = 0; i < t->merges.len; i++) {
        const peft__merge *m = &PEFT__VEC_AT(&t->merges, peft__merge, i);
        peft__json_array(j);
        peft__hf_token(t, j, m->left);
        peft__hf_token(t, j, m->right);
        peft__json_array_end(j);
    }
    peft__json_array_end(j);
}

static void hf_wordpiece(const peft__tokenizer *t, peft__json_out *j, peft__str *scratch) {
    peft__hf_begin(j, "WordPiece");
    hf_unk(t, j);
    peft__hf_text(j, "continuing_subword_prefix", t->joint);
    peft__json_key(j, "max_input_chars_per_word");
    peft__json_put_int(j, t->max_chars);
    hf_vocab(t, j, scratch);
}

/* Ids are places in the list: an unused one needs a text that no other has. */
static void hf_unigram(const peft__tokenizer *t, peft__json_out *j, peft__str *scratch, bool bytes) {
    peft__hf_begin(j, "Unigram");
    peft__json_key(j, "unk_id");
    if (t->unk >= 0) {
        peft__json_put_int(j, t->unk);
    } else {
        peft__json_put_null(j);
    }
    peft__json_key(j, "vocab");
    peft__json_array(j);
    for (size_t i = 0; i < t->count; i++) {
        bool free_id = t->tokens[i].type == 0;
        peft__json_array(j);
        peft__str_clear(scratch);
        peft__str_putf(scratch, "<unused id %zu>", i);
        peft__json_put_str(j, free_id ? peft__str_c(scratch) : t->tokens[i].text,
                           free_id ? scratch->len : t->tokens[i].len);
        peft__json_put_double(j, t->scores != NULL ? t->scores[i] : (double)t->tokens[i].score);
        peft__json_array_end(j);
    }
    peft__json_array_end(j);
    peft__hf_bool(j, "byte_fallback", bytes);
}

static void hf_model(const peft__tokenizer *t, peft__json_out *j, peft__str *scratch) {
    bool bytes = false;
    for (size_t b = 0; b < 256; b++) { bytes = bytes || (t->kind != PEFT__TOK_BYTES && t->byte_ids[b] >= 0); }
    peft__json_key(j, "model");
    switch (t->kind) {
        case PEFT__TOK_WORDPIECE: hf_wordpiece(t, j, scratch); break;
        case PEFT__TOK_UNIGRAM: hf_unigram(t, j, scratch, bytes); break;
        default: hf_bpe(t, j, scratch, bytes); break;
    }
    peft__json_object_end(j);
}

static void hf_config(const peft__tokenizer *t, peft__json_out *j) {
    static const char *const keys[] = {"bos_token",  "eos_token", "pad_token", "unk_token",
                                       "mask_token", "cls_token", "sep_token"};
    bool bert = t->kind == PEFT__TOK_WORDPIECE;
    bool bos_eos = (t->kind == PEFT__TOK_BYTES || t->kind == PEFT__TOK_SPM) && t->pair_made;
    const int32_t ids[] = {bert ? -1 : t->bos, bert ? -1 : t->eos, t->pad, t->unk, t->mask,
                           bert ? t->bos : -1, bert ? t->eos : -1};
    peft__json_object(j);
    peft__hf_text(j, "tokenizer_class", "PreTrainedTokenizerFast");
    if (bos_eos) { /* what else there is is in the post_processor, whose pair a reader would make anew */
        peft__hf_bool(j, "add_bos_token", t->n_lead > 0);
        peft__hf_bool(j, "add_eos_token", t->n_trail > 0);
    }
    for (size_t i = 0; i < PEFT__COUNT(keys); i++) {
        if (ids[i] < 0) { continue; }
        peft__json_key(j, keys[i]);
        peft__hf_token(t, j, ids[i]);
    }
    peft__json_key(j, "model_input_names"); /* transformers' default has token_type_ids, which decoders refuse */
    peft__json_array(j);
    peft__json_put_text(j, "input_ids");
    if (bert) { peft__json_put_text(j, "token_type_ids"); }
    peft__json_put_text(j, "attention_mask");
    peft__json_array_end(j);
    peft__hf_bool(j, "clean_up_tokenization_spaces", false);
    if (t->chat_template != NULL) { peft__hf_text(j, "chat_template", t->chat_template); }
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
    if (t->squeeze && t->kind != PEFT__TOK_UNIGRAM) {
        FAIL(PEFT_E_UNSUPPORTED, "a tokenizer that squeezes spaces has no form in tokenizer.json");
    }
    TRY(peft__dir_make(dir));
    peft__json_begin(&j, &s, 0);
    peft__json_object(&j);
    peft__hf_text(&j, "version", "1.0");
    peft__hf_text(&j, "truncation", NULL);
    peft__hf_text(&j, "padding", NULL);
    hf_added(t, &j);
    peft__export_hf_rules(t, &j, &scratch);
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
