/* union.c - an adapter made of others: they act one after the other as stack(...) does, are trained together, and are saved
 * in one folder with a part each that its own library can load:
 *
 *   DIR/libpeft_union.json   {"format": "libpeft-union", "version": 1, "parts": [{"name", "method", "folder"}, ...]}
 *   DIR/lora/, DIR/prompt/   the parts' folders, named by method; a second one of the same method "lora-2"
 *
 * The parts of a new union are adapters of its set, which stay there under their own names; those of a loaded one are its own.
 *
 * Left out: blocks other than the stack (those are said by expressions). */
#include "peft/method.h"

#define UNION_FILE "libpeft_union.json"
#define UNION_FORMAT "libpeft-union"
enum { UNION_VERSION = 1, UNION_DEPTH = 4, UNION_PARTS = 16 };

static const peft__option union_options[] = {
    {"parts", PEFT__OPT_LIST, "", 1, 0, NULL, "names of the adapters that it is made of, in the order in which they act"},
};
static const peft__schema union_schema = {"method:union", union_options, PEFT__COUNT(union_options)};

static peft_status union_build(peft__adapter *a) {
    (void)a;
    return PEFT_OK;
}

static void union_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    (void)a;
    (void)i;
    (void)rng;
    (void)k;
}

static peft_status union_accepts(const peft__adapter *part) {
    if (!part->method->whole_model) { return PEFT_OK; }
    return peft__fail(PEFT_E_UNSUPPORTED, "adapter \"%s\" is a whole model, which is no part of a union", part->name);
}

static peft_status union_refer(peft__adapter *a, struct peft_adapters *set) {
    peft_status st = PEFT_OK;
    peft__names names;
    peft__arena arena;
    if (a->from_file) { return PEFT_OK; } /* its parts are its own */
    peft__arena_init(&arena, a->mem);
    TRY(peft__names_read(&arena, peft__opt_str(&a->opts, "parts"), "parts", &names));
    if (names.count == 0) { FAIL(PEFT_E_KEY, "option \"parts\" of union \"%s\" names no adapters", a->name); }
    if (names.count > UNION_PARTS) {
        FAIL(PEFT_E_KEY, "option \"parts\" of union \"%s\" names %zu adapters, at most %d", a->name, names.count, UNION_PARTS);
    }
    TRY(peft__set_pin_parts(set, &names, a, union_accepts));
out:
    peft__arena_free(&arena);
    return st;
}

/* ---- writing --------------------------------------------------------------------------------------------------------- */

/* The part's folder: its method, numbered from the second of a kind on. */
static char *union_folder(peft__arena *arena, const peft__adapter *a, size_t index) {
    const char *method = PEFT__VEC_AT(&a->parts, peft__adapter *, index)->method->name;
    size_t same = 1;
    for (size_t i = 0; i < index; i++) { same += strcmp(PEFT__VEC_AT(&a->parts, peft__adapter *, i)->method->name, method) == 0; }
    return same == 1 ? peft__arena_strdup(arena, method, strlen(method)) : peft__arena_printf(arena, "%s-%zu", method, same);
}

static peft_status union_index(const peft__adapter *a, peft__arena *arena, peft__str *out) {
    peft__json_out j;
    peft__json_begin(&j, out, 2);
    peft__json_object(&j);
    peft__json_key(&j, "format"), peft__json_put_text(&j, UNION_FORMAT);
    peft__json_key(&j, "version"), peft__json_put_int(&j, UNION_VERSION);
    peft__json_key(&j, "parts");
    peft__json_array(&j);
    for (size_t i = 0; i < a->parts.len; i++) {
        const peft__adapter *part = PEFT__VEC_AT(&a->parts, peft__adapter *, i);
        const char *folder = union_folder(arena, a, i);
        if (folder == NULL) { return PEFT_E_NOMEM; }
        peft__json_object(&j);
        peft__json_key(&j, "name"), peft__json_put_text(&j, part->name);
        peft__json_key(&j, "method"), peft__json_put_text(&j, part->method->name);
        peft__json_key(&j, "folder"), peft__json_put_text(&j, folder);
        peft__json_object_end(&j);
    }
    peft__json_array_end(&j);
    peft__json_object_end(&j);
    return peft__str_status(out);
}

