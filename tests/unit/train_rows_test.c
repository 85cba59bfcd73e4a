/* train_rows_test.c - rows of every kind: which ids and labels they become, what cuts and joins them, how a bad one is named. */
#include "api_kit.h"
#include "train/rows.h"

typedef struct rows_kit {
    api_host host;
    peft_context *ctx;
    peft_tokenizer *tok;
    peft_dataset *d;
} rows_kit;

/* Special tokens of a ChatML format after those of TEXT_BYTES: 14 and 15. */
#define ROWS_CHAT_ADDED                                                                                                \
    "[{\"id\":12,\"content\":\"<|end|>\",\"special\":true},{\"id\":14,\"content\":\"<|im_start|>\",\"special\":true}," \
    "{\"id\":15,\"content\":\"<|im_end|>\",\"special\":true}]"
#define ROWS_CHAT                                                                          \
    TEXT_JSON(ROWS_CHAT_ADDED, "null", TEXT_BYTES_PRE, "null", "{\"type\":\"ByteLevel\"}", \
              TEXT_BPE(TEXT_BYTES_VOCAB, TEXT_BYTES_MERGES, ""))
#define ROWS_CHAT_CONFIG                                                                                 \
    "{\"eos_token\":\"<|im_end|>\",\"bos_token\":null,\"chat_template\":\"{% for message in messages %}" \
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}\"}"

/* tokenizer, config: files of a tokenizer, or NULL; options: of the data set, with ' for ". */
static peft_status rows_begin(rows_kit *k, const char *tokenizer, const char *config, const char *options) {
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    const char *dir = runner_tmpdir();
    memset(k, 0, sizeof *k);
    TRY(api_context(&k->host, &k->ctx));
    if (tokenizer != NULL) {
        TRY(text_write(&k->ctx->mem, dir, "tokenizer.json", tokenizer));
        TRY(text_write(&k->ctx->mem, dir, "tokenizer_config.json", config));
        TRY(peft_tokenizer_open(k->ctx, dir, &k->tok));
    }
    TRY(api_options(k->ctx, "dataset", options != NULL ? options : "{}", &o));
    TRY(peft_dataset_create(k->ctx, k->tok, o, &k->d));
out:
    peft_options_free(o);
    return st;
}

static peft_status rows_bytes(rows_kit *k, const char *options) {
    return rows_begin(k, TEXT_BYTES, "{\"eos_token\":\"<|end|>\",\"bos_token\":null}", options);
}

static peft_status rows_spm(rows_kit *k, const char *options) {
    return rows_begin(k, TEXT_SPM, "{\"eos_token\":\"</s>\",\"bos_token\":\"<s>\",\"add_bos_token\":true}", options);
}

static void rows_end(rows_kit *k) {
    peft_dataset_free(k->d);
    peft_tokenizer_free(k->tok);
    peft_context_free(k->ctx);
}

static peft_status rows_add(rows_kit *k, const char *json) {
    return peft_dataset_add_json(k->d, json, strlen(json));
}

/* "id/label" of every token with "-" for no label, rows apart by "; ". */
static const char *rows_show(const rows_kit *k) {
    static char out[4096];
    int at = 0;
    out[0] = '\0';
    for (size_t r = 0; r < peft__dataset_size(k->d); r++) {
        const peft__row *row = peft__dataset_row(k->d, r);
        for (int64_t i = 0; i < row->n; i++) {
            int32_t id = PEFT__VEC_AT(&k->d->ids, int32_t, row->first + i);
            int32_t label = PEFT__VEC_AT(&k->d->labels, int32_t, row->first + i);
            const char *gap = i > 0 ? " " : r > 0 ? "; " : "";
            at += label == -100 ? snprintf(out + at, sizeof out - (size_t)at, "%s%d/-", gap, (int)id)
                                : snprintf(out + at, sizeof out - (size_t)at, "%s%d/%d", gap, (int)id, (int)label);
        }
    }
    return out;
}

static const char *rows_info(const rows_kit *k) {
    static char text[256];
    return peft_dataset_info_json(k->d, text, sizeof text, NULL) == PEFT_OK ? text : "failed";
}

