/* train_rows_tasks_test.c - rows of classifications, masked and encoder-decoder models and embeddings: ids, types, labels by hand;
 * which task a row is of; what a set says of itself. */
#include "rows_tasks_kit.h"

TEST(rows_tasks_sequence_texts) {
    rt_kit k;
    CHECK_OK(rt_bert(&k, NULL));
    CHECK_OK(rt_add(&k, "{'text':'a abc','label':1}"));
    CHECK_OK(rt_add(&k, "{'text':'a','text_pair':'b x','label':0}"));
    CHECK_OK(rt_add(&k, "{'text':'','label':2}"));
    CHECK_OK(rt_add(&k, "{'text':'x [MASK]'}")); /* without a label */
    CHECK_OK(rt_add(&k, "{'sentence1':'a','sentence2':'b','label':null,'text':null}"));
    CHECK_STR(rt_show(&k), "2 5 5 9 10 3; 2 5 3 6:1 11:1 3:1; 2 3; 2 11 4 3; 2 5 3 6:1 3:1");
    CHECK_INT(k.d->types.len, k.d->ids.len); /* of the rows before the first type as well */
    CHECK_INT(k.d->kind, PEFT__TASK_SEQUENCE);
    CHECK_STR(rt_label(&k, 0), "1 1");
    CHECK_STR(rt_label(&k, 2), "2 2");
    CHECK_STR(rt_label(&k, 3), "-100");
    CHECK_STR(rt_info(&k), "{\"rows\":5,\"tokens\":23,\"labelled_tokens\":0,\"max_length\":6,\"truncated\":0,"
                           "\"task\":\"sequence_classification\",\"labelled_rows\":3,\"labels\":3}");
    CHECK_INT(k.d->max_id, 11);
    CHECK_INT(k.d->max_type, 1);
    rt_end(&k);
    CHECK_INT(k.host.now, 0);
}

