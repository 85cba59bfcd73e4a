/* tokenizer_bert.c - vocab.txt: the vocabulary of BERT and its kin, one token a line, ids in the order of the lines.
 *
 * How texts are cleaned is said by tokenizer_config.json (do_lower_case, strip_accents, tokenize_chinese_chars); without it
 * as bert-base-uncased does. Texts stand between [CLS] and [SEP], the second one with token type 1.
 * Left out: do_basic_tokenize off, never_split. */
#include "text/parts.h"

static peft_status bert_vocab(peft__tokenizer *t, const char *path, const peft__json *config) {
    peft_status st = PEFT_OK;
    peft__file file = {0};
    size_t lines = 0, id = 0, added = peft__tok_companion_added(config);
    TRY(peft__file_open(t->mem, path, false, &file));
    const char *at = (const char *)file.data, *end = at + file.size;
    for (size_t i = 0; i < file.size; i++) { lines += at[i] == '\n'; }
    lines += file.size > 0 && end[-1] != '\n';
    TRY(peft__tok_reserve(t, added < 2 * lines + 65536 ? PEFT__MAX(lines, added) : lines, path));
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        const char *next = stop == NULL ? end : stop + 1;
        stop = stop == NULL ? end : stop;
        while (stop > at && stop[-1] == '\r') { stop--; }
        if (!peft__utf8_valid(at, (size_t)(stop - at))) { FAIL(PEFT_E_FORMAT, "%s line %zu: no UTF-8", path, id + 1); }
        char *text = peft__arena_strdup(&t->arena, at, (size_t)(stop - at));
        if (text == NULL) {
            st = PEFT_E_NOMEM;
            goto out;
        }
        TRY(peft__tok_set(t, id++, text, (size_t)(stop - at), PEFT__TOKEN_NORMAL, 0));
        at = next;
    }
out:
    peft__file_close(&file);
    return st;
}

/* A special token: as the configuration spells it, else as BERT does. -1: not in the vocabulary. */
static int32_t bert_special(peft__tokenizer *t, const peft__json *config, const char *key, const char *dflt) {
    const peft__json *node = peft__json_find(config, key);
    if (node != NULL && node->kind == PEFT__JSON_OBJECT) { node = peft__json_find(node, "content"); }
    bool said = node != NULL && node->kind == PEFT__JSON_STRING;
    int32_t id = peft__tokenizer_id(t, said ? node->str : dflt, said ? node->len : strlen(dflt));
    if (id >= 0) { t->tokens[id].type = PEFT__TOKEN_CONTROL; }
    return id;
}

static peft_status bert_rules(peft__tokenizer *t, const peft__json *config, const char *what) {
    peft_status st = PEFT_OK;
    bool lower = true, han = true, accents = true;
    TRY(peft__json_bool(config, what, "do_lower_case", true, &lower));
    TRY(peft__json_bool(config, what, "tokenize_chinese_chars", true, &han));
    TRY(peft__json_bool(config, what, "strip_accents", lower, &accents));
    bool open = peft__json_find(config, "strip_accents") == NULL;
    TRY(peft__normalise_add(t, PEFT__NORM_BERT,
                            1 | (han ? 2 : 0) | (accents ? 4 : 0) | (lower ? 8 : 0) | (open ? 16 : 0)));
    TRY(peft__pretok_add(&t->pretok, PEFT__SPLIT_BERT, 0, what));
    t->no_marks = t->joins = t->cleans = true;
    t->joint = "##";
    t->max_chars = 100;
out:
    return st;
}

void peft__tok_bert_template(peft__tokenizer *t, int32_t cls, int32_t sep) {
    const peft__template_item pair[] = {{cls, 0}, {PEFT__PART_FIRST, 0}, {sep, 0}, {PEFT__PART_SECOND, 1}, {sep, 1}};
    t->bos = cls;
    t->eos = sep;
    if (cls < 0 || sep < 0) { return; }
    t->lead[t->n_lead++] = cls;
    t->trail[t->n_trail++] = sep;
    t->add_bos = t->add_eos = true;
    memcpy(t->pair, pair, sizeof pair);
    t->n_pair = PEFT__COUNT(pair);
}

peft_status peft__tokenizer_open_bert(peft__mem *mem, const char *path, const char *dir, peft__tokenizer **out) {
    peft_status st = PEFT_OK;
    peft__tokenizer *t = NULL;
    peft__arena a;
    char *config_path = NULL;
    const peft__json *config = NULL;
    peft__arena_init(&a, mem);
    TRY(peft__path_join(&a, dir, "tokenizer_config.json", &config_path));
    if (peft__path_exists(config_path)) { TRY(peft__json_read(&a, config_path, &config)); }
    TRY(peft__tok_create(mem, PEFT__TOK_WORDPIECE, "vocab.txt", &t));
    TRY(bert_vocab(t, path, config));
    TRY(bert_rules(t, config, config_path));
    t->unk = bert_special(t, config, "unk_token", "[UNK]");
    t->pad = bert_special(t, config, "pad_token", "[PAD]");
    t->mask = bert_special(t, config, "mask_token", "[MASK]");
    peft__tok_bert_template(t, bert_special(t, config, "cls_token", "[CLS]"),
                            bert_special(t, config, "sep_token", "[SEP]"));
    TRY(peft__tok_companions(t, dir, true));
    TRY(peft__tok_finish(t, path));
    *out = t;
    t = NULL;
out:
    peft__tokenizer_free(t);
    peft__arena_free(&a);
    return st;
}
