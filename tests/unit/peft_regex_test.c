/* The subset of Python's re: what matches (checked against re.fullmatch and re.match), what is refused and how. */
#include "peft/method.h"
#include "runner.h"

typedef struct regex_case {
    const char *pattern, *text;
    bool full, start; /* re.fullmatch, re.match */
} regex_case;

static const regex_case regex_cases[] = {
    {"", "", true, true},
    {"", "a", false, true},
    {"abc", "abc", true, true},
    {"abc", "abcd", false, true},
    {"abc", "xabc", false, false},
    {"a.c", "a.c", true, true},
    {"a\\.c", "abc", false, false},
    {"a\\.c", "a.c", true, true},
    {".*\\.(q|v)_proj", "model.layers.0.self_attn.q_proj", true, true},
    {".*\\.(q|v)_proj", "model.layers.0.self_attn.k_proj", false, false},
    {".*language_model\\..*\\.(q_proj|v_proj)", "model.language_model.layers.3.self_attn.v_proj", true, true},
    {"model\\.layers\\.\\d+\\.mlp\\..*", "model.layers.17.mlp.up_proj", true, true},
    {"(.*\\.)?(q_proj)$", "a.q_proj", true, true},
    {"(.*\\.)?(q_proj)$", "aq_proj", false, false},
    {"(.*\\.)?(^model.*)$", "model.x", true, true},
    {"(.*\\.)?(^model.*)$", "a.model.x", false, false},
    {"[qv]_proj", "v_proj", true, true},
    {"[^qv]_proj", "v_proj", false, false},
    {"[^qv]_proj", "k_proj", true, true},
    {"[a-c]+", "abcabc", true, true},
    {"[a-c]+", "abd", false, true},
    {"[]a]+", "]a", true, true},
    {"[\\w-]+", "a-b_9", true, true},
    {"[\\d.]+", "1.2", true, true},
    {"\\w+", "ab_9", true, true},
    {"\\W", "-", true, true},
    {"\\D\\d", "a1", true, true},
    {"\\s*\\S", " \tx", true, true},
    {"a?b", "b", true, true},
    {"a{2}", "aa", true, true},
    {"a{2}", "aaa", false, true},
    {"a{2,}", "aaaa", true, true},
    {"a{,2}b", "aab", true, true},
    {"a{1,3}", "aaaa", false, true},
    {"a{0}b", "b", true, true},
    {"(ab|c){2,3}", "abcab", true, true},
    {"a{x}", "a{x}", true, true},

    {"a*?b+?", "aabb", true, true},
    {"(?:ab)+", "abab", true, true},
    {"a|", "", true, true},
    {"a||b", "b", true, true},
    {"(a|b|c|d)e", "de", true, true},
    {"(a*)*", "aaa", true, true},
    {"(a*)*b", "aaac", false, false},
    {"((((((a{0}){999}){999}){999}){999}){999}){999}x", "x", true, true}, /* 1e18 copies of nothing */
    {"(a|aa)+$", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", false, false},
    {"^a$", "a", true, true},
    {"a$b", "ab", false, false},
    {"x^a", "xa", false, false},
    {".", "\n", false, false},
    {"a\\nb", "a\nb", true, true},
    {"h\\.(0|1[0-9])\\.attn", "h.13.attn", true, true},
};

TEST(regex_matches_like_python) {
    for (size_t i = 0; i < PEFT__COUNT(regex_cases); i++) {
        const regex_case *c = &regex_cases[i];
        bool full, start;
        CHECK_OK(peft__regex_match(c->pattern, c->text, true, &full));
        CHECK_OK(peft__regex_match(c->pattern, c->text, false, &start));
        if (full != c->full || start != c->start) { CHECK_STR(c->pattern, c->text); }
    }
}

TEST(regex_refuses_by_name) {
    static const struct { const char *pattern; peft_status code; const char *part; } bad[] = {
        {"(a)\\1", PEFT_E_UNSUPPORTED, "\"\\1\" is not supported at position 4"},
        {"(?=a)b", PEFT_E_UNSUPPORTED, "\"(?=\" is not supported"},
        {"(?!a)", PEFT_E_UNSUPPORTED, "\"(?!\""},
        {"(?i)a", PEFT_E_UNSUPPORTED, "\"(?i\""},
        {"\\bq", PEFT_E_UNSUPPORTED, "\"\\b\" is not supported"},
        {"(a", PEFT_E_INVALID, "a \"(\" is not closed"},
        {"a)", PEFT_E_INVALID, "a \")\" without its \"(\" at position 1"},
        {"[a", PEFT_E_INVALID, "a \"[\" is not closed"},
        {"[z-a]", PEFT_E_INVALID, "bad range"},
        {"*a", PEFT_E_INVALID, "nothing to repeat"},
        {"a**", PEFT_E_INVALID, "a repetition of a repetition"},
        {"a{3,1}", PEFT_E_INVALID, "bad counts"},
        {"a{2000}", PEFT_E_INVALID, "bad counts"},
        {"a\\", PEFT_E_INVALID, "ends in a backslash"},
        {"[a\\", PEFT_E_INVALID, "ends in a backslash"},
        {"(((((((((((((((((((((a)))))))))))))))))))))", PEFT_E_UNSUPPORTED, "nested too deeply"},
        {"((a{99}){99}){99}", PEFT_E_UNSUPPORTED, "it is too long"},
    };
    bool out;
    for (size_t i = 0; i < PEFT__COUNT(bad); i++) {
        CHECK_STATUS(peft__regex_match(bad[i].pattern, "a", true, &out), bad[i].code);
        CHECK_ERROR_HAS(bad[i].part);
        CHECK_ERROR_HAS(bad[i].pattern);
    }
}
