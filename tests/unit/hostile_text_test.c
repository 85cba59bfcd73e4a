/* hostile_text_test.c - tokenizers and rows of data that mean harm, and unusual ones that do not. */
#include "hostile_kit.h"

/* The first `from` becomes `to`. */
static bool text_swapped(hostile *h, const char *from, const char *to, const char *culprit) {
    const char *at = strstr(h->whole, from);
    char what[200];
    (void)snprintf(what, sizeof what, "%.90s for %.90s", to, from);
    if (at == NULL) { (void)fprintf(stderr, "%s has no %s\n", h->name, from); }
    return at != NULL && hostile_spliced(h, (size_t)(at - h->whole), strlen(from), to, strlen(to), what, culprit);
}

static peft_status text_opens(hostile *h) {
    peft_tokenizer *t = NULL;
    peft_status st = peft_tokenizer_open(h->ctx, h->dir, &t);
    peft_tokenizer_free(t);
    return st;
}

TEST(hostile_tokenizer_json) {
    static const char *const ids[] = {"\"a\":-1", "\"a\":1.5", "\"a\":\"0\"", "\"a\":null", "\"a\":2147483648",
            "\"a\":1e12", "\"a\":[0]", "\"a\":1"};
    static const char *const merges[] = {"5", "\"a\"", "\"zz b\"", "[\"a\"]", "[\"a\",\"b\",\"c\"]", "[1,2]", "null",
            "\"\"", "{}", "[\"a\",\"zz\"]"};
    static const char *const models[] = {"\"XYZ\"", "5", "{}", "[]", "\"\""};
    static const char *const steps[] = {"5", "[]", "{\"type\":\"Nope\"}", "{\"type\":5}", "{}", "\"ByteLevel\""};
    static const char *const keys[] = {"normalizer", "pre_tokenizer", "post_processor"};
    hostile h;
    CHECK_OK(hostile_begin(&h));
    h.open = text_opens;
    CHECK(hostile_write(runner_path(h.dir, "tokenizer.json"), TEXT_BYTES, strlen(TEXT_BYTES)));
    CHECK(hostile_take(&h, "tokenizer.json"));
    bool good = true;
    for (size_t i = 0; i < PEFT__COUNT(ids); i++) { good = text_swapped(&h,
            "\"a\":0", ids[i], i + 1 < PEFT__COUNT(ids) ? "\"a\"" : "id 1") && good; }
    for (size_t i = 0; i < PEFT__COUNT(merges); i++) { good = text_swapped(&h, "\"a b\"", merges[i], "merge") && good; }
    for (size_t i = 0; i < PEFT__COUNT(models); i++) { good = text_swapped(&h, "\"BPE\"", models[i], NULL) && good; }
    for (size_t k = 0; k < PEFT__COUNT(keys); k++) { good = hostile_values(&h, keys[k], steps, PEFT__COUNT(steps)) && good; }
    good = text_swapped(&h, "\"id\":12", "\"id\":-12", "<|end|>") && good;
    good = text_swapped(&h, "\"id\":12", "\"id\":1e10", "<|end|>") && good;
    good = text_swapped(&h, "\"id\":12", "\"id\":\"12\"", "<|end|>") && good;
    good = text_swapped(&h, "\"id\":12,", "", "<|end|>") && good;
    good = text_swapped(&h, "\"content\":\"<|end|>\"", "\"content\":5", "added_tokens") && good;
    good = text_swapped(&h, "\"content\":\"<|end|>\",", "", "added_tokens") && good;
    good = text_swapped(&h, "\"model\":", "\"modal\":", "model") && good;
    good = text_swapped(&h, "\"vocab\":", "\"vocal\":", "vocab") && good;
    good = hostile_broken_json(&h, 40) && good;
    CHECK(good);
    CHECK(hostile_as_it_was(&h));
    CHECK(h.cases >= 90);
    hostile_end(&h);
}

/* ---- rows -------------------------------------------------------------------------------------------------------------------------- */

static peft_tokenizer *rows_words;

static peft_status rows_open_file(hostile *h) {
    peft_dataset *d = NULL;
    peft_status st = peft_dataset_create(h->ctx, rows_words, NULL, &d);
    if (st == PEFT_OK) { st = peft_dataset_load_jsonl(d, h->dir); }
    peft_dataset_free(d);
    return st;
}

