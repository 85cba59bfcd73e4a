/* text_rules_test.c - rules of tokenizer.json that common files have and the small ones of the other tests lack: character maps as
 * normalisers, sequences in sequences, the older post-processors, each kind of splitting; written again they say the same. */
#include "text_build.h"

#define RULES_META \
    "{\"type\":\"Metaspace\",\"replacement\":\"" TEXT_MARK "\",\"prepend_scheme\":\"never\",\"split\":false}"

/* The normaliser that maps "x" to "ab" and "xy" to "c", in a sequence in a sequence. */
static peft_status rules_mapped(peft__mem *mem, peft__tokenizer **out) {
    uint8_t blob[4096];
    peft__charsmap map;
    peft__str s;
    peft__str_init(&s, mem);
    peft_status st = peft__charsmap_read(blob, text_charsmap(blob), "a map", &map);
    peft__str_puts(&s, "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Precompiled\","
                       "\"precompiled_charsmap\":\"");
    if (st == PEFT_OK) { peft__charsmap_put_base64(&map, &s); }
    peft__str_puts(&s, "\"}]}]}");
    if (st == PEFT_OK) { st = text_ascii(mem, peft__str_c(&s), RULES_META, out); }
    peft__str_free(&s);
    return st;
}

/* Whether the tokenizer.json of a folder has this in it, spaces and line ends apart. */
static bool rules_written(const char *dir, const char *part) {
    static char text[1 << 16];
    size_t n = 0;
    FILE *f = fopen(runner_path(dir, "tokenizer.json"), "rb");
    for (int c; f != NULL && n + 1 < sizeof text && (c = fgetc(f)) != EOF;) {
        if (c != ' ' && c != '\n') { text[n++] = (char)c; }
    }
    text[n] = '\0';
    if (f != NULL) { (void)fclose(f); }
    return strstr(text, part) != NULL;
}

/* Hugging Face's library maps a cluster of characters by its shortest beginning, SentencePiece the longest stretch. */
TEST(text_rules_character_maps) {
    static const struct { const char *text, *hf, *spm; } cases[] = {
        {"axb", "aabb", "aabb"},
        {"xyz", "abyz", "cz"},
        {"x\xCC\x81", "ab", "ab?"},                          /* x with an acute accent is one cluster, which is lost */
        {"x\xCC\x81\xCC\x82\xCC\x83", "ab?", "ab?"},         /* seven bytes: one by one */
        {"\xD8\x80x", "?ab", "?ab"},                         /* U+0600 stands before what follows it */
        {"x\xE2\x80\x8Dx", "abab", "ab?ab"},                 /* a joiner goes with what is before it */
        {"\r\nx", "?ab", "?ab"},
        {"e\xCC\x81", "e?", "e?"},
        {"[xU]x", "[xU]ab", "[xU]ab"},                       /* a piece of the user stays */
    };
    peft__mem *mem = runner_mem();
    peft__tokenizer *hf = NULL, *again = NULL, *spm = NULL;
    const char *dir = runner_tmpdir(), *path = runner_path(dir, "t.gguf");
    CHECK_OK(rules_mapped(mem, &hf));
    CHECK_OK(peft__tokenizer_to_hf(hf, dir));
    CHECK_OK(peft__tokenizer_open(mem, dir, &again));
    CHECK_OK(text_to_gguf(hf, 0, path));
    CHECK_OK(peft__tokenizer_open(mem, path, &spm));
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        CHECK_STR(text_pieces(hf, cases[i].text), cases[i].hf);
        CHECK_STR(text_pieces(again, cases[i].text), cases[i].hf);
        CHECK_STR(text_pieces(spm, cases[i].text), cases[i].spm);
    }
    peft__tokenizer_free(hf);
    peft__tokenizer_free(again);
    peft__tokenizer_free(spm);
}

/* Where the characters of a mapped text come from. */
TEST(text_rules_places_of_a_map) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    peft__vec v;
    peft__text_in in = {.text = "zxy", .len = 3};
    peft__pair_rule rule = {.flags = 0};
    peft__vec_init(&v, mem, sizeof(peft__encoded));
    CHECK_OK(rules_mapped(mem, &t));
    CHECK_OK(peft__tokenizer_encode_pair(t, &in, NULL, &rule, &v, NULL));
    static const uint32_t starts[] = {0, 1, 1, 2}; /* z, a and b of x, y */
    CHECK_INT(v.len, 4);
    for (size_t i = 0; i < v.len; i++) {
        CHECK_INT(PEFT__VEC_AT(&v, peft__encoded, i).start, starts[i]);
        CHECK_INT(PEFT__VEC_AT(&v, peft__encoded, i).end, starts[i] + 1);
    }
    peft__vec_free(&v);
    peft__tokenizer_free(t);
}

TEST(text_rules_refused) {
    static const struct { const char *normalizer, *says; } cases[] = {
        {"{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Sequence\",\"normalizers\":3}]}", "\"Sequence\" has no"},
        {"{\"type\":\"Precompiled\"}", "a \"Precompiled\" has no text \"precompiled_charsmap\""},
        {"{\"type\":\"Prepend\"}", "a \"Prepend\" has no \"prepend\""},
        {"{\"type\":\"Replace\",\"content\":\"x\"}", "a \"Replace\" has no \"pattern\" and \"content\""},
    };
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        CHECK_STATUS(text_ascii(mem, cases[i].normalizer, "null", &t), PEFT_E_FORMAT);
        CHECK_ERROR_HAS(cases[i].says);
    }
}

