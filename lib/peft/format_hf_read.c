/* format_hf_read.c - reading an adapter that Hugging Face PEFT, or this library, has written (format: see format_hf.c).
 *
 * Unknown keys of the config are passed over, as PEFT does; keys that would change what the adapter computes are refused by
 * the method. Every parameter must be in the file with its shape, and the file may hold nothing else; F16 and BF16 are widened.
 *
 * Left out: adapter_model.bin, which is a Python pickle and may run code; folders of AdapterHub. */
#include "peft/reader.h"

#include <stdio.h>

enum { READER_ROOM = 4096 }; /* values of an adapter beyond one for each byte of its file, which has two at least for each */

/* ---- options from JSON --------------------------------------------------------------------------------------- */

/* A wrong value in a file is the file's fault: option errors become PEFT_E_FORMAT that names it. */
static peft_status reader_blame(peft_status st, const char *what) {
    if (st != PEFT_E_KEY) { return st; }
    peft__fail_prefix("%s", what);
    return PEFT_E_FORMAT;
}

static peft_status reader_set_json(peft__optset *opts, const char *key, const peft__json *node, const char *what) {
    peft_status st = PEFT_OK;
    peft__str text;
    peft__json_out j;
    peft__str_init(&text, opts->mem);
    if (node->kind == PEFT__JSON_NUMBER && node->is_int) { /* layers_to_transform: 3 */
        TRY(peft__opt_set_int(opts, key, node->i));
        goto out;
    }
    bool container = node->kind == PEFT__JSON_ARRAY || node->kind == PEFT__JSON_OBJECT;
    if (!container && node->kind != PEFT__JSON_STRING) {
        FAIL(PEFT_E_KEY, "key \"%s\" is neither a list, an object nor a text", key);
    }
    bool list = peft__schema_find(opts->schema, key)->type == PEFT__OPT_LIST;
    if (container && node->len == 0 && !(list && node->kind == PEFT__JSON_OBJECT)) { goto out; } /* nothing is the default */
    peft__json_begin(&j, &text, 0);
    peft__json_put_node(&j, node);
    TRY(peft__str_status(&text));
    TRY(peft__opt_set_raw(opts, key, peft__str_c(&text)));
out:
    peft__str_free(&text);
    return reader_blame(st, what);
}

peft_status peft__config_get(peft__optset *opts, const peft__json *config, const char *what, const char *key) {
    peft_status st = PEFT_OK;
    const peft__json *node = peft__json_find(config, key);
    const peft__option *opt = peft__schema_find(opts->schema, key);
    int64_t whole;
    double v;
    bool truth;
    const char *text;
    if (node == NULL || opt == NULL) { return PEFT_OK; }
    switch (opt->type) {
    case PEFT__OPT_INT:
    case PEFT__OPT_SIZE:
        TRY(peft__json_int(config, what, key, 0, INT64_MIN, INT64_MAX, &whole));
        return reader_blame(peft__opt_set_int(opts, key, whole), what);
    case PEFT__OPT_FLOAT:
        TRY(peft__json_float(config, what, key, 0, &v));
        return reader_blame(peft__opt_set_float(opts, key, v), what);
    case PEFT__OPT_BOOL:
        TRY(peft__json_bool(config, what, key, false, &truth));
        return peft__opt_set_bool(opts, key, truth);
    case PEFT__OPT_STR:
        TRY(peft__json_str(config, what, key, "", &text));
        return reader_blame(peft__opt_set_str(opts, key, text), what);
    default: return reader_set_json(opts, key, node, what);
    }
out:
    return st;
}

/* ---- the folder ---------------------------------------------------------------------------------------------- */

typedef struct reader_folder {
    peft__arena arena;
    const char *dir; /* borrowed */
    char *config_path, *tensors_path;
    const peft__json *config;
    peft__safetensors file;
    bool hub; /* of AdapterHub's library */
    const peft__method *method; /* that its files' names say; NULL: the config does */
} reader_folder;

static void reader_close(reader_folder *f) {
    peft__safetensors_close(&f->file);
    peft__arena_free(&f->arena);
}

