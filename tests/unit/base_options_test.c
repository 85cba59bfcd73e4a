/* Options by key: types, ranges, text forms, suggestions, what a failed setter leaves behind. */
#include "base/options.h"
#include "runner.h"

static const peft__option optest_rows[] = {
    {"rank", PEFT__OPT_INT, "8", 1, 1024, NULL, "rank"},
    {"lora_alpha", PEFT__OPT_FLOAT, "16.5", 0, 1e9, NULL, "scale"},
    {"shuffle", PEFT__OPT_BOOL, "true", 1, 0, NULL, "order"},
    {"name", PEFT__OPT_STR, "", 1, 0, NULL, "any"},
    {"init", PEFT__OPT_STR, "true", 1, 0, "true|gaussian|false", "init"},
    {"targets", PEFT__OPT_LIST, "", 1, 0, NULL, "modules"},
    {"pattern", PEFT__OPT_MAP, "", 1, 0, NULL, "by module"},
    {"rows", PEFT__OPT_LISTS, "", 1, 0, NULL, "list, or lists by module"},
    {"words", PEFT__OPT_PAIRS, "", 1, 0, NULL, "texts by name"},
    {"limit", PEFT__OPT_SIZE, "0", 0, 1e15, NULL, "bytes"},
    {"free", PEFT__OPT_INT, "-1", 1, 0, NULL, "no range"},
};
static const peft__schema optest_schema = {"test", optest_rows, PEFT__COUNT(optest_rows)};

TEST(options_defaults) {
    peft__optset o;
    CHECK_OK(peft__optset_init(&o, runner_mem(), &optest_schema));
    CHECK_INT(peft__opt_int(&o, "rank"), 8);
    CHECK_NEAR(peft__opt_float(&o, "lora_alpha"), 16.5, 0);
    CHECK(peft__opt_bool(&o, "shuffle"));
    CHECK_STR(peft__opt_str(&o, "name"), "");
    CHECK_STR(peft__opt_str(&o, "init"), "true");
    CHECK_STR(peft__opt_str(&o, "targets"), "");
    CHECK_INT(peft__opt_int(&o, "limit"), 0);
    CHECK(!peft__opt_is_set(&o, "rank"));
    CHECK_OK(peft__opt_set_int(&o, "rank", 8));
    CHECK(peft__opt_is_set(&o, "rank"));
    peft__optset_free(&o);
    peft__optset_free(&o);
}

TEST(options_types_and_ranges) {
    peft__optset o;
    CHECK_OK(peft__optset_init(&o, runner_mem(), &optest_schema));
    CHECK_STATUS(peft__opt_set_int(&o, "rank", 0), PEFT_E_KEY);
    CHECK_ERROR_HAS("key \"rank\" is 0, expected 1 to 1024");
    CHECK_STATUS(peft__opt_set_float(&o, "rank", 4.0), PEFT_E_KEY);
    CHECK_ERROR_HAS("key \"rank\" is \"4\", expected an integer");
    CHECK_STATUS(peft__opt_set_text(&o, "rank", "4x"), PEFT_E_KEY);
    CHECK_STATUS(peft__opt_set_bool(&o, "rank", true), PEFT_E_KEY);
    CHECK_INT(peft__opt_int(&o, "rank"), 8);
    CHECK_OK(peft__opt_set_text(&o, "rank", "32"));
    CHECK_INT(peft__opt_int(&o, "rank"), 32);
    CHECK_OK(peft__opt_set_int(&o, "lora_alpha", 4));
    CHECK_NEAR(peft__opt_float(&o, "lora_alpha"), 4, 0);
    CHECK_STATUS(peft__opt_set_float(&o, "lora_alpha", 0.0 / 0.0 * 0.0), PEFT_E_KEY);
    CHECK_ERROR_HAS("not finite");
    CHECK_STATUS(peft__opt_set_str(&o, "lora_alpha", "4"), PEFT_E_KEY);
    CHECK_OK(peft__opt_set_text(&o, "shuffle", "off"));
    CHECK(!peft__opt_bool(&o, "shuffle"));
    CHECK_STATUS(peft__opt_set_text(&o, "shuffle", "maybe"), PEFT_E_KEY);
    CHECK_ERROR_HAS("expected true or false");
    CHECK_OK(peft__opt_set_int(&o, "free", -5000000000));
    CHECK_INT(peft__opt_int(&o, "free"), -5000000000);
    CHECK_OK(peft__opt_set_bool(&o, "init", false));
    CHECK_STR(peft__opt_str(&o, "init"), "false");
    CHECK_STATUS(peft__opt_set_str(&o, "init", "pissa"), PEFT_E_KEY);
    CHECK_ERROR_HAS("key \"init\" is \"pissa\", expected true|gaussian|false");
    CHECK_STR(peft__opt_str(&o, "init"), "false");
    CHECK_STATUS(peft__opt_set_bool(&o, "name", true), PEFT_E_KEY);
    CHECK_STATUS(peft__opt_set_str(&o, "name", "\xff"), PEFT_E_KEY);
    CHECK_STATUS(peft__opt_set_str(&o, "name", NULL), PEFT_E_INVALID);
    CHECK_INT(peft__opt_int(&o, "no such key"), 0);
    peft__optset_free(&o);
}

