/* io_json_test.c - the JSON parser, its errors, the typed reads and the writer. */
#include "runner.h"

#include <stdio.h>
#include <stdlib.h>

#include "io/io.h"

static peft_status parse(peft__arena *a, const char *text, const peft__json **out) {
    return peft__json_parse(a, text, strlen(text), "t.json", out);
}

TEST(json_parses_every_kind) {
    peft__arena a;
    const peft__json *j = NULL;
    peft__arena_init(&a, runner_mem());
    CHECK_OK(parse(
        &a,
        "\xEF\xBB\xBF {\"n\":null,\r\n\"t\":true,\"f\" : false,\t\"i\":-12,\"d\":2.5e1,\"s\":\"x\",\"a\":[1,[],{}],"
        "\"o\":{\"\":0}} \n",
        &j));
    CHECK_INT(j->kind, PEFT__JSON_OBJECT);
    CHECK_INT(j->len, 8);
    CHECK_STR(j->keys[0].str, "n");
    CHECK_INT(peft__json_get(j, "n")->kind, PEFT__JSON_NULL);
    CHECK(peft__json_find(j, "n") == NULL);
    CHECK(peft__json_get(j, "absent") == NULL);
    CHECK(peft__json_get(NULL, "n") == NULL);
    CHECK(peft__json_get(j->items, "n") == NULL);
    CHECK(peft__json_get(j, "t")->truth);
    CHECK(!peft__json_get(j, "f")->truth);
    CHECK_INT(peft__json_get(j, "f")->kind, PEFT__JSON_BOOL);
    CHECK(peft__json_get(j, "i")->is_int);
    CHECK_INT(peft__json_get(j, "i")->i, -12);
    CHECK_NEAR(peft__json_get(j, "i")->num, -12, 0);
    CHECK(!peft__json_get(j, "d")->is_int);
    CHECK_NEAR(peft__json_get(j, "d")->num, 25, 0);
    CHECK(peft__json_is(peft__json_get(j, "s"), "x"));
    CHECK(!peft__json_is(peft__json_get(j, "s"), "xy"));
    CHECK(!peft__json_is(peft__json_get(j, "i"), "x"));
    const peft__json *list = peft__json_get(j, "a");
    CHECK_INT(list->len, 3);
    CHECK_INT(list->items[0].i, 1);
    CHECK_INT(list->items[1].kind, PEFT__JSON_ARRAY);
    CHECK_INT(list->items[1].len, 0);
    CHECK_INT(list->items[2].kind, PEFT__JSON_OBJECT);
    CHECK_INT(peft__json_get(peft__json_get(j, "o"), "")->i, 0);
    peft__arena_free(&a);
}

TEST(json_reads_scalars_at_the_top) {
    static const struct { const char *text; bool is_int; int64_t i; double num; } cases[] = {
        {"0", true, 0, 0}, {"-0", true, 0, 0}, {" 7 ", true, 7, 7},
        {"9223372036854775807", true, INT64_MAX, 9223372036854775807.0},
        {"-9223372036854775808", true, INT64_MIN, -9223372036854775808.0},
        {"9223372036854775808", false, 0, 9223372036854775808.0},
        {"1000000000000000019884624838656", false, 0, 1e30},
        {"1.0", false, 0, 1}, {"1E3", false, 0, 1000}, {"1e-05", false, 0, 1e-5}, {"0.1", false, 0, 0.1},
        {"1e-999", false, 0, 0}, {"123456789012345678e-17", false, 0, 1.23456789012345678},
    };
    peft__arena a;
    peft__arena_init(&a, runner_mem());
    for (size_t k = 0; k < PEFT__COUNT(cases); k++) {
        const peft__json *j = NULL;
        CHECK_OK(parse(&a, cases[k].text, &j));
        CHECK_INT(j->kind, PEFT__JSON_NUMBER);
        CHECK_INT(j->is_int, cases[k].is_int);
        CHECK_INT(j->i, cases[k].i);
        CHECK_NEAR(j->num, cases[k].num, 0);
    }
    peft__arena_free(&a);
}

