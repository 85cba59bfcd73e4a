/* train_answers_test.c - answers to questions: which span is taken of a question's windows, and how it is compared. */
#include "runner.h"
#include "train/metrics.h"

#include <math.h>

/* ---- words ---- */

static void answers_check_words(const char *text, const char *expected) {
    peft__str out;
    peft__str_init(&out, runner_mem());
    CHECK_OK(peft__answer_words(runner_mem(), text, strlen(text), &out));
    CHECK_STR(peft__str_c(&out), expected);
    peft__str_free(&out);
}

TEST(train_answers_words) {
    answers_check_words("", "");
    answers_check_words("The  Cat,\tsat on a mat. ", "cat sat on mat");
    answers_check_words("theatre an", "theatre");
    answers_check_words("The", "");
    answers_check_words("U.S. 1,000 (a) a-b", "us 1000 ab");
    answers_check_words("an\xE2\x80\x93" "a x", "\xE2\x80\x93 x");                  /* no ASCII: the dash stays, the articles go */
    answers_check_words("a\xC2\xB2 \xC3\x89" "A\xC2\xA0the\xE3\x80\x80" "b", "a\xC2\xB2 \xC3\xA9" "a b"); /* a² is a word, É lowers */
    answers_check_words("a\x1C" "b", "b");                                          /* white space to Python */
    answers_check_words("\xC4\xB0", "i\xCC\x87");                                    /* I with a dot */
    answers_check_words("\xCE\xA3\xCE\x91\xCE\xA3, \xCE\xA3", "\xCF\x83\xCE\xB1\xCF\x82 \xCF\x83"); /* a word's last sigma */
    answers_check_words("x\xFFy", "x\xFFy");                                        /* no UTF-8 stays */
}

static void answers_check_match(const char *text, const char *const *answers, size_t n, bool nulls, double exact, double f1) {
    peft__example e = {"", answers, n};
    double x = -1, f = -1;
    CHECK_OK(peft__answer_match(runner_mem(), text, strlen(text), &e, nulls, &x, &f));
    CHECK_NEAR(x, exact, 0);
    CHECK_NEAR(f, f1, 1e-15);
}

TEST(train_answers_match) {
    static const char *const cats[] = {"two cats", "The black cat!", "black black cat"}, *const the[] = {"the", "x"};
    answers_check_match("a black cat", cats, 3, false, 1, 1);
    answers_check_match("a black cat", cats, 1, false, 0, 0);
    answers_check_match("black black cat", cats, 2, false, 0, 0.8);          /* 2 of 3 and of 2 words */
    answers_check_match("black black black", cats + 2, 1, false, 0, 2.0 / 3); /* as often as both have it */
    answers_check_match("cats cats two", cats, 1, true, 0, 0.8);
    answers_check_match("", cats, 3, true, 0, 0);
    /* Without words on both sides: SQuAD 1 has an exact match without common words, SQuAD 2 drops the answer. */
    answers_check_match("a", the, 1, false, 1, 0);
    answers_check_match("a", the, 2, true, 0, 0);
    answers_check_match("a", the, 1, true, 1, 1);
    answers_check_match("", NULL, 0, true, 1, 1);
    answers_check_match("x", NULL, 0, true, 0, 0);
    answers_check_match("x", NULL, 0, false, 0, 0);
}

/* ---- spans ---- */

/* Context "w00 w01 w02 ...": word i is bytes 4 i to 4 i + 3. A window is one token that is none of it, words from `first` on,
 * and one more. */
enum { ANSWERS_WORDS = 60, ANSWERS_TOKENS_MAX = 256 };

typedef struct answers_kit {
    char context[4 * ANSWERS_WORDS + 1];
    struct peft_dataset d;
    peft__answers a;
    peft__row row;                          /* the window that was made last */
    float logits[2 * ANSWERS_TOKENS_MAX];   /* of it, all -1 at first */
} answers_kit;

static peft_status answers_window_make(answers_kit *k, int64_t example, int32_t first, int32_t words) {
    peft_status st = PEFT_OK;
    memset(&k->row, 0, sizeof k->row);
    k->row.example = example;
    k->row.first = (int64_t)k->d.offsets.len / 2;
    k->row.n = words + 2;
    for (int32_t i = -1; i <= words; i++) {
        bool none = i < 0 || i == words;
        int32_t place[2] = {none ? -1 : 4 * (first + i), none ? -1 : 4 * (first + i) + 3};
        TRY(peft__vec_push(&k->d.offsets, &place[0]));
        TRY(peft__vec_push(&k->d.offsets, &place[1]));
    }
    for (int64_t i = 0; i < 2 * k->row.n; i++) { k->logits[i] = -1; }
out:
    return st;
}

