/* train_rows_answers_test.c - rows of questions: where an answer is, windows, offsets; and of verbalizers: prompts with each class's
 * words. */
#include "rows_tasks_kit.h"

/* "begin-end" of each row. */
static const char *rt_spans(const rt_kit *k) {
    static char out[512];
    size_t at = 0;
    out[0] = '\0';
    for (size_t i = 0; i < k->d->rows.len; i++) {
        const peft__row *r = &PEFT__VEC_AT(&k->d->rows, peft__row, i);
        at += (size_t)snprintf(out + at, sizeof out - at, "%s%d-%d@%d", i > 0 ? " " : "", (int)r->begin, (int)r->end, (int)r->example);
    }
    return out;
}

/* Offsets of a row: "from-to" of its context's tokens, "." for others. */
static const char *rt_offsets(const rt_kit *k, size_t i) {
    static char out[512];
    const peft__row *r = &PEFT__VEC_AT(&k->d->rows, peft__row, i);
    size_t at = 0;
    out[0] = '\0';
    for (int64_t t = r->first; t < r->first + r->n; t++) {
        int32_t from = PEFT__VEC_AT(&k->d->offsets, int32_t, 2 * t), to = PEFT__VEC_AT(&k->d->offsets, int32_t, 2 * t + 1);
        const char *gap = t > r->first ? " " : "";
        at += from < 0 ? (size_t)snprintf(out + at, sizeof out - at, "%s.", gap)
                       : (size_t)snprintf(out + at, sizeof out - at, "%s%d-%d", gap, (int)from, (int)to);
    }
    return out;
}

TEST(rows_answers_places) {
    rt_kit k;
    CHECK_OK(rt_bert(&k, NULL));
    /* The first letter has two bytes: characters 3 to 6 are bytes 4 to 7. */
    CHECK_OK(rt_add(&k, "{'id':'1','question':'c','context':'\xC3\xA4 ab x','answers':{'text':['b x'],'answer_start':[3]}}"));
    CHECK_OK(rt_add(&k, "{'question':'c','context':'a ab a','answers':[{'text':'a','answer_start':5},{'text':'ab'}]}"));
    CHECK_OK(rt_add(&k, "{'question':'c','context':'a ab a','answers':['q','ab','a']}"));
    CHECK_OK(rt_add(&k, "{'question':'c','context':'a','answers':[]}"));
    CHECK_OK(rt_add(&k, "{'question':'c','context':'a','answers':{'text':[],'answer_start':[]}}"));
    CHECK_STR(rt_show(&k), "2 7 3 5:1 5:1 9:1 11:1 3:1; 2 7 3 5:1 5:1 9:1 5:1 3:1; 2 7 3 5:1 5:1 9:1 5:1 3:1; 2 7 3 5:1 3:1; "
                           "2 7 3 5:1 3:1");
    CHECK_STR(rt_spans(&k), "5-6@0 6-6@1 4-5@2 0-0@3 0-0@4");
    CHECK_STR(rt_offsets(&k, 0), ". . . 0-2 3-4 4-5 6-7 .");
    CHECK_INT(k.d->offsets.len, 2 * k.d->ids.len);
    const peft__example *e = k.d->examples.data;
    CHECK_STR(e[0].context, "\xC3\xA4 ab x");
    CHECK_INT(e[1].n_answers, 2);
    CHECK_STR(e[1].answers[1], "ab");
    CHECK_INT(e[3].n_answers, 0);
    CHECK_STR(rt_info(&k), "{\"rows\":5,\"tokens\":34,\"labelled_tokens\":0,\"max_length\":8,\"truncated\":0,"
                           "\"task\":\"question_answering\",\"labelled_rows\":5,\"questions\":5}");
    rt_end(&k);
    CHECK_INT(k.host.now, 0);
}

