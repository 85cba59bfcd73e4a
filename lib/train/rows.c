/* rows.c - one row of a data set, from JSON to token ids and labels.
 *
 *   {"input_ids"[, "labels"]}          as they are; labels default to the ids
 *   {"text"}                           BOS? text EOS; loss on all
 *   {"prompt", "completion"}           BOS? prompt completion EOS; loss on completion and EOS
 *   {"messages": [{role, content}]}    the chat format; loss on the assistant's turns
 *   anything, with templates           as prompt and completion (or text, with prompt_template alone)
 *
 * These are rows of causal_lm; other tasks have readers of their own. Any row may have a "task_id". The first token of a row never
 * has a label: nothing comes before it. BOS where the tokenizer's file says so; EOS unless append_eos is off.
 * Left out: weights of tokens, which only batches have. */
#include "train/rows.h"

static peft_status rows_label(struct peft_dataset *d, bool labelled) {
    peft_status st = PEFT_OK;
    while (d->labels.len < d->ids.len) {
        int32_t none = -100;
        int32_t *id = &PEFT__VEC_AT(&d->ids, int32_t, d->labels.len);
        TRY(peft__vec_push(&d->labels, labelled ? id : &none));
    }
out:
    return st;
}

peft_status peft__rows_encode(struct peft_dataset *d, const char *text, size_t len, int32_t flags, bool labelled) {
    peft_status st = PEFT_OK;
    TRY(peft__tokenizer_encode(d->tokenizer->inner, text, len, flags, &d->ids));
    TRY(rows_label(d, labelled));
out:
    return st;
}

peft_status peft__rows_bos(struct peft_dataset *d) {
    peft_status st = PEFT_OK;
    const peft__tokenizer *t = d->tokenizer->inner;
    size_t start = d->ids.len;
    TRY(peft__tokenizer_encode(t, "", 0, PEFT_TOKENIZE_BOS_EOS, &d->ids));
    if (d->ids.len > start && PEFT__VEC_AT(&d->ids, int32_t, start) == peft__tokenizer_bos(t)) {
        d->ids.len = start + 1;
    } else {
        d->ids.len = start;
    }
    TRY(rows_label(d, false));
out:
    return st;
}

static peft_status rows_end(struct peft_dataset *d, bool labelled) {
    peft_status st = PEFT_OK;
    int32_t eos = peft__tokenizer_eos(d->tokenizer->inner);
    if (eos >= 0 && peft__opt_bool(&d->opts, "append_eos")) { TRY(peft__vec_push(&d->ids, &eos)); }
    TRY(rows_label(d, labelled));
out:
    return st;
}

static peft_status rows_pair(struct peft_dataset *d, const char *prompt, size_t prompt_len, const char *completion,
                             size_t completion_len) {
    peft_status st = PEFT_OK;
    bool all = strcmp(peft__opt_str(&d->opts, "loss_on"), "all") == 0;
    TRY(peft__rows_bos(d));
    TRY(peft__rows_encode(d, prompt, prompt_len, PEFT_TOKENIZE_SPECIAL, all || completion == NULL));
    if (completion != NULL) { TRY(peft__rows_encode(d, completion, completion_len, PEFT__TOKENIZE_INSIDE, true)); }
    TRY(rows_end(d, true));
out:
    return st;
}

static peft_status rows_templates(struct peft_dataset *d, const peft__json *row) {
    peft_status st = PEFT_OK;
    const char *prompt = peft__opt_str(&d->opts, "prompt_template"), *rest = peft__opt_str(&d->opts, "completion_template");
    peft__str a, b;
    peft__str_init(&a, &d->ctx->mem);
    peft__str_init(&b, &d->ctx->mem);
    TRY(peft__template_render(prompt, row, &a));
    TRY(peft__template_render(rest, row, &b));
    TRY(rows_pair(d, peft__str_c(&a), a.len, rest[0] != '\0' ? peft__str_c(&b) : NULL, b.len));
out:
    peft__str_free(&a);
    peft__str_free(&b);
    return st;
}