static peft_status answers_kit_begin(answers_kit *k, const peft__example *examples, size_t n) {
    peft_status st = PEFT_OK;
    memset(k, 0, sizeof *k);
    for (int i = 0; i < ANSWERS_WORDS; i++) {
        char *w = k->context + 4 * i;
        w[0] = 'w';
        w[1] = (char)('0' + i / 10);
        w[2] = (char)('0' + i % 10);
        w[3] = ' ';
    }
    peft__vec_init(&k->d.examples, runner_mem(), sizeof(peft__example));
    peft__vec_init(&k->d.offsets, runner_mem(), sizeof(int32_t));
    for (size_t i = 0; i < n; i++) {
        peft__example e = examples[i];
        e.context = k->context;
        TRY(peft__vec_push(&k->d.examples, &e));
    }
    peft__answers_begin(&k->a, runner_mem(), &k->d);
out:
    return st;
}

static void answers_kit_end(answers_kit *k) {
    peft__vec_free(&k->d.examples);
    peft__vec_free(&k->d.offsets);
}

/* Start and end logits of the window's words. */
static void answers_favour(answers_kit *k, int64_t first, float start, int64_t last, float end) {
    k->logits[2 * (first + 1)] = start;
    k->logits[2 * (last + 1) + 1] = end;
}

static bool answers_found(const answers_kit *k, const char *expected) {
    const char *text = NULL;
    size_t len = 0;
    peft__answers_best(&k->a, &text, &len);
    return runner_int(__FILE__, __LINE__, expected, (int64_t)len, (int64_t)strlen(expected)) &&
           runner_true(__FILE__, __LINE__, memcmp(text, expected, len) == 0, expected);
}

static const char *const answers_some[] = {"the W01, w02"}, *const answers_other[] = {"w09", "w03 w05"};

TEST(train_answers_span) {
    answers_kit k;
    static const peft__example e[] = {{NULL, answers_some, 1}, {NULL, answers_other, 2}};
    CHECK_OK(answers_kit_begin(&k, e, 2));
    CHECK(!k.a.nulls);
    CHECK(answers_found(&k, ""));
    CHECK_OK(answers_window_make(&k, 0, 0, 10));
    answers_favour(&k, 1, 3, 2, 4);
    answers_favour(&k, 7, 9, 6, 9); /* the largest of both, but the end comes before the start */
    k.logits[0] = k.logits[1] = 50; /* no part of the context; "none" does not count here */
    k.logits[22] = k.logits[23] = 50;
    CHECK_OK(peft__answers_add_window(&k.a, &k.row, k.logits));
    CHECK(answers_found(&k, "w01 w02 w03 w04 w05 w06")); /* 3 + 9 */
    CHECK_OK(answers_window_make(&k, 0, 1, 10));
    answers_favour(&k, 0, 8, 1, 5);
    CHECK_OK(peft__answers_add_window(&k.a, &k.row, k.logits));
    CHECK(answers_found(&k, "w01 w02"));
    CHECK_INT(k.a.questions, 0);
    CHECK_OK(answers_window_make(&k, 1, 0, 10));
    answers_favour(&k, 3, 2, 4, 2);
    CHECK_OK(peft__answers_add_window(&k.a, &k.row, k.logits));
    CHECK_INT(k.a.questions, 1);
    CHECK_NEAR(k.a.exact, 1, 0);
    CHECK(answers_found(&k, "w03 w04"));
    CHECK_OK(peft__answers_end(&k.a));
    CHECK_INT(k.a.questions, 2);
    peft__str out;
    peft__json_out j;
    peft__str_init(&out, runner_mem());
    peft__json_begin(&j, &out, 0);
    peft__json_object(&j);
    peft__answers_write(&k.a, &j);
    peft__json_object_end(&j);
    CHECK_STR(peft__str_c(&out), "{\"exact_match\":0.5,\"f1\":0.75}"); /* half of the second's words */
    CHECK_OK(peft__answers_end(&k.a)); /* once more adds nothing */
    CHECK_INT(k.a.questions, 2);
    peft__str_free(&out);
    answers_kit_end(&k);
}

