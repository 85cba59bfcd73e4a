/* check_files.c - looks for what is wrong in the files of an adapter without a base: values that are no numbers, halves of pairs that
 * are missing or of other ranks, a config that says something else than the tensors.
 *
 * What opening refuses (unknown method, keys of another kind, spans outside the file) comes from the same readers. Loading an
 * adapter into a base then checks that each tensor has its place there (format_hf_read.c, format_gguf.c).
 *
 * Left out: shapes of methods other than LoRA, IA3, prompts and bottlenecks, which only a base tells. */
#include <math.h>
#include <stdio.h>

#include "peft/reader.h"

typedef struct check_files {
    peft__mem *mem;
    const peft__kernels *k;
    peft__findings *f;
    bool values;                 /* read all weights */
    peft__adapter_checked *out;
    const peft__adapter_files *x; /* of the present folder */
    peft__arena arena;
    peft__names targets;
} check_files;

static const char *check_files_where(check_files *c, const char *name) {
    const char *text = peft__arena_printf(&c->arena, "tensor \"%s\"", name);
    if (text == NULL) { c->f->st = PEFT_E_NOMEM; }
    return text != NULL ? text : "";
}

/* Type and values of a tensor, of any file. */
static void check_files_tensor(check_files *c, const char *path, const peft__io_tensor *t) {
    int64_t n = 0;
    c->out->tensors++;
    if (peft__io_elements(t->ndim, t->dims, 0, &n) != PEFT_OK) { return; }
    c->out->values += n;
    if (t->dtype == PEFT__IO_DTYPE_OTHER || peft__dtype_elems(t->dtype) == 0) {
        peft__finding_error(c->f, PEFT_E_UNSUPPORTED, path, check_files_where(c, t->name), "its type is %s, expected F32, F16 or BF16",
                            t->dtype_name);
        return;
    }
    if (!c->values || n == 0) { return; }
    peft__scan_result r;
    peft__scan(c->k, t->dtype, t->data, n, &r);
    (void)peft__scan_report(&r, t->ndim, t->dims, path, t->name, true, c->f);
}

/* ---- pairs ------------------------------------------------------------------------------------------------------------------ */

/* The tensor whose name is that of t with `tail` replaced by `other`; NULL: none, which is an error. */
static const peft__io_tensor *check_files_other(check_files *c, const char *path, const peft__safetensors *file, const peft__io_tensor *t,
                                                const char *tail, const char *other) {
    size_t stem = strlen(t->name) - strlen(tail);
    const char *name = peft__arena_printf(&c->arena, "%.*s%s", (int)stem, t->name, other);
    if (name == NULL) {
        c->f->st = PEFT_E_NOMEM;
        return NULL;
    }
    const peft__io_tensor *found = peft__safetensors_find(file, name);
    if (found == NULL) {
        peft__finding_error(c->f, PEFT_E_NOT_FOUND, path, check_files_where(c, t->name), "its counterpart \"%s\" is missing", name);
    }
    return found;
}

static bool check_files_ends(const char *name, const char *tail) {
    size_t n = strlen(name), m = strlen(tail);
    return n > m && strcmp(name + n - m, tail) == 0;
}

/* The module's path in a tensor's name: without wrapper and tail; in the arena. */
static const char *check_files_module(check_files *c, const char *name, const char *tail) {
    static const char wrapper[] = "base_model.model.";
    size_t skip = strncmp(name, wrapper, sizeof wrapper - 1) == 0 ? sizeof wrapper - 1 : 0;
    const char *path = peft__arena_strdup(&c->arena, name + skip, strlen(name) - skip - strlen(tail));
    if (path == NULL) { c->f->st = PEFT_E_NOMEM; }
    return path != NULL ? path : "";
}

/* Is the module one that the config's targets mean? */
static bool check_files_target(check_files *c, const char *module) {
    bool found = c->targets.count == 0;
    for (size_t i = 0; i < c->targets.count && !found; i++) {
        const char *name = c->targets.items[i];
        if (!c->targets.pattern) { found = peft__path_ends(module, name); }
        if (c->targets.pattern && strcmp(name, "all-linear") == 0) { found = true; }
        if (c->targets.pattern && !found && peft__regex_match(name, module, true, &found) != PEFT_OK) { found = true; } /* said elsewhere */
    }
    return found;
}