TEST(rows_answers_windows) {
    rt_kit k;
    static const char row[] = "{'question':'c','context':'a b c x ab . a','answers':{'text':['x ab'],'answer_start':[6]}}";
    CHECK_OK(rt_bert(&k, "{'max_length':8,'doc_stride':1}"));
    CHECK_OK(rt_add(&k, "{'question':'c','context':'a','answers':['a']}"));
    CHECK_OK(rt_add(&k, row));
    /* Four tokens of the context a row, the last of them once more: a b c x, x a ##b ., . a. */
    CHECK_STR(rt_show(&k), "2 7 3 5:1 3:1; 2 7 3 5:1 6:1 7:1 11:1 3:1; 2 7 3 11:1 5:1 9:1 12:1 3:1; 2 7 3 12:1 5:1 3:1");
    CHECK_STR(rt_spans(&k), "3-3@0 0-0@1 3-5@1 0-0@1");
    CHECK_STR(rt_offsets(&k, 2), ". . . 6-7 8-9 9-10 11-12 .");
    CHECK_INT(PEFT__VEC_AT(&k.d->rows, peft__row, 3).key, 3);
    CHECK_INT(k.d->truncated, 0); /* nothing is lost */
    CHECK(strstr(rt_info(&k), "\"rows\":4,\"tokens\":27") != NULL);
    CHECK(strstr(rt_info(&k), "\"questions\":2}") != NULL);
    int32_t ids[8], labels[8];
    size_t n = 0;
    CHECK_OK(peft_dataset_row(k.d, 3, ids, labels, 8, &n));
    CHECK_INT(n, 6);
    CHECK_INT(ids[3], 12);
    CHECK_INT(labels[3], -100);
    rt_end(&k);
    CHECK_STR(rt_refused(rt_bert, "{'max_length':8,'doc_stride':4}", row),
              "PEFT_E_FORMAT row: question and template have 4 tokens, which leaves 4 of max_length 8 for the context: expected more than "
              "doc_stride 4");
    CHECK_STR(rt_refused(rt_bert, "{'max_length':8,'doc_stride':1,'truncation':'error'}", row),
              "PEFT_E_FORMAT row: the row has 12 tokens, more than max_length 8");
}

/* max_rows counts questions, not the rows that they become. */
TEST(rows_answers_max_rows) {
    rt_kit k;
    const char *dir = runner_tmpdir();
    static const char text[] = "{\"question\":\"c\",\"context\":\"a b c x ab . a\",\"answers\":[\"x\"]}\n"
                               "{\"question\":\"c\",\"context\":\"a b\",\"answers\":[\"b\"]}\n"
                               "{\"question\":\"c\",\"context\":\"a b\",\"answers\":[\"b\"]}\n";
    CHECK_OK(rt_bert(&k, "{'max_length':8,'doc_stride':1,'max_rows':2}"));
    CHECK_OK(text_write(&k.ctx->mem, dir, "rows.jsonl", text));
    CHECK_OK(peft_dataset_load_jsonl(k.d, runner_path(dir, "rows.jsonl")));
    CHECK_STR(rt_spans(&k), "6-6@0 3-3@0 0-0@0 4-4@1");
    rt_end(&k);
}

/* Byte-level tokens that are bytes of one character: the answer is all of them. */
TEST(rows_answers_bytes) {
    rt_kit k;
    CHECK_OK(rt_bytes(&k, NULL));
    CHECK_OK(rt_add(&k, "{'question':'a','context':'b\xC3\xA9 abc','answers':['\xC3\xA9']}"));
    CHECK_OK(rt_add(&k, "{'question':'a','context':'b\xC3\xA9 abc','answers':['abc']}"));
    CHECK_STR(rt_show(&k), "0 1:1 6:1 7:1 3:1 9:1; 0 1:1 6:1 7:1 3:1 9:1");
    CHECK_STR(rt_offsets(&k, 0), ". 0-1 1-3 1-3 3-4 4-7");
    CHECK_STR(rt_spans(&k), "2-3@0 5-5@1");
    rt_end(&k);
}