/* ---- post-processors -------------------------------------------------------------------------------------------------- */

#define RULES_BYTES(pre, post)                                                                                                       \
    TEXT_JSON("[{\"id\":12,\"content\":\"<s>\",\"special\":true},{\"id\":13,\"content\":\"</s>\",\"special\":true}]", "null", pre, post, \
              "{\"type\":\"ByteLevel\"}", TEXT_BPE(TEXT_BYTES_VOCAB, TEXT_BYTES_MERGES, ""))

TEST(text_rules_classic_post_processors) {
    static const struct { const char *json, *one, *two, *written; } cases[] = {
        {RULES_BYTES(TEXT_BYTES_PRE, "{\"type\":\"BertProcessing\",\"cls\":[\"<s>\",12],\"sep\":[\"</s>\",13]}"), "12 8 13",
         "12 8 13 0' 13'", "{\"type\":\"TemplateProcessing\""},
        {RULES_BYTES(TEXT_BYTES_PRE, "{\"type\":\"RobertaProcessing\",\"cls\":[\"<s>\",12],\"sep\":[\"</s>\",13],"
                                     "\"trim_offsets\":true,\"add_prefix_space\":false}"), "12 8 13", "12 8 13 13 0 13",
         "{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"},
        {RULES_BYTES(TEXT_BYTES_PRE, "{\"type\":\"ByteLevel\",\"trim_offsets\":true}"), "8", "8 0'",
         "\"post_processor\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true"},
    };
    peft__mem *mem = runner_mem();
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        peft__tokenizer *t = NULL, *again = NULL;
        const char *dir = runner_tmpdir();
        CHECK_OK(text_open(mem, cases[i].json, NULL, &t));
        CHECK_STR(text_pair(t, "ab", NULL), cases[i].one);
        CHECK_STR(text_pair(t, "ab", "a"), cases[i].two);
        CHECK_OK(peft__tokenizer_to_hf(t, dir));
        CHECK(rules_written(dir, cases[i].written));
        CHECK_OK(peft__tokenizer_open(mem, dir, &again));
        CHECK_STR(text_pair(again, "ab", NULL), cases[i].one);
        CHECK_STR(text_pair(again, "ab", "a"), cases[i].two);
        CHECK_INT(again->trim, t->trim);
        peft__tokenizer_free(t);
        peft__tokenizer_free(again);
    }
}

TEST(text_rules_post_processors_refused) {
    static const struct { const char *json, *says; } cases[] = {
        {RULES_BYTES(TEXT_BYTES_PRE, "{\"type\":\"TemplateProcessing\",\"single\":3}"), "no list \"single\""},
        {RULES_BYTES(TEXT_BYTES_PRE, "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<none>\",\"type_id\":0}}]}"),
         "token \"<none>\" has no id"},
        {RULES_BYTES(TEXT_BYTES_PRE, "{\"type\":\"BertProcessing\",\"cls\":[\"<s>\"],\"sep\":[\"</s>\",13]}"), "post_processor"},
        {RULES_BYTES(TEXT_BYTES_PRE, "{\"type\":\"RobertaProcessing\",\"cls\":[\"<s>\",12],\"sep\":[\"</s>\",-1]}"), "post_processor"},
        {RULES_BYTES(TEXT_BYTES_PRE, "{\"type\":\"Other\"}"), "post_processor"},
    };
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        CHECK(text_open(mem, cases[i].json, NULL, &t) != PEFT_OK);
        CHECK_ERROR_HAS(cases[i].says);
    }
}

/* ---- splitting -------------------------------------------------------------------------------------------------------- */

/* Each way of splitting goes into a file as it came out of one. */
TEST(text_rules_splits_written_again) {
    static const char *const stages[] = {
        "{\"type\":\"WhitespaceSplit\"}",
        "{\"type\":\"Whitespace\"}",
        "{\"type\":\"Punctuation\",\"behavior\":\"Isolated\"}",
        "{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}",
        "{\"type\":\"Digits\",\"individual_digits\":true}",
        "{\"type\":\"Digits\",\"individual_digits\":false}",
        "{\"type\":\"BertPreTokenizer\"}",
        "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{N}{1,3}\"},\"behavior\":\"Isolated\",\"invert\":false}",
    };
    static const char text[] = "ab a  11ab1 ab,,a  b\na ab";
    peft__mem *mem = runner_mem();
    for (size_t i = 0; i < PEFT__COUNT(stages); i++) {
        peft__tokenizer *t = NULL, *again = NULL;
        const char *dir = runner_tmpdir();
        char ids[256];
        CHECK_OK(text_ascii(mem, "null", stages[i], &t));
        (void)snprintf(ids, sizeof ids, "%s", text_ids(t, text, 0));
        CHECK_OK(peft__tokenizer_to_hf(t, dir));
        CHECK(rules_written(dir, stages[i]));
        CHECK_OK(peft__tokenizer_open(mem, dir, &again));
        CHECK_STR(text_ids(again, text, 0), ids);
        peft__tokenizer_free(t);
        peft__tokenizer_free(again);
    }
}
