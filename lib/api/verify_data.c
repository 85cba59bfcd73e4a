/* verify_data.c - reads every row of a data set, and goes on after those that are wrong.
 *
 * Rows go through the readers that load them (train/rows*.c), one at a time, so that a set may be larger than memory; a row that is
 * wrong leaves no trace, and the rows after it are held against those that were good. With a model its own tokenizer is used, and
 * lengths and ids are compared with what it knows; without one every byte is a token. Rows whose fields no task knows need a
 * template: without one (option prompt_template) only their form is looked at.
 *
 * Left out: labels against those of a model, which depend on what it will be asked for. */
#include <stdio.h>

#include "api/verify.h"
#include "train/rows.h"

typedef struct verify_rows {
    peft__verify *v;
    const char *path;
    struct peft_dataset *d;
    bool own_words;              /* the tokenizer is the model's */
    bool records;                /* rows of fields that no task knows */
    peft__arena keys;            /* of the first record */
    const peft__json *first;     /* that record */
    int64_t line;
    int64_t long_rows, longest, long_line; /* beyond the model's positions: how many, the longest and its line */
    bool words_lack;             /* a row has text, and the model no tokenizer */
    char where[40];
} verify_rows;

/* The options of the data set: what is asked for, and no limit of length. */
static peft_status verify_rows_options(const peft__verify *v, peft__optset *out) {
    static const char *const same[] = {"task", "prompt_template", "completion_template", "verbalizer"};
    peft_status st = PEFT_OK;
    TRY(peft__optset_init(out, &v->ctx->mem, &peft__schema_dataset));
    for (size_t i = 0; i < PEFT__COUNT(same); i++) {
        const char *text = peft__opt_str(v->opts, same[i]);
        if (!peft__opt_is_set(v->opts, same[i])) { continue; }
        TRY(peft__option_is_json(peft__schema_find(out->schema, same[i])) ? peft__opt_set_raw(out, same[i], text)
                                                                           : peft__opt_set_str(out, same[i], text));
    }
    TRY(peft__opt_set_int(out, "max_length", 1 << 24));
    TRY(peft__opt_set_int(out, "max_source_length", 1 << 24));
out:
    return st;
}

static peft_status verify_rows_words(verify_rows *r, struct peft_tokenizer *t) {
    peft_status st = PEFT_OK;
    const peft__verify *v = r->v;
    const char *path = v->base != NULL ? v->base->path : "";
    memset(t, 0, sizeof *t);
    t->magic = PEFT__MAGIC_TOKENIZER;
    t->ctx = v->ctx;
    atomic_init(&t->refs, 1);
    r->own_words = path[0] != '\0' && peft__tokenizer_probe(path);
    if (r->own_words) { st = peft__tokenizer_open(&v->ctx->mem, path, &t->inner); }
    if (st == PEFT_E_NOMEM || t->inner != NULL) { return st; }
    r->own_words = false; /* a base with only ids: texts are looked at all the same */
    TRY(peft__tokenizer_of_bytes(&v->ctx->mem, &t->inner));
out:
    return st;
}

/* ---- a row ------------------------------------------------------------------------------------------------------------------ */

static void verify_rows_record(verify_rows *r, const peft__json *row) {
    for (size_t i = 0; i < r->first->len; i++) {
        const char *key = r->first->keys[i].str;
        const peft__json *x = peft__json_get(row, key), *y = &r->first->items[i];
        if (x == NULL) {
            peft__finding_warn(&r->v->f, r->path, r->where, "key \"%.100s\" of the first row is missing", key);
        } else if (x->kind != y->kind && x->kind != PEFT__JSON_NULL && y->kind != PEFT__JSON_NULL) {
            peft__finding_error(&r->v->f, PEFT_E_FORMAT, r->path, r->where, "key \"%.100s\" is %s, and in the first row %s", key,
                                peft__rows_what(x), peft__rows_what(y));
        }
    }
}