/* At most 30 tokens, and only the 20 largest logits of each side. */
TEST(train_answers_limits) {
    answers_kit k;
    static const peft__example e[] = {{NULL, answers_some, 1}};
    char expected[4 * ANSWERS_WORDS + 1];
    CHECK_OK(answers_kit_begin(&k, e, 1));
    memcpy(expected, k.context, sizeof expected);
    expected[4 * 35 - 1] = '\0';
    CHECK_OK(answers_window_make(&k, 0, 0, 50));
    answers_favour(&k, 5, 5, 34, 5);
    CHECK_OK(peft__answers_add_window(&k.a, &k.row, k.logits));
    CHECK(answers_found(&k, expected + 20));
    CHECK_OK(answers_window_make(&k, 0, 0, 50));
    answers_favour(&k, 5, 9, 35, 9); /* 31 tokens: w05 with the first of the other ends is less than before */
    CHECK_OK(peft__answers_add_window(&k.a, &k.row, k.logits));
    CHECK(answers_found(&k, expected + 20));
    CHECK_OK(answers_window_make(&k, 0, 0, 50));
    for (int64_t i = 0; i < 20; i++) { answers_favour(&k, 30 + i, 100 - (float)i, i, 100 - (float)i); } /* all before */
    answers_favour(&k, 28, 79, 28, 79); /* the 21st of both */
    CHECK_OK(peft__answers_add_window(&k.a, &k.row, k.logits));
    CHECK(answers_found(&k, expected + 20));
    k.logits[2 * 50] = -1; /* w49: one start fewer */
    k.logits[2 * 20 + 1] = -1; /* w19: one end fewer */
    CHECK_OK(peft__answers_add_window(&k.a, &k.row, k.logits));
    CHECK(answers_found(&k, "w28"));
    answers_kit_end(&k);
}

/* One question of the set has no answer: "none" wins where every window says so by more than the best span. */
TEST(train_answers_none) {
    answers_kit k;
    static const peft__example e[] = {{NULL, answers_some, 1}, {NULL, NULL, 0}};
    CHECK_OK(answers_kit_begin(&k, e, 2));
    CHECK(k.a.nulls);
    CHECK_OK(answers_window_make(&k, 1, 0, 10));
    answers_favour(&k, 4, 2, 4, 3);
    k.logits[0] = 4;
    k.logits[1] = 1.5f;
    CHECK_OK(peft__answers_add_window(&k.a, &k.row, k.logits));
    CHECK(answers_found(&k, "")); /* 5.5 against 5 */
    CHECK_OK(answers_window_make(&k, 1, 5, 10));
    k.logits[0] = 4;
    k.logits[1] = 1;
    CHECK_OK(peft__answers_add_window(&k.a, &k.row, k.logits));
    CHECK(answers_found(&k, "w04")); /* 5 is not more than 5 */
    CHECK_OK(answers_window_make(&k, 1, 5, 10));
    k.logits[0] = k.logits[1] = 50;
    CHECK_OK(peft__answers_add_window(&k.a, &k.row, k.logits));
    CHECK(answers_found(&k, "w04")); /* the lowest of the windows counts */
    CHECK_OK(answers_window_make(&k, 0, 0, 10)); /* of this one the last window says none: wrong */
    k.logits[0] = k.logits[1] = 3;
    CHECK_OK(peft__answers_add_window(&k.a, &k.row, k.logits));
    CHECK(answers_found(&k, ""));
    CHECK_OK(peft__answers_end(&k.a));
    CHECK_INT(k.a.questions, 2);
    CHECK_NEAR(k.a.exact, 0, 0);
    CHECK_NEAR(k.a.f1, 0, 0);
    answers_kit_end(&k);
}

TEST(train_answers_no_span) {
    answers_kit k;
    static const peft__example e[] = {{NULL, NULL, 0}, {NULL, NULL, 0}};
    CHECK_OK(answers_kit_begin(&k, e, 2));
    CHECK_OK(answers_window_make(&k, 0, 0, 0));
    CHECK_OK(peft__answers_add_window(&k.a, &k.row, k.logits));
    CHECK(answers_found(&k, ""));
    CHECK_OK(peft__answers_end(&k.a));
    CHECK_NEAR(k.a.exact, 1, 0);
    CHECK_NEAR(k.a.f1, 1, 0);
    answers_kit_end(&k);
    /* Nothing measured at all. */
    peft__str out;
    peft__json_out j;
    peft__str_init(&out, runner_mem());
    peft__json_begin(&j, &out, 0);
    peft__json_object(&j);
    CHECK_OK(answers_kit_begin(&k, e, 0));
    CHECK(!k.a.nulls);
    CHECK_OK(peft__answers_end(&k.a));
    peft__answers_write(&k.a, &j);
    peft__json_object_end(&j);
    CHECK_STR(peft__str_c(&out), "{\"exact_match\":null,\"f1\":null}");
    peft__str_free(&out);
    answers_kit_end(&k);
}

TEST(train_answers_without_memory) {
    peft__mem *mem = runner_mem();
    peft__example e = {"", answers_other, 2};
    double exact = 0, f1 = 0;
    size_t n = 1;
    for (; n < 20; n++) {
        peft__mem_fail_after(mem, n, false);
        peft_status st = peft__answer_match(mem, "The w03", 7, &e, false, &exact, &f1);
        peft__mem_fail_after(mem, 0, false);
        if (st == PEFT_OK) { break; }
        CHECK_INT(st, PEFT_E_NOMEM);
    }
    CHECK(n > 3 && n < 20);
    CHECK_NEAR(f1, 2.0 / 3, 1e-15);
}
