/* rows_tasks_kit.h - what tests of rows by task share: a small WordPiece tokenizer, sets under options, rows as text. */
#ifndef ROWS_TASKS_KIT_H
#define ROWS_TASKS_KIT_H

#include "api_kit.h"
#include "train/rows.h"

/* One token a line: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4, a 5, b 6, c 7, ##a 8, ##b 9, ##c 10, x 11, full stop 12. */
#define RT_VOCAB "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\n##a\n##b\n##c\nx\n.\n"

typedef struct rt_kit {
    api_host host;
    peft_context *ctx;
    peft_tokenizer *tok;
    peft_dataset *d;
} rt_kit;

/* file: NULL, or of a tokenizer, with its text; options with ' for ". */
static inline peft_status rt_begin(rt_kit *k, const char *file, const char *text, const char *config, const char *options) {
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    const char *dir = runner_tmpdir();
    memset(k, 0, sizeof *k);
    TRY(api_context(&k->host, &k->ctx));
    if (file != NULL) {
        TRY(text_write(&k->ctx->mem, dir, file, text));
        if (config != NULL) { TRY(text_write(&k->ctx->mem, dir, "tokenizer_config.json", config)); }
        TRY(peft_tokenizer_open(k->ctx, dir, &k->tok));
    }
    TRY(api_options(k->ctx, "dataset", options != NULL ? options : "{}", &o));
    TRY(peft_dataset_create(k->ctx, k->tok, o, &k->d));
out:
    peft_options_free(o);
    return st;
}

static inline peft_status rt_bert(rt_kit *k, const char *options) { return rt_begin(k, "vocab.txt", RT_VOCAB, NULL, options); }
static inline peft_status rt_bytes(rt_kit *k, const char *options) {
    return rt_begin(k, "tokenizer.json", TEXT_BYTES, "{\"eos_token\":\"<|end|>\",\"bos_token\":null}", options);
}
static inline peft_status rt_spm(rt_kit *k, const char *options) {
    return rt_begin(k, "tokenizer.json", TEXT_SPM, "{\"eos_token\":\"</s>\",\"bos_token\":\"<s>\",\"add_bos_token\":true}", options);
}
static inline peft_status rt_none(rt_kit *k, const char *options) { return rt_begin(k, NULL, NULL, NULL, options); }

static inline void rt_end(rt_kit *k) {
    peft_dataset_free(k->d);
    peft_tokenizer_free(k->tok);
    peft_context_free(k->ctx);
}

/* A row with ' for ". */
static inline peft_status rt_add(rt_kit *k, const char *json) {
    char text[2048];
    (void)snprintf(text, sizeof text, "%s", json);
    for (char *c = text; *c != '\0'; c++) {
        if (*c == '\'') { *c = '"'; }
    }
    return peft_dataset_add_json(k->d, text, strlen(text));
}

static inline int rt_token(const peft_dataset *d, int64_t i, char *out, size_t room) {
    char label[16] = "", type[16] = "";
    int32_t l = PEFT__VEC_AT(&d->labels, int32_t, i), t = d->types.len > 0 ? PEFT__VEC_AT(&d->types, int32_t, i) : 0;
    if (l != -100) { (void)snprintf(label, sizeof label, "/%d", (int)l); }
    if (t != 0) { (void)snprintf(type, sizeof type, ":%d", (int)t); }
    return snprintf(out, room, "%d%s%s", (int)PEFT__VEC_AT(&d->ids, int32_t, i), label, type);
}

/* "id/label:type ..." of rows of a list, "; " between; labels of -100 and types of 0 are not written. */
static inline const char *rt_list(const rt_kit *k, const peft__vec *rows) {
    static char out[4096];
    size_t at = 0;
    out[0] = '\0';
    for (size_t r = 0; r < rows->len; r++) {
        const peft__row *row = &PEFT__VEC_AT(rows, peft__row, r);
        for (int64_t i = 0; i < row->n && at + 64 < sizeof out; i++) {
            at += (size_t)snprintf(out + at, sizeof out - at, "%s", i > 0 ? " " : r > 0 ? "; " : "");
            at += (size_t)rt_token(k->d, row->first + i, out + at, sizeof out - at);
        }
    }
    return out;
}

static inline const char *rt_show(const rt_kit *k) { return rt_list(k, &k->d->rows); }

/* "label", with "named" and "list", and [targets] of a row. */
static inline const char *rt_label(const rt_kit *k, size_t i) {
    static char out[512];
    const peft__row *r = &PEFT__VEC_AT(&k->d->rows, peft__row, i);
    size_t at = (size_t)snprintf(out, sizeof out, "%d%s%s", (int)r->label, r->named ? " named" : "", r->list ? " list" : "");
    for (int64_t t = 0; t < r->n_targets; t++) {
        at += (size_t)snprintf(out + at, sizeof out - at, "%s%g", t > 0 ? "," : " ",
                               (double)PEFT__VEC_AT(&k->d->targets, float, r->target + t));
    }
    return out;
}

static inline const char *rt_ints(const peft__vec *v, int64_t first, int64_t n) {
    static char out[1024];
    size_t at = 0;
    out[0] = '\0';
    for (int64_t i = 0; i < n && at + 16 < sizeof out; i++) {
        at += (size_t)snprintf(out + at, sizeof out - at, "%s%d", i > 0 ? " " : "", (int)PEFT__VEC_AT(v, int32_t, first + i));
    }
    return out;
}

static inline const char *rt_info(const rt_kit *k) {
    static char text[512];
    return peft_dataset_info_json(k->d, text, sizeof text, NULL) == PEFT_OK ? text : "failed";
}

/* What one row says when it is refused, or "taken". */
static inline const char *rt_refused(peft_status (*open)(rt_kit *, const char *), const char *options, const char *json) {
    static char out[1024];
    rt_kit k;
    peft_status st = open(&k, options);
    if (st == PEFT_OK) { st = rt_add(&k, json); }
    (void)snprintf(out, sizeof out, "%s %s", peft_status_name(st), st == PEFT_OK ? "taken" : peft_last_error());
    rt_end(&k);
    return out;
}

#endif
