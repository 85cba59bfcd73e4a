/* text_wordpiece_test.c - WordPiece and BERT's normaliser by hand: files, pairs, places, words, truncation, windows. */
#include "text_build.h"

/* One token a line: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4, a 5, ##b 6, ##bc 7, ab 8, cafe 9, the same with an
 * accent 10, . 11, U+4E00 12, ##ab 13, A 14, x 15, ##x 16. */
#define WORDPIECE_LINES \
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b\n##bc\nab\ncafe\ncaf\xC3\xA9\n.\n\xE4\xB8\x80\n##ab\nA\nx\n##x\n"

static peft_status wordpiece_open(peft__mem *mem, const char *config, peft__tokenizer **out) {
    const char *dir = runner_tmpdir();
    *out = NULL;
    peft_status st = text_write(mem, dir, "vocab.txt", WORDPIECE_LINES);
    if (st == PEFT_OK && config != NULL) { st = text_write(mem, dir, "tokenizer_config.json", config); }
    return st != PEFT_OK ? st : peft__tokenizer_open(mem, dir, out);
}

TEST(text_wordpiece_words) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    CHECK_OK(wordpiece_open(mem, NULL, &t));
    CHECK_INT(peft__tokenizer_size(t), 17);
    CHECK_STR(text_ids(t, "", 0), "");
    CHECK_STR(text_ids(t, "  \t\n", 0), "");
    CHECK_STR(text_ids(t, "a ab abc abbc", 0), "5 8 1 8 7"); /* ab, then ##c is missing: the word is unknown */
    CHECK_STR(text_ids(t, "aab aabab", 0), "5 13 5 13 13");
    CHECK_STR(text_ids(t, "AB a.B", 0), "8 5 11 1");
    CHECK_STR(text_ids(t, "Caf\xC3\x89 cafe\xCC\x81", 0), "9 9");
    CHECK_STR(text_ids(t,
                       "a\xE4\xB8\x80"
                       "a",
                       0),
              "5 12 5"); /* a space on both sides of Han */
    CHECK_STR(text_ids_of(t, "a\0b\x07\xEF\xBF\xBD\xFF\xC3", 8, 0),
              "8"); /* what is no text is as if it were not there */
    CHECK_STR(text_ids(t,
                       "a\xC2\xA0"
                       "a\xE2\x80\xA8"
                       "a\xC2\x85"
                       "b",
                       0),
              "5 5 8"); /* U+0085 is a control */
    CHECK_STR(text_ids(t, "ab", PEFT_TOKENIZE_BOS_EOS), "2 8 3");
    CHECK_STR(text_ids(t, "a[MASK]a", PEFT_TOKENIZE_SPECIAL), "5 4 5");
    CHECK_STR(text_ids(t, "a [MASK]", 0), "5 1 1 1"); /* [ mask ] */
    CHECK_INT(peft__tokenizer_mask(t), 4);
    CHECK_INT(peft__tokenizer_bos(t), 2);
    CHECK_INT(peft__tokenizer_pad(t), 0);
    peft__tokenizer_free(t);
}

TEST(text_wordpiece_long_words) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    char text[201];
    memset(text, 'x', 200);
    CHECK_OK(wordpiece_open(mem, NULL, &t));
    peft__vec ids;
    peft__vec_init(&ids, mem, sizeof(int32_t));
    CHECK_OK(peft__tokenizer_encode(t, text, 100, 0, &ids));
    CHECK_INT(ids.len, 100);
    CHECK_INT(PEFT__VEC_AT(&ids, int32_t, 99), 16);
    ids.len = 0;
    CHECK_OK(peft__tokenizer_encode(t, text, 101, 0, &ids));
    CHECK_INT(ids.len, 1);
    CHECK_INT(PEFT__VEC_AT(&ids, int32_t, 0), 1);
    peft__vec_free(&ids);
    peft__tokenizer_free(t);
}

