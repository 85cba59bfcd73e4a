/* session.c - peft_session: logits, evaluation, generation. */
#include "api/api.h"

peft_status peft_session_create(peft_model *m, peft_adapters *a, const char *expression, const peft_options *options,
                                peft_session **out) {
    peft_status st = PEFT_OK;
    peft__optset own = {0};
    const peft__optset *o = NULL;
    TRY(peft__check_arg(out, "out"));
    *out = NULL;
    TRY(peft__check_handle(m, PEFT__MAGIC_MODEL, "model"));
    if (a != NULL) { TRY(peft__check_handle(a, PEFT__MAGIC_ADAPTERS, "adapters")); }
    if (expression != NULL) { TRY(peft__check_text(expression, "expression")); }
    TRY(peft__pick_options(options, &m->ctx->mem, &peft__schema_session, &own, &o));
    TRY(peft__session_create(m, a, expression, o, out));
out:
    peft__optset_free(&own);
    return st;
}

peft_status peft__session_check(const peft_session *s) {
    peft_status st = peft__check_handle(s, PEFT__MAGIC_SESSION, "session");
    if (st == PEFT_OK && s->running) {
        st = peft__fail(PEFT_E_BUSY, "the session is running: a callback may only cancel it");
    }
    return st;
}

void peft_session_free(peft_session *s) {
    if (!peft__is_handle(s, PEFT__MAGIC_SESSION)) { return; }
    if (peft__session_check(s) != PEFT_OK) { /* rather a leak than a crash after the callback */
        peft__log(s->ctx, PEFT_LOG_ERROR, "peft_session_free was called by a callback of the session: it is not freed");
        return;
    }
    peft__session_free(s);
}

peft_status peft_session_set_adapters(peft_session *s, const char *expression) {
    peft_status st = peft__session_check(s);
    if (st == PEFT_OK && expression != NULL) { st = peft__check_text(expression, "expression"); }
    return st == PEFT_OK ? peft__session_set_adapters(s, expression) : st;
}

peft_status peft_session_logits(peft_session *s, const peft_batch *batch, float *buf, size_t cap, size_t *needed) {
    peft_status st = PEFT_OK;
    size_t n;
    TRY(peft__check_buffer(buf, cap, needed));
    TRY(peft__session_check(s));
    TRY(peft__check_handle(batch, PEFT__MAGIC_BATCH, "batch"));
    if (!peft__session_output_size(s, batch->ids.len, batch->offsets.len > 0 ? batch->offsets.len - 1 : 0, &n)) {
        FAIL(PEFT_E_SHAPE, "the batch has too many tokens: %zu", batch->ids.len);
    }
    if (needed != NULL) { *needed = n; }
    if (cap < n) { FAIL(PEFT_E_BUFFER, "the buffer has room for %zu floats, the logits are %zu", cap, n); }
    if (n == 0) { return PEFT_OK; }
    const peft__session_rows rows = {batch->ids.data, batch->types.len > 0 ? batch->types.data : NULL, batch->offsets.data,
                                     batch->tasks.len > 0 ? batch->tasks.data : NULL, batch->offsets.len - 1,
                                     batch->source_ids.len > 0 ? batch->source_ids.data : NULL, batch->source_offsets.data};
    s->running = true;
    st = peft__session_logits(s, &rows, buf);
    s->running = false;
out:
    return st;
}

peft_status peft_session_evaluate(peft_session *s, const peft_dataset *data, char *buf, size_t cap, size_t *needed) {
    peft_status st = PEFT_OK;
    peft__str text;
    peft__metrics metrics;
    TRY(peft__check_buffer(buf, cap, needed));
    TRY(peft__session_check(s));
    TRY(peft__check_handle(data, PEFT__MAGIC_DATASET, "data"));
    TRY(peft__dataset_check(data, &s->model->config, s->tape.vocab_extra, "evaluation"));
    peft__str_init(&text, &s->ctx->mem);
    s->running = true;
    st = peft__evaluate_model(s->model, &s->base, &s->expression, data, &s->cancel, &metrics, &text, NULL,
                              peft__compute_bf16(&s->opts, s->kernels));
    s->running = false;
    if (st == PEFT_E_CANCELLED) { atomic_store(&s->cancel, false); } /* it has done its work */
    return peft__finish_text(st, &text, buf, cap, needed);
out:
    return st;
}

