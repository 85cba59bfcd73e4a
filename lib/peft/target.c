/* target.c - which modules a pattern means: the rules of Hugging Face PEFT.
 *
 * For the path of a module (peft/tuners/tuners_utils.py, check_target_module_exists):
 *   1. exclude_modules wins: a string is a pattern for the whole path; an item of a list is the path or ends it at a dot.
 *   2. What lies in a module of modules_to_save is no target.
 *   3. target_modules: as exclude_modules; "all-linear" is every projection but the head.
 *   4. layers_to_transform keeps, of matches by ending, those in these layers. The number is the first one of the path that
 *      has two components before it, or the one after layers_pattern.
 *   5. rank_pattern, alpha_pattern: the first key k for which (.*\.)?(k)$ matches.
 * PEFT passes over names that match nothing as long as another does; here they are errors, unless `lenient`. */
#include "peft/method.h"

/* ---- lists and paths ----------------------------------------------------------------------------------------- */

static peft_status target_add_name(peft__arena *a, const peft__json *item, const char *key, peft__names *out) {
    peft_status st = PEFT_OK;
    size_t i = out->count;
    out->numbers[i] = -1;
    if (item->kind == PEFT__JSON_NUMBER && item->is_int && item->i >= 0) {
        out->numbers[i] = item->i;
        out->items[i] = peft__arena_printf(a, "%lld", (long long)item->i);
    } else if (item->kind == PEFT__JSON_STRING && item->len > 0 && memchr(item->str, '\0', item->len) == NULL) {
        out->items[i] = item->str;
    } else {
        FAIL(PEFT_E_KEY, "key \"%s\": item %zu is neither a name nor a whole number", key, i);
    }
    if (out->items[i] == NULL) { return PEFT_E_NOMEM; }
    out->count++;
out:
    return st;
}

peft_status peft__names_read(peft__arena *a, const char *list, const char *key, peft__names *out) {
    peft_status st = PEFT_OK;
    const peft__json *node = NULL;
    *out = (peft__names){0};
    if (list == NULL || list[0] == '\0') { return PEFT_OK; }
    TRY(peft__json_parse(a, list, strlen(list), key, &node));
    out->pattern = node->kind == PEFT__JSON_STRING;
    if (!out->pattern && node->kind != PEFT__JSON_ARRAY) { FAIL(PEFT_E_KEY, "key \"%s\" is neither a list nor a text", key); }
    size_t n = out->pattern ? 1 : node->len;
    out->items = peft__arena_alloc(a, PEFT__MAX(n, (size_t)1) * sizeof *out->items);
    out->numbers = peft__arena_alloc(a, PEFT__MAX(n, (size_t)1) * sizeof *out->numbers);
    if (out->items == NULL || out->numbers == NULL) { return PEFT_E_NOMEM; }
    for (size_t i = 0; i < n; i++) { TRY(target_add_name(a, out->pattern ? node : &node->items[i], key, out)); }
out:
    return st;
}

bool peft__path_ends(const char *path, const char *name) {
    size_t n = strlen(path), m = strlen(name);
    if (m > n || strcmp(path + (n - m), name) != 0) { return false; }
    return m == n || path[n - m - 1] == '.';
}

bool peft__path_within(const char *path, const char *name) {
    size_t m = strlen(name);
    for (const char *at = path; at != NULL && m > 0;) {
        if (strncmp(at, name, m) == 0 && (at[m] == '\0' || at[m] == '.')) { return true; }
        at = strchr(at, '.');
        if (at != NULL) { at++; }
    }
    return false;
}

const char *peft__path_leaf(const char *path) {
    const char *dot = strrchr(path, '.');
    return dot != NULL ? dot + 1 : path;
}

/* ---- errors that list what there is -------------------------------------------------------------------------- */

enum { TARGET_LEAVES = 48 };