static peft_status union_save(const peft__adapter *a, const char *dir) {
    peft_status st = PEFT_OK;
    char *path = NULL;
    peft__str index;
    peft__arena arena;
    peft__arena_init(&arena, a->mem);
    peft__str_init(&index, a->mem);
    TRY(union_index(a, &arena, &index));
    TRY(peft__dir_make(dir));
    for (size_t i = 0; i < a->parts.len; i++) {
        const peft__adapter *part = PEFT__VEC_AT(&a->parts, peft__adapter *, i);
        const char *folder = union_folder(&arena, a, i);
        if (folder == NULL) { st = PEFT_E_NOMEM; goto out; }
        TRY(peft__path_join(&arena, dir, folder, &path));
        TRY(peft__adapter_save_hf(part, path));
    }
    TRY(peft__path_join(&arena, dir, UNION_FILE, &path)); /* last: the folder counts as a union by it */
    TRY(peft__save_text(a->mem, path, peft__str_c(&index), index.len));
out:
    peft__str_free(&index);
    peft__arena_free(&arena);
    return st;
}

/* ---- reading --------------------------------------------------------------------------------------------------------- */

bool peft__union_probe(const char *dir) {
    char file[4096];
    size_t n = strlen(dir);
    if (n + sizeof UNION_FILE + 1 > sizeof file) { return false; }
    memcpy(file, dir, n);
    file[n] = '/';
    memcpy(file + n + 1, UNION_FILE, sizeof UNION_FILE);
    return peft__path_exists(file);
}

typedef struct union_reader {
    peft__mem *mem;
    const peft__kernels *k;
    const peft__base_info *base;
    bool allow_nan;
} union_reader;

/* The list of parts of the union in dir, and in *path the file that it stands in. */
static peft_status union_open(peft__arena *arena, const char *dir, int32_t depth, char **path, const peft__json **parts) {
    peft_status st = PEFT_OK;
    const char *format = NULL;
    int64_t version = 0;
    const peft__json *index = NULL;
    TRY(peft__path_join(arena, dir, UNION_FILE, path));
    TRY(peft__json_read(arena, *path, &index));
    if (index->kind != PEFT__JSON_OBJECT) { FAIL(PEFT_E_FORMAT, "%s: not a JSON object", *path); }
    TRY(peft__json_str(index, *path, "format", "", &format));
    TRY(peft__json_int(index, *path, "version", 0, 0, INT32_MAX, &version));
    const peft__json *list = peft__json_find(index, "parts");
    if (strcmp(format, UNION_FORMAT) != 0 || list == NULL || list->kind != PEFT__JSON_ARRAY || list->len == 0) {
        FAIL(PEFT_E_FORMAT, "%s: expected \"format\": \"" UNION_FORMAT "\" and a list of \"parts\"", *path);
    }
    if (version > UNION_VERSION) {
        FAIL(PEFT_E_VERSION, "%s: version %lld is newer than this library's %d", *path, (long long)version, UNION_VERSION);
    }
    if (depth > UNION_DEPTH || list->len > UNION_PARTS) {
        FAIL(PEFT_E_FORMAT, "%s: %zu parts at depth %d, at most %d and %d", *path, list->len, (int)depth, UNION_PARTS, UNION_DEPTH);
    }
    *parts = list;
out:
    return st;
}

/* Name and folder of a part; what: the file that lists it. */
static peft_status union_part(const peft__json *node, const char *what, const char *dir, peft__arena *arena, const char **name,
                              char **path) {
    peft_status st = PEFT_OK;
    const char *folder = NULL;
    if (node->kind != PEFT__JSON_OBJECT) { FAIL(PEFT_E_FORMAT, "%s: an item of \"parts\" is no object", what); }
    TRY(peft__json_str(node, what, "name", "", name));
    TRY(peft__json_str(node, what, "folder", "", &folder));
    if (folder[0] == '\0' || folder[0] == '.' || strpbrk(folder, "/\\") != NULL) {
        FAIL(PEFT_E_FORMAT, "%s: \"folder\" is \"%s\", expected the name of a folder beside it", what, folder);
    }
    if ((*name)[0] == '\0') { *name = folder; }
    TRY(peft__path_join(arena, dir, folder, path));
out:
    return st;
}

static peft_status union_read(const union_reader *r, const char *name, const char *dir, int32_t depth, peft__adapter **out);

static peft_status union_read_part(const union_reader *r, const peft__json *node, const char *what, const char *dir, int32_t depth,
                                   peft__arena *arena, peft__adapter *into) {
    peft_status st = PEFT_OK;
    const char *name = NULL;
    char *path = NULL;
    peft__adapter *part = NULL;
    TRY(union_part(node, what, dir, arena, &name, &path));
    if (peft__union_probe(path)) {
        TRY(union_read(r, name, path, depth + 1, &part));
    } else {
        TRY(peft__adapter_load_hf(r->mem, r->k, r->base, name, path, r->allow_nan, &part));
    }
    st = peft__vec_push(&into->parts, &part);
    if (st != PEFT_OK) { peft__adapter_release(part); }
out:
    return st;
}