TEST(text_wordpiece_configurations) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    CHECK_OK(wordpiece_open(mem, "{\"do_lower_case\":false}", &t));
    CHECK_STR(text_ids(t, "A a caf\xC3\xA9 cafe Cafe", 0), "14 5 10 9 1");
    peft__tokenizer_free(t);
    CHECK_OK(wordpiece_open(mem, "{\"strip_accents\":false}", &t));
    CHECK_STR(text_ids(t, "CAF\xC3\x89 cafe", 0), "10 9");
    peft__tokenizer_free(t);
    CHECK_OK(wordpiece_open(mem, "{\"do_lower_case\":false,\"strip_accents\":true}", &t));
    CHECK_STR(text_ids(t, "A caf\xC3\xA9", 0), "14 9");
    peft__tokenizer_free(t);
    CHECK_OK(wordpiece_open(mem, "{\"tokenize_chinese_chars\":false,\"sep_token\":\"x\"}", &t));
    CHECK_STR(text_ids(t, "a\xE4\xB8\x80", PEFT_TOKENIZE_BOS_EOS), "2 1 15");
    peft__tokenizer_free(t);
    CHECK_STATUS(wordpiece_open(mem, "{\"do_lower_case\":1}", &t), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("do_lower_case");
    CHECK_STATUS(wordpiece_open(mem, "{\"unk_token\":\"nope\"}", &t), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("unknown token of WordPiece");
}

TEST(text_wordpiece_decodes) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    static const int32_t ids[] = {2, 8, 7, 11, 5, 3, 16, 0};
    CHECK_OK(wordpiece_open(mem, NULL, &t));
    CHECK_STR(text_of(t, ids, 8, 0), "abbc. ax"); /* no space before the full stop */
    CHECK_STR(text_of(t, ids, 8, PEFT_TOKENIZE_SPECIAL), "[CLS] abbc. a [SEP]x [PAD]");
    CHECK_STR(text_of(t, ids + 6, 1, 0), "##x"); /* the first piece stays as it is */
    peft__tokenizer_free(t);
}

/* "id/type/part/word/start-end ..." of a text or two; valid until the next call. */
static const char *wordpiece_pair(const peft__tokenizer *t, const char *a, const char *b, const peft__pair_rule *rule,
                                  size_t *windows) {
    static char out[1024];
    size_t at = 0;
    peft__vec v;
    peft__text_in first = {.text = a, .len = strlen(a)}, second = {.text = b, .len = b == NULL ? 0 : strlen(b)};
    peft__vec_init(&v, t->mem, sizeof(peft__encoded));
    peft_status st = peft__tokenizer_encode_pair(t, &first, b == NULL ? NULL : &second, rule, &v, windows);
    out[0] = '\0';
    for (size_t i = 0; i < v.len && at + 64 < sizeof out; i++) {
        const peft__encoded *x = &PEFT__VEC_AT(&v, peft__encoded, i);
        at += (size_t)snprintf(out + at, 64, "%s%d/%d/%d/%d/%zu-%zu", i > 0 ? " " : "", (int)x->id, (int)x->type,
                               (int)x->part, (int)x->word, x->start, x->end);
    }
    peft__vec_free(&v);
    return st == PEFT_OK ? out : "failed";
}

TEST(text_pair_types_places_and_words) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    peft__pair_rule ends = {.flags = PEFT_TOKENIZE_BOS_EOS};
    size_t windows = 0;
    CHECK_OK(wordpiece_open(mem, NULL, &t));
    CHECK_STR(wordpiece_pair(t, "A abbc", NULL, &ends, &windows),
              "2/0/-1/-1/0-0 5/0/0/0/0-1 8/0/0/1/2-4 7/0/0/1/4-6 3/0/-1/-1/0-0");
    CHECK_INT(windows, 1);
    CHECK_STR(wordpiece_pair(t, "a", "\xE4\xB8\x80 CAF\xC3\x89.", &ends, NULL),
              "2/0/-1/-1/0-0 5/0/0/0/0-1 3/0/-1/-1/0-0 12/1/1/0/0-3 9/1/1/1/4-9 11/1/1/2/9-10 3/1/-1/-1/0-0");
    CHECK_STR(wordpiece_pair(t, "a", "x", NULL, NULL), "5/0/0/0/0-1 15/1/1/0/0-1"); /* without the model's tokens */
    static const char *const words[] = {"abbc", "", "a x"};
    static const size_t lens[] = {4, 0, 3};
    peft__text_in in = {.words = words, .word_lens = lens, .n_words = 3};
    peft__vec v;
    peft__vec_init(&v, mem, sizeof(peft__encoded));
    CHECK_OK(peft__tokenizer_encode_pair(t, &in, NULL, NULL, &v, NULL));
    CHECK_INT(v.len, 4);
    CHECK_INT(PEFT__VEC_AT(&v, peft__encoded, 1).word, 0);
    CHECK_INT(PEFT__VEC_AT(&v, peft__encoded, 3).word, 2); /* words of the caller, not of the pre-tokenizer */
    CHECK_INT(PEFT__VEC_AT(&v, peft__encoded, 3).start, 2);
    peft__vec_free(&v);
    peft__tokenizer_free(t);
}