TEST(options_sizes) {
    static const struct { const char *text; int64_t bytes; } good[] = {
        {"0", 0}, {"4096", 4096}, {"4096B", 4096}, {"512MiB", 512LL << 20}, {"1GiB", 1LL << 30}, {"2GB", 2000000000},
        {"2 GB", 2000000000}, {"1.5k", 1536}, {"3g", 3LL << 30}, {"1TiB", 1LL << 40}, {"7kB", 7000},
    };
    static const char *const bad[] = {"", "MiB", "-1", "1XiB", "1MiBs", "1.2.3M", "1e3", "2000TiB"};
    peft__optset o;
    CHECK_OK(peft__optset_init(&o, runner_mem(), &optest_schema));
    for (size_t i = 0; i < PEFT__COUNT(good); i++) {
        CHECK_OK(peft__opt_set_text(&o, "limit", good[i].text));
        CHECK_INT(peft__opt_int(&o, "limit"), good[i].bytes);
        CHECK_OK(peft__opt_set_str(&o, "limit", good[i].text));
    }
    for (size_t i = 0; i < PEFT__COUNT(bad); i++) { CHECK_STATUS(peft__opt_set_text(&o, "limit", bad[i]), PEFT_E_KEY); }
    CHECK_OK(peft__opt_set_int(&o, "limit", 77));
    CHECK_INT(peft__opt_int(&o, "limit"), 77);
    peft__optset_free(&o);
}

TEST(options_lists) {
    static const char *const rows[][2] = {
        {"q_proj,v_proj", "[\"q_proj\",\"v_proj\"]"},
        {" q_proj , v_proj ", "[\"q_proj\",\"v_proj\"]"},
        {"q_proj", "[\"q_proj\"]"},
        {"0,2,13", "[0,2,13]"},
        {"all-linear", "\"all-linear\""},
        {"ALL-LINEAR", "\"all-linear\""},
        {".*\\.(q|v)_proj", "\".*\\\\.(q|v)_proj\""},
        {"[qv]_proj", "\"[qv]_proj\""},
        {"a{1,2}", "\"a{1,2}\""},
        {"[ \"a\" ,\n \"b\\u00e9\" ]", "[\"a\",\"b\\u00e9\"]"},
        {"[0, 1]", "[0,1]"},
        {"\"x.*\"", "\"x.*\""},
        {"[]", "[]"},
        {"null", ""},
        {"", ""},
    };
    static const char *const bad[] = {"a,,b", ",", "a,", "\"x", "\"a\" b", "\xff"};
    peft__optset o;
    CHECK_OK(peft__optset_init(&o, runner_mem(), &optest_schema));
    for (size_t i = 0; i < PEFT__COUNT(rows); i++) {
        CHECK_OK(peft__opt_set_text(&o, "targets", rows[i][0]));
        CHECK_STR(peft__opt_str(&o, "targets"), rows[i][1]);
    }
    for (size_t i = 0; i < PEFT__COUNT(bad); i++) { CHECK_STATUS(peft__opt_set_text(&o, "targets", bad[i]), PEFT_E_KEY); }
    CHECK_OK(peft__opt_set_int(&o, "targets", 3));
    CHECK_STR(peft__opt_str(&o, "targets"), "[3]");
    CHECK_OK(peft__opt_set_raw(&o, "targets", "[\"k\"]"));
    CHECK_STR(peft__opt_str(&o, "targets"), "[\"k\"]");
    CHECK_OK(peft__opt_set_raw(&o, "targets", "null"));
    CHECK_STR(peft__opt_str(&o, "targets"), "");
    CHECK_STATUS(peft__opt_set_raw(&o, "targets", "{}"), PEFT_E_KEY);
    CHECK_STATUS(peft__opt_set_raw(&o, "name", "[]"), PEFT_E_KEY);
    peft__optset_free(&o);
}