/* Distinct last components of the paths of the sites in kind_mask. */
static size_t target_leaves(const peft__base_info *base, uint32_t kind_mask, const char *leaves[TARGET_LEAVES]) {
    size_t n = 0;
    for (size_t i = 0; i < base->n_sites && n < TARGET_LEAVES; i++) {
        if ((kind_mask >> base->sites[i].kind & 1u) == 0) { continue; }
        const char *leaf = peft__path_leaf(base->sites[i].path);
        bool known = false;
        for (size_t j = 0; j < n && !known; j++) { known = strcmp(leaves[j], leaf) == 0; }
        if (!known) { leaves[n++] = leaf; }
    }
    return n;
}

static peft_status target_fail_name(peft__mem *mem, const peft__base_info *base, uint32_t kind_mask, const char *key,
                                    const char *name) {
    const char *leaves[TARGET_LEAVES] = {NULL};
    size_t n = target_leaves(base, kind_mask, leaves);
    const char *near = peft__nearest(name, leaves, n);
    peft__str known;
    peft__str_init(&known, mem);
    for (size_t i = 0; i < n; i++) { peft__str_putf(&known, "%s%s", i > 0 ? ", " : "", leaves[i]); }
    peft_status st = peft__str_status(&known);
    if (st == PEFT_OK) {
        st = peft__fail(PEFT_E_NOT_FOUND, "%s: no module of this %s model matches \"%s\"; %s%s%sthere are: %s", key,
                        base->architecture, name, near != NULL ? "did you mean \"" : "", near != NULL ? near : "",
                        near != NULL ? "\"? " : "", peft__str_c(&known));
    }
    peft__str_free(&known);
    return st;
}

/* ---- layers -------------------------------------------------------------------------------------------------- */

static bool target_number(const char *at, int64_t *out) {
    size_t n = 0;
    while (at[n] >= '0' && at[n] <= '9') { n++; }
    return n > 0 && at[n] == '.' && peft__parse_i64(at, n, out);
}

/* The layer of a path; -1: none. pattern NULL: the first number with two components before it. */
static int64_t target_layer(const char *path, const char *pattern) {
    size_t m = pattern != NULL ? strlen(pattern) : 0, components = 0;
    int64_t layer;
    for (const char *dot = strchr(path, '.'); dot != NULL; dot = strchr(dot + 1, '.')) {
        components++;
        if (pattern == NULL) {
            if (components >= 2 && target_number(dot + 1, &layer)) { return layer; }
        } else if (strncmp(dot + 1, pattern, m) == 0 && dot[1 + m] == '.' && target_number(dot + 2 + m, &layer)) {
            return layer;
        }
    }
    return -1;
}

typedef struct target_rules {
    peft__names modules, exclude, layers, layers_pattern, saved;
    bool all_linear;
    bool *layer_used, *module_used, *exclude_used; /* one an item: something matched */
} target_rules;

static bool target_in_layers(const target_rules *r, const char *path) {
    if (r->layers.count == 0) { return true; }
    int64_t layer = -1;
    if (r->layers_pattern.count == 0) { layer = target_layer(path, NULL); }
    for (size_t i = 0; i < r->layers_pattern.count && layer < 0; i++) {
        layer = target_layer(path, r->layers_pattern.items[i]);
    }
    for (size_t i = 0; i < r->layers.count && layer >= 0; i++) {
        if (r->layers.numbers[i] != layer) { continue; }
        r->layer_used[i] = true;
        return true;
    }
    return false;
}

/* ---- rules --------------------------------------------------------------------------------------------------- */