TEST(rows_answers_without) {
    rt_kit k;
    CHECK_OK(rt_bert(&k, "{'task':'question_answering'}"));
    CHECK_OK(rt_add(&k, "{'question':'c','context':'a'}"));
    CHECK_STR(rt_spans(&k), "-1--1@0");
    CHECK_STATUS(peft__dataset_labelled(k.d, "evaluation"), PEFT_E_INVALID);
    CHECK_ERROR_HAS("no row of the evaluation data has \"answers\"");
    CHECK_OK(rt_add(&k, "{'question':'c','context':'','answers':[]}"));
    CHECK_OK(peft__dataset_labelled(k.d, "evaluation"));
    CHECK_STR(rt_spans(&k), "-1--1@0 0-0@1");
    rt_end(&k);
}

#define RT_ASK(answers) "{'question':'c','context':'a ab','answers':" answers "}"

TEST(rows_answers_bad) {
    CHECK_STR(rt_refused(rt_bert, NULL, RT_ASK("{'text':['ab'],'answer_start':[1]}")),
              "PEFT_E_FORMAT row: \"answers\": the context does not have \"ab\" at character 1, as \"answer_start\" says");
    CHECK_STR(rt_refused(rt_bert, NULL, RT_ASK("{'text':['ab'],'answer_start':[9]}")),
              "PEFT_E_FORMAT row: \"answers\": the context does not have \"ab\" at character 9, as \"answer_start\" says");
    CHECK_STR(rt_refused(rt_bert, NULL, RT_ASK("['x','y']")), "PEFT_E_FORMAT row: \"answers\": the context does not have the text \"x\"");
    CHECK_STR(rt_refused(rt_bert, NULL, RT_ASK("{'text':['a','b'],'answer_start':[0]}")),
              "PEFT_E_FORMAT row: \"answers\": \"answer_start\" has 1 elements, and \"text\" 2");
    CHECK_STR(rt_refused(rt_bert, NULL, RT_ASK("{'text':'a','answer_start':0}")),
              "PEFT_E_FORMAT row: \"answers\" has no lists \"text\" and \"answer_start\"");
    CHECK_STR(rt_refused(rt_bert, NULL, RT_ASK("'a'")), "PEFT_E_FORMAT row: \"answers\" is a text, expected a list of answers or "
              "{\"text\": [...], \"answer_start\": [...]}");
    CHECK_STR(rt_refused(rt_bert, NULL, RT_ASK("['a','']")),
              "PEFT_E_FORMAT row: \"answers\": the text of answer 1 is empty, expected a text that is not empty");
    CHECK_STR(rt_refused(rt_bert, NULL, RT_ASK("[{'answer_start':0}]")),
              "PEFT_E_FORMAT row: \"answers\": the text of answer 0 is missing, expected a text that is not empty");
    CHECK_STR(rt_refused(rt_bert, NULL, RT_ASK("[{'text':'a','answer_start':-1}]")),
              "PEFT_E_FORMAT row: \"answers\": the answer_start of answer 0 is no whole number from 0");
    CHECK_STR(rt_refused(rt_bert, NULL, "{'question':'c','context':'a\\u0000','answers':['a']}"),
              "PEFT_E_FORMAT row: \"context\" has a NUL character, or more than 2147483647 bytes");
    CHECK_STR(rt_refused(rt_bert, "{'task':'question_answering'}", "{'question':'c'}"),
              "PEFT_E_FORMAT row: the row has no \"context\"; rows of question_answering are {\"question\", \"context\", \"answers\": "
              "{\"text\": [...], \"answer_start\": [...]}}");
    CHECK_STR(rt_refused(rt_none, NULL, RT_ASK("['a']")),
              "PEFT_E_FORMAT row: the row has text, and there is no tokenizer: give one, or \"input_ids\"");
}

