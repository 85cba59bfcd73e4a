/* tokenizer.c - the handle: finding the files that a path names, and what a tokenizer tells about itself.
 *
 * A folder is searched for tokenizer.json, tokenizer.model (or spiece.model, spm.model), vocab.json with merges.txt, and
 * vocab.txt, in this order. A file is taken by its name; anything that begins as a GGUF is one. */
#include "text/parts.h"

static const char tokenizer_found_in[] = "a folder with tokenizer.json, tokenizer.model, spiece.model, vocab.json and "
                                         "merges.txt, or vocab.txt; one of these "
                                         "files; or a GGUF file";
static const char *const tokenizer_models[] = {"tokenizer.model", "spiece.model", "spm.model"};

/* dir/name if there is such a file, else NULL in *out. */
static peft_status tokenizer_file_in(peft__arena *a, const char *dir, const char *name, char **out) {
    peft_status st = peft__path_join(a, dir, name, out);
    if (st == PEFT_OK && !peft__path_exists(*out)) { *out = NULL; }
    return st;
}

static peft_status tokenizer_open_dir(peft__mem *mem, peft__arena *a, const char *dir, peft__tokenizer **out) {
    peft_status st = PEFT_OK;
    char *json = NULL, *spm = NULL, *vocab = NULL, *merges = NULL, *bert = NULL;
    TRY(tokenizer_file_in(a, dir, "tokenizer.json", &json));
    for (size_t i = 0; spm == NULL && i < PEFT__COUNT(tokenizer_models); i++) {
        TRY(tokenizer_file_in(a, dir, tokenizer_models[i], &spm));
    }
    TRY(tokenizer_file_in(a, dir, "vocab.json", &vocab));
    TRY(tokenizer_file_in(a, dir, "merges.txt", &merges));
    TRY(tokenizer_file_in(a, dir, "vocab.txt", &bert));
    if (json != NULL) {
        TRY(peft__tokenizer_open_json(mem, json, dir, out));
    } else if (spm != NULL) {
        TRY(peft__tokenizer_open_spm(mem, spm, dir, out));
    } else if (vocab != NULL && merges != NULL) {
        TRY(peft__tokenizer_open_gpt2(mem, vocab, merges, dir, out));
    } else if (bert != NULL) {
        TRY(peft__tokenizer_open_bert(mem, bert, dir, out));
    } else {
        FAIL(PEFT_E_NOT_FOUND, "%s: no tokenizer there; expected %s", dir, tokenizer_found_in);
    }
out:
    return st;
}

static peft_status tokenizer_open_file(peft__mem *mem, peft__arena *a, const char *path, peft__tokenizer **out) {
    peft_status st = PEFT_OK;
    const char *name = peft__path_name(path);
    char *vocab = NULL, *merges = NULL;
    char *dir = peft__arena_strdup(a, path, name == path ? 0 : (size_t)(name - path) - (name - path > 1 ? 1 : 0));
    if (dir == NULL) { return PEFT_E_NOMEM; }
    if (dir[0] == '\0') { dir = peft__arena_strdup(a, ".", 1); }
    if (dir == NULL) { return PEFT_E_NOMEM; }
    if (peft__gguf_probe(path)) {
        TRY(peft__tokenizer_open_gguf(mem, path, out));
    } else if (strcmp(name, "vocab.json") == 0 || strcmp(name, "merges.txt") == 0) {
        TRY(peft__path_join(a, dir, "vocab.json", &vocab));
        TRY(peft__path_join(a, dir, "merges.txt", &merges));
        TRY(peft__tokenizer_open_gpt2(mem, vocab, merges, dir, out));
    } else if (peft__text_ends(name, ".model")) {
        TRY(peft__tokenizer_open_spm(mem, path, dir, out));
    } else if (peft__text_ends(name, ".json")) {
        TRY(peft__tokenizer_open_json(mem, path, dir, out));
    } else if (strcmp(name, "vocab.txt") == 0) {
        TRY(peft__tokenizer_open_bert(mem, path, dir, out));
    } else {
        FAIL(PEFT_E_UNSUPPORTED, "%s: not known as a tokenizer; expected %s", path, tokenizer_found_in);
    }
out:
    return st;
}

