/* json.c - JSON that is none (RFC 8259), or that means harm, as a model's config.json, an adapter's config and a tokenizer; and JSON that
 * is unusual and right. */
#include "hostile.h"

/* In the place of a value. All are PEFT_E_FORMAT. */
static const char *const json_bad_values[] = {
    "", "nul", "nulll", "NULL", "True", "tru", "falsee", "NaN", "Infinity", "-Infinity", "inf", "undefined", "None", "x", "-", "+1",
        "01", "-01", "1.",
    ".5", "1e", "1e+", "0x10", "1_000", "1,000,", "1 2", "\"", "\"a", "'a'", "`a`", "\"\\x41\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\\"",
    "\"a\nb\"", "\"a\tb\"", "\"a\x01\"", "\"\x1f\"", "\"\x80\"", "\"\xC3\"", "\"\xC0\x80\"", "\"\xE0\x80\x80\"", "\"\xED\xA0\x80\"",
    "\"\xF4\x90\x80\x80\"", "\"\xF8\x88\x80\x80\x80\"", "\"\xFF\"", "[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[1}", "]", "[[]", "{",
        "{1:2}",
    "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{,}", "{\"a\" 1}", "{\"a\":1 \"b\":2}", "{\"a\":1]", "{\"a\":1,\"a\":2}", "{a:1}",
        "{\"a\":{\"b\":[}}}", "}",
    "/* a */ 1", "// a\n1", "# a\n1", "1 // a", "\xEF\xBB\xBF" "1", "\xE2\x80\x9C" "a\xE2\x80\x9D", "<a/>", "1e999", "-1e999",
        "[1e400]", "(1)", "\\u0031", "$1",
};

/* As the whole file. */
static const char *const json_bad_files[] = {
    "", " ", "\n", "{", "}", "[", "\"", "{\"a\":1}x", "{\"a\":1}{\"a\":1}", "{\"a\":1},", "\xFF\xFE{\0}\0", "\xEF\xBB\xBF",
        "\xEF\xBB{}", "<html></html>",
    "<?xml version=\"1.0\"?>", "a: 1\n", "GGUF", "PK\3\4", "\x80\x02}q\x00.", "\x1f\x8b\x08",
        "version https://git-lfs.github.com/spec/v1\n",
    "null", "true", "0", "\"config.json\"", "[]", "[{}]",
};

/* `n` times a and then b. */
static void json_many(hostile *h, const char *what, const char *a, size_t n, const char *middle, const char *b, peft_status status,
    const char *culprit) {
    size_t la = strlen(a), lm = strlen(middle), lb = strlen(b), at = 0;
    char *text = malloc(n * (la + lb) + lm);
    if (text == NULL) { return; }
    for (size_t i = 0; i < n; i++, at += la) { memcpy(text + at, a, la); }
    memcpy(text + at, middle, lm);
    at += lm;
    for (size_t i = 0; i < n; i++, at += lb) { memcpy(text + at, b, lb); }
    hostile_refused(h, what, text, at, status, culprit);
    free(text);
}

static void json_refused(hostile *h) {
    char what[200], text[400];
    for (size_t i = 0; i < PEFT__COUNT(json_bad_values); i++) {
        (void)snprintf(what, sizeof what, "a value %.100s", json_bad_values[i]);
        int n = snprintf(text, sizeof text, "{\"note\":%s,\"x\":1,", json_bad_values[i]);
        hostile_spliced(h, what, 0, 1, text, (size_t)n, PEFT_E_FORMAT, "line ");
    }
    for (size_t i = 0; i < PEFT__COUNT(json_bad_files); i++) {
        (void)snprintf(what, sizeof what, "a file %.100s", json_bad_files[i]);
        hostile_refused(h, what, json_bad_files[i], strlen(json_bad_files[i]), PEFT_E_FORMAT, NULL);
    }
    hostile_spliced(h, "a NUL", 1, 0, "\0", 1, PEFT_E_FORMAT, "line 1");
    hostile_spliced(h, "a NUL behind it", h->len, 0, "\0", 1, PEFT_E_FORMAT, "line ");
    hostile_cuts(h, h->len - 2, 40, PEFT_E_FORMAT);
    json_many(h, "100,000 arrays in each other", "[", 100000, "", "]", PEFT_E_FORMAT, "deep");
    json_many(h, "100,000 arrays without an end", "[", 100000, "", "", PEFT_E_FORMAT, "deep");
    json_many(h, "100,000 objects in each other", "{\"a\":", 100000, "1", "}", PEFT_E_FORMAT, "deep");
    json_many(h, "100,000 commas", ",", 100000, "", "", PEFT_E_FORMAT, NULL);
    json_many(h, "100,000 quotes", "\"", 100000, "", "", PEFT_E_FORMAT, NULL);
    json_many(h, "100,000 digits, and no value after", "9", 100000, "[", "", PEFT_E_FORMAT, NULL);
    json_many(h, "a list of 100,000 without an end", "1,", 100000, "[", "", PEFT_E_FORMAT, NULL);
}

