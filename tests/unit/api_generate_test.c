/* api_generate_test.c - text in pieces: whole characters, stop strings, end of sequence, callbacks, cancel. A table model
 * says which token follows which, so that every text is known beforehand. */
#include "api_kit.h"

/* a b c space newline 1 C3 A9 ab abc " a" " ab" end <x> */
enum { A, B, C, SPACE, LINE, ONE, C3, A9, AB, ABC, SP_A, SP_AB, END, X };

typedef struct generate_fixture {
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    peft_tokenizer *t;
    peft_session *s;
} generate_fixture;

static peft_status generate_open(generate_fixture *f, const int32_t next[API_VOCAB]) {
    peft_status st = PEFT_OK;
    memset(f, 0, sizeof *f);
    TRY(peft_context_create(NULL, &f->ctx));
    TRY(api_model(f->ctx, API_LLAMA, &f->m));
    TRY(peft_adapters_create(f->m, &f->a));
    TRY(api_add_table(f->a, "table", next));
    TRY(api_tokenizer(f->ctx, TEXT_BYTES, &f->t));
    TRY(peft_session_create(f->m, f->a, "table", NULL, &f->s));
out:
    return st;
}

static void generate_close(generate_fixture *f) {
    peft_session_free(f->s);
    peft_tokenizer_free(f->t);
    peft_adapters_free(f->a);
    peft_model_free(f->m);
    peft_context_free(f->ctx);
}

typedef struct generate_log { /* what the callback got: ids, and texts with a bar behind each */
    int32_t ids[64];
    size_t n;
    char text[512];
    size_t stop_after; /* answers 1 after so many; 0: never */
    peft_session *cancel, *again;
    const peft_tokenizer *t;
    peft_status again_status;
} generate_log;

static int32_t generate_note(void *user, int32_t id, const char *text, size_t len) {
    generate_log *l = user;
    size_t at = strlen(l->text);
    l->ids[l->n++] = id;
    (void)snprintf(l->text + at, sizeof l->text - at, "%.*s|", (int)len, text != NULL ? text : "");
    if (l->cancel != NULL) { peft_session_cancel(l->cancel); }
    if (l->again != NULL) {
        l->again_status = peft_session_generate_text(l->again, l->t, "a", 1, NULL, NULL, NULL, NULL, 0, NULL);
    }
    return l->stop_after > 0 && l->n >= l->stop_after;
}

static peft_status generate_run(generate_fixture *f, const char *prompt, const char *json, generate_log *log, char *buf,
                                size_t cap) {
    peft_options *o = NULL;
    peft_status st = api_options(f->ctx, "generate", json, &o);
    if (st == PEFT_OK) {
        st = peft_session_generate_text(f->s, f->t, prompt, strlen(prompt), o, log != NULL ? generate_note : NULL, log,
                                        buf, cap, NULL);
    }
    peft_options_free(o);
    return st;
}

/* a -> b -> c -> é -> newline -> 1 -> " ab" -> end */
static const int32_t generate_chain[API_VOCAB] = {B, C, C3, A, ONE, SP_AB, A9, LINE, A, A, A, END, A, A};

TEST(api_generate_text_until_the_end) {
    generate_fixture f;
    generate_log log = {0};
    char text[64];
    CHECK_OK(generate_open(&f, generate_chain));
    CHECK_OK(generate_run(&f, "a", "{}", &log, text, sizeof text));
    CHECK_STR(text, "bc\xC3\xA9\n1 ab");
    CHECK_STR(log.text, "b|c||\xC3\xA9|\n|1| ab||"); /* half a character is nothing yet; the end has no text */
    CHECK_INT(log.n, 8);
    CHECK_INT(log.ids[7], END);
    CHECK_OK(generate_run(&f, "a", "{'max_new_tokens':10,'ignore_eos':true}", NULL, text, sizeof text));
    CHECK_STR(text, "bc\xC3\xA9\n1 abab");
    generate_close(&f);
}

TEST(api_generate_text_that_breaks_off) {
    generate_fixture f;
    generate_log log = {0};
    char text[64];
    CHECK_OK(generate_open(&f, generate_chain));
    CHECK_OK(generate_run(&f, "a", "{'max_new_tokens':3}", &log, text, sizeof text));
    CHECK_STR(text, "bc\xC3"); /* what is there when nothing more comes */
    CHECK_STR(log.text, "b|c|\xC3|");
    generate_close(&f);
}

