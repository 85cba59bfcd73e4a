/* UTF-8: every code point there and back, and every way in which bytes can be wrong. */
#include "runner.h"

TEST(base_utf8_every_code_point_round_trips) {
    for (uint32_t cp = 0; cp <= 0x10FFFF; cp++) {
        if (cp >= 0xD800 && cp <= 0xDFFF) { continue; }
        char bytes[4];
        size_t n = peft__utf8_write(cp, bytes);
        uint32_t back = 0xFFFFFFFF;
        CHECK_INT(n, cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4);
        CHECK_INT(peft__utf8_read(bytes, n, &back), n);
        CHECK_INT(back, cp);
        if (n > 1) { CHECK_INT(peft__utf8_read(bytes, n - 1, &back), 0); }
    }
}

TEST(base_utf8_known_bytes) {
    char out[4];
    CHECK_INT(peft__utf8_write(0x20AC, out), 3);
    CHECK_MEM(out, "\xE2\x82\xAC", 3);
    CHECK_INT(peft__utf8_write(0x1F600, out), 4);
    CHECK_MEM(out, "\xF0\x9F\x98\x80", 4);
    CHECK_INT(peft__utf8_write(0xD800, out), 3); /* what cannot be written becomes U+FFFD */
    CHECK_MEM(out, "\xEF\xBF\xBD", 3);
    CHECK_INT(peft__utf8_write(0x110000, out), 3);
    CHECK_MEM(out, "\xEF\xBF\xBD", 3);
}

TEST(base_utf8_rejects_malformed) {
    const char *bad[] = {
        "\x80",             /* continuation first */
        "\xBF",
        "\xC0\x80",         /* overlong */
        "\xC1\xBF",
        "\xE0\x80\x80",
        "\xE0\x9F\xBF",
        "\xF0\x80\x80\x80",
        "\xF0\x8F\xBF\xBF",
        "\xED\xA0\x80",     /* surrogates */
        "\xED\xBF\xBF",
        "\xF4\x90\x80\x80", /* above U+10FFFF */
        "\xF5\x80\x80\x80",
        "\xF8\x88\x80\x80\x80",
        "\xFE", "\xFF",
        "\xC3(", "\xE2\x82(", "\xE2(\xA1", "\xF0\x9F\x98(", /* no continuation */
        "\xC3", "\xE2\x82", "\xF0\x9F\x98",                  /* cut */
    };
    for (size_t i = 0; i < PEFT__COUNT(bad); i++) {
        uint32_t cp = 0;
        CHECK_INT(peft__utf8_read(bad[i], strlen(bad[i]), &cp), 0);
        CHECK(!peft__utf8_valid(bad[i], strlen(bad[i])));
    }
    uint32_t cp;
    CHECK_INT(peft__utf8_read("", 0, &cp), 0);
}

TEST(base_utf8_valid_looks_at_all_of_it) {
    CHECK(peft__utf8_valid("", 0));
    CHECK(peft__utf8_valid("a\0b", 3));
    CHECK(peft__utf8_valid("Gr\xC3\xBC\xC3\x9F" "e \xE2\x82\xAC", 11));
    CHECK(!peft__utf8_valid("Gr\xC3\xBC\xC3", 5));
}