/* A is [r, in], B [out, r], with the r that the config gives the module. */
static peft_status check_files_lora_pair(check_files *c, const peft__io_tensor *a, const peft__io_tensor *b) {
    static const char tail[] = ".lora_A.weight";
    const char *path = c->x->tensors_path, *module = check_files_module(c, a->name, tail);
    double rank = 0;
    peft_status st = PEFT_OK;
    if (a->ndim != 2 || (b != NULL && b->ndim != 2)) {
        peft__finding_error(c->f, PEFT_E_SHAPE, path, check_files_where(c, a->ndim != 2 ? a->name : b->name), "it is no matrix");
        return PEFT_OK;
    }
    st = peft__target_pattern(c->mem, peft__opt_str(c->x->opts, "rank_pattern"), module, (double)peft__opt_int(c->x->opts, "r"), &rank);
    TRY(peft__finding_failed(c->f, st, c->x->config_path, "key \"rank_pattern\""));
    if (rank > 0 && (double)a->dims[0] != rank) {
        peft__finding_error(c->f, PEFT_E_SHAPE, path, check_files_where(c, a->name), "its rank is %lld, and the config says %.0f",
                            (long long)a->dims[0], rank);
    }
    if (b != NULL && b->dims[1] != a->dims[0]) {
        peft__finding_error(c->f, PEFT_E_SHAPE, path, check_files_where(c, b->name),
                            "it is [%lld, %lld], expected [%lld, %lld]: the rank of "
                            "its counterpart", (long long)b->dims[0], (long long)b->dims[1], (long long)b->dims[0], (long long)a->dims[0]);
    }
    if (!check_files_target(c, module)) {
        peft__finding_error(c->f, PEFT_E_FORMAT, path, check_files_where(c, a->name), "target_modules of the config do not mean its module "
                            "\"%s\"", module);
    }
out:
    return st;
}

static peft_status check_files_lora(check_files *c) {
    peft_status st = PEFT_OK;
    const peft__safetensors *file = c->x->file;
    for (size_t i = 0; i < file->count; i++) {
        const peft__io_tensor *t = &file->tensors[i];
        if (check_files_ends(t->name, ".lora_A.weight")) {
            TRY(check_files_lora_pair(c, t, check_files_other(c, c->x->tensors_path, file, t, ".lora_A.weight", ".lora_B.weight")));
        } else if (check_files_ends(t->name, ".lora_B.weight")) {
            (void)check_files_other(c, c->x->tensors_path, file, t, ".lora_B.weight", ".lora_A.weight");
        }
    }
out:
    return st;
}

static void check_files_ia3(check_files *c) {
    for (size_t i = 0; i < c->x->file->count; i++) {
        const peft__io_tensor *t = &c->x->file->tensors[i];
        if (!check_files_ends(t->name, ".ia3_l") || (t->ndim == 2 && (t->dims[0] == 1 || t->dims[1] == 1))) { continue; }
        peft__finding_error(c->f, PEFT_E_SHAPE, c->x->tensors_path, check_files_where(c, t->name), "it is no column or row of factors");
    }
}

/* A table of as many virtual tokens, and as wide, as the config says. */
static void check_files_prompt(check_files *c) {
    const peft__io_tensor *t = peft__safetensors_find(c->x->file, "prompt_embeddings");
    const peft__json *n = peft__json_find(c->x->config, "num_virtual_tokens"), *dim = peft__json_find(c->x->config, "token_dim");
    if (t == NULL) {
        peft__finding_error(c->f, PEFT_E_NOT_FOUND, c->x->tensors_path, "tensor \"prompt_embeddings\"", "it is missing");
        return;
    }
    if (t->ndim != 2) {
        peft__finding_error(c->f, PEFT_E_SHAPE, c->x->tensors_path, check_files_where(c, t->name), "it is no matrix");
        return;
    }
    if (n != NULL && n->is_int && n->i > 0 && t->dims[0] % n->i != 0) {
        peft__finding_error(c->f, PEFT_E_SHAPE, c->x->tensors_path, check_files_where(c, t->name),
                            "it has %lld rows, and num_virtual_tokens "
                            "is %lld", (long long)t->dims[0], (long long)n->i);
    }
    if (dim != NULL && dim->is_int && dim->i > 0 && t->dims[1] != dim->i) {
        peft__finding_error(c->f, PEFT_E_SHAPE, c->x->tensors_path, check_files_where(c, t->name),
                            "its rows have %lld numbers, and token_dim "
                            "is %lld", (long long)t->dims[1], (long long)dim->i);
    }
}

