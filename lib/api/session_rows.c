/* session_rows.c - peft_session: rows that are continued together. */
#include "api/api.h"

static peft_status session_row_put(peft_session *s, const char *expression, const peft_tokenizer *tokenizer, const int32_t *ids, size_t n,
                               const peft_options *options, int64_t *row) {
    peft_status st = PEFT_OK;
    peft__optset own = {0};
    const peft__optset *o = NULL;
    if (expression != NULL) { TRY(peft__check_text(expression, "expression")); }
    TRY(peft__pick_options(options, &s->ctx->mem, &peft__schema_generate, &own, &o));
    /* Only its count of references changes. */
    TRY(peft__rows_add(s, expression, (struct peft_tokenizer *)(uintptr_t)tokenizer, ids, n, o, row));
out:
    peft__optset_free(&own);
    return st;
}

peft_status peft_session_row_add(peft_session *s, const char *expression, const peft_tokenizer *tokenizer, const int32_t *ids,
                                 size_t n, const peft_options *options, int64_t *row) {
    peft_status st = PEFT_OK;
    TRY(peft__session_check(s));
    TRY(peft__check_arg(row, "row"));
    if (tokenizer != NULL) { TRY(peft__check_handle(tokenizer, PEFT__MAGIC_TOKENIZER, "tokenizer")); }
    TRY(peft__check_bytes(ids, n, "ids"));
    TRY(session_row_put(s, expression, tokenizer, ids, n, options, row));
out:
    return st;
}

peft_status peft_session_row_add_text(peft_session *s, const char *expression, const peft_tokenizer *tokenizer, const char *prompt,
                                      size_t len, const peft_options *options, int64_t *row) {
    peft_status st = PEFT_OK;
    peft__vec ids;
    TRY(peft__session_check(s));
    TRY(peft__check_arg(row, "row"));
    TRY(peft__check_handle(tokenizer, PEFT__MAGIC_TOKENIZER, "tokenizer"));
    TRY(peft__check_bytes(prompt, len, "prompt"));
    peft__vec_init(&ids, &s->ctx->mem, sizeof(int32_t));
    st = peft__session_encode(s, tokenizer->inner, prompt != NULL ? prompt : "", len, &ids);
    if (st == PEFT_OK) { st = session_row_put(s, expression, tokenizer, ids.data, ids.len, options, row); }
    peft__vec_free(&ids);
out:
    return st;
}

peft_status peft_session_row_remove(peft_session *s, int64_t row) {
    peft_status st = peft__session_check(s);
    return st == PEFT_OK ? peft__rows_remove(s, row) : st;
}

peft_status peft_session_rows_next(peft_session *s, peft_row_fn fn, void *user, size_t *left) {
    size_t unwanted;
    peft_status st = peft__session_check(s);
    if (st != PEFT_OK) { return st; }
    s->running = true;
    st = peft__rows_next(s, fn, user, left != NULL ? left : &unwanted);
    s->running = false;
    return st;
}