static peft_status reader_open(reader_folder *f, peft__mem *mem, const char *dir) {
    peft_status st = PEFT_OK;
    char *pickle = NULL;
    *f = (reader_folder){.dir = dir};
    peft__arena_init(&f->arena, mem);
    TRY(peft__path_join(&f->arena, dir, "adapter_config.json", &f->config_path));
    for (size_t i = 0; peft__method_at(i) != NULL && !peft__path_exists(f->config_path); i++) { /* a kind with files of its own? */
        char *other = NULL;
        if (peft__method_at(i)->config_file == NULL) { continue; }
        TRY(peft__path_join(&f->arena, dir, peft__method_at(i)->config_file, &other));
        if (!peft__path_exists(other)) { continue; }
        f->method = peft__method_at(i);
        f->config_path = other;
    }
    TRY(peft__json_read(&f->arena, f->config_path, &f->config));
    if (f->config->kind != PEFT__JSON_OBJECT) { FAIL(PEFT_E_FORMAT, "%s: not a JSON object", f->config_path); }
    f->hub = peft__hub_is(f->config);
    const char *tensors = f->hub ? "adapter.safetensors" : "adapter_model.safetensors";
    TRY(peft__path_join(&f->arena, dir, f->method != NULL ? f->method->tensors_file : tensors, &f->tensors_path));
    TRY(peft__path_join(&f->arena, dir, f->hub ? "pytorch_adapter.bin" : "adapter_model.bin", &pickle));
    if (!peft__path_exists(f->tensors_path) && peft__path_exists(pickle)) {
        FAIL(PEFT_E_UNSUPPORTED, "%s is a Python pickle, which runs code when it is read; convert it once with %s", pickle,
             f->hub ? "adapters: model.save_adapter(folder, name, use_safetensors=True); with a prefix, which that cannot write, by "
                      "safetensors.torch.save_file({k: v.clone() for k, v in torch.load(path).items()}, \"adapter.safetensors\")"
                    : "PEFT: PeftModel.from_pretrained(base, folder).save_pretrained(folder, safe_serialization=True)");
    }
    TRY(peft__safetensors_open(mem, f->tensors_path, false, &f->file));
out:
    return st;
}

static peft_status reader_method(const reader_folder *f, const peft__method **out) {
    peft_status st = PEFT_OK;
    const char *type = NULL, *last = "";
    char known[512] = "";
    if (f->method != NULL) {
        *out = f->method;
        return PEFT_OK;
    }
    if (f->hub) { return peft__hub_method(f->config, f->config_path, out); }
    TRY(peft__json_str(f->config, f->config_path, "peft_type", NULL, &type));
    if (type == NULL) {
        FAIL(PEFT_E_FORMAT, "%s: there is no key \"peft_type\"; it is no adapter of Hugging Face PEFT", f->config_path);
    }
    for (size_t i = 0; peft__method_at(i) != NULL; i++) {
        const peft__method *m = peft__method_at(i);
        if (m->hf_type == NULL || m->alias || strcmp(m->hf_type, last) == 0) { continue; } /* ptuning_v2 is prefix, by another name */
        last = m->hf_type;
        if (strcmp(m->hf_type, type) == 0) {
            *out = m;
            return PEFT_OK;
        }
        size_t len = strlen(known);
        (void)snprintf(known + len, sizeof known - len, "%s%s", len > 0 ? ", " : "", m->hf_type);
    }
    FAIL(PEFT_E_UNSUPPORTED, "%s: peft_type is \"%s\"; this version reads: %s", f->config_path, type, known);
out:
    return st;
}

static peft_status reader_options(const reader_folder *f, const peft__method *method, peft__optset *opts) {
    peft_status st = PEFT_OK;
    const char *task = NULL;
    if (f->hub) {
        return method->hub_in != NULL ? method->hub_in(opts, f->config, f->config_path)
                                      : peft__hub_options(opts, f->config, f->config_path);
    }
    TRY(peft__json_str(f->config, f->config_path, "task_type", "", &task));
    TRY(reader_blame(peft__opt_set_str(opts, "task_type", task), f->config_path));
    TRY(peft__config_get(opts, f->config, f->config_path, "base_model_name_or_path"));
    TRY(method->config_in(opts, f->config, f->config_path));
    if (method->bake != NULL) { /* PEFT keeps the table only */
        bool encoder = false;
        for (size_t i = 0; i < f->file.count; i++) { encoder = encoder || strncmp(f->file.tensors[i].name, "prompt_encoder.", 15) == 0; }
        TRY(peft__opt_set_bool(opts, "baked", !encoder));
    }
out:
    return st;
}

