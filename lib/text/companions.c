/* companions.c - the files beside a tokenizer that name its special tokens and its chat template.
 *
 * tokenizer_config.json, then special_tokens_map.json, name tokens; config.json and generation_config.json give ids;
 * chat_template.jinja, or "chat_template" in tokenizer_config.json, is the template. All are optional; what an earlier
 * one says is not changed by a later one. A name that is not in the vocabulary is passed over. What the class of the
 * tokenizer implies is in families.c. Left out: every other key, such as the padding side. */
#include "text/parts.h"

/* Parses dir/name; *out is NULL where there is no such file. */
static peft_status companions_read(peft__arena *a, const char *dir, const char *name, const peft__json **out) {
    peft_status st = PEFT_OK;
    char *path = NULL;
    *out = NULL;
    TRY(peft__path_join(a, dir, name, &path));
    if (!peft__path_exists(path)) { goto out; }
    TRY(peft__json_read(a, path, out));
    if ((*out)->kind != PEFT__JSON_OBJECT) { FAIL(PEFT_E_FORMAT, "%s: expected an object", path); }
out:
    return st;
}

/* A token given as "text" or {"content": "text"}: its id, and it becomes a control token. -1: absent. */
static int32_t companions_token(peft__tokenizer *t, const peft__json *obj, const char *key) {
    const peft__json *node = peft__json_find(obj, key);
    if (node != NULL && node->kind == PEFT__JSON_OBJECT) { node = peft__json_find(node, "content"); }
    if (node == NULL || node->kind != PEFT__JSON_STRING) { return -1; }
    int32_t id = peft__tokenizer_id(t, node->str, node->len);
    if (id >= 0 && t->tokens[id].type == PEFT__TOKEN_NORMAL) { t->tokens[id].type = PEFT__TOKEN_CONTROL; }
    return id;
}

static void companions_default(int32_t *id, int32_t found) {
    if (*id < 0) { *id = found; }
}

static void companions_tokens(peft__tokenizer *t, const peft__json *obj) {
    companions_default(&t->bos, companions_token(t, obj, "bos_token"));
    companions_default(&t->eos, companions_token(t, obj, "eos_token"));
    companions_default(&t->pad, companions_token(t, obj, "pad_token"));
    companions_default(&t->unk, companions_token(t, obj, "unk_token"));
    companions_default(&t->mask, companions_token(t, obj, "mask_token"));
}

/* An id given as a number or as a list of them, of which the first counts. Out of range: passed over. */
static int32_t companions_id(const peft__tokenizer *t, const peft__json *node) {
    if (node != NULL && node->kind == PEFT__JSON_ARRAY && node->len > 0) { node = &node->items[0]; }
    if (node == NULL || !node->is_int || node->i < 0 || (uint64_t)node->i >= t->count) { return -1; }
    return (int32_t)node->i;
}

static peft_status companions_ids(peft__tokenizer *t, const peft__json *obj) {
    peft_status st = PEFT_OK;
    const peft__json *eos = peft__json_find(obj, "eos_token_id");
    companions_default(&t->bos, companions_id(t, peft__json_find(obj, "bos_token_id")));
    companions_default(&t->eos, companions_id(t, eos));
    companions_default(&t->pad, companions_id(t, peft__json_find(obj, "pad_token_id")));
    for (size_t i = 0; eos != NULL && eos->kind == PEFT__JSON_ARRAY && i < eos->len; i++) {
        TRY(peft__tok_add_eog(t, companions_id(t, &eos->items[i])));
    }
out:
    return st;
}

/* "added_tokens_decoder": {"0": {"content": ..., "special": ...}}. */
static peft_status companions_added(peft__tokenizer *t, const peft__json *config, const char *dir) {
    peft_status st = PEFT_OK;
    const peft__json *added = peft__json_find(config, "added_tokens_decoder");
    for (size_t i = 0; added != NULL && added->kind == PEFT__JSON_OBJECT && i < added->len; i++) {
        static const struct {
            const char *key;
            uint8_t bit;
        } marks[] = {{"lstrip", PEFT__TOKEN_LSTRIP},
                     {"rstrip", PEFT__TOKEN_RSTRIP},
                     {"single_word", PEFT__TOKEN_WHOLE},
                     {"normalized", PEFT__TOKEN_LATE}};
        const peft__json *entry = &added->items[i], *content = peft__json_find(entry, "content");
        int64_t id = -1;
        bool special = false, on = false;
        if (content == NULL || content->kind != PEFT__JSON_STRING || content->len == 0 ||
            !peft__parse_i64(added->keys[i].str, added->keys[i].len, &id) || id < 0 || (uint64_t)id >= PEFT__TOK_MAX) {
            FAIL(PEFT_E_FORMAT, "%s/tokenizer_config.json: \"added_tokens_decoder\" has no text for token %s", dir,
                 added->keys[i].str);
        }
        TRY(peft__json_bool(entry, "added_tokens_decoder", "special", false, &special));
        if ((size_t)id >= t->count) { continue; }
        peft__token *k = &t->tokens[id];
        if (k->type == 0) {
            char *text = peft__arena_strdup(&t->arena, content->str, content->len);
            if (text == NULL) { return PEFT_E_NOMEM; }
            TRY(peft__tok_set(t, (size_t)id, text, content->len, PEFT__TOKEN_USER, 0));
            k->type = PEFT__TOKEN_NORMAL;
        }
        if (k->type == PEFT__TOKEN_NORMAL) { k->type = special ? PEFT__TOKEN_CONTROL : PEFT__TOKEN_USER; }
        for (size_t m = 0; m < PEFT__COUNT(marks); m++) {
            TRY(peft__json_bool(entry, "added_tokens_decoder", marks[m].key, false, &on));
            if (on) { k->match = (uint8_t)(k->match | marks[m].bit); }
        }
    }
out:
    return st;
}

