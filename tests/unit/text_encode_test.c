/* text_encode_test.c - ids of small vocabularies worked out by hand, decoding, streaming, and a check of the two ways of
 * merging against a third. */
#include "text_build.h"

TEST(text_encode_bytes) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    CHECK_OK(text_open(mem, TEXT_BYTES, NULL, &t));
    CHECK_INT(peft__tokenizer_size(t), 14);
    CHECK_STR(text_ids(t, "", 0), "");
    CHECK_STR(text_ids(t, "abc", 0), "9");
    CHECK_STR(text_ids(t, "aabcb", 0), "0 9 1");
    CHECK_STR(text_ids(t, "ab ab", 0), "8 11");
    CHECK_STR(text_ids(t, " abc", 0), "3 9"); /* "ab" and "abc" come before the space is joined */
    CHECK_STR(text_ids(t, "c  a\n", 0), "2 3 10 4");
    CHECK_STR(text_ids(t, "\xC3\xA9", 0), "6 7");
    CHECK_STR(text_ids(t, "a1b", 0), "0 5 1");
    CHECK_STR(text_ids(t, "azb", 0), "8"); /* no token for z, no unknown token: as if it were not there */
    CHECK_STR(text_ids_of(t, "a\xA9", 2, 0), "0 7");
    CHECK_INT(peft__tokenizer_id(t, "abc", 3), 9);
    CHECK_INT(peft__tokenizer_id(t, "abd", 3), -1);
    CHECK_INT(peft__tokenizer_bos(t), -1);
    peft__tokenizer_free(t);
}

TEST(text_encode_added_tokens) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    CHECK_OK(text_open(mem, TEXT_BYTES, "{\"eos_token\":{\"content\":\"<|end|>\"},\"add_eos_token\":true}", &t));
    CHECK_STR(text_ids(t, "a <x>b", 0), "0 13 1");                           /* the space is the token's: lstrip */
    CHECK_STR(text_ids(t, "a<|end|> \nb", PEFT_TOKENIZE_SPECIAL), "0 12 1"); /* rstrip */
    CHECK_STR(text_ids(t, "a<|end|>", 0), "0");                              /* its characters are no tokens here */
    CHECK_STR(text_ids(t, "a", PEFT_TOKENIZE_BOS_EOS), "0 12");
    CHECK_INT(peft__tokenizer_eos(t), 12);
    CHECK(peft__tokenizer_is_eog(t, 12));
    CHECK(!peft__tokenizer_is_eog(t, 13));
    int32_t ids[] = {0, 12, 13, 1};
    CHECK_STR(text_of(t, ids, 4, 0), "a<x>b");
    CHECK_STR(text_of(t, ids, 4, PEFT_TOKENIZE_SPECIAL), "a<|end|><x>b");
    int32_t bad = 14;
    CHECK_STR(text_of(t, &bad, 1, 0), "failed");
    CHECK_ERROR_HAS("token id 14, expected 0 to 13");
    peft__tokenizer_free(t);
}

TEST(text_encode_longest_added_token_wins) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    static const char added[] =
        TEXT_JSON("[{\"id\":12,\"content\":\"<a\"},{\"id\":13,\"content\":\"<a>\"},"
                  "{\"id\":14,\"content\":\"ab\",\"single_word\":true}]",
                  "null", TEXT_BYTES_PRE, "null", "null", TEXT_BPE(TEXT_BYTES_VOCAB, TEXT_BYTES_MERGES, ""));
    static const char clash[] =
        TEXT_JSON("[{\"id\":8,\"content\":\"ab\",\"single_word\":true}]", "null", TEXT_BYTES_PRE, "null", "null",
                  TEXT_BPE(TEXT_BYTES_VOCAB, TEXT_BYTES_MERGES, ""));
    CHECK_OK(text_open(mem, added, NULL, &t));
    CHECK_STR(text_ids(t, "<a><ab", 0), "13 12 1");
    peft__tokenizer_free(t);
    CHECK_OK(text_open(mem, clash, NULL, &t));
    CHECK_STR(text_ids(t, "ab abc 1ab,ab", 0), "8 3 9 3 5 8 8"); /* by merging inside words, by itself alone */
    peft__tokenizer_free(t);
}

TEST(text_encode_spm) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    CHECK_OK(text_open(mem, TEXT_SPM, NULL, &t));
    CHECK_STR(text_ids(t, "", 0), "");
    CHECK_STR(text_ids(t, "ab", 0), "10");
    CHECK_STR(text_ids(t, " ab", 0), "5 10");
    CHECK_STR(text_ids(t, "a b  a", 0), "8 5 7 5 8");
    CHECK_STR(text_ids(t, "\xC3\xA9", 0), "5 3 4");        /* by bytes */
    CHECK_STR(text_ids(t, "zz\xC3\xA9z", 0), "5 0 3 4 0"); /* unknown ones are one token */
    CHECK_STR(text_ids(t, "a", PEFT_TOKENIZE_BOS_EOS), "1 8");
    CHECK_STR(text_ids(t, "a</s>b", PEFT_TOKENIZE_SPECIAL), "8 2 5 7"); /* every stretch gets its space */
    CHECK_INT(peft__tokenizer_bos(t), 1);
    int32_t ids[] = {1, 10, 5, 7, 3, 4};
    CHECK_STR(text_of(t, ids, 6, 0), "ab b\xC3\xA9");
    CHECK_STR(text_of(t, ids, 6, PEFT_TOKENIZE_SPECIAL), "<s> ab b\xC3\xA9");
    peft__tokenizer_free(t);
}