static peft_status target_read_rules(peft__arena *a, const peft__base_info *base, const peft__target *t, target_rules *r) {
    peft_status st = PEFT_OK;
    const char *modules = t->modules != NULL && t->modules[0] != '\0' ? t->modules : t->defaults;
    *r = (target_rules){0};
    if (modules == NULL || modules[0] == '\0') {
        FAIL(PEFT_E_NOT_FOUND, "target_modules must be given: there are no default targets for model type \"%s\"",
             base->model_type != NULL ? base->model_type : "");
    }
    TRY(peft__names_read(a, modules, "target_modules", &r->modules));
    TRY(peft__names_read(a, t->exclude, "exclude_modules", &r->exclude));
    TRY(peft__names_read(a, t->layers, "layers_to_transform", &r->layers));
    TRY(peft__names_read(a, t->layers_pattern, "layers_pattern", &r->layers_pattern));
    TRY(peft__names_read(a, t->modules_to_save, "modules_to_save", &r->saved));
    r->all_linear = r->modules.pattern && strcmp(r->modules.items[0], "all-linear") == 0;
    for (size_t i = 0; i < r->layers.count; i++) {
        if (r->layers.numbers[i] < 0) { FAIL(PEFT_E_KEY, "layers_to_transform: \"%s\" is no number of a layer", r->layers.items[i]); }
    }
    if (r->layers.count > 0 && r->modules.pattern) {
        FAIL(PEFT_E_KEY, "layers_to_transform needs target_modules to be a list, and it is the text \"%s\"", r->modules.items[0]);
    }
    if (r->layers_pattern.count > 0 && r->layers.count == 0) {
        FAIL(PEFT_E_KEY, "layers_pattern is given, but layers_to_transform is not");
    }
    size_t n = r->modules.count + r->exclude.count + r->layers.count + 1;
    r->module_used = peft__arena_alloc(a, n * sizeof *r->module_used);
    if (r->module_used == NULL) { return PEFT_E_NOMEM; }
    r->exclude_used = r->module_used + r->modules.count;
    r->layer_used = r->exclude_used + r->exclude.count;
out:
    return st;
}

/* Does one of the names match the path? used: marks all of them that do; exact: one is the whole path. */
static peft_status target_hits(const peft__names *names, const char *path, bool *used, bool *hit, bool *exact) {
    peft_status st = PEFT_OK;
    *hit = *exact = false;
    if (names->pattern) {
        TRY(peft__regex_match(names->items[0], path, true, hit));
        *exact = *hit; /* layers do not apply to patterns */
        used[0] = used[0] || *hit;
        goto out;
    }
    for (size_t i = 0; i < names->count; i++) {
        if (!peft__path_ends(path, names->items[i])) { continue; }
        *hit = used[i] = true;
        *exact = *exact || strcmp(path, names->items[i]) == 0;
    }
out:
    return st;
}

static peft_status target_match_site(target_rules *r, const peft__site *s, bool *out) {
    peft_status st = PEFT_OK;
    bool hit, exact, excluded, ignored;
    *out = false;
    if (r->all_linear) {
        hit = exact = s->kind == PEFT__SITE_LINEAR;
        r->module_used[0] = true;
    } else {
        TRY(target_hits(&r->modules, s->path, r->module_used, &hit, &exact));
    }
    TRY(target_hits(&r->exclude, s->path, r->exclude_used, &excluded, &ignored));
    for (size_t i = 0; i < r->saved.count; i++) { excluded = excluded || peft__path_within(s->path, r->saved.items[i]); }
    *out = hit && !excluded && (exact || target_in_layers(r, s->path));
out:
    return st;
}

/* A name that matched nothing that the method takes: does it name something else of the model? */
static peft_status target_check_names(peft__mem *mem, const peft__base_info *base, const target_rules *r, uint32_t kind_mask,
                                      bool lenient) {
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < r->modules.count; i++) {
        if (r->module_used[i]) { continue; }
        for (size_t j = 0; j < base->n_sites && !r->modules.pattern; j++) {
            const peft__site *s = &base->sites[j];
            bool weight = s->weight != NULL && (kind_mask >> s->kind & 1u) == 0;
            if (weight && peft__path_ends(s->path, r->modules.items[i])) {
                FAIL(PEFT_E_UNSUPPORTED, "target_modules: \"%s\" is %s, which this method does not take", s->path,
                     s->kind == PEFT__SITE_EMBED    ? "a table of embeddings"
                     : s->kind == PEFT__SITE_LINEAR ? "a projection"
                                                    : "no projection");
            }
        }
        if (lenient) { continue; }
        st = target_fail_name(mem, base, kind_mask, "target_modules", r->modules.items[i]);
        goto out;
    }
    for (size_t i = 0; i < r->exclude.count && !lenient; i++) {
        if (!r->exclude_used[i]) {
            st = target_fail_name(mem, base, kind_mask, "exclude_modules", r->exclude.items[i]);
            goto out;
        }
    }
    for (size_t i = 0; i < r->layers.count && !lenient; i++) {
        if (!r->layer_used[i]) {
            FAIL(PEFT_E_NOT_FOUND, "layers_to_transform: no target is in layer %lld", (long long)r->layers.numbers[i]);
        }
    }