size_t peft__tok_companion_added(const peft__json *config) {
    const peft__json *added = peft__json_find(config, "added_tokens_decoder");
    size_t count = 0;
    for (size_t i = 0; added != NULL && added->kind == PEFT__JSON_OBJECT && i < added->len; i++) {
        int64_t id = -1;
        if (peft__parse_i64(added->keys[i].str, added->keys[i].len, &id) && id >= 0 && id < PEFT__TOK_MAX) {
            count = PEFT__MAX(count, (size_t)id + 1);
        }
    }
    return count;
}

peft_status peft__tok_companion_room(peft__arena *a, const char *dir, size_t pieces, bool unigram, size_t *count) {
    peft_status st = PEFT_OK;
    const peft__json *config = NULL, *ids = NULL;
    TRY(companions_read(a, dir, "tokenizer_config.json", &config));
    TRY(companions_read(a, dir, "config.json", &ids));
    size_t listed = peft__tok_companion_added(config);
    *count = listed < 2 * pieces + 65536 ? PEFT__MAX(listed, pieces) : pieces;
    if (unigram && listed == 0) { *count = pieces + peft__tok_family_extra(config, ids); }
out:
    return st;
}

/* The template: a text, or a list of {"name", "template"} of which "default" counts, or the first. */
static const peft__json *companions_template(const peft__json *config) {
    const peft__json *node = peft__json_find(config, "chat_template");
    if (node != NULL && node->kind == PEFT__JSON_ARRAY) {
        const peft__json *chosen = node->len > 0 ? peft__json_find(&node->items[0], "template") : NULL;
        for (size_t i = 0; i < node->len; i++) {
            if (peft__json_is(peft__json_find(&node->items[i], "name"), "default")) {
                chosen = peft__json_find(&node->items[i], "template");
            }
        }
        node = chosen;
    }
    return node != NULL && node->kind == PEFT__JSON_STRING ? node : NULL;
}

static peft_status companions_chat(peft__tokenizer *t, peft__arena *a, const char *dir, const peft__json *config) {
    peft_status st = PEFT_OK;
    peft__file file = {0};
    char *path = NULL;
    const peft__json *node = companions_template(config);
    if (t->chat_template != NULL) { goto out; }
    TRY(peft__path_join(a, dir, "chat_template.jinja", &path));
    if (peft__path_exists(path)) {
        TRY(peft__file_open(t->mem, path, false, &file));
        t->chat_template = peft__arena_strdup(&t->arena, (const char *)file.data, file.size);
    } else if (node != NULL) {
        t->chat_template = peft__arena_strdup(&t->arena, node->str, node->len);
    } else {
        goto out;
    }
    if (t->chat_template == NULL) { st = PEFT_E_NOMEM; }
out:
    peft__file_close(&file);
    return st;
}

/* Puts a token around a text, or takes it away, where the configuration says so. Without a word of it what the
 * tokenizer's file put there stays, and `on` is the default. */
static peft_status companions_affix(peft__tokenizer *t, const peft__json *config, const char *key, int32_t id,
                                    int32_t *affix, size_t *count, bool *on) {
    bool said = peft__json_find(config, key) != NULL;
    peft_status st = peft__json_bool(config, "tokenizer_config.json", key, *on, on);
    if (st != PEFT_OK) { return st; }
    if (said) {
        *count = 0;
        t->n_pair = 0; /* the template of two texts is made anew */
    }
    if (*on && *count == 0 && id >= 0) { affix[(*count)++] = id; }
    *on = *count > 0;
    return st;
}

peft_status peft__tok_companions(peft__tokenizer *t, const char *dir, bool added_tokens) {
    peft_status st = PEFT_OK;
    peft__arena a;
    const peft__json *config = NULL, *map = NULL, *ids = NULL, *generation = NULL;
    peft__arena_init(&a, t->mem);
    TRY(companions_read(&a, dir, "tokenizer_config.json", &config));
    TRY(companions_read(&a, dir, "special_tokens_map.json", &map));
    TRY(companions_read(&a, dir, "config.json", &ids));
    TRY(companions_read(&a, dir, "generation_config.json", &generation));
    if (added_tokens) { TRY(companions_added(t, config, dir)); }
    companions_tokens(t, config);
    companions_tokens(t, map);
    TRY(peft__tok_family(t, config, ids));
    TRY(companions_ids(t, ids));
    TRY(companions_ids(t, generation));
    TRY(companions_affix(t, config, "add_bos_token", t->bos, t->lead, &t->n_lead, &t->add_bos));
    TRY(companions_affix(t, config, "add_eos_token", t->eos, t->trail, &t->n_trail, &t->add_eos));
    TRY(companions_chat(t, &a, dir, config));
out:
    peft__arena_free(&a);
    return st;
}
