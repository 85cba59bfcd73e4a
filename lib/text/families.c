/* families.c - what a tokenizer's class implies where its own file does not say it.
 *
 * vocab.json with merges.txt and a SentencePiece model know nothing of the tokens that a family puts around a text; Hugging
 * Face's classes do (transformers, convert_slow_tokenizer.py): RoBERTa and BART, T5 and mT5, DeBERTa v2 and v3. The class is
 * "tokenizer_class" in tokenizer_config.json, or follows from "model_type" in config.json.
 * Left out: families whose ids are not those of their SentencePiece model (XLM-R, mBART, Pegasus). */
#include "text/parts.h"

enum { FAMILY_OTHER = 0, FAMILY_ROBERTA = 1, FAMILY_T5 = 2, FAMILY_DEBERTA = 3 };

/* The token with this text, which becomes a control token; -1: there is none. */
static int32_t family_token(peft__tokenizer *t, const char *text) {
    int32_t id = peft__tokenizer_id(t, text, strlen(text));
    bool text_like = id >= 0 && (t->tokens[id].type == PEFT__TOKEN_NORMAL || t->tokens[id].type == PEFT__TOKEN_USER);
    if (text_like) { t->tokens[id].type = PEFT__TOKEN_CONTROL; }
    return id;
}

static bool family_starts(const peft__json *node, const char *head) {
    return node != NULL && node->kind == PEFT__JSON_STRING && strncmp(node->str, head, strlen(head)) == 0;
}

static int32_t family_of(const peft__json *config, const peft__json *model) {
    static const struct {
        const char *class_name, *model_type;
        int32_t family;
    } families[] = {{"Roberta", "roberta", FAMILY_ROBERTA},
                    {"Bart", "bart", FAMILY_ROBERTA},
                    {"T5", "t5", FAMILY_T5},
                    {"T5", "mt5", FAMILY_T5},
                    {"T5", "umt5", FAMILY_T5},
                    {"DebertaV2", "deberta-v2", FAMILY_DEBERTA},
                    {"Longformer", "longformer", FAMILY_ROBERTA}};
    const peft__json *name = peft__json_find(config, "tokenizer_class"), *type = peft__json_find(model, "model_type");
    for (size_t i = 0; i < PEFT__COUNT(families); i++) {
        bool same =
            name != NULL ? family_starts(name, families[i].class_name) : peft__json_is(type, families[i].model_type);
        if (same) { return families[i].family; }
    }
    return FAMILY_OTHER;
}

static void family_pair(peft__tokenizer *t, const peft__template_item *items, size_t n) {
    memcpy(t->pair, items, n * sizeof *items);
    t->n_pair = n;
}

/* <s> A </s>, and <s> A </s> </s> B </s>, all of type 0; the mask takes the space before it. */
static peft_status family_roberta(peft__tokenizer *t, const peft__json *config) {
    peft_status st = PEFT_OK;
    int32_t bos = t->bos >= 0 ? t->bos : family_token(t, "<s>"), eos = t->eos >= 0 ? t->eos : family_token(t, "</s>");
    bool prefix = false;
    t->bos = bos;
    t->eos = eos;
    t->pad = t->pad >= 0 ? t->pad : family_token(t, "<pad>");
    t->unk = t->unk >= 0 ? t->unk : family_token(t, "<unk>");
    t->mask = t->mask >= 0 ? t->mask : family_token(t, "<mask>");
    if (t->mask >= 0 && peft__tok_companion_added(config) == 0) {
        t->tokens[t->mask].match = (uint8_t)(t->tokens[t->mask].match | PEFT__TOKEN_LSTRIP);
    }
    TRY(peft__json_bool(config, "tokenizer_config.json", "add_prefix_space", false, &prefix));
    TRY(peft__json_bool(config, "tokenizer_config.json", "trim_offsets", true, &t->trim));
    t->prefix = prefix ? PEFT__PREFIX_ALWAYS : PEFT__PREFIX_NEVER;
    t->prefix_once = t->trim_prefix = prefix;
    if (bos < 0 || eos < 0) { goto out; }
    const peft__template_item pair[] = {{bos, 0}, {PEFT__PART_FIRST, 0},  {eos, 0},
                                        {eos, 0}, {PEFT__PART_SECOND, 0}, {eos, 0}};
    t->lead[0] = bos;
    t->trail[0] = eos;
    t->n_lead = t->n_trail = 1;
    t->add_bos = t->add_eos = true;
    family_pair(t, pair, PEFT__COUNT(pair));
out:
    return st;
}

