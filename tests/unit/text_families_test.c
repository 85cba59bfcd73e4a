/* text_families_test.c - what a tokenizer's class adds to files that do not say it: RoBERTa's and BART's templates and mask, T5's and
 * mT5's extra ids, DeBERTa's mask; which of the two configs says the class, and what takes no part in it. */
#include "text_build.h"

/* Both configs (NULL: none) into a folder that has the tokenizer's files. */
static peft_status families_open(peft__mem *mem, const char *dir, const char *tokenizer, const char *model, peft__tokenizer **out) {
    peft_status st = PEFT_OK;
    *out = NULL;
    if (tokenizer != NULL) { st = text_write(mem, dir, "tokenizer_config.json", tokenizer); }
    if (st == PEFT_OK && model != NULL) { st = text_write(mem, dir, "config.json", model); }
    return st == PEFT_OK ? peft__tokenizer_open(mem, dir, out) : st;
}

/* ---- vocab.json and merges.txt ------------------------------------------------------------------------------------------ */

/* The specials as RoBERTa numbers them, a 4, b 5, ab 6, space 7, space+a 8, <mask> 9. */
static const char *families_bytes(peft__mem *mem) {
    const char *dir = runner_tmpdir();
    peft_status st = text_write(mem, dir, "vocab.json", "{\"<s>\":0,\"<pad>\":1,\"</s>\":2,\"<unk>\":3,\"a\":4,\"b\":5,\"ab\":6,"
                                                        "\"\xC4\xA0\":7,\"\xC4\xA0" "a\":8,\"<mask>\":9}");
    if (st == PEFT_OK) { st = text_write(mem, dir, "merges.txt", "a b\n\xC4\xA0 a\n"); }
    return st == PEFT_OK ? dir : "there is no folder";
}

TEST(text_families_roberta) {
    peft__mem *mem = runner_mem();
    static const char *const configs[][2] = { /* tokenizer_config.json, config.json */
        {"{\"tokenizer_class\":\"RobertaTokenizer\"}", NULL}, {NULL, "{\"model_type\":\"roberta\"}"},
        {"{\"tokenizer_class\":\"BartTokenizerFast\"}", "{\"model_type\":\"gpt2\"}"}, {NULL, "{\"model_type\":\"bart\"}"},
        {"{}", "{\"model_type\":\"longformer\"}"},
        {"{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\",\"pad_token\":\"<pad>\",\"unk_token\":\"<unk>\",\"mask_token\":\"<mask>\"}",
         "{\"model_type\":\"roberta\"}"}};
    for (size_t i = 0; i < PEFT__COUNT(configs); i++) {
        peft__tokenizer *t = NULL;
        CHECK_OK(families_open(mem, families_bytes(mem), configs[i][0], configs[i][1], &t));
        CHECK_STR(text_pair(t, "ab", NULL), "0 6 2");
        CHECK_STR(text_pair(t, "ab", "b a"), "0 6 2 2 5 8 2");
        CHECK_STR(text_ids(t, "ab", PEFT_TOKENIZE_BOS_EOS), "0 6 2");
        CHECK_STR(text_ids(t, "ab", 0), "6");
        CHECK_STR(text_ids(t, "a <mask>b", PEFT_TOKENIZE_SPECIAL), "4 9 5"); /* it takes the space before it */
        CHECK_STR(text_ids(t, "<s>a</s><pad>", PEFT_TOKENIZE_SPECIAL), "0 4 2 1");
        CHECK_INT(t->bos, 0);
        CHECK_INT(t->eos, 2);
        CHECK_INT(t->pad, 1);
        CHECK_INT(t->unk, 3);
        CHECK_INT(t->mask, 9);
        peft__tokenizer_free(t);
    }
}