/* What one row becomes, under options and with TEXT_BYTES. */
static const char *rows_of(const char *options, const char *json) {
    static char out[4096];
    rows_kit k;
    peft_status st = rows_bytes(&k, options);
    if (st == PEFT_OK) { st = rows_add(&k, json); }
    (void)snprintf(out, sizeof out, "%s", st == PEFT_OK ? rows_show(&k) : peft_last_error());
    rows_end(&k);
    return out;
}

TEST(train_rows_input_ids) {
    rows_kit k;
    CHECK_OK(rows_begin(&k, NULL, NULL, NULL));
    CHECK_OK(rows_add(&k, "{\"input_ids\":[3,1,4],\"other\":{}}"));
    CHECK_OK(rows_add(&k, "{\"input_ids\":[3,1,4,1],\"labels\":[3,-100,4,9]}"));
    CHECK_OK(rows_add(&k, "{\"labels\":null,\"input_ids\":[7]}"));
    CHECK_STR(rows_show(&k), "3/- 1/1 4/4; 3/- 1/- 4/4 1/9; 7/-");
    CHECK_STR(rows_info(&k), "{\"rows\":3,\"tokens\":8,\"labelled_tokens\":4,\"max_length\":4,\"truncated\":0,\"task\":\"causal_lm\"}");
    CHECK_INT(k.d->max_id, 9);
    rows_end(&k);
    CHECK_INT(k.host.now, 0);
}

TEST(train_rows_text) {
    CHECK_STR(rows_of(NULL, "{\"text\":\"abc ab\"}"), "9/- 11/11 12/12");
    CHECK_STR(rows_of("{'append_eos':false}", "{\"text\":\"abc ab\"}"), "9/- 11/11");
    CHECK_STR(rows_of(NULL, "{\"text\":\"\"}"), "12/-");
    /* Special tokens are recognised in a text and a prompt, never in a completion. */
    CHECK_STR(rows_of(NULL, "{\"text\":\"a<|end|>\"}"), "0/- 12/12 12/12");
}

TEST(train_rows_prompt_and_completion) {
    CHECK_STR(rows_of(NULL, "{\"prompt\":\"abc ab\",\"completion\":\" ab\"}"), "9/- 11/- 11/11 12/12");
    CHECK_STR(rows_of("{'loss_on':'all'}", "{\"prompt\":\"abc ab\",\"completion\":\" ab\"}"), "9/- 11/11 11/11 12/12");
    CHECK_STR(rows_of("{'append_eos':false}", "{\"prompt\":\"a\",\"completion\":\"b\"}"), "0/- 1/1");
    CHECK_STR(rows_of(NULL, "{\"prompt\":\"\",\"completion\":\"abc\"}"), "9/- 12/12");
    /* In the completion it is plain text, of whose bytes this vocabulary has none. */
    CHECK_STR(rows_of(NULL, "{\"prompt\":\"a<|end|>\",\"completion\":\"b<|end|>\"}"), "0/- 12/- 1/1 12/12");
    CHECK_STR(rows_of(NULL, "{\"prompt\":\"a\",\"completion\":\"b\",\"text\":\"c\"}"), "0/- 1/1 12/12");
}

TEST(train_rows_begin_of_text) {
    rows_kit k;
    CHECK_OK(rows_spm(&k, NULL));
    CHECK_OK(rows_add(&k, "{\"text\":\"ab\"}"));
    CHECK_OK(rows_add(&k, "{\"prompt\":\"ab\",\"completion\":\"a\"}"));
    CHECK_OK(rows_add(&k, "{\"prompt\":\"ab\",\"completion\":\" a\"}"));
    /* A completion goes on with its prompt: it gets no space of its own. */
    CHECK_STR(rows_show(&k), "1/- 10/10 2/2; 1/- 10/- 6/6 2/2; 1/- 10/- 8/8 2/2");
    rows_end(&k);
}