/* Piece by piece between the bounds of the assistant's turns, as generation will meet them. spans: begin, end, begin, ... */
static peft_status rows_spans(struct peft_dataset *d, const peft__str *text, const peft__vec *spans) {
    peft_status st = PEFT_OK;
    bool all = strcmp(peft__opt_str(&d->opts, "loss_on"), "all") == 0;
    size_t at = 0;
    for (size_t i = 0; 2 * i + 1 < spans->len; i++) {
        size_t begin = PEFT__VEC_AT(spans, size_t, 2 * i), end = PEFT__VEC_AT(spans, size_t, 2 * i + 1);
        TRY(peft__rows_encode(d, text->data + at, begin - at, PEFT_TOKENIZE_SPECIAL | (at > 0 ? PEFT__TOKENIZE_INSIDE : 0), all));
        TRY(peft__rows_encode(d, text->data + begin, end - begin, PEFT_TOKENIZE_SPECIAL | PEFT__TOKENIZE_INSIDE, true));
        at = end;
    }
    if (text->len > at) { TRY(peft__rows_encode(d, text->data + at, text->len - at, PEFT_TOKENIZE_SPECIAL | PEFT__TOKENIZE_INSIDE, all)); }
out:
    return st;
}

static peft_status rows_messages(struct peft_dataset *d, const peft__json *messages) {
    peft_status st = PEFT_OK;
    peft__vec list, spans;
    peft__str text;
    peft__vec_init(&list, &d->ctx->mem, sizeof(peft__chat_message));
    peft__vec_init(&spans, &d->ctx->mem, sizeof(size_t));
    peft__str_init(&text, &d->ctx->mem);
    if (messages->kind != PEFT__JSON_ARRAY) { FAIL(PEFT_E_FORMAT, "\"messages\" is no array"); }
    for (size_t i = 0; i < messages->len; i++) {
        const peft__json *role = peft__json_find(&messages->items[i], "role");
        const peft__json *content = peft__json_find(&messages->items[i], "content");
        if (role == NULL || role->kind != PEFT__JSON_STRING || content == NULL || content->kind != PEFT__JSON_STRING) {
            FAIL(PEFT_E_FORMAT, "message %zu needs \"role\" and \"content\", both text", i);
        }
        peft__chat_message m = {role->str, content->str, role->len, content->len};
        TRY(peft__vec_push(&list, &m));
    }
    TRY(peft__chat_render(d->tokenizer->inner, list.data, list.len, false, &text, &spans));
    int32_t bos = peft__tokenizer_bos(d->tokenizer->inner);
    size_t start = d->ids.len;
    TRY(peft__rows_bos(d));
    TRY(rows_spans(d, &text, &spans));
    if (d->ids.len > start + 1 && PEFT__VEC_AT(&d->ids, int32_t, start) == bos &&
        PEFT__VEC_AT(&d->ids, int32_t, start + 1) == bos) { /* the format writes BOS itself */
        size_t tail = d->ids.len - start - 1;
        memmove(&PEFT__VEC_AT(&d->ids, int32_t, start), &PEFT__VEC_AT(&d->ids, int32_t, start + 1), tail * sizeof(int32_t));
        memmove(&PEFT__VEC_AT(&d->labels, int32_t, start), &PEFT__VEC_AT(&d->labels, int32_t, start + 1), tail * sizeof(int32_t));
        d->ids.len--;
        d->labels.len--;
    }
out:
    peft__vec_free(&list);
    peft__vec_free(&spans);
    peft__str_free(&text);
    return st;
}