TEST(text_families_roberta_by_its_options) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    CHECK_OK(families_open(mem, families_bytes(mem), "{\"tokenizer_class\":\"RobertaTokenizer\",\"add_prefix_space\":true}", NULL, &t));
    CHECK_STR(text_pair(t, "ab", "a"), "0 7 6 2 2 8 2"); /* each text as after a space */
    peft__tokenizer_free(t);
    CHECK_OK(families_open(mem, families_bytes(mem), "{\"tokenizer_class\":\"RobertaTokenizer\",\"added_tokens_decoder\":{\"9\":{"
                           "\"content\":\"<mask>\",\"special\":true,\"lstrip\":false}}}", NULL, &t));
    CHECK_STR(text_ids(t, "a <mask>b", PEFT_TOKENIZE_SPECIAL), "4 7 9 5"); /* a list of added tokens says it all */
    peft__tokenizer_free(t);
    CHECK_OK(families_open(mem, families_bytes(mem), "{\"tokenizer_class\":\"GPT2Tokenizer\"}", "{\"model_type\":\"roberta\"}", &t));
    CHECK_STR(text_pair(t, "ab", "b"), "6 5'"); /* the class counts, not the model */
    CHECK_INT(t->mask, -1);
    peft__tokenizer_free(t);
    static const char *const bad[] = {"add_prefix_space", "trim_offsets"};
    for (size_t i = 0; i < PEFT__COUNT(bad); i++) {
        char config[96], says[48];
        (void)snprintf(config, sizeof config, "{\"tokenizer_class\":\"RobertaTokenizer\",\"%s\":\"x\"}", bad[i]);
        (void)snprintf(says, sizeof says, "key \"%s\" is \"x\"", bad[i]);
        CHECK_STATUS(families_open(mem, families_bytes(mem), config, NULL, &t), PEFT_E_FORMAT);
        CHECK_ERROR_HAS(says);
    }
    const char *dir = runner_tmpdir();
    CHECK_OK(text_write(mem, dir, "vocab.json", "{\"a\":0,\"b\":1,\"ab\":2,\"</s>\":3}"));
    CHECK_OK(text_write(mem, dir, "merges.txt", "a b\n"));
    CHECK_OK(families_open(mem, dir, "{\"tokenizer_class\":\"RobertaTokenizer\"}", NULL, &t));
    CHECK_STR(text_pair(t, "ab", "b"), "2 1'"); /* without a <s> there is nothing to put around */
    CHECK_INT(t->eos, 3);
    peft__tokenizer_free(t);
}

/* ---- SentencePiece ------------------------------------------------------------------------------------------------------ */

/* A unigram model (kind 1) or BPE (2): <pad> 0 or [PAD] where `deberta`, </s> or [CLS] 1, <unk> or [SEP] 2, then [UNK] or U+2581 ... */
static const char *families_pieces(peft__mem *mem, bool deberta, char kind) {
    static const char *const t5[] = {"<pad>", "</s>", "<unk>", TEXT_MARK, "a", "b", TEXT_MARK "a"};
    static const char *const de[] = {"[PAD]", "[CLS]", "[SEP]", "[UNK]", TEXT_MARK, "a", "b", TEXT_MARK "a"};
    static const char t5_ids[] = "\xC0\x02\x02\xC8\x02\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01\xD0\x02\x01\xD8\x02\x00";
    static const char de_ids[] = "\xC0\x02\x03\xC8\x02\x01\xD0\x02\x02\xD8\x02\x00"; /* unk, bos, eos, pad */
    const char *dir = runner_tmpdir(), *const *pieces = deberta ? de : t5;
    size_t n = deberta ? PEFT__COUNT(de) : PEFT__COUNT(t5), unk = deberta ? 3 : 2;
    char trainer[32] = {0x18, kind};
    peft__str s;
    peft__str_init(&s, mem);
    for (size_t i = 0; i < n; i++) { text_spm_piece(&s, pieces[i], i > unk ? -(float)i : 0, i == unk ? 2 : i < unk ? 3 : 1); }
    size_t len = deberta ? sizeof de_ids - 1 : sizeof t5_ids - 1;
    memcpy(trainer + 2, deberta ? de_ids : t5_ids, len);
    text_spm_put(&s, 0x12, trainer, 2 + len);
    peft_status st = peft__save_text(mem, runner_path(dir, "spiece.model"), peft__str_c(&s), s.len);
    peft__str_free(&s);
    return st == PEFT_OK ? dir : "there is no folder";
}

