/* format_hf.c - writing an adapter as Hugging Face PEFT does, and describing one as JSON.
 *
 *   DIR/adapter_config.json        two spaces of indentation, sorted keys, as json.dumps(..., indent=2, sort_keys=True)
 *   DIR/adapter_model.safetensors  F32; keys of peft__adapter_file_key, and an encoder's table; metadata {"format": "pt",
 *                                  "libpeft.base": what the adapter was made for}
 *
 * Besides peft_version the config has the keys that every release of PEFT knows and, of the newer ones, those that are not at
 * their default, because releases before autumn 2024 refuse keys that they do not know. The tensors are written first: a
 * folder counts as an adapter by its config.
 *
 * Left out: README.md, names other than the folder itself, pickles. */
#include "peft/reader.h"
#include "peft/tokens.h"

#include <math.h>

#define FORMAT_PEFT_VERSION "0.21.2" /* whose rules this file follows */

/* ---- options as JSON ----------------------------------------------------------------------------------------- */

static void format_put_json(peft__mem *mem, const char *text, peft__json_out *j) {
    const peft__json *node = NULL;
    peft__arena arena;
    peft__arena_init(&arena, mem);
    if (peft__json_parse(&arena, text, strlen(text), "option", &node) == PEFT_OK) {
        peft__json_put_node(j, node);
    } else {
        j->s->failed = true; /* options hold valid JSON: there was no memory */
    }
    peft__arena_free(&arena);
}

void peft__config_put(const peft__optset *opts, const char *key, peft__json_out *j) {
    const peft__option *opt = peft__schema_find(opts->schema, key);
    const char *text = peft__opt_str(opts, key);
    peft__json_key(j, key);
    switch (opt != NULL ? opt->type : -1) {
    case PEFT__OPT_INT:
    case PEFT__OPT_SIZE: peft__json_put_int(j, peft__opt_int(opts, key)); break;
    case PEFT__OPT_FLOAT: {
        double v = peft__opt_float(opts, key);
        /* lora_alpha is an integer in PEFT, lora_dropout a float: the default's text says which. */
        bool whole = strchr(opt->dflt, '.') == NULL && fabs(v) < 1e15 && v == floor(v);
        if (whole) {
            peft__json_put_int(j, (int64_t)v);
        } else {
            peft__json_put_double(j, v);
        }
        break;
    }
    case PEFT__OPT_BOOL: peft__json_put_bool(j, peft__opt_bool(opts, key)); break;
    case PEFT__OPT_STR: peft__json_put_text(j, text[0] != '\0' ? text : NULL); break;
    case PEFT__OPT_LIST:
    case PEFT__OPT_MAP:
    case PEFT__OPT_LISTS:
        if (text[0] != '\0') {
            format_put_json(opts->mem, text, j);
        } else if (opt->type == PEFT__OPT_MAP) {
            peft__json_object(j);
            peft__json_object_end(j);
        } else {
            peft__json_put_null(j);
        }
        break;
    default: peft__json_put_null(j); break;
    }
}

/* ---- adapter_config.json ------------------------------------------------------------------------------------- */

/* order[0..n): the names' positions in alphabetical order, by binary insertion. Not qsort, because that of a C library may
 * allocate behind the allocator's back. */
static void format_order(const char *const *names, size_t n, size_t *order) {
    for (size_t i = 0; i < n; i++) {
        size_t low = 0, high = i;
        while (low < high) {
            size_t mid = low + (high - low) / 2;
            if (strcmp(names[order[mid]], names[i]) <= 0) {
                low = mid + 1;
            } else {
                high = mid;
            }
        }
        memmove(&order[low + 1], &order[low], (i - low) * sizeof *order);
        order[low] = i;
    }
}

/* The object again with its keys in order. */
static peft_status format_sorted(peft__arena *arena, const peft__json *object, peft__str *out) {
    const char **keys = peft__arena_alloc(arena, (object->len + 1) * sizeof *keys);
    size_t *order = peft__arena_alloc(arena, (object->len + 1) * sizeof *order);
    if (keys == NULL || order == NULL) { return PEFT_E_NOMEM; }
    for (size_t i = 0; i < object->len; i++) { keys[i] = object->keys[i].str; }
    format_order(keys, object->len, order);
    peft__json_out j;
    peft__json_begin(&j, out, 2);
    peft__json_object(&j);
    for (size_t i = 0; i < object->len; i++) {
        peft__json_key(&j, keys[order[i]]);
        peft__json_put_node(&j, &object->items[order[i]]);
    }
    peft__json_object_end(&j);
    return peft__str_status(out);
}

