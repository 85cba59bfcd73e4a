/* datasets.c - rows of JSON Lines that mean harm, of each task: file and line of each are named; and unusual rows that are right. */
#include "hostile.h"

typedef struct rows_bad {
    const char *row; /* with ' for " */
    const char *culprit;
} rows_bad;

typedef struct rows_task {
    const char *name, *options, *good; /* with ' for " */
    const rows_bad *bad;
    size_t n;
} rows_task;

static const rows_bad rows_syntax[] = {
    {"5", "no JSON object"}, {"'ab'", "no JSON object"}, {"null", "no JSON object"}, {"[]", "no JSON object"},
    {"true", "no JSON object"}, {"{", NULL}, {"}", NULL},
    {"{'text':'ab'", NULL}, {"{'text':'ab'}}", NULL}, {"{'text':'ab}", NULL}, {"{text:'ab'}", NULL}, {"{'text':'ab',}", NULL},
    {"{'text':'ab'} {'text':'ab'}", NULL}, {"{'text':'ab'},", NULL}, {"{'text':'\xFF\xFE'}", NULL}, {"{'text':'\xED\xA0\x80'}", NULL},
    {"{'text':'\\x'}", NULL}, {"{'text':'ab','text':'abc'}", "text"}, {"{'text':'a\tb'}", NULL}, {"{'text':NaN}", NULL},
    {"{'text':tru}", NULL},
    {"{'input_ids':[1e]}", NULL}, {"{'input_ids':[01]}", NULL}, {"{'input_ids':[1,]}", NULL}, {"{'input_ids':[0x1]}", NULL}, {"\x01", NULL},
    {"{'text':'ab'}x", NULL}, {"# {'text':'ab'}", NULL}, {"// a", NULL}, {"text", NULL}, {"ab,c", NULL},
};
static const rows_bad rows_causal[] = {
    {"{}", "none of"}, {"{'txt':'ab'}", "none of"}, {"{'text':5}", "text"}, {"{'text':null}", "none of"}, {"{'text':true}", "text"},
    {"{'text':['ab']}", "text"},
    {"{'text':{}}", "text"}, {"{'prompt':'ab'}", "none of"}, {"{'completion':'ab'}", "none of"},
    {"{'prompt':5,'completion':'ab'}", "prompt"},
    {"{'prompt':'ab','completion':5}", "completion"}, {"{'prompt':['a'],'completion':'ab'}", "prompt"},
    {"{'input_ids':'1 2'}", "input_ids"},
    {"{'input_ids':5}", "input_ids"}, {"{'input_ids':{}}", "input_ids"}, {"{'input_ids':[]}", "empty"},
    {"{'input_ids':[1.5]}", "input_ids"},
    {"{'input_ids':[-1]}", "input_ids"}, {"{'input_ids':[1,99999999999]}", "input_ids"}, {"{'input_ids':[2147483648]}", "input_ids"},
    {"{'input_ids':['1']}", "input_ids"}, {"{'input_ids':[[1]]}", "input_ids"}, {"{'input_ids':[null]}", "input_ids"},
    {"{'input_ids':[true]}", "input_ids"},
    {"{'input_ids':[1e400]}", "1e400"}, {"{'input_ids':[1,2],'labels':[1]}", "labels"}, {"{'input_ids':[1,2],'labels':[1,2,3]}", "labels"},
    {"{'input_ids':[1,2],'labels':'x'}", "labels"}, {"{'input_ids':[1,2],'labels':5}", "labels"},
    {"{'input_ids':[1,2],'labels':[1,1.5]}", "labels"},
    {"{'input_ids':[1,2],'labels':[1,-1]}", "labels"}, {"{'input_ids':[1,2],'labels':[1,'a']}", "labels"},
    {"{'input_ids':[1,2],'labels':[1,-101]}", "labels"},
    {"{'messages':5}", "messages"}, {"{'messages':{}}", "messages"}, {"{'messages':'ab'}", "messages"},
    {"{'input_ids':[1.0]}", "input_ids"},
};
static const rows_bad rows_classes[] = {
    {"{}", "text"}, {"{'label':1}", "text"}, {"{'text':5,'label':1}", "text"}, {"{'text':'ab','label':{}}", "label"},
    {"{'text':'ab','label':true}", "label"}, {"{'text':'ab','label':1e400}", "1e400"},
    {"{'text':'ab','label':[{}]}", "label"}, {"{'text':'ab','label':''}", "label"},
    {"{'text':'ab','text_pair':5,'label':1}", "text_pair"}, {"{'input_ids':[-1],'label':1}", "input_ids"},
    {"{'input_ids':[1,2],'token_type_ids':[0],'label':1}", "token_type_ids"},
    {"{'input_ids':[1],'token_type_ids':'a','label':1}", "token_type_ids"},
    {"{'input_ids':[1],'token_type_ids':[-1],'label':1}", "token_type_ids"},
    {"{'input_ids':[1],'token_type_ids':[1.5],'label':1}", "token_type_ids"},
};
static const rows_bad rows_tokens[] = {
    {"{}", "tokens"}, {"{'labels':[1]}", "tokens"}, {"{'tokens':'a','labels':[1]}", "tokens"}, {"{'tokens':[1],'labels':[1]}", "tokens"},
    {"{'tokens':['a',null],'labels':[1,1]}", "tokens"}, {"{'tokens':['a','b'],'labels':[1]}", "labels"},
    {"{'tokens':['a'],'labels':5}", "labels"},
    {"{'tokens':['a'],'labels':[1.5]}", "labels"}, {"{'tokens':['a'],'labels':[-1]}", "labels"},
    {"{'tokens':['a'],'labels':[{}]}", "labels"},
    {"{'tokens':['a','b'],'labels':[1,'x']}", "labels"}, {"{'tokens':['a'],'labels':[true]}", "labels"},
    {"{'tokens':[],'labels':[]}", NULL},
    {"{'input_ids':[1,2],'labels':[1]}", "labels"}, {"{'input_ids':[1],'labels':['a']}", "label"},
    {"{'tokens':['a'],'labels':[1e400]}", "1e400"},
};
static const rows_bad rows_questions[] = {
    {"{}", "question"}, {"{'question':5,'context':'ab','answers':{'text':[],'answer_start':[]}}", "question"},
    {"{'question':'a','answers':{'text':[],'answer_start':[]}}", "context"},
    {"{'question':'a','context':5,'answers':{'text':[],'answer_start':[]}}", "context"},
    {"{'question':'a','context':'ab','answers':5}", "answers"},
    {"{'question':'a','context':'ab','answers':{'text':['a'],'answer_start':[0,1]}}", "answer_start"},
    {"{'question':'a','context':'ab','answers':{'text':['a'],'answer_start':[-1]}}", "answer"},
    {"{'question':'a','context':'ab','answers':{'text':['a'],'answer_start':[1.5]}}", "answer"},
    {"{'question':'a','context':'ab','answers':{'text':['a'],'answer_start':[1]}}", "answer"},
    {"{'question':'a','context':'ab','answers':{'text':['a'],'answer_start':[9223372036854775807]}}", "answer"},
    {"{'question':'a','context':'ab','answers':{'text':['abab'],'answer_start':[0]}}", "answer"},
    {"{'question':'a','context':'ab','answers':{'text':[''],'answer_start':[0]}}", "answer"},
    {"{'question':'a','context':'ab','answers':{'text':[5],'answer_start':[0]}}", "answer"},
    {"{'question':'a','context':'a\\u0000b','answers':{'text':[],'answer_start':[]}}", "context"},
};
static const rows_bad rows_pairs[] = {
    {"{}", "anchor"}, {"{'anchor':'a'}", "positive"}, {"{'positive':'a'}", "anchor"}, {"{'anchor':5,'positive':'a'}", "anchor"},
    {"{'anchor':'a','positive':5}", "positive"},
    {"{'anchor':'a','positive':'b','negative':5}", "negative"}, {"{'anchor':'a','positive':'b','score':'x'}", "score"},
    {"{'anchor':'a','positive':'b','score':[]}", "score"},
    {"{'anchor':'a','positive':'b','score':1e400}", "1e400"}, {"{'anchor':'a','positive':''}", "positive"},
    {"{'anchor':'','positive':'a'}", "anchor"},
};
static const rows_bad rows_seq2seq[] = {
    {"{}", "source"}, {"{'source':'a'}", "target"}, {"{'target':'a'}", "source"}, {"{'source':5,'target':'a'}", "source"},
    {"{'source':'a','target':5}", "target"},
    {"{'input_ids':[1]}", "labels"}, {"{'input_ids':[],'labels':[1]}", "encoder"}, {"{'input_ids':[1],'labels':[]}", "empty"},
    {"{'input_ids':[-1],'labels':[1]}", "input_ids"},
    {"{'input_ids':[1],'labels':[1.5]}", "labels"}, {"{'input_ids':[1],'labels':'a'}", "labels"},
    {"{'input_ids':'a','labels':[1]}", "input_ids"},
};