out:
    return st;
}

peft_status peft__target_match(peft__mem *mem, const peft__base_info *base, const peft__target *target, uint32_t kind_mask,
                               bool *matched) {
    peft_status st = PEFT_OK;
    target_rules r;
    size_t n = 0;
    peft__arena a;
    peft__arena_init(&a, mem);
    TRY(target_read_rules(&a, base, target, &r));
    for (size_t i = 0; i < base->n_sites; i++) {
        const peft__site *s = &base->sites[i];
        matched[i] = false;
        if ((kind_mask >> s->kind & 1u) == 0) { continue; }
        TRY(target_match_site(&r, s, &matched[i]));
        n += matched[i];
    }
    TRY(target_check_names(mem, base, &r, kind_mask, target->lenient));
    if (n == 0 && r.modules.count > 0) {
        bool any = false;
        for (size_t i = 0; i < r.modules.count; i++) { any = any || r.module_used[i]; }
        if (!any) {
            st = target_fail_name(mem, base, kind_mask, "target_modules", r.modules.items[0]);
            goto out;
        }
    }
    if (n == 0) {
        FAIL(PEFT_E_NOT_FOUND,
             "target_modules: no module is left after exclude_modules, modules_to_save and layers_to_transform");
    }
out:
    peft__arena_free(&a);
    return st;
}

peft_status peft__target_saved(peft__mem *mem, const peft__base_info *base, const char *modules_to_save, bool lenient,
                               bool *matched) {
    enum { KINDS = 1 << PEFT__SITE_LINEAR | 1 << PEFT__SITE_NORM | 1 << PEFT__SITE_EMBED | 1 << PEFT__SITE_HEAD };
    peft_status st = PEFT_OK;
    peft__names names;
    peft__arena a;
    peft__arena_init(&a, mem);
    memset(matched, 0, base->n_sites * sizeof *matched);
    TRY(peft__names_read(&a, modules_to_save, "modules_to_save", &names));
    if (names.pattern) { FAIL(PEFT_E_KEY, "modules_to_save is a pattern, and only names are taken there"); }
    for (size_t i = 0; i < names.count; i++) {
        bool found = lenient;
        for (size_t j = 0; j < base->n_sites; j++) {
            const peft__site *s = &base->sites[j];
            if ((KINDS >> s->kind & 1) == 0 || !peft__path_within(s->path, names.items[i])) { continue; }
            matched[j] = found = true;
        }
        if (!found) {
            st = target_fail_name(mem, base, KINDS, "modules_to_save", names.items[i]);
            goto out;
        }
    }
out:
    peft__arena_free(&a);
    return st;
}

/* ---- patterns ------------------------------------------------------------------------------------------------ */

peft_status peft__target_pattern(peft__mem *mem, const char *map, const char *path, double dflt, double *out) {
    peft_status st = PEFT_OK;
    const peft__json *node = NULL;
    peft__arena a;
    peft__arena_init(&a, mem);
    *out = dflt;
    if (map == NULL || map[0] == '\0') { goto out; }
    TRY(peft__json_parse(&a, map, strlen(map), "pattern", &node));
    if (node->kind != PEFT__JSON_OBJECT) { FAIL(PEFT_E_KEY, "a pattern is no object"); }
    for (size_t i = 0; i < node->len; i++) {
        bool hit;
        if (node->items[i].kind != PEFT__JSON_NUMBER) {
            FAIL(PEFT_E_KEY, "the value of pattern \"%s\" is no number", node->keys[i].str);
        }
        char *full = peft__arena_printf(&a, "(.*\\.)?(%s)$", node->keys[i].str);
        if (full == NULL) {
            st = PEFT_E_NOMEM;
            goto out;
        }
        TRY(peft__regex_match(full, path, true, &hit));
        if (hit) {
            *out = node->items[i].num;
            break;
        }
    }
out:
    peft__arena_free(&a);
    return st;
}