static peft_status format_config(const peft__adapter *a, peft__str *out) {
    peft_status st = PEFT_OK;
    const peft__json *object = NULL;
    const char *base = peft__opt_str(&a->opts, "base_model_name_or_path");
    const char *task = peft__opt_str(&a->opts, "task_type");
    peft__str text;
    peft__arena arena;
    peft__json_out j;
    peft__str_init(&text, a->mem);
    peft__arena_init(&arena, a->mem);
    if (base[0] == '\0') { base = a->base->path != NULL ? a->base->path : ""; }
    if (a->method->hub) {
        TRY(peft__hub_config(a, &text));
        TRY(peft__json_parse(&arena, peft__str_c(&text), text.len, "adapter_config.json", &object));
        TRY(format_sorted(&arena, object, out));
        goto out;
    }
    peft__json_begin(&j, &text, 0);
    peft__json_object(&j);
    peft__json_key(&j, "auto_mapping");
    peft__json_put_null(&j);
    peft__json_key(&j, "base_model_name_or_path");
    peft__json_put_text(&j, base[0] != '\0' ? base : NULL);
    peft__json_key(&j, "inference_mode");
    peft__json_put_bool(&j, true);
    peft__json_key(&j, "peft_type");
    peft__json_put_text(&j, a->method->hf_type);
    peft__json_key(&j, "peft_version");
    peft__json_put_text(&j, FORMAT_PEFT_VERSION);
    peft__json_key(&j, "revision");
    peft__json_put_null(&j);
    peft__json_key(&j, "task_type");
    peft__json_put_text(&j, task[0] != '\0' ? task : NULL);
    a->method->config_out(a, &j);
    peft__json_object_end(&j);
    TRY(peft__str_status(&text));
    TRY(peft__json_parse(&arena, peft__str_c(&text), text.len, "adapter_config.json", &object));
    TRY(format_sorted(&arena, object, out));
out:
    peft__arena_free(&arena);
    peft__str_free(&text);
    return st;
}

/* ---- adapter_model.safetensors ------------------------------------------------------------------------------- */

typedef struct format_tensor {
    const peft__param *p;
    const char *name; /* in the file */
    int32_t ndim;
    int64_t dims[4];
    bool flipped;     /* the file has [cols, rows] */
} format_tensor;

/* Bytes of F32 values [offset / 4 ...), whatever peft__real is. */
static peft_status format_produce(void *user, void *out, size_t offset, size_t size) {
    const format_tensor *t = user;
    uint8_t *bytes = out;
    size_t first = offset / 4, rows = (size_t)t->p->rows, cols = (size_t)t->p->cols;
    for (size_t i = 0; i < size / 4; i++) {
        size_t e = first + i;
        if (t->flipped) { e = e % rows * cols + e / rows; }
        float v = (float)t->p->value[e];
        uint32_t bits;
        memcpy(&bits, &v, sizeof bits);
        peft__set_u32(bytes + 4 * i, bits);
    }
    return PEFT_OK;
}

/* What files have besides the parameters: the table that an encoder makes, or a tied head's rows; no rows: nothing. */
static peft_status format_beside(const peft__adapter *a, peft__arena *arena, peft__param *out) {
    peft_status st = PEFT_OK;
    *out = (peft__param){.name = "prompt_embeddings"};
    if (a->tokens != NULL && a->tokens->twin) { return peft__tokens_twin(a, arena, out); }
    if (a->method->bake == NULL) { goto out; }
    TRY(a->method->bake(a, &out->rows, &out->cols, NULL));
    if (out->rows == 0) { goto out; }
    out->value = peft__arena_alloc(arena, (size_t)(out->rows * out->cols) * sizeof *out->value);
    if (out->value == NULL) { return PEFT_E_NOMEM; }
    TRY(a->method->bake(a, &out->rows, &out->cols, out->value));
out:
    return st;
}

/* Tensors of the adapter, or of the parts that it is made of: at most so many. */
static size_t format_most(const peft__adapter *a) {
    size_t n = peft__adapter_param_count(a) + 1; /* and a table */
    for (size_t i = 0; i < peft__adapter_own_parts(a); i++) { n += format_most(PEFT__VEC_AT(&a->parts, peft__adapter *, i)); }
    return n;
}