TEST(text_encode_metaspace_first) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    static const char json[] = TEXT_JSON(
        TEXT_SPM_ADDED, "null",
        "{\"type\":\"Metaspace\",\"replacement\":\"" TEXT_MARK "\",\"prepend_scheme\":\"first\",\"split\":true}",
        "null", "{\"type\":\"Metaspace\",\"replacement\":\"" TEXT_MARK "\",\"prepend_scheme\":\"first\"}",
        TEXT_BPE(TEXT_SPM_VOCAB, TEXT_SPM_MERGES, ",\"unk_token\":\"<unk>\""));
    CHECK_OK(text_open(mem, json, NULL, &t));
    CHECK_STR(text_ids(t, "ab</s>ab", PEFT_TOKENIZE_SPECIAL),
              "10 2 9");                    /* a space in front of the first stretch only */
    CHECK_STR(text_ids(t, " ab", 0), "10"); /* and not where there is one */
    int32_t ids[] = {10, 9};
    CHECK_STR(text_of(t, ids, 2, 0), "abab");
    peft__tokenizer_free(t);
}

TEST(text_encode_prefix_nfc_and_whole_words) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    static const char json[] =
        TEXT_JSON("[]", "{\"type\":\"NFC\"}", "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}", "null", "null",
                  TEXT_BPE("{\"a\":0,\"b\":1,\"\xC4\xA0\":2,\"\xC3\x83\":3,\"\xC2\xA9\":4,\"\xC4\xA0"
                           "ba\":5,\"ba\":6}",
                           "[]", ",\"ignore_merges\":true"));
    CHECK_OK(text_open(mem, json, NULL, &t));
    CHECK_STR(text_ids(t, "b", 0), "2 1");
    CHECK_STR(text_ids(t, "ba", 0), "5");  /* the word is a token, though no merge makes it */
    CHECK_STR(text_ids(t, " ba", 0), "5"); /* no second space */
    CHECK_STR(text_ids(t, "e\xCC\x81", 0), "2 3 4");
    peft__tokenizer_free(t);
}

/* A text of every byte comes back whole, at once and one token after the other. */
TEST(text_encode_round_trip_and_stream) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    peft__str json, text, whole, parts;
    peft__vec ids;
    peft__detok d;
    peft__rng rng = {7, 0};
    peft__str_init(&json, mem);
    peft__str_init(&text, mem);
    peft__str_init(&whole, mem);
    peft__str_init(&parts, mem);
    peft__vec_init(&ids, mem, sizeof(int32_t));
    peft__str_puts(&json,
                   "{\"pre_tokenizer\":" TEXT_BYTES_PRE ",\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{");
    for (uint32_t b = 0; b < 256; b++) {
        char c[4];
        uint32_t cp = peft__tok_byte_char(b);
        CHECK_INT(peft__tok_char_byte(cp), b);
        size_t n = peft__utf8_write(cp, c);
        bool escape = b == '"' || b == '\\';
        peft__str_putf(&json, "%s\"%s%.*s\":%u", b > 0 ? "," : "", escape ? "\\" : "", (int)n, c, b);
    }
    peft__str_puts(&json, "}}}");
    CHECK_OK(peft__str_status(&json));
    CHECK_OK(text_open(mem, json.data, NULL, &t));
    for (int i = 0; i < 4000; i++) {
        char c[4];
        uint32_t r = peft__rng_u32(&rng);
        if (r % 3 == 0) {
            peft__str_putc(&text, (char)(unsigned char)(r >> 8 & 255));
        } else {
            peft__str_put(&text, c,
                          peft__utf8_write(r % 3 == 1 ? 0x4E00 + (r >> 8) % 5000 : 0x1F600 + (r >> 8) % 64, c));
        }
    }
    CHECK_OK(peft__tokenizer_encode(t, text.data, text.len, 0, &ids));
    CHECK_INT(ids.len, text.len);
    CHECK_OK(peft__tokenizer_decode(t, ids.data, ids.len, 0, &whole));
    CHECK_INT(whole.len, text.len);
    CHECK_MEM(whole.data, text.data, text.len);
    peft__detok_init(&d, t, 0);
    for (size_t i = 0; i < ids.len; i++) {
        CHECK_OK(peft__detok_put(&d, PEFT__VEC_AT(&ids, int32_t, i), &parts));
        CHECK(d.held_len <= 3);
    }
    CHECK_OK(peft__detok_end(&d, &parts));
    CHECK_INT(parts.len, text.len);
    CHECK_MEM(parts.data, text.data, text.len);
    peft__vec_free(&ids);
    peft__str_free(&json);
    peft__str_free(&text);
    peft__str_free(&whole);
    peft__str_free(&parts);
    peft__tokenizer_free(t);
}

