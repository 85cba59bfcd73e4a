/* rows_dump.c - rows of a data set on the command line, for comparison with other libraries.
 *
 *   rows_dump <tokenizer> [key=value ...]    rows as JSON, one a line, on stdin; options of the schema "dataset"
 *
 * On stdout one JSON object: "names" of the classes, "rows", each with "ids", "labels", "types", "label", "targets", "span",
 * "example", "part", "source" and "offsets" (pairs), and "candidates" with "ids", "labels" and "label". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/train.h"

static void rows_dump_ints(peft__json_out *j, const char *key, const peft__vec *v, int64_t first, int64_t n) {
    peft__json_key(j, key);
    peft__json_array(j);
    for (int64_t i = first; i < first + n; i++) { peft__json_put_int(j, v->len > 0 ? PEFT__VEC_AT(v, int32_t, i) : 0); }
    peft__json_array_end(j);
}

static void rows_dump_number(peft__json_out *j, const char *key, int64_t n) {
    peft__json_key(j, key);
    peft__json_put_int(j, n);
}

static void rows_dump_row(peft__json_out *j, const peft_dataset *d, const peft__row *r) {
    peft__json_object(j);
    rows_dump_ints(j, "ids", &d->ids, r->first, r->n);
    rows_dump_ints(j, "labels", &d->labels, r->first, r->n);
    rows_dump_ints(j, "types", &d->types, r->first, r->n);
    rows_dump_ints(j, "source", &d->sources, r->source, r->n_source);
    rows_dump_ints(j, "offsets", &d->offsets, 2 * r->first, d->offsets.len > 0 ? 2 * r->n : 0);
    rows_dump_number(j, "label", r->label);
    rows_dump_number(j, "example", r->example);
    peft__json_key(j, "span");
    peft__json_array(j);
    peft__json_put_int(j, r->begin);
    peft__json_put_int(j, r->end);
    peft__json_array_end(j);
    peft__json_key(j, "part");
    peft__json_array(j);
    peft__json_put_int(j, r->part[0]);
    peft__json_put_int(j, r->part[1]);
    peft__json_array_end(j);
    peft__json_key(j, "targets");
    peft__json_array(j);
    for (int64_t i = 0; i < r->n_targets; i++) { peft__json_put_float(j, (double)PEFT__VEC_AT(&d->targets, float, r->target + i)); }
    peft__json_array_end(j);
    peft__json_object_end(j);
}

static void rows_dump_rows(peft__json_out *j, const char *key, const peft_dataset *d, const peft__vec *rows) {
    peft__json_key(j, key);
    peft__json_array(j);
    for (size_t i = 0; i < rows->len; i++) { rows_dump_row(j, d, &PEFT__VEC_AT(rows, peft__row, i)); }
    peft__json_array_end(j);
}

static void rows_dump_all(const peft_dataset *d) {
    peft__str out;
    peft__json_out j;
    peft__str_init(&out, &d->ctx->mem);
    peft__json_begin(&j, &out, 0);
    peft__json_object(&j);
    peft__json_key(&j, "names");
    peft__json_array(&j);
    for (size_t i = 0; i < d->names.len; i++) { peft__json_put_text(&j, PEFT__VEC_AT(&d->names, const char *, i)); }
    peft__json_array_end(&j);
    rows_dump_rows(&j, "rows", d, &d->rows);
    rows_dump_rows(&j, "candidates", d, &d->candidates);
    peft__json_object_end(&j);
    puts(peft__str_c(&out));
    peft__str_free(&out);
}

static peft_status rows_dump_options(peft_context *ctx, int argc, char **argv, peft_options **out) {
    peft_status st = PEFT_OK;
    TRY(peft_options_create(ctx, "dataset", out));
    for (int i = 2; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (value == NULL) { FAIL(PEFT_E_KEY, "\"%s\" is no key=value", argv[i]); }
        *value = '\0';
        TRY(peft_options_set_text(*out, argv[i], value + 1));
    }
out:
    return st;
}

int main(int argc, char **argv) {
    peft_status st = PEFT_OK;
    peft_context *ctx = NULL;
    peft_tokenizer *t = NULL;
    peft_options *o = NULL;
    peft_dataset *d = NULL;
    size_t cap = 0;
    char *line = NULL;
    if (argc < 2) { return 2; }
    TRY(peft_context_create(NULL, &ctx));
    TRY(peft_tokenizer_open(ctx, argv[1], &t));
    TRY(rows_dump_options(ctx, argc, argv, &o));
    TRY(peft_dataset_create(ctx, t, o, &d));
    for (ssize_t n; (n = getline(&line, &cap, stdin)) > 0;) { TRY(peft_dataset_add_json(d, line, (size_t)n)); }
    rows_dump_all(d);
out:
    if (st != PEFT_OK) { fprintf(stderr, "%s\n", peft_last_error()); }
    free(line);
    peft_dataset_free(d);
    peft_options_free(o);
    peft_tokenizer_free(t);
    peft_context_free(ctx);
    return st != PEFT_OK;
}