/* The first row that can be read says of what form they are. *record: nothing more is to be done with this one. */
static peft_status verify_rows_form(verify_rows *r, const char *text, size_t n, bool *record) {
    peft_status st = PEFT_OK;
    const peft__json *row = NULL;
    peft__arena a;
    bool first = r->first == NULL;
    *record = r->records;
    if (!first && !r->records) { return PEFT_OK; }
    peft__arena_init(&a, &r->v->ctx->mem);
    st = peft__json_parse(first ? &r->keys : &a, text, n, r->path, &row);
    if (st != PEFT_OK || row->kind != PEFT__JSON_OBJECT) {
        if (st == PEFT_OK) { st = peft__fail(PEFT_E_FORMAT, "the row is no JSON object"); }
        TRY(peft__finding_failed(&r->v->f, st, r->path, r->where));
        st = PEFT_OK;
        *record = true;
        goto out;
    }
    if (first) {
        const peft__optset *o = &r->d->opts;
        bool asked = peft__opt_str(o, "task")[0] != '\0' || peft__opt_str(o, "verbalizer")[0] != '\0' || peft__rows_templates(r->d);
        r->first = row;
        r->records = !asked && !peft__rows_known(row);
        *record = r->records;
    }
    if (r->records) {
        verify_rows_record(r, row);
        r->v->rows++;
    }
out:
    peft__arena_free(&a);
    return st;
}

/* The ids are the row's own, not those of a tokenizer. */
static peft_status verify_rows_given(verify_rows *r, const char *text, size_t n, bool *given) {
    peft_status st = PEFT_OK;
    const peft__json *row = NULL;
    peft__arena a;
    peft__arena_init(&a, &r->v->ctx->mem);
    TRY(peft__json_parse(&a, text, n, r->path, &row));
    *given = peft__json_find(row, "input_ids") != NULL;
out:
    peft__arena_free(&a);
    return st;
}

/* What was just read, against the model. */
static void verify_rows_model(verify_rows *r, bool ids) {
    const struct peft_dataset *d = r->d;
    const peft__config *c = ids && r->v->base != NULL ? &r->v->base->config : NULL;
    int64_t longest = PEFT__MAX(peft__dataset_longest(d), peft__dataset_longest_source(d));
    r->v->tokens += (int64_t)d->ids.len + (int64_t)d->sources.len;
    if (longest > r->longest) { r->longest = longest; }
    if (c == NULL) { return; }
    if (d->max_id >= c->vocab_size) {
        peft__finding_error(&r->v->f, PEFT_E_SHAPE, r->path, r->where, "token id %d is beyond the model's vocabulary of %lld",
                            (int)d->max_id,
                            (long long)c->vocab_size);
    }
    if (c->max_positions == 0 || longest <= c->max_positions) { return; }
    if (r->long_rows++ == 0 || longest >= r->longest) { r->long_line = r->line; }
}

/* Rows are not kept: what later ones are held against is the set's kind, names and form of labels. */
static void verify_rows_forget(struct peft_dataset *d) {
    peft__vec *const all[] = {&d->ids,     &d->labels,   &d->rows,    &d->packed,    &d->types,
                              &d->targets, &d->sources, &d->examples, &d->offsets, &d->candidates};
    for (size_t i = 0; i < PEFT__COUNT(all); i++) { all[i]->len = 0; }
    d->max_id = 0;
}

static peft_status verify_rows_line(verify_rows *r, const char *text, size_t n) {
    peft_status st = PEFT_OK;
    bool record = false;
    (void)snprintf(r->where, sizeof r->where, "line %lld", (long long)r->line);
    TRY(verify_rows_form(r, text, n, &record));
    if (record) { goto out; }
    st = peft__dataset_add_json(r->d, text, n, r->path);
    if (st != PEFT_OK) { return peft__finding_failed(&r->v->f, st, r->path, r->where); }
    bool given = r->own_words;
    if (r->v->base != NULL && !given) {
        TRY(verify_rows_given(r, text, n, &given));
        r->words_lack = r->words_lack || !given;
    }
    r->v->rows++;
    verify_rows_model(r, given);
    verify_rows_forget(r->d);
out:
    return st;
}