peft_status peft_session_outputs(peft_session *s, const peft_dataset *data, float *buf, size_t cap, size_t *needed) {
    peft_status st = PEFT_OK;
    peft__metrics metrics;
    TRY(peft__check_buffer(buf, cap, needed));
    TRY(peft__session_check(s));
    TRY(peft__check_handle(data, PEFT__MAGIC_DATASET, "data"));
    const peft__task *task = &s->model->config.task;
    if (peft__task_is_lm(task)) {
        FAIL(PEFT_E_UNSUPPORTED, "the model's task is %s, whose outputs are logits of tokens: see peft_session_logits",
             peft__task_name(task->kind));
    }
    if (data->kind != task->kind) {
        FAIL(PEFT_E_INVALID, "the data has rows for %s, and the model's task is %s",
             data->kind >= 0 ? peft__task_name(data->kind) : "nothing yet", peft__task_name(task->kind));
    }
    size_t n = peft__evaluate_outputs(data, &s->model->config);
    if (needed != NULL) { *needed = n; }
    if (cap < n) { FAIL(PEFT_E_BUFFER, "the buffer has room for %zu floats, the outputs are %zu", cap, n); }
    s->running = true;
    st = peft__evaluate_model(s->model, &s->base, &s->expression, data, &s->cancel, &metrics, NULL, buf,
                              peft__compute_bf16(&s->opts, s->kernels));
    s->running = false;
    if (st == PEFT_E_CANCELLED) { atomic_store(&s->cancel, false); }
out:
    return st;
}

/* ---- generation -------------------------------------------------------------------------------------------------------- */

/* Ids to ids and text, either of which may not be wanted. */
static peft_status session_run(peft_session *s, const peft_tokenizer *tokenizer, const int32_t *ids, size_t n,
                               const peft_options *options, peft_token_fn fn, void *user, peft__vec *out,
                               peft__str *text) {
    peft_status st = PEFT_OK;
    peft__optset own = {0};
    const peft__optset *o = NULL;
    TRY(peft__pick_options(options, &s->ctx->mem, &peft__schema_generate, &own, &o));
    s->running = true;
    st = peft__session_generate(s, tokenizer, ids, n, o, fn, user, out, text);
    s->running = false;
out:
    peft__optset_free(&own);
    return st;
}

peft_status peft_session_generate(peft_session *s, const peft_tokenizer *tokenizer, const int32_t *ids, size_t n,
                                  const peft_options *options, peft_token_fn fn, void *user, int32_t *out, size_t cap,
                                  size_t *needed) {
    peft_status st = PEFT_OK;
    peft__vec made;
    memset(&made, 0, sizeof made);
    TRY(peft__check_buffer(out, cap, needed));
    TRY(peft__session_check(s));
    if (tokenizer != NULL) { TRY(peft__check_handle(tokenizer, PEFT__MAGIC_TOKENIZER, "tokenizer")); }
    TRY(peft__check_bytes(ids, n, "ids"));
    peft__vec_init(&made, &s->ctx->mem, sizeof(int32_t));
    TRY(session_run(s, tokenizer, ids, n, options, fn, user, &made, NULL));
    TRY(peft__copy_elements(made.data, made.len, sizeof(int32_t), out, cap, needed));
out:
    if (made.mem != NULL) { peft__vec_free(&made); }
    return st;
}

peft_status peft__session_encode(const peft_session *s, const peft__tokenizer *t, const char *prompt, size_t len, peft__vec *out) {
    peft_status st = PEFT_OK;
    peft__vec full;
    peft__mem *mem = &s->ctx->mem;
    if (s->model->config.encoder_layers > 0) {
        return peft__tokenizer_encode(t, prompt, len, PEFT_TOKENIZE_SPECIAL | PEFT_TOKENIZE_BOS_EOS, out);
    }
    int32_t bos = peft__tokenizer_bos(t);
    peft__vec_init(&full, mem, sizeof(int32_t));
    TRY(peft__tokenizer_encode(t, prompt, len, PEFT_TOKENIZE_SPECIAL, out));
    TRY(peft__tokenizer_encode(t, prompt, len, PEFT_TOKENIZE_SPECIAL | PEFT_TOKENIZE_BOS_EOS, &full));
    bool has = out->len > 0 && PEFT__VEC_AT(out, int32_t, 0) == bos;
    bool adds = full.len > 0 && PEFT__VEC_AT(&full, int32_t, 0) == bos;
    if (bos >= 0 && !has && (adds || out->len == 0)) {
        TRY(peft__vec_push(out, &bos));
        memmove((int32_t *)out->data + 1, out->data, (out->len - 1) * sizeof bos);
        PEFT__VEC_AT(out, int32_t, 0) = bos;
    }
out:
    peft__vec_free(&full);
    return st;
}

