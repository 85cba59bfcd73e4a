/* format_hub_union.c - unions in AdapterHub's folders (its ConfigUnion), of the parts that mam.c knows:
 *
 *   adapter_config.json    {"config": {"architecture": "union", "configs": [{config of a part}, ...]}, ...}
 *   adapter.safetensors    the tensors of all parts; no two have the same
 *
 * A part's config is read as if it were a folder's own. What it says beyond the union's options must be the default: the options
 * that were found make each part again, and all keys of both are compared.
 *
 * Left out: unions of other parts, which are refused with the list of what there is. */
#include <stdio.h>

#include "peft/hub.h"

peft_status peft__hub_members(const peft__adapter *a, peft__json_out *j) {
    peft_status st = PEFT_OK;
    const peft__json *node = NULL;
    peft__arena arena;
    peft__arena_init(&arena, a->mem);
    if (a->method->hub_out == NULL) {
        TRY(peft__hub_bottleneck(a, &arena, j));
        goto out;
    }
    if (a->method->hub_architecture != NULL) {
        peft__json_key(j, "architecture"), peft__json_put_text(j, a->method->hub_architecture);
    }
    if (a->parts.len == 0) {
        const char *left = peft__opt_str(&a->opts, "leave_out");
        TRY(peft__json_parse(&arena, left[0] != '\0' ? left : "[]", left[0] != '\0' ? strlen(left) : 2, "leave_out", &node));
        peft__json_key(j, "leave_out"), peft__json_put_node(j, node);
    }
    TRY(a->method->hub_out(a, j));
out:
    peft__arena_free(&arena);
    return st;
}

peft_status peft__hub_union_out(const peft__adapter *a, peft__json_out *j) {
    peft_status st = PEFT_OK;
    peft__json_key(j, "configs");
    peft__json_array(j);
    for (size_t i = 0; i < a->parts.len; i++) {
        peft__json_object(j);
        TRY(peft__hub_members(PEFT__VEC_AT(&a->parts, peft__adapter *, i), j));
        peft__json_object_end(j);
    }
    peft__json_array_end(j);
out:
    return st;
}

/* ---- reading ------------------------------------------------------------------------------------------------- */

/* A folder's object with the config of one part in the place of the union's. */
typedef struct hubunion_root {
    peft__json keys[2], items[2], object;
} hubunion_root;

static const peft__json *hubunion_root_of(hubunion_root *r, const peft__json *root, const peft__json *config) {
    static const char *const names[] = {"config", "version"};
    const peft__json *version = peft__json_find(root, "version");
    memset(r, 0, sizeof *r);
    for (size_t i = 0; i < 2; i++) {
        r->keys[i].kind = PEFT__JSON_STRING;
        r->keys[i].str = names[i];
        r->keys[i].len = strlen(names[i]);
    }
    r->items[0] = *config;
    r->items[1].kind = PEFT__JSON_NULL;
    if (version != NULL) { r->items[1] = *version; }
    r->object.kind = PEFT__JSON_OBJECT;
    r->object.len = 2;
    r->object.keys = r->keys;
    r->object.items = r->items;
    return &r->object;
}

static const peft__json *hubunion_configs(const peft__json *root) {
    const peft__json *list = peft__json_find(peft__json_find(root, "config"), "configs");
    return list != NULL && list->kind == PEFT__JSON_ARRAY ? list : NULL;
}

/* Which config of the file is that of a method; -1: none. */
static peft_status hubunion_find(const peft__json *root, const char *what, const char *method, int64_t *out) {
    peft_status st = PEFT_OK;
    const peft__json *list = hubunion_configs(root);
    *out = -1;
    for (size_t i = 0; i < list->len; i++) {
        const peft__method *m = NULL;
        hubunion_root r;
        TRY(peft__hub_method(hubunion_root_of(&r, root, &list->items[i]), what, &m));
        if (strcmp(m->name, method) == 0) { *out = (int64_t)i; }
    }
out:
    return st;
}

static bool hubunion_fits(const peft__hub_union *u, const peft__json *root, const char *what, peft_status *st) {
    size_t n = 0;
    for (; n < PEFT__HUB_UNION_PARTS && u->parts[n] != NULL; n++) {
        int64_t at = -1;
        *st = hubunion_find(root, what, u->parts[n], &at);
        if (*st != PEFT_OK || at < 0) { return false; }
    }
    return n == hubunion_configs(root)->len;
}