static bool verify_rows_blank(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (s[i] != ' ' && s[i] != '\t' && s[i] != '\r') { return false; }
    }
    return true;
}

static peft_status verify_rows_all(verify_rows *r, const peft__file *file) {
    peft_status st = PEFT_OK;
    const char *text = (const char *)file->data;
    size_t at = file->size >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    while (at < file->size && r->v->f.st == PEFT_OK) {
        const char *end = memchr(text + at, '\n', file->size - at);
        size_t n = end != NULL ? (size_t)(end - text) - at : file->size - at;
        r->line++;
        if (!verify_rows_blank(text + at, n)) { TRY(verify_rows_line(r, text + at, n)); }
        at += n + 1;
    }
    if (r->v->rows == 0 && r->v->f.n_errors == 0) { peft__finding_error(&r->v->f, PEFT_E_FORMAT, r->path, "", "there is no row in it"); }
out:
    return st;
}

/* ---- the whole ---------------------------------------------------------------------------------------------------------------- */

static void verify_rows_about(const verify_rows *r, peft__str *out) {
    peft__json_out j;
    peft__json_begin(&j, out, 0);
    peft__json_object(&j);
    peft__json_key(&j, "task");
    peft__json_put_text(&j, r->records || r->d->kind < 0 ? NULL : peft__task_name(r->d->kind));
    peft__json_key(&j, "lines");
    peft__json_put_int(&j, r->line);
    if (r->own_words) {
        peft__json_key(&j, "longest");
        peft__json_put_int(&j, r->longest);
    }
    if (r->d->names.len > 0) {
        peft__json_key(&j, "labels");
        peft__json_put_int(&j, (int64_t)r->d->names.len);
    }
    peft__json_object_end(&j);
}

static void verify_rows_warn(const verify_rows *r) {
    if (r->records && r->first != NULL) {
        peft__finding_warn(&r->v->f, r->path, "",
                           "its rows are of no task by their fields: training needs a prompt_template, and only their "
                           "form was looked at");
    }
    if (r->words_lack) {
        peft__finding_warn(&r->v->f, r->path, "", "its rows have text, and the model has no tokenizer that could be opened");
    }
    if (r->long_rows > 0) {
        peft__finding_warn(&r->v->f, r->path, "",
                           "%lld rows are longer than the model's %lld positions and will be cut; the longest, in line "
                           "%lld, has %lld tokens", (long long)r->long_rows, (long long)r->v->base->config.max_positions,
                           (long long)r->long_line, (long long)r->longest);
    }
}

peft_status peft__verify_data(peft__verify *v, const char *path) {
    peft_status st = PEFT_OK;
    peft__file file;
    peft__optset own = {0};
    struct peft_tokenizer words;
    verify_rows r = {.v = v, .path = path};
    v->kind = "data";
    memset(&file, 0, sizeof file);
    memset(&words, 0, sizeof words);
    peft__arena_init(&r.keys, &v->ctx->mem);
    TRY(verify_rows_words(&r, &words));
    TRY(verify_rows_options(v, &own));
    TRY(peft__dataset_create(v->ctx, &words, &own, &r.d));
    TRY(peft__file_open(&v->ctx->mem, path, false, &file));
    TRY(verify_rows_all(&r, &file));
    verify_rows_about(&r, &v->about);
    verify_rows_warn(&r);
out:
    peft__dataset_release(r.d); /* before what it borrows */
    peft__tokenizer_free(words.inner);
    peft__optset_free(&own);
    peft__file_close(&file);
    peft__arena_free(&r.keys);
    return st;
}