#define ROWS_TASK(name, options, good, bad) {name, options, good, bad, PEFT__COUNT(bad)}
static const rows_task rows_tasks[] = {
    ROWS_TASK("JSON", "{}", "{'text':'ab abc'}", rows_syntax),
    ROWS_TASK("causal_lm", "{}", "{'text':'ab abc'}", rows_causal),
    ROWS_TASK("sequence_classification", "{'task':'sequence_classification'}", "{'text':'ab','label':1}", rows_classes),
    ROWS_TASK("token_classification", "{'task':'token_classification'}", "{'tokens':['ab','c'],'labels':[0,2]}", rows_tokens),
    ROWS_TASK("question_answering", "{'task':'question_answering'}",
        "{'question':'a','context':'ab abc','answers':{'text':['abc'],'answer_start':[3]}}", rows_questions),
    ROWS_TASK("embedding", "{'task':'embedding'}", "{'anchor':'ab','positive':'abc'}", rows_pairs),
    ROWS_TASK("seq2seq_lm", "{'task':'seq2seq_lm'}", "{'source':'ab','target':'abc'}", rows_seq2seq),
};

static size_t rows_unquote(char *out, size_t room, const char *text) {
    int n = snprintf(out, room, "%s", text);
    for (char *c = out; *c != '\0'; c++) { *c = *c == '\'' ? '"' : *c; }
    return (size_t)n;
}

