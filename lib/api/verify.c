/* verify.c - peft_check_json: finds out what a path is, has it checked, and writes down what was found.
 *
 * What inspect.c takes a path for is what it is checked as. A file that is broken so far that nothing can be told of it is checked as
 * what its name says.
 *
 * Left out: repairing anything. */
#include "api/verify.h"

static const peft__option verify_options[] = {
    {"max_errors", PEFT__OPT_INT, "100", 1, 1 << 20, NULL, "most errors, and warnings, that are listed; all are counted"},
    {"weights", PEFT__OPT_BOOL, "true", 1, 0, NULL, "read every value of every tensor"},
    {"forward", PEFT__OPT_BOOL, "true", 1, 0, NULL, "run one pass through a model, and through an adapter in its base"},
    {"task", PEFT__OPT_STR, "", 1, 0,
     "causal_lm|masked_lm|seq2seq_lm|sequence_classification|token_classification|question_answering|embedding",
     "data: what the rows are for; unset: as the fields of the first row say"},
    {"prompt_template", PEFT__OPT_STR, "", 1, 0, NULL, "data: as of schema dataset"},
    {"completion_template", PEFT__OPT_STR, "", 1, 0, NULL, "data: as of schema dataset"},
    {"verbalizer", PEFT__OPT_PAIRS, "", 1, 0, NULL, "data: as of schema dataset"},
};
const peft__schema peft__schema_check = {"check", verify_options, PEFT__COUNT(verify_options)};

/* ---- which of them ------------------------------------------------------------------------------------------------------- */

/* A folder that has only a config, and a file that only its name tells. */
static bool verify_is_model(peft__mem *mem, const char *path, bool dir) {
    peft__arena a;
    char *config = NULL;
    if (peft__model_probe(path)) { return true; }
    if (!dir) { return peft__text_ends(path, ".gguf"); }
    peft__arena_init(&a, mem);
    bool found = peft__path_join(&a, path, "config.json", &config) == PEFT_OK && peft__path_exists(config);
    peft__arena_free(&a);
    return found;
}

static peft_status verify_path(peft__verify *v, const char *path) {
    peft__mem *mem = &v->ctx->mem, probe; /* of its own, as other probes: no memory must not look like another kind of file */
    bool dir = peft__path_is_dir(path);
    peft__mem_init(&probe, NULL);
    if (!dir && !peft__path_exists(path)) { return peft__fail(PEFT_E_NOT_FOUND, "%s: no such file or folder", path); }
    if (peft__union_probe(path) || peft__adapter_probe(path)) { return peft__verify_adapter(v, path, false); }
    if (peft__adapter_probe_gguf(&probe, path)) { return peft__verify_adapter(v, path, true); }
    if (peft__checkpoint_probe(&probe, path)) {
        v->kind = "checkpoint";
        return peft__checkpoint_check(mem, v->ctx->kernels, path, v->weights, &v->f, &v->about, &v->tensors, &v->values);
    }
    if (peft__model_probe(path)) { return peft__verify_model(v, path); }
    if (peft__tokenizer_probe(path) && !peft__text_ends(path, ".gguf")) { return peft__verify_tokenizer(v, path); }
    if (verify_is_model(&probe, path, dir)) { return peft__verify_model(v, path); } /* which says what is wrong with it */
    if (dir) {
        return peft__fail(PEFT_E_FORMAT,
                          "%s: neither a model (config.json), nor an adapter (adapter_config.json), nor a tokenizer (tokenizer.json, "
                          "tokenizer.model, vocab.json), nor a checkpoint (state.safetensors)", path);
    }
    return peft__verify_data(v, path);
}

/* ---- what was found ------------------------------------------------------------------------------------------------------- */

