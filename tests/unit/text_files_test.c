/* text_files_test.c - which file is read, the other formats, and files that are damaged or ask for too much. */
#include "text_build.h"

/* Opens a damaged or unusual tokenizer.json and frees it should it open. */
static peft_status files_try(peft__mem *mem, const char *json) {
    peft__tokenizer *t = NULL;
    peft_status st = text_open(mem, json, NULL, &t);
    peft__tokenizer_free(t);
    return st;
}

#define FILES_MODEL    TEXT_BPE(TEXT_BYTES_VOCAB, TEXT_BYTES_MERGES, "")
#define FILES_PRE(pre) TEXT_JSON("[]", "null", pre, "null", "null", FILES_MODEL)
#define FILES_TEMPLATE(pair)                                                                                              \
    TEXT_JSON("[]", "null", "null",                                                                                     \
              "{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\"}}],\"pair\":[" pair "]}", "null", FILES_MODEL)

TEST(text_json_refuses_with_the_culprit) {
    peft__mem *mem = runner_mem();
    static const struct {
        const char *json;
        peft_status code;
        const char *says;
    } cases[] = {
        {"[]", PEFT_E_FORMAT, "no object \"model\""},
        {"{\"model\":{\"type\":\"WordLevel\",\"vocab\":{}}}", PEFT_E_UNSUPPORTED, "kind \"WordLevel\""},
        {"{\"model\":{\"type\":\"BPE\",\"merges\":[]}}", PEFT_E_FORMAT, "no object \"vocab\""},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", PEFT_E_FORMAT, "no list \"merges\""},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", PEFT_E_FORMAT, "vocabulary is empty"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", PEFT_E_FORMAT,
         "id 0 is given to two"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", PEFT_E_FORMAT, "the id of \"a\""},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":900000000},\"merges\":[]}}", PEFT_E_FORMAT, "the id of \"a\""},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":\"0\"},\"merges\":[]}}", PEFT_E_FORMAT, "the id of \"a\""},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}", PEFT_E_FORMAT,
         "merge 0 \"a a\": what it makes is not in the vocabulary"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"z a\"]}}", PEFT_E_FORMAT, "its left part"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\",\"z\"]]}}", PEFT_E_FORMAT,
         "its right part"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"aa\"]}}", PEFT_E_FORMAT, "merge 0 is \"aa\""},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[7]}}", PEFT_E_FORMAT, "merge 0 is neither"},
        {"{\"model\":{\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\",\"vocab\":{\"a\":0},\"merges\":[]}}",
         PEFT_E_UNSUPPORTED, "end_of_word_suffix"},
        {"{\"added_tokens\":[{\"id\":1}],\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}",
         PEFT_E_FORMAT, "entry 0 has no \"content\""},
        {"{\"added_tokens\":[{\"id\":0,\"content\":\"b\"}],\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":["
         "]}}",
         PEFT_E_FORMAT, "added token \"b\" has the id 0 of \"a\""},
        {TEXT_JSON("[]", "{\"type\":\"ByteLevel\"}", "null", "null", "null", FILES_MODEL), PEFT_E_UNSUPPORTED,
         "normalizer \"ByteLevel\""},
        {FILES_PRE("{\"type\":\"UnicodeScripts\"}"), PEFT_E_UNSUPPORTED, "pre_tokenizer \"UnicodeScripts\""},
        {FILES_PRE("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a-z]+\"},\"behavior\":\"Isolated\"}"),
         PEFT_E_UNSUPPORTED, "splits by [a-z]+, which is not among"},
        {FILES_PRE("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{N}\"},\"behavior\":\"Removed\"}"),
         PEFT_E_UNSUPPORTED, "pre_tokenizer \"Split\""},
        {FILES_PRE("{\"type\":\"Split\"}"), PEFT_E_FORMAT, "has no \"pattern\""},
        {FILES_PRE("{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":\"Digits\"}]}"),
         PEFT_E_UNSUPPORTED, "pre_tokenizer \"Digits\""},
        {TEXT_JSON("[]", "null", "null", "{\"type\":\"Odd\"}", "null", FILES_MODEL), PEFT_E_UNSUPPORTED,
         "post_processor \"Odd\""},
        {TEXT_JSON("[]", "null", "null", "{\"type\":\"BertProcessing\",\"cls\":[\"x\",99],\"sep\":[\"y\",1]}", "null",
                   FILES_MODEL),
         PEFT_E_FORMAT, "adds token 99"},
        {FILES_TEMPLATE("{\"Sequence\":{\"id\":\"A\"}},{\"Text\":{\"id\":\"B\"}}"), PEFT_E_FORMAT, "neither a token nor text A or B"},
        {FILES_TEMPLATE("{\"Sequence\":{\"id\":\"A\"}},{\"Sequence\":{\"id\":\"B\"}},{\"Sequence\":{\"id\":\"A\"}}"), PEFT_E_FORMAT,
         "text A 2 times and B 1 times"},
    };
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        CHECK_STATUS(files_try(mem, cases[i].json), cases[i].code);
        CHECK_ERROR_HAS(cases[i].says);
        CHECK_ERROR_HAS("tokenizer.json");
    }
}