static peft_status rows_open(hostile *h, uint64_t *print) {
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    peft_dataset *d = NULL;
    int32_t ids[256], labels[256];
    size_t n = 0;
    TRY(api_options(h->ctx, "dataset", h->options, &o));
    TRY(peft_dataset_create(h->ctx, h->words, o, &d));
    TRY(peft_dataset_load_jsonl(d, h->what));
    for (size_t i = 0; print != NULL && i < peft_dataset_size(d); i++) {
        if (i == 0) { *print = 1; }
        TRY(peft_dataset_row(d, i, ids, labels, PEFT__COUNT(ids), &n));
        *print = hostile_hash(hostile_hash(*print, ids, n * sizeof *ids), labels, n * sizeof *labels);
    }
out:
    peft_dataset_free(d);
    peft_options_free(o);
    return st;
}

static void rows_refused(hostile *h, const rows_task *task) {
    char text[1200], what[300];
    for (size_t i = 0; i < task->n; i++) {
        char row[400], good[200];
        (void)rows_unquote(row, sizeof row, task->bad[i].row);
        (void)rows_unquote(good, sizeof good, task->good);
        (void)snprintf(what, sizeof what, "%s: %.200s", task->name, row);
        int n = snprintf(text, sizeof text, "%s\n%s\n%s\n", good, row, good);
        hostile_refused(h, what, text, (size_t)n, PEFT_E_FORMAT, "line 2");
        hostile_holds(h, what, task->bad[i].culprit == NULL || strstr(h->said, task->bad[i].culprit) != NULL);
    }
}

/* Rows to predict for have no labels, numbers of a regression any sign, answers no places where their texts are. */
static void rows_unlabelled(hostile *h, const char *task) {
    static const char *const rows[][2] = {
        {"sequence_classification", "{'text':'ab'}"}, {"sequence_classification", "{'input_ids':[1],'label':null}"},
        {"sequence_classification", "{'text':'ab','label':-1.5}"}, {"sequence_classification", "{'text':'ab','label':[]}"},
        {"token_classification", "{'tokens':['a']}"}, {"question_answering", "{'question':'a','context':'ab'}"},
        {"question_answering", "{'question':'a','context':'ab','answers':{'text':['a']}}"},
        {"question_answering", "{'question':'a','context':'ab','answers':{'text':[],'answer_start':[]}}"},
        {"embedding", "{'anchor':'a','positive':'b','score':0,'negative':null}"},
    };
    char row[400];
    for (size_t i = 0; i < PEFT__COUNT(rows); i++) {
        if (strcmp(rows[i][0], task) == 0) { hostile_opens(h, rows[i][1], row, rows_unquote(row, sizeof row, rows[i][1])); }
    }
}