static peft_status rows_ids(struct peft_dataset *d, const peft__json *ids, const peft__json *labels) {
    peft_status st = PEFT_OK;
    TRY(peft__rows_ints(ids, "input_ids", false, &d->ids));
    if (labels == NULL) {
        TRY(rows_label(d, true));
    } else {
        TRY(peft__rows_ints(labels, "labels", true, &d->labels));
        if (d->labels.len != d->ids.len) {
            FAIL(PEFT_E_FORMAT, "\"labels\" has %zu elements, and \"input_ids\" %zu", labels->len, ids->len);
        }
    }
out:
    return st;
}

static peft_status rows_plain(struct peft_dataset *d, const peft__json *row) {
    peft_status st = PEFT_OK;
    const peft__json *messages = peft__json_find(row, "messages"), *text, *prompt, *completion;
    if (messages != NULL) { return rows_messages(d, messages); }
    TRY(peft__rows_text(row, "text", &text));
    TRY(peft__rows_text(row, "prompt", &prompt));
    TRY(peft__rows_text(row, "completion", &completion));
    if (prompt != NULL && completion != NULL) {
        TRY(rows_pair(d, prompt->str, prompt->len, completion->str, completion->len));
    } else if (text != NULL) {
        TRY(rows_pair(d, text->str, text->len, NULL, 0));
    } else {
        FAIL(PEFT_E_FORMAT, "the row has none of \"text\", \"prompt\" with \"completion\", \"messages\", \"input_ids\"; "
                            "for other fields give prompt_template");
    }
out:
    return st;
}

static peft_status rows_task(const struct peft_dataset *d, const peft__json *row, int32_t *out) {
    const peft__json *task = peft__json_find(row, "task_id");
    *out = (int32_t)peft__opt_int(&d->opts, "task_id");
    if (task == NULL) { return PEFT_OK; }
    if (task->kind != PEFT__JSON_NUMBER || !task->is_int || task->i < 0 || task->i > INT32_MAX) {
        return peft__fail(PEFT_E_FORMAT, "\"task_id\" is no whole number from 0");
    }
    *out = (int32_t)task->i;
    return PEFT_OK;
}

static peft_status rows_causal(struct peft_dataset *d, peft__row_in *in) {
    peft_status st = PEFT_OK;
    peft__row row = peft__row_begin(d, in->task);
    const peft__json *ids = peft__json_find(in->json, "input_ids");
    bool templates = peft__rows_templates(d);
    if (ids != NULL && !templates) {
        TRY(rows_ids(d, ids, peft__json_find(in->json, "labels")));
    } else {
        TRY(peft__rows_tokenizer(d));
        TRY(templates ? rows_templates(d, in->json) : rows_plain(d, in->json));
    }
    TRY(peft__row_cut(d, &row, &in->cut));
    TRY(peft__row_end(d, &row, &d->rows));
out:
    return st;
}

peft_status peft__row_parse(struct peft_dataset *d, const peft__json *row, peft__arena *scratch) {
    static peft_status (*const readers[PEFT__TASK_COUNT])(struct peft_dataset *, peft__row_in *) = {
        [PEFT__TASK_CAUSAL_LM] = rows_causal,        [PEFT__TASK_MASKED_LM] = peft__rows_masked,
        [PEFT__TASK_SEQ2SEQ_LM] = peft__rows_seq2seq, [PEFT__TASK_SEQUENCE] = peft__rows_sequence,
        [PEFT__TASK_TOKENS] = peft__rows_tokens,     [PEFT__TASK_SPAN] = peft__rows_span,
        [PEFT__TASK_EMBEDDING] = peft__rows_embedding,
    };
    peft_status st = PEFT_OK;
    peft__row_in in = {.json = row, .scratch = scratch};
    if (row->kind != PEFT__JSON_OBJECT) { FAIL(PEFT_E_FORMAT, "the row is no JSON object"); }
    TRY(rows_task(d, row, &in.task));
    TRY(peft__rows_kind(d, row, &d->kind));
    TRY(d->word_ends.len > 0 ? peft__rows_verbalized(d, &in) : readers[d->kind](d, &in));
    d->truncated += in.cut;
out:
    return st;
}
