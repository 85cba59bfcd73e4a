/* text_unigram_test.c - the unigram model and its normalisers by hand: the best path, unknown characters, bytes, character
 * maps, spaces; what is no such file. */
#include "text_build.h"

/* <unk> 0, </s> 1, U+2581 2, a 3, b 4, ab 5, U+2581 ab 6, abab 7. */
#define UNIGRAM_VOCAB                                                                                      \
    "[[\"<unk>\",0],[\"</s>\",0],[\"" TEXT_MARK "\",-2],[\"a\",-3],[\"b\",-3.5],[\"ab\",-4],[\"" TEXT_MARK \
    "ab\",-7],[\""                                                                                         \
    "abab\",-8.5]"
#define UNIGRAM_ADDED "[{\"id\":1,\"content\":\"</s>\",\"special\":true,\"normalized\":false}]"
#define UNIGRAM_META \
    "{\"type\":\"Metaspace\",\"replacement\":\"" TEXT_MARK "\",\"prepend_scheme\":\"always\",\"split\":true}"
#define UNIGRAM_POST                                                                                                  \
    "{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"SpecialToken\":{"    \
    "\"id\":"                                                                                                         \
    "\"</"                                                                                                            \
    "s>\",\"type_id\":0}}],\"pair\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"Sequence\":{\"id\":\"B\",\"type_" \
    "id\":3}},{\"SpecialToken\":{\"id\":\"</s>\",\"type_id\":3}}],\"special_tokens\":{\"</s>\":{\"id\":\"</"          \
    "s>\",\"ids\":["                                                                                                  \
    "1],\"tokens\":[\"</s>\"]}}}"
#define UNIGRAM_JSON(normalizer, pre, more)                               \
    TEXT_JSON(UNIGRAM_ADDED, normalizer, pre, UNIGRAM_POST, UNIGRAM_META, \
              "{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":" UNIGRAM_VOCAB more "}")

TEST(text_unigram_best_path) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    CHECK_OK(text_open(mem, UNIGRAM_JSON("null", UNIGRAM_META, "]"), NULL, &t));
    CHECK_STR(text_ids(t, "", 0), "");
    CHECK_STR(text_ids(t, "ab", 0), "2 5");               /* -2 - 4 is more than -7 */
    CHECK_STR(text_ids(t, "abab", 0), "2 5 5");           /* -8 is more than -8.5 */
    CHECK_STR(text_ids(t, "ba ab", 0), "2 4 3 2 5");      /* words are encoded one by one */
    CHECK_STR(text_ids(t, "a\xC3\xA9zzb", 0), "2 3 0 4"); /* neighbouring unknown characters are one token */
    CHECK_STR(text_ids(t, "a</s>b", PEFT_TOKENIZE_SPECIAL), "2 3 1 2 4");
    CHECK_STR(text_ids(t, "</s>", 0), "2 0"); /* a control token is nobody's piece */
    CHECK_STR(text_ids_of(t, "a\xFF\xC3", 3, 0), "2 3 0");
    CHECK_STR(text_ids(t, "a", PEFT_TOKENIZE_BOS_EOS), "2 3 1");
    static const int32_t ids[] = {2, 5, 6, 1};
    CHECK_STR(text_of(t, ids, 4, 0), "ab ab"); /* the first piece loses all its U+2581 */
    peft__tokenizer_free(t);
}

TEST(text_unigram_places) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    peft__vec v;
    CHECK_OK(text_open(mem, UNIGRAM_JSON("{\"type\":\"NFKC\"}", UNIGRAM_META, "]"), NULL, &t));
    peft__text_in a = {.text = "b \xEF\xBD\x81"
                               "b",
                       .len = 6},
                  b = {.text = "x", .len = 1};
    peft__pair_rule rule = {.flags = PEFT_TOKENIZE_BOS_EOS};
    peft__vec_init(&v, mem, sizeof(peft__encoded));
    CHECK_OK(peft__tokenizer_encode_pair(t, &a, &b, &rule, &v, NULL));
    CHECK_INT(v.len, 7); /* U+2581 b U+2581 ab, U+2581 unknown, </s> */
    const peft__encoded *x = v.data;
    CHECK_INT(x[0].start, 0);
    CHECK_INT(x[0].end, 1); /* the mark put in front stands where the first character does */
    CHECK_INT(x[2].start, 1);
    CHECK_INT(x[2].end, 2);
    CHECK_INT(x[3].id, 5);
    CHECK_INT(x[3].start, 2); /* a wide a, three bytes, then b */
    CHECK_INT(x[3].end, 6);
    CHECK_INT(x[4].part, 1);
    CHECK_INT(x[4].type, 3);
    CHECK_INT(x[5].end, 1);
    CHECK_INT(x[6].part, -1);
    CHECK_INT(x[6].type, 3);
    peft__vec_free(&v);
    peft__tokenizer_free(t);
}