/* "hidden size 64, 2 layers, vocabulary 100" of a record; false when it is not readable. */
static bool reader_describe(const peft__json *record, char out[160]) {
    static const char *const keys[] = {"hidden_size", "layers", "vocab"};
    int64_t v[3];
    const peft__json *arch = peft__json_find(record, "architecture");
    if (arch == NULL || arch->kind != PEFT__JSON_STRING) { return false; }
    for (size_t i = 0; i < 3; i++) {
        const peft__json *n = peft__json_find(record, keys[i]);
        if (n == NULL || n->kind != PEFT__JSON_NUMBER || !n->is_int) { return false; }
        v[i] = n->i;
    }
    (void)snprintf(out, 160, "%.60s of hidden size %lld, %lld layers, vocabulary %lld", arch->str, (long long)v[0],
                   (long long)v[1], (long long)v[2]);
    return true;
}

/* A head's outputs mean the labels in this order. */
static peft_status reader_check_labels(const reader_folder *f, const peft__json *record, const peft__task *task) {
    const peft__json *labels = peft__json_find(record, "labels");
    if (labels == NULL || labels->kind != PEFT__JSON_ARRAY || task == NULL || task->names == NULL) { return PEFT_OK; }
    for (size_t i = 0; i < labels->len && (int64_t)labels->len == task->labels; i++) { /* the head's shape says it otherwise */
        const peft__json *x = &labels->items[i];
        if (x->kind == PEFT__JSON_STRING && strcmp(x->str, task->names[i]) == 0) { continue; }
        return peft__fail(PEFT_E_INVALID, "%s: label %zu of the adapter is \"%s\", and that of this model \"%s\": give the model the "
                          "adapter's labels", f->tensors_path, i, x->kind == PEFT__JSON_STRING ? x->str : "?", task->names[i]);
    }
    return PEFT_OK;
}

static peft_status reader_check_base(reader_folder *f, peft__mem *mem, const peft__base_info *base) {
    peft_status st = PEFT_OK;
    const peft__json *record = NULL, *here = NULL, *node = peft__json_find(f->file.metadata, "libpeft.base");
    char theirs[160] = "", ours[160] = "";
    peft__str text;
    peft__str_init(&text, mem);
    if (node == NULL || node->kind != PEFT__JSON_STRING) { goto out; }
    TRY(peft__json_parse(&f->arena, node->str, node->len, f->tensors_path, &record));
    peft__base_record(base, &text);
    TRY(peft__str_status(&text));
    TRY(peft__json_parse(&f->arena, peft__str_c(&text), text.len, "base", &here));
    if (!reader_describe(record, theirs) || !reader_describe(here, ours)) {
        FAIL(PEFT_E_FORMAT, "%s: metadata \"libpeft.base\" is not readable", f->tensors_path);
    }
    if (strcmp(theirs, ours) != 0) {
        FAIL(PEFT_E_SHAPE, "%s: the adapter was made for %s; this base is %s", f->tensors_path, theirs, ours);
    }
    TRY(reader_check_labels(f, record, base->task));
out:
    peft__str_free(&text);
    return st;
}

/* PEFT takes a name of modules_to_save as the end of a path without regard to dots ("norm" means every input_layernorm too).
 * Here it is taken at dots; paths that the file has beyond that are added by name. */