/* A bottleneck goes down from the model's width and up again. */
static peft_status check_files_bottleneck(check_files *c) {
    static const char up_tail[] = ".adapter_up.weight";
    static const char *const downs[] = {".adapter_down.0.weight", ".adapter_down.1.weight"};
    peft_status st = PEFT_OK;
    int64_t hidden = 0;
    const peft__safetensors *file = c->x->file;
    TRY(peft__json_int(c->x->config, c->x->config_path, "hidden_size", 0, 0, INT64_MAX, &hidden));
    for (size_t i = 0; i < file->count; i++) {
        const peft__io_tensor *up = &file->tensors[i], *down = NULL;
        if (!check_files_ends(up->name, up_tail) || up->ndim != 2) { continue; }
        for (size_t d = 0; d < PEFT__COUNT(downs); d++) {
            const char *name = peft__arena_printf(&c->arena, "%.*s%s", (int)(strlen(up->name) - strlen(up_tail)), up->name, downs[d]);
            if (name == NULL) { return PEFT_E_NOMEM; }
            const peft__io_tensor *t = peft__safetensors_find(file, name);
            if (t != NULL && t->ndim == 2) { down = t; }
        }
        if (down == NULL) {
            peft__finding_error(c->f, PEFT_E_NOT_FOUND, c->x->tensors_path, check_files_where(c, up->name), "its way down is missing");
        } else if (down->dims[0] != up->dims[1] || down->dims[1] != up->dims[0] || (hidden > 0 && up->dims[0] != hidden)) {
            peft__finding_error(c->f, PEFT_E_SHAPE, c->x->tensors_path, check_files_where(c, up->name),
                                "it is [%lld, %lld] and its way down "
                                "[%lld, %lld]: expected [%lld, n] and [n, %lld]", (long long)up->dims[0], (long long)up->dims[1],
                                (long long)down->dims[0], (long long)down->dims[1], (long long)(hidden > 0 ? hidden : up->dims[0]),
                                (long long)(hidden > 0 ? hidden : up->dims[0]));
        }
    }
out:
    return st;
}

/* ---- a folder ----------------------------------------------------------------------------------------------------------------- */

/* Every name of target_modules is a module of some tensor. */
static peft_status check_files_targets(check_files *c) {
    peft_status st = PEFT_OK;
    if (c->x->hub || peft__schema_find(c->x->opts->schema, "target_modules") == NULL) { return PEFT_OK; }
    TRY(peft__names_read(&c->arena, peft__opt_str(c->x->opts, "target_modules"), "target_modules", &c->targets));
    bool met_pattern = false;
    if (c->targets.pattern) { st = peft__regex_match(c->targets.items[0], "", true, &met_pattern); }
    TRY(peft__finding_failed(c->f, st, c->x->config_path, "key \"target_modules\""));
    for (size_t i = 0; !c->targets.pattern && i < c->targets.count; i++) {
        bool met = false;
        for (size_t t = 0; t < c->x->file->count && !met; t++) { met = peft__path_within(c->x->file->tensors[t].name,
                                                                                         c->targets.items[i]); }
        if (met) { continue; }
        peft__finding_error(c->f, PEFT_E_NOT_FOUND, c->x->config_path, "key \"target_modules\"",
                            "it names \"%s\", and no tensor of %s is of "
                            "such a module", c->targets.items[i], peft__path_name(c->x->tensors_path));
    }
out:
    return st;
}

static peft_status check_files_folder(void *user, const peft__adapter_files *files) {
    check_files *c = user;
    peft_status st = PEFT_OK;
    const peft__method *m = files->method;
    const char *type = m->hf_type != NULL ? m->hf_type : "";
    c->x = files;
    c->targets = (peft__names){0};
    c->out->method = m->name;
    if (files->file->count == 0) { peft__finding_error(c->f, PEFT_E_FORMAT, files->tensors_path, "", "there is no tensor in it"); }
    for (size_t i = 0; i < files->file->count; i++) {
        const peft__io_tensor *t = &files->file->tensors[i];
        check_files_tensor(c, files->tensors_path, t);
        if (t->dtype == PEFT__IO_DTYPE_OTHER || peft__reader_plain(t)) { continue; }
        peft__finding_error(c->f, PEFT_E_UNSUPPORTED, files->tensors_path, check_files_where(c, t->name),
                            "its type is %s, expected F32, F16 "
                            "or BF16", t->dtype_name);
    }
    TRY(check_files_targets(c));
    if (strcmp(type, "LORA") == 0) { TRY(check_files_lora(c)); }
    if (strcmp(type, "IA3") == 0) { check_files_ia3(c); }
    if (strcmp(type, "PROMPT_TUNING") == 0) { check_files_prompt(c); }
    if (files->hub) { TRY(check_files_bottleneck(c)); }
out:
    return st;
}