size_t peft__tok_family_extra(const peft__json *config, const peft__json *model) {
    const peft__json *n = peft__json_find(config, "extra_ids");
    if (family_of(config, model) == FAMILY_DEBERTA) { return 1; }
    if (family_of(config, model) != FAMILY_T5) { return 0; }
    if (peft__json_is(peft__json_find(model, "model_type"), "mt5") && n == NULL) { return 0; }
    return n != NULL && n->is_int && n->i >= 0 && n->i <= 65536 ? (size_t)n->i : 100;
}

/* A </s>, and A </s> B </s>. The tokens behind the pieces are <extra_id_99> to <extra_id_0>. */
static peft_status family_t5(peft__tokenizer *t) {
    peft_status st = PEFT_OK;
    size_t pieces = t->count;
    while (pieces > 0 && t->tokens[pieces - 1].type == 0) { pieces--; }
    for (size_t id = pieces; id < t->count; id++) {
        char *text = peft__arena_printf(&t->arena, "<extra_id_%zu>", t->count - 1 - id);
        if (text == NULL) { return PEFT_E_NOMEM; }
        TRY(peft__tok_set(t, id, text, strlen(text), PEFT__TOKEN_CONTROL, 0));
    }
    t->bos = -1;
    t->n_lead = t->n_trail = 0;
    t->add_bos = false;
    t->add_eos = t->eos >= 0;
    t->pad = t->pad >= 0 ? t->pad : family_token(t, "<pad>");
    if (t->eos < 0) { goto out; }
    const peft__template_item pair[] = {{PEFT__PART_FIRST, 0}, {t->eos, 0}, {PEFT__PART_SECOND, 0}, {t->eos, 0}};
    t->trail[t->n_trail++] = t->eos;
    family_pair(t, pair, PEFT__COUNT(pair));
out:
    return st;
}

/* [CLS] A [SEP] B [SEP]; [MASK] stands behind the pieces. */
static peft_status family_deberta(peft__tokenizer *t, const peft__json *config) {
    peft_status st = PEFT_OK;
    bool lower = false;
    if (t->count > 0 && t->tokens[t->count - 1].type == 0 && peft__tokenizer_id(t, "[MASK]", 6) < 0) {
        TRY(peft__tok_set(t, t->count - 1, "[MASK]", 6, PEFT__TOKEN_CONTROL, 0));
    }
    TRY(peft__json_bool(config, "tokenizer_config.json", "do_lower_case", false, &lower));
    if (lower) { TRY(peft__normalise_add(t, PEFT__NORM_LOWER, 0)); }
    t->pad = family_token(t, "[PAD]");
    t->mask = family_token(t, "[MASK]");
    t->n_lead = t->n_trail = 0;
    peft__tok_bert_template(t, family_token(t, "[CLS]"), family_token(t, "[SEP]"));
out:
    return st;
}

peft_status peft__tok_family(peft__tokenizer *t, const peft__json *config, const peft__json *model) {
    bool files = strcmp(t->source, "vocab.json") == 0, spm = strcmp(t->source, "tokenizer.model") == 0;
    switch (family_of(config, model)) {
        case FAMILY_ROBERTA: return files ? family_roberta(t, config) : PEFT_OK;
        case FAMILY_T5: return spm && t->kind == PEFT__TOK_UNIGRAM ? family_t5(t) : PEFT_OK;
        case FAMILY_DEBERTA: return spm && t->kind == PEFT__TOK_UNIGRAM ? family_deberta(t, config) : PEFT_OK;
        default: return PEFT_OK;
    }
}