TEST(train_rows_messages) {
    rows_kit k;
    static const char talk[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"ab\"},{\"role\":\"assistant\",\"content\":\"abc\"},"
        "{\"role\":\"user\",\"content\":\"c\"},{\"role\":\"assistant\",\"content\":\"b\"}]}";
    CHECK_OK(rows_begin(&k, ROWS_CHAT, ROWS_CHAT_CONFIG, NULL));
    CHECK_OK(rows_add(&k, talk));
    /* "user" has no letter that is a token, "assistant" has two: 0 0; the line end is 4. */
    CHECK_STR(rows_show(&k),
              "14/- 4/- 8/- 15/- 4/- 14/- 0/- 0/- 4/- 9/9 15/15 4/- 14/- 4/- 2/- 15/- 4/- 14/- 0/- 0/- 4/- "
              "1/1 15/15 4/-");
    rows_end(&k);
    CHECK_OK(rows_begin(&k, ROWS_CHAT, ROWS_CHAT_CONFIG, "{'loss_on':'all'}"));
    CHECK_OK(rows_add(&k, talk));
    CHECK(strstr(rows_show(&k), "14/- 4/4 8/8 15/15 4/4 14/14 0/0") == rows_show(&k));
    CHECK_STATUS(rows_add(&k, "{\"messages\":{}}"), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("\"messages\" is no array");
    CHECK_STATUS(rows_add(&k, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"user\"}]}"),
                 PEFT_E_FORMAT);
    CHECK_ERROR_HAS("message 1 needs \"role\" and \"content\"");
    CHECK_INT(peft_dataset_size(k.d), 1);
    rows_end(&k);
    CHECK_OK(rows_bytes(&k, NULL));
    CHECK_STATUS(rows_add(&k, talk), PEFT_E_UNSUPPORTED); /* no chat format */
    rows_end(&k);
}

TEST(train_rows_templates) {
    static const char row[] = "{\"mr\":\"ab\",\"refs\":[\"c\",\"abc\"],\"n\":11,\"in\":{\"b\":\"b\"},\"none\":null}";
    CHECK_STR(rows_of("{'prompt_template':'{mr}','completion_template':'{refs.1}'}", row), "8/- 9/9 12/12");
    CHECK_STR(rows_of("{'prompt_template':'{mr} {refs.0}'}", row), "8/- 3/3 2/2 12/12");
    CHECK_STR(rows_of("{'prompt_template':'a\\\\n{n}','completion_template':' a'}", row),
              "0/- 4/- 5/- 5/- 10/10 12/12");
    CHECK_STR(rows_of("{'prompt_template':'{in.b}{none}a'}", row), "1/- 0/0 12/12");
    CHECK_STR(rows_of("{'completion_template':'{mr}'}", row), "8/- 12/12"); /* a prompt of nothing */
    CHECK(strstr(rows_of("{'prompt_template':'{rf}'}", row), "row: no field \"rf\"") != NULL);
    CHECK(strstr(rows_of("{'prompt_template':'{refs.2}'}", row), "no field \"refs.2\"") != NULL);
    CHECK(strstr(rows_of("{'prompt_template':'{refs.x}'}", row), "no field \"refs.x\"") != NULL);
    CHECK(strstr(rows_of("{'prompt_template':'{mr.x}'}", row), "no field \"mr.x\"") != NULL);
    CHECK(strstr(rows_of("{'prompt_template':'{}'}", row), "no field \"\"") != NULL);
    CHECK(strstr(rows_of("{'prompt_template':'a{mr'}", row), "\"a{mr\" has a \"{\" without its \"}\"") != NULL);
}

static const char *rows_render(peft__mem *mem, const char *text, const char *json) {
    static char out[256];
    peft__arena arena;
    peft__str s;
    const peft__json *row = NULL;
    peft__arena_init(&arena, mem);
    peft__str_init(&s, mem);
    peft_status st = peft__json_parse(&arena, json, strlen(json), "row", &row);
    if (st == PEFT_OK) { st = peft__template_render(text, row, &s); }
    (void)snprintf(out, sizeof out, "%s", st == PEFT_OK ? peft__str_c(&s) : "failed");
    peft__str_free(&s);
    peft__arena_free(&arena);
    return out;
}

TEST(train_rows_template_text) {
    peft__mem *mem = runner_mem();
    static const char row[] = "{\"a\":\"x\",\"f\":2.5,\"t\":true,\"l\":[1,[\"y\"]]}";
    CHECK_STR(rows_render(mem, "{{{a}}} }}", row), "{x} }");
    CHECK_STR(rows_render(mem, "\\n\\t\\\\ \\x", row), "\n\t\\ \\x");
    CHECK_STR(rows_render(mem, "{f} {t} {l} {l.1.0}", row), "2.5 true [1,[\"y\"]] y");
    CHECK_STR(rows_render(mem, "plain } text", row), "plain } text");
}

TEST(train_rows_truncation) {
    rows_kit k;
    static const char row[] = "{\"input_ids\":[1,2,3,4,5]}";
    CHECK_OK(rows_begin(&k, NULL, NULL, "{'max_length':3}"));
    CHECK_OK(rows_add(&k, row));
    CHECK_OK(rows_add(&k, "{\"input_ids\":[1,2,3]}"));
    CHECK_STR(rows_show(&k), "1/- 2/2 3/3; 1/- 2/2 3/3");
    CHECK_STR(rows_info(&k), "{\"rows\":2,\"tokens\":6,\"labelled_tokens\":4,\"max_length\":3,\"truncated\":1,\"task\":\"causal_lm\"}");
    CHECK_INT(k.d->max_id, 3); /* of what is left */
    rows_end(&k);
    CHECK_OK(rows_begin(&k, NULL, NULL, "{'max_length':3,'truncation':'left'}"));
    CHECK_OK(rows_add(&k, row));
    CHECK_STR(rows_show(&k), "3/- 4/4 5/5");
    rows_end(&k);
    CHECK_OK(rows_begin(&k, NULL, NULL, "{'max_length':3,'truncation':'error'}"));
    CHECK_OK(rows_add(&k, "{\"input_ids\":[1,2,3]}"));
    CHECK_STATUS(rows_add(&k, row), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("the row has 5 tokens, more than max_length 3");
    CHECK_STR(rows_show(&k), "1/- 2/2 3/3");
    rows_end(&k);
}

TEST(train_rows_packing) {
    rows_kit k;
    CHECK_OK(rows_begin(&k, NULL, NULL, "{'max_length':5,'packing':true}"));
    CHECK_OK(rows_add(&k, "{\"input_ids\":[1,2]}"));
    CHECK_OK(rows_add(&k, "{\"input_ids\":[3,4,5]}"));
    CHECK_OK(rows_add(&k, "{\"input_ids\":[6,7,8,9]}"));
    CHECK_OK(rows_add(&k, "{\"input_ids\":[1,1,1,1,1,1,1]}"));
    CHECK_OK(rows_add(&k, "{\"input_ids\":[2]}"));
    CHECK_STR(rows_show(&k), "1/- 2/2 3/- 4/4 5/5; 6/- 7/7 8/8 9/9; 1/- 1/1 1/1 1/1 1/1; 2/-");
    CHECK_STR(rows_info(&k), "{\"rows\":4,\"tokens\":15,\"labelled_tokens\":10,\"max_length\":5,\"truncated\":1,\"task\":\"causal_lm\"}");
    CHECK_INT(peft__dataset_row(k.d, 1)->key, 2); /* its place in the file before packing */
    rows_end(&k);
}

TEST(train_rows_file) {
    rows_kit k;
    const char *dir = runner_tmpdir(), *path = runner_path(dir, "rows.jsonl");
    static const char text[] =
        "\xEF\xBB\xBF{\"input_ids\":[1,2]}\r\n\r\n   \t\n{\"input_ids\":[3,4]}\n\n{\"input_ids\":[5,6]}";
    CHECK_OK(rows_begin(&k, NULL, NULL, NULL));
    CHECK_OK(text_write(&k.ctx->mem, dir, "rows.jsonl", text));
    CHECK_OK(peft_dataset_load_jsonl(k.d, path));
    CHECK_STR(rows_show(&k), "1/- 2/2; 3/- 4/4; 5/- 6/6");
    CHECK_OK(peft_dataset_load_jsonl(k.d, path)); /* adds */
    CHECK_INT(peft_dataset_size(k.d), 6);
    CHECK_INT(peft__dataset_row(k.d, 5)->key, 5);
    rows_end(&k);
    CHECK_OK(rows_begin(&k, NULL, NULL, "{'max_rows':2}"));
    CHECK_OK(peft_dataset_load_jsonl(k.d, path));
    CHECK_STR(rows_show(&k), "1/- 2/2; 3/- 4/4");
    CHECK_OK(peft_dataset_load_jsonl(k.d, path)); /* of each file */
    CHECK_INT(peft_dataset_size(k.d), 4);
    rows_end(&k);
}

typedef struct rows_bad {
    const char *row, *says;
} rows_bad;

static const rows_bad rows_bad_list[] = {
    {"{\"input_ids\":[1,2", "line 4"},
    {"{\"input_ids\":[1,2]} x", "line 4"},
    {"[1,2]", "the row is no JSON object"},
    {"7", "the row is no JSON object"},
    {"{}", "the row has none of \"text\""},
    {"{\"prompt\":\"a\"}", "the row has none of \"text\", \"prompt\" with \"completion\""},
    {"{\"text\":5}", "\"text\" is no text"},
    {"{\"prompt\":\"a\",\"completion\":[\"b\"]}", "\"completion\" is no text"},
    {"{\"input_ids\":\"1\"}", "\"input_ids\" is no array"},
    {"{\"input_ids\":[]}", "the row is empty"},
    {"{\"input_ids\":[1,-2]}", "\"input_ids\"[1] is no token id"},
    {"{\"input_ids\":[-100,2]}", "\"input_ids\"[0] is no token id"},
    {"{\"input_ids\":[1,2.5]}", "\"input_ids\"[1] is no token id"},
    {"{\"input_ids\":[1,3000000000]}", "\"input_ids\"[1] is no token id"},
    {"{\"input_ids\":[1,\"2\"]}", "\"input_ids\"[1] is no token id"},
    {"{\"input_ids\":[1,2],\"labels\":[1]}", "\"labels\" has 1 elements, and \"input_ids\" 2"},
    {"{\"input_ids\":[1,2],\"labels\":[1,2,3]}", "\"labels\" has 3 elements, and \"input_ids\" 2"},
    {"{\"input_ids\":[1,2],\"labels\":[1,-1]}", "\"labels\"[1] is no token id"},
    {"{\"input_ids\":[1,2],\"labels\":7}", "\"labels\" is no array"},
    {"{\"text\":\"\xFF\"}", "line 4"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", "line 4"},
};

TEST(train_rows_bad_rows_name_file_and_line) {
    rows_kit k;
    const char *dir = runner_tmpdir(), *path = runner_path(dir, "bad.jsonl");
    char before[256], text[512], where[4200];
    (void)snprintf(where, sizeof where, "%s line 4", path);
    CHECK_OK(rows_bytes(&k, NULL));
    CHECK_OK(rows_add(&k, "{\"input_ids\":[1,2,3]}"));
    (void)snprintf(before, sizeof before, "%s", rows_info(&k));
    for (size_t i = 0; i < PEFT__COUNT(rows_bad_list); i++) {
        (void)snprintf(text, sizeof text, "{\"input_ids\":[9,9]}\n\n{\"text\":\"ab\"}\n%s\n{\"input_ids\":[1]}\n",
                       rows_bad_list[i].row);
        CHECK_OK(text_write(&k.ctx->mem, dir, "bad.jsonl", text));
        peft_status st = peft_dataset_load_jsonl(k.d, path);
        CHECK(st == PEFT_E_FORMAT || (strstr(text, "messages") != NULL && st == PEFT_E_UNSUPPORTED));
        CHECK_ERROR_HAS(where);
        CHECK_ERROR_HAS(rows_bad_list[i].says);
        CHECK_STR(rows_info(&k), before);
        CHECK_STR(rows_show(&k), "1/- 2/2 3/3");
        CHECK_INT(k.d->max_id, 3);
    }
    rows_end(&k);
    CHECK_INT(k.host.now, 0);
}

TEST(train_rows_bad_files) {
    rows_kit k;
    const char *dir = runner_tmpdir();
    CHECK_OK(rows_begin(&k, NULL, NULL, NULL));
    CHECK_STATUS(peft_dataset_load_jsonl(k.d, dir), PEFT_E_IO);
    CHECK_ERROR_HAS(dir);
    CHECK_STATUS(peft_dataset_load_jsonl(k.d, runner_path(dir, "none.jsonl")), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("none.jsonl");
    CHECK_OK(text_write(&k.ctx->mem, dir, "empty.jsonl", ""));
    CHECK_STATUS(peft_dataset_load_jsonl(k.d, runner_path(dir, "empty.jsonl")), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("empty.jsonl: there is no row in it");
    CHECK_OK(text_write(&k.ctx->mem, dir, "blank.jsonl", "\xEF\xBB\xBF \n\r\n\t"));
    CHECK_STATUS(peft_dataset_load_jsonl(k.d, runner_path(dir, "blank.jsonl")), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("blank.jsonl: there is no row in it");
    CHECK_STATUS(rows_add(&k, "{\"text\":\"a\"}"), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("there is no tokenizer");
    CHECK_INT(peft_dataset_size(k.d), 0);
    rows_end(&k);
}

TEST(train_rows_batches) {
    rows_kit k;
    peft_batch *b = NULL;
    static const int32_t ids[] = {1, 2, 3, 4, 5}, labels[] = {1, -100, 3, 4, 9};
    static const float weights[] = {1, 1, 1, 1, 1};
    const int64_t offsets[] = {0, 3, 5};
    CHECK_OK(rows_begin(&k, NULL, NULL, "{'max_length':2}"));
    CHECK_OK(peft_batch_create(k.ctx, &b));
    CHECK_OK(peft_dataset_add(k.d, b)); /* no rows */
    CHECK_OK(peft_batch_set_i32(b, "input_ids", ids, offsets, 2));
    CHECK_OK(peft_dataset_add(k.d, b));
    CHECK_OK(peft_batch_set_i32(b, "labels", labels, offsets, 2));
    CHECK_OK(peft_dataset_add(k.d, b));
    CHECK_STR(rows_show(&k), "1/- 2/2; 4/- 5/5; 1/- 2/-; 4/- 5/9");
    CHECK_OK(peft_batch_set_f32(b, "loss_weights", weights, offsets, 2));
    CHECK_STATUS(peft_dataset_add(k.d, b), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("loss_weights");
    CHECK_INT(peft_dataset_size(k.d), 4);
    peft_batch_free(b);
    rows_end(&k);
}

/* Every allocation of a load fails once: the set is as it was each time. */
TEST(train_rows_without_memory) {
    rows_kit k;
    const char *dir = runner_tmpdir(), *path = runner_path(dir, "rows.jsonl");
    char before[256];
    CHECK_OK(rows_bytes(&k, "{'packing':true,'max_length':6,'prompt_template':'{a}','completion_template':'{b}'}"));
    CHECK_OK(rows_add(&k, "{\"a\":\"ab\",\"b\":\"abc\"}"));
    CHECK_OK(
        text_write(&k.ctx->mem, dir, "rows.jsonl", "{\"a\":\"abc\",\"b\":\"ab ab ab\"}\n{\"a\":\"b\",\"b\":\"\"}\n"));
    (void)snprintf(before, sizeof before, "%s", rows_info(&k));
    peft_status st = PEFT_E_NOMEM;
    size_t n = 0;
    for (n = 1; st == PEFT_E_NOMEM && n < 500; n++) {
        peft__mem_fail_after(&k.ctx->mem, n, false);
        st = peft_dataset_load_jsonl(k.d, path);
        peft__mem_fail_after(&k.ctx->mem, 0, false);
        if (st == PEFT_E_NOMEM) { CHECK_STR(rows_info(&k), before); }
    }
    CHECK_OK(st);
    CHECK(n > 5);
    CHECK_STR(rows_show(&k), "8/- 9/9 12/12; 9/- 8/8 11/11 11/11 12/12; 1/- 12/12");
    rows_end(&k);
    CHECK_INT(k.host.now, 0);
}