TEST(text_pair_truncates) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    peft__pair_rule rule = {.flags = PEFT_TOKENIZE_BOS_EOS, .max = 7};
    CHECK_OK(wordpiece_open(mem, NULL, &t));
    CHECK_STR(wordpiece_pair(t, "a", "x x x x x", &rule, NULL), /* the longer one gives */
              "2/0/-1/-1/0-0 5/0/0/0/0-1 3/0/-1/-1/0-0 15/1/1/0/0-1 15/1/1/1/2-3 15/1/1/2/4-5 3/1/-1/-1/0-0");
    CHECK_STR(wordpiece_pair(t, "a a a a", "x x x x", &rule, NULL), /* then both */
              "2/0/-1/-1/0-0 5/0/0/0/0-1 5/0/0/1/2-3 3/0/-1/-1/0-0 15/1/1/0/0-1 15/1/1/1/2-3 3/1/-1/-1/0-0");
    rule.max = 5;
    CHECK_STR(wordpiece_pair(t, "a a a a", NULL, &rule, NULL),
              "2/0/-1/-1/0-0 5/0/0/0/0-1 5/0/0/1/2-3 5/0/0/2/4-5 3/0/-1/-1/0-0");
    rule.truncate = PEFT__TRUNCATE_SECOND;
    CHECK_STR(wordpiece_pair(t, "a a", "x x", &rule, NULL), "failed");
    CHECK_ERROR_HAS("2 tokens have to go, and the second text has 2");
    rule.max = 2;
    CHECK_STR(wordpiece_pair(t, "a a", "x x", &rule, NULL), "failed");
    CHECK_ERROR_HAS("2 tokens at most, and the tokenizer adds 3 by itself");
    peft__tokenizer_free(t);
}

TEST(text_pair_windows) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    peft__pair_rule rule = {.flags = PEFT_TOKENIZE_BOS_EOS, .max = 7, .truncate = PEFT__TRUNCATE_SECOND, .stride = 1};
    size_t windows = 0;
    CHECK_OK(wordpiece_open(mem, NULL, &t));
    CHECK_STR(wordpiece_pair(t, "a", "x x x x x x", &rule, &windows),
              "2/0/-1/-1/0-0 5/0/0/0/0-1 3/0/-1/-1/0-0 15/1/1/0/0-1 15/1/1/1/2-3 15/1/1/2/4-5 3/1/-1/-1/0-0");
    CHECK_INT(windows, 3);
    rule.window = 2;
    CHECK_STR(wordpiece_pair(t, "a", "x x x x x x", &rule, &windows),
              "2/0/-1/-1/0-0 5/0/0/0/0-1 3/0/-1/-1/0-0 15/1/1/4/8-9 15/1/1/5/10-11 3/1/-1/-1/0-0");
    rule.window = 3;
    CHECK_STR(wordpiece_pair(t, "a", "x x x x x x", &rule, &windows), "failed");
    CHECK_ERROR_HAS("window 3, and there are only 3");
    rule.stride = 3;
    CHECK_STR(wordpiece_pair(t, "a", "x x x x x x", &rule, &windows), "failed");
    CHECK_ERROR_HAS("windows of 3 tokens that share 3");
    peft__tokenizer_free(t);
}