peft_status peft__tokenizer_open(peft__mem *mem, const char *path, peft__tokenizer **out) {
    peft_status st = PEFT_OK;
    peft__arena a;
    peft__arena_init(&a, mem);
    *out = NULL;
    if (peft__path_is_dir(path)) {
        TRY(tokenizer_open_dir(mem, &a, path, out));
    } else if (!peft__path_exists(path)) {
        FAIL(PEFT_E_NOT_FOUND, "%s: no such file or folder", path);
    } else {
        TRY(tokenizer_open_file(mem, &a, path, out));
    }
out:
    peft__arena_free(&a);
    return st;
}

bool peft__tokenizer_probe(const char *path) {
    static const char *const names[] = {"tokenizer.json", "tokenizer.model", "spiece.model", "spm.model",
                                        "vocab.json",     "vocab.txt",       "merges.txt"};
    const char *name = peft__path_name(path);
    char buf[4096];
    if (!peft__path_is_dir(path)) {
        for (size_t i = 0; i < PEFT__COUNT(names); i++) {
            if (strcmp(name, names[i]) == 0) { return peft__path_exists(path); }
        }
        return peft__path_exists(path) && (peft__text_ends(name, ".model") || peft__gguf_probe(path));
    }
    size_t len = strlen(path);
    for (size_t i = 0; i < PEFT__COUNT(names) - 1; i++) {
        size_t n = strlen(names[i]);
        if (len + 1 + n >= sizeof buf) { return false; }
        memcpy(buf, path, len);
        buf[len] = '/';
        memcpy(buf + len + 1, names[i], n + 1);
        if (peft__path_exists(buf)) { return true; }
    }
    return false;
}

static void tokenizer_put_ids(peft__json_out *j, const char *key, const int32_t *ids, size_t n) {
    peft__json_key(j, key);
    peft__json_array(j);
    for (size_t i = 0; i < n; i++) { peft__json_put_int(j, ids[i]); }
    peft__json_array_end(j);
}

peft_status peft__tokenizer_info(const peft__tokenizer *t, peft__str *out) {
    static const char *const keys[] = {"bos_id", "eos_id", "pad_id", "unk_id", "mask_id"};
    static const char *const kinds[] = {"byte-level-bpe", "sentencepiece-bpe", "wordpiece", "unigram"};
    const int32_t ids[] = {t->bos, t->eos, t->pad, t->unk, t->mask};
    peft__json_out j;
    peft__json_begin(&j, out, 0);
    peft__json_object(&j);
    peft__json_key(&j, "kind");
    peft__json_put_text(&j, kinds[t->kind]);
    peft__json_key(&j, "source");
    peft__json_put_text(&j, t->source);
    peft__json_key(&j, "size");
    peft__json_put_int(&j, (int64_t)t->count);
    peft__json_key(&j, "merges");
    peft__json_put_int(&j, (int64_t)t->merges.len);
    for (size_t i = 0; i < PEFT__COUNT(keys); i++) {
        peft__json_key(&j, keys[i]);
        peft__json_put_int(&j, ids[i]);
    }
    tokenizer_put_ids(&j, "eog_ids", t->eog.data, t->eog.len);
    tokenizer_put_ids(&j, "prefix_ids", t->lead, t->n_lead);
    tokenizer_put_ids(&j, "suffix_ids", t->trail, t->n_trail);
    peft__json_key(&j, "pre_tokenizer");
    peft__json_put_text(&j, t->pre_name);
    peft__json_key(&j, "chat_format");
    peft__json_put_text(&j, peft__chat_format(t));
    peft__json_key(&j, "chat_template");
    peft__json_put_text(&j, t->chat_template);
    peft__json_object_end(&j);
    return peft__str_status(out);
}
