/* text_pretok_test.c - how each rule splits: words are written with bars between them. */
#include "text_build.h"

/* Words of `text` under the rules of a GGUF name, as "a|b|c"; valid until the next call. */
static const char *pretok_split_as(const peft__pretok *rules, const char *text) {
    static char out[512];
    peft__pretok_walk w;
    const char *word = NULL;
    size_t len = 0, at = 0;
    out[0] = '\0';
    for (peft__pretok_begin(&w, rules, text, strlen(text)); peft__pretok_next(&w, &word, &len);) {
        at += (size_t)snprintf(out + at, sizeof out - at, "%s%.*s", at > 0 ? "|" : "", (int)len, word);
    }
    return out;
}

static const char *pretok_split(const char *name, const char *text) {
    const peft__pretok_named *named = peft__pretok_by_name(name);
    return named != NULL ? pretok_split_as(&named->rules, text) : "unknown name";
}

TEST(text_pretok_gpt2) {
    CHECK_STR(pretok_split("gpt-2", ""), "");
    CHECK_STR(pretok_split("gpt-2", "Hello world"), "Hello| world");
    CHECK_STR(pretok_split("gpt-2", "  Hello"), " | Hello");
    CHECK_STR(pretok_split("gpt-2", "a  b"), "a| | b");
    CHECK_STR(pretok_split("gpt-2", "a \n b"), "a| \n| b");
    CHECK_STR(pretok_split("gpt-2", "a   "), "a|   ");
    CHECK_STR(pretok_split("gpt-2", "a\tb"), "a|\t|b");
    CHECK_STR(pretok_split("gpt-2", "\n\nx"), "\n|\n|x");
    CHECK_STR(pretok_split("gpt-2", "it's I'll we've they're I'm he'd don't"),
              "it|'s| I|'ll| we|'ve| they|'re| I|'m| he|'d| don|'t");
    CHECK_STR(pretok_split("gpt-2", "IT'S"), "IT|'|S");
    CHECK_STR(pretok_split("gpt-2", "!!'s 'x ''t"), "!!'|s| '|x| ''|t");
    CHECK_STR(pretok_split("gpt-2", "a12 345!"), "a|12| 345|!");
    CHECK_STR(pretok_split("gpt-2", "Z\xC3\xBCrich \xE6\x97\xA5\xE6\x9C\xAC"),
              "Z\xC3\xBCrich| \xE6\x97\xA5\xE6\x9C\xAC");
    CHECK_STR(pretok_split("gpt-2", "x\xC2\xBD\xE2\x85\xA7y"), "x|\xC2\xBD\xE2\x85\xA7|y"); /* one half, Roman eight */
    CHECK_STR(pretok_split("gpt-2", "a\xC2\xA0 b"), "a|\xC2\xA0| b");                       /* no-break space */
    CHECK_STR(pretok_split("gpt-2", "e\xCC\x81t"), "e|\xCC\x81|t");                         /* a mark is a symbol */
    CHECK_STR(pretok_split("gpt-2", "a\xFF\xC3 b"), "a|\xFF\xC3| b");                       /* no UTF-8 */
}

TEST(text_pretok_llama3) {
    CHECK_STR(pretok_split("llama-bpe", "IT'S don'T I'LL"), "IT|'S| don|'T| I|'LL");
    CHECK_STR(pretok_split("llama-bpe", "12345 67"), "123|45| |67");
    CHECK_STR(pretok_split("llama-bpe", "\thello (world)"), "\thello| (|world|)");
    CHECK_STR(pretok_split("llama-bpe", "!a !!a"), "!a| !!|a");
    CHECK_STR(pretok_split("llama-bpe", "x;\n\ny"), "x|;\n\n|y");
    CHECK_STR(pretok_split("llama-bpe", "a \n \n b"), "a| \n \n| b");
    CHECK_STR(pretok_split("llama-bpe", "a\r\n\r\nb"), "a|\r\n\r\n|b");
    CHECK_STR(pretok_split("llama-bpe", "a   b  "), "a|  | b|  ");
    CHECK_STR(pretok_split("llama-bpe", "\nword"), "\n|word");
    CHECK_STR(pretok_split("llama-bpe", "x'\xC5\xBFy"), "x|'\xC5\xBF|y"); /* a long s is an s without case */
    CHECK_STR(pretok_split("llama-bpe", "'"), "'");
    CHECK_STR(pretok_split("llama-bpe", " 1"), " |1");
}

TEST(text_pretok_qwen2) {
    CHECK_STR(pretok_split("qwen2", "12345 67"), "1|2|3|4|5| |6|7");
    CHECK_STR(pretok_split("qwen2", "I'M 3.14\n"), "I|'M| |3|.|1|4|\n");
}

TEST(text_pretok_digits_first) {
    CHECK_STR(pretok_split("smollm", "a 12 b3c"), "a| |1|2| b|3|c");
    CHECK_STR(pretok_split("smollm", "a  4"), "a|  |4"); /* white space ends at the piece's end, not before a word */
    CHECK_STR(pretok_split("starcoder", "it's 99"), "it|'s| |9|9");
}

TEST(text_pretok_falcon_and_default) {
    CHECK_STR(pretok_split("falcon", "a,b `c` 12345"), "a|,|b| |`|c|`| |123|45");
    CHECK_STR(pretok_split("default", "a,b 12345"), "a|,|b| |123|45");
    CHECK_STR(pretok_split("default", "x`y"), "x|`|y");
    CHECK_STR(pretok_split("default", "a++ b"), "a|++| b");
}

