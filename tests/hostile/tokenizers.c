/* tokenizers.c - tokenizers that mean harm: tokenizer.json of three kinds, tokenizer_config.json, a SentencePiece model byte by byte,
 * vocab.json with merges.txt, vocab.txt, the keys of a GGUF file; and unusual ones that are right. */
#include "hostile.h"

/* The ids of some texts; decoding gives them back. */
static peft_status tok_open(hostile *h, uint64_t *print) {
    static const char *const texts[] = {"", "ab", "abc ab", "a  b\n1", "\xC3\xA9 <|end|> </s> zq", "[UNK] abab"};
    peft_status st = PEFT_OK;
    peft_tokenizer *t = NULL;
    int32_t ids[64];
    size_t n = 0;
    TRY(peft_tokenizer_open(h->ctx, h->what, &t));
    if (print == NULL) { goto out; }
    *print = peft_tokenizer_size(t);
    for (size_t i = 0; i < 2 * PEFT__COUNT(texts); i++) {
        TRY(peft_tokenizer_encode(t, texts[i / 2], strlen(texts[i / 2]), i % 2 == 0 ? PEFT_TOKENIZE_SPECIAL : PEFT_TOKENIZE_BOS_EOS,
            ids, 64, &n));
        *print = hostile_hash(*print, ids, n * sizeof *ids);
    }
out:
    peft_tokenizer_free(t);
    return st;
}

static bool tok_begin(hostile *h, const char *format, const char *name, const void *data, size_t len) {
    return hostile_begin(h, format, tok_open) && hostile_write(h->dir, name, data, len) && hostile_take(h, name, false);
}

/* ---- tokenizer.json ----------------------------------------------------------------------------------------------- */