TEST(options_maps) {
    static const char *const bad[] = {"k=4", "[1]", "{\"k\":}", "{\"k\" 4}", "{k:4}", "{\"k\":4", "{\"k\":4}x", "{\"k\":04}",
                                      "{\"k\":\"\\q\"}", "{\"k\":\"\\u12g4\"}", "{\"k\":4,}"};
    peft__optset o;
    CHECK_OK(peft__optset_init(&o, runner_mem(), &optest_schema));
    CHECK_OK(peft__opt_set_text(&o, "pattern", " { \"k\" : 4 , \"v\" : [ 1.5e3 , { } , true ] } "));
    CHECK_STR(peft__opt_str(&o, "pattern"), "{\"k\":4,\"v\":[1.5e3,{},true]}");
    for (size_t i = 0; i < PEFT__COUNT(bad); i++) { CHECK_STATUS(peft__opt_set_text(&o, "pattern", bad[i]), PEFT_E_KEY); }
    CHECK_STR(peft__opt_str(&o, "pattern"), "{\"k\":4,\"v\":[1.5e3,{},true]}");
    char deep[64];
    memset(deep, '[', 40);
    memcpy(deep + 40, "", 1);
    CHECK_STATUS(peft__opt_set_text(&o, "pattern", deep), PEFT_E_KEY);
    peft__optset_free(&o);
}

TEST(options_pairs) {
    static const char *const rows[][2] = {
        {"a=x", "{\"a\":\"x\"}"},
        {" good = \" fine, \\\"so\\\" \" , bad=not good\n", "{\"good\":\" fine, \\\"so\\\" \",\"bad\":\"not good\"}"},
        {"\"two words\"=a=b,1=2", "{\"two words\":\"a=b\",\"1\":\"2\"}"},
        {" { \"a\" : 1 } ", "{\"a\":1}"},
        {"", ""},
    };
    static const char *const bad[] = {"a",       "null",       "a=",          "=a",    "a=x,", ",a=x",
                                      "a=\"x", "a=\"x\"y", "a=\"x\" y=z", "{a=x}", "[1]",  "a=\xff"};
    peft__optset o;
    CHECK_OK(peft__optset_init(&o, runner_mem(), &optest_schema));
    for (size_t i = 0; i < PEFT__COUNT(rows); i++) {
        CHECK_OK(peft__opt_set_text(&o, "words", rows[i][0]));
        CHECK_STR(peft__opt_str(&o, "words"), rows[i][1]);
    }
    for (size_t i = 0; i < PEFT__COUNT(bad); i++) { CHECK_STATUS(peft__opt_set_text(&o, "words", bad[i]), PEFT_E_KEY); }
    CHECK_ERROR_HAS("expected a list such as a=x,b=\"y z\" or an object such as {\"a\": \"x\"}");
    CHECK_OK(peft__opt_set_raw(&o, "words", "{\"a\":\"b\"}"));
    CHECK_STR(peft__opt_str(&o, "words"), "{\"a\":\"b\"}");
    CHECK_STATUS(peft__opt_set_raw(&o, "words", "[1]"), PEFT_E_KEY);
    CHECK_STATUS(peft__opt_set_int(&o, "words", 1), PEFT_E_KEY);
    peft__optset_free(&o);
}