/* Decoders: the template is theirs. */
TEST(rows_tasks_sequence_of_decoders) {
    rt_kit k;
    CHECK_OK(rt_bytes(&k, NULL));
    CHECK_OK(rt_add(&k, "{'text':'abc ab','label':'x'}"));
    CHECK_OK(rt_add(&k, "{'text':'a','text_pair':'b','label':'x'}"));
    CHECK_STR(rt_show(&k), "9 11; 0 1:1"); /* no template at all; the second text has type 1, as tokenizers say */
    CHECK_STATUS(rt_add(&k, "{'text':'','label':'x'}"), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("row: the row is empty");
    rt_end(&k);
    CHECK_OK(rt_spm(&k, NULL));
    CHECK_OK(rt_add(&k, "{'text':'ab','label':0}"));
    CHECK_STR(rt_show(&k), "1 10");
    rt_end(&k);
}

TEST(rows_tasks_sequence_ids) {
    rt_kit k;
    CHECK_OK(rt_none(&k, "{'max_length':4}"));
    CHECK_OK(rt_add(&k, "{'input_ids':[7,8,9],'label':3}"));
    CHECK_OK(rt_add(&k, "{'input_ids':[7,8,9],'token_type_ids':[0,1,2],'label':0}"));
    CHECK_OK(rt_add(&k, "{'input_ids':[1,2,3,4,5],'token_type_ids':[0,0,0,1,1],'label':0}"));
    CHECK_OK(rt_add(&k, "{'input_ids':[6]}"));
    CHECK_STR(rt_show(&k), "7 8 9; 7 8:1 9:2; 1 2 3 4:1; 6");
    CHECK_INT(k.d->types.len, 11);
    CHECK_INT(k.d->truncated, 1);
    CHECK_INT(k.d->max_type, 2);
    CHECK_INT(k.d->max_id, 9);
    CHECK_STATUS(rt_add(&k, "{'input_ids':[1,2],'token_type_ids':[0],'label':0}"), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("\"token_type_ids\" has 1 elements, and \"input_ids\" 2");
    CHECK_STATUS(rt_add(&k, "{'input_ids':[1],'token_type_ids':[-1],'label':0}"), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("\"token_type_ids\"[0] is no token id");
    CHECK_STATUS(rt_add(&k, "{'text':'a','label':0}"), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("there is no tokenizer");
    rt_end(&k);
    CHECK_OK(rt_none(&k, "{'max_length':2,'truncation':'left'}"));
    CHECK_OK(rt_add(&k, "{'input_ids':[1,2,3],'token_type_ids':[0,0,1],'label':0}"));
    CHECK_STR(rt_show(&k), "2 3:1");
    rt_end(&k);
}

TEST(rows_tasks_sequence_labels) {
    rt_kit k;
    CHECK_OK(rt_bert(&k, NULL));
    CHECK_OK(rt_add(&k, "{'text':'a','label':'good'}"));
    CHECK_OK(rt_add(&k, "{'text':'a','labels':'bad'}"));
    CHECK_OK(rt_add(&k, "{'text':'a','label':'good'}"));
    CHECK_STR(rt_label(&k, 0), "0 named");
    CHECK_STR(rt_label(&k, 1), "1 named");
    CHECK_STR(rt_label(&k, 2), "0 named");
    CHECK(strstr(rt_info(&k), "\"labels\":[\"good\",\"bad\"]") != NULL);
    CHECK_STATUS(rt_add(&k, "{'text':'a','label':1}"), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("the row's label is a number, and that of a row before it a name");
    CHECK_STATUS(rt_add(&k, "{'text':'a','label':['good']}"), PEFT_E_FORMAT);
    CHECK_STATUS(rt_add(&k, "{'text':'a','label':''}"), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("the name of a class is empty");
    CHECK_STATUS(rt_add(&k, "{'text':'a','label':true}"), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("\"label\" is true or false, expected a number, the name of a class, or a list of either");
    rt_end(&k);
    CHECK_OK(rt_bert(&k, NULL));
    CHECK_OK(rt_add(&k, "{'text':'a','label':2.5}"));
    CHECK_OK(rt_add(&k, "{'text':'a','label':-3}"));
    CHECK_OK(rt_add(&k, "{'text':'a','label':4.0}"));
    CHECK_OK(rt_add(&k, "{'text':'a','label':-100}"));
    CHECK_STR(rt_label(&k, 0), "-100 2.5");
    CHECK_STR(rt_label(&k, 1), "-100 -3");
    CHECK_STR(rt_label(&k, 2), "4 4");
    CHECK_STR(rt_label(&k, 3), "-100");
    CHECK(strstr(rt_info(&k), "\"labelled_rows\":3,\"labels\":null") != NULL);
    CHECK_STATUS(rt_add(&k, "{'text':'a','label':1e300}"), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("does not fit a float");
    rt_end(&k);
}

TEST(rows_tasks_sequence_lists) {
    rt_kit k;
    CHECK_OK(rt_bert(&k, NULL));
    CHECK_OK(rt_add(&k, "{'text':'a','labels':['x','y']}"));
    CHECK_OK(rt_add(&k, "{'text':'a','label':['z','x']}"));
    CHECK_OK(rt_add(&k, "{'text':'a','label':[]}"));
    CHECK_STR(rt_label(&k, 0), "-100 named list 0,1");
    CHECK_STR(rt_label(&k, 1), "-100 named list 2,0");
    CHECK_STR(rt_label(&k, 2), "-100 list");
    CHECK(strstr(rt_info(&k), "\"labelled_rows\":3,\"labels\":[\"x\",\"y\",\"z\"]") != NULL);
    CHECK_STATUS(rt_add(&k, "{'text':'a','label':['x',1]}"), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("\"label\"[1] is a number, expected a name, as before it");
    CHECK_STATUS(rt_add(&k, "{'text':'a','label':[{}]}"), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("\"label\"[0] is an object, expected a number or a name");
    CHECK_INT(k.d->targets.len, 4);
    rt_end(&k);
    CHECK_OK(rt_bert(&k, NULL));
    CHECK_OK(rt_add(&k, "{'text':'a','labels':[0,1,0.5]}"));
    CHECK_STR(rt_label(&k, 0), "-100 list 0,1,0.5");
    CHECK(strstr(rt_info(&k), "\"labels\":null") != NULL);
    CHECK_STATUS(rt_add(&k, "{'text':'a','labels':['x']}"), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("is a list of names, and that of a row before it a list of numbers");
    rt_end(&k);
}

TEST(rows_tasks_sequence_truncation) {
    rt_kit k;
    CHECK_OK(rt_bert(&k, "{'max_length':7}"));
    CHECK_OK(rt_add(&k, "{'text':'a','text_pair':'x x x b c','label':0}"));
    CHECK_OK(rt_add(&k, "{'text':'a b c x','text_pair':'x c b a','label':0}"));
    CHECK_OK(rt_add(&k, "{'text':'a b c x a b c','label':0}"));
    CHECK_STR(rt_show(&k), "2 5 3 11:1 11:1 11:1 3:1; 2 5 6 3 11:1 7:1 3:1; 2 5 6 7 11 5 3");
    CHECK_INT(k.d->truncated, 3);
    rt_end(&k);
    CHECK_OK(rt_bert(&k, "{'max_length':7,'truncation':'left'}"));
    CHECK_OK(rt_add(&k, "{'text':'a','text_pair':'x x x b c','label':0}"));
    CHECK_OK(rt_add(&k, "{'text':'a b c x','text_pair':'x c b a','label':0}"));
    CHECK_OK(rt_add(&k, "{'text':'a b c x a b c','label':0}"));
    CHECK_STR(rt_show(&k), "2 5 3 11:1 6:1 7:1 3:1; 2 7 11 3 6:1 5:1 3:1; 2 7 11 5 6 7 3");
    rt_end(&k);
    CHECK_STR(rt_refused(rt_bert, "{'max_length':7,'truncation':'error'}", "{'text':'a a a a a a','label':0}"),
              "PEFT_E_FORMAT row: the row has 8 tokens, more than max_length 7");
    CHECK_STR(rt_refused(rt_bert, "{'max_length':1}", "{'text':'a','label':0}"),
              "PEFT_E_INVALID row: option \"max_length\": 1 tokens at most, and the tokenizer adds 2 by itself");
}

TEST(rows_tasks_sequence_templates) {
    rt_kit k;
    CHECK_OK(rt_bert(&k, "{'task':'sequence_classification','prompt_template':'{t}. {n}','completion_template':'{topic}'}"));
    CHECK_OK(rt_add(&k, "{'t':'a','n':'b','topic':'World'}"));
    CHECK_STR(rt_show(&k), "2 5 12 6 3");
    CHECK_STR(rt_label(&k, 0), "0 named");
    CHECK_STR(PEFT__VEC_AT(&k.d->names, const char *, 0), "World");
    CHECK_STATUS(rt_add(&k, "{'t':'a','n':'b'}"), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("no field \"topic\"");
    rt_end(&k);
}

TEST(rows_tasks_token_words) {
    rt_kit k;
    CHECK_OK(rt_bert(&k, NULL));
    CHECK_OK(rt_add(&k, "{'tokens':['ab','c','a.'],'labels':['B','O','I']}"));
    CHECK_OK(rt_add(&k, "{'tokens':['x','','abc'],'tags':['O','B','B']}")); /* the empty word has no token */
    CHECK_OK(rt_add(&k, "{'tokens':['x','a'],'labels':[null,'O']}"));
    CHECK_STR(rt_show(&k), "2 5/0 9 7/1 5/2 12 3; 2 11/1 5/0 9 10 3; 2 11 5/1 3");
    CHECK_INT(k.d->kind, PEFT__TASK_TOKENS);
    CHECK(PEFT__VEC_AT(&k.d->rows, peft__row, 0).named);
    CHECK_STR(rt_info(&k), "{\"rows\":3,\"tokens\":17,\"labelled_tokens\":6,\"max_length\":7,\"truncated\":0,"
                           "\"task\":\"token_classification\",\"labels\":[\"B\",\"O\",\"I\"]}");
    CHECK_INT(k.d->max_id, 12); /* labels are no tokens */
    rt_end(&k);
    CHECK_OK(rt_bert(&k, "{'max_length':4}"));
    CHECK_OK(rt_add(&k, "{'tokens':['ab','c','a.'],'ner_tags':[70,0,2]}"));
    CHECK_OK(rt_add(&k, "{'tokens':['a'],'labels':[-100]}"));
    CHECK_STR(rt_show(&k), "2 5/70 9 3; 2 5 3");
    CHECK(!PEFT__VEC_AT(&k.d->rows, peft__row, 0).named);
    CHECK(strstr(rt_info(&k), "\"labels\":71") != NULL);
    CHECK_INT(k.d->max_id, 9);
    rt_end(&k);
}

/* Byte-level: words after a space, as Hugging Face's add_prefix_space has them; the first token keeps its label. */
TEST(rows_tasks_token_words_of_bytes) {
    rt_kit k;
    CHECK_OK(rt_bytes(&k, NULL));
    CHECK_OK(rt_add(&k, "{'tokens':['ab','a',' abc'],'labels':[1,0,2]}"));
    CHECK_STR(rt_show(&k), "11/1 10/0 3/2 9");
    rt_end(&k);
    CHECK_OK(rt_spm(&k, NULL));
    CHECK_OK(rt_add(&k, "{'tokens':['ab','a'],'labels':[1,0]}"));
    CHECK_STR(rt_show(&k), "1 10/1 8/0");
    rt_end(&k);
}

TEST(rows_tasks_token_ids) {
    rt_kit k;
    CHECK_OK(rt_none(&k, "{'task':'token_classification','max_length':3}"));
    CHECK_OK(rt_add(&k, "{'input_ids':[5,6],'labels':[1,-100]}"));
    CHECK_OK(rt_add(&k, "{'input_ids':[5,6,7,8],'labels':[0,0,2,3]}"));
    CHECK_OK(rt_add(&k, "{'input_ids':[5]}"));
    CHECK_STR(rt_show(&k), "5/1 6; 5/0 6/0 7/2; 5");
    CHECK_INT(k.d->max_id, 7);
    CHECK_STATUS(rt_add(&k, "{'input_ids':[5],'labels':[]}"), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("\"labels\" has 0 elements, and \"input_ids\" 1");
    CHECK_STATUS(rt_add(&k, "{'text':'a'}"), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("the row has no \"tokens\"; rows of token_classification are {\"tokens\", \"labels\"}");
    rt_end(&k);
    CHECK_STR(rt_refused(rt_bert, NULL, "{'tokens':['a','b'],'labels':[1]}"),
              "PEFT_E_FORMAT row: \"labels\" has 1 elements, and \"tokens\" 2");
    CHECK_STR(rt_refused(rt_bert, NULL, "{'tokens':['a','b'],'labels':['x',1]}"),
              "PEFT_E_FORMAT row: \"labels\"[1] is a number, expected the name of a class, as others of the list are");
    CHECK_STR(rt_refused(rt_bert, NULL, "{'tokens':['a'],'labels':[-1]}"),
              "PEFT_E_FORMAT row: \"labels\"[0] is a number, expected a class number from 0, or -100, as others of the list are");
    CHECK_STR(rt_refused(rt_bert, NULL, "{'tokens':'a','labels':[1]}"),
              "PEFT_E_FORMAT row: \"tokens\" is a text, expected a list of words");
    CHECK_STR(rt_refused(rt_bert, NULL, "{'tokens':[1],'labels':[1]}"), "PEFT_E_FORMAT row: \"tokens\"[0] is a number, expected a text");
    CHECK_STR(rt_refused(rt_bert, NULL, "{'tokens':['a'],'labels':5}"), "PEFT_E_FORMAT row: \"labels\" is no array");
    CHECK_STR(rt_refused(rt_none, NULL, "{'tokens':['a'],'labels':[5]}"),
              "PEFT_E_FORMAT row: the row has text, and there is no tokenizer: give one, or \"input_ids\"");
}

TEST(rows_tasks_embedding) {
    rt_kit k;
    CHECK_OK(rt_bert(&k, "{'max_length':4}"));
    CHECK_OK(rt_add(&k, "{'anchor':'a','positive':'ab x','negative':'c'}"));
    CHECK_OK(rt_add(&k, "{'sentence1':'b','sentence2':'','negative':null,'score':3.5}"));
    CHECK_STR(rt_show(&k), "2 5 3 2 5 9 3 2 7 3; 2 6 3 2 3");
    const peft__row *r = k.d->rows.data;
    CHECK_INT(r[0].part[0], 3);
    CHECK_INT(r[0].part[1], 4);
    CHECK_INT(r[0].n, 10);
    CHECK_INT(r[1].part[0] + r[1].part[1], r[1].n); /* no negative */
    CHECK_INT(r[0].n_targets, 0);
    CHECK_STR(rt_label(&k, 1), "-100 3.5");
    CHECK_INT(k.d->truncated, 1);
    CHECK_STR(rt_info(&k), "{\"rows\":2,\"tokens\":15,\"labelled_tokens\":0,\"max_length\":4,\"truncated\":1,\"task\":\"embedding\"}");
    peft__config c = {.vocab_size = 13, .max_positions = 4}; /* texts are read one by one */
    CHECK_OK(peft__dataset_check(k.d, &c, 0, "training"));
    c.max_positions = 3;
    CHECK_STATUS(peft__dataset_check(k.d, &c, 0, "training"), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("has 4 tokens, more than the model's 3 positions: lower max_length");
    rt_end(&k);
    CHECK_STR(rt_refused(rt_bert, "{'task':'embedding'}", "{'anchor':'a'}"),
              "PEFT_E_FORMAT row: the row has no \"positive\"; "
              "rows of embedding are {\"anchor\", \"positive\"[, \"negative\"][, \"score\"]}");
    CHECK_STR(rt_refused(rt_bytes, NULL, "{'anchor':'a','positive':''}"), "PEFT_E_FORMAT row: \"positive\" has no tokens");
    CHECK_STR(rt_refused(rt_bert, NULL, "{'anchor':'a','positive':'b','score':'high'}"),
              "PEFT_E_FORMAT row: \"score\" is a text, expected a number");
    CHECK_STR(rt_refused(rt_bert, NULL, "{'anchor':'a','positive':3}"), "PEFT_E_FORMAT row: \"positive\" is no text");
}

TEST(rows_tasks_masked) {
    rt_kit k;
    CHECK_OK(rt_bert(&k, "{'task':'masked_lm','max_length':6}"));
    CHECK_OK(rt_add(&k, "{'text':'a [MASK] b'}"));
    CHECK_OK(rt_add(&k, "{'text':'a b c x a b'}"));
    CHECK_OK(rt_add(&k, "{'input_ids':[5,4,3],'labels':[5,6,-100]}"));
    CHECK_OK(rt_add(&k, "{'input_ids':[2,5,4,6,3,0]}"));
    CHECK_STR(rt_show(&k), "2 5/5 4 6/6 3; 2 5/5 6/6 7/7 11/11 3; 5/5 4/6 3; 2 5/5 4 6/6 3 0");
    const peft__row *r = k.d->rows.data;
    CHECK(r[0].maskable && !r[2].maskable && r[3].maskable);
    CHECK_STR(rt_info(&k), "{\"rows\":4,\"tokens\":20,\"labelled_tokens\":10,\"max_length\":6,\"truncated\":1,\"task\":\"masked_lm\"}");
    rt_end(&k);
    CHECK_STR(rt_refused(rt_bert, "{'task':'masked_lm'}", "{'prompt':'a','completion':'b'}"),
              "PEFT_E_FORMAT row: the row has no \"text\"; rows of masked_lm are {\"text\"} or {\"input_ids\"[, \"labels\"]}");
    CHECK_STR(rt_refused(rt_bert, "{'task':'masked_lm'}", "{'input_ids':[1,2],'labels':[1]}"),
              "PEFT_E_FORMAT row: \"labels\" has 1 elements, and \"input_ids\" 2");
}

/* A template of T5: the text and </s>. */
#define RT_T5_POST                                                                                   \
    "{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},"      \
    "{\"SpecialToken\":{\"id\":\"</s>\",\"type_id\":0}}],\"special_tokens\":{\"</s>\":{\"id\":\"</s>\",\"ids\":[2]}}}"
#define RT_T5                                                                         \
    TEXT_JSON(TEXT_SPM_ADDED, TEXT_SPM_NORMALIZER, "null", RT_T5_POST, TEXT_SPM_DECODER, \
              TEXT_BPE(TEXT_SPM_VOCAB, TEXT_SPM_MERGES, ",\"unk_token\":\"<unk>\",\"byte_fallback\":true,\"fuse_unk\":true"))

static peft_status rt_t5(rt_kit *k, const char *options) {
    return rt_begin(k, "tokenizer.json", RT_T5, "{\"eos_token\":\"</s>\",\"pad_token\":\"<unk>\"}", options);
}

TEST(rows_tasks_seq2seq) {
    rt_kit k;
    CHECK_OK(rt_t5(&k, "{'task':'seq2seq_lm','max_source_length':4,'max_length':3}"));
    CHECK_OK(rt_add(&k, "{'source':'ab a','target':'a'}"));
    CHECK_OK(rt_add(&k, "{'document':'ab ab ab ab','summary':'ab ab ab'}"));
    CHECK_OK(rt_add(&k, "{'input_ids':[6,7,2],'labels':[8,-100,2]}"));
    CHECK_OK(rt_add(&k, "{'input_ids':[9,9,9,9,9],'labels':[2]}"));
    CHECK_STR(rt_show(&k), "8/8 2/2; 10/10 10/10 2/2; 8/8 0 2/2; 2/2");
    const peft__row *r = k.d->rows.data;
    CHECK_STR(rt_ints(&k.d->sources, r[0].source, r[0].n_source), "10 8 2");
    CHECK_STR(rt_ints(&k.d->sources, r[1].source, r[1].n_source), "10 10 10 2");
    CHECK_STR(rt_ints(&k.d->sources, r[2].source, r[2].n_source), "6 7 2");
    CHECK_STR(rt_ints(&k.d->sources, r[3].source, r[3].n_source), "9 9 9 9");
    CHECK_STR(rt_info(&k), "{\"rows\":4,\"tokens\":9,\"labelled_tokens\":8,\"max_length\":3,\"truncated\":2,\"task\":\"seq2seq_lm\","
                           "\"source_tokens\":14,\"max_source_length\":4}");
    CHECK_INT(k.d->max_id, 10);
    peft__config c = {.vocab_size = 11, .max_positions = 3};
    CHECK_STATUS(peft__dataset_check(k.d, &c, 0, "training"), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("has 4 tokens, more than the model's 3 positions: lower max_source_length");
    rt_end(&k);
    CHECK_OK(rt_t5(&k, "{'task':'seq2seq_lm','prompt_template':'{x} a','completion_template':'{y.0}'}"));
    CHECK_OK(rt_add(&k, "{'x':'ab','y':['ab','a']}"));
    CHECK_STR(rt_show(&k), "10/10 2/2");
    CHECK_STR(rt_ints(&k.d->sources, 0, 3), "10 8 2");
    rt_end(&k);
    static const char options[] = "{'task':'seq2seq_lm','truncation':'error','max_source_length':2}";
    CHECK_STR(rt_refused(rt_t5, options, "{'source':'ab ab','target':'a'}"),
              "PEFT_E_FORMAT row: the row has 3 tokens, more than max_source_length 2");
    CHECK_STR(rt_refused(rt_t5, options, "{'input_ids':[1,1,1],'labels':[1]}"),
              "PEFT_E_FORMAT row: the row's \"input_ids\" are 3 tokens, more than max_source_length 2");
    CHECK_STR(rt_refused(rt_t5, options, "{'source':'ab'}"),
              "PEFT_E_FORMAT row: the row has no \"target\"; "
              "rows of seq2seq_lm are {\"source\", \"target\"} or {\"input_ids\", \"labels\"}");
    CHECK_STR(rt_refused(rt_t5, options, "{'target':'ab'}"),
              "PEFT_E_FORMAT row: the row has no \"source\"; "
              "rows of seq2seq_lm are {\"source\", \"target\"} or {\"input_ids\", \"labels\"}");
    CHECK_STR(rt_refused(rt_t5, options, "{'input_ids':[],'labels':[1]}"), "PEFT_E_FORMAT row: the row has no tokens for the encoder");
    CHECK_STR(rt_refused(rt_t5, options, "{'input_ids':[1],'labels':[]}"), "PEFT_E_FORMAT row: the row is empty");
}

TEST(rows_tasks_kinds) {
    rt_kit k;
    CHECK_OK(rt_bert(&k, NULL));
    CHECK_INT(k.d->kind, -1);
    CHECK(strstr(rt_info(&k), "\"task\":null") != NULL);
    CHECK_STATUS(rt_add(&k, "{'text':'a','label':{}}"), PEFT_E_FORMAT);
    CHECK_INT(k.d->kind, -1); /* a refused row settles nothing */
    CHECK_OK(rt_add(&k, "{'text':'a'}"));
    CHECK_INT(k.d->kind, PEFT__TASK_CAUSAL_LM);
    CHECK_STATUS(rt_add(&k, "{'text':'a','label':1}"), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("the row is of sequence_classification by its fields, and those before it are of causal_lm: give the option \"task\"");
    CHECK_STATUS(rt_add(&k, "{'tokens':['a'],'tags':[0]}"), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("the row is of token_classification by its fields, and those before it are of causal_lm");
    CHECK_OK(rt_add(&k, "{'input_ids':[5,6],'labels':[5,6]}"));
    CHECK_OK(rt_add(&k, "{'prompt':'a','completion':'b','label':1}"));
    CHECK_INT(k.d->rows.len, 3);
    rt_end(&k);
    CHECK_OK(rt_bert(&k, "{'task':'causal_lm'}")); /* the option wins over fields */
    CHECK_OK(rt_add(&k, "{'text':'a','label':1}"));
    CHECK_STR(rt_show(&k), "2 5/5 3/3");
    rt_end(&k);
    CHECK_STR(rt_refused(rt_bert, "{'task':'sequence_classification'}", "{'prompt':'a','label':1}"),
              "PEFT_E_FORMAT row: the row has no \"text\"; rows of sequence_classification are {\"text\"[, \"text_pair\"], \"label\"} or "
              "{\"input_ids\"[, \"token_type_ids\"], \"label\"}");
    peft_options *o = NULL;
    CHECK_OK(rt_none(&k, NULL));
    CHECK_STATUS(api_options(k.ctx, "dataset", "{'task':'regression'}", &o), PEFT_E_KEY);
    CHECK_ERROR_HAS("key \"task\" is \"regression\", expected causal_lm|masked_lm|");
    rt_end(&k);
}

TEST(rows_tasks_packing) {
    rt_kit k;
    CHECK_STATUS(rt_bert(&k, "{'packing':true,'task':'embedding'}"), PEFT_E_KEY);
    CHECK_ERROR_HAS("option \"packing\" is for rows of causal_lm, and \"task\" is embedding");
    rt_end(&k);
    CHECK_OK(rt_bert(&k, "{'packing':true}"));
    CHECK_STATUS(rt_add(&k, "{'text':'a','label':1}"), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("option \"packing\" is for rows of causal_lm, and these are of sequence_classification");
    CHECK_INT(k.d->rows.len, 0);
    CHECK_INT(k.d->kind, -1);
    rt_end(&k);
}

TEST(rows_tasks_batches) {
    rt_kit k;
    peft_batch *b = NULL;
    static const int32_t ids[] = {1, 2, 3}, labels[] = {1, -100, 0};
    const int64_t offsets[] = {0, 3};
    CHECK_OK(rt_none(&k, "{'task':'token_classification'}"));
    CHECK_OK(peft_batch_create(k.ctx, &b));
    CHECK_OK(peft_batch_set_i32(b, "input_ids", ids, offsets, 1));
    CHECK_OK(peft_batch_set_i32(b, "labels", labels, offsets, 1));
    CHECK_OK(peft_dataset_add(k.d, b));
    CHECK_STR(rt_show(&k), "1/1 2 3/0"); /* the first keeps its label */
    rt_end(&k);
    CHECK_OK(rt_none(&k, "{'task':'embedding'}"));
    CHECK_STATUS(peft_dataset_add(k.d, b), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("and the set's are of embedding");
    peft_batch_free(b);
    rt_end(&k);
}

TEST(rows_tasks_check) {
    rt_kit k;
    peft__config c = {.vocab_size = 13, .type_vocab = 2};
    CHECK_OK(rt_bert(&k, NULL));
    CHECK_OK(rt_add(&k, "{'text':'a','label':null}"));
    CHECK_STATUS(peft__dataset_labelled(k.d, "training"), PEFT_E_INVALID);
    CHECK_ERROR_HAS("no row of the training data has a \"label\"");
    CHECK_OK(rt_add(&k, "{'text':'.','label':[]}"));
    CHECK_OK(peft__dataset_labelled(k.d, "training"));
    CHECK_OK(rt_add(&k, "{'input_ids':[1,2],'token_type_ids':[0,1]}"));
    CHECK_OK(peft__dataset_check(k.d, &c, 0, "training"));
    c.vocab_size = 12;
    CHECK_STATUS(peft__dataset_check(k.d, &c, 0, "training"), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("token id 12");
    c.vocab_size = 13;
    c.type_vocab = 1;
    CHECK_STATUS(peft__dataset_check(k.d, &c, 0, "training"), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("has token type 1, and the model's types are 0 to 0");
    rt_end(&k);
    CHECK_OK(rt_bert(&k, NULL));
    CHECK_OK(rt_add(&k, "{'tokens':['a'],'labels':[-100]}"));
    CHECK_STATUS(peft__dataset_labelled(k.d, "training"), PEFT_E_INVALID);
    CHECK_ERROR_HAS("do all rows lack \"labels\"?");
    rt_end(&k);
}

/* A bad row of a file takes everything back that the file gave. */
TEST(rows_tasks_files) {
    rt_kit k;
    char before[512], where[4200];
    const char *dir = runner_tmpdir(), *path = runner_path(dir, "rows.jsonl");
    (void)snprintf(where, sizeof where, "%s line 3", path);
    CHECK_OK(rt_bert(&k, NULL));
    CHECK_OK(rt_add(&k, "{\"text\":\"a\",\"label\":[\"x\"]}"));
    (void)snprintf(before, sizeof before, "%s", rt_info(&k));
    CHECK_OK(text_write(&k.ctx->mem, dir, "rows.jsonl",
                        "{\"text\":\"a\",\"label\":[\"y\"]}\n{\"text\":\"a\",\"text_pair\":\"b\",\"label\":[\"x\"]}\n{\"text\":7}\n"));
    CHECK_STATUS(peft_dataset_load_jsonl(k.d, path), PEFT_E_FORMAT);
    CHECK_ERROR_HAS(where);
    CHECK_ERROR_HAS("\"text\" is no text");
    CHECK_STR(rt_info(&k), before);
    CHECK_INT(k.d->types.len, 0);
    CHECK_INT(k.d->targets.len, 1);
    CHECK_INT(k.d->names.len, 1);
    CHECK_INT(k.d->max_type, 0);
    rt_end(&k);
    CHECK_INT(k.host.now, 0);
}

/* Every allocation of a load fails once: the set is as it was each time. */
TEST(rows_tasks_without_memory) {
    rt_kit k;
    char before[512];
    CHECK_OK(rt_bert(&k, "{'max_length':6,'truncation':'left'}"));
    CHECK_OK(rt_add(&k, "{'text':'a','label':['x']}"));
    (void)snprintf(before, sizeof before, "%s", rt_info(&k));
    peft_status st = PEFT_E_NOMEM;
    size_t n = 0;
    for (n = 1; st == PEFT_E_NOMEM && n < 500; n++) {
        peft__mem_fail_after(&k.ctx->mem, n, false);
        st = rt_add(&k, "{'text':'a b c','text_pair':'abc abc','label':['x','y','z']}");
        peft__mem_fail_after(&k.ctx->mem, 0, false);
        if (st == PEFT_E_NOMEM) { CHECK_STR(rt_info(&k), before); }
    }
    CHECK_OK(st);
    CHECK(n > 5);
    CHECK_STR(rt_show(&k), "2 5 3; 2 7 3 9:1 10:1 3:1");
    rt_end(&k);
    CHECK_INT(k.host.now, 0);
}