static peft_status union_read(const union_reader *r, const char *name, const char *dir, int32_t depth, peft__adapter **out) {
    peft_status st = PEFT_OK;
    char *path = NULL;
    const peft__json *parts = NULL;
    peft__adapter *a = NULL;
    peft__arena arena;
    peft__arena_init(&arena, r->mem);
    TRY(union_open(&arena, dir, depth, &path, &parts));
    TRY(peft__adapter_create_empty(r->mem, r->base, name, &peft__method_union, NULL, &a));
    for (size_t i = 0; i < parts->len; i++) { TRY(union_read_part(r, &parts->items[i], path, dir, depth, &arena, a)); }
    *out = a;
    a = NULL;
out:
    peft__adapter_release(a);
    peft__arena_free(&arena);
    return st;
}

peft_status peft__union_load(peft__mem *mem, const peft__kernels *k, const peft__base_info *base, const char *name, const char *dir,
                             bool allow_nan, peft__adapter **out) {
    const union_reader r = {mem, k, base, allow_nan};
    return union_read(&r, name, dir, 0, out);
}

static peft_status union_each(peft__mem *mem, const char *dir, int32_t depth, peft__union_part_fn fn, void *user) {
    peft_status st = PEFT_OK;
    const char *name = NULL;
    char *what = NULL, *path = NULL;
    const peft__json *parts = NULL;
    peft__arena arena;
    peft__arena_init(&arena, mem);
    TRY(union_open(&arena, dir, depth, &what, &parts));
    for (size_t i = 0; i < parts->len; i++) {
        TRY(union_part(&parts->items[i], what, dir, &arena, &name, &path));
        TRY(peft__union_probe(path) ? union_each(mem, path, depth + 1, fn, user) : fn(user, path));
    }
out:
    peft__arena_free(&arena);
    return st;
}

peft_status peft__union_each(peft__mem *mem, const char *dir, peft__union_part_fn fn, void *user) {
    return union_each(mem, dir, 0, fn, user);
}

/* ---- what a folder holds, without a base ------------------------------------------------------------------------------------ */

static peft_status union_inspect(peft__mem *mem, const char *dir, int32_t depth, peft__str *out);

static peft_status union_inspect_part(peft__mem *mem, const char *path, int32_t depth, peft__arena *arena, peft__json_out *j) {
    peft_status st = PEFT_OK;
    const peft__json *node = NULL;
    peft__str text;
    peft__str_init(&text, mem);
    TRY(peft__union_probe(path) ? union_inspect(mem, path, depth + 1, &text) : peft__adapter_inspect(mem, path, &text));
    TRY(peft__json_parse(arena, peft__str_c(&text), text.len, path, &node));
    peft__json_put_node(j, node);
out:
    peft__str_free(&text);
    return st;
}

static peft_status union_inspect(peft__mem *mem, const char *dir, int32_t depth, peft__str *out) {
    peft_status st = PEFT_OK;
    const char *name = NULL;
    char *what = NULL, *path = NULL;
    const peft__json *parts = NULL;
    peft__json_out j;
    peft__arena arena;
    peft__arena_init(&arena, mem);
    TRY(union_open(&arena, dir, depth, &what, &parts));
    peft__json_begin(&j, out, 0);
    peft__json_object(&j);
    peft__json_key(&j, "kind"), peft__json_put_text(&j, "adapter");
    peft__json_key(&j, "method"), peft__json_put_text(&j, peft__method_union.name);
    peft__json_key(&j, "parts");
    peft__json_array(&j);
    for (size_t i = 0; i < parts->len; i++) {
        TRY(union_part(&parts->items[i], what, dir, &arena, &name, &path));
        peft__json_object(&j);
        peft__json_key(&j, "name"), peft__json_put_text(&j, name);
        peft__json_key(&j, "adapter");
        TRY(union_inspect_part(mem, path, depth, &arena, &j));
        peft__json_object_end(&j);
    }
    peft__json_array_end(&j);
    peft__json_object_end(&j);
    TRY(peft__str_status(out));
out:
    peft__arena_free(&arena);
    return st;
}

peft_status peft__union_inspect(peft__mem *mem, const char *dir, peft__str *out) { return union_inspect(mem, dir, 0, out); }

const peft__method peft__method_union = {
    .name = "union",
    .schema = &union_schema,
    .build = union_build,
    .init = union_init,
    .combine = PEFT__COMBINE_STACK,
    .refer = union_refer,
    .save = union_save,
    .learning_rate = 1e-3,
};