#define ROWS_FIRST "{\"text\":\"ab abc\"}\n"

TEST(hostile_rows) {
    static const char *const bad[] = {
        "5", "\"ab\"", "null", "[]", "{}", "{\"text\":5}", "{\"text\":null}", "{\"text\":\"\"}", "{\"text\":[\"ab\"]}",
        "{\"txt\":\"ab\"}", "{\"input_ids\":\"1 2\"}",
        "{\"input_ids\":[1.5]}", "{\"input_ids\":[-1]}", "{\"input_ids\":[99999999999]}", "{\"input_ids\":[\"1\"]}", "{\"input_ids\":5}",
        "{\"input_ids\":[[1]]}", "{\"input_ids\":[1,2],\"labels\":[1]}", "{\"input_ids\":[1,2],\"labels\":\"x\"}",
        "{\"input_ids\":[1],\"labels\":[1.5]}",
        "{\"prompt\":\"ab\"}", "{\"completion\":\"ab\"}", "{\"prompt\":5,\"completion\":\"ab\"}", "{\"prompt\":\"ab\",\"completion\":5}",
        "{\"messages\":5}", "{\"messages\":[]}", "{\"messages\":[5]}", "{\"messages\":[{\"role\":5,\"content\":\"ab\"}]}",
        "{\"messages\":[{\"role\":\"user\"}]}", "{\"messages\":[{\"content\":\"ab\"}]}", "{\"text\":\"ab\"",
        "{\"text\":\"ab\"}}", "{\"text\":\"ab}",
        "{text:\"ab\"}", "{'text':'ab'}", "{\"text\":\"ab\",}", "{\"text\":\"ab\"} {\"text\":\"ab\"}",
        "{\"text\":\"\xff\xfe\"}", "{\"text\":\"\\ud800\"}",
        "{\"text\":\"\\x\"}", "{\"text\":\"ab\",\"text\":\"abc\"}", "{\"text\":\"a\tb\"}", "{\"text\":NaN}", "{\"text\":tru}",
        "{\"input_ids\":[1e400]}", "{\"input_ids\":[01]}", "{\"input_ids\":[1,]}", "{\"input_ids\":[0x1]}",
        "{\"input_ids\":[+1]}", "\x01", "{\"text\":\"ab\"}x",
    };
    hostile h;
    char text[512];
    CHECK_OK(hostile_begin(&h));
    CHECK(hostile_write(runner_path(h.dir, "tokenizer.json"), TEXT_BYTES, strlen(TEXT_BYTES)));
    CHECK_OK(peft_tokenizer_open(h.ctx, h.dir, &rows_words));
    h.dir = runner_path(h.dir, "rows.jsonl");
    h.open = rows_open_file;
    CHECK(hostile_write(h.dir, ROWS_FIRST, strlen(ROWS_FIRST)));
    CHECK(hostile_take(&h, NULL));
    bool good = true;
    for (size_t i = 0; i < PEFT__COUNT(bad); i++) {
        int n = snprintf(text, sizeof text, ROWS_FIRST "%s\n" ROWS_FIRST, bad[i]);
        good = hostile_refused(&h, text, (size_t)n, bad[i], "line 2") && good;
    }
    CHECK(good);
    CHECK(h.cases >= 50);
    static const char *const unusual[] = {"", "\n", "\r\n", "  \n\n", "{\"text\":\"ab\"}\r\n",
            "{ \"text\" : \"ab\" , \"more\" : { \"a\" : [ null ] } }\n",
                                          "{\"text\":\"\\u00e9 \\ud83d\\ude00\"}\n", "{\"text\":\"ab\"}", "\t{\"text\":\"ab\"}\t\n"};
    for (size_t i = 0; i < PEFT__COUNT(unusual); i++) {
        int n = snprintf(text, sizeof text, ROWS_FIRST "%s", unusual[i]);
        good = hostile_taken(&h, text, (size_t)n, unusual[i]) && good;
    }
    int n = snprintf(text, sizeof text, "\xef\xbb\xbf" ROWS_FIRST);
    good = hostile_taken(&h, text, (size_t)n, "a byte order mark") && good;
    CHECK(good);
    peft_tokenizer_free(rows_words);
    hostile_end(&h);
}
