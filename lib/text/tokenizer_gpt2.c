/* tokenizer_gpt2.c - vocab.json and merges.txt: the two files of GPT-2 and of models of its time.
 *
 * vocab.json maps the spelling of a token in the byte alphabet to its id; merges.txt lists merges, best first, after an
 * optional line "#version: 0.2". The splitting rule is GPT-2's. Special tokens come from the configuration beside the
 * files; without one, <|endoftext|> is BOS, EOS and unknown, as in GPT-2. RoBERTa, BART and OPT: see families.c. */
#include "text/parts.h"

static peft_status gpt2_vocab(peft__tokenizer *t, const char *path, const char *dir) {
    peft_status st = PEFT_OK;
    peft__arena a;
    const peft__json *root = NULL, *config = NULL;
    char *config_path = NULL;
    size_t count = 0;
    peft__arena_init(&a, t->mem);
    TRY(peft__json_read(&a, path, &root));
    if (root->kind != PEFT__JSON_OBJECT) { FAIL(PEFT_E_FORMAT, "%s: expected an object of tokens and ids", path); }
    TRY(peft__path_join(&a, dir, "tokenizer_config.json", &config_path));
    if (peft__path_exists(config_path)) { TRY(peft__json_read(&a, config_path, &config)); }
    for (size_t i = 0; i < root->len; i++) {
        const peft__json *id = &root->items[i];
        if (!id->is_int || id->i < 0 || (uint64_t)id->i > 2 * (uint64_t)root->len + 65536) {
            FAIL(PEFT_E_FORMAT, "%s: the id of \"%.80s\" is no number from 0 to about %zu", path, root->keys[i].str,
                 root->len);
        }
        count = PEFT__MAX(count, (size_t)id->i + 1);
    }
    size_t added = peft__tok_companion_added(config);
    TRY(peft__tok_reserve(t, added < 2 * count + 65536 ? PEFT__MAX(count, added) : count, path));
    for (size_t i = 0; i < root->len; i++) {
        const char *text = peft__arena_strdup(&t->arena, root->keys[i].str, root->keys[i].len);
        if (t->tokens[root->items[i].i].type != 0) {
            FAIL(PEFT_E_FORMAT, "%s: id %lld is given to two tokens", path, (long long)root->items[i].i);
        }
        if (text == NULL) {
            st = PEFT_E_NOMEM;
            goto out;
        }
        TRY(peft__tok_set(t, (size_t)root->items[i].i, text, root->keys[i].len, PEFT__TOKEN_NORMAL, 0));
    }
out:
    peft__arena_free(&a);
    return st;
}

static peft_status gpt2_merges(peft__tokenizer *t, const char *path) {
    peft_status st = PEFT_OK;
    peft__file file = {0};
    TRY(peft__file_open(t->mem, path, false, &file));
    const char *at = (const char *)file.data, *end = at + file.size;
    for (bool first = true; at < end; first = false) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        const char *next = stop == NULL ? end : stop + 1;
        stop = stop == NULL ? end : stop;
        if (stop > at && stop[-1] == '\r') { stop--; }
        size_t len = (size_t)(stop - at);
        bool comment = first && len >= 8 && memcmp(at, "#version", 8) == 0;
        if (len > 0 && !comment) { TRY(peft__tok_merge_line(t, at, len, path)); }
        at = next;
    }
out:
    peft__file_close(&file);
    return st;
}

peft_status peft__tokenizer_open_gpt2(peft__mem *mem, const char *vocab, const char *merges, const char *dir,
                                      peft__tokenizer **out) {
    static const char end_of_text[] = "<|endoftext|>";
    peft_status st = PEFT_OK;
    peft__tokenizer *t = NULL;
    TRY(peft__tok_create(mem, PEFT__TOK_BYTES, "vocab.json", &t));
    TRY(peft__pretok_add(&t->pretok, PEFT__SPLIT_GPT2, 0, vocab));
    TRY(gpt2_vocab(t, vocab, dir));
    TRY(gpt2_merges(t, merges));
    TRY(peft__tok_companions(t, dir, true));
    int32_t id = peft__tokenizer_id(t, end_of_text, sizeof end_of_text - 1);
    if (id >= 0 && t->eos < 0) {
        t->tokens[id].type = PEFT__TOKEN_CONTROL;
        t->eos = id;
        t->bos = t->bos < 0 ? id : t->bos;
        t->unk = t->unk < 0 ? id : t->unk;
    }
    TRY(peft__tok_finish(t, vocab));
    *out = t;
    t = NULL;
out:
    peft__tokenizer_free(t);
    return st;
}