TEST(text_families_t5) {
    peft__mem *mem = runner_mem();
    static const struct {
        const char *tokenizer, *model;
        size_t size; /* 7 pieces and the extra ids */
    } cases[] = {
        {"{\"tokenizer_class\":\"T5Tokenizer\"}", NULL, 107},
        {NULL, "{\"model_type\":\"t5\"}", 107},
        {NULL, "{\"model_type\":\"umt5\"}", 107},
        {"{\"tokenizer_class\":\"T5Tokenizer\",\"extra_ids\":3}", NULL, 10},
        {"{\"tokenizer_class\":\"T5Tokenizer\",\"extra_ids\":0}", NULL, 7},
        {"{\"tokenizer_class\":\"T5Tokenizer\",\"extra_ids\":-1}", NULL, 107},
        {"{\"tokenizer_class\":\"T5Tokenizer\",\"extra_ids\":70000}", NULL, 107},
        {"{\"tokenizer_class\":\"T5Tokenizer\"}", "{\"model_type\":\"mt5\"}", 7},
        {NULL, "{\"model_type\":\"mt5\"}", 7},
        {"{\"tokenizer_class\":\"T5Tokenizer\",\"extra_ids\":2}", "{\"model_type\":\"mt5\"}", 9},
    };
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        peft__tokenizer *t = NULL;
        char expected[48];
        CHECK_OK(families_open(mem, families_pieces(mem, false, 1), cases[i].tokenizer, cases[i].model, &t));
        CHECK_INT(peft__tokenizer_size(t), cases[i].size);
        CHECK_STR(text_pair(t, "a", NULL), "6 1");
        CHECK_STR(text_pair(t, "a", "a b"), "6 1 6 3 5 1");
        CHECK_INT(t->bos, -1);
        CHECK_INT(t->eos, 1);
        CHECK_INT(t->pad, 0);
        if (cases[i].size > 7) { /* the last id is the first extra one */
            (void)snprintf(expected, sizeof expected, "6 %d 1", (int)cases[i].size - 1);
            CHECK_STR(text_pair(t, "a<extra_id_0>", NULL), expected);
            (void)snprintf(expected, sizeof expected, "<extra_id_%d>", (int)cases[i].size - 8);
            CHECK_INT(peft__tokenizer_id(t, expected, strlen(expected)), 7);
        }
        peft__tokenizer_free(t);
    }
    /* BPE of that class is as its file says */
    peft__tokenizer *t = NULL;
    CHECK_OK(families_open(mem, families_pieces(mem, false, 2), "{\"tokenizer_class\":\"T5Tokenizer\"}", NULL, &t));
    CHECK_INT(peft__tokenizer_size(t), 7);
    CHECK_STR(text_pair(t, "a", "b"), "6 3' 5'");
    peft__tokenizer_free(t);
}

#define FAMILIES_DEBERTA "\"tokenizer_class\":\"DebertaV2Tokenizer\""

TEST(text_families_deberta) {
    peft__mem *mem = runner_mem();
    static const char *const configs[][2] = {{"{" FAMILIES_DEBERTA "}", NULL}, {NULL, "{\"model_type\":\"deberta-v2\"}"}};
    peft__tokenizer *t = NULL;
    for (size_t i = 0; i < PEFT__COUNT(configs); i++) {
        CHECK_OK(families_open(mem, families_pieces(mem, true, 1), configs[i][0], configs[i][1], &t));
        CHECK_INT(peft__tokenizer_size(t), 9);
        CHECK_STR(text_pair(t, "a", NULL), "1 7 2");
        CHECK_STR(text_pair(t, "a", "[MASK]"), "1 7 2 8' 2'");
        CHECK_STR(text_pair(t, "A", NULL), "1 4 3 2");
        CHECK_INT(t->mask, 8);
        CHECK_INT(t->pad, 0);
        peft__tokenizer_free(t);
    }
    CHECK_OK(families_open(mem, families_pieces(mem, true, 1), "{" FAMILIES_DEBERTA ",\"do_lower_case\":true}", NULL, &t));
    CHECK_STR(text_pair(t, "A", NULL), "1 7 2");
    peft__tokenizer_free(t);
    CHECK_STATUS(families_open(mem, families_pieces(mem, true, 1), "{" FAMILIES_DEBERTA ",\"do_lower_case\":1}", NULL,
                               &t), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("key \"do_lower_case\" is 1");
    /* a mask that is listed is that, and no second one comes behind it */
    CHECK_OK(families_open(mem, families_pieces(mem, true, 1), "{" FAMILIES_DEBERTA ",\"added_tokens_decoder\":{\"8\":{"
                           "\"content\":\"[MASK]\",\"special\":true}}}", NULL, &t));
    CHECK_INT(peft__tokenizer_size(t), 9);
    CHECK_INT(t->mask, 8);
    peft__tokenizer_free(t);
}