static peft_status format_gather(const peft__adapter *a, peft__arena *arena, format_tensor *out, size_t *n) {
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < peft__adapter_own_parts(a); i++) {
        TRY(format_gather(PEFT__VEC_AT(&a->parts, peft__adapter *, i), arena, out, n));
    }
    for (size_t i = 0; i < peft__adapter_param_count(a); i++) {
        const peft__adapter_param *p = peft__adapter_param_at(a, i);
        if (p->unsaved || (a->method->hub && peft__hub_in_head(a, i))) { continue; }
        format_tensor *t = &out[(*n)++];
        *t = (format_tensor){.p = &p->p, .ndim = p->ndim, .flipped = peft__adapter_flipped(a, i)};
        t->name = peft__adapter_file_key(arena, a, i);
        if (t->name == NULL) { return PEFT_E_NOMEM; }
        memcpy(t->dims, p->dims, sizeof t->dims);
        if (t->flipped) { t->dims[0] = p->p.cols, t->dims[1] = p->p.rows; }
    }
    peft__param *beside = peft__arena_alloc(arena, sizeof *beside);
    if (beside == NULL) { return PEFT_E_NOMEM; }
    TRY(format_beside(a, arena, beside));
    if (beside->rows > 0) {
        out[(*n)++] = (format_tensor){.p = beside, .name = beside->name, .ndim = 2, .dims = {beside->rows, beside->cols}};
    }
out:
    return st;
}

static peft_status format_write_tensors(const peft__adapter *a, peft__arena *arena, const char *path) {
    peft_status st = PEFT_OK;
    size_t most = format_most(a), n = 0;
    peft__io_source *sources = peft__arena_alloc(arena, most * sizeof *sources);
    format_tensor *tensors = peft__arena_alloc(arena, most * sizeof *tensors);
    const char **names = peft__arena_alloc(arena, most * sizeof *names);
    size_t *order = peft__arena_alloc(arena, most * sizeof *order);
    peft__str record;
    peft__str_init(&record, a->mem);
    if (sources == NULL || tensors == NULL || names == NULL || order == NULL) {
        st = PEFT_E_NOMEM;
        goto out;
    }
    TRY(format_gather(a, arena, tensors, &n));
    for (size_t i = 0; i < n; i++) { names[i] = tensors[i].name; }
    format_order(names, n, order); /* as the safetensors package does */
    for (size_t i = 0; i < n; i++) {
        format_tensor *t = &tensors[order[i]];
        peft__io_source *s = &sources[i];
        s->name = t->name;
        s->dtype = PEFT_DTYPE_F32;
        s->ndim = t->ndim;
        memcpy(s->dims, t->dims, (size_t)s->ndim * sizeof *s->dims);
        s->produce = format_produce;
        s->user = t;
    }
    peft__base_record(a->base, &record);
    TRY(peft__str_status(&record));
    const char *metadata[] = {"format", "pt", "libpeft.base", peft__str_c(&record), NULL};
    TRY(peft__safetensors_write(a->mem, path, sources, n, metadata));
out:
    peft__str_free(&record);
    return st;
}

peft_status peft__adapter_save_hf(const peft__adapter *a, const char *dir) {
    peft_status st = PEFT_OK;
    char *config_path = NULL, *tensors_path = NULL;
    peft__adapter *plain = NULL;
    peft__str config;
    peft__arena arena;
    if (a->method->save != NULL) { return a->method->save(a, dir); }
    peft__arena_init(&arena, a->mem);
    peft__str_init(&config, a->mem);
    if (a->method->plain != NULL) { TRY(a->method->plain(a, &plain)); }
    if (plain != NULL) { a = plain; }
    if (a->method->whole_model || (a->method->hf_type == NULL && !a->method->hub)) {
        FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\": method \"%s\" is saved as a model, not as an adapter", a->name,
             a->method->name);
    }
    TRY(format_config(a, &config));
    TRY(peft__dir_make(dir));
    TRY(peft__path_join(&arena, dir, a->method->config_file != NULL ? a->method->config_file : "adapter_config.json",
                        &config_path));
    const char *tensors = a->method->hub ? "adapter.safetensors" : "adapter_model.safetensors";
    TRY(peft__path_join(&arena, dir, a->method->tensors_file != NULL ? a->method->tensors_file : tensors, &tensors_path));
    TRY(format_write_tensors(a, &arena, tensors_path));
    if (a->method->hub) { TRY(peft__hub_write_head(a, dir)); }
    TRY(peft__save_text(a->mem, config_path, peft__str_c(&config), config.len));
out:
    peft__str_free(&config);
    peft__arena_free(&arena);
    peft__adapter_release(plain);
    return st;
}

/* ---- descriptions -------------------------------------------------------------------------------------------- */