/* Objects with something else in front or behind, and other spaces: the same config. */
static void json_taken(hostile *h) {
    static const struct {
        const char *what, *first, *last;
    } ways[] = {
        {"a byte order mark", "\xEF\xBB\xBF{", ""}, {"spaces around it", " \r\n\t {", " \r\n\t "}, {"an unknown key", "{\"note\":1,", ""},
        {"an unknown key that is null", "{\"note\":null,", ""},
        {"an unknown object", "{\"note\":{\"a\":[1,[2,{\"x\":null}]],\"b\":{}},", ""},
        {"a key of no bytes", "{\"\":\"\",", ""}, {"a key of escapes", "{\"\\u00e9\\n\\\"\\\\\\/\":[],", ""},
        {"a key with a NUL", "{\"a\\u0000b\":1,", ""},
        {"a number beyond an integer", "{\"note\":123456789012345678901234567890,", ""},
        {"a number too small for a double", "{\"note\":[1e-999,-1e-400],", ""},
        {"minus nothing", "{\"note\":[-0,-0.0,0e0],", ""}, {"pairs of surrogates", "{\"note\":\"\\ud83d\\ude00\",", ""},
        {"half a pair", "{\"note\":\"\\ud800 \\udc00\",", ""}, {"a character of four bytes", "{\"note\":\"\xF0\x9F\x98\x80\",", ""},
        {"a DEL", "{\"note\":\"\x7f\",", ""}, {"fifty arrays in each other",
         "{\"note\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]],",""},
    };
    char *text = malloc(2 * h->len + 400);
    if (text == NULL) { return; }
    for (size_t i = 0; i < PEFT__COUNT(ways); i++) {
        int n = snprintf(text, h->len + 400, "%s%s%s", ways[i].first, h->good + 1, ways[i].last);
        hostile_taken(h, ways[i].what, text, (size_t)n);
    }
    size_t n = 0, bare = 0;
    for (size_t i = 0; i < h->len; i++) { /* line ends of Windows, and of old Macs */
        if (h->good[i] == '\n') { text[n++] = '\r'; }
        text[n++] = h->good[i];
    }
    hostile_taken(h, "CRLF", text, n);
    for (size_t i = 0; i < h->len; i++) { text[i] = h->good[i]; }
    for (size_t i = 0; i < h->len; i++) { text[i] = text[i] == '\n' ? '\r' : text[i]; }
    hostile_taken(h, "CR", text, h->len);
    for (size_t i = 0; i < h->len; i++) {
        if (h->good[i] != '\n' && h->good[i] != ' ') { text[bare++] = h->good[i]; }
    }
    hostile_taken(h, "no space at all", text, bare);
    n = 0;
    for (size_t i = 0; i < 1000; i++) { n += (size_t)snprintf(text + n, 8, "\n"); if (n + h->len > 2 * h->len) { break; } }
    memcpy(text + n, h->good, h->len);
    hostile_taken(h, "empty lines in front", text, n + h->len);
    free(text);
}

void hostile_json(void) {
    hostile h;
    if (hostile_begin(&h, "JSON", hostile_open_model) && hostile_save_model(&h, API_LLAMA, "") == PEFT_OK &&
        hostile_take(&h, "config.json", false)) {
        json_refused(&h);
        json_taken(&h);
    }
    hostile_end(&h);
}