static peft_status reader_widen_saved(reader_folder *f, const peft__base_info *base, peft__optset *opts) {
    peft_status st = PEFT_OK;
    size_t added = 0;
    peft__names names;
    peft__json_out j;
    peft__str list;
    peft__str_init(&list, opts->mem);
    if (peft__schema_find(opts->schema, "modules_to_save") == NULL) { goto out; }
    TRY(reader_blame(peft__names_read(&f->arena, peft__opt_str(opts, "modules_to_save"), "modules_to_save", &names), f->config_path));
    peft__json_begin(&j, &list, 0);
    peft__json_array(&j);
    for (size_t i = 0; i < names.count; i++) { peft__json_put_text(&j, names.items[i]); }
    for (size_t s = 0; s < base->n_sites; s++) {
        const char *path = base->sites[s].path;
        bool bare = false, plain = false;
        for (size_t i = 0; i < names.count; i++) {
            size_t n = strlen(path), m = strlen(names.items[i]);
            bare = bare || (m <= n && strcmp(path + (n - m), names.items[i]) == 0);
            plain = plain || peft__path_within(path, names.items[i]);
        }
        if (!bare || plain) { continue; }
        char *key = peft__arena_printf(&f->arena, "base_model.model.%s.weight", path);
        if (key == NULL) {
            st = PEFT_E_NOMEM;
            goto out;
        }
        if (peft__safetensors_find(&f->file, key) == NULL) { continue; }
        peft__json_put_text(&j, path);
        added++;
    }
    peft__json_array_end(&j);
    TRY(peft__str_status(&list));
    if (added > 0) { TRY(peft__opt_set_raw(opts, "modules_to_save", peft__str_c(&list))); }
out:
    peft__str_free(&list);
    return st;
}

/* ---- tensors ------------------------------------------------------------------------------------------------- */

static void reader_dims(char *out, size_t cap, int32_t ndim, const int64_t *dims) {
    out[0] = '\0';
    for (int32_t i = 0; i < ndim; i++) {
        size_t len = strlen(out);
        (void)snprintf(out + len, cap - len, "%s%lld", i > 0 ? ", " : "", (long long)dims[i]);
    }
}

static peft_status reader_fail_shape(const reader_folder *f, const peft__io_tensor *t, const peft__adapter_param *p,
                                     const int64_t *dims) {
    char have[200], want[120];
    reader_dims(have, sizeof have, t->ndim, t->dims);
    reader_dims(want, sizeof want, p->ndim, dims);
    return peft__fail(PEFT_E_SHAPE, "%s: tensor \"%s\" is [%s], expected [%s]: the config's rank is another, or the base is",
                      f->tensors_path, t->name, have, want);
}

static peft_status reader_values(const reader_folder *f, const peft__adapter *a, size_t i, const peft__io_tensor *t) {
    peft_status st = PEFT_OK;
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    bool flipped = peft__adapter_flipped(a, i);
    size_t rows = (size_t)p->p.rows, cols = (size_t)p->p.cols;
    int64_t dims[4];
    memcpy(dims, p->dims, sizeof dims);
    if (flipped) { dims[0] = p->p.cols, dims[1] = p->p.rows; }
    if (!peft__reader_plain(t)) {
        FAIL(PEFT_E_UNSUPPORTED, "%s: tensor \"%s\" is %s, expected F32, F16 or BF16", f->tensors_path, t->name, t->dtype_name);
    }
    if (t->ndim != p->ndim || memcmp(t->dims, dims, (size_t)p->ndim * sizeof *dims) != 0) {
        st = reader_fail_shape(f, t, p, dims);
        goto out;
    }
    for (size_t e = 0; e < rows * cols; e++) {
        p->p.value[flipped ? e % rows * cols + e / rows : e] = PEFT__R(peft__reader_element(t, e));
    }
out:
    return st;
}

static peft_status reader_tensor(const reader_folder *f, peft__adapter *a, size_t i, const char *key, const peft__kernels *k,
                                 bool allow_nan) {
    peft_status st = PEFT_OK;
    const peft__param *p = &peft__adapter_param_at(a, i)->p;
    const peft__io_tensor *t = peft__safetensors_find(&f->file, key);
    bool found = t != NULL;
    if (!found) { TRY(peft__reader_resized(f->tensors_path, &f->file, a, i, &found)); }
    if (!found) { FAIL(PEFT_E_NOT_FOUND, "%s: there is no tensor \"%s\"", f->tensors_path, key); }
    if (t != NULL) { TRY(reader_values(f, a, i, t)); }
    if (!allow_nan && !k->finite(p->value, p->rows * p->cols)) {
        FAIL(PEFT_E_NUMERIC, "%s: tensor \"%s\" has a NaN or an infinite value", f->tensors_path, key);
    }
out:
    return st;
}