TEST(rows_answers_without_memory) {
    rt_kit k;
    char before[512];
    CHECK_OK(rt_bert(&k, "{'max_length':8,'doc_stride':1}"));
    CHECK_OK(rt_add(&k, "{'question':'c','context':'a','answers':['a']}"));
    (void)snprintf(before, sizeof before, "%s", rt_info(&k));
    peft_status st = PEFT_E_NOMEM;
    for (size_t n = 1; st == PEFT_E_NOMEM && n < 500; n++) {
        peft__mem_fail_after(&k.ctx->mem, n, false);
        st = rt_add(&k, "{'question':'c','context':'a b c x ab . a','answers':['x','ab']}");
        peft__mem_fail_after(&k.ctx->mem, 0, false);
        if (st == PEFT_E_NOMEM) {
            CHECK_STR(rt_info(&k), before);
            CHECK_INT(k.d->offsets.len, 10);
        }
    }
    CHECK_OK(st);
    CHECK_STR(rt_spans(&k), "3-3@0 6-6@1 3-3@1 0-0@1");
    rt_end(&k);
    CHECK_INT(k.host.now, 0);
}

/* ---- verbalizers ------------------------------------------------------------------------------------------------------------------- */

#define RT_SAY "'verbalizer':'yes=\\\" ab\\\", no=\\\" abc\\\"'"