TEST(text_pretok_marks) {
    peft__pretok one = {{{PEFT__SPLIT_MARK, 0}}, 1}, runs = {{{PEFT__SPLIT_MARKS, 0}}, 1};
    CHECK_STR(pretok_split_as(&one, TEXT_MARK TEXT_MARK "a" TEXT_MARK), TEXT_MARK "|" TEXT_MARK "a|" TEXT_MARK);
    CHECK_STR(pretok_split_as(&runs, "b" TEXT_MARK TEXT_MARK "a" TEXT_MARK), "b|" TEXT_MARK TEXT_MARK "a|" TEXT_MARK);
}

TEST(text_pretok_names_and_expressions) {
    peft__split_stage stage;
    const peft__pretok_named *named = peft__pretok_by_name("llama3");
    CHECK(peft__pretok_by_name("tekken") == NULL);
    CHECK(named->ignore_merges && named->add_bos && !named->nfc);
    CHECK_STR(peft__pretok_name(&named->rules), "llama-bpe");
    CHECK(peft__pretok_by_name("qwen2")->nfc);
    named = peft__pretok_by_name("starcoder");
    CHECK(!named->ignore_merges && !named->add_bos);
    CHECK_STR(peft__pretok_name(&named->rules), "smollm");
    peft__pretok rules = named->rules;
    CHECK(peft__pretok_by_regex("\\p{N}{1,3}", &stage));
    CHECK_INT(stage.rule, PEFT__SPLIT_DIGITS);
    CHECK_INT(stage.max, 3);
    CHECK(!peft__pretok_by_regex("\\w+", &stage));
    for (int i = 0; i < 4; i++) { CHECK_OK(peft__pretok_add(&rules, PEFT__SPLIT_TRIPLE, 0, "t")); }
    CHECK_STATUS(peft__pretok_add(&rules, PEFT__SPLIT_TRIPLE, 0, "t"), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("more than 6 steps");
}

TEST(text_unicode_classes) {
    CHECK_INT(peft__unicode_class('a'), PEFT__UNI_LETTER);
    CHECK_INT(peft__unicode_class('7'), PEFT__UNI_NUMBER);
    CHECK_INT(peft__unicode_class('\n'), PEFT__UNI_SPACE);
    CHECK_INT(peft__unicode_class('.'), PEFT__UNI_PUNCT);
    CHECK_INT(peft__unicode_class('+'), PEFT__UNI_OTHER);
    CHECK_INT(peft__unicode_class(0x1C), PEFT__UNI_OTHER); /* a control, though Python calls it a space */
    CHECK_INT(peft__unicode_class(0x85), PEFT__UNI_SPACE);
    CHECK_INT(peft__unicode_class(0x3000), PEFT__UNI_SPACE);
    CHECK_INT(peft__unicode_class(0x4E00), PEFT__UNI_LETTER);
    CHECK_INT(peft__unicode_class(0x0663), PEFT__UNI_NUMBER); /* Arabic three */
    CHECK_INT(peft__unicode_class(0x0301), PEFT__UNI_OTHER);  /* combining acute */
    CHECK_INT(peft__unicode_class(0x1F999), PEFT__UNI_OTHER); /* llama */
    CHECK_INT(peft__unicode_class(0x20000), PEFT__UNI_LETTER);
    CHECK_INT(peft__unicode_class(0x10FFFF), PEFT__UNI_OTHER);
    CHECK_INT(peft__unicode_class(UINT32_MAX), PEFT__UNI_OTHER);
}

static const char *form_of(peft__mem *mem, const char *text, bool compat, bool compose) {
    static char buf[256];
    peft__aligned in, out;
    peft__place none = {0, 0};
    peft__aligned_init(&in, mem, false);
    peft__aligned_init(&out, mem, false);
    peft_status st = peft__aligned_put(&in, text, strlen(text), none);
    if (st == PEFT_OK) { st = peft__unicode_form(mem, &in, compat, compose, &out); }
    (void)snprintf(buf, sizeof buf, "%s", peft__str_c(&out.text));
    peft__aligned_free(&in);
    peft__aligned_free(&out);
    return st == PEFT_OK ? buf : "failed";
}

static const char *nfc_of(peft__mem *mem, const char *text) {
    return form_of(mem, text, false, true);
}

TEST(text_nfc) {
    peft__mem *mem = runner_mem();
    CHECK_STR(nfc_of(mem, "plain"), "plain");
    CHECK_STR(nfc_of(mem, "e\xCC\x81"), "\xC3\xA9");
    CHECK_STR(nfc_of(mem, "\xC3\xA9"), "\xC3\xA9");
    /* Marks below and above, in the wrong order: a, dot below (220), circumflex (230) is U+1EAD. */
    CHECK_STR(nfc_of(mem, "a\xCC\x82\xCC\xA3"), "\xE1\xBA\xAD");
    CHECK_STR(nfc_of(mem, "\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB"), "\xED\x95\x9C"); /* Hangul, by arithmetic */
    CHECK_STR(nfc_of(mem, "\xE2\x84\xAB"), "\xC3\x85");                             /* Angstrom sign, a singleton */
    CHECK_STR(nfc_of(mem, "\xE0\xA4\x95\xE0\xA4\xBC"), "\xE0\xA4\x95\xE0\xA4\xBC"); /* excluded from composition */
    CHECK_STR(nfc_of(mem, "\xFF"
                          "e\xCC\x81\xE2\x82"),
              "\xFF\xC3\xA9\xE2\x82"); /* broken bytes stay */
    CHECK(peft__nfc_quick("caf\xC3\xA9", 5));
    CHECK(!peft__nfc_quick("e\xCC\x81", 3));
}