TEST(api_generate_ids_and_buffer_rule) {
    generate_fixture f;
    static const int32_t prompt[] = {A};
    int32_t ids[16];
    char text[64];
    size_t needed = 0;
    CHECK_OK(generate_open(&f, generate_chain));
    CHECK_OK(peft_session_generate(f.s, f.t, prompt, 1, NULL, NULL, NULL, ids, 16, &needed));
    CHECK_INT(needed, 8);
    CHECK_INT(ids[0], B);
    CHECK_INT(ids[7], END);
    CHECK_OK(
        peft_session_generate(f.s, NULL, prompt, 1, NULL, NULL, NULL, ids, 8, &needed)); /* the config's end token */
    CHECK_STATUS(peft_session_generate(f.s, f.t, prompt, 1, NULL, NULL, NULL, ids, 7, &needed), PEFT_E_BUFFER);
    CHECK_INT(needed, 8);
    CHECK_STATUS(peft_session_generate_text(f.s, f.t, "a", 1, NULL, NULL, NULL, NULL, 0, &needed), PEFT_E_BUFFER);
    CHECK_INT(needed, 10);
    CHECK_STATUS(peft_session_generate_text(f.s, f.t, "a", 1, NULL, NULL, NULL, text, 9, NULL), PEFT_E_BUFFER);
    CHECK_OK(peft_session_generate_text(f.s, f.t, "a", 1, NULL, NULL, NULL, text, 10, NULL));
    CHECK_STATUS(peft_session_generate_text(f.s, f.t, "a", 1, NULL, NULL, NULL, NULL, 10, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_session_generate_text(f.s, f.t, "", 0, NULL, NULL, NULL, text, 10, NULL), PEFT_E_INVALID);
    CHECK_ERROR_HAS("no tokens"); /* there is no BOS to begin with */
    generate_close(&f);
}

TEST(api_generate_stops_before_a_text) {
    generate_fixture f;
    char text[64];
    CHECK_OK(generate_open(&f, generate_chain));
    generate_log log = {0};
    CHECK_OK(generate_run(&f, "a", "{'stop':'1'}", &log, text, sizeof text));
    CHECK_STR(text, "bc\xC3\xA9\n");
    CHECK_STR(log.text, "b|c||\xC3\xA9|\n||");
    log = (generate_log){0};
    CHECK_OK(
        generate_run(&f, "a", "{'stop':['zz','\\n1 a']}", &log, text, sizeof text)); /* across tokens, within one */
    CHECK_STR(text, "bc\xC3\xA9");
    CHECK_STR(log.text, "b|c||\xC3\xA9||||"); /* newline and 1 were held back */
    log = (generate_log){0};
    CHECK_OK(generate_run(&f, "a", "{'stop':['\\n1 x']}", &log, text, sizeof text)); /* it was not the stop text */
    CHECK_STR(text, "bc\xC3\xA9\n1 ab");
    CHECK_STR(log.text, "b|c||\xC3\xA9|||\n1 ab||");
    log = (generate_log){0};
    CHECK_OK(generate_run(&f, "a", "{'stop':['\\n1 x'],'max_new_tokens':6}", &log, text, sizeof text));
    CHECK_STR(log.text, "b|c||\xC3\xA9||\n1|"); /* nothing is held back at the end */
    log = (generate_log){0};
    CHECK_OK(generate_run(&f, "a", "{'stop':['bcd','c']}", &log, text, sizeof text)); /* the shorter one is complete */
    CHECK_STR(text, "b");
    CHECK_OK(generate_run(&f, "a", "{'stop':['b']}", NULL, text, sizeof text));
    CHECK_STR(text, "");
    CHECK_STATUS(generate_run(&f, "a", "{'stop':['']}", NULL, text, sizeof text), PEFT_E_KEY);
    CHECK_STATUS(generate_run(&f, "a", "{'stop':[3]}", NULL, text, sizeof text), PEFT_E_KEY);
    CHECK_OK(generate_run(&f, "a", "{'stop':[]}", NULL, text, sizeof text));
    CHECK_STR(text, "bc\xC3\xA9\n1 ab");
    generate_close(&f);
}

TEST(api_generate_callback_ends_it) {
    generate_fixture f;
    char text[64] = "untouched";
    CHECK_OK(generate_open(&f, generate_chain));
    generate_log log = {.stop_after = 2};
    CHECK_STATUS(generate_run(&f, "a", "{}", &log, text, sizeof text), PEFT_E_CALLBACK);
    CHECK_INT(log.n, 2);
    CHECK_STR(text, "untouched");
    log = (generate_log){.cancel = f.s};
    CHECK_STATUS(generate_run(&f, "a", "{}", &log, text, sizeof text), PEFT_E_CANCELLED);
    CHECK_INT(log.n, 1);
    log = (generate_log){.cancel = f.s};
    CHECK_STATUS(generate_run(&f, "a", "{'max_new_tokens':1}", &log, text, sizeof text), PEFT_E_CANCELLED);
    log = (generate_log){.again = f.s, .t = f.t};
    CHECK_OK(generate_run(&f, "a", "{}", &log, text, sizeof text)); /* neither cancel is left over */
    CHECK_STR(text, "bc\xC3\xA9\n1 ab");
    CHECK_INT(log.again_status, PEFT_E_BUSY);
    generate_close(&f);
}

TEST(api_generate_beyond_the_tokenizer) {
    generate_fixture f;
    char text[64];
    static const char few[] = TEXT_JSON("[]", "null", TEXT_BYTES_PRE, "null", "{\"type\":\"ByteLevel\"}",
                                        TEXT_BPE("{\"a\":0,\"b\":1,\"c\":2,\"\xC4\xA0\":3}", "[]", ""));
    static const int32_t next[API_VOCAB] = {B, X, C, A, A, A, A, A, A, A, A, A, A, C};
    CHECK_OK(generate_open(&f, next));
    peft_tokenizer_free(f.t);
    CHECK_OK(api_tokenizer(f.ctx, few, &f.t));
    CHECK_OK(generate_run(&f, "a", "{'max_new_tokens':4}", NULL, text, sizeof text)); /* b, <x>, c, c */
    CHECK_STR(text, "bcc");
    generate_close(&f);
}

/* SentencePiece: the continuation keeps its space; BOS is put once; an empty prompt is BOS. */
TEST(api_generate_sentencepiece) {
    generate_fixture f;
    char text[64];
    /* unk <s> </s> C3 A9 _ a b _a ab _ab; after <s> comes _a, after _ab comes b, after b </s> */
    static const int32_t next[API_VOCAB] = {0, 8, 0, 4, 2, 10, 10, 2, 10, 0, 7, 0, 0, 0};
    static const int32_t bos[] = {1};
    int32_t ids[8];
    size_t n = 0;
    CHECK_OK(generate_open(&f, next));
    peft_tokenizer_free(f.t);
    peft__mem *mem = runner_mem();
    const char *dir = runner_tmpdir();
    CHECK_OK(text_write(mem, dir, "tokenizer.json", TEXT_SPM));
    CHECK_OK(text_write(mem, dir, "tokenizer_config.json", "{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\"}"));
    CHECK_OK(peft_tokenizer_open(f.ctx, dir, &f.t));
    CHECK_OK(generate_run(&f, "a", "{}", NULL, text, sizeof text)); /* <s> _a | _ab b </s> */
    CHECK_STR(text, " abb");
    CHECK_OK(generate_run(&f, "", "{}", NULL, text, sizeof text)); /* <s> | _a _ab b </s> */
    CHECK_STR(text, " a abb");
    CHECK_OK(generate_run(&f, "<s>", "{}", NULL, text, sizeof text));
    CHECK_STR(text, " a abb");
    CHECK_OK(peft_session_generate(f.s, f.t, bos, 1, NULL, NULL, NULL, ids, 8, &n));
    CHECK_INT(n, 4);
    CHECK_INT(ids[3], 2);
    generate_close(&f);
}

TEST(api_generate_refuses_numbers_that_are_none) {
    generate_fixture f;
    char text[64];
    float head[API_VOCAB * API_HIDDEN] = {0};
    CHECK_OK(generate_open(&f, generate_chain));
    head[3] = NAN;
    CHECK_OK(peft_adapters_tensor_write(f.a, "table", "lm_head.weight", head, PEFT__COUNT(head)));
    CHECK_STATUS(generate_run(&f, "a", "{}", NULL, text, sizeof text), PEFT_E_NUMERIC);
    CHECK_ERROR_HAS("after token 0");
    generate_close(&f);
}