static peft_status check_files_part(void *user, const char *dir) {
    check_files *c = user;
    peft_status st = peft__adapter_with_files(c->mem, dir, check_files_folder, c);
    return peft__finding_failed(c->f, st, dir, "");
}

static void check_files_begin(check_files *c, peft__mem *mem, const peft__kernels *k, bool values, peft__findings *f,
                              peft__adapter_checked *out) {
    *out = (peft__adapter_checked){0};
    *c = (check_files){.mem = mem, .k = k, .f = f, .values = values, .out = out};
    peft__arena_init(&c->arena, mem);
}

peft_status peft__adapter_check_hf(peft__mem *mem, const peft__kernels *k, const char *dir, bool values, peft__findings *f,
                                   peft__adapter_checked *out) {
    check_files c;
    peft_status st;
    check_files_begin(&c, mem, k, values, f, out);
    if (peft__union_probe(dir)) {
        st = peft__finding_failed(f, peft__union_each(mem, dir, check_files_part, &c), dir, "");
        out->method = "union";
    } else {
        st = check_files_part(&c, dir);
    }
    peft__arena_free(&c.arena);
    return st;
}

/* ---- a GGUF file --------------------------------------------------------------------------------------------------------------- */

/* Pairs [r, in] and [out, r] by name. */
static void check_files_gguf_pairs(check_files *c, const char *path, const peft__gguf *g) {
    for (size_t i = 0; i < g->count; i++) {
        const peft__io_tensor *t = &g->tensors[i];
        bool left = check_files_ends(t->name, ".lora_a");
        if (check_files_ends(t->name, "_norm.weight")) { continue; }
        if (!left && !check_files_ends(t->name, ".lora_b")) {
            peft__finding_error(c->f, PEFT_E_FORMAT, path, check_files_where(c, t->name), "its name ends in neither .lora_a nor .lora_b");
            continue;
        }
        const char *name = peft__arena_printf(&c->arena, "%.*s%c", (int)strlen(t->name) - 1, t->name, left ? 'b' : 'a');
        if (name == NULL) {
            c->f->st = PEFT_E_NOMEM;
            return;
        }
        const peft__io_tensor *other = peft__gguf_find(g, name);
        if (other == NULL) {
            peft__finding_error(c->f, PEFT_E_NOT_FOUND, path, check_files_where(c, t->name), "its counterpart \"%s\" is missing", name);
        } else if (left && (t->ndim != 2 || other->ndim != 2 || t->dims[0] != other->dims[1])) {
            peft__finding_error(c->f, PEFT_E_SHAPE, path, check_files_where(c, t->name), "its rank is %lld, and that of \"%s\" %lld",
                                (long long)t->dims[0], name, (long long)(other->ndim > 1 ? other->dims[1] : 0));
        }
    }
}

peft_status peft__adapter_check_gguf(peft__mem *mem, const peft__kernels *k, const char *path, bool values, peft__findings *f,
                                     peft__adapter_checked *out) {
    peft_status st = PEFT_OK;
    check_files c;
    peft__gguf g = {0};
    const char *type = NULL;
    double alpha = 0;
    check_files_begin(&c, mem, k, values, f, out);
    TRY(peft__gguf_open(mem, path, false, &g));
    TRY(peft__gguf_text(&g, "adapter.type", &c.arena, "", &type));
    TRY(peft__gguf_float(&g, "adapter.lora.alpha", 0, &alpha));
    if (strcmp(type, "lora") != 0) {
        peft__finding_error(f, PEFT_E_UNSUPPORTED, path, "key \"adapter.type\"", "it is \"%s\", expected \"lora\"", type);
    }
    if (alpha < 0) { peft__finding_error(f, PEFT_E_FORMAT, path, "key \"adapter.lora.alpha\"", "it is %g, expected 0 or more", alpha); }
    if (peft__gguf_get(&g, "general.architecture") == NULL) {
        peft__finding_error(f, PEFT_E_FORMAT, path, "key \"general.architecture\"", "it is missing");
    }
    if (g.count == 0) { peft__finding_error(f, PEFT_E_FORMAT, path, "", "there is no tensor in it"); }
    out->method = "lora";
    for (size_t i = 0; i < g.count; i++) { check_files_tensor(&c, path, &g.tensors[i]); }
    check_files_gguf_pairs(&c, path, &g);
out:
    st = peft__finding_failed(f, st, path, "");
    peft__gguf_close(&g);
    peft__arena_free(&c.arena);
    return st;
}