TEST(json_resolves_escapes) {
    static const struct { const char *text; const char *want; } cases[] = {
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t"},
        {"\"\\u0041\\u00e9\\u20AC\\ud83d\\uDE00.\"", "A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80."},
        {"\"\\ud83d\"", "\xEF\xBF\xBD"},
        {"\"\\ude00x\"", "\xEF\xBF\xBDx"},
        {"\"\\ud83d\\u0041\"", "\xEF\xBF\xBD" "A"},
        {"\"\\ud83d\\ud83d\\ude00\"", "\xEF\xBF\xBD\xF0\x9F\x98\x80"},
        {"\"\\ud83d\\n\"", "\xEF\xBF\xBD\n"},
        {"\"\xC3\xA9\xF0\x9F\x98\x80\x7F\"", "\xC3\xA9\xF0\x9F\x98\x80\x7F"},
        {"\"\"", ""},
    };
    peft__arena a;
    const peft__json *j = NULL;
    peft__arena_init(&a, runner_mem());
    for (size_t k = 0; k < PEFT__COUNT(cases); k++) {
        CHECK_OK(parse(&a, cases[k].text, &j));
        CHECK_STR(j->str, cases[k].want);
        CHECK_INT(j->len, strlen(cases[k].want));
    }
    CHECK_OK(parse(&a, "[\"a\\u0000b\", \"c\"]", &j));
    CHECK_INT(j->items[0].len, 3);
    CHECK_MEM(j->items[0].str, "a\0b", 4);
    CHECK_STR(j->items[1].str, "c");
    peft__arena_free(&a);
}

static const struct { const char *text; const char *says; } malformed[] = {
    {"", "line 1, column 1: expected a value, found the end of the text"},
    {"  \n ", "line 2, column 2: expected a value"},
    {"\xEF\xBB\xBF", "expected a value, found the end"},
    {"{", "expected a key in quotes, found the end"},
    {"[", "expected a value, found the end"},
    {"[1", "line 1, column 1: this array has no end"},
    {"{\"a\":[1,2]", "line 1, column 1: this object has no end"},
    {"[1,]", "column 4: expected a value, found ']'"},
    {"[,1]", "expected a value, found ','"},
    {"[1 2]", "expected ',' or ']', found '2'"},
    {"[1}", "expected ',' or ']', found '}'"},
    {"{\"a\":1]", "expected ',' or '}', found ']'"},
    {"{\"a\":1,}", "expected a key in quotes, found '}'"},
    {"{\"a\" 1}", "expected ':' after a key, found '1'"},
    {"{\"a\":}", "expected a value, found '}'"},
    {"{a:1}", "expected a key in quotes, found 'a'"},
    {"{1:1}", "expected a key in quotes, found '1'"},
    {"{\"a\":1,\n \"b\":2,\r\n  \"a\":3}", "line 3, column 3: the key \"a\" appears twice"},
    {"1 2", "column 3: expected nothing after the value, found '2'"},
    {"{}}", "expected nothing after the value, found '}'"},
    {"]", "expected a value, found ']'"},
    {"nul", "expected a value, found 'n'"},
    {"truth", "expected a value, found 't'"},
    {"True", "expected a value, found 'T'"},
    {"NaN", "NaN and Infinity are not JSON"},
    {"Infinity", "NaN and Infinity are not JSON"},
    {"-Infinity", "expected a digit, found 'I'"},
    {"-", "expected a digit, found the end"},
    {"+1", "expected a value, found '+'"},
    {"01", "a number starts with a superfluous 0"},
    {"-01", "a number starts with a superfluous 0"},
    {".5", "expected a value, found '.'"},
    {"1.", "expected a digit after the decimal point"},
    {"1.e5", "expected a digit after the decimal point, found 'e'"},
    {"1e", "expected a digit of the exponent"},
    {"1e+", "expected a digit of the exponent"},
    {"1e999", "the number 1e999 is out of range"},
    {"0x10", "expected nothing after the value, found 'x'"},
    {"'a'", "expected a value, found '''"},
    {"\"a", "line 1, column 1: this string has no end"},
    {"\"a\\", "unknown escape"},
    {"\"a\\\"", "this string has no end"},
    {"\"a\\x41\"", "column 3: unknown escape"},
    {"\"\\u12\"", "expected four hexadecimal digits"},
    {"\"\\u12G4\"", "expected four hexadecimal digits"},
    {"\"\\u", "expected four hexadecimal digits"},
    {"\"a\nb\"", "column 3: a string holds the control character 0x0A unescaped"},
    {"\"a\tb\"", "control character 0x09"},
    {"\"\xC3\xA9\xFF\"", "line 1, column 3: invalid UTF-8 at byte 0xFF, offset 3"},
    {"\"\xC3\"", "invalid UTF-8 at byte 0xC3, offset 1"},
    {"\"\xED\xA0\x80\"", "invalid UTF-8 at byte 0xED"},
    {"\"\xC0\x80\"", "invalid UTF-8 at byte 0xC0"},
    {"\"\xF5\x80\x80\x80\"", "invalid UTF-8 at byte 0xF5"},
    {"\xFF", "expected a value, found the byte 0xFF"},
    {"[1] // c", "expected nothing after the value, found '/'"},
    {"\x0B" "1", "expected a value, found the byte 0x0B"},
};