TEST(rows_verbalizer_rows) {
    rt_kit k;
    CHECK_OK(rt_bytes(&k, "{" RT_SAY "}"));
    CHECK_OK(rt_add(&k, "{'text':'abc','label':'no'}"));
    CHECK_OK(rt_add(&k, "{'prompt':'a<|end|>','label':0}"));
    CHECK_STR(rt_show(&k), "9 3/3 9/9; 0 12 11/11"); /* special tokens of the prompt; no end of text */
    CHECK_STR(rt_list(&k, &k.d->candidates), "9 11/11; 9 3/3 9/9; 0 12 11/11; 0 12 3/3 9/9");
    const peft__row *c = k.d->candidates.data;
    CHECK_INT(k.d->answers, 2);
    CHECK(c[0].label == 1 && c[1].label == 1 && c[2].label == 0 && c[3].label == 0);
    CHECK(c[1].key == 0 && c[2].key == 1);
    CHECK_STR(rt_label(&k, 0), "1 named");
    CHECK_STR(rt_info(&k), "{\"rows\":2,\"tokens\":6,\"labelled_tokens\":3,\"max_length\":4,\"truncated\":0,\"task\":\"causal_lm\","
                           "\"labels\":[\"yes\",\"no\"]}");
    CHECK_STATUS(rt_add(&k, "{'text':'abc','label':'maybe'}"), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("the label \"maybe\" is no class of the verbalizer, whose first is \"yes\"");
    CHECK_STATUS(rt_add(&k, "{'text':'abc','label':2}"), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("\"label\" is another number, expected the name of a class of the verbalizer, or its number from 0 to 1");
    CHECK_STATUS(rt_add(&k, "{'text':'abc'}"), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("the row has no \"label\"; rows of causal_lm with a verbalizer are {\"text\" or \"prompt\", \"label\"}");
    CHECK_STATUS(rt_add(&k, "{'text':'','label':0}"), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("the prompt has no tokens");
    CHECK_INT(k.d->candidates.len, 4);
    rt_end(&k);
    CHECK_INT(k.host.now, 0);
}

TEST(rows_verbalizer_options) {
    rt_kit k;
    /* An object, templates, an end of text where it is asked for, a loss on all. */
    CHECK_OK(rt_bytes(&k, "{'verbalizer':{'x':'a','y':'b'},'prompt_template':'{t} ','completion_template':'{topic}','append_eos':true,"
                          "'loss_on':'all'}"));
    CHECK_OK(rt_add(&k, "{'t':'ab','topic':'y'}"));
    CHECK_STR(rt_show(&k), "8 3/3 1/1 12/12");
    CHECK_STR(rt_list(&k, &k.d->candidates), "8 3 0/0; 8 3 1/1");
    rt_end(&k);
    CHECK_OK(rt_spm(&k, "{'verbalizer':'x=a,y= b'}")); /* BOS; words go on with the prompt */
    CHECK_OK(rt_add(&k, "{'text':'ab','label':'x'}"));
    CHECK_STR(rt_list(&k, &k.d->candidates), "1 10 6/6; 1 10 7/7");
    rt_end(&k);
    static const struct {
        const char *options;
        peft_status status;
        const char *says;
    } bad[] = {
        {"{'verbalizer':{'x':'a'}}", PEFT_E_KEY, "option \"verbalizer\" has 1 classes, expected two or more"},
        {"{'verbalizer':{'x':'a','y':''}}", PEFT_E_KEY, "class \"y\" is empty, expected a text that is not empty"},
        {"{'verbalizer':{'x':'a','y':[]}}", PEFT_E_KEY, "class \"y\" is a list, expected a text"},
        {"{'verbalizer':'x=a,x=b'}", PEFT_E_FORMAT, "option \"verbalizer\""},
        {"{'verbalizer':'x=a,y=b','task':'masked_lm'}", PEFT_E_KEY, "is for rows of causal_lm, and \"task\" is masked_lm"},
        {"{'verbalizer':'x=a,y=b','packing':true}", PEFT_E_KEY, "goes with no \"packing\""},
    };
    for (size_t i = 0; i < PEFT__COUNT(bad); i++) {
        CHECK_STATUS(rt_bytes(&k, bad[i].options), bad[i].status);
        CHECK_ERROR_HAS(bad[i].says);
        rt_end(&k);
        CHECK_INT(k.host.now, 0);
    }
    CHECK_STATUS(rt_none(&k, "{'verbalizer':'x=a,y=b'}"), PEFT_E_INVALID);
    CHECK_ERROR_HAS("there is no tokenizer");
    rt_end(&k);
}

/* The prompt gives way, so that all classes' words are whole and see the same. */
TEST(rows_verbalizer_truncation) {
    rt_kit k;
    CHECK_OK(rt_bytes(&k, "{" RT_SAY ",'max_length':4}"));
    CHECK_OK(rt_add(&k, "{'text':'abc ab ab','label':'yes'}"));
    CHECK_STR(rt_list(&k, &k.d->candidates), "9 11 11/11; 9 11 3/3 9/9");
    CHECK_STR(rt_show(&k), "9 11 11/11");
    CHECK_INT(k.d->truncated, 1);
    CHECK_INT(peft__dataset_longest(k.d), 4); /* of a candidate */
    rt_end(&k);
    CHECK_OK(rt_bytes(&k, "{" RT_SAY ",'max_length':4,'truncation':'left'}"));
    CHECK_OK(rt_add(&k, "{'text':'abc b c','label':'yes'}"));
    CHECK_STR(rt_list(&k, &k.d->candidates), "3 2 11/11; 3 2 3/3 9/9");
    rt_end(&k);
    CHECK_STR(rt_refused(rt_bytes, "{" RT_SAY ",'max_length':4,'truncation':'error'}", "{'text':'a b c','label':'yes'}"),
              "PEFT_E_FORMAT row: the row has 7 tokens with the longest words, more than max_length 4");
    CHECK_STR(rt_refused(rt_bytes, "{" RT_SAY ",'max_length':2}", "{'text':'a b c','label':'yes'}"),
              "PEFT_E_FORMAT row: the longest words of the verbalizer have 2 tokens, which leaves none of max_length 2 for the prompt");
}

TEST(rows_verbalizer_without_memory) {
    rt_kit k;
    CHECK_OK(rt_bytes(&k, "{" RT_SAY "}"));
    peft_status st = PEFT_E_NOMEM;
    for (size_t n = 1; st == PEFT_E_NOMEM && n < 500; n++) {
        peft__mem_fail_after(&k.ctx->mem, n, false);
        st = rt_add(&k, "{'text':'abc','label':'no'}");
        peft__mem_fail_after(&k.ctx->mem, 0, false);
        if (st == PEFT_E_NOMEM) {
            CHECK_INT(k.d->rows.len + k.d->candidates.len + k.d->ids.len, 0);
            CHECK_INT(k.d->names.len, 2); /* the classes are the option's */
        }
    }
    CHECK_OK(st);
    CHECK_STR(rt_list(&k, &k.d->candidates), "9 11/11; 9 3/3 9/9");
    rt_end(&k);
}
