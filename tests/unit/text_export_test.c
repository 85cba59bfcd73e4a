/* text_export_test.c - a tokenizer written in the other form gives the same ids; every failed allocation is survived. */
#include "text_build.h"

static const char export_text[] = "ab a b  abc\n<|end|> \xC3\xA9 1<x> a</s>b";

/* Writes t as a GGUF or as a folder and opens that. */
static peft_status export_again(peft__mem *mem, const peft__tokenizer *t, bool gguf, peft__tokenizer **out) {
    const char *dir = runner_tmpdir(), *path = runner_path(dir, "t.gguf");
    if (!gguf) {
        peft_status st = peft__tokenizer_to_hf(t, dir);
        return st != PEFT_OK ? st : peft__tokenizer_open(mem, dir, out);
    }
    peft_status st = text_to_gguf(t, 0, path);
    return st != PEFT_OK ? st : peft__tokenizer_open(mem, path, out);
}

static void export_round(const char *json, const char *config, bool gguf) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *a = NULL, *b = NULL, *c = NULL;
    char ids[512];
    CHECK_OK(text_open(mem, json, config, &a));
    (void)snprintf(ids, sizeof ids, "%s", text_ids(a, export_text, 3));
    CHECK_OK(export_again(mem, a, gguf, &b));
    CHECK_STR(text_ids(b, export_text, 3), ids);
    CHECK_INT(peft__tokenizer_eos(b), peft__tokenizer_eos(a));
    CHECK_INT(peft__tokenizer_bos(b), peft__tokenizer_bos(a));
    CHECK_OK(export_again(mem, b, !gguf, &c)); /* and over to the other form */
    CHECK_STR(text_ids(c, export_text, 3), ids);
    CHECK_STR(c->chat_template == NULL ? "" : c->chat_template, a->chat_template == NULL ? "" : a->chat_template);
    peft__tokenizer_free(a);
    peft__tokenizer_free(b);
    peft__tokenizer_free(c);
}

/* GGUF knows no lstrip and rstrip, so these tokens have none. */
#define EXPORT_BYTES                                                                                                \
    TEXT_JSON(                                                                                                      \
        "[{\"id\":12,\"content\":\"<|end|>\",\"special\":true},{\"id\":13,\"content\":\"<x>\",\"special\":false}]", \
        "null", TEXT_BYTES_PRE, "null", "{\"type\":\"ByteLevel\"}", TEXT_BPE(TEXT_BYTES_VOCAB, TEXT_BYTES_MERGES, ""))
#define EXPORT_CONFIG "{\"eos_token\":\"<|end|>\",\"add_eos_token\":true,\"chat_template\":\"a \\\"b\\\"\"}"

TEST(text_export_bytes) {
    export_round(EXPORT_BYTES, EXPORT_CONFIG, true);
    export_round(EXPORT_BYTES, EXPORT_CONFIG, false);
}

TEST(text_export_keeps_how_tokens_match) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *a = NULL, *b = NULL;
    CHECK_OK(text_open(mem, TEXT_BYTES, NULL, &a));
    CHECK_OK(export_again(mem, a, false, &b));
    CHECK_STR(text_ids(b, "a <x> b<|end|> a", 3), "0 13 3 1 12 0");
    peft__tokenizer_free(a);
    peft__tokenizer_free(b);
}

TEST(text_export_spm) {
    export_round(TEXT_SPM, "{\"eos_token\":\"</s>\"}", true);
    export_round(TEXT_SPM, "{\"eos_token\":\"</s>\"}", false);
}

/* A model has more rows than there are tokens: unused ones fill up, and no text is made of them. */
static void export_rows(const char *json, const char *config, size_t rows) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *a = NULL, *b = NULL;
    char ids[512], last[32];
    const char *path = runner_path(runner_tmpdir(), "rows.gguf");
    CHECK_OK(text_open(mem, json, config, &a));
    size_t count = (size_t)peft__tokenizer_size(a);
    (void)snprintf(last, sizeof last, "[PAD%zu]", rows - 1);
    (void)snprintf(ids, sizeof ids, "%s", text_ids(a, export_text, 3));
    CHECK_OK(text_to_gguf(a, rows, path));
    CHECK_OK(peft__tokenizer_open(mem, path, &b));
    CHECK_INT(peft__tokenizer_size(b), rows);
    CHECK_INT(peft__tokenizer_id(b, last, strlen(last)), rows - 1);
    CHECK_INT(b->tokens[count].type, PEFT__TOKEN_UNUSED);
    CHECK_STR(text_ids(b, export_text, 3), ids);
    (void)snprintf(ids, sizeof ids, "%s", text_ids(a, last, 3));
    CHECK_STR(text_ids(b, last, 3), ids);
    CHECK_STATUS(text_to_gguf(a, count - 1, path), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("and the model");
    peft__tokenizer_free(a);
    peft__tokenizer_free(b);
}

TEST(text_export_fills_up_rows) {
    export_rows(EXPORT_BYTES, EXPORT_CONFIG, 40);
    export_rows(TEXT_SPM, "{\"eos_token\":\"</s>\"}", 300);
}

TEST(text_export_refuses_what_gguf_cannot_say) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    static const char json[] =
        TEXT_JSON("[]", "null", "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\"}," TEXT_BYTES_PRE "]}",
                  "null", "null", TEXT_BPE(TEXT_BYTES_VOCAB, TEXT_BYTES_MERGES, ""));
    CHECK_OK(text_open(mem, json, NULL, &t));
    peft__gguf_out w;
    peft__gguf_out_init(&w, mem);
    CHECK_STATUS(peft__tokenizer_to_gguf(t, 0, &w), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("no name in GGUF");
    peft__gguf_out_free(&w);
    peft__tokenizer_free(t);
}