TEST(json_rejects_malformed_text) {
    peft__arena a;
    peft__arena_init(&a, runner_mem());
    for (size_t k = 0; k < PEFT__COUNT(malformed); k++) {
        const peft__json *j = NULL;
        CHECK_STATUS(parse(&a, malformed[k].text, &j), PEFT_E_FORMAT);
        CHECK_ERROR_HAS("t.json: line ");
        CHECK_ERROR_HAS(malformed[k].says);
        CHECK(j == NULL);
    }
    const peft__json *j = NULL;
    CHECK_STATUS(peft__json_parse(&a, "1\0", 2, "t.json", &j), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("found the byte 0x00");
    peft__arena_free(&a);
}

TEST(json_limits_depth) {
    char text[2 * PEFT__JSON_DEPTH + 8] = {0};
    peft__arena a;
    const peft__json *j = NULL;
    peft__arena_init(&a, runner_mem());
    memset(text, '[', PEFT__JSON_DEPTH);
    memset(text + PEFT__JSON_DEPTH, ']', PEFT__JSON_DEPTH);
    CHECK_OK(parse(&a, text, &j));
    peft__str s;
    peft__json_out w;
    peft__str_init(&s, a.mem);
    peft__json_begin(&w, &s, 0);
    peft__json_put_node(&w, j);
    CHECK_STR(peft__str_c(&s), text);
    peft__str_free(&s);
    memset(text, '[', PEFT__JSON_DEPTH + 1);
    memset(text + PEFT__JSON_DEPTH + 1, ']', PEFT__JSON_DEPTH + 1);
    CHECK_STATUS(parse(&a, text, &j), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("column 129: arrays and objects are nested deeper than 128");
    peft__arena_free(&a);
}

/* Enough keys that duplicates are looked for with the hash table. */
TEST(json_finds_duplicates_among_many_keys) {
    peft__mem *mem = runner_mem();
    peft__arena a;
    peft__str s;
    const peft__json *j = NULL;
    peft__arena_init(&a, mem);
    peft__str_init(&s, mem);
    peft__str_putc(&s, '{');
    for (int i = 0; i < 20000; i++) { peft__str_putf(&s, "\"k%d\":%d,\n", i, i); }
    size_t len = s.len;
    peft__str_puts(&s, "\"last\":0}");
    CHECK_OK(peft__json_parse(&a, s.data, s.len, "many", &j));
    CHECK_INT(j->len, 20001);
    CHECK_INT(peft__json_get(j, "k19999")->i, 19999);
    s.len = len;
    peft__str_puts(&s, "\"k\\u0037\":0}");
    CHECK_STATUS(peft__json_parse(&a, s.data, s.len, "many", &j), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("many: line 20001, column 1: the key \"k7\" appears twice");
    peft__str_free(&s);
    peft__arena_free(&a);
}

TEST(json_typed_reads) {
    peft__arena a;
    const peft__json *j = NULL;
    int64_t i;
    double f;
    bool b;
    const char *s;
    peft__arena_init(&a, runner_mem());
    CHECK_OK(parse(&a, "{\"i\":5,\"f\":0.5,\"b\":true,\"s\":\"hey\",\"z\":null,\"n\":\"a\\u0000b\",\"a\":[1,2],"
                       "\"long\":\"0123456789012345678901234567890123456789012345\xE2\x82\xAC" "678901\"}", &j));
    CHECK_OK(peft__json_int(j, "c", "i", 1, 0, 9, &i));
    CHECK_INT(i, 5);
    CHECK_OK(peft__json_int(j, "c", "z", 7, 0, 9, &i));
    CHECK_INT(i, 7);
    CHECK_OK(peft__json_int(j, "c", "absent", -7, 0, 9, &i));
    CHECK_INT(i, -7);
    CHECK_OK(peft__json_float(j, "c", "i", 1, &f));
    CHECK_NEAR(f, 5, 0);
    CHECK_OK(peft__json_float(j, "c", "absent", 1.5, &f));
    CHECK_NEAR(f, 1.5, 0);
    CHECK_OK(peft__json_bool(j, "c", "b", false, &b));
    CHECK(b);
    CHECK_OK(peft__json_bool(NULL, "c", "b", false, &b));
    CHECK(!b);
    CHECK_OK(peft__json_str(j, "c", "s", "d", &s));
    CHECK_STR(s, "hey");
    CHECK_OK(peft__json_str(j, "c", "z", NULL, &s));
    CHECK(s == NULL);
    CHECK_STATUS(peft__json_int(j, "c.json", "i", 1, 6, 9, &i), PEFT_E_FORMAT);
    CHECK_STR(peft__fail_text(), "c.json: key \"i\" is 5, expected an integer from 6 to 9");
    CHECK_STATUS(peft__json_int(j, "c.json", "f", 1, 0, 9, &i), PEFT_E_FORMAT);
    CHECK_STR(peft__fail_text(), "c.json: key \"f\" is 0.5, expected an integer from 0 to 9");
    CHECK_STATUS(peft__json_float(j, "c.json", "a", 1, &f), PEFT_E_FORMAT);
    CHECK_STR(peft__fail_text(), "c.json: key \"a\" is an array of 2, expected a number");
    CHECK_STATUS(peft__json_bool(j, "c.json", "s", true, &b), PEFT_E_FORMAT);
    CHECK_STR(peft__fail_text(), "c.json: key \"s\" is \"hey\", expected true or false");
    CHECK_STATUS(peft__json_str(j, "c.json", "b", "", &s), PEFT_E_FORMAT);
    CHECK_STR(peft__fail_text(), "c.json: key \"b\" is true, expected a string");
    CHECK_STATUS(peft__json_str(j, "c.json", "n", "", &s), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("without NUL");
    CHECK_STATUS(peft__json_bool(j, "c", "long", true, &b), PEFT_E_FORMAT);
    CHECK_ERROR_HAS(
        "is \"0123456789012345678901234567890123456789012345...\", expected"); /* cut before the euro sign */
    peft__arena_free(&a);
}

TEST(json_writes_compact_and_indented) {
    peft__str s;
    peft__json_out w;
    peft__str_init(&s, runner_mem());
    for (int indent = 0; indent <= 2; indent += 2) {
        peft__str_clear(&s);
        peft__json_begin(&w, &s, indent);
        peft__json_object(&w);
        peft__json_key(&w, "a");
        peft__json_array(&w);
        peft__json_put_int(&w, INT64_MIN);
        peft__json_put_float(&w, 0.1);
        peft__json_put_double(&w, 0.1);
        peft__json_put_float(&w, 16);
        peft__json_put_float(&w, (double)(1.0f / 0.0f));
        peft__json_array_end(&w);
        peft__json_key(&w, "b\"");
        peft__json_put_str(&w, "\x01\n\xC3\xA9\xFF/\\\x7F\0", 9);
        peft__json_key(&w, "c");
        peft__json_object(&w);
        peft__json_object_end(&w);
        peft__json_key(&w, "d");
        peft__json_put_text(&w, NULL);
        peft__json_key(&w, "e");
        peft__json_put_bool(&w, true);
        peft__json_key(&w, "f");
        peft__json_put_text(&w, "x");
        peft__json_object_end(&w);
        CHECK_OK(peft__str_status(&s));
        CHECK_STR(
            peft__str_c(&s),
            indent == 0
                ? "{\"a\":[-9223372036854775808,0.1,0.1,16.0,null],\"b\\\"\":\"\\u0001\\n\xC3\xA9\xEF\xBF\xBD/"
                  "\\\\\\u007f\\u0000\","
                  "\"c\":{},\"d\":null,\"e\":true,\"f\":\"x\"}"
                : "{\n  \"a\": [\n    -9223372036854775808,\n    0.1,\n    0.1,\n    16.0,\n    null\n  ],\n"
                  "  \"b\\\"\": \"\\u0001\\n\xC3\xA9\xEF\xBF\xBD/\\\\\\u007f\\u0000\",\n  \"c\": {},\n  \"d\": null,\n"
                  "  \"e\": true,\n  \"f\": \"x\"\n}");
    }
    peft__str_free(&s);
}

TEST(json_put_node_gives_the_text_again) {
    static const char text[] = "{\"a\":[1,2.5,1e+300,\"x\\ny\",{},[],null,true,false,{\"k\\u0000\":[[7]]}],\"b\":-3.0}";
    peft__mem *mem = runner_mem();
    peft__arena a;
    peft__str s;
    peft__json_out w;
    const peft__json *j = NULL;
    peft__arena_init(&a, mem);
    peft__str_init(&s, mem);
    CHECK_OK(parse(&a, text, &j));
    peft__json_begin(&w, &s, 0);
    peft__json_put_node(&w, j);
    CHECK_STR(peft__str_c(&s), text);
    peft__str_free(&s);
    peft__arena_free(&a);
}

TEST(json_reads_files) {
    peft__mem *mem = runner_mem();
    const char *path = runner_path(runner_tmpdir(), "a.json");
    peft__arena a;
    const peft__json *j = NULL;
    peft__arena_init(&a, mem);
    CHECK_STATUS(peft__json_read(&a, path, &j), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("a.json");
    CHECK_OK(peft__save_text(mem, path, "[1]\r\n", 5));
    CHECK_OK(peft__json_read(&a, path, &j));
    CHECK_INT(j->items[0].i, 1);
    CHECK_OK(peft__save_text(mem, path, "", 0));
    CHECK_STATUS(peft__json_read(&a, path, &j), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("a.json: line 1, column 1");
    peft__arena_free(&a);
}

TEST(json_survives_failing_allocations) {
    peft__mem *mem = runner_mem();
    peft__str s;
    peft__str_init(&s, mem);
    peft__str_puts(&s, "{\"list\":[");
    for (int i = 0; i < 300; i++) { peft__str_putf(&s, "{\"n%d\":[%d,\"text\"]},", i, i); }
    peft__str_puts(&s, "0]");
    for (int i = 0; i < 40; i++) { peft__str_putf(&s, ",\"k%d\":null", i); }
    peft__str_putc(&s, '}');
    size_t before = atomic_load(&mem->now);
    int failures = 0;
    for (size_t n = 1; n < 1000; n++) {
        peft__arena a;
        const peft__json *j = NULL;
        peft__arena_init(&a, mem);
        peft__mem_fail_after(mem, n, false);
        peft_status st = peft__json_parse(&a, s.data, s.len, "t", &j);
        peft__mem_fail_after(mem, 0, false);
        peft__arena_free(&a);
        CHECK_INT(atomic_load(&mem->now), before);
        if (st == PEFT_OK) { break; }
        CHECK_INT(st, PEFT_E_NOMEM);
        failures++;
    }
    CHECK(failures >= 10 && failures < 900);
    peft__str_free(&s);
}