/* Fills the adapter's parameters, and those of the parts that it is made of. */
static peft_status reader_fill(reader_folder *f, peft__adapter *a, const peft__kernels *k, bool allow_nan, peft__map *expected) {
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < peft__adapter_own_parts(a); i++) {
        TRY(reader_fill(f, PEFT__VEC_AT(&a->parts, peft__adapter *, i), k, allow_nan, expected));
    }
    for (size_t i = 0; i < peft__adapter_param_count(a); i++) {
        if (peft__adapter_param_at(a, i)->unsaved) { continue; }
        if (f->hub && peft__hub_in_head(a, i)) {
            TRY(peft__hub_read_head(f->dir, a, i, k, allow_nan));
            continue;
        }
        char *key = peft__adapter_file_key(&f->arena, a, i);
        if (key == NULL) {
            st = PEFT_E_NOMEM;
            goto out;
        }
        TRY(peft__map_put(expected, key, strlen(key), (int64_t)i));
        TRY(reader_tensor(f, a, i, key, k, allow_nan));
    }
out:
    return st;
}

/* Does a tensor say what another of the file says too? */
static bool reader_repeats(const reader_folder *f, const peft__adapter *a, const char *key) {
    if (a->method->bake != NULL && strcmp(key, "prompt_embeddings") == 0) { return true; } /* what the encoder makes */
    if (!f->hub) { return false; }
    for (size_t i = 0; i < peft__adapter_own_parts(a); i++) {
        if (reader_repeats(f, PEFT__VEC_AT(&a->parts, peft__adapter *, i), key)) { return true; }
    }
    if (strstr(key, ".prefix_tuning.pool.prefix_tunings.") != NULL) { return true; } /* the same again under each layer */
    bool norm = peft__schema_find(a->opts.schema, "ln_before") != NULL && peft__opt_bool(&a->opts, "ln_before");
    return norm && strstr(key, ".adapter_down.0.") != NULL;
}

static peft_status reader_tensors(reader_folder *f, peft__mem *mem, peft__adapter *a, const peft__kernels *k, bool allow_nan) {
    peft_status st = PEFT_OK;
    peft__map expected;
    peft__map_init(&expected, mem);
    TRY(reader_fill(f, a, k, allow_nan, &expected));
    for (size_t i = 0; i < f->file.count; i++) {
        const char *key = f->file.tensors[i].name;
        bool known = peft__map_get(&expected, key, strlen(key)) >= 0 || reader_repeats(f, a, key);
        known = known || (f->hub && peft__hub_left_tensor(a, &f->arena, key));
        if (!known) { TRY(peft__reader_copy(f->tensors_path, mem, a, &f->file.tensors[i], k, &known)); }
        if (!known) {
            FAIL(PEFT_E_FORMAT, "%s: tensor \"%s\" has no place in this adapter of %zu tensors", f->tensors_path, key, expected.len);
        }
    }
out:
    peft__map_free(&expected);
    return st;
}

/* The name in keys, of all parts. NULL: the adapter's own. */
static void reader_call(peft__adapter *a, const char *name) {
    a->file_name = name;
    for (size_t i = 0; i < peft__adapter_own_parts(a); i++) { PEFT__VEC_AT(&a->parts, peft__adapter *, i)->file_name = name; }
}

/* An AdapterHub folder has the adapter's name in its keys, and the base's width in its config. */
static peft_status reader_name(const reader_folder *f, peft__adapter *a) {
    peft_status st = PEFT_OK;
    const char *name = NULL;
    int64_t hidden = 0;
    TRY(peft__json_str(f->config, f->config_path, "name", a->name, &name));
    TRY(peft__json_int(f->config, f->config_path, "hidden_size", 0, 0, INT64_MAX, &hidden));
    for (size_t i = 0; hidden > 0 && i < a->base->n_sites; i++) {
        const peft__site *s = &a->base->sites[i];
        if (s->kind == PEFT__SITE_STREAM && s->out != hidden) {
            FAIL(PEFT_E_SHAPE, "%s: the adapter was made for hidden size %lld; this base has %lld", f->config_path,
                 (long long)hidden, (long long)s->out);
        }
    }
    const char *copy = peft__arena_strdup(&a->arena, name, strlen(name));
    if (copy == NULL) { return PEFT_E_NOMEM; }
    reader_call(a, copy);
out:
    return st;
}