#define TOK_ID(to, status, culprit) {"an id", "\"a\":0", "\"a\":" to, status, culprit}
#define TOK_MERGE(to) {"a merge", "\"a b\"", to, PEFT_E_FORMAT, "merge"}
#define TOK_STEP(key, to, status, culprit) {"a step", "\"" key "\":", "\"" key "\":" to ",\"was\":", status, culprit}
static const hostile_swap tok_bytes_swaps[] = {
    TOK_ID("-1", PEFT_E_FORMAT, "\"a\""), TOK_ID("1.5", PEFT_E_FORMAT, "\"a\""), TOK_ID("\"0\"", PEFT_E_FORMAT, "\"a\""),
    TOK_ID("null", PEFT_E_FORMAT, "\"a\""),
    TOK_ID("true", PEFT_E_FORMAT, "\"a\""), TOK_ID("[0]", PEFT_E_FORMAT, "\"a\""), TOK_ID("{}", PEFT_E_FORMAT, "\"a\""),
    TOK_ID("1e12", PEFT_E_FORMAT, "\"a\""),
    TOK_ID("70000", PEFT_E_FORMAT, "\"a\""), TOK_ID("2147483647", PEFT_E_FORMAT, "\"a\""),
    TOK_ID("9223372036854775807", PEFT_E_FORMAT, "\"a\""),
    TOK_ID("1", PEFT_E_FORMAT, "id 1 "), {"a token twice", "\"a\":0", "\"a\":0,\"a\":14", PEFT_E_FORMAT, "\"a\""},
    TOK_MERGE("5"), TOK_MERGE("\"a\""), TOK_MERGE("\"zz b\""), TOK_MERGE("\"a zz\""), TOK_MERGE("[\"a\"]"),
    TOK_MERGE("[\"a\",\"b\",\"c\"]"), TOK_MERGE("[1,2]"),
    TOK_MERGE("null"), TOK_MERGE("\"\""), TOK_MERGE("\" \""), TOK_MERGE("{}"), TOK_MERGE("[\"a\",\"zz\"]"), TOK_MERGE("\"a c\""),
    TOK_MERGE("[]"), TOK_MERGE("true"),
    {"merges", "[\"a b\"", "5,\"was\":[\"a b\"", PEFT_E_FORMAT, "merges"},
    {"merges", "\"merges\":", "\"marges\":", PEFT_E_FORMAT, "merges"},
    {"a kind", "\"BPE\"", "\"XYZ\"", PEFT_E_UNSUPPORTED, "XYZ"}, {"a kind", "\"BPE\"", "\"\"", PEFT_E_UNSUPPORTED, "kind"},
    {"a kind", "\"BPE\"", "5", PEFT_E_FORMAT, "type"},
    {"a kind", "\"BPE\"", "{}", PEFT_E_FORMAT, "type"}, {"a kind", "\"BPE\"", "\"WordLevel\"", PEFT_E_UNSUPPORTED, "WordLevel"},
    {"a kind", "\"BPE\"", "\"Unigram\"", PEFT_E_FORMAT, "vocab"},
    {"a kind", "\"BPE\"", "\"WordPiece\"", PEFT_E_UNSUPPORTED, "ByteLevel"},
    {"no model", "\"model\":", "\"modal\":", PEFT_E_FORMAT, "model"},
    {"no model", "\"model\":", "\"model\":5,\"was\":", PEFT_E_FORMAT, "model"},
    {"no model", "\"model\":", "\"model\":[],\"was\":", PEFT_E_FORMAT, "model"},
    {"no vocabulary", "\"vocab\":", "\"vocal\":", PEFT_E_FORMAT, "vocab"},
    {"no vocabulary", "\"vocab\":", "\"vocab\":[],\"was\":", PEFT_E_FORMAT, "vocab"},
    {"no vocabulary", "\"vocab\":", "\"vocab\":5,\"was\":", PEFT_E_FORMAT, "vocab"},
    {"an option", "\"vocab\":", "\"continuing_subword_prefix\":\"##\",\"vocab\":", PEFT_E_UNSUPPORTED, "continuing_subword_prefix"},
    {"an option", "\"vocab\":", "\"end_of_word_suffix\":\"</w>\",\"vocab\":", PEFT_E_UNSUPPORTED, "end_of_word_suffix"},
    {"an option", "\"vocab\":", "\"byte_fallback\":5,\"vocab\":", PEFT_E_FORMAT, "byte_fallback"},
    {"an option", "\"vocab\":", "\"ignore_merges\":\"no\",\"vocab\":", PEFT_E_FORMAT, "ignore_merges"},
    {"an option", "\"vocab\":", "\"fuse_unk\":[],\"vocab\":", PEFT_E_FORMAT, "fuse_unk"},
    {"an option", "\"vocab\":", "\"unk_token\":5,\"vocab\":", PEFT_E_FORMAT, "unk_token"},
    {"added", "\"id\":12", "\"id\":-12", PEFT_E_FORMAT, "<|end|>"}, {"added", "\"id\":12", "\"id\":1e10", PEFT_E_FORMAT, "<|end|>"},
    {"added", "\"id\":12", "\"id\":\"12\"", PEFT_E_FORMAT, "<|end|>"},
    {"added", "\"id\":12", "\"id\":99999999", PEFT_E_FORMAT, "<|end|>"}, {"added", "\"id\":12,", "", PEFT_E_FORMAT, "<|end|>"},
    {"added", "\"id\":12", "\"id\":0", PEFT_E_FORMAT, "<|end|>"},
    {"added", "\"id\":12", "\"id\":13", PEFT_E_FORMAT, "<x>"},
    {"added", "\"content\":\"<|end|>\"", "\"content\":5", PEFT_E_FORMAT, "added_tokens"},
    {"added", "\"content\":\"<|end|>\"", "\"content\":\"\"", PEFT_E_FORMAT, "added_tokens"},
    {"added", "\"content\":\"<|end|>\",", "", PEFT_E_FORMAT, "added_tokens"},
    {"added", "\"special\":true", "\"special\":1", PEFT_E_FORMAT, "special"},
    {"added", "\"rstrip\":true", "\"rstrip\":\"x\"", PEFT_E_FORMAT, "rstrip"},
    {"added", "\"added_tokens\":", "\"added_tokens\":5,\"was\":", PEFT_E_FORMAT, "added_tokens"},
    {"added", "\"added_tokens\":", "\"added_tokens\":[5],\"was\":", PEFT_E_FORMAT, "added_tokens"},
    TOK_STEP("normalizer", "5", PEFT_E_FORMAT, "normalizer"), TOK_STEP("normalizer", "{\"type\":\"Nope\"}", PEFT_E_UNSUPPORTED, "Nope"),
    TOK_STEP("normalizer", "{\"type\":5}", PEFT_E_UNSUPPORTED, "normalizer"),
    TOK_STEP("normalizer", "{\"type\":\"Sequence\"}", PEFT_E_FORMAT, "Sequence"),
    TOK_STEP("normalizer", "{\"type\":\"Sequence\",\"normalizers\":5}", PEFT_E_FORMAT, "Sequence"),
    TOK_STEP("normalizer", "{\"type\":\"Replace\"}", PEFT_E_FORMAT, "Replace"),
    TOK_STEP("normalizer", "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(a+)+$\"},\"content\":\"\"}", PEFT_E_UNSUPPORTED, "(a+)+$"),
    TOK_STEP("normalizer", "{\"type\":\"Prepend\"}", PEFT_E_FORMAT, "Prepend"),
    TOK_STEP("normalizer", "{\"type\":\"Precompiled\"}", PEFT_E_FORMAT, "Precompiled"),
    TOK_STEP("normalizer", "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"!!!!\"}", PEFT_E_FORMAT, "base64"),
    TOK_STEP("normalizer", "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAA\"}", PEFT_E_FORMAT, "character map"),
    TOK_STEP("normalizer", "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"/////w==\"}", PEFT_E_FORMAT, "trie"),
    TOK_STEP("pre_tokenizer", "5", PEFT_E_FORMAT, "pre_tokenizer"),
    TOK_STEP("pre_tokenizer", "{\"type\":\"Nope\"}", PEFT_E_UNSUPPORTED, "Nope"),
    TOK_STEP("pre_tokenizer", "{\"type\":\"Split\"}", PEFT_E_FORMAT, "Split"),
    TOK_STEP("pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(x+x+)+y\"},\"behavior\":\"Isolated\"}", PEFT_E_UNSUPPORTED,
        "(x+x+)+y"),
    TOK_STEP("post_processor", "5", PEFT_E_FORMAT, "post_processor"),
    TOK_STEP("post_processor", "{\"type\":\"Nope\"}", PEFT_E_UNSUPPORTED, "Nope"),
    TOK_STEP("post_processor", "{\"type\":\"BertProcessing\",\"cls\":[\"x\",99],\"sep\":[\"y\",1]}", PEFT_E_FORMAT, "99"),
    TOK_STEP("post_processor", "{\"type\":\"BertProcessing\"}", PEFT_E_FORMAT, NULL),
    TOK_STEP("post_processor", "{\"type\":\"TemplateProcessing\"}", PEFT_E_FORMAT, NULL),
    TOK_STEP("post_processor", "{\"type\":\"TemplateProcessing\",\"single\":5}", PEFT_E_FORMAT, NULL),
    TOK_STEP("post_processor",
        "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"nobody\",\"type_id\":0}}],\"special_tokens\":{}}",
            PEFT_E_FORMAT, "nobody"),
    TOK_STEP("decoder", "5", PEFT_E_FORMAT, "decoder"), TOK_STEP("decoder", "\"ByteLevel\"", PEFT_E_FORMAT, "decoder"),
};

/* Fifty steps in each other, of which each has the next. */
static void tok_deep(hostile *h) {
    static const char step[] = "{\"type\":\"Sequence\",\"normalizers\":[", end[] = "]}";
    char text[4000];
    size_t at = (size_t)snprintf(text, sizeof text, "\"normalizer\":");
    for (int i = 0; i < 50; i++) { at += (size_t)snprintf(text + at, sizeof text - at, "%s", step); }
    for (int i = 0; i < 50; i++) { at += (size_t)snprintf(text + at, sizeof text - at, "%s", end); }
    (void)snprintf(text + at, sizeof text - at, ",\"was\":");
    const hostile_swap deep = {"fifty sequences in each other", "\"normalizer\":", text, PEFT_OK, NULL}; /* of nothing */
    hostile_swaps(h, &deep, 1);
}

static void tok_unusual(hostile *h) {
    static const struct {
        const char *what, *from, *to;
    } ways[] = {
        {"a byte order mark", "{\"version\"", "\xEF\xBB\xBF{\"version\""},
        {"spaces and line ends of Windows", "{\"version\"", "\r\n {\r\n\"version\""},
        {"another version", "\"1.0\"", "\"9.9\""},
        {"truncation and padding, which are the caller's", "\"version\"", "\"truncation\":{\"max_length\":4},\"padding\":null,\"version\""},
        {"unknown keys", "\"version\"", "\"note\":{\"a\":[null]},\"version\""}, {"dropout", "\"vocab\":", "\"dropout\":null,\"vocab\":"},
        {"merges as pairs", "\"a b\"", "[\"a\",\"b\"]"}, {"escapes", "\"abc\":9", "\"\\u0061bc\":9"},
        {"an added token with unknown keys", "\"id\":12", "\"id\":12,\"note\":5"},
    };
    char *text = malloc(h->len + 400);
    for (size_t i = 0; text != NULL && i < PEFT__COUNT(ways); i++) {
        const char *at = strstr(h->good, ways[i].from);
        int n = at == NULL ? -1 : snprintf(text, h->len + 400, "%.*s%s%s", (int)(at - h->good), h->good, ways[i].to,
            at + strlen(ways[i].from));
        if (n > 0) { hostile_taken(h, ways[i].what, text, (size_t)n); } else { hostile_holds(h, ways[i].what, false); }
    }
    free(text);
}

static void tok_json(void) {
    hostile h;
    if (tok_begin(&h, "tokenizer.json, bytes", "tokenizer.json", TEXT_BYTES, strlen(TEXT_BYTES))) {
        hostile_swaps(&h, tok_bytes_swaps, PEFT__COUNT(tok_bytes_swaps));
        tok_deep(&h);
        hostile_cuts(&h, h.len, 40, PEFT_E_FORMAT);
        tok_unusual(&h);
    }
    hostile_end(&h);
    static const hostile_swap spm[] = {
        {"template", "\"ids\":[1]", "\"ids\":[99]", PEFT_E_FORMAT, "99"}, {"template", "\"ids\":[1]", "\"ids\":[-1]", PEFT_E_FORMAT, NULL},
        {"template", "\"ids\":[1]", "\"ids\":[\"1\"]", PEFT_E_FORMAT, NULL},
        {"template", "\"ids\":[1]", "\"ids\":5", PEFT_E_FORMAT, "<s>"},
        {"template", "\"ids\":[1]", "\"ids\":[1,1,1,1,1]", PEFT_E_FORMAT, "at most 4"},
        {"template", "\"type_id\":0", "\"type_id\":-1", PEFT_E_FORMAT, "type_id"},
        {"template", "\"type_id\":0", "\"type_id\":256", PEFT_E_FORMAT, "type_id"},
        {"normalizer", "\"prepend\":", "\"propend\":", PEFT_E_FORMAT, "Prepend"},
        {"a step of another kind", "\"Prepend\"", "\"Append\"", PEFT_E_UNSUPPORTED, "Append"},
    };
    if (tok_begin(&h, "tokenizer.json, SentencePiece", "tokenizer.json", TEXT_SPM, strlen(TEXT_SPM))) {
        hostile_swaps(&h, spm, PEFT__COUNT(spm));
        hostile_cuts(&h, h.len, 20, PEFT_E_FORMAT);
    }
    hostile_end(&h);
    static const char unigram[] =
        "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"a\",-1],[\"b\",-2],[\"ab\",-2.5]]}}";
    static const hostile_swap pieces[] = {
        {"a piece", "[\"a\",-1]", "[\"a\"]", PEFT_E_FORMAT, "piece 1"},
        {"a piece", "[\"a\",-1]", "[\"a\",\"-1\"]", PEFT_E_FORMAT, "piece 1"},
        {"a piece", "[\"a\",-1]", "[5,-1]", PEFT_E_FORMAT, "piece 1"},
        {"a piece", "[\"a\",-1]", "[\"a\",1e300]", PEFT_E_FORMAT, "piece 1"},
        {"a piece", "[\"a\",-1]", "[\"a\",-1e300]", PEFT_E_FORMAT, "piece 1"}, {"a piece", "[\"a\",-1]", "{}", PEFT_E_FORMAT, "piece 1"},
        {"a piece", "[\"a\",-1]", "[\"a\",-1,0]", PEFT_E_FORMAT, "piece 1"},
        {"a piece", "[\"a\",-1]", "\"a\"", PEFT_E_FORMAT, "piece 1"}, {"a piece", "[\"a\",-1]", "null", PEFT_E_FORMAT, "piece 1"},
        {"unk", "\"unk_id\":0", "\"unk_id\":4", PEFT_E_FORMAT, "unk_id"},
        {"unk", "\"unk_id\":0", "\"unk_id\":-2", PEFT_E_FORMAT, "unk_id"},
        {"unk", "\"unk_id\":0", "\"unk_id\":\"0\"", PEFT_E_FORMAT, "unk_id"},
        {"vocab", "\"vocab\":", "\"vocab\":{},\"was\":", PEFT_E_FORMAT, "vocab"},
        {"vocab", "\"vocab\":", "\"vocab\":[],\"was\":", PEFT_E_FORMAT, NULL},
        {"option", "\"vocab\":", "\"byte_fallback\":1,\"vocab\":", PEFT_E_FORMAT, "byte_fallback"},
    };
    if (tok_begin(&h, "tokenizer.json, unigram", "tokenizer.json", unigram, sizeof unigram - 1)) { hostile_swaps(&h, pieces,
        PEFT__COUNT(pieces)); }
    hostile_end(&h);
}

/* ---- tokenizer_config.json ---------------------------------------------------------------------------------------- */

static void tok_companion(void) {
    static const char config[] =
        "{\"eos_token\":\"<|end|>\",\"bos_token\":null,\"add_bos_token\":false,"
        "\"added_tokens_decoder\":{\"12\":{\"content\":\"<|end|>\"}}}";
    static const hostile_swap swaps[] = {
        {NULL, "\"add_bos_token\":false", "\"add_bos_token\":\"no\"", PEFT_E_FORMAT, "add_bos_token"},
        {NULL, "\"add_bos_token\":false", "\"add_bos_token\":5", PEFT_E_FORMAT, "add_bos_token"},
        {NULL, "\"add_bos_token\":false", "\"add_bos_token\":[]", PEFT_E_FORMAT, "add_bos_token"},
        {NULL, "{\"eos", "[{\"eos", PEFT_E_FORMAT, NULL}, {NULL, "{\"eos", "5{\"eos", PEFT_E_FORMAT, NULL},
        /* names that are none are passed over, as those of tokens that the vocabulary has not */
        {NULL, "\"<|end|>\",\"bos", "5,\"bos", PEFT_OK, NULL}, {NULL, "\"<|end|>\",\"bos", "[],\"bos", PEFT_OK, NULL},
        {NULL, "\"<|end|>\",\"bos", "\"nobody\",\"bos", PEFT_OK, NULL},
    };
    hostile h;
    if (hostile_begin(&h, "tokenizer_config.json", tok_open) && hostile_write(h.dir, "tokenizer.json", TEXT_BYTES, strlen(TEXT_BYTES)) &&
        hostile_write(h.dir, "tokenizer_config.json", config, sizeof config - 1) && hostile_take(&h, "tokenizer_config.json", false)) {
        hostile_swaps(&h, swaps, PEFT__COUNT(swaps));
        hostile_refused(&h, "a list", "[]", 2, PEFT_E_FORMAT, "object");
        hostile_refused(&h, "nothing", "", 0, PEFT_E_FORMAT, NULL);
        hostile_cuts(&h, h.len, 10, PEFT_E_FORMAT);
    }
    hostile_end(&h);
}

/* ---- tokenizer.model: a protocol buffer, pieces of (text, score, type), a trainer_spec, a normalizer_spec -------------- */

static size_t tok_piece(char *out, const char *text, float score, int type) {
    size_t n = strlen(text);
    out[0] = 0x0A, out[1] = (char)(n + 9), out[2] = 0x0A, out[3] = (char)n;
    memcpy(out + 4, text, n);
    out[4 + n] = 0x15;
    memcpy(out + 5 + n, &score, 4);
    out[9 + n] = 0x18, out[10 + n] = (char)type;
    return 11 + n;
}

static void tok_spm(void) {
    hostile h;
    char model[400], what[64];
    size_t at[8] = {0}, n = 0;
    static const struct { const char *text; float score; int type; } pieces[] = {{"<unk>", 0, 2}, {"<s>", 0, 3}, {"</s>", 0, 3},
        {"a", -6, 1}, {"b", -7, 1}, {"ab", -2, 1}};
    for (size_t i = 0; i < PEFT__COUNT(pieces); i++) { at[i] = n, n += tok_piece(model + n, pieces[i].text, pieces[i].score,
        pieces[i].type); }
    size_t spec = n;
    memcpy(model + n, "\x12\x02\x18\x02\x1A\x02\x18\x00", 8);
    n += 8;
    if (!tok_begin(&h, "tokenizer.model", "tokenizer.model", model, n)) { hostile_end(&h); return; }
    for (size_t i = 1; i < n; i++) { /* between two pieces is a shorter model, and without a trainer_spec one of unigrams */
        bool whole = i == spec || i == spec + 4;
        for (size_t p = 0; p < PEFT__COUNT(pieces); p++) { whole = whole || i == at[p]; }
        (void)snprintf(what, sizeof what, "cut at %zu", i);
        if (!whole) { hostile_refused(&h, what, model, i, PEFT_E_FORMAT, NULL); }
    }
    for (size_t p = 0; p < PEFT__COUNT(pieces); p++) {
        static const char *const bad_texts[] = {"\xFF", "\xC3", "\xC0"};
        size_t len = strlen(pieces[p].text);
        (void)snprintf(what, sizeof what, "piece %zu", p);
        hostile_spliced(&h, "a piece of another type", at[p] + 10 + len, 1, "\x07", 1, PEFT_E_FORMAT, what);
        hostile_spliced(&h, "a piece of type 0", at[p] + 10 + len, 1, "\0", 1, PEFT_E_FORMAT, what);
        hostile_spliced(&h, "a score that is NaN", at[p] + 5 + len, 4, "\0\0\xC0\x7F", 4, PEFT_E_FORMAT, what);
        hostile_spliced(&h, "a text that is no UTF-8", at[p] + 4, 1, bad_texts[p % 3], 1, PEFT_E_FORMAT, what);
        hostile_spliced(&h, "a text longer than its piece", at[p] + 3, 1, "\x7F", 1, PEFT_E_FORMAT, NULL);
        hostile_spliced(&h, "a piece longer than the file", at[p] + 1, 1, "\xFF\xFF\xFF\xFF\x7F", 5, PEFT_E_FORMAT, NULL);
        hostile_spliced(&h, "a length of ten bytes", at[p] + 1, 1, "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", 10, PEFT_E_FORMAT, NULL);
        hostile_spliced(&h, "a group", at[p], 1, "\x0B", 1, PEFT_E_FORMAT, "wire type");
        hostile_spliced(&h, "a piece without a text", at[p] + 2, 1, "\x2A", 1, PEFT_E_FORMAT, what);
    }
    static const struct { const char *byte, *culprit; } kinds[] = {{"\x03", "kind word"}, {"\x04", "kind character"},
        {"\x05", "kind unknown"}, {"\x7F", "kind unknown"}};
    for (size_t i = 0; i < PEFT__COUNT(kinds); i++) { hostile_spliced(&h, "another kind of model", spec + 3, 1, kinds[i].byte, 1,
        PEFT_E_UNSUPPORTED, kinds[i].culprit); }
    hostile_spliced(&h, "spaces at the end", spec, 4, "\x12\x05\x18\x02\xC0\x01\x01", 7, PEFT_E_UNSUPPORTED, "spaces at the end");
    hostile_spliced(&h, "a character map of one byte", spec + 4, 4, "\x1A\x03\x12\x01x", 5, PEFT_E_FORMAT, "trie");
    hostile_spliced(&h, "a character map that claims more", spec + 4, 4, "\x1A\x06\x12\x04\xFF\xFF\xFF\x7F", 8, PEFT_E_FORMAT, "trie");
    hostile_refused(&h, "text", "not a model", 11, PEFT_E_FORMAT, NULL);
    hostile_refused(&h, "nothing", "", 0, PEFT_E_FORMAT, "no pieces");
    char more[500];
    memcpy(more, model, n);
    memcpy(more + n, "\xA2\x06\x04note\xA8\x06\x05", 10); /* fields 100 and 101 */
    hostile_taken(&h, "fields that nobody knows", more, n + 10);
    hostile_end(&h);
}

/* ---- vocab.json with merges.txt; vocab.txt -------------------------------------------------------------------------- */

static void tok_lists(void) {
    static const char vocab[] = "{\"a\":0,\"b\":1,\"ab\":2,\"<|endoftext|>\":3}", merges[] = "#version: 0.2\na b\n";
    static const hostile_swap bad[] = {
        {NULL, "\"a\":0", "\"a\":-1", PEFT_E_FORMAT, "\"a\""}, {NULL, "\"a\":0", "\"a\":\"0\"", PEFT_E_FORMAT, "\"a\""},
        {NULL, "\"a\":0", "\"a\":1e9", PEFT_E_FORMAT, "\"a\""},
        {NULL, "\"a\":0", "\"a\":1", PEFT_E_FORMAT, "id 1 "}, {NULL, "\"a\":0", "\"a\":null", PEFT_E_FORMAT, "\"a\""},
        {NULL, "{", "[", PEFT_E_FORMAT, NULL}, {NULL, "\"ab\":2", "\"ac\":2", PEFT_E_FORMAT, NULL},
    };
    static const char *const lines[] = {"a\n", "a b c\n", "a zz\n", "zz b\n", "\n \nx y\n", "a\xFF b\n"};
    hostile h;
    if (hostile_begin(&h, "vocab.json", tok_open) && hostile_write(h.dir, "merges.txt", merges, sizeof merges - 1) &&
        hostile_write(h.dir, "vocab.json", vocab, sizeof vocab - 1) &&
        hostile_take(&h, "vocab.json", false)) {
        for (size_t i = 0; i < PEFT__COUNT(bad) - 1; i++) { hostile_swaps(&h, &bad[i], 1); }
        hostile_cuts(&h, h.len, 8, PEFT_E_FORMAT);
        if (hostile_take(&h, "merges.txt", false)) {
            for (size_t i = 0; i < PEFT__COUNT(lines); i++) { hostile_refused(&h, lines[i], lines[i], strlen(lines[i]),
                PEFT_E_FORMAT, NULL); }
            hostile_taken(&h, "CRLF", "#version: 0.2\r\na b\r\n", 20);
            hostile_taken(&h, "no end of the last line", "#version: 0.2\na b", 17);
            hostile_taken(&h, "no head", "a b\n", 4);
        }
    }
    hostile_end(&h);
    static const char words[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nb\n##b\n";
    if (tok_begin(&h, "vocab.txt", "vocab.txt", words, sizeof words - 1)) {
        hostile_refused(&h, "nothing", "", 0, PEFT_E_FORMAT, NULL);
        hostile_refused(&h, "no unknown token", "[PAD]\na\n", 8, PEFT_E_FORMAT, "unknown token");
        hostile_refused(&h, "no UTF-8", "[PAD]\n[UNK]\n\xFF\n", 14, PEFT_E_FORMAT, "line 3");
static const char crlf[] = "[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\na\r\nb\r\n##b\r\n";
        hostile_taken(&h, "CRLF", crlf, sizeof crlf - 1);
        hostile_taken(&h, "no end of the last line", words, sizeof words - 2);
    }
    hostile_end(&h);
}

void hostile_tokenizers(void) {
    tok_json();
    tok_companion();
    tok_spm();
    tok_lists();
}