peft_status peft_session_generate_text(peft_session *s, const peft_tokenizer *tokenizer, const char *prompt, size_t len,
                                       const peft_options *options, peft_token_fn fn, void *user, char *buf, size_t cap,
                                       size_t *needed) {
    peft_status st = PEFT_OK;
    peft__str text;
    peft__vec ids;
    TRY(peft__check_buffer(buf, cap, needed));
    TRY(peft__session_check(s));
    TRY(peft__check_handle(tokenizer, PEFT__MAGIC_TOKENIZER, "tokenizer"));
    TRY(peft__check_bytes(prompt, len, "prompt"));
    peft__str_init(&text, &s->ctx->mem);
    peft__vec_init(&ids, &s->ctx->mem, sizeof(int32_t));
    st = peft__session_encode(s, tokenizer->inner, prompt != NULL ? prompt : "", len, &ids);
    if (st == PEFT_OK) { st = session_run(s, tokenizer, ids.data, ids.len, options, fn, user, NULL, &text); }
    peft__vec_free(&ids);
    return peft__finish_text(st, &text, buf, cap, needed);
out:
    return st;
}

/* ---- a token at a time ------------------------------------------------------------------------------------------------- */

static peft_status session_begin(peft_session *s, const peft_tokenizer *tokenizer, const int32_t *ids, size_t n,
                                 const peft_options *options) {
    peft_status st = PEFT_OK;
    peft__optset own = {0};
    const peft__optset *o = NULL;
    TRY(peft__pick_options(options, &s->ctx->mem, &peft__schema_generate, &own, &o));
    s->running = true;
    /* Only its count of references changes. */
    st = peft__session_start(s, (struct peft_tokenizer *)(uintptr_t)tokenizer, ids, n, o);
    s->running = false;
out:
    peft__optset_free(&own);
    return st;
}

peft_status peft_session_start(peft_session *s, const peft_tokenizer *tokenizer, const int32_t *ids, size_t n,
                               const peft_options *options) {
    peft_status st = PEFT_OK;
    TRY(peft__session_check(s));
    if (tokenizer != NULL) { TRY(peft__check_handle(tokenizer, PEFT__MAGIC_TOKENIZER, "tokenizer")); }
    TRY(peft__check_bytes(ids, n, "ids"));
    TRY(session_begin(s, tokenizer, ids, n, options));
out:
    return st;
}

peft_status peft_session_start_text(peft_session *s, const peft_tokenizer *tokenizer, const char *prompt, size_t len,
                                    const peft_options *options) {
    peft_status st = PEFT_OK;
    peft__vec ids;
    TRY(peft__session_check(s));
    TRY(peft__check_handle(tokenizer, PEFT__MAGIC_TOKENIZER, "tokenizer"));
    TRY(peft__check_bytes(prompt, len, "prompt"));
    peft__vec_init(&ids, &s->ctx->mem, sizeof(int32_t));
    st = peft__session_encode(s, tokenizer->inner, prompt != NULL ? prompt : "", len, &ids);
    if (st == PEFT_OK) { st = session_begin(s, tokenizer, ids.data, ids.len, options); }
    peft__vec_free(&ids);
out:
    return st;
}

peft_status peft_session_next(peft_session *s, int32_t *id, char *buf, size_t cap, size_t *needed) {
    peft_status st = PEFT_OK;
    TRY(peft__check_buffer(buf, cap, needed));
    TRY(peft__session_check(s));
    TRY(peft__check_arg(id, "id"));
    s->running = true;
    st = peft__session_next(s, id, buf, cap, needed);
    s->running = false;
out:
    return st;
}

/* One store: a signal handler may call it. */
void peft_session_cancel(peft_session *s) {
    if (peft__is_handle(s, PEFT__MAGIC_SESSION)) { atomic_store(&s->cancel, true); }
}