static void verify_put_list(peft__json_out *j, const char *key, const peft__vec *list, bool codes) {
    peft__json_key(j, key);
    peft__json_array(j);
    for (size_t i = 0; i < list->len; i++) {
        const peft__finding *x = &PEFT__VEC_AT(list, peft__finding, i);
        peft__json_object(j);
        if (codes) {
            peft__json_key(j, "code");
            peft__json_put_text(j, peft__status_name(x->code));
        }
        peft__json_key(j, "file");
        peft__json_put_text(j, x->file);
        peft__json_key(j, "where");
        peft__json_put_text(j, x->where);
        peft__json_key(j, "message");
        peft__json_put_text(j, x->message);
        peft__json_object_end(j);
    }
    peft__json_array_end(j);
}

static void verify_put_int(peft__json_out *j, const char *key, int64_t n) {
    peft__json_key(j, key);
    peft__json_put_int(j, n);
}

static peft_status verify_put(const peft__verify *v, peft__str *out) {
    peft_status st = PEFT_OK;
    const peft__json *about = NULL;
    peft__json_out j;
    peft__arena a;
    peft__arena_init(&a, &v->ctx->mem);
    TRY(peft__str_status(&v->about));
    if (v->about.len > 0) { TRY(peft__json_parse(&a, peft__str_c(&v->about), v->about.len, "about", &about)); }
    peft__json_begin(&j, out, 0);
    peft__json_object(&j);
    peft__json_key(&j, "kind");
    peft__json_put_text(&j, v->kind);
    peft__json_key(&j, "ok");
    peft__json_put_bool(&j, v->f.n_errors == 0);
    verify_put_int(&j, "error_count", v->f.n_errors);
    verify_put_list(&j, "errors", &v->f.errors, true);
    verify_put_int(&j, "warning_count", v->f.n_warnings);
    verify_put_list(&j, "warnings", &v->f.warnings, false);
    peft__json_key(&j, "checked");
    peft__json_object(&j);
    verify_put_int(&j, "tensors", v->tensors);
    verify_put_int(&j, "values", v->values);
    verify_put_int(&j, "rows", v->rows);
    verify_put_int(&j, "tokens", v->tokens);
    peft__json_key(&j, "forward");
    peft__json_put_bool(&j, v->passed);
    peft__json_object_end(&j);
    peft__json_key(&j, "about");
    if (about != NULL) { peft__json_put_node(&j, about); } else { peft__json_put_null(&j); }
    peft__json_object_end(&j);
    TRY(peft__str_status(out));
out:
    peft__arena_free(&a);
    return st;
}

peft_status peft_check_json(peft_context *ctx, const char *path, const peft_model *base, const peft_options *options, char *buf,
                            size_t cap, size_t *needed) {
    peft_status st = PEFT_OK;
    peft__optset own = {0};
    peft__verify v = {.ctx = ctx, .kind = NULL};
    peft__str text;
    TRY(peft__check_buffer(buf, cap, needed));
    TRY(peft__check_handle(ctx, PEFT__MAGIC_CONTEXT, "ctx"));
    TRY(peft__check_text(path, "path"));
    if (base != NULL) { TRY(peft__check_handle(base, PEFT__MAGIC_MODEL, "base")); }
    TRY(peft__pick_options(options, &ctx->mem, &peft__schema_check, &own, &v.opts));
    v.base = (struct peft_model *)(uintptr_t)base; /* only its count of references changes */
    v.weights = peft__opt_bool(v.opts, "weights");
    v.forward = peft__opt_bool(v.opts, "forward");
    peft__findings_init(&v.f, &ctx->mem, peft__opt_int(v.opts, "max_errors"));
    peft__str_init(&v.about, &ctx->mem);
    peft__str_init(&text, &ctx->mem);
    st = verify_path(&v, path);
    if (st == PEFT_OK) { st = v.f.st; }
    if (st == PEFT_OK) { st = verify_put(&v, &text); }
    st = peft__finish_text(st, &text, buf, cap, needed);
    peft__str_free(&v.about);
    peft__findings_free(&v.f);
out:
    peft__optset_free(&own);
    return st;
}