TEST(text_info) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    peft__str s;
    peft__str_init(&s, mem);
    CHECK_OK(text_open(mem, TEXT_SPM, "{\"eos_token\":\"</s>\"}", &t));
    CHECK_OK(peft__tokenizer_info(t, &s));
    CHECK_STR(peft__str_c(&s),
              "{\"kind\":\"sentencepiece-bpe\",\"source\":\"tokenizer.json\",\"size\":11,\"merges\":3,\"bos_id\":1,"
              "\"eos_id\":2,"
              "\"pad_id\":-1,\"unk_id\":0,\"mask_id\":-1,\"eog_ids\":[2],\"prefix_ids\":[1],\"suffix_ids\":[],"
              "\"pre_tokenizer\":null,\"chat_format\":null,\"chat_template\":null}");
    peft__str_free(&s);
    peft__tokenizer_free(t);
}

/* ---- failing allocations ---- */

static peft_status sweep_pair(const peft__tokenizer *t) {
    peft__vec v;
    peft__text_in a = {.text = export_text, .len = strlen(export_text)};
    peft__pair_rule rule = {.flags = 3, .max = 16, .truncate = PEFT__TRUNCATE_LONGEST};
    peft__vec_init(&v, t->mem, sizeof(peft__encoded));
    peft_status st = peft__tokenizer_encode_pair(t, &a, &a, &rule, &v, NULL);
    peft__vec_free(&v);
    return st;
}

/* Everything a tokenizer can do, once. */
static peft_status sweep_all(peft__mem *mem, const char *dir, const char *to) {
    peft_status st = PEFT_OK;
    peft__tokenizer *t = NULL;
    peft__vec ids;
    peft__str s;
    peft__gguf_out w;
    char text[201];
    memset(text, 'a', 200); /* a long word, for the heap */
    text[200] = '\0';
    peft__vec_init(&ids, mem, sizeof(int32_t));
    peft__str_init(&s, mem);
    peft__gguf_out_init(&w, mem);
    TRY(peft__tokenizer_open(mem, dir, &t));
    TRY(peft__tokenizer_encode(t, export_text, strlen(export_text), 3, &ids));
    TRY(peft__tokenizer_encode(t, text, 200, 3, &ids));
    TRY(peft__tokenizer_decode(t, ids.data, ids.len, 1, &s));
    TRY(peft__tokenizer_info(t, &s));
    TRY(sweep_pair(t));
    if (peft__chat_format(t) != NULL) {
        peft__chat_message m[2] = {{"user", "x", 4, 1}, {"assistant", "y", 9, 1}};
        peft__vec spans;
        peft__vec_init(&spans, mem, sizeof(size_t));
        st = peft__chat_render(t, m, 2, true, &s, &spans);
        peft__vec_free(&spans);
        TRY(st);
    }
    TRY(peft__tokenizer_to_gguf(t, 0, &w));
    TRY(peft__tokenizer_to_hf(t, to));
out:
    peft__tokenizer_free(t);
    peft__vec_free(&ids);
    peft__str_free(&s);
    peft__gguf_out_free(&w);
    return st;
}

static void sweep(const char *json, const char *config) {
    peft__mem *mem = runner_mem();
    const char *dir = runner_tmpdir(), *to = runner_tmpdir();
    CHECK_OK(text_write(mem, dir, "tokenizer.json", json));
    CHECK_OK(text_write(mem, dir, "tokenizer_config.json", config));
    CHECK_OK(text_write(mem, dir, "generation_config.json", "{\"eos_token_id\":[1,2]}"));
    size_t before = atomic_load(&mem->now), failures = 0;
    for (size_t n = 1; n < 5000; n++) {
        peft__mem_fail_after(mem, n, n % 2 == 0);
        peft_status st = sweep_all(mem, dir, to);
        peft__mem_fail_after(mem, 0, false);
        CHECK_INT(atomic_load(&mem->now), before);
        if (st == PEFT_OK) { break; }
        CHECK_INT(st, PEFT_E_NOMEM);
        failures++;
    }
    CHECK(failures >= 40 && failures < 4000);
}

#define EXPORT_WORDPIECE                                                                                             \
    TEXT_JSON("[{\"id\":3,\"content\":\"A B\",\"normalized\":true}]", "{\"type\":\"BertNormalizer\"}",                   \
              "{\"type\":\"BertPreTokenizer\"}", "null", "{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true}", \
              "{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\",\"vocab\":{\"[UNK]\":0,\"a\":1,\"##a\":2}}")
#define EXPORT_UNIGRAM                                                                                             \
    TEXT_JSON("[]",                                                                                                \
              "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Strip\",\"strip_left\":false,\"strip_right\":true}," \
              "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\" \"}]}",                           \
              "{\"type\":\"Metaspace\"}", "null", "{\"type\":\"Metaspace\"}",                                       \
              "{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"?\",0],[\"a\",-1],[\"b\",-2],[\"ab\",-2.5]]}")

TEST(text_allocations_that_fail) {
    sweep(EXPORT_WORDPIECE, "{\"unk_token\":\"[UNK]\"}");
    sweep(EXPORT_UNIGRAM, "{\"pad_token\":\"?\"}");
    sweep(EXPORT_BYTES, "{\"eos_token\":\"<|end|>\",\"chat_template\":\"<|im_start|>system\\nBe.<|im_end|>\"}");
    sweep(TEXT_SPM, "{\"eos_token\":\"</s>\",\"add_eos_token\":true}");
}