peft_status peft__adapter_load_hf(peft__mem *mem, const peft__kernels *k, const peft__base_info *base, const char *name,
                                  const char *dir, bool allow_nan, peft__adapter **out) {
    peft_status st = PEFT_OK;
    const peft__method *method = NULL;
    peft__adapter *a = NULL, *other = NULL;
    peft__optset opts = {0};
    reader_folder f;
    TRY(reader_open(&f, mem, dir));
    TRY(reader_method(&f, &method));
    TRY(reader_check_base(&f, mem, base));
    TRY(peft__optset_init(&opts, mem, method->schema));
    TRY(reader_options(&f, method, &opts));
    TRY(reader_widen_saved(&f, base, &opts));
    bool head = false; /* in a file of its own */
    size_t size = 0;
    if (f.hub) { TRY(peft__hub_find_head(mem, dir, &head, &size)); }
    st = peft__adapter_create_for_file(mem, base, name, method, &opts, head || !f.hub, READER_ROOM + f.file.file.size + size, &a);
    if (st != PEFT_OK) {
        if (st != PEFT_E_NOMEM) { peft__fail_prefix("%s", f.config_path); }
        if (st == PEFT_E_KEY) { st = PEFT_E_FORMAT; } /* a value in the file, not of the caller */
        goto out;
    }
    if (f.hub) { TRY(reader_name(&f, a)); }
    TRY(reader_tensors(&f, mem, a, k, allow_nan));
    reader_call(a, NULL); /* it is saved under its name here */
    if (method->loaded != NULL) { TRY(method->loaded(a, &other)); }
    if (other == NULL) { other = a, a = NULL; }
    if (f.hub && (base->task == NULL || peft__task_is_lm(base->task))) { TRY(peft__hub_add_head(mem, k, base, dir, allow_nan, &other)); }
    *out = other;
    other = NULL;
out:
    peft__adapter_release(other);
    peft__adapter_release(a);
    peft__optset_free(&opts);
    reader_close(&f);
    return st;
}

/* ---- without a base ------------------------------------------------------------------------------------------ */

bool peft__adapter_probe(const char *path) {
    char file[4096];
    int n = snprintf(file, sizeof file, "%s/adapter_config.json", path);
    if (n <= 0 || (size_t)n >= sizeof file - 32) { return false; }
    for (size_t i = 0; peft__method_at(i) != NULL && !peft__path_exists(file); i++) {
        const char *other = peft__method_at(i)->config_file;
        if (other != NULL) { (void)snprintf(file, sizeof file, "%s/%s", path, other); }
    }
    return peft__path_exists(file);
}

peft_status peft__adapter_with_files(peft__mem *mem, const char *dir, peft__adapter_files_fn fn, void *user) {
    peft_status st = PEFT_OK;
    const peft__method *method = NULL;
    peft__optset opts = {0};
    reader_folder f;
    TRY(reader_open(&f, mem, dir));
    TRY(reader_method(&f, &method));
    TRY(peft__optset_init(&opts, mem, method->schema));
    TRY(reader_options(&f, method, &opts));
    const peft__adapter_files files = {f.config_path, f.tensors_path, f.config, &f.file, method, &opts, f.hub};
    TRY(fn(user, &files));
out:
    peft__optset_free(&opts);
    reader_close(&f);
    return st;
}

static void reader_put_tensors(const reader_folder *f, peft__json_out *j) {
    peft__json_array(j);
    for (size_t i = 0; i < f->file.count; i++) {
        const peft__io_tensor *t = &f->file.tensors[i];
        peft__json_object(j);
        peft__json_key(j, "name");
        peft__json_put_text(j, t->name);
        peft__json_key(j, "dtype");
        peft__json_put_text(j, t->dtype_name);
        peft__json_key(j, "shape");
        peft__json_array(j);
        for (int32_t d = 0; d < t->ndim; d++) { peft__json_put_int(j, t->dims[d]); }
        peft__json_array_end(j);
        peft__json_object_end(j);
    }
    peft__json_array_end(j);
}