TEST(text_detok_holds_characters_back) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    peft__str s;
    peft__detok d;
    peft__str_init(&s, mem);
    CHECK_OK(text_open(mem, TEXT_SPM, NULL, &t));
    peft__detok_init(&d, t, 0);
    CHECK_OK(peft__detok_put(&d, 1, &s)); /* <s> is not written and does not use up the first space */
    CHECK_OK(peft__detok_put(&d, 8, &s));
    CHECK_STR(peft__str_c(&s), "a");
    CHECK_OK(peft__detok_put(&d, 3, &s));
    CHECK_STR(peft__str_c(&s), "a");
    CHECK_STATUS(peft__detok_put(&d, 99, &s), PEFT_E_INVALID);
    CHECK_STR(peft__str_c(&s), "a");
    CHECK_OK(peft__detok_put(&d, 4, &s));
    CHECK_STR(peft__str_c(&s), "a\xC3\xA9");
    CHECK_OK(peft__detok_put(&d, 3, &s));
    CHECK_OK(peft__detok_put(&d, 8, &s)); /* not what the byte was waiting for: both come out */
    CHECK_STR(peft__str_c(&s), "a\xC3\xA9\xC3 a");
    CHECK_OK(peft__detok_put(&d, 3, &s));
    CHECK_OK(peft__detok_end(&d, &s));
    CHECK_STR(peft__str_c(&s), "a\xC3\xA9\xC3 a\xC3");
    peft__str_free(&s);
    peft__tokenizer_free(t);
}

/* ---- merging ---- */

enum { BPE_LETTERS = 4 };

/* The plainest merging there is: look through all neighbours for the best pair, again and again. */
static size_t bpe_plain(const peft__tokenizer *t, int32_t *ids, size_t n) {
    for (;;) {
        const peft__merge *best = NULL;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            for (size_t k = 0; k < t->merges.len; k++) {
                const peft__merge *m = &PEFT__VEC_AT(&t->merges, peft__merge, k);
                bool same = m->left == ids[i] && m->right == ids[i + 1];
                if (same && (best == NULL || m->rank < best->rank)) {
                    best = m;
                    at = i;
                }
            }
        }
        if (best == NULL) { return n; }
        ids[at] = best->result;
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        n--;
    }
}

/* Merges of letters a to d in random order; a merge may make a token that another one makes too. */
static peft_status bpe_random(peft__mem *mem, peft__rng *rng, peft__tokenizer **out) {
    peft_status st = PEFT_OK;
    peft__tokenizer *t = NULL;
    TRY(peft__tok_create(mem, PEFT__TOK_BYTES, "test", &t));
    TRY(peft__tok_reserve(t, 300, "test"));
    size_t n = BPE_LETTERS;
    for (size_t i = 0; i < n; i++) { TRY(peft__tok_set(t, i, &"abcd"[i], 1, PEFT__TOKEN_NORMAL, 0)); }
    for (int tries = 0; tries < 200 && n < 60; tries++) {
        const peft__token *l = &t->tokens[peft__rng_below(rng, n)], *r = &t->tokens[peft__rng_below(rng, n)];
        if (l->len + r->len > 12) { continue; }
        char *text = peft__arena_printf(&t->arena, "%.*s%.*s", (int)l->len, l->text, (int)r->len, r->text);
        if (text == NULL) { FAIL(PEFT_E_NOMEM, "no memory"); }
        if (peft__tokenizer_id(t, text, strlen(text)) < 0) {
            TRY(peft__tok_set(t, n++, text, strlen(text), PEFT__TOKEN_NORMAL, 0));
        }
        TRY(peft__tok_merge(t, l->text, l->len, r->text, r->len, "test"));
    }
    TRY(peft__tok_finish(t, "test"));
    *out = t;
    t = NULL;
out:
    peft__tokenizer_free(t);
    return st;
}

TEST(text_bpe_short_and_long_words_merge_alike) {
    peft__mem *mem = runner_mem();
    peft__rng rng = {3, 0};
    for (int round = 0; round < 40; round++) {
        peft__tokenizer *t = NULL;
        peft__bpe_work w;
        int32_t plain[400];
        CHECK_OK(bpe_random(mem, &rng, &t));
        peft__bpe_init(&w, mem);
        for (size_t len = 1; len <= 300; len += 1 + len / 8) {
            CHECK_OK(peft__bpe_reserve(&w, len));
            for (size_t i = 0; i < len; i++) { plain[i] = w.ids[i] = (int32_t)peft__rng_below(&rng, BPE_LETTERS); }
            w.n = len;
            size_t n = bpe_plain(t, plain, len);
            CHECK_OK(peft__bpe_run(t, &w));
            CHECK_INT(w.n, n);
            CHECK_MEM(w.ids, plain, n * sizeof *plain);
        }
        peft__bpe_free(&w);
        peft__tokenizer_free(t);
    }
}