peft_status peft__hub_union_method(const peft__json *root, const char *what, const peft__method **out) {
    peft_status st = PEFT_OK;
    const peft__json *list = hubunion_configs(root);
    char have[256] = "";
    if (list == NULL || list->len == 0) { FAIL(PEFT_E_FORMAT, "%s: config.configs is no list of configs", what); }
    for (size_t i = 0; peft__hub_union_at(i) != NULL; i++) {
        if (hubunion_fits(peft__hub_union_at(i), root, what, &st)) {
            *out = peft__hub_union_at(i)->method;
            return PEFT_OK;
        }
        TRY(st);
    }
    for (size_t i = 0; i < list->len; i++) {
        const peft__method *m = NULL;
        hubunion_root r;
        size_t len = strlen(have);
        TRY(peft__hub_method(hubunion_root_of(&r, root, &list->items[i]), what, &m));
        (void)snprintf(have + len, sizeof have - len, "%s%s", i > 0 ? ", " : "", m->name);
    }
    FAIL(PEFT_E_UNSUPPORTED, "%s: a union of %s; this version reads those of prefix_tuning and parallel (mam), and of "
         "prefix_tuning, pfeiffer and lora (unipelt)", what, have);
out:
    return st;
}

/* The value of an option as JSON. */
static peft_status hubunion_text(const peft__optset *o, const char *key, peft__str *out) {
    peft__json_out j;
    peft__str_clear(out);
    peft__json_begin(&j, out, 0);
    peft__json_object(&j);
    peft__config_put(o, key, &j);
    peft__json_object_end(&j);
    return peft__str_status(out);
}

/* Every option of a part must be what the union's options make it. */
static peft_status hubunion_check(const peft__hub_union *u, const peft__optset *own, int32_t part, const peft__optset *read,
                                  const char *what) {
    peft_status st = PEFT_OK;
    peft__optset again = {0};
    peft__str x, y;
    peft__str_init(&x, own->mem);
    peft__str_init(&y, own->mem);
    TRY(peft__hub_union_part_options(u, own, own->mem, part, &again));
    for (size_t i = 0; i < read->schema->count; i++) {
        const char *key = read->schema->options[i].key;
        TRY(hubunion_text(read, key, &x));
        TRY(hubunion_text(&again, key, &y));
        if (strcmp(peft__str_c(&x), peft__str_c(&y)) != 0) {
            FAIL(PEFT_E_UNSUPPORTED, "%s: the config of %s has %s, and method \"%s\" has %s there", what, u->parts[part],
                 peft__str_c(&x), u->method->name, peft__str_c(&y));
        }
    }
out:
    peft__optset_free(&again);
    peft__str_free(&x);
    peft__str_free(&y);
    return st;
}

/* Options of part i as the file has them. */
static peft_status hubunion_read(const peft__hub_union *u, const peft__json *root, const char *what, int32_t part, peft__mem *mem,
                              peft__optset *out) {
    peft_status st = PEFT_OK;
    const peft__method *m = peft__method_find(u->parts[part]);
    hubunion_root r;
    int64_t at = -1;
    TRY(hubunion_find(root, what, u->parts[part], &at));
    if (at < 0) { FAIL(PEFT_E_FORMAT, "%s: config.configs has no config of %s", what, u->parts[part]); }
    TRY(peft__optset_init(out, mem, m->schema));
    const peft__json *own = hubunion_root_of(&r, root, &hubunion_configs(root)->items[at]);
    TRY(m->hub_in != NULL ? m->hub_in(out, own, what) : peft__hub_options(out, own, what));
out:
    return st;
}

peft_status peft__hub_union_in(peft__optset *opts, const peft__json *root, const char *what) {
    peft_status st = PEFT_OK;
    peft__optset parts[PEFT__HUB_UNION_PARTS];
    const peft__hub_union *u = NULL;
    int32_t n = 0;
    memset(parts, 0, sizeof parts);
    for (size_t i = 0; peft__hub_union_at(i) != NULL; i++) {
        if (peft__hub_union_at(i)->method->schema == opts->schema) { u = peft__hub_union_at(i); }
    }
    for (; n < PEFT__HUB_UNION_PARTS && u->parts[n] != NULL; n++) { TRY(hubunion_read(u, root, what, n, opts->mem, &parts[n])); }
    for (size_t i = 0; i < u->count; i++) {
        const peft__hub_union_option *o = &u->options[i];
        const peft__optset *from = &parts[o->part < 0 ? 0 : o->part];
        if (!peft__opt_is_set(from, o->key)) { continue; }
        TRY(peft__hub_union_copy(from, o->key, opts, o->own));
    }
    for (int32_t i = 0; i < n; i++) { TRY(hubunion_check(u, opts, i, &parts[i], what)); }
out:
    for (int32_t i = 0; i < PEFT__HUB_UNION_PARTS; i++) { peft__optset_free(&parts[i]); }
    return st;
}
