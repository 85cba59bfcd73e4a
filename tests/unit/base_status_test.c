/* The error text: one a thread, cut at 1 KiB on a whole character, prefixed by upper layers. */
#include "base/system.h"
#include "runner.h"

TEST(base_status_fail_sets_text_and_returns_code) {
    CHECK_INT(peft__fail(PEFT_E_KEY, "key \"%s\" is %d", "rank", 7), PEFT_E_KEY);
    CHECK_STR(peft__fail_text(), "key \"rank\" is 7");
}

TEST(base_status_prefix_goes_before_the_text) {
    peft__fail(PEFT_E_IO, "no space");
    peft__fail_prefix("file \"%s\"", "a.bin");
    CHECK_STR(peft__fail_text(), "file \"a.bin\": no space");
    peft__fail_prefix("outer");
    CHECK_STR(peft__fail_text(), "outer: file \"a.bin\": no space");
}

TEST(base_status_argument_may_be_the_present_text) {
    peft__fail(PEFT_E_IO, "inner");
    peft__fail(PEFT_E_FORMAT, "outer (%s)", peft__fail_text());
    CHECK_STR(peft__fail_text(), "outer (inner)");
    peft__fail_prefix("%s", peft__fail_text());
    CHECK_STR(peft__fail_text(), "outer (inner): outer (inner)");
}

TEST(base_status_text_is_cut_on_a_character) {
    char text[3000];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    peft__fail(PEFT_E_IO, "%s", text);
    CHECK_INT(strlen(peft__fail_text()), 1023);
    for (int before = 0; before < 4; before++) { /* 1022 = 2 mod 4: every place where a character can be cut */
        for (int i = before; i + 4 < 2999; i += 4) { memcpy(text + i, "\xF0\x9F\x98\x80", 4); }
        text[2000] = '\0';
        peft__fail(PEFT_E_IO, "%s", text);
        CHECK(peft__utf8_valid(peft__fail_text(), strlen(peft__fail_text())));
        CHECK(strlen(peft__fail_text()) >= 1020);
        peft__fail_prefix("abc");
        CHECK(peft__utf8_valid(peft__fail_text(), strlen(peft__fail_text())));
        memset(text, 'x', (size_t)before + 1);
    }
}

TEST(base_status_prefix_longer_than_the_room) {
    char text[2000];
    memset(text, 'p', sizeof text);
    text[sizeof text - 1] = '\0';
    peft__fail(PEFT_E_IO, "lost");
    peft__fail_prefix("%s", text);
    CHECK_INT(strlen(peft__fail_text()), 1023);
    CHECK_INT(peft__fail_text()[1022], 'p');
}

static void status_other_thread(void *arg) {
    bool *empty = arg;
    *empty = peft__fail_text()[0] == '\0';
    peft__fail(PEFT_E_IO, "from the other thread");
}

TEST(base_status_text_belongs_to_the_thread) {
    bool empty = false;
    peft__sys_thread thread;
    peft__fail(PEFT_E_IO, "mine");
    CHECK(peft__sys_thread_start(&thread, 1 << 18, status_other_thread, &empty));
    peft__sys_thread_join(&thread);
    CHECK(empty);
    CHECK_STR(peft__fail_text(), "mine");
}

/* Names of files and values of options are any bytes; the text that quotes them is UTF-8. */
TEST(base_status_text_is_utf8) {
    (void)peft__fail(PEFT_E_KEY, "key \"%s\" is no %s", "a\xFF\xC3", "\xC3\xA9");
    CHECK_STR(peft__fail_text(), "key \"a??\" is no \xC3\xA9");
    peft__fail_prefix("%.3s", "ab\xC3\xA9");
    CHECK_STR(peft__fail_text(), "ab?: key \"a??\" is no \xC3\xA9");
}