TEST(options_lists_by_name) {
    peft__optset o;
    CHECK_OK(peft__optset_init(&o, runner_mem(), &optest_schema));
    CHECK_OK(peft__opt_set_text(&o, "rows", "3, 5"));
    CHECK_STR(peft__opt_str(&o, "rows"), "[3,5]");
    CHECK_OK(peft__opt_set_int(&o, "rows", 7));
    CHECK_STR(peft__opt_str(&o, "rows"), "[7]");
    CHECK_OK(peft__opt_set_text(&o, "rows", " {\"a\": [1, 2]}"));
    CHECK_STR(peft__opt_str(&o, "rows"), "{\"a\":[1,2]}");
    CHECK_OK(peft__opt_set_raw(&o, "rows", "[9]"));
    CHECK_STR(peft__opt_str(&o, "rows"), "[9]");
    CHECK_OK(peft__opt_set_raw(&o, "rows", "{\"b\":[]}"));
    CHECK_STR(peft__opt_str(&o, "rows"), "{\"b\":[]}");
    CHECK_STATUS(peft__opt_set_text(&o, "rows", "{\"a\": "), PEFT_E_KEY);
    CHECK_ERROR_HAS("an object of lists");
    CHECK_STATUS(peft__opt_set_raw(&o, "rows", "3"), PEFT_E_KEY);
    CHECK_STATUS(peft__opt_set_raw(&o, "pattern", "[9]"), PEFT_E_KEY);
    CHECK_STATUS(peft__opt_set_raw(&o, "targets", "{\"b\":[]}"), PEFT_E_KEY);
    CHECK_STR(peft__opt_str(&o, "rows"), "{\"b\":[]}");
    CHECK_OK(peft__opt_set_raw(&o, "rows", "null"));
    CHECK_STR(peft__opt_str(&o, "rows"), "");
    peft__optset_free(&o);
}

TEST(options_suggestions) {
    static const char *const names[] = {"r", "lora_alpha", "lora_dropout", "target_modules", "bias"};
    CHECK_STR(peft__nearest("lora_alfa", names, 5), "lora_alpha");
    CHECK_STR(peft__nearest("lora-dropout", names, 5), "lora_dropout");
    CHECK_STR(peft__nearest("alpha", names, 5), "lora_alpha");
    CHECK_STR(peft__nearest("target_module", names, 5), "target_modules");
    CHECK(peft__nearest("x", names, 5) == NULL);
    CHECK(peft__nearest("learning_rate", names, 5) == NULL);
    CHECK(peft__nearest("", names, 5) == NULL);
    peft__optset o;
    CHECK_OK(peft__optset_init(&o, runner_mem(), &optest_schema));
    CHECK_STATUS(peft__opt_set_int(&o, "lora_alfa", 1), PEFT_E_KEY);
    CHECK_ERROR_HAS("unknown key \"lora_alfa\" of \"test\"; did you mean \"lora_alpha\"?");
    CHECK_STATUS(peft__opt_set_text(&o, "warmup", "1"), PEFT_E_KEY);
    CHECK_ERROR_HAS("known: rank, lora_alpha, shuffle, name, init, targets, pattern, rows, words, limit, free");
    peft__optset_free(&o);
}

TEST(options_copy_and_memory) {
    peft__mem *mem = runner_mem();
    peft__optset o, copy;
    CHECK_OK(peft__optset_init(&o, mem, &optest_schema));
    CHECK_OK(peft__opt_set_text(&o, "targets", "a,b"));
    CHECK_OK(peft__optset_copy(&copy, mem, &o));
    CHECK_OK(peft__opt_set_text(&o, "targets", "c"));
    CHECK_STR(peft__opt_str(&copy, "targets"), "[\"a\",\"b\"]");
    CHECK(peft__opt_is_set(&copy, "targets") && !peft__opt_is_set(&copy, "rank"));
    peft__optset_free(&copy);
    for (size_t n = 1; n < 40; n++) { /* every allocation may fail; nothing is lost or half-set */
        peft__mem_fail_after(mem, n, true);
        peft_status st = peft__optset_copy(&copy, mem, &o);
        if (st == PEFT_OK) {
            st = peft__opt_set_text(&copy, "targets", "d,e");
            CHECK_STR(peft__opt_str(&copy, "targets"), st == PEFT_OK ? "[\"d\",\"e\"]" : "[\"c\"]");
            peft__optset_free(&copy);
        }
        peft__mem_fail_after(mem, 0, false);
        CHECK(st == PEFT_OK || st == PEFT_E_NOMEM);
    }
    peft__optset_free(&o);
}