TEST(text_unigram_bytes_and_ties) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    static const char json[] =
        UNIGRAM_JSON("null", "null", ",[\"<0xC3>\",-1],[\"<0xA9>\",-1],[\"ba\",-6.5]],\"byte_fallback\":true");
    CHECK_OK(text_open(mem, json, NULL, &t));
    CHECK_STR(text_ids(t, "a\xC3\xA9", 0), "3 8 9");
    CHECK_STR(text_ids(t, "z", 0), "0");
    CHECK_STR(text_ids(t, "ba", 0), "10"); /* as good as b and a: the one that begins first */
    static const int32_t ids[] = {3, 8, 9};
    CHECK_STR(text_of(t, ids, 3, 0), "a\xC3\xA9");
    peft__tokenizer_free(t);
}

/* What the steps make of a text of ASCII characters. */
static const char *unigram_steps(peft__mem *mem, const char *normalizer, const char *text) {
    peft__tokenizer *t = NULL;
    const char *pieces = text_ascii(mem, normalizer, "null", &t) == PEFT_OK ? text_pieces(t, text) : "failed";
    peft__tokenizer_free(t);
    return pieces;
}

TEST(text_normalizer_steps) {
    peft__mem *mem = runner_mem();
    CHECK_STR(unigram_steps(mem, "null", "A b"), "A b");
    CHECK_STR(unigram_steps(mem, "{\"type\":\"Lowercase\"}", "AbC"), "abc");
    CHECK_STR(unigram_steps(mem, "{\"type\":\"NFKC\"}", "\xEF\xAC\x81\xC2\xBD"), "fi1?2"); /* the slash is U+2044 */
    CHECK_STR(unigram_steps(mem,
                            "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFD\"},{\"type\":\"StripAccents\"},"
                            "{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":false}]}",
                            " \xE3\x80\x80\xC3\xA9 e\xCC\x81 "),
              "e e ");
    CHECK_STR(unigram_steps(mem, "{\"type\":\"Replace\",\"pattern\":{\"String\":\"ab\"},\"content\":\"x\"}", "aabb"),
              "axb");
    CHECK_STR(
        unigram_steps(mem, "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\"_\"}", "a b  c   "),
        "a b_c_");
    CHECK_STR(
        unigram_steps(mem, "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\\\\s+\"},\"content\":\" \"}", "a\t\nb c"),
        "a b c");
    CHECK_STR(unigram_steps(mem, "{\"type\":\"Prepend\",\"prepend\":\"<>\"}", "a"), "<>a");
    CHECK_STR(unigram_steps(mem, "{\"type\":\"Nmt\"}", "a\x01\tb\xE2\x80\x8B"), "a b ");
    CHECK_STR(unigram_steps(mem, "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a+\"},\"content\":\"x\"}", "a"),
              "failed");
    CHECK_ERROR_HAS("replaces a+, which is not among the known expressions");
    CHECK_STR(unigram_steps(mem, "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"A!\"}", "a"), "failed");
    CHECK_ERROR_HAS("no base64: byte 0x21 at 1");
    CHECK_STR(unigram_steps(mem, "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"/////w==\"}", "a"), "failed");
    CHECK_ERROR_HAS("its trie has 4294967295 bytes");
}

/* ---- character maps ---- */

TEST(text_charsmap) {
    peft__mem *mem = runner_mem();
    uint8_t blob[4096];
    size_t len = text_charsmap(blob), used = 0, n = 0;
    peft__charsmap map, again;
    peft__arena a;
    peft__str s;
    CHECK_OK(peft__charsmap_read(blob, len, "t", &map));
    CHECK_STR(peft__charsmap_find(&map, "xyz", 3, false, &used, &n), "ab");
    CHECK(used == 1 && n == 2);
    CHECK_STR(peft__charsmap_find(&map, "xyz", 3, true, &used, &n), "c");
    CHECK(used == 2 && n == 1);
    CHECK(peft__charsmap_find(&map, "y", 1, true, &used, &n) == NULL);
    CHECK(peft__charsmap_find(&map, "", 0, true, &used, &n) == NULL);
    peft__arena_init(&a, mem);
    peft__str_init(&s, mem);
    peft__charsmap_put_base64(&map, &s);
    CHECK_OK(peft__charsmap_base64(&a, s.data, s.len, "t", &again));
    CHECK(again.blob_len == len && memcmp(again.blob, blob, len) == 0);
    peft__str_free(&s);
    peft__arena_free(&a);
    for (size_t i = 4; i < 4 + 2048; i++) { /* no byte of it leads out of the array */
        uint8_t was = blob[i];
        for (int v = 0; v < 256; v += 51) {
            blob[i] = (uint8_t)v;
            (void)peft__charsmap_find(&map, "xyxy", 4, true, &used, &n);
            (void)peft__charsmap_find(&map, "\xFF\xFE\xC3\xA9", 4, false, &used, &n);
        }
        blob[i] = was;
    }
    CHECK_STATUS(peft__charsmap_read(blob, 3, "t", &map), PEFT_E_FORMAT);
    CHECK_STATUS(peft__charsmap_read(blob, 2000, "t", &map), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("its trie has 2048 bytes, and is 2000 bytes in all");
}

TEST(text_unigram_refused) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    static const struct {
        const char *json;
        const char *says;
    } cases[] = {
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "vocabulary is empty"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":{}}}", "no list \"vocab\""},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}", "piece 0 of the vocabulary"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",-1],[\"b\",1e300]]}}", "piece 1 of the vocabulary"},
        {"{\"model\":{\"type\":\"Unigram\",\"unk_id\":1,\"vocab\":[[\"a\",-1]]}}", "\"unk_id\" is 1"},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}", "unknown token of WordPiece"},
        {"{\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"a\",\"max_input_chars_per_word\":-1,\"vocab\":{\"a\":0}}}",
         "max_input_chars_per_word"},
    };
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        CHECK_STATUS(text_open(mem, cases[i].json, NULL, &t), PEFT_E_FORMAT);
        CHECK_ERROR_HAS(cases[i].says);
    }
}