#define WORDPIECE_JSON(added, pre, decoder, more)                                                                    \
    TEXT_JSON(                                                                                                       \
        added, "{\"type\":\"BertNormalizer\",\"strip_accents\":null}", pre, "null", decoder,                         \
        "{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\",\"vocab\":{\"[UNK]\":0,\"a\":1,\"##b\":2,\"b\":3,\"'s\":4," \
        "\"##\":5,\"s\":6,\"'\":7,\"##a\":8,\"-\":9}" more "}")

TEST(text_wordpiece_json) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    static const char late[] = WORDPIECE_JSON(
        "[{\"id\":10,\"content\":\"A B\",\"normalized\":true},{\"id\":11,\"content\":\"RAW\",\"normalized\":false,"
        "\"single_word\":true}]",
        "{\"type\":\"WhitespaceSplit\"}", "{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true}", "");
    CHECK_OK(text_open(mem, late, NULL, &t));
    CHECK_STR(text_ids(t, "ab 's", 0), "1 2 4");
    CHECK_STR(text_ids(t, "aa b A b.", 0), "1 10 10 0"); /* found once the text is in small letters */
    CHECK_STR(text_ids(t, "RAW raw xRAW", 0), "11 0 0"); /* found in the text as it is, alone */
    static const int32_t ids[] = {1, 4, 3};
    CHECK_STR(text_of(t, ids, 3, 0), "a's b");
    peft__tokenizer_free(t);
    static const char words[] = WORDPIECE_JSON("[]", "{\"type\":\"Whitespace\"}",
                                               "{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":false}",
                                               ",\"max_input_chars_per_word\":2,\"continuing_subword_prefix\":\"##\"");
    CHECK_OK(text_open(mem, words, NULL, &t));
    CHECK_STR(text_ids(t, "ab's aba --", 0), "1 2 7 6 0 0");
    CHECK_STR(text_of(t, ids, 3, 0), "a 's b");
    peft__tokenizer_free(t);
    static const char signs[] = WORDPIECE_JSON(
        "[]", "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"},{\"type\":\"Punctuation\"}]}",
        "null", ",\"continuing_subword_prefix\":\"\"");
    CHECK_OK(text_open(mem, signs, NULL, &t));
    CHECK_STR(text_ids(t, "ab's--", 0), "1 3 7 6 9 9"); /* no prefix: any token may stand inside a word */
    peft__tokenizer_free(t);
}

TEST(text_wordpiece_gguf) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL, *again = NULL;
    const char *path = runner_path(runner_tmpdir(), "bert.gguf");
    CHECK_OK(wordpiece_open(mem, NULL, &t));
    CHECK_OK(text_to_gguf(t, 0, path));
    peft__gguf g;
    CHECK_OK(peft__gguf_open(mem, path, false, &g));
    size_t pos = 0;
    peft__gguf_str s;
    const peft__gguf_kv *tokens = peft__gguf_get(&g, "tokenizer.ggml.tokens");
    for (int i = 0; i < 7; i++) { CHECK(peft__gguf_next_str(tokens, &pos, &s)); }
    CHECK_INT(s.len, 1); /* ##b is b there, a word has U+2581 in front */
    CHECK(peft__gguf_next_str(tokens, &pos, &s) && peft__gguf_next_str(tokens, &pos, &s));
    CHECK(s.len == 5 && memcmp(s.data, TEXT_MARK "ab", 5) == 0);
    peft__gguf_close(&g);
    CHECK_OK(peft__tokenizer_open(mem, path, &again));
    CHECK_STR(text_ids(again, "a [MASK] abbc caf\xC3\xA9. aab [CLS]", PEFT_TOKENIZE_SPECIAL | PEFT_TOKENIZE_BOS_EOS),
              "2 5 4 8 7 10 11 5 13 2 3"); /* "A" among the tokens: it does not fold case, nor strip accents */
    CHECK_INT(peft__tokenizer_mask(again), 4);
    peft__tokenizer_free(again);
    peft__tokenizer_free(t);
}