static void format_put_task(const peft__task *t, peft__json_out *j) {
    peft__json_key(j, "task");
    peft__json_put_text(j, peft__task_name(t->kind));
    if (t->kind != PEFT__TASK_SEQUENCE && t->kind != PEFT__TASK_TOKENS) { return; }
    peft__json_key(j, "num_labels");
    peft__json_put_int(j, t->labels);
    peft__json_key(j, "problem_type");
    peft__json_put_text(j, peft__problem_name(t->problem));
    if (t->names == NULL) { return; }
    peft__json_key(j, "labels");
    peft__json_array(j);
    for (int64_t i = 0; i < t->labels; i++) { peft__json_put_text(j, t->names[i]); }
    peft__json_array_end(j);
}

void peft__base_record(const peft__base_info *base, peft__str *out) {
    int64_t hidden = 0, layers = 0, vocab = 0;
    for (size_t i = 0; i < base->n_sites; i++) {
        const peft__site *s = &base->sites[i];
        layers = PEFT__MAX(layers, (int64_t)s->layer + 1);
        if (s->kind == PEFT__SITE_EMBED && s->role == PEFT__ROLE_TOKENS) {
            vocab = s->in;
            hidden = s->out;
        }
    }
    peft__json_out j;
    peft__json_begin(&j, out, 0);
    peft__json_object(&j);
    peft__json_key(&j, "architecture");
    peft__json_put_text(&j, base->architecture);
    peft__json_key(&j, "hidden_size");
    peft__json_put_int(&j, hidden);
    peft__json_key(&j, "layers");
    peft__json_put_int(&j, layers);
    peft__json_key(&j, "vocab");
    peft__json_put_int(&j, vocab);
    if (base->task != NULL && base->task->kind != PEFT__TASK_CAUSAL_LM) { format_put_task(base->task, &j); }
    peft__json_object_end(&j);
}

static void format_put_sites(const peft__adapter *a, peft__json_out *j) {
    peft__json_array(j);
    for (size_t i = 0; i < a->attachments.len; i++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, i);
        peft__json_object(j);
        peft__json_key(j, "path");
        peft__json_put_text(j, a->base->sites[at->site].path);
        if (at->rank > 0) {
            peft__json_key(j, "rank");
            peft__json_put_int(j, at->rank);
            peft__json_key(j, "scale");
            peft__json_put_double(j, at->scale);
        }
        peft__json_object_end(j);
    }
    peft__json_array_end(j);
}

static void format_count(const peft__adapter *a, int64_t *values, int64_t *trainable) {
    *values += a->n_values;
    *trainable += a->n_trainable;
    for (size_t i = 0; i < peft__adapter_own_parts(a); i++) {
        format_count(PEFT__VEC_AT(&a->parts, peft__adapter *, i), values, trainable);
    }
}

static void format_put_adapter(const peft__adapter *a, peft__json_out *j) {
    int64_t values = 0, trainable = 0;
    format_count(a, &values, &trainable);
    peft__json_object(j);
    peft__json_key(j, "name");
    peft__json_put_text(j, a->name);
    peft__json_key(j, "method");
    peft__json_put_text(j, a->method->name);
    peft__json_key(j, "parameters");
    peft__json_put_int(j, values);
    peft__json_key(j, "trainable");
    peft__json_put_int(j, trainable);
    peft__json_key(j, "bytes");
    peft__json_put_int(j, values * (int64_t)sizeof(float));
    if (a->parts.len > 0) {
        peft__json_key(j, "parts");
        peft__json_array(j);
        for (size_t i = 0; i < a->parts.len; i++) { format_put_adapter(PEFT__VEC_AT(&a->parts, peft__adapter *, i), j); }
        peft__json_array_end(j);
    }
    peft__json_key(j, "sites");
    format_put_sites(a, j);
    const char *text = a->method->text != NULL && !a->from_file ? a->method->text(a) : NULL;
    if (text != NULL) {
        peft__json_key(j, "init_text");
        peft__json_put_text(j, text);
    }
    peft__json_key(j, "options");
    peft__json_object(j);
    for (size_t i = 0; i < a->opts.schema->count; i++) { peft__config_put(&a->opts, a->opts.schema->options[i].key, j); }
    peft__json_object_end(j);
    peft__json_object_end(j);
}

peft_status peft__adapter_info(const peft__adapter *a, peft__str *out) {
    peft__json_out j;
    peft__json_begin(&j, out, 0);
    format_put_adapter(a, &j);
    return peft__str_status(out);
}

#undef FORMAT_PEFT_VERSION