TEST(text_unigram_written_again) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL, *again = NULL;
    static const char text[] = "ab  abab \xC3\xA9 b</s>a";
    const char *dir = runner_tmpdir(), *path = runner_path(dir, "t.gguf");
    char ids[256];
    CHECK_OK(text_open(
        mem,
        UNIGRAM_JSON("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\" \"}", UNIGRAM_META, "]"),
        NULL, &t));
    (void)snprintf(ids, sizeof ids, "%s", text_ids(t, text, 3));
    CHECK_OK(peft__tokenizer_to_hf(t, dir));
    CHECK_OK(peft__tokenizer_open(mem, dir, &again));
    CHECK_STR(text_ids(again, text, 3), ids);
    peft__tokenizer_free(again);
    CHECK_OK(text_to_gguf(t, 50, path));
    CHECK_OK(peft__tokenizer_open(mem, path, &again));
    CHECK_STR(text_ids(again, text, 3), ids);
    peft__tokenizer_free(again);
    peft__tokenizer_free(t);
    CHECK_OK(text_open(mem, UNIGRAM_JSON("{\"type\":\"Lowercase\"}", UNIGRAM_META, "]"), NULL, &t));
    CHECK_STATUS(text_to_gguf(t, 0, path), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("a normalizer of the tokenizer has no form in GGUF");
    peft__tokenizer_free(t);
}