/* The rows of the good file otherwise written. */
static void rows_taken(hostile *h) {
    static const char *const ways[][2] = {
        {"a byte order mark", "\xEF\xBB\xBF{\"text\":\"ab abc\"}\n{\"text\":\"abc\"}\n"},
        {"CRLF", "{\"text\":\"ab abc\"}\r\n{\"text\":\"abc\"}\r\n"},
        {"no end of the last line", "{\"text\":\"ab abc\"}\n{\"text\":\"abc\"}"},
        {"empty lines", "\n\n{\"text\":\"ab abc\"}\n\n \n\t\r\n{\"text\":\"abc\"}\n\n"},
        {"spaces", " \t{ \"text\" : \"ab abc\" } \t\n{\"text\" :\"abc\"}  \n"},
        {"escapes", "{\"te\\u0078t\":\"\\u0061b abc\"}\n{\"text\":\"abc\"}\n"},
        {"unknown keys", "{\"id\":5,\"text\":\"ab abc\",\"meta\":{\"a\":[null]}}\n{\"text\":\"abc\",\"\":\"\"}\n"},
        {"a mark in front of each line", "\xEF\xBB\xBF{\"text\":\"ab abc\"}\n\xEF\xBB\xBF{\"text\":\"abc\"}\n"},
        {"null where another field would be",
         "{\"text\":\"ab abc\",\"prompt\":null,\"completion\":null}\n{\"text\":\"abc\",\"messages\":null}\n"},
    };
    static const char *const others[][2] = {
        {"a row of one token", "{\"input_ids\":[1]}\n"}, {"a row without labels", "{\"input_ids\":[1,2],\"labels\":[-100,-100]}\n"},
        {"a text of bytes that no token is of", "{\"text\":\"\\u0000\\u0001 zq\"}\n"}, {"the largest id", "{\"input_ids\":[2147483647]}\n"},
    };
    for (size_t i = 0; i < PEFT__COUNT(ways); i++) { hostile_taken(h, ways[i][0], ways[i][1], strlen(ways[i][1])); }
    for (size_t i = 0; i < PEFT__COUNT(others); i++) { hostile_opens(h, others[i][0], others[i][1], strlen(others[i][1])); }
}

void hostile_datasets(void) {
    hostile h;
    if (hostile_begin(&h, "data sets", rows_open) && hostile_write(h.dir, "tokenizer.json", TEXT_BYTES, strlen(TEXT_BYTES))) {
        hostile_holds(&h, "the tokenizer opens", peft_tokenizer_open(h.ctx, h.dir, &h.words) == PEFT_OK);
        for (size_t i = 0; i < PEFT__COUNT(rows_tasks); i++) {
            char good[400];
            size_t n = rows_unquote(good, sizeof good, rows_tasks[i].good);
            h.options = rows_tasks[i].options;
            if (hostile_write(h.dir, "rows.jsonl", good, n) && hostile_take(&h, "rows.jsonl", true)) {
                rows_refused(&h, &rows_tasks[i]);
                rows_unlabelled(&h, rows_tasks[i].name);
            }
        }
        static const char two[] = "{\"text\":\"ab abc\"}\n{\"text\":\"abc\"}\n";
        h.options = "{}";
        if (hostile_write(h.dir, "rows.jsonl", two, sizeof two - 1) && hostile_take(&h, "rows.jsonl", true)) { rows_taken(&h); }
        hostile_refused(&h, "nothing", "", 0, PEFT_E_FORMAT, "no row");
        hostile_refused(&h, "empty lines", "\n\r\n \n", 5, PEFT_E_FORMAT, "no row");
    }
    hostile_end(&h);
}