/* A prefix of a good file is an error, never a crash. */
TEST(text_json_cut_off_anywhere) {
    peft__mem *mem = runner_mem();
    const char *dir = runner_tmpdir(), *path = runner_path(dir, "tokenizer.json");
    for (size_t n = 0; n < sizeof TEXT_SPM - 1; n += 7) {
        peft__tokenizer *t = NULL;
        CHECK_OK(peft__save_text(mem, path, TEXT_SPM, n));
        CHECK_STATUS(peft__tokenizer_open(mem, path, &t), PEFT_E_FORMAT);
    }
}

TEST(text_open_finds_files) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    const char *dir = runner_tmpdir();
    CHECK_STATUS(peft__tokenizer_open(mem, runner_path(dir, "nothing"), &t), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("no such file");
    CHECK_STATUS(peft__tokenizer_open(mem, dir, &t), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("no tokenizer there");
    CHECK(!peft__tokenizer_probe(dir));
    CHECK_OK(text_write(mem, dir, "vocab.txt", "[PAD]\n"));
    CHECK_STATUS(peft__tokenizer_open(mem, dir, &t), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("unknown token of WordPiece is not in the vocabulary");
    CHECK(peft__tokenizer_probe(dir));
    CHECK_OK(peft__file_remove(runner_path(dir, "vocab.txt")));
    CHECK(!peft__tokenizer_probe(dir));
    CHECK_OK(text_write(mem, dir, "odd.bin", "x"));
    CHECK_STATUS(peft__tokenizer_open(mem, runner_path(dir, "odd.bin"), &t), PEFT_E_UNSUPPORTED);
    CHECK_OK(text_write(mem, dir, "tokenizer.json", TEXT_BYTES));
    CHECK(peft__tokenizer_probe(dir));
    CHECK(peft__tokenizer_probe(runner_path(dir, "tokenizer.json")));
    CHECK(!peft__tokenizer_probe(runner_path(dir, "odd.bin")));
    CHECK_OK(peft__tokenizer_open(mem, runner_path(dir, "tokenizer.json"), &t));
    CHECK_STR(text_ids(t, "abc", 0), "9");
    peft__tokenizer_free(t);
}

TEST(text_gpt2_files) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    const char *dir = runner_tmpdir();
    CHECK_OK(text_write(mem, dir, "vocab.json", "{\"a\":0,\"b\":1,\"ab\":2,\"<|endoftext|>\":3}"));
    CHECK_OK(text_write(mem, dir, "merges.txt", "#version: 0.2\r\na b\r\n"));
    CHECK_OK(peft__tokenizer_open(mem, dir, &t));
    CHECK_STR(text_ids(t, "abab<|endoftext|>", PEFT_TOKENIZE_SPECIAL), "2 2 3");
    CHECK_INT(peft__tokenizer_bos(t), 3);
    CHECK_INT(peft__tokenizer_eos(t), 3);
    peft__tokenizer_free(t);
    CHECK_OK(text_write(mem, dir, "tokenizer_config.json",
                        "{\"eos_token\":\"<e>\",\"bos_token\":\"<|endoftext|>\",\"add_bos_token\":true,"
                        "\"added_tokens_decoder\":{\"4\":{\"content\":\"<e>\",\"special\":true}}}"));
    CHECK_OK(text_write(mem, dir, "generation_config.json", "{\"eos_token_id\":[4,3]}"));
    CHECK_OK(peft__tokenizer_open(mem, runner_path(dir, "merges.txt"), &t));
    CHECK_INT(peft__tokenizer_size(t), 5);
    CHECK_INT(peft__tokenizer_eos(t), 4);
    CHECK(peft__tokenizer_is_eog(t, 3) && peft__tokenizer_is_eog(t, 4));
    CHECK_STR(text_ids(t, "a<e>", PEFT_TOKENIZE_SPECIAL | PEFT_TOKENIZE_BOS_EOS), "3 0 4");
    peft__tokenizer_free(t);
    CHECK_OK(text_write(mem, dir, "merges.txt", "a b\nb z\n"));
    CHECK_STATUS(peft__tokenizer_open(mem, dir, &t), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("merges.txt: merge 1 \"b z\": its right part");
}

/* ---- tokenizer.model ---- */

/* unk 0, <s> 1, </s> 2, U+2581 3, a 4, b 5, ab 6 (score -2), U+2581 a 7 (score -1), "x x" of the user 8. */
static void spm_put_model(peft__str *s, const char *trainer, size_t trainer_len, const char *normalizer, size_t len) {
    text_spm_piece(s, "<unk>", 0, 2);
    text_spm_piece(s, "<s>", 0, 3);
    text_spm_piece(s, "</s>", 0, 3);
    text_spm_piece(s, TEXT_MARK, -5, 1);
    text_spm_piece(s, "a", -6, 1);
    text_spm_piece(s, "b", -7, 1);
    text_spm_piece(s, "ab", -2, 1);
    text_spm_piece(s, TEXT_MARK "a", -1, 1);
    text_spm_piece(s, "x" TEXT_MARK "x", 0, 4);
    text_spm_put(s, 0x12, trainer, trainer_len);
    text_spm_put(s, 0x1A, normalizer, len);
}

static peft_status spm_try(peft__mem *mem, const char *trainer, size_t trainer_len, const char *normalizer, size_t len,
                           peft__tokenizer **out) {
    const char *path = runner_path(runner_tmpdir(), "tokenizer.model");
    peft__str s;
    peft__str_init(&s, mem);
    spm_put_model(&s, trainer, trainer_len, normalizer, len);
    peft_status st = peft__save_text(mem, path, peft__str_c(&s), s.len);
    peft__str_free(&s);
    return st != PEFT_OK ? st : peft__tokenizer_open(mem, path, out);
}

TEST(text_spm_model) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    CHECK_OK(spm_try(mem, "\x18\x02", 2, "\x20\x00", 2, &t)); /* BPE, spaces are kept */
    CHECK_STR(text_ids(t, "ab", 0), "7 5");                   /* the better score merges first */
    CHECK_STR(text_ids(t, "bab", 0), "3 5 6");
    CHECK_STR(text_ids(t, "a  b", 0), "7 3 3 5");
    CHECK_STR(text_ids(t, "ax xa", 0), "7 8 7");
    CHECK_STR(text_ids(t, "zzz", 0), "3 0");
    CHECK_STR(text_ids(t, "a", PEFT_TOKENIZE_BOS_EOS), "1 7");
    peft__tokenizer_free(t);
    CHECK_OK(spm_try(mem, "\x18\x02", 2, "", 0, &t)); /* the defaults squeeze */
    CHECK_STR(text_ids(t, "  a   b ", 0), "7 3 5");
    CHECK_STR(text_ids(t, "   ", 0), "");
    peft__tokenizer_free(t);
    CHECK_OK(spm_try(mem, "\x18\x02", 2, "\x18\x00", 2, &t)); /* no space in front */
    CHECK_STR(text_ids(t, "ab", 0), "6");
    peft__tokenizer_free(t);
}

TEST(text_spm_model_refused) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    CHECK_STATUS(spm_try(mem, "\x18\x04", 2, "", 0, &t), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("kind character");
    CHECK_STATUS(spm_try(mem, "\x18\x02", 2, "\x0A\x04nfkc\x12\x01x", 9, &t), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("its trie has 0 bytes, and is 1 bytes in all");
    const char *path = runner_path(runner_tmpdir(), "a.model");
    static const struct {
        const char *bytes;
        size_t len;
        const char *says;
    } cases[] = {
        {"", 0, "no pieces"},
        {"\x0A\x7Fx", 3, "longer than the message"},
        {"\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", 11, "longer than the message"},
        {"\x0B", 1, "wire type 3"},
        {"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 11, "tag is cut off"},
        {"\x0A\x02\x10\x00\x12\x02\x18\x02", 8, "piece 0 has no text"},
    };
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        CHECK_OK(peft__save_text(mem, path, cases[i].bytes, cases[i].len));
        CHECK_STATUS(peft__tokenizer_open(mem, path, &t), PEFT_E_FORMAT);
        CHECK_ERROR_HAS(cases[i].says);
    }
}

/* ---- GGUF ---- */

typedef struct files_gguf { /* what to write; NULL or 0: left out */
    const char *model, *pre;
    const char *const *tokens;
    size_t count;
    const int32_t *types;
    const float *scores;
    const char *merge;
    int64_t eos;
} files_gguf;

static peft_status gguf_try(peft__mem *mem, const files_gguf *f, peft__tokenizer **out) {
    const char *path = runner_path(runner_tmpdir(), "m.gguf");
    peft__gguf_out w;
    peft__gguf_out_init(&w, mem);
    if (f->model != NULL) { peft__gguf_put_text(&w, "tokenizer.ggml.model", f->model, strlen(f->model)); }
    if (f->pre != NULL) { peft__gguf_put_text(&w, "tokenizer.ggml.pre", f->pre, strlen(f->pre)); }
    if (f->count > 0) { peft__gguf_begin_str_array(&w, "tokenizer.ggml.tokens", f->count); }
    for (size_t i = 0; i < f->count; i++) { peft__gguf_array_str(&w, f->tokens[i], strlen(f->tokens[i])); }
    if (f->types != NULL) {
        peft__gguf_put_array(&w, "tokenizer.ggml.token_type", PEFT__GGUF_I32, f->count, f->types, 4 * f->count);
    }
    if (f->scores != NULL) {
        peft__gguf_put_array(&w, "tokenizer.ggml.scores", PEFT__GGUF_F32, f->count, f->scores, 4 * f->count);
    }
    if (f->merge != NULL) {
        peft__gguf_begin_str_array(&w, "tokenizer.ggml.merges", 1);
        peft__gguf_array_str(&w, f->merge, strlen(f->merge));
    }
    if (f->eos >= 0) { peft__gguf_put_u32(&w, "tokenizer.ggml.eos_token_id", (uint32_t)f->eos); }
    peft_status st = peft__gguf_write(&w, mem, path, NULL, 0);
    peft__gguf_out_free(&w);
    return st != PEFT_OK ? st : peft__tokenizer_open(mem, path, out);
}

TEST(text_gguf_bytes_and_spm) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    static const char *const bytes[] = {"a", "b", "ab", "<|im_end|>"};
    static const int32_t types[] = {1, 1, 1, 3};
    files_gguf f = {
        .model = "gpt2", .pre = "smollm", .tokens = bytes, .count = 4, .types = types, .merge = "a b", .eos = 3};
    CHECK_OK(gguf_try(mem, &f, &t));
    CHECK_STR(text_ids(t, "abab<|im_end|>", PEFT_TOKENIZE_SPECIAL), "2 2 3");
    CHECK(peft__tokenizer_is_eog(t, 3));
    peft__tokenizer_free(t);
    f.eos = 0xFFFFFFFF; /* how a file says that there is none */
    CHECK_OK(gguf_try(mem, &f, &t));
    CHECK_INT(peft__tokenizer_eos(t), -1);
    peft__tokenizer_free(t);

    static const char *const spm[] = {"<unk>", "<s>", "</s>", "<0x7A>", TEXT_MARK, "a", "b", "ab", TEXT_MARK "a"};
    static const float scores[] = {0, 0, 0, 0, -5, -6, -7, -1, -2};
    files_gguf g = {.model = "llama", .tokens = spm, .count = 9, .scores = scores, .eos = -1};
    CHECK_OK(gguf_try(mem, &g, &t)); /* without types: bytes are known by their look, ids are the usual ones */
    CHECK_STR(text_ids(t, "ab az", PEFT_TOKENIZE_BOS_EOS), "1 4 7 8 3");
    CHECK_INT(peft__tokenizer_eos(t), 2);
    peft__tokenizer_free(t);
}

TEST(text_gguf_refused) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    static const char *const tokens[] = {"a", "b", "ab"};
    static const int32_t types[] = {1, 9, 1};
    static const float nan_scores[] = {0, (float)(0.0 * (1e308 * 10)), 0};
    static const struct {
        files_gguf f;
        peft_status code;
        const char *says;
    } cases[] = {
        {{.eos = -1}, PEFT_E_NOT_FOUND, "tokenizer.ggml.model is missing"},
        {{.model = "rwkv", .eos = -1}, PEFT_E_UNSUPPORTED, "of kind \"rwkv\""},
        {{.model = "bert", .tokens = tokens, .count = 3, .eos = -1}, PEFT_E_FORMAT, "unknown token of WordPiece"},
        {{.model = "t5", .tokens = tokens, .count = 3, .eos = -1}, PEFT_E_FORMAT, "tokenizer.ggml.scores is missing"},
        {{.model = "gpt2", .pre = "odd", .eos = -1}, PEFT_E_UNSUPPORTED, "tokenizer.ggml.pre is \"odd\""},
        {{.model = "gpt2", .eos = -1}, PEFT_E_FORMAT, "tokenizer.ggml.tokens is missing"},
        {{.model = "gpt2", .tokens = tokens, .count = 3, .eos = -1}, PEFT_E_FORMAT, "tokenizer.ggml.merges is missing"},
        {{.model = "llama", .tokens = tokens, .count = 3, .eos = -1},
         PEFT_E_FORMAT,
         "tokenizer.ggml.scores is missing"},
        {{.model = "gpt2", .tokens = tokens, .count = 3, .types = types, .merge = "a b", .eos = -1},
         PEFT_E_FORMAT,
         "token 1 is 9"},
        {{.model = "gpt2", .tokens = tokens, .count = 3, .merge = "a c", .eos = -1}, PEFT_E_FORMAT, "merge 0 \"a c\""},
        {{.model = "gpt2", .tokens = tokens, .count = 3, .merge = "a b", .eos = 3},
         PEFT_E_FORMAT,
         "tokenizer.ggml.eos_token_id is 3, expected less than 3"},
        {{.model = "llama", .tokens = tokens, .count = 3, .scores = nan_scores, .eos = -1},
         PEFT_E_FORMAT,
         "token 1 is NaN"},
    };
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        CHECK_STATUS(gguf_try(mem, &cases[i].f, &t), cases[i].code);
        CHECK_ERROR_HAS(cases[i].says);
    }
}