/* The module that a tensor belongs to: its name without the wrappers' prefix and the parameter ("lora_A.weight"). */
static void reader_module(const char *name, const char **path, size_t *len) {
    static const char wrapper[] = "base_model.model.";
    *path = strncmp(name, wrapper, sizeof wrapper - 1) == 0 ? name + sizeof wrapper - 1 : name;
    const char *end = strstr(*path, ".lora_");
    for (const char *next = end; next != NULL; next = strstr(next + 1, ".lora_")) { end = next; }
    if (end == NULL) { end = strrchr(*path, '.'); }
    *len = end != NULL ? (size_t)(end - *path) : strlen(*path);
}

/* Modules in file order, each once: tensors of one module stand together. */
static void reader_put_sites(const reader_folder *f, peft__json_out *j) {
    const char *path, *last = "";
    size_t len, last_len = 0;
    peft__json_array(j);
    for (size_t i = 0; i < f->file.count; i++) {
        reader_module(f->file.tensors[i].name, &path, &len);
        if (len != last_len || memcmp(path, last, len) != 0) { peft__json_put_str(j, path, len); }
        last = path;
        last_len = len;
    }
    peft__json_array_end(j);
}

/* The method by its name here, or as the file calls it; and the base's architecture where the file records it. */
static peft_status reader_put_kind(const reader_folder *f, peft__arena *arena, peft__json_out *j) {
    peft_status st = PEFT_OK;
    const char *type = NULL, *architecture = NULL;
    const peft__json *record = peft__json_find(f->file.metadata, "libpeft.base"), *base = NULL;
    TRY(peft__json_str(f->config, f->config_path, "peft_type", NULL, &type));
    for (size_t i = 0; peft__method_at(i) != NULL; i++) {
        const peft__method *m = peft__method_at(i);
        if (type != NULL && m->hf_type != NULL && !m->alias && strcmp(m->hf_type, type) == 0) { type = m->name; }
    }
    if (record != NULL && record->kind == PEFT__JSON_STRING) {
        TRY(peft__json_parse(arena, record->str, record->len, f->tensors_path, &base));
        TRY(peft__json_str(base, f->tensors_path, "architecture", NULL, &architecture));
    }
    peft__json_key(j, "method");
    peft__json_put_text(j, type);
    peft__json_key(j, "architecture");
    peft__json_put_text(j, architecture);
    for (size_t i = 0; base != NULL && i < base->len; i++) { /* what it was trained for */
        static const char *const keys[] = {"task", "num_labels", "problem_type", "labels"};
        for (size_t n = 0; n < PEFT__COUNT(keys); n++) {
            if (!peft__json_is(&base->keys[i], keys[n])) { continue; }
            peft__json_key(j, keys[n]);
            peft__json_put_node(j, &base->items[i]);
        }
    }
out:
    return st;
}

peft_status peft__adapter_inspect(peft__mem *mem, const char *dir, peft__str *out) {
    peft_status st = PEFT_OK;
    int64_t values = 0, bytes = 0;
    peft__json_out j;
    reader_folder f;
    peft__arena arena;
    peft__arena_init(&arena, mem);
    TRY(reader_open(&f, mem, dir));
    for (size_t i = 0; i < f.file.count; i++) {
        int64_t n = 0;
        TRY(peft__io_elements(f.file.tensors[i].ndim, f.file.tensors[i].dims, 0, &n));
        values += n; /* each is at most the file's size */
        bytes += (int64_t)f.file.tensors[i].size;
    }
    peft__json_begin(&j, out, 0);
    peft__json_object(&j);
    peft__json_key(&j, "kind");
    peft__json_put_text(&j, "adapter");
    TRY(reader_put_kind(&f, &arena, &j));
    peft__json_key(&j, "parameters");
    peft__json_put_int(&j, values);
    peft__json_key(&j, "bytes");
    peft__json_put_int(&j, bytes);
    peft__json_key(&j, "config");
    peft__json_put_node(&j, f.config);
    if (f.file.metadata != NULL) {
        peft__json_key(&j, "metadata");
        peft__json_put_node(&j, f.file.metadata);
    }
    peft__json_key(&j, "sites");
    reader_put_sites(&f, &j);
    peft__json_key(&j, "tensors");
    reader_put_tensors(&f, &j);
    peft__json_object_end(&j);
    TRY(peft__str_status(out));
out:
    reader_close(&f);
    peft__arena_free(&arena);
    return st;
}
